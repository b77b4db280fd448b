//! `StreamEvents`: events of agents that keep nothing. What we have received of them, they will not send again.

use super::Identity;
use super::connection::Line;
use super::messages::{Answer, Broken, Messages, Next};
use super::records;
use super::status::{Code, Status};
use crate::inputs::NewEvent;
use model::RejectReason;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use wire::{Ack, LogEvent};

/// A batch is handed over at the latest with this many events…
const FULL_EVENTS: usize = 4_096;
/// …or this many bytes.
const FULL_BYTES: usize = 1 << 20;
/// After a stop, what comes is read for at most this long, and until nothing comes for so long.
const STOP_DRAIN: Duration = Duration::from_millis(500);
const STOP_QUIET: Duration = Duration::from_millis(50);

/// Why a stream is read no further.
enum Over {
    /// The client has said everything, and wants to know that it is kept.
    End,
    Gone,
    Status(Status),
}

impl Line {
    /// Keeps what comes, a batch of what is there at a time; reads on when that is durable.
    pub(super) async fn stream_events(&self, mut messages: Messages, mut answer: Answer) {
        let who = match self.who().await {
            Ok(who) => who,
            Err(status) => {
                self.reject(RejectReason::Unauthorized, "events without a login on their connection", b"");
                return answer.end(&status);
            }
        };
        let hub = &self.hub;
        let mut ticks = hub.ticks(hub.config.check_every);
        let mut stop = std::pin::pin!(hub.stop.requested());
        let mut batch = Batch::default();
        let over = loop {
            let next = tokio::select! {
                biased;
                () = &mut stop => break self.drain(&mut messages, &who, &mut batch).await,
                next = messages.next() => next,
                _ = ticks.tick() => {
                    if messages.is_overdue() {
                        break Over::Status(Status::new(Code::DeadlineExceeded, "a message did not come to its end in time"));
                    }
                    match hub.desk.check(&who) {
                        Ok(()) => hub.desk.heard(&who),
                        Err(refusal) => break Over::Status(refusal.into()),
                    }
                    continue;
                }
            };
            if let Err(over) = self.collect(next, &who, &mut batch) {
                break over;
            }
            let mut over = None;
            while !batch.is_full()
                && let Some(next) = messages.next_ready().await
            {
                if let Err(why) = self.collect(next, &who, &mut batch) {
                    over = Some(why);
                    break;
                }
            }
            hub.desk.heard(&who);
            if !self.deliver(&mut batch).await {
                break Over::Status(Status::STOPPING);
            }
            if let Some(over) = over {
                break over;
            }
        };
        self.deliver(&mut batch).await;
        match over {
            Over::Gone => {}
            Over::Status(status) => answer.end(&status),
            Over::End => {
                if answer.send(&Ack {}).await.is_ok() {
                    answer.end(&Status::OK);
                }
            }
        }
    }

    /// After a stop, what is on its way is still kept: its sender will not send it again.
    async fn drain(&self, messages: &mut Messages, who: &Identity, batch: &mut Batch) -> Over {
        let until = Instant::now() + STOP_DRAIN;
        while let Ok(next) = timeout_at((Instant::now() + STOP_QUIET).min(until), messages.next()).await {
            if let Err(over) = self.collect(next, who, batch) {
                return over;
            }
            if batch.is_full() && !self.deliver(batch).await {
                break;
            }
        }
        Over::Status(Status::STOPPING)
    }

    /// Puts one event to the others. One that is not the sender's to send, or none at all, is lost alone.
    fn collect(&self, next: Result<Next<LogEvent>, Broken>, who: &Identity, batch: &mut Batch) -> Result<(), Over> {
        let log = match next {
            Ok(Next::Message(log)) => log,
            Ok(Next::Bad(error, sample)) => {
                self.reject(RejectReason::Malformed, &error.to_string(), &sample);
                return Ok(());
            }
            Ok(Next::End) => return Err(Over::End),
            Err(Broken::Gone) => return Err(Over::Gone),
            Err(Broken::Wrong(status)) => {
                let reason = match status.code {
                    Code::ResourceExhausted => RejectReason::TooLarge,
                    _ => RejectReason::Malformed,
                };
                self.reject(reason, &status.message, b"");
                return Err(Over::Status(status));
            }
        };
        self.hub.desk.check(who).map_err(|refusal| Over::Status(refusal.into()))?;
        match records::log_event(log, who, None, self.hub.clock.now(), &self.hub.config.bounds) {
            Ok(event) => batch.push(event),
            Err(bad) => self.reject(bad.reason, bad.detail, bad.sample.as_bytes()),
        }
        Ok(())
    }

    /// Whether the batch is durable; what is not at the end of a stop's grace is counted.
    async fn deliver(&self, batch: &mut Batch) -> bool {
        let Batch { events, .. } = std::mem::take(batch);
        let kept = self.hub.keep(&events, None, self.peer).await;
        let left = events.get(kept.events..).unwrap_or_default();
        if let Some(refused) = &kept.refused
            && !left.is_empty()
        {
            tracing::warn!(
                events = left.len(),
                reason = refused.reason.as_str(),
                "stopped with events that the queue refused"
            );
        }
        for event in left {
            let reason = kept.refused.as_ref().map_or(RejectReason::StorageFailed, |refused| refused.reason);
            self.reject(reason, "the queue had not taken it when the server stopped", &event.object);
        }
        left.is_empty()
    }
}

#[derive(Default)]
struct Batch {
    events: Vec<NewEvent>,
    bytes: usize,
}

impl Batch {
    fn push(&mut self, event: NewEvent) {
        self.bytes += event.object.len();
        self.events.push(event);
    }

    fn is_full(&self) -> bool {
        self.events.len() >= FULL_EVENTS || self.bytes >= FULL_BYTES
    }
}
