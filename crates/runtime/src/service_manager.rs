//! Talking to systemd: the protocol of `sd_notify(3)`, one datagram a message.
//!
//! Always true here: without `NOTIFY_SOCKET` nothing is sent and nothing fails; a manager that does
//! not listen is logged once and never stops the work; what is sent is one line a variable, whatever
//! the text holds.

use rustix::time::{ClockId, clock_gettime};
use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Longest status text, bytes; systemd shows one line.
const STATUS_BYTES_MAX: usize = 256;
/// Longest time a message may wait for the manager.
const SEND_MAX: Duration = Duration::from_secs(1);

/// The service manager that started this process, or nobody. Clones talk to the same one.
#[derive(Debug, Clone, Default)]
pub struct ServiceManager {
    socket: Option<Arc<Socket>>,
    watchdog: Option<Duration>,
}

#[derive(Debug)]
struct Socket {
    socket: UnixDatagram,
    /// Asked anew for each message: the manager may have been executed again meanwhile.
    address: SocketAddr,
    complained: AtomicBool,
}

impl ServiceManager {
    /// From `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`. An address that cannot be used is
    /// logged and ignored: the service works without a manager too.
    pub fn from_environment(environment: &BTreeMap<String, String>) -> Self {
        let Some(address) = environment.get("NOTIFY_SOCKET").filter(|a| !a.is_empty()) else { return Self::default() };
        match Socket::open(address) {
            Ok(socket) => Self { socket: Some(Arc::new(socket)), watchdog: watchdog(environment, std::process::id()) },
            Err(error) => {
                tracing::warn!(%error, address, "NOTIFY_SOCKET cannot be used; the service manager is told nothing");
                Self::default()
            }
        }
    }

    /// Whether anybody listens.
    pub fn is_present(&self) -> bool {
        self.socket.is_some()
    }

    /// How often [`Self::alive`] must be called: half of what the manager allows. `None`: it does not
    /// watch.
    pub fn watchdog_every(&self) -> Option<Duration> {
        self.watchdog.map(|max| max / 2)
    }

    /// Still starting, and that may take up to `at_most` from now.
    pub fn starting(&self, at_most: Duration) {
        let micros = at_most.as_micros();
        self.send(&format!("EXTEND_TIMEOUT_USEC={micros}\nSTATUS=waiting for secrets and stores"));
    }

    /// Started, or done with reloading.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// The configuration is being read again; [`Self::ready`] ends it.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1_000);
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=reloading the configuration"));
    }

    /// Stopping, which may take up to `at_most`.
    pub fn stopping(&self, at_most: Duration) {
        let micros = at_most.as_micros();
        self.send(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={micros}\nSTATUS=finishing what is under way"));
    }

    /// What `systemctl status` shows.
    pub fn status(&self, status: &str) {
        self.send(&format!("STATUS={}", one_line(status)));
    }

    /// Feeds the watchdog. Only to be called where the work is supervised, so that a process that
    /// hangs is restarted.
    pub fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, message: &str) {
        let Some(socket) = &self.socket else { return };
        match socket.socket.send_to_addr(message.as_bytes(), &socket.address) {
            Ok(_) => socket.complained.store(false, Ordering::Relaxed),
            Err(error) => {
                if !socket.complained.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "the service manager could not be told how this service is");
                }
            }
        }
    }
}

impl Socket {
    fn open(address: &str) -> io::Result<Self> {
        let address = match address.strip_prefix('@') {
            Some(name) => abstract_address(name)?,
            None if address.starts_with('/') => SocketAddr::from_pathname(address)?,
            None => return Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a path nor an abstract socket")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_MAX))?;
        Ok(Self { socket, address, complained: AtomicBool::new(false) })
    }
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &str) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt;
    SocketAddr::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_: &str) -> io::Result<SocketAddr> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "abstract sockets are Linux's"))
}

/// The longest time between two signs of life, if it is `pid` that is watched.
fn watchdog(environment: &BTreeMap<String, String>, pid: u32) -> Option<Duration> {
    if let Some(watched) = environment.get("WATCHDOG_PID").filter(|p| !p.is_empty())
        && watched.parse() != Ok(pid)
    {
        return None;
    }
    let micros: u64 = environment.get("WATCHDOG_USEC")?.parse().ok()?;
    (micros > 0).then(|| Duration::from_micros(micros))
}

fn one_line(status: &str) -> String {
    let mut line = String::new();
    for c in status.chars() {
        let c = if c.is_control() { ' ' } else { c };
        if line.len() + c.len_utf8() > STATUS_BYTES_MAX {
            break;
        }
        line.push(c);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn told(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 4096];
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let n = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..n].to_vec()).unwrap()
    }

    fn speaks(manager: &ServiceManager, socket: &UnixDatagram) {
        manager.ready("works\nREADY=0");
        assert_eq!(told(socket), "READY=1\nSTATUS=works READY=0");
        manager.reloading();
        let reloading = told(socket);
        assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
        let micros = reloading.lines().nth(1).unwrap().split('=').nth(1).unwrap();
        assert!(micros.parse::<u64>().unwrap() > 0);
        manager.alive();
        assert_eq!(told(socket), "WATCHDOG=1");
        manager.stopping(Duration::from_secs(30));
        assert!(told(socket).starts_with("STOPPING=1\nEXTEND_TIMEOUT_USEC=30000000\n"));
        manager.status(&"x".repeat(1_000));
        assert_eq!(told(socket).len(), "STATUS=".len() + STATUS_BYTES_MAX);
    }

    #[test]
    fn a_socket_by_path_is_spoken_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let manager = ServiceManager::from_environment(&environment(&[
            ("NOTIFY_SOCKET", path.to_str().unwrap()),
            ("WATCHDOG_USEC", "30000000"),
        ]));
        assert_eq!(manager.watchdog_every(), Some(Duration::from_secs(15)));
        speaks(&manager, &socket);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_abstract_socket_is_spoken_to() {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("muttd-test-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let manager = ServiceManager::from_environment(&environment(&[("NOTIFY_SOCKET", &format!("@{name}"))]));
        assert_eq!(manager.watchdog_every(), None);
        speaks(&manager, &socket);
    }

    #[test]
    fn nobody_listening_is_no_failure() {
        let none = ServiceManager::from_environment(&environment(&[("WATCHDOG_USEC", "1000000")]));
        assert!(!none.is_present() && none.watchdog_every().is_none());
        none.ready("works");
        for address in ["relative", "/no/such/socket"] {
            ServiceManager::from_environment(&environment(&[("NOTIFY_SOCKET", address)])).alive();
        }
    }

    #[test]
    fn only_the_watched_process_feeds_the_watchdog() {
        let watched = |pairs: &[(&str, &str)]| watchdog(&environment(pairs), 7);
        assert_eq!(watched(&[("WATCHDOG_USEC", "5000000")]), Some(Duration::from_secs(5)));
        assert_eq!(watched(&[("WATCHDOG_USEC", "5000000"), ("WATCHDOG_PID", "7")]), Some(Duration::from_secs(5)));
        assert_eq!(watched(&[("WATCHDOG_USEC", "5000000"), ("WATCHDOG_PID", "8")]), None);
        assert_eq!(watched(&[("WATCHDOG_USEC", "0")]), None);
        assert_eq!(watched(&[("WATCHDOG_USEC", "soon")]), None);
    }
}
