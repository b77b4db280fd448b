//! The journal of systemd, from its files. No program is started, and entries of any size or content are read.
//!
//! Always true here: journals of one life share a sequence, and the bookmark says how far each sequence was read, so
//! rotation, restarts and reboots neither lose nor repeat. The first time ever, only what comes is read. Entries of the
//! agent itself are passed over. Lines about logins are of the stream `auth`, unless the log of logins brings them;
//! records of the audit system are left to its own collector.

mod file;

use super::{Context, auth, log_event, log_record};
use crate::spool::Observation;
use file::{Entry, Journal};
use model::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const DIRS: &[&str] = &["/var/log/journal", "/run/log/journal"];
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Looks after which folders are listed again.
const LIST_EVERY: u32 = 10;
/// Entries of a file at once.
const ENTRIES_MAX: usize = 256;
const FILES_MAX: usize = 1_024;
/// Sequences remembered.
const SEQUENCES_MAX: usize = 32;
/// Entries passed over, after which the bookmark is written all the same.
const PASSED_MAX: usize = 512;
const SOURCE: &str = "journal";
/// Facilities of logins.
const AUTH: &[&str] = &["4", "10"];

/// Sequence → number of the last entry that was read.
type Read = BTreeMap<String, u64>;

/// The collector, on a thread of its own.
pub struct Follow {
    context: Context,
    dirs: Vec<PathBuf>,
    /// By device and number.
    open: BTreeMap<(u64, u64), Journal>,
    /// Read to their end, or unreadable.
    done: BTreeSet<(u64, u64)>,
    read: Read,
    /// Lines about logins, and records of the audit system, come by another way.
    has_auth: bool,
    has_audit: bool,
    passed: usize,
}

/// Ready to run, or why not.
pub fn open(context: &Context, has_auth: bool, has_audit: bool) -> Result<Follow, String> {
    let dirs: Vec<PathBuf> = DIRS.iter().map(PathBuf::from).collect();
    let follow = Follow { has_audit, ..Follow::open(dirs, context.clone(), has_auth) };
    if follow.open.is_empty() {
        return Err(format!("no journal that can be read in {}", DIRS.join(" or ")));
    }
    Ok(follow)
}

impl Follow {
    fn open(dirs: Vec<PathBuf>, context: Context, has_auth: bool) -> Self {
        let kept = context.bookmarks.get(SOURCE).and_then(|text| serde_json::from_str::<Read>(text).ok());
        let is_first = kept.is_none();
        let read = kept.unwrap_or_default();
        let (open, done) = (BTreeMap::new(), BTreeSet::new());
        let mut follow = Self { context, dirs, open, done, read, has_auth, has_audit: false, passed: 0 };
        follow.list();
        if is_first {
            for journal in follow.open.values() {
                let newest = follow.read.entry(hex(&journal.seqnum_id)).or_default();
                *newest = (*newest).max(journal.newest().unwrap_or(0));
            }
        }
        follow
    }

    /// Until the stop.
    pub fn run(mut self) {
        tracing::info!("Starting systemd journal monitoring");
        let bookmark = Some(self.bookmark());
        self.context.sink.put_blocking(vec![Observation { source: SOURCE.into(), bookmark, record: None }]);
        let mut looks = 0;
        while !self.context.stop.is_requested() {
            let observations = if self.context.sink.has_room() { self.look() } else { Vec::new() };
            if observations.is_empty() {
                std::thread::sleep(LOOK_EVERY);
                looks += 1;
                if looks >= LIST_EVERY {
                    self.list();
                    looks = 0;
                }
            } else if !self.context.sink.put_blocking(observations) {
                return;
            }
        }
    }

    /// Opens what is new.
    fn list(&mut self) {
        let mut here = BTreeSet::new();
        for path in self.dirs.iter().flat_map(|dir| journals(dir)).take(FILES_MAX) {
            let Ok(Some(file)) = super::files::open_regular(&path) else { continue };
            let Ok(meta) = file.metadata() else { continue };
            let key = (meta.dev(), meta.ino());
            here.insert(key);
            if self.open.contains_key(&key) || self.done.contains(&key) {
                continue;
            }
            match Journal::open(file) {
                Ok(journal) => drop(self.open.insert(key, journal)),
                Err(error) => {
                    tracing::warn!(%error, file = %path.display(), "a journal that cannot be read");
                    self.done.insert(key);
                }
            }
        }
        // A file that was removed is read to its end all the same, and then forgotten.
        self.done.retain(|key| here.contains(key));
    }

    /// What came since.
    fn look(&mut self) -> Vec<Observation> {
        // Of each sequence: what was found, and up to where all files are read. Entries are written one after
        // another, so those up to the newest of this moment are there by now, whichever file they are in.
        let mut found: BTreeMap<String, (Vec<Entry>, u64)> = BTreeMap::new();
        for journal in self.open.values() {
            let (_, complete) = found.entry(hex(&journal.seqnum_id)).or_default();
            *complete = (*complete).max(journal.newest().unwrap_or(0));
        }
        let mut over = Vec::new();
        for (key, journal) in &mut self.open {
            let sequence = hex(&journal.seqnum_id);
            let after = self.read.get(&sequence).copied().unwrap_or(0);
            match journal.newest() {
                Ok(newest) if newest <= after => {
                    if journal.is_archived().unwrap_or(true) {
                        over.push(*key);
                    }
                    continue;
                }
                Ok(_) | Err(_) => {}
            }
            match journal.read(after, ENTRIES_MAX) {
                Ok(entries) => {
                    let (all, complete) = found.entry(sequence).or_default();
                    if entries.len() == ENTRIES_MAX {
                        *complete = (*complete).min(entries.last().map_or(u64::MAX, |last| last.seqnum));
                    }
                    all.extend(entries);
                }
                Err(error) => {
                    tracing::warn!(%error, "a journal is left");
                    over.push(*key);
                }
            }
        }
        for key in over {
            self.open.remove(&key);
            self.done.insert(key);
        }
        let mut observations = Vec::new();
        for (sequence, (mut entries, complete)) in found {
            entries.sort_by_key(|entry| entry.seqnum);
            if entries.iter().any(|entry| entry.seqnum > complete) {
                // Files are ahead of one another: those that are go back.
                entries.retain(|entry| entry.seqnum <= complete);
                self.open.values_mut().for_each(Journal::seek_again);
            }
            for entry in entries {
                self.read.insert(sequence.clone(), entry.seqnum);
                match self.event(&entry) {
                    Some(event) => {
                        let (bookmark, record) = (Some(self.bookmark()), Some(log_record(event)));
                        observations.push(Observation { source: SOURCE.into(), bookmark, record });
                        self.passed = 0;
                    }
                    None => self.passed += 1,
                }
            }
        }
        if self.passed >= PASSED_MAX {
            let bookmark = Some(self.bookmark());
            observations.push(Observation { source: SOURCE.into(), bookmark, record: None });
            self.passed = 0;
        }
        observations
    }

    fn bookmark(&mut self) -> String {
        while self.read.len() > SEQUENCES_MAX {
            // Of one that no file has any more, if there is one.
            let live: BTreeSet<String> = self.open.values().map(|journal| hex(&journal.seqnum_id)).collect();
            let Some(old) = self.read.keys().find(|key| !live.contains(*key)).or(self.read.keys().next()).cloned()
            else {
                break;
            };
            self.read.remove(&old);
        }
        serde_json::to_string(&self.read).unwrap_or_default()
    }

    /// `None`: the agent's own, or one that comes by another way.
    fn event(&self, entry: &Entry) -> Option<wire::LogEvent> {
        let get = |name: &str| entry.fields.get(name).map_or("", String::as_str);
        let unit = get("_SYSTEMD_UNIT");
        let is_own = get("_PID") == std::process::id().to_string()
            || get("_COMM") == "sm-agent"
            || matches!(unit, "sm-agent.service" | "security-manager-agent.service");
        let is_auth = AUTH.contains(&get("SYSLOG_FACILITY"));
        let message = get("MESSAGE").trim_end();
        let comes_otherwise = (is_auth && self.has_auth) || (get("_TRANSPORT") == "audit" && self.has_audit);
        if is_own || comes_otherwise || message.is_empty() {
            return None;
        }
        Some(event(entry, message, is_auth))
    }
}

fn event(entry: &Entry, message: &str, is_auth: bool) -> wire::LogEvent {
    let get = |name: &str| entry.fields.get(name).map_or("", String::as_str);
    let priority = get("PRIORITY");
    let identifier = get("SYSLOG_IDENTIFIER");
    let by_priority = match priority {
        "0" | "1" | "2" => "critical",
        "3" | "4" => "warning",
        _ => "info",
    };
    let (event_type, of_line) = auth::classify(&format!("{identifier}: {message}"));
    let (stream, severity) = if is_auth { ("auth", of_line) } else { ("systemd", by_priority) };
    let labels = [
        ("unit", get("_SYSTEMD_UNIT")),
        ("priority", priority),
        ("severity", severity),
        ("source", "journalctl"),
        ("identifier", identifier),
        ("pid", get("_PID")),
        ("transport", get("_TRANSPORT")),
        ("event_type", if is_auth { event_type } else { "" }),
    ];
    let labels: Vec<(&str, &str)> = labels.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    let at = Timestamp::from_micros(i64::try_from(entry.realtime_us).unwrap_or(0));
    log_event(at, stream, message.to_owned(), &labels)
}

/// Files of a journal folder: one folder a machine, some of them archived.
fn journals(dir: &Path) -> Vec<PathBuf> {
    let list = |dir: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let mut found = Vec::new();
    for path in list(dir) {
        let files = if path.is_dir() { list(&path) } else { vec![path] };
        let is_journal = |path: &PathBuf| path.extension().is_some_and(|e| e == "journal" || e == "journal~");
        found.extend(files.into_iter().filter(is_journal));
    }
    found
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
