//! Which alerts a route or a silence is about.

use super::glob::Glob;
use model::{Alert, AlertKind, AlertSeverity, Level};
use serde::{Deserialize, Deserializer, Serialize};

/// A matcher as it is written, in the configuration and in silences. What is left out does not matter;
/// of several texts one has to fit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MatcherSpec {
    #[serde(deserialize_with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub org: Vec<String>,
    /// This or worse: a level (`low` … `critical`) or a word of alerts (`Minor` … `Critical`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<String>,
    #[serde(deserialize_with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub team: Vec<String>,
    #[serde(deserialize_with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub tag: Vec<String>,
    /// The id of a detection rule, its title, or the number of a rule of MUTT.
    #[serde(deserialize_with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub rule: Vec<String>,
    #[serde(deserialize_with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub host: Vec<String>,
    /// `rule`, `detection`, `unhandled`.
    #[serde(deserialize_with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub kind: Vec<String>,
    #[serde(deserialize_with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub handling: Vec<String>,
}

/// What is wrong with something written, and where in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecProblem {
    /// Such as `match.severity`.
    pub path: String,
    pub message: String,
}

impl SpecProblem {
    pub(super) fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

/// Texts of one list at most.
const TEXTS_MAX: usize = 100;

/// A text or a list of texts.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a text or a list of texts")]
    enum Written {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Written::deserialize(deserializer)? {
        Written::One(text) => vec![text],
        Written::Many(texts) => texts,
    })
}

/// A matcher that can be asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matcher {
    org: Vec<Glob>,
    severity: Option<AlertSeverity>,
    team: Vec<Glob>,
    tag: Vec<Glob>,
    rule: Vec<Glob>,
    host: Vec<Glob>,
    kind: Vec<AlertKind>,
    handling: Vec<Glob>,
}

/// Kinds that can be asked for; an escalation is of the kind of what it escalates.
const KINDS: [AlertKind; 3] = [AlertKind::Rule, AlertKind::Detection, AlertKind::Unhandled];

/// The severity that a word means: a level of Sigma, or the alerts' own word.
pub fn severity_of(word: &str) -> Option<AlertSeverity> {
    Level::parse(word).map(Level::severity).or_else(|| AlertSeverity::parse(word))
}

impl Matcher {
    /// Understands what is written; problems have paths below `at`.
    pub fn new(spec: &MatcherSpec, at: &str, problems: &mut Vec<SpecProblem>) -> Self {
        let mut globs = |name: &str, texts: &[String]| {
            if texts.len() > TEXTS_MAX {
                problems.push(SpecProblem::new(format!("{at}.{name}"), format!("has more than {TEXTS_MAX} texts")));
            }
            let mut globs = Vec::new();
            for (n, text) in texts.iter().take(TEXTS_MAX).enumerate() {
                match Glob::new(text) {
                    Ok(glob) => globs.push(glob),
                    Err(message) => problems.push(SpecProblem::new(format!("{at}.{name}[{n}]"), message)),
                }
            }
            globs
        };
        let mut matcher = Self {
            org: globs("org", &spec.org),
            severity: None,
            team: globs("team", &spec.team),
            tag: globs("tag", &spec.tag),
            rule: globs("rule", &spec.rule),
            host: globs("host", &spec.host),
            kind: Vec::new(),
            handling: globs("handling", &spec.handling),
        };
        if let Some(word) = &spec.severity {
            matcher.severity = severity_of(word);
            if matcher.severity.is_none() {
                problems.push(SpecProblem::new(
                    format!("{at}.severity"),
                    format!(
                        "`{word}` is not one of informational, low, medium, high, critical, Clear, Info, Minor, Warning, \
                         Major"
                    ),
                ));
            }
        }
        for (n, word) in spec.kind.iter().enumerate() {
            match KINDS.into_iter().find(|kind| kind.as_str() == word) {
                Some(kind) => matcher.kind.push(kind),
                None => problems.push(SpecProblem::new(
                    format!("{at}.kind[{n}]"),
                    format!("`{word}` is not one of rule, detection, unhandled"),
                )),
            }
        }
        matcher
    }

    /// Whether it says nothing, and so fits every alert.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub fn matches(&self, alert: &Alert) -> bool {
        let any = |globs: &[Glob], text: &str| globs.is_empty() || globs.iter().any(|glob| glob.fits(text));
        let detection = alert.detection.as_deref();
        let tags = detection.map_or(&[][..], |d| &d.tags);
        let number = alert.rule_id.map(|id| id.to_string());
        let rules =
            detection.into_iter().flat_map(|d| [d.rule_uid.as_str(), d.title.as_str()]).chain(number.as_deref());
        any(&self.org, alert.org.as_str())
            && self.severity.is_none_or(|least| alert.severity >= least)
            && any(&self.team, &alert.team)
            && (self.tag.is_empty() || tags.iter().any(|tag| any(&self.tag, tag)))
            && (self.rule.is_empty() || rules.into_iter().any(|rule| any(&self.rule, rule)))
            && any(&self.host, &alert.host)
            && (self.kind.is_empty() || self.kind.contains(&kind_of(alert)))
            && any(&self.handling, alert.handling.as_str())
    }

    /// Whether surely every alert that `other` fits is fitted by this one, too.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let globs = |mine: &[Glob], theirs: &[Glob]| {
            mine.is_empty()
                || (!theirs.is_empty() && theirs.iter().all(|t| mine.iter().any(|m| m == t || m.as_str() == "*")))
        };
        globs(&self.org, &other.org)
            && self.severity.is_none_or(|mine| other.severity.is_some_and(|theirs| theirs >= mine))
            && globs(&self.team, &other.team)
            && globs(&self.tag, &other.tag)
            && globs(&self.rule, &other.rule)
            && globs(&self.host, &other.host)
            && (self.kind.is_empty() || (!other.kind.is_empty() && other.kind.iter().all(|k| self.kind.contains(k))))
            && globs(&self.handling, &other.handling)
    }
}

/// The kind that matchers ask for.
pub(super) fn kind_of(alert: &Alert) -> AlertKind {
    match alert.kind {
        AlertKind::Escalation if alert.detection.is_some() => AlertKind::Detection,
        AlertKind::Escalation if alert.rule_id.is_none() => AlertKind::Unhandled,
        AlertKind::Escalation => AlertKind::Rule,
        kind @ (AlertKind::Rule | AlertKind::Detection | AlertKind::Unhandled) => kind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Detection;
    use testkit::builders::alert;

    fn matcher(json: &str) -> (Matcher, Vec<String>) {
        let spec: MatcherSpec = serde_json::from_str(json).unwrap();
        let mut problems = Vec::new();
        let matcher = Matcher::new(&spec, "match", &mut problems);
        (matcher, problems.into_iter().map(|p| p.path).collect())
    }

    #[test]
    fn each_part_has_to_fit_and_of_several_texts_one() {
        let detection = Detection {
            rule_uid: "5a1f".into(),
            title: "Login guessed".into(),
            tags: vec!["attack.t1110.001".into(), "attack.credential_access".into()],
            ..Default::default()
        };
        let found = alert().team("SOC").host("web-01").severity(AlertSeverity::Major).detection(detection).build();
        for (json, fits) in [
            ("{}", true),
            (r#"{"severity":"high"}"#, true),
            (r#"{"severity":"Major"}"#, true),
            (r#"{"severity":"critical"}"#, false),
            (r#"{"tag":"attack.t1110*"}"#, true),
            (r#"{"tag":["attack.t1059","attack.credential_access"]}"#, true),
            (r#"{"tag":"attack.t1110"}"#, false),
            (r#"{"rule":"5A1F"}"#, true),
            (r#"{"rule":"login*"}"#, true),
            (r#"{"rule":"42"}"#, false),
            (r#"{"org":"default","team":["NETO","soc"],"host":"web-*","kind":"detection"}"#, true),
            (r#"{"org":"acme"}"#, false),
            (r#"{"kind":["rule","unhandled"]}"#, false),
            (r#"{"handling":"page*"}"#, true),
        ] {
            let (matcher, problems) = matcher(json);
            assert_eq!((matcher.matches(&found), problems.len()), (fits, 0), "{json}");
        }
        let of_mutt = alert().rule_id(Some(42)).build();
        assert!(matcher(r#"{"rule":"42","kind":"rule"}"#).0.matches(&of_mutt));
        assert!(!matcher(r#"{"tag":"*"}"#).0.matches(&of_mutt), "an alert without tags has none that fits");
    }

    #[test]
    fn what_cannot_be_meant_is_named() {
        let (_, problems) = matcher(r#"{"severity":"bad","kind":["rule","x"],"host":["a",""]}"#);
        assert_eq!(problems, ["match.host[1]", "match.severity", "match.kind[1]"]);
        assert!(serde_json::from_str::<MatcherSpec>(r#"{"hosts":"a"}"#).is_err(), "an unknown part");
        assert!(serde_json::from_str::<MatcherSpec>(r#"{"host":1}"#).is_err());
    }

    #[test]
    fn what_is_written_comes_back() {
        let json = r#"{"severity":"high","tag":["attack.*"]}"#;
        let spec: MatcherSpec = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&spec).unwrap(), json);
    }
}
