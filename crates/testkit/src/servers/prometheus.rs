//! A Prometheus of the test's own.

use super::Daemon;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// A running Prometheus that scrapes and evaluates twice a second.
#[derive(Debug)]
pub struct PrometheusServer {
    daemon: Daemon,
    _dir: TempDir,
    port: u16,
}

impl PrometheusServer {
    /// Scrapes `targets` (job, address) and works with `rule_files`.
    pub fn start(targets: &[(&str, SocketAddr)], rule_files: &[&Path]) -> Self {
        Self::start_on(crate::free_port(), targets, rule_files)
    }

    /// As [`Self::start`], on a port that others know already.
    pub fn start_on(port: u16, targets: &[(&str, SocketAddr)], rule_files: &[&Path]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut config =
            "global: {scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}\n".to_owned();
        config.push_str("rule_files:\n");
        for file in rule_files {
            let _ = writeln!(config, "  - {}", file.display());
        }
        config.push_str("scrape_configs:\n");
        for (job, address) in targets {
            let _ = writeln!(config, "  - job_name: {job}\n    static_configs: [{{targets: [\"{address}\"]}}]");
        }
        let file = dir.path().join("prometheus.yml");
        std::fs::write(&file, config).expect("a file in a temporary folder");
        let mut command = Command::new("prometheus");
        command
            .current_dir(dir.path())
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--log.level=warn");
        let log = dir.path().join("prometheus.log");
        let daemon =
            Daemon::start(command, &log, || get(port, "/-/ready").is_some_and(|a| a.starts_with("HTTP/1.0 200")));
        Self { daemon, _dir: dir, port }
    }

    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    /// The series that `expression` gives now. Panics when Prometheus does not understand it.
    pub fn query(&self, expression: &str) -> Vec<Value> {
        let path = format!("/api/v1/query?query={}", percent(expression));
        let answer = get(self.port, &path).unwrap_or_else(|| panic!("no answer: {}", self.daemon.output()));
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let json: Value = serde_json::from_str(body).unwrap_or_else(|e| panic!("`{expression}`: {e}: {answer}"));
        assert_eq!(json["status"], "success", "`{expression}`: {json}");
        match &json["data"]["result"] {
            Value::Array(series) if json["data"]["resultType"] == "vector" => series.clone(),
            other => vec![other.clone()],
        }
    }
}

fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    // HTTP/1.0: the answer ends with the connection.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

fn percent(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_answers_queries() {
        let prometheus = PrometheusServer::start(&[], &[]);
        assert_eq!(prometheus.query("vector(2) * 3")[0]["value"][1], "6");
        assert!(prometheus.query("up{job=\"none\"}").is_empty());
    }
}
