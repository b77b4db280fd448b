//! Sigma's `minute`, `hour`, `day`, `week`, `month`, `year`: a part of a time in UTC, compared as a
//! number. The value has to be an RFC 3339 time, as [`Timestamp::parse`] reads it.

use super::Value;
use super::compare::Order;
use crate::RuleError;
use model::Timestamp;

/// Part of a time, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimePart {
    /// 0–59
    Minute,
    /// 0–23
    Hour,
    /// Of the month, 1–31.
    Day,
    /// ISO 8601, 1–53.
    Week,
    /// 1–12
    Month,
    Year,
}

impl TimePart {
    /// All parts.
    pub const ALL: [Self; 6] = [Self::Minute, Self::Hour, Self::Day, Self::Week, Self::Month, Self::Year];

    /// As the modifier is called.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
        }
    }

    /// The part of `time`.
    pub fn of(self, time: Timestamp) -> i64 {
        let utc = time.utc();
        match self {
            Self::Minute => i64::from(utc.minute()),
            Self::Hour => i64::from(utc.hour()),
            Self::Day => i64::from(utc.day()),
            Self::Week => i64::from(utc.date().iso_week_date().week()),
            Self::Month => i64::from(utc.month()),
            Self::Year => i64::from(utc.year()),
        }
    }
}

/// A comparison of a part of a time with a number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Op {
    part: TimePart,
    order: Order,
    number: i64,
}

/// Refuses what is not a whole number.
pub fn compile(part: TimePart, order: Order, written: &str) -> Result<Op, RuleError> {
    match written.trim().parse() {
        Ok(number) => Ok(Op { part, order, number }),
        Err(_) => Err(RuleError::Number { written: written.to_owned() }),
    }
}

/// Whether the value is a time whose part stands so.
pub fn matches(op: &Op, value: &Value<'_>) -> bool {
    match value {
        Value::Text { raw, .. } => op.holds(raw),
        Value::Absent | Value::Oid(_) | Value::Severity(_) => false,
    }
}

impl Op {
    /// Whether the text is a time whose part stands so.
    pub fn holds(&self, text: &str) -> bool {
        Timestamp::parse(text).is_some_and(|time| self.order.holds(self.part.of(time) as f64, self.number as f64))
    }
    pub fn part(&self) -> TimePart {
        self.part
    }
    pub fn order(&self) -> Order {
        self.order
    }
    pub fn number(&self) -> i64 {
        self.number
    }
    /// In words, to stand after the field's name.
    pub fn describe(&self) -> String {
        format!("is a time whose {} is {} {}", self.part.as_str(), self.order, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_times_are_in_utc() {
        for (time, parts) in [
            ("2026-11-26T03:04:05Z", [4, 3, 26, 48, 11, 2026]),
            ("2024-12-30T23:59:59Z", [59, 23, 30, 1, 12, 2024]),
            ("2021-01-03T00:00:00Z", [0, 0, 3, 53, 1, 2021]),
            ("2024-02-29T01:00:00+02:00", [0, 23, 28, 9, 2, 2024]),
        ] {
            let at = Timestamp::parse(time).expect(time);
            assert_eq!(TimePart::ALL.map(|part| part.of(at)), parts, "{time}");
        }
        assert!(!compile(TimePart::Hour, Order::Equal, "3").expect("a number").holds("three o'clock"));
    }
}
