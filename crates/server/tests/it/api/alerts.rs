use super::{NOON, api};
use model::{AlertState, Detection, Level};
use serde_json::json;
use std::time::Duration;
use storage::catalog::AlertProgress;
use testkit::builders::alert;

#[tokio::test]
async fn alerts_are_listed_with_their_state_and_found_by_every_filter() {
    let api = api().await;
    let first = alert().number(1).host("sw1").created_at(NOON).build();
    let second = alert().number(2).host("sw2").created_at(NOON.plus(Duration::from_secs(60))).build();
    let (org, catalog) = (&api.state.org, &api.state.catalog);
    catalog.record(org, Vec::new(), vec![first.clone(), second.clone()]).await.unwrap();
    let delivered = AlertProgress {
        id: first.id,
        state: AlertState::Delivered,
        at: NOON,
        attempts: 2,
        detail: Some("moogsoft: 200".into()),
    };
    catalog.mark_alerts(vec![delivered]).await.unwrap();
    for (query, hosts) in [
        (String::new(), &["sw2", "sw1"][..]),
        ("host=sw1".into(), &["sw1"]),
        ("state=pending".into(), &["sw2"]),
        (format!("event_id={}", first.event_id), &["sw1"]),
        ("from=2026-01-01T12:00:30Z".into(), &["sw2"]),
        ("to=2026-01-01T12:00:30Z".into(), &["sw1"]),
        ("limit=1&page=2".into(), &["sw1"]),
    ] {
        let found = api.get(&format!("/api/v2/alerts?{query}")).await.is(200);
        let found: Vec<_> = found["alerts"].as_array().unwrap().iter().map(|a| a["host"].as_str().unwrap()).collect();
        assert_eq!(found, hosts, "{query}");
    }
    let one = api.get(&format!("/api/v2/alerts/{}", first.id)).await.is(200);
    assert_eq!(
        (&one["state"], &one["attempts"], &one["detail"]),
        (&json!("delivered"), &json!(2), &json!("moogsoft: 200"))
    );
    assert_eq!((&one["severity"], &one["event"]["hostname"]), (&json!("Major"), &json!("sw1")));
}

#[tokio::test]
async fn an_alert_carries_what_its_detection_rule_says() {
    let api = api().await;
    let detection = Detection {
        rule_uid: "5a1f".into(),
        name: "login_guessed".into(),
        title: "Login guessed".into(),
        description: "Many failures, then a success".into(),
        level: Level::High,
        tags: vec!["attack.t1110".into()],
        references: vec!["https://example.org/1".into()],
        false_positives: vec!["a scanner of ours".into()],
        fields: vec![("SourceIp".into(), "192.0.2.1".into())],
        events: 6,
    };
    let found = alert().created_at(NOON).severity(detection.level.severity()).detection(detection).build();
    api.state.catalog.record(&api.state.org, Vec::new(), vec![found.clone()]).await.unwrap();
    let shown = api.get(&format!("/api/v2/alerts/{}", found.id)).await.is(200);
    assert_eq!((&shown["kind"], &shown["severity"]), (&json!("detection"), &json!("Major")));
    let expected = json!({
        "rule_uid": "5a1f",
        "name": "login_guessed",
        "title": "Login guessed",
        "description": "Many failures, then a success",
        "level": "high",
        "tags": ["attack.t1110"],
        "references": ["https://example.org/1"],
        "false_positives": ["a scanner of ours"],
        "fields": [{ "name": "SourceIp", "value": "192.0.2.1" }],
        "events": 6,
    });
    assert_eq!(shown["detection"], expected);
    let listed = api.get("/api/v2/alerts").await.is(200);
    assert_eq!(listed["alerts"][0]["detection"], expected);
}

#[tokio::test]
async fn what_is_no_alert_is_refused() {
    let api = api().await;
    api.get(&format!("/api/v2/alerts/{}", alert().build().id)).await.refuses(404, "no such alert");
    api.get("/api/v2/alerts/evt_1").await.refuses(400, "alr_");
    for query in ["state=lost", "page=0", "from=x", "event_id=1"] {
        let name = query.split('=').next().unwrap();
        api.get(&format!("/api/v2/alerts?{query}")).await.refuses(400, &format!("{name}: "));
    }
    let foreign = alert().org("acme").build();
    api.state.catalog.record(&foreign.org, Vec::new(), vec![foreign.clone()]).await.unwrap();
    api.get(&format!("/api/v2/alerts/{}", foreign.id)).await.refuses(404, "no such alert");
}
