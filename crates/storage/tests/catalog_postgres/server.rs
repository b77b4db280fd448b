//! Restarts, kills, logins that change, and TLS.

use super::{ALL, admin, catalog, config, entry, home, login, total};
use model::ErrorKind;
use runtime::{Credentials, Login, Secret};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use storage::StorageError;
use storage::catalog::{AuditFilter, Catalog, CatalogConfig, PgTls, PostgresConfig, open, postgres_advice};
use testkit::servers::{PostgresOptions, PostgresServer, TestCerts};
use tokio::task::JoinSet;

/// Workers that record batches of ten until they are told to stop.
struct Load {
    workers: JoinSet<Vec<StorageError>>,
    stop: Arc<AtomicBool>,
    next: Arc<AtomicU64>,
    recorded: Arc<AtomicU64>,
}

impl Load {
    fn new() -> Self {
        Self { workers: JoinSet::new(), stop: Arc::default(), next: Arc::default(), recorded: Arc::default() }
    }

    fn add(&mut self, catalog: &Arc<dyn Catalog>, workers: usize) {
        for _ in 0..workers {
            let (catalog, stop) = (Arc::clone(catalog), Arc::clone(&self.stop));
            let (next, recorded) = (Arc::clone(&self.next), Arc::clone(&self.recorded));
            self.workers.spawn(async move {
                let mut errors = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let first = next.fetch_add(10, Ordering::Relaxed);
                    let batch: Vec<_> = (first..first + 10).map(entry).collect();
                    // As the pipeline does: the same batch again until it is taken.
                    while let Err(error) = catalog.record(&home(), batch.clone(), Vec::new()).await {
                        errors.push(error);
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    recorded.fetch_add(10, Ordering::Relaxed);
                }
                errors
            });
        }
    }

    /// Waits until `more` rows are recorded from now on.
    async fn goes_on(&self, more: u64) {
        let enough = self.recorded.load(Ordering::Relaxed) + more;
        let going = testkit::wait_until(Duration::from_secs(60), || self.recorded.load(Ordering::Relaxed) >= enough);
        assert!(going.await, "work goes on");
    }

    /// Errors seen, and rows that were taken.
    async fn end(mut self) -> (Vec<StorageError>, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let mut errors = Vec::new();
        while let Some(worker) = self.workers.join_next().await {
            errors.extend(worker.unwrap());
        }
        (errors, self.recorded.load(Ordering::Relaxed))
    }
}

async fn rows(catalog: &Arc<dyn Catalog>) -> u64 {
    catalog.audit_log(&home(), &AuditFilter::default(), ALL).await.unwrap().total
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_and_restarts_under_load_lose_nothing_and_leak_nothing() {
    let mut server = PostgresServer::start();
    let config = PostgresConfig { pool_max: 4, ..config(&server, server.database()) };
    let catalog = open(CatalogConfig::Postgres(config)).await.unwrap();
    let mut load = Load::new();
    load.add(&catalog, 6);
    load.goes_on(200).await;
    for round in 0..4 {
        if round % 2 == 0 {
            server.kill()
        } else {
            server.stop()
        }
        let down = catalog.ping().await.unwrap_err();
        assert_eq!(down.kind(), ErrorKind::Unavailable, "{down}");
        server.start_again();
        load.goes_on(200).await;
    }
    let (errors, recorded) = load.end().await;
    assert!(!errors.is_empty(), "the outages were noticed");
    for error in errors {
        assert!(error.kind().is_transient(), "{:?}: {error}", error.kind());
        let text = error.to_string();
        assert!(!text.contains("INSERT") && !text.contains("SELECT"), "{text}");
    }
    assert_eq!(rows(&catalog).await, recorded, "every row once");
    assert_eq!(server.psql("SELECT count(*) FROM event_audit_log"), recorded.to_string());
    let open_now: u32 =
        server.psql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'muttd'").parse().unwrap();
    assert!(open_now <= 4, "{open_now} connections");
    // All of the pool's connections can still be had.
    let mut callers = JoinSet::new();
    for _ in 0..20 {
        let catalog = Arc::clone(&catalog);
        callers.spawn(async move { catalog.ping().await });
    }
    while let Some(answer) = callers.join_next().await {
        answer.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_between_two_calls_is_not_noticed() {
    let mut server = PostgresServer::start();
    let catalog = catalog(&server).await;
    catalog.add_dev_host(&home(), "a", &admin()).await.unwrap();
    server.stop();
    server.start_again();
    catalog.add_dev_host(&home(), "b", &admin()).await.unwrap();
    server.kill();
    server.start_again();
    assert_eq!(catalog.dev_hosts(&home()).await.unwrap(), ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_stops_waiting_leaves_neither_lock_nor_connection() {
    let server = PostgresServer::start();
    let config = PostgresConfig { pool_max: 2, pool_min: 0, ..config(&server, server.database()) };
    let catalog = open(CatalogConfig::Postgres(config)).await.unwrap();
    let id = catalog.create_rule(&home(), rule("a"), &admin()).await.unwrap();
    for n in 0..20 {
        let update = async { catalog.update_rule(&home(), id, &rule("a"), rule("a"), &admin()).await };
        let _ = tokio::time::timeout(Duration::from_micros(200 * n), update).await;
    }
    catalog.update_rule(&home(), id, &rule("a"), rule("b"), &admin()).await.unwrap();
    assert_eq!(catalog.rule(&home(), id).await.unwrap().draft, rule("b"));
}

fn rule(text: &str) -> model::RuleDraft {
    model::RuleDraft {
        match_string: Some(text.into()),
        trap_oid: None,
        syslog_severity: None,
        match_type: model::MatchType::Contains,
        priority: 1,
        prod_handling: model::Handling::new("Page_only"),
        dev_handling: model::Handling::new("Ignore"),
        team_assignment: "NETO".into(),
        is_active: true,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_is_a_timeout() {
    let server = PostgresServer::start();
    let config = PostgresConfig { statement_timeout: Duration::from_secs(2), ..config(&server, server.database()) };
    let catalog = open(CatalogConfig::Postgres(config)).await.unwrap();
    let server = Arc::new(server);
    let holder = Arc::clone(&server);
    let held = tokio::task::spawn_blocking(move || {
        holder.try_psql(holder.database(), "BEGIN; LOCK TABLE alert_rules; SELECT pg_sleep(600)")
    });
    let lock = "SELECT count(*) FROM pg_locks WHERE granted AND mode = 'AccessExclusiveLock' \
                AND relation = 'alert_rules'::regclass";
    assert!(testkit::wait_until(Duration::from_secs(30), || server.psql(lock) == "1").await, "the table is locked");
    let error = catalog.rules(&home()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    server.psql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)' AND application_name = 'psql' AND pid <> pg_backend_pid()");
    assert!(held.await.unwrap().is_err());
    assert!(catalog.rules(&home()).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_that_wait_for_a_locked_table_leave_room_for_the_rest() {
    let server = PostgresServer::start();
    let config = PostgresConfig {
        pool_max: 4,
        statement_timeout: Duration::from_secs(600),
        acquire_timeout: Duration::from_secs(60),
        ..config(&server, server.database())
    };
    let catalog = open(CatalogConfig::Postgres(config)).await.unwrap();
    let server = Arc::new(server);
    let holder = Arc::clone(&server);
    let held = tokio::task::spawn_blocking(move || {
        holder.try_psql(holder.database(), "BEGIN; LOCK TABLE event_audit_log; SELECT pg_sleep(600)")
    });
    let lock = "SELECT count(*) FROM pg_locks WHERE granted AND mode = 'AccessExclusiveLock' \
                AND relation = 'event_audit_log'::regclass";
    assert!(testkit::wait_until(Duration::from_secs(60), || server.psql(lock) == "1").await, "the table is locked");
    let mut lists = JoinSet::new();
    for _ in 0..10 {
        let catalog = Arc::clone(&catalog);
        lists.spawn(async move { catalog.audit_log(&home(), &AuditFilter::default(), ALL).await });
    }
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'muttd' AND wait_event_type = 'Lock'";
    assert!(testkit::wait_until(Duration::from_secs(60), || server.psql(waiting) == "2").await, "lists wait");
    for _ in 0..4 {
        catalog.rules(&home()).await.unwrap();
        catalog.ping().await.unwrap();
    }
    assert_eq!(server.psql(waiting), "2");
    server.psql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)' AND application_name = 'psql' AND pid <> pg_backend_pid()");
    assert!(held.await.unwrap().is_err());
    while let Some(list) = lists.join_next().await {
        // Those that waited for their turn too long have said so.
        assert!(list.unwrap().map_or_else(|error| error.kind() == ErrorKind::Unavailable, |page| page.total == 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_that_rotate_under_load_cause_no_error() {
    let server = PostgresServer::with(PostgresOptions { password: Some("old".into()), ..Default::default() });
    let login = |password: &str| Login { user: Some("mutt_user".into()), password: Secret::new(password) };
    let (writer, credentials) = Credentials::new(vec![login("old")]);
    let (asked, times) = tokio::sync::watch::channel(0);
    let credentials = credentials.asking(asked);
    let config = PostgresConfig { credentials, pool_min: 1, ..config(&server, server.database()) };
    let catalog = open(CatalogConfig::Postgres(config)).await.unwrap();
    let mut load = Load::new();
    load.add(&catalog, 2);
    load.goes_on(100).await;
    // NEXT is written, the server is changed, new connections are needed, NEXT becomes CURRENT.
    writer.set(vec![login("old"), login("next")]);
    load.goes_on(100).await;
    server.psql("ALTER USER mutt_user PASSWORD 'next'");
    load.add(&catalog, 6);
    load.goes_on(200).await;
    let changed = server.psql("SELECT clock_timestamp()");
    writer.set(vec![login("next")]);
    load.goes_on(500).await;
    let (errors, recorded) = load.end().await;
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(rows(&catalog).await, recorded);
    assert_eq!(*times.borrow(), 0, "one login always worked");
    let old = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'muttd' AND backend_start < '{changed}'"
    );
    let gone = testkit::wait_until(Duration::from_secs(30), || server.psql(&old) == "0");
    assert!(gone.await, "no connection of the old login is left");
    // No login works: transient for the pipeline, and no password in the text.
    writer.set(vec![login("wrong-secret"), login("worse-secret")]);
    let error = catalog.ping().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("refuses all 2 logins") && !error.to_string().contains("secret"), "{error}");
    assert!(*times.borrow() > 0, "newer logins were asked for");
    writer.set(vec![login("wrong-secret"), login("next")]);
    catalog.ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_verified_by_chain_and_by_name() {
    let server = PostgresServer::with(PostgresOptions { password: Some("pw".into()), tls: true, ..Default::default() });
    let with = |server: &PostgresServer, host: &str, tls| {
        let config = PostgresConfig {
            host: host.into(),
            credentials: Credentials::fixed(None, Secret::new("pw")),
            tls,
            ..config(server, server.database())
        };
        open(CatalogConfig::Postgres(config))
    };
    let required = |ca: &std::path::Path| PgTls::Required { ca_file: Some(ca.to_owned()) };
    let good = required(&server.certs().unwrap().ca);
    let catalog = with(&server, "127.0.0.1", good.clone()).await.unwrap();
    assert_eq!(total(&catalog).await, 0);
    let encrypted = server.psql(
        "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'muttd'",
    );
    assert_eq!(encrypted, "t");
    let dir = tempfile::tempdir().unwrap();
    let others = TestCerts::write(dir.path());
    for (what, tls) in [("another CA", required(&others.ca)), ("the system's CAs", PgTls::Required { ca_file: None })] {
        let error = with(&server, "127.0.0.1", tls).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{what}: {error}");
        assert!(error.to_string().contains("certificate"), "{what}: {error}");
    }
    assert!(with(&server, "127.0.0.1", PgTls::Off).await.is_err(), "the server wants TLS");
    let missing = with(&server, "127.0.0.1", required(&dir.path().join("no-such.pem"))).await.err().unwrap();
    assert_eq!(missing.kind(), ErrorKind::Unavailable, "{missing}");

    let names = vec!["db.example".to_owned()];
    let named = PostgresServer::with(PostgresOptions { tls: true, tls_names: names, ..Default::default() });
    let ca = required(&named.certs().unwrap().ca);
    let error = with(&named, "127.0.0.1", ca).await.err().unwrap();
    assert!(error.to_string().contains("certificate"), "{error}");

    let plain = PostgresServer::start();
    let error = with(&plain, "127.0.0.1", good).await.err().unwrap();
    assert!(error.to_string().contains("TLS"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn start_up_errors_say_what_is_wrong() {
    let server = PostgresServer::start();
    let error = open(CatalogConfig::Postgres(config(&server, "nowhere"))).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("nowhere"), "{error}");
    let bad = PostgresConfig { pool_min: 5, pool_max: 2, ..config(&server, server.database()) };
    assert_eq!(open(CatalogConfig::Postgres(bad)).await.err().unwrap().kind(), ErrorKind::Invalid);
    let closed = PostgresConfig::new("127.0.0.1", testkit::free_port(), "mutt_db", login());
    let error = open(CatalogConfig::Postgres(PostgresConfig { tls: PgTls::Off, ..closed })).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_is_told_what_is_wrong_with_a_server() {
    let options = PostgresOptions { password: Some("pw".into()), ..Default::default() };
    let server = PostgresServer::with(options);
    let with = |password: &str| PostgresConfig {
        credentials: Credentials::fixed(None, Secret::new(password)),
        ..config(&server, server.database())
    };
    let advice = postgres_advice(&with("pw")).await.unwrap();
    assert!(advice[0].contains("lacks 13 steps") && advice[0].contains("muttd migrate"), "{advice:?}");
    drop(open(CatalogConfig::Postgres(with("pw"))).await.unwrap());
    let advice = postgres_advice(&with("pw")).await.unwrap();
    assert!(advice.iter().all(|text| text.starts_with("fsync is off")), "as the tests run it: {advice:?}");
    server.psql(&format!("ALTER DATABASE {} SET synchronous_commit = off", server.database()));
    let advice = postgres_advice(&with("pw")).await.unwrap();
    assert!(advice.iter().any(|text| text.starts_with("synchronous_commit is off")), "{advice:?}");
    let error = postgres_advice(&with("s3cret")).await.unwrap_err().to_string();
    assert!(error.contains("refuses") && !error.contains("s3cret"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_names_the_rights_that_a_login_lacks() {
    let server = PostgresServer::start();
    drop(catalog(&server).await);
    server.psql(
        "CREATE ROLE app LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO app; \
         REVOKE ALL ON muttd_user_keys FROM app; REVOKE DELETE ON alerts FROM app",
    );
    let as_app = PostgresConfig {
        credentials: Credentials::fixed(Some("app".into()), Secret::new("")),
        ..config(&server, server.database())
    };
    let advice = postgres_advice(&as_app).await.unwrap().join("\n");
    for lacking in [
        "DELETE on alerts;",
        "SELECT, INSERT, UPDATE, DELETE on muttd_user_keys;",
        "EXECUTE on muttd_make_month(date, boolean)",
        "USAGE on public.alert_rules_id_seq",
    ] {
        assert!(advice.contains(lacking), "{lacking}: {advice}");
    }
    assert!(!advice.contains("on alert_rules;"), "{advice}");
}
