//! Records per second on this machine: `cargo run --release -p wal --example log_throughput [dir]`.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a program to run by hand")]

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use bytes::Bytes;
use wal::{Committer, CommitterConfig, Config, Durability, OsFilesystem, Wal};

const RECORDS: usize = 2_000_000;
const RECORD_BYTES: usize = 272;

fn main() {
    let parent = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = parent.join(format!("wal-throughput-{}", std::process::id()));
    let payload = vec![b'x'; RECORD_BYTES];

    let (mut wal, _) = Wal::open(Arc::new(OsFilesystem), Config::new(dir.join("core"))).unwrap();
    let mut raw = std::fs::File::create(dir.join("raw")).unwrap();
    let block = vec![b'x'; 1000 * (RECORD_BYTES + 16)];
    let started = Instant::now();
    for _ in 0..RECORDS / 1000 {
        raw.write_all(&block).unwrap();
        raw.sync_data().unwrap();
    }
    report("a bare file: write + fdatasync of the same bytes", RECORDS, started);

    let started = Instant::now();
    let batch = vec![&payload[..]; 1000];
    for _ in 0..RECORDS / batch.len() {
        wal.append(&batch).unwrap();
        wal.sync().unwrap();
    }
    report("append + sync, batches of 1,000", RECORDS, started);

    let mut reader = wal.reader();
    let (started, mut at) = (Instant::now(), 0);
    while at < RECORDS as u64 {
        let batch = reader.read(at, 1000, usize::MAX).unwrap();
        assert_eq!(batch.records.len(), 1000);
        at = batch.next_seq;
    }
    report("read, batches of 1,000", RECORDS, started);
    drop(wal);

    let started = Instant::now();
    let (_, recovery) = Wal::open(Arc::new(OsFilesystem), Config::new(dir.join("core"))).unwrap();
    report("open and verify", recovery.next_seq as usize, started);

    for (name, durability, batch, threads, records) in [
        ("committer, 1 thread, strict batches of 1,000", Durability::Strict, 1000, 1, RECORDS),
        ("committer, 4 threads, strict batches of 1,000", Durability::Strict, 1000, 4, RECORDS),
        ("committer, 4 threads, memory batches of 1,000", Durability::Memory, 1000, 4, RECORDS),
        ("committer, 64 threads, strict single records", Durability::Strict, 1, 64, RECORDS / 20),
    ] {
        let (wal, _) = Wal::open(Arc::new(OsFilesystem), Config::new(dir.join(name))).unwrap();
        let committer =
            Committer::start(wal, CommitterConfig::default(), Box::new(|_| {}), Box::new(wal::Answers::send)).unwrap();
        let started = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let payload = Bytes::from(payload.clone());
                    let (sender, answers) = sync_channel(1);
                    for _ in 0..records / batch / threads {
                        let sender = sender.clone();
                        let done = Box::new(move |outcome| sender.send(outcome).unwrap());
                        committer.append(vec![payload.clone(); batch], durability, done);
                        answers.recv().unwrap().unwrap();
                    }
                });
            }
        });
        committer.close().unwrap();
        report(name, records, started);
        println!("    {} fsyncs", committer.stats().fsyncs);
    }
    std::fs::remove_dir_all(dir).unwrap();
}

fn report(what: &str, records: usize, started: Instant) {
    println!("{:>10.0} records/s  {what}", records as f64 / started.elapsed().as_secs_f64());
}
