//! What a running agent says of itself to people on its host: one small file, replaced as a whole, read by
//! `sm-agent status` and `sm-agent doctor`.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const FILE: &str = "status.json";
/// Far more than any of them takes.
const BYTES_MAX: u64 = 1 << 20;
/// An agent that lives has said something since then: it does with each heartbeat.
const FRESH_MS: i64 = 150_000;

/// Where the connection stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    #[default]
    Starting,
    Connected,
    /// Tried again and again.
    Apart,
    Stopped,
}

/// The certificate there is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certified {
    pub agent_id: String,
    pub not_after_unix_s: i64,
    pub renew_after_unix_s: i64,
}

/// What waits for the server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    pub records: u64,
    pub bytes: u64,
    /// Age of the oldest.
    pub lag_ms: u64,
    /// On disk, with what is not yet cleared away.
    pub used_bytes: u64,
    pub max_bytes: u64,
    /// Records given up, by stream, since the spool was made.
    pub dropped: BTreeMap<String, u64>,
}

/// All of it. Fields may be added; what is missing in a file is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    pub version: String,
    pub pid: u32,
    pub started_unix_ms: i64,
    pub written_unix_ms: i64,
    pub org: String,
    pub host: String,
    pub ingest: String,
    pub tls: bool,
    pub standing: Standing,
    pub since_unix_ms: i64,
    /// Why there was no connection the last time.
    pub last_failure: Option<String>,
    /// The server's clock minus this host's, as of the last welcome.
    pub clock_ahead_ms: Option<i64>,
    pub certificate: Option<Certified>,
    pub waiting: Waiting,
    pub running: Vec<String>,
    pub not_running: BTreeMap<String, String>,
    pub rss_bytes: u64,
}

/// Why there is none to be read.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error("no agent has run with the data folder {}", .0.display())]
    None(PathBuf),
    #[error("cannot read {}", .path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not what an agent writes", .path.display())]
    Json {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
}

impl Report {
    /// Puts it in the place of the one before. Only for people, so it need not survive the machine.
    pub fn write(&self, data_dir: &Path) -> io::Result<()> {
        let unfinished = data_dir.join("status.json.new");
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        file.write_all(&serde_json::to_vec(self).map_err(io::Error::other)?)?;
        fs::rename(unfinished, data_dir.join(FILE))
    }

    pub fn read(data_dir: &Path) -> Result<Self, ReportError> {
        let path = data_dir.join(FILE);
        let mut text = Vec::new();
        let read = fs::File::open(&path)
            .and_then(|file| io::Read::read_to_end(&mut io::Read::take(file, BYTES_MAX), &mut text));
        match read {
            Ok(_) => serde_json::from_slice(&text).map_err(|source| ReportError::Json { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ReportError::None(data_dir.to_owned())),
            Err(source) => Err(ReportError::File { path, source }),
        }
    }

    /// Whether the process that wrote it is still there, as far as can be seen.
    pub fn is_alive(&self) -> bool {
        let name = fs::read_to_string(format!("/proc/{}/comm", self.pid)).unwrap_or_default();
        self.standing != Standing::Stopped && name.trim_end() == "sm-agent"
    }

    /// Whether it was written as lately as an agent that is well does.
    pub fn is_fresh(&self, now_unix_ms: i64) -> bool {
        now_unix_ms.saturating_sub(self.written_unix_ms) < FRESH_MS
    }

    /// What the connection is like, in words.
    pub fn connection(&self, now_unix_ms: i64) -> String {
        let since = age(now_unix_ms.saturating_sub(self.since_unix_ms));
        match (self.standing, &self.last_failure) {
            (Standing::Connected, _) => format!("connected to {} for {since}", self.ingest),
            (Standing::Starting, None) => format!("connecting to {}", self.ingest),
            (Standing::Stopped, _) => format!("stopped {since} ago"),
            (Standing::Apart, None) => format!("not connected to {} for {since}", self.ingest),
            (Standing::Starting | Standing::Apart, Some(why)) => {
                format!("not connected to {} for {since}: {why}", self.ingest)
            }
        }
    }

    /// For `sm-agent status`.
    pub fn lines(&self, now_unix_ms: i64) -> String {
        let written = age(now_unix_ms.saturating_sub(self.written_unix_ms));
        let mut lines = vec![
            format!(
                "sm-agent {}, process {}, started {} ago",
                self.version,
                self.pid,
                age(now_unix_ms.saturating_sub(self.started_unix_ms))
            ),
            format!("as {}/{} to {} (TLS: {})", self.org, self.host, self.ingest, self.tls),
            self.connection(now_unix_ms),
        ];
        if let Some(Certified { agent_id, not_after_unix_s, .. }) = &self.certificate {
            let left = not_after_unix_s.saturating_mul(1_000).saturating_sub(now_unix_ms);
            let left = if left > 0 { format!("good for {}", age(left)) } else { format!("over for {}", age(-left)) };
            lines.push(format!("certificate of {agent_id}, {left}"));
        }
        let waiting = &self.waiting;
        lines.push(format!(
            "waiting: {} records, {} bytes, the oldest for {}; {} of {} bytes used",
            waiting.records,
            waiting.bytes,
            age(waiting.lag_ms.try_into().unwrap_or(i64::MAX)),
            waiting.used_bytes,
            waiting.max_bytes
        ));
        let dropped: Vec<String> = waiting.dropped.iter().map(|(stream, n)| format!("{stream} {n}")).collect();
        if !dropped.is_empty() {
            lines.push(format!("given up since the beginning: {}", dropped.join(", ")));
        }
        lines.push(format!("observing: {}", self.running.join(", ")));
        lines.extend(self.not_running.iter().map(|(name, why)| format!("not observing: {name}: {why}")));
        lines.push(format!("memory {} KiB; all this as of {written} ago", self.rss_bytes / 1_024));
        lines.join("\n") + "\n"
    }
}

/// A length of time as people say it.
pub fn age(ms: i64) -> String {
    match ms.max(0) / 1_000 {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7_200 => format!("{} min", s / 60),
        s @ 7_200..172_800 => format!("{} h", s / 3_600),
        s => format!("{} days", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            version: "1".into(),
            pid: std::process::id(),
            written_unix_ms: 1_000_000,
            since_unix_ms: 400_000,
            ingest: "s:9002".into(),
            ..Report::default()
        }
    }

    #[test]
    fn it_is_read_as_it_was_written_and_by_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Report::read(dir.path()), Err(ReportError::None(_))));
        report().write(dir.path()).unwrap();
        let next = Report { standing: Standing::Connected, ..report() };
        next.write(dir.path()).unwrap();
        assert_eq!(Report::read(dir.path()).unwrap(), next);
        let path = dir.path().join(FILE);
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        fs::write(&path, b"{\"version\":\"0\",\"of_later\":1}").unwrap();
        assert_eq!(Report::read(dir.path()).unwrap(), Report { version: "0".into(), ..Report::default() });
        fs::write(&path, b"{").unwrap();
        assert!(matches!(Report::read(dir.path()), Err(ReportError::Json { .. })));
    }

    #[test]
    fn it_tells_an_agent_that_lives_from_one_that_does_not() {
        assert!(report().is_fresh(1_149_999) && !report().is_fresh(1_150_000));
        assert!(!report().is_alive(), "this process has another name");
        let why = Some("refused".to_owned());
        for (standing, last_failure, said) in [
            (Standing::Connected, why.clone(), "connected to s:9002 for 10 min"),
            (Standing::Apart, why, "not connected to s:9002 for 10 min: refused"),
            (Standing::Stopped, None, "stopped 10 min ago"),
            (Standing::Starting, None, "connecting to s:9002"),
        ] {
            assert_eq!(Report { standing, last_failure, ..report() }.connection(1_000_000), said);
        }
    }

    #[test]
    fn lengths_of_time_are_said_roughly() {
        for (ms, said) in
            [(-5, "0 s"), (119_999, "119 s"), (120_000, "2 min"), (7_200_000, "2 h"), (172_800_000, "2 days")]
        {
            assert_eq!(age(ms), said);
        }
    }
}
