//! What can be read between agent and control plane.

use super::host::{append, start_towards};
use super::{token, until_stored};
use crate::support::TestServer;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Hands everything on, and keeps a copy of both directions.
async fn tap(to: SocketAddr, seen: Arc<Mutex<Vec<u8>>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = TcpStream::connect(to).await else { continue };
            let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
            for (mut from, mut to) in [(from_client, to_server), (from_server, to_client)] {
                let seen = Arc::clone(&seen);
                tokio::spawn(async move {
                    let mut buffer = vec![0; 16 << 10];
                    while let Ok(n @ 1..) = from.read(&mut buffer).await {
                        seen.lock().unwrap().extend_from_slice(&buffer[..n]);
                        if to.write_all(&buffer[..n]).await.is_err() {
                            break;
                        }
                    }
                });
            }
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_an_agent_says_can_be_read_on_the_way() {
    let server = TestServer::start(&[]).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let between = tap(server.addresses.agents.unwrap(), Arc::clone(&seen)).await;
    let dir = tempfile::tempdir().unwrap();
    let token = token(&server, "default", json!({})).await;
    let agent = start_towards(&between.to_string(), dir.path(), "web-1", &token);
    until_stored(&server, ("default", "web-1", "heartbeat"), 1).await;
    let words = (0..50).map(|n| format!("a very secret sentence {n}"));
    append(dir.path(), words);
    until_stored(&server, ("default", "web-1", "file"), 50).await;
    let seen = seen.lock().unwrap().clone();
    assert!(seen.len() > 5_000, "{} bytes went by", seen.len());
    let secret = token.rsplit('_').next().unwrap().split('.').next().unwrap();
    for word in ["very secret sentence", "agent alive", "heartbeat", secret, "proto.AgentIngest", "PRI * HTTP"] {
        assert!(!seen.windows(word.len()).any(|bytes| bytes == word.as_bytes()), "{word:?} could be read");
    }
    drop(agent);
    server.stop().await;
}
