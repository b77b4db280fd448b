//! Incidents: alerts of one cause, and what people do with them.

use super::Api;
use super::audit::values;
use super::auth::{Operator, Scoped, Viewer};
use super::error::{ApiError, ApiResult};
use super::events::alert_shown;
use super::params::{Fields, Object, Params, Segment, pagination};
use axum::Json;
use axum::extract::State;
use model::{ErrorKind, OrgId, Timestamp};
use serde_json::{Value, json};
use std::sync::Arc;
use storage::catalog::incidents::{Incident, IncidentAction, IncidentFilter, IncidentId, IncidentStatus};
use storage::catalog::{AlertFilter, ConfigChange, ConfigChangeFilter, PageRequest};

const NO_SUCH_INCIDENT: &str = "no such incident";
/// What `status` takes; `open` is ACTIVE and ACKNOWLEDGED.
pub const STATUSES: &[&str] = &["open", "closed", "ACTIVE", "ACKNOWLEDGED", "RESOLVED", "DISMISSED"];
pub const ACTIONS: &[&str] = &["acknowledge", "assign", "resolve", "dismiss", "reopen", "comment"];
const STATUS: &str = "one of open, closed, ACTIVE, ACKNOWLEDGED, RESOLVED, DISMISSED";
/// The last alerts and changes that one incident is shown with.
const SHOWN: PageRequest = PageRequest { page: 1, limit: 20 };

pub async fn list(caller: Scoped<Viewer>, State(api): State<Arc<Api>>, params: Params) -> ApiResult {
    let filter = IncidentFilter {
        status: params.read("status", STATUS, statuses)?.unwrap_or_default(),
        rule_uid: params.bounded("rule")?,
        host: params.bounded("host")?,
        team: params.bounded("team")?,
        assignee: params.bounded("assignee")?,
        from: params.from("from")?,
        to: params.to("to")?,
    };
    let page = params.page()?;
    let found = api.ask("incidents_list", api.deps.catalog.incidents(caller.org(), &filter, page)).await?;
    let incidents: Vec<Value> = found.rows.iter().map(incident_shown).collect();
    Ok(Json(json!({ "incidents": incidents, "pagination": pagination(page, found.total) })))
}

pub fn statuses(word: &str) -> Option<Vec<IncidentStatus>> {
    let all = IncidentStatus::ALL.into_iter();
    match word {
        "open" => Some(all.filter(|status| status.is_open()).collect()),
        "closed" => Some(all.filter(|status| !status.is_open()).collect()),
        word => IncidentStatus::parse(word).map(|status| vec![status]),
    }
}

/// With its last alerts and what was done with it.
pub async fn one(caller: Scoped<Viewer>, State(api): State<Arc<Api>>, id: Segment) -> ApiResult {
    let id = incident_id(&id)?;
    let (incident, alerts, history) = whole(&api, caller.org(), id).await?;
    let mut shown = incident_shown(&incident);
    shown["last_alerts"] = alerts;
    shown["history"] = history.iter().map(change_shown).collect();
    Ok(Json(shown))
}

/// An incident, its last alerts as they are shown, and its last changes.
pub async fn whole(api: &Api, org: &OrgId, id: IncidentId) -> ApiResult<(Incident, Value, Vec<ConfigChange>)> {
    let catalog = &api.deps.catalog;
    let incident = api.ask("incidents_get", catalog.incident(org, id)).await.map_err(named)?;
    let filter = AlertFilter { incident: Some(id), ..AlertFilter::default() };
    let alerts = api.ask("incidents_alerts", catalog.alerts(org, &filter, SHOWN)).await?;
    let filter = ConfigChangeFilter {
        table_name: Some("incidents".into()),
        record_id: Some(id),
        ..ConfigChangeFilter::default()
    };
    let history = api.ask("incidents_history", catalog.config_changes(org, &filter, SHOWN)).await?;
    Ok((incident, alerts.rows.iter().map(alert_shown).collect(), history.rows))
}

fn change_shown(change: &ConfigChange) -> Value {
    json!({
        "at": change.changed_at.rfc3339(),
        "by": change.changed_by,
        "comment": change.reason,
        "before": values(change.old_values.as_deref()),
        "after": values(change.new_values.as_deref()),
    })
}

/// Acknowledges, assigns, resolves, dismisses, reopens, or only says something.
pub async fn act(caller: Operator, State(api): State<Arc<Api>>, id: Segment, body: Object) -> ApiResult {
    let id = incident_id(&id)?;
    let mut fields = Fields::new(&body.0);
    let (word, assignee) = (fields.text("action"), fields.text("assignee"));
    let comment = fields.text("comment").filter(|text| !text.trim().is_empty());
    fields.only(&["action", "assignee", "comment"]);
    let action = match word.as_deref() {
        Some("acknowledge") => Some(IncidentAction::Acknowledge),
        Some("assign") => Some(IncidentAction::Assign(assignee.filter(|name| !name.is_empty()))),
        Some("resolve") => Some(IncidentAction::Resolve),
        Some("dismiss") => Some(IncidentAction::Dismiss),
        Some("reopen") => Some(IncidentAction::Reopen),
        Some("comment") => Some(IncidentAction::Comment),
        Some(_) | None => {
            fields.problem("action", format!("it must be one of {}", ACTIONS.join(", ")));
            None
        }
    };
    fields.done("Invalid request")?;
    let Some(action) = action else { return Err(ApiError::invalid("action is required")) };
    let after = change(&api, id, &action, &caller, comment).await?;
    Ok(Json(incident_shown(&after)))
}

pub async fn change(
    api: &Api,
    id: IncidentId,
    action: &IncidentAction,
    caller: &Operator,
    comment: Option<String>,
) -> ApiResult<Incident> {
    let actor = api.actor(&caller.0, comment);
    let changing = api.deps.catalog.change_incident(&api.deps.org, id, action, &actor);
    let changed = api.ask("incidents_change", changing).await.map_err(named)?;
    Ok(changed)
}

fn named(error: ApiError) -> ApiError {
    error
        .named(ErrorKind::NotFound, NO_SUCH_INCIDENT)
        .named(ErrorKind::Conflict, "the incident is closed, or a newer one of the same cause is there; read it again")
}

pub fn incident_id(segment: &Segment) -> ApiResult<IncidentId> {
    segment.0.parse().ok().filter(|id| *id > 0).ok_or_else(|| ApiError::not_found(NO_SUCH_INCIDENT))
}

pub fn incident_shown(incident: &Incident) -> Value {
    let time = |time: Option<Timestamp>| time.map(Timestamp::rfc3339);
    let (acknowledged, closed) = (incident.acknowledged.as_ref(), incident.closed.as_ref());
    json!({
        "id": incident.id,
        "status": incident.status.as_str(),
        "key": incident.key,
        "rule_uid": incident.rule_uid,
        "title": incident.title,
        "severity": incident.severity.as_str(),
        "team": incident.team,
        "host": incident.host,
        "first_seen": incident.first_seen.rfc3339(),
        "last_seen": incident.last_seen.rfc3339(),
        "last_alert": incident.last_alert.to_string(),
        "alerts": incident.alerts,
        "told": incident.told,
        "silenced": incident.silenced,
        "assignee": incident.assignee,
        "acknowledged_by": acknowledged.map(|(by, _)| by),
        "acknowledged_at": time(acknowledged.map(|(_, at)| *at)),
        "closed_by": closed.map(|(by, _)| by),
        "closed_at": time(closed.map(|(_, at)| *at)),
        "comment": incident.comment,
        "last_told": time(incident.last_told),
        "told_at": time(incident.waiting.as_ref().map(|waiting| waiting.until)),
        "resolve_at": time(incident.resolve_at.filter(|_| incident.status.is_open())),
        "escalate_at": time(incident.escalate_at),
        "escalations": incident.escalations,
    })
}
