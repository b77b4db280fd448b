//! From a listener to the sink: a few batches at a time, in order, retried while the sink refuses. A
//! batch that the sink can never take as a whole goes in parts.

use super::batch::{Batch, Sealed};
use super::{Refused, Reject, Sink};
use bytes::Bytes;
use model::{Durability, InputKind, OrgId, RejectReason};
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
        reason: RejectReason,
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
    // What is offered next: so many events from this one on.
    let (mut from, mut count) = (0, batch.len());
    while from < batch.len() {
        count = count.min(batch.len() - from);
        let events = batch.events_of_part(from, count, &shared.org, input);
        let refused = match shared.sink.accept(events, shared.durability).await {
            Ok(_) => {
                from += count;
                continue;
            }
            Err(refused) => refused,
        };
        if refused.reason == RejectReason::TooLarge {
            if count > 1 {
                count /= 2;
            } else {
                // Waiting would stop everything behind it for ever.
                reject(&shared, input, peer, batch.part(from, 1), &refused, "the queue can never take it");
                from += 1;
            }
            continue;
        }
        marked.set();
        // A batch as large as the queue would fit only when that is empty.
        let half = usize::try_from(refused.queue_limit / 2).unwrap_or(usize::MAX).max(1);
        if refused.reason == RejectReason::QueueFull {
            count = count.min(half);
        }
        if shared.stop.is_requested() {
            let now = tokio::time::Instant::now();
            if now >= *deadline.get_or_insert(now + STOP_GRACE) {
                let left = batch.len() - from;
                tracing::warn!(
                    events = left,
                    reason = refused.reason.as_str(),
                    "stopped with events that the queue refused"
                );
                let left = batch.part(from, left);
                reject(&shared, input, peer, left, &refused, "the queue refused it until the stop");
                return;
            }
            tokio::time::sleep(refused.retry_after.clamp(RETRY_MIN, STOP_GRACE / 4)).await;
        } else {
            shared.stop.sleep(refused.retry_after.clamp(RETRY_MIN, RETRY_MAX)).await;
        }
    }
}

fn reject(
    shared: &Shared,
    input: InputKind,
    peer: Option<SocketAddr>,
    objects: impl Iterator<Item = Bytes>,
    refused: &Refused,
    detail: &str,
) {
    for object in objects {
        shared.reject(input, refused.reason, detail, peer, &object);
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

#[cfg(test)]
mod tests {
    use super::super::{Accepted, NewEvent};
    use super::*;
    use async_trait::async_trait;
    use runtime::{Stopper, SystemClock};
    use std::sync::Mutex;

    /// A queue of so many events that somebody drains, and that takes no event of over 100 bytes.
    struct SmallQueue {
        limit: usize,
        depth: Mutex<usize>,
        kept: Mutex<Vec<Bytes>>,
        rejected: Mutex<Vec<RejectReason>>,
    }

    #[async_trait]
    impl Sink for SmallQueue {
        async fn admit(&self, _: u32, _: u32) -> Result<(), Refused> {
            Ok(())
        }
        fn room(&self) -> Result<(), Refused> {
            Ok(())
        }
        async fn accept(&self, batch: Vec<NewEvent>, _: Durability) -> Result<Accepted, Refused> {
            let mut depth = self.depth.lock().unwrap();
            let refused = |reason| Refused {
                reason,
                retry_after: RETRY_MIN,
                queue_depth: *depth as u64,
                queue_limit: self.limit as u64,
            };
            if batch.len() > self.limit || batch.iter().any(|event| event.object.len() > 100) {
                return Err(refused(RejectReason::TooLarge));
            }
            if *depth + batch.len() > self.limit {
                let full = refused(RejectReason::QueueFull);
                // Never quite empty: others put events in too.
                *depth = depth.saturating_sub(300).max(10);
                return Err(full);
            }
            *depth += batch.len();
            self.kept.lock().unwrap().extend(batch.into_iter().map(|event| event.object));
            Ok(Accepted { ids: Vec::new(), queue_depth: *depth as u64 })
        }
        fn reject(&self, reject: Reject<'_>) {
            self.rejected.lock().unwrap().push(reject.reason);
        }
        fn lost(&self, _: InputKind, _: u64) {}
    }

    async fn deliver_all(limit: usize, objects: &[String]) -> Arc<SmallQueue> {
        let queue = SmallQueue { limit, depth: Mutex::new(10), kept: Mutex::default(), rejected: Mutex::default() };
        let queue = Arc::new(queue);
        let (_stopper, stop) = Stopper::new();
        let sink = Arc::clone(&queue) as Arc<dyn Sink>;
        let shared = Arc::new(Shared::new(sink, Arc::new(SystemClock), stop, OrgId::default(), Durability::Strict));
        let mut delivery = Delivery::new(shared, InputKind::SyslogTcp, None, 4);
        let mut batch = Batch::default();
        for object in objects {
            batch.append(|out| out.extend_from_slice(object.as_bytes()));
        }
        delivery.submit(batch).await;
        delivery.finish().await;
        queue
    }

    #[tokio::test]
    async fn a_batch_larger_than_the_queue_goes_in_parts_and_in_order() {
        let objects: Vec<String> = (0..4_096).map(|n| format!("{{\"n\":{n}}}")).collect();
        let queue = deliver_all(1_000, &objects).await;
        assert_eq!(*queue.kept.lock().unwrap(), objects);
        assert!(queue.rejected.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn an_event_that_can_never_be_taken_holds_up_nobody() {
        let mut objects: Vec<String> = (0..40).map(|n| format!("{{\"n\":{n}}}")).collect();
        objects[17] = format!("{{\"n\":\"{}\"}}", "x".repeat(100));
        let queue = deliver_all(1_000, &objects).await;
        objects.remove(17);
        assert_eq!(*queue.kept.lock().unwrap(), objects);
        assert_eq!(*queue.rejected.lock().unwrap(), [RejectReason::TooLarge]);
    }
}
