//! The event store: every event with all its fields, searchable, dropped by age.
//!
//! Promises of every driver (`contract.rs` checks them):
//! * `append` returning `Ok` means durable; appending an event again changes nothing.
//! * An event is found by its id at once, and by search within a second.
//! * An organisation's events are never visible to another.
//! * Events are kept by the day they were *accepted* (from the id, UTC), so a device with a wrong
//!   clock cannot create or resurrect partitions.
//!
//! To add a driver: a file beside this one, a variant in [`EventStoreConfig`], an arm in [`open`].

#[cfg(feature = "contract")]
pub mod contract;
mod several;
mod sqlite;

use crate::StorageResult;
use crate::sqlite::blocking;
use async_trait::async_trait;
use bytes::Bytes;
use model::{EventId, InputKind, OrgId, RuleId, Severity, Timestamp};
use std::path::PathBuf;
use std::sync::Arc;

/// An event as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    pub id: EventId,
    pub org: OrgId,
    pub input: InputKind,
    pub host: String,
    /// The sender's time.
    pub timestamp: Timestamp,
    pub severity: Option<Severity>,
    /// The rule that matched; `None` = unhandled.
    pub rule_id: Option<RuleId>,
    /// The JSON object as queued: all fields.
    pub raw: Bytes,
}

/// What to look for; all given conditions must hold. Times are of acceptance, both included.
#[derive(Debug, Clone, Default)]
pub struct EventQuery {
    pub from: Option<Timestamp>,
    pub to: Option<Timestamp>,
    pub host: Option<String>,
    /// Case-insensitive substring of the `message` field.
    pub text: Option<String>,
    /// This severity or worse.
    pub severity_at_most: Option<Severity>,
    pub rule_id: Option<RuleId>,
    /// Only events older than this id: the next page.
    pub before: Option<EventId>,
    /// At most this many, newest first; capped at 1,000.
    pub limit: usize,
}

/// A stretch of acceptance, read oldest first in pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventRange {
    pub from: Timestamp,
    /// Events accepted at this time or later are not of it.
    pub to: Timestamp,
    /// Only events behind this one, the last of the page before; if it is not there, those of later
    /// milliseconds.
    pub after: Option<EventId>,
    /// At most this many; capped at 1,000.
    pub limit: usize,
}

/// A stretch of acceptance of which events may be missing, because a broken partition was put aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    pub from: Timestamp,
    pub to: Timestamp,
}

/// Rows of one search, or of one page of a range, at most.
const SEARCH_ROWS_MAX: usize = 1_000;
/// A page of a range ends with the event that makes its JSON this long.
const RANGE_BYTES_MAX: usize = 8 << 20;

/// Events of one minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinuteCount {
    pub minute: Timestamp,
    pub events: u64,
    pub handled: u64,
}

#[async_trait]
pub trait EventStore: Send + Sync + 'static {
    /// Stores the batch durably; events stored before are left as they are. Returns how many were new.
    async fn append(&self, batch: Vec<StoredEvent>) -> StorageResult<usize>;

    async fn get(&self, org: &OrgId, id: EventId) -> StorageResult<Option<StoredEvent>>;

    /// Newest first, by the millisecond of acceptance; within one millisecond in an order that stays.
    async fn search(&self, org: &OrgId, query: &EventQuery) -> StorageResult<Vec<StoredEvent>>;

    /// The next page of a range, oldest first by the millisecond of acceptance; within one millisecond in
    /// an order that stays. Only the end is an empty page: others may be shorter than asked for.
    async fn range(&self, org: &OrgId, range: EventRange) -> StorageResult<Vec<StoredEvent>>;

    /// What may be missing between `from` and before `to`, by day, oldest first: events that were
    /// accepted before a partition of them was found broken.
    async fn damages(&self, org: &OrgId, from: Timestamp, to: Timestamp) -> StorageResult<Vec<Damage>>;

    /// Counts by minute of acceptance, from the minute of `from` to before `to`, oldest first, minutes
    /// without events left out.
    async fn per_minute(&self, org: &OrgId, from: Timestamp, to: Timestamp) -> StorageResult<Vec<MinuteCount>>;

    /// Organisations of which events are kept, in order.
    async fn orgs(&self) -> StorageResult<Vec<OrgId>>;

    /// Number of events kept of an organisation.
    async fn count(&self, org: &OrgId) -> StorageResult<u64>;

    /// Drops whole days before the day of `keep_from`; returns how many partitions went.
    async fn drop_before(&self, keep_from: Timestamp) -> StorageResult<usize>;

    /// How many partitions [`Self::drop_before`] of their owner would drop.
    async fn days_before(&self, keep_from: Timestamp) -> StorageResult<usize>;

    /// How many broken partitions were put aside since the start, for a counter that an operator
    /// watches.
    fn partitions_put_aside(&self) -> u64 {
        0
    }
}

/// Which driver keeps the events.
#[derive(Debug, Clone)]
pub enum EventStoreConfig {
    /// `dir/<org>/<YYYY-MM-DD>.db`, one SQLite file per organisation and day.
    Sqlite {
        dir: PathBuf,
        /// Folders of other processes' stores, to read: `*` stands for any part of a name.
        read_also: Vec<String>,
    },
}

/// Opens the store to look at what a running server writes: nothing can be appended.
pub fn open_to_read(config: EventStoreConfig) -> Arc<dyn EventStore> {
    match config {
        EventStoreConfig::Sqlite { dir, read_also: _ } => Arc::new(sqlite::SqliteEvents::of_another(dir)),
    }
}

pub async fn open(config: EventStoreConfig) -> StorageResult<Arc<dyn EventStore>> {
    match config {
        EventStoreConfig::Sqlite { dir, read_also } => {
            let own_dir = dir.clone();
            let own = blocking(move || sqlite::SqliteEvents::open(dir)).await?;
            if read_also.is_empty() {
                return Ok(Arc::new(own));
            }
            Ok(Arc::new(several::Several::new(own, own_dir, read_also)?))
        }
    }
}
