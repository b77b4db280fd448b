//! Incidents over time, on real embedded stores and a clock that is set by hand.

#![expect(clippy::unwrap_used, reason = "tests: a failure is a panic")]

use model::{Alert, AlertKind, AlertState, Detection, Level, OrgId};
use pipeline::metrics::Metrics;
use pipeline::notify::{Keeper, MatcherSpec, Planner, Policy, PolicySpec, RouteSpec, Router};
use pipeline::outbox::Outbox;
use pipeline::{Live, LiveSettings, RetentionPolicy, ShedMode, codec};
use runtime::{Clock, ManualClock};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use storage::catalog::incidents::{IncidentAction, IncidentFilter, IncidentStatus, SilenceDraft};
use storage::catalog::{Actor, Catalog, CatalogConfig, PageRequest};
use storage::coordination::{RateLimit, UnhandledPolicy};
use storage::queue::{QueueConfig, QueueLimits, QueueName, Queues};
use testkit::builders::{EPOCH, alert};

const MINUTE: Duration = Duration::from_secs(60);
const PAGE: PageRequest = PageRequest { page: 1, limit: 100 };

/// An alerter's part in incidents.
struct Alerter {
    clock: Arc<ManualClock>,
    catalog: Arc<dyn Catalog>,
    queues: Queues,
    planner: Planner,
    outbox: Outbox,
    keeper: Keeper,
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// The SOC's alerts: escalated after a quarter of an hour, resolved after two hours; those of the NOC
/// wait a minute for others, except the worst.
fn tree() -> Router {
    let policy = PolicySpec {
        repeat_interval: Some("1h".into()),
        resolve_after: Some("2h".into()),
        escalate_after: Some("15m".into()),
        escalate_to: Some(names(&["boss"])),
        ..PolicySpec::default()
    };
    let matcher = MatcherSpec { team: names(&["SOC"]), ..MatcherSpec::default() };
    let route = RouteSpec { matcher, channels: Some(names(&["pager"])), policy, ..RouteSpec::default() };
    let noc = |severity: Option<&str>, wait: &str| RouteSpec {
        matcher: MatcherSpec { team: names(&["NOC"]), severity: severity.map(str::to_owned), ..MatcherSpec::default() },
        policy: PolicySpec { group: Some(true), group_wait: Some(wait.into()), ..PolicySpec::default() },
        ..RouteSpec::default()
    };
    let routes = [route, noc(Some("critical"), "0s"), noc(None, "1m")];
    Router::new(names(&["pager", "boss"]), Policy::default(), &routes).unwrap()
}

async fn alerter(dir: &Path, clock: &Arc<ManualClock>) -> Alerter {
    let shared: Arc<dyn Clock> = clock.clone();
    let catalog = storage::catalog::open(CatalogConfig::Sqlite { file: dir.join("catalog.db") }).await.unwrap();
    let limits = QueueLimits::default();
    let queue = QueueConfig::Embedded { dir: dir.join("queues"), limits };
    let queues = storage::queue::open(queue, Arc::clone(&shared)).await.unwrap();
    let metrics = Metrics::new();
    let live = Live::new(settings());
    let outbox = Outbox::new(&queues, Arc::clone(&catalog), live, true, Arc::clone(&shared), Arc::clone(&metrics));
    let planner = Planner::new(Arc::new(tree()), Arc::clone(&catalog));
    planner.refresh(clock.now()).await.unwrap();
    let keeper = Keeper {
        planner: planner.clone(),
        catalog: Arc::clone(&catalog),
        outbox: outbox.clone(),
        clock: shared,
        metrics,
    };
    Alerter { clock: clock.clone(), catalog, queues, planner, outbox, keeper }
}

fn settings() -> LiveSettings {
    LiveSettings {
        ingest_records_max: 1_000_000,
        ingest_limit: None,
        unhandled: UnhandledPolicy { threshold: 100, expiry: Duration::from_secs(86_400), keys_max: 10_000 },
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
            events: Duration::from_secs(90 * 86_400),
            archive: Duration::from_secs(7 * 365 * 86_400),
            config_audit: Duration::from_secs(365 * 86_400),
        },
    }
}

impl Alerter {
    /// Records an alert as detection does, without publishing it.
    async fn record(&self, number: u64, level: Level) -> AlertState {
        self.record_for("SOC", number, level).await
    }

    async fn record_for(&self, team: &str, number: u64, level: Level) -> AlertState {
        let detection =
            Detection { rule_uid: "5a1f".into(), title: "Login guessed".into(), level, ..Default::default() };
        let found = alert()
            .number(number)
            .team(team)
            .severity(level.severity())
            .signature("192.0.2.1")
            .detection(detection)
            .build();
        // The event keeps its id however often it is worked.
        let found = Alert { created_at: self.clock.now(), ..found };
        let planned = vec![self.planner.plan(found)];
        self.catalog.record_planned(&OrgId::default(), Vec::new(), planned).await.unwrap()[0]
    }

    async fn minutes(&self, minutes: u32) {
        self.clock.advance(MINUTE * minutes);
        self.keeper.round().await.unwrap();
    }

    /// What was published for delivery.
    async fn published(&self) -> Vec<Alert> {
        let records = self.queues.get(QueueName::Alerts).peek(None, 100).await.unwrap();
        records.iter().map(|record| codec::decode_alert(&record.payload).unwrap().0).collect()
    }

    fn by(&self) -> Actor {
        Actor { name: "ann".into(), reason: Some("r".into()), correlation_id: "c".into(), at: self.clock.now() }
    }

    async fn status(&self) -> IncidentStatus {
        let found = self.catalog.incidents(&OrgId::default(), &IncidentFilter::default(), PAGE).await.unwrap();
        found.rows[0].status
    }
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(EPOCH))
}

#[tokio::test]
async fn an_incident_is_told_repeated_escalated_and_resolved_when_it_is_time() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let alerter = alerter(dir.path(), &clock).await;
    assert_eq!(alerter.record(1, Level::High).await, AlertState::Pending);
    alerter.minutes(14).await;
    assert_eq!(alerter.record(2, Level::High).await, AlertState::Grouped);
    assert!(alerter.published().await.is_empty(), "not yet");
    alerter.minutes(1).await;
    let published = alerter.published().await;
    assert_eq!(published.len(), 1);
    let escalation = &published[0];
    assert_eq!((escalation.kind, escalation.created_at), (AlertKind::Escalation, EPOCH.plus(MINUTE * 15)));
    assert!(escalation.message.starts_with("[ESCALATION] incident 1 (2 alerts since "), "{}", escalation.message);
    assert_eq!(tree().receivers(escalation), Some(names(&["boss"])));
    alerter.minutes(30).await;
    assert_eq!(alerter.published().await.len(), 1, "once");
    assert_eq!(alerter.record(3, Level::High).await, AlertState::Grouped, "after 45 minutes");
    alerter.minutes(15).await;
    assert_eq!(alerter.record(4, Level::High).await, AlertState::Pending, "after an hour");
    alerter.minutes(119).await;
    assert_eq!(alerter.status().await, IncidentStatus::Active);
    alerter.minutes(1).await;
    assert_eq!(alerter.status().await, IncidentStatus::Resolved);
    assert_eq!(alerter.record(5, Level::High).await, AlertState::Pending, "it comes back");
    assert_eq!(alerter.status().await, IncidentStatus::Active);
    let found = alerter.catalog.incidents(&OrgId::default(), &IncidentFilter::default(), PAGE).await.unwrap();
    assert_eq!((found.total, found.rows[0].alerts), (1, 5));
}

#[tokio::test]
async fn a_process_that_dies_between_its_steps_neither_loses_nor_repeats() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let dead = alerter(dir.path(), &clock).await;
    dead.record(1, Level::High).await;
    dead.record(2, Level::High).await;
    clock.advance(MINUTE * 16);
    // The escalation is written, and its process dies before it is published.
    let due = dead.catalog.due_escalations(clock.now(), 10).await.unwrap().remove(0);
    let written =
        Alert { kind: AlertKind::Escalation, id: model::AlertId::derive(due.alert.event_id, "x"), ..due.alert };
    assert!(dead.catalog.escalate(&due.incident, written.clone()).await.unwrap());
    drop(dead);

    let alive = alerter(dir.path(), &clock).await;
    // Its batch comes back.
    assert_eq!(alive.record(1, Level::High).await, AlertState::Pending);
    assert_eq!(alive.record(2, Level::High).await, AlertState::Grouped);
    assert_eq!(alive.outbox.catch_up().await.unwrap(), 2);
    alive.minutes(1).await;
    let published: Vec<_> = alive.published().await.iter().map(|alert| (alert.kind, alert.id)).collect();
    assert_eq!(published.len(), 2, "the first alert and the escalation, each once");
    assert!(published.contains(&(AlertKind::Escalation, written.id)));
    let incident = alive.catalog.incident(&OrgId::default(), 1).await.unwrap();
    assert_eq!((incident.alerts, incident.told, incident.escalations), (2, 1, 1));
}

#[tokio::test]
async fn what_is_acknowledged_or_silenced_is_not_escalated() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let alerter = alerter(dir.path(), &clock).await;
    alerter.record(1, Level::High).await;
    let (org, until) = (OrgId::default(), EPOCH.plus(MINUTE * 60));
    let draft = SilenceDraft { matcher: r#"{"team":"SOC"}"#.into(), from: EPOCH, until };
    alerter.catalog.create_silence(&org, draft, &alerter.by()).await.unwrap();
    alerter.planner.refresh(clock.now()).await.unwrap();
    assert_eq!(alerter.record(2, Level::Critical).await, AlertState::Silenced, "a worse one, too");
    alerter.minutes(59).await;
    assert!(alerter.published().await.is_empty());
    alerter.minutes(1).await;
    assert_eq!(alerter.published().await.len(), 1, "the silence is over, and still nobody has looked");

    clock.advance(MINUTE * 600);
    assert_eq!(alerter.record(3, Level::High).await, AlertState::Pending);
    alerter.keeper.round().await.unwrap();
    alerter.catalog.change_incident(&org, 1, &IncidentAction::Acknowledge, &alerter.by()).await.unwrap();
    alerter.minutes(60).await;
    assert_eq!(alerter.published().await.len(), 1);
}

#[tokio::test]
async fn the_first_alerts_wait_for_others_over_a_restart_and_are_told_as_one() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let first = alerter(dir.path(), &clock).await;
    for (number, level) in [(1, Level::Medium), (2, Level::High), (3, Level::Medium)] {
        assert_eq!(first.record_for("NOC", number, level).await, AlertState::Grouped);
        clock.advance(Duration::from_secs(15));
    }
    first.keeper.round().await.unwrap();
    assert!(first.published().await.is_empty(), "not yet");
    drop(first);

    let second = alerter(dir.path(), &clock).await;
    assert_eq!(second.record_for("NOC", 3, Level::Medium).await, AlertState::Grouped, "its batch comes back");
    let (org, until) = (OrgId::default(), EPOCH.plus(MINUTE * 3));
    let draft = SilenceDraft { matcher: r#"{"team":"NOC"}"#.into(), from: EPOCH, until };
    second.catalog.create_silence(&org, draft, &second.by()).await.unwrap();
    second.planner.refresh(clock.now()).await.unwrap();
    second.minutes(1).await;
    assert!(second.published().await.is_empty(), "a silence holds");
    second.minutes(2).await;
    let told = second.published().await;
    assert_eq!(told.len(), 1);
    assert!(told[0].message.starts_with("[3 alerts] "), "{}", told[0].message);
    assert_eq!(told[0].severity, Level::High.severity(), "the worst of them");
    second.minutes(1).await;
    assert_eq!(second.published().await.len(), 1, "once");

    // It was written and died before it was published.
    second.catalog.change_incident(&org, 1, &IncidentAction::Dismiss, &second.by()).await.unwrap();
    assert_eq!(second.record_for("NOC", 4, Level::Medium).await, AlertState::Grouped);
    clock.advance(MINUTE);
    let due = second.catalog.due_waiting(clock.now(), 10).await.unwrap().remove(0);
    second.catalog.tell_waiting(&due.incident, clock.now()).await.unwrap().unwrap();
    drop(second);
    let third = alerter(dir.path(), &clock).await;
    third.outbox.catch_up().await.unwrap();
    third.keeper.round().await.unwrap();
    let told: Vec<_> = third.published().await.into_iter().map(|alert| alert.id).collect();
    assert_eq!((told.len(), told.last()), (2, Some(&due.alert.id)));
    assert!(!third.published().await[1].message.starts_with('['), "one is one");
}

#[tokio::test]
async fn what_has_a_route_without_waiting_is_told_at_once_with_all_that_waited() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let alerter = alerter(dir.path(), &clock).await;
    assert_eq!(alerter.record_for("NOC", 1, Level::Medium).await, AlertState::Grouped);
    assert_eq!(alerter.record_for("NOC", 2, Level::Critical).await, AlertState::Pending);
    alerter.minutes(5).await;
    assert!(alerter.published().await.is_empty(), "nothing waits any more");
    let incident = alerter.catalog.incident(&OrgId::default(), 1).await.unwrap();
    assert_eq!((incident.alerts, incident.told, incident.waiting), (2, 1, None));
    let long = PolicySpec { group_wait: Some("2h".into()), ..PolicySpec::default() };
    let mut problems = Vec::new();
    Policy::default().with(&long, "incidents", &mut problems);
    assert_eq!(problems[0].path, "incidents.group_wait");
}
