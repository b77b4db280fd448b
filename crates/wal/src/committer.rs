//! Group commit: a thread owns the writer, takes everything that waits, and pays for one write and one sync.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::error::{Limit, Result, WalError};
use crate::reader::Reader;
use crate::segment::locked;
use crate::shared::{Shared, Stats};
use crate::wal::Wal;

/// What "done" means for an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Survives a power cut.
    Strict,
    /// Survives the process; a power cut may take the last `batched_sync_ms` with it.
    Batched,
    /// Survives the process; nothing is promised about a power cut.
    Memory,
}

/// Bounds of the committer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitterConfig {
    /// A [`Durability::Batched`] append is synced at most this long after it was acknowledged.
    pub batched_sync_ms: u64,
    /// Payload bytes accepted and not yet answered. More is [`WalError::Full`] at once.
    pub queue_bytes_max: u64,
    /// Records accepted and not yet answered. More is [`WalError::Full`] at once.
    pub queue_records_max: u64,
}

impl Default for CommitterConfig {
    fn default() -> Self {
        Self { batched_sync_ms: 50, queue_bytes_max: 64 << 20, queue_records_max: 256 * 1024 }
    }
}

/// How an append is answered: exactly once, with the numbers its records got.
pub type Done = Box<dyn FnOnce(Result<Range<u64>>) + Send>;
/// Told after readers can see more, with where that now ends.
pub type OnCommit = Box<dyn Fn(u64) + Send>;

/// Appends from any thread, answered by callback. Dropping it is the same as [`close`](Committer::close).
pub struct Committer {
    queue: Arc<Queue>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<Result<()>>>>,
    config: CommitterConfig,
}

impl Committer {
    /// Starts the thread. Fails only if the system has no thread to give.
    pub fn start(wal: Wal, config: CommitterConfig, on_commit: OnCommit) -> Result<Self> {
        let queue = Arc::new(Queue::default());
        let shared = wal.shared().clone();
        let dir = wal.dir().clone();
        let batched_sync = Duration::from_millis(config.batched_sync_ms);
        let work = Worker { wal, queue: queue.clone(), on_commit, batched_sync, sync_by: None };
        let thread = std::thread::Builder::new()
            .name("wal-commit".into())
            .spawn(move || work.run())
            .map_err(|e| WalError::io("start a thread for", &dir, e))?;
        Ok(Self { queue, shared, thread: Mutex::new(Some(thread)), config })
    }

    /// Appends the records as one batch: all or none of them.
    ///
    /// `done` is called exactly once, on the committer's thread, which it must not keep; or, when the append is refused
    /// at once (`Full`, `TooLarge` for the queue, `Closed`), on this one before this returns.
    pub fn append(&self, records: Vec<Bytes>, durability: Durability, done: Done) {
        let bytes = records.iter().map(|r| r.len() as u64).sum();
        let request = Request { size: Size { bytes, records: records.len() as u64 }, records, durability, done };
        if let Err((request, error)) = self.queue.push(request, &self.config) {
            (request.done)(Err(error));
        }
    }

    /// A handle for reading what is committed.
    pub fn reader(&self) -> Reader {
        Reader::new(self.shared.clone())
    }

    /// See [`Wal::truncate_before`], whose contract is this one's too. Runs on the calling thread.
    pub fn truncate_before(&self, seq: u64) -> Result<u64> {
        self.shared.truncate_before(seq)
    }

    /// Counters and positions.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Refuses new appends, answers those that wait, syncs, ends the thread and unlocks the directory.
    /// `Err` if the last sync failed. A second call does nothing.
    pub fn close(&self) -> Result<()> {
        self.queue.close();
        let Some(thread) = locked(&self.thread).take() else {
            return Ok(());
        };
        thread.join().unwrap_or(Err(WalError::Closed))
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        let _whoever_cares_calls_close = self.close();
    }
}

#[derive(Clone, Copy, Default)]
struct Size {
    bytes: u64,
    records: u64,
}

struct Request {
    records: Vec<Bytes>,
    size: Size,
    durability: Durability,
    done: Done,
}

#[derive(Default)]
struct Queue {
    state: Mutex<QueueState>,
    changed: Condvar,
}

#[derive(Default)]
struct QueueState {
    waiting: Vec<Request>,
    /// Of all that is not answered, waiting or being written.
    unanswered: Size,
    closed: bool,
}

enum Taken {
    Requests(Vec<Request>),
    DeadlinePassed,
    Closed,
}

impl Queue {
    fn push(&self, request: Request, config: &CommitterConfig) -> std::result::Result<(), (Request, WalError)> {
        let (bytes_max, records_max) = (config.queue_bytes_max, config.queue_records_max);
        let Size { bytes, records } = request.size;
        if bytes > bytes_max {
            return Err((request, WalError::TooLarge { bytes, limit_bytes: bytes_max }));
        }
        let mut state = locked(&self.state);
        let refused = if state.closed {
            Some(WalError::Closed)
        } else if state.unanswered.bytes + bytes > bytes_max {
            Some(WalError::Full(Limit::QueueBytes(bytes_max)))
        } else if state.unanswered.records + records > records_max {
            Some(WalError::Full(Limit::QueueRecords(records_max)))
        } else {
            None
        };
        if let Some(error) = refused {
            return Err((request, error));
        }
        state.unanswered.bytes += bytes;
        state.unanswered.records += records;
        state.waiting.push(request);
        if state.waiting.len() == 1 {
            self.changed.notify_one();
        }
        Ok(())
    }

    fn take(&self, deadline: Option<Instant>) -> Taken {
        let mut state = locked(&self.state);
        loop {
            if !state.waiting.is_empty() {
                return Taken::Requests(std::mem::take(&mut state.waiting));
            }
            if state.closed {
                return Taken::Closed;
            }
            let Some(deadline) = deadline else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Taken::DeadlinePassed;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn answered(&self, size: Size) {
        let mut state = locked(&self.state);
        state.unanswered.bytes -= size.bytes;
        state.unanswered.records -= size.records;
    }

    fn close(&self) {
        locked(&self.state).closed = true;
        self.changed.notify_one();
    }
}

struct Worker {
    wal: Wal,
    queue: Arc<Queue>,
    on_commit: OnCommit,
    batched_sync: Duration,
    /// When the oldest acknowledged and unsynced `Batched` append must be synced.
    sync_by: Option<Instant>,
}

struct Staged {
    request: Answer,
    seqs: Range<u64>,
    durability: Durability,
}

struct Answer {
    size: Size,
    done: Done,
}

/// However the thread ends, nobody is left waiting for an answer.
impl Drop for Worker {
    fn drop(&mut self) {
        self.queue.close();
        while let Taken::Requests(requests) = self.queue.take(None) {
            for Request { size, done, .. } in requests {
                self.answer(Answer { size, done }, Err(WalError::Closed));
            }
        }
    }
}

impl Worker {
    fn run(mut self) -> Result<()> {
        loop {
            match self.queue.take(self.sync_by) {
                Taken::Requests(requests) => self.commit(requests),
                Taken::DeadlinePassed => {}
                Taken::Closed => break,
            }
            if self.sync_by.is_some_and(|by| by <= Instant::now()) {
                self.sync_published();
            }
        }
        self.wal.sync()
    }

    fn commit(&mut self, requests: Vec<Request>) {
        let mut group = Vec::with_capacity(requests.len());
        for Request { records, size, durability, done } in requests {
            if !self.wal.fits(&records) {
                self.finish(&mut group);
                self.sync_published();
            }
            match self.wal.stage(&records) {
                Ok(seqs) => group.push(Staged { request: Answer { size, done }, seqs, durability }),
                Err(error) => self.answer(Answer { size, done }, Err(error)),
            }
        }
        self.finish(&mut group);
    }

    /// Writes and answers the group. A failure is everybody's: what is behind a lost record is lost with it.
    fn finish(&mut self, group: &mut Vec<Staged>) {
        if group.is_empty() {
            return;
        }
        let wants = |durability| group.iter().any(|staged| staged.durability == durability);
        let (strict, batched) = (wants(Durability::Strict), wants(Durability::Batched));
        let outcome = self.wal.flush().and_then(|()| {
            if strict {
                self.sync_by = None;
                return self.wal.sync();
            }
            self.wal.publish();
            if batched && self.sync_by.is_none() {
                self.sync_by = Some(Instant::now() + self.batched_sync);
            }
            Ok(())
        });
        if outcome.is_ok() {
            let next_seq = self.wal.shared().visible_seq();
            let _reported_by_the_panic_hook = catch_unwind(AssertUnwindSafe(|| (self.on_commit)(next_seq)));
        }
        self.wal.forget_loss();
        for Staged { request, seqs, .. } in group.drain(..) {
            self.answer(request, outcome.clone().map(|()| seqs));
        }
    }

    fn answer(&self, request: Answer, outcome: Result<Range<u64>>) {
        self.queue.answered(request.size);
        let _reported_by_the_panic_hook = catch_unwind(AssertUnwindSafe(|| (request.done)(outcome)));
    }

    /// Everything written is acknowledged here, so a failure has no waiter: the counters tell, and the log goes on.
    fn sync_published(&mut self) {
        self.sync_by = None;
        if self.wal.is_dirty() {
            let _counted_in_stats = self.wal.sync();
        }
    }
}
