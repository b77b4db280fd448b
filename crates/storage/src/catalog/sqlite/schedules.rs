//! Scheduled rules.

use super::SqliteCatalog;
use crate::StorageResult;
use crate::catalog::fields::{not_found, org_of};
use crate::catalog::schedules::{
    Advance, GAPS_KEPT, RUNS_KEPT, Schedule, ScheduleGap, ScheduleRun, ScheduleStore, check_uid, kept_text, millis,
    moved_meanwhile,
};
use async_trait::async_trait;
use model::{OrgId, Timestamp};
use rusqlite::{Connection, Row, Transaction, params};
use std::time::Duration;

const COLUMNS: &str = "s.org, s.uid, s.begun, s.through, s.judged, s.off_since, s.failures, s.error, s.error_at, s.gaps, \
                       r.started_at, r.first, r.through, r.took_ms, r.events, r.matches, r.late";
const FROM: &str = "schedules s LEFT JOIN schedule_runs r ON r.org = s.org AND r.uid = s.uid AND r.started_at = \
                    (SELECT max(started_at) FROM schedule_runs WHERE org = s.org AND uid = s.uid)";

#[async_trait]
impl ScheduleStore for SqliteCatalog {
    async fn all_schedules(&self) -> StorageResult<Vec<Schedule>> {
        self.database
            .read(|c| {
                let mut select = c.prepare_cached(&format!("SELECT {COLUMNS} FROM {FROM} ORDER BY s.org, s.uid"))?;
                let mut rows = select.query([])?;
                let mut all = Vec::new();
                while let Some(row) = rows.next()? {
                    all.push(of_row(row)?);
                }
                Ok(all)
            })
            .await
    }

    async fn schedule(&self, org: &OrgId, uid: &str) -> StorageResult<Option<Schedule>> {
        let (org, uid) = (org.clone(), uid.to_owned());
        self.database.read(move |c| find(c, &org, &uid)).await
    }

    async fn begin_schedule(&self, org: &OrgId, uid: &str, at: Timestamp) -> StorageResult<Schedule> {
        check_uid(uid)?;
        let (org, uid) = (org.clone(), uid.to_owned());
        self.database
            .transact(move |t| {
                t.execute(
                    "INSERT INTO schedules (org, uid, begun, through, judged) VALUES (?1, ?2, ?3, ?3, ?3) \
                     ON CONFLICT DO NOTHING",
                    params![org.as_str(), uid, at.micros()],
                )?;
                find(t, &org, &uid)?.ok_or_else(|| not_found("schedule"))
            })
            .await
    }

    async fn advance_schedule(&self, org: &OrgId, uid: &str, step: Advance) -> StorageResult<()> {
        let (org, uid) = (org.clone(), uid.to_owned());
        self.database.transact(move |t| advance(t, &org, &uid, &step)).await
    }

    async fn fail_schedule(&self, org: &OrgId, uid: &str, error: &str, at: Timestamp) -> StorageResult<()> {
        let (org, uid, error) = (org.clone(), uid.to_owned(), kept_text(error));
        self.database
            .transact(move |t| {
                t.execute(
                    "UPDATE schedules SET failures = failures + 1, error = ?3, error_at = ?4 WHERE org = ?1 AND uid = ?2",
                    params![org.as_str(), uid, error, at.micros()],
                )?;
                Ok(())
            })
            .await
    }

    async fn stop_schedule(&self, org: &OrgId, uid: &str, at: Timestamp) -> StorageResult<()> {
        let (org, uid) = (org.clone(), uid.to_owned());
        self.database
            .transact(move |t| {
                t.execute(
                    "UPDATE schedules SET off_since = ?3 WHERE org = ?1 AND uid = ?2 AND off_since IS NULL",
                    params![org.as_str(), uid, at.micros()],
                )?;
                Ok(())
            })
            .await
    }

    async fn schedule_runs(&self, org: &OrgId, uid: &str) -> StorageResult<Vec<ScheduleRun>> {
        let (org, uid) = (org.clone(), uid.to_owned());
        self.database
            .read(move |c| {
                let mut select = c.prepare_cached(
                    "SELECT started_at, first, through, took_ms, events, matches, late FROM schedule_runs \
                     WHERE org = ? AND uid = ? ORDER BY started_at DESC",
                )?;
                let runs = select.query_map(params![org.as_str(), uid], |row| run_of(row, 0))?;
                Ok(runs.collect::<rusqlite::Result<Vec<_>>>()?)
            })
            .await
    }

    async fn schedule_gaps(&self, org: &OrgId, uid: &str) -> StorageResult<Vec<ScheduleGap>> {
        let (org, uid) = (org.clone(), uid.to_owned());
        self.database
            .read(move |c| {
                let mut select = c.prepare_cached(
                    "SELECT first, through, why, found_at FROM schedule_gaps WHERE org = ? AND uid = ? \
                     ORDER BY found_at DESC, first DESC",
                )?;
                let gaps = select.query_map(params![org.as_str(), uid], |row| {
                    Ok(ScheduleGap {
                        first: time(row, 0)?,
                        through: time(row, 1)?,
                        why: row.get(2)?,
                        found_at: time(row, 3)?,
                    })
                })?;
                Ok(gaps.collect::<rusqlite::Result<Vec<_>>>()?)
            })
            .await
    }
}

fn advance(t: &Transaction<'_>, org: &OrgId, uid: &str, step: &Advance) -> StorageResult<()> {
    let moved = t.execute(
        "UPDATE schedules SET through = ?4, judged = ?5, begun = coalesce(?6, begun), off_since = NULL, failures = 0, \
         error = NULL, error_at = NULL WHERE org = ?1 AND uid = ?2 AND through = ?3",
        params![
            org.as_str(),
            uid,
            step.expected.micros(),
            step.through.micros(),
            step.judged.micros(),
            step.begun.map(Timestamp::micros)
        ],
    )?;
    if moved == 0 {
        return Err(moved_meanwhile());
    }
    if let Some(run) = &step.run {
        t.execute(
            "INSERT OR REPLACE INTO schedule_runs (org, uid, started_at, first, through, took_ms, events, matches, late) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            params![
                org.as_str(),
                uid,
                run.started_at.micros(),
                run.first.micros(),
                run.through.micros(),
                millis(run.took),
                run.events as i64,
                run.matches as i64,
                run.late as i64
            ],
        )?;
        t.execute(
            "DELETE FROM schedule_runs WHERE org = ?1 AND uid = ?2 AND started_at <= (SELECT started_at FROM \
             schedule_runs WHERE org = ?1 AND uid = ?2 ORDER BY started_at DESC LIMIT 1 OFFSET ?3)",
            params![org.as_str(), uid, RUNS_KEPT],
        )?;
    }
    for gap in &step.gaps {
        let new = t.execute(
            "INSERT INTO schedule_gaps (org, uid, first, through, why, found_at) VALUES (?, ?, ?, ?, ?, ?) \
             ON CONFLICT DO NOTHING",
            params![
                org.as_str(),
                uid,
                gap.first.micros(),
                gap.through.micros(),
                kept_text(&gap.why),
                gap.found_at.micros()
            ],
        )?;
        t.execute(
            "UPDATE schedules SET gaps = gaps + ?3 WHERE org = ?1 AND uid = ?2",
            params![org.as_str(), uid, new as i64],
        )?;
    }
    if !step.gaps.is_empty() {
        t.execute(
            "DELETE FROM schedule_gaps WHERE rowid IN (SELECT rowid FROM schedule_gaps WHERE org = ?1 AND uid = ?2 \
             ORDER BY found_at DESC, first DESC LIMIT -1 OFFSET ?3)",
            params![org.as_str(), uid, GAPS_KEPT],
        )?;
    }
    Ok(())
}

fn find(c: &Connection, org: &OrgId, uid: &str) -> StorageResult<Option<Schedule>> {
    let mut select = c.prepare_cached(&format!("SELECT {COLUMNS} FROM {FROM} WHERE s.org = ? AND s.uid = ?"))?;
    let mut rows = select.query(params![org.as_str(), uid])?;
    rows.next()?.map(of_row).transpose()
}

fn of_row(row: &Row<'_>) -> StorageResult<Schedule> {
    let error: Option<String> = row.get(7)?;
    let started: Option<i64> = row.get(10)?;
    Ok(Schedule {
        org: org_of(&row.get::<_, String>(0)?)?,
        uid: row.get(1)?,
        begun: time(row, 2)?,
        through: time(row, 3)?,
        judged: time(row, 4)?,
        off_since: row.get::<_, Option<i64>>(5)?.map(Timestamp::from_micros),
        failures: row.get(6)?,
        error: error.zip(row.get::<_, Option<i64>>(8)?.map(Timestamp::from_micros)),
        gaps: row.get::<_, i64>(9)?.unsigned_abs(),
        last_run: started.map(|_| run_of(row, 10)).transpose()?,
    })
}

fn run_of(row: &Row<'_>, first: usize) -> rusqlite::Result<ScheduleRun> {
    let number = |at: usize| row.get::<_, i64>(first + at).map(i64::unsigned_abs);
    Ok(ScheduleRun {
        started_at: time(row, first)?,
        first: time(row, first + 1)?,
        through: time(row, first + 2)?,
        took: Duration::from_millis(number(3)?),
        events: number(4)?,
        matches: number(5)?,
        late: number(6)?,
    })
}

fn time(row: &Row<'_>, at: usize) -> rusqlite::Result<Timestamp> {
    row.get(at).map(Timestamp::from_micros)
}
