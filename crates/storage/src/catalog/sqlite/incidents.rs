//! Incidents and silences.

use super::{Change, Conditions, Key, SqliteCatalog, alerts};
use crate::StorageResult;
use crate::catalog::fields::{not_found, org_of, severity_of};
use crate::catalog::incidents::{
    Due, Incident, IncidentAction, IncidentFilter, IncidentId, IncidentStatus, IncidentStore, NewAlert, SILENCES_MAX,
    Silence, SilenceDraft, SilenceId, Waiting, act, by_time, check_silence, gathered_message, incident_values, is_due,
    newer_incident, silence_is_over, silence_values, told_late, too_many_silences,
};
use crate::catalog::{Actor, Page, PageRequest};
use async_trait::async_trait;
use model::{Alert, OrgId, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

const COLUMNS: &str = "id, org, group_key, status, rule_uid, title, severity, team, host, first_seen, last_seen, \
                       last_alert, alerts, told, silenced, assignee, acknowledged_by, acknowledged_at, closed_by, \
                       closed_at, comment, last_told, told_severity, resolve_at, escalate_at, escalations, tell_at, \
                       tell_alert, tell_severity, tell_alerts";
const SILENCE: &str = "id, org, matcher, starts_at, ends_at, author, reason, created_at, ended_at";
/// What the index of silences that are over holds.
const OVER: &str = "min(ends_at, coalesce(ended_at, ends_at))";
const OPEN: &str = "status IN ('ACTIVE', 'ACKNOWLEDGED')";
const INCIDENTS: &str = "incidents";
const SILENCES: &str = "silences";

#[async_trait]
impl IncidentStore for SqliteCatalog {
    async fn incident(&self, org: &OrgId, id: IncidentId) -> StorageResult<Incident> {
        let org = org.clone();
        self.database.read(move |c| find(c, &org, id)).await
    }

    async fn incidents(
        &self,
        org: &OrgId,
        filter: &IncidentFilter,
        page: PageRequest,
    ) -> StorageResult<Page<Incident>> {
        let mut conditions = Conditions::of(org);
        if !filter.status.is_empty() {
            let words: Vec<String> = filter.status.iter().map(|status| format!("'{}'", status.as_str())).collect();
            conditions.sql.push_str(&format!(" AND status IN ({})", words.join(", ")));
        }
        conditions.add("rule_uid = ?", filter.rule_uid.clone());
        conditions.add("host = ?", filter.host.clone());
        conditions.add("team = ?", filter.team.clone());
        conditions.add("assignee = ?", filter.assignee.clone());
        conditions.add_range("last_seen", filter.from, filter.to);
        self.database
            .read(move |c| {
                let total = conditions.count(c, INCIDENTS)?;
                let rows = conditions.page(c, (INCIDENTS, COLUMNS, "last_seen"), page, of_row)?;
                let rows = rows.into_iter().collect::<StorageResult<_>>()?;
                Ok(Page { rows, total, next: None })
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
        self.database
            .transact(move |t| {
                let before = find(t, &org, id)?;
                if action == IncidentAction::Reopen && newest(t, &org, &before.key)?.is_some_and(|n| n.id != id) {
                    return Err(newer_incident());
                }
                changed(t, &before, &action, &by)
            })
            .await
    }

    async fn open_incidents(&self) -> StorageResult<u64> {
        self.database.read(|c| count(c, &format!("SELECT count(*) FROM incidents WHERE {OPEN}"), [])).await
    }

    async fn resolve_quiet(&self, now: Timestamp, limit: usize) -> StorageResult<u64> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.database
            .transact(move |t| {
                let sql = format!(
                    "SELECT {COLUMNS} FROM incidents WHERE {OPEN} AND resolve_at <= ? AND tell_at IS NULL \
                     ORDER BY resolve_at LIMIT ?"
                );
                let due = all(t, &sql, params![now.micros(), limit])?;
                for incident in &due {
                    let quiet = format!("no alert since {}", incident.last_seen.rfc3339());
                    changed(t, incident, &IncidentAction::Resolve, &by_time(now, quiet))?;
                }
                Ok(due.len() as u64)
            })
            .await
    }

    async fn due_waiting(&self, now: Timestamp, limit: usize) -> StorageResult<Vec<Due>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.database
            .read(move |c| {
                let sql = format!("SELECT {COLUMNS} FROM incidents WHERE tell_at <= ? ORDER BY tell_at LIMIT ?");
                let due = all(c, &sql, params![now.micros(), limit])?.into_iter().map(|incident| {
                    let waiting = incident.waiting.as_ref().map_or(incident.last_alert, |waiting| waiting.alert);
                    Ok(Due { alert: alerts::find(c, &incident.org, waiting)?.alert, incident })
                });
                due.collect()
            })
            .await
    }

    async fn tell_waiting(&self, seen: &Incident, now: Timestamp) -> StorageResult<Option<Alert>> {
        let seen = seen.clone();
        self.database
            .transact(move |t| {
                let Some((after, waiting)) = told_late(&find(t, &seen.org, seen.id)?, &seen, now) else {
                    return Ok(None);
                };
                write(t, &after)?;
                let mut alert = alerts::find(t, &after.org, waiting.alert)?.alert;
                alert.message = gathered_message(&alert.message, waiting.alerts);
                alerts::tell(t, &alert, now)?;
                Ok(Some(alert))
            })
            .await
    }

    async fn due_escalations(&self, now: Timestamp, limit: usize) -> StorageResult<Vec<Due>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.database
            .read(move |c| {
                let sql = format!(
                    "SELECT {COLUMNS} FROM incidents WHERE status = 'ACTIVE' AND escalate_at <= ? \
                     AND tell_at IS NULL \
                     ORDER BY escalate_at LIMIT ?"
                );
                let due = all(c, &sql, params![now.micros(), limit])?.into_iter().map(|incident| {
                    let record = alerts::find(c, &incident.org, incident.last_alert)?;
                    Ok(Due { alert: record.alert, incident })
                });
                due.collect()
            })
            .await
    }

    async fn escalate(&self, seen: &Incident, alert: Alert) -> StorageResult<bool> {
        let seen = seen.clone();
        self.database
            .transact(move |t| {
                let before = find(t, &seen.org, seen.id)?;
                if !is_due(&before, &seen) {
                    return Ok(false);
                }
                let after = Incident { escalate_at: None, escalations: before.escalations + 1, ..before.clone() };
                write(t, &after)?;
                let by = by_time(alert.created_at, "nobody acknowledged it in time".to_owned());
                audit(t, &before, &after, &by)?;
                alerts::insert_planned(t, &[NewAlert::from(alert)], Some(seen.id))?;
                Ok(true)
            })
            .await
    }

    async fn create_silence(&self, org: &OrgId, draft: SilenceDraft, by: &Actor) -> StorageResult<Silence> {
        check_silence(&draft, by)?;
        let (org, by) = (org.clone(), by.clone());
        self.database
            .transact(move |t| {
                let sql = format!("SELECT count(*) FROM silences WHERE org = ? AND {OVER} > ?");
                if count(t, &sql, params![org.as_str(), by.at.micros()])? >= SILENCES_MAX {
                    return Err(too_many_silences());
                }
                let mut silence = Silence {
                    id: 0,
                    org,
                    matcher: draft.matcher,
                    from: draft.from,
                    until: draft.until,
                    author: by.name.clone(),
                    reason: by.reason.clone().unwrap_or_default(),
                    created_at: by.at,
                    ended_at: None,
                };
                silence.id = t
                    .prepare_cached(
                        "INSERT INTO silences (org, matcher, starts_at, ends_at, author, reason, created_at) \
                         VALUES (?, ?, ?, ?, ?, ?, ?)",
                    )?
                    .insert(params![
                        silence.org.as_str(),
                        silence.matcher,
                        silence.from.micros(),
                        silence.until.micros(),
                        silence.author,
                        silence.reason,
                        silence.created_at.micros(),
                    ])?;
                let new = Some(silence_values(&silence)?);
                Change { table: SILENCES, record_id: silence.id, old: None, new, org: &silence.org, by: &by }
                    .write(t)?;
                Ok(silence)
            })
            .await
    }

    async fn end_silence(&self, org: &OrgId, id: SilenceId, by: &Actor) -> StorageResult<Silence> {
        let (org, by) = (org.clone(), by.clone());
        self.database
            .transact(move |t| {
                let sql = format!("SELECT {SILENCE} FROM silences WHERE id = ? AND org = ?");
                let found = t.query_row(&sql, params![id, org.as_str()], silence_of).optional()?;
                let before = found.ok_or_else(|| not_found("silence"))??;
                if before.ended_at.is_some() || before.until <= by.at {
                    return Err(silence_is_over());
                }
                let after = Silence { ended_at: Some(by.at), ..before.clone() };
                t.execute("UPDATE silences SET ended_at = ? WHERE id = ?", params![by.at.micros(), id])?;
                let (old, new) = (Some(silence_values(&before)?), Some(silence_values(&after)?));
                Change { table: SILENCES, record_id: id, old, new, org: &org, by: &by }.write(t)?;
                Ok(after)
            })
            .await
    }

    async fn silences(
        &self,
        org: &OrgId,
        over_at: Option<Timestamp>,
        page: PageRequest,
    ) -> StorageResult<Page<Silence>> {
        let mut conditions = Conditions::of(org);
        conditions.add(&format!("{OVER} > ?"), over_at.map(Timestamp::micros));
        self.database
            .read(move |c| {
                let total = conditions.count(c, SILENCES)?;
                let rows = conditions.page(c, (SILENCES, SILENCE, "created_at"), page, silence_of)?;
                let rows = rows.into_iter().collect::<StorageResult<_>>()?;
                Ok(Page { rows, total, next: None })
            })
            .await
    }

    async fn all_silences(&self, now: Timestamp) -> StorageResult<Vec<Silence>> {
        self.database
            .read(move |c| {
                let sql = format!("SELECT {SILENCE} FROM silences WHERE {OVER} > ? ORDER BY id");
                let mut statement = c.prepare_cached(&sql)?;
                let rows = statement.query_map([now.micros()], silence_of)?;
                rows.map(|row| row?).collect()
            })
            .await
    }
}

fn changed(t: &Transaction<'_>, before: &Incident, action: &IncidentAction, by: &Actor) -> StorageResult<Incident> {
    let after = act(before, action, by)?;
    if after != *before || *action == IncidentAction::Comment {
        write(t, &after)?;
        audit(t, before, &after, by)?;
    }
    Ok(after)
}

fn audit(t: &Transaction<'_>, before: &Incident, after: &Incident, by: &Actor) -> StorageResult<()> {
    let (old, new) = (Some(incident_values(before)?), Some(incident_values(after)?));
    Change { table: INCIDENTS, record_id: after.id, old, new, org: &after.org, by }.write(t)
}

fn count(c: &Connection, sql: &str, values: impl rusqlite::Params) -> StorageResult<u64> {
    let n: i64 = c.prepare_cached(sql)?.query_row(values, |row| row.get(0))?;
    Ok(u64::try_from(n).unwrap_or(0))
}

fn all(c: &Connection, sql: &str, values: impl rusqlite::Params) -> StorageResult<Vec<Incident>> {
    let mut statement = c.prepare_cached(sql)?;
    let rows = statement.query_map(values, of_row)?;
    rows.map(|row| row?).collect()
}

fn find(c: &Connection, org: &OrgId, id: IncidentId) -> StorageResult<Incident> {
    let sql = format!("SELECT {COLUMNS} FROM incidents WHERE id = ? AND org = ?");
    all(c, &sql, params![id, org.as_str()])?.pop().ok_or_else(|| not_found("incident"))
}

/// The incident of a key that decides about its next alert.
pub(super) fn newest(c: &Connection, org: &OrgId, key: &str) -> StorageResult<Option<Incident>> {
    let sql = format!("SELECT {COLUMNS} FROM incidents WHERE org = ? AND group_key = ? ORDER BY id DESC LIMIT 1");
    Ok(all(c, &sql, params![org.as_str(), key])?.pop())
}

/// Writes an incident whole: a new one (id 0), or the one with its id. Returns the id.
pub(super) fn write(t: &Transaction<'_>, incident: &Incident) -> StorageResult<IncidentId> {
    let (acknowledged_by, acknowledged_at) = split(incident.acknowledged.as_ref());
    let (closed_by, closed_at) = split(incident.closed.as_ref());
    let id = (incident.id != 0).then_some(incident.id);
    let places = vec!["?"; COLUMNS.split(',').count()].join(", ");
    let updates: Vec<String> =
        COLUMNS.split(", ").filter(|name| *name != "id").map(|name| format!("{name} = excluded.{name}")).collect();
    let mut statement = t.prepare_cached(&format!(
        "INSERT INTO incidents ({COLUMNS}) VALUES ({places}) ON CONFLICT (id) DO UPDATE SET {}",
        updates.join(", ")
    ))?;
    statement.execute(params![
        id,
        incident.org.as_str(),
        incident.key,
        incident.status.as_str(),
        incident.rule_uid,
        incident.title,
        incident.severity.code(),
        incident.team,
        incident.host,
        incident.first_seen.micros(),
        incident.last_seen.micros(),
        Key::blob(incident.last_alert.to_u128()),
        whole(incident.alerts),
        whole(incident.told),
        whole(incident.silenced),
        incident.assignee,
        acknowledged_by,
        acknowledged_at,
        closed_by,
        closed_at,
        incident.comment,
        incident.last_told.map(Timestamp::micros),
        incident.told_severity.map(|severity| severity.code()),
        incident.resolve_at.map(Timestamp::micros),
        incident.escalate_at.map(Timestamp::micros),
        incident.escalations,
        incident.waiting.as_ref().map(|waiting| waiting.until.micros()),
        incident.waiting.as_ref().map(|waiting| Key::blob(waiting.alert.to_u128())),
        incident.waiting.as_ref().map(|waiting| waiting.severity.code()),
        incident.waiting.as_ref().map(|waiting| whole(waiting.alerts)),
    ])?;
    Ok(id.unwrap_or_else(|| t.last_insert_rowid()))
}

fn whole(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn split(done: Option<&(String, Timestamp)>) -> (Option<&str>, Option<i64>) {
    (done.map(|(by, _)| by.as_str()), done.map(|(_, at)| at.micros()))
}

fn of_row(row: &Row<'_>) -> rusqlite::Result<StorageResult<Incident>> {
    let time = |n: usize| row.get::<_, Option<i64>>(n).map(|micros| micros.map(Timestamp::from_micros));
    let number = |n: usize| row.get::<_, i64>(n).map(|n| u64::try_from(n).unwrap_or(0));
    let (org, status): (String, String) = (row.get(1)?, row.get(3)?);
    let waiting = match (time(26)?, row.get::<_, Option<Key>>(27)?) {
        (Some(until), Some(alert)) => {
            Some(Waiting { until, alert: alert.alert(), severity: severity_of(row.get(28)?), alerts: number(29)? })
        }
        _ => None,
    };
    let incident = Incident {
        id: row.get(0)?,
        org: OrgId::default(),
        key: row.get(2)?,
        // The CHECK of the column names the same four.
        status: IncidentStatus::parse(&status).unwrap_or(IncidentStatus::Active),
        rule_uid: row.get(4)?,
        title: row.get(5)?,
        severity: severity_of(row.get(6)?),
        team: row.get(7)?,
        host: row.get(8)?,
        first_seen: Timestamp::from_micros(row.get(9)?),
        last_seen: Timestamp::from_micros(row.get(10)?),
        last_alert: row.get::<_, Key>(11)?.alert(),
        alerts: number(12)?,
        told: number(13)?,
        silenced: number(14)?,
        assignee: row.get(15)?,
        acknowledged: row.get::<_, Option<String>>(16)?.zip(time(17)?),
        closed: row.get::<_, Option<String>>(18)?.zip(time(19)?),
        comment: row.get(20)?,
        last_told: time(21)?,
        told_severity: row.get::<_, Option<u8>>(22)?.map(severity_of),
        resolve_at: time(23)?,
        escalate_at: time(24)?,
        escalations: row.get(25)?,
        waiting,
    };
    Ok(org_of(&org).map(|org| Incident { org, ..incident }))
}

fn silence_of(row: &Row<'_>) -> rusqlite::Result<StorageResult<Silence>> {
    let org: String = row.get(1)?;
    let silence = Silence {
        id: row.get(0)?,
        org: OrgId::default(),
        matcher: row.get(2)?,
        from: Timestamp::from_micros(row.get(3)?),
        until: Timestamp::from_micros(row.get(4)?),
        author: row.get(5)?,
        reason: row.get(6)?,
        created_at: Timestamp::from_micros(row.get(7)?),
        ended_at: row.get::<_, Option<i64>>(8)?.map(Timestamp::from_micros),
    };
    Ok(org_of(&org).map(|org| Silence { org, ..silence }))
}
