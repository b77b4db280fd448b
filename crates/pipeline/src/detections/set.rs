//! Detection rules, compiled together.

use model::Fields;
use rules::correlate::{Limits, Plans};
use rules::sigma::correlation::Target;
use rules::sigma::{Collection, Header, SigmaRule};
use rules::stream::Engine;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Values of one field that an alert shows, at most, and characters of a value.
const VALUES_SHOWN_MAX: usize = 4;
const VALUE_CHARS_MAX: usize = 1_024;

/// What a match leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// An alert.
    Alert,
    /// It is counted.
    DryRun,
    /// It is counted, and correlations see it; it does not alert by itself.
    Feeds,
}

/// A rule in force.
#[derive(Debug, Clone)]
pub struct DetectionRule {
    pub header: Header,
    /// Its place in the collection, by which correlations know it.
    place: usize,
    /// Fields that its alerts show.
    pub fields: Vec<String>,
    /// Fields whose values tell its incidents apart; none = the host does.
    pub group_by: Vec<String>,
    pub mode: Mode,
    /// Of a correlation: what it says of itself in words.
    pub condition: Option<String>,
}

impl DetectionRule {
    /// Its place in the collection.
    pub(super) fn place(&self) -> usize {
        self.place
    }

    /// What its alerts show of an event.
    pub(super) fn shown(&self, event: &Fields<'_>) -> Vec<(String, String)> {
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

/// The rules in force, and the engine that asks them.
#[derive(Debug)]
pub struct DetectionSet {
    rules: Vec<DetectionRule>,
    engine: Engine,
    /// By place in the collection; `None` for those that are not in force.
    correlations: Vec<Option<DetectionRule>>,
    plans: Arc<Plans>,
}

impl Default for DetectionSet {
    /// Without rules.
    fn default() -> Self {
        Self::compile(&Collection::default(), |_| None)
    }
}

impl DetectionSet {
    /// Compiles the rules of a collection; `choose` says in which mode a rule or correlation is in
    /// force, or that it is not. A rule that correlations in force look at does not alert by itself,
    /// unless one of them says so (`generate`).
    pub fn compile(collection: &Collection, choose: impl Fn(&Header) -> Option<Mode>) -> Self {
        // What correlations in force look at, and whether one of them lets it alert.
        let mut fed: BTreeMap<Target, bool> = BTreeMap::new();
        for correlation in collection.correlations.iter().filter(|one| choose(&one.header).is_some()) {
            for input in &correlation.inputs {
                *fed.entry(input.target).or_default() |= correlation.generate;
            }
        }
        let mode = |target, mode| if fed.get(&target) == Some(&false) { Mode::Feeds } else { mode };
        let correlations: Vec<Option<DetectionRule>> = (0..)
            .zip(&collection.correlations)
            .map(|(place, correlation)| {
                let mode = mode(Target::Correlation(place), choose(&correlation.header)?);
                Some(DetectionRule {
                    header: correlation.header.clone(),
                    place,
                    fields: Vec::new(),
                    group_by: correlation.group_by.clone(),
                    mode,
                    condition: Some(correlation.describe()),
                })
            })
            .collect();
        let chosen: Vec<(usize, &SigmaRule, Mode)> = (0..)
            .zip(&collection.rules)
            .filter_map(|(place, rule)| {
                let mode = mode(Target::Rule(place), choose(&rule.header)?);
                Some((place, rule, mode))
            })
            .collect();
        let engine = Engine::compile(chosen.iter().map(|(_, rule, _)| (&rule.source, &rule.predicate)));
        let rules = chosen.into_iter().map(|(place, rule, mode)| DetectionRule {
            header: rule.header.clone(),
            place,
            fields: rule.fields.clone(),
            group_by: rule.group_by.clone(),
            mode,
            condition: None,
        });
        let plans = Arc::new(Plans::compile(collection, Limits::default()));
        Self { rules: rules.collect(), engine, correlations, plans }
    }

    pub fn rules(&self) -> &[DetectionRule] {
        &self.rules
    }

    /// The correlation at this place of the collection, if it is in force.
    pub fn correlation(&self, place: usize) -> Option<&DetectionRule> {
        self.correlations.get(place).and_then(Option::as_ref)
    }

    /// Correlations that are in force.
    pub fn correlations(&self) -> impl Iterator<Item = &DetectionRule> {
        self.correlations.iter().flatten()
    }

    pub(super) fn plans(&self) -> &Arc<Plans> {
        &self.plans
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }
}
