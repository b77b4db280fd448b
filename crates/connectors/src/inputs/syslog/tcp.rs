//! Syslog over TCP (RFC 6587) and TLS (RFC 5425): a task per connection.
//!
//! There is no acknowledgement, so a sink that refuses becomes backpressure: the connection is not
//! read until its batches are accepted. Buffers grow with what a connection really sends, so a
//! thousand quiet devices cost 8 KiB each.

use super::batch;
use super::frame::{Cut, Frame, Framer};
use super::parse::ParseContext;
use crate::inputs::batch::Batch;
use crate::inputs::deliver::{Delivery, Shared};
use jiff::tz::TimeZone;
use model::{InputKind, RejectReason};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;

const READ_MIN: usize = 8 << 10;
const READ_MAX: usize = 1 << 20;
/// Memory that the buffers of all connections may grow into, beyond [`READ_MIN`] each.
pub(super) const GROWTH_BYTES: usize = 64 << 20;
/// A buffer this many times mostly empty in a row is halved.
const SMALL_READS: u32 = 32;
const IN_FLIGHT: usize = 4;
const HANDSHAKE: Duration = Duration::from_secs(10);
/// After a stop, what comes is read for at most this long, until the peer ends too or is quiet: at
/// once where it sent nothing just before, else for as long as it may need to see our end.
const STOP_DRAIN: Duration = Duration::from_secs(3);
const STOP_QUIET: Duration = Duration::from_millis(20);
const STOP_QUIET_BUSY: Duration = Duration::from_millis(500);
/// Who sent something this long before a stop is busy.
const BUSY: Duration = Duration::from_secs(1);
/// A handshake that is under way at a stop.
const STOP_HANDSHAKE: Duration = Duration::from_millis(500);
/// Out of file descriptors: closing connections frees some soon.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long to look for the last connections after a stop.
const ACCEPT_LAST: Duration = Duration::from_millis(1);
/// The same complaint is logged once in this time.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);
/// A vanished peer is found out by the kernel after about this long.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Bounds of connections, shared by the TCP and the TLS listener.
pub(super) struct Limits {
    pub timezone: TimeZone,
    pub max_message_bytes: usize,
    pub idle_timeout: Duration,
    pub connections: Arc<Semaphore>,
    /// In KiB.
    pub growth: Arc<Semaphore>,
}

/// Accepts connections until the stop; returns when all of them have handed over what they read.
pub(super) async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, limits: Arc<Limits>, shared: Arc<Shared>) {
    let input = if tls.is_some() { InputKind::SyslogTls } else { InputKind::SyslogTcp };
    let stop = shared.stop.clone();
    let mut door = Door { input, tls, limits, shared, connections: JoinSet::new(), too_many: Complaint::default() };
    let mut failing = Complaint::default();
    loop {
        while door.connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            biased;
            () = stop.requested() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => door.open(stream, peer),
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                if let Some(times) = failing.due() {
                    tracing::warn!(%error, times, "cannot accept {} connections, trying again", input.as_str());
                }
                stop.sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Who was connected before the stop may have sent already.
    while let Ok(Ok((stream, peer))) = timeout(ACCEPT_LAST, listener.accept()).await {
        door.open(stream, peer);
    }
    drop(listener);
    while door.connections.join_next().await.is_some() {}
}

/// Half-closes: a sender that looks before it sends goes elsewhere at once, and nothing of what it has
/// sent is thrown away by a close.
fn end_sending(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).shutdown(std::net::Shutdown::Write);
}

/// Lets connections in, up to the cap.
struct Door {
    input: InputKind,
    tls: Option<TlsAcceptor>,
    limits: Arc<Limits>,
    shared: Arc<Shared>,
    connections: JoinSet<()>,
    too_many: Complaint,
}

impl Door {
    fn open(&mut self, stream: TcpStream, peer: SocketAddr) {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let Ok(permit) = Arc::clone(&self.limits.connections).try_acquire_owned() else {
            let detail = "too many connections; this one is closed";
            self.shared.reject(self.input, RejectReason::RateLimited, detail, Some(peer), b"");
            if let Some(times) = self.too_many.due() {
                tracing::warn!(times, "closed {} connections beyond the configured number", self.input.as_str());
            }
            return;
        };
        let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4);
        let _ = socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive);
        let (limits, shared) = (Arc::clone(&self.limits), Arc::clone(&self.shared));
        let connection = Connection { input: self.input, peer, limits, shared };
        self.connections.spawn(connection.run(stream, self.tls.clone(), permit));
    }
}

/// The peer went away before we looked; the listener is well.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
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

struct Connection {
    input: InputKind,
    peer: SocketAddr,
    limits: Arc<Limits>,
    shared: Arc<Shared>,
}

impl Connection {
    async fn run(self, stream: TcpStream, tls: Option<TlsAcceptor>, _permit: OwnedSemaphorePermit) {
        let Some(tls) = tls else {
            return self.read(stream, end_sending).await;
        };
        let stopped = async {
            self.shared.stop.requested().await;
            tokio::time::sleep(STOP_HANDSHAKE).await;
        };
        let shaken = tokio::select! {
            () = stopped => return,
            shaken = timeout(HANDSHAKE, tls.accept(stream)) => shaken,
        };
        let detail = match shaken {
            Ok(Ok(stream)) => return self.read(stream, |stream| end_sending(stream.get_ref().0)).await,
            Ok(Err(error)) => format!("TLS handshake failed: {error}"),
            Err(_) => format!("TLS handshake took longer than {} s", HANDSHAKE.as_secs()),
        };
        self.shared.reject(self.input, RejectReason::Malformed, &detail, Some(self.peer), b"");
    }

    /// `end_sending` tells the peer that we stop, while what it has sent is still read.
    async fn read<S: AsyncRead + Unpin>(&self, mut stream: S, end_sending: impl Fn(&S)) {
        let mut delivery = Delivery::new(Arc::clone(&self.shared), self.input, Some(self.peer), IN_FLIGHT);
        let mut framer = Framer::new(self.limits.max_message_bytes);
        let mut buffer = Buffer::new(Arc::clone(&self.limits.growth));
        let peer_ip = self.peer.ip().to_string();
        let mut stopping = None;
        let mut busy_until = Instant::now();
        let mut quiet = STOP_QUIET;
        loop {
            let patience = match stopping {
                None => Instant::now() + self.limits.idle_timeout,
                Some(until) => (Instant::now() + quiet).min(until),
            };
            // Cancel safe: a read that is dropped has taken nothing.
            let read = tokio::select! {
                biased;
                () = self.shared.stop.requested(), if stopping.is_none() => {
                    stopping = Some(Instant::now() + STOP_DRAIN);
                    if Instant::now() < busy_until {
                        quiet = STOP_QUIET_BUSY;
                    }
                    end_sending(&stream);
                    continue;
                }
                read = timeout_at(patience, stream.read(&mut buffer.bytes)) => read,
            };
            let n = match read {
                Ok(Ok(n)) if n > 0 => n,
                // Closed, reset, a TLS end without a goodbye, silent for too long: the same to us.
                _ => break,
            };
            self.take(&buffer.bytes[..n], &mut framer, &peer_ip, &mut delivery).await;
            buffer.adapt(n);
            busy_until = Instant::now() + BUSY;
            if stopping.is_some_and(|until| Instant::now() >= until) {
                break;
            }
        }
        drop(stream);
        let mut batch = Batch::default();
        let ctx = self.context(&peer_ip);
        framer.finish(|frame| self.frame(frame, &mut batch, &ctx));
        delivery.submit(batch).await;
        delivery.finish().await;
    }

    /// Frames and parses what was read, and hands it over; waits where the sink does.
    async fn take(&self, mut bytes: &[u8], framer: &mut Framer, peer_ip: &str, delivery: &mut Delivery) {
        /// Bounds what one batch grows to beyond its full size.
        const STEP: usize = 256 << 10;
        let mut batch = Batch::default();
        while !bytes.is_empty() {
            let (step, rest) = bytes.split_at(bytes.len().min(STEP));
            bytes = rest;
            let ctx = self.context(peer_ip);
            framer.push(step, |frame| self.frame(frame, &mut batch, &ctx));
            if batch.is_full() {
                delivery.submit(std::mem::take(&mut batch)).await;
            }
        }
        delivery.submit(batch).await;
    }

    fn context<'a>(&'a self, peer_ip: &'a str) -> ParseContext<'a> {
        ParseContext { received_at: self.shared.clock.now(), peer_ip: Some(peer_ip), timezone: &self.limits.timezone }
    }

    fn frame(&self, frame: Frame<'_>, batch: &mut Batch, ctx: &ParseContext<'_>) {
        let reject =
            |reason, detail, sample: &[u8]| self.shared.reject(self.input, reason, detail, Some(self.peer), sample);
        match frame {
            Frame::Message { bytes, cut } => {
                if cut == Some(Cut::TooLarge) {
                    reject(RejectReason::TooLarge, "larger than the configured bound; its beginning is kept", bytes);
                }
                batch::push(batch, bytes, cut.is_some(), ctx);
            }
            Frame::BadCount { sample } => {
                reject(RejectReason::Malformed, "an octet count that no message can have; its line is skipped", sample);
            }
        }
    }
}

/// A read buffer as large as the connection's reads.
struct Buffer {
    bytes: Vec<u8>,
    small_reads: u32,
    growth: Arc<Semaphore>,
    grown: Option<OwnedSemaphorePermit>,
}

impl Buffer {
    fn new(growth: Arc<Semaphore>) -> Self {
        Self { bytes: vec![0; READ_MIN], small_reads: 0, growth, grown: None }
    }

    /// Doubles after a read that filled it, if the common budget allows; halves after many small
    /// ones.
    fn adapt(&mut self, read: usize) {
        let len = self.bytes.len();
        self.small_reads = if read < len / 4 { self.small_reads + 1 } else { 0 };
        if read == len && len < READ_MAX {
            self.resize(len * 2);
        } else if self.small_reads >= SMALL_READS && len > READ_MIN {
            self.resize(len / 2);
        }
    }

    fn resize(&mut self, to: usize) {
        self.small_reads = 0;
        self.grown = None;
        let kib = u32::try_from(to.saturating_sub(READ_MIN) / 1_024).unwrap_or(u32::MAX);
        let granted = Arc::clone(&self.growth).try_acquire_many_owned(kib).ok();
        let to = if granted.is_some() { to } else { READ_MIN };
        self.grown = granted;
        self.bytes = vec![0; to];
    }
}
