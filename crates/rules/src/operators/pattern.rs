//! Sigma's `re`: a regular expression found anywhere in the value, case as written unless the rule
//! says `|i` (Sigma specification, "Regular expression").
//!
//! The dialect is what PCRE, RE2 and this engine have in common: linear time, no look-around, no
//! backreferences; `\d`, `\w`, `\s` and `\b` mean ASCII, as they do in PCRE and RE2 by default.

use super::Value;
use super::regex::{REGEX_BYTES_MAX, REGEX_DEPTH_MAX};
use crate::{RuleError, literals};
use regex_syntax::ast::{self, Ast, ClassPerlKind, ClassSetItem, Span};
use std::sync::OnceLock;

/// Flags of a pattern.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Flags {
    /// `i`: any case.
    pub ignore_case: bool,
    /// `m`: `^` and `$` also match at line breaks.
    pub multi_line: bool,
    /// `s`: `.` also matches a line break.
    pub dot_all: bool,
}

impl Flags {
    /// As an inline group in front of a pattern, for engines that read it so; empty = none.
    pub fn inline(self) -> String {
        let set = [(self.ignore_case, 'i'), (self.multi_line, 'm'), (self.dot_all, 's')];
        let letters: String = set.into_iter().filter(|(on, _)| *on).map(|(_, letter)| letter).collect();
        if letters.is_empty() { letters } else { format!("(?{letters})") }
    }
}

/// A compiled pattern.
#[derive(Debug, Clone)]
pub struct Op {
    written: Box<str>,
    /// As this engine reads it: classes spelt out.
    engine: Box<str>,
    flags: Flags,
    /// Built when it is first asked: it is large, and most patterns of a large set never are.
    regex: OnceLock<Option<regex::Regex>>,
    required: Vec<Vec<String>>,
}

/// Refuses what is not a pattern, what would not be linear, and what would be too large.
pub fn compile(written: &str, flags: Flags) -> Result<Op, RuleError> {
    if written.is_empty() {
        return Err(RuleError::EmptyNeedle);
    }
    let mut parser = ast::parse::ParserBuilder::new().nest_limit(REGEX_DEPTH_MAX).build();
    let tree = parser.parse(written).map_err(|source| super::regex::syntax_problem(written, source.into()))?;
    let pattern = in_ascii(written, &tree);
    let hir = regex_syntax::ParserBuilder::new()
        .case_insensitive(flags.ignore_case)
        .multi_line(flags.multi_line)
        .dot_matches_new_line(flags.dot_all)
        .nest_limit(REGEX_DEPTH_MAX)
        .build()
        .parse(&pattern)
        .map_err(|source| super::regex::syntax_problem(written, source))?;
    // Whether it can be built is known now, so that matching cannot fail.
    build(&pattern, flags).map_err(|source| match source {
        regex::Error::CompiledTooBig(limit) => RuleError::RegexTooBig { limit },
        other => RuleError::Regex { source: Box::new(other) },
    })?;
    let required = literals::required(&hir);
    Ok(Op { written: written.into(), engine: pattern.into(), flags, regex: OnceLock::new(), required })
}

fn build(pattern: &str, flags: Flags) -> Result<regex::Regex, regex::Error> {
    regex::RegexBuilder::new(pattern)
        .case_insensitive(flags.ignore_case)
        .multi_line(flags.multi_line)
        .dot_matches_new_line(flags.dot_all)
        .size_limit(REGEX_BYTES_MAX)
        .dfa_size_limit(REGEX_BYTES_MAX)
        .nest_limit(REGEX_DEPTH_MAX)
        .build()
}

/// Whether the pattern is found in the value.
pub fn matches(op: &Op, value: &Value<'_>) -> bool {
    match value {
        Value::Text { raw, .. } => op.is_match(raw),
        Value::Absent | Value::Oid(_) | Value::Severity(_) => false,
    }
}

impl Op {
    /// As the author wrote it.
    pub fn pattern(&self) -> &str {
        &self.written
    }

    /// As this engine reads it: classes spelt out.
    pub fn engine_pattern(&self) -> &str {
        &self.engine
    }

    /// Its flags.
    pub fn flags(&self) -> Flags {
        self.flags
    }

    /// Whether it is found in the text.
    pub fn is_match(&self, text: &str) -> bool {
        let regex = self.regex.get_or_init(|| build(&self.engine, self.flags).ok());
        regex.as_ref().is_some_and(|regex| regex.is_match(text))
    }

    /// Groups of lower-case ASCII literals: the folded form of every match contains at least one of
    /// each group.
    pub fn required_literals(&self) -> &[Vec<String>] {
        &self.required
    }

    /// In words, to stand after the field's name.
    pub fn describe(&self) -> String {
        format!("matches the regular expression /{}{}/", self.flags.inline(), self.written)
    }
}

/// The pattern with `\d`, `\w`, `\s` and `\b` narrowed to ASCII.
fn in_ascii(written: &str, tree: &Ast) -> String {
    let mut edits: Vec<(Span, String)> = Vec::new();
    collect(tree, &mut edits);
    edits.sort_by_key(|(span, _)| span.start.offset);
    let mut out = String::with_capacity(written.len() + 16);
    let mut at = 0;
    for (span, text) in edits {
        out.push_str(&written[at..span.start.offset]);
        out.push_str(&text);
        at = span.end.offset;
    }
    out.push_str(&written[at..]);
    out
}

fn collect(tree: &Ast, edits: &mut Vec<(Span, String)>) {
    match tree {
        Ast::ClassPerl(class) => edits.push((class.span, spelt_out(class))),
        Ast::ClassBracketed(class) => in_set(&class.kind, edits),
        Ast::Assertion(assertion) if assertion.kind == ast::AssertionKind::WordBoundary => {
            edits.push((assertion.span, r"(?-u:\b)".to_owned()));
        }
        Ast::Repetition(repetition) => collect(&repetition.ast, edits),
        Ast::Group(group) => collect(&group.ast, edits),
        Ast::Alternation(parts) => parts.asts.iter().for_each(|part| collect(part, edits)),
        Ast::Concat(parts) => parts.asts.iter().for_each(|part| collect(part, edits)),
        Ast::Empty(_) | Ast::Flags(_) | Ast::Literal(_) | Ast::Dot(_) | Ast::Assertion(_) | Ast::ClassUnicode(_) => {}
    }
}

fn in_set(set: &ast::ClassSet, edits: &mut Vec<(Span, String)>) {
    match set {
        ast::ClassSet::Item(item) => in_item(item, edits),
        ast::ClassSet::BinaryOp(op) => {
            in_set(&op.lhs, edits);
            in_set(&op.rhs, edits);
        }
    }
}

fn in_item(item: &ClassSetItem, edits: &mut Vec<(Span, String)>) {
    match item {
        ClassSetItem::Perl(class) => edits.push((class.span, spelt_out(class))),
        ClassSetItem::Bracketed(class) => in_set(&class.kind, edits),
        ClassSetItem::Union(union) => union.items.iter().for_each(|item| in_item(item, edits)),
        ClassSetItem::Empty(_)
        | ClassSetItem::Literal(_)
        | ClassSetItem::Range(_)
        | ClassSetItem::Ascii(_)
        | ClassSetItem::Unicode(_) => {}
    }
}

fn spelt_out(class: &ast::ClassPerl) -> String {
    let members = match class.kind {
        ClassPerlKind::Digit => "0-9",
        // As in RE2: without the vertical tab.
        ClassPerlKind::Space => r"\t\n\f\r ",
        ClassPerlKind::Word => "0-9A-Za-z_",
    };
    format!("[{}{members}]", if class.negated { "^" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_ascii_wherever_they_stand() {
        for (pattern, text, expected) in [
            (r"^\d+$", "12", true),
            (r"^\d+$", "١٢", false),
            (r"^[\w.]+$", "a_1.b", true),
            (r"^\w+$", "é", false),
            (r"^\W$", "é", true),
            (r"^[^\s]+$", "a\u{a0}b", true),
            (r"a\b", "aé", true),
            (r"a.c", "aéc", true),
            ("A", "a", false),
        ] {
            let op = compile(pattern, Flags::default()).expect(pattern);
            assert_eq!(op.is_match(text), expected, "{pattern} ~ {text}");
        }
    }

    #[test]
    fn flags_change_what_a_pattern_means() {
        let flagged = |ignore_case, multi_line, dot_all| Flags { ignore_case, multi_line, dot_all };
        for (pattern, flags, text) in [
            ("ABC", flagged(true, false, false), "xabc"),
            ("^b", flagged(false, true, false), "a\nb"),
            ("a.b", flagged(false, false, true), "a\nb"),
        ] {
            assert!(compile(pattern, flags).expect(pattern).is_match(text), "{pattern}");
            assert!(!compile(pattern, Flags::default()).expect(pattern).is_match(text), "{pattern}");
        }
        assert_eq!(flagged(true, false, true).inline(), "(?is)");
    }

    #[test]
    fn what_would_not_be_linear_is_refused() {
        for (pattern, said) in
            [("(?=a)b", "look-around"), (r"(a)\1", "backreference"), ("a{1000}{1000}", "too large"), ("(", "unclosed")]
        {
            let error = compile(pattern, Flags::default()).expect_err(pattern).to_string();
            assert!(error.contains(said), "{pattern}: {error}");
        }
    }
}
