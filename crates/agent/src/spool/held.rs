//! What is kept and not acknowledged, counted: all of it, and each batch that is under way.

use super::Amount;
use agent_core::Sent;

#[derive(Default)]
pub(super) struct Held {
    total: Amount,
    /// In order.
    marked: Vec<(Sent, Amount)>,
}

impl Amount {
    pub(super) fn plus(self, other: Self) -> Self {
        Self { records: self.records + other.records, bytes: self.bytes + other.bytes }
    }

    fn minus(self, other: Self) -> Self {
        let records = self.records.saturating_sub(other.records);
        Self { records, bytes: self.bytes.saturating_sub(other.bytes) }
    }
}

impl Held {
    /// Nothing is counted yet: see [`Self::found`].
    pub fn new(marks: Vec<Sent>) -> Self {
        let marked = marks.into_iter().map(|sent| (sent, Amount::default())).collect();
        Self { total: Amount::default(), marked }
    }

    pub fn marks(&self) -> impl Iterator<Item = Sent> + '_ {
        self.marked.iter().map(|(sent, _)| *sent)
    }

    pub fn push_mark(&mut self, sent: Sent, amount: Amount) {
        self.marked.push((sent, amount));
    }

    pub fn total(&self) -> Amount {
        self.total
    }

    /// What is behind all marks.
    pub fn waiting(&self) -> Amount {
        self.marked.iter().fold(self.total, |left, (_, amount)| left.minus(*amount))
    }

    fn mark_of(&mut self, seq: u64) -> Option<&mut Amount> {
        let mut marked = self.marked.iter_mut();
        marked.find(|(sent, _)| (sent.first_seq..=sent.through_seq).contains(&seq)).map(|(_, amount)| amount)
    }

    /// A record that was there at the opening.
    pub fn found(&mut self, seq: u64, bytes: u64) {
        let one = Amount { records: 1, bytes };
        self.total = self.total.plus(one);
        if let Some(amount) = self.mark_of(seq) {
            *amount = amount.plus(one);
        }
    }

    pub fn came(&mut self, amount: Amount) {
        self.total = self.total.plus(amount);
    }

    /// A record was given up, or acknowledged by itself.
    pub fn gone(&mut self, seq: u64, bytes: u64) {
        let one = Amount { records: 1, bytes };
        self.total = self.total.minus(one);
        if let Some(amount) = self.mark_of(seq) {
            *amount = amount.minus(one);
        }
    }

    /// Whether the end of what is acknowledged lies within a batch.
    pub fn ends_within(&self, through_seq: u64) -> bool {
        self.marks().any(|sent| (sent.first_seq..sent.through_seq).contains(&through_seq))
    }

    /// Batches up to here are acknowledged as a whole; what else is, is [`Self::gone`] before.
    pub fn acked(&mut self, through_seq: u64) {
        let total = &mut self.total;
        self.marked.retain(|(sent, amount)| {
            let is_left = sent.through_seq > through_seq;
            if !is_left {
                *total = total.minus(*amount);
            }
            is_left
        });
    }

    /// Nothing is under way.
    pub fn unmark(&mut self) {
        self.marked.clear();
    }
}
