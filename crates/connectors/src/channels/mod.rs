//! Channels: where alerts go.
//!
//! Promises of every channel (`contract.rs` checks them):
//! * `deliver` tries exactly once: no retry, no sleep, no queue. The pipeline retries, limits and
//!   breaks, once for all channels.
//! * The receiver is given the same idempotency key (the alert's id) on every try.
//! * One connection is reused between deliveries.
//! * Errors say whether trying again can help and, if the receiver said so, when.
//! * No secret in an error, a log line or a URL that is shown.
//!
//! To add one: a file beside these, a variant in [`ChannelConfig`] and an arm in [`open`]. The
//! smallest to imitate is `webhook.rs`; a channel over HTTP posts through `client.rs` and passes
//! `contract::http_channel` (a test of a few lines in `tests/channels_contract.rs`). What people word
//! themselves is a template of `template.rs`, which may say what `facts.rs` lists.

mod client;
#[cfg(feature = "contract")]
pub mod contract;
mod email;
mod facts;
mod http_template;
mod moogsoft;
mod pagerduty;
mod slack;
mod smtp;
mod template;
mod webhook;

pub use email::EmailConfig;
pub use http_template::{BodyFormat, HttpConfig, HttpMethod};
pub use pagerduty::{PAGERDUTY_URL, PagerDutyConfig};
pub use slack::{SlackConfig, SlackFormat};
pub use smtp::SmtpTls;

use async_trait::async_trait;
use http::header::{HeaderName, HeaderValue};
use model::{Alert, ErrorKind, Timestamp};
use runtime::{KeyRing, Secret};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The receiver took it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Short and human: `HTTP 200`.
    pub detail: String,
}

/// The receiver did not take it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub struct DeliveryError {
    /// Transient kinds are tried again; for others somebody must mend something first.
    pub kind: ErrorKind,
    /// A sentence for people, with the receiver's status and the start of its answer.
    pub reason: String,
    /// The receiver's own wish (`Retry-After`).
    pub retry_after: Option<Duration>,
    /// Whether this says something about the receiver (5xx, 429, timeout, connection) rather than
    /// about this alert: what the breaker counts.
    pub receiver_at_fault: bool,
}

/// A way to tell people. Its promises are at the top of this module.
#[async_trait]
pub trait Channel: Send + Sync + 'static {
    /// The configured name; unique, stable, used in payloads and metrics.
    fn name(&self) -> &str;

    /// Tries once. `now` is the time of sending.
    async fn deliver(&self, alert: &Alert, now: Timestamp) -> Result<Receipt, DeliveryError>;

    /// Asks whether the receiver answers, without creating anything there. Any answer will do that
    /// is not its own failure: who refuses the question is there.
    async fn probe(&self) -> Result<(), DeliveryError>;
}

/// What every HTTP channel needs. Prints without path and query of the URL.
#[derive(Clone)]
pub struct HttpTarget {
    pub name: String,
    /// `https://…` or `http://…` without user name and password; validated by [`open`].
    pub url: String,
    /// From the start of a try to the end of its answer.
    pub timeout: Duration,
    /// PEM bundle to trust instead of the system's roots.
    pub ca_file: Option<PathBuf>,
}

impl fmt::Debug for HttpTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTarget")
            .field("name", &self.name)
            .field("url", &client::shown(&self.url))
            .field("timeout", &self.timeout)
            .field("ca_file", &self.ca_file)
            .finish()
    }
}

/// A channel to open.
#[derive(Debug, Clone)]
pub enum ChannelConfig {
    /// Moogsoft AIOps webhook (contract mutt §4).
    Moogsoft { target: HttpTarget, api_keys: KeyRing },
    /// A signed webhook (Standard Webhooks 1.0).
    Webhook { target: HttpTarget, secret: Secret },
    /// E-mail over SMTP.
    Email(Box<EmailConfig>),
    /// Slack's incoming webhook, or one that is like it.
    Slack(Box<SlackConfig>),
    /// PagerDuty's Events API v2.
    PagerDuty(Box<PagerDutyConfig>),
    /// A webhook whose request is configured.
    Http(Box<HttpConfig>),
}

impl ChannelConfig {
    /// The configured name of the channel.
    pub fn name(&self) -> &str {
        match self {
            Self::Moogsoft { target, .. } | Self::Webhook { target, .. } => &target.name,
            Self::Email(config) => &config.name,
            Self::Slack(config) => &config.target.name,
            Self::PagerDuty(config) => &config.target.name,
            Self::Http(config) => &config.target.name,
        }
    }
}

/// Builds the channel; fails on what can be known without the receiver (URL, CA file, secret).
pub fn open(config: ChannelConfig) -> Result<Arc<dyn Channel>, DeliveryError> {
    let channel: Arc<dyn Channel> = match config {
        ChannelConfig::Moogsoft { target, api_keys } => Arc::new(moogsoft::Moogsoft::open(target, api_keys)?),
        ChannelConfig::Webhook { target, secret } => Arc::new(webhook::Webhook::open(target, secret)?),
        ChannelConfig::Email(config) => Arc::new(email::Email::open(*config)?),
        ChannelConfig::Slack(config) => Arc::new(slack::Slack::open(*config)?),
        ChannelConfig::PagerDuty(config) => Arc::new(pagerduty::PagerDuty::open(*config)?),
        ChannelConfig::Http(config) => Arc::new(http_template::HttpTemplate::open(*config)?),
    };
    Ok(channel)
}

/// The key that repeats of one alert share.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

fn key_header(alert: &Alert) -> Result<HeaderValue, DeliveryError> {
    alert.id.to_string().parse().map_err(|e: http::header::InvalidHeaderValue| client::internal(&e))
}

/// Where people can see an alert: the configured URL with its `{id}` filled in, or nothing.
fn alert_url(configured: &str, alert: &Alert) -> String {
    configured.replace("{id}", &alert.id.to_string())
}

fn check_alert_url(configured: &str) -> Result<(), DeliveryError> {
    let is_url = |text: &str| {
        (text.starts_with("https://") || text.starts_with("http://"))
            && !text.contains(|c: char| c.is_whitespace() || c.is_control())
    };
    if configured.is_empty() || (is_url(configured) && configured.contains("{id}")) {
        return Ok(());
    }
    Err(client::invalid("alert_url must start with https:// or http:// and say with `{id}` where the alert's id goes"))
}
