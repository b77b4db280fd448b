//! Group commit: a thread owns the writer, takes everything that waits, and pays for one write and one sync.

use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::error::{Limit, Result, WalError};
use crate::fs::LogFile;
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
    /// A group of this many payload bytes is synced by a second thread, so that the next group is encoded and
    /// written meanwhile. Below it, changing threads costs more than it gives.
    pub overlap_bytes_min: u64,
}

impl Default for CommitterConfig {
    fn default() -> Self {
        Self {
            batched_sync_ms: 50,
            queue_bytes_max: 64 << 20,
            queue_records_max: 256 * 1024,
            overlap_bytes_min: 64 << 10,
        }
    }
}

/// How an append is answered: exactly once, with the numbers its records got.
pub type Done = Box<dyn FnOnce(Result<Range<u64>>) + Send>;
/// Told after readers can see more, with where that now ends.
pub type OnCommit = Box<dyn Fn(u64) + Send>;

/// The answers of one group, to be sent by whoever wakes those that wait most cheaply.
pub struct Answers(Vec<(Done, Result<Range<u64>>)>);

impl Answers {
    /// Calls each append's `done`, also when one of them panics.
    pub fn send(self) {
        for (done, outcome) in self.0 {
            let _reported_by_the_panic_hook = catch_unwind(AssertUnwindSafe(|| done(outcome)));
        }
    }
}

/// Takes each group's answers on the committer's thread, which it must not keep, and sees to it that they are
/// sent. [`Answers::send`] does both at once.
pub type Deliver = Box<dyn Fn(Answers) + Send>;

/// Appends from any thread, answered by callback. Dropping it is the same as [`close`](Committer::close).
pub struct Committer {
    queue: Arc<Queue>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<Result<()>>>>,
    config: CommitterConfig,
}

impl Committer {
    /// Starts the thread. Fails only if the system has no thread to give.
    pub fn start(wal: Wal, config: CommitterConfig, on_commit: OnCommit, deliver: Deliver) -> Result<Self> {
        let queue = Arc::new(Queue::default());
        let shared = wal.shared().clone();
        let dir = wal.dir().clone();
        let syncer = Syncer::start(&queue).map_err(|e| WalError::io("start a thread for", &dir, e))?;
        let work = Worker {
            wal,
            queue: queue.clone(),
            on_commit,
            deliver,
            config: config.clone(),
            syncer,
            staged: Group::default(),
            written: Group::default(),
            syncing: Group::default(),
            sync_by: None,
        };
        let thread = std::thread::Builder::new()
            .name("wal-commit".into())
            .spawn(move || work.run())
            .map_err(|e| WalError::io("start a thread for", &dir, e))?;
        Ok(Self { queue, shared, thread: Mutex::new(Some(thread)), config })
    }

    /// Appends the records as one batch: all or none of them.
    ///
    /// `done` is called exactly once, where [`Deliver`] sends the group's answers; or, when the append is refused at
    /// once (`Full`, `TooLarge` for the queue, `Closed`), on this thread before this returns.
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

    /// The number the next committed record gets; [`Stats::next_seq`] without the cost of the others.
    pub fn next_seq(&self) -> u64 {
        self.shared.visible_seq()
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
    synced: bool,
    closed: bool,
}

enum Taken {
    /// The sync that ran on the other thread has ended.
    Synced,
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
            if std::mem::take(&mut state.synced) {
                return Taken::Synced;
            }
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

    fn synced(&self) {
        locked(&self.state).synced = true;
        self.changed.notify_one();
    }

    fn close(&self) {
        locked(&self.state).closed = true;
        self.changed.notify_one();
    }
}

/// A thread that does nothing but sync, one file at a time.
struct Syncer {
    jobs: mpsc::Sender<Arc<dyn LogFile>>,
    outcomes: mpsc::Receiver<io::Result<()>>,
}

impl Syncer {
    fn start(queue: &Arc<Queue>) -> io::Result<Self> {
        let (jobs, work) = mpsc::channel::<Arc<dyn LogFile>>();
        let (tell, outcomes) = mpsc::channel();
        let queue = queue.clone();
        std::thread::Builder::new().name("wal-sync".into()).spawn(move || {
            for file in work {
                if tell.send(file.sync_data()).is_err() {
                    break;
                }
                queue.synced();
            }
        })?;
        Ok(Self { jobs, outcomes })
    }

    fn sync(&self, file: Arc<dyn LogFile>) {
        let _the_thread_ends_after_us = self.jobs.send(file);
    }

    /// Waits for the outcome of the sync that was asked for.
    fn outcome(&self) -> io::Result<()> {
        self.outcomes.recv().unwrap_or_else(|_| Err(io::Error::other("the syncing thread died")))
    }
}

/// Appends that go one way together.
#[derive(Default)]
struct Group {
    appends: Vec<(Done, Range<u64>)>,
    size: Size,
    strict: bool,
    batched: bool,
}

impl Group {
    fn push(&mut self, done: Done, seqs: Range<u64>, size: Size, durability: Durability) {
        self.appends.push((done, seqs));
        self.size.bytes += size.bytes;
        self.size.records += size.records;
        self.strict |= durability == Durability::Strict;
        self.batched |= durability == Durability::Batched;
    }

    fn append(&mut self, other: Self) {
        self.appends.extend(other.appends);
        self.size.bytes += other.size.bytes;
        self.size.records += other.size.records;
        self.strict |= other.strict;
        self.batched |= other.batched;
    }

    fn is_empty(&self) -> bool {
        self.appends.is_empty()
    }
}

/// Each append is staged (encoded), then written, then synced where somebody asked for that, then answered.
struct Worker {
    wal: Wal,
    queue: Arc<Queue>,
    on_commit: OnCommit,
    deliver: Deliver,
    config: CommitterConfig,
    syncer: Syncer,
    staged: Group,
    /// Waits until the sync that runs has ended.
    written: Group,
    /// A sync runs for these on the other thread while the next are staged and written.
    syncing: Group,
    /// When the oldest acknowledged and unsynced `Batched` append must be synced.
    sync_by: Option<Instant>,
}

/// However the thread ends, nobody is left waiting for an answer.
impl Drop for Worker {
    fn drop(&mut self) {
        self.queue.close();
        for group in [&mut self.syncing, &mut self.written, &mut self.staged].map(std::mem::take) {
            self.answer(group, &Err(WalError::Closed));
        }
        loop {
            match self.queue.take(None) {
                Taken::Requests(requests) => {
                    for Request { size, done, .. } in requests {
                        self.refuse(done, size, WalError::Closed);
                    }
                }
                Taken::Synced | Taken::DeadlinePassed => {}
                Taken::Closed => break,
            }
        }
    }
}

impl Worker {
    fn run(mut self) -> Result<()> {
        loop {
            match self.queue.take(self.sync_by) {
                Taken::Requests(requests) => self.commit(requests),
                Taken::Synced => {
                    self.settle();
                    self.sync();
                }
                Taken::DeadlinePassed => {}
                Taken::Closed => break,
            }
            if self.sync_by.is_some_and(|by| by <= Instant::now()) {
                self.finish();
                self.sync_published();
            }
        }
        self.finish();
        self.wal.sync()
    }

    fn commit(&mut self, requests: Vec<Request>) {
        for Request { records, size, durability, done } in requests {
            if !self.wal.fits(&records) {
                self.finish();
                self.sync_published();
            }
            match self.wal.stage(&records) {
                Ok(seqs) => self.staged.push(done, seqs, size, durability),
                Err(error) => self.refuse(done, size, error),
            }
        }
        self.write();
        if self.syncing.is_empty() {
            self.sync();
        }
    }

    /// Writes what is staged. A failure is everybody's: what is behind a lost record is lost with it.
    fn write(&mut self) {
        match self.wal.flush() {
            Ok(()) => {
                let staged = std::mem::take(&mut self.staged);
                self.written.append(staged);
            }
            Err(error) => {
                let failed = std::mem::take(&mut self.staged);
                self.finish();
                self.answer(failed, &Err(error));
                self.wal.forget_loss();
            }
        }
    }

    /// Sees to the durability that those written asked for. Nothing is syncing when this is called.
    fn sync(&mut self) {
        if self.written.is_empty() {
            return;
        }
        let outcome = if self.written.strict && self.written.size.bytes >= self.config.overlap_bytes_min {
            match self.wal.begin_sync() {
                Ok(Some(file)) => {
                    self.sync_by = None;
                    self.syncing = std::mem::take(&mut self.written);
                    return self.syncer.sync(file);
                }
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            }
        } else if self.written.strict {
            self.sync_by = None;
            self.wal.sync()
        } else {
            if self.written.batched && self.sync_by.is_none() {
                self.sync_by = Some(Instant::now() + Duration::from_millis(self.config.batched_sync_ms));
            }
            self.wal.publish_unless_lost()
        };
        let group = std::mem::take(&mut self.written);
        self.ended(group, &outcome);
        self.wal.forget_loss();
    }

    /// Waits for the sync that runs, if one does.
    fn settle(&mut self) {
        if self.syncing.is_empty() {
            return;
        }
        let outcome = self.wal.end_sync(self.syncer.outcome());
        let group = std::mem::take(&mut self.syncing);
        self.ended(group, &outcome);
    }

    /// Brings all that was staged to its end before it returns.
    fn finish(&mut self) {
        if !self.staged.is_empty() {
            self.write();
        }
        // At most twice: for what is syncing, and for what was written meanwhile.
        while !self.syncing.is_empty() || !self.written.is_empty() {
            self.settle();
            self.sync();
        }
    }

    fn ended(&self, group: Group, outcome: &Result<()>) {
        if outcome.is_ok() {
            let next_seq = self.wal.shared().visible_seq();
            let _reported_by_the_panic_hook = catch_unwind(AssertUnwindSafe(|| (self.on_commit)(next_seq)));
        }
        self.answer(group, outcome);
    }

    fn answer(&self, group: Group, outcome: &Result<()>) {
        if group.is_empty() {
            return;
        }
        let answers = group.appends.into_iter().map(|(done, seqs)| (done, outcome.clone().map(|()| seqs)));
        self.send(group.size, Answers(answers.collect()));
    }

    fn refuse(&self, done: Done, size: Size, error: WalError) {
        self.send(size, Answers(vec![(done, Err(error))]));
    }

    fn send(&self, size: Size, answers: Answers) {
        self.queue.answered(size);
        let _reported_by_the_panic_hook = catch_unwind(AssertUnwindSafe(|| (self.deliver)(answers)));
    }

    /// Everything written is acknowledged here, so a failure has no waiter: the counters tell, and the log goes on.
    fn sync_published(&mut self) {
        self.sync_by = None;
        if self.wal.is_dirty() {
            let _counted_in_stats = self.wal.sync();
        }
    }
}
