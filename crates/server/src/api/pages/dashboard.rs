//! The dashboard: how much comes in, what waits, what became of the alerts, and what is broken.

use super::chart::{chart, grouped, shown};
use super::html::Html;
use super::{Place, page};
use crate::api::auth::Viewer;
use crate::api::error::ApiResult;
use crate::api::{Api, metrics};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use model::AlertState;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use storage::catalog::{AlertFilter, PageRequest};
use storage::coordination::BreakerState;
use storage::queue::QueueName;

const DAY: Duration = Duration::from_secs(86_400);

/// A part that cannot be had now is said to be so; the others are shown.
pub async fn dashboard(caller: Viewer, State(api): State<Arc<Api>>) -> Response {
    let mut html = Html::default();
    html.raw("<div class=\"title\"><h1>Dashboard</h1><p class=\"hint\" id=\"state\" role=\"status\"></p></div>\n<div id=\"live\">\n");
    html.raw("<p class=\"hint updated\">As of ").text(clock(&api)).raw(" UTC; shown anew every 10 seconds</p>\n");
    let rates = metrics::rates(&api).await.map(|(rates, _)| rates);
    html.piece(&cards(&rates)).piece(&day(&rates));
    html.raw("<div class=\"columns\">\n");
    html.piece(&queues(&api).await).piece(&alerts(&api).await).piece(&breakers(&api).await).piece(&health(&api));
    html.raw("</div>\n</div>");
    page(StatusCode::OK, "Dashboard", Place::Dashboard, Some(&caller.0), &html)
}

fn clock(api: &Api) -> String {
    api.deps.clock.now().rfc3339().chars().take(19).map(|c| if c == 'T' { ' ' } else { c }).collect()
}

fn missing(what: &'static str) -> Html {
    let mut html = Html::default();
    html.raw("<p class=\"notice warn\">").raw(what).raw(" cannot be read now.</p>\n");
    html
}

fn cards(rates: &ApiResult<Value>) -> Html {
    let Ok(rates) = rates else { return missing("The rates") };
    let mut html = Html::default();
    html.raw("<section class=\"cards\" aria-label=\"Rates\">\n");
    for (name, key) in
        [("Current rate", "current_rate_1m"), ("15-minute average", "avg_rate_15m"), ("1-hour average", "avg_rate_1h")]
    {
        let value = rates["summary"][key].as_f64().unwrap_or(0.0);
        html.raw("<div class=\"card\">").element("h2", "", name).element("p", "figure", shown(value));
        html.raw("<p class=\"unit\">events/min</p></div>\n");
    }
    html.raw("</section>\n");
    html
}

fn day(rates: &ApiResult<Value>) -> Html {
    let mut html = Html::default();
    let Ok(rates) = rates else { return html };
    let list = |key: &str| rates["chart_24h"][key].as_array().cloned().unwrap_or_default();
    let labels: Vec<String> =
        list("labels").iter().map(|label| label.as_str().unwrap_or_default().to_owned()).collect();
    let data: Vec<f64> = list("data").iter().map(|value| value.as_f64().unwrap_or(0.0)).collect();
    html.raw("<section class=\"panel\"><h2>Last 24 hours <span class=\"unit\">events/min, UTC</span></h2>\n");
    html.piece(&chart(&labels, &data));
    html.raw(
        "<details id=\"figures\"><summary>As a table</summary><table><thead><tr><th scope=\"col\">Hour (UTC)</th>",
    )
    .raw("<th scope=\"col\" class=\"number\">Events/min</th></tr></thead><tbody>");
    for (label, value) in labels.iter().zip(&data).rev() {
        html.raw("<tr>").element("td", "", label).element("td", "number", shown(*value)).raw("</tr>");
    }
    html.raw("</tbody></table></details></section>\n");
    html
}

async fn queues(api: &Api) -> Html {
    let mut html = Html::default();
    html.raw("<section class=\"panel\"><h2>Queues</h2>\n");
    let mut rows = Html::default();
    for (name, about) in [
        (QueueName::Ingest, "events waiting for detection"),
        (QueueName::Alerts, "alerts waiting for delivery"),
        (QueueName::DlqAlerter, "events that could not be worked"),
        (QueueName::DlqForwarder, "alerts that could not be delivered"),
        (QueueName::Dead, "given up; a person has to look"),
    ] {
        let Ok(stats) = api.ask("queue_stats", api.deps.queues.get(name).stats()).await else {
            return html_with(html, &missing("The queues"));
        };
        let letters = crate::api::queues::holds_letters(name);
        let class = if letters && stats.depth > 0 { "number warn" } else { "number" };
        rows.raw("<tr><th scope=\"row\">").text(name.as_str()).raw("<span class=\"hint\">").raw(about);
        rows.raw("</span></th>").element("td", class, grouped(stats.depth)).element(
            "td",
            "number",
            grouped(stats.leased),
        );
        rows.raw("</tr>\n");
    }
    html.raw("<table><thead><tr><th scope=\"col\">Queue</th><th scope=\"col\" class=\"number\">Depth</th>")
        .raw("<th scope=\"col\" class=\"number\">In work</th></tr></thead><tbody>\n")
        .piece(&rows)
        .raw("</tbody></table></section>\n");
    html
}

fn html_with(mut html: Html, rest: &Html) -> Html {
    html.piece(rest).raw("</section>\n");
    html
}

async fn alerts(api: &Api) -> Html {
    let mut html = Html::default();
    html.raw("<section class=\"panel\"><h2>Alerts <span class=\"unit\">last 24 hours</span></h2>\n");
    let mut rows = Html::default();
    for (state, name, alarming) in [
        (AlertState::Delivered, "Delivered", false),
        (AlertState::Pending, "On their way", false),
        (AlertState::Recorded, "Kept only: no channel", false),
        (AlertState::Grouped, "Joined an incident", false),
        (AlertState::Silenced, "Silenced", false),
        (AlertState::Dead, "Dead", true),
    ] {
        let filter =
            AlertFilter { state: Some(state), from: Some(api.deps.clock.now().minus(DAY)), ..AlertFilter::default() };
        let work = api.deps.catalog.alerts(&api.deps.org, &filter, PageRequest { page: 1, limit: 1 });
        let Ok(found) = api.ask("alerts_count", work).await else {
            return html_with(html, &missing("The alerts"));
        };
        let class = if alarming && found.total > 0 { "number bad" } else { "number" };
        rows.raw("<tr><th scope=\"row\">").raw(name).raw("</th>");
        rows.element("td", class, grouped(found.total)).raw("</tr>\n");
    }
    html.raw("<table><thead><tr><th scope=\"col\">State</th><th scope=\"col\" class=\"number\">Alerts</th></tr></thead><tbody>\n")
        .piece(&rows)
        .raw("</tbody></table></section>\n");
    html
}

async fn breakers(api: &Api) -> Html {
    let mut html = Html::default();
    html.raw("<section class=\"panel\"><h2>Channels</h2>\n");
    let Some(settings) = api.deps.live.get().breaker else {
        html.raw("<p class=\"hint\">The circuit breaker is off.</p></section>\n");
        return html;
    };
    if api.deps.channels.is_empty() {
        html.raw(
            "<p class=\"hint\">No alert channel is configured here: alerts wait for a forwarder that has one, or are only kept.</p></section>\n",
        );
        return html;
    }
    html.raw("<table><thead><tr><th scope=\"col\">Channel</th><th scope=\"col\">Breaker</th>")
        .raw("<th scope=\"col\" class=\"number\">Failures in a row</th></tr></thead><tbody>\n");
    for name in &api.deps.channels {
        let work = api.deps.coordination.breaker_view(name, settings, api.deps.clock.now());
        html.raw("<tr>").element("th", "", name);
        match api.ask("breaker_view", work).await {
            Ok(view) => {
                let (class, word) = match view.state {
                    BreakerState::Closed => ("badge good", "closed: delivering"),
                    BreakerState::HalfOpen => ("badge warn", "half open: trying one"),
                    BreakerState::Open => ("badge bad", "open: waiting"),
                };
                html.raw("<td>").element("span", class, word).raw("</td>");
                html.element("td", "number", grouped(u64::from(view.failures)));
            }
            Err(_) => {
                html.raw("<td><span class=\"badge warn\">cannot be read now</span></td><td class=\"number\">–</td>");
            }
        }
        html.raw("</tr>\n");
    }
    html.raw("</tbody></table></section>\n");
    html
}

fn health(api: &Api) -> Html {
    let mut html = Html::default();
    html.raw(
        "<section class=\"panel\"><h2>Health <span class=\"unit\">of this process</span></h2>\n<ul class=\"parts\">\n",
    );
    for (part, state) in api.deps.health.all() {
        html.raw("<li>");
        match state {
            Ok(()) => html.raw("<span class=\"badge good\">working</span> ").text(part),
            Err(reason) => html
                .raw("<span class=\"badge bad\">not working</span> ")
                .text(part)
                .raw(" <span class=\"hint\">")
                .text(reason)
                .raw("</span>"),
        };
        html.raw("</li>\n");
    }
    html.raw("</ul></section>\n");
    html
}
