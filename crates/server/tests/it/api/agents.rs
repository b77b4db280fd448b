//! Agents, through the API.

use super::{Api, NOON, api};
use serde_json::{Value, json};
use std::time::Duration;
use storage::catalog::Actor;
use storage::catalog::fleet::{Enrolled, Enrolment, HostFacts, NewToken, Sighting};

pub fn agent_id(number: u64) -> String {
    format!("agt_{number:026}")
}

impl Api {
    /// Agents of an organisation: number `n` of the host `n`.
    pub async fn enrolled(&self, org: &str, hosts: &[(u64, &str)]) {
        let org: model::OrgId = org.parse().unwrap();
        let by = Actor { name: "t".into(), reason: None, correlation_id: "c".into(), at: NOON };
        let token = NewToken {
            fingerprint: [u8::try_from(hosts[0].0 % 256).unwrap(); 32],
            label: String::new(),
            host: None,
            legacy: false,
            expires_at: NOON.plus(Duration::from_secs(60)),
            uses_max: None,
        };
        let token = self.state.catalog.add_token(&org, token, &by).await.unwrap();
        for (number, host) in hosts {
            let facts = HostFacts {
                hostname: (*host).to_owned(),
                version: "2.0.0".into(),
                ip_address: "192.0.2.7".into(),
                capabilities: vec!["files".into()],
                ..HostFacts::default()
            };
            let enrolment = Enrolment {
                org: org.clone(),
                token,
                id: agent_id(*number),
                key: Some([u8::try_from(number % 256).unwrap(); 32]),
                facts,
                certificate_ends_at: Some(NOON.plus(Duration::from_secs(86_400 * 7))),
                at: NOON,
            };
            let done = self.state.catalog.enrol(enrolment).await.unwrap();
            assert!(matches!(done, Enrolled::New { .. }), "{done:?}");
        }
    }

    pub async fn seen(&self, number: u64, seconds: u64, status: &str) {
        let sighting = Sighting {
            org: self.state.org.clone(),
            id: agent_id(number),
            at: NOON.plus(Duration::from_secs(seconds)),
            connected: true,
            epoch: 1,
            acked_seq: 1,
            facts: None,
            status: Some(status.to_owned()),
        };
        self.state.catalog.sighted(vec![sighting]).await.unwrap();
    }
}

#[tokio::test]
async fn agents_are_listed_with_how_they_are() {
    let api = api().await;
    api.enrolled("default", &[(1, "web-1"), (2, "web-2"), (3, "db-1"), (4, "gone")]).await;
    let status = json!({
        "spool_records": 12, "spool_bytes": 3_000, "lag_ms": 1_500, "rss_bytes": 9_000_000,
        "dropped": { "file": 2, "auth": 5 }, "collectors": { "journal": "no journal here" },
    });
    api.seen(1, 100, &status.to_string()).await;
    api.seen(2, 10, "{}").await;
    api.state.catalog.fell_silent(NOON.plus(Duration::from_secs(50)), 10).await.unwrap();
    api.post(&format!("/api/v2/agents/{}/revoke", agent_id(4)), json!({ "reason": "stolen" })).await.is(200);

    let list = api.get("/api/v2/agents").await.is(200);
    let shown: Vec<(&str, &str)> = list["agents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|agent| (agent["host"].as_str().unwrap(), agent["state"].as_str().unwrap()))
        .collect();
    assert_eq!(shown, [("db-1", "pending"), ("gone", "revoked"), ("web-1", "online"), ("web-2", "offline")]);
    assert_eq!(list["states"], json!({ "online": 1, "offline": 1, "pending": 1, "revoked": 1 }));
    let one = api.get(&format!("/api/v2/agents/{}", agent_id(1))).await.is(200);
    for (key, value) in [
        ("version", json!("2.0.0")),
        ("capabilities", json!(["files"])),
        ("last_seen_at", json!("2026-01-01T12:01:40.000000Z")),
        ("certificate_ends_at", json!("2026-01-08T12:00:00.000000Z")),
        ("lag_ms", json!(1_500)),
        ("spool_records", json!(12)),
        ("dropped", json!({ "auth": 5, "file": 2 })),
        ("dropped_records", json!(7)),
        ("collectors_that_cannot_run", json!({ "journal": "no journal here" })),
        ("connected", json!(true)),
        ("legacy", json!(false)),
    ] {
        assert_eq!(one[key], value, "{key}");
    }
    let hosts = async |query: &str| -> Vec<Value> {
        let found = api.get(&format!("/api/v2/agents?{query}")).await.is(200);
        found["agents"].as_array().unwrap().iter().map(|agent| agent["host"].clone()).collect()
    };
    assert_eq!(hosts("host=WEB").await, ["web-1", "web-2"]);
    assert_eq!(hosts("state=offline").await, ["web-2"]);
    assert_eq!(hosts("limit=1&page=2").await, ["gone"]);
    api.get("/api/v2/agents?state=lost").await.refuses(400, "state: ");
    let gone = api.get(&format!("/api/v2/agents/{}", agent_id(4))).await.is(200);
    assert_eq!((&gone["revoked_why"], &gone["revoked_at"]), (&json!("stolen"), &json!(NOON.rfc3339())));
}

#[tokio::test]
async fn agents_are_thrown_out_and_forgotten_by_whoever_may() {
    let api = api().await;
    api.org("acme").await;
    api.enrolled("default", &[(1, "web-1")]).await;
    api.enrolled("acme", &[(2, "their-1")]).await;
    api.seen(1, 1, "{}").await;
    let (ours, theirs) = (format!("/api/v2/agents/{}", agent_id(1)), format!("/api/v2/agents/{}", agent_id(2)));
    let viewer = api.user("vera", "viewer").await;
    api.call_as(&viewer, "POST", &format!("{ours}/revoke"), None).await.refuses(403, "operator");
    api.call_as(&viewer, "DELETE", &ours, None).await.refuses(403, "operator");
    let operator = api.user("otto", "operator").await;
    api.call_as(&operator, "DELETE", &ours, None).await.refuses(409, "the agent is online");
    api.call_as(&operator, "POST", &format!("{ours}/revoke"), None).await.is(200);
    api.call_as(&operator, "DELETE", &ours, None).await.is(200);
    api.get(&ours).await.refuses(404, "Agent not found");
    let log = api.get("/api/v2/audit?table_name=agents").await.is(200);
    let done: Vec<_> =
        log["logs"].as_array().unwrap().iter().map(|row| (&row["operation"], &row["changed_by"])).collect();
    assert_eq!(done, [(&json!("DELETE"), &json!("otto")), (&json!("UPDATE"), &json!("otto"))]);

    // Another organisation's is not found, unless it is named by who may.
    for (method, path) in [("GET", &theirs), ("DELETE", &theirs)] {
        api.call_as(&operator, method, path, None).await.refuses(404, "Agent not found");
    }
    api.call_as(&operator, "GET", &format!("{theirs}?org=acme"), None).await.refuses(403, "administrators");
    assert_eq!(api.get(&format!("{theirs}?org=acme")).await.is(200)["host"], "their-1");
    let own = api.user_of("acme", "bob", "operator").await;
    api.call_as(&own, "POST", &format!("{theirs}/revoke"), Some(json!({ "why": "x" }))).await.refuses(400, "why: ");
    api.call_as(&own, "POST", &format!("{theirs}/revoke"), None).await.is(200);
}
