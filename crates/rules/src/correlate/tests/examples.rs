//! What an author expects, event by event.

use super::*;

fn sample(id: u128, second: i64, rule: usize, fields: &[(&'static str, &str)]) -> Sample {
    let fields = fields.iter().map(|(name, text)| (*name, (*text).to_owned())).collect();
    Sample { id, time: second * SECOND, rules: vec![rule], fields }
}

fn one(part: &str) -> (Arc<Plans>, Correlator) {
    several(&[("x", part)], limits(300))
}

fn several(parts: &[(&str, &str)], limits: Limits) -> (Arc<Plans>, Correlator) {
    let plans = Arc::new(Plans::compile(&collection(parts), limits));
    (plans.clone(), Correlator::new(plans, Share::ALL))
}

/// What a sample leads to: `+` opened, `.` goes on, `>` moved, `m` merged, `-` withdrawn.
fn signs(plans: &Plans, correlator: &mut Correlator, sample: &Sample) -> String {
    let changes = correlator.apply(sample.time, hits(plans, sample)).changes;
    text(&changes)
}

fn text(changes: &[Change]) -> String {
    let sign = |change: &Change| match change {
        Change::Opened(firing) => format!("+{}", firing.anchor / SECOND),
        Change::GoesOn(_) => ".".to_owned(),
        Change::Moved(firing) => format!(">{}", firing.anchor / SECOND),
        Change::Merged { .. } => "m".to_owned(),
        Change::Withdrawn { .. } => "-".to_owned(),
    };
    changes.iter().map(sign).collect()
}

#[test]
fn a_burst_fires_once_at_once_and_again_after_a_pause() {
    let (plans, mut correlator) = one("type: event_count\nrules: a\ngroup-by: ip\ntimespan: 10s\ncondition: {gte: 3}");
    for (id, (second, expected)) in
        [(0, ""), (1, ""), (2, "+2"), (3, "."), (12, "."), (14, ""), (30, ""), (31, ""), (32, "+32")]
            .into_iter()
            .enumerate()
    {
        let found = signs(&plans, &mut correlator, &sample(id as u128, second, 0, &[("ip", "10.0.0.1")]));
        assert_eq!(found, expected, "at {second}");
    }
    assert_eq!(signs(&plans, &mut correlator, &sample(99, 32, 0, &[("ip", "10.0.0.2")])), "", "another group");
}

#[test]
fn a_firing_says_what_it_is_about() {
    let (plans, mut correlator) =
        one("type: event_count\nrules: a\ngroup-by: [ip, user]\ntimespan: 10s\ncondition: {gte: 2}");
    let long = "u".repeat(1_000);
    let event = |id, second| hits(&plans, &sample(id, second, 0, &[("ip", "10.0.0.1"), ("user", &long)]));
    correlator.apply(0, event(7, 1));
    let changes = correlator.apply(0, event(8, 4)).changes;
    let [Change::Opened(firing)] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!((firing.anchor, firing.last, firing.metric), (4 * SECOND, 4 * SECOND, Some(2.0)));
    assert_eq!(firing.events, [8, 7]);
    assert_eq!(&*firing.key[0], "10.0.0.1");
    assert_eq!(firing.key[1].chars().count(), 257, "long texts are cut for people");
}

#[test]
fn late_events_correct_what_was_said() {
    let (plans, mut correlator) = one("type: event_count\nrules: a\ntimespan: 10s\ncondition: {gte: 3}");
    for (id, (second, expected)) in [
        (10, ""),
        (11, ""),
        (14, "+14"),
        (9, ">11"),
        (30, ""),
        (31, ""),
        (32, "+32"),
        (29, ">31"),
        // It holds at 20 with 11 and 14, so the first goes on; and at 30 with 20 and 29, but not at 29.
        (20, ".>30"),
        // At 22 it does with 14 and 20, and then at 29 with 20 and 22: all are one.
        (22, "m."),
    ]
    .into_iter()
    .enumerate()
    {
        let found = signs(&plans, &mut correlator, &sample(id as u128, second, 0, &[]));
        assert_eq!(found, expected, "at {second}");
    }
}

#[test]
fn failed_logins_followed_by_a_login() {
    let (plans, mut correlator) = several(
        &[
            ("many", "type: event_count\nrules: a\ngroup-by: User\ntimespan: 10m\ncondition: {gte: 10}"),
            ("success", "type: temporal_ordered\nrules: [many, b]\ngroup-by: User\ntimespan: 10m"),
        ],
        limits(300),
    );
    let user = [("User", "root")];
    assert_eq!(signs(&plans, &mut correlator, &sample(1, 0, 1, &user)), "");
    // Guessing goes on for half an hour: the login counts although it comes long after the first ten.
    for id in 0..60 {
        let found = signs(&plans, &mut correlator, &sample(10 + id, 1 + id as i64 * 30, 0, &user));
        assert_eq!(found.contains('+'), id == 9, "{id} {found}");
    }
    assert_eq!(signs(&plans, &mut correlator, &sample(2, 1_800, 1, &[("User", "other")])), "");
    assert_eq!(signs(&plans, &mut correlator, &sample(3, 1_801, 1, &user)), "+1801");
}

#[test]
fn silence_is_known_when_its_time_is_over() {
    let (plans, mut correlator) =
        several(&[("x", "type: event_count\nrules: a\ngroup-by: host\ntimespan: 60s\ncondition: {lt: 3}")], limits(10));
    let host = [("host", "web")];
    for (id, second) in [0, 20, 40, 60, 80].into_iter().enumerate() {
        assert_eq!(signs(&plans, &mut correlator, &sample(id as u128, second, 0, &host)), "");
    }
    // After 60 there are two events only, and after 80 one; the windows are known at 60 + 60 + 10.
    assert_eq!(text(&correlator.pass(130 * SECOND).changes), "");
    assert_eq!(text(&correlator.pass(131 * SECOND).changes), "+60");
    assert_eq!(text(&correlator.pass(151 * SECOND).changes), ".");
    assert_eq!(correlator.groups(), 0, "nothing is known of a group that does not matter any more");
}

#[test]
fn a_rule_without_another_waits_for_the_other() {
    let (plans, mut correlator) = several(
        &[("x", "type: temporal\nrules: [a, b]\ngroup-by: host\ntimespan: 60s\ncondition: a and not b")],
        limits(10),
    );
    signs(&plans, &mut correlator, &sample(1, 0, 0, &[("host", "answered")]));
    signs(&plans, &mut correlator, &sample(2, 59, 1, &[("host", "answered")]));
    signs(&plans, &mut correlator, &sample(3, 0, 0, &[("host", "silent")]));
    let changes = correlator.pass(1_000 * SECOND).changes;
    assert_eq!(text(&changes), "+0");
    assert!(matches!(&changes[0], Change::Opened(firing) if &*firing.key[0] == "silent"), "{changes:?}");
}

#[test]
fn what_does_not_count_is_counted() {
    let (plans, mut correlator) = several(
        &[("x", "type: value_sum\nrules: a\ngroup-by: host\ntimespan: 60s\ncondition: {field: n, gt: 5}")],
        limits(10),
    );
    let mut lacking = Lacking::default();
    let mut out = Vec::new();
    for fields in
        [vec![("n", "1")], vec![("host", "h")], vec![("host", "h"), ("n", "1,5")], vec![("host", "h"), ("n", "1e16")]]
    {
        let mut read = Fields::new(EventSource::default());
        fields.iter().for_each(|(name, text)| read.push(*name, *text));
        plans.hits(0, Event { id: 1, time: 0 }, &read, &mut out, &mut lacking);
    }
    assert_eq!((lacking, out.len()), (Lacking { group: 1, value: 3 }, 0));
    assert!(plans.listens(0) && !plans.listens(1));

    let host = [("host", "h"), ("n", "4")];
    signs(&plans, &mut correlator, &sample(1, 100, 0, &host));
    signs(&plans, &mut correlator, &sample(1, 100, 0, &host));
    assert_eq!(signs(&plans, &mut correlator, &sample(2, 89, 0, &host)), "", "more than ten seconds late");
    let ahead = sample(3, 1_000, 0, &host);
    assert_eq!(text(&correlator.apply(100 * SECOND, hits(&plans, &ahead)).changes), "", "from the future");
    let counters = correlator.counters();
    assert_eq!((counters.hits, counters.repeated, counters.late, counters.ahead), (3, 1, 1, 1));
    assert_eq!(signs(&plans, &mut correlator, &sample(4, 90, 0, &host)), "+100", "just in time");
}

#[test]
fn an_averages_firing_is_withdrawn_when_a_late_event_lowers_it() {
    let (plans, mut correlator) = one("type: value_avg\nrules: a\ntimespan: 60s\ncondition: {field: n, gt: 5}");
    assert_eq!(signs(&plans, &mut correlator, &sample(1, 100, 0, &[("n", "9")])), "+100");
    assert_eq!(signs(&plans, &mut correlator, &sample(2, 90, 0, &[("n", "-9")])), "-");
}
