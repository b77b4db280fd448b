//! E-mail over SMTP: a text and an HTML alternative, made by templates.
//!
//! What an alert says cannot become a header, an address or an attachment: it is one line where a
//! header is, and encoded wherever it is not plain ASCII. Every try has the same `Message-ID`, so that
//! mail programs show an alert once that was sent again after an answer was lost; alerts of one
//! fault refer to the same thread.

use super::client::{internal, invalid};
use super::facts::{self, clip};
use super::smtp::{Failure, Reply, Session, SmtpTls, Step, Taken};
use super::template::{Escape, Template, is_unprintable};
use super::{Channel, DeliveryError, Receipt};
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lettre::Message;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use model::{Alert, ErrorKind, Timestamp};
use runtime::KeyRing;
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

const SUBJECT: &str = "[{{ alert.severity }}] {{ alert.title }}{% if alert.host %} on {{ alert.host }}{% endif %}";
const TEXT: &str = include_str!("templates/alert.txt");
const HTML: &str = include_str!("templates/alert.html");

const SUBJECT_CHARS_MAX: usize = 200;
const HEADER_CHARS_MAX: usize = 200;
/// Of the text, and of the HTML.
const BODY_CHARS_MAX: usize = 200_000;
const RECIPIENTS_MAX: usize = 100;
const EXCERPT_CHARS_MAX: usize = 200;
const PROBE_TIMEOUT_MAX: Duration = Duration::from_secs(5);
/// Servers close what is silent for some minutes; some after ten seconds.
const IDLE_MAX: Duration = Duration::from_secs(60);
const SESSIONS_MAX: usize = 4;
/// Servers bound how many messages one session may bring.
const MESSAGES_PER_SESSION_MAX: u32 = 50;

/// A mail server and whom to write to.
#[derive(Debug, Clone)]
pub struct EmailConfig {
    pub name: String,
    pub host: String,
    pub port: u16,
    pub tls: SmtpTls,
    /// Lets [`SmtpTls::DangerousNone`] reach other hosts than this one.
    pub dangerous_plaintext_remote: bool,
    /// PEM bundle to trust instead of the system's roots.
    pub ca_file: Option<PathBuf>,
    /// Of one try, from connecting to the last answer.
    pub timeout: Duration,
    /// Empty: no login.
    pub user: String,
    /// The preferred one first.
    pub passwords: KeyRing,
    /// `mutt@example.com` or `MUTT <mutt@example.com>`.
    pub from: String,
    pub to: Vec<String>,
    pub reply_to: Option<String>,
    /// Templates instead of ours. Whoever gives a text and no HTML sends no HTML.
    pub subject: Option<String>,
    pub text: Option<String>,
    pub html: Option<String>,
    /// Where people see an alert, with `{id}` where its id goes; empty: nowhere.
    pub alert_url: String,
}

pub(super) struct Email {
    config: EmailConfig,
    tls: Arc<rustls::ClientConfig>,
    from: Mailbox,
    to: Vec<Mailbox>,
    reply_to: Option<Mailbox>,
    subject: Template,
    text: Template,
    html: Option<Template>,
    /// What is sent where a template fails on an alert.
    plain: Template,
    idle: Mutex<Vec<Idle>>,
}

/// A session that waits for the next message.
struct Idle {
    session: Session,
    since: Instant,
    messages: u32,
}

impl Email {
    pub fn open(config: EmailConfig) -> Result<Self, DeliveryError> {
        super::check_alert_url(&config.alert_url)?;
        if config.host.is_empty() || config.host.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/') {
            return Err(invalid("the host is not the name or address of a mail server"));
        }
        if config.timeout.is_zero() {
            return Err(invalid("the timeout must be longer than 0"));
        }
        if config.tls == SmtpTls::DangerousNone && !config.dangerous_plaintext_remote && !is_this_host(&config.host) {
            return Err(invalid(
                "dangerous_plaintext reaches this host only (localhost, 127.0.0.1, ::1): everybody on the way to \
                 another one would read the alerts and the password",
            ));
        }
        if config.to.is_empty() || config.to.len() > RECIPIENTS_MAX {
            return Err(invalid(format!("the recipients must be 1 to {RECIPIENTS_MAX} addresses")));
        }
        if config.user.contains('\0') {
            return Err(invalid("the user holds a character that no login can carry"));
        }
        let from = mailbox("from", &config.from)?;
        let to = config.to.iter().map(|address| mailbox("to", address)).collect::<Result<Vec<_>, _>>()?;
        let reply_to = config.reply_to.as_deref().map(|address| mailbox("reply_to", address)).transpose()?;
        // Where nothing is encrypted nobody's certificate counts.
        let tls = match config.tls {
            SmtpTls::DangerousNone => rustls::ClientConfig::builder_with_provider(runtime::tls::provider())
                .with_safe_default_protocol_versions()
                .map_err(|e| internal(&e))?
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth(),
            SmtpTls::Implicit | SmtpTls::StartTls => runtime::tls::client_config(config.ca_file.as_deref())
                .map_err(|e| invalid(format!("TLS cannot be used: {}", internal(&e).reason)))?,
        };
        let template = |name, source: &str, escape| Template::parse(name, source, escape).map_err(invalid);
        let html = match (&config.html, &config.text) {
            (Some(html), _) if html.trim().is_empty() => None,
            (Some(html), _) => Some(html.as_str()),
            (None, Some(_)) => None,
            (None, None) => Some(HTML),
        };
        Ok(Self {
            tls: Arc::new(tls),
            from,
            to,
            reply_to,
            subject: template("subject", config.subject.as_deref().unwrap_or(SUBJECT), Escape::Text)?,
            text: template("text", config.text.as_deref().unwrap_or(TEXT), Escape::Text)?,
            html: html.map(|html| template("html", html, Escape::Html)).transpose()?,
            plain: template("text", TEXT, Escape::Text)?,
            idle: Mutex::default(),
            config,
        })
    }

    /// The message as it goes over the wire, before dots are doubled.
    fn message(&self, alert: &Alert, now: Timestamp) -> Result<Vec<u8>, DeliveryError> {
        let url = super::alert_url(&self.config.alert_url, alert);
        let tried = |template: &Template| {
            template.render(alert, &url).inspect_err(|reason| {
                tracing::warn!(alert.id = %alert.id, reason, "a template failed; the alert is sent without it");
            })
        };
        let subject = tried(&self.subject).unwrap_or_else(|_| facts::title(alert));
        let plain = || self.plain.render(alert, &url).unwrap_or_else(|_| alert.message.clone());
        let (text, html) = match (tried(&self.text), self.html.as_ref().map(&tried)) {
            (Ok(text), Some(Ok(html))) => (text, Some(html)),
            (Ok(text), None) => (text, None),
            (Ok(text), Some(Err(_))) => (text, None),
            (Err(_), _) => (plain(), None),
        };
        let domain = self.from.email.domain();
        let since_epoch = Duration::from_micros(u64::try_from(now.micros()).unwrap_or_default());
        let mut message = Message::builder()
            .from(self.from.clone())
            .date(SystemTime::UNIX_EPOCH + since_epoch)
            .message_id(Some(format!("<{}.{}@{domain}>", alert.id, self.config.name)))
            .references(format!("<{}@{domain}>", thread(alert)))
            .subject(one_line(&subject, SUBJECT_CHARS_MAX));
        for to in &self.to {
            message = message.to(to.clone());
        }
        if let Some(reply_to) = &self.reply_to {
            message = message.reply_to(reply_to.clone());
        }
        let header = |name, value: &str| {
            HeaderValue::new(HeaderName::new_from_ascii_str(name), one_line(value, HEADER_CHARS_MAX))
        };
        for (name, value) in [
            ("Auto-Submitted", "auto-generated"),
            ("X-Auto-Response-Suppress", "All"),
            ("X-MUTT-Alert-Id", alert.id.to_string().as_str()),
            ("X-MUTT-Org", alert.org.as_str()),
            ("X-MUTT-Kind", alert.kind.as_str()),
            ("X-MUTT-Severity", alert.severity.as_str()),
            ("X-MUTT-Host", &alert.host),
            ("X-MUTT-Team", &alert.team),
            ("X-MUTT-Rule", &facts::rule(alert)),
        ] {
            if !value.trim().is_empty() {
                message = message.raw_header(header(name, value));
            }
        }
        let (text, html) = (body(&text), html.as_deref().map(body));
        let built = match html {
            Some(html) => message.multipart(MultiPart::alternative_plain_html(text, html)),
            None => message.singlepart(lettre::message::SinglePart::plain(text)),
        };
        Ok(built.map_err(|e| internal(&e))?.formatted())
    }

    async fn hand_over(&self, message: &[u8]) -> Result<Taken, DeliveryError> {
        let to: Vec<String> = self.to.iter().map(|mailbox| mailbox.email.to_string()).collect();
        let mut idle = self.ready().await?;
        let from = self.from.email.to_string();
        let taken = idle.session.send(&from, &to, message).await.map_err(|failure| self.failed(failure))?;
        idle.messages += 1;
        self.put_back(idle);
        Ok(taken)
    }

    fn put_back(&self, idle: Idle) {
        let mut sessions = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.messages < MESSAGES_PER_SESSION_MAX && sessions.len() < SESSIONS_MAX {
            sessions.push(Idle { since: Instant::now(), ..idle });
        }
    }

    async fn ready(&self) -> Result<Idle, DeliveryError> {
        match self.waiting().await {
            Some(idle) => Ok(idle),
            None => Ok(Idle { session: self.session().await?, since: Instant::now(), messages: 0 }),
        }
    }

    /// A session from before that still answers.
    async fn waiting(&self) -> Option<Idle> {
        loop {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            if idle.since.elapsed() < IDLE_MAX && idle.session.reset().await.is_ok() {
                return Some(idle);
            }
        }
    }

    /// A new session, logged in where there is a user.
    async fn session(&self) -> Result<Session, DeliveryError> {
        let connect = || Session::connect(&self.config.host, self.config.port, self.config.tls, &self.tls);
        if self.config.user.is_empty() {
            return connect().await.map_err(|failure| self.failed(failure));
        }
        let mut refused =
            DeliveryError { kind: ErrorKind::Denied, ..invalid("a user is configured, but no password is known") };
        for password in self.config.passwords.keys() {
            // Servers may close a session in which a login failed.
            let mut session = connect().await.map_err(|failure| self.failed(failure))?;
            match session.log_in(&self.config.user, password.expose()).await.map_err(|failure| self.failed(failure)) {
                Ok(()) => return Ok(session),
                Err(error) if error.kind == ErrorKind::Denied => refused = error,
                Err(error) => return Err(error),
            }
        }
        Err(refused)
    }

    /// What a failure means.
    fn failed(&self, failure: Failure) -> DeliveryError {
        let shown = self.shown();
        let (kind, reason) = match failure {
            Failure::Broken(step, error) => {
                let what = if step == Step::Greeting { "cannot be reached" } else { "did not answer properly" };
                (ErrorKind::Unavailable, format!("`{shown}` {what} ({}): {error}", step.as_str()))
            }
            // As a certificate that does not fit: somebody in between may have taken it away.
            Failure::Lacks(what) => (ErrorKind::Unavailable, format!("`{shown}` does not offer {what}")),
            Failure::Refused(step, reply) => {
                let said = self.excerpt(&reply);
                (kind(step, &reply), format!("`{shown}` answered {} to {}: {said}", reply.code, step.as_str()))
            }
        };
        DeliveryError { kind, reason, retry_after: None, receiver_at_fault: kind.is_transient() }
    }

    fn shown(&self) -> String {
        let scheme = if self.config.tls == SmtpTls::Implicit { "smtps" } else { "smtp" };
        let host = &self.config.host;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        format!("{scheme}://{host}:{}", self.config.port)
    }

    /// What the server said, on one line and without what it might repeat of a login.
    fn excerpt(&self, reply: &Reply) -> String {
        let mut text = reply.text.clone();
        for password in self.config.passwords.keys() {
            let password = password.expose();
            let login = format!("\0{}\0{password}", self.config.user);
            for hidden in [STANDARD.encode(login), STANDARD.encode(password), password.to_owned()] {
                if !hidden.is_empty() {
                    text = text.replace(&hidden, "***");
                }
            }
        }
        one_line(&text, EXCERPT_CHARS_MAX)
    }

    fn too_late(&self) -> DeliveryError {
        let reason = format!("`{}` did not answer in time", self.shown());
        DeliveryError { kind: ErrorKind::Timeout, reason, retry_after: None, receiver_at_fault: true }
    }
}

#[async_trait]
impl Channel for Email {
    fn name(&self) -> &str {
        &self.config.name
    }

    async fn deliver(&self, alert: &Alert, now: Timestamp) -> Result<Receipt, DeliveryError> {
        let message = self.message(alert, now)?;
        let handed = tokio::time::timeout(self.config.timeout, self.hand_over(&message)).await;
        let taken = handed.unwrap_or_else(|_| Err(self.too_late()))?;
        let mut detail = format!("SMTP {}", taken.reply.code);
        if !taken.refused.is_empty() {
            let all = self.to.len();
            detail.push_str(&format!("; {} of {all} recipients refused", taken.refused.len()));
            for (address, reply) in &taken.refused {
                let (code, said) = (reply.code, self.excerpt(reply));
                tracing::warn!(channel = self.config.name, code, said, "a recipient is refused by the mail server");
                tracing::debug!(address, "the refused recipient");
            }
        }
        Ok(Receipt { detail })
    }

    async fn probe(&self) -> Result<(), DeliveryError> {
        let asked = tokio::time::timeout(self.config.timeout.min(PROBE_TIMEOUT_MAX), self.ready()).await;
        match asked.unwrap_or_else(|_| Err(self.too_late())) {
            Ok(idle) => {
                self.put_back(idle);
                Ok(())
            }
            // Who refuses is there.
            Err(error) if !error.receiver_at_fault => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// What a refusal is, by where it came and its number (RFC 5321 §4.2, RFC 4954 §6).
fn kind(step: Step, reply: &Reply) -> ErrorKind {
    match (reply.code, step) {
        (452, _) => ErrorKind::Full,
        (530 | 534 | 535 | 538, _) | (500..=599, Step::Auth) => ErrorKind::Denied,
        (500..=599, Step::Mail | Step::Rcpt | Step::Data) => ErrorKind::Invalid,
        // 4xx, a server that wants nothing to do with us at all, and numbers that make no sense here.
        _ => ErrorKind::Unavailable,
    }
}

fn is_this_host(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn mailbox(what: &str, text: &str) -> Result<Mailbox, DeliveryError> {
    let mailbox: Mailbox =
        text.trim().parse().map_err(|_| invalid(format!("`{what}`: `{}` is not an e-mail address", text.trim())))?;
    let address: &str = mailbox.email.as_ref();
    if !address.is_ascii() || address.contains(|c: char| c.is_control() || matches!(c, '<' | '>' | ' ')) {
        return Err(invalid(format!("`{what}`: `{address}` is not an address of plain ASCII")));
    }
    Ok(mailbox)
}

/// Names a thread: the fault within its organisation.
fn thread(alert: &Alert) -> String {
    let digest = Sha256::digest(format!("{}/{}", alert.org.as_str(), alert.signature).as_bytes());
    let hex: String = digest.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    format!("mutt-{hex}")
}

/// A text that fits into a header: one line, nothing that a mail program would decode.
fn one_line(text: &str, max: usize) -> String {
    let words: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || is_unprintable(c)).filter(|word| !word.is_empty()).collect();
    clip(&words.join(" ").replace("=?", "= ?"), max)
}

/// A text that fits into a body: lines of what can be shown.
fn body(text: &str) -> String {
    let text = text.replace("\r\n", "\n");
    let shown = text.chars().map(|c| match c {
        '\n' | '\t' => c,
        c if is_unprintable(c) => char::REPLACEMENT_CHARACTER,
        c => c,
    });
    clip(&shown.collect::<String>(), BODY_CHARS_MAX)
}

#[cfg(test)]
mod tests;
