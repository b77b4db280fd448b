//! The kernel's tables of TCP sockets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Lines of a table that are read.
const LINES_MAX: usize = 100_000;

pub const ESTABLISHED: u8 = 1;
pub const LISTEN: u8 = 10;

/// One line of a table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Socket {
    pub protocol: &'static str,
    pub local: (IpAddr, u16),
    pub remote: (IpAddr, u16),
    pub state: u8,
    pub uid: u32,
    /// 0 where no program holds it any more.
    pub inode: u64,
}

/// All of them.
pub fn read() -> Vec<Socket> {
    let mut sockets = Vec::new();
    for (protocol, path) in [("tcp", "/proc/thread-self/net/tcp"), ("tcp6", "/proc/thread-self/net/tcp6")] {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        sockets.extend(text.lines().skip(1).take(LINES_MAX).filter_map(|line| parse(protocol, line)));
    }
    sockets
}

/// `  0: 0100007F:1F90 00000000:0000 0A …`
pub fn parse(protocol: &'static str, line: &str) -> Option<Socket> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let (local, remote) = (address(words.next()?)?, address(words.next()?)?);
    let state = u8::from_str_radix(words.next()?, 16).ok()?;
    let uid = words.nth(3)?.parse().ok()?;
    let inode = words.nth(1)?.parse().ok()?;
    Some(Socket { protocol, local, remote, state, uid, inode })
}

fn address(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // Words of four bytes, each as the processor keeps it.
    let word = |at: usize| u32::from_str_radix(address.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    let address = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (i, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(i * 8)?);
            }
            // What speaks the old protocol over a socket of the new is shown as the old.
            Ipv6Addr::from(bytes).to_canonical()
        }
        _ => return None,
    };
    Some((address, port))
}

/// The numbers of this process's own sockets.
pub fn own() -> std::collections::BTreeSet<u64> {
    let names = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    names.filter_map(|fd| in_brackets(std::fs::read_link(fd.path()).ok()?.to_str()?)).collect()
}

/// `socket:[4711]`
fn in_brackets(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// As `netstat` shows it.
pub fn shown(address: IpAddr, port: u16) -> String {
    match address {
        IpAddr::V4(address) => format!("{address}:{port}"),
        IpAddr::V6(address) => format!("[{address}]:{port}"),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub const SAMPLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1151 1 00000000e1d4ac77
   1: 0500000A:0016 070200C0:C350 01 00000000:00000000 02:00000000 00000000     0        0 1152 1 00000000e1d4ac78
   2: 0100007F:0016 0100007F:C351 01 00000000:00000000 02:00000000 00000000     0        0 1153 1 00000000e1d4ac79
   3: 0500000A:C352 090200C0:0016 01 00000000:00000000 02:00000000 00000000     0        0 1154 1 00000000e1d4ac80
   4: nonsense";

    pub fn sample() -> Vec<Socket> {
        SAMPLE.lines().skip(1).filter_map(|line| parse("tcp", line)).collect()
    }

    #[test]
    fn tables_are_read_as_the_kernel_writes_them() {
        let sockets = sample();
        assert_eq!(sockets.len(), 4);
        assert_eq!(shown(sockets[1].local.0, sockets[1].local.1), "10.0.0.5:22");
        assert_eq!(shown(sockets[1].remote.0, sockets[1].remote.1), "192.0.2.7:50000");
        let six = parse(
            "tcp6",
            "0: 0000000000000000FFFF00000500000A:0016 B80D0120000000000000000001000000:0001 01 0:0 0:0 0 7 0 99",
        );
        let six = six.unwrap();
        assert_eq!((six.local.0.to_string(), six.uid, six.inode), ("10.0.0.5".to_owned(), 7, 99));
        assert_eq!(shown(six.remote.0, 1), "[2001:db8::1]:1");
        for odd in [
            "",
            "0:",
            "0: x:1 y:2 01",
            "0: 0500000A:0016 070200C0:C350",
            "0: 05:0016 07:C350 01",
            "0: é0000000:0016 é0000000:1 01",
        ] {
            assert_eq!(parse("tcp", odd), None, "{odd}");
        }
    }

    #[test]
    fn a_socket_of_our_own_is_known() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = read()
            .into_iter()
            .find(|s| s.local == ("127.0.0.1".parse().unwrap(), listener.local_addr().unwrap().port()));
        assert!(own().contains(&ours.unwrap().inode));
        for odd in ["socket:[]", "socket:[x]", "pipe:[1]", ""] {
            assert_eq!(in_brackets(odd), None);
        }
    }
}
