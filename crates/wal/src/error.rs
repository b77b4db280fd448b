//! What can go wrong, as the caller can act upon it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

/// Which bound a [`WalError::Full`] ran into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// The files of the log: consume and `truncate_before`, or raise `max_bytes`.
    LogBytes(u64),
    /// Bytes waiting for the committer's thread: slow down and try again at once.
    QueueBytes(u64),
    /// Records waiting for the committer's thread: slow down and try again at once.
    QueueRecords(u64),
}

/// Why an operation of the log was refused. Cheap to clone: one failure answers many waiters.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum WalError {
    /// Nothing was written; the same append works once there is room.
    #[error("the log is full: {0:?}")]
    Full(Limit),
    /// The append can never work: a record, or a batch, is larger than configured.
    #[error("{bytes} bytes are more than the limit of {limit_bytes}")]
    TooLarge {
        /// What was asked for.
        bytes: u64,
        /// `max_record_bytes`, or what one segment (or the committer's queue) takes in one batch.
        limit_bytes: u64,
    },
    /// Another `Wal` (usually another process) has this directory open.
    #[error("{} is locked: another process has this log open", dir.display())]
    Locked {
        /// The directory of the log.
        dir: PathBuf,
    },
    /// The operating system refused. Records of the call are not acknowledged; a later call may work.
    #[error("failed to {op} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        op: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// A segment was written by a newer version of this crate. Nothing was touched.
    #[error("{} has format version {found}; this build reads up to {}", path.display(), crate::format::VERSION)]
    UnknownVersion {
        /// The segment.
        path: PathBuf,
        /// The version in its header.
        found: u32,
    },
    /// The configuration cannot work; the text says what to change.
    #[error("invalid log configuration: {0}")]
    Invalid(&'static str),
    /// The committer has been closed.
    #[error("the log is closed")]
    Closed,
}

impl WalError {
    pub(crate) fn io(op: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { op, path: path.to_path_buf(), source: Arc::new(source) }
    }

    /// Whether the disk had no room (as opposed to the configured bound, which is [`WalError::Full`]).
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}

/// The result of everything here.
pub type Result<T> = std::result::Result<T, WalError>;
