//! Coordination inside one process: memory, and two SQLite files for what must survive it.
//!
//! * `<file>` (durable): settings, rate counters, unhandled counters with the events they counted.
//! * `<file name>-limits.db` beside it (not worth an fsync): grants of the shared windows. A file of
//!   its own, so that a power cut can hurt nothing but it; broken, it is thrown away.
//! * Breakers live in memory: a new process finds out anew whether a destination answers.

mod applied;
mod limits;
mod rates;
mod unhandled;

use super::breaker::BreakerMachine;
use super::{
    Admission, BreakerSettings, BreakerState, BreakerView, Coordination, Grant, RateLimit, RateUnit, UnhandledEvent,
    UnhandledPolicy, changed_meanwhile,
};
use crate::StorageResult;
use crate::sqlite::{Database, Tuning};
use async_trait::async_trait;
use limits::Limits;
use model::Timestamp;
use rates::Rates;
use rusqlite::{OptionalExtension, TransactionBehavior};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;
use unhandled::Unhandled;

const STEPS: [&str; 1] = [include_str!("../../../migrations/sqlite/coordination/0001.sql")];

pub(super) struct Local {
    limits: Limits,
    breakers: Mutex<HashMap<String, BreakerMachine>>,
    unhandled: Arc<Mutex<Unhandled>>,
    rates: Arc<Mutex<Rates>>,
    settings: Arc<RwLock<BTreeMap<String, String>>>,
    database: Database,
}

impl Local {
    pub fn open(file: &Path) -> StorageResult<Self> {
        let mut loaded = None;
        let database = Database::open_with(file, Tuning::default(), &STEPS, |connection| {
            let mut statement = connection.prepare("SELECT key, value FROM settings")?;
            let settings: BTreeMap<String, String> =
                statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
            loaded = Some((settings, Rates::load(connection)?, Unhandled::load(connection)?));
            Ok(())
        })?;
        let (settings, rates, unhandled) = loaded.unwrap_or_default();
        Ok(Self {
            limits: Limits::open(file)?,
            breakers: Mutex::default(),
            unhandled: Arc::new(Mutex::new(unhandled)),
            rates: Arc::new(Mutex::new(rates)),
            settings: Arc::new(RwLock::new(settings)),
            database,
        })
    }

    fn breakers(&self) -> MutexGuard<'_, HashMap<String, BreakerMachine>> {
        lock(&self.breakers)
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // Without this at most the last second of rates is lost; the writer may need a moment.
        for _ in 0..1_000 {
            if rates::flush(&self.rates, &self.database) {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[async_trait]
impl Coordination for Local {
    async fn acquire(&self, name: &str, want: u32, limit: RateLimit, now: Timestamp) -> StorageResult<Grant> {
        Ok(self.limits.acquire(name, want, 0, limit, now).await)
    }

    async fn acquire_all(&self, name: &str, want: u32, limit: RateLimit, now: Timestamp) -> StorageResult<Grant> {
        Ok(self.limits.acquire(name, want, want, limit, now).await)
    }

    /// There is one process.
    async fn claim(&self, _name: &str, _keep: Duration) -> StorageResult<bool> {
        Ok(true)
    }

    async fn release(&self, _name: &str) -> StorageResult<()> {
        Ok(())
    }

    async fn breaker_admit(&self, name: &str, settings: BreakerSettings, now: Timestamp) -> StorageResult<Admission> {
        Ok(self.breakers().entry(name.to_owned()).or_default().admit(settings, now))
    }

    async fn breaker_report(
        &self,
        name: &str,
        success: bool,
        settings: BreakerSettings,
        now: Timestamp,
    ) -> StorageResult<(BreakerState, BreakerView)> {
        let mut breakers = self.breakers();
        let machine = breakers.entry(name.to_owned()).or_default();
        let before = machine.report(success, settings, now);
        Ok((before, machine.view(settings, now)))
    }

    async fn breaker_view(&self, name: &str, settings: BreakerSettings, now: Timestamp) -> StorageResult<BreakerView> {
        Ok(self.breakers().get(name).cloned().unwrap_or_default().view(settings, now))
    }

    async fn breaker_half_open(&self, name: &str, now: Timestamp) -> StorageResult<()> {
        if let Some(machine) = self.breakers().get_mut(name) {
            machine.half_open(now);
        }
        Ok(())
    }

    async fn observe_unhandled(
        &self,
        events: Vec<UnhandledEvent>,
        policy: UnhandledPolicy,
        now: Timestamp,
    ) -> StorageResult<Vec<usize>> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let unhandled = Arc::clone(&self.unhandled);
        self.database.write(move |connection| lock(&unhandled).observe(connection, &events, policy, now)).await
    }

    fn unhandled_evictions(&self) -> u64 {
        lock(&self.unhandled).evictions()
    }

    async fn count_accepted(&self, n: u64, now: Timestamp) -> StorageResult<()> {
        let is_due = lock(&self.rates).count(n, now);
        if is_due {
            rates::flush(&self.rates, &self.database);
        }
        Ok(())
    }

    async fn accepted(&self, unit: RateUnit, from: Timestamp, to: Timestamp) -> StorageResult<Vec<(Timestamp, u64)>> {
        Ok(lock(&self.rates).between(unit, from, to))
    }

    async fn settings(&self) -> StorageResult<BTreeMap<String, String>> {
        Ok(self.settings.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    async fn set_setting(&self, key: &str, value: &str) -> StorageResult<Option<String>> {
        let (key, value) = (key.to_owned(), value.to_owned());
        let cache = Arc::clone(&self.settings);
        self.database
            .write(move |connection| {
                let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let before: Option<String> = transaction
                    .query_row("SELECT value FROM settings WHERE key = ?", [&key], |row| row.get(0))
                    .optional()?;
                transaction.execute(
                    "INSERT INTO settings (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                    [&key, &value],
                )?;
                transaction.commit()?;
                cache.write().unwrap_or_else(PoisonError::into_inner).insert(key, value);
                Ok(before)
            })
            .await
    }

    async fn delete_setting(&self, key: &str) -> StorageResult<Option<String>> {
        let key = key.to_owned();
        let cache = Arc::clone(&self.settings);
        self.database
            .write(move |connection| {
                let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let before: Option<String> = transaction
                    .query_row("SELECT value FROM settings WHERE key = ?", [&key], |row| row.get(0))
                    .optional()?;
                transaction.execute("DELETE FROM settings WHERE key = ?", [&key])?;
                transaction.commit()?;
                cache.write().unwrap_or_else(PoisonError::into_inner).remove(&key);
                Ok(before)
            })
            .await
    }

    async fn replace_setting(&self, key: &str, old: Option<&str>, new: Option<&str>) -> StorageResult<()> {
        let (key, old, new) = (key.to_owned(), old.map(str::to_owned), new.map(str::to_owned));
        let cache = Arc::clone(&self.settings);
        let replaced = self
            .database
            .write(move |connection| {
                let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let now: Option<String> = transaction
                    .query_row("SELECT value FROM settings WHERE key = ?", [&key], |row| row.get(0))
                    .optional()?;
                if now == new {
                    return Ok(true);
                }
                if now != old {
                    return Ok(false);
                }
                match &new {
                    Some(value) => transaction.execute(
                        "INSERT INTO settings (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                        [&key, value],
                    )?,
                    None => transaction.execute("DELETE FROM settings WHERE key = ?", [&key])?,
                };
                transaction.commit()?;
                let mut cache = cache.write().unwrap_or_else(PoisonError::into_inner);
                match new {
                    Some(value) => cache.insert(key, value),
                    None => cache.remove(&key),
                };
                Ok(true)
            })
            .await?;
        if replaced { Ok(()) } else { Err(changed_meanwhile()) }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
