//! The start: what works, and what is said while it does not.

use crate::support::{LONG, Live, Starting, VALUES, Vault, of_vault, passwords};
use runtime::secrets::{HEALTH_PART, Local, Secrets, SecretsConfig, StartError, VaultConfig};
use runtime::{Health, Secret, Stopper};
use std::collections::BTreeMap;
use std::time::Duration;

const ALL: &[&str] = &["INGEST_API_KEY", "DB_PASS_CURRENT", "REDIS_PASS"];

#[tokio::test(flavor = "multi_thread")]
async fn it_logs_in_and_reads_what_it_needs_by_both_readings_of_the_path() {
    let vault = Vault::start();
    for path in ["secret/mutt", "mutt", "/secret/mutt/"] {
        let live = Live::start(of_vault(VaultConfig { path: path.into(), ..vault.config() }), ALL).await;
        assert_eq!(live.redis(), ["redis-hunter2"], "{path}");
        let database = live.secrets.database_credentials("mutt_user");
        assert_eq!(passwords(&database), ["db-hunter2"]);
        assert_eq!(database.logins()[0].user.as_deref(), Some("db-user"), "Vault's user overrides ours");
        assert_eq!(live.secrets.watch("INGEST_API_KEY").borrow()[0].expose(), "ingest-hunter2");
        live.wait_healthy().await;
        vault.assert_hides(&format!("{:?} {:?} {:?}", live.secrets, live.secrets.snapshot(), vault.config()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_literal_path_is_the_second_reading_where_the_first_is_not_found_or_not_allowed() {
    let vault = Vault::start();
    let bao = &vault.bao;
    bao.kv_put("secret/mutt", &[("REDIS_PASS", "literal-hunter2")]);
    bao.kv_put("secret/other", &[("REDIS_PASS", "other-hunter2")]);
    bao.policy(
        "mutt-service",
        r#"path "secret/data/secret/*" { capabilities = ["read"] }
           path "secret/data/gone" { capabilities = ["read"] }"#,
    );
    bao.kv_put("secret/gone", &[("REDIS_PASS", "gone-hunter2")]);
    bao.kv_put("gone", &[("REDIS_PASS", "deleted")]);
    bao.cli(&["kv", "delete", "-mount=secret", "gone"]);
    for (path, password) in
        [("secret/mutt", "literal-hunter2"), ("secret/other", "other-hunter2"), ("secret/gone", "gone-hunter2")]
    {
        let live = Live::start(of_vault(VaultConfig { path: path.into(), ..vault.config() }), &["REDIS_PASS"]).await;
        assert_eq!(live.redis(), [password], "{path}");
    }
    let config = VaultConfig { path: "secret/none".into(), ..vault.config() };
    let said = Starting::with(of_vault(config), ALL).fails_with("secret/data/none").await;
    assert!(said.contains("secret/data/secret/none") && said.contains("404"), "both readings are named: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_said_precisely_and_without_secrets() {
    let vault = Vault::start();
    let good = vault.config();
    let wrong_id = vault.secret_id_file().with_file_name("wrong");
    std::fs::write(&wrong_id, "3b1f7b2c-wrong-hunter2").unwrap();
    let nobody = format!("http://127.0.0.1:{}", testkit::free_port());
    for (config, says) in [
        (VaultConfig { secret_id_file: wrong_id, ..good.clone() }, &["logging in", "HTTP 400", "secret id"][..]),
        (VaultConfig { role_id: Secret::new("nobody-hunter2"), ..good.clone() }, &["logging in", "HTTP 400", "role"]),
        (
            VaultConfig { secret_id_file: "/nowhere/secret_id".into(), ..good.clone() },
            &["VAULT_SECRET_ID_FILE", "/nowhere/secret_id", "No such file"],
        ),
        (
            VaultConfig { path: "forbidden".into(), ..good.clone() },
            &["reading the secrets", "secret/data/forbidden", "HTTP 403", "policy must allow"],
        ),
        (
            VaultConfig { path: "mutt/prod".into(), ..good.clone() },
            &["secret/data/mutt/prod", "HTTP 404", "no such secret"],
        ),
        (VaultConfig { mount: "kv".into(), ..good.clone() }, &["kv/data/secret/mutt", "HTTP 403"]),
        (VaultConfig { namespace: Some("team".into()), ..good.clone() }, &["logging in", "HTTP 4"]),
        (VaultConfig { address: nobody.clone(), ..good.clone() }, &["logging in", &nobody, "cannot be reached"]),
        (VaultConfig { ca_file: Some("/nowhere/ca.pem".into()), ..good.clone() }, &["/nowhere/ca.pem", "No such file"]),
    ] {
        let said = Starting::with(of_vault(config), ALL).fails_with(says[0]).await;
        for part in says {
            assert!(said.contains(part), "{part:?} is not in: {said}");
        }
        vault.assert_hides(&said);
        assert!(!said.contains("403") || !said.contains(" 404"), "one reading only: {said}");
    }
    vault.bao.seal();
    let said = Starting::with(of_vault(good), ALL).fails_with("sealed").await;
    assert!(said.contains("HTTP 503") && said.contains("unseal"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_a_stale_secret_id_locks_no_other_out() {
    let vault = Vault::start();
    let stale = vault.secret_id_file().with_file_name("stale");
    std::fs::write(&stale, "3b1f7b2c-stale-hunter2").unwrap();
    let config = VaultConfig { secret_id_file: stale.clone(), ..vault.config() };
    let starting = Starting::with(of_vault(config), ALL);
    crate::support::wait_broken(&starting.health, "HTTP 400").await;
    // Five refused logins, which this was enough for, lock the role.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let live = Live::start(of_vault(vault.config()), ALL).await;
    assert_eq!(live.secrets.counts().logins, 1);
    std::fs::write(&stale, &vault.role.secret_id).unwrap();
    starting.succeeds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_key_is_named_and_waited_for() {
    let vault = Vault::start();
    let starting = Starting::with(of_vault(vault.config()), &["REDIS_PASS", "WEBUI_API_KEY", "MOOG_API_KEY"]);
    let said = crate::support::wait_broken(&starting.health, "WEBUI_API_KEY").await;
    assert!(said.contains("`secret/data/mutt` holds no WEBUI_API_KEY, MOOG_API_KEY"), "{said}");
    assert!(!said.contains("REDIS"), "it is there: {said}");
    vault.assert_hides(&said);
    vault.bao.kv_patch("mutt", &[("WEBUI_API_KEY_CURRENT", "w"), ("MOOG_API_KEY", "m")]);
    let health = starting.health.clone();
    let secrets = starting.succeeds().await;
    assert_eq!(secrets.watch("WEBUI_API_KEY").borrow()[0].expose(), "w");
    assert_eq!(secrets.counts().logins, 1, "each try used the same token");
    assert!(health.broken(&[HEALTH_PART]).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_comes_later_is_waited_for() {
    let mut vault = Vault::durable();
    vault.bao.kill();
    let config = of_vault(vault.config());
    let starting = Starting::with(config, ALL);
    crate::support::wait_broken(&starting.health, "cannot be reached").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!starting.task.is_finished(), "it neither gives up nor goes on without");
    tokio::task::block_in_place(|| vault.bao.start_again());
    let secrets = starting.succeeds().await;
    assert_eq!(passwords(&secrets.redis_credentials()), ["redis-hunter2"]);
}

#[tokio::test]
async fn what_trying_again_cannot_mend_ends_the_start_at_once() {
    let start = |config: SecretsConfig| async {
        let (_stopper, stop) = Stopper::new();
        let started = Secrets::start(config, ALL, Health::default(), &stop);
        match tokio::time::timeout(LONG, started).await.expect("at once").map(|_| ()) {
            Err(StartError::Config(problems)) => problems.into_iter().map(|p| p.path).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        }
    };
    let role = || Secret::new("role");
    assert_eq!(start(of_vault(VaultConfig::new("vault.example.com", role()))).await, ["VAULT_ADDR"]);
    assert_eq!(start(of_vault(VaultConfig::new("https://v", Secret::new("")))).await, ["VAULT_ROLE_ID"]);
    let local = BTreeMap::from([("INGEST_API_KEY".to_owned(), Local::parse("k"))]);
    let config = SecretsConfig { local, ..SecretsConfig::default() };
    assert_eq!(start(config).await, ["DB_PASS_CURRENT", "REDIS_PASS"], "no Vault, and nobody else gives them");
}

#[tokio::test(flavor = "multi_thread")]
async fn vault_replaces_what_the_environment_says_about_a_secret() {
    let vault = Vault::start();
    let local = [("REDIS_PASSWORD", "env"), ("REDIS_PASS_NEXT", "env"), ("MOOG_API_KEY", "moog")];
    let local = local.into_iter().map(|(name, text)| (name.to_owned(), Local::parse(text))).collect();
    let config = SecretsConfig { local, ..of_vault(vault.config()) };
    let live = Live::start(config, &["REDIS_PASS", "MOOG_API_KEY"]).await;
    assert_eq!(live.redis(), ["redis-hunter2"]);
    assert_eq!(live.secrets.watch("MOOG_API_KEY").borrow()[0].expose(), "moog");
    assert_eq!(live.secrets.snapshot().names().count(), VALUES.len() + 1);
}
