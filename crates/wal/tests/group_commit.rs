//! The committer: many threads append, each is answered once, and nobody is told what is not true.
#![expect(clippy::unwrap_used, reason = "a helper of a test is a test")]

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use wal::sim::{Chances, Fault, SimFilesystem};
use wal::{
    Committer, CommitterConfig, Config, Durability, Filesystem, Limit, LockGuard, LogFile, OsFilesystem, Result, Wal,
    WalError,
};

fn config() -> Config {
    Config { dir: "/log".into(), segment_bytes: 64 * 1024, max_bytes: 4 << 20, max_record_bytes: 1000 }
}

fn start(fs: &SimFilesystem, config: CommitterConfig) -> Committer {
    let (wal, _) = Wal::open(Arc::new(fs.clone()), self::config()).unwrap();
    Committer::start(wal, config, Box::new(|_| {}), Box::new(wal::Answers::send)).unwrap()
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
    let committer = Committer::start(wal, CommitterConfig::default(), on_commit, Box::new(wal::Answers::send)).unwrap();
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
    for seed in 0..120 {
        let fs = SimFilesystem::new(seed);
        // Every other round with a sync on the second thread for even the smallest group.
        let overlap_bytes_min = if seed % 2 == 0 { 0 } else { u64::MAX };
        let config = CommitterConfig { batched_sync_ms: 1, overlap_bytes_min, ..CommitterConfig::default() };
        let committer = start(&fs, config);
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

/// A filesystem whose syncs of records wait to be let through, each with the outcome it is told.
struct Gate {
    inner: SimFilesystem,
    writes: Arc<AtomicU64>,
    syncs: Arc<Mutex<Receiver<std::io::Result<()>>>>,
}

struct GatedFile {
    inner: Arc<dyn LogFile>,
    writes: Arc<AtomicU64>,
    syncs: Arc<Mutex<Receiver<std::io::Result<()>>>>,
}

impl LogFile for GatedFile {
    fn write_at(&self, offset: u64, data: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write_at(offset, data);
        self.writes.fetch_add(1, Ordering::SeqCst);
        written
    }
    fn read_at(&self, offset: u64, data: &mut [u8]) -> std::io::Result<usize> {
        self.inner.read_at(offset, data)
    }
    fn sync_data(&self) -> std::io::Result<()> {
        self.syncs.lock().unwrap().recv().unwrap()?;
        self.inner.sync_data()
    }
    fn truncate(&self, len: u64) -> std::io::Result<()> {
        self.inner.truncate(len)
    }
    fn size(&self) -> std::io::Result<u64> {
        self.inner.size()
    }
}

impl Filesystem for Gate {
    fn create_dir(&self, dir: &Path) -> std::io::Result<()> {
        self.inner.create_dir(dir)
    }
    fn lock(&self, path: &Path) -> std::io::Result<Option<LockGuard>> {
        self.inner.lock(path)
    }
    fn create(&self, path: &Path) -> std::io::Result<Arc<dyn LogFile>> {
        let (inner, writes) = (self.inner.create(path)?, self.writes.clone());
        Ok(Arc::new(GatedFile { inner, writes, syncs: self.syncs.clone() }))
    }
    fn open(&self, path: &Path) -> std::io::Result<Arc<dyn LogFile>> {
        self.inner.open(path)
    }
    fn list(&self, dir: &Path) -> std::io::Result<Vec<(String, u64)>> {
        self.inner.list(dir)
    }
    fn remove(&self, path: &Path) -> std::io::Result<()> {
        self.inner.remove(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        self.inner.rename(from, to)
    }
    fn sync_dir(&self, dir: &Path) -> std::io::Result<()> {
        self.inner.sync_dir(dir)
    }
    fn random(&self) -> std::io::Result<[u8; 16]> {
        self.inner.random()
    }
}

/// A committer that syncs on its second thread, with the first append's segment already begun and its
/// sync held at the gate.
struct Overlap {
    fs: SimFilesystem,
    writes: Arc<AtomicU64>,
    committer: Committer,
    gate: Sender<std::io::Result<()>>,
    answers: Receiver<(&'static str, Result<Range<u64>>)>,
    tell: Sender<(&'static str, Result<Range<u64>>)>,
}

impl Overlap {
    fn start() -> Self {
        let fs = SimFilesystem::new(1);
        let (gate, syncs) = channel();
        gate.send(Ok(())).unwrap(); // the new segment's header
        let writes = Arc::new(AtomicU64::new(0));
        let gated = Gate { inner: fs.clone(), writes: writes.clone(), syncs: Arc::new(Mutex::new(syncs)) };
        let (wal, _) = Wal::open(Arc::new(gated), config()).unwrap();
        let config = CommitterConfig { overlap_bytes_min: 0, ..CommitterConfig::default() };
        let committer = Committer::start(wal, config, Box::new(|_| {}), Box::new(wal::Answers::send)).unwrap();
        let (tell, answers) = channel();
        let overlap = Self { fs, writes, committer, gate, answers, tell };
        overlap.append_until("first", Durability::Strict, 2); // the segment's header, the record
        overlap
    }

    fn append(&self, name: &'static str, durability: Durability) {
        self.append_until(name, durability, self.writes.load(Ordering::SeqCst) + 1);
    }

    fn append_until(&self, name: &'static str, durability: Durability, writes: u64) {
        let tell = self.tell.clone();
        let done = Box::new(move |outcome| tell.send((name, outcome)).unwrap());
        self.committer.append(vec![Bytes::from_static(name.as_bytes())], durability, done);
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.writes.load(Ordering::SeqCst) < writes {
            assert!(Instant::now() < deadline, "`{name}` was not written while the sync before it runs");
            std::thread::yield_now();
        }
    }

    fn open_the_gate(&self) {
        for _ in 0..100 {
            self.gate.send(Ok(())).unwrap();
        }
    }

    /// Who was answered next, and the numbers it got; `None` for an error of the disk.
    fn answer(&self) -> (&'static str, Option<Range<u64>>) {
        let (name, outcome) = self.answers.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(matches!(outcome, Ok(_) | Err(WalError::Io { .. })), "{name}: {outcome:?}");
        (name, outcome.ok())
    }
}

#[test]
fn the_next_group_is_written_while_the_one_before_is_synced_and_answered_after_its_own_sync() {
    let overlap = Overlap::start();
    overlap.append("second", Durability::Strict);
    overlap.append("third", Durability::Memory);
    assert!(overlap.answers.try_recv().is_err(), "nothing is durable yet");
    assert!(payloads(&overlap.committer).is_empty(), "and nothing may be seen");
    overlap.gate.send(Ok(())).unwrap();
    assert_eq!(overlap.answer(), ("first", Some(0..1)));
    assert!(overlap.answers.try_recv().is_err(), "the second is not covered by the first's sync");
    assert_eq!(payloads(&overlap.committer).len(), 1);
    overlap.gate.send(Ok(())).unwrap();
    assert_eq!(overlap.answer(), ("second", Some(1..2)));
    assert_eq!(overlap.answer(), ("third", Some(2..3)));
    assert_eq!(overlap.committer.stats().fsyncs, 2);
    overlap.open_the_gate();
    overlap.committer.close().unwrap();
}

#[test]
fn a_failed_sync_also_refuses_what_was_written_behind_it() {
    let overlap = Overlap::start();
    overlap.append("second", Durability::Memory);
    overlap.append("third", Durability::Strict);
    overlap.gate.send(Err(std::io::Error::other("the disk is gone"))).unwrap();
    for name in ["first", "second", "third"] {
        assert_eq!(overlap.answer(), (name, None));
    }
    overlap.open_the_gate();
    assert_eq!(append(&overlap.committer, "fourth", Durability::Strict).unwrap().start, 3, "numbers are not reused");
    let seen: Vec<String> = payloads(&overlap.committer).into_values().collect();
    assert_eq!(seen, ["fourth"]);
}

#[test]
fn a_write_that_fails_while_a_sync_runs_refuses_only_itself() {
    let overlap = Overlap::start();
    overlap.append("second", Durability::Strict);
    overlap.fs.fail_at(overlap.fs.calls(), Fault::Enospc);
    overlap.append("third", Durability::Strict);
    overlap.open_the_gate();
    let mut outcomes = [overlap.answer(), overlap.answer(), overlap.answer()];
    outcomes.sort_by_key(|(name, _)| *name);
    assert_eq!(outcomes, [("first", Some(0..1)), ("second", Some(1..2)), ("third", None)]);
    assert_eq!(append(&overlap.committer, "fourth", Durability::Strict).unwrap(), 2..3, "the cut made its room free");
}
