//! Keeps the leases of this process's workers and finds dead ones of any process.

use super::Shared;
use crate::StorageResult;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// How often the key space is searched for lists of workers that never signed in: the original's.
const STRANGERS_EVERY: Duration = Duration::from_secs(30);
/// An original worker beats for the first time ten seconds after its start (contract mutt §12-7):
/// its list must be without a heartbeat for longer than that.
const STRANGER_SILENCE_MIN: Duration = Duration::from_secs(20);
/// The keeper's round is never rarer than this, so that expired leases and repeated settlements
/// do not wait for long.
const ROUND_MAX: Duration = Duration::from_secs(1);

/// Starts the keeper of a queue; it ends when the queue is gone.
pub fn start(shared: &Arc<Shared>) {
    let weak = Arc::downgrade(shared);
    let beat_every = shared.keys.silence_max / 3;
    tokio::spawn(async move {
        let mut strangers = Strangers::default();
        let mut next_beat = Instant::now();
        let mut failing = false;
        while let Some(shared) = Weak::upgrade(&weak) {
            let beat = Instant::now() >= next_beat;
            if beat {
                next_beat = Instant::now() + beat_every;
            }
            let queue = shared.name.as_str();
            match round(&shared, beat, &mut strangers).await {
                // Said at the beginning and at the end; a round in between that had nothing to write
                // ends nothing.
                Ok(()) if beat && std::mem::take(&mut failing) => {
                    tracing::info!(queue, "the leases of a queue are kept again");
                }
                Ok(()) => {}
                Err(error) if failing => {
                    tracing::debug!(queue, %error, "the leases of a queue still cannot be kept");
                    next_beat = Instant::now();
                }
                Err(error) => {
                    tracing::warn!(queue, %error, "the leases of a queue cannot be kept; trying again each second");
                    failing = true;
                    next_beat = Instant::now();
                }
            }
            drop(shared);
            tokio::time::sleep(beat_every.min(ROUND_MAX)).await;
        }
    });
}

async fn round(shared: &Shared, beat: bool, strangers: &mut Strangers) -> StorageResult<()> {
    for lane in shared.lanes() {
        if beat {
            lane.renew().await?;
        }
        lane.flush().await?;
    }
    if beat {
        reap_silent(shared).await?;
        strangers.look(shared).await?;
    }
    Ok(())
}

/// Workers that signed in and are silent.
async fn reap_silent(shared: &Shared) -> StorageResult<()> {
    let workers: Vec<String> = shared.client.query(redis::cmd("SMEMBERS").arg(&shared.workers)).await?;
    for worker in workers {
        let beats: bool = shared.client.query(redis::cmd("EXISTS").arg(shared.heartbeat(&worker))).await?;
        if !beats {
            give_back(shared, &worker).await?;
        }
    }
    Ok(())
}

async fn give_back(shared: &Shared, worker: &str) -> StorageResult<()> {
    let returned = shared.reap(worker, false).await?;
    if returned >= 0 {
        tracing::warn!(queue = shared.name.as_str(), worker, returned, "a worker is silent; its records go to others");
    }
    Ok(())
}

/// Lists of workers that never signed in.
#[derive(Default)]
struct Strangers {
    silent_since: HashMap<String, Instant>,
    next_look: Option<Instant>,
}

impl Strangers {
    async fn look(&mut self, shared: &Shared) -> StorageResult<()> {
        let now = Instant::now();
        if self.next_look.is_some_and(|at| now < at) {
            return Ok(());
        }
        self.next_look = Some(now + STRANGERS_EVERY.min(shared.keys.silence_max));
        let known: BTreeSet<String> = shared.client.query(redis::cmd("SMEMBERS").arg(&shared.workers)).await?;
        let prefix = format!("{}:", shared.keys.processing);
        let mut silent = HashMap::new();
        for key in scan(shared, &format!("{}*", escape(&prefix))).await? {
            let Some(worker) = key.strip_prefix(&prefix) else { continue };
            // A deeper name is another queue's.
            if worker.contains(':') || known.contains(worker) {
                continue;
            }
            let beats: bool = shared.client.query(redis::cmd("EXISTS").arg(shared.heartbeat(worker))).await?;
            if beats {
                continue;
            }
            let since = self.silent_since.get(worker).copied().unwrap_or(now);
            if now.duration_since(since) >= STRANGER_SILENCE_MIN.min(shared.keys.silence_max) {
                give_back(shared, worker).await?;
            } else {
                silent.insert(worker.to_owned(), since);
            }
        }
        self.silent_since = silent;
        Ok(())
    }
}

async fn scan(shared: &Shared, pattern: &str) -> StorageResult<Vec<String>> {
    let mut found = Vec::new();
    let mut cursor = 0u64;
    loop {
        let mut command = redis::cmd("SCAN");
        command.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(1_000).arg("TYPE").arg("list");
        let (next, keys): (u64, Vec<String>) = shared.client.query(&command).await?;
        found.extend(keys);
        cursor = next;
        if cursor == 0 {
            return Ok(found);
        }
    }
}

/// A text as a pattern that matches only itself.
fn escape(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        if matches!(c, '*' | '?' | '[' | ']' | '\\') {
            out.push('\\');
        }
        out.push(c);
        out
    })
}
