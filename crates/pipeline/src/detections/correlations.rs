//! Correlations over the events of all workers of this process.
//!
//! What a batch means is worked out in memory, its alerts are written to the catalog, then the new
//! state is stored, and only then another batch may begin: whatever a crash keeps of this, the batch
//! comes back and leads to the same firings with the same ids. If anything fails in between, the state
//! in memory is forgotten and read again.

use super::set::DetectionSet;
use super::sets::Sets;
use model::{OrgId, Timestamp};
use rules::correlate::{Change, Correlator, Firing, Hit, Record, Share, Stored};
use std::collections::BTreeMap;
use std::sync::Arc;
use storage::StorageResult;
use storage::correlations::CorrelationStore;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// The state of all organisations.
#[derive(Clone)]
pub struct Correlations {
    store: Arc<CorrelationStore>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// `None`: to be read before use.
    loaded: Option<BTreeMap<OrgId, Own>>,
}

/// The state of one organisation.
struct Own {
    correlator: Correlator,
    /// The rules that it works by, and the number of the sets that they came with.
    set: Arc<DetectionSet>,
    number: u64,
}

/// The right to change the state; what is changed counts once [`Turn::keep`] said so.
pub struct Turn {
    store: Arc<CorrelationStore>,
    state: OwnedMutexGuard<State>,
    sets: Arc<Sets>,
    records: Vec<(OrgId, Vec<Record>)>,
    kept: bool,
}

impl Correlations {
    pub fn new(store: CorrelationStore) -> Self {
        Self { store: Arc::new(store), state: Arc::default() }
    }

    /// Waits for the turn of what was found with these sets. Where later ones are in force already, what
    /// was found is worked by those.
    pub async fn turn(&self, sets: &Arc<Sets>) -> StorageResult<Turn> {
        let state = Arc::clone(&self.state).lock_owned().await;
        let (store, sets) = (Arc::clone(&self.store), Arc::clone(sets));
        let mut turn = Turn { store, state, sets, records: Vec::new(), kept: false };
        if turn.state.loaded.is_none() {
            let mut by_org: BTreeMap<OrgId, Own> = BTreeMap::new();
            for (org, group, parts) in self.store.load().await? {
                let own = by_org.entry(org.clone()).or_insert_with(|| Own::new(&turn.sets, &org));
                match own.correlator.restore(group, parts.iter().map(Vec::as_slice)) {
                    Ok(true) => {}
                    Ok(false) => turn.records.push((org, vec![gone(group)])),
                    Err(error) => {
                        tracing::error!(%org, %error, "the state of a correlation cannot be read; it starts anew");
                        turn.records.push((org, vec![gone(group)]));
                    }
                }
            }
            turn.state.loaded = Some(by_org);
        }
        Ok(turn)
    }
}

impl Own {
    fn new(sets: &Sets, org: &OrgId) -> Self {
        let set = sets.of(org);
        let correlator = Correlator::new(Arc::clone(set.plans()), Share::ALL);
        Self { correlator, set: Arc::clone(set), number: sets.number() }
    }

    /// Goes on by the rules of these sets, unless it has later ones; what is to be stored of that.
    fn follow(&mut self, sets: &Sets, org: &OrgId) -> Vec<Record> {
        if sets.number() <= self.number {
            return Vec::new();
        }
        let before = std::mem::replace(&mut self.set, Arc::clone(sets.of(org)));
        self.number = sets.number();
        match Arc::ptr_eq(before.plans(), self.set.plans()) {
            true => Vec::new(),
            false => self.correlator.reload(Arc::clone(self.set.plans())),
        }
    }
}

fn gone(group: u128) -> Record {
    Record { group, stored: Stored::Gone }
}

impl Turn {
    /// Works hits of one organisation; what begins to fire, and the rules by which it does.
    pub fn apply(&mut self, org: &OrgId, now: Timestamp, mut hits: Vec<Hit>) -> (Arc<DetectionSet>, Vec<Firing>) {
        let made_by = self.sets.of(org);
        let Some(loaded) = &mut self.state.loaded else { return (Arc::clone(made_by), Vec::new()) };
        let own = loaded.entry(org.clone()).or_insert_with(|| Own::new(&self.sets, org));
        let mut records = own.follow(&self.sets, org);
        if !Arc::ptr_eq(own.set.plans(), made_by.plans()) {
            own.set.plans().adopt(made_by.plans(), &mut hits);
        }
        let outcome = own.correlator.apply(now.micros(), hits);
        records.extend(outcome.records);
        self.records.push((org.clone(), records));
        (Arc::clone(&own.set), opened(outcome.changes))
    }

    /// Lets time pass for all organisations; what begins to fire, and the rules by which it does.
    pub fn pass(&mut self, now: Timestamp) -> Vec<(OrgId, Arc<DetectionSet>, Vec<Firing>)> {
        let Some(loaded) = &mut self.state.loaded else { return Vec::new() };
        let mut fired = Vec::new();
        for (org, own) in loaded {
            let mut records = own.follow(&self.sets, org);
            let outcome = own.correlator.pass(now.micros());
            records.extend(outcome.records);
            self.records.push((org.clone(), records));
            fired.push((org.clone(), Arc::clone(&own.set), opened(outcome.changes)));
        }
        fired
    }

    /// Stores what was changed; call it when the alerts are written.
    pub async fn keep(mut self) -> StorageResult<()> {
        for (org, records) in std::mem::take(&mut self.records) {
            self.store.store(&org, records).await?;
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
