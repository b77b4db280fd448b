//! What the gateway asks the control plane: who somebody is, what he may say, and what was heard of him.

use async_trait::async_trait;
use model::OrgId;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use wire::{
    AuthRequest, BatchAck, EnrollRequest, EnrollResponse, Hello, MitigateRequest, MitigateResponse, Status, Welcome,
};

/// Who speaks on a connection. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub org: OrgId,
    /// `agt_…`.
    pub agent: Arc<str>,
    /// The name that its events carry as `hostname`.
    pub host: Arc<str>,
    /// What else it may call itself: it is still `host`. Old agents send the end of their token.
    pub alias: Option<Arc<str>>,
    /// May speak for every host of its organisation, by that host's name (the demo token, relays).
    pub any_host: bool,
}

impl Identity {
    /// The name under which an event with this `host_id` is kept; `None`: it may not say that.
    pub fn host_of<'a>(&'a self, host_id: &'a str) -> Option<&'a str> {
        if host_id.is_empty() || host_id == &*self.host || self.alias.as_deref() == Some(host_id) {
            Some(&self.host)
        } else {
            self.any_host.then_some(host_id)
        }
    }

    /// Whether an event may name this organisation; none named is its own.
    pub fn is_of(&self, org_id: &str) -> bool {
        org_id.is_empty() || org_id == self.org.as_str()
    }
}

/// Why somebody is sent away.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Wrong, expired, used up or revoked credentials. The sentence is for the client and tells nothing
    /// that he does not know.
    #[error("{0}")]
    Credentials(&'static str),
    /// Too many attempts, or the control plane cannot tell now.
    #[error("{reason}; try again in {} s", after.as_secs())]
    Later {
        /// When to ask again.
        after: Duration,
        /// For the client.
        reason: &'static str,
    },
    /// What was asked cannot be done as it was asked.
    #[error("{0}")]
    Invalid(&'static str),
}

/// A login that succeeded.
#[derive(Debug, Clone)]
pub struct Login {
    pub identity: Identity,
    /// The fleet knows the host (it said its name and address).
    pub registered: bool,
}

/// The control plane, as the gateway sees it.
#[async_trait]
pub trait Desk: Send + Sync + 'static {
    /// `Authenticate`: a token that may be used without a certificate.
    async fn authenticate(&self, request: AuthRequest, peer: SocketAddr) -> Result<Login, Refusal>;

    /// `Enroll`: a token for a certificate.
    async fn enrol(&self, request: EnrollRequest, peer: SocketAddr) -> Result<EnrollResponse, Refusal>;

    /// `Renew`: the next certificate of an agent.
    async fn renew(&self, who: &Identity, csr_der: &[u8]) -> Result<EnrollResponse, Refusal>;

    /// Who shows this certificate. TLS has checked already that it is sound, in time, and signed by our authority.
    async fn identify(&self, certificate_der: &[u8]) -> Result<Identity, Refusal>;

    /// Whether `who` may still speak; asked for every message, so it answers from memory.
    fn check(&self, who: &Identity) -> Result<(), Refusal>;

    /// An agent greets: the fleet knows it to be there until the session is dropped.
    fn open(&self, who: &Identity, hello: &Hello, peer: SocketAddr) -> Box<dyn Session>;

    /// An agent without sessions was heard (its event came, or its connection is there).
    fn heard(&self, who: &Identity);

    /// Commands for the host of `who`, also those that were given before. One receiver at a time gets them:
    /// the newest.
    fn commands(&self, who: &Identity) -> mpsc::Receiver<MitigateRequest>;

    /// What became of a command.
    fn answered(&self, who: &Identity, response: MitigateResponse);
}

/// One greeted connection of an agent; dropping it says that it is gone.
pub trait Session: Send {
    /// The answer to the greeting. An `acked` beyond what the agent has makes it take another name for its
    /// spool: so copies of one host are told apart.
    fn welcome(&self) -> Welcome;
    /// A message of the session came; asked before anything is done with it. Includes [`Desk::check`].
    fn heard(&mut self) -> Result<(), Refusal>;
    /// Records up to here are durable, and may be acknowledged again when they come again.
    fn acked(&mut self, ack: BatchAck);
    /// How the agent is.
    fn status(&mut self, status: Status);
}
