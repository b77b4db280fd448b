//! The gateway of agents: `proto.AgentIngest` over HTTP/2, on one port with plain HTTPS downloads.
//!
//! Always true here:
//! * Who speaks is known by the certificate or login of his connection, never by what a message says. A message that
//!   speaks for another organisation or host is lost alone and counted; its neighbours are kept.
//! * A batch is acknowledged, and a stream of events answered, when everything of it is durable. What was received
//!   whole is stored even when its sender is gone already.
//! * Of every connection, stream, message and table the size is bounded, and waiting has an end, but for one wait: a
//!   stream of events is not read while the queue takes nothing.
//! * Every message asks [`Desk::check`], and who says nothing is asked about every few seconds: a revoked identity is
//!   heard no more.
//!
//! `status.rs` and `messages.rs` are gRPC, `gate.rs` keeps the end of a connection from overtaking what came before it,
//! `listen.rs` and `connection.rs` let connections in and hand their calls to `calls.rs`, `events.rs`, `commands.rs` and
//! `session.rs`. `records.rs` is pure: from what an agent sent to events.

mod calls;
mod commands;
mod connection;
mod desk;
mod events;
mod gate;
mod keep;
mod listen;
mod messages;
mod pages;
mod records;
mod session;
mod status;
mod throttle;
mod turns;

pub use desk::{Desk, Identity, Login, Refusal, Session};
pub use listen::{Gateway, bind};
pub use pages::{PageBody, Pages};

use model::Durability;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use wire::EventBounds;

/// Settings of the gateway.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// Where to listen; every address answers the same.
    pub addresses: Vec<SocketAddr>,
    /// Old agents without TLS are served too, on the same port. Their tokens can be read on the way.
    pub plaintext: bool,
    /// Open connections; more are closed. Bounded by what the process may open, see [`Gateway::connections_max`].
    pub connections_max: usize,
    /// Open connections of one address.
    pub connections_per_ip_max: usize,
    /// Bytes of one message.
    pub message_bytes_max: usize,
    /// Bytes of messages of over 64 KiB that are being received or stored, of all connections together; more wait.
    pub messages_bytes_max: usize,
    /// From the first byte to the end of the handshake.
    pub handshake_timeout: Duration,
    /// From the first byte of a message to its last, and from the begin of a call that is one message.
    pub message_timeout: Duration,
    /// A connection on which no call is open for so long is ended.
    pub idle_timeout: Duration,
    /// A connection is asked whether it lives this often, and has as long to answer.
    pub keepalive: Duration,
    /// How often it is asked whether the identity of an open stream is still good.
    pub check_every: Duration,
    /// For how long a batch of a session is offered to a queue that refuses it, before the agent is told to come later.
    pub hold: Duration,
    /// What streams get to end once a stop is asked for.
    pub grace: Duration,
    /// What is told to agents that have no session.
    pub heartbeat: Duration,
    pub durability: Durability,
    pub bounds: EventBounds,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            plaintext: false,
            connections_max: 110_000,
            connections_per_ip_max: 20_000,
            message_bytes_max: wire::MESSAGE_BYTES_MAX,
            messages_bytes_max: 256 << 20,
            handshake_timeout: Duration::from_secs(10),
            message_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
            keepalive: Duration::from_secs(25),
            check_every: Duration::from_secs(4),
            hold: Duration::from_secs(5),
            grace: Duration::from_secs(3),
            heartbeat: Duration::from_secs(30),
            durability: Durability::Strict,
            bounds: EventBounds::default(),
        }
    }
}

/// Certificates come and go while the gateway runs.
pub trait TlsSource: Send + Sync + 'static {
    /// For the next handshake; [`harden`] has been applied to it.
    fn current(&self) -> Arc<rustls::ServerConfig>;
}

/// What the gateway needs of a TLS configuration besides its certificates: the protocols it speaks, nothing before the
/// handshake's end, and no resumption, which would carry a certificate past its revocation.
pub fn harden(config: &mut rustls::ServerConfig) {
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.max_early_data_size = 0;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
}

/// Told what happens, for counters. Every method may be left out.
pub trait GatewayObserver: Send + Sync + 'static {
    /// Connections that are open: one more or one less.
    fn connections(&self, _change: i64) {}
    /// Sessions that are open.
    fn sessions(&self, _change: i64) {}
    /// A connection that came to nothing.
    fn turned_away(&self, _why: TurnedAway) {}
    /// A token was shown.
    fn login(&self, _accepted: bool) {}
    /// A batch is durable (or `repeated`: it was before).
    fn batch(&self, _records: u64, _bytes: u64, _repeated: bool) {}
}

impl GatewayObserver for () {}

/// Why a connection came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TurnedAway {
    /// Over [`GatewayConfig::connections_max`] or [`GatewayConfig::connections_per_ip_max`].
    TooMany,
    /// Not TLS, and plaintext is off.
    Plaintext,
    /// TLS was not agreed on: versions, certificates.
    Handshake,
    /// The handshake took too long.
    TooSlow,
    /// HTTP/2 was broken by the client.
    Protocol,
    /// It answered no ping.
    Dead,
}

impl TurnedAway {
    pub const ALL: [Self; 6] =
        [Self::TooMany, Self::Plaintext, Self::Handshake, Self::TooSlow, Self::Protocol, Self::Dead];

    /// The label of counters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooMany => "too_many",
            Self::Plaintext => "plaintext",
            Self::Handshake => "handshake",
            Self::TooSlow => "too_slow",
            Self::Protocol => "protocol",
            Self::Dead => "dead",
        }
    }
}
