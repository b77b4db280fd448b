//! Where in which file a source stands, so that it is found again after the file was renamed, copied or cut.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

/// How much of a file's beginning tells it from others.
const FINGERPRINT_BYTES: u64 = 1_024;
/// Other names of a rotated file that are looked at.
const SIBLINGS_MAX: usize = 256;
/// Listings of a folder in which files are being renamed.
const LISTINGS_MAX: usize = 50;

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub dev: u64,
    pub ino: u64,
    pub offset: u64,
    /// Of so many bytes at its beginning, which never lie behind `offset`.
    pub print_bytes: u64,
    pub print: String,
}

/// The fingerprint of the first bytes; `None` where there are not so many.
pub fn fingerprint(file: &File, bytes: u64) -> io::Result<Option<String>> {
    let mut head = vec![0; bytes.min(FINGERPRINT_BYTES) as usize];
    match file.read_exact_at(&mut head, 0) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let digest = Sha256::digest(&head);
    Ok(Some(digest.iter().take(12).map(|byte| format!("{byte:02x}")).collect()))
}

impl Place {
    /// That of a file that was read up to `offset`.
    pub fn of(file: &File, offset: u64) -> io::Result<Self> {
        let meta = file.metadata()?;
        let print_bytes = offset.min(FINGERPRINT_BYTES);
        let print = fingerprint(file, print_bytes)?.unwrap_or_default();
        Ok(Self { dev: meta.dev(), ino: meta.ino(), offset, print_bytes, print })
    }

    /// Whether the file has what was read of it.
    pub fn is_in(&self, file: &File) -> io::Result<bool> {
        let long_enough = file.metadata()?.len() >= self.offset;
        Ok(long_enough && fingerprint(file, self.print_bytes)?.is_some_and(|print| print == self.print))
    }
}

/// A file under the name of a followed one, or under a name that rotation gives.
#[derive(Debug)]
pub struct Sibling {
    pub file: File,
    pub dev: u64,
    pub ino: u64,
    pub modified: (i64, i64),
}

/// Whether `name` is what rotation makes of `base`: `base.1`, `base-20260101`, `base.old`. Packed ones cannot be read.
pub fn is_rotated(base: &str, name: &str) -> bool {
    let Some(rest) = name.strip_prefix(base).and_then(|rest| rest.strip_prefix(['.', '-', '_'])) else { return false };
    matches!(rest, "old" | "bak")
        || (rest.starts_with(|c: char| c.is_ascii_digit())
            && rest.bytes().all(|b| b.is_ascii_digit() || b"-_.T:".contains(&b)))
}

/// The name that rotation started from, where `name` looks rotated.
pub fn base_of(name: &str) -> Option<&str> {
    name.char_indices()
        .filter(|(at, c)| *at > 0 && matches!(c, '.' | '-' | '_'))
        .map(|(at, _)| name.split_at(at).0)
        .find(|base| is_rotated(base, name))
}

/// A name that rotation gave, and the file that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Listed {
    suffix: String,
    id: (u64, u64),
}

fn listed(dir: &Path, base: &str) -> io::Result<Vec<Listed>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)?.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| is_rotated(base, name)) else { continue };
        // One that vanishes while it is listed has another name by then.
        if let (Ok(meta), Some(suffix)) = (entry.metadata(), name.get(base.len() + 1..)) {
            found.push(Listed { suffix: suffix.to_owned(), id: (meta.dev(), meta.ino()) });
        }
    }
    found.sort_by(|a, b| a.suffix.cmp(&b.suffix));
    Ok(found)
}

/// The rotated files beside `path`, oldest first; of very many, the newest.
///
/// While files are being renamed a listing can miss one or show one twice, so it is made again until it stays the same.
pub fn siblings(path: &Path) -> io::Result<Vec<Sibling>> {
    let (Some(dir), Some(base)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for _ in 0..LISTINGS_MAX {
        let before = listed(dir, base)?;
        found = opened(path, base, &before);
        if listed(dir, base)? == before {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(found)
}

fn opened(path: &Path, base: &str, listed: &[Listed]) -> Vec<Sibling> {
    let mut found = Vec::new();
    // By the scheme that most have; times decide only where names do not.
    let count = |suffix: &str| Some(suffix).filter(|s| s.len() < 6).and_then(|s| s.parse::<u32>().ok());
    let mut names: Vec<&Listed> = listed.iter().collect();
    let counted = names.iter().filter(|name| count(&name.suffix).is_some()).count();
    if counted == names.len() {
        names.sort_by_key(|name| std::cmp::Reverse(count(&name.suffix)));
    }
    for name in names.iter().skip(names.len().saturating_sub(SIBLINGS_MAX)) {
        let separators = ['.', '-', '_'];
        let file = separators.iter().find_map(|separator| {
            let path = path.with_file_name(format!("{base}{separator}{}", name.suffix));
            open_regular(&path).ok().flatten()
        });
        let Some(file) = file else { continue };
        let Ok(meta) = file.metadata() else { continue };
        let modified = (meta.mtime(), meta.mtime_nsec());
        found.push(Sibling { file, dev: meta.dev(), ino: meta.ino(), modified });
    }
    if counted != 0 && counted != names.len() {
        found.sort_by_key(|sibling| sibling.modified);
    }
    found
}

/// Opens a file for reading without waiting; `None` where there is none, or no regular one: a pipe or a device is not
/// followed.
pub fn open_regular(path: &Path) -> io::Result<Option<File>> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => {
            let file = File::from(fd);
            Ok(file.metadata()?.is_file().then_some(file))
        }
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_rotation_gives_are_known() {
        for name in ["a.log.1", "a.log.10", "a.log-20260101", "a.log.2026-01-01_10:00", "a.log_1", "a.log.old"] {
            assert!(is_rotated("a.log", name), "{name}");
            assert_eq!(base_of(name), Some("a.log"), "{name}");
        }
        for name in ["a.log", "a.log.gz", "a.log.1.gz", "a.log.x", "a.logs", "b.log.1", "a.log.", "a.log.1x"] {
            assert!(!is_rotated("a.log", name), "{name}");
        }
        assert_eq!((base_of("access.log"), base_of("app-2")), (None, Some("app")));
    }

    #[test]
    fn a_place_is_found_in_the_file_it_was_read_from_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, "one\ntwo\n").unwrap();
        let file = File::open(&path).unwrap();
        let place = Place::of(&file, 4).unwrap();
        assert!(place.is_in(&file).unwrap());
        std::fs::write(&path, "one\n").unwrap();
        assert!(place.is_in(&file).unwrap(), "what was read is there");
        std::fs::write(&path, "ONE\ntwo\n").unwrap();
        assert!(!place.is_in(&file).unwrap(), "another beginning");
        std::fs::write(&path, "on").unwrap();
        assert!(!place.is_in(&file).unwrap(), "shorter");
        assert!(open_regular(Path::new("/dev/null")).unwrap().is_none());
        assert!(open_regular(&dir.path().join("none")).unwrap().is_none());
    }
}
