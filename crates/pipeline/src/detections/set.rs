//! Detection rules, compiled together.

use model::Fields;
use rules::sigma::{Collection, Header, LogSource, SigmaRule};
use rules::stream::Engine;

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
}

/// A rule in force.
#[derive(Debug, Clone)]
pub struct DetectionRule {
    pub header: Header,
    pub source: LogSource,
    /// Fields that its alerts show.
    pub fields: Vec<String>,
    /// Fields whose values tell its incidents apart; none = the host does.
    pub group_by: Vec<String>,
    pub mode: Mode,
}

impl DetectionRule {
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
#[derive(Debug, Default)]
pub struct DetectionSet {
    rules: Vec<DetectionRule>,
    engine: Engine,
}

impl DetectionSet {
    /// Compiles the rules of a collection; `choose` says in which mode each is in force, or that it is
    /// not.
    pub fn compile(collection: &Collection, choose: impl Fn(&SigmaRule) -> Option<Mode>) -> Self {
        let chosen: Vec<(&SigmaRule, Mode)> =
            collection.rules.iter().filter_map(|rule| Some((rule, choose(rule)?))).collect();
        let engine = Engine::compile(chosen.iter().map(|(rule, _)| (&rule.source, &rule.predicate)));
        let rules = chosen.into_iter().map(|(rule, mode)| DetectionRule {
            header: rule.header.clone(),
            source: rule.source.clone(),
            fields: rule.fields.clone(),
            group_by: rule.group_by.clone(),
            mode,
        });
        Self { rules: rules.collect(), engine }
    }

    pub fn rules(&self) -> &[DetectionRule] {
        &self.rules
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }
}
