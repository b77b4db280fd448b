//! Which texts make a rule a candidate: derived from the predicate, never written by hand.
//!
//! A *group* is a list of keys of which at least one is seen whenever the predicate holds. Of the
//! groups that a predicate has, the one is chosen that looks rarest.

use crate::operators::Operator;
use crate::operators::text::{Part, Shape};
use crate::{Field, Predicate};
use std::collections::HashMap;

/// Where in a value a text has to stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Place {
    Start,
    End,
    Anywhere,
}

/// Something that an event shows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key<'p> {
    /// A value of the field (of any field) is this folded text.
    Whole(Option<&'p str>, &'p str),
    /// The folded text is part of a value of the field (of any field).
    Part(Option<&'p str>, &'p str, Place),
    /// The field has a value.
    Present(&'p str),
}

impl Key<'_> {
    /// The smaller, the rarer: a guess at how often the key is seen where its field is.
    fn weight(&self, uses: usize) -> f64 {
        let by_length = |text: &str| match text.len() {
            0 => 1.0,
            1 => 0.9,
            2 => 0.5,
            3 => 0.2,
            4 => 0.08,
            length => 0.3 / (length as f64),
        };
        let weight = match self {
            Self::Whole(_, text) => by_length(text) / 2.0,
            Self::Part(_, text, Place::Anywhere) => by_length(text),
            Self::Part(_, text, Place::Start | Place::End) => by_length(text) * 0.7,
            Self::Present(_) => 0.95,
        };
        // What many rules look for, many events have.
        weight * (1.0 + (uses as f64) / 4.0)
    }
}

/// How many rules use each key.
pub(super) type Uses<'p> = HashMap<Key<'p>, usize>;

/// All groups of a predicate.
pub(super) fn groups(predicate: &Predicate) -> Vec<Vec<Key<'_>>> {
    match predicate {
        Predicate::All(parts) => parts.iter().flat_map(groups).collect(),
        Predicate::Any(parts) => {
            let mut union = Vec::new();
            for part in parts {
                // Any group of the part will do; uses are not known yet, so the shorter list wins.
                match best(groups(part), &Uses::new()) {
                    Some(group) => union.extend(group),
                    None => return Vec::new(),
                }
            }
            if union.is_empty() { Vec::new() } else { vec![union] }
        }
        Predicate::Not(_) | Predicate::Null(_) | Predicate::Exists(_) => Vec::new(),
        Predicate::Present(field) => named(field).map(|name| vec![vec![Key::Present(name)]]).unwrap_or_default(),
        Predicate::Test(field, operator) => match named(field) {
            Some(name) => {
                let mut all = of_operator(Some(name), operator);
                all.push(vec![Key::Present(name)]);
                all
            }
            None => Vec::new(),
        },
        Predicate::AnyField(operator) => of_operator(None, operator),
        Predicate::Related { field, .. } => vec![vec![Key::Present(field)]],
    }
}

fn named(field: &Field) -> Option<&str> {
    match field {
        Field::Named(name) => Some(name),
        // Their values are normalised before they are compared.
        Field::Message | Field::Severity | Field::TrapOid => None,
    }
}

fn of_operator<'p>(field: Option<&'p str>, operator: &'p Operator) -> Vec<Vec<Key<'p>>> {
    match operator {
        Operator::Text(op) if op.cased() => literals_of(field, op.folded()),
        Operator::Text(op) => match op.shape() {
            Shape::Equals(text) => vec![vec![Key::Whole(field, text)]],
            Shape::StartsWith(text) => vec![vec![Key::Part(field, text, Place::Start)]],
            Shape::EndsWith(text) => vec![vec![Key::Part(field, text, Place::End)]],
            Shape::Contains(text) => vec![vec![Key::Part(field, text, Place::Anywhere)]],
            Shape::Everything => Vec::new(),
            Shape::Wild(parts) => literals_of(field, parts),
        },
        Operator::Pattern(op) => op
            .required_literals()
            .iter()
            .map(|group| group.iter().map(|text| Key::Part(field, text, Place::Anywhere)).collect())
            .collect(),
        Operator::Contains(_)
        | Operator::Regex(_)
        | Operator::OidPrefix(_)
        | Operator::Severity(_)
        | Operator::Cidr(_)
        | Operator::Compare(_)
        | Operator::Clock(_) => Vec::new(),
    }
}

/// Every literal of a pattern is part of what fits it.
fn literals_of<'p>(field: Option<&'p str>, parts: &'p [Part]) -> Vec<Vec<Key<'p>>> {
    let literals = parts.iter().filter_map(|part| match part {
        Part::Literal(text) => Some(vec![Key::Part(field, text, Place::Anywhere)]),
        Part::One | Part::Many => None,
    });
    literals.collect()
}

/// The group that looks rarest.
pub(super) fn best<'p>(groups: Vec<Vec<Key<'p>>>, uses: &Uses<'p>) -> Option<Vec<Key<'p>>> {
    let weight =
        |group: &Vec<Key<'p>>| -> f64 { group.iter().map(|key| key.weight(uses.get(key).copied().unwrap_or(0))).sum() };
    groups.into_iter().min_by(|a, b| weight(a).total_cmp(&weight(b)))
}
