//! Queues on our own write-ahead log: `dir/<queue>/records` and `dir/<queue>/journal`.
//!
//! One process at a time: a second one is told so. Records are removed from disk segment by segment,
//! after a synced snapshot of the journal says that nobody needs them.

use super::journal::Journal;
use super::lease::{Change, LeaseTable};
use super::leased::{Chunk, Done, LeasedQueue, RecordStore};
use super::{Durability, Queue, QueueLimits, QueueName, Queues};
use crate::{StorageError, StorageResult};
use bytes::Bytes;
use model::ErrorKind;
use runtime::Clock;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use wal::{Committer, CommitterConfig, Config, OsFilesystem, Reader, Wal, WalError};

struct WalStore {
    committer: Committer,
    /// Reads on from where it stopped; a second one looks up single records.
    sequential: Mutex<(u64, Reader)>,
    spot: Mutex<Reader>,
    journal: Mutex<(Journal, Instant)>,
    committed: Arc<Notify>,
    segment_bytes: u64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A log error as a storage error.
pub(super) fn error(error: WalError) -> StorageError {
    let (kind, context) = match &error {
        WalError::Full(_) => (ErrorKind::Full, "queue"),
        WalError::TooLarge { .. } => (ErrorKind::Invalid, "queue"),
        WalError::Locked { .. } => (
            ErrorKind::Conflict,
            "the embedded queue cannot be shared between processes (stop the other one, or use another data directory)",
        ),
        WalError::Io { .. } if error.is_disk_full() => (ErrorKind::Unavailable, "queue: the disk is full"),
        WalError::Io { .. } => (ErrorKind::Unavailable, "queue"),
        WalError::Closed => (ErrorKind::Unavailable, "queue"),
        _ => (ErrorKind::Internal, "queue"),
    };
    let mut storage = StorageError::with_source(kind, context, error);
    if kind == ErrorKind::Full {
        storage.retry_after = Some(Duration::from_secs(1));
    }
    storage
}

impl WalStore {
    fn open(dir: &Path, limits: &QueueLimits) -> StorageResult<(Self, LeaseTable)> {
        let (journal, table) = Journal::open(dir.join("journal"), limits.lease)?;
        let config = Config {
            dir: dir.join("records"),
            segment_bytes: limits.segment_bytes,
            max_bytes: limits.bytes_max,
            max_record_bytes: u64::from(limits.record_bytes_max),
        };
        let (mut log, recovery) = Wal::open(Arc::new(OsFilesystem), config).map_err(error)?;
        if recovery.truncated_bytes > 0 {
            tracing::info!(bytes = recovery.truncated_bytes, queue = %dir.display(), "cut an unfinished write off the queue's log");
        }
        if recovery.quarantined_count() > 0 || !recovery.quarantined_segments.is_empty() {
            tracing::error!(
                records = recovery.quarantined_count(),
                segments = recovery.quarantined_segments.len(),
                queue = %dir.display(),
                "the queue's log was damaged; the broken parts were put into its quarantine folder"
            );
        }
        log.advance_to(table.cursor()).map_err(error)?;
        let reader = log.reader();
        let committed = Arc::new(Notify::new());
        let wake = Arc::clone(&committed);
        let committer_config = CommitterConfig {
            batched_sync_ms: u64::try_from(limits.batched_sync.as_millis()).unwrap_or(u64::MAX),
            ..CommitterConfig::default()
        };
        let committer = Committer::start(log, committer_config, Box::new(move |_| wake.notify_waiters()), deliver())
            .map_err(error)?;
        let store = Self {
            committer,
            sequential: Mutex::new((table.cursor(), reader.clone())),
            spot: Mutex::new(reader),
            journal: Mutex::new((journal, Instant::now())),
            committed,
            segment_bytes: limits.segment_bytes,
        };
        Ok((store, table))
    }
}

/// Answers a group from inside the async runtime, where waking a task is cheap, and not from the
/// committer's thread, where each would be a system call.
fn deliver() -> wal::Deliver {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => Box::new(move |answers| {
            runtime.spawn(async move { answers.send() });
        }),
        Err(_) => Box::new(wal::Answers::send),
    }
}

fn chunk(batch: wal::Batch) -> Chunk {
    Chunk { records: batch.records.into_iter().map(|r| (r.seq, r.payload)).collect(), next: batch.next_seq }
}

impl RecordStore for WalStore {
    fn append(&self, batch: Vec<Bytes>, durability: Durability, done: Done) {
        let durability = match durability {
            Durability::Strict => wal::Durability::Strict,
            Durability::Batched => wal::Durability::Batched,
            Durability::Memory => wal::Durability::Memory,
        };
        self.committer.append(batch, durability, Box::new(move |result| done(result.map_err(error))));
    }

    fn read(&self, from: u64, records_max: usize, bytes_max: usize) -> StorageResult<Chunk> {
        let mut sequential = locked(&self.sequential);
        if sequential.0 == from {
            let read = chunk(sequential.1.read(from, records_max, bytes_max).map_err(error)?);
            sequential.0 = read.next;
            return Ok(read);
        }
        drop(sequential);
        let read = locked(&self.spot).read(from, records_max, bytes_max).map_err(error)?;
        Ok(chunk(read))
    }

    fn end(&self) -> u64 {
        self.committer.next_seq()
    }

    fn journal(&self, changes: &[Change], table: &LeaseTable) -> StorageResult<()> {
        const TRIM_EVERY: Duration = Duration::from_secs(1);
        let mut journal = locked(&self.journal);
        journal.0.record(changes, table);
        let stats = self.committer.stats();
        if stats.bytes > 2 * self.segment_bytes && table.cursor() > stats.first_seq && journal.1.elapsed() >= TRIM_EVERY
        {
            journal.1 = Instant::now();
            let trimmed =
                journal.0.snapshot(table).and_then(|()| self.committer.truncate_before(table.cursor()).map_err(error));
            if let Err(error) = trimmed {
                tracing::warn!(%error, "removing settled records from disk failed; trying again later");
            }
        }
        Ok(())
    }

    fn flush(&self) -> StorageResult<()> {
        let (tx, rx) = std::sync::mpsc::sync_channel(1);
        self.committer.append(
            Vec::new(),
            wal::Durability::Strict,
            Box::new(move |result| {
                let _ = tx.send(result);
            }),
        );
        rx.recv().map_err(|_| error(WalError::Closed))?.map_err(error)?;
        locked(&self.journal).0.sync()?;
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.committer.stats().bytes
    }

    fn quarantined(&self) -> u64 {
        self.committer.stats().quarantined
    }

    fn committed(&self) -> &Notify {
        &self.committed
    }
}

pub(super) fn open(dir: &Path, limits: &QueueLimits, clock: &Arc<dyn Clock>) -> StorageResult<Queues> {
    let mut all: BTreeMap<QueueName, Arc<dyn Queue>> = BTreeMap::new();
    for name in QueueName::OPEN_ORDER {
        let dead_letters = name.dead_letters().and_then(|(dlq, side)| Some((Arc::clone(all.get(&dlq)?), side)));
        let (store, table) = WalStore::open(&dir.join(name.as_str()), limits)?;
        all.insert(name, Arc::new(LeasedQueue::new(name, store, table, limits, dead_letters, clock)));
    }
    Ok(Queues::new(all))
}
