//! The agent's binary against a control plane in this process.

#![expect(clippy::unwrap_used, reason = "tests: a failure is a panic")]

mod cost;
mod crashes;
mod encrypted;
mod life;
mod people;
mod server;

use server::Server;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

pub const AGENT: &str = env!("CARGO_BIN_EXE_sm-agent");

/// A running agent; ended with the test.
pub struct Agent {
    child: Child,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Agent {
    pub fn command(server: &Server, dir: &Path) -> Command {
        Self::command_of(AGENT, server, dir)
    }

    pub fn command_of(binary: &str, server: &Server, dir: &Path) -> Command {
        let mut command = Command::new(binary);
        command
            .env_clear()
            .env("SM_TOKEN", "sm_acme_1_secret")
            .env("SM_HOST_ID", "web")
            .env("SM_CONFIG", "/dev/null")
            .args(["-ingest", &server.address.to_string(), "-collectors", "heartbeat,files"])
            .arg("-data-dir")
            .arg(dir.join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    pub fn start(server: &Server, dir: &Path, args: &[&str]) -> Self {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("agent.err")).unwrap();
        let child = Self::command(server, dir).args(args).stderr(log).spawn().unwrap();
        Self { child }
    }

    pub fn of(child: Child) -> Self {
        Self { child }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// As the kernel does it: without a word.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// As a service manager does it.
    pub async fn terminate(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = tokio::task::spawn_blocking(move || {
            let status = self.child.wait().unwrap();
            drop(self);
            status
        });
        status.await.unwrap().code()
    }

    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

pub fn run(args: &[&str]) -> Output {
    Command::new(AGENT).env_clear().env("SM_CONFIG", "/dev/null").args(args).stdin(Stdio::null()).output().unwrap()
}

pub fn append(path: &Path, text: &str) {
    use std::io::Write;
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

pub fn log_of(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("agent.err")).unwrap_or_default()
}

/// Waits until the agent has said so, this many times in all its runs.
pub async fn until_said(dir: &Path, what: &str, times: usize) {
    for _ in 0..1_200 {
        if log_of(dir).matches(what).count() >= times {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("it never said {what:?}: {}", log_of(dir));
}

pub fn file_in(dir: &Path, name: &str) -> (PathBuf, String) {
    let path = dir.join(name);
    let text = path.to_str().unwrap().to_owned();
    (path, text)
}
