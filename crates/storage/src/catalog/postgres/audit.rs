//! The two audit logs, their partitions and their retention.

use super::alerts::Known;
use super::pool::Access;
use super::values::{Key, Time, compact, fit, int4, no_nul};
use super::{Change, Conditions, PostgresCatalog};
use crate::StorageResult;
use crate::catalog::fields::{check_operation, first_id_at, like_substring};
use crate::catalog::{
    Actor, AuditEntry, AuditFilter, AuditRow, AuditStore, ConfigChange, ConfigChangeFilter, Page, PageRequest, Purged,
};
use async_trait::async_trait;
use bytes::Bytes;
use model::{AlertState, EventId, OrgId, RuleId, Timestamp};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const EVENT_COLUMNS: &str = "id, event_id, event_timestamp, hostname, matched_rule_id::int8, handling_decision, \
                             forwarded_to_moog, raw_message";
const CHANGE_COLUMNS: &str = "id, changed_at, changed_by, operation, table_name, record_id::int8, old_values::text, \
                              new_values::text, reason, correlation_id";

/// Characters of a hostname and of a decision in the contract's columns.
pub(super) const HOST_CHARS: usize = 255;
const DECISION_CHARS: usize = 100;
/// Rows and bytes of one INSERT at most.
const CHUNK_ROWS: usize = 5_000;
const CHUNK_BYTES: usize = 16 << 20;

#[async_trait]
impl AuditStore for PostgresCatalog {
    async fn audit_log(&self, org: &OrgId, filter: &AuditFilter, page: PageRequest) -> StorageResult<Page<AuditRow>> {
        let mut conditions = Conditions::of(org)?;
        conditions.add("hostname = $$", filter.hostname.as_deref().map(|host| fit(host, HOST_CHARS)))?;
        conditions.add("matched_rule_id = $$", filter.rule_id)?;
        match filter.event_id {
            Some(id) if id.run() == FOREIGN_RUN => {
                conditions.add("event_id IS NULL AND id = $$", i64::try_from(id.counter()).ok())?;
            }
            id => conditions.add("event_id = $$", id.map(|id| Key(id.to_u128())))?,
        }
        conditions.add_range("event_timestamp", filter.from, filter.to)?;
        let (org, after) = (org.clone(), filter.after);
        self.pool
            .run_list(move |c| {
                Box::pin(async move {
                    let total = if conditions.unfiltered {
                        counted(c, &org).await?
                    } else {
                        conditions.count(c, "event_audit_log").await?
                    };
                    let table = ("event_audit_log", EVENT_COLUMNS, "event_timestamp");
                    let (rows, next) = conditions.page_after(c, table, page, after).await?;
                    Ok(Page { rows: rows.iter().map(audit_row_of).collect::<sqlx::Result<_>>()?, total, next })
                })
            })
            .await
    }

    async fn config_changes(
        &self,
        org: &OrgId,
        filter: &ConfigChangeFilter,
        page: PageRequest,
    ) -> StorageResult<Page<ConfigChange>> {
        let pattern = filter.changed_by.as_deref().map(|by| like_substring(&no_nul(by)));
        let mut conditions = Conditions::of(org)?;
        conditions.add(r"changed_by ILIKE $$ ESCAPE '\'", pattern)?;
        conditions.add("operation = $$", filter.operation.as_deref().map(no_nul))?;
        conditions.add("table_name = $$", filter.table_name.as_deref().map(no_nul))?;
        conditions.add("record_id = $$", filter.record_id)?;
        conditions.add_range("changed_at", filter.from, filter.to)?;
        let after = filter.after;
        self.pool
            .run_list(move |c| {
                Box::pin(async move {
                    let total = conditions.count(c, "config_audit_log").await?;
                    let table = ("config_audit_log", CHANGE_COLUMNS, "changed_at");
                    let (rows, next) = conditions.page_after(c, table, page, after).await?;
                    Ok(Page { rows: rows.iter().map(change_of).collect::<sqlx::Result<_>>()?, total, next })
                })
            })
            .await
    }

    async fn record_config_change(&self, org: &OrgId, change: ConfigChange) -> StorageResult<()> {
        check_operation(&change.operation)?;
        let org = org.clone();
        self.pool
            .run(Access::Write, move |c| {
                Box::pin(async move {
                    let by = Actor {
                        name: change.changed_by,
                        reason: change.reason,
                        correlation_id: change.correlation_id.unwrap_or_default(),
                        at: change.changed_at,
                    };
                    let row = Change {
                        table: &change.table_name,
                        record_id: change.record_id,
                        old: change.old_values,
                        new: change.new_values,
                        org: &org,
                        by: &by,
                    };
                    row.write_as(&change.operation, c).await
                })
            })
            .await
    }

    async fn purge(&self, events_before: Timestamp, changes_before: Timestamp, limit: u64) -> StorageResult<Purged> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let purged = self
            .pool
            .run(Access::Write, move |c| {
                Box::pin(async move {
                    let events = archive_events(c, events_before, limit).await?;
                    let alerts = sqlx::query(
                        "DELETE FROM alerts WHERE id IN \
                         (SELECT id FROM alerts WHERE id < $1 AND state <> $2 ORDER BY id LIMIT $3)",
                    )
                    .bind(Key(first_id_at(events_before)))
                    .bind(AlertState::Pending.as_str())
                    .bind(limit)
                    .execute(&mut *c)
                    .await?
                    .rows_affected();
                    let changes = sqlx::query(
                        "DELETE FROM config_audit_log WHERE id IN \
                         (SELECT id FROM config_audit_log WHERE changed_at < $1 ORDER BY changed_at LIMIT $2)",
                    )
                    .bind(Time(changes_before))
                    .bind(limit)
                    .execute(&mut *c)
                    .await?
                    .rows_affected();
                    let incidents = sqlx::query(
                        "DELETE FROM muttd_incidents WHERE id IN (SELECT id FROM muttd_incidents \
                         WHERE status IN ('RESOLVED', 'DISMISSED') AND last_seen < $1 ORDER BY last_seen LIMIT $2)",
                    )
                    .bind(Time(events_before))
                    .bind(limit)
                    .execute(&mut *c)
                    .await?
                    .rows_affected();
                    let silences = sqlx::query(
                        "DELETE FROM muttd_silences WHERE id IN (SELECT id FROM muttd_silences \
                         WHERE least(ends_at, ended_at) < $1 LIMIT $2)",
                    )
                    .bind(Time(changes_before))
                    .bind(limit)
                    .execute(&mut *c)
                    .await?
                    .rows_affected();
                    Ok(Purged { events, alerts, incidents: incidents + silences, changes })
                })
            })
            .await?;
        if purged == Purged::default() {
            self.keep_partitions().await;
            self.drop_empty_partitions(events_before).await;
        }
        Ok(purged)
    }

    async fn archive(&self, before: Timestamp, limit: u64) -> StorageResult<u64> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.pool.run(Access::Write, move |c| Box::pin(async move { archive_events(c, before, limit).await })).await
    }

    async fn purge_archive(&self, before: Timestamp, limit: u64) -> StorageResult<u64> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.pool
            .run(Access::Write, move |c| {
                Box::pin(async move {
                    let gone: i64 = sqlx::query_scalar("SELECT muttd_purge_archive($1, $2)")
                        .bind(Time(before))
                        .bind(limit)
                        .fetch_one(c)
                        .await?;
                    Ok(u64::try_from(gone).unwrap_or(0))
                })
            })
            .await
    }
}

/// The only way out of the log: what another program wrote a moment ago with the timestamp of a wrong
/// clock is never deleted unarchived.
async fn archive_events(c: &mut PgConnection, before: Timestamp, limit: i64) -> StorageResult<u64> {
    let taken: i64 =
        sqlx::query_scalar("SELECT muttd_archive_events($1, $2)").bind(Time(before)).bind(limit).fetch_one(c).await?;
    Ok(u64::try_from(taken).unwrap_or(0))
}

/// Inserts and counts.
pub(super) async fn insert_entries(
    c: &mut PgConnection,
    org: &OrgId,
    entries: &[AuditEntry],
    known: Known,
) -> StorageResult<()> {
    // In the order of the ids: two workers with the same events wait for one another, never in a
    // circle.
    let mut sorted: Vec<&AuditEntry> = entries.iter().collect();
    sorted.sort_by_key(|entry| (entry.event_id, entry.matched_rule_id));
    let mut rest = &sorted[..];
    while !rest.is_empty() {
        let (mut rows, mut bytes) = (0, 0);
        while rows < rest.len().min(CHUNK_ROWS) && (rows == 0 || bytes < CHUNK_BYTES) {
            bytes += rest[rows].raw_message.len();
            rows += 1;
        }
        let (chunk, later) = rest.split_at(rows);
        insert_chunk(c, org, chunk, known).await?;
        rest = later;
    }
    Ok(())
}

/// The alert of this row was forwarded after all.
pub(super) async fn forwarded(c: &mut PgConnection, org: &OrgId, event: EventId, rule: RuleId) -> StorageResult<()> {
    sqlx::query(
        "UPDATE event_audit_log SET forwarded_to_moog = TRUE \
         WHERE event_id = $1 AND matched_rule_id = $2 AND org = $3",
    )
    .bind(Key(event.to_u128()))
    .bind(int4(rule))
    .bind(org.as_str())
    .execute(c)
    .await?;
    Ok(())
}

async fn insert_chunk(c: &mut PgConnection, org: &OrgId, entries: &[&AuditEntry], known: Known) -> StorageResult<()> {
    let ids: Vec<Key> = entries.iter().map(|e| Key(e.event_id.to_u128())).collect();
    let times: Vec<Time> = entries.iter().map(|e| Time(e.event_timestamp)).collect();
    let hosts: Vec<Cow<'_, str>> = entries.iter().map(|e| fit(&e.hostname, HOST_CHARS)).collect();
    let rules: Vec<i32> = entries.iter().map(|e| int4(e.matched_rule_id)).collect();
    let decisions: Vec<Cow<'_, str>> = entries.iter().map(|e| fit(&e.handling_decision, DECISION_CHARS)).collect();
    let forwarded: Vec<bool> = entries.iter().map(|e| e.forwarded).collect();
    let raw: Vec<Cow<'_, str>> = entries.iter().map(|e| text_of(&e.raw_message)).collect();
    let sql = format!(
        "WITH added AS ( \
             INSERT INTO event_audit_log (org, event_id, event_timestamp, hostname, matched_rule_id, \
                                          handling_decision, forwarded_to_moog, raw_message) \
             SELECT $1, * FROM UNNEST($2, $3, $4::text[], $5, $6::text[], $7, $8::text[]) \
             {} \
             RETURNING tableoid) \
         INSERT INTO muttd_event_counts (part, org, rows) \
         SELECT k.relname, $1, a.n FROM (SELECT tableoid, count(*) AS n FROM added GROUP BY tableoid) a \
         JOIN pg_class k ON k.oid = a.tableoid",
        known.clause("event_id, matched_rule_id, org, event_timestamp")
    );
    sqlx::query(AssertSqlSafe(sql))
        .bind(org.as_str())
        .bind(ids)
        .bind(times)
        .bind(hosts)
        .bind(rules)
        .bind(decisions)
        .bind(forwarded)
        .bind(raw)
        .execute(c)
        .await?;
    Ok(())
}

fn text_of(raw: &Bytes) -> Cow<'_, str> {
    match String::from_utf8_lossy(raw) {
        Cow::Borrowed(text) => no_nul(text),
        Cow::Owned(text) => Cow::Owned(no_nul(&text).into_owned()),
    }
}

async fn counted(c: &mut PgConnection, org: &OrgId) -> StorageResult<u64> {
    let total: i64 = sqlx::query_scalar("SELECT muttd_audit_total($1)").bind(org.as_str()).fetch_one(c).await?;
    Ok(u64::try_from(total).unwrap_or(0))
}

/// Run of the ids that we make up for rows of other programs: their time and their row's id.
const FOREIGN_RUN: u32 = 0;

fn audit_row_of(row: &PgRow) -> sqlx::Result<AuditRow> {
    let id: i64 = row.try_get(0)?;
    let event_id: Option<Key> = row.try_get(1)?;
    let Time(event_timestamp) = row.try_get(2)?;
    let raw: Option<String> = row.try_get(7)?;
    let foreign = || {
        let time = Timestamp::from_millis(event_timestamp.millis().max(0));
        EventId::new(time, FOREIGN_RUN, u64::try_from(id).unwrap_or(0))
    };
    Ok(AuditRow {
        id,
        has_raw: raw.is_some(),
        entry: AuditEntry {
            event_id: event_id.map_or_else(foreign, Key::event),
            event_timestamp,
            hostname: row.try_get(3)?,
            matched_rule_id: row.try_get::<RuleId, _>(4)?,
            handling_decision: row.try_get(5)?,
            forwarded: row.try_get(6)?,
            raw_message: Bytes::from(raw.unwrap_or_default()),
        },
    })
}

fn change_of(row: &PgRow) -> sqlx::Result<ConfigChange> {
    let json = |n: usize| -> sqlx::Result<Option<String>> { Ok(row.try_get::<Option<&str>, _>(n)?.map(compact)) };
    let Time(changed_at) = row.try_get(1)?;
    Ok(ConfigChange {
        id: row.try_get(0)?,
        changed_at,
        changed_by: row.try_get::<Option<String>, _>(2)?.unwrap_or_default(),
        operation: row.try_get(3)?,
        table_name: row.try_get(4)?,
        record_id: row.try_get(5)?,
        old_values: json(6)?,
        new_values: json(7)?,
        reason: row.try_get(8)?,
        correlation_id: row.try_get(9)?,
    })
}

/// Months (12 × year + month − 1) whose partitions were asked for since they were last looked after.
#[derive(Default)]
pub(super) struct Months(Mutex<BTreeSet<i64>>);

/// Months before and after the one of acceptance that get a partition of their own; a clock that is
/// further off than that must not fill the database with partitions: the default one takes it.
const MONTHS_BACK: i64 = 13;
const MONTHS_AHEAD: i64 = 3;

/// Longest time to make a partition while somebody waits for it.
const PARTITION_AT_ONCE_MAX: Duration = Duration::from_secs(10);
/// Longest time to make one out of what the default partition has caught, a matter of millions of rows.
const PARTITION_MAX: Duration = Duration::from_secs(1_800);

/// What becomes of rows of a new month that the default partition has caught.
#[derive(Debug, Clone, Copy)]
enum Caught {
    /// They stay, and the month is not made.
    Stay,
    Move,
}

impl PostgresCatalog {
    /// Makes the partitions that these rows want and that are not known to be there. Where it does
    /// not work the default partition takes the rows, and they are moved later.
    pub(super) async fn make_partitions(&self, entries: &[AuditEntry]) {
        let wanted: Vec<i64> = {
            let known = self.months.0.lock().unwrap_or_else(PoisonError::into_inner);
            let sane = entries.iter().filter_map(sane_month);
            sane.filter(|month| !known.contains(month)).collect::<BTreeSet<_>>().into_iter().collect()
        };
        for month in wanted {
            let first_day = format!("{:04}-{:02}-01", month.div_euclid(12), month.rem_euclid(12) + 1);
            // Rows that already lie in the default partition would hold up the batch: a chore moves them.
            self.make_month(&first_day, Caught::Stay).await;
            self.months.0.lock().unwrap_or_else(PoisonError::into_inner).insert(month);
        }
    }

    /// This month's and the next ones' partitions, as far as they are made in a moment: writing needs
    /// none of them.
    pub(super) async fn make_months_at_start(&self) {
        self.make_missing_months(Caught::Stay).await;
    }

    /// This month's and the next ones' partitions, and those of rows that wait in the default one.
    /// Every month is a transaction of its own, so that a busy one costs the others nothing.
    async fn keep_partitions(&self) {
        self.months.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.make_missing_months(Caught::Move).await;
        let counted = self.pool.run_within(PARTITION_MAX, |c| {
            Box::pin(async move {
                sqlx::query("SELECT muttd_count_partitions()").execute(c).await?;
                Ok(())
            })
        });
        if let Err(error) = counted.await {
            tracing::warn!(%error, "new partitions of event_audit_log could not be counted; trying again later");
        }
    }

    async fn make_missing_months(&self, caught: Caught) {
        let missing = self.pool.run(Access::Read, |c| {
            Box::pin(async move {
                let sql = "SELECT m::text FROM muttd_missing_months() m";
                Ok(sqlx::query_scalar::<_, String>(sql).fetch_all(c).await?)
            })
        });
        match missing.await {
            Ok(months) => {
                for first_day in months {
                    self.make_month(&first_day, caught).await;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the partitions of event_audit_log could not be looked after; trying again later");
            }
        }
    }

    async fn make_month(&self, first_day: &str, caught: Caught) {
        let (longest, may_move) = match caught {
            Caught::Stay => (PARTITION_AT_ONCE_MAX, false),
            Caught::Move => (PARTITION_MAX, true),
        };
        let day = first_day.to_owned();
        let made = self.pool.run_within(longest, move |c| {
            Box::pin(async move {
                let sql = "SELECT muttd_make_month($1::text::date, $2)";
                let made: Option<String> = sqlx::query_scalar(sql).bind(day).bind(may_move).fetch_one(c).await?;
                Ok(made)
            })
        });
        match made.await {
            Ok(Some(partition)) => tracing::debug!(partition, "a partition of event_audit_log is there"),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, first_day, "no partition could be made; the default partition takes its rows");
            }
        }
    }

    async fn drop_empty_partitions(&self, before: Timestamp) {
        let dropped = self
            .pool
            .run(Access::Write, move |c| {
                Box::pin(async move {
                    let sql = "SELECT muttd_drop_empty_partitions($1)";
                    let dropped: i32 = sqlx::query_scalar(sql).bind(Time(before)).fetch_one(c).await?;
                    Ok(dropped)
                })
            })
            .await;
        match dropped {
            Ok(0) => {}
            Ok(dropped) => tracing::info!(dropped, "dropped empty partitions of event_audit_log"),
            Err(error) => tracing::warn!(%error, "empty partitions of event_audit_log could not be dropped"),
        }
    }
}

/// The month of a row, when it is near its acceptance.
fn sane_month(entry: &AuditEntry) -> Option<i64> {
    let (month, accepted) = (month_of(entry.event_timestamp), month_of(entry.event_id.accepted()));
    (accepted - MONTHS_BACK..=accepted + MONTHS_AHEAD).contains(&month).then_some(month)
}

fn month_of(time: Timestamp) -> i64 {
    let day = time.day();
    let number = |part: Option<&str>| part.and_then(|p| p.parse::<i64>().ok()).unwrap_or(0);
    let mut parts = day.rsplitn(3, '-');
    let (_, month, year) = (parts.next(), parts.next(), parts.next());
    number(year) * 12 + number(month) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_are_counted_through_years() {
        let month = |text: &str| month_of(Timestamp::parse(text).unwrap());
        assert_eq!(month("2026-01-01T00:00:00Z"), 2026 * 12);
        assert_eq!(month("2026-01-01T00:00:00Z") - month("2025-12-31T23:59:59Z"), 1);
        assert_eq!(month("2026-12-31T23:59:59Z"), 2026 * 12 + 11);
    }
}
