//! The contract of inputs, run by the SNMP listener: with traps, and with informs.
#![allow(clippy::unwrap_used, reason = "a test and its helpers")]

mod snmp_support;

use async_trait::async_trait;
use connectors::inputs::Sink;
use connectors::inputs::contract::{self, Running, Sent, Subject};
use snmp_support::{INFORM, RESPONSE, TRAP, config, notification, run};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::net::UdpSocket;

/// One request-id each, in all tests of this program.
static REQUEST: AtomicU32 = AtomicU32::new(1);

fn start(sink: Arc<dyn Sink>, stop: runtime::Stop) -> Running {
    let (address, task) = run(config(), sink, stop);
    Running { address, task }
}

async fn throw(to: SocketAddr, bytes: &[u8]) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(bytes, to).await.unwrap();
}

fn malformed() -> Vec<Vec<u8>> {
    let mut wrong_community = notification(TRAP, 1, "x");
    let at = wrong_community.windows(4).position(|w| w == b"c0mm").unwrap();
    wrong_community[at] = b'C';
    let mut get = notification(TRAP, 1, "x");
    let at = get.iter().position(|b| *b == TRAP).unwrap();
    get[at] = 0xa0;
    let mut cut = notification(TRAP, 1, "x");
    cut.pop();
    vec![b"".to_vec(), b"<13>syslog".to_vec(), wrong_community, get, cut]
}

struct Traps;

#[async_trait]
impl Subject for Traps {
    async fn start(&self, sink: Arc<dyn Sink>, stop: runtime::Stop) -> Running {
        start(sink, stop)
    }

    async fn send(&self, to: SocketAddr, messages: &[String]) -> Sent {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for message in messages {
            socket.send_to(&notification(TRAP, REQUEST.fetch_add(1, Ordering::Relaxed), message), to).await.unwrap();
        }
        Sent { unanswered: messages.len(), ..Sent::default() }
    }

    fn arrives_as(&self, text: &str) -> String {
        snmp_support::arrives_as(text)
    }

    async fn throw(&self, to: SocketAddr, bytes: &[u8]) {
        throw(to, bytes).await;
    }

    fn malformed(&self) -> Vec<Vec<u8>> {
        malformed()
    }
}

/// A client that repeats each inform until it is answered.
struct Informs;

#[async_trait]
impl Subject for Informs {
    async fn start(&self, sink: Arc<dyn Sink>, stop: runtime::Stop) -> Running {
        start(sink, stop)
    }

    async fn send(&self, to: SocketAddr, messages: &[String]) -> Sent {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut answer = [0; 2_048];
        for message in messages {
            let id = REQUEST.fetch_add(1, Ordering::Relaxed);
            let inform = notification(INFORM, id, message);
            let answered = |answer: &[u8]| answer.ends_with(message.as_bytes()) && answer.contains(&RESPONSE);
            'repeat: loop {
                socket.send_to(&inform, to).await.unwrap();
                while let Ok(came) = tokio::time::timeout(Duration::from_millis(100), socket.recv(&mut answer)).await {
                    if answered(&answer[..came.unwrap()]) {
                        break 'repeat;
                    }
                }
            }
        }
        Sent { acknowledged: messages.len(), ..Sent::default() }
    }

    fn arrives_as(&self, text: &str) -> String {
        snmp_support::arrives_as(text)
    }

    async fn throw(&self, to: SocketAddr, bytes: &[u8]) {
        throw(to, bytes).await;
    }

    fn malformed(&self) -> Vec<Vec<u8>> {
        malformed()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traps_keep_the_contract_of_inputs() {
    contract::all(&Traps).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn informs_keep_the_contract_of_inputs() {
    contract::all(&Informs).await;
}
