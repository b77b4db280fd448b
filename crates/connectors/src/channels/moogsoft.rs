//! Moogsoft AIOps webhook: the body of contract mutt §4, which users' Moogsoft rules already read,
//! with a signature per fault instead of per host, the decision, and an idempotency key.

use super::client::{HttpClient, internal, invalid, sensitive};
use super::facts::DetectionFacts;
use super::{Channel, DeliveryError, HttpTarget, IDEMPOTENCY_KEY, Receipt};
use async_trait::async_trait;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use model::{Alert, ErrorKind, Timestamp};
use runtime::{KeyRing, Secret};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use std::borrow::Cow;
use std::collections::BTreeMap;

pub(super) struct Moogsoft {
    name: String,
    http: HttpClient,
    api_keys: KeyRing,
}

impl Moogsoft {
    /// Without a key no `Authorization` is sent. Of several the first counts; while keys are being
    /// rotated a receiver that refuses it is offered the next.
    pub fn open(target: HttpTarget, api_keys: KeyRing) -> Result<Self, DeliveryError> {
        for key in api_keys.keys() {
            bearer(&key)?;
        }
        let http = HttpClient::open(&target, api_keys.clone())?;
        Ok(Self { name: target.name, http, api_keys })
    }

    async fn post(
        &self,
        id: &str,
        key: Option<&Secret>,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Receipt, DeliveryError> {
        let mut headers = HeaderMap::new();
        headers.insert(IDEMPOTENCY_KEY, id.parse().map_err(|e: http::header::InvalidHeaderValue| internal(&e))?);
        if let Some(key) = key {
            headers.insert(AUTHORIZATION, bearer(key)?);
        }
        self.http.post_json(headers, body.to_vec(), now).await
    }
}

fn bearer(key: &Secret) -> Result<http::HeaderValue, DeliveryError> {
    sensitive(&format!("Bearer {}", key.expose()))
        .ok_or_else(|| invalid("the API key holds a line break or another character that no header can carry"))
}

#[async_trait]
impl Channel for Moogsoft {
    fn name(&self) -> &str {
        &self.name
    }

    async fn deliver(&self, alert: &Alert, now: Timestamp) -> Result<Receipt, DeliveryError> {
        let body = render(alert, now).map_err(|e| internal(&e))?;
        let id = alert.id.to_string();
        let keys = self.api_keys.keys();
        let mut refused = match self.post(&id, keys.first(), &body, now).await {
            Err(error) if error.kind == ErrorKind::Denied => error,
            answered => return answered,
        };
        for key in keys.iter().skip(1) {
            match self.post(&id, Some(key), &body, now).await {
                Err(error) if error.kind == ErrorKind::Denied => refused = error,
                answered => return answered,
            }
        }
        Err(refused)
    }

    async fn probe(&self) -> Result<(), DeliveryError> {
        self.http.probe().await
    }
}

/// The names and constants are Moogsoft's and the original's; users' rules depend on them.
#[derive(Serialize)]
struct Body<'a> {
    signature: &'a str,
    source_id: &'a str,
    external_id: &'a str,
    manager: &'static str,
    source: &'static str,
    agent: &'static str,
    agent_location: &'static str,
    r#type: &'static str,
    class: &'a str,
    severity: u8,
    description: &'a str,
    agent_time: i64,
    custom_info: BTreeMap<Cow<'a, str>, Cow<'a, RawValue>>,
}

/// What the original never told: what to do, and which alert this is.
#[derive(Serialize)]
struct Decision<'a> {
    alert_id: String,
    event_id: String,
    correlation_id: &'a str,
    org: &'a str,
    kind: &'static str,
    rule_id: Option<model::RuleId>,
    handling: &'a str,
    page: bool,
    ticket: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    detection: Option<DetectionFacts<'a>>,
}

fn render(alert: &Alert, now: Timestamp) -> Result<Vec<u8>, serde_json::Error> {
    let team = alert.team.trim();
    serde_json::to_vec(&Body {
        signature: &alert.signature,
        source_id: &alert.host,
        external_id: &alert.correlation_id,
        manager: "MUTT",
        source: "MUTT Alerter",
        agent: "MUTT v2.3",
        agent_location: "Alerter Service",
        r#type: "Alert",
        class: if team.is_empty() { "Unknown" } else { team },
        severity: alert.severity.code(),
        description: &alert.message,
        agent_time: now.secs(),
        custom_info: custom_info(alert)?,
    })
}

/// The event's own fields at the top, where users' rules read them, value for value as they came;
/// ours under `mutt`.
fn custom_info(alert: &Alert) -> Result<BTreeMap<Cow<'_, str>, Cow<'_, RawValue>>, serde_json::Error> {
    // Values are borrowed as text: parsing would round long numbers. An event that is no object
    // (none is made so) costs its fields, not the alert.
    let event: BTreeMap<String, &RawValue> = serde_json::from_slice(&alert.raw_json).unwrap_or_default();
    let mut info: BTreeMap<Cow<'_, str>, Cow<'_, RawValue>> =
        event.into_iter().map(|(name, value)| (Cow::Owned(name), Cow::Borrowed(value))).collect();
    let decision = to_raw_value(&Decision {
        alert_id: alert.id.to_string(),
        event_id: alert.event_id.to_string(),
        correlation_id: &alert.correlation_id,
        org: alert.org.as_str(),
        kind: alert.kind.as_str(),
        rule_id: alert.rule_id,
        handling: alert.handling.as_str(),
        page: alert.handling.pages(),
        ticket: alert.handling.tickets(),
        detection: DetectionFacts::of(alert),
    })?;
    info.insert(Cow::Borrowed("mutt"), Cow::Owned(decision));
    Ok(info)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{AlertKind, AlertSeverity};
    use serde_json::{Value, json};
    use testkit::builders::{EPOCH, alert};

    fn rendered(alert: &Alert) -> Value {
        serde_json::from_slice(&render(alert, EPOCH).unwrap()).unwrap()
    }

    #[test]
    fn the_body_is_the_contracts_with_the_decision_added() {
        let alert = alert()
            .host("sw-3")
            .signature("sw-3:rule:7")
            .correlation_id("c-1")
            .severity(AlertSeverity::Critical)
            .handling("Page_only")
            .message("link \"down\"")
            .raw_json(r#"{"hostname":"sw-3","message":"link \"down\"","n":12345678901234567890123}"#)
            .build();
        let body = render(&alert, EPOCH).unwrap();
        assert!(
            String::from_utf8(body).unwrap().contains(r#""n":12345678901234567890123"#),
            "numbers keep their digits"
        );
        let mut body = rendered(&alert);
        body["custom_info"]["n"] = json!(0);
        assert_eq!(
            body,
            json!({
                "signature": "sw-3:rule:7",
                "source_id": "sw-3",
                "external_id": "c-1",
                "manager": "MUTT",
                "source": "MUTT Alerter",
                "agent": "MUTT v2.3",
                "agent_location": "Alerter Service",
                "type": "Alert",
                "class": "NETOPS",
                "severity": 5,
                "description": "link \"down\"",
                "agent_time": 1_767_225_600,
                "custom_info": {
                    "hostname": "sw-3",
                    "message": "link \"down\"",
                    "n": 0,
                    "mutt": {
                        "alert_id": alert.id.to_string(),
                        "event_id": alert.event_id.to_string(),
                        "correlation_id": "c-1",
                        "org": "default",
                        "kind": "rule",
                        "rule_id": 7,
                        "handling": "Page_only",
                        "page": true,
                        "ticket": false,
                    },
                },
            })
        );
    }

    #[test]
    fn severities_are_moogsofts_numbers() {
        for (severity, code) in [
            (AlertSeverity::Critical, 5),
            (AlertSeverity::Major, 4),
            (AlertSeverity::Warning, 3),
            (AlertSeverity::Minor, 2),
            (AlertSeverity::Info, 1),
            (AlertSeverity::Clear, 0),
        ] {
            assert_eq!(rendered(&alert().severity(severity).build())["severity"], code);
        }
    }

    #[test]
    fn odd_alerts_are_rendered_too() {
        let meta = alert().kind(AlertKind::Unhandled).team("  ").raw_json("not an object").build();
        let body = rendered(&meta);
        assert_eq!((&body["class"], &body["custom_info"]["mutt"]["kind"]), (&json!("Unknown"), &json!("unhandled")));
        assert_eq!(body["custom_info"]["mutt"]["rule_id"], Value::Null);

        let detection = model::Detection { title: "Scan".into(), ..Default::default() };
        let body = rendered(&alert().detection(detection).build());
        assert_eq!(body["custom_info"]["mutt"]["detection"]["title"], json!("Scan"));

        let sly = alert().raw_json(r#"{"mutt":{"page":"no"},"a\"b":[1, 2]}"#).build();
        let body = rendered(&sly);
        assert_eq!(
            (&body["custom_info"]["mutt"]["page"], &body["custom_info"]["a\"b"]),
            (&json!(true), &json!([1, 2]))
        );
    }

    #[test]
    fn a_key_that_no_header_can_carry_is_refused_without_being_shown() {
        let target = HttpTarget {
            name: "moogsoft".into(),
            url: "http://example.com/".into(),
            timeout: std::time::Duration::from_secs(1),
            ca_file: None,
        };
        let error = Moogsoft::open(target, KeyRing::fixed(Secret::new("hunter2\n"))).err().expect("refused");
        assert!(error.reason.contains("line break") && !error.reason.contains("hunter2"), "{error}");
    }
}
