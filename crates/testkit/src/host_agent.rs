//! The real `sm-agent`, on a folder of its own: `dir/data` is its data folder, it follows `dir/app.log`, and what it
//! says goes to `dir/agent.err`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running agent; killed when dropped.
#[derive(Debug)]
pub struct HostAgent {
    child: Child,
    dir: PathBuf,
}

impl Drop for HostAgent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl HostAgent {
    /// The binary that is built beside `muttd`.
    pub fn binary(muttd: &Path) -> PathBuf {
        let path = muttd.with_file_name("sm-agent");
        assert!(path.is_file(), "`{}` is not there: cargo build -p agent", path.display());
        path
    }

    /// Starts it by a command that ends up executing `sm-agent` with the arguments appended here and `more`.
    pub fn start(mut command: Command, dir: &Path, ingest: &str, host: &str, token: &str, more: &[&str]) -> Self {
        std::fs::create_dir_all(dir).expect("a folder for an agent");
        append(dir, "");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("agent.err"));
        let child = command
            .args(["-ingest", ingest, "-host", host])
            .arg("-data-dir")
            .arg(dir.join("data"))
            .arg("-file")
            .arg(dir.join("app.log"))
            .args(more)
            .env_clear()
            .env("SM_TOKEN", token)
            .env("SM_CONFIG", "/dev/null")
            // For those who find `sm-agent` behind other commands.
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("a log"))
            .spawn()
            .expect("sm-agent starts");
        Self { child, dir: dir.to_owned() }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|ended| ended.is_none())
    }

    /// As a service manager ends it; the exit code.
    pub fn terminate(mut self) -> Option<i32> {
        let told = Command::new("kill").args(["-TERM", &self.pid().to_string()]).status();
        assert!(told.is_ok_and(|status| status.success()), "it is told to end");
        self.child.wait().expect("it ends").code()
    }

    /// Waits until it said so.
    pub fn until_said(&self, what: &str) {
        let end = Instant::now() + Duration::from_secs(60);
        while !log_of(&self.dir).contains(what) {
            assert!(Instant::now() < end, "the agent never said {what:?}: {}", log_of(&self.dir));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A library for `LD_PRELOAD` that lets a process see so many cores, as tokio and others ask for them. Needs `cc`.
pub fn pretend_cores(dir: &Path, cores: u32) -> PathBuf {
    let (source, library) = (dir.join("cores.c"), dir.join("cores.so"));
    let text = format!(
        "#define _GNU_SOURCE\n#include <sched.h>\n#include <string.h>\n\
         int sched_getaffinity(pid_t pid, size_t size, cpu_set_t *set) {{\n\
         memset(set, 0, size);\n\
         for (int n = 0; n < {cores}; n++) CPU_SET_S(n, size, set);\n\
         return 0;\n}}\n"
    );
    std::fs::write(&source, text).expect("a file in a temporary folder");
    let made = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status();
    assert!(made.is_ok_and(|status| status.success()), "cc makes a library");
    // What asks as the others do sees them, or nothing is shown by this.
    let seen = Command::new("nproc").env("LD_PRELOAD", &library).output().expect("nproc runs");
    assert_eq!(String::from_utf8_lossy(&seen.stdout).trim(), cores.to_string(), "the cores are seen");
    library
}

/// What an agent of `dir` said.
pub fn log_of(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("agent.err")).unwrap_or_default()
}

/// Appends to the file that an agent of `dir` follows.
pub fn append(dir: &Path, text: &str) {
    use std::io::Write;
    let file = std::fs::OpenOptions::new().append(true).create(true).open(dir.join("app.log"));
    file.and_then(|mut file| file.write_all(text.as_bytes())).expect("a file to append to");
}
