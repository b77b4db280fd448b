//! Sockets on which the kernel tells what happens: opened with a filter, so that it wakes nobody for what is not asked for.
//!
//! Always true here: what another program sends to such a socket is passed over, and what was lost for want of room is
//! said to the caller.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netlink::SocketAddrNetlink, recvfrom,
    sendto, socket_with, sockopt,
};
use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

pub use socket2::SockFilter;

/// Length of the header of a netlink message.
pub const NETLINK_HEADER: usize = 16;
/// The longest message that is taken whole.
pub const DATAGRAM_BYTES_MAX: usize = 16 * 1024;

/// Instructions of the kernel's classic filter, as far as they are used here.
pub mod filter {
    use super::SockFilter;

    const fn op(code: u16, jt: u8, jf: u8, k: u32) -> SockFilter {
        SockFilter::new(code, jt, jf, k)
    }
    /// Loads four bytes, as a big-endian number.
    pub const fn word(at: u32) -> SockFilter {
        op(0x20, 0, 0, at)
    }
    /// Loads two bytes.
    pub const fn half(at: u32) -> SockFilter {
        op(0x28, 0, 0, at)
    }
    /// Loads a byte.
    pub const fn byte(at: u32) -> SockFilter {
        op(0x30, 0, 0, at)
    }
    /// Loads a byte behind the index.
    pub const fn byte_behind_index(at: u32) -> SockFilter {
        op(0x50, 0, 0, at)
    }
    /// The index becomes the length of the IPv4 header at `at`.
    pub const fn index_of_header(at: u32) -> SockFilter {
        op(0xb1, 0, 0, at)
    }
    /// The index becomes what was loaded.
    pub const fn to_index() -> SockFilter {
        op(0x07, 0, 0, 0)
    }
    /// Skips so many instructions, by whether what was loaded is `k`.
    pub const fn equal(k: u32, jt: u8, jf: u8) -> SockFilter {
        op(0x15, jt, jf, k)
    }
    /// Skips by whether what was loaded is the index.
    pub const fn equals_index(jt: u8, jf: u8) -> SockFilter {
        op(0x1d, jt, jf, 0)
    }
    /// Skips by whether what was loaded has a bit of `k`.
    pub const fn any_of(k: u32, jt: u8, jf: u8) -> SockFilter {
        op(0x45, jt, jf, k)
    }
    /// Takes the first `bytes`; 0: passes it over.
    pub const fn take(bytes: u32) -> SockFilter {
        op(0x06, 0, 0, bytes)
    }
    /// Where the number of the interface is loaded from.
    pub const INTERFACE: u32 = 0xffff_f000 + 8;
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<'a> {
    Datagram(&'a [u8]),
    /// Nothing now.
    Nothing,
    /// The kernel had more to say than there was room for.
    Overrun,
}

/// A socket of the kernel's.
#[derive(Debug)]
pub struct KernelSocket {
    fd: OwnedFd,
    is_netlink: bool,
    buffer: Vec<u8>,
}

impl KernelSocket {
    /// Hears a netlink protocol's groups (a mask). Without a protocol: that of routes and addresses.
    pub fn netlink(
        protocol: Option<Protocol>,
        groups: u32,
        filter: &[SockFilter],
        buffer_bytes: usize,
    ) -> io::Result<Self> {
        let socket = Self::open(AddressFamily::NETLINK, protocol, filter, buffer_bytes, true)?;
        bind(&socket.fd, &SocketAddrNetlink::new(0, groups))?;
        Ok(socket)
    }

    /// Hears packets of a protocol (`ETH_P_…`) that come in on any interface, from their network header on.
    pub fn packets(protocol: u16, filter: &[SockFilter], buffer_bytes: usize) -> io::Result<Self> {
        let protocol = NonZeroU32::new(u32::from(protocol.to_be())).ok_or(io::ErrorKind::InvalidInput)?;
        Self::open(AddressFamily::PACKET, Some(Protocol::from_raw(protocol)), filter, buffer_bytes, false)
    }

    fn open(
        family: AddressFamily,
        protocol: Option<Protocol>,
        filter: &[SockFilter],
        buffer_bytes: usize,
        is_netlink: bool,
    ) -> io::Result<Self> {
        let fd = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, protocol)?;
        // Beyond what the system allows everybody, where it may be.
        if sockopt::set_socket_recv_buffer_size_force(&fd, buffer_bytes).is_err() {
            sockopt::set_socket_recv_buffer_size(&fd, buffer_bytes)?;
        }
        let socket = socket2::Socket::from(fd);
        if !filter.is_empty() {
            socket.attach_filter(filter)?;
        }
        Ok(Self { fd: socket.into(), is_netlink, buffer: vec![0; DATAGRAM_BYTES_MAX] })
    }

    /// Says something to the kernel.
    pub fn tell(&self, message: &[u8]) -> io::Result<()> {
        sendto(&self.fd, message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        Ok(())
    }

    /// The next message, without waiting.
    pub fn receive(&mut self) -> io::Result<Received<'_>> {
        loop {
            match recvfrom(&self.fd, self.buffer.as_mut_slice(), RecvFlags::DONTWAIT) {
                Ok((_, bytes, from)) => {
                    let from = from.and_then(|address| SocketAddrNetlink::try_from(address).ok());
                    if self.is_netlink && from.is_none_or(|from| from.pid() != 0) {
                        continue;
                    }
                    return Ok(Received::Datagram(self.buffer.get(..bytes).unwrap_or(&self.buffer)));
                }
                Err(Errno::AGAIN) => return Ok(Received::Nothing),
                Err(Errno::NOBUFS) => return Ok(Received::Overrun),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for KernelSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Waits until one of them has something, or for `at_most`. Whether one has.
pub fn wait(fds: &[BorrowedFd<'_>], at_most: Duration) -> bool {
    let mut fds: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    let timeout = Timespec {
        tv_sec: i64::try_from(at_most.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(at_most.subsec_nanos()),
    };
    // Interrupted or not: it is looked at what there is.
    matches!(poll(&mut fds, Some(&timeout)), Ok(n) if n > 0)
}

/// A number as this machine keeps it, at a place in a message.
pub fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let found: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
    Some(u32::from_ne_bytes(found))
}
