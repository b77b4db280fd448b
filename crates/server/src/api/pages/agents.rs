//! Agents: how they are, one of them with what people can do about it, and adding one. What changes something is taken
//! from this site only; a new token is on the answer to its form, and nowhere else.

use super::audit::moment;
use super::html::{Html, in_url};
use super::{Place, failed, form, from_here, page, see_other};
use crate::agent_tokens::{install_command, installer_sha256, is_gateway};
use crate::api::Api;
use crate::api::agents::{STATES, Said, find, forget, get, throw_out};
use crate::api::auth::{Admin, Caller, Operator, Scoped, Viewer};
use crate::api::error::{ApiError, ApiResult};
use crate::api::orgs::{Wanted, make};
use crate::api::params::{Params, Segment};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use model::Timestamp;
use std::sync::Arc;
use storage::catalog::fleet::{Agent, AgentState};
use storage::catalog::users::Role;
use storage::catalog::{Page, PageRequest};

const PAGE_ROWS: u64 = 50;
const TITLE: &str = "Agents";
/// What one agent said that is shown of each list.
const SAID_SHOWN_MAX: usize = 50;

pub async fn agents(caller: Scoped<Viewer>, State(api): State<Arc<Api>>, params: Params) -> Response {
    match list(&api, caller.caller(), &params).await {
        Ok(html) => page(StatusCode::OK, TITLE, Place::Agents, Some(caller.caller()), &html),
        Err(error) => failed(error, Place::Agents, TITLE, caller.caller()),
    }
}

async fn list(api: &Api, caller: &Caller, params: &Params) -> ApiResult<Html> {
    let at = params.number("page", 1..=1_000_000_000)?.unwrap_or(1);
    let (found, counts) = find(api, &caller.org, params, PageRequest { page: at, limit: PAGE_ROWS }).await?;
    let mut html = Html::default();
    html.piece(&heading(caller)).piece(&totals(caller, &counts)).piece(&filters(caller, params));
    html.piece(&table(api, caller, &found)).piece(&paging(caller, params, at, found.total));
    if caller.role >= Role::Admin {
        html.piece(&new_agent(caller));
    }
    Ok(html)
}

fn heading(caller: &Caller) -> Html {
    let mut html = Html::default();
    html.raw("<h1>Agents");
    if !caller.is_default_org {
        html.raw(" <span class=\"hint\">").text(&caller.org).raw("</span>");
    }
    html.raw("</h1>\n");
    html
}

/// A path below `/agents`, about the organisation that this page is about.
fn link(caller: &Caller, path: &str, query: &[(&str, &str)]) -> String {
    let org = (caller.is_of_default_org && !caller.is_default_org).then(|| ("org", caller.org.as_str()));
    let mut link = format!("/agents{path}");
    for (n, (name, value)) in query.iter().copied().chain(org).filter(|(_, value)| !value.is_empty()).enumerate() {
        link.push(if n == 0 { '?' } else { '&' });
        link.push_str(&format!("{name}={}", in_url(value)));
    }
    link
}

fn totals(caller: &Caller, counts: &[(AgentState, u64)]) -> Html {
    let mut html = Html::default();
    html.raw("<ul class=\"paging parts\" aria-label=\"Agents by state\">");
    for (state, count) in counts {
        html.raw("<li><a").attribute("href", link(caller, "", &[("state", state.as_str())])).raw(">");
        html.element("span", state_class(*state), state.as_str()).raw(" ").text(count).raw("</a></li> ");
    }
    html.raw("</ul>\n");
    html
}

fn filters(caller: &Caller, params: &Params) -> Html {
    let mut html = Html::default();
    html.raw("<form class=\"panel filters\" method=\"get\" action=\"/agents\" role=\"search\">\n");
    html.raw("<div><label for=\"host\">Host</label><input id=\"host\" name=\"host\" type=\"search\" maxlength=\"200\"");
    html.attribute("value", params.text("host").unwrap_or_default()).raw("></div>\n");
    html.raw(
        "<div><label for=\"state\">State</label><select id=\"state\" name=\"state\"><option value=\"\">any</option>",
    );
    for state in STATES {
        html.raw("<option").attribute("value", state);
        if params.text("state") == Some(*state) {
            html.raw(" selected");
        }
        html.raw(">").raw(state).raw("</option>");
    }
    html.raw("</select></div>\n");
    if caller.is_of_default_org && !caller.is_default_org {
        html.raw("<input type=\"hidden\" name=\"org\"").attribute("value", &caller.org).raw(">");
    }
    html.raw("<div class=\"buttons\"><button>Search</button> <a").attribute("href", link(caller, "", &[]));
    html.raw(">All</a></div>\n</form>\n");
    html
}

fn table(api: &Api, caller: &Caller, found: &Page<Agent>) -> Html {
    let mut html = Html::default();
    if found.rows.is_empty() {
        html.raw("<p class=\"panel empty\">There is none.</p>\n");
        return html;
    }
    html.raw("<div class=\"panel wide\" role=\"region\" aria-label=\"Agents\" tabindex=\"0\"><table><thead><tr>");
    for column in ["Host", "State", "Version", "Behind", "Waiting", "Given up", "Last seen (UTC)", "Address"] {
        html.raw("<th scope=\"col\">").raw(column).raw("</th>");
    }
    html.raw("</tr></thead><tbody>\n");
    for agent in &found.rows {
        let said = Said::of(agent);
        html.raw("<tr><th scope=\"row\"><a").attribute("href", link(caller, &format!("/{}", agent.id), &[])).raw(">");
        html.text(&agent.host).raw("</a></th><td>");
        html.element("span", state_class(agent.state()), agent.state().as_str());
        if ends_soon(api, agent) {
            html.raw(" ").element("span", "badge warn", "certificate ends");
        }
        html.raw("</td>").element("td", "", &agent.facts.version);
        html.element("td", "number", said.lag_ms.map_or_else(none, lag));
        html.element("td", "number", said.spool_records.map_or_else(none, |records| records.to_string()));
        let given_up = said.dropped_records();
        html.element("td", if given_up > 0 { "number bad" } else { "number" }, given_up);
        html.element("td", "", agent.last_seen_at.map_or_else(none, moment));
        html.element("td", "", &agent.facts.ip_address).raw("</tr>\n");
    }
    html.raw("</tbody></table></div>\n");
    html
}

fn none() -> String {
    "–".to_owned()
}

fn lag(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{} s", ms / 1_000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        _ => format!("{} h", ms / 3_600_000),
    }
}

/// Less than a day is left, or nothing: it was not renewed when it should have been.
fn ends_soon(api: &Api, agent: &Agent) -> bool {
    let tomorrow = api.deps.clock.now().plus(std::time::Duration::from_secs(86_400));
    agent.revoked_at.is_none() && agent.certificate_ends_at.is_some_and(|end| end < tomorrow)
}

fn state_class(state: AgentState) -> &'static str {
    match state {
        AgentState::Online => "badge good",
        AgentState::Pending => "badge warn",
        AgentState::Offline | AgentState::Revoked => "badge bad",
    }
}

fn paging(caller: &Caller, params: &Params, at: u64, total: u64) -> Html {
    let mut html = Html::default();
    let pages = total.div_ceil(PAGE_ROWS).max(1);
    let text = |name| params.text(name).unwrap_or_default();
    let to =
        |page: u64| link(caller, "", &[("host", text("host")), ("state", text("state")), ("page", &page.to_string())]);
    html.raw("<nav class=\"paging\" aria-label=\"Pages of agents\">");
    if at > 1 {
        html.raw("<a rel=\"prev\"").attribute("href", to((at - 1).min(pages))).raw(">← Before</a>");
    }
    html.raw("<span>Page ").text(at).raw(" of ").text(pages).raw(", ").text(total).raw(" in all</span>");
    if at < pages {
        html.raw("<a rel=\"next\"").attribute("href", to(at + 1)).raw(">After →</a>");
    }
    html.raw("</nav>\n");
    html
}

/// The form that makes a token.
fn new_agent(caller: &Caller) -> Html {
    let mut html = Html::default();
    html.raw("<form class=\"panel filters\" method=\"post\"").attribute("action", link(caller, "", &[]));
    html.raw(" aria-labelledby=\"add\" id=\"new-agent\">\n<h2 id=\"add\">Add agent</h2>\n")
        .raw("<div><label for=\"for-host\">Only for the host (any if empty)</label>")
        .raw(
            "<input id=\"for-host\" name=\"host\" maxlength=\"255\" autocomplete=\"off\" spellcheck=\"false\"></div>\n",
        )
        .raw("<div><label for=\"label\">What it is for</label>")
        .raw("<input id=\"label\" name=\"label\" maxlength=\"100\" autocomplete=\"off\"></div>\n")
        .raw("<div><label for=\"uses\">Agents at most</label>")
        .raw("<input id=\"uses\" name=\"uses\" type=\"number\" min=\"1\" max=\"100000\" value=\"1\"></div>\n")
        .raw("<div class=\"buttons\"><button>Make a token</button></div>\n</form>\n");
    html
}

/// Makes a token and shows the command that installs an agent, this once.
pub async fn agent_token(caller: Scoped<Admin>, State(api): State<Arc<Api>>, request: Request) -> Response {
    let caller = caller.caller();
    if !from_here(request.headers()) {
        return foreign(caller);
    }
    let gate = &api.deps.agent_gate;
    let gateway = gate.address.clone().unwrap_or_else(|| gateway_of(request.headers(), gate.port));
    match made(&api, caller, &gateway, request).await {
        Ok(html) => page(StatusCode::OK, TITLE, Place::Agents, Some(caller), &html),
        Err(error) => failed(error, Place::Agents, TITLE, caller),
    }
}

async fn made(api: &Api, caller: &Caller, gateway: &str, request: Request) -> ApiResult<Html> {
    let form = form(request).await?;
    let text = |name| form.text(name).map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
    let wanted = Wanted {
        label: text("label").unwrap_or_default(),
        host: text("host"),
        uses_max: Some(Some(form.number("uses", 1..=100_000)?.unwrap_or(1))),
        ..Wanted::default()
    };
    let host = wanted.host.clone();
    let (token, id, expires_at) = make(api, caller, &caller.org, wanted, None).await?;
    let mut html = heading(caller);
    html.raw("<section class=\"panel\"><h2>Run this on the host")
        .text(host.map_or_else(String::new, |host| format!(" {host}")));
    html.raw("</h2>\n<pre id=\"command\" class=\"command\" tabindex=\"0\">");
    html.text(install_command(token.expose(), gateway)).raw("</pre>\n");
    html.raw("<p class=\"buttons\"><button type=\"button\" data-copy=\"command\" hidden>Copy</button></p>\n");
    html.raw("<p class=\"hint\">What runs first is the installer that this server ships; its SHA-256 is ");
    html.text(installer_sha256()).raw(".</p>\n");
    html.raw("<p class=\"hint\">The token in it is number ").text(id).raw(", ends on ").text(moment(expires_at));
    html.raw(" (UTC), and is shown this once. Whoever has it can add an agent: treat it as a password.</p>\n");
    html.raw("<p><a").attribute("href", link(caller, "", &[])).raw(">To the agents</a></p></section>\n");
    Ok(html)
}

/// Where hosts reach the gateway: where this page is reached, at the gateway's port.
fn gateway_of(headers: &HeaderMap, port: u16) -> String {
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    Some(format!("{name}:{port}")).filter(|gateway| is_gateway(gateway)).unwrap_or_else(|| format!("localhost:{port}"))
}

pub async fn agent(caller: Scoped<Viewer>, State(api): State<Arc<Api>>, id: Segment) -> Response {
    match shown(&api, &id, caller.caller(), None).await {
        Ok(html) => page(StatusCode::OK, TITLE, Place::Agents, Some(caller.caller()), &html),
        Err(error) => failed(error, Place::Agents, TITLE, caller.caller()),
    }
}

/// What a button of that page asks for; then the page again, or the list.
pub async fn agent_act(
    caller: Scoped<Operator>,
    State(api): State<Arc<Api>>,
    id: Segment,
    request: Request,
) -> Response {
    let who = caller.caller();
    if !from_here(request.headers()) {
        return foreign(who);
    }
    match acted(&api, &id.0, &caller, request).await {
        Ok(path) => see_other(&link(who, &path, &[])),
        Err(error) => match shown(&api, &id, who, Some(error.message())).await {
            Ok(html) => page(error.status(), TITLE, Place::Agents, Some(who), &html),
            Err(_) => failed(error, Place::Agents, TITLE, who),
        },
    }
}

fn foreign(caller: &Caller) -> Response {
    let mut html = Html::default();
    html.raw("<p class=\"notice bad\" role=\"alert\">This form was sent from another site.</p>");
    page(StatusCode::FORBIDDEN, TITLE, Place::Agents, Some(caller), &html)
}

/// Where one goes then.
async fn acted(api: &Api, id: &str, caller: &Scoped<Operator>, request: Request) -> ApiResult<String> {
    let form = form(request).await?;
    let reason = form.reason()?;
    match form.text("action").unwrap_or_default() {
        "revoke" => {
            throw_out(api, caller, id, reason).await?;
            Ok(format!("/{}", in_url(id)))
        }
        "remove" => {
            forget(api, caller, id, reason).await?;
            Ok(String::new())
        }
        _ => Err(ApiError::invalid("action: there is no such action")),
    }
}

async fn shown(api: &Api, id: &Segment, caller: &Caller, problem: Option<&str>) -> ApiResult<Html> {
    let agent = get(api, &caller.org, &id.0).await?;
    let said = Said::of(&agent);
    let mut html = Html::default();
    html.raw("<h1>Agent ").text(&agent.host).raw("</h1>\n");
    if let Some(problem) = problem {
        html.raw("<p class=\"notice bad\" role=\"alert\">").text(problem).raw("</p>\n");
    }
    html.piece(&facts(&agent, &said));
    if caller.role >= Role::Operator {
        html.piece(&buttons(caller, &agent));
    }
    html.piece(&named("Collectors that cannot run", &said.collectors));
    html.piece(&named("Records given up, by stream", &said.dropped));
    Ok(html)
}

fn facts(agent: &Agent, said: &Said) -> Html {
    let mut html = Html::default();
    let time = |at: Option<Timestamp>| at.map_or_else(none, moment);
    let number = |number: Option<u64>| number.map_or_else(none, |number| number.to_string());
    let facts = &agent.facts;
    html.raw("<section class=\"panel facts\"><h2>What is known</h2><table><tbody>\n");
    html.raw("<tr><th scope=\"row\">State</th><td>");
    html.element("span", state_class(agent.state()), agent.state().as_str()).raw("</td></tr>\n");
    let key = if agent.key.is_some() { "a certificate of its own" } else { "none: it shows a token (an old agent)" };
    for (name, value) in [
        ("Id", agent.id.clone()),
        ("Version", facts.version.clone()),
        ("System", format!("{} {}", facts.os_type, facts.os_version)),
        ("Its own name", facts.hostname.clone()),
        ("Address", facts.ip_address.clone()),
        ("Last seen (UTC)", time(agent.last_seen_at)),
        ("Behind", said.lag_ms.map_or_else(none, lag)),
        ("Records that wait there", number(said.spool_records)),
        ("Bytes that wait there", number(said.spool_bytes)),
        ("Memory, bytes", number(said.rss_bytes)),
        ("Key", key.to_owned()),
        ("Certificate ends (UTC)", time(agent.certificate_ends_at)),
        ("Enrolled (UTC)", moment(agent.enrolled_at)),
        ("By token", agent.token.map_or_else(none, |id| id.to_string())),
        ("Capabilities", facts.capabilities.join(" ")),
        ("Machine", facts.machine_id.clone()),
        ("Revoked (UTC)", time(agent.revoked_at)),
        ("Why", agent.revoked_why.clone().unwrap_or_else(none)),
    ] {
        html.raw("<tr><th scope=\"row\">").raw(name).raw("</th>").element("td", "", value).raw("</tr>\n");
    }
    html.raw("</tbody></table></section>\n");
    html
}

fn buttons(caller: &Caller, agent: &Agent) -> Html {
    let mut html = Html::default();
    let (revoke, remove) = match agent.state() {
        AgentState::Online => (true, false),
        AgentState::Offline | AgentState::Pending => (true, true),
        AgentState::Revoked => (false, true),
    };
    html.raw("<form class=\"panel\" method=\"post\"").attribute("action", link(caller, &format!("/{}", agent.id), &[]));
    html.raw(">\n<label for=\"reason\">Why</label><input id=\"reason\" name=\"reason\" maxlength=\"1000\" ");
    html.raw("autocomplete=\"off\">\n<p class=\"buttons\">");
    if revoke {
        html.raw("<button name=\"action\" value=\"revoke\">Revoke</button> ");
    }
    if remove {
        html.raw("<button name=\"action\" value=\"remove\" class=\"quiet\">Remove</button> ");
    }
    html.raw("</p></form>\n");
    html
}

/// Names with what is said of each.
fn named(title: &'static str, said: &std::collections::BTreeMap<String, impl std::fmt::Display>) -> Html {
    let mut html = Html::default();
    if said.is_empty() {
        return html;
    }
    html.raw("<section class=\"panel\"><h2>").raw(title).raw("</h2><ul class=\"parts\">\n");
    for (name, what) in said.iter().take(SAID_SHOWN_MAX) {
        html.raw("<li>").element("b", "", name).raw(": ").text(what).raw("</li>\n");
    }
    html.raw("</ul></section>\n");
    html
}
