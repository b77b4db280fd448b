//! `/health` and `/metrics` of a role, on any of its ports (contract mutt §0-8…10, §3.9, §4, §5).

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use pipeline::metrics::Metrics;
use runtime::Health;
use serde_json::{Map, Value};
use std::sync::Arc;

/// What the endpoints of one role show.
#[derive(Clone)]
pub struct RoleHealth {
    /// The contract's service name, `mutt-alerter`.
    pub service: &'static str,
    /// Parts that must work for this role to be healthy.
    pub needs: &'static [&'static str],
    pub pod: String,
    pub health: Health,
    pub metrics: Arc<Metrics>,
    /// `v2.5` or `2.5`.
    pub version_prefix: bool,
}

impl RoleHealth {
    pub fn router(self) -> Router {
        Router::new().route("/health", get(health)).route("/metrics", get(metrics)).with_state(self)
    }

    /// Status and body of `/health`. The keys `redis` and `queue` both tell of the queue: the
    /// contract's name for scripts, the true one for people.
    pub fn report(&self) -> (StatusCode, Value) {
        // Which part, not why: this page is public, and a reason may name hosts and files. The log
        // says why.
        let broken: Vec<String> = self
            .health
            .broken(self.needs)
            .iter()
            .map(|b| format!("{} is not working", b.split(':').next().unwrap_or(b)))
            .collect();
        let queue = if broken.iter().any(|b| b.starts_with("queue")) { "disconnected" } else { "connected" };
        let mut body = Map::new();
        body.insert("service".into(), self.service.into());
        body.insert("version".into(), "2.3".into());
        body.insert("pod".into(), self.pod.as_str().into());
        body.insert("redis".into(), queue.into());
        body.insert("queue".into(), queue.into());
        if let Some(vault) = vault_state(&self.health) {
            body.insert("vault".into(), vault.into());
        }
        if let Some(note) = self.note() {
            body.insert("note".into(), note.into());
        }
        if broken.is_empty() {
            body.insert("status".into(), "healthy".into());
            return (StatusCode::OK, Value::Object(body));
        }
        body.insert("status".into(), "unhealthy".into());
        body.insert("error".into(), broken.join("; ").into());
        body.insert("errors".into(), broken.into());
        (StatusCode::SERVICE_UNAVAILABLE, Value::Object(body))
    }
}

/// `connected`, or why Vault gives no secrets; `None` without a Vault. It makes nothing red: the
/// secrets of before are in force.
pub fn vault_state(health: &Health) -> Option<String> {
    let state = health.public(runtime::secrets::HEALTH_PART)?;
    Some(state.err().unwrap_or_else(|| "connected".to_owned()))
}

impl RoleHealth {
    /// What works and should be looked at all the same.
    fn note(&self) -> Option<String> {
        let refused = self.metrics.alerter_cache_rules_refused.get();
        (self.service == "mutt-alerter" && refused > 0).then(|| {
            format!("{refused} active rule(s) cannot be used and are left out; `muttd doctor` and the log name them")
        })
    }
}

/// Whether a path belongs to the first version of the API, which is to go.
pub fn is_deprecated(path: &str) -> bool {
    path.starts_with("/api/v1/")
}

/// The version headers that every response of the contract's services carries (§0-4, §0-5).
pub fn version_headers(headers: &mut HeaderMap, deprecated: bool, prefix: bool) {
    let (version, supported) = if prefix { ("v2.5", "v2.5, v2.0, v1.0") } else { ("2.5", "2.5, 2.0, 1.0") };
    let deprecated = if deprecated { "true" } else { "false" };
    for (name, value) in
        [("x-api-version", version), ("x-api-supported-versions", supported), ("x-api-deprecated", deprecated)]
    {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
}

async fn health(State(role): State<RoleHealth>) -> Response {
    let mut response = role.report();
    let mut response = (response.0, axum::Json(std::mem::take(&mut response.1))).into_response();
    version_headers(response.headers_mut(), false, role.version_prefix);
    response
}

async fn metrics(State(role): State<RoleHealth>, headers: HeaderMap) -> Response {
    metrics_response(&role.metrics, &headers)
}

/// The text of `/metrics`: as the contract has it, or OpenMetrics for whoever asks for it.
pub fn metrics_response(metrics: &Metrics, headers: &HeaderMap) -> Response {
    const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let (media, text) = if wants_open_metrics(headers) {
        (OPEN_METRICS, metrics.encode())
    } else {
        (CLASSIC, metrics.encode_classic())
    };
    ([(header::CONTENT_TYPE, HeaderValue::from_static(media))], text).into_response()
}

/// Whether `Accept` names OpenMetrics, and nothing else that we have before it.
fn wants_open_metrics(headers: &HeaderMap) -> bool {
    let (mut open, mut classic) = (0.0_f64, 0.0_f64);
    for value in headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()) {
        for range in value.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default().to_ascii_lowercase();
            let quality = parts.find_map(|part| part.strip_prefix("q=")).map_or(Some(1.0), |q| q.parse().ok());
            let quality = quality.unwrap_or(0.0);
            match media.as_str() {
                "application/openmetrics-text" => open = open.max(quality),
                "text/plain" | "text/*" => classic = classic.max(quality),
                _ => {}
            }
        }
    }
    open > 0.0 && open >= classic
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_for_whoever_asks_for_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                          application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1";
        for (accept, open) in [
            (None, false),
            (Some("*/*"), false),
            (Some("text/plain;version=0.0.4"), false),
            (Some("application/openmetrics-text"), true),
            (Some("application/openmetrics-text;q=0"), false),
            (Some("text/plain;q=0.9, application/openmetrics-text;q=0.5"), false),
            (Some(prometheus), true),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            }
            assert_eq!(wants_open_metrics(&headers), open, "{accept:?}");
        }
    }

    #[test]
    fn vault_is_told_where_there_is_one_without_hosts_and_without_making_the_role_red() {
        let health = Health::default();
        health.ok("queue");
        let role = RoleHealth {
            service: "mutt-ingestor",
            needs: &["queue"],
            pod: "pod".into(),
            health: health.clone(),
            metrics: Metrics::new(),
            version_prefix: true,
        };
        assert_eq!(role.report().1.get("vault"), None);
        health.ok("vault");
        assert_eq!(role.report().1["vault"], "connected");
        health.failed_publicly("vault", "`http://10.0.0.1` is sealed", "it is sealed");
        let (status, body) = role.report();
        assert_eq!(
            (status, &body["status"], &body["vault"]),
            (StatusCode::OK, &"healthy".into(), &"it is sealed".into())
        );
    }
}
