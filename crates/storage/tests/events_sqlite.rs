//! The embedded event store: the contract, and what files can do to it.

#![expect(clippy::unwrap_used, reason = "tests")]

use bytes::Bytes;
use model::{ErrorKind, EventId, InputKind, OrgId, Timestamp};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use storage::events::{EventQuery, EventStore, EventStoreConfig, StoredEvent, contract, open};

const DAY: i64 = 86_400;

async fn store(dir: &Path) -> Arc<dyn EventStore> {
    open(EventStoreConfig::Sqlite { dir: dir.to_owned(), read_also: Vec::new() }).await.unwrap()
}

fn event(day: i64, number: u64) -> StoredEvent {
    let id = EventId::new(Timestamp::from_secs(1_773_144_000 + day * DAY), 1, number);
    StoredEvent {
        id,
        org: OrgId::default(),
        input: InputKind::Http,
        host: "h".into(),
        timestamp: id.accepted(),
        severity: None,
        rule_id: None,
        raw: Bytes::from_static(br#"{"message":"m"}"#),
    }
}

fn events(day: i64, n: u64) -> Vec<StoredEvent> {
    (0..n).map(|i| event(day, i)).collect()
}

/// The folder of the organisation, by file name.
fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir.join("default"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn day_file(dir: &Path, day: i64) -> PathBuf {
    dir.join("default").join(format!("{}.db", event(day, 0).id.accepted().day()))
}

async fn newest(store: &Arc<dyn EventStore>) -> usize {
    store.search(&OrgId::default(), &EventQuery { limit: 1_000, ..EventQuery::default() }).await.unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    contract::run(async |name| store(&dir.path().join(name)).await).await;
}

#[tokio::test]
async fn a_day_is_one_file_without_leftovers_after_closing() {
    let dir = tempfile::tempdir().unwrap();
    let open = store(dir.path()).await;
    open.append([events(0, 5), events(1, 5)].concat()).await.unwrap();
    drop(open);
    assert_eq!(files(dir.path()), ["2026-03-10.db", "2026-03-11.db"]);
    let open = store(dir.path()).await;
    assert_eq!(newest(&open).await, 10);
    open.append(events(2, 5)).await.unwrap();
    assert_eq!(open.drop_before(event(2, 0).id.accepted()).await.unwrap(), 2);
    drop(open);
    assert_eq!(files(dir.path()), ["2026-03-12.db"]);
}

/// Overwrites the middle of a file, or all of it.
fn damage(file: &Path, header_too: bool) {
    let mut bytes = std::fs::read(file).unwrap();
    let from = if header_too { 0 } else { 16 << 10 };
    bytes[from..].fill(0xA5);
    std::fs::write(file, bytes).unwrap();
}

#[tokio::test]
async fn a_broken_day_is_put_aside_and_blocks_nothing() {
    for header_too in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let open = store(dir.path()).await;
        for day in 0..3 {
            open.append(events(day, 200)).await.unwrap();
        }
        drop(open);
        damage(&day_file(dir.path(), 1), header_too);
        // Reading meets it first.
        let open = store(dir.path()).await;
        assert_eq!(newest(&open).await, 400, "the other days are found");
        assert_eq!(open.partitions_put_aside(), 1);
        assert!(files(dir.path()).contains(&"2026-03-11.db.corrupt-1".into()));
        assert_eq!(open.append(events(1, 10)).await.unwrap(), 10);
        assert_eq!(open.count(&OrgId::default()).await.unwrap(), 410);
        drop(open);
        // Writing meets it first.
        damage(&day_file(dir.path(), 1), header_too);
        let open = store(dir.path()).await;
        assert_eq!(open.append(events(1, 7)).await.unwrap(), 7);
        assert_eq!(open.count(&OrgId::default()).await.unwrap(), 407);
        assert!(files(dir.path()).contains(&"2026-03-11.db.corrupt-2".into()));
        // What was put aside ages like the rest.
        assert_eq!(open.drop_before(event(2, 0).id.accepted()).await.unwrap(), 2);
        assert!(!files(dir.path()).iter().any(|name| name.starts_with("2026-03-1") && !name.starts_with("2026-03-12")));
    }
}

#[tokio::test]
async fn what_a_broken_day_may_have_lost_is_known_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let open = store(dir.path()).await;
    for day in 0..3 {
        open.append(events(day, 200)).await.unwrap();
    }
    drop(open);
    let midnight = |day: i64| Timestamp::from_secs(1_773_100_800 + day * DAY);
    let lost = async |from: Timestamp, to: Timestamp| {
        let open = store(dir.path()).await;
        // Whoever reads meets it.
        newest(&open).await;
        let damages = open.damages(&OrgId::default(), from, to).await.unwrap();
        assert!(open.damages(&"acme".parse().unwrap(), from, to).await.unwrap().is_empty());
        damages.into_iter().map(|damage| (damage.from, damage.to)).collect::<Vec<_>>()
    };
    assert_eq!(lost(midnight(0), midnight(9)).await, []);
    // Written last at noon of its day: what was accepted later is not in it.
    damage(&day_file(dir.path(), 1), true);
    let noon = 1_773_144_000 + DAY;
    let file = std::fs::File::options().append(true).open(day_file(dir.path(), 1)).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(noon as u64)).unwrap();
    let end = Timestamp::from_secs(noon).plus(std::time::Duration::from_millis(1));
    assert_eq!(lost(midnight(0), midnight(9)).await, [(midnight(1), end)]);
    assert_eq!(lost(Timestamp::from_secs(noon - 60), midnight(9)).await, [(Timestamp::from_secs(noon - 60), end)]);
    assert_eq!(
        lost(midnight(0), Timestamp::from_secs(noon - 60)).await,
        [(midnight(1), Timestamp::from_secs(noon - 60))]
    );
    assert_eq!(lost(Timestamp::from_secs(noon + 1), midnight(9)).await, []);
    // Written at any time later: the whole day.
    damage(&day_file(dir.path(), 2), true);
    assert_eq!(lost(midnight(2), midnight(9)).await, [(midnight(2), midnight(3))]);
}

#[tokio::test]
async fn many_readers_of_a_broken_day_put_it_aside_once() {
    let dir = tempfile::tempdir().unwrap();
    let open = store(dir.path()).await;
    open.append(events(0, 200)).await.unwrap();
    drop(open);
    damage(&day_file(dir.path(), 0), true);
    let open = store(dir.path()).await;
    let reads: Vec<_> = (0..16)
        .map(|i| {
            let open = Arc::clone(&open);
            tokio::spawn(async move {
                open.get(&OrgId::default(), event(0, i).id).await.unwrap();
                open.append(vec![event(0, i)]).await.unwrap()
            })
        })
        .collect();
    for read in reads {
        assert_eq!(read.await.unwrap(), 1);
    }
    assert_eq!(open.count(&OrgId::default()).await.unwrap(), 16);
    assert_eq!(open.partitions_put_aside(), 1);
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_refused_in_words_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let open = store(dir.path()).await;
    open.append(events(0, 5)).await.unwrap();
    drop(open);
    let file = day_file(dir.path(), 0);
    rusqlite::Connection::open(&file).unwrap().pragma_update(None, "user_version", 2).unwrap();
    let open = store(dir.path()).await;
    for error in
        [open.append(events(0, 1)).await.unwrap_err(), open.get(&OrgId::default(), event(0, 0).id).await.unwrap_err()]
    {
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("newer version of this program"), "{error}");
    }
    assert_eq!(open.append(events(1, 5)).await.unwrap(), 5, "other days go on");
    assert_eq!(open.partitions_put_aside(), 0);
}

#[tokio::test]
async fn a_file_of_version_one_still_loads() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("default")).unwrap();
    let fixture = include_str!("../migrations/sqlite/fixtures/events_v1.sql");
    rusqlite::Connection::open(day_file(dir.path(), 0)).unwrap().execute_batch(fixture).unwrap();
    let open = store(dir.path()).await;
    let found = open.search(&OrgId::default(), &EventQuery { limit: 10, ..EventQuery::default() }).await.unwrap();
    let ids: Vec<_> = found.iter().map(|e| (e.id.run(), e.id.counter(), e.host.as_str())).collect();
    assert_eq!(ids, [(7, 3_000_000, "router-2"), (4_294_967_295, 41, "router-1")]);
    assert_eq!(open.count(&OrgId::default()).await.unwrap(), 2);
    assert_eq!(open.append(vec![found[0].clone()]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_folder_that_was_moved_away_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let open = store(dir.path()).await;
    open.append(events(0, 5)).await.unwrap();
    std::fs::rename(dir.path().join("default"), dir.path().join("cold")).unwrap();
    assert_eq!(open.append(events(0, 8)).await.unwrap(), 8);
    drop(open);
    assert_eq!(newest(&store(dir.path()).await).await, 8);
}

#[tokio::test]
async fn a_search_that_nobody_waits_for_does_not_disturb_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let open = store(dir.path()).await;
    open.append(events(0, 20_000)).await.unwrap();
    let query = EventQuery { text: Some("nowhere".into()), limit: 10, ..EventQuery::default() };
    let org = OrgId::default();
    for _ in 0..20 {
        tokio::select! {
            biased;
            _ = open.search(&org, &query) => {}
            _ = tokio::task::yield_now() => {}
        }
        assert_eq!(newest(&open).await, 1_000);
    }
}
