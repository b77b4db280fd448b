//! What a process is, from `/proc`, and who did what a moment ago.

use rustix::fs::{CWD, Mode, OFlags, openat, readlinkat};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Mutex;
use std::time::Instant;

/// Of a command line.
pub const CMDLINE_BYTES_MAX: usize = 4_096;
/// Of an executable that is hashed, and of all that are within a second or so.
const HASHED_BYTES_MAX: u64 = 32 << 20;
const HASHED_BYTES_PER_SECOND: u64 = 16 << 20;
const HASHED_BYTES_BURST: u64 = 128 << 20;
/// Executables whose hashes are remembered.
const HASHES_MAX: usize = 512;
/// Of the list of users.
const USERS_BYTES_MAX: u64 = 1 << 20;
/// Processes whose deeds can still be told after they are gone.
const ACTORS_MAX: usize = 1_024;

/// What a process says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Details {
    pub name: String,
    pub parent: u32,
    pub exe: String,
    pub cmdline: String,
    pub is_cut: bool,
    pub uid: String,
    pub user: String,
    pub sha256: String,
    pub is_gone: bool,
}

impl Details {
    /// Reads them; nothing if there is no such process any more.
    pub fn read(pid: u32, users: &mut Users, hashes: Option<&mut Hashes>) -> Option<Self> {
        // All through one folder, so that no other process of the same number comes in between.
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        let dir = openat(CWD, format!("/proc/{pid}"), flags, Mode::empty()).ok()?;
        // First what goes when it ends; the rest stays until somebody has waited for it.
        let exe = readlinkat(&dir, "exe", Vec::new()).map(|exe| exe.to_string_lossy().into_owned());
        let (cmdline, is_cut) = match read_at(&dir, "cmdline", CMDLINE_BYTES_MAX + 1) {
            Ok(bytes) => (command_line(&bytes), bytes.len() > CMDLINE_BYTES_MAX),
            Err(_) => (String::new(), false),
        };
        let status = read_at(&dir, "status", 4_096).ok()?;
        let status = String::from_utf8_lossy(&status);
        let uid = field(&status, "Uid").unwrap_or_default().to_owned();
        let sha256 = hashes.and_then(|hashes| hashes.of(&dir)).unwrap_or_default();
        let exe = exe.unwrap_or_default();
        Some(Self {
            name: field(&status, "Name").map(unescape).unwrap_or_default(),
            parent: field(&status, "PPid").and_then(|pid| pid.parse().ok()).unwrap_or(0),
            // One that nobody waited for yet has a name and nothing else.
            is_gone: exe.is_empty() && cmdline.is_empty(),
            exe,
            cmdline,
            is_cut,
            user: users.name(&uid),
            uid,
            sha256,
        })
    }

    /// Of one that cannot be asked any more.
    pub fn gone(parent: Option<u32>) -> Self {
        Self { parent: parent.unwrap_or(0), is_gone: true, ..Self::default() }
    }
}

fn read_at(dir: &OwnedFd, name: &str, bytes_max: usize) -> Result<Vec<u8>, Errno> {
    let file = File::from(openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?);
    let mut bytes = Vec::new();
    // A process that ends meanwhile has said what it has said.
    match file.take(bytes_max as u64).read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
    }
}

/// The rest of a line after its name, up to the next tab.
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let rest = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"))?;
    rest.split('\t').next()
}

/// Names are shown with `\n` and `\\`.
fn unescape(name: &str) -> String {
    name.replace("\\n", "\n").replace("\\\\", "\\")
}

/// The name of a process; nothing if there is none.
pub fn name_of(pid: u32) -> String {
    let name = if pid == 0 { Vec::new() } else { std::fs::read(format!("/proc/{pid}/comm")).unwrap_or_default() };
    String::from_utf8_lossy(&name).trim_end().to_owned()
}

/// Arguments, with blanks between.
fn command_line(bytes: &[u8]) -> String {
    let bytes = bytes.get(..bytes.len().min(CMDLINE_BYTES_MAX)).unwrap_or(bytes);
    let bytes: Vec<u8> = bytes.iter().map(|byte| if *byte == 0 { b' ' } else { *byte }).collect();
    String::from_utf8_lossy(&bytes).trim_end().to_owned()
}

/// Users of this machine, read again when the list changes.
#[derive(Debug, Default)]
pub struct Users {
    version: (u64, i64, i64),
    names: BTreeMap<String, String>,
}

impl Users {
    /// The name of a user, else the number.
    pub fn name(&mut self, uid: &str) -> String {
        let version = std::fs::metadata("/etc/passwd").map(|meta| (meta.ino(), meta.ctime(), meta.ctime_nsec()));
        if let Ok(version) = version
            && version != self.version
        {
            self.version = version;
            let mut text = Vec::new();
            let file = File::open("/etc/passwd").map(|file| file.take(USERS_BYTES_MAX));
            // Without the list, users are numbers.
            let _ = file.and_then(|mut file| file.read_to_end(&mut text));
            self.names = users(&String::from_utf8_lossy(&text));
        }
        self.names.get(uid).map_or(uid, String::as_str).to_owned()
    }
}

/// The first name of each number.
fn users(text: &str) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split(':');
        if let (Some(name), Some(uid)) = (words.next(), words.nth(1)) {
            names.entry(uid.to_owned()).or_insert_with(|| name.to_owned());
        }
    }
    names
}

/// Device, number, time of its last change, size.
type FileVersion = (u64, u64, i64, i64, u64);

/// SHA-256 of executables, each read once.
#[derive(Debug)]
pub struct Hashes {
    known: BTreeMap<FileVersion, String>,
    order: VecDeque<FileVersion>,
    bytes: u64,
    filled: Instant,
}

impl Hashes {
    pub fn new(now: Instant) -> Self {
        Self { known: BTreeMap::new(), order: VecDeque::new(), bytes: HASHED_BYTES_BURST, filled: now }
    }

    /// That of the program that runs as the process with this folder. Nothing for one that is too large, or when too
    /// much was read lately.
    fn of(&mut self, dir: &OwnedFd) -> Option<String> {
        let file = File::from(openat(dir, "exe", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?);
        self.of_file(file)
    }

    fn of_file(&mut self, file: File) -> Option<String> {
        let meta = file.metadata().ok()?;
        // The inode's own time: the other can be set back.
        let version = (meta.dev(), meta.ino(), meta.ctime(), meta.ctime_nsec(), meta.len());
        if let Some(known) = self.known.get(&version) {
            return Some(known.clone());
        }
        let ms = u64::try_from(self.filled.elapsed().as_millis()).unwrap_or(u64::MAX);
        let more = ms.saturating_mul(HASHED_BYTES_PER_SECOND / 1_000);
        self.bytes = self.bytes.saturating_add(more).min(HASHED_BYTES_BURST);
        self.filled = Instant::now();
        if meta.len() > HASHED_BYTES_MAX || meta.len() > self.bytes {
            return None;
        }
        self.bytes -= meta.len();
        let (mut reader, mut digest, mut buffer) = (file.take(HASHED_BYTES_MAX), Sha256::new(), vec![0; 64 * 1024]);
        loop {
            match reader.read(&mut buffer).ok()? {
                0 => break,
                n => digest.update(buffer.get(..n)?),
            }
        }
        let hash: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if self.order.len() >= HASHES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.order.push_back(version);
        self.known.insert(version, hash.clone());
        Some(hash)
    }
}

/// Who does something to a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Actor {
    pub name: String,
    pub exe: String,
    pub user: String,
}

/// Processes that executed something lately: who changed a file can be told although it is gone.
#[derive(Debug, Default)]
pub struct Actors(Mutex<(BTreeMap<u32, Actor>, VecDeque<u32>)>);

impl Actors {
    /// Remembers one.
    pub fn learn(&self, pid: u32, details: &Details) {
        if details.is_gone {
            return;
        }
        let Details { name, exe, user, .. } = details.clone();
        let Ok(mut guard) = self.0.lock() else { return };
        let (known, order) = &mut *guard;
        if known.insert(pid, Actor { name, exe, user }).is_none() {
            order.push_back(pid);
        }
        if order.len() > ACTORS_MAX
            && let Some(oldest) = order.pop_front()
        {
            known.remove(&oldest);
        }
    }

    /// Who that is or was. One that runs can be asked itself.
    pub fn who(&self, pid: u32, users: &mut Users) -> Option<Actor> {
        match Details::read(pid, users, None).filter(|details| !details.is_gone) {
            Some(Details { name, exe, user, .. }) => Some(Actor { name, exe, user }),
            None => self.0.lock().ok()?.0.get(&pid).cloned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_are_bounded_text() {
        assert_eq!(command_line(b"sh\0-c\0echo \xff\0"), "sh -c echo \u{fffd}");
        assert_eq!(command_line(&[b'x'; 100_000]).len(), CMDLINE_BYTES_MAX);
        assert_eq!(command_line(b""), "");
    }

    #[test]
    fn users_have_the_first_name_of_their_number() {
        let names = users("root:x:0:0::/:/bin/sh\ntoor:x:0:0::/:/bin/sh\n\nodd\na:x:7:7\n");
        assert_eq!(names.into_iter().collect::<Vec<_>>(), [("0".into(), "root".into()), ("7".into(), "a".to_owned())]);
        let mut here = Users::default();
        assert_eq!((here.name("0"), here.name("4294967")), ("root".to_owned(), "4294967".to_owned()));
    }

    #[test]
    fn a_status_file_says_name_parent_and_user() {
        let status = "Name:\ta\\n b\\\\\nUmask:\t0022\nPid:\t7\nPPid:\t5\nUid:\t1000\t0\t0\t0\n";
        assert_eq!(field(status, "Name").map(unescape).unwrap(), "a\n b\\");
        assert_eq!(
            (field(status, "PPid"), field(status, "Uid"), field(status, "Gid")),
            (Some("5"), Some("1000"), None)
        );
    }

    #[test]
    fn an_executable_is_hashed_once_and_a_changed_one_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, "abc").unwrap();
        let mut hashes = Hashes::new(Instant::now());
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let of = |hashes: &mut Hashes| hashes.of_file(File::open(&path).unwrap());
        assert_eq!(of(&mut hashes).as_deref(), Some(abc));
        let left = hashes.bytes;
        assert_eq!(of(&mut hashes).as_deref(), Some(abc));
        assert!(hashes.bytes >= left, "not read again");
        let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
        std::fs::write(&path, "abd").unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        assert_ne!(of(&mut hashes).as_deref(), Some(abc), "the same size and time");
        File::options().write(true).open(&path).unwrap().set_len(HASHED_BYTES_MAX + 1).unwrap();
        assert_eq!(of(&mut hashes), None, "too large");
    }

    #[test]
    fn who_is_gone_is_still_known_and_not_everybody_for_ever() {
        let actors = Actors::default();
        let mut users = Users::default();
        for pid in 0..5_000 {
            actors.learn(10_000_000 + pid, &Details { name: format!("p{pid}"), ..Details::default() });
        }
        assert_eq!(actors.0.lock().unwrap().0.len(), ACTORS_MAX);
        assert_eq!(actors.who(10_004_999, &mut users).unwrap().name, "p4999");
        assert_eq!(actors.who(10_000_000, &mut users), None);
        let me = actors.who(std::process::id(), &mut users).unwrap();
        assert!(me.exe.starts_with('/') && !me.user.is_empty(), "{me:?}");
    }
}
