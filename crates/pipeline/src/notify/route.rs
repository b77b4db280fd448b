//! What a route says, as it is written and as it acts.

use super::matcher::{MatcherSpec, SpecProblem};
use super::span::parse_span;
use model::{Alert, AlertKind};
use serde::Deserialize;
use std::time::Duration;

/// What becomes of the alerts of a route. What is left out is as the route above says it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicySpec {
    pub group: Option<bool>,
    pub group_by: Option<Vec<String>>,
    pub group_wait: Option<String>,
    pub repeat_interval: Option<String>,
    pub suppress_for: Option<String>,
    pub resolve_after: Option<String>,
    pub reopen_within: Option<String>,
    pub escalate_after: Option<String>,
    pub escalate_to: Option<Vec<String>>,
}

/// A route as it is written.
#[derive(Debug, Clone, Default)]
pub struct RouteSpec {
    pub name: String,
    pub matcher: MatcherSpec,
    /// `None`: as the route above.
    pub channels: Option<Vec<String>>,
    pub goes_on: bool,
    pub policy: PolicySpec,
    pub routes: Vec<RouteSpec>,
}

/// What an incident's key is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupBy {
    Rule,
    Host,
    Team,
    Severity,
    /// A field that the alert's detection rule shows or groups by.
    Field(String),
}

impl GroupBy {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "rule" => Self::Rule,
            "host" => Self::Host,
            "team" => Self::Team,
            "severity" => Self::Severity,
            _ => Self::Field(text.strip_prefix("field.").filter(|name| !name.is_empty())?.to_owned()),
        })
    }

    pub fn text(&self) -> String {
        match self {
            Self::Rule => "rule".into(),
            Self::Host => "host".into(),
            Self::Team => "team".into(),
            Self::Severity => "severity".into(),
            Self::Field(name) => format!("field.{name}"),
        }
    }

    fn value(&self, alert: &Alert) -> String {
        match self {
            Self::Rule => rule_uid(alert),
            Self::Host => alert.host.clone(),
            Self::Team => alert.team.clone(),
            Self::Severity => alert.severity.as_str().into(),
            Self::Field(name) => {
                let fields = alert.detection.as_deref().map_or(&[][..], |d| &d.fields);
                let values: Vec<&str> = fields.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect();
                values.join(",")
            }
        }
    }
}

/// The rule behind an alert, as incidents name it.
pub(super) fn rule_uid(alert: &Alert) -> String {
    match (alert.detection.as_deref(), alert.rule_id) {
        (Some(detection), _) => detection.rule_uid.clone(),
        (None, Some(id)) => id.to_string(),
        (None, None) => "unhandled".to_owned(),
    }
}

/// Who is told when nobody has acknowledged an incident in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Escalation {
    pub after: Duration,
    pub to: Vec<String>,
}

/// What becomes of alerts, in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// `None`: every channel there is.
    pub channels: Option<Vec<String>>,
    /// `None`: detections are gathered, other alerts are not.
    pub group: Option<bool>,
    /// Empty: as the rule says.
    pub group_by: Vec<GroupBy>,
    /// The first alert of an incident waits so long for others, and is told with their number; zero: it
    /// is told at once.
    pub group_wait: Duration,
    /// An incident that goes on is told again after this; zero: never.
    pub repeat_interval: Duration,
    /// At most one notification of an incident's key in this time.
    pub suppress_for: Duration,
    /// An incident without alerts for so long is resolved; zero: never.
    pub resolve_after: Duration,
    /// An incident that was resolved no longer ago is opened again by its next alert.
    pub reopen_within: Duration,
    pub escalation: Option<Escalation>,
}

impl Default for Policy {
    fn default() -> Self {
        const HOUR: Duration = Duration::from_secs(3_600);
        Self {
            channels: None,
            group: None,
            group_by: Vec::new(),
            group_wait: Duration::ZERO,
            repeat_interval: HOUR * 4,
            suppress_for: Duration::ZERO,
            resolve_after: HOUR * 24,
            reopen_within: HOUR * 24,
            escalation: None,
        }
    }
}

/// The longest time in which nobody is told of something new.
const GROUP_WAIT_MAX: Duration = Duration::from_secs(3_600);
/// Parts of a key at most.
const GROUP_BY_MAX: usize = 16;

impl Policy {
    /// This policy with what `spec` says, below the path `at`.
    pub fn with(&self, spec: &PolicySpec, at: &str, problems: &mut Vec<SpecProblem>) -> Self {
        let path = |name: &str| if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") };
        let mut policy = Self { group: spec.group.or(self.group), ..self.clone() };
        for (name, text, span) in [
            ("group_wait", &spec.group_wait, &mut policy.group_wait),
            ("repeat_interval", &spec.repeat_interval, &mut policy.repeat_interval),
            ("suppress_for", &spec.suppress_for, &mut policy.suppress_for),
            ("resolve_after", &spec.resolve_after, &mut policy.resolve_after),
            ("reopen_within", &spec.reopen_within, &mut policy.reopen_within),
        ] {
            match text.as_deref().map(parse_span) {
                Some(Ok(read)) => *span = read,
                Some(Err(message)) => problems.push(SpecProblem::new(path(name), message)),
                None => {}
            }
        }
        // A slip (`30d` for `30s`) would hold back what nobody can hold back knowingly: silences do that.
        if policy.group_wait > GROUP_WAIT_MAX && spec.group_wait.is_some() {
            problems.push(SpecProblem::new(path("group_wait"), "is longer than 1h: nobody would be told until then"));
        }
        if let Some(parts) = &spec.group_by {
            policy.group_by = group_by(parts, &path("group_by"), problems);
        }
        policy.escalation = self.escalation(spec, &path, problems);
        policy
    }

    fn escalation(
        &self,
        spec: &PolicySpec,
        path: &impl Fn(&str) -> String,
        problems: &mut Vec<SpecProblem>,
    ) -> Option<Escalation> {
        let above = self.escalation.as_ref();
        let after = match spec.escalate_after.as_deref().map(parse_span) {
            Some(Ok(after)) => Some(after),
            Some(Err(message)) => {
                problems.push(SpecProblem::new(path("escalate_after"), message));
                return None;
            }
            None => above.map(|e| e.after),
        };
        // No time at all: nobody is told, whatever the route above says.
        if after.is_some_and(|after| after.is_zero()) {
            return None;
        }
        let to = spec.escalate_to.clone().or_else(|| above.map(|e| e.to.clone()));
        match (after, to) {
            (Some(after), Some(to)) if !to.is_empty() => Some(Escalation { after, to }),
            (Some(_), _) => {
                problems.push(SpecProblem::new(path("escalate_to"), "is needed for escalate_after: name a channel"));
                None
            }
            (None, Some(_)) => {
                problems
                    .push(SpecProblem::new(path("escalate_after"), "is needed for escalate_to: a time such as 15m"));
                None
            }
            (None, None) => None,
        }
    }

    /// Whether this alert joins an incident.
    pub fn gathers(&self, alert: &Alert) -> bool {
        self.group.unwrap_or(alert.kind == AlertKind::Detection)
    }

    /// The key of the incident that this alert belongs to, within its organisation.
    pub fn key(&self, alert: &Alert) -> String {
        if self.group_by.is_empty() {
            return format!("{}|{}", rule_uid(alert), alert.signature);
        }
        let parts: Vec<String> = self.group_by.iter().map(|by| format!("{}={}", by.text(), by.value(alert))).collect();
        parts.join("|")
    }
}

fn group_by(parts: &[String], at: &str, problems: &mut Vec<SpecProblem>) -> Vec<GroupBy> {
    if parts.len() > GROUP_BY_MAX {
        problems.push(SpecProblem::new(at, format!("has more than {GROUP_BY_MAX} parts")));
    }
    let mut all = Vec::new();
    for (n, text) in parts.iter().take(GROUP_BY_MAX).enumerate() {
        match GroupBy::parse(text) {
            Some(part) => all.push(part),
            None => problems.push(SpecProblem::new(
                format!("{at}[{n}]"),
                format!("`{text}` is not one of rule, host, team, severity, field.NAME"),
            )),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Detection;
    use testkit::builders::alert;

    #[test]
    fn a_key_is_made_of_what_the_rule_or_the_route_says() {
        let fields = [("SourceIp", "192.0.2.1"), ("User", "root"), ("SourceIp", "192.0.2.2")];
        let detection = Detection {
            rule_uid: "5a1f".into(),
            fields: fields.map(|(n, v)| (n.to_owned(), v.to_owned())).into(),
            ..Default::default()
        };
        let found = alert().host("web-01").team("SOC").signature("192.0.2.1").detection(detection).build();
        let of_mutt = alert().host("sw1").rule_id(Some(42)).signature("sw1:42").build();
        let keys = |parts: &[&str], alert: &Alert| {
            let group_by = Some(parts.iter().map(|p| (*p).to_owned()).collect());
            let mut problems = Vec::new();
            let spec = PolicySpec { group_by, ..PolicySpec::default() };
            let key = Policy::default().with(&spec, "", &mut problems).key(alert);
            (key, problems.len())
        };
        for (parts, alert, key) in [
            (&[][..], &found, "5a1f|192.0.2.1"),
            (&[], &of_mutt, "42|sw1:42"),
            (&["rule", "host"], &found, "rule=5a1f|host=web-01"),
            (&["field.SourceIp", "team"], &found, "field.SourceIp=192.0.2.1,192.0.2.2|team=SOC"),
            (&["field.None"], &of_mutt, "field.None="),
        ] {
            assert_eq!(keys(parts, alert), (key.to_owned(), 0), "{parts:?}");
        }
        assert_eq!(keys(&["rule", "colour", "field."], &found).1, 2);
        assert!(Policy::default().gathers(&found) && !Policy::default().gathers(&of_mutt));
        let all = Policy { group: Some(true), ..Policy::default() };
        assert!(all.gathers(&of_mutt));
    }

    #[test]
    fn what_a_route_leaves_out_is_as_above() {
        let above = Policy {
            repeat_interval: Duration::from_secs(60),
            escalation: Some(Escalation { after: Duration::from_secs(900), to: vec!["boss".into()] }),
            ..Policy::default()
        };
        let with = |spec: PolicySpec| {
            let mut problems = Vec::new();
            let policy = above.with(&spec, "routes[0]", &mut problems);
            (policy, problems.into_iter().map(|p| p.path).collect::<Vec<_>>())
        };
        let text = |text: &str| Some(text.to_owned());
        let (policy, problems) = with(PolicySpec { suppress_for: text("1h"), ..PolicySpec::default() });
        assert_eq!((policy.repeat_interval.as_secs(), policy.suppress_for.as_secs()), (60, 3_600));
        assert_eq!((policy.escalation, problems.len()), (above.escalation.clone(), 0));
        let (policy, _) = with(PolicySpec { escalate_after: text("5m"), ..PolicySpec::default() });
        assert_eq!(policy.escalation.unwrap().after.as_secs(), 300);
        let (policy, problems) = with(PolicySpec { escalate_after: text("0s"), ..PolicySpec::default() });
        assert_eq!((policy.escalation, problems.len()), (None, 0), "nobody, here");
        let (_, problems) = with(PolicySpec { escalate_after: text("soon"), ..PolicySpec::default() });
        assert_eq!(problems, ["routes[0].escalate_after"]);
        let mut problems = Vec::new();
        Policy::default().with(
            &PolicySpec { escalate_to: Some(vec!["boss".into()]), ..PolicySpec::default() },
            "",
            &mut problems,
        );
        assert_eq!(problems[0].path, "escalate_after");
    }
}
