//! The catalog in PostgreSQL (12 or newer), as a drop-in on a database of MUTT 2.5; one module per
//! aggregate.
//!
//! What always holds:
//! * Their tables keep their names and columns; ours are added with defaults. SQL of the original
//!   and of people goes on working, and moves the revision and the totals (by triggers).
//! * Every call is one transaction on one connection of [`pool::Pool`]; a call whose caller stops
//!   waiting is rolled back by the server.
//! * Text that PostgreSQL or a column cannot hold is changed the same way every time
//!   ([`values::fit`], [`values::jsonb`]): one hostile event never fails a batch.
//! * Pages are resolved over indexes; only the rows of the page are read. The unfiltered total comes
//!   from counters, not from the rows.

mod advice;
mod alerts;
mod audit;
mod correlations;
mod detection_rules;
mod error;
mod fleet;
mod hosts;
mod incidents;
mod migrate;
mod pool;
mod retention;
mod rules;
mod schedules;
mod users;
mod values;

pub use advice::postgres_advice;
pub(super) use migrate::pending_steps;

use super::fields::{PAGE_ROWS_MAX, operation_of};
use super::{Actor, Catalog, Cursor, PageRequest};
use crate::StorageResult;
use crate::correlations::CorrelationStore;
use async_trait::async_trait;
use audit::Months;
use model::{OrgId, Timestamp};
use pool::{Access, Pool};
use runtime::Credentials;
use sqlx::postgres::{PgArguments, PgConnection, PgRow, Postgres};
use sqlx::{Arguments, AssertSqlSafe, Encode, Row, Type};
use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;
use values::{RawTime, Time, fit, jsonb, no_nul};

/// Characters of a name in the log of changes.
const CHANGED_BY_CHARS: usize = 100;

/// Where the database is and how it is used.
#[derive(Debug, Clone)]
pub struct PostgresConfig {
    /// A name, an address, or the folder of a unix socket (begins with `/`).
    pub host: String,
    pub port: u16,
    pub database: String,
    /// Tried in order by every new connection; no user means `mutt_user`.
    pub credentials: Credentials,
    pub tls: PgTls,
    /// Connections kept when there is nothing to do.
    pub pool_min: u32,
    /// Connections at most; callers beyond that wait.
    pub pool_max: u32,
    /// Longest time of one statement; the server ends it then.
    pub statement_timeout: Duration,
    /// Longest wait for a connection, including the time to make one.
    pub acquire_timeout: Duration,
}

impl PostgresConfig {
    /// The contract's defaults: TLS verified against the system's authorities, 2 to 10 connections.
    pub fn new(host: impl Into<String>, port: u16, database: impl Into<String>, credentials: Credentials) -> Self {
        Self {
            host: host.into(),
            port,
            database: database.into(),
            credentials,
            tls: PgTls::Required { ca_file: None },
            pool_min: 2,
            pool_max: 10,
            statement_timeout: Duration::from_secs(30),
            acquire_timeout: Duration::from_secs(10),
        }
    }
}

/// Whether the way to the server is encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PgTls {
    Off,
    /// The server's chain and host name are verified, against the system's authorities and those of
    /// `ca_file` (PEM).
    Required {
        ca_file: Option<PathBuf>,
    },
}

pub(super) struct PostgresCatalog {
    pool: Pool,
    months: Months,
    /// Batches recorded since the counters were added up.
    recorded: AtomicU32,
    /// Hits of correlations that wait, as last counted, and those that were added since.
    waiting_hits: AtomicU64,
}

impl PostgresCatalog {
    /// Connects, brings the schema up to date and makes the partitions of this and the next months
    /// where that takes no time.
    pub async fn open(config: PostgresConfig) -> StorageResult<Self> {
        let pool = Pool::new(config)?;
        migrate::up_to_date(&pool).await?;
        let catalog = Self::with(pool);
        catalog.make_months_at_start().await;
        catalog.pool.warm_up().await?;
        Ok(catalog)
    }

    /// Connects to nothing yet and brings nothing up to date.
    pub fn as_it_is(config: PostgresConfig) -> StorageResult<Self> {
        Ok(Self::with(Pool::new(config)?))
    }

    fn with(pool: Pool) -> Self {
        Self { pool, months: Months::default(), recorded: AtomicU32::new(0), waiting_hits: AtomicU64::new(0) }
    }
}

#[async_trait]
impl Catalog for PostgresCatalog {
    async fn ping(&self) -> StorageResult<()> {
        self.pool.run(Access::Read, |c| Box::pin(async move { rules::revision(c).await.map(drop) })).await
    }

    fn correlations(self: Arc<Self>) -> Option<Arc<dyn CorrelationStore>> {
        Some(self)
    }
}

/// One change of a configuration table, for its audit row.
struct Change<'a> {
    table: &'a str,
    record_id: i64,
    old: Option<String>,
    new: Option<String>,
    org: &'a OrgId,
    by: &'a Actor,
}

impl Change<'_> {
    async fn write(self, c: &mut PgConnection) -> StorageResult<()> {
        let operation = operation_of(self.old.as_ref(), self.new.as_ref());
        self.write_as(operation, c).await
    }

    async fn write_as(self, operation: &str, c: &mut PgConnection) -> StorageResult<()> {
        sqlx::query(
            "INSERT INTO config_audit_log (org, changed_at, changed_by, operation, table_name, record_id, old_values, \
             new_values, reason, correlation_id) VALUES ($1, $2, $3, $4, $5, $6, $7::jsonb, $8::jsonb, $9, $10)",
        )
        .bind(self.org.as_str())
        .bind(Time(self.by.at))
        .bind(fit(&self.by.name, CHANGED_BY_CHARS))
        .bind(operation)
        .bind(fit(self.table, 50))
        .bind(values::int4(self.record_id))
        .bind(self.old.as_deref().map(jsonb))
        .bind(self.new.as_deref().map(jsonb))
        .bind(self.by.reason.as_deref().map(no_nul))
        .bind(correlation_id(self.by))
        .execute(c)
        .await?;
        Ok(())
    }
}

/// The same of many changes at once whose key is text; old and new values in their order.
async fn write_changes(
    c: &mut PgConnection,
    org: &OrgId,
    by: &Actor,
    table: &str,
    values: &[(Option<String>, Option<String>)],
) -> StorageResult<()> {
    let operations: Vec<&str> = values.iter().map(|(old, new)| operation_of(old.as_ref(), new.as_ref())).collect();
    sqlx::query(
        "INSERT INTO config_audit_log (org, changed_at, changed_by, operation, table_name, record_id, old_values, \
         new_values, reason, correlation_id) \
         SELECT $1, $2, $3, o, $5, 0, old::jsonb, new::jsonb, $8, $9 \
         FROM UNNEST($4::text[], $6::text[], $7::text[]) WITH ORDINALITY AS u (o, old, new, n) ORDER BY n",
    )
    .bind(org.as_str())
    .bind(Time(by.at))
    .bind(fit(&by.name, CHANGED_BY_CHARS))
    .bind(operations)
    .bind(fit(table, 50))
    .bind(values.iter().map(|(old, _)| old.as_deref().map(jsonb)).collect::<Vec<_>>())
    .bind(values.iter().map(|(_, new)| new.as_deref().map(jsonb)).collect::<Vec<_>>())
    .bind(by.reason.as_deref().map(no_nul))
    .bind(correlation_id(by))
    .execute(c)
    .await?;
    Ok(())
}

fn correlation_id(by: &Actor) -> Option<Cow<'_, str>> {
    Some(fit(&by.correlation_id, 36)).filter(|id| !id.is_empty())
}

/// `WHERE …` as it grows, with its values in order.
struct Conditions {
    sql: String,
    values: PgArguments,
    /// Of the organisation's rows all.
    unfiltered: bool,
}

impl Conditions {
    fn of(org: &OrgId) -> StorageResult<Self> {
        let mut new = Self { sql: "org = $1".into(), values: PgArguments::default(), unfiltered: true };
        new.push(org.as_str())?;
        Ok(new)
    }

    fn push<'t, T: Encode<'t, Postgres> + Type<Postgres>>(&mut self, value: T) -> StorageResult<usize> {
        self.values.add(value).map_err(sqlx::Error::Encode)?;
        Ok(self.values.len())
    }

    /// Adds `sql`, in which `$$` stands for the value.
    fn add<'t, T: Encode<'t, Postgres> + Type<Postgres>>(&mut self, sql: &str, value: Option<T>) -> StorageResult<()> {
        if let Some(value) = value {
            let n = self.push(value)?;
            self.sql.push_str(" AND ");
            self.sql.push_str(&sql.replace("$$", &format!("${n}")));
            self.unfiltered = false;
        }
        Ok(())
    }

    /// `from ≤ column ≤ to`.
    fn add_range(&mut self, column: &str, from: Option<Timestamp>, to: Option<Timestamp>) -> StorageResult<()> {
        self.add(&format!("{column} >= $$"), from.map(Time))?;
        self.add(&format!("{column} <= $$"), to.map(Time))
    }

    async fn count(&self, c: &mut PgConnection, table: &str) -> StorageResult<u64> {
        let sql = format!("SELECT count(*) FROM {table} WHERE {}", self.sql);
        let total: i64 = sqlx::query_scalar_with(AssertSqlSafe(sql), self.values.clone()).fetch_one(c).await?;
        Ok(u64::try_from(total).unwrap_or(0))
    }

    /// The page of [`Self::page`] that begins at `after`, or else the one with the number; and where the
    /// next one begins. Keys are numbers.
    async fn page_after(
        mut self,
        c: &mut PgConnection,
        (table, columns, time): (&str, &str, &str),
        mut page: PageRequest,
        after: Option<Cursor>,
    ) -> StorageResult<(Vec<PgRow>, Option<Cursor>)> {
        if let Some(after) = after {
            page.page = 1;
            let (at, id) = (self.push(RawTime(after.time))?, self.push(after.id)?);
            // The first condition spares partitions, which the second does not.
            self.sql.push_str(&format!(" AND {time} <= ${at} AND ({time}, id) < (${at}, ${id})"));
        }
        let rows = self.page(c, (table, columns, time), page).await?;
        let next = match rows.last() {
            Some(row) if rows.len() as u64 == page.limit.min(PAGE_ROWS_MAX) => {
                let RawTime(micros) = row.try_get(time)?;
                Some(Cursor { time: micros, id: row.try_get("id")? })
            }
            _ => None,
        };
        Ok((rows, next))
    }

    /// One page, newest by `time` first, of `columns` of `table`, whose key is (`id`, `time`).
    async fn page(
        mut self,
        c: &mut PgConnection,
        (table, columns, time): (&str, &str, &str),
        page: PageRequest,
    ) -> StorageResult<Vec<PgRow>> {
        let limit = page.limit.min(PAGE_ROWS_MAX);
        let skip = page.page.saturating_sub(1).saturating_mul(limit);
        let limit = self.push(i64::try_from(limit).unwrap_or(i64::MAX))?;
        let skip = self.push(i64::try_from(skip).unwrap_or(i64::MAX))?;
        let sql = format!(
            "SELECT {columns} FROM {table} JOIN \
             (SELECT id, {time} FROM {table} WHERE {} ORDER BY {time} DESC, id DESC LIMIT ${limit} OFFSET ${skip}) k \
             USING (id, {time}) ORDER BY {time} DESC, id DESC",
            self.sql
        );
        Ok(sqlx::query_with(AssertSqlSafe(sql), self.values).fetch_all(c).await?)
    }
}
