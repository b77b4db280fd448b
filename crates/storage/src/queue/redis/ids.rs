//! Ids for records that other programs push: given by the script that hands a record to a worker, so
//! that every delivery of it, to whomever, carries the same one.

use super::ForeignIds;
use model::{EventId, Timestamp};
use redis::ScriptInvocation;

/// Characters of an id's text that its counter does not touch: prefix, time and most of the run.
const FRONT_CHARS: usize = "evt_".len() + 16;
/// More than any list of a worker holds.
const LOST_MAX: u64 = 1 << 20;

impl ForeignIds {
    /// Whether a record has an id, given to it or its own.
    pub fn are_in(&self, record: &[u8]) -> bool {
        let from = record.len().saturating_sub(self.ours_within_bytes);
        let ours = record[from..].windows(self.ours.len()).position(|window| window == self.ours.as_bytes());
        let is_ours = ours.is_some_and(|at| {
            let rest = &record[from + at..];
            rest.iter().position(|byte| *byte == b'}') == rest.len().checked_sub(self.closing)
        });
        is_ours
            || record
                .strip_prefix(b"{\"")
                .and_then(|r| r.strip_prefix(self.key.as_bytes()))
                .is_some_and(|r| r.starts_with(b"\":\""))
    }
}

/// Ids that one worker hands to the scripts; none is handed out twice.
#[derive(Debug)]
pub struct Ids {
    run: u32,
    next: u64,
}

impl Default for Ids {
    fn default() -> Self {
        Self { run: fastrand::u32(..), next: 0 }
    }
}

impl Ids {
    /// Gives a script what `ids_from` reads. Until [`Self::used`] says more, all of these may be used.
    pub fn add_to(&mut self, call: &mut ScriptInvocation<'_>, foreign: &ForeignIds, now: Timestamp) {
        let front = EventId::new(now, self.run, 0).to_string();
        // What the front leaves are ten digits of five bits: two of the run, 48 of the counter.
        let number = (u64::from(self.run & 3) << 48) | self.next;
        call.arg(foreign.key).arg(foreign.ours).arg(foreign.ours_within_bytes).arg(foreign.closing);
        call.arg(&front[..FRONT_CHARS]).arg(number);
        self.next += LOST_MAX;
    }

    /// So many of the last call's were used.
    pub fn used(&mut self, count: u64) {
        self.next = self.next - LOST_MAX + count;
    }
}
