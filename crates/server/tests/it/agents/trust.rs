//! Who is believed, and for how long.

use super::host::{append, start, terminated, until_said};
use super::{enrolled, fleet, lines, messages, token, until_stored};
use crate::support::TestServer;
use serde_json::json;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_agent_is_heard_no_more_and_keeps_what_it_has() {
    let server = TestServer::start(&[]).await;
    let dir = tempfile::tempdir().unwrap();
    let token = token(&server, "default", json!({"uses_max": 1})).await;
    let mut agent = enrolled(&server, &dir, "web-1", &token).await;
    let id = fleet(&server, "default").await[0]["id"].as_str().unwrap().to_owned();
    let key = std::fs::read(dir.path().join("data/identity/key.pem")).unwrap();
    let (status, body) = server.api("POST", &format!("/api/v2/agents/{id}/revoke"), Some(json!({}))).await;
    assert_eq!(status, 200, "{body}");
    until_said(dir.path(), "revoked").await;
    append(dir.path(), lines(0..10));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(messages(&server, "default", "file").await.is_empty());
    assert!(agent.is_alive(), "it goes on observing");
    assert_eq!(std::fs::read(dir.path().join("data/identity/key.pem")).unwrap(), key, "and keeps its key");
    assert_eq!(terminated(agent).await, Some(0));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_for_its_hosts_its_uses_and_its_time_only() {
    let server = TestServer::start(&[]).await;
    let once = token(&server, "default", json!({"host": "db-1"})).await;
    let first = tempfile::tempdir().unwrap();
    let one = start(&server.addresses, first.path(), "whatever", &once);
    until_stored(&server, ("default", "db-1", "heartbeat"), 1).await;
    let second = tempfile::tempdir().unwrap();
    let two = start(&server.addresses, second.path(), "db-1", &once);
    until_said(second.path(), "Invalid org_id or token").await;
    let hosts: Vec<String> = messages(&server, "default", "heartbeat").await.into_keys().collect();
    assert_eq!(hosts, ["db-1"], "the token names the host, not whoever has it");
    // The same secret in another organisation's words is another token.
    let third = tempfile::tempdir().unwrap();
    let forged = once.replacen("sm_default_", "sm_victim_", 1);
    let three = start(&server.addresses, third.path(), "db-1", &forged);
    until_said(third.path(), "Invalid org_id or token").await;
    drop((one, two, three));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hosts_of_one_name_are_told_apart() {
    let server = TestServer::start(&[]).await;
    let token = token(&server, "default", json!({})).await;
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let one = enrolled(&server, &first, "web-1", &token).await;
    server.until(async || fleet(&server, "default").await.iter().any(|agent| agent["connected"] == true)).await;
    let two = start(&server.addresses, second.path(), "web-1", &token);
    server.until(async || fleet(&server, "default").await.len() == 2).await;
    let mut hosts: Vec<String> =
        fleet(&server, "default").await.iter().map(|agent| agent["host"].as_str().unwrap().to_owned()).collect();
    hosts.sort();
    assert_eq!(hosts[0], "web-1");
    assert!(hosts[1].starts_with("web-1-"), "{hosts:?}");
    until_stored(&server, ("default", &hosts[1], "heartbeat"), 1).await;
    drop((one, two));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_changed_is_believed_by_agents_of_before_and_after() {
    let server = TestServer::start(&[]).await;
    let before = token(&server, "default", json!({})).await;
    let dir = tempfile::tempdir().unwrap();
    let agent = enrolled(&server, &dir, "old-1", &before).await;
    server.handle.agent_authority().unwrap().rotate().unwrap();
    let after = token(&server, "default", json!({})).await;
    assert_ne!(before.rsplit_once('.').unwrap().1, after.rsplit_once('.').unwrap().1, "another root");
    // Who knows the old root comes again; who has a token of before or of after enrols.
    assert_eq!(terminated(agent).await, Some(0));
    append(dir.path(), lines(0..10));
    let agent = start(&server.addresses, dir.path(), "old-1", &before);
    until_stored(&server, ("default", "old-1", "file"), 10).await;
    for (host, token) in [("new-1", &before), ("new-2", &after)] {
        let dir = tempfile::tempdir().unwrap();
        let _agent = start(&server.addresses, dir.path(), host, token);
        until_stored(&server, ("default", host, "heartbeat"), 1).await;
    }
    drop(agent);
    server.stop().await;
}
