//! Versions of the API: the headers on every response, and what `/version` says.

use super::auth::Anyone;
use super::params::Params;
use axum::Json;
use axum::http::{HeaderMap, HeaderName};
use serde_json::{Value, json};

const CURRENT: &str = "2.5";
const SUPPORTED: [&str; 3] = ["2.5", "2.0", "1.0"];

const VERSION: HeaderName = HeaderName::from_static("x-api-version");
const ACCEPT_VERSION: HeaderName = HeaderName::from_static("accept-version");

/// The version a client asks for: `Accept-Version`, `X-API-Version`, `api_version`, in this order;
/// what is not supported is passed over. It changes no payload.
fn negotiated(headers: &HeaderMap, params: &Params) -> &'static str {
    let header = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    [header(&ACCEPT_VERSION), header(&VERSION), params.text("api_version")]
        .into_iter()
        .flatten()
        .map(|asked| asked.trim().trim_start_matches('v'))
        .find_map(|asked| SUPPORTED.into_iter().find(|version| *version == asked))
        .unwrap_or(CURRENT)
}

pub async fn version(_: Anyone, headers: HeaderMap, params: Params) -> Json<Value> {
    Json(json!({
        "current_version": CURRENT,
        "default_version": CURRENT,
        "negotiated_version": negotiated(&headers, &params),
        "supported_versions": SUPPORTED,
        "version_history": {
            "2.5": {
                "released": "2025-11-10",
                "status": "current",
                "changes": [
                    "v2 paths for every endpoint; v1 paths are marked deprecated",
                    "config-audit: configuration changes without their values",
                    "users with roles and keys of their own",
                    "own additions under /api/v2: events, alerts, trace, queues, rejects, rules/test, rules/import",
                ],
            },
            "2.0": {
                "released": "2025-11-10",
                "status": "supported",
                "changes": ["audit of configuration changes", "filters of audit logs", "service level objectives"],
            },
            "1.0": {
                "released": "2024-01-01",
                "status": "supported",
                "changes": ["rules, hosts and teams", "event audit logs", "rates", "live settings"],
                "deprecated_in": "2.5",
            },
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn the_first_supported_wish_wins() {
        let asked = |accept: Option<&'static str>, own: Option<&'static str>, query: &str| {
            let mut headers = HeaderMap::new();
            for (name, value) in [(ACCEPT_VERSION, accept), (VERSION, own)] {
                if let Some(value) = value {
                    headers.insert(name, HeaderValue::from_static(value));
                }
            }
            negotiated(&headers, &Params::of(&format!("/?{query}").parse().unwrap()))
        };
        assert_eq!(asked(None, None, ""), "2.5");
        assert_eq!(asked(Some("1.0"), Some("2.0"), "api_version=2.5"), "1.0");
        assert_eq!(asked(Some("9.9"), Some("v2.0"), ""), "2.0");
        assert_eq!(asked(None, None, "api_version=1.0"), "1.0");
        assert_eq!(asked(None, None, "api_version=junk"), "2.5");
    }
}
