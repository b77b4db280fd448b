//! `sm-agent doctor`: looks at everything that an agent needs, says in plain lines what is wrong and what to do.
//!
//! It changes nothing, starts nothing, and shows no secret.

mod server;

use crate::link::{Identity, times};
use crate::report::{Report, ReportError, Standing, age};
use crate::settings::{Examined, Settings};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Clocks that differ by more make certificates look too old or too new.
const CLOCK_MS_MAX: u64 = 60_000;
/// A record that waits longer, although there is a connection, is not on its way.
const LAG_MS_MAX: u64 = 60_000;
const DAY_MS: i64 = 86_400_000;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    grade: Grade,
    text: String,
    advice: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grade {
    Good,
    /// Worth knowing; nothing has to be done.
    Note,
    Wrong,
}

fn good(text: impl Into<String>) -> Finding {
    Finding { grade: Grade::Good, text: text.into(), advice: None }
}

fn note(text: impl Into<String>) -> Finding {
    Finding { grade: Grade::Note, text: text.into(), advice: None }
}

fn wrong(text: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { grade: Grade::Wrong, text: text.into(), advice: Some(advice.into()) }
}

/// All of it, in words, and whether all is well.
pub fn words(findings: &[Finding]) -> (String, bool) {
    let mut text = String::new();
    for Finding { grade, text: found, advice } in findings {
        let grade = match grade {
            Grade::Good => "ok   ",
            Grade::Note => "note ",
            Grade::Wrong => "WRONG",
        };
        text.push_str(&format!("{grade} {found}\n"));
        if let Some(advice) = advice {
            text.push_str(&format!("      what to do: {advice}\n"));
        }
    }
    let wrong = findings.iter().filter(|finding| finding.grade == Grade::Wrong).count();
    match wrong {
        0 => text.push_str("All is well.\n"),
        1 => text.push_str("One thing is wrong.\n"),
        n => text.push_str(&format!("{n} things are wrong.\n")),
    }
    (text, wrong == 0)
}

/// Looks at everything, at this time.
pub async fn examine(examined: &Examined, now_unix_ms: i64) -> Vec<Finding> {
    let mut findings = vec![conf(&examined.conf)];
    findings.extend(examined.warnings.iter().map(|warning| note(format!("settings: {warning}"))));
    let dir = &examined.data_dir;
    match &examined.settings {
        Ok(settings) => {
            findings.extend(told(settings));
            findings.push(data_dir(dir));
            findings.extend(server::examine(settings, dir, now_unix_ms).await);
            findings.extend(settings.tls.then(|| certificate(dir, now_unix_ms)));
        }
        Err(why) => {
            findings
                .push(wrong(format!("settings: {why}"), "set it in the configuration file; sm-agent -h has all names"));
            findings.push(data_dir(dir));
        }
    }
    let report = Report::read(dir);
    findings.extend(service(&report, now_unix_ms));
    if let Ok(report) = &report {
        findings.extend(state(report));
        findings.push(disk(dir, report.waiting.max_bytes.saturating_sub(report.waiting.used_bytes)));
    }
    findings
}

fn conf(path: &Path) -> Finding {
    let shown = path.display();
    match std::fs::File::open(path).and_then(|file| file.metadata()) {
        Ok(metadata) if metadata.is_file() && metadata.permissions().mode() & 0o077 != 0 => wrong(
            format!("configuration: {shown} holds a token and can be read by others than its owner"),
            format!("chmod 600 {shown}"),
        ),
        Ok(_) => good(format!("configuration: {shown}")),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            note(format!("configuration: there is no {shown}; only flags and the environment count"))
        }
        Err(error) => wrong(format!("configuration: cannot read {shown}: {error}"), "run this as root (sudo)"),
    }
}

fn told(settings: &Settings) -> Vec<Finding> {
    let Settings { org, host, ingest, .. } = settings;
    let mut findings = vec![good(format!("settings: {org}/{host} to {ingest}"))];
    findings.push(match (&settings.fingerprint, settings.tls) {
        (Some(fingerprint), true) => good(format!("token: names the server's authority, {fingerprint}")),
        (None, true) => good("token: names no authority; the server is known by -ca or the system's authorities"),
        (_, false) => note("encryption is off: the token and all records can be read, and changed, on their way"),
    });
    findings
}

fn data_dir(dir: &Path) -> Finding {
    let shown = dir.display();
    match std::fs::metadata(dir) {
        Ok(metadata) if !metadata.is_dir() => wrong(format!("data: {shown} is no folder"), "name another: -data-dir"),
        Ok(metadata) if metadata.permissions().mode() & 0o077 != 0 => wrong(
            format!("data: {shown} holds records and keys and is open to others than its owner"),
            format!("chmod 700 {shown}"),
        ),
        Ok(_) => good(format!("data: {shown}")),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            note(format!("data: there is no {shown} yet; the agent makes it when it starts"))
        }
        Err(error) => wrong(format!("data: cannot look at {shown}: {error}"), "run this as root (sudo)"),
    }
}

fn certificate(dir: &Path, now_unix_ms: i64) -> Finding {
    let Some(current) = Identity::of(dir).current() else {
        return note("certificate: none yet; the token is changed for one at the first connection");
    };
    let times = times(&current);
    let left_ms = times.not_after_unix_s.saturating_mul(1_000).saturating_sub(now_unix_ms);
    let overdue_ms = now_unix_ms.saturating_sub(times.renew_after_unix_s.saturating_mul(1_000));
    let whose = format!("certificate: of {}", current.agent_id);
    let advice =
        "see the connection below; the agent asks for another with its token, or needs a new token in SM_TOKEN";
    if left_ms <= 0 {
        wrong(format!("{whose}, over for {}", age(-left_ms)), advice)
    } else if overdue_ms > DAY_MS {
        wrong(
            format!("{whose}, good for {}, but should have been renewed {} ago", age(left_ms), age(overdue_ms)),
            advice,
        )
    } else {
        good(format!("{whose}, good for {}", age(left_ms)))
    }
}

fn service(report: &Result<Report, ReportError>, now_unix_ms: i64) -> Vec<Finding> {
    let start = "systemctl enable --now sm-agent; if it ends again: journalctl -u sm-agent -n 50";
    let report = match report {
        Ok(report) => report,
        Err(error @ ReportError::None(_)) => return vec![wrong(format!("service: {error}"), start)],
        Err(error) => return vec![wrong(format!("service: {}", crate::link::chain(error)), "run this as root (sudo)")],
    };
    let said = age(now_unix_ms.saturating_sub(report.written_unix_ms));
    if !report.is_alive() {
        return vec![wrong(format!("service: the agent does not run; it spoke last {said} ago"), start)];
    }
    if !report.is_fresh(now_unix_ms) {
        let what = format!("service: process {} runs and has said nothing for {said}", report.pid);
        return vec![wrong(what, "systemctl restart sm-agent, and look whether the disk or the machine hangs")];
    }
    let mut findings = vec![good(format!("service: process {} runs, it spoke {said} ago", report.pid))];
    let connection = format!("connection: {}", report.connection(now_unix_ms));
    findings.push(match report.standing {
        Standing::Connected => good(connection),
        Standing::Starting => note(connection),
        Standing::Apart | Standing::Stopped => {
            wrong(connection, "mend what is wrong above; the agent tries again by itself, and keeps records meanwhile")
        }
    });
    let lag_ms = report.waiting.lag_ms;
    if report.standing == Standing::Connected && lag_ms > LAG_MS_MAX {
        let lag = age(lag_ms.try_into().unwrap_or(i64::MAX));
        findings.push(wrong(
            format!("records: the oldest waits for {lag} although there is a connection"),
            "look whether the server stores what it gets; a long absence is caught up with by itself",
        ));
    }
    findings
}

/// What holds whether it runs or not.
fn state(report: &Report) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(ahead_ms) = report.clock_ahead_ms {
        let by = age(ahead_ms.unsigned_abs().try_into().unwrap_or(i64::MAX));
        findings.push(if ahead_ms.unsigned_abs() > CLOCK_MS_MAX {
            let which = if ahead_ms > 0 { "behind" } else { "ahead of" };
            wrong(format!("clock: this host is {by} {which} the server"), "timedatectl set-ntp true")
        } else {
            good(format!("clock: within {by} of the server's"))
        });
    }
    let waiting = &report.waiting;
    let size = format!("records: {} wait, {} of {} bytes used", waiting.records, waiting.used_bytes, waiting.max_bytes);
    findings.push(if waiting.used_bytes > waiting.max_bytes / 5 * 4 {
        wrong(size, "connect the agent, or raise -spool-mb: files are not read on, and soon the oldest records go")
    } else {
        good(size)
    });
    let dropped: Vec<String> = waiting.dropped.iter().map(|(stream, n)| format!("{stream} {n}")).collect();
    if !dropped.is_empty() {
        findings.push(note(format!("records given up for want of room, ever: {}", dropped.join(", "))));
    }
    findings.push(good(format!("collectors: {}", report.running.join(", "))));
    let not_running = report.not_running.iter();
    findings.extend(not_running.map(|(name, why)| note(format!("collectors: {name} does not run: {why}"))));
    findings
}

fn disk(dir: &Path, may_take_bytes: u64) -> Finding {
    let stat = match rustix::fs::statvfs(dir) {
        Ok(stat) => stat,
        Err(error) => return wrong(format!("disk: cannot ask about {}: {error}", dir.display()), "run this as root"),
    };
    let free_bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
    let (free_mb, may_take_mb) = (free_bytes >> 20, may_take_bytes >> 20);
    if free_bytes < may_take_bytes {
        let what = format!("disk: {free_mb} MiB free, and records may take {may_take_mb} MiB more");
        wrong(what, "make room, or lower -spool-mb, or name another folder with -data-dir")
    } else {
        good(format!("disk: {free_mb} MiB free, records may take {may_take_mb} MiB more"))
    }
}

#[cfg(test)]
mod tests;
