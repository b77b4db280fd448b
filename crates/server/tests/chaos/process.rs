//! A real `muttd` process on a data folder, and what its API tells.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use testkit::Receiver;

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    pub ingest: SocketAddr,
    pub web: SocketAddr,
    pub ingest_key: String,
    pub web_key: String,
    pub http: reqwest::Client,
    /// The data folder as this process sees it.
    pub data: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

pub fn client() -> reqwest::Client {
    server::commands::http_client(Duration::from_secs(20)).unwrap()
}

/// Writes the configuration that [`start`] uses: port 0 everywhere, a rule that pages on `CHAOS`.
/// `forwarder` is its section's content.
pub fn configure(dir: &Path, forwarder: &str) {
    let rules = dir.join("rules.yml");
    std::fs::write(&rules, "rules:\n  - name: chaos\n    match_string: CHAOS\n    prod_handling: Page_only\n    dev_handling: Page_only\n    team_assignment: A\n").unwrap();
    let off = "metrics_listen = \"\"\nhealth_listen = \"\"\n";
    let toml = format!(
        "[ingest.agents]\nlisten = \"\"\n[ingest.http]\nlisten = \"127.0.0.1:0\"\nbody_bytes_max = 1048576\n[ingest.syslog]\nudp = \"\"\ntcp = \"\"\n[alerter]\n{off}rules = [\"{}\"]\nunhandled_threshold = 1000000\n\
         [forwarder]\n{off}{forwarder}\n[remediation]\n{off}interval_ms = 1000\n[webui]\nlisten = \"127.0.0.1:0\"\n\
         [queue]\nsegment_bytes = 9437184\nbytes_max = 1073741824\n",
        rules.display()
    );
    std::fs::write(dir.join("chaos.toml"), toml).unwrap();
}

/// The server on `dir/data`, with alerts to `url`.
pub async fn start(dir: &Path, url: &str) -> Server {
    let binary = Command::new(env!("CARGO_BIN_EXE_muttd"));
    launch(dir, url, binary, |_| dir.join("data")).await
}

/// As [`start`], by a command that ends up executing `muttd` with the arguments appended here.
/// `data` tells where this process finds that one's data folder, by its process id.
pub async fn launch(dir: &Path, url: &str, mut command: Command, data: impl Fn(u32) -> PathBuf) -> Server {
    let _ = std::fs::remove_file(dir.join("data/running.json"));
    let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("log")).unwrap();
    #[expect(clippy::disallowed_methods, reason = "the path of the helpers of a test")]
    let path = std::env::var_os("PATH").unwrap_or_default();
    #[expect(clippy::zombie_processes, reason = "waited for by `Server`'s drop; without one the test has failed")]
    let child = command
        .args(["serve", "--config"])
        .arg(dir.join("chaos.toml"))
        .env_clear()
        .env("PATH", path)
        .env("MUTT_DATA_DIR", dir.join("data"))
        .env("MOOG_WEBHOOK_URL", url)
        .env("LOG_LEVEL", "warn")
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let data = data(child.id());
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        if let Ok(text) = std::fs::read_to_string(data.join("running.json"))
            && let Ok(value) = serde_json::from_str::<Value>(&text)
        {
            let address = |key: &str| value[key].as_str().unwrap().parse().unwrap();
            let key = |name: &str| std::fs::read_to_string(data.join("keys").join(name)).unwrap().trim().to_owned();
            return Server {
                child,
                ingest: address("ingest"),
                web: address("webui"),
                ingest_key: key("ingest_api_key"),
                web_key: key("webui_api_key"),
                http: client(),
                data,
            };
        }
        assert!(
            Instant::now() < end,
            "did not start:\n{}",
            std::fs::read_to_string(dir.join("log")).unwrap_or_default()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

impl Server {
    /// `kill -9`.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Posts a body of NDJSON.
    pub async fn post(&self, body: String) -> reqwest::Result<reqwest::Response> {
        post(&self.http, &format!("http://{}/api/v2/ingest", self.ingest), &self.ingest_key, body).await
    }

    /// The status of `/health` of the ingest.
    pub async fn health(&self) -> u16 {
        self.http.get(format!("http://{}/health", self.ingest)).send().await.unwrap().status().as_u16()
    }

    /// Asks the API.
    pub async fn get(&self, path: &str) -> Value {
        let url = format!("http://{}{path}", self.web);
        let response = self.http.get(url).header("x-api-key", &self.web_key).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        serde_json::from_str(&response.text().await.unwrap()).unwrap()
    }

    /// Waits until no queue holds anything and no alert is pending.
    pub async fn drained(&self) {
        let end = Instant::now() + Duration::from_secs(120);
        loop {
            let queues = self.get("/api/v2/queues").await;
            let waiting: u64 = queues["queues"].as_array().unwrap().iter().map(|q| q["depth"].as_u64().unwrap()).sum();
            let pending = self.get("/api/v2/alerts?state=pending&limit=1").await;
            if waiting == 0 && pending["alerts"].as_array().unwrap().is_empty() {
                return;
            }
            assert!(Instant::now() < end, "not drained: {queues}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// How often each event number is stored.
    pub async fn stored(&self) -> BTreeMap<u64, u64> {
        let mut counts = BTreeMap::new();
        let mut before = String::new();
        loop {
            let page = self.get(&format!("/api/v2/events?limit=1000{before}")).await;
            let events = page["events"].as_array().unwrap();
            let Some(last) = events.last() else { return counts };
            before = format!("&before={}", last["id"].as_str().unwrap());
            for event in events {
                *counts.entry(event["event"]["n"].as_u64().unwrap()).or_default() += 1;
            }
        }
    }
}

/// Posts a body of NDJSON.
pub async fn post(http: &reqwest::Client, url: &str, key: &str, body: String) -> reqwest::Result<reqwest::Response> {
    let request = http.post(url).header("x-api-key", key).header("content-type", "application/x-ndjson");
    request.body(body).send().await
}

/// Event `n`. Every third matches the rule; the number is in a field and in the text.
pub fn event(n: u64) -> String {
    let word = if n.is_multiple_of(3) { "CHAOS" } else { "calm" };
    format!(
        "{{\"hostname\":\"h{}\",\"message\":\"{word} event{n}x\",\"timestamp\":\"2026-11-22T10:00:00Z\",\"n\":{n}}}\n",
        n % 5
    )
}

/// The oracle: every acknowledged event is stored, exactly once, and those that the rule matches were
/// delivered, by the receiver's own key exactly once; nothing is there that was never sent.
pub fn check(acknowledged: &BTreeSet<u64>, sent: u64, stored: &BTreeMap<u64, u64>, receiver: &Receiver) {
    let lost: Vec<&u64> = acknowledged.iter().filter(|n| !stored.contains_key(n)).take(20).collect();
    assert!(lost.is_empty(), "acknowledged and not stored: {lost:?}");
    let doubled: Vec<_> = stored.iter().filter(|(_, count)| **count > 1).take(20).collect();
    assert!(doubled.is_empty(), "stored more than once: {doubled:?}");
    assert!(stored.keys().all(|n| *n < sent), "nothing that was never sent");

    let mut by_event: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    for request in receiver.deliveries().iter().filter(|r| r.answered == Some(200)) {
        let n = request.json()["custom_info"]["n"].as_u64().unwrap();
        by_event.entry(n).or_default().insert(request.idempotency_key().unwrap().to_owned());
    }
    let missing: Vec<u64> =
        acknowledged.iter().copied().filter(|n| n % 3 == 0 && !by_event.contains_key(n)).take(20).collect();
    assert!(missing.is_empty(), "acknowledged, matched and not delivered: {missing:?}");
    let twice: Vec<_> = by_event.iter().filter(|(_, keys)| keys.len() > 1).take(20).collect();
    assert!(twice.is_empty(), "one event, several alerts: {twice:?}");
    assert!(by_event.keys().all(|n| n % 3 == 0 && stored.contains_key(n)), "no unknown alert");
}
