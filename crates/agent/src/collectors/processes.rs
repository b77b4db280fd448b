//! Processes that begin and end, by looking at `/proc` each second. One that lives shorter can be missed.
//!
//! The agent itself, its threads, and the kernel's own are passed over. What was running at the start is no news.

use super::{Context, log_event, passing};
use crate::spool::Observation;
use model::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

const EVERY: Duration = Duration::from_secs(1);
/// Of a command line.
const CMDLINE_BYTES_MAX: usize = 4_096;
/// Events of one look: more are counted in one.
const EVENTS_MAX: usize = 500;
/// The kernel's thread that starts its others.
const KTHREADD: u32 = 2;

/// What is known of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub name: String,
    pub parent: u32,
}

/// Ready to run, or why not.
pub fn can_run() -> Result<(), String> {
    match std::fs::read_to_string("/proc/self/stat").map(|stat| parse_stat(&stat)) {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err("/proc/self/stat is not as expected".to_owned()),
        Err(error) => Err(format!("/proc/self/stat cannot be read: {error}")),
    }
}

/// Until the stop.
pub async fn run(context: Context) {
    tracing::info!("Starting process monitoring");
    let mut known = BTreeMap::new();
    look(&mut known);
    while context.stop.sleep(EVERY).await {
        let (started, ended) = look(&mut known);
        if started.is_empty() && ended.is_empty() {
            continue;
        }
        let now = context.clock.now();
        let mut observations: Vec<Observation> = ended.iter().map(|(pid, process)| end(now, *pid, process)).collect();
        observations.extend(started.iter().map(|(pid, process)| start(now, *pid, process, &Details::read(*pid))));
        if observations.len() > EVENTS_MAX {
            let more = observations.len() - EVENTS_MAX;
            observations.truncate(EVENTS_MAX);
            let labels = [("event_type", "process_flood"), ("severity", "warning"), ("left_out", &*more.to_string())];
            let message = format!("{more} more processes began or ended within a second");
            observations.push(passing("process", log_event(now, "process", message, &labels)));
        }
        if !context.sink.put(observations).await {
            return;
        }
    }
}

type Found = Vec<(u32, Process)>;

/// Compares what is there with what was. Who began, who ended.
fn look(known: &mut BTreeMap<u32, Process>) -> (Found, Found) {
    let own = std::process::id();
    let pids: Vec<u32> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != own && *pid != KTHREADD)
        .collect();
    let read = |pid: u32| parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?);
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
            known.insert(pid, process);
        }
    }
    (started, ended.into_iter().filter(|(_, process)| process.parent != KTHREADD).collect())
}

/// `pid (name) state parent …`: the name may hold anything, brackets too.
fn parse_stat(stat: &str) -> Option<Process> {
    let (_, rest) = stat.split_once('(')?;
    let (name, rest) = rest.rsplit_once(')')?;
    let parent = rest.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(Process { name: name.to_owned(), parent })
}

/// What a process says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Details {
    exe: String,
    cmdline: String,
    user: String,
    parent_name: String,
}

impl Details {
    fn read(pid: u32) -> Self {
        let read = |name: &str| std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let status = String::from_utf8_lossy(&read("status")).into_owned();
        Self {
            exe: exe.to_string_lossy().into_owned(),
            cmdline: command_line(&read("cmdline")),
            user: field(&status, "Uid").map(user_name).unwrap_or_default(),
            parent_name: field(&status, "PPid").map(name_of).unwrap_or_default(),
        }
    }
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let rest = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    rest.split_ascii_whitespace().next()
}

fn name_of(pid: &str) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned()
}

/// The name of a user of this machine, else the number.
fn user_name(uid: &str) -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut words = line.split(':');
        let name = words.next()?;
        (words.nth(1)? == uid).then_some(name)
    });
    name.unwrap_or(uid).to_owned()
}

/// Arguments, with blanks between.
fn command_line(bytes: &[u8]) -> String {
    let bytes = bytes.get(..bytes.len().min(CMDLINE_BYTES_MAX)).unwrap_or(bytes);
    let bytes: Vec<u8> = bytes.iter().map(|byte| if *byte == 0 { b' ' } else { *byte }).collect();
    String::from_utf8_lossy(&bytes).trim_end().to_owned()
}

fn start(now: Timestamp, pid: u32, process: &Process, details: &Details) -> Observation {
    let (number, parent) = (pid.to_string(), process.parent.to_string());
    let mut labels = vec![
        ("event_type", "process_start"),
        ("pid", &*number),
        ("process", &*process.name),
        ("severity", "info"),
        ("ppid", &*parent),
    ];
    let more = [
        ("exe", &details.exe),
        ("cmdline", &details.cmdline),
        ("user", &details.user),
        ("parent", &details.parent_name),
    ];
    labels.extend(more.iter().filter(|(_, value)| !value.is_empty()).map(|(key, value)| (*key, value.as_str())));
    let message = format!("Process started: {} (PID: {pid})", process.name);
    passing("process", log_event(now, "process", message, &labels))
}

fn end(now: Timestamp, pid: u32, process: &Process) -> Observation {
    let number = pid.to_string();
    let labels = [("event_type", "process_end"), ("pid", &*number), ("process", &*process.name), ("severity", "info")];
    let message = format!("Process terminated: {} (PID: {pid})", process.name);
    passing("process", log_event(now, "process", message, &labels))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::record;

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

    #[test]
    fn a_process_that_begins_is_seen_with_its_arguments() {
        let mut known = BTreeMap::new();
        look(&mut known);
        let mut child = std::process::Command::new("sleep").arg("77").spawn().unwrap();
        // Until it is no longer the copy of this one that it begins as.
        let pid = child.id();
        let details = (0..200).find_map(|_| {
            std::thread::sleep(Duration::from_millis(10));
            Some(Details::read(pid)).filter(|details| details.cmdline == "sleep 77")
        });
        let (started, _) = look(&mut known);
        child.kill().unwrap();
        child.wait().unwrap();
        let details = details.unwrap();
        assert!(details.exe.starts_with('/') && !details.user.is_empty(), "{details:?}");
        let (_, ended) = look(&mut known);
        let found = started.iter().find(|(found, _)| *found == pid).unwrap();
        assert!(ended.iter().any(|(found, _)| *found == pid));
        let observation = start(Timestamp::from_secs(1), pid, &found.1, &details);
        let Some(record::Body::Log(log)) = observation.record.unwrap().body else { panic!() };
        assert_eq!(log.message, format!("Process started: sleep (PID: {pid})"));
        assert_eq!((&*log.labels["event_type"], &*log.labels["cmdline"]), ("process_start", "sleep 77"));
    }

    #[test]
    fn command_lines_are_bounded_text() {
        assert_eq!(command_line(b"sh\0-c\0echo \xff\0"), "sh -c echo \u{fffd}");
        assert!(command_line(&[b'x'; 100_000]).len() == CMDLINE_BYTES_MAX);
        assert_eq!(
            (command_line(b""), user_name("0"), user_name("4294967")),
            (String::new(), "root".into(), "4294967".into())
        );
    }
}
