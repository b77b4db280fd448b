//! Organisations, whose things are apart, and their tokens for agents.

use super::events::stored;
use super::{Answer, Api, NOON, api, api_with, event_id, with_key};
use axum::body::Body;
use model::Detection;
use serde_json::{Value, json};
use server::agent_tokens::fingerprint;
use server::api::AgentGate;
use std::sync::Arc;
use storage::events::StoredEvent;
use testkit::builders::alert;

impl Api {
    pub async fn org(&self, id: &str) {
        self.post("/api/v2/orgs", json!({ "id": id })).await.is(201);
    }

    /// A user of an organisation, with a key.
    pub async fn user_of(&self, org: &str, name: &str, role: &str) -> String {
        let body = json!({ "name": name, "role": role });
        self.post(&format!("/api/v2/users?org={org}"), body).await.is(201);
        let made = self.post(&format!("/api/v2/users/{name}/keys?org={org}"), json!({})).await.is(201);
        made["key"].as_str().unwrap().to_owned()
    }

    async fn scoped(&self, path: &str, org: &str) -> Answer {
        self.send(with_key("GET", path).header("X-Scope-OrgID", org).body(Body::empty()).unwrap()).await
    }
}

#[tokio::test]
async fn organisations_are_created_listed_and_changed() {
    let api = api().await;
    let made = api.post("/api/v2/orgs", json!({ "id": "acme", "title": "Acme", "agents_max": 5 })).await.is(201);
    let acme = json!({
        "id": "acme", "title": "Acme", "created_at": NOON.rfc3339(), "agents_max": 5, "disabled": false,
    });
    assert_eq!(made, acme);
    api.post("/api/v2/orgs", json!({ "id": "acme" })).await.refuses(409, "exists already");
    for (body, says) in [
        (json!({}), "id is required"),
        (json!({ "id": "A" }), "id: "),
        (json!({ "id": "a_b" }), "tokens can carry it"),
        (json!({ "id": "b", "agents_max": -1 }), "agents_max: "),
        (json!({ "id": "b", "plan": "free" }), "plan: there is no such field"),
    ] {
        api.post("/api/v2/orgs", body).await.refuses(400, says);
    }
    let ids: Vec<Value> =
        api.get("/api/v2/orgs").await.is(200)["orgs"].as_array().unwrap().iter().map(|o| o["id"].clone()).collect();
    assert_eq!(ids, ["acme", "default"]);
    let changed = api.call("PATCH", "/api/v2/orgs/acme", json!({ "agents_max": null, "reason": "paid" })).await.is(200);
    assert_eq!((&changed["agents_max"], &changed["title"]), (&Value::Null, &json!("Acme")), "only what is given");
    api.call("PATCH", "/api/v2/orgs/none", json!({ "title": "x" })).await.refuses(404, "Organisation not found");
    api.call("PATCH", "/api/v2/orgs/default", json!({ "disabled": true })).await.refuses(400, "stays enabled");
    let log = api.scoped("/api/v2/audit?table_name=orgs", "acme").await;
    log.refuses(403, "default organisation only");
}

#[tokio::test]
async fn a_token_is_shown_once_and_kept_as_a_fingerprint() {
    let suffix = "0123456789abcdef0123456789abcdef";
    let named = move || Ok(Some(suffix.to_owned()));
    let gate = AgentGate { token_suffix: Arc::new(named), port: 9_102, address: Some("mutt.example:443".into()) };
    let api = api_with(|state| state.agent_gate = gate).await;
    let wanted = json!({ "host": "web-1", "label": "rack 7", "legacy": true, "expires_in_days": 2 });
    let made = api.post("/api/v2/orgs/default/tokens", wanted).await.is(201);
    let token = made["token"].as_str().unwrap();
    assert!(token.starts_with(&format!("sm_default_{}_", NOON.millis())) && token.ends_with(&format!(".{suffix}")));
    assert_eq!((&made["expires_at"], &made["gateway_port"]), (&json!("2026-01-03T12:00:00.000000Z"), &json!(9_102)));
    assert_eq!(made["gateway"], "mutt.example:443");
    let login = api.state.catalog.token_login(&fingerprint(token)).await.unwrap().unwrap();
    assert_eq!((Some(login.token.id), login.token.host.as_deref()), (made["id"].as_i64(), Some("web-1")));
    let listed = api.get("/api/v2/orgs/default/tokens").await;
    assert!(!listed.text.contains(&token[20..60]), "{}", listed.text);
    let row = listed.is(200)["tokens"][0].clone();
    assert_eq!((&row["uses_max"], &row["legacy"], &row["state"]), (&json!(1), &json!(true), &json!("valid")));
    assert_eq!(row["created_by"], "api_key:***");

    let open = api.send(with_key("POST", "/api/v2/orgs/default/tokens").body(Body::empty()).unwrap()).await.is(201);
    let row = api.get("/api/v2/orgs/default/tokens").await.is(200)["tokens"][0].clone();
    assert_eq!((&row["id"], &row["uses_max"], &row["host"]), (&open["id"], &Value::Null, &Value::Null));
    assert_eq!(row["expires_at"], "2026-04-01T12:00:00.000000Z", "90 days");
    for (body, says) in [
        (json!({ "expires_in_days": 0 }), "expires_in_days: "),
        (json!({ "expires_in_days": 3_651 }), "expires_in_days: "),
        (json!({ "uses_max": 0 }), "used 0 times"),
        (json!({ "host": "" }), "hostname is required"),
        (json!({ "label": "x".repeat(101) }), "label: "),
        (json!({ "hosts": "web" }), "hosts: there is no such field"),
    ] {
        api.post("/api/v2/orgs/default/tokens", body).await.refuses(400, says);
    }
    let audit = api.get("/api/v2/audit?table_name=agent_tokens").await;
    assert!(!audit.text.contains(&token[20..60]) && audit.is(200)["logs"].as_array().unwrap().len() == 2);
}

#[tokio::test]
async fn no_token_is_made_while_nobody_knows_whom_agents_are_to_believe() {
    let gone = || Err(anyhow::anyhow!("no such disk"));
    let api = api_with(|state| state.agent_gate.token_suffix = Arc::new(gone)).await;
    let refused = api.post("/api/v2/orgs/default/tokens", json!({})).await.refuses(503, "authority cannot be read");
    assert!(!refused.to_string().contains("disk"), "what happened is for the log");
    assert_eq!(api.get("/api/v2/orgs/default/tokens").await.is(200), json!({ "tokens": [] }));
}

#[tokio::test]
async fn tokens_are_rotated_and_revoked() {
    let api = api().await;
    let path = "/api/v2/orgs/default/tokens";
    let first = api.post(path, json!({ "host": "web-1" })).await.is(201)["id"].clone();
    let next = api.post(&format!("{path}/{first}/rotate"), json!({ "overlap_hours": 1 })).await.is(201);
    assert!(next["token"].as_str().is_some_and(|token| token.starts_with("sm_default_")));
    let tokens = api.get(path).await.is(200)["tokens"].clone();
    assert_eq!((&tokens[0]["host"], &tokens[0]["uses_max"]), (&json!("web-1"), &json!(1)));
    assert_eq!(
        (&tokens[1]["followed_by"], &tokens[1]["expires_at"]),
        (&next["id"], &json!("2026-01-01T13:00:00.000000Z"))
    );
    api.post(&format!("{path}/{first}/rotate"), json!({})).await.refuses(409, "rotated already");
    api.post(&format!("{path}/{first}/rotate"), json!({ "overlap_hours": 8_761 })).await.refuses(400, "overlap_hours");
    api.delete(&format!("{path}/{first}")).await.is(200);
    assert_eq!(api.get(path).await.is(200)["tokens"][1]["state"], "revoked");
    for id in ["99", "x"] {
        api.delete(&format!("{path}/{id}")).await.refuses(404, "Token not found");
        api.post(&format!("{path}/{id}/rotate"), json!({})).await.refuses(404, "Token not found");
    }
    api.get("/api/v2/orgs/none/tokens").await.refuses(404, "Organisation not found");
    api.post("/api/v2/orgs/none/tokens", json!({})).await.refuses(404, "Organisation not found");
}

#[tokio::test]
async fn administrators_of_the_default_organisation_see_another_one_and_nobody_else_does() {
    let api = api().await;
    api.org("acme").await;
    let foreign = alert().org("acme").detection(Detection::default()).build();
    let org = foreign.org.clone();
    let event = StoredEvent { org: org.clone(), ..stored(1, "theirs", "their secret", None) };
    api.state.events.append(vec![event, stored(2, "ours", "ours", None)]).await.unwrap();
    let planned = vec![api.state.planner.plan(foreign.clone())];
    api.state.catalog.record_planned(&org, Vec::new(), planned).await.unwrap();
    let paths = [
        "/api/v2/events".to_owned(),
        format!("/api/v2/events/{}", event_id(1)),
        "/api/v2/alerts".to_owned(),
        format!("/api/v2/alerts/{}", foreign.id),
        "/api/v2/incidents".to_owned(),
        "/api/v2/incidents/1".to_owned(),
        format!("/api/v2/trace/{}", event_id(1)),
        "/api/v2/detection/rules".to_owned(),
        "/api/v2/agents".to_owned(),
        "/api/v2/users".to_owned(),
    ];
    let admin = api.user("ann", "admin").await;
    let weak = [api.user("otto", "operator").await, api.user("vera", "viewer").await];
    let theirs = api.user_of("acme", "bob", "admin").await;
    for path in &paths {
        let by_query = format!("{path}?org=acme");
        let seen = api.scoped(path, "acme").await;
        assert_eq!(seen.status, 200, "{path}: {}", seen.text);
        assert_eq!(
            api.get(&by_query).await.text.replace(|c: char| c.is_ascii_digit(), ""),
            seen.text.replace(|c: char| c.is_ascii_digit(), ""),
            "{path}"
        );
        assert_eq!(api.call_as(&admin, "GET", &by_query, None).await.status, 200, "{path}");
        for key in &weak {
            api.call_as(key, "GET", &by_query, None).await.refuses(403, "administrators of the default organisation");
        }
        // Whose it is sees it without a word, and no other.
        let own = api.call_as(&theirs, "GET", path, None).await;
        assert_eq!(own.status, 200, "{path}: {}", own.text);
        assert_eq!(api.call_as(&theirs, "GET", &by_query, None).await.status, 200, "{path}");
        let other = format!("{path}?org=default");
        api.call_as(&theirs, "GET", &other, None).await.refuses(403, "administrators of the default organisation");
    }
    let hosts = |answer: Value| -> Vec<String> {
        answer["events"].as_array().unwrap().iter().map(|e| e["host"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(hosts(api.scoped("/api/v2/events", "acme").await.is(200)), ["theirs"]);
    assert_eq!(hosts(api.get("/api/v2/events").await.is(200)), ["ours"]);
    assert_eq!(hosts(api.call_as(&theirs, "GET", "/api/v2/events", None).await.is(200)), ["theirs"]);
    for path in [format!("/api/v2/events/{}", event_id(1)), format!("/api/v2/trace/{}", event_id(1))] {
        assert_eq!(api.get(&path).await.status, 404, "{path}");
    }
    api.call_as(&theirs, "GET", &format!("/api/v2/trace/{}", event_id(2)), None).await.refuses(404, "nothing is known");

    api.scoped("/api/v2/events?org=globex", "acme").await.refuses(400, "different organisations");
    api.scoped("/api/v2/events", "none").await.refuses(404, "no such organisation");
    for bad in ["A", "a/b", "\u{e4}"] {
        assert_eq!(api.scoped("/api/v2/events", bad).await.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn what_is_about_the_default_organisation_is_not_for_users_of_another_one() {
    let api = api().await;
    api.org("acme").await;
    let theirs = api.user_of("acme", "bob", "admin").await;
    let document = server::api::openapi();
    let (mut refused, mut open) = (0, Vec::new());
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if operation["x-role"].is_null() {
                continue;
            }
            let scoped = operation["parameters"].as_array().unwrap().iter().any(|p| p["name"] == "X-Scope-OrgID");
            if scoped {
                open.push(path.clone());
                continue;
            }
            let mut path = path.replace("{org}", "acme");
            for name in ["{id}", "{name}", "{hostname}", "{key}"] {
                path = path.replace(name, "4242");
            }
            let answer = api.call_as(&theirs, &method.to_uppercase(), &path, None).await;
            assert_eq!(answer.status, 403, "{method} {path}: {}", answer.text);
            // Nor does naming it get anybody there.
            let request = with_key(&method.to_uppercase(), &path).header("X-Scope-OrgID", "acme");
            let named =
                api.send(request.header("content-type", "application/json").body(Body::from("{}")).unwrap()).await;
            assert_eq!(named.status, 403, "{method} {path}: {}", named.text);
            refused += 1;
        }
    }
    assert!(refused > 70, "{refused}");
    open.sort();
    open.dedup();
    let open: Vec<&str> = open.iter().filter_map(|path| path.strip_prefix("/api/v2")).collect();
    let expected = [
        "/agents",
        "/agents/{id}",
        "/agents/{id}/revoke",
        "/alerts",
        "/alerts/{id}",
        "/detection/rules",
        "/detection/rules/{id}",
        "/events",
        "/events/{id}",
        "/incidents",
        "/incidents/{id}",
        "/orgs/{org}/tokens",
        "/orgs/{org}/tokens/{id}",
        "/orgs/{org}/tokens/{id}/rotate",
        "/trace/{id}",
        "/users",
        "/users/{name}",
        "/users/{name}/keys",
        "/users/{name}/keys/{id}",
    ];
    assert_eq!(open, expected);
}

#[tokio::test]
async fn administrators_of_an_organisation_look_after_its_users_and_tokens_only() {
    let api = api().await;
    api.org("acme").await;
    api.org("globex").await;
    let theirs = api.user_of("acme", "bob", "admin").await;
    let made = api.call_as(&theirs, "POST", "/api/v2/orgs/acme/tokens", Some(json!({}))).await.is(201);
    assert!(made["token"].as_str().is_some_and(|token| token.starts_with("sm_acme_")));
    let id = &made["id"];
    for (method, path) in [
        ("GET", "/api/v2/orgs/default/tokens".to_owned()),
        ("POST", "/api/v2/orgs/globex/tokens".to_owned()),
        ("DELETE", format!("/api/v2/orgs/globex/tokens/{id}")),
        ("POST", format!("/api/v2/orgs/default/tokens/{id}/rotate")),
    ] {
        api.call_as(&theirs, method, &path, None).await.refuses(404, "not found");
    }
    // The master key may, and the wrong organisation has no such token.
    api.delete(&format!("/api/v2/orgs/globex/tokens/{id}")).await.refuses(404, "Token not found");
    assert_eq!(api.get("/api/v2/orgs/acme/tokens").await.is(200)["tokens"][0]["created_by"], "bob");

    let user = json!({ "name": "carl", "role": "viewer" });
    api.call_as(&theirs, "POST", "/api/v2/users", Some(user)).await.is(201);
    let names = |answer: Value| -> Vec<String> {
        answer["users"].as_array().unwrap().iter().map(|u| u["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(api.get("/api/v2/users?org=acme").await.is(200)), ["bob", "carl"]);
    assert!(names(api.get("/api/v2/users").await.is(200)).is_empty());

    // A disabled organisation lets nobody in, at once here.
    api.call("PATCH", "/api/v2/orgs/acme", json!({ "disabled": true })).await.is(200);
    api.call_as(&theirs, "GET", "/api/v2/events", None).await.refuses(401, "Unauthorized");
    assert_eq!(api.get("/api/v2/events?org=acme").await.status, 200, "who looks after it still sees it");
    api.call("PATCH", "/api/v2/orgs/acme", json!({ "disabled": false })).await.is(200);
    assert_eq!(api.call_as(&theirs, "GET", "/api/v2/events", None).await.status, 200);
}

#[tokio::test]
async fn who_acts_in_another_organisation_is_named_with_the_own_one() {
    let api = api().await;
    api.org("acme").await;
    let admin = api.user("ann", "admin").await;
    api.user_of("acme", "ann", "viewer").await;
    api.call_as(&admin, "POST", "/api/v2/orgs/acme/tokens?org=acme", None).await.is(201);
    assert_eq!(api.get("/api/v2/orgs/acme/tokens").await.is(200)["tokens"][0]["created_by"], "ann (default)");
    let claim = with_key("POST", "/api/v2/orgs/acme/tokens?org=acme").header("x-user", "ann");
    api.send(claim.body(Body::empty()).unwrap()).await.is(201);
    assert_eq!(api.get("/api/v2/orgs/acme/tokens").await.is(200)["tokens"][0]["created_by"], "ann (unverified)");
}
