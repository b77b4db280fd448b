//! `make bench`: measures the built `muttd` against peers in the same run, over sockets only, and
//! writes `bench/RESULTS.md`. It links nothing of the server: what is measured is what is shipped.
//!
//! Every comparison is interleaved (A B C A B C …): the machine drifts, so only values of one round
//! are divided by each other, and the report gives the median and the range of the rounds.
#![expect(clippy::print_stderr, reason = "progress of a long run belongs on the terminal")]

mod agents;
mod company;
mod conditions;
mod http;
mod muttd;
mod path;
mod peer;
mod record;
mod report;
mod syslog;

use anyhow::{Context, Result, bail};
use conditions::Conditions;
use record::Record;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// How long and how often; and where things are.
pub struct Plan {
    pub muttd: PathBuf,
    /// Data of the servers under test; on a real disk.
    pub scratch: PathBuf,
    pub quick: bool,
    pub rounds: usize,
    /// Time of one measurement of a rate.
    pub phase: Duration,
    /// Answered requests before this time are not counted.
    pub warm_up: Duration,
    pub syslog_tcp_messages: u64,
    pub syslog_udp_messages: u64,
    pub path_events: u64,
}

const USAGE: &str = "usage: bench run --muttd FILE --out DIR --results FILE [--quick] [--only PHASE,...]
phases: idle, http, ndjson, syslog, path, latency, company, gateway, agent";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.first().map(String::as_str) {
        Some("run") => run(&args[1..]),
        Some("hyper-peer") => peer::serve_hyper(),
        _ => Err(anyhow::anyhow!("{USAGE}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<()> {
    let mut args = args.iter();
    let (mut quick, mut only, mut muttd, mut out, mut results) = (false, None, None, None, None);
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} needs a value\n{USAGE}"));
        match arg.as_str() {
            "--quick" => quick = true,
            "--only" => only = Some(value()?.clone()),
            "--muttd" => muttd = Some(PathBuf::from(value()?)),
            "--out" => out = Some(PathBuf::from(value()?)),
            "--results" => results = Some(PathBuf::from(value()?)),
            other => bail!("unknown argument {other}\n{USAGE}"),
        }
    }
    let (muttd, out, results) = (
        muttd.context("--muttd is missing")?,
        out.context("--out is missing")?,
        results.context("--results is missing")?,
    );
    std::fs::create_dir_all(&out)?;
    let scratch = out.canonicalize()?.join("data");
    let _ = std::fs::remove_dir_all(&scratch);
    std::fs::create_dir_all(&scratch)?;
    let plan = Plan {
        muttd: muttd.canonicalize().with_context(|| format!("no muttd at `{}`", muttd.display()))?,
        scratch: scratch.clone(),
        quick,
        rounds: if quick { 1 } else { 3 },
        phase: Duration::from_millis(if quick { 1_000 } else { 4_000 }),
        warm_up: Duration::from_millis(if quick { 200 } else { 500 }),
        syslog_tcp_messages: if quick { 300_000 } else { 1_000_000 },
        syslog_udp_messages: if quick { 150_000 } else { 500_000 },
        path_events: if quick { 100_000 } else { 300_000 },
    };
    let mut conditions = Conditions::collect(&plan)?;
    let mut record = Record::default();
    let wanted = |phase: &str| only.as_ref().is_none_or(|only| only.split(',').any(|p| p == phase));
    type Phase = fn(&Plan, &mut Record) -> Result<()>;
    let phases: [(&str, Phase); 9] = [
        ("idle", path::idle),
        ("http", http::single),
        ("ndjson", http::ndjson),
        ("syslog", syslog::compare),
        ("path", path::whole),
        ("latency", path::latency),
        ("company", company::run),
        ("gateway", agents::gateway),
        ("agent", agents::host),
    ];
    for (name, phase) in phases {
        if wanted(name) {
            eprintln!("== {name}");
            conditions.note_load(name);
            phase(&plan, &mut record).with_context(|| format!("phase {name}"))?;
        }
    }
    conditions.finish();
    let _ = std::fs::remove_dir_all(&scratch);
    std::fs::write(out.join("results.json"), report::json(&conditions, &record)?)?;
    let text = report::markdown(&plan, &conditions, &record);
    std::fs::write(&results, &text).with_context(|| format!("writing `{}`", results.display()))?;
    eprintln!("{text}\nwritten to {}", results.display());
    Ok(())
}
