//! HTTP ingest (contract mutt §2): `POST /ingest`, `/api/v1/ingest`, `/api/v2/ingest`.
//!
//! The contract's checks in the contract's order, with its bodies and codes. Beyond it: arrays,
//! NDJSON and joined objects with a verdict an item; gzip and zstd; `Retry-After` wherever we ask to
//! wait. A batch with at least one good event answers 200 and names the bad ones, so that a sender
//! such as rsyslog does not repeat what can never succeed; a batch with none answers 400.

mod body;
mod parse;

pub use parse::{BadEvent, Body, BodyRules, parse};

use super::{NewEvent, Refused, Reject, Sink};
use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use body::BodyError;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use model::{Durability, EventId, InputKind, OrgId, RejectReason};
use runtime::Secret;
use runtime::http::Peer;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

/// A key that may post events, and whose events they are.
#[derive(Debug, Clone)]
pub struct IngestKey {
    pub key: Secret,
    pub org: OrgId,
}

/// Settings of the HTTP ingest.
#[derive(Debug, Clone)]
pub struct HttpIngestConfig {
    pub keys: Vec<IngestKey>,
    pub rules: BodyRules,
    /// Largest body, before and after expanding.
    pub body_bytes_max: usize,
    /// Longest time a client may take to send a body.
    pub body_timeout: Duration,
    pub durability: Durability,
}

/// Told how each request ended: the contract's `status` and `reason` labels, and how long it took.
pub type Observer = Arc<dyn Fn(&'static str, Duration) + Send + Sync>;

/// The three ingest routes. Anything else on the listener is the caller's to answer; see
/// [`HttpIngest::key_org`] for checking keys elsewhere by the same list.
#[derive(Clone)]
pub struct HttpIngest {
    config: Arc<HttpIngestConfig>,
    sink: Arc<dyn Sink>,
    observer: Observer,
}

const CORRELATION: HeaderName = HeaderName::from_static("x-correlation-id");
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const CORRELATION_MAX: usize = 128;

impl HttpIngest {
    pub fn new(config: HttpIngestConfig, sink: Arc<dyn Sink>, observer: Observer) -> Self {
        Self { config: Arc::new(config), sink, observer }
    }

    pub fn router(&self) -> Router {
        Router::new()
            .route("/ingest", post(ingest))
            .route("/api/v1/ingest", post(ingest))
            .route("/api/v2/ingest", post(ingest))
            .with_state(self.clone())
    }

    /// The organisation of the request's key. Every key is compared, in constant time each.
    pub fn key_org(&self, headers: &HeaderMap) -> Option<OrgId> {
        let given = headers.get(API_KEY)?.as_bytes();
        let mut found = None;
        for key in &self.config.keys {
            if key.key.matches(given) {
                found = Some(key.org.clone());
            }
        }
        found
    }
}

/// The request's `X-Correlation-ID`, or a new one. Unprintable or overlong ones are replaced: the id
/// goes into logs, headers and stored events.
pub fn correlation_id(headers: &HeaderMap) -> Arc<str> {
    let given = headers.get(CORRELATION).and_then(|value| value.to_str().ok()).map(str::trim);
    match given {
        Some(id) if !id.is_empty() && id.len() <= CORRELATION_MAX => id.into(),
        _ => uuid::Uuid::new_v4().to_string().into(),
    }
}

/// A refusal on its way out.
struct Refusal {
    status: StatusCode,
    /// The contract's metric label.
    label: &'static str,
    reason: RejectReason,
    message: String,
    extra: Map<String, Value>,
    retry_after: Option<Duration>,
}

impl Refusal {
    fn new(status: StatusCode, label: &'static str, reason: RejectReason, message: impl Into<String>) -> Self {
        Self { status, label, reason, message: message.into(), extra: Map::new(), retry_after: None }
    }

    fn bad(bad: BadEvent) -> Self {
        let label = if bad.reason == RejectReason::MissingField { "validation" } else { "json" };
        let status = match bad.reason {
            RejectReason::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        };
        Self::new(status, label, bad.reason, bad.message)
    }

    fn refused(refused: Refused) -> Self {
        let wait = refused.retry_after.max(Duration::from_secs(1));
        let mut refusal = match refused.reason {
            RejectReason::RateLimited => {
                let mut refusal = Self::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "rate_limit",
                    refused.reason,
                    "Too Many Requests - rate limit exceeded",
                );
                refusal.extra.insert("retry_after".into(), json!(wait.as_secs()));
                refusal
            }
            RejectReason::QueueFull => {
                let mut refusal = Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "queue_full",
                    refused.reason,
                    "Service Unavailable - queue full",
                );
                refusal.extra.insert("queue_depth".into(), json!(refused.queue_depth));
                refusal.extra.insert("queue_limit".into(), json!(refused.queue_limit));
                refusal
            }
            RejectReason::TooLarge => {
                let message = "Too many or too large events in one request: split it";
                return Self::new(StatusCode::PAYLOAD_TOO_LARGE, "json", refused.reason, message);
            }
            RejectReason::Malformed
            | RejectReason::MissingField
            | RejectReason::TooDeep
            | RejectReason::Unauthorized
            | RejectReason::StorageFailed => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "redis",
                refused.reason,
                "Service Unavailable - storage error",
            ),
        };
        refusal.retry_after = Some(wait);
        refusal
    }

    fn body(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge { bytes_max } => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "json",
                RejectReason::TooLarge,
                format!("Body is over the bound of {bytes_max} bytes"),
            ),
            BodyError::TooSlow => {
                Self::new(StatusCode::REQUEST_TIMEOUT, "json", RejectReason::Malformed, "Body was not sent in time")
            }
            BodyError::Broken(why) => Self::new(
                StatusCode::BAD_REQUEST,
                "json",
                RejectReason::Malformed,
                format!("Invalid JSON: body cannot be read: {why}"),
            ),
            BodyError::UnknownEncoding(name) => Self::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "json",
                RejectReason::Malformed,
                format!("Invalid JSON: Content-Encoding `{name}` is not one of gzip, zstd, identity"),
            ),
        }
    }
}

async fn ingest(State(ingest): State<HttpIngest>, request: Request) -> Response {
    let started = tokio::time::Instant::now();
    let correlation = correlation_id(request.headers());
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    let mut sample = Bytes::new();
    let (label, mut response) = match take(&ingest, request, &correlation, peer, &mut sample).await {
        Ok(response) => ("", response),
        Err(refusal) => {
            ingest.sink.reject(Reject {
                input: InputKind::Http,
                reason: refusal.reason,
                detail: &refusal.message,
                peer,
                sample: &sample,
            });
            (refusal.label, refusal_response(refusal, &correlation))
        }
    };
    if let Ok(value) = HeaderValue::from_str(&correlation) {
        response.headers_mut().insert(CORRELATION, value);
    }
    (ingest.observer)(label, started.elapsed());
    response
}

fn refusal_response(refusal: Refusal, correlation: &str) -> Response {
    let mut body = refusal.extra;
    body.insert("status".into(), "error".into());
    body.insert("message".into(), refusal.message.into());
    body.insert("correlation_id".into(), correlation.into());
    let mut response = (refusal.status, axum::Json(Value::Object(body))).into_response();
    if let Some(wait) = refusal.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
    }
    response
}

async fn take(
    ingest: &HttpIngest,
    request: Request,
    correlation: &Arc<str>,
    peer: Option<std::net::SocketAddr>,
    sample: &mut Bytes,
) -> Result<Response, Refusal> {
    let (head, body) = request.into_parts();
    let Some(org) = ingest.key_org(&head.headers) else {
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, "auth", RejectReason::Unauthorized, "Unauthorized"));
    };
    ingest.sink.admit(1, 1).await.map_err(Refusal::refused)?;
    if !is_json(&head.headers) {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "json",
            RejectReason::Malformed,
            "Invalid JSON: Content-Type must be application/json or application/x-ndjson",
        ));
    }
    let config = &ingest.config;
    let body =
        body::read(&head.headers, body, config.body_bytes_max, config.body_timeout).await.map_err(Refusal::body)?;
    *sample = body.slice(..body.len().min(1_024));
    let new_event = |object: Bytes| NewEvent {
        org: org.clone(),
        input: InputKind::Http,
        correlation_id: Some(Arc::clone(correlation)),
        object,
    };
    match parse(&body, &config.rules) {
        Body::Single(verdict) => {
            let object = verdict.map_err(Refusal::bad)?;
            ingest.sink.room().map_err(Refusal::refused)?;
            let accepted =
                ingest.sink.accept(vec![new_event(object)], config.durability).await.map_err(Refusal::refused)?;
            let mut text = String::with_capacity(160);
            text.push_str("{\"correlation_id\":");
            text.push_str(&json!(&**correlation).to_string());
            if let Some(id) = accepted.ids.first() {
                let _ = write!(text, ",\"event_id\":\"{id}\"");
            }
            let _ = write!(text, ",\"queue_depth\":{},\"status\":\"queued\"}}", accepted.queue_depth);
            Ok(json_response(text))
        }
        Body::Batch(verdicts) => {
            let good: Vec<NewEvent> =
                verdicts.iter().filter_map(|v| v.as_ref().ok()).map(|object| new_event(object.clone())).collect();
            for bad in
                verdicts.iter().filter_map(|v| v.as_ref().err()).take(verdicts.len() - usize::from(good.is_empty()))
            {
                ingest.sink.reject(Reject {
                    input: InputKind::Http,
                    reason: bad.reason,
                    detail: &bad.message,
                    peer,
                    sample,
                });
            }
            let Some(extra) = u32::try_from(good.len()).ok().and_then(|n| n.checked_sub(1)) else {
                let first = verdicts.into_iter().find_map(Result::err);
                let mut refusal = Refusal::bad(first.unwrap_or(BadEvent {
                    reason: RejectReason::Malformed,
                    message: "Invalid JSON: Empty or null payload".into(),
                }));
                refusal.status = StatusCode::BAD_REQUEST;
                return Err(refusal);
            };
            if extra > 0 {
                ingest.sink.admit(extra, extra.saturating_add(1)).await.map_err(Refusal::refused)?;
            }
            ingest.sink.room().map_err(Refusal::refused)?;
            let accepted = ingest.sink.accept(good, config.durability).await.map_err(Refusal::refused)?;
            Ok(json_response(batch_text(&verdicts, &accepted.ids, accepted.queue_depth, correlation)))
        }
    }
}

/// `{"status":"queued","accepted":n,"rejected":n,…,"items":[…]}`, an item each in order.
fn batch_text(verdicts: &[Result<Bytes, BadEvent>], ids: &[EventId], queue_depth: u64, correlation: &str) -> String {
    let accepted = ids.len();
    let rejected = verdicts.len() - accepted;
    let mut text = String::with_capacity(200 + verdicts.len() * 64);
    let _ = write!(
        text,
        "{{\"accepted\":{accepted},\"correlation_id\":{},\"queue_depth\":{queue_depth},\"rejected\":{rejected},\"status\":\"{}\",\"items\":[",
        json!(correlation),
        if rejected == 0 { "queued" } else { "partial" },
    );
    let mut ids = ids.iter();
    for (i, verdict) in verdicts.iter().enumerate() {
        if i > 0 {
            text.push(',');
        }
        match (verdict, verdict.is_ok().then(|| ids.next()).flatten()) {
            (Ok(_), Some(id)) => {
                let _ = write!(text, "{{\"status\":\"queued\",\"event_id\":\"{id}\"}}");
            }
            (Ok(_), None) => text.push_str("{\"status\":\"queued\"}"),
            (Err(bad), _) => {
                let _ = write!(
                    text,
                    "{{\"status\":\"error\",\"reason\":\"{}\",\"message\":{}}}",
                    bad.reason.as_str(),
                    json!(bad.message)
                );
            }
        }
    }
    text.push_str("]}");
    text
}

fn json_response(text: String) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], text).into_response()
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()) else { return false };
    let mime = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    matches!(
        mime.as_str(),
        "application/json"
            | "application/x-ndjson"
            | "application/ndjson"
            | "application/jsonl"
            | "application/json-lines"
    ) || (mime.starts_with("application/") && mime.ends_with("+json"))
}
