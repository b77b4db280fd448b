//! `sm-agent` on its host: CPU, memory, and the way of a line from its file to the store. The peer is rsyslog, which
//! follows the same file and sends its lines on, plainly and without keeping what it has sent.

use crate::Plan;
use crate::muttd::{ALL_ROLES, Muttd, Setup, Usage, fresh_dir, get_with};
use crate::peer::FileFollower;
use crate::record::{Record, percentile};
use anyhow::{Context, Result, bail};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Lines a second.
pub const RATES: [u64; 3] = [0, 100, 1_000];
const LINE: &str =
    "a line of a program, as long as such lines often are, with a number and some more words behind it: ";
const PROBES: usize = 200;

pub fn host(plan: &Plan, record: &mut Record) -> Result<()> {
    let rounds = if plan.quick { 1 } else { 2 };
    for _ in 0..rounds {
        for rate in RATES {
            cost(plan, record, rate)?;
        }
        latency(plan, record)?;
    }
    Ok(())
}

struct Agent {
    child: Child,
    dir: PathBuf,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Agent {
    fn start(plan: &Plan, muttd: &Muttd, token: &str) -> Result<Self> {
        let dir = fresh_dir(plan, "agent")?;
        std::fs::write(dir.join("app.log"), "")?;
        let log = std::fs::File::create(dir.join("log"))?;
        let binary = plan.muttd.with_file_name("sm-agent");
        let child = Command::new(&binary)
            .env_clear()
            .env("SM_TOKEN", token)
            .env("SM_CONFIG", "/dev/null")
            .args(["-ingest", &muttd.agents.context("no address for agents")?.to_string(), "-host", "bench"])
            .arg("-data-dir")
            .arg(dir.join("data"))
            .arg("-file")
            .arg(dir.join("app.log"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting `{}`: cargo build --release -p agent", binary.display()))?;
        let agent = Self { child, dir };
        let began = Instant::now();
        while !std::fs::read_to_string(agent.dir.join("log"))?.contains("following /") {
            if began.elapsed() > Duration::from_secs(20) {
                bail!("the agent follows nothing: {}", std::fs::read_to_string(agent.dir.join("log"))?);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(agent)
    }

    fn file(&self) -> PathBuf {
        self.dir.join("app.log")
    }
}

fn started(plan: &Plan) -> Result<(Muttd, Agent)> {
    let mut setup = Setup::new(ALL_ROLES, "strict");
    setup.agents = Some("127.0.0.1:0".parse()?);
    let muttd = Muttd::start(plan, &setup)?;
    let token = super::crowd::token(plan, &muttd)?;
    let agent = Agent::start(plan, &muttd, &token)?;
    Ok((muttd, agent))
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

fn cost(plan: &Plan, record: &mut Record, rate: u64) -> Result<()> {
    let time = Duration::from_secs(if plan.quick { 5 } else { 30 });
    let (muttd, agent) = started(plan)?;
    // What a start costs is not what it costs to be there.
    std::thread::sleep(Duration::from_secs(3));
    let before = Usage::of(agent.child.id());
    write(&agent.file(), rate, time)?;
    let after = Usage::of(agent.child.id());
    let name = format!("agent/{rate}");
    record.push(format!("{name}/cpu_percent"), (after.cpu_seconds - before.cpu_seconds) * 100.0 / time.as_secs_f64());
    record.push(format!("{name}/rss_mb"), after.rss_peak_mb);
    drop((agent, muttd));
    if rate > 0 {
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
    let (muttd, agent) = started(plan)?;
    let web = muttd.web.context("no address of the Web API")?;
    let key = std::fs::read_to_string(muttd.data().join("keys/webui_api_key"))?;
    let key = format!("X-API-KEY: {}\r\n", key.trim());
    let mut waits = Vec::new();
    let mut file = std::fs::OpenOptions::new().append(true).open(agent.file())?;
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
    record.push("agent/latency/p50_ms", percentile(&mut waits, 0.50) / 1e3);
    record.push("agent/latency/p99_ms", percentile(&mut waits, 0.99) / 1e3);
    Ok(())
}
