//! The routing tree, and where an alert would go.

use super::Api;
use super::auth::Viewer;
use super::error::{ApiError, ApiResult};
use super::params::Object;
use crate::routing::{SampleAlert, tree_shown, verdict_shown};
use axum::Json;
use axum::extract::State;
use serde_json::Value;
use std::sync::Arc;

pub async fn tree(_: Viewer, State(api): State<Arc<Api>>) -> ApiResult {
    Ok(Json(tree_shown(api.deps.planner.router())))
}

/// Who would be told of an alert.
pub async fn test(_: Viewer, State(api): State<Arc<Api>>, body: Object) -> ApiResult {
    let Some(given) = body.0.get("alert").filter(|given| given.is_object()) else {
        return Err(ApiError::invalid("Missing 'alert', a JSON object, in request body"));
    };
    let sample: SampleAlert =
        serde_json::from_value(Value::clone(given)).map_err(|why| ApiError::invalid(format!("alert: {why}")))?;
    let alert =
        sample.alert(&api.deps.org, api.deps.clock.now()).map_err(|why| ApiError::invalid(format!("alert.{why}")))?;
    if alert.org != api.deps.org {
        return Err(ApiError::not_found("no such organisation"));
    }
    let (planner, now) = (&api.deps.planner, api.deps.clock.now());
    // What was silenced a moment ago by another process counts, too.
    api.ask("silences_load", planner.refresh(now)).await?;
    let mut verdict = verdict_shown(planner.router(), &alert);
    verdict["silenced_by"] = planner.silenced(&alert, now).into();
    Ok(Json(verdict))
}
