//! An rsyslogd of the test's own.

use super::Daemon;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// A running rsyslogd that takes messages by TCP.
#[derive(Debug)]
pub struct Rsyslog {
    daemon: Daemon,
    dir: TempDir,
    port: u16,
}

impl Rsyslog {
    /// Runs with `config` behind an input of its own. Control characters are left in messages.
    ///
    /// What it says about itself is thrown away inside instead of handed to the system's log: that
    /// opens a socket in another thread, and rsyslogd 8.2302 ends a TLS session on the number of a
    /// socket that it has closed already. Where the two meet it reads the other socket for ever.
    pub fn start(config: &str, env: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let port = crate::free_port();
        let path = dir.path().display();
        let text = format!(
            "global(workDirectory=\"{path}\" parser.escapeControlCharactersOnReceive=\"off\" \
             processInternalMessages=\"on\")\n\
             if $inputname == \"rsyslogd\" then stop\n\
             module(load=\"imtcp\")\n\
             input(type=\"imtcp\" port=\"{port}\" address=\"127.0.0.1\")\n\
             {config}\n"
        );
        let file = dir.path().join("rsyslog.conf");
        std::fs::write(&file, text).expect("a file in a temporary folder");
        let mut command = Command::new("rsyslogd");
        command.arg("-n").arg("-f").arg(&file).arg("-i").arg(dir.path().join("pid"));
        command.envs(env.iter().copied());
        let ready = || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
        let daemon = Daemon::start(command, &dir.path().join("rsyslog.log"), ready);
        Self { daemon, dir, port }
    }

    /// Sends messages as they are, in frames that count their octets (RFC 6587 §3.4.1).
    pub fn send<M: AsRef<[u8]>>(&self, messages: &[M]) {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).expect("rsyslogd listens");
        for message in messages {
            let message = message.as_ref();
            let frame = [format!("{} ", message.len()).as_bytes(), message].concat();
            stream.write_all(&frame).expect("rsyslogd reads");
        }
    }

    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    /// Its work directory: queues on disk.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}
