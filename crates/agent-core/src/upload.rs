//! Which records are under way, and which may be next.

use std::collections::VecDeque;

/// Records `first_seq..=through_seq` that were, or are about to be, sent; `sent_unix_ms` is when they were the first
/// time, by the clock of the server. Not every number between need have a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    pub first_seq: u64,
    pub through_seq: u64,
    pub sent_unix_ms: i64,
}

/// What the spool found for the next batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    pub first_seq: u64,
    pub through_seq: u64,
    pub records: u64,
    pub bytes: u64,
}

/// How much at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub batch_records: u64,
    pub batch_bytes: u64,
    /// Batches sent and not acknowledged.
    pub in_flight: usize,
    /// Between the beginnings of two batches that are not full: each costs both sides a write to disk.
    pub spacing_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { batch_records: 1_000, batch_bytes: 512 * 1024, in_flight: 4, spacing_ms: 40 }
    }
}

/// What became of an acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acked {
    /// Everything through this number may be forgotten.
    Through(u64),
    /// It said nothing new.
    Old,
    /// It speaks of records that were never sent.
    Impossible,
}

/// A batch that is being cut.
#[derive(Debug, Clone, Copy)]
struct Cutting {
    /// When it is sent.
    sent_unix_ms: i64,
    /// What came meanwhile: it may not have seen that.
    records: u64,
    bytes: u64,
}

/// The window of sent batches, and what waits behind it.
#[derive(Debug, Clone)]
pub struct Upload {
    in_flight: VecDeque<Sent>,
    /// Where the next batch begins.
    next_seq: u64,
    waiting_records: u64,
    waiting_bytes: u64,
    waiting_since_ms: Option<u64>,
    cutting: Option<Cutting>,
    last_cut_ms: Option<u64>,
}

impl Upload {
    /// Goes on from what a spool kept: the batches that were sent and not acknowledged, in order.
    pub fn new(first_unacked: u64, sent: Vec<Sent>) -> Self {
        let in_flight: VecDeque<Sent> = sent
            .into_iter()
            .filter(|sent| sent.through_seq >= first_unacked)
            .map(|sent| Sent { first_seq: sent.first_seq.max(first_unacked), ..sent })
            .collect();
        let next_seq = in_flight.back().map_or(first_unacked, |last| last.through_seq + 1);
        Self {
            in_flight,
            next_seq,
            waiting_records: 0,
            waiting_bytes: 0,
            waiting_since_ms: None,
            cutting: None,
            last_cut_ms: None,
        }
    }

    /// The lowest number that may still be needed.
    pub fn first_unacked(&self) -> u64 {
        self.in_flight.front().map_or(self.next_seq, |first| first.first_seq)
    }

    pub fn in_flight(&self) -> impl Iterator<Item = Sent> + '_ {
        self.in_flight.iter().copied()
    }

    /// Records came into the spool.
    pub fn spooled(&mut self, now_ms: u64, records: u64, bytes: u64) {
        self.waiting_records += records;
        self.waiting_bytes += bytes;
        if let Some(cutting) = &mut self.cutting {
            cutting.records += records;
            cutting.bytes += bytes;
        }
        if self.waiting_records > 0 {
            self.waiting_since_ms.get_or_insert(now_ms);
        }
    }

    /// When a batch is due: `None` while there is nothing, no room in the window, or a cut under way.
    pub fn due_ms(&self, limits: &Limits) -> Option<u64> {
        let since = self.waiting_since_ms?;
        if self.cutting.is_some() || self.waiting_records == 0 || self.in_flight.len() >= limits.in_flight {
            return None;
        }
        let is_full = self.waiting_records >= limits.batch_records || self.waiting_bytes >= limits.batch_bytes;
        let spaced = self.last_cut_ms.map_or(0, |last| last.saturating_add(limits.spacing_ms));
        Some(if is_full { 0 } else { since.max(spaced) })
    }

    /// Asks for the next batch, from this number.
    pub fn begin_cut(&mut self, now_ms: u64, sent_unix_ms: i64) -> u64 {
        self.cutting = Some(Cutting { sent_unix_ms, records: 0, bytes: 0 });
        self.last_cut_ms = Some(now_ms);
        self.next_seq
    }

    /// The spool answered.
    pub fn cut(&mut self, now_ms: u64, cut: Option<Cut>) -> Option<Sent> {
        let Cutting { sent_unix_ms, records, bytes } = self.cutting.take()?;
        let Some(cut) = cut.filter(|cut| cut.first_seq >= self.next_seq && cut.through_seq >= cut.first_seq) else {
            // What was counted as waiting was given up meanwhile.
            (self.waiting_records, self.waiting_bytes) = (records, bytes);
            self.waiting_since_ms = (self.waiting_records > 0).then_some(now_ms);
            return None;
        };
        self.waiting_records = self.waiting_records.saturating_sub(cut.records);
        self.waiting_bytes = self.waiting_bytes.saturating_sub(cut.bytes);
        self.waiting_since_ms = (self.waiting_records > 0).then_some(now_ms);
        let sent = Sent { first_seq: cut.first_seq, through_seq: cut.through_seq, sent_unix_ms };
        self.next_seq = cut.through_seq + 1;
        self.in_flight.push_back(sent);
        Some(sent)
    }

    /// Of a batch only the records through `last` are left, or none. What is gone is never acknowledged.
    pub fn left(&mut self, sent: Sent, last: Option<u64>) {
        let Some(at) = self.in_flight.iter().position(|s| s.through_seq == sent.through_seq) else { return };
        match (self.in_flight.get_mut(at), last.filter(|last| *last >= sent.first_seq)) {
            (Some(kept), Some(last)) => kept.through_seq = kept.through_seq.min(last),
            (_, None) | (None, _) => {
                self.in_flight.remove(at);
            }
        }
    }

    /// Everything through `through_seq` is durable at the other end.
    pub fn acked(&mut self, through_seq: u64) -> Acked {
        if through_seq >= self.next_seq {
            return Acked::Impossible;
        }
        if through_seq < self.first_unacked() {
            return Acked::Old;
        }
        while let Some(front) = self.in_flight.front_mut() {
            if front.through_seq > through_seq {
                front.first_seq = front.first_seq.max(through_seq + 1);
                break;
            }
            self.in_flight.pop_front();
        }
        Acked::Through(through_seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(first_seq: u64, through_seq: u64) -> Sent {
        Sent { first_seq, through_seq, sent_unix_ms: 5 }
    }

    #[test]
    fn an_acknowledgement_within_a_batch_leaves_its_rest() {
        let mut upload = Upload::new(0, vec![sent(0, 9), sent(10, 19)]);
        assert_eq!(upload.acked(4), Acked::Through(4));
        assert_eq!(upload.in_flight().collect::<Vec<_>>(), [sent(5, 9), sent(10, 19)]);
        assert_eq!(upload.acked(4), Acked::Old);
        assert_eq!(upload.acked(9), Acked::Through(9));
        assert_eq!(upload.acked(20), Acked::Impossible);
        assert_eq!(upload.acked(19), Acked::Through(19));
        assert_eq!(upload.first_unacked(), 20);
    }

    #[test]
    fn what_was_given_up_is_not_waited_for() {
        let mut upload = Upload::new(0, vec![sent(0, 9), sent(10, 19), sent(20, 29)]);
        upload.left(sent(0, 9), None);
        upload.left(sent(10, 19), Some(15));
        assert_eq!(upload.in_flight().collect::<Vec<_>>(), [sent(10, 15), sent(20, 29)]);
        assert_eq!(upload.acked(15), Acked::Through(15));
        assert_eq!(upload.first_unacked(), 20);
        upload.left(sent(20, 29), None);
        assert_eq!(upload.first_unacked(), 30);
    }

    #[test]
    fn what_was_acknowledged_before_a_restart_is_not_under_way_after_it() {
        let upload = Upload::new(15, vec![sent(0, 9), sent(10, 19), sent(20, 29)]);
        assert_eq!(upload.in_flight().collect::<Vec<_>>(), [sent(15, 19), sent(20, 29)]);
    }

    #[test]
    fn the_first_batch_goes_at_once_the_next_gathers_unless_it_is_full() {
        let limits = Limits { batch_records: 10, batch_bytes: 100, in_flight: 1, spacing_ms: 50 };
        let mut upload = Upload::new(0, Vec::new());
        assert_eq!(upload.due_ms(&limits), None);
        upload.spooled(1_000, 1, 5);
        upload.spooled(1_010, 1, 5);
        assert_eq!(upload.due_ms(&limits), Some(1_000), "nothing went before it");
        upload.spooled(1_011, 1, 95);
        assert_eq!(upload.due_ms(&limits), Some(0));
        assert_eq!(upload.begin_cut(1_011, 5), 0);
        assert_eq!(upload.due_ms(&limits), None);
        let cut = Cut { first_seq: 0, through_seq: 1, records: 2, bytes: 10 };
        assert_eq!(upload.cut(1_012, Some(cut)), Some(sent(0, 1)));
        assert_eq!(upload.due_ms(&limits), None, "the window is full");
        assert_eq!(upload.acked(1), Acked::Through(1));
        assert_eq!(upload.due_ms(&limits), Some(1_061), "its disk and the server's have a rest");
        upload.spooled(1_013, 9, 5);
        assert_eq!(upload.due_ms(&limits), Some(0), "unless it is full");
    }
}
