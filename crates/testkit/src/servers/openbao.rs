//! An OpenBao of the test's own: the same HTTP API as HashiCorp Vault.

use super::{Daemon, TestCerts};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How to start it.
#[derive(Debug, Clone, Default)]
pub struct OpenBaoOptions {
    /// Keeps its data on disk (one raft node, which takes seconds to start), so that
    /// [`OpenBao::start_again`] finds it. Otherwise it is in memory and gone after a kill.
    pub durable: bool,
    /// TLS only, with a CA of the test's own; see [`OpenBao::certs`].
    pub tls: bool,
}

/// What a service logs in with.
#[derive(Debug, Clone)]
pub struct AppRole {
    pub role_id: String,
    pub secret_id: String,
}

/// A running, unsealed OpenBao with a KV version 2 engine at `secret/`.
#[derive(Debug)]
pub struct OpenBao {
    daemon: Option<Daemon>,
    dir: TempDir,
    port: u16,
    options: OpenBaoOptions,
    certs: Option<TestCerts>,
    unseal_key: String,
    root_token: String,
}

/// The `bao` that `make test` installs, or the one in the PATH.
#[expect(clippy::disallowed_methods, reason = "tests look for their tools where scripts/openbao.sh puts them")]
pub fn program() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from).or_else(home);
    let installed = cache.map(|dir| dir.join("mutt-security-manager/tools/bao"));
    installed.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from("bao"))
}

impl OpenBao {
    /// In memory, without TLS.
    pub fn start() -> Self {
        Self::with(OpenBaoOptions::default())
    }

    pub fn with(options: OpenBaoOptions) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let certs = options.tls.then(|| TestCerts::write(dir.path()));
        let (unseal_key, root_token) = (String::new(), String::new());
        let port = crate::free_port();
        let mut server = Self { daemon: None, dir, port, options, certs, unseal_key, root_token };
        server.start_sealed();
        let answer = server.cli(&["operator", "init", "-key-shares=1", "-key-threshold=1", "-format=json"]);
        let init: serde_json::Value = serde_json::from_str(&answer).expect("init answers with JSON");
        server.unseal_key = init["unseal_keys_b64"][0].as_str().expect("a key").to_owned();
        server.root_token = init["root_token"].as_str().expect("a token").to_owned();
        server.unseal();
        server.cli(&["secrets", "enable", "-path=secret", "kv-v2"]);
        server
    }

    /// Starts it after [`Self::kill`], on the same port, and unseals it. Only a durable one has
    /// anything to start with.
    pub fn start_again(&mut self) {
        assert!(self.options.durable, "an OpenBao in memory has nothing left after its end");
        self.start_sealed();
        self.unseal();
    }

    fn start_sealed(&mut self) {
        let config = self.dir.path().join("openbao.hcl");
        std::fs::write(&config, self.config()).expect("a file in a temporary folder");
        let mut command = Command::new(program());
        command.current_dir(self.dir.path()).args(["server", "-config"]).arg(&config);
        let log = self.dir.path().join("openbao.log");
        // Status ends with 2 where the server answers that it is sealed.
        let answers = || self.command(&["status"]).output().is_ok_and(|o| matches!(o.status.code(), Some(0 | 2)));
        self.daemon = Some(Daemon::start(command, &log, answers));
    }

    fn config(&self) -> String {
        let (port, dir) = (self.port, self.dir.path().display());
        let scheme = if self.certs.is_some() { "https" } else { "http" };
        let tls = match &self.certs {
            Some(certs) => {
                format!("tls_cert_file = \"{}\"\n  tls_key_file = \"{}\"", certs.cert.display(), certs.key.display())
            }
            None => "tls_disable = true".to_owned(),
        };
        let storage = if self.options.durable {
            std::fs::create_dir_all(self.dir.path().join("data")).expect("a folder in a temporary folder");
            let cluster = crate::free_port();
            format!(
                "cluster_addr = \"http://127.0.0.1:{cluster}\"\nstorage \"raft\" {{\n  path = \"{dir}/data\"\n  \
                 node_id = \"test\"\n  performance_multiplier = 1\n}}\n"
            )
        } else {
            "storage \"inmem\" {}\n".to_owned()
        };
        format!(
            "ui = false\napi_addr = \"{scheme}://127.0.0.1:{port}\"\n{storage}\
             listener \"tcp\" {{\n  address = \"127.0.0.1:{port}\"\n  {tls}\n}}\n"
        )
    }

    /// Opens it after [`Self::seal`]; returns when it serves.
    pub fn unseal(&self) {
        self.cli(&["operator", "unseal", &self.unseal_key]);
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.try_cli(&["token", "lookup"], "").is_err() {
            assert!(Instant::now() < deadline, "it does not serve: {}", self.daemon().output());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn seal(&self) {
        self.cli(&["operator", "seal"]);
    }

    pub fn kill(&mut self) {
        self.daemon = None;
    }

    pub fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("the server runs")
    }

    /// `http://127.0.0.1:<port>`, or `https://…`.
    pub fn address(&self) -> String {
        let scheme = if self.certs.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    pub fn certs(&self) -> Option<&TestCerts> {
        self.certs.as_ref()
    }

    pub fn root_token(&self) -> &str {
        &self.root_token
    }

    /// A folder of the test's own.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Enables AppRole, writes the policy `mutt-service` for `secret/mutt` as the original's
    /// deployment has it, and a role `mutt` whose tokens live so long (`3s`, `24h`).
    pub fn mutt_service(&self, ttl: &str, ttl_max: &str) -> AppRole {
        self.cli(&["auth", "enable", "approle"]);
        let rules = [
            ("secret/data/mutt", "read"),
            ("secret/data/mutt/*", "read"),
            ("secret/metadata/mutt", "list"),
            ("secret/metadata/mutt/*", "list"),
            ("auth/token/renew-self", "update"),
            ("auth/token/lookup-self", "read"),
        ];
        let policy: String =
            rules.iter().map(|(path, right)| format!("path \"{path}\" {{ capabilities = [\"{right}\"] }}\n")).collect();
        self.policy("mutt-service", &policy);
        self.role("mutt", ttl, ttl_max)
    }

    /// Writes a policy in HCL.
    pub fn policy(&self, name: &str, hcl: &str) {
        self.cli_with_input(&["policy", "write", name, "-"], hcl);
    }

    /// Writes a role with the policy `mutt-service` and gives a login for it.
    pub fn role(&self, name: &str, ttl: &str, ttl_max: &str) -> AppRole {
        let role = format!("auth/approle/role/{name}");
        let (ttl, ttl_max) = (format!("token_ttl={ttl}"), format!("token_max_ttl={ttl_max}"));
        self.cli(&["write", &role, "token_policies=mutt-service", &ttl, &ttl_max]);
        let role_id = self.cli(&["read", "-field=role_id", &format!("{role}/role-id")]);
        AppRole { role_id, secret_id: self.secret_id(name) }
    }

    /// One more secret id of a role.
    pub fn secret_id(&self, role: &str) -> String {
        self.cli(&["write", "-f", "-field=secret_id", &format!("auth/approle/role/{role}/secret-id")])
    }

    /// Ends every token that an AppRole login gave.
    pub fn revoke_logins(&self) {
        self.cli(&["lease", "revoke", "-sync", "-prefix", "auth/approle/login"]);
    }

    /// Replaces a secret below `secret/`.
    pub fn kv_put(&self, path: &str, pairs: &[(&str, &str)]) {
        self.cli_with_input(&["kv", "put", "-mount=secret", path, "-"], &json(pairs));
    }

    /// Changes these keys and keeps the others.
    pub fn kv_patch(&self, path: &str, pairs: &[(&str, &str)]) {
        self.cli_with_input(&["kv", "patch", "-mount=secret", path, "-"], &json(pairs));
    }

    /// The value of a key below `secret/`.
    pub fn kv_get(&self, path: &str, key: &str) -> String {
        self.cli(&["kv", "get", "-mount=secret", &format!("-field={key}"), path])
    }

    /// What `bao ARGS` prints, trimmed, as root; panics when it fails.
    pub fn cli(&self, args: &[&str]) -> String {
        self.cli_with_input(args, "")
    }

    /// As [`Self::cli`], with a text on its standard input.
    pub fn cli_with_input(&self, args: &[&str], input: &str) -> String {
        self.try_cli(args, input).unwrap_or_else(|error| panic!("bao {args:?}: {error}"))
    }

    fn try_cli(&self, args: &[&str], input: &str) -> Result<String, String> {
        let mut command = self.command(args);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("`bao` cannot be started ({e}); `make test` installs it"));
        let mut stdin = child.stdin.take().expect("it is piped");
        // A program that reads nothing closes its end first, which is no error.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().expect("a child can be waited for");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(args);
        command.envs(self.client_environment());
        command
    }

    /// What the command line of Vault or OpenBao needs in its environment to work here as root.
    pub fn client_environment(&self) -> Vec<(&'static str, String)> {
        let dir = self.dir.path().display().to_string();
        // HOME: it would read and write a token there.
        let mut variables = vec![("HOME", dir), ("VAULT_ADDR", self.address()), ("BAO_ADDR", self.address())];
        if !self.root_token.is_empty() {
            variables.push(("VAULT_TOKEN", self.root_token.clone()));
            variables.push(("BAO_TOKEN", self.root_token.clone()));
        }
        if let Some(certs) = &self.certs {
            variables.push(("VAULT_CACERT", certs.ca.display().to_string()));
            variables.push(("BAO_CACERT", certs.ca.display().to_string()));
        }
        variables
    }
}

fn json(pairs: &[(&str, &str)]) -> String {
    let map: serde_json::Map<String, serde_json::Value> =
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
    serde_json::Value::Object(map).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_durable_one_keeps_its_secrets_when_it_is_killed() {
        let mut bao = OpenBao::with(OpenBaoOptions { durable: true, tls: true });
        bao.kv_put("mutt", &[("A", "1"), ("B", "2")]);
        bao.kv_patch("mutt", &[("B", "3")]);
        bao.kill();
        bao.start_again();
        assert_eq!((bao.kv_get("mutt", "A"), bao.kv_get("mutt", "B")), ("1".into(), "3".into()));
    }
}
