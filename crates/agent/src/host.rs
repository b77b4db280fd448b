//! Facts about the machine, read once.

use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};

/// Who and where this is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// The same on clones.
    pub machine_id: String,
    pub boot_id: String,
    pub os_type: String,
    pub os_version: String,
    /// The address that the server would see, were there nothing in between.
    pub ip_address: String,
}

const UNKNOWN: &str = "unknown";

/// The system's name of itself.
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn line(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

impl Host {
    /// Reads them. Waits for the resolver as long as that does.
    pub fn read(ingest: &str) -> Self {
        let ip_address = address_towards(ingest).unwrap_or_else(|| UNKNOWN.to_owned());
        Self { ip_address, ..Self::read_offline() }
    }

    /// Reads what needs no resolver.
    pub fn read_offline() -> Self {
        Self {
            machine_id: line("/etc/machine-id"),
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            os_type: std::env::consts::OS.replace("macos", "darwin"),
            os_version: pretty_name(&line("/etc/os-release"))
                .unwrap_or_else(|| rustix::system::uname().release().to_string_lossy().into_owned()),
            ip_address: UNKNOWN.to_owned(),
        }
    }
}

fn pretty_name(os_release: &str) -> Option<String> {
    runtime::env_file::parse(os_release).remove("PRETTY_NAME").filter(|name| !name.is_empty())
}

/// Connecting a datagram socket sends nothing; it asks for the route.
fn address_towards(ingest: &str) -> Option<String> {
    let server = ingest.to_socket_addrs().ok()?.next()?;
    let any: SocketAddr = if server.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(server).ok()?;
    Some(socket.local_addr().ok()?.ip().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_known() {
        let host = Host::read("127.0.0.1:9002");
        assert_eq!((&*host.ip_address, &*host.os_type), ("127.0.0.1", "linux"));
        assert!(!hostname().is_empty() && !host.boot_id.is_empty() && !host.os_version.is_empty());
        assert_eq!(pretty_name("ID=x\nPRETTY_NAME=\"A B\"\n").as_deref(), Some("A B"));
        assert_eq!(pretty_name(""), None);
    }
}
