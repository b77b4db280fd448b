//! Waiting longer after each failure, never exactly as long as the others.

/// `min(base · 2^failures, max)`, of which up to a half is taken away at random.
#[derive(Debug, Clone)]
pub struct Backoff {
    failures: u32,
    random: u64,
}

impl Backoff {
    pub fn new(seed: u64) -> Self {
        Self { failures: 0, random: seed }
    }

    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Counts a failure; how long to wait now.
    pub fn next_ms(&mut self, base_ms: u64, max_ms: u64) -> u64 {
        let doubled = base_ms.saturating_mul(1u64.checked_shl(self.failures.min(32)).unwrap_or(u64::MAX));
        self.failures = self.failures.saturating_add(1);
        self.jitter(doubled.min(max_ms))
    }

    /// Between a half of it and all of it.
    pub fn jitter(&mut self, ms: u64) -> u64 {
        // splitmix64: good enough to spread agents, and the same again from the same seed.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let random = (z ^ (z >> 31)) >> 11;
        ms - random % (ms / 2 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_bound_and_lose_at_most_half() {
        let mut backoff = Backoff::new(7);
        for full in [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
            let wait = backoff.next_ms(500, 30_000);
            assert!((full / 2..=full).contains(&wait), "{wait} of {full}");
        }
        backoff.reset();
        assert!(backoff.next_ms(500, 30_000) <= 500);
    }

    #[test]
    fn agents_of_different_seeds_do_not_come_back_together() {
        let waits: std::collections::BTreeSet<u64> =
            (0..1_000).map(|seed| Backoff::new(seed).jitter(30_000) / 150).collect();
        assert!(waits.len() > 95, "spread over {} of 100 slots", waits.len());
    }
}
