//! The short list of error kinds that code may branch on.

/// What went wrong, as far as a caller can act on it.
///
/// Families (`storage`, `connectors`) wrap it together with the source error; the HTTP edge maps it
/// to a status in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The named thing does not exist (or belongs to another tenant, which is the same).
    NotFound,
    /// The thing exists already, or changed under the caller.
    Conflict,
    /// A bound is reached: queue full, disk full. Nothing was taken; try again later.
    Full,
    /// The part that should do it is not reachable or not running; try again later.
    Unavailable,
    /// It did not answer in time; it may or may not have happened.
    Timeout,
    /// The input is wrong; trying again changes nothing.
    Invalid,
    /// The caller may not.
    Denied,
    /// A defect of ours, or a broken file; an operator must look.
    Internal,
}

impl ErrorKind {
    /// Whether the same call may succeed later without anybody changing the input.
    pub fn is_transient(self) -> bool {
        match self {
            Self::Full | Self::Unavailable | Self::Timeout => true,
            Self::NotFound | Self::Conflict | Self::Invalid | Self::Denied | Self::Internal => false,
        }
    }

    /// Lower-case name for logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Full => "full",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Invalid => "invalid",
            Self::Denied => "denied",
            Self::Internal => "internal",
        }
    }
}

impl std::fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
