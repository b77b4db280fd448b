//! What the catalog holds by age: what a round of retention would take, and what lies where. Nothing
//! here changes anything; [`AuditStore`](super::AuditStore) does.

use crate::StorageResult;
use async_trait::async_trait;
use model::Timestamp;

/// Counts stop here, so that counting ends in bounded time: this number means "so many or more".
pub const COUNT_MAX: u64 = 10_000_000;

/// Everything accepted, or changed, before these times may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cutoffs {
    /// Audit rows of events, settled alerts and closed incidents.
    pub events: Timestamp,
    /// Archived audit rows of events.
    pub archive: Timestamp,
    /// Audit rows of changes, and silences that are over.
    pub changes: Timestamp,
}

/// Rows that a round would take now, each at most [`COUNT_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outdated {
    /// Audit rows of events; they go into the archive where there is one.
    pub events: u64,
    /// Rows that leave the archive for good; `None` for a driver without an archive.
    pub archived: Option<u64>,
    pub alerts: u64,
    /// Closed incidents, and silences that are over.
    pub incidents: u64,
    pub changes: u64,
}

/// What lies where.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holdings {
    /// Audit rows of events in the log, at most [`COUNT_MAX`].
    pub events: u64,
    /// `None` for a driver without an archive.
    pub archive: Option<Archive>,
    /// The log's partitions, the oldest first; none where the driver has none.
    pub partitions: Vec<Partition>,
}

/// The archive of audit rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Archive {
    /// At most [`COUNT_MAX`].
    pub rows: u64,
    pub oldest_event: Option<Timestamp>,
    pub newest_event: Option<Timestamp>,
    pub bytes: u64,
}

/// A part of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    pub name: String,
    /// First day and the day after the last; `None` for the partition that takes the rest.
    pub days: Option<(String, String)>,
    pub rows: u64,
    pub bytes: u64,
}

#[async_trait]
pub trait RetentionStore: Send + Sync {
    /// Counts what is older than `before`.
    async fn outdated(&self, before: Cutoffs) -> StorageResult<Outdated>;
    async fn holdings(&self) -> StorageResult<Holdings>;
}
