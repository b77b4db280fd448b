//! How much a collector may tell whose source cannot be read again, and what becomes of the rest.
//!
//! Up to the limit everything is told. Above it one in a hundred is, marked as a sample; the others are counted by kind,
//! and one event each ten seconds says how many there were. A fifth of the room is for what matters more than the flood. Files and journals are not limited: they wait where they are.

use super::{log_event, passing};
use crate::spool::Observation;
use model::Timestamp;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Of those over the limit, one of so many is told.
pub const SAMPLE: u64 = 100;
/// How often it is said what was left out.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// Seconds of the limit that may come at once; the last of them only by what matters.
const BURST_SECONDS: u32 = 25;
const KEPT_SECONDS: u32 = 5;

/// How much one matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    Usual,
    /// Worth an analyst's look by itself.
    High,
}

/// What becomes of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Told as it is.
    Tell,
    /// Told, as one of [`SAMPLE`].
    Sample,
    /// Counted.
    LeaveOut,
}

/// The limit of one collector.
#[derive(Debug)]
pub struct Limiter {
    collector: &'static str,
    per_second: u32,
    /// In thousandths of an event.
    tokens: u64,
    filled: Instant,
    /// By kind, since it was last said.
    left_out: BTreeMap<&'static str, u64>,
    over: u64,
    said: Instant,
}

impl Limiter {
    /// Full at first.
    pub fn new(collector: &'static str, per_second: u32, now: Instant) -> Self {
        let tokens = Self::room(per_second, BURST_SECONDS);
        Self { collector, per_second, tokens, filled: now, left_out: BTreeMap::new(), over: 0, said: now }
    }

    fn room(per_second: u32, seconds: u32) -> u64 {
        u64::from(per_second) * u64::from(seconds) * 1_000
    }

    /// What becomes of one of this kind.
    pub fn take(&mut self, kind: &'static str, weight: Weight, now: Instant) -> Verdict {
        let ms = u64::try_from(now.saturating_duration_since(self.filled).as_millis()).unwrap_or(u64::MAX);
        if ms > 0 {
            let more = ms.saturating_mul(u64::from(self.per_second));
            self.tokens = self.tokens.saturating_add(more).min(Self::room(self.per_second, BURST_SECONDS));
            self.filled = now;
        }
        let kept = match weight {
            Weight::Usual => Self::room(self.per_second, KEPT_SECONDS),
            Weight::High => 0,
        };
        if self.tokens >= kept + 1_000 {
            self.tokens -= 1_000;
            return Verdict::Tell;
        }
        self.over += 1;
        if self.over % SAMPLE == 1 {
            return Verdict::Sample;
        }
        *self.left_out.entry(kind).or_default() += 1;
        Verdict::LeaveOut
    }

    /// What is to be said about those left out, if it is time.
    pub fn say(&mut self, at: Timestamp, now: Instant, is_end: bool) -> Option<Observation> {
        if self.left_out.is_empty() || (!is_end && now.saturating_duration_since(self.said) < SAY_EVERY) {
            return None;
        }
        self.said = now;
        let left_out = std::mem::take(&mut self.left_out);
        let total: u64 = left_out.values().sum();
        let words: Vec<String> = left_out.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        let message = format!("{}: more than is told of: {} left out", self.collector, words.join(", "));
        let mut event = log_event(at, "security", message, &[]);
        let mut label = |key: &str, value: String| event.labels.insert(key.to_owned(), value);
        label("event_type", "rate_limited".to_owned());
        label("severity", "warning".to_owned());
        label("collector", self.collector.to_owned());
        label("left_out", total.to_string());
        label("per_second", self.per_second.to_string());
        label("sampled", SAMPLE.to_string());
        for (kind, count) in left_out {
            label(&format!("left_out_{kind}"), count.to_string());
        }
        Some(passing(self.collector, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::record;

    #[test]
    fn a_burst_passes_a_flood_is_sampled_and_every_one_left_out_is_counted_once() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let mut limit = Limiter::new("processes", 10, begin);
        let mut verdicts = [0u64; 3];
        for i in 0..1_200 {
            let kind = if i % 2 == 0 { "process_start" } else { "process_end" };
            verdicts[limit.take(kind, Weight::Usual, begin) as usize] += 1;
        }
        assert_eq!(verdicts, [200, 10, 990], "20 seconds' worth, one in a hundred, the rest");
        let labels = |observation: Option<Observation>| match observation.unwrap().record.unwrap().body.unwrap() {
            record::Body::Log(log) => (log.stream, log.labels),
            record::Body::Metric(_) => panic!(),
        };
        assert!(limit.say(Timestamp::from_secs(1), at(9_000), false).is_none(), "not more often than each ten seconds");
        let (stream, labels) = labels(limit.say(Timestamp::from_secs(1), at(10_000), false));
        assert_eq!((&*stream, &*labels["event_type"], &*labels["left_out"]), ("security", "rate_limited", "990"));
        let [starts, ends] =
            ["left_out_process_start", "left_out_process_end"].map(|k| labels[k].parse::<u64>().unwrap());
        assert_eq!(starts + ends, 990);
        assert!(limit.say(Timestamp::from_secs(1), at(30_000), false).is_none(), "said once");
        // A second later there is a second's worth again, and time that goes back brings nothing.
        limit.take("x", Weight::Usual, at(500));
        let told = (0..100).filter(|_| limit.take("x", Weight::Usual, at(1_000)) == Verdict::Tell).count();
        assert_eq!(told, 9, "of ten in this second one was taken already");
        let told = (0..100).filter(|_| limit.take("x", Weight::High, at(1_000)) == Verdict::Tell).count();
        assert_eq!(told, 50, "five seconds' worth is kept for what matters");
        assert_ne!(limit.take("x", Weight::Usual, begin), Verdict::Tell);
    }
}
