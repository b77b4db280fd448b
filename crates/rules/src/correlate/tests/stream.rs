//! The stream against the definition.

use super::*;
use proptest::prelude::*;

/// Every kind, rising and closing, with and without groups, aliases and chains.
const CORRELATIONS: [(&str, &str); 31] = [
    ("count", "type: event_count\nrules: a\ngroup-by: u\ntimespan: 5s\ncondition: {gte: 3}"),
    ("count_all", "type: event_count\nrules: [a, b, c]\ntimespan: 3s\ncondition: {gt: 4}"),
    ("count_few", "type: event_count\nrules: [a, b]\ngroup-by: u\ntimespan: 6s\ncondition: {lt: 3}"),
    ("count_range", "type: event_count\nrules: a\ngroup-by: u\ntimespan: 6s\ncondition: {gte: 2, lte: 3}"),
    ("count_eq", "type: event_count\nrules: b\ntimespan: 2s\ncondition: {eq: 2}"),
    ("count_neq", "type: event_count\nrules: b\ngroup-by: [u, v]\ntimespan: 2s\ncondition: {neq: 1}"),
    ("values", "type: value_count\nrules: [a, b]\ngroup-by: u\ntimespan: 5s\ncondition: {field: v, gte: 3}"),
    ("values_few", "type: value_count\nrules: a\ntimespan: 9s\ncondition: {field: v, lte: 2}"),
    ("pairs", "type: value_count\nrules: [a, c]\ntimespan: 4s\ncondition: {field: [v, u], gt: 2}"),
    ("all", "type: temporal\nrules: [a, b, c]\ngroup-by: u\ntimespan: 4s"),
    ("two", "type: temporal\nrules: [a, b, c]\ngroup-by: v\ntimespan: 4s\ncondition: {gte: 2}"),
    ("one", "type: temporal\nrules: [a, b, c]\ntimespan: 1s\ncondition: {eq: 1}"),
    ("either", "type: temporal\nrules: [a, b, c]\ngroup-by: u\ntimespan: 3s\ncondition: a and (b or c)"),
    ("without", "type: temporal\nrules: [a, b]\ngroup-by: u\ntimespan: 3s\ncondition: a and not b"),
    ("ordered", "type: temporal_ordered\nrules: [c, a, b]\ngroup-by: u\ntimespan: 6s"),
    ("ordered_two", "type: temporal_ordered\nrules: [c, a, b]\ngroup-by: u\ntimespan: 4s\ncondition: {gte: 2}"),
    ("ordered_few", "type: temporal_ordered\nrules: [c, b, a]\ntimespan: 4s\ncondition: {lt: 3}"),
    (
        "ordered_either",
        "type: temporal_ordered\nrules: [b, a, c]\ngroup-by: u\ntimespan: 4s\ncondition: b and a or b and c",
    ),
    (
        "ordered_without",
        "type: temporal_ordered\nrules: [b, a, c]\ngroup-by: u\ntimespan: 4s\ncondition: b and a and not c",
    ),
    ("sum", "type: value_sum\nrules: [a, b]\ngroup-by: u\ntimespan: 5s\ncondition: {field: v, gt: 6}"),
    ("sum_low", "type: value_sum\nrules: [a, b]\ngroup-by: u\ntimespan: 5s\ncondition: {field: v, lte: 3}"),
    ("avg", "type: value_avg\nrules: a\ngroup-by: u\ntimespan: 5s\ncondition: {field: v, gte: 2.5}"),
    ("avg_low", "type: value_avg\nrules: a\ntimespan: 5s\ncondition: {field: v, lt: 1}"),
    (
        "high",
        "type: value_percentile\nrules: [a, b]\ngroup-by: u\ntimespan: 9s\ncondition: {field: v, gte: 3, percentile: 75}",
    ),
    ("median", "type: value_median\nrules: [a, c]\ntimespan: 4s\ncondition: {field: v, gt: 1.5}"),
    (
        "aliased",
        "type: value_sum\nrules: [a, b]\ngroup-by: who\ntimespan: 4s\naliases: {who: {a: u, b: w}, n: {a: v, b: x}}\ncondition: {field: n, gte: 5}",
    ),
    ("then", "type: temporal_ordered\nrules: [count, b]\ngroup-by: v\ntimespan: 5s"),
    ("often", "type: event_count\nrules: [then, aliased]\ngroup-by: u\ntimespan: 9s\ncondition: {gte: 2}"),
    ("on_sum", "type: value_count\nrules: [sum, c]\ngroup-by: w\ntimespan: 6s\ncondition: {field: v, gte: 2}"),
    ("on_few", "type: temporal\nrules: [count_few, c]\ngroup-by: u\ntimespan: 6s"),
    (
        "through",
        "type: event_count\nrules: [aliased, without]\ngroup-by: who\ntimespan: 6s\naliases: {who: {without: w, aliased: who}}\ncondition: {gte: 2}",
    ),
];

/// Those above a correlation that tells what it finds only when it is settled.
const ABOVE_SETTLED: [&str; 4] = ["often", "on_sum", "on_few", "through"];

fn samples(most: usize, seconds: i64) -> impl Strategy<Value = Vec<Sample>> {
    let field = |choices: &'static [&'static str]| proptest::sample::select(choices);
    let one = (
        0..seconds * 2,
        1..8_usize,
        field(&["x", "x", "y", ""]),
        field(&["0", "1", "2", "3", "4", "-2", "word", ""]),
        field(&["x", "y", ""]),
        field(&["1", "5", ""]),
    );
    proptest::collection::vec(one, 0..most).prop_map(|all| {
        let sample = |(index, (half, rules, u, v, w, x)): (usize, (i64, usize, &str, &str, &str, &str))| Sample {
            id: index as u128 + 1,
            time: half * SECOND / 2,
            rules: (0..3).filter(|rule| rules & (1 << rule) != 0).collect(),
            fields: [("u", u), ("v", v), ("w", w), ("x", x)]
                .into_iter()
                .filter(|(_, text)| !text.is_empty())
                .map(|(name, text)| (name, text.to_owned()))
                .collect(),
        };
        all.into_iter().enumerate().map(sample).collect()
    })
}

fn named(collection: &Collection, facts: &BTreeSet<Fact>) -> Vec<String> {
    let name = |(index, key, anchor): &Fact| {
        format!("{} {key:?} {:.1}", collection.correlations[*index].header.title, *anchor as f64 / 1e6)
    };
    facts.iter().map(name).collect()
}

fn same(collection: &Collection, heard: &Heard, expected: &BTreeSet<Fact>) -> Result<(), TestCaseError> {
    let (heard, expected) = (named(collection, &heard.facts()), named(collection, expected));
    prop_assert_eq!(heard, expected);
    Ok(())
}

/// Of more events of one time than a count needs, some go: those that stay still count.
#[test]
fn events_of_one_time_count_although_some_of_them_are_dropped() {
    let collection = collection(&CORRELATIONS[..1]);
    let plans = Arc::new(Plans::compile(&collection, limits(3)));
    let sample = |(id, half): (u128, i64)| Sample {
        id,
        time: half * SECOND / 2,
        rules: vec![0],
        fields: vec![("u", "x".to_owned())],
    };
    let events: Vec<Sample> = (1..).zip([0, 0, 0, 0, 7, 8, 9]).map(sample).collect();
    let expected = naive::firings(&collection, &events);
    assert_eq!(expected.len(), 1);
    assert_eq!(run(&plans, &events, 1).0.facts(), expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_order_and_any_repetition_give_the_firings_of_the_definition(
        events in samples(40, 20),
        shuffled in any::<proptest::sample::Index>(),
        order in Just(()).prop_perturb(|(), mut rng| std::array::from_fn::<u32, 80, _>(|_| rng.random())),
        batch in 1..20_usize,
    ) {
        let collection = collection(&CORRELATIONS);
        let plans = Arc::new(Plans::compile(&collection, limits(1_000)));
        let expected = naive::firings(&collection, &events);

        let mut sorted = events.clone();
        sorted.sort_by_key(|sample| sample.time);
        same(&collection, &run(&plans, &sorted, 1).0, &expected)?;

        let mut mixed = [events.clone(), events.clone()].concat();
        mixed.truncate(events.len() + shuffled.index(events.len() + 1));
        let mut keyed: Vec<(u32, Sample)> = order.into_iter().zip(mixed).collect();
        keyed.sort_by_key(|(key, _)| *key);
        let mixed: Vec<Sample> = keyed.into_iter().map(|(_, sample)| sample).collect();
        same(&collection, &run(&plans, &mixed, batch).0, &expected)?;
    }

    #[test]
    fn events_within_lateness_count_although_old_state_is_dropped(
        events in samples(120, 90),
        jitter in Just(()).prop_perturb(|(), mut rng| std::array::from_fn::<u8, 120, _>(|_| rng.random_range(0..=6))),
    ) {
        let collection = collection(&CORRELATIONS);
        let plans = Arc::new(Plans::compile(&collection, limits(3)));
        let expected = naive::firings(&collection, &events);
        // In order of a time that is up to lateness later: nothing is later than that.
        let mut keyed: Vec<(i64, Sample)> = jitter
            .into_iter()
            .zip(events)
            .map(|(half, sample)| (sample.time + i64::from(half) * SECOND / 2, sample))
            .collect();
        keyed.sort_by_key(|(key, _)| *key);
        let mut correlator = Correlator::new(plans.clone(), Share::ALL);
        let mut heard = Heard::default();
        for together in keyed.chunk_by(|(one, _), (other, _)| one == other) {
            let now = together[0].0;
            heard.hear(&correlator.pass(now).changes);
            let hits = together.iter().flat_map(|(_, sample)| hits(&plans, sample)).collect();
            heard.hear(&correlator.apply(now, hits).changes);
        }
        heard.hear(&correlator.pass(i64::MAX).changes);
        same(&collection, &heard, &expected)?;
        prop_assert_eq!(correlator.counters().late, 0);
    }

    #[test]
    fn events_in_order_are_never_corrected(mut events in samples(60, 30)) {
        let collection = collection(&CORRELATIONS);
        let plans = Arc::new(Plans::compile(&collection, limits(3)));
        events.sort_by_key(|sample| sample.time);
        let mut correlator = Correlator::new(plans.clone(), Share::ALL);
        // Events of one time in one batch: they have no order among each other.
        for together in events.chunk_by(|one, other| one.time == other.time) {
            let hits: Vec<Hit> = together.iter().flat_map(|sample| hits(&plans, sample)).collect();
            let now = together.first().map_or(0, |sample| sample.time);
            for change in correlator.apply(now, hits).changes {
                match change {
                    Change::Opened(_) | Change::GoesOn(_) => {}
                    Change::Moved(Firing { correlation, .. })
                    | Change::Merged { correlation, .. }
                    | Change::Withdrawn { correlation, .. } => {
                        let name = &*collection.correlations[correlation].header.title;
                        prop_assert!(ABOVE_SETTLED.contains(&name), "{} {:?}", name, change);
                    }
                }
            }
        }
    }
}
