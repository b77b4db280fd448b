//! HTTP ingest (contract mutt §2): `POST /ingest`, `/api/v1/ingest`, `/api/v2/ingest`.
//!
//! The contract's checks in the contract's order, with its bodies and codes. Beyond it: arrays,
//! NDJSON and joined objects with a verdict an item; gzip and zstd; `Retry-After` wherever we ask to
//! wait. A batch with at least one good event answers 200 and names the bad ones, so that a sender
//! such as rsyslog does not repeat what can never succeed; a batch with none answers 400.

mod body;
mod parse;

pub use parse::{BadEvent, Body, BodyRules, parse};

use super::{Accepted, NewEvent, Refused, Reject, Sink};
use body::BodyError;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use http_body::Body as HttpBody;
use model::{Durability, EventId, InputKind, OrgId, RejectReason};
use runtime::KeyRing;
use serde_json::{Map, Value, json};
use std::fmt::{Display, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Keys that may post events, and whose events they are.
#[derive(Debug, Clone)]
pub struct IngestKey {
    pub keys: KeyRing,
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
    /// What a client is told does not work when the queue does not, `storage` or the name of a store.
    pub store: &'static str,
}

/// Told how each request ended: the contract's `status` and `reason` labels, and how long it took.
pub type Observer = Arc<dyn Fn(&'static str, Duration) + Send + Sync>;

/// Answers posts to the three ingest paths. Anything else on the listener is the caller's to answer;
/// see [`HttpIngest::key_org`] for checking keys elsewhere by the same list.
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

    /// Whether [`HttpIngest::handle`] is who answers.
    pub fn is_for(method: &Method, path: &str) -> bool {
        *method == Method::POST && matches!(path, "/ingest" | "/api/v1/ingest" | "/api/v2/ingest")
    }

    /// Answers one post: checks, keeps and counts it.
    pub async fn handle<B>(&self, headers: &HeaderMap, body: B, peer: SocketAddr) -> Response<Bytes>
    where
        B: HttpBody<Data = Bytes, Error: Display> + Unpin,
    {
        let started = tokio::time::Instant::now();
        let correlation = correlation_id(headers);
        let mut sample = Bytes::new();
        let (label, mut response) = match self.take(headers, body, &correlation, peer, &mut sample).await {
            Ok(text) => ("", json_response(StatusCode::OK, text)),
            Err(refusal) => {
                self.reject(refusal.reason, &refusal.message, peer, &sample, &correlation);
                (refusal.label, refusal_response(refusal, &correlation))
            }
        };
        if let Ok(value) = HeaderValue::from_str(&correlation) {
            response.headers_mut().insert(CORRELATION, value);
        }
        (self.observer)(label, started.elapsed());
        response
    }

    /// The checks of the contract in its order, then the queue. `sample` is left as what a refusal may show.
    async fn take<B>(
        &self,
        headers: &HeaderMap,
        body: B,
        correlation: &Arc<str>,
        peer: SocketAddr,
        sample: &mut Bytes,
    ) -> Result<String, Refusal>
    where
        B: HttpBody<Data = Bytes, Error: Display> + Unpin,
    {
        let refused = |refused| Refusal::refused(refused, self.config.store);
        let Some(org) = self.key_org(headers) else {
            return Err(Refusal::new(StatusCode::UNAUTHORIZED, "auth", RejectReason::Unauthorized, "Unauthorized"));
        };
        self.sink.admit(1, 1).await.map_err(refused)?;
        if !is_json(headers) {
            return Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                "json",
                RejectReason::Malformed,
                "Invalid JSON: Content-Type must be application/json or application/x-ndjson",
            ));
        }
        let config = &self.config;
        let body =
            body::read(headers, body, config.body_bytes_max, config.body_timeout).await.map_err(Refusal::body)?;
        *sample = body.slice(..body.len().min(1_024));
        let new_event = |object: Bytes| NewEvent {
            id: None,
            org: org.clone(),
            input: InputKind::Http,
            correlation_id: Some(Arc::clone(correlation)),
            object,
        };
        match parse(&body, &config.rules) {
            Body::Single(verdict) => {
                let object = verdict.map_err(Refusal::bad)?;
                self.sink.room().map_err(refused)?;
                let accepted = self.sink.accept(vec![new_event(object)], config.durability).await.map_err(refused)?;
                Ok(single_text(&accepted, correlation))
            }
            Body::Batch(verdicts) => {
                let good: Vec<NewEvent> =
                    verdicts.iter().filter_map(|v| v.as_ref().ok()).map(|object| new_event(object.clone())).collect();
                // With no good one, the answer to the whole counts one of them.
                let counted = verdicts.len() - usize::from(good.is_empty());
                for bad in verdicts.iter().filter_map(|v| v.as_ref().err()).take(counted) {
                    self.reject(bad.reason, &bad.message, peer, sample, correlation);
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
                    self.sink.admit(extra, extra.saturating_add(1)).await.map_err(refused)?;
                }
                self.sink.room().map_err(refused)?;
                let accepted = self.sink.accept(good, config.durability).await.map_err(refused)?;
                Ok(batch_text(&verdicts, &accepted.ids, accepted.queue_depth, correlation))
            }
        }
    }

    /// Tells the sink, in a span of this request; the many that are taken need none.
    fn reject(&self, reason: RejectReason, detail: &str, peer: SocketAddr, sample: &[u8], correlation: &str) {
        let _within = tracing::error_span!("request", correlation_id = correlation).entered();
        self.sink.reject(Reject { input: InputKind::Http, reason, detail, peer: Some(peer), sample });
    }

    /// The organisation of the request's key. Every key is compared, in constant time each.
    pub fn key_org(&self, headers: &HeaderMap) -> Option<OrgId> {
        let given = headers.get(API_KEY)?.as_bytes();
        let mut found = None;
        for key in &self.config.keys {
            if key.keys.matches(given) {
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
        // Told apart, not guarded by it: no need to ask the kernel for every one.
        _ => {
            let random = uuid::Builder::from_random_bytes(fastrand::u128(..).to_ne_bytes());
            let mut text = uuid::Uuid::encode_buffer();
            (&*random.into_uuid().hyphenated().encode_lower(&mut text)).into()
        }
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

    fn refused(refused: Refused, store: &str) -> Self {
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
            | RejectReason::UnknownCommunity
            | RejectReason::UnknownUser
            | RejectReason::WrongDigest
            | RejectReason::DecryptionFailed
            | RejectReason::NotInTimeWindow
            | RejectReason::Unsupported
            | RejectReason::StorageFailed => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "redis",
                refused.reason,
                format!("Service Unavailable - {store} error"),
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

fn refusal_response(refusal: Refusal, correlation: &str) -> Response<Bytes> {
    let mut body = refusal.extra;
    body.insert("status".into(), "error".into());
    body.insert("message".into(), refusal.message.into());
    body.insert("correlation_id".into(), correlation.into());
    let mut response = json_response(refusal.status, Value::Object(body).to_string());
    if let Some(wait) = refusal.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
    }
    response
}

fn single_text(accepted: &Accepted, correlation: &str) -> String {
    let mut text = String::with_capacity(160);
    let _ = write!(text, "{{\"correlation_id\":{}", json!(correlation));
    if let Some(id) = accepted.ids.first() {
        let _ = write!(text, ",\"event_id\":\"{id}\"");
    }
    let _ = write!(text, ",\"queue_depth\":{},\"status\":\"queued\"}}", accepted.queue_depth);
    text
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

fn json_response(status: StatusCode, text: String) -> Response<Bytes> {
    // Room for what the caller adds, in one piece.
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let mut response = Response::new(Bytes::from(text));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
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
