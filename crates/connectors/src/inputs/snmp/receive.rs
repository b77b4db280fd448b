//! From datagrams to the sink. Traps wait in batches while the sink refuses, as syslog does. An
//! inform does not wait: its device keeps it and repeats it until the answer comes, so it is offered
//! once, and answered only when it is kept.

use super::message::{Arrival, Decision, InformKey, Reception};
use super::recent::{Known, Recent};
use super::usm::Refusal;
use crate::inputs::batch::Batch;
use crate::inputs::datagrams::{Arena, Datagrams};
use crate::inputs::deliver::{Delivery, Shared};
use model::{InputKind, RejectReason};
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

const INPUT: InputKind = InputKind::Snmp;
/// Batches offered to the sink at a time: of traps, and of informs.
const IN_FLIGHT: usize = 8;
/// Reports sent in a second, at most: with a forged sender each goes to somebody who did not ask.
const REPORTS_PER_SECOND: u32 = 1_000;

/// What a listener needs besides its socket.
pub(super) struct Receiving {
    pub reception: Reception,
    pub answers: Arc<UdpSocket>,
    pub max_message_bytes: usize,
}

/// Receives until the stop; returns when everything received is accepted or counted.
pub(super) async fn serve(socket: UdpSocket, buffer_bytes: usize, receiving: Receiving, shared: Arc<Shared>) {
    let mut delivery = Delivery::new(Arc::clone(&shared), INPUT, None, IN_FLIGHT);
    let mut incoming = Datagrams::receive(socket, INPUT, buffer_bytes, Arc::clone(&shared), delivery.refused());
    let mut worker = Worker {
        receiving,
        informs: Informs { shared: Arc::clone(&shared), recent: Arc::default(), in_flight: JoinSet::new() },
        shared,
        started: Instant::now(),
        reports: (0, 0),
    };
    while let Some(arena) = incoming.next().await {
        worker.work(&arena, &mut delivery).await;
        incoming.give_back(arena);
    }
    delivery.finish().await;
    worker.informs.finish().await;
    incoming.finish().await;
}

struct Worker {
    receiving: Receiving,
    informs: Informs,
    shared: Arc<Shared>,
    started: Instant,
    /// The second, and the reports sent in it.
    reports: (u64, u32),
}

/// Informs that are offered together.
#[derive(Default)]
struct Offer {
    batch: Batch,
    waiting: Vec<Waiting>,
}

struct Waiting {
    peer: SocketAddr,
    key: InformKey,
    response: Vec<u8>,
}

impl Worker {
    async fn work(&mut self, arena: &Arena, delivery: &mut Delivery) {
        let received_at = self.shared.clock.now().rfc3339();
        let mut traps = Batch::default();
        let mut offer = Offer::default();
        let mut event = Vec::new();
        for (datagram, peer) in arena.datagrams() {
            event.clear();
            let now = self.started.elapsed();
            match self.take(datagram, &Arrival { peer, received_at: &received_at, now }, &mut event) {
                None => {}
                Some(Decision::Trap) => traps.append(|out| out.extend_from_slice(&event)),
                Some(Decision::Inform { key, response }) => match self.informs.recent().see(key, now) {
                    Known::New => {
                        offer.batch.append(|out| out.extend_from_slice(&event));
                        offer.waiting.push(Waiting { peer, key, response });
                    }
                    Known::Waiting => tracing::debug!("an inform was repeated before it could be answered"),
                    Known::Kept => self.answer(&response, peer),
                },
                Some(Decision::Refused(refusal)) => self.refuse(refusal, datagram, peer, now),
            }
            if traps.is_full() {
                delivery.submit(std::mem::take(&mut traps)).await;
            }
            if offer.batch.is_full() {
                self.informs.offer(std::mem::take(&mut offer), &self.receiving.answers).await;
            }
        }
        // Informs first: traps may have to wait for a sink that refuses.
        self.informs.offer(offer, &self.receiving.answers).await;
        delivery.submit(traps).await;
    }

    fn take(&mut self, datagram: &[u8], arrival: &Arrival<'_>, event: &mut Vec<u8>) -> Option<Decision> {
        if datagram.len() > self.receiving.max_message_bytes {
            let sample = self.receiving.reception.sample(datagram);
            let detail = "larger than the configured bound";
            self.shared.reject(INPUT, RejectReason::TooLarge, detail, Some(arrival.peer), &sample);
            return None;
        }
        Some(self.receiving.reception.take(datagram, arrival, event))
    }

    fn refuse(&mut self, refusal: Refusal, datagram: &[u8], peer: SocketAddr, now: Duration) {
        if let Some((reason, detail)) = refusal.reject {
            let sample = self.receiving.reception.sample(datagram);
            self.shared.reject(INPUT, reason, detail, Some(peer), &sample);
        }
        let Some(report) = refusal.report else { return };
        if self.reports.0 != now.as_secs() {
            self.reports = (now.as_secs(), 0);
        }
        self.reports.1 += 1;
        if self.reports.1 <= REPORTS_PER_SECOND {
            self.answer(&report, peer);
        } else {
            tracing::debug!("more SNMPv3 reports are due than are sent in a second");
        }
    }

    fn answer(&self, answer: &[u8], peer: SocketAddr) {
        send(&self.receiving.answers, answer, peer);
    }
}

/// A lost answer is asked for again.
fn send(socket: &UdpSocket, answer: &[u8], peer: SocketAddr) {
    if let Err(error) = socket.send_to(answer, peer) {
        tracing::debug!(%error, "an SNMP answer was not sent");
    }
}

/// Informs on their way to the sink.
struct Informs {
    shared: Arc<Shared>,
    recent: Arc<Mutex<Recent>>,
    in_flight: JoinSet<()>,
}

impl Informs {
    fn recent(&self) -> MutexGuard<'_, Recent> {
        lock(&self.recent)
    }

    /// Offers them; waits while many others wait for their answer.
    async fn offer(&mut self, offer: Offer, answers: &Arc<UdpSocket>) {
        if offer.batch.is_empty() {
            return;
        }
        while self.in_flight.try_join_next().is_some() {}
        while self.in_flight.len() >= IN_FLIGHT {
            self.in_flight.join_next().await;
        }
        let (shared, recent, answers) = (Arc::clone(&self.shared), Arc::clone(&self.recent), Arc::clone(answers));
        self.in_flight.spawn(async move {
            let sealed = offer.batch.seal();
            match shared.sink.accept(sealed.events(&shared.org, INPUT), shared.durability).await {
                Ok(_) => {
                    for inform in &offer.waiting {
                        lock(&recent).keep(&inform.key);
                        send(&answers, &inform.response, inform.peer);
                    }
                }
                Err(refused) => {
                    let detail = "the queue refused an inform; it is not answered, so its device repeats it";
                    for (inform, object) in offer.waiting.iter().zip(sealed.objects()) {
                        lock(&recent).forget(&inform.key);
                        shared.reject(INPUT, refused.reason, detail, Some(inform.peer), &object);
                    }
                }
            }
        });
    }

    async fn finish(mut self) {
        while self.in_flight.join_next().await.is_some() {}
    }
}

fn lock(recent: &Mutex<Recent>) -> MutexGuard<'_, Recent> {
    // Each change is whole, so what a panic left behind is sound.
    recent.lock().unwrap_or_else(PoisonError::into_inner)
}
