//! What every store of correlations must do. `open(name)` gives the store called `name`: empty the first
//! time, afterwards with what was in it.

#![expect(clippy::unwrap_used, reason = "a test suite")]

mod shared;

pub use shared::run as run_shared;

use super::{Commit, CorrelationStore, HIT_BYTES_MAX, Hold, NewHit, Waiting, WorkerId};
use crate::StorageResult;
use model::{ErrorKind, EventId, EventSource, Fields, OrgId, Timestamp};
use rules::correlate::{Correlator, Event, Hit, Lacking, Limits, Plans, Record, Share, Stored};
use rules::sigma::{Options, Reader};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Runs every check that one worker can make.
pub async fn run(open: impl AsyncFn(&'static str) -> Arc<dyn CorrelationStore>) {
    groups_come_back_in_the_order_of_their_parts(&open).await;
    changes_of_one_group_in_one_commit_keep_their_order(&open("in one").await).await;
    a_hit_counts_once_also_after_it_was_taken(&open).await;
    hits_wait_in_the_order_of_their_acceptance(&open("order").await).await;
    hits_of_organisations_are_apart(&open("orgs").await).await;
    a_commit_happens_as_a_whole_or_not_at_all(&open("whole").await).await;
    a_hit_that_is_too_long_is_invalid(&open("long").await).await;
    what_is_not_held_is_refused(&open("fence").await).await;
    ten_thousand_hits_are_each_worked_once(&open("many").await).await;
    what_fires_is_the_same_over_crashes_and_repetitions(&open).await;
}

type Store = Arc<dyn CorrelationStore>;

const WORKER: WorkerId = WorkerId(7);

fn home() -> OrgId {
    OrgId::default()
}

fn acme() -> OrgId {
    "acme".parse().unwrap()
}

/// A group of a shard out of eight.
fn group(shard: u128, number: u128) -> u128 {
    shard << 125 | number
}

fn event(number: u64) -> EventId {
    EventId::new(Timestamp::from_secs(1_773_144_000), 7, number)
}

fn hit(number: u64, group: u128) -> NewHit {
    NewHit { event: event(number), group, hit: b"hit".to_vec(), about: number.to_string().into_bytes() }
}

fn kind<T: std::fmt::Debug>(result: StorageResult<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

async fn holds(store: &Store) -> Vec<Hold> {
    let holds = store.hold(WORKER).await.unwrap().holds;
    assert_eq!(holds.len(), store.shards(), "who is alone holds everything");
    holds
}

/// Everything that waits.
async fn all_waiting(store: &Store, holds: &[Hold]) -> Vec<Waiting> {
    store.waiting(holds, 100_000).await.unwrap()
}

/// Every group of these shards.
async fn groups(store: &Store, holds: &[Hold]) -> BTreeMap<(String, u128), Vec<Vec<u8>>> {
    let mut groups = BTreeMap::new();
    for hold in holds {
        for (org, group, parts) in store.load(*hold).await.unwrap() {
            assert!(groups.insert((org.to_string(), group), parts).is_none(), "a group has one shard");
        }
    }
    groups
}

fn record(group: u128, stored: Stored) -> Record {
    Record { group, stored }
}

fn records(org: OrgId, records: Vec<Record>) -> Commit {
    Commit { records: vec![(org, records)], ..Commit::default() }
}

fn taking(waiting: &[Waiting]) -> Commit {
    Commit { taken: waiting.iter().map(|w| w.key.clone()).collect(), ..Commit::default() }
}

async fn groups_come_back_in_the_order_of_their_parts(open: &impl AsyncFn(&'static str) -> Store) {
    let store = open("groups").await;
    let held = holds(&store).await;
    let (low, high) = (group(0, 1), u128::MAX);
    let whole = |n| Stored::Whole(vec![n]);
    let commits = [
        records(home(), vec![record(low, whole(1)), record(high, whole(9))]),
        records(home(), vec![record(low, Stored::More(vec![0; 70_000])), record(high, Stored::Gone)]),
        records(acme(), vec![record(low, whole(7))]),
        records(home(), vec![record(low, Stored::More(Vec::new()))]),
    ];
    for commit in commits {
        store.commit(&held, commit).await.unwrap();
    }
    drop(store);
    let store = open("groups").await;
    let held = holds(&store).await;
    let expected = BTreeMap::from([
        (("acme".to_owned(), low), vec![vec![7]]),
        ((home().to_string(), low), vec![vec![1], vec![0; 70_000], Vec::new()]),
    ]);
    assert_eq!(groups(&store, &held).await, expected);
    store.commit(&held, records(home(), vec![record(low, whole(3))])).await.unwrap();
    assert_eq!(groups(&store, &held).await[&(home().to_string(), low)], [[3]]);
}

async fn changes_of_one_group_in_one_commit_keep_their_order(store: &Store) {
    let held = holds(store).await;
    let (a, b, c) = (group(1, 1), group(2, 1), group(7, 1));
    let (whole, more) = (|n| Stored::Whole(vec![n]), |n| Stored::More(vec![n]));
    let first = records(home(), vec![record(a, whole(1)), record(b, whole(1)), record(c, whole(1))]);
    store.commit(&held, first).await.unwrap();
    let commit = Commit {
        records: vec![
            (home(), vec![record(a, more(2)), record(b, Stored::Gone), record(c, more(2))]),
            (home(), vec![record(a, more(3)), record(b, whole(5)), record(c, Stored::Gone)]),
            (home(), vec![record(b, more(6))]),
        ],
        ..Commit::default()
    };
    store.commit(&held, commit).await.unwrap();
    let expected =
        [(a, vec![vec![1], vec![2], vec![3]]), (b, vec![vec![5], vec![6]])].map(|(g, p)| ((home().to_string(), g), p));
    assert_eq!(groups(store, &held).await, BTreeMap::from(expected));
}

async fn a_hit_counts_once_also_after_it_was_taken(open: &impl AsyncFn(&'static str) -> Store) {
    let store = open("once").await;
    let held = holds(&store).await;
    let other_bytes = NewHit { hit: b"another".to_vec(), ..hit(1, group(0, 1)) };
    let other_about = NewHit { about: b"by then its team was another".to_vec(), ..hit(1, group(0, 1)) };
    let batch = vec![hit(1, group(0, 1)), hit(1, group(5, 1)), other_bytes, hit(2, group(0, 1))];
    store.add(&home(), batch.clone()).await.unwrap();
    store.add(&home(), [batch.clone(), vec![other_about.clone(), hit(3, group(0, 1))]].concat()).await.unwrap();
    let waiting = all_waiting(&store, &held).await;
    assert_eq!(waiting.len(), 5);
    assert!(waiting.iter().all(|w| w.about != other_about.about), "the first one counts");
    assert_eq!(store.hold(WORKER).await.unwrap().waiting, 5);
    store.commit(&held, taking(&waiting[..3])).await.unwrap();
    store.add(&home(), batch.clone()).await.unwrap();
    assert_eq!(all_waiting(&store, &held).await, waiting[3..]);
    drop(store);
    let store = open("once").await;
    let held = holds(&store).await;
    store.add(&home(), batch).await.unwrap();
    assert_eq!(all_waiting(&store, &held).await, waiting[3..]);
    store.commit(&held, taking(&waiting[3..])).await.unwrap();
    assert!(all_waiting(&store, &held).await.is_empty());
    assert_eq!(store.hold(WORKER).await.unwrap().waiting, 0);
}

async fn hits_wait_in_the_order_of_their_acceptance(store: &Store) {
    let held = holds(store).await;
    for numbers in [[5, 1], [9, 3], [2, 7]] {
        store.add(&home(), numbers.map(|n| hit(n, group(3, u128::from(n)))).to_vec()).await.unwrap();
    }
    let waiting = all_waiting(store, &held).await;
    let seen: Vec<u64> = waiting.iter().map(|w| w.key.event().counter()).collect();
    assert_eq!(seen, [1, 2, 3, 5, 7, 9]);
    for w in &waiting {
        let number = w.key.event().counter();
        assert_eq!((w.group, &w.hit[..]), (group(3, u128::from(number)), &b"hit"[..]));
        assert_eq!((&w.about, w.key.org()), (&number.to_string().into_bytes(), &home()));
    }
    let first: Vec<Hold> = held.iter().copied().filter(|hold| hold.shard == 3 || held.len() == 1).collect();
    assert_eq!(store.waiting(&first, 2).await.unwrap(), waiting[..2]);
    assert!(store.waiting(&[], 2).await.unwrap().is_empty());
}

async fn hits_of_organisations_are_apart(store: &Store) {
    let held = holds(store).await;
    for org in [home(), acme()] {
        store.add(&org, vec![hit(1, group(0, 1))]).await.unwrap();
    }
    let waiting = all_waiting(store, &held).await;
    let orgs: BTreeSet<_> = waiting.iter().map(|w| w.key.org().to_string()).collect();
    assert_eq!((waiting.len(), orgs.len()), (2, 2));
    let ours: Vec<Waiting> = waiting.iter().filter(|w| *w.key.org() == acme()).cloned().collect();
    store.commit(&held, taking(&ours)).await.unwrap();
    assert_eq!(all_waiting(store, &held).await[0].key.org(), &home());
}

async fn a_commit_happens_as_a_whole_or_not_at_all(store: &Store) {
    let held = holds(store).await;
    store.add(&home(), vec![hit(1, group(0, 1)), hit(2, group(0, 1))]).await.unwrap();
    let waiting = all_waiting(store, &held).await;
    let full = |taken: &[Waiting]| Commit {
        records: vec![(home(), vec![record(group(0, 1), Stored::Whole(vec![1]))])],
        found: vec![(home(), hit(1, group(6, 1)))],
        ..taking(taken)
    };
    let long = NewHit { about: vec![0; HIT_BYTES_MAX], ..hit(9, group(6, 1)) };
    for (bad, refused) in [
        (full(&[waiting[0].clone(), waiting[0].clone()]), ErrorKind::Conflict),
        (Commit { found: vec![(home(), long)], ..full(&waiting) }, ErrorKind::Invalid),
    ] {
        assert_eq!(kind(store.commit(&held, bad).await), refused);
        assert!(groups(store, &held).await.is_empty());
        assert_eq!(all_waiting(store, &held).await, waiting);
    }
    store.commit(&held, full(&waiting)).await.unwrap();
    assert_eq!(groups(store, &held).await.len(), 1);
    let found = all_waiting(store, &held).await;
    assert_eq!(found.iter().map(|w| w.group).collect::<Vec<_>>(), [group(6, 1)]);
    assert_eq!(kind(store.commit(&held, full(&waiting)).await), ErrorKind::Conflict, "they are taken");
    store.commit(&held, Commit::default()).await.unwrap();
}

async fn a_hit_that_is_too_long_is_invalid(store: &Store) {
    let held = holds(store).await;
    let of = |bytes: usize| NewHit { hit: vec![1; 10], about: vec![0; bytes - 10], ..hit(1, group(0, 1)) };
    let batch = vec![hit(2, group(0, 1)), of(HIT_BYTES_MAX + 1)];
    assert_eq!(kind(store.add(&home(), batch).await), ErrorKind::Invalid);
    assert!(all_waiting(store, &held).await.is_empty(), "all or none");
    store.add(&home(), vec![of(HIT_BYTES_MAX)]).await.unwrap();
    assert_eq!(all_waiting(store, &held).await.len(), 1);
}

async fn what_is_not_held_is_refused(store: &Store) {
    let held = holds(store).await;
    store.add(&home(), vec![hit(1, group(0, 1))]).await.unwrap();
    let waiting = all_waiting(store, &held).await;
    for epoch in [held[0].epoch + 1, held[0].epoch - 1] {
        let wrong = Hold { epoch, ..held[0] };
        assert_eq!(kind(store.load(wrong).await), ErrorKind::Conflict);
        assert_eq!(kind(store.waiting(&[wrong], 10).await), ErrorKind::Conflict);
        let one = records(home(), vec![record(group(0, 1), Stored::Whole(vec![1]))]);
        assert_eq!(kind(store.commit(&[wrong], one).await), ErrorKind::Conflict);
        assert_eq!(kind(store.commit(&[wrong], taking(&waiting)).await), ErrorKind::Conflict);
    }
    assert!(groups(store, &held).await.is_empty());
    assert_eq!(all_waiting(store, &held).await, waiting);
}

async fn ten_thousand_hits_are_each_worked_once(store: &Store) {
    let held = holds(store).await;
    let hits: Vec<NewHit> = (0..10_000).map(|n| hit(n, group(u128::from(n % 8), u128::from(n)))).collect();
    store.add(&home(), hits).await.unwrap();
    assert_eq!(store.hold(WORKER).await.unwrap().waiting, 10_000);
    let mut seen = BTreeSet::new();
    loop {
        let waiting = store.waiting(&held, 4_000).await.unwrap();
        if waiting.is_empty() {
            break;
        }
        let whole = |w: &Waiting| record(w.group, Stored::Whole(w.about.clone()));
        let worked = waiting.iter().map(whole).collect();
        store.commit(&held, Commit { records: vec![(home(), worked)], ..taking(&waiting) }).await.unwrap();
        for w in waiting {
            assert!(seen.insert(w.key), "no hit twice");
        }
    }
    assert_eq!(seen.len(), 10_000);
    let groups = groups(store, &held).await;
    assert!(groups.len() == 10_000 && groups.iter().all(|((_, g), p)| p[0] == (*g as u64).to_string().into_bytes()));
}

/// Three failed logins of one address within five minutes.
fn plans() -> Arc<Plans> {
    let mut reader = Reader::new(Options::default());
    reader.text(
        "rules.yml",
        "title: Login failed\nname: failed\nlogsource: {product: linux, service: sshd}\n\
         detection: {s: {outcome: failure}, condition: s}\n---\ntitle: Many failed logins\n\
         correlation: {type: event_count, rules: [failed], group-by: [src_ip], timespan: 5m, condition: {gte: 3}}\n",
    );
    Arc::new(Plans::compile(&reader.finish(), Limits::default()))
}

/// The hits of twelve events of four addresses.
fn real_hits(plans: &Plans) -> Vec<Hit> {
    let (mut hits, mut lacking) = (Vec::new(), Lacking::default());
    for number in 0..12 {
        let mut fields = Fields::new(EventSource::default());
        fields.push("src_ip", format!("192.0.2.{}", number % 4));
        let event = Event { id: event(number).to_u128(), time: 1_000_000 * number as i64 };
        plans.hits(0, event, &fields, &mut hits, &mut lacking);
    }
    assert_eq!(hits.len(), 12);
    hits
}

const NOW: i64 = 20_000_000;

/// Takes what waits and works it on state that is read anew; what fires. `crash`: before the commit.
async fn work(store: &Store, plans: &Arc<Plans>, crash: bool) -> BTreeSet<u128> {
    let held = holds(store).await;
    let mut fired = BTreeSet::new();
    let waiting = store.waiting(&held, 100).await.unwrap();
    let mut commit = taking(&waiting);
    for hold in &held {
        let share = Share { index: hold.shard, count: store.shards() };
        let mut correlator = Correlator::new(Arc::clone(plans), share);
        for (_, group, parts) in store.load(*hold).await.unwrap() {
            assert!(correlator.restore(group, parts.iter().map(Vec::as_slice)).unwrap());
        }
        let ours = waiting.iter().filter(|w| w.key.shard == hold.shard);
        let ours = ours.map(|w| plans.read_hit(&w.hit).unwrap().unwrap()).collect();
        let outcome = correlator.apply(NOW, ours);
        assert!(outcome.elsewhere.is_empty());
        fired.extend(outcome.changes.into_iter().filter_map(|change| Some(change.opened()?.id)));
        commit.records.push((home(), outcome.records));
    }
    if !crash {
        store.commit(&held, commit).await.unwrap();
    }
    fired
}

async fn what_fires_is_the_same_over_crashes_and_repetitions(open: &impl AsyncFn(&'static str) -> Store) {
    let plans = plans();
    let hits = real_hits(&plans);
    let mut alone = Correlator::new(Arc::clone(&plans), Share::ALL);
    let expected: BTreeSet<u128> =
        alone.apply(NOW, hits.clone()).changes.into_iter().filter_map(|change| Some(change.opened()?.id)).collect();
    assert_eq!(expected.len(), 4);
    let batch = |range: std::ops::Range<usize>| -> Vec<NewHit> {
        let new = |n: usize| NewHit {
            event: EventId::from_u128(hits[n].event),
            group: hits[n].group,
            hit: plans.write_hit(&hits[n]),
            about: Vec::new(),
        };
        range.map(new).collect()
    };
    let mut fired = BTreeSet::new();
    for (first, last) in [(0, 5), (5, 10), (10, 12)] {
        let store = open("real").await;
        store.add(&home(), batch(first..last)).await.unwrap();
        // Alerts are out, and then nothing was committed.
        let lost = work(&store, &plans, true).await;
        drop(store);
        let store = open("real").await;
        let again = work(&store, &plans, false).await;
        assert_eq!(again, lost, "the same alerts");
        fired.extend(again);
        // The batch of events comes again, and what was taken with it.
        store.add(&home(), batch(0..last)).await.unwrap();
        assert!(work(&store, &plans, false).await.is_empty());
    }
    assert_eq!(fired, expected);
}
