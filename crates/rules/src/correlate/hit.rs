//! An event as one correlation sees it.

use super::plan::first_half;
use sha2::{Digest, Sha256};

/// No sum of a time and a timespan overflows.
pub(super) const TIME_MAX: i64 = i64::MAX / 4;

/// A member to be, for one group of one correlation.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// Index of the correlation in its collection.
    pub correlation: usize,
    /// Which of its inputs has the event.
    pub input: usize,
    pub event: u128,
    /// Event time in microseconds.
    pub time: i64,
    /// The group, told apart from those of all correlations.
    pub group: u128,
    /// Its texts, cut where they are long.
    pub key: Box<[Box<str>]>,
    pub(super) value: Value,
    /// What the event means to correlations that listen to this one, if it holds at the event.
    pub(super) above: Vec<Hit>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value {
    None,
    Digest([u64; 2]),
    Number(f64),
}

impl Hit {
    /// Shows it, and what the event may mean to the correlations above.
    pub fn visit(&self, show: &mut impl FnMut(&Self)) {
        show(self);
        self.above.iter().for_each(|hit| hit.visit(show));
    }

    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.key.iter().map(|text| text.len() + size_of::<Box<str>>()).sum::<usize>()
            + self.above.iter().map(Self::bytes).sum::<usize>()
    }
}

/// Gives hits the new indices of their correlations; those without one go.
pub(super) fn moved(hits: &mut Vec<Hit>, places: &[Option<usize>]) {
    hits.retain_mut(|hit| {
        let place = places.get(hit.correlation).copied().flatten();
        hit.correlation = place.unwrap_or_default();
        moved(&mut hit.above, places);
        place.is_some()
    });
}

/// Which of `count` workers owns a group. Any number of workers works, each with groups of its own.
pub fn shard(group: u128, count: usize) -> usize {
    let count = count.max(1) as u128;
    usize::try_from(((group >> 64) * count) >> 64).unwrap_or(0)
}

fn digest<'t>(start: &[u8], texts: impl Iterator<Item = &'t str>) -> [u8; 16] {
    let mut hash = Sha256::new_with_prefix(start);
    for text in texts {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    }
    first_half(&hash.finalize())
}

pub(super) fn group_id(fingerprint: &[u8; 16], key: &[&str]) -> u128 {
    u128::from_be_bytes(digest(fingerprint, key.iter().copied()))
}

pub(super) fn value_digest(values: &[&str]) -> [u64; 2] {
    halves(u128::from_be_bytes(digest(b"value", values.iter().copied())))
}

pub(super) fn halves(whole: u128) -> [u64; 2] {
    [(whole >> 64) as u64, whole as u64]
}

pub(super) fn whole(halves: [u64; 2]) -> u128 {
    u128::from(halves[0]) << 64 | u128::from(halves[1])
}

/// The name of a firing: the same whenever the same events lead to it. Its first 48 bits are the
/// milliseconds of the anchor, as in ids of events.
pub(super) fn firing_id(group: u128, anchor: i64, salt: u32) -> u128 {
    let mut hash = Sha256::new_with_prefix(b"firing");
    hash.update(group.to_be_bytes());
    hash.update(anchor.to_be_bytes());
    hash.update(salt.to_be_bytes());
    let millis = (anchor / 1_000).clamp(0, (1 << 48) - 1) as u128;
    millis << 80 | u128::from_be_bytes(first_half(&hash.finalize())) >> 48
}

/// A text for people, cut.
pub(super) fn short(text: &str) -> Box<str> {
    const CHARS_MAX: usize = 256;
    match text.char_indices().nth(CHARS_MAX) {
        Some((cut, _)) => format!("{}…", &text[..cut]).into(),
        None => text.into(),
    }
}
