use super::*;
use crate::collectors::test::{Heard, context};
use std::collections::BTreeSet;
use std::process::{Command, Stdio};

/// The collector as it runs; nothing where the kernel refuses, and why is said.
struct Running {
    heard: Heard,
    thread: std::thread::JoinHandle<()>,
}

impl Running {
    fn start(source: Source, per_second: u32, with_hashes: bool) -> Self {
        let (context, heard) = context();
        let hashes = with_hashes.then(|| Hashes::new(Instant::now()));
        let processes = Processes::new(context, source, per_second, hashes, Arc::default());
        let mut running = Self { heard, thread: std::thread::spawn(move || processes.run()) };
        // What was there at the start is no news: wait until it is over.
        for _ in 0..100 {
            true_with("begun");
            std::thread::sleep(Duration::from_millis(50));
            running.heard.take();
            if running.heard.logs().any(|log| log.labels.get("cmdline").is_some_and(|c| c == "true begun")) {
                break;
            }
        }
        running
    }

    fn end(mut self) -> Heard {
        self.heard.stopper.stop();
        self.thread.join().unwrap();
        self.heard.take();
        self.heard
    }
}

fn kernel() -> Option<Source> {
    match Connector::open() {
        Ok(connector) => Some(Source::Kernel(connector)),
        Err(why) => {
            eprintln!("SKIPPED: {why}");
            None
        }
    }
}

fn true_with(argument: &str) -> u32 {
    let mut child = Command::new("true").arg(argument).stdin(Stdio::null()).spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    pid
}

#[test]
fn the_kernel_tells_who_executes_what_for_whom_and_how_it_ends() {
    let Some(source) = kernel() else { return };
    let mut running = Running::start(source, 10_000, true);
    let child = Command::new("sh").args(["-c", "sleep 0.3; exit 3"]).spawn();
    let mut child = child.unwrap();
    let pid = child.id().to_string();
    child.wait().unwrap();
    let mut killed = Command::new("sleep").arg("77").spawn().unwrap();
    let killed_pid = killed.id().to_string();
    running.heard.until(|log| log.labels.get("pid") == Some(&killed_pid)).unwrap();
    killed.kill().unwrap();
    killed.wait().unwrap();
    let is =
        |log: &wire::LogEvent, pid: &str, what: &str| log.labels["pid"] == *pid && log.labels["event_type"] == what;
    let start = running.heard.until(|log| is(log, &pid, "process_start")).unwrap();
    assert_eq!((&*start.stream, &*start.message), ("process", &*format!("Process started: sh (PID: {pid})")));
    for (label, expected) in [
        ("process", "sh"),
        ("severity", "info"),
        ("cmdline", "sh -c sleep 0.3; exit 3"),
        ("uid", "0"),
        ("user", "root"),
        ("ppid", &*std::process::id().to_string()),
    ] {
        if rustix::process::getuid().is_root() || !matches!(label, "uid" | "user") {
            assert_eq!(start.labels[label], expected, "{label}");
        }
    }
    assert!(start.labels["exe"].starts_with('/') && !start.labels["parent"].is_empty(), "{start:?}");
    let bytes = std::fs::read(&start.labels["exe"]).unwrap();
    let hash: String = sha2::Digest::finalize(<sha2::Sha256 as sha2::Digest>::new_with_prefix(bytes))
        .iter()
        .map(|byte: &u8| format!("{byte:02x}"))
        .collect();
    assert_eq!(start.labels["sha256"], hash);
    let end = running.heard.until(|log| is(log, &pid, "process_end")).unwrap();
    assert_eq!((&*end.labels["exit_code"], end.message), ("3", format!("Process terminated: sh (PID: {pid})")));
    let end = running.heard.until(|log| is(log, &killed_pid, "process_end")).unwrap();
    assert_eq!((&*end.labels["signal"], end.labels.get("exit_code")), ("9", None));
    running.end();
}

#[test]
fn two_thousand_short_lives_are_all_told_and_none_of_our_own() {
    let Some(source) = kernel() else { return };
    // With the limit that is there by default.
    let running = Running::start(source, 200, false);
    let pids: BTreeSet<String> = (0..2_000).map(|i| true_with(&i.to_string()).to_string()).collect();
    std::thread::spawn(|| ()).join().unwrap();
    let heard = running.end();
    let started: Vec<_> = heard.logs().filter(|log| log.labels["event_type"] == "process_start").collect();
    let told: BTreeSet<String> = started.iter().map(|log| log.labels["pid"].clone()).collect();
    assert_eq!(pids.difference(&told).count(), 0, "missed");
    assert!(!told.contains(&std::process::id().to_string()));
    assert!(heard.logs().all(|log| log.labels["event_type"] != "process_overrun"));
    // Each says what it was, or that it was gone.
    let ours: Vec<_> = started.iter().filter(|log| pids.contains(&log.labels["pid"])).collect();
    let gone = ours.iter().filter(|log| log.labels.contains_key("gone")).count();
    assert!(ours.iter().all(|log| log.labels.contains_key("gone") || log.labels.contains_key("exe")));
    eprintln!("{} of {} were gone before they could be looked at", gone, ours.len());
}

#[test]
fn a_flood_over_the_limit_is_sampled_and_counted() {
    let Some(source) = kernel() else { return };
    let running = Running::start(source, 1, false);
    for i in 0..300 {
        true_with(&i.to_string());
    }
    let heard = running.end();
    let events = heard.logs().filter(|log| log.stream == "process").count();
    assert!((20..80).contains(&events), "{events}");
    assert!(heard.logs().any(|log| log.labels.get("sampled").is_some_and(|one_of| one_of == "100")));
    let said = heard.logs().filter(|log| log.labels["event_type"] == "rate_limited");
    let left_out: usize = said.map(|log| log.labels["left_out"].parse::<usize>().unwrap()).sum();
    assert!(left_out >= 250, "{left_out}");
}

#[test]
fn without_the_kernels_word_a_process_that_stays_is_seen_in_proc() {
    let (context, mut heard) = context();
    let mut processes = Processes::new(context, Source::Poll, 10_000, None, Arc::default());
    poll::look(&mut processes.known);
    let mut child = Command::new("sleep").arg("78").spawn().unwrap();
    // Until it is no longer the copy of this one that it begins as.
    while !std::fs::read(format!("/proc/{}/cmdline", child.id())).is_ok_and(|line| line.starts_with(b"sleep\x0078")) {
        std::thread::sleep(Duration::from_millis(10));
    }
    processes.look(false);
    child.kill().unwrap();
    child.wait().unwrap();
    processes.look(false);
    processes.hand_in(true);
    heard.take();
    let pid = child.id().to_string();
    let of_child: Vec<_> = heard.logs().filter(|log| log.labels["pid"] == pid).collect();
    let types: Vec<&str> = of_child.iter().map(|log| &*log.labels["event_type"]).collect();
    assert_eq!(types, ["process_start", "process_end"]);
    assert_eq!(of_child[0].labels["cmdline"], "sleep 78");
    assert_eq!(heard.logs().filter(|log| log.labels["pid"] == std::process::id().to_string()).count(), 0);
}

#[test]
fn lost_words_of_the_kernel_are_said_and_who_is_there_is_looked_for() {
    let connector = match Connector::with_buffer(4_096) {
        Ok(connector) => connector,
        Err(why) => return eprintln!("SKIPPED: {why}"),
    };
    let (context, mut heard) = context();
    let mut processes = Processes::new(context, Source::Kernel(connector), 10_000, None, Arc::default());
    poll::look(&mut processes.known);
    for round in ["1", "2"] {
        // Nobody reads meanwhile.
        (0..50).for_each(|i| drop(Command::new("true").arg(i.to_string()).status()));
        let mut child = Command::new("sleep").arg("79").spawn().unwrap();
        // It says so behind what it has room for.
        for _ in 0..1_000 {
            processes.listen().unwrap();
            processes.hand_in(true);
            heard.take();
            if heard.logs().any(|log| log.labels.get("overruns").is_some_and(|overruns| overruns == round)) {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let pid = child.id().to_string();
        assert!(
            heard.logs().any(|log| log.labels.get("overruns").is_some_and(|overruns| overruns == round)),
            "{round}"
        );
        let late = heard.logs().filter(|log| log.labels.contains_key("late") && log.labels["pid"] == pid).count();
        assert_eq!(late, 1, "{round}");
    }
}
