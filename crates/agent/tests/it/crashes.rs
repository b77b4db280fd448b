//! Ended at any moment, agent and server: each line arrives, and is one event.

use crate::server::Server;
use crate::{Agent, append, file_in, log_of, until_said};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Rounds; more with `SM_CRASH_ROUNDS`.
fn rounds() -> u64 {
    runtime::config::environment().get("SM_CRASH_ROUNDS").and_then(|n| n.parse().ok()).unwrap_or(20)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_it_loses_nothing_and_repeats_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start().await;
    let (path, name) = file_in(dir.path(), "app.log");
    append(&path, "");
    // The first run remembers that the file is followed.
    let agent = Agent::start(&server, dir.path(), &["-file", &name]);
    until_said(dir.path(), "following /", 1).await;
    append(&path, "line 0\n");
    server.until("the first line", |memory| !memory.messages("file").is_empty()).await;
    agent.kill();

    let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(1)));
    let writer = std::thread::spawn({
        let (stop, written, path) = (stop.clone(), written.clone(), path.clone());
        move || {
            let mut random = fastrand::Rng::with_seed(7);
            let mut rotated = 0;
            while !stop.load(Ordering::Relaxed) {
                let from = written.load(Ordering::Relaxed);
                let lines: String = (from..from + random.u64(1..20)).map(|n| format!("line {n}\n")).collect();
                let (first, second) = lines.split_at(random.usize(0..lines.len()));
                append(&path, first);
                append(&path, second);
                written.fetch_add(lines.lines().count() as u64, Ordering::Relaxed);
                match random.u8(0..60) {
                    0 => {
                        for n in (1..=rotated).rev() {
                            let name = |n| path.with_file_name(format!("app.log.{n}"));
                            std::fs::rename(name(n), name(n + 1)).unwrap();
                        }
                        rotated += 1;
                        std::fs::rename(&path, path.with_file_name("app.log.1")).unwrap();
                        append(&path, "");
                    }
                    1..=40 => std::thread::sleep(Duration::from_millis(random.u64(0..10))),
                    _ => {}
                }
            }
        }
    });
    let mut random = fastrand::Rng::with_seed(11);
    for round in 0..rounds() {
        server.memory().forgets_acks = random.bool();
        let begun = log_of(dir.path()).matches("streaming logs as").count();
        let said = log_of(dir.path()).len();
        let agent = Agent::start(&server, dir.path(), &["-file", &name]);
        tokio::time::sleep(Duration::from_millis(random.u64(20..700))).await;
        if random.u8(0..4) == 0 {
            server.again().await;
            tokio::time::sleep(Duration::from_millis(random.u64(0..900))).await;
        }
        if round % 5 == 4 {
            // Before it listens to signals, one ends it as it ends any process.
            while !log_of(dir.path()).get(said..).is_some_and(|log| log.contains("streaming logs")) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            // Before it listens to signals, one ends it as they end any process.
            until_said(dir.path(), "streaming logs as", begun + 1).await;
            assert_eq!(agent.terminate().await, Some(0));
        } else {
            agent.kill();
        }
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    let total = written.load(Ordering::Relaxed) as usize;
    let agent = Agent::start(&server, dir.path(), &["-file", &name]);
    server.until("all lines", |memory| memory.order.len() >= total && memory.messages("file").len() >= total).await;
    agent.kill();
    let memory = server.memory();
    let got = memory.messages("file");
    let expected: Vec<String> = (0..total).map(|n| format!("line {n}")).collect();
    let missing: Vec<&String> = expected.iter().filter(|line| !got.contains(line)).take(5).collect();
    assert_eq!(missing, Vec::<&String>::new(), "of {total}; {}", log_of(dir.path()));
    assert_eq!(got, expected, "each once, in order");
    assert_eq!(memory.conflicts, Vec::<String>::new(), "what comes again is the same event");
    assert_eq!(memory.messages("security"), Vec::<String>::new(), "no gap");
    let epochs: BTreeSet<u64> = memory.order.iter().map(|(epoch, _)| *epoch).collect();
    assert_eq!(epochs.len(), 1, "one spool through all of it");
    println!("{total} lines, {} repeated on the wire", memory.repeated);
}
