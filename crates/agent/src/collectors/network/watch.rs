//! What is new in the tables of sockets: listeners, peers, and who is connected to what should not be reached from
//! everywhere. What the agent itself holds is passed over.

use super::table::{ESTABLISHED, LISTEN, Socket, shown};
use crate::collectors::log_event;
use model::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use wire::LogEvent;

/// Remote administration and databases.
const GUARDED: &[u16] = &[22, 1433, 3306, 3389];
/// Looks after which a peer that was away is news again: an hour.
const PEER_LOOKS: u32 = 360;
/// Peers remembered.
const PEERS_MAX: usize = 4_096;

/// Whether they came to us, their address, and the port of the service.
type Peer = (bool, IpAddr, u16);

/// What was there at the last look.
#[derive(Debug, Default)]
pub struct Watch {
    listeners: BTreeSet<(IpAddr, u16)>,
    connections: BTreeSet<Socket>,
    /// With the look that last had them.
    peers: BTreeMap<Peer, u32>,
    looks: u32,
}

impl Watch {
    /// What is new, each with what it is about. `own`: the numbers of our own sockets.
    pub fn news(&mut self, sockets: &[Socket], own: &BTreeSet<u64>, now: Timestamp) -> Vec<(&'static str, LogEvent)> {
        let mut found = Vec::new();
        let is_ours = |socket: &Socket| socket.inode != 0 && own.contains(&socket.inode);
        let listeners: BTreeSet<_> =
            sockets.iter().filter(|s| s.state == LISTEN && !is_ours(s)).map(|s| s.local).collect();
        let ports: BTreeSet<u16> = listeners.iter().map(|(_, port)| *port).collect();
        let is_between_hosts = |socket: &&Socket| {
            socket.state == ESTABLISHED
                && !is_ours(socket)
                && !socket.remote.0.is_loopback()
                && socket.remote.0 != socket.local.0
        };
        let mut connections = BTreeSet::new();
        let is_first = self.looks == 0;
        self.looks += 1;
        for socket in sockets.iter().filter(is_between_hosts) {
            let is_inbound = ports.contains(&socket.local.1);
            if is_inbound && GUARDED.contains(&socket.local.1) {
                if !self.connections.contains(socket) && !is_first {
                    found.push(("suspicious_connection", suspicious(socket, now)));
                }
                connections.insert(socket.clone());
                continue;
            }
            let peer = (is_inbound, socket.remote.0, if is_inbound { socket.local.1 } else { socket.remote.1 });
            let is_known = self.peers.contains_key(&peer);
            if is_known || self.peers.len() < PEERS_MAX {
                self.peers.insert(peer, self.looks);
            }
            if !is_known && !is_first {
                found.push(("connection_opened", connected(socket, is_inbound, now)));
            }
        }
        let looks = self.looks;
        self.peers.retain(|_, last| looks - *last < PEER_LOOKS);
        if !is_first {
            for (address, port) in listeners.difference(&self.listeners) {
                found.push(("listener_opened", listener("listener_opened", "Listening", *address, *port, now)));
            }
            for (address, port) in self.listeners.difference(&listeners) {
                found.push((
                    "listener_closed",
                    listener("listener_closed", "No longer listening", *address, *port, now),
                ));
            }
        }
        (self.listeners, self.connections) = (listeners, connections);
        found
    }
}

fn listener(event_type: &str, words: &str, address: IpAddr, port: u16, now: Timestamp) -> LogEvent {
    let shown = shown(address, port);
    let labels =
        [("event_type", event_type), ("connection", &*shown), ("severity", "info"), ("local_port", &*port.to_string())];
    log_event(now, "network", format!("{words}: tcp {shown}"), &labels)
}

/// In the words that rules know: as `netstat` shows it.
fn line(socket: &Socket) -> String {
    let (local, remote) = (shown(socket.local.0, socket.local.1), shown(socket.remote.0, socket.remote.1));
    format!("{:<5} 0 0 {local} {remote} ESTABLISHED", socket.protocol)
}

fn suspicious(socket: &Socket, now: Timestamp) -> LogEvent {
    let line = line(socket);
    let labels = [
        ("event_type", "suspicious_connection"),
        ("connection", &*line),
        ("severity", "warning"),
        ("remote_ip", &*socket.remote.0.to_string()),
        ("local_port", &*socket.local.1.to_string()),
    ];
    log_event(now, "network", format!("Suspicious connection: {line}"), &labels)
}

fn connected(socket: &Socket, is_inbound: bool, now: Timestamp) -> LogEvent {
    let line = line(socket);
    let labels = [
        ("event_type", "connection_opened"),
        ("connection", &*line),
        ("severity", "info"),
        ("direction", if is_inbound { "in" } else { "out" }),
        ("remote_ip", &*socket.remote.0.to_string()),
        ("remote_port", &*socket.remote.1.to_string()),
        ("local_port", &*socket.local.1.to_string()),
        ("uid", &*socket.uid.to_string()),
    ];
    log_event(now, "network", format!("Connection: {line}"), &labels)
}

#[cfg(test)]
mod tests {
    use super::super::table::{parse, read, tests::sample};
    use super::*;

    fn news(watch: &mut Watch, sockets: &[Socket]) -> Vec<String> {
        let found = watch.news(sockets, &BTreeSet::new(), Timestamp::from_secs(1));
        found.into_iter().map(|(_, event)| event.message).collect()
    }

    #[test]
    fn a_listening_service_is_no_alarm_and_a_stranger_at_a_guarded_port_is_one_event() {
        let sockets = sample();
        let mut watch = Watch::default();
        assert!(news(&mut watch, &sockets[..1]).is_empty(), "what was there at the start");
        assert!(news(&mut watch, &sockets[..1]).is_empty());
        let expected = [
            "Suspicious connection: tcp   0 0 10.0.0.5:22 192.0.2.7:50000 ESTABLISHED",
            "Connection: tcp   0 0 10.0.0.5:50002 192.0.2.9:22 ESTABLISHED",
        ];
        assert_eq!(news(&mut watch, &sockets), expected, "not the loopback; our way out is no alarm");
        assert!(news(&mut watch, &sockets).is_empty(), "once");
        let mut more = sockets.clone();
        more.push(parse("tcp", "9: 00000000:1F90 00000000:0000 0A 0:0 0:0 0 0 0 5").unwrap());
        assert_eq!(news(&mut watch, &more), ["Listening: tcp 0.0.0.0:8080"]);
        more.push(parse("tcp", "9: 0500000A:1F90 070200C0:C351 01 0:0 0:0 0 0 0 6").unwrap());
        more.push(parse("tcp", "9: 0500000A:1F90 070200C0:C352 01 0:0 0:0 0 0 0 7").unwrap());
        let one = ["Connection: tcp   0 0 10.0.0.5:8080 192.0.2.7:50001 ESTABLISHED"];
        assert_eq!(news(&mut watch, &more), one, "a peer is news once");
        assert_eq!(news(&mut watch, &sockets), ["No longer listening: tcp 0.0.0.0:8080"]);
        (0..PEER_LOOKS).for_each(|_| drop(news(&mut watch, &sockets)));
        assert_eq!(news(&mut watch, &more)[0], one[0], "after an hour without it");
    }

    #[test]
    fn our_own_connections_and_listeners_are_no_news() {
        let sockets = sample();
        let mut watch = Watch::default();
        watch.news(&[], &BTreeSet::new(), Timestamp::from_secs(1));
        let own: BTreeSet<u64> = sockets.iter().map(|socket| socket.inode).collect();
        assert!(watch.news(&sockets, &own, Timestamp::from_secs(1)).is_empty());
        // As the agent runs: its connections are among those of the process.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = format!(":{}", listener.local_addr().unwrap().port());
        let found = watch.news(&read(), &super::super::table::own(), Timestamp::from_secs(1));
        assert!(!found.iter().any(|(_, event)| event.message.ends_with(&port)), "{found:?}");
        let found = watch.news(&read(), &BTreeSet::new(), Timestamp::from_secs(1));
        assert!(found.iter().any(|(_, event)| event.message.ends_with(&port)), "{found:?}");
    }
}
