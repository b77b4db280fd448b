//! A ClickHouse of the test's own.

use super::Daemon;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// What the server is told. The user `default` may do everything and needs no password; nobody but
/// 127.0.0.1 gets to it.
const CONFIG: &str = "<clickhouse><users_config>users.xml</users_config>\
     <logger><level>warning</level></logger></clickhouse>";
const USERS: &str = "<clickhouse><profiles><default/></profiles><quotas><default/></quotas><users><default>\
     <password></password><networks><ip>127.0.0.1</ip></networks><profile>default</profile>\
     <quota>default</quota></default></users></clickhouse>";
/// The program is the local tool: it listens while its query runs, and this one does not end.
const SERVE: &str = "SYSTEM START LISTEN HTTP; SELECT sleepEachRow(1) FROM system.numbers \
     SETTINGS max_block_size = 1, max_threads = 1 FORMAT Null";

/// A running ClickHouse that speaks HTTP.
#[derive(Debug)]
pub struct ClickHouse {
    daemon: Daemon,
    _dir: TempDir,
    port: u16,
}

/// The `clickhouse` that `make test` installs.
#[expect(clippy::disallowed_methods, reason = "tests look for their tools where scripts/clickhouse.sh puts them")]
fn program() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from).or_else(home);
    cache.unwrap_or_default().join("mutt-security-manager/tools/clickhouse/clickhouse")
}

impl ClickHouse {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for (name, text) in [("config.xml", CONFIG), ("users.xml", USERS)] {
            std::fs::write(dir.path().join(name), text).expect("a file in a temporary folder");
        }
        let port = crate::free_port();
        let mut command = Command::new(program());
        command
            .current_dir(dir.path())
            .args(["--config-file", "config.xml", "--path"])
            .arg(dir.path().join("data"))
            .arg("--listen_host=127.0.0.1")
            .arg(format!("--http_port={port}"))
            .args(["--query", SERVE]);
        let log = dir.path().join("clickhouse.log");
        let daemon = Daemon::start(command, &log, || ask(port, "", b"SELECT 1").is_ok());
        Self { daemon, _dir: dir, port }
    }

    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    /// `http://127.0.0.1:<port>`
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What it answers to a statement; `Err` with its own words where it refuses.
    pub fn try_query(&self, statement: &str) -> Result<String, String> {
        ask(self.port, "", statement.as_bytes())
    }

    /// What it answers to a statement; panics where it refuses.
    pub fn query(&self, statement: &str) -> String {
        self.try_query(statement).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Puts `data` into a table, in a format of ClickHouse.
    pub fn insert(&self, table: &str, format: &str, data: &[u8]) {
        let statement = format!("INSERT INTO {table} FORMAT {format}").replace(' ', "%20");
        ask(self.port, &format!("&query={statement}"), data).unwrap_or_else(|error| panic!("{error}"));
    }
}

/// Settings so that long statements are read, and that an answer with an error in it is one.
const SETTINGS: &str = "wait_end_of_query=1&max_query_size=100000000&max_ast_elements=5000000\
     &max_expanded_ast_elements=5000000";

fn ask(port: u16, parameters: &str, body: &[u8]) -> Result<String, String> {
    let failed = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(failed)?;
    stream.set_read_timeout(Some(Duration::from_secs(120))).map_err(failed)?;
    let head = format!("POST /?{SETTINGS}{parameters} HTTP/1.0\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).map_err(failed)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(failed)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status == "200" { Ok(body.to_owned()) } else { Err(body.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_what_it_is_given_and_says_what_it_refuses() {
        let server = ClickHouse::start();
        server.query("CREATE TABLE t (n UInt32, s String) ENGINE = MergeTree ORDER BY n");
        server.insert("t", "JSONEachRow", b"{\"n\":2,\"s\":\"b\\u0000\"}\n{\"n\":1,\"s\":\"a\"}\n");
        assert_eq!(server.query("SELECT n, length(s) FROM t ORDER BY n"), "1\t1\n2\t2\n");
        assert!(server.try_query("SELECT nothing").unwrap_err().contains("UNKNOWN_IDENTIFIER"));
    }
}
