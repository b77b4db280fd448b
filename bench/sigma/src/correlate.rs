//! Correlations: hits a second, and what a group costs. The limit is the least that anybody could do
//! for `event_count`: a map from group to a queue of times.

use crate::detect::Ours;
use crate::{Plan, grown, number};
use model::Fields;
use rsigma_eval::event::JsonEvent;
use rsigma_eval::{CorrelationConfig, CorrelationEngine};
use rules::correlate::{Correlator, Event, Lacking, Limits, Plans, Share};
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

const RATES: &str = "## Correlations, hits a second

Two rules over events that are parsed already, each event a hit, a thousand a second of event time; ours in batches of 256,
its time passing each second of events, with the records that make it survive a restart. The threshold is never reached.
The limit counts nothing but times in a map of queues and keeps nothing over a restart.";

const GROUPS: &str = "## Memory a group

Many groups of 4 events each, in a process of its own. The estimate is what our own bound of memory counts with.";

const GROUPS_COUNT: usize = 100_000;
const EVENTS_A_GROUP: usize = 4;
const BATCH: usize = 256;
const MICROS: i64 = 1_000;

/// Kind, and its lines.
const KINDS: [(&str, &str); 8] = [
    ("event_count", "rules: [a, b]\n  condition: {gte: 1000000}"),
    ("value_count", "rules: [a, b]\n  condition: {field: v, gte: 1000000}"),
    ("temporal", "rules: [a, b, c]"),
    ("temporal_ordered", "rules: [c, a, b]"),
    ("value_sum", "rules: [a, b]\n  condition: {field: n, gte: 1000000000}"),
    ("value_avg", "rules: [a, b]\n  condition: {field: n, gte: 1000000000}"),
    ("value_percentile", "rules: [a, b]\n  condition: {field: n, percentile: 95, gte: 1000000000}"),
    ("value_median", "rules: [a, b]\n  condition: {field: n, gte: 1000000000}"),
];

fn rules(kind: &str, timespan: &str) -> Vec<String> {
    let rest = KINDS.iter().find(|(name, _)| *name == kind).map_or("", |(_, rest)| rest);
    let rule = |name: &&str| {
        format!(
            "title: Rule {name}\nid: 00000000-0000-4000-8000-00000000000{name}\nname: {name}\nlogsource: {{product: linux}}\ndetection: {{s: {{x: {name}}}, condition: s}}\n"
        )
    };
    let correlation = format!(
        "title: Of {kind}\nname: whole\ncorrelation:\n  type: {kind}\n  group-by: [user]\n  timespan: {timespan}\n  {rest}\n"
    );
    ["a", "b", "c"].iter().map(rule).chain([correlation]).collect()
}

/// Event `n` of a stream over so many groups and values a group.
fn event(n: usize, groups: usize, values: usize) -> Value {
    let round = n / groups;
    json!({
        "product": "linux", "x": if round.is_multiple_of(2) { "a" } else { "b" },
        "user": format!("user{:06}", n % groups), "v": format!("value{:06}", round % values), "n": n % 977,
    })
}

/// Ours, from the rule that matches to the change of state.
struct Us {
    rules: Ours,
    plans: Arc<Plans>,
    correlator: Correlator,
    hits: Vec<rules::correlate::Hit>,
    seen: usize,
}

impl Us {
    fn new(kind: &str, timespan: &str) -> Self {
        let rules = Ours::load(&rules(kind, timespan));
        let plans = Arc::new(Plans::compile(&rules.collection, Limits::default()));
        assert_eq!(rules.collection.correlations.len(), 1, "{:?}", rules.collection.problems);
        let correlator = Correlator::new(plans.clone(), Share::ALL);
        Self { rules, plans, correlator, hits: Vec::new(), seen: 0 }
    }

    fn take(&mut self, fields: &Fields<'_>) {
        let event = Event { id: self.seen as u128, time: self.seen as i64 * MICROS };
        for rule in self.rules.matches_fields(fields) {
            self.plans.hits(*rule as usize, event, fields, &mut self.hits, &mut Lacking::default());
        }
        self.seen += 1;
        if self.hits.len() >= BATCH {
            drop(self.correlator.apply(event.time, std::mem::take(&mut self.hits)));
        }
        if self.seen.is_multiple_of(1_000) {
            drop(self.correlator.pass(event.time));
        }
    }
}

struct Them {
    engine: CorrelationEngine,
    seen: usize,
}

impl Them {
    fn new(kind: &str, timespan: &str) -> Self {
        let config = CorrelationConfig { max_state_entries: 1_000_000, ..CorrelationConfig::default() };
        let mut engine = CorrelationEngine::new(config);
        let text = rules(kind, timespan).join("---\n");
        engine.add_collection(&rsigma_parser::parse_sigma_yaml(&text).expect("rules")).expect("rules");
        Self { engine, seen: 0 }
    }

    fn take(&mut self, event: &Value) {
        let seconds = (self.seen as i64 * MICROS) / 1_000_000;
        drop(self.engine.process_event_at(&JsonEvent::borrow(event), seconds));
        self.seen += 1;
    }
}

#[derive(Default)]
struct Limit {
    groups: HashMap<String, VecDeque<i64>>,
    seen: usize,
    fired: usize,
}

impl Limit {
    fn take(&mut self, fields: &Fields<'_>, span: i64) {
        let now = self.seen as i64 * MICROS;
        self.seen += 1;
        let (Some(_), Some(user)) = (fields.first("x"), fields.first("user")) else { return };
        if !self.groups.contains_key(user) {
            self.groups.insert(user.to_owned(), VecDeque::new());
        }
        let Some(times) = self.groups.get_mut(user) else { return };
        times.push_back(now);
        while times.front().is_some_and(|time| *time < now - span) {
            times.pop_front();
        }
        self.fired += usize::from(times.len() >= 1_000_000);
    }
}

/// Hits a second of one pass.
fn pass<E>(events: &[E], passes: usize, mut take: impl FnMut(&E)) -> f64 {
    let started = Instant::now();
    for _ in 0..passes {
        events.iter().for_each(&mut take);
    }
    (events.len() * passes) as f64 / started.elapsed().as_secs_f64()
}

pub fn tables(plan: &Plan) {
    println!("\n{RATES}\n");
    println!(
        "| type | groups | ours, hits/s | rsigma, hits/s | ratio | limit, hits/s | ours ÷ limit |\n|---|---|---|---|---|---|---|"
    );
    let passes = if plan.quick { 1 } else { 3 };
    let of = |kind: &str, groups: usize, values: usize, timespan: &str, span: i64| {
        let texts: Vec<Value> = (0..GROUPS_COUNT).map(|n| event(n, groups, values)).collect();
        let fields: Vec<Fields<'static>> = texts.iter().map(flat).collect();
        let (mut us, mut them, mut limit) = (Us::new(kind, timespan), Them::new(kind, timespan), Limit::default());
        let ours = pass(&fields, passes, |event| us.take(event));
        // Some of its windows are searched from end to end for each event.
        let some = if groups == 1 { &texts[..5_000] } else { &texts };
        let theirs = pass(some, if groups == 1 { 1 } else { passes }, |event| them.take(event));
        let least = pass(&fields, passes, |event| limit.take(event, span));
        assert_eq!(limit.fired, 0);
        println!(
            "| `{kind}`{} | {} | {} | {} | {:.1} | {} | {:.2} |",
            if values > 1_000 { format!(", {} values", number(values)) } else { String::new() },
            number(groups),
            number(ours as usize),
            number(theirs as usize),
            ours / theirs,
            number(least as usize),
            ours / least,
        );
    };
    const MINUTE: i64 = 60_000_000;
    for groups in [1, 1_000, 100_000] {
        of("event_count", groups, 50, "1m", MINUTE);
    }
    for (kind, _) in &KINDS[1..] {
        of(kind, 1_000, 50, "1m", MINUTE);
    }
    of("value_count", 1, 100_000, "5m", 5 * MINUTE);

    println!("\n{GROUPS}\n");
    println!(
        "| type | groups | ours, bytes a group | ours as it estimates itself | rsigma, bytes a group |\n|---|---|---|---|---|"
    );
    let groups = if plan.quick { GROUPS_COUNT / 10 } else { GROUPS_COUNT };
    let measured = |kind: &str, groups: usize| {
        let one = |what: &str| plan.child(&[what.to_owned(), kind.to_owned(), groups.to_string()]);
        let (ours, theirs) = (one("groups-ours"), one("groups-theirs"));
        let a_group = |bytes: f64| number((bytes / groups as f64) as usize);
        let of_mb = |mb: f64| a_group(mb * 1_048_576.0);
        [number(groups), of_mb(ours[0]), a_group(ours[1]), of_mb(theirs[0])].join(" | ")
    };
    for (kind, _) in KINDS {
        println!("| `{kind}` | {} |", measured(kind, groups));
    }
    // Theirs looks through all of them at each event.
    if !plan.quick {
        println!("| `value_count`, 100,000 different values | {} |", measured("value_count", 1));
    }
}

/// Memory of groups; events are made as they are needed, so that they are not counted.
pub fn child(what: &str, rest: &[String]) {
    let (kind, groups) = (rest[0].as_str(), rest[1].parse::<usize>().expect("a number"));
    let events = if groups == 1 { 100_000 } else { groups * EVENTS_A_GROUP };
    let each = |take: &mut dyn FnMut(&Value)| (0..events).for_each(|n| take(&event(n, groups, events)));
    match what {
        "groups-ours" => {
            let us = grown(|| {
                let mut us = Us::new(kind, "1h");
                each(&mut |event| us.take(&flat(event)));
                us
            });
            println!("{}", us.correlator.bytes());
        }
        "groups-theirs" => {
            grown(|| {
                let mut them = Them::new(kind, "1h");
                each(&mut |event| them.take(event));
                them
            });
        }
        other => panic!("{other} is not known"),
    }
}

fn flat(event: &Value) -> Fields<'static> {
    let text = event.to_string();
    let mut fields = Fields::default();
    fields::from_json(&text, &mut fields).expect("an event");
    fields.into_owned()
}
