use super::*;
use bytes::Bytes;
use model::InputKind;
use std::path::Path;
use storage::events::{EventStoreConfig, open};

const RULES: &str = "
title: Failed
name: failed
logsource: {product: linux}
detection: {s: {outcome: failure}, condition: s}
---
title: Opened
name: opened
logsource: {product: linux}
detection: {s: {outcome: success, user|startswith: a}, condition: s}
---
title: Sized
name: sized
logsource: {product: linux}
detection: {s: {size|gte: 50}, condition: s}
";

/// Type, rules, group-by and the rest.
const CORRELATIONS: [(&str, &str); 11] = [
    ("count", "type: event_count\nrules: failed\ngroup-by: [ip]\ntimespan: 30m\ncondition: {gte: 3}"),
    ("slow", "type: event_count\nrules: failed\ngroup-by: [ip]\ntimespan: 1d\ncondition: {gte: 9}"),
    ("all", "type: event_count\nrules: [failed, opened]\ntimespan: 1h\ncondition: {gte: 6}"),
    ("values", "type: value_count\nrules: failed\ngroup-by: [ip]\ntimespan: 12h\ncondition: {field: user, gte: 4}"),
    ("both", "type: temporal\nrules: [failed, opened]\ngroup-by: [ip]\ntimespan: 2h"),
    ("then", "type: temporal_ordered\nrules: [failed, sized, opened]\ngroup-by: [user]\ntimespan: 8h"),
    ("few", "type: event_count\nrules: opened\ngroup-by: [ip]\ntimespan: 6h\ncondition: {lte: 1}"),
    ("sum", "type: value_sum\nrules: sized\ngroup-by: [ip]\ntimespan: 4h\ncondition: {field: size, gt: 300}"),
    ("median", "type: value_median\nrules: [failed, sized]\ntimespan: 1h\ncondition: {field: size, gte: 70}"),
    ("chain", "type: temporal\nrules: [count, opened]\ngroup-by: [ip]\ntimespan: 3h"),
    ("chain_few", "type: event_count\nrules: [few, both]\ngroup-by: [ip]\ntimespan: 2h\ncondition: {gte: 3}"),
];

fn collection() -> Collection {
    let mut reader = rules::sigma::Reader::new(rules::sigma::Options::default());
    reader.text("rules.yml", RULES);
    for (name, part) in CORRELATIONS {
        let part = part.replace('\n', "\n  ");
        reader.text("c.yml", &format!("title: {name}\nname: {name}\ncorrelation:\n  {part}\n"));
    }
    let collection = reader.finish();
    assert_eq!((collection.rules.len(), collection.correlations.len()), (3, CORRELATIONS.len()));
    collection
}

/// Six days, a few hundred events; some in one millisecond, some up to half an hour late.
async fn history(dir: &Path) -> (Arc<dyn EventStore>, Stretch) {
    let store = open(EventStoreConfig::Sqlite { dir: dir.to_owned(), read_also: Vec::new() }).await.unwrap();
    let start = Timestamp::from_secs(1_773_144_000);
    let mut rng = fastrand::Rng::with_seed(3);
    let (mut at, mut events) = (0, Vec::new());
    for number in 0..900 {
        at += if rng.u8(..10) == 0 { 0 } else { rng.u64(1_000..1_150_000) };
        let id = EventId::new(start.plus(std::time::Duration::from_millis(at)), 1, number);
        let late = if rng.u8(..8) == 0 { rng.u64(..1_800_000) } else { 0 };
        let outcome = ["failure", "success"][rng.usize(..2)];
        let user = ["anna", "adam", "bob", "eve", "mallory"][rng.usize(..5)];
        let raw = format!(
            r#"{{"message":"m","outcome":"{outcome}","user":"{user}","ip":"10.0.0.{}","size":{}}}"#,
            rng.u8(..4),
            rng.u8(..100)
        );
        events.push(StoredEvent {
            id,
            org: OrgId::default(),
            input: InputKind::Http,
            host: format!("h{}", rng.u8(..3)),
            timestamp: id.accepted().minus(std::time::Duration::from_millis(late)),
            severity: None,
            rule_id: None,
            raw: Bytes::from(raw),
        });
    }
    let to = events[events.len() - 1].id.accepted().plus(std::time::Duration::from_secs(1));
    store.append(events).await.unwrap();
    (store, Stretch { org: OrgId::default(), from: start, to })
}

#[derive(Default)]
struct All {
    matches: Vec<(usize, EventId)>,
    fired: Vec<(usize, Fired)>,
}

impl Sink for All {
    fn matched(&mut self, rule: usize, event: &StoredEvent) {
        self.matches.push((rule, event.id));
    }
    fn fired(&mut self, correlation: usize, fired: &Fired) {
        self.fired.push((correlation, fired.clone()));
    }
}

async fn hunted(store: &dyn EventStore, stretch: &Stretch, mut hunter: Hunter<All>, slice: usize) -> (All, Told) {
    hunter.slice_events = slice;
    let (mut all, told) = hunter.run(store, stretch.clone(), |_, _| {}).await.unwrap();
    all.fired.sort_by(|a, b| (a.0, a.1.at, &a.1.key).cmp(&(b.0, b.1.at, &b.1.key)));
    (all, told)
}

#[tokio::test]
async fn the_stream_and_sql_find_the_same_over_slices_and_days() {
    let dir = tempfile::tempdir().unwrap();
    let (store, stretch) = history(dir.path()).await;
    let collection = collection();
    let (stream, left_out) = Hunter::new(&collection, Arc::default(), Via::Stream, All::default()).unwrap();
    assert!(left_out.is_empty());
    let (stream, told) = hunted(&*store, &stretch, stream, 5_000).await;
    assert_eq!(told.events, 900);
    assert!(stream.matches.len() > 500);
    for (place, (name, _)) in CORRELATIONS.iter().enumerate() {
        let days: std::collections::BTreeSet<String> = (stream.fired.iter().filter(|(of, _)| *of == place))
            .map(|(_, fired)| Timestamp::from_micros(fired.at).day())
            .collect();
        assert!(days.len() > 1, "{name} fires on {days:?}");
    }
    for (slice, members_max, settles) in [(5_000, 10_000, false), (7, 10_000, false), (40, 420, true)] {
        let (mut hunter, left_out) = Hunter::new(&collection, Arc::default(), Via::Sqlite, All::default()).unwrap();
        assert!(left_out.is_empty());
        let How::Sqlite(sql) = &mut hunter.how else { panic!("it is SQL") };
        sql.members_max = members_max;
        let (sql, told) = hunted(&*store, &stretch, hunter, slice).await;
        assert_eq!((told.events, told.late), (900, 0), "slices of {slice}");
        let sorted = |all: &All| {
            let mut matches = all.matches.clone();
            matches.sort_unstable();
            matches
        };
        assert_eq!(sorted(&sql), sorted(&stream), "slices of {slice}");
        assert_eq!(sql.fired.len(), stream.fired.len(), "slices of {slice}");
        for (by_sql, by_stream) in sql.fired.iter().zip(&stream.fired) {
            assert_eq!(by_sql, by_stream, "{} in slices of {slice}", CORRELATIONS[by_sql.0].0);
        }
        assert!(!settles || stream.matches.len() > 420, "more than are kept at once");
    }
}

#[tokio::test]
async fn what_cannot_be_kept_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let (store, stretch) = history(dir.path()).await;
    let (mut hunter, _) = Hunter::new(&collection(), Arc::default(), Via::Sqlite, All::default()).unwrap();
    let How::Sqlite(sql) = &mut hunter.how else { panic!("it is SQL") };
    sql.members_max = 50;
    let error = hunter.run(&*store, stretch, |_, _| {}).await.err().unwrap().to_string();
    assert!(error.contains("more than 50 events match"), "{error}");
}
