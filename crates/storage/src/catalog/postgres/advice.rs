//! What a PostgreSQL that keeps the catalog should be, compared with what it is.

use super::PostgresConfig;
use super::migrate;
use super::pool::Pool;
use crate::StorageResult;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};

/// What of this server, seen with our login, can lose what was acknowledged or refuse to work; a
/// sentence each, with what to change. Empty: nothing. Changes nothing.
///
/// # Errors
/// When the server is not reached, refuses every login, is too old, or has a schema of another
/// program.
pub async fn postgres_advice(config: &PostgresConfig) -> StorageResult<Vec<String>> {
    let pool = Pool::new(config.clone())?;
    let mut connection = pool.connect_plain().await?;
    migrate::check_server(&mut connection).await?;
    let mut advice = Vec::new();
    let steps = migrate::pending(&mut connection).await?;
    if steps > 0 {
        advice.push(format!(
            "the schema lacks {steps} steps: the next start, or `muttd migrate`, makes them (the login then needs the \
             right to change the schema)"
        ));
    }
    advice.extend(settings(&mut connection).await?);
    connection.close().await?;
    Ok(advice)
}

async fn settings(c: &mut PgConnection) -> StorageResult<Vec<String>> {
    let row = sqlx::query(
        "SELECT pg_is_in_recovery(), current_setting('fsync') = 'off', current_setting('synchronous_commit') = 'off'",
    )
    .fetch_one(c)
    .await?;
    let (is_replica, no_fsync, late_commit) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let advice = [
        (is_replica, "this PostgreSQL is a replica: it refuses writes; name the primary"),
        (no_fsync, "fsync is off: a crash of the machine can destroy the database; set `fsync = on`"),
        (
            late_commit,
            "synchronous_commit is off: a crash loses the last moments of audit rows and alerts that were settled; set \
             it to `on`",
        ),
    ];
    Ok(advice.into_iter().filter(|(is_so, _)| *is_so).map(|(_, text)| text.to_owned()).collect())
}
