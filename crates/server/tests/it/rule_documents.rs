//! The life of a detection rule over the API: kept, tried, set, changed and put back, while events come.

use crate::support::{TestServer, event};
use model::{AlertKind, AlertSeverity, OrgId};
use serde_json::{Value, json};
use storage::catalog::{AlertFilter, AlertRecord, PageRequest};

const LOGIN: &str = "\
title: Root logs in by password
id: 7e1c0000-0000-4000-8000-000000000001
name: root_login
level: high
logsource: {product: linux, service: sshd}
detection: {selection: {event_type: ssh_success, User: root}, condition: selection}
";

const UID: &str = "7e1c0000-0000-4000-8000-000000000001";

async fn alerts(server: &TestServer) -> Vec<AlertRecord> {
    let page = PageRequest { page: 1, limit: 1_000 };
    let rows = server.parts.catalog.alerts(&OrgId::default(), &AlertFilter::default(), page).await.unwrap().rows;
    rows.into_iter().filter(|record| record.alert.kind == AlertKind::Detection).collect()
}

async fn put(server: &TestServer, name: &str, text: &str) -> (u16, Value) {
    let url = format!("http://{}/api/v2/detection/documents/{name}", server.addresses.webui.unwrap());
    let request = server.http.put(url).header("x-api-key", &server.web_key).header("content-type", "application/yaml");
    let response = request.body(text.to_owned()).send().await.unwrap();
    (response.status().as_u16(), serde_json::from_str(&response.text().await.unwrap()).unwrap())
}

async fn login(server: &TestServer, user: &str) {
    let mut body = event("web1", &format!("Accepted password for {user} from 203.0.113.7 port 4711 ssh2"));
    body["program"] = json!("sshd");
    server.send(&body).await;
    server.worked().await;
}

async fn said(server: &TestServer, setting: Value) {
    let path = format!("/api/v2/detection/rules/{UID}/setting");
    let (status, answer) = server.api("PUT", &path, Some(setting)).await;
    assert_eq!(status, 200, "{answer}");
}

/// What the rules in force say of the rule.
async fn until_mode(server: &TestServer, wanted: Option<&str>) {
    server
        .until(async || {
            let sets = server.parts.detections.sets();
            let rule = sets.of(&OrgId::default()).rules().find(|one| one.rule.header.uid == UID);
            let mode = rule.map(|one| one.mode).map(|mode| format!("{mode:?}"));
            mode.as_deref() == wanted
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_is_kept_counted_raised_switched_off_and_put_back_while_events_come() {
    let server = TestServer::start(&[]).await;
    login(&server, "root").await;
    assert!(alerts(&server).await.is_empty(), "there is no rule yet");

    let (status, kept) = put(&server, "own%2Flogin.yml", LOGIN).await;
    assert_eq!((status, &kept["version"]), (200, &json!(1)), "{kept}");
    until_mode(&server, Some("Alert")).await;
    login(&server, "root").await;
    let first = alerts(&server).await;
    assert_eq!((first.len(), first[0].alert.severity), (1, AlertSeverity::Major));

    said(&server, json!({ "state": "dry-run" })).await;
    until_mode(&server, Some("DryRun")).await;
    login(&server, "root").await;
    assert_eq!(alerts(&server).await.len(), 1, "nobody is told");
    let (_, rule) = server.api("GET", &format!("/api/v2/detection/rules/{UID}"), None).await;
    assert_eq!((&rule["counts"]["matches"], &rule["state"]), (&json!(2), &json!("dry-run")), "and it is counted");

    said(&server, json!({ "state": "on", "level": "critical", "team": "SOC" })).await;
    until_mode(&server, Some("Alert")).await;
    login(&server, "root").await;
    let all = alerts(&server).await;
    let newest = all.iter().find(|record| record.alert.severity == AlertSeverity::Critical).expect("the new level");
    assert_eq!((all.len(), newest.alert.team.as_str()), (2, "SOC"));

    said(&server, json!({ "state": "off" })).await;
    until_mode(&server, None).await;
    login(&server, "root").await;
    assert_eq!(alerts(&server).await.len(), 2, "it is off");
    let (status, _) = server.api("DELETE", &format!("/api/v2/detection/rules/{UID}/setting"), None).await;
    assert_eq!(status, 200);
    until_mode(&server, Some("Alert")).await;

    let (status, _) = put(&server, "own%2Flogin.yml", &LOGIN.replace("User: root", "User: bob")).await;
    assert_eq!(status, 200);
    server
        .until(async || {
            login(&server, "bob").await;
            alerts(&server).await.len() > 2
        })
        .await;
    let path = "/api/v2/detection/documents/own%2Flogin.yml/restore";
    let (status, restored) = server.api("POST", path, Some(json!({ "version": 1 }))).await;
    assert_eq!((status, &restored["version"]), (200, &json!(3)));
    let before = alerts(&server).await.len();
    server
        .until(async || {
            login(&server, "root").await;
            alerts(&server).await.len() > before
        })
        .await;

    let (status, _) = server.api("DELETE", "/api/v2/detection/documents/own%2Flogin.yml", None).await;
    assert_eq!(status, 200);
    until_mode(&server, None).await;
    let before = alerts(&server).await.len();
    login(&server, "root").await;
    assert_eq!(alerts(&server).await.len(), before, "it is gone");
    let (_, log) = server.api("GET", "/api/v2/audit?limit=200", None).await;
    let changes = log["logs"].as_array().unwrap().iter().filter(|row| row["changed_by"] == "api_key:***").count();
    assert_eq!(changes, 8, "who changed what: {log}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_of_ones_own_takes_the_place_of_the_one_that_ships() {
    let server = TestServer::start(&[("MUTT_SHIPPED_RULES", "true")]).await;
    let uid = "adb64f87-6259-4ae6-9012-fbc8763c7d61";
    let path = format!("/api/v2/detection/rules/{uid}");
    let (_, shipped) = server.api("GET", &path, None).await;
    assert_eq!((&shipped["origin"]["source"], &shipped["level"]), (&json!("shipped"), &json!("critical")));
    let own = shipped["text"].as_str().unwrap().replace("gte: 5", "gte: 2").replace("level: critical", "level: low");
    let (status, kept) = put(&server, "brute.yml", &own).await;
    assert_eq!(status, 200, "{kept}");
    let (_, rule) = server.api("GET", &path, None).await;
    assert_eq!(
        (&rule["origin"]["source"], &rule["replaces"]["source"], &rule["level"]),
        (&json!("document"), &json!("shipped"), &json!("low"))
    );
    let (status, _) = server.api("DELETE", "/api/v2/detection/documents/brute.yml", None).await;
    assert_eq!(status, 200);
    let (_, rule) = server.api("GET", &path, None).await;
    assert_eq!((&rule["origin"]["source"], &rule["replaces"]), (&json!("shipped"), &Value::Null));
    server.stop().await;
}
