//! A Redis that fails over: a master, a replica and three Sentinels of the test's own.

use super::{Daemon, RedisOptions, RedisServer};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The name that the Sentinels know the group by.
pub const SENTINEL_MASTER: &str = "mymaster";

/// Two servers and who watches them.
#[derive(Debug)]
pub struct RedisGroup {
    /// The first is the master at the start.
    pub servers: [RedisServer; 2],
    sentinels: Vec<(Daemon, u16)>,
    _dir: TempDir,
}

impl RedisGroup {
    /// With one password for all of them. The Sentinels agree after three seconds that a server is gone.
    /// They look at it and connect to it once a second: with less patience a new master, whom they have
    /// yet to reach, would soon seem to be gone too, and the old one take its place again.
    pub fn start(password: &str) -> Self {
        let both = ["--appendfsync", "always", "--masterauth", password, "--repl-diskless-sync-delay", "0"];
        let options = |more: &[&str]| RedisOptions {
            password: Some(password.to_owned()),
            args: both.iter().chain(more).map(|arg| (*arg).to_owned()).collect(),
            ..RedisOptions::default()
        };
        let master = RedisServer::with(options(&[]));
        let replica = RedisServer::with(options(&["--replicaof", &format!("127.0.0.1 {}", master.port())]));
        let dir = tempfile::tempdir().expect("a temporary folder");
        let sentinels = (0..3).map(|n| watch(&dir, n, master.port(), password)).collect();
        let group = Self { servers: [master, replica], sentinels, _dir: dir };
        let deadline = Instant::now() + Duration::from_secs(30);
        while !group.is_settled(password) {
            assert!(Instant::now() < deadline, "the Sentinels do not find each other");
            std::thread::sleep(Duration::from_millis(50));
        }
        group
    }

    fn is_settled(&self, password: &str) -> bool {
        self.servers[1].cli(&["INFO", "replication"]).contains("master_link_status:up")
            && self.sentinels.iter().all(|(_, port)| {
                let seen = sentinel_cli(*port, password, &["SENTINEL", "MASTER", SENTINEL_MASTER]);
                field(&seen, "num-slaves") == Some("1") && field(&seen, "num-other-sentinels") == Some("2")
            })
    }

    /// Ports of the Sentinels.
    pub fn ports(&self) -> Vec<u16> {
        self.sentinels.iter().map(|(_, port)| *port).collect()
    }

    /// What the Sentinels and the first server have logged, for a test that fails.
    pub fn said(&self) -> String {
        let sentinels = self.sentinels.iter().map(|(sentinel, port)| format!("{port}:\n{}", sentinel.output()));
        sentinels.chain([self.servers[0].daemon().output()]).collect::<Vec<_>>().join("\n")
    }

    /// Ends one Sentinel.
    pub fn kill_sentinel(&mut self, n: usize) {
        self.sentinels[n].0.kill();
    }
}

fn watch(dir: &TempDir, n: usize, master: u16, password: &str) -> (Daemon, u16) {
    let port = crate::free_port();
    let file = dir.path().join(format!("sentinel-{n}.conf"));
    // It writes what it learns into this file.
    let text = format!(
        "port {port}\nbind 127.0.0.1\nrequirepass {password}\nsentinel sentinel-pass {password}\n\
         sentinel monitor {SENTINEL_MASTER} 127.0.0.1 {master} 2\nsentinel auth-pass {SENTINEL_MASTER} {password}\n\
         sentinel down-after-milliseconds {SENTINEL_MASTER} 3000\nsentinel failover-timeout {SENTINEL_MASTER} 3000\n"
    );
    std::fs::write(&file, text).expect("a file in a temporary folder");
    let mut command = Command::new(super::redis::program());
    command.current_dir(dir.path()).arg(&file).arg("--sentinel");
    let log = dir.path().join(format!("sentinel-{n}.log"));
    let daemon = Daemon::start(command, &log, || sentinel_cli(port, password, &["PING"]) == "PONG");
    (daemon, port)
}

fn sentinel_cli(port: u16, password: &str, args: &[&str]) -> String {
    let mut command = Command::new("redis-cli");
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "--no-auth-warning", "-a", password]).args(args);
    let output = command.output().expect("redis-cli; `make test` installs it");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The line after the one that names the field.
fn field<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    answer.lines().skip_while(|line| *line != name).nth(1)
}
