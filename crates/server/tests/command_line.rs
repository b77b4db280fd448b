//! The binary as people use it: exit codes, messages, signals.

#![expect(clippy::unwrap_used, reason = "tests: a failure is a panic")]

#[path = "command_line/fleet.rs"]
mod fleet;
#[path = "command_line/rules.rs"]
mod rules;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn muttd(dir: &Path, args: &[&str], env: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_muttd"))
        .args(args)
        .current_dir(dir)
        .env_clear()
        .env("MUTT_DATA_DIR", dir.join("data"))
        .envs(env.iter().copied())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const CONFIG: &str = "[ingest.agents]\nlisten = \"\"\n[ingest.http]\nlisten = \"127.0.0.1:0\"\n[ingest.syslog]\nudp = \"\"\ntcp = \"\"\n\
    [alerter]\nmetrics_listen = \"\"\nhealth_listen = \"\"\n[forwarder]\nmetrics_listen = \"\"\nhealth_listen = \"\"\n\
    [remediation]\nmetrics_listen = \"\"\nhealth_listen = \"\"\n[webui]\nlisten = \"127.0.0.1:0\"\n";

/// A server process that is killed when the test ends.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Served {
    fn start(dir: &Path) -> Self {
        Self::start_with(dir, &[])
    }

    fn start_with(dir: &Path, env: &[(&str, &str)]) -> Self {
        let config = dir.join("c.toml");
        if !config.exists() {
            std::fs::write(&config, CONFIG).unwrap();
        }
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_muttd"))
            .args(["serve", "--config", "c.toml"])
            .current_dir(dir)
            .env_clear()
            .env("MUTT_DATA_DIR", dir.join("data"))
            .envs(env.iter().copied())
            .stderr(log)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let served = Self(child);
        wait_for(dir, || dir.join("data/running.json").exists());
        served
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.0.id().to_string()]).status().unwrap().success());
    }
}

fn wait_for(dir: &Path, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < end, "did not happen; the log:\n{}", log(dir));
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn log(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("log")).unwrap_or_default()
}

/// Posts one event; the id it got.
fn post(dir: &Path, message: &str) -> String {
    let running: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(dir.join("data/running.json")).unwrap()).unwrap();
    let key = std::fs::read_to_string(dir.join("data/keys/ingest_api_key")).unwrap();
    let body = format!(r#"{{"hostname":"h","message":"{message}","timestamp":"2026-01-01T00:00:00Z"}}"#);
    let mut stream = TcpStream::connect(running["ingest"].as_str().unwrap()).unwrap();
    write!(
        stream,
        "POST /ingest HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-API-KEY: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        key.trim(),
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let (_, json) = answer.split_once("\r\n\r\n").unwrap();
    let json: serde_json::Value = serde_json::from_str(json).unwrap();
    json["event_id"].as_str().unwrap().to_owned()
}

#[test]
fn silences_and_incidents_are_reached_through_the_server_and_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let output = muttd(dir.path(), &[args, &["--config", "c.toml"]].concat(), &[]);
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    let served = Served::start(dir.path());
    let add = ["silence", "add", "--host", "db-*", "--for", "2h", "--reason", "new disks"];
    assert!(run(&add).1.starts_with("silence 1 until 20"));
    let (_, listed) = run(&["silence", "list"]);
    assert!(listed.contains("holds") && listed.contains(r#"{"host":["db-*"]} new disks"#), "{listed}");
    assert!(run(&["silence", "add", "--for", "2h", "--reason", "r"]).1.contains("say which alerts"));
    drop(served);
    wait_for(dir.path(), || run(&["silence", "expire", "1"]) == (Some(0), "silence 1 is over\n".to_owned()));
    let (code, again) = run(&["silence", "expire", "1"]);
    assert!(code == Some(1) && again.contains("over already"), "{again}");
    assert!(run(&["silence", "list", "--all"]).1.contains("over"));
    let (code, listed) = run(&["incident", "list"]);
    assert!(code == Some(0) && listed.ends_with("0 in all\n"), "{listed}");
    let (code, said) = run(&["incident", "ack", "1", "--comment", "I look"]);
    assert!(code == Some(1) && said.contains("no such incident"), "{said}");
}

#[test]
fn a_route_is_tried_without_a_server() {
    let dir = tempfile::tempdir().unwrap();
    let channel = |name: &str| {
        format!("[[channel]]\ntype = \"moogsoft\"\nname = \"{name}\"\nurl = \"http://127.0.0.1:9/{name}\"\n")
    };
    let routes = "[[routes]]\nname = \"soc\"\nmatch = { tag = \"attack.t1110*\", severity = \"high\" }\nchannels = [\"pager\"]\n\
                  group_wait = \"30s\"\n";
    std::fs::write(dir.path().join("r.toml"), format!("{}{}{routes}", channel("moog"), channel("pager"))).unwrap();
    let run = |args: &[&str]| {
        let output = muttd(dir.path(), &[&["route"], args, &["--config", "r.toml"]].concat(), &[]);
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    let (code, told) = run(&["test", "--severity", "high", "--tag", "attack.t1110.001", "--team", "SOC"]);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("route      routes[0] (soc)\ntold       pager\nincident "), "{told}");
    assert!(told.contains("\nfirst      after 30s, with those that come until then\n"), "{told}");
    let (_, told) = run(&["test", "--severity", "low", "--tag", "attack.t1110"]);
    assert!(told.contains("route      no route: everybody\ntold       moog, pager\n"), "{told}");
    std::fs::write(dir.path().join("a.json"), r#"{"detection":{"tags":["attack.t1110"],"level":"critical"}}"#).unwrap();
    let (_, told) = run(&["test", "--alert", "a.json", "--json"]);
    let verdict: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(verdict["receivers"], serde_json::json!(["pager"]));
    let rules = "rules:\n  - name: disk\n    match_string: disk\n    prod_handling: Page_only\n    dev_handling: Ignore\n    team_assignment: NetOps\n    tests:\n      match: [\"disk failing\"]\n";
    std::fs::write(dir.path().join("rules.yml"), rules).unwrap();
    let output = muttd(dir.path(), &["rules", "test", "rules.yml", "--who", "--config", "r.toml"], &[]);
    let who = text(&output.stdout) + &text(&output.stderr);
    assert!(who.contains("\"disk failing\" for NetOps: moog, pager\n"), "{who}");
    let (code, said) = run(&["test", "--severity", "loud"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("severity: `loud` is not"), "{said}");
    let (_, tree) = run(&["show"]);
    assert!(tree.contains("soc: {\"severity\":\"high\",\"tag\":[\"attack.t1110*\"]} -> pager"), "{tree}");
    assert!(!dir.path().join("data").exists(), "nothing was made");
}

#[test]
fn help_teaches_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let help = muttd(dir.path(), &["--help"], &[]);
    assert!(help.status.success());
    let help = text(&help.stdout);
    for command in [
        "serve",
        "check-config",
        "queue",
        "trace",
        "rules",
        "admin",
        "agents",
        "openapi",
        "migrate",
        "retention",
        "doctor",
        "backup",
        "restore",
        "demo",
    ] {
        assert!(help.contains(command), "{command}");
        let of = muttd(dir.path(), &[command, "--help"], &[]);
        assert!(of.status.success() && !of.stdout.is_empty(), "{command}");
    }
    assert_eq!(muttd(dir.path(), &["fly"], &[]).status.code(), Some(2));
}

#[test]
fn check_config_lists_every_mistake_and_exits_2() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("bad.toml"), "roles = [\"alert\"]\n[queue]\nlease_ms = 1\n").unwrap();
    let bad = muttd(dir.path(), &["check-config", "--config", "bad.toml"], &[("MOOG_RATE_LIMIT", "x")]);
    assert_eq!(bad.status.code(), Some(2));
    let said = text(&bad.stderr);
    for part in ["3 problems", "roles[0]", "did you mean `alerter`?", "queue.lease_ms", "MOOG_RATE_LIMIT"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(muttd(dir.path(), &["check-config"], &[]).status.success());
    let printed = muttd(dir.path(), &["check-config", "--print"], &[("INGEST_API_KEY", "hush-hush")]);
    assert!(!text(&printed.stdout).contains("hush-hush"), "keys are hidden");
    let defaults = muttd(dir.path(), &["check-config", "--defaults"], &[]);
    std::fs::write(dir.path().join("d.toml"), &defaults.stdout).unwrap();
    assert!(
        muttd(dir.path(), &["check-config", "--config", "d.toml"], &[]).status.success(),
        "the defaults are a valid file"
    );
    std::fs::write(dir.path().join("fields.yml"), "mappings:\n  - wen: {a: b}\n    fields: {User: who}\n").unwrap();
    let unmapped = muttd(dir.path(), &["check-config"], &[("MUTT_DETECTION_FIELDS", "fields.yml")]);
    let said = text(&unmapped.stdout);
    assert!(!unmapped.status.success() && said.contains("fields: fields.yml:2: mappings[0]: `wen`"), "{said}");
}

#[test]
fn rules_are_linted_and_tested_from_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let rules = "rules:\n  - name: link\n    match_string: LINK-DOWN\n    prod_handling: Page_and_ticket\n    dev_handling: Ignore\n    team_assignment: NetOps\n    tests:\n      match: [\"a LINK-DOWN b\"]\n      no_match: [\"LINK-UP\"]\n";
    std::fs::write(dir.path().join("r.yml"), rules).unwrap();
    let good = muttd(dir.path(), &["rules", "test", "r.yml"], &[]);
    assert!(good.status.success());
    assert!(text(&good.stdout).contains("2 passed, 0 failed"), "{}", text(&good.stdout));
    std::fs::write(dir.path().join("r.yml"), rules.replace("\"LINK-UP\"", "\"LINK-DOWN\"")).unwrap();
    assert_eq!(muttd(dir.path(), &["rules", "test", "r.yml"], &[]).status.code(), Some(1));
    std::fs::write(dir.path().join("r.yml"), rules.replace("match_string", "match_strng")).unwrap();
    let lint = muttd(dir.path(), &["rules", "lint", "r.yml"], &[]);
    assert_eq!(lint.status.code(), Some(1));
    assert!(
        text(&lint.stdout).contains("r.yml") && text(&lint.stdout).contains("match_string"),
        "{}",
        text(&lint.stdout)
    );
}

#[test]
fn commands_answer_alike_while_the_server_runs_and_when_it_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let mut served = Served::start(path);
    let rules = "rules:\n  - name: r\n    match_string: NOTED\n    prod_handling: Ignore\n    dev_handling: Ignore\n    team_assignment: A\n";
    std::fs::write(path.join("r.yml"), rules).unwrap();
    let imported = muttd(path, &["rules", "import", "r.yml"], &[]);
    assert!(imported.status.success(), "{}", text(&imported.stderr));
    std::thread::sleep(Duration::from_secs(1));
    let id = post(path, "NOTED well");
    let traced = || muttd(path, &["trace", &id], &[]);
    wait_for(path, || text(&traced().stdout).contains("NOTED well"));
    let running = traced();
    let ls = muttd(path, &["queue", "ls"], &[]);
    assert!(text(&ls.stdout).contains("ingest") && text(&ls.stdout).contains("dlq-moog"), "{}", text(&ls.stderr));
    assert!(muttd(path, &["queue", "doctor"], &[]).status.success());
    for choice in [&[][..], &["--position", "7"], &["--reason", "HTTP 401"]] {
        let done = muttd(path, &[&["queue", "replay", "dead"], choice].concat(), &[]);
        assert!(text(&done.stdout).contains("replayed 0"), "{choice:?}: {}", text(&done.stderr));
    }
    assert!(muttd(path, &["doctor"], &[]).status.success());
    served.signal("-TERM");
    assert!(served.0.wait().unwrap().success());
    let offline = traced();
    assert!(offline.status.success(), "{}", text(&offline.stderr));
    assert!(text(&offline.stdout).contains("NOTED well") && text(&running.stdout).contains("NOTED well"));
    assert!(text(&muttd(path, &["queue", "ls"], &[]).stdout).contains("ingest"));
    let unknown = muttd(path, &["trace", "evt_00000000000000000000000000"], &[]);
    assert_eq!(unknown.status.code(), Some(1));
    assert_eq!(muttd(path, &["trace", "nonsense"], &[]).status.code(), Some(1));
}

#[test]
fn a_look_makes_no_store_and_no_key_and_says_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    for args in [&["queue", "ls"][..], &["trace", "evt_00000000000000000000000000"], &["admin", "user", "list"]] {
        let looked = muttd(dir.path(), args, &[]);
        let said = text(&looked.stderr);
        assert!(looked.status.code() == Some(1) && said.contains("no server runs on"), "{args:?}: {said}");
        assert!(said.contains("--env-file /etc/mutt/mutt.env"), "{said}");
        assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0, "{args:?} made something");
    }
}

/// As where it is installed by script: keys and stores are in a file that systemd reads.
#[test]
fn commands_take_the_settings_of_a_file_as_the_services_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let key = "of the $(touch pwned) `file`";
    let served = Served::start_with(path, &[("WEBUI_API_KEY", key)]);
    let keys = path.join("data/keys/webui_api_key");
    let ls = |more: &[&str], env: &[(&str, &str)]| {
        let done = muttd(path, &[&["queue", "ls"], more].concat(), env);
        (done.status.code(), text(&done.stdout) + &text(&done.stderr))
    };
    let (code, said) = ls(&[], &[]);
    assert!(code == Some(1) && said.contains("there is no key") && said.contains("--env-file"), "{said}");
    assert!(!keys.exists(), "a command makes no key");
    std::fs::write(path.join("m.env"), "# comment\nWEBUI_API_KEY=\"of the \\$(touch pwned) \\`file\\`\"\n").unwrap();
    let (code, said) = ls(&["--env-file", "m.env"], &[]);
    assert!(code == Some(0) && said.contains("dlq-moog"), "{said}");
    assert!(!path.join("pwned").exists(), "nothing is run");
    // What the process has wins, and a refusal says whose key it was.
    let (code, said) = ls(&["--env-file", "m.env"], &[("WEBUI_API_KEY", "not this")]);
    assert!(code == Some(1) && said.contains("refuses the key of WEBUI_API_KEY"), "{said}");
    assert!(!said.contains("not this"), "{said}");
    assert_eq!(ls(&["--env-file", "nowhere.env"], &[]).0, Some(1));
    // The data directory of all services, with one below it.
    let above = path.to_str().unwrap();
    let (code, said) = ls(&["--env-file", "m.env", "--data-dir", above], &[]);
    assert!(code == Some(0) && said.contains("dlq-moog"), "{said}");
    std::fs::write(path.join("bad.env"), "MOOG_RATE_LIMIT=many\n").unwrap();
    let checked = muttd(path, &["check-config", "--env-file", "bad.env"], &[]);
    assert_eq!(checked.status.code(), Some(2), "{}", text(&checked.stderr));
    drop(served);
}

#[test]
fn doctor_knows_its_own_services_on_their_ports_and_foreign_ones() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let _served = Served::start(path);
    let running: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path.join("data/running.json")).unwrap()).unwrap();
    let (ingest, webui) = (running["ingest"].as_str().unwrap(), running["webui"].as_str().unwrap());
    // A gateway for agents does not say whose it is, no more than syslog does.
    let gateway = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let agents = format!("listen = \"{}\"", gateway.local_addr().unwrap());
    let doctor = |ingest: &str| {
        let config = CONFIG.replacen("listen = \"\"", &agents, 1);
        let config = config.replacen("127.0.0.1:0", ingest, 1).replacen("127.0.0.1:0", webui, 1);
        std::fs::write(path.join("fixed.toml"), config).unwrap();
        let listens = muttd(path, &["check-config", "--listens", "--config", "fixed.toml"], &[]);
        assert!(text(&listens.stdout).contains(&format!("tcp {ingest} ingest.http.listen\n")), "{listens:?}");
        let elsewhere = path.join("elsewhere");
        let args = ["doctor", "--config", "fixed.toml", "--data-dir", elsewhere.to_str().unwrap()];
        let done = muttd(path, &args, &[]);
        (done.status.code(), text(&done.stdout))
    };
    let (code, said) = doctor(ingest);
    assert!(code == Some(0) && said.contains("mutt-ingestor runs on") && said.contains("mutt-webui runs on"), "{said}");
    assert!(said.contains("(ingest.agents.listen)"), "{said}");
    let foreign = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    // Somebody who takes connections and says nothing of ours.
    let address = foreign.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in foreign.incoming() {
            drop(stream)
        }
    });
    let (code, said) = doctor(&address);
    assert!(code == Some(1) && said.contains(&format!("cannot listen on {address}")), "{said}");
}

/// Users by command, through a running server that speaks TLS and on the stores of one that does not run.
#[test]
fn users_are_managed_by_command_and_their_keys_work() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let certs = testkit::servers::TestCerts::write(path);
    let tls = format!("tls_cert = \"{}\"\ntls_key = \"{}\"\n", certs.cert.display(), certs.key.display());
    let config = CONFIG.replace("[webui]\n", &format!("[webui]\n{tls}"));
    assert_ne!(config, CONFIG);
    std::fs::write(path.join("c.toml"), config).unwrap();
    let mut served = Served::start(path);
    let added = muttd(path, &["admin", "user", "add", "bob", "--role", "operator", "--reason", "new here"], &[]);
    assert!(added.status.success(), "{}", text(&added.stderr));
    let said = text(&added.stdout);
    let key = said.lines().find(|line| line.starts_with("muk_")).unwrap_or_else(|| panic!("no key: {said}")).to_owned();
    let more = muttd(path, &["admin", "user", "key", "add", "bob", "--label", "laptop"], &[]);
    assert!(more.status.success(), "{}", text(&more.stderr));
    let listed = text(&muttd(path, &["admin", "user", "list"], &[]).stdout);
    assert!(listed.contains("bob") && listed.contains("laptop") && !listed.contains(&key[4..]), "{listed}");
    served.signal("-TERM");
    assert!(served.0.wait().unwrap().success());

    for (args, says) in [
        (&["admin", "user", "key", "revoke", "bob", "2"][..], "revoked key 2 of bob"),
        (&["admin", "user", "role", "bob", "viewer"][..], "bob is viewer now"),
        (&["admin", "user", "key", "list", "bob"][..], "revoked"),
        (&["admin", "user", "remove", "bob"][..], "deleted bob"),
    ] {
        let done = muttd(path, args, &[]);
        assert!(done.status.success() && text(&done.stdout).contains(says), "{args:?}: {}", text(&done.stderr));
    }
    let gone = muttd(path, &["admin", "user", "remove", "bob"], &[]);
    assert!(gone.status.code() == Some(1) && text(&gone.stderr).contains("User not found"), "{}", text(&gone.stderr));
    let kept = std::fs::read(path.join("data/catalog.db")).unwrap();
    assert!(!kept.windows(16).any(|bytes| bytes == &key.as_bytes()[4..20]), "only the fingerprint was ever kept");
}

#[test]
fn the_openapi_document_is_printed() {
    let dir = tempfile::tempdir().unwrap();
    let printed = muttd(dir.path(), &["openapi"], &[]);
    let document: serde_json::Value = serde_json::from_slice(&printed.stdout).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    assert!(document["paths"]["/api/v2/ingest"]["post"].is_object() && document["paths"]["/api/v2/users"].is_object());
}

#[test]
fn sigterm_ends_clean_and_says_so_and_sighup_reloads_without_a_stop() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let mut served = Served::start(path);
    post(path, "before");
    std::fs::write(path.join("c.toml"), format!("{CONFIG}\n[retention]\nevents_dayz = 1\n")).unwrap();
    served.signal("-HUP");
    wait_for(path, || log(path).contains("events_dayz"));
    std::fs::write(path.join("c.toml"), CONFIG).unwrap();
    served.signal("-HUP");
    wait_for(path, || log(path).contains("configuration and rules reloaded"));
    post(path, "after");
    served.signal("-TERM");
    let ended = served.0.wait().unwrap();
    assert!(ended.success());
    assert!(log(path).contains("stopped clean"), "{}", log(path));
    for name in ["ingest_api_key", "webui_api_key"] {
        let key = std::fs::read_to_string(path.join("data/keys").join(name)).unwrap();
        assert!(!log(path).contains(key.trim()), "no key in the log");
    }
    assert!(!path.join("data/running.json").exists());
}

#[test]
fn a_backup_while_events_flow_holds_everything_acknowledged_before_it_began() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(dir.path());
    let mut before: Vec<String> = (0..200).map(|n| post(dir.path(), &format!("early {n}"))).collect();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let flow = scope.spawn(|| {
            let mut n = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                post(dir.path(), &format!("meanwhile {n}"));
                n += 1;
            }
            n
        });
        // Several, so that some fall between the moving of events from queue to stores.
        for round in 0..5 {
            before.push(post(dir.path(), &format!("before {round}")));
            let to = format!("backup-{round}");
            let made = muttd(dir.path(), &["backup", "--to", &to, "--config", "c.toml"], &[]);
            assert!(made.status.success(), "{}", text(&made.stderr));
            let sound = muttd(dir.path(), &["backup", "verify", &to], &[]);
            assert!(sound.status.success(), "{}", text(&sound.stderr));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(flow.join().unwrap() > 0);
    });
    let over = muttd(dir.path(), &["restore", "--from", "backup-4", "--force"], &[]);
    assert_eq!(over.status.code(), Some(1), "never under a running server");
    assert!(text(&over.stderr).contains("stop it first"), "{}", text(&over.stderr));
    drop(served);

    let other = tempfile::tempdir().unwrap();
    let from = dir.path().join("backup-4");
    let restored = muttd(other.path(), &["restore", "--from", from.to_str().unwrap()], &[]);
    assert!(restored.status.success(), "{}", text(&restored.stderr));
    let again = muttd(other.path(), &["restore", "--from", from.to_str().unwrap()], &[]);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("--force"), "{}", text(&again.stderr));
    let served = Served::start(other.path());
    let key = std::fs::read_to_string(dir.path().join("data/keys/ingest_api_key")).unwrap();
    let copied = std::fs::read_to_string(other.path().join("data/keys/ingest_api_key")).unwrap();
    assert_eq!(key, copied, "devices keep their key");
    for id in &before {
        wait_for(other.path(), || {
            let traced = muttd(other.path(), &["trace", id, "--config", "c.toml"], &[]);
            traced.status.success() && !text(&traced.stdout).contains("not found")
        });
    }
    assert!(!log(other.path()).contains("damage"), "{}", log(other.path()));
    drop(served);
    std::fs::write(from.join("keys/ingest_api_key"), "x").unwrap();
    assert_eq!(muttd(dir.path(), &["backup", "verify", "backup-4"], &[]).status.code(), Some(1));
}

#[test]
fn systemd_is_told_of_start_life_reload_and_stop() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // The next message that begins so; signs of life come in between.
    let told = |start: &str| {
        let mut buffer = [0; 4096];
        loop {
            let n = socket.recv(&mut buffer).unwrap_or_else(|e| panic!("no {start}: {e}; {}", log(dir.path())));
            let message = text(&buffer[..n]);
            if message.starts_with(start) {
                return message;
            }
        }
    };
    let env = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "500000")];
    let served = Served::start_with(dir.path(), &env);
    assert!(
        told("READY=1").contains("STATUS=roles ingestor, alerter, forwarder, remediation, webui; ingest 127.0.0.1:")
    );
    post(dir.path(), "ready means that it answers");
    for _ in 0..3 {
        told("WATCHDOG=1");
    }
    served.signal("-HUP");
    told("RELOADING=1");
    assert!(told("READY=1").contains("the configuration was reloaded"));
    std::fs::write(dir.path().join("c.toml"), "nonsense = 1\n").unwrap();
    served.signal("-HUP");
    told("RELOADING=1");
    assert!(told("READY=1").contains("NOT reloaded"), "a bad file leaves the old settings in force, and says so");
    served.signal("-TERM");
    assert!(told("STOPPING=1").contains("EXTEND_TIMEOUT_USEC=30000000"), "the drain and some slack");
}

#[test]
fn retention_says_what_it_would_take_and_takes_it_unless_it_is_off() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let failed = |args: &[&str], env: &[(&str, &str)]| {
        let output = muttd(path, args, env);
        assert!(!output.status.success(), "{args:?}: {}", text(&output.stdout));
        text(&output.stderr)
    };
    let said = |args: &[&str], env: &[(&str, &str)]| {
        let output = muttd(path, args, env);
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    assert!(failed(&["retention", "show"], &[]).contains("no data directory"));
    std::fs::create_dir(path.join("data")).unwrap();
    assert!(failed(&["retention", "show"], &[]).contains("lacks 8 step(s): `muttd migrate`"));
    assert!(
        said(&["migrate", "--dry-run"], &[]).contains("steps that a run would make:\n  1: catalog\n  2: catalog\n")
    );
    assert!(!path.join("data/catalog.db").exists(), "a dry run makes nothing");
    said(&["migrate"], &[]);
    assert!(said(&["migrate", "--dry-run"], &[]).contains("nothing to do"));

    let catalog = rusqlite::Connection::open(path.join("data/catalog.db")).unwrap();
    let insert = "INSERT INTO config_audit_log (org, changed_at, changed_by, operation, table_name, record_id, \
                  correlation_id) VALUES ('default', 0, 'a', 'CREATE', 't', 1, 'c')";
    catalog.execute(insert, []).unwrap();
    let rows = || -> i64 { catalog.query_row("SELECT count(*) FROM config_audit_log", [], |row| row.get(0)).unwrap() };

    let show = said(&["retention", "show"], &[("CONFIG_AUDIT_RETENTION_DAYS", "400")]);
    assert!(show.contains("audit of changes 400 days") && show.contains("1  audit rows of changes"), "{show}");
    let show: serde_json::Value = serde_json::from_str(&said(&["retention", "show", "--json"], &[])).unwrap();
    assert_eq!(show["policy"]["event_days"], 90);
    assert_eq!(
        (&show["would"]["config_audit_deleted"], &show["holdings"]["archive"]),
        (&1.into(), &serde_json::Value::Null)
    );
    said(&["retention", "run", "--dry-run"], &[]);
    said(&["retention", "run"], &[("RETENTION_DRY_RUN", "true")]);
    assert!(failed(&["retention", "run"], &[("RETENTION_ENABLED", "false")]).contains("retention is off"));
    let state = rusqlite::Connection::open(path.join("data/state.db")).unwrap();
    let set = |value: &str| {
        let sql = "INSERT OR REPLACE INTO settings (key, value) VALUES ('config_audit_retention_days', ?)";
        state.execute(sql, [value]).unwrap();
    };
    set("seven years");
    let refused = failed(&["retention", "run"], &[]);
    assert!(refused.contains("config_audit_retention_days: `seven years` is not a whole number"), "{refused}");
    assert_eq!(rows(), 1);
    set("400");
    let did: serde_json::Value = serde_json::from_str(&said(&["retention", "run", "--json"], &[])).unwrap();
    assert_eq!((&did["did"]["config_audit_deleted"], &did["policy"]["config_audit_days"]), (&1.into(), &400.into()));
    assert_eq!(rows(), 0);
}

/// Python knows look-ahead and backreferences; a linear matcher does not.
#[test]
fn doctor_names_rules_that_cannot_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    assert!(muttd(path, &["migrate"], &[]).status.success());
    let rules = |output: &Output| -> Vec<String> {
        text(&output.stdout).lines().filter(|line| line.contains("rule")).map(str::to_owned).collect()
    };
    let catalog = rusqlite::Connection::open(path.join("data/catalog.db")).unwrap();
    for (pattern, is_active) in [("link (?!up)", 1), ("(a)\\1", 0), ("link down", 1)] {
        let sql = "INSERT INTO alert_rules (match_string, match_type, prod_handling, dev_handling, team_assignment, \
                   is_active) VALUES (?, 'regex', 'Page_only', 'Ignore', 'NETO', ?)";
        catalog.execute(sql, rusqlite::params![pattern, is_active]).unwrap();
    }
    let doctor = muttd(path, &["doctor"], &[]);
    let named = rules(&doctor);
    assert!(named.len() == 1 && named[0].starts_with("BAD   rule 1 is not used: match_string: "), "{named:?}");
    assert!(!doctor.status.success());
    catalog.execute("DELETE FROM alert_rules WHERE id = 1", []).unwrap();
    assert_eq!(rules(&muttd(path, &["doctor"], &[])), ["ok    all 1 active rules of the catalog can be used"]);
}
