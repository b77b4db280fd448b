//! A network of its own for a host: a namespace with one link to this one, and an ear on it.

use socket2::{Domain, Protocol, Socket, Type};
use std::fs::File;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Of all protocols (linux/if_ether.h).
const ETH_P_ALL: u16 = 3;
/// What the ear must hear, or it is deaf.
const CALL: &[u8] = b"anybody may hear this";

pub struct Wire {
    namespace: String,
    link: String,
    /// Of this side; the other is the next address (RFC 5737 §3: for nobody else).
    address: [u8; 4],
}

impl Drop for Wire {
    fn drop(&mut self) {
        let _ = ip(&format!("netns del {}", self.namespace));
        let _ = ip(&format!("link del {}", self.link));
    }
}

fn ip(args: &str) -> Result<(), String> {
    let output = Command::new("ip").args(args.split(' ')).output().map_err(|error| format!("ip: {error}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(format!("ip {args}: {stderr}")) }
}

impl Wire {
    /// Or why the system allows nobody a network of its own. `n` tells the wires of a run apart.
    pub fn lay(n: u8) -> Result<Self, String> {
        let id = std::process::id();
        let (namespace, link) = (format!("muttd-{n}-{id}"), format!("mw{n}x{id}"));
        ip(&format!("netns add {namespace}"))?;
        let wire = Self { namespace, link, address: [203, 0, 113, n * 4 + 1] };
        let Self { namespace, link, address: [a, b, c, d] } = &wire;
        ip(&format!("link add {link} type veth peer name veth0 netns {namespace}"))?;
        ip(&format!("addr add {a}.{b}.{c}.{d}/30 dev {link}")).unwrap();
        ip(&format!("-n {namespace} addr add {a}.{b}.{c}.{}/30 dev veth0", d + 1)).unwrap();
        ip(&format!("-n {namespace} link set veth0 up")).unwrap();
        wire.up();
        Ok(wire)
    }

    pub fn up(&self) {
        ip(&format!("link set {} up", self.link)).unwrap();
    }

    /// What is sent from now on goes nowhere, and nobody is told.
    pub fn down(&self) {
        ip(&format!("link set {} down", self.link)).unwrap();
    }

    /// An address of this side that nobody uses.
    pub fn free_address(&self) -> SocketAddr {
        TcpListener::bind(SocketAddr::from((self.address, 0))).unwrap().local_addr().unwrap()
    }

    /// A command in the namespace that ends up executing `program`, behind `before`.
    pub fn within(&self, before: &[&str], program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]).args(before).arg(program);
        command
    }

    /// Hears every frame of the namespace's end.
    pub fn listen(&self) -> Ear {
        let (namespace, to) = (self.namespace.clone(), SocketAddr::from((self.address, 9)));
        let end = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&end);
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let namespace = File::open(format!("/run/netns/{namespace}")).unwrap();
            rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), None).unwrap();
            let protocol = Protocol::from(i32::from(ETH_P_ALL.to_be()));
            let mut socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            let _ = socket.set_recv_buffer_size(16 << 20);
            UdpSocket::bind("0.0.0.0:0").unwrap().send_to(CALL, to).unwrap();
            ready.send(()).unwrap();
            let (mut heard, mut frame) = (Vec::new(), vec![0; 128 << 10]);
            while !stop.load(Ordering::Relaxed) {
                if let Ok(n) = socket.read(&mut frame) {
                    heard.extend_from_slice(&frame[..n]);
                }
            }
            heard
        });
        is_ready.recv().unwrap();
        Ear { end, thread }
    }
}

pub struct Ear {
    end: Arc<AtomicBool>,
    thread: JoinHandle<Vec<u8>>,
}

impl Ear {
    /// All that was heard, with frames one behind the other.
    pub fn end(self) -> Vec<u8> {
        self.end.store(true, Ordering::Relaxed);
        let heard = self.thread.join().unwrap();
        assert!(has(&heard, CALL), "the ear is deaf");
        heard
    }
}

pub fn has(heard: &[u8], words: &[u8]) -> bool {
    heard.windows(words.len()).any(|window| window == words)
}
