//! How many events were accepted, by minute, hour and day. Memory is the truth while the process
//! runs; what changed goes to the file once a second.

use super::lock;
use crate::coordination::RateUnit;
use crate::sqlite::Database;
use model::Timestamp;
use rusqlite::{Connection, TransactionBehavior, params};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const FLUSH_EVERY: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Rates {
    /// (unit, start in seconds) → events.
    counts: BTreeMap<(RateUnit, i64), u64>,
    /// Not in the file yet.
    dirty: BTreeSet<(RateUnit, i64)>,
    flushed_at: Timestamp,
    now: Timestamp,
}

impl Rates {
    pub fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let mut rates = Self::default();
        let mut statement = connection.prepare("SELECT unit, start, n FROM accepted")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let seconds: i64 = row.get(0)?;
            if let Some(unit) = RateUnit::ALL.into_iter().find(|u| u.seconds() == seconds) {
                rates.counts.insert((unit, row.get(1)?), row.get::<_, i64>(2)?.unsigned_abs());
            }
        }
        Ok(rates)
    }

    /// Adds `n` events of `now`; `true` when it is time to flush.
    pub fn count(&mut self, n: u64, now: Timestamp) -> bool {
        for unit in RateUnit::ALL {
            let key = (unit, start_of(unit, now));
            *self.counts.entry(key).or_default() += n;
            self.dirty.insert(key);
        }
        self.now = now;
        now.since(self.flushed_at) >= FLUSH_EVERY || now < self.flushed_at
    }

    /// Counters of units that begin in `from` (or hold it) up to before `to`.
    pub fn between(&self, unit: RateUnit, from: Timestamp, to: Timestamp) -> Vec<(Timestamp, u64)> {
        let first = (unit, start_of(unit, from));
        self.counts
            .range(first..)
            .take_while(|((u, start), _)| *u == unit && Timestamp::from_secs(*start) < to)
            .map(|((_, start), n)| (Timestamp::from_secs(*start), *n))
            .collect()
    }

    /// Forgets what is older than it is kept.
    fn expire(&mut self) {
        let now = self.now.secs();
        let is_kept = |(unit, start): &(RateUnit, i64)| *start >= oldest_kept(*unit, now);
        self.counts.retain(|key, _| is_kept(key));
        self.dirty.retain(is_kept);
    }
}

/// Hands what changed to the writer; `false` when the writer cannot take it now (it stays marked).
pub(super) fn flush(rates: &Arc<Mutex<Rates>>, database: &Database) -> bool {
    let (changed, now) = {
        let mut rates = lock(rates);
        rates.flushed_at = rates.now;
        rates.expire();
        let changed: Vec<_> =
            std::mem::take(&mut rates.dirty).into_iter().map(|key| (key, rates.counts.get(&key).copied())).collect();
        (changed, rates.now.secs())
    };
    if changed.is_empty() {
        return true;
    }
    let keys: Vec<_> = changed.iter().map(|(key, _)| *key).collect();
    let shared = Arc::clone(rates);
    let handed_in = database.write_later(move |connection| {
        if let Err(error) = save(connection, &changed, now) {
            tracing::warn!(%error, "rate counters are not saved; trying again in a second");
            lock(&shared).dirty.extend(changed.iter().map(|(key, _)| *key));
        }
    });
    if !handed_in {
        lock(rates).dirty.extend(keys);
    }
    handed_in
}

fn save(connection: &mut Connection, changed: &[((RateUnit, i64), Option<u64>)], now: i64) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    {
        let mut upsert = transaction.prepare_cached(
            "INSERT INTO accepted (unit, start, n) VALUES (?, ?, ?) \
             ON CONFLICT (unit, start) DO UPDATE SET n = excluded.n",
        )?;
        for ((unit, start), n) in changed {
            upsert.execute(params![unit.seconds(), start, n.unwrap_or(0) as i64])?;
        }
        let mut expire = transaction.prepare_cached("DELETE FROM accepted WHERE unit = ? AND start < ?")?;
        for unit in RateUnit::ALL {
            expire.execute(params![unit.seconds(), oldest_kept(unit, now)])?;
        }
    }
    transaction.commit()
}

/// A unit is kept until its time has passed since its end.
fn oldest_kept(unit: RateUnit, now: i64) -> i64 {
    now - unit.kept_seconds() - unit.seconds()
}

fn start_of(unit: RateUnit, time: Timestamp) -> i64 {
    time.secs().div_euclid(unit.seconds()) * unit.seconds()
}
