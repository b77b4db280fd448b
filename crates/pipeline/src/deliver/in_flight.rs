//! Alerts being delivered now: two records of one alert never go out side by side.

use model::AlertId;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The alerts under way. Clones share it.
#[derive(Clone, Default)]
pub(super) struct InFlight(Arc<Mutex<BTreeSet<AlertId>>>);

/// One alert under way, until dropped.
pub(super) struct Held {
    in_flight: InFlight,
    id: AlertId,
}

impl InFlight {
    fn set(&self) -> MutexGuard<'_, BTreeSet<AlertId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` while somebody else holds that alert.
    pub(super) fn enter(&self, id: AlertId) -> Option<Held> {
        self.set().insert(id).then(|| Held { in_flight: self.clone(), id })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.in_flight.set().remove(&self.id);
    }
}
