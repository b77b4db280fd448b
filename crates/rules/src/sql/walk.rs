//! From predicates to conditions: what both engines share.

use super::render::Clause;
use super::{SQL_DEPTH_MAX, SqlError};
use crate::Predicate;
use crate::ir::{Field, Relation};
use crate::operators::Operator;
use crate::operators::text::{self, Shape};

/// Where the values come from that an operator is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source<'p> {
    /// One field.
    Field(&'p Field),
    /// All fields.
    AnyField,
}

/// How one engine writes each kind of question.
pub(super) trait Engine {
    /// Some value of the source satisfies one of the operators, each of which can hold there.
    fn some_value(&self, source: Source<'_>, operators: &[&Operator]) -> Result<Clause, SqlError>;
    /// The field is there and not empty.
    fn present(&self, field: &Field) -> Clause;
    /// The field exists, with or without a value.
    fn exists(&self, name: &str) -> Clause;
    /// The field has a value.
    fn has_value(&self, name: &str) -> Clause;
    /// Some value of the one field stands in the relation to some value of the other.
    fn related(&self, field: &str, relation: Relation, other: &str, cased: bool) -> Result<Clause, SqlError>;
}

pub(super) fn clause(predicate: &Predicate, engine: &impl Engine) -> Result<Clause, SqlError> {
    walk(predicate, engine, 0)
}

fn walk(predicate: &Predicate, engine: &impl Engine, depth: usize) -> Result<Clause, SqlError> {
    if depth > SQL_DEPTH_MAX {
        return Err(SqlError::TooDeep { max: SQL_DEPTH_MAX });
    }
    match predicate {
        Predicate::All(parts) => {
            let parts: Result<_, _> = parts.iter().map(|part| walk(part, engine, depth + 1)).collect();
            Ok(Clause::All(parts?))
        }
        Predicate::Any(parts) => any(parts, engine, depth),
        Predicate::Not(part) => match &**part {
            Predicate::Null(name) => Ok(engine.has_value(name)),
            Predicate::All(_)
            | Predicate::Any(_)
            | Predicate::Not(_)
            | Predicate::Present(_)
            | Predicate::Test(..)
            | Predicate::Exists(_)
            | Predicate::AnyField(_)
            | Predicate::Related { .. } => Ok(Clause::Not(Box::new(walk(part, engine, depth + 1)?))),
        },
        Predicate::Present(field) => Ok(engine.present(field)),
        Predicate::Test(field, operator) => tests(Source::Field(field), &[operator], engine),
        Predicate::Exists(name) => Ok(engine.exists(name)),
        Predicate::Null(name) => Ok(Clause::Not(Box::new(engine.has_value(name)))),
        Predicate::AnyField(operator) => tests(Source::AnyField, &[operator], engine),
        Predicate::Related { field, relation, other, cased } => engine.related(field, *relation, other, *cased),
    }
}

/// One of several parts: the values of a field are looked through once for all that is asked of it.
fn any(parts: &[Predicate], engine: &impl Engine, depth: usize) -> Result<Clause, SqlError> {
    let mut groups: Vec<(Source<'_>, Vec<&Operator>)> = Vec::new();
    let mut others = Vec::new();
    for part in parts {
        let (source, operator) = match part {
            Predicate::Test(field, operator) => (Source::Field(field), operator),
            Predicate::AnyField(operator) => (Source::AnyField, operator),
            Predicate::All(_)
            | Predicate::Any(_)
            | Predicate::Not(_)
            | Predicate::Present(_)
            | Predicate::Exists(_)
            | Predicate::Null(_)
            | Predicate::Related { .. } => {
                others.push(walk(part, engine, depth + 1)?);
                continue;
            }
        };
        match groups.iter_mut().find(|(of, _)| *of == source) {
            Some((_, operators)) => operators.push(operator),
            None => groups.push((source, vec![operator])),
        }
    }
    let asked: Result<Vec<Clause>, _> =
        groups.iter().map(|(source, operators)| tests(*source, operators, engine)).collect();
    let mut clauses = asked?;
    clauses.append(&mut others);
    Ok(Clause::Any(clauses))
}

fn tests(source: Source<'_>, operators: &[&Operator], engine: &impl Engine) -> Result<Clause, SqlError> {
    let can_hold: Vec<&Operator> = operators.iter().copied().filter(|operator| can_hold(source, operator)).collect();
    if can_hold.is_empty() {
        return Ok(Clause::never());
    }
    engine.some_value(source, &can_hold)
}

/// Whether the operator understands this kind of value at all.
fn can_hold(source: Source<'_>, operator: &Operator) -> bool {
    let of_texts = match operator {
        Operator::Contains(_)
        | Operator::Regex(_)
        | Operator::Text(_)
        | Operator::Pattern(_)
        | Operator::Cidr(_)
        | Operator::Compare(_)
        | Operator::Clock(_) => true,
        Operator::OidPrefix(_) | Operator::Severity(_) => false,
    };
    match source {
        Source::AnyField | Source::Field(Field::Message | Field::Named(_)) => of_texts,
        Source::Field(Field::TrapOid) => matches!(operator, Operator::OidPrefix(_)),
        Source::Field(Field::Severity) => matches!(operator, Operator::Severity(_)),
    }
}

/// How the case of a value has to be treated before it is compared with a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    /// As it is.
    AsIs,
    /// The letters of ASCII in lower case; no other character equals one of the pattern then.
    Ascii,
    /// Folded as [`text::fold`] does it.
    Folded,
}

impl Case {
    pub fn of(op: &text::Op) -> Self {
        let mut literals = op.compared().iter().filter_map(|part| match part {
            text::Part::Literal(text) => Some(text),
            text::Part::One | text::Part::Many => None,
        });
        if op.cased() {
            Self::AsIs
        } else if literals.any(|text| !text.is_ascii()) {
            Self::Folded
        } else {
            Self::Ascii
        }
    }
}

/// Texts to be compared with, put together by how case counts.
pub(super) type ByCase<'p> = Vec<(Case, Vec<&'p str>)>;

/// Operators, with those put together that can be asked at once.
#[derive(Default)]
pub(super) struct Sorted<'p> {
    pub equal: ByCase<'p>,
    pub contained: ByCase<'p>,
    pub others: Vec<&'p Operator>,
}

pub(super) fn sorted<'p>(operators: &[&'p Operator]) -> Sorted<'p> {
    let mut sorted = Sorted::default();
    for &operator in operators {
        match operator {
            Operator::Text(op) => match op.shape() {
                Shape::Equals(text) => add(&mut sorted.equal, Case::of(op), text),
                Shape::Contains(text) => add(&mut sorted.contained, Case::of(op), text),
                Shape::StartsWith(_) | Shape::EndsWith(_) | Shape::Everything | Shape::Wild(_) => {
                    sorted.others.push(operator);
                }
            },
            Operator::Contains(_)
            | Operator::Regex(_)
            | Operator::OidPrefix(_)
            | Operator::Severity(_)
            | Operator::Pattern(_)
            | Operator::Cidr(_)
            | Operator::Compare(_)
            | Operator::Clock(_) => sorted.others.push(operator),
        }
    }
    sorted
}

fn add<'p>(texts: &mut ByCase<'p>, case: Case, text: &'p str) {
    match texts.iter_mut().find(|(of, _)| *of == case) {
        Some((_, texts)) => texts.push(text),
        None => texts.push((case, vec![text])),
    }
}
