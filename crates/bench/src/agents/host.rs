//! `sm-agent` on its host: CPU, memory, and the way of a line from its file to the store. The peer is rsyslog, which
//! follows the same file and sends its lines on, plainly and without keeping what it has sent.

use crate::Plan;
use crate::muttd::{ALL_ROLES, Muttd, Setup, Usage, fresh_dir, get_with};
use crate::peer::FileFollower;
use crate::record::{Record, percentile};
use anyhow::{Context, Result, bail};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use testkit::host_agent::{HostAgent, pretend_cores};

/// Lines a second.
pub const RATES: [u64; 3] = [0, 100, 1_000];
/// Of a large host, as far as a process can ask.
pub const CORES: u32 = 32;
const LINE: &str =
    "a line of a program, as long as such lines often are, with a number and some more words behind it: ";
const PROBES: usize = 200;

pub fn host(plan: &Plan, record: &mut Record) -> Result<()> {
    let rounds = if plan.quick { 1 } else { 2 };
    for _ in 0..rounds {
        for rate in RATES {
            cost(plan, record, rate, None)?;
        }
        cost(plan, record, 100, Some(CORES))?;
        latency(plan, record)?;
    }
    Ok(())
}

fn started(plan: &Plan, cores: Option<u32>) -> Result<(Muttd, HostAgent, PathBuf)> {
    let mut setup = Setup::new(ALL_ROLES, "strict");
    setup.agents = Some("127.0.0.1:0".parse()?);
    let muttd = Muttd::start(plan, &setup)?;
    let token = super::crowd::token(plan, &muttd)?;
    let dir = fresh_dir(plan, "agent")?;
    let mut command = Command::new("env");
    command.args(cores.map(|cores| format!("LD_PRELOAD={}", pretend_cores(&dir, cores).display())));
    command.arg(HostAgent::binary(&plan.muttd));
    let ingest = muttd.agents.context("no address for agents")?.to_string();
    let agent = HostAgent::start(command, &dir, &ingest, "bench", &token, &[]);
    agent.until_said("following /");
    Ok((muttd, agent, dir.join("app.log")))
}

/// Writes so many lines a second for a time.
fn write(file: &Path, rate: u64, time: Duration) -> Result<()> {
    let mut file = std::fs::OpenOptions::new().append(true).open(file)?;
    let began = Instant::now();
    let mut written = 0u64;
    while began.elapsed() < time {
        let due = (began.elapsed().as_secs_f64() * rate as f64) as u64;
        let text: String = (written..due).map(|n| format!("{LINE}{n:08}\n")).collect();
        file.write_all(text.as_bytes())?;
        written = due;
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn cost(plan: &Plan, record: &mut Record, rate: u64, cores: Option<u32>) -> Result<()> {
    let time = Duration::from_secs(if plan.quick { 5 } else { 30 });
    let (muttd, agent, file) = started(plan, cores)?;
    // What a start costs is not what it costs to be there.
    std::thread::sleep(Duration::from_secs(3));
    let before = Usage::of(agent.pid());
    write(&file, rate, time)?;
    let after = Usage::of(agent.pid());
    let name = cores.map_or_else(|| format!("agent/{rate}"), |cores| format!("agent/{rate}@{cores}"));
    record.push(format!("{name}/cpu_percent"), (after.cpu_seconds - before.cpu_seconds) * 100.0 / time.as_secs_f64());
    record.push(format!("{name}/rss_mb"), after.rss_peak_mb);
    drop((agent, muttd));
    if rate > 0 && cores.is_none() {
        let peer = FileFollower::start(plan)?;
        std::thread::sleep(Duration::from_secs(2));
        let before = peer.usage();
        write(&peer.file(), rate, time)?;
        let after = peer.usage();
        let cpu = (after.cpu_seconds - before.cpu_seconds) * 100.0 / time.as_secs_f64();
        record.push(format!("{name}/rsyslog_cpu_percent"), cpu);
        record.push(format!("{name}/rsyslog_rss_mb"), after.rss_peak_mb);
    }
    Ok(())
}

/// Single lines: from before the write to when the store has it.
fn latency(plan: &Plan, record: &mut Record) -> Result<()> {
    let (muttd, agent, file) = started(plan, None)?;
    let web = muttd.web.context("no address of the Web API")?;
    let key = std::fs::read_to_string(muttd.data().join("keys/webui_api_key"))?;
    let key = format!("X-API-KEY: {}\r\n", key.trim());
    let mut waits = Vec::new();
    let mut file = std::fs::OpenOptions::new().append(true).open(file)?;
    for n in 0..PROBES {
        let word = format!("probe-{n:08}");
        let began = Instant::now();
        file.write_all(format!("{LINE}{word}\n").as_bytes())?;
        let path = format!("/api/v2/events?host=bench&limit=1&text={word}");
        while !get_with(web, &path, &key)?.contains(&format!("{word}\"")) {
            if began.elapsed() > Duration::from_secs(10) {
                bail!("line {n} was not stored in 10 s");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        waits.push(began.elapsed().as_micros() as u32);
        std::thread::sleep(Duration::from_millis(37));
    }
    drop((agent, muttd));
    record.push("agent/latency/p50_ms", percentile(&mut waits, 0.50) / 1e3);
    record.push("agent/latency/p99_ms", percentile(&mut waits, 0.99) / 1e3);
    Ok(())
}
