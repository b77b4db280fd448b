//! Sigma's `lt`, `lte`, `gt`, `gte`: the value as a number. A value is a number if its text is one in
//! JSON's grammar, nothing else: `007`, `0x10`, ` 1` and `1,5` are texts and never compare.

use super::Value;
use crate::RuleError;
use std::fmt;

/// How the value has to stand to the rule's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Order {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
}

impl Order {
    /// Whether it holds.
    pub fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
            Self::Greater => left > right,
            Self::GreaterOrEqual => left >= right,
            Self::Equal => left == right,
        }
    }

    /// As SQL and people write it.
    pub const fn sign(self) -> &'static str {
        match self {
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Equal => "=",
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sign())
    }
}

/// A comparison with a number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Op {
    order: Order,
    number: f64,
}

/// Refuses what is not a number.
pub fn compile(order: Order, written: &str) -> Result<Op, RuleError> {
    match number(written.trim()) {
        Some(number) => Ok(Op { order, number }),
        None => Err(RuleError::Number { written: written.to_owned() }),
    }
}

/// Whether the value is a number that stands so.
pub fn matches(op: &Op, value: &Value<'_>) -> bool {
    match value {
        Value::Text { raw, .. } => op.holds(raw),
        Value::Absent | Value::Oid(_) | Value::Severity(_) => false,
    }
}

impl Op {
    /// Whether the text is a number that stands so.
    pub fn holds(&self, text: &str) -> bool {
        number(text).is_some_and(|value| self.order.holds(value, self.number))
    }
    pub fn order(&self) -> Order {
        self.order
    }
    pub fn number(&self) -> f64 {
        self.number
    }
    /// In words, to stand after the field's name.
    pub fn describe(&self) -> String {
        format!("is a number {} {}", self.order, self.number)
    }
}

/// The number that a text is in JSON's grammar, if it is finite.
pub fn number(text: &str) -> Option<f64> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let mut rest = text.strip_prefix('-').unwrap_or(text);
    let whole = digits(rest);
    if whole == 0 || (whole > 1 && rest.starts_with('0')) {
        return None;
    }
    rest = &rest[whole..];
    if let Some(fraction) = rest.strip_prefix('.') {
        let length = digits(fraction);
        if length == 0 {
            return None;
        }
        rest = &fraction[length..];
    }
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        if exponent.is_empty() || digits(exponent) != exponent.len() {
            return None;
        }
        rest = "";
    }
    if !rest.is_empty() {
        return None;
    }
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_of_jsons_grammar_are_numbers() {
        for (text, expected) in [
            ("0", Some(0.0)),
            ("-1.5", Some(-1.5)),
            ("1e3", Some(1000.0)),
            ("1E-2", Some(0.01)),
            ("007", None),
            ("0x10", None),
            (" 1", None),
            ("1,5", None),
            ("1.", None),
            (".5", None),
            ("+1", None),
            ("1e", None),
            ("inf", None),
            ("NaN", None),
            ("1e999", None),
            ("", None),
            ("-", None),
            ("1a", None),
        ] {
            assert_eq!(number(text), expected, "{text}");
        }
        let op = compile(Order::GreaterOrEqual, "10").expect("a number");
        assert!(op.holds("10.0") && op.holds("11") && !op.holds("9") && !op.holds("ten"));
    }
}
