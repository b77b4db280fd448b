//! The outbox: alerts are written to the catalog first and published second; whatever a crash or a
//! full queue kept from being published is published later, from the catalog.

use crate::codec;
use crate::metrics::{Metrics, labels};
use model::{Alert, AlertId, AlertState, Durability};
use runtime::{Clock, Stop};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use storage::StorageResult;
use storage::catalog::{AlertProgress, Catalog};
use storage::queue::{Queue, QueueName, Queues};
use tokio::time::Instant;

/// Publishes alerts. Clones share it.
#[derive(Clone)]
pub struct Outbox(Arc<Shared>);

struct Shared {
    queue: Arc<dyn Queue>,
    catalog: Arc<dyn Catalog>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    live: crate::Live,
    /// Whether somebody may deliver: this process, or another one that shares the queue. If nobody
    /// can, alerts are only recorded.
    delivers: bool,
    /// Something was left in the catalog for later.
    behind: AtomicBool,
    pile: Mutex<Pile>,
}

const PAGE: usize = 1_000;

/// While alerts pile up, that is said once in this time.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// Whether many alerts wait, and when that was last said.
#[derive(Debug, Default)]
struct Pile {
    said: Option<Instant>,
}

#[derive(Debug, PartialEq, Eq)]
enum Saying {
    Nothing,
    Many,
    Over,
}

impl Pile {
    /// What to say of this depth now: many, when the threshold is crossed and once a minute after
    /// that; over, once when half of it is reached again.
    fn look(&mut self, depth: u64, threshold: u64, now: Instant) -> Saying {
        if depth > threshold && self.said.is_none_or(|said| now.duration_since(said) >= SAY_EVERY) {
            self.said = Some(now);
            return Saying::Many;
        }
        if depth <= threshold / 2 && self.said.take().is_some() {
            return Saying::Over;
        }
        Saying::Nothing
    }
}

impl Shared {
    fn tell_of_many(&self, depth: u64, threshold: u64) {
        let saying = self.pile.lock().unwrap_or_else(PoisonError::into_inner).look(depth, threshold, Instant::now());
        match saying {
            Saying::Nothing => {}
            Saying::Many => tracing::warn!(depth, "many alerts wait for delivery"),
            Saying::Over => tracing::info!(depth, "the alerts that waited for delivery are on their way"),
        }
    }
}

impl Outbox {
    /// Whether alerts go anywhere; if not, they are only recorded.
    pub fn delivers(&self) -> bool {
        self.0.delivers
    }

    /// `delivers`: not whether this process has a channel, but whether any that takes from the queue
    /// may have one.
    pub fn new(
        queues: &Queues,
        catalog: Arc<dyn Catalog>,
        live: crate::Live,
        delivers: bool,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let queue = Arc::clone(queues.get(QueueName::Alerts));
        Self(Arc::new(Shared {
            queue,
            catalog,
            clock,
            metrics,
            live,
            delivers,
            behind: AtomicBool::new(false),
            pile: Mutex::default(),
        }))
    }

    /// Publishes alerts that the catalog holds already. Never fails: what the queue does not take
    /// stays in the catalog and is published when there is room.
    pub async fn publish(&self, alerts: Vec<Alert>) {
        let shared = &self.0;
        if alerts.is_empty() {
            return;
        }
        if !shared.delivers {
            self.only_recorded(&alerts).await;
            return;
        }
        let live = shared.live.get();
        let depth = shared.queue.stats().await.map_or(0, |s| s.depth);
        shared.metrics.alerter_queue_depth.set(i64::try_from(depth).unwrap_or(i64::MAX));
        shared.tell_of_many(depth, live.alerts_warn_depth);
        if depth > live.alerts_shed_depth {
            shared.metrics.alerter_shed_events.get_or_create(&labels([("mode", "dlq")])).inc_by(alerts.len() as u64);
            shared.behind.store(true, Ordering::Release);
            return;
        }
        let records = alerts.iter().map(|alert| codec::encode_alert(alert, None)).collect();
        if let Err(error) = shared.queue.publish(records, Durability::Strict).await {
            tracing::warn!(%error, alerts = alerts.len(), "alerts wait in the outbox: the alert queue did not take them");
            shared.behind.store(true, Ordering::Release);
        }
    }

    async fn only_recorded(&self, alerts: &[Alert]) {
        let at = self.0.clock.now();
        let progress = alerts
            .iter()
            .map(|alert| AlertProgress {
                id: alert.id,
                state: AlertState::Recorded,
                at,
                attempts: 0,
                detail: Some("no channel is configured".into()),
            })
            .collect();
        if let Err(error) = self.0.catalog.mark_alerts(progress).await {
            tracing::warn!(%error, "alerts could not be marked as recorded only; trying again");
            self.0.behind.store(true, Ordering::Release);
        }
    }

    /// Publishes what the catalog holds as pending and the queue does not hold, page by page, as long
    /// as the queue has room; called at start before detection begins, and whenever something was
    /// left behind. An alert that is on its way just now may be published twice: delivery sends it
    /// once all the same.
    pub async fn catch_up(&self) -> StorageResult<usize> {
        let caught_up = self.publish_pending().await;
        if caught_up.is_err() {
            self.0.behind.store(true, Ordering::Release);
        }
        caught_up
    }

    async fn publish_pending(&self) -> StorageResult<usize> {
        let shared = &self.0;
        let mut after = None;
        let mut queued = None;
        let mut published = 0;
        loop {
            let pending = shared.catalog.pending_alerts(after, PAGE).await?;
            let Some(last) = pending.last() else { break };
            after = Some((last.created_at, last.id));
            if !shared.delivers {
                self.only_recorded(&pending).await;
                continue;
            }
            let queued = match &queued {
                Some(queued) => queued,
                None => queued.insert(self.queued().await?),
            };
            let records: Vec<_> = pending
                .iter()
                .filter(|alert| !queued.contains(&alert.id))
                .map(|alert| codec::encode_alert(alert, None))
                .collect();
            let room = shared.live.get().alerts_shed_depth.saturating_sub(shared.queue.stats().await?.depth);
            if room == 0 && !records.is_empty() {
                shared.behind.store(true, Ordering::Release);
                break;
            }
            published += records.len();
            shared.queue.publish(records, Durability::Strict).await?;
        }
        if published > 0 {
            tracing::info!(alerts = published, "published alerts from the outbox");
        }
        Ok(published)
    }

    async fn queued(&self) -> StorageResult<BTreeSet<AlertId>> {
        let mut ids = BTreeSet::new();
        let mut after = None;
        loop {
            let page = self.0.queue.peek(after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(ids) };
            after = Some(last.position);
            ids.extend(page.iter().filter_map(|p| codec::decode_alert(&p.payload).ok()).map(|(alert, _)| alert.id));
        }
    }

    /// Catches up whenever something was left behind and the queue has room again.
    pub async fn run(&self, stop: Stop) {
        while stop.sleep(Duration::from_secs(1)).await {
            let shared = &self.0;
            if !shared.behind.load(Ordering::Acquire) {
                continue;
            }
            let depth = shared.queue.stats().await.map_or(u64::MAX, |s| s.depth);
            if depth > shared.live.get().alerts_shed_depth / 2 {
                continue;
            }
            // Before looking: what is left behind from now on must be seen the next time.
            shared.behind.store(false, Ordering::Release);
            if let Err(error) = self.catch_up().await {
                tracing::warn!(%error, "the outbox could not be published; trying again");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pile_of_alerts_is_said_when_it_begins_and_once_a_minute() {
        let (mut pile, begin) = (Pile::default(), Instant::now());
        let mut look = |depth, seconds| pile.look(depth, 1_000, begin + Duration::from_secs(seconds));
        assert_eq!(look(1_000, 0), Saying::Nothing);
        assert_eq!(look(1_001, 0), Saying::Many);
        for second in 1..60 {
            assert_eq!(look(if second % 2 == 0 { 900 } else { 1_500 }, second), Saying::Nothing, "to and fro");
        }
        assert_eq!(look(1_500, 60), Saying::Many);
        assert_eq!(look(500, 61), Saying::Over);
        assert_eq!(look(400, 62), Saying::Nothing);
        assert_eq!(look(1_200, 63), Saying::Many);
    }
}
