//! Events per second and bytes of [`rules::correlate`], per kind of correlation.
//! `cargo run --release -p rules --example correlate_throughput`

#![allow(clippy::print_stdout, reason = "its output is its purpose")]

use model::{EventSource, Fields};
use rules::correlate::{Correlator, Event, Lacking, Limits, Plans, Share};
use rules::sigma::{Options, Reader};
use std::sync::Arc;
use std::time::Instant;

const EVENTS: u64 = 400_000;
const BATCH: u64 = 500;

fn main() {
    println!("{EVENTS} events, 1,000 a second of event time, batches of {BATCH}, one core");
    println!(
        "{:<44} {:>8} {:>10} {:>9} {:>8} {:>12} {:>10}",
        "correlation", "groups", "events/s", "ns/event", "opened", "bytes/group", "stored/ev"
    );
    for (name, groups, part) in [
        (
            "event_count gte 5 in 5m",
            1_000,
            "type: event_count\nrules: [a]\ngroup-by: [ip]\ntimespan: 5m\ncondition: {gte: 5}",
        ),
        (
            "event_count gte 5 in 5m",
            100_000,
            "type: event_count\nrules: [a]\ngroup-by: [ip]\ntimespan: 5m\ncondition: {gte: 5}",
        ),
        (
            "event_count gte 5 in 5m, one group",
            1,
            "type: event_count\nrules: [a]\ngroup-by: [ip]\ntimespan: 5m\ncondition: {gte: 5}",
        ),
        (
            "event_count lt 5 in 1m",
            1_000,
            "type: event_count\nrules: [a]\ngroup-by: [ip]\ntimespan: 1m\ncondition: {lt: 5}",
        ),
        (
            "value_count gte 20 in 5m",
            1_000,
            "type: value_count\nrules: [a]\ngroup-by: [ip]\ntimespan: 5m\ncondition: {field: value, gte: 20}",
        ),
        (
            "value_count gte 100,000 in 1h, one group",
            1,
            "type: value_count\nrules: [a]\ngroup-by: [ip]\ntimespan: 1h\ncondition: {field: value, gte: 100000}",
        ),
        ("temporal of two in 5m", 1_000, "type: temporal\nrules: [a, b]\ngroup-by: [ip]\ntimespan: 5m"),
        ("temporal_ordered of two in 5m", 1_000, "type: temporal_ordered\nrules: [a, b]\ngroup-by: [ip]\ntimespan: 5m"),
        (
            "value_sum in 5m",
            1_000,
            "type: value_sum\nrules: [a]\ngroup-by: [ip]\ntimespan: 5m\ncondition: {field: value, gte: 1e9}",
        ),
        (
            "value_percentile 95 in 5m",
            1_000,
            "type: value_percentile\nrules: [a]\ngroup-by: [ip]\ntimespan: 5m\ncondition: {field: value, gte: 1e9, percentile: 95}",
        ),
        (
            "value_percentile 95 in 1h, one group",
            1,
            "type: value_percentile\nrules: [a]\ngroup-by: [ip]\ntimespan: 1h\ncondition: {field: value, gte: 1e9, percentile: 95}",
        ),
    ] {
        one(name, groups, part, 0);
    }
    println!("the same, each event up to 4 minutes late");
    for (name, groups, part) in [
        (
            "event_count gte 5 in 5m",
            1_000,
            "type: event_count\nrules: [a]\ngroup-by: [ip]\ntimespan: 5m\ncondition: {gte: 5}",
        ),
        (
            "event_count gte 5 in 5m, one group",
            1,
            "type: event_count\nrules: [a]\ngroup-by: [ip]\ntimespan: 5m\ncondition: {gte: 5}",
        ),
        (
            "event_count lt 5 in 5m, one group",
            1,
            "type: event_count\nrules: [a]\ngroup-by: [ip]\ntimespan: 5m\ncondition: {lt: 5}",
        ),
        (
            "temporal, a and not b in 5m, one group",
            1,
            "type: temporal\nrules: [a, b]\ngroup-by: [ip]\ntimespan: 5m\ncondition: a and not b",
        ),
        (
            "value_percentile 95 in 5m, one group",
            1,
            "type: value_percentile\nrules: [a]\ngroup-by: [ip]\ntimespan: 5m\ncondition: {field: value, gte: 1e9, percentile: 95}",
        ),
    ] {
        one(name, groups, part, 240);
    }
}

fn one(name: &str, groups: u64, part: &str, late_seconds: i64) {
    let mut reader = Reader::new(Options::default());
    for rule in ["a", "b"] {
        let text = format!(
            "title: {rule}\nname: {rule}\nlogsource: {{product: linux}}\ndetection: {{s: {{x: 1}}, condition: s}}"
        );
        reader.text("rules.yml", &text);
    }
    reader.text("correlation.yml", &format!("title: T\ncorrelation:\n  {}\n", part.replace('\n', "\n  ")));
    let collection = reader.finish();
    assert!(collection.problems.is_empty(), "{:?}", collection.problems);
    let plans = Arc::new(Plans::compile(&collection, Limits::default()));
    let texts: Vec<(String, String)> =
        (0..EVENTS).map(|id| (address(id * 7_919 % groups), (id % 100_000).to_string())).collect();

    let mut correlator = Correlator::new(plans.clone(), Share::ALL);
    let (mut lacking, mut opened, mut stored, mut bytes_max) = (Lacking::default(), 0, 0, 0);
    let start = Instant::now();
    for first in (0..EVENTS).step_by(BATCH as usize) {
        let mut hits = Vec::new();
        for id in first..first + BATCH {
            let (ip, value) = &texts[id as usize];
            let mut fields = Fields::new(EventSource::default());
            fields.push("ip", ip.as_str());
            fields.push("value", value.as_str());
            let late = (id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as i64 % (late_seconds * 1_000 + 1) * 1_000;
            let event = Event { id: u128::from(id) << 64 | u128::from(id), time: id as i64 * 1_000 - late };
            // Every tenth is of the other rule.
            let rule = usize::from(id % 10 == 9 && plans.listens(1));
            plans.hits(rule, event, &fields, &mut hits, &mut lacking);
        }
        let outcome = correlator.apply((first + BATCH) as i64 * 1_000, hits);
        opened += outcome.changes.iter().filter(|change| matches!(change, rules::correlate::Change::Opened(_))).count();
        stored += outcome.records.iter().map(|record| record.stored.bytes()).sum::<usize>();
        bytes_max = bytes_max.max(correlator.bytes());
    }
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!(lacking, Lacking::default());
    println!(
        "{name:<44} {:>8} {:>10.0} {:>9.0} {opened:>8} {:>12} {:>10.0}",
        correlator.groups(),
        EVENTS as f64 / seconds,
        seconds * 1e9 / EVENTS as f64,
        bytes_max / correlator.groups().max(1),
        stored as f64 / EVENTS as f64,
    );
}

fn address(number: u64) -> String {
    format!("10.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255)
}
