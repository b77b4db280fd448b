//! The Web API of the control plane (contract mutt §6): what the original's clients call, under
//! `/api/v1` and `/api/v2` alike, and our own additions under `/api/v2` only.
//!
//! Always true here:
//! * A request is authenticated before it is routed: an unknown path without a key is 401, with one
//!   404.
//! * A request is about the default organisation, unless the handler's first argument is [`auth::Scoped`].
//! * A handler names who may call it as its first argument ([`auth::Viewer`], [`auth::Operator`],
//!   [`auth::Admin`], [`auth::Anyone`]); the helpers of `route.rs` take no other.
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
//! | `/routes` | `routing.rs` |
//! | `/detection` | `detection/` |
//! | `/incidents`, `/silences` | `incidents.rs`, `silences.rs` |
//! | `/trace` | `trace.rs` |
//! | `/users` | `users.rs` |
//! | `/orgs` and their tokens | `orgs.rs` |
//! | `/agents` | `agents.rs` |
//! | `/openapi.json` | `openapi/` |
//! | `/`, `/agents`, `/audit`, `/incidents`, `/rules`, `/login`, `/logout`, `/assets` | `pages/` |
//!
//! To add an endpoint: a handler in the file of its noun, a line in [`contract`] or [`own`] with the
//! schemas of what it takes and gives (`openapi/schemas.rs`), a test in `tests/it/api/` under the same
//! noun.

mod agents;
mod audit;
mod auth;
mod config;
mod detection;
mod error;
mod events;
mod failures;
mod hosts;
mod incidents;
mod keyring;
mod letters;
mod metrics;
mod openapi;
mod orgs;
mod pages;
mod params;
mod queues;
mod route;
mod routing;
mod rules;
mod sessions;
mod settings;
mod silences;
mod slo;
mod trace;
mod users;
mod version;

pub use openapi::openapi;
pub use pages::in_path;
pub use slo::Prometheus;

use axum::extract::DefaultBodyLimit;
use error::ApiError;
use failures::Failures;
use keyring::Keyring;
use model::OrgId;
use pipeline::Live;
use pipeline::detections::Detections;
use pipeline::metrics::{Metrics, labels};
use pipeline::notify::Planner;
use pipeline::rejects::RejectLog;
use pipeline::rulebook::Rulebook;
use route::{
    AGENTS, AGENTS_PAGE, ALERTS, AUDIT_PAGE, CHANGES, CURSOR, DETECTION_DOCUMENTS, DETECTION_IMPORT, DETECTION_PUT,
    DETECTION_RULES, EVENT_AUDIT, EVENTS, Endpoint, INCIDENTS, INCIDENTS_PAGE, LOGIN, PAGED, PEEK, PERIOD, RULES_PAGE,
    SILENCES, TO_1000, VERSIONED,
};
use route::{delete, get, patch, post, put};
use runtime::{Clock, Health, KeyRing};
use sessions::Sessions;
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
    pub detections: Detections,
    /// Whether this process asks detection rules about events, and so knows how often they matched.
    pub works_events: bool,
    pub rejects: Arc<RejectLog>,
    pub metrics: Arc<Metrics>,
    pub health: Health,
    pub clock: Arc<dyn Clock>,
    /// Whoever has one of these may do everything; users in the catalog have keys of their own.
    pub keys: KeyRing,
    /// Asked for the service level objectives.
    pub prometheus: Option<Prometheus>,
    /// Names of the alert channels, whose breakers the dashboard shows.
    pub channels: Vec<String>,
    /// Which of them are told of which alerts, and when not.
    pub planner: Planner,
    /// Whether `events` is where events are kept, or sees where: not in a process without an alerter
    /// that was not told of any.
    pub sees_events: bool,
    /// The default organisation.
    pub org: OrgId,
    pub agent_gate: AgentGate,
    pub options: ApiOptions,
}

/// What whoever adds an agent has to know of the gateway.
#[derive(Clone)]
pub struct AgentGate {
    /// The end of tokens made now: the first half of the fingerprint of the gateway's own authority, as 32 hex digits.
    /// `Ok(None)`: it has none, and agents believe whom their system believes. Reads a file.
    pub token_suffix: Arc<dyn Fn() -> anyhow::Result<Option<String>> + Send + Sync>,
    pub port: u16,
    /// What agents are to dial, where it is said: name or address, and port.
    pub address: Option<String>,
}

impl Default for AgentGate {
    fn default() -> Self {
        Self { token_suffix: Arc::new(|| Ok(None)), port: 9_002, address: None }
    }
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
    /// The listener speaks TLS, so that a session's cookie may be bound to it.
    pub tls: bool,
}

impl Default for ApiOptions {
    fn default() -> Self {
        Self { version_prefix: true, key_in_url: false, metrics_cache: Duration::from_secs(5), tls: false }
    }
}

/// Largest request body.
const BODY_BYTES_MAX: usize = 4 << 20;
/// Longest time a store may take for one question.
const STORE_TIMEOUT: Duration = Duration::from_secs(15);

/// The API over these parts.
pub fn router(state: ApiState) -> axum::Router {
    let keyring = Keyring::new(Arc::clone(&state.catalog), state.org.clone(), state.keys.clone());
    let api = Arc::new(Api {
        deps: state,
        keyring,
        failures: Failures::default(),
        sessions: Sessions::default(),
        summary: Mutex::new(None),
        sight: Mutex::new(None),
        tried_revision: Mutex::new(None),
        changing: Mutex::default(),
        known: Mutex::default(),
        laying: Mutex::default(),
    });
    let (mut guarded, mut public) = (axum::Router::new(), axum::Router::new());
    for endpoint in endpoints() {
        let routes = if endpoint.needs.is_some() { &mut guarded } else { &mut public };
        *routes = std::mem::take(routes).route(&endpoint.path, endpoint.handler);
    }
    guarded
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::no_such_method)
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&api), auth::authenticate))
        .merge(public.method_not_allowed_fallback(error::no_such_method))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&api), auth::seal))
        .with_state(api)
}

/// Everything that answers. A handler's first argument says who may call it.
fn endpoints() -> Vec<Endpoint> {
    let mut all = pages();
    for prefix in ["/api/v1", "/api/v2"] {
        all.extend(contract().into_iter().map(|endpoint| endpoint.below(prefix)));
    }
    all.extend(own().into_iter().map(|endpoint| endpoint.below("/api/v2")));
    all
}

/// Whether a path is one of our own additions.
fn is_own(path: &str) -> bool {
    own().iter().any(|endpoint| path.strip_prefix("/api/v2") == Some(&endpoint.path))
}

/// For browsers and probes.
fn pages() -> Vec<Endpoint> {
    const HTML: &str = "text/html";
    vec![
        get("/health", metrics::health).about("Whether the API and its stores work").gives("Health"),
        get("/metrics", metrics::exposition).about("All metrics").gives_other("text/plain"),
        get("/", pages::dashboard).about("The dashboard").gives_other(HTML),
        get("/audit", pages::audit).about("Changes of the configuration").query(&[AUDIT_PAGE]).gives_other(HTML),
        get("/incidents", pages::incidents).about("Incidents").query(&[INCIDENTS_PAGE]).gives_other(HTML),
        get("/incidents/{id}", pages::incident).about("An incident").gives_other(HTML),
        post("/incidents/{id}", pages::incident_act)
            .about("Does what a button of that page says")
            .takes("IncidentForm")
            .redirects(),
        get("/agents", pages::agents).about("Agents").query(&[AGENTS_PAGE]).gives_other(HTML),
        post("/agents", pages::agent_token)
            .about("Makes a token and shows the command that installs an agent, this once")
            .takes("AgentTokenForm")
            .gives_other(HTML),
        get("/agents/{id}", pages::agent).about("An agent").gives_other(HTML),
        post("/agents/{id}", pages::agent_act)
            .about("Does what a button of that page says")
            .takes("AgentForm")
            .redirects(),
        get("/rules", pages::rules).about("Detection rules").query(&[RULES_PAGE]).gives_other(HTML),
        get("/rules/{id}", pages::rule).about("A detection rule").gives_other(HTML),
        post("/rules/{id}", pages::rule_set)
            .about("Says what the form of that page says about the rule")
            .takes("DetectionForm")
            .redirects(),
        get("/login", pages::login_form).about("The form to log in").query(&[LOGIN]).gives_other(HTML),
        post("/login", pages::login).about("Logs in by key").takes("LoginForm").redirects(),
        post("/logout", pages::logout).about("Ends the session").redirects(),
        get("/assets/style.css", pages::style).about("Style of the pages").gives_other("text/css"),
        get("/assets/refresh.js", pages::script).about("Script of the pages").gives_other("text/javascript"),
        get("/assets/copy.js", pages::copy_script).about("Script of the pages").gives_other("text/javascript"),
        get("/assets/icon.svg", pages::icon).about("Icon of the pages").gives_other("image/svg+xml"),
    ]
}

/// What the original has, the same in both versions.
fn contract() -> Vec<Endpoint> {
    vec![
        get("/openapi.json", openapi::document).about("This document").gives("OpenApi"),
        get("/version", version::version).about("Versions of the API").query(&[VERSIONED]).gives("Version"),
        get("/metrics", metrics::summary).about("Rates of accepted events, events a minute").gives("Rates"),
        get("/slo", slo::slo).about("Service level objectives").gives("Objectives"),
        get("/config", config::list).about("Live settings that are set").gives("Settings"),
        get("/config/history", config::history)
            .about("Changes of live settings")
            .query(&[PAGED, CURSOR])
            .gives("SettingHistory"),
        put("/config/{key}", config::set).about("Sets a live setting").takes("SettingValue").gives("SettingChanged"),
        delete("/config/{key}", config::unset)
            .about("Removes a live setting; the configured value counts again")
            .may_take("Reason")
            .gives("SettingChanged"),
        get("/rules", rules::list).about("All rules by priority, then id").gives("RuleList"),
        post("/rules", rules::create).about("Creates a rule").takes("RuleDraft").created().gives("RuleCreated"),
        get("/rules/{id}", rules::one).about("A rule").gives("Rule"),
        put("/rules/{id}", rules::update).about("Changes a rule").takes("RulePatch").gives("RuleUpdated"),
        delete("/rules/{id}", rules::remove).about("Deletes a rule; history stays").may_take("Reason"),
        get("/audit", audit::logs)
            .about("Changes with old and new values")
            .query(&[CHANGES, PERIOD, PAGED, CURSOR])
            .gives("Audit"),
        get("/config-audit", audit::changes)
            .about("Changes without values")
            .query(&[CHANGES, PERIOD, PAGED, CURSOR])
            .gives("ConfigAudit"),
        get("/audit-logs", audit::events)
            .about("Events that a rule took")
            .query(&[EVENT_AUDIT, PERIOD, PAGED, CURSOR])
            .gives("EventAudit"),
        get("/dev-hosts", hosts::dev_hosts).about("Development hosts").gives("Hosts"),
        post("/dev-hosts", hosts::add_dev_host).about("Adds one").takes("HostDraft").created().gives("HostAdded"),
        delete("/dev-hosts/{hostname}", hosts::remove_dev_host).about("Removes one").may_take("Reason"),
        get("/teams", hosts::teams).about("Teams of devices").gives("Teams"),
        post("/teams", hosts::add_team).about("Gives a device a team").takes("TeamDraft").created().gives("TeamAdded"),
        put("/teams/{hostname}", hosts::update_team).about("Gives it another").takes("TeamPatch"),
        delete("/teams/{hostname}", hosts::remove_team).about("Takes it away").may_take("Reason"),
        get("/users", users::list).about("Users with their keys").gives("UserList"),
        post("/users", users::create).about("Creates a user").takes("UserDraft").created().gives("UserCreated"),
        get("/users/{name}", users::one).about("A user").gives("User"),
        put("/users/{name}", users::update).about("Changes the role").takes("UserPatch").gives("UserUpdated"),
        delete("/users/{name}", users::remove).about("Deletes a user and the keys").may_take("Reason"),
        get("/users/{name}/keys", users::keys).about("Keys without what they are").gives("KeyList"),
        post("/users/{name}/keys", users::add_key)
            .about("Makes a key, which is shown this once")
            .may_take("KeyDraft")
            .created()
            .gives("KeyCreated"),
        delete("/users/{name}/keys/{id}", users::revoke_key).about("Revokes a key").may_take("Reason"),
    ]
}

/// What is ours.
fn own() -> Vec<Endpoint> {
    vec![
        post("/rules/test", rules::test)
            .about("Which rule takes an event, and why")
            .takes("RuleTest")
            .gives("RuleVerdict"),
        post("/rules/import", rules::import)
            .about("Creates many rules, all or none")
            .takes("RuleImport")
            .created()
            .gives("RulesImported"),
        get("/detection/rules", detection::list)
            .about("Detection rules and how they stand")
            .query(&[DETECTION_RULES, PAGED])
            .gives("DetectionRuleList"),
        get("/detection/rules/{id}", detection::one)
            .about("A detection rule with its text and what it means in words")
            .gives("DetectionRuleWhole"),
        put("/detection/rules/{id}/setting", detection::set)
            .about("Says whether a rule is on, its level and its team, without touching its text")
            .takes("DetectionSetting")
            .gives("DetectionRuleSet"),
        delete("/detection/rules/{id}/setting", detection::clear)
            .about("Forgets what was said; the rule stands as its author says")
            .may_take("DetectionSettingForgotten")
            .gives("DetectionRuleSet"),
        post("/detection/test", detection::test)
            .about("Which rules match events; of a text that is kept nowhere, or of all")
            .takes("DetectionTest")
            .gives("DetectionVerdict"),
        get("/detection/documents", detection::documents)
            .about("Documents of detection rules")
            .query(&[DETECTION_DOCUMENTS, PAGED])
            .gives("DetectionDocumentList"),
        get("/detection/documents/{name}", detection::document)
            .about("A document with its text")
            .gives("DetectionDocument"),
        put("/detection/documents/{name}", detection::put)
            .about("Keeps the text that is the body as a new version, if all of it can be used")
            .query(&[DETECTION_PUT])
            .takes_other("application/yaml")
            .gives("DetectionDocumentKept"),
        delete("/detection/documents/{name}", detection::remove)
            .about("Removes a document; its versions stay")
            .may_take("DetectionDocumentRemoval")
            .gives("DetectionDocumentRemoved"),
        get("/detection/documents/{name}/versions", detection::versions)
            .about("What a document was, newest first")
            .gives("DetectionVersions"),
        get("/detection/documents/{name}/versions/{id}", detection::version)
            .about("A version with its text")
            .gives("DetectionVersion"),
        post("/detection/documents/{name}/restore", detection::restore)
            .about("Puts the text of a version back, as a new one")
            .takes("DetectionRestore")
            .gives("DetectionDocumentKept"),
        post("/detection/import", detection::import)
            .about("Takes many documents, all or none; the report says what it comes to")
            .query(&[DETECTION_IMPORT])
            .takes("DetectionImport")
            .takes_other("application/zip")
            .body_max(detection::IMPORT_BYTES_MAX)
            .gives("DetectionImported"),
        get("/detection/export", detection::export).about("All documents as an archive").gives_other("application/zip"),
        get("/events", events::search)
            .about("Stored events, newest first")
            .query(&[EVENTS, TO_1000])
            .gives("EventList"),
        get("/events/{id}", events::one).about("A stored event").gives("StoredEvent"),
        get("/alerts", events::alerts).about("Alerts, newest first").query(&[ALERTS, PAGED]).gives("AlertList"),
        get("/alerts/{id}", events::alert).about("An alert").gives("Alert"),
        get("/incidents", incidents::list)
            .about("Incidents by their last alert, newest first")
            .query(&[INCIDENTS, PAGED])
            .gives("IncidentList"),
        get("/incidents/{id}", incidents::one)
            .about("An incident with its last alerts and changes")
            .gives("IncidentWhole"),
        post("/incidents/{id}", incidents::act)
            .about("Acknowledges, assigns, resolves, dismisses, reopens or comments an incident")
            .takes("IncidentAction")
            .gives("Incident"),
        get("/silences", silences::list).about("Silences, newest first").query(&[SILENCES, PAGED]).gives("SilenceList"),
        post("/silences", silences::create)
            .about("Silences alerts for a time; they are kept and not told")
            .takes("SilenceDraft")
            .created()
            .gives("Silence"),
        delete("/silences/{id}", silences::end).about("Ends a silence now").may_take("Reason").gives("Silence"),
        get("/routes", routing::tree).about("The routing tree of alerts").gives("RouteTree"),
        post("/routes/test", routing::test)
            .about("Who would be told of an alert")
            .takes("RouteTest")
            .gives("RouteVerdict"),
        get("/orgs", orgs::list).about("Organisations").gives("OrgList"),
        post("/orgs", orgs::create).about("Creates an organisation").takes("OrgDraft").created().gives("Org"),
        patch("/orgs/{org}", orgs::change)
            .about("Changes what is given; a disabled one lets nobody in, and nothing of it is removed")
            .takes("OrgPatch")
            .gives("Org"),
        get("/orgs/{org}/tokens", orgs::tokens)
            .about("Tokens for agents, without what they are, newest first")
            .gives("AgentTokenList"),
        post("/orgs/{org}/tokens", orgs::create_token)
            .about("Makes a token for agents, which is shown this once")
            .may_take("AgentTokenDraft")
            .created()
            .gives("AgentTokenMade"),
        post("/orgs/{org}/tokens/{id}/rotate", orgs::rotate_token)
            .about("Makes a token in place of another, which goes on for a while")
            .may_take("AgentTokenRotation")
            .created()
            .gives("AgentTokenMade"),
        delete("/orgs/{org}/tokens/{id}", orgs::revoke_token)
            .about("Revokes a token; agents that it let in stay")
            .may_take("Reason"),
        get("/agents", agents::list)
            .about("Agents by host, and how many are in each state")
            .query(&[AGENTS, PAGED])
            .gives("AgentList"),
        get("/agents/{id}", agents::one).about("An agent").gives("Agent"),
        post("/agents/{id}/revoke", agents::revoke)
            .about("Throws an agent out; its certificate counts no more")
            .may_take("Reason"),
        delete("/agents/{id}", agents::remove).about("Forgets an agent that is not online").may_take("Reason"),
        get("/trace/{id}", trace::trace).about("What happened to an event or alert").gives("Trace"),
        get("/rejects", queues::rejects).about("What was refused at the doors last").query(&[TO_1000]).gives("Rejects"),
        get("/queues", queues::list).about("Queues and their depths").gives("QueueList"),
        get("/queues/{name}", queues::peek).about("Records without taking them").query(&[PEEK]).gives("QueueRecords"),
        post("/queues/{name}/replay", letters::replay)
            .about("Puts dead letters back where they came from")
            .takes("Replay")
            .gives("Replayed"),
        delete("/queues/{name}/records", letters::remove)
            .about("Removes dead letters for good")
            .takes("Removal")
            .gives("Removed"),
    ]
}

/// The parts, and what the API itself remembers.
struct Api {
    deps: ApiState,
    keyring: Keyring,
    failures: Failures,
    sessions: Sessions,
    /// The last summary of the rates, and when it was made.
    summary: Mutex<Option<(Instant, serde_json::Value)>>,
    /// What Prometheus said last, and when.
    sight: Mutex<Option<(Instant, slo::Sight)>>,
    /// The catalog's revision that the rulebook was last brought to before a rule was tried.
    tried_revision: Mutex<Option<u64>>,
    /// Held by whoever changes a live setting.
    changing: Mutex<()>,
    /// The organisation's detection rules as they were read last.
    known: Mutex<Option<Arc<detection::Known>>>,
    /// Held by whoever changes or tries documents of detection rules.
    laying: Mutex<()>,
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
