//! Retention: drops what is older than it has to be, in small steps.
//!
//! What always holds:
//! * A round begins with the settings of that moment, live ones over configured ones. Where they cannot
//!   be read, or one of them cannot be used, nothing is deleted.
//! * Every step asks again: whoever switches retention off, or makes something be kept for longer, need
//!   not wait for the end of a round.
//! * The start says what rounds will do, long before the first one.
//! * What leaves the log goes into the archive first, where there is one.

use anyhow::{Context, Result, anyhow};
use model::Timestamp;
use pipeline::metrics::{Metrics, labels};
use pipeline::{Live, RetentionPolicy};
use runtime::backoff::Backoff;
use runtime::{Clock, Stop};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use storage::catalog::retention::{COUNT_MAX, Cutoffs};
use storage::catalog::{Catalog, Purged};
use storage::coordination::Coordination;
use storage::events::EventStore;

const ROUND_EVERY: Duration = Duration::from_secs(3_600);
const AGAIN_FIRST: Duration = Duration::from_secs(60);
/// Rows of each kind that one step takes at most.
const STEP_ROWS: u64 = 10_000;
/// The stores' rest between two steps.
const REST: Duration = Duration::from_millis(100);
const DAY_SECS: u64 = 86_400;

/// What rounds work on.
#[derive(Clone)]
pub struct Retention {
    pub catalog: Arc<dyn Catalog>,
    pub events: Arc<dyn EventStore>,
    pub coordination: Arc<dyn Coordination>,
    pub live: Live,
    pub metrics: Arc<Metrics>,
    pub clock: Arc<dyn Clock>,
}

/// What a round did, or would do. Counts of a round that would are at most [`COUNT_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Report {
    /// Files of events, one a day.
    pub event_days: u64,
    /// Audit rows of events that move into the archive.
    pub archived: u64,
    /// Archived audit rows that are deleted.
    pub archive_deleted: u64,
    /// Audit rows of events that are deleted without an archive.
    pub events_deleted: u64,
    pub alerts_deleted: u64,
    /// Closed incidents, and silences that are over.
    pub incidents_deleted: u64,
    pub config_audit_deleted: u64,
}

/// Whole days of an age.
pub fn days(age: Duration) -> u64 {
    age.as_secs() / DAY_SECS
}

/// In one line for people.
pub fn described(policy: &RetentionPolicy) -> String {
    let what = match (policy.enabled, policy.dry_run) {
        (false, _) => "off: nothing is deleted for its age",
        (true, true) => "a dry run: rounds only say what they would delete",
        (true, false) => "on: what is older is deleted",
    };
    format!(
        "retention is {what}. Kept: events, audit rows and settled alerts {} days, the archive {} years, the audit of \
         changes {} days",
        days(policy.events),
        days(policy.archive) / 365,
        days(policy.config_audit)
    )
}

impl Report {
    /// In one line for the log.
    fn told(&self) -> String {
        let count = |n: u64| if n == COUNT_MAX { format!("{n} or more") } else { n.to_string() };
        format!(
            "{} day(s) of events, {} audit rows into the archive, {} out of it, {} audit rows, {} alerts, {} \
             incidents and silences, {} audit rows of changes",
            self.event_days,
            count(self.archived),
            count(self.archive_deleted),
            count(self.events_deleted),
            count(self.alerts_deleted),
            count(self.incidents_deleted),
            count(self.config_audit_deleted),
        )
    }
}

impl Retention {
    /// A round `first_after` the start, then hourly; sooner after one that failed.
    pub async fn run(self, first_after: Duration, stop: Stop) {
        match self.policy().await {
            Ok(policy) => {
                let first_round_in_s = first_after.as_secs();
                tracing::info!(first_round_in_s, "{}", described(&policy));
                self.show(&policy);
            }
            Err(error) => tracing::warn!("retention deletes nothing for now: {error:#}"),
        }
        let backoff = Backoff::new(AGAIN_FIRST, ROUND_EVERY);
        let mut failures = 0;
        let mut wait = first_after;
        while stop.sleep(wait).await {
            match self.round(&stop).await {
                Ok(()) => {
                    failures = 0;
                    wait = ROUND_EVERY;
                }
                Err(error) => {
                    failures += 1;
                    wait = backoff.delay(failures);
                    let wait_s = wait.as_secs();
                    tracing::warn!(
                        "what is older than it has to be could not be dropped; trying again in {wait_s} s: {error:#}"
                    );
                }
            }
        }
    }

    /// One round, as the settings of now say; shown in the metrics.
    pub async fn round(&self, stop: &Stop) -> Result<()> {
        let started = tokio::time::Instant::now();
        let done = self.as_set(stop).await;
        self.metrics.retention_enforcement_duration.observe(started.elapsed().as_secs_f64());
        match done {
            Ok(true) => {
                self.metrics.retention_last_run.set(self.clock.now().secs());
                self.metrics.retention_cleanup_last_run.set(self.clock.now().secs());
                Ok(())
            }
            Ok(false) => Ok(()),
            Err(error) => {
                self.metrics.retention_errors.inc();
                Err(error)
            }
        }
    }

    /// Whether it ran; off is not a run.
    async fn as_set(&self, stop: &Stop) -> Result<bool> {
        let policy = self.policy().await?;
        self.show(&policy);
        if !policy.enabled {
            return Ok(false);
        }
        if policy.dry_run {
            let report = self.outlook(&policy).await?;
            tracing::info!("retention, dry run: a round would drop {}; nothing was changed", report.told());
            return Ok(true);
        }
        let report = self.enforce(&policy, stop).await?;
        if report != Report::default() {
            tracing::info!("retention dropped {}", report.told());
        }
        Ok(true)
    }

    /// What is kept now: live settings over configured ones. An error means that nobody knows, and so
    /// that nothing may be deleted.
    pub async fn policy(&self) -> Result<RetentionPolicy> {
        let shared = self.coordination.settings().await.context("the live settings cannot be read")?;
        let policy = self.live.retention(&shared).map_err(|problem| anyhow!("live setting {problem}"))?;
        Ok(policy)
    }

    /// What a round would do now.
    pub async fn outlook(&self, policy: &RetentionPolicy) -> Result<Report> {
        let before = self.cutoffs(policy);
        let outdated = self.catalog.outdated(before).await?;
        let event_days = self.events.days_before(before.events).await? as u64;
        // What is archived now and older than the archive keeps leaves it in the same round.
        let (archived, events_deleted) = match outdated.archived {
            Some(_) => (outdated.events, 0),
            None => (0, outdated.events),
        };
        Ok(Report {
            event_days,
            archived,
            archive_deleted: outdated.archived.unwrap_or(0),
            events_deleted,
            alerts_deleted: outdated.alerts,
            incidents_deleted: outdated.incidents,
            config_audit_deleted: outdated.changes,
        })
    }

    /// Archives and deletes what `policy` does not keep, until there is nothing left, `stop`, or
    /// settings that say otherwise.
    pub async fn enforce(&self, policy: &RetentionPolicy, stop: &Stop) -> Result<Report> {
        let before = self.cutoffs(policy);
        let mut report =
            Report { event_days: self.events.drop_before(before.events).await? as u64, ..Report::default() };
        self.count("event_days", report.event_days);
        loop {
            let archived = self.catalog.archive(before.events, STEP_ROWS).await?;
            let gone = self.catalog.purge_archive(before.archive, STEP_ROWS).await?;
            if archived == 0 && gone == 0 {
                break;
            }
            self.metrics.retention_events_archived.inc_by(archived);
            self.metrics.retention_events_deleted.inc_by(gone);
            self.count("archived_events", gone);
            report.archived += archived;
            report.archive_deleted += gone;
            if !self.may_go_on(policy, stop).await? {
                return Ok(report);
            }
        }
        loop {
            let purged = self.catalog.purge(before.events, before.changes, STEP_ROWS).await?;
            if purged == Purged::default() {
                return Ok(report);
            }
            self.metrics.retention_events_deleted.inc_by(purged.events);
            self.metrics.retention_config_audits_deleted.inc_by(purged.changes);
            self.count("events", purged.events);
            self.count("alerts", purged.alerts);
            self.count("incidents", purged.incidents);
            self.count("config_audit", purged.changes);
            report.events_deleted += purged.events;
            report.alerts_deleted += purged.alerts;
            report.incidents_deleted += purged.incidents;
            report.config_audit_deleted += purged.changes;
            if !self.may_go_on(policy, stop).await? {
                return Ok(report);
            }
        }
    }

    async fn may_go_on(&self, policy: &RetentionPolicy, stop: &Stop) -> Result<bool> {
        if !stop.sleep(REST).await {
            return Ok(false);
        }
        let is_same = self.policy().await? == *policy;
        if !is_same {
            tracing::info!("the settings of retention changed; this round ends here");
        }
        Ok(is_same)
    }

    fn cutoffs(&self, policy: &RetentionPolicy) -> Cutoffs {
        let now: Timestamp = self.clock.now();
        Cutoffs {
            events: now.minus(policy.events),
            archive: now.minus(policy.archive),
            changes: now.minus(policy.config_audit),
        }
    }

    fn count(&self, kind: &'static str, n: u64) {
        if n > 0 {
            self.metrics.retention_cleanup_records_deleted.get_or_create(&labels([("type", kind)])).inc_by(n);
        }
    }

    fn show(&self, policy: &RetentionPolicy) {
        self.metrics.retention_enabled.set(i64::from(policy.enabled));
        for (kind, age) in
            [("events", policy.events), ("archive", policy.archive), ("config_audit", policy.config_audit)]
        {
            let days = i64::try_from(days(age)).unwrap_or(i64::MAX);
            self.metrics.retention_policy_days.get_or_create(&labels([("type", kind)])).set(days);
        }
    }
}
