//! Alerts and how far they came; the pending ones are the outbox of delivery.

use super::audit::{HOST_CHARS, forwarded, insert_entries};
use super::pool::Access;
use super::values::{Key, Time, fit, no_nul};
use super::{Conditions, PostgresCatalog, incidents};
use crate::StorageResult;
use crate::catalog::detection;
use crate::catalog::fields::{foreign_alert, not_found, org_of, severity_of, state_of};
use crate::catalog::incidents::{Incident, IncidentId, NewAlert, Plan, join, kept_key, planned, truly_forwarded};
use crate::catalog::{AlertFilter, AlertProgress, AlertRecord, AlertStore, AuditEntry, Page, PageRequest};
use async_trait::async_trait;
use bytes::Bytes;
use model::{Alert, AlertId, AlertKind, AlertState, ErrorKind, Handling, OrgId, Timestamp};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row};
use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const COLUMNS: &str = "id, org, kind, event_id, correlation_id, created_at, coalesce(host_full, host), team, severity, \
                       handling, rule_id, signature, message, raw_json, state, state_at, attempts, detail, \
                       detection, incident_id";

/// Tries of a batch that met a partition in the making, or another worker with the same rows.
const TRIES: u32 = 5;
/// Batches after which the counters of rows are added up.
const COMPACT_EVERY: u32 = 500;

#[async_trait]
impl AlertStore for PostgresCatalog {
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
        self.make_partitions(&audits).await;
        let batch = Arc::new((org.clone(), audits, alerts));
        // Rows are there already only where a batch is repeated; looking first would cost every batch.
        let mut known = Known::Never;
        let mut tries = 1;
        let states = loop {
            let batch = Arc::clone(&batch);
            let written = self
                .pool
                .run(Access::Write, move |c| {
                    Box::pin(async move {
                        let (org, audits, alerts) = &*batch;
                        let states = insert_planned(c, org, alerts, known).await?;
                        let audits = truly_forwarded(audits.clone(), alerts, &states);
                        insert_entries(c, org, &audits, known).await?;
                        Ok(states)
                    })
                })
                .await;
            match written {
                Err(error) if error.kind() == ErrorKind::Conflict && known == Known::Never => known = Known::Maybe,
                Err(error) if error.retry_after == Some(Duration::ZERO) && tries < TRIES => tries += 1,
                Err(error) => return Err(error),
                Ok(states) => break states,
            }
        };
        self.compact_counts().await;
        Ok(states)
    }

    async fn alert_states(&self, ids: &[AlertId]) -> StorageResult<Vec<(AlertId, AlertState)>> {
        let keys: Vec<Key> = ids.iter().map(|id| Key(id.to_u128())).collect();
        let found = self.pool.run(Access::Read, |c| Box::pin(async move { states_of(c, keys).await })).await?;
        Ok(ids.iter().filter_map(|id| Some((*id, *found.get(id)?))).collect())
    }

    async fn mark_alerts(&self, progress: Vec<AlertProgress>) -> StorageResult<()> {
        // As if one by one: the last step of an alert counts, and none after its delivery.
        let mut last: BTreeMap<AlertId, AlertProgress> = BTreeMap::new();
        for step in progress {
            match last.get(&step.id) {
                Some(earlier) if earlier.state == AlertState::Delivered => {}
                _ => {
                    last.insert(step.id, step);
                }
            }
        }
        if last.is_empty() {
            return Ok(());
        }
        let steps: Vec<AlertProgress> = last.into_values().collect();
        self.pool
            .run(Access::Write, |c| {
                Box::pin(async move {
                    let ids: Vec<Key> = steps.iter().map(|s| Key(s.id.to_u128())).collect();
                    let states: Vec<&str> = steps.iter().map(|s| s.state.as_str()).collect();
                    let times: Vec<Time> = steps.iter().map(|s| Time(s.at)).collect();
                    let attempts: Vec<i32> =
                        steps.iter().map(|s| i32::try_from(s.attempts).unwrap_or(i32::MAX)).collect();
                    let details: Vec<Option<Cow<'_, str>>> =
                        steps.iter().map(|s| s.detail.as_deref().map(no_nul)).collect();
                    // Locked in the order of the ids, so that two callers never wait in a circle.
                    sqlx::query(
                        "WITH locked AS MATERIALIZED ( \
                             SELECT id FROM alerts WHERE id = ANY($1) AND state <> 'delivered' \
                             ORDER BY id FOR UPDATE) \
                         UPDATE alerts a SET state = s.state, state_at = s.state_at, attempts = s.attempts, \
                             detail = s.detail \
                         FROM UNNEST($1, $2::text[], $3, $4, $5::text[]) s (id, state, state_at, attempts, detail), \
                             locked l \
                         WHERE a.id = s.id AND l.id = a.id AND a.state <> 'delivered'",
                    )
                    .bind(ids)
                    .bind(states)
                    .bind(times)
                    .bind(attempts)
                    .bind(details)
                    .execute(c)
                    .await?;
                    Ok(())
                })
            })
            .await
    }

    async fn pending_alerts(&self, after: Option<(Timestamp, AlertId)>, limit: usize) -> StorageResult<Vec<Alert>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let (created, id) = match after {
            Some((created, id)) => (created, id.to_u128()),
            None => (Timestamp::from_micros(i64::MIN), 0),
        };
        self.pool
            .run(Access::Read, move |c| {
                Box::pin(async move {
                    let sql = format!(
                        "SELECT {COLUMNS} FROM alerts WHERE state = 'pending' AND (created_at, id) > ($1, $2) \
                         ORDER BY created_at, id LIMIT $3"
                    );
                    let rows = sqlx::query(AssertSqlSafe(sql))
                        .bind(Time(created))
                        .bind(Key(id))
                        .bind(limit)
                        .fetch_all(c)
                        .await?;
                    rows.iter().map(|row| Ok(record_of(row)?.alert)).collect()
                })
            })
            .await
    }

    async fn alert(&self, org: &OrgId, id: AlertId) -> StorageResult<AlertRecord> {
        let org = org.clone();
        self.pool.run(Access::Read, move |c| Box::pin(async move { find(c, &org, id).await })).await
    }

    async fn alerts(&self, org: &OrgId, filter: &AlertFilter, page: PageRequest) -> StorageResult<Page<AlertRecord>> {
        let mut conditions = Conditions::of(org)?;
        conditions.add("event_id = $$", filter.event_id.map(|id| Key(id.to_u128())))?;
        conditions.add("host = $$", filter.hostname.as_deref().map(|host| fit(host, HOST_CHARS)))?;
        conditions.add("state = $$", filter.state.map(AlertState::as_str))?;
        conditions.add("incident_id = $$", filter.incident)?;
        conditions.add_range("created_at", filter.from, filter.to)?;
        self.pool
            .run_list(move |c| {
                Box::pin(async move {
                    let total = conditions.count(c, "alerts").await?;
                    let rows = conditions.page(c, ("alerts", COLUMNS, "created_at"), page).await?;
                    Ok(Page { rows: rows.iter().map(record_of).collect::<StorageResult<_>>()?, total, next: None })
                })
            })
            .await
    }
}

impl PostgresCatalog {
    /// Adds up the counters of rows now and then. What fails here is done the next time.
    async fn compact_counts(&self) {
        if self.recorded.fetch_add(1, Ordering::Relaxed) % COMPACT_EVERY != COMPACT_EVERY - 1 {
            return;
        }
        let compacted = self
            .pool
            .run(Access::Write, |c| {
                Box::pin(async move {
                    sqlx::query("SELECT muttd_compact_counts()").execute(c).await?;
                    Ok(())
                })
            })
            .await;
        if let Err(error) = compacted {
            tracing::debug!(%error, "the counters of audit rows could not be added up now");
        }
    }
}

/// Whether rows that are being inserted may be there already.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// They are new; one that is not is a conflict, and nothing is inserted.
    Never,
    /// Those that are there stay as they are.
    Maybe,
}

impl Known {
    /// The end of an INSERT.
    pub(super) fn clause(self, key: &str) -> String {
        match self {
            Self::Never => String::new(),
            Self::Maybe => format!("ON CONFLICT ({key}) DO NOTHING"),
        }
    }
}

/// A row of `alerts` that is to be.
pub(super) struct AlertToWrite<'a> {
    pub alert: &'a Alert,
    pub state: AlertState,
    pub detail: Option<String>,
    pub incident: Option<IncidentId>,
}

pub(super) async fn find(c: &mut PgConnection, org: &OrgId, id: AlertId) -> StorageResult<AlertRecord> {
    let sql = format!("SELECT {COLUMNS} FROM alerts WHERE id = $1 AND org = $2");
    let row = sqlx::query(AssertSqlSafe(sql)).bind(Key(id.to_u128())).bind(org.as_str()).fetch_optional(c).await?;
    record_of(&row.ok_or_else(|| not_found("alert"))?)
}

/// Of an alert of which nobody was told, somebody is told now.
pub(super) async fn tell(c: &mut PgConnection, alert: &Alert, now: Timestamp) -> StorageResult<()> {
    sqlx::query("UPDATE alerts SET state = 'pending', state_at = $1, detail = NULL, message = $2 WHERE id = $3")
        .bind(Time(now))
        .bind(no_nul(&alert.message))
        .bind(Key(alert.id.to_u128()))
        .execute(&mut *c)
        .await?;
    if let Some(rule) = alert.rule_id {
        forwarded(c, &alert.org, alert.event_id, rule).await?;
    }
    Ok(())
}

async fn states_of(c: &mut PgConnection, ids: Vec<Key>) -> StorageResult<HashMap<AlertId, AlertState>> {
    let rows = sqlx::query("SELECT id, state FROM alerts WHERE id = ANY($1)").bind(ids).fetch_all(c).await?;
    let pairs = rows.iter().map(|row| Ok((row.try_get::<Key, _>(0)?.alert(), state_of(row.try_get::<&str, _>(1)?))));
    Ok(pairs.collect::<sqlx::Result<_>>()?)
}

/// Inserts what is not there yet, each with its place in its incident; the state of each now.
async fn insert_planned(
    c: &mut PgConnection,
    org: &OrgId,
    alerts: &[NewAlert],
    known: Known,
) -> StorageResult<Vec<AlertState>> {
    if alerts.is_empty() {
        return Ok(Vec::new());
    }
    let key = |new: &NewAlert| Key(new.alert.id.to_u128());
    let gathers = alerts.iter().any(|new| matches!(new.plan, Plan::Gather(_)));
    if gathers {
        incidents::lock(c, org).await?;
    }
    // An alert counts once in its incident: what is there already must be known.
    let mut states = if gathers || known == Known::Maybe {
        states_of(c, alerts.iter().map(key).collect()).await?
    } else {
        HashMap::new()
    };
    let mut new: Vec<&NewAlert> = Vec::with_capacity(alerts.len());
    for alert in alerts {
        if let Entry::Vacant(place) = states.entry(alert.alert.id) {
            place.insert(planned(&alert.plan).0);
            new.push(alert);
        }
    }
    let mut rows = gather(c, org, &new).await?;
    for row in &rows {
        states.insert(row.alert.id, row.state);
    }
    rows.sort_by_key(|row| row.alert.id);
    for chunk in rows.chunks(2_000) {
        insert_rows(c, chunk, known).await?;
    }
    Ok(alerts.iter().map(|new| states.get(&new.alert.id).copied().unwrap_or(AlertState::Pending)).collect())
}

/// The rows of new alerts; their incidents are written.
async fn gather<'a>(
    c: &mut PgConnection,
    org: &OrgId,
    alerts: &[&'a NewAlert],
) -> StorageResult<Vec<AlertToWrite<'a>>> {
    let keys: Vec<Option<String>> = alerts
        .iter()
        .map(|new| match &new.plan {
            Plan::Gather(gathering) => Some(kept_key(&gathering.key)),
            Plan::Tell | Plan::Silence(_) => None,
        })
        .collect();
    let asked: BTreeSet<&str> = keys.iter().flatten().map(String::as_str).collect();
    let mut newest: BTreeMap<String, Incident> = BTreeMap::new();
    if !asked.is_empty() {
        let asked: Vec<&str> = asked.into_iter().collect();
        for incident in incidents::newest(c, org, &asked).await? {
            newest.insert(incident.key.clone(), incident);
        }
    }
    let mut rows = Vec::with_capacity(alerts.len());
    let mut touched: BTreeSet<IncidentId> = BTreeSet::new();
    for (new, key) in alerts.iter().zip(keys) {
        let (Plan::Gather(gathering), Some(key)) = (&new.plan, key) else {
            let (state, detail) = planned(&new.plan);
            rows.push(AlertToWrite { alert: &new.alert, state, detail, incident: None });
            continue;
        };
        let (mut incident, state, detail) = join(newest.get(&key), &new.alert, gathering, &key);
        if incident.id == 0 {
            incidents::insert(c, &mut incident).await?;
        } else {
            touched.insert(incident.id);
        }
        rows.push(AlertToWrite { alert: &new.alert, state, detail, incident: Some(incident.id) });
        newest.insert(key, incident);
    }
    for incident in newest.values().filter(|incident| touched.contains(&incident.id)) {
        incidents::update(c, incident).await?;
    }
    Ok(rows)
}

pub(super) async fn insert_rows(c: &mut PgConnection, rows: &[AlertToWrite<'_>], known: Known) -> StorageResult<()> {
    fn texts<'a>(alerts: &[&'a Alert], field: impl Fn(&'a Alert) -> &'a str) -> Vec<Cow<'a, str>> {
        alerts.iter().map(|alert| no_nul(field(alert))).collect()
    }
    let states: Vec<&str> = rows.iter().map(|row| row.state.as_str()).collect();
    let details: Vec<Option<&str>> = rows.iter().map(|row| row.detail.as_deref()).collect();
    let incidents: Vec<Option<IncidentId>> = rows.iter().map(|row| row.incident).collect();
    let alerts: Vec<&Alert> = rows.iter().map(|row| row.alert).collect();
    let alerts = &alerts[..];
    let ids: Vec<Key> = alerts.iter().map(|a| Key(a.id.to_u128())).collect();
    let orgs: Vec<&str> = alerts.iter().map(|a| a.org.as_str()).collect();
    let kinds: Vec<&str> = alerts.iter().map(|a| a.kind.as_str()).collect();
    let events: Vec<Key> = alerts.iter().map(|a| Key(a.event_id.to_u128())).collect();
    let created: Vec<Time> = alerts.iter().map(|a| Time(a.created_at)).collect();
    let hosts: Vec<Cow<'_, str>> = alerts.iter().map(|a| fit(&a.host, HOST_CHARS)).collect();
    let full = |a: &&Alert| (fit(&a.host, HOST_CHARS) != no_nul(&a.host)).then(|| no_nul(&a.host).into_owned());
    let full_hosts: Vec<Option<String>> = alerts.iter().map(full).collect();
    let severities: Vec<i32> = alerts.iter().map(|a| i32::from(a.severity.code())).collect();
    let rules: Vec<Option<i64>> = alerts.iter().map(|a| a.rule_id).collect();
    let raw: Vec<&[u8]> = alerts.iter().map(|a| &a.raw_json[..]).collect();
    let detections: Vec<Option<String>> = alerts.iter().map(|a| detection::column(a.detection.as_deref())).collect();
    let sql = format!(
        "INSERT INTO alerts (id, org, kind, event_id, correlation_id, created_at, host, host_full, team, severity, \
                             handling, rule_id, signature, message, raw_json, detection, state, state_at, \
                             detail, incident_id) \
         SELECT id, org, kind, event_id, correlation_id, created_at, host, host_full, team, severity, handling, \
                rule_id, signature, message, raw_json, detection, state, created_at, detail, incident_id \
         FROM UNNEST($1, $2::text[], $3::text[], $4, $5::text[], $6, $7::text[], $8::text[], $9::text[], $10, \
                     $11::text[], $12, $13::text[], $14::text[], $15::bytea[], $16::text[], $17::text[], \
                     $18::text[], $19::bigint[]) \
              n (id, org, kind, event_id, correlation_id, created_at, host, host_full, team, severity, handling, \
                 rule_id, signature, message, raw_json, detection, state, detail, incident_id) \
         {}",
        known.clause("id")
    );
    sqlx::query(AssertSqlSafe(sql))
        .bind(ids)
        .bind(orgs)
        .bind(kinds)
        .bind(events)
        .bind(texts(alerts, |a| &a.correlation_id))
        .bind(created)
        .bind(hosts)
        .bind(full_hosts)
        .bind(texts(alerts, |a| &a.team))
        .bind(severities)
        .bind(texts(alerts, |a| a.handling.as_str()))
        .bind(rules)
        .bind(texts(alerts, |a| &a.signature))
        .bind(texts(alerts, |a| &a.message))
        .bind(raw)
        .bind(detections)
        .bind(states)
        .bind(details)
        .bind(incidents)
        .execute(c)
        .await?;
    Ok(())
}

fn record_of(row: &PgRow) -> StorageResult<AlertRecord> {
    let Time(created_at) = row.try_get(5)?;
    let Time(state_at) = row.try_get(15)?;
    let severity: i32 = row.try_get(8)?;
    let attempts: i32 = row.try_get(16)?;
    Ok(AlertRecord {
        alert: Alert {
            id: row.try_get::<Key, _>(0)?.alert(),
            org: org_of(row.try_get(1)?)?,
            kind: AlertKind::parse(row.try_get(2)?).unwrap_or(AlertKind::Rule),
            event_id: row.try_get::<Key, _>(3)?.event(),
            correlation_id: row.try_get(4)?,
            created_at,
            host: row.try_get(6)?,
            team: row.try_get(7)?,
            severity: severity_of(u8::try_from(severity).unwrap_or(u8::MAX)),
            handling: Handling::new(row.try_get::<String, _>(9)?),
            rule_id: row.try_get(10)?,
            signature: row.try_get(11)?,
            message: row.try_get(12)?,
            raw_json: Bytes::from(row.try_get::<Vec<u8>, _>(13)?),
            detection: detection::of_column(row.try_get(18)?),
        },
        state: state_of(row.try_get(14)?),
        state_at,
        attempts: u32::try_from(attempts).unwrap_or(0),
        detail: row.try_get(17)?,
        incident: row.try_get(19)?,
    })
}
