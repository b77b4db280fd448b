//! Who is told of which alerts: routes and incidents, through the whole server.

use crate::support::{TestServer, event, load_with};
use model::{AlertState, OrgId};
use serde_json::json;
use std::sync::Arc;
use storage::catalog::{AlertFilter, PageRequest};
use testkit::Receiver;

const PAGE: PageRequest = PageRequest { page: 1, limit: 200 };

/// A server with two channels, `noc` and `pager`, and these settings.
async fn server(noc: &Receiver, pager: &Receiver, more: &str) -> TestServer {
    let channel = |name: &str, receiver: &Receiver| {
        format!("[[channel]]\ntype = \"moogsoft\"\nname = \"{name}\"\nurl = \"{}\"\n", receiver.url())
    };
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let settings = format!("{}{}{more}", channel("noc", noc), channel("pager", pager));
    let config = load_with(dir.path(), &settings, &[], None);
    TestServer::start_with(dir, config).await
}

async fn in_state(server: &TestServer, state: AlertState) -> Vec<storage::catalog::AlertRecord> {
    let filter = AlertFilter { state: Some(state), ..AlertFilter::default() };
    server.parts.catalog.alerts(&OrgId::default(), &filter, PAGE).await.unwrap().rows
}

#[tokio::test(flavor = "multi_thread")]
async fn each_alert_goes_to_the_channels_of_its_route_and_nobody_else() {
    let (noc, pager) = (Receiver::start().await, Receiver::start().await);
    let routes = "[[routes]]\nmatch = { host = \"lab-*\" }\nchannels = []\n\
                  [[routes]]\nmatch = { team = \"SOC\" }\nchannels = [\"pager\"]\n";
    let server = server(&noc, &pager, routes).await;
    server.rule("DOWN").await;
    server
        .rule_with(json!({"match_string": "LOGIN", "prod_handling": "Page_only", "dev_handling": "Ignore", "team_assignment": "SOC"}))
        .await;
    server.send(&event("sw1", "DOWN 1")).await;
    server.send(&event("sw1", "LOGIN 1")).await;
    server.send(&event("lab-1", "DOWN 1")).await;
    server.until(async || in_state(&server, AlertState::Delivered).await.len() == 2).await;
    server.until(async || in_state(&server, AlertState::Recorded).await.len() == 1).await;
    assert_eq!(noc.deliveries().len(), 1, "what no route takes goes to everybody");
    assert_eq!(pager.deliveries().len(), 2);
    let nobody = &in_state(&server, AlertState::Recorded).await[0];
    assert_eq!((nobody.alert.host.as_str(), nobody.detail.as_deref()), ("lab-1", Some("its route names no channel")));
    server.stop().await;
}

/// Alerts of MUTT's rules are gathered, and nobody looks.
const GATHER: &str = "[[routes]]\ngroup = true\ngroup_by = [\"rule\", \"host\"]\nchannels = [\"noc\"]\n\
                      escalate_after = \"1s\"\nescalate_to = [\"pager\"]\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_one_cause_is_told_once_and_counted_whole() {
    let (noc, pager) = (Receiver::start().await, Receiver::start().await);
    let server = server(&noc, &pager, &GATHER.replace("\"1s\"", "\"1d\"")).await;
    server.rule("DOWN").await;
    for round in 0..3 {
        let batch: String =
            (0..50).map(|n| format!("{}\n", event(["sw1", "sw2"][n % 2], &format!("DOWN {round} {n}")))).collect();
        assert_eq!(server.post(batch).await.status(), 200);
        server.worked().await;
    }
    server.until(async || in_state(&server, AlertState::Delivered).await.len() == 2).await;
    assert_eq!(noc.deliveries().len(), 2, "one of each host");
    let (_, found) = server.api("GET", "/api/v2/incidents", None).await;
    let counts: Vec<_> = found["incidents"].as_array().unwrap().iter().map(|i| i["alerts"].as_u64().unwrap()).collect();
    assert_eq!(counts, [75, 75]);
    let (_, grouped) = server.api("GET", "/api/v2/alerts?state=grouped", None).await;
    assert_eq!(grouped["pagination"]["total"], 148, "every alert is there");
    assert_eq!(server.parts.metrics.incidents_grouped.get(), 148);
    server.until(async || server.parts.metrics.incidents_open.get() == 2).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_acknowledges_is_escalated_once_also_over_a_restart() {
    let (noc, pager) = (Receiver::start().await, Receiver::start().await);
    let started = server(&noc, &pager, &GATHER.replace("\"1s\"", "\"3s\"")).await;
    started.rule("DOWN").await;
    started.send(&event("sw1", "DOWN 1")).await;
    started.send(&event("sw2", "DOWN 1")).await;
    started.until(async || in_state(&started, AlertState::Delivered).await.len() == 2).await;
    let (_, found) = started.api("GET", "/api/v2/incidents?host=sw2", None).await;
    let seen = format!("/api/v2/incidents/{}", found["incidents"][0]["id"]);
    assert_eq!(started.api("POST", &seen, Some(json!({ "action": "acknowledge" }))).await.0, 200);
    let dir = started.stop().await;

    let settings = std::fs::read_to_string(dir.path().join("test.toml")).unwrap();
    let (top, _) = settings.split_once("\n[ingest.agents]").unwrap();
    let config = load_with(dir.path(), top, &[], None);
    let again = TestServer::start_with(dir, config).await;
    again.deliveries(&pager, 1).await;
    again.until(async || in_state(&again, AlertState::Delivered).await.len() == 3).await;
    let told = pager.deliveries()[0].json();
    assert_eq!(told["source_id"], "sw1");
    assert!(told["description"].as_str().unwrap().starts_with("[ESCALATION] incident "), "{told}");
    // More rounds of the keeper than one.
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    assert_eq!((pager.deliveries().len(), noc.deliveries().len()), (1, 2), "once, and of the other never");
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silenced_alert_is_kept_and_the_first_after_the_silence_is_told() {
    let (noc, pager) = (Receiver::start().await, Receiver::start().await);
    let server = server(&noc, &pager, "").await;
    server.rule("DOWN").await;
    let silence = json!({ "match": { "host": "sw*" }, "for": "1h", "reason": "new firmware" });
    assert_eq!(server.api("POST", "/api/v2/silences", Some(silence)).await.0, 201);
    server.send(&event("sw1", "DOWN 1")).await;
    server.send(&event("rt1", "DOWN 1")).await;
    server.until(async || in_state(&server, AlertState::Delivered).await.len() == 1).await;
    let kept = in_state(&server, AlertState::Silenced).await;
    assert_eq!((kept[0].alert.host.as_str(), kept[0].detail.as_deref()), ("sw1", Some("silence 1")));
    assert_eq!(server.api("DELETE", "/api/v2/silences/1", None).await.0, 200);
    server.send(&event("sw1", "DOWN 2")).await;
    server.until(async || in_state(&server, AlertState::Delivered).await.len() == 2).await;
    assert_eq!(noc.deliveries().len(), 2);
    assert_eq!(server.parts.metrics.incidents_silenced.get(), 1);
    server.stop().await;
}
