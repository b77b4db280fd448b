//! How SQLite is asked. Its JSON functions walk the object in `fields`; what it cannot say exactly
//! itself (Unicode's case, regular expressions, addresses, numbers, times) are the functions of
//! [`functions`](super::functions).
//!
//! Of SQLite's own, these traps are walked around, since an attacker chooses the values:
//! * `LIKE`, `GLOB`, `length` and `substr` of texts stop at a NUL character. `instr`, `lower`, `=` and
//!   everything on BLOBs do not. A pattern that ends with its only `%` cannot be cheated so.
//! * `LIKE` and `lower` know the case of ASCII only. That is what patterns of ASCII mean here, too.
//! * `LIKE` and `GLOB` refuse patterns of more than 50,000 bytes.
//! * `CAST(… AS REAL)` reads numbers out of texts that are none, and not to the last bit.

use super::SqlError;
use super::functions::{CHOMP, CIDR, FITS, FITS_CASED, FOLD, LOWER, NUMBER, SEVERITY, TIME_PART};
use super::render::Clause;
use super::walk::{Case, Engine, Source, sorted};
use crate::ir::{Field, MESSAGE_FIELD, Relation, SEVERITY_FIELDS, TRAP_OID_FIELD};
use crate::operators::text::{self, Part, Shape};
use crate::operators::{Operator, compare, oid_prefix, regex};
use std::fmt::Write;

/// Longest pattern that is given to `LIKE` and `GLOB`, in bytes.
const PATTERN_MAX: usize = 40_000;

/// Most pieces that a literal is put together from.
const CHAIN_MAX: usize = 20;

pub(super) struct Sqlite;

/// A text as an expression. Control characters are written by their numbers: a NUL would end the
/// statement, and a line break would leave the line.
pub(super) fn literal(text: &str) -> String {
    let mut out = String::new();
    let mut parts = 0;
    for part in text.split_inclusive(|c: char| c.is_ascii_control()) {
        let plain = part.trim_end_matches(|c: char| c.is_ascii_control());
        if !plain.is_empty() {
            let _ = write!(out, "{}'{}'", if parts > 0 { " || " } else { "" }, plain.replace('\'', "''"));
            parts += 1;
        }
        if let Some(control) = part[plain.len()..].chars().next() {
            let _ = write!(out, "{}char({})", if parts > 0 { " || " } else { "" }, u32::from(control));
            parts += 1;
        }
    }
    match parts {
        0 => "''".to_owned(),
        1 => out,
        // Every link of a chain is a level of nesting, of which SQLite takes 1,000.
        CHAIN_MAX.. => {
            let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
            format!("CAST(x'{hex}' AS TEXT)")
        }
        _ => format!("({out})"),
    }
}

impl Engine for Sqlite {
    fn some_value(&self, source: Source<'_>, operators: &[&Operator]) -> Result<Clause, SqlError> {
        match source {
            Source::AnyField => {
                let tests = value_tests(operators, "atom", false);
                Ok(Clause::within("EXISTS (SELECT 1 FROM json_tree(fields) WHERE ", tests, ")"))
            }
            Source::Field(Field::Named(name)) => Ok(of_field(name, value_tests(operators, "value", false))),
            Source::Field(Field::Message) => {
                let tests = value_tests(operators, "value", true);
                Ok(of_field(MESSAGE_FIELD, Clause::All(vec![Clause::text("value <> ''"), tests])))
            }
            Source::Field(Field::TrapOid) => Ok(of_field(TRAP_OID_FIELD, value_tests(operators, "value", false))),
            Source::Field(Field::Severity) => Ok(severity_is(operators)),
        }
    }

    fn present(&self, field: &Field) -> Clause {
        let not_empty = |name| of_field(name, Clause::text("value <> ''"));
        match field {
            Field::Named(name) => not_empty(name),
            Field::Message => not_empty(MESSAGE_FIELD),
            Field::TrapOid => not_empty(TRAP_OID_FIELD),
            Field::Severity => Clause::text(format!("{} IS NOT NULL", severity())),
        }
    }

    fn exists(&self, name: &str) -> Clause {
        match path(name) {
            Some(path) => Clause::text(format!("json_type(fields, {path}) IS NOT NULL")),
            None => {
                let key = format!("key = {}", literal(name));
                Clause::within("EXISTS (SELECT 1 FROM json_each(fields) WHERE ", Clause::text(key), ")")
            }
        }
    }

    fn has_value(&self, name: &str) -> Clause {
        of_field(name, Clause::text("value IS NOT NULL"))
    }

    fn related(&self, field: &str, relation: Relation, other: &str, cased: bool) -> Result<Clause, SqlError> {
        let side = |value: &str| if cased { value.to_owned() } else { format!("{FOLD}({value})") };
        let (left, right) = (side("l.value"), side("r.value"));
        let bytes = |value: &str| format!("CAST({value} AS BLOB)");
        let (left_bytes, right_bytes) = (bytes(&left), bytes(&right));
        let holds = match relation {
            Relation::Equals => Clause::text(format!("{left} = {right}")),
            Relation::Contains => Clause::text(format!("instr({left}, {right}) > 0")),
            // The bytes of an empty text are NULL to `substr`.
            Relation::StartsWith => Clause::Any(vec![
                Clause::text("r.value = ''"),
                Clause::text(format!("substr({left_bytes}, 1, length({right_bytes})) = {right_bytes}")),
            ]),
            Relation::EndsWith => Clause::Any(vec![
                Clause::text("r.value = ''"),
                Clause::text(format!("substr({left_bytes}, -length({right_bytes})) = {right_bytes}")),
            ]),
        };
        let values = ["l.value IS NOT NULL", "r.value IS NOT NULL"].map(Clause::text);
        let mut tests = values.to_vec();
        tests.push(holds);
        let open = format!("EXISTS (SELECT 1 FROM {}, {} WHERE ", rows(field, "l"), rows(other, "r"));
        Ok(Clause::within(open, Clause::All(tests), ")"))
    }
}

/// Nothing that is known about this part of the log source speaks against `wanted`.
pub(super) fn from_source(part: &str, wanted: &str) -> Clause {
    let known = format!("EXISTS (SELECT 1 FROM json_each(source, '$.{part}') WHERE ");
    Clause::Any(vec![
        Clause::text(format!("json_type(source, '$.{part}') IS NULL")),
        Clause::within(known, Clause::text(format!("lower(value) = {}", literal(wanted))), ")"),
    ])
}

/// The place of a field in the object, where a path can name it for sure.
fn path(name: &str) -> Option<String> {
    let plain = !name.is_empty() && !name.chars().any(|c| c.is_control() || matches!(c, '"' | '\\'));
    plain.then(|| literal(&format!("$.\"{name}\"")))
}

/// The first value of a field, or NULL.
pub(super) fn first_value(name: &str) -> String {
    match path(name) {
        Some(path) => format!("(SELECT value FROM json_each(fields, {path}) WHERE value IS NOT NULL LIMIT 1)"),
        None => format!("(SELECT value FROM {} WHERE value IS NOT NULL LIMIT 1)", rows(name, "v")),
    }
}

/// A table whose column `value` has the field's values, and NULL for a field without one.
fn rows(name: &str, alias: &str) -> String {
    match path(name) {
        Some(path) => format!("json_each(fields, {path}) AS {alias}"),
        None => format!(
            "(SELECT v.value FROM json_each(fields) AS f, \
             json_each(iif(f.type = 'array', f.value, json_array(f.value))) AS v WHERE f.key = {}) AS {alias}",
            literal(name)
        ),
    }
}

/// One of the field's values satisfies the tests, which call it `value` and do not hold for NULL.
fn of_field(name: &str, tests: Clause) -> Clause {
    let rows = match path(name) {
        Some(path) => format!("json_each(fields, {path})"),
        None => rows(name, "v"),
    };
    Clause::within(format!("EXISTS (SELECT 1 FROM {rows} WHERE "), tests, ")")
}

/// `v` satisfies one of the operators; `message`: it is one, which MUTT's substrings see in lower case.
fn value_tests(operators: &[&Operator], v: &str, message: bool) -> Clause {
    let sorted = sorted(operators);
    let mut tests: Vec<Clause> = Vec::new();
    for (case, texts) in &sorted.equal {
        let texts: Vec<String> = texts.iter().map(|text| literal(text)).collect();
        let v = cased(*case, v);
        tests.push(Clause::text(match &*texts {
            [one] => format!("{v} = {one}"),
            several => format!("{v} IN ({})", several.join(", ")),
        }));
    }
    for (case, texts) in &sorted.contained {
        let v = cased(*case, v);
        tests.extend(texts.iter().map(|text| Clause::text(format!("instr({v}, {}) > 0", literal(text)))));
    }
    tests.extend(sorted.others.iter().map(|operator| value_test(operator, v, message)));
    Clause::Any(tests)
}

fn value_test(operator: &Operator, v: &str, message: bool) -> Clause {
    match operator {
        Operator::Contains(op) if message => Clause::text(format!("instr({LOWER}({v}), {}) > 0", literal(op.lower()))),
        Operator::Contains(op) => Clause::text(format!("instr({v}, {}) > 0", literal(op.lower()))),
        Operator::Regex(op) => python_regex(op, v),
        Operator::OidPrefix(op) => oid(op, v),
        // The severity is no value of this kind, which `walk` knows.
        Operator::Severity(_) => Clause::never(),
        Operator::Text(op) => text_test(op, v),
        Operator::Pattern(op) => {
            let pattern = format!("{}{}", op.flags().inline(), op.engine_pattern());
            Clause::text(format!("{v} REGEXP {}", literal(&pattern)))
        }
        Operator::Cidr(op) => {
            Clause::text(format!("{CIDR}({v}, {})", literal(&format!("{}/{}", op.network(), op.prefix()))))
        }
        Operator::Compare(op) => compare_test(op, v),
        Operator::Clock(op) => Clause::text(format!(
            "{TIME_PART}({v}, {}) {} {}",
            literal(op.part().as_str()),
            op.order().sign(),
            op.number()
        )),
    }
}

fn text_test(op: &text::Op, v: &str) -> Clause {
    let case = Case::of(op);
    let folded = cased(case, v);
    let at_end = |text: &str| format!("substr(CAST({folded} AS BLOB), -{})", text.len());
    Clause::text(match op.shape() {
        Shape::Everything => format!("{v} IS NOT NULL"),
        // These were put together with their like, by `sorted`.
        Shape::Equals(_) | Shape::Contains(_) => "0".to_owned(),
        // Bytes that were cut out of a character are no ASCII, and `lower` keeps them.
        Shape::EndsWith(text) if case == Case::Ascii => {
            format!("lower(substr(CAST({v} AS BLOB), -{})) = {}", text.len(), literal(text))
        }
        Shape::EndsWith(text) => format!("{} = CAST({} AS BLOB)", at_end(text), literal(text)),
        Shape::StartsWith(text) if text.len() > PATTERN_MAX || text.contains('\0') => fits(op, v),
        Shape::StartsWith(_) => like(op, v),
        Shape::Wild(parts) if length(parts) > PATTERN_MAX || has_nul(parts) || case == Case::Folded => fits(op, v),
        Shape::Wild(_) => format!("iif(instr({v}, char(0)), {}, {})", fits(op, v), like(op, v)),
    })
}

fn cased(case: Case, v: &str) -> String {
    match case {
        Case::AsIs => v.to_owned(),
        Case::Ascii => format!("lower({v})"),
        Case::Folded => format!("{FOLD}({v})"),
    }
}

/// The pattern as our own matcher reads it.
fn fits(op: &text::Op, v: &str) -> String {
    let function = if op.cased() { FITS_CASED } else { FITS };
    format!("{function}({v}, {})", literal(&text::written(op.compared())))
}

fn length(parts: &[Part]) -> usize {
    let length = |part: &Part| match part {
        Part::Literal(text) => text.len(),
        Part::One | Part::Many => 1,
    };
    parts.iter().map(length).sum()
}

fn has_nul(parts: &[Part]) -> bool {
    parts.iter().any(|part| matches!(part, Part::Literal(text) if text.contains('\0')))
}

/// The pattern for `LIKE` where case does not count, else for `GLOB`.
fn like(op: &text::Op, v: &str) -> String {
    let parts = op.compared();
    match Case::of(op) {
        Case::AsIs => format!("{v} GLOB {}", glob_pattern(parts)),
        Case::Folded => format!("{FOLD}({v}) GLOB {}", glob_pattern(parts)),
        Case::Ascii => {
            let special = parts.iter().any(|part| matches!(part, Part::Literal(text) if text.contains(['%', '_'])));
            let mut pattern = String::new();
            for part in parts {
                match part {
                    Part::Literal(text) if special => {
                        for c in text.chars() {
                            if matches!(c, '%' | '_' | '\\') {
                                pattern.push('\\');
                            }
                            pattern.push(c);
                        }
                    }
                    Part::Literal(text) => pattern.push_str(text),
                    Part::One => pattern.push('_'),
                    Part::Many => pattern.push('%'),
                }
            }
            format!("{v} LIKE {}{}", literal(&pattern), if special { " ESCAPE '\\'" } else { "" })
        }
    }
}

fn glob_pattern(parts: &[Part]) -> String {
    let mut pattern = String::new();
    for part in parts {
        match part {
            Part::Literal(text) => {
                for c in text.chars() {
                    match c {
                        '*' | '?' | '[' => {
                            pattern.push('[');
                            pattern.push(c);
                            pattern.push(']');
                        }
                        c => pattern.push(c),
                    }
                }
            }
            Part::One => pattern.push('?'),
            Part::Many => pattern.push('*'),
        }
    }
    literal(&pattern)
}

/// Python's `$` also matches before a final line break.
fn python_regex(op: &regex::Op, v: &str) -> Clause {
    let pattern = literal(&format!("(?i){}", op.engine_pattern()));
    let found = |v: &str| Clause::text(format!("{v} REGEXP {pattern}"));
    if op.end_anchored() { Clause::Any(vec![found(v), found(&format!("{CHOMP}({v})"))]) } else { found(v) }
}

fn oid(op: &oid_prefix::Op, v: &str) -> Clause {
    let oid = op.oid();
    Clause::Any(vec![
        Clause::text(format!("{v} IN ('{oid}', '.{oid}')")),
        Clause::text(format!("{v} LIKE '{oid}.%'")),
        Clause::text(format!("{v} LIKE '.{oid}.%'")),
    ])
}

fn compare_test(op: &compare::Op, v: &str) -> Clause {
    // Whole numbers are exact in SQL; how SQLite reads other ones may differ in the last bit.
    let number = op.number();
    let whole = number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0;
    let written = if whole { format!("{number:.0}") } else { format!("{NUMBER}('{number:e}')") };
    Clause::text(format!("{NUMBER}({v}) {} {written}", op.order().sign()))
}

/// The event's severity as a number, or NULL.
fn severity() -> String {
    let first = SEVERITY_FIELDS.map(|name| format!("{SEVERITY}({})", first_value(name)));
    format!("coalesce({})", first.join(", "))
}

fn severity_is(operators: &[&Operator]) -> Clause {
    let codes: Vec<String> = operators
        .iter()
        .filter_map(|operator| match operator {
            Operator::Severity(op) => Some(op.severity().code().to_string()),
            Operator::Contains(_)
            | Operator::Regex(_)
            | Operator::OidPrefix(_)
            | Operator::Text(_)
            | Operator::Pattern(_)
            | Operator::Cidr(_)
            | Operator::Compare(_)
            | Operator::Clock(_) => None,
        })
        .collect();
    // NULL would stay NULL under NOT.
    Clause::text(format!("coalesce({} IN ({}), 0)", severity(), codes.join(", ")))
}
