//! Correlations over the events of all workers of this process.
//!
//! What a batch means is worked out in memory, its alerts are written to the catalog, then the new
//! state is stored, and only then another batch may begin: whatever a crash keeps of this, the batch
//! comes back and leads to the same firings with the same ids. If anything fails in between, the state
//! in memory is forgotten and read again.

use super::set::DetectionSet;
use model::{OrgId, Timestamp};
use rules::correlate::{Change, Correlator, Firing, Hit, Plans, Record, Share, Stored};
use std::collections::BTreeMap;
use std::sync::Arc;
use storage::StorageResult;
use storage::correlations::{Commit, CorrelationStore, Hold, WorkerId};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// The only one: the store is not shared.
const WORKER: WorkerId = WorkerId(0);

/// The state of all organisations.
#[derive(Clone)]
pub struct Correlations {
    store: Arc<dyn CorrelationStore>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// `None`: to be read before use.
    loaded: Option<Loaded>,
}

struct Loaded {
    holds: Vec<Hold>,
    plans: Arc<Plans>,
    by_org: BTreeMap<OrgId, Correlator>,
}

/// The right to change the state; what is changed counts once [`Turn::keep`] said so.
pub struct Turn {
    store: Arc<dyn CorrelationStore>,
    state: OwnedMutexGuard<State>,
    records: Vec<(OrgId, Vec<Record>)>,
    kept: bool,
}

impl Correlations {
    pub fn new(store: Arc<dyn CorrelationStore>) -> Self {
        Self { store, state: Arc::default() }
    }

    /// Waits for the turn, with the correlations of `set` in force.
    pub async fn turn(&self, set: &DetectionSet) -> StorageResult<Turn> {
        let state = Arc::clone(&self.state).lock_owned().await;
        let mut turn = Turn { store: Arc::clone(&self.store), state, records: Vec::new(), kept: false };
        match &mut turn.state.loaded {
            Some(loaded) if Arc::ptr_eq(&loaded.plans, set.plans()) => {}
            Some(loaded) => {
                loaded.plans = Arc::clone(set.plans());
                for (org, correlator) in &mut loaded.by_org {
                    turn.records.push((org.clone(), correlator.reload(Arc::clone(set.plans()))));
                }
            }
            None => {
                let mut by_org: BTreeMap<OrgId, Correlator> = BTreeMap::new();
                let holds = self.store.hold(WORKER).await?.holds;
                let mut stored = Vec::new();
                for hold in &holds {
                    stored.extend(self.store.load(*hold).await?);
                }
                for (org, group, parts) in stored {
                    let correlator = by_org.entry(org.clone()).or_insert_with(|| new(set.plans()));
                    match correlator.restore(group, parts.iter().map(Vec::as_slice)) {
                        Ok(true) => {}
                        Ok(false) => turn.records.push((org, vec![gone(group)])),
                        Err(error) => {
                            tracing::error!(%org, %error, "the state of a correlation cannot be read; it starts anew");
                            turn.records.push((org, vec![gone(group)]));
                        }
                    }
                }
                turn.state.loaded = Some(Loaded { holds, plans: Arc::clone(set.plans()), by_org });
            }
        }
        Ok(turn)
    }
}

fn new(plans: &Arc<Plans>) -> Correlator {
    Correlator::new(Arc::clone(plans), Share::ALL)
}

fn gone(group: u128) -> Record {
    Record { group, stored: Stored::Gone }
}

impl Turn {
    /// Works hits of one organisation; what begins to fire.
    pub fn apply(&mut self, org: &OrgId, now: Timestamp, hits: Vec<Hit>) -> Vec<Firing> {
        let Some(loaded) = &mut self.state.loaded else { return Vec::new() };
        let plans = Arc::clone(&loaded.plans);
        let correlator = loaded.by_org.entry(org.clone()).or_insert_with(|| new(&plans));
        let outcome = correlator.apply(now.micros(), hits);
        self.records.push((org.clone(), outcome.records));
        opened(outcome.changes)
    }

    /// Lets time pass for all organisations; what begins to fire.
    pub fn pass(&mut self, now: Timestamp) -> Vec<(OrgId, Vec<Firing>)> {
        let Some(loaded) = &mut self.state.loaded else { return Vec::new() };
        let mut fired = Vec::new();
        for (org, correlator) in &mut loaded.by_org {
            let outcome = correlator.pass(now.micros());
            self.records.push((org.clone(), outcome.records));
            fired.push((org.clone(), opened(outcome.changes)));
        }
        fired
    }

    /// Stores what was changed; call it when the alerts are written.
    pub async fn keep(mut self) -> StorageResult<()> {
        let commit = Commit { records: std::mem::take(&mut self.records), ..Commit::default() };
        if let Some(loaded) = &self.state.loaded {
            self.store.commit(&loaded.holds, commit).await?;
        }
        self.kept = true;
        Ok(())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.kept {
            self.state.loaded = None;
        }
    }
}

/// Firings that begin. What goes on, is moved or merged is known to its incident already.
fn opened(changes: Vec<Change>) -> Vec<Firing> {
    changes.into_iter().filter_map(Change::opened).collect()
}
