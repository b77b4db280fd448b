//! The queue over any numbered store of records: leases, waits, bounds, dead letters.

use super::lease::{Change, Due, LeaseTable, Spend, ranges_of};
use super::{
    Consumer, Delivery, Durability, Peeked, Queue, QueueLimits, QueueName, QueueStats, Settlement, Token, Verdict,
    encode_dead_letter,
};
use crate::{StorageError, StorageResult};
use async_trait::async_trait;
use bytes::Bytes;
use model::{DeadLetter, DeadLetterSide, ErrorKind};
use runtime::Clock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// Called once the fate of an append is known.
pub type Done = Box<dyn FnOnce(StorageResult<std::ops::Range<u64>>) + Send>;

/// Records read from a store: those present, and the number after the last one looked at.
#[derive(Debug, Default)]
pub struct Chunk {
    pub records: Vec<(u64, Bytes)>,
    pub next: u64,
}

/// Numbered records and a journal of what is settled.
pub trait RecordStore: Send + Sync + 'static {
    /// Numbers and keeps the batch; calls `done` when it is as durable as asked.
    fn append(&self, batch: Vec<Bytes>, durability: Durability, done: Done);
    /// Records from `from` on that are committed; blocking.
    fn read(&self, from: u64, records_max: usize, bytes_max: usize) -> StorageResult<Chunk>;
    /// The number the next committed record gets.
    fn end(&self) -> u64;
    /// Remembers changes across a crash of the process; blocking.
    fn journal(&self, changes: &[Change], table: &LeaseTable) -> StorageResult<()>;
    /// Makes appended records and the journal durable; blocking.
    fn flush(&self) -> StorageResult<()>;
    fn bytes(&self) -> u64;
    fn quarantined(&self) -> u64;
    /// Woken whenever `end` moves.
    fn committed(&self) -> &Notify;
}

struct Shared<S> {
    name: QueueName,
    store: S,
    table: Mutex<LeaseTable>,
    /// [`LeaseTable::settled_count`], to be read without waiting for the table.
    settled: AtomicU64,
    /// Woken when a record was given back, so that sleepers compute their alarm anew.
    given_back: Notify,
    limits: QueueLimits,
    /// Records handed to `append` whose fate is open.
    appending: AtomicU64,
    dead_letters: Option<(Arc<dyn Queue>, DeadLetterSide)>,
    clock: Arc<dyn Clock>,
}

/// A queue; clones share it.
pub struct LeasedQueue<S>(Arc<Shared<S>>);

impl<S: RecordStore> LeasedQueue<S> {
    pub fn new(
        name: QueueName,
        store: S,
        table: LeaseTable,
        limits: &QueueLimits,
        dead_letters: Option<(Arc<dyn Queue>, DeadLetterSide)>,
        clock: &Arc<dyn Clock>,
    ) -> Self {
        Self(Arc::new(Shared {
            name,
            store,
            settled: AtomicU64::new(table.settled_count()),
            table: Mutex::new(table),
            given_back: Notify::new(),
            limits: limits.clone(),
            appending: AtomicU64::new(0),
            dead_letters,
            clock: Arc::clone(clock),
        }))
    }
}

impl<S: RecordStore> Shared<S> {
    fn table(&self) -> MutexGuard<'_, LeaseTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn depth(&self) -> u64 {
        self.store.end().saturating_sub(self.settled.load(Ordering::Acquire))
    }

    /// Ends a change of the table: moves the cursor and shows the new depth.
    fn finish(&self, table: &mut LeaseTable) {
        table.advance();
        self.settled.store(table.settled_count(), Ordering::Release);
    }

    /// Runs blocking work of the store off the async threads.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> StorageResult<T> + Send + 'static,
    ) -> StorageResult<T> {
        let shared = Arc::clone(self);
        tokio::task::spawn_blocking(move || work(&shared))
            .await
            .map_err(|e| StorageError::with_source(ErrorKind::Internal, "queue worker", e))?
    }

    /// Leases what is there now; blocking.
    fn lease_now(&self, limit: usize) -> StorageResult<Vec<Delivery>> {
        const CHUNK_BYTES: usize = 4 << 20;
        let now = Instant::now();
        let mut table = self.table();
        table.expire(now);
        let again = table.lease_waiting(now, limit);
        let mut deliveries = Vec::new();
        let mut gone = Vec::new();
        for due in again {
            let chunk = self.store.read(due.seq, 1, CHUNK_BYTES)?;
            match chunk.records.into_iter().find(|(seq, _)| *seq == due.seq) {
                Some((_, payload)) => deliveries.push(delivery(due, payload)),
                None => gone.push(due.seq), // broken on disk since: quarantined and counted by the store
            }
        }
        for seq in gone {
            table.settle(seq);
        }
        while deliveries.len() < limit {
            let from = table.next_unread();
            if from >= self.store.end() {
                break;
            }
            let chunk = self.store.read(from, limit - deliveries.len(), CHUNK_BYTES)?;
            if chunk.next <= from {
                break;
            }
            let seqs: Vec<u64> = chunk.records.iter().map(|(seq, _)| *seq).collect();
            let due = table.lease_fresh(now, &seqs, chunk.next);
            let mut due = due.into_iter().peekable();
            for (seq, payload) in chunk.records {
                if let Some(due) = due.next_if(|d| d.seq == seq) {
                    deliveries.push(delivery(due, payload));
                }
            }
        }
        self.finish(&mut table);
        Ok(deliveries)
    }

    async fn append(&self, batch: Vec<Bytes>, durability: Durability) -> StorageResult<()> {
        let count = batch.len() as u64;
        if count == 0 {
            return Ok(());
        }
        self.limits.refuse_oversize(&batch)?;
        let before = self.appending.fetch_add(count, Ordering::AcqRel);
        let taken = Taken { appending: &self.appending, count };
        let depth = self.depth();
        if depth + before + count > self.limits.records_max(self.name) {
            return Err(self.limits.full(self.name, depth));
        }
        let (tx, rx) = oneshot::channel();
        self.store.append(
            batch,
            durability,
            Box::new(move |result| {
                let _ = tx.send(result);
            }),
        );
        let result =
            rx.await.map_err(|e| StorageError::with_source(ErrorKind::Unavailable, "the queue is closed", e))?;
        drop(taken);
        result?;
        Ok(())
    }
}

/// Counts records in flight; gives the count back also when the caller goes away.
struct Taken<'a> {
    appending: &'a AtomicU64,
    count: u64,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.appending.fetch_sub(self.count, Ordering::AcqRel);
    }
}

fn delivery(due: Due, payload: Bytes) -> Delivery {
    Delivery { payload, attempts: due.attempts, token: Token { seq: due.seq, lease: due.lease } }
}

#[async_trait]
impl<S: RecordStore> Queue for LeasedQueue<S> {
    async fn publish(&self, batch: Vec<Bytes>, durability: Durability) -> StorageResult<()> {
        self.0.append(batch, durability).await?;
        Ok(())
    }

    fn consumer(&self) -> Box<dyn Consumer> {
        Box::new(LeasedConsumer(Arc::clone(&self.0)))
    }

    async fn stats(&self) -> StorageResult<QueueStats> {
        let shared = &self.0;
        let table = shared.table();
        Ok(QueueStats {
            depth: shared.depth(),
            leased: table.leased(),
            delayed: table.waiting(),
            bytes: shared.store.bytes(),
            quarantined: shared.store.quarantined(),
            limit: shared.limits.records_max(shared.name),
        })
    }

    async fn peek(&self, after: Option<u64>, limit: usize) -> StorageResult<Vec<Peeked>> {
        self.0
            .blocking(move |shared| {
                let mut seen = Vec::new();
                let mut at = match after {
                    Some(position) => position.saturating_add(1),
                    None => 0,
                }
                .max(shared.table().cursor());
                let end = shared.store.end();
                while seen.len() < limit && at < end {
                    let chunk = shared.store.read(at, 1_000, 1 << 20)?;
                    if chunk.next <= at {
                        break;
                    }
                    at = chunk.next;
                    let table = shared.table();
                    seen.extend(chunk.records.into_iter().filter(|(seq, _)| !table.is_settled(*seq)).map(
                        |(position, payload)| Peeked {
                            position,
                            payload,
                            attempts: table.attempts(position),
                            leased: table.is_leased(position),
                        },
                    ));
                }
                seen.truncate(limit);
                Ok(seen)
            })
            .await
    }

    async fn find(&self, positions: &[u64]) -> StorageResult<Vec<Peeked>> {
        let mut found = Vec::new();
        for position in positions {
            let next = self.peek(position.checked_sub(1), 1).await?;
            found.extend(next.into_iter().filter(|record| record.position == *position));
        }
        Ok(found)
    }

    async fn take(&self, positions: &[u64]) -> StorageResult<Vec<Bytes>> {
        let positions = positions.to_vec();
        self.0
            .blocking(move |shared| {
                let mut taken = Vec::new();
                let mut settled = Vec::new();
                let now = Instant::now();
                for position in positions {
                    let chunk = shared.store.read(position, 1, 1 << 20)?;
                    let Some((_, payload)) = chunk.records.into_iter().find(|(seq, _)| *seq == position) else {
                        continue;
                    };
                    let mut table = shared.table();
                    // What was never read has no slot yet; lease up to it, and give the rest back at once.
                    if position >= table.next_unread() {
                        let from = table.next_unread();
                        let mut at = from;
                        while at <= position {
                            let chunk = shared.store.read(at, 10_000, 16 << 20)?;
                            if chunk.next <= at {
                                break;
                            }
                            let seqs: Vec<u64> = chunk.records.iter().map(|(seq, _)| *seq).collect();
                            for due in table.lease_fresh(now, &seqs, chunk.next) {
                                table.give_back(due.seq, due.lease, now, Spend::None);
                            }
                            at = chunk.next;
                        }
                    }
                    if !table.is_settled(position) && !table.is_leased(position) && table.settle(position) {
                        settled.push(position);
                        taken.push(payload);
                    }
                }
                let mut table = shared.table();
                shared.finish(&mut table);
                shared.store.journal(&[Change::Settled(ranges_of(settled))], &table)?;
                Ok(taken)
            })
            .await
    }

    /// Only an append says whether a disk takes one.
    async fn probe(&self) -> StorageResult<()> {
        Ok(())
    }

    async fn flush(&self) -> StorageResult<()> {
        self.0.blocking(|shared| shared.store.flush()).await
    }
}

struct LeasedConsumer<S>(Arc<Shared<S>>);

#[async_trait]
impl<S: RecordStore> Consumer for LeasedConsumer<S> {
    async fn next(&mut self, limit: usize, wait: Duration) -> StorageResult<Vec<Delivery>> {
        let shared = &self.0;
        let deadline = Instant::now() + wait;
        loop {
            // Registered before looking, so that nothing that happens in between is missed.
            let committed = shared.store.committed().notified();
            let given_back = shared.given_back.notified();
            tokio::pin!(committed, given_back);
            committed.as_mut().enable();
            given_back.as_mut().enable();
            let maybe = {
                let table = shared.table();
                table.next_unread() < shared.store.end() || table.next_due().is_some_and(|at| at <= Instant::now())
            };
            if maybe {
                let found = shared.blocking(move |shared| shared.lease_now(limit)).await?;
                if !found.is_empty() {
                    return Ok(found);
                }
            }
            let alarm = shared.table().next_due().map_or(deadline, |at| at.min(deadline));
            tokio::select! {
                () = &mut committed => {}
                () = &mut given_back => {}
                () = tokio::time::sleep_until(alarm) => {
                    if Instant::now() >= deadline {
                        return Ok(Vec::new());
                    }
                }
            }
        }
    }

    async fn settle(&mut self, batch: Vec<Settlement>) -> StorageResult<()> {
        let shared = &self.0;
        let mut letters = Vec::new();
        for settlement in &batch {
            if let Verdict::Reject { rejection, attempts, payload } = &settlement.verdict {
                let Some((_, side)) = &shared.dead_letters else { continue };
                letters.push(encode_dead_letter(&DeadLetter {
                    side: *side,
                    reason: rejection.reason.clone(),
                    retryable: rejection.retryable,
                    attempts: *attempts,
                    replays: rejection.replays,
                    failed_at: shared.clock.now(),
                    original: payload.clone(),
                }));
            }
        }
        if !letters.is_empty()
            && let Some((queue, _)) = &shared.dead_letters
        {
            queue.publish(letters, Durability::Strict).await?;
        }
        shared
            .blocking(move |shared| {
                let now = Instant::now();
                let mut table = shared.table();
                let mut settled = Vec::new();
                let mut changes = Vec::new();
                for Settlement { token, verdict } in batch {
                    match verdict {
                        Verdict::Ack | Verdict::Reject { .. } => {
                            if table.settle(token.seq) {
                                settled.push(token.seq);
                            }
                        }
                        Verdict::Retry(delay) => {
                            if let Some(attempts) = table.give_back(token.seq, token.lease, now + delay, Spend::One) {
                                changes.push(Change::Attempts { seq: token.seq, attempts });
                            }
                        }
                        Verdict::Defer(delay) => {
                            table.give_back(token.seq, token.lease, now + delay, Spend::None);
                        }
                    }
                }
                shared.finish(&mut table);
                changes.push(Change::Settled(ranges_of(settled)));
                shared.store.journal(&changes, &table)?;
                drop(table);
                shared.given_back.notify_waiters();
                Ok(())
            })
            .await
    }
}
