//! The embedded catalog: one SQLite file, one module per aggregate.
//!
//! Pages are resolved over ids alone: a deep page skips index entries (about 20 million a second),
//! never rows, and only the rows of the page are read.

mod alerts;
mod audit;
mod detection_rules;
mod fleet;
mod hosts;
mod incidents;
mod retention;
mod rules;
mod schedules;
mod users;

use super::fields::{PAGE_ROWS_MAX, operation_of};
use super::{Actor, Catalog, Cursor, PageRequest};
use crate::StorageResult;
use crate::sqlite::{Database, Durability, Tuning};
use async_trait::async_trait;
use model::{AlertId, EventId, OrgId, Timestamp};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, Value, ValueRef};
use rusqlite::{Connection, Transaction, params};
use std::path::Path;

const STEPS: [&str; 8] = [
    include_str!("../../../migrations/sqlite/catalog/0001.sql"),
    include_str!("../../../migrations/sqlite/catalog/0002.sql"),
    include_str!("../../../migrations/sqlite/catalog/0003.sql"),
    include_str!("../../../migrations/sqlite/catalog/0004.sql"),
    include_str!("../../../migrations/sqlite/catalog/0005.sql"),
    include_str!("../../../migrations/sqlite/catalog/0006.sql"),
    include_str!("../../../migrations/sqlite/catalog/0007.sql"),
    include_str!("../../../migrations/sqlite/catalog/0008.sql"),
];

/// Audit rows touch a few indexes each: checkpoints that come seldom write a page of those once for
/// many rows.
const TUNING: Tuning =
    Tuning { durability: Durability::Full, cache_kib: 16 << 10, page_bytes: None, autocheckpoint_pages: 8_000 };

pub(super) struct SqliteCatalog {
    database: Database,
}

impl SqliteCatalog {
    pub fn open(file: &Path) -> StorageResult<Self> {
        Ok(Self { database: Database::open(file, TUNING, &STEPS)? })
    }
}

/// Steps of the schema that opening this file would make.
pub(super) fn pending_steps(file: &Path) -> StorageResult<Vec<String>> {
    let done = crate::sqlite::version_of(file, STEPS.len())?;
    Ok((done + 1..=STEPS.len()).map(|n| format!("{n}: catalog")).collect())
}

#[async_trait]
impl Catalog for SqliteCatalog {
    async fn ping(&self) -> StorageResult<()> {
        self.database.read(|c| revision(c).map(drop)).await
    }
}

fn revision(connection: &Connection) -> StorageResult<u64> {
    let mut statement = connection.prepare_cached("SELECT value FROM meta WHERE name = 'revision'")?;
    let revision: i64 = statement.query_row([], |row| row.get(0))?;
    Ok(u64::try_from(revision).unwrap_or(0))
}

fn move_revision(transaction: &Transaction<'_>) -> StorageResult<()> {
    transaction.execute("UPDATE meta SET value = value + 1 WHERE name = 'revision'", [])?;
    Ok(())
}

/// One change of a configuration table, for its audit row.
struct Change<'a> {
    table: &'static str,
    record_id: i64,
    old: Option<String>,
    new: Option<String>,
    org: &'a OrgId,
    by: &'a Actor,
}

impl Change<'_> {
    fn write(self, transaction: &Transaction<'_>) -> StorageResult<()> {
        let operation = operation_of(self.old.as_ref(), self.new.as_ref());
        let mut insert = transaction.prepare_cached(
            "INSERT INTO config_audit_log (org, changed_at, changed_by, operation, table_name, record_id, old_values, \
             new_values, reason, correlation_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?;
        insert.execute(params![
            self.org.as_str(),
            self.by.at.micros(),
            self.by.name,
            operation,
            self.table,
            self.record_id,
            self.old,
            self.new,
            self.by.reason,
            self.by.correlation_id,
        ])?;
        Ok(())
    }
}

/// `WHERE …` as it grows, with its values in order.
struct Conditions {
    sql: String,
    values: Vec<Value>,
}

impl Conditions {
    fn of(org: &OrgId) -> Self {
        Self { sql: "org = ?".into(), values: vec![Value::Text(org.as_str().into())] }
    }
    fn add<T: Into<Value>>(&mut self, sql: &str, value: Option<T>) {
        if let Some(value) = value {
            self.sql.push_str(" AND ");
            self.sql.push_str(sql);
            self.values.push(value.into());
        }
    }
    /// `from ≤ column ≤ to`.
    fn add_range(&mut self, column: &str, from: Option<Timestamp>, to: Option<Timestamp>) {
        self.add(&format!("{column} >= ?"), from.map(Timestamp::micros));
        self.add(&format!("{column} <= ?"), to.map(Timestamp::micros));
    }
    fn count(&self, connection: &Connection, table: &str) -> StorageResult<u64> {
        let mut statement = connection.prepare_cached(&format!("SELECT count(*) FROM {table} WHERE {}", self.sql))?;
        let total: i64 = statement.query_row(rusqlite::params_from_iter(&self.values), |row| row.get(0))?;
        Ok(u64::try_from(total).unwrap_or(0))
    }
    /// Only what comes after that place in a list by `time`.
    fn begin_after(&mut self, time: &str, after: Option<Cursor>) {
        if let Some(Cursor { time: micros, id }) = after {
            self.add(&format!("({time}, rowid) < (?, ?)"), Some(micros));
            self.values.push(Value::Integer(id));
        }
    }
    /// One page, newest by `time` first, of `columns` of `table` with the row id `rowid`.
    fn page<T>(
        self,
        connection: &Connection,
        (table, columns, time): (&str, &str, &str),
        page: PageRequest,
        read: impl Fn(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> StorageResult<Vec<T>> {
        let limit = page.limit.min(PAGE_ROWS_MAX);
        let skip = page.page.saturating_sub(1).saturating_mul(limit);
        let mut values = self.values;
        values.push(Value::Integer(i64::try_from(limit).unwrap_or(i64::MAX)));
        values.push(Value::Integer(i64::try_from(skip).unwrap_or(i64::MAX)));
        let mut statement = connection.prepare_cached(&format!(
            "SELECT {columns} FROM {table} WHERE rowid IN \
             (SELECT rowid FROM {table} WHERE {} ORDER BY {time} DESC, rowid DESC LIMIT ? OFFSET ?) \
             ORDER BY {time} DESC, rowid DESC",
            self.sql
        ))?;
        let rows = statement.query_map(rusqlite::params_from_iter(values), read)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

/// The page that begins where a cursor says, or the one with the number.
fn page_at(page: PageRequest, after: Option<Cursor>) -> PageRequest {
    PageRequest { page: if after.is_some() { 1 } else { page.page }, ..page }
}

/// Where the page after this one begins, when this one is full.
fn next_of<T>(rows: &[T], page: PageRequest, place: impl Fn(&T) -> (Timestamp, i64)) -> Option<Cursor> {
    let (time, id) = place(rows.last()?);
    (rows.len() as u64 == page.limit.min(PAGE_ROWS_MAX)).then_some(Cursor { time: time.micros(), id })
}

/// An id as its 16 bytes.
struct Key(u128);

impl Key {
    fn blob(id: u128) -> Value {
        Value::Blob(id.to_be_bytes().to_vec())
    }
    fn event(self) -> EventId {
        EventId::from_u128(self.0)
    }
    fn alert(self) -> AlertId {
        AlertId::from_u128(self.0)
    }
}

impl FromSql for Key {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let bytes = <[u8; 16]>::try_from(value.as_blob()?).map_err(|_| FromSqlError::InvalidType)?;
        Ok(Self(u128::from_be_bytes(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pages_and_counts_never_scan_a_table() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = SqliteCatalog::open(&dir.path().join("catalog.db")).unwrap();
        let plans = catalog
            .database
            .read(|c| {
                let mut plans = Vec::new();
                for sql in [
                    "SELECT rowid FROM event_audit_log WHERE org = ? ORDER BY event_timestamp DESC, rowid DESC",
                    "SELECT rowid FROM event_audit_log WHERE org = ? AND hostname = ? \
                     ORDER BY event_timestamp DESC, rowid DESC",
                    "SELECT rowid FROM event_audit_log WHERE org = ? AND matched_rule_id = ? \
                     ORDER BY event_timestamp DESC, rowid DESC",
                    "SELECT count(*) FROM event_audit_log WHERE org = ? AND hostname = ? AND event_timestamp >= ?",
                    "SELECT rowid FROM alerts WHERE org = ? ORDER BY created_at DESC, rowid DESC",
                    "SELECT rowid FROM alerts WHERE org = ? AND state = ? ORDER BY created_at DESC, rowid DESC",
                    "SELECT rowid FROM event_audit_log WHERE org = ? AND (event_timestamp, rowid) < (?, ?) \
                     ORDER BY event_timestamp DESC, rowid DESC",
                    "SELECT rowid FROM incidents WHERE org = ? ORDER BY last_seen DESC, rowid DESC",
                    "SELECT rowid FROM alerts WHERE org = ? AND incident_id = ? ORDER BY created_at DESC, rowid DESC",
                    "SELECT rowid FROM config_audit_log WHERE org = ? ORDER BY changed_at DESC, rowid DESC",
                ] {
                    let mut explain = c.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
                    let n = explain.parameter_count();
                    let plan: Vec<String> = explain
                        .query_map(rusqlite::params_from_iter(vec![Value::Null; n]), |row| row.get(3))?
                        .collect::<rusqlite::Result<_>>()?;
                    plans.push((sql, plan.join("; ")));
                }
                Ok(plans)
            })
            .await
            .unwrap();
        for (sql, plan) in plans {
            assert!(plan.contains("USING COVERING INDEX") && !plan.contains("B-TREE"), "{sql}: {plan}");
        }
    }
}
