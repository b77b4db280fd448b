//! Receiving datagrams for the inputs that speak UDP.
//!
//! A thread of its own does nothing but receive, so that parsing and syncing never make the kernel
//! drop: it fills arenas (bounded, in all `receive_buffer_bytes`) that a task parses and hands to
//! the sink. When all arenas are taken it stops reading and the kernel's buffer fills; what the
//! kernel then drops is read from its own counter and reported by [`Sink::lost`]. While the sink
//! *refuses*, it reads on and counts every datagram it has no room for as rejected, `QueueFull`.
//!
//! [`Sink::lost`]: super::Sink::lost

use super::deliver::Shared;
use model::{InputKind, RejectReason};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::fmt::Write as _;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc as blocking;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// No UDP datagram is longer (a 16-bit length).
const DATAGRAM_MAX: usize = 65_536;
const ARENA_BYTES: usize = 1 << 20;
const ARENA_DATAGRAMS: usize = 4_096;
/// How long a thread without work sleeps before it looks at the stop and at the kernel's counter.
const IDLE_WAIT: Duration = Duration::from_millis(100);
/// How long it waits for more while the parser is busy anyway.
const BUSY_WAIT: Duration = Duration::from_millis(1);
/// This many datagrams at once are load.
const LOADED: usize = 8;
const PAUSE_MIN: Duration = Duration::from_micros(50);
const PAUSE_MAX: Duration = Duration::from_millis(1);
/// What a datagram of a few hundred bytes takes of the kernel's buffer.
const KERNEL_COST: usize = 1_024;
const DROPS_EVERY: Duration = Duration::from_secs(1);
/// After a stop, what lies in the kernel's buffer is read for at most this long.
const STOP_DRAIN: Duration = Duration::from_millis(500);

/// Received, not yet parsed.
pub(super) struct Arena {
    bytes: Vec<u8>,
    used: usize,
    datagrams: Vec<(usize, SocketAddr)>,
}

impl Arena {
    fn new() -> Self {
        Self { bytes: vec![0; ARENA_BYTES], used: 0, datagrams: Vec::with_capacity(256) }
    }

    fn has_room(&self) -> bool {
        ARENA_BYTES - self.used >= DATAGRAM_MAX && self.datagrams.len() < ARENA_DATAGRAMS
    }

    fn receive(&mut self, socket: &UdpSocket) -> io::Result<()> {
        let (n, peer) = socket.recv_from(&mut self.bytes[self.used..self.used + DATAGRAM_MAX])?;
        self.used += n;
        self.datagrams.push((self.used, peer));
        Ok(())
    }

    /// The datagrams in the order of their arrival.
    pub(super) fn datagrams(&self) -> impl Iterator<Item = (&[u8], SocketAddr)> {
        let mut start = 0;
        self.datagrams.iter().map(move |(end, peer)| {
            let datagram = &self.bytes[start..*end];
            start = *end;
            (datagram, *peer)
        })
    }

    fn clear(&mut self) {
        self.used = 0;
        self.datagrams.clear();
    }
}

/// A socket that is being received from.
pub(super) struct Datagrams {
    filled: mpsc::Receiver<Arena>,
    free: blocking::Sender<Arena>,
    thread: tokio::task::JoinHandle<()>,
    input: InputKind,
}

impl Datagrams {
    /// Receives until the stop, in a thread that ends by itself soon after it. `refused` says how
    /// many batches the sink refuses at the moment.
    pub(super) fn receive(
        socket: UdpSocket,
        input: InputKind,
        buffer_bytes: usize,
        shared: Arc<Shared>,
        refused: Arc<AtomicUsize>,
    ) -> Self {
        let arenas = (buffer_bytes / ARENA_BYTES).clamp(2, 4_096);
        let (filled_tx, filled) = mpsc::channel::<Arena>(arenas);
        let (free, free_rx) = blocking::channel::<Arena>();
        let receiver = Receiver {
            wait: None,
            kernel_room: socket2::SockRef::from(&socket).recv_buffer_size().unwrap_or(0) / KERNEL_COST,
            pause: PAUSE_MIN,
            drops: Drops::of(&socket),
            socket,
            input,
            shared,
            filled: filled_tx,
            free: free_rx,
            arenas_left: arenas,
            refused,
            drops_read: Instant::now(),
        };
        // Awaited in `finish`, so it never outlives its listener.
        let thread = tokio::task::spawn_blocking(move || receiver.run());
        Self { filled, free, thread, input }
    }

    /// What came, in order; `None` when the thread has ended and everything was taken.
    pub(super) async fn next(&mut self) -> Option<Arena> {
        self.filled.recv().await
    }

    /// An arena whose datagrams are done with.
    pub(super) fn give_back(&self, mut arena: Arena) {
        arena.clear();
        let _ = self.free.send(arena); // its taker may be gone after a stop
    }

    /// Waits for the end of the thread.
    pub(super) async fn finish(self) {
        drop(self.filled);
        if self.thread.await.is_err() {
            tracing::error!(input = self.input.as_str(), "the thread that receives datagrams died");
        }
    }
}

/// The receiving thread.
struct Receiver {
    socket: UdpSocket,
    input: InputKind,
    /// `None` while the socket does not wait at all.
    wait: Option<Duration>,
    shared: Arc<Shared>,
    /// Holds every arena there is, so sending never waits.
    filled: mpsc::Sender<Arena>,
    free: blocking::Receiver<Arena>,
    /// How many more may be allocated.
    arenas_left: usize,
    refused: Arc<AtomicUsize>,
    /// How many small datagrams the kernel's buffer holds, roughly.
    kernel_room: usize,
    pause: Duration,
    drops: Option<Drops>,
    drops_read: Instant,
}

impl Receiver {
    fn run(mut self) {
        if self.drops.is_none() {
            tracing::warn!("datagrams that the kernel drops cannot be counted: /proc/net/udp does not list the socket");
        }
        let mut held = None;
        while !self.shared.stop.is_requested() {
            held = match held.or_else(|| self.take_arena()).or_else(|| self.await_arena()) {
                Some(arena) => self.fill(arena),
                None => None,
            };
            if self.drops_read.elapsed() >= DROPS_EVERY {
                self.report_drops();
            }
        }
        self.drain(held);
        self.report_drops();
    }

    fn take_arena(&mut self) -> Option<Arena> {
        if let Ok(arena) = self.free.try_recv() {
            return Some(arena);
        }
        self.arenas_left = self.arenas_left.checked_sub(1)?;
        Some(Arena::new())
    }

    /// Every arena is full: of a sink that is only slow the kernel's buffer is the next bound; for
    /// one that refuses, what has no place is counted.
    fn await_arena(&mut self) -> Option<Arena> {
        if self.refused.load(Ordering::Acquire) == 0 {
            return self.free.recv_timeout(IDLE_WAIT / 10).ok();
        }
        self.set_wait(Some(IDLE_WAIT / 10));
        self.reject_one();
        None
    }

    /// Takes what is there; gives the arena away when it is full, or when nothing more is there
    /// and the parser is idle. Until then batches grow with the load by themselves.
    fn fill(&mut self, mut arena: Arena) -> Option<Arena> {
        self.set_wait(None);
        let before = arena.datagrams.len();
        let dry = self.receive_into(&mut arena);
        let came = arena.datagrams.len() - before;
        let parser_is_idle = self.filled.capacity() == self.filled.max_capacity();
        let held =
            if !arena.datagrams.is_empty() && (!dry || parser_is_idle) { self.hand_over(arena) } else { Some(arena) };
        if !dry {
            return held;
        }
        if came >= LOADED {
            self.pause(came);
            return held;
        }
        let mut arena = held?;
        self.set_wait(Some(if arena.datagrams.is_empty() { IDLE_WAIT } else { BUSY_WAIT }));
        let _ = arena.receive(&self.socket); // or nothing came in time
        Some(arena)
    }

    /// Under load, sleeping a while is cheaper than being woken for each datagram: it halves what
    /// the kernel spends on one. The pause follows the load, far from filling the kernel's buffer.
    fn pause(&mut self, came: usize) {
        self.pause = if came > self.kernel_room / 8 { self.pause / 2 } else { self.pause * 2 };
        self.pause = self.pause.clamp(PAUSE_MIN, PAUSE_MAX);
        std::thread::sleep(self.pause);
    }

    /// Whether the socket has nothing more (else the arena is full).
    fn receive_into(&self, arena: &mut Arena) -> bool {
        while arena.has_room() {
            match arena.receive(&self.socket) {
                Ok(()) => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return true,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => {
                    // Out of memory, an ICMP answer: not the next datagram's fault.
                    tracing::debug!(error = %e, "receiving a datagram failed");
                    std::thread::sleep(BUSY_WAIT);
                    return true;
                }
            }
        }
        false
    }

    fn hand_over(&self, arena: Arena) -> Option<Arena> {
        match self.filled.try_send(arena) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => None,
            Err(mpsc::error::TrySendError::Full(arena)) => Some(arena),
        }
    }

    /// What the kernel still holds when the stop comes: taken as far as there is room and time,
    /// else counted.
    fn drain(&mut self, held: Option<Arena>) {
        self.set_wait(None);
        let until = Instant::now() + STOP_DRAIN;
        let mut held = held;
        while Instant::now() < until {
            match held.take().or_else(|| self.take_arena()) {
                Some(mut arena) => {
                    let dry = self.receive_into(&mut arena);
                    held = if arena.datagrams.is_empty() { Some(arena) } else { self.hand_over(arena) };
                    if dry {
                        return;
                    }
                }
                None => std::thread::sleep(BUSY_WAIT),
            }
        }
        let until = Instant::now() + STOP_DRAIN;
        while Instant::now() < until && self.reject_one() {}
    }

    /// Reads one datagram that there is no room for. `false` when there is none.
    fn reject_one(&mut self) -> bool {
        let mut scratch = [0u8; 2_048]; // the kernel cuts what is longer; it is a sample only
        match self.socket.recv_from(&mut scratch) {
            Ok((n, peer)) => {
                let detail = "the queue refuses and the receive buffers are full";
                self.shared.reject(self.input, RejectReason::QueueFull, detail, Some(peer), &scratch[..n]);
                true
            }
            Err(_) => false,
        }
    }

    /// `None`: the socket does not wait at all.
    fn set_wait(&mut self, wait: Option<Duration>) {
        if self.wait == wait {
            return;
        }
        let _ = match wait {
            None => self.socket.set_nonblocking(true),
            Some(_) => self.socket.set_read_timeout(wait).and_then(|()| self.socket.set_nonblocking(false)),
        };
        self.wait = wait;
    }

    fn report_drops(&mut self) {
        self.drops_read = Instant::now();
        let lost = self.drops.as_mut().map_or(0, Drops::new_ones);
        if lost > 0 {
            self.shared.sink.lost(self.input, lost);
        }
    }
}

/// A socket of `address`'s family that does not block.
pub(super) fn socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        // `[::]` takes IPv4 too, whatever the machine's default is.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A bound UDP socket. The kernel gives it at most net.core.rmem_max; the arenas bridge what is
/// missing.
pub(super) fn udp_socket(address: SocketAddr, buffer_bytes: usize) -> io::Result<UdpSocket> {
    let socket = socket(address, Type::DGRAM, Protocol::UDP)?;
    let _ = socket.set_recv_buffer_size(buffer_bytes);
    socket.bind(&SockAddr::from(address))?;
    Ok(socket.into())
}

/// The kernel's own count of the datagrams it dropped on one socket: the last column of
/// `/proc/net/udp` (Linux, `Documentation/networking/proc_net_tcp.rst`).
struct Drops {
    path: &'static str,
    inode: String,
    seen: u32,
}

impl Drops {
    fn of(socket: &UdpSocket) -> Option<Self> {
        let path = if socket.local_addr().ok()?.is_ipv4() { "/proc/net/udp" } else { "/proc/net/udp6" };
        let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).ok()?;
        let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned();
        let mut drops = Self { path, inode, seen: 0 };
        drops.seen = drops.read()?;
        Some(drops)
    }

    fn read(&self) -> Option<u32> {
        drops_of(&std::fs::read_to_string(self.path).ok()?, &self.inode)
    }

    /// Drops since the last call. The kernel's counter has 32 bits and wraps.
    fn new_ones(&mut self) -> u64 {
        let Some(now) = self.read() else { return 0 };
        let new = now.wrapping_sub(self.seen);
        self.seen = now;
        u64::from(new)
    }
}

fn drops_of(table: &str, inode: &str) -> Option<u32> {
    const INODE: usize = 9;
    table.lines().skip(1).find_map(|line| {
        let mut columns = line.split_ascii_whitespace();
        (columns.nth(INODE)? == inode).then(|| columns.last()?.parse().ok())?
    })
}

/// The address of the last sender as text; most datagrams come in rows of one sender.
#[derive(Default)]
pub(super) struct PeerText {
    ip: Option<IpAddr>,
    text: String,
}

impl PeerText {
    pub(super) fn of(&mut self, ip: IpAddr) -> &str {
        if self.ip != Some(ip) {
            self.ip = Some(ip);
            self.text.clear();
            let _ = write!(self.text, "{}", ip.to_canonical()); // `::ffff:10.0.0.1` is 10.0.0.1
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drops_column_is_found_by_inode() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
             1036: 0100007F:1F90 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 24839 2 0000000000000000 17\n\
             1037: 0100007F:1F91 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 24840 2 0000000000000000 0\n";
        assert_eq!(drops_of(table, "24839"), Some(17));
        assert_eq!(drops_of(table, "24840"), Some(0));
        assert_eq!(drops_of(table, "1"), None);
    }

    #[test]
    fn a_mapped_address_is_written_as_the_ipv4_it_is() {
        let mut text = PeerText::default();
        assert_eq!(text.of("::ffff:10.0.0.1".parse().unwrap()), "10.0.0.1");
        assert_eq!(text.of("fe80::1".parse().unwrap()), "fe80::1");
    }
}
