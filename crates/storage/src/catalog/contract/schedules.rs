//! Scheduled rules.

use super::{Store, at, home, kind, org};
use crate::catalog::schedules::{Advance, GAPS_KEPT, RUNS_KEPT, ScheduleGap, ScheduleRun};
use model::ErrorKind;
use std::time::Duration;

fn step(from: u64, to: u64) -> Advance {
    Advance { expected: at(from), through: at(to), judged: at(to), begun: None, run: None, gaps: Vec::new() }
}

fn run(started: u64, from: u64, to: u64) -> ScheduleRun {
    ScheduleRun {
        started_at: at(started),
        first: at(from),
        through: at(to),
        took: Duration::from_millis(1_234),
        events: 7,
        matches: 3,
        late: 1,
    }
}

fn gap(from: u64, to: u64, found: u64) -> ScheduleGap {
    ScheduleGap { first: at(from), through: at(to), why: "dropped\0 by age".into(), found_at: at(found) }
}

pub async fn a_rule_comes_further_and_what_it_missed_is_kept(open: &impl AsyncFn(&'static str) -> Store) {
    let store = open("schedules").await;
    assert_eq!(store.schedule(&home(), "r").await.unwrap(), None);
    assert_eq!(kind(store.advance_schedule(&home(), "r", step(0, 9)).await), ErrorKind::Conflict);
    let begun = store.begin_schedule(&home(), "r", at(0)).await.unwrap();
    assert_eq!((begun.begun, begun.through, begun.judged), (at(0), at(0), at(0)));
    assert_eq!((begun.off_since, begun.failures, begun.gaps, &begun.last_run), (None, 0, 0, &None));
    assert_eq!(store.begin_schedule(&home(), "r", at(77)).await.unwrap(), begun, "it has begun already");

    store.fail_schedule(&home(), "r", "no\0 disk", at(1)).await.unwrap();
    store.fail_schedule(&home(), "r", "no room", at(2)).await.unwrap();
    store.stop_schedule(&home(), "r", at(3)).await.unwrap();
    store.stop_schedule(&home(), "r", at(4)).await.unwrap();
    let failed = store.schedule(&home(), "r").await.unwrap().unwrap();
    assert_eq!((failed.failures, failed.error), (2, Some(("no room".into(), at(2)))));
    assert_eq!(failed.off_since, Some(at(3)), "the first time counts");

    let gaps = vec![gap(0, 5, 9), gap(5, 6, 9)];
    let first = Advance { judged: at(8), run: Some(run(9, 0, 10)), gaps: gaps.clone(), ..step(0, 10) };
    store.advance_schedule(&home(), "r", first).await.unwrap();
    // The same run goes on, and meets one of the gaps again.
    let more = Advance { begun: Some(at(6)), run: Some(run(9, 0, 20)), gaps: gaps[1..].to_vec(), ..step(10, 20) };
    store.advance_schedule(&home(), "r", more.clone()).await.unwrap();
    assert_eq!(kind(store.advance_schedule(&home(), "r", more).await), ErrorKind::Conflict, "somebody was quicker");
    drop(store);
    let store = open("schedules").await;
    let now = store.schedule(&home(), "r").await.unwrap().unwrap();
    assert_eq!((now.begun, now.through, now.judged), (at(6), at(20), at(20)));
    assert_eq!((now.off_since, now.failures, now.error, now.gaps), (None, 0, None, 2));
    assert_eq!(now.last_run, Some(run(9, 0, 20)));
    assert_eq!(store.schedule_runs(&home(), "r").await.unwrap(), [run(9, 0, 20)]);
    let kept = |gap: ScheduleGap| ScheduleGap { why: "dropped by age".into(), ..gap };
    assert_eq!(store.schedule_gaps(&home(), "r").await.unwrap(), [kept(gap(5, 6, 9)), kept(gap(0, 5, 9))]);
    assert_eq!(kind(store.begin_schedule(&home(), &"x".repeat(256), at(0)).await), ErrorKind::Invalid);
}

pub async fn schedules_are_apart_and_bounded(store: &Store) {
    for (org, uid) in [(home(), "b"), (home(), "a"), (org("acme"), "a")] {
        store.begin_schedule(&org, uid, at(0)).await.unwrap();
    }
    store.advance_schedule(&org("acme"), "a", Advance { run: Some(run(1, 0, 5)), ..step(0, 5) }).await.unwrap();
    let all = store.all_schedules().await.unwrap();
    let shown: Vec<_> = all.iter().map(|one| (one.org.as_str(), &*one.uid, one.through)).collect();
    assert_eq!(shown, [("acme", "a", at(5)), ("default", "a", at(0)), ("default", "b", at(0))]);
    assert!(store.schedule_runs(&home(), "a").await.unwrap().is_empty());

    let (runs, gaps) = (u64::from(RUNS_KEPT), u64::from(GAPS_KEPT));
    for n in 0..runs + 3 {
        store.advance_schedule(&home(), "b", Advance { run: Some(run(n, n, n + 1)), ..step(n, n + 1) }).await.unwrap();
    }
    let kept = store.schedule_runs(&home(), "b").await.unwrap();
    assert_eq!((kept.len() as u64, kept[0].started_at), (runs, at(runs + 2)), "the newest");
    let many: Vec<ScheduleGap> = (0..gaps + 5).map(|n| gap(n, n + 1, n)).collect();
    store.advance_schedule(&home(), "b", Advance { gaps: many, ..step(runs + 3, runs + 4) }).await.unwrap();
    let kept = store.schedule_gaps(&home(), "b").await.unwrap();
    assert_eq!((kept.len() as u64, kept[0].first), (gaps, at(gaps + 4)), "the newest");
    assert_eq!(store.schedule(&home(), "b").await.unwrap().unwrap().gaps, gaps + 5, "all are counted");
}
