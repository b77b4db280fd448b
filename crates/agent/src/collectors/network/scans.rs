//! Who knocks at many ports. Pure: packets and the time come in, scans go out.
//!
//! Always true here: one source is told once as long as it goes on, and memory is bounded whoever pretends to be whom.
//! Hosts of one IPv6 network (/64) are one source, as one host can be all of them.

use super::attempts::{Attempt, Knock};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Closed ports at which a source must have knocked.
pub const PORTS: usize = 20;
/// A scan that is quiet for so long is over, and is told.
const QUIET: Duration = Duration::from_secs(2);
/// One that goes on is told after so long.
const TELL_AFTER: Duration = Duration::from_secs(5);
/// One that still goes on is told again after so long.
const AGAIN_AFTER: Duration = Duration::from_secs(600);
/// Knocks further apart than this have nothing to do with one another.
const FORGET_AFTER: Duration = Duration::from_secs(300);
const SOURCES_MAX: usize = 1_024;
/// Ports told apart of one source.
const PORTS_MAX: usize = 2_048;

#[derive(Debug)]
struct Source {
    first_ip: IpAddr,
    target: IpAddr,
    knock: Knock,
    /// In order.
    ports: Vec<u16>,
    packets: u64,
    last: Instant,
    /// When there were enough ports.
    enough: Option<Instant>,
    told: Option<Instant>,
    told_ports: usize,
}

/// A scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    pub source: IpAddr,
    pub target: IpAddr,
    pub knock: Knock,
    pub ports: Vec<u16>,
    pub packets: u64,
    /// It was told before.
    pub goes_on: bool,
}

/// Remembers who knocked where.
#[derive(Debug, Default)]
pub struct Scans(BTreeMap<IpAddr, Source>);

/// What counts as one source.
fn key(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V4(_) => source,
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & !u128::from(u64::MAX)).into(),
    }
}

impl Scans {
    pub fn saw(&mut self, attempt: Attempt, now: Instant) {
        let key = key(attempt.source);
        if !self.0.contains_key(&key) && self.0.len() >= SOURCES_MAX {
            // Who knocked at the fewest ports, longest ago: a scanner does not get away behind invented sources.
            let least = self.0.iter().min_by_key(|(_, source)| (source.ports.len(), source.last)).map(|(key, _)| *key);
            least.map(|least| self.0.remove(&least));
        }
        let source = self.0.entry(key).or_insert_with(|| Source {
            first_ip: attempt.source,
            target: attempt.target,
            knock: attempt.knock,
            ports: Vec::new(),
            packets: 0,
            last: now,
            enough: None,
            told: None,
            told_ports: 0,
        });
        if now.saturating_duration_since(source.last) > FORGET_AFTER && source.told.is_none() {
            source.ports.clear();
            source.packets = 0;
        }
        source.last = now;
        source.packets += 1;
        if let Err(at) = source.ports.binary_search(&attempt.port)
            && source.ports.len() < PORTS_MAX
        {
            source.ports.insert(at, attempt.port);
            source.knock = attempt.knock;
        }
        if source.enough.is_none() && source.ports.len() >= source.told_ports + PORTS {
            source.enough = Some(now);
        }
    }

    /// Scans that are to be told now. `open` says which ports a source reached, so that a friend of many services is not
    /// taken for a scanner.
    pub fn due(&mut self, now: Instant, open: impl Fn(&Suspect<'_>) -> BTreeSet<u16>) -> Vec<Scan> {
        let since = |then: Instant| now.saturating_duration_since(then);
        self.0.retain(|_, source| since(source.last) <= if source.told.is_some() { AGAIN_AFTER } else { FORGET_AFTER });
        let mut found = Vec::new();
        for source in self.0.values_mut() {
            let Some(enough) = source.enough else { continue };
            let is_due = since(source.last) >= QUIET || since(enough) >= TELL_AFTER;
            if !is_due || source.told.is_some_and(|told| since(told) < AGAIN_AFTER) {
                continue;
            }
            source.enough = None;
            let open = open(&Suspect { ip: source.first_ip, ports: &source.ports });
            source.ports.retain(|port| !open.contains(port));
            if source.ports.len() < source.told_ports + PORTS {
                continue;
            }
            found.push(Scan {
                source: source.first_ip,
                target: source.target,
                knock: source.knock,
                ports: source.ports.clone(),
                packets: source.packets,
                goes_on: source.told.is_some(),
            });
            source.told = Some(now);
            source.told_ports = source.ports.len();
        }
        found
    }
}

/// Who is asked about.
#[derive(Debug)]
pub struct Suspect<'a> {
    pub ip: IpAddr,
    pub ports: &'a [u16],
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(source: &str, port: u16) -> Attempt {
        let target = "198.51.100.1".parse().unwrap();
        Attempt { source: source.parse().unwrap(), target, port, knock: Knock::Syn }
    }

    fn nothing_open(_: &Suspect<'_>) -> BTreeSet<u16> {
        BTreeSet::new()
    }

    #[test]
    fn a_scan_is_one_event_with_all_its_ports_within_ten_seconds() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let mut scans = Scans::default();
        (1..=100).for_each(|port| scans.saw(attempt("192.0.2.7", port), at(u64::from(port))));
        assert_eq!(scans.due(at(200), nothing_open), [], "it goes on");
        let found = scans.due(at(2_200), nothing_open);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].ports.len(), found[0].packets, found[0].goes_on), (100, 100, false));
        (101..=200).for_each(|port| scans.saw(attempt("192.0.2.7", port), at(3_000)));
        assert_eq!(scans.due(at(9_000), nothing_open), [], "told already");
        scans.saw(attempt("192.0.2.7", 9), at(590_000));
        let again = scans.due(at(603_000), nothing_open);
        assert_eq!((again.len(), again[0].ports.len(), again[0].goes_on), (1, 200, true));
        // One that never pauses is told all the same.
        let mut scans = Scans::default();
        (0..90u16).for_each(|i| scans.saw(attempt("192.0.2.8", 1_000 + i), at(u64::from(i) * 100)));
        assert_eq!(scans.due(at(9_000), nothing_open)[0].ports.len(), 90);
    }

    #[test]
    fn few_ports_open_ports_and_slow_strangers_are_no_scan() {
        let begin = Instant::now();
        let at = |s| begin + Duration::from_secs(s);
        let mut scans = Scans::default();
        for _ in 0..50 {
            (0..19).for_each(|port| scans.saw(attempt("192.0.2.7", port), at(0)));
        }
        assert_eq!(scans.due(at(10), nothing_open), [], "the same 19 ports again and again");
        (0..40).for_each(|port| scans.saw(attempt("192.0.2.8", port), at(10)));
        let reached = |suspect: &Suspect<'_>| suspect.ports.iter().copied().filter(|port| *port < 25).collect();
        assert_eq!(scans.due(at(20), reached), [], "most were open to it");
        (0..15).for_each(|i| scans.saw(attempt("192.0.2.9", i), at(u64::from(i) * 301)));
        (0..15).for_each(|i| scans.saw(attempt("192.0.2.9", 100 + i), at(5_000 + u64::from(i) * 301)));
        assert_eq!(scans.due(at(9_990), nothing_open), [], "one each five minutes");
    }

    #[test]
    fn invented_sources_neither_fill_the_memory_nor_hide_a_scanner() {
        let begin = Instant::now();
        let mut scans = Scans::default();
        for i in 0..20_000u32 {
            let invented = IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + i));
            scans.saw(Attempt { source: invented, ..attempt("192.0.2.7", 80) }, begin);
            if i % 100 == 0 {
                scans.saw(attempt("192.0.2.7", (i / 100) as u16), begin);
            }
        }
        assert_eq!(scans.0.len(), SOURCES_MAX);
        let found = scans.due(begin + QUIET, nothing_open);
        assert_eq!(
            found.iter().map(|scan| (scan.source, scan.ports.len())).collect::<Vec<_>>(),
            [("192.0.2.7".parse().unwrap(), 200)]
        );
        // All addresses of a network are one.
        for i in 0..50u16 {
            scans.saw(attempt(&format!("2001:db8:0:1::{i:x}"), 7_000 + i), begin);
        }
        (0..u16::MAX).for_each(|port| scans.saw(attempt("2001:db8:0:2::1", port), begin));
        let found = scans.due(begin + QUIET, nothing_open);
        assert_eq!(found.iter().map(|scan| scan.ports.len()).collect::<Vec<_>>(), [50, PORTS_MAX]);
    }
}
