//! From a listener to the sink: a few batches at a time, in order, retried while the sink refuses.

use super::batch::{Batch, Sealed};
use super::{Refused, Reject, Sink};
use model::{Durability, InputKind, OrgId};
use runtime::{Clock, Stop};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

/// Bounds on what a sink may ask for in `retry_after`.
const RETRY_MIN: Duration = Duration::from_millis(5);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// After a stop, refused batches are offered this much longer; then they are rejected and counted.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// What all listeners of an input share.
pub(super) struct Shared {
    pub sink: Arc<dyn Sink>,
    pub clock: Arc<dyn Clock>,
    pub stop: Stop,
    pub org: OrgId,
    pub durability: Durability,
    /// Bytes of batches in flight, in KiB, over all listeners and connections.
    pub in_flight_kib: Arc<Semaphore>,
    pub in_flight_kib_max: u32,
}

/// Bytes of events that may wait for the sink, over all listeners and connections of an input.
const IN_FLIGHT_KIB: u32 = 64 << 10;

impl Shared {
    pub(super) fn new(
        sink: Arc<dyn Sink>,
        clock: Arc<dyn Clock>,
        stop: Stop,
        org: OrgId,
        durability: Durability,
    ) -> Self {
        let in_flight_kib = Arc::new(Semaphore::new(IN_FLIGHT_KIB as usize));
        Self { sink, clock, stop, org, durability, in_flight_kib, in_flight_kib_max: IN_FLIGHT_KIB }
    }

    pub(super) fn reject(
        &self,
        input: InputKind,
        reason: model::RejectReason,
        detail: &str,
        peer: Option<SocketAddr>,
        sample: &[u8],
    ) {
        self.sink.reject(Reject { input, reason, detail, peer, sample });
    }
}

/// One listener's or connection's way to the sink.
pub(super) struct Delivery {
    shared: Arc<Shared>,
    input: InputKind,
    peer: Option<SocketAddr>,
    /// Batches of this delivery that wait for a retry.
    refused: Arc<AtomicUsize>,
    in_flight: JoinSet<()>,
    in_flight_max: usize,
}

impl Delivery {
    pub(super) fn new(shared: Arc<Shared>, input: InputKind, peer: Option<SocketAddr>, in_flight_max: usize) -> Self {
        Self { shared, input, peer, refused: Arc::default(), in_flight: JoinSet::new(), in_flight_max }
    }

    /// Counts the batches that the sink refuses at the moment.
    pub(super) fn refused(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.refused)
    }

    /// Hands over a batch; waits while the pipeline is full. The sink sees batches in the order of
    /// these calls; a refused one holds back those after it.
    pub(super) async fn submit(&mut self, batch: Batch) {
        if batch.is_empty() {
            return;
        }
        while self.in_flight.try_join_next().is_some() {}
        while self.in_flight.len() >= self.in_flight_max
            || (self.refused.load(Ordering::Acquire) > 0 && !self.in_flight.is_empty())
        {
            self.in_flight.join_next().await;
        }
        let sealed = batch.seal();
        let kib = u32::try_from(sealed.weight() / 1_024 + 1).unwrap_or(u32::MAX).min(self.shared.in_flight_kib_max);
        let Ok(memory) = Arc::clone(&self.shared.in_flight_kib).acquire_many_owned(kib).await else {
            return; // never closed
        };
        let mut attempt: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(deliver(
            Arc::clone(&self.shared),
            self.input,
            self.peer,
            Arc::clone(&self.refused),
            sealed,
            memory,
        ));
        // Polled here once, so that the sink is asked in our order and not in the scheduler's.
        let done = poll_fn(|cx| Poll::Ready(attempt.as_mut().poll(cx).is_ready())).await;
        if !done {
            self.in_flight.spawn(attempt);
        }
    }

    /// Waits until everything handed over is accepted or counted as rejected.
    pub(super) async fn finish(mut self) {
        while self.in_flight.join_next().await.is_some() {}
    }
}

async fn deliver(
    shared: Arc<Shared>,
    input: InputKind,
    peer: Option<SocketAddr>,
    refused_now: Arc<AtomicUsize>,
    batch: Sealed,
    _memory: OwnedSemaphorePermit,
) {
    let mut marked = Marked { count: refused_now, set: false };
    let mut deadline = None;
    loop {
        let refused = match shared.sink.accept(batch.events(&shared.org, input), shared.durability).await {
            Ok(_) => return,
            Err(refused) => refused,
        };
        marked.set();
        if shared.stop.is_requested() {
            let now = tokio::time::Instant::now();
            if now >= *deadline.get_or_insert(now + STOP_GRACE) {
                reject_all(&shared, input, peer, &batch, &refused);
                return;
            }
            tokio::time::sleep(refused.retry_after.clamp(RETRY_MIN, STOP_GRACE / 4)).await;
        } else {
            shared.stop.sleep(refused.retry_after.clamp(RETRY_MIN, RETRY_MAX)).await;
        }
    }
}

fn reject_all(shared: &Shared, input: InputKind, peer: Option<SocketAddr>, batch: &Sealed, refused: &Refused) {
    tracing::warn!(
        events = batch.len(),
        reason = refused.reason.as_str(),
        "stopped with events that the queue refused"
    );
    for object in batch.objects() {
        shared.reject(input, refused.reason, "the queue refused it until the stop", peer, &object);
    }
}

/// Keeps the count of refused batches right however the attempt ends.
struct Marked {
    count: Arc<AtomicUsize>,
    set: bool,
}

impl Marked {
    fn set(&mut self) {
        if !std::mem::replace(&mut self.set, true) {
            self.count.fetch_add(1, Ordering::AcqRel);
        }
    }
}

impl Drop for Marked {
    fn drop(&mut self) {
        if self.set {
            self.count.fetch_sub(1, Ordering::AcqRel);
        }
    }
}
