//! Sockets: bound first (so that problems show at start-up and ports are known), run later.

use super::{BindError, SyslogConfig, tcp, udp};
use crate::inputs::Sink;
use crate::inputs::datagrams::udp_socket;
use crate::inputs::deliver::Shared;
use jiff::tz::TimeZone;
use runtime::{Clock, Stop};
use socket2::{Protocol, SockAddr, Type};
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// A sink that has not answered this long after the stop is given up.
const STOP_MAX: Duration = Duration::from_secs(10);
const BACKLOG: i32 = 1_024;

/// Bound listeners, not yet read.
#[derive(Debug)]
pub struct Syslog {
    config: SyslogConfig,
    timezone: TimeZone,
    udp: Option<UdpSocket>,
    tcp: Option<TcpListener>,
    tls: Option<(TcpListener, Arc<rustls::ServerConfig>)>,
    addresses: Addresses,
}

/// Where the listeners really are; with port 0 the kernel chose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Addresses {
    pub udp: Option<SocketAddr>,
    pub tcp: Option<SocketAddr>,
    pub tls: Option<SocketAddr>,
}

/// Opens every configured listener and reads certificate and key.
pub fn bind(config: SyslogConfig) -> Result<Syslog, BindError> {
    let timezone = match config.timezone.as_str() {
        "" | "UTC" => TimeZone::UTC,
        name => TimeZone::get(name).map_err(|source| BindError::Timezone { name: name.to_owned(), source })?,
    };
    let failed = |what, address| move |source| BindError::Listen { what, address, source };
    let mut addresses = Addresses::default();
    let mut udp = None;
    if let Some(address) = config.udp {
        let socket = udp_socket(address, config.receive_buffer_bytes).map_err(failed("UDP", address))?;
        addresses.udp = Some(socket.local_addr().map_err(failed("UDP", address))?);
        udp = Some(socket);
    }
    let mut tcp = None;
    if let Some(address) = config.tcp {
        let listener = tcp_listener(address).map_err(failed("TCP", address))?;
        addresses.tcp = Some(listener.local_addr().map_err(failed("TCP", address))?);
        tcp = Some(listener);
    }
    let mut tls = None;
    if let Some(listen) = &config.tls {
        let mut server =
            rustls::ServerConfig::clone(&*runtime::tls::server_config(&listen.cert, &listen.key, listen.minimum)?);
        // Senders that only write leave tickets unread in their socket. rsyslog looks there for our end
        // before it sends, and would see the tickets instead.
        server.send_tls13_tickets = 0;
        let server = Arc::new(server);
        let listener = tcp_listener(listen.address).map_err(failed("TLS", listen.address))?;
        addresses.tls = Some(listener.local_addr().map_err(failed("TLS", listen.address))?);
        tls = Some((listener, server));
    }
    Ok(Syslog { config, timezone, udp, tcp, tls, addresses })
}

impl Syslog {
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Takes messages until the stop is requested. Returns when everything that was read is
    /// accepted by the sink or counted as rejected or lost, at the latest ten seconds after the
    /// stop.
    pub async fn run(self, sink: Arc<dyn Sink>, clock: Arc<dyn Clock>, stop: Stop) {
        let (org, durability) = (self.config.org.clone(), self.config.durability);
        let shared = Arc::new(Shared::new(sink, clock, stop.clone(), org, durability));
        let limits = Arc::new(tcp::Limits {
            timezone: self.timezone.clone(),
            max_message_bytes: self.config.max_message_bytes,
            idle_timeout: self.config.idle_timeout,
            connections: Arc::new(Semaphore::new(self.config.max_connections.min(Semaphore::MAX_PERMITS))),
            growth: Arc::new(Semaphore::new(tcp::GROWTH_BYTES / 1_024)),
        });
        let mut listeners = JoinSet::new();
        if let Some(socket) = self.udp {
            let (max, buffer) = (self.config.max_message_bytes, self.config.receive_buffer_bytes);
            listeners.spawn(udp::serve(socket, max, buffer, self.timezone, Arc::clone(&shared)));
        }
        let plain = self.tcp.map(|listener| (listener, None));
        let secure = self.tls.map(|(listener, config)| (listener, Some(TlsAcceptor::from(config))));
        for (listener, acceptor) in plain.into_iter().chain(secure) {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => {
                    listeners.spawn(tcp::serve(listener, acceptor, Arc::clone(&limits), Arc::clone(&shared)));
                }
                Err(error) => tracing::error!(%error, "cannot listen for syslog connections"),
            }
        }
        let died = |ended: Result<(), tokio::task::JoinError>| match ended {
            Ok(()) => {}
            Err(error) => tracing::error!(%error, "a syslog listener died"),
        };
        loop {
            tokio::select! {
                () = stop.requested() => break,
                Some(ended) = listeners.join_next() => died(ended),
            }
        }
        let ended = tokio::time::timeout(STOP_MAX, async {
            while let Some(ended) = listeners.join_next().await {
                died(ended);
            }
        });
        if ended.await.is_err() {
            tracing::error!("gave up syslog events that the queue neither took nor refused");
        }
    }
}

fn tcp_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = crate::inputs::datagrams::socket(address, Type::STREAM, Protocol::TCP)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
