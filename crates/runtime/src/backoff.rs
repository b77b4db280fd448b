//! How long to wait before trying again: exponential, capped, with jitter.

use std::time::Duration;

/// `min(base · 2^n, max)`, of which up to a half is taken away at random, so that many who failed
/// together do not come back together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    base: Duration,
    max: Duration,
}

impl Backoff {
    /// `base` over `max` counts as `max`.
    pub fn new(base: Duration, max: Duration) -> Self {
        Self { base: base.min(max), max }
    }

    /// The wait after `failures` failures in a row (1 = the first).
    pub fn delay(&self, failures: u32) -> Duration {
        self.with_jitter(failures, fastrand::f64())
    }

    /// As [`Self::delay`], the random number in 0..1 given.
    pub fn with_jitter(&self, failures: u32, random: f64) -> Duration {
        let doubled =
            self.base.saturating_mul(1u32.checked_shl(failures.saturating_sub(1).min(31)).unwrap_or(u32::MAX));
        let full = doubled.min(self.max);
        full.mul_f64(1.0 - random.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_the_cap_and_jitter_takes_at_most_half() {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        let full: Vec<u64> = (1..9).map(|n| backoff.with_jitter(n, 0.0).as_secs()).collect();
        assert_eq!(full, [1, 2, 4, 8, 16, 32, 60, 60]);
        for n in [1, 5, 100, u32::MAX] {
            let least = backoff.with_jitter(n, 1.0);
            assert!(least >= Duration::from_millis(500) && least <= Duration::from_secs(60));
        }
    }
}
