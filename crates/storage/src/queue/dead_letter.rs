//! The queue record of a dead letter: a JSON object that people read and `remediation` replays.
//!
//! The original's dead letters are the records themselves, without an envelope (contract mutt §3.2,
//! §3.8, §4): an event with the number of its tries in `_retry_count` or with the reason in
//! `shedding_reason`, an alert with `_moog_retry_count`. They are read as letters too.

use crate::{StorageError, StorageResult};
use bytes::Bytes;
use model::{DeadLetter, DeadLetterSide, ErrorKind, Timestamp, json};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

#[derive(Serialize, Deserialize)]
struct Record<'a> {
    side: String,
    reason: String,
    retryable: bool,
    attempts: u32,
    replays: u32,
    failed_at: String,
    /// The original where it is JSON, as it was, so that people can read it…
    #[serde(borrow, default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    original: Option<&'a RawValue>,
    /// …and otherwise its bytes in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    original_hex: Option<String>,
}

/// A value that is there, `null` included.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Encodes a dead letter; the original bytes survive unchanged.
pub fn encode_dead_letter(letter: &DeadLetter) -> Bytes {
    let text = std::str::from_utf8(&letter.original).ok();
    // A raw value loses white space around it: only an original without any is kept as JSON.
    let json = text.filter(|t| t.trim().len() == t.len()).and_then(|t| serde_json::from_str::<&RawValue>(t).ok());
    let record = Record {
        side: letter.side.as_str().to_owned(),
        reason: letter.reason.clone(),
        retryable: letter.retryable,
        attempts: letter.attempts,
        replays: letter.replays,
        failed_at: letter.failed_at.rfc3339(),
        original: json,
        original_hex: json.is_none().then(|| hex(&letter.original)),
    };
    Bytes::from(serde_json::to_vec(&record).expect("strings, numbers and valid JSON always encode"))
}

/// Reads a dead letter, ours or one of the original. `Invalid` for what is no JSON object.
pub fn decode_dead_letter(payload: &[u8]) -> StorageResult<DeadLetter> {
    let error = match decode_envelope(payload) {
        Ok(letter) => return Ok(letter),
        Err(error) => error,
    };
    // What has our keys and cannot be read is a damaged letter of ours, not one of the original.
    let bare = std::str::from_utf8(payload).ok().filter(|_| !is_enveloped(payload)).and_then(decode_bare);
    bare.ok_or(error)
}

/// Whether a record looks like an envelope that [`encode_dead_letter`] wrote: its first key says so,
/// behind the id that a queue puts in front of what it does not know. Quick, for those who have many
/// records that are none.
pub fn is_enveloped(payload: &[u8]) -> bool {
    let Some(members) = payload.trim_ascii_start().strip_prefix(b"{") else { return false };
    let members = members.trim_ascii_start();
    let behind_id = members.strip_prefix(b"\"_event_id\":\"").and_then(|id| {
        let end = id.iter().position(|byte| *byte == b'"')?;
        id[end..].strip_prefix(b"\",")
    });
    behind_id.unwrap_or(members).starts_with(b"\"side\"")
}

/// A record that lies among dead letters as it was when it failed.
fn decode_bare(record: &str) -> Option<DeadLetter> {
    // The original gave up after three tries more; as many replays are what we count.
    const REPLAYS_MAX: u32 = 3;
    serde_json::from_str::<&RawValue>(record).ok()?;
    let members = json::members(record)?;
    let get = |name: &str| members.iter().rfind(|(key, _)| key == name).map(|(_, value)| *value);
    let number = |name: &str| get(name).and_then(|value| value.parse::<u32>().ok()).unwrap_or(0);
    // Only an alert has the one and lacks the other.
    let is_alert = get("message_body").is_some() && get("message").is_none();
    let (side, tries) = if is_alert {
        (DeadLetterSide::Forwarder, number("_moog_retry_count"))
    } else {
        (DeadLetterSide::Alerter, number("_retry_count"))
    };
    let replays = number("_retry_count");
    let (replays, attempts) = if replays > REPLAYS_MAX { (0, replays) } else { (replays, tries) };
    let shed = get("shedding_reason").map(json::text);
    let original = match shed {
        Some(_) => json::without(record, |key| key == "shedding_reason")?,
        None => record.trim_ascii().to_owned(),
    };
    let reason = match (shed, attempts) {
        (Some(shed), _) => format!("put aside by another program: {shed}"),
        (None, 0) => "put here by another program, which does not say why".to_owned(),
        (None, tries) => format!("another program gave up after {tries} tries, and does not say why"),
    };
    Some(DeadLetter {
        side,
        reason,
        retryable: true,
        attempts,
        replays,
        // Not known; the record's own time is the nearest.
        failed_at: get("timestamp").map(json::text).and_then(|at| Timestamp::parse(&at)).unwrap_or_default(),
        original: Bytes::from(original),
    })
}

fn decode_envelope(payload: &[u8]) -> StorageResult<DeadLetter> {
    let invalid = |what: &str| StorageError::new(ErrorKind::Invalid, format!("dead letter: {what}"));
    let record: Record<'_> =
        serde_json::from_slice(payload).map_err(|e| StorageError::with_source(ErrorKind::Invalid, "dead letter", e))?;
    let original = match (record.original, &record.original_hex) {
        (Some(json), _) => Bytes::copy_from_slice(json.get().as_bytes()),
        (None, Some(digits)) => unhex(digits).ok_or_else(|| invalid("original_hex is not hexadecimal"))?,
        (None, None) => return Err(invalid("original is missing")),
    };
    Ok(DeadLetter {
        side: DeadLetterSide::parse(&record.side).ok_or_else(|| invalid("unknown side"))?,
        reason: record.reason,
        retryable: record.retryable,
        attempts: record.attempts,
        replays: record.replays,
        failed_at: Timestamp::parse(&record.failed_at).ok_or_else(|| invalid("failed_at is not a time"))?,
        original,
    })
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(digits: &str) -> Option<Bytes> {
    if !digits.is_ascii() || !digits.len().is_multiple_of(2) {
        return None;
    }
    (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn letter(original: &[u8]) -> DeadLetter {
        DeadLetter {
            side: DeadLetterSide::Alerter,
            reason: "hostname is empty".into(),
            retryable: false,
            attempts: 2,
            replays: 1,
            failed_at: Timestamp::from_secs(1_700_000_000),
            original: Bytes::copy_from_slice(original),
        }
    }

    proptest! {
        #[test]
        fn any_original_survives_byte_for_byte(original: Vec<u8>) {
            let letter = letter(&original);
            prop_assert_eq!(decode_dead_letter(&encode_dead_letter(&letter)).unwrap(), letter);
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes: Vec<u8>) {
            let _ = decode_dead_letter(&bytes);
        }
    }

    #[test]
    fn the_originals_letters_are_the_records_themselves() {
        let read = |record: &str| decode_dead_letter(record.as_bytes()).unwrap();
        let poison = r#"{"hostname": "h", "message": "m", "timestamp": "2026-01-01T00:00:00Z", "_retry_count": 4}"#;
        let letter = read(poison);
        assert_eq!((letter.side, letter.retryable), (DeadLetterSide::Alerter, true));
        assert_eq!((letter.attempts, letter.replays), (4, 0), "its tries were no replays of ours");
        assert_eq!(letter.original, poison);
        assert_eq!(letter.failed_at, Timestamp::parse("2026-01-01T00:00:00Z").unwrap());

        let shed = r#"{"hostname": "h", "message": "m", "timestamp": 1, "n": 340282366920938463463374607431768211455, "shedding_reason": "queue_depth_exceeded:2001>2000"}"#;
        let letter = read(shed);
        assert!(letter.reason.ends_with("queue_depth_exceeded:2001>2000"), "{}", letter.reason);
        assert_eq!(
            letter.original,
            r#"{"hostname":"h","message":"m","timestamp":1,"n":340282366920938463463374607431768211455}"#
        );
        assert_eq!((letter.attempts, letter.replays), (0, 0));

        let alert = r#"{"api_key": "k", "hostname": "h", "message_body": "m", "raw_json": {"message": 1}, "_moog_retry_count": 6}"#;
        let letter = read(alert);
        assert_eq!((letter.side, letter.attempts, letter.replays), (DeadLetterSide::Forwarder, 6, 0));
        assert_eq!(letter.original, alert);

        let replayed = read(r#"{"hostname": "h", "message": "m", "timestamp": 1, "_retry_count": 2}"#);
        assert_eq!(replayed.replays, 2, "so that nothing loops");
        for odd in ["[1]", "null", "text", "{\"a\":", "{\"a\":NaN}"] {
            assert!(decode_dead_letter(odd.as_bytes()).is_err(), "{odd}");
        }
    }

    #[test]
    fn a_damaged_envelope_is_none_of_the_originals() {
        assert!(decode_dead_letter(br#"{"side":"elsewhere","reason":"r"}"#).is_err());
    }

    #[test]
    fn a_json_original_stays_readable() {
        let original = br#"{"hostname":"","message":"x  y"}"#;
        let encoded = encode_dead_letter(&letter(original));
        assert!(std::str::from_utf8(&encoded).unwrap().contains(r#""original":{"hostname":"","message":"x  y"}"#));
        for odd in [&b" {}"[..], b"{} ", b"{}{}", b"", b"\xff", b"null", b"5"] {
            assert_eq!(decode_dead_letter(&encode_dead_letter(&letter(odd))).unwrap().original, odd);
        }
    }
}
