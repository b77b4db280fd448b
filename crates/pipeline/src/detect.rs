//! Detect: a batch of events from the queue becomes stored events, audit rows and alerts.
//!
//! Order of effects, each durable and idempotent by event id, so that a crash anywhere repeats the
//! batch without a visible change: count the unhandled → write audit rows and alerts together →
//! store the events → publish the alerts → settle. Alerts are written (as `Pending`) before they are
//! published: what a crash keeps from the queue, the outbox publishes at the next start.

mod correlations;

use crate::codec;
use crate::detections::{Detected, Detections, Looker, Sets};
use crate::live::{Live, ShedMode};
use crate::metrics::{Metrics, labels};
use crate::notify::Planner;
use crate::outbox::Outbox;
use crate::rulebook::{Match, Rulebook, Snapshot};
use model::{
    Alert, AlertId, AlertKind, AlertSeverity, AlertState, Event, EventId, Handling, InputKind, OrgId, Outcome,
};
use runtime::backoff::Backoff;
use runtime::{Clock, Health, Stop};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use storage::catalog::incidents::NewAlert;
use storage::catalog::{AuditEntry, Catalog};
use storage::coordination::{Coordination, UnhandledEvent};
use storage::events::{EventStore, StoredEvent};
use storage::queue::{Consumer, Delivery, QueueName, Queues, Rejection, Settlement};
use storage::{StorageError, StorageResult};

/// What detection works with.
#[derive(Clone)]
pub struct Detector {
    pub queues: Queues,
    pub catalog: Arc<dyn Catalog>,
    pub events: Arc<dyn EventStore>,
    pub coordination: Arc<dyn Coordination>,
    pub rulebook: Rulebook,
    pub detections: Detections,
    pub planner: Planner,
    pub outbox: Outbox,
    pub live: Live,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    pub health: Health,
    /// Most events worked as one batch.
    pub batch_max: usize,
    /// Tries after the first that an event gets when it, and not a store, is what fails.
    pub retries_max: u32,
}

/// An event on its way, with the lease that must be settled.
struct Item {
    delivery: Delivery,
    event: Event,
    finding: Finding,
    detected: Detected,
}

/// What the rules say about an event.
enum Finding {
    Matched(Box<Match>),
    /// No rule matched; the fingerprint of the message's template.
    Unhandled {
        shape: String,
    },
}

impl Item {
    fn matched(&self) -> Option<&Match> {
        match &self.finding {
            Finding::Matched(matched) => Some(matched),
            Finding::Unhandled { .. } => None,
        }
    }
}

const RETRY: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(15);
const META_ALERT_HOST: &str = "MUTT_Alerter";
const SAMPLE_CHARS_MAX: usize = 200;

impl Detector {
    /// Works until stopped. Several may run; they share the queue.
    pub async fn run(self, stop: Stop) {
        let mut consumer = self.queues.get(QueueName::Ingest).consumer();
        let backoff = Backoff::new(RETRY, RETRY_MAX);
        let mut failures = 0;
        while !stop.is_requested() {
            if self.shed(&stop).await {
                continue;
            }
            let batch = tokio::select! {
                () = stop.requested() => break,
                batch = consumer.next(self.batch_max, Duration::from_secs(5)) => batch,
            };
            let worked = match batch {
                Ok(batch) if batch.is_empty() => {
                    self.health.ok("queue");
                    failures = 0;
                    continue;
                }
                // That records are here says nothing of the queue: they may have been held since before.
                Ok(batch) => self.work(batch, consumer.as_mut(), backoff.delay(failures + 1)).await,
                Err(error) => {
                    // Said by the health, once.
                    self.health.failed("queue", error.to_string());
                    failures += 1;
                    stop.sleep(backoff.delay(failures)).await;
                    continue;
                }
            };
            match worked {
                Ok(()) => {
                    self.health.ok("queue");
                    failures = 0;
                }
                Err(error) => {
                    failures += 1;
                    tracing::warn!(%error, failures, "a batch could not be worked; it will be tried again");
                    stop.sleep(backoff.delay(failures)).await;
                }
            }
        }
    }

    /// While the alert queue is over its threshold: pauses in mode `defer`.
    async fn shed(&self, stop: &Stop) -> bool {
        let live = self.live.get();
        if live.shed_mode != ShedMode::Defer {
            return false;
        }
        let depth = self.queues.get(QueueName::Alerts).stats().await.map_or(0, |s| s.depth);
        if depth <= live.alerts_shed_depth {
            return false;
        }
        self.metrics.alerter_shed_events.get_or_create(&labels([("mode", "defer")])).inc();
        stop.sleep(live.defer_sleep).await;
        true
    }

    /// Works one batch to its end: everything in it is settled or given back. `Err` when a store
    /// refused, after giving back.
    async fn work(&self, batch: Vec<Delivery>, consumer: &mut dyn Consumer, again: Duration) -> StorageResult<()> {
        let started = tokio::time::Instant::now();
        let snapshot = self.rulebook.snapshot();
        let mut looker = self.detections.looker();
        let sets = looker.as_ref().map(|looker| Arc::clone(looker.sets()));
        let prepared = tokio::task::spawn_blocking(move || prepare(batch, &snapshot, looker.as_mut()))
            .await
            .map_err(|e| StorageError::with_source(model::ErrorKind::Internal, "matching", e))?;
        let mut settlements = prepared.settled;
        let result = self.effect(prepared.items, sets.as_ref(), &mut settlements, again).await;
        consumer.settle(settlements).await?;
        self.metrics.count_settled(Outcome::DeadLettered, prepared.dead);
        self.metrics.count_settled(Outcome::Duplicate, prepared.copies);
        self.metrics.alerter_processing_latency.observe(started.elapsed().as_secs_f64());
        result
    }

    /// Brings about the effects of a batch. If one event makes a store refuse for good, halves the
    /// batch until that event is alone, so that it takes nobody with it.
    async fn effect(
        &self,
        items: Vec<Item>,
        sets: Option<&Arc<Sets>>,
        settlements: &mut Vec<Settlement>,
        again: Duration,
    ) -> StorageResult<()> {
        let mut stack = vec![items];
        let mut result = Ok(());
        while let Some(mut items) = stack.pop() {
            if items.is_empty() {
                continue;
            }
            match self.write(&items, sets).await {
                Ok(()) => settlements.extend(items.into_iter().map(|item| item.delivery.ack())),
                Err(error) if error.kind().is_transient() => {
                    settlements.extend(items.into_iter().map(|item| item.delivery.defer(again)));
                    result = Err(error);
                }
                Err(_) if items.len() > 1 => {
                    let rest = items.split_off(items.len() / 2);
                    stack.push(rest);
                    stack.push(items);
                }
                Err(error) => {
                    for item in items {
                        settlements.push(self.fail(item, &error, again));
                    }
                }
            }
        }
        result
    }

    fn fail(&self, item: Item, error: &StorageError, again: Duration) -> Settlement {
        self.metrics.alerter_events_processed.get_or_create(&labels([("status", "error")])).inc();
        tracing::error!(event.id = %item.event.id, %error, attempts = item.delivery.attempts, "an event could not be worked");
        if item.delivery.attempts < self.retries_max {
            return item.delivery.retry_after(again);
        }
        self.metrics.count_settled(Outcome::DeadLettered, 1);
        let replays = codec::replays(&item.delivery.payload);
        item.delivery.reject(Rejection { reason: error.to_string(), retryable: true, replays })
    }

    async fn write(&self, items: &[Item], sets: Option<&Arc<Sets>>) -> StorageResult<()> {
        let mut by_org: BTreeMap<OrgId, (Vec<AuditEntry>, Vec<Alert>)> = BTreeMap::new();
        for (item, matched) in items.iter().filter_map(|item| Some((item, item.matched()?))) {
            let (audits, alerts) = by_org.entry(item.event.org.clone()).or_default();
            let (audit, alert) = self.handled(&item.event, matched);
            audits.push(audit);
            alerts.extend(alert);
        }
        if let Some(sets) = sets {
            for item in items.iter().filter(|item| !item.detected.hits.is_empty()) {
                let found = self.detected(item, sets);
                by_org.entry(item.event.org.clone()).or_default().1.extend(found);
            }
        }
        // Kept to the end: what fails on the way makes the batch come back, and it has to fire again.
        let mut turn = None;
        if let Some(sets) = sets
            && let Some((of_batch, alerts)) = self.correlated(items, sets).await?
        {
            turn = Some(of_batch);
            for alert in alerts {
                by_org.entry(alert.org.clone()).or_default().1.push(alert);
            }
        }
        for alert in self.unhandled(items).await? {
            by_org.entry(alert.org.clone()).or_default().1.push(alert);
        }
        let mut alerts = Vec::new();
        let writing = tokio::time::Instant::now();
        for (org, (audits, new_alerts)) in by_org {
            alerts.extend(self.record(&org, audits, new_alerts).await?);
        }
        self.metrics.db_write_latency_ms.observe(writing.elapsed().as_secs_f64() * 1_000.0);
        let stored = self.events.append(items.iter().map(stored).collect()).await;
        self.report("events", &stored);
        let new = stored? as u64;
        let handled = items.iter().filter(|item| item.matched().is_some()).count() as u64;
        let total = items.len() as u64;
        let repeated = total.saturating_sub(new);
        // Which ones were repeated does not matter for the sum: a repeated batch repeats as a whole.
        let handled_new = handled.saturating_sub(repeated);
        self.metrics.count_settled(Outcome::Duplicate, repeated);
        self.metrics.count_settled(Outcome::Handled, handled_new);
        self.metrics.count_settled(Outcome::Unhandled, new.saturating_sub(handled_new));
        let count = alerts.len() as u64;
        self.outbox.publish(alerts).await;
        self.metrics.alerter_alerts_forwarded.inc_by(count);
        if let Some(sets) = sets {
            self.hand_over(items, sets).await?;
        }
        if let Some(turn) = turn {
            let kept = turn.keep().await;
            self.report("correlations", &kept);
            kept?;
        }
        Ok(())
    }

    /// Writes audit rows and alerts; those of which somebody is to be told come back.
    pub(crate) async fn record(
        &self,
        org: &OrgId,
        audits: Vec<AuditEntry>,
        alerts: Vec<Alert>,
    ) -> StorageResult<Vec<Alert>> {
        let planned: Vec<NewAlert> = alerts.into_iter().map(|alert| self.planner.plan(alert)).collect();
        let recorded = self.catalog.record_planned(org, audits, planned.clone()).await;
        self.report("catalog", &recorded);
        Ok(self.to_tell(planned, &recorded?))
    }

    /// The alerts of which somebody is told; the others are counted.
    fn to_tell(&self, planned: Vec<NewAlert>, states: &[AlertState]) -> Vec<Alert> {
        let mut told = Vec::with_capacity(planned.len());
        for (new, state) in planned.into_iter().zip(states) {
            match state {
                AlertState::Grouped => _ = self.metrics.incidents_grouped.inc(),
                AlertState::Silenced => _ = self.metrics.incidents_silenced.inc(),
                // Of a repeated batch; delivery knows what was delivered.
                AlertState::Pending | AlertState::Delivered | AlertState::Dead | AlertState::Recorded => {
                    told.push(new.alert);
                }
            }
        }
        told
    }

    pub(crate) fn report<T>(&self, part: &'static str, result: &StorageResult<T>) {
        match result {
            Ok(_) => self.health.ok(part),
            Err(error) => self.health.failed(part, error.to_string()),
        }
    }

    fn handled(&self, event: &Event, matched: &Match) -> (AuditEntry, Option<Alert>) {
        let rule = &matched.rule;
        let handling = rule.draft.handling(matched.environment);
        let raw = codec::public_object(&event.raw);
        let alert = handling.forwards().then(|| Alert {
            id: AlertId::derive(event.id, "rule"),
            org: event.org.clone(),
            kind: AlertKind::Rule,
            event_id: event.id,
            correlation_id: event.correlation_id.clone(),
            created_at: self.clock.now(),
            host: event.host.clone(),
            team: rule.draft.team_assignment.clone(),
            severity: AlertSeverity::from_event(event.severity),
            handling: handling.clone(),
            rule_id: Some(rule.id),
            signature: signature(event, rule.id),
            message: event.message.clone(),
            raw_json: raw.clone(),
            detection: None,
        });
        let told = alert.as_ref().is_some_and(|alert| self.planner.router().tells(alert));
        let audit = AuditEntry {
            event_id: event.id,
            event_timestamp: event.timestamp,
            hostname: event.host.clone(),
            matched_rule_id: rule.id,
            handling_decision: handling.as_str().to_owned(),
            // Where an incident or a silence decides otherwise, the catalog corrects it.
            forwarded: told && self.outbox.delivers(),
            raw_message: raw,
        };
        (audit, alert)
    }

    /// The alerts of the detection rules that matched.
    fn detected(&self, item: &Item, sets: &Sets) -> Vec<Alert> {
        let event = &item.event;
        let team = self.rulebook.snapshot().team(&event.org, &event.host);
        self.detections.alerts(sets, event, &item.detected, team.as_deref(), self.clock.now())
    }

    /// Counts unhandled events by host and shape; the meta-alerts that are due. What a detection rule
    /// knows is not unknown, nor is what agents tell.
    async fn unhandled(&self, items: &[Item]) -> StorageResult<Vec<Alert>> {
        let mut events = Vec::new();
        let mut sources = Vec::new();
        for item in items {
            let Finding::Unhandled { shape } = &item.finding else { continue };
            // An agent tells what it sees of its host whether or not somebody asked: that is no sign of a missing rule.
            if !item.detected.hits.is_empty() || item.event.input == InputKind::Agent {
                continue;
            }
            events.push(UnhandledEvent {
                org: item.event.org.clone(),
                host: item.event.host.clone(),
                shape: shape.clone(),
                event_id: item.event.id,
            });
            sources.push((&item.event, shape));
        }
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let live = self.live.get();
        let due = self.coordination.observe_unhandled(events, live.unhandled, self.clock.now()).await;
        self.report("coordination", &due);
        let snapshot = self.rulebook.snapshot();
        let mut alerts = Vec::new();
        for index in due? {
            let Some((event, shape)) = sources.get(index) else { continue };
            self.metrics.alerter_unhandled_meta_alerts.inc();
            alerts.push(self.meta_alert(event, shape, &snapshot));
        }
        Ok(alerts)
    }

    fn meta_alert(&self, event: &Event, shape: &str, snapshot: &Snapshot) -> Alert {
        let live = self.live.get();
        let sample: String = event.message.chars().take(SAMPLE_CHARS_MAX).collect();
        Alert {
            id: AlertId::derive(event.id, "unhandled"),
            org: event.org.clone(),
            kind: AlertKind::Unhandled,
            event_id: event.id,
            correlation_id: event.correlation_id.clone(),
            created_at: self.clock.now(),
            host: META_ALERT_HOST.to_owned(),
            team: snapshot.team(&event.org, &event.host).unwrap_or_else(|| live.unhandled_team.clone()),
            severity: AlertSeverity::Warning,
            handling: Handling::new("Ticket_only"),
            rule_id: None,
            signature: format!("unhandled:{}:{shape}", event.host),
            message: format!(
                "[MUTT] Detected {} unhandled messages in {}s from '{}'. Sample message: {sample}",
                live.unhandled.threshold,
                live.unhandled.expiry.as_secs(),
                event.host
            ),
            raw_json: codec::public_object(&event.raw),
            detection: None,
        }
    }
}

/// Joins repeats of one fault of one host, and separates different faults.
fn signature(event: &Event, rule: model::RuleId) -> String {
    let fault = rules::template::fault_key(&event.message);
    let fault = match &event.trap_oid {
        Some(oid) => format!("{oid} {fault}"),
        None => fault,
    };
    format!("{}:rule-{rule}:{}", event.host, rules::template::fingerprint_hex(&fault))
}

fn stored(item: &Item) -> StoredEvent {
    let event = &item.event;
    StoredEvent {
        id: event.id,
        org: event.org.clone(),
        input: event.input,
        host: event.host.clone(),
        timestamp: event.timestamp,
        severity: event.severity,
        rule_id: item.matched().map(|m| m.rule.id),
        raw: event.raw.clone(),
    }
}

struct Prepared {
    items: Vec<Item>,
    /// Already at their end: rejected, or a copy of one in `items`.
    settled: Vec<Settlement>,
    dead: u64,
    copies: u64,
}

/// Decodes and matches a batch; CPU only.
fn prepare(batch: Vec<Delivery>, snapshot: &Snapshot, mut looker: Option<&mut Looker>) -> Prepared {
    let mut items = Vec::with_capacity(batch.len());
    let mut settled = Vec::new();
    let (mut dead, mut copies) = (0, 0);
    let mut seen: BTreeSet<EventId> = BTreeSet::new();
    for mut delivery in batch {
        // What becomes a dead letter is the record, not a letter that somebody put back.
        delivery.payload = codec::opened(&delivery.payload);
        match codec::decode_event(&delivery.payload) {
            // The same event twice in one batch: the first is worked, the second is done with it.
            Ok(event) if !seen.insert(event.id) => {
                copies += 1;
                settled.push(delivery.ack());
            }
            Ok(event) => {
                let finding = match snapshot.first_match(&event) {
                    Some(matched) => Finding::Matched(Box::new(matched)),
                    None => Finding::Unhandled {
                        shape: rules::template::fingerprint_hex(&rules::template::template(&event.message)),
                    },
                };
                let detected = match &mut looker {
                    Some(looker) => {
                        let object = codec::public_object(&event.raw);
                        std::str::from_utf8(&object)
                            .map(|object| looker.look(&event.org, object, event.id, event.timestamp))
                            .unwrap_or_default()
                    }
                    None => Detected::default(),
                };
                items.push(Item { delivery, event, finding, detected });
            }
            Err(reason) => {
                let replays = codec::replays(&delivery.payload);
                dead += 1;
                settled.push(delivery.reject(Rejection { reason, retryable: false, replays }));
            }
        }
    }
    Prepared { items, settled, dead, copies }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn event(host: &str, message: &str, oid: Option<&str>) -> Event {
        let oid = oid.map_or(String::new(), |o| format!(",\"trap_oid\":\"{o}\""));
        let json = format!(r#"{{"hostname":"{host}","message":"{message}","timestamp":1{oid}}}"#);
        codec::decode_event(&Bytes::from(json)).unwrap()
    }

    #[test]
    fn different_faults_of_one_host_have_different_signatures_and_repeats_the_same() {
        let down = |port: &str, n: u32| {
            event(
                "sw1",
                &format!("{n}: %LINK-3-UPDOWN: Interface GigabitEthernet0/{port}, changed state to down"),
                None,
            )
        };
        assert_eq!(signature(&down("1", 7), 5), signature(&down("1", 8_123), 5));
        assert_ne!(signature(&down("1", 7), 5), signature(&down("2", 7), 5));
        assert_ne!(signature(&down("1", 7), 5), signature(&down("1", 7), 6), "another rule");
        assert_ne!(
            signature(&event("sw1", "trap", Some("1.3.6.1.6.3.1.1.5.3")), 5),
            signature(&event("sw1", "trap", Some("1.3.6.1.6.3.1.1.5.4")), 5)
        );
    }
}
