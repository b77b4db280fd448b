use super::metrics::Down;
use super::{KEY, api, api_with, with_key};
use axum::body::Body;
use axum::http::{HeaderValue, Request};
use runtime::logging::{LogConfig, lines_to};
use serde_json::json;
use std::sync::{Arc, Mutex};

fn without_key(path: &str) -> axum::http::request::Builder {
    Request::builder().uri(path)
}

#[tokio::test]
async fn a_missing_or_wrong_key_is_401_on_every_path_but_the_public_ones() {
    let api = api().await;
    for path in [
        "/",
        "/api/v1/metrics",
        "/api/v2/metrics",
        "/api/v1/slo",
        "/api/v1/rules",
        "/api/v2/rules/1",
        "/api/v2/config",
        "/api/v2/config/history",
        "/api/v2/audit",
        "/api/v2/audit-logs",
        "/api/v2/config-audit",
        "/api/v2/dev-hosts",
        "/api/v2/teams",
        "/api/v2/events",
        "/api/v2/alerts",
        "/api/v2/trace/x",
        "/api/v2/queues",
        "/api/v2/rejects",
    ] {
        let answer = api.send(without_key(path).body(Body::empty()).unwrap()).await;
        assert_eq!(answer.refuses(401, "Unauthorized")["error"], "Unauthorized", "{path}");
        let answer = api.send(without_key(path).header("X-API-KEY", "wrong").body(Body::empty()).unwrap()).await;
        answer.refuses(401, "Unauthorized");
    }
    for path in ["/health", "/metrics", "/api/v1/version", "/api/v2/version"] {
        let answer = api.send(without_key(path).body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    }
}

#[tokio::test]
async fn who_has_no_key_does_not_learn_which_paths_exist() {
    let api = api().await;
    for path in ["/nothing", "/api/v2/nothing", "/api/v1/queues", "/api/v3/rules", "/api/v2/rules/"] {
        api.send(without_key(path).body(Body::empty()).unwrap()).await.refuses(401, "Unauthorized");
        api.get(path).await.refuses(404, "no such path");
    }
    let patch = |key: bool| {
        let request = Request::builder().method("PATCH").uri("/api/v2/rules");
        if key { request.header("X-API-KEY", KEY) } else { request }
    };
    api.send(patch(false).body(Body::empty()).unwrap()).await.refuses(401, "Unauthorized");
    let answer = api.send(patch(true).body(Body::empty()).unwrap()).await;
    assert!(answer.header("allow").contains("POST"), "{:?}", answer.headers);
    answer.refuses(405, "method");
}

#[tokio::test]
async fn a_bad_body_without_a_key_is_401_not_400() {
    let api = api().await;
    let request = Request::builder().method("POST").uri("/api/v2/rules").body(Body::from("{")).unwrap();
    api.send(request).await.refuses(401, "Unauthorized");
}

#[tokio::test]
async fn every_configured_key_works_and_an_empty_one_never_does() {
    let both = api().await;
    for key in [KEY, "another-key"] {
        let request = without_key("/api/v2/rules").header("x-api-key", key).body(Body::empty()).unwrap();
        both.send(request).await.is(200);
    }
    let empty = api_with(|state| state.keys = vec![runtime::Secret::new("")].into()).await;
    let request = without_key("/api/v2/rules").header("x-api-key", "").body(Body::empty()).unwrap();
    empty.send(request).await.refuses(401, "Unauthorized");
    let none = api_with(|state| state.keys = Vec::new().into()).await;
    none.get("/api/v2/rules").await.refuses(401, "Unauthorized");
}

/// Defect 35 of the original.
#[tokio::test]
async fn non_ascii_key_is_401_not_500() {
    let api = api().await;
    for bytes in ["schlüssel".as_bytes(), &[0xff, 0xfe, 0x80], "ключ".as_bytes()] {
        let value = HeaderValue::from_bytes(bytes).unwrap();
        let request = without_key("/api/v1/rules").header("X-API-KEY", value).body(Body::empty()).unwrap();
        api.send(request).await.refuses(401, "Unauthorized");
    }
}

/// Defect 29 of the original: keys in URLs end in logs and referrers.
#[tokio::test]
async fn no_key_in_the_url() {
    let path = format!("/api/v2/rules?api_key={KEY}");
    let strict = api().await;
    strict.send(without_key(&path).body(Body::empty()).unwrap()).await.refuses(401, "Unauthorized");
    let compatible = api_with(|state| state.options.key_in_url = true).await;
    compatible.send(without_key(&path).body(Body::empty()).unwrap()).await.is(200);
    let request = without_key(&path).header("X-API-KEY", "wrong").body(Body::empty()).unwrap();
    compatible.send(request).await.refuses(401, "Unauthorized");
    compatible.send(without_key("/api/v2/rules").body(Body::empty()).unwrap()).await.refuses(401, "Unauthorized");
}

/// Defect 29 of the original: the first characters of the key stood in audit rows.
#[tokio::test]
async fn no_part_of_a_key_is_in_an_audit_row_and_a_name_is_if_one_is_given() {
    let api = api().await;
    api.post("/api/v2/dev-hosts", json!({ "hostname": "lab-1" })).await.is(201);
    let request = with_key("POST", "/api/v2/dev-hosts")
        .header("content-type", "application/json")
        .header("X-User", "Jürgen".as_bytes())
        .body(Body::from(json!({ "hostname": "lab-2" }).to_string()))
        .unwrap();
    api.send(request).await.is(201);
    let logs = api.get("/api/v2/audit").await;
    assert!(!logs.text.contains(&KEY[..8]) && !logs.text.contains(&KEY[KEY.len() - 4..]), "{}", logs.text);
    let logs = logs.is(200);
    assert_eq!(
        (&logs["logs"][0]["changed_by"], &logs["logs"][1]["changed_by"]),
        (&json!("Jürgen"), &json!("api_key:***"))
    );
}

#[tokio::test]
async fn the_correlation_id_comes_back_in_header_body_and_audit_row() {
    let api = api().await;
    let request =
        with_key("GET", "/api/v2/rules/999").header("X-Correlation-ID", "case-17").body(Body::empty()).unwrap();
    let answer = api.send(request).await;
    assert_eq!(answer.header("x-correlation-id"), "case-17");
    assert_eq!(answer.refuses(404, "Rule not found")["correlation_id"], "case-17");
    let made = api.get("/api/v2/rules").await;
    assert_eq!(made.header("x-correlation-id").len(), 36, "one is made where none is given");
    let request = with_key("POST", "/api/v2/dev-hosts")
        .header("content-type", "application/json")
        .header("X-Correlation-ID", "case-18")
        .body(Body::from(json!({ "hostname": "lab" }).to_string()))
        .unwrap();
    api.send(request).await.is(201);
    assert_eq!(api.get("/api/v2/audit").await.is(200)["logs"][0]["correlation_id"], "case-18");
}

/// What was logged, for a look at it.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn what_the_log_says_of_a_request_is_under_its_correlation_id() {
    let (log, config) = (
        Log::default(),
        LogConfig { level: "warn".into(), json: false, service: "muttd".into(), pod_name: "p".into() },
    );
    let writer = log.clone();
    let clock = Arc::new(runtime::ManualClock::new(super::NOON));
    let (subscriber, _) = lines_to(&config, clock, move || writer.clone()).unwrap();
    let _here = tracing::subscriber::set_default(subscriber);
    let api = api_with(|state| state.coordination = Arc::new(Down)).await;
    let request = with_key("GET", "/api/v2/config").header("X-Correlation-ID", "case-19").body(Body::empty()).unwrap();
    api.send(request).await.refuses(503, "");
    let request = without_key("/api/v2/rules").header("X-API-KEY", "wrong").header("X-Correlation-ID", "case-20");
    let mut request = request.body(Body::empty()).unwrap();
    request.extensions_mut().insert(runtime::http::Peer(([192, 0, 2, 1], 7).into()));
    api.send(request).await.refuses(401, "");
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains(" - WARN - [case-19] - a request could not be served now"), "{text}");
    assert!(text.contains(" - WARN - [case-20] - a wrong key for the Web API"), "{text}");
}
