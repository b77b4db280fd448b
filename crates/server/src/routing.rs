//! The routing tree as the API and the command line show it, and alerts made up to be routed.

use model::{
    Alert, AlertId, AlertKind, AlertSeverity, Detection, EventId, Handling, Level, OrgId, Rule, Severity, Timestamp,
};
use pipeline::detections::Policy as DetectionPolicy;
use pipeline::notify::{Hit, Policy, RouteView, Router, severity_of, span_text};
use rules::sigma::Header;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

/// An alert to be routed, in words: what is left out is that of an ordinary alert. An alert as the API
/// shows it is understood, too.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct SampleAlert {
    pub org: Option<String>,
    pub kind: Option<String>,
    pub host: Option<String>,
    pub team: Option<String>,
    pub severity: Option<String>,
    pub handling: Option<String>,
    pub rule_id: Option<i64>,
    /// The id of a detection rule.
    pub rule: Option<String>,
    pub tags: Vec<String>,
    pub signature: Option<String>,
    pub message: Option<String>,
    pub detection: Option<SampleDetection>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct SampleDetection {
    pub rule_uid: String,
    pub title: String,
    pub level: Option<String>,
    pub tags: Vec<String>,
    pub fields: Vec<SampleField>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub struct SampleField {
    pub name: String,
    pub value: String,
}

impl SampleAlert {
    /// The alert; `Err` names the field that cannot be meant.
    pub fn alert(self, home: &OrgId, now: Timestamp) -> Result<Alert, String> {
        let org = match &self.org {
            Some(org) => org.parse().map_err(|error| format!("org: {error}"))?,
            None => home.clone(),
        };
        let detection = self.detection();
        let severity = match &self.severity {
            Some(word) => severity_of(word).ok_or_else(|| {
                format!("severity: `{word}` is not a level (low … critical) or a word of alerts (Minor … Critical)")
            })?,
            None => detection.as_ref().map_or(AlertSeverity::Warning, |d| d.level.severity()),
        };
        let kind = match self.kind.as_deref() {
            Some(word) => AlertKind::parse(word)
                .ok_or_else(|| format!("kind: `{word}` is not one of rule, detection, unhandled, escalation"))?,
            None if detection.is_some() => AlertKind::Detection,
            None => AlertKind::Rule,
        };
        let host = self.host.unwrap_or_else(|| "any-host".to_owned());
        let event_id = EventId::new(now, 0, 0);
        Ok(Alert {
            id: AlertId::derive(event_id, "sample"),
            org,
            kind,
            event_id,
            correlation_id: event_id.to_string(),
            created_at: now,
            team: self.team.unwrap_or_else(|| "Unknown".to_owned()),
            severity,
            handling: Handling::new(self.handling.unwrap_or_else(|| "Page_and_ticket".to_owned())),
            rule_id: self.rule_id,
            signature: self.signature.unwrap_or_else(|| host.clone()),
            message: self.message.unwrap_or_else(|| "a sample".to_owned()),
            raw_json: bytes::Bytes::from_static(b"{}"),
            detection: detection.map(Box::new),
            host,
        })
    }

    fn detection(&self) -> Option<Detection> {
        let given = self.detection.clone().unwrap_or_default();
        let tags = if given.tags.is_empty() { self.tags.clone() } else { given.tags };
        if self.detection.is_none() && self.rule.is_none() && tags.is_empty() {
            return None;
        }
        let rule_uid = self.rule.clone().unwrap_or(given.rule_uid);
        Some(Detection {
            rule_uid,
            title: given.title,
            level: given.level.as_deref().and_then(Level::parse).unwrap_or_default(),
            tags,
            fields: given.fields.into_iter().map(|field| (field.name, field.value)).collect(),
            events: 1,
            ..Detection::default()
        })
    }
}

/// Who would be told of an event that this rule takes; nobody where its handling forwards nothing.
pub fn receivers(
    router: &Router,
    rule: &Rule,
    handling: &Handling,
    host: &str,
    severity: Option<Severity>,
) -> Vec<String> {
    if !handling.forwards() {
        return Vec::new();
    }
    let event_id = EventId::new(Timestamp::default(), 0, 0);
    let alert = Alert {
        id: AlertId::derive(event_id, "rule"),
        org: OrgId::default(),
        kind: AlertKind::Rule,
        event_id,
        correlation_id: String::new(),
        created_at: Timestamp::default(),
        host: host.to_owned(),
        team: rule.draft.team_assignment.clone(),
        severity: AlertSeverity::from_event(severity),
        handling: handling.clone(),
        rule_id: Some(rule.id),
        signature: String::new(),
        message: String::new(),
        raw_json: bytes::Bytes::new(),
        detection: None,
    };
    router.receivers_named(&alert)
}

/// Who would be told of a match of this detection rule on a host without a team; `None` where its level
/// makes no alert.
pub fn detection_receivers(
    router: &Router,
    policy: &DetectionPolicy,
    header: &Header,
    host: &str,
) -> Option<Vec<String>> {
    let sample = SampleAlert {
        handling: Some(policy.handling(header.level)?.as_str().to_owned()),
        team: Some(policy.team.clone()),
        host: Some(host.to_owned()),
        detection: Some(SampleDetection {
            rule_uid: header.uid.clone(),
            title: header.title.clone(),
            level: Some(header.level.as_str().to_owned()),
            tags: header.tags.clone(),
            fields: Vec::new(),
        }),
        ..SampleAlert::default()
    };
    let alert = sample.alert(&OrgId::default(), Timestamp::default()).ok()?;
    Some(router.receivers_named(&alert))
}

/// The whole tree.
pub fn tree_shown(router: &Router) -> Value {
    json!({
        "channels": router.channels(),
        "root": policy_shown(router, router.root()),
        "routes": router.routes().map(|route| route_shown(router, route)).collect::<Vec<_>>(),
        "notes": router.notes(),
    })
}

fn route_shown(router: &Router, route: RouteView<'_>) -> Value {
    json!({
        "path": route.path(),
        "name": route.name(),
        "match": route.matcher(),
        "continue": route.goes_on(),
        "policy": policy_shown(router, route.policy()),
        "routes": route.routes().map(|below| route_shown(router, below)).collect::<Vec<_>>(),
    })
}

fn policy_shown(router: &Router, policy: &Policy) -> Value {
    let span = |span: Duration| if span.is_zero() { Value::Null } else { span_text(span).into() };
    json!({
        "channels": policy.channels.as_deref().unwrap_or(router.channels()),
        "group": policy.group,
        "group_by": policy.group_by.iter().map(|by| by.text()).collect::<Vec<_>>(),
        "group_wait": span(policy.group_wait),
        "repeat_interval": span(policy.repeat_interval),
        "suppress_for": span(policy.suppress_for),
        "resolve_after": span(policy.resolve_after),
        "reopen_within": span(policy.reopen_within),
        "escalate_after": policy.escalation.as_ref().map(|e| span_text(e.after)),
        "escalate_to": policy.escalation.as_ref().map(|e| e.to.clone()),
    })
}

/// Where an alert ends, and who is told.
pub fn verdict_shown(router: &Router, alert: &Alert) -> Value {
    let hits: Vec<Hit<'_>> = router.hits(alert);
    let policy = router.policy(alert);
    json!({
        "routes": hits.iter().map(|hit| json!({
            "path": hit.path,
            "name": hit.name,
            "policy": policy_shown(router, hit.policy),
        })).collect::<Vec<_>>(),
        "receivers": router.receivers_named(alert),
        "incident": policy.gathers(alert).then(|| policy.key(alert)),
        "severity": alert.severity.as_str(),
    })
}

/// The same for people.
pub fn verdict_text(router: &Router, alert: &Alert) -> String {
    let mut text = String::new();
    for hit in router.hits(alert) {
        let place = match (hit.path, hit.name) {
            ("", _) => "no route: everybody".to_owned(),
            (path, "") => path.to_owned(),
            (path, name) => format!("{path} ({name})"),
        };
        text.push_str(&format!("route      {place}\n"));
    }
    let told = router.receivers_named(alert);
    text.push_str(&format!("told       {}\n", if told.is_empty() { "nobody".to_owned() } else { told.join(", ") }));
    let policy = router.policy(alert);
    if !policy.gathers(alert) {
        text.push_str("incident   none: every alert is told\n");
        return text;
    }
    text.push_str(&format!("incident   {}\n", policy.key(alert)));
    if !policy.group_wait.is_zero() {
        text.push_str(&format!("first      after {}, with those that come until then\n", span_text(policy.group_wait)));
    }
    for (name, span) in
        [("repeated", policy.repeat_interval), ("suppressed", policy.suppress_for), ("resolved", policy.resolve_after)]
    {
        let said = if span.is_zero() { "never".to_owned() } else { format!("after {}", span_text(span)) };
        let said = if name == "suppressed" && !span.is_zero() { format!("for {}", span_text(span)) } else { said };
        text.push_str(&format!("{name:<10} {said}\n"));
    }
    if let Some(escalation) = &policy.escalation {
        let (after, to) = (span_text(escalation.after), escalation.to.join(", "));
        text.push_str(&format!("escalated  after {after} to {to}\n"));
    }
    text
}
