use super::{Api, NOON, api, with_key};
use axum::body::Body;
use model::{Detection, Level};
use serde_json::{Value, json};
use std::time::Duration;
use testkit::builders::alert;

/// Records an alert of a detection rule as detection would.
async fn detect(api: &Api, number: u64, rule: &str, source: &str) {
    let detection = Detection {
        rule_uid: rule.into(),
        title: format!("Login guessed ({rule})"),
        level: Level::High,
        events: 1,
        ..Detection::default()
    };
    let found = alert()
        .number(number)
        .host("web-1")
        .team("SOC")
        .severity(detection.level.severity())
        .signature(source)
        .created_at(NOON.plus(Duration::from_secs(number)))
        .detection(detection)
        .build();
    let planned = vec![api.state.planner.plan(found)];
    api.state.catalog.record_planned(&api.state.org, Vec::new(), planned).await.unwrap();
}

async fn act(api: &Api, id: u64, body: Value) -> super::Answer {
    api.post(&format!("/api/v2/incidents/{id}"), body).await
}

#[tokio::test]
async fn alerts_of_one_cause_are_one_incident_with_its_alerts() {
    let api = api().await;
    for (number, rule, source) in [(1, "a", "192.0.2.1"), (2, "a", "192.0.2.1"), (3, "a", "192.0.2.2"), (4, "b", "x")] {
        detect(&api, number, rule, source).await;
    }
    for (query, ids) in [
        ("", &[3, 2, 1][..]),
        ("?status=open", &[3, 2, 1]),
        ("?status=closed", &[]),
        ("?status=active&rule=a", &[2, 1]),
        ("?team=SOC&host=web-1&limit=1&page=2", &[2]),
        ("?assignee=bob", &[]),
        ("?from=2026-01-01T12:00:04Z", &[3]),
    ] {
        let found = api.get(&format!("/api/v2/incidents{query}")).await.is(200);
        let found: Vec<_> = found["incidents"].as_array().unwrap().iter().map(|i| i["id"].as_u64().unwrap()).collect();
        assert_eq!(found, ids, "{query}");
    }
    let one = api.get("/api/v2/incidents/1").await.is(200);
    assert_eq!((&one["status"], &one["severity"], &one["alerts"]), (&json!("ACTIVE"), &json!("Major"), &json!(2)));
    assert_eq!(
        (&one["told"], &one["key"], &one["title"]),
        (&json!(1), &json!("a|192.0.2.1"), &json!("Login guessed (a)"))
    );
    let states: Vec<_> = one["last_alerts"].as_array().unwrap().iter().map(|a| a["state"].clone()).collect();
    assert_eq!(states, [json!("grouped"), json!("pending")]);
    assert_eq!(api.get("/api/v2/alerts?incident_id=1").await.is(200)["pagination"]["total"], 2);
    assert_eq!(api.get("/api/v2/alerts?state=grouped").await.is(200)["pagination"]["total"], 1);
}

#[tokio::test]
async fn what_people_do_is_done_once_and_told() {
    let api = api().await;
    detect(&api, 1, "a", "x").await;
    let seen = act(&api, 1, json!({ "action": "acknowledge", "comment": "I look" })).await.is(200);
    assert_eq!((&seen["status"], &seen["comment"]), (&json!("ACKNOWLEDGED"), &json!("I look")));
    act(&api, 1, json!({ "action": "acknowledge" })).await.is(200);
    let mine = act(&api, 1, json!({ "action": "assign", "assignee": "bob" })).await.is(200);
    assert_eq!(mine["assignee"], "bob");
    assert_eq!(act(&api, 1, json!({ "action": "assign" })).await.is(200)["assignee"], Value::Null);
    act(&api, 1, json!({ "action": "resolve" })).await.is(200);
    act(&api, 1, json!({ "action": "dismiss" })).await.refuses(409, "closed");
    act(&api, 1, json!({ "action": "reopen" })).await.is(200);
    let dismissed = act(&api, 1, json!({ "action": "dismiss", "comment": "a scanner of ours" })).await.is(200);
    assert_eq!((&dismissed["status"], dismissed["closed_by"].is_string()), (&json!("DISMISSED"), true));
    let one = api.get("/api/v2/incidents/1").await.is(200);
    let moves: Vec<_> = one["history"].as_array().unwrap().iter().map(|c| c["after"]["status"].clone()).collect();
    assert_eq!(
        moves,
        ["DISMISSED", "ACTIVE", "RESOLVED", "ACKNOWLEDGED", "ACKNOWLEDGED", "ACKNOWLEDGED"].map(Value::from)
    );
    let audit = api.get("/api/v2/audit?table_name=incidents&record_id=1").await.is(200);
    assert_eq!(audit["pagination"]["total"], 6);
}

#[tokio::test]
async fn what_cannot_be_is_refused_by_name() {
    let api = api().await;
    detect(&api, 1, "a", "x").await;
    for (body, says) in [
        (json!({}), "Invalid request"),
        (json!({ "action": "shout" }), "Invalid request"),
        (json!({ "action": "resolve", "reason": "x" }), "Invalid request"),
        (json!({ "action": "comment" }), "comment is empty"),
        (json!({ "action": "assign", "assignee": "x".repeat(101) }), "assignee is longer"),
    ] {
        act(&api, 1, body).await.refuses(400, says);
    }
    for query in ["status=lost", "page=0", "from=x"] {
        let name = query.split('=').next().unwrap();
        api.get(&format!("/api/v2/incidents?{query}")).await.refuses(400, &format!("{name}: "));
    }
    for id in ["0", "-1", "x", "99"] {
        api.get(&format!("/api/v2/incidents/{id}")).await.refuses(404, "no such incident");
        let answer = api.post(&format!("/api/v2/incidents/{id}"), json!({ "action": "resolve" })).await;
        answer.refuses(404, "no such incident");
    }
}

#[tokio::test]
async fn a_viewer_reads_and_does_nothing() {
    let api = api().await;
    detect(&api, 1, "a", "x").await;
    api.post("/api/v2/users", json!({ "name": "vera", "role": "viewer" })).await.is(201);
    let key = api.post("/api/v2/users/vera/keys", json!({})).await.is(201)["key"].as_str().unwrap().to_owned();
    let as_vera = async |method: &str, path: &str, body: Value| {
        let mut request = with_key(method, path).header("content-type", "application/json");
        request.headers_mut().unwrap().insert("X-API-KEY", key.parse().unwrap());
        api.send(request.body(Body::from(body.to_string())).unwrap()).await
    };
    as_vera("GET", "/api/v2/incidents/1", json!({})).await.is(200);
    as_vera("GET", "/api/v2/silences", json!({})).await.is(200);
    for (method, path, body) in [
        ("POST", "/api/v2/incidents/1", json!({ "action": "resolve" })),
        ("POST", "/api/v2/silences", json!({ "match": { "host": "*" }, "for": "1h", "reason": "x" })),
        ("DELETE", "/api/v2/silences/1", json!({})),
    ] {
        as_vera(method, path, body).await.refuses(403, "operator");
    }
}

#[tokio::test]
async fn incidents_and_silences_of_others_are_not_found() {
    let api = api().await;
    let foreign = alert().org("acme").detection(Detection::default()).build();
    let planned = vec![api.state.planner.plan(foreign.clone())];
    api.state.catalog.record_planned(&foreign.org, Vec::new(), planned).await.unwrap();
    let by =
        storage::catalog::Actor { name: "eve".into(), reason: Some("x".into()), correlation_id: "c".into(), at: NOON };
    let until = NOON.plus(Duration::from_secs(60));
    let draft = storage::catalog::incidents::SilenceDraft { matcher: r#"{"host":"*"}"#.into(), from: NOON, until };
    api.state.catalog.create_silence(&foreign.org, draft, &by).await.unwrap();
    api.get("/api/v2/incidents/1").await.refuses(404, "no such incident");
    act(&api, 1, json!({ "action": "resolve" })).await.refuses(404, "no such incident");
    api.delete("/api/v2/silences/1").await.refuses(404, "no such silence");
    assert_eq!(api.get("/api/v2/incidents").await.is(200)["pagination"]["total"], 0);
    assert_eq!(api.get("/api/v2/silences?all=true").await.is(200)["pagination"]["total"], 0);
    let verdict = api.post("/api/v2/routes/test", json!({ "alert": {} })).await.is(200);
    assert_eq!(verdict["silenced_by"], Value::Null, "another's silence silences nothing of ours");
}
