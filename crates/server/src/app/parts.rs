//! What the roles share, opened as configured.

use crate::config::Config;
use crate::rule_files;
use anyhow::{Context, Result};
use connectors::channels::{self, Channel};
use pipeline::Live;
use pipeline::metrics::Metrics;
use pipeline::outbox::Outbox;
use pipeline::rejects::RejectLog;
use pipeline::rulebook::Rulebook;
use runtime::{Clock, Health};
use std::path::PathBuf;
use std::sync::Arc;
use storage::catalog::{Catalog, CatalogConfig};
use storage::coordination::{Coordination, CoordinationConfig};
use storage::events::{EventStore, EventStoreConfig};
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
    pub outbox: Outbox,
    pub live: Live,
    pub rejects: Arc<RejectLog>,
    pub metrics: Arc<Metrics>,
    pub health: Health,
    pub clock: Arc<dyn Clock>,
}

const REJECT_SAMPLES: usize = 200;

impl Parts {
    /// Opens the stores and channels, and loads the rules.
    pub async fn open(config: &Config, clock: &Arc<dyn Clock>) -> Result<Self> {
        let dir = &config.data_dir;
        let queues = storage::queue::open(config.queue.clone(), Arc::clone(clock))
            .await
            .with_context(|| format!("failed to open the queue below `{}`", dir.display()))?;
        let catalog = storage::catalog::open(CatalogConfig::Sqlite { file: dir.join("catalog.db") })
            .await
            .with_context(|| format!("failed to open the catalog `{}`", dir.join("catalog.db").display()))?;
        let events = storage::events::open(EventStoreConfig::Sqlite { dir: dir.join("events") })
            .await
            .with_context(|| format!("failed to open the event store `{}`", dir.join("events").display()))?;
        let coordination = storage::coordination::open(CoordinationConfig::Local { file: dir.join("state.db") })
            .await
            .with_context(|| format!("failed to open the shared state `{}`", dir.join("state.db").display()))?;
        let mut opened = Vec::new();
        for channel in &config.channels {
            let name = channel.0.name().to_owned();
            opened.push(
                channels::open(channel.0.clone()).with_context(|| format!("failed to open the channel `{name}`"))?,
            );
        }
        let metrics = Metrics::new();
        metrics.process_start_time.set(clock.now().micros() as f64 / 1e6);
        let live = Live::new(config.live.clone());
        let health = Health::default();
        for part in ["queue", "catalog", "events", "coordination", "channel"] {
            health.ok(part);
        }
        let rulebook = Rulebook::new(Arc::clone(&catalog), Arc::clone(&metrics));
        load_rule_files(&rulebook, &config.rule_paths).await;
        rulebook.reload().await.context("failed to load the rules")?;
        let outbox = Outbox::new(
            &queues,
            Arc::clone(&catalog),
            live.clone(),
            !opened.is_empty(),
            Arc::clone(clock),
            Arc::clone(&metrics),
        );
        Ok(Self {
            queues,
            catalog,
            events,
            coordination,
            channels: opened,
            rulebook,
            outbox,
            live,
            rejects: Arc::new(RejectLog::new(REJECT_SAMPLES)),
            metrics,
            health,
            clock: Arc::clone(clock),
        })
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
    tracing::info!(rules = found.rules.len(), files = found.files, "rule files read");
    rulebook.set_file_rules(rule_files::as_rules(&found.rules));
}
