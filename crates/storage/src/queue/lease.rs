//! Who holds which record, what is settled, what waits: the bookkeeping of one queue, pure.
//!
//! Records are numbers. A window of slots covers those between the cursor (everything below is
//! settled) and the first one never read; each slot is a few bytes, so a stuck record at the
//! cursor costs little even when a million newer ones have passed it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::ops::Range;
use std::time::Duration;
use tokio::time::Instant;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SlotState {
    Settled,
    /// Held under this lease.
    Leased(u64),
    /// Waits for this moment.
    Waiting(Instant),
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    state: SlotState,
    attempts: u32,
}

/// What a consumer is to be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    pub seq: u64,
    pub lease: u64,
    pub attempts: u32,
}

/// A change to be journalled, so that a restart knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Settled(Vec<Range<u64>>),
    Attempts { seq: u64, attempts: u32 },
}

/// The bookkeeping. Times are monotonic; nothing here does IO.
#[derive(Debug)]
pub struct LeaseTable {
    lease: Duration,
    cursor: u64,
    slots: VecDeque<Slot>,
    settled_in_window: u64,
    leased: u64,
    /// Leases by age: (when it ends, lease, the records it was given).
    leases: VecDeque<(Instant, u64, Vec<u64>)>,
    next_lease: u64,
    waiting: BinaryHeap<Reverse<(Instant, u64)>>,
    waiting_count: u64,
    /// Attempts known from the journal of records not read since.
    remembered: BTreeMap<u64, u32>,
    /// Settled ranges known from the journal above the cursor, start → end.
    settled_ahead: BTreeMap<u64, u64>,
}

impl LeaseTable {
    pub fn new(cursor: u64, lease: Duration) -> Self {
        Self {
            lease,
            cursor,
            slots: VecDeque::new(),
            settled_in_window: 0,
            leased: 0,
            leases: VecDeque::new(),
            next_lease: 1,
            waiting: BinaryHeap::new(),
            waiting_count: 0,
            remembered: BTreeMap::new(),
            settled_ahead: BTreeMap::new(),
        }
    }

    /// Everything below is settled.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// The first record never handed out.
    pub fn next_unread(&self) -> u64 {
        self.cursor + self.slots.len() as u64
    }

    pub fn leased(&self) -> u64 {
        self.leased
    }

    pub fn waiting(&self) -> u64 {
        self.waiting_count
    }

    /// How many records were ever settled, or never existed. Records up to an end that are not
    /// settled = end minus this.
    pub fn settled_count(&self) -> u64 {
        let unread = self.next_unread();
        let ahead: u64 = self.settled_ahead.iter().map(|(from, to)| to.saturating_sub((*from).max(unread))).sum();
        self.cursor + self.settled_in_window + ahead
    }

    /// Restores what the journal knows, before anything is read.
    pub fn restore_settled(&mut self, range: Range<u64>) {
        if range.start <= self.cursor {
            self.cursor = self.cursor.max(range.end);
            while let Some((&from, &to)) = self.settled_ahead.first_key_value() {
                if from > self.cursor {
                    break;
                }
                self.cursor = self.cursor.max(to);
                self.settled_ahead.remove(&from);
            }
        } else if !range.is_empty() {
            let (mut start, mut end) = (range.start, range.end);
            while let Some((&from, &to)) = self.settled_ahead.range(..=end).next_back() {
                if to < start {
                    break;
                }
                start = start.min(from);
                end = end.max(to);
                self.settled_ahead.remove(&from);
            }
            self.settled_ahead.insert(start, end);
        }
        let cursor = self.cursor;
        self.remembered.retain(|seq, _| *seq >= cursor);
    }

    pub fn restore_attempts(&mut self, seq: u64, attempts: u32) {
        if seq >= self.cursor {
            self.remembered.insert(seq, attempts);
        }
    }

    /// Whether a record not read yet is known to be settled.
    pub fn is_settled(&self, seq: u64) -> bool {
        if seq < self.cursor {
            return true;
        }
        if let Some(slot) = self.slots.get((seq - self.cursor) as usize) {
            return slot.state == SlotState::Settled;
        }
        self.settled_ahead.range(..=seq).next_back().is_some_and(|(_, end)| *end > seq)
    }

    pub fn attempts(&self, seq: u64) -> u32 {
        match seq.checked_sub(self.cursor).and_then(|i| self.slots.get(i as usize)) {
            Some(slot) => slot.attempts,
            None => self.remembered.get(&seq).copied().unwrap_or(0),
        }
    }

    pub fn is_leased(&self, seq: u64) -> bool {
        seq.checked_sub(self.cursor)
            .and_then(|i| self.slots.get(i as usize))
            .is_some_and(|slot| matches!(slot.state, SlotState::Leased(_)))
    }

    /// Takes back what was held too long. Call before [`Self::lease_waiting`].
    pub fn expire(&mut self, now: Instant) {
        while self.leases.front().is_some_and(|(end, _, _)| *end <= now) {
            let Some((_, lease, seqs)) = self.leases.pop_front() else { break };
            for seq in seqs {
                if self.state_of(seq) == Some(SlotState::Leased(lease)) {
                    self.leased -= 1;
                    self.wait_until(seq, now);
                }
            }
        }
    }

    /// Leases up to `limit` records whose waiting time is over.
    pub fn lease_waiting(&mut self, now: Instant, limit: usize) -> Vec<Due> {
        let mut due = Vec::new();
        while due.len() < limit {
            match self.waiting.peek() {
                Some(Reverse((at, _))) if *at <= now => {}
                _ => break,
            }
            let Some(Reverse((at, seq))) = self.waiting.pop() else { break };
            if self.state_of(seq) == Some(SlotState::Waiting(at)) {
                self.waiting_count -= 1;
                due.push(seq);
            }
        }
        self.hand_out(now, &due)
    }

    /// Leases fresh records: `seqs` ascend from [`Self::next_unread`]; numbers left out between them
    /// do not exist (quarantined) and count as settled, as do those the journal knows.
    pub fn lease_fresh(&mut self, now: Instant, seqs: &[u64], up_to: u64) -> Vec<Due> {
        let mut fresh = Vec::with_capacity(seqs.len());
        let mut wanted = seqs.iter().copied().peekable();
        for seq in self.next_unread()..up_to {
            let exists = wanted.next_if_eq(&seq).is_some();
            let live = exists && !self.is_settled(seq);
            let attempts = self.remembered.remove(&seq).unwrap_or(0);
            self.slots.push_back(Slot { state: SlotState::Settled, attempts });
            if live {
                fresh.push(seq);
            } else {
                self.settled_in_window += 1;
            }
        }
        while let Some((&from, &to)) = self.settled_ahead.first_key_value() {
            if to > self.next_unread() {
                break;
            }
            self.settled_ahead.remove(&from);
        }
        let due = self.hand_out(now, &fresh);
        self.advance();
        due
    }

    fn hand_out(&mut self, now: Instant, seqs: &[u64]) -> Vec<Due> {
        if seqs.is_empty() {
            return Vec::new();
        }
        let lease = self.next_lease;
        self.next_lease += 1;
        self.leases.push_back((now + self.lease, lease, seqs.to_vec()));
        let mut due = Vec::with_capacity(seqs.len());
        for &seq in seqs {
            if let Some(slot) = self.slot_mut(seq) {
                slot.state = SlotState::Leased(lease);
                let attempts = slot.attempts;
                self.leased += 1;
                due.push(Due { seq, lease, attempts });
            }
        }
        due
    }

    /// Settles a record for good. Late (the lease ran out and nobody else settled it) is fine too;
    /// `false` when it was settled before.
    pub fn settle(&mut self, seq: u64) -> bool {
        match self.state_of(seq) {
            Some(SlotState::Leased(_)) => self.leased -= 1,
            Some(SlotState::Waiting(_)) => self.waiting_count -= 1,
            Some(SlotState::Settled) | None => return false,
        }
        if let Some(slot) = self.slot_mut(seq) {
            slot.state = SlotState::Settled;
        }
        self.settled_in_window += 1;
        true
    }

    /// Moves the cursor over what is settled; call once after a batch of [`Self::settle`].
    pub fn advance(&mut self) {
        while self.slots.front().is_some_and(|slot| slot.state == SlotState::Settled) {
            self.slots.pop_front();
            self.cursor += 1;
            self.settled_in_window -= 1;
        }
    }

    /// Gives a record back until `at`. `None` unless `lease` still holds it; else its attempts.
    pub fn give_back(&mut self, seq: u64, lease: u64, at: Instant, spend_attempt: Spend) -> Option<u32> {
        if self.state_of(seq) != Some(SlotState::Leased(lease)) {
            return None;
        }
        self.leased -= 1;
        self.wait_until(seq, at);
        let slot = self.slot_mut(seq)?;
        match spend_attempt {
            Spend::One => slot.attempts = slot.attempts.saturating_add(1),
            Spend::None => {}
        }
        Some(slot.attempts)
    }

    /// When something becomes due by itself: a wait ends or a lease runs out.
    pub fn next_due(&self) -> Option<Instant> {
        let waiting = self.waiting.peek().map(|Reverse((at, _))| *at);
        let lease = self.leases.front().map(|(end, _, _)| *end);
        match (waiting, lease) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Ranges above the cursor that are settled, and attempts spent: what a snapshot must hold.
    pub fn snapshot(&self) -> (u64, Vec<Range<u64>>, Vec<(u64, u32)>) {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        let mut attempts = Vec::new();
        for (i, slot) in self.slots.iter().enumerate() {
            let seq = self.cursor + i as u64;
            if slot.state == SlotState::Settled {
                match ranges.last_mut() {
                    Some(last) if last.end == seq => last.end = seq + 1,
                    _ => ranges.push(seq..seq + 1),
                }
            } else if slot.attempts > 0 {
                attempts.push((seq, slot.attempts));
            }
        }
        let unread = self.next_unread();
        ranges.extend(self.settled_ahead.iter().map(|(from, to)| (*from).max(unread)..*to));
        attempts.extend(self.remembered.iter().map(|(seq, n)| (*seq, *n)));
        (self.cursor, ranges, attempts)
    }

    fn state_of(&self, seq: u64) -> Option<SlotState> {
        self.slots.get(seq.checked_sub(self.cursor)? as usize).map(|slot| slot.state)
    }

    fn slot_mut(&mut self, seq: u64) -> Option<&mut Slot> {
        self.slots.get_mut(seq.checked_sub(self.cursor)? as usize)
    }

    fn wait_until(&mut self, seq: u64, at: Instant) {
        if let Some(slot) = self.slot_mut(seq) {
            slot.state = SlotState::Waiting(at);
            self.waiting_count += 1;
            self.waiting.push(Reverse((at, seq)));
        }
    }
}

/// Whether giving a record back costs it an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spend {
    One,
    None,
}

/// Joins sequence numbers into ranges.
pub fn ranges_of(mut seqs: Vec<u64>) -> Vec<Range<u64>> {
    seqs.sort_unstable();
    seqs.dedup();
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for seq in seqs {
        match ranges.last_mut() {
            Some(last) if last.end == seq => last.end = seq + 1,
            _ => ranges.push(seq..seq + 1),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[derive(Debug, Clone)]
    enum Step {
        Publish(u8),
        Take(u8),
        Settle(u8),
        Retry(u8),
        Wait(u8),
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1u8..6).prop_map(Step::Publish),
            (1u8..6).prop_map(Step::Take),
            any::<u8>().prop_map(Step::Settle),
            any::<u8>().prop_map(Step::Retry),
            any::<u8>().prop_map(Step::Wait),
            Just(Step::Restart),
        ]
    }

    proptest! {
        /// Against a plain model: nothing settled comes back, nothing unsettled is forgotten, no
        /// record is held twice, and the count of the unsettled is right at every step.
        #[test]
        fn nothing_is_lost_and_nothing_comes_back(steps in proptest::collection::vec(step(), 0..120)) {
            let lease = Duration::from_secs(50);
            let mut now = Instant::now();
            let mut table = LeaseTable::new(0, lease);
            let mut end = 0u64;
            let mut settled: BTreeSet<u64> = BTreeSet::new();
            let mut held: Vec<(Due, Instant)> = Vec::new();
            for step in steps {
                match step {
                    Step::Publish(n) => end += u64::from(n),
                    Step::Take(n) => {
                        table.expire(now);
                        held.retain(|(_, ends)| *ends > now);
                        let mut due = table.lease_waiting(now, n.into());
                        let from = table.next_unread();
                        let to = end.min(from + u64::from(n));
                        let seqs: Vec<u64> = (from..to).collect();
                        due.extend(table.lease_fresh(now, &seqs, to));
                        for d in due {
                            prop_assert!(!settled.contains(&d.seq), "a settled record came back");
                            prop_assert!(held.iter().all(|(h, _)| h.seq != d.seq), "held twice");
                            held.push((d, now + lease));
                        }
                    }
                    Step::Settle(i) if !held.is_empty() => {
                        let (d, _) = held.swap_remove(usize::from(i) % held.len());
                        prop_assert_eq!(table.settle(d.seq), settled.insert(d.seq));
                        prop_assert!(!table.settle(d.seq), "settling again changes nothing");
                        table.advance();
                    }
                    Step::Retry(i) if !held.is_empty() => {
                        let (d, ends) = held.swap_remove(usize::from(i) % held.len());
                        let spent = table.give_back(d.seq, d.lease, now + Duration::from_secs(5), Spend::One);
                        prop_assert!(spent == Some(d.attempts + 1) || ends <= now);
                    }
                    Step::Wait(s) => now += Duration::from_secs(u64::from(s) / 4),
                    Step::Restart => {
                        let (cursor, ranges, attempts) = table.snapshot();
                        table = LeaseTable::new(cursor, lease);
                        ranges.into_iter().for_each(|r| table.restore_settled(r));
                        attempts.into_iter().for_each(|(s, n)| table.restore_attempts(s, n));
                        held.clear();
                    }
                    Step::Settle(_) | Step::Retry(_) => {}
                }
                prop_assert_eq!(end - table.settled_count(), end - settled.len() as u64);
            }
            now += Duration::from_secs(1_000);
            table.expire(now);
            let mut seen: BTreeSet<u64> = table.lease_waiting(now, usize::MAX).iter().map(|d| d.seq).collect();
            let seqs: Vec<u64> = (table.next_unread()..end).collect();
            seen.extend(table.lease_fresh(now, &seqs, end).iter().map(|d| d.seq));
            let expected: BTreeSet<u64> = (0..end).filter(|s| !settled.contains(s)).collect();
            prop_assert_eq!(seen, expected);
        }
    }

    #[test]
    fn settling_after_the_lease_ran_out_is_harmless() {
        let now = Instant::now();
        let mut table = LeaseTable::new(0, Duration::from_secs(1));
        let first = table.lease_fresh(now, &[0], 1)[0];
        let later = now + Duration::from_secs(2);
        table.expire(later);
        let second = table.lease_waiting(later, 1)[0];
        assert_eq!(table.give_back(first.seq, first.lease, later, Spend::One), None, "not its lease any more");
        assert!(table.settle(first.seq), "the work is done, whoever did it");
        assert!(!table.settle(second.seq));
    }
}
