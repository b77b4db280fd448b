//! Scheduled rules: how far each came in the events of an organisation, its runs, and the gaps: what it
//! could not look at.
//!
//! A rule's place moves only from where the caller knows it to be, so of two processes that run one rule
//! at a time one is refused; and with the gaps that were found on the way, so that none is forgotten.

use super::fields::check_text;
use crate::{StorageError, StorageResult};
use async_trait::async_trait;
use model::{ErrorKind, OrgId, Timestamp};
use std::time::Duration;

/// Runs and gaps of a rule that are kept; the oldest go.
pub const RUNS_KEPT: u32 = 100;
pub const GAPS_KEPT: u32 = 1_000;
/// Longest identifier of a rule, in characters.
pub const SCHEDULE_UID_MAX: usize = 255;
/// Of an error or a reason, so many characters are kept.
pub(super) const TEXT_CHARS_MAX: usize = 1_000;

/// How far a rule came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    pub org: OrgId,
    /// The rule's identifier.
    pub uid: String,
    /// It looks at no event that was accepted before.
    pub begun: Timestamp,
    /// It has looked at everything that was accepted before.
    pub through: Timestamp,
    /// Of a correlation: what happened before was judged.
    pub judged: Timestamp,
    /// Since when it is not in force any more.
    pub off_since: Option<Timestamp>,
    /// Runs that failed since the last one that did not.
    pub failures: u32,
    /// Why the last of those failed, and when.
    pub error: Option<(String, Timestamp)>,
    /// The newest run that came further.
    pub last_run: Option<ScheduleRun>,
    /// Gaps that were found, all time.
    pub gaps: u64,
}

/// A run that came further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleRun {
    pub started_at: Timestamp,
    /// What it looked at, by acceptance.
    pub first: Timestamp,
    pub through: Timestamp,
    /// To the millisecond.
    pub took: Duration,
    pub events: u64,
    pub matches: u64,
    /// Events that came too late, or were dated in the future, and were not correlated.
    pub late: u64,
}

/// A stretch of acceptance that a rule could not look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleGap {
    pub first: Timestamp,
    pub through: Timestamp,
    pub why: String,
    pub found_at: Timestamp,
}

/// A step of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advance {
    /// Where it has to be now.
    pub expected: Timestamp,
    pub through: Timestamp,
    pub judged: Timestamp,
    /// It begins anew here.
    pub begun: Option<Timestamp>,
    /// The run so far; it replaces what was written of it before.
    pub run: Option<ScheduleRun>,
    /// What was missing; a gap that is known already stays as it is.
    pub gaps: Vec<ScheduleGap>,
}

#[async_trait]
pub trait ScheduleStore: Send + Sync {
    /// All, by organisation and rule.
    async fn all_schedules(&self) -> StorageResult<Vec<Schedule>>;
    async fn schedule(&self, org: &OrgId, uid: &str) -> StorageResult<Option<Schedule>>;
    /// The rule's place; one that has none gets this one.
    async fn begin_schedule(&self, org: &OrgId, uid: &str, at: Timestamp) -> StorageResult<Schedule>;
    /// Moves it, and what failed before is over. `Conflict` where it is not where it was expected: nothing
    /// changes then.
    async fn advance_schedule(&self, org: &OrgId, uid: &str, step: Advance) -> StorageResult<()>;
    /// Notes that a run failed.
    async fn fail_schedule(&self, org: &OrgId, uid: &str, error: &str, at: Timestamp) -> StorageResult<()>;
    /// Notes that it is not in force any more; the first such note stays until it moves again.
    async fn stop_schedule(&self, org: &OrgId, uid: &str, at: Timestamp) -> StorageResult<()>;
    /// Newest first.
    async fn schedule_runs(&self, org: &OrgId, uid: &str) -> StorageResult<Vec<ScheduleRun>>;
    /// Newest first.
    async fn schedule_gaps(&self, org: &OrgId, uid: &str) -> StorageResult<Vec<ScheduleGap>>;
}

pub(super) fn check_uid(uid: &str) -> StorageResult<()> {
    check_text("the rule's identifier", uid, SCHEDULE_UID_MAX)
}

pub(super) fn moved_meanwhile() -> StorageError {
    StorageError::new(ErrorKind::Conflict, "another process has run this rule meanwhile")
}

/// A text for people, cut, without what a database cannot hold.
pub(super) fn kept_text(text: &str) -> String {
    text.chars().filter(|c| *c != '\0').take(TEXT_CHARS_MAX).collect()
}

pub(super) fn millis(took: Duration) -> i64 {
    i64::try_from(took.as_millis()).unwrap_or(i64::MAX)
}
