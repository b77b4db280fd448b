//! Live settings, changed through several Web UIs.

use crate::site::{Site, SiteOptions, WEB_KEY};
use serde_json::{Value, json};
use std::time::Duration;

/// Each row of the audit log begins with the value that the row before it left, and the newest one
/// names what is in force.
#[tokio::test(flavor = "multi_thread")]
async fn two_web_uis_changing_one_setting_leave_a_true_trail() {
    let site = Site::start(SiteOptions::default()).await;
    let members = [site.member("webui"), site.member("webui")];
    let http = server::commands::http_client(Duration::from_secs(60)).unwrap();
    let call = async |method: &str, url: String, user: &str, body: Value| {
        let request = http.request(method.parse().unwrap(), url).header("x-api-key", WEB_KEY).header("x-user", user);
        let request = request.header("content-type", "application/json").body(body.to_string());
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    for round in 0..5u64 {
        let url = |n: usize| members[n].url("/api/v2/config/moog_rate_limit");
        let (one, two) = (json!({ "value": 10 + round }), json!({ "value": 20 + round }));
        let (one, two) = tokio::join!(call("PUT", url(0), "ann", one), call("PUT", url(1), "bob", two));
        assert_eq!((one.0, two.0), (200, 200), "{one:?} {two:?}");
        let (one, two) = tokio::join!(
            call("DELETE", url(0), "ann", json!({})),
            call("PUT", url(1), "bob", json!({ "value": 30 + round }))
        );
        assert_eq!((one.0, two.0), (200, 200), "{one:?} {two:?}");
    }
    let read = async |path: &str| -> Value {
        let (status, text) = call("GET", members[0].url(path), "eve", json!({})).await;
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    };
    let history = read("/api/v2/config/history?limit=200").await;
    let rows = history["history"].as_array().unwrap();
    assert_eq!(rows.len(), 20);
    for pair in rows.windows(2) {
        assert_eq!(pair[0]["old_value"], pair[1]["new_value"], "{pair:?}");
    }
    let config = read("/api/v2/config").await;
    assert_eq!(config["config"].get("moog_rate_limit").unwrap_or(&Value::Null), &rows[0]["new_value"]);
}
