//! Live settings: strings `mutt:config:<name>`, changes told on `mutt:config:updates` (contract mutt
//! §8.2).
//!
//! Values are read anew at each look, so a change of a setting whose name is known acts at once.
//! Names become known from four sides: the contract's are known from the start; a subscription hears
//! of those that others set; a full walk over the keys at the start finds what is there; and a slow
//! walk that never ends, [`LOOK_KEYS`] keys a second in steps of [`STEP_KEYS`], finds what was set
//! without a word. No look ever walks over all keys.

use super::{RedisCoordination, RedisCoordinationConfig, lock};
use crate::coordination::changed_meanwhile;
use crate::redis::RedisClient;
use crate::{StorageError, StorageResult};
use model::ErrorKind;
use redis::Script;
use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

static SET: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("setting.lua")));
static REPLACE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("setting_replace.lua")));

const LOOK_EVERY: Duration = Duration::from_secs(1);
const STEP_KEYS: usize = 1_000;
/// Keys that one look of the slow walk passes: 100,000 keys are passed in five seconds.
const LOOK_KEYS: usize = 20 * STEP_KEYS;
const NAMES_MAX: usize = 10_000;
const NAME_BYTES_MAX: usize = 512;
const PING_EVERY: Duration = Duration::from_secs(2);
/// A subscription that does not answer for this long is made anew.
const SILENT_MAX: Duration = Duration::from_secs(5);
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Settings of the contract; these are never overlooked.
const CONTRACT: [&str; 28] = [
    "max_ingest_queue_size",
    "ingest_max_rate",
    "ingest_rate_window",
    "cache_reload_interval",
    "unhandled_threshold",
    "unhandled_expiry_seconds",
    "unhandled_default_team",
    "alerter_queue_warn_threshold",
    "alerter_queue_shed_threshold",
    "alerter_shed_mode",
    "alerter_defer_sleep_ms",
    "moog_rate_limit",
    "moog_rate_period",
    "circuit_breaker_threshold",
    "circuit_breaker_timeout",
    "remediation_enabled",
    "remediation_interval",
    "remediation_batch_size",
    "max_poison_retries",
    "slo_window_hours",
    "slo_ingest_success_target",
    "slo_forward_success_target",
    "event_retention_days",
    "event_archive_retention_years",
    "config_audit_retention_days",
    "retention_enforcement_enabled",
    "metrics_retention_days",
    "log_retention_days",
];

/// The names of the settings that may be set.
pub(super) struct Names {
    names: Mutex<BTreeSet<String>>,
    is_loaded: AtomicBool,
    is_full: AtomicBool,
    prefix: String,
    channel: String,
}

impl Names {
    pub fn new(config: &RedisCoordinationConfig) -> Self {
        Self {
            names: Mutex::new(CONTRACT.iter().map(|name| (*name).to_owned()).collect()),
            is_loaded: AtomicBool::new(false),
            is_full: AtomicBool::new(false),
            prefix: config.setting(""),
            channel: config.settings_channel(),
        }
    }

    fn add(&self, name: &str) {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return;
        }
        let mut names = lock(&self.names);
        if names.len() < NAMES_MAX {
            names.insert(name.to_owned());
        } else if !names.contains(name) && !self.is_full.swap(true, Ordering::Relaxed) {
            tracing::error!(settings = NAMES_MAX, "too many live settings; further ones are not seen");
        }
    }

    /// One step of a walk over the keys; the cursor of the next, 0 after the last.
    async fn step(&self, client: &RedisClient, cursor: u64) -> StorageResult<u64> {
        let mut command = redis::cmd("SCAN");
        command.arg(cursor).arg("MATCH").arg(format!("{}*", glob(&self.prefix))).arg("COUNT").arg(STEP_KEYS);
        let (next, keys): (u64, Vec<Vec<u8>>) = client.query(&command).await?;
        for key in keys {
            if let Some(name) = std::str::from_utf8(&key).ok().and_then(|key| key.strip_prefix(&self.prefix)) {
                self.add(name);
            }
        }
        Ok(next)
    }

    async fn load(&self, client: &RedisClient) -> StorageResult<()> {
        let mut cursor = self.step(client, 0).await?;
        while cursor != 0 {
            cursor = self.step(client, cursor).await?;
        }
        self.is_loaded.store(true, Ordering::Release);
        Ok(())
    }

    /// The slow walk; the driver ends it.
    pub async fn keep_walking(self: Arc<Self>, client: RedisClient) {
        let mut cursor = 0;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            for _ in 0..LOOK_KEYS / STEP_KEYS {
                // Where Redis is away the callers of `settings` say so.
                cursor = self.step(&client, cursor).await.unwrap_or(0);
                if cursor == 0 {
                    break;
                }
            }
        }
    }

    /// The subscription, made anew for ever; the driver ends it.
    pub async fn keep_listening(self: Arc<Self>, client: RedisClient) {
        let mut is_failing = false;
        loop {
            let ended = self.listen(&client, &mut is_failing).await;
            if !std::mem::replace(&mut is_failing, true) {
                tracing::warn!(error = %ended, "changes of live settings are not heard; subscribing again");
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    /// Listens until the connection fails.
    async fn listen(&self, client: &RedisClient, is_failing: &mut bool) -> StorageError {
        let opened = async {
            let (mut sink, stream) = client.subscriber().await?.split();
            answer(sink.subscribe(self.channel.as_str())).await?;
            // What was set while nobody listened was told to nobody.
            self.load(client).await?;
            Ok::<_, StorageError>((sink, stream))
        };
        let (mut sink, mut stream) = match opened.await {
            Ok(opened) => opened,
            Err(error) => return error,
        };
        if std::mem::replace(is_failing, false) {
            tracing::info!("changes of live settings are heard again");
        }
        loop {
            let next = std::future::poll_fn(|cx| futures_core::Stream::poll_next(Pin::new(&mut stream), cx));
            match tokio::time::timeout(PING_EVERY, next).await {
                Ok(Some(message)) => {
                    let payload: Vec<u8> = message.get_payload().unwrap_or_default();
                    self.add(&String::from_utf8_lossy(&payload));
                }
                Ok(None) => return StorageError::new(ErrorKind::Unavailable, "Redis closed the subscription"),
                Err(_) => {
                    if let Err(error) = answer(sink.ping::<redis::Value>()).await {
                        return error;
                    }
                }
            }
        }
    }
}

impl RedisCoordination {
    pub(super) async fn read_settings(&self) -> StorageResult<BTreeMap<String, String>> {
        if !self.names.is_loaded.load(Ordering::Acquire) {
            self.names.load(&self.client).await?;
        }
        let names: Vec<String> = lock(&self.names.names).iter().cloned().collect();
        let mut settings = BTreeMap::new();
        let mut gone = Vec::new();
        for part in names.chunks(STEP_KEYS) {
            let mut command = redis::cmd("MGET");
            for name in part {
                command.arg(self.config.setting(name));
            }
            let values: Vec<Option<Vec<u8>>> = self.client.query(&command).await?;
            for (name, value) in part.iter().zip(values) {
                match value {
                    Some(value) => {
                        settings.insert(name.clone(), String::from_utf8_lossy(&value).into_owned());
                    }
                    None if CONTRACT.contains(&name.as_str()) => {}
                    None => gone.push(name),
                }
            }
        }
        // Only under pressure: a name that is told while we read must not be forgotten again.
        if names.len() > NAMES_MAX / 2 {
            let mut known = lock(&self.names.names);
            gone.into_iter().for_each(|name| {
                known.remove(name);
            });
            self.names.is_full.store(false, Ordering::Relaxed);
        }
        Ok(settings)
    }

    /// `None` removes it. Returns the value before.
    pub(super) async fn write_setting(&self, name: &str, value: Option<&str>) -> StorageResult<Option<String>> {
        check_name(name)?;
        let mut script = SET.prepare_invoke();
        script.key(self.config.setting(name)).arg(&self.names.channel).arg(name);
        if let Some(value) = value {
            script.arg(value);
        }
        let before: Option<Vec<u8>> = self.client.script(&script).await?;
        if value.is_some() {
            self.names.add(name);
        }
        Ok(before.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// See [`crate::coordination::Coordination::replace_setting`].
    pub(super) async fn exchange_setting(&self, name: &str, old: Option<&str>, new: Option<&str>) -> StorageResult<()> {
        check_name(name)?;
        let mut expected: Option<Vec<u8>> = old.map(|text| text.as_bytes().to_vec());
        loop {
            let mut script = REPLACE.prepare_invoke();
            script.key(self.config.setting(name)).arg(&self.names.channel).arg(name);
            script.arg(if expected.is_some() { "set" } else { "unset" }).arg(expected.as_deref().unwrap_or_default());
            if let Some(value) = new {
                script.arg(value);
            }
            let (replaced, now): (bool, Option<Vec<u8>>) = self.client.script(&script).await?;
            if replaced {
                if new.is_some() {
                    self.names.add(name);
                }
                return Ok(());
            }
            // Bytes of another program that are no text: they were read as the text that looks alike.
            let is_alike = now.as_deref().map(String::from_utf8_lossy).as_deref() == old;
            if !is_alike || now == expected {
                return Err(changed_meanwhile());
            }
            expected = now;
        }
    }
}

fn check_name(name: &str) -> StorageResult<()> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        let context = format!("the name of a live setting must have 1 to {NAME_BYTES_MAX} bytes");
        return Err(StorageError::new(ErrorKind::Invalid, context));
    }
    Ok(())
}

async fn answer<T>(request: impl Future<Output = redis::RedisResult<T>>) -> StorageResult<T> {
    let context = "Redis, the subscription to changes of live settings";
    match tokio::time::timeout(SILENT_MAX, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(StorageError::with_source(ErrorKind::Unavailable, context, error)),
        Err(_) => Err(StorageError::new(ErrorKind::Timeout, format!("{context}: no answer"))),
    }
}

/// `text` as a pattern that matches only itself.
fn glob(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if "*?[]\\^-".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}
