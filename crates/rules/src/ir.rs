//! The predicate every kind of rule compiles to. Small and closed on purpose: the matcher's index,
//! the explanation and (later) SQL are each one `match` over it.
//!
//! A predicate means what [`Predicate::matches`] says. The index may only skip predicates that
//! this function would refuse; `tests/first_match.rs` compares the two.

use crate::operators::{Operator, Value};
use model::Severity;

/// What rules are matched against: the fields of an event that they may ask for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Subject<'a> {
    /// The event's message; empty = absent.
    pub message: &'a str,
    /// The event's severity, however it was spelt.
    pub severity: Option<Severity>,
    /// The event's trap OID, with or without a leading dot; empty = absent.
    pub trap_oid: Option<&'a str>,
}

impl<'a> From<&'a model::Event> for Subject<'a> {
    fn from(event: &'a model::Event) -> Self {
        Self { message: &event.message, severity: event.severity, trap_oid: event.trap_oid.as_deref() }
    }
}

/// A field that a predicate can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Field {
    /// The message text.
    Message,
    /// The syslog severity.
    Severity,
    /// The trap OID.
    TrapOid,
}

impl Field {
    /// As a reader of an explanation calls it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Message => "the message",
            Self::Severity => "the severity",
            Self::TrapOid => "the trap OID",
        }
    }
}

/// A question about one event with the answer yes or no.
#[derive(Debug, Clone)]
pub enum Predicate {
    /// Every part holds; holds when there is none.
    All(Vec<Predicate>),
    /// At least one part holds; never holds when there is none.
    Any(Vec<Predicate>),
    /// The part does not hold.
    Not(Box<Predicate>),
    /// The field is there and not empty.
    Present(Field),
    /// The field's value satisfies the operator; never holds for an absent field.
    Test(Field, Operator),
}

/// A subject with its message in lower case, so that it is lowered once per event.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    subject: Subject<'a>,
    lower: &'a str,
}

impl<'a> View<'a> {
    /// `lower` has to be what [`lower_into`] makes of the subject's message.
    pub fn new(subject: Subject<'a>, lower: &'a str) -> Self {
        Self { subject, lower }
    }

    /// The value of a field.
    pub fn value(&self, field: Field) -> Value<'a> {
        match field {
            Field::Message if self.subject.message.is_empty() => Value::Absent,
            Field::Message => Value::Text { raw: self.subject.message, lower: self.lower },
            Field::Severity => self.subject.severity.map_or(Value::Absent, Value::Severity),
            Field::TrapOid => match self.subject.trap_oid {
                None | Some("") => Value::Absent,
                Some(oid) => Value::Oid(oid),
            },
        }
    }

    /// Whether the field is there and not empty.
    pub fn has(&self, field: Field) -> bool {
        !matches!(self.value(field), Value::Absent)
    }
}

impl Predicate {
    /// The answer for one event, with nothing skipped: the reference for every faster way.
    pub fn matches(&self, view: &View<'_>) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.matches(view)),
            Self::Any(parts) => parts.iter().any(|part| part.matches(view)),
            Self::Not(part) => !part.matches(view),
            Self::Present(field) => view.has(*field),
            Self::Test(field, operator) => operator.matches(&view.value(*field)),
        }
    }
}

/// Replaces `out` by the text in lower case, as `str::to_lowercase` does, without allocating once
/// `out` has room (except for a capital sigma, whose form depends on its neighbours).
pub fn lower_into(text: &str, out: &mut String) {
    out.clear();
    if text.is_ascii() {
        out.push_str(text);
        out.make_ascii_lowercase();
    } else if text.contains('Σ') {
        out.push_str(&text.to_lowercase());
    } else {
        out.extend(text.chars().flat_map(char::to_lowercase));
    }
}
