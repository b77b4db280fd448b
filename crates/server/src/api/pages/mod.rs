//! The pages for browsers, rendered here: no foreign asset, no inline script or style, readable
//! without JavaScript. Logging in is done by key; after that a cookie stands for it. Whatever is posted
//! checks where it comes from, so that a request that another site forged changes nothing; the cookie is
//! not sent from there either.

mod agents;
mod audit;
mod chart;
mod dashboard;
mod html;
mod incidents;
mod rules;

pub use agents::{agent, agent_act, agent_token, agents};
pub use audit::audit;
pub use dashboard::dashboard;
pub use html::in_url as in_path;
pub use incidents::{incident, incident_act, incidents};
pub use rules::{rule, rule_set, rules};

use super::Api;
use super::auth::{Anyone, Caller, peer};
use super::error::{ApiError, ApiResult};
use super::params::{self, Params};
use super::sessions::{COOKIE, LIFETIME};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use html::Html;
use std::sync::Arc;
use storage::catalog::users::Fingerprint;
use tokio::time::Instant;

/// Pages that need a session or a key.
const GUARDED: [&str; 5] = ["/", "/agents", "/audit", "/incidents", "/rules"];
/// Everything from here and nothing else; no inline script, style or handler works.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
const FORM_BYTES_MAX: usize = 8 << 10;

/// Where a page stands in the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Dashboard,
    Incidents,
    Rules,
    Agents,
    Audit,
    Login,
    /// Nowhere in it.
    Lost,
}

/// A whole page around its content.
fn page(status: StatusCode, title: &'static str, place: Place, caller: Option<&Caller>, content: &Html) -> Response {
    let mut html = Html::default();
    html.raw("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>").text(title);
    html.raw(
        " · MUTT Security Manager</title>\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n",
    )
    .raw("<meta name=\"color-scheme\" content=\"light dark\">\n")
    .raw("<link rel=\"icon\" href=\"/assets/icon.svg\" type=\"image/svg+xml\">\n")
    .raw("<link rel=\"stylesheet\" href=\"/assets/style.css\">\n");
    if place == Place::Dashboard {
        html.raw("<noscript><meta http-equiv=\"refresh\" content=\"10\"></noscript>\n")
            .raw("<script src=\"/assets/refresh.js\" defer></script>\n");
    }
    if place == Place::Agents {
        html.raw("<script src=\"/assets/copy.js\" defer></script>\n");
    }
    html.raw("</head>\n<body>\n<a class=\"skip\" href=\"#content\">Skip to content</a>\n<header class=\"top\">\n")
        .raw("<p class=\"brand\"><img src=\"/assets/icon.svg\" alt=\"\" width=\"24\" height=\"24\"> MUTT Security Manager</p>\n");
    if let Some(caller) = caller {
        html.raw("<nav aria-label=\"Pages\">");
        let places = [
            ("/", "Dashboard", Place::Dashboard),
            ("/incidents", "Incidents", Place::Incidents),
            ("/rules", "Rules", Place::Rules),
            ("/agents", "Agents", Place::Agents),
            ("/audit", "Audit", Place::Audit),
        ];
        // The other pages are about the default organisation.
        for (path, name, at) in places.into_iter().filter(|(_, _, at)| caller.is_of_default_org || *at == Place::Agents)
        {
            html.raw("<a").attribute("href", path);
            if at == place {
                html.raw(" aria-current=\"page\"");
            }
            html.raw(">").raw(name).raw("</a>");
        }
        html.raw("</nav>\n<form class=\"who\" method=\"post\" action=\"/logout\"><span>").text(&caller.name);
        html.raw(" <span class=\"role\">").text(caller.role.as_str());
        html.raw("</span></span> <button class=\"quiet\">Log out</button></form>\n");
    }
    html.raw("</header>\n<main id=\"content\" tabindex=\"-1\">\n").piece(content).raw("\n</main>\n</body>\n</html>\n");
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    ];
    (status, headers, html.into_string()).into_response()
}

/// An error as a page, with what the API would have said.
fn failed(error: ApiError, place: Place, title: &'static str, caller: &Caller) -> Response {
    let mut content = Html::default();
    content.element("h1", "", title);
    content.raw("<p class=\"notice bad\" role=\"alert\">").text(error.message()).raw("</p>");
    let mut response = page(error.status(), title, place, Some(caller), &content);
    carry_over(error, &caller.correlation_id, &mut response);
    response
}

/// Logs the error as the API would have, and keeps its `Retry-After`.
fn carry_over(error: ApiError, correlation_id: &str, response: &mut Response) {
    let mut rendered = error.render(correlation_id);
    if let Some(wait) = rendered.headers_mut().remove(header::RETRY_AFTER) {
        response.headers_mut().insert(header::RETRY_AFTER, wait);
    }
}

/// Whether whoever asks would rather see a form than a 401.
pub fn wants_page(request: &Request) -> bool {
    let accepts = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    (is_guarded(request) || is_change(request)) && accepts.contains("text/html")
}

/// The key behind the session of a browser that asks for a page which is not there. Nobody else is told
/// that it is not.
pub fn session_of_the_lost(api: &Api, request: &Request) -> Option<Fingerprint> {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let accepts = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !reads || !accepts.contains("text/html") || request.uri().path().starts_with("/api/") {
        return None;
    }
    api.sessions.key(cookie(request.headers())?, Instant::now())
}

/// Says that there is no such page, with the way back.
pub fn not_there(caller: &Caller) -> Response {
    let mut content = Html::default();
    content.raw("<h1>Not found</h1>\n<p class=\"panel\">There is no such page. <a href=\"/\">To the dashboard</a></p>");
    page(StatusCode::NOT_FOUND, "Not found", Place::Lost, Some(caller), &content)
}

fn is_guarded(request: &Request) -> bool {
    let path = request.uri().path();
    matches!(*request.method(), Method::GET | Method::HEAD) && (GUARDED.contains(&path) || is_one(path))
}

/// A form of a page that changes something.
fn is_change(request: &Request) -> bool {
    let path = request.uri().path();
    *request.method() == Method::POST && (is_one(path) || path == "/agents")
}

/// Whether a path is that of an incident, a rule or an agent.
fn is_one(path: &str) -> bool {
    is_incident(path) || is_rule(path) || is_agent(path)
}

fn is_agent(path: &str) -> bool {
    let id = path.strip_prefix("/agents/agt_");
    id.is_some_and(|id| {
        (1..=60).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    })
}

/// As links to rules are written: one segment, what is special in it escaped.
fn is_rule(path: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b'%');
    let uid = path.strip_prefix("/rules/");
    uid.is_some_and(|uid| !matches!(uid, "" | "." | "..") && uid.bytes().all(plain))
}

fn is_incident(path: &str) -> bool {
    let number = path.strip_prefix("/incidents/");
    number.is_some_and(|number| (1..=18).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit()))
}

/// To the form, and back afterwards.
pub fn to_login(uri: &Uri) -> Response {
    let wanted = uri.path_and_query().map_or("/", |wanted| wanted.as_str());
    let target = match local(wanted) {
        "/" => "/login".to_owned(),
        wanted => format!("/login?next={}", html::in_url(wanted)),
    };
    see_other(&target)
}

fn see_other(target: &str) -> Response {
    let location = HeaderValue::from_str(target).unwrap_or(HeaderValue::from_static("/"));
    (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response()
}

/// A page of ours, whatever was asked for: never another site.
fn local(wanted: &str) -> &str {
    let printable = wanted.len() <= 2_000 && wanted.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    let path = wanted.split_once('?').map_or(wanted, |(path, _)| path);
    let ours = GUARDED.contains(&path) || is_one(wanted);
    if printable && ours { wanted } else { "/" }
}

/// The key behind the session of a request for a page.
pub fn session_of(api: &Api, request: &Request) -> Option<Fingerprint> {
    // What changes something needs a word of the browser that it was sent from here.
    let sent_from_here = || is_change(request) && says_where(request.headers()) && from_here(request.headers());
    let stands = is_guarded(request) || sent_from_here();
    if stands { api.sessions.key(cookie(request.headers())?, Instant::now()) } else { None }
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, token)| token)
}

pub async fn login_form(_: Anyone, params: Params) -> Response {
    login_page(StatusCode::OK, params.text("next").unwrap_or_default(), None)
}

fn login_page(status: StatusCode, next: &str, problem: Option<&str>) -> Response {
    let mut content = Html::default();
    content.raw("<section class=\"panel login\">\n<h1>Log in</h1>\n");
    if let Some(problem) = problem {
        content.raw("<p class=\"notice bad\" role=\"alert\" id=\"problem\">").text(problem).raw("</p>\n");
    }
    content
        .raw("<form method=\"post\" action=\"/login\">\n<label for=\"key\">Key</label>\n")
        .raw("<input id=\"key\" name=\"key\" type=\"password\" autocomplete=\"current-password\" required autofocus")
        .raw(" maxlength=\"1024\" spellcheck=\"false\"");
    if problem.is_some() {
        content.raw(" aria-describedby=\"problem\"");
    }
    content.raw(">\n<input type=\"hidden\" name=\"next\"").attribute("value", local(next));
    content
        .raw(">\n<button>Log in</button>\n</form>\n")
        .raw(
            "<p class=\"hint\">A key of a user, or the Web API key of this installation. It is sent once and not kept ",
        )
        .raw("by the browser's page; the session ends after 12 hours.</p>\n</section>");
    page(status, "Log in", Place::Login, None, &content)
}

/// Opens a session for the holder of a key.
pub async fn login(_: Anyone, State(api): State<Arc<Api>>, request: Request) -> Response {
    if !from_here(request.headers()) {
        return login_page(StatusCode::FORBIDDEN, "", Some("This form was sent from another site."));
    }
    let secure = api.deps.options.tls || forwarded_https(request.headers());
    let (address, now) = (peer(request.extensions()), api.deps.clock.now());
    let form = match form(request).await {
        Ok(form) => form,
        Err(error) => return refused(error, ""),
    };
    let next = form.text("next").unwrap_or_default();
    let key = form.text("key").unwrap_or_default().trim();
    match api.admit(key.as_bytes(), address, now).await {
        Ok(Some(identity)) => match api.sessions.open(identity.fingerprint, Instant::now()) {
            Ok(token) => {
                let age = LIFETIME.as_secs();
                // The dashboard is the default organisation's.
                let next = match local(next) {
                    "/" if identity.org != api.deps.org => "/agents",
                    next => next,
                };
                with_cookie(see_other(next), &format!("{COOKIE}={}; Max-Age={age}", token.expose()), secure)
            }
            Err(error) => {
                tracing::error!(%error, "there are no random numbers for a session");
                refused(ApiError::unavailable("there are no random numbers now"), next)
            }
        },
        Ok(None) => login_page(StatusCode::UNAUTHORIZED, next, Some("This key is not known here.")),
        Err(error) => refused(error, next),
    }
}

fn refused(error: ApiError, next: &str) -> Response {
    let mut response = login_page(error.status(), next, Some(error.message()));
    carry_over(error, "", &mut response);
    response
}

/// Ends the session.
pub async fn logout(_: Anyone, State(api): State<Arc<Api>>, request: Request) -> Response {
    if !from_here(request.headers()) {
        return login_page(StatusCode::FORBIDDEN, "", Some("This form was sent from another site."));
    }
    if let Some(token) = cookie(request.headers()) {
        api.sessions.close(token);
    }
    let secure = api.deps.options.tls || forwarded_https(request.headers());
    with_cookie(see_other("/login"), &format!("{COOKIE}=; Max-Age=0"), secure)
}

fn with_cookie(mut response: Response, cookie: &str, secure: bool) -> Response {
    let secure = if secure { "; Secure" } else { "" };
    let text = format!("{cookie}; Path=/; HttpOnly; SameSite=Strict{secure}");
    if let Ok(mut value) = HeaderValue::from_str(&text) {
        value.set_sensitive(true);
        response.headers_mut().insert(header::SET_COOKIE, value);
    }
    response
}

/// Whether it is said at all where a request was made.
fn says_where(headers: &HeaderMap) -> bool {
    headers.contains_key("sec-fetch-site") || headers.contains_key("origin")
}

/// Whether a browser says that a form of this site was sent. Programs that are none say nothing.
fn from_here(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    if let Some(site) = text("sec-fetch-site") {
        return matches!(site, "same-origin" | "none");
    }
    match text("origin") {
        None => true,
        Some(origin) => {
            let host = origin.split_once("://").map(|(_, host)| host);
            host.is_some() && [text("host"), text("x-forwarded-host")].contains(&host)
        }
    }
}

/// A proxy in front of us speaks TLS. Whoever claims it wrongly only binds their own cookie.
fn forwarded_https(headers: &HeaderMap) -> bool {
    headers.get("x-forwarded-proto").is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"https"))
}

async fn form(request: Request) -> ApiResult<Params> {
    let body = params::read(request, &()).await?;
    if body.len() > FORM_BYTES_MAX {
        return Err(ApiError::body_too_large(FORM_BYTES_MAX));
    }
    let text = std::str::from_utf8(&body).map_err(|_| ApiError::invalid("the form cannot be read"))?;
    let uri: Uri = format!("/?{text}").parse().map_err(|_| ApiError::invalid("the form cannot be read"))?;
    Ok(Params::of(&uri))
}

pub async fn style(_: Anyone) -> Response {
    asset("text/css; charset=utf-8", include_str!("style.css"))
}

pub async fn script(_: Anyone) -> Response {
    asset("text/javascript; charset=utf-8", include_str!("refresh.js"))
}

pub async fn copy_script(_: Anyone) -> Response {
    asset("text/javascript; charset=utf-8", include_str!("copy.js"))
}

pub async fn icon(_: Anyone) -> Response {
    asset("image/svg+xml", include_str!("icon.svg"))
}

fn asset(media_type: &'static str, content: &'static str) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static(media_type))], Body::from(content)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_never_led_to_another_site() {
        for (wanted, expected) in [
            ("/audit?user=a%20b", "/audit?user=a%20b"),
            ("/audit", "/audit"),
            ("/incidents?status=any", "/incidents?status=any"),
            ("/incidents/17", "/incidents/17"),
            ("/incidents/17/..", "/"),
            ("/incidents/x", "/"),
            ("/rules?text=ssh", "/rules?text=ssh"),
            ("/rules/a-1%2Fb", "/rules/a-1%2Fb"),
            ("/rules/..", "/"),
            ("/rules/a/b", "/"),
            ("/incidents/9999999999999999999", "/"),
            ("/", "/"),
            ("//evil.example/audit", "/"),
            ("https://evil.example", "/"),
            ("/audit\\..\\x", "/"),
            ("/audit?\r\nSet-Cookie: a=b", "/"),
            ("/auditx", "/"),
            ("javascript:alert(1)", "/"),
        ] {
            assert_eq!(local(wanted), expected, "{wanted}");
        }
    }

    #[test]
    fn a_form_of_another_site_is_told_from_ours() {
        let from = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, HeaderValue::from_static(value));
            }
            from_here(&headers)
        };
        assert!(from(&[]), "not a browser");
        assert!(from(&[("sec-fetch-site", "same-origin"), ("origin", "null"), ("host", "h")]));
        assert!(!from(&[("sec-fetch-site", "cross-site"), ("origin", "https://h"), ("host", "h")]));
        assert!(!from(&[("sec-fetch-site", "same-site")]));
        assert!(from(&[("origin", "http://h:8090"), ("host", "h:8090")]));
        assert!(from(&[
            ("origin", "https://mutt.example"),
            ("host", "127.0.0.1:8090"),
            ("x-forwarded-host", "mutt.example")
        ]));
        assert!(!from(&[("origin", "http://evil.example"), ("host", "h:8090")]));
        assert!(!from(&[("origin", "null"), ("host", "h:8090")]));
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=b; other=mutt_session"));
        headers.append(header::COOKIE, HeaderValue::from_static("c=d; mutt_session=token"));
        assert_eq!(cookie(&headers), Some("token"));
        assert_eq!(cookie(&HeaderMap::new()), None);
    }
}
