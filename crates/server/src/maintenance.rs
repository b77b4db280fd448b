//! What a running process does beside its work: figures for `/metrics`, live settings, health of the
//! stores, retention.

use crate::config::RetentionSettings;
use crate::host;
use pipeline::Live;
use pipeline::accept::{Acceptor, QUEUE_WRITES};
use pipeline::metrics::{Metrics, labels};
use runtime::{Clock, Health, Stop};
use std::sync::Arc;
use std::time::Duration;
use storage::StorageResult;
use storage::catalog::{Catalog, Purged};
use storage::coordination::Coordination;
use storage::events::EventStore;
use storage::queue::{QueueName, Queues};

/// What the chores look at.
#[derive(Clone)]
pub struct Chores {
    pub queues: Queues,
    pub catalog: Arc<dyn Catalog>,
    pub events: Arc<dyn EventStore>,
    pub coordination: Arc<dyn Coordination>,
    pub acceptor: Arc<Acceptor>,
    pub live: Live,
    pub metrics: Arc<Metrics>,
    pub health: Health,
    pub clock: Arc<dyn Clock>,
}

fn gauge(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

impl Chores {
    /// Depths, live settings and health, a few times a second.
    pub async fn watch(self, stop: Stop) {
        let mut tick = 0u64;
        let mut complained: Vec<String> = Vec::new();
        while stop.sleep(Duration::from_millis(200)).await {
            self.acceptor.refresh_depth().await;
            tick += 1;
            if tick.is_multiple_of(4) {
                self.settings(&mut complained).await;
            }
            if tick.is_multiple_of(5) {
                self.figures().await;
            }
            if tick.is_multiple_of(25) {
                self.check().await;
            }
        }
    }

    async fn settings(&self, complained: &mut Vec<String>) {
        match self.coordination.settings().await {
            Ok(shared) => {
                let problems = self.live.overlay(&shared);
                if problems != *complained {
                    for problem in &problems {
                        tracing::error!(problem, "a live setting cannot be used; the configured value stays");
                    }
                    *complained = problems;
                }
                self.health.ok("coordination");
            }
            Err(error) => self.health.failed("coordination", error.to_string()),
        }
    }

    async fn figures(&self) {
        for name in QueueName::ALL {
            let stats = match self.queues.get(name).stats().await {
                Ok(stats) => stats,
                Err(error) => {
                    self.health.failed("queue", error.to_string());
                    continue;
                }
            };
            let queue = labels([("queue", name.as_str())]);
            if self.metrics.tells_of(name) {
                self.metrics.queue_depth.get_or_create(&queue).set(gauge(stats.depth));
                self.metrics.queue_bytes.get_or_create(&queue).set(gauge(stats.bytes));
                self.metrics.queue_quarantined.get_or_create(&queue).set(gauge(stats.quarantined));
            }
            match name {
                QueueName::Ingest => {
                    self.metrics.ingest_queue_depth.set(gauge(stats.depth));
                    self.metrics.alerter_processing_list_depth.set(gauge(stats.leased));
                }
                QueueName::Alerts => {
                    self.metrics.alerter_queue_depth.set(gauge(stats.depth));
                    self.metrics.moog_processing_list_depth.set(gauge(stats.leased));
                }
                QueueName::DlqAlerter => {
                    self.metrics.alerter_dlq_depth.set(gauge(stats.depth));
                }
                QueueName::DlqForwarder => {
                    self.metrics.moog_dlq_depth.set(gauge(stats.depth));
                }
                QueueName::Dead => {}
            }
            if matches!(name, QueueName::DlqAlerter | QueueName::DlqForwarder | QueueName::Dead) {
                let dlq = labels([("dlq_name", name.as_str())]);
                self.metrics.remediation_dlq_depth.get_or_create(&dlq).set(gauge(stats.depth));
            }
        }
        host::show(&self.metrics);
    }

    /// Parts that are broken get the chance to show that they work again.
    async fn check(&self) {
        self.report("catalog", self.catalog.ping().await);
        if self.is_red("queue") {
            self.report("queue", self.all_queues_work().await);
        }
        self.report(QUEUE_WRITES, self.ingest_takes_writes().await);
    }

    async fn all_queues_work(&self) -> StorageResult<()> {
        for name in QueueName::ALL {
            self.queues.get(name).flush().await?;
        }
        Ok(())
    }

    /// Asked also while all is well: nobody may be posting just now.
    async fn ingest_takes_writes(&self) -> StorageResult<()> {
        let ingest = self.queues.get(QueueName::Ingest);
        ingest.probe().await?;
        if self.is_red(QUEUE_WRITES) {
            ingest.flush().await?;
        }
        Ok(())
    }

    fn is_red(&self, part: &'static str) -> bool {
        !self.health.broken(&[part]).is_empty()
    }

    fn report(&self, part: &'static str, result: StorageResult<()>) {
        match result {
            Ok(()) => self.health.ok(part),
            Err(error) => self.health.failed(part, error.to_string()),
        }
    }

    /// Drops what is older than it has to be, in small steps, once an hour.
    pub async fn retain(self, settings: RetentionSettings, stop: Stop) {
        for (kind, age) in [("events", settings.events), ("config_audit", settings.config_audit)] {
            let days = gauge(age.as_secs() / 86_400);
            self.metrics.retention_policy_days.get_or_create(&labels([("type", kind)])).set(days);
        }
        let mut wait = Duration::from_secs(60);
        while stop.sleep(wait).await {
            wait = Duration::from_secs(3_600);
            let started = tokio::time::Instant::now();
            if let Err(error) = self.enforce(&settings, &stop).await {
                self.metrics.retention_errors.inc();
                tracing::warn!(%error, "what is older than it has to be could not be dropped; trying again in an hour");
            }
            self.metrics.retention_enforcement_duration.observe(started.elapsed().as_secs_f64());
            self.metrics.retention_last_run.set(self.clock.now().secs());
            self.metrics.retention_cleanup_last_run.set(self.clock.now().secs());
        }
    }

    async fn enforce(&self, settings: &RetentionSettings, stop: &Stop) -> StorageResult<()> {
        const STEP: u64 = 10_000;
        let now = self.clock.now();
        let (events_before, changes_before) = (now.minus(settings.events), now.minus(settings.config_audit));
        let count = |kind, n| {
            self.metrics.retention_cleanup_records_deleted.get_or_create(&labels([("type", kind)])).inc_by(n);
        };
        let days = self.events.drop_before(events_before).await?;
        if days > 0 {
            count("event_days", days as u64);
            tracing::info!(days, "dropped old event partitions");
        }
        // What leaves the log is archived first, where there is an archive.
        loop {
            let archived = self.catalog.archive(events_before, STEP).await?;
            let gone = self.catalog.purge_archive(now.minus(settings.archive), STEP).await?;
            if archived == 0 && gone == 0 {
                break;
            }
            self.metrics.retention_events_archived.inc_by(archived);
            count("archived_events", gone);
            tracing::info!(archived, gone, "archived old audit rows, and dropped those archived for long");
            if !stop.sleep(Duration::from_millis(100)).await {
                return Ok(());
            }
        }
        loop {
            let purged = self.catalog.purge(events_before, changes_before, STEP).await?;
            if purged == Purged::default() {
                return Ok(());
            }
            self.metrics.retention_events_deleted.inc_by(purged.events);
            self.metrics.retention_config_audits_deleted.inc_by(purged.changes);
            count("events", purged.events);
            count("alerts", purged.alerts);
            count("config_audit", purged.changes);
            tracing::info!(
                events = purged.events,
                alerts = purged.alerts,
                changes = purged.changes,
                "dropped old audit rows"
            );
            if !stop.sleep(Duration::from_millis(100)).await {
                return Ok(());
            }
        }
    }
}
