//! The thread that owns the spool: collectors hand in, the uploader asks.
//!
//! What is handed in waits a moment for company, or for the uploader, who has it written together with the mark of the
//! batch that it becomes: one sync for both. While the disk takes nothing, collectors wait; the uploader is served all
//! the same, so that room can come.

use super::{Amount, Ask, Look, Numbered, Observation, Spool, SpoolError};
use agent_core::{Cut, Restored, Sent};
use runtime::Clock;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

/// How much is gathered into one write.
const GROUP_BYTES_MAX: usize = 512 * 1024;
/// Hand-ins that may wait.
const WAITING_MAX: usize = 16;
/// How long the first of a write waits for the others. The uploader, where there is a connection, comes sooner.
const GATHER: Duration = Duration::from_millis(50);
const SAVE_EVERY: Duration = Duration::from_secs(30);
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// What came in since the start: it is kept by now, or by the next cut.
pub type Counts = Amount;

enum Request {
    Cut(Ask, oneshot::Sender<Option<(Cut, Vec<Numbered>)>>),
    Read(Sent, oneshot::Sender<Option<Vec<Numbered>>>),
    /// What [`SpoolHandle::forget`] noted, now.
    Forget,
    Rename(u64, oneshot::Sender<Option<(Restored, Amount)>>),
    Look(oneshot::Sender<Look>),
}

/// The uploader's side.
pub struct SpoolHandle {
    requests: mpsc::Sender<Request>,
    pub counts: watch::Receiver<Counts>,
    shared: Arc<Shared>,
}

/// What both sides may look at without waking the other.
struct Shared {
    /// Whether what can be read again later should be read now.
    has_room: AtomicBool,
    /// Below this number all is durable at the other end.
    acked_below: AtomicU64,
}

/// The collectors' side.
#[derive(Clone)]
pub struct Sink {
    puts: mpsc::Sender<Vec<Observation>>,
    shared: Arc<Shared>,
}

impl Sink {
    /// One that hands on to a test.
    #[cfg(test)]
    pub fn for_tests() -> (Self, mpsc::Receiver<Vec<Observation>>) {
        let (puts, handed_in) = mpsc::channel(1_024);
        (Self { puts, shared: Arc::new(Shared::new(true)) }, handed_in)
    }

    /// Hands in; waits while the spool cannot take more. `false` at the end.
    pub async fn put(&self, observations: Vec<Observation>) -> bool {
        self.puts.send(observations).await.is_ok()
    }

    /// Hands in if nobody has to wait for it.
    pub fn offer(&self, observations: Vec<Observation>) -> bool {
        self.puts.try_send(observations).is_ok()
    }

    /// As [`Self::put`], of a thread of its own.
    pub fn put_blocking(&self, observations: Vec<Observation>) -> bool {
        self.puts.blocking_send(observations).is_ok()
    }

    /// Whether what can be read again later should be read now.
    pub fn has_room(&self) -> bool {
        self.shared.has_room.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn new(has_room: bool) -> Self {
        Self { has_room: AtomicBool::new(has_room), acked_below: AtomicU64::new(0) }
    }
}

/// Starts the thread. It ends when the handle and all sinks are gone; wait for it then.
pub fn start(
    spool: Spool,
    clock: Arc<dyn Clock>,
) -> (SpoolHandle, Sink, tokio::task::JoinHandle<Result<(), SpoolError>>) {
    let (requests, asked) = mpsc::channel(8);
    let (puts, handed_in) = mpsc::channel(WAITING_MAX);
    let (counts_tx, counts) = watch::channel(Counts::default());
    let shared = Arc::new(Shared::new(spool.room().has_for_readable()));
    let worker = Worker {
        spool,
        clock,
        counts: counts_tx,
        shared: shared.clone(),
        forgotten_below: 0,
        waiting: VecDeque::new(),
        waiting_bytes: 0,
        write_at: None,
        is_blocked: false,
        fails: false,
    };
    let task = tokio::task::spawn_blocking(move || {
        // Timers of its own: those of the agent's thread would wake that each time.
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(SpoolError::Thread)?;
        runtime.block_on(worker.serve(asked, handed_in))
    });
    (SpoolHandle { requests, counts, shared: shared.clone() }, Sink { puts, shared }, task)
}

impl SpoolHandle {
    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.ok()?;
        answer.await.ok()
    }

    /// The next batch, kept and marked, with its records. `None`: there is none, or it could not be.
    pub async fn cut(&self, ask: Ask) -> Option<(Cut, Vec<Numbered>)> {
        self.ask(|reply| Request::Cut(ask, reply)).await.flatten()
    }

    pub async fn look(&self) -> Look {
        self.ask(Request::Look).await.unwrap_or_default()
    }

    /// What there still is of it; `None` if that cannot be read now.
    pub async fn read(&self, sent: Sent) -> Option<Vec<Numbered>> {
        self.ask(|reply| Request::Read(sent, reply)).await.flatten()
    }

    /// These are durable at the other end. The thread hears of it when it wakes next, or at once if room is waited for.
    pub async fn forget(&self, through_seq: u64) {
        self.shared.acked_below.fetch_max(through_seq.saturating_add(1), Ordering::SeqCst);
        if !self.shared.has_room.load(Ordering::SeqCst) {
            // Without the thread there is nobody to forget.
            let _ = self.requests.send(Request::Forget).await;
        }
    }

    pub async fn rename(&self, epoch: u64) -> Option<(Restored, Amount)> {
        self.ask(|reply| Request::Rename(epoch, reply)).await.flatten()
    }
}

struct Worker {
    spool: Spool,
    clock: Arc<dyn Clock>,
    counts: watch::Sender<Counts>,
    shared: Arc<Shared>,
    forgotten_below: u64,
    /// Handed in, not yet kept.
    waiting: VecDeque<Observation>,
    waiting_bytes: usize,
    write_at: Option<Instant>,
    /// The disk failed the last write, and is to be tried again.
    is_blocked: bool,
    fails: bool,
}

impl Worker {
    async fn serve(
        mut self,
        mut asked: mpsc::Receiver<Request>,
        mut handed_in: mpsc::Receiver<Vec<Observation>>,
    ) -> Result<(), SpoolError> {
        let mut save = tokio::time::interval(SAVE_EVERY);
        let mut collectors_run = true;
        let mut uploader_runs = true;
        while collectors_run || uploader_runs {
            self.forget();
            let write_at = self.write_at.unwrap_or_else(Instant::now);
            tokio::select! {
                biased;
                request = asked.recv(), if uploader_runs => match request {
                    Some(request) => self.answer(request, &mut handed_in),
                    None => uploader_runs = false,
                },
                observations = handed_in.recv(), if !self.is_blocked && collectors_run => match observations {
                    Some(observations) => {
                        self.gather(observations, &mut handed_in);
                        if self.waiting_bytes >= GROUP_BYTES_MAX {
                            self.write();
                        }
                    }
                    None => collectors_run = false,
                },
                () = tokio::time::sleep_until(write_at), if self.write_at.is_some() => self.write(),
                _ = save.tick() => self.log(|spool| spool.save_if_moved()),
            }
        }
        // What the disk did not take until now is read again by the next run, where it can be.
        self.write();
        self.spool.close()
    }

    fn forget(&mut self) {
        let below = self.shared.acked_below.load(Ordering::SeqCst);
        if below > self.forgotten_below {
            self.forgotten_below = below;
            self.log(|spool| spool.forget(below - 1));
            self.see_room();
        }
    }

    fn see_room(&self) {
        self.shared.has_room.store(self.spool.room().has_for_readable(), Ordering::SeqCst);
    }

    fn gather(&mut self, first: Vec<Observation>, handed_in: &mut mpsc::Receiver<Vec<Observation>>) {
        let mut came = Amount::default();
        let mut next = Some(first);
        while let Some(observations) = next {
            came = came.plus(amount(&observations));
            self.waiting_bytes += observations.iter().map(Observation::bytes).sum::<usize>();
            self.waiting.extend(observations);
            next = if self.waiting_bytes < GROUP_BYTES_MAX { handed_in.try_recv().ok() } else { None };
        }
        if !self.waiting.is_empty() {
            self.write_at.get_or_insert_with(|| Instant::now() + GATHER);
        }
        // That a source is followed at all is kept at once: of what comes until then, nothing would be known.
        let bookmarks = self.spool.bookmarks();
        let is_new = |found: &Observation| found.bookmark.is_some() && !bookmarks.contains_key(&*found.source);
        if self.waiting.iter().any(is_new) {
            self.write_at = Some(Instant::now());
        }
        self.tell(came);
    }

    fn tell(&self, came: Amount) {
        if came.records > 0 {
            self.counts.send_modify(|counts| *counts = counts.plus(came));
        }
    }

    fn write(&mut self) {
        // What is durable at the other end is not given up for want of room.
        self.forget();
        while !self.waiting.is_empty() {
            let now_unix_ms = self.clock.now().millis();
            let result = self.spool.put(self.waiting.make_contiguous(), now_unix_ms);
            if self.wrote(result.map(|taken| (taken, None))).is_err() {
                return;
            }
        }
        self.write_at = None;
        if std::mem::take(&mut self.is_blocked) {
            // A cut that failed meanwhile was taken for "there is nothing".
            self.tell(self.spool.waiting());
        }
    }

    /// Writes what waits, and the mark with the last of it.
    fn cut(&mut self, ask: Ask) -> Option<Cut> {
        if self.is_blocked {
            return None;
        }
        loop {
            let now_unix_ms = self.clock.now().millis();
            let result = self.spool.cut(self.waiting.make_contiguous(), now_unix_ms, ask);
            match self.wrote(result) {
                Ok(cut) if self.waiting.is_empty() => return cut,
                Ok(_) => {}
                Err(()) => return None,
            }
        }
    }

    fn wrote(&mut self, result: Result<(usize, Option<Cut>), SpoolError>) -> Result<Option<Cut>, ()> {
        match result {
            Ok((taken, cut)) => {
                self.waiting.drain(..taken);
                if self.waiting.is_empty() {
                    (self.waiting_bytes, self.write_at) = (0, None);
                    self.waiting.shrink_to(1_024);
                }
                self.fails = false;
                self.see_room();
                Ok(cut)
            }
            Err(error) => {
                self.is_blocked = true;
                self.write_at = Some(Instant::now() + RETRY_EVERY);
                self.complain(&error);
                Err(())
            }
        }
    }

    fn answer(&mut self, request: Request, handed_in: &mut mpsc::Receiver<Vec<Observation>>) {
        self.forget();
        // Whoever does not wait for the answer any more does not need it.
        match request {
            Request::Cut(ask, reply) => {
                if !self.is_blocked
                    && let Ok(more) = handed_in.try_recv()
                {
                    self.gather(more, handed_in);
                }
                let cut = self.cut(ask).map(|cut| {
                    let Cut { first_seq, through_seq, .. } = cut;
                    let sent = Sent { first_seq, through_seq, sent_unix_ms: ask.sent_unix_ms };
                    (cut, self.log(|spool| spool.read(sent)))
                });
                let _ = reply.send(cut);
            }
            Request::Look(reply) => {
                let _ = reply.send(self.log(Spool::look));
            }
            Request::Read(sent, reply) => {
                let records = self.log(|spool| spool.read(sent).map(Some));
                let _ = reply.send(records);
            }
            Request::Forget => {}
            Request::Rename(epoch, reply) => {
                let renamed = match self.spool.rename(epoch) {
                    Ok(restored) => Some((restored, self.spool.waiting())),
                    Err(error) => {
                        self.complain(&error);
                        None
                    }
                };
                let _ = reply.send(renamed);
            }
        }
    }

    fn log<T: Default>(&mut self, act: impl FnOnce(&mut Spool) -> Result<T, SpoolError>) -> T {
        act(&mut self.spool).unwrap_or_else(|error| {
            self.complain(&error);
            T::default()
        })
    }

    /// Once for each stretch of failures.
    fn complain(&mut self, error: &SpoolError) {
        if !std::mem::replace(&mut self.fails, true) {
            let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            tracing::error!(%error, cause, "the spool cannot be written or read; trying again");
        }
    }
}

/// As far as it is to be sent.
fn amount(observations: &[Observation]) -> Amount {
    observations.iter().filter(|observation| observation.record.is_some()).fold(
        Amount::default(),
        |sum, observation| Amount { records: sum.records + 1, bytes: sum.bytes + observation.bytes() as u64 },
    )
}
