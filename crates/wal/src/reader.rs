//! Reading while the writer appends: a position that moves forward through chunks of the files.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Result, WalError};
use crate::fs::LogFile;
use crate::segment::{End, Segment, Window};
use crate::shared::Shared;

const CHUNK_BYTES: usize = 256 * 1024;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number.
    pub seq: u64,
    /// Its bytes: a slice of the chunk (of 256 KiB) it was read with, which lives as long as this does.
    pub payload: Bytes,
}

/// Why numbers have no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SkipReason {
    /// `truncate_before` gave them back.
    Removed,
    /// They were acknowledged and cannot be read any more.
    Damaged,
    /// They were never acknowledged: refused after an error, or passed over by `advance_to`.
    Refused,
}

/// Numbers that a read passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Which.
    pub seqs: Range<u64>,
    /// Why.
    pub reason: SkipReason,
}

/// The result of a read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// In order. Empty when there is nothing more.
    pub records: Vec<Record>,
    /// Every number from where the read began to `next_seq` is either in `records` or in here.
    pub skipped: Vec<Skipped>,
    /// Where to read on.
    pub next_seq: u64,
}

impl Batch {
    fn skip(&mut self, to: u64, reason: SkipReason) {
        if to <= self.next_seq {
            return;
        }
        let from = std::mem::replace(&mut self.next_seq, to);
        match self.skipped.last_mut() {
            Some(last) if last.reason == reason && last.seqs.end == from => last.seqs.end = to,
            _ => self.skipped.push(Skipped { seqs: from..to, reason }),
        }
    }
}

/// Reads committed records. Cheap to clone; each clone keeps its own position, so reading on from where the last read
/// ended costs no search.
#[derive(Clone)]
pub struct Reader {
    shared: Arc<Shared>,
    position: Option<Position>,
}

#[derive(Clone)]
struct Position {
    segment: Arc<Segment>,
    file: Arc<dyn LogFile>,
    window: Window,
    next: End,
}

enum Place {
    In(Arc<Segment>),
    Skip(u64, SkipReason),
    End,
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, position: None }
    }

    /// Where what can be read now ends.
    pub fn next_seq(&self) -> u64 {
        self.shared.visible_seq()
    }

    /// Reads records from `from_seq` on: at most `max_records`, and at most `max_bytes` of payload, but always one if
    /// there is one. Never waits.
    pub fn read(&mut self, from_seq: u64, max_records: usize, max_bytes: usize) -> Result<Batch> {
        let mut batch = Batch { next_seq: from_seq, ..Batch::default() };
        let mut room = Room { records: max_records, bytes: max_bytes };
        while room.records > 0 {
            if let Some(position) = self.position.as_mut().filter(|p| p.can_serve(batch.next_seq)) {
                if position.read_into(&mut batch, &mut room)? {
                    break;
                }
                continue;
            }
            match self.place(batch.next_seq) {
                Place::In(segment) => match self.open(segment, batch.next_seq)? {
                    Some(mut position) => {
                        let full = position.read_into(&mut batch, &mut room)?;
                        self.position = Some(position);
                        if full {
                            break;
                        }
                    }
                    None => self.skip_vanished(&mut batch),
                },
                Place::Skip(to, reason) => batch.skip(to, reason),
                Place::End => break,
            }
        }
        Ok(batch)
    }

    fn place(&self, seq: u64) -> Place {
        self.shared.with_segments(|segments| {
            let after = segments.partition_point(|s| s.first_seq <= seq);
            let next = segments.get(after).filter(|next| next.first_seq <= self.shared.visible_seq());
            let Some(segment) = after.checked_sub(1).and_then(|i| segments.get(i)) else {
                return next.map_or(Place::End, |next| Place::Skip(next.first_seq, SkipReason::Removed));
            };
            if seq < segment.end().seq {
                return Place::In(segment.clone());
            }
            next.map_or(Place::End, |next| Place::Skip(next.first_seq, SkipReason::Refused))
        })
    }

    /// `None` if the file has been removed since.
    fn open(&self, segment: Arc<Segment>, seq: u64) -> Result<Option<Position>> {
        let file = match self.shared.fs.open(&segment.path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(WalError::io("open", &segment.path, e)),
        };
        let (indexed, offset) = segment.seek(seq);
        let next = End { seq: indexed, offset };
        Ok(Some(Position { segment, file, window: Window::new(CHUNK_BYTES), next }))
    }

    fn skip_vanished(&self, batch: &mut Batch) {
        let end = self.shared.with_segments(|segments| {
            let after = segments.partition_point(|s| s.first_seq <= batch.next_seq);
            match (after.checked_sub(1).and_then(|i| segments.get(i)), segments.get(after)) {
                (_, Some(next)) => next.first_seq,
                (Some(last), None) => last.end().seq,
                (None, None) => batch.next_seq,
            }
        });
        batch.skip(end.min(self.shared.visible_seq()), SkipReason::Removed);
    }
}

struct Room {
    records: usize,
    bytes: usize,
}

impl Position {
    fn can_serve(&self, seq: u64) -> bool {
        self.next.seq == seq && seq < self.segment.end().seq
    }

    /// `true` when the batch is as full as was asked, `false` when the segment has no more.
    fn read_into(&mut self, batch: &mut Batch, room: &mut Room) -> Result<bool> {
        let end = self.segment.end();
        let segment = self.segment.clone();
        let failed = |e| WalError::io("read", &segment.path, e);
        while self.next.seq < end.seq {
            if room.records == 0 {
                return Ok(true);
            }
            let found = self.window.record_at(&*self.file, &segment.codec, self.next.offset, end.offset);
            if let Some(found) = found.map_err(failed)?.filter(|found| found.seq == self.next.seq) {
                if found.seq >= batch.next_seq {
                    let payload = self.window.payload(&found);
                    if payload.len() > room.bytes && !batch.records.is_empty() {
                        return Ok(true);
                    }
                    room.bytes = room.bytes.saturating_sub(payload.len());
                    room.records -= 1;
                    batch.records.push(Record { seq: found.seq, payload });
                    batch.next_seq = found.seq + 1;
                }
                self.next = End { seq: found.seq + 1, offset: self.next.offset + found.bytes };
                continue;
            }
            let Self { file, window, next, .. } = self;
            let resynced = window.resync(&**file, &segment.codec, next.offset, next.seq, end).map_err(failed)?;
            *next = resynced.map_or(end, |(offset, seq)| End { seq, offset });
            batch.skip(self.next.seq, SkipReason::Damaged);
        }
        Ok(false)
    }
}
