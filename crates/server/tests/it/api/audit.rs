use super::{Api, NOON, api, event_id};
use serde_json::json;
use std::time::Duration;
use storage::catalog::{AuditEntry, ConfigChange};

async fn three_changes(api: &Api) {
    let rule = json!({
        "match_string": "CRITICAL", "prod_handling": "Ignore", "dev_handling": "Ignore", "team_assignment": "NETO",
    });
    let id = api.post("/api/v2/rules", rule).await.is(201)["id"].clone();
    api.put(&format!("/api/v2/rules/{id}"), json!({ "priority": 1 })).await.is(200);
    api.delete(&format!("/api/v2/rules/{id}")).await.is(200);
}

/// Defect 22 of the original: 500 as soon as there was a row.
#[tokio::test]
async fn the_audit_log_shows_real_rows_with_their_values() {
    let api = api().await;
    three_changes(&api).await;
    let audit = api.get("/api/v1/audit").await.is(200);
    assert_eq!(audit["pagination"], json!({ "page": 1, "limit": 50, "total": 3, "pages": 1 }));
    let logs = audit["logs"].as_array().unwrap();
    let operations: Vec<_> = logs.iter().map(|log| log["operation"].as_str().unwrap()).collect();
    assert_eq!(operations, ["DELETE", "UPDATE", "CREATE"], "newest first");
    assert_eq!(logs[0]["changed_at"], "Thu, 01 Jan 2026 12:00:00 GMT");
    assert_eq!((&logs[0]["new_values"], &logs[2]["old_values"]), (&json!(null), &json!(null)));
    assert_eq!(logs[1]["new_values"]["priority"], 1);
    for key in ["id", "changed_by", "table_name", "record_id", "reason", "correlation_id"] {
        assert!(logs[0].get(key).is_some(), "{key}");
    }
}

#[tokio::test]
async fn config_audit_shows_changes_without_values_in_both_versions() {
    let api = api().await;
    three_changes(&api).await;
    for version in ["v1", "v2"] {
        let audit = api.get(&format!("/api/{version}/config-audit?limit=1")).await.is(200);
        let next = audit["pagination"]["next_cursor"].as_str().unwrap();
        assert_eq!(audit["pagination"], json!({ "page": 1, "limit": 1, "total": 3, "pages": 3, "next_cursor": next }),);
        let mut keys: Vec<_> = audit["changes"][0].as_object().unwrap().keys().cloned().collect();
        keys.sort();
        assert_eq!(
            keys,
            ["changed_at", "changed_by", "correlation_id", "id", "operation", "reason", "record_id", "table_name"]
        );
    }
}

/// Defect 22 of the original.
#[tokio::test]
async fn bad_operation_is_400_not_500() {
    let api = api().await;
    for path in ["/api/v1/audit", "/api/v2/audit", "/api/v1/config-audit", "/api/v2/config-audit"] {
        api.get(&format!("{path}?operation=EXPLODE")).await.refuses(400, "operation: `EXPLODE`");
        api.get(&format!("{path}?operation=create")).await.is(200);
    }
}

#[tokio::test]
async fn every_bad_parameter_is_400_and_named() {
    let api = api().await;
    for (path, queries) in [
        (
            "/api/v1/audit",
            &["page=0", "page=x", "limit=0", "limit=x", "record_id=x", "start_date=x", "end_date=2026-99-01"][..],
        ),
        ("/api/v2/config-audit", &["page=-1", "limit=1.5", "record_id=", "start_date=yesterday"]),
        ("/api/v2/audit-logs", &["page=x", "limit=x", "rule_id=x", "start_date=x", "end_date=x", "event_id=alr_1"]),
        ("/api/v2/config/history", &["page=x", "limit=x"]),
    ] {
        for query in queries {
            let (name, value) = query.split_once('=').unwrap();
            let answer = api.get(&format!("{path}?{query}")).await;
            if value.is_empty() {
                answer.is(200);
            } else {
                answer.refuses(400, &format!("{name}: "));
            }
        }
    }
    api.get("/api/v2/audit?start_date=2026-02-01&end_date=2026-01-01").await.refuses(400, "end_date");
    let large = api.get("/api/v2/audit?limit=5000").await.is(200);
    assert_eq!(large["pagination"]["limit"], 200, "the largest page");
}

#[tokio::test]
async fn changes_are_found_by_every_filter() {
    let api = api().await;
    for (n, (who, operation, table)) in
        [("alice", "CREATE", "alert_rules"), ("bob_50%", "UPDATE", "alert_rules"), ("Alina", "DELETE", "device_teams")]
            .into_iter()
            .enumerate()
    {
        let change = ConfigChange {
            id: 0,
            changed_at: NOON.plus(Duration::from_secs(86_400 * n as u64)),
            changed_by: who.into(),
            operation: operation.into(),
            table_name: table.into(),
            record_id: n as i64,
            old_values: None,
            new_values: Some("{\"a\":1}".into()),
            reason: None,
            correlation_id: Some("c".into()),
        };
        api.state.catalog.record_config_change(&api.state.org, change).await.unwrap();
    }
    for (query, names) in [
        ("changed_by=ALI", &["Alina", "alice"][..]),
        ("changed_by=50%25", &["bob_50%"]),
        ("changed_by=a_i", &[]),
        ("operation=update", &["bob_50%"]),
        ("table_name=alert_rules", &["bob_50%", "alice"]),
        ("record_id=2", &["Alina"]),
        ("start_date=2026-01-02", &["Alina", "bob_50%"]),
        ("end_date=2026-01-02", &["bob_50%", "alice"]),
        ("start_date=2026-01-02T12:00:00Z&end_date=2026-01-02T12:00:00Z", &["bob_50%"]),
        ("page=2&limit=2", &["alice"]),
        ("page=9", &[]),
    ] {
        let found = api.get(&format!("/api/v2/audit?{query}")).await.is(200);
        let found: Vec<_> =
            found["logs"].as_array().unwrap().iter().map(|l| l["changed_by"].as_str().unwrap()).collect();
        assert_eq!(found, names, "{query}");
    }
}

#[tokio::test]
async fn audit_logs_have_all_columns_and_every_filter() {
    let api = api().await;
    let entries = (0..3u64)
        .map(|n| AuditEntry {
            event_id: event_id(n),
            event_timestamp: NOON.plus(Duration::from_secs(86_400 * n)),
            hostname: format!("sw{}", n % 2),
            matched_rule_id: n as i64,
            handling_decision: "Ticket_only".into(),
            forwarded: n > 0,
            raw_message: format!("{{\"n\":{n}}}").into(),
        })
        .collect();
    api.state.catalog.record(&api.state.org, entries, Vec::new()).await.unwrap();
    let all = api.get("/api/v1/audit-logs").await.is(200);
    let row = &all["logs"][2];
    assert_eq!((&row["event_timestamp"], &row["hostname"]), (&json!("Thu, 01 Jan 2026 12:00:00 GMT"), &json!("sw0")));
    assert_eq!((&row["forwarded_to_moog"], &row["raw_message"]), (&json!(false), &json!("{\"n\":0}")));
    for (query, rules) in [
        ("", &[2, 1, 0][..]),
        ("hostname=sw0", &[2, 0]),
        ("rule_id=1", &[1]),
        ("start_date=2026-01-02", &[2, 1]),
        ("end_date=2026-01-01", &[0]),
        ("limit=1&page=2", &[1]),
        ("hostname=none", &[]),
    ] {
        let found = api.get(&format!("/api/v2/audit-logs?{query}")).await.is(200);
        let found: Vec<_> =
            found["logs"].as_array().unwrap().iter().map(|l| l["matched_rule_id"].as_i64().unwrap()).collect();
        assert_eq!(found, rules, "{query}");
    }
    for version in ["v1", "v2"] {
        let (mut rules, mut cursor) = (Vec::new(), String::new());
        loop {
            let found = api.get(&format!("/api/{version}/audit-logs?limit=2&cursor={cursor}")).await.is(200);
            rules.extend(found["logs"].as_array().unwrap().iter().map(|l| l["matched_rule_id"].as_i64().unwrap()));
            assert_eq!(found["pagination"]["total"], 3);
            let Some(next) = found["pagination"]["next_cursor"].as_str() else { break };
            cursor = next.to_owned();
        }
        assert_eq!(rules, [2, 1, 0], "{version}: each row once");
    }
    api.get("/api/v2/audit-logs?cursor=x").await.refuses(400, "cursor: ");
    api.get("/api/v2/audit-logs?cursor=1.1&page=2").await.refuses(400, "cursor: not together with page");
    for list in ["audit", "config-audit", "config/history"] {
        api.get(&format!("/api/v2/{list}?cursor=x")).await.refuses(400, "cursor: ");
    }
    let one = api.get(&format!("/api/v2/audit-logs?event_id={}", event_id(1))).await.is(200);
    assert_eq!(one["pagination"]["total"], 1);
}
