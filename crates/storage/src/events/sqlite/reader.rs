//! Reading day files: a few kept connections, one event, a search, the rollups.

use super::layout::{self, Day, Key};
use super::partition::{input_of, is_broken};
use super::text::Needle;
use super::{EventQuery, EventRange, MinuteCount, RANGE_BYTES_MAX, STEPS, StoredEvent};
use crate::{StorageError, sqlite};
use bytes::Bytes;
use model::{ErrorKind, EventId, OrgId, Severity, Timestamp};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, InterruptHandle, OptionalExtension, Row, params};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Connections kept for the next read.
const IDLE_MAX: usize = 12;
const CACHE_KIB: i64 = 1 << 10;

/// Connections to day files.
pub(super) struct Readers {
    dir: PathBuf,
    idle_max: usize,
    idle: Mutex<Vec<(Key, Connection)>>,
    generation: AtomicU64,
}

/// Why a day could not be read.
pub(super) enum ReadError {
    /// The file is damaged: put it aside.
    Broken(rusqlite::Error),
    Other(StorageError),
}

impl From<rusqlite::Error> for ReadError {
    fn from(error: rusqlite::Error) -> Self {
        if is_broken(&error) { Self::Broken(error) } else { Self::Other(error.into()) }
    }
}

impl Readers {
    /// `are_ours`: nobody else renames or removes the files, so that connections may be kept.
    pub fn new(dir: PathBuf, are_ours: bool) -> Self {
        let idle_max = if are_ours { IDLE_MAX } else { 0 };
        Self { dir, idle_max, idle: Mutex::default(), generation: AtomicU64::new(0) }
    }

    /// Runs `work` on one snapshot of the file of `key`; `None` when there is no such file.
    pub fn with<T>(
        &self,
        key: &Key,
        cancel: &Cancel,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, ReadError> {
        let generation = self.generation();
        let Some(mut connection) = self.connection(key)? else { return Ok(None) };
        let value = {
            let snapshot = connection.transaction()?;
            cancel.watch(snapshot.get_interrupt_handle())?;
            let value = work(&snapshot)?;
            snapshot.finish()?;
            cancel.unwatch();
            value
        };
        let mut idle = self.idle();
        if self.generation() == generation {
            idle.push((key.clone(), connection));
            if idle.len() > self.idle_max {
                drop(idle.remove(0));
            }
        }
        Ok(Some(value))
    }

    /// Moves whenever files go away: what was found out before may be about another file.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Closes idle connections to files that `which` names; busy ones close when they are done.
    pub fn forget(&self, which: impl Fn(&Key) -> bool) {
        let mut idle = self.idle();
        self.generation.fetch_add(1, Ordering::SeqCst);
        idle.retain(|(key, _)| !which(key));
    }

    fn connection(&self, key: &Key) -> Result<Option<Connection>, ReadError> {
        {
            let mut idle = self.idle();
            if let Some(at) = idle.iter().rposition(|(k, _)| k == key) {
                return Ok(Some(idle.remove(at).1));
            }
        }
        let file = key.file(&self.dir);
        // The file may go while it is being opened.
        for last_try in [false, true] {
            let generation = self.generation();
            if !file.exists() {
                return Ok(None);
            }
            match sqlite::connect_read_only(&file, CACHE_KIB) {
                Ok(connection) => {
                    return match sqlite::newer_version(&connection, &file, STEPS.len())? {
                        Some(error) => Err(ReadError::Other(error)),
                        None => Ok(Some(connection)),
                    };
                }
                Err(error) if is_broken(&error) => return Err(ReadError::Broken(error)),
                Err(_) if !last_try && self.generation() != generation => {}
                Err(_) if !file.exists() => return Ok(None),
                Err(error) => return Err(ReadError::Other(sqlite::cannot_open(&file, error))),
            }
        }
        Ok(None)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(Key, Connection)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets a caller that went away stop the statement that runs for it.
#[derive(Default)]
pub(super) struct Cancel {
    cancelled: AtomicBool,
    running: Mutex<Option<InterruptHandle>>,
}

/// Cancels when it is dropped.
pub(super) struct CancelGuard(Arc<Cancel>);

impl Cancel {
    pub fn guard() -> CancelGuard {
        CancelGuard(Arc::default())
    }

    fn watch(&self, handle: InterruptHandle) -> Result<(), ReadError> {
        let mut running = self.running();
        if self.cancelled.load(Ordering::SeqCst) {
            return Err(ReadError::Other(StorageError::new(ErrorKind::Timeout, "nobody waits for this read any more")));
        }
        *running = Some(handle);
        Ok(())
    }

    /// Before the connection serves somebody else.
    fn unwatch(&self) {
        *self.running() = None;
    }

    fn running(&self) -> MutexGuard<'_, Option<InterruptHandle>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CancelGuard {
    pub fn cancel(&self) -> Arc<Cancel> {
        Arc::clone(&self.0)
    }
}

impl Drop for CancelGuard {
    fn drop(&mut self) {
        let running = self.0.running();
        self.0.cancelled.store(true, Ordering::SeqCst);
        if let Some(handle) = &*running {
            handle.interrupt();
        }
    }
}

pub(super) fn get(connection: &Connection, org: &OrgId, id: EventId) -> rusqlite::Result<Option<StoredEvent>> {
    let Some(lane) = lane(connection, id)? else { return Ok(None) };
    let mut statement =
        connection.prepare_cached("SELECT id, ts, input, severity, rule_id, host, raw FROM events WHERE id = ?")?;
    statement.query_row([layout::row_key(id, lane)], |row| stored_event(row, org, id)).optional()
}

pub(super) fn minutes(connection: &Connection, first: i64, last: i64) -> rusqlite::Result<Vec<MinuteCount>> {
    let mut statement = connection
        .prepare_cached("SELECT minute, events, handled FROM minutes WHERE minute BETWEEN ? AND ? ORDER BY minute")?;
    let rows = statement.query_map([first, last], |row| {
        Ok(MinuteCount {
            minute: layout::minute_start(row.get(0)?),
            events: row.get::<_, i64>(1)?.unsigned_abs(),
            handled: row.get::<_, i64>(2)?.unsigned_abs(),
        })
    })?;
    rows.collect()
}

pub(super) fn total(connection: &Connection) -> rusqlite::Result<u64> {
    let mut statement = connection.prepare_cached("SELECT coalesce(sum(events), 0) FROM minutes")?;
    statement.query_row([], |row| Ok(row.get::<_, i64>(0)?.unsigned_abs()))
}

/// A query, made ready to run on several days.
pub(super) struct Search {
    query: EventQuery,
    needle: Option<Needle>,
}

impl Search {
    pub fn new(query: &EventQuery) -> Self {
        Self { query: query.clone(), needle: query.text.as_deref().filter(|t| !t.is_empty()).map(Needle::new) }
    }

    /// The keys of `day` that may match; `None` when the day cannot.
    pub fn range(&self, day: Day) -> Option<RangeInclusive<i64>> {
        if self.query.before.is_some_and(|id| Day::of(id) < day) {
            return None;
        }
        let from = self.query.from.unwrap_or(Timestamp::from_micros(i64::MIN));
        let to = self.query.to.unwrap_or(Timestamp::from_micros(i64::MAX));
        day.keys(from, to)
    }

    /// Matches of one day, newest first, at most `limit`.
    pub fn run(
        &self,
        connection: &Connection,
        org: &OrgId,
        day: Day,
        range: RangeInclusive<i64>,
        limit: usize,
    ) -> rusqlite::Result<Vec<StoredEvent>> {
        let (first, mut last) = range.into_inner();
        if let Some(before) = self.query.before.filter(|id| Day::of(*id) == day) {
            let end = match lane(connection, before)? {
                Some(lane) => layout::row_key(before, lane),
                None => layout::first_key_of_ms(before),
            };
            last = last.min(end - 1);
        }
        let mut sql =
            String::from("SELECT id, ts, input, severity, rule_id, host, raw FROM events WHERE id BETWEEN ? AND ?");
        let mut values = vec![Value::Integer(first), Value::Integer(last)];
        if let Some(severity) = self.query.severity_at_most {
            sql.push_str(" AND severity <= ?");
            values.push(Value::Integer(severity.code().into()));
        }
        if let Some(rule_id) = self.query.rule_id {
            sql.push_str(" AND rule_id = ?");
            values.push(Value::Integer(rule_id));
        }
        if let Some(host) = &self.query.host {
            sql.push_str(" AND host = ?");
            values.push(Value::Text(host.clone()));
        }
        sql.push_str(" ORDER BY id DESC");
        let mut statement = connection.prepare_cached(&sql)?;
        let mut prefixes = connection.prepare_cached("SELECT prefix FROM lanes WHERE lane = ?")?;
        let mut rows = statement.query(rusqlite::params_from_iter(values))?;
        let (mut found, mut scratch) = (Vec::new(), String::new());
        while found.len() < limit
            && let Some(row) = rows.next()?
        {
            if let Some(needle) = &self.needle
                && !needle.is_in_message_of(bytes_of(row.get_ref(6)?), &mut scratch)
            {
                continue;
            }
            let key: i64 = row.get(0)?;
            let prefix: i64 = prefixes.query_row([layout::lane_of(key)], |row| row.get(0))?;
            found.push(stored_event(row, org, layout::event_id(day, key, prefix))?);
        }
        Ok(found)
    }
}

/// The keys of `day` that a range may have; `None` where it has none.
pub(super) fn keys_of(range: &EventRange, day: Day) -> Option<RangeInclusive<i64>> {
    if range.after.is_some_and(|id| Day::of(id) > day) {
        return None;
    }
    day.keys(range.from, Timestamp::from_micros(range.to.micros().checked_sub(1)?))
}

/// Events of one day, oldest first, at most `limit`.
pub(super) fn page(
    connection: &Connection,
    org: &OrgId,
    day: Day,
    keys: RangeInclusive<i64>,
    after: Option<EventId>,
    limit: usize,
) -> rusqlite::Result<Vec<StoredEvent>> {
    let (mut first, last) = keys.into_inner();
    if let Some(after) = after.filter(|id| Day::of(*id) == day) {
        let next = match lane(connection, after)? {
            Some(lane) => layout::row_key(after, lane) + 1,
            None => layout::first_key_after_ms(after),
        };
        first = first.max(next);
    }
    let mut statement = connection.prepare_cached(
        "SELECT id, ts, input, severity, rule_id, host, raw FROM events WHERE id BETWEEN ? AND ? ORDER BY id",
    )?;
    let mut prefixes = connection.prepare_cached("SELECT prefix FROM lanes WHERE lane = ?")?;
    let mut rows = statement.query([first, last])?;
    let (mut found, mut bytes, mut known) = (Vec::new(), 0, None);
    while found.len() < limit
        && bytes < RANGE_BYTES_MAX
        && let Some(row) = rows.next()?
    {
        let key: i64 = row.get(0)?;
        let lane = layout::lane_of(key);
        // Neighbours are mostly of one run.
        let prefix = match known {
            Some((of, prefix)) if of == lane => prefix,
            Some(_) | None => prefixes.query_row([lane], |row| row.get(0))?,
        };
        known = Some((lane, prefix));
        let event = stored_event(row, org, layout::event_id(day, key, prefix))?;
        bytes += event.raw.len();
        found.push(event);
    }
    Ok(found)
}

fn lane(connection: &Connection, id: EventId) -> rusqlite::Result<Option<i64>> {
    let mut statement = connection.prepare_cached("SELECT lane FROM lanes WHERE prefix = ?")?;
    statement.query_row(params![layout::lane_prefix(id)], |row| row.get(0)).optional()
}

fn stored_event(row: &Row<'_>, org: &OrgId, id: EventId) -> rusqlite::Result<StoredEvent> {
    let severity: Option<i64> = row.get(3)?;
    Ok(StoredEvent {
        id,
        org: org.clone(),
        input: input_of(row.get(2)?),
        host: row.get(5)?,
        timestamp: Timestamp::from_micros(row.get(1)?),
        severity: severity.and_then(Severity::from_code),
        rule_id: row.get(4)?,
        raw: Bytes::copy_from_slice(bytes_of(row.get_ref(6)?)),
    })
}

fn bytes_of(value: ValueRef<'_>) -> &[u8] {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes,
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => &[],
    }
}
