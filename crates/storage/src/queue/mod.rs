//! Queues: records go in durably, come out leased, and leave only when settled.
//!
//! Promises of every driver (`contract.rs` checks them):
//! * `publish` returning `Ok` means what the asked [`Durability`] says; `Err` means no record of
//!   the batch will be delivered on behalf of this call (a record whose fate is unknown after a
//!   failing disk may appear once more; consumers are idempotent by event id).
//! * A record is held by one consumer at a time. Settled records never come back; unsettled ones do,
//!   after their lease or after a restart. Settling late, after the lease ran out, is harmless.
//! * A full queue says `Full` and never grows past its bound.
//! * A rejected record is in the queue's dead letters, with its reason, before it leaves.
//! * A broken record is put aside and counted, and never blocks start-up.
//! * No order is promised across redelivery; otherwise first in, first out.
//!
//! To add a driver: a file beside this one, a variant in [`QueueConfig`] and an arm in [`open`],
//! and `storage/tests/queue_<name>.rs` calling `contract::run`. The smallest to imitate is
//! `memory.rs`.

#[cfg(feature = "contract")]
pub mod contract;
mod dead_letter;
mod embedded;
mod journal;
mod lease;
mod leased;
mod memory;
mod redis;

pub use dead_letter::{decode_dead_letter, encode_dead_letter, is_enveloped};
pub use redis::{ForeignIds, RedisQueueConfig, RedisQueueKeys};

use crate::{StorageError, StorageResult};
use async_trait::async_trait;
use bytes::Bytes;
pub use model::Durability;
use model::{DeadLetterSide, ErrorKind};
use runtime::Clock;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The queues of the product. Names are the contract's defaults (mutt §8.1); a driver may rename.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum QueueName {
    Ingest,
    Alerts,
    /// Dead letters of the alerter.
    DlqAlerter,
    /// Dead letters of the forwarder.
    DlqForwarder,
    /// Parked for good: only a person takes from here.
    Dead,
}

impl QueueName {
    pub const ALL: [Self; 5] = [Self::Ingest, Self::Alerts, Self::DlqAlerter, Self::DlqForwarder, Self::Dead];
    /// Dead letters before the queues that reject into them.
    pub(crate) const OPEN_ORDER: [Self; 5] =
        [Self::Dead, Self::DlqAlerter, Self::DlqForwarder, Self::Ingest, Self::Alerts];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Alerts => "alerts",
            Self::DlqAlerter => "dlq-alerter",
            Self::DlqForwarder => "dlq-moog",
            Self::Dead => "dead",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|q| q.as_str() == text)
    }

    /// Where this queue's rejected records go.
    pub const fn dead_letters(self) -> Option<(Self, DeadLetterSide)> {
        match self {
            Self::Ingest => Some((Self::DlqAlerter, DeadLetterSide::Alerter)),
            Self::Alerts => Some((Self::DlqForwarder, DeadLetterSide::Forwarder)),
            Self::DlqAlerter | Self::DlqForwarder | Self::Dead => None,
        }
    }
}

/// A leased record. Settle it by value; dropped unsettled, it comes back after its lease.
#[derive(Debug)]
pub struct Delivery {
    pub payload: Bytes,
    /// Earlier tries that failed (`retry_after`), since it was published.
    pub attempts: u32,
    pub(crate) token: Token,
}

/// Driver-private handle of a leased record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    pub seq: u64,
    pub lease: u64,
}

impl Delivery {
    /// Done: never deliver it again.
    pub fn ack(self) -> Settlement {
        Settlement { token: self.token, verdict: Verdict::Ack }
    }
    /// It failed: deliver it again after `delay`, with one attempt more.
    pub fn retry_after(self, delay: Duration) -> Settlement {
        Settlement { token: self.token, verdict: Verdict::Retry(delay) }
    }
    /// It could not be tried yet: deliver it again after `delay`; no attempt is spent.
    pub fn defer(self, delay: Duration) -> Settlement {
        Settlement { token: self.token, verdict: Verdict::Defer(delay) }
    }
    /// It cannot be worked: move it to the dead letters.
    pub fn reject(self, rejection: Rejection) -> Settlement {
        let attempts = self.attempts;
        Settlement { token: self.token, verdict: Verdict::Reject { rejection, attempts, payload: self.payload } }
    }
}

/// Why a record is rejected. See [`model::DeadLetter`] for the fields' meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    pub reason: String,
    pub retryable: bool,
    /// How often remediation has replayed it already (the payload carries it).
    pub replays: u32,
}

/// What became of a delivery; hand it to [`Consumer::settle`].
#[derive(Debug)]
pub struct Settlement {
    pub(crate) token: Token,
    pub(crate) verdict: Verdict,
}

#[derive(Debug)]
pub(crate) enum Verdict {
    Ack,
    Retry(Duration),
    Defer(Duration),
    Reject { rejection: Rejection, attempts: u32, payload: Bytes },
}

/// Figures of a queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Records not settled yet, leased ones included.
    pub depth: u64,
    /// Records leased to a consumer now.
    pub leased: u64,
    /// Records waiting for their retry time.
    pub delayed: u64,
    /// Bytes on disk or in memory.
    pub bytes: u64,
    /// Records put aside because they were broken, since the queue was opened.
    pub quarantined: u64,
    /// Most records that may be unsettled at a time.
    pub limit: u64,
}

/// A record seen without taking it.
#[derive(Debug, Clone)]
pub struct Peeked {
    /// Position in the queue; pass it as `after` to see more.
    pub position: u64,
    pub payload: Bytes,
    pub attempts: u32,
    pub leased: bool,
}

/// One queue. Cheap to clone behind `Arc`; safe to share.
#[async_trait]
pub trait Queue: Send + Sync + 'static {
    /// Adds the whole batch or nothing. `Full` when it does not fit.
    async fn publish(&self, batch: Vec<Bytes>, durability: Durability) -> StorageResult<()>;

    /// A consumer of its own; several share the work.
    fn consumer(&self) -> Box<dyn Consumer>;

    /// Figures of now, without IO where the driver can.
    async fn stats(&self) -> StorageResult<QueueStats>;

    /// Unsettled records after `after` (or from the oldest), oldest first, at most `limit`.
    async fn peek(&self, after: Option<u64>, limit: usize) -> StorageResult<Vec<Peeked>>;

    /// The unsettled records at these positions (from `peek`), as they are now; gone ones are left out.
    async fn find(&self, positions: &[u64]) -> StorageResult<Vec<Peeked>>;

    /// Takes the unsettled, unleased records at these positions (from `peek`) out for good and
    /// returns their payloads: how a person replays or drops a choice of dead letters.
    async fn take(&self, positions: &[u64]) -> StorageResult<Vec<Bytes>>;

    /// Whether a record would be taken now, where that can be found out without publishing one: the
    /// store is written to, and nothing stays there. A bound that is reached is no failure.
    async fn probe(&self) -> StorageResult<()>;

    /// Makes everything published and settled so far durable.
    async fn flush(&self) -> StorageResult<()>;
}

/// Takes records from one queue.
#[async_trait]
pub trait Consumer: Send {
    /// Up to `limit` records, waiting at most `wait` for the first one. Empty after the wait.
    /// Cancel safe: what was leased by a dropped call comes back after its lease.
    async fn next(&mut self, limit: usize, wait: Duration) -> StorageResult<Vec<Delivery>>;

    /// Settles a batch; rejected records are durable in the dead letters when this returns.
    async fn settle(&mut self, batch: Vec<Settlement>) -> StorageResult<()>;
}

/// Which driver keeps the queues, with its bounds.
#[derive(Debug, Clone)]
pub enum QueueConfig {
    /// In memory; for tests and demonstrations. Lost with the process.
    Memory(QueueLimits),
    /// Our write-ahead log under `dir`, one folder a queue. One process at a time.
    Embedded { dir: PathBuf, limits: QueueLimits },
    /// Redis lists under the original's names; any number of processes.
    Redis(Box<RedisQueueConfig>),
}

/// Bounds that every driver keeps.
#[derive(Debug, Clone)]
pub struct QueueLimits {
    /// Most unsettled records in the ingest queue; more are refused with `Full`.
    pub ingest_records_max: u64,
    /// Most unsettled records in each other queue.
    pub other_records_max: u64,
    /// Most bytes of one queue on disk.
    pub bytes_max: u64,
    /// Size of one log segment.
    pub segment_bytes: u64,
    /// Largest record.
    pub record_bytes_max: u32,
    /// How long a consumer may hold a record.
    pub lease: Duration,
    /// `Batched`: longest time between acknowledgement and `fdatasync`.
    pub batched_sync: Duration,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self {
            ingest_records_max: 1_000_000,
            other_records_max: 1_000_000,
            bytes_max: 8 << 30,
            segment_bytes: 64 << 20,
            record_bytes_max: 8 << 20,
            lease: Duration::from_secs(60),
            batched_sync: Duration::from_millis(50),
        }
    }
}

impl QueueLimits {
    pub(crate) fn records_max(&self, name: QueueName) -> u64 {
        match name {
            QueueName::Ingest => self.ingest_records_max,
            QueueName::Alerts | QueueName::DlqAlerter | QueueName::DlqForwarder | QueueName::Dead => {
                self.other_records_max
            }
        }
    }

    pub(crate) fn refuse_oversize(&self, batch: &[Bytes]) -> StorageResult<()> {
        match batch.iter().find(|record| record.len() > self.record_bytes_max as usize) {
            Some(large) => Err(StorageError::new(
                ErrorKind::Invalid,
                format!("a record of {} bytes is over the bound of {} bytes", large.len(), self.record_bytes_max),
            )),
            None => Ok(()),
        }
    }

    pub(crate) fn full(&self, name: QueueName, depth: u64) -> StorageError {
        let most = self.records_max(name);
        let mut full = StorageError::new(
            ErrorKind::Full,
            format!("queue {} holds {depth} of at most {most} records", name.as_str()),
        );
        full.retry_after = Some(Duration::from_secs(1));
        full
    }
}

/// The opened queues.
#[derive(Clone)]
pub struct Queues {
    all: Arc<std::collections::BTreeMap<QueueName, Arc<dyn Queue>>>,
}

impl Queues {
    pub(crate) fn new(all: std::collections::BTreeMap<QueueName, Arc<dyn Queue>>) -> Self {
        Self { all: Arc::new(all) }
    }

    pub fn get(&self, name: QueueName) -> &Arc<dyn Queue> {
        self.all.get(&name).expect("open() opens every queue of QueueName::ALL")
    }
}

/// Opens every queue with the configured driver. Blocking work (recovery) happens on a thread of
/// its own. What recovery had to put aside is logged and counted, never fatal.
pub async fn open(config: QueueConfig, clock: Arc<dyn Clock>) -> StorageResult<Queues> {
    let queues = match config {
        QueueConfig::Memory(limits) => memory::open(&limits, &clock),
        QueueConfig::Embedded { dir, limits } => {
            tokio::task::spawn_blocking(move || embedded::open(&dir, &limits, &clock))
                .await
                .map_err(|e| StorageError::with_source(ErrorKind::Internal, "opening the queues", e))??
        }
        QueueConfig::Redis(config) => redis::open(*config, &clock).await?,
    };
    Ok(queues)
}
