//! The host agent, as a library for its binary and its tests: settings, collectors, the spool, the connection.
//!
//! What it decides is in `agent-core`; what its messages are in `wire`. Here is what touches the machine.

pub mod collectors;
pub mod host;
pub mod link;
pub mod run;
pub mod settings;
pub mod spool;
