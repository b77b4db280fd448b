//! Organisations, and their tokens for agents. A token is shown once, when it is made.

use super::Api;
use super::auth::{Admin, Caller, Scoped};
use super::error::{ApiError, ApiResult};
use super::params::{Fields, MaybeObject, Object, Segment, Segments};
use crate::agent_tokens;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use model::{ErrorKind, OrgId, Timestamp};
use runtime::Secret;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use storage::catalog::fleet::{AgentToken, NewToken, Org, TokenId};

const NO_SUCH_ORG: &str = "Organisation not found";
const NO_SUCH_TOKEN: &str = "Token not found";
const DAY: Duration = Duration::from_secs(86_400);
/// Days that a token lasts, if it is not said, and at most.
const DAYS: u32 = 90;
const DAYS_MAX: u32 = 3_650;
/// Hours that a token goes on after it was rotated.
const OVERLAP_HOURS: u32 = 24;
const OVERLAP_HOURS_MAX: u32 = 24 * 365;

pub async fn list(_: Admin, State(api): State<Arc<Api>>) -> ApiResult {
    let orgs = api.ask("orgs_list", api.deps.catalog.orgs()).await?;
    Ok(Json(json!({ "orgs": orgs.iter().map(org_shown).collect::<Vec<_>>() })))
}

pub async fn create(caller: Admin, State(api): State<Arc<Api>>, body: Object) -> ApiResult<(StatusCode, Json<Value>)> {
    let mut fields = Fields::new(&body.0);
    let (id, title) = (fields.text("id"), fields.text("title").unwrap_or_default());
    let (agents_max, reason) = (agents_max(&mut fields), fields.reason());
    fields.only(&["id", "title", "agents_max", "reason"]);
    fields.done("Invalid organisation")?;
    let id = id.ok_or_else(|| ApiError::invalid("id is required"))?;
    let id: OrgId = id.parse().map_err(|error| ApiError::invalid(format!("id: {error}")))?;
    let actor = api.actor(&caller.0, reason);
    api.ask("orgs_create", api.deps.catalog.create_org(&id, &title, agents_max.flatten(), &actor))
        .await
        .map_err(|error| error.named(ErrorKind::Conflict, "An organisation of this name exists already"))?;
    let org = api.ask("orgs_get", api.deps.catalog.org(&id)).await?;
    Ok((StatusCode::CREATED, Json(org_shown(&org))))
}

/// Changes what is given.
pub async fn change(caller: Admin, State(api): State<Arc<Api>>, id: Segment, body: Object) -> ApiResult {
    let id: OrgId = id.0.parse().map_err(|_| ApiError::not_found(NO_SUCH_ORG))?;
    let mut fields = Fields::new(&body.0);
    let (title, agents_max) = (fields.text("title"), agents_max(&mut fields));
    let (disabled, reason) = (fields.truth("disabled"), fields.reason());
    fields.only(&["title", "agents_max", "disabled", "reason"]);
    fields.done("Invalid organisation")?;
    let old = find(&api, &id).await?;
    let title = title.unwrap_or(old.title);
    let (agents_max, disabled) = (agents_max.unwrap_or(old.agents_max), disabled.unwrap_or(old.disabled));
    let actor = api.actor(&caller.0, reason);
    api.ask("orgs_change", api.deps.catalog.change_org(&id, &title, agents_max, disabled, &actor))
        .await
        .map_err(|error| error.named(ErrorKind::NotFound, NO_SUCH_ORG))?;
    // Its users come in no more, or again.
    api.keyring.changed();
    Ok(Json(org_shown(&find(&api, &id).await?)))
}

async fn find(api: &Api, id: &OrgId) -> ApiResult<Org> {
    api.ask("orgs_get", api.deps.catalog.org(id)).await.map_err(|error| error.named(ErrorKind::NotFound, NO_SUCH_ORG))
}

/// `Some(None)`: as many as there are.
fn agents_max(fields: &mut Fields<'_>) -> Option<Option<u32>> {
    match fields.given("agents_max")? {
        None => Some(None),
        Some(_) => fields.whole("agents_max", "it must be a whole number, or null for any").map(Some),
    }
}

fn org_shown(org: &Org) -> Value {
    json!({
        "id": org.id.as_str(),
        "title": org.title,
        "created_at": org.created_at.rfc3339(),
        "agents_max": org.agents_max,
        "disabled": org.disabled,
    })
}

/// The organisation of the path, for whoever may look after it. Another one is not found.
fn org_of(caller: &Caller, text: &str) -> ApiResult<OrgId> {
    let org: Option<OrgId> = text.parse().ok();
    org.filter(|org| *org == caller.org || caller.is_of_default_org).ok_or_else(|| ApiError::not_found(NO_SUCH_ORG))
}

pub async fn tokens(caller: Scoped<Admin>, State(api): State<Arc<Api>>, org: Segment) -> ApiResult {
    let org = org_of(caller.caller(), &org.0)?;
    let tokens = all(&api, &org).await?;
    let now = api.deps.clock.now();
    Ok(Json(json!({ "tokens": tokens.iter().map(|token| token_shown(token, now)).collect::<Vec<_>>() })))
}

async fn all(api: &Api, org: &OrgId) -> ApiResult<Vec<AgentToken>> {
    api.ask("agent_tokens_list", api.deps.catalog.tokens(org))
        .await
        .map_err(|error| error.named(ErrorKind::NotFound, NO_SUCH_ORG))
}

/// What a token is to be.
#[derive(Debug, Default)]
pub struct Wanted {
    pub label: String,
    pub host: Option<String>,
    pub legacy: bool,
    pub days: Option<u32>,
    /// `None`: 1 with a host, else any number. `Some(None)`: any number.
    pub uses_max: Option<Option<u32>>,
}

/// The only answer that ever holds the token.
pub async fn create_token(
    caller: Scoped<Admin>,
    State(api): State<Arc<Api>>,
    org: Segment,
    body: MaybeObject,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let org = org_of(caller.caller(), &org.0)?;
    let mut fields = Fields::new(&body.0);
    let wanted = Wanted {
        label: fields.text("label").unwrap_or_default(),
        host: fields.text("host"),
        legacy: fields.truth("legacy").unwrap_or(false),
        days: days(&mut fields),
        uses_max: match fields.given("uses_max") {
            None => None,
            Some(None) => Some(None),
            Some(Some(_)) => fields.whole("uses_max", "it must be a whole number from 1, or null for any").map(Some),
        },
    };
    let reason = fields.reason();
    fields.only(&["label", "host", "legacy", "expires_in_days", "uses_max", "reason"]);
    fields.done("Invalid token")?;
    let (token, id, expires_at) = make(&api, caller.caller(), &org, wanted, reason).await?;
    Ok((StatusCode::CREATED, Json(made(&api, "created", &token, id, expires_at))))
}

/// Makes a token.
pub async fn make(
    api: &Api,
    caller: &Caller,
    org: &OrgId,
    wanted: Wanted,
    reason: Option<String>,
) -> ApiResult<(Secret, TokenId, Timestamp)> {
    let actor = api.actor(caller, reason);
    let expires_at = actor.at.plus(DAY * wanted.days.unwrap_or(DAYS));
    let token = generate(api, org).await?;
    let new = NewToken {
        fingerprint: agent_tokens::fingerprint(token.expose()),
        uses_max: wanted.uses_max.unwrap_or(wanted.host.is_some().then_some(1)),
        label: wanted.label,
        host: wanted.host,
        legacy: wanted.legacy,
        expires_at,
    };
    let id = api
        .ask("agent_tokens_create", api.deps.catalog.add_token(org, new, &actor))
        .await
        .map_err(|error| error.named(ErrorKind::NotFound, NO_SUCH_ORG))?;
    Ok((token, id, expires_at))
}

async fn generate(api: &Api, org: &OrgId) -> ApiResult<Secret> {
    let suffix = Arc::clone(&api.deps.agent_gate.token_suffix);
    let suffix = tokio::task::spawn_blocking(move || suffix()).await.map_err(|error| error.to_string());
    // Without it agents would believe anybody, or nobody.
    let suffix = suffix.and_then(|suffix| suffix.map_err(|error| format!("{error:#}"))).map_err(|error| {
        tracing::error!(error, "the authority for agents cannot be read, so no token is made");
        ApiError::unavailable("the gateway's authority cannot be read now; see the log")
    })?;
    agent_tokens::generate(org, api.deps.clock.now(), suffix.as_deref())
        .map_err(|_| ApiError::unavailable("there are no random numbers now"))
}

fn made(api: &Api, what: &str, token: &Secret, id: TokenId, expires_at: Timestamp) -> Value {
    json!({
        "message": format!("Token {what} successfully; it is shown this once only"),
        "id": id,
        "token": token.expose(),
        "expires_at": expires_at.rfc3339(),
        "gateway": api.deps.agent_gate.address,
        "gateway_port": api.deps.agent_gate.port,
    })
}

pub async fn rotate_token(
    caller: Scoped<Admin>,
    State(api): State<Arc<Api>>,
    path: Segments,
    body: MaybeObject,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let [org, id] = path.0;
    let (org, id) = (org_of(caller.caller(), &org)?, token_id(&id)?);
    let mut fields = Fields::new(&body.0);
    let (days, reason) = (days(&mut fields), fields.reason());
    let hours: Option<u32> = fields.whole("overlap_hours", "it must be a whole number from 0 to 8760");
    if hours.is_some_and(|hours| hours > OVERLAP_HOURS_MAX) {
        fields.problem("overlap_hours", "it must be a whole number from 0 to 8760");
    }
    fields.only(&["expires_in_days", "overlap_hours", "reason"]);
    fields.done("Invalid request")?;
    let actor = api.actor(caller.caller(), reason);
    let expires_at = actor.at.plus(DAY * days.unwrap_or(DAYS));
    let old_until = actor.at.plus(Duration::from_secs(3_600) * hours.unwrap_or(OVERLAP_HOURS));
    let token = generate(&api, &org).await?;
    let print = agent_tokens::fingerprint(token.expose());
    let next = api
        .ask("agent_tokens_rotate", api.deps.catalog.rotate_token(&org, id, print, expires_at, old_until, &actor))
        .await
        .map_err(|error| error.named(ErrorKind::NotFound, NO_SUCH_TOKEN))
        .map_err(|error| error.named(ErrorKind::Conflict, "The token is revoked, or was rotated already"))?;
    Ok((StatusCode::CREATED, Json(made(&api, "rotated", &token, next, expires_at))))
}

pub async fn revoke_token(
    caller: Scoped<Admin>,
    State(api): State<Arc<Api>>,
    path: Segments,
    body: MaybeObject,
) -> ApiResult {
    let [org, id] = path.0;
    let (org, id) = (org_of(caller.caller(), &org)?, token_id(&id)?);
    let mut fields = Fields::new(&body.0);
    let reason = fields.reason();
    fields.only(&["reason"]);
    fields.done("Invalid request")?;
    let actor = api.actor(caller.caller(), reason);
    api.ask("agent_tokens_revoke", api.deps.catalog.revoke_token(&org, id, &actor))
        .await
        .map_err(|error| error.named(ErrorKind::NotFound, NO_SUCH_TOKEN))?;
    Ok(Json(json!({ "message": "Token revoked successfully; agents that it let in stay" })))
}

fn token_id(text: &str) -> ApiResult<TokenId> {
    text.parse().map_err(|_| ApiError::not_found(NO_SUCH_TOKEN))
}

fn days(fields: &mut Fields<'_>) -> Option<u32> {
    const EXPECTED: &str = "it must be a whole number from 1 to 3650";
    let days: Option<u32> = fields.whole("expires_in_days", EXPECTED);
    if days.is_some_and(|days| !(1..=DAYS_MAX).contains(&days)) {
        fields.problem("expires_in_days", EXPECTED);
    }
    days
}

fn token_shown(token: &AgentToken, now: Timestamp) -> Value {
    let used_up = !token.legacy && token.uses_max.is_some_and(|max| token.uses >= max);
    let state = match token.revoked_at {
        Some(_) => "revoked",
        None if token.expires_at <= now => "expired",
        None if used_up => "used up",
        None => "valid",
    };
    json!({
        "id": token.id,
        "label": token.label,
        "host": token.host,
        "legacy": token.legacy,
        "state": state,
        "created_at": token.created_at.rfc3339(),
        "created_by": token.created_by,
        "expires_at": token.expires_at.rfc3339(),
        "uses": token.uses,
        "uses_max": token.uses_max,
        "last_used_at": token.last_used_at.map(Timestamp::rfc3339),
        "revoked_at": token.revoked_at.map(Timestamp::rfc3339),
        "followed_by": token.followed_by,
    })
}
