//! PagerDuty's Events API v2. A repeated alert joins the incident of its signature, and one of
//! severity `Clear` resolves it.

use super::client::{HttpClient, internal, invalid};
use super::facts::{self, clip};
use super::{Channel, DeliveryError, HttpTarget, IDEMPOTENCY_KEY, Receipt, key_header};
use async_trait::async_trait;
use http::HeaderMap;
use model::{Alert, AlertSeverity, ErrorKind, Timestamp};
use runtime::{KeyRing, Secret};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// Where events go unless configured otherwise; accounts in Europe have another host.
pub const PAGERDUTY_URL: &str = "https://events.pagerduty.com/v2/enqueue";

const SUMMARY_CHARS_MAX: usize = 1024;
const DEDUP_KEY_BYTES_MAX: usize = 255;
/// Of the message; the whole must stay below 512 KB.
const MESSAGE_CHARS_MAX: usize = 16 * 1024;
const FIELD_CHARS_MAX: usize = 1024;
const FIELDS_MAX: usize = 50;
const LINKS_MAX: usize = 10;

/// An integration of a service.
#[derive(Debug, Clone)]
pub struct PagerDutyConfig {
    pub target: HttpTarget,
    /// Integration keys, the preferred one first.
    pub routing_keys: KeyRing,
    /// Where people see an alert, with `{id}` where its id goes; empty: nowhere.
    pub alert_url: String,
}

pub(super) struct PagerDuty {
    config: PagerDutyConfig,
    http: HttpClient,
}

impl PagerDuty {
    pub fn open(config: PagerDutyConfig) -> Result<Self, DeliveryError> {
        super::check_alert_url(&config.alert_url)?;
        let http = HttpClient::open(&config.target, config.routing_keys.clone())?;
        if config.routing_keys.keys().is_empty() {
            return Err(invalid("the routing key is empty"));
        }
        Ok(Self { config, http })
    }
}

#[async_trait]
impl Channel for PagerDuty {
    fn name(&self) -> &str {
        &self.config.target.name
    }

    async fn deliver(&self, alert: &Alert, now: Timestamp) -> Result<Receipt, DeliveryError> {
        let mut headers = HeaderMap::new();
        headers.insert(IDEMPOTENCY_KEY, key_header(alert)?);
        let url = super::alert_url(&self.config.alert_url, alert);
        let mut refused = invalid("no routing key is known");
        for key in self.config.routing_keys.keys() {
            let body = serde_json::to_vec(&event(alert, &key, &url)).map_err(|e| internal(&e))?;
            match self.http.post_json(headers.clone(), body, now).await {
                // A key that is not known is a 400 there; while keys are rotated the next may do.
                Err(error) if matches!(error.kind, ErrorKind::Denied | ErrorKind::Invalid) => refused = error,
                answered => return answered,
            }
        }
        Err(refused)
    }

    async fn probe(&self) -> Result<(), DeliveryError> {
        self.http.probe().await
    }
}

fn event(alert: &Alert, routing_key: &Secret, url: &str) -> Value {
    let mut event = json!({
        "routing_key": routing_key.expose(),
        "event_action": action(alert.severity),
        "dedup_key": dedup_key(alert),
    });
    if action(alert.severity) == "resolve" {
        return event;
    }
    event["client"] = json!("MUTT Security Manager");
    if !url.is_empty() {
        event["client_url"] = json!(url);
    }
    event["payload"] = json!({
        "summary": clip(&summary(alert), SUMMARY_CHARS_MAX),
        "source": if alert.host.trim().is_empty() { "unknown" } else { alert.host.as_str() },
        "severity": severity(alert.severity),
        "timestamp": alert.created_at.rfc3339(),
        "group": alert.team,
        "class": if alert.detection.is_some() { facts::rule(alert) } else { alert.kind.as_str().to_owned() },
        "custom_details": details(alert),
    });
    let references = alert.detection.as_deref().map_or(&[][..], |d| &d.references);
    let web = references.iter().filter(|r| r.starts_with("https://") || r.starts_with("http://"));
    let links: Vec<Value> = web.take(LINKS_MAX).map(|r| json!({"href": r, "text": clip(r, FIELD_CHARS_MAX)})).collect();
    if !links.is_empty() {
        event["links"] = json!(links);
    }
    event
}

fn action(severity: AlertSeverity) -> &'static str {
    match severity {
        AlertSeverity::Clear => "resolve",
        AlertSeverity::Info
        | AlertSeverity::Minor
        | AlertSeverity::Warning
        | AlertSeverity::Major
        | AlertSeverity::Critical => "trigger",
    }
}

/// The four words that PagerDuty knows.
fn severity(severity: AlertSeverity) -> &'static str {
    match severity {
        AlertSeverity::Critical => "critical",
        AlertSeverity::Major => "error",
        AlertSeverity::Warning => "warning",
        AlertSeverity::Minor | AlertSeverity::Info | AlertSeverity::Clear => "info",
    }
}

/// The signature within its organisation; one that is too long is known by its SHA-256.
fn dedup_key(alert: &Alert) -> String {
    let key = format!("{}/{}", alert.org.as_str(), alert.signature);
    if key.len() <= DEDUP_KEY_BYTES_MAX {
        return key;
    }
    let digest: String = Sha256::digest(key.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digest}")
}

fn summary(alert: &Alert) -> String {
    let title = facts::title(alert);
    if alert.host.is_empty() { title } else { format!("{title} on {}", alert.host) }
}

fn details(alert: &Alert) -> Value {
    let mut details = json!({
        "message": clip(&alert.message, MESSAGE_CHARS_MAX),
        "alert_id": alert.id.to_string(),
        "event_id": alert.event_id.to_string(),
        "correlation_id": alert.correlation_id,
        "org": alert.org.as_str(),
        "team": alert.team,
        "rule": facts::rule(alert),
        "handling": alert.handling.as_str(),
    });
    if let Some(detection) = alert.detection.as_deref() {
        let fields = facts::merged(&detection.fields).into_iter().take(FIELDS_MAX);
        let fields: Map<String, Value> =
            fields.map(|(name, value)| (clip(&name, FIELD_CHARS_MAX), json!(clip(&value, FIELD_CHARS_MAX)))).collect();
        let few = |texts: &[String]| -> Vec<String> {
            texts.iter().take(FIELDS_MAX).map(|text| clip(text, FIELD_CHARS_MAX)).collect()
        };
        details["description"] = json!(clip(&detection.description, MESSAGE_CHARS_MAX));
        details["level"] = json!(detection.level.as_str());
        details["tags"] = json!(few(&detection.tags));
        details["false_positives"] = json!(few(&detection.false_positives));
        details["fields"] = Value::Object(fields);
        details["events"] = json!(detection.events);
    }
    details
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Detection, Level};
    use testkit::builders::alert;

    fn event_of(alert: &Alert) -> Value {
        event(alert, &Secret::new("R0UT1NG"), "https://m.example/a")
    }

    #[test]
    fn an_alert_triggers_with_what_responders_need() {
        let detection = Detection {
            rule_uid: "uid-1".into(),
            title: "Many failed logins".into(),
            level: Level::High,
            tags: vec!["attack.t1110".into()],
            references: vec!["https://attack.mitre.org/techniques/T1110/".into(), "a book".into()],
            fields: vec![("src_ip".into(), "192.0.2.7".into())],
            events: 5,
            ..Detection::default()
        };
        let alert = alert().signature("s").detection(detection).build();
        let mut event = event_of(&alert);
        event["payload"]["custom_details"]["alert_id"].take();
        event["payload"]["custom_details"]["event_id"].take();
        assert_eq!(
            event,
            json!({
                "routing_key": "R0UT1NG",
                "event_action": "trigger",
                "dedup_key": "default/s",
                "client": "MUTT Security Manager",
                "client_url": "https://m.example/a",
                "links": [{
                    "href": "https://attack.mitre.org/techniques/T1110/",
                    "text": "https://attack.mitre.org/techniques/T1110/",
                }],
                "payload": {
                    "summary": "Many failed logins on router-1",
                    "source": "router-1",
                    "severity": "error",
                    "timestamp": "2026-01-01T00:00:00.000000Z",
                    "group": "NETOPS",
                    "class": "uid-1",
                    "custom_details": {
                        "message": "Interface Gi0/1 changed state to down",
                        "alert_id": null,
                        "event_id": null,
                        "correlation_id": "correlation-1",
                        "org": "default",
                        "team": "NETOPS",
                        "rule": "uid-1",
                        "handling": "Page_and_ticket",
                        "description": "",
                        "level": "high",
                        "tags": ["attack.t1110"],
                        "false_positives": [],
                        "fields": {"src_ip": "192.0.2.7"},
                        "events": 5,
                    },
                },
            })
        );
    }

    #[test]
    fn severities_are_pagerdutys_words_and_clear_resolves() {
        for (given, expected) in [
            (AlertSeverity::Critical, "critical"),
            (AlertSeverity::Major, "error"),
            (AlertSeverity::Warning, "warning"),
            (AlertSeverity::Minor, "info"),
            (AlertSeverity::Info, "info"),
        ] {
            let event = event_of(&alert().severity(given).build());
            assert_eq!((&event["event_action"], &event["payload"]["severity"]), (&json!("trigger"), &json!(expected)));
        }
        let (down, up) =
            (alert().signature("s").build(), alert().number(2).signature("s").severity(AlertSeverity::Clear));
        let (down, up) = (event_of(&down), event_of(&up.build()));
        assert_eq!((&up["event_action"], &up["dedup_key"]), (&json!("resolve"), &down["dedup_key"]));
        assert_eq!(up.get("payload"), None);
    }

    #[test]
    fn long_texts_are_cut_and_long_signatures_stay_apart() {
        let long = "x".repeat(1 << 20);
        let detection = Detection {
            description: long.clone(),
            tags: vec![long.clone(); 60],
            fields: (0..200).map(|n| (format!("f{n}"), long.clone())).collect(),
            ..Detection::default()
        };
        let alert =
            |end: &str| alert().message(&long).signature(format!("{long}{end}")).detection(detection.clone()).build();
        let (a, b) = (event_of(&alert("a")), event_of(&alert("b")));
        assert!(a.to_string().len() < 512 * 1024, "{}", a.to_string().len());
        assert!(a["payload"]["summary"].as_str().unwrap().chars().count() <= SUMMARY_CHARS_MAX);
        assert_ne!(a["dedup_key"], b["dedup_key"]);
        assert!(a["dedup_key"].as_str().unwrap().len() <= DEDUP_KEY_BYTES_MAX);
    }
}
