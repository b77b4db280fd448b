//! Equality with one syslog severity.

use super::Value;
use crate::RuleError;
use model::Severity;

/// The severity asked for.
#[derive(Debug, Clone, Copy)]
pub struct Op(Severity);

/// Refuses numbers outside 0–7.
pub fn compile(args: u8) -> Result<Op, RuleError> {
    let severity = Severity::from_code(i64::from(args)).ok_or(RuleError::Severity { value: args })?;
    Ok(Op(severity))
}

/// Whether the event has exactly this severity.
pub fn matches(op: &Op, value: &Value<'_>) -> bool {
    match value {
        Value::Severity(severity) => *severity == op.0,
        Value::Absent | Value::Text { .. } | Value::Oid(_) => false,
    }
}

impl Op {
    /// The severity asked for.
    pub const fn severity(self) -> Severity {
        self.0
    }
}
