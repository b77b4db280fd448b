//! What the catalog has not been told yet. An alert that was delivered and stays pending in the
//! catalog would be published by the outbox again, and page somebody twice.

use super::CATALOG_WRITES;
use super::in_flight::Held;
use runtime::Health;
use std::time::Duration;
use storage::catalog::{AlertProgress, Catalog};
use tokio::time::Instant;

/// So many steps may be owed before delivery waits for the catalog.
const OWED_MAX: usize = 10_000;
const RETRY: Duration = Duration::from_secs(1);
/// Tries while the process is ending.
const LAST_TRIES: u32 = 3;

/// Steps of alerts that wait to be written. Their alerts stay in flight meanwhile.
#[derive(Default)]
pub(super) struct Owed {
    progress: Vec<AlertProgress>,
    held: Vec<Held>,
    /// Not before; `None`: nothing has failed.
    next_try: Option<Instant>,
}

impl Owed {
    /// Nothing is owed, and the health says so.
    pub(super) fn nothing(health: &Health) -> Self {
        health.ok(CATALOG_WRITES);
        Self::default()
    }

    /// Writes these, and what is owed from before. What the catalog does not take stays owed.
    pub(super) async fn write(
        &mut self,
        told: Vec<(AlertProgress, Option<Held>)>,
        catalog: &dyn Catalog,
        health: &Health,
    ) {
        for (progress, held) in told {
            self.progress.push(progress);
            self.held.extend(held);
        }
        if self.next_try.is_none_or(|at| at <= Instant::now()) {
            self.try_to_write(catalog, health).await;
        }
    }

    async fn try_to_write(&mut self, catalog: &dyn Catalog, health: &Health) {
        if !self.progress.is_empty()
            && let Err(error) = catalog.mark_alerts(self.progress.clone()).await
        {
            tracing::warn!(%error, alerts = self.progress.len(), "the state of delivered alerts waits to be written");
            health.failed(CATALOG_WRITES, error.to_string());
            self.next_try = Some(Instant::now() + RETRY);
            return;
        }
        *self = Self::nothing(health);
    }

    /// Whether so much is owed that nothing more may be delivered.
    pub(super) fn is_full(&self) -> bool {
        self.progress.len() >= OWED_MAX
    }

    /// How long one may wait for other things; `None`: as long as one likes.
    pub(super) fn patience(&self) -> Option<Duration> {
        self.next_try.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// The last that is written before the process ends.
    pub(super) async fn close(mut self, catalog: &dyn Catalog, health: &Health) {
        for tries in 1..=LAST_TRIES {
            self.try_to_write(catalog, health).await;
            if self.progress.is_empty() {
                return;
            }
            if tries < LAST_TRIES {
                tokio::time::sleep(RETRY).await;
            }
        }
        tracing::error!(
            alerts = self.progress.len(),
            "the catalog does not know that these alerts were delivered; they will be sent again, with the same idempotency key"
        );
    }
}
