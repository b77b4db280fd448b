//! Who calls, and what every response carries: correlation id, version headers, a measurement.

use super::Api;
use super::error::ApiError;
use super::params::Params;
use crate::worker_http::{is_deprecated, version_headers};
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::Response;
use connectors::inputs::http::correlation_id;
use pipeline::metrics::labels;
use std::convert::Infallible;
use std::sync::Arc;
use tracing::Instrument as _;

const CORRELATION: HeaderName = HeaderName::from_static("x-correlation-id");
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const USER: HeaderName = HeaderName::from_static("x-user");
const USER_CHARS_MAX: usize = 64;
/// Written where the caller gives no name: never a key or a part of one.
const UNNAMED: &str = "api_key:***";

/// Somebody with a key. First argument of a handler that only such may call.
#[derive(Debug, Clone)]
pub struct Caller {
    /// What they call themselves, for audit rows.
    pub name: String,
    pub correlation_id: Arc<str>,
}

/// Whoever asks. First argument of a public handler.
#[derive(Debug, Clone, Copy)]
pub struct Anyone;

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        parts.extensions.get::<Self>().cloned().ok_or_else(ApiError::unauthorized)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Anyone {
    type Rejection = Infallible;
    async fn from_request_parts(_parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self)
    }
}

/// A handler whose first argument is [`Caller`].
pub trait NamesCaller {}
/// A handler whose first argument is [`Anyone`].
pub trait NamesAnyone {}

macro_rules! first_argument {
    ($( ($($rest:ident),*) )*) => { $(
        impl<M, $($rest),*> NamesCaller for (M, Caller, $($rest,)*) {}
        impl<M, $($rest),*> NamesAnyone for (M, Anyone, $($rest,)*) {}
    )* };
}
first_argument! { () (A) (A, B) (A, B, C) (A, B, C, D) }

/// The correlation id of a request, as an extension.
#[derive(Clone)]
struct Correlation(Arc<str>);

/// Lets requests with a key through, as their [`Caller`]. Runs before routing is acted upon.
pub async fn authenticate(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Result<Response, ApiError> {
    if !authentic(&api, request.headers(), request.uri()) {
        return Err(ApiError::unauthorized());
    }
    let correlation_id = match request.extensions().get::<Correlation>() {
        Some(Correlation(id)) => Arc::clone(id),
        None => correlation_id(request.headers()),
    };
    let name = user(request.headers()).unwrap_or_else(|| UNNAMED.to_owned());
    request.extensions_mut().insert(Caller { name, correlation_id });
    Ok(next.run(request).await)
}

/// Compares with every key, each in constant time, whatever bytes are given.
fn authentic(api: &Api, headers: &HeaderMap, uri: &Uri) -> bool {
    let from_url;
    let given = match headers.get(API_KEY) {
        Some(value) => value.as_bytes(),
        None if api.deps.options.key_in_url => {
            from_url = Params::of(uri);
            match from_url.text("api_key") {
                Some(key) => key.as_bytes(),
                None => return false,
            }
        }
        None => return false,
    };
    api.deps.keys.matches(given)
}

/// `X-User`, when it is a printable name.
fn user(headers: &HeaderMap) -> Option<String> {
    let name = std::str::from_utf8(headers.get(USER)?.as_bytes()).ok()?.trim();
    let printable = !name.is_empty() && !name.chars().any(char::is_control);
    printable.then(|| name.chars().take(USER_CHARS_MAX).collect())
}

/// Gives the request its correlation id and span, and the response its headers; renders errors;
/// measures.
pub async fn seal(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    let started = tokio::time::Instant::now();
    let correlation = correlation_id(request.headers());
    request.extensions_mut().insert(Correlation(Arc::clone(&correlation)));
    let path = request.uri().path().to_owned();
    let matched = request.extensions().get::<MatchedPath>();
    let route = matched.map_or_else(|| "other".to_owned(), |route| route.as_str().to_owned());
    let endpoint = path.starts_with("/api/").then(|| endpoint(matched));
    let method = request.method().clone();
    let span = tracing::info_span!("request", correlation.id = %correlation, method = %request.method(), path);
    let mut response = async {
        let mut response = next.run(request).await;
        match response.extensions_mut().remove::<ApiError>() {
            Some(error) => {
                // What layers and extractors put there, `Allow` for one, stays.
                let (kept, mut rendered) = (std::mem::take(response.headers_mut()), error.render(&correlation));
                if let Some(methods) = kept.get(header::ALLOW) {
                    rendered.headers_mut().insert(header::ALLOW, methods.clone());
                }
                rendered
            }
            None => response,
        }
    }
    .instrument(span)
    .await;
    let headers = response.headers_mut();
    version_headers(headers, is_deprecated(&path), api.deps.options.version_prefix);
    if let Ok(value) = HeaderValue::from_str(&correlation) {
        headers.insert(CORRELATION, value);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let (status, seconds) = (response.status(), started.elapsed().as_secs_f64());
    api.deps.metrics.count_request(&method, route.into(), status.as_u16(), seconds);
    if let Some(endpoint) = endpoint {
        let cached = response.extensions().get::<Cached>().is_some();
        let series = labels([("endpoint", &*endpoint), ("status", outcome(status, &endpoint, cached))]);
        api.deps.metrics.webui_api_requests.get_or_create(&series).inc();
        let series = labels([("endpoint", &*endpoint)]);
        api.deps.metrics.webui_api_latency.get_or_create(&series).observe(seconds);
    }
    response
}

/// Marks a response that was made before, for the contract's `success_cached`.
#[derive(Clone, Copy)]
pub struct Cached;

/// The noun of a route as a metric label: from the route, never from the path, so the set is closed.
fn endpoint(route: Option<&MatchedPath>) -> String {
    let noun = route
        .map(MatchedPath::as_str)
        .and_then(|route| route.strip_prefix("/api/v1/").or_else(|| route.strip_prefix("/api/v2/")))
        .and_then(|rest| rest.split('/').next());
    match noun {
        Some("audit" | "audit-logs" | "config-audit") => "audit".to_owned(),
        Some(noun) => noun.replace('-', "_"),
        None => "unknown".to_owned(),
    }
}

/// The contract's `status` label (mutt §9.1).
fn outcome(status: StatusCode, endpoint: &str, cached: bool) -> &'static str {
    let store_failures_have_names = endpoint == "metrics";
    match status.as_u16() {
        ..400 if cached => "success_cached",
        ..400 => "success",
        400..500 => "error_invalid",
        503 | 504 if store_failures_have_names => "fail_redis",
        _ if store_failures_have_names => "fail_unknown",
        _ => "error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_printable_and_bounded_or_not_a_name() {
        let name = |bytes: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(USER, HeaderValue::from_bytes(bytes).unwrap());
            user(&headers)
        };
        assert_eq!(name(b" alice ").as_deref(), Some("alice"));
        assert_eq!(name("Jürgen".as_bytes()).as_deref(), Some("Jürgen"));
        assert_eq!(name(&[b'x'; 500]).map(|n| n.len()), Some(USER_CHARS_MAX));
        for bad in [&b""[..], b"  ", b"a\tb", &[0xff, 0xfe]] {
            assert_eq!(name(bad), None, "{bad:?}");
        }
    }
}
