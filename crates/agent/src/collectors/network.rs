//! Who listens, and who is connected to what should not be reached from everywhere. From the kernel's tables, every ten
//! seconds. What was so at the start is no news, and a listening service is nothing suspicious.

use super::{Context, log_event, passing};
use crate::spool::Observation;
use model::Timestamp;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

const EVERY: Duration = Duration::from_secs(10);
/// Remote administration and databases.
const GUARDED: &[u16] = &[22, 1433, 3306, 3389];
/// Lines of a table that are read.
const LINES_MAX: usize = 100_000;
/// Events of one look.
const EVENTS_MAX: usize = 200;

const ESTABLISHED: u8 = 1;
const LISTEN: u8 = 10;

/// One line of a table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Socket {
    pub protocol: &'static str,
    pub local: (IpAddr, u16),
    pub remote: (IpAddr, u16),
    pub state: u8,
}

/// Ready to run, or why not.
pub fn can_run() -> Result<(), String> {
    std::fs::metadata("/proc/net/tcp").map(drop).map_err(|error| format!("/proc/net/tcp cannot be read: {error}"))
}

/// Until the stop.
pub async fn run(context: Context) {
    tracing::info!("Starting network monitoring");
    let mut watch = Watch::default();
    watch.news(&read(), context.clock.now());
    while context.stop.sleep(EVERY).await {
        let mut observations = watch.news(&read(), context.clock.now());
        observations.truncate(EVENTS_MAX);
        if !observations.is_empty() && !context.sink.put(observations).await {
            return;
        }
    }
}

fn read() -> Vec<Socket> {
    let mut sockets = Vec::new();
    for (protocol, path) in [("tcp", "/proc/net/tcp"), ("tcp6", "/proc/net/tcp6")] {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        sockets.extend(text.lines().skip(1).take(LINES_MAX).filter_map(|line| parse(protocol, line)));
    }
    sockets
}

/// `  0: 0100007F:1F90 00000000:0000 0A …`
fn parse(protocol: &'static str, line: &str) -> Option<Socket> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let (local, remote) = (address(words.next()?)?, address(words.next()?)?);
    let state = u8::from_str_radix(words.next()?, 16).ok()?;
    Some(Socket { protocol, local, remote, state })
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

/// What was there at the last look.
#[derive(Debug, Default)]
pub struct Watch {
    listeners: BTreeSet<(IpAddr, u16)>,
    connections: BTreeSet<Socket>,
    has_looked: bool,
}

impl Watch {
    /// What is new.
    pub fn news(&mut self, sockets: &[Socket], now: Timestamp) -> Vec<Observation> {
        let mut found = Vec::new();
        let listeners: BTreeSet<_> = sockets.iter().filter(|s| s.state == LISTEN).map(|s| s.local).collect();
        let is_guarded = |socket: &&Socket| {
            let (address, port) = socket.local;
            socket.state == ESTABLISHED
                && GUARDED.contains(&port)
                && listeners.iter().any(|(_, listening)| *listening == port)
                && !socket.remote.0.is_loopback()
                && socket.remote.0 != address
        };
        let connections: BTreeSet<Socket> = sockets.iter().filter(is_guarded).cloned().collect();
        if std::mem::replace(&mut self.has_looked, true) {
            for (address, port) in listeners.difference(&self.listeners) {
                let shown = shown(*address, *port);
                let labels = [("event_type", "listener_opened"), ("connection", &*shown), ("severity", "info")];
                found.push(passing("network", log_event(now, "network", format!("Listening: tcp {shown}"), &labels)));
            }
            for (address, port) in self.listeners.difference(&listeners) {
                let shown = shown(*address, *port);
                let labels = [("event_type", "listener_closed"), ("connection", &*shown), ("severity", "info")];
                let message = format!("No longer listening: tcp {shown}");
                found.push(passing("network", log_event(now, "network", message, &labels)));
            }
            for socket in connections.difference(&self.connections) {
                found.push(connected(socket, now));
            }
        }
        (self.listeners, self.connections) = (listeners, connections);
        found
    }
}

/// In the words that rules know: as `netstat` shows it.
fn connected(socket: &Socket, now: Timestamp) -> Observation {
    let (local, remote) = (shown(socket.local.0, socket.local.1), shown(socket.remote.0, socket.remote.1));
    let line = format!("{:<5} 0 0 {local} {remote} ESTABLISHED", socket.protocol);
    let ip = socket.remote.0.to_string();
    let labels = [
        ("event_type", "suspicious_connection"),
        ("connection", &*line),
        ("severity", "warning"),
        ("remote_ip", &*ip),
        ("local_port", &*socket.local.1.to_string()),
    ];
    passing("network", log_event(now, "network", format!("Suspicious connection: {line}"), &labels))
}

fn shown(address: IpAddr, port: u16) -> String {
    match address {
        IpAddr::V4(address) => format!("{address}:{port}"),
        IpAddr::V6(address) => format!("[{address}]:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::record;

    const SAMPLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1151 1 00000000e1d4ac77
   1: 0500000A:0016 070200C0:C350 01 00000000:00000000 02:00000000 00000000     0        0 1152 1 00000000e1d4ac78
   2: 0100007F:0016 0100007F:C351 01 00000000:00000000 02:00000000 00000000     0        0 1153 1 00000000e1d4ac79
   3: 0500000A:C352 090200C0:0016 01 00000000:00000000 02:00000000 00000000     0        0 1154 1 00000000e1d4ac80
   4: nonsense";

    fn sample() -> Vec<Socket> {
        SAMPLE.lines().skip(1).filter_map(|line| parse("tcp", line)).collect()
    }

    fn messages(observations: Vec<Observation>) -> Vec<String> {
        let message = |o: Observation| match o.record.unwrap().body.unwrap() {
            record::Body::Log(log) => log.message,
            record::Body::Metric(metric) => metric.name,
        };
        observations.into_iter().map(message).collect()
    }

    #[test]
    fn tables_are_read_as_the_kernel_writes_them() {
        let sockets = sample();
        assert_eq!(sockets.len(), 4);
        assert_eq!(shown(sockets[1].local.0, sockets[1].local.1), "10.0.0.5:22");
        assert_eq!(shown(sockets[1].remote.0, sockets[1].remote.1), "192.0.2.7:50000");
        let six = parse("tcp6", "0: 0000000000000000FFFF00000500000A:0016 B80D0120000000000000000001000000:0001 01 x");
        let six = six.unwrap();
        assert_eq!(six.local.0.to_string(), "10.0.0.5");
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
    fn a_listening_service_is_no_alarm_and_a_stranger_at_a_guarded_port_is_one_event() {
        let now = Timestamp::from_secs(1);
        let sockets = sample();
        let mut watch = Watch::default();
        assert!(watch.news(&sockets[..1], now).is_empty(), "what was there at the start");
        assert!(watch.news(&sockets[..1], now).is_empty());
        let expected = ["Suspicious connection: tcp   0 0 10.0.0.5:22 192.0.2.7:50000 ESTABLISHED"];
        assert_eq!(messages(watch.news(&sockets, now)), expected, "not the loopback, not our own way out");
        assert!(watch.news(&sockets, now).is_empty(), "once");
        let mut more = sockets.clone();
        more.push(parse("tcp", "9: 00000000:1F90 00000000:0000 0A").unwrap());
        assert_eq!(messages(watch.news(&more, now)), ["Listening: tcp 0.0.0.0:8080"]);
        assert_eq!(messages(watch.news(&sockets, now)), ["No longer listening: tcp 0.0.0.0:8080"]);
    }

    #[test]
    fn a_listener_of_this_machine_is_seen() {
        can_run().unwrap();
        let mut watch = Watch::default();
        watch.news(&read(), Timestamp::from_secs(1));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let expected = format!("Listening: tcp {}", listener.local_addr().unwrap());
        assert!(messages(watch.news(&read(), Timestamp::from_secs(1))).contains(&expected));
    }
}
