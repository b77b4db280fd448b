//! Brings the schema up to date, or says in words why not.
//!
//! Each step runs once, by one process at a time (an advisory lock); its checksum is kept. All steps
//! that are due are one transaction: whatever goes wrong, and whenever we are killed, a database is
//! as it was or adopted. A schema that is up to date is only read, so a user without the right to
//! change it can work.

use super::PostgresConfig;
use super::pool::Pool;
use crate::{StorageError, StorageResult};
use model::ErrorKind;
use sha2::{Digest, Sha256};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection, Executor, Row};

/// In order; the first is version 1. A step that was released never changes.
const STEPS: [(&str, &str); 13] = [
    ("settings", include_str!("../../../migrations/postgres/0001_settings.sql")),
    ("event_audit", include_str!("../../../migrations/postgres/0002_event_audit.sql")),
    ("functions", include_str!("../../../migrations/postgres/0003_functions.sql")),
    ("alerts", include_str!("../../../migrations/postgres/0004_alerts.sql")),
    ("users", include_str!("../../../migrations/postgres/0005_users.sql")),
    ("alert_indexes", include_str!("../../../migrations/postgres/0006_alert_indexes.sql")),
    ("detections", include_str!("../../../migrations/postgres/0007_detections.sql")),
    ("incidents", include_str!("../../../migrations/postgres/0008_incidents.sql")),
    ("detection_rules", include_str!("../../../migrations/postgres/0009_detection_rules.sql")),
    ("group_wait", include_str!("../../../migrations/postgres/0010_group_wait.sql")),
    ("correlations", include_str!("../../../migrations/postgres/0011_correlations.sql")),
    ("schedules", include_str!("../../../migrations/postgres/0012_schedules.sql")),
    ("fleet", include_str!("../../../migrations/postgres/0013_fleet.sql")),
];

/// Who owns and may use what the steps made; runs after them.
const RIGHTS: &str = include_str!("../../../migrations/postgres/rights.sql");

/// Number of the advisory lock: "muttd" in ASCII.
const LOCK: i64 = 0x006d_7574_7464;

/// Oldest server that has what the schema needs (`MATERIALIZED`, foreign keys of partitions).
const SERVER_MIN: i32 = 120_000;

pub(super) async fn up_to_date(pool: &Pool) -> StorageResult<()> {
    let mut connection = pool.connect_plain().await?;
    check_server(&mut connection).await?;
    if pending(&mut connection).await? > 0 {
        migrate(&mut connection).await?;
    }
    connection.close().await?;
    Ok(())
}

pub(super) async fn check_server(c: &mut PgConnection) -> StorageResult<()> {
    let row = sqlx::query("SELECT current_setting('server_version_num')::int4, current_setting('server_encoding')")
        .fetch_one(c)
        .await?;
    let (version, encoding): (i32, String) = (row.try_get(0)?, row.try_get(1)?);
    if version < SERVER_MIN {
        return Err(refused(format!("PostgreSQL 12 or newer is needed, the server is {}", version / 10_000)));
    }
    if encoding != "UTF8" {
        return Err(refused(format!(
            "the database's encoding is {encoding}; messages need UTF8: create it with ENCODING 'UTF8'"
        )));
    }
    Ok(())
}

/// Steps that are still to do.
pub(super) async fn pending(c: &mut PgConnection) -> StorageResult<usize> {
    let there: bool =
        sqlx::query_scalar("SELECT to_regclass('muttd_migrations') IS NOT NULL").fetch_one(&mut *c).await?;
    if !there {
        return Ok(STEPS.len());
    }
    let applied = sqlx::query("SELECT version, checksum FROM muttd_migrations ORDER BY version").fetch_all(c).await?;
    let applied: Vec<(i32, String)> = applied.iter().map(read_step).collect::<sqlx::Result<_>>()?;
    if applied.len() > STEPS.len() {
        return Err(refused(format!(
            "the database was written by a newer version of this program (its schema is {}, this build knows up to \
             {}); start that version, or restore a backup made before the update",
            applied.len(),
            STEPS.len()
        )));
    }
    for (n, ((version, checksum), (name, sql))) in applied.iter().zip(STEPS).enumerate() {
        if *version != version_of(n) || *checksum != checksum_of(sql) {
            return Err(refused(format!(
                "step {version} of the database's schema is not this program's step {} ({name}); was it made by \
                 another build?",
                n + 1
            )));
        }
    }
    Ok(STEPS.len() - applied.len())
}

/// Names of the steps that are still to do.
pub(in crate::catalog) async fn pending_steps(config: &PostgresConfig) -> StorageResult<Vec<String>> {
    let mut connection = Pool::new(config.clone())?.connect_plain().await?;
    check_server(&mut connection).await?;
    let done = STEPS.len() - pending(&mut connection).await?;
    connection.close().await?;
    let name = |(n, (name, _)): (usize, &(&str, &str))| format!("{}: {name}", version_of(n));
    Ok(STEPS.iter().enumerate().skip(done).map(name).collect())
}

fn read_step(row: &PgRow) -> sqlx::Result<(i32, String)> {
    Ok((row.try_get(0)?, row.try_get(1)?))
}

async fn migrate(c: &mut PgConnection) -> StorageResult<()> {
    // Indexes on a big log take their time.
    c.execute("SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0").await?;
    sqlx::query("SELECT pg_advisory_lock($1)").bind(LOCK).execute(&mut *c).await?;
    let done = apply(c).await;
    // The lock goes with the connection where the connection is broken.
    let _ = sqlx::query("SELECT pg_advisory_unlock($1)").bind(LOCK).execute(&mut *c).await;
    done
}

async fn apply(c: &mut PgConnection) -> StorageResult<()> {
    // New things go where the old ones are, wherever the user's search_path would put them.
    let schema: Option<String> = sqlx::query_scalar(
        "SELECT coalesce((SELECT n.nspname::text FROM pg_class k JOIN pg_namespace n ON n.oid = k.relnamespace \
         WHERE k.oid = coalesce(to_regclass('alert_rules'), to_regclass('event_audit_log'))), current_schema()::text)",
    )
    .fetch_one(&mut *c)
    .await?;
    let schema = schema.ok_or_else(|| refused("the search_path of the database's user names no schema"))?;
    sqlx::query("SELECT set_config('search_path', quote_ident($1), false)").bind(schema).execute(&mut *c).await?;
    let todo = pending(c).await?; // somebody else may have been first
    if todo == 0 {
        return Ok(());
    }
    let made = make(c, todo).await;
    if made.is_err() {
        let _ = c.execute("ROLLBACK").await;
    }
    made
}

async fn make(c: &mut PgConnection, todo: usize) -> StorageResult<()> {
    // A query that runs for hours must not make everybody queue behind us.
    c.execute("BEGIN; SET LOCAL lock_timeout = '60s'").await?;
    remember(c).await?;
    for (n, (name, sql)) in STEPS.iter().enumerate().skip(STEPS.len() - todo) {
        let version = version_of(n);
        apply_step(c, version, name, sql).await.map_err(|error| explain(&format!("step {version} ({name})"), error))?;
    }
    c.execute(sqlx::raw_sql(RIGHTS)).await.map_err(|error| explain("the last step (rights)", error))?;
    c.execute("COMMIT").await?;
    tracing::info!(version = version_of(STEPS.len() - 1), "brought the database's schema up to date");
    Ok(())
}

/// What [`RIGHTS`] has to know of the state before: the owner of the tables that are adopted (or
/// else ours), and what is there.
async fn remember(c: &mut PgConnection) -> sqlx::Result<()> {
    c.execute(
        "SELECT set_config('muttd.owner', coalesce((SELECT r.rolname::text FROM pg_class k \
             JOIN pg_roles r ON r.oid = k.relowner \
             WHERE k.oid = coalesce(to_regclass('event_audit_log'), to_regclass('alert_rules'))), current_user), true), \
         set_config('muttd.before', coalesce((SELECT string_agg(k.oid::text, ',') FROM pg_class k \
             WHERE k.relnamespace = current_schema()::regnamespace), ''), true)",
    )
    .await?;
    Ok(())
}

async fn apply_step(c: &mut PgConnection, version: i32, name: &str, sql: &'static str) -> sqlx::Result<()> {
    if version == 1 {
        c.execute(
            "CREATE TABLE IF NOT EXISTS muttd_migrations (version INTEGER PRIMARY KEY, name TEXT NOT NULL, \
             checksum TEXT NOT NULL, applied_at TIMESTAMPTZ NOT NULL DEFAULT now())",
        )
        .await?;
    }
    c.execute(sqlx::raw_sql(sql)).await?;
    sqlx::query("INSERT INTO muttd_migrations (version, name, checksum) VALUES ($1, $2, $3)")
        .bind(version)
        .bind(name)
        .bind(checksum_of(sql))
        .execute(&mut *c)
        .await?;
    Ok(())
}

fn version_of(index: usize) -> i32 {
    i32::try_from(index + 1).unwrap_or(i32::MAX)
}

fn checksum_of(sql: &str) -> String {
    Sha256::digest(sql.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn refused(text: impl Into<String>) -> StorageError {
    StorageError::new(ErrorKind::Invalid, text)
}

fn explain(step: &str, error: sqlx::Error) -> StorageError {
    let code = error.as_database_error().and_then(|e| e.code()).unwrap_or_default().into_owned();
    let said = error.as_database_error().map(|e| e.message().to_owned()).unwrap_or_default();
    match code.as_str() {
        "42501" => refused(format!(
            "{step} of the database's schema needs the owner of the tables: {said}; start once with \
             the owner's login, or make this user the owner"
        )),
        "55P03" => StorageError::new(
            ErrorKind::Unavailable,
            format!("{step} of the database's schema waited too long for a table that others use"),
        ),
        "" => error.into(),
        _ => refused(format!("{step} of the database's schema failed: {said} (SQLSTATE {code})")),
    }
}
