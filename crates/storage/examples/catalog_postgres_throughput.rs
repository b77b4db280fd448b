//! How fast the catalog in PostgreSQL takes audit rows, with fsync on, in a server of its own:
//! `cargo run --release -p storage --example catalog_postgres_throughput [rows] [batch] [workers]`.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement, run by a person")]

use bytes::Bytes;
use model::{EventId, OrgId, Timestamp};
use runtime::{Credentials, Secret};
use std::sync::Arc;
use std::time::Instant;
use storage::catalog::{AuditEntry, AuditFilter, CatalogConfig, PageRequest, PgTls, PostgresConfig, open};
use testkit::servers::{PostgresOptions, PostgresServer};

fn entry(number: u64) -> AuditEntry {
    let accepted = Timestamp::from_millis(1_795_348_800_000 + number as i64 / 20);
    AuditEntry {
        event_id: EventId::new(accepted, 1, number),
        event_timestamp: accepted,
        hostname: format!("router-{:03}.example.net", number % 200),
        matched_rule_id: (number % 50) as i64,
        handling_decision: "Page_and_ticket".into(),
        forwarded: true,
        raw_message: Bytes::from(format!("{{\"message\":\"{number}{}\"}}", "x".repeat(230))),
    }
}

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let mut number = |default: u64| args.next().map_or(default, |a| a.parse().unwrap());
    let (total, batch, workers) = (number(400_000), number(2_000), number(3));
    let server = PostgresServer::with(PostgresOptions { fsync: true, ..Default::default() });
    let login = Credentials::fixed(Some(server.user().into()), Secret::new(""));
    let config =
        PostgresConfig { tls: PgTls::Off, ..PostgresConfig::new("127.0.0.1", server.port(), server.database(), login) };
    let catalog = open(CatalogConfig::Postgres(config)).await.unwrap();
    let batches: Vec<Vec<AuditEntry>> =
        (0..total / batch).map(|b| (b * batch..(b + 1) * batch).map(entry).collect()).collect();
    let (rows, batches) = (batches.len() as u64 * batch, Arc::new(std::sync::Mutex::new(batches)));
    let start = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..workers {
        let (catalog, batches) = (Arc::clone(&catalog), Arc::clone(&batches));
        running.spawn(async move {
            loop {
                let next = batches.lock().unwrap().pop();
                let Some(batch) = next else { return };
                catalog.record(&OrgId::default(), batch, Vec::new()).await.unwrap();
            }
        });
    }
    while running.join_next().await.is_some() {}
    let took = start.elapsed().as_secs_f64();
    println!("record, {workers} workers, batches of {batch}, fsync: {:.0} rows/s", rows as f64 / took);
    for (what, filter, page) in [
        ("first page", AuditFilter::default(), 1),
        ("page 1000", AuditFilter::default(), 1_000),
        (
            "first page of a host",
            AuditFilter { hostname: Some("router-007.example.net".into()), ..Default::default() },
            1,
        ),
    ] {
        let start = Instant::now();
        let page = catalog.audit_log(&OrgId::default(), &filter, PageRequest { page, limit: 50 }).await.unwrap();
        println!("{what}: {:.1} ms, total {}", start.elapsed().as_secs_f64() * 1e3, page.total);
    }
}
