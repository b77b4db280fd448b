//! Secrets of files and the environment, with and without a Vault.

use crate::support::{LONG, Live, OFTEN, Starting, passwords};
use runtime::secrets::{HEALTH_PART, SecretsConfig, from_environment};
use std::collections::BTreeMap;
use std::path::Path;
use testkit::wait_until;

fn config(pairs: &[(&str, &str)]) -> SecretsConfig {
    let environment: BTreeMap<String, String> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    SecretsConfig { vault: None, local: from_environment(&environment), files_interval: OFTEN }
}

fn replace(path: &Path, content: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, content).unwrap();
    std::fs::rename(new, path).unwrap();
}

#[tokio::test]
async fn a_file_that_is_replaced_reaches_who_holds_credentials() {
    let dir = tempfile::tempdir().unwrap();
    // As systemd hands them over.
    let (redis, key) = (dir.path().join("redis_pass"), dir.path().join("INGEST_API_KEY"));
    std::fs::write(&redis, "one\n").unwrap();
    std::fs::write(&key, "k1").unwrap();
    let environment = [("CREDENTIALS_DIRECTORY", dir.path().to_str().unwrap()), ("DB_PASS", "plain")];
    let live = Live::start(config(&environment), &["REDIS_PASS", "INGEST_API_KEY", "DB_PASS"]).await;
    assert_eq!(live.redis(), ["one"]);
    assert_eq!(passwords(&live.secrets.database_credentials("u")), ["plain"]);
    let (mut credentials, keys) = (live.secrets.redis_credentials(), live.secrets.watch("INGEST_API_KEY"));

    replace(&redis, "two\n");
    tokio::time::timeout(LONG, credentials.changed()).await.expect("a change");
    assert_eq!(live.redis(), ["two"]);
    assert!(!keys.has_changed().unwrap());

    std::fs::remove_file(&redis).unwrap();
    replace(&key, "k2");
    assert!(wait_until(LONG, || keys.borrow()[0].expose() == "k2").await);
    assert_eq!(live.redis(), ["two"], "a file that is gone keeps its last value");
    assert!(!live.health.all().contains_key(HEALTH_PART), "there is no Vault to speak of");

    replace(&redis, "three");
    live.secrets.refresh_now().await.unwrap();
    assert_eq!(live.redis(), ["three"]);
}

#[tokio::test]
async fn a_file_that_comes_later_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pass");
    let environment = [("REDIS_PASS", format!("file:{}", path.display()))];
    let environment: Vec<(&str, &str)> = environment.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let starting = Starting::with(config(&environment), &["REDIS_PASS"]);
    tokio::time::sleep(OFTEN * 2).await;
    assert!(!starting.task.is_finished());
    replace(&path, "here");
    assert_eq!(passwords(&starting.succeeds().await.redis_credentials()), ["here"]);
}
