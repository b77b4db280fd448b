//! Redis as the drivers of two families use it: where it is, how to log in, one shared connection.
//!
//! Works with Redis 6.0 and later: nothing newer is sent. One server or a group under Sentinel;
//! Redis Cluster is refused by its own answer, since a queue's scripts use several keys.

mod advice;
mod client;
mod connect;

pub use advice::advice as redis_advice;
pub(crate) use client::RedisClient;
pub(crate) use connect::explain;

use runtime::Credentials;
use std::path::PathBuf;
use std::time::Duration;

/// Where Redis is and how to reach it.
#[derive(Debug, Clone)]
pub struct RedisConfig {
    pub place: RedisPlace,
    /// Database index; Sentinel and server alike use 0 unless told otherwise.
    pub db: i64,
    /// Logins, tried in order; an empty list or empty passwords: none is sent.
    pub credentials: Credentials,
    /// `None`: no TLS.
    pub tls: Option<RedisTls>,
    /// Longest time to connect, TLS and log-in included.
    pub connect_timeout: Duration,
    /// Longest time to answer a command.
    pub answer_timeout: Duration,
}

/// Which servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisPlace {
    Server(RedisAddress),
    /// Ask these, in order, who the master of `master` is.
    Sentinel {
        nodes: Vec<RedisAddress>,
        master: String,
    },
}

/// A host name or address, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisAddress {
    pub host: String,
    pub port: u16,
}

/// TLS: the certificate and the host's name are always verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisTls {
    /// PEM bundle to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
}

impl RedisConfig {
    /// A server without TLS, with the default time-outs.
    pub fn server(host: impl Into<String>, port: u16, credentials: Credentials) -> Self {
        Self {
            place: RedisPlace::Server(RedisAddress { host: host.into(), port }),
            db: 0,
            credentials,
            tls: None,
            connect_timeout: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(5),
        }
    }
}

impl std::fmt::Display for RedisPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Server(address) => write!(f, "{address}"),
            Self::Sentinel { nodes, master } => {
                write!(f, "master {master} of Sentinel")?;
                nodes.iter().try_for_each(|node| write!(f, " {node}"))
            }
        }
    }
}

impl std::fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}
