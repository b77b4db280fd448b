//! The sliding window as a pure structure: exact, bounded by the limit, indifferent to clocks that
//! step back.
//!
//! Always true: in any half-open stretch of time of the window's length at most `max` units are
//! granted. When the limit changes, the new one counts from then on; a window that becomes longer
//! does not remember what the shorter one had forgotten.

use super::{Grant, RateLimit};
use model::Timestamp;
use std::collections::VecDeque;
use std::time::Duration;

/// The grants of one window.
#[derive(Debug, Clone, Default)]
pub(super) struct Window {
    /// (when, units), oldest first, times strictly growing; at most one entry a unit.
    grants: VecDeque<(Timestamp, u32)>,
    used: u64,
    /// How often the grants moved with a clock that stepped back.
    moves: u64,
}

impl Window {
    /// Grants up to `want` units, which are spent; less than `least` is granted as nothing.
    pub fn acquire(&mut self, want: u32, least: u32, limit: RateLimit, now: Timestamp) -> Grant {
        let now = self.steady(limit.window, now);
        self.forget(limit.window, now);
        let free = u64::from(limit.max).saturating_sub(self.used);
        let granted = Some(want.min(u32::try_from(free).unwrap_or(u32::MAX))).filter(|n| *n >= least).unwrap_or(0);
        self.add(now, granted);
        let retry_after = (granted < want).then(|| self.wait(limit, now));
        Grant { granted, retry_after }
    }

    /// Adds what was granted elsewhere (before a restart), not before what is in it already.
    pub fn add(&mut self, at: Timestamp, units: u32) {
        if units == 0 {
            return;
        }
        self.used += u64::from(units);
        match self.grants.back_mut() {
            Some((last, n)) if *last >= at => *n = n.saturating_add(units),
            _ => self.grants.push_back((at, units)),
        }
    }

    /// What it remembers, oldest first.
    pub fn grants(&self) -> impl Iterator<Item = (Timestamp, u32)> + '_ {
        self.grants.iter().copied()
    }

    /// When the newest was made.
    pub fn last(&self) -> Option<Timestamp> {
        self.grants.back().map(|(at, _)| *at)
    }

    /// Grows when the times of earlier grants change.
    pub fn moves(&self) -> u64 {
        self.moves
    }

    /// A time that never lies before the last grant. Threads that come a little late, and small
    /// steps back, are taken to the last grant; after a step of more than a window the grants move
    /// with the clock: they count as if the newest were just made, so none is forgotten too early
    /// and none longer than a window from now.
    fn steady(&mut self, window: Duration, now: Timestamp) -> Timestamp {
        let Some(last) = self.last() else { return now };
        let back = last.since(now);
        if back > window {
            for (at, _) in &mut self.grants {
                *at = at.minus(back);
            }
            self.moves += 1;
            return now;
        }
        now.max(last)
    }

    fn forget(&mut self, window: Duration, now: Timestamp) {
        while let Some((at, units)) = self.grants.front()
            && now.since(*at) >= window
        {
            self.used -= u64::from(*units);
            self.grants.pop_front();
        }
    }

    /// How long until one more unit is free; at most a window.
    fn wait(&self, limit: RateLimit, now: Timestamp) -> Duration {
        let mut to_go = (self.used + 1).saturating_sub(u64::from(limit.max));
        for (at, units) in &self.grants {
            if limit.max == 0 {
                break;
            }
            to_go = to_go.saturating_sub(u64::from(*units));
            if to_go == 0 {
                return at.plus(limit.window).since(now).min(limit.window);
            }
        }
        limit.window
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limit(max: u32, secs: u64) -> RateLimit {
        RateLimit { max, window: Duration::from_secs(secs) }
    }

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(1_000_000_000 + ms)
    }

    fn take(window: &mut Window, want: u32, limit: RateLimit, ms: i64) -> (u32, Option<u64>) {
        let grant = window.acquire(want, 0, limit, at(ms));
        (grant.granted, grant.retry_after.map(|d| d.as_millis() as u64))
    }

    #[test]
    fn units_come_back_one_window_after_they_went() {
        let mut window = Window::default();
        assert_eq!(take(&mut window, 3, limit(5, 1), 0), (3, None));
        assert_eq!(take(&mut window, 3, limit(5, 1), 400), (2, Some(600)));
        assert_eq!(take(&mut window, 1, limit(5, 1), 999), (0, Some(1)));
        assert_eq!(take(&mut window, 9, limit(5, 1), 1_000), (3, Some(400)));
        assert_eq!(take(&mut window, 0, limit(5, 1), 1_000), (0, None));
    }

    #[test]
    fn a_limit_changes_live() {
        let mut window = Window::default();
        assert_eq!(take(&mut window, 10, limit(10, 1), 0), (10, None));
        assert_eq!(take(&mut window, 5, limit(12, 1), 10), (2, Some(990)));
        assert_eq!(take(&mut window, 1, limit(2, 1), 500), (0, Some(510)));
        assert_eq!(take(&mut window, 5, limit(2, 1), 1_000), (0, Some(10)), "the two of 10 ms are still in it");
        assert_eq!(take(&mut window, 1, limit(0, 1), 5_000), (0, Some(1_000)));
    }

    #[test]
    fn a_clock_that_steps_back_waits_no_longer_than_a_window() {
        let mut window = Window::default();
        assert_eq!(take(&mut window, 2, limit(2, 1), 10_000_000), (2, None));
        assert_eq!(take(&mut window, 1, limit(2, 1), 0), (0, Some(1_000)));
        assert_eq!(take(&mut window, 1, limit(2, 1), 1_000), (1, None));
        assert_eq!(take(&mut window, 2, limit(2, 1), 500), (1, Some(1_000)), "a small step is no step");
    }

    proptest! {
        #[test]
        fn no_window_ever_holds_more_than_the_limit(
            steps in proptest::collection::vec((0i64..700, 1u32..5, proptest::option::weighted(0.05, -100_000i64..0)), 1..150),
        ) {
            // `real` time only grows; the clock is `real` plus an offset that sometimes drops.
            let (mut window, limit) = (Window::default(), limit(7, 1));
            let (mut real, mut offset) = (0, 0);
            let mut granted: Vec<(i64, u32)> = Vec::new();
            for (passed, want, step) in steps {
                real += passed;
                offset += step.unwrap_or(0);
                let grant = window.acquire(want, 0, limit, at(real + offset));
                granted.push((real, grant.granted));
                let in_window: u32 = granted.iter().filter(|(t, _)| real - t < 1_000).map(|(_, n)| n).sum();
                prop_assert!(in_window <= 7, "{in_window} at {real}");
                prop_assert!(window.grants.len() <= 7);
                if let Some(wait) = grant.retry_after {
                    prop_assert!(wait <= limit.window && wait > Duration::ZERO);
                    if offset == 0 {
                        let later = window.clone().acquire(1, 0, limit, at(real).plus(wait));
                        prop_assert_eq!(later.granted, 1, "after the wait at least one more is granted");
                    }
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_granted_whole_is_not_spent() {
        let limit = RateLimit { max: 5, window: Duration::from_secs(10) };
        let mut window = Window::default();
        let now = Timestamp::from_secs(100);
        assert_eq!(window.acquire(4, 4, limit, now).granted, 4);
        let refused = window.acquire(3, 3, limit, now);
        assert_eq!(refused.granted, 0);
        assert!(refused.retry_after.is_some());
        assert_eq!(window.acquire(1, 1, limit, now).granted, 1, "the last one is still there");
    }
}
