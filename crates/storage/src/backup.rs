//! Copies of a data directory while a server works on it, and back.
//!
//! What a backup promises: everything acknowledged before it began is in it, and a server that
//! starts on a restored copy works on. Work that was under way may be done again, which changes
//! nothing, as after a power cut.
//!
//! How, without stopping anybody:
//! * Queues are logs that only grow and lose whole segments. First the segments of all records are
//!   held by hard links, then the journals (what is settled) are, then segments that are new since.
//!   A record that moves from one queue to another meanwhile is thus in the first one's segments and
//!   not settled there, or in the second one's. Bytes are copied after that; the end of a segment
//!   may be torn, as after a power cut, and is cut at the next opening.
//! * SQLite files come after the queues: what the queue's copy calls settled is in them. Each is
//!   copied by SQLite's own online backup, in one step.
//! * Keys are copied. Shared limits (`state-limits.db`) and `running.json` are of no use later.
//!
//! The copy is a folder of private files with a manifest (sizes, SHA-256), written last: without one
//! it is not a backup.

use crate::sqlite::connect_read_only;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

/// Name of the manifest in a backup.
pub const MANIFEST: &str = "manifest.json";
const FORMAT: u32 = 1;
/// Largest manifest that is read.
const MANIFEST_BYTES_MAX: u64 = 64 << 20;
/// How often a folder of segments is looked at again when it changes while it is.
const LINK_ROUNDS_MAX: u32 = 1_000;
/// Below the data directory while a backup is made: links to the queues' segments.
const HELD: &str = ".backup-in-progress";

/// Why there is no backup, or no restore.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("`{}`: {what}", path.display())]
    Io { path: PathBuf, what: &'static str, source: io::Error },
    #[error("the SQLite file `{}` could not be copied", path.display())]
    Sqlite { path: PathBuf, source: rusqlite::Error },
    /// Nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// The backup is not what it was.
    #[error("the backup is damaged: {0}")]
    Damaged(String),
}

type Result<T> = std::result::Result<T, BackupError>;

/// What a backup holds.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub format: u32,
    /// RFC 3339, when it was begun.
    pub created: String,
    /// Version of the program that made it.
    pub version: String,
    pub files: Vec<Entry>,
}

/// One file of a backup.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Below the backup's folder, with `/`.
    pub path: String,
    pub bytes: u64,
    /// Hexadecimal.
    pub sha256: String,
}

impl Manifest {
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

fn io(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::Io { path, what, source }
}

/// Copies `data_dir` to the new folder `to`, and each of `extra` (a name, a file) to `extra/<name>`.
/// Blocks; the server may run.
pub fn create(
    data_dir: &Path,
    extra: &[(String, PathBuf)],
    to: &Path,
    created: &str,
    version: &str,
) -> Result<Manifest> {
    if !data_dir.is_dir() {
        return Err(BackupError::Refused(format!("there is no data directory `{}`", data_dir.display())));
    }
    if is_filled(to)? {
        return Err(BackupError::Refused(format!("`{}` is not empty", to.display())));
    }
    private_dir(to)?;
    let held = data_dir.join(HELD);
    // Left by a backup that was killed.
    remove(&held)?;
    let copied = copy_all(data_dir, &held, extra, to);
    remove(&held)?;
    let manifest =
        Manifest { format: FORMAT, created: created.to_owned(), version: version.to_owned(), files: copied? };
    let text = serde_json::to_vec_pretty(&manifest).map_err(|e| BackupError::Refused(e.to_string()))?;
    let file = to.join(MANIFEST);
    let mut out = private_file(&file)?;
    out.write_all(&text).and_then(|()| out.sync_all()).map_err(io(&file, "cannot be written"))?;
    sync_dir(to)?;
    Ok(manifest)
}

fn copy_all(data_dir: &Path, held: &Path, extra: &[(String, PathBuf)], to: &Path) -> Result<Vec<Entry>> {
    let queues = folders(&data_dir.join("queue"))?;
    let each = |part: &str| -> Result<()> {
        for queue in &queues {
            let from = data_dir.join("queue").join(queue).join(part);
            hold(&from, &held.join("queue").join(queue).join(part))?;
        }
        Ok(())
    };
    each("records")?;
    each("journal")?;
    each("records")?;
    let mut entries = Vec::new();
    for segment in files_below(held)? {
        entries.push(copy(&held.join(&segment), to, &segment)?);
    }
    for file in files_below(data_dir)? {
        let name = file.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let top = file.components().next().and_then(|c| c.as_os_str().to_str()).unwrap_or_default();
        if top == "keys" {
            entries.push(copy(&data_dir.join(&file), to, &file)?);
        } else if name.ends_with(".db")
            && name != "state-limits.db"
            && top != HELD
            && let Some(entry) = copy_sqlite(&data_dir.join(&file), to, &file)?
        {
            entries.push(entry);
        }
    }
    for (name, file) in extra {
        entries.push(copy(file, to, &Path::new("extra").join(name))?);
    }
    Ok(entries)
}

/// Links the segments of `from` into `to` until both agree, so that none vanishes while it is copied.
/// What `to` has already is kept.
fn hold(from: &Path, to: &Path) -> Result<()> {
    if !from.is_dir() {
        return Ok(());
    }
    private_dir(to)?;
    for _ in 0..LINK_ROUNDS_MAX {
        let before = segments(from)?;
        let mut gone = false;
        for name in &before {
            match std::fs::hard_link(from.join(name), to.join(name)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => gone = true,
                Err(error) => return Err(io(&from.join(name), "cannot be linked")(error)),
            }
        }
        if !gone && segments(from)? == before {
            return Ok(());
        }
    }
    Err(BackupError::Refused(format!("`{}` changes too fast to be copied", from.display())))
}

fn segments(dir: &Path) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(dir).map_err(io(dir, "cannot be read"))? {
        let entry = entry.map_err(io(dir, "cannot be read"))?;
        if let Ok(name) = entry.file_name().into_string()
            && name.ends_with(".wal")
        {
            names.insert(name);
        }
    }
    Ok(names)
}

/// The bytes that `from` has now, at `to/path`.
fn copy(from: &Path, to: &Path, path: &Path) -> Result<Entry> {
    let source = File::open(from).map_err(io(from, "cannot be read"))?;
    let length = source.metadata().map_err(io(from, "cannot be read"))?.len();
    let target = to.join(path);
    private_dir(target.parent().unwrap_or(to))?;
    let mut out = private_file(&target)?;
    // Only what is there now: a log that grows while it is read must not be read beyond.
    io::copy(&mut source.take(length), &mut out).map_err(io(&target, "cannot be written"))?;
    out.sync_all().map_err(io(&target, "cannot be synced"))?;
    entry(to, path)
}

/// `None` when retention has removed the file meanwhile.
fn copy_sqlite(from: &Path, to: &Path, path: &Path) -> Result<Option<Entry>> {
    let target = to.join(path);
    private_dir(target.parent().unwrap_or(to))?;
    drop(private_file(&target)?);
    let sqlite = |source| BackupError::Sqlite { path: from.to_owned(), source };
    let source = match connect_read_only(from, 2 << 10) {
        Ok(source) => source,
        Err(_) if !from.exists() => {
            remove(&target)?;
            return Ok(None);
        }
        Err(error) => return Err(sqlite(error)),
    };
    let mut copy = rusqlite::Connection::open(&target).map_err(sqlite)?;
    {
        let backup = rusqlite::backup::Backup::new(&source, &mut copy).map_err(sqlite)?;
        // In one step: steps begin anew whenever somebody writes between them.
        loop {
            match backup.step(-1).map_err(sqlite)? {
                rusqlite::backup::StepResult::Done => break,
                _ => std::thread::sleep(std::time::Duration::from_millis(20)),
            }
        }
    }
    let sound: String = copy.query_row("PRAGMA quick_check", [], |row| row.get(0)).map_err(sqlite)?;
    if sound != "ok" {
        return Err(BackupError::Damaged(format!("`{}`: {sound}", from.display())));
    }
    // The copy is one file; the server makes it a WAL file again.
    copy.pragma_update_and_check(None, "journal_mode", "delete", |_| Ok(())).map_err(sqlite)?;
    copy.close().map_err(|(_, error)| sqlite(error))?;
    let file = File::open(&target).map_err(io(&target, "cannot be read"))?;
    file.sync_all().map_err(io(&target, "cannot be synced"))?;
    entry(to, path).map(Some)
}

/// Checks every file of a backup against its manifest, and that there is no other.
pub fn verify(from: &Path) -> Result<Manifest> {
    let file = from.join(MANIFEST);
    let mut text = String::new();
    let manifest = File::open(&file).map_err(io(&file, "cannot be read: this is not a finished backup"))?;
    manifest.take(MANIFEST_BYTES_MAX).read_to_string(&mut text).map_err(io(&file, "cannot be read"))?;
    let manifest: Manifest =
        serde_json::from_str(&text).map_err(|e| BackupError::Damaged(format!("{MANIFEST}: {e}")))?;
    if manifest.format != FORMAT {
        return Err(BackupError::Refused(format!("format {} is not known to this version", manifest.format)));
    }
    let mut listed = BTreeSet::from([PathBuf::from(MANIFEST)]);
    for wanted in &manifest.files {
        let path = Path::new(&wanted.path);
        // A manifest from elsewhere must not lead outside the folder.
        if !path.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(BackupError::Damaged(format!("`{}` is not a path of a backup", wanted.path)));
        }
        let found = entry(from, path).map_err(|error| match error {
            BackupError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                BackupError::Damaged(format!("`{}` is missing", wanted.path))
            }
            other => other,
        })?;
        if found != *wanted {
            return Err(BackupError::Damaged(format!("`{}` has changed", wanted.path)));
        }
        listed.insert(path.to_owned());
    }
    for file in files_below(from)? {
        if !listed.contains(&file) {
            return Err(BackupError::Damaged(format!("`{}` does not belong to it", file.display())));
        }
    }
    Ok(manifest)
}

/// Puts a backup into `data_dir`, which nobody may use. What is there is refused, or with `force` moved
/// to `data_dir` with `aside` appended; where it went is returned. `extra/` is not put back.
pub fn restore(from: &Path, data_dir: &Path, force: bool, aside: &str) -> Result<(Manifest, Option<PathBuf>)> {
    let manifest = verify(from)?;
    in_use(data_dir)?;
    let filled = is_filled(data_dir)?;
    if filled && !force {
        return Err(BackupError::Refused(format!(
            "`{}` is not empty; with --force what is there is moved aside",
            data_dir.display()
        )));
    }
    let mut name = data_dir.file_name().unwrap_or_default().to_owned();
    let (mut fresh, mut old) = (name.clone(), None);
    fresh.push(".restoring");
    let fresh = data_dir.with_file_name(fresh);
    remove(&fresh)?;
    private_dir(&fresh)?;
    for file in manifest.files.iter().filter(|file| !file.path.starts_with("extra/")) {
        let copied = copy(&from.join(&file.path), &fresh, Path::new(&file.path))?;
        if copied != *file {
            return Err(BackupError::Damaged(format!("`{}` changed while it was restored", file.path)));
        }
    }
    if filled {
        name.push(aside);
        let to = data_dir.with_file_name(name);
        std::fs::rename(data_dir, &to).map_err(io(data_dir, "cannot be moved aside"))?;
        old = Some(to);
    } else if data_dir.exists() {
        std::fs::remove_dir(data_dir).map_err(io(data_dir, "cannot be replaced"))?;
    }
    std::fs::rename(&fresh, data_dir).map_err(io(&fresh, "cannot be put in place"))?;
    if let Some(parent) = data_dir.parent().filter(|p| !p.as_os_str().is_empty()) {
        sync_dir(parent)?;
    }
    Ok((manifest, old))
}

/// Refuses a data directory that a server works on.
fn in_use(data_dir: &Path) -> Result<()> {
    for queue in folders(&data_dir.join("queue"))? {
        let lock = data_dir.join("queue").join(queue).join("records/lock");
        let Ok(file) = File::open(&lock) else { continue };
        if let Err(std::fs::TryLockError::WouldBlock) = file.try_lock() {
            return Err(BackupError::Refused(format!("a server works on `{}`; stop it first", data_dir.display())));
        }
    }
    Ok(())
}

fn entry(root: &Path, path: &Path) -> Result<Entry> {
    let file = root.join(path);
    let mut source = File::open(&file).map_err(io(&file, "cannot be read"))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    let mut bytes = 0u64;
    loop {
        let n = source.read(&mut buffer).map_err(io(&file, "cannot be read"))?;
        if n == 0 {
            break;
        }
        hash.update(&buffer[..n]);
        bytes += n as u64;
    }
    let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let Some(path) = path.to_str() else {
        return Err(BackupError::Refused(format!("`{}` is not a name in UTF-8", path.display())));
    };
    Ok(Entry { path: path.to_owned(), bytes, sha256 })
}

/// Regular files below `root`, as paths below it, sorted; links are not followed.
fn files_below(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut walk = vec![PathBuf::new()];
    while let Some(dir) = walk.pop() {
        let full = root.join(&dir);
        let entries = match std::fs::read_dir(&full) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(io(&full, "cannot be read")(error)),
        };
        for entry in entries {
            let entry = entry.map_err(io(&full, "cannot be read"))?;
            let Ok(kind) = entry.file_type() else { continue };
            let path = dir.join(entry.file_name());
            if kind.is_dir() {
                walk.push(path);
            } else if kind.is_file() {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn folders(dir: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io(dir, "cannot be read")(error)),
    };
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.ok().filter(|e| e.path().is_dir())?.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

fn is_filled(dir: &Path) -> Result<bool> {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io(dir, "cannot be read")(error)),
    }
}

fn private_dir(dir: &Path) -> Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io(dir, "cannot be made"))
}

fn private_file(file: &Path) -> Result<File> {
    File::options().write(true).create_new(true).mode(0o600).open(file).map_err(io(file, "cannot be made"))
}

fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io(path, "cannot be removed")(error)),
        _ => Ok(()),
    }
}

fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io(dir, "cannot be synced"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir_all(data.join("keys")).unwrap();
        std::fs::create_dir_all(data.join("queue/ingest/records")).unwrap();
        std::fs::write(data.join("keys/k"), "key").unwrap();
        std::fs::write(data.join("queue/ingest/records/0.wal"), "segment").unwrap();
        std::fs::write(data.join("running.json"), "{}").unwrap();
        let database = rusqlite::Connection::open(data.join("catalog.db")).unwrap();
        database.execute_batch("create table t(x); insert into t values (7)").unwrap();
        create(&data, &[], &dir.path().join("b"), "2026-01-01T00:00:00Z", "1").unwrap();
        let backup = dir.path().join("b");
        (dir, backup)
    }

    #[test]
    fn a_backup_comes_back_whole_and_closed() {
        use std::os::unix::fs::PermissionsExt;
        let (dir, backup) = made();
        let to = dir.path().join("new");
        let (manifest, old) = restore(&backup, &to, false, ".old").unwrap();
        assert_eq!((manifest.files.len(), old), (3, None));
        let database = rusqlite::Connection::open(to.join("catalog.db")).unwrap();
        assert_eq!(database.query_row("select x from t", [], |r| r.get::<_, i64>(0)).unwrap(), 7);
        assert_eq!(std::fs::read_to_string(to.join("queue/ingest/records/0.wal")).unwrap(), "segment");
        assert!(!to.join("running.json").exists());
        for root in [&backup, &to] {
            for file in files_below(root).unwrap() {
                let mode = std::fs::metadata(root.join(&file)).unwrap().permissions().mode();
                assert_eq!(mode & 0o777, 0o600, "{}", file.display());
            }
        }
    }

    #[test]
    fn what_is_there_is_not_overwritten_but_moved_aside_with_force() {
        let (dir, backup) = made();
        let data = dir.path().join("data");
        assert!(matches!(restore(&backup, &data, false, ".old"), Err(BackupError::Refused(_))));
        assert!(data.join("running.json").exists());
        let (_, old) = restore(&backup, &data, true, ".old").unwrap();
        assert!(old.unwrap().join("running.json").exists());
        assert!(!data.join("running.json").exists());
        assert!(matches!(create(&data, &[], &backup, "", ""), Err(BackupError::Refused(_))), "nor is a backup");
    }

    #[test]
    fn a_damaged_backup_is_told_and_not_restored() {
        let tampers: [fn(&Path); 5] = [
            |b| std::fs::write(b.join("keys/k"), "Key").unwrap(),
            |b| std::fs::remove_file(b.join("catalog.db")).unwrap(),
            |b| std::fs::write(b.join("keys/other"), "x").unwrap(),
            |b| std::fs::write(b.join(MANIFEST), "{").unwrap(),
            |b| {
                let text = std::fs::read_to_string(b.join(MANIFEST)).unwrap().replace("keys/k", "../data/keys/k");
                std::fs::write(b.join(MANIFEST), text).unwrap();
            },
        ];
        for (n, tamper) in tampers.iter().enumerate() {
            let (dir, backup) = made();
            tamper(&backup);
            assert!(matches!(verify(&backup), Err(BackupError::Damaged(_))), "{n}");
            assert!(restore(&backup, &dir.path().join("new"), false, ".old").is_err(), "{n}");
            assert!(!dir.path().join("new").exists(), "{n}");
        }
        let (_dir, backup) = made();
        std::fs::remove_file(backup.join(MANIFEST)).unwrap();
        assert!(verify(&backup).unwrap_err().to_string().contains("not a finished backup"));
    }

    #[test]
    fn a_directory_that_somebody_works_on_is_not_restored_over() {
        let (dir, backup) = made();
        let data = dir.path().join("data");
        let lock = File::create(data.join("queue/ingest/records/lock")).unwrap();
        lock.lock().unwrap();
        let error = restore(&backup, &data, true, ".old").unwrap_err();
        assert!(error.to_string().contains("stop it first"), "{error}");
    }
}
