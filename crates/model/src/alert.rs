//! An alert: what a team is told.

use crate::{AlertId, AlertSeverity, Detection, EventId, Handling, OrgId, RuleId, Timestamp};
use bytes::Bytes;

/// Why an alert exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AlertKind {
    /// A rule matched.
    Rule,
    /// A detection rule (Sigma) matched, or a correlation of such rules.
    Detection,
    /// Many events of one host and shape matched no rule (contract mutt §3.7).
    Unhandled,
    /// Nobody acknowledged an incident in time; carries what its last alert said.
    Escalation,
}

impl AlertKind {
    pub const ALL: [Self; 4] = [Self::Rule, Self::Detection, Self::Unhandled, Self::Escalation];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rule => "rule",
            Self::Detection => "detection",
            Self::Unhandled => "unhandled",
            Self::Escalation => "escalation",
        }
    }
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.as_str() == text)
    }
}

/// Where an alert is on its way to its team.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AlertState {
    /// Written with its audit row; not known to have reached a channel.
    Pending,
    /// Every channel that wanted it has taken it.
    Delivered,
    /// Could not be delivered; lies in the dead letters.
    Dead,
    /// No channel is configured, or its route names none: kept in the catalog only.
    Recorded,
    /// Joined an incident of which somebody was told already; nobody was told of this one.
    Grouped,
    /// A silence held when it came.
    Silenced,
}

impl AlertState {
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Delivered, Self::Dead, Self::Recorded, Self::Grouped, Self::Silenced];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
            Self::Recorded => "recorded",
            Self::Grouped => "grouped",
            Self::Silenced => "silenced",
        }
    }
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == text)
    }
}

/// What a team is told, with everything a channel needs to render it.
#[derive(Debug, Clone)]
pub struct Alert {
    pub id: AlertId,
    pub org: OrgId,
    pub kind: AlertKind,
    pub event_id: EventId,
    pub correlation_id: String,
    pub created_at: Timestamp,
    pub host: String,
    pub team: String,
    pub severity: AlertSeverity,
    /// The rule's decision for this host's environment, `Ticket_only` for meta-alerts.
    pub handling: Handling,
    pub rule_id: Option<RuleId>,
    /// Same text for repeats of one fault of one host, different for different faults.
    pub signature: String,
    /// What people read: the event's message, or the sentence of a meta-alert.
    pub message: String,
    /// The event as a JSON object, without internal keys.
    pub raw_json: Bytes,
    /// What the detection rule says; `None` for the other kinds.
    pub detection: Option<Box<Detection>>,
}
