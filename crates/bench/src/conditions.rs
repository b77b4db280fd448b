//! Under what conditions the numbers were made: they mean nothing without.

use crate::Plan;
use anyhow::{Result, bail};
use std::hint::black_box;
use std::io::Write;
use std::process::Command;
use std::time::Instant;

pub struct Conditions {
    /// (what, value), in the order of the report.
    pub facts: Vec<(String, String)>,
    pub phases: Vec<PhaseStart>,
}

/// The machine as a phase began.
pub struct PhaseStart {
    pub phase: String,
    pub load: String,
    /// Time of a fixed piece of work on one core: what the machine itself drifted.
    pub spin_ms: f64,
    /// CPU time of this machine and of this run (load generator and ended servers), in 1/100 s, so far.
    at: Instant,
    busy: f64,
    ours: f64,
}

impl PhaseStart {
    /// Share of all cores that others took from here to `next`, in percent. The kernel's own work for
    /// our sockets and disk is counted with them, so a quiet machine shows a few percent, too.
    pub fn others_percent(&self, next: &Self) -> f64 {
        let cores = std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64);
        ((next.busy - self.busy) - (next.ours - self.ours)) / ((next.at - self.at).as_secs_f64() * cores)
    }
}

impl Conditions {
    pub fn collect(plan: &Plan) -> Result<Self> {
        let filesystem = output("stat", &["-f", "-c", "%T", &plan.scratch.display().to_string()]);
        if filesystem.contains("tmpfs") || filesystem.contains("ramfs") {
            bail!("`{}` is in memory; what is durable must be measured on a disk", plan.scratch.display());
        }
        let mut conditions = Self { facts: Vec::new(), phases: Vec::new() };
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find(|l| l.starts_with("model name")).and_then(|l| l.split(": ").nth(1));
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory = memory.lines().next().and_then(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0);
        let commit = output("git", &["rev-parse", "--short=12", "HEAD"]);
        let changed = output("git", &["status", "--porcelain", "--", "crates", "Cargo.lock"]);
        let dirty = if changed.is_empty() { "" } else { ", with changes not committed" };
        let built = output("date", &["-u", "+%Y-%m-%d %H:%M UTC", "-r", &plan.muttd.display().to_string()]);
        let (sync_p50, sync_p99) = fdatasync(plan)?;
        for (what, value) in [
            ("Date", output("date", &["-u", "+%Y-%m-%d %H:%M UTC"])),
            ("Commit of the working tree", format!("{commit}{dirty}")),
            ("CPU", format!("{}, {cores} cores for servers and load generator together", model.unwrap_or("?"))),
            ("Memory", format!("{:.1} GB", memory as f64 / 1e6)),
            ("Kernel", output("uname", &["-sr"])),
            ("Disk", format!("{filesystem}; 4 KB append + fdatasync: p50 {sync_p50:.2} ms, p99 {sync_p99:.2} ms")),
            ("rustc", output("rustc", &["--version"])),
            ("muttd", format!("{}, built {built}", output(&plan.muttd.display().to_string(), &["--version"]))),
            ("Peers", format!("{}; hyper {} (in a process of its own)", rsyslog_version(), hyper_version())),
            ("UDP buffer", format!("net.core.rmem_max {}", read("/proc/sys/net/core/rmem_max"))),
            ("Load average at start", read("/proc/loadavg")),
            (
                "Rounds",
                format!(
                    "{}, of {} s a rate measurement; {}",
                    plan.rounds,
                    plan.phase.as_secs(),
                    if plan.quick { "QUICK RUN: for development, not for conclusions" } else { "whole run" }
                ),
            ),
        ] {
            conditions.facts.push((what.to_owned(), value));
        }
        Ok(conditions)
    }

    pub fn note_load(&mut self, phase: &str) {
        let load = read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ");
        let spin_ms = spin();
        let busy: Vec<f64> = fields(&read("/proc/stat").lines().next().unwrap_or_default().replace("cpu", ""));
        // user nice system (idle iowait) irq softirq
        let busy = busy.iter().take(7).sum::<f64>() - busy.iter().skip(3).take(2).sum::<f64>();
        let stat = read("/proc/self/stat");
        // utime, stime, and those of children that ended: the 12th to 15th after the name
        let ours = fields(stat.rsplit(')').next().unwrap_or_default()).iter().skip(11).take(4).sum();
        self.phases.push(PhaseStart { phase: phase.to_owned(), load, spin_ms, at: Instant::now(), busy, ours });
    }

    pub fn finish(&mut self) {
        self.note_load("end");
        self.facts.push(("Ended".to_owned(), output("date", &["-u", "+%Y-%m-%d %H:%M UTC"])));
    }
}

fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output.map_or_else(|_| "?".to_owned(), |o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// Numbers; what is none counts as 0, so that positions stay.
fn fields(text: &str) -> Vec<f64> {
    text.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect()
}

fn rsyslog_version() -> String {
    let text = output("rsyslogd", &["-v"]);
    text.lines().next().map_or_else(
        || "no rsyslogd".to_owned(),
        |l| l.split("  ").collect::<Vec<_>>().join(" ").replace(" compiled with:", ""),
    )
}

/// Of the lock file that this was built with.
fn hyper_version() -> &'static str {
    let lock = include_str!("../../../Cargo.lock");
    let after = lock.split("name = \"hyper\"\nversion = \"").nth(1);
    after.and_then(|rest| rest.split('"').next()).unwrap_or("?")
}

/// p50 and p99 in milliseconds.
fn fdatasync(plan: &Plan) -> Result<(f64, f64)> {
    let path = plan.scratch.join("fdatasync");
    let mut file = std::fs::File::create(&path)?;
    let mut times = Vec::new();
    for _ in 0..300 {
        file.write_all(&[0x5a; 4_096])?;
        let start = Instant::now();
        file.sync_data()?;
        times.push(start.elapsed().as_micros() as u32);
    }
    std::fs::remove_file(path)?;
    let p50 = crate::record::percentile(&mut times, 0.5) / 1e3;
    Ok((p50, crate::record::percentile(&mut times, 0.99) / 1e3))
}

fn spin() -> f64 {
    let start = Instant::now();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..100_000_000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        black_box(state);
    }
    start.elapsed().as_secs_f64() * 1e3
}
