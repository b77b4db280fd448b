//! Scheduled rules over time, on real embedded stores and a clock that is set by hand.

#![expect(clippy::unwrap_used, reason = "tests: a failure is a panic")]

use bytes::Bytes;
use model::{AlertState, Event, EventId, InputKind, Level, OrgId, Timestamp};
use pipeline::detect::Detector;
use pipeline::detections::{Detections, Library, Limits, Mode, ScheduledRule};
use pipeline::metrics::Metrics;
use pipeline::notify::{Planner, Policy, Router};
use pipeline::outbox::Outbox;
use pipeline::rulebook::Rulebook;
use pipeline::schedule::Scheduler;
use pipeline::{Live, LiveSettings, RetentionPolicy, ShedMode, codec};
use runtime::{Clock, Health, ManualClock, Stopper};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use storage::catalog::detection_rules::{OrgDetectionRules, RuleSetting, RuleState};
use storage::catalog::schedules::{Advance, Schedule};
use storage::catalog::{AlertFilter, AlertRecord, CatalogConfig, PageRequest};
use storage::coordination::{CoordinationConfig, RateLimit, UnhandledPolicy};
use storage::correlations::{LocalCorrelations, WorkerId};
use storage::events::{EventStoreConfig, StoredEvent};
use storage::queue::{Durability, QueueConfig, QueueLimits, QueueName};
use testkit::builders::EPOCH;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

const ROOT: &str = "
title: Root came in
id: root
level: high
logsource: {product: linux}
detection: {s: {user: root, outcome: success}, condition: s}
group-by: [user]
schedule: {every: 15m, delay: 1m}
";

const SLOW: &str = "
title: Login failed
id: failed
name: failed
level: low
logsource: {product: linux}
detection: {s: {outcome: failure}, condition: s}
---
title: Slow brute force
id: slow
level: high
correlation: {type: event_count, rules: [failed], group-by: [ip], timespan: 1d, condition: {gte: 10}}
schedule: {every: 1h, delay: 5m}
";

/// An alerter's part in scheduled rules.
struct Alerter {
    clock: Arc<ManualClock>,
    detector: Detector,
    scheduler: Scheduler,
    _stopper: Stopper,
    stop: runtime::Stop,
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(EPOCH))
}

async fn alerter(dir: &Path, clock: &Arc<ManualClock>, rules: &str) -> Alerter {
    let shared: Arc<dyn Clock> = clock.clone();
    let catalog = storage::catalog::open(CatalogConfig::Sqlite { file: dir.join("catalog.db") }).await.unwrap();
    let queue = QueueConfig::Embedded { dir: dir.join("queues"), limits: QueueLimits::default() };
    let queues = storage::queue::open(queue, Arc::clone(&shared)).await.unwrap();
    let events = EventStoreConfig::Sqlite { dir: dir.join("events"), read_also: Vec::new() };
    let events = storage::events::open(events).await.unwrap();
    let coordination = CoordinationConfig::Local { file: dir.join("coordination.db") };
    let coordination = storage::coordination::open(coordination).await.unwrap();
    let metrics = Metrics::new();
    let live = Live::new(settings());
    let correlations = Arc::new(LocalCorrelations::open(&dir.join("correlations.db")).unwrap());
    let limits = Limits { matches_per_minute_max: 1_000_000, ..Limits::default() };
    let detections =
        Detections::new(pipeline::detections::Policy::default(), limits, correlations, WorkerId(1), metrics.clone());
    put(&detections, rules, false).await;
    let outbox = Outbox::new(&queues, catalog.clone(), live.clone(), true, shared.clone(), metrics.clone());
    let router = Router::new(vec!["pager".into()], Policy::default(), &[]).unwrap();
    let planner = Planner::new(Arc::new(router), catalog.clone());
    planner.refresh(clock.now()).await.unwrap();
    let detector = Detector {
        queues,
        rulebook: Rulebook::new(catalog.clone(), metrics.clone()),
        catalog,
        events,
        coordination,
        detections,
        planner,
        outbox,
        live,
        clock: shared,
        metrics,
        health: Health::default(),
        batch_max: 100,
        retries_max: 3,
    };
    let scheduler = Scheduler::new(detector.clone()).in_slices_of(50);
    let (stopper, stop) = Stopper::new();
    Alerter { clock: clock.clone(), detector, scheduler, _stopper: stopper, stop }
}

/// Puts rules in force, for everybody.
async fn put(detections: &Detections, rules: &str, dry_run: bool) {
    let mut reader = rules::sigma::Reader::default();
    reader.text("rules.yml", rules);
    let library = Library::new(reader, Vec::new(), rules::sigma::Options::default(), dry_run);
    assert!(library.shared().problems.is_empty(), "{:?}", library.shared().problems);
    detections.set_library(library);
    detections.replace(Vec::new()).await.unwrap();
}

fn settings() -> LiveSettings {
    LiveSettings {
        ingest_records_max: 1_000_000,
        ingest_limit: None,
        unhandled: UnhandledPolicy { threshold: 100, expiry: DAY, keys_max: 10_000 },
        unhandled_team: "NETO".into(),
        alerts_warn_depth: 1_000,
        alerts_shed_depth: 2_000,
        shed_mode: ShedMode::Outbox,
        defer_sleep: Duration::from_millis(250),
        delivery_limit: RateLimit { max: 50, window: Duration::from_secs(1) },
        breaker: None,
        remediation_enabled: true,
        remediation_interval: Duration::from_secs(30),
        remediation_batch: 10,
        poison_replays_max: 3,
        retention: RetentionPolicy {
            enabled: true,
            dry_run: false,
            events: DAY * 30,
            archive: DAY * 2_555,
            config_audit: DAY * 365,
        },
    }
}

/// An event accepted at a time after [`EPOCH`], as the ingestor queues it; it happened at another.
fn record(number: u64, accepted: Duration, happened: Duration, fields: &str) -> (EventId, Bytes) {
    let id = EventId::new(EPOCH.plus(accepted), 1, number);
    let time = EPOCH.plus(happened).rfc3339();
    let object = format!(
        r#"{{"hostname":"h{}","message":"m","timestamp":"{time}",{fields},"_event_id":"{id}","_input":"http"}}"#,
        number % 3
    );
    (id, Bytes::from(object))
}

impl Alerter {
    /// Stores an event without asking the rules that are asked at once.
    async fn store(&self, number: u64, accepted: Duration, happened: Duration, fields: &str) {
        let (_, raw) = record(number, accepted, happened, fields);
        self.store_of("default", raw).await;
    }

    async fn store_of(&self, org: &str, raw: Bytes) {
        let event: Event = codec::decode_event(&raw).unwrap();
        let stored = StoredEvent {
            id: event.id,
            org: org.parse().unwrap(),
            input: InputKind::Http,
            host: event.host,
            timestamp: event.timestamp,
            severity: None,
            rule_id: None,
            raw: event.raw,
        };
        assert_eq!(self.detector.events.append(vec![stored]).await.unwrap(), 1);
    }

    async fn root(&self, number: u64, accepted: Duration) {
        self.store(number, accepted, accepted, r#""user":"root","outcome":"success""#).await;
    }

    async fn failed(&self, number: u64, accepted: Duration, happened: Duration, ip: u8) {
        let fields = format!(r#""user":"bob","outcome":"failure","ip":"10.0.0.{ip}""#);
        self.store(number, accepted, happened, &fields).await;
    }

    async fn round_at(&mut self, at: Duration) {
        self.clock.set(EPOCH.plus(at));
        self.scheduler.round(&self.stop).await.unwrap();
    }

    /// All alerts, oldest first.
    async fn alerts(&self) -> Vec<AlertRecord> {
        let page = PageRequest { page: 1, limit: 1_000 };
        let mut rows =
            self.detector.catalog.alerts(&OrgId::default(), &AlertFilter::default(), page).await.unwrap().rows;
        rows.sort_by_key(|row| row.alert.id.to_u128());
        rows
    }

    /// The events that alerts of the rule are about, by their number.
    async fn about(&self, uid: &str) -> Vec<u64> {
        let alerts = self.alerts().await;
        let of_rule = alerts.iter().filter(|row| row.alert.signature.starts_with(&format!("{uid}:")));
        let mut numbers: Vec<u64> = of_rule.map(|row| row.alert.event_id.counter()).collect();
        numbers.sort_unstable();
        numbers
    }

    async fn place(&self, uid: &str) -> Schedule {
        self.detector.catalog.schedule(&OrgId::default(), uid).await.unwrap().unwrap()
    }

    /// Gaps from and to, since [`EPOCH`] in minutes, and why.
    async fn gaps(&self, uid: &str) -> Vec<(i64, i64, String)> {
        let gaps = self.detector.catalog.schedule_gaps(&OrgId::default(), uid).await.unwrap();
        let minutes = |at: Timestamp| (at.micros() - EPOCH.micros()) / 60_000_000;
        gaps.into_iter().map(|gap| (minutes(gap.first), minutes(gap.through), gap.why)).collect()
    }

    fn metric(&self, line: &str) -> bool {
        self.detector.metrics.encode().contains(line)
    }
}

#[tokio::test]
async fn a_late_run_catches_up_and_a_new_rule_begins_now() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let mut alerter = alerter(dir.path(), &clock, ROOT).await;
    for (number, minute) in [(0, 0), (1, 5), (2, 58), (3, 62), (4, 74), (5, 75)] {
        alerter.root(number, MINUTE * minute).await;
    }
    alerter.round_at(MINUTE * 61).await;
    assert!(alerter.about("root").await.is_empty(), "what was before is not looked at");
    alerter.round_at(MINUTE * 75).await;
    assert!(alerter.about("root").await.is_empty(), "it is not due");
    alerter.round_at(MINUTE * 76).await;
    assert_eq!(alerter.about("root").await, [3, 4], "up to a minute ago");
    assert_eq!(alerter.place("root").await.through, EPOCH.plus(MINUTE * 75));
    // Nobody is there for nine hours.
    drop(alerter);
    let mut alerter = self::alerter(dir.path(), &clock, ROOT).await;
    for number in 6..300 {
        alerter.root(number, MINUTE * 76 + Duration::from_secs(number * 100)).await;
    }
    alerter.round_at(HOUR * 10).await;
    assert_eq!(alerter.about("root").await, (3..300).collect::<Vec<_>>(), "everything since");
    let place = alerter.place("root").await;
    let run = place.last_run.unwrap();
    assert_eq!((run.first, run.through), (EPOCH.plus(MINUTE * 75), EPOCH.plus(MINUTE * 599)));
    assert_eq!((run.events, run.matches, place.gaps), (295, 295, 0));
    assert!(alerter.metric("mutt_schedule_runs_total{outcome=\"done\"} 1"));
    assert!(alerter.metric("mutt_schedule_lag_seconds{rule=\"root\"} 60"), "{}", alerter.detector.metrics.encode());
}

#[tokio::test]
async fn a_rule_can_begin_in_the_past() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let rules = ROOT.replace("delay: 1m", "delay: 0s, since: 1h");
    let mut alerter = alerter(dir.path(), &clock, &rules).await;
    for (number, minute) in [(0, 59), (1, 60), (2, 119), (3, 120)] {
        alerter.root(number, MINUTE * minute).await;
    }
    alerter.round_at(HOUR * 2).await;
    assert_eq!(alerter.about("root").await, [1, 2]);
}

#[tokio::test]
async fn a_run_that_died_before_its_place_was_written_is_repeated_without_a_second_alert() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let rules = format!("{ROOT}---{SLOW}");
    let mut dying = alerter(dir.path(), &clock, &rules).await;
    dying.root(0, HOUR).await;
    dying.round_at(Duration::ZERO).await;
    let before: Vec<Schedule> = vec![dying.place("root").await, dying.place("slow").await];
    for number in 1..12 {
        dying.failed(number, HOUR + MINUTE * number as u32, HOUR + MINUTE * number as u32, 7).await;
    }
    dying.round_at(HOUR * 3).await;
    let told: Vec<_> = dying.alerts().await.into_iter().map(|row| (row.alert.id, row.state)).collect();
    assert_eq!((dying.about("root").await, dying.about("slow").await), (vec![0], vec![10]));
    // As if the process had died when the alerts were written and the places were not.
    for place in before {
        let now = dying.place(&place.uid).await;
        let back = Advance {
            expected: now.through,
            through: place.through,
            judged: place.judged,
            begun: None,
            run: None,
            gaps: Vec::new(),
        };
        dying.detector.catalog.advance_schedule(&place.org, &place.uid, back).await.unwrap();
    }
    drop(dying);
    let mut again = alerter(dir.path(), &clock, &rules).await;
    again.round_at(HOUR * 3 + MINUTE).await;
    assert_eq!(again.place("slow").await.through, EPOCH.plus(HOUR * 3 - MINUTE * 4), "it came as far");
    let repeated: Vec<_> = again.alerts().await.into_iter().map(|row| (row.alert.id, row.state)).collect();
    assert_eq!(repeated, told);
    assert!(told.iter().all(|(_, state)| *state == AlertState::Pending), "one incident each");
}

#[tokio::test]
async fn a_window_of_a_day_over_many_runs_fires_once_also_across_a_restart() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let mut alerter = alerter(dir.path(), &clock, SLOW).await;
    alerter.failed(1_000, Duration::ZERO, Duration::ZERO, 99).await;
    alerter.round_at(MINUTE * 5).await;
    let mut fired_after = Vec::new();
    for hour in 1..40_u32 {
        // Every hour one of this address: the tenth is that of the tenth hour; every third of another.
        if hour <= 30 {
            alerter.failed(hour.into(), HOUR * hour, HOUR * hour, 1).await;
        }
        if hour % 3 == 0 {
            alerter.failed(100 + u64::from(hour), HOUR * hour, HOUR * hour, 2).await;
        }
        if hour % 7 == 0 {
            drop(alerter);
            alerter = self::alerter(dir.path(), &clock, SLOW).await;
        }
        alerter.round_at(HOUR * hour + MINUTE * 30).await;
        let about = alerter.about("slow").await;
        if about.len() > fired_after.len() {
            fired_after.push(hour);
        }
    }
    assert_eq!(alerter.about("slow").await, [10], "once, while it goes on");
    assert_eq!(fired_after, [10], "with the first run that saw the tenth");
    let alert = &alerter.alerts().await[0].alert;
    assert!(alert.message.contains("Slow brute force: ip 10.0.0.1"), "{}", alert.message);
    assert!(alerter.about("failed").await.is_empty(), "what it looks at does not alert");
}

#[tokio::test]
async fn a_late_event_is_judged_again_and_one_that_is_too_late_is_counted() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let mut alerter = alerter(dir.path(), &clock, SLOW).await;
    alerter.failed(1_000, Duration::ZERO, Duration::ZERO, 99).await;
    alerter.round_at(Duration::ZERO).await;
    for number in 1..10 {
        alerter.failed(number, HOUR + MINUTE * number as u32, HOUR + MINUTE * number as u32, 1).await;
    }
    alerter.round_at(HOUR * 2 + MINUTE * 5).await;
    assert!(alerter.about("slow").await.is_empty(), "nine");
    // Half an hour late, and the last of the window's events.
    alerter.failed(10, HOUR * 2 + MINUTE, HOUR + MINUTE * 31, 1).await;
    // Dated in the future, and three days late.
    alerter.failed(11, HOUR * 2 + MINUTE, HOUR * 9, 1).await;
    alerter.round_at(HOUR * 3 + MINUTE * 5).await;
    assert_eq!(alerter.about("slow").await, [10]);
    assert_eq!(alerter.place("slow").await.last_run.unwrap().late, 1);
    assert!(alerter.metric("mutt_schedule_late_events_total 1"));
}

#[tokio::test]
async fn what_retention_dropped_before_it_was_looked_at_is_a_gap_and_is_told() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let mut alerter = alerter(dir.path(), &clock, ROOT).await;
    alerter.root(0, MINUTE).await;
    alerter.round_at(MINUTE).await;
    alerter.root(1, HOUR).await;
    alerter.root(2, DAY * 20).await;
    // Nobody is there for forty days; thirty are kept.
    let now = DAY * 40 + HOUR;
    assert_eq!(alerter.detector.events.drop_before(EPOCH.plus(now - DAY * 30)).await.unwrap(), 1);
    alerter.round_at(now).await;
    assert_eq!(alerter.about("root").await, [2], "what is there is looked at");
    let day = 24 * 60;
    let why = "events of that time are no longer kept".to_owned();
    assert_eq!(alerter.gaps("root").await, [(0, 10 * day, why)]);
    let alerts = alerter.alerts().await;
    let told = alerts.iter().find(|row| row.alert.signature == "missed:root").unwrap();
    assert!(told.alert.message.contains("accepted from 2026-01-01T00:00:00"), "{}", told.alert.message);
    assert!(alerter.metric("mutt_schedule_gaps_total{why=\"retention\"} 1"));
    alerter.round_at(now + HOUR).await;
    assert_eq!(alerter.place("root").await.gaps, 1, "once");
}

#[tokio::test]
async fn a_broken_day_that_was_put_aside_is_a_gap() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let mut alerter = alerter(dir.path(), &clock, ROOT).await;
    alerter.root(0, MINUTE).await;
    alerter.round_at(HOUR).await;
    alerter.root(1, HOUR * 2).await;
    alerter.root(2, HOUR * 30).await;
    drop(alerter);
    let file = dir.path().join("events/default/2026-01-01.db");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes.fill(0xA5);
    std::fs::write(&file, bytes).unwrap();
    // Written last at noon, as far as anybody knows.
    let noon = std::time::UNIX_EPOCH + Duration::from_secs(EPOCH.secs() as u64) + HOUR * 12;
    std::fs::File::options().append(true).open(&file).unwrap().set_modified(noon).unwrap();
    let mut alerter = self::alerter(dir.path(), &clock, ROOT).await;
    alerter.round_at(HOUR * 31).await;
    assert_eq!(alerter.about("root").await, [2]);
    let why = "a broken day of events was put aside".to_owned();
    assert_eq!(alerter.gaps("root").await, [(59, 12 * 60, why)]);
    assert!(alerter.alerts().await.iter().any(|row| row.alert.signature == "missed:root"));
}

#[tokio::test]
async fn a_rule_that_was_off_goes_on_from_where_it_is_switched_on_and_says_so() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let mut alerter = alerter(dir.path(), &clock, ROOT).await;
    alerter.root(0, MINUTE).await;
    alerter.round_at(HOUR).await;
    put(&alerter.detector.detections, "", false).await;
    alerter.root(1, HOUR * 2).await;
    alerter.round_at(HOUR * 3).await;
    assert!(alerter.about("root").await.is_empty(), "it is not run");
    assert_eq!(alerter.place("root").await.off_since, Some(EPOCH.plus(HOUR * 3)));
    put(&alerter.detector.detections, ROOT, false).await;
    alerter.round_at(HOUR * 4).await;
    alerter.root(2, HOUR * 4).await;
    alerter.round_at(HOUR * 5).await;
    assert_eq!(alerter.about("root").await, [2]);
    let place = alerter.place("root").await;
    assert_eq!((place.off_since, place.gaps), (None, 1));
    assert_eq!(alerter.gaps("root").await, [(59, 4 * 60 - 1, "the rule was not in force".to_owned())]);
    assert_eq!(alerter.alerts().await.len(), 1, "nobody is told of what somebody did");
}

#[tokio::test]
async fn events_that_wait_in_the_queue_hold_a_rule_back() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let mut alerter = alerter(dir.path(), &clock, ROOT).await;
    alerter.root(0, MINUTE).await;
    alerter.round_at(MINUTE).await;
    let (_, waiting) = record(1, HOUR, HOUR, r#""user":"root","outcome":"success""#);
    let queue = alerter.detector.queues.get(QueueName::Ingest).clone();
    queue.publish(vec![waiting], Durability::Strict).await.unwrap();
    alerter.root(2, HOUR * 2).await;
    alerter.round_at(HOUR * 5).await;
    assert_eq!(alerter.place("root").await.through, EPOCH.plus(HOUR), "up to what waits");
    assert_eq!(alerter.about("root").await, [0]);
    // The worker comes back.
    let mut consumer = queue.consumer();
    let batch = consumer.next(10, Duration::from_secs(1)).await.unwrap();
    alerter.root(1, HOUR).await;
    consumer.settle(batch.into_iter().map(|delivery| delivery.ack()).collect()).await.unwrap();
    alerter.round_at(HOUR * 5 + MINUTE).await;
    assert_eq!(alerter.about("root").await, [0, 1, 2]);
}

#[tokio::test]
async fn in_dry_run_matches_are_counted_and_nobody_is_told() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let mut alerter = alerter(dir.path(), &clock, ROOT).await;
    put(&alerter.detector.detections, ROOT, true).await;
    alerter.root(0, MINUTE).await;
    alerter.round_at(MINUTE).await;
    alerter.root(1, HOUR).await;
    alerter.round_at(HOUR * 2).await;
    assert!(alerter.alerts().await.is_empty());
    assert_eq!(alerter.place("root").await.last_run.unwrap().matches, 2);
    assert!(alerter.metric("mutt_detection_matches_total{rule=\"root\",outcome=\"dry_run\"} 2"));
}

#[tokio::test]
async fn what_is_asked_at_once_goes_on_where_a_part_of_it_is_scheduled() {
    let rules = "
title: Base
name: base
logsource: {product: linux}
detection: {s: {a: b}, condition: s}
schedule: 1h
---
title: Both
name: both
logsource: {product: linux}
detection: {s: {c: d}, condition: s}
---
title: Only
name: only
logsource: {product: linux}
detection: {s: {e: f}, condition: s}
---
title: At once
name: now
correlation: {type: temporal, rules: [base, both], timespan: 5m}
---
title: Later
name: later
correlation: {type: temporal, rules: [both, only], timespan: 1d}
schedule: 1h
---
title: By itself
name: alone
logsource: {product: linux}
detection: {s: {g: h}, condition: s}
schedule: 1h
";
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let sets = alerter(dir.path(), &clock, rules).await.detector.detections.sets();
    let rules: Vec<_> = sets.base().rules().map(|of| (&*of.rule.header.uid, of.mode)).collect();
    assert_eq!(rules, [("base", Mode::Feeds), ("both", Mode::Feeds)]);
    let correlations: Vec<_> = sets.base().correlations().map(|of| (&*of.rule.header.uid, of.mode)).collect();
    assert_eq!(correlations, [("now", Mode::Alert)]);
    let scheduled = ScheduledRule::of(sets.base());
    let scheduled: Vec<_> = scheduled.iter().map(|one| (one.uid(), one.in_force().mode)).collect();
    assert_eq!(scheduled, [("alone", Mode::Alert), ("later", Mode::Alert)]);
}

#[tokio::test]
async fn organisations_run_what_they_have_in_force_on_their_own_events() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let mut alerter = alerter(dir.path(), &clock, &format!("{ROOT}---{SLOW}")).await;
    let acme: OrgId = "acme".parse().unwrap();
    let off = RuleSetting { state: Some(RuleState::Off), ..RuleSetting::default() };
    let louder = RuleSetting { level: Some(Level::Critical), team: Some("ACME".into()), ..RuleSetting::default() };
    let says = |settings: &[(&str, &RuleSetting)]| OrgDetectionRules {
        org: acme.clone(),
        documents: Vec::new(),
        settings: settings.iter().map(|(uid, setting)| ((*uid).to_owned(), (*setting).clone())).collect(),
    };
    alerter.detector.detections.replace(vec![says(&[("root", &louder), ("failed", &off)])]).await.unwrap();
    for (org, first) in [("acme", 100), ("default", 0)] {
        for number in first..first + 12 {
            let (_, raw) = record(number, HOUR, HOUR + MINUTE, r#""user":"bob","outcome":"failure","ip":"10.0.0.1""#);
            alerter.store_of(org, raw).await;
        }
        let (_, raw) = record(first + 12, HOUR, HOUR, r#""user":"root","outcome":"success""#);
        alerter.store_of(org, raw).await;
    }
    alerter.round_at(Duration::ZERO).await;
    alerter.round_at(HOUR * 3).await;
    assert_eq!((alerter.about("root").await, alerter.about("slow").await), (vec![12], vec![11]));
    let page = PageRequest { page: 1, limit: 100 };
    let theirs = alerter.detector.catalog.alerts(&acme, &AlertFilter::default(), page).await.unwrap().rows;
    assert_eq!(theirs.len(), 1, "what their correlation looks at is off");
    let detection = theirs[0].alert.detection.as_deref().unwrap();
    assert_eq!((theirs[0].alert.team.as_str(), detection.level), ("ACME", Level::Critical));
    // Switched off by one, the other goes on.
    alerter.detector.detections.replace(vec![says(&[("root", &off)])]).await.unwrap();
    alerter.round_at(HOUR * 4).await;
    let place = |org: OrgId| {
        let catalog = alerter.detector.catalog.clone();
        async move { catalog.schedule(&org, "root").await.unwrap().unwrap() }
    };
    assert_eq!(place(acme.clone()).await.off_since, Some(EPOCH.plus(HOUR * 4)));
    assert_eq!(place(OrgId::default()).await.off_since, None);
}
