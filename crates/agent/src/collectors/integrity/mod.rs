//! Files that nobody should change unseen: who may log in, who may become root, what runs by itself.
//!
//! They are looked at when the kernel says that something happened in their folders, which with fanotify also says who did
//! it; from time to time anyway; and once a day their content is read again whatever they look like. Between, a change of
//! the inode's own time, which no program can set back, makes the content be read.
//!
//! Always true here: what was seen last is kept with the events that say so, so that a change while the agent did not run is
//! told at its next start, and no change is told twice, whenever the agent dies.

mod news;

use super::processes::{Actor, Actors, Users};
use super::{Context, kernel, log_event, log_record};
use crate::spool::Observation;
use model::Timestamp;
use news::News;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PATTERNS: &[&str] = &[
    "/etc/passwd",
    "/etc/shadow",
    "/etc/group",
    "/etc/gshadow",
    "/etc/sudoers",
    "/etc/sudoers.d/*",
    "/etc/ssh/sshd_config",
    "/etc/ssh/sshd_config.d/*",
    "/etc/pam.d/*",
    "/etc/crontab",
    "/etc/cron.d/*",
    "/etc/ld.so.preload",
    "/root/.ssh/authorized_keys",
];
/// How often they are looked at where changes are not heard of, and where they are.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const LOOK_ANYWAY: Duration = Duration::from_secs(60);
/// How often all content is read.
const READ_EVERY: Duration = Duration::from_secs(86_400);
/// How often the stop is looked for.
const STOP_EVERY: Duration = Duration::from_millis(500);
/// A change is over when nothing happened for so long, or goes on for so long.
const SETTLE: Duration = Duration::from_millis(50);
const SETTLE_MAX: Duration = Duration::from_secs(1);
/// Changes between two bookmarks of everything.
const STEPS_MAX: usize = 32;
const FILES_MAX: usize = 256;
/// Of a larger file, the beginning is compared.
const HASHED_BYTES_MAX: u64 = 8 << 20;
const SOURCE: &str = "integrity";

/// What a file was like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    hash: String,
    mode: u32,
    uid: u32,
    gid: u32,
    size: u64,
    ino: u64,
    changed: (i64, i64),
}

impl Seen {
    /// `None` where there is no file. A device or a pipe is none either.
    fn of(path: &Path, before: Option<&Self>) -> Option<Self> {
        let meta = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
        let changed = (meta.ctime(), meta.ctime_nsec());
        let same = before.filter(|seen| (seen.changed, seen.ino, seen.size) == (changed, meta.ino(), meta.size()));
        let hash = match same {
            Some(seen) => seen.hash.clone(),
            None => hash(path).unwrap_or_default(),
        };
        let (mode, uid, gid) = (meta.mode() & 0o7777, meta.uid(), meta.gid());
        Some(Self { hash, mode, uid, gid, size: meta.size(), ino: meta.ino(), changed })
    }
}

fn hash(path: &Path) -> Option<String> {
    let file = super::files::open_regular(path).ok()??;
    let (mut reader, mut digest, mut buffer) = (file.take(HASHED_BYTES_MAX), Sha256::new(), vec![0; 16 * 1024]);
    loop {
        match reader.read(&mut buffer).ok()? {
            0 => break,
            n => digest.update(buffer.get(..n)?),
        }
    }
    Some(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Ready to run, or why not.
pub fn can_run() -> Result<(), String> {
    std::fs::metadata("/etc/passwd").map(drop).map_err(|error| format!("/etc/passwd cannot be seen: {error}"))
}

/// Everything that was seen; a turn ends with it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Base {
    turn: u64,
    files: BTreeMap<PathBuf, Seen>,
}

/// What changed in a turn, with the event that says so.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Step {
    turn: u64,
    path: PathBuf,
    seen: Option<Seen>,
}

/// The collector, on a thread of its own.
pub struct Integrity {
    context: Context,
    watch: Watch,
    news: News,
    actors: Arc<Actors>,
    users: Users,
}

/// Ready to run, or why not; and why it is not said who changed a file, if it is not.
pub fn open(context: &Context, actors: Arc<Actors>) -> Result<(Integrity, Option<String>), String> {
    can_run()?;
    let (news, why) = News::open();
    let patterns = PATTERNS.iter().map(|p| (*p).to_owned()).collect();
    Ok((Integrity::new(context.clone(), patterns, news, actors), why))
}

impl Integrity {
    fn new(context: Context, patterns: Vec<String>, news: News, actors: Arc<Actors>) -> Self {
        let watch = Watch::open(patterns, &context.bookmarks);
        Self { context, watch, news, actors, users: Users::default() }
    }

    /// Until the stop.
    pub fn run(mut self) {
        tracing::info!("Starting filesystem monitoring");
        let mut read = Instant::now();
        let mut looked = None::<Instant>;
        while !self.context.stop.is_requested() {
            let who = self.hear();
            let every = if self.news.is_there() { LOOK_ANYWAY } else { LOOK_EVERY };
            let is_due = looked.is_none_or(|looked| looked.elapsed() >= every);
            if who.is_none() && !is_due {
                continue;
            }
            // Before the look: what changes during it is heard of again.
            self.watch.folders().iter().for_each(|dir| self.news.watch(dir));
            let is_thorough = read.elapsed() >= READ_EVERY;
            if is_thorough {
                read = Instant::now();
            }
            let observations = self.watch.look(self.context.clock.now(), &who.unwrap_or_default(), is_thorough);
            looked = Some(Instant::now());
            if !observations.is_empty() && !self.context.sink.put_blocking(observations) {
                return;
            }
        }
    }

    /// Waits for news. If there are some: who touched what.
    fn hear(&mut self) -> Option<Who> {
        let fds = self.news.fds();
        if fds.is_empty() {
            std::thread::sleep(STOP_EVERY);
            return None;
        }
        if !kernel::wait(&fds, STOP_EVERY) {
            return None;
        }
        let mut who = Who::new();
        let begin = Instant::now();
        loop {
            let (watch, actors, users) = (&self.watch, &self.actors, &mut self.users);
            self.news.take(|touched| {
                // Who did something is asked at once: soon it may be gone.
                if let Some(pid) = touched.pid.filter(|_| watch.is_watched(&touched.path))
                    && who.len() < FILES_MAX
                    && who.get(&touched.path).is_none_or(|(known, _)| *known != pid)
                {
                    who.insert(touched.path, (pid, actors.who(pid, users)));
                }
            });
            if begin.elapsed() >= SETTLE_MAX || !kernel::wait(&self.news.fds(), SETTLE) {
                return Some(who);
            }
        }
    }
}

/// Who touched a file last.
type Who = BTreeMap<PathBuf, (u32, Option<Actor>)>;

/// What was seen last.
#[derive(Debug)]
struct Watch {
    patterns: Vec<String>,
    base: Base,
    /// Before the first look ever, which is the baseline.
    is_first: bool,
    /// Steps were found behind the base: it is written anew before there are others.
    has_steps: bool,
}

impl Watch {
    /// Goes on from what was kept.
    fn open(patterns: Vec<String>, bookmarks: &BTreeMap<String, String>) -> Self {
        let kept = bookmarks.get(SOURCE).and_then(|text| serde_json::from_str::<Base>(text).ok());
        let is_first = kept.is_none();
        let mut base = kept.unwrap_or_default();
        let mut has_steps = false;
        for step in 0..STEPS_MAX {
            let step = bookmarks.get(&step_source(step)).and_then(|text| serde_json::from_str::<Step>(text).ok());
            // Those of earlier turns are in the base.
            let Some(step) = step.filter(|step| step.turn == base.turn && !is_first) else { continue };
            has_steps = true;
            match step.seen {
                Some(seen) => drop(base.files.insert(step.path, seen)),
                None => drop(base.files.remove(&step.path)),
            }
        }
        Self { patterns, base, is_first, has_steps }
    }

    /// Where files can come and go.
    fn folders(&self) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> =
            self.patterns.iter().filter_map(|pattern| Some(Path::new(pattern).parent()?.to_owned())).collect();
        found.sort();
        found.dedup();
        found
    }

    fn is_watched(&self, path: &Path) -> bool {
        let fits = |pattern: &String| glob::Pattern::new(pattern).is_ok_and(|pattern| pattern.matches_path(path));
        self.patterns.iter().any(fits)
    }

    /// What has changed. `is_thorough`: content is read whatever the file looks like.
    fn look(&mut self, now: Timestamp, who: &Who, is_thorough: bool) -> Vec<Observation> {
        let mut here = BTreeMap::new();
        for path in self.patterns.iter().flat_map(|p| glob::glob(p).into_iter().flatten().flatten()).take(FILES_MAX) {
            let before = self.base.files.get(&path).filter(|_| !is_thorough);
            here.extend(Seen::of(&path, before).map(|seen| (path, seen)));
        }
        let mut found = Vec::new();
        if std::mem::take(&mut self.has_steps) {
            found.push(self.turn());
        }
        if std::mem::take(&mut self.is_first) {
            self.base.files = here;
            return vec![self.turn()];
        }
        let before = self.base.files.clone();
        let mut steps = 0;
        for path in before.keys().chain(here.keys().filter(|path| !before.contains_key(*path))) {
            let Some((what, mut labels)) = difference(path, before.get(path), here.get(path)) else { continue };
            if let Some((pid, actor)) = who.get(path) {
                labels.push(("actor_pid", pid.to_string()));
                if let Some(Actor { name, exe, user }) = actor.clone() {
                    labels.extend([("actor", name), ("actor_exe", exe), ("actor_user", user)]);
                }
            }
            let labels: Vec<(&str, &str)> = labels.iter().map(|(k, v)| (*k, v.as_str())).collect();
            let event = log_event(now, "filesystem", format!("{what}: {}", path.display()), &labels);
            let seen = here.get(path).cloned();
            let step = Step { turn: self.base.turn, path: path.clone(), seen: seen.clone() };
            match seen {
                Some(seen) => drop(self.base.files.insert(path.clone(), seen)),
                None => drop(self.base.files.remove(path)),
            }
            let bookmark = serde_json::to_string(&step).ok();
            found.push(Observation { source: step_source(steps).into(), bookmark, record: Some(log_record(event)) });
            steps += 1;
            if steps == STEPS_MAX {
                found.push(self.turn());
                steps = 0;
            }
        }
        if before != here {
            self.base.files = here;
            found.push(self.turn());
        }
        found
    }

    /// The next turn begins with all that was seen until now.
    fn turn(&mut self) -> Observation {
        self.base.turn += 1;
        Observation { source: SOURCE.into(), bookmark: serde_json::to_string(&self.base).ok(), record: None }
    }
}

fn step_source(step: usize) -> String {
    format!("{SOURCE}/{step}")
}

type Said = (&'static str, Vec<(&'static str, String)>);

fn difference(path: &Path, before: Option<&Seen>, now: Option<&Seen>) -> Option<Said> {
    let (what, event_type) = match (before, now) {
        (None, None) => return None,
        (None, Some(_)) => ("File created", "file_created"),
        (Some(_), None) => ("File deleted", "file_deleted"),
        (Some(before), Some(now)) if (&before.hash, before.size) != (&now.hash, now.size) => {
            ("File modified", "file_modified")
        }
        (Some(before), Some(now)) if (before.mode, before.uid, before.gid) != (now.mode, now.uid, now.gid) => {
            ("File permissions changed", "file_permissions")
        }
        // The same content, put there anew or only touched.
        (Some(_), Some(_)) => return None,
    };
    let mut labels = vec![
        ("event_type", event_type.to_owned()),
        ("file_path", path.display().to_string()),
        ("severity", "info".to_owned()),
    ];
    for (seen, [hash, mode, owner]) in
        [(before, ["old_sha256", "old_mode", "old_owner"]), (now, ["sha256", "mode", "owner"])]
    {
        if let Some(seen) = seen {
            labels.push((hash, seen.hash.clone()));
            labels.push((mode, format!("{:04o}", seen.mode)));
            labels.push((owner, format!("{}:{}", seen.uid, seen.gid)));
        }
    }
    Some((what, labels))
}

#[cfg(test)]
mod tests;
