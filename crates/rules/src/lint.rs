//! Rules that are allowed but probably not meant: about one rule, and about rules in each other's
//! company. Nothing here stops a rule from being used.

use crate::operators::{oid_prefix, regex};
use crate::{mutt, suggest};
use aho_corasick::AhoCorasick;
use model::{MatchType, Rule, RuleDraft, RuleId};
use std::collections::HashMap;
use std::fmt;

/// What is odd about a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WarningKind {
    /// It is found in every message.
    MatchesEverything,
    /// A text of one or two characters.
    ShortText,
    /// Spaces around the text, which are compared too.
    OuterWhitespace,
    /// No literal in the pattern: it runs on every message that no better rule takes.
    NoLiteral,
    /// A handling that forwards nothing and is not a usual word for that.
    UnknownHandling,
    /// A severity on a rule that matches by OID.
    SeverityIgnored,
    /// A text on a rule that matches by OID.
    TextIgnored,
    /// An OID on a rule that compares text: it only excludes events with an OID.
    OidExcludes,
    /// Same criteria as a rule before it.
    Duplicate,
    /// A rule before it takes every event that it could match.
    Shadowed,
}

/// A remark about one rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// What is odd.
    pub kind: WarningKind,
    /// The column's name.
    pub field: &'static str,
    /// A sentence for the rule's author.
    pub message: String,
}

/// A remark about a rule in the company of the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetWarning {
    /// What is odd.
    pub kind: WarningKind,
    /// The rule that cannot match.
    pub rule: RuleId,
    /// The rule that comes first.
    pub by: RuleId,
    /// A sentence for the rules' author.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

impl fmt::Display for SetWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Remarks about one rule. Says nothing about what [`validate`](crate::validate) refuses.
pub fn lint(draft: &RuleDraft) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut warn = |kind, field, message: String| warnings.push(Warning { kind, field, message });
    let text = mutt::present(draft.match_string.as_deref());
    let oid = mutt::present(draft.trap_oid.as_deref());
    match (draft.match_type, text) {
        (MatchType::OidPrefix, _) => {
            if draft.syslog_severity.is_some() {
                let message = "it is ignored when a rule matches by OID".to_owned();
                warn(WarningKind::SeverityIgnored, "syslog_severity", message);
            }
            if text.is_some() {
                let message = "it is never compared when match_type is `oid_prefix`".to_owned();
                warn(WarningKind::TextIgnored, "match_string", message);
            }
        }
        (MatchType::Contains, Some(text)) => lint_contains(text, &mut warn),
        (MatchType::Regex, Some(text)) => lint_regex(text, &mut warn),
        (MatchType::Contains | MatchType::Regex, None) => {}
    }
    if text.is_some() && oid.is_some() && draft.match_type != MatchType::OidPrefix {
        let message = format!(
            "with match_type `{}` it is not compared; it only keeps this rule from matching events that have a trap OID",
            draft.match_type.as_str()
        );
        warn(WarningKind::OidExcludes, "trap_oid", message);
    }
    for (field, handling) in [("prod_handling", &draft.prod_handling), ("dev_handling", &draft.dev_handling)] {
        if handling.forwards() || mutt::is_known_quiet(handling) || handling.as_str().trim().is_empty() {
            continue;
        }
        let message = match suggest::closest(handling.as_str(), &mutt::FORWARDING) {
            Some(known) => format!("`{}` alerts nobody; did you mean `{known}`?", handling.as_str()),
            None => format!(
                "`{}` is none of {}: events are audited and nobody is alerted",
                handling.as_str(),
                mutt::FORWARDING.join(", ")
            ),
        };
        warn(WarningKind::UnknownHandling, field, message);
    }
    warnings
}

fn lint_contains(text: &str, warn: &mut impl FnMut(WarningKind, &'static str, String)) {
    let chars = text.chars().count();
    if chars <= 2 {
        let message = format!("a text of {chars} character(s) is part of most messages");
        warn(WarningKind::ShortText, "match_string", message);
    }
    if text.trim() != text {
        let message = "it starts or ends with whitespace, which has to be in the message too".to_owned();
        warn(WarningKind::OuterWhitespace, "match_string", message);
    }
}

fn lint_regex(pattern: &str, warn: &mut impl FnMut(WarningKind, &'static str, String)) {
    let Ok(op) = regex::compile(pattern) else { return };
    if op.matches_everything() {
        let message = "this pattern matches the empty text, and so every message".to_owned();
        warn(WarningKind::MatchesEverything, "match_string", message);
    } else if op.required_literals().is_empty() {
        let message =
            "no fixed text of two or more characters is in every match, so this pattern runs on every message"
                .to_owned();
        warn(WarningKind::NoLiteral, "match_string", message);
    }
    if pattern.trim() != pattern {
        let message = "it starts or ends with whitespace, which has to be in the message too".to_owned();
        warn(WarningKind::OuterWhitespace, "match_string", message);
    }
}

/// Active rules that can never match because of a rule before them. Each rule is reported once,
/// with the first rule that stands in its way.
pub fn lint_set(rules: &[Rule]) -> Vec<SetWarning> {
    let mut order: Vec<&Rule> =
        rules.iter().filter(|rule| rule.draft.is_active && mutt::predicate(&rule.draft).is_ok()).collect();
    order.sort_by_key(|rule| (rule.draft.priority, rule.id));
    let scopes: Vec<Scope> = order.iter().map(|rule| Scope::of(&rule.draft)).collect();
    let needles: Vec<(usize, &str)> =
        scopes.iter().enumerate().filter_map(|(i, scope)| scope.needle().map(|needle| (i, needle))).collect();
    let finder = AhoCorasick::new(needles.iter().map(|(_, needle)| needle)).ok();
    let catch_all: Vec<usize> = (0..scopes.len()).filter(|i| matches!(scopes[*i].what, What::Everything)).collect();
    let mut by_oid: HashMap<&str, usize> = HashMap::new();
    let mut first_equal: HashMap<&Scope, usize> = HashMap::new();

    let mut warnings = Vec::new();
    for (i, scope) in scopes.iter().enumerate() {
        let mut earlier = Vec::new();
        if let Some(first) = first_equal.get(scope) {
            earlier.push(*first);
        } else {
            first_equal.insert(scope, i);
        }
        if let What::Oid(oid) = &scope.what {
            earlier.extend(prefixes(oid).filter_map(|prefix| by_oid.get(prefix)));
            by_oid.entry(oid).or_insert(i);
        } else {
            earlier.extend(catch_all.iter().take_while(|j| **j < i).filter(|j| scopes[**j].covers(scope)));
            if let (Some(needle), Some(finder)) = (scope.needle(), &finder) {
                earlier.extend(
                    finder
                        .find_overlapping_iter(needle)
                        .map(|found| needles[found.pattern().as_usize()].0)
                        .filter(|j| *j < i && scopes[*j].covers(scope)),
                );
            }
        }
        let Some(j) = earlier.into_iter().min() else { continue };
        let (rule, by) = (order[i].id, order[j].id);
        let (kind, message) = if scopes[j] == *scope {
            (
                WarningKind::Duplicate,
                format!("rule {rule} has the same criteria as rule {by}, which comes first: it can never match"),
            )
        } else {
            (
                WarningKind::Shadowed,
                format!(
                    "rule {by} comes first and matches everything that rule {rule} looks for: rule {rule} can never match"
                ),
            )
        };
        warnings.push(SetWarning { kind, rule, by, message });
    }
    warnings
}

/// The events a rule can match, as far as two of them can be compared.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Scope {
    what: What,
    /// Of message rules; `None` = any.
    severity: Option<u8>,
    /// Only events without a trap OID.
    no_oid: bool,
}

#[derive(Debug, PartialEq, Eq, Hash)]
enum What {
    Oid(String),
    Contains(String),
    Regex(String),
    Everything,
}

impl Scope {
    fn of(draft: &RuleDraft) -> Self {
        let text = draft.match_string.as_deref().unwrap_or_default();
        let what = match draft.match_type {
            MatchType::OidPrefix => {
                let oid = oid_prefix::compile(draft.trap_oid.as_deref().unwrap_or_default());
                let oid = oid.map_or_else(|_| String::new(), |op| op.oid().to_owned());
                return Self { what: What::Oid(oid), severity: None, no_oid: false };
            }
            MatchType::Contains => What::Contains(text.to_lowercase()),
            MatchType::Regex if regex::compile(text).is_ok_and(|op| op.matches_everything()) => What::Everything,
            MatchType::Regex => What::Regex(text.to_owned()),
        };
        let no_oid = mutt::present(draft.trap_oid.as_deref()).is_some();
        Self { what, severity: draft.syslog_severity, no_oid }
    }

    fn needle(&self) -> Option<&str> {
        match &self.what {
            What::Contains(needle) => Some(needle),
            What::Oid(_) | What::Regex(_) | What::Everything => None,
        }
    }

    /// Whether severity and OID let everything through here that they let through there.
    fn covers(&self, later: &Self) -> bool {
        (self.severity.is_none() || self.severity == later.severity) && (!self.no_oid || later.no_oid)
    }
}

/// The OID itself and everything above it, longest first.
fn prefixes(oid: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(oid), |oid| oid.rfind('.').map(|dot| &oid[..dot]))
}
