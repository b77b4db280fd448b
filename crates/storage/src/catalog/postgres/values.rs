//! How our values lie in PostgreSQL, and what becomes of those that it cannot hold.

pub(super) use crate::catalog::fields::{fit, no_nul};
use model::{AlertId, EventId, Timestamp};
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueFormat, PgValueRef, Postgres};
use sqlx::{Decode, Encode, Type};
use std::borrow::Cow;

// Numbers of the types, the same in every PostgreSQL (pg_type.dat).
const TIMESTAMPTZ: PgTypeInfo = PgTypeInfo::with_oid(Oid(1184));
const TIMESTAMPTZ_ARRAY: PgTypeInfo = PgTypeInfo::with_oid(Oid(1185));
const UUID: PgTypeInfo = PgTypeInfo::with_oid(Oid(2950));
const UUID_ARRAY: PgTypeInfo = PgTypeInfo::with_oid(Oid(2951));

/// 2000-01-01, from which PostgreSQL counts, in microseconds since 1970.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;
/// The years 1 to 9999: what every client of the database can read back.
const MICROS_MIN: i64 = -62_135_596_800_000_000;
const MICROS_MAX: i64 = 253_402_300_799_999_999;

/// A `timestamptz`. Times outside the years 1 to 9999 (of other programs, `infinity` among them) become
/// the nearest end, both ways.
#[derive(Debug, Clone, Copy)]
pub(super) struct Time(pub Timestamp);

impl Type<Postgres> for Time {
    fn type_info() -> PgTypeInfo {
        TIMESTAMPTZ
    }
}

impl PgHasArrayType for Time {
    fn array_type_info() -> PgTypeInfo {
        TIMESTAMPTZ_ARRAY
    }
}

impl Encode<'_, Postgres> for Time {
    fn encode_by_ref(&self, buf: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let micros = self.0.micros().clamp(MICROS_MIN, MICROS_MAX) - POSTGRES_EPOCH_MICROS;
        buf.extend_from_slice(&micros.to_be_bytes());
        Ok(IsNull::No)
    }
}

impl Decode<'_, Postgres> for Time {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        let RawTime(micros) = RawTime::decode(value)?;
        let micros = micros.saturating_add(POSTGRES_EPOCH_MICROS).clamp(MICROS_MIN, MICROS_MAX);
        Ok(Self(Timestamp::from_micros(micros)))
    }
}

/// A `timestamptz` as it lies in the database: microseconds since 2000, the ends of the numbers are
/// infinite. What a cursor keeps, so that no row is met twice.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawTime(pub i64);

impl Type<Postgres> for RawTime {
    fn type_info() -> PgTypeInfo {
        TIMESTAMPTZ
    }
}

impl Encode<'_, Postgres> for RawTime {
    fn encode_by_ref(&self, buf: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buf.extend_from_slice(&self.0.to_be_bytes());
        Ok(IsNull::No)
    }
}

impl Decode<'_, Postgres> for RawTime {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        Ok(Self(i64::from_be_bytes(binary(&value)?.try_into()?)))
    }
}

/// An id of an event or an alert, as `uuid`: 16 bytes, high first, so their order is that of
/// acceptance.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key(pub u128);

impl Key {
    pub fn event(self) -> EventId {
        EventId::from_u128(self.0)
    }
    pub fn alert(self) -> AlertId {
        AlertId::from_u128(self.0)
    }
}

impl Type<Postgres> for Key {
    fn type_info() -> PgTypeInfo {
        UUID
    }
}

impl PgHasArrayType for Key {
    fn array_type_info() -> PgTypeInfo {
        UUID_ARRAY
    }
}

impl Encode<'_, Postgres> for Key {
    fn encode_by_ref(&self, buf: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buf.extend_from_slice(&self.0.to_be_bytes());
        Ok(IsNull::No)
    }
}

impl Decode<'_, Postgres> for Key {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        Ok(Self(u128::from_be_bytes(binary(&value)?.try_into()?)))
    }
}

fn binary<'r>(value: &PgValueRef<'r>) -> Result<&'r [u8], BoxDynError> {
    match value.format() {
        PgValueFormat::Binary => value.as_bytes(),
        PgValueFormat::Text => Err("a value came as text".into()),
    }
}

/// The nearest number that an `INTEGER` column holds.
pub(super) fn int4(n: i64) -> i32 {
    i32::try_from(n).unwrap_or(if n < 0 { i32::MIN } else { i32::MAX })
}

/// A JSON text that `jsonb` takes: `\u0000` and escapes of half a surrogate pair become U+FFFD.
pub(super) fn jsonb(json: &str) -> Cow<'_, str> {
    let json = no_nul(json);
    if !json.contains("\\u") {
        return json;
    }
    let bytes = json.as_bytes();
    let mut clean = String::with_capacity(json.len());
    let (mut copied, mut at) = (0, 0);
    while at < bytes.len() {
        if bytes[at] != b'\\' {
            at += 1;
            continue;
        }
        let unit = unit_at(bytes, at);
        let (taken, bad) = match unit {
            None => (2, false), // another escape, `\\` among them
            Some(0xd800..=0xdbff) if matches!(unit_at(bytes, at + 6), Some(0xdc00..=0xdfff)) => (12, false),
            Some(0 | 0xd800..=0xdfff) => (6, true),
            Some(_) => (6, false),
        };
        if bad {
            clean.push_str(&json[copied..at]);
            clean.push_str("\\ufffd");
            copied = at + taken;
        }
        at += taken;
    }
    clean.push_str(&json[copied..]);
    Cow::Owned(clean)
}

/// The code unit of a `\uXXXX` at `at`.
fn unit_at(bytes: &[u8], at: usize) -> Option<u16> {
    let hex = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    u16::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()
}

/// A JSON text without the spaces that `jsonb` puts between its parts.
pub(super) fn compact(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let (mut inside, mut escaped) = (false, false);
    for c in json.chars() {
        if inside {
            inside = escaped || c != '"';
            escaped = c == '\\' && !escaped;
        } else if c == '"' {
            inside = true;
        } else if c.is_ascii_whitespace() {
            continue;
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_do_not_fit_are_cut_and_stay_different() {
        assert_eq!(fit("router-1", 255), "router-1");
        assert_eq!(fit(&"ö".repeat(255), 255), "ö".repeat(255));
        assert_eq!(fit("a\0b", 255), "a\u{fffd}b");
        let (a, b) = (format!("{}a", "x".repeat(300)), format!("{}b", "x".repeat(300)));
        assert_eq!(fit(&a, 255).chars().count(), 255);
        assert_ne!(fit(&a, 255), fit(&b, 255));
        assert_eq!(fit(&a, 255), fit(&a.clone(), 255));
        assert!(fit(&a, 255).starts_with("xxx") && fit(&a, 36).contains('…'));
    }

    #[test]
    fn json_that_jsonb_refuses_is_changed_only_there() {
        for (json, expected) in [
            (r#"{"a":"b"}"#, r#"{"a":"b"}"#),
            (r#"{"a":"\u0000x"}"#, r#"{"a":"\ufffdx"}"#),
            (r#"{"a":"\\u0000"}"#, r#"{"a":"\\u0000"}"#),
            (r#"{"a":"\\\u0000"}"#, r#"{"a":"\\\ufffd"}"#),
            (r#""\ud83d\ude00 \uD83D! \ude00""#, r#""\ud83d\ude00 \ufffd! \ufffd""#),
            (r#""\ud83d\ud83d\ude00""#, r#""\ufffd\ud83d\ude00""#),
            (r#""\u00e4\n\u000a""#, r#""\u00e4\n\u000a""#),
            (r#""\ud8"#, r#""\ud8"#),
            ("\\", "\\"),
        ] {
            assert_eq!(jsonb(json), expected, "{json}");
        }
    }

    #[test]
    fn spaces_inside_strings_stay() {
        let json = r#"{"a b": ["c \" d", 1], "e\\": null}"#;
        assert_eq!(compact(json), r#"{"a b":["c \" d",1],"e\\":null}"#);
    }

    #[test]
    fn a_rule_id_that_no_integer_holds_becomes_the_nearest() {
        assert_eq!((int4(5), int4(i64::MAX), int4(i64::MIN)), (5, i32::MAX, i32::MIN));
    }
}
