//! The stores of a company and its processes, as an environment file starts them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use testkit::Receiver;
use testkit::servers::{Daemon, PostgresOptions, PostgresServer, RedisOptions, RedisServer};

/// Redis (every write synced), PostgreSQL and a receiver of alerts.
pub struct Site {
    pub dir: TempDir,
    pub redis: RedisServer,
    pub postgres: PostgresServer,
    pub receiver: Receiver,
    pub environment: BTreeMap<String, String>,
    /// Names the logs of members.
    members: AtomicU64,
}

/// One process; killed when dropped.
pub struct Member {
    pub role: &'static str,
    pub port: u16,
    environment: BTreeMap<String, String>,
    log: std::path::PathBuf,
    pub daemon: Daemon,
}

pub const INGEST_KEY: &str = "ingest-key-of-the-site";
pub const WEB_KEY: &str = "web-key-of-the-site";

/// How a site differs from the plain one.
#[derive(Default)]
pub struct SiteOptions {
    pub redis_password: Option<String>,
    pub redis_tls: bool,
    pub postgres_password: Option<String>,
    pub postgres_tls: bool,
}

impl Site {
    pub async fn start(options: SiteOptions) -> Self {
        let redis = RedisServer::with(RedisOptions {
            password: options.redis_password.clone(),
            tls: options.redis_tls,
            args: vec!["--appendfsync".into(), "always".into()],
        });
        let postgres = PostgresServer::with(PostgresOptions {
            password: options.postgres_password.clone(),
            tls: options.postgres_tls,
            fsync: true,
            ..PostgresOptions::default()
        });
        let receiver = Receiver::start().await;
        let mut environment = BTreeMap::new();
        let mut set = |name: &str, value: &str| {
            environment.insert(name.to_owned(), value.to_owned());
        };
        // As the installation guide writes them.
        set("REDIS_HOST", "localhost");
        set("REDIS_PORT", &redis.port().to_string());
        set("REDIS_TLS_ENABLED", &options.redis_tls.to_string());
        set("DB_HOST", "localhost");
        set("DB_PORT", &postgres.port().to_string());
        set("DB_NAME", postgres.database());
        set("DB_USER", postgres.user());
        set("DB_TLS_ENABLED", &options.postgres_tls.to_string());
        set("MOOG_WEBHOOK_URL", &receiver.url());
        set("MOOG_API_KEY", "moog-key-of-the-site");
        set("INGEST_API_KEY", INGEST_KEY);
        set("WEBUI_API_KEY", WEB_KEY);
        set("POD_NAME", "mutt-server-01");
        set("LOG_LEVEL", "INFO");
        if let Some(password) = &options.redis_password {
            set("REDIS_PASS", password);
        }
        if let Some(password) = &options.postgres_password {
            set("DB_PASS", password);
        }
        if let Some(certs) = redis.certs() {
            set("REDIS_CA_CERT_PATH", &certs.ca.display().to_string());
        }
        if let Some(certs) = postgres.certs() {
            set("DB_TLS_CA_CERT_PATH", &certs.ca.display().to_string());
        }
        // Not of the guide: sockets of this test only.
        set("MUTT_LISTEN_HOST", "127.0.0.1");
        set("MUTT_AGENT_LISTEN", "127.0.0.1:0");
        set("MUTT_SYSLOG_UDP", "127.0.0.1:0");
        set("MUTT_SYSLOG_TCP", "127.0.0.1:0");
        let dir = tempfile::tempdir().unwrap();
        set("MUTT_DATA_DIR", &dir.path().join("data").display().to_string());
        Self { dir, redis, postgres, receiver, environment, members: AtomicU64::new(0) }
    }

    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.insert(name.to_owned(), value.to_owned());
    }

    /// Starts a role as a process of its own and waits until it is healthy.
    pub fn member(&self, role: &'static str) -> Member {
        let member = self.member_at_once(role);
        member.healthy(Duration::from_secs(30));
        member
    }

    /// Starts a role and does not wait.
    pub fn member_at_once(&self, role: &'static str) -> Member {
        let port = testkit::free_port();
        let mut environment = self.environment.clone();
        let variables: &[&str] = match role {
            "ingestor" => &["SERVER_PORT_INGESTOR"],
            "alerter" => &["HEALTH_PORT_ALERTER", "METRICS_PORT_ALERTER"],
            "forwarder" => &["HEALTH_PORT_MOOG", "METRICS_PORT_MOOG"],
            "remediation" => &["HEALTH_PORT_REMEDIATION", "METRICS_PORT_REMEDIATION"],
            _ => &["SERVER_PORT_WEBUI"],
        };
        environment.insert(variables[0].to_owned(), port.to_string());
        if let Some(second) = variables.get(1) {
            environment.insert((*second).to_owned(), testkit::free_port().to_string());
        }
        let number = self.members.fetch_add(1, Ordering::Relaxed);
        let log = self.dir.path().join(format!("{role}-{number}.log"));
        let daemon = launch(role, &environment, &log);
        Member { role, port, environment, log, daemon }
    }

    /// Waits until no list of Redis holds a record and no alert is pending.
    pub fn drained(&self) {
        let end = Instant::now() + Duration::from_secs(120);
        loop {
            let lists = ["mutt:ingest_queue", "mutt:alert_queue", "mutt:dlq:alerter", "mutt:dlq:moog"];
            let waiting: u64 = lists.iter().map(|list| self.redis.cli(&["LLEN", list]).parse::<u64>().unwrap()).sum();
            let held = self.redis.cli(&["KEYS", "mutt:processing:*"]);
            let pending = self.postgres.psql("SELECT count(*) FROM alerts WHERE state = 'pending'");
            if waiting == 0 && held.is_empty() && pending.trim() == "0" {
                return;
            }
            assert!(Instant::now() < end, "not drained: {waiting} waiting, {held:?} held, {pending} pending");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// How often each event number is in the audit log.
    pub fn audited(&self) -> BTreeMap<u64, u64> {
        let rows = self.postgres.psql(
            "SELECT (raw_message::jsonb->>'n')::bigint AS n, count(*) FROM event_audit_log GROUP BY n ORDER BY n",
        );
        rows.lines()
            .filter_map(|line| {
                let (n, count) = line.split_once('|')?;
                Some((n.trim().parse().ok()?, count.trim().parse().ok()?))
            })
            .collect()
    }

    /// As people do it: rules by SQL. Every third event of [`event`] pages, the others are only
    /// audited.
    pub fn rules(&self) {
        self.postgres.psql(
            "INSERT INTO alert_rules (match_string, priority, prod_handling, dev_handling, team_assignment) VALUES \
             ('CHAOS', 10, 'Page_only', 'Page_only', 'NETO'), ('calm', 20, 'log', 'log', 'NETO')",
        );
    }
}

impl Member {
    /// Starts it again after a kill, on the same ports.
    pub fn start_again(&mut self) {
        self.daemon = launch(self.role, &self.environment, &self.log);
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Waits until `/health` says 200.
    pub fn healthy(&self, at_most: Duration) {
        let end = Instant::now() + at_most;
        while self.health() != Some(200) {
            assert!(Instant::now() < end, "the {} is not healthy:\n{}", self.role, self.daemon.output());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The status of `/health`; `None`: nobody answers.
    pub fn health(&self) -> Option<u16> {
        let output = Command::new("curl")
            .args(["-s", "-o", "/dev/null", "-m", "5", "-w", "%{http_code}", &self.url("/health")])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).parse().ok().filter(|status| *status != 0)
    }
}

fn launch(role: &str, environment: &BTreeMap<String, String>, log: &Path) -> Daemon {
    let mut command = Command::new(env!("CARGO_BIN_EXE_muttd"));
    #[expect(clippy::disallowed_methods, reason = "the path of the helpers of a test")]
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.args(["serve", "--roles", role]).env_clear().env("PATH", path).envs(environment);
    Daemon::start(command, log, || true)
}

/// Event `n`; every third matches the rule that pages.
pub fn event(n: u64) -> String {
    let word = if n.is_multiple_of(3) { "CHAOS" } else { "calm" };
    format!(
        "{{\"hostname\":\"h{}\",\"message\":\"{word} event{n}x\",\"timestamp\":\"2026-11-22T10:00:00Z\",\"n\":{n}}}\n",
        n % 5
    )
}

/// What a client knows about its events.
#[derive(Default)]
pub struct Sent {
    pub next: AtomicU64,
    pub acknowledged: Mutex<std::collections::BTreeSet<u64>>,
    /// Answers other than 200, and connections that failed.
    pub refused: AtomicU64,
}

/// Posts to these ingestors in turn, singles and batches, `pace` apart, until told to stop.
pub async fn load(urls: Vec<String>, sent: Arc<Sent>, pace: Duration, stop: Arc<std::sync::atomic::AtomicBool>) {
    let http = server::commands::http_client(Duration::from_secs(20)).unwrap();
    let mut turn = 0;
    while !stop.load(Ordering::SeqCst) {
        turn += 1;
        let count = if turn % 4 == 0 { 50 } else { 1 };
        let first = sent.next.fetch_add(count, Ordering::SeqCst);
        let body: String = (first..first + count).map(event).collect();
        let request = http.post(&urls[turn % urls.len()]).header("x-api-key", INGEST_KEY);
        match request.header("content-type", "application/x-ndjson").body(body).send().await {
            Ok(response) if response.status() == 200 => {
                sent.acknowledged.lock().unwrap().extend(first..first + count);
            }
            _ => {
                sent.refused.fetch_add(1, Ordering::SeqCst);
            }
        }
        tokio::time::sleep(pace).await;
    }
}

/// The oracle: every acknowledged event is audited once, those of the paging rule were delivered as
/// one alert, and nothing is there that was never sent.
pub fn check(site: &Site, sent: &Sent) {
    let acknowledged = sent.acknowledged.lock().unwrap().clone();
    let audited = site.audited();
    let lost: Vec<&u64> = acknowledged.iter().filter(|n| !audited.contains_key(n)).take(20).collect();
    assert!(lost.is_empty(), "acknowledged and not audited: {lost:?}");
    let mut alerts: BTreeMap<u64, std::collections::BTreeSet<String>> = BTreeMap::new();
    for request in site.receiver.deliveries().iter().filter(|r| r.answered == Some(200)) {
        let n = request.json()["custom_info"]["n"].as_u64().unwrap();
        alerts.entry(n).or_default().insert(request.idempotency_key().unwrap().to_owned());
    }
    let missing: Vec<&u64> =
        acknowledged.iter().filter(|n| n.is_multiple_of(3) && !alerts.contains_key(n)).take(20).collect();
    assert!(missing.is_empty(), "acknowledged, matched and not delivered: {missing:?}");
    // A post whose answer was lost may have been kept; posted once, it is one event.
    let doubled: Vec<_> = audited.iter().filter(|(_, count)| **count > 1).take(20).collect();
    assert!(doubled.is_empty(), "audited more than once: {doubled:?}");
    let twice: Vec<_> = alerts.iter().filter(|(_, keys)| keys.len() > 1).take(20).collect();
    assert!(twice.is_empty(), "one event, several alerts: {twice:?}");
    let sent = sent.next.load(Ordering::SeqCst);
    assert!(audited.keys().all(|n| *n < sent) && alerts.keys().all(|n| n.is_multiple_of(3)));
}
