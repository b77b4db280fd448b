use super::api;
use serde_json::{Value, json};

#[tokio::test]
async fn a_silence_holds_for_its_time_and_is_ended_by_hand() {
    let api = api().await;
    let body = json!({ "match": { "host": "db-*", "severity": "low" }, "for": "2h", "reason": "new disks" });
    let made = api.post("/api/v2/silences", body).await.is(201);
    assert_eq!((&made["id"], &made["state"], &made["reason"]), (&json!(1), &json!("holds"), &json!("new disks")));
    assert_eq!(
        (&made["from"], &made["until"]),
        (&json!("2026-01-01T12:00:00.000000Z"), &json!("2026-01-01T14:00:00.000000Z"))
    );
    let later = json!({ "match": { "team": ["A", "B"] }, "from": "2026-01-02T00:00:00Z", "until": "2026-01-03T00:00:00Z", "reason": "r" });
    assert_eq!(api.post("/api/v2/silences", later).await.is(201)["state"], "to come");
    let silenced = async |host: &str| {
        let alert = json!({ "host": host, "severity": "high" });
        api.post("/api/v2/routes/test", json!({ "alert": alert })).await.is(200)["silenced_by"].clone()
    };
    assert_eq!((silenced("db-1").await, silenced("web-1").await), (json!(1), Value::Null));
    let listed = api.get("/api/v2/silences").await.is(200);
    assert_eq!((&listed["silences"][1]["match"], &listed["pagination"]["total"]), (&made["match"], &json!(2)));
    let ended = api.delete("/api/v2/silences/1").await.is(200);
    assert_eq!((&ended["state"], ended["ended_at"].is_string()), (&json!("over"), true));
    assert_eq!(silenced("db-1").await, Value::Null, "at once");
    api.delete("/api/v2/silences/1").await.refuses(409, "over already");
    assert_eq!(api.get("/api/v2/silences").await.is(200)["pagination"]["total"], 1);
    assert_eq!(api.get("/api/v2/silences?all=true").await.is(200)["pagination"]["total"], 2);
    let audit = api.get("/api/v2/audit?table_name=silences").await.is(200);
    assert_eq!(audit["logs"][0]["operation"], "UPDATE");
    assert_eq!(audit["logs"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_silence_that_says_too_little_or_too_much_is_refused() {
    let api = api().await;
    let whole = json!({ "match": { "host": "a" }, "for": "1h", "reason": "r" });
    for (field, value, names) in [
        ("match", json!({}), "match"),
        ("match", json!({ "hosts": "a" }), "match"),
        ("match", json!({ "severity": "loud" }), "match"),
        ("match", json!("a"), "match"),
        ("for", json!("soon"), "for"),
        ("until", json!("2026-01-02T00:00:00Z"), "for"),
        ("from", json!("yesterday"), "from"),
        ("reason", json!(" "), "reason"),
        ("author", json!("eve"), "author"),
    ] {
        let mut body = whole.clone();
        body[field] = value;
        let refused = api.post("/api/v2/silences", body).await.refuses(400, "Invalid silence");
        assert!(refused.to_string().contains(&format!("\"{names}\"")), "{field}: {refused}");
    }
    for (until, says) in [("2026-01-01T11:59:59Z", "until must be in the future"), ("", "Invalid silence")] {
        let body = json!({ "match": { "host": "a" }, "until": until, "reason": "r" });
        api.post("/api/v2/silences", body).await.refuses(400, says);
    }
    let body = json!({ "match": { "host": "a" }, "reason": "r" });
    api.post("/api/v2/silences", body).await.refuses(400, "until or for");
    api.get("/api/v2/silences?all=maybe").await.refuses(400, "all: ");
    api.delete("/api/v2/silences/9").await.refuses(404, "no such silence");
}
