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
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;
use storage::catalog::{ConfigChange, ConfigChangeFilter};
use tokio::time::Instant;

/// `table_name` of the audit rows of settings.
const TABLE: &str = "dynamic_config";
const KEY_CHARS_MAX: usize = 100;
const VALUE_CHARS_MAX: usize = 1_024;
const UNAVAILABLE: &str = "Dynamic config is not available";
/// A change whose process dies holds the others back for this long.
const CLAIM: Duration = Duration::from_secs(20);
/// How long a change waits for the others.
const CLAIM_WAIT: Duration = Duration::from_secs(10);
const CLAIM_AGAIN: Duration = Duration::from_millis(20);

pub async fn list(_: Viewer, State(api): State<Arc<Api>>) -> ApiResult {
    let settings = api
        .ask("settings", api.deps.coordination.settings())
        .await
        .map_err(|error| error.named(ErrorKind::Unavailable, UNAVAILABLE))?;
    let live = api.deps.live.get();
    let unusable: Map<String, Value> = settings
        .iter()
        .filter_map(|(key, value)| {
            let (Refusal::Key(problem) | Refusal::Value(problem)) = settings::check(key, value, &live).err()?;
            Some((key.clone(), problem.into()))
        })
        .collect();
    let mut answer = json!({ "config": settings });
    if !unusable.is_empty() {
        answer["unusable"] = unusable.into();
    }
    Ok(Json(answer))
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
///
/// One change of a setting at a time, over all processes: each audit row begins with what the row
/// before it ended with. What changes settings without us, `redis-cli` for one, is met by the
/// comparison with the value that was read.
async fn change(
    api: &Api,
    caller: &Caller,
    key: &str,
    new: Option<&str>,
    reason: Option<String>,
) -> ApiResult<Option<String>> {
    let _one_here = api.changing.lock().await;
    let name = format!("setting:{key}");
    let until = Instant::now() + CLAIM_WAIT;
    while !api.ask("settings_claim", api.deps.coordination.claim(&name, CLAIM)).await.map_err(not_now)? {
        if Instant::now() >= until {
            return Err(ApiError::conflict("somebody else is changing this setting; read it again"));
        }
        tokio::time::sleep(CLAIM_AGAIN).await;
    }
    let changed = change_alone(api, caller, key, new, reason).await;
    if let Err(error) = api.ask("settings_release", api.deps.coordination.release(&name)).await {
        tracing::debug!(error = error.message(), key, "others wait until the claim runs out");
    }
    changed
}

async fn change_alone(
    api: &Api,
    caller: &Caller,
    key: &str,
    new: Option<&str>,
    reason: Option<String>,
) -> ApiResult<Option<String>> {
    let coordination = &api.deps.coordination;
    let old = api.ask("settings", coordination.settings()).await.map_err(not_now)?.remove(key);
    if new.is_none() && old.is_none() {
        return Err(ApiError::not_found("this setting is not set"));
    }
    if new == old.as_deref() {
        return Ok(old);
    }
    // Recorded first: a change that cannot be recorded is not made.
    record(api, caller, (key, old.as_deref(), new), reason).await?;
    if let Err(error) = api.ask("settings_replace", coordination.replace_setting(key, old.as_deref(), new)).await {
        if !error.may_have_happened() {
            let undone = async {
                let (now, why) = if error.is(ErrorKind::Conflict) {
                    let now = api.ask("settings", coordination.settings()).await?.remove(key);
                    (now, "another program changed the setting at the same moment; it is as that left it")
                } else {
                    (old, "the setting could not be changed; it is as it was")
                };
                record(api, caller, (key, new, now.as_deref()), Some(why.to_owned())).await
            };
            if let Err(error) = undone.await {
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

async fn record(
    api: &Api,
    caller: &Caller,
    change: (&str, Option<&str>, Option<&str>),
    reason: Option<String>,
) -> ApiResult<()> {
    let row = row(api, caller, change, reason);
    api.ask("settings_audit", api.deps.catalog.record_config_change(&api.deps.org, row)).await
}

fn not_now(error: ApiError) -> ApiError {
    error.named(ErrorKind::Unavailable, UNAVAILABLE)
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

/// The text that a value is kept as, without what surrounds it.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
