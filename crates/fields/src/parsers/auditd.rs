//! Records of the kernel's audit system: `type=EXECVE msg=audit(1764118800.123:7): argc=2 a0="id" …`.
//!
//! auditd writes what others choose in quotes, and in hexadecimal as soon as it holds a quote, a
//! space or a control character; so a quote is always a real one.

use super::syscalls;
use super::text::ip;
use super::{Line, Parser, Reading};
use std::borrow::Cow;

pub(super) const PARSER: Parser = Parser {
    name: "auditd",
    programs: &["auditd", "audispd", "audisp-syslog", "audit", "audit_log", "audit-log", "tag_audit_log"],
    sniff: Some(sniff),
    product: Some("linux"),
    services: &["auditd"],
    read,
};

/// Arguments of one command line that become fields.
const ARGUMENTS_MAX: usize = 256;

/// Whether a word is a type of audit records.
pub(crate) fn is_type(word: &str) -> bool {
    const TYPES: &[&str] = &[
        "SYSCALL",
        "EXECVE",
        "PATH",
        "CWD",
        "PROCTITLE",
        "SOCKADDR",
        "SOCKETCALL",
        "AVC",
        "LOGIN",
        "CONFIG_CHANGE",
        "KERN_MODULE",
        "BPF",
        "MMAP",
        "OBJ_PID",
        "FD_PAIR",
        "IPC",
        "NETFILTER_CFG",
        "NETFILTER_PKT",
        "SECCOMP",
        "TTY",
        "INTEGRITY_RULE",
        "SERVICE_START",
        "SERVICE_STOP",
        "SYSTEM_BOOT",
        "SYSTEM_SHUTDOWN",
        "SYSTEM_RUNLEVEL",
        "ADD_USER",
        "DEL_USER",
        "ADD_GROUP",
        "DEL_GROUP",
        "GRP_MGMT",
        "GRP_CHAUTHTOK",
        "ACCT_LOCK",
        "ACCT_UNLOCK",
        "CHUSER_ID",
        "CHGRP_ID",
        "ROLE_ASSIGN",
        "ROLE_REMOVE",
        "DAEMON_START",
        "DAEMON_END",
        "DAEMON_ABORT",
        "DAEMON_CONFIG",
        "ANOM_ABEND",
        "ANOM_PROMISCUOUS",
        "ANOM_LOGIN_FAILURES",
        "CRED_ACQ",
        "CRED_DISP",
        "CRED_REFR",
        "VIRT_CONTROL",
        "SOFTWARE_UPDATE",
        "MAC_STATUS",
        "MAC_POLICY_LOAD",
        "CAPSET",
        "FANOTIFY",
        "APPARMOR_DENIED",
        "SELINUX_ERR",
        "TIME_ADJNTPVAL",
        "TIME_INJOFFSET",
    ];
    TYPES.contains(&word) || word.starts_with("USER_") || word.starts_with("CRYPTO_")
}

/// Sigma's categories of a record.
pub(crate) fn categories_of(kind: &str) -> &'static [&'static str] {
    if kind == "EXECVE" { &["process_creation"] } else { &[] }
}

fn sniff(text: &str) -> bool {
    head(text).is_some()
}

/// Type, time and number, and the record behind them.
fn head(text: &str) -> Option<(&str, &str, &str)> {
    let text = match text.strip_prefix("node=") {
        Some(rest) => rest.split_once(' ')?.1,
        None => text,
    };
    let (kind, rest) = text.strip_prefix("type=")?.split_once(' ')?;
    if kind.is_empty()
        || !kind.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || matches!(b, b'_' | b'[' | b']'))
    {
        return None;
    }
    let rest = rest.strip_prefix("msg=").unwrap_or(rest);
    let (id, rest) = rest.strip_prefix("audit(")?.split_once(')')?;
    if !id.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b':')) {
        return None;
    }
    Some((kind, id, rest.trim_start_matches(':').trim_start()))
}

fn read<'m>(line: Line<'m>, out: &mut Reading<'m>) -> bool {
    record(line.text.trim(), out)
}

/// The kernel writes numbers for the types.
fn named(kind: &str) -> &str {
    match kind {
        "1100" => "USER_AUTH",
        "1101" => "USER_ACCT",
        "1103" => "CRED_ACQ",
        "1104" => "CRED_DISP",
        "1105" => "USER_START",
        "1106" => "USER_END",
        "1112" => "USER_LOGIN",
        "1113" => "USER_LOGOUT",
        "1114" => "ADD_USER",
        "1115" => "DEL_USER",
        "1116" => "ADD_GROUP",
        "1117" => "DEL_GROUP",
        "1123" => "USER_CMD",
        "1130" => "SERVICE_START",
        "1131" => "SERVICE_STOP",
        "1300" => "SYSCALL",
        "1302" => "PATH",
        "1305" => "CONFIG_CHANGE",
        "1306" => "SOCKADDR",
        "1307" => "CWD",
        "1309" => "EXECVE",
        "1326" => "SECCOMP",
        "1327" => "PROCTITLE",
        "1330" => "KERN_MODULE",
        "1334" => "BPF",
        "1400" => "AVC",
        "1700" => "ANOM_PROMISCUOUS",
        "1701" => "ANOM_ABEND",
        other => other,
    }
}

/// Reads a record, its type first.
pub(super) fn record<'m>(text: &'m str, out: &mut Reading<'m>) -> bool {
    let Some((kind, id, rest)) = head(text) else { return false };
    let kind = named(kind);
    out.push("type", kind);
    out.push("audit_id", id);
    out.categories(categories_of(kind));
    let mut record =
        Record { kind, arguments: Vec::new(), call: Call::default(), uid: None, acct: false, created: false };
    record.pairs(rest, out);
    record.finish(out);
    true
}

struct Record<'m> {
    kind: &'m str,
    arguments: Vec<Cow<'m, str>>,
    call: Call<'m>,
    /// The name behind `uid`, where the daemon enriches its records.
    uid: Option<Cow<'m, str>>,
    /// The record says whose account it is about.
    acct: bool,
    /// The path was made by it.
    created: bool,
}

impl<'m> Record<'m> {
    /// `name=value` pairs; a value in single quotes holds more of them.
    fn pairs(&mut self, text: &'m str, out: &mut Reading<'m>) {
        let mut rest = text;
        // Nested pairs are the last of a record but for the enriched part, so this goes on in place.
        while let Some(equals) = rest.find('=') {
            let name = rest[..equals].rsplit([' ', '\u{1d}', '\'', ',']).next().unwrap_or_default();
            let value = &rest[equals + 1..];
            if let Some(inner) = value.strip_prefix('\'') {
                rest = inner;
                continue;
            }
            let (value, after, quoted) = match value.strip_prefix('"') {
                Some(inner) => match inner.split_once('"') {
                    Some((value, after)) => (value, after, true),
                    None => (inner, "", true),
                },
                None => {
                    let end = value.find([' ', '\u{1d}', '\'']).unwrap_or(value.len());
                    (&value[..end], &value[end..], false)
                }
            };
            self.pair(name, value, quoted, out);
            rest = after;
        }
    }

    fn pair(&mut self, name: &'m str, value: &'m str, quoted: bool, out: &mut Reading<'m>) {
        let argument = name.strip_prefix('a').filter(|_| self.kind == "EXECVE");
        if let Some(rest) = argument {
            let (index, part) = rest.split_once('[').map_or((rest, false), |(index, _)| (index, true));
            if let Ok(index) = index.parse::<usize>() {
                return self.argument(index, part, if quoted { Cow::Borrowed(value) } else { unhex(value) });
            }
        }
        if name.is_empty() || value.is_empty() {
            return;
        }
        let value = if !quoted && may_be_hex(name) { unhex(value) } else { Cow::Borrowed(value) };
        match name {
            "exe" => out.push("Image", value.clone()),
            "pid" => out.push("ProcessId", value.clone()),
            "ppid" => out.push("ParentProcessId", value.clone()),
            "cwd" => out.push("CurrentDirectory", value.clone()),
            "proctitle" | "cmd" => out.push("CommandLine", value.clone()),
            "acct" => {
                self.acct = true;
                out.push("User", value.clone());
            }
            "UID" if quoted && !value.starts_with("unknown(") => self.uid = Some(value.clone()),
            "addr" if ip(&value).is_some() => out.push("SourceIp", value.clone()),
            "nametype" => self.created |= value == "CREATE",
            "name" if self.kind == "PATH" => out.push("TargetFilename", value.clone()),
            "arch" => self.call.arch = text(&value),
            "syscall" => self.call.number = text(&value),
            "SYSCALL" => self.call.name = text(&value),
            "res" | "success" => {
                let success = matches!(&*value, "success" | "yes" | "1");
                out.push("event_outcome", if success { "success" } else { "failure" });
            }
            _ => {}
        }
        out.push(name, value);
    }

    /// Long arguments come in pieces: `a1[0]=… a1[1]=…`.
    fn argument(&mut self, index: usize, part: bool, value: Cow<'m, str>) {
        if part && index + 1 == self.arguments.len() {
            self.arguments[index].to_mut().push_str(&value);
        } else if index == self.arguments.len() && index < ARGUMENTS_MAX {
            self.arguments.push(value);
        }
    }

    fn finish(self, out: &mut Reading<'m>) {
        if self.kind == "SYSCALL" {
            let name = self.call.name.or_else(|| {
                let name = syscalls::name(self.call.arch?, self.call.number?)?;
                out.push("SYSCALL", name);
                Some(name)
            });
            if matches!(name, Some("execve" | "execveat")) {
                out.categories(&["process_creation"]);
            }
            if let Some(user) = self.uid.filter(|_| !self.acct) {
                out.push("User", user);
            }
        }
        if self.kind == "PATH" && self.created {
            out.categories(&["file_event"]);
        }
        match self.kind {
            "USER_LOGIN" | "USER_AUTH" | "USER_ERR" => out.push("event_action", "authentication"),
            "ADD_USER" => out.push("event_action", "user_added"),
            "DEL_USER" => out.push("event_action", "user_deleted"),
            "ADD_GROUP" => out.push("event_action", "group_added"),
            "USER_CMD" => out.push("event_action", "sudo_command"),
            _ => {}
        }
        if self.arguments.is_empty() {
            return;
        }
        out.push("CommandLine", self.arguments.join(" "));
        if self.arguments[0].starts_with('/') {
            out.push("Image", self.arguments[0].clone());
        }
        for (index, value) in self.arguments.into_iter().enumerate() {
            out.push(format!("a{index}"), value);
        }
    }
}

/// Which system call a record is about: in words only where the daemon enriches its records.
#[derive(Default)]
struct Call<'m> {
    arch: Option<&'m str>,
    number: Option<&'m str>,
    name: Option<&'m str>,
}

/// The text, if it is part of the line.
fn text<'m>(value: &Cow<'m, str>) -> Option<&'m str> {
    match value {
        Cow::Borrowed(text) => Some(text),
        Cow::Owned(_) => None,
    }
}

/// Fields whose values others choose: in hexadecimal unless they are in quotes.
fn may_be_hex(name: &str) -> bool {
    matches!(
        name,
        "comm"
            | "exe"
            | "name"
            | "proctitle"
            | "cwd"
            | "key"
            | "acct"
            | "cmd"
            | "data"
            | "path"
            | "dir"
            | "grp"
            | "new_group"
            | "ocomm"
            | "hostname"
            | "vm"
            | "device"
            | "file"
    )
}

/// The text that hexadecimal digits stand for; NUL, which parts arguments, becomes a space. What
/// is not hexadecimal stays as it is.
fn unhex(text: &str) -> Cow<'_, str> {
    let digits = text.as_bytes();
    if digits.len() < 2
        || !digits.len().is_multiple_of(2)
        || !digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'))
    {
        return Cow::Borrowed(text);
    }
    let nibble = |b: u8| if b.is_ascii_digit() { b - b'0' } else { b - b'A' + 10 };
    let bytes: Vec<u8> = digits
        .chunks_exact(2)
        .map(|pair| nibble(pair[0]) << 4 | nibble(pair[1]))
        .map(|byte| if byte == 0 { b' ' } else { byte })
        .collect();
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}
