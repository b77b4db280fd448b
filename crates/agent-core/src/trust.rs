//! Whether there is a certificate, and when there should be another.

/// A certificate's times, in seconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Certificate {
    pub not_after_unix_s: i64,
    pub renew_after_unix_s: i64,
}

/// How the agent shows who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// By its token on each connection.
    Token,
    /// By a certificate, for which an enrolment token is changed.
    Certificate {
        /// The one there is.
        current: Option<Certificate>,
        /// Whether a token is there to enrol with.
        has_token: bool,
    },
}

/// What to do before the next connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    Connect,
    Enrol,
    /// Neither certificate nor token: somebody has to give it one.
    Nothing,
}

impl Trust {
    pub fn entry(&self, unix_ms: i64) -> Entry {
        match self {
            Self::Token => Entry::Connect,
            Self::Certificate { current: Some(current), .. } if unix_ms / 1_000 < current.not_after_unix_s => {
                Entry::Connect
            }
            Self::Certificate { has_token: true, .. } => Entry::Enrol,
            // This clock may be wrong, and who is to say so is the server.
            Self::Certificate { current: Some(_), has_token: false } => Entry::Connect,
            Self::Certificate { current: None, has_token: false } => Entry::Nothing,
        }
    }

    /// When to ask for the next certificate, in milliseconds since the epoch.
    pub fn renew_at_unix_ms(&self) -> Option<i64> {
        match self {
            Self::Token | Self::Certificate { current: None, .. } => None,
            Self::Certificate { current: Some(current), .. } => {
                let before = current.renew_after_unix_s.min(current.not_after_unix_s);
                Some(before.saturating_mul(1_000))
            }
        }
    }

    pub fn certified(&mut self, certificate: Certificate) {
        if let Self::Certificate { current, .. } = self {
            *current = Some(certificate);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_used_until_it_ends_and_then_the_token() {
        let current = Some(Certificate { not_after_unix_s: 100, renew_after_unix_s: 60 });
        for (trust, unix_ms, entry) in [
            (Trust::Token, 0, Entry::Connect),
            (Trust::Certificate { current, has_token: true }, 99_999, Entry::Connect),
            (Trust::Certificate { current, has_token: true }, 100_000, Entry::Enrol),
            (Trust::Certificate { current, has_token: false }, 100_000, Entry::Connect),
            (Trust::Certificate { current: None, has_token: true }, 0, Entry::Enrol),
            (Trust::Certificate { current: None, has_token: false }, 0, Entry::Nothing),
        ] {
            assert_eq!(trust.entry(unix_ms), entry, "{trust:?} at {unix_ms}");
        }
        assert_eq!(Trust::Certificate { current, has_token: false }.renew_at_unix_ms(), Some(60_000));
    }
}
