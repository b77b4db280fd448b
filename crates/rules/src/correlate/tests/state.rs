//! Restart, bounds, workers.

use super::*;

const CORRELATIONS: [(&str, &str); 7] = [
    ("count", "type: event_count\nrules: a\ngroup-by: u\ntimespan: 20s\ncondition: {gte: 3}"),
    ("few", "type: event_count\nrules: [a, b]\ngroup-by: u\ntimespan: 20s\ncondition: {lt: 3}"),
    ("values", "type: value_count\nrules: [a, b]\ntimespan: 20s\ncondition: {field: v, gte: 3}"),
    ("sum", "type: value_sum\nrules: [a, b]\ngroup-by: u\ntimespan: 20s\ncondition: {field: v, gt: 6}"),
    ("ordered", "type: temporal_ordered\nrules: [c, a, b]\ngroup-by: u\ntimespan: 20s"),
    ("then", "type: temporal_ordered\nrules: [count, b]\ngroup-by: v\ntimespan: 20s"),
    ("often", "type: event_count\nrules: [then, sum]\ntimespan: 20s\ncondition: {gte: 2}"),
];

/// Numbers that look random, the same each time.
fn random(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % below
    }
}

/// Events a second or so apart, up to four seconds late.
fn samples(seed: u64, count: usize) -> Vec<Sample> {
    let mut random = random(seed);
    let mut sample = |index: usize| {
        let fields = vec![("u", format!("user{}", random(3))), ("v", random(5).to_string())];
        let late = random(5) as i64;
        Sample { id: index as u128, time: (index as i64 - late) * SECOND, rules: vec![random(3) as usize], fields }
    };
    (0..count).map(&mut sample).collect()
}

/// What a store has: state and firings, written together.
#[derive(Debug, Clone, Default, PartialEq)]
struct Store {
    state: BTreeMap<u128, Vec<Vec<u8>>>,
    heard: Heard,
}

impl Store {
    fn write(&mut self, outcome: &Outcome) {
        assert!(outcome.elsewhere.is_empty());
        self.heard.hear(&outcome.changes);
        for Record { group, stored } in &outcome.records {
            match stored {
                Stored::Whole(bytes) => {
                    self.state.insert(*group, vec![bytes.clone()]);
                }
                Stored::More(bytes) => self.state.get_mut(group).expect("comes behind a whole").push(bytes.clone()),
                Stored::Gone => {
                    self.state.remove(group);
                }
            }
        }
    }

    fn open(&self, plans: &Arc<Plans>) -> Correlator {
        let mut correlator = Correlator::new(plans.clone(), Share::ALL);
        for (group, parts) in &self.state {
            assert!(correlator.restore(*group, parts.iter().map(Vec::as_slice)).unwrap());
        }
        correlator
    }
}

#[test]
fn a_crash_between_any_two_batches_changes_nothing() {
    let plans = Arc::new(Plans::compile(&collection(&CORRELATIONS), limits(5)));
    for seed in 1..6 {
        let events = samples(seed, 160);
        let batches: Vec<Vec<Hit>> = events
            .chunks(1 + seed as usize * 3)
            .map(|batch| batch.iter().flat_map(|one| hits(&plans, one)).collect())
            .collect();
        let now = |index: usize| index as i64 * (1 + seed as i64 * 3) * SECOND;
        let whole = |crash: Option<usize>| {
            let (mut store, mut correlator) = (Store::default(), Correlator::new(plans.clone(), Share::ALL));
            for (index, batch) in batches.iter().enumerate() {
                if crash == Some(index) {
                    // The work is done, and dies before it is written; then the batch comes again.
                    correlator.apply(now(index), batch.clone());
                    correlator = store.open(&plans);
                }
                store.write(&correlator.apply(now(index), batch.clone()));
                if crash == Some(index) {
                    // It is written, and dies before it says so: the batch comes once more.
                    correlator = store.open(&plans);
                    assert_eq!(correlator.snapshot().len(), store.state.len());
                    let again = correlator.apply(now(index), batch.clone());
                    assert_eq!(again.changes, [], "seed {seed}, batch {index}");
                    store.write(&again);
                }
                if index % 3 == 0 {
                    store.write(&correlator.pass(now(index)));
                }
            }
            store.write(&correlator.pass(i64::MAX / 2));
            store.heard
        };
        let expected = whole(None);
        assert!(expected.0.len() > 10, "the events are of some interest");
        for crash in 0..batches.len() {
            assert_eq!(whole(Some(crash)), expected, "seed {seed}, crash at batch {crash}");
        }
    }
}

#[test]
fn what_was_told_before_a_crash_is_told_by_the_same_name_in_whatever_batches_it_comes_back() {
    let plans = Arc::new(Plans::compile(&collection(&CORRELATIONS[..1]), limits(100)));
    let (mut renamed, mut crashes) = (0, 0);
    for seed in 1..200 {
        let mut random = random(seed);
        // Nine events of each user within a window: each user fires once, wherever that begins.
        let sample = |id: u64| Sample {
            id: id.into(),
            time: (id / 5) as i64 * SECOND,
            rules: vec![0],
            fields: vec![("u", format!("user{}", id % 5))],
        };
        let mut waiting: Vec<Sample> = (0..45).map(sample).collect();
        for at in (1..waiting.len()).rev() {
            waiting.swap(at, random(at as u64 + 1) as usize);
        }
        let (mut store, mut correlator) = (Store::default(), Correlator::new(plans.clone(), Share::ALL));
        let mut told: BTreeMap<Box<str>, BTreeSet<u128>> = BTreeMap::new();
        while !waiting.is_empty() {
            // Some of those at the front, in any order.
            let batch: Vec<Sample> = (0..=random(12))
                .filter_map(|_| {
                    let at = random(waiting.len().clamp(1, 15) as u64) as usize;
                    (at < waiting.len()).then(|| waiting.remove(at))
                })
                .collect();
            let outcome = correlator.apply(9 * SECOND, batch.iter().flat_map(|one| hits(&plans, one)).collect());
            for Record { group, stored } in &outcome.named {
                let Stored::More(bytes) = stored else { panic!("{stored:?}") };
                store.state.entry(*group).or_default().push(bytes.clone());
            }
            for firing in outcome.changes.iter().cloned().filter_map(Change::opened) {
                let known = told.entry(firing.key[0].clone()).or_default();
                renamed += u32::from(known.contains(&firing.id));
                known.insert(firing.id);
            }
            if random(3) == 0 {
                crashes += 1;
                correlator = store.open(&plans);
                batch.into_iter().for_each(|one| waiting.insert(random(waiting.len() as u64 + 1) as usize, one));
            } else {
                store.heard = Heard::default();
                store.write(&Outcome { changes: Vec::new(), ..outcome });
            }
        }
        assert!(told.len() == 5 && told.values().all(|ids| ids.len() == 1), "seed {seed}: {told:?}");
        assert_eq!(store.open(&plans).snapshot(), correlator.snapshot(), "seed {seed}");
    }
    assert!(renamed > 50 && crashes > 500, "{renamed} told again, {crashes} crashes");
}

#[test]
fn names_of_firings_that_never_come_back_are_forgotten() {
    let plans = Arc::new(Plans::compile(&collection(&CORRELATIONS[..1]), limits(5)));
    let batch: Vec<Hit> = samples(1, 60).iter().flat_map(|one| hits(&plans, one)).collect();
    let named = Correlator::new(plans.clone(), Share::ALL).apply(60 * SECOND, batch).named;
    assert!(!named.is_empty());
    let mut store = Store::default();
    for Record { group, stored } in named {
        let Stored::More(bytes) = stored else { panic!("{stored:?}") };
        store.state.entry(group).or_default().push(bytes);
    }
    let mut correlator = store.open(&plans);
    assert_eq!(correlator.groups(), 0);
    store.write(&correlator.pass(3_600 * SECOND));
    assert!(!store.state.is_empty(), "they may still come");
    store.write(&correlator.pass(3_800 * SECOND));
    assert!(store.state.is_empty());
    let gone = store.open(&plans).reload(Arc::new(Plans::compile(&collection(&[]), limits(5))));
    assert_eq!(gone, []);
}

#[test]
fn state_that_is_read_is_the_state_that_was() {
    let plans = Arc::new(Plans::compile(&collection(&CORRELATIONS), limits(5)));
    let (mut store, mut correlator) = (Store::default(), Correlator::new(plans.clone(), Share::ALL));
    let mut parts = 0;
    for (index, batch) in samples(9, 400).chunks(2).enumerate() {
        store.write(
            &correlator.apply(index as i64 * 2 * SECOND, batch.iter().flat_map(|one| hits(&plans, one)).collect()),
        );
        parts = parts.max(store.state.values().map(Vec::len).max().unwrap_or(0));
        if index % 20 == 0 {
            let (read, was) = (store.open(&plans).snapshot(), correlator.snapshot());
            assert!(read == was, "batch {index}");
        }
    }
    assert!(parts > 3, "not all is written anew each time: {parts}");
    assert_eq!(store.open(&plans).bytes() / 4_096, correlator.bytes() / 4_096);
}

#[test]
fn state_of_version_1_can_be_read() {
    let plans = Arc::new(Plans::compile(&collection(&CORRELATIONS), limits(5)));
    let mut store = Store::default();
    for line in include_str!("../../../tests/fixtures/correlate-state-1.txt").lines() {
        let (group, bytes) = line.split_once(' ').unwrap();
        let bytes = (0..bytes.len()).step_by(2).map(|at| u8::from_str_radix(&bytes[at..at + 2], 16).unwrap()).collect();
        store.state.entry(u128::from_str_radix(group, 16).unwrap()).or_default().push(bytes);
    }
    let mut correlator = store.open(&plans);
    // The fixture is the state after these events.
    let (mut same, events) = (Correlator::new(plans.clone(), Share::ALL), samples(1, 60));
    for (index, batch) in events[..40].chunks(2).enumerate() {
        same.apply(index as i64 * 2 * SECOND, batch.iter().flat_map(|one| hits(&plans, one)).collect());
    }
    assert_eq!(correlator.snapshot().len(), same.snapshot().len());
    let rest: Vec<Hit> = events[40..].iter().flat_map(|one| hits(&plans, one)).collect();
    // Firings of that time have names of another form.
    let nameless = |changes: Vec<Change>| {
        let of = |firing| Firing { id: 0, ..firing };
        let nameless = |change| match change {
            Change::Opened(firing) => Change::Opened(of(firing)),
            Change::GoesOn(firing) => Change::GoesOn(of(firing)),
            Change::Moved(firing) => Change::Moved(of(firing)),
            Change::Merged { correlation, .. } => Change::Merged { correlation, id: 0, into: 0 },
            Change::Withdrawn { correlation, .. } => Change::Withdrawn { correlation, id: 0 },
        };
        changes.into_iter().map(nameless).collect::<Vec<_>>()
    };
    let changes = nameless(correlator.apply(60 * SECOND, rest.clone()).changes);
    assert!(changes == nameless(same.apply(60 * SECOND, rest).changes) && changes.len() > 3, "{}", changes.len());
}

#[test]
fn damaged_state_is_refused_and_never_trusted() {
    let plans = Arc::new(Plans::compile(&collection(&CORRELATIONS), limits(5)));
    let (mut store, mut correlator) = (Store::default(), Correlator::new(plans.clone(), Share::ALL));
    for (index, batch) in samples(3, 40).chunks(2).enumerate() {
        store.write(
            &correlator.apply(index as i64 * 2 * SECOND, batch.iter().flat_map(|one| hits(&plans, one)).collect()),
        );
    }
    let mut random = random(7);
    for (group, parts) in &store.state {
        let read = |parts: &[Vec<u8>]| {
            let mut correlator = Correlator::new(plans.clone(), Share::ALL);
            let read = correlator.restore(*group, parts.iter().map(Vec::as_slice));
            // Whatever was read can be worked with.
            correlator.apply(0, samples(4, 20).iter().flat_map(|one| hits(&plans, one)).collect());
            correlator.pass(i64::MAX);
            read
        };
        for cut in 0..parts[0].len() {
            assert_eq!(read(&[parts[0][..cut].to_vec()]), Err(StateError::Damaged), "{cut}");
        }
        for _ in 0..400 {
            let mut parts = parts.clone();
            let part = random(parts.len() as u64) as usize;
            let at = random(parts[part].len() as u64) as usize;
            parts[part][at] ^= 1 << random(8);
            let _ = read(&parts);
        }
        let mut newer = parts[0].clone();
        newer[0] = 2;
        assert_eq!(read(&[newer]), Err(StateError::Version { version: 2 }));
    }
}

#[test]
fn state_of_a_correlation_that_means_something_else_now_is_not_used() {
    let old = Arc::new(Plans::compile(&collection(&CORRELATIONS), limits(5)));
    let mut changed = CORRELATIONS;
    changed[0].1 = "type: event_count\nrules: a\ngroup-by: u\ntimespan: 21s\ncondition: {gte: 3}";
    let new = Arc::new(Plans::compile(&collection(&changed), limits(5)));
    let mut correlator = Correlator::new(old.clone(), Share::ALL);
    correlator.apply(0, samples(1, 40).iter().flat_map(|one| hits(&old, one)).collect());
    let mut reader = Correlator::new(new, Share::ALL);
    let (mut used, mut left) = (0, 0);
    for Record { group, stored } in correlator.snapshot() {
        let Stored::Whole(bytes) = stored else { panic!("a snapshot is whole") };
        if reader.restore(group, [bytes.as_slice()]).unwrap() { used += 1 } else { left += 1 }
    }
    // Three users each in `count`, `few`, `sum`, `ordered`; those above `count` mean something else with it.
    assert!(used >= 7 && left >= 3, "{used} {left}");
}

#[test]
fn new_rules_keep_the_state_of_those_that_mean_the_same() {
    let old = Arc::new(Plans::compile(&collection(&CORRELATIONS), limits(5)));
    let mut others: Vec<(&str, &str)> = CORRELATIONS.to_vec();
    others.reverse();
    // One means something else, one is gone, one is new.
    let changed = others.iter().position(|(name, _)| *name == "values").unwrap();
    others[changed].1 = "type: value_count\nrules: [a, b]\ntimespan: 21s\ncondition: {field: v, gte: 3}";
    others.retain(|(name, _)| *name != "few");
    others.push(("new", "type: event_count\nrules: [c]\ntimespan: 9s\ncondition: {gte: 2}"));
    let others = collection(&others);
    let new = Arc::new(Plans::compile(&others, limits(5)));
    let title = |collection: &Collection, index: usize| collection.correlations[index].header.title.clone();

    let events = samples(2, 200);
    let mut kept = Correlator::new(old.clone(), Share::ALL);
    let mut before = Correlator::new(old.clone(), Share::ALL);
    let first: Vec<Hit> = events[..100].iter().flat_map(|one| hits(&old, one)).collect();
    kept.apply(100 * SECOND, first.clone());
    before.apply(100 * SECOND, first);
    let gone = kept.reload(new.clone());
    // Three users in `few`, one group in `values`.
    assert_eq!(gone.len(), 4, "{gone:?}");
    assert!(kept.bytes() < before.bytes() && kept.groups() + 4 == before.groups());

    let same = ["count", "sum", "ordered", "then", "often"];
    let heard = |changes: Vec<Change>, collection: &Collection| {
        let opened = changes.into_iter().filter_map(|change| match change {
            Change::Opened(firing) | Change::GoesOn(firing) => {
                Some((title(collection, firing.correlation), firing.id, firing.anchor, firing.metric.map(f64::to_bits)))
            }
            Change::Moved(_) | Change::Merged { .. } | Change::Withdrawn { .. } => None,
        });
        opened.filter(|(title, ..)| same.contains(&title.as_str())).collect::<BTreeSet<_>>()
    };
    let reference = collection(&CORRELATIONS);
    let mut found = 0;
    for batch in events[100..].chunks(5) {
        let apply = |correlator: &mut Correlator, plans: &Plans| {
            correlator.apply(200 * SECOND, batch.iter().flat_map(|one| hits(plans, one)).collect()).changes
        };
        let (kept, before) = (apply(&mut kept, &new), apply(&mut before, &old));
        assert_eq!(heard(kept, &others), heard(before.clone(), &reference));
        found += before.len();
    }
    assert!(found > 50, "{found}");
}

#[test]
fn workers_find_together_what_one_finds_alone() {
    let collection = collection(&CORRELATIONS);
    let plans = Arc::new(Plans::compile(&collection, limits(1_000)));
    let events = samples(5, 200);
    let (alone, _) = run(&plans, &events, 7);
    let count = 4;
    let mut workers: Vec<Correlator> =
        (0..count).map(|index| Correlator::new(plans.clone(), Share { index, count })).collect();
    let mut heard = Heard::default();
    let mut work = |workers: &mut Vec<Correlator>, hits: Option<Vec<Hit>>| {
        let mut waiting: Vec<Hit> = Vec::new();
        let mut outcomes: Vec<Outcome> = match hits {
            Some(hits) => {
                waiting = hits;
                Vec::new()
            }
            // Time is over for windows, and not so long that groups are forgotten.
            None => workers.iter_mut().map(|worker| worker.pass(i64::MAX / 2)).collect(),
        };
        loop {
            for outcome in outcomes.drain(..) {
                heard.hear(&outcome.changes);
                waiting.extend(outcome.elsewhere);
            }
            if waiting.is_empty() {
                break;
            }
            let mut owned: Vec<Vec<Hit>> = vec![Vec::new(); count];
            waiting.drain(..).for_each(|hit| owned[shard(hit.group, count)].push(hit));
            outcomes = owned
                .into_iter()
                .zip(workers.iter_mut())
                .map(|(hits, worker)| worker.apply(i64::MAX / 2, hits))
                .collect();
        }
    };
    for batch in events.chunks(7) {
        work(&mut workers, Some(batch.iter().flat_map(|one| hits(&plans, one)).collect()));
    }
    work(&mut workers, None);
    work(&mut workers, None);
    assert_eq!(heard.facts(), alone.facts());
    assert!(workers.iter().filter(|worker| worker.counters().hits > 0).count() > 1);
}

#[test]
fn too_many_groups_push_out_those_touched_longest_ago_and_are_counted() {
    let part = [("x", "type: event_count\nrules: a\ngroup-by: u\ntimespan: 1h\ncondition: {gte: 2}")];
    let event = |plans: &Plans, id: i64, user: i64| {
        let fields = vec![("u", user.to_string())];
        hits(plans, &Sample { id: id as u128, time: id * SECOND, rules: vec![0], fields })
    };
    let plans = Arc::new(Plans::compile(&collection(&part), Limits { groups_max: 10, ..limits(5) }));
    let mut correlator = Correlator::new(plans.clone(), Share::ALL);
    let mut gone = 0;
    for id in 0..100 {
        let outcome = correlator.apply(id * SECOND, event(&plans, id, id));
        gone += outcome.records.iter().filter(|record| record.stored == Stored::Gone).count();
    }
    assert_eq!((correlator.groups(), correlator.counters().groups_evicted, gone), (10, 90, 90));
    let opened = |correlator: &mut Correlator, id, user| {
        !correlator.apply(id * SECOND, event(&plans, id, user)).changes.is_empty()
    };
    assert!(opened(&mut correlator, 200, 95), "the youngest are known");
    assert!(!opened(&mut correlator, 201, 5), "the oldest are not");

    let plans = Arc::new(Plans::compile(&collection(&part), Limits { bytes_max: 100_000, ..limits(5) }));
    let mut correlator = Correlator::new(plans.clone(), Share::ALL);
    for id in 0..2_000 {
        correlator.apply(id * SECOND, event(&plans, id, id));
        assert!(correlator.bytes() <= 100_000);
    }
    assert!(correlator.groups() > 50 && correlator.counters().groups_evicted > 0);
    correlator.pass(1_000_000 * SECOND);
    assert_eq!((correlator.groups(), correlator.bytes()), (0, 0));
    assert_eq!(correlator.counters().groups_evicted + correlator.counters().groups_expired, 2_000);
}

#[test]
fn a_group_has_no_more_members_than_it_may_and_still_fires() {
    for (part, members) in [
        ("type: event_count\nrules: a\ntimespan: 1h\ncondition: {gte: 3}", 1_000),
        ("type: value_count\nrules: a\ntimespan: 1h\ncondition: {field: v, gte: 3}", 1_000),
        ("type: value_sum\nrules: a\ntimespan: 1h\ncondition: {field: v, gte: 3}", 1_000),
        ("type: value_median\nrules: a\ntimespan: 1h\ncondition: {field: v, gte: 2}", 1_000),
        ("type: temporal_ordered\nrules: [a, b]\ntimespan: 1h\ncondition: {gte: 1}", 1_000),
        // It cannot be known from fewer.
        ("type: event_count\nrules: a\ntimespan: 1h\ncondition: {gte: 1500}", 3_000),
        ("type: event_count\nrules: a\ntimespan: 1h\ncondition: {lt: 3}", 1_000),
    ] {
        let plans =
            Arc::new(Plans::compile(&collection(&[("x", part)]), Limits { members_max: 1_000, ..limits(3_600) }));
        let mut correlator = Correlator::new(plans.clone(), Share::ALL);
        let mut heard = Heard::default();
        for id in 0..200_i64 {
            let samples = (0..100).map(|one| Sample {
                id: (id * 100 + one) as u128,
                time: (id * 100 + one) * 1_000,
                rules: vec![0],
                fields: vec![("v", (id * 100 + one).to_string())],
            });
            let hits = samples.flat_map(|sample| hits(&plans, &sample)).collect();
            heard.hear(&correlator.apply(id * SECOND, hits).changes);
            assert!(correlator.bytes() < members * 160, "{part}: {}", correlator.bytes());
        }
        assert!(correlator.counters().members_dropped > 10_000, "{part}: {:?}", correlator.counters());
        assert_eq!(heard.0.len(), usize::from(!part.contains("lt: 3")), "{part}");
    }
}

#[test]
fn a_hundred_thousand_different_values_are_counted_exactly_in_bounded_memory() {
    let part = [("x", "type: value_count\nrules: a\ngroup-by: u\ntimespan: 1h\ncondition: {field: v, gte: 100000}")];
    let plans = Arc::new(Plans::compile(&collection(&part), Limits::default()));
    let mut correlator = Correlator::new(plans.clone(), Share::ALL);
    let event = |id: u64, value: u64| {
        let fields = vec![("u", "one".to_owned()), ("v", format!("value {value}"))];
        hits(&plans, &Sample { id: u128::from(id), time: id as i64 * 10_000, rules: vec![0], fields })
    };
    let mut opened = Vec::new();
    let mut largest = 0;
    for batch in 0..300 {
        // Each value comes three times: in the first 1,000 seconds all for the first time.
        let hits = (batch * 1_000..(batch + 1) * 1_000).flat_map(|id| event(id, id % 100_000)).collect();
        for change in correlator.apply(batch as i64 * 10 * SECOND, hits).changes {
            if let Change::Opened(firing) = change {
                opened.push((firing.anchor, firing.metric));
            }
        }
        largest = largest.max(correlator.bytes());
    }
    assert_eq!(opened, [(99_999 * 10_000, Some(100_000.0))]);
    assert_eq!(correlator.counters().members_dropped, 0);
    assert!(largest < 24 << 20, "{largest}");
}

#[test]
fn hits_find_their_correlations_among_other_plans_and_as_bytes() {
    let old = Plans::compile(&collection(&CORRELATIONS), limits(5));
    let mut others: Vec<(&str, &str)> = CORRELATIONS.to_vec();
    others.reverse();
    others.retain(|(name, _)| *name != "few");
    let new = Plans::compile(&collection(&others), limits(5));
    let sorted = |mut hits: Vec<Hit>| {
        hits.sort_by_key(|hit| (hit.correlation, hit.input, hit.group));
        hits
    };
    let (mut told, mut left) = (0, 0);
    for sample in samples(3, 100) {
        let mine = hits(&old, &sample);
        let mut adopted = mine.clone();
        new.adopt(&old, &mut adopted);
        (told, left) = (told + adopted.len(), left + mine.len() - adopted.len());
        assert_eq!(sorted(adopted.clone()), sorted(hits(&new, &sample)));
        let read: Vec<Hit> = mine.iter().filter_map(|hit| new.read_hit(&old.write_hit(hit)).unwrap()).collect();
        assert_eq!(read, adopted);
        for hit in &mine {
            let bytes = old.write_hit(hit);
            (0..bytes.len()).for_each(|cut| assert!(old.read_hit(&bytes[..cut]).is_err(), "cut at {cut}"));
        }
    }
    assert!(told > 100 && left > 30, "{told} {left}");
}
