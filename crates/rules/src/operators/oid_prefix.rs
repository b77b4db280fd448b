//! An OID and everything below it, by whole components: `1.3.6.1.4.1.9` covers `1.3.6.1.4.1.9.1`
//! and not `1.3.6.1.4.1.99`. A leading dot is ignored on both sides, a trailing `.` or `.*` on the
//! rule's.

use super::Value;
use crate::RuleError;

/// An OID without leading and trailing dots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op(String);

/// Refuses everything that is not numbers with dots between them.
pub fn compile(args: &str) -> Result<Op, RuleError> {
    let bad = |problem| Err(RuleError::Oid { oid: args.to_owned(), problem });
    let oid = strip_leading_dot(args);
    let oid = oid.strip_suffix(".*").or_else(|| oid.strip_suffix('.')).unwrap_or(oid);
    if oid.is_empty() {
        return bad("it has no number");
    }
    for component in oid.split('.') {
        if component.is_empty() {
            return bad("two dots follow each other");
        }
        if !component.bytes().all(|b| b.is_ascii_digit()) {
            return bad(
                "only numbers and dots are allowed (a name such as `IF-MIB::linkDown` has to be translated first)",
            );
        }
    }
    Ok(Op(oid.to_owned()))
}

/// Whether the event's OID is the rule's or lies below it.
pub fn matches(op: &Op, value: &Value<'_>) -> bool {
    match value {
        Value::Oid(oid) => covers(&op.0, strip_leading_dot(oid)),
        Value::Absent | Value::Text { .. } | Value::Severity(_) => false,
    }
}

impl Op {
    /// The OID in its plain form.
    pub fn oid(&self) -> &str {
        &self.0
    }
}

pub(crate) fn covers(prefix: &str, oid: &str) -> bool {
    oid.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

pub(crate) fn strip_leading_dot(oid: &str) -> &str {
    oid.strip_prefix('.').unwrap_or(oid)
}
