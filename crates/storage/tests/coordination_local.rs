//! Coordination inside one process: the contract, and what files and versions can do to it.

#![expect(clippy::unwrap_used, reason = "tests")]

use model::{ErrorKind, EventId, OrgId, Timestamp};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use storage::StorageResult;
use storage::coordination::{
    Coordination, CoordinationConfig, RateLimit, UnhandledEvent, UnhandledPolicy, contract, open,
};

async fn local(dir: &Path) -> StorageResult<Arc<dyn Coordination>> {
    open(CoordinationConfig::Local { file: dir.join("state.db") }).await
}

const POLICY: UnhandledPolicy = UnhandledPolicy { threshold: 3, expiry: Duration::from_secs(86_400), keys_max: 100 };

fn unhandled(number: u64) -> UnhandledEvent {
    UnhandledEvent {
        org: OrgId::default(),
        host: "router-1".into(),
        shape: "00112233445566ff".into(),
        event_id: EventId::new(now(), 7, number),
    }
}

fn now() -> Timestamp {
    Timestamp::from_secs(1_773_144_000)
}

/// The files as they lie there: what a process finds that starts after `kill -9`.
fn killed(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    copy
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    contract::run(async |name| local(&dir.path().join(name)).await.unwrap()).await;
}

#[tokio::test]
async fn after_a_kill_everything_that_was_answered_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let driver = local(dir.path()).await.unwrap();
    let limit = RateLimit { max: 50, window: Duration::from_secs(1) };
    assert_eq!(driver.acquire("moog", 30, limit, now()).await.unwrap().granted, 30);
    driver.set_setting("moog_rate_limit", "50").await.unwrap();
    let batch = || vec![unhandled(1), unhandled(2), unhandled(3)];
    assert_eq!(driver.observe_unhandled(batch(), POLICY, now()).await.unwrap(), [2]);
    let copy = killed(dir.path());
    let next = local(copy.path()).await.unwrap();
    assert_eq!(next.acquire("moog", 50, limit, now()).await.unwrap().granted, 20);
    assert_eq!(next.settings().await.unwrap()["moog_rate_limit"], "50");
    assert_eq!(next.observe_unhandled(batch(), POLICY, now()).await.unwrap(), [2]);
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    drop(local(dir.path()).await.unwrap());
    for file in ["state.db", "state-limits.db"] {
        let connection = rusqlite::Connection::open(dir.path().join(file)).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        let error = local(dir.path()).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("newer version of this program"), "{error}");
        connection.pragma_update(None, "user_version", 1).unwrap();
    }
    local(dir.path()).await.unwrap();
}

#[tokio::test]
async fn a_file_of_version_one_still_loads() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = include_str!("../migrations/sqlite/fixtures/coordination_v1.sql");
    rusqlite::Connection::open(dir.path().join("state.db")).unwrap().execute_batch(fixture).unwrap();
    let driver = local(dir.path()).await.unwrap();
    assert_eq!(driver.settings().await.unwrap()["unhandled_threshold"], "3");
    let hours = driver.accepted(storage::coordination::RateUnit::Hour, now(), now().plus(Duration::from_secs(1))).await;
    assert_eq!(hours.unwrap(), [(now(), 42)]);
    // Numbers 1 and 2 of run 7 are counted.
    let batch = vec![unhandled(1), unhandled(2), unhandled(3)];
    assert_eq!(driver.observe_unhandled(batch, POLICY, now()).await.unwrap(), [2]);
}

#[tokio::test]
async fn one_state_in_two_processes_is_no_secret_loss() {
    // Not supported, but a mistake must not end in a panic or a broken file.
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (local(dir.path()).await.unwrap(), local(dir.path()).await.unwrap());
    one.set_setting("a", "1").await.unwrap();
    two.set_setting("b", "2").await.unwrap();
    drop((one, two));
    assert_eq!(local(dir.path()).await.unwrap().settings().await.unwrap().len(), 2);
}
