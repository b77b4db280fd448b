//! What could not be worked, kept with everything needed to try again or to understand.

use crate::Timestamp;
use bytes::Bytes;

/// Which side of the pipeline gave up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeadLetterSide {
    /// Detection could not work an event; replays into the ingest queue.
    Alerter,
    /// Delivery could not place an alert; replays into the alert queue.
    Forwarder,
}

impl DeadLetterSide {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Alerter => "alerter",
            Self::Forwarder => "forwarder",
        }
    }
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Alerter, Self::Forwarder].into_iter().find(|s| s.as_str() == text)
    }
}

/// A dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub side: DeadLetterSide,
    /// A sentence a person can act on; no secret in it.
    pub reason: String,
    /// Whether trying again may help. `false`: remediation parks it at once.
    pub retryable: bool,
    /// Tries spent in the queue it came from, this stay.
    pub attempts: u32,
    /// How often remediation has replayed it: the one counter that decides about poison.
    pub replays: u32,
    pub failed_at: Timestamp,
    /// The queue record byte for byte.
    pub original: Bytes,
}
