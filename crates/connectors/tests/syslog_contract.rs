//! The contract of inputs, run by each syslog listener.
#![allow(clippy::unwrap_used, reason = "a test and its helpers")]

mod syslog_support;

use async_trait::async_trait;
use connectors::inputs::Sink;
use connectors::inputs::contract::{self, Running, Sent, Subject};
use connectors::inputs::syslog::SyslogConfig;
use std::net::SocketAddr;
use std::sync::Arc;
use syslog_support::{Certificate, localhost, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

fn line(message: &str) -> String {
    format!("<13>1 - client test - - - {message}")
}

struct Udp;

#[async_trait]
impl Subject for Udp {
    async fn start(&self, sink: Arc<dyn Sink>, stop: runtime::Stop) -> Running {
        let (addresses, task) = run(SyslogConfig { udp: Some(localhost()), ..SyslogConfig::default() }, sink, stop);
        Running { address: addresses.udp.unwrap(), task }
    }

    async fn send(&self, to: SocketAddr, messages: &[String]) -> Sent {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for message in messages {
            socket.send_to(line(message).as_bytes(), to).await.unwrap();
        }
        Sent { unanswered: messages.len(), ..Sent::default() }
    }

    async fn throw(&self, to: SocketAddr, bytes: &[u8]) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(bytes, to).await.unwrap();
    }

    fn malformed(&self) -> Vec<Vec<u8>> {
        vec![b"".to_vec(), b"\0\r\n".to_vec()]
    }
}

struct Tcp;

#[async_trait]
impl Subject for Tcp {
    async fn start(&self, sink: Arc<dyn Sink>, stop: runtime::Stop) -> Running {
        let (addresses, task) = run(SyslogConfig { tcp: Some(localhost()), ..SyslogConfig::default() }, sink, stop);
        Running { address: addresses.tcp.unwrap(), task }
    }

    async fn send(&self, to: SocketAddr, messages: &[String]) -> Sent {
        let mut stream = TcpStream::connect(to).await.unwrap();
        for message in messages {
            stream.write_all((line(message) + "\n").as_bytes()).await.unwrap();
        }
        stream.shutdown().await.unwrap();
        Sent { unanswered: messages.len(), ..Sent::default() }
    }

    async fn throw(&self, to: SocketAddr, bytes: &[u8]) {
        let mut stream = TcpStream::connect(to).await.unwrap();
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
    }

    fn malformed(&self) -> Vec<Vec<u8>> {
        vec![b"99999999999 <13>x\n".to_vec(), b"16777217 <13>x".to_vec()]
    }
}

struct Tls(Certificate);

#[async_trait]
impl Subject for Tls {
    async fn start(&self, sink: Arc<dyn Sink>, stop: runtime::Stop) -> Running {
        let config = SyslogConfig { tls: Some(self.0.listen()), ..SyslogConfig::default() };
        let (addresses, task) = run(config, sink, stop);
        Running { address: addresses.tls.unwrap(), task }
    }

    async fn send(&self, to: SocketAddr, messages: &[String]) -> Sent {
        let mut stream = self.0.connect(to, &rustls::version::TLS13).await.unwrap();
        for message in messages {
            let line = line(message);
            stream.write_all(format!("{} {line}", line.len()).as_bytes()).await.unwrap();
        }
        stream.shutdown().await.unwrap();
        Sent { unanswered: messages.len(), ..Sent::default() }
    }

    async fn throw(&self, to: SocketAddr, bytes: &[u8]) {
        let mut stream = TcpStream::connect(to).await.unwrap();
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let _ = stream.read(&mut [0; 64]).await;
    }

    fn malformed(&self) -> Vec<Vec<u8>> {
        vec![b"<13>plain text where TLS is spoken\n".to_vec()]
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn udp_keeps_the_contract_of_inputs() {
    contract::all(&Udp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_keeps_the_contract_of_inputs() {
    contract::all(&Tcp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_keeps_the_contract_of_inputs() {
    contract::all(&Tls(Certificate::new())).await;
}
