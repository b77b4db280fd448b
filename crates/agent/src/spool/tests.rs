use super::*;
use agent_core::Cut;
use proptest::prelude::*;
use wal::sim::{Chances, SimFilesystem};
use wire::LogEvent;

fn observation(source: &str, n: u64, severity: &str) -> Observation {
    let labels = BTreeMap::from([("severity".to_owned(), severity.to_owned())]);
    let message = format!("{source} {n} {}", "x".repeat(100));
    let log = LogEvent { stream: source.to_owned(), message, labels, ..LogEvent::default() };
    let record = Some(Record { body: Some(record::Body::Log(log)) });
    Observation { source: source.into(), bookmark: Some(n.to_string()), record }
}

fn number(record: &Record) -> (String, u64) {
    let Some(record::Body::Log(log)) = &record.body else { panic!("{record:?}") };
    (log.stream.clone(), log.message.split(' ').nth(1).unwrap().parse().unwrap())
}

fn bounds(bytes_max: u64) -> SpoolBounds {
    SpoolBounds { bytes_max, record_bytes_max: 2_048 }
}

fn open(fs: &SimFilesystem, bytes_max: u64) -> Result<Spool, SpoolError> {
    Spool::open(Arc::new(fs.clone()), Path::new("/spool"), bounds(bytes_max), 7)
}

fn all(spool: &mut Spool) -> Vec<Numbered> {
    spool.read(Sent { first_seq: 0, through_seq: u64::MAX, sent_unix_ms: 0 }).unwrap()
}

const NOW_MS: i64 = 1_790_000_000_000;

/// Marks the next batch of what is there.
fn cut(spool: &mut Spool, from_seq: u64, records_max: u64, bytes_max: u64, sent_unix_ms: i64) -> Cut {
    let ask = Ask { from_seq, records_max, bytes_max, sent_unix_ms };
    spool.cut(&[], NOW_MS, ask).unwrap().1.unwrap()
}

fn put_all(spool: &mut Spool, mut observations: &[Observation]) {
    while !observations.is_empty() {
        let taken = spool.put(observations, NOW_MS).unwrap();
        observations = &observations[taken..];
    }
}

#[test]
fn what_was_marked_comes_back_with_its_time_and_the_rest_waits() {
    let fs = SimFilesystem::new(1);
    let mut spool = open(&fs, 1 << 20).unwrap();
    put_all(&mut spool, &(0..10).map(|n| observation("a", n, "info")).collect::<Vec<_>>());
    let found = cut(&mut spool, 0, 4, u64::MAX, 99);
    assert_eq!((found.first_seq, found.through_seq, found.records), (0, 3, 4));
    let sent = Sent { first_seq: 0, through_seq: 3, sent_unix_ms: 99 };
    drop(spool);
    fs.crash();
    fs.restart();
    let mut spool = open(&fs, 1 << 20).unwrap();
    assert_eq!(spool.restored(), Restored { epoch: 7, first_unacked: 0, sent: vec![sent] });
    assert_eq!(spool.waiting().records, 6);
    assert_eq!(cut(&mut spool, 4, 100, 400, 100).records, 2, "at most so many bytes");
    assert_eq!(cut(&mut spool, 6, 100, 1, 101).records, 1, "at least one");
    spool.forget(6).unwrap();
    assert_eq!(spool.restored().sent, []);
    spool.close().unwrap();
    let mut spool = open(&fs, 1 << 20).unwrap();
    assert_eq!(spool.restored().first_unacked, 7);
    cut(&mut spool, 7, 1, 1, 102);
    let restored = spool.rename(8).unwrap();
    assert_eq!((restored.epoch, restored.sent.len(), spool.waiting().records), (8, 0, 3));
    drop(spool);
    assert_eq!(open(&fs, 1 << 20).unwrap().restored().epoch, 8);
}

#[test]
fn what_comes_is_kept_and_marked_by_one_write() {
    let fs = SimFilesystem::new(5);
    let mut spool = open(&fs, 1 << 20).unwrap();
    put_all(&mut spool, &[observation("a", 0, "info")]);
    let before = spool.wal.stats().fsyncs;
    let fresh: Vec<_> = (1..6).map(|n| observation("a", n, "info")).collect();
    let ask = Ask { from_seq: 0, records_max: 4, bytes_max: u64::MAX, sent_unix_ms: 77 };
    let (taken, found) = spool.cut(&fresh, NOW_MS, ask).unwrap();
    assert_eq!(spool.wal.stats().fsyncs, before + 1);
    let sent = Sent { first_seq: 0, through_seq: 3, sent_unix_ms: 77 };
    assert_eq!((taken, found.map(|cut| (cut.first_seq, cut.through_seq, cut.records))), (5, Some((0, 3, 4))));
    let (taken, found) = spool.cut(&[], NOW_MS, Ask { from_seq: 9, ..ask }).unwrap();
    assert_eq!((taken, found, spool.wal.stats().fsyncs), (0, None, before + 1), "nothing is nothing to write");
    drop(spool);
    fs.crash();
    fs.restart();
    let mut spool = open(&fs, 1 << 20).unwrap();
    assert_eq!((spool.restored().sent, spool.waiting().records), (vec![sent], 2));
    assert_eq!(all(&mut spool).len(), 6);
}

#[test]
fn it_says_how_much_waits_and_since_when() {
    let fs = SimFilesystem::new(6);
    let mut spool = open(&fs, 1 << 20).unwrap();
    assert_eq!((spool.look().unwrap().held, spool.look().unwrap().oldest_unix_ms), (Amount::default(), None));
    for n in 0..10 {
        spool.put(&[observation("a", n, "info")], NOW_MS + n as i64).unwrap();
    }
    let each = spool.look().unwrap().held.bytes / 10;
    cut(&mut spool, 0, 4, u64::MAX, 1);
    cut(&mut spool, 4, 4, u64::MAX, 2);
    for (through_seq, left) in [(1, 8), (2, 7), (3, 6), (3, 6), (6, 3)] {
        spool.forget(through_seq).unwrap();
        let look = spool.look().unwrap();
        assert_eq!(look.held, Amount { records: left, bytes: left * each }, "through {through_seq}");
        assert_eq!(look.oldest_unix_ms, Some(NOW_MS + 10 - left as i64));
        assert_eq!(all(&mut spool).len() as u64, left);
    }
    drop(spool);
    let mut spool = open(&fs, 1 << 20).unwrap();
    let held = spool.look().unwrap().held.records;
    assert_eq!(held, all(&mut spool).len() as u64, "also after a crash, which brings back what was not saved");
}

#[test]
fn a_full_spool_gives_up_the_oldest_but_for_the_critical_and_counts_each() {
    let fs = SimFilesystem::new(2);
    let mut spool = open(&fs, 64 << 10).unwrap();
    let total = 4_000;
    for n in 0..total {
        let severity = if n % 50 == 0 { "critical" } else { "info" };
        put_all(&mut spool, &[observation("a", n, severity)]);
        assert!(spool.room().used_bytes <= 72 << 10, "{}", spool.room().used_bytes);
    }
    for again in [false, true] {
        if again {
            drop(spool);
            spool = open(&fs, 64 << 10).unwrap();
        }
        let kept: Vec<u64> = all(&mut spool).iter().map(|n| number(&n.record).1).collect();
        assert!(kept.is_sorted() && kept.last() == Some(&(total - 1)), "in order, the newest there");
        assert_eq!(kept.len() as u64 + spool.dropped().total(), total, "each is kept or counted");
        let since = kept.iter().position(|n| n % 50 != 0).unwrap();
        assert!(since > 5, "critical records outlive their neighbours: {since}");
        let first = kept[since - 1];
        assert!(kept[..since].windows(2).all(|w| w[1] == w[0] + 50), "none missing among those up to {first}");
    }
    // What is acknowledged gives its room back.
    let last = all(&mut spool).last().unwrap().seq;
    spool.forget(last).unwrap();
    spool.save_if_moved().unwrap();
    assert_eq!(all(&mut spool), []);
    let dropped = spool.dropped().total();
    put_all(&mut spool, &(0..60).map(|n| observation("a", n, "info")).collect::<Vec<_>>());
    assert_eq!(spool.dropped().total(), dropped);
}

#[test]
fn a_record_over_the_bound_is_counted_and_its_source_goes_on() {
    let fs = SimFilesystem::new(3);
    let mut spool = open(&fs, 1 << 20).unwrap();
    let mut large = observation("a", 5, "info");
    let Some(Record { body: Some(record::Body::Log(log)) }) = &mut large.record else { panic!() };
    log.message = "x".repeat(4_000);
    put_all(&mut spool, &[large, observation("a", 6, "info")]);
    assert_eq!(all(&mut spool).iter().map(|n| number(&n.record).1).collect::<Vec<_>>(), [6]);
    assert_eq!((spool.dropped().by_stream()["a"], &*spool.bookmarks()["a"]), (1, "6"));
}

#[test]
fn a_state_that_cannot_be_read_is_put_aside_and_the_records_stay() {
    let fs = SimFilesystem::new(4);
    let mut spool = open(&fs, 1 << 20).unwrap();
    put_all(&mut spool, &[observation("a", 1, "info")]);
    drop(spool);
    fs.set_contents(Path::new("/spool/state.json"), b"{\"version\":".to_vec());
    let mut spool = Spool::open(Arc::new(fs.clone()), Path::new("/spool"), bounds(1 << 20), 9).unwrap();
    assert_eq!((spool.restored().epoch, all(&mut spool).len(), &*spool.bookmarks()["a"]), (9, 1, "1"));
    drop(spool);
    fs.set_contents(
        Path::new("/spool/state.json"),
        br#"{"version":2,"epoch":1,"first_unacked":0,"covered_seq":0,
        "given_up_below":0,"bookmarks":{},"marks":[],"dropped":{}}"#
            .to_vec(),
    );
    assert!(open(&fs, 1 << 20).is_err(), "of a newer version");
}

/// Sources that are read again from their bookmark, an uploader that marks and forgets, a machine that dies.
fn life(seed: u64, chances: Chances, bytes_max: u64) -> (Vec<(String, u64)>, u64, BTreeMap<String, u64>) {
    let fs = SimFilesystem::new(seed);
    let mut seed = seed;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let mut next: BTreeMap<String, u64> = [("a", 0), ("b", 0), ("c", 0)].map(|(s, n)| (s.to_owned(), n)).into();
    let mut spool = open(&fs, bytes_max).unwrap();
    fs.set_chances(chances);
    let mut delivered: BTreeMap<u64, (String, u64)> = BTreeMap::new();
    let mut marked: Vec<Sent> = Vec::new();
    for _ in 0..300 {
        if !fs.is_crashed() {
            fs.set_chances(Chances::default());
            assert_eq!(spool.look().unwrap().held.records, all(&mut spool).len() as u64);
            fs.set_chances(chances);
        }
        if fs.is_crashed() || random(40) == 0 {
            fs.crash();
            fs.restart();
            fs.set_chances(Chances::default());
            drop(spool);
            spool = open(&fs, bytes_max).unwrap();
            fs.set_chances(chances);
            for (source, next) in &mut next {
                let bookmark = spool.bookmarks().get(source).map_or(0, |n| n.parse::<u64>().unwrap() + 1);
                assert!(bookmark <= *next + 20);
                *next = bookmark;
            }
            let restored = spool.restored();
            for sent in &marked {
                let is_known = restored.sent.contains(sent) || sent.through_seq < restored.first_unacked;
                assert!(is_known, "{sent:?} was sent and is forgotten");
            }
            marked = restored.sent;
        }
        let source = ["a", "b", "c"][random(3) as usize];
        match random(10) {
            0..=5 => {
                let from = next[source];
                let observations: Vec<_> = (from..=from + random(9))
                    .map(|n| observation(source, n, if n % 9 == 0 { "critical" } else { "" }))
                    .collect();
                if let Ok(taken) = spool.put(&observations, NOW_MS) {
                    next.insert(source.to_owned(), from + taken as u64);
                }
            }
            6..=7 => {
                let from_seq = marked.last().map_or(spool.restored().first_unacked, |last| last.through_seq + 1);
                let (records_max, sent_unix_ms) = (1 + random(30), random(1_000) as i64);
                let ask = Ask { from_seq, records_max, bytes_max: u64::MAX, sent_unix_ms };
                let from = next[source];
                let fresh: Vec<_> = (from..from + random(6)).map(|n| observation(source, n, "")).collect();
                if let Ok((taken, cut)) = spool.cut(&fresh, NOW_MS, ask) {
                    next.insert(source.to_owned(), from + taken as u64);
                    marked.extend(cut.map(|Cut { first_seq, through_seq, .. }| Sent {
                        first_seq,
                        through_seq,
                        sent_unix_ms,
                    }));
                }
            }
            8 if !marked.is_empty() => {
                // The other end takes what it is sent, then it is forgotten here.
                let Ok(records) = spool.read(marked[0]) else { continue };
                let sent = marked.remove(0);
                for found in records {
                    let name = number(&found.record);
                    let before = delivered.insert(found.seq, name.clone());
                    assert!(before.is_none_or(|before| before == name), "a number is given to one record");
                }
                let _ = spool.forget(sent.through_seq);
            }
            _ => {
                let _ = spool.save_if_moved();
            }
        }
    }
    fs.set_chances(Chances::default());
    fs.crash();
    fs.restart();
    drop(spool);
    let mut spool = open(&fs, bytes_max).unwrap();
    for found in all(&mut spool) {
        delivered.insert(found.seq, number(&found.record));
    }
    let ends = spool.bookmarks().iter().map(|(s, n)| (s.clone(), n.parse::<u64>().unwrap() + 1)).collect();
    (delivered.into_values().collect(), spool.dropped().total(), ends)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn after_any_crash_each_source_goes_on_exactly_behind_what_is_kept(seed: u64) {
        let chances = Chances { crash: 4, ..Chances::default() };
        let (delivered, dropped, ends) = life(seed, chances, 16 << 20);
        prop_assert_eq!(dropped, 0);
        for (source, end) in ends {
            let got: Vec<u64> = delivered.iter().filter(|(s, _)| *s == source).map(|(_, n)| *n).collect();
            prop_assert_eq!(got, (0..end).collect::<Vec<_>>(), "of {}: each once, in order", source);
        }
    }

    #[test]
    fn a_small_spool_on_a_dying_machine_counts_what_it_gives_up(seed: u64) {
        let chances = Chances { crash: 4, ..Chances::default() };
        let (delivered, dropped, ends) = life(seed, chances, 20 << 10);
        let total: u64 = ends.values().sum();
        // A crash while giving up can count a record and keep it, never the other way round.
        prop_assert!(delivered.len() as u64 <= total);
        prop_assert!(delivered.len() as u64 + dropped >= total, "{} + {dropped} of {total}", delivered.len());
    }

    #[test]
    fn a_disk_that_fails_now_and_then_loses_nothing(seed: u64) {
        let chances = Chances { crash: 2, eio: 10, enospc: 5 };
        let (delivered, _, ends) = life(seed, chances, 16 << 20);
        for (source, end) in ends {
            let got: std::collections::BTreeSet<u64> =
                delivered.iter().filter(|(s, _)| *s == source).map(|(_, n)| *n).collect();
            prop_assert_eq!(got, (0..end).collect(), "of {}", source);
        }
    }
}
