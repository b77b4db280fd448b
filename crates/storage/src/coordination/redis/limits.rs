//! Shared sliding windows: one script call takes up to [`CALL_UNITS_MAX`] units.
//!
//! A call of 1,000 units holds Redis up for about two milliseconds. More units are taken in several
//! calls, between which others are served. All or nothing over several calls: each call takes only
//! when all that is still missing is free; where another asker was faster, what was taken is given
//! back. The limit is never passed meanwhile.

use super::RedisCoordination;
use crate::StorageResult;
use crate::coordination::{Grant, RateLimit};
use model::Timestamp;
use redis::Script;
use std::sync::LazyLock;
use std::sync::atomic::Ordering;
use std::time::Duration;

static ACQUIRE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("acquire.lua")));

const CALL_UNITS_MAX: u32 = 1_000;

/// What is asked of a window.
pub(super) struct Wish<'a> {
    pub name: &'a str,
    pub want: u32,
    /// All or nothing.
    pub whole: bool,
    pub limit: RateLimit,
}

impl RedisCoordination {
    pub(super) async fn take(&self, wish: Wish<'_>, now: Timestamp) -> StorageResult<Grant> {
        let (key, unit) = self.config.window(wish.name);
        let call = self.next_call.fetch_add(1, Ordering::Relaxed);
        let token = format!("{}-{call:x}", self.id);
        let mut taken = 0;
        loop {
            let missing = wish.want - taken;
            let part = missing.min(CALL_UNITS_MAX);
            let mut script = ACQUIRE.prepare_invoke();
            script
                .key(&key)
                .arg(self.caller_time(now))
                .arg(wish.limit.max)
                .arg(micros(wish.limit.window))
                .arg(part)
                .arg(if wish.whole { missing } else { 0 })
                .arg(unit.micros())
                .arg(&token)
                .arg(taken);
            let answer: StorageResult<(u32, i64)> = self.client.script(&script).await;
            let (granted, wait) = match answer {
                Ok(answer) => answer,
                // What was taken may be used when it need not be all.
                Err(_) if taken > 0 && !wish.whole => (0, micros(wish.limit.window)),
                Err(error) => {
                    self.give_back(&key, &token, taken).await;
                    return Err(error);
                }
            };
            taken += granted;
            if granted < part {
                let retry_after = Some(Duration::from_micros(u64::try_from(wait).unwrap_or(1)));
                if wish.whole {
                    self.give_back(&key, &token, taken).await;
                    return Ok(Grant { granted: 0, retry_after });
                }
                return Ok(Grant { granted: taken, retry_after });
            }
            if taken == wish.want {
                return Ok(Grant { granted: taken, retry_after: None });
            }
        }
    }

    /// Where this fails the units come back by themselves, a window later.
    async fn give_back(&self, key: &str, token: &str, taken: u32) {
        for first in (0..taken).step_by(CALL_UNITS_MAX as usize) {
            let mut command = redis::cmd("ZREM");
            command.arg(key);
            for n in first..taken.min(first + CALL_UNITS_MAX) {
                command.arg(format!("{token}:{n}"));
            }
            if let Err(error) = self.client.query::<u64>(&command).await {
                tracing::warn!(%error, units = taken, "units of a rate limit that nobody uses could not be given back");
                return;
            }
        }
    }
}

fn micros(duration: Duration) -> i64 {
    // Ten years; keeps every sum exact in a script's numbers.
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX).min(315_360_000_000_000)
}
