//! The embedded event store: `dir/<org>/<YYYY-MM-DD>.db`.
//!
//! * Two writer threads; an organisation always belongs to the same one. A writer takes the batches
//!   that wait, puts those for one file into one transaction and answers when it is on disk, so
//!   concurrent callers share an fsync. It checkpoints after answering.
//! * Reads use connections of their own, a few of which are kept, on the blocking threads. A search
//!   whose caller went away is interrupted.
//! * A file that is broken is renamed to `<day>.db.corrupt-<n>`, logged and counted; its day starts
//!   anew and the other days are not touched.

mod layout;
mod partition;
mod reader;
mod text;
mod writer;

use super::{Damage, EventQuery, EventRange, EventStore, MinuteCount, RANGE_BYTES_MAX, SEARCH_ROWS_MAX, StoredEvent};
use crate::sqlite::{blocking, create_folder};
use crate::{StorageError, StorageResult};
use async_trait::async_trait;
use layout::{Day, Key};
use model::{ErrorKind, EventId, OrgId, Timestamp};
use reader::{Cancel, Readers};
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;
use writer::Writer;

const STEPS: [&str; 1] = [include_str!("../../../migrations/sqlite/events/0001.sql")];

const WRITERS: usize = 2;
/// Searches that run at once; each may use a core and a disk.
const SEARCHES_MAX: usize = 2;
/// Reads that touch a few rows and run at once.
const LOOKUPS_MAX: usize = 4;
pub(super) struct SqliteEvents {
    shared: Arc<Shared>,
    writers: Vec<Writer>,
    hasher: RandomState,
    searches: Arc<Semaphore>,
    lookups: Arc<Semaphore>,
}

/// What writers and readers both look at.
struct Shared {
    dir: PathBuf,
    readers: Readers,
    /// Events per file, where known: set by writers, filled in by readers.
    totals: Mutex<HashMap<Key, u64>>,
    /// Broken files that were put aside since the start.
    put_aside: AtomicU64,
}

impl Shared {
    fn totals(&self) -> std::sync::MutexGuard<'_, HashMap<Key, u64>> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SqliteEvents {
    pub fn open(dir: PathBuf) -> StorageResult<Self> {
        create_folder(&dir)?;
        let mut store = Self::at(dir, true);
        store.writers = (0..WRITERS).map(|_| Writer::start(Arc::clone(&store.shared))).collect::<StorageResult<_>>()?;
        Ok(store)
    }

    /// To read what another process writes in `dir`.
    pub fn of_another(dir: PathBuf) -> Self {
        Self::at(dir, false)
    }

    fn at(dir: PathBuf, is_ours: bool) -> Self {
        Self {
            shared: Arc::new(Shared {
                readers: Readers::new(dir.clone(), is_ours),
                dir,
                totals: Mutex::default(),
                put_aside: AtomicU64::new(0),
            }),
            writers: Vec::new(),
            hasher: RandomState::new(),
            searches: Arc::new(Semaphore::new(SEARCHES_MAX)),
            lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
        }
    }

    fn is_of_another(&self) -> bool {
        self.writers.is_empty()
    }

    fn writer_of(&self, org: &OrgId) -> usize {
        (self.hasher.hash_one(org) % WRITERS as u64) as usize
    }

    /// Runs `work` on one day of `org` on a blocking thread. A day without a file, or whose file is
    /// broken and is put aside by this, is `None`.
    async fn read_day<T, F>(
        &self,
        permits: &Arc<Semaphore>,
        key: &Key,
        cancel: Arc<Cancel>,
        work: F,
    ) -> StorageResult<Option<T>>
    where
        T: Send + 'static,
        F: FnOnce(&rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let permit = Arc::clone(permits)
            .acquire_owned()
            .await
            .map_err(|_| StorageError::new(ErrorKind::Unavailable, "the event store is closed"))?;
        let generation = self.shared.readers.generation();
        let (shared, on) = (Arc::clone(&self.shared), key.clone());
        let result = blocking(move || {
            let _permit = permit;
            Ok(shared.readers.with(&on, &cancel, work))
        })
        .await?;
        match result {
            Ok(found) => Ok(found),
            Err(reader::ReadError::Broken(error)) if self.is_of_another() => {
                let file = key.file(&self.shared.dir);
                let text = format!("`{}` of another process is damaged", file.display());
                Err(StorageError::with_source(ErrorKind::Unavailable, text, error))
            }
            Err(reader::ReadError::Broken(error)) => {
                self.writers[self.writer_of(&key.org)].put_aside(key.clone(), error.to_string(), generation).await?;
                Ok(None)
            }
            Err(reader::ReadError::Other(error)) => Err(error),
        }
    }

    /// Days of `org` that have a file, oldest first.
    async fn days(&self, org: &OrgId) -> StorageResult<Vec<Day>> {
        let folder = self.shared.dir.join(org.as_str());
        blocking(move || layout::days_in(&folder)).await
    }
}

#[async_trait]
impl EventStore for SqliteEvents {
    async fn append(&self, batch: Vec<StoredEvent>) -> StorageResult<usize> {
        if batch.iter().any(|event| !Day::of(event.id).has_a_name()) {
            return Err(StorageError::new(ErrorKind::Invalid, "an event id beyond the year 9999"));
        }
        if self.is_of_another() {
            return Err(StorageError::new(ErrorKind::Invalid, "another process writes this event store"));
        }
        let mut parts: [Vec<StoredEvent>; WRITERS] = Default::default();
        let Some(first) = batch.first().map(|event| self.writer_of(&event.org)) else { return Ok(0) };
        if batch.windows(2).all(|pair| pair[0].org == pair[1].org) {
            parts[first] = batch;
        } else {
            batch.into_iter().for_each(|event| parts[self.writer_of(&event.org)].push(event));
        }
        let mut waiting = Vec::with_capacity(WRITERS);
        for (writer, part) in self.writers.iter().zip(parts) {
            if !part.is_empty() {
                waiting.push(writer.append(part).await?);
            }
        }
        let mut added = 0;
        let mut failed = None;
        for answer in waiting {
            match answer.await.unwrap_or_else(|_| Err(writer::panicked())) {
                Ok(n) => added += n,
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(added),
        }
    }

    async fn get(&self, org: &OrgId, id: EventId) -> StorageResult<Option<StoredEvent>> {
        let key = Key { org: org.clone(), day: Day::of(id) };
        if !key.day.has_a_name() {
            return Ok(None);
        }
        let owner = org.clone();
        let found = self.read_day(&self.lookups, &key, Arc::default(), move |c| reader::get(c, &owner, id)).await?;
        Ok(found.flatten())
    }

    async fn search(&self, org: &OrgId, query: &EventQuery) -> StorageResult<Vec<StoredEvent>> {
        let limit = query.limit.min(SEARCH_ROWS_MAX);
        let search = Arc::new(reader::Search::new(query));
        let stop = Cancel::guard();
        let mut found = Vec::new();
        for day in self.days(org).await?.into_iter().rev() {
            if found.len() >= limit {
                break;
            }
            let Some(range) = search.range(day) else { continue };
            let key = Key { org: org.clone(), day };
            let (owner, wanted, search) = (org.clone(), limit - found.len(), Arc::clone(&search));
            let rows = self
                .read_day(&self.searches, &key, stop.cancel(), move |c| search.run(c, &owner, day, range, wanted))
                .await?;
            found.extend(rows.into_iter().flatten());
        }
        Ok(found)
    }

    async fn range(&self, org: &OrgId, range: EventRange) -> StorageResult<Vec<StoredEvent>> {
        let limit = range.limit.min(SEARCH_ROWS_MAX);
        let stop = Cancel::guard();
        for day in self.days(org).await? {
            let Some(keys) = reader::keys_of(&range, day) else { continue };
            let key = Key { org: org.clone(), day };
            let owner = org.clone();
            let page = move |c: &rusqlite::Connection| reader::page(c, &owner, day, keys, range.after, limit);
            let rows = self.read_day(&self.searches, &key, stop.cancel(), page).await?.unwrap_or_default();
            if !rows.is_empty() {
                return Ok(rows);
            }
        }
        Ok(Vec::new())
    }

    async fn damages(&self, org: &OrgId, from: Timestamp, to: Timestamp) -> StorageResult<Vec<Damage>> {
        let folder = self.shared.dir.join(org.as_str());
        blocking(move || {
            let mut damages = Vec::new();
            for (day, file) in layout::put_aside_in(&folder)? {
                // Renaming keeps the time of the last write: what came later went into a new file.
                let written = std::fs::metadata(&file).and_then(|about| about.modified()).ok();
                let written = written.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
                let written = written.map_or(day.next().start(), |age| Timestamp::from_micros(0).plus(age));
                let damage = Damage {
                    from: from.max(day.start()),
                    to: to.min(day.next().start()).min(written.plus(std::time::Duration::from_millis(1))),
                };
                if damage.from < damage.to {
                    damages.push(damage);
                }
            }
            Ok(damages)
        })
        .await
    }

    async fn per_minute(&self, org: &OrgId, from: Timestamp, to: Timestamp) -> StorageResult<Vec<MinuteCount>> {
        let (first, last) =
            (layout::minute_of(from), layout::minute_of(Timestamp::from_micros(to.micros().saturating_sub(1))));
        let mut counts = Vec::new();
        for day in self.days(org).await? {
            if day.last_minute() < first || day.first_minute() > last {
                continue;
            }
            let key = Key { org: org.clone(), day };
            let minutes =
                self.read_day(&self.lookups, &key, Arc::default(), move |c| reader::minutes(c, first, last)).await?;
            counts.extend(minutes.into_iter().flatten());
        }
        Ok(counts)
    }

    async fn orgs(&self) -> StorageResult<Vec<OrgId>> {
        let dir = self.shared.dir.clone();
        blocking(move || {
            let mut orgs = layout::org_folders(&dir)?;
            orgs.sort_unstable();
            Ok(orgs)
        })
        .await
    }

    async fn count(&self, org: &OrgId) -> StorageResult<u64> {
        let mut events = 0;
        for day in self.days(org).await? {
            let key = Key { org: org.clone(), day };
            if self.is_of_another() {
                events += self.read_day(&self.lookups, &key, Arc::default(), reader::total).await?.unwrap_or(0);
                continue;
            }
            let known = self.shared.totals().get(&key).copied();
            events += match known {
                Some(total) => total,
                None => match self.read_day(&self.lookups, &key, Arc::default(), reader::total).await? {
                    // A writer that was quicker knows better.
                    Some(total) => *self.shared.totals().entry(key).or_insert(total),
                    None => 0,
                },
            };
        }
        Ok(events)
    }

    async fn drop_before(&self, keep_from: Timestamp) -> StorageResult<usize> {
        let mut dropped = 0;
        if self.is_of_another() {
            return Ok(dropped);
        }
        let first_kept = Day::at(keep_from);
        let dir = self.shared.dir.clone();
        for org in blocking(move || layout::org_folders(&dir)).await? {
            dropped += self.writers[self.writer_of(&org)].drop_before(org, first_kept).await?;
        }
        Ok(dropped)
    }

    async fn days_before(&self, keep_from: Timestamp) -> StorageResult<usize> {
        let first_kept = Day::at(keep_from);
        let dir = self.shared.dir.clone();
        blocking(move || {
            let mut days = 0;
            for org in layout::org_folders(&dir)? {
                days += layout::days_in(&dir.join(org.as_str()))?.iter().filter(|day| **day < first_kept).count();
            }
            Ok(days)
        })
        .await
    }

    fn partitions_put_aside(&self) -> u64 {
        self.shared.put_aside.load(Ordering::Relaxed)
    }
}
