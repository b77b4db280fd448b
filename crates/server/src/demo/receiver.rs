//! The built-in receiver: stands in for Moogsoft so that the demo shows where alerts end up.
//!
//! Takes every `POST` of a JSON object (contract mutt §4) and remembers what it needs for the
//! summary; `GET /stats` answers as the original's mock does, `{"count","last"}`, and says more.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use model::Timestamp;
use runtime::http::HttpLimits;
use runtime::{Clock, Stop};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// More alerts, faults or teams are counted, but not told apart.
const REMEMBERED_MAX: usize = 10_000;
/// More alerts that nobody has looked at are not shown one by one.
const UNSEEN_MAX: usize = 1_024;

/// An alert as it came, for the first time.
#[derive(Debug, Clone)]
pub struct Arrival {
    pub at: Instant,
    pub wall: Timestamp,
    pub alert_id: String,
    /// The host that the alert names.
    pub host: String,
    pub team: String,
    /// Moogsoft's number, 0 to 5.
    pub severity: u8,
    pub page: bool,
    pub ticket: bool,
    pub message: String,
    /// A meta-alert about events that no rule knows.
    pub unhandled: bool,
    /// Host and message of the event behind the alert.
    pub event_host: String,
    pub event_message: String,
}

/// What came so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Received {
    /// Posts, repeats included.
    pub count: u64,
    /// Different alerts.
    pub alerts: u64,
    /// Posts of an alert that had come before.
    pub duplicates: u64,
    /// Different faults: alerts with one signature are one to Moogsoft.
    pub faults: u64,
    pub teams: BTreeMap<String, u64>,
}

#[derive(Default)]
struct Memory {
    received: Received,
    last: Value,
    alert_ids: BTreeSet<String>,
    signatures: BTreeSet<String>,
}

/// The receiver's memory; clones share it.
#[derive(Clone)]
pub struct Receiver {
    address: SocketAddr,
    memory: Arc<Mutex<Memory>>,
    unseen: mpsc::Sender<Arrival>,
    clock: Arc<dyn Clock>,
}

/// Alerts in the order they came.
pub type Arrivals = mpsc::Receiver<Arrival>;

/// The bound socket; alerts wait in its backlog until [`Self::run`].
pub struct Listening {
    listener: TcpListener,
    receiver: Receiver,
}

impl Listening {
    /// Serves until stopped.
    pub async fn run(self, stop: Stop) -> bool {
        let router = Router::new()
            .route("/stats", get(stats))
            .route("/health", get(async || axum::Json(json!({"status": "healthy", "service": "demo-receiver"}))))
            .fallback(take)
            .with_state(self.receiver);
        runtime::http::serve(self.listener, None, router, HttpLimits::default(), stop).await
    }
}

impl Receiver {
    /// Binds; for the demo to `127.0.0.1:0`.
    pub fn bind(address: SocketAddr, clock: Arc<dyn Clock>) -> io::Result<(Self, Listening, Arrivals)> {
        let listener = runtime::http::bind(address)?;
        let (unseen, arrivals) = mpsc::channel(UNSEEN_MAX);
        let receiver = Self { address: listener.local_addr()?, memory: Arc::default(), unseen, clock };
        Ok((receiver.clone(), Listening { listener, receiver }, arrivals))
    }

    /// What the Moogsoft channel is to be pointed at.
    pub fn events_url(&self) -> String {
        format!("http://{}/events", self.address)
    }

    /// For people.
    pub fn stats_url(&self) -> String {
        format!("http://{}/stats", self.address)
    }

    /// What came so far.
    pub fn received(&self) -> Received {
        self.lock().received.clone()
    }

    fn take(&self, body: Value) {
        let (at, wall) = (Instant::now(), self.clock.now());
        let text = |path: &str| body.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let flag = |path: &str| body.pointer(path).and_then(Value::as_bool).unwrap_or_default();
        let arrival = Arrival {
            at,
            wall,
            alert_id: text("/custom_info/mutt/alert_id"),
            host: text("/source_id"),
            team: text("/class"),
            severity: body["severity"].as_u64().and_then(|n| u8::try_from(n).ok()).unwrap_or_default(),
            page: flag("/custom_info/mutt/page"),
            ticket: flag("/custom_info/mutt/ticket"),
            message: text("/description"),
            unhandled: text("/custom_info/mutt/kind") == "unhandled",
            event_host: text("/custom_info/hostname"),
            event_message: text("/custom_info/message"),
        };
        let signature = text("/signature");
        let mut memory = self.lock();
        memory.received.count += 1;
        memory.last = body;
        let full = memory.alert_ids.len() >= REMEMBERED_MAX;
        if !arrival.alert_id.is_empty() && !full && !memory.alert_ids.insert(arrival.alert_id.clone()) {
            memory.received.duplicates += 1;
            return;
        }
        memory.received.alerts += 1;
        if memory.signatures.len() < REMEMBERED_MAX {
            memory.signatures.insert(signature);
        }
        memory.received.faults = memory.signatures.len() as u64;
        if memory.received.teams.len() < REMEMBERED_MAX || memory.received.teams.contains_key(&arrival.team) {
            *memory.received.teams.entry(arrival.team.clone()).or_default() += 1;
        }
        let _ = self.unseen.try_send(arrival); // nobody looks: the numbers are kept all the same
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn take(State(receiver): State<Receiver>, method: Method, body: Bytes) -> Response {
    if method == Method::HEAD {
        return StatusCode::OK.into_response(); // a probe
    }
    if method != Method::POST {
        return StatusCode::NOT_FOUND.into_response();
    }
    match serde_json::from_slice(&body) {
        Ok(body @ Value::Object(_)) => {
            receiver.take(body);
            axum::Json(json!({"ok": true})).into_response()
        }
        Ok(_) | Err(_) => (StatusCode::BAD_REQUEST, axum::Json(json!({"ok": false}))).into_response(),
    }
}

async fn stats(State(receiver): State<Receiver>) -> Response {
    let memory = receiver.lock();
    let received = &memory.received;
    axum::Json(json!({
        "count": received.count,
        "last": memory.last,
        "alerts": received.alerts,
        "duplicates": received.duplicates,
        "faults": received.faults,
        "teams": received.teams,
    }))
    .into_response()
}
