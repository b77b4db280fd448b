//! What the API is given of the server that it runs in.

use super::{Parts, command_stop, start_secrets};
use crate::api::{AgentGate, ApiOptions, ApiState, Prometheus};
use crate::authority::Authority;
use crate::config::{Config, Role};
use anyhow::Result;
use axum::Router;
use model::OrgId;
use pipeline::metrics::Metrics;
use runtime::{Clock, Health, KeyRing};
use std::sync::Arc;

/// The API over the stores of a data directory that no server runs on, with a key for this use.
pub async fn offline_api(config: Config) -> Result<(Router, String)> {
    let clock: Arc<dyn Clock> = Arc::new(runtime::SystemClock);
    let config = Config { channels: Vec::new(), ..config };
    let stop = command_stop();
    let health = Health::default();
    let (secrets, _refresher) = start_secrets(&config, &health, &stop).await?;
    let parts = Parts::open(&config, &secrets, health, Metrics::new(), &clock, &stop).await?;
    let key = runtime::Secret::generate("")?;
    let state = state(&parts, &config, KeyRing::fixed(key.clone()))?;
    let state = ApiState { works_events: false, ..state };
    Ok((crate::api::router(state), key.expose().to_owned()))
}

/// What is told to whoever adds an agent. The authority is read when a token is made, since it may be changed meanwhile;
/// what is not there is not made by this.
fn agent_gate(config: &Config) -> AgentGate {
    let Some(agents) = &config.agents else { return AgentGate::default() };
    let authority = agents.authority.clone();
    let token_suffix = move || Authority::token_suffix(&authority);
    AgentGate {
        token_suffix: Arc::new(token_suffix),
        port: agents.listen.address.port(),
        address: agents.address.clone(),
    }
}

pub(super) fn state(parts: &Parts, config: &Config, keys: KeyRing) -> Result<ApiState> {
    let prometheus = config.prometheus_url.as_ref().map(|url| Prometheus::open(url.expose())).transpose()?;
    Ok(ApiState {
        catalog: Arc::clone(&parts.catalog),
        events: Arc::clone(&parts.events),
        coordination: Arc::clone(&parts.coordination),
        queues: parts.queues.clone(),
        live: parts.live.clone(),
        rulebook: parts.rulebook.clone(),
        detections: parts.detections.clone(),
        works_events: config.has(Role::Alerter),
        rejects: Arc::clone(&parts.rejects),
        metrics: Arc::clone(&parts.metrics),
        health: parts.health.clone(),
        clock: Arc::clone(&parts.clock),
        keys,
        prometheus,
        channels: config.channels.iter().map(|channel| channel.0.name().to_owned()).collect(),
        planner: parts.planner.clone(),
        sees_events: config.sees_events(),
        org: OrgId::default(),
        agent_gate: agent_gate(config),
        options: ApiOptions {
            version_prefix: config.version_prefix,
            key_in_url: config.key_in_url,
            metrics_cache: config.metrics_cache,
            tls: config.webui_tls.is_some(),
        },
    })
}
