//! `muttd rules …` as people use it.

use super::{Served, muttd, text};
use serde_json::Value;
use std::path::Path;

const SIGMA: &str = "\
title: Failed login
name: failed
status: test
level: high
logsource: {product: linux, service: sshd}
detection: {s: {event_type: ssh_fail}, condition: s}
examples:
  match:
    - 'sshd[7]: Failed password for root from 203.0.113.7 port 22 ssh2'
  no_match:
    - 'sshd[7]: Accepted password for bob from 203.0.113.7 port 22 ssh2'
---
title: Three failed logins
id: 6a9f6dd4-52a6-4a9a-9a1e-000000000001
status: test
level: critical
tags: [attack.t1110.001]
correlation: {type: event_count, rules: [failed], group-by: [SourceIp], timespan: 5m, condition: {gte: 3}}
examples:
  match:
    - ['0s x3/10s sshd[7]: Failed password for root from 203.0.113.7 port 40{n} ssh2']
  no_match:
    - ['0s x3/4m sshd[7]: Failed password for root from 203.0.113.7 port 40{n} ssh2']
";

fn run(dir: &Path, args: &[&str]) -> (Option<i32>, String) {
    let output = muttd(dir, &[&["rules"], args].concat(), &[]);
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

fn lines(said: &str) -> Vec<Value> {
    said.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
}

#[test]
fn rules_of_sigma_are_tested_by_the_examples_beside_them() {
    let dir = tempfile::tempdir().unwrap();
    let write = |text: &str| std::fs::write(dir.path().join("s.yml"), text).unwrap();
    write(SIGMA);
    assert_eq!(
        run(dir.path(), &["test", "s.yml"]),
        (Some(0), "2 rule(s) in 1 file(s): 4 passed, 0 failed\n".to_owned())
    );

    write(&SIGMA.replace("Accepted password for bob", "Failed password for bob").replace("x3/10s", "x2/10s"));
    let (code, said) = run(dir.path(), &["test", "s.yml"]);
    assert_eq!(code, Some(1));
    for part in [
        "FAILED s.yml:11: \"Failed login\" must not match: sshd[7]: Failed password for bob from 203.0.113.7 port 22 ssh2\n    \
         yes event_type ",
        "FAILED s.yml:21: \"Three failed logins\" must match: sshd[7]: Failed password for root from 203.0.113.7 port 401 ssh2",
        "… 2 events\n    it wants 3 or more events of failed within 5m, by SourceIp\n    failed: seen 2 time(s) in 2 event(s)\n",
        "2 passed, 2 failed",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    let (code, said) = run(dir.path(), &["test", "s.yml", "--json"]);
    let said = lines(&said);
    assert_eq!((code, said.len()), (Some(1), 5));
    let failed: Vec<(&Value, &Value)> =
        said.iter().filter(|one| one["passed"] == false).map(|one| (&one["line"], &one["must_match"])).collect();
    assert_eq!(failed, [(&11.into(), &false.into()), (&21.into(), &true.into())]);
    assert_eq!(said[4]["summary"]["failed"], 2);

    write(&SIGMA.replace("x3/10s", "x3/10y"));
    let (code, said) = run(dir.path(), &["test", "s.yml"]);
    assert!(
        code == Some(1) && said.starts_with("error: s.yml:21: \"Three failed logins\": examples.match: a step"),
        "{said}"
    );
    write(&SIGMA.replace("condition: s}", "condition: t}"));
    let (code, said) = run(dir.path(), &["test", "s.yml"]);
    assert!(code == Some(1) && said.contains("error: s.yml:6"), "a rule that cannot be used: {said}");
}

#[test]
fn the_rules_that_ship_pass_their_examples_at_the_operators_too() {
    let dir = tempfile::tempdir().unwrap();
    let (code, said) = run(dir.path(), &["test"]);
    assert!(code == Some(0) && said.contains(" in 12 file(s): ") && said.ends_with(" passed, 0 failed\n"), "{said}");
    let passed: u32 = said.split(" passed").next().unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    assert!(passed > 400, "{said}");
    assert!(!dir.path().join("data").exists(), "nothing was made");
}

#[test]
fn an_event_is_tried_and_it_is_said_who_would_be_told() {
    let dir = tempfile::tempdir().unwrap();
    let channel = |name: &str| {
        format!("[[channel]]\ntype = \"moogsoft\"\nname = \"{name}\"\nurl = \"http://127.0.0.1:9/{name}\"\n")
    };
    let routes = "[[routes]]\nmatch = { tag = \"attack.t1110*\" }\nchannels = [\"pager\"]\n";
    std::fs::write(dir.path().join("c.toml"), channel("moog") + &channel("pager") + routes).unwrap();
    std::fs::write(dir.path().join("s.yml"), SIGMA).unwrap();
    let row = "rules:\n  - {name: login, match_string: Failed password, prod_handling: Page_only, dev_handling: Ignore, team_assignment: NetOps}\n";
    std::fs::write(dir.path().join("row.yml"), row).unwrap();
    let event = |second: u32| {
        format!(
            "{{\"program\":\"sshd\",\"message\":\"Failed password for root from 203.0.113.7 port 22 ssh2\",\"timestamp\":\"2026-11-26T01:00:0{second}Z\"}}\n"
        )
    };
    std::fs::write(dir.path().join("e.jsonl"), (0..3).map(event).collect::<String>()).unwrap();
    let files = ["s.yml", "row.yml", "--config", "c.toml"];
    let (code, said) = run(dir.path(), &[&["test", "--event", "e.jsonl"], &files[..]].concat());
    assert_eq!(code, Some(0), "{said}");
    let third = said.split("event 2: ").nth(1).unwrap();
    for part in [
        "  row         \"login\" for NetOps: moog, pager\n",
        "  rule        \"Failed login\" (failed, high) for Security: nobody (it is counted by correlations)\n",
        "  correlation \"Three failed logins\" (6a9f6dd4-52a6-4a9a-9a1e-000000000001, critical), SourceIp 203.0.113.7 for Security: pager\n",
    ] {
        assert!(third.contains(part), "{part}\n{said}");
    }
    assert!(!said.split("event 2: ").next().unwrap().contains("correlation \""), "two are not three: {said}");
    let (_, said) = run(dir.path(), &[&["test", "--event", "e.jsonl", "--json"], &files[..]].concat());
    let fired: Vec<Value> = lines(&said).into_iter().filter(|one| one["kind"] == "correlation").collect();
    assert_eq!((fired.len(), &fired[0]["told"], &fired[0]["event"]), (1, &serde_json::json!(["pager"]), &2.into()));
    let (_, said) = run(dir.path(), &[&["test", "--who"], &files[..]].concat());
    assert!(said.contains("s.yml:13: \"Three failed logins\" for Security: pager\n"), "{said}");

    std::fs::write(dir.path().join("e.jsonl"), "{\"message\": \n").unwrap();
    let (code, said) = run(dir.path(), &[&["test", "--event", "e.jsonl"], &files[..]].concat());
    assert_eq!(code, Some(1), "{said}");
}

#[test]
fn documents_are_imported_listed_switched_and_put_back_through_the_server_and_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let run = |args: &[&str]| run(dir.path(), &[args, &["--config", "c.toml"]].concat());
    std::fs::create_dir_all(at("own/linux")).unwrap();
    std::fs::write(at("own/linux/ssh.yml"), SIGMA).unwrap();
    std::fs::write(
        at("own/slip.yml"),
        SIGMA.replace("condition: s}", "condition: t}").replace("name: failed", "name: slip"),
    )
    .unwrap();
    std::fs::write(at("own/notes.md"), "#").unwrap();
    let served = Served::start(dir.path());

    let (code, said) = run(&["import", "own"]);
    assert_eq!(code, Some(1), "{said}");
    for part in ["error: own/slip.yml:6: \"Failed login\"", "nothing was imported: ", "--partial takes those that can"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    let (code, said) = run(&["import", "own", "--partial", "--dry-run"]);
    assert!(
        said.contains("documents  1 new, 0 changed, 0 unchanged, 0 removed, 1 refused, 0 skipped\nrules      2 new"),
        "{said}"
    );
    assert!(code == Some(1) && said.contains("this is a dry run"), "{said}");
    std::fs::remove_file(at("own/slip.yml")).unwrap();
    let (code, said) = run(&["import", "own", "--reason", "ours"]);
    assert!(code == Some(0) && said.contains("documents  1 new") && said.contains("it acts within a second"), "{said}");

    let (code, listed) = run(&["list", "--source", "document"]);
    assert!(code == Some(0) && listed.contains("on       high          document"), "{listed}");
    assert!(listed.ends_with("2 in all: 2 on, 0 in dry run, 0 off\n"), "{listed}");
    let (code, said) = run(&["set", "failed", "--state", "dry-run", "--team", "SOC"]);
    assert_eq!((code, &*said), (Some(0), "\"Failed login\" is dry-run, high, for SOC; it holds within a second\n"));
    let (_, said) = run(&["set", "failed", "--level", "low"]);
    assert!(said.contains("is dry-run, low, for SOC"), "the rest stays: {said}");
    let (code, shown) = run(&["show", "failed"]);
    for part in [
        "state            dry-run (as was said)",
        "level            low (its own: high)",
        "from             document linux/ssh.yml:1",
        "event_type is",
        "title: Failed login",
    ] {
        assert!(code == Some(0) && shown.contains(part), "{part}: {shown}");
    }
    let (_, said) = run(&["set", "failed", "--default"]);
    assert!(said.contains("is on, high (as its author says)"), "{said}");
    assert!(run(&["set", "failed"]).1.contains("say what is to change"));
    assert!(run(&["set", "failed", "--state", "loud"]).1.contains("state: it must be one of on, dry-run, off"));
    let (code, said) = run(&["show", "fail"]);
    assert!(
        code == Some(1) && said.contains("there is no detection rule with the id or name `fail`; there are"),
        "{said}"
    );
    // The rules that ship are there, too.
    assert!(
        run(&["list", "--text", "brute"]).1.contains("ssh_brute_force")
            || run(&["show", "ssh_brute_force"]).0 == Some(0)
    );
    drop(served);

    std::fs::write(at("own/linux/ssh.yml"), SIGMA.replace("gte: 3", "gte: 4")).unwrap();
    let (code, said) = run(&["import", "own", "--remove-missing"]);
    assert!(code == Some(0) && said.contains("0 new, 1 changed"), "without the server: {said}");
    let (_, history) = run(&["history", "linux/ssh.yml"]);
    assert!(history.contains("muttd-cli") && history.contains("ours") && history.lines().count() == 3, "{history}");
    assert_eq!(run(&["history", "linux/ssh.yml", "--version", "1"]), (Some(0), SIGMA.to_owned()));
    let (code, said) = run(&["restore", "linux/ssh.yml", "1"]);
    assert!(code == Some(0) && said.contains("as version 3"), "{said}");
    let (code, said) = run(&["export", "kept"]);
    assert_eq!((code, &*said), (Some(0), "1 document(s) in kept\n"));
    assert_eq!(std::fs::read_to_string(at("kept/linux/ssh.yml")).unwrap(), SIGMA);
    assert!(run(&["export", "kept"]).1.contains("is there already"));
    assert_eq!(run(&["export", "kept.zip"]).0, Some(0));
    assert_eq!(run(&["remove", "linux/ssh.yml"]).0, Some(0));
    assert!(run(&["history"]).1.ends_with("0 in all\n"));
    let (code, said) = run(&["import", "kept.zip"]);
    assert!(code == Some(0) && said.contains("documents  1 new"), "{said}");
    assert!(run(&["history"]).1.contains("linux/ssh.yml"));

    let rows = "rules:\n  - {name: a, match_string: x, prod_handling: log, dev_handling: log, team_assignment: a}\n";
    std::fs::write(at("own/rows.yml"), rows).unwrap();
    let (code, said) = run(&["import", "own"]);
    assert!(code == Some(1) && said.contains("import the ones, then the others"), "{said}");
    assert_eq!(
        run(&["import", "own/rows.yml"]),
        (Some(0), "imported 1 rule(s); they act within a second\n".to_owned())
    );
}
