//! Remediate: dead letters get another chance once what failed works again, and can never loop.
//!
//! One counter decides: `replays` in the dead letter, carried as `_retry_count` in the record that
//! is replayed. At the bound, and for letters that no try can help, the letter is parked in `dead`,
//! where only a person takes from. Probing asks the receiver without creating anything there.

use crate::codec;
use crate::live::Live;
use crate::metrics::{Metrics, labels};
use bytes::Bytes;
use connectors::channels::Channel;
use model::{AlertState, DeadLetter, DeadLetterSide, Durability};
use runtime::{Clock, Health, Stop};
use std::sync::Arc;
use std::time::Duration;
use storage::StorageResult;
use storage::catalog::{AlertProgress, Catalog};
use storage::coordination::{BreakerState, Coordination};
use storage::queue::{Delivery, QueueName, Queues, decode_dead_letter, encode_dead_letter, is_enveloped};

/// What remediation works with.
#[derive(Clone)]
pub struct Remediator {
    pub queues: Queues,
    pub catalog: Arc<dyn Catalog>,
    pub coordination: Arc<dyn Coordination>,
    pub channels: Vec<Arc<dyn Channel>>,
    pub live: Live,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    pub health: Health,
    /// `false`: the receiver is taken to be well.
    pub probe: bool,
}

const SIDES: [(QueueName, DeadLetterSide); 2] =
    [(QueueName::DlqAlerter, DeadLetterSide::Alerter), (QueueName::DlqForwarder, DeadLetterSide::Forwarder)];

/// The queue that letters of a side came from.
const fn came_from(side: DeadLetterSide) -> QueueName {
    match side {
        DeadLetterSide::Alerter => QueueName::Ingest,
        DeadLetterSide::Forwarder => QueueName::Alerts,
    }
}

impl Remediator {
    /// Works until stopped: a cycle at once, then one each interval.
    pub async fn run(self, stop: Stop) {
        loop {
            let live = self.live.get();
            if live.remediation_enabled {
                self.cycle(&stop).await;
            }
            if !stop.sleep(live.remediation_interval).await {
                return;
            }
        }
    }

    /// One cycle: looks whether the receivers answer, then drains what may go.
    pub async fn cycle(&self, stop: &Stop) {
        let started = tokio::time::Instant::now();
        self.metrics.remediation_loops.inc();
        let receivers_work = self.receivers_work().await;
        self.metrics.remediation_moog_health.set(i64::from(receivers_work));
        for (from, side) in SIDES {
            let needed = match side {
                // What detection could not work has nothing to do with the receivers.
                DeadLetterSide::Alerter => true,
                DeadLetterSide::Forwarder => receivers_work,
            };
            if needed && let Err(error) = self.drain(from, side, stop).await {
                tracing::warn!(%error, queue = from.as_str(), "dead letters could not be replayed; trying again");
                self.metrics.remediation_replay_fail.get_or_create(&labels([("reason", "redis_error")])).inc();
            }
            let depth = self.queues.get(from).stats().await.map_or(0, |s| s.depth);
            self.metrics
                .remediation_dlq_depth
                .get_or_create(&labels([("dlq_name", from.as_str())]))
                .set(i64::try_from(depth).unwrap_or(i64::MAX));
        }
        self.metrics.remediation_loop_duration.observe(started.elapsed().as_secs_f64());
    }

    /// Probes the receivers; one that answers and whose breaker is open is given a chance now.
    async fn receivers_work(&self) -> bool {
        if !self.probe {
            return true;
        }
        let mut all = true;
        for channel in &self.channels {
            match channel.probe().await {
                Ok(()) => self.half_open(channel.name()).await,
                Err(error) => {
                    self.health.failed("channel", format!("{}: {error}", channel.name()));
                    all = false;
                }
            }
        }
        if all && !self.channels.is_empty() {
            self.health.ok("channel");
        }
        all
    }

    async fn half_open(&self, name: &str) {
        let Some(settings) = self.live.get().breaker else { return };
        let now = self.clock.now();
        match self.coordination.breaker_view(name, settings, now).await {
            Ok(view) if view.state == BreakerState::Open => {
                tracing::info!(channel = name, "the receiver answers again; letting one alert through");
                if let Err(error) = self.coordination.breaker_half_open(name, now).await {
                    tracing::warn!(%error, "the breaker could not be told");
                }
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the breaker could not be asked"),
        }
    }

    /// Empties a queue of dead letters at the bounded rate; stops at the first failure. Letters that
    /// come back while it drains wait for the next cycle.
    async fn drain(&self, from: QueueName, side: DeadLetterSide, stop: &Stop) -> StorageResult<()> {
        let mut left = self.queues.get(from).stats().await?.depth;
        let mut consumer = self.queues.get(from).consumer();
        while left > 0 && !stop.is_requested() {
            let second = tokio::time::Instant::now() + Duration::from_secs(1);
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(self.live.get().remediation_batch as usize);
            let batch = consumer.next(want, Duration::ZERO).await?;
            if batch.is_empty() {
                return Ok(());
            }
            left = left.saturating_sub(batch.len() as u64);
            let mut settlements = Vec::with_capacity(batch.len());
            let mut failed = None;
            for delivery in batch {
                if failed.is_none() {
                    failed = self.replay(&delivery, side).await.err();
                }
                settlements.push(if failed.is_none() {
                    delivery.ack()
                } else {
                    delivery.defer(Duration::from_secs(1))
                });
            }
            consumer.settle(settlements).await?;
            if let Some(error) = failed {
                return Err(error);
            }
            if left > 0 {
                tokio::select! {
                    () = stop.requested() => return Ok(()),
                    () = tokio::time::sleep_until(second) => {}
                }
            }
        }
        Ok(())
    }

    async fn replay(&self, delivery: &Delivery, side: DeadLetterSide) -> StorageResult<()> {
        let parked = |payload: Bytes| async move {
            self.queues.get(QueueName::Dead).publish(vec![payload], Durability::Strict).await?;
            self.metrics.remediation_poison_messages.inc();
            Ok(())
        };
        let letter = match decode_dead_letter(&delivery.payload) {
            Ok(letter) => self.completed(letter, &delivery.payload, side),
            Err(error) => {
                self.metrics.remediation_replay_fail.get_or_create(&labels([("reason", "processing_error")])).inc();
                tracing::warn!(%error, "parked a dead letter that cannot be read");
                return parked(delivery.payload.clone()).await;
            }
        };
        if !letter.retryable || letter.replays >= self.live.get().poison_replays_max {
            tracing::warn!(reason = letter.reason, replays = letter.replays, "parked a dead letter for good");
            return parked(encode_dead_letter(&letter)).await;
        }
        let to = came_from(letter.side);
        replay_letter(&letter, to, &self.queues, self.catalog.as_ref(), self.clock.as_ref()).await?;
        self.metrics.remediation_replay_success.inc();
        Ok(())
    }

    /// What the original's letters do not say: the queue says which side gave up, and from now on its
    /// envelope does.
    fn completed(&self, letter: DeadLetter, payload: &[u8], side: DeadLetterSide) -> DeadLetter {
        if is_enveloped(payload) {
            return letter;
        }
        DeadLetter { side, failed_at: self.clock.now(), ..letter }
    }
}

/// Puts a dead letter's original back into the queue it came from, with one replay more.
pub async fn replay_letter(
    letter: &model::DeadLetter,
    to: QueueName,
    queues: &Queues,
    catalog: &dyn Catalog,
    clock: &dyn Clock,
) -> StorageResult<()> {
    let payload = codec::with_replays(&codec::opened(&letter.original), letter.replays + 1);
    if to == QueueName::Alerts
        && let Ok((alert, _)) = codec::decode_alert(&payload)
    {
        let progress = AlertProgress {
            id: alert.id,
            state: AlertState::Pending,
            at: clock.now(),
            attempts: letter.attempts,
            detail: Some(format!("replayed after: {}", letter.reason)),
        };
        catalog.mark_alerts(vec![progress]).await?;
    }
    queues.get(to).publish(vec![payload], Durability::Strict).await?;
    Ok(())
}
