//! The members of a group, in the order of their times.

use super::number::millionths;
use std::collections::VecDeque;

/// One member. The key says what makes it one: the event for counts and numbers, the value for
/// `value_count`, the input for the temporal kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub time: i64,
    pub key: [u64; 2],
}

/// Sorted by time, then key; nothing twice.
#[derive(Debug, Clone, Default)]
pub(super) struct Members {
    entries: VecDeque<Entry>,
    /// Beside the entries, where the kind calculates; else empty.
    values: VecDeque<f64>,
}

impl Members {
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn entry(&self, index: usize) -> Entry {
        self.entries[index]
    }

    /// The number of an entry, of kinds that calculate.
    pub fn value(&self, index: usize) -> f64 {
        self.values.get(index).copied().unwrap_or_default()
    }

    pub fn first_time(&self) -> Option<i64> {
        self.entries.front().map(|entry| entry.time)
    }

    pub fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>() + self.values.capacity() * size_of::<f64>()
    }

    /// The first index whose time is not before `time`.
    pub fn lower(&self, time: i64) -> usize {
        // Most questions are about the newest.
        match self.entries.back() {
            Some(last) if last.time < time => self.entries.len(),
            Some(_) | None => self.entries.partition_point(|entry| entry.time < time),
        }
    }

    /// The time of the last member before `time`.
    pub fn before(&self, time: i64) -> Option<i64> {
        let index = self.lower(time);
        index.checked_sub(1).map(|index| self.entries[index].time)
    }

    /// The time of the first member after `time`.
    pub fn after(&self, time: i64) -> Option<i64> {
        self.entries.get(self.entries.partition_point(|entry| entry.time <= time)).map(|entry| entry.time)
    }

    /// Adds a member; `false` where it is there already.
    pub fn insert(&mut self, entry: Entry, value: Option<f64>) -> bool {
        let mut index = match self.entries.back() {
            Some(last) if *last < entry => self.entries.len(),
            Some(_) | None => self.entries.partition_point(|other| *other < entry),
        };
        while self.entries.get(index) == Some(&entry) {
            let Some(value) = value else { return false };
            if millionths(self.values[index]) == millionths(value) {
                return false;
            }
            if self.values[index] > value {
                break;
            }
            index += 1;
        }
        self.entries.insert(index, entry);
        if let Some(value) = value {
            self.values.insert(index, value);
        }
        true
    }

    /// Drops so many of the oldest.
    pub fn drop_oldest(&mut self, count: usize) {
        self.entries.drain(..count);
        self.values.drain(..count.min(self.values.len()));
        if self.entries.capacity() > 64 && self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to(self.entries.len() * 2);
            self.values.shrink_to(self.values.len() * 2);
        }
    }

    /// Of the first `count`, keeps those that `keep` says; it sees them from the newest to the oldest.
    pub fn thin(&mut self, count: usize, mut keep: impl FnMut(Entry) -> bool) -> usize {
        let mut kept: Vec<bool> = (0..count).rev().map(|index| keep(self.entries[index])).collect();
        kept.reverse();
        let mut index = 0;
        self.entries.retain(|_| {
            index += 1;
            kept.get(index - 1).copied().unwrap_or(true)
        });
        kept.into_iter().filter(|kept| !kept).count()
    }

    /// Entries with the values of kinds that calculate.
    pub fn iter(&self) -> impl Iterator<Item = (Entry, Option<f64>)> {
        self.entries.iter().enumerate().map(|(index, entry)| (*entry, self.values.get(index).copied()))
    }

    /// Puts a member behind all others; for what is read back in order.
    pub fn push(&mut self, entry: Entry, value: Option<f64>) {
        self.entries.push_back(entry);
        self.values.extend(value);
    }
}
