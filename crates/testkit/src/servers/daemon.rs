//! A process that is killed with the test.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running program. Its output goes to a file; it is killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

const START_MAX: Duration = Duration::from_secs(30);

impl Daemon {
    /// Starts `command` and waits until `ready` says so. Panics with the program's output when it
    /// ends first or takes too long.
    pub fn start(mut command: Command, log: &Path, ready: impl FnMut() -> bool) -> Self {
        let out = File::options().create(true).append(true).open(log).expect("a log file can be made");
        let err = out.try_clone().expect("a file can be cloned");
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap_or_else(|e| panic!("`{name}` cannot be started ({e}); `make test` installs it"));
        let mut daemon = Self { child, log: log.to_owned() };
        daemon.wait_ready(&name, ready);
        daemon
    }

    fn wait_ready(&mut self, name: &str, mut ready: impl FnMut() -> bool) {
        let deadline = Instant::now() + START_MAX;
        while !ready() {
            let ended = self.child.try_wait().expect("a child can be asked");
            assert!(ended.is_none(), "`{name}` ended at once ({ended:?}): {}", self.output());
            assert!(Instant::now() < deadline, "`{name}` is not ready after {START_MAX:?}: {}", self.output());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What it has printed.
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name, as `kill` takes it: `TERM`, `STOP`, `CONT` …
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status();
        assert!(sent.is_ok_and(|s| s.success()), "kill -{name} {}", self.pid());
    }

    /// `kill -9`, and waits for its end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and waits for its end; `kill -9` after ten seconds.
    pub fn terminate(&mut self) {
        self.signal("TERM");
        self.wait();
    }

    /// Waits for its end after a signal; `kill -9` after ten seconds.
    pub fn wait(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if self.child.try_wait().expect("a child can be asked").is_some() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.kill();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}
