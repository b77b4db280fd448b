//! Sockets: bound first (so that problems show at start-up and ports are known), run later; who is let in, and by what
//! he begins with.

use super::connection::{self, Hub, Line};
use super::messages::Budget;
use super::throttle::network;
use super::turns::Turns;
use super::{Desk, GatewayConfig, GatewayObserver, Pages, TlsSource, TurnedAway, pages};
use crate::inputs::Sink;
use bytes::Bytes;
use model::RejectReason;
use runtime::{Clock, Stop, Stopper};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;

const BACKLOG: i32 = 4_096;
/// What the rest of the process may open: files of the queue and the catalog, other listeners, deliveries.
const DESCRIPTORS_KEPT: u64 = 512;
/// Out of descriptors: connections that close free some soon.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The same complaint is logged once in this time.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);
/// The first byte of a TLS connection.
const TLS_HANDSHAKE: u8 = 0x16;
/// What tasks get beyond the grace and their last words.
const END_MAX: Duration = Duration::from_secs(1);

/// Bound, not yet accepting.
#[derive(Debug)]
pub struct Gateway {
    config: GatewayConfig,
    listeners: Vec<std::net::TcpListener>,
    addresses: Vec<SocketAddr>,
}

/// Binds every address.
pub fn bind(config: GatewayConfig) -> io::Result<Gateway> {
    let mut listeners = Vec::new();
    let mut addresses = Vec::new();
    for address in &config.addresses {
        let listener = listener(*address)
            .map_err(|error| io::Error::new(error.kind(), format!("cannot listen for agents on {address}: {error}")))?;
        addresses.push(listener.local_addr()?);
        listeners.push(listener);
    }
    Ok(Gateway { config, listeners, addresses })
}

fn listener(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

impl Gateway {
    /// Where it listens, in the order of the configuration; with port 0 the kernel chose.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The bound on open connections: as configured, or what the process may open less 512 for everything else.
    pub fn connections_max(&self) -> usize {
        let may_open = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
        let may_open = usize::try_from(may_open.saturating_sub(DESCRIPTORS_KEPT)).unwrap_or(usize::MAX);
        self.config.connections_max.min(may_open.max(1))
    }

    /// Serves agents until the stop is requested, and ends within the grace and two seconds.
    #[expect(clippy::too_many_arguments, reason = "each is one shared part; a struct would only repeat the names")]
    pub async fn run(
        self,
        sink: Arc<dyn Sink>,
        desk: Arc<dyn Desk>,
        tls: Option<Arc<dyn TlsSource>>,
        pages: Option<Arc<dyn Pages>>,
        observer: Arc<dyn GatewayObserver>,
        clock: Arc<dyn Clock>,
        stop: Stop,
    ) {
        let connections_max = self.connections_max();
        if connections_max < self.config.connections_max {
            tracing::info!(
                connections.max = connections_max,
                "the limit of open files (LimitNOFILE) allows fewer agents than configured"
            );
        }
        let (ender, end) = Stopper::new();
        let grace = self.config.grace;
        let door = Door {
            slots: Slots::new(connections_max, self.config.connections_per_ip_max),
            hub: Arc::new(Hub {
                budget: Budget::new(self.config.messages_bytes_max),
                sink,
                desk,
                pages,
                observer,
                clock,
                stop: stop.clone(),
                end,
                throttle: Mutex::default(),
                turns: Turns::default(),
                config: self.config,
            }),
            tls,
            plaintext: Mutex::default(),
            too_many: Mutex::default(),
        };
        let door = Arc::new(door);
        let mut listeners = JoinSet::new();
        for listener in self.listeners {
            match TcpListener::from_std(listener) {
                Ok(listener) => {
                    listeners.spawn(accept(listener, Arc::clone(&door), stop.clone()));
                }
                Err(error) => tracing::error!(%error, "cannot listen for agents"),
            }
        }
        stop.requested().await;
        let ended = timeout(grace, async { while listeners.join_next().await.is_some() {} });
        if ended.await.is_err() {
            ender.stop();
            let ended = timeout(END_MAX, async { while listeners.join_next().await.is_some() {} });
            if ended.await.is_err() {
                tracing::warn!("some connections of agents did not end in time and were cut");
            }
        }
        listeners.shutdown().await;
    }
}

/// Accepts until the stop; returns when all its connections have ended.
async fn accept(listener: TcpListener, door: Arc<Door>, stop: Stop) {
    let mut connections = JoinSet::new();
    let mut stopped = std::pin::pin!(stop.requested());
    let mut failing = Complaint::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stopped => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                if let Some(slot) = door.slot(peer) {
                    connections.spawn(Arc::clone(&door).connection(stream, peer, slot));
                }
            }
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                if let Some(times) = failing.due() {
                    tracing::warn!(%error, times, "cannot accept connections of agents, trying again");
                }
                stop.sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// The peer went away before we looked; the listener is well.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Lets connections in, up to the bounds.
struct Door {
    hub: Arc<Hub>,
    tls: Option<Arc<dyn TlsSource>>,
    slots: Slots,
    plaintext: Mutex<Complaint>,
    too_many: Mutex<Complaint>,
}

impl Door {
    fn slot(&self, peer: SocketAddr) -> Option<Slot> {
        let slot = self.slots.take(network(peer.ip()));
        if slot.is_none() {
            self.turn_away(
                TurnedAway::TooMany,
                RejectReason::RateLimited,
                "too many connections; this one is closed",
                peer,
            );
            complain(&self.too_many, |times| {
                tracing::warn!(times, "closed connections of agents beyond the configured number");
            });
        }
        slot
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, _slot: Slot) {
        let hub = &self.hub;
        hub.observer.connections(1);
        let _open = Open(hub);
        let _ = stream.set_nodelay(true);
        let mut first = [0u8; 1];
        let begun = timeout(hub.config.handshake_timeout, stream.peek(&mut first));
        let begun = tokio::select! {
            begun = begun => begun,
            () = hub.stop.requested() => return,
        };
        match begun {
            // Who says nothing and goes is a health check.
            Ok(Ok(0) | Err(_)) => {}
            Err(_) => self.too_slow(peer),
            Ok(Ok(_)) => match &self.tls {
                Some(tls) if first == [TLS_HANDSHAKE] => self.encrypted(tls.current(), stream, peer).await,
                Some(_) | None if hub.config.plaintext && first != [TLS_HANDSHAKE] => {
                    connection::serve(stream, Arc::new(Line::new(Arc::clone(hub), peer, None))).await;
                }
                Some(_) | None => {
                    let detail = "a connection without TLS; plaintext is off";
                    self.turn_away(TurnedAway::Plaintext, RejectReason::Unsupported, detail, peer);
                    complain(&self.plaintext, |times| {
                        tracing::warn!(
                            times,
                            "closed connections of agents without TLS; AGENT_LEGACY_PLAINTEXT=true would serve them, and let their tokens be read on the way"
                        );
                    });
                }
            },
        }
    }

    async fn encrypted(&self, config: Arc<rustls::ServerConfig>, stream: TcpStream, peer: SocketAddr) {
        let hub = &self.hub;
        let shaken = tokio::select! {
            shaken = timeout(hub.config.handshake_timeout, TlsAcceptor::from(config).accept(stream)) => shaken,
            () = hub.stop.requested() => return,
        };
        let stream = match shaken {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                let detail = format!("TLS handshake failed: {error}");
                return self.turn_away(TurnedAway::Handshake, RejectReason::Malformed, &detail, peer);
            }
            Err(_) => return self.too_slow(peer),
        };
        let (_, session) = stream.get_ref();
        if session.alpn_protocol() != Some(b"h2") {
            return pages::serve(stream, Arc::clone(hub), peer).await;
        }
        let certificate = session.peer_certificates().and_then(<[_]>::first).map(|der| Bytes::copy_from_slice(der));
        connection::serve(stream, Arc::new(Line::new(Arc::clone(hub), peer, certificate))).await;
    }

    fn too_slow(&self, peer: SocketAddr) {
        let detail = "the connection did not begin in time";
        self.turn_away(TurnedAway::TooSlow, RejectReason::Malformed, detail, peer);
    }

    fn turn_away(&self, why: TurnedAway, reason: RejectReason, detail: &str, peer: SocketAddr) {
        self.hub.observer.turned_away(why);
        self.hub.reject(reason, detail, peer, b"");
    }
}

/// An open connection in the counters.
struct Open<'a>(&'a Hub);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.observer.connections(-1);
    }
}

/// Open connections, of all and of each address.
#[derive(Clone)]
struct Slots {
    of: Arc<Mutex<Taken>>,
    max: usize,
    per_ip_max: usize,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by_ip: HashMap<IpAddr, usize>,
}

impl Slots {
    fn new(max: usize, per_ip_max: usize) -> Self {
        Self { of: Arc::default(), max, per_ip_max }
    }

    fn take(&self, ip: IpAddr) -> Option<Slot> {
        let mut taken = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.all >= self.max || taken.by_ip.get(&ip).is_some_and(|n| *n >= self.per_ip_max) {
            return None;
        }
        taken.all += 1;
        *taken.by_ip.entry(ip).or_default() += 1;
        Some(Slot { slots: self.clone(), ip })
    }
}

/// A connection's place, until it is dropped.
struct Slot {
    slots: Slots,
    ip: IpAddr,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.of.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all = taken.all.saturating_sub(1);
        if let Some(n) = taken.by_ip.get_mut(&self.ip) {
            *n -= 1;
            if *n == 0 {
                taken.by_ip.remove(&self.ip);
            }
        }
    }
}

/// Says the same thing at most once a minute, and how often it would have said it.
#[derive(Default)]
struct Complaint {
    last: Option<Instant>,
    times: u64,
}

impl Complaint {
    fn due(&mut self) -> Option<u64> {
        self.times += 1;
        if self.last.is_some_and(|last| last.elapsed() < COMPLAIN_EVERY) {
            return None;
        }
        self.last = Some(Instant::now());
        Some(std::mem::take(&mut self.times))
    }
}

fn complain(complaint: &Mutex<Complaint>, say: impl FnOnce(u64)) {
    let due = complaint.lock().unwrap_or_else(PoisonError::into_inner).due();
    if let Some(times) = due {
        say(times);
    }
}
