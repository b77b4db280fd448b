//! The real `sm-agent` beside a server of the test's process.

use server::app::Addresses;
use std::path::Path;
use std::process::Command;
pub use testkit::host_agent::{HostAgent as Agent, log_of};

/// Follows `dir/app.log`, as `host`.
pub fn start(addresses: &Addresses, dir: &Path, host: &str, token: &str) -> Agent {
    start_towards(&addresses.agents.unwrap().to_string(), dir, host, token)
}

pub fn start_towards(ingest: &str, dir: &Path, host: &str, token: &str) -> Agent {
    let binary = Agent::binary(Path::new(env!("CARGO_BIN_EXE_muttd")));
    Agent::start(Command::new(binary), dir, ingest, host, token, &["-collectors", "heartbeat,files"])
}

/// As a service manager does it, while the server goes on; the exit code.
pub async fn terminated(agent: Agent) -> Option<i32> {
    tokio::task::spawn_blocking(|| agent.terminate()).await.unwrap()
}

/// Writes lines to the file that an agent of `dir` follows.
pub fn append(dir: &Path, lines: impl IntoIterator<Item = String>) {
    let text: String = lines.into_iter().map(|line| line + "\n").collect();
    testkit::host_agent::append(dir, &text);
}

/// Waits until the agent of `dir` said so.
pub async fn until_said(dir: &Path, what: &str) {
    let said = testkit::wait_until(std::time::Duration::from_secs(60), || log_of(dir).contains(what)).await;
    assert!(said, "it never said {what:?}: {}", log_of(dir));
}
