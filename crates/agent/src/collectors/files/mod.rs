//! Files that grow: patterns, rotation by renaming or copying, lines that are cut, messages of several lines.
//!
//! Always true here: a bookmark is handed in with the message in front of it, so a file is read on exactly there; what
//! was rotated is read to its end before what came after it; what was replaced beyond finding is said to be a gap.
//! Never read: what is no regular file, and what the agent itself writes.

mod follow;
mod lines;
mod place;

pub use lines::Multiline;
pub use place::open_regular;

use super::{Context, audit, auth, log_event, log_record};
use crate::settings::Settings;
use crate::spool::Observation;
use follow::{Begin, Follow, Turn, shown};
use place::{Place, base_of};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;
use std::collections::{BTreeMap, BTreeSet};
use std::mem::MaybeUninit;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Without news, files are looked at this often: news do not come from every filesystem.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// News come in swarms. The first of one is followed at once, then so much is gathered: few wakes for a file that is
/// written to all the time, and still no line takes more than 100 ms to the store.
const GATHER: Duration = Duration::from_millis(90);
/// Turns without news after which patterns are expanded again.
const EXPAND_EVERY: u32 = 10;
/// How long a file that was renamed may still be written to.
const SETTLE: Duration = Duration::from_secs(2);
/// Files followed at most.
const FILES_MAX: usize = 512;
/// Observations handed in at once.
const HAND_IN: usize = 256;

/// What becomes of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A line of the stream `file`.
    File,
    /// A line of the stream `auth`, classified.
    Auth,
    /// Records of the stream `audit`.
    Audit,
}

/// What to follow.
#[derive(Debug, Clone)]
pub struct TailConfig {
    pub patterns: Vec<String>,
    pub multiline: Option<Multiline>,
    pub kind: Kind,
}

/// What the agent itself writes: a folder, and files by their numbers.
#[derive(Debug, Clone, Default)]
pub struct Own {
    pub dir: PathBuf,
    pub files: BTreeSet<(u64, u64)>,
}

impl Own {
    /// The data folder, and where standard output and error go.
    pub fn new(dir: &Path) -> Self {
        let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        let stdout = rustix::fs::fstat(std::io::stdout());
        let stderr = rustix::fs::fstat(std::io::stderr());
        let files = [stdout, stderr].into_iter().flatten().map(|stat| (stat.st_dev, stat.st_ino)).collect();
        Self { dir, files }
    }

    fn has(&self, path: &Path) -> bool {
        let is_inside = path.canonicalize().is_ok_and(|path| path.starts_with(&self.dir));
        is_inside || std::fs::metadata(path).is_ok_and(|meta| self.files.contains(&(meta.dev(), meta.ino())))
    }
}

/// Ready to run, or why not.
pub fn open(settings: &Settings, context: &Context) -> Result<Tail, String> {
    if settings.files.is_empty() {
        return Err("no files are named: -file or SM_FILE_PATH".to_owned());
    }
    let multiline = match settings.multiline.as_deref() {
        None => None,
        Some("indent") => Some(Multiline::Indent),
        Some(start) => Some(Multiline::Start(regex::Regex::new(start).map_err(|e| e.to_string())?)),
    };
    let config = TailConfig { patterns: settings.files.clone(), multiline, kind: Kind::File };
    Tail::open(config, context.clone())
}

/// The collector, on a thread of its own.
pub struct Tail {
    config: TailConfig,
    context: Context,
    followed: BTreeMap<PathBuf, Follow>,
    /// Where each was left in this run.
    places: BTreeMap<PathBuf, String>,
    news: Option<rustix::fd::OwnedFd>,
    watched: BTreeSet<PathBuf>,
    /// Names that cannot be followed, said once.
    refused: BTreeSet<PathBuf>,
    /// When news were heard last.
    heard: Option<Instant>,
}

impl Tail {
    /// Checks the patterns.
    pub fn open(config: TailConfig, context: Context) -> Result<Self, String> {
        for pattern in &config.patterns {
            glob::Pattern::new(pattern).map_err(|error| format!("`{pattern}` is no pattern: {error}"))?;
        }
        // Without news the files are looked at all the same.
        let news = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).ok();
        let (followed, places) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self {
            config,
            context,
            followed,
            places,
            news,
            watched: BTreeSet::new(),
            refused: BTreeSet::new(),
            heard: None,
        })
    }

    /// Until the stop.
    pub fn run(mut self) {
        self.expand(true);
        let mut turns = 0;
        while !self.context.stop.is_requested() {
            let mut has_more = false;
            if self.context.sink.has_room() {
                has_more = self.turn_all();
            }
            if !has_more {
                let has_news = self.wait();
                turns += 1;
                if has_news || turns >= EXPAND_EVERY {
                    self.expand(false);
                    turns = 0;
                }
            }
        }
    }

    fn turn_all(&mut self) -> bool {
        let mut has_more = false;
        let mut gone = Vec::new();
        for path in self.followed.keys().cloned().collect::<Vec<_>>() {
            if self.context.stop.is_requested() {
                return false;
            }
            let Some(follow) = self.followed.get_mut(&path) else { continue };
            match follow.turn() {
                Ok(turn) => {
                    has_more |= turn.has_more;
                    if follow.is_over() && !path.exists() {
                        gone.push(path.clone());
                    }
                    self.hand_in(&path, turn);
                }
                Err(error) => {
                    tracing::warn!(%error, file = %path.display(), "a followed file cannot be read");
                    gone.push(path);
                }
            }
        }
        gone.iter().for_each(|path| drop(self.followed.remove(path)));
        has_more
    }

    fn hand_in(&mut self, path: &Path, turn: Turn) {
        let source: std::sync::Arc<str> = source_of(self.config.kind, path).into();
        let now = self.context.clock.now();
        let mut observations = Vec::new();
        if let Some(gap) = turn.gap {
            tracing::warn!(file = %path.display(), "{gap}");
            let labels = [("file", &*shown(path)), ("severity", "warning"), ("event_type", "log_gap")];
            let record = log_record(log_event(now, "security", gap.clone(), &labels));
            observations.push(Observation { source: source.clone(), bookmark: None, record: Some(record) });
        }
        for (text, is_cut, place) in turn.messages {
            let mut event = match self.config.kind {
                Kind::File => Some(log_event(now, "file", text, &[("file", &*shown(path))])),
                Kind::Auth => Some(auth::event(now, path, &text)),
                Kind::Audit => audit::record::event(&text, std::process::id()),
            };
            if let Some(event) = event.as_mut().filter(|_| is_cut) {
                event.labels.insert("cut".to_owned(), "true".to_owned());
            }
            let record = event.map(log_record);
            observations.push(Observation { source: source.clone(), bookmark: Some(bookmark(&place)), record });
        }
        if let Some(place) = turn.moved {
            observations.push(Observation { source, bookmark: Some(bookmark(&place)), record: None });
        }
        let last = observations.iter().rev().find_map(|observation| observation.bookmark.clone());
        if let Some(place) = last.filter(|_| self.places.len() < 2 * FILES_MAX || self.places.contains_key(path)) {
            self.places.insert(path.to_owned(), place);
        }
        let mut rest = observations.into_iter().peekable();
        while rest.peek().is_some() {
            if !self.context.sink.put_blocking(rest.by_ref().take(HAND_IN).collect()) {
                return;
            }
        }
    }

    /// Finds what the patterns stand for now.
    fn expand(&mut self, is_first: bool) {
        let mut names = BTreeSet::new();
        for pattern in self.config.patterns.clone() {
            self.watch(Path::new(&pattern));
            for path in glob::glob(&pattern).into_iter().flatten().flatten().take(FILES_MAX) {
                names.insert(path);
            }
        }
        // What rotation made of a followed file is not a file of its own.
        let is_own = |path: &PathBuf| {
            let base = path.file_name().and_then(|name| name.to_str()).and_then(base_of);
            base.is_none_or(|base| {
                let base = path.with_file_name(base);
                !names.contains(&base) && !self.followed.contains_key(&base)
            })
        };
        let new: Vec<PathBuf> =
            names.iter().filter(|p| is_own(p) && !self.followed.contains_key(*p)).cloned().collect();
        for path in new {
            if self.followed.len() >= FILES_MAX {
                self.refuse(&path, &format!("more than {FILES_MAX} files are not followed"));
            } else if self.context.own.has(&path) {
                self.refuse(&path, "the agent does not follow what it writes itself");
            } else {
                self.follow(path, is_first);
            }
        }
    }

    fn follow(&mut self, path: PathBuf, is_first: bool) {
        let source = source_of(self.config.kind, &path);
        let kept = self.places.get(&path).or_else(|| self.context.bookmarks.get(&source));
        let begin = match kept.and_then(|text| serde_json::from_str::<Place>(text).ok()) {
            Some(place) => Begin::At(place),
            None if is_first => Begin::End,
            None => Begin::Start,
        };
        let multiline = self.config.multiline.clone().unwrap_or(Multiline::Off);
        match Follow::open(path.clone(), multiline, SETTLE, begin) {
            Ok((follow, turn)) => {
                tracing::info!(file = %path.display(), "following {}", path.display());
                self.watch(&path);
                self.hand_in(&path, turn);
                self.refused.remove(&path);
                if !follow.is_over() {
                    self.followed.insert(path, follow);
                }
            }
            Err(error) => self.refuse(&path, &error.to_string()),
        }
    }

    fn refuse(&mut self, path: &Path, why: &str) {
        if self.refused.len() < FILES_MAX && self.refused.insert(path.to_owned()) {
            tracing::warn!(file = %path.display(), why, "not followed: {}", path.display());
        }
    }

    /// Asks for news of the folder of a file.
    fn watch(&mut self, path: &Path) {
        let (Some(news), Some(dir)) = (&self.news, path.parent()) else { return };
        if self.watched.contains(dir) || !dir.is_dir() {
            return;
        }
        use inotify::WatchFlags;
        let wanted = WatchFlags::MODIFY
            | WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE
            | WatchFlags::ONLYDIR;
        if inotify::add_watch(news, dir, wanted).is_ok() {
            self.watched.insert(dir.to_owned());
        }
    }

    /// Until there are news, or it is time to look anyway. Whether names came or went.
    fn wait(&mut self) -> bool {
        let Some(news) = &self.news else {
            std::thread::sleep(LOOK_EVERY);
            return false;
        };
        let mut fds = [PollFd::new(news, PollFlags::IN)];
        let timeout =
            rustix::event::Timespec { tv_sec: 0, tv_nsec: i64::try_from(LOOK_EVERY.as_nanos()).unwrap_or(500_000_000) };
        // Interrupted or not: it is looked at what there is.
        if !matches!(poll(&mut fds, Some(&timeout)), Ok(n) if n > 0) {
            return false;
        }
        let since = self.heard.map_or(GATHER, |heard| heard.elapsed());
        std::thread::sleep(GATHER.saturating_sub(since));
        self.heard = Some(Instant::now());
        let mut buffer = [MaybeUninit::<u8>::uninit(); 4_096];
        let mut reader = inotify::Reader::new(news, &mut buffer);
        let mut names = false;
        while let Ok(event) = reader.next() {
            names |= !event.events().contains(inotify::ReadFlags::MODIFY);
        }
        names
    }
}

/// Names the source for its bookmark.
fn source_of(kind: Kind, path: &Path) -> String {
    match kind {
        Kind::File => format!("file:{}", path.display()),
        Kind::Auth => format!("auth:{}", path.display()),
        Kind::Audit => format!("audit:{}", path.display()),
    }
}

fn bookmark(place: &Place) -> String {
    serde_json::to_string(place).unwrap_or_default()
}

/// The messages of a file, for tests of others.
#[cfg(test)]
pub fn follow_for_test(path: &Path, multiline: Multiline) -> Vec<String> {
    let (mut follow, _) = Follow::open(path.to_owned(), multiline, SETTLE, Begin::Start).expect("there is a file");
    std::fs::rename(path, path.with_extension("log.1")).expect("it can be renamed");
    std::fs::write(path, "x").expect("it can be written");
    let begin = std::time::Instant::now();
    let mut messages = Vec::new();
    // What was renamed is read to its end when nobody has written to it for a while.
    while messages.len() < 3 && begin.elapsed() < 10 * SETTLE {
        messages.extend(follow.turn().expect("it can be read").messages.into_iter().map(|(text, _, _)| text));
    }
    messages
}

#[cfg(test)]
mod tests;
