//! Who shows wrong tokens has to wait. Pure: time is given.
//!
//! An address has so many wrong ones to begin with, and gains one each second: an agent that is restarted over and over
//! with an old token never uses them up, and does not lock out its neighbours behind the same address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::Instant;

/// Wrong ones in a row.
const BURST: f64 = 30.0;
const PER_SECOND: f64 = 1.0;
/// Addresses that are remembered; those beyond share one place.
const ADDRESSES_MAX: usize = 16_384;
const SWEEP_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    fn left(&self, now: Instant) -> f64 {
        (self.left + now.saturating_duration_since(self.at).as_secs_f64() * PER_SECOND).min(BURST)
    }
}

/// Wrong attempts by address.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    buckets: HashMap<IpAddr, Bucket>,
    others: Option<Bucket>,
    /// When those who waited long enough were forgotten last.
    swept: Option<Instant>,
}

impl Throttle {
    /// Whether the address may try now; else when.
    pub(super) fn ask(&self, ip: IpAddr, now: Instant) -> Result<(), Duration> {
        let bucket = self.buckets.get(&network(ip)).or(if self.is_full() { self.others.as_ref() } else { None });
        match bucket.map(|bucket| bucket.left(now)) {
            Some(left) if left < 1.0 => Err(Duration::from_secs_f64(((1.0 - left) / PER_SECOND).max(1.0))),
            Some(_) | None => Ok(()),
        }
    }

    /// It was wrong.
    pub(super) fn wrong(&mut self, ip: IpAddr, now: Instant) {
        let ip = network(ip);
        let is_swept = self.swept.is_some_and(|at| now.saturating_duration_since(at) < SWEEP_EVERY);
        if self.is_full() && !is_swept {
            self.swept = Some(now);
            self.buckets.retain(|_, bucket| bucket.left(now) < BURST);
        }
        let bucket = if self.is_full() && !self.buckets.contains_key(&ip) {
            self.others.get_or_insert(Bucket { left: BURST, at: now })
        } else {
            self.buckets.entry(ip).or_insert(Bucket { left: BURST, at: now })
        };
        *bucket = Bucket { left: (bucket.left(now) - 1.0).max(0.0), at: now };
    }

    fn is_full(&self) -> bool {
        self.buckets.len() >= ADDRESSES_MAX
    }
}

/// Who has one IPv6 address has 2^64 of them.
pub(super) fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_wrong_too_often_waits_and_nobody_else_does() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        let (bad, good) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        for _ in 0..BURST as usize {
            assert_eq!(throttle.ask(bad, start), Ok(()));
            throttle.wrong(bad, start);
        }
        assert_eq!(throttle.ask(bad, start), Err(Duration::from_secs(1)));
        assert_eq!(throttle.ask(good, start), Ok(()));
        let later = start + Duration::from_secs(2);
        assert_eq!(throttle.ask(bad, later), Ok(()));
        throttle.wrong(bad, later);
        throttle.wrong(bad, later);
        assert!(throttle.ask(bad, later).is_err());
    }

    #[test]
    fn a_whole_network_of_ipv6_is_one_sender() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for i in 0..40u16 {
            throttle.wrong(IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, i]), now);
        }
        assert!(throttle.ask("2001:db8:0:1::ffff".parse().unwrap(), now).is_err());
        assert!(throttle.ask("2001:db8:0:2::1".parse().unwrap(), now).is_ok());
    }

    #[test]
    fn many_addresses_take_bounded_memory_and_still_wait() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for i in 0..40_000u32 {
            throttle.wrong(IpAddr::from(i.to_be_bytes()), now);
        }
        assert_eq!(throttle.buckets.len(), ADDRESSES_MAX);
        assert!(throttle.ask(IpAddr::from([200, 0, 0, 1]), now).is_err(), "those beyond share a place");
        let later = now + Duration::from_secs(60);
        throttle.wrong(IpAddr::from([200, 0, 0, 1]), later);
        assert_eq!(throttle.buckets.len(), 1, "who waited is forgotten");
        assert!(throttle.ask(IpAddr::from([200, 0, 0, 2]), later).is_ok());
    }
}
