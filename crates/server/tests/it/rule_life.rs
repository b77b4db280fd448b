//! Detection rules that organisations keep in the catalog, in a server that runs.

use crate::support::{TestServer, event};
use bytes::Bytes;
use model::{AlertKind, Level, OrgId, Timestamp};
use serde_json::json;
use std::collections::BTreeMap;
use storage::catalog::detection_rules::{DocumentChange, RuleSetting, RuleState};
use storage::catalog::{Actor, AlertFilter, AlertRecord, PageRequest};
use storage::queue::{Durability, QueueName};

fn rule(id: &str) -> String {
    format!(
        "title: Root by password\nid: {id}\nlevel: high\nlogsource: {{product: linux, service: sshd}}\n\
         detection: {{s: {{event_type: ssh_success, User: root}}, condition: s}}\ngroup-by: [SourceIp]\n"
    )
}

fn login(number: u32) -> serde_json::Value {
    let mut body = event("web1", &format!("Accepted password for root from 203.0.113.7 port {number} ssh2"));
    body["program"] = json!("sshd");
    body
}

fn admin() -> Actor {
    Actor { name: "admin".into(), reason: None, correlation_id: "c".into(), at: Timestamp::from_secs(1_800_000_000) }
}

async fn put(server: &TestServer, org: &str, name: &str, text: &str) {
    let change = DocumentChange { name: name.into(), text: Some(text.into()), expected: None };
    server.parts.catalog.change_rule_documents(&org.parse().unwrap(), vec![change], &admin()).await.unwrap();
}

async fn set(server: &TestServer, uid: &str, expected: &RuleSetting, setting: RuleSetting) {
    server.parts.catalog.set_rule(&OrgId::default(), uid, expected, setting, &admin()).await.unwrap();
}

async fn in_force(server: &TestServer, org: &str, uid: &str) {
    let org = org.parse().unwrap();
    let known = || server.parts.detections.sets().of(&org).rules().any(|one| one.rule.header.uid == uid);
    server.until(async || known()).await;
}

async fn alerts(server: &TestServer, org: &str) -> Vec<AlertRecord> {
    let page = PageRequest { page: 1, limit: 1_000 };
    let org = org.parse().unwrap();
    let rows = server.parts.catalog.alerts(&org, &AlertFilter::default(), page).await.unwrap().rows;
    rows.into_iter().filter(|record| record.alert.kind == AlertKind::Detection).collect()
}

fn uid(record: &AlertRecord) -> &str {
    &record.alert.detection.as_deref().unwrap().rule_uid
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_of_the_catalog_change_while_events_come_and_each_event_is_asked_once() {
    const VERSIONS: u32 = 6;
    let server = TestServer::start(&[]).await;
    put(&server, "default", "root.yml", &rule("v1")).await;
    in_force(&server, "default", "v1").await;
    let mut sent = 0;
    for version in 2..=VERSIONS {
        for _ in 0..15 {
            sent += 1;
            server.send(&login(sent)).await;
        }
        put(&server, "default", "root.yml", &rule(&format!("v{version}"))).await;
        // More come before it is known, and after.
        for _ in 0..15 {
            sent += 1;
            server.send(&login(sent)).await;
        }
        in_force(&server, "default", &format!("v{version}")).await;
    }
    sent += 1;
    server.send(&login(sent)).await;
    server.worked().await;
    let alerts = alerts(&server, "default").await;
    assert_eq!(alerts.len(), sent as usize, "none is skipped, none is asked by two versions");
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    alerts.iter().for_each(|record| *counts.entry(uid(record)).or_default() += 1);
    assert_eq!(counts.len(), VERSIONS as usize, "{counts:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_never_meets_the_events_of_another_organisation() {
    let server = TestServer::start(&[]).await;
    put(&server, "acme", "root.yml", &rule("acmes")).await;
    put(&server, "default", "broken.yml", "title: [").await;
    in_force(&server, "acme", "acmes").await;
    server.send(&login(1)).await;
    let mut other = login(2);
    other["_org"] = json!("acme");
    let queue = server.parts.queues.get(QueueName::Ingest);
    queue.publish(vec![Bytes::from(other.to_string())], Durability::Strict).await.unwrap();
    server.worked().await;
    assert!(alerts(&server, "default").await.is_empty());
    let of_acme = alerts(&server, "acme").await;
    assert_eq!(of_acme.len(), 1, "{of_acme:?}");
    assert_eq!(uid(&of_acme[0]), "acmes");
    server.until(async || !server.parts.detections.problems(&OrgId::default()).is_empty()).await;
    assert!(server.parts.detections.problems(&"acme".parse().unwrap()).is_empty());
    // The server of an event that another program wrote accepted one less than it worked.
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_acts_on_a_rule_of_a_file_and_outlives_a_restart() {
    let dir = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let rules = dir.path().join("rule.yml");
    std::fs::write(&rules, rule("shared")).unwrap();
    let rules = rules.display().to_string();
    let env = [("MUTT_DETECTION_RULES", &*rules)];
    let server = TestServer::start_in(std::sync::Arc::clone(&dir), &env, None).await;
    let quiet = RuleSetting { level: Some(Level::Medium), team: Some("IAM".into()), ..RuleSetting::default() };
    set(&server, "shared", &RuleSetting::default(), quiet.clone()).await;
    let level = || server.parts.detections.sets().of(&OrgId::default()).rules().next().map(|one| one.level);
    server.until(async || level() == Some(Level::Medium)).await;
    server.send(&login(1)).await;
    server.worked().await;
    let first = alerts(&server, "default").await.remove(0).alert;
    assert_eq!((first.team.as_str(), first.handling.as_str()), ("IAM", "Ticket_only"));
    set(&server, "shared", &quiet, RuleSetting { state: Some(RuleState::Off), ..quiet.clone() }).await;
    server.stop().await;
    let server = TestServer::start_in(dir, &env, None).await;
    server.send(&login(2)).await;
    server.worked().await;
    assert_eq!(alerts(&server, "default").await.len(), 1, "it is off from the start");
    server.stop().await;
}
