//! The contract of inputs, run by the gateway: with the events of old agents, and with sessions.
#![allow(clippy::unwrap_used, reason = "a test and its helpers")]

mod grpc_support;

use async_trait::async_trait;
use connectors::inputs::Sink;
use connectors::inputs::contract::{self, Running, Sent, Subject};
use grpc_support::{FakeDesk, TOKEN, Tls, config, now_ms, run};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use testkit::agents::{Agent, Authority, log_event, record};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn start(authority: &Authority, sink: Arc<dyn Sink>, stop: runtime::Stop) -> Running {
    let (address, task) = run(config(), sink, &FakeDesk::default(), Arc::new(Tls::new(authority)), None, stop);
    Running { address, task }
}

async fn throw(to: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
}

fn malformed() -> Vec<Vec<u8>> {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    vec![
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n".to_vec(),
        // A frame of 16 MiB; a frame of headers on the connection's own stream; DATA of no stream.
        [preface, &b"\xff\xff\xff\x00\x00\x00\x00\x00\x01"[..]].concat(),
        [preface, &b"\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x01\x01\x05\x00\x00\x00\x00\x80"[..]].concat(),
        [preface, &b"\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x07\x80"[..]].concat(),
        b"\x16\x03\x01\x00\x05hello".to_vec(),
        b"\x16\x03\x01\x00".to_vec(),
    ]
}

struct Events(Authority);

#[async_trait]
impl Subject for Events {
    async fn start(&self, sink: Arc<dyn Sink>, stop: runtime::Stop) -> Running {
        start(&self.0, sink, stop)
    }

    async fn send(&self, to: SocketAddr, messages: &[String]) -> Sent {
        let agent = Agent::plain(to).await.unwrap();
        assert!(agent.authenticate("acme", TOKEN).await.unwrap().authenticated);
        let events = messages.iter().map(|text| log_event("acme", "x7", text)).collect();
        match agent.stream_events(events).await {
            Ok(_) => Sent { acknowledged: messages.len(), ..Sent::default() },
            Err(_) => Sent { refused: messages.len(), ..Sent::default() },
        }
    }

    async fn throw(&self, to: SocketAddr, bytes: &[u8]) {
        throw(to, bytes).await;
    }

    fn malformed(&self) -> Vec<Vec<u8>> {
        malformed()
    }
}

struct Sessions(Authority);

static SPOOL: AtomicU64 = AtomicU64::new(1);

#[async_trait]
impl Subject for Sessions {
    async fn start(&self, sink: Arc<dyn Sink>, stop: runtime::Stop) -> Running {
        start(&self.0, sink, stop)
    }

    async fn send(&self, to: SocketAddr, messages: &[String]) -> Sent {
        let certificate = self.0.agent("acme", "agt_web");
        let client = self.0.client_config(&[&rustls::version::TLS13], Some(&certificate));
        let agent = Agent::encrypted(to, client).await.unwrap();
        let mut session = agent.session(SPOOL.fetch_add(1, Ordering::Relaxed)).await.unwrap();
        let mut seq = 1;
        for part in messages.chunks(60) {
            session.send(seq, now_ms(), part.iter().map(|text| record(text)).collect()).await;
            seq += part.len() as u64;
        }
        let mut acknowledged = 0;
        while acknowledged < messages.len() {
            match session.acked().await {
                Ok(through) => acknowledged = through as usize,
                Err(_) => break,
            }
        }
        Sent { acknowledged, refused: messages.len() - acknowledged, unanswered: 0 }
    }

    async fn throw(&self, to: SocketAddr, bytes: &[u8]) {
        throw(to, bytes).await;
    }

    fn malformed(&self) -> Vec<Vec<u8>> {
        malformed()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_old_agents_keep_the_contract_of_inputs() {
    contract::all(&Events(Authority::new())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_keep_the_contract_of_inputs() {
    contract::all(&Sessions(Authority::new())).await;
}
