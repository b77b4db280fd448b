//! Bits flipped and ends cut in the files of a closed log: what is not damaged is returned, what is damaged is counted.
#![expect(clippy::unwrap_used, reason = "a helper of a test is a test")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use proptest::prelude::*;
use wal::sim::SimFilesystem;
use wal::{Config, Recovery, Wal};

const HEADER_BYTES: usize = 1024;
const COPY_AT: usize = 512;
const HEADER_FIELDS: usize = 48;
const RECORD_OVERHEAD: usize = 16;

fn config() -> Config {
    Config { dir: "/log".into(), segment_bytes: 16 * 1024, max_bytes: 1 << 20, max_record_bytes: 4000 }
}

/// Where a record lies.
#[derive(Debug, Clone)]
struct Spot {
    seq: u64,
    segment: usize,
    start: usize,
    end: usize,
}

struct Log {
    fs: SimFilesystem,
    segments: Vec<PathBuf>,
    payloads: Vec<Vec<u8>>,
    spots: Vec<Spot>,
}

fn write_log(seed: u64, payloads: Vec<Vec<u8>>) -> Log {
    let fs = SimFilesystem::new(seed);
    let (mut wal, _) = Wal::open(Arc::new(fs.clone()), config()).unwrap();
    for payload in &payloads {
        wal.append(&[payload]).unwrap();
    }
    wal.sync().unwrap();
    drop(wal);
    let segments: Vec<PathBuf> = fs.paths().into_iter().filter(|p| p.extension().is_some_and(|e| e == "wal")).collect();
    let firsts: Vec<u64> = segments.iter().map(|p| p.file_stem().unwrap().to_str().unwrap().parse().unwrap()).collect();
    let mut spots: Vec<Spot> = Vec::new();
    for (seq, payload) in (0u64..).zip(&payloads) {
        let segment = firsts.partition_point(|first| *first <= seq) - 1;
        let start = spots.last().filter(|spot| spot.segment == segment).map_or(HEADER_BYTES, |spot| spot.end);
        spots.push(Spot { seq, segment, start, end: start + RECORD_OVERHEAD + payload.len() });
    }
    Log { fs, segments, payloads, spots }
}

impl Log {
    fn damage(&self, segment: usize, change: impl FnOnce(&mut Vec<u8>)) {
        let path = &self.segments[segment];
        let mut bytes = self.fs.contents(path).unwrap();
        change(&mut bytes);
        self.fs.set_contents(path, bytes);
    }

    fn reopen_and_read(&self) -> (Recovery, Vec<(u64, Vec<u8>)>) {
        let (wal, recovery) = Wal::open(Arc::new(self.fs.clone()), config()).unwrap();
        let mut reader = wal.reader();
        let (mut at, mut records) = (0, Vec::new());
        loop {
            let batch = reader.read(at, 100, usize::MAX).unwrap();
            records.extend(batch.records.iter().map(|r| (r.seq, r.payload.to_vec())));
            if batch.next_seq == at {
                return (recovery, records);
            }
            at = batch.next_seq;
        }
    }

    fn check(&self, damaged: &BTreeSet<u64>) {
        let (recovery, records) = self.reopen_and_read();
        let expected: Vec<(u64, Vec<u8>)> = (0u64..)
            .zip(&self.payloads)
            .filter(|(seq, _)| !damaged.contains(seq))
            .map(|(seq, payload)| (seq, payload.clone()))
            .collect();
        assert_eq!(records.len(), expected.len(), "{recovery:?}");
        assert!(records == expected);

        let lost_segments: BTreeSet<usize> = recovery
            .quarantined_segments
            .iter()
            .map(|q| self.segments.iter().position(|s| s.file_name().unwrap().to_str() == Some(&q.segment)).unwrap())
            .collect();
        let last = self.segments.len() - 1;
        let kept_end = self.spots.iter().rev().find(|spot| !damaged.contains(&spot.seq)).map_or(0, |spot| spot.seq + 1);
        // A damaged end of the last segment looks like an append that a crash interrupted.
        let is_cut = |spot: &&Spot| spot.segment == last && spot.seq >= kept_end;
        let in_place = self.spots.iter().filter(|s| damaged.contains(&s.seq) && !lost_segments.contains(&s.segment));
        let cut_possible = !lost_segments.contains(&last);
        let expected_count = in_place.filter(|spot| !(cut_possible && is_cut(spot))).count() as u64;
        let missing: u64 = recovery.missing.iter().map(|seqs| seqs.end - seqs.start).sum();
        let from_lost: u64 = self
            .spots
            .iter()
            .filter(|spot| lost_segments.contains(&spot.segment) && spot.segment != last && spot.segment != 0)
            .count() as u64;
        // The numbers of a lost segment show as missing behind the one before, unless that is lost too.
        let counted = recovery.quarantined_count() + missing;
        assert!(
            counted >= expected_count && counted <= expected_count + from_lost,
            "counted {counted}, expected {expected_count} to {}: {recovery:?}",
            expected_count + from_lost
        );
    }
}

#[derive(Debug, Clone)]
enum Damage {
    Flip { segment: usize, at: usize, bit: u8 },
    Overwrite { segment: usize, at: usize, bytes: Vec<u8> },
    Cut { segment: usize, at: usize },
}

fn damage() -> impl Strategy<Value = Damage> {
    let (segment, at) = (any::<usize>(), any::<usize>());
    prop_oneof![
        4 => (segment, at, 0..8u8).prop_map(|(segment, at, bit)| Damage::Flip { segment, at, bit }),
        2 => (segment, at, proptest::collection::vec(any::<u8>(), 1..200))
            .prop_map(|(segment, at, bytes)| Damage::Overwrite { segment, at, bytes }),
        1 => (segment, at).prop_map(|(segment, at)| Damage::Cut { segment, at }),
        // Headers are hit too seldom by chance.
        1 => (segment, 0..HEADER_FIELDS, 0..8u8).prop_map(|(segment, at, bit)| Damage::Flip { segment, at, bit }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_not_damaged_is_returned(
        sizes in proptest::collection::vec(0..1500usize, 1..120),
        damage in proptest::collection::vec(damage(), 1..5),
        seed in any::<u64>(),
    ) {
        let payloads = sizes.iter().enumerate().map(|(i, len)| vec![i as u8; *len]).collect();
        let log = write_log(seed, payloads);
        let before: Vec<Vec<u8>> = log.segments.iter().map(|path| log.fs.contents(path).unwrap()).collect();
        for damage in damage {
            match damage {
                Damage::Flip { segment, at, bit } => log.damage(segment % before.len(), |bytes| {
                    if !bytes.is_empty() {
                        let at = at % bytes.len();
                        bytes[at] ^= 1 << bit;
                    }
                }),
                Damage::Overwrite { segment, at, bytes: new } => log.damage(segment % before.len(), |bytes| {
                    let at = at % bytes.len().max(1);
                    bytes.iter_mut().skip(at).zip(new).for_each(|(old, new)| *old = new);
                }),
                Damage::Cut { segment, at } => log.damage(segment % before.len(), |bytes| {
                    bytes.truncate(at % (bytes.len() + 1));
                }),
            }
        }
        let mut damaged = BTreeSet::new();
        for (segment, before) in before.iter().enumerate() {
            let after = log.fs.contents(&log.segments[segment]).unwrap();
            let differs = |start: usize, end: usize| after.get(start..end) != Some(&before[start..end]);
            let header_lost = differs(0, HEADER_FIELDS) && differs(COPY_AT, COPY_AT + HEADER_FIELDS);
            let header_lost = header_lost || after.len() < HEADER_BYTES;
            let hit = |spot: &&Spot| spot.segment == segment && (header_lost || differs(spot.start, spot.end));
            damaged.extend(log.spots.iter().filter(hit).map(|spot| spot.seq));
        }
        log.check(&damaged);
    }

    #[test]
    fn any_bytes_at_all_can_be_opened(
        files in proptest::collection::vec((0..50u64, proptest::collection::vec(any::<u8>(), 0..3000)), 0..5),
    ) {
        let fs = SimFilesystem::new(0);
        for (seq, bytes) in files {
            fs.set_contents(&PathBuf::from(format!("/log/{seq:020}.wal")), bytes);
        }
        let (mut wal, recovery) = Wal::open(Arc::new(fs), config()).unwrap();
        prop_assert_eq!(wal.append(&[b"goes on"]).unwrap().start, recovery.next_seq);
        wal.sync().unwrap();
    }
}

/// What a stranger would send who knows the format but not the salt: records with every plausible number.
fn forged_records() -> Vec<u8> {
    let mut forged = Vec::new();
    for seq in 0..60u64 {
        let mut record = 4u32.to_le_bytes().to_vec();
        let mut summed = record.clone();
        summed.extend_from_slice(&seq.to_le_bytes());
        summed.extend_from_slice(b"evil");
        record.extend_from_slice(&crc32c::crc32c(&summed).to_le_bytes());
        record.extend_from_slice(&summed[4..]);
        forged.extend(record);
    }
    forged
}

#[test]
fn forged_records_in_payloads_are_never_read_as_records() {
    for bit in 0..32 {
        let log = write_log(bit as u64, (0..20).map(|_| forged_records()).collect());
        // The length of record 5: from here on only a search finds the next record, through the forged ones.
        let spot = log.spots[5].clone();
        log.damage(spot.segment, |bytes| bytes[spot.start + bit / 8] ^= 1 << (bit % 8));
        log.check(&BTreeSet::from([5]));
    }
}

#[test]
fn a_record_of_another_segment_is_not_taken_for_one_of_this() {
    let log = write_log(1, (0..60).map(|i| vec![i; 800]).collect());
    let stolen = log.fs.contents(&log.segments[1]).unwrap()[HEADER_BYTES..HEADER_BYTES + 816].to_vec();
    let spot = log.spots[3].clone();
    log.damage(spot.segment, |bytes| bytes[spot.start..spot.end].copy_from_slice(&stolen));
    log.check(&BTreeSet::from([3]));
}
