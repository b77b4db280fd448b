//! Queues in Redis lists, with the original's keys (contract mutt §1, §3.1, §4): pushed at the left,
//! taken at the right.
//!
//! * A worker takes records by moving them, in one script, to a list of its own
//!   (`mutt:processing:alerter:<worker>`); they leave that list when they are settled. Every consumer
//!   is a worker of its own, named `<pod>-<random>`, so a shared `POD_NAME` is no harm.
//! * A worker lives as long as its heartbeat key (`mutt:heartbeat:alerter:<worker>`), which is there
//!   before the first record is taken. Every process looks for lists without a heartbeat all the
//!   time and gives their records back, in order, before younger ones.
//! * Every script that touches a worker's list asks for its heartbeat first: who lost it holds
//!   nothing any more.
//! * Attempts that were spent are kept in the record, behind its last key (`_attempts`).
//!
//! * Over `maxmemory` new events are refused, and nothing else: what waits can be worked off, which is
//!   what frees memory. Redis refuses a command that may need more only as long as its script has
//!   written nothing, so every script begins with a command that needs none.
//!
//! Other programs may push into the lists; the script that takes a record of theirs gives it an id
//! ([`ForeignIds`]). How durable an acknowledgement is, Redis decides
//! (`appendfsync`).

mod bell;
mod consumer;
mod held;
mod ids;
mod keeper;
mod look;

use super::{
    Consumer, DeadLetterSide, Durability, Peeked, Queue, QueueLimits, QueueName, QueueStats, Queues, dead_letter,
};
use crate::redis::RedisClient;
use crate::{RedisConfig, StorageResult};
use async_trait::async_trait;
use bytes::Bytes;
use consumer::{Lane, RedisConsumer};
use redis::Script;
use runtime::Clock;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::Notify;

static FETCH: LazyLock<Script> =
    LazyLock::new(|| Script::new(concat!(include_str!("ids.lua"), include_str!("fetch.lua"))));
static ALIGN: LazyLock<Script> =
    LazyLock::new(|| Script::new(concat!(include_str!("ids.lua"), include_str!("align.lua"))));
static SETTLE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("settle.lua")));
static PUBLISH: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("publish.lua")));
static RENEW: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("renew.lua")));
static REAP: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("reap.lua")));
static PROBE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("probe.lua")));
static TAKE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("take.lua")));

/// A key that is written to find out whether Redis takes writes; it never stays.
const PROBE_KEY: &str = "mutt:write_probe";

/// Queues in Redis: where, under which names, and how long a silent worker keeps its records.
#[derive(Debug, Clone)]
pub struct RedisQueueConfig {
    pub redis: RedisConfig,
    pub limits: QueueLimits,
    /// Names this process in worker names; `:` and white space are replaced.
    pub pod: String,
    /// `mutt:ingest_queue` and its worker keys.
    pub ingest: RedisQueueKeys,
    /// `mutt:alert_queue` and its worker keys.
    pub alerts: RedisQueueKeys,
    pub dlq_alerter: String,
    pub dlq_forwarder: String,
    pub dead: String,
}

/// The keys of one queue with workers (contract mutt §8.1), and its workers' lease.
#[derive(Debug, Clone)]
pub struct RedisQueueKeys {
    pub list: String,
    /// Prefix of the workers' lists.
    pub processing: String,
    /// Prefix of the workers' heartbeats.
    pub heartbeat: String,
    /// A worker that is silent for this long is dead. Beats come three times as often.
    pub silence_max: Duration,
    /// What other programs push is given ids; `None`: it stays as it is.
    pub foreign_ids: Option<ForeignIds>,
}

/// How a record of another program is told from ours, which have an id, and gets one. Two equal ones
/// are two records then, and one that is delivered again is itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForeignIds {
    /// The key of the id, which is put in front of the record's own.
    pub key: &'static str,
    /// What begins the last object or the last keys of our records, as it stands there; no brace that
    /// opens or closes an object comes between it and the record's end.
    pub ours: &'static str,
    /// How far from the end of a record of ours that may be. Farther away: such a record gets an id that
    /// nobody looks at.
    pub ours_within_bytes: usize,
    /// Braces that close our records behind it.
    pub closing: usize,
}

impl RedisQueueConfig {
    /// The contract's names.
    pub fn new(redis: RedisConfig, limits: QueueLimits, pod: impl Into<String>) -> Self {
        let keys = |list: &str, worker: &str| RedisQueueKeys {
            list: list.to_owned(),
            processing: format!("mutt:processing:{worker}"),
            heartbeat: format!("mutt:heartbeat:{worker}"),
            silence_max: Duration::from_secs(30),
            foreign_ids: None,
        };
        Self {
            redis,
            limits,
            pod: pod.into(),
            ingest: keys("mutt:ingest_queue", "alerter"),
            alerts: keys("mutt:alert_queue", "moog"),
            dlq_alerter: "mutt:dlq:alerter".to_owned(),
            dlq_forwarder: "mutt:dlq:moog".to_owned(),
            dead: "mutt:dlq:dead".to_owned(),
        }
    }

    fn keys(&self, name: QueueName) -> RedisQueueKeys {
        let letters = |list: &String| RedisQueueKeys {
            list: list.clone(),
            processing: format!("mutt:processing:remediation:{}", name.as_str()),
            heartbeat: format!("mutt:heartbeat:remediation:{}", name.as_str()),
            silence_max: self.ingest.silence_max,
            foreign_ids: None,
        };
        match name {
            QueueName::Ingest => self.ingest.clone(),
            QueueName::Alerts => self.alerts.clone(),
            QueueName::DlqAlerter => letters(&self.dlq_alerter),
            QueueName::DlqForwarder => letters(&self.dlq_forwarder),
            QueueName::Dead => letters(&self.dead),
        }
    }
}

/// One queue, as its consumers and its keeper see it.
struct Shared {
    name: QueueName,
    client: RedisClient,
    keys: RedisQueueKeys,
    /// The set of workers that are or were at work on this queue.
    workers: String,
    /// The dead letters' list and side; rejected records go there.
    letters: Option<(String, DeadLetterSide)>,
    limits: QueueLimits,
    pod: String,
    clock: Arc<dyn Clock>,
    lanes: Mutex<Vec<Weak<Lane>>>,
    /// Workers that are handing back their records at their end.
    leaving: Mutex<usize>,
    left: Notify,
}

impl Shared {
    fn processing(&self, worker: &str) -> String {
        format!("{}:{worker}", self.keys.processing)
    }

    fn heartbeat(&self, worker: &str) -> String {
        format!("{}:{worker}", self.keys.heartbeat)
    }

    fn lanes(&self) -> Vec<Arc<Lane>> {
        let mut lanes = lock(&self.lanes);
        lanes.retain(|lane| lane.strong_count() > 0);
        lanes.iter().filter_map(Weak::upgrade).collect()
    }

    /// Writes without leaving anything; `adding`: "1" as a record is added, "0" as one is settled.
    async fn touch(&self, adding: &str) -> StorageResult<()> {
        let mut call = PROBE.prepare_invoke();
        call.key(&self.keys.list).key(PROBE_KEY).arg(adding);
        self.client.script::<i64>(&call).await?;
        Ok(())
    }

    /// Gives a worker's records back; `although_alive` where the worker itself ends.
    async fn reap(&self, worker: &str, although_alive: bool) -> StorageResult<i64> {
        let mut call = REAP.prepare_invoke();
        call.key(self.heartbeat(worker)).key(self.processing(worker)).key(&self.keys.list).key(&self.workers);
        call.arg(worker).arg(i32::from(although_alive));
        self.client.script(&call).await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens every queue and starts the keeper of each; keepers end with their queue.
pub async fn open(config: RedisQueueConfig, clock: &Arc<dyn Clock>) -> StorageResult<Queues> {
    let client = RedisClient::connect(&config.redis).await?;
    let pod: String =
        config.pod.chars().map(|c| if c == ':' || c.is_whitespace() { '-' } else { c }).take(100).collect();
    let mut all: BTreeMap<QueueName, Arc<dyn Queue>> = BTreeMap::new();
    for name in QueueName::ALL {
        let keys = config.keys(name);
        let shared = Arc::new(Shared {
            name,
            client: client.clone(),
            workers: format!("mutt:workers:{}", name.as_str()),
            letters: name.dead_letters().map(|(letters, side)| (config.keys(letters).list, side)),
            keys,
            limits: config.limits.clone(),
            pod: pod.clone(),
            clock: Arc::clone(clock),
            lanes: Mutex::default(),
            leaving: Mutex::default(),
            left: Notify::new(),
        });
        keeper::start(&shared);
        all.insert(name, Arc::new(RedisQueue(shared)));
    }
    Ok(Queues::new(all))
}

/// Whether records may be added over `maxmemory`: what comes of an event takes the event's place.
fn over_maxmemory(name: QueueName) -> bool {
    match name {
        QueueName::Ingest => false,
        QueueName::Alerts | QueueName::DlqAlerter | QueueName::DlqForwarder | QueueName::Dead => true,
    }
}

/// A queue; its driver's type never leaves this module.
struct RedisQueue(Arc<Shared>);

#[async_trait]
impl Queue for RedisQueue {
    async fn publish(&self, batch: Vec<Bytes>, _: Durability) -> StorageResult<()> {
        let Shared { name, client, keys, limits, .. } = &*self.0;
        if batch.is_empty() {
            return Ok(());
        }
        limits.refuse_oversize(&batch)?;
        let records_max = limits.records_max(*name);
        let mut call = PUBLISH.prepare_invoke();
        call.key(&keys.list).arg(records_max).arg(i32::from(over_maxmemory(*name)));
        for record in &batch {
            call.arg(&record[..]);
        }
        // Sent again where the connection broke: twice in the queue is worked once, by its event id.
        match client.script::<i64>(&call).await? {
            -1 => Ok(()),
            depth => Err(limits.full(*name, depth.unsigned_abs())),
        }
    }

    fn consumer(&self) -> Box<dyn Consumer> {
        Box::new(RedisConsumer::new(&self.0))
    }

    async fn stats(&self) -> StorageResult<QueueStats> {
        look::stats(&self.0).await
    }

    async fn peek(&self, after: Option<u64>, limit: usize) -> StorageResult<Vec<Peeked>> {
        look::peek(&self.0, after, limit).await
    }

    async fn find(&self, positions: &[u64]) -> StorageResult<Vec<Peeked>> {
        look::find(&self.0, positions).await
    }

    async fn take(&self, positions: &[u64]) -> StorageResult<Vec<Bytes>> {
        look::take(&self.0, positions).await
    }

    async fn probe(&self) -> StorageResult<()> {
        self.0.touch("1").await
    }

    async fn flush(&self) -> StorageResult<()> {
        self.0.touch("0").await?;
        for lane in self.0.lanes() {
            lane.flush().await?;
        }
        loop {
            let left = self.0.left.notified();
            if *lock(&self.0.leaving) == 0 {
                return Ok(());
            }
            left.await;
        }
    }
}

/// Writes the dead letter of a rejected record.
fn letter(
    side: DeadLetterSide,
    shared: &Shared,
    rejection: &super::Rejection,
    attempts: u32,
    original: &Bytes,
) -> Bytes {
    dead_letter::encode_dead_letter(&model::DeadLetter {
        side,
        reason: rejection.reason.clone(),
        retryable: rejection.retryable,
        attempts,
        replays: rejection.replays,
        failed_at: shared.clock.now(),
        original: original.clone(),
    })
}
