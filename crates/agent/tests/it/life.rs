//! A quiet life: begin, observe, wait for a server, stop.

use crate::server::Server;
use crate::{Agent, append, file_in, log_of, run, until_said};
use std::path::Path;

#[test]
fn the_command_line_ends_as_the_original_did() {
    for (args, code, start) in [
        (&["-nope"][..], 2, "flag provided but not defined: -nope"),
        (&["-h"], 0, "Usage of sm-agent:"),
        (&["-org", "acme"], 1, "missing -token flag or SM_TOKEN env"),
        (
            &["-org", "acme", "-token", "t", "-data-dir", "/proc/none"],
            1,
            "sm-agent: cannot use the data folder `/proc/none`",
        ),
    ] {
        let output = run(args);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(start), "{args:?}: {stderr}");
    }
    assert!(run(&["-version"]).stdout.starts_with(b"sm-agent "));
}

/// Threads of a process, when it has begun to follow its file.
async fn threads_of(server: &Server, dir: &Path, preload: Option<&Path>) -> usize {
    std::fs::create_dir(dir).unwrap();
    let (path, name) = file_in(dir, "app.log");
    append(&path, "");
    let log = std::fs::File::create(dir.join("agent.err")).unwrap();
    let mut command = Agent::command(server, dir);
    command.args(["-file", &name]).stderr(log);
    command.envs(preload.map(|library| ("LD_PRELOAD", library)));
    let agent = Agent::of(command.spawn().unwrap());
    until_said(dir, "following /", 1).await;
    until_said(dir, "the session stands", 1).await;
    std::fs::read_dir(format!("/proc/{}/task", agent.pid())).unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_of_32_cores_gets_no_more_threads() {
    let dir = tempfile::tempdir().unwrap();
    let library = testkit::host_agent::pretend_cores(dir.path(), 32);
    let server = Server::start().await;
    let here = threads_of(&server, &dir.path().join("here"), None).await;
    let large = threads_of(&server, &dir.path().join("large"), Some(&library)).await;
    // A few come and go by what is to be done at the moment.
    assert!(large < here + 4, "{here} threads, {large} on a large host");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_says_that_it_is_alive_follows_files_and_stops_with_0() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start().await;
    let (path, name) = file_in(dir.path(), "app.log");
    append(&path, "before anybody looked\n");
    let pattern = format!("{name},{}", dir.path().join("*.err").display());
    let agent = Agent::start(&server, dir.path(), &["-file", &pattern, "-log-level", "debug"]);
    server.until("a heartbeat", |memory| memory.messages("heartbeat") == ["agent alive"]).await;
    until_said(dir.path(), "following /", 1).await;
    append(&path, "one\n");
    server.until("a line", |memory| memory.messages("file") == ["one"]).await;
    append(&dir.path().join("app.log"), "two\n\x01 three\n");
    server.until("lines", |memory| memory.messages("file").len() == 3).await;
    {
        let memory = server.memory();
        assert_eq!(memory.messages("file"), ["one", "two", "\u{1} three"], "and nothing of its own log");
        let login = &memory.logins[0];
        assert_eq!((&*login.org_id, &*login.hostname, &*login.os_type), ("acme", "web", "linux"));
        assert_eq!(login.capabilities, ["heartbeat", "file-tailing"]);
        let hello = &memory.hellos[0];
        assert_eq!((&*hello.agent_id, &*hello.hostname, hello.spool_epoch != 0), ("", "web", true));
        let (sent_ms, record) = &memory.records[&memory.order[1]];
        assert!((sent_ms - 1_800_000_000_000).abs() < 60_000, "by the server's clock");
        let Some(wire::record::Body::Log(log)) = &record.body else { panic!() };
        let whose = (&*log.org_id, &*log.host_id);
        assert_eq!((whose, &*log.labels["file"]), (("", ""), &*name), "the connection says whose it is");
        assert_eq!(log.seq, memory.order[1].1);
    }
    assert_eq!(agent.terminate().await, Some(0));
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(dir.path().join("data")).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o700);
    let log = log_of(dir.path());
    assert!(log.contains("authenticated as acme/web") && log.contains("⇢ streaming logs as acme/web"), "{log}");
    assert!(!log.contains("sm_acme_1_secret"), "the token is in the log: {log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_server_or_with_a_refused_token_it_goes_on_keeping() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start().await;
    server.memory().refuses_tokens = true;
    let (path, name) = file_in(dir.path(), "app.log");
    append(&path, "");
    let mut agent = Agent::start(&server, dir.path(), &["-file", &name]);
    server.until("a login", |memory| !memory.logins.is_empty()).await;
    until_said(dir.path(), "following /", 1).await;
    append(&path, "1\n2\n");
    until_said(dir.path(), "not connected; trying again", 1).await;
    // The heartbeat and both lines are kept.
    for _ in 0..1_500 {
        if agent::report::Report::read(&dir.path().join("data")).is_ok_and(|report| report.waiting.records >= 3) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(agent.is_alive());
    assert!(server.memory().records.is_empty());
    agent.kill();
    assert!(log_of(dir.path()).contains("authentication rejected: Invalid org_id or token"));
    server.stop().await;
    let mut agent = Agent::start(&server, dir.path(), &["-file", &name]);
    until_said(dir.path(), "no connection to", 2).await;
    append(&path, "3\n");
    assert!(agent.is_alive());
    server.memory().refuses_tokens = false;
    server.again().await;
    server.until("all lines", |memory| memory.messages("file") == ["1", "2", "3"]).await;
    assert_eq!(server.memory().messages("heartbeat").len(), 2, "one of each run");
    assert_eq!(agent.terminate().await, Some(0));
}
