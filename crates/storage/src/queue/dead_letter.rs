//! The queue record of a dead letter: a JSON object that people read and `remediation` replays.

use crate::{StorageError, StorageResult};
use bytes::Bytes;
use model::{DeadLetter, DeadLetterSide, ErrorKind, Timestamp};
use serde::{Deserialize, Serialize};
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
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    original: Option<&'a RawValue>,
    /// …and otherwise its bytes in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    original_hex: Option<String>,
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

/// Decodes what [`encode_dead_letter`] wrote. `Invalid` for anything else.
pub fn decode_dead_letter(payload: &[u8]) -> StorageResult<DeadLetter> {
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
    fn a_json_original_stays_readable() {
        let original = br#"{"hostname":"","message":"x  y"}"#;
        let encoded = encode_dead_letter(&letter(original));
        assert!(std::str::from_utf8(&encoded).unwrap().contains(r#""original":{"hostname":"","message":"x  y"}"#));
        for odd in [&b" {}"[..], b"{} ", b"{}{}", b"", b"\xff"] {
            assert_eq!(decode_dead_letter(&encode_dead_letter(&letter(odd))).unwrap().original, odd);
        }
    }
}
