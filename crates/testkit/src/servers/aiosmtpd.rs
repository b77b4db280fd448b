//! aiosmtpd, a mail server in Python: SMTP and a parser of mail that others wrote.

use super::{Daemon, TestCerts};
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// Where Debian's `python3-aiosmtpd` is found, whatever other Python there is.
const PYTHON: &str = "/usr/bin/python3";

/// A running server that demands STARTTLS and a login. It knows one password, for every user.
#[derive(Debug)]
pub struct Aiosmtpd {
    _daemon: Daemon,
    dir: TempDir,
    pub port: u16,
    pub certs: TestCerts,
}

impl Aiosmtpd {
    pub fn start(password: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| dir.path().join(name);
        let certs = TestCerts::write(dir.path());
        std::fs::write(path("server.py"), include_str!("aiosmtpd.py")).expect("a file in a temporary folder");
        let port = crate::free_port();
        let mut command = Command::new(PYTHON);
        command.arg("-I").arg(path("server.py")).arg(port.to_string()).args([&certs.cert, &certs.key]);
        command.arg(password).arg(path("answers"));
        let log = path("log");
        let daemon =
            Daemon::start(command, &log, || std::fs::read_to_string(&log).is_ok_and(|text| text.contains("listening")));
        Self { _daemon: daemon, dir, port, certs }
    }

    /// What it took: envelope, headers and parts as Python's `email` reads them.
    pub fn taken(&self) -> Vec<serde_json::Value> {
        let file: PathBuf = self.dir.path().join("answers");
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("a JSON object")).collect()
    }
}
