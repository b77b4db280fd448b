//! What every event store must do. `open(name)` gives the store called `name`: empty the first
//! time, afterwards with what was in it (the one before is dropped by then).

#![expect(clippy::unwrap_used, reason = "a test suite")]

use super::{EventQuery, EventRange, EventStore, MinuteCount, StoredEvent};
use bytes::Bytes;
use model::{EventId, InputKind, OrgId, Severity, Timestamp};
use std::sync::Arc;
use std::time::Duration;

const DAY_SECS: u64 = 86_400;

/// Runs every check.
pub async fn run(open: impl AsyncFn(&'static str) -> Arc<dyn EventStore>) {
    every_field_comes_back_by_id(&open("fields").await).await;
    appending_again_changes_nothing(&open("again").await).await;
    what_was_appended_survives_reopening(&open).await;
    batches_at_once_are_each_counted_right(&open("parallel").await).await;
    organisations_never_see_each_other(&open("orgs").await).await;
    conditions_must_all_hold(&open("conditions").await).await;
    text_is_looked_for_in_the_message_in_any_case(&open("text").await).await;
    pages_show_each_event_once_newest_first(&open("pages").await).await;
    a_range_is_read_once_oldest_first(&open("range").await).await;
    a_page_of_large_events_ends_early(&open("large").await).await;
    times_are_of_acceptance_with_both_ends(&open("times").await).await;
    a_search_crosses_days_and_stops_at_its_limit(&open("days").await).await;
    minutes_count_only_new_events(&open("minutes").await).await;
    old_days_are_dropped_whole(&open("retention").await).await;
    a_late_event_goes_to_the_day_it_was_accepted(&open("late").await).await;
    a_clock_that_stepped_back_loses_nothing(&open("clock").await).await;
    one_search_is_never_longer_than_a_thousand(&open("limit").await).await;
}

/// 2026-03-10T12:00:00Z plus `secs`.
fn at(secs: u64) -> Timestamp {
    Timestamp::from_secs(1_773_144_000).plus(Duration::from_secs(secs))
}

fn org(name: &str) -> OrgId {
    name.parse().unwrap()
}

fn event(id: EventId) -> StoredEvent {
    StoredEvent {
        id,
        org: OrgId::default(),
        input: InputKind::SyslogTcp,
        host: "router-1".into(),
        timestamp: id.accepted(),
        severity: Some(Severity::Error),
        rule_id: None,
        raw: Bytes::from(format!(r#"{{"message":"event {}","hostname":"router-1"}}"#, id.counter())),
    }
}

/// `n` events of one run, a second apart from `start` on.
fn events(run: u32, n: u64, start: u64) -> Vec<StoredEvent> {
    (0..n).map(|i| event(EventId::new(at(start + i), run, i))).collect()
}

fn all(limit: usize) -> EventQuery {
    EventQuery { limit, ..EventQuery::default() }
}

async fn numbers(store: &Arc<dyn EventStore>, query: EventQuery) -> Vec<u64> {
    store.search(&OrgId::default(), &query).await.unwrap().iter().map(|e| e.id.counter()).collect()
}

async fn every_field_comes_back_by_id(store: &Arc<dyn EventStore>) {
    let mut batch = Vec::new();
    for (i, input) in (0u64..).zip(InputKind::ALL) {
        for (j, severity) in (0u64..).zip(Severity::ALL.into_iter().map(Some).chain([None])) {
            // Numbers that need all their 48 bits, runs that need all their 32.
            let id =
                EventId::new(at(7).plus(Duration::from_millis(j)), u32::MAX - i as u32, (1 << 48) - 1 - i * 100 - j);
            batch.push(StoredEvent {
                input,
                severity,
                host: format!("хост {i}"),
                timestamp: Timestamp::from_micros(-(i as i64) * 1_000_003),
                rule_id: (j % 2 == 0).then_some(i as i64 + 1),
                raw: Bytes::from(format!("{{\"message\":\"naïve {i} {j}\",\"nested\":{{\"a\":[1,2]}}}}")),
                ..event(id)
            });
        }
    }
    batch.push(StoredEvent { raw: Bytes::from_static(b"\xff not text"), ..event(EventId::new(at(8), 0, 0)) });
    assert_eq!(store.append(batch.clone()).await.unwrap(), batch.len());
    for event in &batch {
        assert_eq!(store.get(&event.org, event.id).await.unwrap().as_ref(), Some(event));
    }
    let near = EventId::new(at(8), 0, 1);
    assert_eq!(store.get(&OrgId::default(), near).await.unwrap(), None);
    let mut found = store.search(&OrgId::default(), &all(1_000)).await.unwrap();
    found.sort_by_key(|e| e.id);
    batch.sort_by_key(|e| e.id);
    assert_eq!(found, batch);
    assert_eq!(store.append(Vec::new()).await.unwrap(), 0);
}

async fn appending_again_changes_nothing(store: &Arc<dyn EventStore>) {
    let batch = events(1, 10, 0);
    assert_eq!(store.append(batch[..6].to_vec()).await.unwrap(), 6);
    let mut again = batch.clone();
    again.extend(batch[8..].to_vec());
    again[0].host = "changed".into();
    assert_eq!(store.append(again).await.unwrap(), 4, "the others, and those twice in the batch once");
    assert_eq!(store.get(&OrgId::default(), batch[0].id).await.unwrap().unwrap().host, "router-1");
    assert_eq!(store.count(&OrgId::default()).await.unwrap(), 10);
    assert_eq!(numbers(store, all(100)).await.len(), 10);
}

async fn what_was_appended_survives_reopening(open: &impl AsyncFn(&'static str) -> Arc<dyn EventStore>) {
    let batch = events(5, 100, 0);
    let store = open("reopen").await;
    assert_eq!(store.append(batch[..60].to_vec()).await.unwrap(), 60);
    drop(store);
    let store = open("reopen").await;
    assert_eq!(store.count(&OrgId::default()).await.unwrap(), 60);
    assert_eq!(store.append(batch.clone()).await.unwrap(), 40, "it still knows what it had");
    assert_eq!(store.get(&OrgId::default(), batch[3].id).await.unwrap().as_ref(), Some(&batch[3]));
    assert_eq!(store.count(&OrgId::default()).await.unwrap(), 100);
}

async fn batches_at_once_are_each_counted_right(store: &Arc<dyn EventStore>) {
    let mut tasks = Vec::new();
    for i in 0..8u32 {
        let store = Arc::clone(store);
        // Two tasks append each run.
        let batch = events(i / 2, 500, 0);
        tasks.push(tokio::spawn(async move { store.append(batch).await.unwrap() }));
    }
    let mut added = 0;
    for task in tasks {
        added += task.await.unwrap();
    }
    assert_eq!(added, 2_000);
    assert_eq!(store.count(&OrgId::default()).await.unwrap(), 2_000);
}

async fn organisations_never_see_each_other(store: &Arc<dyn EventStore>) {
    let id = EventId::new(at(1), 1, 1);
    let other = EventId::new(at(2), 1, 2);
    let batch = vec![StoredEvent { org: org("acme"), ..event(id) }, StoredEvent { org: org("globex"), ..event(other) }];
    assert_eq!(store.append(batch).await.unwrap(), 2);
    assert_eq!(store.get(&org("globex"), id).await.unwrap(), None);
    for (name, id) in [("acme", id), ("globex", other)] {
        let found = store.search(&org(name), &all(10)).await.unwrap();
        assert_eq!(found.iter().map(|e| (e.id, e.org.clone())).collect::<Vec<_>>(), [(id, org(name))]);
        assert_eq!(store.count(&org(name)).await.unwrap(), 1);
        assert_eq!(store.per_minute(&org(name), at(0), at(60)).await.unwrap().len(), 1);
    }
    assert_eq!(store.orgs().await.unwrap(), [org("acme"), org("globex")]);
    assert_eq!(store.count(&org("nobody")).await.unwrap(), 0);
    assert_eq!(store.search(&org("nobody"), &all(10)).await.unwrap(), []);
}

async fn conditions_must_all_hold(store: &Arc<dyn EventStore>) {
    let mut batch = events(1, 8, 0);
    for (event, severity) in batch.iter_mut().zip(Severity::ALL) {
        event.severity = Some(severity);
        event.host = if event.id.counter() % 2 == 0 { "even".into() } else { "odd".into() };
        event.rule_id = (event.id.counter() >= 4).then_some(77);
    }
    batch[7].severity = None;
    store.append(batch).await.unwrap();
    let check = async |query: EventQuery, expected: &[u64]| {
        let label = format!("{query:?}");
        assert_eq!(numbers(store, EventQuery { limit: 100, ..query }).await, expected, "{label}");
    };
    let any = EventQuery::default;
    check(any(), &[7, 6, 5, 4, 3, 2, 1, 0]).await;
    check(EventQuery { host: Some("even".into()), ..any() }, &[6, 4, 2, 0]).await;
    check(EventQuery { host: Some("EVEN".into()), ..any() }, &[]).await;
    check(EventQuery { rule_id: Some(77), ..any() }, &[7, 6, 5, 4]).await;
    check(EventQuery { rule_id: Some(1), ..any() }, &[]).await;
    check(EventQuery { severity_at_most: Some(Severity::Error), ..any() }, &[3, 2, 1, 0]).await;
    check(EventQuery { severity_at_most: Some(Severity::Debug), ..any() }, &[6, 5, 4, 3, 2, 1, 0]).await;
    let both = EventQuery { host: Some("odd".into()), rule_id: Some(77), ..any() };
    check(EventQuery { from: Some(at(6)), ..both.clone() }, &[7]).await;
    check(EventQuery { text: Some("EVENT 5".into()), ..both }, &[5]).await;
}

async fn text_is_looked_for_in_the_message_in_any_case(store: &Arc<dyn EventStore>) {
    let mut batch = events(1, 6, 0);
    let raws = [
        r#"{"message":"Link DOWN on ge-0/0/1"}"#,
        r#"{"message":"fine","other":"link down"}"#,
        r#"{"message":"ПОРТ закрыт 100%_"}"#,
        r#"{"message":"\u041f\u043e\u0440\u0442 open"}"#,
        r#"{"message":12345}"#,
        "broken json with link down",
    ];
    for (event, raw) in batch.iter_mut().zip(raws) {
        event.raw = Bytes::from_static(raw.as_bytes());
    }
    store.append(batch).await.unwrap();
    let cases: [(&str, &[u64]); 7] = [
        ("link down", &[0]),
        ("порт", &[3, 2]),
        ("100%_", &[2]),
        ("%", &[2]),
        ("234", &[4]),
        ("", &[5, 4, 3, 2, 1, 0]),
        ("nowhere", &[]),
    ];
    for (text, expected) in cases {
        let query = EventQuery { text: Some(text.into()), ..all(10) };
        assert_eq!(numbers(store, query).await, expected, "{text}");
    }
}

async fn pages_show_each_event_once_newest_first(store: &Arc<dyn EventStore>) {
    // Three runs at once, many events in one millisecond, over midnight.
    let mut batch = Vec::new();
    for i in 0..300u64 {
        let accepted = at(43_150).plus(Duration::from_millis(i / 20 * 10_000));
        batch.push(event(EventId::new(accepted, (i % 3) as u32 * 1_000, i)));
    }
    store.append(batch.clone()).await.unwrap();
    let mut seen: Vec<StoredEvent> = Vec::new();
    loop {
        let query = EventQuery { before: seen.last().map(|e| e.id), ..all(7) };
        let page = store.search(&OrgId::default(), &query).await.unwrap();
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 7);
        seen.extend(page);
    }
    assert!(seen.windows(2).all(|pair| pair[0].id.accepted() >= pair[1].id.accepted()), "newest first");
    seen.sort_by_key(|e| e.id);
    batch.sort_by_key(|e| e.id);
    assert_eq!(seen, batch);
    // An id that is not there still splits time.
    let unknown = EventId::new(at(43_150).plus(Duration::from_millis(10_001)), 9, 9);
    let query = EventQuery { before: Some(unknown), ..all(1_000) };
    assert_eq!(numbers(store, query).await.len(), 40);
}

/// All pages of a range.
async fn read(store: &Arc<dyn EventStore>, mut range: EventRange) -> Vec<StoredEvent> {
    let mut seen: Vec<StoredEvent> = Vec::new();
    loop {
        let page = store.range(&OrgId::default(), range).await.unwrap();
        let Some(last) = page.last() else { return seen };
        assert!(page.len() <= range.limit);
        range.after = Some(last.id);
        seen.extend(page);
    }
}

async fn a_range_is_read_once_oldest_first(store: &Arc<dyn EventStore>) {
    // Three runs at once, many events in one millisecond, over two midnights with a day without any.
    let mut batch = Vec::new();
    for i in 0..300u64 {
        let day = if i < 200 { 0 } else { 2 * DAY_SECS };
        let accepted = at(43_150 + day).plus(Duration::from_millis(i / 20 * 10_000));
        batch.push(event(EventId::new(accepted, (i % 3) as u32 * 1_000, i)));
    }
    store.append(batch.clone()).await.unwrap();
    store.append(vec![StoredEvent { org: org("acme"), ..event(EventId::new(at(43_200), 1, 1)) }]).await.unwrap();
    let all = EventRange { from: at(0), to: at(4 * DAY_SECS), after: None, limit: 1_000 };
    let whole = read(store, all).await;
    assert!(whole.is_sorted_by_key(|event| event.id.accepted()), "oldest first");
    let mut sorted = whole.clone();
    sorted.sort_by_key(|e| e.id);
    batch.sort_by_key(|e| e.id);
    assert_eq!(sorted, batch);
    for limit in [1, 7, 20, 299] {
        assert_eq!(read(store, EventRange { limit, ..all }).await, whole, "pages of {limit}");
    }
    // The end is left out, the beginning is not.
    let counted = async |from: Timestamp, to: Timestamp| read(store, EventRange { from, to, ..all }).await.len();
    let third = at(43_150).plus(Duration::from_millis(20_000));
    assert_eq!(counted(at(0), third).await, 40);
    assert_eq!(counted(third, third.plus(Duration::from_micros(1))).await, 20);
    assert_eq!(counted(third, third.plus(Duration::from_millis(10_000))).await, 20);
    assert_eq!(counted(third.plus(Duration::from_micros(1)), third.plus(Duration::from_millis(10_000))).await, 0);
    assert_eq!(counted(third, third).await, 0);
    assert_eq!(counted(at(9), at(3)).await, 0);
    assert_eq!(counted(Timestamp::from_micros(i64::MIN), Timestamp::from_micros(i64::MAX)).await, 300);
    // An id that is not there still splits time.
    let unknown = EventId::new(third, 9, 9);
    assert_eq!(read(store, EventRange { after: Some(unknown), ..all }).await.len(), 240);
}

async fn a_page_of_large_events_ends_early(store: &Arc<dyn EventStore>) {
    let large = Bytes::from(format!(r#"{{"message":"{}"}}"#, "x".repeat(1 << 20)));
    let batch: Vec<_> = events(1, 20, 0).into_iter().map(|e| StoredEvent { raw: large.clone(), ..e }).collect();
    store.append(batch.clone()).await.unwrap();
    let range = EventRange { from: at(0), to: at(60), after: None, limit: 1_000 };
    assert!(store.range(&OrgId::default(), range).await.unwrap().len() < 20, "memory is bounded");
    assert_eq!(read(store, range).await.len(), 20);
}

async fn times_are_of_acceptance_with_both_ends(store: &Arc<dyn EventStore>) {
    let mut batch = events(1, 10, 0);
    for event in &mut batch {
        event.timestamp = Timestamp::from_secs(0); // the sender's clock says nothing here
    }
    store.append(batch).await.unwrap();
    let range = |from: Timestamp, to: Timestamp| EventQuery { from: Some(from), to: Some(to), ..all(100) };
    assert_eq!(numbers(store, range(at(3), at(5))).await, [5, 4, 3]);
    let just_after = at(3).plus(Duration::from_micros(1));
    assert_eq!(numbers(store, range(just_after, at(5).minus(Duration::from_micros(1)))).await, [4]);
    assert_eq!(numbers(store, range(at(5), at(3))).await, [0u64; 0]);
    assert_eq!(
        numbers(store, range(Timestamp::from_micros(i64::MIN), Timestamp::from_micros(i64::MAX))).await.len(),
        10
    );
}

async fn a_search_crosses_days_and_stops_at_its_limit(store: &Arc<dyn EventStore>) {
    let batch: Vec<_> = (0..10).map(|i| event(EventId::new(at(i * DAY_SECS), 1, i))).collect();
    store.append(batch).await.unwrap();
    assert_eq!(numbers(store, all(4)).await, [9, 8, 7, 6]);
    let query = EventQuery { from: Some(at(DAY_SECS)), to: Some(at(3 * DAY_SECS)), ..all(100) };
    assert_eq!(numbers(store, query).await, [3, 2, 1]);
    assert_eq!(numbers(store, all(0)).await, [0u64; 0]);
}

async fn minutes_count_only_new_events(store: &Arc<dyn EventStore>) {
    let mut batch = events(1, 150, 0);
    for event in &mut batch {
        event.rule_id = (event.id.counter() < 30).then_some(1);
    }
    store.append(batch.clone()).await.unwrap();
    store.append(batch).await.unwrap();
    let count = |minute: u64, events, handled| MinuteCount { minute: at(minute * 60), events, handled };
    let minutes = async |from, to| store.per_minute(&OrgId::default(), from, to).await.unwrap();
    assert_eq!(minutes(at(0), at(600)).await, [count(0, 60, 30), count(1, 60, 0), count(2, 30, 0)]);
    assert_eq!(minutes(at(61), at(120)).await, [count(1, 60, 0)], "from the minute of `from` to before `to`");
    assert_eq!(minutes(at(600), at(6_000)).await, []);
    let next_day = event(EventId::new(at(DAY_SECS), 1, 1_000));
    store.append(vec![next_day]).await.unwrap();
    let both = minutes(at(0), at(2 * DAY_SECS)).await;
    assert_eq!((both.len(), both[3]), (4, count(24 * 60, 1, 0)));
}

async fn old_days_are_dropped_whole(store: &Arc<dyn EventStore>) {
    let batch: Vec<_> = (0..5).map(|i| event(EventId::new(at(i * DAY_SECS), 1, i))).collect();
    store.append(batch.clone()).await.unwrap();
    store.append(vec![StoredEvent { org: org("acme"), ..batch[0].clone() }]).await.unwrap();
    assert_eq!(store.count(&OrgId::default()).await.unwrap(), 5);
    assert_eq!(store.days_before(at(2 * DAY_SECS)).await.unwrap(), 3, "told before it is done");
    assert_eq!(store.drop_before(at(2 * DAY_SECS)).await.unwrap(), 3, "two days of one, one of the other");
    assert_eq!(numbers(store, all(100)).await, [4, 3, 2]);
    assert_eq!(store.get(&OrgId::default(), batch[1].id).await.unwrap(), None);
    assert_eq!(store.count(&OrgId::default()).await.unwrap(), 3);
    assert_eq!(store.count(&org("acme")).await.unwrap(), 0);
    assert_eq!(store.days_before(at(2 * DAY_SECS)).await.unwrap(), 0);
    assert_eq!(store.drop_before(at(2 * DAY_SECS)).await.unwrap(), 0);
    assert_eq!(store.append(batch.clone()).await.unwrap(), 2, "what comes later is stored anew");
    assert_eq!(store.count(&OrgId::default()).await.unwrap(), 5);
}

async fn a_late_event_goes_to_the_day_it_was_accepted(store: &Arc<dyn EventStore>) {
    let (yesterday, today) = (events(1, 10, 0), events(2, 10, DAY_SECS));
    store.append(today).await.unwrap();
    assert_eq!(store.append(yesterday.clone()).await.unwrap(), 10);
    assert_eq!(store.append(yesterday.clone()).await.unwrap(), 0);
    // The sender's clock decides about nothing.
    let odd = StoredEvent { timestamp: at(300 * DAY_SECS), ..event(EventId::new(at(20), 1, 20)) };
    store.append(vec![odd]).await.unwrap();
    assert_eq!(store.drop_before(at(DAY_SECS)).await.unwrap(), 1);
    assert_eq!(store.count(&OrgId::default()).await.unwrap(), 10);
}

async fn a_clock_that_stepped_back_loses_nothing(store: &Arc<dyn EventStore>) {
    let mut batch: Vec<_> = (0..100).map(|i| event(EventId::new(at(1_000 + i), 1, i))).collect();
    batch.extend((100..200).map(|i| event(EventId::new(at(i), 1, i))));
    assert_eq!(store.append(batch.clone()).await.unwrap(), 200);
    assert_eq!(store.append(batch).await.unwrap(), 0);
    let newest: Vec<u64> = numbers(store, all(100)).await;
    assert_eq!(newest, (0..100).rev().collect::<Vec<_>>());
}

async fn one_search_is_never_longer_than_a_thousand(store: &Arc<dyn EventStore>) {
    store.append(events(1, 1_500, 0)).await.unwrap();
    assert_eq!(numbers(store, all(usize::MAX)).await.len(), 1_000);
}
