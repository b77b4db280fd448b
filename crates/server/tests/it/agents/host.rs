//! The real `sm-agent`, on a data folder of its own.

use server::app::Addresses;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

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

/// Built together with `muttd`, and beside it.
pub fn binary() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_muttd")).with_file_name("sm-agent");
    assert!(path.is_file(), "`{}` is not there: cargo build -p agent", path.display());
    path
}

impl Agent {
    /// Follows `dir/app.log`, as `host`.
    pub fn start(addresses: &Addresses, dir: &Path, host: &str, token: &str) -> Self {
        let ingest = addresses.agents.unwrap().to_string();
        Self::start_towards(&ingest, dir, host, token)
    }

    pub fn start_towards(ingest: &str, dir: &Path, host: &str, token: &str) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("agent.err")).unwrap();
        let file = dir.join("app.log");
        let child = Command::new(binary())
            .env_clear()
            .env("SM_TOKEN", token)
            .env("SM_CONFIG", "/dev/null")
            .args(["-ingest", ingest, "-host", host, "-collectors", "heartbeat,files"])
            .arg("-data-dir")
            .arg(dir.join("data"))
            .arg("-file")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child }
    }

    /// As a service manager does it; the exit code.
    pub async fn terminate(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let waited = tokio::task::spawn_blocking(move || self.child.wait().unwrap().code());
        waited.await.unwrap()
    }

    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

/// Writes lines to the file that an agent of `dir` follows.
pub fn append(dir: &Path, lines: impl IntoIterator<Item = String>) {
    use std::io::Write;
    let text: String = lines.into_iter().map(|line| line + "\n").collect();
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(dir.join("app.log")).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// What an agent of `dir` said.
pub fn log_of(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("agent.err")).unwrap_or_default()
}

/// Waits until it said so.
pub async fn until_said(dir: &Path, what: &str) {
    for _ in 0..3_000 {
        if log_of(dir).contains(what) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("it never said {what:?}: {}", log_of(dir));
}
