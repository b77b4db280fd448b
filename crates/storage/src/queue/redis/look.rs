//! Looking at a queue without taking from it, and taking a person's choice out of it.
//!
//! A list has no lasting numbers, so a record's position is a number made from its bytes. Equal
//! records have equal positions; taking one takes one of them.

use super::held::split_attempts;
use super::{Shared, TAKE};
use crate::StorageResult;
use crate::queue::{Peeked, QueueStats};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// Records read at a time.
const CHUNK: isize = 1_000;

/// A number of 53 bits, exact in JSON everywhere.
fn position(raw: &[u8]) -> u64 {
    let digest = Sha256::digest(raw);
    digest[..8].iter().fold(0u64, |n, byte| (n << 8) | u64::from(*byte)) >> 11
}

fn peeked(raw: &Bytes, leased: bool) -> Peeked {
    let (payload, attempts) = split_attempts(raw);
    Peeked { position: position(raw), payload, attempts, leased }
}

/// Up to [`CHUNK`] records of a list, oldest first, after the first `skip`.
async fn chunk(shared: &Shared, list: &str, skip: isize) -> StorageResult<Vec<Bytes>> {
    let mut command = redis::cmd("LRANGE");
    command.arg(list).arg(-skip - CHUNK).arg(-skip - 1);
    let mut records: Vec<Bytes> = shared.client.query(&command).await?;
    records.reverse();
    Ok(records)
}

/// A worker's list, oldest first.
pub async fn whole_list(shared: &Shared, list: &str) -> StorageResult<Vec<Bytes>> {
    let mut records: Vec<Bytes> = shared.client.query(redis::cmd("LRANGE").arg(list).arg(0).arg(-1)).await?;
    records.reverse();
    Ok(records)
}

async fn worker_lists(shared: &Shared) -> StorageResult<Vec<String>> {
    let workers: Vec<String> = shared.client.query(redis::cmd("SMEMBERS").arg(&shared.workers)).await?;
    Ok(workers.iter().map(|worker| shared.processing(worker)).collect())
}

pub async fn stats(shared: &Shared) -> StorageResult<QueueStats> {
    let lists = worker_lists(shared).await?;
    let mut pipeline = redis::pipe();
    pipeline.cmd("LLEN").arg(&shared.keys.list).cmd("MEMORY").arg("USAGE").arg(&shared.keys.list);
    for list in &lists {
        pipeline.cmd("LLEN").arg(list);
    }
    let answers: Vec<Option<u64>> = shared.client.pipeline(&pipeline).await?;
    let at = |n: usize| answers.get(n).copied().flatten().unwrap_or(0);
    let leased: u64 = answers.iter().skip(2).flatten().sum();
    let mut delayed = 0;
    for lane in shared.lanes() {
        delayed += lane.delayed().await;
    }
    Ok(QueueStats {
        depth: at(0) + leased,
        leased: leased.saturating_sub(delayed),
        delayed,
        bytes: at(1),
        quarantined: 0,
        limit: shared.limits.records_max(shared.name),
    })
}

/// Held ones first, as they are the oldest. Where `after` is gone meanwhile, nothing: ask anew.
pub async fn peek(shared: &Shared, after: Option<u64>, limit: usize) -> StorageResult<Vec<Peeked>> {
    let mut seen = Vec::new();
    let mut passed = after.is_none();
    let mut visit = |raw: &Bytes, leased: bool| {
        if passed {
            seen.push(peeked(raw, leased));
        } else {
            passed = after == Some(position(raw));
        }
        seen.len() < limit
    };
    for list in worker_lists(shared).await? {
        for raw in whole_list(shared, &list).await? {
            if !visit(&raw, true) {
                return Ok(seen);
            }
        }
    }
    let mut skip = 0;
    loop {
        let records = chunk(shared, &shared.keys.list, skip).await?;
        skip += CHUNK;
        let last = (records.len() as isize) < CHUNK;
        for raw in records {
            if !visit(&raw, false) {
                return Ok(seen);
            }
        }
        if last {
            return Ok(seen);
        }
    }
}

pub async fn find(shared: &Shared, positions: &[u64]) -> StorageResult<Vec<Peeked>> {
    let mut wanted: BTreeSet<u64> = positions.iter().copied().collect();
    let mut found = Vec::new();
    for list in worker_lists(shared).await? {
        let held = whole_list(shared, &list).await?;
        found.extend(held.iter().filter(|raw| wanted.remove(&position(raw))).map(|raw| peeked(raw, true)));
    }
    for raw in waiting(shared, &wanted).await? {
        found.push(peeked(&raw, false));
    }
    Ok(found)
}

/// The records of the queue itself at these positions, one for each.
async fn waiting(shared: &Shared, wanted: &BTreeSet<u64>) -> StorageResult<Vec<Bytes>> {
    let mut wanted = wanted.clone();
    let mut found = Vec::new();
    let mut skip = 0;
    while !wanted.is_empty() {
        let records = chunk(shared, &shared.keys.list, skip).await?;
        skip += CHUNK;
        let last = (records.len() as isize) < CHUNK;
        found.extend(records.into_iter().filter(|raw| wanted.remove(&position(raw))));
        if last {
            break;
        }
    }
    Ok(found)
}

pub async fn take(shared: &Shared, positions: &[u64]) -> StorageResult<Vec<Bytes>> {
    let records = waiting(shared, &positions.iter().copied().collect()).await?;
    let mut taken = Vec::new();
    for some in records.chunks(CHUNK.unsigned_abs()) {
        let mut call = TAKE.prepare_invoke();
        call.key(&shared.keys.list);
        for raw in some {
            call.arg(&raw[..]);
        }
        let removed: Vec<i64> = shared.client.script_once(&call).await?;
        let gone = some.iter().zip(removed).filter(|(_, removed)| *removed > 0);
        taken.extend(gone.map(|(raw, _)| split_attempts(raw).0));
    }
    Ok(taken)
}
