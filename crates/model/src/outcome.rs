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
    /// Over the site-wide limit.
    RateLimited,
    /// The queue is at its bound.
    QueueFull,
    /// Storage refused (disk full, IO error).
    StorageFailed,
}

impl RejectReason {
    pub const ALL: [Self; 8] = [
        Self::Malformed,
        Self::MissingField,
        Self::TooLarge,
        Self::TooDeep,
        Self::Unauthorized,
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
            Self::RateLimited => "rate_limited",
            Self::QueueFull => "queue_full",
            Self::StorageFailed => "storage_failed",
        }
    }
}
