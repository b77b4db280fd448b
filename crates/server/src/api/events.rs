//! Events as they were stored, and the alerts they caused.

use super::Api;
use super::auth::{Scoped, Viewer};
use super::error::{ApiError, ApiResult};
use super::params::{Params, Segment, pagination};
use super::queues::readable;
use axum::Json;
use axum::extract::State;
use model::{AlertId, AlertState, Detection, ErrorKind, EventId, OrgId, Severity};
use pipeline::codec;
use serde_json::{Value, json};
use std::sync::Arc;
use storage::catalog::{AlertFilter, AlertRecord};
use storage::events::{EventQuery, StoredEvent};

/// What a process answers that cannot know.
const NOT_SEEN: &str = "this process keeps no events and was not told who does: set events.read_also, or ask a process \
                        with the role alerter";
const SEVERITY: &str = "a syslog severity, 0 to 7 or a word such as err";

/// Newest first; `next` is what to pass as `before` for older ones.
pub async fn search(caller: Scoped<Viewer>, State(api): State<Arc<Api>>, params: Params) -> ApiResult {
    let limit = params.limit(100, 1_000)?;
    let query = EventQuery {
        from: params.from("from")?,
        to: params.to("to")?,
        host: params.bounded("host")?,
        text: params.bounded("text")?,
        severity_at_most: params.read("severity", SEVERITY, Severity::parse)?,
        rule_id: params.id("rule_id")?,
        before: params.read("before", "an event id, evt_…", |text| text.parse().ok())?,
        limit,
    };
    let found = api.ask("events_search", api.deps.events.search(caller.org(), &query)).await?;
    let next = (found.len() == limit).then(|| found.last().map(|event| event.id.to_string())).flatten();
    let mut answer = json!({ "events": found.iter().map(event_shown).collect::<Vec<_>>(), "next": next });
    if !api.deps.sees_events {
        answer["note"] = json!(NOT_SEEN);
    }
    Ok(Json(answer))
}

pub async fn one(caller: Scoped<Viewer>, State(api): State<Arc<Api>>, id: Segment) -> ApiResult {
    let id: EventId = id.0.parse().map_err(|error| ApiError::invalid(format!("id: {error}")))?;
    let found = api.ask("events_get", api.deps.events.get(caller.org(), id)).await?;
    match found {
        Some(event) => Ok(Json(event_shown(&event))),
        None if !api.deps.sees_events => Err(ApiError::not_found(NOT_SEEN)),
        None => Err(ApiError::not_found("no such event is stored; /api/v2/trace/{id} tells where it may be")),
    }
}

pub fn event_shown(event: &StoredEvent) -> Value {
    json!({
        "id": event.id.to_string(),
        "accepted_at": event.id.accepted().rfc3339(),
        "timestamp": event.timestamp.rfc3339(),
        "input": event.input.as_str(),
        "host": event.host,
        "severity": event.severity.map(Severity::code),
        "severity_name": event.severity.map(Severity::as_str),
        "rule_id": event.rule_id,
        "event": readable(&codec::public_object(&event.raw)),
    })
}

pub async fn alerts(caller: Scoped<Viewer>, State(api): State<Arc<Api>>, params: Params) -> ApiResult {
    let filter = AlertFilter {
        event_id: params.read("event_id", "an event id, evt_…", |text| text.parse().ok())?,
        hostname: params.bounded("host")?,
        state: params.read(
            "state",
            "one of pending, delivered, dead, recorded, grouped, silenced",
            AlertState::parse,
        )?,
        incident: params.id("incident_id")?,
        from: params.from("from")?,
        to: params.to("to")?,
    };
    let page = params.page()?;
    let found = api.ask("alerts_list", api.deps.catalog.alerts(caller.org(), &filter, page)).await?;
    let alerts: Vec<Value> = found.rows.iter().map(alert_shown).collect();
    Ok(Json(json!({ "alerts": alerts, "pagination": pagination(page, found.total) })))
}

pub async fn alert(caller: Scoped<Viewer>, State(api): State<Arc<Api>>, id: Segment) -> ApiResult {
    let id: AlertId = id.0.parse().map_err(|error| ApiError::invalid(format!("id: {error}")))?;
    Ok(Json(alert_shown(&find_alert(&api, caller.org(), id).await?)))
}

pub async fn find_alert(api: &Api, org: &OrgId, id: AlertId) -> ApiResult<AlertRecord> {
    api.ask("alerts_get", api.deps.catalog.alert(org, id))
        .await
        .map_err(|error| error.named(ErrorKind::NotFound, "no such alert"))
}

pub fn alert_shown(record: &AlertRecord) -> Value {
    let alert = &record.alert;
    json!({
        "id": alert.id.to_string(),
        "event_id": alert.event_id.to_string(),
        "kind": alert.kind.as_str(),
        "created_at": alert.created_at.rfc3339(),
        "host": alert.host,
        "team": alert.team,
        "severity": alert.severity.as_str(),
        "handling": alert.handling.as_str(),
        "rule_id": alert.rule_id,
        "signature": alert.signature,
        "message": alert.message,
        "correlation_id": alert.correlation_id,
        "event": readable(&alert.raw_json),
        "detection": alert.detection.as_deref().map(detection_shown),
        "state": record.state.as_str(),
        "state_at": record.state_at.rfc3339(),
        "attempts": record.attempts,
        "detail": record.detail,
        "incident_id": record.incident,
    })
}

/// What the rule says to whoever reads the alert.
pub fn detection_shown(detection: &Detection) -> Value {
    let fields = detection.fields.iter().map(|(name, value)| json!({ "name": name, "value": value }));
    json!({
        "rule_uid": detection.rule_uid,
        "name": detection.name,
        "title": detection.title,
        "description": detection.description,
        "level": detection.level.as_str(),
        "tags": detection.tags,
        "references": detection.references,
        "false_positives": detection.false_positives,
        "fields": fields.collect::<Vec<_>>(),
        "events": detection.events,
    })
}
