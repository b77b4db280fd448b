//! POST over kept-alive connections: single events, and NDJSON of 1,000.
//!
//! The load generator shares the machine with the server, so it is as cheap as it can be: one
//! thread, requests built beforehand, and of an answer only the status and the length are read.

use crate::Plan;
use crate::muttd::{ALL_ROLES, Muttd, Setup, Usage};
use crate::peer::HyperPeer;
use crate::record::{Record, percentile};
use anyhow::{Context, Result};
use bytes::Bytes;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

pub const EVENT_BYTES: usize = 272;
pub const CONNECTIONS: [usize; 3] = [64, 256, 1_024];
pub const NDJSON_EVENTS: usize = 1_000;
pub const NDJSON_CONNECTIONS: usize = 8;

/// One event of [`EVENT_BYTES`] bytes; `what` begins its message.
pub fn event(host: usize, what: &str) -> String {
    let mut text = format!(
        r#"{{"hostname":"edge-{host:05}.example.net","timestamp":"2026-11-22T09:59:58Z","syslog_severity":5,"program":"sshd","message":"{what}"#
    );
    let filler = " accepted connection of user operator from 192.0.2.44 on port 51234 with protocol ssh2, session opened by service account, key fingerprint checked";
    let room = EVENT_BYTES.saturating_sub(text.len() + 2);
    text.push_str(&filler[..room.min(filler.len())]);
    text.push_str("\"}");
    text
}

/// A request whose body is `body`, ready for the socket.
pub fn request(key: &str, content_type: &str, body: &str) -> Bytes {
    let length = body.len();
    Bytes::from(format!(
        "POST /api/v2/ingest HTTP/1.1\r\nHost: bench\r\nX-API-KEY: {key}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n{body}"
    ))
}

/// What a load came to.
pub struct Load {
    /// Good answers in the time that counts.
    pub answers: u64,
    /// Good answers, warm-up and all.
    pub all: u64,
    pub errors: u64,
    pub seconds: f64,
    /// Microseconds from the first byte sent to the last byte read.
    pub latencies: Vec<u32>,
}

/// When the connections of a load end.
#[derive(Clone, Copy)]
enum End {
    At(Instant),
    /// Requests of one connection.
    After(usize),
}

/// Each connection sends the next request when the last is answered, for `plan.phase`.
pub fn load_for(plan: &Plan, to: SocketAddr, connections: usize, request: impl Fn(usize) -> Bytes) -> Result<Load> {
    let requests: Vec<Arc<[Bytes]>> = (0..connections).map(|i| Arc::from([request(i)])).collect();
    drive(to, requests, plan.warm_up, |start| End::At(start + plan.warm_up + plan.phase))
}

/// Each connection sends its list of requests once.
pub fn load_all(to: SocketAddr, requests: Vec<Arc<[Bytes]>>) -> Result<Load> {
    let each = requests.first().map_or(0, |r| r.len());
    drive(to, requests, Duration::ZERO, |_| End::After(each))
}

fn drive(to: SocketAddr, requests: Vec<Arc<[Bytes]>>, warm_up: Duration, end: impl Fn(Instant) -> End) -> Result<Load> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut streams = Vec::with_capacity(requests.len());
        for _ in &requests {
            let stream = TcpStream::connect(to).await.context("connecting")?;
            stream.set_nodelay(true)?;
            streams.push(stream);
        }
        let start = Instant::now();
        let end = end(start);
        let mut tasks = JoinSet::new();
        for (stream, requests) in streams.into_iter().zip(requests) {
            tasks.spawn(connection(stream, requests, start + warm_up, end));
        }
        let mut load = Load { answers: 0, all: 0, errors: 0, seconds: 0.0, latencies: Vec::new() };
        while let Some(done) = tasks.join_next().await {
            let done = done?;
            load.latencies.extend(done.latencies);
            load.all += done.good;
            load.errors += done.errors;
        }
        load.answers = load.latencies.len() as u64;
        load.seconds = match end {
            End::At(end) => (end - start - warm_up).as_secs_f64(),
            End::After(_) => start.elapsed().as_secs_f64(),
        };
        Ok(load)
    })
}

/// What one connection came to.
struct Done {
    latencies: Vec<u32>,
    good: u64,
    errors: u64,
}

async fn connection(mut stream: TcpStream, requests: Arc<[Bytes]>, counted_from: Instant, end: End) -> Done {
    let mut done = Done { latencies: Vec::with_capacity(4_096), good: 0, errors: 0 };
    let mut buffer = vec![0; 32 * 1_024];
    for (n, request) in requests.iter().cycle().enumerate() {
        let sent = Instant::now();
        match end {
            End::At(end) if sent >= end => break,
            End::After(most) if n >= most => break,
            End::At(_) | End::After(_) => {}
        }
        let answered = match stream.write_all(request).await {
            Ok(()) => answer(&mut stream, &mut buffer).await,
            Err(error) => Err(error),
        };
        let now = Instant::now();
        let in_time = now >= counted_from && !matches!(end, End::At(end) if now > end);
        match answered {
            Ok(true) => {
                done.good += 1;
                if in_time {
                    done.latencies.push((now - sent).as_micros() as u32);
                }
            }
            Ok(false) => done.errors += 1,
            Err(_) => {
                done.errors += 1;
                break;
            }
        }
    }
    done
}

/// Reads one answer to its end; whether its status is 200.
pub async fn answer(stream: &mut TcpStream, buffer: &mut [u8]) -> std::io::Result<bool> {
    let mut filled = 0;
    let (head, body) = loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        filled += read;
        if let Some(found) = head_and_body(&buffer[..filled]) {
            break found;
        }
    };
    let good = buffer.starts_with(b"HTTP/1.1 200");
    let mut missing = (head + body).saturating_sub(filled);
    while missing > 0 {
        let most = missing.min(buffer.len());
        let read = stream.read(&mut buffer[..most]).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        missing -= read;
    }
    Ok(good)
}

/// Lengths of head and body, once the head is whole.
fn head_and_body(bytes: &[u8]) -> Option<(usize, usize)> {
    const LENGTH: &[u8] = b"content-length: ";
    let (mut from, mut body) = (0, 0);
    loop {
        let line = from + bytes[from..].iter().position(|b| *b == b'\n')?;
        if line - from <= 1 {
            return Some((line + 1, body));
        }
        if bytes[from..line].starts_with(LENGTH) {
            let digits = bytes[from + LENGTH.len()..line].iter().take_while(|b| b.is_ascii_digit());
            body = digits.fold(0, |n, d| n * 10 + usize::from(d - b'0'));
        }
        from = line + 1;
    }
}

/// Notes a load in which every good answer stands for `per_answer` events.
pub fn note(record: &mut Record, name: &str, mut load: Load, per_answer: usize) {
    record.push(format!("{name}/rate"), load.answers as f64 * per_answer as f64 / load.seconds);
    record.push(format!("{name}/p50_ms"), percentile(&mut load.latencies, 0.50) / 1e3);
    record.push(format!("{name}/p99_ms"), percentile(&mut load.latencies, 0.99) / 1e3);
    record.push(format!("{name}/errors"), load.errors as f64);
}

fn measure_hyper(
    plan: &Plan,
    record: &mut Record,
    name: &str,
    connections: usize,
    per_answer: usize,
    body: impl Fn(&str, usize) -> Bytes,
) -> Result<()> {
    let peer = HyperPeer::start()?;
    let load = load_for(plan, peer.address, connections, |i| body("mik_as_long_as_the_keys_that_muttd_makes_", i))?;
    peer.usage().note(record, name, &Usage::default(), (load.all * per_answer as u64) as f64);
    note(record, name, load, per_answer);
    Ok(())
}

fn measure_muttd(
    plan: &Plan,
    record: &mut Record,
    name: &str,
    setup: &Setup,
    connections: usize,
    per_answer: usize,
    body: impl Fn(&str, usize) -> Bytes,
) -> Result<()> {
    let muttd = Muttd::start(plan, setup)?;
    let before = muttd.usage();
    let load = load_for(plan, muttd.ingest, connections, |i| body(&muttd.key, i))?;
    let accepted = muttd.metric("mutt_events_accepted_total", "input=\"http\"")?;
    muttd.note_usage(record, name, &before, accepted);
    note(record, name, load, per_answer);
    Ok(())
}

/// Single events: a bare hyper server, then muttd on disk before the answer, then in memory.
pub fn single(plan: &Plan, record: &mut Record) -> Result<()> {
    let post = |key: &str, i: usize| request(key, "application/json", &event(i, "login"));
    for _ in 0..plan.rounds {
        for connections in CONNECTIONS {
            let name = |what: &str| format!("http/{connections}/{what}");
            measure_hyper(plan, record, &name("hyper"), connections, 1, post)?;
            for durability in ["strict", "memory"] {
                let setup = Setup::new("ingestor", durability);
                measure_muttd(plan, record, &name(durability), &setup, connections, 1, post)?;
            }
            if connections == 256 {
                let setup = Setup::new(ALL_ROLES, "strict");
                measure_muttd(plan, record, &name("strict-all-roles"), &setup, connections, 1, post)?;
            }
        }
    }
    Ok(())
}

/// A body of 1,000 lines.
pub fn ndjson_body(line: impl Fn(usize) -> String) -> String {
    (0..NDJSON_EVENTS).fold(String::new(), |mut text, n| {
        let _ = writeln!(text, "{}", line(n));
        text
    })
}

pub fn ndjson(plan: &Plan, record: &mut Record) -> Result<()> {
    let bodies: Vec<String> =
        (0..NDJSON_CONNECTIONS).map(|i| ndjson_body(|n| event(i * NDJSON_EVENTS + n, "login"))).collect();
    let post = |key: &str, i: usize| request(key, "application/x-ndjson", &bodies[i]);
    for _ in 0..plan.rounds {
        measure_hyper(plan, record, "ndjson/hyper", NDJSON_CONNECTIONS, NDJSON_EVENTS, post)?;
        for durability in ["strict", "memory"] {
            let name = format!("ndjson/{durability}");
            let setup = Setup::new("ingestor", durability);
            measure_muttd(plan, record, &name, &setup, NDJSON_CONNECTIONS, NDJSON_EVENTS, post)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_its_size_and_is_json() {
        let text = event(7, "FAULT-1");
        assert_eq!(text.len(), EVENT_BYTES);
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
    }

    #[test]
    fn an_answers_length_is_read_once_its_head_is_whole() {
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n";
        assert_eq!(head_and_body(head), Some((head.len(), 12)));
        assert_eq!(head_and_body(&head[..head.len() - 1]), None);
    }
}
