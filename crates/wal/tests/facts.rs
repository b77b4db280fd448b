//! What the crate's documentation says, one fact each.
#![expect(clippy::unwrap_used, reason = "a helper of a test is a test")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use wal::sim::{Fault, SimFilesystem};
use wal::{Batch, Config, Filesystem, Limit, OsFilesystem, Recovery, SkipReason, Wal, WalError};

fn config() -> Config {
    Config { dir: "/log".into(), segment_bytes: 4096, max_bytes: 16 * 1024, max_record_bytes: 1000 }
}

fn open(fs: &SimFilesystem) -> (Wal, Recovery) {
    Wal::open(Arc::new(fs.clone()), config()).unwrap()
}

fn put(wal: &mut Wal, payload: &[u8]) -> u64 {
    let seqs = wal.append(&[payload]).unwrap();
    wal.sync().unwrap();
    seqs.start
}

fn read_all(wal: &Wal, from: u64) -> Batch {
    wal.reader().read(from, usize::MAX, usize::MAX).unwrap()
}

fn seqs(batch: &Batch) -> Vec<u64> {
    batch.records.iter().map(|r| r.seq).collect()
}

/// Ten records of 916 bytes: three a segment, the last segment holds one.
fn ten_records(fs: &SimFilesystem) -> Vec<PathBuf> {
    let (mut wal, _) = open(fs);
    for i in 0..10 {
        put(&mut wal, &[i; 900]);
    }
    segments(fs)
}

fn segments(fs: &SimFilesystem) -> Vec<PathBuf> {
    fs.paths().into_iter().filter(|p| p.parent() == Some(Path::new("/log"))).collect()
}

fn edit(fs: &SimFilesystem, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs.contents(path).unwrap();
    change(&mut bytes);
    fs.set_contents(path, bytes);
}

#[test]
fn records_come_back_in_order_with_their_numbers_after_a_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config::new(dir.path().join("deep/log"));
    let (mut wal, recovery) = Wal::open(Arc::new(OsFilesystem), config.clone()).unwrap();
    assert_eq!(recovery, Recovery::default());
    assert_eq!(wal.append(&[b"a", b"", b"c"]).unwrap(), 0..3);
    wal.sync().unwrap();
    drop(wal);
    let (mut wal, recovery) = Wal::open(Arc::new(OsFilesystem), config).unwrap();
    assert_eq!((recovery.first_seq, recovery.next_seq, recovery.truncated_bytes), (0, 3, 0));
    assert_eq!(put(&mut wal, b"d"), 3);
    let batch = read_all(&wal, 1);
    assert_eq!(seqs(&batch), [1, 2, 3]);
    assert_eq!(batch.records[2].payload, "d");
    assert_eq!((batch.next_seq, batch.skipped.len()), (4, 0));
}

#[test]
fn a_second_open_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config::new(dir.path());
    let first = Wal::open(Arc::new(OsFilesystem), config.clone()).unwrap();
    let error = Wal::open(Arc::new(OsFilesystem), config.clone()).err().unwrap();
    assert!(matches!(&error, WalError::Locked { dir: named } if named == dir.path()), "{error}");
    drop(first);
    Wal::open(Arc::new(OsFilesystem), config).unwrap();
}

#[test]
fn a_torn_tail_is_cut_only_in_the_last_segment() {
    let fs = SimFilesystem::new(1);
    let files = ten_records(&fs);
    edit(&fs, &files[3], |bytes| bytes.truncate(bytes.len() - 1));
    edit(&fs, &files[1], |bytes| bytes.truncate(bytes.len() - 1));
    let (wal, recovery) = open(&fs);
    assert_eq!((recovery.truncated_bytes, recovery.next_seq), (915, 9));
    assert_eq!(recovery.quarantined_records.iter().map(|q| q.seqs.clone()).collect::<Vec<_>>(), vec![5..6; 1]);
    assert_eq!(fs.contents(&files[1]).unwrap().len(), 1024 + 3 * 916 - 1, "a sealed segment is never cut");
    assert_eq!(fs.contents(&files[3]).unwrap().len(), 1024);
    assert_eq!(seqs(&read_all(&wal, 0)), [0, 1, 2, 3, 4, 6, 7, 8]);
}

#[test]
fn valid_records_behind_a_bad_one_are_kept() {
    let fs = SimFilesystem::new(1);
    let (mut wal, _) = open(&fs);
    for i in 0..3 {
        put(&mut wal, &[i; 900]);
    }
    drop(wal);
    edit(&fs, &segments(&fs)[0], |bytes| bytes[1024 + 916 + 500] ^= 1);
    let (mut wal, recovery) = open(&fs);
    assert_eq!((recovery.truncated_bytes, recovery.next_seq, recovery.quarantined_count()), (0, 3, 1));
    let quarantined = &recovery.quarantined_records[0];
    assert_eq!((quarantined.offset, quarantined.bytes, quarantined.seqs.clone()), (1940, 916, 1..2));
    let copy = fs.contents(&Path::new("/log/quarantine").join(quarantined.copy.as_ref().unwrap())).unwrap();
    assert_eq!(copy.len(), 916);
    assert_eq!(put(&mut wal, b"next"), 3);
    let batch = read_all(&wal, 0);
    assert_eq!(seqs(&batch), [0, 2, 3]);
    assert_eq!((batch.skipped[0].seqs.clone(), batch.skipped[0].reason), (1..2, SkipReason::Damaged));
}

#[test]
fn a_segment_without_header_is_set_aside_and_the_rest_is_read() {
    let fs = SimFilesystem::new(1);
    let files = ten_records(&fs);
    edit(&fs, &files[1], |bytes| bytes[..1024].fill(0));
    let (wal, recovery) = open(&fs);
    assert_eq!(recovery.quarantined_segments.len(), 1);
    assert_eq!(recovery.missing, vec![3..6; 1]);
    assert!(fs.contents(&Path::new("/log/quarantine").join(files[1].file_name().unwrap())).is_some());
    assert_eq!(seqs(&read_all(&wal, 0)), [0, 1, 2, 6, 7, 8, 9]);
}

#[test]
fn a_last_segment_without_header_gives_up_all_numbers_it_may_have_used() {
    let fs = SimFilesystem::new(1);
    let files = ten_records(&fs);
    edit(&fs, &files[3], |bytes| bytes[..1024].fill(0));
    let (mut wal, recovery) = open(&fs);
    assert!(recovery.next_seq >= 10, "{recovery:?}");
    assert_eq!(put(&mut wal, b"next"), recovery.next_seq);
    drop(wal);
    let (wal, again) = open(&fs);
    assert_eq!((again.next_seq, again.quarantined_segments.len()), (recovery.next_seq + 1, 0));
    assert_eq!(seqs(&read_all(&wal, 0)), (0..9).chain([recovery.next_seq]).collect::<Vec<_>>());
}

#[test]
fn a_last_segment_cut_down_to_nothing_is_replaced_under_its_name() {
    let fs = SimFilesystem::new(1);
    let files = ten_records(&fs);
    edit(&fs, &files[3], |bytes| bytes.truncate(100));
    let (mut wal, recovery) = open(&fs);
    assert_eq!(recovery.next_seq, 9);
    assert_eq!(put(&mut wal, b"next"), 9);
    drop(wal);
    let (wal, recovery) = open(&fs);
    assert_eq!(recovery.quarantined_segments.len(), 0);
    assert_eq!(seqs(&read_all(&wal, 0)), (0..10).collect::<Vec<_>>());
}

#[test]
fn what_is_found_at_opening_outlives_a_power_cut() {
    for seed in 0..16 {
        let fs = SimFilesystem::new(seed);
        let (mut wal, _) = open(&fs);
        wal.append(&[&[1; 900], &[2; 900]]).unwrap();
        drop(wal);
        let (wal, _) = open(&fs);
        assert_eq!(seqs(&read_all(&wal, 0)), [0, 1], "the process died, not the machine");
        fs.crash();
        fs.restart();
        drop(wal);
        let (wal, recovery) = open(&fs);
        assert_eq!(seqs(&read_all(&wal, 0)), [0, 1], "a reader may have gone on from there: {recovery:?}");
    }
}

/// Found by the model: an opening that failed to sync was tried again, and what was appended lay behind lost records.
#[test]
fn records_appended_after_a_failed_opening_are_not_behind_a_hole() {
    for (seed, call) in (0..32).flat_map(|seed| (0..12).map(move |call| (seed, call))) {
        let fs = SimFilesystem::new(seed);
        let (mut wal, _) = open(&fs);
        wal.append(&[&[1; 200], &[2; 200], &[3; 200]]).unwrap();
        drop(wal);
        fs.fail_at(fs.calls() + call, Fault::Eio);
        drop(Wal::open(Arc::new(fs.clone()), config()));
        fs.fail_at(u64::MAX, Fault::Eio);
        let (mut wal, _) = open(&fs);
        let seq = put(&mut wal, &[4; 200]);
        fs.crash();
        fs.restart();
        drop(wal);
        let (wal, _) = open(&fs);
        assert_eq!(read_all(&wal, seq).records[0].payload[..], [4; 200], "seed {seed}, call {call}");
    }
}

/// Found by the model: the name was in the directory, but only in memory.
#[test]
fn a_segment_that_a_failed_start_left_behind_is_made_to_last_when_it_is_opened() {
    for (seed, call) in (0..16).flat_map(|seed| (0..8).map(move |call| (seed, call))) {
        let fs = SimFilesystem::new(seed);
        let (mut wal, _) = open(&fs);
        for _ in 0..3 {
            put(&mut wal, &[0; 900]);
        }
        fs.fail_at(fs.calls() + call, Fault::Eio);
        let _may_fail = wal.append(&[&[1; 900]]);
        fs.fail_at(u64::MAX, Fault::Eio);
        drop(wal);
        let (mut wal, _) = open(&fs);
        let seq = put(&mut wal, b"kept");
        fs.crash();
        fs.restart();
        drop(wal);
        let (wal, _) = open(&fs);
        assert_eq!(seqs(&read_all(&wal, seq)), [seq], "seed {seed}, call {call}");
    }
}

#[test]
fn a_header_is_read_from_its_copy() {
    let fs = SimFilesystem::new(1);
    let files = ten_records(&fs);
    edit(&fs, &files[1], |bytes| bytes[..512].fill(0));
    let (wal, recovery) = open(&fs);
    assert_eq!(recovery.headers_from_copy, 1);
    assert_eq!(seqs(&read_all(&wal, 0)).len(), 10);
}

#[test]
fn full_log_refuses_and_never_grows() {
    let fs = SimFilesystem::new(1);
    let (mut wal, _) = open(&fs);
    let full = loop {
        match wal.append(&[&[7; 900]]) {
            Ok(_) => wal.sync().unwrap(),
            Err(e) => break e,
        }
    };
    assert!(matches!(full, WalError::Full(Limit::LogBytes(16384))), "{full}");
    let next_seq = wal.stats().next_seq;
    for _ in 0..100 {
        wal.append(&[&[7; 900]]).unwrap_err();
    }
    let on_disk: usize = segments(&fs).iter().map(|p| fs.contents(p).unwrap().len()).sum();
    assert!(on_disk <= 16384);
    assert_eq!(wal.stats().bytes, on_disk as u64);
    assert_eq!(wal.truncate_before(next_seq).unwrap(), wal_segments_before(on_disk));
    assert_eq!(put(&mut wal, &[7; 900]), next_seq);
}

fn wal_segments_before(on_disk: usize) -> u64 {
    (on_disk / (1024 + 3 * 916)) as u64 - u64::from(on_disk.is_multiple_of(1024 + 3 * 916))
}

#[test]
fn too_large_is_told_from_full_and_writes_nothing() {
    let fs = SimFilesystem::new(1);
    let (mut wal, _) = open(&fs);
    let record = wal.append(&[b"small", &[0; 1001]]).unwrap_err();
    assert!(matches!(record, WalError::TooLarge { bytes: 1001, limit_bytes: 1000 }));
    let batch = wal.append(&[&[0; 1000][..]; 4]).unwrap_err();
    assert!(matches!(batch, WalError::TooLarge { bytes: 4064, limit_bytes: 3072 }));
    assert_eq!(put(&mut wal, b"small"), 0);
}

#[test]
fn truncation_removes_only_whole_segments_below_and_never_the_newest() {
    let fs = SimFilesystem::new(1);
    ten_records(&fs);
    let (wal, _) = open(&fs);
    for (before, removed, first) in [(2, 0, 0), (3, 1, 3), (8, 1, 6), (100, 1, 9), (100, 0, 9)] {
        assert_eq!(wal.truncate_before(before).unwrap(), removed, "before {before}");
        assert_eq!(wal.stats().first_seq, first);
    }
    let batch = read_all(&wal, 0);
    assert_eq!((seqs(&batch), batch.skipped[0].seqs.clone()), (vec![9], 0..9));
    assert_eq!(batch.skipped[0].reason, SkipReason::Removed);
}

#[test]
fn removed_segments_may_be_under_a_reader_which_then_moves_on() {
    let fs = SimFilesystem::new(1);
    ten_records(&fs);
    let (wal, _) = open(&fs);
    let mut reader = wal.reader();
    assert_eq!(seqs(&reader.read(0, 1, 10_000).unwrap()), [0]);
    wal.truncate_before(9).unwrap();
    let rest = reader.read(1, 100, 100_000).unwrap();
    assert_eq!(*seqs(&rest).last().unwrap(), 9);
}

#[test]
fn readers_see_nothing_before_it_is_committed() {
    let fs = SimFilesystem::new(1);
    let (mut wal, _) = open(&fs);
    let mut reader = wal.reader();
    wal.append(&[b"a"]).unwrap();
    assert_eq!(reader.read(0, 10, 1000).unwrap(), Batch::default());
    wal.publish();
    assert_eq!(seqs(&reader.read(0, 10, 1000).unwrap()), [0]);
    wal.append(&[b"b"]).unwrap();
    assert_eq!(seqs(&reader.read(1, 10, 1000).unwrap()), [0u64; 0]);
    wal.sync().unwrap();
    assert_eq!(seqs(&reader.read(1, 10, 1000).unwrap()), [1]);
}

#[test]
fn a_read_is_bounded_but_always_moves() {
    let fs = SimFilesystem::new(1);
    ten_records(&fs);
    let (wal, _) = open(&fs);
    let mut reader = wal.reader();
    for (records, bytes, expected) in [(3, 10_000, 3), (100, 1800, 2), (100, 1799, 1), (100, 0, 1), (0, 1000, 0)] {
        assert_eq!(reader.read(2, records, bytes).unwrap().records.len(), expected, "{records} records, {bytes} bytes");
    }
}

#[test]
fn fsync_error_refuses_what_waited_and_the_log_goes_on_in_a_new_segment() {
    let fs = SimFilesystem::new(1);
    let (mut wal, _) = open(&fs);
    put(&mut wal, b"kept");
    wal.append(&[b"refused"]).unwrap();
    fs.fail_at(fs.calls(), Fault::Eio);
    wal.sync().unwrap_err();
    assert_eq!(wal.stats().fsync_errors, 1);
    assert_eq!(put(&mut wal, b"next"), 2, "a refused number is not used again");
    assert_eq!(wal.stats().segments, 2);
    assert_eq!(seqs(&read_all(&wal, 0)), [0, 2]);
    drop(wal);
    let (wal, recovery) = open(&fs);
    assert_eq!(seqs(&read_all(&wal, 0)), [0, 2], "what was refused stays refused: {recovery:?}");
    assert_eq!(recovery.quarantined_count(), 0);
}

#[test]
fn disk_full_refuses_and_reading_goes_on() {
    let fs = SimFilesystem::new(1);
    let (mut wal, _) = open(&fs);
    put(&mut wal, &[1; 500]);
    fs.set_capacity(1024 + 516 + 300);
    let error = wal.append(&[&[2; 500]]).unwrap_err();
    assert!(error.is_disk_full(), "{error}");
    assert_eq!(fs.contents(&segments(&fs)[0]).unwrap().len(), 1024 + 516, "half a record was cut off again");
    assert_eq!(seqs(&read_all(&wal, 0)), [0]);
    fs.set_capacity(u64::MAX);
    assert_eq!(put(&mut wal, &[2; 500]), 1);
    assert_eq!((wal.stats().segments, wal.stats().write_errors), (1, 1));
}

#[test]
fn a_consumer_ahead_of_the_log_moves_its_numbers_on() {
    let fs = SimFilesystem::new(1);
    let (mut wal, _) = open(&fs);
    put(&mut wal, b"a");
    wal.advance_to(1).unwrap();
    assert_eq!(wal.stats().segments, 1);
    wal.advance_to(50).unwrap();
    assert_eq!(put(&mut wal, b"b"), 50);
    drop(wal);
    let (wal, recovery) = open(&fs);
    assert_eq!((recovery.next_seq, recovery.missing.len()), (51, 0));
    let batch = read_all(&wal, 0);
    assert_eq!((seqs(&batch), batch.skipped[0].seqs.clone()), (vec![0, 50], 1..50));
    assert_eq!(batch.skipped[0].reason, SkipReason::Refused);
}

#[test]
fn a_seek_lands_on_the_record_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let (mut wal, _) = Wal::open(Arc::new(OsFilesystem), Config::new(dir.path())).unwrap();
    for first in (0..20_000u32).step_by(100) {
        let payloads: Vec<Vec<u8>> = (first..first + 100).map(|i| i.to_le_bytes().repeat(10)).collect();
        wal.append(&payloads.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
    }
    wal.sync().unwrap();
    for seq in [0, 1, 19_999, 7777, 1169, 1170, 12_345] {
        let batch = wal.reader().read(seq, 1, 1000).unwrap();
        assert_eq!(batch.records[0].payload[..4], (seq as u32).to_le_bytes());
    }
}

#[test]
fn a_newer_format_is_refused_and_not_touched() {
    let fs = SimFilesystem::new(1);
    let files = ten_records(&fs);
    edit(&fs, &files[0], |bytes| {
        for at in [0, 512] {
            bytes[at + 8] = 2;
            let crc = crc32c::crc32c(&bytes[at..at + 44]);
            bytes[at + 44..at + 48].copy_from_slice(&crc.to_le_bytes());
        }
    });
    let error = Wal::open(Arc::new(fs.clone()), config()).err().unwrap();
    assert!(matches!(error, WalError::UnknownVersion { found: 2, .. }), "{error}");
    assert_eq!(segments(&fs), files);
}

#[test]
fn a_config_that_cannot_work_says_what_to_change() {
    for (change, text) in [
        ((|c| c.segment_bytes = 1000) as fn(&mut Config), "segment_bytes"),
        (|c| c.max_bytes = 5000, "max_bytes"),
        (|c| c.max_record_bytes = 1 << 33, "max_record_bytes"),
    ] {
        let mut config = config();
        change(&mut config);
        let error = Wal::open(Arc::new(SimFilesystem::new(1)), config).err().unwrap();
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[test]
fn foreign_files_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("notes.txt"), "mine").unwrap();
    Wal::open(Arc::new(OsFilesystem), Config::new(dir.path())).unwrap();
    assert!(OsFilesystem.list(dir.path()).unwrap().contains(&("notes.txt".into(), 4)));
}
