//! The viewer of configuration changes: who changed what from what to what, and why.

use super::html::{Html, in_url};
use super::{Place, failed, page};
use crate::api::Api;
use crate::api::audit::{OPERATIONS, values};
use crate::api::auth::Viewer;
use crate::api::error::{ApiError, ApiResult};
use crate::api::params::Params;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use model::Timestamp;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;
use storage::catalog::{ConfigChange, ConfigChangeFilter, Page, PageRequest};

const PAGE_ROWS: u64 = 20;
const VALUE_CHARS_MAX: usize = 300;
const FIELDS: [&str; 6] = ["user", "operation", "table", "record_id", "from", "to"];

pub async fn audit(caller: Viewer, State(api): State<Arc<Api>>, params: Params) -> Response {
    match find(&api, &params).await {
        Ok((at, found)) => {
            let mut html = heading(&params);
            html.piece(&results(&params, at, &found));
            page(StatusCode::OK, "Audit", Place::Audit, Some(&caller.0), &html)
        }
        Err(error) if error.status() == StatusCode::BAD_REQUEST => {
            let mut html = heading(&params);
            html.raw("<p class=\"notice bad\" role=\"alert\">").text(error.message()).raw("</p>\n");
            page(StatusCode::BAD_REQUEST, "Audit", Place::Audit, Some(&caller.0), &html)
        }
        Err(error) => failed(error, Place::Audit, "Audit", &caller.0),
    }
}

async fn find(api: &Api, params: &Params) -> ApiResult<(u64, Page<ConfigChange>)> {
    let filter = ConfigChangeFilter {
        changed_by: params.bounded("user")?,
        operation: params.read("operation", "one of CREATE, UPDATE, DELETE", |text| {
            OPERATIONS.into_iter().find(|known| known.eq_ignore_ascii_case(text)).map(str::to_owned)
        })?,
        table_name: params.bounded("table")?,
        record_id: params.id("record_id")?,
        from: params.from("from")?,
        to: params.to("to")?,
        after: None,
    };
    if filter.to.is_some() && filter.from > filter.to {
        return Err(ApiError::invalid("to: it is before from"));
    }
    let at = params.number("page", 1..=1_000_000_000)?.unwrap_or(1);
    let work = api.deps.catalog.config_changes(&api.deps.org, &filter, PageRequest { page: at, limit: PAGE_ROWS });
    Ok((at, api.ask("config_audit_list", work).await?))
}

fn heading(params: &Params) -> Html {
    let mut html = Html::default();
    html.raw("<h1>Audit</h1>\n<form class=\"panel filters\" method=\"get\" action=\"/audit\">\n");
    let mut field = |name: &'static str, label: &'static str, hint: &'static str| {
        html.raw("<div><label").attribute("for", name).raw(">").raw(label).raw("</label><input").attribute("id", name);
        html.attribute("name", name).attribute("value", params.text(name).unwrap_or_default());
        html.attribute("placeholder", hint).raw(" autocomplete=\"off\" spellcheck=\"false\"></div>\n");
    };
    field("user", "User", "part of a name");
    field("table", "Table", "alert_rules");
    field("record_id", "Record id", "17");
    field("from", "From (UTC)", "2026-01-31 08:00");
    field("to", "To (UTC)", "2026-01-31");
    html.raw("<div><label for=\"operation\">Operation</label><select id=\"operation\" name=\"operation\"><option value=\"\">any</option>");
    let chosen = params.text("operation").unwrap_or_default();
    for operation in OPERATIONS {
        html.raw("<option");
        if operation.eq_ignore_ascii_case(chosen) {
            html.raw(" selected");
        }
        html.raw(">").raw(operation).raw("</option>");
    }
    html.raw(
        "</select></div>\n<div class=\"buttons\"><button>Filter</button> <a href=\"/audit\">Clear</a></div>\n</form>\n",
    );
    html
}

fn results(params: &Params, at: u64, found: &Page<ConfigChange>) -> Html {
    let mut html = Html::default();
    if found.rows.is_empty() {
        html.raw("<p class=\"panel empty\">No change matches.</p>\n");
        return html;
    }
    html.raw("<div class=\"panel wide\" role=\"region\" aria-label=\"Changes\" tabindex=\"0\"><table class=\"audit\"><thead><tr>");
    for column in ["When (UTC)", "Who", "What", "Table", "Record", "Change", "Reason"] {
        html.raw("<th scope=\"col\">").raw(column).raw("</th>");
    }
    html.raw("</tr></thead><tbody>\n");
    for change in &found.rows {
        row(&mut html, change);
    }
    html.raw("</tbody></table></div>\n").piece(&paging(params, at, found.total));
    html
}

fn row(html: &mut Html, change: &ConfigChange) {
    let class = match change.operation.as_str() {
        "CREATE" => "badge good",
        "DELETE" => "badge bad",
        _ => "badge warn",
    };
    html.raw("<tr><td><time").attribute("datetime", change.changed_at.rfc3339()).raw(">");
    html.text(moment(change.changed_at)).raw("</time></td>").element("td", "", &change.changed_by);
    html.raw("<td>").element("span", class, &change.operation).raw("</td>").element("td", "", &change.table_name);
    html.element("td", "", if change.record_id == 0 { "–".to_owned() } else { change.record_id.to_string() });
    html.raw("<td>").piece(&difference(change)).raw("</td><td>").text(change.reason.as_deref().unwrap_or("–"));
    html.raw("<span class=\"hint\"").attribute("title", "correlation id").raw(">");
    html.text(change.correlation_id.as_deref().unwrap_or_default());
    html.raw("</span></td></tr>\n");
}

pub(super) fn moment(at: Timestamp) -> String {
    at.rfc3339().chars().take(19).map(|c| if c == 'T' { ' ' } else { c }).collect()
}

/// Each key that differs, old → new.
fn difference(change: &ConfigChange) -> Html {
    let (old, new) = (values(change.old_values.as_deref()), values(change.new_values.as_deref()));
    let mut html = Html::default();
    html.raw("<ul class=\"change\">");
    match (&old, &new) {
        (Value::Object(before), Value::Object(after)) => {
            let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
            let mut same = 0;
            for key in keys {
                match (before.get(key), after.get(key)) {
                    (a, b) if a == b => same += 1,
                    (a, b) => line(&mut html, key, a, b),
                }
            }
            if let Some(name) =
                before.get("hostname").or(before.get("key")).or(before.get("name")).or(before.get("user"))
            {
                html.raw("<li class=\"hint\">of ").text(plain(name)).raw("</li>");
            } else if same == before.len() {
                html.raw("<li class=\"hint\">nothing differs</li>");
            }
        }
        (Value::Object(before), _) => before.iter().for_each(|(key, value)| line(&mut html, key, Some(value), None)),
        (_, Value::Object(after)) => after.iter().for_each(|(key, value)| line(&mut html, key, None, Some(value))),
        (before, after) => line(&mut html, "value", Some(before), Some(after)),
    }
    html.raw("</ul>");
    html
}

fn line(html: &mut Html, key: &str, old: Option<&Value>, new: Option<&Value>) {
    html.raw("<li>").element("b", "", key).raw(" ");
    if let Some(old) = old {
        html.element("del", "", plain(old));
    }
    if old.is_some() && new.is_some() {
        html.raw("<span aria-hidden=\"true\"> → </span><span class=\"unseen\"> to </span>");
    }
    if let Some(new) = new {
        html.element("ins", "", plain(new));
    }
    html.raw("</li>");
}

fn plain(value: &Value) -> String {
    let text = match value {
        Value::String(text) if text.is_empty() => "(empty)".to_owned(),
        Value::String(text) => text.clone(),
        Value::Null => "(none)".to_owned(),
        other => other.to_string(),
    };
    if text.chars().count() <= VALUE_CHARS_MAX {
        return text;
    }
    text.chars().take(VALUE_CHARS_MAX).chain(['…']).collect()
}

fn paging(params: &Params, at: u64, total: u64) -> Html {
    let pages = total.div_ceil(PAGE_ROWS).max(1);
    let link = |page: u64| {
        let mut query: Vec<String> =
            FIELDS.iter().filter_map(|name| Some(format!("{name}={}", in_url(params.text(name)?)))).collect();
        query.push(format!("page={page}"));
        format!("/audit?{}", query.join("&"))
    };
    let mut html = Html::default();
    html.raw("<nav class=\"paging\" aria-label=\"Pages of changes\">");
    if at > 1 {
        html.raw("<a rel=\"prev\"").attribute("href", link((at - 1).min(pages))).raw(">← Newer</a>");
    }
    html.raw("<span>Page ").text(at).raw(" of ").text(pages).raw(", ").text(total).raw(if total == 1 {
        " change</span>"
    } else {
        " changes</span>"
    });
    if at < pages {
        html.raw("<a rel=\"next\"").attribute("href", link(at + 1)).raw(">Older →</a>");
    }
    html.raw("</nav>\n");
    html
}
