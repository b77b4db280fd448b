//! Informs of the last minutes, so that one repeated because its answer was late or lost stays one
//! event. Pure: time comes in.

use super::message::InformKey;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// Informs remembered.
const KEPT_MAX: usize = 16_384;
/// Longer than devices repeat one inform.
const KEPT: Duration = Duration::from_secs(300);

/// What is known of an inform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// Never seen; from now on it waits.
    New,
    /// It waits for the sink; whoever offered it will answer.
    Waiting,
    /// Its event is kept: answer again.
    Kept,
}

#[derive(Debug, Default)]
pub(super) struct Recent {
    kept: HashMap<InformKey, bool>,
    /// In the order of their first sight.
    order: VecDeque<(Duration, InformKey)>,
}

impl Recent {
    /// Looks an inform up, and remembers a new one as waiting.
    pub(super) fn see(&mut self, key: InformKey, now: Duration) -> Known {
        while self.order.len() >= KEPT_MAX || self.order.front().is_some_and(|(seen, _)| *seen + KEPT < now) {
            let Some((_, oldest)) = self.order.pop_front() else { break };
            self.kept.remove(&oldest);
        }
        match self.kept.get(&key) {
            Some(true) => Known::Kept,
            Some(false) => Known::Waiting,
            None => {
                self.kept.insert(key, false);
                self.order.push_back((now, key));
                Known::New
            }
        }
    }

    /// The sink has taken its event.
    pub(super) fn keep(&mut self, key: &InformKey) {
        if let Some(kept) = self.kept.get_mut(key) {
            *kept = true;
        }
    }

    /// The sink has refused its event: the next repetition is as good as new.
    pub(super) fn forget(&mut self, key: &InformKey) {
        if self.kept.remove(key).is_some() {
            self.order.retain(|(_, kept)| kept != key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn an_inform_is_new_waiting_and_kept() {
        let mut recent = Recent::default();
        let key = [1; 32];
        assert_eq!(recent.see(key, seconds(0)), Known::New);
        assert_eq!(recent.see(key, seconds(1)), Known::Waiting);
        recent.forget(&key);
        assert_eq!(recent.see(key, seconds(2)), Known::New);
        recent.keep(&key);
        assert_eq!(recent.see(key, seconds(300)), Known::Kept);
        assert_eq!(recent.see(key, seconds(303)), Known::New, "forgotten after five minutes");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut recent = Recent::default();
        for i in 0..KEPT_MAX as u64 + 100 {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&i.to_be_bytes());
            assert_eq!(recent.see(key, seconds(0)), Known::New);
        }
        assert!(recent.kept.len() <= KEPT_MAX && recent.order.len() == recent.kept.len());
    }
}
