//! The live handle: start, refresh, and what readers hold.

use super::session::{Counters, count};
use super::sources::Sources;
use super::{Counts, Local, SecretSet, SecretsConfig};
use crate::backoff::Backoff;
use crate::config::Problem;
use crate::{Credentials, CredentialsWriter, Health, Secret, Stop};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// The part of [`Health`] that says whether Vault answers. Without a Vault it is not reported.
pub const HEALTH_PART: &str = "vault";

/// First wait after a failed try, and the longest.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Refreshes that are asked for are at least this far apart: a store that refuses every login of
/// many workers must not become a flood of requests to Vault.
const ASKED_SPACING: Duration = Duration::from_millis(200);
/// How often it is looked whether a secret id that was refused has been replaced.
const SECRET_ID_INTERVAL: Duration = Duration::from_secs(5);
/// As [`ASKED_SPACING`], after a failure.
const ASKED_SPACING_FAILED: Duration = Duration::from_secs(1);

/// Reasons of one outage that are remembered as logged.
const REASONS_MAX: usize = 16;

/// Why there are no secrets.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Trying again cannot mend it.
    #[error("the configuration of secrets cannot be used: {}", list(.0))]
    Config(Vec<Problem>),
    #[error("stopped before the secrets were there")]
    Stopped,
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Why a refresh that was asked for gave nothing new.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefreshError {
    /// The values of before stay.
    #[error("{0}")]
    Failed(String),
    #[error("secrets are not refreshed any more")]
    Stopped,
}

/// Secrets that follow their sources as long as their [`Refresher`] runs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Secrets(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Refreshes asked for, by number.
    asked: watch::Sender<u64>,
    served: watch::Receiver<Served>,
    counters: Arc<Counters>,
}

/// The last refresh: the highest number asked for when it began, and how it ended.
#[derive(Debug, Clone)]
struct Served {
    number: u64,
    result: Result<(), String>,
}

/// The state and everybody who follows it; changed together under one lock, so that a follower that
/// joins meanwhile misses nothing.
#[derive(Debug)]
struct State {
    set: SecretSet,
    redis: (CredentialsWriter, Credentials),
    /// By the user of the configuration.
    databases: BTreeMap<String, (CredentialsWriter, Credentials)>,
    lists: BTreeMap<String, watch::Sender<Vec<Secret>>>,
}

impl State {
    fn new(set: SecretSet, asked: &watch::Sender<u64>) -> Self {
        let (writer, credentials) = Credentials::new(redis_logins(&set));
        let redis = (writer, credentials.asking(asked.clone()));
        Self { set, redis, databases: BTreeMap::new(), lists: BTreeMap::new() }
    }

    fn publish(&mut self, set: SecretSet) {
        self.redis.0.set(redis_logins(&set));
        for (user, (writer, _)) in &self.databases {
            writer.set(set.logins("DB_USER", Some(user), "DB_PASS"));
        }
        for (name, sender) in &self.lists {
            let accepted = set.accepted(name);
            sender.send_if_modified(|old| {
                let differs = *old != accepted;
                if differs {
                    *old = accepted;
                }
                differs
            });
        }
        self.set = set;
    }
}

fn redis_logins(set: &SecretSet) -> Vec<crate::Login> {
    set.logins("REDIS_USER", None, "REDIS_PASS")
}

impl Secrets {
    /// Waits until every secret of `required` has a value and Vault, where one is configured, has
    /// answered once; any name of a secret will do (`DB_PASS` stands for `DB_PASS_CURRENT` too).
    ///
    /// Every try that fails is logged with what is missing, and repeated: at once at first, later
    /// every 30 s, until it works or `stop`; a refused login when there is another secret id, or much
    /// later. The process does not run with old values of the
    /// environment while Vault, which may know better, is not there. Only what trying again cannot
    /// mend ends it: a mistake of the configuration, or a missing variable where nobody else could
    /// give the secret.
    pub async fn start(
        config: SecretsConfig,
        required: &[&str],
        health: Health,
        stop: &Stop,
    ) -> Result<(Self, Refresher), StartError> {
        let problems = problems(&config, required);
        if !problems.is_empty() {
            return Err(StartError::Config(problems));
        }
        if let Some(vault) = config.vault.as_ref().filter(|vault| vault.is_plain_over_network()) {
            let address = &vault.address;
            tracing::warn!(address, "secrets cross the network unencrypted: VAULT_ADDR should start with https://");
        }
        let counters = Arc::new(Counters::default());
        let intervals = Intervals::of(&config);
        let mut sources = Sources::new(config, required, Arc::clone(&counters));
        let backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
        let mut attempt = 0;
        let mut refused_before = None;
        loop {
            attempt += 1;
            let Err(reason) = first_read(&mut sources, stop).await? else { break };
            if sources.has_vault() {
                health.failed(HEALTH_PART, reason.clone());
            }
            let refused = sources.refused_login();
            let wait = if refused.is_some() { SECRET_ID_INTERVAL } else { backoff.delay(attempt) };
            let wait_ms = wait.as_millis() as u64;
            match refused {
                None => {
                    tracing::warn!(
                        attempt,
                        wait_ms,
                        reason,
                        "the secrets are not there yet; trying again in {wait_ms} ms"
                    );
                }
                Some(_) if refused != refused_before => {
                    tracing::warn!(attempt, reason, "the secrets are not there yet: the login was refused");
                }
                // Nobody was asked: it was only looked for another secret id.
                Some(_) => {}
            }
            refused_before = refused;
            if !stop.sleep(wait).await {
                return Err(StartError::Stopped);
            }
        }
        if sources.has_vault() {
            health.ok(HEALTH_PART);
        }
        let set = sources.set();
        tracing::info!(names = set.names().collect::<Vec<_>>().join(","), "the secrets are there");
        let (served_writer, served) = watch::channel(Served { number: 0, result: Ok(()) });
        let (asked, asked_reader) = watch::channel(0);
        let state = Mutex::new(State::new(set, &asked));
        let shared = Arc::new(Shared { state, asked, served, counters });
        let refresher = Refresher {
            sources,
            shared: Arc::clone(&shared),
            asked: asked_reader,
            served: served_writer,
            health,
            intervals,
            on_reading: None,
        };
        Ok((Self(shared), refresher))
    }

    /// The logins of Redis: `REDIS_PASS_CURRENT`, `_NEXT`, then the older names, for `REDIS_USER`
    /// or the default user. Never empty.
    pub fn redis_credentials(&self) -> Credentials {
        self.state().redis.1.clone()
    }

    /// The logins of the database: `DB_PASS_CURRENT`, `_NEXT`, then the older names, for `DB_USER`
    /// where a source gives one, else for `user`. Never empty.
    pub fn database_credentials(&self, user: &str) -> Credentials {
        let mut state = self.state();
        if let Some((_, credentials)) = state.databases.get(user) {
            return credentials.clone();
        }
        let (writer, credentials) = Credentials::new(state.set.logins("DB_USER", Some(user), "DB_PASS"));
        let credentials = credentials.asking(self.0.asked.clone());
        state.databases.insert(user.to_owned(), (writer, credentials.clone()));
        credentials
    }

    /// The values of an API key that count now, `CURRENT` first: accept each of them, send the first
    /// and on a refusal the next. Empty where there is none.
    pub fn watch(&self, name: &str) -> watch::Receiver<Vec<Secret>> {
        let mut state = self.state();
        let accepted = state.set.accepted(name);
        let sender = state.lists.entry(name.to_owned()).or_insert_with(|| watch::channel(accepted).0);
        sender.subscribe()
    }

    /// Everything that is known now.
    pub fn snapshot(&self) -> SecretSet {
        self.state().set.clone()
    }

    /// Reads files and Vault at once and returns when readers have what they say; for drivers whose
    /// login has failed. Many who ask together share one reading. Waits for the [`Refresher`].
    pub async fn refresh_now(&self) -> Result<(), RefreshError> {
        let mut served = self.0.served.clone();
        let mut number = 0;
        self.0.asked.send_modify(|asked| {
            *asked += 1;
            number = *asked;
        });
        let served = served.wait_for(|s| s.number >= number).await.map_err(|_| RefreshError::Stopped)?;
        served.result.clone().map_err(RefreshError::Failed)
    }

    /// What has been done since the start.
    pub fn counts(&self) -> Counts {
        self.0.counters.counts()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn problems(config: &SecretsConfig, required: &[&str]) -> Vec<Problem> {
    if let Some(vault) = &config.vault {
        return vault.problems();
    }
    let given = SecretSet::new(config.local.iter().map(|(name, local)| {
        // A file may come later; what counts is that somebody is to give the value.
        let value = match local {
            Local::Text(secret) => secret.clone(),
            Local::File(_) => Secret::new("later"),
        };
        (name.clone(), value)
    }));
    let missing = required.iter().filter(|name| !given.has(name));
    missing
        .map(|name| Problem {
            path: (*name).to_owned(),
            message: "is not set, and there is no Vault (VAULT_ADDR) to read it from".to_owned(),
        })
        .collect()
}

/// The inner error is worth another try.
async fn first_read(sources: &mut Sources, stop: &Stop) -> Result<Result<(), String>, StartError> {
    let read = async {
        sources.local.poll().await;
        sources.read_vault().await.map_err(|e| e.to_string())?;
        sources.missing()
    };
    tokio::select! {
        () = stop.requested() => Err(StartError::Stopped),
        result = read => Ok(result),
    }
}

#[derive(Debug, Clone, Copy)]
struct Intervals {
    files: Duration,
    vault: Duration,
}

impl Intervals {
    fn of(config: &SecretsConfig) -> Self {
        let vault = config.vault.as_ref().map_or(Duration::MAX, |vault| vault.refresh_interval);
        Self { files: config.files_interval.max(Duration::from_millis(10)), vault }
    }
}

/// Keeps [`Secrets`] up to date; run it as a task of the process.
#[derive(Debug)]
pub struct Refresher {
    sources: Sources,
    shared: Arc<Shared>,
    asked: watch::Receiver<u64>,
    served: watch::Sender<Served>,
    health: Health,
    intervals: Intervals,
    on_reading: Option<OnReading>,
}

struct OnReading(Box<dyn Fn(bool) + Send + Sync>);

impl std::fmt::Debug for OnReading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OnReading")
    }
}

impl Refresher {
    /// Calls `tell` after every reading of Vault, with whether it was good; for metrics.
    pub fn telling(mut self, tell: impl Fn(bool) + Send + Sync + 'static) -> Self {
        self.on_reading = Some(OnReading(Box::new(tell)));
        self
    }

    /// Returns when stopped; nothing else ends it.
    pub async fn run(mut self, stop: Stop) {
        let backoff = Backoff::new(Duration::from_secs(1), self.intervals.vault.min(RETRY_MAX));
        let mut failures = 0;
        let mut said: Vec<String> = Vec::new();
        let mut files_at = far(self.sources.local.has_files().then_some(self.intervals.files));
        let mut vault_at = self.vault_at();
        let mut asked_at = Instant::now();
        loop {
            let asked = tokio::select! {
                () = stop.requested() => return,
                () = tokio::time::sleep_until(files_at.min(vault_at)) => false,
                _ = self.asked.changed() => true,
            };
            if asked && !sleep_until(asked_at, &stop).await {
                return;
            }
            let now = Instant::now();
            self.sources.local.poll().await;
            files_at = far(self.sources.local.has_files().then_some(self.intervals.files));
            if !asked && now < vault_at {
                self.publish();
                continue;
            }
            let number = *self.asked.borrow_and_update();
            let result = tokio::select! {
                () = stop.requested() => return,
                result = self.sources.read_vault() => result,
            };
            self.publish();
            match &result {
                Ok(()) => {
                    failures = 0;
                    said.clear();
                    vault_at = self.vault_at();
                    if self.sources.has_vault() {
                        self.health.ok(HEALTH_PART);
                    }
                }
                Err(error) => {
                    failures += 1;
                    vault_at = Instant::now() + backoff.delay(failures);
                    let reason = error.to_string();
                    self.health.failed_publicly(HEALTH_PART, reason.clone(), error.public());
                    // The first reason of an outage is logged by `Health`.
                    if failures > 1 && !said.contains(&reason) {
                        tracing::warn!(failures, reason, "the secrets stay as they are, now for another reason");
                    }
                    if !said.contains(&reason) && said.len() < REASONS_MAX {
                        said.push(reason);
                    }
                }
            }
            if self.sources.has_vault()
                && let Some(OnReading(tell)) = &self.on_reading
            {
                tell(result.is_ok());
            }
            let result = result.map_err(|error| error.to_string());
            asked_at = Instant::now() + if result.is_ok() { ASKED_SPACING } else { ASKED_SPACING_FAILED };
            self.served.send_replace(Served { number, result });
        }
    }

    /// When Vault is read next: a little earlier or later than others, and in time for the token.
    fn vault_at(&self) -> Instant {
        if !self.sources.has_vault() {
            return far(None);
        }
        let jitter = 0.9 + fastrand::f64() / 5.0;
        let regular = far(Some(self.intervals.vault.min(Duration::from_secs(86_400)).mul_f64(jitter)));
        let soonest = Instant::now() + ASKED_SPACING;
        self.sources.token_due().map_or(regular, |due| due.min(regular)).max(soonest)
    }

    fn publish(&self) {
        let set = self.sources.set();
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        let names = state.set.differing(&set);
        if names.is_empty() {
            return;
        }
        state.publish(set);
        drop(state);
        count(&self.shared.counters.changes);
        tracing::info!(names = names.join(","), "secrets have changed");
    }
}

/// That long from now; without a wait, so far that nobody lives to see it.
fn far(wait: Option<Duration>) -> Instant {
    Instant::now() + wait.unwrap_or(Duration::from_secs(10 * 365 * 86_400))
}

/// `false` when stopped before.
async fn sleep_until(at: Instant, stop: &Stop) -> bool {
    tokio::select! {
        () = stop.requested() => false,
        () = tokio::time::sleep_until(at) => true,
    }
}
