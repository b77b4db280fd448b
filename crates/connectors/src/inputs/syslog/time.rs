//! Timestamps as devices write them, without a regex and without allocation.
//!
//! Known forms (RFC 5424 §6.2.3, RFC 3164 §4.1.2 and what is really sent):
//! `Oct 11 22:14:15`, `Oct 11 2026 22:14:15`, `Oct 11 22:14:15 2026`, `2026 Oct 11 22:14:15`,
//! `11 Oct 2026 22:14:15`, `Sun Oct 11 …`, `2026-10-11T22:14:15.123+02:00`, `2026-10-11 22:14:15`,
//! `2026/10/11 22:14:15`; with Cisco's `*` and `.` in front, fractions, and a zone behind.

use super::calendar::{DAY, civil_from_days, days_from_civil, days_in_month};
use super::parse::ParseContext;
use model::Timestamp;

/// A device may run this far ahead (wrong zone, wrong clock) and is still believed.
const AHEAD_SECS: i64 = DAY;
/// A date before 2000-01-02 UTC is a clock that was never set, not an event.
const EARLIEST_SECS: i64 = 946_771_200;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Zone {
    /// The text names none: the configured zone.
    Local,
    /// Seconds east of UTC.
    Fixed(i64),
}

/// What the device wrote, not yet an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    year: Option<i64>,
    month: u8,
    day: u8,
    second_of_day: i64,
    micros: i64,
    zone: Zone,
    /// Cisco's `*`: the clock was never set.
    doubtful: bool,
}

/// Reads a stamp at the start of `text`; also says how many bytes it took, zone included.
pub(super) fn scan(text: &[u8]) -> Option<(Stamp, usize)> {
    let mut cursor = Cursor { text, at: 0 };
    // Most lines that carry no stamp fail on their first byte.
    let doubtful = match cursor.peek()? {
        b'*' => cursor.skip(true),
        b'.' => cursor.skip(false),
        _ => false,
    };
    cursor.weekday();
    let mut stamp = if cursor.peek()?.is_ascii_digit() { cursor.leading_digit()? } else { cursor.leading_month()? };
    stamp.doubtful = doubtful;
    Some((stamp, cursor.at))
}

/// Seconds since the epoch with an optional fraction, as Meraki writes them.
pub(super) fn scan_epoch(text: &[u8]) -> Option<(Timestamp, usize)> {
    let mut cursor = Cursor { text, at: 0 };
    let secs = cursor.digits(10, 10)?;
    let micros = cursor.fraction();
    (cursor.peek() == Some(b' ')).then(|| (Timestamp::from_micros(secs * 1_000_000 + micros), cursor.at))
}

/// The instant, if the stamp is one that can be believed at `received_at`.
pub(super) fn resolve(stamp: &Stamp, ctx: &ParseContext<'_>) -> Option<Timestamp> {
    let received = ctx.received_at.secs();
    let naive = |year: i64| {
        (stamp.day <= days_in_month(year, stamp.month))
            .then(|| days_from_civil(year, i64::from(stamp.month), i64::from(stamp.day)) * DAY + stamp.second_of_day)
    };
    let (year, naive) = match stamp.year {
        Some(year) => (year, naive(year)?),
        None => {
            let now = civil_from_days(received.div_euclid(DAY)).0;
            [now - 1, now, now + 1]
                .into_iter()
                .filter_map(|year| Some((year, naive(year)?)))
                .min_by_key(|(_, secs)| (secs - received).abs())?
        }
    };
    let secs = match stamp.zone {
        Zone::Fixed(east) => naive - east,
        Zone::Local => match ctx.timezone.to_fixed_offset() {
            Ok(offset) => naive - i64::from(offset.seconds()),
            Err(_) => local(stamp, year, ctx)?,
        },
    };
    sane(secs, stamp.doubtful, received).then(|| Timestamp::from_micros(secs * 1_000_000 + stamp.micros))
}

/// Whether an instant from a device can be believed.
pub(super) fn believable(t: Timestamp, ctx: &ParseContext<'_>) -> bool {
    sane(t.secs(), false, ctx.received_at.secs())
}

fn sane(secs: i64, doubtful: bool, received: i64) -> bool {
    let ahead = secs.saturating_sub(received);
    ahead <= AHEAD_SECS && secs >= EARLIEST_SECS && (!doubtful || ahead >= -DAY)
}

fn local(stamp: &Stamp, year: i64, ctx: &ParseContext<'_>) -> Option<i64> {
    let s = stamp.second_of_day;
    let part = |v: i64| i8::try_from(v).ok();
    let civil = jiff::civil::DateTime::new(
        i16::try_from(year).ok()?,
        part(i64::from(stamp.month))?,
        part(i64::from(stamp.day))?,
        part(s / 3_600)?,
        part(s / 60 % 60)?,
        part(s % 60)?,
        0,
    );
    ctx.timezone.to_ambiguous_timestamp(civil.ok()?).compatible().ok().map(jiff::Timestamp::as_second)
}

struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }
    fn peek_at(&self, n: usize) -> Option<u8> {
        self.text.get(self.at + n).copied()
    }
    fn skip<T>(&mut self, value: T) -> T {
        self.at += 1;
        value
    }
    fn eat(&mut self, byte: u8) -> Option<()> {
        (self.peek() == Some(byte)).then(|| self.at += 1)
    }
    fn spaces(&mut self) -> Option<()> {
        self.eat(b' ')?;
        while self.eat(b' ').is_some() {}
        Some(())
    }

    fn digits(&mut self, min: usize, max: usize) -> Option<i64> {
        let mut value = 0i64;
        let mut n = 0;
        while n < max {
            match self.peek() {
                Some(b) if b.is_ascii_digit() => value = value * 10 + i64::from(b - b'0'),
                _ => break,
            }
            self.at += 1;
            n += 1;
        }
        (n >= min).then_some(value)
    }

    /// `.123` or `,123` in microseconds; takes nothing when there is none.
    fn fraction(&mut self) -> i64 {
        if !matches!(self.peek(), Some(b'.' | b',')) || !self.peek_at(1).is_some_and(|b| b.is_ascii_digit()) {
            return 0;
        }
        self.at += 1;
        let mut value = 0;
        let mut scale = 100_000;
        for _ in 0..9 {
            match self.peek() {
                Some(b) if b.is_ascii_digit() => value += i64::from(b - b'0') * scale,
                _ => break,
            }
            scale /= 10;
            self.at += 1;
        }
        value
    }

    fn month(&mut self) -> Option<u8> {
        let name = self.text.get(self.at..self.at + 3)?;
        let month = match name {
            b"Jan" | b"jan" | b"JAN" => 1,
            b"Feb" | b"feb" | b"FEB" => 2,
            b"Mar" | b"mar" | b"MAR" => 3,
            b"Apr" | b"apr" | b"APR" => 4,
            b"May" | b"may" | b"MAY" => 5,
            b"Jun" | b"jun" | b"JUN" => 6,
            b"Jul" | b"jul" | b"JUL" => 7,
            b"Aug" | b"aug" | b"AUG" => 8,
            b"Sep" | b"sep" | b"SEP" => 9,
            b"Oct" | b"oct" | b"OCT" => 10,
            b"Nov" | b"nov" | b"NOV" => 11,
            b"Dec" | b"dec" | b"DEC" => 12,
            _ => return None,
        };
        self.at += 3;
        Some(month)
    }

    fn weekday(&mut self) {
        if let Some(b"Mon" | b"Tue" | b"Wed" | b"Thu" | b"Fri" | b"Sat" | b"Sun") = self.text.get(self.at..self.at + 3)
        {
            let comma = usize::from(self.peek_at(3) == Some(b','));
            if self.peek_at(3 + comma) == Some(b' ') {
                self.at += 4 + comma;
            }
        }
    }

    /// `HH:MM:SS` with a fraction: second of the day and microseconds. A leap second is the second
    /// before it.
    fn clock(&mut self) -> Option<(i64, i64)> {
        let hour = self.digits(1, 2)?;
        self.eat(b':')?;
        let minute = self.digits(2, 2)?;
        self.eat(b':')?;
        let second = self.digits(2, 2)?;
        if hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let micros = self.fraction();
        Some((hour * 3_600 + minute * 60 + second.min(59), micros))
    }

    /// A year alone: four digits, then no further digit.
    fn year(&mut self) -> Option<i64> {
        let start = self.at;
        match self.digits(4, 4) {
            Some(year) if (1970..=2199).contains(&year) && !self.peek().is_some_and(|b| b.is_ascii_digit()) => {
                Some(year)
            }
            _ => {
                self.at = start;
                None
            }
        }
    }

    fn leading_month(&mut self) -> Option<Stamp> {
        let month = self.month()?;
        self.spaces()?;
        let day = self.day()?;
        let _ = self.eat(b',');
        self.spaces()?;
        let mut year = None;
        if self.peek_at(4) == Some(b' ') {
            year = self.year();
            if year.is_some() {
                self.spaces()?;
            }
        }
        let (second_of_day, micros) = self.clock()?;
        let mut zone = self.zone();
        if year.is_none() {
            let start = self.at;
            year = self.spaces().and_then(|()| self.year()).filter(|_| self.at_boundary());
            if year.is_none() {
                self.at = start;
            } else if zone == Zone::Local {
                zone = self.zone();
            }
        }
        Some(Stamp { year, month, day, second_of_day, micros, zone, doubtful: false })
    }

    fn leading_digit(&mut self) -> Option<Stamp> {
        if let Some(year) = self.year() {
            return match self.peek()? {
                sep @ (b'-' | b'/') => self.iso(year, sep),
                _ => {
                    self.spaces()?;
                    let month = self.month()?;
                    self.spaces()?;
                    let day = self.day()?;
                    self.spaces()?;
                    self.rest_of(year, month, day)
                }
            };
        }
        let day = self.day()?;
        self.spaces()?;
        let month = self.month()?;
        self.spaces()?;
        let year = self.year()?;
        self.spaces()?;
        self.rest_of(year, month, day)
    }

    fn iso(&mut self, year: i64, separator: u8) -> Option<Stamp> {
        self.at += 1;
        let month = self.digits(2, 2)?;
        self.eat(separator)?;
        let day = self.day()?;
        if !matches!(self.peek()?, b'T' | b't' | b' ') || !(1..=12).contains(&month) {
            return None;
        }
        self.at += 1;
        self.rest_of(year, u8::try_from(month).ok()?, day)
    }

    fn rest_of(&mut self, year: i64, month: u8, day: u8) -> Option<Stamp> {
        let (second_of_day, micros) = self.clock()?;
        let zone = self.zone();
        Some(Stamp { year: Some(year), month, day, second_of_day, micros, zone, doubtful: false })
    }

    fn day(&mut self) -> Option<u8> {
        self.digits(1, 2).filter(|d| (1..=31).contains(d)).and_then(|d| u8::try_from(d).ok())
    }

    fn at_boundary(&self) -> bool {
        match self.peek() {
            None | Some(b' ' | b'\t') => true,
            // Cisco's colon ends the stamp; that of `2001:db8::1` does not.
            Some(b':') => matches!(self.peek_at(1), None | Some(b' ' | b'%')),
            Some(_) => false,
        }
    }

    /// `Z`, `+02:00`, ` +0200`, ` UTC`, ` TZ-6`; takes nothing when there is none.
    fn zone(&mut self) -> Zone {
        let start = self.at;
        match self.zone_here() {
            Some(zone) if self.at_boundary() => zone,
            _ => {
                self.at = start;
                Zone::Local
            }
        }
    }

    fn zone_here(&mut self) -> Option<Zone> {
        match self.peek()? {
            b'Z' | b'z' => return Some(self.skip(Zone::Fixed(0))),
            b'+' | b'-' => return self.offset(),
            b' ' => self.at += 1,
            _ => return None,
        }
        match self.peek()? {
            b'+' | b'-' => return self.offset(),
            b if b.is_ascii_uppercase() => {}
            _ => return None,
        }
        let name = &self.text[self.at..];
        let len = name.iter().take(6).take_while(|b| b.is_ascii_uppercase()).count();
        let name = &name[..len];
        self.at += len;
        if name == b"TZ" {
            return self.offset();
        }
        let hours = match name {
            b"UTC" | b"GMT" | b"Z" | b"WET" => 0,
            b"CET" | b"MET" | b"WEST" => 1,
            b"CEST" | b"MEST" | b"EET" => 2,
            b"EEST" | b"MSK" => 3,
            b"JST" | b"KST" => 9,
            b"AEST" => 10,
            b"AEDT" => 11,
            b"EST" => -5,
            b"EDT" => -4,
            b"CDT" => -5,
            b"MST" => -7,
            b"MDT" => -6,
            b"PST" => -8,
            b"PDT" => -7,
            // CST, IST, BST are several zones: ours, if what follows proves that it is a zone.
            _ if len >= 2 && (self.peek() == Some(b':') || self.year_follows()) => return Some(Zone::Local),
            _ => return None,
        };
        Some(Zone::Fixed(hours * 3_600))
    }

    fn year_follows(&self) -> bool {
        let mut ahead = Cursor { text: self.text, at: self.at };
        ahead.eat(b' ').and_then(|()| ahead.year()).is_some() && ahead.at_boundary()
    }

    /// `+02:00`, `-0330`, `-6`.
    fn offset(&mut self) -> Option<Zone> {
        let sign = match self.peek()? {
            b'+' => 1,
            b'-' => -1,
            _ => return None,
        };
        self.at += 1;
        let hours = self.digits(1, 2)?;
        let colon = self.peek() == Some(b':') && self.peek_at(1).is_some_and(|b| b.is_ascii_digit());
        if colon {
            self.at += 1;
        }
        let minutes = if self.peek().is_some_and(|b| b.is_ascii_digit()) { self.digits(2, 2)? } else { 0 };
        (hours <= 18 && minutes < 60).then(|| Zone::Fixed(sign * (hours * 3_600 + minutes * 60)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(received: &str, zone: &str, text: &str) -> Option<String> {
        let zone = jiff::tz::TimeZone::get(zone).unwrap();
        let ctx = ParseContext { received_at: Timestamp::parse(received).unwrap(), peer_ip: None, timezone: &zone };
        let (stamp, n) = scan(text.as_bytes())?;
        let rest = &text[n..];
        assert!(rest.is_empty() || rest.starts_with([' ', ':']), "{text}: left {rest:?}");
        resolve(&stamp, &ctx).map(Timestamp::rfc3339)
    }

    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(at("2026-11-22T10:00:00Z", "UTC", text).as_deref(), expected, "{text}");
    }

    #[test]
    fn stamps_of_every_known_form_are_read() {
        let full = Some("2026-10-11T22:14:15.000000Z");
        for text in [
            "Oct 11 22:14:15 host",
            "Oct 11 2026 22:14:15 host",
            "Oct 11 22:14:15 2026 host",
            "Oct 11 22:14:15 UTC 2026 host",
            "Oct 11 22:14:15 CST 2026 host",
            "2026 Oct 11 22:14:15 host",
            "11 Oct 2026 22:14:15",
            "Sun Oct 11 22:14:15 2026",
            "Sun, 11 Oct 2026 22:14:15 GMT",
            "2026-10-11T22:14:15Z",
            "2026-10-11 22:14:15 host",
            "2026/10/11 22:14:15",
            "2026-10-12T00:14:15+02:00",
            "2026-10-11T16:44:15 -0530",
            "Oct 11 2026 22:14:15+00:00 host",
            "Oct 12 00:14:15 CEST: %SYS",
            "Oct 11 16:14:15 TZ-6 host",
            ".Oct 11 22:14:15 UTC: %SYS",
        ] {
            check(text, full);
        }
        check("Oct  1 22:14:15.123", Some("2026-10-01T22:14:15.123000Z"));
        check("2026-10-11T22:14:15.003001+00:00 host", Some("2026-10-11T22:14:15.003001Z"));
        check("Dec 31 23:59:60 host", None); // five weeks ahead
        check("Oct 11 22:14:60 host", Some("2026-10-11T22:14:59.000000Z"));
        for bad in [
            "",
            "*",
            "Oct",
            "Oct 32 00:00:00",
            "Oct 11 24:00:00",
            "Feb 30 2026 00:00:00",
            "2026-13-01T00:00:00",
            "hello",
            "4",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn a_missing_year_is_the_one_nearest_to_the_arrival() {
        assert_eq!(at("2027-01-01T00:00:05Z", "UTC", "Dec 31 23:59:59").unwrap(), "2026-12-31T23:59:59.000000Z");
        assert_eq!(at("2026-12-31T23:59:58Z", "UTC", "Jan  1 00:00:03").unwrap(), "2027-01-01T00:00:03.000000Z");
        assert_eq!(at("2028-03-01T00:00:00Z", "UTC", "Feb 29 12:00:00").unwrap(), "2028-02-29T12:00:00.000000Z");
        assert_eq!(at("2026-03-01T00:00:00Z", "UTC", "Feb 29 12:00:00"), None);
    }

    #[test]
    fn a_stamp_without_zone_is_in_the_configured_one() {
        assert_eq!(
            at("2026-07-01T10:00:00Z", "Europe/Berlin", "Jul  1 12:00:00").unwrap(),
            "2026-07-01T10:00:00.000000Z"
        );
        assert_eq!(
            at("2026-07-01T10:00:00Z", "Europe/Berlin", "Jul  1 12:00:00 UTC:").unwrap(),
            "2026-07-01T12:00:00.000000Z"
        );
        assert_eq!(
            at("2026-07-01T10:00:00Z", "Europe/Berlin", "Jul  1 12:00:00 IST:").unwrap(),
            "2026-07-01T10:00:00.000000Z"
        );
    }

    #[test]
    fn a_clock_that_was_never_set_is_not_believed() {
        check("*Mar  1 00:00:21.123 UTC: %SYS", None);
        check("*Nov 22 09:59:00.123 UTC: %SYS", Some("2026-11-22T09:59:00.123000Z"));
        check("Jan  1 1993 00:00:00", None);
        check("2026-11-24T10:00:01Z", None);
        check("2003-10-11T22:14:15.003Z", Some("2003-10-11T22:14:15.003000Z"));
        check("2020-01-01T00:00:00Z", Some("2020-01-01T00:00:00.000000Z"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(text in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = scan(&text);
            let _ = scan_epoch(&text);
        }
    }
}
