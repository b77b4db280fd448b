//! The store of one process: a file with one shard, which is always held.

use super::{
    Commit, CorrelationStore, Held, HitKey, Hold, NewHit, Parts, TAKEN_KEPT, WAITING_MAX, Waiting, WorkerId, check_hit,
    check_room, fenced, fold, taken_already,
};
use crate::StorageResult;
use crate::catalog::org_of;
use crate::sqlite::{Database, Tuning};
use async_trait::async_trait;
use model::OrgId;
use rusqlite::{Connection, Transaction, params};
use std::collections::BTreeMap;
use std::path::Path;

const STEPS: [&str; 2] = [
    include_str!("../../migrations/sqlite/correlations/0001.sql"),
    include_str!("../../migrations/sqlite/correlations/0002.sql"),
];

const HOLD: Hold = Hold { shard: 0, epoch: 1 };
/// Hits that are forgotten in one go.
const FORGET_MAX: i64 = 10_000;

/// The file.
pub struct LocalCorrelations(Database);

impl LocalCorrelations {
    /// Opens or creates it.
    pub fn open(file: &Path) -> StorageResult<Self> {
        Ok(Self(Database::open(file, Tuning::default(), &STEPS)?))
    }
}

#[async_trait]
impl CorrelationStore for LocalCorrelations {
    fn shards(&self) -> usize {
        1
    }

    fn is_shared(&self) -> bool {
        false
    }

    async fn hold(&self, _worker: WorkerId) -> StorageResult<Held> {
        let waiting = self
            .0
            .transact(|t| {
                let kept = i64::try_from(TAKEN_KEPT.as_secs()).unwrap_or(i64::MAX);
                t.prepare_cached(
                    "DELETE FROM correlation_hits WHERE rowid IN (SELECT rowid FROM correlation_hits \
                     WHERE taken_at < unixepoch() - ? LIMIT ?)",
                )?
                .execute(params![kept, FORGET_MAX])?;
                count_waiting(t)
            })
            .await?;
        Ok(Held { holds: vec![HOLD], waiting })
    }

    async fn release(&self, _worker: WorkerId) -> StorageResult<()> {
        Ok(())
    }

    async fn load(&self, hold: Hold) -> StorageResult<Vec<(OrgId, u128, Parts)>> {
        check_fence(&[hold])?;
        let rows = self
            .0
            .read(|connection| {
                let mut select =
                    connection.prepare("SELECT org, grp, part FROM correlation_state ORDER BY org, grp, seq")?;
                let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
                Ok(rows.collect::<rusqlite::Result<Vec<(String, [u8; 16], Vec<u8>)>>>()?)
            })
            .await?;
        let mut groups: BTreeMap<(String, u128), Parts> = BTreeMap::new();
        for (org, group, part) in rows {
            groups.entry((org, u128::from_be_bytes(group))).or_default().push(part);
        }
        // A name that is none any more cannot have events.
        let known = groups.into_iter().filter_map(|((org, group), parts)| Some((org.parse().ok()?, group, parts)));
        Ok(known.collect())
    }

    async fn add(&self, org: &OrgId, hits: Vec<NewHit>) -> StorageResult<()> {
        for hit in &hits {
            check_hit(hit)?;
        }
        if hits.is_empty() {
            return Ok(());
        }
        let org = org.clone();
        self.0
            .transact(move |t| {
                check_room(count_waiting(t)?)?;
                hits.iter().try_for_each(|hit| insert(t, &org, hit))
            })
            .await
    }

    async fn waiting(&self, holds: &[Hold], limit: usize) -> StorageResult<Vec<Waiting>> {
        check_fence(holds)?;
        if holds.is_empty() {
            return Ok(Vec::new());
        }
        self.0
            .read(move |c| {
                let mut select = c.prepare_cached(
                    "SELECT org, event, name, grp, hit, about FROM correlation_hits WHERE taken_at IS NULL \
                     ORDER BY event, name, org LIMIT ?",
                )?;
                let mut rows = select.query([i64::try_from(limit).unwrap_or(i64::MAX)])?;
                let mut waiting = Vec::new();
                while let Some(row) = rows.next()? {
                    let number = |column| Ok::<_, rusqlite::Error>(u128::from_be_bytes(row.get(column)?));
                    let org = org_of(&row.get::<_, String>(0)?)?;
                    waiting.push(Waiting {
                        key: HitKey { shard: HOLD.shard, event: number(1)?, name: number(2)?, org },
                        group: number(3)?,
                        hit: row.get(4)?,
                        about: row.get(5)?,
                    });
                }
                Ok(waiting)
            })
            .await
    }

    async fn commit(&self, holds: &[Hold], commit: Commit) -> StorageResult<()> {
        check_fence(holds)?;
        if commit.is_empty() {
            return Ok(());
        }
        for (_, hit) in &commit.found {
            check_hit(hit)?;
        }
        let folds = fold(commit.records, self.shards(), holds)?;
        self.0
            .transact(move |t| {
                for key in &commit.taken {
                    take(t, key)?;
                }
                let mut delete = t.prepare_cached("DELETE FROM correlation_state WHERE org = ?1 AND grp = ?2")?;
                let mut insert_part = t.prepare_cached(
                    "INSERT INTO correlation_state (org, grp, seq, part) VALUES (?1, ?2, \
                     (SELECT coalesce(max(seq), 0) + 1 FROM correlation_state WHERE org = ?1 AND grp = ?2), ?3)",
                )?;
                for ((org, group), fold) in &folds {
                    let group = group.to_be_bytes();
                    if fold.anew {
                        delete.execute(params![org.as_str(), group])?;
                    }
                    for part in &fold.parts {
                        insert_part.execute(params![org.as_str(), group, part])?;
                    }
                }
                commit.found.iter().try_for_each(|(org, hit)| insert(t, org, hit))
            })
            .await
    }
}

fn check_fence(holds: &[Hold]) -> StorageResult<()> {
    if holds.iter().all(|hold| *hold == HOLD) { Ok(()) } else { Err(fenced()) }
}

fn count_waiting(c: &Connection) -> StorageResult<u64> {
    let mut count =
        c.prepare_cached("SELECT count(*) FROM (SELECT 1 FROM correlation_hits WHERE taken_at IS NULL LIMIT ?)")?;
    let n: i64 = count.query_row([i64::try_from(WAITING_MAX).unwrap_or(i64::MAX)], |row| row.get(0))?;
    Ok(u64::try_from(n).unwrap_or(0))
}

fn insert(t: &Transaction<'_>, org: &OrgId, hit: &NewHit) -> StorageResult<()> {
    let key = HitKey::of(org, hit, 1);
    t.prepare_cached(
        "INSERT INTO correlation_hits (event, name, org, grp, hit, about) VALUES (?, ?, ?, ?, ?, ?) \
         ON CONFLICT DO NOTHING",
    )?
    .execute(params![
        key.event.to_be_bytes(),
        key.name.to_be_bytes(),
        org.as_str(),
        hit.group.to_be_bytes(),
        hit.hit,
        hit.about
    ])?;
    Ok(())
}

fn take(t: &Transaction<'_>, key: &HitKey) -> StorageResult<()> {
    let taken = t
        .prepare_cached(
            "UPDATE correlation_hits SET hit = NULL, about = NULL, taken_at = unixepoch() \
             WHERE event = ? AND name = ? AND org = ? AND taken_at IS NULL",
        )?
        .execute(params![key.event.to_be_bytes(), key.name.to_be_bytes(), key.org.as_str()])?;
    if taken == 1 { Ok(()) } else { Err(taken_already()) }
}
