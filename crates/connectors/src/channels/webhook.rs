//! A signed webhook: Standard Webhooks 1.0 (<https://www.standardwebhooks.com>).
//!
//! Three headers: `webhook-id` (the alert's id, the same on every try), `webhook-timestamp` (when
//! this try was sent) and `webhook-signature`: `v1,` and the base64 of an HMAC-SHA256 over
//! `<id>.<timestamp>.<body>`. The body is the same on every try.

use super::client::{HttpClient, internal, invalid};
use super::facts::DetectionFacts;
use super::{Channel, DeliveryError, HttpTarget, Receipt};
use async_trait::async_trait;
use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use hmac::{Hmac, Mac};
use http::header::{HeaderName, InvalidHeaderValue};
use http::{HeaderMap, HeaderValue};
use model::{Alert, Timestamp};
use runtime::{KeyRing, Secret};
use serde::Serialize;
use serde_json::value::RawValue;
use sha2::Sha256;

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// The specification's bounds of a key.
const KEY_BYTES_MIN: usize = 24;
const KEY_BYTES_MAX: usize = 64;

/// People lose the `=` when they copy.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

pub(super) struct Webhook {
    name: String,
    http: HttpClient,
    key: Hmac<Sha256>,
}

impl Webhook {
    /// `secret` is `whsec_<base64>` of 24 to 64 bytes, or any text of at least 24 bytes.
    pub fn open(target: HttpTarget, secret: Secret) -> Result<Self, DeliveryError> {
        let http = HttpClient::open(&target, KeyRing::fixed(secret.clone()))?;
        let key = mac(&key_bytes(&secret)?);
        Ok(Self { name: target.name, http, key })
    }
}

#[async_trait]
impl Channel for Webhook {
    fn name(&self) -> &str {
        &self.name
    }

    async fn deliver(&self, alert: &Alert, now: Timestamp) -> Result<Receipt, DeliveryError> {
        let body = render(alert).map_err(|e| internal(&e))?;
        let id = alert.id.to_string();
        let signature = sign(self.key.clone(), &id, now.secs(), &body);
        let header = |text: &str| text.parse::<HeaderValue>().map_err(|e: InvalidHeaderValue| internal(&e));
        let mut headers = HeaderMap::new();
        headers.insert(ID, header(&id)?);
        headers.insert(TIMESTAMP, HeaderValue::from(now.secs()));
        headers.insert(SIGNATURE, header(&signature)?);
        self.http.post_json(headers, body, now).await
    }

    async fn probe(&self) -> Result<(), DeliveryError> {
        self.http.probe().await
    }
}

fn key_bytes(secret: &Secret) -> Result<Vec<u8>, DeliveryError> {
    let (key, max) = match secret.expose().strip_prefix("whsec_") {
        Some(encoded) => {
            let key =
                BASE64.decode(encoded).map_err(|_| invalid("the webhook secret must be base64 after `whsec_`"))?;
            (key, KEY_BYTES_MAX)
        }
        None => (secret.expose().as_bytes().to_vec(), usize::MAX),
    };
    if key.len() < KEY_BYTES_MIN {
        return Err(invalid(format!("the webhook secret has {} bytes; it needs at least {KEY_BYTES_MIN}", key.len())));
    }
    if key.len() > max {
        return Err(invalid(format!("the webhook secret has {} bytes; receivers take at most {max}", key.len())));
    }
    Ok(key)
}

fn mac(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of every length")
}

fn sign(mut mac: Hmac<Sha256>, id: &str, sent_secs: i64, body: &[u8]) -> String {
    mac.update(format!("{id}.{sent_secs}.").as_bytes());
    mac.update(body);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: &'static str,
    /// When it happened; `webhook-timestamp` says when it was sent.
    timestamp: String,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    alert_id: String,
    event_id: String,
    org: &'a str,
    kind: &'static str,
    created_at: String,
    hostname: &'a str,
    team: &'a str,
    severity: &'static str,
    handling: &'a str,
    page: bool,
    ticket: bool,
    rule_id: Option<model::RuleId>,
    signature: &'a str,
    message: &'a str,
    correlation_id: &'a str,
    /// Of a detection rule's alert only.
    #[serde(skip_serializing_if = "Option::is_none")]
    detection: Option<DetectionFacts<'a>>,
    /// As it came, or `null` where it is not JSON.
    event: Option<&'a RawValue>,
}

fn render(alert: &Alert) -> Result<Vec<u8>, serde_json::Error> {
    let created_at = alert.created_at.rfc3339();
    serde_json::to_vec(&Body {
        r#type: "alert.created",
        timestamp: created_at.clone(),
        data: Data {
            alert_id: alert.id.to_string(),
            event_id: alert.event_id.to_string(),
            org: alert.org.as_str(),
            kind: alert.kind.as_str(),
            created_at,
            hostname: &alert.host,
            team: &alert.team,
            severity: alert.severity.as_str(),
            handling: alert.handling.as_str(),
            page: alert.handling.pages(),
            ticket: alert.handling.tickets(),
            rule_id: alert.rule_id,
            signature: &alert.signature,
            message: &alert.message,
            correlation_id: &alert.correlation_id,
            detection: DetectionFacts::of(alert),
            event: serde_json::from_slice(&alert.raw_json).ok(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::ErrorKind;
    use serde_json::{Value, json};
    use testkit::builders::alert;

    #[test]
    fn signatures_agree_with_the_reference_implementations_vector() {
        // The vector that the libraries of the specification test themselves with.
        let key = key_bytes(&Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")).unwrap();
        let signature = sign(mac(&key), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn secrets_are_taken_in_both_forms_and_weak_ones_refused_unseen() {
        let whsec = |n: usize| format!("whsec_{}", STANDARD.encode(vec![7u8; n]));
        for (secret, bytes) in [
            (whsec(24), 24),
            (whsec(25), 25),
            (whsec(25).trim_end_matches('=').to_owned(), 25),
            (whsec(64), 64),
            ("r".repeat(24), 24),
            ("r".repeat(68), 68),
        ] {
            assert_eq!(key_bytes(&Secret::new(secret.clone())).unwrap().len(), bytes, "{secret}");
        }
        for (secret, says) in [
            (whsec(23), "at least 24"),
            (whsec(65), "at most 64"),
            ("short".to_owned(), "at least 24"),
            (String::new(), "at least 24"),
            ("whsec_".to_owned(), "at least 24"),
            ("whsec_!not base64!".to_owned(), "base64"),
        ] {
            let error = key_bytes(&Secret::new(secret.clone())).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Invalid);
            assert!(error.reason.contains(says), "{error}");
            assert!(secret.is_empty() || secret == "whsec_" || !error.reason.contains(&secret), "{error}");
        }
    }

    #[test]
    fn the_body_says_everything_about_the_alert() {
        let alert = alert().signature("s").raw_json(r#"{"hostname":"router-1","n":[1]}"#).build();
        let body: Value = serde_json::from_slice(&render(&alert).unwrap()).unwrap();
        assert_eq!(
            body,
            json!({
                "type": "alert.created",
                "timestamp": "2026-01-01T00:00:00.000000Z",
                "data": {
                    "alert_id": alert.id.to_string(),
                    "event_id": alert.event_id.to_string(),
                    "org": "default",
                    "kind": "rule",
                    "created_at": "2026-01-01T00:00:00.000000Z",
                    "hostname": "router-1",
                    "team": "NETOPS",
                    "severity": "Major",
                    "handling": "Page_and_ticket",
                    "page": true,
                    "ticket": true,
                    "rule_id": 7,
                    "signature": "s",
                    "message": "Interface Gi0/1 changed state to down",
                    "correlation_id": "correlation-1",
                    "event": {"hostname": "router-1", "n": [1]},
                },
            })
        );
    }

    #[test]
    fn a_detection_is_told_with_its_alert() {
        let fields = ["1", "2"].map(|value| ("port".to_owned(), value.to_owned())).to_vec();
        let detection = model::Detection { title: "Scan".into(), fields, events: 3, ..Default::default() };
        let body: Value = serde_json::from_slice(&render(&alert().detection(detection).build()).unwrap()).unwrap();
        let told = &body["data"]["detection"];
        assert_eq!((&told["title"], &told["level"], &told["events"]), (&json!("Scan"), &json!("medium"), &json!(3)));
        assert_eq!(told["fields"], json!({"port": "1, 2"}));
    }
}
