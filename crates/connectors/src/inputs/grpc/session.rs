//! `Session`: everything of an agent that keeps its records until they are acknowledged.

use super::connection::Line;
use super::messages::{Answer, Broken, Gone, Messages, Next, WORDS_BYTES_MAX};
use super::records::{self, Bad, Origin};
use super::status::{Code, Status};
use super::{Identity, Session, commands};
use model::RejectReason;
use std::time::Duration;
use tokio::time::timeout;
use wire::{AgentMessage, Batch, BatchAck, Hello, RetryLater, ServerMessage, agent_message, server_message};

/// An agent that is told to come later is told so with bounds on what the queue says.
const LATER_MIN: Duration = Duration::from_secs(1);
const LATER_MAX: Duration = Duration::from_secs(60);

/// Why a session ends.
enum Over {
    Gone,
    Status(Status),
}

impl From<Gone> for Over {
    fn from(Gone: Gone) -> Self {
        Self::Gone
    }
}

impl From<Broken> for Over {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Gone => Self::Gone,
            Broken::Wrong(status) => Self::Status(status),
        }
    }
}

/// A greeted agent.
struct Open<'a> {
    line: &'a Line,
    who: Identity,
    epoch: u64,
    /// Of its spool, everything up to here is durable.
    acked: Option<u64>,
    session: Box<dyn Session>,
}

impl Line {
    pub(super) async fn session(&self, mut messages: Messages, mut answer: Answer) {
        match self.talk(&mut messages, &mut answer).await {
            Ok(()) => answer.end(&Status::OK),
            Err(Over::Status(status)) => answer.end(&status),
            Err(Over::Gone) => {}
        }
    }

    async fn talk(&self, messages: &mut Messages, answer: &mut Answer) -> Result<(), Over> {
        let hub = &self.hub;
        let who = self.who().await.map_err(Over::Status)?;
        answer.start()?;
        let hello = self.hello(messages).await?;
        let turn = hub.turns.take(who.agent.clone(), hello.spool_epoch).await;
        let session = hub.desk.open(&who, &hello, self.peer);
        let welcome = session.welcome();
        let acked = welcome.acked.filter(|acked| acked.epoch == hello.spool_epoch).map(|acked| acked.through_seq);
        let mut open = Open { line: self, who, epoch: hello.spool_epoch, acked, session };
        let _counted = Counted::new(hub.as_ref());
        answer.send(&message(server_message::Body::Welcome(welcome))).await?;

        let mut commands = Some(hub.desk.commands(&open.who));
        let mut ticks = hub.ticks(hub.config.check_every);
        let mut stop = std::pin::pin!(hub.stop.requested());
        let mut over = std::pin::pin!(turn.is_over());
        loop {
            tokio::select! {
                biased;
                () = &mut stop => return Err(Over::Status(Status::STOPPING)),
                () = &mut over => {
                    return Err(Over::Status(Status::new(Code::Unavailable, "the agent has begun another session")));
                }
                _ = ticks.tick() => {
                    if messages.is_overdue() {
                        let text = "a message did not come to its end in time";
                        return Err(Over::Status(Status::new(Code::DeadlineExceeded, text)));
                    }
                    hub.desk.check(&open.who).map_err(|refusal| Over::Status(refusal.into()))?;
                }
                command = commands::next(&mut commands) => match command {
                    Some(command) => answer.send(&message(server_message::Body::MitigateRequest(command))).await?,
                    None => commands = None,
                },
                next = messages.next::<AgentMessage>() => {
                    let said = match next? {
                        Next::Message(said) => said,
                        Next::Bad(error, sample) => {
                            self.reject(RejectReason::Malformed, &error.to_string(), &sample);
                            return Err(Over::Status(Status::new(Code::InvalidArgument, error.to_string())));
                        }
                        Next::End => return Ok(()),
                    };
                    open.session.heard().map_err(|refusal| Over::Status(refusal.into()))?;
                    let is_long = messages.last_bytes > WORDS_BYTES_MAX;
                    match said.body {
                        Some(agent_message::Body::Batch(batch)) => {
                            open.batch(batch, messages.last_bytes, answer).await?;
                        }
                        Some(_) if is_long => return Err(Over::Status(too_long())),
                        Some(agent_message::Body::Status(status)) => open.session.status(status),
                        Some(agent_message::Body::MitigateResponse(response)) => {
                            hub.desk.answered(&open.who, response);
                        }
                        Some(agent_message::Body::Hello(_)) => {
                            let text = "a session has one hello";
                            return Err(Over::Status(Status::new(Code::InvalidArgument, text)));
                        }
                        // Of a newer agent.
                        None => {}
                    }
                }
            }
        }
    }

    async fn hello(&self, messages: &mut Messages) -> Result<Hello, Over> {
        let wrong = |code, text| Err(Over::Status(Status::new(code, text)));
        let next = tokio::select! {
            next = timeout(self.hub.config.message_timeout, messages.next::<AgentMessage>()) => next,
            () = self.hub.stop.requested() => return Err(Over::Status(Status::STOPPING)),
        };
        match next {
            Ok(Ok(Next::Message(AgentMessage { body: Some(agent_message::Body::Hello(hello)) }))) => {
                if messages.last_bytes > WORDS_BYTES_MAX { Err(Over::Status(too_long())) } else { Ok(hello) }
            }
            Ok(Ok(Next::Message(_) | Next::Bad(..) | Next::End)) => {
                wrong(Code::FailedPrecondition, "a session begins with a hello")
            }
            Ok(Err(broken)) => Err(broken.into()),
            Err(_) => wrong(Code::DeadlineExceeded, "the hello did not come in time"),
        }
    }
}

impl Open<'_> {
    /// Makes a batch durable and acknowledges it. Where the queue does not take all of it, what it took is acknowledged
    /// and the session ends: later batches must not be acknowledged past a hole.
    async fn batch(&mut self, batch: Batch, bytes: usize, answer: &mut Answer) -> Result<(), Over> {
        let hub = &self.line.hub;
        let wrong = |text| Err(Over::Status(Status::new(Code::InvalidArgument, text)));
        if batch.epoch != self.epoch {
            return wrong("a batch of another spool than the session's");
        }
        let records = batch.records.len() as u64;
        if records == 0 {
            return Ok(());
        }
        let first_seq = batch.first_seq;
        let Some(last_seq) = first_seq.checked_add(records - 1) else {
            return wrong("the numbers of the records have no end");
        };
        if self.acked >= Some(last_seq) {
            hub.observer.batch(records, bytes as u64, true);
            return self.ack(last_seq, answer).await;
        }
        let origin =
            Origin { who: &self.who, epoch: self.epoch, sent_unix_ms: batch.sent_unix_ms, now: hub.clock.now() };
        let (mut events, mut seqs, mut bad) = (Vec::with_capacity(batch.records.len()), Vec::new(), Vec::new());
        for (seq, record) in (first_seq..=last_seq).zip(batch.records) {
            // Its beginning may be durable already.
            if self.acked >= Some(seq) {
                continue;
            }
            match records::event(seq, record, &origin, &hub.config.bounds) {
                Ok(event) => {
                    events.push(event);
                    seqs.push(seq);
                }
                Err(why) => bad.push((seq, why)),
            }
        }
        let kept = hub.keep(&events, Some(hub.config.hold), self.line.peer).await;
        // Everything before the first event that is not kept is done with.
        let end_seq = seqs.get(kept.events).copied();
        self.refuse(bad, end_seq);
        match end_seq {
            None => {
                hub.observer.batch(records, bytes as u64, false);
                self.ack(last_seq, answer).await
            }
            Some(end_seq) => {
                if end_seq > first_seq {
                    hub.observer.batch(end_seq - first_seq, 0, false);
                    self.ack(end_seq - 1, answer).await?;
                }
                let Some(refused) = kept.refused else { return Err(Over::Status(Status::STOPPING)) };
                let after = refused.retry_after.clamp(LATER_MIN, LATER_MAX);
                let reason = refused.reason.as_str().to_owned();
                let later = RetryLater { after_ms: u64::try_from(after.as_millis()).unwrap_or(u64::MAX), reason };
                answer.send(&message(server_message::Body::RetryLater(later))).await?;
                Err(Over::Status(Status::new(Code::Unavailable, "the queue takes nothing now; try again later")))
            }
        }
    }

    /// Counts the records that are no events, once: those from `end_seq` on will come again.
    fn refuse(&self, bad: Vec<(u64, Bad)>, end_seq: Option<u64>) {
        for (_, bad) in bad.iter().take_while(|(seq, _)| end_seq.is_none_or(|end| *seq < end)) {
            self.line.reject(bad.reason, bad.detail, bad.sample.as_bytes());
        }
    }

    async fn ack(&mut self, through_seq: u64, answer: &mut Answer) -> Result<(), Over> {
        let ack = BatchAck { epoch: self.epoch, through_seq };
        if self.acked < Some(through_seq) {
            self.acked = Some(through_seq);
            self.session.acked(ack);
        }
        Ok(answer.send(&message(server_message::Body::Ack(ack))).await?)
    }
}

fn too_long() -> Status {
    Status::new(Code::ResourceExhausted, "only batches of records are longer than 64 KiB")
}

fn message(body: server_message::Body) -> ServerMessage {
    ServerMessage { body: Some(body) }
}

/// An open session in the counters.
struct Counted<'a>(&'a super::connection::Hub);

impl<'a> Counted<'a> {
    fn new(hub: &'a super::connection::Hub) -> Self {
        hub.observer.sessions(1);
        Self(hub)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.observer.sessions(-1);
    }
}
