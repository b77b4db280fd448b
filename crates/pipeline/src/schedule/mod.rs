//! Scheduled rules: asked by their SQL now and then of all stored events that came since, one slice after
//! the other, oldest first by acceptance.
//!
//! What always holds:
//! * A rule's place moves over a slice only when the alerts of the slice are written. A crash repeats the
//!   slice; its alerts have the same ids, so nobody sees it twice.
//! * Nothing is passed over in silence. A run that is late looks at everything since the last one; what it
//!   cannot look at any more (days dropped by age, a broken day that was put aside, the time a rule was not
//!   in force) is a gap: a row, a counter, a line in the log and, unless somebody switched the rule off, an
//!   alert. Events that were accepted and wait in the queue hold the place back.
//! * One process runs a rule of an organisation at a time.
//! * Memory is that of a slice. What windows of correlations need of earlier slices lies on disk, without a
//!   name; a process that does not have it reads it from the stored events.
//!
//! Correlations count in event time. An anchor is judged once `delay` has passed; an event that comes later
//! still counts, and is judged again, for an hour. A firing that it moves is a new alert of the same
//! incident.

mod gaps;
mod run;

use crate::codec;
use crate::detect::Detector;
use crate::detections::{ScheduledRule, Sets};
use crate::metrics::labels;
use model::{ErrorKind, OrgId, Timestamp};
use run::Kept;
use runtime::Stop;
use runtime::backoff::Backoff;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use storage::StorageResult;
use storage::catalog::schedules::Schedule;
use storage::queue::QueueName;

/// How often is looked whether a rule is due.
const LOOK: Duration = Duration::from_secs(5);
/// A process that says nothing of a rule for so long does not run it any more.
const CLAIM: Duration = Duration::from_secs(120);
const RETRY: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_secs(600);
/// Of the oldest records in the queue, so many are looked at.
const WAITING: usize = 256;
/// Events of a slice, about.
const SLICE_EVENTS: usize = 5_000;

/// A rule of an organisation.
type Key = (OrgId, String);

/// Runs the scheduled rules of a process.
pub struct Scheduler {
    detector: Detector,
    slice_events: usize,
    /// What correlations need of earlier slices.
    kept: HashMap<Key, Kept>,
    /// What was in force in the last round.
    in_force: BTreeSet<Key>,
    /// What failed: how often, and when it is tried again.
    failed: HashMap<Key, (u32, Timestamp)>,
}

impl Scheduler {
    pub fn new(detector: Detector) -> Self {
        Self {
            detector,
            slice_events: SLICE_EVENTS,
            kept: HashMap::new(),
            in_force: BTreeSet::new(),
            failed: HashMap::new(),
        }
    }

    /// With slices of about so many events.
    pub fn in_slices_of(self, slice_events: usize) -> Self {
        Self { slice_events, ..self }
    }

    /// Works until stopped.
    pub async fn run(mut self, stop: Stop) {
        while stop.sleep(LOOK).await {
            let round = self.round(&stop).await;
            self.detector.report("schedules", &round);
            if let Err(error) = round {
                tracing::warn!(%error, "scheduled rules could not be looked at; it is tried again");
            }
        }
    }

    /// Runs what is due.
    pub async fn round(&mut self, stop: &Stop) -> StorageResult<()> {
        let sets = self.detector.detections.sets();
        if sets.number() == 0 {
            return Ok(()); // Nobody has said yet which rules there are.
        }
        let catalog = Arc::clone(&self.detector.catalog);
        let known: BTreeMap<Key, Schedule> = (catalog.all_schedules().await?.into_iter())
            .map(|schedule| ((schedule.org.clone(), schedule.uid.clone()), schedule))
            .collect();
        let orgs = if sets.are_scheduled() { self.detector.events.orgs().await? } else { Vec::new() };
        let scheduled: Vec<(Key, ScheduledRule)> = orgs.iter().flat_map(|org| of_org(&sets, org)).collect();
        let in_force: BTreeSet<Key> = scheduled.iter().map(|(key, _)| key.clone()).collect();
        let now = self.detector.clock.now();
        for (key, schedule) in &known {
            // What has no events has nothing to be passed over.
            if schedule.off_since.is_none() && !of_org(&sets, &key.0).any(|(of, _)| of == *key) {
                catalog.stop_schedule(&key.0, &key.1, now).await?;
            }
        }
        self.kept.retain(|key, _| in_force.contains(key));
        self.failed.retain(|key, _| in_force.contains(key));
        let stored = if in_force.is_empty() { None } else { self.stored_through().await? };
        let mut lags: BTreeMap<String, f64> = BTreeMap::new();
        for (key, one) in &scheduled {
            if stop.is_requested() {
                return Ok(());
            }
            let through = self.due(key, one, known.get(key), stored, stop).await?;
            let lag = now.micros().saturating_sub(through.micros()).max(0) as f64 / 1e6;
            let most = lags.entry(self.detector.detections.label(&key.1).to_owned()).or_default();
            *most = most.max(lag);
        }
        self.in_force = in_force;
        self.detector.metrics.schedule_lag.clear();
        for (rule, lag) in lags {
            self.detector.metrics.schedule_lag.get_or_create(&labels([("rule", &rule)])).set(lag);
        }
        Ok(())
    }

    /// Runs a rule if it is due; how far it came.
    async fn due(
        &mut self,
        key: &Key,
        one: &ScheduledRule,
        known: Option<&Schedule>,
        stored: Option<Timestamp>,
        stop: &Stop,
    ) -> StorageResult<Timestamp> {
        let now = self.detector.clock.now();
        let delay = Duration::from_secs(one.schedule().delay_secs.into());
        let upto = now.minus(delay);
        let upto = stored.map_or(upto, |stored| stored.min(upto));
        // Of a millisecond that is not over more may come.
        let upto = Timestamp::from_millis(upto.millis());
        let every = Duration::from_secs(one.schedule().every_secs.into());
        let place = match known {
            Some(known) => known.clone(),
            None => {
                let since = Duration::from_secs(one.schedule().since_secs.into());
                self.detector.catalog.begin_schedule(&key.0, &key.1, upto.minus(since)).await?
            }
        };
        let was_off = place.off_since.is_some() && !self.in_force.contains(key);
        let waits = self.failed.get(key).is_some_and(|(_, again)| *again > now);
        if waits || (!was_off && place.through.plus(every) > upto) {
            return Ok(place.through);
        }
        let name = format!("schedule:{}:{}", key.0, key.1);
        if !self.detector.coordination.claim(&name, CLAIM).await? {
            return Ok(place.through);
        }
        let ran = self.claimed(key, one, upto, &name, stop).await;
        self.detector.coordination.release(&name).await?;
        match ran {
            Ok(through) => {
                self.failed.remove(key);
                Ok(through)
            }
            // Another process was quicker.
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(place.through),
            Err(error) => {
                let failures = self.failed.get(key).map_or(0, |(failures, _)| *failures) + 1;
                let wait = Backoff::new(RETRY, RETRY_MAX).delay(failures);
                tracing::warn!(rule = &*key.1, org = %key.0, failures, %error, "a scheduled rule failed; it is tried again");
                self.failed.insert(key.clone(), (failures, self.detector.clock.now().plus(wait)));
                self.detector.metrics.schedule_runs.get_or_create(&labels([("outcome", "failed")])).inc();
                self.detector.catalog.fail_schedule(&key.0, &key.1, &told(&error), now).await?;
                Ok(place.through)
            }
        }
    }

    /// Before this time, everything that was accepted is stored; `None`: nothing waits.
    async fn stored_through(&self) -> StorageResult<Option<Timestamp>> {
        let waiting = self.detector.queues.get(QueueName::Ingest).peek(None, WAITING).await?;
        let accepted = waiting.iter().filter_map(|record| codec::decode_event(&codec::opened(&record.payload)).ok());
        Ok(accepted.map(|event| event.id.accepted()).min())
    }
}

/// With its causes.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// What an organisation has in force.
fn of_org(sets: &Sets, org: &OrgId) -> impl Iterator<Item = (Key, ScheduledRule)> {
    ScheduledRule::of(sets.of(org)).into_iter().map(|one| ((org.clone(), one.uid().to_owned()), one))
}
