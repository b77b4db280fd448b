//! Correlations in SQL against their definition, worked out word by word over the list of all events.

use super::{ClickHouse, Sqlite};
use fastrand::Rng;
use model::{EventSource, Fields};
use rules::FieldsView;
use rules::operators::compare::number;
use rules::sigma::correlation::{Condition, Correlation, Kind, Target};
use rules::sigma::{Collection, Gravity, Options, Reader};
use rules::sql::Dialect;
use rules::sql::correlation::{Between, Events, firings, members};
use rules::sql::fields_json;
use std::collections::{BTreeMap, BTreeSet};

const SECOND: i64 = 1_000_000;
const EVENTS: Events<'_> = Events { table: "events", id: "n", time: "ts" };

/// Every kind, rising and closing, with and without groups, aliases and chains. Rule `a` also has the
/// events of `b` whose `user` is odd.
const CORRELATIONS: [(&str, &str); 46] = [
    ("count", "type: event_count\nrules: a\ngroup-by: user\ntimespan: 5s\ncondition: {gte: 3}"),
    ("count_all", "type: event_count\nrules: [a, b, c]\ntimespan: 3s\ncondition: {gt: 4}"),
    ("count_few", "type: event_count\nrules: [a, b]\ngroup-by: user\ntimespan: 6s\ncondition: {lt: 3}"),
    ("count_range", "type: event_count\nrules: a\ngroup-by: user\ntimespan: 6s\ncondition: {gte: 2, lte: 3}"),
    ("count_eq", "type: event_count\nrules: b\ntimespan: 2s\ncondition: {eq: 2}"),
    ("count_neq", "type: event_count\nrules: b\ngroup-by: [user, host]\ntimespan: 2s\ncondition: {neq: 1}"),
    ("count_half", "type: event_count\nrules: [a, b]\ntimespan: 2s\ncondition: {gte: 2.5}"),
    ("count_below_half", "type: event_count\nrules: [a, b]\ntimespan: 2s\ncondition: {lt: 2.5}"),
    ("count_never", "type: event_count\nrules: [a, b]\ntimespan: 2s\ncondition: {eq: 2.5}"),
    ("count_neq_half", "type: event_count\nrules: [a, b]\ntimespan: 2s\ncondition: {neq: 2.5}"),
    ("values", "type: value_count\nrules: [a, b]\ngroup-by: user\ntimespan: 5s\ncondition: {field: host, gte: 3}"),
    ("values_few", "type: value_count\nrules: a\ntimespan: 9s\ncondition: {field: host, lte: 2}"),
    ("values_eq", "type: value_count\nrules: [b, c]\ngroup-by: user\ntimespan: 3s\ncondition: {field: host, eq: 2}"),
    ("pairs", "type: value_count\nrules: [a, c]\ntimespan: 4s\ncondition: {field: [host, user], gt: 2}"),
    ("pairs_few", "type: value_count\nrules: [a, c]\ntimespan: 4s\ncondition: {field: [host, user], lt: 4}"),
    ("all", "type: temporal\nrules: [a, b, c]\ngroup-by: user\ntimespan: 4s"),
    ("two", "type: temporal\nrules: [a, b, c]\ngroup-by: host\ntimespan: 4s\ncondition: {gte: 2}"),
    ("one", "type: temporal\nrules: [a, b, c]\ntimespan: 1s\ncondition: {eq: 1}"),
    ("either", "type: temporal\nrules: [a, b, c]\ngroup-by: user\ntimespan: 3s\ncondition: a and (b or c)"),
    ("without", "type: temporal\nrules: [a, b]\ngroup-by: user\ntimespan: 3s\ncondition: a and not b"),
    ("ordered", "type: temporal_ordered\nrules: [c, a, b]\ngroup-by: user\ntimespan: 6s"),
    ("ordered_two", "type: temporal_ordered\nrules: [c, a, b]\ngroup-by: user\ntimespan: 4s\ncondition: {gte: 2}"),
    ("ordered_few", "type: temporal_ordered\nrules: [c, b, a]\ntimespan: 4s\ncondition: {lt: 3}"),
    ("ordered_either", "type: temporal_ordered\nrules: [b, a, c]\ntimespan: 4s\ncondition: b and a or b and c"),
    (
        "ordered_without",
        "type: temporal_ordered\nrules: [b, a, c]\ngroup-by: user\ntimespan: 4s\ncondition: b and a and not c",
    ),
    ("sum", "type: value_sum\nrules: [a, b]\ngroup-by: user\ntimespan: 5s\ncondition: {field: size, gte: 1000}"),
    ("sum_gt", "type: value_sum\nrules: [a, b]\ntimespan: 5s\ncondition: {field: size, gt: 0.3}"),
    ("sum_low", "type: value_sum\nrules: [a, b]\ntimespan: 5s\ncondition: {field: size, lte: 12.5}"),
    ("sum_eq", "type: value_sum\nrules: a\ngroup-by: user\ntimespan: 1s\ncondition: {field: size, eq: 2.5}"),
    ("sum_neq", "type: value_sum\nrules: a\ntimespan: 3s\ncondition: {field: size, neq: 0}"),
    ("sum_less", "type: value_sum\nrules: [a, c]\ngroup-by: host\ntimespan: 3s\ncondition: {field: size, lt: -1}"),
    ("avg", "type: value_avg\nrules: [a, b, c]\ngroup-by: user\ntimespan: 5s\ncondition: {field: size, gt: 2.5}"),
    ("avg_low", "type: value_avg\nrules: a\ntimespan: 5s\ncondition: {field: size, lt: 0.1}"),
    ("avg_eq", "type: value_avg\nrules: [a, b]\ngroup-by: user\ntimespan: 1s\ncondition: {field: size, eq: 2.5}"),
    ("avg_large", "type: value_avg\nrules: [a, b]\ntimespan: 4s\ncondition: {field: size, gte: 100000000000000}"),
    ("median", "type: value_median\nrules: [a, b]\ngroup-by: user\ntimespan: 5s\ncondition: {field: size, gte: 1}"),
    ("median_low", "type: value_median\nrules: [a, b]\ntimespan: 5s\ncondition: {field: size, lt: 2}"),
    (
        "percentile",
        "type: value_percentile\nrules: [a, b, c]\ntimespan: 5s\ncondition: {field: size, gte: 10, percentile: 95}",
    ),
    (
        "percentile_eq",
        "type: value_percentile\nrules: a\ngroup-by: host\ntimespan: 4s\ncondition: {field: size, eq: 1, percentile: 0}",
    ),
    (
        "aliased",
        "type: value_count\nrules: [a, b]\naliases: {who: {a: user, b: host}}\ngroup-by: who\ntimespan: 5s\ncondition: {field: size, gte: 2}",
    ),
    (
        "counted_aliases",
        "type: value_sum\nrules: [a, b]\naliases: {what: {a: size, b: other}}\ntimespan: 5s\ncondition: {field: what, gte: 2}",
    ),
    ("chain", "type: temporal\nrules: [count, c]\ngroup-by: user\ntimespan: 6s"),
    ("chain_count", "type: event_count\nrules: [values, two]\ngroup-by: host\ntimespan: 5s\ncondition: {gte: 2}"),
    ("chain_ordered", "type: temporal_ordered\nrules: [b, chain]\ntimespan: 9s"),
    ("chain_closing", "type: event_count\nrules: [count_few, without]\ntimespan: 4s\ncondition: {lte: 3}"),
    (
        "chain_aliased",
        "type: value_count\nrules: [aliased, avg]\naliases: {person: {aliased: who, avg: user}}\ngroup-by: host\ntimespan: 5s\n\
         condition: {field: person, gte: 2}",
    ),
];

fn collection() -> Collection {
    let mut reader = Reader::new(Options::default());
    for (name, detection) in [
        ("a", "{s: {kind: a}, odd: {kind: b, user: [\"1\", \"3\"]}, condition: s or odd}"),
        ("b", "{s: {kind: b}, condition: s}"),
        ("c", "{s: {kind: c}, condition: s}"),
    ] {
        let rule = format!("title: {name}\nname: {name}\nlogsource: {{product: linux}}\ndetection: {detection}\n");
        reader.text("rules.yml", &rule);
    }
    for (name, part) in CORRELATIONS {
        let part = part.replace('\n', "\n  ");
        reader.text("correlations.yml", &format!("title: {name}\nname: {name}\ncorrelation:\n  {part}\n"));
    }
    let collection = reader.finish();
    let refused: Vec<_> = collection.problems.iter().filter(|problem| problem.gravity == Gravity::Refused).collect();
    assert!(refused.is_empty(), "{refused:#?}");
    assert_eq!(collection.correlations.len(), CORRELATIONS.len());
    collection
}

struct Event {
    time: i64,
    fields: Fields<'static>,
}

fn generated(rng: &mut Rng, count: usize) -> Vec<Event> {
    const SIZES: [&str; 16] = [
        "0",
        "2.5",
        "2.5",
        "1",
        "2.5",
        "0.1",
        "0.2",
        "-3",
        "1000",
        "1e15",
        "-1e15",
        "999999999999999",
        "0.0000005",
        "007",
        "1e16",
        "12",
    ];
    let event = |rng: &mut Rng| {
        let mut fields = Fields::new(EventSource {
            product: [None, Some("linux".into()), Some("Linux".into()), Some("windows".into())][rng.usize(..4)].clone(),
            ..EventSource::default()
        });
        fields.push("kind", ["a", "b", "c"][rng.usize(..3)]);
        for (name, values) in
            [("user", &["1", "2", "3"][..]), ("host", &["1", "2", "it's", "É"]), ("size", &SIZES), ("other", &SIZES)]
        {
            match rng.u8(..12) {
                0 => {}
                1 => fields.push_null(name),
                2 => {
                    fields.push_null(name);
                    fields.push(name, values[rng.usize(..values.len())]);
                    fields.push(name, "another");
                }
                _ => fields.push(name, values[rng.usize(..values.len())]),
            }
        }
        // Equal times, ends of windows, and a microsecond beside them.
        let time = rng.i64(-20..20) * SECOND + [0, 0, 0, 1, -1][rng.usize(..5)];
        Event { time, fields }
    };
    (0..count).map(|_| event(rng)).collect()
}

#[derive(Clone)]
struct Member<'e> {
    event: usize,
    time: i64,
    fields: &'e Fields<'static>,
    input: usize,
    /// Correlations and inputs on the way, the lowest first.
    path: Vec<(usize, usize)>,
    key: Vec<String>,
    values: Vec<String>,
}

fn members<'e>(collection: &Collection, index: usize, events: &'e [Event]) -> Vec<Member<'e>> {
    let correlation = &collection.correlations[index];
    let mut all = Vec::new();
    for (at, input) in correlation.inputs.iter().enumerate() {
        let below: Vec<Member<'_>> = match input.target {
            Target::Rule(rule) => {
                let rule = &collection.rules[rule];
                let has = |event: &Event| {
                    rule.source.admits(&event.fields.source) && rule.predicate.matches(&FieldsView(&event.fields))
                };
                let matching = events.iter().enumerate().filter(|(_, event)| has(event));
                let (key, values, path) = (Vec::new(), Vec::new(), Vec::new());
                let plain = Member { event: 0, time: 0, fields: &events[0].fields, input: 0, path, key, values };
                matching.map(|(n, e)| Member { event: n, time: e.time, fields: &e.fields, ..plain.clone() }).collect()
            }
            Target::Correlation(lower) => {
                let anchors = anchors(collection, lower, events);
                let holding = |member: &Member<'_>| anchors[&member.key].contains(&(member.time, true));
                members(collection, lower, events).into_iter().filter(holding).collect()
            }
        };
        for mut member in below {
            let text = |name: &String| {
                let mut name = input.field(name).to_owned();
                for (lower, at) in member.path.iter().rev() {
                    name = collection.correlations[*lower].inputs[*at].field(&name).to_owned();
                }
                member.fields.first(&name).map(str::to_owned)
            };
            let key: Option<Vec<String>> = correlation.group_by.iter().map(text).collect();
            let values: Option<Vec<String>> = correlation.value_fields.iter().map(text).collect();
            let (Some(key), Some(values)) = (key, values) else { continue };
            if correlation.kind.numeric() && millionths(&values[0]).is_none() {
                continue;
            }
            member.path.push((index, at));
            all.push(Member { input: at, key, values, ..member });
        }
    }
    all
}

fn millionths(text: &str) -> Option<i128> {
    let number = number(text).filter(|number| number.abs() <= 1e15)?;
    Some(number.trunc() as i128 * 1_000_000 + (number.fract() * 1e6).round() as i128)
}

fn anchors(collection: &Collection, index: usize, events: &[Event]) -> BTreeMap<Vec<String>, Vec<(i64, bool)>> {
    let correlation = &collection.correlations[index];
    let span = correlation.timespan.micros;
    let mut groups: BTreeMap<Vec<String>, Vec<Member<'_>>> = BTreeMap::new();
    for member in members(collection, index, events) {
        groups.entry(member.key.clone()).or_default().push(member);
    }
    let judge = |members: Vec<Member<'_>>| {
        let times: BTreeSet<i64> = members.iter().map(|member| member.time).collect();
        let judged = times.into_iter().map(|time| {
            let (from, to) = if correlation.closing() { (time, time + span) } else { (time - span, time) };
            let window: Vec<&Member<'_>> = members.iter().filter(|member| (from..=to).contains(&member.time)).collect();
            (time, holds(correlation, &window))
        });
        judged.collect()
    };
    groups.into_iter().map(|(key, members)| (key, judge(members))).collect()
}

fn holds(correlation: &Correlation, window: &[&Member<'_>]) -> bool {
    let present: BTreeSet<usize> = window.iter().map(|member| member.input).collect();
    match &correlation.condition {
        Condition::Compare(bounds) => {
            let (metric, parts) = metric(correlation, window, &present);
            bounds.iter().all(|bound| {
                let limit = millionths(&bound.value.to_string()).unwrap();
                bound.op.holds(metric.cmp(&(limit * parts)))
            })
        }
        Condition::Rules(expr) => {
            let bits = present.iter().fold(0, |bits, input| bits | 1 << input);
            if correlation.kind == Kind::Temporal {
                return expr.holds(bits);
            }
            expr.terms().unwrap().iter().any(|term| {
                let picked: Vec<usize> = (0..64).filter(|input| term.present >> input & 1 == 1).collect();
                bits & term.absent == 0 && in_order(window, &picked, i64::MIN)
            })
        }
    }
}

/// Whether inputs can be picked in this order, each not before the one before it.
fn in_order(window: &[&Member<'_>], inputs: &[usize], since: i64) -> bool {
    let Some((first, rest)) = inputs.split_first() else { return true };
    let mut fits = window.iter().filter(|member| member.input == *first && member.time >= since);
    fits.any(|member| in_order(window, rest, member.time))
}

/// In millionths, as a fraction.
fn metric(correlation: &Correlation, window: &[&Member<'_>], present: &BTreeSet<usize>) -> (i128, i128) {
    let count = |count: usize| (count as i128 * 1_000_000, 1);
    let numbers: Vec<i128> = if correlation.kind.numeric() {
        let distinct: BTreeSet<(i128, usize)> =
            window.iter().map(|member| (millionths(&member.values[0]).unwrap(), member.event)).collect();
        distinct.into_iter().map(|(number, _)| number).collect()
    } else {
        Vec::new()
    };
    match correlation.kind {
        Kind::EventCount => count(window.iter().map(|member| member.event).collect::<BTreeSet<_>>().len()),
        Kind::ValueCount => count(window.iter().map(|member| &member.values).collect::<BTreeSet<_>>().len()),
        Kind::Temporal => count(present.len()),
        Kind::TemporalOrdered => {
            let all: Vec<usize> = present.iter().copied().collect();
            let picks = (0..1_usize << all.len())
                .map(|bits| (0..all.len()).filter(|at| bits >> at & 1 == 1).map(|at| all[at]).collect::<Vec<_>>());
            count(picks.filter(|picked| in_order(window, picked, i64::MIN)).map(|picked| picked.len()).max().unwrap())
        }
        Kind::ValueSum => (numbers.iter().sum(), 1),
        Kind::ValueAvg => (numbers.iter().sum(), numbers.len() as i128),
        Kind::ValuePercentile | Kind::ValueMedian => {
            let rank = usize::from(correlation.percentile) * (numbers.len() - 1);
            let low = numbers[rank / 100];
            let high = numbers.get(rank / 100 + 1).copied().unwrap_or(low);
            (low * 100 + (rank % 100) as i128 * (high - low), 100)
        }
    }
}

fn expected(collection: &Collection, index: usize, events: &[Event]) -> Vec<(Vec<String>, i64)> {
    let span = collection.correlations[index].timespan.micros;
    let mut all = Vec::new();
    for (key, anchors) in anchors(collection, index, events) {
        let mut before = None;
        for (time, holds) in anchors {
            let goes_on = before.is_some_and(|(earlier, held)| held && time - earlier <= span);
            if holds && !goes_on {
                all.push((key.clone(), time));
            }
            before = Some((time, holds));
        }
    }
    all.sort();
    all
}

#[test]
fn correlations_fire_as_defined() {
    let collection = collection();
    let mut rng = Rng::with_seed(7);
    let mut fired = BTreeMap::new();
    // ClickHouse takes long to plan such a query, so it is asked about the larger one only.
    for (count, dialects) in
        [(15, &[Dialect::Sqlite][..]), (40, &[Dialect::Sqlite]), (80, &[Dialect::Sqlite, Dialect::ClickHouse])]
    {
        let events = generated(&mut rng, count);
        let (fields, times): (Vec<_>, Vec<_>) = events.iter().map(|event| (event.fields.clone(), event.time)).unzip();
        let sqlite = Sqlite::with(&fields);
        sqlite.set_times(&times);
        let clickhouse = dialects.contains(&Dialect::ClickHouse).then(|| ClickHouse::with(&fields));
        clickhouse.iter().for_each(|clickhouse| clickhouse.set_times(&times));
        for (index, (name, _)) in CORRELATIONS.iter().enumerate() {
            let all = expected(&collection, index, &events);
            *fired.entry(name).or_insert(0) += all.len();
            let (from_micros, to_micros) = (rng.i64(-15..0) * SECOND, rng.i64(0..15) * SECOND);
            let some = all.iter().filter(|(_, at)| (from_micros..=to_micros).contains(at)).cloned().collect::<Vec<_>>();
            for (between, expected) in [(None, &all), (Some(Between { from_micros, to_micros }), &some)] {
                for dialect in dialects {
                    let sql = firings(&collection, index, EVENTS, between, *dialect).unwrap();
                    let mut found = clickhouse
                        .as_ref()
                        .filter(|_| *dialect == Dialect::ClickHouse)
                        .map_or_else(|| sqlite.rows(&sql), |clickhouse| clickhouse.rows(&sql));
                    found.sort();
                    let sql = super::beginning(&sql);
                    assert!(found == *expected, "{name} in {dialect}, {between:?}\n{sql}\n{found:?}\n{expected:?}");
                }
            }
        }
    }
    let silent: Vec<_> = fired.iter().filter(|(_, fired)| **fired == 0).map(|(name, _)| **name).collect();
    assert_eq!(silent, ["count_never"], "{fired:?}");
}

/// Of events that were asked before, only what is needed, and only those within reach.
#[test]
fn kept_events_fire_as_all_events_do() {
    let collection = collection();
    let of_matched = members::of_matched(&collection);
    let mut rng = Rng::with_seed(11);
    let (mut fired, mut left_out) = (0, 0);
    for _ in 0..3 {
        let events = generated(&mut rng, 60);
        for (index, correlation) in CORRELATIONS.iter().enumerate() {
            let all = expected(&collection, index, &events);
            let (needs, reach) = (members::needs(&collection, index), members::reach(&collection, index));
            let (from_micros, to_micros) = (rng.i64(-12..0) * SECOND, rng.i64(0..12) * SECOND);
            let within = from_micros - reach.back_micros..=to_micros + reach.ahead_micros;
            let mut rows = Vec::new();
            for event in &events {
                let matching = |rule: &&usize| {
                    let rule = &collection.rules[**rule];
                    let view = FieldsView(&event.fields);
                    rule.source.admits(&event.fields.source) && rule.predicate.matches(&view)
                };
                let matched: Vec<usize> = needs.fields.keys().filter(matching).copied().collect();
                if matched.is_empty() || !within.contains(&event.time) {
                    left_out += usize::from(!matched.is_empty());
                    continue;
                }
                let needed: BTreeSet<&String> = matched.iter().flat_map(|rule| &needs.fields[rule]).collect();
                let mut fields = Fields::new(EventSource::default());
                for leaf in event.fields.leaves().iter().filter(|leaf| needed.iter().any(|name| **name == leaf.name)) {
                    match &leaf.value {
                        Some(value) => fields.push(leaf.name.clone(), value.clone()),
                        None => fields.push_null(leaf.name.clone()),
                    }
                }
                rows.push((event.time, members::matched_json(&matched), fields_json(&fields)));
            }
            let sqlite = Sqlite::of_rows(&rows);
            let between = Some(Between { from_micros, to_micros });
            let sql = firings(&of_matched, index, EVENTS, between, Dialect::Sqlite).unwrap();
            let mut found = sqlite.rows(&sql);
            found.sort();
            let some: Vec<_> = all.into_iter().filter(|(_, at)| (from_micros..=to_micros).contains(at)).collect();
            assert_eq!(found, some, "{} {between:?} {reach:?}", correlation.0);
            fired += some.len();
        }
    }
    assert!(fired > 100 && left_out > 300, "{fired} fired, {left_out} events were out of reach");
}

#[test]
fn many_inputs_are_correlated() {
    let mut reader = Reader::new(Options::default());
    let names: Vec<String> = (0..401).map(|n| format!("rule{n}")).collect();
    for name in &names {
        let detection = format!("{{s: {{kind: {name}}}, condition: s}}");
        reader.text(
            "r.yml",
            &format!("title: {name}\nname: {name}\nlogsource: {{product: linux}}\ndetection: {detection}\n"),
        );
    }
    for (name, kind, count, condition) in [
        ("most", "event_count", 400, "\n  condition: {gte: 3}"),
        ("all", "temporal", 64, ""),
        ("ordered", "temporal_ordered", 64, ""),
        ("either", "temporal_ordered", 64, "\n  condition: rule0 and rule63 and not rule64"),
        ("some", "event_count", 90, "\n  condition: {gte: 3}"),
        ("above_some", "event_count", 0, "\n  condition: {gte: 1}"),
        ("too_many", "event_count", 401, "\n  condition: {gte: 3}"),
        ("above_most", "event_count", 0, "\n  condition: {gte: 1}"),
    ] {
        let rules = match name {
            "either" => "rule0, rule63, rule64".to_owned(),
            "above_some" => "some".to_owned(),
            "above_most" => "most".to_owned(),
            _ => names[..count].join(", "),
        };
        let text = format!(
            "title: {name}\nname: {name}\ncorrelation:\n  type: {kind}\n  rules: [{rules}]\n  timespan: 2m{condition}\n"
        );
        reader.text("c.yml", &text);
    }
    let collection = reader.finish();
    assert!(
        collection.problems.iter().all(|problem| problem.gravity == Gravity::Warning),
        "{:#?}",
        collection.problems
    );
    let (fields, times): (Vec<_>, Vec<_>) = (0..64)
        .map(|n| {
            let mut fields = Fields::new(EventSource::default());
            fields.push("kind", names[n].clone());
            (fields, n as i64 * SECOND)
        })
        .unzip();
    let (sqlite, clickhouse) = (Sqlite::with(&fields), ClickHouse::with(&fields));
    sqlite.set_times(&times);
    clickhouse.set_times(&times);
    // A `not` is judged from the first event on, when its window is over.
    for (index, at) in [2, 63, 63, 0, 2, 2].into_iter().enumerate() {
        let sql = |dialect| firings(&collection, index, EVENTS, None, dialect).unwrap();
        let expected = [(Vec::new(), at * SECOND)];
        assert_eq!(sqlite.rows(&sql(Dialect::Sqlite)), expected, "{index}");
        assert_eq!(clickhouse.rows(&sql(Dialect::ClickHouse)), expected, "{index}");
    }
    for (index, said) in [(6, "more than 400 inputs"), (7, "ask about so many fields")] {
        let refused = firings(&collection, index, EVENTS, None, Dialect::Sqlite).unwrap_err().to_string();
        assert!(refused.contains(said), "{refused}");
    }
}
