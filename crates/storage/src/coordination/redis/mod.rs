//! Coordination through Redis: what several processes share, under the keys of the contract, so that
//! the original's services and `redis-cli` read the same (docs/redis.md lists every key).
//!
//! Always true:
//! * One clock: the Redis server's, since the clocks of the askers differ.
//! * What is decided from a key and written back to it happens in one script.
//! * Every call may be made again after an error: events, rates and settings are written once.

mod breaker;
mod keys;
mod limits;
mod rates;
mod settings;
mod unhandled;

use super::{
    Admission, BreakerSettings, BreakerState, BreakerView, Coordination, Grant, RateLimit, RateUnit, UnhandledEvent,
    UnhandledPolicy,
};
use crate::redis::RedisClient;
use crate::{RedisConfig, StorageError, StorageResult};
use async_trait::async_trait;
use limits::Wish;
use model::{ErrorKind, Timestamp};
use rates::Rates;
use redis::Script;
use settings::Names;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;

/// Coordination through Redis. The fields named after settings of the contract have its defaults.
#[derive(Debug, Clone)]
pub struct RedisCoordinationConfig {
    pub redis: RedisConfig,
    pub clock: RedisClock,
    /// The channel that has the keys of the contract's forwarder; other channels have keys of their
    /// own name. Default `moogsoft`.
    pub moog_channel: String,
    /// `MOOG_RATE_LIMIT_KEY`, default `mutt:rate_limit:moog`.
    pub moog_rate_limit_key: String,
    /// Default `mutt:rate_limit:ingestor`.
    pub ingest_rate_limit_key: String,
    /// Of the windows of other channels, default `mutt:rate_limit`.
    pub rate_limit_prefix: String,
    /// Default `mutt:circuit_breaker`.
    pub circuit_breaker_prefix: String,
    /// `MOOG_CB_KEY_PREFIX`, default `mutt:circuit:moog`: a second pair of keys for the breaker of
    /// `moog_channel`.
    pub moog_circuit_prefix: String,
    /// `UNHANDLED_PREFIX`, default `mutt:unhandled`.
    pub unhandled_prefix: String,
    /// How long an event that was counted is known as counted: longer than a queue may take to hand
    /// it out again. Default one hour; at least a second.
    pub unhandled_remembered_for: Duration,
    /// `METRICS_PREFIX`, default `mutt:metrics`.
    pub metrics_prefix: String,
    /// Default `mutt:config`.
    pub config_prefix: String,
}

/// Whose clock decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RedisClock {
    /// The Redis server's.
    #[default]
    Server,
    /// The `now` of each call: for tests that pass times of their own.
    Caller,
}

impl RedisCoordinationConfig {
    /// The keys of the contract.
    pub fn new(redis: RedisConfig) -> Self {
        Self {
            redis,
            clock: RedisClock::Server,
            moog_channel: "moogsoft".into(),
            moog_rate_limit_key: "mutt:rate_limit:moog".into(),
            ingest_rate_limit_key: "mutt:rate_limit:ingestor".into(),
            rate_limit_prefix: "mutt:rate_limit".into(),
            circuit_breaker_prefix: "mutt:circuit_breaker".into(),
            moog_circuit_prefix: "mutt:circuit:moog".into(),
            unhandled_prefix: "mutt:unhandled".into(),
            unhandled_remembered_for: Duration::from_secs(3_600),
            metrics_prefix: "mutt:metrics".into(),
            config_prefix: "mutt:config".into(),
        }
    }
}

static CLAIM: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("claim.lua")));
static RELEASE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("release.lua")));

pub(super) struct RedisCoordination {
    client: RedisClient,
    config: RedisCoordinationConfig,
    /// Names this driver among all others.
    id: String,
    next_call: AtomicU64,
    rates: Arc<Rates>,
    names: Arc<Names>,
    evictions: AtomicU64,
    /// How many were logged, and when.
    evictions_logged: Mutex<(u64, Timestamp)>,
    /// Ended when this is dropped.
    _tasks: JoinSet<()>,
}

impl RedisCoordination {
    pub async fn open(config: RedisCoordinationConfig) -> StorageResult<Self> {
        let client = RedisClient::connect(&config.redis).await?;
        let id = getrandom::u64()
            .map_err(|e| StorageError::with_source(ErrorKind::Internal, "no random numbers", e))
            .map(|id| format!("{id:016x}"))?;
        let (rates, names) = (Arc::new(Rates::new(&config, &id)), Arc::new(Names::new(&config)));
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&rates).keep_flushing(client.clone()));
        tasks.spawn(Arc::clone(&names).keep_listening(client.clone()));
        tasks.spawn(Arc::clone(&names).keep_walking(client.clone()));
        Ok(Self {
            client,
            config,
            id,
            next_call: AtomicU64::new(0),
            rates,
            names,
            evictions: AtomicU64::new(0),
            evictions_logged: Mutex::default(),
            _tasks: tasks,
        })
    }

    /// A script's argument: the caller's time in µs, or nothing where the server's counts.
    fn caller_time(&self, now: Timestamp) -> String {
        match self.config.clock {
            RedisClock::Server => String::new(),
            RedisClock::Caller => now.micros().to_string(),
        }
    }

    fn shared_time(&self, server_micros: i64, caller: Timestamp) -> Timestamp {
        match self.config.clock {
            RedisClock::Server => Timestamp::from_micros(server_micros),
            RedisClock::Caller => caller,
        }
    }
}

impl Drop for RedisCoordination {
    fn drop(&mut self) {
        self.rates.flush_last(&self.config);
    }
}

#[async_trait]
impl Coordination for RedisCoordination {
    async fn acquire(&self, name: &str, want: u32, limit: RateLimit, now: Timestamp) -> StorageResult<Grant> {
        self.take(Wish { name, want, whole: false, limit }, now).await
    }

    async fn acquire_all(&self, name: &str, want: u32, limit: RateLimit, now: Timestamp) -> StorageResult<Grant> {
        self.take(Wish { name, want, whole: true, limit }, now).await
    }

    async fn claim(&self, name: &str, keep: Duration) -> StorageResult<bool> {
        let mut call = CLAIM.prepare_invoke();
        call.key(keys::claim(name)).arg(&self.id).arg(keep.as_millis().max(1) as u64);
        self.client.script(&call).await
    }

    async fn release(&self, name: &str) -> StorageResult<()> {
        let mut call = RELEASE.prepare_invoke();
        call.key(keys::claim(name)).arg(&self.id);
        self.client.script(&call).await
    }

    async fn breaker_admit(&self, name: &str, settings: BreakerSettings, now: Timestamp) -> StorageResult<Admission> {
        self.with_breaker(name, Some(settings), now, |machine, now| machine.admit(settings, now)).await
    }

    async fn breaker_report(
        &self,
        name: &str,
        success: bool,
        settings: BreakerSettings,
        now: Timestamp,
    ) -> StorageResult<(BreakerState, BreakerView)> {
        self.with_breaker(name, Some(settings), now, |machine, now| {
            let before = machine.report(success, settings, now);
            (before, machine.view(settings, now))
        })
        .await
    }

    async fn breaker_view(&self, name: &str, settings: BreakerSettings, now: Timestamp) -> StorageResult<BreakerView> {
        self.with_breaker(name, Some(settings), now, |machine, now| machine.view(settings, now)).await
    }

    async fn breaker_half_open(&self, name: &str, now: Timestamp) -> StorageResult<()> {
        self.with_breaker(name, None, now, |machine, now| machine.half_open(now)).await
    }

    async fn observe_unhandled(
        &self,
        events: Vec<UnhandledEvent>,
        policy: UnhandledPolicy,
        now: Timestamp,
    ) -> StorageResult<Vec<usize>> {
        self.observe(&events, policy, now).await
    }

    fn unhandled_evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    async fn count_accepted(&self, n: u64, now: Timestamp) -> StorageResult<()> {
        self.rates.count(n, now);
        Ok(())
    }

    async fn accepted(&self, unit: RateUnit, from: Timestamp, to: Timestamp) -> StorageResult<Vec<(Timestamp, u64)>> {
        self.rates_between(unit, from, to).await
    }

    async fn settings(&self) -> StorageResult<BTreeMap<String, String>> {
        self.read_settings().await
    }

    async fn set_setting(&self, key: &str, value: &str) -> StorageResult<Option<String>> {
        self.write_setting(key, Some(value)).await
    }

    async fn delete_setting(&self, key: &str) -> StorageResult<Option<String>> {
        self.write_setting(key, None).await
    }

    async fn replace_setting(&self, key: &str, old: Option<&str>, new: Option<&str>) -> StorageResult<()> {
        self.exchange_setting(key, old, new).await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
