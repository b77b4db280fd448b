//! The fleet: who the agents are, whether they are there, and what is to be known about them.
//!
//! It is the [`Desk`](connectors::inputs::grpc::Desk) of the gateway. Always true here:
//! * What the gateway asks for every message is answered from memory; a catalog that is away keeps nobody out who is
//!   known, and lets nobody in who is not.
//! * A token or certificate that does not count any more is refused within seconds, on open connections too.
//! * Two hosts that show one certificate (copies of a machine) never send under the same numbers for long: the second
//!   to be noticed takes another name for its spool, and an event says so.
//! * That an agent is silent, back, new, replaced or copied is an event of its organisation, told once.

mod desk;
mod events;
mod registry;
mod watch;

pub use watch::DEMO_TOKEN;

#[cfg(test)]
mod tests;

use crate::metrics::Metrics;
use connectors::inputs::Sink;
use connectors::inputs::grpc::Refusal;
use model::{OrgId, Timestamp};
use registry::Registry;
use runtime::Clock;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;
use storage::StorageError;
use storage::catalog::fleet::{Fingerprint, FleetStore};

/// A certificate that was made for an agent.
#[derive(Debug, Clone)]
pub struct Issued {
    pub chain_der: Vec<Vec<u8>>,
    /// Whom the agent is to believe.
    pub bundle_der: Vec<Vec<u8>>,
    pub ends_at: Timestamp,
    pub renew_at: Timestamp,
}

/// The authority that certifies agents.
pub trait Issuer: Send + Sync + 'static {
    /// How long a certificate made now would count.
    fn life(&self) -> Duration;
    /// SHA-256 of the key in a request, if the request proves that whoever made it has the key.
    fn key_of(&self, request_der: &[u8]) -> Option<Fingerprint>;
    /// A certificate for that key, which names the agent.
    fn certify(&self, request_der: &[u8], org: &OrgId, agent: &str) -> Option<Issued>;
    /// Whom a certificate of ours names, and the SHA-256 of its key.
    fn agent_of(&self, certificate_der: &[u8]) -> Option<(OrgId, String, Fingerprint)>;
}

/// How the fleet is run.
#[derive(Debug, Clone, Copy)]
pub struct FleetConfig {
    /// How often agents say that they are alive.
    pub heartbeat: Duration,
    /// After so long without a word, an agent is silent.
    pub silence: Duration,
    /// The organisation `demo` and its published token are let in.
    pub demo: bool,
}

impl Default for FleetConfig {
    fn default() -> Self {
        Self { heartbeat: Duration::from_secs(30), silence: Duration::from_secs(75), demo: false }
    }
}

/// All agents. Cheap to clone.
#[derive(Clone)]
pub struct Fleet(Arc<Inner>);

struct Inner {
    config: FleetConfig,
    /// Empty until the catalog was reached for the first time.
    store: OnceLock<Arc<dyn FleetStore>>,
    issuer: Arc<dyn Issuer>,
    sink: Arc<dyn Sink>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    registry: Mutex<Registry>,
    /// Agents (or logins by token) that must not speak.
    barred: RwLock<HashSet<(OrgId, Arc<str>)>>,
}

impl Fleet {
    /// A fleet that knows nobody until [`Self::use_store`].
    pub fn new(
        config: FleetConfig,
        issuer: Arc<dyn Issuer>,
        sink: Arc<dyn Sink>,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self(Arc::new(Inner {
            config,
            store: OnceLock::new(),
            issuer,
            sink,
            metrics,
            clock,
            registry: Mutex::default(),
            barred: RwLock::default(),
        }))
    }

    /// Where tokens and agents are kept; only the first call counts.
    pub fn use_store(&self, store: Arc<dyn FleetStore>) {
        let _ = self.0.store.set(store);
    }

    /// Sessions that are open here.
    pub fn sessions(&self) -> usize {
        self.0.registry().sessions()
    }
}

impl Inner {
    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self) -> Result<&Arc<dyn FleetStore>, Refusal> {
        self.store.get().ok_or(AWAY)
    }

    fn is_barred(&self, org: &OrgId, agent: &Arc<str>) -> bool {
        let barred = self.barred.read().unwrap_or_else(PoisonError::into_inner);
        !barred.is_empty() && barred.contains(&(org.clone(), Arc::clone(agent)))
    }

    fn bar(&self, org: &OrgId, agent: &str) {
        self.barred.write().unwrap_or_else(PoisonError::into_inner).insert((org.clone(), agent.into()));
    }
}

/// The catalog cannot be asked.
const AWAY: Refusal =
    Refusal::Later { after: Duration::from_secs(10), reason: "the control plane cannot look you up now" };

fn away(error: &StorageError) -> Refusal {
    tracing::warn!(%error, "the catalog could not be asked about an agent");
    AWAY
}
