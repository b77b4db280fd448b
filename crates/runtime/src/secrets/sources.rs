//! Environment, files and Vault together: one state, of last good parts.

use super::local::LocalValues;
use super::session::{Counters, Session, count};
use super::set::family;
use super::{Failure, SecretSet, SecretsConfig, Step, VaultError};
use std::sync::Arc;
use tokio::time::Instant;

#[derive(Debug)]
pub(super) struct Sources {
    pub local: LocalValues,
    vault: Option<Session>,
    /// What Vault said last that was complete.
    from_vault: SecretSet,
    required: Vec<String>,
    counters: Arc<Counters>,
}

impl Sources {
    pub fn new(config: SecretsConfig, required: &[&str], counters: Arc<Counters>) -> Self {
        Self {
            local: LocalValues::new(config.local),
            vault: config.vault.map(|vault| Session::new(vault, Arc::clone(&counters))),
            from_vault: SecretSet::default(),
            required: required.iter().map(|name| family(name).to_owned()).collect(),
            counters,
        }
    }

    pub fn has_vault(&self) -> bool {
        self.vault.is_some()
    }

    /// When the token wants attention.
    pub fn token_due(&self) -> Option<Instant> {
        self.vault.as_ref().and_then(Session::due)
    }

    /// See [`Session::refused`].
    pub fn refused_login(&self) -> Option<u32> {
        self.vault.as_ref().and_then(Session::refused)
    }

    /// The state of now.
    pub fn set(&self) -> SecretSet {
        self.local.set().overlaid_by(&self.from_vault)
    }

    /// Required secrets without any value, and why their files give none.
    pub fn missing(&self) -> Result<(), String> {
        let missing = missing(&self.set(), &self.required);
        if missing.is_empty() {
            return Ok(());
        }
        let mut reasons = vec![format!("no value for {}", missing.join(", "))];
        reasons.extend(self.local.troubles());
        Err(reasons.join("; "))
    }

    /// Reads Vault, where there is one. A state that lacks a required secret is not taken: somebody
    /// has written `kv put` for `kv patch`, and the values of before are better than none.
    pub async fn read_vault(&mut self) -> Result<(), VaultError> {
        let Some(session) = &mut self.vault else { return Ok(()) };
        let result = session.read().await.and_then(|reading| {
            let missing = missing(&self.local.set().overlaid_by(&reading.set), &self.required);
            if missing.is_empty() {
                self.from_vault = reading.set;
                return reading.trouble.map_or(Ok(()), Err);
            }
            let names = missing.join(", ");
            let reason = format!("`{}` holds no {names} (nor {names} with _CURRENT)", session.place());
            Err(VaultError { step: Step::Read, failure: Failure::MissingKey, reason })
        });
        if result.is_err() {
            count(&self.counters.failures);
        }
        result
    }
}

fn missing(set: &SecretSet, required: &[String]) -> Vec<String> {
    required.iter().filter(|name| !set.has(name)).cloned().collect()
}
