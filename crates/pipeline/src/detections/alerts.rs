//! A match becomes an alert.

use super::guard::Paused;
use super::set::DetectionRule;
use crate::codec;
use model::{Alert, AlertId, AlertKind, Detection, Event, Handling, Level, Timestamp};

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
    fn handling(&self, level: Level) -> Option<Handling> {
        match level {
            level if level >= self.page_from => Some(Handling::new("Page_and_ticket")),
            level if level >= self.ticket_from => Some(Handling::new("Ticket_only")),
            _ => None,
        }
    }

    /// The alert of a match; `None` where its level asks for none.
    pub(super) fn alert(
        &self,
        rule: &DetectionRule,
        event: &Event,
        fields: &[(String, String)],
        team: Option<&str>,
        now: Timestamp,
    ) -> Option<Alert> {
        let handling = self.handling(rule.header.level)?;
        let uid = &rule.header.uid;
        let mut signature = format!("{uid}:");
        if rule.group_by.is_empty() {
            signature.push_str(&event.host);
        }
        for name in &rule.group_by {
            let value = fields.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value);
            signature.push_str(&format!("{name}={value};"));
        }
        Some(Alert {
            message: format!("{}: {}", rule.header.title, event.message),
            severity: rule.header.level.severity(),
            handling,
            signature,
            detection: Some(Box::new(Detection { fields: fields.to_vec(), events: 1, ..said(rule) })),
            ..self.about(event, uid, team, now)
        })
    }

    /// The alert that says that a rule is paused.
    pub(super) fn paused(&self, rule: &DetectionRule, event: &Event, why: &Paused, now: Timestamp) -> Alert {
        let uid = &rule.header.uid;
        Alert {
            message: format!("[MUTT] The detection rule \"{}\" is paused: {why}", rule.header.title),
            severity: Level::Medium.severity(),
            handling: Handling::new("Ticket_only"),
            signature: format!("paused:{uid}"),
            detection: Some(Box::new(Detection {
                title: format!("Detection rule paused: {}", rule.header.title),
                level: Level::Medium,
                events: 1,
                ..said(rule)
            })),
            ..self.about(event, &format!("paused:{uid}"), None, now)
        }
    }

    fn about(&self, event: &Event, cause: &str, team: Option<&str>, now: Timestamp) -> Alert {
        Alert {
            id: AlertId::derive(event.id, &format!("detection:{cause}")),
            org: event.org.clone(),
            kind: AlertKind::Detection,
            event_id: event.id,
            correlation_id: event.correlation_id.clone(),
            created_at: now,
            host: event.host.clone(),
            team: team.unwrap_or(&self.team).to_owned(),
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

/// What the rule says about itself.
fn said(rule: &DetectionRule) -> Detection {
    let header = &rule.header;
    Detection {
        rule_uid: header.uid.clone(),
        title: header.title.clone(),
        description: header.description.clone(),
        level: header.level,
        tags: header.tags.clone(),
        references: header.references.clone(),
        false_positives: header.false_positives.clone(),
        fields: Vec::new(),
        events: 0,
    }
}
