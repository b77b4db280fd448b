//! A PostgreSQL of the test's own.

use super::{Daemon, TestCerts};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// How to start it.
#[derive(Debug, Clone, Default)]
pub struct PostgresOptions {
    /// Password of the user `mutt_user`, asked for by SCRAM; without one everybody is trusted.
    pub password: Option<String>,
    /// TLS with a CA of the test's own, and nothing else over TCP; see [`PostgresServer::certs`].
    pub tls: bool,
    /// Names in the certificate; none means `localhost` and 127.0.0.1.
    pub tls_names: Vec<String>,
    /// Commits reach the disk, as in real life. Off by default: tests kill the server, not the
    /// machine.
    pub fsync: bool,
    /// More settings, as `name=value`.
    pub settings: Vec<String>,
}

/// A running PostgreSQL on a free port of 127.0.0.1, with a superuser `mutt_user` who owns the
/// database `mutt_db`. `kill -9` and [`Self::start_again`] keep what was committed.
#[derive(Debug)]
pub struct PostgresServer {
    daemon: Option<Daemon>,
    dir: TempDir,
    port: u16,
    options: PostgresOptions,
    certs: Option<TestCerts>,
}

const USER: &str = "mutt_user";
const DATABASE: &str = "mutt_db";

impl PostgresServer {
    /// Without password and TLS.
    pub fn start() -> Self {
        Self::with(PostgresOptions::default())
    }

    pub fn with(options: PostgresOptions) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        // The server runs as another user when we are root, and must get here.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("our own folder");
        let mut server = Self { daemon: None, dir, port: crate::free_port(), options, certs: None };
        server.make();
        server.start_again();
        let made =
            server.try_psql("postgres", &format!("CREATE DATABASE {DATABASE} ENCODING 'UTF8' TEMPLATE template0"));
        made.expect("a new server takes a new database");
        server
    }

    fn make(&mut self) {
        let data = self.data();
        std::fs::create_dir(&data).expect("a temporary folder");
        hand_over(&data);
        let method = if self.options.password.is_some() { "scram-sha-256" } else { "trust" };
        let mut initdb = as_server(&program("initdb"));
        initdb
            .current_dir("/")
            .args(["--no-sync", "--encoding=UTF8", "--locale=C", "-U", USER, "--auth-local=trust"])
            .arg(format!("--auth-host={method}"))
            .arg("-D")
            .arg(&data);
        let output = initdb.output().expect("initdb; `make test` installs it");
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        if self.options.tls {
            let names: Vec<&str> = self.options.tls_names.iter().map(String::as_str).collect();
            let certs = match names.as_slice() {
                [] => TestCerts::write(self.dir.path()),
                names => TestCerts::write_for(self.dir.path(), names),
            };
            std::fs::set_permissions(&certs.key, std::fs::Permissions::from_mode(0o600)).expect("our own file");
            hand_over(&certs.key);
            hand_over(&certs.cert);
            let hba = format!("local all all trust\nhostssl all all 127.0.0.1/32 {method}\n");
            std::fs::write(data.join("pg_hba.conf"), hba).expect("the server's folder");
            self.certs = Some(certs);
        }
    }

    /// Starts it after [`Self::kill`] or [`Self::stop`], on the same port with the same data.
    pub fn start_again(&mut self) {
        let mut command = as_server(&program("postgres"));
        command.current_dir(self.data()).arg("-D").arg(self.data());
        let fsync = if self.options.fsync { "on" } else { "off" };
        let mut settings = vec![
            format!("port={}", self.port),
            "listen_addresses=127.0.0.1".into(),
            format!("unix_socket_directories={}", self.data().display()),
            format!("fsync={fsync}"),
            "shared_buffers=64MB".into(),
            "max_connections=60".into(),
            "timezone=UTC".into(),
        ];
        if let Some(certs) = &self.certs {
            settings.extend([
                "ssl=on".into(),
                format!("ssl_cert_file={}", certs.cert.display()),
                format!("ssl_key_file={}", certs.key.display()),
            ]);
        }
        settings.extend(self.options.settings.iter().cloned());
        for setting in settings {
            command.arg("-c").arg(setting);
        }
        // A killed one leaves its pid file; the pid may be somebody else's by now.
        let _ = std::fs::remove_file(self.data().join("postmaster.pid"));
        let log = self.dir.path().join("postgres.log");
        let ready = || self.try_psql("postgres", "SELECT 1").is_ok();
        let daemon = Daemon::start(command, &log, ready);
        if let Some(password) = &self.options.password {
            self.try_psql("postgres", &format!("ALTER USER {USER} PASSWORD '{password}'")).expect("a superuser");
        }
        self.daemon = Some(daemon);
    }

    /// `kill -9` of the whole server, children included.
    pub fn kill(&mut self) {
        let Some(mut daemon) = self.daemon.take() else { return };
        let children = children_of(daemon.pid());
        daemon.kill();
        // They end by themselves once they notice, but a new server must not meet them.
        for child in &children {
            let _ = Command::new("kill").arg("-KILL").arg(child.to_string()).stderr(Stdio::null()).status();
        }
        while children.iter().any(|child| runs(*child)) {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// A restart by an operator, who does not wait for clients: SIGINT.
    pub fn stop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.signal("INT");
            daemon.wait();
        }
    }

    pub fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("the server runs")
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn user(&self) -> &'static str {
        USER
    }

    pub fn database(&self) -> &'static str {
        DATABASE
    }

    pub fn certs(&self) -> Option<&TestCerts> {
        self.certs.as_ref()
    }

    /// What it has logged.
    pub fn output(&self) -> String {
        self.daemon.as_ref().map(Daemon::output).unwrap_or_default()
    }

    /// Makes an empty database.
    pub fn create_database(&self, name: &str) {
        self.psql_in("postgres", &format!("CREATE DATABASE \"{name}\" ENCODING 'UTF8' TEMPLATE template0"));
    }

    /// The answer of `psql`: rows a line, columns by `|`, trimmed. Panics when a statement fails.
    pub fn psql(&self, sql: &str) -> String {
        self.psql_in(DATABASE, sql)
    }

    pub fn psql_in(&self, database: &str, sql: &str) -> String {
        self.try_psql(database, sql).unwrap_or_else(|error| panic!("psql: {error}"))
    }

    /// The same; what `psql` complains about is the error.
    pub fn try_psql(&self, database: &str, sql: &str) -> Result<String, String> {
        let output = psql(&self.data(), self.port, database, sql);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn children_of(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| stat(*pid).is_some_and(|(_, its)| its == parent)).collect()
}

fn runs(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != "Z")
}

/// State and parent of a process.
fn stat(pid: u32) -> Option<(String, u32)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

fn psql(socket: &Path, port: u16, database: &str, sql: &str) -> Output {
    let mut child = Command::new(program("psql"))
        .args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-U", USER, "-p", &port.to_string(), "-d", database])
        .arg("-h")
        .arg(socket)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("psql; `make test` installs it");
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(sql.as_bytes()); // one that cannot connect says so on stderr
    }
    child.wait_with_output().expect("psql ends")
}

/// Debian keeps the server's programs out of PATH. `MUTT_TEST_POSTGRES` names the folder of another
/// version's.
#[expect(clippy::disallowed_methods, reason = "which server a test run is for")]
fn program(name: &str) -> PathBuf {
    if let Some(folder) = std::env::var_os("MUTT_TEST_POSTGRES") {
        let given = PathBuf::from(folder).join(name);
        // The client may be missing there; any version's will do.
        if given.is_file() {
            return given;
        }
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> =
        versions.map(|entry| entry.path().join("bin").join(name)).filter(|path| path.is_file()).collect();
    found.sort();
    found.pop().unwrap_or_else(|| name.into())
}

/// PostgreSQL refuses to run as root; then it is the package's user.
fn as_server(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
    command
}

fn hand_over(path: &Path) {
    if is_root() {
        let done = Command::new("chown").arg("postgres:postgres").arg(path).status();
        assert!(done.is_ok_and(|status| status.success()), "chown postgres {}", path.display());
    }
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("id");
    id.stdout.trim_ascii() == b"0"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_what_was_committed_when_it_is_killed() {
        let options =
            PostgresOptions { password: Some("pw".into()), tls: true, fsync: true, ..PostgresOptions::default() };
        let mut postgres = PostgresServer::with(options);
        postgres.psql("CREATE TABLE t (n INT); INSERT INTO t VALUES (7)");
        postgres.kill();
        postgres.start_again();
        assert_eq!(postgres.psql("SELECT n FROM t"), "7");
        assert!(postgres.try_psql("postgres", "SELECT no_such_thing").unwrap_err().contains("no_such_thing"));
    }
}
