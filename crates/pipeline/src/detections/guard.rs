//! Rules that would drown everything else: too slow, or matching like a flood.

use super::set::DetectionSet;
use model::Timestamp;
use rules::stream::{RuleIndex, Watch};
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tokio::time::Instant;

/// One event in so many is timed.
const TIMED_EVERY: u64 = 16;
/// Answers that are timed before a rule can be called slow.
const TIMED_MIN: u64 = 256;
const MINUTE_MICROS: i64 = 60_000_000;

/// When a rule is paused.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// More matches in one minute are a flood.
    pub matches_per_minute_max: u64,
    /// A rule whose answers take longer on average is slow.
    pub answer_max: Duration,
    /// For how long it is paused.
    pub pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { matches_per_minute_max: 1_000, answer_max: Duration::from_millis(1), pause: Duration::from_secs(600) }
    }
}

/// Why a rule is paused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Paused {
    Flood { per_minute_max: u64 },
    Slow { mean: Duration, max: Duration },
}

impl std::fmt::Display for Paused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flood { per_minute_max } => write!(f, "it matched more than {per_minute_max} times in a minute"),
            Self::Slow { mean, max } => write!(f, "an answer takes {mean:?} on average, more than {max:?}"),
        }
    }
}

/// What a match of a rule means now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Go,
    /// From now on it is paused.
    Pause(Paused),
    Paused,
}

/// What is known about a rule since the start of this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RuleCounts {
    pub matches: u64,
    /// Answers that were timed, and how long they took together.
    pub timed: u64,
    pub nanos: u64,
    /// Until when it is paused, in microseconds since the epoch; 0 = it is not.
    pub paused_until: i64,
}

#[derive(Debug, Default)]
struct Counts {
    matches: AtomicU64,
    timed: AtomicU64,
    nanos: AtomicU64,
    /// The minute that is being counted, and its matches.
    minute: AtomicI64,
    in_minute: AtomicU64,
    paused_until: AtomicI64,
}

/// Watches all rules, by `uid`: what is known outlives a reload.
pub(super) struct Guard {
    limits: Limits,
    rules: RwLock<HashMap<Box<str>, Arc<Counts>>>,
}

impl Guard {
    pub fn new(limits: Limits) -> Self {
        Self { limits, rules: RwLock::default() }
    }

    /// Forgets rules that are not among these.
    pub fn knows<'u>(&self, uids: impl Iterator<Item = &'u str>) {
        let Ok(mut rules) = self.rules.write() else { return };
        let known: HashMap<Box<str>, Arc<Counts>> =
            uids.map(|uid| (Box::from(uid), rules.get(uid).cloned().unwrap_or_default())).collect();
        *rules = known;
    }

    fn of(&self, uid: &str) -> Option<Arc<Counts>> {
        self.rules.read().ok()?.get(uid).cloned()
    }

    pub fn counts(&self, uid: &str) -> RuleCounts {
        self.of(uid).map_or_else(RuleCounts::default, |counts| RuleCounts {
            matches: counts.matches.load(Ordering::Relaxed),
            timed: counts.timed.load(Ordering::Relaxed),
            nanos: counts.nanos.load(Ordering::Relaxed),
            paused_until: counts.paused_until.load(Ordering::Relaxed),
        })
    }

    /// Counts a match.
    pub fn hit(&self, uid: &str, now: Timestamp) -> Verdict {
        let Some(counts) = self.of(uid) else { return Verdict::Go };
        counts.matches.fetch_add(1, Ordering::Relaxed);
        if counts.paused_until.load(Ordering::Relaxed) > now.micros() {
            return Verdict::Paused;
        }
        let minute = now.micros().div_euclid(MINUTE_MICROS);
        if counts.minute.swap(minute, Ordering::Relaxed) != minute {
            counts.in_minute.store(0, Ordering::Relaxed);
        }
        let in_minute = counts.in_minute.fetch_add(1, Ordering::Relaxed) + 1;
        if in_minute > self.limits.matches_per_minute_max {
            self.pause(&counts, now);
            return Verdict::Pause(Paused::Flood { per_minute_max: self.limits.matches_per_minute_max });
        }
        let (timed, nanos) = (counts.timed.load(Ordering::Relaxed), counts.nanos.load(Ordering::Relaxed));
        let mean = Duration::from_nanos(nanos.checked_div(timed).unwrap_or(0));
        if timed >= TIMED_MIN && mean > self.limits.answer_max {
            self.pause(&counts, now);
            return Verdict::Pause(Paused::Slow { mean, max: self.limits.answer_max });
        }
        Verdict::Go
    }

    fn pause(&self, counts: &Counts, now: Timestamp) {
        counts.paused_until.store(now.plus(self.limits.pause).micros(), Ordering::Relaxed);
        // It gets another chance afterwards, judged anew.
        for counter in [&counts.timed, &counts.nanos, &counts.in_minute] {
            counter.store(0, Ordering::Relaxed);
        }
    }

    /// Watches the rules of one event, its `number`-th; times some.
    pub fn watch<'w>(&'w self, set: &'w DetectionSet, number: u64) -> Timing<'w> {
        Timing { guard: self, set, asked_at: number.is_multiple_of(TIMED_EVERY).then(Instant::now) }
    }
}

/// Times the answers to one event, or none.
pub(super) struct Timing<'w> {
    guard: &'w Guard,
    set: &'w DetectionSet,
    asked_at: Option<Instant>,
}

impl Watch for Timing<'_> {
    fn wanted(&mut self, _: RuleIndex) -> bool {
        if let Some(asked_at) = &mut self.asked_at {
            *asked_at = Instant::now();
        }
        true
    }

    fn asked(&mut self, rule: RuleIndex, _: bool) {
        let Some(asked_at) = self.asked_at else { return };
        let took = u64::try_from(asked_at.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let Some(rule) = self.set.rules().get(rule as usize) else { return };
        if let Some(counts) = self.guard.of(&rule.header.uid) {
            counts.timed.fetch_add(1, Ordering::Relaxed);
            counts.nanos.fetch_add(took, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_pauses_its_rule_once_and_for_a_while() {
        let guard =
            Guard::new(Limits { matches_per_minute_max: 3, pause: Duration::from_secs(60), ..Limits::default() });
        guard.knows(["a", "b"].into_iter());
        let at = |seconds: i64| Timestamp::from_secs(1_200 + seconds);
        let verdicts: Vec<Verdict> = (0..5).map(|n| guard.hit("a", at(n))).collect();
        assert!(verdicts[..3].iter().all(|verdict| *verdict == Verdict::Go), "{verdicts:?}");
        assert!(matches!(verdicts[3], Verdict::Pause(Paused::Flood { .. })), "{verdicts:?}");
        assert_eq!(verdicts[4], Verdict::Paused);
        assert_eq!(guard.hit("b", at(5)), Verdict::Go, "another rule");
        guard.knows(["a"].into_iter());
        assert_eq!(guard.hit("a", at(50)), Verdict::Paused, "a reload forgets no pause");
        assert_eq!(guard.hit("a", at(70)), Verdict::Go);
        assert_eq!(guard.counts("a").matches, 7);
    }

    #[test]
    fn a_slow_rule_is_paused() {
        let guard = Guard::new(Limits { answer_max: Duration::from_micros(10), ..Limits::default() });
        guard.knows(["slow"].into_iter());
        let counts = guard.of("slow").unwrap();
        counts.timed.store(TIMED_MIN, Ordering::Relaxed);
        counts.nanos.store(TIMED_MIN * 20_000, Ordering::Relaxed);
        let verdict = guard.hit("slow", Timestamp::from_secs(1));
        assert!(
            matches!(&verdict, Verdict::Pause(paused @ Paused::Slow { .. }) if paused.to_string().contains("20")),
            "{verdict:?}"
        );
    }
}
