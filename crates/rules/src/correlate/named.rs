//! Names of firings that somebody may know already.
//!
//! A firing is told before the state that knows it is stored; in between a process can die. The batch
//! comes back, perhaps with other events beside it or in pieces, and where a firing begins depends on
//! the batch: it would be told again by another name. So names are stored before anybody is told, and a
//! group whose state was not stored after that gives its firings those names, in their order. Those that
//! are not used yet are stored with its state.

use std::collections::{BTreeMap, VecDeque};

/// Names that are to be used, by group.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeMap<u128, Named>);

#[derive(Debug)]
pub(super) struct Named {
    pub correlation: usize,
    pub touched: i64,
    pub ids: VecDeque<u128>,
}

impl Names {
    /// Remembers names behind those of before.
    pub fn add(&mut self, group: u128, named: Named) {
        match self.0.get_mut(&group) {
            Some(known) => {
                known.touched = known.touched.max(named.touched);
                let new = named.ids.into_iter().filter(|id| !known.ids.contains(id)).collect::<Vec<_>>();
                known.ids.extend(new);
            }
            None => _ = self.0.insert(group, named),
        }
    }

    /// What is remembered of a group; it counts until its state is stored.
    pub fn take(&mut self, group: u128) -> Option<Named> {
        self.0.remove(&group)
    }

    /// The names that are remembered of a group.
    pub fn of(&self, group: u128) -> VecDeque<u128> {
        self.0.get(&group).map(|named| named.ids.clone()).unwrap_or_default()
    }

    /// Whether something is remembered of a group.
    pub fn has(&self, group: u128) -> bool {
        self.0.contains_key(&group)
    }

    /// Forgets what `stale` says of correlation and time; the groups.
    pub fn forget(&mut self, stale: impl Fn(usize, i64) -> bool) -> Vec<u128> {
        let gone = |(group, named): (&u128, &Named)| stale(named.correlation, named.touched).then_some(*group);
        let gone: Vec<u128> = self.0.iter().filter_map(gone).collect();
        gone.iter().for_each(|group| _ = self.0.remove(group));
        gone
    }

    /// Gives correlations their new indices; the groups of those without one go.
    pub fn move_to(&mut self, places: &[Option<usize>]) -> Vec<u128> {
        let place = |correlation: usize| places.get(correlation).copied().flatten();
        let gone = self.forget(|correlation, _| place(correlation).is_none());
        self.0.values_mut().for_each(|named| named.correlation = place(named.correlation).unwrap_or_default());
        gone
    }
}
