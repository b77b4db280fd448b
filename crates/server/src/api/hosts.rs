//! Development hosts, and the teams of devices.

use super::Api;
use super::auth::{Operator, Viewer};
use super::error::{ApiError, ApiResult};
use super::params::{Fields, MaybeObject, Object, Segment};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use model::ErrorKind;
use serde_json::{Value, json};
use std::sync::Arc;

const NO_SUCH_HOST: &str = "Hostname not found";

pub async fn dev_hosts(_: Viewer, State(api): State<Arc<Api>>) -> ApiResult {
    let hosts = api.ask("dev_hosts_list", api.deps.catalog.dev_hosts(&api.deps.org)).await?;
    Ok(Json(json!({ "hosts": hosts.iter().map(|host| json!({ "hostname": host })).collect::<Vec<_>>() })))
}

pub async fn add_dev_host(
    caller: Operator,
    State(api): State<Arc<Api>>,
    body: Object,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let mut fields = Fields::new(&body.0);
    let (host, reason) = (name(&mut fields, "hostname"), fields.reason());
    fields.done("Invalid dev host")?;
    let Some(host) = host else { return Err(ApiError::invalid("hostname is required")) };
    let actor = api.actor(&caller.0, reason);
    api.ask("dev_hosts_add", api.deps.catalog.add_dev_host(&api.deps.org, &host, &actor))
        .await
        .map_err(|error| error.named(ErrorKind::Conflict, "Hostname already exists"))?;
    Ok((StatusCode::CREATED, Json(json!({ "message": "Dev host added successfully", "hostname": host }))))
}

pub async fn remove_dev_host(
    caller: Operator,
    State(api): State<Arc<Api>>,
    host: Segment,
    body: MaybeObject,
) -> ApiResult {
    let mut fields = Fields::new(&body.0);
    let reason = fields.reason();
    fields.done("Invalid request")?;
    let actor = api.actor(&caller.0, reason);
    api.ask("dev_hosts_remove", api.deps.catalog.remove_dev_host(&api.deps.org, &host.0, &actor))
        .await
        .map_err(|error| error.named(ErrorKind::NotFound, NO_SUCH_HOST))?;
    Ok(Json(json!({ "message": "Dev host deleted successfully" })))
}

pub async fn teams(_: Viewer, State(api): State<Arc<Api>>) -> ApiResult {
    let teams = api.ask("teams_list", api.deps.catalog.teams(&api.deps.org)).await?;
    let teams: Vec<Value> =
        teams.iter().map(|(host, team)| json!({ "hostname": host, "team_assignment": team })).collect();
    Ok(Json(json!({ "teams": teams })))
}

pub async fn add_team(
    caller: Operator,
    State(api): State<Arc<Api>>,
    body: Object,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let mut fields = Fields::new(&body.0);
    let (host, team) = (name(&mut fields, "hostname"), name(&mut fields, "team_assignment"));
    let reason = fields.reason();
    fields.done("Invalid team mapping")?;
    let (Some(host), Some(team)) = (host, team) else {
        return Err(ApiError::invalid("hostname and team_assignment are required"));
    };
    let actor = api.actor(&caller.0, reason);
    api.ask("teams_add", api.deps.catalog.add_team(&api.deps.org, &host, &team, &actor))
        .await
        .map_err(|error| error.named(ErrorKind::Conflict, "Hostname already has a team assignment"))?;
    Ok((
        StatusCode::CREATED,
        Json(json!({ "message": "Team mapping added successfully", "hostname": host, "team_assignment": team })),
    ))
}

pub async fn update_team(caller: Operator, State(api): State<Arc<Api>>, host: Segment, body: Object) -> ApiResult {
    let mut fields = Fields::new(&body.0);
    let (team, reason) = (name(&mut fields, "team_assignment"), fields.reason());
    fields.done("Invalid team mapping")?;
    let Some(team) = team else { return Err(ApiError::invalid("team_assignment is required")) };
    let actor = api.actor(&caller.0, reason);
    api.ask("teams_update", api.deps.catalog.update_team(&api.deps.org, &host.0, &team, &actor))
        .await
        .map_err(|error| error.named(ErrorKind::NotFound, NO_SUCH_HOST))?;
    Ok(Json(json!({ "message": "Team mapping updated successfully" })))
}

pub async fn remove_team(caller: Operator, State(api): State<Arc<Api>>, host: Segment, body: MaybeObject) -> ApiResult {
    let mut fields = Fields::new(&body.0);
    let reason = fields.reason();
    fields.done("Invalid request")?;
    let actor = api.actor(&caller.0, reason);
    api.ask("teams_remove", api.deps.catalog.remove_team(&api.deps.org, &host.0, &actor))
        .await
        .map_err(|error| error.named(ErrorKind::NotFound, NO_SUCH_HOST))?;
    Ok(Json(json!({ "message": "Team mapping deleted successfully" })))
}

/// A name without the space around it; an empty one is none.
fn name(fields: &mut Fields<'_>, field: &str) -> Option<String> {
    let text = fields.text(field)?.trim().to_owned();
    if text.contains(char::is_control) {
        fields.problem(field, "it must not hold control characters");
        return None;
    }
    (!text.is_empty()).then_some(text)
}
