//! The Web API, route by route, over real embedded drivers in a folder of their own. Files mirror
//! the URL tree.

#![expect(clippy::unwrap_used, reason = "tests may unwrap")]

mod agents;
mod alerts;
mod audit;
mod auth;
mod config;
mod detection;
mod events;
mod health;
mod hosts;
mod incidents;
pub mod metrics;
mod openapi;
mod orgs;
mod pages;
mod queues;
mod rejects;
mod routes;
mod rules;
mod schema;
mod silences;
mod slo;
mod trace;
mod users;
mod version;

use axum::body::Body;
use axum::http::{HeaderMap, Request};
use bytes::Bytes;
use connectors::inputs::NewEvent;
use model::{DeadLetter, DeadLetterSide, Durability, EventId, InputKind, OrgId, Timestamp};
use pipeline::detections::{Detections, Limits, Policy};
use pipeline::metrics::Metrics;
use pipeline::notify::{Planner, Router};
use pipeline::rejects::RejectLog;
use pipeline::rulebook::Rulebook;
use pipeline::{Live, LiveSettings, RetentionPolicy, ShedMode, codec};
use runtime::{Clock, Health, ManualClock, Secret};
use serde_json::Value;
use server::api::{AgentGate, ApiOptions, ApiState, router};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use storage::catalog::CatalogConfig;
use storage::coordination::{BreakerSettings, CoordinationConfig, RateLimit, UnhandledPolicy};
use storage::correlations::WorkerId;
use storage::events::EventStoreConfig;
use storage::queue::{QueueConfig, QueueLimits, QueueName, encode_dead_letter};
use tempfile::TempDir;
use tower::ServiceExt;

pub const KEY: &str = "key-of-the-tests-0123456789";
/// 2026-01-01T12:00:00Z, the time of every test.
pub const NOON: Timestamp = Timestamp::from_secs(1_767_268_800);

/// Everything in `dir`, at [`NOON`].
pub async fn state(dir: &Path) -> ApiState {
    state_at(dir, Arc::new(ManualClock::new(NOON))).await
}

async fn state_at(dir: &Path, clock: Arc<dyn Clock>) -> ApiState {
    let catalog = storage::catalog::open(CatalogConfig::Sqlite { file: dir.join("catalog.db") }).await.unwrap();
    let events = storage::events::open(EventStoreConfig::Sqlite { dir: dir.join("events"), read_also: Vec::new() })
        .await
        .unwrap();
    let coordination =
        storage::coordination::open(CoordinationConfig::Local { file: dir.join("coordination.db") }).await.unwrap();
    let limits = QueueLimits { ingest_records_max: 20, other_records_max: 1_000, ..QueueLimits::default() };
    let queues = storage::queue::open(QueueConfig::Embedded { dir: dir.join("queues"), limits }, Arc::clone(&clock))
        .await
        .unwrap();
    let metrics = Metrics::new();
    let correlations = storage::correlations::open(&catalog, &dir.join("correlations.db")).unwrap();
    let (policy, limits, worker) = (Policy::default(), Limits::default(), WorkerId(1));
    let detections = Detections::new(policy, limits, correlations, worker, Arc::clone(&metrics));
    let planner = Planner::new(Arc::new(Router::everybody(vec!["moog".into()])), Arc::clone(&catalog));
    ApiState {
        rulebook: Rulebook::new(Arc::clone(&catalog), Arc::clone(&metrics)),
        catalog,
        events,
        coordination,
        queues,
        live: Live::new(settings()),
        detections,
        works_events: true,
        rejects: Arc::new(RejectLog::new(10)),
        metrics,
        health: Health::default(),
        clock,
        keys: vec![Secret::new("another-key"), Secret::new(KEY)].into(),
        prometheus: None,
        channels: vec!["moog".into()],
        planner,
        sees_events: true,
        org: OrgId::default(),
        agent_gate: AgentGate::default(),
        options: ApiOptions { metrics_cache: Duration::ZERO, ..ApiOptions::default() },
    }
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
        breaker: Some(BreakerSettings {
            failure_threshold: 10,
            open_for: Duration::from_secs(300),
            probe_timeout: Duration::from_secs(30),
        }),
        remediation_enabled: true,
        remediation_interval: Duration::from_secs(300),
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

/// The API under test.
pub struct Api {
    pub state: ApiState,
    pub router: axum::Router,
    _dir: TempDir,
}

pub async fn api() -> Api {
    api_with(|_| {}).await
}

/// With parts replaced before the router is built.
pub async fn api_with(change: impl FnOnce(&mut ApiState)) -> Api {
    let dir = tempfile::tempdir().unwrap();
    let mut state = state(dir.path()).await;
    change(&mut state);
    Api { router: router(state.clone()), state, _dir: dir }
}

/// A response.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The body, as far as it is text.
    pub text: String,
}

impl Answer {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }
    #[track_caller]
    pub fn is(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.json()
    }
    /// Refused with this status, with JSON that says this and carries the correlation id.
    #[track_caller]
    pub fn refuses(self, status: u16, says: &str) -> Value {
        let json = self.is(status);
        let error = json["error"].as_str().unwrap_or_else(|| panic!("no error in {json}"));
        assert!(error.contains(says), "`{error}` does not say `{says}`");
        assert!(json["correlation_id"].is_string(), "{json}");
        json
    }
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name}")).to_str().unwrap()
    }
}

impl Api {
    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 16 << 20).await.unwrap();
        let text = String::from_utf8_lossy(&body).into_owned();
        Answer { status: head.status.as_u16(), headers: head.headers, body, text }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(with_key("GET", path).body(Body::empty()).unwrap()).await
    }

    pub async fn call(&self, method: &str, path: &str, body: Value) -> Answer {
        let request = with_key(method, path).header("content-type", "application/json");
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call("POST", path, body).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.call("PUT", path, body).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(with_key("DELETE", path).body(Body::empty()).unwrap()).await
    }

    /// Puts dead letters into a queue, one per reason, of events numbered from 1.
    pub async fn bury(&self, queue: QueueName, letters: Vec<DeadLetter>) {
        let records = letters.iter().map(encode_dead_letter).collect();
        self.state.queues.get(queue).publish(records, Durability::Strict).await.unwrap();
    }
}

pub fn with_key(method: &str, path: &str) -> axum::http::request::Builder {
    Request::builder().method(method).uri(path).header("X-API-KEY", KEY)
}

pub fn event_id(number: u64) -> EventId {
    EventId::new(NOON, 7, number)
}

/// A queue record of an event.
pub fn event_record(number: u64, host: &str, message: &str) -> Bytes {
    let object =
        serde_json::json!({ "hostname": host, "message": message, "timestamp": NOON.rfc3339(), "severity": 3 });
    let event = NewEvent {
        id: None,
        org: OrgId::default(),
        input: InputKind::Http,
        correlation_id: Some("c-1".into()),
        object: Bytes::from(object.to_string()),
    };
    codec::encode_event(&event, event_id(number))
}

pub fn letter(side: DeadLetterSide, reason: &str, original: Bytes) -> DeadLetter {
    DeadLetter { side, reason: reason.into(), retryable: true, attempts: 3, replays: 0, failed_at: NOON, original }
}
