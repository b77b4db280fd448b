//! The system's log of logins: the files collector over where this system writes it, with what a line is about as labels.

use super::files::{Kind, Tail, TailConfig};
use super::{Context, log_event};
use model::Timestamp;
use std::path::Path;
use wire::LogEvent;

/// Where logins are written, by the kind of system; and where, if neither is there.
const FILES: &[&str] = &["/var/log/auth.log", "/var/log/secure"];
const ELSE: &str = "/var/log/messages";

/// Ready to run, or why not.
pub fn open(context: &Context) -> Result<Tail, String> {
    let patterns = choose(|path| std::fs::File::open(path).is_ok())?;
    tracing::info!(files = patterns.join(", "), "following the log of logins");
    Tail::open(TailConfig { patterns, multiline: None, kind: Kind::Auth }, context.clone())
}

/// The files to follow. One of a pair may come later.
fn choose(is_there: impl Fn(&str) -> bool) -> Result<Vec<String>, String> {
    let files = if FILES.iter().any(|path| is_there(path)) { FILES } else { &[ELSE] };
    if !files.iter().any(|path| is_there(path)) {
        return Err(format!("none of {}, {ELSE} can be read", FILES.join(", ")));
    }
    Ok(files.iter().map(|path| (*path).to_owned()).collect())
}

/// What a line is about, and how bad that is. The first that fits counts.
pub fn classify(line: &str) -> (&'static str, &'static str) {
    let has = |text: &str| line.contains(text);
    if has("Out of memory:") || has("oom-kill") || has("oom_reaper") || has("invoked oom-killer") {
        ("memory_oom", "critical")
    } else if has("No space left on device") {
        ("disk_full", "critical")
    } else if has("Failed password")
        || has("Failed publickey")
        || has("Failed keyboard-interactive")
        || (has("Invalid user") && has("sshd"))
        || (has("maximum authentication attempts exceeded") && has("sshd"))
    {
        ("ssh_fail", "warning")
    } else if has("Accepted password") || has("Accepted publickey") || has("Accepted keyboard-interactive") {
        ("ssh_success", "info")
    } else if has("sudo") && has("COMMAND=") {
        ("sudo_usage", "info")
    } else if has("authentication failure") || has("FAILED LOGIN") || has("FAILED SU") {
        ("login_fail", "warning")
    } else if has("Killed process") {
        ("process_kill", "critical")
    } else if has("Link is Down") || has("link down") || has("link is not ready") || has("carrier lost") {
        ("network_drop", "warning")
    } else {
        ("unknown", "info")
    }
}

/// The event of a line.
pub fn event(now: Timestamp, path: &Path, line: &str) -> LogEvent {
    let line = line.trim();
    let (event_type, severity) = classify(line);
    let file = path.to_string_lossy();
    let labels = [("file", &*file), ("severity", severity), ("event_type", event_type), ("source", "file_tail")];
    log_event(now, "auth", line.to_owned(), &labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_as_daemons_write_them_are_told_apart() {
        for (line, expected) in [
            (
                "Jan  5 10:00:01 h sshd[811]: Failed password for root from 192.0.2.7 port 4711 ssh2",
                ("ssh_fail", "warning"),
            ),
            (
                "Jan  5 10:00:01 h sshd[811]: Failed password for invalid user a from 2001:db8::1 port 1 ssh2",
                ("ssh_fail", "warning"),
            ),
            ("Jan  5 10:00:01 h sshd[811]: Invalid user admin from 192.0.2.7 port 50022", ("ssh_fail", "warning")),
            (
                "Jan  5 10:00:02 h sshd[811]: Accepted publickey for ops from 192.0.2.9 port 1 ssh2: ED25519 SHA256:x",
                ("ssh_success", "info"),
            ),
            (
                "Jan  5 10:00:03 h sudo:      ops : TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/bash",
                ("sudo_usage", "info"),
            ),
            ("Jan  5 10:00:03 h login[5]: FAILED LOGIN (1) on '/dev/tty1' FOR 'UNKNOWN'", ("login_fail", "warning")),
            (
                "Jan  5 10:00:03 h su: pam_unix(su:auth): authentication failure; logname= uid=1000",
                ("login_fail", "warning"),
            ),
            (
                "Jan  5 10:00:04 h kernel: Out of memory: Killed process 4242 (java) total-vm:1kB",
                ("memory_oom", "critical"),
            ),
            ("Jan  5 10:00:04 h app[1]: write: No space left on device", ("disk_full", "critical")),
            ("Jan  5 10:00:04 h kernel: e1000e: eth0 NIC Link is Down", ("network_drop", "warning")),
            ("Jan  5 10:00:05 h CRON[9]: pam_unix(cron:session): session opened for user root", ("unknown", "info")),
            ("", ("unknown", "info")),
        ] {
            assert_eq!(classify(line), expected, "{line}");
        }
    }

    #[test]
    fn logins_are_followed_wherever_this_kind_of_system_writes_them() {
        let both = vec!["/var/log/auth.log".to_owned(), "/var/log/secure".to_owned()];
        for (there, expected) in [
            (&["/var/log/auth.log"][..], Ok(both.clone())),
            (&["/var/log/secure", "/var/log/messages"], Ok(both)),
            (&["/var/log/messages"], Ok(vec!["/var/log/messages".to_owned()])),
            (&[], Err("none of /var/log/auth.log, /var/log/secure, /var/log/messages can be read".to_owned())),
        ] {
            assert_eq!(choose(|path| there.contains(&path)), expected, "{there:?}");
        }
    }

    #[test]
    fn an_event_has_the_labels_that_it_always_had() {
        let event = event(Timestamp::from_secs(5), Path::new("/var/log/auth.log"), " Failed password for x \n");
        assert_eq!(
            (&*event.stream, &*event.message, event.ts_unix_ns),
            ("auth", "Failed password for x", 5_000_000_000)
        );
        let labels: Vec<_> = event.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let expected = [
            ("event_type", "ssh_fail"),
            ("file", "/var/log/auth.log"),
            ("severity", "warning"),
            ("source", "file_tail"),
        ];
        assert_eq!(labels, expected);
    }
}
