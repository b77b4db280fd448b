//! A server with secrets in it, and a started handle.

use runtime::secrets::{HEALTH_PART, Refresher, Secrets, SecretsConfig, StartError, VaultConfig};
use runtime::{Health, Secret, Stopper};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use testkit::servers::{AppRole, OpenBao, OpenBaoOptions};
use testkit::wait_until;
use tokio::task::JoinHandle;

/// Longer than anything takes on a busy machine.
pub const LONG: Duration = Duration::from_secs(30);
/// So long that only what is asked for happens.
pub const NEVER: Duration = Duration::from_secs(86_400);
/// Short enough for a test to wait for.
pub const OFTEN: Duration = Duration::from_millis(200);

/// The values that every server starts with; none of them may ever be shown.
pub const VALUES: [(&str, &str); 4] = [
    ("INGEST_API_KEY", "ingest-hunter2"),
    ("DB_USER", "db-user"),
    ("DB_PASS_CURRENT", "db-hunter2"),
    ("REDIS_PASS_CURRENT", "redis-hunter2"),
];

/// An OpenBao with [`VALUES`] at `secret/mutt` and a role that may read them.
pub struct Vault {
    pub bao: OpenBao,
    pub role: AppRole,
    dir: TempDir,
}

impl Vault {
    pub fn start() -> Self {
        Self::with(OpenBaoOptions::default(), "24h", "72h")
    }

    /// Tokens live `ttl`, and at most `ttl_max` with renewals.
    pub fn with(options: OpenBaoOptions, ttl: &str, ttl_max: &str) -> Self {
        let bao = OpenBao::with(options);
        let role = bao.mutt_service(ttl, ttl_max);
        bao.kv_put("mutt", &VALUES);
        let vault = Self { bao, role, dir: tempfile::tempdir().unwrap() };
        vault.write_secret_id(&vault.role.secret_id);
        vault
    }

    pub fn durable() -> Self {
        Self::with(OpenBaoOptions { durable: true, tls: false }, "24h", "72h")
    }

    pub fn secret_id_file(&self) -> PathBuf {
        self.dir.path().join("secret_id")
    }

    pub fn write_secret_id(&self, secret_id: &str) {
        let new = self.dir.path().join("secret_id.new");
        std::fs::write(&new, format!("{secret_id}\n")).unwrap();
        std::fs::rename(new, self.secret_id_file()).unwrap();
    }

    /// With AppRole; the secrets are read again only when asked for.
    pub fn config(&self) -> VaultConfig {
        VaultConfig {
            secret_id_file: self.secret_id_file(),
            ca_file: self.bao.certs().map(|certs| certs.ca.clone()),
            refresh_interval: NEVER,
            ..VaultConfig::new(self.bao.address(), Secret::new(self.role.role_id.as_str()))
        }
    }

    /// The texts that nobody may see.
    pub fn assert_hides(&self, text: &str) {
        assert!(!text.contains("hunter2"), "{text}");
        assert!(!text.contains(&self.role.secret_id), "{text}");
    }
}

/// Secrets, kept up to date by a task that ends with it.
pub struct Live {
    pub secrets: Secrets,
    pub health: Health,
    pub stopper: Stopper,
    pub task: JoinHandle<()>,
    failures: Arc<AtomicU64>,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.stopper.stop();
    }
}

pub fn of_vault(vault: VaultConfig) -> SecretsConfig {
    SecretsConfig { vault: Some(vault), ..SecretsConfig::default() }
}

impl Live {
    pub async fn start(config: SecretsConfig, required: &[&str]) -> Self {
        let (health, (stopper, stop)) = (Health::default(), Stopper::new());
        let started = tokio::time::timeout(LONG, Secrets::start(config, required, health.clone(), &stop)).await;
        let Ok(started) = started else { panic!("it does not start: {:?}", health.all()) };
        let (secrets, refresher) = started.unwrap();
        let failures = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&failures);
        let refresher = refresher.telling(move |good| {
            counter.fetch_add(u64::from(!good), Ordering::SeqCst);
        });
        let task = tokio::spawn(refresher.run(stop));
        Self { secrets, health, stopper, task, failures }
    }

    /// Readings that failed, as the refresher told them.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::SeqCst)
    }

    pub fn redis(&self) -> Vec<String> {
        passwords(&self.secrets.redis_credentials())
    }

    pub async fn wait_redis(&self, expected: &[&str]) {
        let there = wait_until(LONG, || self.redis() == expected).await;
        assert!(there, "{:?} instead of {expected:?}", self.redis());
    }

    pub async fn wait_healthy(&self) {
        let healthy = wait_until(LONG, || self.health.broken(&[HEALTH_PART]).is_empty()).await;
        assert!(healthy, "{:?}", self.health.all());
    }

    /// Waits until /health has a reason with this text in it, and returns it.
    pub async fn wait_broken(&self, text: &str) -> String {
        wait_broken(&self.health, text).await
    }
}

pub fn passwords(credentials: &runtime::Credentials) -> Vec<String> {
    credentials.logins().iter().map(|login| login.password.expose().to_owned()).collect()
}

pub async fn wait_broken(health: &Health, text: &str) -> String {
    let broken = || health.broken(&[HEALTH_PART]).join(" ");
    assert!(wait_until(LONG, || broken().contains(text)).await, "{text:?} is not in {:?}", broken());
    broken()
}

/// A start that goes on in the background.
pub struct Starting {
    pub health: Health,
    pub stopper: Stopper,
    pub task: JoinHandle<Result<(Secrets, Refresher), StartError>>,
}

impl Starting {
    pub fn with(config: SecretsConfig, required: &'static [&'static str]) -> Self {
        let (health, (stopper, stop)) = (Health::default(), Stopper::new());
        let part = health.clone();
        let task = tokio::spawn(async move { Secrets::start(config, required, part, &stop).await });
        Self { health, stopper, task }
    }

    /// Waits for a reason with this text, and ends the start, which has to say that it was stopped.
    pub async fn fails_with(self, text: &str) -> String {
        let reason = wait_broken(&self.health, text).await;
        self.stopper.stop();
        let ended = tokio::time::timeout(LONG, self.task).await.unwrap().unwrap();
        assert!(matches!(ended, Err(StartError::Stopped)), "{ended:?}");
        reason
    }

    pub async fn succeeds(self) -> Secrets {
        let ended = tokio::time::timeout(LONG, self.task).await;
        let Ok(ended) = ended else { panic!("it does not start: {:?}", self.health.all()) };
        ended.unwrap().unwrap().0
    }
}
