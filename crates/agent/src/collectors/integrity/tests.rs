use super::*;
use crate::collectors::test::{Heard, context, log};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

fn messages(observations: &[Observation], dir: &Path) -> Vec<String> {
    let message = |o: &Observation| {
        let log = log(o)?;
        assert_eq!(log.message, format!("{}: {}", log.message.split_once(':')?.0, log.labels["file_path"]));
        Some(log.message.replace(&format!("{}/", dir.display()), ""))
    };
    observations.iter().filter_map(message).collect()
}

/// As the spool keeps them.
fn keep(bookmarks: &mut BTreeMap<String, String>, observations: &[Observation]) {
    for observation in observations {
        if let Some(bookmark) = &observation.bookmark {
            bookmarks.insert(observation.source.to_string(), bookmark.clone());
        }
    }
}

fn look(watch: &mut Watch) -> Vec<Observation> {
    watch.look(Timestamp::from_secs(1), &Who::new(), false)
}

#[test]
fn every_kind_of_change_is_seen_once_also_with_the_time_set_back_or_while_nobody_looks() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let write = |name: &str, text: &str| std::fs::write(path(name), text).unwrap();
    for name in ["changed", "back", "gone", "mode", "replaced", "touched"] {
        write(name, "abc");
    }
    let patterns = vec![path("*").to_str().unwrap().to_owned()];
    let mut bookmarks = BTreeMap::new();
    let mut watch = Watch::open(patterns.clone(), &bookmarks);
    let first = look(&mut watch);
    assert_eq!(messages(&first, dir.path()), Vec::<String>::new(), "the baseline");
    assert!(look(&mut watch).is_empty());
    keep(&mut bookmarks, &first);

    // The agent is away.
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
    let mut watch = Watch::open(patterns.clone(), &bookmarks);
    let observations = look(&mut watch);
    let expected = [
        "File modified: back",
        "File modified: changed",
        "File deleted: gone",
        "File permissions changed: mode",
        "File modified: replaced",
        "File created: new",
    ];
    assert_eq!(messages(&observations, dir.path()), expected);
    assert!(look(&mut watch).is_empty());

    // The agent dies after any of them was kept: the rest is told, and nothing again.
    for kept in 0..=observations.len() {
        let mut bookmarks = bookmarks.clone();
        keep(&mut bookmarks, &observations[..kept]);
        let mut watch = Watch::open(patterns.clone(), &bookmarks);
        let rest = look(&mut watch);
        assert_eq!(messages(&rest, dir.path()), expected[kept.min(expected.len())..], "after {kept}");
        keep(&mut bookmarks, &rest);
        let mut watch = Watch::open(patterns.clone(), &bookmarks);
        assert!(messages(&look(&mut watch), dir.path()).is_empty(), "after {kept} and all");
    }
}

#[test]
fn more_changes_than_a_turn_holds_are_told_once_wherever_the_agent_dies() {
    let dir = tempfile::tempdir().unwrap();
    let patterns = vec![dir.path().join("*").to_str().unwrap().to_owned()];
    let mut bookmarks = BTreeMap::new();
    let first = look(&mut Watch::open(patterns.clone(), &bookmarks));
    keep(&mut bookmarks, &first);
    for i in 0..80 {
        std::fs::write(dir.path().join(format!("{i:02}")), "x").unwrap();
    }
    let all = look(&mut Watch::open(patterns.clone(), &bookmarks));
    assert_eq!(messages(&all, dir.path()).len(), 80);
    for kept in 0..=all.len() {
        let mut bookmarks = bookmarks.clone();
        keep(&mut bookmarks, &all[..kept]);
        let told = messages(&all[..kept], dir.path()).len();
        let rest = look(&mut Watch::open(patterns.clone(), &bookmarks));
        assert_eq!(messages(&rest, dir.path()).len(), 80 - told, "after {kept}");
        assert!(bookmarks.len() <= STEPS_MAX + 1);
    }
}

#[test]
fn content_that_changed_under_an_unchanged_inode_is_found_once_a_day() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a"), "abc").unwrap();
    let patterns = vec![dir.path().join("*").to_str().unwrap().to_owned()];
    let mut watch = Watch::open(patterns, &BTreeMap::new());
    look(&mut watch);
    // As if somebody had written to the disk itself.
    watch.base.files.values_mut().for_each(|seen| seen.hash = "other".into());
    assert!(look(&mut watch).is_empty());
    let found = watch.look(Timestamp::from_secs(1), &Who::new(), true);
    assert_eq!(messages(&found, dir.path()), ["File modified: a"]);
}

/// The collector as it runs over a folder.
fn start(dir: &Path, news: News) -> (Heard, std::thread::JoinHandle<()>) {
    let (context, mut heard) = context();
    let patterns = vec![dir.join("*").to_str().unwrap().to_owned()];
    let integrity = Integrity::new(context, patterns, news, Arc::default());
    let thread = std::thread::spawn(move || integrity.run());
    // The baseline is handed in when it listens.
    while heard.all.is_empty() {
        std::thread::sleep(Duration::from_millis(5));
        heard.take();
    }
    (heard, thread)
}

fn act_and_check(dir: &Path, news: News, says_who: bool) {
    for name in ["back", "replaced", "gone", "mode"] {
        std::fs::write(dir.join(name), "abc").unwrap();
    }
    let (mut heard, thread) = start(dir, news);
    let modified = std::fs::metadata(dir.join("back")).unwrap().modified().unwrap();
    std::fs::write(dir.join("back"), "abd").unwrap();
    std::fs::File::options().write(true).open(dir.join("back")).unwrap().set_modified(modified).unwrap();
    let outside = tempfile::NamedTempFile::new_in(dir.parent().unwrap()).unwrap();
    std::fs::write(outside.path(), "xyz").unwrap();
    std::fs::rename(outside.path(), dir.join("replaced")).unwrap();
    std::fs::remove_file(dir.join("gone")).unwrap();
    std::fs::set_permissions(dir.join("mode"), std::fs::Permissions::from_mode(0o4755)).unwrap();
    let hash = |text: &str| Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let own_exe = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
    for (name, message, old, new) in [
        ("back", "File modified", Some("abc"), Some("abd")),
        ("replaced", "File modified", Some("abc"), Some("xyz")),
        ("gone", "File deleted", Some("abc"), None),
        ("mode", "File permissions changed", Some("abc"), Some("abc")),
    ] {
        let path = dir.join(name).to_str().unwrap().to_owned();
        let found = heard.until(|log| log.labels.get("file_path") == Some(&path)).unwrap();
        assert_eq!((&*found.stream, found.message), ("filesystem", format!("{message}: {path}")));
        assert_eq!(found.labels.get("old_sha256").cloned(), old.map(hash), "{name}");
        assert_eq!(found.labels.get("sha256").cloned(), new.map(hash), "{name}");
        assert!(found.labels.contains_key("old_owner") && found.labels.contains_key("old_mode"));
        if says_who {
            assert_eq!(found.labels["actor_pid"], std::process::id().to_string(), "{name}");
            assert_eq!(found.labels["actor_exe"], own_exe, "{name}");
            assert!(!found.labels["actor_user"].is_empty());
        }
    }
    let mode = heard.logs().find(|log| log.message.starts_with("File permissions")).unwrap();
    assert_eq!(mode.labels["mode"], "4755");
    if says_who {
        // By another, which lives on.
        let file = dir.join("by another");
        let mut command = Command::new("sh");
        command.arg("-c").arg("echo x > \"$0\"; read _").arg(&file).stdin(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        let found = heard.until(|log| log.message.starts_with("File created")).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!((&*found.labels["actor_pid"], &*found.labels["actor"]), (&*child.id().to_string(), "sh"));
    }
    heard.stopper.stop();
    thread.join().unwrap();
    heard.take();
    assert_eq!(heard.logs().count(), if says_who { 5 } else { 4 }, "{:?}", heard.logs().collect::<Vec<_>>());
}

#[test]
fn changes_are_told_at_once_with_who_made_them() {
    let (news, why) = News::open();
    if let Some(why) = why {
        return eprintln!("SKIPPED: {why}");
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("watched")).unwrap();
    act_and_check(&dir.path().join("watched"), news, true);
}

#[test]
fn changes_are_told_at_once_where_only_inotify_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("watched")).unwrap();
    act_and_check(&dir.path().join("watched"), News::without_actors(), false);
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
