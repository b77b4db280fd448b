//! One session of a spool at a time.
//!
//! A session whose host has lost its network lives on here for a while. When the agent comes back meanwhile, the old
//! session ends first, with what it was storing; so the new one knows all that is durable, and nothing is stored twice.

use runtime::{Stop, Stopper};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::timeout;

/// An old session that has not ended by then hangs in the queue; the new one need not.
const WAIT_MAX: Duration = Duration::from_secs(15);

type Spool = (Arc<str>, u64);

/// Whose turn it is, by agent and epoch of its spool.
#[derive(Default)]
pub(super) struct Turns {
    of: Mutex<HashMap<Spool, Entry>>,
}

struct Entry {
    /// Asks the session to end.
    over: Stopper,
    /// Its asker is gone when it has.
    ended: Stop,
}

/// A session's turn, until it is dropped.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    spool: Spool,
    over: Stop,
    _ended: Stopper,
}

impl Turns {
    /// Takes the turn, from whom has it.
    pub(super) async fn take(&self, agent: Arc<str>, epoch: u64) -> Turn<'_> {
        let spool = (agent, epoch);
        let (asks, over) = Stopper::new();
        let (ended, has_ended) = Stopper::new();
        let before = self.of().insert(spool.clone(), Entry { over: asks, ended: has_ended });
        let turn = Turn { turns: self, spool, over, _ended: ended };
        if let Some(before) = before {
            before.over.stop();
            if timeout(WAIT_MAX, before.ended.requested()).await.is_err() {
                tracing::warn!("an old session of an agent does not end; the new one begins beside it");
            }
        }
        turn
    }

    fn of(&self) -> MutexGuard<'_, HashMap<Spool, Entry>> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// Somebody newer is here. Cancel safe.
    pub(super) async fn is_over(&self) {
        self.over.requested().await;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // Whoever took over has put his own entry here.
        if !self.over.is_requested() {
            self.turns.of().remove(&self.spool);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newest_session_waits_for_the_end_of_the_one_before() {
        let turns = Turns::default();
        let first = turns.take("agt_1".into(), 1).await;
        let elsewhere = turns.take("agt_1".into(), 2).await;
        assert!(!first.over.is_requested());
        let order = Mutex::new(Vec::new());
        let (second, ()) = tokio::join!(
            async {
                let second = turns.take("agt_1".into(), 1).await;
                order.lock().unwrap().push("second begins");
                second
            },
            async {
                first.is_over().await;
                tokio::task::yield_now().await;
                order.lock().unwrap().push("first ends");
                drop(first);
            },
        );
        assert_eq!(*order.lock().unwrap(), ["first ends", "second begins"]);
        assert!(!second.over.is_requested() && !elsewhere.over.is_requested());
        drop((second, elsewhere));
        assert!(turns.of().is_empty(), "who is gone is forgotten");
    }
}
