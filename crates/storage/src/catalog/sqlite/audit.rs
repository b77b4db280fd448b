//! The two audit logs and their retention.

use super::{Conditions, Key, SqliteCatalog, next_of, page_at};
use crate::StorageResult;
use crate::catalog::fields::{check_operation, first_id_at, like_substring};
use crate::catalog::{
    AuditEntry, AuditFilter, AuditRow, AuditStore, ConfigChange, ConfigChangeFilter, Page, PageRequest, Purged,
};
use async_trait::async_trait;
use bytes::Bytes;
use model::{AlertState, EventId, OrgId, RuleId, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use std::collections::BTreeMap;

const EVENT_COLUMNS: &str = "id, event_id, event_timestamp, hostname, matched_rule_id, handling_decision, \
                             forwarded_to_moog, raw_message";
const CHANGE_COLUMNS: &str = "id, changed_at, changed_by, operation, table_name, record_id, old_values, new_values, \
                              reason, correlation_id";

#[async_trait]
impl AuditStore for SqliteCatalog {
    async fn audit_log(&self, org: &OrgId, filter: &AuditFilter, page: PageRequest) -> StorageResult<Page<AuditRow>> {
        let mut conditions = Conditions::of(org);
        conditions.add("hostname = ?", filter.hostname.clone());
        conditions.add("matched_rule_id = ?", filter.rule_id);
        conditions.add("event_id = ?", filter.event_id.map(|id| Key::blob(id.to_u128())));
        conditions.add_range("event_timestamp", filter.from, filter.to);
        let (org, after) = (org.clone(), filter.after);
        let page = page_at(page, after);
        self.database
            .read(move |c| {
                let unfiltered = conditions.values.len() == 1;
                let total = if unfiltered { counted(c, &org)? } else { conditions.count(c, "event_audit_log")? };
                conditions.begin_after("event_timestamp", after);
                let rows =
                    conditions.page(c, ("event_audit_log", EVENT_COLUMNS, "event_timestamp"), page, audit_row_of)?;
                let next = next_of(&rows, page, |row| (row.entry.event_timestamp, row.id));
                Ok(Page { rows, total, next })
            })
            .await
    }

    async fn config_changes(
        &self,
        org: &OrgId,
        filter: &ConfigChangeFilter,
        page: PageRequest,
    ) -> StorageResult<Page<ConfigChange>> {
        let mut conditions = Conditions::of(org);
        conditions.add(r"changed_by LIKE ? ESCAPE '\'", filter.changed_by.as_deref().map(like_substring));
        conditions.add("operation = ?", filter.operation.clone());
        conditions.add("table_name = ?", filter.table_name.clone());
        conditions.add("record_id = ?", filter.record_id);
        conditions.add_range("changed_at", filter.from, filter.to);
        let after = filter.after;
        let page = page_at(page, after);
        self.database
            .read(move |c| {
                let total = conditions.count(c, "config_audit_log")?;
                conditions.begin_after("changed_at", after);
                let rows = conditions.page(c, ("config_audit_log", CHANGE_COLUMNS, "changed_at"), page, change_of)?;
                let next = next_of(&rows, page, |change| (change.changed_at, change.id));
                Ok(Page { rows, total, next })
            })
            .await
    }

    async fn record_config_change(&self, org: &OrgId, change: ConfigChange) -> StorageResult<()> {
        check_operation(&change.operation)?;
        let org = org.clone();
        self.database
            .transact(move |t| {
                t.execute(
                    "INSERT INTO config_audit_log (org, changed_at, changed_by, operation, table_name, record_id, \
                     old_values, new_values, reason, correlation_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    params![
                        org.as_str(),
                        change.changed_at.micros(),
                        change.changed_by,
                        change.operation,
                        change.table_name,
                        change.record_id,
                        change.old_values,
                        change.new_values,
                        change.reason,
                        change.correlation_id.unwrap_or_default(),
                    ],
                )?;
                Ok(())
            })
            .await
    }

    async fn purge(&self, events_before: Timestamp, changes_before: Timestamp, limit: u64) -> StorageResult<Purged> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.database
            .transact(move |t| {
                let events = purge_events(t, events_before, limit)? as u64;
                let alerts = t.execute(
                    &format!(
                        "DELETE FROM alerts WHERE id IN (SELECT id FROM alerts WHERE id < ? AND state <> '{}' \
                         ORDER BY id LIMIT ?)",
                        AlertState::Pending.as_str()
                    ),
                    params![Key::blob(first_id_at(events_before)), limit],
                )? as u64;
                let changes = t.execute(
                    "DELETE FROM config_audit_log WHERE id IN \
                     (SELECT id FROM config_audit_log WHERE changed_at < ? ORDER BY changed_at LIMIT ?)",
                    params![changes_before.micros(), limit],
                )? as u64;
                let incidents = t.execute(
                    "DELETE FROM incidents WHERE id IN (SELECT id FROM incidents \
                     WHERE status IN ('RESOLVED', 'DISMISSED') AND last_seen < ? ORDER BY last_seen LIMIT ?)",
                    params![events_before.micros(), limit],
                )? as u64;
                let silences = t.execute(
                    "DELETE FROM silences WHERE id IN (SELECT id FROM silences \
                     WHERE min(ends_at, coalesce(ended_at, ends_at)) < ? LIMIT ?)",
                    params![changes_before.micros(), limit],
                )? as u64;
                Ok(Purged { events, alerts, incidents: incidents + silences, changes })
            })
            .await
    }
}

/// Inserts what is not there yet.
pub(super) fn insert_entries(t: &Transaction<'_>, org: &OrgId, entries: &[AuditEntry]) -> StorageResult<()> {
    let mut insert = t.prepare_cached(
        "INSERT INTO event_audit_log (org, event_id, event_timestamp, hostname, matched_rule_id, handling_decision, \
         forwarded_to_moog, raw_message) VALUES (?, ?, ?, ?, ?, ?, ?, ?) \
         ON CONFLICT (event_id, matched_rule_id, org) DO NOTHING",
    )?;
    let mut added = 0;
    for entry in entries {
        added += insert.execute(params![
            org.as_str(),
            entry.event_id.to_u128().to_be_bytes(),
            entry.event_timestamp.micros(),
            entry.hostname,
            entry.matched_rule_id,
            entry.handling_decision,
            entry.forwarded,
            String::from_utf8_lossy(&entry.raw_message),
        ])?;
    }
    add_to_count(t, org.as_str(), added as i64)
}

/// The alert of this row was forwarded after all.
pub(super) fn forwarded(t: &Transaction<'_>, org: &OrgId, event: EventId, rule: Option<RuleId>) -> StorageResult<()> {
    t.prepare_cached(
        "UPDATE event_audit_log SET forwarded_to_moog = 1 WHERE event_id = ? AND matched_rule_id = ? AND org = ?",
    )?
    .execute(params![Key::blob(event.to_u128()), rule, org.as_str()])?;
    Ok(())
}

fn purge_events(t: &Transaction<'_>, before: Timestamp, limit: i64) -> StorageResult<usize> {
    let mut gone: BTreeMap<String, i64> = BTreeMap::new();
    let mut rows = 0;
    {
        let mut delete = t.prepare_cached(
            "DELETE FROM event_audit_log WHERE id IN \
             (SELECT id FROM event_audit_log WHERE event_id < ? ORDER BY event_id LIMIT ?) RETURNING org",
        )?;
        let mut deleted = delete.query(params![Key::blob(first_id_at(before)), limit])?;
        while let Some(row) = deleted.next()? {
            let org = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
            match gone.get_mut(org) {
                Some(n) => *n += 1,
                None => {
                    gone.insert(org.to_owned(), 1);
                }
            }
            rows += 1;
        }
    }
    for (org, n) in gone {
        add_to_count(t, &org, -n)?;
    }
    Ok(rows)
}

fn add_to_count(t: &Transaction<'_>, org: &str, rows: i64) -> StorageResult<()> {
    if rows != 0 {
        t.prepare_cached(
            "INSERT INTO event_audit_count (org, rows) VALUES (?, ?) \
             ON CONFLICT (org) DO UPDATE SET rows = rows + excluded.rows",
        )?
        .execute(params![org, rows])?;
    }
    Ok(())
}

fn counted(connection: &Connection, org: &OrgId) -> StorageResult<u64> {
    let mut statement = connection.prepare_cached("SELECT rows FROM event_audit_count WHERE org = ?")?;
    let rows: Option<i64> = statement.query_row([org.as_str()], |row| row.get(0)).optional()?;
    Ok(rows.and_then(|n| u64::try_from(n).ok()).unwrap_or(0))
}

fn audit_row_of(row: &Row<'_>) -> rusqlite::Result<AuditRow> {
    let raw: Option<String> = row.get(7)?;
    Ok(AuditRow {
        id: row.get(0)?,
        has_raw: raw.is_some(),
        entry: AuditEntry {
            event_id: row.get::<_, Key>(1)?.event(),
            event_timestamp: Timestamp::from_micros(row.get(2)?),
            hostname: row.get(3)?,
            matched_rule_id: row.get(4)?,
            handling_decision: row.get(5)?,
            forwarded: row.get(6)?,
            raw_message: Bytes::from(raw.unwrap_or_default()),
        },
    })
}

fn change_of(row: &Row<'_>) -> rusqlite::Result<ConfigChange> {
    Ok(ConfigChange {
        id: row.get(0)?,
        changed_at: Timestamp::from_micros(row.get(1)?),
        changed_by: row.get(2)?,
        operation: row.get(3)?,
        table_name: row.get(4)?,
        record_id: row.get(5)?,
        old_values: row.get(6)?,
        new_values: row.get(7)?,
        reason: row.get(8)?,
        correlation_id: Some(row.get(9)?),
    })
}
