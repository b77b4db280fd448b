use super::schema::problems;
use super::{Answer, Api, NOON, api, event_id, event_record, with_key};
use axum::body::Body;
use axum::http::Request;
use model::{DeadLetter, DeadLetterSide, Detection, Durability};
use serde_json::{Value, json};
use std::time::Duration;
use storage::catalog::AuditEntry;
use storage::queue::QueueName;
use testkit::builders::alert;

const SIGMA: &str = "\
title: Failed login
name: failed
logsource: {product: linux, service: sshd}
detection: {s: {event_type: ssh_fail}, condition: s}
examples: {match: ['sshd[7]: Failed password for root from 203.0.113.7 port 22 ssh2'], no_match: ['sshd[7]: x']}
---
title: Many failed logins
name: many
correlation: {type: event_count, rules: [failed], group-by: [SourceIp], timespan: 5m, condition: {gte: 3}}
";

async fn document(api: &Api) -> Value {
    let answer = api.send(Request::builder().uri("/api/v2/openapi.json").body(Body::empty()).unwrap()).await;
    answer.is(200)
}

/// (path, method, operation) of the Web API.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        // The ingest has a listener of its own.
        if item.get("servers").is_some() {
            continue;
        }
        for (method, operation) in item.as_object().unwrap() {
            all.push((path.clone(), method.to_uppercase(), operation.clone()));
        }
    }
    all
}

/// A path with something in its places.
fn filled(path: &str) -> String {
    path.replace("{id}", "4242")
        .replace("{key}", "moog_rate_limit")
        .replace("{hostname}", "h")
        .replace("{name}", "dead")
        .replace("{org}", "default")
}

#[tokio::test]
async fn every_documented_operation_runs_and_no_other_method_does() {
    let api = api().await;
    let document = document(&api).await;
    assert_eq!(document["openapi"], "3.1.0");
    let all = operations(&document);
    assert!(all.len() > 60, "{}", all.len());
    let mut paths: Vec<&String> = all.iter().map(|(path, _, _)| path).collect();
    paths.dedup();
    for path in paths {
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH"] {
            let documented = all.iter().any(|(p, m, _)| p == path && m == method);
            let request = with_key(method, &filled(path)).header("content-type", "application/json");
            let answer = api.send(request.body(Body::from("{}")).unwrap()).await;
            assert_eq!(answer.status != 405, documented, "{method} {path}: {} {}", answer.status, answer.text);
            assert!(!answer.text.contains("no such path"), "{method} {path}");
        }
    }
    let mut ids: Vec<&str> = all.iter().map(|(_, _, o)| o["operationId"].as_str().unwrap()).collect();
    ids.sort_unstable();
    let count = ids.len();
    ids.dedup();
    assert_eq!(ids.len(), count, "operation ids are unique");
}

#[tokio::test]
async fn every_documented_parameter_is_read() {
    let api = api().await;
    let document = document(&api).await;
    for (path, method, operation) in operations(&document) {
        for parameter in operation["parameters"].as_array().unwrap() {
            if parameter["in"] != "query" {
                continue;
            }
            let (name, schema) = (parameter["name"].as_str().unwrap(), &parameter["schema"]);
            let (good, read_strictly) = match (&schema["enum"], schema["type"].as_str(), &schema["pattern"]) {
                (Value::Array(values), _, _) => (values[0].as_str().unwrap().to_owned(), true),
                (_, Some("integer"), _) => ("1".to_owned(), true),
                (_, _, Value::String(_)) => (event_id(1).to_string(), true),
                _ => match schema["examples"].as_array() {
                    Some(examples) => (examples[0].as_str().unwrap().to_owned(), true),
                    None => ("x".to_owned(), false),
                },
            };
            let ask = async |value: &str| {
                let request = with_key(&method, &format!("{}?{name}={value}", filled(&path)));
                api.send(request.body(Body::empty()).unwrap()).await
            };
            let answer = ask(&good).await;
            if name == "org" {
                // Whether there is such a thing is another matter.
                assert!(!answer.text.contains("org"), "{path}?{name}={good}: {}", answer.text);
            } else if operation["requestBody"].is_object() {
                // What is missing is the body.
                assert!(answer.status == 400 && !answer.text.contains(name), "{path}?{name}={good}: {}", answer.text);
            } else {
                assert_eq!(answer.status, 200, "{path}?{name}={good}: {}", answer.text);
            }
            if read_strictly {
                let answer = ask("j%C3%BCnk").await;
                assert!(answer.status == 400 && answer.text.contains(name), "{path}?{name}: {}", answer.text);
            }
        }
    }
}

#[track_caller]
fn fits(document: &Value, path: &str, method: &str, answer: &Answer) {
    let response = &document["paths"][path][method.to_lowercase()]["responses"][answer.status.to_string()];
    assert!(
        response.is_object(),
        "{method} {path} answers {}, which is not documented: {}",
        answer.status,
        answer.text
    );
    let schema = &response["content"]["application/json"]["schema"];
    assert!(schema.is_object(), "{method} {path} has no schema for {}", answer.status);
    let found = problems(document, schema, &answer.json());
    assert!(found.is_empty(), "{method} {path}: {found:?}\n{}", answer.text);
}

/// Something of everything.
async fn populate(api: &Api) {
    let org = &api.state.org;
    let entry = AuditEntry {
        event_id: event_id(1),
        event_timestamp: NOON,
        hostname: "h".into(),
        matched_rule_id: 1,
        handling_decision: "Page_only".into(),
        forwarded: true,
        raw_message: "{}".into(),
    };
    api.state.catalog.record(org, vec![entry], vec![alert().number(1).build()]).await.unwrap();
    let detected = alert().number(3).detection(Detection::default()).build();
    api.state.catalog.record_planned(org, Vec::new(), vec![api.state.planner.plan(detected)]).await.unwrap();
    let letter = DeadLetter {
        side: DeadLetterSide::Alerter,
        reason: "no rule set".into(),
        retryable: true,
        attempts: 1,
        replays: 0,
        failed_at: NOON,
        original: event_record(2, "h", "m"),
    };
    api.bury(QueueName::Dead, vec![letter.clone(), letter]).await;
    let waiting = vec![event_record(3, "h", "waits")];
    api.state.queues.get(QueueName::Ingest).publish(waiting, Durability::Strict).await.unwrap();
    api.state.coordination.count_accepted(5, NOON.minus(Duration::from_secs(90))).await.unwrap();
}

/// A walk over the live API: what every endpoint really answers fits its schema.
#[tokio::test]
async fn what_is_answered_fits_the_documented_schemas() {
    let api = api().await;
    let document = document(&api).await;
    populate(&api).await;
    api.enrolled("default", &[(1, "web-1"), (2, "web-2")]).await;
    api.seen(1, 1, r#"{"lag_ms":5,"dropped":{"file":1},"collectors":{"audit":"no"}}"#).await;
    let call = async |method: &str, template: &str, path: &str, body: Option<Value>| {
        let template = format!("/api/v2{template}");
        let path = format!("/api/v2{path}");
        let answer = match body {
            Some(body) => api.call(method, &path, body).await,
            None => api.send(with_key(method, &path).body(Body::empty()).unwrap()).await,
        };
        fits(&document, &template, method, &answer);
        answer
    };
    let rule = json!({
        "match_string": "down", "prod_handling": "Page_only", "dev_handling": "Ignore", "team_assignment": "NETO",
    });
    let mut called: Vec<(&str, &str)> = Vec::new();
    for (method, template, path, body) in [
        ("POST", "/rules", "/rules", Some(rule.clone())),
        ("GET", "/rules", "/rules", None),
        ("GET", "/rules/{id}", "/rules/1", None),
        ("GET", "/rules/{id}", "/rules/99", None),
        ("PUT", "/rules/{id}", "/rules/1", Some(json!({ "priority": 7 }))),
        ("PUT", "/rules/{id}", "/rules/1", Some(json!({ "priority": "x" }))),
        ("POST", "/rules/test", "/rules/test", Some(json!({ "event": { "message": "it is down" } }))),
        ("POST", "/rules/test", "/rules/test", Some(json!({ "event": { "message": "up" }, "rule": rule }))),
        ("POST", "/rules/import", "/rules/import", Some(json!({ "rules": [rule, rule] }))),
        ("DELETE", "/rules/{id}", "/rules/1", None),
        ("POST", "/dev-hosts", "/dev-hosts", Some(json!({ "hostname": "lab" }))),
        ("POST", "/dev-hosts", "/dev-hosts", Some(json!({ "hostname": "lab" }))),
        ("GET", "/dev-hosts", "/dev-hosts", None),
        ("DELETE", "/dev-hosts/{hostname}", "/dev-hosts/lab", None),
        ("POST", "/teams", "/teams", Some(json!({ "hostname": "h", "team_assignment": "A" }))),
        ("GET", "/teams", "/teams", None),
        ("PUT", "/teams/{hostname}", "/teams/h", Some(json!({ "team_assignment": "B" }))),
        ("DELETE", "/teams/{hostname}", "/teams/h", None),
        ("PUT", "/config/{key}", "/config/moog_rate_limit", Some(json!({ "value": 7 }))),
        ("PUT", "/config/{key}", "/config/log_retention_days", Some(json!({ "value": 7 }))),
        ("PUT", "/config/{key}", "/config/nothing", Some(json!({ "value": 7 }))),
        ("GET", "/config", "/config", None),
        ("DELETE", "/config/{key}", "/config/moog_rate_limit", None),
        ("GET", "/config/history", "/config/history", None),
        ("POST", "/users", "/users", Some(json!({ "name": "bob", "role": "viewer" }))),
        ("GET", "/users", "/users", None),
        ("GET", "/users/{name}", "/users/bob", None),
        ("PUT", "/users/{name}", "/users/bob", Some(json!({ "role": "admin" }))),
        ("POST", "/users/{name}/keys", "/users/bob/keys", None),
        ("GET", "/users/{name}/keys", "/users/bob/keys", None),
        ("DELETE", "/users/{name}/keys/{id}", "/users/bob/keys/1", None),
        ("DELETE", "/users/{name}", "/users/bob", None),
        ("GET", "/audit", "/audit", None),
        ("GET", "/config-audit", "/config-audit", None),
        ("GET", "/audit-logs", "/audit-logs", None),
        ("GET", "/metrics", "/metrics", None),
        ("GET", "/slo", "/slo", None),
        ("GET", "/version", "/version", None),
        ("GET", "/openapi.json", "/openapi.json", None),
        ("GET", "/events", "/events", None),
        ("GET", "/alerts", "/alerts", None),
        ("GET", "/incidents", "/incidents", None),
        ("GET", "/incidents/{id}", "/incidents/1", None),
        ("GET", "/incidents/{id}", "/incidents/2", None),
        ("POST", "/incidents/{id}", "/incidents/1", Some(json!({ "action": "acknowledge", "comment": "I look" }))),
        ("POST", "/incidents/{id}", "/incidents/1", Some(json!({ "action": "shout" }))),
        (
            "POST",
            "/silences",
            "/silences",
            Some(json!({ "match": { "host": ["db-*"] }, "for": "2h", "reason": "new disks" })),
        ),
        ("GET", "/silences", "/silences", None),
        ("DELETE", "/silences/{id}", "/silences/1", None),
        ("DELETE", "/silences/{id}", "/silences/1", None),
        ("GET", "/routes", "/routes", None),
        ("POST", "/routes/test", "/routes/test", Some(json!({ "alert": { "severity": "high" } }))),
        (
            "POST",
            "/detection/import",
            "/detection/import?partial=true",
            Some(json!({ "documents": { "a.yml": SIGMA, "b.yml": "x: 1", "c.txt": "" } })),
        ),
        ("POST", "/detection/import", "/detection/import", Some(json!({ "documents": { "b.yml": "x: 1" } }))),
        ("GET", "/detection/rules", "/detection/rules", None),
        ("GET", "/detection/rules/{id}", "/detection/rules/failed", None),
        ("GET", "/detection/rules/{id}", "/detection/rules/many", None),
        ("GET", "/detection/rules/{id}", "/detection/rules/nothing", None),
        (
            "PUT",
            "/detection/rules/{id}/setting",
            "/detection/rules/failed/setting",
            Some(json!({ "state": "dry-run", "level": null, "team": "SOC", "reason": "r" })),
        ),
        (
            "PUT",
            "/detection/rules/{id}/setting",
            "/detection/rules/failed/setting",
            Some(json!({ "state": "off", "expected": {} })),
        ),
        ("DELETE", "/detection/rules/{id}/setting", "/detection/rules/failed/setting", None),
        (
            "POST",
            "/detection/test",
            "/detection/test",
            Some(
                json!({ "text": SIGMA, "events": [{ "program": "sshd", "message": "x" }, "sshd[1]: x"], "all": true }),
            ),
        ),
        ("GET", "/detection/documents", "/detection/documents", None),
        ("GET", "/detection/documents/{name}", "/detection/documents/a.yml", None),
        ("GET", "/detection/documents/{name}", "/detection/documents/b.yml", None),
        ("DELETE", "/detection/documents/{name}", "/detection/documents/a.yml", Some(json!({ "reason": "r" }))),
        ("GET", "/detection/documents/{name}/versions", "/detection/documents/a.yml/versions", None),
        ("GET", "/detection/documents/{name}/versions/{id}", "/detection/documents/a.yml/versions/2", None),
        ("GET", "/detection/documents/{name}/versions/{id}", "/detection/documents/a.yml/versions/1", None),
        (
            "POST",
            "/detection/documents/{name}/restore",
            "/detection/documents/a.yml/restore",
            Some(json!({ "version": 1 })),
        ),
        ("GET", "/orgs", "/orgs", None),
        ("POST", "/orgs", "/orgs", Some(json!({ "id": "acme", "title": "Acme", "agents_max": 5 }))),
        ("POST", "/orgs", "/orgs", Some(json!({ "id": "acme" }))),
        ("PATCH", "/orgs/{org}", "/orgs/acme", Some(json!({ "agents_max": null, "disabled": true }))),
        ("PATCH", "/orgs/{org}", "/orgs/nothing", Some(json!({}))),
        ("POST", "/orgs/{org}/tokens", "/orgs/default/tokens", None),
        ("POST", "/orgs/{org}/tokens", "/orgs/acme/tokens", Some(json!({ "host": "web-1", "uses_max": null }))),
        ("GET", "/orgs/{org}/tokens", "/orgs/acme/tokens", None),
        ("POST", "/orgs/{org}/tokens/{id}/rotate", "/orgs/acme/tokens/2/rotate", None),
        ("POST", "/orgs/{org}/tokens/{id}/rotate", "/orgs/acme/tokens/2/rotate", Some(json!({ "overlap_hours": 1 }))),
        ("GET", "/orgs/{org}/tokens", "/orgs/acme/tokens", None),
        ("DELETE", "/orgs/{org}/tokens/{id}", "/orgs/acme/tokens/2", None),
        ("DELETE", "/orgs/{org}/tokens/{id}", "/orgs/acme/tokens/1", None),
        ("GET", "/agents", "/agents", None),
        ("GET", "/agents", "/agents?state=x", None),
        ("GET", "/agents", "/agents?org=nothing", None),
        ("GET", "/agents/{id}", "/agents/agt_00000000000000000000000001", None),
        ("GET", "/agents/{id}", "/agents/nothing", None),
        ("DELETE", "/agents/{id}", "/agents/agt_00000000000000000000000001", None),
        ("POST", "/agents/{id}/revoke", "/agents/agt_00000000000000000000000001/revoke", None),
        ("DELETE", "/agents/{id}", "/agents/agt_00000000000000000000000001", Some(json!({ "reason": "r" }))),
        ("GET", "/rejects", "/rejects", None),
        ("GET", "/queues", "/queues", None),
        ("GET", "/queues/{name}", "/queues/dead", None),
        ("GET", "/queues/{name}", "/queues/ingest", None),
        ("GET", "/queues/{name}", "/queues/nothing", None),
        ("POST", "/queues/{name}/replay", "/queues/dead/replay", Some(json!({ "filter": {}, "limit": 1 }))),
    ] {
        call(method, template, path, body).await;
        called.push((method, template));
    }
    let position = api.get("/api/v2/queues/dead").await.is(200)["records"][0]["position"].clone();
    call("DELETE", "/queues/{name}/records", "/queues/dead/records", Some(json!({ "positions": [position] }))).await;
    let id = api.get("/api/v2/alerts").await.is(200)["alerts"][0]["id"].as_str().unwrap().to_owned();
    call("GET", "/alerts/{id}", &format!("/alerts/{id}"), None).await;
    call("GET", "/trace/{id}", &format!("/trace/{id}"), None).await;
    call("GET", "/events/{id}", &format!("/events/{}", event_id(77)), None).await;
    for (text, status) in [(SIGMA, 200), ("x: 1", 400)] {
        let kept = api.put_document("a.yml", "?expected=3", text).await;
        assert_eq!(kept.status, status);
        fits(&document, "/api/v2/detection/documents/{name}", "PUT", &kept);
    }
    let conflict = api.put_document("a.yml", "?expected=1", &SIGMA.replace("gte: 3", "gte: 4")).await;
    fits(&document, "/api/v2/detection/documents/{name}", "PUT", &conflict);
    let exported = &document["paths"]["/api/v2/detection/export"]["get"]["responses"]["200"]["content"];
    assert!(exported["application/zip"].is_object());
    called.extend([
        ("PUT", "/detection/documents/{name}"),
        ("GET", "/detection/export"),
        ("DELETE", "/queues/{name}/records"),
        ("GET", "/alerts/{id}"),
        ("GET", "/trace/{id}"),
        ("GET", "/events/{id}"),
    ]);
    for (path, method, _) in operations(&document) {
        if let Some(template) = path.strip_prefix("/api/v2") {
            assert!(called.contains(&(method.as_str(), template)), "{method} {path} was not called");
        }
    }
    for (template, path) in [
        ("/alerts/{id}", "/alerts/x"),
        ("/events/{id}", "/events/x"),
        ("/trace/{id}", "/trace/x"),
        ("/audit", "/audit?page=x"),
    ] {
        assert_eq!(call("GET", template, path, None).await.status, 400, "{path}");
    }
    let nothing = json!({ "label": null, "expires_at": null, "reason": null });
    api.post("/api/v2/users", json!({ "name": "eve", "role": "viewer", "reason": null })).await.is(201);
    call("POST", "/users/{name}/keys", "/users/eve/keys", Some(nothing.clone())).await;
    let draft = &document["components"]["schemas"]["KeyDraft"];
    assert!(problems(&document, draft, &nothing).is_empty(), "what is taken fits its schema");
    for (method, path, statuses) in
        [("post", "/login", &["303", "401", "403", "429"][..]), ("get", "/audit", &["200", "303", "400"])]
    {
        for status in statuses {
            let response = &document["paths"][path][method]["responses"][*status];
            assert!(response.is_object(), "{method} {path} {status}");
            let content = response["content"].as_object();
            assert!(content.is_none_or(|content| content.contains_key("text/html")), "{method} {path} {status}");
        }
    }
    let old = api.send(Request::builder().uri("/api/v1/openapi.json").body(Body::empty()).unwrap()).await;
    assert_eq!(old.is(200), document);
    let health = api.get("/health").await;
    fits(&document, "/health", "GET", &health);
}
