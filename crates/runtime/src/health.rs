//! Health: red when a part that is needed is dead, with the reason.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// The state of the parts of one process. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<RwLock<BTreeMap<&'static str, Result<(), Trouble>>>>);

#[derive(Debug, Clone)]
struct Trouble {
    reason: String,
    /// What strangers may know.
    public: String,
}

impl Health {
    /// Reports a part as working.
    pub fn ok(&self, part: &'static str) {
        self.set(part, Ok(()));
    }

    /// Reports a part as broken; the reason is shown to whoever asks, so no secret in it.
    pub fn failed(&self, part: &'static str, reason: impl Into<String>) {
        self.failed_publicly(part, reason, "not working");
    }

    /// The same with words for a page that everybody can read: neither hosts nor files in them.
    pub fn failed_publicly(&self, part: &'static str, reason: impl Into<String>, public: impl Into<String>) {
        self.set(part, Err(Trouble { reason: reason.into(), public: public.into() }));
    }

    fn set(&self, part: &'static str, state: Result<(), Trouble>) {
        let mut parts = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let before = parts.insert(part, state.clone());
        drop(parts);
        match (before, state) {
            (Some(Ok(())) | None, Err(Trouble { reason, .. })) => {
                tracing::error!(part, reason, "{part} is not working");
            }
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
                Some(Err(trouble)) => Some(format!("{part}: {}", trouble.reason)),
                None => Some(format!("{part}: not started")),
            })
            .collect()
    }

    /// Every part with its state.
    pub fn all(&self) -> BTreeMap<&'static str, Result<(), String>> {
        let parts = self.0.read().unwrap_or_else(PoisonError::into_inner);
        parts.iter().map(|(part, state)| (*part, state.clone().map_err(|trouble| trouble.reason))).collect()
    }

    /// What everybody may know of a part; `None`: it never reported.
    pub fn public(&self, part: &str) -> Option<Result<(), String>> {
        let parts = self.0.read().unwrap_or_else(PoisonError::into_inner);
        parts.get(part).map(|state| state.clone().map_err(|trouble| trouble.public))
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
        health.failed_publicly("channel", "refused by 10.0.0.1", "refused");
        assert_eq!(health.public("channel"), Some(Err("refused".to_owned())));
        assert_eq!((health.public("queue"), health.public("catalog")), (Some(Ok(())), None));
        assert_eq!(health.all()["channel"], Err("refused by 10.0.0.1".to_owned()));
        health.ok("channel");
        assert!(health.broken(&["channel"]).is_empty());
    }
}
