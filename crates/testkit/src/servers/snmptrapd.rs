//! An snmptrapd of the test's own, and `snmptrap` to speak to it.

use super::Daemon;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// A running snmptrapd.
#[derive(Debug)]
pub struct Snmptrapd {
    daemon: Daemon,
    dir: TempDir,
    port: u16,
}

impl Snmptrapd {
    /// Runs with this `snmptrapd.conf` alone; its handlers get `env`.
    pub fn start(config: &str, env: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = socket.local_addr().expect("a bound socket has an address").port();
        drop(socket);
        let file = dir.path().join("snmptrapd.conf");
        std::fs::write(&file, config).expect("a file in a temporary folder");
        let mut command = Command::new("snmptrapd");
        command.args(["-f", "-Lo", "-C", "-c"]).arg(&file).arg("-x").arg(dir.path().join("agentx"));
        command.arg(format!("127.0.0.1:{port}"));
        private(&mut command, dir.path());
        command.envs(env.iter().copied());
        let log = dir.path().join("snmptrapd.log");
        // It says its version once it listens.
        let ready = || std::fs::read_to_string(&log).is_ok_and(|text| text.contains("NET-SNMP version"));
        let daemon = Daemon::start(command, &log, ready);
        Self { daemon, dir, port }
    }

    /// `snmptrap ARGS… 127.0.0.1:PORT THEN…`
    pub fn trap(&self, args: &[&str], then: &[&str]) {
        let mut command = Command::new("snmptrap");
        command.args(args).arg(format!("127.0.0.1:{}", self.port)).args(then);
        let folder = self.dir.path().join("sender");
        std::fs::create_dir_all(&folder).expect("a folder in a temporary folder");
        private(&mut command, &folder);
        let output = command.output().expect("snmptrap; `make test` installs it");
        assert!(output.status.success(), "snmptrap {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }
}

/// Neither the machine's settings nor its MIBs, and nothing left behind on it.
fn private(command: &mut Command, folder: &Path) {
    command.env("MIBS", "").env("HOME", folder).env("SNMPCONFPATH", folder).env("SNMP_PERSISTENT_DIR", folder);
}
