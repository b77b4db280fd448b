//! Which stores are used, where they are, and which secrets the configuration gives.

use super::check::Check;
use super::raw::{self, Raw};
use super::settings::ChannelSettings;
use connectors::channels::ChannelConfig;
use runtime::secrets::{Local, VaultConfig, unusable};
use runtime::{Credentials, Secret};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use storage::catalog::{CatalogConfig, PgTls, PostgresConfig};
use storage::coordination::{CoordinationConfig, RedisCoordinationConfig};
use storage::events::EventStoreConfig;
use storage::queue::{QueueConfig, QueueLimits, RedisQueueConfig, RedisQueueKeys};
use storage::{RedisAddress, RedisConfig, RedisPlace, RedisTls};

/// The stores in force; their logins come with [`Self::with_logins`].
#[derive(Debug, Clone)]
pub struct StoreSettings {
    pub queue: QueueConfig,
    pub catalog: CatalogConfig,
    pub coordination: CoordinationConfig,
    pub events: EventStoreConfig,
    pub vault: Option<VaultConfig>,
    /// Secrets that file or environment give, by the names of [`runtime::secrets::NAMES`].
    pub given: BTreeMap<String, Local>,
}

impl StoreSettings {
    /// The same with logins that follow their source. `database` makes them for a configured user.
    pub fn with_logins(&self, redis: &Credentials, database: impl Fn(&str) -> Credentials) -> Self {
        let mut stores = self.clone();
        if let QueueConfig::Redis(config) = &mut stores.queue {
            config.redis.credentials = redis.clone();
        }
        if let CoordinationConfig::Redis(config) = &mut stores.coordination {
            config.redis.credentials = redis.clone();
        }
        if let CatalogConfig::Postgres(config) = &mut stores.catalog {
            let user = config.credentials.logins().into_iter().find_map(|login| login.user).unwrap_or_default();
            config.credentials = database(&user);
        }
        stores
    }

    /// The first Moogsoft channel has the keys of the original's forwarder, whatever it is called.
    pub(super) fn name_moogsoft(&mut self, channels: &[ChannelSettings]) {
        let first = channels.iter().find(|channel| matches!(channel.0, ChannelConfig::Moogsoft { .. }));
        if let (CoordinationConfig::Redis(config), Some(channel)) = (&mut self.coordination, first) {
            config.moog_channel = channel.0.name().to_owned();
        }
    }

    /// Whether other processes may take from the queues too.
    pub fn shares_queue(&self) -> bool {
        matches!(self.queue, QueueConfig::Redis(_))
    }

    /// The Redis in use, if one is.
    pub fn redis(&self) -> Option<&RedisConfig> {
        match (&self.queue, &self.coordination) {
            (QueueConfig::Redis(config), _) => Some(&config.redis),
            (_, CoordinationConfig::Redis(config)) => Some(&config.redis),
            _ => None,
        }
    }
}

/// Reads the stores; problems name their settings.
pub fn stores(
    check: &mut Check<'_>,
    raw: &Raw,
    limits: QueueLimits,
    pod: &str,
    environment: &BTreeMap<String, String>,
) -> StoreSettings {
    let data_dir = PathBuf::from(&raw.data_dir);
    let redis = redis(check, &raw.redis);
    let postgres = postgres(check, &raw.postgres);
    let embedded = || QueueConfig::Embedded { dir: data_dir.join("queue"), limits: limits.clone() };
    let redis_queue =
        |redis: RedisConfig| queue_keys(RedisQueueConfig::new(redis, limits.clone(), pod), &raw.redis.keys);
    let queue = match (raw.queue.r#type.as_str(), redis.clone()) {
        ("auto" | "redis", Some(redis)) => QueueConfig::Redis(Box::new(redis_queue(redis))),
        ("auto" | "embedded", _) => embedded(),
        ("memory", _) => QueueConfig::Memory(limits.clone()),
        ("redis", None) => {
            check.problem("queue.type", "is redis, but redis.host is empty");
            embedded()
        }
        (other, _) => {
            check.problem("queue.type", format!("`{other}` is not one of auto, embedded, memory, redis"));
            embedded()
        }
    };
    let local = || CoordinationConfig::Local { file: data_dir.join("state.db") };
    let coordination = match (raw.coordination.r#type.as_str(), redis) {
        ("auto" | "redis", Some(redis)) => {
            CoordinationConfig::Redis(Box::new(coordination_keys(RedisCoordinationConfig::new(redis), &raw.redis.keys)))
        }
        ("auto" | "local", _) => local(),
        ("redis", None) => {
            check.problem("coordination.type", "is redis, but redis.host is empty");
            local()
        }
        (other, _) => {
            check.problem("coordination.type", format!("`{other}` is not one of auto, local, redis"));
            local()
        }
    };
    let sqlite = || CatalogConfig::Sqlite { file: data_dir.join("catalog.db") };
    let catalog = match (raw.catalog.r#type.as_str(), postgres) {
        ("auto" | "postgres", Some(postgres)) => CatalogConfig::Postgres(postgres),
        ("auto" | "sqlite", _) => sqlite(),
        ("postgres", None) => {
            check.problem("catalog.type", "is postgres, but postgres.host is empty");
            sqlite()
        }
        (other, _) => {
            check.problem("catalog.type", format!("`{other}` is not one of auto, sqlite, postgres"));
            sqlite()
        }
    };
    let events = EventStoreConfig::Sqlite { dir: data_dir.join("events"), read_also: raw.events.read_also.clone() };
    StoreSettings {
        queue,
        catalog,
        coordination,
        events,
        vault: vault(check, &raw.vault),
        given: given(check, raw, environment),
    }
}

/// Secrets by the names that Vault uses too. What the settings say goes before files that only the
/// environment names. A file that holds no secret is a mistake: a random key in its place would
/// shut out who has the right one.
fn given(check: &mut Check<'_>, raw: &Raw, environment: &BTreeMap<String, String>) -> BTreeMap<String, Local> {
    let by_environment = runtime::secrets::from_environment(environment);
    let mut given = by_environment.clone();
    for (name, setting, text) in [
        ("INGEST_API_KEY", "keys.ingest", &raw.keys.ingest),
        ("WEBUI_API_KEY", "keys.webui", &raw.keys.webui),
        ("MOOG_API_KEY", "forwarder.moog.api_key", &raw.forwarder.moog.api_key),
        ("REDIS_PASS_CURRENT", "redis.password", &raw.redis.password),
        ("REDIS_PASS_NEXT", "redis.password_next", &raw.redis.password_next),
        ("DB_PASS_CURRENT", "postgres.password", &raw.postgres.password),
        ("DB_PASS_NEXT", "postgres.password_next", &raw.postgres.password_next),
        ("REDIS_USER", "redis.user", &raw.redis.user),
        ("SMTP_PASS", "forwarder.email.password", &raw.forwarder.email.password),
        ("SLACK_WEBHOOK_URL", "forwarder.slack.url", &raw.forwarder.slack.url),
    ] {
        if text.is_empty() {
            continue;
        }
        let local = Local::parse(text);
        // A setting that a variable has set is named by the variable.
        if !by_environment.values().any(|other| *other == local) {
            let one = BTreeMap::from([(name.to_owned(), local.clone())]);
            unusable(&one, &BTreeMap::new()).into_iter().for_each(|problem| check.problem(setting, problem.message));
        }
        given.insert(name.to_owned(), local);
    }
    let unchanged = given.iter().filter(|(name, local)| by_environment.get(*name) == Some(*local));
    let unchanged = unchanged.map(|(name, local)| (name.clone(), local.clone())).collect();
    unusable(&unchanged, environment).into_iter().for_each(|p| check.problem(p.path, p.message));
    given
}

fn ca_file(check: &mut Check<'_>, path: &str, file: &str) -> Option<PathBuf> {
    if file.is_empty() {
        return None;
    }
    if !Path::new(file).is_file() {
        check.problem(path, format!("`{file}` is not a file"));
    }
    Some(PathBuf::from(file))
}

fn address(check: &mut Check<'_>, path: &str, text: &str) -> Option<RedisAddress> {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, "26379"));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match port.parse() {
        Ok(port) if port > 0 && !host.is_empty() => Some(RedisAddress { host: host.to_owned(), port }),
        _ => {
            check.problem(path, format!("`{text}` is not of the form host:port"));
            None
        }
    }
}

fn redis(check: &mut Check<'_>, raw: &raw::Redis) -> Option<RedisConfig> {
    let nodes: Vec<RedisAddress> = raw
        .sentinels
        .iter()
        .enumerate()
        .filter_map(|(n, text)| address(check, &format!("redis.sentinels[{n}]"), text))
        .collect();
    if raw.host.is_empty() && raw.sentinels.is_empty() {
        return None;
    }
    let port = check.range("redis.port", raw.port, 1, 65_535);
    let place = if nodes.is_empty() {
        RedisPlace::Server(RedisAddress { host: raw.host.clone(), port })
    } else {
        RedisPlace::Sentinel { nodes, master: raw.sentinel_master.clone() }
    };
    Some(RedisConfig {
        place,
        db: check.range("redis.db", raw.db, 0, 1 << 20),
        credentials: Credentials::fixed(None, Secret::new("")),
        tls: raw.tls.then(|| RedisTls { ca_file: ca_file(check, "redis.ca_file", &raw.ca_file) }),
        connect_timeout: check.millis("redis.connect_timeout_ms", raw.connect_timeout_ms, 10, 300_000),
        answer_timeout: check.millis("redis.answer_timeout_ms", raw.answer_timeout_ms, 10, 300_000),
    })
    .inspect(|_| keys(check, &raw.keys))
}

fn keys(check: &mut Check<'_>, keys: &raw::RedisKeys) {
    let lists = [&keys.ingest_queue, &keys.alert_queue, &keys.alerter_dlq, &keys.moog_dlq, &keys.dead_letters];
    for (n, list) in lists.iter().enumerate() {
        if list.is_empty() || lists[..n].contains(list) {
            check.problem("redis.keys", format!("`{list}` is empty or the name of two lists"));
        }
    }
    for (path, silence_ms) in [
        ("redis.keys.alerter_silence_ms", keys.alerter_silence_ms),
        ("redis.keys.moog_silence_ms", keys.moog_silence_ms),
    ] {
        check.millis(path, silence_ms, 1_000, 3_600_000);
    }
}

fn queue_keys(config: RedisQueueConfig, keys: &raw::RedisKeys) -> RedisQueueConfig {
    let silence = |ms: i64| std::time::Duration::from_millis(ms.max(1_000).unsigned_abs());
    RedisQueueConfig {
        ingest: RedisQueueKeys {
            list: keys.ingest_queue.clone(),
            processing: keys.alerter_processing.clone(),
            heartbeat: keys.alerter_heartbeat.clone(),
            silence_max: silence(keys.alerter_silence_ms),
            foreign_ids: Some(pipeline::foreign::EVENTS),
        },
        alerts: RedisQueueKeys {
            list: keys.alert_queue.clone(),
            processing: keys.moog_processing.clone(),
            heartbeat: keys.moog_heartbeat.clone(),
            silence_max: silence(keys.moog_silence_ms),
            foreign_ids: Some(pipeline::foreign::ALERTS),
        },
        dlq_alerter: keys.alerter_dlq.clone(),
        dlq_forwarder: keys.moog_dlq.clone(),
        dead: keys.dead_letters.clone(),
        ..config
    }
}

fn coordination_keys(config: RedisCoordinationConfig, keys: &raw::RedisKeys) -> RedisCoordinationConfig {
    RedisCoordinationConfig {
        moog_rate_limit_key: keys.moog_rate_limit.clone(),
        moog_circuit_prefix: keys.moog_circuit.clone(),
        unhandled_prefix: keys.unhandled.clone(),
        metrics_prefix: keys.metrics.clone(),
        ..config
    }
}

fn postgres(check: &mut Check<'_>, raw: &raw::Postgres) -> Option<PostgresConfig> {
    if raw.host.is_empty() {
        return None;
    }
    for (path, text) in [("postgres.database", &raw.database), ("postgres.user", &raw.user)] {
        if text.is_empty() {
            check.problem(path, "is empty");
        }
    }
    let user = Credentials::fixed(Some(raw.user.clone()), Secret::new(""));
    let port = check.range("postgres.port", raw.port, 1, 65_535);
    let mut config = PostgresConfig::new(&raw.host, port, &raw.database, user);
    config.tls = if raw.tls {
        PgTls::Required { ca_file: ca_file(check, "postgres.ca_file", &raw.ca_file) }
    } else {
        PgTls::Off
    };
    config.pool_min = check.range("postgres.pool_min", raw.pool_min, 0, 1_000);
    config.pool_max = check.range("postgres.pool_max", raw.pool_max, 1, 1_000);
    if config.pool_min > config.pool_max {
        check.problem("postgres.pool_min", "is over postgres.pool_max");
    }
    config.statement_timeout = check.millis("postgres.statement_timeout_ms", raw.statement_timeout_ms, 100, 3_600_000);
    config.acquire_timeout = check.millis("postgres.acquire_timeout_ms", raw.acquire_timeout_ms, 100, 300_000);
    Some(config)
}

fn vault(check: &mut Check<'_>, raw: &raw::Vault) -> Option<VaultConfig> {
    if raw.address.is_empty() {
        return None;
    }
    let text = |text: &String| (!text.is_empty()).then(|| text.clone());
    let mut config = VaultConfig::new(&raw.address, Secret::new(&raw.role_id));
    config.secret_id_file = PathBuf::from(&raw.secret_id_file);
    config.token = text(&raw.token).map(|token| check.secret("vault.token", &token));
    config.mount.clone_from(&raw.mount);
    config.path.clone_from(&raw.path);
    config.ca_file = ca_file(check, "vault.ca_file", &raw.ca_file);
    config.namespace = text(&raw.namespace);
    config.renew_threshold = check.millis("vault.renew_threshold_ms", raw.renew_threshold_ms, 0, 86_400_000_000);
    config.renew_check_interval = check.millis("vault.renew_check_ms", raw.renew_check_ms, 100, 86_400_000);
    config.refresh_interval = check.millis("vault.refresh_ms", raw.refresh_ms, 100, 86_400_000);
    for problem in config.problems() {
        check.problem(problem.path, problem.message);
    }
    Some(config)
}
