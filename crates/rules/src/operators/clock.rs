//! Sigma's `minute`, `hour`, `day`, `week`, `month`, `year`: a part of a time in UTC, compared as a
//! number. What counts as a time is narrow, so that every engine reads the same: see [`time`].

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
        time(text).is_some_and(|time| self.order.holds(self.part.of(time) as f64, self.number as f64))
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

/// Shortest and longest year that is read; the engines agree about all between.
const YEARS: std::ops::RangeInclusive<u32> = 1970..=2199;

/// Reads a date (`2026-11-26`), or a date and a time of day (`2026-11-26T03:04:05.123Z`): `T` or a space
/// between them, up to nine digits of a second, `Z`, an offset (`+02:00`) or nothing for UTC; the years
/// 1970 to 2199 as written. Parts of a second are cut off. Everything else is no time.
pub fn time(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let (date, rest) = text.split_at_checked(10)?;
    if !shape(date, "dddd-dd-dd") || !YEARS.contains(&date[..4].parse().ok()?) {
        return None;
    }
    if rest.is_empty() {
        return Timestamp::parse(&format!("{date}T00:00:00Z"));
    }
    let (of_day, mut rest) = text.get(11..)?.split_at_checked(8)?;
    if !matches!(bytes[10], b'T' | b' ') || !shape(of_day, "dd:dd:dd") || of_day.ends_with("60") {
        return None;
    }
    if let Some(fraction) = rest.strip_prefix('.') {
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if !(1..=9).contains(&digits) {
            return None;
        }
        rest = &fraction[digits..];
    }
    let offset = match rest {
        "" | "Z" => "Z",
        // jiff reads offsets of more than a day.
        rest if shape(rest, "+dd:dd") && &rest[1..3] < "24" => rest,
        _ => return None,
    };
    Timestamp::parse(&format!("{date}T{of_day}{offset}"))
}

/// Whether the text is like this: `d` a digit, `+` a sign, anything else itself.
fn shape(text: &str, like: &str) -> bool {
    let fits = |(byte, like): (u8, u8)| match like {
        b'd' => byte.is_ascii_digit(),
        b'+' => matches!(byte, b'+' | b'-'),
        like => byte == like,
    };
    text.len() == like.len() && text.bytes().zip(like.bytes()).all(fits)
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

    #[test]
    fn only_times_that_every_engine_reads_alike_are_times() {
        for (text, read) in [
            ("2026-11-26", Some("2026-11-26T00:00:00.000000Z")),
            ("2026-11-26T03:04:05", Some("2026-11-26T03:04:05.000000Z")),
            ("2026-11-26 03:04:05.9999999", Some("2026-11-26T03:04:05.000000Z")),
            ("2026-11-26T03:04:05.1+02:30", Some("2026-11-26T00:34:05.000000Z")),
            ("1970-01-01T00:00:00+23:59", Some("1969-12-31T00:01:00.000000Z")),
            ("2199-12-31T23:59:59-00:01", Some("2200-01-01T00:00:59.000000Z")),
            ("2024-02-29", Some("2024-02-29T00:00:00.000000Z")),
            ("2100-02-29", None),
            ("2026-04-31", None),
            ("2026-11-26T24:00:00", None),
            ("2026-11-26T03:04:60Z", None),
            ("2026-11-26T03:04:05+24:00", None),
            ("2026-11-26T03:04:05+02", None),
            ("2026-11-26T03:04:05.Z", None),
            ("2026-11-26T03:04:05.0123456789Z", None),
            ("2026-11-26t03:04:05z", None),
            ("2026-11-26T03:04:05[Europe/Berlin]", None),
            ("2026-11-26T03:04", None),
            ("1969-12-31", None),
            ("2200-01-01", None),
            ("1767225600", None),
            (" 2026-11-26", None),
            ("2026-11-26T", None),
            ("2026-11-26é3:04:05", None),
            ("2026-11-2é", None),
        ] {
            assert_eq!(time(text).map(Timestamp::rfc3339).as_deref(), read, "{text}");
        }
    }
}
