//! From what is written to what can be used; every problem with its path.

use super::agents;
use super::channels::{self, ChannelSecrets};
use super::check::Check;
use super::detection;
use super::raw::{self, Raw};
use super::settings::{ChannelSettings, Config, HttpSettings, Listen, MOOGSOFT, Role, SyslogSettings};
use super::snmp;
use super::stores::{self, StoreSettings};
use connectors::channels::ChannelConfig;
use connectors::inputs::http::BodyRules;
use pipeline::{LiveSettings, RetentionPolicy, ShedMode};
use runtime::KeyRing;
use runtime::config::Problem;
use runtime::logging::LogConfig;
use runtime::tls::MinimumTls;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use storage::coordination::{BreakerSettings, RateLimit, UnhandledPolicy};
use storage::queue::QueueLimits;

const YEAR_MS: i64 = 31_536_000_000;
const DAY: Duration = Duration::from_secs(86_400);

/// `None` never stands alone: there is a problem for it.
pub fn validate(raw: Raw, environment: &BTreeMap<String, String>, problems: &mut Vec<Problem>) -> Option<Config> {
    let mut check = Check(problems);
    let roles = roles(&mut check, &raw.roles);
    if let Err(message) = runtime::logging::check_level(&raw.log.level) {
        check.problem("log.level", message);
    }
    if raw.data_dir.trim().is_empty() {
        check.problem("data_dir", "is empty");
    }
    let body_bytes_max = u64::try_from(raw.ingest.http.body_bytes_max).unwrap_or(0);
    let limits = limits(&mut check, &raw.queue, body_bytes_max);
    let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    let pod_name = if raw.log.pod_name.is_empty() { host() } else { raw.log.pod_name.clone() };
    let mut stores = stores::stores(&mut check, &raw, limits, &pod_name, environment);
    let live = live(&mut check, &raw);
    let channels = channels(&mut check, &raw, &stores);
    stores.name_moogsoft(&channels);
    let names = channels.iter().map(|channel| channel.0.name().to_owned()).collect();
    let router = super::routes::router(&mut check, &raw.routes, &raw.incidents, names);
    let (retry_base, retry_max) = (
        check.millis("forwarder.retry_base_ms", raw.forwarder.retry_base_ms, 1, YEAR_MS),
        check.millis("forwarder.retry_max_ms", raw.forwarder.retry_max_ms, 1, YEAR_MS),
    );
    if retry_base > retry_max {
        check.problem("forwarder.retry_base_ms", "is over forwarder.retry_max_ms");
    }
    let config = Config {
        data_dir: PathBuf::from(&raw.data_dir),
        roles,
        grace: check.millis("grace_ms", raw.grace_ms, 0, 3_600_000),
        log: LogConfig { level: raw.log.level.clone(), json: raw.log.json, service: "muttd".into(), pod_name },
        http: http(&mut check, &raw.ingest.http),
        syslog: syslog(&mut check, &raw.ingest.syslog),
        agents: agents::agents(&mut check, &raw.ingest.agents, &raw.data_dir),
        snmp: snmp::snmp(&mut check, &raw.ingest.snmp, &raw.data_dir),
        stores,
        alerter_listen: check.pair(
            ("alerter.metrics_listen", &raw.alerter.metrics_listen),
            ("alerter.health_listen", &raw.alerter.health_listen),
        ),
        alerter_workers: check.range("alerter.workers", raw.alerter.workers, 1, 64),
        batch_max: check.range("alerter.batch_max", raw.alerter.batch_max, 1, 100_000),
        event_retries_max: check.range("alerter.retries_max", raw.alerter.retries_max, 0, 1_000),
        rule_paths: raw.alerter.rules.iter().map(PathBuf::from).collect(),
        detection: detection::detection(&mut check, &raw.detection),
        forwarder_listen: check.pair(
            ("forwarder.metrics_listen", &raw.forwarder.metrics_listen),
            ("forwarder.health_listen", &raw.forwarder.health_listen),
        ),
        delivery_concurrency: check.range("forwarder.concurrency", raw.forwarder.concurrency, 1, 1_000),
        delivery_retries_max: check.range("forwarder.retries_max", raw.forwarder.retries_max, 0, 1_000),
        retry_base,
        retry_max,
        channels,
        router: Arc::new(router),
        remediation_listen: check.pair(
            ("remediation.metrics_listen", &raw.remediation.metrics_listen),
            ("remediation.health_listen", &raw.remediation.health_listen),
        ),
        remediation_probe: raw.remediation.probe,
        webui_listen: check.listen("webui.listen", &raw.webui.listen),
        webui_tls: check.tls(
            ("webui.tls_cert", &raw.webui.tls_cert),
            ("webui.tls_key", &raw.webui.tls_key),
            raw.webui.dangerous_allow_tls12,
        ),
        prometheus_url: check.prometheus(&raw.webui.prometheus_url, !raw.redis.host.is_empty()),
        metrics_cache: check.millis("webui.metrics_cache_ms", raw.webui.metrics_cache_ms, 0, 3_600_000),
        version_prefix: raw.webui.version_prefix,
        key_in_url: raw.webui.dangerous_key_in_url,
        retention_first_after: check.millis("retention.first_after_ms", raw.retention.first_after_ms, 0, 86_400_000),
        ingest_limit: live.ingest_limit,
        live,
    };
    same_address_twice(&mut check, &config);
    Some(config)
}

fn roles(check: &mut Check<'_>, names: &[String]) -> Vec<Role> {
    if names.is_empty() {
        check.problem("roles", "is empty: name at least one role");
    }
    let mut roles = Vec::new();
    for (index, name) in names.iter().enumerate() {
        match name.parse::<Role>() {
            Ok(role) if roles.contains(&role) => {}
            Ok(role) => roles.push(role),
            Err(message) => check.problem(format!("roles[{index}]"), message),
        }
    }
    roles
}

fn limits(check: &mut Check<'_>, raw: &raw::Queue, body_bytes_max: u64) -> QueueLimits {
    const RECORD_BYTES_MAX: u32 = 8 << 20;
    let limits = QueueLimits {
        // The live setting bounds the ingest queue at the door, where it can be changed while running.
        ingest_records_max: u64::MAX / 2,
        other_records_max: check.range("queue.other_records_max", raw.other_records_max, 1_000, 1 << 40),
        bytes_max: check.range("queue.bytes_max", raw.bytes_max, 1 << 25, 1 << 50),
        segment_bytes: check.range("queue.segment_bytes", raw.segment_bytes, 9 << 20, 1 << 40),
        record_bytes_max: RECORD_BYTES_MAX,
        lease: check.millis("queue.lease_ms", raw.lease_ms, 1_000, 3_600_000),
        batched_sync: check.millis("queue.batched_sync_ms", raw.batched_sync_ms, 1, 60_000),
    };
    let batch = body_bytes_max.saturating_mul(2);
    if limits.segment_bytes < batch {
        check.problem("queue.segment_bytes", format!("must be at least twice ingest.http.body_bytes_max: {batch}"));
    }
    if limits.bytes_max / 2 < limits.segment_bytes {
        check.problem("queue.bytes_max", "must be at least twice queue.segment_bytes");
    }
    limits
}

fn http(check: &mut Check<'_>, raw: &raw::Http) -> Option<HttpSettings> {
    let settings = HttpSettings {
        durability: check.durability("ingest.http.durability", &raw.durability),
        rules: BodyRules {
            required: raw.required_fields.clone(),
            depth_max: check.range("ingest.http.depth_max", raw.depth_max, 1, 100),
            event_bytes_max: check.range("ingest.http.event_bytes_max", raw.event_bytes_max, 64, 4 << 20),
            events_max: check.range("ingest.http.events_max", raw.events_max, 1, 1_000_000),
        },
        body_bytes_max: check.range("ingest.http.body_bytes_max", raw.body_bytes_max, 64, 1 << 30),
        body_timeout: check.millis("ingest.http.body_timeout_ms", raw.body_timeout_ms, 100, 3_600_000),
        connections_max: check.range("ingest.http.connections_max", raw.connections_max, 1, 1_000_000),
        tls: check.tls(
            ("ingest.http.tls_cert", &raw.tls_cert),
            ("ingest.http.tls_key", &raw.tls_key),
            raw.dangerous_allow_tls12,
        ),
        listen: Listen { address: SocketAddr::from(([127, 0, 0, 1], 0)), setting: "ingest.http.listen" },
    };
    let listen = check.listen("ingest.http.listen", &raw.listen)?;
    Some(HttpSettings { listen, ..settings })
}

fn syslog(check: &mut Check<'_>, raw: &raw::Syslog) -> SyslogSettings {
    if jiff::tz::TimeZone::get(&raw.timezone).is_err() && raw.timezone != "UTC" {
        check.problem("ingest.syslog.timezone", format!("`{}` is not a time zone such as Europe/Berlin", raw.timezone));
    }
    let tls = check.listen("ingest.syslog.tls", &raw.tls).map(|listen| {
        for (path, file) in [("ingest.syslog.tls_cert", &raw.tls_cert), ("ingest.syslog.tls_key", &raw.tls_key)] {
            if file.is_empty() {
                check.problem(path, "is needed for ingest.syslog.tls");
            } else if !std::path::Path::new(file).is_file() {
                check.problem(path, format!("`{file}` is not a file"));
            }
        }
        let minimum = if raw.dangerous_allow_tls12 { MinimumTls::Tls12 } else { MinimumTls::Tls13 };
        (listen, PathBuf::from(&raw.tls_cert), PathBuf::from(&raw.tls_key), minimum)
    });
    SyslogSettings {
        udp: check.listen("ingest.syslog.udp", &raw.udp),
        tcp: check.listen("ingest.syslog.tcp", &raw.tcp),
        tls,
        durability: check.durability("ingest.syslog.durability", &raw.durability),
        message_bytes_max: check.range("ingest.syslog.message_bytes_max", raw.message_bytes_max, 480, 1 << 20),
        connections_max: check.range("ingest.syslog.connections_max", raw.connections_max, 1, 1_000_000),
        idle_timeout: check.millis("ingest.syslog.idle_timeout_ms", raw.idle_timeout_ms, 1_000, YEAR_MS),
        receive_buffer_bytes: check.range(
            "ingest.syslog.receive_buffer_bytes",
            raw.receive_buffer_bytes,
            4_096,
            1 << 30,
        ),
        timezone: raw.timezone.clone(),
    }
}

fn live(check: &mut Check<'_>, raw: &Raw) -> LiveSettings {
    let (limit, alerter, forwarder) = (&raw.ingest.limit, &raw.alerter, &raw.forwarder);
    let ingest_limit = RateLimit {
        max: check.range("ingest.limit.events_max", limit.events_max, 1, i64::from(u32::MAX)),
        window: check.millis("ingest.limit.window_ms", limit.window_ms, 1, 86_400_000),
    };
    let breaker = BreakerSettings {
        failure_threshold: check.range("forwarder.breaker_threshold", forwarder.breaker_threshold, 1, 1_000_000),
        open_for: check.millis("forwarder.breaker_open_ms", forwarder.breaker_open_ms, 1, YEAR_MS),
        probe_timeout: Duration::from_secs(60),
    };
    LiveSettings {
        ingest_records_max: check.range("queue.ingest_records_max", raw.queue.ingest_records_max, 1_000, 1 << 40),
        ingest_limit: limit.enabled.then_some(ingest_limit),
        unhandled: UnhandledPolicy {
            threshold: check.range("alerter.unhandled_threshold", alerter.unhandled_threshold, 1, 1 << 40),
            expiry: check.millis("alerter.unhandled_expiry_ms", alerter.unhandled_expiry_ms, 1_000, YEAR_MS),
            keys_max: check.range("alerter.unhandled_keys_max", alerter.unhandled_keys_max, 100, 100_000_000),
        },
        unhandled_team: alerter.unhandled_team.clone(),
        alerts_warn_depth: check.range("alerter.queue_warn_depth", alerter.queue_warn_depth, 1, 1 << 40),
        alerts_shed_depth: check.range("alerter.queue_shed_depth", alerter.queue_shed_depth, 1, 1 << 40),
        shed_mode: match alerter.shed_mode.as_str() {
            "dlq" | "outbox" => ShedMode::Outbox,
            "defer" => ShedMode::Defer,
            other => {
                check.problem("alerter.shed_mode", format!("`{other}` is not one of dlq, defer"));
                ShedMode::Outbox
            }
        },
        defer_sleep: check.millis("alerter.defer_sleep_ms", alerter.defer_sleep_ms, 1, 60_000),
        delivery_limit: RateLimit {
            max: check.range("forwarder.rate_limit", forwarder.rate_limit, 1, i64::from(u32::MAX)),
            window: check.millis("forwarder.rate_window_ms", forwarder.rate_window_ms, 1, 86_400_000),
        },
        breaker: forwarder.breaker_enabled.then_some(breaker),
        remediation_enabled: raw.remediation.enabled,
        remediation_interval: check.millis("remediation.interval_ms", raw.remediation.interval_ms, 100, YEAR_MS),
        remediation_batch: check.range("remediation.batch", raw.remediation.batch, 1, 1_000_000),
        poison_replays_max: check.range("remediation.poison_replays_max", raw.remediation.poison_replays_max, 0, 1_000),
        retention: retention(check, &raw.retention),
    }
}

fn retention(check: &mut Check<'_>, raw: &raw::Retention) -> RetentionPolicy {
    RetentionPolicy {
        enabled: raw.enabled,
        dry_run: raw.dry_run,
        events: DAY * check.range::<u32>("retention.events_days", raw.events_days, 1, 36_500),
        archive: DAY * 365 * check.range::<u32>("retention.archive_years", raw.archive_years, 0, 100),
        config_audit: DAY * check.range::<u32>("retention.config_audit_days", raw.config_audit_days, 1, 36_500),
    }
}

fn channels(check: &mut Check<'_>, raw: &Raw, stores: &StoreSettings) -> Vec<ChannelSettings> {
    let mut channels: Vec<ChannelSettings> = Vec::new();
    let secrets = ChannelSecrets { given: &stores.given, from_vault: stores.vault.is_some() };
    let moog = &raw.forwarder.moog;
    if !moog.url.is_empty() {
        let found = check.0.len();
        let target = check.target("forwarder.moog", MOOGSOFT.into(), &moog.url, moog.timeout_ms, &moog.ca_file);
        let api_keys = KeyRing::fixed(check.secret("forwarder.moog.api_key", &moog.api_key));
        let config = ChannelConfig::Moogsoft { target, api_keys };
        check.opens("forwarder.moog", &config, found);
        channels.push(ChannelSettings(config, Some("MOOG_API_KEY")));
    }
    let (email, slack) = (&raw.forwarder.email, &raw.forwarder.slack);
    if !email.host.is_empty() || !email.to.is_empty() {
        channels.push(email.channel(check, "forwarder.email", channels::EMAIL, &secrets));
    }
    if secrets.gives(channels::SLACK_SECRET) || !slack.channel.is_empty() {
        channels.push(slack.channel(check, "forwarder.slack", channels::SLACK, &secrets));
    }
    for (index, channel) in &raw.channel {
        let path = format!("channel[{index}]");
        let found = check.0.len();
        let settings = match channel {
            raw::Channel::Moogsoft { name, url, api_key, timeout_ms, ca_file } => {
                let config = ChannelConfig::Moogsoft {
                    target: check.target(&path, name.clone(), url, *timeout_ms, ca_file),
                    api_keys: KeyRing::fixed(check.secret(&format!("{path}.api_key"), api_key)),
                };
                // Whoever takes the environment's name over takes its keys too.
                let follows = (name == MOOGSOFT && api_key.is_empty()).then_some("MOOG_API_KEY");
                check.opens(&path, &config, found);
                ChannelSettings(config, follows)
            }
            raw::Channel::Webhook { name, url, secret, timeout_ms, ca_file } => {
                let config = ChannelConfig::Webhook {
                    target: check.target(&path, name.clone(), url, *timeout_ms, ca_file),
                    secret: check.secret(&format!("{path}.secret"), secret),
                };
                check.opens(&path, &config, found);
                ChannelSettings(config, None)
            }
            raw::Channel::Email(email) => email.channel(check, &path, &email.name, &secrets),
            raw::Channel::Slack(slack) => slack.channel(check, &path, &slack.name, &secrets),
            raw::Channel::PagerDuty(pagerduty) => pagerduty.channel(check, &path, &secrets),
            raw::Channel::Http(http) => http.channel(check, &path),
        };
        let name = settings.0.name();
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
            check.problem(format!("{path}.name"), "must be letters, digits, - and _");
        } else if name == "ingestor" {
            check.problem(format!("{path}.name"), "`ingestor` is the name of the limit of ingest");
        } else if channels.iter().any(|c| c.0.name() == name) {
            check.problem(format!("{path}.name"), format!("`{name}` is the name of another channel"));
        }
        channels.push(settings);
    }
    channels
}

fn same_address_twice(check: &mut Check<'_>, config: &Config) {
    let listens = config.listens();
    for (i, listen) in listens.iter().enumerate() {
        let other = listens[..i].iter().find(|o| o.address == listen.address && o.address.port() != 0);
        if let Some(other) = other {
            check.problem(listen.setting, format!("{} is the address of {} too", listen.address, other.setting));
        }
    }
}
