//! Dead letters of the original, as a company finds them in its queues on the day it changes over.

#![expect(clippy::unwrap_used, reason = "tests")]

use bytes::Bytes;
use model::{DeadLetterSide, Durability};
use pipeline::metrics::Metrics;
use pipeline::remediate::{Remediator, replay_letter};
use pipeline::{Live, LiveSettings, RetentionPolicy, ShedMode, codec};
use runtime::{Clock, Health, Stopper, SystemClock};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use storage::catalog::CatalogConfig;
use storage::coordination::{CoordinationConfig, RateLimit, UnhandledPolicy};
use storage::queue::{QueueConfig, QueueLimits, QueueName, Queues, decode_dead_letter};

fn live() -> Live {
    let second = Duration::from_secs(1);
    Live::new(LiveSettings {
        ingest_records_max: 1_000,
        ingest_limit: None,
        unhandled: UnhandledPolicy { threshold: 100, expiry: second, keys_max: 100 },
        unhandled_team: "NETO".into(),
        alerts_warn_depth: 1_000,
        alerts_shed_depth: 2_000,
        shed_mode: ShedMode::Outbox,
        defer_sleep: second,
        delivery_limit: RateLimit { max: 50, window: second },
        breaker: None,
        remediation_enabled: true,
        remediation_interval: second,
        remediation_batch: 1_000,
        poison_replays_max: 3,
        retention: RetentionPolicy {
            enabled: false,
            dry_run: false,
            events: second,
            archive: second,
            config_audit: second,
        },
    })
}

async fn remediator(dir: &Path) -> Remediator {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let coordination = CoordinationConfig::Local { file: dir.join("state.db") };
    Remediator {
        queues: storage::queue::open(QueueConfig::Memory(QueueLimits::default()), Arc::clone(&clock)).await.unwrap(),
        catalog: storage::catalog::open(CatalogConfig::Sqlite { file: dir.join("catalog.db") }).await.unwrap(),
        coordination: storage::coordination::open(coordination).await.unwrap(),
        channels: Vec::new(),
        live: live(),
        clock,
        metrics: Metrics::new(),
        health: Health::default(),
        probe: true,
    }
}

async fn put(queues: &Queues, queue: QueueName, record: impl Into<Bytes>) {
    queues.get(queue).publish(vec![record.into()], Durability::Strict).await.unwrap();
}

async fn records(queues: &Queues, queue: QueueName) -> Vec<Bytes> {
    queues.get(queue).peek(None, 100).await.unwrap().into_iter().map(|seen| seen.payload).collect()
}

fn message(event: &Bytes) -> String {
    codec::decode_event(event).unwrap().message
}

const POISON: &str =
    r#"{"hostname": "h", "message": "poison", "timestamp": "2026-01-01T00:00:00Z", "_retry_count": 4}"#;
const SHED: &str = r#"{"hostname": "h", "message": "shed", "timestamp": "2026-01-01T00:00:00Z", "shedding_reason": "queue_depth_exceeded:2001>2000"}"#;
const ALERT: &str = r#"{"api_key": "k", "hostname": "h", "team_assignment": "NETO", "severity": "Warning", "message_body": "m", "raw_json": {"a": 1}, "_correlation_id": "c", "_moog_retry_count": 6}"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_originals_dead_letters_are_replayed_and_poison_cannot_loop() {
    let dir = tempfile::tempdir().unwrap();
    let remediator = remediator(dir.path()).await;
    let queues = remediator.queues.clone();
    put(&queues, QueueName::DlqAlerter, POISON).await;
    put(&queues, QueueName::DlqAlerter, SHED).await;
    put(&queues, QueueName::DlqForwarder, ALERT).await;
    let (_stopper, stop) = Stopper::new();
    remediator.cycle(&stop).await;
    let (events, alerts) = (records(&queues, QueueName::Ingest).await, records(&queues, QueueName::Alerts).await);
    let mut messages: Vec<String> = events.iter().map(message).collect();
    messages.sort();
    assert_eq!(messages, ["poison", "shed"]);
    assert!(events.iter().all(|event| codec::replays(event) == 1));
    assert!(events.iter().all(|event| !String::from_utf8_lossy(event).contains("shedding_reason")));
    assert_eq!(codec::decode_alert(&alerts[0]).unwrap().0.message, "m");
    assert!(records(&queues, QueueName::Dead).await.is_empty());

    // It fails again and again, and lies there bare each time: the count goes on.
    let mut record = events.into_iter().find(|event| message(event) == "poison").unwrap();
    for round in 2..=3 {
        put(&queues, QueueName::DlqAlerter, record).await;
        remediator.cycle(&stop).await;
        let all = records(&queues, QueueName::Ingest).await;
        record = all.into_iter().find(|event| codec::replays(event) == round).unwrap();
    }
    put(&queues, QueueName::DlqAlerter, record.clone()).await;
    put(&queues, QueueName::DlqForwarder, codec::with_replays(ALERT.as_bytes(), 3)).await;
    remediator.cycle(&stop).await;
    let parked = records(&queues, QueueName::Dead).await;
    let parked: Vec<_> = parked.iter().map(|letter| decode_dead_letter(letter).unwrap()).collect();
    let sides: Vec<_> = parked.iter().map(|letter| letter.side).collect();
    assert_eq!(sides, [DeadLetterSide::Alerter, DeadLetterSide::Forwarder]);
    assert_eq!((parked[0].replays, &parked[0].original), (3, &record));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_lies_bare_in_dead_can_be_replayed_by_a_person() {
    let dir = tempfile::tempdir().unwrap();
    let remediator = remediator(dir.path()).await;
    let (queues, catalog, clock) = (&remediator.queues, &remediator.catalog, &remediator.clock);
    for (record, to) in [(POISON, QueueName::Ingest), (ALERT, QueueName::Alerts)] {
        let letter = decode_dead_letter(record.as_bytes()).unwrap();
        replay_letter(&letter, to, queues, catalog.as_ref(), clock.as_ref()).await.unwrap();
        assert_eq!(records(queues, to).await.len(), 1);
    }
}
