//! One segment file as reader, writer and recovery share it, and the window through which its records are read.

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::format::{Codec, RECORD_OVERHEAD};
use crate::fs::{LogFile, read_full_at};

/// A seek scans at most about this far.
pub(crate) const INDEX_EVERY_BYTES: u64 = 64 * 1024;

/// How far a segment may be read: all records below `seq`, which end at `offset`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    pub seq: u64,
    pub offset: u64,
}

pub(crate) struct Segment {
    pub first_seq: u64,
    pub path: PathBuf,
    pub codec: Codec,
    end: Mutex<End>,
    index: Mutex<Vec<(u64, u64)>>,
}

impl Segment {
    pub fn new(first_seq: u64, path: PathBuf, codec: Codec, end: End, index: Vec<(u64, u64)>) -> Self {
        Self { first_seq, path, codec, end: Mutex::new(end), index: Mutex::new(index) }
    }

    pub fn end(&self) -> End {
        *locked(&self.end)
    }

    pub fn set_end(&self, end: End) {
        *locked(&self.end) = end;
    }

    pub fn extend_index(&self, entries: &mut Vec<(u64, u64)>) {
        locked(&self.index).append(entries);
    }

    /// The last indexed record at or before `seq`: its number and offset.
    pub fn seek(&self, seq: u64) -> (u64, u64) {
        let index = locked(&self.index);
        match index.partition_point(|(indexed, _)| *indexed <= seq) {
            0 => (self.first_seq, crate::format::HEADER_BYTES),
            after => index[after - 1],
        }
    }
}

/// A panic elsewhere leaves plain numbers behind these locks, never a half-made state.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A record with a valid checksum, within the buffer of the window that found it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub seq: u64,
    pub bytes: u64,
    start: usize,
}

/// A chunk of one file, moved forward as records are asked for. It never looks past the `limit` it is given.
#[derive(Clone)]
pub(crate) struct Window {
    buf: Bytes,
    at: u64,
    chunk_bytes: usize,
}

impl Window {
    pub fn new(chunk_bytes: usize) -> Self {
        Self { buf: Bytes::new(), at: 0, chunk_bytes }
    }

    /// The record that starts at `offset`, if one with a valid checksum does.
    pub fn record_at(
        &mut self,
        file: &dyn LogFile,
        codec: &Codec,
        offset: u64,
        limit: u64,
    ) -> io::Result<Option<Found>> {
        let Some(start) = self.cover(file, offset, RECORD_OVERHEAD, limit)? else {
            return Ok(None);
        };
        let bytes = codec.record_bytes(&self.buf[start..]);
        let Some(start) = self.cover(file, offset, bytes, limit)? else {
            return Ok(None);
        };
        let record = &self.buf[start..start + bytes as usize];
        Ok(codec.is_valid(record).then(|| Found { seq: codec.seq(record), bytes, start }))
    }

    /// Shares the payload with the buffer: no copy, and the chunk lives as long as the payload does.
    pub fn payload(&self, found: &Found) -> Bytes {
        self.buf.slice(found.start + RECORD_OVERHEAD as usize..found.start + found.bytes as usize)
    }

    /// The first record behind the damage at `bad`, as its offset and number.
    ///
    /// Payloads come from strangers and may hold images of records. Such an image would need the checksum seed and
    /// the mask of the sequence, which are random for each segment; and its number must fit: not below `expected`,
    /// below `end_seq`, and no further on than the damaged bytes could have held records.
    pub fn resync(
        &mut self,
        file: &dyn LogFile,
        codec: &Codec,
        bad: u64,
        expected: u64,
        end: End,
    ) -> io::Result<Option<(u64, u64)>> {
        let mut at = bad + 1;
        while let Some(start) = self.cover(file, at, RECORD_OVERHEAD, end.offset)? {
            let visible = ((self.buf.len() - start) as u64).min(end.offset - at) as usize;
            let bytes = &self.buf[start..start + visible];
            let plausible = bytes.windows(RECORD_OVERHEAD as usize).enumerate().position(|(i, head)| {
                let seq = codec.seq(head);
                let records_lost_max = (at + i as u64 - bad) / RECORD_OVERHEAD;
                seq < end.seq && seq.wrapping_sub(expected) <= records_lost_max
            });
            match plausible {
                None => at += (visible as u64) - RECORD_OVERHEAD + 1,
                Some(i) => {
                    at += i as u64;
                    if let Some(found) = self.record_at(file, codec, at, end.offset)? {
                        return Ok(Some((at, found.seq)));
                    }
                    at += 1;
                }
            }
        }
        Ok(None)
    }

    /// Where in the buffer `offset` is, once `len` bytes from there are in it; `None` if they are not before `limit`.
    fn cover(&mut self, file: &dyn LogFile, offset: u64, len: u64, limit: u64) -> io::Result<Option<usize>> {
        if offset.checked_add(len).is_none_or(|end| end > limit) {
            return Ok(None);
        }
        if offset < self.at || offset + len > self.at + self.buf.len() as u64 {
            let want = len.max(self.chunk_bytes as u64).min(limit - offset);
            let mut chunk = vec![0; want as usize];
            let read = read_full_at(file, offset, &mut chunk)?;
            chunk.truncate(read);
            self.buf = chunk.into();
            self.at = offset;
            if (read as u64) < len {
                return Ok(None);
            }
        }
        Ok(Some((offset - self.at) as usize))
    }
}
