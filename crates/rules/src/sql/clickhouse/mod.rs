//! How ClickHouse is asked, with its own functions only. An event's fields are a
//! `Map(String, Array(String))`; every value is valid UTF-8.
//!
//! What its functions do otherwise than we mean it, and how it is said instead:
//! * `lowerUTF8`, `ILIKE` and `(?i)` change characters by rules that depend on neighbours or on the
//!   version of Unicode. Here `lower` (ASCII) and `translateUTF8` with the characters that count are used.
//! * `match` reads RE2's syntax, with `.` for line breaks too: see [`re2`].
//! * Its parsers of addresses, numbers and times take more than ours: the grammar is checked first.

mod fold;
mod re2;
mod values;
mod word;

pub(super) use values::NUMBER;

use super::render::Clause;
use super::walk::{Case, Engine, Source, sorted};
use super::{Dialect, SqlError};
use crate::ir::{Field, MESSAGE_FIELD, Relation, TRAP_OID_FIELD};
use crate::operators::text::{self, Part, Shape};
use crate::operators::{Operator, contains, oid_prefix, pattern, regex};
use std::fmt::Write;

/// Longest pattern with wildcards in the middle, in bytes; RE2 refuses much longer ones.
const WILD_MAX: usize = 20_000;

/// Most texts of one `multiSearchAny`; ClickHouse takes 255.
const NEEDLES_MAX: usize = 200;

pub(super) struct ClickHouse;

fn unsupported(what: impl Into<String>) -> SqlError {
    SqlError::Unsupported { dialect: Dialect::ClickHouse, what: what.into() }
}

/// A text as a quoted literal.
pub(super) fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('\'');
    for c in text.chars() {
        match c {
            '\'' => out.push_str("\\'"),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_ascii_control() => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\x{:02X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('\'');
    out
}

pub(super) fn values_of(name: &str) -> String {
    format!("fields[{}]", literal(name))
}

/// Nothing that is known about this part of the log source speaks against `wanted`.
pub(super) fn from_source(part: &str, wanted: &str) -> Clause {
    let same = Clause::text(format!("lower(v) = {}", literal(wanted)));
    Clause::Any(vec![
        Clause::text(format!("NOT mapContains(source, '{part}')")),
        some(&format!("source['{part}']"), same),
    ])
}

/// A condition on `v` holds for some value.
fn some(values: &str, test: Clause) -> Clause {
    Clause::within("arrayExists(v -> ", test, format!(", {values})"))
}

impl Engine for ClickHouse {
    fn some_value(&self, source: Source<'_>, operators: &[&Operator]) -> Result<Clause, SqlError> {
        match source {
            Source::AnyField => Ok(some("arrayFlatten(mapValues(fields))", value_tests(operators, false)?)),
            Source::Field(Field::Named(name)) => Ok(some(&values_of(name), value_tests(operators, false)?)),
            Source::Field(Field::Message) => {
                let test = Clause::All(vec![Clause::text("v != ''"), value_tests(operators, true)?]);
                Ok(some(&values_of(MESSAGE_FIELD), test))
            }
            Source::Field(Field::TrapOid) => Ok(some(&values_of(TRAP_OID_FIELD), value_tests(operators, false)?)),
            Source::Field(Field::Severity) => Ok(values::severity_is(operators)),
        }
    }

    fn present(&self, field: &Field) -> Clause {
        let not_empty = |name| some(&values_of(name), Clause::text("v != ''"));
        match field {
            Field::Named(name) => not_empty(name),
            Field::Message => not_empty(MESSAGE_FIELD),
            Field::TrapOid => not_empty(TRAP_OID_FIELD),
            Field::Severity => values::severity_known(),
        }
    }

    fn exists(&self, name: &str) -> Clause {
        Clause::text(format!("mapContains(fields, {})", literal(name)))
    }

    fn has_value(&self, name: &str) -> Clause {
        Clause::text(format!("notEmpty({})", values_of(name)))
    }

    fn related(&self, field: &str, relation: Relation, other: &str, cased: bool) -> Result<Clause, SqlError> {
        let side = |v: &str| if cased { v.to_owned() } else { fold::any_text(v) };
        let (left, right) = (side("l"), side("r"));
        let test = match relation {
            Relation::Equals => format!("{left} = {right}"),
            Relation::StartsWith => format!("startsWith({left}, {right})"),
            Relation::EndsWith => format!("endsWith({left}, {right})"),
            Relation::Contains => format!("position({left}, {right}) > 0"),
        };
        let inner = Clause::within("arrayExists(r -> ", Clause::text(test), format!(", {})", values_of(other)));
        Ok(Clause::within("arrayExists(l -> ", inner, format!(", {})", values_of(field))))
    }
}

/// `v` satisfies one of the operators; `message`: it is one, which MUTT's substrings see in lower case.
fn value_tests(operators: &[&Operator], message: bool) -> Result<Clause, SqlError> {
    let sorted = sorted(operators);
    let mut tests = Vec::new();
    for (case, texts) in &sorted.equal {
        let v = fold::to_compare(*case, texts);
        let texts: Vec<String> = texts.iter().map(|text| literal(text)).collect();
        tests.push(Clause::text(match &*texts {
            [one] => format!("{v} = {one}"),
            several => format!("has([{}], {v})", several.join(", ")),
        }));
    }
    for (case, texts) in &sorted.contained {
        for texts in texts.chunks(NEEDLES_MAX) {
            let v = fold::to_compare(*case, texts);
            let quoted: Vec<String> = texts.iter().map(|text| literal(text)).collect();
            tests.push(Clause::text(match &*quoted {
                [one] => format!("position({v}, {one}) > 0"),
                several => format!("multiSearchAny({v}, [{}])", several.join(", ")),
            }));
        }
    }
    for operator in sorted.others {
        tests.push(value_test(operator, message)?);
    }
    Ok(Clause::Any(tests))
}

fn value_test(operator: &Operator, message: bool) -> Result<Clause, SqlError> {
    match operator {
        Operator::Contains(op) => contains_test(op, message),
        Operator::Regex(op) => python_regex(op),
        Operator::OidPrefix(op) => Ok(oid(op)),
        // The severity is no value of this kind, which `walk` knows.
        Operator::Severity(_) => Ok(Clause::never()),
        Operator::Text(op) => text_test(op),
        Operator::Pattern(op) => pattern_test(op),
        Operator::Cidr(op) => Ok(values::cidr(op)),
        Operator::Compare(op) => Ok(values::compare(op)),
        Operator::Clock(op) => Ok(values::clock(op)),
    }
}

fn contains_test(op: &contains::Op, message: bool) -> Result<Clause, SqlError> {
    let v = if message { fold::lower_for(op.lower())? } else { "v".to_owned() };
    Ok(Clause::text(format!("position({v}, {}) > 0", literal(op.lower()))))
}

fn text_test(op: &text::Op) -> Result<Clause, SqlError> {
    let parts = op.compared();
    let literals: Vec<&str> = parts
        .iter()
        .filter_map(|part| match part {
            Part::Literal(text) => Some(&**text),
            Part::One | Part::Many => None,
        })
        .collect();
    let v = fold::to_compare(Case::of(op), &literals);
    Ok(Clause::text(match op.shape() {
        Shape::Everything => "1".to_owned(),
        // These were put together with their like, by `sorted`.
        Shape::Equals(_) | Shape::Contains(_) => "0".to_owned(),
        Shape::StartsWith(text) => format!("startsWith({v}, {})", literal(text)),
        Shape::EndsWith(text) => format!("endsWith({v}, {})", literal(text)),
        Shape::Wild(parts) => {
            let pattern = like_pattern(parts);
            if pattern.len() > WILD_MAX {
                return Err(unsupported(format!("a pattern with wildcards inside of more than {WILD_MAX} bytes")));
            }
            format!("{v} LIKE {}", literal(&pattern))
        }
    }))
}

fn like_pattern(parts: &[Part]) -> String {
    let mut pattern = String::new();
    for part in parts {
        match part {
            Part::Literal(text) => {
                for c in text.chars() {
                    if matches!(c, '%' | '_' | '\\') {
                        pattern.push('\\');
                    }
                    pattern.push(c);
                }
            }
            Part::One => pattern.push('_'),
            Part::Many => pattern.push('%'),
        }
    }
    pattern
}

fn pattern_test(op: &pattern::Op) -> Result<Clause, SqlError> {
    let flags = op.flags();
    let parsed = regex_syntax::ParserBuilder::new()
        .case_insensitive(flags.ignore_case)
        .multi_line(flags.multi_line)
        .dot_matches_new_line(flags.dot_all)
        .build()
        .parse(op.engine_pattern());
    Ok(Clause::text(format!("match(v, {})", literal(&translated(parsed)?))))
}

/// Python's `$` also matches before a final line break.
fn python_regex(op: &regex::Op) -> Result<Clause, SqlError> {
    let parsed = regex_syntax::ParserBuilder::new().case_insensitive(true).build().parse(op.engine_pattern());
    let pattern = literal(&translated(parsed)?);
    let whole = Clause::text(format!("match(v, {pattern})"));
    if !op.end_anchored() {
        return Ok(whole);
    }
    let body = Clause::All(vec![
        Clause::text("endsWith(v, '\\n')"),
        Clause::text(format!("match(substring(v, 1, length(v) - 1), {pattern})")),
    ]);
    Ok(Clause::Any(vec![whole, body]))
}

fn translated(parsed: Result<regex_syntax::hir::Hir, regex_syntax::Error>) -> Result<String, SqlError> {
    // It was read before, when the rule was compiled.
    let hir = parsed.map_err(|_| unsupported("a regular expression that cannot be read again"))?;
    re2::pattern(&hir).map_err(unsupported)
}

fn oid(op: &oid_prefix::Op) -> Clause {
    let oid = op.oid();
    Clause::Any(vec![
        Clause::text(format!("has(['{oid}', '.{oid}'], v)")),
        Clause::text(format!("startsWith(v, '{oid}.')")),
        Clause::text(format!("startsWith(v, '.{oid}.')")),
    ])
}
