//! Opening a directory that was left in any state: what is whole is kept, what is damaged is set aside and reported.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Result, WalError};
use crate::format::{Codec, HEADER_BYTES, Header, HeaderFault, RECORD_OVERHEAD, parse_segment_name};
use crate::fs::{Filesystem, LogFile, read_full_at, write_all_at};
use crate::segment::{End, INDEX_EVERY_BYTES, Segment, Window};
use crate::wal::Config;

/// The folder for damaged bytes, inside the log's directory.
pub(crate) const QUARANTINE: &str = "quarantine";
/// Half-made segments have this suffix.
pub(crate) const UNFINISHED: &str = ".tmp";

const CHUNK_BYTES: usize = 1024 * 1024;
// One file each: a disk that is dying everywhere must not become a million files.
const COPIES_MAX: usize = 256;

/// What `open` found and did. Everything in it has happened already; it is for the log and the metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The oldest record that may be read.
    pub first_seq: u64,
    /// The number the next record gets.
    pub next_seq: u64,
    /// Bytes cut from the end of the last segment: an append that a crash interrupted, never acknowledged as durable.
    /// Kept in `quarantine/cut-tail.bad` until the next cut.
    pub truncated_bytes: u64,
    /// Damaged records, as stretches of a segment.
    pub quarantined_records: Vec<QuarantinedRecords>,
    /// Segments without a readable header, moved whole into `quarantine/`.
    pub quarantined_segments: Vec<QuarantinedSegment>,
    /// Acknowledged numbers with neither records nor damaged bytes: their file is gone or was cut short.
    pub missing: Vec<Range<u64>>,
    /// Segments whose first header was damaged and whose second copy served.
    pub headers_from_copy: u64,
}

impl Recovery {
    /// How many damaged records are being skipped in segments that are otherwise in use.
    pub fn quarantined_count(&self) -> u64 {
        self.quarantined_records.iter().map(|q| q.seqs.end - q.seqs.start).sum()
    }
}

/// A damaged stretch inside a segment. It stays where it is and is skipped by readers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantinedRecords {
    /// The segment's file name.
    pub segment: String,
    /// Where the damage starts.
    pub offset: u64,
    /// Up to the next good record.
    pub bytes: u64,
    /// The records that were there.
    pub seqs: Range<u64>,
    /// The copy in `quarantine/`; `None` if there was no room for one.
    pub copy: Option<String>,
}

/// A segment that was taken out of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantinedSegment {
    /// Its file name, also in `quarantine/`.
    pub segment: String,
    /// Its size.
    pub bytes: u64,
    /// The first number it held; how many it held cannot be known.
    pub first_seq: u64,
}

/// What the writer goes on from.
pub(crate) struct Recovered {
    pub segments: Vec<Arc<Segment>>,
    pub bytes: u64,
    pub report: Recovery,
    /// To be moved to quarantine once the segment that follows it exists, because its name keeps the numbers used.
    pub bad_last: Option<(String, u64)>,
}

struct Candidate {
    name: String,
    path: PathBuf,
    len: u64,
    header: Header,
}

pub(crate) fn recover(fs: &dyn Filesystem, config: &Config) -> Result<Recovered> {
    let mut report = Recovery::default();
    let (candidates, bad) = read_headers(fs, config, &mut report)?;
    // What the process before created or removed must last: numbers and the count of bytes rest on it.
    fs.sync_dir(&config.dir).map_err(|e| WalError::io("sync", &config.dir, e))?;
    let mut quarantine = Quarantine::new(fs, config);

    let mut segments = Vec::new();
    let mut bytes = 0;
    let mut next_seq = 0;
    let last_name = candidates.last().map(|c| c.name.clone());
    let is_behind_last = |b: &QuarantinedSegment| last_name.as_ref().is_none_or(|last| *last < b.segment);
    let mut ends: Vec<u64> = candidates.iter().skip(1).map(|c| c.header.previous_end).collect();
    ends.extend(bad.iter().find(|b| is_behind_last(b)).map(|b| b.first_seq));
    let mut ends = ends.into_iter();
    for candidate in candidates {
        // A reappeared file may overlap its successor's claim; a range never runs backwards.
        let end_seq = ends.next().map(|end| end.max(candidate.header.first_seq));
        let file = fs.open(&candidate.path).map_err(|e| WalError::io("open", &candidate.path, e))?;
        let scan = scan(&candidate, &*file, end_seq)?;
        for (offset, len, seqs) in scan.damage {
            let copy = quarantine.copy(&candidate.name, &*file, offset, len);
            let segment = candidate.name.clone();
            report.quarantined_records.push(QuarantinedRecords { segment, offset, bytes: len, seqs, copy });
        }
        if !scan.missing.is_empty() {
            report.missing.push(scan.missing);
        }
        let mut len = candidate.len;
        if end_seq.is_none() {
            if scan.end.offset < len {
                report.truncated_bytes = len - scan.end.offset;
                quarantine.keep_tail(&*file, scan.end.offset, report.truncated_bytes);
                file.truncate(scan.end.offset).map_err(|e| WalError::io("cut", &candidate.path, e))?;
                len = scan.end.offset;
            }
            // What was read may be in the page cache only; a reader's cursor must not outlive it.
            file.sync_data().map_err(|e| WalError::io("sync", &candidate.path, e))?;
        }
        next_seq = scan.end.seq;
        bytes += len;
        let codec = Codec::new(&candidate.header);
        let segment = Segment::new(candidate.header.first_seq, candidate.path, codec, scan.end, scan.index);
        segments.push(Arc::new(segment));
    }

    let mut bad_last = None;
    for segment in bad {
        if is_behind_last(&segment) {
            // Its records cannot be counted, so the numbers that it may have used are all given up.
            let records_max = segment.bytes.saturating_sub(HEADER_BYTES) / RECORD_OVERHEAD;
            next_seq = next_seq.max(segment.first_seq.saturating_add(records_max));
            if let Some(earlier) = bad_last.replace((segment.segment.clone(), segment.bytes)) {
                quarantine.take(&earlier.0, earlier.1);
            }
        } else {
            quarantine.take(&segment.segment, segment.bytes);
        }
        report.quarantined_segments.push(segment);
    }

    report.first_seq = segments.first().map_or(next_seq, |s| s.first_seq);
    report.next_seq = next_seq;
    Ok(Recovered { segments, bytes, report, bad_last })
}

fn read_headers(
    fs: &dyn Filesystem,
    config: &Config,
    report: &mut Recovery,
) -> Result<(Vec<Candidate>, Vec<QuarantinedSegment>)> {
    let mut files = fs.list(&config.dir).map_err(|e| WalError::io("list", &config.dir, e))?;
    files.sort();
    let mut good = Vec::new();
    let mut bad = Vec::new();
    for (name, _) in files {
        let path = config.dir.join(&name);
        if name.ends_with(UNFINISHED) {
            fs.remove(&path).map_err(|e| WalError::io("remove", &path, e))?;
            continue;
        }
        let Some(first_seq) = parse_segment_name(&name) else {
            continue;
        };
        let file = fs.open(&path).map_err(|e| WalError::io("open", &path, e))?;
        let len = file.size().map_err(|e| WalError::io("measure", &path, e))?;
        let mut head = vec![0; HEADER_BYTES as usize];
        let read = read_full_at(&*file, 0, &mut head).map_err(|e| WalError::io("read", &path, e))?;
        match Header::decode(&head[..read]) {
            Ok((header, from_copy)) if header.first_seq == first_seq && len >= HEADER_BYTES => {
                report.headers_from_copy += u64::from(from_copy);
                good.push(Candidate { name, path, len, header });
            }
            Err(HeaderFault::UnknownVersion(found)) => {
                return Err(WalError::UnknownVersion { path, found });
            }
            Ok(_) | Err(HeaderFault::Damaged) => {
                bad.push(QuarantinedSegment { segment: name, bytes: len, first_seq });
            }
        }
    }
    Ok((good, bad))
}

struct Scan {
    end: End,
    index: Vec<(u64, u64)>,
    damage: Vec<(u64, u64, Range<u64>)>,
    missing: Range<u64>,
}

/// Reads a whole segment. `end_seq` is where its acknowledged records end, known for all but the last segment.
fn scan(segment: &Candidate, file: &dyn LogFile, end_seq: Option<u64>) -> Result<Scan> {
    let codec = Codec::new(&segment.header);
    let limit = End { seq: end_seq.unwrap_or(u64::MAX), offset: segment.len };
    let mut window = Window::new(CHUNK_BYTES);
    let mut at = End { seq: segment.header.first_seq, offset: HEADER_BYTES };
    let mut scan = Scan { end: at, index: Vec::new(), damage: Vec::new(), missing: 0..0 };
    let mut indexed = 0;
    let failed = |e| WalError::io("read", &segment.path, e);
    while at.seq < limit.seq && at.offset < limit.offset {
        let found = window.record_at(file, &codec, at.offset, limit.offset).map_err(failed)?;
        if let Some(found) = found.filter(|found| found.seq == at.seq) {
            if at.offset - indexed >= INDEX_EVERY_BYTES {
                scan.index.push((at.seq, at.offset));
                indexed = at.offset;
            }
            at = End { seq: at.seq + 1, offset: at.offset + found.bytes };
            continue;
        }
        let resynced = window.resync(file, &codec, at.offset, at.seq, limit).map_err(failed)?;
        match (resynced, end_seq) {
            (Some((offset, seq)), _) => {
                scan.damage.push((at.offset, offset - at.offset, at.seq..seq));
                at = End { seq, offset };
            }
            (None, Some(end_seq)) => {
                scan.damage.push((at.offset, limit.offset - at.offset, at.seq..end_seq));
                at = End { seq: end_seq, offset: limit.offset };
            }
            (None, None) => break,
        }
    }
    if let Some(end_seq) = end_seq.filter(|end_seq| at.seq < *end_seq) {
        scan.missing = at.seq..end_seq;
        at.seq = end_seq;
    }
    scan.end = at;
    Ok(scan)
}

/// The folder of damaged bytes. All of it is best effort: evidence must never keep the log from opening.
pub(crate) struct Quarantine<'a> {
    fs: &'a dyn Filesystem,
    log_dir: &'a Path,
    dir: PathBuf,
    bytes_max: u64,
    copies: usize,
}

impl<'a> Quarantine<'a> {
    pub fn new(fs: &'a dyn Filesystem, config: &'a Config) -> Self {
        let dir = config.dir.join(QUARANTINE);
        Self { fs, log_dir: &config.dir, dir, bytes_max: 2 * config.segment_bytes, copies: 0 }
    }

    /// Moves a whole segment here.
    pub fn take(&mut self, name: &str, bytes: u64) {
        if !self.make_room(name, bytes) {
            return;
        }
        if self.fs.rename(&self.log_dir.join(name), &self.dir.join(name)).is_ok() {
            let _evidence_only = self.fs.sync_dir(&self.dir);
            let _evidence_only = self.fs.sync_dir(self.log_dir);
        }
    }

    fn copy(&mut self, segment: &str, from: &dyn LogFile, offset: u64, bytes: u64) -> Option<String> {
        if self.copies >= COPIES_MAX {
            return None;
        }
        self.copies += 1;
        self.write(format!("{segment}-{offset}.bad"), from, offset, bytes)
    }

    fn keep_tail(&mut self, from: &dyn LogFile, offset: u64, bytes: u64) {
        self.write("cut-tail.bad".into(), from, offset, bytes);
    }

    fn write(&mut self, name: String, from: &dyn LogFile, mut offset: u64, bytes: u64) -> Option<String> {
        if !self.make_room(&name, bytes) {
            return None;
        }
        let path = self.dir.join(&name);
        let copied = self.fs.create(&path).and_then(|file| {
            let end = offset + bytes;
            let mut written = 0;
            let mut chunk = vec![0; CHUNK_BYTES.min(bytes as usize)];
            while offset < end {
                let want = chunk.len().min((end - offset) as usize);
                let read = read_full_at(from, offset, &mut chunk[..want])?;
                if read == 0 {
                    break;
                }
                write_all_at(&*file, written, &chunk[..read])?;
                offset += read as u64;
                written += read as u64;
            }
            Ok(())
        });
        match copied {
            Ok(()) => Some(name),
            Err(_) => {
                let _half_a_copy = self.fs.remove(&path);
                None
            }
        }
    }

    /// Removes the oldest evidence until `bytes` more fit. `false` if they never will.
    fn make_room(&self, name: &str, bytes: u64) -> bool {
        if bytes > self.bytes_max || self.fs.create_dir(&self.dir).is_err() {
            return false;
        }
        let Ok(mut files) = self.fs.list(&self.dir) else {
            return false;
        };
        files.retain(|(file, _)| file != name);
        files.sort();
        let mut total: u64 = files.iter().map(|(_, len)| len).sum();
        for (file, len) in files {
            if total + bytes <= self.bytes_max {
                break;
            }
            if self.fs.remove(&self.dir.join(file)).is_ok() {
                total -= len;
            }
        }
        total + bytes <= self.bytes_max
    }
}
