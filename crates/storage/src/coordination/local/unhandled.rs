//! Counters of unhandled events (contract mutt §3.7). Memory holds them all; the file follows in the
//! transaction in which the events become "counted", and memory changes only when it is through.

use super::applied::{Applied, Pending};
use crate::StorageResult;
use crate::coordination::{UnhandledEvent, UnhandledPolicy};
use model::{EventId, Timestamp};
use rusqlite::{Connection, TransactionBehavior, params};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// Expired counters that one call removes.
const SWEEP_MAX: usize = 1_000;
const LOG_EVERY: Duration = Duration::from_secs(60);

/// `org \0 shape \0 host`: neither of the first two can hold a NUL.
type CounterKey = Arc<str>;

#[derive(Default)]
pub(super) struct Unhandled {
    counters: HashMap<CounterKey, Counter>,
    /// When last seen → counter; the order of eviction.
    order: BTreeMap<u64, CounterKey>,
    clock: u64,
    applied: Applied,
    evictions: u64,
    evictions_logged: u64,
    logged_at: Timestamp,
}

#[derive(Debug, Clone, Copy)]
struct Counter {
    count: u64,
    first_at: Timestamp,
    expires_at: Timestamp,
    triggered: Option<(EventId, Timestamp)>,
    seen: u64,
}

/// The counters a call touches, in the order of first touch.
#[derive(Default)]
struct Touched {
    at: HashMap<CounterKey, usize>,
    counters: Vec<(CounterKey, Counter)>,
}

impl Unhandled {
    pub fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let mut unhandled = Self { applied: Applied::load(connection)?, ..Self::default() };
        let mut statement = connection.prepare(
            "SELECT org, host, shape, count, first_at, expires_at, triggered_event, triggered_at FROM unhandled \
             ORDER BY seen",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let mut name = String::new();
            write_key(&mut name, row.get_ref(0)?.as_str()?, row.get_ref(2)?.as_str()?, row.get_ref(1)?.as_str()?);
            let event: Option<[u8; 16]> = row.get(6)?;
            let at: Option<i64> = row.get(7)?;
            let counter = Counter {
                count: row.get::<_, i64>(3)?.unsigned_abs(),
                first_at: Timestamp::from_micros(row.get(4)?),
                expires_at: Timestamp::from_micros(row.get(5)?),
                triggered: event
                    .zip(at)
                    .map(|(id, at)| (EventId::from_u128(u128::from_be_bytes(id)), Timestamp::from_micros(at))),
                seen: 0,
            };
            unhandled.put(name.into(), counter);
        }
        Ok(unhandled)
    }

    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Counts `events` durably; returns the indexes of those that trigger, or did before.
    pub fn observe(
        &mut self,
        connection: &mut Connection,
        events: &[UnhandledEvent],
        policy: UnhandledPolicy,
        now: Timestamp,
    ) -> StorageResult<Vec<usize>> {
        let (mut pending, mut touched, mut triggers) = (Pending::default(), Touched::default(), Vec::new());
        let mut name = String::new();
        let mut is_changed = false;
        for (index, event) in events.iter().enumerate() {
            write_key(&mut name, event.org.as_str(), &event.shape, &event.host);
            if !self.applied.insert(&mut pending, event.event_id) {
                let counter = touched.get(&name).or_else(|| self.counters.get(name.as_str()));
                if counter.and_then(|c| c.triggered).is_some_and(|(by, _)| by == event.event_id) {
                    triggers.push(index);
                }
                continue;
            }
            is_changed = true;
            let counter = touched.get_or_insert(&name, || self.current(&name, policy, now));
            if counter.triggered.is_none() {
                counter.count += 1;
                if counter.count >= policy.threshold.max(1) {
                    counter.triggered = Some((event.event_id, now));
                    counter.expires_at = now.plus(policy.expiry);
                    triggers.push(index);
                }
            }
        }
        if is_changed {
            self.save(connection, pending, touched, policy, now)?;
            self.log_evictions(now);
        }
        Ok(triggers)
    }

    /// The counter as it stands at `now`: a new one when there is none or it has expired.
    fn current(&self, name: &str, policy: UnhandledPolicy, now: Timestamp) -> (CounterKey, Counter) {
        let expires_at = now.plus(policy.expiry);
        match self.counters.get_key_value(name) {
            // After a step back of the clock, or with a shorter expiry, it must not outlive the policy.
            Some((key, c)) if now < c.expires_at => {
                (Arc::clone(key), Counter { expires_at: c.expires_at.min(expires_at), ..*c })
            }
            known => {
                let key = known.map_or_else(|| name.into(), |(key, _)| Arc::clone(key));
                (key, Counter { count: 0, first_at: now, expires_at, triggered: None, seen: 0 })
            }
        }
    }

    fn save(
        &mut self,
        connection: &mut Connection,
        pending: Pending,
        mut touched: Touched,
        policy: UnhandledPolicy,
        now: Timestamp,
    ) -> StorageResult<()> {
        let kept_max = policy.keys_max.max(1);
        // More counters in one call than may be kept at all: the first of them go at once.
        let surplus = touched.counters.len().saturating_sub(kept_max);
        let surplus_keys: Vec<CounterKey> = touched.counters.drain(..surplus).map(|(key, _)| key).collect();
        let new = touched.counters.iter().filter(|(key, _)| !self.counters.contains_key(key)).count();
        let untouched = || self.order.values().filter(|key| !touched.at.contains_key(*key));
        let is_expired = |key: &CounterKey| self.counters.get(key).is_none_or(|c| now >= c.expires_at);
        let mut gone: Vec<CounterKey> =
            untouched().take_while(|key| is_expired(key)).take(SWEEP_MAX).cloned().collect();
        let swept = gone.len();
        gone.extend(surplus_keys.iter().filter(|key| self.counters.contains_key(*key)).cloned());
        let excess = (self.counters.len() + new).saturating_sub(gone.len()).saturating_sub(kept_max);
        gone.extend(untouched().skip(swept).take(excess).cloned());
        let evicted = surplus + excess;

        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut delete =
                transaction.prepare_cached("DELETE FROM unhandled WHERE org = ? AND host = ? AND shape = ?")?;
            for key in &gone {
                let (org, shape, host) = parts(key);
                delete.execute([org, host, shape])?;
            }
            let mut upsert = transaction.prepare_cached(
                "INSERT INTO unhandled (org, host, shape, count, first_at, expires_at, seen, triggered_event, \
                 triggered_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (org, host, shape) DO UPDATE SET \
                 count = excluded.count, first_at = excluded.first_at, expires_at = excluded.expires_at, \
                 seen = excluded.seen, triggered_event = excluded.triggered_event, \
                 triggered_at = excluded.triggered_at",
            )?;
            for ((key, c), seen) in touched.counters.iter().zip(self.clock + 1..) {
                // A counter that has triggered only waits for its expiry: the row need not follow when it was
                // last seen, whose order is for eviction and may be a little old after a restart.
                let unchanged = |kept: &Counter| (kept.triggered, kept.expires_at) == (c.triggered, c.expires_at);
                if c.triggered.is_some() && self.counters.get(key).is_some_and(unchanged) {
                    continue;
                }
                let (org, shape, host) = parts(key);
                upsert.execute(params![
                    org,
                    host,
                    shape,
                    c.count as i64,
                    c.first_at.micros(),
                    c.expires_at.micros(),
                    seen as i64,
                    c.triggered.map(|(event, _)| event.to_u128().to_be_bytes()),
                    c.triggered.map(|(_, at)| at.micros()),
                ])?;
            }
        }
        let applied = self.applied.save(&transaction, pending)?;
        transaction.commit()?;

        self.applied.apply(applied);
        for key in gone {
            if let Some(counter) = self.counters.remove(&key) {
                self.order.remove(&counter.seen);
            }
        }
        for (key, counter) in touched.counters {
            self.put(key, counter);
        }
        self.evictions += evicted as u64;
        Ok(())
    }

    fn put(&mut self, key: CounterKey, counter: Counter) {
        self.clock += 1;
        let counter = Counter { seen: self.clock, ..counter };
        if let Some(old) = self.counters.insert(Arc::clone(&key), counter) {
            self.order.remove(&old.seen);
        }
        self.order.insert(self.clock, key);
    }

    fn log_evictions(&mut self, now: Timestamp) {
        let new = self.evictions - self.evictions_logged;
        if new > 0 && (now.since(self.logged_at) >= LOG_EVERY || now < self.logged_at) {
            tracing::warn!(
                counters = new,
                kept = self.counters.len(),
                "counters of unhandled events were dropped: more hosts and shapes than may be kept"
            );
            self.evictions_logged = self.evictions;
            self.logged_at = now;
        }
    }
}

impl Touched {
    fn get(&self, name: &str) -> Option<&Counter> {
        self.at.get(name).map(|at| &self.counters[*at].1)
    }

    fn get_or_insert(&mut self, name: &str, make: impl FnOnce() -> (CounterKey, Counter)) -> &mut Counter {
        let at = match self.at.get(name) {
            Some(at) => *at,
            None => {
                let (key, counter) = make();
                self.at.insert(Arc::clone(&key), self.counters.len());
                self.counters.push((key, counter));
                self.counters.len() - 1
            }
        };
        &mut self.counters[at].1
    }
}

fn write_key(name: &mut String, org: &str, shape: &str, host: &str) {
    name.clear();
    for part in [org, "\0", shape, "\0", host] {
        name.push_str(part);
    }
}

/// (org, shape, host).
fn parts(key: &str) -> (&str, &str, &str) {
    let (org, rest) = key.split_once('\0').unwrap_or((key, ""));
    let (shape, host) = rest.split_once('\0').unwrap_or((rest, ""));
    (org, shape, host)
}
