//! The settings as they are written. The overlay has checked keys and types already; this turns the
//! merged table into structs.

use super::channels;
use pipeline::notify::RouteSpec;
use runtime::config::Problem;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Raw {
    pub data_dir: String,
    pub roles: Vec<String>,
    pub grace_ms: i64,
    pub log: Log,
    pub keys: Keys,
    pub ingest: Ingest,
    pub redis: Redis,
    pub postgres: Postgres,
    pub vault: Vault,
    pub catalog: Kind,
    pub coordination: Kind,
    pub events: Events,
    pub queue: Queue,
    pub alerter: Alerter,
    pub detection: Detection,
    pub forwarder: Forwarder,
    /// Read one by one, so that a mistake in one says which.
    #[serde(skip)]
    pub channel: Vec<(usize, Channel)>,
    /// Read one by one, too.
    #[serde(skip)]
    pub routes: Vec<RouteSpec>,
    pub incidents: Incidents,
    pub remediation: Remediation,
    pub webui: Webui,
    pub retention: Retention,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    pub level: String,
    pub json: bool,
    pub pod_name: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Events {
    pub read_also: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    pub ingest: String,
    pub webui: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ingest {
    pub agents: Agents,
    pub http: Http,
    pub limit: Limit,
    pub syslog: Syslog,
    pub snmp: Snmp,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agents {
    pub listen: String,
    pub also_listen: String,
    /// A text, because its two names in the environment may not contradict each other.
    pub tls: String,
    pub use_tls: String,
    pub tls_cert: String,
    pub tls_key: String,
    pub legacy_plaintext: bool,
    pub demo: bool,
    pub names: Vec<String>,
    pub public_address: String,
    pub ca_dir: String,
    pub certificate_days: i64,
    pub downloads: String,
    pub connections_max: i64,
    pub connections_per_address_max: i64,
    pub durability: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snmp {
    pub udp: String,
    pub communities: Vec<String>,
    /// Read one by one, so that a mistake in one says which.
    pub users: Vec<toml::Table>,
    pub trust_agent_address: bool,
    pub oid_names: String,
    pub durability: String,
    pub receive_buffer_bytes: i64,
    pub hostnames: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnmpUser {
    pub name: String,
    #[serde(default)]
    pub auth: String,
    #[serde(default)]
    pub auth_passphrase: String,
    #[serde(default)]
    pub privacy: String,
    #[serde(default)]
    pub privacy_passphrase: String,
    #[serde(default)]
    pub engine_id: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    pub listen: String,
    pub tls_cert: String,
    pub tls_key: String,
    pub dangerous_allow_tls12: bool,
    pub durability: String,
    pub required_fields: Vec<String>,
    pub body_bytes_max: i64,
    pub event_bytes_max: i64,
    pub events_max: i64,
    pub depth_max: i64,
    pub body_timeout_ms: i64,
    pub connections_max: i64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    pub enabled: bool,
    pub events_max: i64,
    pub window_ms: i64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Syslog {
    pub udp: String,
    pub tcp: String,
    pub tls: String,
    pub tls_cert: String,
    pub tls_key: String,
    pub dangerous_allow_tls12: bool,
    pub durability: String,
    pub message_bytes_max: i64,
    pub connections_max: i64,
    pub idle_timeout_ms: i64,
    pub receive_buffer_bytes: i64,
    pub timezone: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    pub host: String,
    pub port: i64,
    pub db: i64,
    pub user: String,
    pub password: String,
    pub password_next: String,
    pub tls: bool,
    pub ca_file: String,
    pub sentinels: Vec<String>,
    pub sentinel_master: String,
    pub connect_timeout_ms: i64,
    pub answer_timeout_ms: i64,
    pub keys: RedisKeys,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisKeys {
    pub ingest_queue: String,
    pub alert_queue: String,
    pub alerter_dlq: String,
    pub moog_dlq: String,
    pub dead_letters: String,
    pub alerter_processing: String,
    pub alerter_heartbeat: String,
    pub alerter_silence_ms: i64,
    pub moog_processing: String,
    pub moog_heartbeat: String,
    pub moog_silence_ms: i64,
    pub metrics: String,
    pub unhandled: String,
    pub moog_rate_limit: String,
    pub moog_circuit: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Postgres {
    pub host: String,
    pub port: i64,
    pub database: String,
    pub user: String,
    pub password: String,
    pub password_next: String,
    pub tls: bool,
    pub ca_file: String,
    pub pool_min: i64,
    pub pool_max: i64,
    pub statement_timeout_ms: i64,
    pub acquire_timeout_ms: i64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vault {
    pub address: String,
    pub role_id: String,
    pub secret_id_file: String,
    pub token: String,
    pub mount: String,
    pub path: String,
    pub ca_file: String,
    pub namespace: String,
    pub renew_threshold_ms: i64,
    pub renew_check_ms: i64,
    pub refresh_ms: i64,
}

/// Which driver a family uses.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kind {
    pub r#type: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Queue {
    pub r#type: String,
    pub ingest_records_max: i64,
    pub other_records_max: i64,
    pub bytes_max: i64,
    pub segment_bytes: i64,
    pub lease_ms: i64,
    pub batched_sync_ms: i64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alerter {
    pub metrics_listen: String,
    pub health_listen: String,
    pub workers: i64,
    pub batch_max: i64,
    pub retries_max: i64,
    pub rules: Vec<String>,
    pub unhandled_threshold: i64,
    pub unhandled_expiry_ms: i64,
    pub unhandled_team: String,
    pub unhandled_keys_max: i64,
    pub queue_warn_depth: i64,
    pub queue_shed_depth: i64,
    pub shed_mode: String,
    pub defer_sleep_ms: i64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detection {
    pub shipped: bool,
    pub rules: Vec<String>,
    pub fields: Vec<String>,
    pub dry_run: bool,
    pub team: String,
    pub page_from: String,
    pub ticket_from: String,
    pub matches_per_minute_max: i64,
    pub answer_max_us: i64,
    pub pause_ms: i64,
    pub placeholders: toml::Table,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forwarder {
    pub metrics_listen: String,
    pub health_listen: String,
    pub concurrency: i64,
    pub rate_limit: i64,
    pub rate_window_ms: i64,
    pub retries_max: i64,
    pub retry_base_ms: i64,
    pub retry_max_ms: i64,
    pub breaker_enabled: bool,
    pub breaker_threshold: i64,
    pub breaker_open_ms: i64,
    pub moog: Moog,
    pub email: channels::Email,
    pub slack: channels::Slack,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moog {
    pub url: String,
    pub api_key: String,
    pub timeout_ms: i64,
    pub ca_file: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, tag = "type", rename_all = "lowercase")]
pub enum Channel {
    Moogsoft {
        name: String,
        url: String,
        #[serde(default)]
        api_key: String,
        #[serde(default = "ten_seconds")]
        timeout_ms: i64,
        #[serde(default)]
        ca_file: String,
    },
    Webhook {
        name: String,
        url: String,
        secret: String,
        #[serde(default = "ten_seconds")]
        timeout_ms: i64,
        #[serde(default)]
        ca_file: String,
    },
    Email(channels::Email),
    Slack(channels::Slack),
    PagerDuty(channels::PagerDuty),
    Http(channels::Http),
}

pub fn ten_seconds() -> i64 {
    10_000
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remediation {
    pub metrics_listen: String,
    pub health_listen: String,
    pub enabled: bool,
    pub interval_ms: i64,
    pub batch: i64,
    pub poison_replays_max: i64,
    pub probe: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Incidents {
    pub group_wait: String,
    pub repeat_interval: String,
    pub suppress_for: String,
    pub resolve_after: String,
    pub reopen_within: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webui {
    pub listen: String,
    pub tls_cert: String,
    pub tls_key: String,
    pub dangerous_allow_tls12: bool,
    pub prometheus_url: String,
    pub metrics_cache_ms: i64,
    pub version_prefix: bool,
    pub dangerous_key_in_url: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    pub events_days: i64,
    pub archive_years: i64,
    pub config_audit_days: i64,
    pub enabled: bool,
    pub dry_run: bool,
    pub first_after_ms: i64,
}

/// `None` only when the merged table has a shape that the overlay should have refused.
pub fn read(mut table: toml::Table, problems: &mut Vec<Problem>) -> Option<Raw> {
    // Worked into the listeners already.
    table.remove("listen_host");
    let mut channels = Vec::new();
    match table.remove("channel") {
        Some(toml::Value::Array(items)) => {
            for (index, item) in items.into_iter().enumerate() {
                match item.try_into::<Channel>() {
                    Ok(channel) => channels.push((index, channel)),
                    Err(error) => problems
                        .push(Problem { path: format!("channel[{index}]"), message: error.message().to_owned() }),
                }
            }
        }
        _ => problems.push(Problem {
            path: "channel".into(),
            message: "is a list of tables: write [[channel]] above each".into(),
        }),
    }
    let routes = super::routes::read(table.remove("routes"), problems);
    // Lists of texts are the one thing whose items the overlay does not look at.
    match table.try_into::<Raw>() {
        Ok(raw) => Some(Raw { channel: channels, routes, ..raw }),
        Err(error) => {
            problems.push(Problem { path: "configuration".into(), message: error.message().to_owned() });
            None
        }
    }
}
