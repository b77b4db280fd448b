//! The addresses of this host, asked of the kernel (`RTM_GETADDR`): what is sent to others is not ours to judge.

use crate::collectors::kernel::{KernelSocket, NETLINK_HEADER, Received, number};
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const REQUEST_DUMP: u16 = 0x301;
const NLMSG_DONE: u16 = 3;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const HEADER: usize = 8;
/// Messages of an answer.
const MESSAGES_MAX: usize = 1_024;

/// All of them.
pub fn read() -> io::Result<BTreeSet<IpAddr>> {
    let mut socket = KernelSocket::netlink(None, 0, &[], 1 << 20)?;
    let mut message = Vec::new();
    message.extend_from_slice(&((NETLINK_HEADER + HEADER) as u32).to_ne_bytes());
    message.extend_from_slice(&RTM_GETADDR.to_ne_bytes());
    message.extend_from_slice(&REQUEST_DUMP.to_ne_bytes());
    message.extend_from_slice(&[0; 8 + HEADER]);
    socket.tell(&message)?;
    let mut found = BTreeSet::new();
    for _ in 0..MESSAGES_MAX {
        match socket.receive()? {
            Received::Datagram(datagram) => {
                if parse(datagram, &mut found) {
                    break;
                }
            }
            Received::Overrun | Received::Nothing => break,
        }
    }
    Ok(found)
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// Reads the messages of a datagram. Whether that was the last.
fn parse(mut datagram: &[u8], found: &mut BTreeSet<IpAddr>) -> bool {
    while let (Some(length), Some(kind)) = (number(datagram, 0), short(datagram, 4)) {
        let length = length as usize;
        if kind == NLMSG_DONE || length < NETLINK_HEADER {
            return true;
        }
        let body = datagram.get(NETLINK_HEADER..length.min(datagram.len())).unwrap_or_default();
        if kind == RTM_NEWADDR {
            // The address at this end, where it is not the same as that of the other.
            found.extend(attribute(body, IFA_LOCAL).or_else(|| attribute(body, IFA_ADDRESS)));
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

fn attribute(body: &[u8], wanted: u16) -> Option<IpAddr> {
    let mut rest = body.get(HEADER..)?;
    while let (Some(length), Some(kind)) = (short(rest, 0).map(usize::from), short(rest, 2)) {
        let value = rest.get(4..length)?;
        if kind == wanted {
            return match value.len() {
                4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?).into()),
                16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into()),
                _ => None,
            };
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_which_addresses_are_ours() {
        let found = read().unwrap();
        assert!(found.contains(&IpAddr::from([127, 0, 0, 1])), "{found:?}");
    }

    #[test]
    fn answers_of_any_shape_end() {
        let mut found = BTreeSet::new();
        for length in [0u32, 1, 15, 16, 17, 40, u32::MAX] {
            let mut datagram = length.to_ne_bytes().to_vec();
            datagram.extend(RTM_NEWADDR.to_ne_bytes());
            datagram.extend([0xff; 60]);
            parse(&datagram, &mut found);
            datagram[16..].fill(0);
            parse(&datagram, &mut found);
        }
        assert!(found.is_empty());
    }
}
