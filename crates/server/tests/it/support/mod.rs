//! A server of its own for each test.

use model::Outcome;
use runtime::{Clock, Stopper, SystemClock};
use serde_json::{Value, json};
use server::app::{Addresses, App, AppHandle, Parts};
use server::config::{self, Overrides};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use storage::queue::QueueName;
use tempfile::TempDir;
use testkit::{Receiver, Request};

/// Everything on port 0; quick breaker and remediation, so that tests need not wait for minutes.
const BASE: &str = r#"
[ingest.agents]
listen = "127.0.0.1:0"
[ingest.http]
listen = "127.0.0.1:0"
[ingest.syslog]
udp = "127.0.0.1:0"
tcp = "127.0.0.1:0"
[alerter]
metrics_listen = "127.0.0.1:0"
health_listen = "127.0.0.1:0"
[forwarder]
metrics_listen = "127.0.0.1:0"
health_listen = "127.0.0.1:0"
rate_limit = 100000
retry_base_ms = 50
retry_max_ms = 200
breaker_threshold = 3
breaker_open_ms = 300
[remediation]
metrics_listen = "127.0.0.1:0"
health_listen = "127.0.0.1:0"
interval_ms = 300
batch = 1000
[webui]
listen = "127.0.0.1:0"
metrics_cache_ms = 0
"#;

pub const SOON: Duration = Duration::from_secs(60);

/// A running server. Stop it with [`TestServer::stop`]; dropped, it is only told to.
pub struct TestServer {
    pub dir: Arc<TempDir>,
    pub addresses: Addresses,
    pub ingest_key: String,
    pub web_key: String,
    pub parts: Parts,
    pub handle: AppHandle,
    pub http: reqwest::Client,
    stopper: Stopper,
    task: tokio::task::JoinHandle<bool>,
}

pub fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    // Tests name the rules that they are about.
    [("MUTT_SHIPPED_RULES", "false")].iter().chain(pairs).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

pub fn load(dir: &Path, env: &[(&str, &str)], roles: Option<&[&str]>) -> config::Config {
    load_with(dir, "", env, roles)
}

/// With more settings; those at the top of the file.
pub fn load_with(dir: &Path, more: &str, env: &[(&str, &str)], roles: Option<&[&str]>) -> config::Config {
    let file = dir.join("test.toml");
    std::fs::write(&file, format!("{more}{BASE}")).unwrap();
    let overrides = Overrides {
        data_dir: Some(dir.join("data").display().to_string()),
        roles: roles.map(|r| r.iter().map(ToString::to_string).collect()),
    };
    config::load(Some(&file), &environment(env), &overrides).unwrap().config
}

impl TestServer {
    pub async fn start(env: &[(&str, &str)]) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), env, None).await
    }

    /// On the data of an earlier server; only these roles if given.
    pub async fn start_in(dir: Arc<TempDir>, env: &[(&str, &str)], roles: Option<&[&str]>) -> Self {
        let config = load(dir.path(), env, roles);
        Self::start_with(dir, config).await
    }

    pub async fn start_with(dir: Arc<TempDir>, config: config::Config) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let (stopper, stop) = Stopper::new();
        let app = App::build(config, clock, &stop).await.unwrap();
        Self {
            dir,
            addresses: app.addresses().clone(),
            ingest_key: app.ingest_key.preferred().expose().to_owned(),
            web_key: app.webui_key.preferred().expose().to_owned(),
            parts: app.parts().clone(),
            handle: app.handle(),
            http: server::commands::http_client(SOON).unwrap(),
            stopper,
            task: tokio::spawn(app.run(stop)),
        }
    }

    /// Stops and drains; checks that it ended clean and that the outcomes add up.
    pub async fn stop(self) -> Arc<TempDir> {
        let (dir, parts) = (self.dir, self.parts.clone());
        self.stopper.stop();
        assert!(self.task.await.unwrap(), "the server ends clean");
        let accepted: u64 = model::InputKind::ALL
            .iter()
            .map(|i| {
                parts.metrics.events_accepted.get_or_create(&pipeline::metrics::labels([("input", i.as_str())])).get()
            })
            .sum();
        let settled: u64 = Outcome::ALL.iter().map(|o| parts.metrics.settled(*o)).sum();
        let waiting = parts.queues.get(QueueName::Ingest).stats().await.unwrap().depth;
        assert!(settled + waiting >= accepted, "accepted {accepted} = settled {settled} + waiting {waiting}");
        dir
    }

    pub fn ingest_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addresses.ingest.unwrap())
    }

    pub async fn post(&self, body: impl Into<reqwest::Body>) -> reqwest::Response {
        self.http
            .post(self.ingest_url("/api/v2/ingest"))
            .header("x-api-key", &self.ingest_key)
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await
            .unwrap()
    }

    pub async fn send(&self, event: &Value) -> Value {
        let response = self.post(event.to_string()).await;
        assert_eq!(response.status(), 200);
        let text = response.text().await.unwrap();
        serde_json::from_str(&text).unwrap()
    }

    pub async fn api(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let url = format!("http://{}{path}", self.addresses.webui.unwrap());
        let mut request = self.http.request(method.parse().unwrap(), url).header("x-api-key", &self.web_key);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// Creates a rule that pages NETO on `text`, and waits until it acts.
    pub async fn rule(&self, text: &str) -> i64 {
        self.rule_with(json!({
            "match_string": text, "match_type": "contains", "priority": 10,
            "prod_handling": "Page_and_ticket", "dev_handling": "Ignore", "team_assignment": "NETO",
        }))
        .await
    }

    pub async fn rule_with(&self, rule: Value) -> i64 {
        let (status, body) = self.api("POST", "/api/v2/rules", Some(rule)).await;
        assert_eq!(status, 201, "{body}");
        self.parts.rulebook.reload().await.unwrap();
        body["id"].as_i64().unwrap()
    }

    /// Waits until `receiver` has got `n` requests; says how things stand if it does not.
    pub async fn deliveries(&self, receiver: &Receiver, n: usize) -> Vec<Request> {
        let end = tokio::time::Instant::now() + SOON;
        while receiver.deliveries().len() < n {
            if tokio::time::Instant::now() >= end {
                let metrics = self.parts.metrics.encode();
                let told: Vec<&str> = metrics
                    .lines()
                    .filter(|l| !l.starts_with('#') && !l.ends_with(" 0") && !l.contains("_bucket"))
                    .collect();
                let came = receiver.deliveries().len();
                panic!(
                    "{came} of {n} deliveries came within {SOON:?}; health {:?}\n{}",
                    self.parts.health.all(),
                    told.join("\n")
                );
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        receiver.deliveries()
    }

    /// Waits until nothing waits in the ingest queue.
    pub async fn worked(&self) {
        self.until(async || self.depth(QueueName::Ingest).await == 0).await;
    }

    pub async fn depth(&self, queue: QueueName) -> u64 {
        self.parts.queues.get(queue).stats().await.unwrap().depth
    }

    pub async fn until(&self, mut condition: impl AsyncFnMut() -> bool) {
        let end = tokio::time::Instant::now() + SOON;
        while !condition().await {
            assert!(tokio::time::Instant::now() < end, "did not happen in {SOON:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn until_settled(&self, outcome: Outcome, n: u64) {
        self.until(async || self.parts.metrics.settled(outcome) >= n).await;
    }
}

/// An event of a host.
pub fn event(host: &str, message: &str) -> Value {
    json!({"hostname": host, "message": message, "timestamp": "2026-11-22T10:00:00Z", "syslog_severity": 3})
}
