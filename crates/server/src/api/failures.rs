//! Wrong keys, counted by the address they come from.
//!
//! An address that gave many wrong keys is told to wait with the next wrong one, for the rest of a
//! minute. A right key passes all the same: it has 256 bits, so that nobody gets in by trying, and
//! behind a proxy everybody has one address. What a wrong key costs is bounded by the keyring, which
//! looks it up in memory and reads the catalog at most once a second, however many come.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Wrong keys of one address in [`WINDOW`] after which it has to wait.
pub const FAILURES_MAX: u32 = 20;
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses remembered; the one that was heard of longest ago goes first.
const ADDRESSES_MAX: usize = 10_000;

/// What is remembered of the addresses.
#[derive(Default)]
pub struct Failures(Mutex<HashMap<IpAddr, Tally>>);

struct Tally {
    failures: u32,
    since: Instant,
    heard: Instant,
}

impl Failures {
    /// How long this address is told to wait with a wrong key; `None`: not at all.
    pub fn wait(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let tallies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let tally = tallies.get(&address)?;
        let left = WINDOW.checked_sub(now.saturating_duration_since(tally.since)).filter(|left| !left.is_zero())?;
        (tally.failures >= FAILURES_MAX).then_some(left)
    }

    /// A wrong key. Returns how many there were in this window.
    pub fn wrong(&self, address: IpAddr, now: Instant) -> u32 {
        self.with(address, now, |tally| {
            tally.failures = tally.failures.saturating_add(1);
            tally.failures
        })
    }

    fn with<T>(&self, address: IpAddr, now: Instant, change: impl FnOnce(&mut Tally) -> T) -> T {
        let mut tallies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tallies.len() >= ADDRESSES_MAX && !tallies.contains_key(&address) {
            // Seldom, and 10,000 comparisons only.
            if let Some(oldest) = tallies.iter().min_by_key(|(_, tally)| tally.heard).map(|(address, _)| *address) {
                tallies.remove(&oldest);
            }
        }
        let tally = tallies.entry(address).or_insert(Tally { failures: 0, since: now, heard: now });
        tally.heard = now;
        if now.saturating_duration_since(tally.since) >= WINDOW {
            (tally.failures, tally.since) = (0, now);
        }
        change(tally)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn address(n: u32) -> IpAddr {
        Ipv4Addr::from(n).into()
    }

    #[test]
    fn many_wrong_keys_make_an_address_wait_for_a_minute() {
        let (failures, now) = (Failures::default(), Instant::now());
        for n in 1..FAILURES_MAX {
            assert_eq!(failures.wrong(address(1), now), n);
        }
        assert_eq!(failures.wait(address(1), now), None);
        failures.wrong(address(1), now);
        assert_eq!(failures.wait(address(1), now), Some(WINDOW));
        assert_eq!(failures.wait(address(2), now), None, "others need not");
        let later = now + WINDOW;
        assert_eq!(failures.wait(address(1), later), None);
        assert_eq!(failures.wrong(address(1), later), 1, "a new window");
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_goes() {
        let (failures, now) = (Failures::default(), Instant::now());
        for n in 0..ADDRESSES_MAX as u32 + 5 {
            failures.wrong(address(n), now + Duration::from_micros(n.into()));
        }
        let tallies = failures.0.lock().unwrap();
        assert_eq!(tallies.len(), ADDRESSES_MAX);
        assert!(!tallies.contains_key(&address(4)) && tallies.contains_key(&address(5)));
    }
}
