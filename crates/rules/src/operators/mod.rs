//! The questions a rule can ask of one field.
//!
//! # To add an operator
//!
//! 1. Write `operators/<name>.rs` with `pub struct Op`, `pub fn compile(args) -> Result<Op, RuleError>`
//!    and `pub fn matches(op: &Op, value: &Value<'_>) -> bool`. Imitate [`contains`], the smallest.
//!    Whatever can be wrong with the arguments is refused by `compile`; `matches` cannot fail.
//! 2. Add the variant to [`Operator`]; the compiler points at the `match`es that need an arm:
//!    matching, describing, and how the shared prefilter may find it (`anchor`). An operator that
//!    the prefilter cannot help answers [`Anchor::None`] there and is still right, only slower.
//! 3. Write `tests/operators/<name>.yaml` (value, args, expected, and the arguments that must be
//!    refused) and name it in `tests/operators.rs`.

pub mod cidr;
pub mod clock;
pub mod compare;
pub mod contains;
pub mod oid_prefix;
pub mod pattern;
mod python;
pub mod regex;
pub mod severity;
pub mod text;

use model::Severity;

/// A compiled operator with its arguments.
#[derive(Debug, Clone)]
pub enum Operator {
    /// Case-insensitive substring.
    Contains(contains::Op),
    /// Case-insensitive regular expression.
    Regex(regex::Op),
    /// Equal to an OID or below it.
    OidPrefix(oid_prefix::Op),
    /// Equal to a syslog severity.
    Severity(severity::Op),
    /// The whole value fits a pattern with wildcards (Sigma).
    Text(text::Op),
    /// A regular expression is found in the value (Sigma's `re`).
    Pattern(pattern::Op),
    /// The value is an address of a network.
    Cidr(cidr::Op),
    /// The value is a number that stands so to another.
    Compare(compare::Op),
    /// The value is a time whose part stands so to a number.
    Clock(clock::Op),
}

/// What an operator is asked about: the value of one field of one event.
#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    /// The event has no such field; no operator matches it.
    Absent,
    /// Text, as it came and in lower case (computed once per event).
    Text { raw: &'a str, lower: &'a str },
    /// An object identifier, a leading dot allowed.
    Oid(&'a str),
    /// A syslog severity.
    Severity(Severity),
}

/// What must be seen in an event before an operator can match: the prefilter's question.
#[derive(Debug, Clone, Copy)]
pub enum Anchor<'a> {
    /// This lower-case literal is part of the message; seeing it is the answer.
    Literal(&'a str),
    /// One lower-case literal of each of these groups is part of the message.
    Groups(&'a [Vec<String>]),
    /// The event's OID is this one or below it; seeing it is the answer.
    Oid(&'a oid_prefix::Op),
    /// Nothing that an index could look up.
    None,
}

impl Operator {
    /// Whether the value satisfies the operator.
    pub fn matches(&self, value: &Value<'_>) -> bool {
        match self {
            Self::Contains(op) => contains::matches(op, value),
            Self::Regex(op) => regex::matches(op, value),
            Self::OidPrefix(op) => oid_prefix::matches(op, value),
            Self::Severity(op) => severity::matches(op, value),
            Self::Text(op) => text::matches(op, value),
            Self::Pattern(op) => pattern::matches(op, value),
            Self::Cidr(op) => cidr::matches(op, value),
            Self::Compare(op) => compare::matches(op, value),
            Self::Clock(op) => clock::matches(op, value),
        }
    }

    /// The question in words, to stand after the field's name: `contains "link down"`.
    pub fn describe(&self) -> String {
        match self {
            Self::Contains(op) => format!("contains {:?}", op.needle()),
            Self::Regex(op) => format!("matches the regular expression /{}/", op.pattern()),
            Self::OidPrefix(op) => format!("is {} or lies below it", op.oid()),
            Self::Severity(op) => format!("is {} ({})", op.severity().as_str(), op.severity().code()),
            Self::Text(op) => op.describe(),
            Self::Pattern(op) => op.describe(),
            Self::Cidr(op) => op.describe(),
            Self::Compare(op) => op.describe(),
            Self::Clock(op) => op.describe(),
        }
    }

    /// What the prefilter of MUTT rows may look for; the operators of Sigma are found otherwise.
    pub(crate) fn anchor(&self) -> Anchor<'_> {
        match self {
            Self::Contains(op) => Anchor::Literal(op.lower()),
            Self::Regex(op) => Anchor::Groups(op.required_literals()),
            Self::OidPrefix(op) => Anchor::Oid(op),
            Self::Severity(_)
            | Self::Text(_)
            | Self::Pattern(_)
            | Self::Cidr(_)
            | Self::Compare(_)
            | Self::Clock(_) => Anchor::None,
        }
    }
}
