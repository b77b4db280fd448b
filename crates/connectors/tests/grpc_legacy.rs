//! The tools of the first three generations of agents, as their users know them: what they send, and the lines they print.
#![allow(clippy::unwrap_used, reason = "a test and its helpers")]

mod grpc_support;

use grpc_support::{DEMO_TOKEN, Gateway, TOKEN, config};
use model::RejectReason;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use testkit::agents::{Agent, log_event};
use tonic::Code;
use wire::{AuthRequest, AuthResponse, LogEvent, MitigateResponse, method};

/// What a tool prints.
type Lines = Vec<String>;

/// `tools/test_remote`.
async fn test_remote(to: SocketAddr, org: &str, token: &str) -> Result<Lines, String> {
    let mut lines = vec![
        "🔗 Testing connection to remote ingest service".to_owned(),
        format!("   Endpoint: {to}"),
        format!("   Org ID: {org}"),
        format!("   Token: {token}"),
        format!("📡 Connecting to {to}..."),
    ];
    let agent = Agent::plain(to).await.map_err(|error| error.to_string())?;
    lines.push("🔐 Testing authentication...".to_owned());
    let answer = agent.authenticate(org, token).await.map_err(|status| status.to_string())?;
    if !answer.authenticated {
        return Err(format!("❌ Authentication failed: {}", answer.error_message));
    }
    lines.push("✅ Authentication successful!".to_owned());
    lines.push(format!("   Heartbeat interval: {} seconds", answer.heartbeat_interval_seconds));
    lines.push("🔄 Testing streaming connection...".to_owned());
    let labels = [("test", "true"), ("source", "remote-test")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    let event = LogEvent {
        stream: "test".into(),
        labels: BTreeMap::from(labels),
        ..log_event(org, "test-host", "Remote connection test")
    };
    let (events, _ack) = agent.open_events().await.map_err(|status| status.to_string())?;
    events.send(event).await.map_err(|error| error.to_string())?;
    lines.push("✅ Test event sent successfully!".to_owned());
    // It says that this is all, and is gone; nobody reads the answer.
    drop(events);
    lines.push("🎉 All tests passed! Remote ingest service is working correctly.".to_owned());
    Ok(lines)
}

#[tokio::test]
async fn test_remote_prints_what_its_manual_promises_and_its_event_is_stored() {
    let gateway = Gateway::start();
    let lines = test_remote(gateway.address, "demo", DEMO_TOKEN).await.unwrap();
    let address = gateway.address;
    let expected = [
        "🔗 Testing connection to remote ingest service".to_owned(),
        format!("   Endpoint: {address}"),
        "   Org ID: demo".to_owned(),
        "   Token: sm_tok_demo123".to_owned(),
        format!("📡 Connecting to {address}..."),
        "🔐 Testing authentication...".to_owned(),
        "✅ Authentication successful!".to_owned(),
        "   Heartbeat interval: 30 seconds".to_owned(),
        "🔄 Testing streaming connection...".to_owned(),
        "✅ Test event sent successfully!".to_owned(),
        "🎉 All tests passed! Remote ingest service is working correctly.".to_owned(),
    ];
    assert_eq!(lines, expected);
    gateway.sink.wait_for_events(1).await;
    let object = &gateway.sink.objects()[0];
    assert_eq!((&object["hostname"], &object["stream"]), (&"test-host".into(), &"test".into()));
    assert_eq!(object["labels"], serde_json::json!({ "source": "remote-test", "test": "true" }));
    assert_eq!(gateway.sink.recorded().events[0].org.as_str(), "demo");
    let refused = test_remote(gateway.address, "demo", "wrong").await.unwrap_err();
    assert_eq!(refused, "❌ Authentication failed: Invalid org_id or token");
}

/// `tools/test_auth`: a good login, a bad one, then one event on the same connection.
#[tokio::test]
async fn test_auth_keeps_its_login_after_a_bad_one() {
    let gateway = Gateway::start();
    let agent = gateway.plain().await;
    let good = agent.authenticate("demo", DEMO_TOKEN).await.unwrap();
    assert_eq!((good.authenticated, good.heartbeat_interval_seconds, &*good.error_message), (true, 30, ""));
    let bad = agent.authenticate("demo", "invalid_token").await.expect("a refusal is an answer, not an error");
    let expected = AuthResponse { error_message: "Invalid org_id or token".into(), ..AuthResponse::default() };
    assert_eq!(bad, expected);
    agent.stream_events(vec![log_event("demo", "test-host", "after both")]).await.unwrap();
    assert_eq!(gateway.sink.messages(), ["after both"]);
}

/// `tools/test_enhanced`: it provokes rules, ends its stream, and only then listens for commands.
#[tokio::test]
async fn test_enhanced_gets_the_commands_that_were_given_before_it_listened() {
    let gateway = Gateway::start();
    let agent = gateway.plain().await;
    assert!(agent.authenticate("demo", DEMO_TOKEN).await.unwrap().authenticated);
    let failure = |i: u32| LogEvent {
        stream: "auth".into(),
        ..log_event("demo", "test-enhanced", &format!("Failed password for root from 192.168.1.100 port {i} ssh2"))
    };
    agent.stream_events((0..6).map(failure).collect()).await.unwrap();
    assert_eq!(gateway.sink.messages().len(), 6);
    assert!(gateway.sink.objects().iter().all(|object| object["hostname"] == "test-enhanced"));

    // The control plane answers with a command for the host of this connection.
    gateway.desk.command("demo", "block-1");
    let opened = tokio::time::timeout(Duration::from_secs(5), agent.receive_commands()).await;
    let (answers, mut commands) = opened.expect("open without a word of the client").unwrap();
    assert_eq!(commands.message().await.unwrap().unwrap().request_id, "block-1");
    gateway.desk.command("demo", "block-2");
    assert_eq!(commands.message().await.unwrap().unwrap().request_id, "block-2");
    for request_id in ["block-1", "block-2"] {
        let done = MitigateResponse { request_id: request_id.into(), success: true, error_message: String::new() };
        answers.send(done).await.unwrap();
    }
    gateway.until("both answers", |memory| memory.answered.len() == 2).await;
    drop(answers);
    let more = tokio::time::timeout(Duration::from_millis(300), commands.message()).await;
    assert!(more.is_err(), "it never ends by itself: an old agent would ask again without a pause");
    gateway.desk.command("demo", "block-3");
    assert_eq!(commands.message().await.unwrap().unwrap().request_id, "block-3");
}

/// `tools/send_test` shows no token.
#[tokio::test]
async fn send_test_is_refused() {
    let gateway = Gateway::start();
    let agent = gateway.plain().await;
    let status = agent.stream_events(vec![log_event("demo", "host", "anonymous")]).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(agent.receive_commands().await.err().unwrap().code(), Code::Unauthenticated);
    assert_eq!(gateway.sink.messages().len(), 0);
    assert_eq!(gateway.sink.rejected(RejectReason::Unauthorized), 1);
    // A login is of its connection alone.
    let _other = gateway.logged_in().await;
    let status = agent.stream_events(vec![log_event("acme", "x7", "still anonymous")]).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn an_agent_that_names_its_host_is_registered() {
    let gateway = Gateway::start();
    let request = AuthRequest {
        org_id: "acme".into(),
        token: TOKEN.into(),
        hostname: "web".into(),
        ip_address: "10.0.0.7".into(),
        ..AuthRequest::default()
    };
    let answer: AuthResponse = gateway.plain().await.unary(method::AUTHENTICATE, request).await.unwrap();
    assert_eq!((answer.authenticated, answer.registered, &*answer.agent_id), (true, true, "agt_web"));
}

#[tokio::test]
async fn who_logged_in_speaks_for_itself_only() {
    let gateway = Gateway::start();
    let agent = gateway.logged_in().await;
    let events = vec![
        log_event("acme", "x7", "by the end of the token"),
        log_event("beta", "b", "of another organisation"),
        log_event("acme", "db", "of another host"),
        log_event("acme.web", "x7", "of no organisation"),
        log_event("acme", "web", "by its name"),
    ];
    agent.stream_events(events).await.unwrap();
    assert_eq!(gateway.sink.messages(), ["by the end of the token", "by its name"]);
    assert!(gateway.sink.objects().iter().all(|object| object["hostname"] == "web"));
    assert_eq!(gateway.sink.rejected(RejectReason::Unauthorized), 3);
    assert!(gateway.desk.memory().heard > 0);
}

#[tokio::test]
async fn a_control_plane_that_cannot_tell_is_an_answer_too() {
    let gateway = Gateway::start();
    gateway.desk.memory().is_down = true;
    let answer = gateway.plain().await.authenticate("acme", TOKEN).await.unwrap();
    assert!(!answer.authenticated);
    assert_eq!(answer.error_message, "the catalog is away; try again in 7 s");
}

#[tokio::test]
async fn who_shows_wrong_tokens_over_and_over_has_to_wait() {
    let gateway = Gateway::start();
    let agent = gateway.plain().await;
    let mut answers = Vec::new();
    for i in 0..40 {
        answers.push(agent.authenticate("acme", &format!("sm_acme_1_{i}")).await.unwrap().error_message);
    }
    assert_eq!(answers[0], "Invalid org_id or token");
    assert_eq!(answers[39], "too many wrong tokens from this address; try again in 1 s");
    assert!(!agent.authenticate("acme", TOKEN).await.unwrap().authenticated, "even the right one, for a second");
    let enrolment = wire::EnrollRequest { token: TOKEN.into(), csr_der: vec![1], ..Default::default() };
    assert_eq!(agent.enrol(enrolment).await.unwrap_err().code(), Code::Unavailable);
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert!(agent.authenticate("acme", TOKEN).await.unwrap().authenticated);
}

#[tokio::test]
async fn a_revoked_login_ends_its_events_and_gets_no_more_commands() {
    let gateway = Gateway::start();
    let agent = gateway.logged_in().await;
    let (_answers, mut commands) = agent.receive_commands().await.unwrap();
    let (events, ack) = agent.open_events().await.unwrap();
    events.send(log_event("acme", "x7", "before")).await.unwrap();
    gateway.sink.wait_for_events(1).await;
    gateway.desk.revoke("agt_web");
    assert_eq!(ack.await.unwrap().unwrap_err().code(), Code::Unauthenticated);
    gateway.desk.command("web", "late");
    let more = tokio::time::timeout(Duration::from_millis(500), commands.message()).await;
    assert!(more.is_err(), "open, and without a command");
    assert_eq!(gateway.sink.messages(), ["before"]);
}

#[tokio::test]
async fn what_is_not_there_is_unimplemented() {
    let gateway = Gateway::start();
    let call = gateway.logged_in().await.unary::<_, wire::Ack>("/proto.AgentIngest/Quarantine", wire::Ack {}).await;
    assert_eq!(call.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_full_queue_is_backpressure_and_loses_nothing() {
    let gateway = Gateway::start_with(config(), None);
    let agent = gateway.logged_in().await;
    gateway.sink.refuse(RejectReason::QueueFull, Duration::from_millis(20));
    let (events, ack) = agent.open_events().await.unwrap();
    let text = "x".repeat(1_000);
    let sent = tokio::spawn(async move {
        for i in 0..2_000 {
            events.send(log_event("acme", "x7", &format!("{i} {text}"))).await.unwrap();
        }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!sent.is_finished(), "what the gateway cannot store, its client keeps");
    assert_eq!(gateway.sink.messages().len(), 0);
    gateway.sink.take();
    sent.await.unwrap();
    ack.await.unwrap().unwrap();
    let numbers: Vec<usize> =
        gateway.sink.messages().iter().map(|m| m.split(' ').next().unwrap().parse().unwrap()).collect();
    assert_eq!(numbers, (0..2_000).collect::<Vec<_>>());
}
