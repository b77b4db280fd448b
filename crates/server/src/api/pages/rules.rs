//! Detection rules: which there are and how they stand, and one of them with its text. The form of a rule
//! changes what is said about it, never its text, and is taken from this site only.

use super::audit::moment;
use super::html::{Html, in_url};
use super::{Place, failed, form, from_here, page, see_other};
use crate::api::Api;
use crate::api::auth::{Caller, Operator, Viewer};
use crate::api::detection::{LEVELS, SOURCES, STATES, Search, change, explanation, no_such_rule, team_of};
use crate::api::error::{ApiError, ApiResult};
use crate::api::params::{Params, Segment};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use model::{Level, Timestamp};
use pipeline::detections::{ListedRule, Why};
use std::sync::Arc;
use storage::catalog::detection_rules::{RuleSetting, RuleState};
use storage::catalog::users::Role;

const PAGE_ROWS: u64 = 50;
const TITLE: &str = "Detection rules";
/// What the form sends where nothing is to be said.
const DEFAULT: &str = "default";

pub async fn rules(caller: Viewer, State(api): State<Arc<Api>>, params: Params) -> Response {
    match found(&api, &params).await {
        Ok(html) => page(StatusCode::OK, TITLE, Place::Rules, Some(&caller.0), &html),
        Err(error) => failed(error, Place::Rules, TITLE, &caller.0),
    }
}

async fn found(api: &Api, params: &Params) -> ApiResult<Html> {
    let search = Search::of(params)?;
    let at = params.number("page", 1..=1_000_000_000)?.unwrap_or(1);
    let known = api.detection().await?;
    let all: Vec<&ListedRule> = known.inventory.rules.iter().filter(|rule| search.fits(rule)).collect();
    let mut html = Html::default();
    html.raw("<h1>Detection rules</h1>\n").piece(&filters(params)).piece(&table(api, &all, at));
    html.piece(&paging(params, at, all.len() as u64));
    Ok(html)
}

fn filters(params: &Params) -> Html {
    let mut html = Html::default();
    html.raw("<form class=\"panel filters\" method=\"get\" action=\"/rules\" role=\"search\">\n");
    html.raw("<div><label for=\"text\">Text</label><input id=\"text\" name=\"text\" type=\"search\" maxlength=\"200\"");
    html.attribute("value", params.text("text").unwrap_or_default()).raw("></div>\n");
    for (name, label, values) in [("state", "State", STATES), ("level", "Level", LEVELS), ("source", "From", SOURCES)] {
        html.raw("<div><label").attribute("for", name).raw(">").raw(label).raw("</label>");
        html.piece(&choice(name, values, "any", "", params.text(name))).raw("</div>\n");
    }
    html.raw("<div class=\"buttons\"><button>Search</button> <a href=\"/rules\">All</a></div>\n</form>\n");
    html
}

/// A list to choose from; the first entry says nothing.
fn choice(id: &'static str, values: &[&'static str], first: &'static str, value: &str, chosen: Option<&str>) -> Html {
    let mut html = Html::default();
    html.raw("<select").attribute("id", id).attribute("name", id).raw("><option").attribute("value", value);
    html.raw(">").raw(first).raw("</option>");
    for one in values {
        html.raw("<option").attribute("value", one);
        if chosen == Some(*one) {
            html.raw(" selected");
        }
        html.raw(">").raw(one).raw("</option>");
    }
    html.raw("</select>");
    html
}

fn table(api: &Api, all: &[&ListedRule], at: u64) -> Html {
    let mut html = Html::default();
    if all.is_empty() {
        html.raw("<p class=\"panel empty\">There is none.</p>\n");
        return html;
    }
    html.raw("<div class=\"panel wide\" role=\"region\" aria-label=\"Detection rules\" tabindex=\"0\">");
    html.raw("<table><thead><tr>");
    for column in ["Rule", "State", "Level", "From", "Matches"] {
        html.raw("<th scope=\"col\">").raw(column).raw("</th>");
    }
    html.raw("</tr></thead><tbody>\n");
    let skipped = usize::try_from((at - 1).saturating_mul(PAGE_ROWS)).unwrap_or(usize::MAX);
    for rule in all.iter().skip(skipped).take(PAGE_ROWS as usize) {
        let header = &rule.header;
        html.raw("<tr><th scope=\"row\"><a").attribute("href", format!("/rules/{}", in_url(&header.uid))).raw(">");
        html.text(&header.title).raw("</a></th><td>");
        html.element("span", state_class(rule.state), rule.state.as_str());
        let (matches, paused) = counts(api, rule);
        if paused.is_some() {
            html.raw(" ").element("span", "badge bad", "paused");
        }
        html.raw("</td><td>").element("span", level_class(rule.level), rule.level.as_str()).raw("</td>");
        html.element("td", "", rule.origin.kind()).element("td", "number", matches).raw("</tr>\n");
    }
    html.raw("</tbody></table></div>\n");
    html
}

/// How often it matched, where that is known, and until when it is paused.
fn counts(api: &Api, rule: &ListedRule) -> (String, Option<Timestamp>) {
    if !api.deps.works_events {
        return ("–".to_owned(), None);
    }
    let counts = api.deps.detections.counts(&api.deps.org, &rule.header.uid);
    let paused = counts.paused_until > api.deps.clock.now().micros();
    (counts.matches.to_string(), paused.then(|| Timestamp::from_micros(counts.paused_until)))
}

fn paging(params: &Params, at: u64, total: u64) -> Html {
    let mut html = Html::default();
    let pages = total.div_ceil(PAGE_ROWS).max(1);
    let link = |page: u64| {
        let given =
            ["text", "state", "level", "source"].into_iter().filter_map(|name| Some((name, params.text(name)?)));
        let query: String = given.map(|(name, value)| format!("{name}={}&", in_url(value))).collect();
        format!("/rules?{query}page={page}")
    };
    html.raw("<nav class=\"paging\" aria-label=\"Pages of rules\">");
    if at > 1 {
        html.raw("<a rel=\"prev\"").attribute("href", link((at - 1).min(pages))).raw(">← Before</a>");
    }
    html.raw("<span>Page ").text(at).raw(" of ").text(pages).raw(", ").text(total).raw(" in all</span>");
    if at < pages {
        html.raw("<a rel=\"next\"").attribute("href", link(at + 1)).raw(">More →</a>");
    }
    html.raw("</nav>\n");
    html
}

fn state_class(state: RuleState) -> &'static str {
    match state {
        RuleState::On => "badge good",
        RuleState::DryRun => "badge warn",
        RuleState::Off => "badge",
    }
}

fn level_class(level: Level) -> &'static str {
    match level {
        Level::Critical | Level::High => "badge bad",
        Level::Medium | Level::Low => "badge warn",
        Level::Informational => "badge good",
    }
}

pub async fn rule(caller: Viewer, State(api): State<Arc<Api>>, uid: Segment) -> Response {
    match shown(&api, &uid.0, &caller.0, None).await {
        Ok(html) => page(StatusCode::OK, TITLE, Place::Rules, Some(&caller.0), &html),
        Err(error) => failed(error, Place::Rules, TITLE, &caller.0),
    }
}

/// What the form of that page asks for; then the page again.
pub async fn rule_set(caller: Operator, State(api): State<Arc<Api>>, uid: Segment, request: Request) -> Response {
    if !from_here(request.headers()) {
        let mut html = Html::default();
        html.raw("<p class=\"notice bad\" role=\"alert\">This form was sent from another site.</p>");
        return page(StatusCode::FORBIDDEN, TITLE, Place::Rules, Some(&caller.0), &html);
    }
    match set(&api, &uid.0, &caller, request).await {
        Ok(()) => see_other(&format!("/rules/{}", in_url(&uid.0))),
        Err(error) => match shown(&api, &uid.0, &caller.0, Some(error.message())).await {
            Ok(html) => page(error.status(), TITLE, Place::Rules, Some(&caller.0), &html),
            Err(_) => failed(error, Place::Rules, TITLE, &caller.0),
        },
    }
}

async fn set(api: &Api, uid: &str, caller: &Operator, request: Request) -> ApiResult<()> {
    let form = form(request).await?;
    let said = |name: &str| form.text(name).map(str::trim).filter(|text| !text.is_empty() && *text != DEFAULT);
    let wrong = |name: &str| ApiError::invalid(format!("{name}: it is none of those that there are"));
    let setting = RuleSetting {
        state: said("state").map(|word| RuleState::parse(word).ok_or_else(|| wrong("state"))).transpose()?,
        level: said("level").map(|word| Level::parse(word).ok_or_else(|| wrong("level"))).transpose()?,
        team: said("team").map(team_of).transpose().map_err(|why| ApiError::invalid(format!("team: {why}")))?,
    };
    change(api, caller, uid, None, setting, form.reason()?).await
}

async fn shown(api: &Api, uid: &str, caller: &Caller, problem: Option<&str>) -> ApiResult<Html> {
    let known = api.detection().await?;
    let rule = known.inventory.rule(uid).ok_or_else(no_such_rule)?;
    let mut html = Html::default();
    html.element("h1", "", &rule.header.title).raw("\n");
    if let Some(problem) = problem {
        html.raw("<p class=\"notice bad\" role=\"alert\">").text(problem).raw("</p>\n");
    }
    html.piece(&facts(api, rule));
    if caller.role >= Role::Operator {
        html.piece(&setting_form(rule));
    }
    html.raw("<section class=\"panel\"><h2>What it asks</h2><pre tabindex=\"0\">");
    html.text(explanation(rule).join("\n")).raw("</pre></section>\n");
    html.raw("<section class=\"panel\"><h2>Text</h2><pre tabindex=\"0\">").text(&rule.text).raw("</pre></section>\n");
    Ok(html)
}

fn facts(api: &Api, rule: &ListedRule) -> Html {
    let header = &rule.header;
    let why = match rule.why {
        Why::Default => "nobody said otherwise".to_owned(),
        Why::Status => format!("its author calls it {}", header.status),
        Why::Setting => "somebody said so".to_owned(),
        Why::ServerDryRun => "the server is in dry run".to_owned(),
    };
    let (matches, paused) = counts(api, rule);
    let list = |texts: &[String]| if texts.is_empty() { "–".to_owned() } else { texts.join(", ") };
    let mut html = Html::default();
    html.raw("<section class=\"panel\"><h2>What is known</h2><table class=\"facts\"><tbody>\n<tr><th scope=\"row\">State</th><td>");
    html.element("span", state_class(rule.state), rule.state.as_str()).raw(" ").text(why).raw("</td></tr>\n");
    html.raw("<tr><th scope=\"row\">Level</th><td>");
    html.element("span", level_class(rule.level), rule.level.as_str()).raw("</td></tr>\n");
    for (name, value) in [
        ("Id", header.uid.clone()),
        ("From", format!("{} {}", rule.origin.kind(), rule.origin.name())),
        ("Matches since the start", matches),
        ("Paused until (UTC)", paused.map_or_else(|| "–".to_owned(), moment)),
        ("Description", header.description.clone()),
        ("Tags", list(&header.tags)),
        ("False positives", list(&header.false_positives)),
        ("References", list(&header.references)),
        ("Not fed by (off)", list(&rule.inputs_off)),
    ] {
        html.raw("<tr><th scope=\"row\">").raw(name).raw("</th>").element("td", "", value).raw("</tr>\n");
    }
    html.raw("</tbody></table></section>\n");
    html
}

fn setting_form(rule: &ListedRule) -> Html {
    let mut html = Html::default();
    let setting = &rule.setting;
    html.raw("<form class=\"panel filters\" method=\"post\"");
    html.attribute("action", format!("/rules/{}", in_url(&rule.header.uid))).raw(">\n");
    html.raw("<div><label for=\"state\">State</label>");
    html.piece(&choice("state", STATES, "as its author says", DEFAULT, setting.state.map(RuleState::as_str)));
    html.raw("</div>\n<div><label for=\"level\">Level</label>");
    html.piece(&choice("level", LEVELS, "as its author says", DEFAULT, setting.level.map(Level::as_str)));
    html.raw("</div>\n<div><label for=\"team\">Team, whatever the host</label><input id=\"team\" name=\"team\" ");
    html.raw("maxlength=\"100\" autocomplete=\"off\"").attribute("value", setting.team.as_deref().unwrap_or_default());
    html.raw("></div>\n<div><label for=\"reason\">Reason</label><input id=\"reason\" name=\"reason\" ");
    html.raw("maxlength=\"1000\" autocomplete=\"off\"></div>\n<div class=\"buttons\"><button>Say so</button></div>\n</form>\n");
    html
}
