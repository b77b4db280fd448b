//! Real servers, started privately: a free port of 127.0.0.1, a temporary folder, ended with the
//! test. `make test` installs their programs; a missing one is a panic that names it.

mod aiosmtpd;
mod certs;
mod chromium;
mod clickhouse;
mod daemon;
pub mod openbao;
mod postgres;
mod prometheus;
mod redis;
mod rsyslog;
mod sentinel;
mod snmptrapd;

pub use aiosmtpd::Aiosmtpd;
pub use certs::TestCerts;
pub use chromium::{Chromium, axe};
pub use clickhouse::ClickHouse;
pub use daemon::Daemon;
pub use openbao::{AppRole, OpenBao, OpenBaoOptions};
pub use postgres::{PostgresOptions, PostgresServer};
pub use prometheus::PrometheusServer;
pub use redis::{RedisOptions, RedisServer};
pub use rsyslog::Rsyslog;
pub use sentinel::{RedisGroup, SENTINEL_MASTER};
pub use snmptrapd::Snmptrapd;
