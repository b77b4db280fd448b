//! Agents: how they are, and throwing one out.

use super::Api;
use super::auth::{Operator, Scoped, Viewer};
use super::error::{ApiError, ApiResult};
use super::params::{Fields, MaybeObject, Params, Segment, pagination};
use axum::Json;
use axum::extract::State;
use model::{ErrorKind, OrgId, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use storage::catalog::fleet::{Agent, AgentFilter, AgentState};
use storage::catalog::{Page, PageRequest};

const NO_SUCH_AGENT: &str = "Agent not found";
pub const STATES: &[&str] = &["online", "offline", "pending", "revoked"];
const WHY: &str = "revoked by an operator";

/// What an agent said of itself last. All of it is its own word.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Said {
    pub spool_records: Option<u64>,
    pub spool_bytes: Option<u64>,
    pub lag_ms: Option<u64>,
    /// Records that were given up, by stream.
    pub dropped: BTreeMap<String, u64>,
    /// What cannot run there, and why.
    pub collectors: BTreeMap<String, String>,
    pub rss_bytes: Option<u64>,
}

impl Said {
    pub fn of(agent: &Agent) -> Self {
        agent.status.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    /// Records that were given up, of all streams.
    pub fn dropped_records(&self) -> u64 {
        self.dropped.values().fold(0, |sum, records| sum.saturating_add(*records))
    }
}

pub async fn list(caller: Scoped<Viewer>, State(api): State<Arc<Api>>, params: Params) -> ApiResult {
    let page = params.page()?;
    let (found, counts) = find(&api, caller.org(), &params, page).await?;
    let counts: BTreeMap<&str, u64> = counts.iter().map(|(state, count)| (state.as_str(), *count)).collect();
    Ok(Json(json!({
        "agents": found.rows.iter().map(shown).collect::<Vec<_>>(),
        "states": counts,
        "pagination": pagination(page, found.total),
    })))
}

/// A page of those that the parameters ask for, and how many there are in each state.
pub async fn find(
    api: &Api,
    org: &OrgId,
    params: &Params,
    page: PageRequest,
) -> ApiResult<(Page<Agent>, Vec<(AgentState, u64)>)> {
    let filter = AgentFilter {
        host: params.bounded("host")?,
        state: params.read("state", "one of online, offline, pending, revoked", AgentState::parse)?,
    };
    let found = api.ask("agents_list", api.deps.catalog.agents(org, &filter, page)).await?;
    let counts = api.ask("agents_count", api.deps.catalog.agent_counts(org)).await?;
    Ok((found, counts))
}

pub async fn one(caller: Scoped<Viewer>, State(api): State<Arc<Api>>, id: Segment) -> ApiResult {
    Ok(Json(shown(&get(&api, caller.org(), &id.0).await?)))
}

pub async fn get(api: &Api, org: &OrgId, id: &str) -> ApiResult<Agent> {
    api.ask("agents_get", api.deps.catalog.agent(org, id)).await.map_err(named)
}

pub async fn revoke(
    caller: Scoped<Operator>,
    State(api): State<Arc<Api>>,
    id: Segment,
    body: MaybeObject,
) -> ApiResult {
    let mut fields = Fields::new(&body.0);
    let reason = fields.reason();
    fields.only(&["reason"]);
    fields.done("Invalid request")?;
    throw_out(&api, &caller, &id.0, reason).await?;
    Ok(Json(json!({ "message": "Agent revoked successfully; its certificate counts no more" })))
}

/// Revokes an agent.
pub async fn throw_out(api: &Api, caller: &Scoped<Operator>, id: &str, reason: Option<String>) -> ApiResult<()> {
    let actor = api.actor(caller.caller(), reason);
    let why = actor.reason.clone().unwrap_or_else(|| WHY.to_owned());
    api.ask("agents_revoke", api.deps.catalog.revoke_agent(caller.org(), id, &why, &actor)).await.map_err(named)
}

pub async fn remove(
    caller: Scoped<Operator>,
    State(api): State<Arc<Api>>,
    id: Segment,
    body: MaybeObject,
) -> ApiResult {
    let mut fields = Fields::new(&body.0);
    let reason = fields.reason();
    fields.only(&["reason"]);
    fields.done("Invalid request")?;
    forget(&api, &caller, &id.0, reason).await?;
    Ok(Json(json!({ "message": "Agent removed successfully" })))
}

/// Forgets an agent.
pub async fn forget(api: &Api, caller: &Scoped<Operator>, id: &str, reason: Option<String>) -> ApiResult<()> {
    let actor = api.actor(caller.caller(), reason);
    api.ask("agents_remove", api.deps.catalog.remove_agent(caller.org(), id, &actor)).await.map_err(named)
}

fn named(error: ApiError) -> ApiError {
    error
        .named(ErrorKind::NotFound, NO_SUCH_AGENT)
        .named(ErrorKind::Conflict, "the agent is online; revoke it first, or stop it and wait until it is offline")
}

fn shown(agent: &Agent) -> Value {
    let said = Said::of(agent);
    let time = |time: Option<Timestamp>| time.map(Timestamp::rfc3339);
    json!({
        "id": agent.id,
        "host": agent.host,
        "state": agent.state().as_str(),
        "connected": agent.connected,
        "version": agent.facts.version,
        "capabilities": agent.facts.capabilities,
        "hostname": agent.facts.hostname,
        "ip_address": agent.facts.ip_address,
        "os_type": agent.facts.os_type,
        "os_version": agent.facts.os_version,
        "machine_id": agent.facts.machine_id,
        "boot_id": agent.facts.boot_id,
        // Without a key of its own it shows a token at each connection.
        "legacy": agent.key.is_none(),
        "token_id": agent.token,
        "enrolled_at": agent.enrolled_at.rfc3339(),
        "last_seen_at": time(agent.last_seen_at),
        "certificate_ends_at": time(agent.certificate_ends_at),
        "revoked_at": time(agent.revoked_at),
        "revoked_why": agent.revoked_why,
        "lag_ms": said.lag_ms,
        "spool_records": said.spool_records,
        "spool_bytes": said.spool_bytes,
        "dropped_records": said.dropped_records(),
        "dropped": said.dropped,
        "collectors_that_cannot_run": said.collectors,
        "rss_bytes": said.rss_bytes,
    })
}
