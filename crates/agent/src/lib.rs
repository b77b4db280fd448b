//! The host agent, as a library for its binary and its tests: settings, collectors, the spool, the connection.
//!
//! What it decides is in `agent-core`; what its messages are in `wire`. Here is what touches the machine.

pub mod collectors;
pub mod doctor;
pub mod host;
pub mod link;
pub mod report;
pub mod run;
pub mod settings;
pub mod spool;
pub mod validity;

/// Threads at most that wait for disks, files and resolvers, on any machine. Beside them there are the first, which
/// does what is ready to be done, and one for each collector that reads files.
pub const BLOCKING_MAX: usize = 8;
