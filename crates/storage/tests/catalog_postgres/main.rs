//! The catalog in a real PostgreSQL: the contract, and what servers, other programs and the years do
//! to it.

#![expect(clippy::unwrap_used, reason = "tests")]

mod adopt;
mod partitions;
mod server;

use bytes::Bytes;
use model::{EventId, OrgId, Timestamp};
use runtime::{Credentials, Secret};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use storage::catalog::{
    Actor, AuditEntry, AuditFilter, Catalog, CatalogConfig, ConfigChangeFilter, PageRequest, PgTls, PostgresConfig,
    contract, open,
};
use testkit::servers::PostgresServer;

const ALL: PageRequest = PageRequest { page: 1, limit: 1_000 };

fn home() -> OrgId {
    OrgId::default()
}

fn admin() -> Actor {
    Actor { name: "admin".into(), reason: None, correlation_id: "c".into(), at: now() }
}

/// 2026-11-22T12:00:00Z; the partitions around it are made on arrival, whenever the test runs.
fn now() -> Timestamp {
    Timestamp::from_secs(1_795_348_800)
}

fn login() -> Credentials {
    Credentials::fixed(Some("mutt_user".into()), Secret::new(""))
}

fn config(server: &PostgresServer, database: &str) -> PostgresConfig {
    PostgresConfig {
        tls: PgTls::Off,
        acquire_timeout: Duration::from_secs(20),
        ..PostgresConfig::new("127.0.0.1", server.port(), database, login())
    }
}

async fn catalog(server: &PostgresServer) -> Arc<dyn Catalog> {
    open(CatalogConfig::Postgres(config(server, server.database()))).await.unwrap()
}

fn entry(number: u64) -> AuditEntry {
    AuditEntry {
        event_id: EventId::new(now(), 7, number),
        event_timestamp: now(),
        hostname: format!("router-{}", number % 10),
        matched_rule_id: 5,
        handling_decision: "Page_only".into(),
        forwarded: true,
        raw_message: Bytes::from_static(b"{\"message\":\"link down\"}"),
    }
}

async fn total(catalog: &Arc<dyn Catalog>) -> u64 {
    let page = catalog.audit_log(&home(), &AuditFilter::default(), ALL).await.unwrap();
    assert_eq!(page.total, page.rows.len() as u64, "the counters say what is there");
    page.total
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_the_contract() {
    let server = PostgresServer::start();
    let made = Mutex::new(BTreeSet::new());
    contract::run(async |name| {
        if made.lock().unwrap().insert(name) {
            server.create_database(name);
        }
        open(CatalogConfig::Postgres(config(&server, name))).await.unwrap()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_edit_by_sql_moves_the_revision() {
    let server = PostgresServer::start();
    let catalog = catalog(&server).await;
    let mut before = catalog.revision().await.unwrap();
    for sql in [
        "INSERT INTO alert_rules (match_string, prod_handling, dev_handling, team_assignment) \
         VALUES ('x', 'Page_only', 'Ignore', 'NETO')",
        "UPDATE alert_rules SET priority = 1",
        "DELETE FROM alert_rules",
        "INSERT INTO development_hosts (hostname) VALUES ('h') ON CONFLICT DO NOTHING",
        "INSERT INTO device_teams (hostname, team_assignment) VALUES ('h', 't')",
        "UPDATE device_teams SET team_assignment = 'u' WHERE hostname = 'h'",
        "DELETE FROM development_hosts WHERE hostname = 'h'",
        "TRUNCATE alert_rules",
    ] {
        server.psql(sql);
        let now = catalog.revision().await.unwrap();
        assert!(now > before, "{sql}");
        before = now;
    }
    assert_eq!(catalog.teams(&home()).await.unwrap(), [("h".to_owned(), "u".to_owned())]);
    // A person who may edit hosts, and nothing else.
    server.psql("CREATE ROLE clerk LOGIN; GRANT INSERT ON development_hosts TO clerk");
    server.psql("SET ROLE clerk; INSERT INTO development_hosts (hostname) VALUES ('by-clerk')");
    assert!(catalog.revision().await.unwrap() > before);
    assert_eq!(catalog.dev_hosts(&home()).await.unwrap(), ["by-clerk"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_text_lies_there_as_documented() {
    let server = PostgresServer::start();
    let catalog = catalog(&server).await;
    let long = AuditEntry { hostname: "h".repeat(400), ..entry(1) };
    let nul = AuditEntry { hostname: "a\0b".into(), raw_message: Bytes::from_static(b"x\0\xff"), ..entry(2) };
    catalog.record(&home(), vec![long, nul], Vec::new()).await.unwrap();
    let stored =
        server.psql("SELECT length(hostname), left(hostname, 3), raw_message FROM event_audit_log ORDER BY id");
    let mut lines = stored.lines();
    assert!(lines.next().unwrap().starts_with("255|hhh|"));
    assert_eq!(lines.next().unwrap(), "3|a\u{fffd}b|x\u{fffd}\u{fffd}");
    let filter = AuditFilter { hostname: Some("'; DROP TABLE alert_rules --".into()), ..Default::default() };
    assert_eq!(catalog.audit_log(&home(), &filter, ALL).await.unwrap().total, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_other_programs_left_empty_or_strange_is_shown_as_it_is() {
    let server = PostgresServer::start();
    let catalog = catalog(&server).await;
    server.psql(
        "INSERT INTO event_audit_log (event_timestamp, hostname, matched_rule_id, handling_decision, raw_message) \
         VALUES ('infinity', 'a', 1, 'Ignore', NULL), ('0044-03-15 BC', 'b', 1, 'Ignore', ''), \
                ('-infinity', 'c', 1, 'Ignore', NULL), ('-infinity', 'd', 1, 'Ignore', NULL); \
         INSERT INTO config_audit_log (changed_by, operation, table_name, record_id) VALUES ('x', 'CREATE', 't', 1)",
    );
    let (mut rows, mut filter) = (Vec::new(), AuditFilter::default());
    loop {
        let page = catalog.audit_log(&home(), &filter, PageRequest { page: 1, limit: 1 }).await.unwrap();
        rows.extend(page.rows);
        assert!(rows.len() <= 4, "no row twice");
        filter.after = page.next;
        if filter.after.is_none() {
            break;
        }
    }
    let shown: Vec<_> = rows
        .iter()
        .map(|row| (row.entry.hostname.as_str(), row.has_raw, row.entry.event_timestamp.rfc3339()))
        .collect();
    let first = "0001-01-01T00:00:00.000000Z".to_owned();
    assert_eq!(shown[0].0, "a");
    assert!(!shown[0].1 && shown[0].2.starts_with("9999-12-30"), "{shown:?}");
    assert_eq!(shown[1..], [("b", true, first.clone()), ("d", false, first.clone()), ("c", false, first)]);
    let changes = catalog.config_changes(&home(), &ConfigChangeFilter::default(), ALL).await.unwrap();
    assert_eq!(changes.rows[0].correlation_id, None);
}
