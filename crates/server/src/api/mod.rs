//! The Web API of the control plane (contract mutt §6): what the original's clients call, under
//! `/api/v1` and `/api/v2` alike, and our own additions under `/api/v2` only.
//!
//! Always true here:
//! * A request is authenticated before it is routed: an unknown path without a key is 401, with one
//!   404. What is public is in [`public`] and nowhere else.
//! * A handler names who may call it as its first argument ([`auth::Caller`] or [`auth::Anyone`]);
//!   the route helpers below take no other.
//! * Statuses are assigned in `error.rs` only; every body is JSON; no text of a database or a
//!   library reaches a client.
//! * A change is recorded before it is answered, with who, why and the correlation id.
//!
//! | path | file |
//! |---|---|
//! | `/rules` | `rules.rs` |
//! | `/dev-hosts`, `/teams` | `hosts.rs` |
//! | `/audit`, `/audit-logs`, `/config-audit` | `audit.rs` |
//! | `/config` | `config.rs` |
//! | `/metrics`, `/health` | `metrics.rs` |
//! | `/slo` | `slo.rs` |
//! | `/version` | `version.rs` |
//! | `/queues`, `/rejects` | `queues.rs`, replay and removal in `letters.rs` |
//! | `/events`, `/alerts` | `events.rs` |
//! | `/trace` | `trace.rs` |
//!
//! To add an endpoint: a handler in the file of its noun, a line in [`contract`] or [`own`], a test
//! in `tests/it/api/` under the same noun.

mod audit;
mod auth;
mod config;
mod error;
mod events;
mod hosts;
mod letters;
mod metrics;
mod params;
mod queues;
mod rules;
mod slo;
mod trace;
mod version;

use auth::{NamesAnyone, NamesCaller};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::routing::MethodRouter;
use error::ApiError;
use model::OrgId;
use pipeline::Live;
use pipeline::metrics::{Metrics, labels};
use pipeline::rejects::RejectLog;
use pipeline::rulebook::Rulebook;
use runtime::{Clock, Health, KeyRing};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use storage::StorageResult;
use storage::catalog::{Actor, Catalog};
use storage::coordination::Coordination;
use storage::events::EventStore;
use storage::queue::Queues;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// What the API works with.
#[derive(Clone)]
pub struct ApiState {
    pub catalog: Arc<dyn Catalog>,
    pub events: Arc<dyn EventStore>,
    pub coordination: Arc<dyn Coordination>,
    pub queues: Queues,
    pub live: Live,
    pub rulebook: Rulebook,
    pub rejects: Arc<RejectLog>,
    pub metrics: Arc<Metrics>,
    pub health: Health,
    pub clock: Arc<dyn Clock>,
    /// Any of these may do everything; none, and nobody may do anything.
    pub keys: KeyRing,
    pub org: OrgId,
    pub options: ApiOptions,
}

/// How the API behaves where the original's code and its documents disagree.
#[derive(Debug, Clone)]
pub struct ApiOptions {
    /// `v2.5` in the version headers, as documented, or `2.5`, as the original's code sent.
    pub version_prefix: bool,
    /// Whether `?api_key=` counts. Keys in URLs end in logs, histories and referrers.
    pub key_in_url: bool,
    /// How long a summary of the rates is shown again.
    pub metrics_cache: Duration,
}

impl Default for ApiOptions {
    fn default() -> Self {
        Self { version_prefix: true, key_in_url: false, metrics_cache: Duration::from_secs(5) }
    }
}

/// Largest request body.
const BODY_BYTES_MAX: usize = 4 << 20;
/// Longest time a store may take for one question.
const STORE_TIMEOUT: Duration = Duration::from_secs(15);

/// The API over these parts.
pub fn router(state: ApiState) -> Router {
    let api = Arc::new(Api { deps: state, summary: Mutex::new(None), tried_revision: Mutex::new(None) });
    let guarded = Router::new()
        .route("/", get(version::index))
        .nest("/api/v1", contract())
        .nest("/api/v2", contract().merge(own()))
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::no_such_method)
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&api), auth::authenticate));
    guarded
        .merge(public())
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&api), auth::seal))
        .with_state(api)
}

type Routes = Router<Arc<Api>>;

/// The only routes that need no key.
fn public() -> Routes {
    Router::new()
        .route("/health", open(metrics::health))
        .route("/metrics", open(metrics::exposition))
        .route("/api/v1/version", open(version::version))
        .route("/api/v2/version", open(version::version))
        .method_not_allowed_fallback(error::no_such_method)
}

/// What the original has, the same in both versions.
fn contract() -> Routes {
    Router::new()
        .route("/metrics", get(metrics::summary))
        .route("/slo", get(slo::slo))
        .route("/config", get(config::list))
        .route("/config/{key}", put(config::set))
        .route("/config/history", get(config::history))
        .route("/rules", get(rules::list).merge(post(rules::create)))
        .route("/rules/{id}", get(rules::one).merge(put(rules::update)).merge(delete(rules::remove)))
        .route("/audit", get(audit::logs))
        .route("/config-audit", get(audit::changes))
        .route("/audit-logs", get(audit::events))
        .route("/dev-hosts", get(hosts::dev_hosts).merge(post(hosts::add_dev_host)))
        .route("/dev-hosts/{hostname}", delete(hosts::remove_dev_host))
        .route("/teams", get(hosts::teams).merge(post(hosts::add_team)))
        .route("/teams/{hostname}", put(hosts::update_team).merge(delete(hosts::remove_team)))
}

/// What is ours.
fn own() -> Routes {
    Router::new()
        .route("/rules/test", post(rules::test))
        .route("/rules/import", post(rules::import))
        .route("/events", get(events::search))
        .route("/events/{id}", get(events::one))
        .route("/alerts", get(events::alerts))
        .route("/alerts/{id}", get(events::alert))
        .route("/trace/{id}", get(trace::trace))
        .route("/rejects", get(queues::rejects))
        .route("/queues", get(queues::list))
        .route("/queues/{name}", get(queues::peek))
        .route("/queues/{name}/replay", post(letters::replay))
        .route("/queues/{name}/records", delete(letters::remove))
}

fn get<H: Handler<T, Arc<Api>>, T: NamesCaller + 'static>(handler: H) -> MethodRouter<Arc<Api>> {
    axum::routing::get(handler)
}

fn post<H: Handler<T, Arc<Api>>, T: NamesCaller + 'static>(handler: H) -> MethodRouter<Arc<Api>> {
    axum::routing::post(handler)
}

fn put<H: Handler<T, Arc<Api>>, T: NamesCaller + 'static>(handler: H) -> MethodRouter<Arc<Api>> {
    axum::routing::put(handler)
}

fn delete<H: Handler<T, Arc<Api>>, T: NamesCaller + 'static>(handler: H) -> MethodRouter<Arc<Api>> {
    axum::routing::delete(handler)
}

fn open<H: Handler<T, Arc<Api>>, T: NamesAnyone + 'static>(handler: H) -> MethodRouter<Arc<Api>> {
    axum::routing::get(handler)
}

/// The parts, and what the API itself remembers.
struct Api {
    deps: ApiState,
    /// The last summary of the rates, and when it was made.
    summary: Mutex<Option<(Instant, serde_json::Value)>>,
    /// The catalog's revision that the rulebook was last brought to before a rule was tried.
    tried_revision: Mutex<Option<u64>>,
}

impl Api {
    /// Asks a store, bounded in time and measured.
    async fn ask<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = StorageResult<T>>,
    ) -> Result<T, ApiError> {
        let started = Instant::now();
        let result = tokio::time::timeout(STORE_TIMEOUT, work).await;
        let ms = started.elapsed().as_secs_f64() * 1_000.0;
        let series = labels([("operation", operation)]);
        self.deps.metrics.webui_db_query_latency_ms.get_or_create(&series).observe(ms);
        match result {
            Ok(answer) => answer.map_err(ApiError::from),
            Err(_) => Err(ApiError::timeout(operation)),
        }
    }

    /// Who changes something now, for its audit row.
    fn actor(&self, caller: &auth::Caller, reason: Option<String>) -> Actor {
        Actor {
            name: caller.name.clone(),
            reason,
            correlation_id: caller.correlation_id.to_string(),
            at: self.deps.clock.now(),
        }
    }
}
