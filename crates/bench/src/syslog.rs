//! Syslog over TCP and UDP: muttd's listener (on disk before it counts, and in memory) against
//! rsyslogd writing a file. A fixed number is sent as fast as the senders can; it ends when all are
//! counted, or when nothing more comes.

use crate::Plan;
use crate::muttd::{Muttd, Setup};
use crate::peer::Rsyslog;
use crate::record::Record;
use anyhow::Result;
use std::io::Write;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub const LINE_BYTES: usize = 250;
const QUIET: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(10);

#[derive(Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    pub title: &'static str,
    pub udp: bool,
    senders: u64,
    /// Of all senders together; 0: all they can.
    per_second: u64,
}

pub const CASES: [Case; 5] = [
    Case { name: "tcp-1", title: "TCP, 1 connection", udp: false, senders: 1, per_second: 0 },
    Case { name: "tcp-4", title: "TCP, 4 connections", udp: false, senders: 4, per_second: 0 },
    Case { name: "udp-1", title: "UDP, 1 sender at full speed", udp: true, senders: 1, per_second: 0 },
    Case { name: "udp-2", title: "UDP, 2 senders at full speed", udp: true, senders: 2, per_second: 0 },
    Case { name: "udp-paced", title: "UDP, 1 sender at 100,000/s", udp: true, senders: 1, per_second: 100_000 },
];

fn line(n: usize) -> String {
    let filler = "Failed password for invalid user admin from 203.0.113.7 port 51234 ssh2; ".repeat(4);
    let mut text = format!("<38>Nov 22 09:59:58 web-{:03} sshd[12345]: {n:06} {filler}", n % 500);
    text.truncate(LINE_BYTES);
    text
}

/// How one side took what was sent.
struct Taken {
    sent: u64,
    send_seconds: f64,
    counted: u64,
    seconds: f64,
}

fn drive(plan: &Plan, case: Case, tcp: SocketAddr, udp: SocketAddr, count: impl Fn() -> u64) -> Taken {
    let all = if case.udp { plan.syslog_udp_messages } else { plan.syslog_tcp_messages };
    let each = all / case.senders;
    let start = Instant::now();
    let mut senders: Vec<JoinHandle<std::io::Result<u64>>> = (0..case.senders)
        .map(|_| {
            std::thread::spawn(move || {
                if case.udp { send_udp(udp, each, case.per_second / case.senders) } else { send_tcp(tcp, each) }
            })
        })
        .collect();
    let (mut sent, mut send_seconds) = (0, 0.0);
    let (mut counted, mut last) = (0, start);
    loop {
        std::thread::sleep(POLL);
        let asked = Instant::now();
        let now = count();
        if now > counted {
            (counted, last) = (now, asked);
        }
        if !senders.is_empty() && senders.iter().all(JoinHandle::is_finished) {
            send_seconds = start.elapsed().as_secs_f64();
            sent = senders.drain(..).map(|s| s.join().ok().and_then(Result::ok).unwrap_or(0)).sum();
        }
        // A loss is known only when nothing more comes; a sender may be stuck in a receiver that hangs.
        let quiet = if senders.is_empty() { QUIET } else { QUIET * 15 };
        if (senders.is_empty() && counted >= sent) || last.elapsed() > quiet {
            break;
        }
    }
    Taken { sent, send_seconds, counted, seconds: (last - start).as_secs_f64() }
}

fn send_tcp(to: SocketAddr, messages: u64) -> std::io::Result<u64> {
    const CHUNK: u64 = 250;
    let mut stream = TcpStream::connect(to)?;
    let chunks: Vec<String> =
        (0..40).map(|c| (0..CHUNK as usize).map(|n| line(c * CHUNK as usize + n) + "\n").collect()).collect();
    let mut sent = 0;
    for chunk in chunks.iter().cycle().take((messages / CHUNK) as usize) {
        stream.write_all(chunk.as_bytes())?;
        sent += CHUNK;
    }
    Ok(sent)
}

fn send_udp(to: SocketAddr, messages: u64, per_second: u64) -> std::io::Result<u64> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(to)?;
    let lines: Vec<String> = (0..10_000).map(line).collect();
    let start = Instant::now();
    let mut sent = 0;
    for line in lines.iter().cycle().take(messages as usize) {
        if socket.send(line.as_bytes()).is_ok() {
            sent += 1;
        }
        while per_second > 0 && sent % 64 == 0 && start.elapsed().as_secs_f64() * (per_second as f64) < sent as f64 {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
    Ok(sent)
}

fn note(record: &mut Record, name: &str, taken: &Taken) {
    record.push(format!("{name}/sent_rate"), taken.sent as f64 / taken.send_seconds.max(1e-9));
    record.push(format!("{name}/rate"), taken.counted as f64 / taken.seconds.max(1e-9));
    record.push(format!("{name}/sent"), taken.sent as f64);
    record.push(format!("{name}/counted"), taken.counted as f64);
}

pub fn compare(plan: &Plan, record: &mut Record) -> Result<()> {
    for _ in 0..plan.rounds {
        for case in CASES {
            rsyslog(plan, record, case, false)?;
            if !case.udp {
                rsyslog(plan, record, case, true)?;
            }
            for durability in ["strict", "memory"] {
                muttd(plan, record, case, durability)?;
            }
        }
    }
    Ok(())
}

fn rsyslog(plan: &Plan, record: &mut Record, case: Case, synced: bool) -> Result<()> {
    let name = format!("syslog/{}/{}", case.name, if synced { "rsyslog-synced" } else { "rsyslog" });
    let peer = Rsyslog::start(plan, synced)?;
    let before = peer.usage();
    let mut taken = drive(plan, case, peer.tcp, peer.udp, || peer.written());
    let after = peer.usage();
    taken.counted = peer.counted()?;
    note(record, &name, &taken);
    after.note(record, &name, &before, taken.counted as f64);
    Ok(())
}

fn muttd(plan: &Plan, record: &mut Record, case: Case, durability: &'static str) -> Result<()> {
    let name = format!("syslog/{}/{durability}", case.name);
    let muttd = Muttd::start(plan, &Setup::new("ingestor", durability))?;
    let before = muttd.usage();
    let label = if case.udp { "input=\"syslog_udp\"" } else { "input=\"syslog_tcp\"" };
    let count = || muttd.metric("mutt_events_accepted_total", label).unwrap_or(0.0) as u64;
    let taken = drive(plan, case, muttd.syslog_tcp, muttd.syslog_udp, count);
    note(record, &name, &taken);
    muttd.note_usage(record, &name, &before, taken.counted as f64);
    let lost = muttd.metric("mutt_events_lost_in_kernel_total", label)?;
    let refused = muttd.metric("mutt_events_rejected_total", label)?;
    record.push(format!("{name}/lost"), lost);
    record.push(format!("{name}/unaccounted"), taken.sent as f64 - taken.counted as f64 - lost - refused);
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_line_has_its_size() {
        assert_eq!(super::line(0).len(), super::LINE_BYTES);
        assert_eq!(super::line(9_999).len(), super::LINE_BYTES);
    }
}
