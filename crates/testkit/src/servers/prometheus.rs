//! A Prometheus of the test's own.

use super::Daemon;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use tempfile::TempDir;

/// A running Prometheus that scrapes one address every second.
#[derive(Debug)]
pub struct PrometheusServer {
    _daemon: Daemon,
    _dir: TempDir,
}

impl PrometheusServer {
    /// On `port`, scraping `http://target/metrics`.
    pub fn start(port: u16, target: SocketAddr) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let config = dir.path().join("prometheus.yml");
        let text = format!(
            "global:\n  scrape_interval: 1s\nscrape_configs:\n  - job_name: muttd\n    static_configs:\n      - targets: ['{target}']\n"
        );
        std::fs::write(&config, text).expect("a file in a temporary folder");
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let daemon = Daemon::start(command, &dir.path().join("prometheus.log"), || TcpStream::connect(address).is_ok());
        Self { _daemon: daemon, _dir: dir }
    }
}
