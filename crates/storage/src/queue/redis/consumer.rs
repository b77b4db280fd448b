//! A worker: takes records to its list, leases them out, settles them.

use super::bell::{Bell, Rung};
use super::held::Held;
use super::ids::Ids;
use super::{ALIGN, FETCH, RENEW, SETTLE, Shared, letter, lock};
use crate::queue::{Consumer, Delivery, Settlement};
use crate::{StorageError, StorageResult};
use async_trait::async_trait;
use bytes::Bytes;
use model::ErrorKind;
use redis::ScriptInvocation;
use runtime::backoff::Backoff;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard, Notify};
use tokio::time::Instant;

/// Pauses between looks at an empty queue while Redis has no memory for waiting there.
const LOOK: Duration = Duration::from_millis(50);
const LOOK_MAX: Duration = Duration::from_secs(1);

/// What a consumer, its bell and the keeper share.
pub struct Lane {
    pub worker: String,
    shared: Arc<Shared>,
    state: Mutex<LaneState>,
    /// Woken when something became due, or the bell has ended.
    pub due: Notify,
    bell_ended: Notify,
}

#[derive(Default)]
pub struct LaneState {
    pub held: Held,
    ids: Ids,
    /// The heartbeat is there.
    registered: bool,
    /// An answer of Redis was lost: the list may differ from `held`.
    unsure: bool,
    /// The bell is waiting at the queue: whatever it gets goes to the young end of the list, and
    /// nobody else may fetch meanwhile, so that the order stays known.
    pub ringing: bool,
    /// How often in a row the bell has failed.
    bell_failures: u32,
    /// Why the bell cannot wait; the next call that finds nothing says so.
    bell_error: Option<StorageError>,
    /// The bell rests until then, and the queue is looked at instead.
    bell_rests_until: Option<Instant>,
}

impl LaneState {
    fn bell_works(&mut self) {
        self.bell_failures = 0;
        self.bell_error = None;
        self.bell_rests_until = None;
    }
}

impl Lane {
    /// The state, signed in, and after making sure that it is true.
    async fn certain(&self) -> StorageResult<MutexGuard<'_, LaneState>> {
        loop {
            let mut state = self.state.lock().await;
            if !state.registered {
                self.renew_locked(&mut state).await?;
            }
            if !state.unsure {
                return Ok(state);
            }
            if !state.ringing {
                self.align(&mut state).await?;
                return Ok(state);
            }
            // The list could hold what the bell is just about to tell.
            let ended = self.bell_ended.notified();
            drop(state);
            ended.await;
        }
    }

    async fn align(&self, state: &mut LaneState) -> StorageResult<()> {
        let list = match self.list(state).await? {
            Some(list) => list,
            None => {
                self.renew_locked(state).await?;
                self.list(state).await?.ok_or_else(|| {
                    StorageError::new(
                        ErrorKind::Unavailable,
                        format!("the worker {} lost its lease twice", self.worker),
                    )
                })?
            }
        };
        self.align_with(state, list);
        Ok(())
    }

    /// The list as it is in Redis, oldest first, every record with its id; `None`: the lease is lost.
    async fn list(&self, state: &mut LaneState) -> StorageResult<Option<Vec<Bytes>>> {
        match self.list_once(state).await {
            // The connection was found broken. Ids that this try may have given are not given again.
            Err(error) if error.kind() == ErrorKind::Unavailable => self.list_once(state).await,
            answer => answer,
        }
    }

    async fn list_once(&self, state: &mut LaneState) -> StorageResult<Option<Vec<Bytes>>> {
        let mut call = ALIGN.prepare_invoke();
        call.key(self.shared.processing(&self.worker)).key(self.shared.heartbeat(&self.worker));
        self.offer_ids(state, &mut call);
        let answer = self.shared.client.script_once(&call).await?;
        Ok(self.handed(state, answer))
    }

    fn offer_ids(&self, state: &mut LaneState, call: &mut ScriptInvocation<'_>) {
        if let Some(foreign) = &self.shared.keys.foreign_ids {
            state.ids.add_to(call, foreign, self.shared.clock.now());
        }
    }

    /// The records of a script's answer, oldest first; how many ids were used is noted.
    fn handed(&self, state: &mut LaneState, answer: Option<(Vec<Bytes>, u64)>) -> Option<Vec<Bytes>> {
        let (mut records, given) = answer?;
        if self.shared.keys.foreign_ids.is_some() {
            state.ids.used(given);
        }
        records.reverse();
        Some(records)
    }

    fn align_with(&self, state: &mut LaneState, list: Vec<Bytes>) {
        let now = Instant::now();
        let before = state.held.len();
        state.held.align(list, now);
        tracing::debug!(worker = self.worker, before, now = state.held.len(), "compared what is held with Redis");
        state.unsure = false;
    }

    /// Keeps the lease; finds out whether it was lost.
    pub async fn renew(&self) -> StorageResult<()> {
        let mut state = self.state.lock().await;
        if !state.registered && state.held.len() == 0 {
            return Ok(()); // nothing was ever taken
        }
        self.renew_locked(&mut state).await
    }

    async fn renew_locked(&self, state: &mut LaneState) -> StorageResult<()> {
        let shared = &self.shared;
        let mut call = RENEW.prepare_invoke();
        call.key(shared.heartbeat(&self.worker)).key(&shared.workers).key(shared.processing(&self.worker));
        call.arg(&self.worker).arg(shared.keys.silence_max.as_millis() as u64).arg(state.held.len());
        let answer: i64 = shared.client.script(&call).await?;
        let first = !state.registered;
        state.registered = true;
        if answer != 1 && !first {
            tracing::warn!(
                worker = self.worker,
                held = state.held.len(),
                taken = answer == 0,
                "the lease of a worker had run out; what was given to others will be worked there"
            );
            state.unsure = true;
        }
        Ok(())
    }

    /// Tells Redis what was settled. A failure loses nothing: the keeper and the next call repeat it.
    async fn tell(&self) -> StorageResult<()> {
        let shared = &self.shared;
        // A lost lease is renewed and compared; what is still there is settled then.
        for _ in 0..3 {
            let mut state = self.certain().await?;
            let changes = state.held.changes();
            if changes.is_empty() {
                return Ok(());
            }
            let mut call = SETTLE.prepare_invoke();
            call.key(shared.processing(&self.worker)).key(shared.heartbeat(&self.worker)).key(&shared.keys.list);
            call.key(shared.letters.as_ref().map_or("", |(list, _)| list));
            call.arg(changes.oldest);
            for (what, record) in &changes.steps {
                call.arg(*what).arg(&record[..]);
            }
            if self.once::<i64>(&mut state, &call).await? == 1 {
                state.held.changed();
                // What the bell is moving just now may lie on either side of what was put at the young end.
                state.unsure = state.ringing && changes.steps.iter().any(|(what, _)| *what == "again");
                return Ok(());
            }
            self.renew_locked(&mut state).await?;
            state.unsure = true;
        }
        Ok(())
    }

    /// A script that moves records of this worker: after a lost answer the list is looked at.
    async fn once<T: redis::FromRedisValue>(
        &self,
        state: &mut LaneState,
        call: &ScriptInvocation<'_>,
    ) -> StorageResult<T> {
        // Set before and cleared after, so that a caller who goes away leaves it set.
        state.unsure = true;
        let answer = self.shared.client.script_once(call).await?;
        state.unsure = false;
        Ok(answer)
    }

    /// Takes from the queue what is there, at most `limit`.
    async fn fetch(&self, state: &mut LaneState, limit: usize) -> StorageResult<()> {
        let shared = &self.shared;
        for _ in 0..2 {
            let mut call = FETCH.prepare_invoke();
            call.key(&shared.keys.list).key(shared.processing(&self.worker)).key(shared.heartbeat(&self.worker));
            call.arg(limit);
            self.offer_ids(state, &mut call);
            let answer = self.once(state, &call).await?;
            match self.handed(state, answer) {
                Some(records) => {
                    state.held.add(records, Instant::now());
                    return Ok(());
                }
                None => {
                    self.renew_locked(state).await?;
                    self.align(state).await?;
                }
            }
        }
        Ok(())
    }

    /// How the bell's waiting ended.
    pub async fn rang(&self, rung: Rung) {
        let mut state = self.state.lock().await;
        state.ringing = false;
        match rung {
            Rung::Got(record) => {
                state.bell_works();
                let has_id = self.shared.keys.foreign_ids.is_none_or(|foreign| foreign.are_in(&record));
                if has_id {
                    state.held.add(vec![record], Instant::now());
                } else {
                    // Looking at the list gives it its id, before anybody works it.
                    state.unsure = true;
                }
            }
            Rung::Nothing => state.bell_works(),
            Rung::OutOfMemory => {
                state.bell_failures = state.bell_failures.saturating_add(1);
                let pause = Backoff::new(LOOK, LOOK_MAX).delay(state.bell_failures);
                state.bell_rests_until = Some(Instant::now() + pause);
            }
            // It is the caller who knows how long to wait before the next try.
            Rung::Refused(error) => state.bell_error = Some(error),
            Rung::Lost(error) => {
                state.unsure = true;
                state.bell_failures = state.bell_failures.saturating_add(1);
                // One connection may break at any time; a second one in a row is worth telling.
                if state.bell_failures > 1 {
                    state.bell_error = Some(error);
                }
            }
        }
        drop(state);
        self.bell_ended.notify_waiters();
        self.due.notify_one();
    }

    /// Gives back what was leased too long ago and repeats what Redis was not told: the keeper's
    /// round.
    pub async fn flush(&self) -> StorageResult<()> {
        let mut state = self.state.lock().await;
        if !state.registered {
            return Ok(());
        }
        let given_back = state.held.give_back_expired(Instant::now());
        if given_back > 0 {
            tracing::warn!(worker = self.worker, given_back, "records were held longer than their lease");
        }
        drop(state);
        self.tell().await
    }

    /// Records that wait for their time.
    pub async fn delayed(&self) -> u64 {
        self.state.lock().await.held.delayed() as u64
    }
}

pub struct RedisConsumer {
    lane: Arc<Lane>,
    bell: Bell,
}

impl RedisConsumer {
    pub fn new(shared: &Arc<Shared>) -> Self {
        let worker = format!("{}-{:08x}", shared.pod, fastrand::u32(..));
        let lane = Arc::new(Lane {
            worker,
            shared: Arc::clone(shared),
            state: Mutex::default(),
            due: Notify::new(),
            bell_ended: Notify::new(),
        });
        lock(&shared.lanes).push(Arc::downgrade(&lane));
        let (queue, list) = (shared.keys.list.clone(), shared.processing(&lane.worker));
        Self { bell: Bell::new(shared.client.clone(), queue, list), lane }
    }
}

#[async_trait]
impl Consumer for RedisConsumer {
    async fn next(&mut self, limit: usize, wait: Duration) -> StorageResult<Vec<Delivery>> {
        let deadline = Instant::now() + wait;
        let lease_for = self.lane.shared.limits.lease;
        loop {
            let wake = self.lane.due.notified();
            let alarm = {
                let mut state = self.lane.certain().await?;
                let now = Instant::now();
                let mut found = state.held.lease(limit, now, lease_for);
                if found.len() < limit && !state.ringing {
                    self.lane.fetch(&mut state, limit - found.len()).await?;
                    found.extend(state.held.lease(limit - found.len(), now.max(Instant::now()), lease_for));
                }
                if !found.is_empty() {
                    return Ok(found);
                }
                if let Some(error) = state.bell_error.take() {
                    return Err(error);
                }
                let rests_until = state.bell_rests_until.filter(|until| Instant::now() < *until);
                if !state.ringing && rests_until.is_none() && Instant::now() < deadline {
                    state.ringing = true;
                    self.bell.ring(&self.lane);
                }
                [state.held.next_due(), rests_until].into_iter().flatten().fold(deadline, Instant::min)
            };
            tokio::select! {
                () = wake => {}
                () = tokio::time::sleep_until(alarm) => {
                    if Instant::now() >= deadline {
                        return Ok(Vec::new());
                    }
                }
            }
        }
    }

    async fn settle(&mut self, batch: Vec<Settlement>) -> StorageResult<()> {
        let shared = &self.lane.shared;
        let mut state = self.lane.state.lock().await;
        state.held.settle(batch, Instant::now(), |rejection, attempts, payload| {
            shared.letters.as_ref().map(|(_, side)| letter(*side, shared, rejection, attempts, payload))
        });
        drop(state);
        // The bell may be out: what it moves goes to the young end, and settling cuts at the old one.
        self.lane.tell().await?;
        self.lane.due.notify_one();
        Ok(())
    }
}

/// Ends the worker: its records go back at once instead of after its silence.
impl Drop for RedisConsumer {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let lane = Arc::clone(&self.lane);
        let bell = self.bell.end();
        *lock(&lane.shared.leaving) += 1;
        let leaving = Leaving(Arc::downgrade(&lane.shared));
        runtime.spawn(async move {
            let _leaving = leaving;
            bell.await;
            if !lane.state.lock().await.registered {
                return;
            }
            if let Err(error) = lane.tell().await {
                tracing::warn!(worker = lane.worker, %error, "a worker ended without settling; its work may be repeated");
            }
            // The keeper must not sign it in again.
            *lane.state.lock().await = LaneState::default();
            if let Err(error) = lane.shared.reap(&lane.worker, true).await {
                tracing::warn!(worker = lane.worker, %error, "a worker could not hand back its records; others will find them");
            }
        });
    }
}

/// Counts a worker that is leaving, until it has left.
struct Leaving(Weak<Shared>);

impl Drop for Leaving {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            *lock(&shared.leaving) -= 1;
            shared.left.notify_waiters();
        }
    }
}
