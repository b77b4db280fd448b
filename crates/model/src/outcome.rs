//! Every accepted event ends in exactly one outcome; every refused one has a reason.

/// How an accepted event ended. Counters of these add up to the events accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// A rule matched: stored, audited, and alerted if the rule says so.
    Handled,
    /// No rule matched: stored and counted towards a meta-alert.
    Unhandled,
    /// It was worked before; nothing changed.
    Duplicate,
    /// It could not be worked and lies in the dead letters with its reason.
    DeadLettered,
}

impl Outcome {
    pub const ALL: [Self; 4] = [Self::Handled, Self::Unhandled, Self::Duplicate, Self::DeadLettered];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Handled => "handled",
            Self::Unhandled => "unhandled",
            Self::Duplicate => "duplicate",
            Self::DeadLettered => "dead_lettered",
        }
    }
}

/// Why something was not accepted at a door. Label of the reject counters, so the list is short
/// and closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RejectReason {
    /// Not what the protocol asks for: broken JSON, broken framing, not UTF-8.
    Malformed,
    /// A required field is absent.
    MissingField,
    /// Larger than the configured bound.
    TooLarge,
    /// Nested deeper than the configured bound.
    TooDeep,
    /// Wrong or missing credentials.
    Unauthorized,
    /// An SNMP community that is not configured.
    UnknownCommunity,
    /// An SNMPv3 user that is not configured, or not at this engine.
    UnknownUser,
    /// An SNMPv3 message whose digest is not its user's: a wrong password, or a forgery.
    WrongDigest,
    /// An SNMPv3 message that its user's key does not decrypt.
    DecryptionFailed,
    /// An authentic SNMPv3 message of another time: a replay, or a sender that forgot its clock.
    NotInTimeWindow,
    /// Sound, but of a version or kind that is not taken here.
    Unsupported,
    /// Over the site-wide limit.
    RateLimited,
    /// The queue is at its bound.
    QueueFull,
    /// Storage refused (disk full, IO error).
    StorageFailed,
}

impl RejectReason {
    pub const ALL: [Self; 14] = [
        Self::Malformed,
        Self::MissingField,
        Self::TooLarge,
        Self::TooDeep,
        Self::Unauthorized,
        Self::UnknownCommunity,
        Self::UnknownUser,
        Self::WrongDigest,
        Self::DecryptionFailed,
        Self::NotInTimeWindow,
        Self::Unsupported,
        Self::RateLimited,
        Self::QueueFull,
        Self::StorageFailed,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::MissingField => "missing_field",
            Self::TooLarge => "too_large",
            Self::TooDeep => "too_deep",
            Self::Unauthorized => "unauthorized",
            Self::UnknownCommunity => "unknown_community",
            Self::UnknownUser => "unknown_user",
            Self::WrongDigest => "wrong_digest",
            Self::DecryptionFailed => "decryption_failed",
            Self::NotInTimeWindow => "not_in_time_window",
            Self::Unsupported => "unsupported",
            Self::RateLimited => "rate_limited",
            Self::QueueFull => "queue_full",
            Self::StorageFailed => "storage_failed",
        }
    }
}
