//! What a running process does beside its work: figures for `/metrics`, live settings, health of the
//! stores.

use crate::host;
use pipeline::Live;
use pipeline::accept::{Acceptor, QUEUE_WRITES};
use pipeline::metrics::{Metrics, labels};
use runtime::{Health, Stop};
use std::sync::Arc;
use std::time::Duration;
use storage::StorageResult;
use storage::catalog::Catalog;
use storage::coordination::Coordination;
use storage::queue::{QueueName, Queues};

/// The claim by which it is found out that coordination takes writes again, and how long one is kept.
const PROBE: &str = "health";
const PROBE_KEPT: Duration = Duration::from_millis(100);

/// What the chores look at.
#[derive(Clone)]
pub struct Chores {
    pub queues: Queues,
    pub catalog: Arc<dyn Catalog>,
    pub coordination: Arc<dyn Coordination>,
    pub acceptor: Arc<Acceptor>,
    pub live: Live,
    pub metrics: Arc<Metrics>,
    pub health: Health,
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
                // What can be read may still refuse to be written.
                if self.is_red("coordination") {
                    match self.coordination.claim(PROBE, PROBE_KEPT).await {
                        Ok(true) => self.health.ok("coordination"),
                        // Another process is writing there; this one asks again.
                        Ok(false) => {}
                        Err(error) => self.health.failed("coordination", error.to_string()),
                    }
                } else {
                    self.health.ok("coordination");
                }
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
}
