//! One day file, open for writing.

use super::layout::{self, Day, Key};
use super::{STEPS, StoredEvent};
use crate::sqlite::{self, Durability, Tuning};
use crate::{StorageError, StorageResult};
use model::{ErrorKind, InputKind};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, TransactionBehavior, params};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// WAL bytes after which the writer checkpoints, once it has answered.
const CHECKPOINT_BYTES: usize = 32 << 20;
/// Bytes of a row beside its JSON, about.
const ROW_BYTES: usize = 48;

const TUNING: Tuning =
    Tuning { durability: Durability::Full, cache_kib: 8 << 10, page_bytes: Some(16 << 10), autocheckpoint_pages: 0 };

/// Why a day file could not be used.
#[derive(Debug)]
pub(super) enum PartitionError {
    /// The file is damaged: put it aside.
    Broken(rusqlite::Error),
    Other(StorageError),
}

impl From<rusqlite::Error> for PartitionError {
    fn from(error: rusqlite::Error) -> Self {
        if is_broken(&error) { Self::Broken(error) } else { Self::Other(error.into()) }
    }
}

impl From<StorageError> for PartitionError {
    fn from(error: StorageError) -> Self {
        Self::Other(error)
    }
}

/// Whether `error` says that the file itself is damaged.
pub(super) fn is_broken(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode as C;
    matches!(error.sqlite_error_code(), Some(C::DatabaseCorrupt | C::NotADatabase))
}

pub(super) struct Partition {
    pub key: Key,
    connection: Connection,
    file: PathBuf,
    /// prefix → lane, as in the file.
    lanes: HashMap<i64, i64>,
    /// Events in the file.
    pub total: u64,
    unchecked_bytes: usize,
}

impl Partition {
    /// Opens the file of `key`, creating what is missing.
    pub fn open(dir: &Path, key: Key) -> Result<Self, PartitionError> {
        let file = key.file(dir);
        if !file.exists() {
            create(&file)?;
        }
        let mut connection = sqlite::connect(&file, TUNING).map_err(|e| named(&file, e))?;
        match sqlite::migrate(&mut connection, &file, &STEPS) {
            Ok(()) => {}
            // The first statement that reads a damaged header fails here.
            Err(error) if error.kind() == ErrorKind::Internal => {
                let seen = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0));
                return Err(match seen {
                    Err(cause) if is_broken(&cause) => PartitionError::Broken(cause),
                    Ok(_) | Err(_) => sqlite::cannot_open(&file, error).into(),
                });
            }
            Err(error) => return Err(sqlite::cannot_open(&file, error).into()),
        }
        let mut lanes = HashMap::new();
        {
            let mut statement = connection.prepare("SELECT prefix, lane FROM lanes")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                lanes.insert(row.get(0)?, row.get(1)?);
            }
        }
        let total = super::reader::total(&connection)?;
        Ok(Self { key, connection, file, lanes, total, unchecked_bytes: 0 })
    }

    /// Whether the file is still where it was; an operator may have moved it away.
    pub fn is_in_place(&self) -> bool {
        self.file.exists()
    }

    /// Stores the events in one durable transaction; those stored before are left as they are. For
    /// each new one `added(tag)` is called. After an error the partition must be opened anew.
    pub fn append(
        &mut self,
        events: &[(usize, &StoredEvent)],
        mut added: impl FnMut(usize),
    ) -> Result<(), PartitionError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut minutes: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
        let mut new = 0;
        {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO events (id, ts, input, severity, rule_id, host, raw) VALUES (?, ?, ?, ?, ?, ?, ?) \
                 ON CONFLICT (id) DO NOTHING",
            )?;
            let (mut last_prefix, mut lane) = (-1, 0);
            for (tag, event) in events {
                let prefix = layout::lane_prefix(event.id);
                if prefix != last_prefix {
                    lane = match self.lanes.get(&prefix) {
                        Some(lane) => *lane,
                        None => {
                            let lane = self.lanes.len() as i64;
                            if lane >= layout::LANES_MAX {
                                return Err(no_lane_left(&self.file).into());
                            }
                            transaction
                                .prepare_cached("INSERT INTO lanes (lane, prefix) VALUES (?, ?)")?
                                .execute([lane, prefix])?;
                            self.lanes.insert(prefix, lane);
                            lane
                        }
                    };
                    last_prefix = prefix;
                }
                let inserted = insert.execute(params![
                    layout::row_key(event.id, lane),
                    event.timestamp.micros(),
                    input_code(event.input),
                    event.severity.map(|s| s.code()),
                    event.rule_id,
                    event.host,
                    text_or_blob(&event.raw),
                ])?;
                if inserted > 0 {
                    let minute = minutes.entry(layout::minute_of(event.id.accepted())).or_default();
                    minute.0 += 1;
                    minute.1 += i64::from(event.rule_id.is_some());
                    self.unchecked_bytes += event.raw.len() + event.host.len() + ROW_BYTES;
                    new += 1;
                    added(*tag);
                }
            }
            let mut roll_up = transaction.prepare_cached(
                "INSERT INTO minutes (minute, events, handled) VALUES (?, ?, ?) ON CONFLICT (minute) DO UPDATE \
                 SET events = events + excluded.events, handled = handled + excluded.handled",
            )?;
            for (minute, (events, handled)) in minutes {
                roll_up.execute([minute, events, handled])?;
            }
        }
        transaction.commit()?;
        self.total += new;
        Ok(())
    }

    /// Moves what has gathered in the WAL into the file, if it is much.
    pub fn checkpoint_if_due(&mut self) {
        if self.unchecked_bytes >= CHECKPOINT_BYTES {
            self.unchecked_bytes = 0;
            self.checkpoint("PASSIVE");
        }
    }

    /// Leaves a file that is complete without its WAL.
    pub fn close(self) {
        self.checkpoint("TRUNCATE");
    }

    fn checkpoint(&self, mode: &str) {
        // Failing here loses nothing: the WAL stays, and the next commit or opening tries again.
        if let Err(error) = self.connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(())) {
            tracing::warn!(file = %self.file.display(), %error, "could not checkpoint a day of events");
        }
    }
}

/// Makes an empty day under another name and moves it into place, so that no reader ever meets half
/// a file.
fn create(file: &Path) -> Result<(), PartitionError> {
    let Some(folder) = file.parent() else { return Ok(()) };
    sqlite::create_folder(folder)?;
    let draft = with_suffix(file, ".new");
    // Leftovers of a crash; and a new file must never meet an old WAL.
    for stale in [&draft, file] {
        remove(&with_suffix(stale, "-wal"))?;
        remove(&with_suffix(stale, "-shm"))?;
    }
    remove(&draft)?;
    let mut connection = sqlite::connect(&draft, TUNING).map_err(|e| sqlite::cannot_open(file, e))?;
    sqlite::migrate(&mut connection, file, &STEPS).map_err(|e| sqlite::cannot_open(file, e))?;
    connection.close().map_err(|(_, e)| sqlite::cannot_open(file, e))?;
    std::fs::rename(&draft, file)
        .and_then(|()| std::fs::File::open(folder)?.sync_all())
        .map_err(|e| sqlite::io_error(format!("failed to create {}", file.display()), e))?;
    Ok(())
}

/// Removes a file; it is all right when there is none.
fn remove(file: &Path) -> StorageResult<bool> {
    match std::fs::remove_file(file) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(sqlite::io_error(format!("failed to remove {}", file.display()), error)),
    }
}

fn named(file: &Path, error: rusqlite::Error) -> PartitionError {
    if is_broken(&error) { PartitionError::Broken(error) } else { sqlite::cannot_open(file, error).into() }
}

fn no_lane_left(file: &Path) -> StorageError {
    StorageError::new(
        ErrorKind::Full,
        format!("{} holds events of too many process runs ({})", file.display(), layout::LANES_MAX),
    )
}

/// JSON is text, and people look at it with the `sqlite3` shell; anything else is kept byte by byte.
fn text_or_blob(raw: &[u8]) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(if std::str::from_utf8(raw).is_ok() { ValueRef::Text(raw) } else { ValueRef::Blob(raw) })
}

/// The number of an input in the file.
pub(super) fn input_code(input: InputKind) -> i64 {
    match input {
        InputKind::Http => 0,
        InputKind::SyslogUdp => 1,
        InputKind::SyslogTcp => 2,
        InputKind::SyslogTls => 3,
        InputKind::Internal => 4,
        InputKind::Snmp => 5,
        InputKind::Agent => 6,
    }
}

pub(super) fn input_of(code: i64) -> InputKind {
    InputKind::ALL.into_iter().find(|input| input_code(*input) == code).unwrap_or(InputKind::Internal)
}

/// Renames the broken file of `key` and its WAL aside; returns the new name.
pub(super) fn put_aside(dir: &Path, key: &Key) -> StorageResult<Option<PathBuf>> {
    let file = key.file(dir);
    if !file.exists() {
        return Ok(None);
    }
    let free = (1..).map(|n| with_suffix(&file, &format!(".corrupt-{n}"))).find(|name| !name.exists());
    let Some(aside) = free else { return Ok(None) };
    // The WAL first: a new file must never meet an old WAL.
    remove(&with_suffix(&file, "-shm"))?;
    for suffix in ["-wal", ""] {
        let from = with_suffix(&file, suffix);
        if from.exists() {
            std::fs::rename(&from, with_suffix(&aside, suffix))
                .map_err(|e| sqlite::io_error(format!("failed to put {} aside", from.display()), e))?;
        }
    }
    Ok(Some(aside))
}

/// Removes the files of days before `first_kept` in `folder`; returns how many days went.
pub(super) fn remove_before(folder: &Path, first_kept: Day) -> StorageResult<usize> {
    let mut files = layout::files_before(folder, first_kept)?;
    // Longest name first: a WAL goes before its file.
    files.sort_by_key(|(_, path)| std::cmp::Reverse(path.as_os_str().len()));
    let mut days = 0;
    for (_, path) in files {
        if remove(&path)? && path.extension().is_some_and(|e| e == "db") {
            days += 1;
        }
    }
    Ok(days)
}

fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use model::{EventId, OrgId, Timestamp};

    fn events(from: u64, n: u64) -> Vec<StoredEvent> {
        let event = |i| StoredEvent {
            id: EventId::new(Timestamp::from_millis(1_000), 1, i),
            org: OrgId::default(),
            input: InputKind::Http,
            host: "h".into(),
            timestamp: Timestamp::from_millis(1_000),
            severity: None,
            rule_id: None,
            raw: Bytes::from(vec![b'x'; 500]),
        };
        (from..from + n).map(event).collect()
    }

    fn append(partition: &mut Partition, batch: &[StoredEvent]) -> Result<usize, PartitionError> {
        let mut added = 0;
        let tagged: Vec<_> = batch.iter().map(|event| (0, event)).collect();
        partition.append(&tagged, |_| added += 1)?;
        Ok(added)
    }

    #[test]
    fn a_full_disk_says_full_keeps_what_was_there_and_works_again_with_room() {
        let dir = tempfile::tempdir().unwrap();
        let key = Key { org: OrgId::default(), day: Day::at(Timestamp::from_millis(0)) };
        let mut partition = Partition::open(dir.path(), key.clone()).unwrap();
        assert_eq!(append(&mut partition, &events(0, 100)).unwrap(), 100);
        let limit = |partition: &Partition, pages: i64| {
            partition.connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).unwrap();
        };
        limit(&partition, 12);
        match append(&mut partition, &events(1 << 30, 10_000)) {
            Err(PartitionError::Other(error)) => assert_eq!(error.kind(), ErrorKind::Full, "{error}"),
            other => panic!("{other:?}"),
        }
        drop(partition);
        let mut partition = Partition::open(dir.path(), key).unwrap();
        assert_eq!((partition.total, partition.lanes.len()), (100, 1));
        assert_eq!(append(&mut partition, &events(1 << 30, 10_000)).unwrap(), 10_000);
        assert_eq!(append(&mut partition, &events(0, 101)).unwrap(), 1);
        assert_eq!(partition.total, 10_101);
    }
}
