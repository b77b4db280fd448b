//! The last things that came in and were not events, for people to look at.

use connectors::inputs::Reject;
use model::{InputKind, RejectReason, Timestamp};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One of them.
#[derive(Debug, Clone)]
pub struct RejectSample {
    pub at: Timestamp,
    pub input: InputKind,
    pub reason: RejectReason,
    pub detail: String,
    pub peer: Option<SocketAddr>,
    /// The beginning of the bytes, invalid UTF-8 replaced.
    pub sample: String,
}

/// A ring of the newest samples.
#[derive(Debug)]
pub struct RejectLog {
    ring: Mutex<VecDeque<RejectSample>>,
    samples_max: usize,
}

const SAMPLE_BYTES_MAX: usize = 1_024;
const DETAIL_BYTES_MAX: usize = 512;

impl RejectLog {
    pub fn new(samples_max: usize) -> Self {
        Self { ring: Mutex::new(VecDeque::with_capacity(samples_max)), samples_max }
    }

    fn ring(&self) -> MutexGuard<'_, VecDeque<RejectSample>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add(&self, reject: &Reject<'_>, at: Timestamp) {
        let sample = &reject.sample[..reject.sample.len().min(SAMPLE_BYTES_MAX)];
        let entry = RejectSample {
            at,
            input: reject.input,
            reason: reject.reason,
            detail: reject.detail.chars().take(DETAIL_BYTES_MAX).collect(),
            peer: reject.peer,
            sample: String::from_utf8_lossy(sample).into_owned(),
        };
        let mut ring = self.ring();
        if ring.len() >= self.samples_max {
            ring.pop_front();
        }
        ring.push_back(entry);
    }

    /// Newest first.
    pub fn newest(&self, limit: usize) -> Vec<RejectSample> {
        self.ring().iter().rev().take(limit).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_the_newest_and_a_bounded_part_of_each() {
        let log = RejectLog::new(3);
        for n in 0..5 {
            let sample = vec![b'x'; 5_000];
            let detail = format!("no {n}");
            let reject = Reject {
                input: InputKind::Http,
                reason: RejectReason::Malformed,
                detail: &detail,
                peer: None,
                sample: &sample,
            };
            log.add(&reject, Timestamp::from_secs(n));
        }
        let newest = log.newest(10);
        assert_eq!(newest.iter().map(|r| r.detail.as_str()).collect::<Vec<_>>(), ["no 4", "no 3", "no 2"]);
        assert_eq!(newest[0].sample.len(), SAMPLE_BYTES_MAX);
    }
}
