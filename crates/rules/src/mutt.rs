//! Rule rows of MUTT (contract mutt §3.3, §3.4): the row as a predicate, and what a row may hold.
//!
//! First hit wins, by priority and then id. For one rule:
//! * A: the event has a trap OID and so has the rule: only `oid_prefix` can match, by whole
//!   components; severity is ignored and `match_string` is not tried.
//! * B: otherwise the message is compared with `match_string`, after the severity if the rule has
//!   one; `oid_prefix` never matches a `match_string`.

use crate::operators::{Operator, contains, oid_prefix, regex, severity};
use crate::{Field, FieldProblem, Predicate, RuleError};
use model::{Handling, MatchType, RuleDraft};

/// Longest `match_string` and `trap_oid`, in characters (the columns' size).
pub const CRITERION_CHARS_MAX: usize = 255;
/// Longest handling and team, in characters (the columns' size).
pub const LABEL_CHARS_MAX: usize = 100;

/// The predicate of a row; refuses rows that cannot be compiled or could never match.
pub fn predicate(draft: &RuleDraft) -> Result<Predicate, RuleError> {
    let text = present(draft.match_string.as_deref());
    let oid = present(draft.trap_oid.as_deref());
    let operator = match (draft.match_type, text, oid) {
        (_, None, None) => return Err(RuleError::NoCriteria),
        (MatchType::OidPrefix, _, Some(oid)) => {
            return Ok(Predicate::Test(Field::TrapOid, Operator::OidPrefix(oid_prefix::compile(oid)?)));
        }
        (MatchType::OidPrefix, Some(_), None) => return Err(RuleError::PrefixNeedsOid),
        (match_type, None, Some(_)) => return Err(RuleError::OidNeedsPrefix { match_type: match_type.as_str() }),
        (MatchType::Contains, Some(text), _) => Operator::Contains(contains::compile(text)?),
        (MatchType::Regex, Some(text), _) => Operator::Regex(regex::compile(text)?),
    };
    let mut parts = Vec::with_capacity(3);
    if oid.is_some() {
        parts.push(Predicate::Not(Box::new(Predicate::Present(Field::TrapOid))));
    }
    if let Some(code) = draft.syslog_severity {
        parts.push(Predicate::Test(Field::Severity, Operator::Severity(severity::compile(code)?)));
    }
    parts.push(Predicate::Test(Field::Message, operator));
    Ok(Predicate::All(parts))
}

/// Checks a row before it is stored; all problems at once.
pub fn validate(draft: &RuleDraft) -> Result<(), Vec<FieldProblem>> {
    let mut problems = Problems(Vec::new());
    let text = present(draft.match_string.as_deref());
    let oid = present(draft.trap_oid.as_deref());
    problems.text("match_string", text.unwrap_or_default(), CRITERION_CHARS_MAX);
    problems.text("trap_oid", oid.unwrap_or_default(), CRITERION_CHARS_MAX);
    match (draft.match_type, text, oid) {
        (_, None, None) => problems.error(&RuleError::NoCriteria),
        (MatchType::OidPrefix, Some(_), None) => problems.error(&RuleError::PrefixNeedsOid),
        (MatchType::Contains | MatchType::Regex, None, Some(_)) => {
            problems.error(&RuleError::OidNeedsPrefix { match_type: draft.match_type.as_str() });
        }
        (MatchType::Regex, Some(text), _) => problems.check(regex::compile(text)),
        (MatchType::Contains, Some(_), _) | (MatchType::OidPrefix, _, Some(_)) => {}
    }
    if let Some(oid) = oid {
        problems.check(oid_prefix::compile(oid));
    }
    if let Some(code) = draft.syslog_severity {
        problems.check(severity::compile(code));
    }
    problems.label("prod_handling", draft.prod_handling.as_str());
    problems.label("dev_handling", draft.dev_handling.as_str());
    problems.label("team_assignment", &draft.team_assignment);
    if problems.0.is_empty() { Ok(()) } else { Err(problems.0) }
}

/// An empty criterion counts as absent.
pub(crate) fn present(criterion: Option<&str>) -> Option<&str> {
    criterion.filter(|text| !text.is_empty())
}

/// The three handlings that forward an alert.
pub(crate) const FORWARDING: [&str; 3] = ["Page_and_ticket", "Page_only", "Ticket_only"];

/// Whether the text says on purpose that nobody is told.
pub(crate) fn is_known_quiet(handling: &Handling) -> bool {
    const QUIET: [&str; 10] =
        ["ignore", "suppress", "suppressed", "log", "log_only", "audit", "audit_only", "none", "drop", "discard"];
    let text = handling.as_str().trim();
    QUIET.iter().any(|word| word.eq_ignore_ascii_case(text))
}

struct Problems(Vec<FieldProblem>);

impl Problems {
    fn push(&mut self, field: &'static str, message: String) {
        self.0.push(FieldProblem { field, message });
    }

    fn error(&mut self, error: &RuleError) {
        self.push(error.field(), error.to_string());
    }

    fn check<T>(&mut self, result: Result<T, RuleError>) {
        if let Err(error) = result {
            self.error(&error);
        }
    }

    fn text(&mut self, field: &'static str, text: &str, chars_max: usize) {
        let chars = text.chars().count();
        if chars > chars_max {
            self.push(field, format!("it is {chars} characters long; at most {chars_max} are kept"));
        }
        if text.contains('\0') {
            self.push(field, "it contains a NUL character, which no database column can hold".to_owned());
        }
    }

    fn label(&mut self, field: &'static str, text: &str) {
        if text.trim().is_empty() {
            self.push(field, "it must not be empty".to_owned());
        }
        self.text(field, text, LABEL_CHARS_MAX);
    }
}
