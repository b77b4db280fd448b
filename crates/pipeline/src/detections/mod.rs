//! Detection rules over accepted events: which rules are in force, what they say about an event, and
//! the alerts that follow.
//!
//! Always true: a set of rules is swapped as a whole, and a batch in work keeps the one it began
//! with. A rule that takes too long, or matches like a flood, is paused for a while: its matches are
//! counted and no longer alerted, one alert says so, and no other rule notices. Matching changes
//! nothing in stores, so a repeated batch finds the same again.

mod alerts;
mod guard;
mod set;

pub use alerts::Policy;
pub use guard::{Limits, Paused, RuleCounts};
pub use set::{DetectionRule, DetectionSet, Mode};

use crate::metrics::{Metrics, labels};
use arc_swap::ArcSwap;
use guard::Guard;
use model::{Alert, Event, Timestamp};
use std::sync::Arc;

/// The detection rules of now. Clones share them.
#[derive(Clone)]
pub struct Detections {
    current: Arc<ArcSwap<DetectionSet>>,
    guard: Arc<Guard>,
    policy: Arc<Policy>,
    metrics: Arc<Metrics>,
}

/// What the rules say about one event.
#[derive(Debug, Default)]
pub struct Detected {
    /// Rules by number in the set, ascending, each with what its alert shows.
    pub hits: Vec<Hit>,
}

/// A rule that matched.
#[derive(Debug)]
pub struct Hit {
    /// Its number in the set.
    pub rule: u32,
    /// The fields that it names for its readers and groups by, as far as the event has them.
    pub fields: Vec<(String, String)>,
}

/// A set that does not change while a batch is worked, with the memory of one thread.
pub struct Looker {
    set: Arc<DetectionSet>,
    guard: Arc<Guard>,
    scratch: rules::stream::Scratch,
    events: u64,
}

impl Detections {
    pub fn new(policy: Policy, limits: Limits, metrics: Arc<Metrics>) -> Self {
        Self {
            current: Arc::new(ArcSwap::from_pointee(DetectionSet::default())),
            guard: Arc::new(Guard::new(limits)),
            policy: Arc::new(policy),
            metrics,
        }
    }

    /// Puts another set in force.
    pub fn replace(&self, set: DetectionSet) {
        self.metrics.detection_rules.set(i64::try_from(set.rules().len()).unwrap_or(i64::MAX));
        self.guard.knows(set.rules().iter().map(|rule| &*rule.header.uid));
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

    /// The alerts that follow from what was found. `team` is that of the event's host, if it has one.
    pub fn alerts(
        &self,
        set: &DetectionSet,
        event: &Event,
        detected: &Detected,
        team: Option<&str>,
        now: Timestamp,
    ) -> Vec<Alert> {
        let mut alerts = Vec::new();
        for hit in &detected.hits {
            let Some(rule) = set.rules().get(hit.rule as usize) else { continue };
            let uid = &*rule.header.uid;
            let verdict = self.guard.hit(uid, now);
            let outcome = match (rule.mode, verdict) {
                (Mode::DryRun, _) => "dry_run",
                (Mode::Alert, guard::Verdict::Paused) => "paused",
                (Mode::Alert, guard::Verdict::Pause(why)) => {
                    tracing::warn!(rule = uid, "a detection rule is paused: {why}");
                    alerts.push(self.policy.paused(rule, event, &why, now));
                    "paused"
                }
                (Mode::Alert, guard::Verdict::Go) => match self.policy.alert(rule, event, &hit.fields, team, now) {
                    Some(alert) => {
                        alerts.push(alert);
                        "alerted"
                    }
                    None => "counted",
                },
            };
            self.metrics.detection_matches.get_or_create(&labels([("rule", uid), ("outcome", outcome)])).inc();
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
    pub fn look(&mut self, object: &str) -> Detected {
        let mut fields = model::Fields::default();
        if fields::from_event(object, &mut fields).is_err() {
            return Detected::default();
        }
        self.events += 1;
        let mut hits = Vec::new();
        let mut watch = self.guard.watch(&self.set, self.events);
        self.set.engine().matches_watched(&fields, &mut self.scratch, &mut hits, &mut watch);
        let hits = hits.into_iter().filter_map(|rule| {
            let shown = self.set.rules().get(rule as usize)?.shown(&fields);
            Some(Hit { rule, fields: shown })
        });
        Detected { hits: hits.collect() }
    }
}
