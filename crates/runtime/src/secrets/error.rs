//! What can go wrong with Vault, in words that say what to change.

use std::fmt;

/// What we were doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Reading the CA or secret-id file.
    Files,
    Login,
    LookupToken,
    RenewToken,
    /// Reading the KV secret.
    Read,
}

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No connection.
    Unreachable,
    /// A connection, but not to somebody we trust, or without a common protocol.
    Tls,
    Timeout,
    /// A local file cannot be used.
    File,
    /// HTTP 400: at a login, a role id or secret id that is not valid.
    Refused,
    /// HTTP 403: the token is not valid, or its policy does not allow it.
    Denied,
    /// HTTP 404, or a deleted version.
    NotFound,
    /// HTTP 503 of a sealed server.
    Sealed,
    /// Another status, such as 429 or 500.
    Status(u16),
    /// An answer that is not Vault's, or too long.
    BadAnswer,
    /// The secret is there and lacks a required key.
    MissingKey,
}

/// One failure. Its text holds no secret.
#[derive(Debug, Clone, thiserror::Error)]
pub struct VaultError {
    pub step: Step,
    pub failure: Failure,
    /// What happened, and what to do where we know it.
    pub reason: String,
}

impl VaultError {
    pub(super) fn new(step: Step, failure: Failure, reason: impl Into<String>) -> Self {
        Self { step, failure, reason: reason.into() }
    }
}

impl VaultError {
    /// The same without hosts, files and names.
    pub fn public(&self) -> String {
        format!("{} failed: {}", self.step, self.failure)
    }
}

impl fmt::Display for VaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed: {}", self.step, self.reason)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Files => "preparing the login to Vault",
            Self::Login => "logging in to Vault",
            Self::LookupToken => "asking Vault about our token",
            Self::RenewToken => "renewing our token of Vault",
            Self::Read => "reading the secrets from Vault",
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable => f.write_str("it cannot be reached"),
            Self::Tls => f.write_str("no agreement on TLS"),
            Self::Timeout => f.write_str("no answer in time"),
            Self::File => f.write_str("a file cannot be used"),
            Self::Refused => f.write_str("refused (HTTP 400)"),
            Self::Denied => f.write_str("denied (HTTP 403)"),
            Self::NotFound => f.write_str("not found (HTTP 404)"),
            Self::Sealed => f.write_str("it is sealed"),
            Self::Status(status) => write!(f, "HTTP {status}"),
            Self::BadAnswer => f.write_str("not an answer of Vault"),
            Self::MissingKey => f.write_str("a secret that is needed is missing"),
        }
    }
}

/// The error and what caused it, outermost first, each said once.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}
