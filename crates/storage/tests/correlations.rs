//! The stores of correlations: a file, and a real PostgreSQL that several workers share.

#![expect(clippy::unwrap_used, reason = "tests")]

use runtime::{Credentials, Secret};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use storage::catalog::{self, Catalog, CatalogConfig, PgTls, PostgresConfig};
use storage::correlations::{self, CorrelationStore, contract};
use testkit::servers::PostgresServer;

#[tokio::test(flavor = "multi_thread")]
async fn a_file_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    contract::run(async |name| {
        let folder = dir.path().join(name);
        let config = CatalogConfig::Sqlite { file: folder.join("catalog.db") };
        let catalog = catalog::open(config).await.unwrap();
        let store = correlations::open(&catalog, &folder.join("correlations.db")).unwrap();
        assert!(!store.is_shared());
        store
    })
    .await;
}

/// A server with a database for each name.
struct Databases {
    server: PostgresServer,
    made: Mutex<BTreeSet<&'static str>>,
}

impl Databases {
    fn start() -> Self {
        Self { server: PostgresServer::start(), made: Mutex::default() }
    }

    async fn open(&self, name: &'static str) -> Arc<dyn CorrelationStore> {
        if self.made.lock().unwrap().insert(name) {
            self.server.create_database(name);
        }
        let config = PostgresConfig {
            tls: PgTls::Off,
            acquire_timeout: Duration::from_secs(20),
            pool_max: 4,
            ..PostgresConfig::new(
                "127.0.0.1",
                self.server.port(),
                name,
                Credentials::fixed(Some("mutt_user".into()), Secret::new("")),
            )
        };
        let catalog: Arc<dyn Catalog> = catalog::open(CatalogConfig::Postgres(config)).await.unwrap();
        correlations::open(&catalog, Path::new("/nowhere")).unwrap()
    }

    fn expire(&self, name: &'static str) {
        self.server.psql_in(name, "UPDATE muttd_correlation_workers SET alive_until = now() - interval '1 second'");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_store_keeps_the_contract() {
    let databases = Databases::start();
    contract::run(async |name| databases.open(name).await).await;
    contract::run_shared(async |name| databases.open(name).await, async |name| databases.expire(name)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_died_in_a_commit_holds_up_nobody() {
    let databases = Arc::new(Databases::start());
    let store = databases.open("died").await;
    let (dead, next) = (correlations::WorkerId(1), correlations::WorkerId(2));
    store.hold(dead).await.unwrap();
    // Its last sign of life: a transaction that holds its shard, and then nothing.
    let held_up = Arc::clone(&databases);
    let transaction = std::thread::spawn(move || {
        let sql = "BEGIN; SELECT 1 FROM muttd_correlation_shards WHERE shard = 3 FOR SHARE; SELECT pg_sleep(600)";
        held_up.server.try_psql("died", sql)
    });
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    let there = testkit::wait_until(Duration::from_secs(60), || databases.server.psql_in("died", sleeping) == "1");
    assert!(there.await);
    databases.expire("died");
    let held = store.hold(next).await.unwrap().holds;
    assert!(held.len() == 7 && held.iter().all(|hold| hold.shard != 3), "all others at once: {held:?}");
    databases
        .server
        .psql_in("died", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
    assert!(transaction.join().unwrap().is_err());
    assert_eq!(store.hold(next).await.unwrap().holds.len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn hits_that_were_taken_long_ago_are_forgotten() {
    let databases = Databases::start();
    let store = databases.open("old").await;
    let worker = correlations::WorkerId(1);
    let held = store.hold(worker).await.unwrap().holds;
    let hit = correlations::NewHit { event: model::EventId::from_u128(5), group: 1, hit: vec![1], about: vec![2] };
    store.add(&model::OrgId::default(), vec![hit]).await.unwrap();
    let taken = store.waiting(&held, 1).await.unwrap().into_iter().map(|waiting| waiting.key).collect();
    store.commit(&held, correlations::Commit { taken, ..Default::default() }).await.unwrap();
    let rows =
        || databases.server.psql_in("old", "SELECT count(*), count(hit), count(about) FROM muttd_correlation_hits");
    store.hold(worker).await.unwrap();
    assert_eq!(rows(), "1|0|0", "known, and empty");
    databases.server.psql_in("old", "UPDATE muttd_correlation_hits SET taken_at = now() - interval '16 minutes'");
    store.hold(worker).await.unwrap();
    assert_eq!(rows(), "0|0|0");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_hits_that_wait_are_refused_until_they_are_worked() {
    let databases = Databases::start();
    let store = databases.open("full").await;
    let (worker, org) = (correlations::WorkerId(1), model::OrgId::default());
    databases.server.psql_in(
        "full",
        &format!(
            "INSERT INTO muttd_correlation_hits (shard, event, name, org, grp, hit, about) \
             SELECT n % 8, md5(n::text)::uuid, md5(n::text)::uuid, 'default', md5(n::text)::uuid, 'h', 'a' \
             FROM generate_series(1, {}) n",
            correlations::WAITING_MAX
        ),
    );
    let held = store.hold(worker).await.unwrap();
    assert_eq!(held.waiting, correlations::WAITING_MAX);
    let hit = correlations::NewHit { event: model::EventId::from_u128(5), group: 1, hit: vec![1], about: vec![2] };
    let refused = store.add(&org, vec![hit.clone()]).await.unwrap_err();
    assert_eq!(refused.kind(), model::ErrorKind::Full);
    let waiting = store.waiting(&held.holds, 1_000).await.unwrap();
    assert_eq!(waiting.len(), 1_000);
    let found = vec![(org.clone(), hit.clone())];
    let taken = waiting.into_iter().map(|waiting| waiting.key).collect();
    store.commit(&held.holds, correlations::Commit { taken, found, ..Default::default() }).await.unwrap();
    assert!(store.hold(worker).await.unwrap().waiting < correlations::WAITING_MAX);
    store.add(&org, vec![hit]).await.unwrap();
}
