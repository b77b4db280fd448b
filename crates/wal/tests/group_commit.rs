//! The committer: many threads append, each is answered once, and nobody is told what is not true.
#![expect(clippy::unwrap_used, reason = "a helper of a test is a test")]

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use wal::sim::{Chances, Fault, SimFilesystem};
use wal::{Committer, CommitterConfig, Config, Durability, Limit, OsFilesystem, Result, Wal, WalError};

fn config() -> Config {
    Config { dir: "/log".into(), segment_bytes: 64 * 1024, max_bytes: 4 << 20, max_record_bytes: 1000 }
}

fn start(fs: &SimFilesystem, config: CommitterConfig) -> Committer {
    let (wal, _) = Wal::open(Arc::new(fs.clone()), self::config()).unwrap();
    Committer::start(wal, config, Box::new(|_| {})).unwrap()
}

fn append(committer: &Committer, payload: &str, durability: Durability) -> Result<Range<u64>> {
    let (sender, answer) = channel();
    let done = Box::new(move |outcome| sender.send(outcome).unwrap());
    committer.append(vec![Bytes::copy_from_slice(payload.as_bytes())], durability, done);
    answer.recv_timeout(Duration::from_secs(10)).expect("every append is answered")
}

fn payloads(committer: &Committer) -> BTreeMap<u64, String> {
    let batch = committer.reader().read(0, usize::MAX, usize::MAX).unwrap();
    batch.records.iter().map(|r| (r.seq, String::from_utf8(r.payload.to_vec()).unwrap())).collect()
}

fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_true() {
        assert!(started.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn many_threads_are_each_answered_exactly_once_with_their_own_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(Arc::new(OsFilesystem), Config::new(dir.path())).unwrap();
    let committed = Arc::new(AtomicU64::new(0));
    let seen = committed.clone();
    let on_commit = Box::new(move |next| seen.store(next, Ordering::Relaxed));
    let committer = Committer::start(wal, CommitterConfig::default(), on_commit).unwrap();
    let answers: Mutex<BTreeMap<u64, String>> = Mutex::default();
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let (committer, answers) = (&committer, &answers);
            scope.spawn(move || {
                for i in 0..200 {
                    let durability = [Durability::Strict, Durability::Batched, Durability::Memory][i % 3];
                    let payload = format!("{thread}/{i}");
                    let seqs = append(committer, &payload, durability).unwrap();
                    assert_eq!(seqs.end - seqs.start, 1);
                    assert!(answers.lock().unwrap().insert(seqs.start, payload).is_none());
                }
            });
        }
    });
    committer.close().unwrap();
    let stats = committer.stats();
    assert_eq!((stats.next_seq, stats.synced_seq, committed.load(Ordering::Relaxed)), (3200, 3200, 3200));
    assert!(stats.fsyncs < 3200, "syncs are shared");
    assert_eq!(payloads(&committer), answers.into_inner().unwrap());
}

#[test]
fn fsync_error_nacks_the_waiters_and_the_log_goes_on() {
    let fs = SimFilesystem::new(1);
    let committer = start(&fs, CommitterConfig::default());
    append(&committer, "kept", Durability::Strict).unwrap();
    // The write is the next call, its sync the one after.
    fs.fail_at(fs.calls() + 1, Fault::Eio);
    let error = append(&committer, "refused", Durability::Strict).unwrap_err();
    assert!(matches!(error, WalError::Io { op: "sync", .. }), "{error}");
    append(&committer, "next", Durability::Strict).unwrap();
    assert_eq!(payloads(&committer).into_values().collect::<Vec<_>>(), ["kept", "next"]);
    assert_eq!(committer.stats().fsync_errors, 1);
}

#[test]
fn disk_full_nacks_and_works_again_when_there_is_room() {
    let fs = SimFilesystem::new(1);
    let committer = start(&fs, CommitterConfig::default());
    append(&committer, "kept", Durability::Strict).unwrap();
    fs.set_capacity(0);
    assert!(append(&committer, "refused", Durability::Strict).unwrap_err().is_disk_full());
    assert_eq!(payloads(&committer).len(), 1);
    fs.set_capacity(u64::MAX);
    assert_eq!(append(&committer, "next", Durability::Strict).unwrap(), 1..2);
}

#[test]
fn batched_is_acknowledged_first_and_synced_within_its_time() {
    let fs = SimFilesystem::new(1);
    let committer = start(&fs, CommitterConfig { batched_sync_ms: 200, ..CommitterConfig::default() });
    append(&committer, "a", Durability::Batched).unwrap();
    assert_eq!((committer.stats().next_seq, committer.stats().synced_seq), (1, 0));
    assert_eq!(payloads(&committer).len(), 1, "visible once acknowledged");
    until("the deadline syncs", || committer.stats().synced_seq == 1);
}

#[test]
fn memory_is_not_synced_until_somebody_else_is_or_the_end() {
    let fs = SimFilesystem::new(1);
    let committer = start(&fs, CommitterConfig { batched_sync_ms: 1, ..CommitterConfig::default() });
    append(&committer, "a", Durability::Memory).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(committer.stats().fsyncs, 0);
    append(&committer, "b", Durability::Strict).unwrap();
    assert_eq!((committer.stats().fsyncs, committer.stats().synced_seq), (1, 2));
    append(&committer, "c", Durability::Memory).unwrap();
    committer.close().unwrap();
    assert_eq!(committer.stats().synced_seq, 3);
}

/// Holds the committer's thread inside a callback, so that what is appended meanwhile waits.
fn hold(committer: &Committer) -> Sender<()> {
    let (release, held): (Sender<()>, Receiver<()>) = channel();
    let reached = Arc::new(Barrier::new(2));
    let inside = reached.clone();
    let done = Box::new(move |_| {
        inside.wait();
        let _released_or_dropped = held.recv();
    });
    committer.append(vec![Bytes::from_static(b"hold")], Durability::Memory, done);
    reached.wait();
    release
}

#[test]
fn what_waits_is_bounded_and_refused_at_once() {
    let fs = SimFilesystem::new(1);
    let committer = start(&fs, CommitterConfig { queue_bytes_max: 100, queue_records_max: 3, ..Default::default() });
    let release = hold(&committer);
    let (sender, answers) = channel();
    let add = |payload: &'static [u8]| {
        let sender = sender.clone();
        let done = Box::new(move |outcome| sender.send(outcome).unwrap());
        committer.append(vec![Bytes::from_static(payload)], Durability::Strict, done);
    };
    add(&[0; 60]);
    add(&[0; 60]);
    assert!(matches!(answers.try_recv().unwrap(), Err(WalError::Full(Limit::QueueBytes(100)))));
    add(&[0; 101]);
    assert!(matches!(answers.try_recv().unwrap(), Err(WalError::TooLarge { .. })));
    add(b"");
    add(b"");
    add(b"");
    assert!(matches!(answers.try_recv().unwrap(), Err(WalError::Full(Limit::QueueRecords(3)))));
    release.send(()).unwrap();
    committer.close().unwrap();
    assert_eq!(answers.try_iter().filter(Result::is_ok).count(), 3);
}

#[test]
fn what_waits_is_written_together_with_one_sync() {
    let fs = SimFilesystem::new(1);
    let committer = start(&fs, CommitterConfig::default());
    let release = hold(&committer);
    let (sender, answers) = channel();
    for _ in 0..100 {
        let sender = sender.clone();
        let done = Box::new(move |outcome| sender.send(outcome).unwrap());
        committer.append(vec![Bytes::from_static(b"x"); 3], Durability::Strict, done);
    }
    let calls = fs.calls();
    release.send(()).unwrap();
    committer.close().unwrap();
    assert_eq!(answers.try_iter().filter(Result::is_ok).count(), 100);
    assert_eq!((fs.calls() - calls, committer.stats().fsyncs), (2, 1), "one write and one sync");
}

#[test]
fn closing_answers_everybody_and_later_appends_are_told() {
    let fs = SimFilesystem::new(1);
    let committer = start(&fs, CommitterConfig::default());
    append(&committer, "a", Durability::Memory).unwrap();
    committer.close().unwrap();
    committer.close().unwrap();
    assert!(matches!(append(&committer, "b", Durability::Strict), Err(WalError::Closed)));
    let reopened = start(&fs, CommitterConfig::default());
    assert_eq!(payloads(&reopened).len(), 1, "closing synced it and unlocked the directory");
}

#[test]
fn a_callback_that_panics_harms_nobody_else() {
    let fs = SimFilesystem::new(1);
    let committer = start(&fs, CommitterConfig::default());
    committer.append(vec![Bytes::from_static(b"a")], Durability::Strict, Box::new(|_| panic!("on purpose")));
    assert_eq!(append(&committer, "b", Durability::Strict).unwrap().end, 2);
}

#[test]
fn a_full_log_is_told_to_each_and_room_is_made_by_truncation() {
    let fs = SimFilesystem::new(1);
    let committer = start(&fs, CommitterConfig::default());
    let payload = "x".repeat(1000);
    let mut written = 0;
    let error = loop {
        match append(&committer, &payload, Durability::Memory) {
            Ok(seqs) => written = seqs.end,
            Err(e) => break e,
        }
    };
    assert!(matches!(error, WalError::Full(Limit::LogBytes(_))), "{error}");
    assert!(committer.truncate_before(written).unwrap() > 0);
    assert_eq!(append(&committer, &payload, Durability::Strict).unwrap().start, written);
}

/// Threads append while the disk fails by chance and then dies; what was acknowledged as strict is there.
#[test]
fn strict_acknowledgements_hold_through_errors_and_a_crash() {
    for seed in 0..60 {
        let fs = SimFilesystem::new(seed);
        let committer = start(&fs, CommitterConfig { batched_sync_ms: 1, ..CommitterConfig::default() });
        fs.set_chances(Chances { crash: 2, eio: 30, enospc: 20 });
        let strict: Mutex<BTreeMap<u64, String>> = Mutex::default();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (committer, strict) = (&committer, &strict);
                scope.spawn(move || {
                    for i in 0..100 {
                        let durability =
                            [Durability::Strict, Durability::Batched, Durability::Memory][(i + thread) % 3];
                        let payload = format!("{seed}/{thread}/{i}");
                        let outcome = append(committer, &payload, durability);
                        if let (Ok(seqs), Durability::Strict) = (outcome, durability) {
                            strict.lock().unwrap().insert(seqs.start, payload);
                        }
                    }
                });
            }
        });
        fs.set_chances(Chances::default());
        fs.crash();
        drop(committer);
        fs.restart();
        let found = payloads(&start(&fs, CommitterConfig::default()));
        for (seq, payload) in strict.into_inner().unwrap() {
            assert_eq!(found.get(&seq), Some(&payload), "seed {seed}: acknowledged record {seq} is lost");
        }
    }
}
