use super::metrics::Down;
use super::{Api, api, api_with, with_key};
use axum::body::Body;
use serde_json::{Value, json};
use std::sync::Arc;

/// Defect 23 of the original: `{}` after two changes.
#[tokio::test]
async fn a_changed_setting_is_shown_at_once() {
    let api = api().await;
    assert_eq!(api.get("/api/v1/config").await.is(200), json!({ "config": {} }));
    let set = api.put("/api/v1/config/moog_rate_limit", json!({ "value": "7", "reason": "calmer" })).await.is(200);
    assert_eq!(set, json!({ "key": "moog_rate_limit", "old_value": null, "new_value": "7" }));
    let set = api.put("/api/v2/config/moog_rate_limit", json!({ "value": 9 })).await.is(200);
    assert_eq!((&set["old_value"], &set["new_value"]), (&json!("7"), &json!("9")));
    api.put("/api/v2/config/remediation_enabled", json!({ "value": false })).await.is(200);
    let config = api.get("/api/v2/config").await.is(200);
    assert_eq!(config["config"], json!({ "moog_rate_limit": "9", "remediation_enabled": "false" }));
}

#[tokio::test]
async fn a_changed_setting_acts_at_once() {
    let api = api().await;
    api.put("/api/v2/config/moog_rate_limit", json!({ "value": 9 })).await.is(200);
    api.put("/api/v2/config/remediation_enabled", json!({ "value": false })).await.is(200);
    let live = api.state.live.get();
    assert_eq!((live.delivery_limit.max, live.remediation_enabled), (9, false));
}

/// The values of all rows of one setting, oldest first, each with what it replaced.
async fn chain(api: &Api) -> Vec<(Value, Value)> {
    let history = api.get("/api/v2/config/history?limit=200").await.is(200);
    let rows = history["history"].as_array().unwrap().iter().rev();
    rows.map(|row| (row["old_value"].clone(), row["new_value"].clone())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_at_the_same_moment_are_told_one_after_the_other() {
    let api = Arc::new(api().await);
    let tasks: Vec<_> = (1..=24)
        .map(|n| {
            let api = Arc::clone(&api);
            tokio::spawn(async move {
                if n % 6 == 0 {
                    api.delete("/api/v2/config/moog_rate_limit").await.status
                } else {
                    api.put("/api/v2/config/moog_rate_limit", json!({ "value": n })).await.status
                }
            })
        })
        .collect();
    let mut changes = 0;
    for task in tasks {
        match task.await.unwrap() {
            200 => changes += 1,
            status => assert_eq!(status, 404, "nothing to remove"),
        }
    }
    let chain = chain(&api).await;
    assert_eq!(chain.len(), changes);
    assert_eq!(chain[0].0, json!(null));
    for pair in chain.windows(2) {
        assert_eq!(pair[0].1, pair[1].0, "{chain:?}");
    }
    let config = api.get("/api/v2/config").await.is(200);
    assert_eq!(config["config"].get("moog_rate_limit").unwrap_or(&json!(null)), &chain[changes - 1].1);
}

#[tokio::test]
async fn the_same_value_again_is_no_change_and_spaces_are_no_part_of_a_value() {
    let api = api().await;
    api.put("/api/v2/config/moog_rate_limit", json!({ "value": " 40 " })).await.is(200);
    let again = api.put("/api/v2/config/moog_rate_limit", json!({ "value": 40 })).await.is(200);
    assert_eq!((&again["old_value"], &again["new_value"]), (&json!("40"), &json!("40")));
    assert_eq!(chain(&api).await, [(json!(null), json!("40"))]);
}

/// Defect 34 of the original: any value of any kind was taken.
#[tokio::test]
async fn values_that_cannot_be_used_are_400_and_change_nothing() {
    let api = api().await;
    for (key, value) in [
        ("alerter_queue_shed_threshold", json!(-1)),
        ("unhandled_threshold", json!("many")),
        ("alerter_shed_mode", json!("drop")),
        ("moog_rate_limit", json!(0)),
        ("moog_rate_limit", json!(1.5)),
        ("moog_rate_limit", json!(null)),
        ("moog_rate_limit", json!([1])),
        ("anything", json!({ "a": 1 })),
        ("anything", json!("x".repeat(2_000))),
    ] {
        let refused = api.put(&format!("/api/v2/config/{key}"), json!({ "value": value })).await.refuses(400, "value");
        assert!(refused["fields"]["value"].is_string(), "{key}: {refused}");
    }
    api.put("/api/v2/config/moog_rate_limit", json!({ "reason": "x" }))
        .await
        .refuses(400, "Missing 'value' in request body");
    api.put("/api/v2/config/no%20key", json!({ "value": 1 })).await.refuses(400, "key");
    let broken = with_key("PUT", "/api/v2/config/moog_rate_limit")
        .header("content-type", "application/json")
        .body(Body::from("{\"value\":"))
        .unwrap();
    api.send(broken).await.refuses(400, "not JSON");
    assert_eq!(api.get("/api/v2/config").await.is(200)["config"], json!({}));
    assert_eq!(api.get("/api/v2/audit").await.is(200)["pagination"]["total"], 0);
}

/// Defect 34 of the original: any key was taken.
#[tokio::test]
async fn an_unknown_setting_is_400_and_the_known_ones_are_named() {
    let api = api().await;
    let refused = api.put("/api/v2/config/moog_rate_limitt", json!({ "value": "7" })).await;
    let refused = refused.refuses(400, "there is no setting `moog_rate_limitt` (did you mean `moog_rate_limit`?)");
    let allowed = refused["allowed"].as_array().unwrap();
    for key in ["moog_rate_limit", "cache_reload_interval", "slo_forwarder_availability_burn_rate_warning"] {
        assert!(allowed.contains(&json!(key)), "{key}: {allowed:?}");
    }
    assert_eq!(api.get("/api/v2/config").await.is(200)["config"], json!({}));
}

/// The original's seeding scripts set these.
#[tokio::test]
async fn a_setting_of_the_contract_that_nothing_reads_is_kept_with_a_warning() {
    let api = api().await;
    let set = api.put("/api/v2/config/cache_reload_interval", json!({ "value": "300" })).await.is(200);
    assert!(set["warning"].as_str().unwrap().contains("nothing reads it"), "{set}");
    api.put("/api/v2/config/cache_reload_interval", json!({ "value": "often" })).await.refuses(400, "whole number");
    api.put("/api/v2/config/retention_enforcement_enabled", json!({ "value": "x" }))
        .await
        .refuses(400, "true or false");
    api.put("/api/v2/config/unhandled_default_team", json!({ "value": "" })).await.refuses(400, "printable");
    let acts = api.put("/api/v2/config/slo_window_hours", json!({ "value": 6 })).await.is(200);
    assert_eq!(acts.get("warning"), None);
    assert_eq!(api.get("/api/v2/slo").await.is(200)["window_hours"], 6);
}

#[tokio::test]
async fn a_removed_setting_gives_the_configured_value_back() {
    let api = api().await;
    api.put("/api/v2/config/moog_rate_limit", json!({ "value": 9 })).await.is(200);
    assert_eq!(api.state.live.get().delivery_limit.max, 9);
    let removed = api.delete("/api/v1/config/moog_rate_limit").await.is(200);
    assert_eq!(removed, json!({ "key": "moog_rate_limit", "old_value": "9", "new_value": null }));
    assert_eq!(api.state.live.get().delivery_limit.max, 50);
    assert_eq!(api.get("/api/v2/config").await.is(200)["config"], json!({}));
    let newest = &api.get("/api/v2/config/history").await.is(200)["history"][0];
    assert_eq!(
        (&newest["operation"], &newest["old_value"], &newest["new_value"]),
        (&json!("DELETE"), &json!("9"), &json!(null))
    );
    assert_eq!(newest["key"], "moog_rate_limit");
    api.delete("/api/v2/config/moog_rate_limit").await.refuses(404, "not set");
}

/// Defect 22 of the original: the history was always 500.
#[tokio::test]
async fn the_history_of_settings_says_who_changed_what() {
    let api = api().await;
    api.put("/api/v2/config/moog_rate_limit", json!({ "value": 7, "reason": "calmer" })).await.is(200);
    api.put("/api/v2/config/moog_rate_limit", json!({ "value": 8 })).await.is(200);
    api.post("/api/v2/dev-hosts", json!({ "hostname": "lab" })).await.is(201);
    for version in ["v1", "v2"] {
        let history = api.get(&format!("/api/{version}/config/history")).await.is(200);
        assert_eq!(history["pagination"], json!({ "page": 1, "limit": 50, "total": 2, "pages": 1 }));
        let (newest, first) = (&history["history"][0], &history["history"][1]);
        assert_eq!(
            (&newest["key"], &newest["old_value"], &newest["new_value"]),
            (&json!("moog_rate_limit"), &json!("7"), &json!("8"))
        );
        assert_eq!((&newest["operation"], &first["operation"]), (&json!("UPDATE"), &json!("CREATE")));
        assert_eq!((&first["old_value"], &first["reason"]), (&json!(null), &json!("calmer")));
        assert_eq!(newest["changed_at"], "Thu, 01 Jan 2026 12:00:00 GMT");
    }
    let audit = api.get("/api/v2/audit?table_name=dynamic_config").await.is(200);
    assert_eq!(audit["logs"][0]["new_values"], json!({ "key": "moog_rate_limit", "value": "8" }));
}

#[tokio::test]
async fn without_its_store_it_is_503_and_nothing_is_recorded() {
    let api = api_with(|state| state.coordination = Arc::new(Down)).await;
    for answer in
        [api.get("/api/v2/config").await, api.put("/api/v2/config/moog_rate_limit", json!({ "value": 7 })).await]
    {
        assert_eq!(answer.header("retry-after"), "1");
        assert!(!answer.text.contains("s3cret"), "{}", answer.text);
        answer.refuses(503, "Dynamic config is not available");
    }
    assert_eq!(api.get("/api/v2/audit").await.is(200)["pagination"]["total"], 0);
}

#[tokio::test]
async fn a_value_of_another_program_that_cannot_be_used_is_told() {
    let api = api().await;
    for (key, value) in [("moog_rate_limit", "abc"), ("unhandled_threshold", "7"), ("their_own", "x")] {
        api.state.coordination.set_setting(key, value).await.unwrap();
    }
    let config = api.get("/api/v2/config").await.is(200);
    assert_eq!(config["config"]["moog_rate_limit"], "abc");
    let unusable = config["unusable"].as_object().unwrap();
    assert_eq!(unusable.keys().collect::<Vec<_>>(), ["moog_rate_limit", "their_own"], "{config}");
    assert!(unusable["moog_rate_limit"].as_str().unwrap().contains("abc"));
}

#[tokio::test]
async fn every_setting_that_is_taken_is_documented() {
    let documented = include_str!("../../../../../docs/configuration.md");
    let refused = api().await.put("/api/v2/config/nothing", json!({ "value": "7" })).await.is(400);
    for key in refused["allowed"].as_array().unwrap().iter().map(|key| key.as_str().unwrap()) {
        let mut forms = vec![key.to_owned()];
        for name in ["ingestor_availability", "forwarder_availability", "alerter_processing_success"] {
            forms.extend(["<name>", "<ratio>"].map(|any| key.replace(name, any)));
        }
        forms.extend(["<name>", "<ratio>"].map(|any| key.replace("alerter_cache_reload_success", any)));
        for name in ["ingestor_latency_p99", "forwarder_latency_p99"] {
            forms.extend(["<name>", "<latency>"].map(|any| key.replace(name, any)));
        }
        assert!(forms.iter().any(|form| documented.contains(&format!("`{form}`"))), "{key}");
    }
}
