//! The socket: bound first, so that problems show at start-up and the port is known, run later.

use super::engine::Identity;
use super::event::Encoder;
use super::message::Reception;
use super::names::Names;
use super::receive::{self, Receiving};
use super::users::Users;
use super::usm::Usm;
use super::{BindError, SnmpConfig};
use crate::inputs::Sink;
use crate::inputs::datagrams::udp_socket;
use crate::inputs::deliver::Shared;
use runtime::{Clock, Stop};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

/// A sink that has not answered this long after the stop is given up.
const STOP_MAX: Duration = Duration::from_secs(10);

/// A bound listener, not yet read.
#[derive(Debug)]
pub struct Snmp {
    config: SnmpConfig,
    socket: UdpSocket,
    /// For answers; the same socket, so that they come from the port that was asked.
    answers: UdpSocket,
    reception: Reception,
    address: SocketAddr,
}

/// Reads what the configuration names, opens the socket, and counts this start in the engine's
/// file.
pub fn bind(config: SnmpConfig) -> Result<Snmp, BindError> {
    if config.communities.iter().any(runtime::Secret::is_empty) {
        return Err(BindError::EmptyCommunity);
    }
    if let Some((address, _)) = config.hostnames.iter().find(|(_, name)| name.trim().is_empty()) {
        return Err(BindError::EmptyHostname { address: *address });
    }
    if let Some(id) = &config.engine_id
        && !super::engine::ID_OCTETS.contains(&id.len())
    {
        return Err(BindError::EngineId { octets: id.len() });
    }
    let names = match &config.oid_names {
        Some(file) => Names::with_file(file)?,
        None => Names::default(),
    };
    let failed = |source| BindError::Listen { address: config.udp, source };
    let socket = udp_socket(config.udp, config.receive_buffer_bytes).map_err(failed)?;
    let address = socket.local_addr().map_err(failed)?;
    let answers = socket.try_clone().map_err(failed)?;
    let usm = if config.users.is_empty() {
        None
    } else {
        let identity = Identity::next(config.engine_file.as_deref(), config.engine_id.as_deref())?;
        let users = Users::new(&config.users, &identity.id)?;
        let mut salt = [0; 8];
        getrandom::fill(&mut salt).map_err(BindError::Random)?;
        Some(Usm::new(identity, users, u64::from_be_bytes(salt)))
    };
    let encoder =
        Encoder { names, hostnames: config.hostnames.clone(), trust_agent_address: config.trust_agent_address };
    let reception = Reception { communities: config.communities.clone(), usm, encoder };
    Ok(Snmp { config, socket, answers, reception, address })
}

impl Snmp {
    /// Where the listener really is; with port 0 the kernel chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Our engine's id as hex digits; `None` when no SNMPv3 user is configured.
    pub fn engine_id(&self) -> Option<String> {
        self.reception.usm.as_ref().map(|usm| super::engine::hex(usm.engine_id()))
    }

    /// Takes notifications until the stop is requested. Returns when everything that was read is
    /// accepted by the sink or counted as rejected or lost, at the latest ten seconds after the
    /// stop.
    pub async fn run(self, sink: Arc<dyn Sink>, clock: Arc<dyn Clock>, stop: Stop) {
        let shared = Arc::new(Shared::new(sink, clock, stop.clone(), self.config.org.clone(), self.config.durability));
        let receiving = Receiving {
            reception: self.reception,
            answers: Arc::new(self.answers),
            max_message_bytes: self.config.max_message_bytes,
        };
        let serving = receive::serve(self.socket, self.config.receive_buffer_bytes, receiving, shared);
        tokio::pin!(serving);
        tokio::select! {
            () = &mut serving => return,
            () = stop.requested() => {}
        }
        if tokio::time::timeout(STOP_MAX, serving).await.is_err() {
            tracing::error!("gave up SNMP notifications that the queue neither took nor refused");
        }
    }
}
