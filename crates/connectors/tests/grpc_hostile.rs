//! Clients that mean harm, or are broken: they end themselves and nobody else.
#![allow(clippy::unwrap_used, reason = "a test and its helpers")]

mod grpc_support;

use connectors::inputs::grpc::{GatewayConfig, TurnedAway};
use grpc_support::raw::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, frame, framed, head, raw,
    raw_logged_in,
};
use grpc_support::{Gateway, config};
use model::RejectReason;
use std::time::Duration;
use testkit::agents::log_event;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wire::method;

/// What the gateway says until it closes; fails when it does not.
async fn rest(mut tcp: TcpStream) -> Vec<u8> {
    let mut out = Vec::new();
    let _ = timeout(Duration::from_secs(10), tcp.read_to_end(&mut out)).await.expect("the gateway closes");
    out
}

/// The kinds of the frames in it.
fn kinds(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
        out.push(head[3]);
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        bytes = rest.get(len..).unwrap_or_default();
    }
    out
}

async fn is_well(gateway: &Gateway) {
    let agent = gateway.logged_in().await;
    let before = gateway.sink.messages().len();
    agent.stream_events(vec![log_event("acme", "x7", "well")]).await.unwrap();
    assert_eq!(gateway.sink.messages().len(), before + 1);
}

#[tokio::test]
async fn calls_that_are_taken_back_by_the_thousand_end_their_connection() {
    let gateway = Gateway::start();
    let mut tcp = raw(&gateway).await;
    let mut bytes = Vec::new();
    for i in 0..20_000u32 {
        let stream = 2 * i + 1;
        bytes.extend(frame(HEADERS, END_HEADERS, stream, &head(method::STREAM_EVENTS, b"")));
        bytes.extend(frame(RST_STREAM, 0, stream, &8u32.to_be_bytes()));
    }
    let _ = tcp.write_all(&bytes).await;
    rest(tcp).await;
    gateway.until("it is turned away", |m| m.turned_away == [TurnedAway::Protocol]).await;
    is_well(&gateway).await;
}

#[tokio::test]
async fn heads_without_end_are_not_kept() {
    let gateway = Gateway::start();
    // One long head in one call: the call is refused, the connection lives.
    let mut tcp = raw(&gateway).await;
    let long = [b"\x00\x01a\x7f\xf1\x77".as_slice(), &[b'x'; 15_344]].concat();
    tcp.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &head(method::STREAM_EVENTS, &long))).await.unwrap();
    tcp.write_all(&frame(PING, 0, 0, &[0; 8])).await.unwrap();
    // A head in a hundred thousand pieces.
    let mut endless = raw(&gateway).await;
    let mut bytes = frame(HEADERS, 0, 1, &head(method::STREAM_EVENTS, b""));
    for i in 0..100_000 {
        let name = format!("{i:05}");
        bytes.extend(frame(CONTINUATION, 0, 1, &[b"\x00\x05", name.as_bytes(), b"\x01v"].concat()));
    }
    let _ = endless.write_all(&bytes).await;
    rest(endless).await;
    is_well(&gateway).await;
}

#[tokio::test]
async fn a_message_that_claims_gigabytes_ends_its_stream() {
    let gateway = Gateway::start();
    for claim in [[0, 0xff, 0xff, 0xff, 0xff], [1, 0, 0, 0, 1], [9, 0, 0, 0, 1]] {
        let mut tcp = raw_logged_in(&gateway).await;
        tcp.write_all(&frame(HEADERS, END_HEADERS, 3, &head(method::STREAM_EVENTS, b""))).await.unwrap();
        let event = framed(&log_event("acme", "x7", "before"));
        tcp.write_all(&frame(DATA, 0, 3, &[&event[..], &claim].concat())).await.unwrap();
        let before = gateway.sink.rejects().len();
        gateway.sink.wait_until("it is counted", |r| r.rejects.len() > before).await;
    }
    gateway.sink.wait_for_events(3).await;
    assert!(gateway.sink.messages().iter().all(|message| message == "before"), "its neighbours are kept");
    assert_eq!(gateway.sink.rejected(RejectReason::TooLarge), 1);
    is_well(&gateway).await;
}

#[tokio::test]
async fn a_window_full_of_heartbeats_waits_for_a_full_queue() {
    let gateway = Gateway::start();
    let mut tcp = raw_logged_in(&gateway).await;
    gateway.sink.refuse(RejectReason::QueueFull, Duration::from_millis(20));
    tcp.write_all(&frame(HEADERS, END_HEADERS, 3, &head(method::STREAM_EVENTS, b""))).await.unwrap();
    let heartbeat = framed(&wire::LogEvent { stream: "heartbeat".into(), ..log_event("", "", "agent alive") });
    let count = (65_536 - 1) / heartbeat.len();
    let bytes: Vec<u8> = (0..count).flat_map(|_| frame(DATA, 0, 3, &heartbeat)).collect();
    tcp.write_all(&bytes).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    gateway.sink.take();
    gateway.sink.wait_for_events(count).await;
    assert!(gateway.desk.memory().turned_away.is_empty());
}

#[tokio::test]
async fn a_message_that_is_none_is_lost_alone() {
    let gateway = Gateway::start();
    let mut tcp = raw_logged_in(&gateway).await;
    tcp.write_all(&frame(HEADERS, END_HEADERS, 3, &head(method::STREAM_EVENTS, b""))).await.unwrap();
    let bytes = [
        framed(&log_event("acme", "x7", "a")),
        b"\0\0\0\0\x03\xff\xff\xff".to_vec(),
        framed(&log_event("acme", "x7", "b")),
    ];
    // However it is cut.
    for byte in bytes.concat() {
        tcp.write_all(&frame(DATA, 0, 3, &[byte])).await.unwrap();
    }
    gateway.sink.wait_for_events(2).await;
    assert_eq!(gateway.sink.messages(), ["a", "b"]);
    assert_eq!(gateway.sink.rejected(RejectReason::Malformed), 1);
}

#[tokio::test]
async fn who_is_slow_or_silent_loses_its_place() {
    let config = GatewayConfig {
        handshake_timeout: Duration::from_millis(200),
        message_timeout: Duration::from_millis(200),
        idle_timeout: Duration::from_millis(200),
        keepalive: Duration::from_millis(200),
        ..config()
    };
    let gateway = Gateway::start_with(config, None);
    // Not a byte; half a preface; half a handshake.
    for begin in [&b""[..], b"PRI * HTTP", b"\x16\x03\x01\x02\x00\x01"] {
        let mut tcp = TcpStream::connect(gateway.address).await.unwrap();
        tcp.write_all(begin).await.unwrap();
        rest(tcp).await;
    }
    gateway.until("all are turned away", |m| m.turned_away == [TurnedAway::TooSlow; 3]).await;
    // No call, and no answer to a ping.
    assert!(kinds(&rest(raw(&gateway).await).await).contains(&PING));
    // Half a message.
    let mut tcp = raw_logged_in(&gateway).await;
    tcp.write_all(&frame(HEADERS, END_HEADERS, 3, &head(method::STREAM_EVENTS, b""))).await.unwrap();
    tcp.write_all(&frame(DATA, 0, 3, &[0, 0, 0, 1, 0, 1])).await.unwrap();
    let said = kinds(&rest(tcp).await);
    assert!(said.contains(&HEADERS) && said.contains(&PING), "{said:?}");
    gateway.until("nobody is left", |memory| memory.connections == 0).await;
    is_well(&gateway).await;
}

#[tokio::test]
async fn who_answers_pings_and_calls_nothing_is_asked_to_go() {
    let config =
        GatewayConfig { idle_timeout: Duration::from_millis(100), keepalive: Duration::from_millis(100), ..config() };
    let gateway = Gateway::start_with(config, None);
    let tcp = TcpStream::connect(gateway.address).await.unwrap();
    let (_send, connection) = h2::client::handshake::<_>(tcp).await.unwrap();
    timeout(Duration::from_secs(5), connection).await.expect("it is ended").unwrap();
    assert!(gateway.desk.memory().turned_away.is_empty());
    // With a call open it stays.
    let agent = gateway.logged_in().await;
    let (_answers, mut commands) = agent.receive_commands().await.unwrap();
    assert!(timeout(Duration::from_secs(1), commands.message()).await.is_err());
}

#[tokio::test]
async fn one_address_has_so_many_connections() {
    let gateway = Gateway::start_with(GatewayConfig { connections_per_ip_max: 2, ..config() }, None);
    let first = gateway.logged_in().await;
    let _second = gateway.logged_in().await;
    let refused = TcpStream::connect(gateway.address).await.unwrap();
    assert!(rest(refused).await.is_empty());
    assert_eq!(gateway.desk.memory().turned_away, [TurnedAway::TooMany]);
    assert_eq!(gateway.sink.rejected(RejectReason::RateLimited), 1);
    drop(first);
    gateway.until("one is free again", |memory| memory.connections == 1).await;
    is_well(&gateway).await;
}

#[tokio::test]
async fn a_connection_that_says_goodbye_in_every_way_is_no_harm() {
    let gateway = Gateway::start();
    for end in [
        frame(GOAWAY, 0, 0, &[0; 8]),
        frame(0x42, 0xff, 7, b"unknown"),
        frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff]),
        frame(RST_STREAM, 0, 99, &[0; 4]),
        frame(PING, 0, 0, b"short"),
    ] {
        let mut tcp = raw(&gateway).await;
        let _ = tcp.write_all(&end).await;
        drop(tcp);
    }
    is_well(&gateway).await;
}
