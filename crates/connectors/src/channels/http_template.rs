//! A webhook whose request is configured: method, headers, and a body of a template.

use super::client::{HttpClient, internal, invalid, sensitive};
use super::template::{Escape, Template};
use super::{Channel, DeliveryError, HttpTarget, IDEMPOTENCY_KEY, Receipt, key_header};
use async_trait::async_trait;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Method};
use model::{Alert, Timestamp};
use runtime::{KeyRing, Secret};

const JSON: &str = include_str!("templates/alert.json");
/// The names of the contract (security-manager §4.2), for those who read the old one's alerts.
const SECURITY_MANAGER: &str = include_str!("templates/security_manager.json");
const TEXT: &str = include_str!("templates/alert.txt");

/// What the connection decides, and what is ours.
const NOT_YOURS: [&str; 8] = [
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "idempotency-key",
    "transfer-encoding",
    "upgrade",
];
/// Shorter values are ordinary words, and would blank out half of an answer.
const SECRET_BYTES_MIN: usize = 8;

/// How the request is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HttpMethod {
    #[default]
    Post,
    Put,
}

/// What the body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BodyFormat {
    /// Values are written as JSON, and the whole has to be JSON.
    #[default]
    Json,
    /// The same, and without a template the ten names of the alerts of Security Manager 1.
    SecurityManager,
    Text,
}

/// A receiver of requests that a template makes.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    pub target: HttpTarget,
    pub method: HttpMethod,
    /// Sent with every request; the values are not shown.
    pub headers: Vec<(String, Secret)>,
    pub format: BodyFormat,
    /// Instead of the format's own.
    pub content_type: Option<String>,
    /// A template instead of ours.
    pub body: Option<String>,
    /// Where people see an alert, with `{id}` where its id goes; empty: nowhere.
    pub alert_url: String,
}

pub(super) struct HttpTemplate {
    name: String,
    http: HttpClient,
    method: Method,
    headers: HeaderMap,
    body: Template,
    alert_url: String,
}

impl HttpTemplate {
    pub fn open(config: HttpConfig) -> Result<Self, DeliveryError> {
        super::check_alert_url(&config.alert_url)?;
        let (escape, ours, content_type) = match config.format {
            BodyFormat::Json => (Escape::Json, JSON, "application/json"),
            BodyFormat::SecurityManager => (Escape::Json, SECURITY_MANAGER, "application/json"),
            BodyFormat::Text => (Escape::Text, TEXT, "text/plain; charset=utf-8"),
        };
        let content_type = config.content_type.as_deref().unwrap_or(content_type);
        let content_type = HeaderValue::from_str(content_type)
            .map_err(|_| invalid("the content type is none that a header can carry"))?;
        let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, content_type)]);
        let mut secrets = Vec::new();
        for (name, value) in &config.headers {
            let bad = |why: &str| invalid(format!("the header `{name}` {why}"));
            let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad("is not the name of a header"))?;
            if NOT_YOURS.contains(&header.as_str()) {
                return Err(bad("is set by muttd"));
            }
            let text = value.expose();
            let carried = sensitive(text).ok_or_else(|| bad("has a character that no header can carry"))?;
            headers.append(header, carried);
            // Of `Bearer x` what counts is `x`.
            let parts = [text, text.split_once(' ').map_or("", |(_, rest)| rest.trim())];
            secrets.extend(parts.into_iter().filter(|part| part.len() >= SECRET_BYTES_MIN).map(Secret::new));
        }
        let body = Template::parse("body", config.body.as_deref().unwrap_or(ours), escape).map_err(invalid)?;
        let http = HttpClient::open(&config.target, KeyRing::from(secrets))?;
        let method = match config.method {
            HttpMethod::Post => Method::POST,
            HttpMethod::Put => Method::PUT,
        };
        Ok(Self { name: config.target.name, http, method, headers, body, alert_url: config.alert_url })
    }
}

#[async_trait]
impl Channel for HttpTemplate {
    fn name(&self) -> &str {
        &self.name
    }

    async fn deliver(&self, alert: &Alert, now: Timestamp) -> Result<Receipt, DeliveryError> {
        let url = super::alert_url(&self.alert_url, alert);
        let body = self.body.render(alert, &url).map_err(|reason| internal(&std::io::Error::other(reason)))?;
        let mut headers = self.headers.clone();
        headers.insert(IDEMPOTENCY_KEY, key_header(alert)?);
        self.http.send(self.method.clone(), headers, body.into_bytes(), now).await
    }

    async fn probe(&self) -> Result<(), DeliveryError> {
        self.http.probe().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{AlertSeverity, Detection, Level};
    use serde_json::{Value, json};
    use testkit::builders::alert;

    fn rendered(alert: &Alert) -> Value {
        let template = Template::parse("body", SECURITY_MANAGER, Escape::Json).unwrap();
        serde_json::from_str(&template.render(alert, "").unwrap()).unwrap()
    }

    #[test]
    fn consumers_of_the_old_alerts_find_their_ten_names() {
        let detection = Detection {
            rule_uid: "adb64f87-6259-4ae6-9012-fbc8763c7d61".into(),
            name: "ssh_brute_force".into(),
            title: "SSH brute force".into(),
            description: "Somebody guesses passwords.".into(),
            level: Level::High,
            events: 5,
            ..Detection::default()
        };
        let found = alert()
            .host("web-1")
            .message("SSH brute force: Failed password for root from 192.0.2.7 port 4711 ssh2")
            .raw_json(r#"{"hostname":"web-1","stream":"auth"}"#)
            .detection(detection)
            .build();
        let expected = json!({
            "rule_id": "ssh_brute_force",
            "rule_name": "SSH brute force",
            "severity": "critical",
            "org_id": "default",
            "host_id": "web-1",
            "timestamp": "2026-01-01T00:00:00.000000Z",
            "message": "SSH brute force: Failed password for root from 192.0.2.7 port 4711 ssh2",
            "stream": "auth",
            "count": 5,
            "description": "Somebody guesses passwords.",
        });
        assert_eq!(rendered(&found), expected);
        // Of a rule of MUTT, and of an event that no agent sent.
        let of_mutt = rendered(&alert().severity(AlertSeverity::Warning).raw_json("no JSON").build());
        assert_eq!((&of_mutt["rule_id"], &of_mutt["severity"]), (&json!("7"), &json!("warning")));
        assert_eq!(
            (&of_mutt["stream"], &of_mutt["count"], &of_mutt["description"]),
            (&json!(""), &json!(1), &json!(""))
        );
        for (level, severity) in [
            (Level::Informational, "info"),
            (Level::Low, "info"),
            (Level::Medium, "warning"),
            (Level::High, "critical"),
            (Level::Critical, "critical"),
        ] {
            let found = alert().detection(Detection { level, ..Detection::default() }).build();
            assert_eq!(rendered(&found)["severity"], json!(severity), "{level:?}");
        }
    }
}
