//! What members of a group mean to higher correlations, until it is known whether the group holds at
//! them.

use super::hit::Hit;
use std::collections::BTreeMap;

/// Hits by the time of their event, then the event.
#[derive(Debug, Clone, Default)]
pub(super) struct Carried {
    hits: BTreeMap<(i64, u128), Vec<Hit>>,
    bytes: usize,
}

/// Bytes of an entry beside its hits, about.
const ENTRY_BYTES: usize = 64;

fn bytes(hits: &[Hit]) -> usize {
    ENTRY_BYTES + hits.iter().map(Hit::bytes).sum::<usize>()
}

impl Carried {
    pub fn is_empty(&self) -> bool {
        self.hits.is_empty()
    }

    pub fn len(&self) -> usize {
        self.hits.len()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn first_time(&self) -> Option<i64> {
        self.hits.first_key_value().map(|((time, _), _)| *time)
    }

    pub fn iter(&self) -> impl Iterator<Item = (i64, u128, &[Hit])> {
        self.hits.iter().map(|((time, event), hits)| (*time, *event, hits.as_slice()))
    }

    /// Adds what an event means; it can come through several inputs.
    pub fn add(&mut self, time: i64, event: u128, above: Vec<Hit>) {
        let hits = self.hits.entry((time, event)).or_default();
        if hits.is_empty() {
            self.bytes += ENTRY_BYTES;
        }
        for hit in above {
            if !hits.contains(&hit) {
                self.bytes += hit.bytes();
                hits.push(hit);
            }
        }
    }

    /// Takes out what is at times of `first..=last` that are wanted.
    pub fn take(&mut self, first: i64, last: i64, wanted: impl Fn(i64) -> bool, out: &mut Vec<Hit>) {
        if first > last || self.hits.is_empty() {
            return;
        }
        let all = self.hits.range((first, 0)..=(last, u128::MAX)).map(|(key, _)| *key);
        let keys: Vec<_> = all.filter(|(time, _)| wanted(*time)).collect();
        for key in keys {
            let hits = self.hits.remove(&key).unwrap_or_default();
            self.bytes -= bytes(&hits);
            out.extend(hits);
        }
    }

    /// Forgets what is before a time.
    pub fn forget(&mut self, before: i64) {
        while self.first_time().is_some_and(|first| first < before) {
            self.pop();
        }
    }

    /// Forgets the oldest until so many are left; how many that were.
    pub fn shorten(&mut self, most: usize) -> u64 {
        let over = self.hits.len().saturating_sub(most);
        (0..over).for_each(|_| self.pop());
        over as u64
    }

    fn pop(&mut self) {
        if let Some((_, hits)) = self.hits.pop_first() {
            self.bytes -= bytes(&hits);
        }
    }

    /// Lets hits be changed, and forgets those of which nothing is left.
    pub fn change(&mut self, mut change: impl FnMut(&mut Vec<Hit>)) {
        self.hits.values_mut().for_each(&mut change);
        self.hits.retain(|_, hits| !hits.is_empty());
        self.bytes = self.hits.values().map(|hits| bytes(hits)).sum();
    }
}
