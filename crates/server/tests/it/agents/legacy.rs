//! Agents of before, and who may still be one (contract security-manager §2.1, §2.2).

use super::{fleet, token, until_stored};

use crate::support::TestServer;
use serde_json::json;
use std::process::Command;
use testkit::agents::{Agent, log_event};
use wire::{AuthRequest, AuthResponse, method};

const DEMO: &str = "sm_tok_demo123";

#[tokio::test(flavor = "multi_thread")]
async fn the_published_token_is_good_in_demonstrations_only() {
    for (env, is_let_in) in [(&[("MUTT_DEMO", "true")][..], true), (&[("AGENT_LEGACY_PLAINTEXT", "true")], false)] {
        let server = TestServer::start(env).await;
        let agent = Agent::plain(server.addresses.agents.unwrap()).await.unwrap();
        let mut answer = AuthResponse::default();
        server
            .until(async || {
                answer = agent.authenticate("demo", DEMO).await.unwrap();
                !answer.error_message.contains("cannot look you up")
            })
            .await;
        assert_eq!(answer.authenticated, is_let_in, "{answer:?}");
        let sent = agent.stream_events(vec![log_event("demo", "test-host", "hello")]).await;
        assert_eq!(sent.is_ok(), is_let_in);
        if is_let_in {
            assert_eq!(answer.heartbeat_interval_seconds, 30);
            assert_eq!(until_stored(&server, ("demo", "test-host", "file"), 1).await, ["hello"]);
            let refused = agent.authenticate("demo", "invalid_token").await.unwrap();
            assert_eq!(refused.error_message, "Invalid org_id or token");
            agent.stream_events(vec![log_event("demo", "test-host", "again")]).await.unwrap();
            until_stored(&server, ("demo", "test-host", "file"), 2).await;
        }
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_switch_nobody_is_served_in_the_clear() {
    let server = TestServer::start(&[]).await;
    let answer = match Agent::plain(server.addresses.agents.unwrap()).await {
        Ok(agent) => agent.authenticate("demo", DEMO).await.map(|answer| answer.authenticated).unwrap_or(false),
        Err(_) => false,
    };
    assert!(!answer);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_agent_registers_speaks_for_its_host_and_for_no_other() {
    let server = TestServer::start(&[("AGENT_LEGACY_PLAINTEXT", "true")]).await;
    let token = token(&server, "default", json!({"host": "legacy-1", "legacy": true})).await;
    let tail = token.splitn(4, '_').nth(3).unwrap().to_owned();
    let agent = Agent::plain(server.addresses.agents.unwrap()).await.unwrap();
    let login = AuthRequest {
        org_id: "default".into(),
        token: token.clone(),
        agent_version: "v1.0.7".into(),
        hostname: "legacy-1".into(),
        ip_address: "10.0.0.9".into(),
        os_type: "linux".into(),
        ..AuthRequest::default()
    };
    let answer: AuthResponse = agent.unary(method::AUTHENTICATE, login.clone()).await.unwrap();
    assert!(answer.authenticated && answer.registered, "{answer:?}");
    assert!(answer.agent_id.starts_with("agt_"));
    let events = [("default", "legacy-1"), ("default", &tail), ("default", "other"), ("victim", "legacy-1")];
    let events = events.iter().enumerate().map(|(n, (org, host))| log_event(org, host, &format!("event {n}")));
    agent.stream_events(events.collect()).await.unwrap();
    let stored = until_stored(&server, ("default", "legacy-1", "file"), 2).await;
    assert_eq!(stored, ["event 0", "event 1"], "the end of a token is its host, and is kept nowhere");
    let listed = fleet(&server, "default").await;
    assert_eq!((listed.len(), &listed[0]["host"]), (1, &json!("legacy-1")));
    // Logging in once more, it is the same.
    let again: AuthResponse = agent.unary(method::AUTHENTICATE, login).await.unwrap();
    assert_eq!(again.agent_id, answer.agent_id);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_streams_without_a_login() {
    let server = TestServer::start(&[("AGENT_LEGACY_PLAINTEXT", "true")]).await;
    let agent = Agent::plain(server.addresses.agents.unwrap()).await.unwrap();
    let refused = agent.stream_events(vec![log_event("default", "h", "m")]).await.unwrap_err();
    assert_eq!(format!("{:?}", refused.code()), "Unauthenticated");
    let enrolment = token(&server, "default", json!({})).await;
    let answer = agent.authenticate("default", &enrolment).await.unwrap();
    assert!(!answer.authenticated, "a token for enrolment is no password: {answer:?}");
    server.stop().await;
}

/// What the original's connectivity test promised to print (contract security-manager §3.7).
#[tokio::test(flavor = "multi_thread")]
async fn the_connectivity_test_says_what_the_original_promised() {
    let server = TestServer::start(&[("MUTT_DEMO", "true")]).await;
    let ingest = server.addresses.agents.unwrap().to_string();
    let test = |args: &[&str], token: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_muttd"));
        command.args(["agent", "test", "--ingest", &ingest]).args(args).env_clear();
        if !token.is_empty() {
            command.env("SM_TOKEN", token);
        }
        async move {
            let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            (output.status.success(), text(&output.stdout), text(&output.stderr))
        }
    };
    let (good, said, why) = test(&[], "").await;
    assert!(good, "{said}{why}");
    for line in [
        "🔗 Testing connection to remote ingest service",
        &format!("   Endpoint: {ingest}"),
        "   Org ID: demo",
        &format!("📡 Connecting to {ingest}..."),
        "🔐 Testing authentication...",
        "✅ Authentication successful!",
        "   Heartbeat interval: 30 seconds",
        "🔄 Testing streaming connection...",
        "✅ Test event sent successfully!",
        "🎉 All tests passed! Remote ingest service is working correctly.",
    ] {
        assert!(said.lines().any(|said| said == line), "{line:?} is missing:\n{said}");
    }
    assert!(!said.contains(DEMO), "the token is not shown");
    assert_eq!(until_stored(&server, ("demo", "test-host", "test"), 1).await.len(), 1);
    // Encrypted, by the fingerprint in the token.
    let legacy = token(&server, "default", json!({"host": "h-1", "legacy": true})).await;
    let (good, said, why) = test(&["--host", "h-1"], &legacy).await;
    assert!(good && said.contains("Org ID: default"), "{said}{why}");
    let (good, _, why) = test(&[], &token(&server, "default", json!({})).await).await;
    assert!(!good && why.contains("for enrolment"), "{why}");
    let (good, _, why) = test(&["--org", "demo"], "wrong").await;
    assert!(!good && why.contains("authentication rejected: Invalid org_id or token"), "{why}");
    let mut other = legacy.clone();
    other.replace_range(other.len() - 4.., "0000");
    let (good, _, why) = test(&["--host", "h-1"], &other).await;
    assert!(!good && why.contains("fingerprint"), "{why}");
    server.stop().await;
}
