//! The critical records among those that were given up: a second, smaller log, in the same order, under their old
//! numbers.

use super::{SpoolError, is_void};
use std::sync::Arc;
use wal::{Config, Filesystem, Reader, Wal};

pub(super) struct Rescue {
    wal: Wal,
    reader: Reader,
    /// Stretches of its log that do not count: a machine died while they were written, and they were written again.
    void: Vec<(u64, u64)>,
}

/// A rescued record: its own number in front.
fn number(payload: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = payload.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*number), rest))
}

impl Rescue {
    /// Opens it. Only numbers below `given_up_below` were rescued for good: the others are still where they were.
    pub fn open(
        fs: Arc<dyn Filesystem>,
        config: Config,
        given_up_below: u64,
        void: Vec<(u64, u64)>,
    ) -> Result<Self, SpoolError> {
        let (wal, _) = Wal::open(fs, config)?;
        let reader = wal.reader();
        let mut rescue = Self { wal, reader, void };
        let end = rescue.wal.stats().next_seq;
        let from = rescue.position(given_up_below)?;
        if from < end {
            rescue.void.push((from, end));
        }
        Ok(rescue)
    }

    pub fn void(&self) -> &[(u64, u64)] {
        &self.void
    }

    pub fn bytes(&self) -> u64 {
        self.wal.stats().bytes
    }

    /// Keeps a record; `false` while there is no room, see [`Self::oldest`].
    pub fn put(&mut self, seq: u64, payload: &[u8]) -> Result<bool, SpoolError> {
        match self.wal.append(&[&[&seq.to_be_bytes(), payload].concat()]) {
            Ok(_) => Ok(true),
            Err(wal::WalError::Full(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Passes the oldest eighth to `each`; where it ends. That counts no more: it is to be counted as lost, and then
    /// removed.
    pub fn oldest(&mut self, mut each: impl FnMut(u64, &[u8])) -> Result<u64, SpoolError> {
        self.wal.sync()?;
        let (mut from, next) = (self.wal.stats().first_seq, self.wal.stats().next_seq);
        // What is lost already, in a segment that is not yet.
        while let Some((_, to)) = self.void.iter().find(|(void, to)| (*void..*to).contains(&from)) {
            from = *to;
        }
        let begin = from;
        let below = from + (next - from).div_ceil(8);
        while from < below {
            let batch = self.reader.read(from, (below - from) as usize, 1 << 20)?;
            if batch.next_seq == from {
                break;
            }
            from = batch.next_seq;
            // Numbers can be missing, so that as many records reach further.
            for record in batch.records.iter().filter(|record| record.seq < below) {
                if let Some((seq, rest)) = number(&record.payload).filter(|_| !is_void(&self.void, record.seq)) {
                    each(seq, rest);
                }
            }
        }
        match self.void.iter_mut().find(|(_, to)| *to == begin) {
            Some((_, to)) => *to = below,
            None => self.void.push((begin, below)),
        }
        Ok(below)
    }

    /// Removes what [`Self::oldest`] showed, as far as whole segments go.
    pub fn remove_below(&mut self, below: u64) -> Result<(), SpoolError> {
        self.wal.truncate_before(below)?;
        let first = self.wal.stats().first_seq;
        self.void.retain(|(_, to)| *to > first);
        Ok(())
    }

    pub fn sync(&mut self) -> Result<(), SpoolError> {
        Ok(self.wal.sync()?)
    }

    /// The rescued records from number `from` to below `end`, as long as `take` wants more.
    pub fn each(&mut self, from: u64, end: u64, take: &mut impl FnMut(u64, &[u8]) -> bool) -> Result<bool, SpoolError> {
        let mut at = self.position(from)?;
        loop {
            let batch = self.reader.read(at, 256, 256 * 1024)?;
            if batch.next_seq == at {
                return Ok(true);
            }
            at = batch.next_seq;
            for record in &batch.records {
                let Some((seq, rest)) = number(&record.payload).filter(|_| !is_void(&self.void, record.seq)) else {
                    continue;
                };
                if seq >= end {
                    return Ok(true);
                }
                if seq >= from && !take(seq, rest) {
                    return Ok(false);
                }
            }
        }
    }

    /// Nothing below `seq` is needed any more.
    pub fn forget_below(&mut self, seq: u64) -> Result<(), SpoolError> {
        if self.wal.stats().segments > 1 {
            let at = self.position(seq)?;
            self.remove_below(at)?;
        }
        Ok(())
    }

    /// Where the first record lies whose number is not below `seq`. They lie in order.
    fn position(&mut self, seq: u64) -> Result<u64, SpoolError> {
        let (mut low, mut high) = (self.wal.stats().first_seq, self.wal.stats().next_seq);
        while low < high {
            let middle = low + (high - low) / 2;
            let behind_void = self.void.iter().find(|(from, to)| (*from..*to).contains(&middle)).map(|(_, to)| *to);
            let batch = self.reader.read(behind_void.unwrap_or(middle), 1, 1)?;
            let found = batch.records.first().and_then(|r| Some((r.seq, number(&r.payload)?.0)));
            match found {
                Some((at, found)) if found < seq => low = at + 1,
                _ => high = middle,
            }
        }
        Ok(low)
    }
}
