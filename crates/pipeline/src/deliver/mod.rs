//! Deliver: alerts from the queue to their channels; the only place that retries, limits, breaks.
//!
//! * The shared limit delays; it never drops.
//! * While a breaker is open alerts wait, and spend no try. In half open one goes ahead; if it fails
//!   for the receiver's sake it waits on, unspent.
//! * An alert that the catalog knows as delivered is not sent again, whatever the queue says. While the
//!   catalog cannot be told, it is owed that (`owed`).
//! * An alert is given up only for its own sake (refused, or out of tries); it becomes a dead letter
//!   with the receiver's words.

mod in_flight;
mod owed;

use self::in_flight::{Held, InFlight};
use self::owed::Owed;
use crate::codec;
use crate::live::Live;
use crate::metrics::{Metrics, labels};
use crate::notify::Router;
use connectors::channels::{Channel, DeliveryError};
use model::{Alert, AlertState, Durability};
use runtime::backoff::Backoff;
use runtime::{Clock, Health, Stop};
use std::sync::Arc;
use std::time::Duration;
use storage::StorageResult;
use storage::catalog::{AlertProgress, Catalog};
use storage::coordination::{Admission, BreakerSettings, BreakerState, BreakerView, Coordination};
use storage::queue::{Consumer, Delivery, QueueName, Queues, Rejection, Settlement};
use tokio::task::{JoinError, JoinSet};

/// The part of this process's health that is red while the catalog cannot be told what was delivered;
/// reading the catalog may go on.
pub const CATALOG_WRITES: &str = "catalog_writes";

/// What delivery works with.
#[derive(Clone)]
pub struct Deliverer {
    pub queues: Queues,
    pub catalog: Arc<dyn Catalog>,
    pub coordination: Arc<dyn Coordination>,
    pub channels: Vec<Arc<dyn Channel>>,
    pub router: Arc<Router>,
    pub live: Live,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    pub health: Health,
    /// Deliveries under way at a time.
    pub concurrency: usize,
    /// Tries after the first.
    pub retries_max: u32,
    pub backoff: Backoff,
}

/// Longest wait for the limit while holding an alert; a longer one gives it back.
const HOLD: Duration = Duration::from_secs(10);
/// How long an alert that cannot be judged (a store is away) waits.
const LATER: Duration = Duration::from_secs(1);

/// How long an alert is this process's: longer than one try with its wait for the limit may take. What
/// a killed process had claimed waits for the rest of it.
const CLAIM: Duration = Duration::from_secs(30);

/// How the work on one record ended.
struct Worked {
    settlement: Settlement,
    progress: Option<AlertProgress>,
    /// Kept until the progress is written: a copy of the alert must not slip in between.
    held: Option<Held>,
}

/// How one channel's try ended.
enum Tried {
    Done(String),
    /// Not tried, or failed for the receiver's sake: later, no try spent.
    Wait(Duration),
    /// Failed: later, one try spent.
    Again(Duration, DeliveryError),
    /// Refused for good.
    Never(DeliveryError),
}

impl Deliverer {
    /// Works until stopped; then lets deliveries under way end.
    pub async fn run(self, stop: Stop) {
        let in_flight = InFlight::default();
        let mut consumer = self.queues.get(QueueName::Alerts).consumer();
        let mut tasks: JoinSet<Worked> = JoinSet::new();
        let mut owed = Owed::nothing(&self.health);
        loop {
            let finished: Vec<Worked> = std::iter::from_fn(|| tasks.try_join_next()).filter_map(sound).collect();
            if !finished.is_empty() || owed.patience().is_some_and(|wait| wait.is_zero()) {
                self.settle(finished, consumer.as_mut(), &mut owed).await;
            }
            if stop.is_requested() {
                break;
            }
            let passage = if owed.is_full() { Passage::Shut(LATER) } else { self.passage().await };
            let room = match passage {
                Passage::Free => self.concurrency.saturating_sub(tasks.len()),
                // One goes ahead; the others stay in the queue until it is back.
                Passage::One => usize::from(tasks.is_empty()),
                Passage::Shut(wait) => {
                    tokio::select! {
                        () = stop.requested() => {}
                        () = tokio::time::sleep(wait.clamp(Duration::from_millis(10), LATER)) => {}
                    }
                    continue;
                }
            };
            if room == 0 {
                if let Some(worked) = tasks.join_next().await.and_then(sound) {
                    self.settle(vec![worked], consumer.as_mut(), &mut owed).await;
                }
                continue;
            }
            let wait = if tasks.is_empty() { Duration::from_secs(5) } else { Duration::from_millis(5) };
            let wait = owed.patience().map_or(wait, |patience| wait.min(patience));
            let batch = tokio::select! {
                () = stop.requested() => continue,
                batch = consumer.next(room, wait) => batch,
            };
            match batch {
                Ok(batch) => {
                    // Records that come back may have been held since before the queue broke.
                    if batch.is_empty() {
                        self.health.ok("queue");
                    }
                    for delivery in batch {
                        let worker = self.clone();
                        let in_flight = in_flight.clone();
                        let stop = stop.clone();
                        tasks.spawn(async move { worker.work(delivery, &in_flight, &stop).await });
                    }
                }
                Err(error) => {
                    self.health.failed("queue", error.to_string());
                    stop.sleep(LATER).await;
                }
            }
        }
        while let Some(worked) = tasks.join_next().await {
            if let Some(worked) = sound(worked) {
                self.settle(vec![worked], consumer.as_mut(), &mut owed).await;
            }
        }
        owed.close(self.catalog.as_ref(), &self.health).await;
    }

    async fn settle(&self, finished: Vec<Worked>, consumer: &mut dyn Consumer, owed: &mut Owed) {
        let mut settlements = Vec::with_capacity(finished.len());
        let mut told = Vec::new();
        let mut held = Vec::new();
        for worked in finished {
            settlements.push(worked.settlement);
            match worked.progress {
                Some(progress) => told.push((progress, worked.held)),
                None => held.extend(worked.held),
            }
        }
        owed.write(told, self.catalog.as_ref(), &self.health).await;
        if !settlements.is_empty()
            && let Err(error) = consumer.settle(settlements).await
        {
            tracing::warn!(%error, "deliveries could not be settled; they may be repeated with the same idempotency key");
        }
        drop(held);
    }

    fn breaker(&self) -> Option<BreakerSettings> {
        self.live.get().breaker
    }

    /// How many alerts may be taken from the queue, as the breakers of the channels stand. While all
    /// are open the alerts are left where they are.
    async fn passage(&self) -> Passage {
        if self.channels.is_empty() {
            self.nobody_delivers().await;
            return Passage::Shut(LATER);
        }
        let Some(settings) = self.breaker() else { return Passage::Free };
        let mut passage = Passage::Shut(LATER);
        for channel in &self.channels {
            let view = match self.coordination.breaker_view(channel.name(), settings, self.clock.now()).await {
                Ok(view) => view,
                Err(error) => {
                    self.health.failed("coordination", error.to_string());
                    continue;
                }
            };
            self.show(channel.name(), &view);
            passage = match (view.state, passage) {
                (BreakerState::Closed, _) | (_, Passage::Free) => Passage::Free,
                (BreakerState::HalfOpen, _) | (_, Passage::One) => Passage::One,
                (BreakerState::Open, Passage::Shut(wait)) => {
                    Passage::Shut(view.retry_in.map_or(wait, |retry_in| retry_in.min(wait)))
                }
            };
        }
        passage
    }

    /// Without a channel alerts wait for a forwarder that has one; as long as any waits, the health
    /// says so.
    async fn nobody_delivers(&self) {
        match self.queues.get(QueueName::Alerts).stats().await {
            Ok(stats) if stats.depth > 0 => {
                let waiting = stats.depth;
                self.health.failed("channel", format!("no alert channel is configured; alerts that wait: {waiting}"));
            }
            Ok(_) => self.health.ok("channel"),
            Err(error) => self.health.failed("queue", error.to_string()),
        }
    }

    fn show(&self, channel: &str, view: &BreakerView) {
        let state = match view.state {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open => 2,
        };
        let name = labels([("name", channel)]);
        self.metrics.circuit_breaker_state.get_or_create(&name).set(state);
        self.metrics.circuit_breaker_failures.get_or_create(&name).set(i64::from(view.failures));
        self.metrics.moog_circuit_breaker_state.set(state);
        self.metrics.moog_circuit_open.set(i64::from(view.state == BreakerState::Open));
    }

    async fn work(&self, mut delivery: Delivery, in_flight: &InFlight, stop: &Stop) -> Worked {
        // What becomes a dead letter is the record, not a letter that somebody put back.
        delivery.payload = codec::opened(&delivery.payload);
        let (alert, left) = match codec::decode_alert(&delivery.payload) {
            Ok(decoded) => decoded,
            Err(reason) => {
                self.count_processed("error");
                let replays = codec::replays(&delivery.payload);
                let settlement = delivery.reject(Rejection { reason, retryable: false, replays });
                return Worked { settlement, progress: None, held: None };
            }
        };
        let Some(held) = in_flight.enter(alert.id) else {
            // A copy of the same alert is being delivered right now; look again when it is done.
            return Worked { settlement: delivery.defer(LATER), progress: None, held: None };
        };
        match self.catalog.alert_states(&[alert.id]).await {
            Ok(states) if states.iter().any(|(_, state)| *state == AlertState::Delivered) => {
                return Worked { settlement: delivery.ack(), progress: None, held: None };
            }
            Ok(_) => self.health.ok("catalog"),
            Err(error) => {
                self.health.failed("catalog", error.to_string());
                return Worked { settlement: delivery.defer(LATER), progress: None, held: None };
            }
        }
        // The outbox of another server may have published a copy, and another forwarder may hold it:
        // one of them delivers, the other looks again.
        match self.coordination.claim(&alert.id.to_string(), CLAIM).await {
            Ok(true) => self.health.ok("coordination"),
            Ok(false) => return Worked { settlement: delivery.defer(LATER), progress: None, held: None },
            Err(error) => {
                self.health.failed("coordination", error.to_string());
                return Worked { settlement: delivery.defer(LATER), progress: None, held: None };
            }
        }
        let (settlement, progress) = self.through_channels(delivery, &alert, left, stop).await;
        Worked { settlement, progress, held: Some(held) }
    }

    async fn through_channels(
        &self,
        delivery: Delivery,
        alert: &Alert,
        left: Option<Vec<String>>,
        stop: &Stop,
    ) -> (Settlement, Option<AlertProgress>) {
        // Routed here and not when it was published: these are the channels there are.
        let left = left.or_else(|| self.router.receivers(alert));
        if left.as_ref().is_some_and(Vec::is_empty) {
            let detail = Some("its route names no channel".to_owned());
            let progress = self.progress(alert, AlertState::Recorded, delivery.attempts, detail);
            return (delivery.ack(), Some(progress));
        }
        let wanted: Vec<&Arc<dyn Channel>> = self
            .channels
            .iter()
            .filter(|channel| left.as_ref().is_none_or(|names| names.iter().any(|n| n == channel.name())))
            .collect();
        let mut receipts = Vec::new();
        let mut open: Vec<(String, Tried)> = Vec::new();
        for channel in &wanted {
            match self.try_channel(channel.as_ref(), alert, delivery.attempts, stop).await {
                Tried::Done(receipt) => receipts.push(format!("{}: {receipt}", channel.name())),
                tried => open.push((channel.name().to_owned(), tried)),
            }
        }
        let attempts = delivery.attempts + 1;
        if open.is_empty() {
            self.count_processed("success");
            let waited = self.clock.now().since(alert.event_id.accepted());
            self.metrics.alert_delivery_seconds.observe(waited.as_secs_f64());
            tracing::info!(alert.id = %alert.id, correlation_id = alert.correlation_id, "delivered an alert");
            let progress = self.progress(alert, AlertState::Delivered, attempts, Some(receipts.join("; ")));
            return (delivery.ack(), Some(progress));
        }
        let names = || open.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        if !receipts.is_empty() && self.split(&delivery, alert, names()).await.is_ok() {
            // What is left goes on as a record of its own.
            return (delivery.ack(), None);
        }
        self.verdict(delivery, alert, &open, attempts)
    }

    /// Puts a record for the channels that are left beside the one that is being settled.
    async fn split(&self, delivery: &Delivery, alert: &Alert, names: Vec<String>) -> StorageResult<()> {
        let replays = codec::replays(&delivery.payload);
        let mut record = codec::encode_alert(alert, Some(names));
        if replays > 0 {
            record = codec::with_replays(&record, replays);
        }
        self.queues.get(QueueName::Alerts).publish(vec![record], Durability::Strict).await?;
        Ok(())
    }

    /// What becomes of an alert that some channel has not taken.
    fn verdict(
        &self,
        delivery: Delivery,
        alert: &Alert,
        open: &[(String, Tried)],
        attempts: u32,
    ) -> (Settlement, Option<AlertProgress>) {
        let never = open.iter().find_map(|(name, tried)| match tried {
            Tried::Never(error) => Some(format!("{name}: {error}")),
            Tried::Again(_, error) if attempts > self.retries_max => {
                Some(format!("{name}: gave up after {attempts} tries: {error}"))
            }
            Tried::Done(_) | Tried::Wait(_) | Tried::Again(..) => None,
        });
        if let Some(reason) = never {
            self.count_processed("dlq");
            if attempts > self.retries_max {
                self.count_request("fail", "retry_exhausted");
            }
            tracing::error!(alert.id = %alert.id, reason, attempts, "an alert became a dead letter");
            let progress = self.progress(alert, AlertState::Dead, attempts, Some(reason.clone()));
            let replays = codec::replays(&delivery.payload);
            // What a receiver refuses today it may take once somebody has mended it, and remediation
            // asks a bounded number of times only.
            let settlement = delivery.reject(Rejection { reason, retryable: true, replays });
            return (settlement, Some(progress));
        }
        let spent = open.iter().find_map(|(_, tried)| match tried {
            Tried::Again(delay, _) => Some(*delay),
            Tried::Done(_) | Tried::Wait(_) | Tried::Never(_) => None,
        });
        let waits = open.iter().filter_map(|(_, tried)| match tried {
            Tried::Wait(delay) => Some(*delay),
            Tried::Done(_) | Tried::Again(..) | Tried::Never(_) => None,
        });
        let settlement = match spent {
            Some(delay) => delivery.retry_after(delay),
            None => delivery.defer(waits.min().unwrap_or(LATER)),
        };
        (settlement, None)
    }

    async fn try_channel(&self, channel: &dyn Channel, alert: &Alert, attempts: u32, stop: &Stop) -> Tried {
        match self.gate(channel.name(), stop).await {
            Ok(Gate::Open { probe }) => self.send(channel, alert, attempts, probe).await,
            Ok(Gate::Wait(delay)) => Tried::Wait(delay),
            Err(error) => {
                self.health.failed("coordination", error.to_string());
                Tried::Wait(LATER)
            }
        }
    }

    /// Breaker first (a closed door needs no ticket), then the shared limit, then the breaker's word.
    async fn gate(&self, name: &str, stop: &Stop) -> StorageResult<Gate> {
        let settings = self.breaker();
        if let Some(settings) = settings {
            let view = self.coordination.breaker_view(name, settings, self.clock.now()).await?;
            if let (BreakerState::Open, Some(wait)) = (view.state, view.retry_in) {
                self.metrics.moog_circuit_blocked.inc();
                self.count_request("fail", "circuit_open");
                // Not the whole wait: remediation may open the way earlier.
                return Ok(Gate::Wait(wait.min(LATER)));
            }
        }
        let mut limited = false;
        loop {
            let limit = self.live.get().delivery_limit;
            let grant = self.coordination.acquire(name, 1, limit, self.clock.now()).await?;
            if grant.granted > 0 {
                break;
            }
            if !std::mem::replace(&mut limited, true) {
                self.metrics.moog_rate_limit_hits.inc();
                self.count_request("fail", "rate_limit");
            }
            let wait = grant.retry_after.unwrap_or(limit.window);
            if wait > HOLD || !stop.sleep(wait).await {
                return Ok(Gate::Wait(wait));
            }
        }
        self.health.ok("coordination");
        let Some(settings) = settings else { return Ok(Gate::Open { probe: false }) };
        match self.coordination.breaker_admit(name, settings, self.clock.now()).await? {
            Admission::Allowed => Ok(Gate::Open { probe: false }),
            Admission::Probe => Ok(Gate::Open { probe: true }),
            Admission::Wait(delay) => {
                self.metrics.moog_circuit_blocked.inc();
                self.count_request("fail", "circuit_open");
                Ok(Gate::Wait(delay.min(LATER)))
            }
        }
    }

    async fn send(&self, channel: &dyn Channel, alert: &Alert, attempts: u32, probe: bool) -> Tried {
        let started = tokio::time::Instant::now();
        let result = channel.deliver(alert, self.clock.now()).await;
        self.metrics.moog_request_latency.observe(started.elapsed().as_secs_f64());
        let receiver_works = result.as_ref().err().is_none_or(|error| !error.receiver_at_fault);
        let state = match self.breaker() {
            Some(settings) => self.judge(channel.name(), receiver_works, settings).await,
            None => BreakerState::Closed,
        };
        match result {
            Ok(receipt) => {
                self.count_request("success", "");
                self.health.ok("channel");
                Tried::Done(receipt.detail)
            }
            Err(error) => {
                self.count_request("fail", "http");
                tracing::warn!(alert.id = %alert.id, channel = channel.name(), attempts, %error, "a delivery failed");
                if !error.kind.is_transient() {
                    return Tried::Never(error);
                }
                self.health.failed("channel", format!("{}: {error}", channel.name()));
                let delay = error.retry_after.unwrap_or_else(|| self.backoff.delay(attempts + 1));
                // The breaker says that it is the receiver: the alert has nothing to answer for.
                if probe || state == BreakerState::Open {
                    return Tried::Wait(delay);
                }
                Tried::Again(delay, error)
            }
        }
    }

    /// Tells the breaker how it went; the state after.
    async fn judge(&self, name: &str, receiver_works: bool, settings: BreakerSettings) -> BreakerState {
        let reported = self.coordination.breaker_report(name, receiver_works, settings, self.clock.now()).await;
        match reported {
            Ok((before, view)) => {
                if before != view.state {
                    self.changed(name, before, view.state);
                }
                self.show(name, &view);
                view.state
            }
            Err(error) => {
                tracing::warn!(%error, "the breaker could not be told");
                BreakerState::Closed
            }
        }
    }

    fn changed(&self, name: &str, from: BreakerState, to: BreakerState) {
        let labels = labels([("name", name), ("from_state", state_word(from)), ("to_state", state_word(to))]);
        self.metrics.circuit_breaker_state_changes.get_or_create(&labels).inc();
        if to == BreakerState::Open {
            self.metrics.moog_circuit_trips.inc();
            tracing::error!(channel = name, "the breaker opened: alerts wait until the receiver works again");
        } else {
            tracing::info!(channel = name, to = state_word(to), "the breaker changed its state");
        }
    }

    fn progress(&self, alert: &Alert, state: AlertState, attempts: u32, detail: Option<String>) -> AlertProgress {
        AlertProgress { id: alert.id, state, at: self.clock.now(), attempts, detail }
    }

    fn count_processed(&self, status: &str) {
        self.metrics.moog_alerts_processed.get_or_create(&labels([("status", status)])).inc();
    }

    fn count_request(&self, status: &str, reason: &str) {
        self.metrics.moog_requests.get_or_create(&labels([("status", status), ("reason", reason)])).inc();
    }
}

/// The work of a task that did not panic.
fn sound(ended: Result<Worked, JoinError>) -> Option<Worked> {
    ended.inspect_err(|error| tracing::error!(%error, "a delivery panicked; the alert comes back after its lease")).ok()
}

enum Gate {
    Open { probe: bool },
    Wait(Duration),
}

/// How many alerts may leave the queue now.
enum Passage {
    Free,
    One,
    /// None; look again after this time.
    Shut(Duration),
}

/// The contract's words (mutt §4).
pub fn state_word(state: BreakerState) -> &'static str {
    match state {
        BreakerState::Closed => "CLOSED",
        BreakerState::Open => "OPEN",
        BreakerState::HalfOpen => "HALF_OPEN",
    }
}
