//! The authority of the gateway for agents: it certifies agents, and the gateway to agents.
//!
//! Always true here:
//! * One file (`authority.pem`, 0600) holds the root's key and certificate and, after a change of the root, the one
//!   before and the new root as the old one signed it. It is replaced as a whole, and who makes it first wins.
//! * A certificate of an agent says who it is in one URI and lets it be a client only; the gateway's lets it be a
//!   server only. What a request for a certificate wishes is passed over, but for its key, which it must have.
//! * While a root before is kept, whoever knows one of the two roots can prove and is believed.

mod certificates;
mod kept;

use anyhow::{Context, Result};
use certificates::{Names, Server};
use connectors::inputs::grpc::TlsSource;
use kept::Kept;
use model::{OrgId, Timestamp};
use pipeline::fleet::{Issued, Issuer};
use runtime::{Clock, Stop};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};
use storage::catalog::fleet::Fingerprint;

/// How often it is looked whether the file, or the gateway's own certificate files, are others.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The gateway's certificate is made again when it ends within this time.
const SERVER_AHEAD: Duration = Duration::from_secs(30 * 86_400);

/// Where the authority is, and whom it certifies.
#[derive(Debug, Clone)]
pub struct AuthorityConfig {
    /// Of its file; the same for all gateways of an installation.
    pub dir: PathBuf,
    /// Names and addresses by which agents find the gateway, besides those of this machine.
    pub names: Vec<String>,
    /// The gateway's own certificate and key, where it is not to be made here.
    pub server_files: Option<(PathBuf, PathBuf)>,
    /// How long an agent's certificate counts.
    pub agent_certificate: Duration,
}

/// The authority, open.
pub struct Authority {
    config: AuthorityConfig,
    clock: Arc<dyn Clock>,
    current: RwLock<Arc<Current>>,
    seen: Mutex<Vec<Stamp>>,
}

struct Current {
    kept: Kept,
    tls: Arc<rustls::ServerConfig>,
    server_ends_at: Option<Timestamp>,
}

/// What tells one version of a file from another.
type Stamp = Option<(SystemTime, u64)>;

impl Authority {
    /// Opens it, or makes it where there is none.
    pub fn open(config: AuthorityConfig, clock: Arc<dyn Clock>) -> Result<Self> {
        let kept = Kept::open_or_make(&config.dir, clock.now())?;
        let seen = Mutex::new(stamps(&config));
        let current = RwLock::new(Arc::new(Current::of(kept, &config, clock.now())?));
        Ok(Self { config, clock, current, seen })
    }

    /// Whether there is one in this folder.
    pub fn is_in(dir: &Path) -> bool {
        kept::file_in(dir).is_file()
    }

    /// What a token made now says behind its last point of the root that is in force: the first half of its fingerprint.
    /// `None`: the gateway shows a certificate of others, or there is no authority yet; none is made by this.
    pub fn token_suffix(config: &AuthorityConfig) -> Result<Option<String>> {
        if config.server_files.is_some() || !Self::is_in(&config.dir) {
            return Ok(None);
        }
        Ok(Some(fingerprint(&Kept::read(&config.dir)?.root)))
    }

    fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// All that tokens of now and of before the change of the root name, the root in force first.
    pub fn roots_pem(&self) -> String {
        let current = self.current();
        let previous = current.kept.previous.as_ref().map(|previous| &previous.root);
        std::iter::once(&current.kept.root).chain(previous).map(|der| kept::pem("CERTIFICATE", der)).collect()
    }

    /// Signs by the root's key: ECDSA over the SHA-256, as DER.
    pub fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        self.current().kept.sign(bytes)
    }

    /// A certificate for the key of a request; fails where the request does not prove that it has the key.
    pub fn certify(&self, request_der: &[u8], org: &OrgId, agent: &str) -> Result<Issued> {
        certificates::certify(
            &self.current().kept,
            request_der,
            (org, agent),
            self.clock.now(),
            self.config.agent_certificate,
        )
    }

    /// Makes another root. Agents that know the old one go on to be believed and believe the gateway, and get the new
    /// one at their next renewal.
    pub fn rotate(&self) -> Result<()> {
        let next = self.current().kept.rotated(self.clock.now())?;
        next.replace(&self.config.dir)?;
        self.reload()
    }

    /// Forgets the root before: what it signed is not believed from then on. `false`: there was none.
    pub fn retire(&self) -> Result<bool> {
        let current = self.current();
        if current.kept.previous.is_none() {
            return Ok(false);
        }
        current.kept.alone()?.replace(&self.config.dir)?;
        self.reload()?;
        Ok(true)
    }

    /// What people are told: fingerprint and end of each root, the one in force first.
    pub fn roots(&self) -> Result<Vec<(String, Timestamp)>> {
        let kept = &self.current().kept;
        std::iter::once(&kept.root)
            .chain(kept.previous.as_ref().map(|previous| &previous.root))
            .map(|der| Ok((fingerprint(der), certificates::ends_at(der)?)))
            .collect()
    }

    fn reload(&self) -> Result<()> {
        let next = Current::of(Kept::read(&self.config.dir)?, &self.config, self.clock.now())?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        Ok(())
    }

    /// Takes over what other processes made of the file, and certifies the gateway in time.
    pub async fn watch(self: Arc<Self>, stop: Stop) {
        while stop.sleep(LOOK_EVERY).await {
            let now = stamps(&self.config);
            let ends_soon = self.current().server_ends_at.is_some_and(|end| end < self.clock.now().plus(SERVER_AHEAD));
            if *self.seen.lock().unwrap_or_else(PoisonError::into_inner) == now && !ends_soon {
                continue;
            }
            *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = now;
            let authority = Arc::clone(&self);
            let read = tokio::task::spawn_blocking(move || authority.reload()).await;
            match read {
                Ok(Ok(())) => tracing::info!("the authority for agents was read again"),
                Ok(Err(error)) => {
                    let causes = format!("{error:#}");
                    tracing::error!(causes, "the authority for agents cannot be read again; the old state stays");
                }
                Err(_) => tracing::error!("the authority for agents could not be read again; the old state stays"),
            }
        }
    }
}

impl Issuer for Authority {
    fn life(&self) -> Duration {
        self.config.agent_certificate
    }

    fn key_of(&self, request_der: &[u8]) -> Option<Fingerprint> {
        certificates::key_of_request(request_der)
    }

    fn certify(&self, request_der: &[u8], org: &OrgId, agent: &str) -> Option<Issued> {
        Authority::certify(self, request_der, org, agent)
            .inspect_err(
                |error| tracing::error!(%org, agent, causes = format!("{error:#}"), "an agent could not be certified"),
            )
            .ok()
    }

    fn agent_of(&self, certificate_der: &[u8]) -> Option<(OrgId, String, Fingerprint)> {
        certificates::agent_of(certificate_der)
    }
}

impl TlsSource for Authority {
    fn current(&self) -> Arc<rustls::ServerConfig> {
        Arc::clone(&Authority::current(self).tls)
    }
}

impl Current {
    fn of(kept: Kept, config: &AuthorityConfig, now: Timestamp) -> Result<Self> {
        let server = match &config.server_files {
            Some((cert, key)) => Server::read(cert, key)?,
            None => certificates::certify_server(&kept, &Names::of(&config.names), now)?,
        };
        let server_ends_at = server.ends_at;
        let tls = server.config(&kept).context("the gateway's certificate and key cannot be used")?;
        Ok(Self { kept, tls, server_ends_at })
    }
}

fn fingerprint(der: &[u8]) -> String {
    runtime::trust::Fingerprint::of(der).to_string()
}

fn stamps(config: &AuthorityConfig) -> Vec<Stamp> {
    let file = kept::file_in(&config.dir);
    let mut files: Vec<&Path> = vec![&file];
    if let Some((cert, key)) = &config.server_files {
        files.extend([cert.as_path(), key.as_path()]);
    }
    let stamp = |path: &&Path| std::fs::metadata(path).ok().and_then(|m| Some((m.modified().ok()?, m.len())));
    files.iter().map(stamp).collect()
}

#[cfg(test)]
mod tests;
