//! Processes by looking at what is in `/proc`. One that lives only between two looks is missed.

use super::{KNOWN_MAX, Process};
use std::collections::BTreeMap;

/// The kernel's thread that starts its others.
pub const KTHREADD: u32 = 2;

/// Processes by their numbers.
pub type Found = Vec<(u32, Process)>;

/// Compares what is there with what was. Who began, who ended.
pub fn look(known: &mut BTreeMap<u32, Process>) -> (Found, Found) {
    let own = std::process::id();
    let pids: Vec<u32> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != own && *pid != KTHREADD)
        .collect();
    let read = |pid: u32| parse_stat(&String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/stat")).ok()?));
    compare(known, &pids, read)
}

/// Only pids that were not there before are read: a pid comes again after thousands of others at the earliest.
fn compare(known: &mut BTreeMap<u32, Process>, pids: &[u32], read: impl Fn(u32) -> Option<Process>) -> (Found, Found) {
    let here: std::collections::BTreeSet<u32> = pids.iter().copied().collect();
    let gone: Vec<u32> = known.keys().filter(|pid| !here.contains(pid)).copied().collect();
    let ended = gone.into_iter().filter_map(|pid| Some((pid, known.remove(&pid)?))).collect::<Found>();
    let mut started = Vec::new();
    for pid in here.into_iter().filter(|pid| !known.contains_key(pid)).collect::<Vec<_>>() {
        // One that is gone already was seen by nobody; kernel threads do not count.
        if let Some(process) = read(pid) {
            if process.parent != KTHREADD {
                started.push((pid, process.clone()));
            }
            if known.len() < KNOWN_MAX {
                known.insert(pid, process);
            }
        }
    }
    (started, ended.into_iter().filter(|(_, process)| process.parent != KTHREADD).collect())
}

/// `pid (name) state parent …`: the name may hold anything, brackets too.
pub fn parse_stat(stat: &str) -> Option<Process> {
    let (_, rest) = stat.split_once('(')?;
    let (name, rest) = rest.rsplit_once(')')?;
    let parent = rest.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(Process { name: name.to_owned(), parent })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(name: &str, parent: u32) -> Process {
        Process { name: name.to_owned(), parent }
    }

    #[test]
    fn names_with_brackets_and_blanks_are_read_whole() {
        let rest = "S 1 3464 27715 0 -1 4194304 101 0 0 0 0 0 0 0 20 0 1 0 2675932 3133440";
        let read = |name: &str| parse_stat(&format!("3476 ({name}) {rest}"));
        for name in ["cat", "a b", "(sd-pam)", ") R 1 (", ""] {
            let expected = Process { name: name.to_owned(), parent: 1 };
            assert_eq!(read(name), Some(expected), "{name}");
        }
        for odd in ["", "1 (", "1 (x)", "1 (x) S", "1 (x) S a b"] {
            assert_eq!(parse_stat(odd), None, "{odd}");
        }
    }

    #[test]
    fn who_begins_and_ends_is_told_and_the_kernel_is_not() {
        let mut known = BTreeMap::new();
        let read = |pid| match pid {
            9 => Some(process("kworker", KTHREADD)),
            12 => None,
            _ => Some(process("sh", 1)),
        };
        compare(&mut known, &[1, 5], read);
        let (started, ended) = compare(&mut known, &[1, 9, 11, 12], read);
        assert_eq!(started, [(11, process("sh", 1))], "12 was gone before it could be read");
        assert_eq!(ended, [(5, process("sh", 1))]);
        let (started, ended) = compare(&mut known, &[1, 11], read);
        assert_eq!((started, ended), (vec![], vec![]));
    }
}
