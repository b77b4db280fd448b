//! Health: red when a part that is needed is dead, with the reason.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// The state of the parts of one process. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<RwLock<BTreeMap<&'static str, Result<(), String>>>>);

impl Health {
    /// Reports a part as working.
    pub fn ok(&self, part: &'static str) {
        self.set(part, Ok(()));
    }

    /// Reports a part as broken; the reason is shown to whoever asks, so no secret in it.
    pub fn failed(&self, part: &'static str, reason: impl Into<String>) {
        self.set(part, Err(reason.into()));
    }

    fn set(&self, part: &'static str, state: Result<(), String>) {
        let mut parts = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let before = parts.insert(part, state.clone());
        drop(parts);
        match (before, state) {
            (Some(Ok(())) | None, Err(reason)) => tracing::error!(part, reason, "{part} is not working"),
            (Some(Err(_)), Ok(())) => tracing::info!(part, "{part} is working again"),
            (Some(Ok(())) | None, Ok(())) | (Some(Err(_)), Err(_)) => {}
        }
    }

    /// The broken ones among `needed`, as `part: reason`. A part that never reported is broken.
    pub fn broken(&self, needed: &[&'static str]) -> Vec<String> {
        let parts = self.0.read().unwrap_or_else(PoisonError::into_inner);
        needed
            .iter()
            .filter_map(|part| match parts.get(part) {
                Some(Ok(())) => None,
                Some(Err(reason)) => Some(format!("{part}: {reason}")),
                None => Some(format!("{part}: not started")),
            })
            .collect()
    }

    /// Every part with its state.
    pub fn all(&self) -> BTreeMap<&'static str, Result<(), String>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_needed_makes_it_red() {
        let health = Health::default();
        health.ok("queue");
        health.failed("channel", "refused");
        assert_eq!(health.broken(&["queue"]), Vec::<String>::new());
        assert_eq!(health.broken(&["queue", "channel", "catalog"]), ["channel: refused", "catalog: not started"]);
        health.ok("channel");
        assert!(health.broken(&["channel"]).is_empty());
    }
}
