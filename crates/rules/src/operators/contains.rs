//! Case-insensitive substring: both sides in lower case, as Python's `str.lower()` makes it
//! (full Unicode mapping, final sigma included, no normalisation).

use super::Value;
use crate::RuleError;

/// A needle, ready to be looked for.
#[derive(Debug, Clone)]
pub struct Op {
    needle: String,
    lower: String,
}

/// Refuses an empty needle: the contract calls it absent.
pub fn compile(args: &str) -> Result<Op, RuleError> {
    if args.is_empty() {
        return Err(RuleError::EmptyNeedle);
    }
    Ok(Op { needle: args.to_owned(), lower: args.to_lowercase() })
}

/// Whether the text contains the needle.
pub fn matches(op: &Op, value: &Value<'_>) -> bool {
    match value {
        Value::Text { lower, .. } => lower.contains(&*op.lower),
        Value::Absent | Value::Oid(_) | Value::Severity(_) => false,
    }
}

impl Op {
    /// As the author wrote it.
    pub fn needle(&self) -> &str {
        &self.needle
    }

    /// In lower case.
    pub fn lower(&self) -> &str {
        &self.lower
    }
}
