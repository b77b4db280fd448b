//! `kill -9` of agents and control plane at any moment: each line of each host is one event, in order.
//!
//! `AGENT_CHAOS_ROUNDS` sets the rounds (default 25, what CI runs).

use crate::process::{Server, configure, start};
use serde_json::json;
use std::collections::{BTreeMap, HashSet};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const HOSTS: usize = 2;

fn rounds() -> u32 {
    #[expect(clippy::disallowed_methods, reason = "a knob of the test, not of the product")]
    let text = std::env::var("AGENT_CHAOS_ROUNDS");
    text.ok().and_then(|t| t.parse().ok()).unwrap_or(25)
}

struct Host {
    name: String,
    dir: PathBuf,
    child: Option<Child>,
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Host {
    fn new(root: &Path, n: usize) -> Self {
        let (name, dir) = (format!("host-{n}"), root.join(format!("host-{n}")));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("app.log"), "").unwrap();
        Self { name, dir, child: None }
    }

    fn start(&mut self, agents: SocketAddr, token: &str) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.join("agent.err")).unwrap();
        let binary = Path::new(env!("CARGO_BIN_EXE_muttd")).with_file_name("sm-agent");
        let child = Command::new(binary)
            .env_clear()
            .env("SM_TOKEN", token)
            .env("SM_CONFIG", "/dev/null")
            .args(["-ingest", &agents.to_string(), "-host", &self.name, "-collectors", "heartbeat,files"])
            .arg("-data-dir")
            .arg(self.dir.join("data"))
            .arg("-file")
            .arg(self.dir.join("app.log"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    async fn until_said(&self, what: &str) {
        let end = Instant::now() + Duration::from_secs(60);
        while !std::fs::read_to_string(self.dir.join("agent.err")).unwrap_or_default().contains(what) {
            assert!(Instant::now() < end, "{} never said {what:?}", self.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Writes numbered lines, in pieces, with rotation, until it is told to end.
fn writes(file: PathBuf, seed: u64, end: Arc<AtomicBool>, written: Arc<AtomicU64>) {
    use std::io::Write;
    let append = |text: &str| {
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(&file).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    let mut random = fastrand::Rng::with_seed(seed);
    let mut rotated = 0;
    while !end.load(Ordering::Relaxed) {
        let from = written.load(Ordering::Relaxed);
        let text: String = (from..from + random.u64(1..20)).map(|n| format!("line {n}\n")).collect();
        let (first, second) = text.split_at(random.usize(0..text.len()));
        append(first);
        append(second);
        written.fetch_add(text.lines().count() as u64, Ordering::Relaxed);
        if random.u8(0..250) == 0 {
            let name = |n: u32| file.with_file_name(format!("app.log.{n}"));
            for n in (1..=rotated).rev() {
                std::fs::rename(name(n), name(n + 1)).unwrap();
            }
            rotated += 1;
            std::fs::rename(&file, name(1)).unwrap();
            append("");
        }
        std::thread::sleep(Duration::from_millis(random.u64(2..25)));
    }
}

/// The lines of each host, in the order of their ids.
async fn lines(server: &Server) -> BTreeMap<String, Vec<String>> {
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

#[tokio::test(flavor = "multi_thread")]
async fn no_line_of_an_agent_is_lost_doubled_or_out_of_order_by_kill_9_of_both_ends() {
    let dir = tempfile::tempdir().unwrap();
    configure(dir.path(), "");
    let agents = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let file = dir.path().join("chaos.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replacen("listen = \"\"", &format!("listen = \"{agents}\""), 1)).unwrap();
    let mut server = start(dir.path(), "http://127.0.0.1:9/").await;
    let url = format!("http://{}/api/v2/orgs/default/tokens", server.web);
    let made = server.http.post(url).header("x-api-key", &server.web_key).body(json!({}).to_string());
    let made = made.header("content-type", "application/json").send().await.unwrap().text().await.unwrap();
    let token = serde_json::from_str::<serde_json::Value>(&made).unwrap()["token"].as_str().unwrap().to_owned();

    let mut hosts: Vec<Host> = (0..HOSTS).map(|n| Host::new(dir.path(), n)).collect();
    for host in &mut hosts {
        host.start(agents, &token);
    }
    for host in &hosts {
        // From here on nothing that is written may be missing.
        host.until_said("following /").await;
    }
    let end = Arc::new(AtomicBool::new(false));
    let written: Vec<Arc<AtomicU64>> = hosts.iter().map(|_| Arc::default()).collect();
    let writers: Vec<_> = hosts
        .iter()
        .zip(&written)
        .enumerate()
        .map(|(n, (host, written))| {
            let (file, end, written) = (host.dir.join("app.log"), Arc::clone(&end), Arc::clone(written));
            std::thread::spawn(move || writes(file, n as u64, end, written))
        })
        .collect();
    // The first lines say which file is followed, whatever becomes of it.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut random = fastrand::Rng::with_seed(0x6167_7473);
    for _ in 0..rounds() {
        tokio::time::sleep(Duration::from_millis(random.u64(20..700))).await;
        let (ends_server, ends_agents) = [(true, false), (false, true), (true, true)][random.usize(0..3)];
        if ends_agents {
            hosts.iter_mut().for_each(Host::kill);
        }
        if ends_server {
            server.kill();
            tokio::time::sleep(Duration::from_millis(random.u64(0..300))).await;
            server = start(dir.path(), "http://127.0.0.1:9/").await;
        }
        if ends_agents {
            hosts.iter_mut().for_each(|host| host.start(agents, &token));
        }
    }
    end.store(true, Ordering::Relaxed);
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    let totals: Vec<usize> = written.iter().map(|n| n.load(Ordering::Relaxed) as usize).collect();
    let deadline = Instant::now() + Duration::from_secs(180);
    let mut found = lines(&server).await;
    while hosts.iter().zip(&totals).any(|(host, total)| found.get(&host.name).map_or(0, Vec::len) < *total)
        && Instant::now() < deadline
    {
        tokio::time::sleep(Duration::from_millis(500)).await;
        found = lines(&server).await;
    }
    for (host, total) in hosts.iter().zip(&totals) {
        let expected: Vec<String> = (0..*total).map(|n| format!("line {n}")).collect();
        let got = found.remove(&host.name).unwrap_or_default();
        let known: HashSet<&String> = got.iter().collect();
        let missing: Vec<&String> = expected.iter().filter(|line| !known.contains(line)).take(5).collect();
        let log = std::fs::read_to_string(host.dir.join("agent.err")).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(20).collect();
        assert_eq!(missing, Vec::<&String>::new(), "{} of {total}; {tail:#?}", host.name);
        assert_eq!(got.len(), *total, "{}: each once", host.name);
        assert_eq!(got, expected, "{}: in order", host.name);
    }
    println!("agents: {} rounds, {totals:?} lines", rounds());
}
