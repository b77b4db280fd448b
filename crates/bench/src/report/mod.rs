//! The report: what was promised, what was measured, and under what conditions.

mod agents;
mod company;

use crate::Plan;
use crate::conditions::Conditions;
use crate::http::CONNECTIONS;
use crate::path::{LATENCY_ALERT_ONE_IN, LATENCY_EVENTS_PER_SECOND, LOAD, RULES};
use crate::record::{Record, Spread};
use crate::syslog::CASES;
use anyhow::Result;
use std::fmt::Write as _;

pub fn json(conditions: &Conditions, record: &Record) -> Result<String> {
    let facts: serde_json::Map<_, _> = conditions.facts.iter().map(|(k, v)| (k.clone(), v.clone().into())).collect();
    let phases: Vec<_> = conditions
        .phases
        .iter()
        .map(|p| serde_json::json!({"phase": p.phase, "load": p.load, "spin_ms": p.spin_ms}))
        .collect();
    let report = serde_json::json!({"conditions": facts, "phases": phases, "values": record.values});
    Ok(serde_json::to_string_pretty(&report)?)
}

pub fn markdown(plan: &Plan, conditions: &Conditions, record: &Record) -> String {
    let mut text = String::from(
        "# Measured\n\nMade by `make bench` (`bench/run.sh`, `crates/bench`); do not edit. A cell is the median of the \
         rounds, with the lowest and highest in brackets. Ratios are made round by round, from measurements that \
         stand next to each other in time, because the machine itself drifts; compare within one run only. \
         `not measured` says that a phase was left out.\n\n",
    );
    for table in [
        targets(record),
        facts(conditions),
        single(record),
        ndjson(plan, record),
        syslog(plan, record),
        path(plan, record),
        latency(record),
        company::company(record),
        agents::agents(record),
        idle(record),
    ] {
        text.push_str(&table);
        text.push('\n');
    }
    text.push_str(NOT_HERE);
    text
}

const NOT_HERE: &str = "## Not measured here\n\nDetection rules and correlations against rsigma-eval: `make bench-rules`, `bench/sigma/RESULTS.md`. \
Mitigations: there is no harness for them yet. Lost acknowledged events under `kill -9`: `make chaos`.\n";

/// A number a person can read, with the digits that matter.
fn number(value: f64) -> String {
    if value.is_nan() {
        return "none".to_owned();
    }
    if value.abs() < 100.0 {
        let digits = if value.abs() < 10.0 { 2 } else { 1 };
        let text = format!("{value:.digits$}");
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    let whole = format!("{value:.0}");
    let (sign, digits) = whole.strip_prefix('-').map_or(("", whole.as_str()), |d| ("-", d));
    let mut grouped = String::from(sign);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn shown(spread: Option<Spread>) -> String {
    match spread {
        None => "not measured".to_owned(),
        Some(s) if s.min == s.max => number(s.median),
        Some(s) => format!("{} ({}–{})", number(s.median), number(s.min), number(s.max)),
    }
}

fn cell(record: &Record, name: &str) -> String {
    shown(record.spread(name))
}

/// A table from its header and rows.
fn table(title: &str, note: &str, header: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = format!("## {title}\n\n");
    if !note.is_empty() {
        let _ = write!(text, "{note}\n\n");
    }
    let _ = writeln!(text, "| {} |", header.join(" | "));
    let _ = writeln!(text, "|{}", "---|".repeat(header.len()));
    for row in rows {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text
}

enum Wanted {
    AtLeast(f64),
    AtMost(f64),
    Below(f64),
}

/// The median decides.
fn verdict(measured: Option<Spread>, wanted: &Wanted) -> String {
    let Some(spread) = measured else { return "not measured".to_owned() };
    let (met, unsure) = match *wanted {
        Wanted::AtLeast(v) => (spread.median >= v, (spread.min < v) != (spread.max < v)),
        Wanted::AtMost(v) => (spread.median <= v, (spread.min > v) != (spread.max > v)),
        Wanted::Below(v) => (spread.median < v, (spread.min >= v) != (spread.max >= v)),
    };
    let text = if met { "met" } else { "**FAILED**" };
    if unsure { format!("{text} (rounds disagree)") } else { text.to_owned() }
}

fn targets(record: &Record) -> String {
    use Wanted::{AtLeast, AtMost, Below};
    let value = |name: &str| record.spread(name);
    let per_peer = |case: &str, ours: &str, peer: &str| {
        record.ratio(&format!("syslog/{case}/{ours}/rate"), &format!("syslog/{case}/{peer}/rate"))
    };
    let rows: [(&str, &str, Option<Spread>, Wanted); 32] = [
        (
            "single POST a second, durable before the answer, 256 connections",
            "≥ 30,000",
            value("http/256/strict/rate"),
            AtLeast(30_000.0),
        ),
        ("… its p99", "< 25 ms", value("http/256/strict/p99_ms"), Below(25.0)),
        ("NDJSON of 1,000, durable, events a second", "≥ 400,000", value("ndjson/strict/rate"), AtLeast(400_000.0)),
        (
            "syslog TCP, 1 connection, both synced: durable ÷ rsyslog with `sync=\"on\"`",
            "≥ 1",
            per_peer("tcp-1", "strict", "rsyslog-synced"),
            AtLeast(1.0),
        ),
        ("… neither synced: `memory` ÷ rsyslog", "≥ 1", per_peer("tcp-1", "memory", "rsyslog"), AtLeast(1.0)),
        ("… durable ÷ rsyslog that does not sync", "≥ 1", per_peer("tcp-1", "strict", "rsyslog"), AtLeast(1.0)),
        (
            "syslog TCP, 4 connections, both synced: durable ÷ rsyslog with `sync=\"on\"`",
            "≥ 1",
            per_peer("tcp-4", "strict", "rsyslog-synced"),
            AtLeast(1.0),
        ),
        ("… neither synced: `memory` ÷ rsyslog", "≥ 1", per_peer("tcp-4", "memory", "rsyslog"), AtLeast(1.0)),
        ("… durable ÷ rsyslog that does not sync", "≥ 1", per_peer("tcp-4", "strict", "rsyslog"), AtLeast(1.0)),
        (
            "syslog UDP, 1 sender, durable ÷ rsyslog that does not sync",
            "≥ 1",
            per_peer("udp-1", "strict", "rsyslog"),
            AtLeast(1.0),
        ),
        (
            "syslog UDP, 2 senders, durable ÷ rsyslog that does not sync",
            "≥ 1",
            per_peer("udp-2", "strict", "rsyslog"),
            AtLeast(1.0),
        ),
        (
            "UDP datagrams neither accepted nor counted as lost, 1 sender",
            "0",
            value("syslog/udp-1/strict/unaccounted").map(both_sides),
            AtMost(0.0),
        ),
        (
            "UDP datagrams neither accepted nor counted as lost, 2 senders",
            "0",
            value("syslog/udp-2/strict/unaccounted").map(both_sides),
            AtMost(0.0),
        ),
        (
            "accept → detect → store, 100 rules, events a second",
            "≥ 100,000",
            value("path/100/rate"),
            AtLeast(100_000.0),
        ),
        ("… events accepted and not settled", "0", value("path/100/missing"), AtMost(0.0)),
        ("event → alert delivered, p99", "< 1 s", value("latency/p99_ms").map(seconds), Below(1.0)),
        ("… alerts that did not come", "0", value("latency/missing"), AtMost(0.0)),
        (
            "… at 80 % of the rate that the whole path keeps up, p99",
            "< 1 s",
            value("latency/loaded/p99_ms").map(seconds),
            Below(1.0),
        ),
        ("… alerts that did not come", "0", value("latency/loaded/missing"), AtMost(0.0)),
        (
            "Redis and PostgreSQL, one alerter, 100 times the original: matched and forwarded, events a second",
            "≥ 16,800",
            value("company/forwarded/always/1/rate"),
            AtLeast(16_800.0),
        ),
        ("… matched, audited only", "≥ 24,300", value("company/logged/always/1/rate"), AtLeast(24_300.0)),
        ("… unhandled", "≥ 180,200", value("company/unhandled/always/1/rate"), AtLeast(180_200.0)),
        ("agent: line in a file → stored, p99", "≤ 100 ms", value("agent/latency/p99_ms"), AtMost(100.0)),
        ("… CPU idle, all collectors, % of a core", "≤ 0.5", value("agent/0/cpu_percent"), AtMost(0.5)),
        ("… memory idle", "≤ 15 MB", value("agent/0/rss_mb"), AtMost(15.0)),
        ("… CPU at 100 lines a second", "≤ 1", value("agent/100/cpu_percent"), AtMost(1.0)),
        ("… memory at 100 lines a second", "≤ 30 MB", value("agent/100/rss_mb"), AtMost(30.0)),
        ("… memory at 1,000 lines a second", "≤ 30 MB", value("agent/1000/rss_mb"), AtMost(30.0)),
        ("gateway: sessions that a third of 100,000 agents needs, in GB", "≤ 4", gigabytes(record), AtMost(4.0)),
        (
            "… agents that did not come back after a restart, of 10,000",
            "0",
            value("agents/10000/storm_missing"),
            AtMost(0.0),
        ),
        ("memory idle, all roles", "≤ 60 MB", value("idle/rss_mb"), AtMost(60.0)),
        ("start to healthy", "< 1 s", value("idle/start_ms").map(seconds), Below(1.0)),
    ];
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|(what, wanted_text, measured, wanted)| {
            vec![what.to_owned(), wanted_text.to_owned(), shown(measured), verdict(measured, &wanted)]
        })
        .collect();
    table("Promised and measured", "", &["what", "promised", "measured", "verdict"], &rows)
}

/// Memory of the sessions of one node of three (contract security-manager NFR-2).
fn gigabytes(record: &Record) -> Option<Spread> {
    let kb = record.spread("agents/10000/session_kb")?;
    let all = |kb: f64| kb * 33_400.0 / 1024.0 / 1024.0;
    Some(Spread { median: all(kb.median), min: all(kb.min), max: all(kb.max) })
}

fn seconds(ms: Spread) -> Spread {
    Spread { median: ms.median / 1e3, min: ms.min / 1e3, max: ms.max / 1e3 }
}

/// Counting one too many is as wrong as one too few.
fn both_sides(s: Spread) -> Spread {
    let worst = s.min.abs().max(s.max.abs());
    Spread { median: worst, min: s.min.abs().min(s.max.abs()), max: worst }
}

fn facts(conditions: &Conditions) -> String {
    let rows: Vec<_> = conditions.facts.iter().map(|(what, value)| vec![what.clone(), value.clone()]).collect();
    const PHASES: &str = "As each phase began: load average (1, 5, 15 minutes), and the time of a fixed piece of work on one \
        core, which shows how the machine drifted; and what share of the cores others took during the phase, which is \
        how much its numbers were disturbed.";
    let mut text = table("Conditions", "", &["", ""], &rows);
    let phases = conditions.phases.iter().enumerate();
    let rows: Vec<_> = phases
        .map(|(i, p)| {
            let others = conditions.phases.get(i + 1).map_or(String::new(), |next| number(p.others_percent(next)));
            vec![p.phase.clone(), p.load.clone(), number(p.spin_ms), others]
        })
        .collect();
    let phases = table("", PHASES, &["phase", "load", "ms", "others, %"], &rows);
    text.push('\n');
    text.push_str(phases.trim_start_matches(['#', ' ', '\n']).trim_start());
    text
}

fn single(record: &Record) -> String {
    let mut rows = Vec::new();
    for connections in CONNECTIONS {
        for (what, title) in [
            ("hyper", "bare hyper, keeps nothing"),
            ("strict", "muttd, on disk before the answer"),
            ("memory", "muttd, `durability = \"memory\"`"),
            ("strict-all-roles", "muttd, on disk, all roles working behind it"),
        ] {
            let name = format!("http/{connections}/{what}");
            if what == "strict-all-roles" && connections != 256 {
                continue;
            }
            let ratio = |to: &str| {
                if what == "hyper" {
                    "".to_owned()
                } else {
                    shown(record.ratio(&format!("{name}/rate"), &format!("http/{connections}/{to}/rate")))
                }
            };
            rows.push(vec![
                connections.to_string(),
                title.to_owned(),
                cell(record, &format!("{name}/rate")),
                cell(record, &format!("{name}/p50_ms")),
                cell(record, &format!("{name}/p99_ms")),
                ratio("hyper"),
                if what == "memory" { String::new() } else { ratio("memory") },
                server_cells(record, &name),
                cell(record, &format!("{name}/errors")),
            ]);
        }
    }
    let note = "One event of 272 bytes a request, kept-alive connections, each waits for its answer. Role `ingestor` unless said.";
    table(
        "Single POST",
        note,
        &[
            "connections",
            "server",
            "requests/s",
            "p50 ms",
            "p99 ms",
            "÷ hyper",
            "÷ memory",
            "CPU µs/event; peak MB",
            "errors",
        ],
        &rows,
    )
}

fn server_cells(record: &Record, name: &str) -> String {
    let (cpu, peak) = (record.spread(&format!("{name}/cpu_us")), record.spread(&format!("{name}/rss_peak_mb")));
    match (cpu, peak) {
        (Some(cpu), Some(peak)) => format!("{}; {}", number(cpu.median), number(peak.max)),
        (None, Some(peak)) => number(peak.max),
        (Some(_) | None, None) => String::new(),
    }
}

fn ndjson(plan: &Plan, record: &Record) -> String {
    let mut rows = Vec::new();
    for (what, title) in [
        ("hyper", "bare hyper, reads the body"),
        ("strict", "muttd, on disk before the answer"),
        ("memory", "muttd, `durability = \"memory\"`"),
    ] {
        let name = format!("ndjson/{what}");
        let ratio = |to: &str| shown(record.ratio(&format!("{name}/rate"), &format!("ndjson/{to}/rate")));
        rows.push(vec![
            title.to_owned(),
            cell(record, &format!("{name}/rate")),
            cell(record, &format!("{name}/p50_ms")),
            cell(record, &format!("{name}/p99_ms")),
            if what == "hyper" { String::new() } else { ratio("hyper") },
            if what == "strict" { ratio("memory") } else { String::new() },
            server_cells(record, &name),
            cell(record, &format!("{name}/errors")),
        ]);
    }
    let note = format!(
        "8 connections, bodies of 1,000 events of 272 bytes, {} s each, role `ingestor`.",
        plan.phase.as_secs()
    );
    table(
        "NDJSON",
        &note,
        &["server", "events/s", "p50 ms", "p99 ms", "÷ hyper", "÷ memory", "CPU µs/event; peak MB", "errors"],
        &rows,
    )
}

fn syslog(plan: &Plan, record: &Record) -> String {
    let mut rows = Vec::new();
    for case in CASES {
        for (what, title) in [
            ("rsyslog", "rsyslogd → file"),
            ("rsyslog-synced", "rsyslogd → file, `sync=\"on\"`"),
            ("strict", "muttd, on disk before it counts"),
            ("memory", "muttd, `durability = \"memory\"`"),
        ] {
            if case.udp && what == "rsyslog-synced" {
                continue;
            }
            let peer = what.starts_with("rsyslog");
            let name = format!("syslog/{}/{what}", case.name);
            let ratio =
                |to: &str| shown(record.ratio(&format!("{name}/rate"), &format!("syslog/{}/{to}/rate", case.name)));
            let arrived = record.ratio(&format!("{name}/counted"), &format!("{name}/sent"));
            let percent = arrived.map(|s| Spread { median: s.median * 100.0, min: s.min * 100.0, max: s.max * 100.0 });
            rows.push(vec![
                case.title.to_owned(),
                title.to_owned(),
                cell(record, &format!("{name}/sent_rate")),
                cell(record, &format!("{name}/rate")),
                shown(percent),
                if peer { "not told".to_owned() } else { cell(record, &format!("{name}/unaccounted")) },
                if what == "rsyslog" { String::new() } else { ratio("rsyslog") },
                if what == "strict" { ratio("memory") } else { String::new() },
                server_cells(record, &name),
            ]);
        }
    }
    let note = format!(
        "RFC 3164 lines of 250 bytes; {} messages over TCP, {} over UDP. muttd (role `ingestor`) parses, gives ids and, in the default mode, syncs before it counts; rsyslogd (imtcp, imudp, one omfile in its default format, main queue of 500,000 with batches of 4,096, the same 16 MB of socket buffer asked for) writes without syncing, or, where it says so, with an fsync for each batch. `unaccounted` = sent − accepted − refused − what the kernel told it dropped.",
        number(plan.syslog_tcp_messages as f64),
        number(plan.syslog_udp_messages as f64),
    );
    table(
        "Syslog",
        &note,
        &[
            "",
            "server",
            "sent/s",
            "taken/s",
            "arrived %",
            "unaccounted",
            "÷ rsyslog",
            "÷ memory",
            "CPU µs/event; peak MB",
        ],
        &rows,
    )
}

fn path(plan: &Plan, record: &Record) -> String {
    let mut rows = Vec::new();
    for rules in RULES {
        let name = format!("path/{rules}");
        let row = ["accept_rate", "rate", "missing", "handled", "errors"]
            .map(|value| cell(record, &format!("{name}/{value}")));
        rows.push([vec![rules.to_string()], row.to_vec(), vec![server_cells(record, &name)]].concat());
    }
    let note = format!(
        "All roles in one process, embedded default, strict. {} events by NDJSON as fast as 4 connections can; the clock stops when all are settled (matched, counted, stored, audited). One rule in ten is a regex; one event in a hundred matches a rule with handling `Ignore`; the others are unhandled, from 1,000 hosts in ten shapes.",
        number(plan.path_events as f64)
    );
    table(
        "Whole path",
        &note,
        &["rules", "accepted/s", "settled/s", "not settled", "handled", "errors", "CPU µs/event; peak MB"],
        &rows,
    )
}

fn latency(record: &Record) -> String {
    let row = |load: &str, name: &str| {
        let values = ["load_rate", "p50_ms", "p99_ms", "max_ms", "alerts", "missing", "repeated"];
        let cells = values.map(|value| cell(record, &format!("{name}/{value}")));
        [vec![load.to_owned()], cells.to_vec()].concat()
    };
    let loaded = format!("{} % of the rate that the whole path keeps up", LOAD * 100.0);
    let note = format!(
        "All roles, strict, 100 rules, {LATENCY_EVENTS_PER_SECOND} single POSTs a second, of which {} a second alert; a webhook receiver in the load generator. From before the POST to the receiver having read the alert. Under load, events that alert nobody come besides by NDJSON over 4 connections, one in a hundred of them matched; `taken/s` is how many of them the server took.",
        LATENCY_EVENTS_PER_SECOND / LATENCY_ALERT_ONE_IN as u64
    );
    table(
        "Event to alert",
        &note,
        &["besides", "taken/s", "p50 ms", "p99 ms", "max ms", "alerts", "missing", "repeated"],
        &[row("nothing", "latency"), row(&loaded, "latency/loaded")],
    )
}

fn idle(record: &Record) -> String {
    let row = ["start_ms", "start_1000_rules_ms", "rss_mb", "rss_peak_mb", "cpu_percent", "rsyslog_rss_mb"]
        .map(|value| cell(record, &format!("idle/{value}")));
    let header = [
        "start ms",
        "start with 1,000 rules, ms",
        "memory after 3 s, MB",
        "peak MB",
        "% of a core",
        "rsyslogd idle, MB",
    ];
    table(
        "Start and idle",
        "All roles, empty data folder; start is from exec to the first healthy answer.",
        &header,
        &[row.to_vec()],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_short() {
        assert_eq!(number(1_234_567.4), "1,234,567");
        assert_eq!(number(999.6), "1,000");
        assert_eq!(number(12.34), "12.3");
        assert_eq!(number(0.5), "0.5");
        assert_eq!(number(0.0), "0");
    }

    #[test]
    fn the_median_decides_and_rounds_that_disagree_are_told() {
        let spread = Some(Spread { median: 10.0, min: 8.0, max: 11.0 });
        assert_eq!(verdict(spread, &Wanted::AtLeast(8.0)), "met");
        assert_eq!(verdict(spread, &Wanted::AtLeast(9.0)), "met (rounds disagree)");
        assert_eq!(verdict(spread, &Wanted::AtLeast(12.0)), "**FAILED**");
        assert_eq!(verdict(None, &Wanted::AtMost(1.0)), "not measured");
    }
}
