//! What the agent keeps until the other end has it.
//!
//! Always true here:
//! * A record and the place where its source stands after it are one entry of one log, durable together before either
//!   counts. So after any crash each source goes on exactly behind what is kept.
//! * Room is bounded. When it is used, the oldest entries go first; the critical ones among them move to a smaller log
//!   of their own, under their old numbers; all others are counted by stream.
//! * What was marked as sent is handed back with the time of its first sending, until it is acknowledged.

mod entry;
mod held;
mod rescue;
mod state;
mod worker;
mod write;

pub use entry::Observation;
pub use worker::{Counts, Sink, SpoolHandle, start};

use agent_core::{Dropped, Restored, Room, Sent, is_critical};
use entry::{Entry, decode};
use held::Held;
use rescue::Rescue;
use state::State;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wal::{Config, Filesystem, Reader, Wal, WalError};
use wire::{Record, record};

/// Entries that are passed over rather than skipped: marks, mostly.
const BEHIND_MAX: u64 = 32;

/// Why the spool cannot do what is asked.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Its log cannot.
    #[error("the spool's log")]
    Log(#[from] WalError),
    /// Its state file cannot.
    #[error("the spool's state file")]
    State(#[source] io::Error),
    /// Its thread cannot begin.
    #[error("the spool's thread")]
    Thread(#[source] io::Error),
}

/// How much it may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpoolBounds {
    /// All in all, rescued records included.
    pub bytes_max: u64,
    /// A record on disk.
    pub record_bytes_max: u64,
}

impl Default for SpoolBounds {
    fn default() -> Self {
        Self { bytes_max: 256 << 20, record_bytes_max: 256 << 10 }
    }
}

impl SpoolBounds {
    fn log(&self, dir: PathBuf, bytes_max: u64) -> Config {
        let least = self.record_bytes_max + 4_096;
        let segment_bytes = (bytes_max / 16).clamp(least, 8 << 20);
        Config {
            dir,
            segment_bytes,
            max_bytes: bytes_max.max(segment_bytes * 3),
            max_record_bytes: self.record_bytes_max,
        }
    }
}

/// Records and their size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    pub records: u64,
    pub bytes: u64,
}

/// A record to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Numbered {
    pub seq: u64,
    pub record: Record,
}

/// What the next batch may be, and when it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    pub from_seq: u64,
    pub records_max: u64,
    pub bytes_max: u64,
    pub sent_unix_ms: i64,
}

/// How full it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// Not acknowledged.
    pub held: Amount,
    pub used_bytes: u64,
    pub max_bytes: u64,
    /// When the oldest of these records came.
    pub oldest_unix_ms: Option<i64>,
    /// Records given up, by stream.
    pub dropped: BTreeMap<String, u64>,
}

/// The spool, on the thread that owns it.
pub struct Spool {
    fs: Arc<dyn Filesystem>,
    dir: PathBuf,
    config: Config,
    wal: Wal,
    reader: Reader,
    /// Where the reader stands.
    read_to: u64,
    rescue: Rescue,
    epoch: u64,
    first_unacked: u64,
    saved_unacked: u64,
    given_up_below: u64,
    /// Up to where `bookmarks` and the marks say what the log says.
    covered_seq: u64,
    /// From and to: entries that are there and do not count.
    void: Vec<(u64, u64)>,
    bookmarks: BTreeMap<String, String>,
    held: Held,
    dropped: Dropped,
}

impl Spool {
    /// Opens or makes the spool in `dir`. `epoch` is its name if it is made.
    pub fn open(fs: Arc<dyn Filesystem>, dir: &Path, bounds: SpoolBounds, epoch: u64) -> Result<Self, SpoolError> {
        fs.create_dir(dir).map_err(SpoolError::State)?;
        let rescued = bounds.log(dir.join("rescued"), bounds.bytes_max / 8);
        let config = bounds.log(dir.join("records"), bounds.bytes_max - bounds.bytes_max / 8);
        let (mut wal, recovery) = Wal::open(fs.clone(), config.clone())?;
        if recovery.quarantined_count() > 0 || !recovery.quarantined_segments.is_empty() {
            tracing::error!(
                records = recovery.quarantined_count(),
                segments = recovery.quarantined_segments.len(),
                "damaged records in the spool were set aside"
            );
        }
        let state = match State::load(&*fs, dir).map_err(SpoolError::State)? {
            Some(state) => state,
            None => {
                let state = State { first_unacked: recovery.first_seq, ..State::new(epoch) };
                state.save(&*fs, dir).map_err(SpoolError::State)?;
                state
            }
        };
        wal.advance_to(state.first_unacked.max(state.covered_seq))?;
        let reader = wal.reader();
        let rescued_void = state.rescued_void.len();
        let rescue = Rescue::open(fs.clone(), rescued, state.given_up_below, state.rescued_void.clone())?;
        let known = (state.void.len(), rescued_void);
        let mut spool = Self {
            fs,
            dir: dir.to_owned(),
            config,
            wal,
            reader,
            read_to: 0,
            rescue,
            epoch: state.epoch,
            first_unacked: state.first_unacked,
            saved_unacked: state.first_unacked,
            given_up_below: state.given_up_below,
            covered_seq: state.covered_seq,
            held: Held::new(state.sent()),
            void: state.void,
            bookmarks: state.bookmarks,
            dropped: Dropped::new(state.dropped),
        };
        spool.replay()?;
        // What was found not to count stays so, whatever is written behind it.
        if (spool.void.len(), spool.rescue.void().len()) != known {
            spool.save()?;
        }
        Ok(spool)
    }

    /// Reads what the log says beyond the state file.
    fn replay(&mut self) -> Result<(), SpoolError> {
        let mut from = self.covered_seq;
        // Of the write that is looked at: where it begins, what should come next, what lies behind a hole in it.
        let (mut first, mut next, mut behind_hole) = (from, from, Vec::new());
        loop {
            let batch = self.reader.read(from, 1_000, 1 << 20)?;
            if batch.next_seq == from {
                break;
            }
            from = batch.next_seq;
            for record in &batch.records {
                let Some(entry) = decode(&record.payload) else { continue };
                let begin = record.seq.saturating_sub(u64::from(entry.place));
                if begin != first {
                    // Another write came after it, so it was whole once: damage of another kind.
                    behind_hole.drain(..).for_each(|entry| self.learn(entry));
                    (first, next) = (begin, begin);
                }
                if record.seq == next {
                    next += 1;
                    self.learn(entry);
                } else {
                    behind_hole.push(entry);
                }
            }
        }
        self.covered_seq = from;
        if !behind_hole.is_empty() {
            self.void.push((next, from));
        }
        let mut found = Vec::new();
        self.each(0, |seq, _, bytes| {
            found.push((seq, bytes));
            true
        })?;
        found.into_iter().for_each(|(seq, bytes)| self.held.found(seq, bytes));
        Ok(())
    }

    fn learn(&mut self, entry: Entry) {
        if let Some(bookmark) = entry.bookmark {
            self.bookmarks.insert(entry.source, bookmark);
        }
        if let Some(mark) = entry.mark {
            self.held.push_mark(mark.into(), Amount::default());
        }
    }

    /// What the agent's decisions go on from.
    pub fn restored(&self) -> Restored {
        Restored { epoch: self.epoch, first_unacked: self.first_unacked, sent: self.held.marks().collect() }
    }

    /// What waits behind the marks.
    pub fn waiting(&self) -> Amount {
        self.held.waiting()
    }

    pub fn bookmarks(&self) -> &BTreeMap<String, String> {
        &self.bookmarks
    }

    pub fn dropped(&self) -> &Dropped {
        &self.dropped
    }

    pub fn room(&self) -> Room {
        Room { used_bytes: self.wal.stats().bytes + self.rescue.bytes(), max_bytes: self.config.max_bytes }
    }

    /// Reads no more than the beginning.
    pub fn look(&mut self) -> Result<Look, SpoolError> {
        let mut oldest_unix_ms = None;
        self.each(0, |_, entry, _| {
            oldest_unix_ms = Some(entry.spooled_unix_ms).filter(|ms| *ms > 0);
            false
        })?;
        let Room { used_bytes, max_bytes } = self.room();
        let dropped = self.dropped.by_stream().clone();
        Ok(Look { held: self.held.total(), used_bytes, max_bytes, oldest_unix_ms, dropped })
    }

    fn main_room(&self) -> Room {
        Room { used_bytes: self.wal.stats().bytes, max_bytes: self.config.max_bytes }
    }

    /// The oldest stretch goes.
    fn give_up(&mut self) -> Result<(), SpoolError> {
        self.wal.sync()?;
        let first = self.wal.stats().first_seq.max(self.given_up_below);
        let (mut from, mut bytes) = (first, 0);
        // Number, size, and stream of what is lost; it counts when all went well.
        let mut lost: Vec<(u64, u64, String)> = Vec::new();
        while bytes < self.config.segment_bytes {
            let batch = self.reader.read(from, 1_000, 256 * 1024)?;
            if batch.next_seq == from {
                break;
            }
            from = batch.next_seq;
            for found in batch.records {
                bytes += found.payload.len() as u64 + 16;
                let Some(record) = decode(&found.payload).and_then(|entry| entry.record) else { continue };
                if found.seq < self.first_unacked || is_void(&self.void, found.seq) {
                    continue;
                }
                if is_critical(&record) {
                    self.rescue(found.seq, &found.payload)?;
                } else {
                    lost.push((found.seq, found.payload.len() as u64, stream(&record).to_owned()));
                }
            }
        }
        self.rescue.sync()?;
        let before = (self.given_up_below, self.dropped.clone());
        lost.iter().for_each(|(_, _, stream)| self.dropped.count(stream));
        self.given_up_below = from;
        if let Err(error) = self.save() {
            (self.given_up_below, self.dropped) = before;
            return Err(error);
        }
        lost.iter().for_each(|(seq, bytes, _)| self.held.gone(*seq, *bytes));
        self.wal.truncate_before(from)?;
        Ok(())
    }

    fn rescue(&mut self, seq: u64, payload: &[u8]) -> Result<(), SpoolError> {
        for _ in 0..64 {
            if self.rescue.put(seq, payload)? {
                return Ok(());
            }
            // Even these have to go, counted first.
            let (dropped, held, acked_below) = (&mut self.dropped, &mut self.held, self.first_unacked);
            let below = self.rescue.oldest(|seq, lost| {
                if seq >= acked_below {
                    held.gone(seq, lost.len() as u64);
                    let lost = decode(lost).and_then(|entry| entry.record);
                    dropped.count(lost.as_ref().map_or("other", stream));
                }
            })?;
            self.save()?;
            self.rescue.remove_below(below)?;
        }
        Err(WalError::Full(wal::Limit::LogBytes(self.config.max_bytes)).into())
    }

    /// Gives `take` the records from `from` on, in order, as long as it wants more.
    fn each(&mut self, from: u64, take: impl FnMut(u64, Entry, u64) -> bool) -> Result<(), SpoolError> {
        self.each_through(from, u64::MAX, take)
    }

    /// Those of these numbers, both included. The reader stands behind the last of them then.
    fn each_through(
        &mut self,
        from: u64,
        through: u64,
        mut take: impl FnMut(u64, Entry, u64) -> bool,
    ) -> Result<(), SpoolError> {
        let from = from.max(self.first_unacked);
        let void = &self.void;
        let mut found = |seq, payload: &[u8]| match decode(payload) {
            _ if seq < from || is_void(void, seq) => true,
            Some(entry) if entry.record.is_some() => take(seq, entry, payload.len() as u64),
            _ => true,
        };
        if from < self.given_up_below && !self.rescue.each(from, self.given_up_below, &mut found)? {
            return Ok(());
        }
        let mut from = from.max(self.given_up_below);
        // Going on where it stands costs the reader less than going a little ahead: that opens the file again.
        if self.read_to < from && from - self.read_to < BEHIND_MAX && self.read_to >= self.given_up_below {
            from = self.read_to;
        }
        while from <= through {
            let records_max = usize::try_from(through - from).unwrap_or(usize::MAX).saturating_add(1).min(256);
            let batch = self.reader.read(from, records_max, 256 * 1024)?;
            if batch.next_seq == from {
                return Ok(());
            }
            from = batch.next_seq;
            self.read_to = from;
            for record in batch.records {
                if !found(record.seq, &record.payload) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Those of these records that there still are.
    pub fn read(&mut self, sent: Sent) -> Result<Vec<Numbered>, SpoolError> {
        let mut records = Vec::new();
        self.each_through(sent.first_seq, sent.through_seq, |seq, entry, _| {
            records.extend(entry.record.map(|record| Numbered { seq, record }));
            seq < sent.through_seq
        })?;
        Ok(records)
    }

    /// These are durable at the other end.
    pub fn forget(&mut self, through_seq: u64) -> Result<(), SpoolError> {
        // What cannot be read is counted a little longer; that is no reason to send it again.
        let counted = if self.held.ends_within(through_seq) { self.count_off(through_seq) } else { Ok(()) };
        self.held.acked(through_seq);
        self.first_unacked = self.first_unacked.max(through_seq.saturating_add(1));
        let first_unacked = self.first_unacked;
        self.void.retain(|(_, to)| *to > first_unacked);
        // About a segment's worth behind, the state is written and the segments go.
        let stats = self.wal.stats();
        let per_segment = stats.next_seq.saturating_sub(stats.first_seq) / stats.segments.max(1);
        if stats.segments > 1 && first_unacked - self.saved_unacked > per_segment / 2 {
            self.save_if_moved()?;
        }
        counted
    }

    /// A batch was acknowledged in part.
    fn count_off(&mut self, through_seq: u64) -> Result<(), SpoolError> {
        let mut acked = Vec::new();
        self.each(0, |seq, _, bytes| {
            let is_acked = seq <= through_seq;
            acked.extend(is_acked.then_some((seq, bytes)));
            is_acked
        })?;
        // Whole batches in front are counted as such.
        let whole: Vec<Sent> = self.held.marks().filter(|sent| sent.through_seq <= through_seq).collect();
        let is_whole = |seq| whole.iter().any(|sent| (sent.first_seq..=sent.through_seq).contains(&seq));
        acked.into_iter().filter(|(seq, _)| !is_whole(*seq)).for_each(|(seq, bytes)| self.held.gone(seq, bytes));
        Ok(())
    }

    /// Writes the state now, if it says something new.
    pub fn save_if_moved(&mut self) -> Result<(), SpoolError> {
        if self.first_unacked != self.saved_unacked {
            self.save()?;
            self.wal.truncate_before(self.first_unacked)?;
            self.rescue.forget_below(self.first_unacked)?;
        }
        Ok(())
    }

    /// Writes the state.
    fn save(&mut self) -> Result<(), SpoolError> {
        let state = State {
            first_unacked: self.first_unacked,
            covered_seq: self.covered_seq,
            given_up_below: self.given_up_below,
            bookmarks: self.bookmarks.clone(),
            marks: self.held.marks().map(|sent| (sent.first_seq, sent.through_seq, sent.sent_unix_ms)).collect(),
            void: self.void.clone(),
            rescued_void: self.rescue.void().to_vec(),
            dropped: self.dropped.by_stream().clone(),
            ..State::new(self.epoch)
        };
        state.save(&*self.fs, &self.dir).map_err(SpoolError::State)?;
        self.saved_unacked = self.first_unacked;
        Ok(())
    }

    /// Gives the spool another name: it is an old copy. What it holds is sent under the new one.
    pub fn rename(&mut self, epoch: u64) -> Result<Restored, SpoolError> {
        self.epoch = epoch;
        self.held.unmark();
        self.save()?;
        Ok(self.restored())
    }

    /// The end.
    pub fn close(mut self) -> Result<(), SpoolError> {
        self.wal.sync()?;
        self.save()
    }
}

fn is_void(void: &[(u64, u64)], seq: u64) -> bool {
    void.iter().any(|(from, to)| (*from..*to).contains(&seq))
}

fn stream(record: &Record) -> &str {
    match &record.body {
        Some(record::Body::Log(log)) => &log.stream,
        Some(record::Body::Metric(metric)) => &metric.stream,
        None => "other",
    }
}

#[cfg(test)]
mod tests;
