//! How commands reach the queues and stores: through the API of the running server, or, when none
//! runs, through the same API over the opened stores. So both always answer alike. A command makes no
//! store and no key: what is not there is said.

use super::{Global, INSTALLED_ENV_FILE};
use crate::app::{self, RUNNING_FILE};
use crate::config::Config;
use crate::keys;
use anyhow::{Context, Result, anyhow, bail};
use axum::body::Body;
use axum::http::{Method, Request};
use http_body_util::BodyExt;
use runtime::{KeyRing, Secret};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use storage::catalog::CatalogConfig;
use storage::coordination::CoordinationConfig;
use storage::events::EventStoreConfig;
use storage::queue::QueueConfig;
use tower::ServiceExt;

/// Reaches the API.
pub enum Client {
    Running { http: reqwest::Client, base: String, key: Secret, key_from: String },
    Offline { router: axum::Router, key: String },
}

const ANSWER_MAX: usize = 256 << 20;

impl Client {
    /// Finds the server of the configured data directory, or opens its stores.
    pub async fn open(global: &Global) -> Result<Self> {
        let config = match global.load_installed() {
            Ok(loaded) => loaded.config,
            Err(problems) => {
                let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
                bail!("the configuration has problems:\n  {}", all.join("\n  "));
            }
        };
        if !config.data_dir.is_dir() {
            bail!(
                "there is no data directory `{}`: name the one of your server with --data-dir or MUTT_DATA_DIR",
                config.data_dir.display()
            );
        }
        match running_near(&config.data_dir) {
            Some(Running { pid, data_dir, place: Some(Place { address, cert }) }) => {
                let (key, key_from) = web_key(&config, &data_dir).await?;
                let (http, scheme) = match cert {
                    Some(cert) => (own_https_client(&cert, Duration::from_secs(60))?, "https"),
                    None => (http_client(Duration::from_secs(60))?, "http"),
                };
                let base = format!("{scheme}://{address}");
                tracing::debug!(pid, base, "asking the running server");
                Ok(Self::Running { http, base, key, key_from })
            }
            Some(Running { pid, place: None, .. }) => {
                bail!("the server (process {pid}) runs without the webui role, which answers this command")
            }
            None => {
                if let Some(missing) = missing_store(&config) {
                    bail!(
                        "no server runs on `{}` or a folder in it, and `{}` is not there to be looked into: name the \
                         data directory of your server with --data-dir, and its settings with --config and --env-file \
                         (where installed by script: --env-file {INSTALLED_ENV_FILE}), or start it",
                        config.data_dir.display(),
                        missing.display()
                    );
                }
                let (router, key) = app::offline_api(config).await?;
                Ok(Self::Offline { router, key })
            }
        }
    }

    pub async fn get(&self, path: &str) -> Result<Value> {
        let value = self.call(Method::GET, path, None).await?;
        Ok(value)
    }

    pub async fn send(&self, method: Method, path: &str, body: &Value) -> Result<Value> {
        let value = self.call(method, path, Some(body)).await?;
        Ok(value)
    }

    /// What is answered as it is, such as an archive.
    pub async fn fetch(&self, path: &str) -> Result<Vec<u8>> {
        let (status, bytes) = self.exchange(Method::GET, path, None).await?;
        if status >= 400 {
            bail!(refusal(status, &read(&bytes)));
        }
        Ok(bytes)
    }

    /// The same as `send`, where a refusal says more than one sentence: the status and what is said.
    pub async fn try_send(&self, method: Method, path: &str, content: Content) -> Result<(u16, Value)> {
        let (status, bytes) = self.exchange(method, path, Some(content)).await?;
        Ok((status, read(&bytes)))
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let content = body.map(Content::json);
        let (status, bytes) = self.exchange(method, path, content).await?;
        let value = read(&bytes);
        if status >= 400 {
            bail!(refusal(status, &value));
        }
        Ok(value)
    }

    async fn exchange(&self, method: Method, path: &str, content: Option<Content>) -> Result<(u16, Vec<u8>)> {
        match self {
            Self::Running { http, base, key, key_from } => {
                let mut request = http.request(method, format!("{base}{path}")).header("x-api-key", key.expose());
                request = request.header("x-user", "muttd-cli");
                if let Some(content) = content {
                    request = request.header("content-type", content.kind).body(content.bytes);
                }
                let response = request.send().await.with_context(|| format!("the server at {base} does not answer"))?;
                let status = response.status().as_u16();
                if status == 401 {
                    bail!(
                        "the server at {base} refuses the key of {key_from}. Give the one that the server has: \
                         WEBUI_API_KEY, or --env-file with its settings (where installed by script: \
                         {INSTALLED_ENV_FILE}). Twenty wrong keys in a minute lock this address out"
                    );
                }
                Ok((status, response.bytes().await.context("the server's answer broke off")?.into()))
            }
            Self::Offline { router, key } => {
                let mut request =
                    Request::builder().method(method).uri(path).header("x-api-key", key).header("x-user", "muttd-cli");
                if let Some(content) = &content {
                    request = request.header("content-type", content.kind);
                }
                let request = request.body(Body::from(content.map(|content| content.bytes).unwrap_or_default()))?;
                let response = router.clone().oneshot(request).await.map_err(|never| match never {})?;
                let status = response.status().as_u16();
                let body = http_body_util::Limited::new(response.into_body(), ANSWER_MAX)
                    .collect()
                    .await
                    .map_err(|e| anyhow!("reading the answer: {e}"))?;
                Ok((status, body.to_bytes().into()))
            }
        }
    }
}

/// A body of a request.
pub struct Content {
    pub kind: &'static str,
    pub bytes: Vec<u8>,
}

impl Content {
    pub fn json(value: &Value) -> Self {
        Self { kind: "application/json", bytes: value.to_string().into_bytes() }
    }
}

fn read(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(bytes).into_owned()))
}

/// What the server says, in a sentence.
pub fn refusal(status: u16, said: &Value) -> String {
    let text = said.get("error").or_else(|| said.get("message")).and_then(Value::as_str);
    text.map_or_else(|| format!("the server answered {status}"), str::to_owned)
}

/// A client for a server of this machine that speaks TLS with this certificate.
pub(super) fn own_https_client(cert: &Path, timeout: Duration) -> Result<reqwest::Client> {
    let tls = runtime::tls::client_of_own_server(cert)
        .with_context(|| format!("the server's certificate `{}` cannot be read", cert.display()))?;
    let client = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().timeout(timeout).build()?;
    Ok(client)
}

/// Where the API of a running server answers.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    pub address: SocketAddr,
    /// Its certificate file, where it speaks TLS.
    pub cert: Option<PathBuf>,
}

/// A client for plain HTTP on this machine, which still wants to know its TLS.
pub fn http_client(timeout: Duration) -> Result<reqwest::Client> {
    let tls = rustls::ClientConfig::builder_with_provider(runtime::tls::provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let client = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().timeout(timeout).build()?;
    Ok(client)
}

/// The key of the Web API and where it is from: what configuration or Vault give, or the server's file.
async fn web_key(config: &Config, data_dir: &Path) -> Result<(Secret, String)> {
    let given: KeyRing = app::secrets_for_command(config).await?.watch("WEBUI_API_KEY").into();
    if let Some(key) = given.keys().into_iter().next() {
        return Ok((key, "WEBUI_API_KEY (environment, --env-file, configuration or Vault)".to_owned()));
    }
    if let Some((key, file)) = keys::kept(data_dir, "webui_api_key")? {
        return Ok((key, format!("the file {}", file.display())));
    }
    bail!(
        "there is no key for the server's API: neither WEBUI_API_KEY nor `{}` is given. Where installed by script: \
         --env-file {INSTALLED_ENV_FILE}",
        data_dir.join("keys/webui_api_key").display()
    )
}

/// What a command would have to make before it could look into it.
fn missing_store(config: &Config) -> Option<PathBuf> {
    let mut needed = Vec::new();
    if let QueueConfig::Embedded { dir, .. } = &config.stores.queue {
        needed.push(dir);
    }
    if let CatalogConfig::Sqlite { file } = &config.stores.catalog {
        needed.push(file);
    }
    if let CoordinationConfig::Local { file } = &config.stores.coordination {
        needed.push(file);
    }
    let EventStoreConfig::Sqlite { dir, .. } = &config.stores.events;
    needed.push(dir);
    needed.into_iter().find(|path| !path.exists()).cloned()
}

/// A server of this host.
#[derive(Debug)]
pub struct Running {
    pub pid: u64,
    pub data_dir: PathBuf,
    /// `None` without the role that answers commands.
    pub place: Option<Place>,
}

/// The server of this data directory, or of a folder in it, as five services have theirs: the one that
/// answers commands before others.
pub fn running_near(dir: &Path) -> Option<Running> {
    let mut dirs = vec![dir.to_owned()];
    let inside = std::fs::read_dir(dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    dirs.extend(inside.filter(|path| path.join(RUNNING_FILE).is_file()));
    dirs[1..].sort();
    let mut found: Vec<Running> = dirs.iter().filter_map(|dir| running(dir)).collect();
    let best = found.iter().position(|server| server.place.is_some()).unwrap_or(0);
    (best < found.len()).then(|| found.swap_remove(best))
}

/// The process that serves exactly this data directory.
fn running(data_dir: &Path) -> Option<Running> {
    let text = std::fs::read_to_string(data_dir.join(RUNNING_FILE)).ok()?;
    let value: Value = serde_json::from_str(&text).ok()?;
    let pid = value.get("pid")?.as_u64()?;
    // A file left by a killed process names a pid that is gone, or somebody else's.
    let name = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    if !name.contains("muttd") {
        return None;
    }
    let mut address: Option<SocketAddr> = value.get("webui").and_then(Value::as_str).and_then(|a| a.parse().ok());
    if let Some(address) = address.as_mut().filter(|a| a.ip().is_unspecified()) {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let cert = value.get("webui_cert").and_then(Value::as_str).map(PathBuf::from);
    let place = address.map(|address| Place { address, cert });
    Some(Running { pid, data_dir: data_dir.to_owned(), place })
}
