//! Correlations of several workers.
//!
//! Who holds what is decided by one worker at a time (an advisory lock), by the server's clock. A commit
//! holds the rows of its shards, so that a takeover comes before it or after it, never in between; a
//! takeover passes over rows that are held, so that nobody waits for a worker that died in a commit: the
//! server ends that one's transaction soon.

use super::PostgresCatalog;
use super::pool::Access;
use super::values::Key;
use crate::catalog::org_of;
use crate::correlations::{
    Commit, CorrelationStore, Fold, HOLD_FOR, Held, HitKey, Hold, NewHit, Parts, SHARDS, ShardHeld, TAKEN_KEPT,
    WAITING_MAX, Waiting, WorkerId, check_held, check_hit, check_room, fenced, fold, moves, taken_already,
};
use crate::{StorageError, StorageResult};
use async_trait::async_trait;
use model::{ErrorKind, OrgId};
use rules::correlate::shard;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Executor, Row};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// Number of the advisory lock: "muttc" in ASCII.
const LOCK: i64 = 0x006d_7574_7463;
/// Rows and bytes of one INSERT at most.
const CHUNK_ROWS: usize = 5_000;
const CHUNK_BYTES: usize = 8 << 20;
/// Hits that are forgotten in one go.
const FORGET_MAX: i64 = 20_000;
/// Rows are looked up by their keys, whatever the statistics say: those of a table that is now empty and now
/// full say nothing.
const BY_KEYS: &str = "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; \
                       SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off";

#[async_trait]
impl CorrelationStore for PostgresCatalog {
    fn shards(&self) -> usize {
        SHARDS
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn hold(&self, worker: WorkerId) -> StorageResult<Held> {
        let holds = self.pool.run(Access::Write, move |c| Box::pin(hold(c, worker))).await?;
        if let Err(error) = self.pool.run(Access::Write, |c| Box::pin(forget(c))).await {
            tracing::debug!(%error, "hits of correlations that were taken could not be forgotten; trying again later");
        }
        let waiting = self.pool.run(Access::Read, |c| Box::pin(count_waiting(c))).await?;
        self.waiting_hits.store(waiting, Ordering::Relaxed);
        Ok(Held { holds, waiting })
    }

    async fn release(&self, worker: WorkerId) -> StorageResult<()> {
        self.pool
            .run(Access::Write, move |c| {
                Box::pin(async move {
                    lock(c).await?;
                    sqlx::query("DELETE FROM muttd_correlation_workers WHERE worker = $1")
                        .bind(Key(worker.0))
                        .execute(&mut *c)
                        .await?;
                    sqlx::query("UPDATE muttd_correlation_shards SET worker = NULL WHERE worker = $1")
                        .bind(Key(worker.0))
                        .execute(c)
                        .await?;
                    Ok(())
                })
            })
            .await
    }

    async fn load(&self, hold: Hold) -> StorageResult<Vec<(OrgId, u128, Parts)>> {
        self.pool
            .run(Access::Read, move |c| {
                Box::pin(async move {
                    check_epochs(c, &[hold], EPOCHS).await?;
                    let rows = sqlx::query(
                        "SELECT org, grp, part FROM muttd_correlation_state WHERE shard = $1 ORDER BY org, grp, seq",
                    )
                    .bind(shard_number(hold.shard))
                    .fetch_all(c)
                    .await?;
                    let mut groups: BTreeMap<(String, u128), Parts> = BTreeMap::new();
                    for row in rows {
                        let Key(group) = row.try_get(1)?;
                        groups.entry((row.try_get(0)?, group)).or_default().push(row.try_get(2)?);
                    }
                    groups.into_iter().map(|((org, group), parts)| Ok((org_of(&org)?, group, parts))).collect()
                })
            })
            .await
    }

    async fn add(&self, org: &OrgId, hits: Vec<NewHit>) -> StorageResult<()> {
        for hit in &hits {
            check_hit(hit)?;
        }
        if hits.is_empty() {
            return Ok(());
        }
        check_room(self.waiting_hits.load(Ordering::Relaxed))?;
        let count = hits.len() as u64;
        let hits = keyed(hits.into_iter().map(|hit| (org.clone(), hit)));
        self.pool.run(Access::Write, |c| Box::pin(async move { insert(c, &hits).await })).await?;
        self.waiting_hits.fetch_add(count, Ordering::Relaxed);
        Ok(())
    }

    async fn waiting(&self, holds: &[Hold], limit: usize) -> StorageResult<Vec<Waiting>> {
        if holds.is_empty() {
            return Ok(Vec::new());
        }
        let holds = holds.to_vec();
        self.pool.run(Access::Read, move |c| Box::pin(async move { waiting(c, &holds, limit).await })).await
    }

    async fn commit(&self, holds: &[Hold], commit: Commit) -> StorageResult<()> {
        if commit.is_empty() {
            return Ok(());
        }
        for key in &commit.taken {
            check_held(key.shard, holds)?;
        }
        for (_, hit) in &commit.found {
            check_hit(hit)?;
        }
        let holds = holds.to_vec();
        let folds = fold(commit.records, SHARDS, &holds)?;
        let (taken, found) = (commit.taken, keyed(commit.found));
        self.pool
            .run(Access::Write, |c| {
                Box::pin(async move {
                    // Who dies with the transaction open keeps its shards from others only so long.
                    c.execute("SET LOCAL idle_in_transaction_session_timeout = '5s'").await?;
                    c.execute(sqlx::raw_sql(BY_KEYS)).await?;
                    check_epochs(c, &holds, EPOCHS_LOCKED).await?;
                    take(c, &taken).await?;
                    store(c, &folds).await?;
                    insert(c, &found).await
                })
            })
            .await
    }
}

async fn lock(c: &mut PgConnection) -> StorageResult<()> {
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(c).await?;
    Ok(())
}

async fn hold(c: &mut PgConnection, worker: WorkerId) -> StorageResult<Vec<Hold>> {
    lock(c).await?;
    let alive = "SELECT alive_until >= clock_timestamp() FROM muttd_correlation_workers WHERE worker = $1";
    let was_alive: Option<bool> = sqlx::query_scalar(alive).bind(Key(worker.0)).fetch_optional(&mut *c).await?;
    // After the lock: waiting for it is no life.
    sqlx::query(
        "INSERT INTO muttd_correlation_workers (worker, alive_until) \
         VALUES ($1, clock_timestamp() + $2 * interval '1 millisecond') \
         ON CONFLICT (worker) DO UPDATE SET alive_until = excluded.alive_until",
    )
    .bind(Key(worker.0))
    .bind(i64::try_from(HOLD_FOR.as_millis()).unwrap_or(i64::MAX))
    .execute(&mut *c)
    .await?;
    // Who could not say so in time itself cannot tell whether others are dead or the server was: they get
    // one round to come back.
    if was_alive != Some(false) {
        let dead = "DELETE FROM muttd_correlation_workers WHERE alive_until < clock_timestamp()";
        sqlx::query(dead).execute(&mut *c).await?;
    }
    let alive: Vec<Key> =
        sqlx::query_scalar("SELECT worker FROM muttd_correlation_workers ORDER BY worker").fetch_all(&mut *c).await?;
    let alive: Vec<WorkerId> = alive.into_iter().map(|Key(worker)| WorkerId(worker)).collect();
    let rows =
        sqlx::query("SELECT shard, worker FROM muttd_correlation_shards ORDER BY shard").fetch_all(&mut *c).await?;
    let mut shards = Vec::with_capacity(rows.len());
    for row in rows {
        let holder = row.try_get::<Option<Key>, _>(1)?.map(|Key(worker)| WorkerId(worker));
        shards.push(ShardHeld {
            shard: shard_of(row.try_get(0)?)?,
            worker: holder.filter(|holder| alive.contains(holder)),
        });
    }
    let moves = moves(&shards, &alive, worker);
    for (shards, sql) in [
        (
            &moves.release,
            "UPDATE muttd_correlation_shards SET worker = NULL WHERE worker = $1 AND shard IN \
             (SELECT shard FROM muttd_correlation_shards WHERE shard = ANY ($2) FOR UPDATE SKIP LOCKED)",
        ),
        (
            &moves.take,
            "UPDATE muttd_correlation_shards SET worker = $1, epoch = epoch + 1 WHERE shard IN \
             (SELECT shard FROM muttd_correlation_shards WHERE shard = ANY ($2) FOR UPDATE SKIP LOCKED)",
        ),
    ] {
        if !shards.is_empty() {
            let numbers: Vec<i32> = shards.iter().copied().map(shard_number).collect();
            sqlx::query(sql).bind(Key(worker.0)).bind(numbers).execute(&mut *c).await?;
        }
    }
    let rows = sqlx::query("SELECT shard, epoch FROM muttd_correlation_shards WHERE worker = $1 ORDER BY shard")
        .bind(Key(worker.0))
        .fetch_all(c)
        .await?;
    let hold = |row: &PgRow| {
        let epoch: i64 = row.try_get(1)?;
        Ok(Hold { shard: shard_of(row.try_get(0)?)?, epoch: u64::try_from(epoch).unwrap_or(0) })
    };
    rows.iter().map(hold).collect()
}

async fn forget(c: &mut PgConnection) -> StorageResult<()> {
    sqlx::query(
        "DELETE FROM muttd_correlation_hits WHERE (shard, event, name, org) IN \
         (SELECT shard, event, name, org FROM muttd_correlation_hits \
          WHERE taken_at < clock_timestamp() - $1 * interval '1 second' LIMIT $2 FOR UPDATE SKIP LOCKED)",
    )
    .bind(i64::try_from(TAKEN_KEPT.as_secs()).unwrap_or(i64::MAX))
    .bind(FORGET_MAX)
    .execute(c)
    .await?;
    Ok(())
}

async fn count_waiting(c: &mut PgConnection) -> StorageResult<u64> {
    let n: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM (SELECT 1 FROM muttd_correlation_hits WHERE taken_at IS NULL LIMIT $1) w",
    )
    .bind(i64::try_from(WAITING_MAX).unwrap_or(i64::MAX))
    .fetch_one(c)
    .await?;
    Ok(u64::try_from(n).unwrap_or(0))
}

/// Whether all of these holds are in force.
const EPOCHS: &str = "SELECT 1 FROM muttd_correlation_shards s JOIN UNNEST($1::int4[], $2::int8[]) u (shard, epoch) \
                      ON s.shard = u.shard AND s.epoch = u.epoch";
/// The same, and they stay so until the transaction ends.
const EPOCHS_LOCKED: &str = "SELECT 1 FROM muttd_correlation_shards s \
                             JOIN UNNEST($1::int4[], $2::int8[]) u (shard, epoch) \
                             ON s.shard = u.shard AND s.epoch = u.epoch FOR SHARE OF s";

async fn check_epochs(c: &mut PgConnection, holds: &[Hold], sql: &'static str) -> StorageResult<()> {
    let shards: Vec<i32> = holds.iter().map(|hold| shard_number(hold.shard)).collect();
    let epochs: Vec<i64> = holds.iter().map(|hold| i64::try_from(hold.epoch).unwrap_or(i64::MAX)).collect();
    let there = sqlx::query(sql).bind(shards).bind(epochs).fetch_all(c).await?;
    if there.len() == holds.len() { Ok(()) } else { Err(fenced()) }
}

async fn waiting(c: &mut PgConnection, holds: &[Hold], limit: usize) -> StorageResult<Vec<Waiting>> {
    c.execute(sqlx::raw_sql(BY_KEYS)).await?;
    check_epochs(c, holds, EPOCHS).await?;
    let shards: Vec<i32> = holds.iter().map(|hold| shard_number(hold.shard)).collect();
    let rows = sqlx::query(
        "SELECT h.* FROM UNNEST($1::int4[]) s (shard) CROSS JOIN LATERAL \
         (SELECT shard, event, name, org, grp, hit, about FROM muttd_correlation_hits \
          WHERE shard = s.shard AND taken_at IS NULL ORDER BY event, name, org LIMIT $2) h \
         ORDER BY event, name, org",
    )
    .bind(shards)
    .bind(i64::try_from(limit.div_ceil(holds.len())).unwrap_or(i64::MAX))
    .fetch_all(c)
    .await?;
    let waiting = |row: &PgRow| {
        let (Key(event), Key(name), Key(group)) = (row.try_get(1)?, row.try_get(2)?, row.try_get(4)?);
        let key = HitKey { shard: shard_of(row.try_get(0)?)?, event, name, org: org_of(row.try_get(3)?)? };
        Ok(Waiting { key, group, hit: row.try_get(5)?, about: row.try_get(6)? })
    };
    rows.iter().map(waiting).collect()
}

/// In the order of their keys: those who insert the same wait for one another, never in a circle.
fn keyed(hits: impl IntoIterator<Item = (OrgId, NewHit)>) -> Vec<(HitKey, NewHit)> {
    let mut hits: Vec<(HitKey, NewHit)> =
        hits.into_iter().map(|(org, hit)| (HitKey::of(&org, &hit, SHARDS), hit)).collect();
    hits.sort_by(|(a, _), (b, _)| a.cmp(b));
    hits
}

async fn insert(c: &mut PgConnection, hits: &[(HitKey, NewHit)]) -> StorageResult<()> {
    let mut rest = hits;
    while !rest.is_empty() {
        let (mut rows, mut bytes) = (0, 0);
        while rows < rest.len().min(CHUNK_ROWS) && (rows == 0 || bytes < CHUNK_BYTES) {
            bytes += rest[rows].1.hit.len() + rest[rows].1.about.len();
            rows += 1;
        }
        let (chunk, later) = rest.split_at(rows);
        let columns = Keys::of(chunk.iter().map(|(key, _)| key));
        sqlx::query(
            "INSERT INTO muttd_correlation_hits (shard, event, name, org, grp, hit, about) \
             SELECT * FROM UNNEST($1::int4[], $2::uuid[], $3::uuid[], $4::text[], $5::uuid[], $6::bytea[], \
             $7::bytea[]) ON CONFLICT DO NOTHING",
        )
        .bind(columns.shards)
        .bind(columns.events)
        .bind(columns.names)
        .bind(columns.orgs)
        .bind(chunk.iter().map(|(_, hit)| Key(hit.group)).collect::<Vec<_>>())
        .bind(chunk.iter().map(|(_, hit)| &hit.hit[..]).collect::<Vec<_>>())
        .bind(chunk.iter().map(|(_, hit)| &hit.about[..]).collect::<Vec<_>>())
        .execute(&mut *c)
        .await?;
        rest = later;
    }
    Ok(())
}

async fn take(c: &mut PgConnection, taken: &[HitKey]) -> StorageResult<()> {
    for chunk in taken.chunks(CHUNK_ROWS) {
        let columns = Keys::of(chunk.iter());
        let done = sqlx::query(
            "UPDATE muttd_correlation_hits h SET hit = NULL, about = NULL, taken_at = clock_timestamp() \
             FROM UNNEST($1::int4[], $2::uuid[], $3::uuid[], $4::text[]) u (shard, event, name, org) \
             WHERE h.shard = u.shard AND h.event = u.event AND h.name = u.name AND h.org = u.org \
             AND h.taken_at IS NULL",
        )
        .bind(columns.shards)
        .bind(columns.events)
        .bind(columns.names)
        .bind(columns.orgs)
        .execute(&mut *c)
        .await?;
        if done.rows_affected() != chunk.len() as u64 {
            return Err(taken_already());
        }
    }
    Ok(())
}

/// The keys of hits as columns.
struct Keys<'k> {
    shards: Vec<i32>,
    events: Vec<Key>,
    names: Vec<Key>,
    orgs: Vec<&'k str>,
}

impl<'k> Keys<'k> {
    fn of(keys: impl Iterator<Item = &'k HitKey>) -> Self {
        let mut columns = Self { shards: Vec::new(), events: Vec::new(), names: Vec::new(), orgs: Vec::new() };
        for key in keys {
            columns.shards.push(shard_number(key.shard));
            columns.events.push(Key(key.event));
            columns.names.push(Key(key.name));
            columns.orgs.push(key.org.as_str());
        }
        columns
    }
}

async fn store(c: &mut PgConnection, folds: &BTreeMap<(OrgId, u128), Fold>) -> StorageResult<()> {
    let (mut shards, mut orgs, mut groups) = (Vec::new(), Vec::new(), Vec::new());
    for ((org, group), _) in folds.iter().filter(|(_, fold)| fold.anew) {
        shards.push(shard_number(shard(*group, SHARDS)));
        orgs.push(org.as_str());
        groups.push(Key(*group));
    }
    if !groups.is_empty() {
        sqlx::query(
            "DELETE FROM muttd_correlation_state s \
             USING UNNEST($1::int4[], $2::text[], $3::uuid[]) u (shard, org, grp) \
             WHERE s.shard = u.shard AND s.org = u.org AND s.grp = u.grp",
        )
        .bind(shards)
        .bind(orgs)
        .bind(groups)
        .execute(&mut *c)
        .await?;
    }
    let parts: Vec<(&OrgId, u128, &[u8])> = folds
        .iter()
        .flat_map(|((org, group), fold)| fold.parts.iter().map(move |part| (org, *group, &part[..])))
        .collect();
    let mut rest = &parts[..];
    while !rest.is_empty() {
        let (mut rows, mut bytes) = (0, 0);
        while rows < rest.len().min(CHUNK_ROWS) && (rows == 0 || bytes < CHUNK_BYTES) {
            bytes += rest[rows].2.len();
            rows += 1;
        }
        let (chunk, later) = rest.split_at(rows);
        // The numbers are given in the order of the rows.
        sqlx::query(
            "INSERT INTO muttd_correlation_state (shard, org, grp, part) SELECT s, o, g, p \
             FROM UNNEST($1::int4[], $2::text[], $3::uuid[], $4::bytea[]) WITH ORDINALITY u (s, o, g, p, n) ORDER BY n",
        )
        .bind(chunk.iter().map(|(_, group, _)| shard_number(shard(*group, SHARDS))).collect::<Vec<_>>())
        .bind(chunk.iter().map(|(org, ..)| org.as_str()).collect::<Vec<_>>())
        .bind(chunk.iter().map(|(_, group, _)| Key(*group)).collect::<Vec<_>>())
        .bind(chunk.iter().map(|(.., part)| *part).collect::<Vec<_>>())
        .execute(&mut *c)
        .await?;
        rest = later;
    }
    Ok(())
}

fn shard_number(shard: usize) -> i32 {
    i32::try_from(shard).unwrap_or(i32::MAX)
}

fn shard_of(number: i32) -> StorageResult<usize> {
    usize::try_from(number)
        .map_err(|e| StorageError::with_source(ErrorKind::Internal, "a shard of the correlations", e))
}
