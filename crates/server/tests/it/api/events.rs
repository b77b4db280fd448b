use super::{Api, NOON, api, event_id, event_record};
use model::{EventId, InputKind, OrgId, Severity};
use serde_json::json;
use std::time::Duration;
use storage::events::StoredEvent;

pub fn stored(number: u64, host: &str, message: &str, rule_id: Option<i64>) -> StoredEvent {
    StoredEvent {
        id: event_id(number),
        org: OrgId::default(),
        input: InputKind::Http,
        host: host.into(),
        timestamp: NOON,
        severity: Some(Severity::Error),
        rule_id,
        raw: event_record(number, host, message),
    }
}

async fn some(api: &Api) {
    let later = |number: u64, mut event: StoredEvent| {
        event.id = EventId::new(NOON.plus(Duration::from_secs(number)), 7, number);
        event
    };
    let events = vec![
        later(1, stored(1, "sw1", "Link DOWN on Gi0/1", Some(4))),
        later(2, StoredEvent { severity: Some(Severity::Info), ..stored(2, "sw1", "link up", None) }),
        later(3, StoredEvent { severity: None, ..stored(3, "sw2", "fan failed", None) }),
    ];
    api.state.events.append(events).await.unwrap();
}

#[tokio::test]
async fn events_are_found_by_every_filter_newest_first() {
    let api = api().await;
    some(&api).await;
    for (query, hosts) in [
        ("", &["sw2", "sw1", "sw1"][..]),
        ("host=sw1", &["sw1", "sw1"]),
        ("text=LINK", &["sw1", "sw1"]),
        ("severity=err", &["sw1"]),
        ("severity=6", &["sw1", "sw1"]),
        ("rule_id=4", &["sw1"]),
        ("from=2026-01-01T12:00:03Z", &["sw2"]),
        ("to=2026-01-01T12:00:02Z", &["sw1", "sw1"]),
        ("host=nowhere", &[]),
    ] {
        let found = api.get(&format!("/api/v2/events?{query}")).await.is(200);
        let found: Vec<_> = found["events"].as_array().unwrap().iter().map(|e| e["host"].as_str().unwrap()).collect();
        assert_eq!(found, hosts, "{query}");
    }
}

#[tokio::test]
async fn pages_of_events_follow_each_other() {
    let api = api().await;
    some(&api).await;
    let first = api.get("/api/v2/events?limit=2").await.is(200);
    let next = first["next"].as_str().unwrap();
    let second = api.get(&format!("/api/v2/events?limit=2&before={next}")).await.is(200);
    assert_eq!((second["events"].as_array().unwrap().len(), &second["next"]), (1, &json!(null)));
    assert_eq!(second["events"][0]["rule_id"], 4);
}

#[tokio::test]
async fn bad_conditions_are_400_and_named() {
    let api = api().await;
    for query in ["from=x", "to=x", "severity=loud", "rule_id=x", "before=evt_1", "limit=0", "limit=1001"] {
        let name = query.split('=').next().unwrap();
        api.get(&format!("/api/v2/events?{query}")).await.refuses(400, &format!("{name}: "));
    }
    api.get(&format!("/api/v2/events?text={}", "x".repeat(2_000))).await.refuses(400, "text: ");
}

#[tokio::test]
async fn one_event_has_all_its_fields_and_no_internal_keys() {
    let api = api().await;
    api.state.events.append(vec![stored(1, "sw1", "down", None)]).await.unwrap();
    let event = api.get(&format!("/api/v2/events/{}", event_id(1))).await.is(200);
    assert_eq!(
        (&event["input"], &event["severity"], &event["severity_name"]),
        (&json!("http"), &json!(3), &json!("err"))
    );
    assert_eq!(event["accepted_at"], "2026-01-01T12:00:00.000000Z");
    assert_eq!((&event["event"]["message"], &event["event"]["_event_id"]), (&json!("down"), &json!(null)));
    api.get(&format!("/api/v2/events/{}", event_id(2))).await.refuses(404, "no such event");
    api.get("/api/v2/events/17").await.refuses(400, "evt_");
}

#[tokio::test]
async fn another_organisations_event_is_not_found() {
    let api = api().await;
    let foreign = StoredEvent { org: "acme".parse().unwrap(), ..stored(1, "sw1", "down", None) };
    api.state.events.append(vec![foreign]).await.unwrap();
    api.get(&format!("/api/v2/events/{}", event_id(1))).await.refuses(404, "no such event");
    api.get(&format!("/api/v2/trace/{}", event_id(1))).await.refuses(404, "nothing is known");
    assert_eq!(api.get("/api/v2/events").await.is(200)["events"], json!([]));
}

#[tokio::test]
async fn our_own_additions_are_not_under_v1() {
    let api = api().await;
    for path in ["events", "alerts", "trace/x", "queues", "rejects"] {
        api.get(&format!("/api/v1/{path}")).await.refuses(404, "no such path");
    }
}
