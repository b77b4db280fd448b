//! Events into the sink: all of them, in order, in parts where the sink cannot take them as a whole.

use super::connection::Hub;
use crate::inputs::{NewEvent, Refused, Reject};
use model::{InputKind, RejectReason};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Bounds on what a sink may ask for in `retry_after`.
const RETRY_MIN: Duration = Duration::from_millis(5);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// How far it came.
#[derive(Debug)]
pub(super) struct Kept {
    /// So many events from the first on are durable, or were refused for ever and counted.
    pub events: usize,
    /// Why it stopped before the last one; `None` after a stop, too, when the sink said nothing.
    pub refused: Option<Refused>,
}

impl Hub {
    /// Offers events until all are taken, `patience` is over (`None`: for ever), or the stop's grace is.
    pub(super) async fn keep(&self, events: &[NewEvent], patience: Option<Duration>, peer: SocketAddr) -> Kept {
        let began = Instant::now();
        let mut kept = Kept { events: 0, refused: None };
        let mut count = events.len();
        while kept.events < events.len() {
            count = count.min(events.len() - kept.events).max(1);
            let part = events.get(kept.events..kept.events + count).unwrap_or_default();
            let accepted = tokio::select! {
                biased;
                accepted = self.sink.accept(part.to_vec(), self.config.durability) => accepted,
                () = self.grace_is_over() => return kept,
            };
            let refused = match accepted {
                Ok(_) => {
                    kept.events += count;
                    kept.refused = None;
                    continue;
                }
                Err(refused) => refused,
            };
            if refused.reason == RejectReason::TooLarge {
                if count > 1 {
                    count /= 2;
                } else {
                    // Waiting would stop everything behind it for ever.
                    let sample = part.first().map(|event| event.object.clone()).unwrap_or_default();
                    self.reject(refused.reason, "the queue can never take it", peer, &sample);
                    kept.events += 1;
                }
                continue;
            }
            if refused.reason == RejectReason::QueueFull {
                // A batch as large as the queue would fit only when that is empty.
                count = count.min(usize::try_from(refused.queue_limit / 2).unwrap_or(usize::MAX)).max(1);
            }
            let wait = refused.retry_after.clamp(RETRY_MIN, RETRY_MAX);
            kept.refused = Some(refused);
            if patience.is_some_and(|patience| began.elapsed() + wait > patience) {
                return kept;
            }
            let ended = timeout_at(Instant::now() + wait, self.grace_is_over()).await;
            if ended.is_ok() {
                return kept;
            }
        }
        kept
    }

    pub(super) fn reject(&self, reason: RejectReason, detail: &str, peer: SocketAddr, sample: &[u8]) {
        self.sink.reject(Reject { input: InputKind::Agent, reason, detail, peer: Some(peer), sample });
    }
}
