//! The log against a plain model, on a filesystem that fails in every way it can.
//!
//! The model keeps what the contract promises: what `sync` acknowledged is there for ever with its bytes and number;
//! nothing is read that was not appended; within one life, what was refused stays refused.
#![expect(clippy::unwrap_used, reason = "a helper of a test is a test")]

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use wal::sim::{Chances, Fault, SimFilesystem};
use wal::{Config, Reader, SkipReason, Wal, WalError};

#[derive(Debug, Clone)]
enum Action {
    Append { records: usize, bytes: usize },
    Sync,
    Publish,
    Read { from: u64, records: usize },
    TruncateBefore { back: u64 },
    Reopen,
    Crash,
    DiskFull,
    DiskFree,
}

fn config() -> Config {
    Config { dir: "/log".into(), segment_bytes: 8 * 1024, max_bytes: 40 * 1024, max_record_bytes: 2000 }
}

struct Driver {
    fs: SimFilesystem,
    chances: Chances,
    wal: Option<Wal>,
    reader: Option<Reader>,
    attempts: HashMap<u32, Vec<u8>>,
    /// Acknowledged as durable: number to attempt.
    durable: BTreeMap<u64, u32>,
    /// Appended in this life, or found at its start: the only thing that may be read under that number.
    alive: BTreeMap<u64, u32>,
    /// Appended and not yet synced.
    pending: Vec<(u64, u32)>,
    /// Given back by truncation: may be gone.
    floor: u64,
    /// A crash can bring back what was removed or cut and not synced.
    bytes_at_open: u64,
}

impl Driver {
    fn new(seed: u64, chances: Chances) -> Self {
        let fs = SimFilesystem::new(seed);
        let mut driver = Self {
            fs,
            chances,
            wal: None,
            reader: None,
            attempts: HashMap::new(),
            durable: BTreeMap::new(),
            alive: BTreeMap::new(),
            pending: Vec::new(),
            floor: 0,
            bytes_at_open: 0,
        };
        driver.fs.set_chances(chances);
        driver.open();
        driver
    }

    fn run(&mut self, actions: &[Action]) {
        for action in actions {
            self.step(action);
            if self.fs.is_crashed() {
                self.reboot();
            }
            // The start of a segment may fail and leave its header uncounted.
            let bound = self.bytes_at_open.max(config().max_bytes + 1024);
            assert!(self.log_bytes() <= bound, "the log outgrew its bound");
        }
        self.fs.set_chances(Chances::default());
        self.fs.crash();
        self.reboot();
    }

    fn step(&mut self, action: &Action) {
        let wal = self.wal.as_mut().expect("open between steps");
        match action {
            Action::Append { records, bytes } => {
                let first = self.attempts.len() as u32;
                let batch: Vec<Vec<u8>> = (0..*records as u32).map(|i| payload(first + i, *bytes)).collect();
                for (i, record) in batch.iter().enumerate() {
                    self.attempts.insert(first + i as u32, record.clone());
                }
                let slices: Vec<&[u8]> = batch.iter().map(Vec::as_slice).collect();
                if let Ok(seqs) = wal.append(&slices) {
                    assert_eq!(seqs.end - seqs.start, *records as u64);
                    for (seq, attempt) in seqs.zip(first..) {
                        assert!(!self.durable.contains_key(&seq), "number {seq} was given twice");
                        assert_eq!(self.alive.insert(seq, attempt), None, "number {seq} was given twice");
                        self.pending.push((seq, attempt));
                    }
                }
            }
            Action::Sync => match wal.sync() {
                Ok(()) => self.durable.extend(self.pending.drain(..)),
                Err(_) => {
                    // Refused, unless published before: then it stays readable until a crash.
                    let visible = wal.stats().next_seq;
                    for (seq, _) in self.pending.drain(..).filter(|(seq, _)| *seq >= visible) {
                        self.alive.remove(&seq);
                    }
                }
            },
            Action::Publish => wal.publish(),
            Action::Read { from, records } => {
                let stats = wal.stats();
                let span = stats.next_seq - stats.first_seq + 1;
                self.check_read(stats.first_seq + from % span, *records);
            }
            Action::TruncateBefore { back } => {
                let last_durable = self.durable.last_key_value().map_or(0, |(seq, _)| *seq);
                let seq = last_durable.saturating_sub(back % 60);
                self.floor = self.floor.max(seq);
                let _may_fail = wal.truncate_before(seq);
            }
            Action::Reopen => {
                self.wal = None;
                self.open();
            }
            Action::Crash => self.fs.crash(),
            Action::DiskFull => self.fs.set_capacity(self.log_bytes() + 700),
            Action::DiskFree => self.fs.set_capacity(u64::MAX),
        }
    }

    fn check_read(&mut self, from: u64, records: usize) {
        let reader = self.reader.as_mut().expect("open between steps");
        let Ok(batch) = reader.read(from, records, 4000) else {
            return;
        };
        let mut accounted: Vec<(u64, u64)> = batch.records.iter().map(|r| (r.seq, r.seq + 1)).collect();
        accounted.extend(batch.skipped.iter().map(|s| (s.seqs.start, s.seqs.end)));
        accounted.sort();
        let mut at = from;
        for (start, end) in accounted {
            assert_eq!(start, at, "a hole in what a read accounts for");
            at = end;
        }
        assert_eq!(at, batch.next_seq);
        for record in &batch.records {
            let attempt = attempt_of(&record.payload);
            assert_eq!(
                self.attempts.get(&attempt).map(Vec::as_slice),
                Some(&record.payload[..]),
                "bytes never appended"
            );
            assert_eq!(self.alive.get(&record.seq), Some(&attempt), "{} is not what was appended", record.seq);
        }
        for skipped in &batch.skipped {
            let kept = skipped.seqs.start.max(self.floor)..skipped.seqs.end.max(self.floor);
            let lost = self.durable.range(kept).next();
            assert_eq!(lost, None, "an acknowledged record was skipped as {:?}", skipped.reason);
        }
    }

    fn open(&mut self) {
        self.reader = None;
        for attempt in 0.. {
            match Wal::open(Arc::new(self.fs.clone()), config()) {
                Ok((wal, _)) => {
                    self.reader = Some(wal.reader());
                    self.wal = Some(wal);
                    break;
                }
                Err(WalError::Io { .. }) => assert!(attempt < 100, "open fails without faults"),
                Err(e) => panic!("{e}"),
            }
            if self.fs.is_crashed() {
                self.fs.restart();
            }
            if attempt == 5 {
                self.fs.set_chances(Chances::default());
                self.fs.set_capacity(u64::MAX);
            }
        }
        self.bytes_at_open = self.log_bytes();
        self.check_all();
        self.fs.set_chances(self.chances);
    }

    fn reboot(&mut self) {
        self.wal = None;
        self.fs.restart();
        self.open();
    }

    /// After an open: every durable record is there, exact; whatever else is there was appended once.
    fn check_all(&mut self) {
        self.fs.set_chances(Chances::default());
        self.pending.clear();
        self.alive.clear();
        let reader = self.reader.as_mut().expect("just opened");
        let mut at = 0;
        loop {
            let Ok(batch) = reader.read(at, 50, usize::MAX) else {
                if self.fs.is_crashed() {
                    return;
                }
                continue;
            };
            for record in &batch.records {
                assert!(record.seq >= at, "numbers must increase");
                let attempt = attempt_of(&record.payload);
                assert_eq!(self.attempts.get(&attempt).map(Vec::as_slice), Some(&record.payload[..]));
                self.alive.insert(record.seq, attempt);
            }
            if batch.next_seq == at {
                break;
            }
            at = batch.next_seq;
        }
        for (seq, attempt) in self.durable.range(self.floor..) {
            assert_eq!(self.alive.get(seq), Some(attempt), "acknowledged record {seq} is lost");
        }
        let next_seq = self.wal.as_ref().expect("just opened").stats().next_seq;
        assert!(self.durable.last_key_value().is_none_or(|(seq, _)| *seq < next_seq));
    }

    fn log_bytes(&self) -> u64 {
        let in_log = |path: &&std::path::PathBuf| path.parent() == Some(Path::new("/log"));
        self.fs.paths().iter().filter(in_log).filter_map(|p| self.fs.contents(p)).map(|bytes| bytes.len() as u64).sum()
    }
}

fn payload(attempt: u32, bytes: usize) -> Vec<u8> {
    let mut payload = attempt.to_le_bytes().to_vec();
    payload.resize(4 + bytes, attempt as u8);
    payload
}

fn attempt_of(payload: &[u8]) -> u32 {
    u32::from_le_bytes(payload[..4].try_into().unwrap())
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        12 => (1..8usize, 0..900usize).prop_map(|(records, bytes)| Action::Append { records, bytes }),
        6 => Just(Action::Sync),
        2 => Just(Action::Publish),
        4 => (any::<u64>(), 1..30usize).prop_map(|(from, records)| Action::Read { from, records }),
        3 => any::<u64>().prop_map(|back| Action::TruncateBefore { back }),
        1 => Just(Action::Reopen),
        1 => Just(Action::Crash),
        1 => Just(Action::DiskFull),
        1 => Just(Action::DiskFree),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn acknowledged_records_survive_anything(
        actions in proptest::collection::vec(action(), 1..120),
        seed in any::<u64>(),
        crash in 0..20u64, eio in 0..40u64, enospc in 0..20u64,
    ) {
        Driver::new(seed, Chances { crash, eio, enospc }).run(&actions);
    }
}

#[test]
fn acknowledged_records_survive_long_random_lives() {
    for seed in 0..1500 {
        let mut rng = Splitmix(seed);
        let rate = rng.next() % 30;
        let actions: Vec<Action> = (0..400).map(|_| random_action(&mut rng)).collect();
        Driver::new(seed, Chances { crash: rate / 3, eio: rate, enospc: rate / 2 }).run(&actions);
    }
}

#[test]
fn every_call_in_turn_may_fail_or_be_the_last() {
    let mut rng = Splitmix(42);
    let mut scenario: Vec<Action> = (0..60).map(|_| random_action(&mut rng)).collect();
    scenario.retain(|action| !matches!(action, Action::DiskFull));
    let calls = {
        let mut driver = Driver::new(1, Chances::default());
        driver.run(&scenario);
        driver.fs.calls()
    };
    assert!(calls > 100, "the scenario does too little: {calls} calls");
    for fault in [Fault::Crash, Fault::Eio, Fault::Enospc] {
        for call in 0..calls {
            for seed in 0..6 {
                let fs = SimFilesystem::new(seed);
                fs.fail_at(call, fault);
                let mut driver = Driver { fs, ..Driver::new(seed, Chances::default()) };
                driver.wal = None;
                driver.open();
                driver.run(&scenario);
            }
        }
    }
}

#[test]
fn a_refused_batch_is_skipped_as_refused() {
    let fs = SimFilesystem::new(3);
    let (mut wal, _) = Wal::open(Arc::new(fs.clone()), config()).unwrap();
    wal.append(&[b"kept"]).unwrap();
    wal.sync().unwrap();
    wal.append(&[b"refused"]).unwrap();
    fs.fail_at(fs.calls(), Fault::Eio);
    wal.sync().unwrap_err();
    assert_eq!(wal.append(&[b"next"]).unwrap(), 2..3);
    wal.sync().unwrap();
    let batch = wal.reader().read(0, 10, 1000).unwrap();
    assert_eq!(batch.records.iter().map(|r| r.seq).collect::<Vec<_>>(), [0, 2]);
    assert_eq!((batch.skipped[0].seqs.clone(), batch.skipped[0].reason), (1..2, SkipReason::Refused));
}

struct Splitmix(u64);

impl Splitmix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

fn random_action(rng: &mut Splitmix) -> Action {
    match rng.next() % 32 {
        0..12 => Action::Append { records: 1 + (rng.next() % 8) as usize, bytes: (rng.next() % 900) as usize },
        12..18 => Action::Sync,
        18..20 => Action::Publish,
        20..24 => Action::Read { from: rng.next(), records: 1 + (rng.next() % 30) as usize },
        24..28 => Action::TruncateBefore { back: rng.next() },
        28 => Action::Reopen,
        29 => Action::Crash,
        30 => Action::DiskFull,
        _ => Action::DiskFree,
    }
}
