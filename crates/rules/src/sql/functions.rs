//! The functions that the SQL for SQLite calls beside SQLite's own, as plain Rust. Whoever opens a
//! connection registers all of [`FUNCTIONS`] on it, as deterministic and innocuous.
//!
//! Each takes one value and at most one constant. [`Function::prepare`] reads the constant once; the
//! answer for a NULL value is NULL without asking.

use super::correlation::arithmetic;
use crate::operators::{cidr, clock, compare, regex, text};
use model::Severity;
use std::fmt;

pub(super) const FOLD: &str = "mutt_fold";
pub(super) const LOWER: &str = "mutt_lower";
pub(super) const CHOMP: &str = "mutt_chomp";
pub(super) const NUMBER: &str = "mutt_number";
pub(super) const SEVERITY: &str = "mutt_severity";
pub(super) const FITS: &str = "mutt_fits";
pub(super) const FITS_CASED: &str = "mutt_fits_cased";
pub(super) const CIDR: &str = "mutt_cidr";
pub(super) const TIME_PART: &str = "mutt_time_part";
pub(super) const MILLIONTHS: &str = "mutt_millionths";
pub(super) const IN_ORDER: &str = "mutt_in_order";
pub(super) const PERCENTILE: &str = "mutt_percentile";
const REGEXP: &str = "regexp";

/// What a function answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Text(String),
    Integer(i64),
    Real(f64),
    Null,
}

/// A function that knows its constant.
pub type Prepared = Box<dyn Fn(&str) -> Answer + Send + Sync>;

/// A constant that the function does not understand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{function}: {problem}")]
pub struct ConstantError {
    function: &'static str,
    problem: String,
}

/// A function of SQL.
#[derive(Clone, Copy)]
pub struct Function {
    /// As SQL calls it.
    pub name: &'static str,
    /// Where the value stands among the arguments.
    pub value_at: usize,
    /// Where the constant stands, if there is one.
    pub constant_at: Option<usize>,
    /// What it answers, in words.
    pub doc: &'static str,
    read: fn(&str) -> Result<Prepared, String>,
}

impl Function {
    /// How many arguments it takes.
    pub fn arity(&self) -> usize {
        1 + usize::from(self.constant_at.is_some())
    }

    /// The function for this constant (any, where there is none).
    pub fn prepare(&self, constant: &str) -> Result<Prepared, ConstantError> {
        (self.read)(constant).map_err(|problem| ConstantError { function: self.name, problem })
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.arity())
    }
}

/// All of them.
pub const FUNCTIONS: [Function; 13] = [
    Function {
        name: REGEXP,
        value_at: 1,
        constant_at: Some(0),
        doc: "`value REGEXP pattern`: whether the pattern is found in the value",
        read: |pattern| {
            let regex = ::regex::RegexBuilder::new(pattern)
                .size_limit(regex::REGEX_BYTES_MAX)
                .dfa_size_limit(regex::REGEX_BYTES_MAX)
                .nest_limit(regex::REGEX_DEPTH_MAX)
                .build()
                .map_err(|error| error.to_string())?;
            Ok(Box::new(move |value| truth(regex.is_match(value))))
        },
    },
    Function {
        name: FOLD,
        value_at: 0,
        constant_at: None,
        doc: "the value in the case in which Sigma's texts are compared, character by character",
        read: |_| Ok(Box::new(|value| Answer::Text(text::fold(value)))),
    },
    Function {
        name: LOWER,
        value_at: 0,
        constant_at: None,
        doc: "the value in lower case by Unicode's full rules",
        read: |_| Ok(Box::new(|value| Answer::Text(value.to_lowercase()))),
    },
    Function {
        name: CHOMP,
        value_at: 0,
        constant_at: None,
        doc: "the value without a final line break",
        read: |_| Ok(Box::new(|value| Answer::Text(value.strip_suffix('\n').unwrap_or(value).to_owned()))),
    },
    Function {
        name: NUMBER,
        value_at: 0,
        constant_at: None,
        doc: "the number that the value is in JSON's grammar, else NULL",
        read: |_| Ok(Box::new(|value| compare::number(value).map_or(Answer::Null, Answer::Real))),
    },
    Function {
        name: SEVERITY,
        value_at: 0,
        constant_at: None,
        doc: "the syslog severity that the value spells, 0 to 7, else NULL",
        read: |_| {
            Ok(Box::new(|value| {
                Severity::parse(value).map_or(Answer::Null, |severity| Answer::Integer(severity.code().into()))
            }))
        },
    },
    Function {
        name: FITS,
        value_at: 0,
        constant_at: Some(1),
        doc: "whether the value fits the pattern as Sigma writes it, in any case",
        read: |pattern| Ok(fits(pattern, false)),
    },
    Function {
        name: FITS_CASED,
        value_at: 0,
        constant_at: Some(1),
        doc: "whether the value fits the pattern as Sigma writes it",
        read: |pattern| Ok(fits(pattern, true)),
    },
    Function {
        name: CIDR,
        value_at: 0,
        constant_at: Some(1),
        doc: "whether the value is an address of the network",
        read: |network| {
            let network = cidr::compile(network).map_err(|error| error.to_string())?;
            Ok(Box::new(move |value| truth(network.contains(value))))
        },
    },
    Function {
        name: TIME_PART,
        value_at: 0,
        constant_at: Some(1),
        doc: "the part (minute, hour, day, week, month, year) of the time that the value is, in UTC, else NULL",
        read: |part| {
            let part = clock::TimePart::ALL
                .into_iter()
                .find(|known| known.as_str() == part)
                .ok_or_else(|| format!("there is no part {part:?} of a time"))?;
            Ok(Box::new(move |value| clock::time(value).map_or(Answer::Null, |time| Answer::Integer(part.of(time)))))
        },
    },
    Function {
        name: MILLIONTHS,
        value_at: 0,
        constant_at: Some(1),
        doc: "the number that the value is for correlations, in millionths: `high` × 10⁹ + `low`, else NULL",
        read: |part| match part {
            "high" => Ok(Box::new(|value| arithmetic::number(value).map_or(Answer::Null, |n| Answer::Integer(n.high)))),
            "low" => Ok(Box::new(|value| arithmetic::number(value).map_or(Answer::Null, |n| Answer::Integer(n.low)))),
            other => Err(format!("there is no part {other:?} of a number")),
        },
    },
    Function {
        name: IN_ORDER,
        value_at: 0,
        constant_at: Some(1),
        doc: "of a list of inputs (`0,2,1`), the most of those wanted that can be picked in order; -1 where one of \
              the unwanted is there: `wanted unwanted`, as bits",
        read: |constant| {
            let inputs = arithmetic::Inputs::read(constant).ok_or("two numbers are needed")?;
            Ok(Box::new(move |list| inputs.in_order(list).map_or(Answer::Null, Answer::Integer)))
        },
    },
    Function {
        name: PERCENTILE,
        value_at: 0,
        constant_at: Some(1),
        doc: "whether the percentile of a list (`high:low,…` of millionths) meets bounds: `95 >= 1500000 < 2000000`",
        read: |constant| {
            let percentile = arithmetic::Percentile::read(constant).ok_or("a percentile and bounds are needed")?;
            Ok(Box::new(move |list| percentile.holds(list).map_or(Answer::Null, truth)))
        },
    },
];

fn truth(holds: bool) -> Answer {
    Answer::Integer(holds.into())
}

fn fits(pattern: &str, cased: bool) -> Prepared {
    let op = text::compile(text::parse(pattern), cased);
    Box::new(move |value| truth(if cased { op.fits(value) } else { op.fits(&text::fold(value)) }))
}
