//! How many events were accepted, by minute, hour and day.
//!
//! Counted here by minute, sent once a second by a task of the driver's. A portion that may or may
//! not have arrived is sent again under its number, and the script adds each number once: nothing is
//! lost or counted twice while Redis is away. A clean end sends the rest.

use super::{RedisCoordination, RedisCoordinationConfig, lock};
use crate::StorageResult;
use crate::coordination::RateUnit;
use crate::redis::RedisClient;
use model::Timestamp;
use redis::Script;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

static ADD: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("rates.lua")));

pub(super) const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// Longest time that the end of a driver waits for Redis.
const LAST_FLUSH_MAX: Duration = Duration::from_secs(2);
/// Minutes in one portion.
const PORTION_MINUTES_MAX: usize = 100;

/// Counts that are not in Redis yet.
pub(super) struct Rates {
    state: Mutex<State>,
    prefix: String,
    marker: String,
}

#[derive(Default)]
struct State {
    /// Start of the minute in seconds → events.
    waiting: BTreeMap<i64, u64>,
    /// Sent under this number, not known to have arrived.
    sent: Option<(u64, Arc<BTreeMap<i64, u64>>)>,
    last: u64,
    latest: Option<Timestamp>,
}

impl Rates {
    pub fn new(config: &RedisCoordinationConfig, id: &str) -> Self {
        let prefix = config.metrics_prefix.clone();
        Self { state: Mutex::default(), marker: format!("{prefix}_flushed:{id}"), prefix }
    }

    pub fn count(&self, n: u64, now: Timestamp) {
        let mut state = lock(&self.state);
        let minute = start_of(RateUnit::Minute, now);
        if n > 0 {
            *state.waiting.entry(minute).or_default() += n;
        }
        state.latest = state.latest.max(Some(now));
        // Away for longer than any counter is kept: the oldest would be forgotten there too.
        while state.waiting.first_key_value().is_some_and(|(m, _)| *m < minute - RateUnit::Day.kept_seconds()) {
            state.waiting.pop_first();
        }
    }

    pub fn is_empty(&self) -> bool {
        let state = lock(&self.state);
        state.waiting.is_empty() && state.sent.is_none()
    }

    /// Sends all that waits.
    pub async fn flush(&self, client: &RedisClient) -> StorageResult<()> {
        while let Some((number, minutes)) = self.portion() {
            let mut script = ADD.prepare_invoke();
            script.key(&self.marker).arg(number);
            for ((unit, start), n) in by_unit(&minutes) {
                script.arg(self.key(unit, start)).arg(n).arg(unit.kept_seconds());
            }
            let failed: u64 = client.script(&script).await?;
            if failed > 0 {
                tracing::error!(
                    counters = failed,
                    prefix = self.prefix,
                    "rate counters could not be added to: their keys hold something that is no number"
                );
            }
            let mut state = lock(&self.state);
            if state.sent.as_ref().is_some_and(|(sent, _)| *sent == number) {
                state.sent = None;
            }
        }
        Ok(())
    }

    fn portion(&self) -> Option<(u64, Arc<BTreeMap<i64, u64>>)> {
        let mut state = lock(&self.state);
        if state.sent.is_none() && !state.waiting.is_empty() {
            let mut minutes = BTreeMap::new();
            while minutes.len() < PORTION_MINUTES_MAX
                && let Some((minute, n)) = state.waiting.pop_first()
            {
                minutes.insert(minute, n);
            }
            state.last += 1;
            state.sent = Some((state.last, Arc::new(minutes)));
        }
        state.sent.clone()
    }

    /// Flushes once a second for ever; the driver ends it.
    pub async fn keep_flushing(self: Arc<Self>, client: RedisClient) {
        let mut is_failing = false;
        loop {
            tokio::time::sleep(FLUSH_EVERY).await;
            let flushed = self.flush(&client).await;
            if let (Err(error), false) = (&flushed, is_failing) {
                tracing::warn!(%error, "rate counters wait: they cannot be sent now");
            }
            is_failing = flushed.is_err();
        }
    }

    /// Sends the rest at the end. On a thread with a connection of its own, since whoever drops a
    /// driver cannot wait in its runtime.
    pub fn flush_last(self: &Arc<Self>, config: &RedisCoordinationConfig) {
        if self.is_empty() {
            return;
        }
        let (rates, config) = (Arc::clone(self), config.redis.clone());
        let work = move || -> StorageResult<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| {
                crate::StorageError::with_source(model::ErrorKind::Internal, "a runtime for the last flush", e)
            })?;
            let flush = async {
                let client = RedisClient::connect(&config).await?;
                rates.flush(&client).await
            };
            runtime.block_on(async { tokio::time::timeout(LAST_FLUSH_MAX, flush).await }).unwrap_or_else(|_| {
                Err(crate::StorageError::new(model::ErrorKind::Timeout, "Redis does not take the last rate counters"))
            })
        };
        match std::thread::spawn(work).join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the last rate counters are lost"),
            Err(_) => tracing::error!("the last rate counters are lost: the thread that sends them panicked"),
        }
    }

    /// The contract's name (mutt §2.5), UTC.
    fn key(&self, unit: RateUnit, start: i64) -> String {
        let time = Timestamp::from_secs(start).rfc3339();
        let (word, chars) = match unit {
            RateUnit::Minute => ("1m", 16),
            RateUnit::Hour => ("1h", 13),
            RateUnit::Day => ("24h", 10),
        };
        format!("{}:{word}:{}", self.prefix, &time[..chars])
    }
}

impl RedisCoordination {
    pub(super) async fn rates_between(
        &self,
        unit: RateUnit,
        from: Timestamp,
        to: Timestamp,
    ) -> StorageResult<Vec<(Timestamp, u64)>> {
        self.rates.flush(&self.client).await?;
        // Nothing older is kept, and nothing newer than a clock a day ahead can have been counted:
        // so the keys to read are few, whatever is asked.
        let (server, _): (i64, i64) = self.client.query(&redis::cmd("TIME")).await?;
        let latest = lock(&self.rates.state).latest.unwrap_or(to);
        let now = self.shared_time(server.saturating_mul(1_000_000), latest).secs();
        let step = unit.seconds();
        let kept_from = start_of(unit, Timestamp::from_secs(now - unit.kept_seconds() - 1));
        let first = start_of(unit, from).max(kept_from);
        let end = to.secs().saturating_add(i64::from(to.micros().rem_euclid(1_000_000) > 0)).min(now + 86_400);
        let starts: Vec<i64> = (first..end).step_by(usize::try_from(step).unwrap_or(1)).collect();
        if starts.is_empty() {
            return Ok(Vec::new());
        }
        let mut command = redis::cmd("MGET");
        for start in &starts {
            command.arg(self.rates.key(unit, *start));
        }
        let values: Vec<Option<Vec<u8>>> = self.client.query(&command).await?;
        let number = |value: Option<Vec<u8>>| std::str::from_utf8(&value?).ok()?.parse::<u64>().ok();
        let counted = starts.into_iter().zip(values).filter_map(|(start, value)| Some((start, number(value)?)));
        Ok(counted.map(|(start, n)| (Timestamp::from_secs(start), n)).collect())
    }
}

fn by_unit(minutes: &BTreeMap<i64, u64>) -> BTreeMap<(RateUnit, i64), u64> {
    let mut sums = BTreeMap::new();
    for (minute, n) in minutes {
        for unit in RateUnit::ALL {
            *sums.entry((unit, start_of(unit, Timestamp::from_secs(*minute)))).or_default() += n;
        }
    }
    sums
}

fn start_of(unit: RateUnit, time: Timestamp) -> i64 {
    time.secs().div_euclid(unit.seconds()) * unit.seconds()
}
