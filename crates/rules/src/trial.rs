//! Rules tried on a few events: which match, which correlations fire, whether [examples] do what they
//! are examples for, and why not.
//!
//! Events take the way of every event: the caller's field extraction, then the engine, then the
//! correlator.
//!
//! [examples]: crate::sigma::examples

use crate::FieldsView;
use crate::correlate::{Change, Correlator, Event, Hit, Lacking, Limits, Plans, Share};
use crate::explain::{Check, ask};
use crate::sigma::correlation::Target;
use crate::sigma::examples::{Example, Examples, Sample};
use crate::sigma::{Collection, Correlation, Header, SigmaRule};
use crate::stream::{Engine, Scratch};
use model::Fields;
use std::sync::Arc;

/// Reads events.
pub trait Extract: Send + Sync {
    /// Adds the fields of an accepted event, a JSON object, to an empty list.
    fn fields<'a>(&'a self, object: &'a str, out: &mut Fields<'a>);
}

/// Questions of a reason that are told.
const CHECKS_MAX: usize = 12;

/// Rules, ready to be tried.
pub struct Trial {
    rules: Collection,
    engine: Engine,
    plans: Arc<Plans>,
    extract: Box<dyn Extract>,
}

/// A rule that matched, or a correlation that fired.
#[derive(Debug)]
pub struct Seen<'t> {
    pub rule: Tried<'t>,
    /// Number of the event; of a correlation, the one at whose time it fired.
    pub sample: usize,
    /// Of a correlation: the texts of its `group-by`.
    pub key: Box<[Box<str>]>,
}

/// What is tried.
#[derive(Debug, Clone, Copy)]
pub enum Tried<'t> {
    Rule(&'t SigmaRule),
    Correlation(&'t Correlation),
}

/// What came of one example.
#[derive(Debug)]
pub struct Verdict<'e> {
    pub example: &'e Example,
    pub passed: bool,
}

impl<'t> Tried<'t> {
    pub fn header(self) -> &'t Header {
        match self {
            Self::Rule(rule) => &rule.header,
            Self::Correlation(correlation) => &correlation.header,
        }
    }
}

impl Trial {
    pub fn new(rules: Collection, extract: impl Extract + 'static) -> Self {
        let engine = Engine::compile(rules.rules.iter().map(|rule| (&rule.source, &rule.predicate)));
        let plans = Arc::new(Plans::compile(&rules, Limits::for_history()));
        Self { rules, engine, plans, extract: Box::new(extract) }
    }

    pub fn rules(&self) -> &Collection {
        &self.rules
    }

    /// The rule or correlation of this name.
    pub fn find(&self, uid: &str) -> Option<Tried<'_>> {
        let rule = self.rules.rules.iter().find(|rule| rule.header.uid == uid).map(Tried::Rule);
        let correlation = || self.rules.correlations.iter().find(|one| one.header.uid == uid).map(Tried::Correlation);
        rule.or_else(correlation)
    }

    /// All rules that match and all correlations that fire, those of each event behind one another.
    /// Times of events have to ascend.
    pub fn seen(&self, samples: &[Sample]) -> Vec<Seen<'_>> {
        let (mut scratch, mut matching) = (Scratch::default(), Vec::new());
        let mut correlator = Correlator::new(self.plans.clone(), Share::ALL);
        let (mut lacking, mut seen) = (Lacking::default(), Vec::new());
        for (number, sample) in samples.iter().enumerate() {
            let mut fields = Fields::default();
            self.extract.fields(&sample.object, &mut fields);
            let mut hits: Vec<Hit> = Vec::new();
            matching.clear();
            self.engine.matches(&fields, &mut scratch, &mut matching);
            for rule in &matching {
                let place = *rule as usize;
                let event = Event { id: number as u128, time: sample.at_micros };
                self.plans.hits(place, event, &fields, &mut hits, &mut lacking);
                seen.push(Seen { rule: Tried::Rule(&self.rules.rules[place]), sample: number, key: Box::default() });
            }
            let changes = correlator.apply(sample.at_micros, hits).changes;
            self.fired(changes, |_| number, &mut seen);
        }
        // What is known only when its time is over.
        let at = |time: i64| samples.partition_point(|sample| sample.at_micros <= time).saturating_sub(1);
        self.fired(correlator.pass(i64::MAX).changes, at, &mut seen);
        seen
    }

    fn fired<'t>(&'t self, changes: Vec<Change>, number: impl Fn(i64) -> usize, seen: &mut Vec<Seen<'t>>) {
        for firing in changes.into_iter().filter_map(Change::opened) {
            let rule = Tried::Correlation(&self.rules.correlations[firing.correlation]);
            seen.push(Seen { rule, sample: number(firing.anchor), key: firing.key });
        }
    }

    /// Tries the examples of one rule; `None` where there is no rule of this name.
    pub fn run<'e>(&self, examples: &'e Examples) -> Option<Vec<Verdict<'e>>> {
        self.find(&examples.uid)?;
        let verdicts = examples.all.iter().map(|example| {
            let seen = self.seen(&example.samples);
            let matched = seen.iter().any(|one| one.rule.header().uid == examples.uid);
            Verdict { example, passed: matched == example.must_match }
        });
        Some(verdicts.collect())
    }

    /// Why a rule matches these events, or does not: a sentence a line.
    pub fn why(&self, rule: Tried<'_>, samples: &[Sample]) -> Vec<String> {
        let seen = self.seen(samples);
        let of_rule: Vec<&Seen<'_>> = seen.iter().filter(|one| one.rule.header().uid == rule.header().uid).collect();
        match rule {
            Tried::Rule(rule) => self.why_matched(rule, samples, of_rule.first().map(|seen| seen.sample)),
            Tried::Correlation(correlation) => self.why_fired(correlation, samples.len(), &seen, &of_rule),
        }
    }

    /// Why a rule matches the event of this number, or none of them: then the last is told of.
    fn why_matched(&self, rule: &SigmaRule, samples: &[Sample], matched: Option<usize>) -> Vec<String> {
        let Some(sample) = samples.get(matched.unwrap_or(samples.len().saturating_sub(1))) else {
            return vec!["there is no event".to_owned()];
        };
        let mut fields = Fields::default();
        self.extract.fields(&sample.object, &mut fields);
        if !rule.source.admits(&fields.source) {
            return vec![format!("the event is known to come from another log ({:?})", fields.source)];
        }
        let mut checks = Vec::new();
        let hit = ask(&rule.predicate, &FieldsView(&fields), &mut checks);
        // What speaks for the answer comes first.
        let (telling, rest): (Vec<Check>, Vec<Check>) = checks.into_iter().partition(|check| check.passed == hit);
        let asked = telling.len() + rest.len();
        let mut why: Vec<String> = telling
            .into_iter()
            .chain(rest)
            .take(CHECKS_MAX)
            .map(|check| format!("{} {}? It is {}", if check.passed { "yes" } else { "no " }, check.asked, check.found))
            .collect();
        if asked > CHECKS_MAX {
            why.push(format!("and {} more questions", asked - CHECKS_MAX));
        }
        why
    }

    /// When a correlation fired, or what it saw instead.
    fn why_fired(
        &self,
        correlation: &Correlation,
        samples: usize,
        seen: &[Seen<'_>],
        fired: &[&Seen<'_>],
    ) -> Vec<String> {
        let mut why = vec![format!("it wants {}", correlation.describe())];
        for input in &correlation.inputs {
            let uid = match input.target {
                Target::Rule(place) => &self.rules.rules[place].header.uid,
                Target::Correlation(place) => &self.rules.correlations[place].header.uid,
            };
            let count = seen.iter().filter(|one| one.rule.header().uid == *uid).count();
            why.push(format!("{}: seen {count} time(s) in {samples} event(s)", input.name));
        }
        for seen in fired.iter().take(CHECKS_MAX) {
            let key = correlation.group_by.iter().zip(&seen.key).map(|(name, text)| format!(", {name} {text:?}"));
            why.push(format!("it fires at event {}{}", seen.sample, key.collect::<String>()));
        }
        why
    }
}
