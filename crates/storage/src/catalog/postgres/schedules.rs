//! Scheduled rules.

use super::PostgresCatalog;
use super::pool::Access;
use super::values::{Time, no_nul};
use crate::StorageResult;
use crate::catalog::fields::{not_found, org_of};
use crate::catalog::schedules::{
    Advance, GAPS_KEPT, RUNS_KEPT, Schedule, ScheduleGap, ScheduleRun, ScheduleStore, check_uid, kept_text, millis,
    moved_meanwhile,
};
use async_trait::async_trait;
use model::{OrgId, Timestamp};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row};
use std::time::Duration;

const SELECT: &str = "SELECT s.org, s.uid, s.begun, s.through, s.judged, s.off_since, s.failures, s.error, s.error_at, \
    s.gaps, r.started_at, r.first, r.through, r.took_ms, r.events, r.matches, r.late FROM muttd_schedules s \
    LEFT JOIN muttd_schedule_runs r ON r.org = s.org AND r.uid = s.uid AND r.started_at = \
    (SELECT max(started_at) FROM muttd_schedule_runs WHERE org = s.org AND uid = s.uid)";

#[async_trait]
impl ScheduleStore for PostgresCatalog {
    async fn all_schedules(&self) -> StorageResult<Vec<Schedule>> {
        self.pool
            .run(Access::Read, |c| {
                Box::pin(async move {
                    let sql = format!("{SELECT} ORDER BY s.org, s.uid");
                    let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(c).await?;
                    rows.iter().map(of_row).collect()
                })
            })
            .await
    }

    async fn schedule(&self, org: &OrgId, uid: &str) -> StorageResult<Option<Schedule>> {
        let (org, uid) = (org.clone(), uid.to_owned());
        self.pool.run(Access::Read, move |c| Box::pin(async move { find(c, &org, &uid).await })).await
    }

    async fn begin_schedule(&self, org: &OrgId, uid: &str, at: Timestamp) -> StorageResult<Schedule> {
        check_uid(uid)?;
        let (org, uid) = (org.clone(), uid.to_owned());
        self.pool
            .run(Access::Write, move |c| {
                Box::pin(async move {
                    let sql = "INSERT INTO muttd_schedules (org, uid, begun, through, judged) \
                               VALUES ($1, $2, $3, $3, $3) ON CONFLICT DO NOTHING";
                    sqlx::query(sql).bind(org.as_str()).bind(&uid).bind(Time(at)).execute(&mut *c).await?;
                    find(c, &org, &uid).await?.ok_or_else(|| not_found("schedule"))
                })
            })
            .await
    }

    async fn advance_schedule(&self, org: &OrgId, uid: &str, step: Advance) -> StorageResult<()> {
        let (org, uid) = (org.clone(), uid.to_owned());
        self.pool.run(Access::Write, move |c| Box::pin(async move { advance(c, &org, &uid, &step).await })).await
    }

    async fn fail_schedule(&self, org: &OrgId, uid: &str, error: &str, at: Timestamp) -> StorageResult<()> {
        let (org, uid, error) = (org.clone(), uid.to_owned(), kept_text(error));
        self.pool
            .run(Access::Write, move |c| {
                Box::pin(async move {
                    let sql = "UPDATE muttd_schedules SET failures = failures + 1, error = $3, error_at = $4 \
                               WHERE org = $1 AND uid = $2";
                    let query = sqlx::query(sql).bind(org.as_str()).bind(no_nul(&uid)).bind(error).bind(Time(at));
                    query.execute(c).await?;
                    Ok(())
                })
            })
            .await
    }

    async fn stop_schedule(&self, org: &OrgId, uid: &str, at: Timestamp) -> StorageResult<()> {
        let (org, uid) = (org.clone(), uid.to_owned());
        self.pool
            .run(Access::Write, move |c| {
                Box::pin(async move {
                    let sql = "UPDATE muttd_schedules SET off_since = $3 \
                               WHERE org = $1 AND uid = $2 AND off_since IS NULL";
                    sqlx::query(sql).bind(org.as_str()).bind(no_nul(&uid)).bind(Time(at)).execute(c).await?;
                    Ok(())
                })
            })
            .await
    }

    async fn schedule_runs(&self, org: &OrgId, uid: &str) -> StorageResult<Vec<ScheduleRun>> {
        let (org, uid) = (org.clone(), uid.to_owned());
        self.pool
            .run(Access::Read, move |c| {
                Box::pin(async move {
                    let sql = "SELECT started_at, first, through, took_ms, events, matches, late \
                               FROM muttd_schedule_runs WHERE org = $1 AND uid = $2 ORDER BY started_at DESC";
                    let rows = sqlx::query(sql).bind(org.as_str()).bind(no_nul(&uid)).fetch_all(c).await?;
                    rows.iter().map(|row| run_of(row, 0)).collect()
                })
            })
            .await
    }

    async fn schedule_gaps(&self, org: &OrgId, uid: &str) -> StorageResult<Vec<ScheduleGap>> {
        let (org, uid) = (org.clone(), uid.to_owned());
        self.pool
            .run(Access::Read, move |c| {
                Box::pin(async move {
                    let sql = "SELECT first, through, why, found_at FROM muttd_schedule_gaps \
                               WHERE org = $1 AND uid = $2 ORDER BY found_at DESC, first DESC";
                    let rows = sqlx::query(sql).bind(org.as_str()).bind(no_nul(&uid)).fetch_all(c).await?;
                    let gap = |row: &PgRow| {
                        let (Time(first), Time(through), Time(found_at)) =
                            (row.try_get(0)?, row.try_get(1)?, row.try_get(3)?);
                        Ok(ScheduleGap { first, through, why: row.try_get(2)?, found_at })
                    };
                    rows.iter().map(gap).collect()
                })
            })
            .await
    }
}

async fn advance(c: &mut PgConnection, org: &OrgId, uid: &str, step: &Advance) -> StorageResult<()> {
    let sql = "UPDATE muttd_schedules SET through = $4, judged = $5, begun = coalesce($6, begun), off_since = NULL, \
               failures = 0, error = NULL, error_at = NULL WHERE org = $1 AND uid = $2 AND through = $3";
    let query = sqlx::query(sql).bind(org.as_str()).bind(no_nul(uid)).bind(Time(step.expected));
    let query = query.bind(Time(step.through)).bind(Time(step.judged)).bind(step.begun.map(Time));
    if query.execute(&mut *c).await?.rows_affected() == 0 {
        return Err(moved_meanwhile());
    }
    if let Some(run) = &step.run {
        let sql = "INSERT INTO muttd_schedule_runs (org, uid, started_at, first, through, took_ms, events, matches, late) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (org, uid, started_at) DO UPDATE SET \
                   first = excluded.first, through = excluded.through, took_ms = excluded.took_ms, \
                   events = excluded.events, matches = excluded.matches, late = excluded.late";
        let query = sqlx::query(sql).bind(org.as_str()).bind(uid).bind(Time(run.started_at)).bind(Time(run.first));
        let query = query.bind(Time(run.through)).bind(millis(run.took)).bind(run.events as i64);
        query.bind(run.matches as i64).bind(run.late as i64).execute(&mut *c).await?;
        let sql = "DELETE FROM muttd_schedule_runs WHERE org = $1 AND uid = $2 AND started_at <= (SELECT started_at \
                   FROM muttd_schedule_runs WHERE org = $1 AND uid = $2 ORDER BY started_at DESC LIMIT 1 OFFSET $3)";
        sqlx::query(sql).bind(org.as_str()).bind(uid).bind(i64::from(RUNS_KEPT)).execute(&mut *c).await?;
    }
    for gap in &step.gaps {
        let sql = "INSERT INTO muttd_schedule_gaps (org, uid, first, through, why, found_at) \
                   VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
        let query = sqlx::query(sql).bind(org.as_str()).bind(uid).bind(Time(gap.first)).bind(Time(gap.through));
        let new = query.bind(kept_text(&gap.why)).bind(Time(gap.found_at)).execute(&mut *c).await?.rows_affected();
        let sql = "UPDATE muttd_schedules SET gaps = gaps + $3 WHERE org = $1 AND uid = $2";
        sqlx::query(sql).bind(org.as_str()).bind(uid).bind(new as i64).execute(&mut *c).await?;
    }
    if !step.gaps.is_empty() {
        let sql = "DELETE FROM muttd_schedule_gaps WHERE org = $1 AND uid = $2 AND (first, through) IN \
                   (SELECT first, through FROM muttd_schedule_gaps WHERE org = $1 AND uid = $2 \
                    ORDER BY found_at DESC, first DESC OFFSET $3)";
        sqlx::query(sql).bind(org.as_str()).bind(uid).bind(i64::from(GAPS_KEPT)).execute(&mut *c).await?;
    }
    Ok(())
}

async fn find(c: &mut PgConnection, org: &OrgId, uid: &str) -> StorageResult<Option<Schedule>> {
    let sql = format!("{SELECT} WHERE s.org = $1 AND s.uid = $2");
    let row = sqlx::query(AssertSqlSafe(sql)).bind(org.as_str()).bind(no_nul(uid)).fetch_optional(c).await?;
    row.as_ref().map(of_row).transpose()
}

fn of_row(row: &PgRow) -> StorageResult<Schedule> {
    let (Time(begun), Time(through), Time(judged)) = (row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
    let time = |at: usize| row.try_get::<Option<Time>, _>(at).map(|time| time.map(|Time(time)| time));
    Ok(Schedule {
        org: org_of(row.try_get(0)?)?,
        uid: row.try_get(1)?,
        begun,
        through,
        judged,
        off_since: time(5)?,
        failures: row.try_get::<i32, _>(6)?.unsigned_abs(),
        error: row.try_get::<Option<String>, _>(7)?.zip(time(8)?),
        gaps: row.try_get::<i64, _>(9)?.unsigned_abs(),
        last_run: time(10)?.map(|_: Timestamp| run_of(row, 10)).transpose()?,
    })
}

fn run_of(row: &PgRow, at: usize) -> StorageResult<ScheduleRun> {
    let (Time(started_at), Time(first), Time(through)) = (row.try_get(at)?, row.try_get(at + 1)?, row.try_get(at + 2)?);
    let number = |n: usize| row.try_get::<i64, _>(at + n).map(i64::unsigned_abs);
    Ok(ScheduleRun {
        started_at,
        first,
        through,
        took: Duration::from_millis(number(3)?),
        events: number(4)?,
        matches: number(5)?,
        late: number(6)?,
    })
}
