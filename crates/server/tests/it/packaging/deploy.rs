//! Functions of the deploy script, one by one. What it does to a host is tested in a booted container.

use super::packaging;
use std::path::Path;
use std::process::Command;

/// What a line of shell says and how it ends, with the script's functions at hand.
fn said(line: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let script = packaging().join("deploy/mutt-deploy.sh");
    let output = Command::new("bash")
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
