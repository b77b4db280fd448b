//! What the roles share, opened as configured.

use crate::config::{ChannelSettings, Config, Role};
use crate::{detection_rules, field_maps, rule_files};
use anyhow::{Context, Result};
use connectors::channels::{self, Channel, ChannelConfig, EmailConfig, PagerDutyConfig, SlackConfig};
use model::ErrorKind;
use pipeline::Live;
use pipeline::accept::QUEUE_WRITES;
use pipeline::deliver::CATALOG_WRITES;
use pipeline::detections::Detections;
use pipeline::metrics::{Metrics, Owner};
use pipeline::notify::Planner;
use pipeline::outbox::Outbox;
use pipeline::rejects::RejectLog;
use pipeline::rulebook::Rulebook;
use runtime::backoff::Backoff;
use runtime::secrets::Secrets;
use runtime::{Clock, Health, KeyRing, Stop};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use storage::StorageResult;
use storage::catalog::{Catalog, CatalogConfig};
use storage::coordination::Coordination;
use storage::correlations::WorkerId;
use storage::events::EventStore;
use storage::queue::Queues;

/// What the roles share. Cheap to clone.
#[derive(Clone)]
pub struct Parts {
    pub queues: Queues,
    pub catalog: Arc<dyn Catalog>,
    pub events: Arc<dyn EventStore>,
    pub coordination: Arc<dyn Coordination>,
    pub channels: Vec<Arc<dyn Channel>>,
    pub rulebook: Rulebook,
    pub detections: Detections,
    pub planner: Planner,
    pub outbox: Outbox,
    pub live: Live,
    pub rejects: Arc<RejectLog>,
    pub metrics: Arc<Metrics>,
    pub health: Health,
    pub clock: Arc<dyn Clock>,
    /// The catalog of the installation, where `catalog` is one of this process alone.
    pub shared_catalog: Option<CatalogConfig>,
}

const REJECT_SAMPLES: usize = 200;

impl Parts {
    /// Opens the stores and channels, and loads the rules. A store that is not there is asked again,
    /// each time said in the log, until it is there or `stop`; then the last reason is the error.
    pub async fn open(
        config: &Config,
        secrets: &Secrets,
        health: Health,
        metrics: Arc<Metrics>,
        clock: &Arc<dyn Clock>,
        stop: &Stop,
    ) -> Result<Self> {
        let dir = &config.data_dir;
        let stores = config.stores.with_logins(&secrets.redis_credentials(), |user| secrets.database_credentials(user));
        // An ingestor keeps nothing in a catalog: an empty one of its own lets it run while the
        // database is away.
        let (catalog_config, shared_catalog) = if config.roles.iter().any(|role| *role != Role::Ingestor) {
            (stores.catalog.clone(), None)
        } else {
            (CatalogConfig::Sqlite { file: dir.join("ingestor.db") }, Some(stores.catalog.clone()))
        };
        let (queues, catalog, events, coordination) = tokio::try_join!(
            patiently("queue", &health, stop, || storage::queue::open(stores.queue.clone(), Arc::clone(clock))),
            patiently("catalog", &health, stop, || storage::catalog::open(catalog_config.clone())),
            patiently("events", &health, stop, || storage::events::open(stores.events.clone())),
            patiently("coordination", &health, stop, || storage::coordination::open(stores.coordination.clone())),
        )?;
        let mut opened = Vec::new();
        for channel in &config.channels {
            let name = channel.0.name().to_owned();
            opened.push(
                channels::open(following(channel, secrets))
                    .with_context(|| format!("failed to open the channel `{name}`"))?,
            );
        }
        metrics.process_start_time.set(clock.now().micros() as f64 / 1e6);
        let live = Live::new(config.live.clone());
        health.ok("channel");
        health.ok(CATALOG_WRITES);
        health.ok(QUEUE_WRITES);
        let rulebook = Rulebook::new(Arc::clone(&catalog), Arc::clone(&metrics));
        load_rule_files(&rulebook, &config.rule_paths).await;
        patiently("catalog", &health, stop, || rulebook.reload()).await.context("failed to load the rules")?;
        let detection = &config.detection;
        let correlations = storage::correlations::open(&catalog, &dir.join("correlations.db"))?;
        let worker = random_worker()?;
        let detections =
            Detections::new(detection.policy.clone(), detection.limits, correlations, worker, Arc::clone(&metrics));
        // The Web API shows the rules, whoever works by them.
        if config.has(Role::Alerter) || config.has(Role::Webui) {
            field_maps::load(&detections, &detection.field_paths).await;
            detection_rules::load(&detections, detection).await;
        }
        if config.has(Role::Alerter) {
            patiently("catalog", &health, stop, || detections.reload(&*catalog))
                .await
                .context("failed to load the detection rules")?;
        }
        let outbox = Outbox::new(
            &queues,
            Arc::clone(&catalog),
            live.clone(),
            !config.only_records_alerts(),
            Arc::clone(clock),
            Arc::clone(&metrics),
        );
        let planner = Planner::new(Arc::clone(&config.router), Arc::clone(&catalog));
        // Nobody must be told at the start of what a silence holds back.
        patiently("catalog", &health, stop, || planner.refresh(clock.now()))
            .await
            .context("failed to read silences")?;
        Ok(Self {
            queues,
            catalog,
            events,
            coordination,
            channels: opened,
            rulebook,
            detections,
            planner,
            outbox,
            live,
            rejects: Arc::new(RejectLog::new(REJECT_SAMPLES)),
            metrics,
            health,
            clock: Arc::clone(clock),
            shared_catalog,
        })
    }
}

fn random_worker() -> Result<WorkerId> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).context("failed to get a random number")?;
    Ok(WorkerId(u128::from_le_bytes(bytes)))
}

/// Whose metrics a process of these roles shows.
pub(super) fn owners(roles: &[Role]) -> Vec<Owner> {
    let owner = |role: &Role| match role {
        Role::Ingestor => Owner::Ingestor,
        Role::Alerter => Owner::Alerter,
        Role::Forwarder => Owner::Forwarder,
        Role::Remediation => Owner::Remediation,
        Role::Webui => Owner::Webui,
    };
    roles.iter().map(owner).collect()
}

const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(15);

/// Opens a store as soon as it is there. What trying again cannot mend is an error at once.
pub(crate) async fn patiently<T, F: Future<Output = StorageResult<T>>>(
    part: &'static str,
    health: &Health,
    stop: &Stop,
    open: impl Fn() -> F,
) -> Result<T> {
    let backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
    let mut attempt = 0;
    loop {
        attempt += 1;
        let error = match open().await {
            Ok(opened) => {
                health.ok(part);
                return Ok(opened);
            }
            Err(error) => error,
        };
        health.failed(part, error.to_string());
        let wait = backoff.delay(attempt);
        if !matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) {
            return Err(error).with_context(|| format!("failed to open the {part}"));
        }
        let wait_ms = wait.as_millis() as u64;
        tracing::warn!(part, attempt, wait_ms, %error, "the {part} is not there yet; trying again in {wait_ms} ms");
        if !stop.sleep(wait).await {
            return Err(error).with_context(|| format!("stopped while waiting for the {part}"));
        }
    }
}

/// The channel with the secret that follows its source, where it has none of its own.
fn following(channel: &ChannelSettings, secrets: &Secrets) -> ChannelConfig {
    let ChannelSettings(config, follows) = channel;
    let Some(keys) = follows.map(|name| KeyRing::from(secrets.watch(name))) else { return config.clone() };
    match config.clone() {
        ChannelConfig::Moogsoft { target, .. } => ChannelConfig::Moogsoft { target, api_keys: keys },
        ChannelConfig::Email(config) => ChannelConfig::Email(Box::new(EmailConfig { passwords: keys, ..*config })),
        ChannelConfig::Slack(config) => ChannelConfig::Slack(Box::new(SlackConfig { urls: keys, ..*config })),
        ChannelConfig::PagerDuty(config) => {
            ChannelConfig::PagerDuty(Box::new(PagerDutyConfig { routing_keys: keys, ..*config }))
        }
        other @ (ChannelConfig::Webhook { .. } | ChannelConfig::Http(_)) => other,
    }
}

/// Replaces the rules of files by what `paths` hold now; what is wrong is logged and left out.
pub async fn load_rule_files(rulebook: &Rulebook, paths: &[PathBuf]) {
    if paths.is_empty() {
        rulebook.set_file_rules(Vec::new());
        return;
    }
    let paths = paths.to_vec();
    let Ok(found) = tokio::task::spawn_blocking(move || rule_files::read(&paths)).await else { return };
    for problem in &found.problems {
        tracing::error!(%problem, "a rule of a file was left out");
    }
    for problem in &found.unreadable {
        tracing::error!(problem, "a rule file cannot be read");
    }
    for (file, _) in &found.sigma {
        tracing::error!(file, "a rule file without a list `rules` was left out; Sigma rules belong to detection.rules");
    }
    tracing::info!(rules = found.rules.len(), files = found.files, "rule files read");
    rulebook.set_file_rules(rule_files::as_rules(&found.rules));
}
