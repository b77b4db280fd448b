//! SNMP notifications from devices: SNMPv1 traps, SNMPv2c and SNMPv3 traps and informs, over UDP.
//!
//! Always true here:
//! * Nothing is believed by default: no community, no user, no agent address.
//! * An inform is answered after its event is kept, and not at all while the sink refuses it.
//! * What comes in is accepted by the sink, or counted: as rejected with its reason, or as lost in
//!   the kernel. No community and no passphrase gets into an event, a sample or a log.
//! * `ber`, `pdu`, `crypto`, `users`, `usm`, `message`, `event`, `names` and `recent` are pure (a
//!   name file is read at the start); `engine` owns a file, `listen` and `receive` the socket.

mod ber;
mod crypto;
mod engine;
mod event;
mod listen;
mod message;
mod names;
mod pdu;
mod receive;
mod recent;
mod users;
mod usm;

pub use crypto::{AuthProtocol, PrivProtocol};
pub use engine::unhex;
pub use listen::{Snmp, bind};
pub use names::NamesError;

use model::{Durability, OrgId};
use runtime::Secret;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// What to listen on, whom to believe, and within which bounds.
#[derive(Debug, Clone)]
pub struct SnmpConfig {
    /// Usually port 162. `[::]` takes IPv4 too.
    pub udp: SocketAddr,
    /// Communities of SNMPv1 and SNMPv2c; without any, neither is taken. Every one of them, `public`
    /// too, has to be named.
    pub communities: Vec<Secret>,
    /// Users of SNMPv3; without any, it is not spoken.
    pub users: Vec<SnmpUser>,
    /// Where our engine's id and boots are kept; used when there are users. With `None`, every
    /// start is a new engine, and devices that send informs have to discover it again.
    pub engine_file: Option<PathBuf>,
    /// Our engine's id (5 to 32 octets) instead of the one in the file, or a random one.
    pub engine_id: Option<Vec<u8>>,
    /// The agent-addr of an SNMPv1 trap, or snmpTrapAddress.0 of others, names the device rather
    /// than the datagram's sender does. Only where all senders are known to be honest relays.
    pub trust_agent_address: bool,
    /// Host names of addresses. DNS is never asked.
    pub hostnames: HashMap<IpAddr, String>,
    /// A file of lines `OID NAME [SEVERITY]`.
    pub oid_names: Option<PathBuf>,
    /// Longer datagrams are refused and counted.
    pub max_message_bytes: usize,
    /// Asked of the kernel for the socket (it gives at most `net.core.rmem_max`), and used once
    /// more for datagrams received and not yet parsed.
    pub receive_buffer_bytes: usize,
    pub durability: Durability,
    /// Every event belongs to this organisation.
    pub org: OrgId,
}

impl Default for SnmpConfig {
    fn default() -> Self {
        Self {
            udp: SocketAddr::from((Ipv4Addr::LOCALHOST, 162)),
            communities: Vec::new(),
            users: Vec::new(),
            engine_file: None,
            engine_id: None,
            trust_agent_address: false,
            hostnames: HashMap::new(),
            oid_names: None,
            max_message_bytes: 64 << 10,
            receive_buffer_bytes: 16 << 20,
            durability: Durability::default(),
            org: OrgId::default(),
        }
    }
}

/// A user of SNMPv3. What is configured is what is asked for: a user with both passphrases is
/// believed only when the message is authentic and encrypted.
#[derive(Debug, Clone)]
pub struct SnmpUser {
    /// 1 to 32 bytes.
    pub name: String,
    /// Only from this engine; `None`: from every one.
    pub engine_id: Option<Vec<u8>>,
    /// With its passphrase of at least 8 bytes.
    pub auth: Option<(AuthProtocol, Secret)>,
    /// With its passphrase of at least 8 bytes; needs `auth`.
    pub privacy: Option<(PrivProtocol, Secret)>,
}

/// The listener cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("cannot listen for SNMP on UDP {address}{}", super::syslog::hint(source))]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("an SNMP community is empty")]
    EmptyCommunity,
    #[error("the host name of {address} is empty")]
    EmptyHostname { address: IpAddr },
    #[error("an SNMP engine id has 5 to 32 octets, not {octets}")]
    EngineId { octets: usize },
    #[error("SNMPv3 user `{user}`: {what}")]
    User { user: String, what: &'static str },
    #[error("cannot keep the SNMP engine's id and boots in {}", file.display())]
    EngineFile {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the system gives no random numbers")]
    Random(#[source] getrandom::Error),
    #[error(transparent)]
    Names(#[from] NamesError),
}
