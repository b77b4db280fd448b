//! What time does to incidents: tells of those that waited for more alerts, resolves those that are
//! quiet, escalates those that nobody looks at.
//!
//! Every alerter has a keeper; the catalog sees to it that each thing is done once.

use super::plan::Planner;
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use model::{Alert, AlertId, AlertKind, Timestamp};
use runtime::{Clock, Stop};
use std::sync::Arc;
use std::time::Duration;
use storage::StorageResult;
use storage::catalog::Catalog;
use storage::catalog::incidents::Due;

/// How often silences are read; how many of these between two rounds.
const TICK: Duration = Duration::from_millis(500);
const TICKS_PER_ROUND: u32 = 4;
/// Incidents of one round, each way.
const LIMIT: usize = 1_000;

/// Looks after incidents.
#[derive(Clone)]
pub struct Keeper {
    pub planner: Planner,
    pub catalog: Arc<dyn Catalog>,
    pub outbox: Outbox,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
}

impl Keeper {
    /// Works until stopped.
    pub async fn run(self, stop: Stop) {
        let mut ticks: u32 = 0;
        let mut works = true;
        loop {
            let mut done = self.planner.refresh(self.clock.now()).await;
            if done.is_ok() && ticks.is_multiple_of(TICKS_PER_ROUND) {
                done = self.round().await;
            }
            ticks = ticks.wrapping_add(1);
            match &done {
                // Said once; the health of the catalog says the rest.
                Err(error) if works => tracing::warn!(%error, "incidents could not be looked after; trying again"),
                Err(_) | Ok(()) => {}
            }
            works = done.is_ok();
            if !stop.sleep(TICK).await {
                return;
            }
        }
    }

    /// One round: tells what waited, resolves, escalates, counts.
    pub async fn round(&self) -> StorageResult<()> {
        let now = self.clock.now();
        self.tell_waiting(now).await?;
        let resolved = self.catalog.resolve_quiet(now, LIMIT).await?;
        self.metrics.incidents_auto_resolved.inc_by(resolved);
        let mut escalated = Vec::new();
        for due in self.catalog.due_escalations(now, LIMIT).await? {
            // It waits until the silence is over, or somebody acknowledges it.
            if self.planner.silenced(&due.alert, now).is_some() {
                continue;
            }
            let alert = escalation(&due, now);
            if self.catalog.escalate(&due.incident, alert.clone()).await? {
                self.metrics.incidents_escalations.inc();
                let (incident, escalation) = (due.incident.id, alert.id);
                tracing::info!(incident.id = incident, alert.id = %escalation, "escalated an incident");
                escalated.push(alert);
            }
        }
        self.outbox.publish(escalated).await;
        let open = self.catalog.open_incidents().await?;
        self.metrics.incidents_open.set(i64::try_from(open).unwrap_or(i64::MAX));
        Ok(())
    }
}

impl Keeper {
    /// Tells of incidents whose alerts have waited long enough for others.
    async fn tell_waiting(&self, now: Timestamp) -> StorageResult<()> {
        let mut told = Vec::new();
        for due in self.catalog.due_waiting(now, LIMIT).await? {
            // It waits on until the silence is over, or somebody acknowledges it.
            if self.planner.silenced(&due.alert, now).is_some() {
                continue;
            }
            told.extend(self.catalog.tell_waiting(&due.incident, now).await?);
        }
        // What a crash keeps from being published, the outbox publishes at the next start.
        self.outbox.publish(told).await;
        Ok(())
    }
}

/// The alert that says that nobody has looked.
fn escalation(due: &Due, now: Timestamp) -> Alert {
    let (incident, alert) = (&due.incident, &due.alert);
    let cause = format!("escalation:{}:{}", incident.id, incident.escalations + 1);
    Alert {
        id: AlertId::derive(alert.event_id, &cause),
        kind: AlertKind::Escalation,
        created_at: now,
        severity: incident.severity,
        // Another one than that of the alerts: receivers join those by it, and would not tell anybody.
        signature: format!("escalation:{}:{}", incident.id, alert.signature),
        message: format!(
            "[ESCALATION] incident {} ({} alerts since {}) was not acknowledged: {}",
            incident.id,
            incident.alerts,
            incident.first_seen.rfc3339(),
            alert.message
        ),
        ..alert.clone()
    }
}
