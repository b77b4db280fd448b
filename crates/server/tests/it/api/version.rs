use super::{api, api_with, with_key};
use axum::body::Body;
use axum::http::Request;

#[tokio::test]
async fn the_version_headers_are_on_every_response() {
    let api = api().await;
    for (path, key, deprecated) in [
        ("/health", false, "false"),
        ("/metrics", false, "false"),
        ("/api/v1/version", false, "true"),
        ("/api/v2/version", false, "false"),
        ("/api/v1/rules", true, "true"),
        ("/api/v2/rules", true, "false"),
        ("/api/v1/rules/9", true, "true"),
        ("/api/v1/nothing", true, "true"),
        ("/api/v1/rules", false, "true"),
        ("/nothing", true, "false"),
    ] {
        let request = if key { with_key("GET", path) } else { Request::builder().uri(path) };
        let answer = api.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.header("x-api-version"), "v2.5", "{path}");
        assert_eq!(answer.header("x-api-supported-versions"), "v2.5, v2.0, v1.0", "{path}");
        assert_eq!(answer.header("x-api-deprecated"), deprecated, "{path}");
    }
}

#[tokio::test]
async fn the_headers_have_the_form_of_the_originals_code_when_asked_for() {
    let api = api_with(|state| state.options.version_prefix = false).await;
    let answer = api.get("/api/v2/rules").await;
    assert_eq!(answer.header("x-api-version"), "2.5");
    assert_eq!(answer.header("x-api-supported-versions"), "2.5, 2.0, 1.0");
}

#[tokio::test]
async fn the_version_page_has_the_contracts_keys() {
    let api = api().await;
    let version = api.get("/api/v1/version").await.is(200);
    assert_eq!((&version["current_version"], &version["default_version"]), (&"2.5".into(), &"2.5".into()));
    assert_eq!(version["supported_versions"], serde_json::json!(["2.5", "2.0", "1.0"]));
    for known in ["2.5", "2.0", "1.0"] {
        let history = &version["version_history"][known];
        assert!(history["released"].is_string() && history["status"].is_string(), "{known}");
        assert!(history["changes"].is_array(), "{known}");
    }
}

#[tokio::test]
async fn a_client_may_ask_for_a_version_and_gets_the_same_payloads() {
    let api = api().await;
    let negotiated = async |headers: &[(&str, &str)], query: &str| {
        let mut request = Request::builder().uri(format!("/api/v2/version{query}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        api.send(request.body(Body::empty()).unwrap()).await.is(200)["negotiated_version"].clone()
    };
    assert_eq!(negotiated(&[], "").await, "2.5");
    assert_eq!(negotiated(&[("Accept-Version", "1.0"), ("X-API-Version", "2.0")], "").await, "1.0");
    assert_eq!(negotiated(&[("Accept-Version", "9.9"), ("X-API-Version", "2.0")], "").await, "2.0");
    assert_eq!(negotiated(&[], "?api_version=1.0").await, "1.0");
    let old = with_key("GET", "/api/v2/rules").header("Accept-Version", "1.0").body(Body::empty()).unwrap();
    assert_eq!(api.send(old).await.is(200), api.get("/api/v2/rules").await.is(200));
}
