//! Whose key is it? The configured keys, and those of the users in the catalog.
//!
//! The users' keys are held in memory and read again at most once a second, so that a request costs no
//! query and a revoked key ends within two seconds everywhere, and at once in the process that revoked
//! it. What is compared is the SHA-256 of a key, which tells whoever measures the time nothing.

use super::error::{ApiError, ApiResult};
use model::{OrgId, Timestamp};
use runtime::KeyRing;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use storage::catalog::Catalog;
use storage::catalog::users::{Fingerprint, KeyId, KeyLogin, Role};
use tokio::time::Instant;

/// How old what is known of the users' keys may be.
const FRESH: Duration = Duration::from_secs(1);
/// How long keys count on while the catalog cannot be asked.
const KEPT: Duration = Duration::from_secs(60);
/// How often it is written down when keys were used.
const USE_WRITTEN_EVERY: Duration = Duration::from_secs(60);
const CATALOG_TIMEOUT: Duration = Duration::from_secs(5);

/// Whose key it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `None`: a configured key, which says nothing about who calls.
    pub user: Option<String>,
    /// Whose user it is; a configured key is the default organisation's.
    pub org: OrgId,
    pub role: Role,
    pub fingerprint: Fingerprint,
}

/// The keys.
pub struct Keyring {
    catalog: Arc<dyn Catalog>,
    /// The default one.
    org: OrgId,
    configured: KeyRing,
    known: Mutex<Arc<Known>>,
    /// Held while the catalog is asked, so that one question serves all who wait.
    asking: tokio::sync::Mutex<()>,
    used: Mutex<Used>,
    /// Changes that this process made.
    changes: AtomicU64,
}

#[derive(Default)]
struct Known {
    logins: HashMap<Fingerprint, KeyLogin>,
    read: Option<Instant>,
    /// [`Keyring::changes`] when reading began: what came later may not be in it.
    changes: u64,
    /// When the last try to read them failed.
    failed: Option<Instant>,
}

struct Used {
    at: HashMap<KeyId, Timestamp>,
    written: Instant,
}

impl Keyring {
    pub fn new(catalog: Arc<dyn Catalog>, org: OrgId, configured: KeyRing) -> Self {
        let used = Mutex::new(Used { at: HashMap::new(), written: Instant::now() });
        Self {
            catalog,
            org,
            configured,
            known: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
            used,
            changes: AtomicU64::new(0),
        }
    }

    /// Whose key has this fingerprint; `Ok(None)`: nobody's. `Err` when nobody can say.
    pub async fn of_fingerprint(&self, fingerprint: Fingerprint, now: Timestamp) -> ApiResult<Option<Identity>> {
        if self.configured.has_fingerprint(&fingerprint) {
            return Ok(Some(Identity { user: None, org: self.org.clone(), role: Role::Admin, fingerprint }));
        }
        let known = self.fresh().await?;
        let Some(login) = known.logins.get(&fingerprint) else { return Ok(None) };
        if login.expires_at.is_some_and(|end| end <= now) {
            return Ok(None);
        }
        self.used.lock().unwrap_or_else(PoisonError::into_inner).at.insert(login.key, now);
        Ok(Some(Identity { user: Some(login.user.clone()), org: login.org.clone(), role: login.role, fingerprint }))
    }

    /// Something was changed by this process: the next question reads the catalog.
    pub fn changed(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// Writes down when keys were used. What cannot be written now is dropped: it is no audit.
    pub async fn write_uses(&self) {
        let uses: Vec<(KeyId, Timestamp)> = {
            let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
            used.written = Instant::now();
            used.at.drain().collect()
        };
        if uses.is_empty() {
            return;
        }
        match tokio::time::timeout(CATALOG_TIMEOUT, self.catalog.keys_used(&uses)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "it could not be written down when keys were used"),
            Err(_) => tracing::warn!("it could not be written down in time when keys were used"),
        }
    }

    fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn fresh(&self) -> ApiResult<Arc<Known>> {
        let is_fresh = |known: &Known| {
            known.changes == self.changes.load(Ordering::Acquire) && known.read.is_some_and(|at| at.elapsed() < FRESH)
        };
        let known = self.known();
        if is_fresh(&known) {
            return Ok(known);
        }
        let _one = self.asking.lock().await;
        let known = self.known();
        if is_fresh(&known) {
            return Ok(known);
        }
        if known.failed.is_some_and(|at| at.elapsed() < FRESH) {
            return usable(known);
        }
        let changes = self.changes.load(Ordering::Acquire);
        let failure = match tokio::time::timeout(CATALOG_TIMEOUT, self.catalog.key_logins()).await {
            Ok(Ok(all)) => {
                let logins = all.into_iter().map(|l| (l.fingerprint, l)).collect();
                self.set(Known { logins, read: Some(Instant::now()), changes, failed: None });
                None
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("no answer in time".to_owned()),
        };
        if let Some(error) = failure {
            tracing::warn!(error, "the users' keys cannot be read; those known count for a minute");
            let (logins, read, changes) = (known.logins.clone(), known.read, known.changes);
            self.set(Known { logins, read, changes, failed: Some(Instant::now()) });
        }
        let due = {
            let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
            !used.at.is_empty() && used.written.elapsed() >= USE_WRITTEN_EVERY
        };
        if due {
            self.write_uses().await;
        }
        usable(self.known())
    }

    fn set(&self, known: Known) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(known);
    }
}

/// Old keys count for a while when the catalog is away; then nobody can say whose a key is.
fn usable(known: Arc<Known>) -> ApiResult<Arc<Known>> {
    match known.read {
        Some(at) if at.elapsed() < KEPT => Ok(known),
        _ => Err(ApiError::unavailable("the users' keys cannot be read now; try again later")),
    }
}
