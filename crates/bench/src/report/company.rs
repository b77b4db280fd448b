//! The Redis/PostgreSQL profile.

use super::{cell, number, shown, table};
use crate::company::{CASES, SINGLE_CONNECTIONS, SYNCS};
use crate::record::{Record, Spread};
use std::fmt::Write as _;

const NOTE: &str = "One process a role (`muttd serve --roles alerter`, `… ingestor`), shipped defaults (3 workers, batches of 4,096), \
Redis with an append-only file, PostgreSQL with `fsync` and `synchronous_commit` on, everything on the same cores and one disk. \
The queue holds records of 272-byte events as an ingestor wrote them; a fifth of them is worked first as a warm-up, and PostgreSQL \
has files of its log to use again; the clock runs from the last look that found it whole to the \
first that finds it and all lists of workers empty. 100 rules, one in ten a regex; matched events come from 1,000 hosts; no forwarder \
runs, no counter triggers. `÷ original` is over what the original's single worker did (168, 243 and 1,802 events/s) on 2 such cores, \
on another day and with its own load generator: it compares orders of size, no more. CPU seconds are those of 100,000 events: \
alerters + PostgreSQL + Redis; on N cores, N seconds of them pass a second. `÷ one` compares two alerters, each with a data folder \
of its own, with one of the same round.";

fn times(spread: Option<Spread>, factor: f64) -> Option<Spread> {
    spread.map(|s| Spread { median: s.median * factor, min: s.min * factor, max: s.max * factor })
}

/// Medians of the parts of `name`, joined.
fn cpu(record: &Record, name: &str, parts: &[&str]) -> String {
    let shown = |part: &&str| record.spread(&format!("{name}/cpu_{part}")).map(|s| number(s.median));
    parts.iter().filter_map(shown).collect::<Vec<_>>().join(" + ")
}

pub fn company(record: &Record) -> String {
    let mut rows = Vec::new();
    for case in &CASES {
        for &(sync, alerters) in case.setups {
            let name = format!("company/{}/{sync}/{alerters}", case.name);
            let one = format!("company/{}/{sync}/1/rate", case.name);
            let rate = record.spread(&format!("{name}/rate"));
            rows.push(vec![
                case.title.to_owned(),
                sync.to_owned(),
                alerters.to_string(),
                shown(rate),
                shown(times(rate, 1.0 / case.original)),
                if alerters == 1 { String::new() } else { shown(record.ratio(&format!("{name}/rate"), &one)) },
                cpu(record, &name, &["alerters", "postgres", "redis"]),
                record.spread(&format!("{name}/rss_peak_mb")).map_or(String::new(), |s| number(s.max)),
                cell(record, &format!("{name}/missing")),
            ]);
        }
    }
    let header = [
        "events",
        "`appendfsync`",
        "alerters",
        "events/s",
        "÷ original",
        "÷ one",
        "CPU s of 100,000",
        "peak MB",
        "not settled",
    ];
    let mut text = table("Redis and PostgreSQL", NOTE, &header, &rows);
    let mut rows = Vec::new();
    for sync in SYNCS {
        for (what, title, connections) in [
            ("single", "single POST", SINGLE_CONNECTIONS),
            ("ndjson", "NDJSON of 1,000", crate::http::NDJSON_CONNECTIONS),
        ] {
            let name = format!("company/{what}/{sync}");
            rows.push(vec![
                format!("{title}, {connections} connections"),
                sync.to_owned(),
                cell(record, &format!("{name}/rate")),
                cell(record, &format!("{name}/p50_ms")),
                cell(record, &format!("{name}/p99_ms")),
                cpu(record, &name, &["ingestor", "redis"]),
                cell(record, &format!("{name}/errors")),
                cell(record, &format!("{name}/missing")),
            ]);
        }
    }
    let header = ["into Redis", "`appendfsync`", "events/s", "p50 ms", "p99 ms", "CPU s of 100,000", "errors", "lost"];
    let ingest = table("", "One ingestor, answered when Redis has answered: with `always`, on disk.", &header, &rows);
    let _ = write!(text, "\n{}", ingest.trim_start_matches(['#', ' ', '\n']));
    text
}
