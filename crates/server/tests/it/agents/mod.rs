//! Agents of both generations against the whole control plane.

mod host;
mod legacy;
mod trust;
mod wire;

use crate::support::TestServer;
use host::{Agent, append, log_of, start, terminated, until_said};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tempfile::TempDir;

/// A token for any number of hosts of an organisation.
pub async fn token(server: &TestServer, org: &str, wanted: Value) -> String {
    let (status, body) = server.api("POST", &format!("/api/v2/orgs/{org}/tokens"), Some(wanted)).await;
    assert_eq!(status, 201, "{body}");
    body["token"].as_str().unwrap().to_owned()
}

/// The messages of a stream by host, in the order of their ids.
pub async fn messages(server: &TestServer, org: &str, stream: &str) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut before = String::new();
    loop {
        let (status, page) = server.api("GET", &format!("/api/v2/events?org={org}&limit=1000{before}"), None).await;
        assert_eq!(status, 200, "{page}");
        let events = page["events"].as_array().unwrap();
        let Some(last) = events.last() else { break };
        before = format!("&before={}", last["id"].as_str().unwrap());
        for event in events.iter().map(|event| &event["event"]).filter(|event| event["stream"] == stream) {
            let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
            found.entry(text("hostname")).or_default().push(text("message"));
        }
    }
    found.values_mut().for_each(|messages| messages.reverse());
    found
}

/// Waits until a host's stream holds so many messages; all of them.
pub async fn until_stored(server: &TestServer, (org, host, stream): (&str, &str, &str), count: usize) -> Vec<String> {
    let mut all = Vec::new();
    server
        .until(async || {
            all = messages(server, org, stream).await.remove(host).unwrap_or_default();
            all.len() >= count
        })
        .await;
    all
}

/// The agents of an organisation.
pub async fn fleet(server: &TestServer, org: &str) -> Vec<Value> {
    let (status, body) = server.api("GET", &format!("/api/v2/agents?org={org}"), None).await;
    assert_eq!(status, 200, "{body}");
    body["agents"].as_array().unwrap().clone()
}

fn lines(range: std::ops::Range<usize>) -> impl Iterator<Item = String> {
    range.map(|n| format!("line {n}"))
}

/// An agent of `dir` whose first heartbeat is stored and that follows its file.
async fn enrolled(server: &TestServer, dir: &TempDir, host: &str, token: &str) -> Agent {
    let agent = start(&server.addresses, dir.path(), host, token);
    until_stored(server, ("default", host, "heartbeat"), 1).await;
    until_said(dir.path(), "following /").await;
    agent
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_all_that_a_host_needs() {
    let server = TestServer::start(&[]).await;
    let dir = tempfile::tempdir().unwrap();
    let token = token(&server, "default", json!({"label": "test"})).await;
    let agent = enrolled(&server, &dir, "web-1", &token).await;
    append(dir.path(), lines(0..500));
    let stored = until_stored(&server, ("default", "web-1", "file"), 500).await;
    assert_eq!(stored, lines(0..500).collect::<Vec<_>>(), "each once, in order");
    server
        .until(async || {
            let fleet = fleet(&server, "default").await;
            fleet.iter().any(|agent| agent["host"] == "web-1" && agent["state"] == "online")
        })
        .await;
    assert!(!log_of(dir.path()).contains(&token), "no token in the log");
    assert_eq!(terminated(agent).await, Some(0));
    // Without the token it is known by its certificate.
    append(dir.path(), lines(500..600));
    let agent = start(&server.addresses, dir.path(), "web-1", &token);
    let stored = until_stored(&server, ("default", "web-1", "file"), 600).await;
    assert_eq!(stored, lines(0..600).collect::<Vec<_>>());
    assert_eq!(fleet(&server, "default").await.len(), 1, "it is the same agent");
    drop(agent);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_that_was_away_gets_what_came_meanwhile_once() {
    let server = TestServer::start(&[]).await;
    let dir = tempfile::tempdir().unwrap();
    let token = token(&server, "default", json!({})).await;
    let agent = enrolled(&server, &dir, "web-1", &token).await;
    append(dir.path(), lines(0..100));
    until_stored(&server, ("default", "web-1", "file"), 100).await;
    let agents = server.addresses.agents.unwrap().to_string();
    let data = server.stop().await;
    append(dir.path(), lines(100..1_000));
    let env = [("MUTT_AGENT_LISTEN", agents.as_str())];
    let config = crate::support::load_with(data.path(), "", &env, None);
    let server = TestServer::start_with(data, config).await;
    let stored = until_stored(&server, ("default", "web-1", "file"), 1_000).await;
    assert_eq!(stored, lines(0..1_000).collect::<Vec<_>>());
    assert_eq!(terminated(agent).await, Some(0));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_agents_tell_is_matched_and_alerted_and_never_called_unhandled() {
    let receiver = testkit::Receiver::start().await;
    let env = [("MOOG_WEBHOOK_URL", receiver.url()), ("UNHANDLED_THRESHOLD", "5".to_owned())];
    let env: Vec<(&str, &str)> = env.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let server = TestServer::start(&env).await;
    server.rule("disk is on fire").await;
    let dir = tempfile::tempdir().unwrap();
    let token = token(&server, "default", json!({})).await;
    let agent = enrolled(&server, &dir, "web-1", &token).await;
    append(dir.path(), (0..40).map(|_| "all is well".to_owned()).chain(["the disk is on fire".to_owned()]));
    let delivered = server.deliveries(&receiver, 1).await;
    let alert = delivered[0].json().to_string();
    assert!(alert.contains("web-1") && alert.contains("disk is on fire"), "{alert}");
    until_stored(&server, ("default", "web-1", "file"), 41).await;
    server.worked().await;
    assert_eq!(receiver.deliveries().len(), 1, "40 times the same, and no rule for it");
    drop(agent);
    server.stop().await;
}
