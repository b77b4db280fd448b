//! Case-insensitive regular expression search in linear time.
//!
//! The engine has no look-around and no backreferences, so the time is bounded by pattern size ×
//! text size for every text that an attacker can send. Patterns are Python's (contract mutt §3.4):
//! what the engine writes otherwise is rewritten, and `$` also matches before a final line break.

use super::Value;
use super::python;
use crate::{RuleError, literals};
use regex_syntax::hir::Look;

/// Largest compiled form of one pattern, in bytes.
pub const REGEX_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting of groups in one pattern.
pub const REGEX_DEPTH_MAX: u32 = 64;

/// A compiled pattern and what is known about its matches.
#[derive(Debug, Clone)]
pub struct Op {
    written: Box<str>,
    regex: regex::Regex,
    required: Vec<Vec<String>>,
    end_anchored: bool,
    matches_everything: bool,
}

/// Refuses what is not a pattern, what would not be linear, and what would be too large.
pub fn compile(args: &str) -> Result<Op, RuleError> {
    if args.is_empty() {
        return Err(RuleError::EmptyNeedle);
    }
    let translated = python::translate(args);
    let hir = regex_syntax::ParserBuilder::new()
        .case_insensitive(true)
        .nest_limit(REGEX_DEPTH_MAX)
        .build()
        .parse(&translated.pattern)
        .map_err(|source| problem(args, |offset| translated.origin(offset), source))?;
    let regex = regex::RegexBuilder::new(&translated.pattern)
        .case_insensitive(true)
        .size_limit(REGEX_BYTES_MAX)
        .dfa_size_limit(REGEX_BYTES_MAX)
        .nest_limit(REGEX_DEPTH_MAX)
        .build()
        .map_err(|source| match source {
            regex::Error::CompiledTooBig(limit) => RuleError::RegexTooBig { limit },
            other => RuleError::Regex { source: Box::new(other) },
        })?;
    let properties = hir.properties();
    Ok(Op {
        written: args.into(),
        regex,
        required: literals::required(&hir),
        end_anchored: translated.dollar && properties.look_set().contains(Look::End),
        matches_everything: properties.minimum_len() == Some(0) && properties.look_set().is_empty(),
    })
}

/// Whether the pattern is found anywhere in the text.
pub fn matches(op: &Op, value: &Value<'_>) -> bool {
    match value {
        Value::Text { raw, .. } => {
            op.regex.is_match(raw)
                || (op.end_anchored && raw.strip_suffix('\n').is_some_and(|body| op.regex.is_match(body)))
        }
        Value::Absent | Value::Oid(_) | Value::Severity(_) => false,
    }
}

impl Op {
    /// As the author wrote it.
    pub fn pattern(&self) -> &str {
        &self.written
    }

    /// As the engine reads it.
    pub(crate) fn engine_pattern(&self) -> &str {
        self.regex.as_str()
    }

    /// Whether the pattern is also looked for in a text without its final line break.
    pub(crate) fn end_anchored(&self) -> bool {
        self.end_anchored
    }

    /// Groups of lower-case literals: every match contains at least one of each group. Without a
    /// group the pattern has to be run on every message.
    pub fn required_literals(&self) -> &[Vec<String>] {
        &self.required
    }

    /// Whether it is found in every message, as `.*` is.
    pub fn matches_everything(&self) -> bool {
        self.matches_everything
    }
}

/// What is wrong with a pattern that was read as it is written.
pub(super) fn syntax_problem(written: &str, source: regex_syntax::Error) -> RuleError {
    problem(written, |offset| offset, source)
}

/// What is wrong with `written`; `origin` tells where in it a place of the source's pattern was.
fn problem(written: &str, origin: impl Fn(usize) -> usize, source: regex_syntax::Error) -> RuleError {
    use regex_syntax::ast::ErrorKind;
    let (span, kind) = match &source {
        regex_syntax::Error::Parse(error) => (error.span(), error.kind().to_string()),
        regex_syntax::Error::Translate(error) => (error.span(), error.kind().to_string()),
        other => {
            return RuleError::RegexSyntax { at: 1, problem: other.to_string(), hint: "", source: Box::new(source) };
        }
    };
    let from = origin(span.start.offset).min(written.len());
    let at = written.char_indices().take_while(|(byte, _)| *byte < from).count() + 1;
    if let regex_syntax::Error::Parse(error) = &source {
        match error.kind() {
            ErrorKind::UnsupportedLookAround => return RuleError::LookAround { at },
            ErrorKind::UnsupportedBackreference => return RuleError::Backreference { at },
            ErrorKind::NestLimitExceeded(limit) => return RuleError::RegexTooDeep { limit: *limit },
            _ => {}
        }
    }
    let rest = written.get(from.saturating_sub(3)..).unwrap_or(written);
    if rest.contains("(?P=") {
        return RuleError::Backreference { at };
    }
    let hint = if rest.contains("(?>") || rest.contains("(?(") {
        "; atomic and conditional groups do not exist here, because matching time must be linear"
    } else {
        ""
    };
    RuleError::RegexSyntax { at, problem: kind, hint, source: Box::new(source) }
}
