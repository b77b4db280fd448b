//! Detection rules, compiled together, and how one organisation has them in force.

use super::scheduled::{self, Scheduled};
use super::standing::{Mode, Standing, Standings};
use model::{Fields, Level};
use rules::correlate::{Limits, Plans};
use rules::sigma::{Collection, Correlation, Header, SigmaRule};
use rules::stream::Engine;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};

/// Values of one field that an alert shows, at most, and characters of a value.
const VALUES_SHOWN_MAX: usize = 4;
const VALUE_CHARS_MAX: usize = 1_024;

/// A rule as its author wrote it.
#[derive(Debug)]
pub struct DetectionRule {
    pub header: Header,
    /// Its place in the collection, by which correlations know it.
    place: usize,
    /// Fields that its alerts show.
    pub fields: Vec<String>,
    /// Fields whose values tell its incidents apart; none = the host does.
    pub group_by: Vec<String>,
    /// Of a correlation: what it says of itself in words.
    pub condition: Option<String>,
    /// How long its answers take; whoever shares the compiled rule shares it.
    pub(super) time: Arc<Time>,
}

/// What is known about the time that a rule takes.
#[derive(Debug, Default)]
pub(super) struct Time {
    /// Answers that were timed, and how long they took together.
    pub timed: AtomicU64,
    pub nanos: AtomicU64,
    /// Until when the rule is paused because it is slow, and the mean that showed it.
    pub paused_until: AtomicI64,
    pub paused_mean: AtomicU64,
}

impl DetectionRule {
    pub(super) fn of_rule(place: usize, rule: &SigmaRule, time: Arc<Time>) -> Self {
        Self {
            header: rule.header.clone(),
            place,
            fields: rule.fields.clone(),
            group_by: rule.group_by.clone(),
            condition: None,
            time,
        }
    }

    pub(super) fn of_correlation(place: usize, correlation: &Correlation) -> Self {
        Self {
            header: correlation.header.clone(),
            place,
            fields: Vec::new(),
            group_by: correlation.group_by.clone(),
            condition: Some(correlation.describe()),
            time: Arc::default(),
        }
    }

    /// What its alerts show of an event.
    pub(crate) fn shown(&self, event: &Fields<'_>) -> Vec<(String, String)> {
        let mut shown: Vec<(String, String)> = Vec::new();
        for name in self.group_by.iter().chain(&self.fields) {
            let values: Vec<&str> = event.values(name).take(VALUES_SHOWN_MAX).collect();
            if !values.is_empty() && !shown.iter().any(|(known, _)| known == name) {
                shown.push((name.clone(), values.join(", ").chars().take(VALUE_CHARS_MAX).collect()));
            }
        }
        shown
    }
}

/// Rules that somebody has in force, the engine that asks them, and all correlations.
#[derive(Debug)]
pub(super) struct Compiled {
    /// In the order of the engine.
    pub rules: Vec<DetectionRule>,
    pub engine: Engine,
    /// By place in the collection.
    pub correlations: Vec<DetectionRule>,
    pub plans: Arc<Plans>,
    /// By place in the collection: whether the engine has the rule.
    has: Vec<bool>,
    /// What is asked now and then, whoever has it in force.
    pub scheduled: Vec<Arc<Scheduled>>,
}

impl Compiled {
    /// Compiles the rules of a collection that are `wanted`, by their place. What `before` knows about
    /// the time that they take stays known.
    pub fn new(collection: &Collection, wanted: &[bool], before: Option<&Self>) -> Self {
        let times: HashMap<&str, &Arc<Time>> =
            before.iter().flat_map(|before| &before.rules).map(|rule| (&*rule.header.uid, &rule.time)).collect();
        let is_wanted = |place: usize| wanted.get(place).copied().unwrap_or_default();
        let chosen = || collection.rules.iter().enumerate().filter(|(place, _)| is_wanted(*place));
        let engine = Engine::compile(chosen().map(|(_, rule)| (&rule.source, &rule.predicate)));
        let time = |header: &Header| times.get(&*header.uid).map_or_else(Arc::default, |time| Arc::clone(time));
        let rules = chosen().map(|(place, rule)| DetectionRule::of_rule(place, rule, time(&rule.header)));
        let correlations = (0..).zip(&collection.correlations);
        let correlations = correlations.map(|(place, one)| DetectionRule::of_correlation(place, one));
        Self {
            rules: rules.collect(),
            engine,
            correlations: correlations.collect(),
            plans: Arc::new(Plans::compile(collection, Limits::default())),
            has: (0..collection.rules.len()).map(is_wanted).collect(),
            scheduled: scheduled::compiled(collection),
        }
    }

    /// Rules, then correlations, then what is scheduled, which may be among those before.
    pub fn all(&self) -> impl Iterator<Item = &DetectionRule> {
        self.rules.iter().chain(&self.correlations).chain(self.scheduled.iter().map(|one| &one.rule))
    }

    /// Whether the engine has all rules that are `wanted`, by their place in the same collection.
    pub fn serves(&self, wanted: &[bool]) -> bool {
        wanted.iter().zip(&self.has).all(|(wanted, has)| *has || !wanted)
    }
}

/// A rule in force for an organisation.
#[derive(Debug, Clone, Copy)]
pub struct InForce<'s> {
    pub rule: &'s DetectionRule,
    pub mode: Mode,
    pub level: Level,
    /// Who is told, whatever the host; `None` = the host's team.
    pub team: Option<&'s str>,
}

/// The rules of one organisation.
#[derive(Debug)]
pub struct DetectionSet {
    compiled: Arc<Compiled>,
    standings: Standings,
}

impl DetectionSet {
    pub(super) fn new(compiled: Arc<Compiled>, standings: Standings) -> Self {
        Self { compiled, standings }
    }

    pub(super) fn standings(&self) -> &Standings {
        &self.standings
    }

    pub(super) fn compiled(&self) -> &Arc<Compiled> {
        &self.compiled
    }

    pub(super) fn plans(&self) -> &Arc<Plans> {
        &self.compiled.plans
    }

    /// A rule by its number in the engine, if it is in force.
    pub fn rule(&self, number: u32) -> Option<InForce<'_>> {
        let rule = self.compiled.rules.get(number as usize)?;
        in_force(rule, self.standings.rules.get(rule.place)?)
    }

    /// The correlation at this place of the collection, if it is in force.
    pub fn correlation(&self, place: usize) -> Option<InForce<'_>> {
        in_force(self.compiled.correlations.get(place)?, self.standings.correlations.get(place)?)
    }

    /// Rules in force that are asked of each event.
    pub fn rules(&self) -> impl Iterator<Item = InForce<'_>> {
        self.compiled.rules.iter().filter_map(|rule| in_force(rule, self.standings.rules.get(rule.place)?))
    }

    /// Correlations in force that are told of each event.
    pub fn correlations(&self) -> impl Iterator<Item = InForce<'_>> {
        (0..self.compiled.correlations.len()).filter_map(|place| self.correlation(place))
    }

    /// How many rules and correlations are in force.
    pub fn in_force(&self) -> usize {
        self.rules().count() + self.correlations().count() + self.scheduled().count()
    }

    /// What it means to correlations that a rule matched: hits are added to `out`.
    pub(super) fn tell(
        &self,
        number: u32,
        event: rules::correlate::Event,
        fields: &Fields<'_>,
        out: &mut Vec<rules::correlate::Hit>,
    ) {
        let Some(rule) = self.compiled.rules.get(number as usize) else { return };
        let told = |place: usize| {
            let standing = self.standings.correlations.get(place);
            standing.is_some_and(|one| one.mode().is_some() && one.at_once)
        };
        let mut lacking = rules::correlate::Lacking::default();
        self.compiled.plans.hits_of(rule.place, event, fields, &told, out, &mut lacking);
    }
}

/// As it is asked of each event: what is scheduled is there for those above it, where there are any.
fn in_force<'s>(rule: &'s DetectionRule, standing: &'s Standing) -> Option<InForce<'s>> {
    let mode = standing.mode().filter(|_| standing.at_once)?;
    let mode = if rule.header.schedule.is_some() { Mode::Feeds } else { mode };
    Some(InForce { rule, mode, level: standing.level, team: standing.team.as_deref() })
}
