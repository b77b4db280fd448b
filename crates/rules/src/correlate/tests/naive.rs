//! The definition, word by word: everything is looked up in the list of all events.

use crate::sigma::Collection;
use crate::sigma::correlation::{Condition, Correlation, Kind, Target};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// An event and the rules that match it.
#[derive(Debug, Clone)]
pub struct Sample {
    pub id: u128,
    pub time: i64,
    pub rules: Vec<usize>,
    pub fields: Vec<(&'static str, String)>,
}

impl Sample {
    fn first(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| *field == name).map(|(_, text)| text.as_str())
    }
}

/// A firing: correlation, group, anchor.
pub type Fact = (usize, Vec<String>, i64);

#[derive(Debug, Clone)]
struct Member<'e> {
    event: &'e Sample,
    input: usize,
    path: Vec<(usize, usize)>,
    key: Vec<String>,
    values: Vec<String>,
}

pub fn firings(collection: &Collection, events: &[Sample]) -> BTreeSet<Fact> {
    let mut all = BTreeSet::new();
    for (index, correlation) in collection.correlations.iter().enumerate() {
        for (key, anchors) in anchors(collection, index, events) {
            for (at, (anchor, holds)) in anchors.iter().enumerate() {
                let goes_on = at.checked_sub(1).is_some_and(|before| {
                    let (before, held) = anchors[before];
                    held && anchor - before <= correlation.timespan.micros
                });
                if *holds && !goes_on {
                    all.insert((index, key.clone(), *anchor));
                }
            }
        }
    }
    all
}

fn members<'e>(collection: &Collection, index: usize, events: &'e [Sample]) -> Vec<Member<'e>> {
    let correlation = &collection.correlations[index];
    let mut all = Vec::new();
    for (at, input) in correlation.inputs.iter().enumerate() {
        let sources: Vec<(&Sample, Vec<(usize, usize)>)> = match input.target {
            Target::Rule(rule) => {
                events.iter().filter(|event| event.rules.contains(&rule)).map(|event| (event, Vec::new())).collect()
            }
            Target::Correlation(lower) => {
                let holding = anchors(collection, lower, events);
                let held = |member: &Member<'_>| holding[&member.key].contains(&(member.event.time, true));
                let members = members(collection, lower, events).into_iter().filter(held);
                members.map(|member| (member.event, member.path)).collect()
            }
        };
        for (event, mut path) in sources {
            let through = |name: &String| {
                let mut name = input.field(name).to_owned();
                for (lower, at) in path.iter().rev() {
                    name = collection.correlations[*lower].inputs[*at].field(&name).to_owned();
                }
                event.first(&name).map(str::to_owned)
            };
            let key: Option<Vec<String>> = correlation.group_by.iter().map(through).collect();
            let values: Option<Vec<String>> = correlation.value_fields.iter().map(through).collect();
            let (Some(key), Some(values)) = (key, values) else { continue };
            if correlation.kind.numeric() && values[0].parse::<i128>().is_err() {
                continue;
            }
            path.push((index, at));
            all.push(Member { event, input: at, path, key, values });
        }
    }
    all
}

/// Per group: its anchors in order, and whether it holds at them.
fn anchors(collection: &Collection, index: usize, events: &[Sample]) -> BTreeMap<Vec<String>, Vec<(i64, bool)>> {
    let correlation = &collection.correlations[index];
    let span = correlation.timespan.micros;
    let mut groups: BTreeMap<Vec<String>, Vec<Member<'_>>> = BTreeMap::new();
    for member in members(collection, index, events) {
        groups.entry(member.key.clone()).or_default().push(member);
    }
    let judge = |members: Vec<Member<'_>>| {
        let times: BTreeSet<i64> = members.iter().map(|member| member.event.time).collect();
        let judged = times.into_iter().map(|time| {
            let (from, to) = if correlation.closing() { (time, time + span) } else { (time - span, time) };
            let window: Vec<&Member<'_>> =
                members.iter().filter(|member| (from..=to).contains(&member.event.time)).collect();
            (time, holds(correlation, &window))
        });
        judged.collect()
    };
    groups.into_iter().map(|(key, members)| (key, judge(members))).collect()
}

fn holds(correlation: &Correlation, window: &[&Member<'_>]) -> bool {
    match &correlation.condition {
        Condition::Compare(bounds) => {
            let (metric, parts) = metric(correlation, window);
            bounds.iter().all(|bound| {
                let limit = (bound.value * 1_000.0) as i128;
                let order: Ordering = (metric * 1_000).cmp(&(limit * parts));
                bound.op.holds(order)
            })
        }
        Condition::Rules(expr) => {
            let present = window.iter().fold(0, |bits, member| bits | 1 << member.input);
            if correlation.kind == Kind::Temporal {
                return expr.holds(present);
            }
            expr.terms().unwrap().iter().any(|term| {
                let picked: Vec<usize> = (0..64).filter(|input| term.present & (1 << input) != 0).collect();
                present & term.absent == 0 && in_order(window, &picked, i64::MIN)
            })
        }
    }
}

/// Whether inputs can be picked in this order, each not before the one before it.
fn in_order(window: &[&Member<'_>], inputs: &[usize], since: i64) -> bool {
    let Some((first, rest)) = inputs.split_first() else { return true };
    let fits = window.iter().filter(|member| member.input == *first && member.event.time >= since);
    fits.into_iter().any(|member| in_order(window, rest, member.event.time))
}

/// As a fraction.
fn metric(correlation: &Correlation, window: &[&Member<'_>]) -> (i128, i128) {
    let numbers = || {
        let distinct: BTreeSet<(u128, i128)> =
            window.iter().map(|member| (member.event.id, member.values[0].parse().unwrap())).collect();
        let mut numbers: Vec<i128> = distinct.into_iter().map(|(_, number)| number).collect();
        numbers.sort_unstable();
        numbers
    };
    let inputs: BTreeSet<usize> = window.iter().map(|member| member.input).collect();
    match correlation.kind {
        Kind::EventCount => (window.iter().map(|member| member.event.id).collect::<BTreeSet<_>>().len() as i128, 1),
        Kind::ValueCount => (window.iter().map(|member| &member.values).collect::<BTreeSet<_>>().len() as i128, 1),
        Kind::Temporal => (inputs.len() as i128, 1),
        Kind::TemporalOrdered => {
            let all: Vec<usize> = inputs.into_iter().collect();
            let subsets = 0..1_usize << all.len();
            let picked =
                subsets.map(|bits| (0..all.len()).filter(|at| bits & (1 << at) != 0).map(|at| all[at]).collect());
            let longest =
                picked.filter(|picked: &Vec<usize>| in_order(window, picked, i64::MIN)).map(|picked| picked.len());
            (longest.max().unwrap() as i128, 1)
        }
        Kind::ValueSum => (numbers().into_iter().sum(), 1),
        Kind::ValueAvg => (numbers().into_iter().sum(), numbers().len() as i128),
        Kind::ValuePercentile | Kind::ValueMedian => {
            let numbers = numbers();
            let rank = usize::from(correlation.percentile) * (numbers.len() - 1);
            let low = numbers[rank / 100];
            let high = numbers.get(rank / 100 + 1).copied().unwrap_or(low);
            (low * 100 + (rank % 100) as i128 * (high - low), 100)
        }
    }
}
