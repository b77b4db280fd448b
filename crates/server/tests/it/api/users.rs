use super::{Answer, Api, KEY, api, api_with, with_key};
use axum::body::Body;
use axum::http::Request;
use runtime::ManualClock;
use runtime::http::Peer;
use serde_json::{Value, json};
use server::api::{openapi, router};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

impl Api {
    /// A user with a key.
    pub async fn user(&self, name: &str, role: &str) -> String {
        self.post("/api/v2/users", json!({ "name": name, "role": role })).await.is(201);
        self.new_key(name).await
    }

    async fn new_key(&self, name: &str) -> String {
        let made =
            self.send(with_key("POST", &format!("/api/v2/users/{name}/keys")).body(Body::empty()).unwrap()).await;
        made.is(201)["key"].as_str().unwrap().to_owned()
    }

    pub async fn call_as(&self, key: &str, method: &str, path: &str, body: Option<Value>) -> Answer {
        let request = Request::builder().method(method).uri(path).header("x-api-key", key).header("x-user", "liar");
        let request = request.header("content-type", "application/json");
        self.send(request.body(Body::from(body.unwrap_or(json!({})).to_string())).unwrap()).await
    }
}

#[tokio::test]
async fn each_role_may_do_what_it_should_and_nothing_else() {
    let api = api().await;
    let roles = ["viewer", "operator", "admin"];
    let mut keys = Vec::new();
    for role in roles {
        keys.push(api.user(&format!("a-{role}"), role).await);
    }
    let document = openapi();
    let mut checked = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let Some(needed) = operation["x-role"].as_str() else { continue };
            let needed = roles.iter().position(|role| *role == needed).unwrap();
            let path = path.replace("{id}", "4242").replace("{name}", "nobody").replace("{hostname}", "h");
            let path = path.replace("{key}", "moog_rate_limit").replace("{org}", "default");
            for (rank, key) in keys.iter().enumerate() {
                let answer = api.call_as(key, &method.to_uppercase(), &path, None).await;
                if rank >= needed {
                    assert!(![401, 403].contains(&answer.status), "{} {method} {path}: {}", roles[rank], answer.text);
                } else {
                    let says = format!("This needs the role {}; a-{} has {}", roles[needed], roles[rank], roles[rank]);
                    answer.refuses(403, &says);
                }
                checked += 1;
            }
        }
    }
    assert!(checked > 150, "{checked}");
    for (role, method, path, expected) in [
        (0, "GET", "/api/v1/rules", 200),
        (0, "POST", "/api/v1/rules", 403),
        (1, "POST", "/api/v1/dev-hosts", 400),
        (1, "PUT", "/api/v2/config/moog_rate_limit", 403),
        (1, "GET", "/api/v2/users", 403),
        (2, "GET", "/api/v2/users", 200),
    ] {
        assert_eq!(api.call_as(&keys[role], method, path, None).await.status, expected, "{role} {method} {path}");
    }
}

#[tokio::test]
async fn a_change_carries_the_users_name_whatever_the_request_claims() {
    let api = api().await;
    let key = api.user("bob@example.org", "operator").await;
    api.call_as(&key, "POST", "/api/v2/dev-hosts", Some(json!({ "hostname": "lab" }))).await.is(201);
    let log = &api.get("/api/v2/audit?changed_by=bob").await.is(200)["logs"][0];
    assert_eq!((&log["changed_by"], &log["table_name"]), (&json!("bob@example.org"), &json!("development_hosts")));
}

#[tokio::test]
async fn a_key_is_shown_once_and_is_nowhere_else() {
    let api = api().await;
    let key = api.user("bob", "viewer").await;
    assert!(key.starts_with("muk_") && key.len() == 68, "256 bits: {}", key.len());
    for path in ["/api/v2/users", "/api/v2/users/bob", "/api/v2/users/bob/keys", "/api/v2/audit"] {
        let text = api.get(path).await.text;
        assert!(!text.contains(&key[4..20]) && !text.contains("fingerprint"), "{path}: {text}");
    }
    let listed = api.get("/api/v2/users/bob").await.is(200);
    assert_eq!((&listed["role"], &listed["keys"][0]["state"]), (&json!("viewer"), &json!("valid")));
    assert_eq!(listed["keys"][0]["last_used_at"], json!(null));
    api.call_as(&key, "GET", "/api/v2/rules", None).await.is(200);
    let used = api.get("/api/v2/users/bob/keys").await.is(200);
    assert_eq!(used["keys"][0]["last_used_at"], "2026-01-01T12:00:00.000000Z");
}

#[tokio::test]
async fn keys_are_replaced_without_a_gap_and_end_at_once() {
    let api = api().await;
    let old = api.user("bob", "viewer").await;
    let new = api.new_key("bob").await;
    for key in [&old, &new] {
        api.call_as(key, "GET", "/api/v2/rules", None).await.is(200);
    }
    api.delete("/api/v2/users/bob/keys/1").await.is(200);
    api.call_as(&old, "GET", "/api/v2/rules", None).await.refuses(401, "Unauthorized");
    api.call_as(&new, "GET", "/api/v2/rules", None).await.is(200);
    api.put("/api/v2/users/bob", json!({ "role": "operator" })).await.is(200);
    api.call_as(&new, "POST", "/api/v2/dev-hosts", Some(json!({ "hostname": "lab" }))).await.is(201);
    api.delete("/api/v2/users/bob").await.is(200);
    api.call_as(&new, "GET", "/api/v2/rules", None).await.refuses(401, "Unauthorized");
}

/// Two Web UIs over one catalog.
#[tokio::test]
async fn a_key_that_is_revoked_elsewhere_ends_here_too() {
    let api = api().await;
    let key = api.user("bob", "viewer").await;
    let elsewhere = router(api.state.clone());
    let ask = async || {
        let request = Request::builder().uri("/api/v2/rules").header("x-api-key", &key).body(Body::empty()).unwrap();
        tower::ServiceExt::oneshot(elsewhere.clone(), request).await.unwrap().status().as_u16()
    };
    assert_eq!(ask().await, 200);
    api.delete("/api/v2/users/bob/keys/1").await.is(200);
    let end = tokio::time::Instant::now() + Duration::from_secs(30);
    while ask().await != 401 {
        assert!(tokio::time::Instant::now() < end, "it goes on for ever");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn an_expired_key_is_none() {
    let clock = Arc::new(ManualClock::new(super::NOON));
    let api = api_with(|state| state.clock = Arc::clone(&clock) as Arc<dyn runtime::Clock>).await;
    api.post("/api/v2/users", json!({ "name": "bob", "role": "viewer" })).await.is(201);
    let body = json!({ "label": "for a day", "expires_at": "2026-01-02T12:00:00Z" });
    let made = api.post("/api/v2/users/bob/keys", body).await.is(201);
    let key = made["key"].as_str().unwrap();
    api.call_as(key, "GET", "/api/v2/rules", None).await.is(200);
    clock.advance(Duration::from_secs(86_400));
    api.call_as(key, "GET", "/api/v2/rules", None).await.refuses(401, "Unauthorized");
    assert_eq!(api.get("/api/v2/users/bob/keys").await.is(200)["keys"][0]["state"], "expired");
    let past = json!({ "expires_at": "2020-01-01" });
    let refused = api.post("/api/v2/users/bob/keys", past).await.refuses(400, "expires_at");
    assert!(refused["fields"]["expires_at"].is_string());
}

#[tokio::test]
async fn what_cannot_be_a_user_is_refused_in_words() {
    let api = api().await;
    api.post("/api/v2/users", json!({ "name": "bob", "role": "viewer" })).await.is(201);
    api.post("/api/v2/users", json!({ "name": "bob", "role": "admin" })).await.refuses(409, "exists already");
    api.post("/api/v2/users", json!({ "name": "b/b", "role": "admin" })).await.refuses(400, "letters, digits");
    api.post("/api/v2/users", json!({ "name": "eve", "role": "root" })).await.refuses(400, "viewer, operator, admin");
    api.post("/api/v2/users", json!({ "name": "eve" })).await.refuses(400, "required");
    api.put("/api/v2/users/eve", json!({ "role": "admin" })).await.refuses(404, "User not found");
    api.delete("/api/v2/users/eve").await.refuses(404, "User not found");
    api.get("/api/v2/users/eve/keys").await.refuses(404, "User not found");
    api.post("/api/v2/users/eve/keys", json!({})).await.refuses(404, "User not found");
    for id in ["9", "x"] {
        api.delete(&format!("/api/v2/users/bob/keys/{id}")).await.refuses(404, "Key not found");
    }
}

#[tokio::test]
async fn an_address_with_many_wrong_keys_has_to_wait_but_not_with_right_ones() {
    let api = api().await;
    let (known, fresh) = (api.user("bob", "viewer").await, api.user("eve", "viewer").await);
    let from = async |address: &str, key: &str| {
        let peer: SocketAddr = address.parse().unwrap();
        let request = Request::builder().uri("/api/v2/rules").header("x-api-key", key).extension(Peer(peer));
        api.send(request.body(Body::empty()).unwrap()).await
    };
    from("192.0.2.1:1000", &known).await.is(200);
    for n in 0..20 {
        from(&format!("192.0.2.1:{}", 2_000 + n), "guess").await.refuses(401, "Unauthorized");
    }
    let limited = from("192.0.2.1:3000", "guess").await;
    let wait: u64 = limited.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    limited.refuses(429, "Too many wrong keys");
    for key in [&known, &fresh, KEY] {
        from("192.0.2.1:3001", key).await.is(200);
    }
    let newest = api.user("ann", "viewer").await;
    from("192.0.2.1:3002", &newest).await.is(200);
    from("192.0.2.1:3003", "guess").await.refuses(429, "Too many wrong keys");
    from("192.0.2.2:1000", "guess").await.refuses(401, "Unauthorized");
    let text = api.get("/metrics").await.text;
    assert!(text.contains("mutt_webui_login_failures_total{result=\"wrong_key\"} 21"), "{text}");
    assert!(text.contains("mutt_webui_login_failures_total{result=\"limited\"} 2"), "{text}");
}

/// The holder of the configured key may be anybody: in the audit log nobody is taken for a user whose
/// key was not used.
#[tokio::test]
async fn a_claim_to_be_a_user_is_told_from_the_users_own_deeds() {
    let api = api().await;
    let bob = api.user("bob", "operator").await;
    let as_user = async |key: &str, user: &str, host: &str| {
        let request = Request::builder().method("POST").uri("/api/v2/dev-hosts").header("x-api-key", key);
        let request = request.header("x-user", user).header("content-type", "application/json");
        let body = Body::from(json!({ "hostname": host }).to_string());
        api.send(request.body(body).unwrap()).await.is(201);
        let audit = api.get("/api/v2/audit?limit=1").await.is(200);
        audit["logs"][0]["changed_by"].as_str().unwrap().to_owned()
    };
    assert_eq!(as_user(&bob, "ann", "h1").await, "bob", "a key of a user's own says who it is");
    assert_eq!(as_user(KEY, "bob", "h2").await, "bob (unverified)");
    assert_eq!(as_user(KEY, "BOB", "h3").await, "BOB (unverified)");
    assert_eq!(as_user(KEY, "ann", "h4").await, "ann", "nobody that could be mistaken");
}
