//! Files that nobody should change unseen: who may log in, who may become root, what runs by itself.
//!
//! Each is looked at every five seconds. A change of the inode's own time, which no program can set back, makes its content
//! be read again. What was seen last is the bookmark, so a change while the agent did not run is told at its next start.

use super::{Context, log_event, log_record};
use crate::spool::Observation;
use model::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

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
const EVERY: Duration = Duration::from_secs(5);
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

/// Until the stop.
pub async fn run(context: Context) {
    tracing::info!("Starting filesystem monitoring");
    let kept = context.bookmarks.get(SOURCE).and_then(|text| serde_json::from_str(text).ok());
    let mut watch = Watch { patterns: PATTERNS.iter().map(|p| (*p).to_owned()).collect(), seen: kept };
    loop {
        let observations = watch.look(context.clock.now());
        if !observations.is_empty() && !context.sink.put(observations).await {
            return;
        }
        if !context.stop.sleep(EVERY).await {
            return;
        }
    }
}

/// What was seen last; `None` before the first look ever, which is the baseline.
#[derive(Debug)]
struct Watch {
    patterns: Vec<String>,
    seen: Option<BTreeMap<PathBuf, Seen>>,
}

impl Watch {
    /// What has changed.
    fn look(&mut self, now: Timestamp) -> Vec<Observation> {
        let mut here = BTreeMap::new();
        for path in self.patterns.iter().flat_map(|p| glob::glob(p).into_iter().flatten().flatten()).take(FILES_MAX) {
            let before = self.seen.as_ref().and_then(|seen| seen.get(&path));
            here.extend(Seen::of(&path, before).map(|seen| (path, seen)));
        }
        let Some(before) = self.seen.replace(here.clone()) else {
            return vec![Observation { source: SOURCE.into(), bookmark: Some(bookmark(&here)), record: None }];
        };
        let mut found = Vec::new();
        for path in before.keys().chain(here.keys().filter(|path| !before.contains_key(*path))) {
            found.extend(difference(path, before.get(path), here.get(path)).map(|(what, labels)| {
                let labels: Vec<(&str, &str)> = labels.iter().map(|(k, v)| (*k, v.as_str())).collect();
                let event = log_event(now, "filesystem", format!("{what}: {}", path.display()), &labels);
                Observation { source: SOURCE.into(), bookmark: None, record: Some(log_record(event)) }
            }));
        }
        // All of them, and then what they lead to: a crash in between tells them again rather than never.
        if !found.is_empty() || before != here {
            found.push(Observation { source: SOURCE.into(), bookmark: Some(bookmark(&here)), record: None });
        }
        found
    }
}

fn bookmark(seen: &BTreeMap<PathBuf, Seen>) -> String {
    serde_json::to_string(seen).unwrap_or_default()
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
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn messages(observations: &[Observation], dir: &Path) -> Vec<String> {
        let message = |o: &Observation| match o.record.clone()?.body? {
            wire::record::Body::Log(log) => {
                assert_eq!(log.message, format!("{}: {}", log.message.split_once(':')?.0, log.labels["file_path"]));
                Some(log.message.replace(&format!("{}/", dir.display()), ""))
            }
            wire::record::Body::Metric(_) => None,
        };
        observations.iter().filter_map(message).collect()
    }

    #[test]
    fn every_kind_of_change_is_seen_once_also_with_the_time_set_back_or_while_nobody_looks() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let write = |name: &str, text: &str| std::fs::write(path(name), text).unwrap();
        for name in ["changed", "back", "gone", "mode", "replaced", "touched"] {
            write(name, "abc");
        }
        let pattern = path("*").to_str().unwrap().to_owned();
        let mut watch = Watch { patterns: vec![pattern.clone()], seen: None };
        let now = Timestamp::from_secs(1);
        let mut first = watch.look(now);
        assert_eq!(messages(&first, dir.path()), Vec::<String>::new(), "the baseline");
        assert!(watch.look(now).is_empty());

        // The agent is away.
        let kept = serde_json::from_str(&first.remove(0).bookmark.unwrap()).unwrap();
        let mut watch = Watch { patterns: vec![pattern], seen: Some(kept) };
        write("changed", "abcd");
        let modified = std::fs::metadata(path("back")).unwrap().modified().unwrap();
        write("back", "abd");
        std::fs::File::options().write(true).open(path("back")).unwrap().set_modified(modified).unwrap();
        std::fs::remove_file(path("gone")).unwrap();
        std::fs::set_permissions(path("mode"), std::fs::Permissions::from_mode(0o777)).unwrap();
        write("other", "xyz");
        std::fs::rename(path("other"), path("replaced")).unwrap();
        std::fs::File::options().write(true).open(path("touched")).unwrap().set_modified(modified).unwrap();
        write("new", "");
        let observations = watch.look(now);
        let expected = [
            "File modified: back",
            "File modified: changed",
            "File deleted: gone",
            "File permissions changed: mode",
            "File modified: replaced",
            "File created: new",
        ];
        assert_eq!(messages(&observations, dir.path()), expected);
        assert!(observations.last().unwrap().bookmark.is_some());
        assert!(watch.look(now).is_empty());
    }

    #[test]
    fn an_event_says_what_was_and_what_is() {
        let seen = |mode| Seen { hash: "h".into(), mode, uid: 0, gid: 42, size: 1, ino: 1, changed: (0, 0) };
        let (what, labels) = difference(Path::new("/etc/shadow"), Some(&seen(0o640)), Some(&seen(0o644))).unwrap();
        assert_eq!(what, "File permissions changed");
        for label in [("old_mode", "0640"), ("mode", "0644"), ("owner", "0:42"), ("event_type", "file_permissions")] {
            assert!(labels.contains(&(label.0, label.1.to_owned())), "{label:?} in {labels:?}");
        }
        can_run().unwrap();
    }
}
