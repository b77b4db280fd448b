//! What stays when the installer comes again, and what is left when it has removed the agent.

use crate::host::{host, script};
use crate::plane::{Plane, agent};

const FOLDER: &str = "/opt/security-manager";

#[test]
fn an_upgrade_keeps_what_was_changed_and_needs_no_arguments() {
    let Some(host) = host() else { return };
    let plane = Plane::new();
    plane.put_agent(&agent("1.0.0"));
    let ended = host.install("bash", &["--token", &plane.token("acme"), "--ingest", &plane.address()], &[]);
    assert_eq!(ended.code, 0, "{}", ended.said);
    let conf = host.path(FOLDER).join("sm-agent.conf");
    let text = std::fs::read_to_string(&conf).unwrap().replace("LEVEL=info", "LEVEL=debug");
    // Without an end of line.
    std::fs::write(&conf, format!("# ours\n{text}SM_SPOOL_MB=64")).unwrap();
    let data = host.path("/var/lib/sm-agent/identity");
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(data.join("key.pem"), "a key").unwrap();
    let data = host.tree("/var/lib");
    plane.put_agent(&agent("2.0.0"));
    let ended = host.install("sh", &[], &[]);
    assert!(ended.code == 0 && ended.said.contains("sm-agent 2.0.0"), "{}", ended.said);
    assert_eq!(std::fs::read_to_string(&conf).unwrap(), format!("# ours\n{text}SM_SPOOL_MB=64\n"));
    // A new token changes the token.
    let token = plane.token("acme").replace("1751700000000", "1751700000001");
    let ended = host.install("sh", &["--token", &token, "--host", "web-1"], &[]);
    assert_eq!(ended.code, 0, "{}", ended.said);
    let settings = host.settings(FOLDER);
    for (name, value) in
        [("SM_TOKEN", &*token), ("SM_HOST_ID", "web-1"), ("SM_LOG_LEVEL", "debug"), ("SM_SPOOL_MB", "64")]
    {
        assert_eq!(settings[name], value);
    }
    assert_eq!(host.tree("/var/lib"), data, "key and records");
    // Records that wait are of the first.
    let ended = host.install("sh", &["--token", &plane.token("other")], &[]);
    assert!(ended.code == 1 && ended.said.contains("enrolled with the organisation acme"), "{}", ended.said);
}

#[test]
fn settings_of_an_original_are_taken_over() {
    let Some(host) = host() else { return };
    let plane = Plane::new();
    plane.put_agent(&agent("1.0.0"));
    std::fs::create_dir(host.path(FOLDER)).unwrap();
    let old = format!(
        "\u{feff}SM_ORG_ID=acme\r\nSM_TOKEN=sm_acme_1_old\r\nSM_INGEST_URL={}\r\nSM_HOST_ID=web-1\r\nSM_USE_TLS=false\r\n",
        plane.address()
    );
    std::fs::write(host.path(FOLDER).join("sm-agent.conf"), old).unwrap();
    // Its token names no authority, and nobody is believed for that.
    let ended = host.install("sh", &[], &[]);
    assert!(ended.code == 1 && ended.said.contains("this token names no authority"), "{}", ended.said);
    let token = plane.token("acme");
    let ended = host.install("sh", &[&format!("SM_TOKEN={token}")], &[]);
    assert_eq!(ended.code, 0, "{}", ended.said);
    let settings = host.settings(FOLDER);
    for (name, value) in [("SM_TOKEN", &*token), ("SM_HOST_ID", "web-1"), ("SM_USE_TLS", "true"), ("SM_ORG_ID", "acme")]
    {
        assert_eq!(settings[name], value);
    }
}

#[test]
fn without_encryption_the_installer_says_what_that_means() {
    let Some(host) = host() else { return };
    let plane = Plane::new();
    plane.put_agent(&agent("1.0.0"));
    let ended = host.install("sh", &["--token", "sm_tok_demo123", "--insecure", "--ingest", &plane.address()], &[]);
    assert!(ended.code == 0 && ended.said.contains("the token and all records travel readable"), "{}", ended.said);
    let settings = host.settings(FOLDER);
    assert_eq!((&*settings["SM_USE_TLS"], &*settings["SM_ORG_ID"]), ("false", "demo"));
}

#[test]
fn what_is_removed_leaves_nothing() {
    let Some(host) = host() else { return };
    let plane = Plane::new();
    plane.put_agent(&agent("1.0.0"));
    let own = ["/opt", "/run", "/var/lib"];
    let before = own.map(|path| host.tree(path));
    for folder in [FOLDER, "/opt/elsewhere"] {
        let (token, address) = (plane.token("acme"), plane.address());
        let arguments = ["--token", &*token, "--ingest", &*address, "--install-dir", folder];
        assert_eq!(host.install("sh", &arguments, &[]).code, 0);
        std::fs::create_dir_all(host.path("/var/lib/sm-agent/spool")).unwrap();
        let ended = host.install("sh", &["--uninstall", "--install-dir", folder], &[]);
        assert_eq!(ended.code, 0, "{}", ended.said);
        assert_eq!(own.map(|path| host.tree(path)), before, "{folder}");
    }
    // What is not ours stays.
    std::fs::create_dir(host.path(FOLDER)).unwrap();
    std::fs::write(host.path(FOLDER).join("ingest"), "x").unwrap();
    let ended = host.install("sh", &["--uninstall"], &[]);
    assert!(ended.code == 0 && host.path(FOLDER).join("ingest").exists(), "{}", ended.said);
}

#[test]
fn half_a_script_does_nothing() {
    let text = std::fs::read_to_string(script()).unwrap();
    let whole = text.trim_end().len();
    for length in (0..whole).rev().step_by(97).chain(whole - 60..whole) {
        if !text.is_char_boundary(length) {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        // Would say something whatever it does.
        let part = text[..length].replace("main() {", "main() { : >ran; ");
        std::fs::write(dir.path().join("part"), part).unwrap();
        let status = std::process::Command::new("sh").arg("part").current_dir(dir.path()).output().unwrap();
        assert!(!dir.path().join("ran").exists(), "cut at {length}: {status:?}");
    }
}

#[test]
fn the_script_pleases_shellcheck_and_holds_no_secret() {
    let text = std::fs::read_to_string(script()).unwrap();
    assert!(!text.contains('\r') && text.starts_with("#!/bin/sh\n"));
    for word in ["sm_tok_demo123\"", "BEGIN PRIVATE", "BEGIN EC", "178.79."] {
        assert!(!text.contains(word), "{word}");
    }
    let output = std::process::Command::new("shellcheck").arg(script()).output();
    let output = output.unwrap_or_else(|e| panic!("`shellcheck` cannot be started ({e}); `make test` installs it"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
