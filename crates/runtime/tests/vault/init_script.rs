//! `packaging/vault/vault-init.sh` against the real server.

use crate::support::{Live, of_vault};
use runtime::Secret;
use runtime::secrets::VaultConfig;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use testkit::servers::{OpenBao, OpenBaoOptions, openbao};

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/vault/vault-init.sh")
}

/// Runs it as an administrator whose PATH holds nothing but the tools of a small system and `bao`.
fn run(bao: &OpenBao, bin: &Path, variables: &[(&str, &str)]) -> Output {
    Command::new("bash")
        .arg(script())
        .env_clear()
        .env("PATH", format!("{}:/usr/bin:/bin", bin.display()))
        .envs(bao.client_environment())
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn it_is_valid_bash() {
    let checked = Command::new("bash").arg("-n").arg(script()).output().unwrap();
    assert!(checked.status.success(), "{}", text(&checked));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_prepares_vault_for_us_shows_no_secret_and_may_be_repeated() {
    let bao = OpenBao::with(OpenBaoOptions { durable: false, tls: true });
    bao.cli(&["secrets", "disable", "secret"]);
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(which(&openbao::program()), dir.path().join("bao")).unwrap();
    let id_file = dir.path().join("secrets/vault_secret_id");
    let odd = "redis-hunter2 \"quoted\" \\ $(id) 'x' ü\tend";
    let variables = [
        ("VAULT_SECRET_ID_FILE", id_file.to_str().unwrap()),
        ("REDIS_PASS_CURRENT", odd),
        ("DB_PASS_CURRENT", "db-hunter2"),
        ("MOOG_API_KEY", "moog-hunter2"),
    ];
    let first = run(&bao, dir.path(), &variables);
    let said = text(&first);
    assert!(first.status.success(), "{said}");
    assert_eq!(bao.kv_get("mutt", "REDIS_PASS_CURRENT"), odd);
    let ingest = bao.kv_get("mutt", "INGEST_API_KEY");
    assert!(ingest.len() >= 32, "an API key that nobody gave is made");
    let secret_id = std::fs::read_to_string(&id_file).unwrap().trim().to_owned();
    let mode = std::fs::metadata(&id_file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    for hidden in ["hunter2", &ingest, &secret_id, bao.root_token(), &bao.kv_get("mutt", "WEBUI_API_KEY")] {
        assert!(!said.contains(hidden), "a secret is shown");
    }
    let role_id = said.lines().find_map(|l| l.trim().strip_prefix("VAULT_ROLE_ID=")).unwrap().to_owned();

    // Again, by the other's name, with one value changed and the others left out: they stay, and so does the secret id.
    let other = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(which(&openbao::program()), other.path().join("vault")).unwrap();
    let again = run(&bao, other.path(), &[variables[0], ("REDIS_PASS_NEXT", "next-hunter2")]);
    assert!(again.status.success(), "{}", text(&again));
    assert!(text(&again).contains(&format!("VAULT_ROLE_ID={role_id}")) && !text(&again).contains("hunter2"));
    assert_eq!(bao.kv_get("mutt", "INGEST_API_KEY"), ingest);
    assert_eq!(std::fs::read_to_string(&id_file).unwrap().trim(), secret_id);
    let third = run(&bao, dir.path(), &[variables[0]]);
    assert!(third.status.success() && text(&third).contains("nothing to write"), "{}", text(&third));

    let config = VaultConfig {
        secret_id_file: id_file,
        ca_file: Some(bao.certs().unwrap().ca.clone()),
        ..VaultConfig::new(bao.address(), Secret::new(role_id))
    };
    let required = ["INGEST_API_KEY", "WEBUI_API_KEY", "MOOG_API_KEY", "DB_PASS", "REDIS_PASS"];
    let live = Live::start(of_vault(config), &required).await;
    assert_eq!(live.redis(), [odd, "next-hunter2"]);
    let policy = bao.cli(&["policy", "read", "mutt-service"]);
    assert!(!policy.contains("create") && !policy.contains("delete") && !policy.contains("\"*\""), "{policy}");
}

#[test]
fn what_it_needs_is_said() {
    let bao = OpenBao::start();
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(which(&openbao::program()), dir.path().join("bao")).unwrap();
    for (variables, says) in [
        (&[("VAULT_TOKEN", "wrong-hunter2"), ("BAO_TOKEN", "wrong-hunter2")][..], "token"),
        (&[("VAULT_ADDR", ""), ("BAO_ADDR", "")], "VAULT_ADDR"),
        (&[("VAULT_SECRETS_PATH", "secret/")], "VAULT_SECRETS_PATH"),
    ] {
        let output = run(&bao, dir.path(), variables);
        let said = text(&output);
        assert!(!output.status.success() && said.contains(says) && !said.contains("hunter2"), "{said}");
    }
}

/// The whole path of a program, which may be a name of the PATH.
fn which(program: &Path) -> PathBuf {
    if program.is_absolute() {
        return program.to_owned();
    }
    let found = Command::new("sh").arg("-c").arg(format!("command -v {}", program.display())).output().unwrap();
    PathBuf::from(String::from_utf8(found.stdout).unwrap().trim())
}
