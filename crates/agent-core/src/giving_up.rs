//! What happens when the room for records is used: sources that can wait do; then the oldest records go, those that
//! matter least first, and every one is counted.

use std::collections::BTreeMap;
use wire::{Record, record};

/// Streams counted by name; what more there are is counted together.
const STREAMS_MAX: usize = 64;

/// How much of its room a spool has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    pub used_bytes: u64,
    pub max_bytes: u64,
}

impl Room {
    /// Whether a source that can be read again later (a file, a journal) is to be read now. The last fifth is for what
    /// cannot come again.
    pub fn has_for_readable(&self) -> bool {
        self.used_bytes < self.max_bytes / 5 * 4
    }

    /// Whether the oldest records have to go before `bytes` more can come.
    pub fn must_give_up(&self, bytes: u64) -> bool {
        self.used_bytes.saturating_add(bytes) > self.max_bytes
    }
}

/// Whether a record outlives its neighbours: what an analyst would ask for first.
pub fn is_critical(record: &Record) -> bool {
    let (stream, labels) = match &record.body {
        Some(record::Body::Log(log)) => (&log.stream, &log.labels),
        Some(record::Body::Metric(metric)) => (&metric.stream, &metric.labels),
        None => return false,
    };
    matches!(stream.as_str(), "security" | "mitigation") || labels.get("severity").is_some_and(|s| s == "critical")
}

/// Records given up, by stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dropped(BTreeMap<String, u64>);

impl Dropped {
    pub fn new(counts: BTreeMap<String, u64>) -> Self {
        Self(counts)
    }

    pub fn count(&mut self, stream: &str) {
        let is_known = self.0.contains_key(stream) || self.0.len() < STREAMS_MAX;
        let name = if is_known { stream } else { "other" };
        *self.0.entry(name.to_owned()).or_default() += 1;
    }

    pub fn by_stream(&self) -> &BTreeMap<String, u64> {
        &self.0
    }

    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_fifth_is_for_what_cannot_be_read_again() {
        let room = |used_bytes| Room { used_bytes, max_bytes: 1_000 };
        assert!(room(799).has_for_readable() && !room(800).has_for_readable());
        assert!(!room(900).must_give_up(100) && room(900).must_give_up(101) && room(1).must_give_up(u64::MAX));
    }

    #[test]
    fn streams_without_end_are_counted_together() {
        let mut dropped = Dropped::default();
        for i in 0..1_000 {
            dropped.count(&format!("s{i}"));
        }
        assert_eq!((dropped.total(), dropped.by_stream().len()), (1_000, STREAMS_MAX + 1));
        assert_eq!(dropped.by_stream()["other"], 936);
    }

    #[test]
    fn what_is_critical_says_so_or_is_about_security() {
        let log = |stream: &str, severity: &str| {
            let labels = BTreeMap::from([("severity".to_owned(), severity.to_owned())]);
            Record {
                body: Some(record::Body::Log(wire::LogEvent { stream: stream.into(), labels, ..Default::default() })),
            }
        };
        assert!(is_critical(&log("auth", "critical")) && is_critical(&log("security", "info")));
        assert!(!is_critical(&log("auth", "warning")) && !is_critical(&Record::default()));
    }
}
