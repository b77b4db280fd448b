//! Candidates are asked; every question once per event.

use super::{Engine, Node, Scratch};
use crate::ir::{FieldsView, Lookup, Relation};
use crate::operators::text::Shape;
use crate::operators::{Operator, Value, text};
use crate::{Field, Predicate};
use model::Fields;

/// A question without parts.
#[derive(Debug)]
pub(super) enum Atom {
    /// A value of the field (of any field) compares so with the text.
    Text {
        field: Option<u32>,
        cased: bool,
        shape: Compared,
    },
    /// A value of the field (of any field) satisfies the operator.
    Test {
        field: Option<u32>,
        operator: Operator,
    },
    Exists(u32),
    Null(u32),
    Related {
        field: u32,
        relation: Relation,
        other: u32,
        cased: bool,
    },
    /// Of MUTT's three fields, whose values are normalised first.
    Mutt(Field, Operator),
    Present(Field),
}

/// [`Shape`] without the pattern around it: many thousands of these are kept.
#[derive(Debug)]
pub(super) enum Compared {
    Equals(Box<str>),
    StartsWith(Box<str>),
    EndsWith(Box<str>),
    Contains(Box<str>),
    Everything,
    Wild(Box<text::Op>),
}

impl Compared {
    fn of(op: &text::Op) -> Self {
        match op.shape() {
            Shape::Equals(text) => Self::Equals(text.into()),
            Shape::StartsWith(text) => Self::StartsWith(text.into()),
            Shape::EndsWith(text) => Self::EndsWith(text.into()),
            Shape::Contains(text) => Self::Contains(text.into()),
            Shape::Everything => Self::Everything,
            Shape::Wild(_) => Self::Wild(Box::new(op.clone())),
        }
    }

    fn fits(&self, value: &str) -> bool {
        match self {
            Self::Equals(text) => value == &**text,
            Self::StartsWith(text) => value.starts_with(&**text),
            Self::EndsWith(text) => value.ends_with(&**text),
            // The standard library looks for short texts with vectors and prepares nothing; longer ones the
            // other finds faster.
            Self::Contains(text) if text.len() <= 32 => value.contains(&**text),
            Self::Contains(text) => memchr::memmem::find(value.as_bytes(), text.as_bytes()).is_some(),
            Self::Everything => true,
            Self::Wild(op) => op.fits(value),
        }
    }
}

impl Atom {
    pub fn test(field: Option<u32>, operator: &Operator) -> Self {
        match operator {
            Operator::Text(op) => Self::Text { field, cased: op.cased(), shape: Compared::of(op) },
            other => Self::Test { field, operator: other.clone() },
        }
    }

    /// Equal for equal questions.
    pub fn identity(&self) -> String {
        match self {
            Self::Test { field, operator } => format!("{field:?} {}", identity(operator)),
            Self::Mutt(field, operator) => format!("mutt {field:?} {}", identity(operator)),
            other => format!("{other:?}"),
        }
    }
}

fn identity(operator: &Operator) -> String {
    match operator {
        // A description shows what the author wrote, and these mean nothing else.
        Operator::Pattern(_) | Operator::Cidr(_) | Operator::Compare(_) | Operator::Clock(_) => operator.describe(),
        Operator::Contains(_)
        | Operator::Regex(_)
        | Operator::OidPrefix(_)
        | Operator::Severity(_)
        | Operator::Text(_) => {
            format!("{operator:?}")
        }
    }
}

pub(super) struct Asker<'a, 'e> {
    pub engine: &'a Engine,
    pub event: &'a Fields<'e>,
    pub scratch: &'a mut Scratch,
}

impl Asker<'_, '_> {
    pub fn node(&mut self, number: u32) -> bool {
        match &self.engine.nodes[number as usize] {
            Node::All(parts) => parts.iter().all(|part| self.node(*part)),
            Node::Any(parts) => parts.iter().any(|part| self.node(*part)),
            Node::Not(part) => !self.node(*part),
            Node::Atom(atom) => {
                let known = self.scratch.answers[*atom as usize];
                if known >> 1 == self.scratch.event {
                    return known & 1 == 1;
                }
                let question = &self.engine.atoms[*atom as usize];
                if let Atom::Text { field: None, cased: false, .. } = question {
                    self.scratch.fold_everything(self.event);
                }
                let answer = self.atom(question);
                self.scratch.answers[*atom as usize] = (self.scratch.event << 1) | u64::from(answer);
                answer
            }
        }
    }

    fn atom(&self, atom: &Atom) -> bool {
        match atom {
            Atom::Text { field: Some(field), cased, shape } => {
                self.values(*field, *cased).any(|value| shape.fits(value))
            }
            Atom::Text { field: None, cased: true, shape } => self.all_values().any(|value| shape.fits(value)),
            Atom::Text { field: None, cased: false, shape } => {
                self.scratch.every.iter().any(|value| shape.fits(value.of(&self.scratch.folded)))
            }
            Atom::Test { field: Some(field), operator } => {
                self.values(*field, true).any(|raw| operator.matches(&Value::Text { raw, lower: raw }))
            }
            Atom::Test { field: None, operator } => {
                self.all_values().any(|raw| operator.matches(&Value::Text { raw, lower: raw }))
            }
            Atom::Exists(field) => self.scratch.slots[*field as usize].exists,
            Atom::Null(field) => self.scratch.slots[*field as usize].values.is_empty(),
            Atom::Related { field, relation, other, cased } => self
                .values(*field, *cased)
                .any(|left| self.values(*other, *cased).any(|right| relation.holds(left, right))),
            Atom::Mutt(field, operator) => {
                FieldsView(self.event).any_value(field, &mut |value| operator.matches(value))
            }
            Atom::Present(field) => Predicate::Present(field.clone()).matches(&FieldsView(self.event)),
        }
    }

    /// Values of a field: as they came, or folded.
    fn values(&self, field: u32, raw: bool) -> impl Iterator<Item = &str> {
        self.scratch.slots[field as usize].values.iter().map(move |piece| {
            if raw {
                self.event.leaves()[piece.leaf as usize].value.as_deref().unwrap_or_default()
            } else {
                piece.folded.of(&self.scratch.folded)
            }
        })
    }

    fn all_values(&self) -> impl Iterator<Item = &str> {
        self.event.leaves().iter().filter_map(|leaf| leaf.value.as_deref())
    }
}
