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
    if steps == 0 {
        advice.extend(rights(&mut connection).await?);
    }
    connection.close().await?;
    Ok(advice)
}

/// Tables, and what our login does with them.
const RIGHTS: [(&str, &[&str]); 28] = [
    ("alert_rules", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("development_hosts", &["SELECT", "INSERT", "DELETE"]),
    ("device_teams", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("event_audit_log", &["SELECT", "INSERT", "DELETE"]),
    ("event_audit_log_archive", &["SELECT", "INSERT", "DELETE"]),
    ("config_audit_log", &["SELECT", "INSERT", "DELETE"]),
    ("alerts", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("muttd_event_counts", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("muttd_incidents", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("muttd_silences", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("muttd_schedules", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("muttd_schedule_runs", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("muttd_schedule_gaps", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("muttd_meta", &["SELECT"]),
    ("muttd_detection_orgs", &["SELECT", "INSERT", "UPDATE"]),
    ("muttd_detection_documents", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("muttd_detection_versions", &["SELECT", "INSERT", "DELETE"]),
    ("muttd_detection_settings", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("muttd_correlation_workers", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("muttd_correlation_shards", &["SELECT", "UPDATE"]),
    ("muttd_correlation_state", &["SELECT", "INSERT", "DELETE"]),
    ("muttd_correlation_hits", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("muttd_users", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("muttd_user_keys", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("muttd_orgs", &["SELECT", "INSERT", "UPDATE"]),
    ("muttd_agent_tokens", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("muttd_agents", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("muttd_agent_bars", &["SELECT", "INSERT", "DELETE"]),
];

/// Functions that not everybody may call.
const FUNCTIONS: [&str; 3] =
    ["muttd_make_month(date, boolean)", "muttd_count_partitions()", "muttd_drop_empty_partitions(timestamptz)"];

async fn rights(c: &mut PgConnection) -> StorageResult<Vec<String>> {
    let wanted: Vec<(&str, &str)> =
        RIGHTS.iter().flat_map(|(table, rights)| rights.iter().map(move |right| (*table, *right))).collect();
    let (tables, rights): (Vec<&str>, Vec<&str>) = wanted.into_iter().unzip();
    let mut lacking: Vec<String> = sqlx::query_scalar(
        "SELECT string_agg(w.r, ', ' ORDER BY w.n) || ' on ' || w.t \
         FROM UNNEST($1::text[], $2::text[]) WITH ORDINALITY w (t, r, n) \
         WHERE NOT has_table_privilege(to_regclass(w.t), w.r) GROUP BY w.t ORDER BY min(w.n)",
    )
    .bind(tables)
    .bind(rights)
    .fetch_all(&mut *c)
    .await?;
    let functions: Vec<String> = sqlx::query_scalar(
        "SELECT 'EXECUTE on ' || f FROM UNNEST($1::text[]) f WHERE NOT has_function_privilege(to_regprocedure(f), 'EXECUTE')",
    )
    .bind(FUNCTIONS.to_vec())
    .fetch_all(&mut *c)
    .await?;
    let sequences: Vec<String> = sqlx::query_scalar(
        "SELECT 'USAGE on ' || s FROM UNNEST(ARRAY['alert_rules', 'event_audit_log', 'event_audit_log_archive', \
                                                   'config_audit_log']) t, pg_get_serial_sequence(t, 'id') s \
         WHERE NOT has_sequence_privilege(s, 'USAGE')",
    )
    .fetch_all(&mut *c)
    .await?;
    lacking.extend(functions.into_iter().chain(sequences));
    let mut advice = Vec::new();
    if !lacking.is_empty() {
        advice.push(format!(
            "the login lacks rights, and what needs them fails: {}; grant them (docs/postgresql.md)",
            lacking.join("; ")
        ));
    }
    let owner: Option<String> = sqlx::query_scalar(
        "SELECT r.rolname::text FROM pg_class k JOIN pg_roles r ON r.oid = k.relowner \
         WHERE k.oid = to_regclass('event_audit_log') AND NOT has_schema_privilege(r.oid, k.relnamespace, 'CREATE')",
    )
    .fetch_optional(c)
    .await?;
    advice.extend(owner.map(|owner| {
        format!("no partition can be made: {owner} owns event_audit_log and has no right to CREATE in its schema")
    }));
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
