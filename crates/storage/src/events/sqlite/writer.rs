//! A writer thread: gathers the batches that wait, one transaction per file, then answers.

use super::layout::{Day, Key};
use super::partition::{self, Partition, PartitionError};
use super::{Shared, StoredEvent};
use crate::sqlite::io_error;
use crate::{StorageError, StorageResult};
use model::{ErrorKind, OrgId};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};

/// Batches that may wait for a writer; callers beyond that wait to hand theirs in.
const BATCHES_WAITING_MAX: usize = 8;
/// Events after which a transaction takes no further batch.
const TRANSACTION_EVENTS: usize = 20_000;
/// Day files that one writer keeps open.
const OPEN_DAYS_MAX: usize = 8;

type Answer<T> = oneshot::Sender<StorageResult<T>>;

enum Job {
    Append { events: Vec<StoredEvent>, answer: Answer<usize> },
    PutAside { key: Key, reason: String, generation: u64, answer: Answer<()> },
    DropBefore { org: OrgId, first_kept: Day, answer: Answer<usize> },
}

/// The handle of a writer thread. Dropping it finishes what was handed in and closes its files.
pub(super) struct Writer {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub fn start(shared: Arc<Shared>) -> StorageResult<Self> {
        let (jobs, inbox) = mpsc::channel(BATCHES_WAITING_MAX);
        let thread = std::thread::Builder::new()
            .name("events-writer".into())
            .spawn(move || Loop { shared, open: VecDeque::new() }.run(inbox))
            .map_err(|e| io_error("failed to start a writer thread".into(), e))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Hands in a batch; the answer comes when it is on disk.
    pub async fn append(&self, events: Vec<StoredEvent>) -> StorageResult<oneshot::Receiver<StorageResult<usize>>> {
        let (answer, result) = oneshot::channel();
        self.send(Job::Append { events, answer }).await?;
        Ok(result)
    }

    /// Renames the file of `key` aside, which a reader found broken at `generation`.
    pub async fn put_aside(&self, key: Key, reason: String, generation: u64) -> StorageResult<()> {
        let (answer, result) = oneshot::channel();
        self.send(Job::PutAside { key, reason, generation, answer }).await?;
        result.await.unwrap_or_else(|_| Err(panicked()))
    }

    pub async fn drop_before(&self, org: OrgId, first_kept: Day) -> StorageResult<usize> {
        let (answer, result) = oneshot::channel();
        self.send(Job::DropBefore { org, first_kept, answer }).await?;
        result.await.unwrap_or_else(|_| Err(panicked()))
    }

    async fn send(&self, job: Job) -> StorageResult<()> {
        let gone = || StorageError::new(ErrorKind::Unavailable, "the event writer is not running");
        self.jobs.as_ref().ok_or_else(gone)?.send(job).await.map_err(|_| gone())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it catches panics; what it had to say is in the log
        }
    }
}

pub(super) fn panicked() -> StorageError {
    StorageError::new(ErrorKind::Internal, "the event writer panicked; see the log")
}

struct Loop {
    shared: Arc<Shared>,
    /// Open files, the most recently used last.
    open: VecDeque<Partition>,
}

type Batch = (Vec<StoredEvent>, Answer<usize>);

impl Loop {
    fn run(mut self, mut inbox: mpsc::Receiver<Job>) {
        let mut next = None;
        while let Some(job) = next.take().or_else(|| inbox.blocking_recv()) {
            let work = AssertUnwindSafe(|| match job {
                Job::Append { events, answer } => {
                    let mut waiting = events.len();
                    let mut batches = vec![(events, answer)];
                    while waiting < TRANSACTION_EVENTS {
                        match inbox.try_recv() {
                            Ok(Job::Append { events, answer }) => {
                                waiting += events.len();
                                batches.push((events, answer));
                            }
                            Ok(other) => {
                                next = Some(other);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    self.append(batches);
                }
                Job::PutAside { key, reason, generation, answer } => {
                    // Files went in between: this one may be the new one. The next read will tell.
                    let is_current = self.shared.readers.generation() == generation;
                    let _ = answer.send(if is_current { self.put_aside(&key, &reason) } else { Ok(()) });
                }
                Job::DropBefore { org, first_kept, answer } => {
                    let _ = answer.send(self.drop_before(&org, first_kept));
                }
            });
            if catch_unwind(work).is_err() {
                tracing::error!("the event writer panicked; the batch is not stored");
                self.open.clear();
            }
        }
        self.shared.readers.forget(|_| true); // closed last, a writer leaves no WAL behind
        self.open.drain(..).for_each(Partition::close);
    }

    fn append(&mut self, batches: Vec<Batch>) {
        let mut results: Vec<StorageResult<usize>> = batches.iter().map(|_| Ok(0)).collect();
        let mut files: Vec<(Key, Vec<(usize, &StoredEvent)>)> = Vec::new();
        let mut at = 0;
        for (tag, (events, _)) in batches.iter().enumerate() {
            for event in events {
                let day = Day::of(event.id);
                let is_of = |key: &Key| key.day == day && key.org == event.org;
                if !files.get(at).is_some_and(|(key, _)| is_of(key)) {
                    at = files.iter().position(|(key, _)| is_of(key)).unwrap_or_else(|| {
                        files.push((Key { org: event.org.clone(), day }, Vec::new()));
                        files.len() - 1
                    });
                }
                files[at].1.push((tag, event));
            }
        }
        for (key, events) in files {
            let mut added = vec![0; results.len()];
            let stored = self.append_to(&key, &events, &mut added);
            for (tag, _) in &events {
                if let Err(error) = &stored {
                    results[*tag] = Err(error.clone());
                }
            }
            for (result, added) in results.iter_mut().zip(added) {
                if let Ok(n) = result {
                    *n += added;
                }
            }
        }
        for ((_, answer), result) in batches.into_iter().zip(results) {
            let _ = answer.send(result); // nobody waits any more: it is stored all the same
        }
        self.open.iter_mut().for_each(Partition::checkpoint_if_due);
    }

    /// Stores events of one file. A broken file is put aside once, and a new one begun.
    fn append_to(&mut self, key: &Key, events: &[(usize, &StoredEvent)], added: &mut [usize]) -> StorageResult<()> {
        match self.try_append_to(key, events, added) {
            Ok(()) => Ok(()),
            Err(PartitionError::Broken(error)) => {
                self.put_aside(key, &error.to_string())?;
                self.try_append_to(key, events, added).map_err(|again| match again {
                    PartitionError::Broken(error) => error.into(),
                    PartitionError::Other(error) => error,
                })
            }
            Err(PartitionError::Other(error)) => Err(error),
        }
    }

    fn try_append_to(
        &mut self,
        key: &Key,
        events: &[(usize, &StoredEvent)],
        added: &mut [usize],
    ) -> Result<(), PartitionError> {
        let mut partition = self.take(key)?;
        added.fill(0);
        match partition.append(events, |tag| added[tag] += 1) {
            Ok(()) => {
                self.shared.totals().insert(key.clone(), partition.total);
                self.open.push_back(partition);
                Ok(())
            }
            Err(error) => {
                added.fill(0);
                Err(error) // the partition is closed: what it remembers may not be so
            }
        }
    }

    /// The open file of `key`, out of the list.
    fn take(&mut self, key: &Key) -> Result<Partition, PartitionError> {
        if let Some(at) = self.open.iter().position(|p| p.key == *key)
            && let Some(partition) = self.open.remove(at)
            && partition.is_in_place()
        {
            return Ok(partition);
        }
        while self.open.len() >= OPEN_DAYS_MAX {
            if let Some(oldest) = self.open.pop_front() {
                oldest.close();
            }
        }
        Partition::open(&self.shared.dir, key.clone())
    }

    fn put_aside(&mut self, key: &Key, reason: &str) -> StorageResult<()> {
        self.forget(|k| k == key);
        let aside = partition::put_aside(&self.shared.dir, key);
        self.shared.readers.forget(|k| k == key); // who opened it in between has the old file
        let Some(aside) = aside? else { return Ok(()) };
        self.shared.put_aside.fetch_add(1, Ordering::Relaxed);
        tracing::error!(file = %aside.display(), reason, "a day of events is broken and was put aside");
        Ok(())
    }

    fn drop_before(&mut self, org: &OrgId, first_kept: Day) -> StorageResult<usize> {
        self.forget(|key| key.org == *org && key.day < first_kept);
        let dropped = partition::remove_before(&self.shared.dir.join(org.as_str()), first_kept);
        self.shared.readers.forget(|key| key.org == *org && key.day < first_kept);
        dropped
    }

    /// Closes the files that `which` names, here and at the readers.
    fn forget(&mut self, which: impl Fn(&Key) -> bool) {
        self.open.retain(|partition| !which(&partition.key));
        self.shared.readers.forget(&which);
        self.shared.totals().retain(|key, _| !which(key));
    }
}
