//! The server under test: the built binary, on a fresh data folder and free ports, ended with the
//! value that holds it.

use crate::Plan;
use crate::record::Record;
use anyhow::{Context, Result, bail};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// What differs between the servers of the phases; the rest is the shipped default.
#[derive(Clone)]
pub struct Setup {
    pub roles: &'static str,
    pub durability: &'static str,
    pub rules: Option<PathBuf>,
    pub webhook: Option<SocketAddr>,
    /// Where agents come in; `None`: nowhere.
    pub agents: Option<SocketAddr>,
}

pub const ALL_ROLES: &str = "ingestor,alerter,forwarder,remediation,webui";

impl Setup {
    pub fn new(roles: &'static str, durability: &'static str) -> Self {
        Self { roles, durability, rules: None, webhook: None, agents: None }
    }
}

pub struct Muttd {
    child: Child,
    setup: Setup,
    pub web: Option<SocketAddr>,
    pub agents: Option<SocketAddr>,
    dir: PathBuf,
    pub ingest: SocketAddr,
    pub syslog_udp: SocketAddr,
    pub syslog_tcp: SocketAddr,
    pub key: String,
    /// From exec to the first healthy answer.
    pub start_ms: f64,
}

const START_MAX: Duration = Duration::from_secs(20);

impl Muttd {
    pub fn start(plan: &Plan, setup: &Setup) -> Result<Self> {
        Self::start_in(plan, setup, fresh_dir(plan, "muttd")?)
    }

    /// Ends it as a crash does, and starts it on its data again.
    pub fn restart(&mut self, plan: &Plan) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        std::fs::remove_file(self.data().join("running.json"))?;
        let setup = Setup { agents: self.agents, ..self.setup.clone() };
        // Its folder goes on with the new one.
        *self = Self::start_in(plan, &setup, std::mem::take(&mut self.dir))?;
        Ok(())
    }

    /// Its data folder.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn start_in(plan: &Plan, setup: &Setup, dir: PathBuf) -> Result<Self> {
        let file = dir.join("bench.toml");
        std::fs::write(&file, config(setup, &dir.join("data")))?;
        let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("log"))?;
        let started = Instant::now();
        // The environment of whoever runs this must not configure what is measured.
        let mut child = Command::new(&plan.muttd)
            .arg("serve")
            .arg("--config")
            .arg(&file)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting `{}`", plan.muttd.display()))?;
        let running = dir.join("data/running.json");
        let address = |name: &str| -> Option<SocketAddr> {
            let json: serde_json::Value = serde_json::from_slice(&std::fs::read(&running).ok()?).ok()?;
            json[name].as_str()?.parse().ok()
        };
        loop {
            if let Some(ingest) = address("ingest")
                && get(ingest, "/health").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
            {
                let start_ms = started.elapsed().as_secs_f64() * 1e3;
                let key = std::fs::read_to_string(dir.join("data/keys/ingest_api_key"))?.trim().to_owned();
                return Ok(Self {
                    ingest,
                    syslog_udp: address("syslog_udp").context("no syslog UDP address")?,
                    syslog_tcp: address("syslog_tcp").context("no syslog TCP address")?,
                    web: address("webui"),
                    agents: address("agents"),
                    setup: setup.clone(),
                    child,
                    dir,
                    key,
                    start_ms,
                });
            }
            if let Some(status) = child.try_wait()? {
                bail!("muttd ended with {status}: {}", std::fs::read_to_string(dir.join("log"))?);
            }
            if started.elapsed() > START_MAX {
                let _ = child.kill();
                let _ = child.wait();
                bail!("muttd is not healthy after {START_MAX:?}: {}", std::fs::read_to_string(dir.join("log"))?);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Sum of a metric's series whose text holds `label` (all, where it is empty).
    pub fn metric(&self, name: &str, label: &str) -> Result<f64> {
        let text = get(self.ingest, "/metrics")?;
        let series = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
        Ok(series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    pub fn usage(&self) -> Usage {
        Usage::of(self.child.id())
    }

    /// See [`Usage::note`].
    pub fn note_usage(&self, record: &mut Record, name: &str, before: &Usage, events: f64) {
        self.usage().note(record, name, before, events);
    }
}

impl Drop for Muttd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !self.dir.as_os_str().is_empty() {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// A new folder on the disk that is measured, with nothing left to be written back on it.
pub fn fresh_dir(plan: &Plan, name: &str) -> Result<PathBuf> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let dir = plan.scratch.join(format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
    std::fs::create_dir_all(&dir)?;
    Command::new("sync").arg("-f").arg(&dir).status().context("sync")?;
    Ok(dir)
}

fn config(setup: &Setup, data: &Path) -> String {
    let Setup { roles, durability, rules, webhook, agents } = setup;
    let roles = roles.replace(',', "\", \"");
    let mut text = String::new();
    // Bounds far away: what is measured is speed, not what happens when the queue is full, or when so many
    // unhandled events bring thousands of alerts of their own.
    let _ = write!(
        text,
        r#"data_dir = "{}"
roles = ["{roles}"]
[log]
level = "warn"
[ingest.agents]
listen = "{}"
[ingest.http]
listen = "127.0.0.1:0"
durability = "{durability}"
[ingest.syslog]
udp = "127.0.0.1:0"
tcp = "127.0.0.1:0"
durability = "{durability}"
[queue]
ingest_records_max = 100000000
bytes_max = 34359738368
[alerter]
metrics_listen = "127.0.0.1:0"
health_listen = "127.0.0.1:0"
rules = [{}]
unhandled_threshold = 1000000000
[forwarder]
metrics_listen = "127.0.0.1:0"
health_listen = "127.0.0.1:0"
[remediation]
metrics_listen = "127.0.0.1:0"
health_listen = "127.0.0.1:0"
[webui]
listen = "127.0.0.1:0"
"#,
        data.display(),
        agents.map(|address| address.to_string()).unwrap_or_default(),
        rules.as_ref().map(|file| format!("\"{}\"", file.display())).unwrap_or_default(),
    );
    if let Some(address) = webhook {
        let _ = write!(
            text,
            "[[channel]]\ntype = \"webhook\"\nname = \"bench\"\nurl = \"http://{address}/\"\nsecret = \"bench-bench-bench-bench-bench\"\n"
        );
    }
    text
}

/// Memory and CPU time of a process, as the kernel counts them.
#[derive(Default)]
pub struct Usage {
    pub rss_mb: f64,
    pub rss_peak_mb: f64,
    pub cpu_seconds: f64,
}

impl Usage {
    /// Notes memory, and the CPU time for each of `events` since `before`.
    pub fn note(&self, record: &mut Record, name: &str, before: &Self, events: f64) {
        record.push(format!("{name}/rss_mb"), self.rss_mb);
        record.push(format!("{name}/rss_peak_mb"), self.rss_peak_mb);
        if events > 0.0 {
            record.push(format!("{name}/cpu_us"), (self.cpu_seconds - before.cpu_seconds) * 1e6 / events);
        }
    }

    pub fn of(pid: u32) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let kb = |name: &str| -> f64 {
            let line = status.lines().find(|line| line.starts_with(name));
            line.and_then(|l| l.split_whitespace().nth(1)?.parse::<f64>().ok()).unwrap_or(f64::NAN)
        };
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        // utime and stime are fields 14 and 15; the name is the second; Linux counts in 1/100 s.
        let ticks: f64 = after_name.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<f64>().ok()).sum();
        Self { rss_mb: kb("VmRSS:") / 1024.0, rss_peak_mb: kb("VmHWM:") / 1024.0, cpu_seconds: ticks / 100.0 }
    }
}

/// The whole answer to a GET, head and body.
pub fn get(address: SocketAddr, path: &str) -> Result<String> {
    get_with(address, path, "")
}

/// The same, with more header lines, each with its end.
pub fn get_with(address: SocketAddr, path: &str, headers: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: bench\r\n{headers}Connection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
