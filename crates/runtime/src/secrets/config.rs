//! Settings, and what can be wrong with them before anybody is asked.

use super::{KvPath, Local};
use crate::Secret;
use crate::config::Problem;
use http::HeaderValue;
use reqwest::Url;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Where secrets come from.
#[derive(Debug, Clone)]
pub struct SecretsConfig {
    /// `None`: environment and files only.
    pub vault: Option<VaultConfig>,
    /// What environment or file say, by name; see [`super::from_environment`].
    pub local: BTreeMap<String, Local>,
    /// How often files are read again.
    pub files_interval: Duration,
}

impl Default for SecretsConfig {
    fn default() -> Self {
        Self { vault: None, local: BTreeMap::new(), files_interval: Duration::from_secs(5) }
    }
}

/// How to reach Vault and what to read there. `Debug` shows no secret.
#[derive(Debug, Clone)]
pub struct VaultConfig {
    /// `VAULT_ADDR`: `https://host:8200`, also with a path before `/v1`.
    pub address: String,
    /// `VAULT_ROLE_ID`. Empty: [`Self::token`] is used.
    pub role_id: Secret,
    /// `VAULT_SECRET_ID_FILE`: read at every login, so it may be replaced while we run.
    pub secret_id_file: PathBuf,
    /// `VAULT_TOKEN`: used where there is no role id. It cannot be got anew when it ends.
    pub token: Option<Secret>,
    /// `VAULT_MOUNT_PATH`: where the KV version 2 engine is.
    pub mount: String,
    /// `VAULT_SECRETS_PATH`, `VAULT_SECRET_PATH`: see [`KvPath`].
    pub path: String,
    /// `VAULT_CACERT`: PEM; the only roots then. `None`: the system's. Read again at every login.
    pub ca_file: Option<PathBuf>,
    /// `VAULT_NAMESPACE`: of Vault Enterprise and OpenBao.
    pub namespace: Option<String>,
    /// `VAULT_TOKEN_RENEW_THRESHOLD`: the token is renewed when it has less time left than this; at
    /// most two thirds of what a login gives, so that short tokens are not renewed without end.
    pub renew_threshold: Duration,
    /// `VAULT_RENEW_CHECK_INTERVAL`: how often Vault is asked whether the token is still good.
    pub renew_check_interval: Duration,
    /// How often the secrets are read again.
    pub refresh_interval: Duration,
}

impl VaultConfig {
    /// The defaults of contract mutt §8.1.
    pub fn new(address: impl Into<String>, role_id: Secret) -> Self {
        Self {
            address: address.into(),
            role_id,
            secret_id_file: PathBuf::from("/etc/mutt/secrets/vault_secret_id"),
            token: None,
            mount: "secret".to_owned(),
            path: "secret/mutt".to_owned(),
            ca_file: None,
            namespace: None,
            renew_threshold: Duration::from_secs(3600),
            renew_check_interval: Duration::from_secs(300),
            refresh_interval: Duration::from_secs(30),
        }
    }

    /// Every mistake that trying again cannot mend, by variable. No text of a value is repeated: an
    /// address may hold a password by mistake.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut add = |path: &str, message: String| problems.push(Problem { path: path.to_owned(), message });
        if let Err(message) = self.base_url() {
            add("VAULT_ADDR", message.to_owned());
        }
        if self.role_id.is_empty() && self.token.as_ref().is_none_or(Secret::is_empty) {
            add(
                "VAULT_ROLE_ID",
                "is not set (and VAULT_TOKEN is not set either): there is no way to log in".to_owned(),
            );
        }
        if self.token.as_ref().is_some_and(|t| HeaderValue::from_str(t.expose()).is_err()) {
            add("VAULT_TOKEN", "holds characters that no token has".to_owned());
        }
        for (variable, text) in [("VAULT_MOUNT_PATH", &self.mount), ("VAULT_SECRETS_PATH", &self.path)] {
            if let Some(message) = KvPath::problem(text) {
                add(variable, message.to_owned());
            }
        }
        if self.namespace.as_deref().is_some_and(|n| HeaderValue::from_str(n).is_err()) {
            add("VAULT_NAMESPACE", "holds characters that no namespace has".to_owned());
        }
        for (variable, value) in [
            ("VAULT_RENEW_CHECK_INTERVAL", self.renew_check_interval),
            ("VAULT_REFRESH_INTERVAL", self.refresh_interval),
        ] {
            if value.is_zero() {
                add(variable, "must be longer than 0".to_owned());
            }
        }
        problems
    }

    /// The address as a URL without anything after its path.
    pub(super) fn base_url(&self) -> Result<Url, &'static str> {
        let text = self.address.trim();
        if text.is_empty() {
            return Err("is not set");
        }
        let url = Url::parse(text).map_err(|_| "is not a URL: write https://host:8200")?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err("must start with https:// (or http:// for this machine)");
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err("names no host");
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            return Err("must hold neither user, password, query nor fragment");
        }
        Ok(url)
    }

    /// Whether tokens and secrets would cross a network unencrypted.
    pub(super) fn is_plain_over_network(&self) -> bool {
        self.base_url().is_ok_and(|url| {
            let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
            let address: Option<std::net::IpAddr> = host.parse().ok();
            let local = host == "localhost" || address.is_some_and(|a| a.is_loopback());
            url.scheme() == "http" && !local
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl Fn(&mut VaultConfig)) -> Vec<String> {
        let mut config = VaultConfig::new("https://vault.example.com:8200", Secret::new("role"));
        change(&mut config);
        config.problems().into_iter().map(|p| p.path).collect()
    }

    #[test]
    fn mistakes_are_all_named_by_their_variable() {
        assert_eq!(with(|_| ()), Vec::<String>::new());
        assert_eq!(with(|c| c.role_id = Secret::new("")), ["VAULT_ROLE_ID"]);
        let token = with(|c| (c.role_id, c.token) = (Secret::new(""), Some(Secret::new("t"))));
        assert_eq!(token, Vec::<String>::new(), "a token will do");
        let all = with(|c| {
            c.address = "vault:8200".into();
            c.role_id = Secret::new("");
            c.token = Some(Secret::new("a\nb"));
            c.mount = "/".into();
            c.path = "a/../b".into();
            c.namespace = Some("x\ny".into());
            c.refresh_interval = Duration::ZERO;
            c.renew_check_interval = Duration::ZERO;
        });
        assert_eq!(
            all,
            [
                "VAULT_ADDR",
                "VAULT_TOKEN",
                "VAULT_MOUNT_PATH",
                "VAULT_SECRETS_PATH",
                "VAULT_NAMESPACE",
                "VAULT_RENEW_CHECK_INTERVAL",
                "VAULT_REFRESH_INTERVAL"
            ]
        );
    }

    #[test]
    fn addresses_are_urls_of_a_host_and_are_not_repeated() {
        for (address, good) in [
            ("https://vault.example.com:8200", true),
            ("https://vault.example.com/prefix/", true),
            ("http://127.0.0.1:8200", true),
            ("", false),
            ("vault.example.com", false),
            ("ftp://vault.example.com", false),
            ("https://user:hunter2@vault.example.com", false),
            ("https://vault.example.com?token=hunter2", false),
            ("https://", false),
        ] {
            let config = VaultConfig::new(address, Secret::new("r"));
            let problems = config.problems();
            assert_eq!(problems.is_empty(), good, "{address}: {problems:?}");
            assert!(problems.iter().all(|p| !p.message.contains("hunter2")), "{problems:?}");
        }
    }

    #[test]
    fn only_plain_http_to_another_machine_is_worth_a_warning() {
        for (address, warns) in [
            ("https://vault.example.com", false),
            ("http://vault.example.com", true),
            ("http://10.0.0.1:8200", true),
            ("http://127.0.0.1:8200", false),
            ("http://[::1]:8200", false),
            ("http://localhost:8200", false),
        ] {
            assert_eq!(VaultConfig::new(address, Secret::new("r")).is_plain_over_network(), warns, "{address}");
        }
    }
}
