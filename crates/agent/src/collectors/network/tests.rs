use super::*;
use crate::collectors::test::{Heard, context};
use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc;

/// A host and a stranger: two network namespaces with a wire between them.
struct Wire {
    host: String,
    stranger: String,
}

fn ip(args: &str) -> Result<(), String> {
    let output = Command::new("ip").args(args.split(' ')).output().map_err(|error| format!("ip: {error}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(format!("ip {args}: {stderr}")) }
}

impl Wire {
    fn new(name: &str) -> Result<Self, String> {
        let id = std::process::id();
        let wire = Self { host: format!("smh-{name}-{id}"), stranger: format!("sms-{name}-{id}") };
        let Self { host, stranger } = &wire;
        ip(&format!("netns add {host}"))?;
        ip(&format!("netns add {stranger}"))?;
        ip(&format!("-n {host} link add veth0 type veth peer name veth0 netns {stranger}")).unwrap();
        for (namespace, last) in [(host, 1), (stranger, 7)] {
            ip(&format!("-n {namespace} addr add 198.51.100.{last}/24 dev veth0")).unwrap();
            ip(&format!("-n {namespace} addr add 2001:db8::{last}/64 dev veth0 nodad")).unwrap();
            ip(&format!("-n {namespace} link set veth0 up")).unwrap();
            ip(&format!("-n {namespace} link set lo up")).unwrap();
        }
        Ok(wire)
    }

    fn within<T: Send + 'static>(
        namespace: &str,
        act: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        let path = format!("/run/netns/{namespace}");
        std::thread::spawn(move || {
            let namespace = File::open(path).unwrap();
            rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), None).unwrap();
            act()
        })
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for namespace in [&self.host, &self.stranger] {
            let _ = ip(&format!("netns del {namespace}"));
        }
    }
}

/// The collector as it runs, on the host's side; nothing where that cannot be, and why is said.
fn listen(name: &str) -> Option<(Wire, Heard, std::thread::JoinHandle<()>)> {
    let wire = match Wire::new(name) {
        Ok(wire) => wire,
        Err(why) => {
            eprintln!("SKIPPED: no network namespaces: {why}");
            return None;
        }
    };
    let (context, heard) = context();
    let (ready, is_ready) = mpsc::channel();
    let thread = Wire::within(&wire.host, move || {
        let mut network = Network {
            tables_every: Duration::from_millis(500),
            ..Network::new(context, Some(Attempts::open().unwrap()), 1_000)
        };
        // What was so at the start is no news, and it knows its addresses.
        network.look();
        ready.send(()).unwrap();
        network.run();
    });
    is_ready.recv().unwrap();
    Some((wire, heard, thread))
}

fn knock(target: &str, ports: std::ops::Range<u16>) {
    for port in ports {
        let address = SocketAddr::new(target.parse().unwrap(), port);
        let _ = TcpStream::connect_timeout(&address, Duration::from_millis(200));
    }
}

#[test]
fn a_scan_over_either_protocol_is_one_event() {
    let Some((wire, mut heard, thread)) = listen("scan") else { return };
    Wire::within(&wire.stranger, || {
        knock("198.51.100.1", 1..101);
        knock("2001:db8::1", 1..101);
    })
    .join()
    .unwrap();
    for source in ["198.51.100.7", "2001:db8::7"] {
        let found = heard.until(|log| log.labels.get("source_ip").is_some_and(|ip| ip == source)).unwrap();
        assert_eq!((&*found.stream, &*found.labels["event_type"]), ("network", "port_scan"));
        let [count, scan, dest] = ["count", "scan", "dest_ip"].map(|label| &*found.labels[label]);
        assert_eq!((count, scan), ("100", "syn"), "{found:?}");
        assert!(matches!(dest, "198.51.100.1" | "2001:db8::1"), "{dest}");
        assert_eq!(found.message, format!("Port scan: 100 closed ports from {source}"));
    }
    std::thread::sleep(Duration::from_secs(1));
    heard.stopper.stop();
    thread.join().unwrap();
    heard.take();
    assert_eq!(heard.logs().count(), 2, "{:?}", heard.all);
}

#[test]
fn a_listening_sshd_its_local_users_and_our_way_out_are_no_alarm() {
    if let Err(error) = Command::new("python3").arg("-V").output() {
        return eprintln!("SKIPPED: no python3 to listen: {error}");
    }
    let Some((wire, mut heard, thread)) = listen("quiet") else { return };
    // Of another process as far as the collector knows: its own sockets would not show that a listener is no alarm.
    let mut sshd = Command::new("ip")
        .args(["netns", "exec", &wire.host, "python3", "-c"])
        .arg("import socket,time; s=socket.create_server(('',22)); print('up',flush=True); time.sleep(60)")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0; 3];
    std::io::Read::read_exact(sshd.stdout.as_mut().unwrap(), &mut line).unwrap();
    let elsewhere = Wire::within(&wire.stranger, || TcpListener::bind("198.51.100.7:9002").unwrap()).join().unwrap();
    let own = Wire::within(&wire.host, || {
        // Over the loopback, many ports: no packets of it are looked at.
        knock("127.0.0.1", 1..101);
        knock("198.51.100.1", 1..101);
        TcpStream::connect("198.51.100.7:9002").unwrap()
    });
    let own = own.join().unwrap();
    heard.until(|log| log.message == "Listening: tcp 0.0.0.0:22").unwrap();
    // As long as it takes to tell a scan, if it was taken for one.
    std::thread::sleep(Duration::from_secs(4));
    drop((own, elsewhere));
    sshd.kill().unwrap();
    sshd.wait().unwrap();
    heard.stopper.stop();
    thread.join().unwrap();
    heard.take();
    let warnings: Vec<_> = heard.logs().filter(|log| log.labels["severity"] != "info").collect();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert!(!heard.logs().any(|log| log.message.contains(":9002")), "{:?}", heard.all);
}
