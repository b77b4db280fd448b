//! The settings in force: what the rest of the program sees of the configuration.

use super::agents::AgentSettings;
use super::channels::ChannelSecrets;
use super::detection::DetectionSettings;
use super::stores::StoreSettings;
use connectors::channels::ChannelConfig;
use connectors::inputs::http::BodyRules;
use connectors::inputs::snmp::SnmpConfig;
use model::Durability;
use pipeline::LiveSettings;
use pipeline::notify::Router;
use runtime::Secret;
use runtime::config::nearest;
use runtime::logging::LogConfig;
use runtime::tls::MinimumTls;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use storage::coordination::RateLimit;
use storage::events::EventStoreConfig;

/// A part of the product that can run alone or with others in one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Ingestor,
    Alerter,
    Forwarder,
    Remediation,
    Webui,
}

impl Role {
    pub const ALL: [Self; 5] = [Self::Ingestor, Self::Alerter, Self::Forwarder, Self::Remediation, Self::Webui];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingestor => "ingestor",
            Self::Alerter => "alerter",
            Self::Forwarder => "forwarder",
            Self::Remediation => "remediation",
            Self::Webui => "webui",
        }
    }
}

impl FromStr for Role {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.map(Self::as_str);
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| {
            let hint = nearest(text, known.into_iter()).map_or(String::new(), |k| format!("; did you mean `{k}`?"));
            format!("`{text}` is not a role: {}{hint}", known.join(", "))
        })
    }
}

/// An address to listen on, with the setting it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    pub address: SocketAddr,
    pub setting: &'static str,
}

/// The two ports of a worker role; both answer `/health` and `/metrics`.
#[derive(Debug, Clone, Default)]
pub struct PairListen {
    pub metrics: Option<Listen>,
    pub health: Option<Listen>,
}

/// Certificate and key of an HTTP listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    pub cert: PathBuf,
    pub key: PathBuf,
    pub minimum: MinimumTls,
}

#[derive(Debug, Clone)]
pub struct HttpSettings {
    pub listen: Listen,
    pub tls: Option<TlsSettings>,
    pub durability: Durability,
    pub rules: BodyRules,
    pub body_bytes_max: usize,
    pub body_timeout: Duration,
    pub connections_max: usize,
}

#[derive(Debug, Clone)]
pub struct SyslogSettings {
    pub udp: Option<Listen>,
    pub tcp: Option<Listen>,
    pub tls: Option<(Listen, PathBuf, PathBuf, MinimumTls)>,
    pub durability: Durability,
    pub message_bytes_max: usize,
    pub connections_max: usize,
    pub idle_timeout: Duration,
    pub receive_buffer_bytes: usize,
    pub timezone: String,
}

/// Name of the channel that the original's environment configures.
pub const MOOGSOFT: &str = "moogsoft";

/// A channel, and the name of the secret that it follows where its own settings give none.
#[derive(Debug, Clone)]
pub struct ChannelSettings(pub ChannelConfig, pub Option<&'static str>);

/// The configuration in force.
#[derive(Debug, Clone)]
pub struct Config {
    pub data_dir: PathBuf,
    pub roles: Vec<Role>,
    pub grace: Duration,
    pub log: LogConfig,
    pub http: Option<HttpSettings>,
    pub syslog: SyslogSettings,
    /// The gateway for agents, where it is on.
    pub agents: Option<AgentSettings>,
    /// The SNMP listener, where it is on.
    pub snmp: Option<(Listen, SnmpConfig)>,
    pub stores: StoreSettings,
    pub alerter_listen: PairListen,
    pub alerter_workers: usize,
    pub batch_max: usize,
    pub event_retries_max: u32,
    pub rule_paths: Vec<PathBuf>,
    pub detection: DetectionSettings,
    pub forwarder_listen: PairListen,
    pub delivery_concurrency: usize,
    pub delivery_retries_max: u32,
    pub retry_base: Duration,
    pub retry_max: Duration,
    pub channels: Vec<ChannelSettings>,
    /// Which channels are told of which alerts.
    pub router: Arc<Router>,
    pub remediation_listen: PairListen,
    pub remediation_probe: bool,
    pub webui_listen: Option<Listen>,
    pub webui_tls: Option<TlsSettings>,
    /// May hold a password: never shown.
    pub prometheus_url: Option<Secret>,
    pub metrics_cache: Duration,
    pub version_prefix: bool,
    pub key_in_url: bool,
    /// How long after the start the first round of retention is.
    pub retention_first_after: Duration,
    pub ingest_limit: Option<RateLimit>,
    /// Settings that act while running.
    pub live: LiveSettings,
}

impl Config {
    /// The secrets that these roles cannot do without, where a Vault is to give them. Without one a
    /// missing key of ours is made, and stores may need no password.
    pub fn required_secrets(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        if self.stores.vault.is_none() {
            return names;
        }
        if self.has(Role::Ingestor) {
            names.push("INGEST_API_KEY");
        }
        // A key made in each data directory would be another one behind each address of a balancer.
        if self.has(Role::Webui) {
            names.push("WEBUI_API_KEY");
        }
        if self.has(Role::Forwarder) {
            let mut followed: Vec<&'static str> = self.channels.iter().filter_map(|channel| channel.1).collect();
            followed.sort_unstable();
            followed.dedup();
            names.extend(followed);
        }
        let catalog = self.roles.iter().any(|role| *role != Role::Ingestor);
        if catalog && matches!(self.stores.catalog, storage::catalog::CatalogConfig::Postgres(_)) {
            names.push("DB_PASS");
        }
        names
    }

    /// The secret without which the channel cannot be opened, where only Vault has it.
    pub fn awaits_vault(&self, channel: &ChannelSettings) -> Option<&'static str> {
        let name = channel.1.filter(|name| *name != "MOOG_API_KEY")?;
        let secrets = ChannelSecrets { given: &self.stores.given, from_vault: self.stores.vault.is_some() };
        (secrets.from_vault && !secrets.gives(name)).then_some(name)
    }

    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// Whether no alert can be delivered by anybody: this process is the forwarder, has no channel, and
    /// has the queue for itself. Everywhere else alerts wait for a forwarder that has one.
    pub fn only_records_alerts(&self) -> bool {
        self.channels.is_empty() && self.has(Role::Forwarder) && !self.stores.shares_queue()
    }

    /// That the forwarder will ask Moogsoft without a key, where nobody gives one.
    pub fn moog_key_note(&self) -> Option<String> {
        let asks = self.has(Role::Forwarder) && self.channels.iter().any(|channel| channel.0.name() == MOOGSOFT);
        let has_key = self.stores.vault.is_some() || self.stores.given.contains_key("MOOG_API_KEY");
        (asks && !has_key).then(|| {
            "no key for Moogsoft is configured: alerts are sent to it without Authorization (MOOG_API_KEY, \
             forwarder.moog.api_key)"
                .to_owned()
        })
    }

    /// What a person should know who has not configured a channel: what becomes of alerts. Only a
    /// forwarder needs one.
    pub fn channels_note(&self) -> Option<String> {
        if !self.channels.is_empty() || !self.has(Role::Forwarder) {
            return None;
        }
        let becomes = if self.only_records_alerts() {
            "alerts are kept in the catalog only"
        } else {
            "this forwarder delivers nothing, and alerts wait in the queue for one that has a channel"
        };
        Some(format!("no alert channel is configured: {becomes} (settings forwarder.moog.url, [[channel]])"))
    }

    /// Whether this process keeps events, or was told where others do.
    pub fn sees_events(&self) -> bool {
        let EventStoreConfig::Sqlite { read_also, .. } = &self.stores.events;
        self.has(Role::Alerter) || !read_also.is_empty()
    }

    /// Every TCP address that the chosen roles listen on.
    pub fn listens(&self) -> Vec<&Listen> {
        let mut all: Vec<&Listen> = Vec::new();
        if self.has(Role::Ingestor) {
            all.extend(self.http.as_ref().map(|h| &h.listen));
            all.extend(
                self.agents.iter().flat_map(|agents| std::iter::once(&agents.listen).chain(&agents.also_listen)),
            );
            all.extend(&self.syslog.tcp);
            all.extend(self.syslog.tls.as_ref().map(|t| &t.0));
        }
        for (role, pair) in [
            (Role::Alerter, &self.alerter_listen),
            (Role::Forwarder, &self.forwarder_listen),
            (Role::Remediation, &self.remediation_listen),
        ] {
            if self.has(role) {
                all.extend(&pair.metrics);
                all.extend(&pair.health);
            }
        }
        if self.has(Role::Webui) {
            all.extend(&self.webui_listen);
        }
        all
    }

    /// Every UDP address that the chosen roles listen on.
    pub fn listens_udp(&self) -> Vec<&Listen> {
        if !self.has(Role::Ingestor) {
            return Vec::new();
        }
        self.syslog.udp.iter().chain(self.snmp.as_ref().map(|(listen, _)| listen)).collect()
    }
}
