//! The journal of one embedded queue: which records are settled, and how often the others failed.
//!
//! A write-ahead log of its own beside the records. Entries are lines of text: `s 10-20 25-26`
//! (settled, end exclusive), `a 7 3` (record 7 has failed 3 times), `c 100 …` (a snapshot: the
//! cursor, then as `s`; attempts follow as `a` lines in the same entry). Entries are handed to the
//! kernel, not synced: what a power cut takes is delivered again, which consumers must bear anyway.
//! A snapshot is synced before records are removed, so the cursor on disk is never behind them.

use super::lease::{Change, LeaseTable};
use crate::{StorageError, StorageResult};
use model::ErrorKind;
use std::fmt::Write as _;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use wal::{Config, OsFilesystem, Wal};

const SEGMENT_BYTES: u64 = 1 << 20;
const ENTRY_BYTES_MAX: u64 = SEGMENT_BYTES / 2;
const SNAPSHOT_AT_BYTES: u64 = 4 * SEGMENT_BYTES;

pub struct Journal {
    log: Wal,
    /// An entry could not be written: the next one must be a snapshot.
    gap: bool,
}

impl Journal {
    /// Opens the journal and the table as it was.
    pub fn open(dir: PathBuf, lease: Duration) -> StorageResult<(Self, LeaseTable)> {
        let config = Config {
            dir,
            segment_bytes: SEGMENT_BYTES,
            max_bytes: 64 * SEGMENT_BYTES,
            max_record_bytes: ENTRY_BYTES_MAX,
        };
        let (log, recovery) = Wal::open(Arc::new(OsFilesystem), config).map_err(super::embedded::error)?;
        let mut table = LeaseTable::new(0, lease);
        let mut reader = log.reader();
        let mut at = recovery.first_seq;
        loop {
            let batch = reader.read(at, 1_000, 1 << 20).map_err(super::embedded::error)?;
            for record in &batch.records {
                if let Ok(text) = std::str::from_utf8(&record.payload) {
                    replay(text, &mut table);
                }
            }
            if batch.next_seq <= at {
                break;
            }
            at = batch.next_seq;
        }
        Ok((Self { log, gap: false }, table))
    }

    /// Remembers changes. A failing disk costs redelivery after a restart, not the settlement: the
    /// table in memory stands, and the next entry that can be written is a snapshot.
    pub fn record(&mut self, changes: &[Change], table: &LeaseTable) {
        if self.gap || self.log.stats().bytes > SNAPSHOT_AT_BYTES {
            match self.snapshot(table) {
                Ok(()) => return,
                Err(error) => tracing::debug!(%error, "writing a queue snapshot failed"),
            }
        }
        let mut text = String::new();
        for change in changes {
            match change {
                Change::Settled(ranges) if ranges.is_empty() => {}
                Change::Settled(ranges) => write_ranges(&mut text, "s", ranges),
                Change::Attempts { seq, attempts } => {
                    let _ = writeln!(text, "a {seq} {attempts}");
                }
            }
        }
        if text.is_empty() {
            return;
        }
        let written = text.len() as u64 <= ENTRY_BYTES_MAX && self.log.append(&[text.as_bytes()]).is_ok();
        if written {
            self.log.publish();
        } else {
            tracing::warn!(
                "cannot write the settlement journal; settled records may be delivered again after a restart"
            );
            self.gap = true;
        }
    }

    /// Writes all that is known as one entry, synced, and drops the older ones.
    pub fn snapshot(&mut self, table: &LeaseTable) -> StorageResult<()> {
        let (cursor, ranges, attempts) = table.snapshot();
        let mut entries = Vec::new();
        let mut text = format!("c {cursor}\n");
        for some in ranges.chunks(1_000) {
            write_ranges(&mut text, "s", some);
            entries.push(std::mem::take(&mut text));
        }
        for some in attempts.chunks(1_000) {
            for (seq, n) in some {
                let _ = writeln!(text, "a {seq} {n}");
            }
            entries.push(std::mem::take(&mut text));
        }
        if !text.is_empty() {
            entries.push(text);
        }
        let mut first = None;
        for entry in entries {
            let seqs = self.log.append(&[entry.as_bytes()]).map_err(super::embedded::error)?;
            first.get_or_insert(seqs.start);
        }
        self.log.sync().map_err(super::embedded::error)?;
        if let Some(first) = first {
            self.log.truncate_before(first).map_err(super::embedded::error)?;
        }
        self.gap = false;
        Ok(())
    }

    pub fn sync(&mut self) -> StorageResult<()> {
        self.log
            .sync()
            .map_err(|e| StorageError::with_source(ErrorKind::Unavailable, "syncing the queue journal", e))?;
        Ok(())
    }
}

fn write_ranges(text: &mut String, verb: &str, ranges: &[Range<u64>]) {
    text.push_str(verb);
    for range in ranges {
        let _ = write!(text, " {}-{}", range.start, range.end);
    }
    text.push('\n');
}

fn replay(text: &str, table: &mut LeaseTable) {
    for line in text.lines() {
        let mut words = line.split(' ');
        match words.next() {
            Some("s") => words.filter_map(range).for_each(|r| table.restore_settled(r)),
            Some("c") => {
                if let Some(cursor) = words.next().and_then(|w| w.parse().ok()) {
                    table.restore_settled(0..cursor);
                }
            }
            Some("a") => {
                if let (Some(Ok(seq)), Some(Ok(n))) = (words.next().map(str::parse), words.next().map(str::parse)) {
                    table.restore_attempts(seq, n);
                }
            }
            _ => {} // written by a newer version: unknown lines are extra knowledge, not needed
        }
    }
}

fn range(word: &str) -> Option<Range<u64>> {
    let (start, end) = word.split_once('-')?;
    Some(start.parse().ok()?..end.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[test]
    fn a_restart_knows_what_is_settled_and_how_often_the_rest_failed() {
        let dir = tempfile::tempdir().unwrap();
        let lease = Duration::from_secs(60);
        {
            let (mut journal, mut table) = Journal::open(dir.path().join("j"), lease).unwrap();
            let seqs: Vec<u64> = (0..10).collect();
            table.lease_fresh(Instant::now(), &seqs, 10);
            for seq in [0, 1, 2, 5, 6] {
                table.settle(seq);
            }
            table.advance();
            journal.record(&[Change::Settled(vec![0..3, 5..7]), Change::Attempts { seq: 8, attempts: 2 }], &table);
        }
        for _ in 0..2 {
            let (mut journal, table) = Journal::open(dir.path().join("j"), lease).unwrap();
            assert_eq!((table.cursor(), table.settled_count()), (3, 5));
            assert!(table.is_settled(6) && !table.is_settled(7));
            assert_eq!(table.attempts(8), 2);
            journal.snapshot(&table).unwrap();
        }
    }

    #[test]
    fn the_journal_stays_small_however_long_it_runs() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, mut table) = Journal::open(dir.path().join("j"), Duration::from_secs(60)).unwrap();
        for seq in 0..400_000u64 {
            table.lease_fresh(Instant::now(), &[seq], seq + 1);
            table.settle(seq);
            table.advance();
            journal.record(&[Change::Settled(super::super::lease::ranges_of(vec![seq]))], &table);
        }
        assert!(journal.log.stats().bytes <= SNAPSHOT_AT_BYTES + 2 * SEGMENT_BYTES, "{:?}", journal.log.stats());
        drop(journal);
        let (_, table) = Journal::open(dir.path().join("j"), Duration::from_secs(60)).unwrap();
        assert_eq!(table.cursor(), 400_000);
    }
}
