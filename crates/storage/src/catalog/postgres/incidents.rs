//! Incidents and silences.
//!
//! Whoever opens or reopens incidents of an organisation holds a lock of that organisation until the
//! end of the transaction: two workers with alerts of one key must not both find that there is none.

use super::alerts::{self, Known};
use super::pool::Access;
use super::values::{Key, Time, no_nul};
use super::{Change, Conditions, PostgresCatalog};
use crate::StorageResult;
use crate::catalog::fields::{not_found, org_of, severity_of};
use crate::catalog::incidents::{
    Due, Incident, IncidentAction, IncidentFilter, IncidentId, IncidentStatus, IncidentStore, SILENCES_MAX, Silence,
    SilenceDraft, SilenceId, Waiting, act, by_time, check_silence, gathered_message, incident_values, is_due,
    newer_incident, silence_is_over, silence_values, told_late, too_many_silences,
};
use crate::catalog::{Actor, Page, PageRequest};
use async_trait::async_trait;
use model::{Alert, AlertState, OrgId, Timestamp};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row};

const COLUMNS: &str = "id, org, group_key, status, rule_uid, title, severity, team, host, first_seen, last_seen, \
                       last_alert, alerts, told, silenced, assignee, acknowledged_by, acknowledged_at, closed_by, \
                       closed_at, comment, last_told, told_severity, resolve_at, escalate_at, escalations, tell_at, \
                       tell_alert, tell_severity, tell_alerts";
const SILENCE: &str = "id, org, matcher, starts_at, ends_at, author, reason, created_at, ended_at";
const OPEN: &str = "status IN ('ACTIVE', 'ACKNOWLEDGED')";
const INCIDENTS: &str = "muttd_incidents";
const SILENCES: &str = "muttd_silences";
/// First half of the number of an organisation's lock: "mtin" in ASCII.
const LOCK: i32 = 0x6d74_696e;

/// The query with an incident's columns but its number, in their order.
macro_rules! bound {
    ($query:expr, $incident:expr) => {{
        let incident: &Incident = &*$incident;
        let whole = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let by = |done: &Option<(String, Timestamp)>| done.as_ref().map(|(by, _)| no_nul(by).into_owned());
        let at = |done: &Option<(String, Timestamp)>| done.as_ref().map(|(_, at)| Time(*at));
        $query
            .bind(incident.org.as_str().to_owned())
            .bind(incident.key.clone())
            .bind(incident.status.as_str())
            .bind(no_nul(&incident.rule_uid).into_owned())
            .bind(no_nul(&incident.title).into_owned())
            .bind(i32::from(incident.severity.code()))
            .bind(no_nul(&incident.team).into_owned())
            .bind(no_nul(&incident.host).into_owned())
            .bind(Time(incident.first_seen))
            .bind(Time(incident.last_seen))
            .bind(Key(incident.last_alert.to_u128()))
            .bind(whole(incident.alerts))
            .bind(whole(incident.told))
            .bind(whole(incident.silenced))
            .bind(incident.assignee.clone())
            .bind(by(&incident.acknowledged))
            .bind(at(&incident.acknowledged))
            .bind(by(&incident.closed))
            .bind(at(&incident.closed))
            .bind(incident.comment.clone())
            .bind(incident.last_told.map(Time))
            .bind(incident.told_severity.map(|severity| i32::from(severity.code())))
            .bind(incident.resolve_at.map(Time))
            .bind(incident.escalate_at.map(Time))
            .bind(i32::try_from(incident.escalations).unwrap_or(i32::MAX))
            .bind(incident.waiting.as_ref().map(|waiting| Time(waiting.until)))
            .bind(incident.waiting.as_ref().map(|waiting| Key(waiting.alert.to_u128())))
            .bind(incident.waiting.as_ref().map(|waiting| i32::from(waiting.severity.code())))
            .bind(incident.waiting.as_ref().map(|waiting| whole(waiting.alerts)))
    }};
}

#[async_trait]
impl IncidentStore for PostgresCatalog {
    async fn incident(&self, org: &OrgId, id: IncidentId) -> StorageResult<Incident> {
        let org = org.clone();
        self.pool.run(Access::Read, move |c| Box::pin(async move { find(c, &org, id, "").await })).await
    }

    async fn incidents(
        &self,
        org: &OrgId,
        filter: &IncidentFilter,
        page: PageRequest,
    ) -> StorageResult<Page<Incident>> {
        let mut conditions = Conditions::of(org)?;
        let statuses: Vec<&str> = filter.status.iter().map(|status| status.as_str()).collect();
        conditions.add("status = ANY($$)", (!statuses.is_empty()).then_some(statuses))?;
        for (sql, value) in [
            ("rule_uid = $$", &filter.rule_uid),
            ("host = $$", &filter.host),
            ("team = $$", &filter.team),
            ("assignee = $$", &filter.assignee),
        ] {
            conditions.add(sql, value.as_deref().map(no_nul))?;
        }
        conditions.add_range("last_seen", filter.from, filter.to)?;
        self.pool
            .run_list(move |c| {
                Box::pin(async move {
                    let total = conditions.count(c, INCIDENTS).await?;
                    let rows = conditions.page(c, (INCIDENTS, COLUMNS, "last_seen"), page).await?;
                    Ok(Page { rows: rows.iter().map(of_row).collect::<StorageResult<_>>()?, total, next: None })
                })
            })
            .await
    }

    async fn change_incident(
        &self,
        org: &OrgId,
        id: IncidentId,
        action: &IncidentAction,
        by: &Actor,
    ) -> StorageResult<Incident> {
        let (org, action, by) = (org.clone(), action.clone(), by.clone());
        self.pool
            .run(Access::Write, move |c| {
                Box::pin(async move {
                    lock(c, &org).await?;
                    let before = find(c, &org, id, "FOR UPDATE").await?;
                    if action == IncidentAction::Reopen {
                        let newest = newest(c, &org, &[before.key.as_str()]).await?;
                        if newest.iter().any(|newest| newest.id != id) {
                            return Err(newer_incident());
                        }
                    }
                    changed(c, &before, &action, &by).await
                })
            })
            .await
    }

    async fn open_incidents(&self) -> StorageResult<u64> {
        self.pool
            .run(Access::Read, |c| {
                Box::pin(async move {
                    let sql = format!("SELECT count(*) FROM {INCIDENTS} WHERE {OPEN}");
                    let n: i64 = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(c).await?;
                    Ok(u64::try_from(n).unwrap_or(0))
                })
            })
            .await
    }

    async fn resolve_quiet(&self, now: Timestamp, limit: usize) -> StorageResult<u64> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.pool
            .run(Access::Write, move |c| {
                Box::pin(async move {
                    // Those that another worker has in hand are looked at the next time.
                    let sql = format!(
                        "SELECT {COLUMNS} FROM {INCIDENTS} WHERE {OPEN} AND resolve_at <= $1 AND tell_at IS NULL \
                         ORDER BY resolve_at \
                         LIMIT $2 FOR UPDATE SKIP LOCKED"
                    );
                    let due = sqlx::query(AssertSqlSafe(sql)).bind(Time(now)).bind(limit).fetch_all(&mut *c).await?;
                    for row in &due {
                        let incident = of_row(row)?;
                        let quiet = format!("no alert since {}", incident.last_seen.rfc3339());
                        changed(c, &incident, &IncidentAction::Resolve, &by_time(now, quiet)).await?;
                    }
                    Ok(due.len() as u64)
                })
            })
            .await
    }

    async fn due_waiting(&self, now: Timestamp, limit: usize) -> StorageResult<Vec<Due>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.pool
            .run(Access::Read, move |c| {
                Box::pin(async move {
                    let sql =
                        format!("SELECT {COLUMNS} FROM {INCIDENTS} WHERE tell_at <= $1 ORDER BY tell_at LIMIT $2");
                    let rows = sqlx::query(AssertSqlSafe(sql)).bind(Time(now)).bind(limit).fetch_all(&mut *c).await?;
                    let mut due = Vec::with_capacity(rows.len());
                    for row in &rows {
                        let incident = of_row(row)?;
                        let waiting = incident.waiting.as_ref().map_or(incident.last_alert, |waiting| waiting.alert);
                        due.push(Due { alert: alerts::find(c, &incident.org, waiting).await?.alert, incident });
                    }
                    Ok(due)
                })
            })
            .await
    }

    async fn tell_waiting(&self, seen: &Incident, now: Timestamp) -> StorageResult<Option<Alert>> {
        let seen = seen.clone();
        self.pool
            .run(Access::Write, move |c| {
                Box::pin(async move {
                    // As whoever gathers: the organisation first, then its rows.
                    lock(c, &seen.org).await?;
                    let before = find(c, &seen.org, seen.id, "FOR UPDATE").await?;
                    let Some((after, waiting)) = told_late(&before, &seen, now) else { return Ok(None) };
                    update(c, &after).await?;
                    let mut alert = alerts::find(c, &after.org, waiting.alert).await?.alert;
                    alert.message = gathered_message(&alert.message, waiting.alerts);
                    alerts::tell(c, &alert, now).await?;
                    Ok(Some(alert))
                })
            })
            .await
    }

    async fn due_escalations(&self, now: Timestamp, limit: usize) -> StorageResult<Vec<Due>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.pool
            .run(Access::Read, move |c| {
                Box::pin(async move {
                    let sql = format!(
                        "SELECT {COLUMNS} FROM {INCIDENTS} WHERE status = 'ACTIVE' AND escalate_at <= $1 \
                         AND tell_at IS NULL \
                         ORDER BY escalate_at LIMIT $2"
                    );
                    let rows = sqlx::query(AssertSqlSafe(sql)).bind(Time(now)).bind(limit).fetch_all(&mut *c).await?;
                    let mut due = Vec::with_capacity(rows.len());
                    for row in &rows {
                        let incident = of_row(row)?;
                        let record = alerts::find(c, &incident.org, incident.last_alert).await?;
                        due.push(Due { alert: record.alert, incident });
                    }
                    Ok(due)
                })
            })
            .await
    }

    async fn escalate(&self, seen: &Incident, alert: Alert) -> StorageResult<bool> {
        let seen = seen.clone();
        self.pool
            .run(Access::Write, move |c| {
                Box::pin(async move {
                    let before = find(c, &seen.org, seen.id, "FOR UPDATE").await?;
                    if !is_due(&before, &seen) {
                        return Ok(false);
                    }
                    let after = Incident { escalate_at: None, escalations: before.escalations + 1, ..before.clone() };
                    update(c, &after).await?;
                    let by = by_time(alert.created_at, "nobody acknowledged it in time".to_owned());
                    audit(c, &before, &after, &by).await?;
                    let row = alerts::AlertToWrite {
                        alert: &alert,
                        state: AlertState::Pending,
                        detail: None,
                        incident: Some(seen.id),
                    };
                    alerts::insert_rows(c, &[row], Known::Maybe).await?;
                    Ok(true)
                })
            })
            .await
    }

    async fn create_silence(&self, org: &OrgId, draft: SilenceDraft, by: &Actor) -> StorageResult<Silence> {
        check_silence(&draft, by)?;
        let (org, by) = (org.clone(), by.clone());
        self.pool
            .run(Access::Write, move |c| {
                Box::pin(async move {
                    lock(c, &org).await?;
                    let sql =
                        format!("SELECT count(*) FROM {SILENCES} WHERE org = $1 AND least(ends_at, ended_at) > $2");
                    let n: i64 = sqlx::query_scalar(AssertSqlSafe(sql))
                        .bind(org.as_str())
                        .bind(Time(by.at))
                        .fetch_one(&mut *c)
                        .await?;
                    if u64::try_from(n).unwrap_or(0) >= SILENCES_MAX {
                        return Err(too_many_silences());
                    }
                    let sql = format!(
                        "INSERT INTO {SILENCES} (org, matcher, starts_at, ends_at, author, reason, created_at) \
                         VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING {SILENCE}"
                    );
                    let row = sqlx::query(AssertSqlSafe(sql))
                        .bind(org.as_str())
                        .bind(&draft.matcher)
                        .bind(Time(draft.from))
                        .bind(Time(draft.until))
                        .bind(no_nul(&by.name))
                        .bind(no_nul(by.reason.as_deref().unwrap_or_default()))
                        .bind(Time(by.at))
                        .fetch_one(&mut *c)
                        .await?;
                    let silence = silence_of(&row)?;
                    let new = Some(silence_values(&silence)?);
                    let change =
                        Change { table: "silences", record_id: silence.id, old: None, new, org: &silence.org, by: &by };
                    change.write(c).await?;
                    Ok(silence)
                })
            })
            .await
    }

    async fn end_silence(&self, org: &OrgId, id: SilenceId, by: &Actor) -> StorageResult<Silence> {
        let (org, by) = (org.clone(), by.clone());
        self.pool
            .run(Access::Write, move |c| {
                Box::pin(async move {
                    let sql = format!("SELECT {SILENCE} FROM {SILENCES} WHERE id = $1 AND org = $2 FOR UPDATE");
                    let row =
                        sqlx::query(AssertSqlSafe(sql)).bind(id).bind(org.as_str()).fetch_optional(&mut *c).await?;
                    let before = silence_of(&row.ok_or_else(|| not_found("silence"))?)?;
                    if before.ended_at.is_some() || before.until <= by.at {
                        return Err(silence_is_over());
                    }
                    let after = Silence { ended_at: Some(by.at), ..before.clone() };
                    sqlx::query("UPDATE muttd_silences SET ended_at = $1 WHERE id = $2")
                        .bind(Time(by.at))
                        .bind(id)
                        .execute(&mut *c)
                        .await?;
                    let (old, new) = (Some(silence_values(&before)?), Some(silence_values(&after)?));
                    Change { table: "silences", record_id: id, old, new, org: &org, by: &by }.write(c).await?;
                    Ok(after)
                })
            })
            .await
    }

    async fn silences(
        &self,
        org: &OrgId,
        over_at: Option<Timestamp>,
        page: PageRequest,
    ) -> StorageResult<Page<Silence>> {
        let mut conditions = Conditions::of(org)?;
        conditions.add("least(ends_at, ended_at) > $$", over_at.map(Time))?;
        self.pool
            .run_list(move |c| {
                Box::pin(async move {
                    let total = conditions.count(c, SILENCES).await?;
                    let rows = conditions.page(c, (SILENCES, SILENCE, "created_at"), page).await?;
                    Ok(Page { rows: rows.iter().map(silence_of).collect::<StorageResult<_>>()?, total, next: None })
                })
            })
            .await
    }

    async fn all_silences(&self, now: Timestamp) -> StorageResult<Vec<Silence>> {
        self.pool
            .run(Access::Read, move |c| {
                Box::pin(async move {
                    let sql =
                        format!("SELECT {SILENCE} FROM {SILENCES} WHERE least(ends_at, ended_at) > $1 ORDER BY id");
                    let rows = sqlx::query(AssertSqlSafe(sql)).bind(Time(now)).fetch_all(c).await?;
                    rows.iter().map(silence_of).collect()
                })
            })
            .await
    }
}

/// Waits until nobody else opens incidents of this organisation.
pub(super) async fn lock(c: &mut PgConnection, org: &OrgId) -> StorageResult<()> {
    sqlx::query("SELECT pg_advisory_xact_lock($1, hashtext($2))").bind(LOCK).bind(org.as_str()).execute(c).await?;
    Ok(())
}

async fn changed(
    c: &mut PgConnection,
    before: &Incident,
    action: &IncidentAction,
    by: &Actor,
) -> StorageResult<Incident> {
    let after = act(before, action, by)?;
    if after != *before || *action == IncidentAction::Comment {
        update(c, &after).await?;
        audit(c, before, &after, by).await?;
    }
    Ok(after)
}

async fn audit(c: &mut PgConnection, before: &Incident, after: &Incident, by: &Actor) -> StorageResult<()> {
    let (old, new) = (Some(incident_values(before)?), Some(incident_values(after)?));
    Change { table: "incidents", record_id: after.id, old, new, org: &after.org, by }.write(c).await
}

async fn find(c: &mut PgConnection, org: &OrgId, id: IncidentId, lock: &str) -> StorageResult<Incident> {
    let sql = format!("SELECT {COLUMNS} FROM {INCIDENTS} WHERE id = $1 AND org = $2 {lock}");
    let row = sqlx::query(AssertSqlSafe(sql)).bind(id).bind(org.as_str()).fetch_optional(c).await?;
    of_row(&row.ok_or_else(|| not_found("incident"))?)
}

/// The incidents of these keys that decide about their next alerts, locked.
pub(super) async fn newest(c: &mut PgConnection, org: &OrgId, keys: &[&str]) -> StorageResult<Vec<Incident>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM {INCIDENTS} WHERE id IN (SELECT max(id) FROM {INCIDENTS} \
         WHERE org = $1 AND group_key = ANY($2) GROUP BY group_key) ORDER BY id FOR UPDATE"
    );
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(org.as_str()).bind(keys).fetch_all(c).await?;
    rows.iter().map(of_row).collect()
}

/// Writes a new incident, and gives it its number.
pub(super) async fn insert(c: &mut PgConnection, incident: &mut Incident) -> StorageResult<()> {
    let names = COLUMNS.trim_start_matches("id, ");
    let places: Vec<String> = (1..=names.split(',').count()).map(|n| format!("${n}")).collect();
    let sql = format!("INSERT INTO {INCIDENTS} ({names}) VALUES ({}) RETURNING id", places.join(", "));
    incident.id = bound!(sqlx::query_scalar::<_, i64>(AssertSqlSafe(sql)), incident).fetch_one(c).await?;
    Ok(())
}

/// Writes an incident whole.
pub(super) async fn update(c: &mut PgConnection, incident: &Incident) -> StorageResult<()> {
    let names = COLUMNS.trim_start_matches("id, ").split(", ");
    let sets: Vec<String> = names.enumerate().map(|(n, name)| format!("{name} = ${}", n + 1)).collect();
    let sql = format!("UPDATE {INCIDENTS} SET {} WHERE id = ${}", sets.join(", "), sets.len() + 1);
    bound!(sqlx::query(AssertSqlSafe(sql)), incident).bind(incident.id).execute(c).await?;
    Ok(())
}

fn of_row(row: &PgRow) -> StorageResult<Incident> {
    let time = |n: usize| row.try_get::<Option<Time>, _>(n).map(|time| time.map(|Time(time)| time));
    let number = |n: usize| row.try_get::<i64, _>(n).map(|n| u64::try_from(n).unwrap_or(0));
    let severity = |code: i32| severity_of(u8::try_from(code).unwrap_or(u8::MAX));
    let (Time(first_seen), Time(last_seen)) = (row.try_get(9)?, row.try_get(10)?);
    let waiting = match (time(26)?, row.try_get::<Option<Key>, _>(27)?) {
        (Some(until), Some(alert)) => {
            Some(Waiting { until, alert: alert.alert(), severity: severity(row.try_get(28)?), alerts: number(29)? })
        }
        _ => None,
    };
    Ok(Incident {
        id: row.try_get(0)?,
        org: org_of(row.try_get(1)?)?,
        key: row.try_get(2)?,
        // The CHECK of the column names the same four.
        status: IncidentStatus::parse(row.try_get(3)?).unwrap_or(IncidentStatus::Active),
        rule_uid: row.try_get(4)?,
        title: row.try_get(5)?,
        severity: severity(row.try_get(6)?),
        team: row.try_get(7)?,
        host: row.try_get(8)?,
        first_seen,
        last_seen,
        last_alert: row.try_get::<Key, _>(11)?.alert(),
        alerts: number(12)?,
        told: number(13)?,
        silenced: number(14)?,
        assignee: row.try_get(15)?,
        acknowledged: row.try_get::<Option<String>, _>(16)?.zip(time(17)?),
        closed: row.try_get::<Option<String>, _>(18)?.zip(time(19)?),
        comment: row.try_get(20)?,
        last_told: time(21)?,
        told_severity: row.try_get::<Option<i32>, _>(22)?.map(severity),
        resolve_at: time(23)?,
        escalate_at: time(24)?,
        escalations: u32::try_from(row.try_get::<i32, _>(25)?).unwrap_or(0),
        waiting,
    })
}

fn silence_of(row: &PgRow) -> StorageResult<Silence> {
    let (Time(from), Time(until), Time(created_at)) = (row.try_get(3)?, row.try_get(4)?, row.try_get(7)?);
    Ok(Silence {
        id: row.try_get(0)?,
        org: org_of(row.try_get(1)?)?,
        matcher: row.try_get(2)?,
        from,
        until,
        author: row.try_get(5)?,
        reason: row.try_get(6)?,
        created_at,
        ended_at: row.try_get::<Option<Time>, _>(8)?.map(|Time(time)| time),
    })
}
