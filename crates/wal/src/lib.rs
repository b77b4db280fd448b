//! A segmented, checksummed, bounded append log: the embedded queue of the control plane and the spool of the agent.
//!
//! # Limits
//!
//! * Records are numbered from 0 in a `u64`, in the order in which they were appended. A number is never given to two
//!   acknowledged records.
//! * A payload is at most `max_record_bytes`, a batch fits in one segment (`segment_bytes`): else
//!   [`WalError::TooLarge`].
//! * All segments together never exceed `max_bytes`: an append that does not fit is [`WalError::Full`], and works again
//!   after [`Wal::truncate_before`]. (A power cut can bring back what was removed but not yet synced away.)
//!   The folder `quarantine/` has at most two segments' worth besides.
//! * One process, one writer: the directory is locked. Any number of [`Reader`]s.
//! * [`Committer`] accepts at most `queue_bytes_max` and `queue_records_max`; more is [`WalError::Full`] at once.
//! * Opening reads and verifies everything there is (some GB a second from the page cache), so that damage is known at
//!   start-up rather than met later, and builds an index of one entry per 64 KiB.
//!
//! # On disk
//!
//! ```text
//! <dir>/lock                         locked while open
//! <dir>/00000000000000000000.wal     segments, named by the number of their first record
//! <dir>/00000000000000231345.wal
//! <dir>/quarantine/                  copies of damaged bytes, segments without a header, the last tail that was cut
//!
//! segment:  header (1024 bytes), records without padding
//! header:   48 bytes, and the same 48 bytes again at 512:
//!             magic "MUTTWAL\n" | version u32 = 1 | first_seq u64 | previous_end u64 | salt [16] | crc32c u32
//! record:   length u32 | crc32c u32 | sequence u64 ^ mask | payload
//! ```
//!
//! Integers are little-endian. `length` is that of the payload. The record's checksum is over everything else in it, and
//! starts from the checksum of the first half of the salt; `mask` is the second half. The salt is random for each
//! segment and never leaves the disk: payloads come from strangers, and one that holds the image of a record cannot be
//! taken for a record when damage forces a search, because its author knows neither seed nor mask.
//!
//! `previous_end` is where the records of the segment before end. It is below `first_seq` when the numbers between were
//! given to records that were refused.
//!
//! # What a crash does
//!
//! A segment is made under another name, synced, renamed, and its directory synced, before a record goes into it; and it
//! is synced before its successor is made. So only the last segment can end in a torn append.
//!
//! * *The last segment ends in bytes that are not a record, and no record follows:* a torn append. It is cut off (and
//!   kept in `quarantine/cut-tail.bad`).
//! * *Bad bytes anywhere else:* damage. They stay where they are, are copied to `quarantine/`, reported, and skipped by
//!   readers. The next record is the next one whose checksum and number both fit.
//! * *A segment with neither header readable:* it is moved to `quarantine/` whole. If it was the last, all the numbers
//!   that it can have used are given up.
//! * *A segment of a newer version:* opening fails, and nothing is touched.
//!
//! Damage never keeps the log from opening. A read *error* does: it may pass, and the cut of a tail must not depend on it.
//! What is found at opening is synced before anybody reads it, the directory too. The first append starts a segment: the
//! process before may have ended over a failed sync, so that what the old one shows is not what is on the disk, and no
//! acknowledged record must lie behind a hole.
//!
//! A bit that flips in the very last record of the log looks like a torn append. And what was read without having been
//! synced may be gone after a power cut. Either way a consumer's position can be beyond the end of the log:
//! [`Wal::advance_to`] it before the first append, or new records get numbers the consumer has passed.
//!
//! # What an error does
//!
//! * *A failed sync* seals the segment: the kernel may have dropped the pages and would report success next time, so
//!   that file is never synced again. What waited for the sync is refused. What had been published (acknowledged without
//!   a sync) stays readable but may not survive a power cut. The next append starts a segment, and says in it that the
//!   refused numbers are void.
//! * *A failed write* (no space, an I/O error, half a write) is cut off again and its numbers are used anew. If the cut
//!   fails, the segment is left: synced once for what it had, and the refused numbers are void.
//! * *Refused* means never visible to readers while the log is open, and never again once something has been appended
//!   after it. If the process ends between the two, the records may be found at the next opening: at least once, never
//!   a lost acknowledged one.
//!
//! Reading goes on through all of this, and writing works again as soon as the disk does.

mod committer;
mod error;
mod format;
mod fs;
mod reader;
mod recover;
mod segment;
mod shared;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
mod wal;

pub use committer::{Answers, Committer, CommitterConfig, Deliver, Done, Durability, OnCommit};
pub use error::{Limit, Result, WalError};
pub use fs::{Filesystem, LockGuard, LogFile, OsFilesystem};
pub use reader::{Batch, Reader, Record, SkipReason, Skipped};
pub use recover::{QuarantinedRecords, QuarantinedSegment, Recovery};
pub use shared::Stats;
pub use wal::{Config, Wal};
