//! The thread that owns the spool: collectors hand in, the uploader asks.
//!
//! What waits to be written when it comes to it is written together, with one sync. While the disk takes nothing,
//! collectors wait; the uploader is served all the same, so that room can come.

use super::{Amount, Numbered, Observation, Spool, SpoolError};
use agent_core::{Cut, Restored, Sent};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// How much is gathered into one write.
const GROUP_BYTES_MAX: usize = 512 * 1024;
/// Hand-ins that may wait.
const WAITING_MAX: usize = 16;
const SAVE_EVERY: Duration = Duration::from_secs(30);
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// What came in since the start, and how the spool is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    pub records: u64,
    pub bytes: u64,
    pub used_bytes: u64,
    pub dropped: BTreeMap<String, u64>,
}

enum Request {
    Cut { from_seq: u64, records_max: u64, bytes_max: u64, reply: oneshot::Sender<Option<Cut>> },
    Mark(Sent, oneshot::Sender<bool>),
    Read(Sent, oneshot::Sender<Vec<Numbered>>),
    Forget(u64),
    Rename(u64, oneshot::Sender<Option<(Restored, Amount)>>),
}

/// The uploader's side.
pub struct SpoolHandle {
    requests: mpsc::Sender<Request>,
    pub counts: watch::Receiver<Counts>,
}

/// The collectors' side.
#[derive(Clone)]
pub struct Sink {
    puts: mpsc::Sender<Vec<Observation>>,
    has_room: Arc<AtomicBool>,
}

impl Sink {
    /// One that hands on to a test.
    #[cfg(test)]
    pub fn for_tests() -> (Self, mpsc::Receiver<Vec<Observation>>) {
        let (puts, handed_in) = mpsc::channel(1_024);
        (Self { puts, has_room: Arc::new(AtomicBool::new(true)) }, handed_in)
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
        self.has_room.load(Ordering::Relaxed)
    }
}

/// Starts the thread. It ends when the handle and all sinks are gone; wait for it then.
pub fn start(spool: Spool) -> (SpoolHandle, Sink, tokio::task::JoinHandle<Result<(), SpoolError>>) {
    let (requests, asked) = mpsc::channel(8);
    let (puts, handed_in) = mpsc::channel(WAITING_MAX);
    let (counts_tx, counts) = watch::channel(Counts::default());
    let has_room = Arc::new(AtomicBool::new(spool.room().has_for_readable()));
    let worker = Worker {
        spool,
        counts: counts_tx,
        has_room: has_room.clone(),
        waiting: VecDeque::new(),
        written: Counts::default(),
        fails: false,
    };
    let runtime = tokio::runtime::Handle::current();
    let task = tokio::task::spawn_blocking(move || runtime.block_on(worker.serve(asked, handed_in)));
    (SpoolHandle { requests, counts }, Sink { puts, has_room }, task)
}

impl SpoolHandle {
    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.ok()?;
        answer.await.ok()
    }

    pub async fn cut(&self, from_seq: u64, records_max: u64, bytes_max: u64) -> Option<Cut> {
        self.ask(|reply| Request::Cut { from_seq, records_max, bytes_max, reply }).await.flatten()
    }

    /// Whether it is remembered.
    pub async fn mark(&self, sent: Sent) -> bool {
        self.ask(|reply| Request::Mark(sent, reply)).await.unwrap_or(false)
    }

    pub async fn read(&self, sent: Sent) -> Vec<Numbered> {
        self.ask(|reply| Request::Read(sent, reply)).await.unwrap_or_default()
    }

    pub async fn forget(&self, through_seq: u64) {
        // Without the thread there is nobody to forget.
        let _ = self.requests.send(Request::Forget(through_seq)).await;
    }

    pub async fn rename(&self, epoch: u64) -> Option<(Restored, Amount)> {
        self.ask(|reply| Request::Rename(epoch, reply)).await.flatten()
    }
}

struct Worker {
    spool: Spool,
    counts: watch::Sender<Counts>,
    has_room: Arc<AtomicBool>,
    /// Handed in, not yet kept.
    waiting: VecDeque<Observation>,
    written: Counts,
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
            tokio::select! {
                biased;
                request = asked.recv(), if uploader_runs => match request {
                    Some(request) => self.answer(request),
                    None => uploader_runs = false,
                },
                observations = handed_in.recv(), if self.waiting.is_empty() && collectors_run => {
                    match observations {
                        Some(observations) => self.gather(observations, &mut handed_in),
                        None => collectors_run = false,
                    }
                    self.write();
                }
                () = tokio::time::sleep(RETRY_EVERY), if !self.waiting.is_empty() => self.write(),
                _ = save.tick() => self.log(|spool| spool.save_if_moved()),
            }
        }
        // What the disk did not take until now is read again by the next run, where it can be.
        self.write();
        self.spool.close()
    }

    fn gather(&mut self, first: Vec<Observation>, handed_in: &mut mpsc::Receiver<Vec<Observation>>) {
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(observations) = next {
            bytes += observations.iter().map(Observation::bytes).sum::<usize>();
            self.waiting.extend(observations);
            next = if bytes < GROUP_BYTES_MAX { handed_in.try_recv().ok() } else { None };
        }
    }

    fn write(&mut self) {
        while !self.waiting.is_empty() {
            match self.spool.put(self.waiting.make_contiguous()) {
                Ok((taken, amount)) => {
                    self.waiting.drain(..taken);
                    self.written.records += amount.records;
                    self.written.bytes += amount.bytes;
                    self.fails = false;
                    self.tell();
                }
                Err(error) => {
                    self.complain(&error);
                    break;
                }
            }
        }
        self.waiting.shrink_to(1_024);
    }

    fn tell(&mut self) {
        let room = self.spool.room();
        self.has_room.store(room.has_for_readable(), Ordering::Relaxed);
        self.written.used_bytes = room.used_bytes;
        if self.written.dropped != *self.spool.dropped().by_stream() {
            self.written.dropped = self.spool.dropped().by_stream().clone();
        }
        self.counts.send_replace(self.written.clone());
    }

    fn answer(&mut self, request: Request) {
        // Whoever does not wait for the answer any more does not need it.
        match request {
            Request::Cut { from_seq, records_max, bytes_max, reply } => {
                let cut = self.log(|spool| spool.cut(from_seq, records_max, bytes_max));
                let _ = reply.send(cut);
            }
            Request::Mark(sent, reply) => {
                let result = self.spool.mark(sent);
                let _ = reply.send(result.is_ok());
                if let Err(error) = result {
                    self.complain(&error);
                }
            }
            Request::Read(sent, reply) => {
                let records = self.log(|spool| spool.read(sent));
                let _ = reply.send(records);
            }
            Request::Forget(through_seq) => {
                self.log(|spool| spool.forget(through_seq));
                self.tell();
            }
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
