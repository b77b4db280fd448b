use super::{api, api_with};
use pipeline::notify::{MatcherSpec, Planner, Policy, PolicySpec, RouteSpec, Router};
use serde_json::{Value, json};
use std::sync::Arc;

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// High alerts of the SOC go to the pager, and after a quarter of an hour to the boss.
fn soc() -> Router {
    let matcher = MatcherSpec { severity: Some("high".into()), team: names(&["SOC"]), ..MatcherSpec::default() };
    let policy =
        PolicySpec { escalate_after: Some("15m".into()), escalate_to: Some(names(&["boss"])), ..PolicySpec::default() };
    let route =
        RouteSpec { name: "soc".into(), matcher, channels: Some(names(&["pager"])), policy, ..RouteSpec::default() };
    Router::new(names(&["moog", "pager", "boss"]), Policy::default(), &[route]).unwrap()
}

#[tokio::test]
async fn the_tree_is_shown_with_what_its_routes_inherit() {
    let api = api_with(|state| state.planner = Planner::new(Arc::new(soc()), Arc::clone(&state.catalog))).await;
    let tree = api.get("/api/v2/routes").await.is(200);
    assert_eq!(tree["channels"], json!(["moog", "pager", "boss"]));
    let route = &tree["routes"][0];
    assert_eq!((&route["path"], &route["name"]), (&json!("routes[0]"), &json!("soc")));
    assert_eq!(route["match"], json!({ "severity": "high", "team": ["SOC"] }));
    assert_eq!(route["policy"]["channels"], json!(["pager"]));
    assert_eq!(route["policy"]["repeat_interval"], "4h");
    assert_eq!((&tree["root"]["suppress_for"], &tree["root"]["resolve_after"]), (&Value::Null, &json!("1d")));
}

#[tokio::test]
async fn a_test_says_who_would_be_told_and_of_which_incident() {
    let api = api_with(|state| state.planner = Planner::new(Arc::new(soc()), Arc::clone(&state.catalog))).await;
    let check = async |alert: Value, path: &str, told: &[&str], incident: Value| {
        let verdict = api.post("/api/v2/routes/test", json!({ "alert": alert })).await.is(200);
        assert_eq!(verdict["routes"][0]["path"], path, "{alert}");
        assert_eq!(verdict["receivers"], json!(told), "{alert}");
        assert_eq!(verdict["incident"], incident, "{alert}");
    };
    let all = &["moog", "pager", "boss"];
    check(json!({}), "", all, Value::Null).await;
    check(json!({ "severity": "Major", "team": "SOC" }), "routes[0]", &["pager"], Value::Null).await;
    let detection = json!({ "rule_uid": "5a1f", "level": "critical", "fields": [{ "name": "User", "value": "root" }] });
    let alert = json!({ "team": "soc", "signature": "root", "detection": detection });
    check(alert, "routes[0]", &["pager"], json!("5a1f|root")).await;
    check(json!({ "team": "SOC", "severity": "high", "kind": "escalation" }), "routes[0]", &["boss"], Value::Null)
        .await;
}

#[tokio::test]
async fn an_alert_that_cannot_be_meant_is_refused() {
    let api = api().await;
    for (body, says) in [
        (json!({}), "Missing 'alert'"),
        (json!({ "alert": { "severity": "loud" } }), "alert.severity: `loud`"),
        (json!({ "alert": { "kind": "rumour" } }), "alert.kind: "),
        (json!({ "alert": { "org": "Not An Org" } }), "alert.org: "),
        (json!({ "alert": { "tags": 1 } }), "alert: "),
    ] {
        api.post("/api/v2/routes/test", body).await.refuses(400, says);
    }
    api.post("/api/v2/routes/test", json!({ "alert": { "org": "acme" } })).await.refuses(404, "no such organisation");
}
