//! E-mail, Slack, PagerDuty and requests of one's own: as they are written, and as they are opened.

use super::check::Check;
use super::raw::ten_seconds;
use super::settings::ChannelSettings;
use connectors::channels::{
    BodyFormat, ChannelConfig, EmailConfig, HttpConfig, HttpMethod, PAGERDUTY_URL, PagerDutyConfig, SlackConfig,
    SlackFormat, SmtpTls,
};
use runtime::secrets::{Local, read_secret};
use runtime::{KeyRing, Secret};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Names of the channels that the environment makes.
pub const EMAIL: &str = "email";
pub const SLACK: &str = "slack";

/// Secrets that channels without one of their own follow.
const EMAIL_SECRET: &str = "SMTP_PASS";
pub const SLACK_SECRET: &str = "SLACK_WEBHOOK_URL";
const PAGERDUTY_SECRET: &str = "PAGERDUTY_ROUTING_KEY";

/// Stand for what only Vault knows until it is read; the channel is then opened with what it says.
const UNKNOWN_URL: &str = "https://unknown.invalid/";
const UNKNOWN_KEY: &str = "unknown";

const IMPLICIT_TLS_PORT: i64 = 465;
const TEMPLATE_BYTES_MAX: u64 = 64 * 1024;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Email {
    #[serde(default)]
    pub name: String,
    pub host: String,
    #[serde(default = "submission_port")]
    pub port: i64,
    #[serde(default = "auto")]
    pub tls: String,
    #[serde(default)]
    pub ca_file: String,
    #[serde(default)]
    pub dangerous_plaintext: bool,
    #[serde(default)]
    pub dangerous_plaintext_remote: bool,
    #[serde(default)]
    pub user: String,
    #[serde(default)]
    pub password: String,
    #[serde(default)]
    pub from: String,
    pub to: Vec<String>,
    #[serde(default)]
    pub reply_to: String,
    #[serde(default = "thirty_seconds")]
    pub timeout_ms: i64,
    pub subject: Option<String>,
    pub text: Option<String>,
    pub html: Option<String>,
    #[serde(default)]
    pub alert_url: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slack {
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub url: String,
    #[serde(default)]
    pub channel: String,
    #[serde(default = "blocks")]
    pub format: String,
    #[serde(default = "ten_seconds")]
    pub timeout_ms: i64,
    #[serde(default)]
    pub ca_file: String,
    pub title: Option<String>,
    pub text: Option<String>,
    #[serde(default)]
    pub alert_url: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PagerDuty {
    pub name: String,
    #[serde(default = "pagerduty_url")]
    pub url: String,
    #[serde(default)]
    pub routing_key: String,
    #[serde(default = "ten_seconds")]
    pub timeout_ms: i64,
    #[serde(default)]
    pub ca_file: String,
    #[serde(default)]
    pub alert_url: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    pub name: String,
    pub url: String,
    #[serde(default = "post")]
    pub method: String,
    /// Values may be `file:…`.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    #[serde(default = "json")]
    pub format: String,
    pub content_type: Option<String>,
    pub body: Option<String>,
    #[serde(default = "ten_seconds")]
    pub timeout_ms: i64,
    #[serde(default)]
    pub ca_file: String,
    #[serde(default)]
    pub alert_url: String,
}

fn submission_port() -> i64 {
    587
}
fn auto() -> String {
    "auto".into()
}
fn thirty_seconds() -> i64 {
    30_000
}
fn blocks() -> String {
    "blocks".into()
}
fn pagerduty_url() -> String {
    PAGERDUTY_URL.into()
}
fn post() -> String {
    "POST".into()
}
fn json() -> String {
    "json".into()
}

/// What is known before the start of the secrets that channels may follow.
pub struct ChannelSecrets<'a> {
    pub given: &'a BTreeMap<String, Local>,
    /// Whether there is a Vault, which may give what is not known yet.
    pub from_vault: bool,
}

impl ChannelSecrets<'_> {
    pub fn gives(&self, name: &str) -> bool {
        self.local(name).is_some()
    }

    fn local(&self, name: &str) -> Option<&Local> {
        self.given.get(&format!("{name}_CURRENT")).or_else(|| self.given.get(name))
    }

    /// The setting's own value, or that of the secret `name`, which the channel then follows.
    fn choose(&self, check: &mut Check<'_>, path: &str, own: &str, name: &'static str) -> Chosen {
        // The environment's settings are among `given` too, by their names.
        let is_given = self.given.get(name) == Some(&Local::parse(own));
        if !own.is_empty() && !is_given {
            return Chosen { secret: check.secret(path, own), follows: None, known: true, missing: false };
        }
        let local = self.local(name);
        let secret = match local {
            Some(Local::Text(secret)) => secret.clone(),
            // What is wrong with the file is said where the secrets are read.
            Some(Local::File(file)) => read_secret(file).unwrap_or_else(|_| Secret::new("")),
            None => Secret::new(""),
        };
        let known = !secret.is_empty();
        Chosen { secret, follows: Some(name), known, missing: local.is_none() && !self.from_vault }
    }
}

/// A secret of a channel.
struct Chosen {
    secret: Secret,
    follows: Option<&'static str>,
    /// Whether it is here; if not, opening the channel is tried with something in its place.
    known: bool,
    /// Whether nobody will give it.
    missing: bool,
}

impl Email {
    pub fn channel(
        &self,
        check: &mut Check<'_>,
        path: &str,
        name: &str,
        secrets: &ChannelSecrets<'_>,
    ) -> ChannelSettings {
        let found = check.0.len();
        if self.host.is_empty() {
            check.problem(format!("{path}.host"), "is needed where there are recipients");
        }
        if self.to.is_empty() {
            check.problem(format!("{path}.to"), "is empty: name at least one recipient");
        }
        let (mut follows, mut password) = (None, Secret::new(""));
        if !self.user.is_empty() {
            let setting = format!("{path}.password");
            let chosen = secrets.choose(check, &setting, &self.password, EMAIL_SECRET);
            (password, follows) = (chosen.secret, chosen.follows);
            if chosen.missing {
                check.problem(setting, "is needed for the user; or set SMTP_PASS, or leave the user out");
            }
        } else if !self.password.is_empty() {
            check.problem(format!("{path}.user"), "is needed for the password");
        }
        let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        let from = match (self.from.as_str(), self.user.as_str()) {
            ("", user) if user.contains('@') => user.to_owned(),
            ("", _) => format!("mutt@{}", host()),
            (from, _) => from.to_owned(),
        };
        let config = ChannelConfig::Email(Box::new(EmailConfig {
            name: name.to_owned(),
            host: self.host.clone(),
            port: check.range(&format!("{path}.port"), self.port, 1, 65_535),
            tls: self.tls(check, path),
            dangerous_plaintext_remote: self.dangerous_plaintext_remote,
            ca_file: ca_file(check, path, &self.ca_file),
            timeout: check.millis(&format!("{path}.timeout_ms"), self.timeout_ms, 100, 300_000),
            user: self.user.clone(),
            passwords: KeyRing::fixed(password),
            from,
            to: self.to.clone(),
            reply_to: (!self.reply_to.is_empty()).then(|| self.reply_to.clone()),
            subject: template(check, path, "subject", self.subject.as_deref()),
            text: template(check, path, "text", self.text.as_deref()),
            html: template(check, path, "html", self.html.as_deref()),
            alert_url: self.alert_url.clone(),
        }));
        check.opens(path, &config, found);
        ChannelSettings(config, follows)
    }

    fn tls(&self, check: &mut Check<'_>, path: &str) -> SmtpTls {
        let said = match self.tls.as_str() {
            "auto" if self.port == IMPLICIT_TLS_PORT => SmtpTls::Implicit,
            "auto" | "starttls" => SmtpTls::StartTls,
            "implicit" => SmtpTls::Implicit,
            other => {
                check.problem(format!("{path}.tls"), format!("`{other}` is not one of auto, starttls, implicit"));
                SmtpTls::StartTls
            }
        };
        if !self.dangerous_plaintext {
            return said;
        }
        if self.tls != "auto" {
            check.problem(format!("{path}.tls"), "and dangerous_plaintext exclude each other");
        }
        SmtpTls::DangerousNone
    }
}

impl Slack {
    pub fn channel(
        &self,
        check: &mut Check<'_>,
        path: &str,
        name: &str,
        secrets: &ChannelSecrets<'_>,
    ) -> ChannelSettings {
        let found = check.0.len();
        let setting = format!("{path}.url");
        let chosen = secrets.choose(check, &setting, &self.url, SLACK_SECRET);
        if chosen.missing {
            check.problem(setting, "is empty, and there is no SLACK_WEBHOOK_URL");
        }
        let format = match self.format.as_str() {
            "blocks" => SlackFormat::Blocks,
            "attachments" => SlackFormat::Attachments,
            other => {
                check.problem(format!("{path}.format"), format!("`{other}` is not one of blocks, attachments"));
                SlackFormat::Blocks
            }
        };
        let url = if chosen.known { chosen.secret.expose() } else { UNKNOWN_URL };
        let target = check.target(path, name.to_owned(), url, self.timeout_ms, &self.ca_file);
        let config = ChannelConfig::Slack(Box::new(SlackConfig {
            target,
            urls: KeyRing::from(Vec::new()),
            channel: self.channel.clone(),
            format,
            title: template(check, path, "title", self.title.as_deref()),
            text: template(check, path, "text", self.text.as_deref()),
            alert_url: self.alert_url.clone(),
        }));
        check.opens(path, &config, found);
        ChannelSettings(config, chosen.follows)
    }
}

impl PagerDuty {
    pub fn channel(&self, check: &mut Check<'_>, path: &str, secrets: &ChannelSecrets<'_>) -> ChannelSettings {
        let found = check.0.len();
        let setting = format!("{path}.routing_key");
        let chosen = secrets.choose(check, &setting, &self.routing_key, PAGERDUTY_SECRET);
        if chosen.missing {
            check.problem(setting, "is empty, and there is no PAGERDUTY_ROUTING_KEY");
        }
        let key = if chosen.known { chosen.secret } else { Secret::new(UNKNOWN_KEY) };
        let config = ChannelConfig::PagerDuty(Box::new(PagerDutyConfig {
            target: check.target(path, self.name.clone(), &self.url, self.timeout_ms, &self.ca_file),
            routing_keys: KeyRing::fixed(key),
            alert_url: self.alert_url.clone(),
        }));
        check.opens(path, &config, found);
        ChannelSettings(config, chosen.follows)
    }
}

impl Http {
    pub fn channel(&self, check: &mut Check<'_>, path: &str) -> ChannelSettings {
        let found = check.0.len();
        let method = match self.method.to_ascii_uppercase().as_str() {
            "POST" => HttpMethod::Post,
            "PUT" => HttpMethod::Put,
            _ => {
                check.problem(format!("{path}.method"), format!("`{}` is not one of POST, PUT", self.method));
                HttpMethod::Post
            }
        };
        let format = match self.format.as_str() {
            "json" => BodyFormat::Json,
            "security-manager" => BodyFormat::SecurityManager,
            "text" => BodyFormat::Text,
            other => {
                let known = "json, text, security-manager";
                check.problem(format!("{path}.format"), format!("`{other}` is not one of {known}"));
                BodyFormat::Json
            }
        };
        let headers = self.headers.iter();
        let headers =
            headers.map(|(name, value)| (name.clone(), check.secret(&format!("{path}.headers.{name}"), value)));
        let headers = headers.collect();
        let config = ChannelConfig::Http(Box::new(HttpConfig {
            target: check.target(path, self.name.clone(), &self.url, self.timeout_ms, &self.ca_file),
            method,
            headers,
            format,
            content_type: self.content_type.clone(),
            body: template(check, path, "body", self.body.as_deref()),
            alert_url: self.alert_url.clone(),
        }));
        check.opens(path, &config, found);
        ChannelSettings(config, None)
    }
}

/// The template itself, or the content of the file that `file:…` names.
fn template(check: &mut Check<'_>, path: &str, setting: &str, text: Option<&str>) -> Option<String> {
    let Some(file) = text?.strip_prefix("file:") else { return text.map(str::to_owned) };
    let read = std::fs::metadata(file).and_then(|found| match found.is_file() && found.len() <= TEMPLATE_BYTES_MAX {
        true => std::fs::read_to_string(file),
        false => Err(std::io::Error::other(format!("it is not a file of at most {TEMPLATE_BYTES_MAX} bytes"))),
    });
    read.map_err(|e| check.problem(format!("{path}.{setting}"), format!("the file `{file}` cannot be read: {e}"))).ok()
}

fn ca_file(check: &mut Check<'_>, path: &str, file: &str) -> Option<PathBuf> {
    let file = (!file.is_empty()).then(|| PathBuf::from(file))?;
    if !file.is_file() {
        check.problem(format!("{path}.ca_file"), format!("`{}` is not a file", file.display()));
    }
    Some(file)
}

#[cfg(test)]
mod tests;
