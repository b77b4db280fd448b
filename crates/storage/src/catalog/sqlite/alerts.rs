//! Alerts and how far they came; the pending ones are the outbox of delivery.

use super::{Conditions, Key, SqliteCatalog, audit, incidents};
use crate::StorageResult;
use crate::catalog::detection;
use crate::catalog::fields::{foreign_alert, not_found, org_of, severity_of, state_of};
use crate::catalog::incidents::{IncidentId, NewAlert, Plan, join, kept_key, planned, truly_forwarded};
use crate::catalog::{AlertFilter, AlertProgress, AlertRecord, AlertStore, AuditEntry, Page, PageRequest};
use async_trait::async_trait;
use bytes::Bytes;
use model::{Alert, AlertId, AlertKind, AlertState, Handling, OrgId, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

const COLUMNS: &str = "id, org, kind, event_id, correlation_id, created_at, host, team, severity, handling, rule_id, \
                       signature, message, raw_json, state, state_at, attempts, detail, detection, \
                       incident_id";

#[async_trait]
impl AlertStore for SqliteCatalog {
    async fn record_planned(
        &self,
        org: &OrgId,
        audits: Vec<AuditEntry>,
        alerts: Vec<NewAlert>,
    ) -> StorageResult<Vec<AlertState>> {
        if alerts.iter().any(|new| new.alert.org != *org) {
            return Err(foreign_alert());
        }
        if audits.is_empty() && alerts.is_empty() {
            return Ok(Vec::new());
        }
        let org = org.clone();
        self.database
            .transact(move |t| {
                let states = insert_planned(t, &alerts, None)?;
                audit::insert_entries(t, &org, &truly_forwarded(audits, &alerts, &states))?;
                Ok(states)
            })
            .await
    }

    async fn alert_states(&self, ids: &[AlertId]) -> StorageResult<Vec<(AlertId, AlertState)>> {
        let ids = ids.to_vec();
        self.database
            .read(move |c| {
                let mut statement = c.prepare_cached("SELECT state FROM alerts WHERE id = ?")?;
                let mut states = Vec::with_capacity(ids.len());
                for id in ids {
                    let state: Option<String> =
                        statement.query_row([Key::blob(id.to_u128())], |row| row.get(0)).optional()?;
                    if let Some(state) = state {
                        states.push((id, state_of(&state)));
                    }
                }
                Ok(states)
            })
            .await
    }

    async fn mark_alerts(&self, progress: Vec<AlertProgress>) -> StorageResult<()> {
        if progress.is_empty() {
            return Ok(());
        }
        self.database
            .transact(move |t| {
                let mut update = t.prepare_cached(&format!(
                    "UPDATE alerts SET state = ?, state_at = ?, attempts = ?, detail = ? WHERE id = ? AND state <> '{}'",
                    AlertState::Delivered.as_str()
                ))?;
                for step in &progress {
                    update.execute(params![
                        step.state.as_str(),
                        step.at.micros(),
                        step.attempts,
                        step.detail,
                        Key::blob(step.id.to_u128()),
                    ])?;
                }
                Ok(())
            })
            .await
    }

    async fn pending_alerts(&self, after: Option<(Timestamp, AlertId)>, limit: usize) -> StorageResult<Vec<Alert>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let (created, id) = match after {
            Some((created, id)) => (created.micros(), Key::blob(id.to_u128())),
            None => (i64::MIN, Key::blob(0)),
        };
        self.database
            .read(move |c| {
                let mut statement = c.prepare_cached(&format!(
                    "SELECT {COLUMNS} FROM alerts WHERE state = 'pending' AND (created_at, id) > (?, ?) \
                     ORDER BY created_at, id LIMIT ?"
                ))?;
                let rows = statement.query_map(params![created, id, limit], AlertRow::of)?;
                rows.map(|row| Ok(row?.record()?.alert)).collect()
            })
            .await
    }

    async fn alert(&self, org: &OrgId, id: AlertId) -> StorageResult<AlertRecord> {
        let org = org.clone();
        self.database.read(move |c| find(c, &org, id)).await
    }

    async fn alerts(&self, org: &OrgId, filter: &AlertFilter, page: PageRequest) -> StorageResult<Page<AlertRecord>> {
        let mut conditions = Conditions::of(org);
        conditions.add("event_id = ?", filter.event_id.map(|id| Key::blob(id.to_u128())));
        conditions.add("host = ?", filter.hostname.clone());
        conditions.add("state = ?", filter.state.map(|s| s.as_str().to_owned()));
        conditions.add("incident_id = ?", filter.incident);
        conditions.add_range("created_at", filter.from, filter.to);
        self.database
            .read(move |c| {
                let total = conditions.count(c, "alerts")?;
                let rows = conditions.page(c, ("alerts", COLUMNS, "created_at"), page, AlertRow::of)?;
                let rows = rows.into_iter().map(AlertRow::record).collect::<StorageResult<_>>()?;
                Ok(Page { rows, total, next: None })
            })
            .await
    }
}

pub(super) fn find(c: &Connection, org: &OrgId, id: AlertId) -> StorageResult<AlertRecord> {
    let mut statement = c.prepare_cached(&format!("SELECT {COLUMNS} FROM alerts WHERE id = ? AND org = ?"))?;
    let row = statement.query_row(params![Key::blob(id.to_u128()), org.as_str()], AlertRow::of).optional()?;
    row.ok_or_else(|| not_found("alert"))?.record()
}

/// Of an alert of which nobody was told, somebody is told now.
pub(super) fn tell(t: &Transaction<'_>, alert: &Alert, now: Timestamp) -> StorageResult<()> {
    let mut update =
        t.prepare_cached("UPDATE alerts SET state = 'pending', state_at = ?, detail = NULL, message = ? WHERE id = ?")?;
    update.execute(params![now.micros(), alert.message, Key::blob(alert.id.to_u128())])?;
    if alert.rule_id.is_some() {
        audit::forwarded(t, &alert.org, alert.event_id, alert.rule_id)?;
    }
    Ok(())
}

/// Inserts those that are not there yet, each with its place in its incident (`of`: the one that they
/// are about); the state of each now.
pub(super) fn insert_planned(
    t: &Transaction<'_>,
    alerts: &[NewAlert],
    of: Option<IncidentId>,
) -> StorageResult<Vec<AlertState>> {
    let mut states = Vec::with_capacity(alerts.len());
    for NewAlert { alert, plan } in alerts {
        let known: Option<String> = t
            .prepare_cached("SELECT state FROM alerts WHERE id = ?")?
            .query_row([Key::blob(alert.id.to_u128())], |row| row.get(0))
            .optional()?;
        if let Some(known) = known {
            states.push(state_of(&known));
            continue;
        }
        let (state, detail, incident) = match plan {
            Plan::Tell | Plan::Silence(_) => {
                let (state, detail) = planned(plan);
                (state, detail, of)
            }
            Plan::Gather(gathering) => {
                let key = kept_key(&gathering.key);
                let newest = incidents::newest(t, &alert.org, &key)?;
                let (incident, state, detail) = join(newest.as_ref(), alert, gathering, &key);
                (state, detail, Some(incidents::write(t, &incident)?))
            }
        };
        insert(t, alert, state, detail.as_deref(), incident)?;
        states.push(state);
    }
    Ok(states)
}

fn insert(
    t: &Transaction<'_>,
    alert: &Alert,
    state: AlertState,
    detail: Option<&str>,
    incident: Option<IncidentId>,
) -> StorageResult<()> {
    let mut insert = t.prepare_cached(&format!(
        "INSERT INTO alerts ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?6, 0, ?, ?, ?)"
    ))?;
    insert.execute(params![
        alert.id.to_u128().to_be_bytes(),
        alert.org.as_str(),
        alert.kind.as_str(),
        alert.event_id.to_u128().to_be_bytes(),
        alert.correlation_id,
        alert.created_at.micros(),
        alert.host,
        alert.team,
        alert.severity.code(),
        alert.handling.as_str(),
        alert.rule_id,
        alert.signature,
        alert.message,
        &alert.raw_json[..],
        state.as_str(),
        detail,
        detection::column(alert.detection.as_deref()),
        incident,
    ])?;
    Ok(())
}

/// A row as read, before its words are understood.
struct AlertRow {
    record: AlertRecord,
    org: String,
}

impl AlertRow {
    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        let (kind, state): (String, String) = (row.get(2)?, row.get(14)?);
        let severity: u8 = row.get(8)?;
        let raw: Vec<u8> = row.get(13)?;
        Ok(Self {
            org: row.get(1)?,
            record: AlertRecord {
                alert: Alert {
                    id: row.get::<_, Key>(0)?.alert(),
                    org: OrgId::default(),
                    kind: AlertKind::parse(&kind).unwrap_or(AlertKind::Rule),
                    event_id: row.get::<_, Key>(3)?.event(),
                    correlation_id: row.get(4)?,
                    created_at: Timestamp::from_micros(row.get(5)?),
                    host: row.get(6)?,
                    team: row.get(7)?,
                    severity: severity_of(severity),
                    handling: Handling::new(row.get::<_, String>(9)?),
                    rule_id: row.get(10)?,
                    signature: row.get(11)?,
                    message: row.get(12)?,
                    raw_json: Bytes::from(raw),
                    detection: detection::of_column(row.get::<_, Option<String>>(18)?.as_deref()),
                },
                state: state_of(&state),
                state_at: Timestamp::from_micros(row.get(15)?),
                attempts: row.get(16)?,
                detail: row.get(17)?,
                incident: row.get(19)?,
            },
        })
    }

    fn record(self) -> StorageResult<AlertRecord> {
        let mut record = self.record;
        record.alert.org = org_of(&self.org)?;
        Ok(record)
    }
}
