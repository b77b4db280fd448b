//! Keeping what collectors hand in, and marking what is sent: one write and one sync for both.

use super::entry::{encode, encode_mark};
use super::{Amount, Ask, Observation, Spool, SpoolError, stream};
use agent_core::{Cut, Sent};

impl Spool {
    /// Keeps the first of these, durably: as many as one write takes; returns how many that were. After an error none
    /// of them is kept, and the same can be tried again.
    pub fn put(&mut self, observations: &[Observation], now_unix_ms: i64) -> Result<usize, SpoolError> {
        Ok(self.write(observations, now_unix_ms, None)?.0)
    }

    /// As [`Self::put`]; if it takes all of them, the next batch is marked by the same write. What is marked is under
    /// way: it is handed back until it is forgotten.
    pub fn cut(
        &mut self,
        observations: &[Observation],
        now_unix_ms: i64,
        ask: Ask,
    ) -> Result<(usize, Option<Cut>), SpoolError> {
        self.write(observations, now_unix_ms, Some(ask))
    }

    fn write(
        &mut self,
        observations: &[Observation],
        now_unix_ms: i64,
        ask: Option<Ask>,
    ) -> Result<(usize, Option<Cut>), SpoolError> {
        let mut entries: Vec<Vec<u8>> = Vec::with_capacity(observations.len() + 1);
        // Those of them that are records, by place; streams of those that are too large.
        let (mut records, mut too_large, mut bytes) = (Vec::new(), Vec::new(), 0);
        for observation in observations {
            let place = entries.len();
            let mut entry = encode(observation, place, now_unix_ms);
            let is_too_large = entry.len() as u64 > self.config.max_record_bytes;
            if is_too_large {
                // Collectors cut what is long; this is counted, and the source goes on.
                entry = encode(&Observation { record: None, ..observation.clone() }, place, now_unix_ms);
            }
            bytes += entry.len() as u64 + 64;
            if bytes > self.config.segment_bytes - 2_048 && !entries.is_empty() {
                break;
            }
            match &observation.record {
                Some(record) if is_too_large => too_large.push(stream(record)),
                Some(_) => records.push((place as u64, entry.len() as u64)),
                None => {}
            }
            entries.push(entry);
        }
        let taken = entries.len();
        self.make_room(bytes)?;
        // Of no entries, this says the number of the next.
        let first = self.wal.append(&[])?.start;
        records.iter_mut().for_each(|(seq, _)| *seq += first);
        let ask = ask.filter(|_| taken == observations.len());
        let cut = match ask {
            Some(ask) => self.next_batch(ask, &records)?.map(|cut| (ask, cut)),
            None => None,
        };
        let sent = cut.map(|(ask, Cut { first_seq, through_seq, .. })| Sent {
            first_seq,
            through_seq,
            sent_unix_ms: ask.sent_unix_ms,
        });
        entries.extend(sent.map(|sent| encode_mark(sent, taken)));
        if entries.is_empty() {
            return Ok((0, None));
        }
        let refs: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
        self.wal.append(&refs)?;
        self.wal.sync()?;
        for observation in observations.iter().take(taken) {
            if let Some(bookmark) = &observation.bookmark {
                self.bookmarks.insert(observation.source.to_string(), bookmark.clone());
            }
        }
        too_large.into_iter().for_each(|stream| self.dropped.count(stream));
        records.iter().for_each(|(_, bytes)| self.held.came(Amount { records: 1, bytes: *bytes }));
        let cut = cut.map(|(_, cut)| cut);
        if let (Some(sent), Some(Cut { records, bytes, .. })) = (sent, cut) {
            self.held.push_mark(sent, Amount { records, bytes });
        }
        self.covered_seq = self.wal.stats().next_seq;
        Ok((taken, cut))
    }

    /// Of what is kept, and of these numbers and sizes behind it.
    fn next_batch(&mut self, ask: Ask, fresh: &[(u64, u64)]) -> Result<Option<Cut>, SpoolError> {
        let mut cut: Option<Cut> = None;
        let mut add = |seq, bytes| {
            let so_far = cut.unwrap_or(Cut { first_seq: seq, through_seq: seq, records: 0, bytes: 0 });
            let next = Cut {
                first_seq: so_far.first_seq,
                through_seq: seq,
                records: so_far.records + 1,
                bytes: so_far.bytes + bytes,
            };
            if cut.is_some() && next.bytes > ask.bytes_max {
                return false;
            }
            cut = Some(next);
            next.records < ask.records_max
        };
        let mut wants_more = true;
        self.each(ask.from_seq, |seq, _, bytes| {
            wants_more = add(seq, bytes);
            wants_more
        })?;
        if wants_more {
            // The first that does not fit is the end.
            let _ = fresh.iter().filter(|(seq, _)| *seq >= ask.from_seq).all(|(seq, bytes)| add(*seq, *bytes));
        }
        Ok(cut)
    }

    /// Gives up what is oldest, until so much more can come.
    fn make_room(&mut self, bytes: u64) -> Result<(), SpoolError> {
        for _ in 0..64 {
            if !self.main_room().must_give_up(bytes + 2_048) {
                break;
            }
            self.give_up()?;
        }
        Ok(())
    }
}
