//! The predicate every kind of rule compiles to. Small and closed on purpose: the matchers, the
//! explanation and SQL are each one `match` over it.
//!
//! A predicate means what [`Predicate::matches`] says, with two answers and no third: a question
//! about an absent field is answered no, and `not` turns that into yes. An index may only skip
//! predicates that this function would refuse; `tests/first_match.rs` and `tests/all_matches.rs`
//! compare.
//!
//! An event is asked through [`Lookup`]: MUTT rows see a [`View`] of three fields, detection rules
//! see [`Fields`] through a [`FieldsView`].

use crate::operators::text::fold_into;
use crate::operators::{Operator, Value};
use model::{Fields, Severity};

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
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Field {
    /// The message text.
    Message,
    /// The syslog severity.
    Severity,
    /// The trap OID.
    TrapOid,
    /// A field of the event by its name in the taxonomy; it can have several values.
    Named(Box<str>),
}

impl Field {
    /// As a reader of an explanation calls it.
    pub fn label(&self) -> &str {
        match self {
            Self::Message => "the message",
            Self::Severity => "the severity",
            Self::TrapOid => "the trap OID",
            Self::Named(name) => name,
        }
    }
}

/// How the value of one field has to stand to the value of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Relation {
    /// They are the same text.
    Equals,
    /// The first begins with the second.
    StartsWith,
    /// The first ends with the second.
    EndsWith,
    /// The first contains the second.
    Contains,
}

impl Relation {
    /// To stand between the two names.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Equals => "equals",
            Self::StartsWith => "starts with",
            Self::EndsWith => "ends with",
            Self::Contains => "contains",
        }
    }

    /// Whether it holds between two texts as they are.
    pub fn holds(self, left: &str, right: &str) -> bool {
        match self {
            Self::Equals => left == right,
            Self::StartsWith => left.starts_with(right),
            Self::EndsWith => left.ends_with(right),
            Self::Contains => left.contains(right),
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
    /// One of the field's values satisfies the operator; never holds for a field without a value.
    Test(Field, Operator),
    /// The field exists, with or without a value.
    Exists(Box<str>),
    /// The field has no value: it is missing, or `null`.
    Null(Box<str>),
    /// Some value of some field satisfies the operator.
    AnyField(Operator),
    /// Some value of the one field stands in the relation to some value of the other.
    Related {
        /// The field on the left of the relation.
        field: Box<str>,
        relation: Relation,
        /// The field on its right.
        other: Box<str>,
        /// Whether upper and lower case differ.
        cased: bool,
    },
}

/// What a predicate can ask of an event.
pub trait Lookup {
    /// Whether the field is there and not empty.
    fn present(&self, field: &Field) -> bool;
    /// Whether one of the field's values satisfies `test`.
    fn any_value(&self, field: &Field, test: &mut dyn FnMut(&Value<'_>) -> bool) -> bool;
    /// Whether the named field exists, with or without a value.
    fn exists(&self, name: &str) -> bool;
    /// Whether some value of some field satisfies `test`.
    fn any_field(&self, test: &mut dyn FnMut(&Value<'_>) -> bool) -> bool;
    /// What the event has there, for a reader; empty = no value.
    fn shown(&self, field: &Field) -> Vec<String> {
        let mut shown = Vec::new();
        self.any_value(field, &mut |value| {
            shown.push(match value {
                Value::Absent => return false,
                Value::Text { raw, .. } => (*raw).to_owned(),
                Value::Oid(oid) => (*oid).to_owned(),
                Value::Severity(severity) => format!("{} ({})", severity.as_str(), severity.code()),
            });
            false
        });
        shown
    }
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

    /// The value of a field. Named fields are not known here.
    pub fn value(&self, field: &Field) -> Value<'a> {
        match field {
            Field::Message if self.subject.message.is_empty() => Value::Absent,
            Field::Message => Value::Text { raw: self.subject.message, lower: self.lower },
            Field::Severity => self.subject.severity.map_or(Value::Absent, Value::Severity),
            Field::TrapOid => match self.subject.trap_oid {
                None | Some("") => Value::Absent,
                Some(oid) => Value::Oid(oid),
            },
            Field::Named(_) => Value::Absent,
        }
    }

    /// Whether the field is there and not empty.
    pub fn has(&self, field: &Field) -> bool {
        !matches!(self.value(field), Value::Absent)
    }
}

impl Lookup for View<'_> {
    fn present(&self, field: &Field) -> bool {
        self.has(field)
    }
    fn any_value(&self, field: &Field, test: &mut dyn FnMut(&Value<'_>) -> bool) -> bool {
        test(&self.value(field))
    }
    fn exists(&self, _: &str) -> bool {
        false
    }
    fn any_field(&self, test: &mut dyn FnMut(&Value<'_>) -> bool) -> bool {
        [Field::Message, Field::TrapOid].iter().any(|field| test(&self.value(field)))
    }
}

/// The name of the field that holds the message, for MUTT rows that are asked of [`Fields`].
pub const MESSAGE_FIELD: &str = "message";
/// The name of the field that holds the trap's OID.
pub const TRAP_OID_FIELD: &str = "trap_oid";
/// The names of the fields that hold the syslog severity; the first that can be read counts.
pub const SEVERITY_FIELDS: [&str; 2] = ["syslog_severity", "severity"];

/// All fields of an event, asked one by one: slow, and the reference for the matcher.
#[derive(Debug, Clone, Copy)]
pub struct FieldsView<'e>(pub &'e Fields<'e>);

impl FieldsView<'_> {
    fn severity(&self) -> Option<Severity> {
        SEVERITY_FIELDS.iter().find_map(|name| self.0.first(name).and_then(Severity::parse))
    }
}

impl Lookup for FieldsView<'_> {
    fn present(&self, field: &Field) -> bool {
        match field {
            Field::Severity => self.severity().is_some(),
            Field::Message | Field::TrapOid | Field::Named(_) => {
                self.any_value(field, &mut |value| !matches!(value, Value::Absent | Value::Text { raw: "", .. }))
            }
        }
    }

    fn any_value(&self, field: &Field, test: &mut dyn FnMut(&Value<'_>) -> bool) -> bool {
        match field {
            Field::Severity => self.severity().is_some_and(|severity| test(&Value::Severity(severity))),
            Field::TrapOid => self.0.values(TRAP_OID_FIELD).any(|oid| !oid.is_empty() && test(&Value::Oid(oid))),
            Field::Message => self.0.values(MESSAGE_FIELD).any(|raw| {
                !raw.is_empty() && {
                    let mut lower = String::new();
                    lower_into(raw, &mut lower);
                    test(&Value::Text { raw, lower: &lower })
                }
            }),
            Field::Named(name) => self.0.values(name).any(|raw| test(&Value::Text { raw, lower: raw })),
        }
    }

    fn exists(&self, name: &str) -> bool {
        self.0.exists(name)
    }

    fn any_field(&self, test: &mut dyn FnMut(&Value<'_>) -> bool) -> bool {
        let values = self.0.leaves().iter().filter_map(|leaf| leaf.value.as_deref());
        values.into_iter().any(|raw| test(&Value::Text { raw, lower: raw }))
    }
}

impl Predicate {
    /// The answer for one event, with nothing skipped: the reference for every faster way.
    pub fn matches(&self, event: &impl Lookup) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.matches(event)),
            Self::Any(parts) => parts.iter().any(|part| part.matches(event)),
            Self::Not(part) => !part.matches(event),
            Self::Present(field) => event.present(field),
            Self::Test(field, operator) => event.any_value(field, &mut |value| operator.matches(value)),
            Self::Exists(name) => event.exists(name),
            Self::Null(name) => !event.any_value(&Field::Named(name.clone()), &mut |_| true),
            Self::AnyField(operator) => event.any_field(&mut |value| operator.matches(value)),
            Self::Related { field, relation, other, cased } => {
                let (left, right) = (Field::Named(field.clone()), Field::Named(other.clone()));
                event.any_value(&left, &mut |left| {
                    event.any_value(&right, &mut |right| related(left, *relation, right, *cased))
                })
            }
        }
    }
}

fn related(left: &Value<'_>, relation: Relation, right: &Value<'_>, cased: bool) -> bool {
    match (left, right) {
        (Value::Text { raw: left, .. }, Value::Text { raw: right, .. }) if cased => relation.holds(left, right),
        (Value::Text { raw: left, .. }, Value::Text { raw: right, .. }) => {
            let (mut folded_left, mut folded_right) = (String::new(), String::new());
            fold_into(left, &mut folded_left);
            fold_into(right, &mut folded_right);
            relation.holds(&folded_left, &folded_right)
        }
        _ => false,
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
