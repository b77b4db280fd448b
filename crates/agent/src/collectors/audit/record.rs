//! Records of the audit system, and the event that those of one serial number are.
//!
//! A record is `type=SYSCALL msg=audit(1795681247.137:17): arch=c000003e syscall=59 comm="sh" …`, as its log has it. Text that
//! could confuse is in hexadecimal digits without quotes; what programs say is `msg='…'`; behind the character 0x1d comes
//! what the log's writer made of numbers.

use crate::collectors::log_event;
use model::Timestamp;
use std::borrow::Cow;
use wire::LogEvent;

/// Of a command line, a path, any other text.
const CMDLINE_BYTES_MAX: usize = 4_096;
const TEXT_BYTES_MAX: usize = 1_024;
/// Files of an event that are named.
const PATHS_MAX: usize = 8;
const ARGUMENTS_MAX: usize = 1_024;

/// Types that have a name here, by their number.
const TYPES: &[(u16, &str)] = &[
    (1005, "USER"),
    (1006, "LOGIN"),
    (1100, "USER_AUTH"),
    (1101, "USER_ACCT"),
    (1102, "USER_MGMT"),
    (1103, "CRED_ACQ"),
    (1104, "CRED_DISP"),
    (1105, "USER_START"),
    (1106, "USER_END"),
    (1107, "USER_AVC"),
    (1108, "USER_CHAUTHTOK"),
    (1109, "USER_ERR"),
    (1110, "CRED_REFR"),
    (1111, "USYS_CONFIG"),
    (1112, "USER_LOGIN"),
    (1113, "USER_LOGOUT"),
    (1114, "ADD_USER"),
    (1115, "DEL_USER"),
    (1116, "ADD_GROUP"),
    (1117, "DEL_GROUP"),
    (1118, "DAC_CHECK"),
    (1119, "CHGRP_ID"),
    (1123, "USER_CMD"),
    (1124, "USER_TTY"),
    (1125, "CHUSER_ID"),
    (1126, "GRP_AUTH"),
    (1130, "SERVICE_START"),
    (1131, "SERVICE_STOP"),
    (1127, "SYSTEM_BOOT"),
    (1128, "SYSTEM_SHUTDOWN"),
    (1200, "DAEMON_START"),
    (1201, "DAEMON_END"),
    (1202, "DAEMON_ABORT"),
    (1203, "DAEMON_CONFIG"),
    (1300, "SYSCALL"),
    (1302, "PATH"),
    (1303, "IPC"),
    (1304, "SOCKETCALL"),
    (1305, "CONFIG_CHANGE"),
    (1306, "SOCKADDR"),
    (1307, "CWD"),
    (1309, "EXECVE"),
    (1318, "OBJ_PID"),
    (1319, "TTY"),
    (EOE, "EOE"),
    (1321, "BPRM_FCAPS"),
    (1322, "CAPSET"),
    (1323, "MMAP"),
    (1324, "NETFILTER_PKT"),
    (1325, "NETFILTER_CFG"),
    (1326, "SECCOMP"),
    (PROCTITLE, "PROCTITLE"),
    (1328, "FEATURE_CHANGE"),
    (1330, "KERN_MODULE"),
    (1331, "FANOTIFY"),
    (1334, "BPF"),
    (1400, "AVC"),
    (1403, "MAC_POLICY_LOAD"),
    (1404, "MAC_STATUS"),
    (1405, "MAC_CONFIG_CHANGE"),
    (1503, "APPARMOR_DENIED"),
    (1700, "ANOM_PROMISCUOUS"),
    (1701, "ANOM_ABEND"),
    (1702, "ANOM_LINK"),
    (1800, "INTEGRITY_DATA"),
];
/// Ends an event.
pub const EOE: u16 = 1320;
pub const PROCTITLE: u16 = 1327;

/// A record as its log has it, from what the kernel sends.
pub fn line(kind: u16, text: &str) -> String {
    match TYPES.iter().find(|(number, _)| *number == kind) {
        Some((_, name)) => format!("type={name} msg={text}"),
        None => format!("type=UNKNOWN[{kind}] msg={text}"),
    }
}

/// `1795681247.137:17` of a record: what tells the records of one event from others.
pub fn serial(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("audit(")?;
    let (serial, _) = rest.split_once(')')?;
    (serial.len() <= 48 && serial.contains(':')).then_some(serial)
}

fn time(serial: &str) -> Option<Timestamp> {
    let (time, _) = serial.split_once(':')?;
    let (seconds, millis) = time.split_once('.')?;
    let seconds: i64 = seconds.parse().ok()?;
    Some(Timestamp::from_micros(
        seconds.checked_mul(1_000_000)?.checked_add(millis.parse::<i64>().ok()?.min(999) * 1_000)?,
    ))
}

/// The name of a record's type, and its fields in order.
struct Parsed<'a> {
    kind: &'a str,
    fields: Vec<(&'a str, &'a str)>,
}

fn parse(line: &str) -> Option<Parsed<'_>> {
    let line = line.split('\u{1d}').next()?;
    let rest = line.get(line.find("type=")? + 5..)?;
    let (kind, rest) = rest.split_once(' ')?;
    let (_, mut rest) = rest.split_once("): ")?;
    let mut fields = Vec::new();
    while !rest.is_empty() {
        rest = rest.trim_start();
        // What a program says: fields of its own.
        rest = rest.strip_prefix("msg='").unwrap_or(rest);
        let Some((name, after)) = rest.split_once('=') else { break };
        // Words without a value stand in front of the next name.
        let name = name.rsplit(' ').next().unwrap_or(name);
        let end = match after.strip_prefix('"') {
            Some(quoted) => quoted.find('"').map_or(after.len(), |at| at + 2),
            None => after.find([' ', '\'']).unwrap_or(after.len()),
        };
        fields.push((name, after.get(..end)?));
        rest = after.get(end..)?.trim_start_matches('\'');
    }
    Some(Parsed { kind, fields })
}

impl<'a> Parsed<'a> {
    fn get(&self, name: &str) -> Option<&'a str> {
        self.fields.iter().find(|(found, _)| *found == name).map(|(_, value)| *value).filter(|value| !is_none(value))
    }

    fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        self.get(name).map(text)
    }
}

fn is_none(value: &str) -> bool {
    matches!(value, "(null)" | "(none)" | "?" | "\"?\"" | "")
}

/// Text in quotes, or in hexadecimal digits.
fn text(value: &str) -> Cow<'_, str> {
    if let Some(inner) = value.strip_prefix('"') {
        return inner.strip_suffix('"').unwrap_or(inner).into();
    }
    let digits = value.as_bytes();
    if !digits.len().is_multiple_of(2) || !digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'A'..=b'F')) {
        return value.into();
    }
    let digit = |digit: u8| if digit.is_ascii_digit() { digit - b'0' } else { digit - b'A' + 10 };
    let (pairs, _) = digits.as_chunks::<2>();
    let bytes: Vec<u8> = pairs.iter().map(|[high, low]| digit(*high) << 4 | digit(*low)).collect();
    String::from_utf8_lossy(&bytes).replace('\0', " ").into()
}

fn bounded(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max));
    }
    text
}

/// Arguments of an execution: `a0="sh" a1=2D63`, long ones in pieces as `a1[0]=… a1[1]=…`.
fn arguments(records: &[Parsed<'_>]) -> Option<String> {
    let mut found = String::new();
    let mut last = None;
    let fields = records.iter().filter(|record| record.kind == "EXECVE").flat_map(|record| &record.fields);
    for (name, value) in fields.filter(|(name, _)| name.starts_with('a')).take(ARGUMENTS_MAX) {
        let (name, _) = name.split_once('[').unwrap_or((name, ""));
        let is_argument = name.len() > 1 && name.bytes().skip(1).all(|byte| byte.is_ascii_digit());
        if !is_argument || found.len() >= CMDLINE_BYTES_MAX {
            continue;
        }
        if last.is_some_and(|last| last != name) {
            found.push(' ');
        }
        found.push_str(&text(value));
        last = Some(name);
    }
    last.map(|_| bounded(found, CMDLINE_BYTES_MAX))
}

/// The event of records of one serial number, each a line; nothing for an empty one. `own`: what this process does is
/// nobody's news.
pub fn event(lines: &str, own: u32) -> Option<LogEvent> {
    let records: Vec<Parsed<'_>> = lines.lines().filter_map(parse).filter(|record| record.kind != "EOE").collect();
    let serial = serial(lines)?;
    let at = time(serial)?;
    // What was done comes before what it was done with.
    let first = records.iter().find(|record| record.kind == "SYSCALL").or(records.first())?;
    if first.get("pid").and_then(|pid| pid.parse().ok()) == Some(own) {
        return None;
    }
    let cmdline = arguments(&records);
    let of_kind = records.iter().find(|record| !matches!(record.kind, "SYSCALL" | "PROCTITLE" | "CWD" | "PATH"));
    let kind = if cmdline.is_some() { "EXECVE" } else { of_kind.unwrap_or(first).kind };
    let failed = ["res", "success"].iter().any(|name| matches!(first.get(name), Some("failed" | "no" | "0")));
    let is_denied = matches!(kind, "AVC" | "USER_AVC" | "APPARMOR_DENIED" | "SECCOMP") || kind.starts_with("ANOM_");
    let is_login = matches!(kind, "USER_AUTH" | "USER_LOGIN" | "USER_ACCT" | "USER_CHAUTHTOK" | "GRP_AUTH");
    let is_change =
        matches!(kind, "CONFIG_CHANGE" | "DAEMON_END" | "DAEMON_ABORT" | "KERN_MODULE" | "ADD_USER" | "DEL_USER");
    let severity = if is_denied || is_change || (is_login && failed) { "warning" } else { "info" };
    let mut event = log_event(at, "audit", String::new(), &[("source", "audit"), ("severity", severity)]);
    let mut label = |name: &str, value: Option<Cow<'_, str>>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            event.labels.insert(name.to_owned(), bounded(value.into_owned(), CMDLINE_BYTES_MAX));
        }
    };
    label("event_type", Some(format!("audit_{}", kind.to_ascii_lowercase()).into()));
    label("audit_type", Some(kind.into()));
    label("serial", Some(serial.into()));
    for name in ["arch", "syscall", "success", "exit", "pid", "ppid", "uid", "euid", "auid", "ses", "op", "res", "addr"]
    {
        label(name, first.get(name).map(|value| text_of_number(value)));
    }
    for (name, field) in
        [("process", "comm"), ("exe", "exe"), ("key", "key"), ("account", "acct"), ("terminal", "terminal")]
    {
        label(name, first.text(field).map(|text| bounded(text.into_owned(), TEXT_BYTES_MAX).into()));
    }
    let any = |kind: &str, field: &str| records.iter().find(|r| r.kind == kind).and_then(|record| record.text(field));
    label("cwd", any("CWD", "cwd"));
    label("proctitle", any("PROCTITLE", "proctitle"));
    let paths = records.iter().filter(|record| record.kind == "PATH" && record.get("nametype") != Some("PARENT"));
    let mut paths: Vec<String> = paths.filter_map(|record| record.text("name")).map(Cow::into_owned).collect();
    paths.truncate(PATHS_MAX);
    label("file_path", paths.first().map(|path| path.clone().into()));
    label("file_paths", (paths.len() > 1).then(|| paths.join(",").into()));
    event.message = match &cmdline {
        Some(cmdline) => format!("execve: {cmdline}"),
        None => {
            let body = lines.lines().next().unwrap_or_default().split('\u{1d}').next().unwrap_or_default();
            bounded(body.to_owned(), CMDLINE_BYTES_MAX)
        }
    };
    label("cmdline", cmdline.map(Cow::from));
    Some(event)
}

/// As it is, without quotes: a number must not be taken for hexadecimal text.
fn text_of_number(value: &str) -> Cow<'_, str> {
    value.trim_matches('"').into()
}

#[cfg(test)]
mod tests {
    use super::*;

    // As a kernel of version 6.18 sent them: types and texts.
    const EXECUTED: &[(u16, &str)] = &[
        (
            1300,
            "audit(1795681247.137:17): arch=c000003e syscall=59 success=yes exit=0 a0=7f15129a4830 a1=7f15125a5b30 \
             a2=7ffe06c0cdb8 a3=8 items=2 ppid=1068 pid=1118 auid=4294967295 uid=0 gid=0 euid=0 suid=0 fsuid=0 egid=0 sgid=0 \
             fsgid=0 tty=(none) ses=4294967295 comm=\"sh\" exe=\"/usr/bin/dash\" key=736D2074657374",
        ),
        (
            1309,
            "audit(1795681247.137:17): argc=4 a0=\"sh\" a1=\"-c\" a2=65786563207472756520276120622720226322 a3=\"xxxxxxxxxx\"",
        ),
        (1307, "audit(1795681247.137:17): cwd=\"/root\""),
        (
            1302,
            "audit(1795681247.137:17): item=0 name=\"/usr/bin/sh\" inode=247076 dev=fe:00 mode=0100755 ouid=0 ogid=0 \
             rdev=00:00 nametype=NORMAL cap_fp=0 cap_fi=0 cap_fe=0 cap_fver=0 cap_frootid=0",
        ),
        (
            1302,
            "audit(1795681247.137:17): item=1 name=\"/lib64/ld-linux-x86-64.so.2\" inode=325843 dev=fe:00 mode=0100755 \
             ouid=0 ogid=0 rdev=00:00 nametype=NORMAL",
        ),
        (1327, "audit(1795681247.137:17): proctitle=7368002D6300"),
        (1320, "audit(1795681247.137:17): "),
    ];

    fn lines(records: &[(u16, &str)]) -> String {
        records.iter().map(|(kind, text)| line(*kind, text)).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn an_execution_is_one_event_with_its_arguments() {
        let event = event(&lines(EXECUTED), 1).unwrap();
        assert_eq!((&*event.stream, event.ts_unix_ns), ("audit", 1_795_681_247_137_000_000));
        assert_eq!(event.message, "execve: sh -c exec true 'a b' \"c\" xxxxxxxxxx");
        for (label, expected) in [
            ("event_type", "audit_execve"),
            ("severity", "info"),
            ("serial", "1795681247.137:17"),
            ("cmdline", "sh -c exec true 'a b' \"c\" xxxxxxxxxx"),
            ("pid", "1118"),
            ("ppid", "1068"),
            ("uid", "0"),
            ("process", "sh"),
            ("exe", "/usr/bin/dash"),
            ("key", "sm test"),
            ("cwd", "/root"),
            ("file_path", "/usr/bin/sh"),
            ("file_paths", "/usr/bin/sh,/lib64/ld-linux-x86-64.so.2"),
            ("success", "yes"),
            ("proctitle", "sh -c "),
        ] {
            assert_eq!(event.labels[label], expected, "{label}");
        }
        assert_eq!(super::event(&lines(EXECUTED), 1118), None, "what we do ourselves");
    }

    #[test]
    fn what_programs_and_other_parts_of_the_kernel_say_is_read_too() {
        let login = "node=web type=USER_LOGIN msg=audit(1795681300.001:90): pid=811 uid=0 auid=4294967295 ses=4294967295 \
                     msg='op=login acct=\"root\" exe=\"/usr/sbin/sshd\" hostname=? addr=192.0.2.7 terminal=ssh \
                     res=failed'\u{1d}UID=\"root\" AUID=\"unset\"";
        let found = event(login, 1).unwrap();
        for (label, expected) in [
            ("event_type", "audit_user_login"),
            ("severity", "warning"),
            ("account", "root"),
            ("addr", "192.0.2.7"),
            ("res", "failed"),
            ("terminal", "ssh"),
            ("op", "login"),
        ] {
            assert_eq!(found.labels[label], expected, "{label}");
        }
        let change = "type=CONFIG_CHANGE msg=audit(1795681247.157:35): op=set audit_enabled=0 old=1 auid=4294967295 res=1\n\
                      type=SYSCALL msg=audit(1795681247.157:35): arch=c000003e syscall=44 success=yes exit=60 pid=1122";
        let found = event(change, 1).unwrap();
        assert_eq!((&*found.labels["event_type"], &*found.labels["severity"]), ("audit_config_change", "warning"));
        let denied = "type=AVC msg=audit(1.000:2): apparmor=\"DENIED\" operation=\"open\" pid=7 comm=\"x\"";
        assert_eq!(event(denied, 1).unwrap().labels["severity"], "warning");
        assert_eq!(line(9999, "audit(1.0:1): a=b"), "type=UNKNOWN[9999] msg=audit(1.0:1): a=b");
    }

    #[test]
    fn long_arguments_come_together_again_and_everything_has_a_bound() {
        let long =
            "type=EXECVE msg=audit(1.000:2): argc=3 a0=\"x\" a1_len=8 a1[0]=\"abcd\" a1[1]=4546 a2=(null) a3=\"z\"";
        assert_eq!(event(long, 1).unwrap().labels["cmdline"], "x abcdEF (null) z");
        let huge = format!("type=EXECVE msg=audit(1.000:2): argc=1 a0={}", "C3A9".repeat(20_000));
        let found = event(&huge, 1).unwrap();
        assert_eq!(found.labels["cmdline"].len(), CMDLINE_BYTES_MAX);
        let many: Vec<String> =
            (0..200).map(|i| format!("type=PATH msg=audit(1.000:2): item={i} name=\"/{i}\"")).collect();
        assert_eq!(event(&many.join("\n"), 1).unwrap().labels["file_paths"].matches(',').count(), PATHS_MAX - 1);
    }

    #[test]
    fn what_is_no_record_is_no_event() {
        for odd in
            ["", "x", "type=", "type=A msg=audit(", "type=A msg=audit(x:y): a=b", "type=A msg=audit(1.1:1)", "\u{1d}"]
        {
            assert_eq!(event(odd, 1), None, "{odd}");
        }
        for odd in ["a", "a=", "=", "a=\"", "msg='", "msg='a=\"b", "é=é", "a='b' c"] {
            event(&format!("type=A msg=audit(1.1:1): {odd}"), 1);
        }
        assert_eq!(serial("audit(1.1:1)").unwrap(), "1.1:1");
    }
}
