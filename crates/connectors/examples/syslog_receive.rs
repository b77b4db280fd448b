//! How many syslog messages the listeners take from a sender on the same machine, with a sink that
//! only counts: `cargo run --release --example syslog_receive`.
#![expect(clippy::print_stdout, reason = "its output is its purpose")]

use async_trait::async_trait;
use connectors::inputs::syslog::{SyslogConfig, bind};
use connectors::inputs::{Accepted, NewEvent, Refused, Reject, Sink};
use model::{Durability, InputKind};
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

const SECONDS: u64 = 4;

/// Counts, and takes as long as a group commit does.
#[derive(Default)]
struct Counting {
    accepted: AtomicU64,
    batches: AtomicU64,
    rejected: AtomicU64,
    lost: AtomicU64,
}

#[async_trait]
impl Sink for Counting {
    async fn admit(&self, _: u32, _: u32) -> Result<(), Refused> {
        Ok(())
    }
    fn room(&self) -> Result<(), Refused> {
        Ok(())
    }
    async fn accept(&self, batch: Vec<NewEvent>, _: Durability) -> Result<Accepted, Refused> {
        tokio::time::sleep(Duration::from_millis(2)).await;
        self.batches.fetch_add(1, Relaxed);
        self.accepted.fetch_add(batch.len() as u64, Relaxed);
        Ok(Accepted { ids: Vec::new(), queue_depth: 0 })
    }
    fn reject(&self, _: Reject<'_>) {
        self.rejected.fetch_add(1, Relaxed);
    }
    fn lost(&self, _: InputKind, n: u64) {
        self.lost.fetch_add(n, Relaxed);
    }
}

fn line() -> String {
    let filler = "Failed password for invalid user admin from 203.0.113.7 port 51234 ssh2; ".repeat(4);
    format!("<38>Nov 22 09:59:58 web-01.example.com sshd[12345]: {filler}")[..250].to_owned()
}

fn main() {
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let Ok(runtime) = threads else { return };
    for (senders, pace) in [(1, 150_000), (1, 0), (2, 0), (4, 0)] {
        let name = format!("UDP, {senders} senders, {pace}/s offered by each (0: all it can)");
        runtime.block_on(measure(&name, true, move |to| {
            let threads: Vec<_> = (0..senders).map(|_| std::thread::spawn(move || send_udp(to, pace))).collect();
            threads.into_iter().map(|t| t.join().unwrap_or(0)).sum()
        }));
    }
    runtime.block_on(measure("TCP, newline", false, send_tcp));
}

async fn measure(name: &str, is_udp: bool, send: impl FnOnce(SocketAddr) -> u64 + Send + 'static) {
    let localhost = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let mut config = SyslogConfig::default();
    if is_udp {
        config.udp = localhost;
    } else {
        config.tcp = localhost;
    }
    let Ok(syslog) = bind(config) else { return };
    let Some(to) = syslog.addresses().udp.or(syslog.addresses().tcp) else { return };
    let sink = Arc::new(Counting::default());
    let (stopper, stop) = runtime::Stopper::new();
    let task = tokio::spawn(syslog.run(sink.clone(), Arc::new(runtime::SystemClock), stop));
    let start = Instant::now();
    let sent = tokio::task::spawn_blocking(move || send(to)).await.unwrap_or(0);
    let seconds = start.elapsed().as_secs_f64();
    tokio::time::sleep(Duration::from_millis(300)).await;
    stopper.stop();
    let _ = task.await;
    let (accepted, lost) = (sink.accepted.load(Relaxed), sink.lost.load(Relaxed));
    println!(
        "{name}: sent {:.0}/s, accepted {:.0}/s in batches of {:.0}, lost {:.1} %, unaccounted {}",
        sent as f64 / seconds,
        accepted as f64 / seconds,
        accepted as f64 / sink.batches.load(Relaxed).max(1) as f64,
        lost as f64 * 100.0 / sent.max(1) as f64,
        sent as i64 - (accepted + lost + sink.rejected.load(Relaxed)) as i64,
    );
}

fn send_udp(to: SocketAddr, per_second: u64) -> u64 {
    let Ok(socket) = UdpSocket::bind("127.0.0.1:0") else { return 0 };
    let _ = socket.connect(to);
    let line = line();
    let start = Instant::now();
    let mut sent = 0;
    while start.elapsed() < Duration::from_secs(SECONDS) {
        for _ in 0..64 {
            sent += u64::from(socket.send(line.as_bytes()).is_ok());
        }
        while per_second > 0 && start.elapsed().as_secs_f64() * (per_second as f64) < sent as f64 {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
    sent
}

fn send_tcp(to: SocketAddr) -> u64 {
    let Ok(mut stream) = TcpStream::connect(to) else { return 0 };
    let lines = (line() + "\n").repeat(1_000);
    let start = Instant::now();
    let mut sent = 0;
    while start.elapsed() < Duration::from_secs(SECONDS) && stream.write_all(lines.as_bytes()).is_ok() {
        sent += 1_000;
    }
    sent
}
