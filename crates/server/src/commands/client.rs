//! How commands reach the queues and stores: through the API of the running server, or, when none
//! runs, through the same API over the opened stores. So both always answer alike.

use super::Global;
use crate::app::{self, RUNNING_FILE};
use crate::config::Config;
use crate::keys;
use anyhow::{Context, Result, anyhow, bail};
use axum::body::Body;
use axum::http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tower::ServiceExt;

/// Reaches the API.
pub enum Client {
    Running { http: reqwest::Client, base: String, key: String },
    Offline { router: axum::Router, key: String },
}

const ANSWER_MAX: usize = 256 << 20;

impl Client {
    /// Finds the server of the configured data directory, or opens its stores.
    pub async fn open(global: &Global) -> Result<Self> {
        let config = match global.load(None) {
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
        match running(&config) {
            Some((pid, Some(Place { address, cert }))) => {
                let key = web_key(&config).await?;
                let (http, scheme) = match cert {
                    Some(cert) => (own_https_client(&cert, Duration::from_secs(60))?, "https"),
                    None => (http_client(Duration::from_secs(60))?, "http"),
                };
                let base = format!("{scheme}://{address}");
                tracing::debug!(pid, base, "asking the running server");
                Ok(Self::Running { http, base, key: key.preferred().expose().to_owned() })
            }
            Some((pid, None)) => {
                bail!("the server (process {pid}) runs without the webui role, which answers this command")
            }
            None => {
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

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let bytes = body.map(Value::to_string);
        let (status, text) = match self {
            Self::Running { http, base, key } => {
                let mut request = http.request(method, format!("{base}{path}")).header("x-api-key", key);
                request = request.header("x-user", "muttd-cli");
                if let Some(bytes) = bytes {
                    request = request.header("content-type", "application/json").body(bytes);
                }
                let response = request.send().await.with_context(|| format!("the server at {base} does not answer"))?;
                (response.status().as_u16(), response.text().await.context("the server's answer broke off")?)
            }
            Self::Offline { router, key } => {
                let mut request =
                    Request::builder().method(method).uri(path).header("x-api-key", key).header("x-user", "muttd-cli");
                if bytes.is_some() {
                    request = request.header("content-type", "application/json");
                }
                let request = request.body(Body::from(bytes.unwrap_or_default()))?;
                let response = router.clone().oneshot(request).await.map_err(|never| match never {})?;
                let status = response.status().as_u16();
                let body = http_body_util::Limited::new(response.into_body(), ANSWER_MAX)
                    .collect()
                    .await
                    .map_err(|e| anyhow!("reading the answer: {e}"))?;
                (status, String::from_utf8_lossy(&body.to_bytes()).into_owned())
            }
        };
        let value: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        if status >= 400 {
            let said = value.get("error").or_else(|| value.get("message")).and_then(Value::as_str);
            bail!("{}", said.map_or_else(|| format!("the server answered {status}"), str::to_owned));
        }
        Ok(value)
    }
}

/// A client for a server of this machine that speaks TLS with this certificate.
fn own_https_client(cert: &Path, timeout: Duration) -> Result<reqwest::Client> {
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

/// The key of the Web API: what configuration or Vault give, or the file.
async fn web_key(config: &Config) -> Result<keys::Key> {
    let given = app::secrets_for_command(config).await?.watch("WEBUI_API_KEY").into();
    keys::obtain(&config.data_dir, "webui_api_key", given, "mwk_")
}

/// The process that serves this data directory, and where its API answers.
pub fn running(config: &Config) -> Option<(u64, Option<Place>)> {
    let text = std::fs::read_to_string(config.data_dir.join(RUNNING_FILE)).ok()?;
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
    Some((pid, address.map(|address| Place { address, cert })))
}
