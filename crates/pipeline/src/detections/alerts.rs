//! A match becomes an alert.

use super::About;
use super::guard::Paused;
use super::set::{DetectionRule, InForce};
use crate::codec;
use model::{Alert, AlertId, AlertKind, Detection, EventId, Handling, Level};
use rules::correlate::Firing;

/// What matches lead to, by level.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The team of hosts that have none.
    pub team: String,
    /// This level and worse pages and makes a ticket.
    pub page_from: Level,
    /// This level and worse makes a ticket; below it matches are counted, and seen by correlations.
    pub ticket_from: Level,
}

impl Default for Policy {
    fn default() -> Self {
        Self { team: "Security".to_owned(), page_from: Level::High, ticket_from: Level::Medium }
    }
}

impl Policy {
    /// What is done about a match of this level; `None` = nobody is told.
    pub fn handling(&self, level: Level) -> Option<Handling> {
        match level {
            level if level >= self.page_from => Some(Handling::new("Page_and_ticket")),
            level if level >= self.ticket_from => Some(Handling::new("Ticket_only")),
            _ => None,
        }
    }

    /// The alert of a match; `None` where its level asks for none.
    pub(super) fn alert(&self, of: InForce<'_>, about: &About<'_>, fields: &[(String, String)]) -> Option<Alert> {
        let InForce { rule, level, .. } = of;
        let handling = self.handling(level)?;
        let value = |name: &String| fields.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value);
        Some(Alert {
            message: format!("{}: {}", rule.header.title, about.event.message),
            severity: level.severity(),
            handling,
            signature: signature(rule, &about.event.host, rule.group_by.iter().map(value)),
            detection: Some(Box::new(Detection { fields: fields.to_vec(), events: 1, ..said(of) })),
            ..self.base(of, about, &rule.header.uid)
        })
    }

    /// The alert of a correlation that begins to fire; `None` where its level asks for none.
    pub(super) fn fired(&self, of: InForce<'_>, firing: &Firing, about: &About<'_>) -> Option<Alert> {
        let InForce { rule, level, .. } = of;
        let handling = self.handling(level)?;
        let fields: Vec<(String, String)> =
            rule.group_by.iter().cloned().zip(firing.key.iter().map(|text| text.to_string())).collect();
        let shown: Vec<String> = fields.iter().map(|(name, value)| format!("{name} {value}")).collect();
        let shown = shown.join(", ");
        let condition = rule.condition.as_deref().unwrap_or_default();
        let parts = [&*shown, condition].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>();
        Some(Alert {
            id: firing_alert(firing),
            message: format!("{}: {}", rule.header.title, parts.join("; ")),
            severity: level.severity(),
            handling,
            signature: signature(rule, "", firing.key.iter().map(|text| &**text)),
            detection: Some(Box::new(Detection {
                fields,
                events: firing.metric.map_or(1, |metric| metric.max(firing.events.len() as f64) as u64),
                ..said(of)
            })),
            ..self.base(of, about, &rule.header.uid)
        })
    }

    /// The alert that says that a rule is paused.
    pub(super) fn paused(&self, of: InForce<'_>, about: &About<'_>, why: &Paused) -> Alert {
        let rule = of.rule;
        let uid = &rule.header.uid;
        Alert {
            message: format!("[MUTT] The detection rule \"{}\" is paused: {why}", rule.header.title),
            signature: format!("paused:{uid}"),
            team: of.team.unwrap_or(&self.team).to_owned(),
            detection: Some(Box::new(Detection {
                title: format!("Detection rule paused: {}", rule.header.title),
                level: Level::Medium,
                events: 1,
                ..said(of)
            })),
            ..self.base(of, about, &format!("paused:{uid}"))
        }
    }

    /// The alert that says that a scheduled rule could not look at some events.
    pub(super) fn missed(&self, of: InForce<'_>, about: &About<'_>, what: &str) -> Alert {
        let rule = of.rule;
        let uid = &rule.header.uid;
        Alert {
            message: format!("[MUTT] The scheduled rule \"{}\" missed events: {what}", rule.header.title),
            signature: format!("missed:{uid}"),
            team: of.team.unwrap_or(&self.team).to_owned(),
            detection: Some(Box::new(Detection {
                title: format!("Scheduled rule missed events: {}", rule.header.title),
                level: Level::Medium,
                events: 1,
                ..said(of)
            })),
            ..self.base(of, about, &format!("missed:{uid}"))
        }
    }

    fn base(&self, of: InForce<'_>, about: &About<'_>, cause: &str) -> Alert {
        let event = about.event;
        Alert {
            id: AlertId::derive(event.id, &format!("detection:{cause}")),
            org: event.org.clone(),
            kind: AlertKind::Detection,
            event_id: event.id,
            correlation_id: event.correlation_id.clone(),
            created_at: about.now,
            host: event.host.clone(),
            team: of.team.or(about.team).unwrap_or(&self.team).to_owned(),
            severity: Level::Medium.severity(),
            handling: Handling::new("Ticket_only"),
            rule_id: None,
            signature: String::new(),
            message: String::new(),
            raw_json: codec::public_object(&event.raw),
            detection: None,
        }
    }
}

/// The alert of a firing: the same firing has the same, whichever batch it comes with, and wherever it
/// begins then.
pub(crate) fn firing_alert(firing: &Firing) -> AlertId {
    AlertId::derive(EventId::from_u128(firing.id), "correlation")
}

/// What the alerts of one incident share: the values that the rule groups by, else the host.
fn signature<'v>(rule: &DetectionRule, host: &str, values: impl Iterator<Item = &'v str>) -> String {
    let mut signature = format!("{}:", rule.header.uid);
    if rule.group_by.is_empty() {
        signature.push_str(host);
    }
    for (name, value) in rule.group_by.iter().zip(values) {
        signature.push_str(&format!("{name}={value};"));
    }
    signature
}

/// What the rule says about itself, and the organisation about it.
fn said(of: InForce<'_>) -> Detection {
    let header = &of.rule.header;
    Detection {
        rule_uid: header.uid.clone(),
        name: header.name.clone().unwrap_or_default(),
        title: header.title.clone(),
        description: header.description.clone(),
        level: of.level,
        tags: header.tags.clone(),
        references: header.references.clone(),
        false_positives: header.false_positives.clone(),
        fields: Vec::new(),
        events: 0,
    }
}
