//! What the agent costs: for people who want to know, not for every day.
//!
//! `SM_AGENT=target/release/sm-agent cargo nextest run -p agent --run-ignored only --no-capture cost`; `SM_COST_RATE` is
//! events a second (0: it idles), `SM_COST_SECONDS` how long, `SM_COST_COLLECTORS` which collectors.

use crate::server::Server;
use crate::{AGENT, Agent, append, file_in};
use std::time::{Duration, Instant};

fn told(name: &str, default: u64) -> u64 {
    runtime::config::environment().get(name).and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// Processor time of a process and its threads, in ticks of 10 ms; switches between them.
fn spent(pid: u32) -> (u64, u64) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    let switches = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|task| {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let lines = status.lines().filter(|line| line.contains("ctxt_switches"));
        lines.map(|line| line.split_whitespace().last().unwrap().parse::<u64>().unwrap()).sum::<u64>()
    });
    (ticks, switches.sum())
}

fn high_water(pid: u32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find(|line| line.starts_with("VmHWM")).unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures for a minute; how, says the head of this file"]
async fn what_it_costs() {
    let environment = runtime::config::environment();
    let binary = environment.get("SM_AGENT").map_or(AGENT, String::as_str);
    let (rate, seconds) = (told("SM_COST_RATE", 100), told("SM_COST_SECONDS", 60));
    let names = agent::collectors::NAMES.join(",");
    let collectors = environment.get("SM_COST_COLLECTORS").unwrap_or(&names);
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start().await;
    let (path, name) = file_in(dir.path(), "app.log");
    append(&path, "");
    let mut command = Agent::command_of(binary, &server, dir.path());
    command.args(["-file", &name, "-collectors", collectors]).stderr(std::process::Stdio::null());
    let agent = Agent::of(command.spawn().unwrap());
    server.until("a heartbeat", |memory| !memory.messages("heartbeat").is_empty()).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (before, begin) = (spent(agent.pid()), Instant::now());
    let count = rate * seconds;
    let writer = std::thread::spawn(move || {
        use std::io::Write;
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        for n in 0..count {
            let due = begin + Duration::from_micros(n * 1_000_000 / rate.max(1));
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let us = begin.elapsed().as_micros();
            writeln!(file, "{us} sshd[12]: Failed password for root from 203.0.113.9 port 22 ssh2, line {n}").unwrap();
        }
    });
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let after = spent(agent.pid());
    let elapsed = begin.elapsed().as_secs_f64();
    tokio::task::spawn_blocking(move || writer.join().unwrap()).await.unwrap();
    server.until("all lines", |memory| memory.messages("file").len() as u64 == count).await;
    let memory = server.memory();
    let mut lags: Vec<u128> = memory
        .order
        .iter()
        .zip(&memory.arrivals)
        .filter_map(|(key, arrival)| match &memory.records[key].1.body {
            Some(wire::record::Body::Log(log)) if log.stream == "file" => {
                let written: u128 = log.message.split(' ').next().unwrap().parse().unwrap();
                Some(arrival.duration_since(begin).as_micros().saturating_sub(written))
            }
            _ => None,
        })
        .collect();
    lags.sort_unstable();
    let lag = |share: usize| lags.get(lags.len() * share / 1_000).map_or(0.0, |us| *us as f64 / 1_000.0);
    println!(
        "{rate} events/s for {elapsed:.0} s: CPU {:.2} % of a core, {:.0} switches/s, {}, {} batches, lag p50 {:.1} p99 {:.1} max {:.1} ms",
        (after.0 - before.0) as f64 / elapsed,
        (after.1 - before.1) as f64 / elapsed,
        high_water(agent.pid()),
        memory.batches,
        lag(500),
        lag(990),
        lag(999)
    );
    drop(agent);
}
