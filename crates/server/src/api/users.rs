//! Users of this API and their keys. A key is shown once, when it is made.

use super::Api;
use super::auth::{Admin, Scoped};
use super::error::{ApiError, ApiResult};
use super::params::{Fields, MaybeObject, Object, Segment, Segments};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use model::{ErrorKind, OrgId, Timestamp};
use runtime::Secret;
use serde_json::{Value, json};
use std::sync::Arc;
use storage::catalog::users::{KeyId, NewKey, Role, User, UserKey};

const NO_SUCH_USER: &str = "User not found";
const NO_SUCH_KEY: &str = "Key not found";
const INVALID: &str = "Invalid user";
/// Prefix of users' keys: a leak is found by it.
const PREFIX: &str = "muk_";

pub async fn list(caller: Scoped<Admin>, State(api): State<Arc<Api>>) -> ApiResult {
    api.keyring.write_uses().await;
    let users = api.ask("users_list", api.deps.catalog.users(caller.org())).await?;
    Ok(Json(json!({ "users": users.iter().map(|user| shown(user, &api)).collect::<Vec<_>>() })))
}

pub async fn one(caller: Scoped<Admin>, State(api): State<Arc<Api>>, name: Segment) -> ApiResult {
    api.keyring.write_uses().await;
    Ok(Json(shown(&find(&api, caller.org(), &name.0).await?, &api)))
}

pub async fn create(
    caller: Scoped<Admin>,
    State(api): State<Arc<Api>>,
    body: Object,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let mut fields = Fields::new(&body.0);
    let (name, role, reason) = (fields.text("name"), role(&mut fields), fields.reason());
    fields.done(INVALID)?;
    let (Some(name), Some(role)) = (name, role) else {
        return Err(ApiError::invalid("name and role are required"));
    };
    let actor = api.actor(caller.caller(), reason);
    api.ask("users_create", api.deps.catalog.create_user(caller.org(), &name, role, &actor))
        .await
        .map_err(|error| error.named(ErrorKind::Conflict, "A user of this name exists already"))?;
    let answer = json!({ "message": "User created successfully", "name": name, "role": role.as_str() });
    Ok((StatusCode::CREATED, Json(answer)))
}

pub async fn update(caller: Scoped<Admin>, State(api): State<Arc<Api>>, name: Segment, body: Object) -> ApiResult {
    let mut fields = Fields::new(&body.0);
    let (role, reason) = (role(&mut fields), fields.reason());
    fields.done(INVALID)?;
    let Some(role) = role else { return Err(ApiError::invalid("role is required")) };
    let actor = api.actor(caller.caller(), reason);
    api.ask("users_update", api.deps.catalog.set_role(caller.org(), &name.0, role, &actor))
        .await
        .map_err(|error| error.named(ErrorKind::NotFound, NO_SUCH_USER))?;
    api.keyring.changed();
    Ok(Json(json!({ "message": "User updated successfully", "role": role.as_str() })))
}

pub async fn remove(caller: Scoped<Admin>, State(api): State<Arc<Api>>, name: Segment, body: MaybeObject) -> ApiResult {
    let mut fields = Fields::new(&body.0);
    let reason = fields.reason();
    fields.done("Invalid request")?;
    let actor = api.actor(caller.caller(), reason);
    api.ask("users_delete", api.deps.catalog.remove_user(caller.org(), &name.0, &actor))
        .await
        .map_err(|error| error.named(ErrorKind::NotFound, NO_SUCH_USER))?;
    api.keyring.changed();
    Ok(Json(json!({ "message": "User and keys deleted successfully" })))
}

pub async fn keys(caller: Scoped<Admin>, State(api): State<Arc<Api>>, name: Segment) -> ApiResult {
    api.keyring.write_uses().await;
    let user = find(&api, caller.org(), &name.0).await?;
    Ok(Json(json!({ "keys": keys_shown(&user, &api) })))
}

/// The only answer that ever holds the key.
pub async fn add_key(
    caller: Scoped<Admin>,
    State(api): State<Arc<Api>>,
    name: Segment,
    body: MaybeObject,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let mut fields = Fields::new(&body.0);
    let (label, reason) = (fields.text("label").unwrap_or_default(), fields.reason());
    let expires_at = match fields.text("expires_at") {
        Some(text) => match Timestamp::parse(&text) {
            Some(time) if time > api.deps.clock.now() => Some(time),
            _ => {
                fields.problem("expires_at", "it must be a time that is to come, such as 2030-01-31T00:00:00Z");
                None
            }
        },
        None => None,
    };
    fields.done("Invalid key")?;
    let key = Secret::generate(PREFIX).map_err(|_| ApiError::unavailable("there are no random numbers now"))?;
    let new = NewKey { fingerprint: key.fingerprint(), label, expires_at };
    let actor = api.actor(caller.caller(), reason);
    let id = api
        .ask("user_keys_create", api.deps.catalog.add_key(caller.org(), &name.0, new, &actor))
        .await
        .map_err(|error| error.named(ErrorKind::NotFound, NO_SUCH_USER))?;
    api.keyring.changed();
    let answer = json!({
        "message": "Key created successfully; it is shown this once only",
        "id": id,
        "key": key.expose(),
        "expires_at": expires_at.map(Timestamp::rfc3339),
    });
    Ok((StatusCode::CREATED, Json(answer)))
}

pub async fn revoke_key(
    caller: Scoped<Admin>,
    State(api): State<Arc<Api>>,
    path: Segments,
    body: MaybeObject,
) -> ApiResult {
    let mut fields = Fields::new(&body.0);
    let reason = fields.reason();
    fields.done("Invalid request")?;
    let [name, id] = path.0;
    let id: KeyId = id.parse().map_err(|_| ApiError::not_found(NO_SUCH_KEY))?;
    let actor = api.actor(caller.caller(), reason);
    api.ask("user_keys_revoke", api.deps.catalog.revoke_key(caller.org(), &name, id, &actor))
        .await
        .map_err(|error| error.named(ErrorKind::NotFound, NO_SUCH_KEY))?;
    api.keyring.changed();
    Ok(Json(json!({ "message": "Key revoked successfully" })))
}

async fn find(api: &Api, org: &OrgId, name: &str) -> ApiResult<User> {
    api.ask("users_get", api.deps.catalog.user(org, name))
        .await
        .map_err(|error| error.named(ErrorKind::NotFound, NO_SUCH_USER))
}

fn role(fields: &mut Fields<'_>) -> Option<Role> {
    let text = fields.text("role")?;
    let role = Role::parse(&text);
    if role.is_none() {
        fields.problem("role", "it must be one of viewer, operator, admin");
    }
    role
}

fn shown(user: &User, api: &Api) -> Value {
    json!({
        "name": user.name,
        "role": user.role.as_str(),
        "created_at": user.created_at.rfc3339(),
        "keys": keys_shown(user, api),
    })
}

fn keys_shown(user: &User, api: &Api) -> Vec<Value> {
    user.keys.iter().map(|key| key_shown(key, api.deps.clock.now())).collect()
}

fn key_shown(key: &UserKey, now: Timestamp) -> Value {
    let state = match (key.revoked_at, key.expires_at) {
        (Some(_), _) => "revoked",
        (None, Some(end)) if end <= now => "expired",
        (None, _) => "valid",
    };
    json!({
        "id": key.id,
        "label": key.label,
        "state": state,
        "created_at": key.created_at.rfc3339(),
        "last_used_at": key.last_used_at.map(Timestamp::rfc3339),
        "expires_at": key.expires_at.map(Timestamp::rfc3339),
        "revoked_at": key.revoked_at.map(Timestamp::rfc3339),
    })
}
