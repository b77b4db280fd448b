//! What a record of the spool's log holds.

use agent_core::Sent;
use prost::Message;
use std::sync::Arc;
use wire::Record;

/// Something that a collector saw, and where its source stands after it. Both are kept by one write, so a source is
/// never read again from before a record that is kept, nor from behind one that is not.
#[derive(Debug, Clone, Default)]
pub struct Observation {
    /// Names the source: `file:/var/log/syslog`. Order is kept within it.
    pub source: Arc<str>,
    /// Where to go on; in the collector's own words. `None`: the source has no place to come back to.
    pub bookmark: Option<String>,
    /// `None`: the source moved on and there is nothing to tell.
    pub record: Option<Record>,
}

impl Observation {
    /// About what it takes in memory and on disk.
    pub fn bytes(&self) -> usize {
        let record = self.record.as_ref().map_or(0, Message::encoded_len);
        record + self.source.len() + self.bookmark.as_ref().map_or(0, String::len) + 24
    }
}

/// On disk. Numbers are for ever.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Entry {
    #[prost(string, tag = "1")]
    pub source: String,
    #[prost(string, optional, tag = "2")]
    pub bookmark: Option<String>,
    #[prost(message, optional, tag = "3")]
    pub record: Option<Record>,
    #[prost(message, optional, tag = "4")]
    pub mark: Option<Mark>,
    /// Which of the entries of its write it is, from 0. A machine that dies in the middle of a write can leave any of
    /// them; only those in front of the first that is missing count.
    #[prost(uint32, tag = "5")]
    pub place: u32,
    /// When it was written; 0 from versions that did not say.
    #[prost(int64, tag = "6")]
    pub spooled_unix_ms: i64,
}

/// Records first to through are being sent.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct Mark {
    #[prost(uint64, tag = "1")]
    pub first_seq: u64,
    #[prost(uint64, tag = "2")]
    pub through_seq: u64,
    #[prost(int64, tag = "3")]
    pub sent_unix_ms: i64,
}

impl From<Sent> for Mark {
    fn from(sent: Sent) -> Self {
        Self { first_seq: sent.first_seq, through_seq: sent.through_seq, sent_unix_ms: sent.sent_unix_ms }
    }
}

impl From<Mark> for Sent {
    fn from(mark: Mark) -> Self {
        Self { first_seq: mark.first_seq, through_seq: mark.through_seq, sent_unix_ms: mark.sent_unix_ms }
    }
}

pub(super) fn encode(observation: &Observation, place: usize, spooled_unix_ms: i64) -> Vec<u8> {
    let entry = Entry {
        source: observation.source.to_string(),
        bookmark: observation.bookmark.clone(),
        record: observation.record.clone(),
        mark: None,
        place: place_number(place),
        spooled_unix_ms,
    };
    entry.encode_to_vec()
}

pub(super) fn encode_mark(sent: Sent, place: usize) -> Vec<u8> {
    Entry { mark: Some(sent.into()), place: place_number(place), ..Entry::default() }.encode_to_vec()
}

fn place_number(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

/// `None`: of a version that this build cannot read. Damage the log itself finds.
pub(super) fn decode(payload: &[u8]) -> Option<Entry> {
    Entry::decode(payload).ok()
}
