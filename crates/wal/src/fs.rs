//! The few things the log needs of a filesystem, so that tests can take each of them away.
//!
//! A method may fail at any time; nothing here retries, and nothing but [`LogFile::sync_data`] and
//! [`Filesystem::sync_dir`] makes anything durable.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Held for as long as the log is open; dropping it unlocks.
pub type LockGuard = Box<dyn Send + Sync>;

/// A folder of files, as the log sees it.
pub trait Filesystem: Send + Sync + 'static {
    /// Creates the directory and its parents, durably; no error when it is there.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Takes the exclusive lock named by `path`; `None` when somebody else holds it.
    fn lock(&self, path: &Path) -> io::Result<Option<LockGuard>>;
    /// Creates a file, or empties the one that is there.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn LogFile>>;
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn LogFile>>;
    /// Names and sizes of the files (not folders) of `dir`.
    fn list(&self, dir: &Path) -> io::Result<Vec<(String, u64)>>;
    /// Unlinks a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Moves a file, over whatever had the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Sixteen bytes that nobody can guess.
    fn random(&self) -> io::Result<[u8; 16]>;
}

/// An open file. Usable from several threads at once: no cursor.
pub trait LogFile: Send + Sync + 'static {
    /// Writes at `offset`; may write less than asked, never nothing without an error.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<usize>;
    /// Reads at `offset`; may read less than asked, 0 at the end.
    fn read_at(&self, offset: u64, data: &mut [u8]) -> io::Result<usize>;
    /// Makes all written data, and the length, durable.
    fn sync_data(&self) -> io::Result<()>;
    /// Asks for room ahead of the writes to come, without changing the length. Only a wish: writes that run into
    /// room of their own make a sync of much data cheaper, and do as well without.
    fn reserve(&self, _offset: u64, _len: u64) {}
    /// Sets the length.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// The length.
    fn size(&self) -> io::Result<u64>;
}

pub(crate) fn write_all_at(file: &dyn LogFile, mut offset: u64, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        match file.write_at(offset, data) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                data = &data[n..];
                offset += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Reads until `data` is full or the file ends; returns how much was read.
pub(crate) fn read_full_at(file: &dyn LogFile, offset: u64, data: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < data.len() {
        match file.read_at(offset + done as u64, &mut data[done..]) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// The real thing.
#[derive(Debug, Default, Clone, Copy)]
pub struct OsFilesystem;

impl Filesystem for OsFilesystem {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        let parent = dir.parent().filter(|p| !p.as_os_str().is_empty());
        if let Some(parent) = parent {
            self.create_dir(parent)?;
        }
        match std::fs::create_dir(dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
            _ => self.sync_dir(parent.unwrap_or(Path::new("."))),
        }
    }

    fn lock(&self, path: &Path) -> io::Result<Option<LockGuard>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(Arc::new(OsFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Arc::new(OsFile(file)))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            if let (true, Ok(name)) = (meta.is_file(), entry.file_name().into_string()) {
                files.push((name, meta.len()));
            }
        }
        Ok(files)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    #[cfg(unix)]
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    // NTFS journals directory changes; Windows has no call to flush a directory.
    #[cfg(not(unix))]
    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(io::Error::from)?;
        Ok(bytes)
    }
}

struct OsFile(File);

impl LogFile for OsFile {
    #[cfg(unix)]
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<usize> {
        std::os::unix::fs::FileExt::write_at(&self.0, data, offset)
    }

    #[cfg(windows)]
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<usize> {
        std::os::windows::fs::FileExt::seek_write(&self.0, data, offset)
    }

    #[cfg(unix)]
    fn read_at(&self, offset: u64, data: &mut [u8]) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(&self.0, data, offset)
    }

    #[cfg(windows)]
    fn read_at(&self, offset: u64, data: &mut [u8]) -> io::Result<usize> {
        std::os::windows::fs::FileExt::seek_read(&self.0, data, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    #[cfg(target_os = "linux")]
    fn reserve(&self, offset: u64, len: u64) {
        use rustix::fs::{FallocateFlags, fallocate};
        let _a_wish = fallocate(&self.0, FallocateFlags::KEEP_SIZE, offset, len);
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}
