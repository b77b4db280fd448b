//! Secrets: values that print as `***` and compare in constant time.

use sha2::{Digest, Sha256};
use std::fmt;
use subtle::ConstantTimeEq;

/// A secret text.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    text: String,
    /// SHA-256 of the text; computed once, as every request is compared with it.
    fingerprint: [u8; 32],
}

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        let fingerprint = Sha256::digest(text.as_bytes()).into();
        Self { text, fingerprint }
    }

    /// A new random secret of 256 bits, as `prefix` and 64 hex digits.
    pub fn generate(prefix: &str) -> Result<Self, getrandom::Error> {
        let mut bytes = [0u8; 32];
        getrandom::fill(&mut bytes)?;
        let mut text = String::with_capacity(prefix.len() + 64);
        text.push_str(prefix);
        for byte in bytes {
            text.push_str(&format!("{byte:02x}"));
        }
        Ok(Self::new(text))
    }

    /// The value itself, where it must be sent. Never log what this returns.
    pub fn expose(&self) -> &str {
        &self.text
    }

    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Compares any bytes with the secret in a time that depends on neither's content nor length.
    pub fn matches(&self, candidate: &[u8]) -> bool {
        self.has_fingerprint(&Self::fingerprint_of(candidate))
    }

    /// SHA-256 of any bytes, to look for a secret by its [`Self::fingerprint`].
    pub fn fingerprint_of(candidate: &[u8]) -> [u8; 32] {
        Sha256::digest(candidate).into()
    }

    /// Whether the secret has this fingerprint; in constant time.
    pub fn has_fingerprint(&self, fingerprint: &[u8; 32]) -> bool {
        self.fingerprint.ct_eq(fingerprint).into()
    }

    /// SHA-256 of the secret: what may be kept to compare with later.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_prints_and_matches_only_itself() {
        let secret = Secret::generate("mk_").unwrap();
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
        assert!(secret.matches(secret.expose().as_bytes()));
        assert!(!secret.matches(b"") && !secret.matches("ключ".as_bytes()));
        assert_ne!(secret, Secret::generate("mk_").unwrap());
    }
}
