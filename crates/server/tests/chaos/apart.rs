//! A host in a network of its own: the link breaks, the disk of its agent is full, and nothing is lost; and what goes
//! over the wire is for nobody else.

use crate::hosts::{Host, WORDS, Writer, binary, check, configure_gateway, token};
use crate::process::{Server, start};
use crate::wire::{Wire, has};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

/// How long the longest break lasts. Ten minutes: `make outage`.
fn longest() -> Duration {
    #[expect(clippy::disallowed_methods, reason = "a knob of the test, not of the product")]
    let text = std::env::var("AGENT_APART_SECONDS");
    Duration::from_secs(text.ok().and_then(|t| t.parse().ok()).unwrap_or(8))
}

/// A server at the end of the wire, and its token for hosts.
async fn serving(wire: &Wire) -> (TempDir, Server, std::net::SocketAddr, String) {
    let dir = tempfile::tempdir().unwrap();
    let agents = wire.free_address();
    configure_gateway(dir.path(), agents);
    let server = start(dir.path(), "http://127.0.0.1:9/").await;
    let token = token(&server).await;
    (dir, server, agents, token)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_breaks_loses_nothing_and_shows_nothing() {
    let wire = match Wire::lay(1) {
        Ok(wire) => wire,
        Err(error) => return println!("NOT RUN: {error}"),
    };
    let (dir, server, agents, token) = serving(&wire).await;
    let ear = wire.listen();
    let mut host = Host::new(dir.path(), 7_531);
    host.start_by(wire.within(&[], &binary()), agents, &token);
    host.until_following();
    let writer = Writer::start(&host, 1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    for away in [Duration::from_millis(300), Duration::from_secs(3), longest()] {
        wire.down();
        tokio::time::sleep(away).await;
        wire.up();
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let total = writer.end();
    check(&server, std::slice::from_ref(&host), &[total]).await;
    let heard = ear.end();
    assert!(heard.len() > total * WORDS.len(), "{} bytes for {total} lines", heard.len());
    for secret in [WORDS, &host.name, &token, "heartbeat"] {
        assert!(!has(&heard, secret.as_bytes()), "{secret:?} can be read on the wire");
    }
    println!("link: {total} lines, apart for up to {:?}, {} bytes on the wire", longest(), heard.len());
}

/// Writes until no more than this is left.
fn fill(path: &std::path::Path, leave: usize) -> std::fs::File {
    let mut file = std::fs::File::create(path).unwrap();
    for block in [vec![0u8; 64 << 10], vec![0u8; 512], vec![0u8; 1]] {
        while file.write_all(&block).is_ok() {}
    }
    let len = file.metadata().unwrap().len();
    file.set_len(len - leave as u64).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_disk_is_full_waits_and_loses_nothing() {
    let wire = match Wire::lay(2) {
        Ok(wire) => wire,
        Err(error) => return println!("NOT RUN: {error}"),
    };
    let (dir, server, agents, token) = serving(&wire).await;
    let mut host = Host::new(dir.path(), 0);
    let data = host.dir.join("data");
    std::fs::create_dir(&data).unwrap();
    let mount = format!("mount -t tmpfs -o size=12m tmpfs '{}' && exec \"$0\" \"$@\"", data.display());
    host.start_by(wire.within(&["unshare", "--mount", "sh", "-c", &mount], &binary()), agents, &token);
    host.until_following();
    let mut inside = PathBuf::from(format!("/proc/{}/root", host.agent().pid()));
    inside.extend(data.iter().skip(1));
    assert!(inside.join("spool").is_dir(), "the agent's own disk");
    let writer = Writer::start(&host, 2);
    tokio::time::sleep(Duration::from_secs(2)).await;

    // Nobody takes anything, and there is room for a little more: it fills up.
    wire.down();
    let filler = fill(&inside.join("filler"), 300 << 10);
    host.agent().until_said("the spool cannot be written");
    tokio::time::sleep(Duration::from_secs(3)).await;
    // The server is back, the room is not.
    wire.up();
    tokio::time::sleep(Duration::from_secs(3)).await;
    drop(filler);
    std::fs::remove_file(inside.join("filler")).unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let total = writer.end();
    check(&server, std::slice::from_ref(&host), &[total]).await;
    println!("full disk of an agent: {total} lines");
}
