//! Rounds of retention: what stops them, what they say, and what they take.

use crate::api::metrics::Down;
use crate::api::{NOON, api_with, state};
use bytes::Bytes;
use model::{EventId, OrgId, Timestamp};
use pipeline::metrics::labels;
use pipeline::{Live, RetentionPolicy};
use runtime::{Credentials, Secret, Stop, Stopper};
use server::api::ApiState;
use server::retention::{Report, Retention};
use std::sync::Arc;
use std::time::Duration;
use storage::catalog::{
    AuditEntry, AuditFilter, Catalog, CatalogConfig, ConfigChange, PageRequest, PgTls, PostgresConfig,
};
use testkit::servers::PostgresServer;

const DAY: Duration = Duration::from_secs(86_400);

fn days_ago(days: u32) -> Timestamp {
    NOON.minus(DAY * days)
}

fn entry(number: u64, accepted: Timestamp) -> AuditEntry {
    AuditEntry {
        event_id: EventId::new(accepted, 7, number),
        event_timestamp: accepted,
        hostname: "router-1".into(),
        matched_rule_id: 5,
        handling_decision: "Page_only".into(),
        forwarded: true,
        raw_message: Bytes::from_static(b"{}"),
    }
}

/// Three audit rows of 100 days, one of today, and a change of 400 days.
async fn fill(catalog: &Arc<dyn Catalog>) {
    let mut entries: Vec<_> = (0..3).map(|n| entry(n, days_ago(100))).collect();
    entries.push(entry(9, NOON));
    catalog.record(&OrgId::default(), entries, Vec::new()).await.unwrap();
    let change = ConfigChange {
        id: 0,
        changed_at: days_ago(400),
        changed_by: "admin".into(),
        operation: "CREATE".into(),
        table_name: "dynamic_config".into(),
        record_id: 0,
        old_values: None,
        new_values: None,
        reason: None,
        correlation_id: Some("c".into()),
    };
    catalog.record_config_change(&OrgId::default(), change).await.unwrap();
}

async fn events(catalog: &Arc<dyn Catalog>) -> u64 {
    let page = PageRequest { page: 1, limit: 1 };
    catalog.audit_log(&OrgId::default(), &AuditFilter::default(), page).await.unwrap().total
}

fn retention(state: &ApiState) -> Retention {
    Retention {
        catalog: Arc::clone(&state.catalog),
        events: Arc::clone(&state.events),
        coordination: Arc::clone(&state.coordination),
        live: state.live.clone(),
        metrics: Arc::clone(&state.metrics),
        clock: Arc::clone(&state.clock),
    }
}

fn going() -> (Stopper, Stop) {
    Stopper::new()
}

#[tokio::test]
async fn a_live_setting_of_the_original_stops_deleting_or_makes_it_later() {
    let dir = tempfile::tempdir().unwrap();
    let state = state(dir.path()).await;
    fill(&state.catalog).await;
    let retention = retention(&state);
    let (_stopper, stop) = going();
    let set = async |key: &str, value: &str| state.coordination.set_setting(key, value).await.unwrap();

    set("retention_enforcement_enabled", "false").await;
    retention.round(&stop).await.unwrap();
    assert_eq!(events(&state.catalog).await, 4);
    assert_eq!((state.metrics.retention_enabled.get(), state.metrics.retention_last_run.get()), (0, 0));

    set("retention_enforcement_enabled", "true").await;
    set("event_retention_days", "2555").await;
    set("config_audit_retention_days", "2555").await;
    retention.round(&stop).await.unwrap();
    assert_eq!(events(&state.catalog).await, 4, "kept for longer");
    let kept = state.metrics.retention_policy_days.get_or_create(&labels([("type", "events")])).get();
    assert_eq!((kept, state.metrics.retention_last_run.get()), (2_555, NOON.secs()));
    assert_eq!(retention.outlook(&retention.policy().await.unwrap()).await.unwrap(), Report::default());

    state.coordination.delete_setting("event_retention_days").await.unwrap();
    state.coordination.delete_setting("config_audit_retention_days").await.unwrap();
    let told = retention.outlook(&retention.policy().await.unwrap()).await.unwrap();
    assert_eq!(told, Report { events_deleted: 3, config_audit_deleted: 1, ..Report::default() });
    retention.round(&stop).await.unwrap();
    assert_eq!(events(&state.catalog).await, 1, "the configured 90 days count again");
    assert_eq!(state.metrics.retention_events_deleted.get(), 3);
    assert_eq!(state.metrics.retention_config_audits_deleted.get(), 1);
}

#[tokio::test]
async fn settings_that_nobody_can_read_stop_deleting_and_no_failure_counts_as_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let state = state(dir.path()).await;
    fill(&state.catalog).await;
    let (_stopper, stop) = going();
    for (n, key) in pipeline::LiveSettings::RETENTION_KEYS.into_iter().enumerate() {
        state.coordination.set_setting(key, "about 7 years").await.unwrap();
        let refused = retention(&state).round(&stop).await.unwrap_err();
        assert!(format!("{refused:#}").contains(key), "{refused:#}");
        assert_eq!(state.metrics.retention_errors.get(), n as u64 + 1);
        state.coordination.delete_setting(key).await.unwrap();
    }
    let away = Retention { coordination: Arc::new(Down), ..retention(&state) };
    away.round(&stop).await.unwrap_err();
    assert_eq!(events(&state.catalog).await, 4);
    let ends = (state.metrics.retention_last_run.get(), state.metrics.retention_cleanup_last_run.get());
    assert_eq!((state.metrics.retention_errors.get(), ends), (5, (0, 0)));
}

#[tokio::test]
async fn a_dry_run_counts_and_changes_nothing() {
    let api = api_with(|state| {
        let base = state.live.get();
        let retention = RetentionPolicy { dry_run: true, ..base.retention.clone() };
        state.live = Live::new(pipeline::LiveSettings { retention, ..(*base).clone() });
    })
    .await;
    fill(&api.state.catalog).await;
    let (_stopper, stop) = going();
    retention(&api.state).round(&stop).await.unwrap();
    assert_eq!(events(&api.state.catalog).await, 4);
    assert_eq!(api.state.metrics.retention_last_run.get(), NOON.secs(), "it did run");
    assert_eq!(api.state.metrics.retention_events_deleted.get(), 0);
}

#[tokio::test]
async fn a_round_under_way_ends_when_retention_is_switched_off() {
    let dir = tempfile::tempdir().unwrap();
    let state = state(dir.path()).await;
    let entries = (0..10_010).map(|n| entry(n, days_ago(100))).collect();
    state.catalog.record(&OrgId::default(), entries, Vec::new()).await.unwrap();
    let retention = retention(&state);
    let policy = retention.policy().await.unwrap();
    state.coordination.set_setting("retention_enforcement_enabled", "false").await.unwrap();
    let (_stopper, stop) = going();
    let report = retention.enforce(&policy, &stop).await.unwrap();
    assert_eq!((report.events_deleted, events(&state.catalog).await), (10_000, 10), "one step");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_leaves_the_archive_of_postgresql_is_counted_as_deleted() {
    let server = PostgresServer::start();
    let dir = tempfile::tempdir().unwrap();
    let login = Credentials::fixed(Some(server.user().into()), Secret::new(""));
    let postgres = PostgresConfig {
        tls: PgTls::Off,
        acquire_timeout: Duration::from_secs(60),
        ..PostgresConfig::new("127.0.0.1", server.port(), server.database(), login)
    };
    let catalog = storage::catalog::open(CatalogConfig::Postgres(postgres)).await.unwrap();
    let state = ApiState { catalog, ..state(dir.path()).await };
    let mut entries: Vec<_> = (0..3).map(|n| entry(n, days_ago(100))).collect();
    entries.extend((10..12).map(|n| entry(n, days_ago(8 * 365))));
    state.catalog.record(&OrgId::default(), entries, Vec::new()).await.unwrap();
    let retention = retention(&state);
    let (_stopper, stop) = going();
    let told = retention.outlook(&retention.policy().await.unwrap()).await.unwrap();
    assert_eq!(told, Report { archived: 5, ..Report::default() });
    retention.round(&stop).await.unwrap();
    assert_eq!(events(&state.catalog).await, 0);
    let metrics = &state.metrics;
    assert_eq!((metrics.retention_events_archived.get(), metrics.retention_events_deleted.get()), (5, 2));
    assert_eq!(state.catalog.holdings().await.unwrap().archive.unwrap().rows, 3);
}
