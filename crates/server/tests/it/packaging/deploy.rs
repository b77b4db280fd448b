//! Functions of the deploy script, one by one. What it does to a host is tested in a booted container.

use super::packaging;
use std::path::Path;
use std::process::Command;

/// What a line of shell says and how it ends, with the script's functions at hand.
fn said(line: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let script = packaging().join("deploy/mutt-deploy.sh");
    let output = Command::new("bash")
        .env("MUTT_DEPLOY_HEALTH_SECONDS", "10")
        .args(["-c", &format!("SCRIPT=$1; shift; ARGUMENTS=(\"$@\"); set --; . \"$SCRIPT\"; LOG=/dev/null; set -- \"${{ARGUMENTS[@]}}\"; {line}"), "test"])
        .arg(script)
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text)
}

fn file(dir: &Path, text: &str) -> String {
    let path = dir.join("mutt.env");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_name_may_be_a_word_that_a_secret_may_not() {
    let dir = tempfile::tempdir().unwrap();
    let placeholders = |text: &str| said("check_placeholders \"$1\" it", &[&file(dir.path(), text)]);
    let guide = "VAULT_MOUNT_PATH=secret\nVAULT_SECRET_PATH=mutt/prod\nDB_NAME=password\nMOOG_RATE_LIMIT_KEY=mutt:rate\n\
        # WEBUI_API_KEY=changeme\nDB_PASS=a-password-of-our-own\n";
    assert_eq!(placeholders(guide), (Some(0), String::new()));
    for bad in [
        "DB_PASS=secret",
        "REDIS_PASS_NEXT=\"password\"",
        "WEBUI_API_KEY='secret'",
        "VAULT_TOKEN=password ",
        "DB_USER=changeme",
        "VAULT_ROLE_ID=your-approle-role-id",
        "POD_NAME=<host>",
        "VAULT_ADDR=https://vault.example.com:8200",
    ] {
        let (code, text) = placeholders(&format!("{guide}{bad}\n"));
        let (name, _) = bad.split_once('=').unwrap();
        // The name and nothing after it: the value is not shown.
        assert!(code == Some(2) && text.trim_end().ends_with(&format!("in: {name}")), "{bad}: {code:?} {text}");
    }
}

#[test]
fn an_answer_to_the_installer_is_what_systemd_gives_to_the_service() {
    let dir = tempfile::tempdir().unwrap();
    for value in ["plain-1", "a\\b\"c$d`e f", "'", " x ", "#;=\\", "\\\\", "\"\"", "ü%s*"] {
        let (_, line) = said("printf 'NAME=%s\\n' \"$(quoted \"$1\")\"", &[value]);
        assert_eq!(runtime::env_file::parse(&line)["NAME"], value, "{line}");
        assert_eq!(said("env_value \"$1\" NAME", &[&file(dir.path(), &line)]), (Some(0), value.to_owned()), "{line}");
    }
    let raw = file(dir.path(), "A=back\\slash  \nB='s\\x'\n");
    assert_eq!(said("env_value \"$1\" A; env_value \"$1\" B", &[&raw]), (Some(0), "backslashs\\x".to_owned()));
}

#[test]
fn services_are_asked_where_muttd_says_that_they_listen() {
    let dir = tempfile::tempdir().unwrap();
    let env = file(dir.path(), "MUTT_WEBUI_LISTEN=\"10.1.2.3:9999\"\nHEALTH_PORT_ALERTER=8181\n");
    let toml = dir.path().join("muttd.toml");
    std::fs::write(
        &toml,
        "listen_host = \"0.0.0.0\"\n[remediation]\nhealth_listen = \"\"\n[forwarder]\nhealth_listen = \"[::]:84\"\n",
    )
    .unwrap();
    let line = "STAGE=$(mktemp -d); TOPOLOGY=single; read_listens \"$1\" \"$2\" \"$3\"; \
        for s in webui alerter alerter@3 moog-forwarder remediation; do echo \"$s $(health_place $s)\"; done; all_ports";
    let (code, text) = said(line, &[env!("CARGO_BIN_EXE_muttd"), toml.to_str().unwrap(), &env]);
    assert_eq!(code, Some(0), "{text}");
    for wanted in [
        "webui 10.1.2.3:9999",
        "alerter 127.0.0.1:8181",
        "alerter@3 127.0.0.1:8123",
        "moog-forwarder [::1]:84",
        "remediation ",
        "tcp 5514",
        "udp 5514",
        "tcp 9999",
    ] {
        assert!(text.lines().any(|line| line == wanted), "{wanted}: {text}");
    }
}

#[test]
fn a_port_of_any_protocol_that_is_taken_is_refused() {
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for (protocol, port) in [("udp", udp.local_addr().unwrap().port()), ("tcp", tcp.local_addr().unwrap().port())] {
        let line = "STAGE=$(mktemp -d); TOPOLOGY=single; echo \"$1 0.0.0.0:$2 x\" >\"$STAGE/listens\"; check_ports";
        let (code, text) = said(line, &[protocol, &port.to_string()]);
        let wanted = format!("port {port}/{protocol} is taken by process {}", std::process::id());
        assert!(code == Some(2) && text.contains(&wanted), "{code:?} {text}");
    }
}

/// A service that gives this answer to whoever asks.
fn service(status: &'static str, body: &'static str) -> String {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4_096]);
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    address
}

#[test]
fn a_receiver_that_is_away_fails_no_installation_and_a_fault_of_ours_is_shown() {
    let healthy = |status, body| {
        let line = "STAGE=$(mktemp -d); TOPOLOGY=services; systemctl() { echo active; }; journalctl() { :; }; \
            echo \"tcp $1 forwarder.health_listen\" >\"$STAGE/listens\"; healthy moog-forwarder";
        said(line, &[&service(status, body)])
    };
    let (code, text) = healthy("200 OK", r#"{"status":"healthy"}"#);
    assert!(code == Some(0) && text.contains("moog-forwarder is healthy"), "{text}");
    let away = r#"{"status":"unhealthy","errors":["channel is not working"]}"#;
    let (code, text) = healthy("503 Service Unavailable", away);
    assert!(code == Some(0) && text.contains("the receiver of alerts does not answer"), "{text}");
    let ours = r#"{"status":"unhealthy","errors":["catalog is not working","channel is not working"]}"#;
    let (code, text) = healthy("503 Service Unavailable", ours);
    assert!(code != Some(0) && text.contains("it says 503") && text.contains("catalog is not working"), "{text}");
}

#[test]
fn vault_is_looked_for_where_muttd_asks_it() {
    let dir = tempfile::tempdir().unwrap();
    for (address, place) in [
        ("https://vault.company", "vault.company 443"),
        ("https://vault.company:8200/a", "vault.company 8200"),
        ("http://127.0.0.1", "127.0.0.1 80"),
        ("https://[::1]:8201", "::1 8201"),
        ("https://[fd00::1]", "fd00::1 443"),
    ] {
        let env = file(dir.path(), &format!("VAULT_ADDR={address}\n"));
        let line = "TOPOLOGY=single; probe() { echo \"$2 $3\"; }; check_stores \"$1\"";
        assert_eq!(said(line, &[&env]), (Some(0), format!("{place}\n")), "{address}");
    }
}
