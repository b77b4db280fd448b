//! What several workers must agree on: shared limits, the breaker, unhandled counters, rates, live
//! settings.
//!
//! Promises of every driver (`contract.rs` checks them):
//! * A sliding window never grants more than its limit in any window, whoever asks, also across a
//!   restart of one asker.
//! * Counting an unhandled event twice (same event id) counts it once, and asking again about the
//!   event that triggered answers "triggered" again: a batch may be worked twice.
//! * Live settings are seen by every worker within a second, and what somebody else has changed
//!   meanwhile is not replaced.
//!
//! To add a driver: a file beside this one, a variant in [`CoordinationConfig`], an arm in [`open`].

mod breaker;
#[cfg(feature = "contract")]
pub mod contract;
mod local;
mod redis;
mod window;

pub use breaker::{Admission, BreakerMachine, BreakerSettings, BreakerState, BreakerView};
pub use redis::{RedisClock, RedisCoordinationConfig};

use crate::sqlite::blocking;
use crate::{StorageError, StorageResult};
use async_trait::async_trait;
use model::{ErrorKind, EventId, OrgId, Timestamp};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// At most `max` grants in any `window`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    pub max: u32,
    pub window: Duration,
}

/// Answer of the shared limiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// How many of the wanted units were granted, 0 to `want`.
    pub granted: u32,
    /// When not all were granted: after this time at least one more will be.
    pub retry_after: Option<Duration>,
}

/// One unhandled event, by where it came from and what it looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnhandledEvent {
    pub org: OrgId,
    pub host: String,
    /// Fingerprint of the message template, 16 hex digits.
    pub shape: String,
    pub event_id: EventId,
}

/// When unhandled events become a meta-alert (contract mutt §3.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnhandledPolicy {
    /// Reaching or passing this count triggers, once per expiry; 0 counts as 1.
    pub threshold: u64,
    /// A counter is forgotten this time after its first event, a trigger after itself.
    pub expiry: Duration,
    /// Most counters kept; the least recently seen are dropped and counted.
    pub keys_max: usize,
}

/// Unit of the rate counters (contract mutt §2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RateUnit {
    Minute,
    Hour,
    Day,
}

impl RateUnit {
    pub const ALL: [Self; 3] = [Self::Minute, Self::Hour, Self::Day];

    pub const fn seconds(self) -> i64 {
        match self {
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
        }
    }
    /// How long a counter is kept, seconds: 2 h, 2 days, 30 days.
    pub const fn kept_seconds(self) -> i64 {
        match self {
            Self::Minute => 7_200,
            Self::Hour => 172_800,
            Self::Day => 2_592_000,
        }
    }
}

#[async_trait]
pub trait Coordination: Send + Sync + 'static {
    /// Asks the shared sliding window `name` for `want` units. What was granted is spent.
    async fn acquire(&self, name: &str, want: u32, limit: RateLimit, now: Timestamp) -> StorageResult<Grant>;

    /// As [`Self::acquire`], but grants all that is wanted or nothing: what cannot be used must not be
    /// spent.
    async fn acquire_all(&self, name: &str, want: u32, limit: RateLimit, now: Timestamp) -> StorageResult<Grant>;

    /// Whether this process may work on `name`: one process at a time, until `keep` has passed since
    /// it last claimed it. Asking again prolongs the claim.
    async fn claim(&self, name: &str, keep: Duration) -> StorageResult<bool>;

    /// Gives a claim of this process back before it has run out.
    async fn release(&self, name: &str) -> StorageResult<()>;

    /// May a call go out through the breaker `name`? While half open, one caller at a time may.
    async fn breaker_admit(&self, name: &str, settings: BreakerSettings, now: Timestamp) -> StorageResult<Admission>;

    /// Reports how an admitted call ended. Returns the state before and after.
    async fn breaker_report(
        &self,
        name: &str,
        success: bool,
        settings: BreakerSettings,
        now: Timestamp,
    ) -> StorageResult<(BreakerState, BreakerView)>;

    /// Looks without changing anything.
    async fn breaker_view(&self, name: &str, settings: BreakerSettings, now: Timestamp) -> StorageResult<BreakerView>;

    /// Moves an open breaker to half open now (remediation saw the destination answer).
    async fn breaker_half_open(&self, name: &str, now: Timestamp) -> StorageResult<()>;

    /// Counts unhandled events; returns the indexes into `events` that reach the threshold. Durable.
    async fn observe_unhandled(
        &self,
        events: Vec<UnhandledEvent>,
        policy: UnhandledPolicy,
        now: Timestamp,
    ) -> StorageResult<Vec<usize>>;

    /// How many unhandled counters were dropped since the start because there were too many.
    fn unhandled_evictions(&self) -> u64 {
        0
    }

    /// Adds `n` accepted events to the rate counters of this moment. May be buffered for a second.
    async fn count_accepted(&self, n: u64, now: Timestamp) -> StorageResult<()>;

    /// Rate counters by start of their unit, from the unit that holds `from` to before `to`, oldest
    /// first.
    async fn accepted(&self, unit: RateUnit, from: Timestamp, to: Timestamp) -> StorageResult<Vec<(Timestamp, u64)>>;

    /// All live settings (contract mutt §8.2).
    async fn settings(&self) -> StorageResult<BTreeMap<String, String>>;

    /// Sets a live setting; returns the value before.
    async fn set_setting(&self, key: &str, value: &str) -> StorageResult<Option<String>>;

    /// Removes a live setting, so that the configured value counts again; returns the value before.
    async fn delete_setting(&self, key: &str) -> StorageResult<Option<String>>;

    /// Makes a live setting `new` if it is `old` (`None`: not set), in one step; `Conflict` if it is
    /// neither: then it stays as it is.
    async fn replace_setting(&self, key: &str, old: Option<&str>, new: Option<&str>) -> StorageResult<()>;
}

/// Which driver coordinates.
#[derive(Debug, Clone)]
pub enum CoordinationConfig {
    /// One process: memory, with what must survive in `file` (SQLite).
    Local { file: PathBuf },
    /// Several processes, through Redis.
    Redis(Box<RedisCoordinationConfig>),
}

/// What [`Coordination::replace_setting`] says of a setting that is not as it was expected.
fn changed_meanwhile() -> StorageError {
    StorageError::new(ErrorKind::Conflict, "somebody else has changed this setting meanwhile")
}

pub async fn open(config: CoordinationConfig) -> StorageResult<Arc<dyn Coordination>> {
    match config {
        CoordinationConfig::Local { file } => {
            let driver = blocking(move || local::Local::open(&file)).await?;
            Ok(Arc::new(driver))
        }
        CoordinationConfig::Redis(config) => Ok(Arc::new(redis::RedisCoordination::open(*config).await?)),
    }
}
