//! Syslog from devices and relays: UDP (RFC 5426), TCP (RFC 6587), TLS (RFC 5425).
//!
//! Always true here:
//! * Any bytes are an event. What `parse` does not understand stays in the message; nothing is
//!   refused for its syntax.
//! * What comes in is accepted by the sink, or counted: as rejected with its reason, or as lost in
//!   the kernel. TCP and TLS wait for a sink that refuses; UDP cannot.
//! * `parse` and `frame` are pure; `udp` and `tcp` own sockets; `inputs/deliver.rs` talks to the sink.

mod batch;
mod calendar;
mod encode;
pub mod frame;
mod legacy;
mod listen;
pub mod parse;
mod rfc5424;
mod tcp;
mod time;
mod tokens;
mod udp;

pub use listen::{Addresses, Syslog, bind};

use model::{Durability, OrgId};
use runtime::tls::{MinimumTls, TlsError};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// What to listen on and within which bounds. Listeners that are `None` stay closed.
#[derive(Debug, Clone)]
pub struct SyslogConfig {
    pub udp: Option<SocketAddr>,
    pub tcp: Option<SocketAddr>,
    pub tls: Option<TlsListen>,
    /// Longer messages are cut there, marked `truncated` and counted.
    pub max_message_bytes: usize,
    /// TCP and TLS together; further connections are closed at once and counted.
    pub max_connections: usize,
    /// A connection silent for longer is closed.
    pub idle_timeout: Duration,
    /// Asked of the kernel for the UDP socket (it gives at most `net.core.rmem_max`), and used
    /// once more for datagrams received and not yet parsed.
    pub receive_buffer_bytes: usize,
    /// IANA name; the zone of time stamps that carry none.
    pub timezone: String,
    pub durability: Durability,
    /// Syslog has no credentials: every event belongs to this organisation.
    pub org: OrgId,
}

impl Default for SyslogConfig {
    fn default() -> Self {
        Self {
            udp: None,
            tcp: None,
            tls: None,
            max_message_bytes: 64 << 10,
            max_connections: 1_000,
            idle_timeout: Duration::from_secs(600),
            receive_buffer_bytes: 16 << 20,
            timezone: "UTC".to_owned(),
            durability: Durability::default(),
            org: OrgId::default(),
        }
    }
}

/// Syslog over TLS (RFC 5425), usually port 6514.
#[derive(Debug, Clone)]
pub struct TlsListen {
    pub address: SocketAddr,
    pub cert: PathBuf,
    pub key: PathBuf,
    pub minimum: MinimumTls,
}

/// The listeners cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("cannot listen for syslog on {what} {address}{}", hint(source))]
    Listen {
        what: &'static str,
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("cannot use the syslog TLS certificate")]
    Tls(#[from] TlsError),
    #[error("`{name}` is no time zone of this machine; use an IANA name such as Europe/Berlin")]
    Timezone {
        name: String,
        #[source]
        source: jiff::Error,
    },
}

pub(super) fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => ": ports below 1024 need CAP_NET_BIND_SERVICE",
        io::ErrorKind::AddrInUse => ": another process has it",
        io::ErrorKind::AddrNotAvailable => ": no interface has this address",
        _ => "",
    }
}
