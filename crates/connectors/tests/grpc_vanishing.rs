//! Clients that are gone as soon as they have said everything: what arrived whole is stored.
//!
//! They speak HTTP/2 by hand, so that all of it is in one write and the end comes right behind.
#![allow(clippy::unwrap_used, reason = "a test and its helpers")]

mod grpc_support;

use grpc_support::raw::{
    DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, SETTINGS, frame, framed, head, raw_logged_in,
};
use grpc_support::{Gateway, TOKEN};
use std::time::Duration;
use testkit::agents::log_event;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use wire::{AuthRequest, method};

/// How a client leaves.
#[derive(Debug, Clone, Copy)]
enum Leaves {
    /// Its process ends: the kernel closes, and resets because something was not read.
    Closing,
    /// A reset right away.
    Resetting,
    /// It takes the call back, in HTTP/2's own words, and closes.
    Cancelling,
}

/// Three events and the end of their stream.
fn events(stream: u32) -> Vec<u8> {
    let mut out = frame(HEADERS, END_HEADERS, stream, &head(method::STREAM_EVENTS, b""));
    for (message, flags) in [("a", 0), ("b", 0), ("c", END_STREAM)] {
        out.extend(frame(DATA, flags, stream, &framed(&log_event("acme", "x7", message))));
    }
    out
}

fn leave(tcp: TcpStream, how: Leaves) {
    if matches!(how, Leaves::Resetting) {
        socket2::SockRef::from(&tcp).set_linger(Some(Duration::ZERO)).unwrap();
    }
    drop(tcp);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_arrived_whole_is_stored_however_its_sender_leaves() {
    for how in [Leaves::Closing, Leaves::Resetting, Leaves::Cancelling] {
        for round in 0..40 {
            let gateway = Gateway::start();
            let mut tcp = raw_logged_in(&gateway).await;
            let is_slow = round % 2 == 0;
            if is_slow {
                // The sender is long gone when its events are taken.
                gateway.sink.hold();
            }
            let mut bytes = events(3);
            if matches!(how, Leaves::Cancelling) {
                bytes.extend(frame(RST_STREAM, 0, 3, &8u32.to_be_bytes()));
            }
            tcp.write_all(&bytes).await.unwrap();
            leave(tcp, how);
            if is_slow {
                tokio::time::sleep(Duration::from_millis(5)).await;
                gateway.sink.take();
            }
            let found = tokio::time::timeout(Duration::from_secs(20), gateway.sink.wait_for_events(3)).await;
            assert!(found.is_ok(), "{how:?}, round {round}: {:?}", gateway.sink.messages());
            let (sink, _) = gateway.stop().await;
            assert_eq!(sink.messages(), ["a", "b", "c"], "once each");
        }
    }
}

/// The login, the events and the end of the connection are there before the gateway looks for the first time.
#[tokio::test]
async fn a_whole_connection_in_one_read_loses_nothing() {
    for how in [Leaves::Closing, Leaves::Resetting] {
        let gateway = Gateway::start();
        let login = AuthRequest { org_id: "acme".into(), token: TOKEN.into(), ..AuthRequest::default() };
        let bytes = [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            frame(SETTINGS, 0, 0, &[]),
            frame(HEADERS, END_HEADERS, 1, &head(method::AUTHENTICATE, b"")),
            frame(DATA, END_STREAM, 1, &framed(&login)),
            events(3),
        ];
        // Blocking: on this runtime of one thread, the gateway has not even accepted it.
        let tcp = std::net::TcpStream::connect(gateway.address).unwrap();
        tcp.set_nonblocking(true).unwrap();
        std::io::Write::write_all(&mut &tcp, &bytes.concat()).unwrap();
        leave(TcpStream::from_std(tcp).unwrap(), how);
        let found = tokio::time::timeout(Duration::from_secs(20), gateway.sink.wait_for_events(3)).await;
        assert!(found.is_ok(), "{how:?}; rejects: {:?}", gateway.sink.rejects());
        assert_eq!(gateway.sink.messages(), ["a", "b", "c"]);
    }
}
