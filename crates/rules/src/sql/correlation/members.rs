//! Correlations over events whose rules were asked before: what has to be kept of an event, and for how
//! long, so that [`firings`](super::firings) over what was kept answers as over all events.
//!
//! The kept events have a table of their own with the same columns. `source` does not say where the event
//! comes from, but which rules it matches ([`matched_json`]); `fields` has those that [`Needs`] names. The
//! question is that of [`of_matched`], a collection whose rules ask for nothing else.

use crate::Predicate;
use crate::sigma::correlation::{Correlation, Target};
use crate::sigma::{Collection, LogSource};
use crate::sql::source_json;
use model::EventSource;
use std::collections::{BTreeMap, BTreeSet};

/// How far from the anchors that are asked for events still decide about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reach {
    /// Before the first anchor.
    pub back_micros: i64,
    /// After the last anchor: it cannot be judged before that time.
    pub ahead_micros: i64,
}

/// How far [`firings`](super::firings) looks from the anchors of a stretch.
pub fn reach(collection: &Collection, correlation: usize) -> Reach {
    let Some(correlation) = collection.correlations.get(correlation) else { return Reach::default() };
    let mut reach = window(collection, correlation);
    // The anchor before decides whether a firing is new.
    reach.back_micros = reach.back_micros.saturating_add(correlation.timespan.micros);
    reach
}

/// Of its windows, and of those below.
fn window(collection: &Collection, correlation: &Correlation) -> Reach {
    let mut below = Reach::default();
    for input in &correlation.inputs {
        if let Target::Correlation(lower) = input.target
            && let Some(lower) = collection.correlations.get(lower)
        {
            let lower = window(collection, lower);
            below.back_micros = below.back_micros.max(lower.back_micros);
            below.ahead_micros = below.ahead_micros.max(lower.ahead_micros);
        }
    }
    let span = correlation.timespan.micros;
    match correlation.closing() {
        true => Reach { ahead_micros: below.ahead_micros.saturating_add(span), ..below },
        false => Reach { back_micros: below.back_micros.saturating_add(span), ..below },
    }
}

/// What a correlation, with those below it, needs of events.
#[derive(Debug, Clone, Default)]
pub struct Needs {
    /// By rule: the fields that are looked at.
    pub fields: BTreeMap<usize, BTreeSet<String>>,
    /// The rules whose events are members, each with the fields that have the values of `group-by`.
    pub ways: Vec<(usize, Vec<String>)>,
}

/// Follows the correlation down to its rules.
pub fn needs(collection: &Collection, correlation: usize) -> Needs {
    let mut needs = Needs::default();
    if let Some(correlation) = collection.correlations.get(correlation) {
        follow(collection, correlation, &correlation.group_by, &[], &mut needs);
    }
    needs
}

/// `key`: what the asked correlation groups by; `extras`: what those between ask for; both as this one
/// calls them.
fn follow(collection: &Collection, correlation: &Correlation, key: &[String], extras: &[String], needs: &mut Needs) {
    for input in &correlation.inputs {
        let below = |names: &[String]| names.iter().map(|name| input.field(name).to_owned()).collect::<Vec<_>>();
        let (key, extras) = (below(key), below(extras));
        let asked = input.group_fields.iter().chain(&input.value_fields).cloned().chain(extras);
        match input.target {
            Target::Rule(rule) => {
                needs.fields.entry(rule).or_default().extend(asked);
                needs.ways.push((rule, key));
            }
            Target::Correlation(lower) => {
                if let Some(lower) = collection.correlations.get(lower) {
                    follow(collection, lower, &key, &asked.collect::<Vec<_>>(), needs);
                }
            }
        }
    }
}

/// The collection for the table of kept events.
pub fn of_matched(collection: &Collection) -> Collection {
    let mut matched = collection.clone();
    for (place, rule) in matched.rules.iter_mut().enumerate() {
        rule.source = LogSource { service: Some(service(place)), ..LogSource::default() };
        rule.predicate = Predicate::All(Vec::new());
    }
    matched
}

/// The column `source` of an event that these rules match.
pub fn matched_json(rules: &[usize]) -> String {
    let services = rules.iter().map(|place| service(*place).into()).collect();
    source_json(&EventSource { services: Some(services), ..EventSource::default() })
}

/// Whether a column `source` of [`matched_json`] names this rule.
pub fn is_matched(source: &str, rule: usize) -> bool {
    source.contains(&format!("\"{}\"", service(rule)))
}

fn service(place: usize) -> String {
    format!("rule-{place}")
}
