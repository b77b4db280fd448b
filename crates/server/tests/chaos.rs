//! `kill -9` of the whole process, again and again, with an oracle.
//!
//! A client posts numbered events and remembers which were acknowledged, which were sent and never
//! answered, and nothing else. After the last round:
//! * every acknowledged event is stored, exactly once;
//! * every acknowledged event that a rule matches reached the receiver; by the receiver's own
//!   idempotency key each exactly once;
//! * nothing is stored or delivered that was never sent.
//!
//! `CHAOS_ROUNDS` sets the rounds (default 100, what CI runs).

#![expect(clippy::unwrap_used, reason = "tests: a failure is a panic")]

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use testkit::Receiver;

/// What the client knows about its events.
#[derive(Default)]
struct Oracle {
    next: AtomicU64,
    acknowledged: Mutex<BTreeSet<u64>>,
}

struct Server {
    child: Child,
    ingest: SocketAddr,
    web: SocketAddr,
}

impl Server {
    fn kill(&mut self) {
        let _ = self.child.kill(); // SIGKILL
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_muttd"))
}

async fn start(dir: &Path, url: &str) -> Server {
    let data = dir.join("data");
    let running = data.join("running.json");
    let _ = std::fs::remove_file(&running);
    let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("log")).unwrap();
    #[expect(clippy::zombie_processes, reason = "waited for by `Server`'s drop; without one the test has failed")]
    let child = Command::new(binary())
        .args(["serve", "--config"])
        .arg(dir.join("chaos.toml"))
        .env_clear()
        .env("MUTT_DATA_DIR", &data)
        .env("MOOG_WEBHOOK_URL", url)
        .env("LOG_LEVEL", "warn")
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        if let Ok(text) = std::fs::read_to_string(&running)
            && let Ok(value) = serde_json::from_str::<Value>(&text)
        {
            let address = |key: &str| value[key].as_str().unwrap().parse().unwrap();
            return Server { child, ingest: address("ingest"), web: address("webui") };
        }
        assert!(
            Instant::now() < end,
            "did not start:\n{}",
            std::fs::read_to_string(dir.join("log")).unwrap_or_default()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn client() -> reqwest::Client {
    let tls = rustls::ClientConfig::builder_with_provider(runtime::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .timeout(Duration::from_secs(20))
        .build()
        .unwrap()
}

/// Every third event matches the rule; the number is in a field and in the text.
fn event(n: u64) -> String {
    let word = if n.is_multiple_of(3) { "CHAOS" } else { "calm" };
    format!(r#"{{"hostname":"h{}","message":"{word} event{n}x","timestamp":"2026-11-22T10:00:00Z","n":{n}}}"#, n % 5)
}

/// Posts until the server is gone: single events and batches.
async fn load(http: reqwest::Client, url: String, key: String, oracle: Arc<Oracle>) {
    let mut turn = 0;
    loop {
        turn += 1;
        let count = if turn % 4 == 0 { 50 } else { 1 };
        let first = oracle.next.fetch_add(count, Ordering::SeqCst);
        let body: String = (first..first + count).map(|n| event(n) + "\n").collect();
        let request = http.post(&url).header("x-api-key", &key).header("content-type", "application/x-ndjson");
        match request.body(body).send().await {
            Ok(response) if response.status() == 200 => {
                oracle.acknowledged.lock().unwrap().extend(first..first + count);
            }
            // Full or draining: not acknowledged. Gone: the round is over.
            Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(_) => return,
        }
    }
}

async fn get(http: &reqwest::Client, web: SocketAddr, key: &str, path: &str) -> Value {
    let response = http.get(format!("http://{web}{path}")).header("x-api-key", key).send().await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    serde_json::from_str(&response.text().await.unwrap()).unwrap()
}

/// How often each event number is stored.
async fn stored(http: &reqwest::Client, web: SocketAddr, key: &str) -> BTreeMap<u64, u64> {
    let mut counts = BTreeMap::new();
    let mut before = String::new();
    loop {
        let page = get(http, web, key, &format!("/api/v2/events?limit=1000{before}")).await;
        let events = page["events"].as_array().unwrap();
        let Some(last) = events.last() else { return counts };
        before = format!("&before={}", last["id"].as_str().unwrap());
        for event in events {
            *counts.entry(event["event"]["n"].as_u64().unwrap()).or_default() += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_event_is_lost_or_doubled_by_kill_9() {
    let rounds: u32 = {
        #[expect(clippy::disallowed_methods, reason = "a knob of the test, not of the product")]
        let text = std::env::var("CHAOS_ROUNDS");
        text.ok().and_then(|t| t.parse().ok()).unwrap_or(100)
    };
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start().await;
    let url = receiver.url();
    let rules = dir.path().join("rules.yml");
    std::fs::write(&rules, "rules:\n  - name: chaos\n    match_string: CHAOS\n    prod_handling: Page_only\n    dev_handling: Page_only\n    team_assignment: A\n").unwrap();
    let off = "metrics_listen = \"\"\nhealth_listen = \"\"\n";
    let toml = format!(
        "[ingest.http]\nlisten = \"127.0.0.1:0\"\nbody_bytes_max = 1048576\n[ingest.syslog]\nudp = \"\"\ntcp = \"\"\n[alerter]\n{off}rules = [\"{}\"]\nunhandled_threshold = 1000000\n\
         [forwarder]\n{off}rate_limit = 1000000\nconcurrency = 32\n[remediation]\n{off}\n[webui]\nlisten = \"127.0.0.1:0\"\n\
         [queue]\nsegment_bytes = 9437184\nbytes_max = 1073741824\n",
        rules.display()
    );
    std::fs::write(dir.path().join("chaos.toml"), toml).unwrap();
    let seed = 0x6d75_7474;
    let mut random = fastrand::Rng::with_seed(seed);
    let oracle = Arc::new(Oracle::default());
    for _ in 0..rounds {
        let mut server = start(dir.path(), &url).await;
        let key = std::fs::read_to_string(dir.path().join("data/keys/ingest_api_key")).unwrap().trim().to_owned();
        let url = format!("http://{}/api/v2/ingest", server.ingest);
        let http = client();
        let clients: Vec<_> =
            (0..4).map(|_| tokio::spawn(load(http.clone(), url.clone(), key.clone(), Arc::clone(&oracle)))).collect();
        tokio::time::sleep(Duration::from_millis(random.u64(20..350))).await;
        server.kill();
        for client in clients {
            client.await.unwrap();
        }
    }
    let server = start(dir.path(), &url).await;
    let key = std::fs::read_to_string(dir.path().join("data/keys/webui_api_key")).unwrap().trim().to_owned();
    let http = client();
    let end = Instant::now() + Duration::from_secs(120);
    loop {
        let queues = get(&http, server.web, &key, "/api/v2/queues").await;
        let waiting: u64 = queues["queues"].as_array().unwrap().iter().map(|q| q["depth"].as_u64().unwrap()).sum();
        let pending = get(&http, server.web, &key, "/api/v2/alerts?state=pending&limit=1").await;
        if waiting == 0 && pending["alerts"].as_array().unwrap().is_empty() {
            break;
        }
        assert!(Instant::now() < end, "not drained: {queues}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let stored = stored(&http, server.web, &key).await;
    let sent = oracle.next.load(Ordering::SeqCst);
    let acknowledged = oracle.acknowledged.lock().unwrap().clone();
    println!(
        "chaos: seed {seed:#x}, {rounds} rounds, {sent} sent, {} acknowledged, {} stored",
        acknowledged.len(),
        stored.len()
    );
    assert!(acknowledged.len() as u32 > rounds, "the rounds did something");

    let lost: Vec<&u64> = acknowledged.iter().filter(|n| !stored.contains_key(n)).take(20).collect();
    assert!(lost.is_empty(), "acknowledged and not stored: {lost:?}");
    let doubled: Vec<_> = stored.iter().filter(|(_, count)| **count > 1).take(20).collect();
    assert!(doubled.is_empty(), "stored more than once: {doubled:?}");
    assert!(stored.keys().all(|n| *n < sent), "nothing that was never sent");

    // By the receiver's own key: one alert for each matched event, none twice, none unknown.
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
