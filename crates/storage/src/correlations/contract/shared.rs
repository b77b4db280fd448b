//! What a store does that several workers share. `expire(name)` makes all that its workers said of being
//! alive too old, as if the time had passed.

use super::{Store, all_waiting, group, groups, hit, home, kind, record, records, taking};
use crate::correlations::{Commit, Hold, NewHit, SHARDS, WorkerId};
use model::ErrorKind;
use rules::correlate::Stored;
use std::sync::Arc;
use std::time::Duration;

const A: WorkerId = WorkerId(1);
const B: WorkerId = WorkerId(2);
const C: WorkerId = WorkerId(u128::MAX);

/// Runs every check that needs several workers.
pub async fn run(open: impl AsyncFn(&'static str) -> Store, expire: impl AsyncFn(&'static str)) {
    shards_are_spread_over_those_who_live(&open("spread").await).await;
    a_dead_worker_is_replaced_and_cannot_write_any_more(&open, &expire).await;
    a_commit_at_the_moment_of_a_takeover_is_seen_or_refused(&open, &expire).await;
    after_an_outage_everybody_has_what_it_had(&open, &expire).await;
    what_is_found_for_another_shard_reaches_its_holder(&open("found").await).await;
    a_batch_that_two_workers_have_is_added_once(&open).await;
    shards_that_are_not_held_are_invalid(&open("not held").await).await;
}

async fn hold(store: &Store, worker: WorkerId) -> Vec<Hold> {
    store.hold(worker).await.unwrap().holds
}

fn shards(holds: &[Hold]) -> Vec<usize> {
    holds.iter().map(|hold| hold.shard).collect()
}

/// Lets both hold until each has its half.
async fn halves(store: &Store) -> (Vec<Hold>, Vec<Hold>) {
    hold(store, A).await;
    hold(store, B).await;
    let ours = hold(store, A).await;
    (ours, hold(store, B).await)
}

async fn shards_are_spread_over_those_who_live(store: &Store) {
    assert_eq!(store.shards(), SHARDS);
    assert!(store.is_shared());
    let all = hold(store, A).await;
    assert_eq!(shards(&all), (0..SHARDS).collect::<Vec<_>>());
    assert_eq!(hold(store, A).await, all, "who holds keeps its epochs");
    assert!(hold(store, B).await.is_empty(), "nothing is free yet");
    let kept = hold(store, A).await;
    assert!(kept.len() == 4 && kept.iter().all(|hold| all.contains(hold)), "{kept:?}");
    let got = hold(store, B).await;
    assert_eq!(got.len(), 4);
    for hold in &got {
        let before = all.iter().find(|other| other.shard == hold.shard).unwrap();
        assert!(!kept.contains(hold) && hold.epoch > before.epoch, "a new holder, a new epoch");
    }
    hold(store, C).await;
    let three = [hold(store, A).await.len(), hold(store, B).await.len(), hold(store, C).await.len()];
    assert_eq!(three, [3, 3, 2]);
    store.release(B).await.unwrap();
    store.release(B).await.unwrap();
    let (a, c) = (hold(store, A).await, hold(store, C).await);
    assert_eq!((a.len(), c.len()), (4, 4), "at once");
    assert!(hold(store, B).await.is_empty(), "and B may come again");
}

async fn a_dead_worker_is_replaced_and_cannot_write_any_more(
    open: &impl AsyncFn(&'static str) -> Store,
    expire: &impl AsyncFn(&'static str),
) {
    let store = open("dead").await;
    let old = hold(&store, A).await;
    let one = |n| records(home(), vec![record(group(2, 1), Stored::More(vec![n]))]);
    store.commit(&old, records(home(), vec![record(group(2, 1), Stored::Whole(vec![1]))])).await.unwrap();
    store.add(&home(), vec![hit(1, group(2, 1))]).await.unwrap();
    let waiting = all_waiting(&store, &old).await;
    assert!(hold(&store, B).await.is_empty());
    expire("dead").await;
    // B was there too, and late like A: it takes nothing before A had its chance.
    assert!(hold(&store, B).await.is_empty());
    store.commit(&old, one(2)).await.unwrap();
    let new = hold(&store, B).await;
    assert_eq!(new.len(), SHARDS);
    for refused in [store.commit(&old, one(3)).await, store.commit(&old, taking(&waiting)).await] {
        assert_eq!(kind(refused), ErrorKind::Conflict);
    }
    for stale in &old {
        assert_eq!(kind(store.load(*stale).await), ErrorKind::Conflict);
        assert_eq!(kind(store.waiting(&[*stale], 10).await), ErrorKind::Conflict);
    }
    let mixed = [&new[..2], &old[2..]].concat();
    assert_eq!(kind(store.commit(&mixed, one(4)).await), ErrorKind::Conflict, "one that is over spoils all");
    assert_eq!(groups(&store, &new).await[&(home().to_string(), group(2, 1))], [[1], [2]]);
    assert_eq!(all_waiting(&store, &new).await, waiting);
    store.commit(&new, Commit { records: one(5).records, ..taking(&waiting) }).await.unwrap();
    // A wakes up, and is a worker like any other.
    assert!(hold(&store, A).await.is_empty());
    assert_eq!(hold(&store, B).await.len(), 4);
    let back = hold(&store, A).await;
    assert_eq!(back.len(), 4);
    assert!(back.iter().all(|hold| !old.contains(hold)), "with other epochs");
}

async fn a_commit_at_the_moment_of_a_takeover_is_seen_or_refused(
    open: &impl AsyncFn(&'static str) -> Store,
    expire: &impl AsyncFn(&'static str),
) {
    let (left, right) = (open("race").await, open("race").await);
    for round in 0..20_u8 {
        let old = hold(&left, A).await;
        assert_eq!(old.len(), SHARDS);
        expire("race").await;
        let key = group(u128::from(round % 8), u128::from(round));
        let write = async {
            // Now the one, now the other is first.
            tokio::time::sleep(Duration::from_millis(u64::from(round))).await;
            left.commit(&old, records(home(), vec![record(key, Stored::Whole(vec![round]))])).await
        };
        let take_over = async {
            // Shards in a commit are passed over, and had in another round.
            loop {
                let new = hold(&right, B).await;
                if new.len() == SHARDS {
                    return groups(&right, &new).await.contains_key(&(home().to_string(), key));
                }
            }
        };
        let (written, there) = tokio::join!(write, take_over);
        match written {
            Ok(()) => assert!(there, "what was committed is read by the next holder"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Conflict);
                assert!(!there, "what was refused is not there");
            }
        }
        right.release(B).await.unwrap();
        left.release(A).await.unwrap();
    }
}

async fn after_an_outage_everybody_has_what_it_had(
    open: &impl AsyncFn(&'static str) -> Store,
    expire: &impl AsyncFn(&'static str),
) {
    let store = open("outage").await;
    let (a, b) = halves(&store).await;
    assert_eq!((a.len(), b.len()), (4, 4));
    expire("outage").await;
    assert_eq!(hold(&store, A).await, a);
    assert_eq!(hold(&store, B).await, b);
    assert_eq!(hold(&store, A).await, a);
    assert_eq!(hold(&store, B).await, b);
}

async fn what_is_found_for_another_shard_reaches_its_holder(store: &Store) {
    let (a, b) = halves(store).await;
    let (here, there) = (a[0].shard as u128, b[0].shard as u128);
    store.add(&home(), vec![hit(1, group(here, 1))]).await.unwrap();
    let waiting = all_waiting(store, &a).await;
    assert!(all_waiting(store, &b).await.is_empty());
    let found = vec![(home(), hit(1, group(there, 9)))];
    store.commit(&a, Commit { found: found.clone(), ..taking(&waiting) }).await.unwrap();
    let theirs = all_waiting(store, &b).await;
    assert_eq!(theirs.iter().map(|w| w.group).collect::<Vec<_>>(), [group(there, 9)]);
    store.commit(&b, taking(&theirs)).await.unwrap();
    store.commit(&a, Commit { found, ..Commit::default() }).await.unwrap();
    assert!(all_waiting(store, &b).await.is_empty(), "found again, it is known");
}

async fn a_batch_that_two_workers_have_is_added_once(open: &impl AsyncFn(&'static str) -> Store) {
    let (left, right) = (open("twice").await, open("twice").await);
    let all = hold(&left, A).await;
    let batch: Vec<NewHit> = (0..2_000).map(|n| hit(n, group(u128::from(n % 8), u128::from(n)))).collect();
    let backwards: Vec<NewHit> = batch.iter().rev().cloned().collect();
    let (one, two) = (home(), home());
    let (first, second) = tokio::join!(left.add(&one, batch.clone()), right.add(&two, backwards));
    first.unwrap();
    second.unwrap();
    let waiting = all_waiting(&left, &all).await;
    assert_eq!(waiting.len(), 2_000);
    // One takes them while the other has the batch again.
    let (took, added) = tokio::join!(left.commit(&all, taking(&waiting)), right.add(&one, batch));
    took.unwrap();
    added.unwrap();
    assert!(all_waiting(&left, &all).await.is_empty());
}

async fn shards_that_are_not_held_are_invalid(store: &Store) {
    let all = hold(store, A).await;
    store.add(&home(), vec![hit(1, group(5, 1))]).await.unwrap();
    let waiting = all_waiting(store, &all).await;
    let some: Vec<Hold> = all.iter().copied().filter(|hold| hold.shard != 5).collect();
    let one = records(home(), vec![record(group(5, 1), Stored::Whole(vec![1]))]);
    assert_eq!(kind(store.commit(&some, one).await), ErrorKind::Invalid);
    assert_eq!(kind(store.commit(&some, taking(&waiting)).await), ErrorKind::Invalid);
    assert_eq!(all_waiting(&Arc::clone(store), &all).await, waiting);
}
