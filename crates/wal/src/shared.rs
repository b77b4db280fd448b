//! What the writer, the readers and the committer's handle all see: the segments there are, and the counters.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::error::{Result, WalError};
use crate::format::HEADER_BYTES;
use crate::fs::{Filesystem, LogFile};
use crate::recover::Recovered;
use crate::segment::{Segment, locked};

/// Counters and positions, read without stopping anybody.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Size of all segments, of the `max_bytes` there may be.
    pub bytes: u64,
    /// How many segments there are.
    pub segments: u64,
    /// The oldest record that may be read.
    pub first_seq: u64,
    /// What readers see ends here.
    pub next_seq: u64,
    /// Everything readable below this survives a power cut, except what an fsync error hit.
    pub synced_seq: u64,
    /// Syncs of segment data that worked.
    pub fsyncs: u64,
    /// Syncs that failed; each sealed a segment.
    pub fsync_errors: u64,
    /// Writes that failed, for want of space or otherwise.
    pub write_errors: u64,
    /// Damaged records skipped, found when opening.
    pub quarantined: u64,
}

/// What readers, the writer and the committer's handle all see.
pub(crate) struct Shared {
    pub fs: Arc<dyn Filesystem>,
    dir: PathBuf,
    segments: RwLock<VecDeque<Arc<Segment>>>,
    /// Bytes of removed segments that a crash could still bring back. The lock lets one truncate at a time.
    removed_bytes: Mutex<u64>,
    pub bytes: AtomicU64,
    pub visible_seq: AtomicU64,
    pub synced_seq: AtomicU64,
    pub fsyncs: AtomicU64,
    pub fsync_errors: AtomicU64,
    pub write_errors: AtomicU64,
    quarantined: u64,
}

impl Shared {
    pub fn new(fs: Arc<dyn Filesystem>, dir: PathBuf, recovered: &mut Recovered) -> Self {
        let next_seq = recovered.report.next_seq;
        Self {
            fs,
            dir,
            segments: RwLock::new(std::mem::take(&mut recovered.segments).into()),
            removed_bytes: Mutex::new(0),
            bytes: AtomicU64::new(recovered.bytes),
            visible_seq: AtomicU64::new(next_seq),
            synced_seq: AtomicU64::new(next_seq),
            fsyncs: AtomicU64::new(0),
            fsync_errors: AtomicU64::new(0),
            write_errors: AtomicU64::new(0),
            quarantined: recovered.report.quarantined_count(),
        }
    }

    pub fn visible_seq(&self) -> u64 {
        self.visible_seq.load(Ordering::Acquire)
    }

    pub fn with_segments<T>(&self, look: impl FnOnce(&VecDeque<Arc<Segment>>) -> T) -> T {
        look(&self.segments.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change_segments<T>(&self, change: impl FnOnce(&mut VecDeque<Arc<Segment>>) -> T) -> T {
        change(&mut self.segments.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds a segment that is only a header yet. It may have replaced one that was left without records.
    pub fn add(&self, segment: Arc<Segment>) {
        self.change_segments(|segments| match segments.back_mut() {
            Some(last) if last.first_seq == segment.first_seq => *last = segment,
            _ => {
                segments.push_back(segment);
                self.bytes.fetch_add(HEADER_BYTES, Ordering::Relaxed);
            }
        });
    }

    /// Counts what a segment that is left has beyond its records; `guess` if it cannot be measured.
    pub fn count_left_over(&self, file: &dyn LogFile, counted: u64, guess: u64) {
        let left_over = file.size().map_or(guess, |size| size.saturating_sub(counted));
        self.bytes.fetch_add(left_over, Ordering::Relaxed);
    }

    pub fn stats(&self) -> Stats {
        let next_seq = self.visible_seq();
        let (segments, first) = self.with_segments(|s| (s.len() as u64, s.front().map(|s| s.first_seq)));
        Stats {
            bytes: self.bytes.load(Ordering::Relaxed),
            segments,
            first_seq: first.unwrap_or(next_seq),
            next_seq,
            synced_seq: self.synced_seq.load(Ordering::Relaxed),
            fsyncs: self.fsyncs.load(Ordering::Relaxed),
            fsync_errors: self.fsync_errors.load(Ordering::Relaxed),
            write_errors: self.write_errors.load(Ordering::Relaxed),
            quarantined: self.quarantined,
        }
    }

    /// See [`Wal::truncate_before`](crate::Wal::truncate_before). Any thread may call it; the writer goes on meanwhile.
    pub fn truncate_before(&self, seq: u64) -> Result<u64> {
        let mut removed_bytes = locked(&self.removed_bytes);
        let mut removed = 0;
        let mut outcome = Ok(());
        loop {
            let oldest = self.with_segments(|s| match (s.front(), s.get(1)) {
                (Some(oldest), Some(next)) if next.first_seq <= seq => Some(oldest.clone()),
                _ => None,
            });
            let Some(oldest) = oldest else { break };
            match self.remove(&oldest) {
                Ok(bytes) => *removed_bytes += bytes,
                Err(e) => {
                    outcome = Err(e);
                    break;
                }
            }
            removed += 1;
        }
        if *removed_bytes > 0 {
            self.fs.sync_dir(&self.dir).map_err(|e| WalError::io("sync", &self.dir, e))?;
            let freed = std::mem::take(&mut *removed_bytes);
            // A file's size may not be what was counted: a failed sync can change it.
            let less = |bytes: u64| Some(bytes.saturating_sub(freed));
            let _always_some = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
        outcome.map(|()| removed)
    }

    /// Returns how many bytes there are less, once the directory is synced.
    fn remove(&self, segment: &Segment) -> Result<u64> {
        // The file's own size, because refused writes may have left more in it than records.
        let len = match self.fs.open(&segment.path).and_then(|file| file.size()) {
            Ok(len) => len,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => segment.end().offset,
            Err(e) => return Err(WalError::io("measure", &segment.path, e)),
        };
        match self.fs.remove(&segment.path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(WalError::io("remove", &segment.path, e));
            }
            _ => self.change_segments(VecDeque::pop_front),
        };
        Ok(len)
    }
}
