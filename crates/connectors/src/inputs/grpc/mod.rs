//! Agents, old and new: `proto.AgentIngest` (contract security-manager §2).

mod desk;

pub use desk::{Desk, Identity, Login, Refusal, Session};

use std::sync::Arc;

/// Certificate and key of the gateway, and whom it believes: for the next handshake.
pub trait TlsSource: Send + Sync + 'static {
    /// Client certificates are asked for, and checked where they are shown.
    fn current(&self) -> Arc<rustls::ServerConfig>;
}
