//! Syslog listeners on real sockets of the loopback interface.
#![allow(clippy::unwrap_used, reason = "a test and its helpers")]

mod syslog_support;

use connectors::inputs::contract::{Random, RecordingSink};
use connectors::inputs::syslog::{BindError, SyslogConfig, bind};
use model::{InputKind, RejectReason};
use runtime::tls::MinimumTls;
use runtime::{Stopper, SystemClock};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use syslog_support::{Certificate, localhost, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn tcp() -> SyslogConfig {
    SyslogConfig { tcp: Some(localhost()), ..SyslogConfig::default() }
}

fn udp() -> SyslogConfig {
    SyslogConfig { udp: Some(localhost()), ..SyslogConfig::default() }
}

async fn write(to: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn framings_may_change_from_message_to_message_and_order_is_kept() {
    let sink = RecordingSink::new();
    let (stopper, stop) = Stopper::new();
    let (addresses, task) = run(tcp(), sink.clone(), stop);
    let mut stream = Vec::new();
    for i in 0..5_000 {
        let message = format!("<13>1 - h app - - - {i}");
        match i % 4 {
            0 => stream.extend(format!("{} {message}", message.len()).into_bytes()),
            1 => stream.extend(format!("{message}\n").into_bytes()),
            2 => stream.extend(format!("{message}\r\n").into_bytes()),
            _ => stream.extend(format!("{message}\0").into_bytes()),
        }
    }
    stream.extend(b"<13>1 - h app - - - the last has no end");
    let mut connection = write(addresses.tcp.unwrap(), &stream).await;
    connection.shutdown().await.unwrap();
    sink.wait_for_events(5_001).await;
    let mut expected: Vec<String> = (0..5_000).map(|i| i.to_string()).collect();
    expected.push("the last has no end".to_owned());
    assert_eq!(sink.messages(), expected);
    assert!(sink.recorded().events.iter().all(|e| e.input == InputKind::SyslogTcp));
    assert_eq!(sink.rejects(), []);
    stopper.stop();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_beyond_the_bound_is_cut_marked_and_counted() {
    let sink = RecordingSink::new();
    let (stopper, stop) = Stopper::new();
    let config = SyslogConfig { max_message_bytes: 1_024, udp: Some(localhost()), ..tcp() };
    let (addresses, task) = run(config, sink.clone(), stop);
    let long = "x".repeat(5_000);
    let counted = format!("<13>1 - h app - - - {long}");
    let stream = format!("<13>1 - h app - - - {long}\n{} {counted}<13>1 - h app - - - after\n", counted.len());
    let _connection = write(addresses.tcp.unwrap(), stream.as_bytes()).await;
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(counted.as_bytes(), addresses.udp.unwrap()).await.unwrap();
    sink.wait_for_events(4).await;
    let objects = sink.objects();
    assert_eq!(objects.iter().filter(|o| o.get("truncated") == Some(&true.into())).count(), 3);
    assert_eq!(objects.iter().filter(|o| o["message"] == "x".repeat(1_024 - 20)).count(), 3);
    assert_eq!(sink.rejected(RejectReason::TooLarge), 3);
    assert!(sink.messages().contains(&"after".to_owned()));
    stopper.stop();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_sink_makes_tcp_wait_with_bounded_memory() {
    let sink = RecordingSink::new();
    let (stopper, stop) = Stopper::new();
    let (addresses, task) = run(tcp(), sink.clone(), stop);
    sink.refuse(RejectReason::QueueFull, Duration::from_millis(10));
    let line = format!("<13>1 - h app - - - {}\n", "y".repeat(980)).repeat(1_000);
    let mut connection = TcpStream::connect(addresses.tcp.unwrap()).await.unwrap();
    let mut written = 0;
    let patience = Duration::from_millis(500);
    while let Ok(n) = tokio::time::timeout(patience, connection.write(&line.as_bytes()[written % line.len()..])).await {
        written += n.unwrap();
        assert!(written < 64 << 20, "the sender must be made to wait");
    }
    assert!(sink.refusals() > 1 && sink.messages().is_empty());
    sink.take();
    connection.shutdown().await.unwrap();
    // `write` may have stopped inside a line: its rest never came.
    sink.wait_for_events(written.div_ceil(1_001)).await;
    stopper.stop();
    task.await.unwrap();
    assert_eq!(sink.messages().len(), written.div_ceil(1_001));
    assert_eq!(sink.rejects(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_beyond_the_cap_are_closed_and_counted_and_make_room_again() {
    let sink = RecordingSink::new();
    let (stopper, stop) = Stopper::new();
    let (addresses, task) = run(SyslogConfig { max_connections: 3, ..tcp() }, sink.clone(), stop);
    let to = addresses.tcp.unwrap();
    let mut held = Vec::new();
    for i in 0..3 {
        held.push(write(to, format!("<13>1 - h a - - - {i}\n").as_bytes()).await);
        sink.wait_for_events(i + 1).await;
    }
    let mut fourth = TcpStream::connect(to).await.unwrap();
    assert!(matches!(fourth.read(&mut [0; 8]).await, Ok(0) | Err(_)), "closed at once");
    sink.wait_until("the closed one is counted", |r| r.rejects.len() == 1).await;
    held.clear();
    for _ in 0..100 {
        if let Ok(mut next) = TcpStream::connect(to).await {
            let _ = next.write_all(b"<13>1 - h a - - - again\n").await;
        }
        if sink.messages().contains(&"again".to_owned()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(sink.messages().contains(&"again".to_owned()));
    stopper.stop();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_connection_is_closed_and_its_tail_kept() {
    let sink = RecordingSink::new();
    let (_stopper, stop) = Stopper::new();
    let (addresses, _task) =
        run(SyslogConfig { idle_timeout: Duration::from_millis(100), ..tcp() }, sink.clone(), stop);
    let mut connection = write(addresses.tcp.unwrap(), b"<13>1 - h a - - - tail").await;
    assert!(matches!(connection.read(&mut [0; 8]).await, Ok(0) | Err(_)));
    sink.wait_for_events(1).await;
    assert_eq!(sink.messages(), ["tail"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_takes_1_3_by_default_and_1_2_only_where_configured() {
    let certificate = Certificate::new();
    for (minimum, old_client_works) in [(MinimumTls::Tls13, false), (MinimumTls::Tls12, true)] {
        let sink = RecordingSink::new();
        let (stopper, stop) = Stopper::new();
        let mut listen = certificate.listen();
        listen.minimum = minimum;
        let (addresses, task) = run(SyslogConfig { tls: Some(listen), ..SyslogConfig::default() }, sink.clone(), stop);
        let to = addresses.tls.unwrap();
        let mut new = certificate.connect(to, &rustls::version::TLS13).await.unwrap();
        new.write_all(b"<13>1 - h a - - - new\n").await.unwrap();
        sink.wait_for_events(1).await;
        let old = certificate.connect(to, &rustls::version::TLS12).await;
        assert_eq!(old.is_ok(), old_client_works);
        if let Ok(mut old) = old {
            old.write_all(b"<13>1 - h a - - - old\n").await.unwrap();
            sink.wait_for_events(2).await;
        } else {
            sink.wait_until("the refused handshake is counted", |r| r.rejects.len() == 1).await;
        }
        assert!(sink.recorded().events.iter().all(|e| e.input == InputKind::SyslogTls));
        stopper.stop();
        task.await.unwrap();
    }
}

/// `InErrors` of UDP: datagrams for any socket of this host that no program got.
fn dropped_by_the_host() -> u64 {
    let snmp = std::fs::read_to_string("/proc/net/snmp").unwrap();
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Udp:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names.split_ascii_whitespace().position(|name| name == "InErrors").unwrap();
    values.split_ascii_whitespace().nth(at).unwrap().parse().unwrap()
}

/// Sends numbered datagrams and checks that each ends in exactly one count.
/// Linux 6.18 spreads a socket's drop counter over the processors, and under load its sum was once
/// seen 3 short of 30,000 while the host's own counter was right; what the host counted beyond the
/// socket is therefore counted here too, and nothing else is borne.
async fn burst_is_accounted_for(refuse: bool) {
    const SENT: usize = 30_000;
    let dropped_before = dropped_by_the_host();
    let beyond_the_socket =
        move |lost: u64| usize::try_from((dropped_by_the_host() - dropped_before).saturating_sub(lost)).unwrap();
    let sink = RecordingSink::new();
    let (stopper, stop) = Stopper::new();
    let config = SyslogConfig { receive_buffer_bytes: 4_096, ..udp() };
    let (addresses, task) = run(config, sink.clone(), stop);
    if refuse {
        sink.refuse(RejectReason::QueueFull, Duration::from_millis(50));
    } else {
        sink.hold();
    }
    let to = addresses.udp.unwrap();
    tokio::task::spawn_blocking(move || {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let filler = "z".repeat(900);
        for i in 0..SENT {
            socket.send_to(format!("<13>1 - h a - - - {i} {filler}").as_bytes(), to).unwrap();
        }
    })
    .await
    .unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    sink.take();
    sink.wait_until("every datagram is counted once", |r| {
        r.events.len() + r.rejects.len() + usize::try_from(r.lost).unwrap() + beyond_the_socket(r.lost) >= SENT
    })
    .await;
    stopper.stop();
    task.await.unwrap();
    let recorded = sink.recorded();
    let lost = usize::try_from(recorded.lost).unwrap();
    let counted = recorded.events.len() + recorded.rejects.len() + lost;
    assert!(counted <= SENT, "{counted} of {SENT}: none is counted twice");
    assert!(counted + beyond_the_socket(recorded.lost) >= SENT, "{counted} of {SENT}: each is counted");
    assert!(lost + recorded.rejects.len() > 0, "the burst was larger than the buffers");
    assert_eq!(refuse, !recorded.rejects.is_empty(), "only what the sink refused counts as rejected");
    assert!(recorded.rejects.iter().all(|(reason, _)| *reason == RejectReason::QueueFull));
    let mut messages: Vec<String> = recorded.messages().collect();
    messages.sort();
    messages.dedup();
    assert_eq!(messages.len(), recorded.events.len(), "nothing twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_kernel_drops_while_the_sink_is_slow_is_counted() {
    burst_is_accounted_for(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_no_place_while_the_sink_refuses_is_counted() {
    burst_is_accounted_for(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_datagram_is_one_event_whatever_lines_it_has() {
    let sink = RecordingSink::new();
    let (stopper, stop) = Stopper::new();
    let (addresses, task) = run(udp(), sink.clone(), stop);
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(b"<13>1 - h a - - - one\ntwo\r\n\0", addresses.udp.unwrap()).await.unwrap();
    sink.wait_for_events(1).await;
    let event = sink.objects().remove(0);
    assert_eq!((event["message"].as_str(), event["source_ip"].as_str()), (Some("one\ntwo"), Some("127.0.0.1")));
    stopper.stop();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_unspecified_ipv6_address_takes_ipv4_too() {
    let any = SocketAddr::from(([0u16; 8], 0));
    let sink = RecordingSink::new();
    let (stopper, stop) = Stopper::new();
    let (addresses, task) =
        run(SyslogConfig { udp: Some(any), tcp: Some(any), ..SyslogConfig::default() }, sink.clone(), stop);
    let (udp, tcp) = (addresses.udp.unwrap().port(), addresses.tcp.unwrap().port());
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(b"<13>u4", ("127.0.0.1", udp)).await.unwrap();
    let socket = tokio::net::UdpSocket::bind("[::1]:0").await.unwrap();
    socket.send_to(b"<13>u6", ("::1", udp)).await.unwrap();
    let _a = write(SocketAddr::from(([127, 0, 0, 1], tcp)), b"<13>t4\n").await;
    let _b = write(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], tcp)), b"<13>t6\n").await;
    sink.wait_for_events(4).await;
    for event in sink.objects() {
        let expected = if event["message"].as_str().unwrap().ends_with('4') { "127.0.0.1" } else { "::1" };
        assert_eq!(event["source_ip"], expected);
        assert_eq!(event["hostname"], expected);
    }
    stopper.stop();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seeded_noise_on_every_listener_gives_sound_events_only() {
    let certificate = Certificate::new();
    let sink = RecordingSink::new();
    let (stopper, stop) = Stopper::new();
    let config = SyslogConfig { udp: Some(localhost()), tls: Some(certificate.listen()), ..tcp() };
    let (addresses, task) = run(config, sink.clone(), stop);
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut random = Random(20_261_122);
    for _ in 0..100 {
        let bytes = random.hostile();
        socket.send_to(&bytes, addresses.udp.unwrap()).await.unwrap();
        for to in [addresses.tcp.unwrap(), addresses.tls.unwrap()] {
            let mut stream = TcpStream::connect(to).await.unwrap();
            let _ = stream.write_all(&bytes).await;
        }
        let mut inside = certificate.connect(addresses.tls.unwrap(), &rustls::version::TLS13).await.unwrap();
        let _ = inside.write_all(&bytes).await;
        let _ = inside.flush().await;
    }
    socket.send_to(b"<13>alive", addresses.udp.unwrap()).await.unwrap();
    sink.wait_until("the listener lives", |r| r.messages().any(|m| m == "alive")).await;
    stopper.stop();
    task.await.unwrap();
    assert!(sink.messages().len() > 100);
    sink.assert_sound();
}

#[tokio::test]
async fn what_cannot_be_bound_is_said_in_a_sentence() {
    let first = bind(tcp()).unwrap();
    let taken = first.addresses().tcp;
    let message = |config| match bind(config) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("it must not be bound"),
    };
    let text = message(SyslogConfig { tcp: taken, ..SyslogConfig::default() });
    assert!(
        text.contains("cannot listen for syslog on TCP 127.0.0.1:") && text.contains("another process has it"),
        "{text}"
    );
    let text = message(SyslogConfig { timezone: "Mars/Olympus".to_owned(), ..SyslogConfig::default() });
    assert!(text.contains("Mars/Olympus"), "{text}");
    let mut listen = Certificate::new().listen();
    listen.key = "/nonexistent".into();
    assert!(matches!(bind(SyslogConfig { tls: Some(listen), ..SyslogConfig::default() }), Err(BindError::Tls(_))));
}

#[tokio::test]
async fn nothing_to_listen_on_still_waits_for_its_stop() {
    let (stopper, stop) = Stopper::new();
    let task =
        tokio::spawn(bind(SyslogConfig::default()).unwrap().run(RecordingSink::new(), Arc::new(SystemClock), stop));
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!task.is_finished());
    stopper.stop();
    task.await.unwrap();
}
