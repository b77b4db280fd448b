//! Silences: times in which nobody is told of some alerts. They are kept all the same.

use super::Api;
use super::auth::{Operator, Viewer};
use super::error::{ApiError, ApiResult};
use super::params::{Fields, MaybeObject, Object, Params, Segment, pagination};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use model::{ErrorKind, Timestamp};
use pipeline::notify::{parse_span, read_matcher};
use serde_json::{Value, json};
use std::sync::Arc;
use storage::catalog::incidents::{SILENCES_MAX, Silence, SilenceDraft};

const NO_SUCH_SILENCE: &str = "no such silence";
const TIME: &str = "it must be a time such as 2026-11-22T10:00:00Z";

/// Those that are not over; with `all=true` the others, too.
pub async fn list(_: Viewer, State(api): State<Arc<Api>>, params: Params) -> ApiResult {
    let all = params.read("all", "true or false", |text| text.parse().ok())?.unwrap_or(false);
    let (page, now) = (params.page()?, api.deps.clock.now());
    let over_at = (!all).then_some(now);
    let found = api.ask("silences_list", api.deps.catalog.silences(&api.deps.org, over_at, page)).await?;
    let silences: Vec<Value> = found.rows.iter().map(|silence| shown(silence, now)).collect();
    Ok(Json(json!({ "silences": silences, "pagination": pagination(page, found.total) })))
}

pub async fn create(
    caller: Operator,
    State(api): State<Arc<Api>>,
    body: Object,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let now = api.deps.clock.now();
    let mut fields = Fields::new(&body.0);
    let from = time(&mut fields, "from").unwrap_or(now);
    let until = until(&mut fields, from);
    let matcher = matcher(&mut fields);
    let reason = fields.reason();
    if reason.is_none() {
        fields.problem("reason", "it is required: those who miss an alert will ask");
    }
    fields.only(&["match", "from", "until", "for", "reason"]);
    fields.done("Invalid silence")?;
    let (Some(matcher), Some(until)) = (matcher, until) else {
        return Err(ApiError::invalid("match, and until or for, are required"));
    };
    let draft = SilenceDraft { matcher, from, until };
    let actor = api.actor(&caller.0, reason);
    let creating = api.deps.catalog.create_silence(&api.deps.org, draft, &actor);
    let full = format!("there are {SILENCES_MAX} silences that are not over; end some");
    let made = api.ask("silences_create", creating).await.map_err(|error| error.named(ErrorKind::Full, &full))?;
    api.ask("silences_load", api.deps.planner.refresh(now)).await?;
    Ok((StatusCode::CREATED, Json(shown(&made, now))))
}

/// Ends it now.
pub async fn end(caller: Operator, State(api): State<Arc<Api>>, id: Segment, body: MaybeObject) -> ApiResult {
    let now = api.deps.clock.now();
    let mut fields = Fields::new(&body.0);
    let reason = fields.reason();
    fields.done("Invalid request")?;
    let id = id.0.parse().ok().filter(|id| *id > 0).ok_or_else(|| ApiError::not_found(NO_SUCH_SILENCE))?;
    let actor = api.actor(&caller.0, reason);
    let ending = api.deps.catalog.end_silence(&api.deps.org, id, &actor);
    let ended = api.ask("silences_end", ending).await.map_err(|error| {
        error.named(ErrorKind::NotFound, NO_SUCH_SILENCE).named(ErrorKind::Conflict, "the silence is over already")
    })?;
    api.ask("silences_load", api.deps.planner.refresh(now)).await?;
    Ok(Json(shown(&ended, now)))
}

fn time(fields: &mut Fields<'_>, name: &str) -> Option<Timestamp> {
    let text = fields.text(name)?;
    let time = Timestamp::parse(&text);
    if time.is_none() {
        fields.problem(name, TIME);
    }
    time
}

/// `until`, or `for` so long.
fn until(fields: &mut Fields<'_>, from: Timestamp) -> Option<Timestamp> {
    let until = time(fields, "until");
    let Some(lasts) = fields.text("for") else { return until };
    match parse_span(&lasts) {
        Ok(lasts) if until.is_none() => return Some(from.plus(lasts)),
        Ok(_) => fields.problem("for", "not together with until"),
        Err(why) => fields.problem("for", why),
    }
    None
}

/// The matcher as it is kept; one that fits everything has to be said, not left out.
fn matcher(fields: &mut Fields<'_>) -> Option<String> {
    let Some(Some(given @ Value::Object(object))) = fields.given("match") else {
        fields.problem("match", "it must be an object such as {\"host\": \"db-*\"}");
        return None;
    };
    if object.is_empty() {
        fields.problem("match", "it is empty; {\"host\": \"*\"} silences everything");
        return None;
    }
    let json = given.to_string();
    match read_matcher(&json) {
        Ok(_) => Some(json),
        Err(why) => {
            fields.problem("match", why);
            None
        }
    }
}

fn shown(silence: &Silence, now: Timestamp) -> Value {
    let over = silence.until <= now || silence.ended_at.is_some();
    let state = match (over, silence.holds(now)) {
        (true, _) => "over",
        (false, true) => "holds",
        (false, false) => "to come",
    };
    json!({
        "id": silence.id,
        "state": state,
        "match": serde_json::from_str::<Value>(&silence.matcher).unwrap_or_default(),
        "from": silence.from.rfc3339(),
        "until": silence.until.rfc3339(),
        "author": silence.author,
        "reason": silence.reason,
        "created_at": silence.created_at.rfc3339(),
        "ended_at": silence.ended_at.map(Timestamp::rfc3339),
    })
}
