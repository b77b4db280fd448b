//! What a detection rule says beside "it matched": carried along with its alerts.

use crate::AlertSeverity;

/// Level of a Sigma rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Level {
    Informational,
    Low,
    #[default]
    Medium,
    High,
    Critical,
}

impl Level {
    pub const ALL: [Self; 5] = [Self::Informational, Self::Low, Self::Medium, Self::High, Self::Critical];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Informational => "informational",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str().eq_ignore_ascii_case(text.trim()))
    }

    /// On the scale of alerts.
    pub const fn severity(self) -> AlertSeverity {
        match self {
            Self::Informational => AlertSeverity::Info,
            Self::Low => AlertSeverity::Minor,
            Self::Medium => AlertSeverity::Warning,
            Self::High => AlertSeverity::Major,
            Self::Critical => AlertSeverity::Critical,
        }
    }

    /// The words of the agent's world (contract security-manager §4.4, §10).
    pub const fn as_agent_severity(self) -> &'static str {
        match self {
            Self::Informational | Self::Low => "info",
            Self::Medium => "warning",
            Self::High | Self::Critical => "critical",
        }
    }
}

/// A detection rule's part of an alert.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Detection {
    /// The rule's `id`, or its `name`, as its author gave it: stable, and unique in its organisation.
    pub rule_uid: String,
    /// What its author calls it in one word, beside an `id`; empty where it has none.
    pub name: String,
    pub title: String,
    pub description: String,
    pub level: Level,
    /// As written: `attack.t1110`.
    pub tags: Vec<String>,
    pub references: Vec<String>,
    pub false_positives: Vec<String>,
    /// Fields of the event that the rule names for its readers, and those it groups by: name, value.
    pub fields: Vec<(String, String)>,
    /// Events behind the alert: 1 for a rule, more for a correlation.
    pub events: u64,
}
