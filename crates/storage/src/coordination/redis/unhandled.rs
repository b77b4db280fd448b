//! Counters of unhandled events: events are joined by counter here, and one script call counts up to
//! [`CALL_EVENTS_MAX`] of them.
//!
//! Which events were counted is kept in two shapes, each forgotten some time after its last use:
//! * Numbers that count up (ids of our own): a bitmap for every 4,096 numbers of a run, 512 bytes.
//! * Numbers that look random (records of other programs): sets of whole numbers, 4,096 for each
//!   stretch of time, so that none is large; 8 bytes an event while small.

use super::RedisCoordination;
use crate::coordination::{UnhandledEvent, UnhandledPolicy};
use crate::{StorageError, StorageResult};
use model::{ErrorKind, EventId, Timestamp};
use redis::{Script, Value};
use std::collections::HashMap;
use std::sync::LazyLock;
use std::sync::atomic::Ordering;
use std::time::Duration;

static OBSERVE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("unhandled.lua")));

/// Events in one script call, which holds Redis up for about a microsecond each.
const CALL_EVENTS_MAX: usize = 4_096;
const BLOCK_BITS: u32 = 12;
const BLOCK_BYTES: usize = (1 << BLOCK_BITS) / 8;
/// Numbers from here on are taken as random. A run of ours gets here after 12 days of a million
/// events a second; its events are then only remembered in the other shape.
const RARE_FROM: u64 = 1 << 40;
const RARE_SETS: u32 = 1 << BLOCK_BITS;
const RARE_FLAG: u16 = 1 << 15;
const ID_PREFIX: &str = "evt_";

/// The events of one script call.
#[derive(Default)]
struct Call {
    counters: Vec<Counter>,
    blocks: Vec<Block>,
    /// Some event is there twice, or has a number of the rare shape.
    special: bool,
}

/// A bitmap with the bits of a call's events.
struct Block {
    run: u32,
    number: u64,
    bits: Box<[u8; BLOCK_BYTES]>,
}

impl Block {
    /// Sets a bit as SETBIT counts them, the first one highest; whether it was set already.
    fn mark(&mut self, number: u64) -> bool {
        let (byte, mask) = (number as usize / 8, 128 >> (number % 8));
        let was = self.bits[byte] & mask != 0;
        self.bits[byte] |= mask;
        was
    }

    /// The first byte with a bit, and all from there to the last such byte.
    fn written(&self) -> (usize, &[u8]) {
        let first = self.bits.iter().position(|b| *b != 0).unwrap_or(0);
        let end = self.bits.iter().rposition(|b| *b != 0).map_or(first, |last| last + 1);
        (first, &self.bits[first..end])
    }
}

struct Counter {
    key: String,
    /// As the script reads them.
    records: Vec<u8>,
    /// Indexes into the caller's events.
    events: Vec<usize>,
}

impl RedisCoordination {
    pub(super) async fn observe(
        &self,
        events: &[UnhandledEvent],
        policy: UnhandledPolicy,
        now: Timestamp,
    ) -> StorageResult<Vec<usize>> {
        let mut triggers = Vec::new();
        for (part, first) in events.chunks(CALL_EVENTS_MAX).zip((0..).step_by(CALL_EVENTS_MAX)) {
            let call = self.grouped(part);
            let answer = self.call(&call, policy, now).await?;
            self.apply(&call, part, answer, |index| triggers.push(first + index))?;
        }
        triggers.sort_unstable();
        self.log_evictions(now);
        Ok(triggers)
    }

    fn grouped(&self, events: &[UnhandledEvent]) -> Call {
        let mut call = Call::default();
        let mut at: HashMap<(&str, &str, &str), usize> = HashMap::new();
        let mut blocks: HashMap<(u32, u64), u16> = HashMap::new();
        for (index, event) in events.iter().enumerate() {
            let (org, host, shape) = (event.org.as_str(), event.host.as_str(), event.shape.as_str());
            let counter = *at.entry((org, host, shape)).or_insert_with(|| {
                let key = self.config.unhandled(org, host, shape);
                call.counters.push(Counter { key, records: Vec::new(), events: Vec::new() });
                call.counters.len() - 1
            });
            let id = event.event_id;
            let (name, number) = if id.counter() < RARE_FROM {
                let (run, number) = (id.run(), id.counter() >> BLOCK_BITS);
                let name = *blocks.entry((run, number)).or_insert_with(|| {
                    call.blocks.push(Block { run, number, bits: Box::new([0; BLOCK_BYTES]) });
                    // One call has no more blocks than events.
                    (call.blocks.len() - 1) as u16
                });
                let bit = id.counter() & ((1 << BLOCK_BITS) - 1);
                call.special |= call.blocks[usize::from(name)].mark(bit);
                (name, bit)
            } else {
                call.special = true;
                (RARE_FLAG | (id.run() % RARE_SETS) as u16, id.counter())
            };
            let counter = &mut call.counters[counter];
            counter.events.push(index);
            counter.records.extend_from_slice(&name.to_be_bytes());
            counter.records.extend_from_slice(&number.to_be_bytes()[2..]);
            counter.records.extend_from_slice(&id.to_string().as_bytes()[ID_PREFIX.len()..]);
        }
        call
    }

    async fn call(&self, call: &Call, policy: UnhandledPolicy, now: Timestamp) -> StorageResult<Vec<Value>> {
        let prefix = &self.config.unhandled_prefix;
        let remembered = self.config.unhandled_remembered_for.as_secs().max(1);
        let expiry_ms = u64::try_from(policy.expiry.as_millis()).unwrap_or(u64::MAX).clamp(1, 1 << 42);
        let mut script = OBSERVE.prepare_invoke();
        script.key(format!("{prefix}_index"));
        for counter in &call.counters {
            script.key(&counter.key);
        }
        script
            .arg(self.caller_time(now))
            .arg(policy.threshold.max(1))
            .arg(expiry_ms)
            .arg(policy.keys_max.max(1))
            .arg(remembered)
            .arg(format!("{prefix}_seen:rare:"))
            .arg(u8::from(!call.special))
            .arg(call.blocks.len());
        for block in &call.blocks {
            let (first, bits) = block.written();
            script.arg(format!("{prefix}_seen:{:08x}:{:x}", block.run, block.number)).arg(first).arg(bits);
        }
        for counter in &call.counters {
            script.arg(&counter.records[..]);
        }
        self.client.script(&script).await
    }

    /// Reads the answer `[dropped, counter, id, counter, id …]`.
    fn apply(
        &self,
        call: &Call,
        events: &[UnhandledEvent],
        answer: Vec<Value>,
        mut trigger: impl FnMut(usize),
    ) -> StorageResult<()> {
        let odd = || StorageError::new(ErrorKind::Internal, "Redis: an unexpected answer of the script that counts");
        let mut answer = answer.into_iter();
        let Some(Value::Int(dropped)) = answer.next() else { return Err(odd()) };
        self.evictions.fetch_add(dropped.unsigned_abs(), Ordering::Relaxed);
        while let (Some(number), Some(by)) = (answer.next(), answer.next()) {
            let (Value::Int(number), Value::BulkString(by)) = (number, by) else { return Err(odd()) };
            let counter = usize::try_from(number - 2).ok().and_then(|n| call.counters.get(n)).ok_or_else(odd)?;
            // Triggered by a program that does not say by which event: by none of these, then.
            let Ok(by) = format!("{ID_PREFIX}{}", String::from_utf8_lossy(&by)).parse::<EventId>() else { continue };
            counter.events.iter().filter(|index| events[**index].event_id == by).for_each(|index| trigger(*index));
        }
        Ok(())
    }

    fn log_evictions(&self, now: Timestamp) {
        let total = self.evictions.load(Ordering::Relaxed);
        let mut logged = super::lock(&self.evictions_logged);
        let (before, at) = *logged;
        if total > before && (now.since(at) >= Duration::from_secs(60) || now < at) {
            *logged = (total, now);
            tracing::warn!(
                counters = total - before,
                "counters of unhandled events were dropped: more hosts and shapes than may be kept"
            );
        }
    }
}
