use super::{Api, api, event_id, event_record, letter, with_key};
use axum::body::Body;
use model::{AlertState, DeadLetterSide, Durability};
use pipeline::codec;
use serde_json::{Value, json};
use std::time::Duration;
use storage::queue::QueueName;
use testkit::builders::alert;

const REPLAY: &str = "/api/v2/queues/dlq-alerter/replay";
const RECORDS: &str = "/api/v2/queues/dlq-alerter/records";

async fn bury_events(api: &Api, queue: QueueName, reasons: &[&str]) {
    let letters = reasons
        .iter()
        .enumerate()
        .map(|(n, reason)| {
            letter(DeadLetterSide::Alerter, reason, event_record(n as u64, &format!("sw{}", n % 2), "down"))
        })
        .collect();
    api.bury(queue, letters).await;
}

async fn depth(api: &Api, queue: QueueName) -> u64 {
    api.state.queues.get(queue).stats().await.unwrap().depth
}

async fn positions(api: &Api) -> Vec<u64> {
    let records = api.get("/api/v2/queues/dlq-alerter").await.is(200);
    records["records"].as_array().unwrap().iter().map(|r| r["position"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn every_queue_is_listed_with_its_figures() {
    let api = api().await;
    bury_events(&api, QueueName::DlqAlerter, &["a", "b"]).await;
    let queues = api.get("/api/v2/queues").await.is(200);
    let names: Vec<_> = queues["queues"].as_array().unwrap().iter().map(|q| q["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["ingest", "alerts", "dlq-alerter", "dlq-moog", "dead"]);
    assert_eq!((&queues["queues"][2]["depth"], &queues["queues"][2]["limit"]), (&json!(2), &json!(1_000)));
}

#[tokio::test]
async fn looking_into_a_queue_takes_nothing_and_takes_letters_apart() {
    let api = api().await;
    bury_events(&api, QueueName::DlqAlerter, &["the catalog is full", "b", "c"]).await;
    let page = api.get("/api/v2/queues/dlq-alerter?limit=2").await.is(200);
    let record = &page["records"][0];
    assert_eq!(record["dead_letter"]["reason"], "the catalog is full");
    assert_eq!(record["dead_letter"]["original"]["hostname"], "sw0");
    let next = page["next"].as_u64().unwrap();
    let rest = api.get(&format!("/api/v2/queues/dlq-alerter?limit=2&after={next}")).await.is(200);
    assert_eq!((rest["records"].as_array().unwrap().len(), &rest["next"]), (1, &json!(null)));
    assert_eq!(depth(&api, QueueName::DlqAlerter).await, 3);
    api.state
        .queues
        .get(QueueName::Ingest)
        .publish(vec![event_record(9, "sw9", "up")], Durability::Strict)
        .await
        .unwrap();
    let events = api.get("/api/v2/queues/ingest").await.is(200);
    assert_eq!(events["records"][0]["payload"]["hostname"], "sw9");
}

#[tokio::test]
async fn a_queue_that_does_not_exist_is_404_and_bad_parameters_400() {
    let api = api().await;
    api.get("/api/v2/queues/mutt").await.refuses(404, "dlq-alerter");
    api.post("/api/v2/queues/mutt/replay", json!({})).await.refuses(404, "no such queue");
    for query in ["after=x", "after=-1", "limit=0", "limit=201"] {
        let name = query.split('=').next().unwrap();
        api.get(&format!("/api/v2/queues/dead?{query}")).await.refuses(400, &format!("{name}: "));
    }
    for queue in ["ingest", "alerts"] {
        api.post(&format!("/api/v2/queues/{queue}/replay"), json!({})).await.refuses(400, "only dead letters");
        let path = format!("/api/v2/queues/{queue}/records");
        api.call("DELETE", &path, json!({ "positions": [0] })).await.refuses(400, "only dead letters");
    }
}

#[tokio::test]
async fn chosen_letters_go_back_with_one_replay_more() {
    let api = api().await;
    bury_events(&api, QueueName::DlqAlerter, &["a", "b", "c"]).await;
    let at = positions(&api).await;
    let done = api.post(REPLAY, json!({ "positions": [at[2], at[0], at[0], 77], "reason": "fixed" })).await.is(200);
    assert_eq!((&done["replayed"], &done["positions"]), (&json!(2), &json!([at[0], at[2]])));
    assert_eq!(done["skipped"], json!([{ "position": 77, "why": "there is no such record" }]));
    assert_eq!(positions(&api).await, [at[1]]);
    let events = api.state.queues.get(QueueName::Ingest).peek(None, 10).await.unwrap();
    let ids: Vec<_> = events.iter().map(|r| codec::decode_event(&r.payload).unwrap().id).collect();
    assert_eq!(ids, [event_id(0), event_id(2)]);
    assert!(events.iter().all(|r| codec::replays(&r.payload) == 1));
    let audit = api.get("/api/v2/audit?table_name=queue:dlq-alerter").await.is(200);
    assert_eq!((&audit["logs"][0]["operation"], &audit["logs"][0]["reason"]), (&json!("UPDATE"), &json!("fixed")));
    assert_eq!(audit["logs"][0]["new_values"]["positions"], json!([at[0], at[2]]));
}

#[tokio::test]
async fn letters_are_replayed_by_reason_and_host() {
    let api = api().await;
    bury_events(&api, QueueName::DlqAlerter, &["Disk full", "timeout", "disk FULL", "disk full"]).await;
    let done = api.post(REPLAY, json!({ "filter": { "reason_contains": "disk full", "host": "sw0" } })).await.is(200);
    assert_eq!(done["replayed"], 2);
    let done = api.post(REPLAY, json!({ "filter": {}, "limit": 1 })).await.is(200);
    assert_eq!(done["replayed"], 1, "the oldest");
    assert_eq!(depth(&api, QueueName::DlqAlerter).await, 1);
}

#[tokio::test]
async fn an_unclear_choice_is_400_and_replays_nothing() {
    let api = api().await;
    bury_events(&api, QueueName::DlqAlerter, &["a"]).await;
    for (body, names) in [
        (json!({ "positions": [] }), "positions"),
        (json!({ "positions": "all" }), "positions"),
        (json!({ "positions": [-1] }), "positions"),
        (json!({ "positions": [0], "filter": {} }), "filter"),
        (json!({ "filter": { "hostname": "sw1" } }), "filter.hostname"),
        (json!({ "filter": { "host": 1 } }), "filter.host"),
        (json!({ "filter": [] }), "filter"),
        (json!({ "limit": 0 }), "limit"),
        (json!({ "limit": "x" }), "limit"),
        (json!({}), "filter"),
        (json!({ "limit": 1 }), "filter"),
        (json!({ "filter": null, "positions": null }), "filter"),
        (json!({ "position": [1] }), "position"),
        (json!({ "Filter": { "host": "sw9" } }), "Filter"),
        (json!({ "filter": {}, "limt": 1 }), "limt"),
    ] {
        assert!(api.post(REPLAY, body.clone()).await.refuses(400, names)["fields"][names].is_string(), "{body}");
    }
    let nothing = with_key("POST", REPLAY).body(Body::empty()).unwrap();
    api.send(nothing).await.refuses(400, "the empty filter {} takes all");
    api.call("DELETE", RECORDS, json!({ "positions": [0], "filter": {} })).await.refuses(400, "filter");
    assert_eq!(depth(&api, QueueName::DlqAlerter).await, 1);
    assert_eq!(depth(&api, QueueName::Ingest).await, 0);
}

#[tokio::test]
async fn a_letter_that_cannot_be_replayed_now_is_not_lost() {
    let api = api().await;
    let full: Vec<_> = (100..120).map(|n| event_record(n, "sw1", "x")).collect();
    api.state.queues.get(QueueName::Ingest).publish(full, Durability::Strict).await.unwrap();
    bury_events(&api, QueueName::DlqAlerter, &["a", "b"]).await;
    let answer = api.post(REPLAY, json!({ "filter": {} })).await;
    assert_eq!(answer.header("retry-after"), "1");
    answer.refuses(503, "try again later");
    assert_eq!(depth(&api, QueueName::DlqAlerter).await, 2);
}

#[tokio::test]
async fn what_was_replayed_before_the_queue_was_full_is_told() {
    let api = api().await;
    let nearly: Vec<_> = (100..119).map(|n| event_record(n, "sw1", "x")).collect();
    api.state.queues.get(QueueName::Ingest).publish(nearly, Durability::Strict).await.unwrap();
    bury_events(&api, QueueName::DlqAlerter, &["a", "b"]).await;
    let done = api.post(REPLAY, json!({ "filter": {} })).await.is(200);
    assert_eq!(done["replayed"], 1);
    assert!(done["stopped"].is_string(), "{done}");
    assert_eq!(depth(&api, QueueName::DlqAlerter).await, 1);
}

#[tokio::test]
async fn an_alerts_letter_goes_back_to_the_alerts_and_is_pending_again() {
    let api = api().await;
    let dead = alert().build();
    let (org, catalog) = (&api.state.org, &api.state.catalog);
    catalog.record(org, Vec::new(), vec![dead.clone()]).await.unwrap();
    let original = codec::encode_alert(&dead, None);
    api.bury(QueueName::DlqForwarder, vec![letter(DeadLetterSide::Forwarder, "404", original.clone())]).await;
    api.bury(QueueName::Dead, vec![letter(DeadLetterSide::Forwarder, "404", original)]).await;
    for queue in ["dlq-moog", "dead"] {
        let filter = json!({ "filter": { "host": "router-1" } });
        assert_eq!(api.post(&format!("/api/v2/queues/{queue}/replay"), filter).await.is(200)["replayed"], 1, "{queue}");
    }
    assert_eq!(depth(&api, QueueName::Alerts).await, 2);
    let state = catalog.alert(org, dead.id).await.unwrap();
    assert_eq!(state.state, AlertState::Pending);
    assert!(state.detail.unwrap().contains("404"));
}

#[tokio::test]
async fn letters_in_other_hands_are_left_alone() {
    let api = api().await;
    bury_events(&api, QueueName::DlqAlerter, &["a"]).await;
    let mut remediation = api.state.queues.get(QueueName::DlqAlerter).consumer();
    let held = remediation.next(1, Duration::from_secs(1)).await.unwrap();
    let at = positions(&api).await;
    for answer in [
        api.post(REPLAY, json!({ "positions": at })).await.is(200),
        api.call("DELETE", RECORDS, json!({ "positions": at })).await.is(200),
    ] {
        assert_eq!(answer["skipped"][0]["why"], "remediation is working on it");
    }
    drop(held);
    assert_eq!(depth(&api, QueueName::DlqAlerter).await, 1);
}

#[tokio::test]
async fn removed_letters_are_gone_and_stay_in_the_audit_log() {
    let api = api().await;
    bury_events(&api, QueueName::DlqAlerter, &["a", "b"]).await;
    let at = positions(&api).await;
    let done = api.call("DELETE", RECORDS, json!({ "positions": [at[0]], "reason": "a test of ours" })).await.is(200);
    assert_eq!((&done["removed"], &done["skipped"]), (&json!(1), &json!([])));
    assert_eq!(positions(&api).await, [at[1]]);
    let audit = api.get("/api/v2/audit?operation=DELETE").await.is(200);
    let row = &audit["logs"][0];
    assert_eq!((&row["table_name"], &row["reason"]), (&json!("queue:dlq-alerter"), &json!("a test of ours")));
    assert_eq!(row["old_values"]["records"][0]["record"]["original"]["hostname"], "sw0");
    assert_eq!(row["new_values"], Value::Null);
    api.call("DELETE", RECORDS, json!({})).await.refuses(400, "positions");
    api.delete(RECORDS).await.refuses(400, "");
}

#[tokio::test]
async fn another_organisations_letters_can_be_neither_seen_nor_touched() {
    let api = api().await;
    let original = serde_json::to_vec(&json!({ "hostname": "h", "_org": "acme" })).unwrap().into();
    api.bury(QueueName::DlqAlerter, vec![letter(DeadLetterSide::Alerter, "a", original)]).await;
    assert_eq!(api.get("/api/v2/queues/dlq-alerter").await.is(200)["records"], json!([]));
    assert_eq!(api.post(REPLAY, json!({ "filter": {} })).await.is(200)["replayed"], 0);
    let position = api.state.queues.get(QueueName::DlqAlerter).peek(None, 1).await.unwrap()[0].position;
    let done = api.call("DELETE", RECORDS, json!({ "positions": [position] })).await.is(200);
    assert_eq!((&done["removed"], &done["skipped"][0]["why"]), (&json!(0), &json!("there is no such record")));
    assert_eq!(depth(&api, QueueName::DlqAlerter).await, 1);
}
