//! The Redis/PostgreSQL profile, as a company with several servers runs it: a process a role, found
//! by the original's environment, and what one and two alerters work through.
//!
//! The queue is filled while nobody takes from it, with records that an ingestor of ours has written;
//! then it is put in place by one RENAME, before alerters that have warmed up. The clock runs from the
//! last look at the queue that found it whole to the first that finds it and all lists of workers
//! empty, so it is never flattered.

mod site;

use crate::Plan;
use crate::http::{
    self, EVENT_BYTES, NDJSON_CONNECTIONS, NDJSON_EVENTS, event, load_all, load_for, ndjson_body, request,
};
use crate::muttd::Usage;
use crate::record::Record;
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use redis::Commands;
use site::{INGEST_KEY, Member, Site};
use std::fmt::Write as _;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What becomes of the events of a measurement.
pub struct Case {
    pub name: &'static str,
    pub title: &'static str,
    /// Events a second of the original (contract mutt §12).
    pub original: f64,
    pub kind: Kind,
    /// `appendfsync` of Redis and the number of alerters.
    pub setups: &'static [(&'static str, usize)],
    /// Thousands of events: some seconds' work.
    thousands: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Forwarded,
    Logged,
    /// No rule matches; from so many hosts.
    Unhandled {
        hosts: usize,
    },
}

pub const CASES: [Case; 4] = [
    Case {
        name: "forwarded",
        title: "matched: audit row, alert row, alert queued",
        original: 168.0,
        kind: Kind::Forwarded,
        setups: &[("always", 1), ("always", 2), ("everysec", 1)],
        thousands: 80,
    },
    Case {
        name: "logged",
        title: "matched: audit row only",
        original: 243.0,
        kind: Kind::Logged,
        setups: &[("always", 1), ("always", 2), ("everysec", 1)],
        thousands: 160,
    },
    Case {
        name: "unhandled",
        title: "unhandled: 50 shapes from 20 hosts",
        original: 1_802.0,
        kind: Kind::Unhandled { hosts: 20 },
        setups: &[("always", 1), ("always", 2), ("everysec", 1)],
        thousands: 400,
    },
    Case {
        name: "unhandled-wide",
        title: "unhandled: 50 shapes from 1,000 hosts",
        original: 1_802.0,
        kind: Kind::Unhandled { hosts: 1_000 },
        setups: &[("always", 1)],
        thousands: 280,
    },
];
pub const SYNCS: [&str; 2] = ["always", "everysec"];
pub const SINGLE_CONNECTIONS: usize = 64;

const RULES: usize = 100;
const SHAPES: usize = 50;
const QUEUE: &str = "mutt:ingest_queue";
const WARM_UP: &str = "mutt:bench_warm_up";
const FILLED: &str = "mutt:bench_queue";
/// One event of these many is worked before the clock runs.
const WARM_UP_ONE_IN: usize = 5;
const QUIET: Duration = Duration::from_secs(30);

pub fn run(plan: &Plan, record: &mut Record) -> Result<()> {
    on_disk()?;
    let mut records = Vec::new();
    for case in &CASES {
        records.push(made_by_an_ingestor(plan, case)?);
    }
    for _ in 0..plan.rounds {
        for (case, records) in CASES.iter().zip(&records) {
            for &(sync, alerters) in case.setups {
                worked_through(plan, record, case, records, sync, alerters)
                    .with_context(|| format!("{}, {sync}, {alerters} alerters", case.name))?;
            }
        }
        for sync in SYNCS {
            taken_in(plan, record, sync)?;
        }
    }
    Ok(())
}

/// The stores keep their data in the folder for temporary files.
fn on_disk() -> Result<()> {
    let dir = std::env::temp_dir();
    let output = Command::new("stat").args(["-f", "-c", "%T"]).arg(&dir).output()?;
    let filesystem = String::from_utf8_lossy(&output.stdout);
    if filesystem.contains("tmpfs") || filesystem.contains("ramfs") {
        bail!("`{}` is in memory; set TMPDIR to a folder on a disk", dir.display());
    }
    Ok(())
}

impl Case {
    fn event(&self, n: usize) -> String {
        let text = match self.kind {
            Kind::Forwarded | Kind::Logged => event(n % 1_000, &format!("FAULT-{:04} on port {n}:", n % RULES)),
            Kind::Unhandled { hosts } => {
                let shape = (n / hosts) % SHAPES;
                // Digits are no part of a shape, so letters tell them apart.
                let letters = [b'a' + (shape / 26) as u8, b'a' + (shape % 26) as u8].map(char::from);
                event(n % hosts, &format!("notice {}{}x {n:06}", letters[0], letters[1]))
            }
        };
        debug_assert_eq!(text.len(), EVENT_BYTES);
        text
    }

    fn rules(&self) -> String {
        let handling = if self.kind == Kind::Forwarded { "Page_only" } else { "log" };
        let mut sql = "INSERT INTO alert_rules (match_string, match_type, priority, prod_handling, dev_handling, \
                       team_assignment) VALUES "
            .to_owned();
        for n in 0..RULES {
            // One rule in ten is a regex, as in the measurement of the whole path.
            let (kind, pattern) = match n % 10 {
                9 => ("regex", format!("FAULT-{n:04} on (port|slot) [0-9]+")),
                _ => ("contains", format!("FAULT-{n:04}")),
            };
            let comma = if n == 0 { "" } else { "," };
            let _ = write!(sql, "{comma}('{pattern}', '{kind}', {}, '{handling}', '{handling}', 'NETO')", n + 1);
        }
        sql
    }

    /// How many of the events have come to everything that they should.
    fn found(&self, site: &mut Site) -> Result<u64> {
        let count = |site: &Site, table: &str| -> Result<u64> {
            Ok(site.postgres.psql(&format!("SELECT count(*) FROM {table}")).parse()?)
        };
        let (audits, alerts) = (count(site, "event_audit_log")?, count(site, "alerts")?);
        match self.kind {
            Kind::Forwarded => {
                let queued: u64 = site.connection.llen("mutt:alert_queue")?;
                Ok(audits.min(alerts).min(queued))
            }
            Kind::Logged if alerts == 0 => Ok(audits),
            Kind::Unhandled { .. } if alerts + audits == 0 => {
                let keys: Vec<String> = site.connection.keys("mutt:unhandled:edge-*")?;
                let counts: Vec<u64> = site.connection.mget(keys)?;
                Ok(counts.iter().sum())
            }
            Kind::Logged | Kind::Unhandled { .. } => bail!("{audits} audit rows and {alerts} alerts"),
        }
    }
}

/// Queue records as an ingestor writes them, the oldest first.
fn made_by_an_ingestor(plan: &Plan, case: &Case) -> Result<Vec<Vec<u8>>> {
    const CONNECTIONS: usize = 4;
    let posts = (case.thousands / if plan.quick { 10 } else { 1 }) / CONNECTIONS;
    let mut site = Site::start("no")?;
    let ingestor = site.member(plan, "ingestor")?;
    let requests: Vec<Arc<[Bytes]>> = (0..CONNECTIONS)
        .map(|c| {
            let post = |p: usize| {
                // Side by side, so that neighbours in the queue are of neighbouring numbers.
                let first = (p * CONNECTIONS + c) * NDJSON_EVENTS;
                request(INGEST_KEY, "application/x-ndjson", &ndjson_body(|n| case.event(first + n)))
            };
            (0..posts).map(post).collect()
        })
        .collect();
    load_all(ingestor.http, requests)?;
    let mut records: Vec<Vec<u8>> = site.connection.lrange(QUEUE, 0, -1)?;
    if records.len() != posts * CONNECTIONS * NDJSON_EVENTS {
        bail!("the ingestor took {} events of {}", records.len(), posts * CONNECTIONS * NDJSON_EVENTS);
    }
    records.reverse();
    Ok(records)
}

fn worked_through(
    plan: &Plan,
    record: &mut Record,
    case: &Case,
    records: &[Vec<u8>],
    sync: &str,
    alerters: usize,
) -> Result<()> {
    let mut site = Site::start(sync)?;
    // Makes the tables, so that the rules are there before the alerters are.
    drop(site.member(plan, "webui")?);
    site.postgres.psql(&case.rules());
    site.write_ahead();
    let (warm_up, measured) = records.split_at(records.len() / WARM_UP_ONE_IN);
    site.fill(&[(WARM_UP, warm_up), (FILLED, measured)], sync)?;
    let members: Vec<Member> = (0..alerters).map(|_| site.member(plan, "alerter")).collect::<Result<_>>()?;
    emptied(&mut site, WARM_UP, warm_up.len(), &members)?;
    let cpu = |site: &Site| {
        let of_members = members.iter().map(|member| Usage::of(member.pid()).cpu_seconds).sum::<f64>();
        [of_members, site.postgres_cpu(), site.redis_cpu()]
    };
    let before = cpu(&site);
    let took = emptied(&mut site, FILLED, measured.len(), &members)?.as_secs_f64();
    let after = cpu(&site);
    let events = measured.len() as f64;
    let name = format!("company/{}/{sync}/{alerters}", case.name);
    record.push(format!("{name}/rate"), events / took);
    record.push(format!("{name}/seconds"), took);
    for (what, (after, before)) in ["alerters", "postgres", "redis"].iter().zip(after.iter().zip(before)) {
        record.push(format!("{name}/cpu_{what}"), (after - before) * 1e5 / events);
    }
    let peak = members.iter().map(|member| Usage::of(member.pid()).rss_peak_mb).fold(0.0, f64::max);
    record.push(format!("{name}/rss_peak_mb"), peak);
    record.push(format!("{name}/missing"), records.len() as f64 - case.found(&mut site)? as f64);
    Ok(())
}

/// Puts the list `filled` before the alerters; the time from the last look that found it whole to the
/// first that finds nothing left of it.
fn emptied(site: &mut Site, filled: &str, events: usize, members: &[Member]) -> Result<Duration> {
    let mut began = Instant::now();
    let _: () = site.connection.rename(filled, QUEUE)?;
    let (mut left, mut moved) = (events, began);
    loop {
        let looked = Instant::now();
        let mut now: usize = site.connection.llen(QUEUE)?;
        if now == events {
            began = looked;
        }
        if now == 0 {
            let held: Vec<String> = site.connection.keys("mutt:processing:alerter:*")?;
            for list in held {
                now += site.connection.llen::<_, usize>(list)?;
            }
            if now == 0 {
                return Ok(looked - began);
            }
        }
        if now < left {
            (left, moved) = (now, looked);
        }
        if moved.elapsed() > QUIET {
            bail!("{left} events lie still; the log of an alerter: {}", members[0].log());
        }
        std::thread::sleep(Duration::from_millis(if left == events { 1 } else { 20 }));
    }
}

/// Single POSTs, then bodies of 1,000, through one ingestor into Redis; nobody takes them out.
fn taken_in(plan: &Plan, record: &mut Record, sync: &str) -> Result<()> {
    let bodies: Vec<String> =
        (0..NDJSON_CONNECTIONS).map(|i| ndjson_body(|n| event(i * NDJSON_EVENTS + n, "login"))).collect();
    for (what, connections, per_answer) in
        [("single", SINGLE_CONNECTIONS, 1), ("ndjson", NDJSON_CONNECTIONS, NDJSON_EVENTS)]
    {
        let mut site = Site::start(sync)?;
        let ingestor = site.member(plan, "ingestor")?;
        let before = [Usage::of(ingestor.pid()).cpu_seconds, site.redis_cpu()];
        let load = load_for(plan, ingestor.http, connections, |i| match what {
            "single" => request(INGEST_KEY, "application/json", &event(i, "login")),
            _ => request(INGEST_KEY, "application/x-ndjson", &bodies[i]),
        })?;
        let after = [Usage::of(ingestor.pid()).cpu_seconds, site.redis_cpu()];
        let name = format!("company/{what}/{sync}");
        let queued: u64 = site.connection.llen(QUEUE)?;
        let answered = load.all * per_answer as u64;
        // What was under way at the end may be there without its answer having been read.
        record.push(format!("{name}/missing"), answered.saturating_sub(queued) as f64);
        for (what, (after, before)) in ["ingestor", "redis"].iter().zip(after.iter().zip(before)) {
            record.push(format!("{name}/cpu_{what}"), (after - before) * 1e5 / answered.max(1) as f64);
        }
        record.push(format!("{name}/rss_peak_mb"), Usage::of(ingestor.pid()).rss_peak_mb);
        http::note(record, &name, load, per_answer);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn unhandled_events_have_fifty_shapes_and_their_size() {
        let case = &CASES[2];
        let Kind::Unhandled { hosts } = case.kind else { panic!("the third case is the unhandled one") };
        let mut shapes = BTreeSet::new();
        for n in 0..hosts * SHAPES * 2 {
            let text = case.event(n);
            assert_eq!(text.len(), EVENT_BYTES);
            shapes.insert(text.split("notice ").nth(1).and_then(|rest| rest.get(..3)).map(str::to_owned));
        }
        assert_eq!(shapes.len(), SHAPES);
    }
}
