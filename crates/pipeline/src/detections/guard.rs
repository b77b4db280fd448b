//! Rules that would drown everything else: too slow, or matching like a flood.

use super::set::{Compiled, DetectionRule, DetectionSet, Time};
use super::sets::Sets;
use model::{OrgId, Timestamp};
use rules::stream::{RuleIndex, Watch};
use std::collections::{HashMap, HashSet};
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
    /// In its organisation.
    pub matches: u64,
    /// Of all organisations that share the compiled rule: answers that were timed, and how long they took together.
    pub timed: u64,
    pub nanos: u64,
    /// Until when it is paused, in microseconds since the epoch; 0 = it is not.
    pub paused_until: i64,
}

#[derive(Debug, Default)]
struct Counts {
    matches: AtomicU64,
    /// The minute that is being counted, and its matches.
    minute: AtomicI64,
    in_minute: AtomicU64,
    paused_until: AtomicI64,
    /// The end of the last pause for slowness that the organisation was told of.
    slow_told: AtomicI64,
}

/// What is known of the rules of one organisation, by `uid`.
type ByRule = HashMap<Box<str>, Arc<Counts>>;

/// Watches the rules of all organisations, by `uid`: what is known outlives a reload. Matches are
/// counted for each organisation by itself, so that a flood in one pauses nothing in another; the time
/// that answers take belongs to the compiled rule.
pub(super) struct Guard {
    limits: Limits,
    rules: RwLock<HashMap<OrgId, ByRule>>,
}

impl Guard {
    pub fn new(limits: Limits) -> Self {
        Self { limits, rules: RwLock::default() }
    }

    /// Forgets rules that no organisation has any more.
    pub fn knows(&self, sets: &Sets) {
        let Ok(mut rules) = self.rules.write() else { return };
        let mut known: HashMap<*const Compiled, HashSet<&str>> = HashMap::new();
        for (org, counts) in rules.iter_mut() {
            let compiled = sets.of(org).compiled();
            let uids = known
                .entry(Arc::as_ptr(compiled))
                .or_insert_with(|| compiled.all().map(|rule| &*rule.header.uid).collect());
            counts.retain(|uid, _| uids.contains(&**uid));
        }
        rules.retain(|_, counts| !counts.is_empty());
    }

    fn find(&self, org: &OrgId, uid: &str) -> Option<Arc<Counts>> {
        self.rules.read().ok()?.get(org)?.get(uid).cloned()
    }

    fn of(&self, org: &OrgId, uid: &str) -> Arc<Counts> {
        self.find(org, uid).unwrap_or_else(|| match self.rules.write() {
            Ok(mut rules) => Arc::clone(rules.entry(org.clone()).or_default().entry(uid.into()).or_default()),
            Err(_) => Arc::default(),
        })
    }

    /// What is known about a rule of an organisation.
    pub fn counts(&self, org: &OrgId, rule: &DetectionRule) -> RuleCounts {
        let own = self.find(org, &rule.header.uid);
        let own = |counter: fn(&Counts) -> i64| own.as_deref().map_or(0, counter);
        let slow_until = rule.time.paused_until.load(Ordering::Relaxed);
        RuleCounts {
            matches: own(|counts| counts.matches.load(Ordering::Relaxed) as i64) as u64,
            timed: rule.time.timed.load(Ordering::Relaxed),
            nanos: rule.time.nanos.load(Ordering::Relaxed),
            paused_until: own(|counts| counts.paused_until.load(Ordering::Relaxed)).max(slow_until),
        }
    }

    /// Counts a match of which nobody would be told anyway.
    pub fn count(&self, org: &OrgId, uid: &str) {
        self.of(org, uid).matches.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a match, and judges its rule.
    pub fn hit(&self, org: &OrgId, rule: &DetectionRule, now: Timestamp) -> Verdict {
        let counts = self.of(org, &rule.header.uid);
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
            counts.paused_until.store(self.until(now), Ordering::Relaxed);
            // It gets another chance afterwards, judged anew.
            counts.in_minute.store(0, Ordering::Relaxed);
            return Verdict::Pause(Paused::Flood { per_minute_max: self.limits.matches_per_minute_max });
        }
        let Some((until, mean)) = self.slow(&rule.time, now) else { return Verdict::Go };
        // Each organisation is told of each pause.
        match counts.slow_told.swap(until, Ordering::Relaxed) {
            told if told == until => Verdict::Paused,
            _ => Verdict::Pause(Paused::Slow { mean, max: self.limits.answer_max }),
        }
    }

    /// Until when a rule is paused because it is slow, and its mean.
    fn slow(&self, time: &Time, now: Timestamp) -> Option<(i64, Duration)> {
        let until = time.paused_until.load(Ordering::Relaxed);
        if until > now.micros() {
            return Some((until, Duration::from_nanos(time.paused_mean.load(Ordering::Relaxed))));
        }
        let (timed, nanos) = (time.timed.load(Ordering::Relaxed), time.nanos.load(Ordering::Relaxed));
        let mean = Duration::from_nanos(nanos.checked_div(timed).unwrap_or(0));
        if timed < TIMED_MIN || mean <= self.limits.answer_max {
            return None;
        }
        let until = self.until(now);
        time.paused_mean.store(nanos.checked_div(timed).unwrap_or(0), Ordering::Relaxed);
        time.paused_until.store(until, Ordering::Relaxed);
        for counter in [&time.timed, &time.nanos] {
            counter.store(0, Ordering::Relaxed);
        }
        Some((until, mean))
    }

    fn until(&self, now: Timestamp) -> i64 {
        now.plus(self.limits.pause).micros()
    }
}

/// Times the answers to one event, or none, and asks no rule that the organisation has not in force.
pub(super) struct Timing<'w> {
    set: &'w DetectionSet,
    asked_at: Option<Instant>,
}

impl<'w> Timing<'w> {
    /// For one event, the `number`-th.
    pub fn new(set: &'w DetectionSet, number: u64) -> Self {
        Self { set, asked_at: number.is_multiple_of(TIMED_EVERY).then(Instant::now) }
    }
}

impl Watch for Timing<'_> {
    fn wanted(&mut self, rule: RuleIndex) -> bool {
        if let Some(asked_at) = &mut self.asked_at {
            *asked_at = Instant::now();
        }
        self.set.rule(rule).is_some()
    }

    fn asked(&mut self, rule: RuleIndex, _: bool) {
        let Some(asked_at) = self.asked_at else { return };
        let took = u64::try_from(asked_at.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let Some(rule) = self.set.rule(rule) else { return };
        rule.rule.time.timed.fetch_add(1, Ordering::Relaxed);
        rule.rule.time.nanos.fetch_add(took, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detections::library::Library;
    use rules::sigma::{Options, Reader};

    fn sets() -> Sets {
        let mut reader = Reader::default();
        for name in ["a", "b"] {
            let text =
                format!("title: {name}\nlogsource: {{product: linux}}\ndetection: {{s: {{x: y}}, condition: s}}");
            reader.text("rules.yml", &text);
        }
        let library = Library::new(reader, Vec::new(), Options::default(), false);
        Sets::default().next(&Arc::new(library), Vec::new())
    }

    #[test]
    fn a_flood_pauses_its_rule_once_and_for_a_while_and_in_its_organisation_only() {
        let guard =
            Guard::new(Limits { matches_per_minute_max: 3, pause: Duration::from_secs(60), ..Limits::default() });
        let sets = sets();
        let (org, other) = (OrgId::default(), "acme".parse().unwrap());
        let rules: Vec<_> = sets.base().rules().map(|one| one.rule).collect();
        let at = |seconds: i64| Timestamp::from_secs(1_200 + seconds);
        let verdicts: Vec<Verdict> = (0..5).map(|n| guard.hit(&org, rules[0], at(n))).collect();
        assert!(verdicts[..3].iter().all(|verdict| *verdict == Verdict::Go), "{verdicts:?}");
        assert!(matches!(verdicts[3], Verdict::Pause(Paused::Flood { .. })), "{verdicts:?}");
        assert_eq!(verdicts[4], Verdict::Paused);
        assert_eq!(guard.hit(&org, rules[1], at(5)), Verdict::Go, "another rule");
        assert_eq!(guard.hit(&other, rules[0], at(5)), Verdict::Go, "another organisation");
        guard.knows(&sets);
        assert_eq!(guard.hit(&org, rules[0], at(50)), Verdict::Paused, "a reload forgets no pause");
        assert_eq!(guard.hit(&org, rules[0], at(70)), Verdict::Go);
        assert_eq!((guard.counts(&org, rules[0]).matches, guard.counts(&other, rules[0]).matches), (7, 1));
        guard.knows(&Sets::default());
        assert_eq!(guard.counts(&org, rules[0]).matches, 0, "what is gone is forgotten");
    }

    #[test]
    fn a_slow_rule_is_paused_for_all_and_each_organisation_is_told_once() {
        let guard = Guard::new(Limits { answer_max: Duration::from_micros(10), ..Limits::default() });
        let sets = sets();
        let slow = sets.base().rules().next().unwrap().rule;
        slow.time.timed.store(TIMED_MIN, Ordering::Relaxed);
        slow.time.nanos.store(TIMED_MIN * 20_000, Ordering::Relaxed);
        for org in ["default", "acme"] {
            let org: OrgId = org.parse().unwrap();
            let verdict = guard.hit(&org, slow, Timestamp::from_secs(1));
            assert!(
                matches!(&verdict, Verdict::Pause(paused @ Paused::Slow { .. }) if paused.to_string().contains("20")),
                "{verdict:?}"
            );
            assert_eq!(guard.hit(&org, slow, Timestamp::from_secs(2)), Verdict::Paused);
        }
    }
}
