//! The requests of the original's network scripts (contract mutt §11), against the whole server.

use crate::support::{TestServer, event};
use serde_json::{Value, json};
use std::net::SocketAddr;
use testkit::Receiver;

const KEYS: [(&str, &str); 2] = [("INGEST_API_KEY", "test-ingest"), ("WEBUI_API_KEY", "test-webui")];

async fn get(server: &TestServer, address: SocketAddr, path: &str, key: Option<&str>) -> (u16, Value) {
    let mut request = server.http.get(format!("http://{address}{path}"));
    if let Some(key) = key {
        request = request.header("X-API-KEY", key);
    }
    let response = request.send().await.unwrap();
    let (status, text) = (response.status().as_u16(), response.text().await.unwrap());
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

/// `tests/smoke/test_smoke.py`.
#[tokio::test(flavor = "multi_thread")]
async fn the_smoke_tests_hold() {
    let server = TestServer::start(&KEYS).await;
    let web = server.addresses.webui.unwrap();
    let forwarder =
        server.addresses.workers.iter().filter(|(role, _)| *role == "forwarder").map(|(_, address)| *address);
    for address in [server.addresses.ingest.unwrap(), web].into_iter().chain(forwarder) {
        let (status, health) = get(&server, address, "/health", None).await;
        assert_eq!((status, &health["status"]), (200, &json!("healthy")), "{address}: {health}");
    }
    assert_eq!(get(&server, web, "/api/v2/metrics", None).await.0, 401);
    let (status, metrics) = get(&server, web, "/api/v2/metrics", Some("test-webui")).await;
    assert!(status == 200 && metrics["summary"].is_object() && metrics["chart_24h"].is_object(), "{metrics}");
    let (status, rules) = get(&server, web, "/api/v2/rules", Some("test-webui")).await;
    assert!(status == 200 && rules["rules"].is_array(), "{rules}");
    let (status, audit) = get(&server, web, "/api/v2/config-audit?limit=1", Some("test-webui")).await;
    assert!(status == 200 && audit["changes"].is_array() && audit["pagination"].is_object(), "{audit}");
    server.stop().await;
}

/// `tests/integration/test_e2e_flow.py`, with the rule that it needs.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_to_end_flow_holds() {
    let receiver = Receiver::start().await;
    let url = receiver.url();
    let mut env = KEYS.to_vec();
    env.extend([("MOOG_WEBHOOK_URL", url.as_str()), ("MOOG_API_KEY", "test-moog")]);
    let server = TestServer::start(&env).await;
    server.rule("E2E").await;
    let answer = server.send(&event("e2e-host", "E2E test message")).await;
    assert_eq!(answer["status"], "queued");
    let sent = server.deliveries(&receiver, 1).await;
    assert_eq!(sent.len(), 1);
    server.stop().await;
}

/// `tests/load/flood_ingest.py`: several senders, and only 200 counts.
#[tokio::test(flavor = "multi_thread")]
async fn the_flood_holds() {
    let server = TestServer::start(&KEYS).await;
    let url = server.ingest_url("/api/v2/ingest");
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..10 {
        let (http, url) = (server.http.clone(), url.clone());
        senders.spawn(async move {
            let mut good = 0;
            for n in 0..50 {
                let body = event(&format!("flood-{sender}"), &format!("message {n}")).to_string();
                let request =
                    http.post(&url).header("X-API-KEY", "test-ingest").header("content-type", "application/json");
                good += u32::from(request.body(body).send().await.unwrap().status() == 200);
            }
            good
        });
    }
    assert_eq!(senders.join_all().await.into_iter().sum::<u32>(), 500);
    server.stop().await;
}
