//! Hosts with a real `sm-agent`, whose files are written all the time, and what the control plane has of them.

use crate::process::{Server, configure};
use serde_json::json;
use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use testkit::host_agent::{HostAgent, append, log_of};

/// As [`configure`], with a gateway at `agents`.
pub fn configure_gateway(dir: &Path, agents: SocketAddr) {
    configure(dir, "");
    let file = dir.join("chaos.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replacen("listen = \"\"", &format!("listen = \"{agents}\""), 1)).unwrap();
}

/// A token for any number of hosts.
pub async fn token(server: &Server) -> String {
    let url = format!("http://{}/api/v2/orgs/default/tokens", server.web);
    let made = server.http.post(url).header("x-api-key", &server.web_key).body(json!({}).to_string());
    let made = made.header("content-type", "application/json").send().await.unwrap().text().await.unwrap();
    serde_json::from_str::<serde_json::Value>(&made).unwrap()["token"].as_str().unwrap().to_owned()
}

pub struct Host {
    pub name: String,
    pub dir: PathBuf,
    agent: Option<HostAgent>,
}

impl Host {
    pub fn new(root: &Path, n: usize) -> Self {
        let (name, dir) = (format!("host-{n}"), root.join(format!("host-{n}")));
        std::fs::create_dir_all(&dir).unwrap();
        Self { name, dir, agent: None }
    }

    pub fn start(&mut self, ingest: SocketAddr, token: &str) {
        self.start_by(Command::new(binary()), ingest, token);
    }

    /// By a command that ends up executing the agent.
    pub fn start_by(&mut self, command: Command, ingest: SocketAddr, token: &str) {
        let more = ["-collectors", "heartbeat,files"];
        self.agent = Some(HostAgent::start(command, &self.dir, &ingest.to_string(), &self.name, token, &more));
    }

    /// From then on nothing that is written may be missing.
    pub fn until_following(&self) {
        self.agent().until_said("following /");
    }

    pub fn agent(&self) -> &HostAgent {
        self.agent.as_ref().unwrap()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.agent = None;
    }
}

pub fn binary() -> PathBuf {
    HostAgent::binary(Path::new(env!("CARGO_BIN_EXE_muttd")))
}

/// Somebody who writes numbered lines, in pieces, with rotation, until told to end.
pub struct Writer {
    end: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Writer {
    pub fn start(host: &Host, seed: u64) -> Self {
        let (end, written) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let thread = {
            let (file, end, written) = (host.dir.join("app.log"), Arc::clone(&end), Arc::clone(&written));
            std::thread::spawn(move || writes(&file, seed, &end, &written))
        };
        Self { end, written, thread }
    }

    /// How many lines there are.
    pub fn end(self) -> usize {
        self.end.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        usize::try_from(self.written.load(Ordering::Relaxed)).unwrap()
    }
}

fn writes(file: &Path, seed: u64, end: &AtomicBool, written: &AtomicU64) {
    let dir = file.parent().unwrap();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut rotated = 0;
    while !end.load(Ordering::Relaxed) {
        let from = written.load(Ordering::Relaxed);
        let text: String = (from..from + random.u64(1..20)).map(line).collect();
        let (first, second) = text.split_at(random.usize(0..text.len()));
        append(dir, first);
        append(dir, second);
        written.fetch_add(text.lines().count() as u64, Ordering::Relaxed);
        if random.u8(0..250) == 0 {
            let name = |n: u32| file.with_file_name(format!("app.log.{n}"));
            for n in (1..=rotated).rev() {
                std::fs::rename(name(n), name(n + 1)).unwrap();
            }
            rotated += 1;
            std::fs::rename(file, name(1)).unwrap();
            append(dir, "");
        }
        std::thread::sleep(Duration::from_millis(random.u64(2..25)));
    }
}

/// The words that no wire may show.
pub const WORDS: &str = "nobody else is to read this";

pub fn line(n: u64) -> String {
    format!("line {n}: {WORDS}\n")
}

/// The lines of each host, in the order of their ids.
pub async fn lines(server: &Server) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut before = String::new();
    loop {
        let page = server.get(&format!("/api/v2/events?limit=1000{before}")).await;
        let events = page["events"].as_array().unwrap();
        let Some(last) = events.last() else { break };
        before = format!("&before={}", last["id"].as_str().unwrap());
        for event in events.iter().map(|event| &event["event"]) {
            assert_ne!(event["labels"]["event_type"], "log_gap", "an agent missed something: {event}");
            if event["stream"] == "file" {
                let text = |key: &str| event[key].as_str().unwrap().to_owned();
                found.entry(text("hostname")).or_default().push(text("message"));
            }
        }
    }
    found.values_mut().for_each(|lines| lines.reverse());
    found
}

/// The oracle: of each host so many lines come, each once and in order.
pub async fn check(server: &Server, hosts: &[Host], totals: &[usize]) {
    let deadline = Instant::now() + Duration::from_secs(180);
    let mut found = lines(server).await;
    while hosts.iter().zip(totals).any(|(host, total)| found.get(&host.name).map_or(0, Vec::len) < *total)
        && Instant::now() < deadline
    {
        tokio::time::sleep(Duration::from_millis(500)).await;
        found = lines(server).await;
    }
    for (host, total) in hosts.iter().zip(totals) {
        let expected: Vec<String> = (0..*total as u64).map(|n| line(n).trim_end().to_owned()).collect();
        let got = found.remove(&host.name).unwrap_or_default();
        let known: HashSet<&String> = got.iter().collect();
        let missing: Vec<&String> = expected.iter().filter(|line| !known.contains(line)).take(5).collect();
        let log = log_of(&host.dir);
        let tail: Vec<&str> = log.lines().rev().take(20).collect();
        assert_eq!(missing, Vec::<&String>::new(), "{} of {total}; {tail:#?}", host.name);
        assert_eq!(got.len(), *total, "{}: each once", host.name);
        assert_eq!(got, expected, "{}: in order", host.name);
    }
}
