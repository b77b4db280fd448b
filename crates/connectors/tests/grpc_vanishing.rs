//! Clients that are gone as soon as they have said everything: what arrived whole is stored.
//!
//! They speak HTTP/2 by hand, so that all of it is in one write and the end comes right behind.
#![allow(clippy::unwrap_used, reason = "a test and its helpers")]

mod grpc_support;

use bytes::{BufMut, Bytes, BytesMut};
use grpc_support::{DEMO_TOKEN, Gateway};
use h2::client::SendRequest;
use http::Request;
use prost::Message;
use std::net::SocketAddr;
use std::time::Duration;
use testkit::agents::log_event;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wire::{AuthRequest, method};

fn framed(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(message.encoded_len() as u32);
    message.encode(&mut bytes).unwrap();
    bytes.freeze()
}

fn call(path: &str) -> Request<()> {
    let request = Request::post(format!("http://gateway{path}")).header("content-type", "application/grpc");
    request.header("te", "trailers").body(()).unwrap()
}

/// A connection with a login, and the task that drives it.
async fn logged_in(to: SocketAddr) -> (SendRequest<Bytes>, tokio::task::JoinHandle<()>, std::os::fd::OwnedFd) {
    let tcp = TcpStream::connect(to).await.unwrap();
    let second = std::os::fd::AsFd::as_fd(&tcp).try_clone_to_owned().unwrap();
    let (mut send, connection) = h2::client::handshake(tcp).await.unwrap();
    let driver = tokio::spawn(async move {
        let _ = connection.await;
    });
    let (answer, mut body) = send.send_request(call(method::AUTHENTICATE), false).unwrap();
    let login = AuthRequest { org_id: "demo".into(), token: DEMO_TOKEN.into(), ..AuthRequest::default() };
    body.send_data(framed(&login), true).unwrap();
    let mut answer = answer.await.unwrap().into_body();
    while answer.data().await.is_some() {}
    answer.trailers().await.unwrap();
    (send, driver, second)
}

/// How a client leaves.
#[derive(Debug, Clone, Copy)]
enum Leaves {
    /// Its process ends: the kernel closes, and resets where something was not read.
    Closing,
    /// A reset right away.
    Resetting,
    /// It takes the call back, in HTTP/2's own words.
    Cancelling,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_arrived_whole_is_stored_however_its_sender_leaves() {
    for leaves in [Leaves::Closing, Leaves::Resetting, Leaves::Cancelling] {
        for round in 0..40 {
            let gateway = Gateway::start();
            let (mut send, driver, fd) = logged_in(gateway.address).await;
            let is_slow = round % 2 == 0;
            if is_slow {
                // The sender is long gone when its events are taken.
                gateway.sink.hold();
            }
            let (_answer, mut body) = send.send_request(call(method::STREAM_EVENTS), false).unwrap();
            for i in 0..3 {
                let event = log_event("demo", "test-host", &format!("{leaves:?} {i}"));
                body.send_data(framed(&event), i == 2).unwrap();
            }
            // The driver writes it; nothing is read any more.
            tokio::time::sleep(Duration::from_millis(if round % 4 < 2 { 0 } else { 2 })).await;
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            match leaves {
                Leaves::Closing => {}
                Leaves::Resetting => {
                    socket2::SockRef::from(&fd).set_linger(Some(Duration::ZERO)).unwrap();
                }
                Leaves::Cancelling => body.send_reset(h2::Reason::CANCEL),
            }
            // What its kernel has taken is on its way; what it has not was never sent.
            if matches!(leaves, Leaves::Cancelling) {
                drop((body, send));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            driver.abort();
            let _ = driver.await;
            drop(fd);
            if is_slow {
                tokio::time::sleep(Duration::from_millis(5)).await;
                gateway.sink.take();
            }
            let found = tokio::time::timeout(Duration::from_secs(5), gateway.sink.wait_for_events(3)).await;
            assert!(found.is_ok(), "{leaves:?}, round {round}: {:?}", gateway.sink.messages());
            let (sink, _) = gateway.stop().await;
            assert_eq!(sink.messages().len(), 3, "once each");
        }
    }
}

/// Everything of a client in one write, and its end with it: nothing is read until the gateway looks.
#[tokio::test]
async fn a_call_and_the_end_of_its_connection_in_one_read_lose_nothing() {
    for is_reset in [false, true] {
        let gateway = Gateway::start();
        // What a client of HTTP/2 writes for a login and an event is recorded first…
        let recorded = recorded_client().await;
        // …and sent at once, on a runtime that has not looked yet.
        let mut tcp = TcpStream::connect(gateway.address).await.unwrap();
        tcp.write_all(&recorded).await.unwrap();
        if is_reset {
            socket2::SockRef::from(&tcp).set_linger(Some(Duration::ZERO)).unwrap();
        }
        drop(tcp);
        let found = tokio::time::timeout(Duration::from_secs(5), gateway.sink.wait_for_events(1)).await;
        assert!(found.is_ok(), "reset: {is_reset}; rejects: {:?}", gateway.sink.rejects());
        assert_eq!(gateway.sink.messages(), ["in one write"]);
    }
}

/// What a client writes that logs in and, without waiting, sends one event and half-closes.
async fn recorded_client() -> Vec<u8> {
    let (client, mut server) = tokio::io::duplex(64 << 10);
    let (mut send, connection) = h2::client::handshake(client).await.unwrap();
    let driver = tokio::spawn(async move {
        let _ = connection.await;
    });
    let login = AuthRequest { org_id: "demo".into(), token: DEMO_TOKEN.into(), ..AuthRequest::default() };
    let (_a, mut body) = send.send_request(call(method::AUTHENTICATE), false).unwrap();
    body.send_data(framed(&login), true).unwrap();
    let (_b, mut body) = send.send_request(call(method::STREAM_EVENTS), false).unwrap();
    body.send_data(framed(&log_event("demo", "test-host", "in one write")), true).unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    driver.abort();
    let _ = driver.await;
    drop((send, _a, _b));
    let mut bytes = Vec::new();
    server.read_to_end(&mut bytes).await.unwrap();
    bytes
}
