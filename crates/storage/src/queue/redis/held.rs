//! What a worker holds, as its processing list in Redis holds it: the same records in the same
//! order. So settling the oldest is a cut at the end of the list, whatever its length.
//!
//! Pure: no IO. Where an answer of Redis was lost, [`Held::align`] compares with the list itself.

use super::super::{Delivery, Rejection, Settlement, Token, Verdict};
use bytes::Bytes;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// Records of one worker, oldest first.
#[derive(Debug, Default)]
pub struct Held {
    slots: VecDeque<Slot>,
    next_seq: u64,
    next_lease: u64,
}

#[derive(Debug)]
struct Slot {
    seq: u64,
    /// As it lies in Redis.
    raw: Bytes,
    state: State,
}

#[derive(Debug)]
enum State {
    Leased {
        lease: u64,
        until: Instant,
    },
    Waiting {
        until: Instant,
    },
    /// Settled here; Redis has not been told yet.
    Settled(Fate),
}

/// What becomes of a settled record in Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    Gone,
    /// Stays with this worker, as the record given here, until its time has come.
    Again(Bytes, Instant),
    /// Back to the queue, for anybody.
    Back,
    /// Becomes this dead letter.
    Dead(Bytes),
}

/// What to tell Redis: cut this many of the oldest, remove these, then put these.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub oldest: usize,
    pub steps: Vec<(&'static str, Bytes)>,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.oldest == 0 && self.steps.is_empty()
    }
}

const ATTEMPTS_KEY: &str = ",\"_attempts\":";

/// The record and its spent attempts: ours are written behind the last key of the object.
pub fn split_attempts(raw: &Bytes) -> (Bytes, u32) {
    const LONGEST: usize = ATTEMPTS_KEY.len() + "4294967295}".len();
    let tail_at = raw.len().saturating_sub(LONGEST);
    let found = raw[tail_at..].windows(ATTEMPTS_KEY.len()).rposition(|w| w == ATTEMPTS_KEY.as_bytes());
    let parsed = found.and_then(|at| {
        let number = raw[tail_at + at + ATTEMPTS_KEY.len()..].strip_suffix(b"}")?;
        let attempts: u32 = std::str::from_utf8(number).ok()?.parse().ok()?;
        Some((tail_at + at, attempts))
    });
    match parsed {
        Some((at, attempts)) => {
            let mut record = raw[..at].to_vec();
            record.push(b'}');
            (record.into(), attempts)
        }
        None => (raw.clone(), 0),
    }
}

/// Writes the attempts behind the last key of a JSON object; anything else, and an object without
/// keys, cannot carry them.
pub fn with_attempts(record: &Bytes, attempts: u32) -> Bytes {
    match record.strip_suffix(b"}") {
        Some(body) if record.starts_with(b"{") && body.len() > 1 && attempts > 0 => {
            let mut raw = body.to_vec();
            raw.extend_from_slice(format!("{ATTEMPTS_KEY}{attempts}}}").as_bytes());
            raw.into()
        }
        _ => record.clone(),
    }
}

impl Held {
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn delayed(&self) -> usize {
        self.slots.iter().filter(|slot| matches!(slot.state, State::Waiting { .. })).count()
    }

    /// Records that Redis has just put at the young end, oldest first; due at once.
    pub fn add(&mut self, raws: Vec<Bytes>, now: Instant) {
        for raw in raws {
            self.slots.push_back(Slot { seq: self.next_seq, raw, state: State::Waiting { until: now } });
            self.next_seq += 1;
        }
    }

    /// Leases what is due, oldest first; also what was leased too long ago.
    pub fn lease(&mut self, limit: usize, now: Instant, lease_for: Duration) -> Vec<Delivery> {
        let next_lease = &mut self.next_lease;
        let due = self.slots.iter_mut().filter(|slot| slot.state.due_at().is_some_and(|at| at <= now));
        due.take(limit)
            .map(|slot| {
                let lease = *next_lease;
                *next_lease += 1;
                slot.state = State::Leased { lease, until: now + lease_for };
                let (payload, attempts) = split_attempts(&slot.raw);
                Delivery { payload, attempts, token: Token { seq: slot.seq, lease } }
            })
            .collect()
    }

    /// When the next record is due, a lease that runs out included.
    pub fn next_due(&self) -> Option<Instant> {
        self.slots.iter().filter_map(|slot| slot.state.due_at()).min()
    }

    /// Whether a lease has run out: whoever held the record has forgotten it.
    pub fn give_back_expired(&mut self, now: Instant) -> usize {
        let mut given = 0;
        for slot in &mut self.slots {
            if matches!(slot.state, State::Leased { until, .. } if until <= now) {
                slot.state = State::Settled(Fate::Back);
                given += 1;
            }
        }
        given
    }

    /// Takes over the verdicts; what is held no longer is passed over. `letter` writes a dead letter.
    pub fn settle(
        &mut self,
        batch: Vec<Settlement>,
        now: Instant,
        letter: impl Fn(&Rejection, u32, &Bytes) -> Option<Bytes>,
    ) {
        for Settlement { token, verdict } in batch {
            let Ok(at) = self.slots.binary_search_by_key(&token.seq, |slot| slot.seq) else { continue };
            let slot = &mut self.slots[at];
            let owned = matches!(slot.state, State::Leased { lease, .. } if lease == token.lease);
            if matches!(slot.state, State::Settled(_)) {
                continue;
            }
            match verdict {
                // Done is done, also when the lease had run out.
                Verdict::Ack => slot.state = State::Settled(Fate::Gone),
                Verdict::Reject { rejection, attempts, payload } => {
                    let fate = letter(&rejection, attempts, &payload).map_or(Fate::Gone, Fate::Dead);
                    slot.state = State::Settled(fate);
                }
                Verdict::Retry(delay) if owned => {
                    let (record, attempts) = split_attempts(&slot.raw);
                    let raw = with_attempts(&record, attempts.saturating_add(1));
                    slot.state = State::Settled(Fate::Again(raw, now + delay));
                }
                Verdict::Defer(delay) if owned => slot.state = State::Waiting { until: now + delay },
                Verdict::Retry(_) | Verdict::Defer(_) => {}
            }
        }
    }

    /// What Redis must be told about settled records.
    pub fn changes(&self) -> Changes {
        let mut changes = Changes::default();
        let settled = |slot: &&Slot| matches!(slot.state, State::Settled(_));
        changes.oldest = self.slots.iter().take_while(settled).count();
        for (at, slot) in self.slots.iter().enumerate() {
            let State::Settled(fate) = &slot.state else { continue };
            if at >= changes.oldest {
                changes.steps.push(("remove", slot.raw.clone()));
            }
            match fate {
                Fate::Gone => {}
                Fate::Again(raw, _) => changes.steps.push(("again", raw.clone())),
                Fate::Back => changes.steps.push(("back", slot.raw.clone())),
                Fate::Dead(letter) => changes.steps.push(("dead", letter.clone())),
            }
        }
        // Removing goes by content: all removals first, or one could hit a record put just now.
        changes.steps.sort_by_key(|(what, _)| *what != "remove");
        changes
    }

    /// Redis has done what [`Self::changes`] said.
    pub fn changed(&mut self) {
        let mut again = Vec::new();
        self.slots.retain_mut(|slot| match &slot.state {
            State::Settled(fate) => {
                if let Fate::Again(raw, until) = fate {
                    again.push((raw.clone(), *until));
                }
                false
            }
            State::Leased { .. } | State::Waiting { .. } => true,
        });
        for (raw, until) in again {
            self.slots.push_back(Slot { seq: self.next_seq, raw, state: State::Waiting { until } });
            self.next_seq += 1;
        }
    }

    /// Makes this equal to the list as it is in Redis, oldest first: what is gone there is forgotten,
    /// what is not known here is due at once.
    pub fn align(&mut self, list: Vec<Bytes>, now: Instant) {
        let mut known = std::mem::take(&mut self.slots);
        for raw in list {
            match known.iter().position(|slot| slot.raw == raw) {
                Some(at) => {
                    let kept = known.remove(at);
                    self.slots.extend(kept);
                }
                None => self.slots.push_back(Slot { seq: u64::MAX, raw, state: State::Waiting { until: now } }),
            }
        }
        // Order is Redis's; numbers must rise with it, or a settlement would not find its record.
        let rising = self.slots.iter().zip(self.slots.iter().skip(1)).all(|(a, b)| a.seq < b.seq);
        let fresh = self.slots.iter().any(|slot| slot.seq == u64::MAX);
        if fresh || !rising {
            self.renumber();
        }
    }

    /// Gives unknown records numbers. A known one keeps its number where the order allows.
    fn renumber(&mut self) {
        let mut last = None;
        for slot in &mut self.slots {
            let fits = slot.seq != u64::MAX && last.is_none_or(|last| slot.seq > last) && slot.seq < self.next_seq;
            if !fits {
                // Its former lease, if any, finds nothing any more; the record is due at once.
                if let State::Leased { until, .. } = slot.state {
                    slot.state = State::Waiting { until };
                }
                slot.seq = self.next_seq;
                self.next_seq += 1;
            }
            last = Some(slot.seq);
        }
    }
}

impl State {
    fn due_at(&self) -> Option<Instant> {
        match self {
            Self::Leased { until, .. } | Self::Waiting { until } => Some(*until),
            Self::Settled(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LEASE: Duration = Duration::from_secs(60);

    fn raw(n: u32) -> Bytes {
        Bytes::from(format!("{{\"n\":{n}}}"))
    }

    /// The list in Redis, oldest first, with the script's meaning of the changes.
    fn apply(list: &mut Vec<Bytes>, changes: &Changes) {
        list.drain(..changes.oldest);
        for (what, record) in &changes.steps {
            match *what {
                "remove" => {
                    let at = list.iter().position(|r| r == record);
                    list.remove(at.expect("what is removed is there"));
                }
                "again" => list.push(record.clone()),
                _ => {}
            }
        }
    }

    fn texts(held: &Held) -> Vec<Bytes> {
        held.slots.iter().map(|slot| slot.raw.clone()).collect()
    }

    #[test]
    fn attempts_ride_behind_the_last_key_and_come_off_again() {
        let record = raw(7);
        assert_eq!(split_attempts(&record), (record.clone(), 0));
        let again = with_attempts(&record, 3);
        assert_eq!(again, Bytes::from_static(b"{\"n\":7,\"_attempts\":3}"));
        assert_eq!(split_attempts(&again), (record, 3));
        for odd in [&b"{}"[..], b"", b"[1]", b"\xff", b"{\"m\":\"x,\\\"_attempts\\\":3}\"}"] {
            let odd = Bytes::from_static(odd);
            assert_eq!(split_attempts(&with_attempts(&odd, 2)).0, odd);
        }
    }

    #[test]
    fn the_oldest_are_cut_and_only_gaps_are_named() {
        let (mut held, now) = (Held::default(), Instant::now());
        held.add((0..6).map(raw).collect(), now);
        let mut out = held.lease(6, now, LEASE).into_iter();
        let mut take = || out.next().unwrap();
        let batch = vec![take().ack(), take().ack(), take().defer(LEASE), take().ack()];
        held.settle(batch, now, |_, _, _| None);
        assert_eq!(held.changes(), Changes { oldest: 2, steps: vec![("remove", raw(3))] });
        held.changed();
        assert_eq!(texts(&held), [raw(2), raw(4), raw(5)]);
        assert!(held.changes().is_empty());
        assert_eq!(held.delayed(), 1);
    }

    #[test]
    fn a_settlement_of_a_lost_lease_changes_nothing_unless_the_work_is_done() {
        let (mut held, now) = (Held::default(), Instant::now());
        held.add(vec![raw(0)], now);
        let first = held.lease(1, now, Duration::ZERO).remove(0);
        let second = held.lease(1, now, LEASE).remove(0);
        held.settle(vec![first.retry_after(LEASE)], now, |_, _, _| None);
        assert!(held.changes().is_empty(), "the second holder decides");
        held.settle(vec![second.ack()], now, |_, _, _| None);
        assert_eq!(held.changes().oldest, 1);
    }

    #[test]
    fn aligning_forgets_what_is_gone_and_finds_what_came_unseen() {
        let (mut held, now) = (Held::default(), Instant::now());
        held.add((0..3).map(raw).collect(), now);
        let mut out = held.lease(3, now, LEASE);
        held.align(vec![raw(1), raw(2), raw(9)], now);
        assert_eq!(texts(&held), [raw(1), raw(2), raw(9)]);
        held.settle(vec![out.remove(1).ack()], now, |_, _, _| None);
        assert_eq!(held.changes().oldest, 1, "the number of a known record still finds it");
        let due = held.lease(9, now, LEASE);
        assert_eq!(due.len(), 1);
        assert_eq!(due[0].payload, raw(9));
    }

    proptest! {
        /// Whatever happens, list and memory hold the same, and nothing is lost: a record leaves only
        /// by a verdict.
        #[test]
        fn it_always_equals_the_list(steps in prop::collection::vec((0u8..6, 1usize..5), 1..60)) {
            let (mut held, now) = (Held::default(), Instant::now());
            let (mut list, mut out, mut made, mut left) = (Vec::new(), VecDeque::new(), 0u32, 0u32);
            for (what, count) in steps {
                match what {
                    0 => {
                        let new: Vec<Bytes> = (made..made + count as u32).map(raw).collect();
                        made += count as u32;
                        list.extend(new.clone());
                        held.add(new, now);
                    }
                    1 => out.extend(held.lease(count, now, LEASE)),
                    5 => held.align(list.clone(), now),
                    _ => {
                        let batch: Vec<Settlement> = (0..count).filter_map(|n| {
                            let delivery = if n % 2 == 0 { out.pop_front() } else { out.pop_back() }?;
                            Some(match what {
                                2 => { left += 1; delivery.ack() }
                                3 => delivery.retry_after(Duration::ZERO),
                                _ => delivery.defer(Duration::ZERO),
                            })
                        }).collect();
                        held.settle(batch, now, |_, _, _| None);
                        apply(&mut list, &held.changes());
                        held.changed();
                    }
                }
                prop_assert_eq!(&texts(&held), &list);
                prop_assert_eq!(list.len() as u32, made - left);
            }
        }
    }
}
