//! What people see of a running agent: its status, the doctor, what it tells the server of itself.

use crate::encrypted::Authority;
use crate::server::Server;
use crate::{Agent, append, file_in, run};
use std::time::Duration;

fn now_ms() -> i64 {
    runtime::Clock::now(&runtime::SystemClock).millis()
}

fn command(args: &[&str]) -> (Option<i32>, String) {
    let output = run(args);
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.code(), text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_and_doctor_say_how_a_running_agent_is() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let server = Server::start_with(Some(authority.server()), Some(authority.ca(3_900_000_000))).await;
    server.memory().server_time_unix_ms = now_ms();
    let (_, file) = file_in(dir.path(), "app.log");
    let data = dir.path().join("data");
    let (data, token, ingest) = (data.to_str().unwrap(), authority.token(), server.address.to_string());
    let asked = ["-data-dir", data, "-token", &token, "-ingest", &ingest, "-host", "web"];
    let with = |command: &'static str| [&[command], &asked[..]].concat();

    let (code, text) = command(&with("status"));
    assert_eq!(code, Some(1));
    assert!(text.contains("no agent has run with the data folder"), "{text}");
    let (code, text) = command(&with("doctor"));
    assert_eq!(code, Some(1));
    assert!(text.contains("believed by the fingerprint in the token") && text.contains("WRONG service"), "{text}");

    let agent = Agent::start(&server, dir.path(), &["-token", &token, "-file", &file]);
    let mut said = (None, String::new());
    for _ in 0..600 {
        said = command(&with("status"));
        if said.1.contains("connected to 127.0.0.1") && !said.1.contains("not connected") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (code, text) = said;
    assert_eq!(code, Some(0), "{text}");
    for part in ["as acme/web to", "certificate of agt_1, good for", "waiting: ", "observing: heartbeat, file-tailing"]
    {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    let (code, text) = command(&with("doctor"));
    assert_eq!(code, Some(0), "{text}");
    for part in [
        "believed by an authority that came with",
        "ok    service: process",
        "ok    connection: connected",
        "ok    clock: ",
        "All is well.",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    assert!(!text.contains("secret"), "{text}");
    assert_eq!(agent.terminate().await, Some(0));
    let (code, text) = command(&with("status"));
    assert_eq!((code, text.starts_with("the agent does not run")), (Some(1), true), "{text}");
    let (code, text) = command(&with("doctor"));
    assert!(code == Some(1) && text.contains("WRONG service: the agent does not run"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_is_told_how_much_waits_and_for_how_long() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start().await;
    {
        let mut memory = server.memory();
        (memory.is_silent, memory.heartbeat_seconds) = (true, 1);
    }
    let (path, name) = file_in(dir.path(), "app.log");
    append(&path, "");
    let agent = Agent::start(&server, dir.path(), &["-file", &name]);
    crate::until_said(dir.path(), "following /", 1).await;
    append(&path, "1\n2\n3\n");
    let waits = |status: &wire::Status| status.spool_records >= 4 && status.lag_ms >= 1_000 && status.spool_bytes > 100;
    server.until("much that waits", |memory| memory.statuses.iter().any(waits)).await;
    agent.kill();
    {
        let mut memory = server.memory();
        memory.is_silent = false;
        memory.statuses.clear();
    }
    let agent = Agent::start(&server, dir.path(), &["-file", &name]);
    let is_through = |memory: &crate::server::Memory| {
        memory.statuses.last().is_some_and(|status| status.spool_records <= 1 && status.lag_ms < 1_000)
    };
    server.until("little that waits", is_through).await;
    let memory = server.memory();
    let last = memory.statuses.last().unwrap();
    assert!(last.rss_bytes > 1 << 20 && last.rss_bytes < 100 << 20, "{}", last.rss_bytes);
    assert!(last.dropped.is_empty());
    drop(agent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_has_as_many_threads_on_one_core_as_on_many() {
    let all = rustix::thread::sched_getaffinity(None).unwrap();
    let mut one = rustix::thread::CpuSet::new();
    one.set((0..rustix::thread::CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).unwrap());
    let mut counts = Vec::new();
    for cores in [one, all] {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start().await;
        let (_, file) = file_in(dir.path(), "app.log");
        let mut command = Agent::command(&server, dir.path());
        command.args(["-file", &file, "-collectors", agent::collectors::NAMES.join(",").as_str()]);
        // A process gets the cores of the thread that makes it.
        let made = std::thread::spawn(move || {
            rustix::thread::sched_setaffinity(None, &cores).unwrap();
            command.stderr(std::process::Stdio::null()).spawn().unwrap()
        });
        let agent = Agent::of(made.join().unwrap());
        server.until("a heartbeat", |memory| !memory.messages("heartbeat").is_empty()).await;
        // The first, what waits for files and disks, and collectors.
        let all = std::fs::read_dir(format!("/proc/{}/task", agent.pid())).unwrap().count();
        let bound = 1 + agent::BLOCKING_MAX + agent::collectors::NAMES.len();
        assert!(all <= bound, "{all} threads");
        counts.push(all);
    }
    // Those that wait come and go.
    assert!(counts[0].abs_diff(counts[1]) <= 2, "{counts:?}");
}
