//! Which events have been applied already, as ranges of numbers per run.

use crate::EventId;
use std::collections::BTreeMap;

/// A set of event ids that stays small because ids of one run are dense (see [`EventId`]).
///
/// The stateful steps of detection keep one of these in the same transaction as their effect, so
/// that a batch which is worked again after a crash changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AppliedSet {
    /// run → (first → last), inclusive, disjoint, never adjacent.
    runs: BTreeMap<u32, BTreeMap<u64, u64>>,
}

impl AppliedSet {
    pub fn contains(&self, id: EventId) -> bool {
        self.runs
            .get(&id.run())
            .and_then(|ranges| ranges.range(..=id.counter()).next_back())
            .is_some_and(|(_, last)| *last >= id.counter())
    }

    /// Adds `id`; `false` when it was there already.
    pub fn insert(&mut self, id: EventId) -> bool {
        if self.contains(id) {
            return false;
        }
        self.insert_range(id.run(), id.counter(), id.counter());
        true
    }

    /// Adds `first..=last` of `run`, joining what touches it.
    pub fn insert_range(&mut self, run: u32, first: u64, last: u64) {
        let ranges = self.runs.entry(run).or_default();
        let (mut first, mut last) = (first, last);
        while let Some((&start, &end)) = ranges.range(..=last.saturating_add(1)).next_back() {
            if end.saturating_add(1) < first {
                break;
            }
            first = first.min(start);
            last = last.max(end);
            ranges.remove(&start);
        }
        ranges.insert(first, last);
    }

    /// The ranges of one run, in order.
    pub fn ranges(&self, run: u32) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.runs.get(&run).into_iter().flatten().map(|(first, last)| (*first, *last))
    }

    pub fn runs(&self) -> impl Iterator<Item = u32> + '_ {
        self.runs.keys().copied()
    }

    /// How many ranges are held: the memory it costs.
    pub fn range_count(&self) -> usize {
        self.runs.values().map(BTreeMap::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timestamp;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_behaves_like_a_plain_set(ids in proptest::collection::vec((0u32..3, 0u64..60), 0..200)) {
            let mut set = AppliedSet::default();
            let mut plain = BTreeSet::new();
            for (run, counter) in ids {
                let id = EventId::new(Timestamp::from_millis(1), run, counter);
                prop_assert_eq!(set.insert(id), plain.insert((run, counter)));
            }
            for run in 0..3 {
                for counter in 0..62 {
                    let id = EventId::new(Timestamp::from_millis(9), run, counter);
                    prop_assert_eq!(set.contains(id), plain.contains(&(run, counter)));
                }
                let mut previous: Option<u64> = None;
                for (first, last) in set.ranges(run) {
                    prop_assert!(first <= last);
                    prop_assert!(previous.is_none_or(|p| p + 1 < first), "adjacent ranges are joined");
                    previous = Some(last);
                }
            }
        }
    }

    #[test]
    fn a_million_events_in_order_are_one_range() {
        let mut set = AppliedSet::default();
        for counter in 0..1_000_000 {
            set.insert(EventId::new(Timestamp::from_millis(1), 7, counter));
        }
        assert_eq!(set.range_count(), 1);
    }
}
