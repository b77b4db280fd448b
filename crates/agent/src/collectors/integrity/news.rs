//! News of folders, at once: by fanotify, which says who did something, else by inotify, else none.
//!
//! Each folder has a fanotify group of its own, so that a name in an event says which file is meant. An event is 24 bytes
//! (length, version, length of this, mask, file, process) and information records behind it; the one asked for has the
//! folder's handle and the name.

use crate::collectors::kernel::number;
use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};
use rustix::fs::{CWD, inotify};
use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// `FAN_REPORT_DIR_FID | FAN_REPORT_NAME`.
const REPORT_DFID_NAME: u32 = 0xc00;
const INFO_DFID_NAME: u8 = 2;
const EVENT: usize = 24;
/// Behind the type and length of the record: the filesystem's number and the handle's length and type.
const HANDLE: usize = 4 + 8 + 8;
const FOLDERS_MAX: usize = 64;

/// Something happened to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touched {
    pub path: PathBuf,
    /// Who did it, if that is said.
    pub pid: Option<u32>,
}

enum Source {
    Fanotify(BTreeMap<PathBuf, Fanotify>),
    Inotify(OwnedFd),
    Nothing,
}

/// News of some folders.
pub struct News(Source);

impl News {
    /// The best there is, and why it is not better.
    pub fn open() -> (Self, Option<String>) {
        let why = match group() {
            Ok(_) => {
                // Whoever may ask for less only is not told of other users' processes.
                let asked = Fanotify::init(InitFlags::FAN_CLASS_NOTIF | InitFlags::FAN_CLOEXEC, EventFFlags::O_RDONLY);
                let why = asked.err().map(|error| format!("the kernel does not say who changes a file: {error}"));
                return (Self(Source::Fanotify(BTreeMap::new())), why);
            }
            Err(error) => format!("the kernel does not say who changes a file: {error}"),
        };
        (Self::without_actors(), Some(why))
    }

    /// By inotify, or nothing.
    pub fn without_actors() -> Self {
        match inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK) {
            Ok(fd) => Self(Source::Inotify(fd)),
            Err(_) => Self(Source::Nothing),
        }
    }

    /// Whether changes are heard of at all.
    pub fn is_there(&self) -> bool {
        match &self.0 {
            Source::Fanotify(groups) => !groups.is_empty(),
            Source::Inotify(_) => true,
            Source::Nothing => false,
        }
    }

    /// Asks for news of a folder. Again and again: it may have been made anew.
    pub fn watch(&mut self, dir: &Path) {
        match &mut self.0 {
            Source::Fanotify(groups) => {
                if !groups.contains_key(dir)
                    && groups.len() < FOLDERS_MAX
                    && let Ok(group) = group()
                {
                    groups.insert(dir.to_owned(), group);
                }
                let mask = MaskFlags::FAN_MODIFY
                    | MaskFlags::FAN_CLOSE_WRITE
                    | MaskFlags::FAN_ATTRIB
                    | MaskFlags::FAN_CREATE
                    | MaskFlags::FAN_DELETE
                    | MaskFlags::FAN_MOVED_FROM
                    | MaskFlags::FAN_MOVED_TO
                    | MaskFlags::FAN_EVENT_ON_CHILD;
                let flags = MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_ONLYDIR;
                let marked = groups.get(dir).map(|group| group.mark(flags, mask, CWD, Some(dir)));
                if !matches!(marked, Some(Ok(()))) {
                    // It is not there, or its filesystem cannot: it is looked at from time to time.
                    groups.remove(dir);
                }
            }
            Source::Inotify(fd) => {
                use inotify::WatchFlags as Wanted;
                let wanted = Wanted::MODIFY
                    | Wanted::CLOSE_WRITE
                    | Wanted::ATTRIB
                    | Wanted::CREATE
                    | Wanted::DELETE
                    | Wanted::MOVED_FROM
                    | Wanted::MOVED_TO
                    | Wanted::ONLYDIR;
                // The same reason.
                let _ = inotify::add_watch(fd, dir, wanted);
            }
            Source::Nothing => {}
        }
    }

    /// To wait for.
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        match &self.0 {
            Source::Fanotify(groups) => groups.values().map(AsFd::as_fd).collect(),
            Source::Inotify(fd) => vec![fd.as_fd()],
            Source::Nothing => Vec::new(),
        }
    }

    /// Hands on what there is now. Whether there was anything, also of files that are not named.
    pub fn take(&mut self, mut each: impl FnMut(Touched)) -> bool {
        let mut is_any = false;
        let mut buffer = [0; 8 * 1024];
        match &mut self.0 {
            Source::Fanotify(groups) => {
                for (dir, group) in groups {
                    while let Ok(bytes @ 1..) = rustix::io::read(group.as_fd(), &mut buffer) {
                        is_any = true;
                        parse(buffer.get(..bytes).unwrap_or_default(), |name, pid| {
                            each(Touched { path: dir.join(name), pid });
                        });
                    }
                }
            }
            Source::Inotify(fd) => {
                let mut buffer = [MaybeUninit::<u8>::uninit(); 4_096];
                let mut reader = inotify::Reader::new(fd, &mut buffer);
                while reader.next().is_ok() {
                    is_any = true;
                }
            }
            Source::Nothing => {}
        }
        is_any
    }
}

fn group() -> Result<Fanotify, nix::Error> {
    let flags = InitFlags::FAN_CLASS_NOTIF | InitFlags::FAN_CLOEXEC | InitFlags::FAN_NONBLOCK;
    Fanotify::init(flags | InitFlags::from_bits_retain(REPORT_DFID_NAME), EventFFlags::O_RDONLY)
}

/// Names and processes in a buffer of events.
fn parse(mut events: &[u8], mut each: impl FnMut(&str, Option<u32>)) {
    while let Some(length) = number(events, 0).map(|length| length as usize).filter(|length| *length >= EVENT) {
        let event = events.get(..length).unwrap_or_default();
        let pid = number(event, 20).filter(|pid| *pid > 0);
        let mut records = event.get(EVENT..).unwrap_or_default();
        while let [kind, _, low, high, ..] = *records {
            let length = usize::from(u16::from_ne_bytes([low, high]));
            if length < 4 {
                break;
            }
            let record = records.get(..length).unwrap_or_default();
            if kind == INFO_DFID_NAME
                && let Some(name) = name(record)
            {
                each(name, pid);
            }
            records = records.get(length..).unwrap_or_default();
        }
        events = events.get(length..).unwrap_or_default();
    }
}

fn name(record: &[u8]) -> Option<&str> {
    let handle_bytes = number(record, 12)? as usize;
    let name = record.get(HANDLE.checked_add(handle_bytes)?..)?;
    let end = name.iter().position(|byte| *byte == 0)?;
    std::str::from_utf8(name.get(..end)?).ok().filter(|name| !name.is_empty() && *name != ".")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mode and then name of `file` in a watched folder are changed, as a kernel of version 6.18 told it of ext4.
    const SAMPLE: &str = "\
        3c000000030018004400000000000000ffffffffc01800000200240044c13cae14c9ef9b080000000100000031809900cc9f\
        162966696c65000000003c000000030018008000000000000000ffffffffc01800000200240044c13cae14c9ef9b08000000\
        0100000031809900cc9f162966696c6532000000";

    #[test]
    #[cfg(target_endian = "little")]
    fn events_are_read_as_the_kernel_tells_them() {
        let bytes: Vec<u8> =
            (0..SAMPLE.len()).step_by(2).map(|at| u8::from_str_radix(&SAMPLE[at..at + 2], 16).unwrap()).collect();
        let mut found = Vec::new();
        parse(&bytes, |name, pid| found.push((name.to_owned(), pid)));
        let pid = Some(6336);
        assert_eq!(
            found,
            [("file".to_owned(), pid), ("file2".to_owned(), pid)],
            "both things that happened to one are one event"
        );
        for end in 0..bytes.len() {
            parse(&bytes[..end], |_, _| ());
        }
    }

    #[test]
    fn broken_events_end() {
        for length in [0u32, 1, 23, 24, 30, 60, u32::MAX] {
            let mut event = length.to_ne_bytes().to_vec();
            event.extend([0xff; 80]);
            parse(&event, |_, _| ());
            event[24..].fill(2);
            parse(&event, |_, _| ());
            event[24..].fill(0);
            parse(&event, |_, _| ());
        }
    }
}
