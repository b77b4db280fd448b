//! What a scheduled rule cannot look at any more.

use super::{Key, Scheduler};
use crate::detections::{About, ScheduledRule};
use crate::metrics::labels;
use bytes::Bytes;
use model::{Alert, Event, EventId, InputKind, OrgId, Timestamp};
use storage::StorageResult;
use storage::catalog::schedules::ScheduleGap;
use storage::events::EventRange;

const DAY_MICROS: i64 = 86_400_000_000;
/// Stands for the host where there is none.
const NO_HOST: &str = "MUTT_Alerter";

/// Why events were missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Retention,
    Damage,
    Off,
}

impl Why {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Retention => "retention",
            Self::Damage => "damage",
            Self::Off => "off",
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Retention => "events of that time are no longer kept",
            Self::Damage => "a broken day of events was put aside",
            Self::Off => "the rule was not in force",
        }
    }
}

impl Scheduler {
    /// A gap, counted and said in the log.
    pub(super) fn gap(&self, key: &Key, first: Timestamp, through: Timestamp, why: Why) -> ScheduleGap {
        let gap = ScheduleGap { first, through, why: why.words().to_owned(), found_at: self.detector.clock.now() };
        self.detector.metrics.schedule_gaps.get_or_create(&labels([("why", why.as_str())])).inc();
        let (from, to) = (first.rfc3339(), through.rfc3339());
        match why {
            Why::Off => {
                tracing::info!(rule = &*key.1, org = %key.0, from, to, "a scheduled rule passes over events: {}", gap.why)
            }
            Why::Retention | Why::Damage => {
                tracing::error!(rule = &*key.1, org = %key.0, from, to, "a scheduled rule missed events: {}", gap.why);
            }
        }
        gap
    }

    /// The alert that tells of a gap.
    pub(super) fn told_of(&self, org: &OrgId, one: &ScheduledRule, gap: &ScheduleGap) -> Alert {
        let event = stand_in(org, EventId::new(gap.first, 0, 0), NO_HOST, gap.found_at);
        let about = About { event: &event, team: None, now: gap.found_at };
        let what = format!("accepted from {} to {}: {}", gap.first.rfc3339(), gap.through.rfc3339(), gap.why);
        self.detector.detections.missed(one.in_force(), &about, &what)
    }

    /// Up to when events after `from` were dropped by age, if they were.
    pub(super) async fn dropped_through(&self, org: &OrgId, from: Timestamp) -> StorageResult<Option<Timestamp>> {
        let policy = self.detector.live.get().retention.clone();
        let kept_from = self.detector.clock.now().minus(policy.events).micros();
        // Whole days go.
        let kept_from = Timestamp::from_micros(kept_from - kept_from.rem_euclid(DAY_MICROS));
        if !policy.enabled || policy.dry_run || from >= kept_from {
            return Ok(None);
        }
        let range = EventRange { from, to: kept_from, after: None, limit: 1 };
        // Rounds of retention are no clockwork: what is still there is looked at.
        let is_there = !self.detector.events.range(org, range).await?.is_empty();
        Ok((!is_there).then_some(kept_from))
    }
}

/// Stands for an event that is not there.
pub(super) fn stand_in(org: &OrgId, id: EventId, host: &str, now: Timestamp) -> Event {
    Event {
        id,
        org: org.clone(),
        input: InputKind::Internal,
        correlation_id: id.to_string(),
        host: host.to_owned(),
        message: String::new(),
        timestamp_text: String::new(),
        timestamp: now,
        severity: None,
        trap_oid: None,
        raw: Bytes::from_static(b"{}"),
    }
}
