//! Queues in memory: for tests, and the smallest driver to imitate.

use super::lease::{Change, LeaseTable};
use super::leased::{Chunk, Done, LeasedQueue, RecordStore};
use super::{Durability, Queue, QueueLimits, QueueName, Queues};
use crate::StorageResult;
use bytes::Bytes;
use runtime::Clock;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

#[derive(Default)]
struct Records {
    first: u64,
    list: VecDeque<Bytes>,
    bytes: u64,
}

#[derive(Default)]
struct MemoryStore {
    records: Mutex<Records>,
    committed: Notify,
}

impl MemoryStore {
    fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RecordStore for MemoryStore {
    fn append(&self, batch: Vec<Bytes>, _: Durability, done: Done) {
        let range = {
            let mut records = self.records();
            let from = records.first + records.list.len() as u64;
            records.bytes += batch.iter().map(|b| b.len() as u64).sum::<u64>();
            records.list.extend(batch);
            from..records.first + records.list.len() as u64
        };
        self.committed.notify_waiters();
        done(Ok(range));
    }

    fn read(&self, from: u64, records_max: usize, bytes_max: usize) -> StorageResult<Chunk> {
        let records = self.records();
        let from = from.max(records.first);
        let mut chunk = Chunk { next: from, ..Chunk::default() };
        let mut bytes = 0;
        for record in records.list.iter().skip((from - records.first) as usize).take(records_max) {
            bytes += record.len();
            if bytes > bytes_max && !chunk.records.is_empty() {
                break;
            }
            chunk.records.push((chunk.next, record.clone()));
            chunk.next += 1;
        }
        Ok(chunk)
    }

    fn end(&self) -> u64 {
        let records = self.records();
        records.first + records.list.len() as u64
    }

    fn journal(&self, _: &[Change], table: &LeaseTable) -> StorageResult<()> {
        let mut records = self.records();
        while records.first < table.cursor() {
            let Some(gone) = records.list.pop_front() else { break };
            records.bytes -= gone.len() as u64;
            records.first += 1;
        }
        Ok(())
    }

    fn flush(&self) -> StorageResult<()> {
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.records().bytes
    }

    fn quarantined(&self) -> u64 {
        0
    }

    fn committed(&self) -> &Notify {
        &self.committed
    }
}

pub(super) fn open(limits: &QueueLimits, clock: &Arc<dyn Clock>) -> Queues {
    let mut all: BTreeMap<QueueName, Arc<dyn Queue>> = BTreeMap::new();
    for name in QueueName::OPEN_ORDER {
        let dead_letters = name.dead_letters().and_then(|(dlq, side)| Some((Arc::clone(all.get(&dlq)?), side)));
        let table = LeaseTable::new(0, limits.lease);
        let queue = LeasedQueue::new(name, MemoryStore::default(), table, limits, dead_letters, clock);
        all.insert(name, Arc::new(queue));
    }
    Queues::new(all)
}
