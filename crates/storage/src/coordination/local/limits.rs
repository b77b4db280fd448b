//! The shared windows and their file.
//!
//! Memory is exact. The file is told in advance: units are reserved there in portions of 1/64 of the
//! limit, dated to the end of the 1/64 of the window in which they may be used. So a window costs
//! at most about 128 small writes however busy it is, and after `kill -9` what was granted, and a
//! little more, counts as granted. Closing in order writes the exact grants.

use super::lock;
use crate::coordination::window::Window;
use crate::coordination::{Grant, RateLimit};
use crate::sqlite::{Database, Durability, Tuning};
use crate::{StorageError, StorageResult};
use model::{ErrorKind, Timestamp};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const STEPS: [&str; 1] = [include_str!("../../../migrations/sqlite/coordination/limits_0001.sql")];
const PORTIONS: u32 = 64;
/// Rows that an orderly close writes for a window; more grants are joined, dated to the later one.
const SAVED_MAX: usize = 256;
const WARN_EVERY: Duration = Duration::from_secs(60);

pub(super) struct Limits {
    windows: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Kept>>>>,
    warned_at: Mutex<Option<Timestamp>>,
    database: Database,
}

#[derive(Default)]
struct Kept {
    window: Window,
    /// Units that the file counts as granted already, to be used not after this time.
    reserved: u32,
    reserved_until: Timestamp,
}

impl Limits {
    /// Opens the file that belongs to the state file `state`.
    pub fn open(state: &Path) -> StorageResult<Self> {
        let stem = state.file_stem().unwrap_or_default().to_string_lossy();
        let file = state.with_file_name(format!("{stem}-limits.db"));
        let (database, windows) = match Self::load(&file) {
            Ok(loaded) => loaded,
            Err(error) if error.kind() == ErrorKind::Internal => {
                tracing::warn!(file = %file.display(), %error, "the file of rate limits is broken; starting a new one");
                remove(&file);
                Self::load(&file)?
            }
            Err(error) => return Err(error),
        };
        Ok(Self { windows: Mutex::new(windows), warned_at: Mutex::default(), database })
    }

    #[expect(clippy::type_complexity, reason = "the two halves of `Self`")]
    fn load(file: &Path) -> StorageResult<(Database, HashMap<String, Arc<tokio::sync::Mutex<Kept>>>)> {
        let mut kept: HashMap<String, Kept> = HashMap::new();
        let tuning = Tuning { durability: Durability::Process, cache_kib: 512, ..Tuning::default() };
        let database = Database::open_with(file, tuning, &STEPS, |connection| {
            let mut statement = connection.prepare("SELECT name, at, units FROM grants ORDER BY name, at")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                kept.entry(row.get(0)?).or_default().window.add(Timestamp::from_micros(row.get(1)?), row.get(2)?);
            }
            Ok(())
        })?;
        let windows = kept.into_iter().map(|(name, kept)| (name, Arc::new(tokio::sync::Mutex::new(kept)))).collect();
        Ok((database, windows))
    }

    /// Grants up to `want` units. A file that cannot be written is worth a warning, not a refusal:
    /// on a full disk alerts must still go out.
    pub async fn acquire(&self, name: &str, want: u32, least: u32, limit: RateLimit, now: Timestamp) -> Grant {
        let window = Arc::clone(lock(&self.windows).entry(name.to_owned()).or_default());
        // Held while the file is written, so that nobody uses a portion that is not in it yet.
        let mut kept = window.lock().await;
        let moves = kept.window.moves();
        let grant = kept.window.acquire(want, least, limit, now);
        let at = kept.window.last().unwrap_or(now);
        let saved = if kept.window.moves() != moves {
            kept.reserved = 0;
            let (name, grants) = (name.to_owned(), coarse(&kept.window));
            self.database.write(move |c| replace(c, &name, &grants)).await
        } else {
            match kept.reserve(grant.granted, limit, at) {
                Some((until, units)) => {
                    let (name, gone) = (name.to_owned(), at.minus(limit.window));
                    self.database.write(move |c| add(c, &name, until, units, gone)).await
                }
                None => Ok(()),
            }
        };
        if let Err(error) = saved {
            self.warn(&error, now);
        }
        grant
    }

    fn warn(&self, error: &StorageError, now: Timestamp) {
        let mut warned_at = lock(&self.warned_at);
        if warned_at.is_none_or(|at| now.since(at) >= WARN_EVERY || now < at) {
            *warned_at = Some(now);
            tracing::warn!(%error, "grants of a rate limit are not saved; a restart may grant them again");
        }
    }
}

impl Kept {
    /// Takes `units` from the reserve. When they are not in it: what the file must be told.
    fn reserve(&mut self, units: u32, limit: RateLimit, at: Timestamp) -> Option<(Timestamp, u32)> {
        if at > self.reserved_until {
            self.reserved = 0;
        }
        let missing = units.saturating_sub(self.reserved);
        self.reserved = self.reserved.saturating_sub(units);
        if missing == 0 {
            return None;
        }
        let portion = missing.max(limit.max / PORTIONS);
        self.reserved = portion - missing;
        // A portion that is used up at once needs no time.
        self.reserved_until = if self.reserved == 0 { at } else { at.plus(limit.window / PORTIONS) };
        Some((self.reserved_until, portion))
    }
}

impl Drop for Limits {
    fn drop(&mut self) {
        for (name, window) in lock(&self.windows).drain() {
            if let Ok(kept) = window.try_lock() {
                let grants = coarse(&kept.window);
                // Not handed in: what the file holds is enough, only less exact.
                self.database.write_later(move |c| {
                    if let Err(error) = replace(c, &name, &grants) {
                        tracing::warn!(%error, "grants of a rate limit could not be saved");
                    }
                });
            }
        }
    }
}

/// The grants of a window, a few of them joined where they are many.
fn coarse(window: &Window) -> Vec<(Timestamp, u32)> {
    let all: Vec<_> = window.grants().collect();
    let joined = all.len().div_ceil(SAVED_MAX).max(1);
    let sum = |part: &[(Timestamp, u32)]| part.iter().fold(0u32, |sum, (_, n)| sum.saturating_add(*n));
    all.chunks(joined).filter_map(|part| Some((part.last()?.0, sum(part)))).collect()
}

fn add(c: &mut Connection, name: &str, at: Timestamp, units: u32, gone: Timestamp) -> StorageResult<()> {
    let transaction = c.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction
        .prepare_cached("DELETE FROM grants WHERE name = ? AND at <= ?")?
        .execute(params![name, gone.micros()])?;
    insert(&transaction, name, at, units)?;
    transaction.commit()?;
    Ok(())
}

fn replace(c: &mut Connection, name: &str, grants: &[(Timestamp, u32)]) -> StorageResult<()> {
    let transaction = c.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute("DELETE FROM grants WHERE name = ?", [name])?;
    for (at, units) in grants {
        insert(&transaction, name, *at, *units)?;
    }
    transaction.commit()?;
    Ok(())
}

fn insert(transaction: &Transaction<'_>, name: &str, at: Timestamp, units: u32) -> StorageResult<()> {
    transaction
        .prepare_cached(
            "INSERT INTO grants (name, at, units) VALUES (?, ?, ?) \
             ON CONFLICT (name, at) DO UPDATE SET units = units + excluded.units",
        )?
        .execute(params![name, at.micros(), units])?;
    Ok(())
}

fn remove(file: &Path) {
    for suffix in ["-wal", "-shm", ""] {
        let mut name = file.as_os_str().to_owned();
        name.push(suffix);
        let _ = std::fs::remove_file(PathBuf::from(name)); // the opening that follows says what is wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(1_000_000_000 + ms)
    }

    /// Copies the files as they lie there: what a process finds that starts after `kill -9`.
    fn killed(dir: &Path) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
        copy
    }

    #[tokio::test]
    async fn a_killed_process_and_the_next_together_keep_the_limit() {
        let (dir, limit) = (tempfile::tempdir().unwrap(), RateLimit { max: 1_000, window: Duration::from_secs(60) });
        let limits = Limits::open(&dir.path().join("state.db")).unwrap();
        let mut granted = Vec::new();
        for i in 0..600 {
            let now = at(i * 50);
            granted.push((now, limits.acquire("ingest", 1, 0, limit, now).await.granted));
        }
        let copy = killed(dir.path());
        let next = Limits::open(&copy.path().join("state.db")).unwrap();
        for i in 600..2_000 {
            let now = at(i * 50);
            granted.push((now, next.acquire("ingest", 7, 0, limit, now).await.granted));
            let in_window: u32 = granted.iter().filter(|(t, _)| now.since(*t) < limit.window).map(|(_, n)| n).sum();
            assert!(in_window <= limit.max, "{in_window} at {i}");
        }
        let after: u32 = granted[600..1_190].iter().map(|(_, n)| n).sum();
        assert!(after >= 350, "a restart costs no more than a few portions: {after}");
    }

    #[tokio::test]
    async fn a_busy_window_writes_little() {
        let (dir, limit) = (tempfile::tempdir().unwrap(), RateLimit { max: 64_000, window: Duration::from_secs(1) });
        let limits = Limits::open(&dir.path().join("state.db")).unwrap();
        for i in 0..50_000 {
            assert_eq!(limits.acquire("x", 1, 0, limit, at(i / 100)).await.granted, 1);
        }
        let rows: i64 = limits
            .database
            .read(|c| Ok(c.query_row("SELECT count(*) FROM grants", [], |row| row.get(0))?))
            .await
            .unwrap();
        assert!(rows <= 128, "{rows}");
    }

    #[tokio::test]
    async fn a_clock_that_steps_back_is_the_same_after_a_kill() {
        let (dir, limit) = (tempfile::tempdir().unwrap(), RateLimit { max: 4, window: Duration::from_secs(1) });
        let limits = Limits::open(&dir.path().join("state.db")).unwrap();
        assert_eq!(limits.acquire("x", 1, 0, limit, at(900_000_000)).await.granted, 1);
        assert_eq!(limits.acquire("x", 3, 0, limit, at(0)).await.granted, 3);
        let copy = killed(dir.path());
        let next = Limits::open(&copy.path().join("state.db")).unwrap();
        let grant = next.acquire("x", 4, 0, limit, at(10)).await;
        assert_eq!((grant.granted, grant.retry_after), (0, Some(Duration::from_millis(990))));
        assert_eq!(next.acquire("x", 4, 0, limit, at(1_000)).await.granted, 4);
    }

    #[tokio::test]
    async fn a_broken_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("state-limits.db"), vec![7u8; 9_000]).unwrap();
        let limits = Limits::open(&dir.path().join("state.db")).unwrap();
        let limit = RateLimit { max: 1, window: Duration::from_secs(1) };
        assert_eq!(limits.acquire("x", 1, 0, limit, at(0)).await.granted, 1);
    }
}
