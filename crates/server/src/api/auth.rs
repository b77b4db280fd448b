//! Who calls, about which organisation, and what every response carries: correlation id, version headers, a
//! measurement.
//!
//! A user sees the own organisation. Whoever administers the default one may name another, by the header `X-Scope-OrgID`
//! or by `?org=`. A handler is about the default organisation, unless its first argument is [`Scoped`]: so none can
//! answer about another one by mistake.

use super::error::ApiError;
use super::keyring::Identity;
use super::params::Params;
use super::{Api, pages};
use crate::worker_http::{is_deprecated, version_headers};
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::Response;
use connectors::inputs::http::correlation_id;
use model::{ErrorKind, OrgId, Timestamp};
use pipeline::metrics::labels;
use runtime::Secret;
use runtime::http::Peer;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use storage::catalog::users::Role;
use tokio::time::Instant;
use tracing::Instrument as _;

const CORRELATION: HeaderName = HeaderName::from_static("x-correlation-id");
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const USER: HeaderName = HeaderName::from_static("x-user");
const SCOPE: HeaderName = HeaderName::from_static("x-scope-orgid");
const USER_CHARS_MAX: usize = 64;
/// Written where the caller gives no name: never a key or a part of one.
const UNNAMED: &str = "api_key:***";

/// On every response that does not say otherwise.
const SAFETY: [(HeaderName, &str); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CACHE_CONTROL, "no-store"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (header::X_FRAME_OPTIONS, "DENY"),
    // Not `no-referrer`: with it browsers hide the origin of a form.
    (header::REFERRER_POLICY, "same-origin"),
];

/// Somebody who may call.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Their name for audit rows: the user's, or what the holder of a configured key says.
    pub name: String,
    pub role: Role,
    /// What the request is about.
    pub org: OrgId,
    /// Whether that is the default organisation.
    pub is_default_org: bool,
    /// Whether they are of the default organisation.
    pub is_of_default_org: bool,
    pub correlation_id: Arc<str>,
}

/// Somebody who may read. First argument of a handler that only such may call.
#[derive(Debug, Clone)]
pub struct Viewer(pub Caller);
/// Somebody who may also change rules, hosts and teams, and replay dead letters.
#[derive(Debug, Clone)]
pub struct Operator(pub Caller);
/// Somebody who may do everything.
#[derive(Debug, Clone)]
pub struct Admin(pub Caller);
/// The same, about any organisation.
#[derive(Debug, Clone)]
pub struct Scoped<Who>(pub Who);
/// Whoever asks. First argument of a public handler.
#[derive(Debug, Clone, Copy)]
pub struct Anyone;

/// What an argument of a handler asks of whoever calls it; `None`: nothing.
pub trait Rights {
    const NEEDS: Option<Role>;
    /// Whether it is about any organisation.
    const IS_SCOPED: bool = false;
}

/// A caller with a role.
pub trait Who: Sized {
    const ROLE: Role;
    fn of(caller: Caller) -> Self;
    fn caller(&self) -> &Caller;
}

impl<W: Who> Scoped<W> {
    pub fn caller(&self) -> &Caller {
        self.0.caller()
    }
    pub fn org(&self) -> &OrgId {
        &self.caller().org
    }
}

/// A caller of this request with the role.
fn caller_of<W: Who>(parts: &Parts) -> Result<W, ApiError> {
    let caller = parts.extensions.get::<Caller>().cloned().ok_or_else(ApiError::unauthorized)?;
    if caller.role >= W::ROLE {
        return Ok(W::of(caller));
    }
    Err(ApiError::forbidden(W::ROLE, &caller.name, caller.role))
}

impl<W: Who> Rights for Scoped<W> {
    const NEEDS: Option<Role> = Some(W::ROLE);
    const IS_SCOPED: bool = true;
}

impl<W: Who, S: Send + Sync> FromRequestParts<S> for Scoped<W> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        caller_of(parts).map(Self)
    }
}

macro_rules! callers {
    ($($name:ident)*) => { $(
        impl Rights for $name {
            const NEEDS: Option<Role> = Some(Role::$name);
        }

        impl Who for $name {
            const ROLE: Role = Role::$name;
            fn of(caller: Caller) -> Self {
                Self(caller)
            }
            fn caller(&self) -> &Caller {
                &self.0
            }
        }

        impl<S: Send + Sync> FromRequestParts<S> for $name {
            type Rejection = ApiError;
            async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
                let who: Self = caller_of(parts)?;
                if who.0.is_default_org { Ok(who) } else { Err(ApiError::of_default_org()) }
            }
        }
    )* };
}
callers! { Viewer Operator Admin }

impl Rights for Anyone {
    const NEEDS: Option<Role> = None;
}

impl<S: Send + Sync> FromRequestParts<S> for Anyone {
    type Rejection = Infallible;
    async fn from_request_parts(_parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self)
    }
}

/// A handler whose first argument says who may call it.
pub trait NamesCaller {
    const NEEDS: Option<Role>;
    const IS_SCOPED: bool;
}

macro_rules! first_argument {
    ($( ($($rest:ident),*) )*) => { $(
        impl<M, Who: Rights, $($rest),*> NamesCaller for (M, Who, $($rest,)*) {
            const NEEDS: Option<Role> = Who::NEEDS;
            const IS_SCOPED: bool = Who::IS_SCOPED;
        }
    )* };
}
first_argument! { () (A) (A, B) (A, B, C) (A, B, C, D) }

/// The correlation id of a request, as an extension.
#[derive(Clone)]
struct Correlation(Arc<str>);

/// Lets requests with a key through, as their [`Caller`]; pages also with a session. Runs before
/// routing is acted upon.
pub async fn authenticate(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Result<Response, ApiError> {
    let now = api.deps.clock.now();
    let given = given_key(&api, request.headers(), request.uri());
    let identity = match &given {
        Some(key) => api.admit(key, peer(request.extensions()), now).await?,
        None => match pages::session_of(&api, &request) {
            Some(key) => api.keyring.of_fingerprint(key, now).await?,
            None => None,
        },
    };
    let correlation_id = match request.extensions().get::<Correlation>() {
        Some(Correlation(id)) => Arc::clone(id),
        None => correlation_id(request.headers()),
    };
    let Some(identity) = identity else {
        if given.is_some() {
            return Err(ApiError::unauthorized());
        }
        if pages::wants_page(&request) {
            return Ok(pages::to_login(request.uri()));
        }
        if let Some(key) = pages::session_of_the_lost(&api, &request)
            && let Some(identity) = api.keyring.of_fingerprint(key, now).await?
        {
            let name = identity.user.clone().unwrap_or_else(|| UNNAMED.to_owned());
            let org = identity.org.clone();
            return Ok(pages::not_there(&api.caller(&identity, name, org, correlation_id)));
        }
        return Err(ApiError::unauthorized());
    };
    let org = api.scope(&identity, request.headers(), request.uri()).await?;
    // A configured key says nothing about who uses it: there the name is a claim, else a fact.
    let name = match (identity.user.clone(), user(request.headers())) {
        // In the log of another organisation a name says whose user it is.
        (Some(name), _) if org != identity.org => format!("{name} ({})", identity.org),
        (Some(name), _) => name,
        (None, Some(claim)) => api.marked(claim, request.method(), &org).await,
        (None, None) => UNNAMED.to_owned(),
    };
    let caller = api.caller(&identity, name, org, correlation_id);
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

/// The client's address, where the request came over a socket.
pub fn peer(extensions: &Extensions) -> Option<IpAddr> {
    extensions.get::<Peer>().map(|Peer(address)| address.ip().to_canonical())
}

fn given_key(api: &Api, headers: &HeaderMap, uri: &Uri) -> Option<Vec<u8>> {
    match headers.get(API_KEY) {
        Some(value) => Some(value.as_bytes().to_vec()),
        None if api.deps.options.key_in_url => Params::of(uri).text("api_key").map(|key| key.as_bytes().to_vec()),
        None => None,
    }
}

impl Api {
    fn caller(&self, identity: &Identity, name: String, org: OrgId, correlation_id: Arc<str>) -> Caller {
        Caller {
            name,
            role: identity.role,
            is_default_org: org == self.deps.org,
            is_of_default_org: identity.org == self.deps.org,
            org,
            correlation_id,
        }
    }

    /// Which organisation a request is about: the caller's own, or the one that somebody names who may.
    async fn scope(&self, identity: &Identity, headers: &HeaderMap, uri: &Uri) -> Result<OrgId, ApiError> {
        let by_header = headers.get(SCOPE).map(|value| value.to_str().unwrap_or_default().trim().to_owned());
        let by_query = Params::of(uri).text("org").map(str::to_owned);
        let named = match (by_header, by_query) {
            (Some(header), Some(query)) if header != query => {
                return Err(ApiError::invalid("X-Scope-OrgID and org name different organisations"));
            }
            (header, query) => header.or(query),
        };
        let Some(named) = named else { return Ok(identity.org.clone()) };
        let org: OrgId = named.parse().map_err(|error| ApiError::invalid(format!("org: {error}")))?;
        if org == identity.org {
            return Ok(org);
        }
        if identity.org != self.deps.org || identity.role < Role::Admin {
            return Err(ApiError::other_org());
        }
        self.ask("orgs_get", self.deps.catalog.org(&org))
            .await
            .map_err(|error| error.named(ErrorKind::NotFound, "no such organisation"))?;
        Ok(org)
    }

    /// Whose key it is; wrong ones are counted, and after too many their address is told to wait.
    pub async fn admit(
        &self,
        key: &[u8],
        address: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<Option<Identity>, ApiError> {
        let identity = self.keyring.of_fingerprint(Secret::fingerprint_of(key), now).await?;
        if identity.is_some() {
            return Ok(identity);
        }
        let failed = |result| {
            self.deps.metrics.webui_login_failures.get_or_create(&labels([("result", result)])).inc();
        };
        if let Some(wait) = address.and_then(|address| self.failures.wait(address, Instant::now())) {
            failed("limited");
            return Err(ApiError::too_many_failures(wait));
        }
        failed("wrong_key");
        if let Some(address) = address {
            let failures = self.failures.wrong(address, Instant::now());
            tracing::warn!(peer.address = %address, failures, "a wrong key for the Web API");
        }
        Ok(None)
    }
}

/// What follows the name of a user that somebody claims to be who has no key of that user.
const UNVERIFIED: &str = " (unverified)";

impl Api {
    /// A claimed name as audit rows show it: never so that it can be taken for a user's own deed.
    async fn marked(&self, claim: String, method: &Method, org: &OrgId) -> String {
        // Reading leaves no row.
        if matches!(*method, Method::GET | Method::HEAD) {
            return claim;
        }
        let mut orgs = vec![&self.deps.org];
        if *org != self.deps.org {
            orgs.push(org);
        }
        for org in orgs {
            let is_a_users = match self.ask("users_get", self.deps.catalog.users(org)).await {
                Ok(users) => users.iter().any(|user| user.name.eq_ignore_ascii_case(&claim)),
                // Nobody can say now: then it is not to be believed.
                Err(_) => true,
            };
            if is_a_users {
                return claim + UNVERIFIED;
            }
        }
        claim
    }
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
    // Of the level of errors: below it a log of errors only would not know of it.
    let span = tracing::error_span!("request", correlation_id = &*correlation);
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
    for (name, value) in SAFETY {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
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
