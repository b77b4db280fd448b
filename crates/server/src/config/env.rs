//! Environment variables of the original and of ours, and the settings they set (contract mutt
//! §8.1, §8.3). Of several for one setting the first in this list wins; of those about deleting, the one
//! that deletes less.

use runtime::config::{Binding, Problem, Unit};
use std::collections::BTreeMap;

const fn plain(variable: &'static str, path: &'static str) -> Binding {
    Binding { variable, path, unit: Unit::Plain }
}
const fn seconds(variable: &'static str, path: &'static str) -> Binding {
    Binding { variable, path, unit: Unit::SecondsToMillis }
}
const fn port(variable: &'static str, path: &'static str) -> Binding {
    Binding { variable, path, unit: Unit::Port }
}
const fn list(variable: &'static str, path: &'static str) -> Binding {
    Binding { variable, path, unit: Unit::List }
}
const fn longest(variable: &'static str, path: &'static str) -> Binding {
    Binding { variable, path, unit: Unit::Largest }
}
const fn every(variable: &'static str, path: &'static str) -> Binding {
    Binding { variable, path, unit: Unit::EveryTrue }
}

/// All of them.
pub const BINDINGS: &[Binding] = &[
    plain("MUTT_DATA_DIR", "data_dir"),
    list("MUTT_ROLES", "roles"),
    seconds("MUTT_GRACE_SECONDS", "grace_ms"),
    plain("MUTT_LISTEN_HOST", "listen_host"),
    plain("LOG_LEVEL", "log.level"),
    plain("LOG_JSON_ENABLED", "log.json"),
    plain("POD_NAME", "log.pod_name"),
    plain("ALERTER_POD_NAME", "log.pod_name"),
    plain("MOOG_POD_NAME", "log.pod_name"),
    plain("INGEST_API_KEY", "keys.ingest"),
    plain("WEBUI_API_KEY", "keys.webui"),
    plain("MUTT_INGEST_LISTEN", "ingest.http.listen"),
    port("SERVER_PORT_INGESTOR", "ingest.http.listen"),
    port("INGESTOR_PORT", "ingest.http.listen"),
    plain("MUTT_INGEST_TLS_CERT", "ingest.http.tls_cert"),
    plain("MUTT_INGEST_TLS_KEY", "ingest.http.tls_key"),
    plain("MUTT_INGEST_DURABILITY", "ingest.http.durability"),
    list("REQUIRED_FIELDS", "ingest.http.required_fields"),
    list("REQUIRED_MESSAGE_FIELDS", "ingest.http.required_fields"),
    plain("RATE_LIMIT_ENABLED", "ingest.limit.enabled"),
    plain("INGEST_MAX_RATE", "ingest.limit.events_max"),
    plain("RATE_LIMIT_MAX_REQUESTS", "ingest.limit.events_max"),
    seconds("INGEST_RATE_WINDOW", "ingest.limit.window_ms"),
    seconds("RATE_LIMIT_WINDOW_SECONDS", "ingest.limit.window_ms"),
    plain("MUTT_SYSLOG_UDP", "ingest.syslog.udp"),
    plain("MUTT_SYSLOG_TCP", "ingest.syslog.tcp"),
    plain("MUTT_SYSLOG_TLS", "ingest.syslog.tls"),
    plain("MUTT_SYSLOG_TLS_CERT", "ingest.syslog.tls_cert"),
    plain("MUTT_SYSLOG_TLS_KEY", "ingest.syslog.tls_key"),
    plain("MUTT_SYSLOG_DURABILITY", "ingest.syslog.durability"),
    plain("MUTT_AGENT_LISTEN", "ingest.agents.listen"),
    port("GRPC_PORT", "ingest.agents.listen"),
    plain("MUTT_AGENT_ALSO_LISTEN", "ingest.agents.also_listen"),
    plain("TLS_ENABLED", "ingest.agents.tls"),
    plain("USE_TLS", "ingest.agents.use_tls"),
    plain("TLS_CERT_FILE", "ingest.agents.tls_cert"),
    plain("TLS_KEY_FILE", "ingest.agents.tls_key"),
    plain("AGENT_LEGACY_PLAINTEXT", "ingest.agents.legacy_plaintext"),
    plain("MUTT_DEMO", "ingest.agents.demo"),
    list("MUTT_AGENT_NAMES", "ingest.agents.names"),
    plain("MUTT_AGENT_ADDRESS", "ingest.agents.public_address"),
    plain("MUTT_AGENT_CA_DIR", "ingest.agents.ca_dir"),
    plain("MUTT_AGENT_DOWNLOADS", "ingest.agents.downloads"),
    plain("MUTT_SNMP_UDP", "ingest.snmp.udp"),
    list("MUTT_SNMP_COMMUNITIES", "ingest.snmp.communities"),
    plain("REDIS_HOST", "redis.host"),
    plain("REDIS_PORT", "redis.port"),
    plain("REDIS_DB", "redis.db"),
    plain("REDIS_USER", "redis.user"),
    plain("REDIS_USERNAME", "redis.user"),
    plain("REDIS_PASS_CURRENT", "redis.password"),
    plain("REDIS_PASS", "redis.password"),
    plain("REDIS_PASSWORD", "redis.password"),
    plain("REDIS_PASS_NEXT", "redis.password_next"),
    plain("REDIS_TLS_ENABLED", "redis.tls"),
    plain("REDIS_CA_CERT_PATH", "redis.ca_file"),
    plain("REDIS_TLS_CA_CERT", "redis.ca_file"),
    list("REDIS_SENTINELS", "redis.sentinels"),
    plain("REDIS_SENTINEL_MASTER", "redis.sentinel_master"),
    plain("INGEST_QUEUE_NAME", "redis.keys.ingest_queue"),
    plain("ALERT_QUEUE_NAME", "redis.keys.alert_queue"),
    plain("ALERTER_DLQ_NAME", "redis.keys.alerter_dlq"),
    plain("MOOG_DLQ_NAME", "redis.keys.moog_dlq"),
    plain("DEAD_LETTER_QUEUE", "redis.keys.dead_letters"),
    plain("ALERTER_PROCESSING_LIST_PREFIX", "redis.keys.alerter_processing"),
    plain("ALERTER_HEARTBEAT_PREFIX", "redis.keys.alerter_heartbeat"),
    seconds("ALERTER_JANITOR_TIMEOUT", "redis.keys.alerter_silence_ms"),
    seconds("HEARTBEAT_EXPIRY", "redis.keys.alerter_silence_ms"),
    plain("MOOG_PROCESSING_LIST_PREFIX", "redis.keys.moog_processing"),
    plain("MOOG_HEARTBEAT_PREFIX", "redis.keys.moog_heartbeat"),
    seconds("MOOG_JANITOR_TIMEOUT", "redis.keys.moog_silence_ms"),
    plain("METRICS_PREFIX", "redis.keys.metrics"),
    plain("UNHANDLED_PREFIX", "redis.keys.unhandled"),
    plain("MOOG_RATE_LIMIT_KEY", "redis.keys.moog_rate_limit"),
    plain("MOOG_CB_KEY_PREFIX", "redis.keys.moog_circuit"),
    plain("DB_HOST", "postgres.host"),
    plain("POSTGRES_HOST", "postgres.host"),
    plain("DB_PORT", "postgres.port"),
    plain("POSTGRES_PORT", "postgres.port"),
    plain("DB_NAME", "postgres.database"),
    plain("POSTGRES_DB", "postgres.database"),
    plain("DB_USER", "postgres.user"),
    plain("POSTGRES_USER", "postgres.user"),
    plain("DB_PASS_CURRENT", "postgres.password"),
    plain("DB_PASS", "postgres.password"),
    plain("POSTGRES_PASSWORD", "postgres.password"),
    plain("DB_PASS_NEXT", "postgres.password_next"),
    plain("DB_TLS_ENABLED", "postgres.tls"),
    plain("DB_TLS_CA_CERT_PATH", "postgres.ca_file"),
    plain("DB_SSL_ROOT_CERT", "postgres.ca_file"),
    plain("DB_POOL_MIN_CONN", "postgres.pool_min"),
    plain("DB_POOL_MAX_CONN", "postgres.pool_max"),
    plain("VAULT_ADDR", "vault.address"),
    plain("VAULT_ROLE_ID", "vault.role_id"),
    plain("VAULT_SECRET_ID_FILE", "vault.secret_id_file"),
    plain("VAULT_TOKEN", "vault.token"),
    plain("VAULT_MOUNT_PATH", "vault.mount"),
    plain("VAULT_SECRETS_PATH", "vault.path"),
    plain("VAULT_SECRET_PATH", "vault.path"),
    plain("VAULT_CACERT", "vault.ca_file"),
    plain("VAULT_NAMESPACE", "vault.namespace"),
    seconds("VAULT_TOKEN_RENEW_THRESHOLD", "vault.renew_threshold_ms"),
    seconds("VAULT_RENEW_CHECK_INTERVAL", "vault.renew_check_ms"),
    seconds("VAULT_REFRESH_INTERVAL", "vault.refresh_ms"),
    plain("MUTT_CATALOG", "catalog.type"),
    list("MUTT_EVENTS_READ_ALSO", "events.read_also"),
    plain("MUTT_COORDINATION", "coordination.type"),
    plain("MUTT_QUEUE", "queue.type"),
    plain("MAX_INGEST_QUEUE_SIZE", "queue.ingest_records_max"),
    plain("INGEST_QUEUE_CAP", "queue.ingest_records_max"),
    port("METRICS_PORT_ALERTER", "alerter.metrics_listen"),
    port("ALERTER_METRICS_PORT", "alerter.metrics_listen"),
    port("SERVER_PORT_ALERTER_METRICS", "alerter.metrics_listen"),
    port("HEALTH_PORT_ALERTER", "alerter.health_listen"),
    port("ALERTER_HEALTH_PORT", "alerter.health_listen"),
    port("SERVER_PORT_ALERTER", "alerter.health_listen"),
    plain("ALERTER_MAX_RETRIES", "alerter.retries_max"),
    plain("POISON_MESSAGE_MAX_RETRIES", "alerter.retries_max"),
    list("MUTT_RULES", "alerter.rules"),
    plain("MUTT_SHIPPED_RULES", "detection.shipped"),
    list("MUTT_DETECTION_RULES", "detection.rules"),
    list("MUTT_DETECTION_FIELDS", "detection.fields"),
    plain("MUTT_DETECTION_DRY_RUN", "detection.dry_run"),
    plain("MUTT_DETECTION_TEAM", "detection.team"),
    plain("MUTT_DETECTION_MATCHES_PER_MINUTE_MAX", "detection.matches_per_minute_max"),
    plain("UNHANDLED_THRESHOLD", "alerter.unhandled_threshold"),
    plain("UNHANDLED_EVENT_THRESHOLD", "alerter.unhandled_threshold"),
    seconds("UNHANDLED_EXPIRY_SECONDS", "alerter.unhandled_expiry_ms"),
    seconds("UNHANDLED_EVENT_WINDOW", "alerter.unhandled_expiry_ms"),
    plain("UNHANDLED_DEFAULT_TEAM", "alerter.unhandled_team"),
    plain("ALERTER_QUEUE_WARN_THRESHOLD", "alerter.queue_warn_depth"),
    plain("ALERTER_QUEUE_SHED_THRESHOLD", "alerter.queue_shed_depth"),
    plain("ALERTER_SHED_MODE", "alerter.shed_mode"),
    plain("ALERTER_DEFER_SLEEP_MS", "alerter.defer_sleep_ms"),
    port("METRICS_PORT_MOOG", "forwarder.metrics_listen"),
    port("MOOG_FORWARDER_METRICS_PORT", "forwarder.metrics_listen"),
    port("SERVER_PORT_MOOG_METRICS", "forwarder.metrics_listen"),
    port("HEALTH_PORT_MOOG", "forwarder.health_listen"),
    port("MOOG_FORWARDER_HEALTH_PORT", "forwarder.health_listen"),
    port("SERVER_PORT_MOOG_HEALTH", "forwarder.health_listen"),
    plain("MOOG_RATE_LIMIT", "forwarder.rate_limit"),
    seconds("MOOG_RATE_PERIOD", "forwarder.rate_window_ms"),
    plain("MOOG_MAX_RETRIES", "forwarder.retries_max"),
    plain("RETRY_MAX_ATTEMPTS", "forwarder.retries_max"),
    seconds("MOOG_RETRY_BASE_DELAY", "forwarder.retry_base_ms"),
    seconds("RETRY_BASE_DELAY", "forwarder.retry_base_ms"),
    seconds("MOOG_RETRY_MAX_DELAY", "forwarder.retry_max_ms"),
    seconds("RETRY_MAX_DELAY", "forwarder.retry_max_ms"),
    plain("CIRCUIT_BREAKER_ENABLED", "forwarder.breaker_enabled"),
    plain("CIRCUIT_BREAKER_THRESHOLD", "forwarder.breaker_threshold"),
    plain("MOOG_CB_FAILURE_THRESHOLD", "forwarder.breaker_threshold"),
    seconds("CIRCUIT_BREAKER_TIMEOUT", "forwarder.breaker_open_ms"),
    seconds("MOOG_CB_OPEN_SECONDS", "forwarder.breaker_open_ms"),
    plain("MOOG_WEBHOOK_URL", "forwarder.moog.url"),
    plain("MOOG_API_KEY", "forwarder.moog.api_key"),
    seconds("MOOG_WEBHOOK_TIMEOUT", "forwarder.moog.timeout_ms"),
    seconds("MOOG_TIMEOUT", "forwarder.moog.timeout_ms"),
    plain("MOOG_CA_CERT_PATH", "forwarder.moog.ca_file"),
    plain("SMTP_HOST", "forwarder.email.host"),
    plain("SMTP_PORT", "forwarder.email.port"),
    plain("SMTP_USER", "forwarder.email.user"),
    plain("SMTP_PASS", "forwarder.email.password"),
    plain("SMTP_FROM", "forwarder.email.from"),
    plain("SMTP_CA_CERT_PATH", "forwarder.email.ca_file"),
    list("ALERT_EMAIL", "forwarder.email.to"),
    plain("SLACK_WEBHOOK_URL", "forwarder.slack.url"),
    plain("SLACK_CHANNEL", "forwarder.slack.channel"),
    port("METRICS_PORT_REMEDIATION", "remediation.metrics_listen"),
    port("HEALTH_PORT_REMEDIATION", "remediation.health_listen"),
    plain("REMEDIATION_ENABLED", "remediation.enabled"),
    seconds("REMEDIATION_INTERVAL", "remediation.interval_ms"),
    plain("REMEDIATION_BATCH_SIZE", "remediation.batch"),
    plain("MAX_POISON_RETRIES", "remediation.poison_replays_max"),
    plain("MOOG_HEALTH_CHECK_ENABLED", "remediation.probe"),
    plain("MUTT_WEBUI_LISTEN", "webui.listen"),
    plain("MUTT_WEBUI_TLS_CERT", "webui.tls_cert"),
    plain("MUTT_WEBUI_TLS_KEY", "webui.tls_key"),
    plain("PROMETHEUS_URL", "webui.prometheus_url"),
    port("SERVER_PORT_WEBUI", "webui.listen"),
    port("WEBUI_PORT", "webui.listen"),
    seconds("METRICS_CACHE_TTL", "webui.metrics_cache_ms"),
    longest("EVENT_RETENTION_DAYS", "retention.events_days"),
    longest("RETENTION_EVENT_AUDIT_DAYS", "retention.events_days"),
    plain("EVENT_ARCHIVE_RETENTION_YEARS", "retention.archive_years"),
    longest("CONFIG_AUDIT_RETENTION_DAYS", "retention.config_audit_days"),
    longest("RETENTION_AUDIT_DAYS", "retention.config_audit_days"),
    every("RETENTION_ENFORCEMENT_ENABLED", "retention.enabled"),
    every("RETENTION_ENABLED", "retention.enabled"),
    plain("RETENTION_DRY_RUN", "retention.dry_run"),
    seconds("MUTT_RETENTION_FIRST_AFTER", "retention.first_after_ms"),
];

/// Variables of the original's retention scripts that have no counterpart, and why nothing is lost.
pub const NOT_NEEDED: &[(&str, &str)] = &[
    ("RETENTION_DLQ_DAYS", "dead letters are not deleted by age; they wait for a person"),
    ("RETENTION_BATCH_SIZE", "rows go in steps of 10000, each a transaction of its own"),
    ("RETENTION_METRICS_FILE", "the figures of retention are in /metrics, beside all others"),
    ("RETENTION_PRECREATE_MONTHS", "partitions of this and the next three months are always there"),
];

/// Sentences about the variables in `environment` that are not needed.
pub fn not_needed(environment: &BTreeMap<String, String>) -> impl Iterator<Item = String> {
    let is_set = |name: &str| environment.get(name).is_some_and(|value| !value.is_empty());
    NOT_NEEDED.iter().filter(move |(name, _)| is_set(name)).map(|(name, why)| format!("{name} is not read: {why}"))
}

/// Turns libpq's `DB_SSL_MODE` into `DB_TLS_ENABLED`, which wins where it is given too. TLS is all or
/// nothing here, so what falls between is verified TLS.
pub fn ssl_mode(environment: &mut BTreeMap<String, String>, notes: &mut Vec<String>) -> Result<(), Problem> {
    let Some(mode) = environment.get("DB_SSL_MODE").filter(|mode| !mode.trim().is_empty()).cloned() else {
        return Ok(());
    };
    let is_said = environment.get("DB_TLS_ENABLED").is_some_and(|value| !value.is_empty());
    let mode = mode.trim().to_ascii_lowercase();
    let tls = match mode.as_str() {
        "disable" => "false",
        "require" | "verify-ca" | "verify-full" => "true",
        "allow" | "prefer" => {
            if !is_said {
                notes.push(format!(
                    "DB_SSL_MODE={mode} is taken as verify-full: muttd does not fall back to plain text; \
                     DB_SSL_MODE=disable switches TLS to PostgreSQL off"
                ));
            }
            "true"
        }
        _ => {
            let message = format!("`{mode}` is not one of disable, allow, prefer, require, verify-ca, verify-full");
            return Err(Problem { path: "DB_SSL_MODE".to_owned(), message });
        }
    };
    if !is_said {
        environment.insert("DB_TLS_ENABLED".to_owned(), tls.to_owned());
    }
    Ok(())
}

/// Whether this is the environment of an original installation: one of its stores is named.
pub fn is_originals(environment: &BTreeMap<String, String>) -> bool {
    ["REDIS_HOST", "DB_HOST", "VAULT_ADDR"].iter().any(|name| environment.get(*name).is_some_and(|v| !v.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::config::lookup;

    #[test]
    fn every_variable_sets_a_setting_that_exists() {
        let defaults: toml::Table = super::super::DEFAULTS.parse().unwrap();
        for binding in BINDINGS {
            assert!(lookup(&defaults, binding.path).is_some(), "{} → {}", binding.variable, binding.path);
        }
    }

    #[test]
    fn the_documentation_in_the_default_file_names_only_variables_that_are_read() {
        let known: Vec<&str> = BINDINGS.iter().map(|b| b.variable).collect();
        for line in super::super::DEFAULTS.lines().filter(|l| l.starts_with('#') && l.ends_with(']')) {
            let Some((_, names)) = line.rsplit_once('[') else { continue };
            for name in names.trim_end_matches(']').split(',').map(str::trim) {
                let name = name.split('=').next().unwrap();
                let special = name.starts_with("--")
                    || matches!(name, "LOG_FORMAT" | "DB_SSL_MODE" | "channel" | "ingest.snmp.users" | "routes");
                assert!(special || known.contains(&name), "{line}");
            }
        }
    }
}
