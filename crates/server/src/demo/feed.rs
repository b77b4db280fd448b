//! Sends the sample events through the real doors, at a pace that a person can follow.

use super::post;
use super::samples::{self, Door, Sample};
use anyhow::Context as _;
use runtime::{Clock, Secret, Stop};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Where the events go.
#[derive(Clone)]
pub struct Feeder {
    /// `http://127.0.0.1:8080/api/v2/ingest`
    pub ingest_url: String,
    pub api_key: Secret,
    pub syslog_tcp: SocketAddr,
    pub syslog_udp: SocketAddr,
    pub rate_per_second: u32,
    /// What the events' time stamps are taken from.
    pub clock: Arc<dyn Clock>,
}

/// What was fed.
#[derive(Debug, Clone, Default)]
pub struct Fed {
    pub udp: u64,
    pub tcp: u64,
    pub http: u64,
    /// Answers to HTTP posts other than 200, by status.
    pub http_refused: BTreeMap<u16, u64>,
    /// Events that did not leave, and why the first one did not.
    pub failed: u64,
    pub first_failure: Option<String>,
    pub took: Duration,
}

impl Fed {
    /// Events that left.
    pub fn sent(&self) -> u64 {
        self.udp + self.tcp + self.http
    }

    fn fail(&mut self, door: Door, error: &std::io::Error) {
        self.failed += 1;
        self.first_failure.get_or_insert_with(|| format!("{door:?}: {error}"));
    }
}

impl Feeder {
    /// A pace that a person can follow; the story takes about six seconds.
    pub const RATE_PER_SECOND: u32 = 60;

    /// Sends the whole story. `captions` is told when a part of it begins. Fails only if there is
    /// nobody to talk to; what cannot be sent later is counted. Ends early when stopped.
    pub async fn run(&self, log: &SentLog, captions: mpsc::Sender<&'static str>, stop: &Stop) -> anyhow::Result<Fed> {
        let mut wires = Wires::open(self).await?;
        let mut fed = Fed::default();
        let pause = Duration::from_secs(1) / self.rate_per_second.max(1);
        let start = Instant::now();
        for (due, sample) in samples::story().into_iter().scan(start, |due, sample| {
            *due += pause;
            Some((*due, sample))
        }) {
            tokio::select! {
                () = stop.requested() => break,
                () = tokio::time::sleep_until(due) => {}
            }
            if let Some(caption) = sample.caption {
                let _ = captions.send(caption).await; // nobody watches: fine
            }
            self.send(&mut wires, sample, log, &mut fed).await;
        }
        wires.close().await;
        fed.took = start.elapsed();
        Ok(fed)
    }

    async fn send(&self, wires: &mut Wires, sample: Sample, log: &SentLog, fed: &mut Fed) {
        let text = samples::fill(sample.text, self.clock.now());
        // Before the sending: an alert may overtake the end of this call.
        log.note(sample.door, &text, Instant::now());
        let (result, count) = match sample.door {
            Door::Udp => (wires.udp.send(text.as_bytes()).await.map(drop), &mut fed.udp),
            Door::TcpLines => (wires.lines.write_all(format!("{text}\n").as_bytes()).await, &mut fed.tcp),
            Door::TcpCounted => {
                (wires.counted.write_all(format!("{} {text}", text.len()).as_bytes()).await, &mut fed.tcp)
            }
            Door::Http => (self.post(&text, &mut fed.http_refused).await, &mut fed.http),
        };
        match result {
            Ok(()) => *count += 1,
            Err(error) => fed.fail(sample.door, &error),
        }
    }

    async fn post(&self, body: &str, refused: &mut BTreeMap<u16, u64>) -> std::io::Result<()> {
        let status = post::json(&self.ingest_url, self.api_key.expose(), body).await?;
        if status != 200 {
            *refused.entry(status).or_default() += 1;
        }
        Ok(())
    }
}

struct Wires {
    udp: UdpSocket,
    lines: TcpStream,
    counted: TcpStream,
}

impl Wires {
    async fn open(feeder: &Feeder) -> anyhow::Result<Self> {
        let any: SocketAddr = match feeder.syslog_udp {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let udp = UdpSocket::bind(any).await.context("failed to open a UDP socket for the sample events")?;
        udp.connect(feeder.syslog_udp).await.with_context(|| format!("failed to reach udp {}", feeder.syslog_udp))?;
        Ok(Self { udp, lines: connect(feeder.syslog_tcp).await?, counted: connect(feeder.syslog_tcp).await? })
    }

    /// Tells the server that no more comes; what was written is still read.
    async fn close(&mut self) {
        let _ = self.lines.shutdown().await;
        let _ = self.counted.shutdown().await;
    }
}

async fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream =
        TcpStream::connect(address).await.with_context(|| format!("failed to reach the syslog door tcp {address}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// When which event was sent, so that an alert's latency can be told. Grows with the story only.
#[derive(Debug, Clone, Default)]
pub struct SentLog(Arc<Mutex<Vec<Sent>>>);

#[derive(Debug)]
struct Sent {
    /// Ends with the message.
    said: String,
    /// Names the host.
    by: String,
    at: Instant,
    /// An alert for it has come.
    answered: bool,
}

impl SentLog {
    /// Notes an event as it is sent.
    pub fn note(&self, door: Door, text: &str, at: Instant) {
        let (said, by) = match door {
            Door::Udp | Door::TcpLines | Door::TcpCounted => (text.to_owned(), text.to_owned()),
            Door::Http => {
                let event: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
                let field = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
                (field("message"), field("hostname"))
            }
        };
        self.lock().push(Sent { said, by, at, answered: false });
    }

    /// How long ago, seen from `arrived`, the event behind an alert was sent. Events with the same
    /// text are answered in their order.
    pub fn latency(&self, host: &str, message: &str, arrived: Instant) -> Option<Duration> {
        if host.is_empty() || message.is_empty() {
            return None;
        }
        let mut log = self.lock();
        let sent = log.iter_mut().find(|s| !s.answered && s.said.ends_with(message) && s.by.contains(host))?;
        sent.answered = true;
        Some(arrived.saturating_duration_since(sent.at))
    }

    /// How many events a host sent.
    pub fn count_of(&self, host: &str) -> usize {
        self.lock().iter().filter(|sent| !host.is_empty() && sent.by.contains(host)).count()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Sent>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
