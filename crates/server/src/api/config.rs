//! Live settings: what is set, setting one, and who set what when (contract mutt §8.2).

use super::Api;
use super::audit::{config_page, values};
use super::auth::{Admin, Caller, Viewer};
use super::error::{ApiError, ApiResult};
use super::params::{Fields, MaybeObject, Object, Params, Segment, pagination_to};
use super::settings::{self, Effect, Refusal};
use axum::Json;
use axum::extract::State;
use model::ErrorKind;
use serde_json::{Value, json};
use std::sync::Arc;
use storage::catalog::{ConfigChange, ConfigChangeFilter};

/// `table_name` of the audit rows of settings.
const TABLE: &str = "dynamic_config";
const KEY_CHARS_MAX: usize = 100;
const VALUE_CHARS_MAX: usize = 1_024;
const UNAVAILABLE: &str = "Dynamic config is not available";

pub async fn list(_: Viewer, State(api): State<Arc<Api>>) -> ApiResult {
    let settings = api
        .ask("settings", api.deps.coordination.settings())
        .await
        .map_err(|error| error.named(ErrorKind::Unavailable, UNAVAILABLE))?;
    Ok(Json(json!({ "config": settings })))
}

pub async fn set(caller: Admin, State(api): State<Arc<Api>>, key: Segment, body: Object) -> ApiResult {
    let key = checked_key(key.0)?;
    let mut fields = Fields::new(&body.0);
    let reason = fields.reason();
    let Some(value) = body.0.get("value") else {
        return Err(ApiError::invalid("Missing 'value' in request body"));
    };
    let value = text_of(value);
    let mut effect = Effect::Acts;
    match &value {
        None => fields.problem("value", "it must be a text, a number, true or false"),
        Some(text) if text.chars().count() > VALUE_CHARS_MAX || text.contains('\0') => {
            fields.problem("value", format!("it must be at most {VALUE_CHARS_MAX} characters, none of them NUL"));
        }
        Some(text) => match settings::check(&key, text, &api.deps.live.get()) {
            Ok(found) => effect = found,
            Err(Refusal::Key(problem)) => return Err(ApiError::invalid(problem).with("allowed", settings::keys())),
            Err(Refusal::Value(problem)) => fields.problem("value", problem),
        },
    }
    fields.done("Invalid setting")?;
    let value = value.unwrap_or_default();
    let old = change(&api, &caller.0, &key, Some(&value), reason).await?;
    let mut answer = json!({ "key": key, "old_value": old, "new_value": value });
    if effect == Effect::Kept {
        answer["warning"] = format!("`{key}` is kept, but nothing reads it").into();
    }
    Ok(Json(answer))
}

/// Removes a setting: the configured value counts again.
pub async fn unset(caller: Admin, State(api): State<Arc<Api>>, key: Segment, body: MaybeObject) -> ApiResult {
    let key = checked_key(key.0)?;
    let mut fields = Fields::new(&body.0);
    let reason = fields.reason();
    fields.done("Invalid request")?;
    let old = change(&api, &caller.0, &key, None, reason).await?;
    Ok(Json(json!({ "key": key, "old_value": old, "new_value": null })))
}

/// Records and makes a change; returns the value before. `None` for the new value removes it.
async fn change(
    api: &Api,
    caller: &Caller,
    key: &str,
    new: Option<&str>,
    reason: Option<String>,
) -> ApiResult<Option<String>> {
    let coordination = &api.deps.coordination;
    let not_now = |error: ApiError| error.named(ErrorKind::Unavailable, UNAVAILABLE);
    let old = api.ask("settings", coordination.settings()).await.map_err(not_now)?.remove(key);
    if new.is_none() && old.is_none() {
        return Err(ApiError::not_found("this setting is not set"));
    }
    // Recorded first: a change that cannot be recorded is not made.
    let row = row(api, caller, (key, old.as_deref(), new), reason);
    api.ask("settings_audit", api.deps.catalog.record_config_change(&api.deps.org, row)).await?;
    let made = match new {
        Some(value) => api.ask("settings_set", coordination.set_setting(key, value)).await,
        None => api.ask("settings_delete", coordination.delete_setting(key)).await,
    };
    if let Err(error) = made {
        if !error.may_have_happened() {
            let undone = Some("the setting could not be changed; it is as it was".to_owned());
            let row = self::row(api, caller, (key, new, old.as_deref()), undone);
            let work = api.deps.catalog.record_config_change(&api.deps.org, row);
            if let Err(error) = api.ask("settings_audit", work).await {
                tracing::error!(
                    error = error.message(),
                    key,
                    "the audit log says that a setting was changed which was not"
                );
            }
        }
        return Err(not_now(error));
    }
    // This process need not wait for its next look at the shared settings.
    if let Ok(settings) = api.ask("settings", coordination.settings()).await {
        for problem in api.deps.live.overlay(&settings) {
            tracing::warn!(problem, "a live setting cannot be used");
        }
    }
    Ok(old)
}

pub async fn history(_: Viewer, State(api): State<Arc<Api>>, params: Params) -> ApiResult {
    let filter = ConfigChangeFilter { table_name: Some(TABLE.to_owned()), ..ConfigChangeFilter::default() };
    let (page, found) = config_page(&api, &params, filter).await?;
    let history: Vec<Value> = found.rows.iter().map(history_row).collect();
    Ok(Json(json!({ "history": history, "pagination": pagination_to(page, &found) })))
}

fn history_row(change: &ConfigChange) -> Value {
    let (old, new) = (values(change.old_values.as_deref()), values(change.new_values.as_deref()));
    let key = [&new, &old].into_iter().find_map(|side| side.get("key")).cloned();
    json!({
        "id": change.id,
        "changed_at": change.changed_at.rfc1123(),
        "changed_by": change.changed_by,
        "operation": change.operation,
        "key": key,
        "old_value": old.get("value"),
        "new_value": new.get("value"),
        "reason": change.reason,
        "correlation_id": change.correlation_id,
    })
}

fn row(
    api: &Api,
    caller: &Caller,
    (key, old, new): (&str, Option<&str>, Option<&str>),
    reason: Option<String>,
) -> ConfigChange {
    let values = |value: Option<&str>| value.map(|value| json!({ "key": key, "value": value }).to_string());
    let actor = api.actor(caller, reason);
    ConfigChange {
        id: 0,
        changed_at: actor.at,
        changed_by: actor.name,
        operation: match (old, new) {
            (None, _) => "CREATE",
            (Some(_), Some(_)) => "UPDATE",
            (Some(_), None) => "DELETE",
        }
        .to_owned(),
        table_name: TABLE.to_owned(),
        record_id: 0,
        old_values: values(old),
        new_values: values(new),
        reason: actor.reason,
        correlation_id: Some(actor.correlation_id),
    }
}

fn checked_key(key: String) -> ApiResult<String> {
    let good = (1..=KEY_CHARS_MAX).contains(&key.len())
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if good {
        Ok(key)
    } else {
        Err(ApiError::invalid(format!("key: 1 to {KEY_CHARS_MAX} letters, digits, `_`, `-` and `.`")))
    }
}

/// The text that a value is kept as.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
