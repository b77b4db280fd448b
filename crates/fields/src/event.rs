//! The fields of an accepted event: those of its JSON object, and those that the parser of its
//! program reads in its message.

use crate::flatten::{Bounds, flatten};
use crate::parsers::{self, Outcome};
use crate::sources::{self, Marks, alias, get, known, push_missing};
use crate::{FieldsError, connection, utf8};
use model::{EventSource, Fields, Leaf};
use std::borrow::Cow;

/// Names under which events give the program that wrote the message, best first.
const PROGRAM: &[&str] = &[
    "program",
    "app_name",
    "appname",
    "app",
    "syslog_identifier",
    "SYSLOG_IDENTIFIER",
    "ident",
    "labels.program",
    "labels.app_name",
    "labels.syslog_identifier",
    "labels.identifier",
    "process.name",
];

/// Names of the message text; every accepted event has the first.
const MESSAGE: &[&str] = &["message", "MESSAGE", "event.original"];

/// Adds the fields of an accepted event to `out`: its JSON object as [`crate::from_json`] reads it,
/// then what its message says. What passes a bound is left out, and `fields_cut` is `true`.
///
/// A field that the object itself has is never changed or added to by the message.
pub fn from_event<'a>(object: &'a str, out: &mut Fields<'a>) -> Result<(), FieldsError> {
    let found = flatten(object, Bounds::LeaveOut, out)?;
    if found.cut {
        out.push("fields_cut", "true");
    }
    sources::recognise(&found, out);
    if out.source.product.as_deref() != Some("windows") {
        message(out);
    }
    agent_stream(out);
    Ok(())
}

/// Adds what the parsers read in the message.
fn message(out: &mut Fields<'_>) {
    let Some(message) = MESSAGE.iter().find_map(|name| get(out, name)) else { return };
    let program = program(out);
    match message {
        Cow::Borrowed(text) => {
            if let Some(reading) = read(program.as_deref(), text, out) {
                take(reading, out);
            }
        }
        // With escapes in it, the message lives no longer than this function.
        Cow::Owned(text) => {
            if let Some(reading) = read(program.as_deref(), &text, out) {
                take(reading.into_owned(), out);
            }
        }
    }
}

/// As [`from_event`], for bytes.
pub fn from_event_bytes<'a>(object: &'a [u8], out: &mut Fields<'a>) -> Result<(), FieldsError> {
    from_event(utf8(object)?, out)
}

/// What was read of a message.
struct Read<'m> {
    source: EventSource<'m>,
    leaves: Vec<Leaf<'m>>,
}

impl Read<'_> {
    fn into_owned(self) -> Read<'static> {
        let own = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        let all = |texts: Vec<Cow<'_, str>>| texts.into_iter().map(own).collect();
        Read {
            source: EventSource {
                product: self.source.product.map(own),
                categories: self.source.categories.map(all),
                services: self.source.services.map(all),
            },
            leaves: self.leaves.into_iter().map(|l| Leaf { name: own(l.name), value: l.value.map(own) }).collect(),
        }
    }
}

impl<'m> From<Outcome<'m>> for Read<'m> {
    fn from(outcome: Outcome<'m>) -> Self {
        let services = (!outcome.services.is_empty()).then(|| known(&outcome.services));
        Read {
            source: EventSource {
                product: outcome.product.map(Cow::Borrowed),
                categories: outcome.categories.map(known),
                services,
            },
            leaves: outcome.leaves,
        }
    }
}

/// Adds what was read, except to fields that the event has itself.
fn take<'a>(read: Read<'a>, out: &mut Fields<'a>) {
    // Collectors call the kind of their input `type`, and rules for auditd ask for its own.
    let audit =
        read.source.services.as_ref().is_some_and(|services| services.iter().any(|service| service == "auditd"));
    let kept: Vec<bool> = {
        let mut own: Vec<&str> = out.leaves().iter().map(|leaf| &*leaf.name).collect();
        own.sort_unstable();
        let added = |leaf: &Leaf<'_>| (audit && leaf.name == "type") || own.binary_search(&&*leaf.name).is_err();
        read.leaves.iter().map(added).collect()
    };
    for (leaf, _) in read.leaves.into_iter().zip(kept).filter(|(_, kept)| *kept) {
        match leaf.value {
            Some(value) => out.push(leaf.name, value),
            None => out.push_null(leaf.name),
        }
    }
    let source = &mut out.source;
    source.product = source.product.take().or(read.source.product);
    source.categories = source.categories.take().or(read.source.categories);
    source.services = source.services.take().or(read.source.services);
}

/// Who wrote the message, if the event says so: no path, no process id.
fn program<'a>(out: &Fields<'a>) -> Option<Cow<'a, str>> {
    let named = PROGRAM.iter().find_map(|name| get(out, name)).filter(|name| !name.is_empty());
    // A unit of systemd is named after what it runs.
    let unit = || get(out, "labels.unit").filter(|unit| unit.ends_with(".service"));
    let name = named.or_else(unit)?;
    let bare = bare(&name);
    Some(if bare.len() == name.len() { name } else { Cow::Owned(bare.to_owned()) })
}

fn bare(program: &str) -> &str {
    let program = match program.strip_prefix('/') {
        Some(path) => path.rsplit_once('/').map_or(path, |(_, name)| name),
        None => program,
    };
    let program = program.split_once('[').map_or(program, |(name, _)| name);
    let program = program.strip_suffix(".service").unwrap_or(program);
    program.strip_suffix(':').unwrap_or(program).trim()
}

fn read<'m>(program: Option<&str>, message: &'m str, out: &Fields<'_>) -> Option<Read<'m>> {
    let mut read = match (program, header(message)) {
        // A collector that kept the line's header.
        (Some(program), Some(header)) if program.eq_ignore_ascii_case(header.program) => read_as(program, header.text),
        // The event's own word counts: what the message begins with may be anybody's.
        (Some(program), _) => read_as(program, message),
        (None, Some(header)) if header.certain => read_as(header.program, header.text),
        // A single word and a colon begin many a sentence: only what the parser can read is its line.
        (None, Some(header)) => match read_as(header.program, header.text) {
            Some(read) if !read.leaves.is_empty() => Some(read),
            _ => read_as("", message),
        },
        // The agents' stream of the log of logins: older ones cut the header off.
        (None, None) if out.first("stream") == Some("auth") && is_ssh(message) => read_as("sshd", message),
        (None, None) if matches!(out.first("stream"), Some("auth" | "systemd")) && is_oom(message) => {
            read_as("kernel", message)
        }
        // What the sender says of its lines helps where it names a program.
        (None, None) => match out.first("logsource.service").filter(|service| parsers::by_program(service).is_some()) {
            Some(service) => read_as(service, message),
            None => read_as("", message),
        },
    }?;
    let auth = matches!(out.first("facility"), Some("auth" | "authpriv"));
    if let Some(services) =
        read.source.services.as_mut().filter(|services| auth && !services.iter().any(|s| s == "auth"))
    {
        services.push(Cow::Borrowed("auth"));
    }
    Some(read)
}

fn is_ssh(message: &str) -> bool {
    ["Failed ", "Accepted ", "Invalid user "].iter().any(|start| message.starts_with(start))
}

fn is_oom(message: &str) -> bool {
    let rest =
        message.strip_prefix("Memory cgroup out of memory: ").or_else(|| message.strip_prefix("Out of memory: "));
    rest.is_some_and(|rest| rest.starts_with("Killed process ") || rest.starts_with("Kill process "))
}

fn read_as<'m>(program: &str, text: &'m str) -> Option<Read<'m>> {
    let Some(json) = json(text) else { return parsers::read(program, text).map(Read::from) };
    if parsers::by_program(program).is_none() {
        return Some(json);
    }
    // A known program that was told to write JSON: the fields are the object's, the rest is known.
    let mut read = parsers::read(program, text).map(Read::from)?;
    if read.leaves.is_empty() {
        read.leaves = json.leaves;
        read.source.categories = json.source.categories.or(read.source.categories);
    }
    Some(read)
}

/// A message that is a JSON object.
fn json(text: &str) -> Option<Read<'_>> {
    let text = text.trim();
    let text = text.strip_prefix("@cee:").map_or(text, str::trim_start);
    if !text.starts_with('{') || !text.ends_with('}') {
        return None;
    }
    let mut fields = Fields::default();
    let found = flatten(text, Bounds::LeaveOut, &mut fields).ok()?;
    sources::recognise_written(&found, Marks::of(&fields), &mut fields);
    Some(Read { leaves: fields.leaves().to_vec(), source: fields.source })
}

/// What a line of a log file begins with.
struct Header<'m> {
    program: &'m str,
    /// What is behind it.
    text: &'m str,
    /// A time or a process id stands with the program.
    certain: bool,
}

/// The header of a line: `Nov 26 01:00:00 web1 sshd[812]: text`, `2026-11-26T01:00:00+00:00 web1
/// sshd[812]: text`, `sshd[812]: text`, or, of a program that has a parser, `sshd: text`.
fn header(message: &str) -> Option<Header<'_>> {
    let line = message.trim_end();
    let behind_time = after_time(line);
    let rest = match behind_time.and_then(|rest| rest.split_once(' ')) {
        Some((_host, rest)) => rest.trim_start(),
        None => line,
    };
    let (tag, text) = rest.split_once(": ").filter(|(tag, _)| tag.len() <= 64 && !tag.contains(' '))?;
    let program = bare(tag);
    let pid = tag.strip_suffix(']').and_then(|tag| tag.rsplit_once('['));
    let numbered = pid.is_some_and(|(_, pid)| !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit()));
    let certain = behind_time.is_some() || numbered;
    if program.is_empty() || !(certain || parsers::by_program(program).is_some()) {
        return None;
    }
    Some(Header { program, text, certain })
}

/// What is behind the time that begins a line.
fn after_time(line: &str) -> Option<&str> {
    let line = match line.strip_prefix('<').and_then(|rest| rest.split_once('>')) {
        Some((priority, rest)) if priority.len() <= 3 && priority.bytes().all(|b| b.is_ascii_digit()) => rest,
        _ => line,
    };
    let bytes = line.as_bytes();
    let like = |pattern: &[u8]| {
        bytes.len() > pattern.len()
            && bytes.iter().zip(pattern).all(|(byte, shape)| match shape {
                b'A' => byte.is_ascii_alphabetic(),
                b'0' => byte.is_ascii_digit(),
                b'_' => byte.is_ascii_digit() || *byte == b' ',
                other => byte == other,
            })
    };
    if like(b"AAA _0 00:00:00 ") {
        return line.get(16..);
    }
    if like(b"0000-00-00T00:00:00") {
        return line.split_once(' ').map(|(_, rest)| rest);
    }
    None
}

/// Labels that become fields.
const LABELS: &[(&str, &str)] = &[
    ("event_type", "labels.event_type"),
    ("unit", "labels.unit"),
    ("priority", "labels.priority"),
    ("file", "labels.file"),
    ("pid", "labels.pid"),
    ("process", "labels.process"),
    ("connection", "labels.connection"),
    ("cpu_usage", "labels.cpu_usage"),
    ("memory_usage", "labels.memory_usage"),
    ("disk_usage", "labels.disk_usage"),
    ("file_path", "labels.file_path"),
    ("metric_type", "labels.metric_type"),
    ("value", "labels.value"),
    ("ppid", "labels.ppid"),
    ("exe", "labels.exe"),
    ("cmdline", "labels.cmdline"),
    ("user", "labels.user"),
];

/// Streams of our agents: labels become fields, and what the stream is about gets Sigma's names.
/// The labels of a line were guessed from its text, so what a parser read comes first.
fn agent_stream(out: &mut Fields<'_>) {
    let Some(stream) = get(out, "stream").filter(|stream| !stream.is_empty() && stream.len() <= 64) else { return };
    for (ours, theirs) in LABELS {
        alias(out, ours, theirs);
    }
    if !out.exists("event_type") {
        unlabelled(&stream, out);
    }
    let os = out.first("labels.os").or_else(|| out.first("labels.os_type")).or_else(|| out.first("os_type"));
    let product = match os {
        Some("linux") => Some("linux"),
        Some("windows") => Some("windows"),
        Some("darwin" | "macos") => Some("macos"),
        _ => None,
    };
    let (categories, names): (Option<&[&str]>, &[(&'static str, &str)]) = match (&*stream, out.first("event_type")) {
        ("process", event_type) => (
            match event_type {
                Some("process_start") => Some(&["process_creation"]),
                Some("process_end") => Some(&["process_termination"]),
                _ => None,
            },
            &[
                ("Image", "exe"),
                ("Image", "process"),
                ("ProcessId", "pid"),
                ("ParentProcessId", "ppid"),
                ("CommandLine", "cmdline"),
                ("User", "user"),
            ],
        ),
        ("filesystem", Some("file_modified")) => (Some(&["file_event"]), &[("TargetFilename", "file_path")]),
        ("heartbeat" | "system" | "metrics" | "network" | "filesystem", _) => (Some(&[]), &[]),
        // Lines of logs: the parsers know.
        _ => return,
    };
    for (ours, theirs) in names {
        alias(out, ours, theirs);
    }
    if stream == "network" {
        connection::read(out);
    }
    let source = &mut out.source;
    source.product = source.product.take().or(product.map(Cow::Borrowed));
    source.categories = source.categories.take().or(categories.map(known));
    source.services = source.services.take().or(Some(vec![stream]));
}

/// What the labels would say, of agents that give none.
fn unlabelled(stream: &str, out: &mut Fields<'_>) {
    let Some(message) = get(out, "message") else { return };
    let usages = [
        ("High CPU usage: ", "high_cpu", "cpu_usage"),
        ("High memory usage: ", "high_memory", "memory_usage"),
        ("High disk usage: ", "high_disk", "disk_usage"),
    ];
    let usage = usages.iter().find_map(|(start, event_type, name)| {
        let value = message.strip_prefix(start)?.strip_suffix('%')?;
        value.bytes().all(|b| b.is_ascii_digit() || b == b'.').then_some((*event_type, *name, value.to_owned()))
    });
    if let ("system", Some((event_type, name, value))) = (stream, usage) {
        out.push("event_type", event_type);
        push_missing(out, name, value);
    } else if let ("filesystem", Some(path)) = (stream, message.strip_prefix("File modified: ")) {
        let path = path.to_owned();
        out.push("event_type", "file_modified");
        push_missing(out, "file_path", path);
    } else if let ("process", Some((name, pid))) = (stream, started(&message)) {
        let (name, pid) = (name.to_owned(), pid.to_owned());
        out.push("event_type", "process_start");
        push_missing(out, "process", name);
        push_missing(out, "pid", pid);
    }
}

/// `Process started: nginx (PID: 812)`: who starts it chooses the name, so the number is the last.
fn started(message: &str) -> Option<(&str, &str)> {
    let (name, pid) = message.strip_prefix("Process started: ")?.strip_suffix(')')?.rsplit_once(" (PID: ")?;
    (!pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit())).then_some((name, pid))
}
