//! Real servers, started privately: a free port of 127.0.0.1, a temporary folder, ended with the
//! test. `make test` installs their programs; a missing one is a panic that names it.

mod certs;
mod daemon;
mod redis;
mod rsyslog;
mod snmptrapd;

pub use certs::TestCerts;
pub use daemon::Daemon;
pub use redis::{RedisOptions, RedisServer};
pub use rsyslog::Rsyslog;
pub use snmptrapd::Snmptrapd;
