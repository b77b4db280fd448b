//! What a batch led to, and what was counted.

use super::hit::Hit;

/// A correlation that fires.
#[derive(Debug, Clone, PartialEq)]
pub struct Firing {
    /// Stays the same while the firing lives. The same events in the same batches lead to the same.
    pub id: u128,
    /// Index of the correlation in its collection.
    pub correlation: usize,
    /// The texts of the fields of `group-by`, cut where they are long.
    pub key: Box<[Box<str>]>,
    /// The anchor at which it fires.
    pub anchor: i64,
    /// The last anchor up to which it goes on.
    pub last: i64,
    /// The metric at the last anchor that was judged, where it was judged just now. At least so much,
    /// where a group has more than is needed to know.
    pub metric: Option<f64>,
    /// The newest events of the window of `last`; of `event_count` and the kinds that calculate, unless
    /// the condition is closing.
    pub events: Vec<u128>,
}

/// What happened to firings.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// It fires: an alert.
    Opened(Firing),
    /// It still holds, at newer events too.
    GoesOn(Firing),
    /// A late event showed that it began at another anchor; the firing is the same.
    Moved(Firing),
    /// A late event showed that two firings are one.
    Merged { correlation: usize, id: u128, into: u128 },
    /// A late event showed that it did not hold; only of kinds that calculate.
    Withdrawn { correlation: usize, id: u128 },
}

impl Change {
    /// The firing that begins with it, if one does.
    pub fn opened(self) -> Option<Firing> {
        match self {
            Self::Opened(firing) => Some(firing),
            Self::GoesOn(_) | Self::Moved(_) | Self::Merged { .. } | Self::Withdrawn { .. } => None,
        }
    }
}

/// What a batch led to.
#[derive(Debug, Default)]
pub struct Outcome {
    pub changes: Vec<Change>,
    /// State to be stored together with the changes: at most one record a group.
    pub records: Vec<Record>,
    /// The ids of firings that begin: to be stored before anybody is told of them, where that happens
    /// before the state is stored. What is stored of a group afterwards replaces them.
    pub named: Vec<Record>,
    /// Hits for groups of other workers; none where there is one worker. To be stored with the
    /// changes, and given to their owners.
    pub elsewhere: Vec<Hit>,
}

/// How the stored state of a group changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub group: u128,
    pub stored: Stored,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// Replaces all that is stored of the group.
    Whole(Vec<u8>),
    /// Comes behind what is stored of the group.
    More(Vec<u8>),
    /// Nothing is stored of the group any more.
    Gone,
}

impl Stored {
    /// How many bytes are to be written.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Whole(bytes) | Self::More(bytes) => bytes.len(),
            Self::Gone => 0,
        }
    }
}

/// What was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Hits taken.
    pub hits: u64,
    /// Hits whose member was there already.
    pub repeated: u64,
    /// Hits too late for their group.
    pub late: u64,
    /// Hits too far ahead of `now`.
    pub ahead: u64,
    /// Members, or what they mean to higher correlations, that a bound pushed out.
    pub members_dropped: u64,
    /// Groups that a bound pushed out.
    pub groups_evicted: u64,
    /// Groups that nobody touched any more.
    pub groups_expired: u64,
}

impl Counters {
    /// What was counted since `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            hits: self.hits - before.hits,
            repeated: self.repeated - before.repeated,
            late: self.late - before.late,
            ahead: self.ahead - before.ahead,
            members_dropped: self.members_dropped - before.members_dropped,
            groups_evicted: self.groups_evicted - before.groups_evicted,
            groups_expired: self.groups_expired - before.groups_expired,
        }
    }
}
