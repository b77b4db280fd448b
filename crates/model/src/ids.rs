//! Ids with a prefix over a sortable body: `evt_…`, `alr_…`. Parsing checks the prefix.

use crate::Timestamp;
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

/// Text is not an id of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an id of the form {expected}")]
pub struct IdError {
    pub text: String,
    pub expected: &'static str,
}

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const BODY_LEN: usize = 26;

fn encode(value: u128) -> [u8; BODY_LEN] {
    let mut out = [0u8; BODY_LEN];
    let mut rest = value;
    for slot in out.iter_mut().rev() {
        *slot = ALPHABET[(rest & 31) as usize];
        rest >>= 5;
    }
    out
}

fn decode(text: &str) -> Option<u128> {
    if text.len() != BODY_LEN {
        return None;
    }
    let mut value: u128 = 0;
    for (i, byte) in text.bytes().enumerate() {
        let digit = ALPHABET.iter().position(|c| *c == byte)? as u128;
        if i == 0 && digit > 7 {
            return None; // 26 digits of 5 bits hold 130 bits: the first may use three of its five
        }
        value = (value << 5) | digit;
    }
    Some(value)
}

macro_rules! prefixed_id {
    ($name:ident, $prefix:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let body = encode(self.0);
                f.write_str($prefix)?;
                f.write_str(std::str::from_utf8(&body).unwrap_or_default())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                text.strip_prefix($prefix).and_then(decode).map(Self).ok_or_else(|| IdError {
                    text: text.chars().take(64).collect(),
                    expected: concat!($prefix, "<26 characters 0-9a-z without i, l, o, u>"),
                })
            }
        }
        impl $name {
            pub const fn to_u128(self) -> u128 {
                self.0
            }
            pub const fn from_u128(value: u128) -> Self {
                Self(value)
            }
        }
    };
}

/// Identity of an accepted event.
///
/// Layout, high to low: 48 bits of milliseconds since the epoch (when it was accepted), 32 bits
/// naming one run of one accepting process, 48 bits counting up within that run. So ids sort by
/// time, a range of time is a range of ids, and the events of one run are a dense range of
/// numbers: "which have been worked" can be kept in bits instead of a row an event.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(u128);
prefixed_id!(EventId, "evt_");

const COUNTER_BITS: u32 = 48;
const RUN_BITS: u32 = 32;

impl EventId {
    pub const fn new(accepted: Timestamp, run: u32, counter: u64) -> Self {
        let ms = (accepted.millis() as u128) & ((1 << 48) - 1);
        let counter = (counter as u128) & ((1 << COUNTER_BITS) - 1);
        Self((ms << (RUN_BITS + COUNTER_BITS)) | ((run as u128) << COUNTER_BITS) | counter)
    }
    /// When the event was accepted, to the millisecond.
    pub const fn accepted(self) -> Timestamp {
        Timestamp::from_millis((self.0 >> (RUN_BITS + COUNTER_BITS)) as i64)
    }
    /// The run of the accepting process.
    pub const fn run(self) -> u32 {
        (self.0 >> COUNTER_BITS) as u32
    }
    /// The number within the run, below 2^48.
    pub const fn counter(self) -> u64 {
        (self.0 as u64) & ((1 << COUNTER_BITS) - 1)
    }
}

/// Gives out event ids of one process run. Shared by all inputs; never repeats.
#[derive(Debug)]
pub struct EventIdSource {
    run: u32,
    next: AtomicU64,
}

impl EventIdSource {
    /// `run` is random per process start; two runs that draw the same number and count over the
    /// same range in the same millisecond would be needed for two equal ids.
    pub const fn new(run: u32) -> Self {
        Self { run, next: AtomicU64::new(0) }
    }

    pub fn next(&self, now: Timestamp) -> EventId {
        EventId::new(now, self.run, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// Identity of an agent: 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentId(u128);
prefixed_id!(AgentId, "agt_");

/// Identity of an alert: derived from what caused it, so that working the same event twice gives
/// the same alert.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AlertId(u128);
prefixed_id!(AlertId, "alr_");

impl AlertId {
    /// The alert that `event` caused through `cause` (`rule`, `unhandled`, …). Keeps the event's
    /// time in front, so alerts sort by time too.
    pub fn derive(event: EventId, cause: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(event.to_u128().to_be_bytes());
        hash.update(cause.as_bytes());
        let digest = hash.finalize();
        let mut low = [0u8; 16];
        low[6..].copy_from_slice(&digest[..10]);
        let time = event.to_u128() >> (RUN_BITS + COUNTER_BITS) << (RUN_BITS + COUNTER_BITS);
        Self(time | u128::from_be_bytes(low))
    }
}

/// A tenant. Lower-case letters, digits, `-` and `_`, 1–64 characters; safe as a folder name and
/// as a queue subject.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrgId(std::sync::Arc<str>);

impl OrgId {
    /// The organisation of a single-tenant installation.
    pub const DEFAULT: &'static str = "default";

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for OrgId {
    fn default() -> Self {
        Self(Self::DEFAULT.into())
    }
}

impl FromStr for OrgId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let ok = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
        if ok {
            Ok(Self(text.into()))
        } else {
            Err(IdError { text: text.chars().take(64).collect(), expected: "1 to 64 characters of a-z, 0-9, - and _" })
        }
    }
}

impl fmt::Display for OrgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for OrgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ids_survive_text_and_keep_their_parts(ms in 0i64..(1 << 47), run: u32, counter in 0u64..(1 << 48)) {
            let id = EventId::new(Timestamp::from_millis(ms), run, counter);
            prop_assert_eq!(id.to_string().parse::<EventId>().unwrap(), id);
            prop_assert_eq!((id.accepted().millis(), id.run(), id.counter()), (ms, run, counter));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,40}") {
            let _ = text.parse::<EventId>();
            let _ = text.parse::<OrgId>();
        }
    }

    #[test]
    fn ids_sort_by_time_as_text_too() {
        let a = EventId::new(Timestamp::from_millis(1_000), u32::MAX, 9);
        let b = EventId::new(Timestamp::from_millis(1_001), 0, 0);
        assert!(a < b && a.to_string() < b.to_string());
    }

    #[test]
    fn an_id_of_another_kind_is_refused() {
        let event = EventId::new(Timestamp::from_millis(5), 1, 1);
        let alert = AlertId::derive(event, "rule");
        assert!(alert.to_string().parse::<EventId>().is_err());
        assert!("evt_zzzzzzzzzzzzzzzzzzzzzzzzzz".parse::<EventId>().is_err(), "over 128 bits");
    }

    #[test]
    fn the_same_cause_gives_the_same_alert_and_another_cause_another() {
        let event = EventId::new(Timestamp::from_millis(5), 1, 1);
        assert_eq!(AlertId::derive(event, "rule"), AlertId::derive(event, "rule"));
        assert_ne!(AlertId::derive(event, "rule"), AlertId::derive(event, "unhandled"));
    }

    #[test]
    fn an_organisation_name_is_safe_as_a_folder() {
        for bad in ["", "..", "a/b", "A", "a.b", "a b"] {
            assert!(bad.parse::<OrgId>().is_err(), "{bad}");
        }
        assert!("acme-1".parse::<OrgId>().is_ok());
    }
}
