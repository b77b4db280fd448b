//! Incidents: what is open, and one of them with what people can do about it. The forms of an incident
//! change something; they are taken from this site only.

use super::audit::moment;
use super::html::{Html, in_url};
use super::{Place, failed, form, from_here, page, see_other};
use crate::api::Api;
use crate::api::auth::{Caller, Operator, Viewer};
use crate::api::error::{ApiError, ApiResult};
use crate::api::incidents::{change, incident_id, statuses, whole};
use crate::api::params::{Params, Segment};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use model::{AlertSeverity, Timestamp};
use serde_json::Value;
use std::sync::Arc;
use storage::catalog::incidents::{Incident, IncidentAction, IncidentFilter, IncidentStatus};
use storage::catalog::users::Role;
use storage::catalog::{ConfigChange, Page, PageRequest};

const PAGE_ROWS: u64 = 50;
const TITLE: &str = "Incidents";

pub async fn incidents(caller: Viewer, State(api): State<Arc<Api>>, params: Params) -> Response {
    match find(&api, &params).await {
        Ok((at, found)) => {
            let mut html = heading(&params);
            html.piece(&results(&params, at, &found));
            page(StatusCode::OK, TITLE, Place::Incidents, Some(&caller.0), &html)
        }
        Err(error) => failed(error, Place::Incidents, TITLE, &caller.0),
    }
}

async fn find(api: &Api, params: &Params) -> ApiResult<(u64, Page<Incident>)> {
    let filter = IncidentFilter {
        status: statuses(params.text("status").unwrap_or("open"))
            .or_else(|| (params.text("status") == Some("any")).then(Vec::new))
            .ok_or_else(|| ApiError::invalid("status: it is not one of open, closed, any"))?,
        ..IncidentFilter::default()
    };
    let at = params.number("page", 1..=1_000_000_000)?.unwrap_or(1);
    let work = api.deps.catalog.incidents(&api.deps.org, &filter, PageRequest { page: at, limit: PAGE_ROWS });
    Ok((at, api.ask("incidents_list", work).await?))
}

fn heading(params: &Params) -> Html {
    let mut html = Html::default();
    html.raw("<h1>Incidents</h1>\n<nav class=\"paging\" aria-label=\"Which incidents\">");
    let chosen = params.text("status").unwrap_or("open");
    for (status, name) in [("open", "Open"), ("closed", "Closed"), ("any", "All")] {
        html.raw("<a").attribute("href", format!("/incidents?status={status}"));
        if status == chosen {
            html.raw(" aria-current=\"page\"");
        }
        html.raw(">").raw(name).raw("</a> ");
    }
    html.raw("</nav>\n");
    html
}

fn results(params: &Params, at: u64, found: &Page<Incident>) -> Html {
    let mut html = Html::default();
    if found.rows.is_empty() {
        html.raw("<p class=\"panel empty\">There is none.</p>\n");
        return html;
    }
    html.raw("<div class=\"panel wide\" role=\"region\" aria-label=\"Incidents\" tabindex=\"0\"><table><thead><tr>");
    for column in ["Incident", "Status", "Severity", "Alerts", "Last (UTC)", "Host", "Team", "Whose"] {
        html.raw("<th scope=\"col\">").raw(column).raw("</th>");
    }
    html.raw("</tr></thead><tbody>\n");
    for incident in &found.rows {
        html.raw("<tr><th scope=\"row\"><a").attribute("href", format!("/incidents/{}", incident.id)).raw(">");
        html.text(format_args!("{} {}", incident.id, incident.title)).raw("</a></th><td>");
        html.element("span", status_class(incident.status), incident.status.as_str()).raw("</td><td>");
        html.element("span", severity_class(incident.severity), incident.severity.as_str()).raw("</td>");
        html.element("td", "number", incident.alerts).element("td", "", moment(incident.last_seen));
        html.element("td", "", &incident.host).element("td", "", &incident.team);
        html.element("td", "", incident.assignee.as_deref().unwrap_or("–")).raw("</tr>\n");
    }
    html.raw("</tbody></table></div>\n<nav class=\"paging\" aria-label=\"Pages of incidents\">");
    let pages = found.total.div_ceil(PAGE_ROWS).max(1);
    let link = |page: u64| format!("/incidents?status={}&page={page}", in_url(params.text("status").unwrap_or("open")));
    if at > 1 {
        html.raw("<a rel=\"prev\"").attribute("href", link((at - 1).min(pages))).raw(">← Newer</a>");
    }
    html.raw("<span>Page ").text(at).raw(" of ").text(pages).raw(", ").text(found.total).raw(" in all</span>");
    if at < pages {
        html.raw("<a rel=\"next\"").attribute("href", link(at + 1)).raw(">Older →</a>");
    }
    html.raw("</nav>\n");
    html
}

fn status_class(status: IncidentStatus) -> &'static str {
    match status {
        IncidentStatus::Active => "badge bad",
        IncidentStatus::Acknowledged => "badge warn",
        IncidentStatus::Resolved | IncidentStatus::Dismissed => "badge good",
    }
}

fn severity_class(severity: AlertSeverity) -> &'static str {
    match severity {
        AlertSeverity::Critical | AlertSeverity::Major => "badge bad",
        AlertSeverity::Warning | AlertSeverity::Minor => "badge warn",
        AlertSeverity::Info | AlertSeverity::Clear => "badge good",
    }
}

pub async fn incident(caller: Viewer, State(api): State<Arc<Api>>, id: Segment) -> Response {
    match shown(&api, &id, &caller.0, None).await {
        Ok(html) => page(StatusCode::OK, TITLE, Place::Incidents, Some(&caller.0), &html),
        Err(error) => failed(error, Place::Incidents, TITLE, &caller.0),
    }
}

/// What a form of that page asks for; then the page again.
pub async fn incident_act(caller: Operator, State(api): State<Arc<Api>>, id: Segment, request: Request) -> Response {
    if !from_here(request.headers()) {
        let mut html = Html::default();
        html.raw("<p class=\"notice bad\" role=\"alert\">This form was sent from another site.</p>");
        return page(StatusCode::FORBIDDEN, TITLE, Place::Incidents, Some(&caller.0), &html);
    }
    match acted(&api, &id, &caller, request).await {
        Ok(after) => see_other(&format!("/incidents/{}", after.id)),
        Err(error) => match shown(&api, &id, &caller.0, Some(error.message())).await {
            Ok(html) => page(error.status(), TITLE, Place::Incidents, Some(&caller.0), &html),
            Err(_) => failed(error, Place::Incidents, TITLE, &caller.0),
        },
    }
}

async fn acted(api: &Api, id: &Segment, caller: &Operator, request: Request) -> ApiResult<Incident> {
    let form = form(request).await?;
    let id = incident_id(id)?;
    let action = match form.text("action").unwrap_or_default() {
        "acknowledge" => IncidentAction::Acknowledge,
        "take" => IncidentAction::Assign(Some(caller.0.name.clone())),
        "resolve" => IncidentAction::Resolve,
        "dismiss" => IncidentAction::Dismiss,
        "reopen" => IncidentAction::Reopen,
        "comment" => IncidentAction::Comment,
        _ => return Err(ApiError::invalid("action: there is no such action")),
    };
    let comment = form.text("comment").map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
    change(api, id, &action, caller, comment).await
}

async fn shown(api: &Api, id: &Segment, caller: &Caller, problem: Option<&str>) -> ApiResult<Html> {
    let (incident, alerts, history) = whole(api, &api.deps.org, incident_id(id)?).await?;
    let mut html = Html::default();
    html.raw("<h1>").text(format_args!("Incident {}: {}", incident.id, incident.title)).raw("</h1>\n");
    if let Some(problem) = problem {
        html.raw("<p class=\"notice bad\" role=\"alert\">").text(problem).raw("</p>\n");
    }
    html.piece(&facts(&incident));
    if caller.role >= Role::Operator {
        html.piece(&buttons(&incident));
    }
    html.piece(&last_alerts(&alerts)).piece(&story(&history));
    Ok(html)
}

fn facts(incident: &Incident) -> Html {
    let mut html = Html::default();
    let time = |at: Option<Timestamp>| at.map_or_else(|| "–".to_owned(), moment);
    let by = |done: &Option<(String, Timestamp)>| {
        done.as_ref().map_or_else(|| "–".to_owned(), |(by, at)| format!("{by}, {}", moment(*at)))
    };
    html.raw("<section class=\"panel\"><h2>What is known</h2><table><tbody>\n");
    html.raw("<tr><th scope=\"row\">Status</th><td>");
    html.element("span", status_class(incident.status), incident.status.as_str()).raw("</td></tr>\n");
    html.raw("<tr><th scope=\"row\">Severity</th><td>");
    html.element("span", severity_class(incident.severity), incident.severity.as_str()).raw("</td></tr>\n");
    for (name, value) in [
        ("Rule", incident.rule_uid.clone()),
        ("Host", incident.host.clone()),
        ("Team", incident.team.clone()),
        ("Alerts", format!("{}, {} told, {} silenced", incident.alerts, incident.told, incident.silenced)),
        ("First (UTC)", moment(incident.first_seen)),
        ("Last (UTC)", moment(incident.last_seen)),
        ("Whose", incident.assignee.clone().unwrap_or_else(|| "–".to_owned())),
        ("Acknowledged", by(&incident.acknowledged)),
        ("Closed", by(&incident.closed)),
        ("Told at (UTC)", time(incident.waiting.as_ref().map(|waiting| waiting.until))),
        ("Escalated at (UTC)", time(incident.escalate_at)),
        ("Last word", incident.comment.clone().unwrap_or_else(|| "–".to_owned())),
    ] {
        html.raw("<tr><th scope=\"row\">").raw(name).raw("</th>").element("td", "", value).raw("</tr>\n");
    }
    html.raw("</tbody></table></section>\n");
    html
}

fn buttons(incident: &Incident) -> Html {
    let mut html = Html::default();
    html.raw("<form class=\"panel\" method=\"post\"").attribute("action", format!("/incidents/{}", incident.id));
    html.raw(">\n<label for=\"comment\">Comment</label><input id=\"comment\" name=\"comment\" maxlength=\"1000\" ");
    html.raw("autocomplete=\"off\">\n<p class=\"buttons\">");
    let actions: &[(&str, &str)] = match incident.status {
        IncidentStatus::Active => {
            &[("acknowledge", "Acknowledge"), ("take", "Take"), ("resolve", "Resolve"), ("dismiss", "Dismiss")]
        }
        IncidentStatus::Acknowledged => &[("take", "Take"), ("resolve", "Resolve"), ("dismiss", "Dismiss")],
        IncidentStatus::Resolved | IncidentStatus::Dismissed => &[("reopen", "Reopen")],
    };
    for (action, name) in actions.iter().chain(&[("comment", "Only comment")]) {
        html.raw("<button name=\"action\"").attribute("value", action);
        html.raw(if *action == "comment" { " class=\"quiet\">" } else { ">" }).text(name).raw("</button> ");
    }
    html.raw("</p></form>\n");
    html
}

fn last_alerts(alerts: &Value) -> Html {
    let mut html = Html::default();
    html.raw("<section class=\"panel wide\"><h2>Last alerts</h2><table><thead><tr>");
    for column in ["When (UTC)", "State", "Severity", "Message"] {
        html.raw("<th scope=\"col\">").raw(column).raw("</th>");
    }
    html.raw("</tr></thead><tbody>\n");
    for alert in alerts.as_array().into_iter().flatten() {
        let text = |key: &str| alert[key].as_str().unwrap_or_default().to_owned();
        let at = Timestamp::parse(&text("created_at")).map_or_else(String::new, moment);
        html.raw("<tr>").element("td", "", at).element("td", "", text("state"));
        let message: String = text("message").chars().take(500).collect();
        html.element("td", "", text("severity")).element("td", "", message).raw("</tr>\n");
    }
    html.raw("</tbody></table></section>\n");
    html
}

fn story(history: &[ConfigChange]) -> Html {
    let mut html = Html::default();
    if history.is_empty() {
        return html;
    }
    html.raw("<section class=\"panel\"><h2>What was done</h2><ul class=\"parts\">\n");
    for change in history {
        let status = |text: &Option<String>| {
            let values: Value = text.as_deref().and_then(|t| serde_json::from_str(t).ok()).unwrap_or_default();
            values["status"].as_str().unwrap_or("–").to_owned()
        };
        html.raw("<li>").text(moment(change.changed_at)).raw(" ").element("b", "", &change.changed_by).raw(" ");
        html.text(format_args!("{} → {}", status(&change.old_values), status(&change.new_values)));
        if let Some(reason) = &change.reason {
            html.raw(": ").text(reason);
        }
        html.raw("</li>\n");
    }
    html.raw("</ul></section>\n");
    html
}
