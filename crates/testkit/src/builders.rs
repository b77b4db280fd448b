//! Domain values with sensible defaults: name only what the test is about.

use bytes::Bytes;
use model::{Alert, AlertId, AlertKind, AlertSeverity, Detection, EventId, Handling, OrgId, RuleId, Timestamp};

/// 2026-01-01T00:00:00Z: when everything built here happens unless told otherwise.
pub const EPOCH: Timestamp = Timestamp::from_secs(1_767_225_600);

/// An alert of rule 7 about `router-1`, paging and ticketing `NETOPS`.
pub fn alert() -> AlertBuilder {
    AlertBuilder {
        number: 1,
        org: OrgId::default(),
        kind: AlertKind::Rule,
        correlation_id: None,
        created_at: EPOCH,
        host: "router-1".into(),
        team: "NETOPS".into(),
        severity: AlertSeverity::Major,
        handling: Handling::new("Page_and_ticket"),
        rule_id: Some(7),
        signature: None,
        message: "Interface Gi0/1 changed state to down".into(),
        raw_json: None,
        detection: None,
    }
}

/// See [`alert`]. Ids, correlation id, signature and event follow from the other values unless set.
#[derive(Debug, Clone)]
#[must_use]
pub struct AlertBuilder {
    number: u64,
    org: OrgId,
    kind: AlertKind,
    correlation_id: Option<String>,
    created_at: Timestamp,
    host: String,
    team: String,
    severity: AlertSeverity,
    handling: Handling,
    rule_id: Option<RuleId>,
    signature: Option<String>,
    message: String,
    raw_json: Option<Bytes>,
    detection: Option<Box<Detection>>,
}

impl AlertBuilder {
    /// Tells alerts apart: another number gives other event, alert and correlation ids.
    pub fn number(mut self, number: u64) -> Self {
        self.number = number;
        self
    }
    /// Panics when `org` is no organisation name.
    pub fn org(mut self, org: &str) -> Self {
        self.org = org.parse().expect("an organisation name");
        self
    }
    /// A meta-alert (`Unhandled`) has no rule.
    pub fn kind(mut self, kind: AlertKind) -> Self {
        self.kind = kind;
        if kind == AlertKind::Unhandled {
            self.rule_id = None;
        }
        self
    }
    pub fn correlation_id(mut self, id: impl Into<String>) -> Self {
        self.correlation_id = Some(id.into());
        self
    }
    pub fn created_at(mut self, at: Timestamp) -> Self {
        self.created_at = at;
        self
    }
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.host = host.into();
        self
    }
    pub fn team(mut self, team: impl Into<String>) -> Self {
        self.team = team.into();
        self
    }
    pub fn severity(mut self, severity: AlertSeverity) -> Self {
        self.severity = severity;
        self
    }
    pub fn handling(mut self, handling: &str) -> Self {
        self.handling = Handling::new(handling);
        self
    }
    pub fn rule_id(mut self, id: Option<RuleId>) -> Self {
        self.rule_id = id;
        self
    }
    pub fn signature(mut self, signature: impl Into<String>) -> Self {
        self.signature = Some(signature.into());
        self
    }
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }
    /// The event's JSON text, as it is.
    pub fn raw_json(mut self, text: impl Into<String>) -> Self {
        self.raw_json = Some(Bytes::from(text.into()));
        self
    }
    /// Of a detection rule: the kind follows.
    pub fn detection(mut self, detection: Detection) -> Self {
        self.kind = AlertKind::Detection;
        self.rule_id = None;
        self.detection = Some(Box::new(detection));
        self
    }

    pub fn build(self) -> Alert {
        let event_id = EventId::new(self.created_at, 1, self.number);
        let raw_json = self.raw_json.unwrap_or_else(|| {
            let event = serde_json::json!({
                "timestamp": self.created_at.rfc3339(),
                "hostname": self.host,
                "message": self.message,
            });
            Bytes::from(event.to_string())
        });
        Alert {
            id: AlertId::derive(event_id, self.kind.as_str()),
            org: self.org,
            kind: self.kind,
            event_id,
            correlation_id: self.correlation_id.unwrap_or_else(|| format!("correlation-{}", self.number)),
            created_at: self.created_at,
            signature: self.signature.unwrap_or_else(|| format!("{}:{:?}", self.host, self.rule_id)),
            host: self.host,
            team: self.team,
            severity: self.severity,
            handling: self.handling,
            rule_id: self.rule_id,
            message: self.message,
            raw_json,
            detection: self.detection,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_differ_by_number_and_repeat_otherwise() {
        assert_eq!(alert().build().id, alert().build().id);
        assert_ne!(alert().build().id, alert().number(2).build().id);
        let built = alert().host("h\"1").build();
        let event: serde_json::Value = serde_json::from_slice(&built.raw_json).unwrap();
        assert_eq!(event["hostname"], "h\"1");
    }
}
