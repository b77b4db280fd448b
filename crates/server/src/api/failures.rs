//! Wrong keys, counted by the address they come from.
//!
//! An address that gave many wrong keys is not listened to for the rest of a minute, except with keys
//! that were right from there before: behind a proxy everybody has one address, and a stranger must
//! not lock out the others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use storage::catalog::users::Fingerprint;
use tokio::time::Instant;

/// Wrong keys of one address in [`WINDOW`] after which it has to wait.
pub const FAILURES_MAX: u32 = 20;
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses remembered; the one that was heard of longest ago goes first.
const ADDRESSES_MAX: usize = 10_000;
/// Right keys remembered of one address.
const RIGHT_MAX: usize = 64;

/// What is remembered of the addresses.
#[derive(Default)]
pub struct Failures(Mutex<HashMap<IpAddr, Tally>>);

struct Tally {
    failures: u32,
    since: Instant,
    heard: Instant,
    right: Vec<Fingerprint>,
}

impl Failures {
    /// How long this address has to wait before a key it gives is looked at; `None`: not at all.
    pub fn wait(&self, address: IpAddr, key: &Fingerprint, now: Instant) -> Option<Duration> {
        let tallies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let tally = tallies.get(&address)?;
        let left = WINDOW.checked_sub(now.saturating_duration_since(tally.since)).filter(|left| !left.is_zero())?;
        (tally.failures >= FAILURES_MAX && !tally.right.contains(key)).then_some(left)
    }

    /// A wrong key. Returns how many there were in this window.
    pub fn wrong(&self, address: IpAddr, now: Instant) -> u32 {
        self.with(address, now, |tally| {
            tally.failures = tally.failures.saturating_add(1);
            tally.failures
        })
    }

    /// A right key.
    pub fn right(&self, address: IpAddr, key: &Fingerprint, now: Instant) {
        self.with(address, now, |tally| {
            if !tally.right.contains(key) {
                if tally.right.len() >= RIGHT_MAX {
                    tally.right.remove(0);
                }
                tally.right.push(*key);
            }
        });
    }

    fn with<T>(&self, address: IpAddr, now: Instant, change: impl FnOnce(&mut Tally) -> T) -> T {
        let mut tallies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tallies.len() >= ADDRESSES_MAX && !tallies.contains_key(&address) {
            // Seldom, and 10,000 comparisons only.
            if let Some(oldest) = tallies.iter().min_by_key(|(_, tally)| tally.heard).map(|(address, _)| *address) {
                tallies.remove(&oldest);
            }
        }
        let tally = tallies.entry(address).or_insert(Tally { failures: 0, since: now, heard: now, right: Vec::new() });
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
    fn many_wrong_keys_make_an_address_wait_for_a_minute_but_not_its_right_keys() {
        let (failures, now) = (Failures::default(), Instant::now());
        failures.right(address(1), &[7; 32], now);
        for n in 1..FAILURES_MAX {
            assert_eq!(failures.wrong(address(1), now), n);
        }
        assert_eq!(failures.wait(address(1), &[1; 32], now), None);
        failures.wrong(address(1), now);
        assert_eq!(failures.wait(address(1), &[1; 32], now), Some(WINDOW));
        assert_eq!(failures.wait(address(1), &[7; 32], now), None, "a key that was right before");
        assert_eq!(failures.wait(address(2), &[1; 32], now), None, "others need not");
        let later = now + WINDOW;
        assert_eq!(failures.wait(address(1), &[1; 32], later), None);
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
