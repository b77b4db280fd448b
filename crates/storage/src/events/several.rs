//! A store and, to read, those of other processes on the same machine: a web UI finds what the
//! alerters beside it keep.
//!
//! An event that two alerters stored (one died before it could say so) is shown once; [`count`] and
//! [`per_minute`] count it in both.
//!
//! [`count`]: EventStore::count
//! [`per_minute`]: EventStore::per_minute

use super::sqlite::SqliteEvents;
use super::{Damage, EventQuery, EventRange, EventStore, MinuteCount, SEARCH_ROWS_MAX, StoredEvent};
use crate::{StorageError, StorageResult};
use async_trait::async_trait;
use model::{ErrorKind, EventId, OrgId, Timestamp};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often is looked whether there are new folders.
const LOOKED: Duration = Duration::from_secs(5);

pub(super) struct Several {
    own: SqliteEvents,
    own_dir: PathBuf,
    patterns: Vec<String>,
    others: Mutex<Others>,
}

#[derive(Default)]
struct Others {
    looked_at: Option<Instant>,
    found: BTreeMap<PathBuf, Arc<SqliteEvents>>,
}

impl Several {
    /// `patterns` are folders of other stores; `*` stands for any part of a name.
    pub fn new(own: SqliteEvents, own_dir: PathBuf, patterns: Vec<String>) -> StorageResult<Self> {
        for pattern in &patterns {
            glob::Pattern::new(pattern)
                .map_err(|e| StorageError::new(ErrorKind::Invalid, format!("`{pattern}`: {e}")))?;
        }
        let own_dir = own_dir.canonicalize().unwrap_or(own_dir);
        Ok(Self { own, own_dir, patterns, others: Mutex::default() })
    }

    /// The stores of others that are there, in an order that stays.
    fn others(&self) -> Vec<Arc<SqliteEvents>> {
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if others.looked_at.is_none_or(|at| at.elapsed() >= LOOKED) {
            let dirs = self.patterns.iter().filter_map(|p| glob::glob(p).ok()).flatten().filter_map(Result::ok);
            // One folder may have several names.
            let dirs = dirs.filter(|dir| dir.is_dir()).filter_map(|dir| dir.canonicalize().ok());
            let dirs: BTreeSet<PathBuf> = dirs.filter(|dir| *dir != self.own_dir).collect();
            others.found.retain(|dir, _| dirs.contains(dir));
            for dir in dirs {
                others.found.entry(dir).or_insert_with_key(|dir| Arc::new(SqliteEvents::of_another(dir.clone())));
            }
            others.looked_at = Some(Instant::now());
        }
        others.found.values().cloned().collect()
    }

    /// The number of the store that an event is shown from, of these.
    async fn home(stores: &[&SqliteEvents], org: &OrgId, id: EventId) -> StorageResult<Option<usize>> {
        for (n, store) in stores.iter().enumerate() {
            if store.get(org, id).await?.is_some() {
                return Ok(Some(n));
            }
        }
        Ok(None)
    }

    /// What the last of these stores has to show and the others have not.
    async fn shown_from(
        stores: &[&SqliteEvents],
        org: &OrgId,
        mut query: EventQuery,
        limit: usize,
    ) -> StorageResult<Vec<StoredEvent>> {
        let Some((store, before)) = stores.split_last() else { return Ok(Vec::new()) };
        query.limit = limit;
        let mut shown = Vec::new();
        loop {
            let rows = store.search(org, &query).await?;
            let is_last = rows.len() < limit;
            query.before = rows.last().map(|event| event.id);
            for event in rows {
                if shown.len() < limit && Self::home(before, org, event.id).await?.is_none() {
                    shown.push(event);
                }
            }
            if is_last || shown.len() == limit {
                return Ok(shown);
            }
        }
    }
}

#[async_trait]
impl EventStore for Several {
    async fn append(&self, batch: Vec<StoredEvent>) -> StorageResult<usize> {
        self.own.append(batch).await
    }

    async fn get(&self, org: &OrgId, id: EventId) -> StorageResult<Option<StoredEvent>> {
        if let Some(event) = self.own.get(org, id).await? {
            return Ok(Some(event));
        }
        for other in self.others() {
            if let Some(event) = other.get(org, id).await? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// Of one millisecond, first those of our own store, then those of the others in their order.
    async fn search(&self, org: &OrgId, query: &EventQuery) -> StorageResult<Vec<StoredEvent>> {
        let others = self.others();
        let stores: Vec<&SqliteEvents> = std::iter::once(&self.own).chain(others.iter().map(AsRef::as_ref)).collect();
        let limit = query.limit.min(SEARCH_ROWS_MAX);
        let home = match query.before {
            Some(id) => Self::home(&stores, org, id).await?.unwrap_or(usize::MAX),
            None => 0,
        };
        let mut found = Vec::new();
        for n in 0..stores.len() {
            let mut query = query.clone();
            if let Some(id) = query.before.filter(|_| n != home) {
                // Of that millisecond, a store before has been shown, one after has not.
                let last = id.accepted().millis() - i64::from(n < home);
                let last = Timestamp::from_micros(last.saturating_mul(1_000).saturating_add(999));
                query.to = Some(query.to.map_or(last, |to| to.min(last)));
                query.before = None;
            }
            found.extend(Self::shown_from(&stores[..=n], org, query, limit).await?);
        }
        // Stable: within a millisecond the order of the stores and of each store stays.
        found.sort_by_key(|event| Reverse(event.id.accepted().millis()));
        found.truncate(limit);
        Ok(found)
    }

    /// Of one millisecond, first those of our own store, then those of the others in their order.
    async fn range(&self, org: &OrgId, range: EventRange) -> StorageResult<Vec<StoredEvent>> {
        let others = self.others();
        let stores: Vec<&SqliteEvents> = std::iter::once(&self.own).chain(others.iter().map(AsRef::as_ref)).collect();
        let home = match range.after {
            Some(id) => Self::home(&stores, org, id).await?.unwrap_or(usize::MAX),
            None => 0,
        };
        let mut ranges: Vec<EventRange> = (0..stores.len())
            .map(|n| match range.after.filter(|_| n != home) {
                // Of that millisecond, a store before has been shown, one after has not.
                Some(id) => {
                    let first = Timestamp::from_millis(id.accepted().millis() + i64::from(n < home));
                    EventRange { from: range.from.max(first), after: None, ..range }
                }
                None => range,
            })
            .collect();
        loop {
            let mut pages = Vec::with_capacity(stores.len());
            for (store, range) in stores.iter().zip(&ranges) {
                pages.push(store.range(org, *range).await?);
            }
            let place = |n: usize, event: &StoredEvent| (event.id.accepted().millis(), n);
            // What lies behind the end of a page that has one may be incomplete.
            let ends = pages.iter().enumerate().filter_map(|(n, page)| Some(place(n, page.last()?)));
            let Some(end) = ends.min() else { return Ok(Vec::new()) };
            let (mut shown, mut seen) = (Vec::new(), BTreeSet::new());
            for (n, page) in pages.into_iter().enumerate() {
                for event in page {
                    if place(n, &event) > end {
                        break;
                    }
                    ranges[n].after = Some(event.id);
                    // A page before this one can have shown events of its last millisecond only.
                    let is_edge = range.after.is_some_and(|id| id.accepted() == event.id.accepted());
                    if seen.insert(event.id) && (!is_edge || Self::home(&stores[..n], org, event.id).await?.is_none()) {
                        shown.push(event);
                    }
                }
            }
            if !shown.is_empty() {
                // Stable: within a millisecond the order of the stores and of each store stays.
                shown.sort_by_key(|event| event.id.accepted().millis());
                shown.truncate(range.limit.min(SEARCH_ROWS_MAX));
                return Ok(shown);
            }
        }
    }

    async fn damages(&self, org: &OrgId, from: Timestamp, to: Timestamp) -> StorageResult<Vec<Damage>> {
        let mut damages = self.own.damages(org, from, to).await?;
        for other in self.others() {
            damages.extend(other.damages(org, from, to).await?);
        }
        damages.sort_by_key(|damage| damage.from);
        Ok(damages)
    }

    async fn per_minute(&self, org: &OrgId, from: Timestamp, to: Timestamp) -> StorageResult<Vec<MinuteCount>> {
        let mut minutes: BTreeMap<i64, MinuteCount> = BTreeMap::new();
        let mut counts = self.own.per_minute(org, from, to).await?;
        for other in self.others() {
            counts.extend(other.per_minute(org, from, to).await?);
        }
        for count in counts {
            minutes
                .entry(count.minute.micros())
                .and_modify(|sum| {
                    sum.events += count.events;
                    sum.handled += count.handled;
                })
                .or_insert(count);
        }
        Ok(minutes.into_values().collect())
    }

    async fn orgs(&self) -> StorageResult<Vec<OrgId>> {
        let mut orgs: BTreeSet<OrgId> = self.own.orgs().await?.into_iter().collect();
        for other in self.others() {
            orgs.extend(other.orgs().await?);
        }
        Ok(orgs.into_iter().collect())
    }

    async fn count(&self, org: &OrgId) -> StorageResult<u64> {
        let mut events = self.own.count(org).await?;
        for other in self.others() {
            events += other.count(org).await?;
        }
        Ok(events)
    }

    /// Of our own store; the others look after theirs.
    async fn drop_before(&self, keep_from: Timestamp) -> StorageResult<usize> {
        self.own.drop_before(keep_from).await
    }

    async fn days_before(&self, keep_from: Timestamp) -> StorageResult<usize> {
        self.own.days_before(keep_from).await
    }

    fn partitions_put_aside(&self) -> u64 {
        self.own.partitions_put_aside()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use model::InputKind;

    fn event(ms: i64, run: u32, n: u64) -> StoredEvent {
        let id = EventId::new(Timestamp::from_millis(1_790_000_000_000 + ms), run, n);
        StoredEvent {
            id,
            org: OrgId::default(),
            input: InputKind::Http,
            host: format!("h{run}"),
            timestamp: id.accepted(),
            severity: None,
            rule_id: None,
            raw: Bytes::from(format!("{{\"message\":\"m{n}\"}}")),
        }
    }

    async fn search(store: &Several, before: Option<EventId>, limit: usize) -> Vec<EventId> {
        let query = EventQuery { before, limit, ..EventQuery::default() };
        store.search(&OrgId::default(), &query).await.unwrap().into_iter().map(|e| e.id).collect()
    }

    #[tokio::test]
    async fn what_alerters_beside_it_keep_is_found_once_in_pages_that_follow_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let folder = |name: &str| dir.path().join(name).join("events");
        let own = SqliteEvents::open(folder("webui")).unwrap();
        let pattern = dir.path().join("*").join("events").display().to_string();
        let store = Several::new(own, folder("webui"), vec![pattern]).unwrap();
        assert!(search(&store, None, 10).await.is_empty());
        store.others.lock().unwrap().looked_at = None;

        // Many of one millisecond, some in both.
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for n in 0..60 {
            let event = event(i64::try_from(n / 12).unwrap(), (n % 5) as u32, n);
            if n % 3 != 1 {
                a.push(event.clone());
            }
            if n % 3 != 0 {
                b.push(event);
            }
        }
        let one = SqliteEvents::open(folder("alerter-1")).unwrap();
        let two = SqliteEvents::open(folder("alerter-2")).unwrap();
        one.append(a).await.unwrap();
        two.append(b).await.unwrap();

        let whole = search(&store, None, 1_000).await;
        assert_eq!(whole.len(), 60);
        assert_eq!(whole.iter().collect::<BTreeSet<_>>().len(), 60);
        assert!(whole.is_sorted_by_key(|id| Reverse(id.accepted().millis())));
        for size in [1, 7, 13] {
            let (mut pages, mut before) = (Vec::new(), None);
            loop {
                let page = search(&store, before, size).await;
                let Some(last) = page.last() else { break };
                before = Some(*last);
                pages.extend(page);
            }
            assert_eq!(pages, whole, "pages of {size}");
        }
        // The same from the other end.
        let (from, to) = (Timestamp::from_micros(i64::MIN), Timestamp::from_micros(i64::MAX));
        let mut read = Vec::new();
        for limit in [1_000, 1, 7, 13] {
            let (mut range, mut pages) = (EventRange { from, to, after: None, limit }, Vec::new());
            loop {
                let page = store.range(&OrgId::default(), range).await.unwrap();
                let Some(last) = page.last() else { break };
                range.after = Some(last.id);
                pages.extend(page.into_iter().map(|event| event.id));
            }
            assert!(pages.is_sorted_by_key(|id| id.accepted().millis()));
            read.push(pages);
        }
        assert_eq!(read[0].iter().collect::<BTreeSet<_>>(), whole.iter().collect::<BTreeSet<_>>());
        assert_eq!(read[0].len(), 60);
        assert!(read.iter().all(|pages| *pages == read[0]));
        let got = store.get(&OrgId::default(), whole[7]).await.unwrap().unwrap();
        assert_eq!(got.id, whole[7]);
        assert_eq!(store.count(&OrgId::default()).await.unwrap(), 80, "20 of them are in both");
        one.append(vec![event(70, 9, 99)]).await.unwrap();
        assert_eq!(store.count(&OrgId::default()).await.unwrap(), 81, "others go on writing");
        let day = Timestamp::from_millis(1_790_000_000_000);
        let minutes = store.per_minute(&OrgId::default(), day, Timestamp::from_secs(day.secs() + 60)).await.unwrap();
        assert_eq!(minutes.iter().map(|m| m.events).sum::<u64>(), 81);

        // Retention is the others' own business, and seen here.
        assert_eq!(store.drop_before(Timestamp::from_secs(1_800_000_000)).await.unwrap(), 0);
        assert_eq!(one.drop_before(Timestamp::from_secs(1_800_000_000)).await.unwrap(), 1);
        assert_eq!(store.count(&OrgId::default()).await.unwrap(), 40);
    }

    #[tokio::test]
    async fn a_damaged_file_of_another_is_said_and_left_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let other = dir.path().join("other");
        SqliteEvents::open(other.clone()).unwrap().append(vec![event(0, 1, 1)]).await.unwrap();
        let file = std::fs::read_dir(other.join("default")).unwrap().next().unwrap().unwrap().path();
        std::fs::write(&file, vec![7; 8_192]).unwrap();
        let own = SqliteEvents::open(dir.path().join("own")).unwrap();
        let store = Several::new(own, dir.path().join("own"), vec![other.display().to_string()]).unwrap();
        let query = EventQuery { limit: 10, ..EventQuery::default() };
        let error = store.search(&OrgId::default(), &query).await.unwrap_err();
        assert!(error.to_string().contains("damaged"), "{error}");
        assert!(file.exists());
    }
}
