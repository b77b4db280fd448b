//! Accept: from an input's hands into the durable queue, with an id.

use crate::codec::encode_event;
use crate::live::Live;
use crate::metrics::Metrics;
use crate::rejects::RejectLog;
use async_trait::async_trait;
use connectors::inputs::{Accepted, NewEvent, Refused, Reject, Sink};
use model::{Durability, ErrorKind, EventIdSource, InputKind, RejectReason};
use runtime::{Clock, Health};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use storage::StorageError;
use storage::coordination::Coordination;
use storage::queue::{Queue, QueueName, Queues};

/// The part of this process's health that is red while the ingest queue cannot be written to, for
/// another reason than its bound.
pub const QUEUE_WRITES: &str = "queue_writes";

/// Implements [`Sink`] over the ingest queue.
pub struct Acceptor {
    queue: Arc<dyn Queue>,
    coordination: Arc<dyn Coordination>,
    live: Live,
    ids: EventIdSource,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    rejects: Arc<RejectLog>,
    health: Health,
    /// The last write failed, so the next that works must be told.
    failing: AtomicBool,
    /// The ingest limit could not be asked the last time.
    unlimited: AtomicBool,
    /// Queue depth as last seen; refreshed with each batch and by [`Self::refresh_depth`].
    depth: AtomicU64,
}

impl Acceptor {
    #[expect(clippy::too_many_arguments, reason = "each is one shared part; a struct would only repeat the names")]
    /// `run` is a random number naming this run of the process (see [`model::EventId`]).
    pub fn new(
        queues: &Queues,
        coordination: Arc<dyn Coordination>,
        live: Live,
        run: u32,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        rejects: Arc<RejectLog>,
        health: Health,
    ) -> Self {
        Self {
            queue: Arc::clone(queues.get(QueueName::Ingest)),
            coordination,
            live,
            ids: EventIdSource::new(run),
            clock,
            metrics,
            rejects,
            health,
            failing: AtomicBool::new(false),
            unlimited: AtomicBool::new(false),
            depth: AtomicU64::new(0),
        }
    }

    /// Looks at the queue's depth; called a few times a second.
    pub async fn refresh_depth(&self) {
        if let Ok(stats) = self.queue.stats().await {
            self.depth.store(stats.depth, Ordering::Relaxed);
            self.metrics.ingest_queue_depth.set(i64::try_from(stats.depth).unwrap_or(i64::MAX));
        }
    }

    fn limit(&self) -> u64 {
        self.live.get().ingest_records_max
    }

    fn refused(&self, error: &StorageError) -> Refused {
        let reason = match error.kind() {
            ErrorKind::Full => RejectReason::QueueFull,
            ErrorKind::Invalid => RejectReason::TooLarge,
            ErrorKind::NotFound
            | ErrorKind::Conflict
            | ErrorKind::Unavailable
            | ErrorKind::Timeout
            | ErrorKind::Denied
            | ErrorKind::Internal => RejectReason::StorageFailed,
        };
        Refused {
            reason,
            retry_after: error.retry_after.unwrap_or(Duration::from_secs(1)),
            queue_depth: self.depth.load(Ordering::Relaxed),
            queue_limit: self.limit(),
        }
    }
}

#[async_trait]
impl Sink for Acceptor {
    async fn admit(&self, n: u32, of: u32) -> Result<(), Refused> {
        let Some(limit) = self.live.get().ingest_limit else { return Ok(()) };
        let reason = if of > limit.max { RejectReason::TooLarge } else { RejectReason::RateLimited };
        let refused = |retry_after| Refused {
            reason,
            retry_after,
            queue_depth: self.depth.load(Ordering::Relaxed),
            queue_limit: self.limit(),
        };
        let asked = self.coordination.acquire_all("ingestor", n, limit, self.clock.now()).await;
        if asked.is_ok() && self.unlimited.swap(false, Ordering::Relaxed) {
            tracing::info!("the ingest limit is kept again");
        }
        match asked {
            Ok(grant) if grant.granted >= n => Ok(()),
            Ok(grant) => Err(refused(grant.retry_after.unwrap_or(limit.window))),
            Err(error) => {
                // The limit protects; it must not be what loses events when its store is away.
                if !self.unlimited.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "the ingest limit cannot be asked; letting events in");
                }
                Ok(())
            }
        }
    }

    fn room(&self) -> Result<(), Refused> {
        let (depth, limit) = (self.depth.load(Ordering::Relaxed), self.limit());
        if depth < limit {
            return Ok(());
        }
        Err(Refused {
            reason: RejectReason::QueueFull,
            retry_after: Duration::from_secs(1),
            queue_depth: depth,
            queue_limit: limit,
        })
    }

    async fn accept(&self, batch: Vec<NewEvent>, durability: Durability) -> Result<Accepted, Refused> {
        let now = self.clock.now();
        let mut ids = Vec::with_capacity(batch.len());
        let mut records = Vec::with_capacity(batch.len());
        let mut inputs: BTreeMap<InputKind, u64> = BTreeMap::new();
        for event in &batch {
            let id = event.id.unwrap_or_else(|| self.ids.next(now));
            records.push(encode_event(event, id));
            ids.push(id);
            *inputs.entry(event.input).or_default() += 1;
        }
        let count = ids.len() as u64;
        let limit = self.limit();
        let before = self.depth.fetch_add(count, Ordering::Relaxed);
        let result = if count > limit {
            Err(StorageError::new(ErrorKind::Invalid, "a batch larger than the ingest queue"))
        } else if before + count > limit {
            let mut full = StorageError::new(ErrorKind::Full, "the ingest queue is full");
            full.retry_after = Some(Duration::from_secs(1));
            Err(full)
        } else {
            self.queue.publish(records, durability).await
        };
        if let Err(error) = result {
            self.depth.fetch_sub(count.min(self.depth.load(Ordering::Relaxed)), Ordering::Relaxed);
            if !matches!(error.kind(), ErrorKind::Full | ErrorKind::Invalid) {
                // Not a bound: the disk, the log, or Redis. Said once by the health, not per event.
                self.failing.store(true, Ordering::Relaxed);
                self.health.failed(QUEUE_WRITES, error.to_string());
            }
            return Err(self.refused(&error));
        }
        if self.failing.swap(false, Ordering::Relaxed) {
            self.health.ok(QUEUE_WRITES);
        }
        for (input, n) in inputs {
            self.metrics.count_accepted(input, n);
        }
        if let Err(error) = self.coordination.count_accepted(count, now).await {
            tracing::debug!(%error, "the rate counters cannot be written");
        }
        Ok(Accepted { ids, queue_depth: before + count })
    }

    fn reject(&self, reject: Reject<'_>) {
        self.metrics.count_rejected(reject.input, reject.reason);
        self.rejects.add(&reject, self.clock.now());
        tracing::debug!(
            input = reject.input.as_str(),
            reason = reject.reason.as_str(),
            detail = reject.detail,
            "refused at the door"
        );
    }

    fn lost(&self, input: InputKind, n: u64) {
        if n > 0 {
            self.metrics
                .events_lost_in_kernel
                .get_or_create(&crate::metrics::labels([("input", input.as_str())]))
                .inc_by(n);
            tracing::warn!(
                input = input.as_str(),
                datagrams = n,
                "the kernel dropped datagrams before they could be read"
            );
        }
    }
}
