use super::{Api, NOON, api, event_id, with_key};
use axum::body::Body;
use serde_json::{Value, json};
use storage::catalog::AuditEntry;

fn rule(text: &str) -> Value {
    json!({
        "match_string": text,
        "prod_handling": "Page_and_ticket",
        "dev_handling": "Ignore",
        "team_assignment": "NETO",
    })
}

async fn create(api: &Api, rule: Value) -> i64 {
    api.post("/api/v2/rules", rule).await.is(201)["id"].as_i64().unwrap()
}

#[tokio::test]
async fn a_rule_is_created_with_the_contracts_defaults_and_read_back() {
    let api = api().await;
    let created = api.post("/api/v1/rules", rule("CRITICAL")).await.is(201);
    assert_eq!(created["message"], "Rule created successfully");
    let id = created["id"].as_i64().unwrap();
    let row = api.get(&format!("/api/v1/rules/{id}")).await.is(200);
    assert_eq!(
        row,
        json!({
            "id": id, "match_string": "CRITICAL", "trap_oid": null, "syslog_severity": null, "match_type": "contains",
            "priority": 100, "prod_handling": "Page_and_ticket", "dev_handling": "Ignore", "team_assignment": "NETO",
            "is_active": true,
        })
    );
    assert_eq!(api.get("/api/v2/rules").await.is(200), json!({ "rules": [row] }));
}

#[tokio::test]
async fn rules_are_listed_by_priority_and_then_id() {
    let api = api().await;
    let mut late = rule("LATE");
    late["priority"] = json!(200);
    let mut first = rule("FIRST");
    first["priority"] = json!("5");
    let ids = [create(&api, late).await, create(&api, rule("A-RULE")).await, create(&api, rule("B-RULE")).await];
    let first = create(&api, first).await;
    let rules = api.get("/api/v2/rules").await.is(200);
    let listed: Vec<i64> = rules["rules"].as_array().unwrap().iter().map(|r| r["id"].as_i64().unwrap()).collect();
    assert_eq!(listed, [first, ids[1], ids[2], ids[0]]);
}

#[tokio::test]
async fn what_is_missing_is_named_as_the_original_did() {
    let api = api().await;
    let missing = api.post("/api/v2/rules", json!({ "match_string": "x", "dev_handling": "Ignore" })).await;
    missing.refuses(400, "Missing required fields: ['prod_handling', 'team_assignment']");
    let mut nothing = rule("x");
    nothing.as_object_mut().unwrap().remove("match_string");
    api.post("/api/v2/rules", nothing).await.refuses(400, "Either match_string or trap_oid is required");
    api.post("/api/v2/rules", rule("")).await.refuses(400, "Either match_string or trap_oid is required");
}

/// Bad input was 500 with raw database text (defects 22 and 32 of the original).
#[tokio::test]
async fn bad_values_are_400_with_every_field_named() {
    let api = api().await;
    for (field, value, says) in [
        ("match_string", json!(5), "text"),
        ("match_string", json!("x".repeat(300)), "255"),
        ("syslog_severity", json!(8), "0"),
        ("syslog_severity", json!("loud"), "0"),
        ("match_type", json!("glob"), "contains, regex, oid_prefix"),
        ("priority", json!("high"), "whole number"),
        ("priority", json!(1e12), "whole number"),
        ("prod_handling", json!(""), "empty"),
        ("team_assignment", json!(["a"]), "text"),
        ("is_active", json!("maybe"), "true or false"),
        ("trap_oid", json!("not.an.oid"), "OID"),
    ] {
        let mut bad = rule("CRITICAL");
        bad[field] = value.clone();
        let refused = api.post("/api/v2/rules", bad).await.refuses(400, field);
        let message = refused["fields"][field].as_str().unwrap_or_else(|| panic!("{field} {value}: {refused}"));
        assert!(message.contains(says), "{field} {value}: {message}");
        assert!(!refused.to_string().to_lowercase().contains("constraint"), "{refused}");
    }
    let mut regex = rule("(unclosed");
    regex["match_type"] = json!("regex");
    assert!(api.post("/api/v2/rules", regex).await.refuses(400, "regular")["fields"]["match_string"].is_string());
    assert_eq!(api.get("/api/v2/rules").await.is(200)["rules"], json!([]), "nothing was created");
}

#[tokio::test]
async fn a_body_that_is_no_json_object_is_400_and_a_huge_one_413() {
    let api = api().await;
    let send = async |content_type: &str, body: String| {
        let request = with_key("POST", "/api/v2/rules").header("content-type", content_type);
        api.send(request.body(Body::from(body)).unwrap()).await
    };
    send("application/json", "{".into()).await.refuses(400, "not JSON");
    send("application/json", "[]".into()).await.refuses(400, "JSON object");
    send("application/json", String::new()).await.refuses(400, "not JSON");
    send("text/plain", rule("x1y").to_string()).await.refuses(400, "Content-Type");
    send("application/json", " ".repeat((4 << 20) + 1)).await.refuses(413, "bytes");
    send("application/vnd.api+json; charset=utf-8", rule("x1y").to_string()).await.is(201);
}

#[tokio::test]
async fn severities_may_be_words_and_a_lone_oid_is_matched_as_one() {
    let api = api().await;
    let mut words = rule("CRITICAL");
    words["syslog_severity"] = json!("err");
    let id = create(&api, words).await;
    assert_eq!(api.get(&format!("/api/v2/rules/{id}")).await.is(200)["syslog_severity"], 3);
    let oid = json!({ "trap_oid": ".1.3.6.1.4.1.9", "prod_handling": "Ignore", "dev_handling": "Ignore", "team_assignment": "N" });
    let id = create(&api, oid).await;
    assert_eq!(api.get(&format!("/api/v2/rules/{id}")).await.is(200)["match_type"], "oid_prefix");
}

#[tokio::test]
async fn what_is_probably_not_meant_is_a_warning() {
    let api = api().await;
    let mut odd = rule("x");
    odd["priorty"] = json!(1);
    odd["prod_handling"] = json!("Page_and_tiket");
    let warnings = api.post("/api/v2/rules", odd).await.is(201)["warnings"].to_string();
    for part in ["priorty", "Page_and_ticket", "match_string"] {
        assert!(warnings.contains(part), "{part}: {warnings}");
    }
}

#[tokio::test]
async fn any_subset_of_a_rule_can_be_changed() {
    let api = api().await;
    let id = create(&api, rule("CRITICAL")).await;
    let path = format!("/api/v2/rules/{id}");
    let changed = api.put(&path, json!({ "priority": 7, "is_active": false, "reason": "quieter" })).await.is(200);
    assert_eq!(changed["message"], "Rule updated successfully");
    let row = api.get(&path).await.is(200);
    assert_eq!(
        (&row["priority"], &row["is_active"], &row["match_string"]),
        (&json!(7), &json!(false), &json!("CRITICAL"))
    );
    api.put(&path, json!({ "match_string": null })).await.refuses(400, "required");
    api.put(&path, json!({ "team_assignment": null })).await.refuses(400, "team_assignment");
    api.put(&path, json!({})).await.refuses(400, "No fields to update");
    api.put(&path, json!({ "reason": "none" })).await.refuses(400, "No fields to update");
    let logs = api.get("/api/v2/audit?operation=update").await.is(200);
    assert_eq!(logs["logs"][0]["reason"], "quieter");
    assert_eq!(
        (&logs["logs"][0]["old_values"]["priority"], &logs["logs"][0]["new_values"]["priority"]),
        (&json!(100), &json!(7))
    );
}

#[tokio::test]
async fn a_rule_that_is_not_there_is_404_however_it_is_asked_for() {
    let api = api().await;
    for id in ["9", "-1", "abc", "1e3", "99999999999999999999", "%20", "%F0%9F%98%80"] {
        let path = format!("/api/v2/rules/{id}");
        api.get(&path).await.refuses(404, "Rule not found");
        api.put(&path, json!({ "priority": 1 })).await.refuses(404, "Rule not found");
        api.delete(&path).await.refuses(404, "Rule not found");
    }
    api.get("/api/v2/rules/%ff").await.refuses(400, "UTF-8");
}

#[tokio::test]
async fn two_who_change_a_rule_at_once_are_told() {
    let api = api().await;
    let id = create(&api, rule("CRITICAL")).await;
    let path = format!("/api/v2/rules/{id}");
    // Whoever loses the race gets 409; nobody overwrites unseen.
    let changes = (0..12).map(|n| api.put(&path, json!({ "priority": n + 1 })));
    let mut statuses = Vec::new();
    let mut running: Vec<_> = changes.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        running.retain_mut(|change| match std::future::Future::poll(change.as_mut(), context) {
            std::task::Poll::Ready(answer) => {
                statuses.push(answer.status);
                false
            }
            std::task::Poll::Pending => true,
        });
        if running.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    assert!(statuses.iter().all(|status| matches!(status, 200 | 409)), "{statuses:?}");
    let updates = api.get("/api/v2/audit?operation=UPDATE").await.is(200)["pagination"]["total"].as_u64().unwrap();
    assert_eq!(updates, statuses.iter().filter(|status| **status == 200).count() as u64);
}

/// Defect 5 of the original: 500 with the text of a foreign key.
#[tokio::test]
async fn deleting_a_rule_keeps_its_history() {
    let api = api().await;
    let id = create(&api, rule("CRITICAL")).await;
    let entry = AuditEntry {
        event_id: event_id(1),
        event_timestamp: NOON,
        hostname: "sw1".into(),
        matched_rule_id: id,
        handling_decision: "Page_and_ticket".into(),
        forwarded: true,
        raw_message: "{}".into(),
    };
    api.state.catalog.record(&api.state.org, vec![entry], Vec::new()).await.unwrap();
    let path = format!("/api/v2/rules/{id}");
    let gone = api.call("DELETE", &path, json!({ "reason": "replaced" })).await.is(200);
    assert_eq!(gone["message"], "Rule deleted successfully");
    api.get(&path).await.refuses(404, "Rule not found");
    let history = api.get(&format!("/api/v2/audit-logs?rule_id={id}")).await.is(200);
    assert_eq!(history["pagination"]["total"], 1);
    assert_eq!(history["logs"][0]["matched_rule_id"], id);
    let deletion = api.get("/api/v2/audit?operation=DELETE").await.is(200);
    assert_eq!((&deletion["logs"][0]["record_id"], &deletion["logs"][0]["reason"]), (&json!(id), &json!("replaced")));
}

#[tokio::test]
async fn a_rule_is_deleted_with_or_without_a_body() {
    let api = api().await;
    let id = create(&api, rule("CRITICAL")).await;
    let broken = with_key("DELETE", &format!("/api/v2/rules/{id}")).body(Body::from("{oops")).unwrap();
    api.send(broken).await.refuses(400, "not JSON");
    api.delete(&format!("/api/v2/rules/{id}")).await.is(200);
}

#[tokio::test]
async fn an_import_creates_all_rules_or_none_and_says_what_is_wrong_with_each() {
    let api = api().await;
    let mut bad = rule("(");
    bad["match_type"] = json!("regex");
    let refused = api.post("/api/v2/rules/import", json!({ "rules": [rule("ONE"), bad, 7, {}] })).await;
    let refused = refused.refuses(400, "3 of 4 rules cannot be used; none was created");
    let problems = refused["problems"].as_array().unwrap();
    assert_eq!(problems.iter().map(|p| p["index"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(problems[0]["fields"]["match_string"].is_string());
    assert_eq!(api.get("/api/v2/rules").await.is(200)["rules"], json!([]));
    let done = api.post("/api/v2/rules/import", json!({ "rules": [rule("ONE"), rule("TWO")] })).await.is(201);
    assert_eq!((&done["created"], done["ids"].as_array().unwrap().len()), (&json!(2), 2));
    for bad in [json!({}), json!({ "rules": [] }), json!({ "rules": {} })] {
        api.post("/api/v2/rules/import", bad).await.refuses(400, "rules");
    }
}

#[tokio::test]
async fn a_rule_just_saved_can_be_tried_on_an_event() {
    let api = api().await;
    let id = create(&api, rule("CRITICAL")).await;
    let tried = api.post("/api/v2/rules/test", json!({ "event": { "message": "a critical fault" } })).await.is(200);
    assert_eq!((&tried["matched"], &tried["rule"]["id"]), (&json!(true), &json!(id)));
    assert_eq!((&tried["environment"], &tried["handling"]), (&json!("production"), &json!("Page_and_ticket")));
    assert!(tried["explanation"].as_str().unwrap().contains(&format!("rule {id} wins")), "{tried}");
    api.post("/api/v2/dev-hosts", json!({ "hostname": "lab-1" })).await.is(201);
    let event = json!({ "hostname": "lab-1", "message": "critical" });
    let tried = api.post("/api/v2/rules/test", json!({ "event": event })).await.is(200);
    assert_eq!((&tried["environment"], &tried["forwards"]), (&json!("development"), &json!(false)));
    let missed = api.post("/api/v2/rules/test", json!({ "event": { "message": "all is well" } })).await.is(200);
    assert_eq!((&missed["matched"], &missed["rule"]), (&json!(false), &Value::Null));
    for bad in [json!({}), json!({ "event": 1 }), json!({ "event": { "message": "" } })] {
        api.post("/api/v2/rules/test", bad).await.refuses(400, "event");
    }
}

#[tokio::test]
async fn a_rule_can_be_tried_before_it_is_saved() {
    let api = api().await;
    let event = json!({ "message": "LINK-DOWN on Gi0/1" });
    let tried = api.post("/api/v2/rules/test", json!({ "event": event, "rule": rule("link-down") })).await.is(200);
    assert_eq!(tried["matched"], true);
    let mut bad = rule("[");
    bad["match_type"] = json!("regex");
    api.post("/api/v2/rules/test", json!({ "event": event, "rule": bad })).await.refuses(400, "match_string");
    assert_eq!(api.get("/api/v2/rules").await.is(200)["rules"], json!([]));
}
