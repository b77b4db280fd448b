//! Settings that act while running: from the configuration, overlaid by the shared live settings
//! (contract mutt §8.2).

use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use storage::coordination::{BreakerSettings, RateLimit, UnhandledPolicy};

/// What detection does while the alert queue is over its shed threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShedMode {
    /// Go on detecting; alerts wait in the outbox of the catalog until the queue has room.
    Outbox,
    /// Pause detection; events wait in the ingest queue.
    Defer,
}

/// How long things are kept, by time of acceptance, and whether what is older is deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetentionPolicy {
    pub enabled: bool,
    /// Rounds count and say what they would delete, and change nothing.
    pub dry_run: bool,
    /// Events, their audit rows and settled alerts.
    pub events: Duration,
    /// Audit rows of events in the archive, where the catalog has one.
    pub archive: Duration,
    /// Audit rows of changes.
    pub config_audit: Duration,
}

/// The settings.
#[derive(Debug, Clone)]
pub struct LiveSettings {
    pub ingest_records_max: u64,
    /// Site-wide limit of accepted events; `None` = off.
    pub ingest_limit: Option<RateLimit>,
    pub unhandled: UnhandledPolicy,
    pub unhandled_team: String,
    pub alerts_warn_depth: u64,
    pub alerts_shed_depth: u64,
    pub shed_mode: ShedMode,
    pub defer_sleep: Duration,
    pub delivery_limit: RateLimit,
    /// `None` = no breaker.
    pub breaker: Option<BreakerSettings>,
    pub remediation_enabled: bool,
    pub remediation_interval: Duration,
    /// Dead letters replayed per second.
    pub remediation_batch: u32,
    pub poison_replays_max: u32,
    pub retention: RetentionPolicy,
}

/// The settings of now. Clones share them.
#[derive(Debug, Clone)]
pub struct Live {
    base: Arc<ArcSwap<LiveSettings>>,
    current: Arc<ArcSwap<LiveSettings>>,
}

impl Live {
    pub fn new(base: LiveSettings) -> Self {
        let base = Arc::new(base);
        Self { base: Arc::new(ArcSwap::new(Arc::clone(&base))), current: Arc::new(ArcSwap::new(base)) }
    }

    pub fn get(&self) -> Arc<LiveSettings> {
        self.current.load_full()
    }

    /// A new configuration was read; the shared settings are laid over it at the next [`Self::overlay`].
    pub fn replace_base(&self, base: LiveSettings) {
        let base = Arc::new(base);
        self.base.store(Arc::clone(&base));
        self.current.store(base);
    }

    /// Lays the shared settings over the configuration. Returns the values that cannot be used.
    pub fn overlay(&self, shared: &BTreeMap<String, String>) -> Vec<String> {
        let mut settings = (**self.base.load()).clone();
        let mut problems = Vec::new();
        for (key, value) in shared {
            if let Err(problem) = settings.set(key, value) {
                problems.push(problem);
            }
        }
        self.current.store(Arc::new(settings));
        problems
    }

    /// How long things are kept when these settings are shared. A value that cannot be used makes it
    /// an error: where deleting is at stake, the configured value may be the shorter one.
    pub fn retention(&self, shared: &BTreeMap<String, String>) -> Result<RetentionPolicy, String> {
        let mut settings = (**self.base.load()).clone();
        for key in LiveSettings::RETENTION_KEYS {
            if let Some(value) = shared.get(key) {
                settings.set(key, value)?;
            }
        }
        Ok(settings.retention)
    }
}

impl LiveSettings {
    /// Keys that act live, as the contract names them.
    pub const KEYS: [&'static str; 22] = [
        "max_ingest_queue_size",
        "ingest_max_rate",
        "ingest_rate_window",
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
        "event_retention_days",
        "event_archive_retention_years",
        "config_audit_retention_days",
        "retention_enforcement_enabled",
    ];

    /// Those of [`Self::KEYS`] that decide about deleting.
    pub const RETENTION_KEYS: [&'static str; 4] = [
        "event_retention_days",
        "event_archive_retention_years",
        "config_audit_retention_days",
        "retention_enforcement_enabled",
    ];

    /// Sets one; `Err` is a sentence naming key, value and what would do.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let value = value.trim();
        let number = |least: u64, most: u64| {
            value
                .parse::<u64>()
                .ok()
                .filter(|n| (least..=most).contains(n))
                .ok_or_else(|| format!("{key}: `{value}` is not a whole number from {least} to {most}"))
        };
        let count = |least: u64, most: u32| number(least, u64::from(most)).map(|n| u32::try_from(n).unwrap_or(most));
        let truth = || match value.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err(format!("{key}: `{value}` is not true or false")),
        };
        const YEAR: u64 = 31_536_000;
        const DAY: Duration = Duration::from_secs(86_400);
        let days = |least: u64, most: u64| number(least, most).map(|n| DAY * u32::try_from(n).unwrap_or(u32::MAX));
        match key {
            "max_ingest_queue_size" => self.ingest_records_max = number(1_000, 1 << 40)?,
            // 0 turns the site-wide limit off.
            "ingest_max_rate" => {
                let max = count(0, u32::MAX)?;
                let window = self.ingest_limit.map_or(Duration::from_secs(60), |l| l.window);
                self.ingest_limit = (max > 0).then_some(RateLimit { max, window });
            }
            "ingest_rate_window" => {
                let window = Duration::from_secs(number(1, 86_400)?);
                if let Some(limit) = &mut self.ingest_limit {
                    limit.window = window;
                }
            }
            "unhandled_threshold" => self.unhandled.threshold = number(1, 1 << 40)?,
            "unhandled_expiry_seconds" => self.unhandled.expiry = Duration::from_secs(number(1, YEAR)?),
            "unhandled_default_team" => self.unhandled_team = value.to_owned(),
            "alerter_queue_warn_threshold" => self.alerts_warn_depth = number(1, 1 << 40)?,
            "alerter_queue_shed_threshold" => self.alerts_shed_depth = number(1, 1 << 40)?,
            "alerter_shed_mode" => {
                self.shed_mode = match value {
                    "dlq" | "outbox" => ShedMode::Outbox,
                    "defer" => ShedMode::Defer,
                    _ => return Err(format!("{key}: `{value}` is not one of dlq, defer")),
                };
            }
            "alerter_defer_sleep_ms" => self.defer_sleep = Duration::from_millis(number(1, 60_000)?),
            "moog_rate_limit" => self.delivery_limit.max = count(1, u32::MAX)?,
            "moog_rate_period" => self.delivery_limit.window = Duration::from_secs(number(1, 86_400)?),
            "circuit_breaker_threshold" => {
                let threshold = count(1, 1_000_000)?;
                if let Some(breaker) = &mut self.breaker {
                    breaker.failure_threshold = threshold;
                }
            }
            "circuit_breaker_timeout" => {
                let open_for = Duration::from_secs(number(1, 86_400)?);
                if let Some(breaker) = &mut self.breaker {
                    breaker.open_for = open_for;
                }
            }
            "remediation_enabled" => self.remediation_enabled = truth()?,
            "remediation_interval" => self.remediation_interval = Duration::from_secs(number(1, 86_400)?),
            "remediation_batch_size" => self.remediation_batch = count(1, 1_000_000)?,
            "max_poison_retries" => self.poison_replays_max = count(0, 1_000)?,
            "event_retention_days" => self.retention.events = days(1, 36_500)?,
            "event_archive_retention_years" => self.retention.archive = 365 * days(0, 100)?,
            "config_audit_retention_days" => self.retention.config_audit = days(1, 36_500)?,
            "retention_enforcement_enabled" => self.retention.enabled = truth()?,
            // Others may keep settings of their own there (contract §8.2 lists more than act here).
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) fn test_settings() -> LiveSettings {
    LiveSettings {
        ingest_records_max: 1_000_000,
        ingest_limit: None,
        unhandled: UnhandledPolicy { threshold: 100, expiry: Duration::from_secs(86_400), keys_max: 10_000 },
        unhandled_team: "NETO".into(),
        alerts_warn_depth: 1_000,
        alerts_shed_depth: 2_000,
        shed_mode: ShedMode::Outbox,
        defer_sleep: Duration::from_millis(250),
        delivery_limit: RateLimit { max: 50, window: Duration::from_secs(1) },
        breaker: None,
        remediation_enabled: true,
        remediation_interval: Duration::from_secs(30),
        remediation_batch: 10,
        poison_replays_max: 3,
        retention: RetentionPolicy {
            enabled: true,
            dry_run: false,
            events: Duration::from_secs(90 * 86_400),
            archive: Duration::from_secs(7 * 365 * 86_400),
            config_audit: Duration::from_secs(365 * 86_400),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_settings_win_and_bad_ones_are_named_and_change_nothing() {
        let live = Live::new(test_settings());
        let shared = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let problems = live.overlay(&shared(&[
            ("moog_rate_limit", "7"),
            ("alerter_queue_shed_threshold", "-1"),
            ("unhandled_threshold", "many"),
            ("slo_x_window_hours", "24"),
            ("ingest_max_rate", "5"),
        ]));
        let now = live.get();
        assert_eq!((now.delivery_limit.max, now.alerts_shed_depth, now.unhandled.threshold), (7, 2_000, 100));
        assert_eq!(now.ingest_limit.map(|l| l.max), Some(5));
        assert_eq!(problems.len(), 2, "{problems:?}");
        live.overlay(&shared(&[]));
        assert_eq!(live.get().delivery_limit.max, 50, "a removed setting gives the configured value back");
    }

    #[test]
    fn what_is_kept_is_what_is_shared_or_nothing_is_deleted() {
        let live = Live::new(test_settings());
        let with = |key: &str, value: &str| live.retention(&[(key.to_owned(), value.to_owned())].into());
        let days = |days: u64| Duration::from_secs(days * 86_400);
        assert_eq!(with("moog_rate_limit", "junk"), Ok(test_settings().retention), "no business of ours");
        assert_eq!(with("event_retention_days", " 2555 ").unwrap().events, days(2_555));
        assert_eq!(with("event_archive_retention_years", "20").unwrap().archive, days(20 * 365));
        assert_eq!(with("config_audit_retention_days", "2555").unwrap().config_audit, days(2_555));
        for off in ["false", "False", "0", "no", "off"] {
            assert!(!with("retention_enforcement_enabled", off).unwrap().enabled, "{off}");
        }
        for key in LiveSettings::RETENTION_KEYS {
            assert!(LiveSettings::KEYS.contains(&key));
            for junk in ["", "-1", "1e9", "99999999999999999999", "7 years", "none"] {
                let refused = with(key, junk).unwrap_err();
                assert!(refused.starts_with(&format!("{key}: ")), "{refused}");
            }
        }
    }

    /// The bounds of the configuration file (`docs/configuration.md`).
    #[test]
    fn what_the_file_refuses_is_refused_live_too() {
        for (key, most) in [
            ("circuit_breaker_threshold", 1_000_000),
            ("remediation_batch_size", 1_000_000),
            ("max_poison_retries", 1_000),
        ] {
            test_settings().set(key, &most.to_string()).unwrap();
            test_settings().set(key, &(most + 1).to_string()).unwrap_err();
        }
    }
}
