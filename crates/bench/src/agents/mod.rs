//! Agents: what the gateway holds and takes, and what `sm-agent` costs on its host.

mod crowd;
mod host;

pub use crowd::{CROWDS, gateway};
pub use host::{CORES, RATES, host};
