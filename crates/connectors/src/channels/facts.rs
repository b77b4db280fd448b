//! What a template may say about an alert: the one context of all templates, under the name `alert`.
//! `docs/channels.md` lists it for people.

use minijinja::value::{Enumerator, Object, Serde, Value};
use model::{Alert, AlertId, AlertKind, AlertSeverity, Detection, EventId, Handling, Level, OrgId, Timestamp};
use serde::Serialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The names below `alert`.
pub(super) const NAMES: [&str; 27] = [
    "id",
    "event_id",
    "correlation_id",
    "org",
    "kind",
    "created_at",
    "host",
    "team",
    "severity",
    "level",
    "agent_severity",
    "handling",
    "page",
    "ticket",
    "title",
    "message",
    "description",
    "rule",
    "name",
    "signature",
    "tags",
    "references",
    "false_positives",
    "fields",
    "count",
    "url",
    "event",
];
/// Those below which names are the events' own.
pub(super) const OPEN: [&str; 2] = ["fields", "event"];

const TITLE_CHARS_MAX: usize = 150;
/// Bounds of what templates see, so that no event can be so large that its alert cannot be told.
const MESSAGE_BYTES_MAX: usize = 32 * 1024;
const TEXT_BYTES_MAX: usize = 4 * 1024;
const ITEM_BYTES_MAX: usize = 1024;
const ITEMS_MAX: usize = 50;
const EVENT_BYTES_MAX: usize = 256 * 1024;

#[derive(Serialize)]
struct Context<'a> {
    alert: Facts<'a>,
}

#[derive(Serialize)]
struct Facts<'a> {
    id: String,
    event_id: String,
    correlation_id: Cow<'a, str>,
    org: &'a str,
    kind: &'static str,
    created_at: String,
    host: Cow<'a, str>,
    team: Cow<'a, str>,
    severity: &'static str,
    level: &'static str,
    agent_severity: &'static str,
    handling: &'a str,
    page: bool,
    ticket: bool,
    title: String,
    message: Cow<'a, str>,
    description: Cow<'a, str>,
    rule: String,
    name: String,
    signature: Cow<'a, str>,
    tags: Vec<Cow<'a, str>>,
    references: Vec<Cow<'a, str>>,
    false_positives: Vec<Cow<'a, str>>,
    fields: Value,
    count: u64,
    url: String,
    event: Value,
}

/// The context of an alert. `url` is where it can be seen, or empty; the event is parsed only for a
/// template that asks for it.
pub(super) fn context(alert: &Alert, url: &str, with_event: bool) -> Value {
    let detection = alert.detection.as_deref();
    let with_event = with_event && alert.raw_json.len() <= EVENT_BYTES_MAX;
    let event = || serde_json::from_slice::<serde_json::Value>(&alert.raw_json).ok();
    let event = if with_event { event() } else { None };
    Value::from(Serde(Context {
        alert: Facts {
            id: alert.id.to_string(),
            event_id: alert.event_id.to_string(),
            correlation_id: short(&alert.correlation_id, TEXT_BYTES_MAX),
            org: alert.org.as_str(),
            kind: alert.kind.as_str(),
            created_at: alert.created_at.rfc3339(),
            host: short(&alert.host, TEXT_BYTES_MAX),
            team: short(&alert.team, TEXT_BYTES_MAX),
            severity: alert.severity.as_str(),
            level: level(alert).as_str(),
            agent_severity: level(alert).as_agent_severity(),
            handling: alert.handling.as_str(),
            page: alert.handling.pages(),
            ticket: alert.handling.tickets(),
            title: title(alert),
            message: short(&alert.message, MESSAGE_BYTES_MAX),
            description: short(detection.map_or("", |d| &d.description), TEXT_BYTES_MAX),
            rule: short(&rule(alert), ITEM_BYTES_MAX).into_owned(),
            name: short(&name(alert), ITEM_BYTES_MAX).into_owned(),
            signature: short(&alert.signature, TEXT_BYTES_MAX),
            tags: few(detection.map_or(&[], |d| &d.tags)),
            references: few(detection.map_or(&[], |d| &d.references)),
            false_positives: few(detection.map_or(&[], |d| &d.false_positives)),
            fields: Value::from_object(Fields(fields(detection))),
            count: detection.map_or(1, |d| d.events),
            url: url.to_owned(),
            event: event.map_or(Value::UNDEFINED, |event| Value::from(Serde(event))),
        },
    }))
}

fn few(texts: &[String]) -> Vec<Cow<'_, str>> {
    texts.iter().take(ITEMS_MAX).map(|text| short(text, ITEM_BYTES_MAX)).collect()
}

fn fields(detection: Option<&Detection>) -> Vec<(String, String)> {
    let merged = merged(detection.map_or(&[], |d| &d.fields)).into_iter().take(ITEMS_MAX);
    let short = |text: &str, max| short(text, max).into_owned();
    merged.map(|(name, value)| (short(&name, ITEM_BYTES_MAX), short(&value, TEXT_BYTES_MAX))).collect()
}

/// The first `max` bytes; `…` says that there was more.
fn short(text: &str, max: usize) -> Cow<'_, str> {
    if text.len() <= max {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("{}…", &text[..text.floor_char_boundary(max)]))
}

/// The rule's title; without one the first line of the message. One line.
pub(super) fn title(alert: &Alert) -> String {
    let title = alert.detection.as_deref().map(|d| d.title.trim()).filter(|title| !title.is_empty());
    let line = || alert.message.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("alert");
    let words: Vec<&str> = title.unwrap_or_else(line).split_whitespace().collect();
    clip(&words.join(" "), TITLE_CHARS_MAX)
}

/// The rule as people know it; empty for meta-alerts.
pub(super) fn rule(alert: &Alert) -> String {
    match (&alert.detection, alert.rule_id) {
        (Some(detection), _) => detection.rule_uid.clone(),
        (None, Some(id)) => id.to_string(),
        (None, None) => String::new(),
    }
}

/// What the rule is called in one word; without one as [`rule`].
fn name(alert: &Alert) -> String {
    let named = alert.detection.as_deref().map(|d| d.name.as_str()).filter(|name| !name.is_empty());
    named.map_or_else(|| rule(alert), str::to_owned)
}

/// The rule's level; of rules without levels the one that means the same.
fn level(alert: &Alert) -> Level {
    match (&alert.detection, alert.severity) {
        (Some(detection), _) => detection.level,
        (None, AlertSeverity::Critical) => Level::Critical,
        (None, AlertSeverity::Major) => Level::High,
        (None, AlertSeverity::Warning) => Level::Medium,
        (None, AlertSeverity::Minor) => Level::Low,
        (None, AlertSeverity::Info | AlertSeverity::Clear) => Level::Informational,
    }
}

/// What a detection rule says of its alert, for bodies whose form is ours.
#[derive(Serialize)]
pub(super) struct DetectionFacts<'a> {
    rule: &'a str,
    title: &'a str,
    description: &'a str,
    level: &'static str,
    tags: &'a [String],
    references: &'a [String],
    false_positives: &'a [String],
    fields: BTreeMap<String, String>,
    events: u64,
}

impl<'a> DetectionFacts<'a> {
    pub fn of(alert: &'a Alert) -> Option<Self> {
        alert.detection.as_deref().map(|detection| Self {
            rule: &detection.rule_uid,
            title: &detection.title,
            description: &detection.description,
            level: detection.level.as_str(),
            tags: &detection.tags,
            references: &detection.references,
            false_positives: &detection.false_positives,
            fields: merged(&detection.fields).into_iter().collect(),
            events: detection.events,
        })
    }
}

/// Several values of one name beside each other, in the order of the rule.
pub(super) fn merged(fields: &[(String, String)]) -> Vec<(String, String)> {
    let mut merged: Vec<(String, String)> = Vec::new();
    for (name, value) in fields {
        match merged.iter_mut().find(|(known, _)| known == name) {
            Some((_, values)) => {
                values.push_str(", ");
                values.push_str(value);
            }
            None => merged.push((name.clone(), value.clone())),
        }
    }
    merged
}

/// The first `max` characters; `…` says that there was more.
pub(super) fn clip(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        None => text.to_owned(),
        Some(_) => text.chars().take(max.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// A map that keeps the order of the rule.
#[derive(Debug)]
struct Fields(Vec<(String, String)>);

impl Object for Fields {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let key = key.as_str()?;
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| Value::from(value.as_str()))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.iter().map(|(name, _)| Value::from(name.as_str())).collect())
    }
}

/// Alerts of every kind and severity, to try a template on before anything happens.
pub(super) fn samples() -> Vec<Alert> {
    const SEVERITIES: [AlertSeverity; 6] = [
        AlertSeverity::Clear,
        AlertSeverity::Info,
        AlertSeverity::Minor,
        AlertSeverity::Warning,
        AlertSeverity::Major,
        AlertSeverity::Critical,
    ];
    let kinds = [AlertKind::Rule, AlertKind::Detection, AlertKind::Unhandled];
    SEVERITIES.into_iter().flat_map(|severity| kinds.map(|kind| sample(kind, severity))).collect()
}

fn sample(kind: AlertKind, severity: AlertSeverity) -> Alert {
    let created_at = Timestamp::from_secs(1_767_225_600);
    let event_id = EventId::new(created_at, 1, 1);
    let level = Level::ALL.into_iter().rfind(|level| level.severity() <= severity).unwrap_or_default();
    let detection = Detection {
        rule_uid: "5a1e6f4c-3f5b-4f0e-9d43-2f9b8f1f0a11".into(),
        name: "many_failed_logins".into(),
        title: "Many failed logins".into(),
        description: "Somebody guesses passwords.".into(),
        level,
        tags: vec!["attack.credential_access".into(), "attack.t1110".into()],
        references: vec!["https://attack.mitre.org/techniques/T1110/".into()],
        false_positives: vec!["A person who forgot a password".into()],
        fields: vec![("src_ip".into(), "192.0.2.7".into()), ("user".into(), "root".into())],
        events: 5,
    };
    // With what breaks a text that is not escaped.
    let message = "Failed password for \"root\" & <others>\nfrom 192.0.2.7 \\ port 22".to_owned();
    let raw_json = serde_json::json!({ "hostname": "web-1", "message": message, "timestamp": "2026-01-01T00:00:00Z" });
    Alert {
        id: AlertId::derive(event_id, kind.as_str()),
        org: OrgId::default(),
        kind,
        event_id,
        correlation_id: "sample".into(),
        created_at,
        host: "web-1".into(),
        team: "SECOPS".into(),
        severity,
        handling: Handling::new("Page_and_ticket"),
        rule_id: (kind == AlertKind::Rule).then_some(7),
        signature: "web-1:sample".into(),
        message,
        raw_json: raw_json.to_string().into(),
        detection: (kind == AlertKind::Detection).then(|| Box::new(detection)),
    }
}
