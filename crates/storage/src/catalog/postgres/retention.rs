//! Counts by age; the conditions are those of `muttd_archive_events` and `muttd_purge_archive`.

use super::PostgresCatalog;
use super::pool::Access;
use super::values::{Key, Time};
use crate::StorageResult;
use crate::catalog::fields::first_id_at;
use crate::catalog::retention::{Archive, COUNT_MAX, Cutoffs, Holdings, Outdated, Partition, RetentionStore};
use async_trait::async_trait;
use model::AlertState;
use sqlx::{AssertSqlSafe, Row};

const COUNT_OLD: &str = "SELECT count(*) FROM ( \
    (SELECT 1 FROM $table WHERE event_id < $1 LIMIT $max) UNION ALL \
    (SELECT 1 FROM $table WHERE event_id IS NULL AND $time < $2 LIMIT $max) LIMIT $max) old";
const COUNT_ALERTS: &str = "SELECT count(*) FROM (SELECT 1 FROM alerts WHERE id < $1 AND state <> $2 LIMIT $max) old";
const COUNT_CHANGES: &str =
    "SELECT count(*) FROM (SELECT 1 FROM config_audit_log WHERE changed_at < $1 LIMIT $max) old";
const COUNT_INCIDENTS: &str = "SELECT (SELECT count(*) FROM (SELECT 1 FROM muttd_incidents \
    WHERE status IN ('RESOLVED', 'DISMISSED') AND last_seen < $1 LIMIT $max) closed) + \
    (SELECT count(*) FROM (SELECT 1 FROM muttd_silences WHERE least(ends_at, ended_at) < $2 LIMIT $max) over)";
const ARCHIVE: &str = "SELECT (SELECT count(*) FROM (SELECT 1 FROM event_audit_log_archive LIMIT $max) a), \
    (SELECT min(event_timestamp) FROM event_audit_log_archive), \
    (SELECT max(event_timestamp) FROM event_audit_log_archive), \
    pg_total_relation_size('event_audit_log_archive'::regclass), \
    (SELECT count(*) FROM (SELECT 1 FROM event_audit_log LIMIT $max) e)";
const PARTITIONS: &str = "SELECT partition_name::text, to_char(range_start AT TIME ZONE 'UTC', 'YYYY-MM-DD'), \
    to_char(range_end AT TIME ZONE 'UTC', 'YYYY-MM-DD'), row_count_estimate::bigint, total_bytes::bigint \
    FROM partition_health_summary ORDER BY is_default, range_start";

/// The statement with its bound.
fn bounded(sql: &str) -> AssertSqlSafe<String> {
    AssertSqlSafe(sql.replace("$max", &COUNT_MAX.to_string()))
}

/// [`COUNT_OLD`] of a table; `time`: its column that rows of other programs go by.
fn old_rows(table: &str, time: &str) -> AssertSqlSafe<String> {
    bounded(&COUNT_OLD.replace("$table", table).replace("$time", time))
}

fn count(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

#[async_trait]
impl RetentionStore for PostgresCatalog {
    async fn outdated(&self, before: Cutoffs) -> StorageResult<Outdated> {
        self.pool
            .run(Access::Read, move |c| {
                Box::pin(async move {
                    let mut old = [0; 2];
                    for (n, sql, before) in [
                        (0, old_rows("event_audit_log", "event_timestamp"), before.events),
                        (1, old_rows("event_audit_log_archive", "archived_at"), before.archive),
                    ] {
                        old[n] = sqlx::query_scalar(sql)
                            .bind(Key(first_id_at(before)))
                            .bind(Time(before))
                            .fetch_one(&mut *c)
                            .await?;
                    }
                    let alerts = sqlx::query_scalar(bounded(COUNT_ALERTS))
                        .bind(Key(first_id_at(before.events)))
                        .bind(AlertState::Pending.as_str())
                        .fetch_one(&mut *c)
                        .await?;
                    let changes = sqlx::query_scalar(bounded(COUNT_CHANGES))
                        .bind(Time(before.changes))
                        .fetch_one(&mut *c)
                        .await?;
                    let incidents = sqlx::query_scalar(bounded(COUNT_INCIDENTS))
                        .bind(Time(before.events))
                        .bind(Time(before.changes))
                        .fetch_one(&mut *c)
                        .await?;
                    Ok(Outdated {
                        events: count(old[0]),
                        archived: Some(count(old[1])),
                        alerts: count(alerts),
                        incidents: count(incidents),
                        changes: count(changes),
                    })
                })
            })
            .await
    }

    async fn holdings(&self) -> StorageResult<Holdings> {
        self.pool
            .run(Access::Read, move |c| {
                Box::pin(async move {
                    let row = sqlx::query(bounded(ARCHIVE)).fetch_one(&mut *c).await?;
                    let time = |n: usize| row.try_get::<Option<Time>, _>(n).map(|time| time.map(|Time(time)| time));
                    let archive = Archive {
                        rows: count(row.try_get(0)?),
                        oldest_event: time(1)?,
                        newest_event: time(2)?,
                        bytes: count(row.try_get(3)?),
                    };
                    let mut partitions = Vec::new();
                    for row in sqlx::query(PARTITIONS).fetch_all(&mut *c).await? {
                        let day = |n: usize| row.try_get::<Option<String>, _>(n);
                        partitions.push(Partition {
                            name: row.try_get(0)?,
                            days: day(1)?.zip(day(2)?),
                            rows: count(row.try_get(3)?),
                            bytes: count(row.try_get(4)?),
                        });
                    }
                    Ok(Holdings { events: count(row.try_get(4)?), archive: Some(archive), partitions })
                })
            })
            .await
    }
}
