//! Attempts to connect, as packets: what comes in with neither ACK nor RST begins a connection or only looks for one. Also
//! to ports where nobody listens, which the kernel's tables never show.
//!
//! A filter in the kernel lets nothing else pass, and nothing of the loopback. In front of an IPv6 header's TCP, headers of
//! extensions are not followed.

use crate::collectors::kernel::{KernelSocket, Received, SockFilter, filter};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};

const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const TCP: u32 = 6;
const LOOPBACK: u32 = 1;
/// Enough for the longest header of IPv4 and what is needed of TCP's.
const TAKEN_BYTES: u32 = 80;
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const URG: u8 = 0x20;
const BUFFER_BYTES: usize = 4 << 20;

/// How somebody knocked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Knock {
    Syn,
    Fin,
    Null,
    Xmas,
    Other,
}

impl Knock {
    fn of(flags: u8) -> Option<Self> {
        match flags & (FIN | SYN | RST | PSH | ACK | URG) {
            flags if flags & (ACK | RST) != 0 => None,
            SYN => Some(Knock::Syn),
            FIN => Some(Knock::Fin),
            0 => Some(Knock::Null),
            flags if flags == FIN | PSH | URG => Some(Knock::Xmas),
            _ => Some(Knock::Other),
        }
    }

    pub fn shown(self) -> &'static str {
        match self {
            Knock::Syn => "syn",
            Knock::Fin => "fin",
            Knock::Null => "null",
            Knock::Xmas => "xmas",
            Knock::Other => "other",
        }
    }
}

/// One packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    pub source: IpAddr,
    pub target: IpAddr,
    pub port: u16,
    pub knock: Knock,
}

/// Reads a packet from its network header on.
pub fn parse(packet: &[u8]) -> Option<Attempt> {
    let first = *packet.first()?;
    let (source, target, tcp) = match first >> 4 {
        4 => {
            let is_first_fragment = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & 0x1fff == 0;
            if u32::from(*packet.get(9)?) != TCP || !is_first_fragment {
                return None;
            }
            let address = |at: usize| -> Option<IpAddr> {
                Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?).into())
            };
            (address(12)?, address(16)?, packet.get(usize::from(first & 0xf) * 4..)?)
        }
        6 => {
            if u32::from(*packet.get(6)?) != TCP {
                return None;
            }
            let address = |at: usize| -> Option<IpAddr> {
                Some(Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?).into())
            };
            (address(8)?, address(24)?, packet.get(40..)?)
        }
        _ => return None,
    };
    let port = u16::from_be_bytes([*tcp.get(2)?, *tcp.get(3)?]);
    Some(Attempt { source, target, port, knock: Knock::of(*tcp.get(13)?)? })
}

fn wanted_v4() -> [SockFilter; 11] {
    [
        filter::word(filter::INTERFACE),
        filter::equal(LOOPBACK, 8, 0),
        filter::byte(9),
        filter::equal(TCP, 0, 6),
        filter::half(6),
        filter::any_of(0x1fff, 4, 0),
        filter::index_of_header(0),
        filter::byte_behind_index(13),
        filter::any_of((ACK | RST) as u32, 1, 0),
        filter::take(TAKEN_BYTES),
        filter::take(0),
    ]
}

fn wanted_v6() -> [SockFilter; 8] {
    [
        filter::word(filter::INTERFACE),
        filter::equal(LOOPBACK, 5, 0),
        filter::byte(6),
        filter::equal(TCP, 0, 3),
        filter::byte(40 + 13),
        filter::any_of((ACK | RST) as u32, 1, 0),
        filter::take(TAKEN_BYTES),
        filter::take(0),
    ]
}

/// Hears attempts.
#[derive(Debug)]
pub struct Attempts([KernelSocket; 2]);

impl Attempts {
    pub fn open() -> io::Result<Self> {
        let v4 = KernelSocket::packets(ETH_P_IP, &wanted_v4(), BUFFER_BYTES)?;
        let v6 = KernelSocket::packets(ETH_P_IPV6, &wanted_v6(), BUFFER_BYTES)?;
        Ok(Self([v4, v6]))
    }

    pub fn fds(&self) -> [BorrowedFd<'_>; 2] {
        self.0.each_ref().map(AsFd::as_fd)
    }

    /// Hands on what came, at most so many. Whether there is more.
    pub fn take(&mut self, at_most: usize, mut each: impl FnMut(Attempt)) -> io::Result<bool> {
        let mut has_more = false;
        for socket in &mut self.0 {
            let mut left = at_most;
            while left > 0 {
                match socket.receive()? {
                    Received::Datagram(packet) => {
                        if let Some(attempt) = parse(packet) {
                            each(attempt);
                        }
                    }
                    Received::Overrun => {}
                    Received::Nothing => break,
                }
                left -= 1;
            }
            has_more |= left == 0;
        }
        Ok(has_more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_read_whatever_is_in_them() {
        // Laid out by hand; what the kernel hands over is tested between two namespaces.
        let mut v4 = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 7, 198, 51, 100, 1];
        v4.extend([0xd4, 0x31, 0, 22, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xfa, 0xf0, 0, 0, 0, 0]);
        let attempt = |port, knock| Attempt {
            source: "192.0.2.7".parse().unwrap(),
            target: "198.51.100.1".parse().unwrap(),
            port,
            knock,
        };
        assert_eq!(parse(&v4), Some(attempt(22, Knock::Syn)));
        for (flags, knock) in [
            (0x02, Some(Knock::Syn)),
            (0xc2, Some(Knock::Syn)),
            (0x00, Some(Knock::Null)),
            (0x01, Some(Knock::Fin)),
            (0x29, Some(Knock::Xmas)),
            (0x03, Some(Knock::Other)),
            (0x12, None),
            (0x11, None),
            (0x04, None),
            (0x10, None),
        ] {
            v4[33] = flags;
            assert_eq!(parse(&v4).map(|a| a.knock), knock, "{flags:#x}");
        }
        v4[33] = 2;
        for end in 0..v4.len() {
            parse(&v4[..end]);
        }
        let mut with_options = v4.clone();
        with_options[0] = 0x46;
        with_options.splice(20..20, [1, 1, 1, 0]);
        assert_eq!(parse(&with_options), Some(attempt(22, Knock::Syn)));
        v4[7] = 1;
        assert_eq!(parse(&v4), None, "a later fragment");
        v4[7] = 0;
        v4[9] = 17;
        assert_eq!(parse(&v4), None, "not TCP");

        let mut v6 = vec![0x60, 0, 0, 0, 0, 20, 6, 64];
        v6.extend("2001:db8::7".parse::<Ipv6Addr>().unwrap().octets());
        v6.extend("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        v6.extend([0xd4, 0x31, 0x1f, 0x90, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xfa, 0xf0, 0, 0, 0, 0]);
        let found = parse(&v6).unwrap();
        assert_eq!((found.source.to_string(), found.port, found.knock), ("2001:db8::7".to_owned(), 8080, Knock::Syn));
        for odd in [&[][..], &[0x45], &[0x4f; 24], &[0x6f; 60], &[0; 80], &[0xff; 80]] {
            assert_eq!(parse(odd), None);
        }
    }
}
