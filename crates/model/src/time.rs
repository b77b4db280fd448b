//! Wall-clock instants: microseconds since the Unix epoch, UTC.

use jiff::fmt::rfc2822::DateTimePrinter;

/// An instant in microseconds since the Unix epoch (UTC). Copy, ordered, cheap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000))
    }
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }
    pub const fn micros(self) -> i64 {
        self.0
    }
    pub const fn millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }
    pub const fn secs(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// This instant plus `d`, saturating.
    pub fn plus(self, d: std::time::Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(d.as_micros()).unwrap_or(i64::MAX)))
    }

    /// This instant minus `d`, saturating.
    pub fn minus(self, d: std::time::Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(d.as_micros()).unwrap_or(i64::MAX)))
    }

    /// Time passed since `earlier`; zero when `earlier` is later (clocks step back).
    pub fn since(self, earlier: Self) -> std::time::Duration {
        std::time::Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Parses RFC 3339 (`2026-11-22T10:00:00.5Z`, any offset), the same with a space instead of
    /// `T`, without an offset (read as UTC), or a bare number of epoch seconds or milliseconds.
    /// `None` when the text is none of these.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Ok(t) = text.parse::<jiff::Timestamp>() {
            return Some(Self::from_jiff(t));
        }
        if let Ok(t) = text.parse::<jiff::civil::DateTime>() {
            return t.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|z| Self::from_jiff(z.timestamp()));
        }
        let number: f64 = text.parse().ok()?;
        // Epoch milliseconds pass 1e11 (year 5138 in seconds) since 1973.
        let secs = if number.abs() >= 1e11 { number / 1_000.0 } else { number };
        let micros = secs * 1e6;
        (micros.is_finite() && micros.abs() < 2.5e17).then_some(Self(micros as i64))
    }

    /// Parses what [`Self::rfc1123`] writes, in any time zone that RFC 2822 has.
    pub fn parse_rfc1123(text: &str) -> Option<Self> {
        jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok().map(Self::from_jiff)
    }

    /// RFC 3339 in UTC with microseconds, `2026-11-22T10:00:00.000000Z`: fixed width, so text order
    /// is time order.
    pub fn rfc3339(self) -> String {
        self.jiff().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
    }

    /// RFC 1123 as HTTP and the Web API write it: `Sun, 05 Jan 2020 00:00:00 GMT`; sub-seconds are
    /// cut (contract mutt §6).
    pub fn rfc1123(self) -> String {
        DateTimePrinter::new().timestamp_to_rfc9110_string(&self.jiff()).unwrap_or_else(|_| self.rfc3339())
    }

    /// `YYYY-MM-DD` in UTC: the name of an event partition.
    pub fn day(self) -> String {
        self.jiff().strftime("%Y-%m-%d").to_string()
    }

    /// As a `jiff` timestamp, clamped to the years jiff can represent.
    pub fn jiff(self) -> jiff::Timestamp {
        jiff::Timestamp::from_microsecond(self.0).unwrap_or(if self.0 < 0 {
            jiff::Timestamp::MIN
        } else {
            jiff::Timestamp::MAX
        })
    }

    /// Date and time of day in UTC.
    pub fn utc(self) -> jiff::civil::DateTime {
        self.jiff().to_zoned(jiff::tz::TimeZone::UTC).datetime()
    }

    pub fn from_jiff(t: jiff::Timestamp) -> Self {
        Self(t.as_microsecond())
    }
}

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.rfc3339())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &str, expected: Option<&str>) {
        assert_eq!(Timestamp::parse(input).map(Timestamp::rfc3339).as_deref(), expected, "{input}");
    }

    #[test]
    fn timestamps_of_every_common_form_are_read() {
        check("2026-11-22T10:00:00Z", Some("2026-11-22T10:00:00.000000Z"));
        check("2026-11-22T10:00:00.25+02:00", Some("2026-11-22T08:00:00.250000Z"));
        check("2026-11-22 10:00:00", Some("2026-11-22T10:00:00.000000Z"));
        check("1767225600", Some("2026-01-01T00:00:00.000000Z"));
        check("1767225600123", Some("2026-01-01T00:00:00.123000Z"));
        check("yesterday", None);
        check("", None);
        check("NaN", None);
    }

    #[test]
    fn the_http_form_cuts_sub_seconds() {
        assert_eq!(Timestamp::from_micros(1_578_182_400_999_999).rfc1123(), "Sun, 05 Jan 2020 00:00:00 GMT");
    }

    #[test]
    fn the_http_form_is_read_back() {
        let at = Timestamp::from_secs(1_578_182_400);
        assert_eq!(Timestamp::parse_rfc1123(&at.rfc1123()), Some(at));
        assert_eq!(Timestamp::parse_rfc1123("Sun, 05 Jan 2020 01:00:00 +0100"), Some(at));
        assert_eq!(Timestamp::parse_rfc1123("Sunday"), None);
    }

    #[test]
    fn a_clock_that_steps_back_gives_zero_not_a_panic() {
        assert_eq!(Timestamp::from_secs(1).since(Timestamp::from_secs(5)), std::time::Duration::ZERO);
        assert!(Timestamp::from_micros(i64::MAX).rfc3339().starts_with("9999"));
    }
}
