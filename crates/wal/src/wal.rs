//! The writer: one owner appends, syncs, starts segments, and decides what a failure means.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::{Limit, Result, WalError};
use crate::format::{Codec, HEADER_BYTES, Header, RECORD_OVERHEAD, segment_name};
use crate::fs::{Filesystem, LockGuard, LogFile, write_all_at};
use crate::reader::Reader;
use crate::recover::{Quarantine, Recovery, UNFINISHED, recover};
use crate::segment::{End, INDEX_EVERY_BYTES, Segment};
use crate::shared::{Shared, Stats};

// An encode buffer that one huge batch made large is given back.
const BUFFER_KEPT_BYTES: usize = 8 * 1024 * 1024;
// Writes of at least the first reserve as much as the second ahead; a log with little traffic reserves nothing.
const BULK_BYTES: u64 = 64 * 1024;
const RESERVE_BYTES: u64 = 16 * 1024 * 1024;

/// Where the log is and how large it may become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The log's own directory; created if it is not there.
    pub dir: PathBuf,
    /// A segment is never larger than this. Also the unit in which space is given back, and the bound of one batch.
    pub segment_bytes: u64,
    /// All segments together are never larger than this: an append that does not fit is [`WalError::Full`].
    pub max_bytes: u64,
    /// A payload larger than this is [`WalError::TooLarge`].
    pub max_record_bytes: u64,
}

impl Config {
    /// Segments of 64 MiB, 4 GiB in all, records up to 1 MiB.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), segment_bytes: 64 << 20, max_bytes: 4 << 30, max_record_bytes: 1 << 20 }
    }

    fn validate(&self) -> Result<()> {
        if self.max_record_bytes > u64::from(u32::MAX) {
            return Err(WalError::Invalid("max_record_bytes must be below 4 GiB"));
        }
        if self.segment_bytes < HEADER_BYTES + RECORD_OVERHEAD + self.max_record_bytes {
            return Err(WalError::Invalid("segment_bytes must be at least max_record_bytes + 1040"));
        }
        // The newest segment cannot be given back, so a single one could fill the log for ever.
        if self.max_bytes / 2 < self.segment_bytes {
            return Err(WalError::Invalid("max_bytes must be at least twice segment_bytes"));
        }
        Ok(())
    }
}

/// The segment that is being written.
struct Active {
    segment: Arc<Segment>,
    file: Arc<dyn LogFile>,
    /// What is in the file (or in the page cache), good records only.
    written: End,
    /// Up to where room was asked for.
    reserved: u64,
    dirty: bool,
    indexed: u64,
    /// Up to where a sync on another thread covers; see [`Wal::begin_sync`].
    syncing: Option<End>,
    /// A write that failed while that sync ran: its error, and how many bytes it was of.
    failed: Option<(WalError, u64)>,
}

/// The log and its only writer.
///
/// Dropping it without [`sync`](Wal::sync) gives up what was not synced. For many appending threads see
/// [`Committer`](crate::Committer).
pub struct Wal {
    config: Config,
    shared: Arc<Shared>,
    /// `None` at first, and after a failure that the file cannot be trusted with: the next append starts a segment.
    active: Option<Active>,
    /// The number the next record gets.
    next_seq: u64,
    staged: Vec<u8>,
    staged_index: Vec<(u64, u64)>,
    /// Told by the next `sync`: appends that it would have covered were lost when a segment was left.
    lost: Option<WalError>,
    _lock: LockGuard,
}

impl Wal {
    /// Opens or creates the log, alone: a second open is [`WalError::Locked`] until this one is dropped.
    ///
    /// Damage never fails it. It fails when the system refuses to list, read, cut or sync files.
    pub fn open(fs: Arc<dyn Filesystem>, config: Config) -> Result<(Self, Recovery)> {
        config.validate()?;
        fs.create_dir(&config.dir).map_err(|e| WalError::io("create", &config.dir, e))?;
        let lock_path = config.dir.join("lock");
        let lock = fs.lock(&lock_path).map_err(|e| WalError::io("lock", &lock_path, e))?;
        let Some(lock) = lock else {
            return Err(WalError::Locked { dir: config.dir });
        };
        let mut recovered = recover(&*fs, &config)?;

        let shared = Shared::new(fs.clone(), config.dir.clone(), &mut recovered);
        let report = recovered.report;
        let mut wal = Self {
            config,
            shared: Arc::new(shared),
            active: None,
            next_seq: report.next_seq,
            staged: Vec::new(),
            staged_index: Vec::new(),
            lost: None,
            _lock: lock,
        };
        if let Some((name, bytes)) = recovered.bad_last {
            // If this fails, the bad segment stays where it is and keeps its numbers taken.
            if wal.start_segment().is_ok() && name != segment_name(wal.next_seq) {
                Quarantine::new(&*fs, &wal.config).take(&name, bytes);
            }
        }
        Ok((wal, report))
    }

    /// Writes the records, all or none, with one write, and gives them consecutive numbers.
    ///
    /// They are neither durable nor visible to readers before [`sync`](Wal::sync) (or, for visible only,
    /// [`publish`](Wal::publish)). After an error none of them is in the log; see the crate's documentation for what a
    /// crash right after it may bring back.
    pub fn append(&mut self, records: &[&[u8]]) -> Result<Range<u64>> {
        let seqs = self.stage(records)?;
        self.flush()?;
        Ok(seqs)
    }

    /// Makes everything appended so far durable and visible.
    ///
    /// After an error, what was appended since the last success and not yet published will never be visible: it is
    /// refused, and its numbers are not used again. The log goes on in a new segment.
    pub fn sync(&mut self) -> Result<()> {
        self.flush()?;
        if let Some(error) = self.lost.take() {
            // What came after the loss is refused with it: one failure, one answer.
            self.active = None;
            return Err(error);
        }
        self.sync_active()?;
        Ok(())
    }

    /// Makes everything appended so far visible to readers without making it durable.
    pub fn publish(&mut self) {
        if let Some(active) = &self.active {
            active.segment.set_end(active.written);
            self.shared.visible_seq.store(active.written.seq, Ordering::Release);
        }
    }

    /// A handle for reading, to be used from any thread.
    pub fn reader(&self) -> Reader {
        Reader::new(self.shared.clone())
    }

    /// Gives back whole segments all of whose records are below `seq`; returns how many. The newest always stays.
    ///
    /// The caller must have made its own position durable first: what is removed here cannot be read again.
    /// A crash may bring removed segments back, so a consumer starts from its position, not from `first_seq`.
    pub fn truncate_before(&self, seq: u64) -> Result<u64> {
        self.shared.truncate_before(seq)
    }

    /// Makes `seq` the lowest number that the next record can get; nothing happens if it already is higher.
    ///
    /// A consumer whose durable position is beyond `next_seq` calls this before the first append. It can be: records
    /// that were read before they were durable, and died with the machine, leave their numbers to be used again.
    pub fn advance_to(&mut self, seq: u64) -> Result<()> {
        if seq <= self.next_seq {
            return Ok(());
        }
        self.sync()?;
        self.active = None;
        self.next_seq = seq;
        self.start_segment()?;
        self.publish();
        Ok(())
    }

    /// Counters and positions.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn dir(&self) -> &PathBuf {
        &self.config.dir
    }

    /// Whether something written is not yet synced.
    pub(crate) fn is_dirty(&self) -> bool {
        self.active.as_ref().is_some_and(|active| active.dirty)
    }

    /// As [`publish`](Self::publish); an error when what is to be published was lost.
    pub(crate) fn publish_unless_lost(&mut self) -> Result<()> {
        self.lost.take().map_or(Ok(()), Err)?;
        self.publish();
        Ok(())
    }

    /// For a caller that has answered everybody the loss concerns.
    pub(crate) fn forget_loss(&mut self) {
        self.lost = None;
    }

    /// Whether the records can be staged behind what is staged already, that is, in the same segment.
    pub(crate) fn fits<P: AsRef<[u8]>>(&self, records: &[P]) -> bool {
        let end = self.active.as_ref().map_or(u64::MAX, |active| active.written.offset);
        end.saturating_add(self.staged.len() as u64).saturating_add(encoded_bytes(records)) <= self.config.segment_bytes
    }

    /// Encodes the records behind those already staged; [`flush`](Self::flush) writes them all at once.
    /// Starting a segment is only possible while nothing is staged: see [`fits`](Self::fits).
    pub(crate) fn stage<P: AsRef<[u8]>>(&mut self, records: &[P]) -> Result<Range<u64>> {
        let bytes = encoded_bytes(records);
        self.check_bounds(records, bytes)?;
        if records.is_empty() {
            return Ok(self.next_seq..self.next_seq);
        }
        if !self.fits(records) {
            debug_assert!(self.staged.is_empty(), "staged records would change their segment");
            self.leave_segment()?;
            self.start_segment()?;
        }
        let Some(active) = &mut self.active else {
            return Err(WalError::Closed);
        };
        let first = self.next_seq;
        self.staged.reserve(bytes as usize);
        for record in records {
            let offset = active.written.offset + self.staged.len() as u64;
            if offset - active.indexed >= INDEX_EVERY_BYTES {
                active.indexed = offset;
                self.staged_index.push((self.next_seq, offset));
            }
            active.segment.codec.encode(&mut self.staged, self.next_seq, record.as_ref());
            self.next_seq += 1;
        }
        Ok(first..self.next_seq)
    }

    fn check_bounds<P: AsRef<[u8]>>(&self, records: &[P], bytes: u64) -> Result<()> {
        let limit_bytes = self.config.max_record_bytes;
        if let Some(large) = records.iter().map(|r| r.as_ref().len() as u64).find(|len| *len > limit_bytes) {
            return Err(WalError::TooLarge { bytes: large, limit_bytes });
        }
        let limit_bytes = self.config.segment_bytes - HEADER_BYTES;
        if bytes > limit_bytes {
            return Err(WalError::TooLarge { bytes, limit_bytes });
        }
        let header = if self.fits(records) { 0 } else { HEADER_BYTES };
        let used = self.shared.bytes.load(Ordering::Relaxed) + self.staged.len() as u64;
        if used + header + bytes > self.config.max_bytes {
            return Err(WalError::Full(Limit::LogBytes(self.config.max_bytes)));
        }
        Ok(())
    }

    /// Writes what is staged. After an error it is gone from the file, or the file is not written to again.
    pub(crate) fn flush(&mut self) -> Result<()> {
        let Some(active) = self.active.as_mut().filter(|_| !self.staged.is_empty()) else {
            return Ok(());
        };
        let len = self.staged.len() as u64;
        let end = active.written.offset + len;
        if len >= BULK_BYTES && end > active.reserved {
            active.reserved = (end + RESERVE_BYTES).min(self.config.segment_bytes);
            active.file.reserve(active.written.offset, active.reserved - active.written.offset);
        }
        let written = write_all_at(&*active.file, active.written.offset, &self.staged);
        self.staged.clear();
        self.staged.shrink_to(BUFFER_KEPT_BYTES);
        match written {
            Ok(()) => {
                active.written = End { seq: self.next_seq, offset: active.written.offset + len };
                active.dirty = true;
                active.segment.extend_index(&mut self.staged_index);
                self.shared.bytes.fetch_add(len, Ordering::Relaxed);
                Ok(())
            }
            Err(e) => {
                let error = WalError::io("write", &active.segment.path, e);
                self.shared.write_errors.fetch_add(1, Ordering::Relaxed);
                self.staged_index.clear();
                if active.syncing.is_some() {
                    active.failed = Some((error.clone(), len));
                } else {
                    self.cut_failed_write(&error, len);
                }
                Err(error)
            }
        }
    }

    fn cut_failed_write(&mut self, error: &WalError, refused_bytes: u64) {
        let Some(active) = &mut self.active else { return };
        if active.file.truncate(active.written.offset).is_ok() {
            self.next_seq = active.written.seq;
            active.indexed = active.indexed.min(active.written.offset);
        } else {
            self.abandon(error, refused_bytes);
        }
    }

    /// Hands out the file to be synced by another thread; [`end_sync`](Self::end_sync) takes the outcome. Meanwhile
    /// only [`stage`](Self::stage) of what [`fits`](Self::fits) and [`flush`](Self::flush) may be called, and nothing
    /// after a flush that failed. `None` when there is nothing to sync.
    pub(crate) fn begin_sync(&mut self) -> Result<Option<Arc<dyn LogFile>>> {
        self.flush()?;
        if self.lost.is_some() {
            return self.sync().map(|()| None);
        }
        match self.active.as_mut().filter(|active| active.dirty) {
            Some(active) => {
                active.syncing = Some(active.written);
                Ok(Some(active.file.clone()))
            }
            None => self.sync().map(|()| None),
        }
    }

    /// As the end of [`sync`](Self::sync), for what was written when [`begin_sync`](Self::begin_sync) was called.
    pub(crate) fn end_sync(&mut self, outcome: std::io::Result<()>) -> Result<()> {
        let Some(active) = &mut self.active else { return Ok(()) };
        let Some(covered) = active.syncing.take() else { return Ok(()) };
        let failed = active.failed.take();
        if let Err(error) = outcome {
            // What was written meanwhile is behind what is lost.
            let more = active.written.seq != covered.seq;
            let error = self.sync_failed(error);
            self.lost = more.then(|| error.clone());
            return Err(error);
        }
        active.dirty = active.written.seq != covered.seq;
        self.shared.fsyncs.fetch_add(1, Ordering::Relaxed);
        self.show(covered);
        if let Some((error, refused_bytes)) = failed {
            self.cut_failed_write(&error, refused_bytes);
        }
        Ok(())
    }

    /// The file takes no more writes. What it already took can still be synced, so that is tried, once.
    fn abandon(&mut self, cause: &WalError, refused_bytes: u64) {
        match self.sync_active() {
            Ok(()) => {
                if let Some(Active { file, written, .. }) = &self.active {
                    self.shared.count_left_over(&**file, written.offset, refused_bytes);
                }
            }
            Err(_counted) => self.lost = Some(cause.clone()),
        }
        self.active = None;
    }

    fn sync_active(&mut self) -> Result<()> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        if active.dirty {
            if let Err(error) = active.file.sync_data() {
                return Err(self.sync_failed(error));
            }
            active.dirty = false;
            self.shared.fsyncs.fetch_add(1, Ordering::Relaxed);
        }
        let written = active.written;
        self.show(written);
        Ok(())
    }

    /// What is durable up to `end` becomes visible.
    fn show(&self, end: End) {
        if let Some(active) = &self.active {
            self.shared.synced_seq.store(end.seq, Ordering::Relaxed);
            active.segment.set_end(end);
            self.shared.visible_seq.store(end.seq, Ordering::Release);
        }
    }

    fn sync_failed(&mut self, error: std::io::Error) -> WalError {
        self.shared.fsync_errors.fetch_add(1, Ordering::Relaxed);
        // The kernel may have dropped the pages and would report success next time.
        let Some(active) = self.active.take() else { return WalError::Closed };
        // A cut that was not synced may have been undone with it.
        self.shared.count_left_over(&*active.file, active.written.offset, 0);
        WalError::io("sync", &active.segment.path, error)
    }

    /// Only the last segment may have a torn tail, so what is left behind is synced first.
    fn leave_segment(&mut self) -> Result<()> {
        let synced = self.sync_active();
        self.active = None;
        if let Err(error) = &synced {
            self.lost = Some(error.clone());
        }
        synced
    }

    /// Nothing may be appended to the segment before once this was tried: its successor may be on disk already,
    /// and says where it ends.
    fn start_segment(&mut self) -> Result<()> {
        let Shared { fs, .. } = &*self.shared;
        let dir = &self.config.dir;
        let name = segment_name(self.next_seq);
        let path = dir.join(&name);
        let unfinished = dir.join(name + UNFINISHED);
        let salt = fs.random().map_err(|e| WalError::io("choose a salt for", &path, e))?;
        let previous_end = self.shared.with_segments(|segments| {
            let previous = segments.iter().rev().find(|segment| segment.first_seq < self.next_seq);
            previous.map_or(self.next_seq, |previous| previous.end().seq)
        });
        let header = Header { first_seq: self.next_seq, previous_end, salt };
        let made = fs.create(&unfinished).and_then(|file| {
            write_all_at(&*file, 0, &header.encode())?;
            file.sync_data()?;
            fs.rename(&unfinished, &path)?;
            fs.sync_dir(dir)?;
            Ok(file)
        });
        let file = match made {
            Ok(file) => file,
            Err(e) => {
                self.shared.write_errors.fetch_add(1, Ordering::Relaxed);
                let _gone_or_removed_at_open = fs.remove(&unfinished);
                return Err(WalError::io("start the segment", &path, e));
            }
        };
        let start = End { seq: self.next_seq, offset: HEADER_BYTES };
        let segment = Arc::new(Segment::new(self.next_seq, path, Codec::new(&header), start, Vec::new()));
        self.shared.add(segment.clone());
        self.active = Some(Active {
            segment,
            file,
            written: start,
            reserved: 0,
            dirty: false,
            indexed: HEADER_BYTES,
            syncing: None,
            failed: None,
        });
        Ok(())
    }
}

fn encoded_bytes<P: AsRef<[u8]>>(records: &[P]) -> u64 {
    records.iter().map(|r| RECORD_OVERHEAD + r.as_ref().len() as u64).sum()
}
