//! Detection rules over accepted events: which rules are in force, what they say about an event, and
//! the alerts that follow.
//!
//! Always true: a set of rules is swapped as a whole, and a batch in work keeps the one it began
//! with. A rule that takes too long, or matches like a flood, is paused for a while: its matches are
//! counted and no longer alerted, one alert says so, and no other rule notices. Matching changes
//! nothing in stores, so a repeated batch finds the same again.

mod alerts;
mod correlations;
mod guard;
mod set;

pub use alerts::Policy;
pub use correlations::{Correlations, Turn};
pub use guard::{Limits, Paused, RuleCounts};
pub use set::{DetectionRule, DetectionSet, Mode};

use crate::metrics::{Metrics, labels};
use arc_swap::ArcSwap;
use guard::Guard;
use model::{Alert, Event, EventId, Timestamp};
use rules::correlate::{Firing, Lacking};
use std::sync::Arc;
use storage::StorageResult;
use storage::correlations::CorrelationStore;

/// The detection rules of now. Clones share them.
#[derive(Clone)]
pub struct Detections {
    current: Arc<ArcSwap<DetectionSet>>,
    guard: Arc<Guard>,
    policy: Arc<Policy>,
    metrics: Arc<Metrics>,
    correlations: Correlations,
}

/// What the rules say about one event.
#[derive(Debug, Default)]
pub struct Detected {
    /// Rules by number in the set, ascending, each with what its alert shows.
    pub hits: Vec<Hit>,
    /// What correlations are told.
    pub correlated: Vec<rules::correlate::Hit>,
}

/// A rule that matched.
#[derive(Debug)]
pub struct Hit {
    /// Its number in the set.
    pub rule: u32,
    /// The fields that it names for its readers and groups by, as far as the event has them.
    pub fields: Vec<(String, String)>,
}

/// What an alert is about.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// The event, or the newest one.
    pub event: &'a Event,
    /// Of the event's host, if it has one.
    pub team: Option<&'a str>,
    pub now: Timestamp,
}

/// A set that does not change while a batch is worked, with the memory of one thread.
pub struct Looker {
    set: Arc<DetectionSet>,
    guard: Arc<Guard>,
    scratch: rules::stream::Scratch,
    events: u64,
}

impl Detections {
    pub fn new(policy: Policy, limits: Limits, store: Arc<dyn CorrelationStore>, metrics: Arc<Metrics>) -> Self {
        Self {
            current: Arc::new(ArcSwap::from_pointee(DetectionSet::default())),
            guard: Arc::new(Guard::new(limits)),
            policy: Arc::new(policy),
            metrics,
            correlations: Correlations::new(store),
        }
    }

    /// Puts another set in force.
    pub fn replace(&self, set: DetectionSet) {
        self.metrics.detection_rules.set(i64::try_from(set.rules().len()).unwrap_or(i64::MAX));
        self.guard.knows(set.rules().iter().chain(set.correlations()).map(|rule| &*rule.header.uid));
        self.current.store(Arc::new(set));
    }

    /// The set of now.
    pub fn current(&self) -> Arc<DetectionSet> {
        self.current.load_full()
    }

    /// What to ask about events, for one batch; `None` where there are no rules.
    pub fn looker(&self) -> Option<Looker> {
        let set = self.current();
        let guard = Arc::clone(&self.guard);
        (!set.is_empty()).then(|| Looker { set, guard, scratch: rules::stream::Scratch::default(), events: 0 })
    }

    /// How often each rule was asked and matched since the start, by `uid`.
    pub fn counts(&self, uid: &str) -> RuleCounts {
        self.guard.counts(uid)
    }

    /// The turn to work correlations.
    pub async fn turn(&self, set: &DetectionSet) -> StorageResult<Turn> {
        self.correlations.turn(set).await
    }

    /// The alert of a correlation that begins to fire; `event` is the newest that is known of it.
    pub fn fired(&self, set: &DetectionSet, firing: &Firing, about: &About<'_>) -> Option<Alert> {
        let rule = set.correlation(firing.correlation)?;
        let verdict = self.guard.hit(&rule.header.uid, about.now);
        let (outcome, alert) = match (rule.mode, verdict) {
            (Mode::DryRun, _) => ("dry_run", None),
            (Mode::Feeds, _) => ("counted", None),
            (Mode::Alert, guard::Verdict::Paused) => ("paused", None),
            (Mode::Alert, guard::Verdict::Pause(why)) => {
                tracing::warn!(rule = &*rule.header.uid, "a correlation is paused: {why}");
                ("paused", Some(self.policy.paused(rule, about, &why)))
            }
            (Mode::Alert, guard::Verdict::Go) => match self.policy.fired(rule, firing, about) {
                Some(alert) => ("alerted", Some(alert)),
                None => ("counted", None),
            },
        };
        self.count(&rule.header.uid, outcome);
        alert
    }

    fn count(&self, uid: &str, outcome: &str) {
        self.metrics.detection_matches.get_or_create(&labels([("rule", uid), ("outcome", outcome)])).inc();
    }

    /// The alerts that follow from what was found. `team` is that of the event's host, if it has one.
    pub fn alerts(
        &self,
        set: &DetectionSet,
        event: &Event,
        detected: &Detected,
        team: Option<&str>,
        now: Timestamp,
    ) -> Vec<Alert> {
        let about = About { event, team, now };
        let mut alerts = Vec::new();
        for hit in &detected.hits {
            let Some(rule) = set.rules().get(hit.rule as usize) else { continue };
            let uid = &*rule.header.uid;
            let verdict = self.guard.hit(uid, now);
            let outcome = match (rule.mode, verdict) {
                (Mode::DryRun, _) => "dry_run",
                (Mode::Feeds, _) => "counted",
                (Mode::Alert, guard::Verdict::Paused) => "paused",
                (Mode::Alert, guard::Verdict::Pause(why)) => {
                    tracing::warn!(rule = uid, "a detection rule is paused: {why}");
                    alerts.push(self.policy.paused(rule, &about, &why));
                    "paused"
                }
                (Mode::Alert, guard::Verdict::Go) => match self.policy.alert(rule, &about, &hit.fields) {
                    Some(alert) => {
                        alerts.push(alert);
                        "alerted"
                    }
                    None => "counted",
                },
            };
            self.count(uid, outcome);
        }
        alerts
    }
}

impl Looker {
    /// The set that this one asks.
    pub fn set(&self) -> &Arc<DetectionSet> {
        &self.set
    }

    /// Asks all rules about one event. `object` is its JSON object without internal keys; what is
    /// none (a record of another program can hold anything) matches nothing.
    pub fn look(&mut self, object: &str, id: EventId, at: Timestamp) -> Detected {
        let mut fields = model::Fields::default();
        if fields::from_event(object, &mut fields).is_err() {
            return Detected::default();
        }
        self.events += 1;
        let mut hits = Vec::new();
        let mut watch = self.guard.watch(&self.set, self.events);
        self.set.engine().matches_watched(&fields, &mut self.scratch, &mut hits, &mut watch);
        let mut detected = Detected::default();
        let event = rules::correlate::Event { id: id.to_u128(), time: at.micros() };
        for number in hits {
            let Some(rule) = self.set.rules().get(number as usize) else { continue };
            detected.hits.push(Hit { rule: number, fields: rule.shown(&fields) });
            let mut lacking = Lacking::default();
            self.set.plans().hits(rule.place(), event, &fields, &mut detected.correlated, &mut lacking);
        }
        detected
    }
}
