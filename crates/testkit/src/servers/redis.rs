//! A Redis of the test's own.

use super::{Daemon, TestCerts};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// How to start it.
#[derive(Debug, Clone, Default)]
pub struct RedisOptions {
    /// `requirepass`, the password of the default user.
    pub password: Option<String>,
    /// TLS only, with a CA of the test's own; see [`RedisServer::certs`].
    pub tls: bool,
    /// More arguments, such as `--appendfsync always`.
    pub args: Vec<String>,
}

/// A running Redis with an append-only file; `kill -9` and [`Self::start_again`] keep what was
/// written.
#[derive(Debug)]
pub struct RedisServer {
    daemon: Option<Daemon>,
    dir: TempDir,
    port: u16,
    options: RedisOptions,
    certs: Option<TestCerts>,
}

impl RedisServer {
    /// Without password and TLS.
    pub fn start() -> Self {
        Self::with(RedisOptions::default())
    }

    pub fn with(options: RedisOptions) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let certs = options.tls.then(|| TestCerts::write(dir.path()));
        let mut server = Self { daemon: None, dir, port: crate::free_port(), options, certs };
        server.start_again();
        server
    }

    /// Starts it after [`Self::kill`] or [`Self::stop`], on the same port with the same data.
    pub fn start_again(&mut self) {
        let mut command = Command::new(program());
        let port = self.port.to_string();
        command.current_dir(self.dir.path()).args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]);
        match &self.certs {
            Some(certs) => {
                command.args(["--port", "0", "--tls-port", &port, "--tls-auth-clients", "no"]);
                for (option, path) in [
                    ("--tls-cert-file", &certs.cert),
                    ("--tls-key-file", &certs.key),
                    ("--tls-ca-cert-file", &certs.ca),
                ] {
                    command.arg(option).arg(path);
                }
            }
            None => {
                command.args(["--port", &port]);
            }
        }
        if let Some(password) = &self.options.password {
            command.args(["--requirepass", password]);
        }
        command.args(&self.options.args);
        let log = self.dir.path().join("redis.log");
        self.daemon = Some(Daemon::start(command, &log, || self.try_cli(&["PING"]).is_some_and(|a| a == "PONG")));
    }

    pub fn kill(&mut self) {
        self.daemon = None;
    }

    /// SIGTERM: as a restart by an operator.
    pub fn stop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.terminate();
        }
    }

    pub fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("the server runs")
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn certs(&self) -> Option<&TestCerts> {
        self.certs.as_ref()
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The password that [`Self::cli`] and the next start use, after somebody changed it.
    pub fn set_password(&mut self, password: &str) {
        self.options.password = Some(password.to_owned());
    }

    /// The answer of `redis-cli ARGS`, trimmed; panics when it fails.
    pub fn cli(&self, args: &[&str]) -> String {
        self.try_cli(args).unwrap_or_else(|| panic!("redis-cli {args:?} failed"))
    }

    /// Whether it follows a master. One that Sentinel makes to ends every connection, that of the question too.
    pub fn is_replica(&self) -> bool {
        self.try_cli(&["ROLE"]).is_some_and(|role| role.starts_with("slave"))
    }

    /// `redis-cli MONITOR`: every command that runs from now on, those of scripts too, a line each in
    /// [`Daemon::output`].
    pub fn monitor(&self) -> Daemon {
        let mut command = self.client();
        command.arg("MONITOR");
        let log = self.dir.path().join("monitor.log");
        Daemon::start(command, &log, || std::fs::read(&log).is_ok_and(|text| text.starts_with(b"OK")))
    }

    fn try_cli(&self, args: &[&str]) -> Option<String> {
        let output = self.client().args(args).output().expect("redis-cli; `make test` installs it");
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        (output.status.success() && !text.starts_with("ERR") && !text.contains("refused")).then_some(text)
    }

    fn client(&self) -> Command {
        let mut command = Command::new("redis-cli");
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        if let Some(certs) = &self.certs {
            command.arg("--tls").arg("--cacert").arg(&certs.ca);
        }
        if let Some(password) = &self.options.password {
            command.args(["--no-auth-warning", "-a", password]);
        }
        command
    }
}

/// `redis-server`, or the one that `MUTT_TEST_REDIS` names: another version.
#[expect(clippy::disallowed_methods, reason = "which server a test run is for")]
pub(super) fn program() -> PathBuf {
    std::env::var_os("MUTT_TEST_REDIS").map_or_else(|| "redis-server".into(), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_what_was_written_when_it_is_killed() {
        let options = RedisOptions {
            password: Some("pw".into()),
            tls: true,
            args: vec!["--appendfsync".into(), "always".into()],
        };
        let mut redis = RedisServer::with(options);
        redis.cli(&["SET", "a", "1"]);
        redis.kill();
        redis.start_again();
        assert_eq!(redis.cli(&["GET", "a"]), "1");
    }
}
