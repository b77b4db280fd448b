//! Detection rules over accepted events: which rules are in force for whom, what they say about an event,
//! and the alerts that follow.
//!
//! Always true: the rules of all organisations are swapped as a whole, and a batch in work keeps those it
//! began with. An event is asked the rules of its own organisation and no others. A rule that takes too
//! long, or matches like a flood, is paused for a while: its matches are counted and no longer alerted,
//! one alert says so, and no other rule notices. Matching changes nothing in stores, so a repeated batch
//! finds the same again.
//!
//! | module | what |
//! |---|---|
//! | `library` | shared rules, and what an organisation lays over them |
//! | `standing` | whether a rule is in force, and how |
//! | `set`, `sets` | compiled: for one organisation, for all |
//! | `scheduled` | what is asked now and then, and not of each event |
//! | `reload` | keeps them fresh |
//! | `inventory` | all of it, for people |
//! | `guard` | pauses |
//! | `correlations`, `alerts` | what follows from matches |

mod alerts;
mod correlations;
mod guard;
mod inventory;
mod library;
mod reload;
mod scheduled;
mod set;
mod sets;
mod standing;

pub use alerts::Policy;
pub(crate) use alerts::firing_alert;
pub use correlations::{Correlations, Turn};
pub use guard::{Limits, Paused, RuleCounts};
pub use inventory::{Inventory, ListedRule, RuleKind};
pub use library::{Library, OrgProblem, Origin, SharedText, draft_document};
pub use scheduled::ScheduledRule;
pub use set::{DetectionRule, DetectionSet, InForce};
pub use sets::Sets;
pub use standing::{Mode, Standing, Why, on_by_default};

use crate::metrics::{Metrics, labels};
use arc_swap::ArcSwap;
use fields::Aliases;
use guard::Guard;
use model::{Alert, Event, EventId, OrgId, Timestamp};
use rules::correlate::Firing;
use rules::stream::Scratch;
use set::Compiled;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, RwLock};
use storage::StorageResult;
use storage::catalog::detection_rules::OrgDetectionRules;
use storage::correlations::{CorrelationStore, HIT_BYTES_MAX, Hold, Waiting, WorkerId};
use tokio::sync::Notify;

/// Rules that metrics tell apart, and characters of their names; the others are `other`.
const RULE_LABELS_MAX: usize = 10_000;
const RULE_LABEL_CHARS_MAX: usize = 100;

/// The detection rules of now. Clones share them.
#[derive(Clone)]
pub struct Detections {
    library: Arc<ArcSwap<Library>>,
    sets: Arc<ArcSwap<Sets>>,
    /// Held while sets are made: what was read earlier must never replace what was read later.
    making: Arc<tokio::sync::Mutex<()>>,
    /// What this site calls the fields of events.
    fields: Arc<ArcSwap<Aliases>>,
    guard: Arc<Guard>,
    policy: Arc<Policy>,
    metrics: Arc<Metrics>,
    labelled: Arc<RwLock<HashSet<Box<str>>>>,
    handed_over: Arc<Notify>,
    correlations: Correlations,
}

/// What the rules say about one event.
#[derive(Debug, Default)]
pub struct Detected {
    /// Rules by number in the set of the event's organisation, ascending, each with what its alert shows.
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

/// Sets that do not change while a batch is worked, with the memory of one thread.
pub struct Looker {
    sets: Arc<Sets>,
    scratches: Vec<(Arc<Compiled>, Scratch)>,
    fields: Arc<Aliases>,
    events: u64,
}

impl Detections {
    pub fn new(
        policy: Policy,
        limits: Limits,
        store: Arc<dyn CorrelationStore>,
        worker: WorkerId,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            library: Arc::default(),
            sets: Arc::default(),
            making: Arc::default(),
            fields: Arc::default(),
            guard: Arc::new(Guard::new(limits)),
            policy: Arc::new(policy),
            correlations: Correlations::new(store, worker, Arc::clone(&metrics)),
            metrics,
            labelled: Arc::default(),
            handed_over: Arc::default(),
        }
    }

    /// The shared rules of now; those that are in force can be a moment older.
    pub fn library(&self) -> Arc<Library> {
        self.library.load_full()
    }

    /// What events call the fields of the taxonomy.
    pub fn aliases(&self) -> Arc<Aliases> {
        self.fields.load_full()
    }

    /// Puts other mappings of fields in force.
    pub fn replace_fields(&self, fields: Aliases) {
        self.fields.store(Arc::new(fields));
    }

    /// Takes other shared rules, which are in force after the next reload.
    pub fn set_library(&self, library: Library) {
        self.library.store(Arc::new(library));
    }

    /// What is in force now.
    pub fn sets(&self) -> Arc<Sets> {
        self.sets.load_full()
    }

    /// What to ask about events, for one batch; `None` where there are no rules.
    pub fn looker(&self) -> Option<Looker> {
        let sets = self.sets();
        let fields = self.fields.load_full();
        (!sets.is_empty()).then(|| Looker { sets, scratches: Vec::new(), fields, events: 0 })
    }

    /// What is known about a rule of an organisation since the start, by `uid`.
    pub fn counts(&self, org: &OrgId, uid: &str) -> RuleCounts {
        let sets = self.sets();
        let compiled = sets.of(org).compiled();
        let rule = compiled.all().find(|rule| rule.header.uid == uid);
        rule.map(|rule| self.guard.counts(org, rule)).unwrap_or_default()
    }

    /// What is wrong with the documents of an organisation, as far as it was compiled here.
    pub fn problems(&self, org: &OrgId) -> Arc<[OrgProblem]> {
        self.sets().problems(org)
    }

    /// Everything that an organisation can have in force, with counts where this process asks rules.
    /// Reads its documents: takes a while, belongs off the async threads.
    pub fn inventory(&self, rules: &OrgDetectionRules) -> Inventory {
        let mut inventory = Inventory::of(&self.library(), rules);
        let sets = self.sets();
        let compiled = sets.of(&rules.org).compiled();
        let known: HashMap<&str, &DetectionRule> = compiled.all().map(|rule| (&*rule.header.uid, rule)).collect();
        for listed in &mut inventory.rules {
            let rule = known.get(&*listed.header.uid);
            listed.counts = rule.map(|rule| self.guard.counts(&rules.org, rule));
        }
        inventory
    }

    /// The turn to work correlations of what was found with these sets.
    pub async fn turn(&self, sets: &Arc<Sets>) -> StorageResult<Turn> {
        self.correlations.turn(sets).await
    }

    /// Whether other processes work correlations, too, and hits go to whoever holds their shard.
    pub fn shares_correlations(&self) -> bool {
        self.correlations.store().is_shared()
    }

    /// Gives hits of events of one organisation, found with these sets, to those who work them.
    pub(crate) async fn hand_over(
        &self,
        sets: &Sets,
        org: &OrgId,
        events: &[(&Event, &[rules::correlate::Hit])],
        about: fn(&Event) -> Vec<u8>,
    ) -> StorageResult<()> {
        let mut hits = Vec::new();
        for (event, of_event) in events {
            let about = about(event);
            for hit in *of_event {
                let mut hit = correlations::new_hit(sets.of(org), hit, &|_| about.clone());
                if hit.hit.len() + hit.about.len() > HIT_BYTES_MAX {
                    hit.about.clear();
                }
                // No alert is worth an event that can never be settled.
                match hit.hit.len() > HIT_BYTES_MAX {
                    true => _ = self.metrics.correlation_members_dropped.inc(),
                    false => hits.push(hit),
                }
            }
        }
        self.correlations.store().add(org, hits).await?;
        self.handed_over.notify_one();
        Ok(())
    }

    /// Returns soon after this process handed hits over.
    pub(crate) async fn handed_over(&self) {
        self.handed_over.notified().await;
    }

    /// Says that this process lives, and goes on with the shards of correlations that it holds now.
    pub(crate) async fn hold(&self) -> StorageResult<()> {
        self.correlations.hold(&self.sets()).await
    }

    pub(crate) async fn release(&self) -> StorageResult<()> {
        self.correlations.release().await
    }

    /// Hits that wait for these shards.
    pub(crate) async fn waiting(&self, holds: &[Hold], limit: usize) -> StorageResult<Vec<Waiting>> {
        self.correlations.store().waiting(holds, limit).await
    }

    /// The alert of a correlation that begins to fire; `event` is the newest that is known of it.
    pub fn fired(&self, set: &DetectionSet, firing: &Firing, about: &About<'_>) -> Option<Alert> {
        self.fired_by(set.correlation(firing.correlation)?, firing, about)
    }

    /// The same of a correlation that is known.
    pub(crate) fn fired_by(&self, of: InForce<'_>, firing: &Firing, about: &About<'_>) -> Option<Alert> {
        self.judged(of, about, || self.policy.fired(of, firing, about))
    }

    /// The alert of a rule that matches; `fields` are those that it shows.
    pub(crate) fn matched_by(&self, of: InForce<'_>, about: &About<'_>, fields: &[(String, String)]) -> Option<Alert> {
        self.judged(of, about, || self.policy.alert(of, about, fields))
    }

    /// The alert that says that a scheduled rule could not look at some events.
    pub(crate) fn missed(&self, of: InForce<'_>, about: &About<'_>, what: &str) -> Alert {
        self.policy.missed(of, about, what)
    }

    /// The alerts that follow from what was found. `team` is that of the event's host, if it has one.
    pub fn alerts(
        &self,
        sets: &Sets,
        event: &Event,
        detected: &Detected,
        team: Option<&str>,
        now: Timestamp,
    ) -> Vec<Alert> {
        let about = About { event, team, now };
        let set = sets.of(&event.org);
        let hits = detected.hits.iter().filter_map(|hit| Some((set.rule(hit.rule)?, hit)));
        hits.filter_map(|(of, hit)| self.matched_by(of, &about, &hit.fields)).collect()
    }

    /// Counts a match; the alert that follows from it, which may be that its rule is paused.
    fn judged(&self, of: InForce<'_>, about: &About<'_>, alert: impl FnOnce() -> Option<Alert>) -> Option<Alert> {
        let (org, uid) = (&about.event.org, &*of.rule.header.uid);
        let (outcome, alert) = match of.mode {
            Mode::DryRun | Mode::Feeds => {
                self.guard.count(org, uid);
                (if of.mode == Mode::DryRun { "dry_run" } else { "counted" }, None)
            }
            Mode::Alert => match self.guard.hit(org, of.rule, about.now) {
                guard::Verdict::Paused => ("paused", None),
                guard::Verdict::Pause(why) => {
                    tracing::warn!(%org, rule = uid, "a detection rule is paused: {why}");
                    ("paused", Some(self.policy.paused(of, about, &why)))
                }
                guard::Verdict::Go => match alert() {
                    Some(alert) => ("alerted", Some(alert)),
                    None => ("counted", None),
                },
            },
        };
        let label = self.label(uid);
        self.metrics.detection_matches.get_or_create(&labels([("rule", label), ("outcome", outcome)])).inc();
        alert
    }

    /// What metrics call a rule. Organisations can write as many as they like.
    pub(crate) fn label<'u>(&self, uid: &'u str) -> &'u str {
        const OTHER: &str = "other";
        let uid = uid.char_indices().nth(RULE_LABEL_CHARS_MAX).map_or(uid, |(cut, _)| &uid[..cut]);
        if self.labelled.read().is_ok_and(|known| known.contains(uid)) {
            return uid;
        }
        match self.labelled.write() {
            Ok(mut known) if known.len() < RULE_LABELS_MAX => {
                known.insert(uid.into());
                uid
            }
            Ok(_) | Err(_) => OTHER,
        }
    }
}

impl Looker {
    /// The sets that this one asks.
    pub fn sets(&self) -> &Arc<Sets> {
        &self.sets
    }

    /// Asks all rules of an organisation about one of its events. `object` is its JSON object without
    /// internal keys; what is none (a record of another program can hold anything) matches nothing.
    pub fn look(&mut self, org: &OrgId, object: &str, id: EventId, at: Timestamp) -> Detected {
        let set = self.sets.of(org);
        let compiled = set.compiled();
        let mut detected = Detected::default();
        let mut fields = model::Fields::default();
        if compiled.rules.is_empty() || fields::from_event(object, &mut fields).is_err() {
            return detected;
        }
        self.fields.apply(&mut fields);
        self.events += 1;
        let known = self.scratches.iter().position(|(of, _)| Arc::ptr_eq(of, compiled));
        let place = known.unwrap_or_else(|| {
            self.scratches.push((Arc::clone(compiled), Scratch::default()));
            self.scratches.len() - 1
        });
        let Some((_, scratch)) = self.scratches.get_mut(place) else { return detected };
        let mut hits = Vec::new();
        let mut watch = guard::Timing::new(set, self.events);
        compiled.engine.matches_watched(&fields, scratch, &mut hits, &mut watch);
        let event = rules::correlate::Event { id: id.to_u128(), time: at.micros() };
        for number in hits {
            let Some(of) = set.rule(number) else { continue };
            detected.hits.push(Hit { rule: number, fields: of.rule.shown(&fields) });
            set.tell(number, event, &fields, &mut detected.correlated);
        }
        detected
    }
}
