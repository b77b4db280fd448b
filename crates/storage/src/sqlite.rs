//! SQLite as the embedded drivers use it: one writer thread, a few readers, numbered migrations.
//!
//! What always holds:
//! * Files are in WAL mode; `synchronous=FULL` means that a committed transaction survives a power
//!   cut. `NORMAL` survives `kill -9` and costs no fsync.
//! * All writes of a [`Database`] happen on its own thread, one after another, so no async thread
//!   ever waits for a disk and writers never meet `SQLITE_BUSY` inside one process.
//! * Reads run on the blocking threads of tokio, at most [`READERS_MAX`] at a time, each on one
//!   snapshot.
//! * A closure that panics fails its own call and rolls back; the writer lives on.

use crate::{StorageError, StorageResult};
use model::ErrorKind;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Reads that may run at once, and connections kept for them.
const READERS_MAX: usize = 4;
/// Writes that may wait for the writer; callers beyond that wait to hand theirs in.
const WRITES_WAITING_MAX: usize = 64;
/// How long a statement waits for a lock that another process holds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// A WAL that a burst has blown up is cut back to this at the next checkpoint.
const WAL_KEPT_BYTES: i64 = 64 << 20;

/// What a commit survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// A power cut.
    Full,
    /// `kill -9`. A power cut may lose the last commits, or the file.
    Process,
}

/// How a file is opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tuning {
    pub durability: Durability,
    /// Page cache of one connection, KiB.
    pub cache_kib: i64,
    /// Only for files that do not exist yet; `None` = SQLite's 4 KiB.
    pub page_bytes: Option<u32>,
    /// Checkpoint after a commit that leaves this many pages in the WAL; 0 = the caller does it.
    pub autocheckpoint_pages: u32,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { durability: Durability::Full, cache_kib: 8 << 10, page_bytes: None, autocheckpoint_pages: 1_000 }
    }
}

/// Opens `file` for writing, creating it when it is missing. Its folder must exist.
pub(crate) fn connect(file: &Path, tuning: Tuning) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        file,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    if let Some(bytes) = tuning.page_bytes {
        connection.pragma_update(None, "page_size", bytes)?;
    }
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    let synchronous = match tuning.durability {
        Durability::Full => "full",
        Durability::Process => "normal",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cache_size", -tuning.cache_kib)?;
    connection.pragma_update_and_check(None, "wal_autocheckpoint", tuning.autocheckpoint_pages, |_| Ok(()))?;
    connection.pragma_update_and_check(None, "journal_size_limit", WAL_KEPT_BYTES, |_| Ok(()))?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Opens an existing `file` for reading, and cleans up after itself like a writer: closed last, it
/// removes the WAL.
fn connect_to_read(file: &Path, cache_kib: i64) -> rusqlite::Result<Connection> {
    let connection = connect_reader(file, cache_kib, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

/// Opens an existing `file` that may be renamed or removed meanwhile: never touches a WAL, which may
/// be another file's by then. So an empty WAL may stay behind.
pub(crate) fn connect_read_only(file: &Path, cache_kib: i64) -> rusqlite::Result<Connection> {
    connect_reader(file, cache_kib, OpenFlags::SQLITE_OPEN_READ_ONLY)
}

fn connect_reader(file: &Path, cache_kib: i64, access: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(file, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// Brings the schema up to date: `steps[n]` leads from `user_version` n to n + 1. Several processes
/// may try at once.
pub(crate) fn migrate(connection: &mut Connection, file: &Path, steps: &[&str]) -> StorageResult<()> {
    if schema_version(connection)? == steps.len() {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version = schema_version(&transaction)?;
    if version > steps.len() {
        return Err(newer(file, version, steps.len()));
    }
    for step in &steps[version..] {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", steps.len() as i64)?;
    transaction.commit()?;
    Ok(())
}

/// The version of the schema in `file`, 0 where there is none; an error when it is over `known`.
pub(crate) fn version_of(file: &Path, known: usize) -> StorageResult<usize> {
    if !file.exists() {
        return Ok(0);
    }
    let connection = connect_read_only(file, 64)?;
    match newer_version(&connection, file, known)? {
        Some(error) => Err(error),
        None => Ok(schema_version(&connection)?),
    }
}

/// An error when `connection` shows a schema that this build cannot read.
pub(crate) fn newer_version(
    connection: &Connection,
    file: &Path,
    known: usize,
) -> rusqlite::Result<Option<StorageError>> {
    let version = schema_version(connection)?;
    Ok((version > known).then(|| newer(file, version, known)))
}

fn schema_version(connection: &Connection) -> rusqlite::Result<usize> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    Ok(usize::try_from(version).unwrap_or(usize::MAX)) // a negative one is none of ours: newer than all
}

fn newer(file: &Path, version: usize, known: usize) -> StorageError {
    StorageError::new(
        ErrorKind::Invalid,
        format!(
            "{} was written by a newer version of this program (its schema is {version}, this build knows up to \
             {known}); start that version, or restore a backup made before the update",
            file.display()
        ),
    )
}

/// Names the file in an error of opening it.
pub(crate) fn cannot_open(file: &Path, error: impl Into<StorageError>) -> StorageError {
    let error = error.into();
    StorageError::with_source(error.kind(), format!("failed to open {}", file.display()), error)
}

/// Makes `folder` and what is above it, so that it is still there after a power cut.
pub(crate) fn create_folder(folder: &Path) -> StorageResult<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(folder).map_err(|e| io_error(format!("failed to create {}", folder.display()), e))?;
    if let Some(parent) = folder.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::File::open(parent)
            .and_then(|f| f.sync_all())
            .map_err(|e| io_error(format!("failed to sync {}", parent.display()), e))?;
    }
    Ok(())
}

pub(crate) fn io_error(context: String, error: std::io::Error) -> StorageError {
    let kind = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::Full,
        _ => ErrorKind::Unavailable,
    };
    StorageError::with_source(kind, context, error)
}

/// Runs what waits for a disk off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> StorageResult<T> + Send + 'static,
) -> StorageResult<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| StorageError::with_source(ErrorKind::Internal, "a read of storage panicked", e))?
}

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// One database file with its writer thread and its readers. Dropping it finishes the writes that
/// were handed in and closes the file.
pub(crate) struct Database {
    writes: Option<mpsc::Sender<Job>>,
    writer: Option<JoinHandle<()>>,
    readers: Arc<Readers>,
    read_permits: Arc<Semaphore>,
}

struct Readers {
    file: PathBuf,
    cache_kib: i64,
    idle: Mutex<Vec<Connection>>,
}

impl Database {
    /// Opens or creates `file` and migrates it.
    pub fn open(file: &Path, tuning: Tuning, steps: &[&str]) -> StorageResult<Self> {
        Self::open_with(file, tuning, steps, |_| Ok(()))
    }

    /// The same, and `load` sees the file before anybody else.
    pub fn open_with(
        file: &Path,
        tuning: Tuning,
        steps: &[&str],
        load: impl FnOnce(&Connection) -> rusqlite::Result<()>,
    ) -> StorageResult<Self> {
        if let Some(folder) = file.parent() {
            create_folder(folder)?;
        }
        let mut connection = connect(file, tuning).map_err(|e| cannot_open(file, e))?;
        migrate(&mut connection, file, steps).map_err(|e| cannot_open(file, e))?;
        load(&connection).map_err(|e| cannot_open(file, e))?;
        let (writes, inbox) = mpsc::channel(WRITES_WAITING_MAX);
        let writer = std::thread::Builder::new()
            .name("sqlite-writer".into())
            .spawn(move || run_writer(connection, inbox))
            .map_err(|e| io_error("failed to start a writer thread".into(), e))?;
        Ok(Self {
            writes: Some(writes),
            writer: Some(writer),
            readers: Arc::new(Readers {
                file: file.to_owned(),
                cache_kib: tuning.cache_kib.min(2 << 10),
                idle: Mutex::default(),
            }),
            read_permits: Arc::new(Semaphore::new(READERS_MAX)),
        })
    }

    /// Runs `work` on the writer thread. It happens even when the caller stops waiting.
    pub async fn write<T, F>(&self, work: F) -> StorageResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> StorageResult<T> + Send + 'static,
    {
        let (reply, result) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let _ = reply.send(work(connection)); // nobody waits any more: the work is done all the same
        });
        let writes = self.writes.as_ref().ok_or_else(writer_gone)?;
        writes.send(job).await.map_err(|_| writer_gone())?;
        result.await.map_err(|_| StorageError::new(ErrorKind::Internal, "a database write panicked; see the log"))?
    }

    /// Runs `work` in one transaction on the writer thread; it commits when `work` returns `Ok`.
    pub async fn transact<T, F>(&self, work: F) -> StorageResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> StorageResult<T> + Send + 'static,
    {
        self.write(move |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })
        .await
    }

    /// Hands `work` to the writer without waiting; `false` when it has too much to do already.
    pub fn write_later<F>(&self, work: F) -> bool
    where
        F: FnOnce(&mut Connection) + Send + 'static,
    {
        self.writes.as_ref().is_some_and(|writes| writes.try_send(Box::new(work)).is_ok())
    }

    /// Runs `work` on one snapshot, beside the writer.
    pub async fn read<T, F>(&self, work: F) -> StorageResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> StorageResult<T> + Send + 'static,
    {
        let permit = Arc::clone(&self.read_permits)
            .acquire_owned()
            .await
            .map_err(|_| StorageError::new(ErrorKind::Unavailable, "the database is closed"))?;
        let readers = Arc::clone(&self.readers);
        blocking(move || {
            let _permit = permit;
            readers.run(work)
        })
        .await
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.writes = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join(); // it catches panics; what it had to say is in the log
        }
    }
}

impl Readers {
    fn run<T>(&self, work: impl FnOnce(&Connection) -> StorageResult<T>) -> StorageResult<T> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => connect_to_read(&self.file, self.cache_kib).map_err(|e| cannot_open(&self.file, e))?,
        };
        let snapshot = connection.transaction()?;
        let value = work(&snapshot)?;
        snapshot.finish()?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok(value)
    }
}

fn run_writer(mut connection: Connection, mut inbox: mpsc::Receiver<Job>) {
    while let Some(job) = inbox.blocking_recv() {
        if catch_unwind(AssertUnwindSafe(|| job(&mut connection))).is_err() {
            tracing::error!("a database write panicked; its transaction is rolled back");
        }
    }
}

fn writer_gone() -> StorageError {
    StorageError::new(ErrorKind::Unavailable, "the database writer is not running")
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: [&str; 2] = ["CREATE TABLE t (a INTEGER)", "ALTER TABLE t ADD COLUMN b INTEGER DEFAULT 7"];

    #[tokio::test]
    async fn a_panicking_write_fails_alone_and_rolls_back() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&dir.path().join("x.db"), Tuning::default(), &STEPS).unwrap();
        let failed = database
            .transact(|t| -> StorageResult<()> {
                t.execute("INSERT INTO t (a) VALUES (1)", [])?;
                panic!("on purpose")
            })
            .await;
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::Internal);
        database.transact(|t| Ok(t.execute("INSERT INTO t (a) VALUES (2)", [])?)).await.unwrap();
        let rows: i64 = database.read(|c| Ok(c.query_row("SELECT sum(a) FROM t", [], |r| r.get(0))?)).await.unwrap();
        assert_eq!(rows, 2);
    }

    #[tokio::test]
    async fn an_older_schema_is_migrated_and_a_newer_one_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.db");
        let old = Database::open(&file, Tuning::default(), &STEPS[..1]).unwrap();
        old.transact(|t| Ok(t.execute("INSERT INTO t (a) VALUES (1)", [])?)).await.unwrap();
        drop(old);
        let new = Database::open(&file, Tuning::default(), &STEPS).unwrap();
        let b: i64 = new.read(|c| Ok(c.query_row("SELECT b FROM t", [], |r| r.get(0))?)).await.unwrap();
        assert_eq!(b, 7);
        drop(new);
        let refused = Database::open(&file, Tuning::default(), &STEPS[..1]).err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::Invalid);
        assert!(refused.to_string().contains("newer version of this program"), "{refused}");
    }

    #[tokio::test]
    async fn a_full_file_says_full_and_works_again_with_room() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&dir.path().join("x.db"), Tuning::default(), &STEPS).unwrap();
        let limit = |pages: i64| {
            database.write(move |c| Ok(c.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?))
        };
        let fill = || {
            database.transact(|t| {
                for _ in 0..10_000 {
                    t.execute("INSERT INTO t (a) VALUES (1)", [])?;
                }
                Ok(())
            })
        };
        limit(4).await.unwrap();
        assert_eq!(fill().await.unwrap_err().kind(), ErrorKind::Full);
        limit(100_000).await.unwrap();
        fill().await.unwrap();
        let rows: i64 = database.read(|c| Ok(c.query_row("SELECT count(*) FROM t", [], |r| r.get(0))?)).await.unwrap();
        assert_eq!(rows, 10_000);
    }
}
