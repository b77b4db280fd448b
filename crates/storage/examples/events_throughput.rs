//! How fast the embedded event store takes events and finds them again:
//! `cargo run --release -p storage --example events_throughput [events] [batch] [folder]`.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement, run by a person")]

use bytes::Bytes;
use model::{EventId, InputKind, OrgId, Severity, Timestamp};
use std::time::Instant;
use storage::events::{EventQuery, EventStoreConfig, StoredEvent, open};

fn event(number: u64, per_second: u64) -> StoredEvent {
    let accepted = Timestamp::from_millis(1_773_100_800_000 + (number * 1_000 / per_second) as i64);
    let id = EventId::new(accepted, 1, number);
    let host = format!("router-{:03}.example.net", number % 200);
    let mut raw = format!(
        r#"{{"hostname":"{host}","message":"%LINEPROTO-5-UPDOWN: Line protocol on Interface Gi0/{number}, changed state to down","timestamp":"2026-03-10T00:00:00Z","severity":"err","facility":"local7","source":"syslog","pad":""#,
    );
    while raw.len() < 248 {
        raw.push('x');
    }
    raw.push_str("\"}");
    StoredEvent {
        id,
        org: OrgId::default(),
        input: InputKind::SyslogTcp,
        host,
        timestamp: accepted,
        severity: Some(Severity::Error),
        rule_id: number.is_multiple_of(10).then_some(3),
        raw: Bytes::from(raw),
    }
}

/// CPU seconds of this process so far, all threads.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = &stat[stat.rfind(')').unwrap() + 2..];
    let ticks: f64 = after_name.split(' ').skip(11).take(2).map(|t| t.parse::<f64>().unwrap()).sum();
    ticks / 100.0
}

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let mut number = |default: u64| args.next().map_or(default, |a| a.parse().unwrap());
    let (total, batch) = (number(1_000_000), number(5_000));
    let parent = args.next().unwrap_or_else(|| "/tmp".into());
    let dir = tempfile::tempdir_in(parent).unwrap();
    let store = open(EventStoreConfig::Sqlite { dir: dir.path().to_owned(), read_also: Vec::new() }).await.unwrap();

    let batches: Vec<Vec<StoredEvent>> =
        (0..total / batch).map(|b| (b * batch..(b + 1) * batch).map(|i| event(i, 20_000)).collect()).collect();
    let again = batches[0].clone();
    let (start, cpu) = (Instant::now(), cpu_seconds());
    for batch in batches {
        store.append(batch).await.unwrap();
    }
    let (took, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    println!(
        "append, one caller, batches of {batch}: {:.0} events/s, {:.0} events per CPU second",
        total as f64 / took,
        total as f64 / cpu
    );

    let start = Instant::now();
    assert_eq!(store.append(again).await.unwrap(), 0);
    println!("append of {batch} known events: {:.1} ms", start.elapsed().as_secs_f64() * 1e3);

    let any = EventQuery { limit: 100, ..EventQuery::default() };
    let last = Timestamp::from_millis(1_773_100_800_000 + (total * 1_000 / 20_000) as i64);
    for (name, query) in [
        ("newest 100", any.clone()),
        ("newest 100 of a host", EventQuery { host: Some("router-007.example.net".into()), ..any.clone() }),
        ("all of a host that is nowhere", EventQuery { host: Some("nowhere".into()), ..any.clone() }),
        ("text that is nowhere", EventQuery { text: Some("nowhere".into()), ..any.clone() }),
        ("text that is rare", EventQuery { text: Some("gi0/123456,".into()), ..any.clone() }),
        ("rule that is nowhere", EventQuery { rule_id: Some(9), ..any.clone() }),
        (
            "one second in the middle",
            EventQuery {
                from: Some(Timestamp::from_millis(last.millis() / 2 + 1_773_100_800_000 / 2)),
                to: Some(Timestamp::from_millis(last.millis() / 2 + 1_773_100_801_000 / 2)),
                ..any
            },
        ),
    ] {
        for pass in ["first", "second"] {
            let start = Instant::now();
            let found = store.search(&OrgId::default(), &query).await.unwrap().len();
            println!("search, {name}, {pass}: {found} in {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
        }
    }
    let start = Instant::now();
    let count = store.count(&OrgId::default()).await.unwrap();
    println!("count: {count} in {:.2} ms", start.elapsed().as_secs_f64() * 1e3);
}
