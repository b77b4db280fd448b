//! Counts by age. There is no archive and there are no partitions.

use super::{Key, SqliteCatalog};
use crate::StorageResult;
use crate::catalog::fields::first_id_at;
use crate::catalog::retention::{COUNT_MAX, Cutoffs, Holdings, Outdated, RetentionStore};
use async_trait::async_trait;
use model::AlertState;
use rusqlite::{Connection, Params, params};

const CLOSED: &str = "incidents WHERE status IN ('RESOLVED', 'DISMISSED') AND last_seen < ?";
const OVER: &str = "silences WHERE min(ends_at, coalesce(ended_at, ends_at)) < ?";

fn count(c: &Connection, rows: &str, of: impl Params) -> StorageResult<u64> {
    let sql = format!("SELECT count(*) FROM (SELECT 1 FROM {rows} LIMIT {COUNT_MAX})");
    let n: i64 = c.prepare_cached(&sql)?.query_row(of, |row| row.get(0))?;
    Ok(u64::try_from(n).unwrap_or(0))
}

#[async_trait]
impl RetentionStore for SqliteCatalog {
    async fn outdated(&self, before: Cutoffs) -> StorageResult<Outdated> {
        self.database
            .read(move |c| {
                let first_kept = || Key::blob(first_id_at(before.events));
                Ok(Outdated {
                    events: count(c, "event_audit_log WHERE event_id < ?", params![first_kept()])?,
                    archived: None,
                    alerts: count(
                        c,
                        "alerts WHERE id < ? AND state <> ?",
                        params![first_kept(), AlertState::Pending.as_str()],
                    )?,
                    incidents: count(c, CLOSED, params![before.events.micros()])?
                        + count(c, OVER, params![before.changes.micros()])?,
                    changes: count(c, "config_audit_log WHERE changed_at < ?", params![before.changes.micros()])?,
                })
            })
            .await
    }

    async fn holdings(&self) -> StorageResult<Holdings> {
        self.database.read(|c| Ok(Holdings { events: count(c, "event_audit_log", [])?, ..Holdings::default() })).await
    }
}
