//! What the correlations of detection rules know, kept over restarts: for each organisation and group
//! a row of parts, in the order in which they were stored (`rules::correlate` says what is in them).
//!
//! One file for one process: a group is known to whoever works its events.

use crate::StorageResult;
use crate::sqlite::{Database, Tuning};
use model::OrgId;
use rules::correlate::{Record, Stored};
use rusqlite::params;
use std::collections::BTreeMap;
use std::path::Path;

const STEPS: [&str; 1] = [include_str!("../migrations/sqlite/correlations/0001.sql")];

/// The stored parts of a group.
pub type Parts = Vec<Vec<u8>>;

/// The file.
pub struct CorrelationStore(Database);

impl CorrelationStore {
    /// Opens or creates it.
    pub fn open(file: &Path) -> StorageResult<Self> {
        Ok(Self(Database::open(file, Tuning::default(), &STEPS)?))
    }

    /// Everything: organisation, group, its parts.
    pub async fn load(&self) -> StorageResult<Vec<(OrgId, u128, Parts)>> {
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

    /// Stores what a batch changed, all or nothing.
    pub async fn store(&self, org: &OrgId, records: Vec<Record>) -> StorageResult<()> {
        if records.is_empty() {
            return Ok(());
        }
        let org = org.to_string();
        self.0
            .transact(move |transaction| {
                let mut delete =
                    transaction.prepare_cached("DELETE FROM correlation_state WHERE org = ?1 AND grp = ?2")?;
                let mut insert = transaction.prepare_cached(
                    "INSERT INTO correlation_state (org, grp, seq, part) VALUES (?1, ?2,
                     (SELECT coalesce(max(seq), 0) + 1 FROM correlation_state WHERE org = ?1 AND grp = ?2), ?3)",
                )?;
                for record in records {
                    let group = record.group.to_be_bytes();
                    match record.stored {
                        Stored::Whole(part) => {
                            delete.execute(params![org, group])?;
                            insert.execute(params![org, group, part])?;
                        }
                        Stored::More(part) => _ = insert.execute(params![org, group, part])?,
                        Stored::Gone => _ = delete.execute(params![org, group])?,
                    }
                }
                Ok(())
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn parts_come_back_in_their_order_and_a_whole_replaces_them() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("correlations.db");
        let org = OrgId::default();
        let record = |group: u128, stored| Record { group, stored };
        let store = CorrelationStore::open(&file).unwrap();
        let first = vec![record(1, Stored::Whole(vec![1])), record(u128::MAX, Stored::Whole(vec![9]))];
        store.store(&org, first).await.unwrap();
        store.store(&org, vec![record(1, Stored::More(vec![2])), record(u128::MAX, Stored::Gone)]).await.unwrap();
        store.store(&"acme".parse().unwrap(), vec![record(1, Stored::Whole(vec![7]))]).await.unwrap();
        drop(store);
        let store = CorrelationStore::open(&file).unwrap();
        let loaded = store.load().await.unwrap();
        assert_eq!(loaded.len(), 2);
        let own = loaded.iter().find(|(known, ..)| *known == org).unwrap();
        assert_eq!((own.1, &own.2), (1, &vec![vec![1], vec![2]]));
        store.store(&org, vec![record(1, Stored::Whole(vec![3]))]).await.unwrap();
        let loaded = store.load().await.unwrap();
        assert!(loaded.iter().any(|(known, _, parts)| *known == org && *parts == vec![vec![3]]));
    }
}
