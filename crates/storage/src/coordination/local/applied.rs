//! Which events were counted: one bit an event, in blocks of 4,096 numbers of one run.
//!
//! Not ranges: only unhandled events come here, and with every second event
//! handled elsewhere the ranges would be as many as the events. A bitmap of the last 33 million
//! numbers costs 4 MiB, whatever lies between.

use crate::StorageResult;
use model::EventId;
use rusqlite::{Connection, Transaction, params};
use std::collections::{BTreeMap, HashMap};

const BLOCK_BITS: u32 = 12;
const WORDS: usize = (1 << BLOCK_BITS) / 64;
/// Blocks kept, 512 bytes each. Numbers in older ones count as counted: never twice.
const BLOCKS_MAX: usize = 8_192;
/// Runs kept; an event of a run that was forgotten would count again.
const RUNS_MAX: usize = 1_000;

type Bits = Box<[u64; WORDS]>;
/// (run, number >> 12).
type BlockKey = (u32, u64);

#[derive(Default)]
pub(super) struct Applied {
    blocks: HashMap<BlockKey, (Bits, u64)>,
    /// When last touched → block.
    order: BTreeMap<u64, BlockKey>,
    runs: HashMap<u32, Run>,
    clock: u64,
}

#[derive(Clone, Copy, Default)]
struct Run {
    floor: u64,
    seen: u64,
}

/// Events being applied, until the transaction is through.
#[derive(Default)]
pub(super) struct Pending {
    touched: BTreeMap<BlockKey, Bits>,
}

/// What a saved [`Pending`] does to memory.
pub(super) struct Saved {
    pending: Pending,
    evicted: Vec<(u64, BlockKey)>,
    runs: Vec<(u32, Run)>,
    forgotten: Vec<u32>,
}

impl Applied {
    pub fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let mut applied = Self::default();
        let mut statement = connection.prepare("SELECT run, floor, seen FROM applied_runs")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let run = Run { floor: row.get::<_, i64>(1)?.unsigned_abs(), seen: row.get::<_, i64>(2)?.unsigned_abs() };
            applied.clock = applied.clock.max(run.seen);
            applied.runs.insert(row.get(0)?, run);
        }
        let mut statement = connection.prepare(
            "SELECT b.run, b.block, b.bits FROM applied b JOIN applied_runs r ON r.run = b.run ORDER BY r.seen, b.block",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let key = (row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs());
            let mut bits: Bits = Box::new([0; WORDS]);
            for (word, bytes) in bits.iter_mut().zip(row.get_ref(2)?.as_blob()?.as_chunks().0) {
                *word = u64::from_le_bytes(*bytes);
            }
            applied.put(key, bits);
        }
        Ok(applied)
    }

    /// Adds `id` to `pending`; `false` when it is applied already.
    pub fn insert(&self, pending: &mut Pending, id: EventId) -> bool {
        let key = (id.run(), id.counter() >> BLOCK_BITS);
        let bits = match pending.touched.get_mut(&key) {
            Some(bits) => bits,
            None => {
                let known = self.blocks.get(&key).map(|(bits, _)| bits.clone());
                if known.is_none() && self.runs.get(&key.0).is_some_and(|run| key.1 < run.floor) {
                    return false;
                }
                pending.touched.entry(key).or_insert(known.unwrap_or_else(|| Box::new([0; WORDS])))
            }
        };
        let number = (id.counter() & ((1 << BLOCK_BITS) - 1)) as usize;
        let (word, bit) = (&mut bits[number / 64], 1 << (number % 64));
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    /// Writes `pending`; give the answer to [`Self::apply`] when it is committed.
    pub fn save(&self, transaction: &Transaction<'_>, pending: Pending) -> StorageResult<Saved> {
        let mut runs: BTreeMap<u32, Run> = BTreeMap::new();
        let new = pending.touched.keys().filter(|key| !self.blocks.contains_key(key)).count();
        let excess = (self.blocks.len() + new).saturating_sub(BLOCKS_MAX);
        let untouched = self.order.iter().filter(|(_, key)| !pending.touched.contains_key(key));
        let evicted: Vec<_> = untouched.take(excess).map(|(seen, key)| (*seen, *key)).collect();
        let known = |run: u32| self.runs.get(&run).copied().unwrap_or_default();
        {
            let mut upsert = transaction.prepare_cached(
                "INSERT INTO applied (run, block, bits) VALUES (?, ?, ?) \
                 ON CONFLICT (run, block) DO UPDATE SET bits = excluded.bits",
            )?;
            let mut bytes = Vec::with_capacity(WORDS * 8);
            for ((run, block), bits) in &pending.touched {
                bytes.clear();
                bits.iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
                upsert.execute(params![run, *block as i64, bytes])?;
                runs.entry(*run).or_insert_with(|| known(*run)).seen = self.clock + pending.touched.len() as u64;
            }
            let mut delete = transaction.prepare_cached("DELETE FROM applied WHERE run = ? AND block = ?")?;
            for (_, (run, block)) in &evicted {
                delete.execute(params![run, *block as i64])?;
                let run = runs.entry(*run).or_insert_with(|| known(*run));
                run.floor = run.floor.max(block + 1);
            }
            let mut upsert = transaction.prepare_cached(
                "INSERT INTO applied_runs (run, floor, seen) VALUES (?, ?, ?) \
                 ON CONFLICT (run) DO UPDATE SET floor = excluded.floor, seen = excluded.seen",
            )?;
            for (run, state) in &runs {
                upsert.execute(params![run, state.floor as i64, state.seen as i64])?;
            }
        }
        let forgotten = self.surplus_runs(&runs);
        for run in &forgotten {
            transaction.execute("DELETE FROM applied WHERE run = ?", [run])?;
            transaction.execute("DELETE FROM applied_runs WHERE run = ?", [run])?;
        }
        Ok(Saved { pending, evicted, runs: runs.into_iter().collect(), forgotten })
    }

    /// Remembers what was committed.
    pub fn apply(&mut self, saved: Saved) {
        for (seen, key) in saved.evicted {
            self.order.remove(&seen);
            self.blocks.remove(&key);
        }
        for (key, bits) in saved.pending.touched {
            self.put(key, bits);
        }
        self.runs.extend(saved.runs);
        for run in saved.forgotten {
            self.runs.remove(&run);
            self.blocks.retain(|key, _| key.0 != run);
            self.order.retain(|_, key| key.0 != run);
        }
    }

    fn put(&mut self, key: BlockKey, bits: Bits) {
        self.clock += 1;
        if let Some((_, seen)) = self.blocks.insert(key, (bits, self.clock)) {
            self.order.remove(&seen);
        }
        self.order.insert(self.clock, key);
    }

    /// The runs not seen for longest, beyond those that are kept.
    fn surplus_runs(&self, touched: &BTreeMap<u32, Run>) -> Vec<u32> {
        let new = touched.keys().filter(|run| !self.runs.contains_key(run)).count();
        let surplus = (self.runs.len() + new).saturating_sub(RUNS_MAX);
        if surplus == 0 {
            return Vec::new();
        }
        let mut old: Vec<(u64, u32)> =
            self.runs.iter().filter(|(run, _)| !touched.contains_key(run)).map(|(run, r)| (r.seen, *run)).collect();
        old.sort_unstable();
        old.truncate(surplus);
        old.into_iter().map(|(_, run)| run).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Timestamp;

    fn id(run: u32, counter: u64) -> EventId {
        EventId::new(Timestamp::from_millis(5), run, counter)
    }

    struct Fixture {
        applied: Applied,
        connection: Connection,
    }

    impl Fixture {
        fn new() -> Self {
            let connection = Connection::open_in_memory().unwrap();
            connection.execute_batch(include_str!("../../../migrations/sqlite/coordination/0001.sql")).unwrap();
            Self { applied: Applied::default(), connection }
        }
        /// How many of `ids` were new; as one transaction.
        fn insert(&mut self, ids: impl IntoIterator<Item = EventId>) -> usize {
            let mut pending = Pending::default();
            let new = ids.into_iter().filter(|id| self.applied.insert(&mut pending, *id)).count();
            let transaction = self.connection.transaction().unwrap();
            let saved = self.applied.save(&transaction, pending).unwrap();
            transaction.commit().unwrap();
            self.applied.apply(saved);
            new
        }
        fn reload(&mut self) {
            self.applied = Applied::load(&self.connection).unwrap();
        }
    }

    #[test]
    fn an_event_is_new_once_also_after_loading() {
        let mut fixture = Fixture::new();
        let odd = || (0..20_000).filter(|n| n % 2 == 1).map(|n| id(7, n));
        assert_eq!(fixture.insert(odd()), 10_000);
        assert_eq!(fixture.applied.blocks.len(), 5);
        assert_eq!(fixture.insert([id(7, 1), id(7, 2), id(7, 2), id(8, 1)]), 2);
        fixture.reload();
        assert_eq!(fixture.insert(odd()), 0);
        assert_eq!(fixture.insert([id(7, 4), id(8, 1), id(8, (1 << 48) - 1)]), 2);
    }

    #[test]
    fn memory_is_bounded_and_what_was_forgotten_is_never_new_again() {
        let mut fixture = Fixture::new();
        let blocks = BLOCKS_MAX as u64 + 100;
        for chunk in 0..blocks / 64 + 1 {
            fixture.insert((chunk * 64..(chunk + 1) * 64).map(|block| id(1, block << BLOCK_BITS)));
        }
        assert_eq!(fixture.applied.blocks.len(), BLOCKS_MAX);
        assert_eq!(fixture.applied.order.len(), BLOCKS_MAX);
        fixture.reload();
        assert_eq!(fixture.applied.blocks.len(), BLOCKS_MAX);
        assert_eq!(fixture.insert([id(1, 0), id(1, 1)]), 0, "below the floor");
        for run in 2..1_200 {
            fixture.insert([id(run, 0)]);
        }
        assert_eq!(fixture.applied.runs.len(), RUNS_MAX);
        fixture.reload();
        assert_eq!(fixture.applied.runs.len(), RUNS_MAX);
    }
}
