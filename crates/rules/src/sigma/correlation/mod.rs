//! Correlations of Sigma (Sigma specification 2.1, "Correlation rules"): read and resolved here,
//! worked by [`correlate`](crate::correlate) as a stream, and by SQL.
//!
//! # What a correlation means
//!
//! One definition for every evaluator. It speaks of the *set* of events, so neither the order in
//! which they arrive nor their repetition plays a part.
//!
//! **Members.** An event is a member if one of the inputs ([`Input`]) has it:
//! * a rule has an event that it matches;
//! * a correlation has an event that is an *anchor at which it holds* (see below), with the event's
//!   own time and fields. Field names go through the aliases of the upper correlation for that input,
//!   then through those of the lower one for its input, and so on down to the event.
//!
//! A member needs a value in every field of [`Input::group_fields`] and, where the kind has fields
//! ([`Correlation::value_fields`]), of [`Input::value_fields`]; an event that lacks one is no member.
//! A field with several values counts with its first. Texts are compared as written, case included.
//! Numbers are texts of JSON's number grammar, at most 10^15 in absolute value; `value_sum`, `_avg`,
//! `_percentile` and `_median` have no members with other texts. They are taken to the nearest millionth.
//!
//! **Group.** The members with the same texts in the fields of `group-by`; without `group-by` all
//! members are one group.
//!
//! **Anchors.** The distinct times of a group's members. Each anchor `t` has a window, both ends
//! included: `[t - timespan, t]` where the condition is *rising*, `[t, t + timespan]` where it is
//! *closing* ([`Correlation::closing`]: an upper bound, `eq`, `neq`, or a `not`), because what more
//! events could undo can be judged only when the window is over. A window always has a member.
//!
//! **Metric** of a window:
//!
//! | kind | metric |
//! |---|---|
//! | `event_count` | members; an event that several inputs have is one |
//! | `value_count` | distinct values; with several fields, distinct combinations |
//! | `temporal` | distinct inputs with a member |
//! | `temporal_ordered` | the most inputs that can be picked in the listed order so that each has a member at a time not before that of the one before. Equal times are in order; one event may serve several inputs |
//! | `value_sum`, `value_avg` | sum, mean of the values |
//! | `value_percentile` | with the values in order `v[0..n]` and `h = percentile / 100 * (n - 1)`: `v[⌊h⌋] + (h - ⌊h⌋) * (v[⌊h⌋ + 1] - v[⌊h⌋])` |
//! | `value_median` | the percentile 50 |
//!
//! For the four numeric kinds, an event counts once for each distinct value it has through different
//! aliases (usually one).
//!
//! **Holds.** With [`Condition::Compare`]: the metric meets every bound. With [`Condition::Rules`]:
//! the expression is true, an input being true if it has a member in the window; and for
//! `temporal_ordered` some term of the expression's disjunctive normal form ([`Expr::terms`]) is
//! true whose inputs, in listed order, can be picked as above.
//!
//! **Firings.** A correlation fires at anchor `t` of a group if it holds at `t` and is not merely
//! going on: with `p` the group's anchor before `t`, it goes on if it holds at `p` and
//! `t - p <= timespan`. In SQL over the anchors: `holds AND NOT coalesce(lag(holds) AND t - lag(t)
//! <= timespan, false)`. A firing is identified by correlation, group and anchor.

mod condition;
mod describe;
mod read;
mod resolve;

pub(crate) use read::{Draft, SPAN_EXAMPLE, seconds};
pub(crate) use resolve::{Gone, resolve};

use super::Header;
use std::fmt;

/// Most inputs of a correlation; of those that look at which inputs occur, [`TEMPORAL_INPUTS_MAX`].
pub const INPUTS_MAX: usize = 1_024;
/// Most inputs of `temporal` and `temporal_ordered`.
pub const TEMPORAL_INPUTS_MAX: usize = 64;
/// Most correlations above each other.
pub const CHAIN_MAX: usize = 8;
/// Most ways from a rule through correlations to one above.
pub const WAYS_MAX: usize = 64;

/// How events are correlated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    EventCount,
    ValueCount,
    Temporal,
    TemporalOrdered,
    ValueSum,
    ValueAvg,
    ValuePercentile,
    ValueMedian,
}

impl Kind {
    /// All, in the order of the specification.
    pub const ALL: [Self; 8] = [
        Self::EventCount,
        Self::ValueCount,
        Self::Temporal,
        Self::TemporalOrdered,
        Self::ValueSum,
        Self::ValueAvg,
        Self::ValuePercentile,
        Self::ValueMedian,
    ];

    /// As the document says it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EventCount => "event_count",
            Self::ValueCount => "value_count",
            Self::Temporal => "temporal",
            Self::TemporalOrdered => "temporal_ordered",
            Self::ValueSum => "value_sum",
            Self::ValueAvg => "value_avg",
            Self::ValuePercentile => "value_percentile",
            Self::ValueMedian => "value_median",
        }
    }

    /// Whether it looks at which of its inputs occur.
    pub const fn temporal(self) -> bool {
        matches!(self, Self::Temporal | Self::TemporalOrdered)
    }

    /// Whether it calculates with numbers.
    pub const fn numeric(self) -> bool {
        matches!(self, Self::ValueSum | Self::ValueAvg | Self::ValuePercentile | Self::ValueMedian)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A correlation document, its references resolved.
#[derive(Debug, Clone)]
pub struct Correlation {
    pub header: Header,
    pub kind: Kind,
    /// In the order of the document, each once.
    pub inputs: Vec<Input>,
    /// As written: fields or aliases; empty = one group.
    pub group_by: Vec<String>,
    /// The fields whose values count, as written: none for `event_count` and the temporal kinds, one
    /// or more for `value_count`, exactly one for the others.
    pub value_fields: Vec<String>,
    /// 0 to 100, for `value_percentile`; 50 for `value_median`.
    pub percentile: u8,
    pub timespan: Timespan,
    pub condition: Condition,
    /// Whether the rules it correlates also alert by themselves (`generate`).
    pub generate: bool,
}

impl Correlation {
    /// Whether a window is judged only when it is over (see the [module](self)).
    pub fn closing(&self) -> bool {
        match &self.condition {
            Condition::Compare(bounds) => bounds.iter().any(|bound| match bound.op {
                Op::Gt | Op::Gte => false,
                Op::Lt | Op::Lte | Op::Eq | Op::Neq => true,
            }),
            Condition::Rules(expr) => expr.negates(),
        }
    }
}

/// Where a correlation gets its events from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// As the document calls it.
    pub name: String,
    pub target: Target,
    /// One field for each of `group-by`, aliases followed.
    pub group_fields: Vec<String>,
    /// One for each of [`Correlation::value_fields`], aliases followed.
    pub value_fields: Vec<String>,
    /// The aliases of the correlation as they are for this input: name, field.
    pub aliases: Vec<(String, String)>,
}

impl Input {
    /// The field of this input's events that the correlation, or one above it, calls so.
    pub fn field<'n>(&'n self, name: &'n str) -> &'n str {
        self.aliases.iter().find(|(alias, _)| alias == name).map_or(name, |(_, field)| field)
    }
}

/// What an input refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// Index into [`Collection::rules`](super::Collection::rules).
    Rule(usize),
    /// Index into [`Collection::correlations`](super::Collection::correlations).
    Correlation(usize),
}

/// A length of time, more than nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timespan {
    /// As written: `5m`.
    pub text: String,
    pub micros: i64,
}

/// When a window holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// Every bound is met by the metric; never empty.
    Compare(Vec<Bound>),
    /// Which inputs occur.
    Rules(Expr),
}

/// A comparison with the metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bound {
    pub op: Op,
    /// Finite, at most 10^15 in absolute value.
    pub value: f64,
}

/// Comparisons of conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    Lt,
    Lte,
    Gt,
    Gte,
    Eq,
    Neq,
}

impl Op {
    pub const ALL: [Self; 6] = [Self::Lt, Self::Lte, Self::Gt, Self::Gte, Self::Eq, Self::Neq];

    /// As the document says it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lt => "lt",
            Self::Lte => "lte",
            Self::Gt => "gt",
            Self::Gte => "gte",
            Self::Eq => "eq",
            Self::Neq => "neq",
        }
    }

    /// As SQL says it.
    pub const fn sign(self) -> &'static str {
        match self {
            Self::Lt => "<",
            Self::Lte => "<=",
            Self::Gt => ">",
            Self::Gte => ">=",
            Self::Eq => "=",
            Self::Neq => "<>",
        }
    }

    /// Whether it holds between things that compare like this.
    pub const fn holds(self, order: std::cmp::Ordering) -> bool {
        match self {
            Self::Lt => order.is_lt(),
            Self::Lte => order.is_le(),
            Self::Gt => order.is_gt(),
            Self::Gte => order.is_ge(),
            Self::Eq => order.is_eq(),
            Self::Neq => order.is_ne(),
        }
    }
}

/// A boolean expression over the inputs of a correlation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    /// Index into [`Correlation::inputs`].
    Input(usize),
    All(Vec<Expr>),
    Any(Vec<Expr>),
    Not(Box<Expr>),
}

/// One way to make an expression true: all of `present` and none of `absent` occur. Bits are inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Term {
    pub present: u64,
    pub absent: u64,
}

impl Expr {
    /// Whether it holds where exactly these inputs occur.
    pub fn holds(&self, inputs: u64) -> bool {
        match self {
            Self::Input(input) => inputs & (1 << input) != 0,
            Self::All(parts) => parts.iter().all(|part| part.holds(inputs)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(inputs)),
            Self::Not(part) => !part.holds(inputs),
        }
    }

    /// Whether there is a `not` in it.
    pub fn negates(&self) -> bool {
        match self {
            Self::Input(_) => false,
            Self::All(parts) | Self::Any(parts) => parts.iter().any(Self::negates),
            Self::Not(_) => true,
        }
    }

    /// Its disjunctive normal form, in order and without repetition; without the terms that want
    /// something both present and absent. `None` where it has more than [`TERMS_MAX`].
    pub fn terms(&self) -> Option<Vec<Term>> {
        let mut terms = self.signed_terms(false)?;
        terms.sort_unstable();
        terms.dedup();
        Some(terms)
    }

    fn signed_terms(&self, negative: bool) -> Option<Vec<Term>> {
        let (parts, all) = match self {
            Self::Input(input) => {
                let bit = 1 << input;
                let term = if negative { Term { present: 0, absent: bit } } else { Term { present: bit, absent: 0 } };
                return Some(vec![term]);
            }
            Self::Not(part) => return part.signed_terms(!negative),
            Self::All(parts) => (parts, !negative),
            Self::Any(parts) => (parts, negative),
        };
        let mut terms = if all { vec![Term { present: 0, absent: 0 }] } else { Vec::new() };
        for part in parts {
            let more = part.signed_terms(negative)?;
            if all {
                if terms.len() * more.len() > TERMS_MAX * TERMS_MAX {
                    return None;
                }
                let pairs = terms.iter().flat_map(|term| more.iter().map(move |other| (term, other)));
                let joined = pairs.map(|(a, b)| Term { present: a.present | b.present, absent: a.absent | b.absent });
                terms = joined.filter(|term| term.present & term.absent == 0).collect();
                terms.sort_unstable();
                terms.dedup();
            } else {
                terms.extend(more);
            }
            if terms.len() > TERMS_MAX {
                return None;
            }
        }
        Some(terms)
    }
}

/// Most terms of an expression.
pub const TERMS_MAX: usize = 256;

#[cfg(test)]
mod tests;
