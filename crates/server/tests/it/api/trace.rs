use super::events::stored;
use super::{NOON, api, event_id, event_record, letter};
use model::{AlertState, DeadLetterSide, Durability};
use pipeline::codec;
use serde_json::{Value, json};
use storage::catalog::{AlertProgress, AuditEntry};
use storage::queue::QueueName;
use testkit::builders::alert;

fn story(trace: &Value) -> String {
    trace["story"].as_array().unwrap().iter().map(|s| s.as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn a_handled_event_tells_its_whole_story_by_event_or_by_alert() {
    let api = api().await;
    let rule = json!({
        "match_string": "down", "prod_handling": "Page_and_ticket", "dev_handling": "Ignore", "team_assignment": "NETOPS",
    });
    let rule_id = api.post("/api/v2/rules", rule).await.is(201)["id"].as_i64().unwrap();
    api.state.rulebook.reload().await.unwrap();
    let mut alert = alert().host("sw1").build();
    alert.event_id = event_id(1);
    api.state.events.append(vec![stored(1, "sw1", "link down", Some(rule_id))]).await.unwrap();
    let audit = AuditEntry {
        event_id: event_id(1),
        event_timestamp: NOON,
        hostname: "sw1".into(),
        matched_rule_id: rule_id,
        handling_decision: "Page_and_ticket".into(),
        forwarded: true,
        raw_message: "{}".into(),
    };
    let catalog = &api.state.catalog;
    catalog.record(&api.state.org, vec![audit], vec![alert.clone()]).await.unwrap();
    let delivered = AlertProgress {
        id: alert.id,
        state: AlertState::Delivered,
        at: NOON,
        attempts: 2,
        detail: Some("moogsoft took it".into()),
    };
    catalog.mark_alerts(vec![delivered]).await.unwrap();
    for id in [event_id(1).to_string(), alert.id.to_string()] {
        let trace = api.get(&format!("/api/v2/trace/{id}")).await.is(200);
        assert_eq!((&trace["id"], &trace["event_id"]), (&json!(id), &json!(event_id(1).to_string())));
        assert_eq!(
            (&trace["state"], &trace["stored"], &trace["rule_id"]),
            (&json!("handled"), &json!(true), &json!(rule_id))
        );
        assert_eq!(trace["accepted"], json!({ "at": "2026-01-01T12:00:00.000000Z", "input": "http" }));
        assert!(trace["explanation"].as_str().unwrap().contains(&format!("rule {rule_id} wins")), "{trace}");
        assert_eq!((&trace["alerts"][0]["state"], &trace["alerts"][0]["attempts"]), (&json!("delivered"), &json!(2)));
        assert_eq!(trace["audit"][0]["handling_decision"], "Page_and_ticket");
        let story = story(&trace);
        for part in
            ["accepted by http", "took it", "decided `Page_and_ticket`", "delivered after 2 tries: moogsoft took it"]
        {
            assert!(story.contains(part), "{part} is not in\n{story}");
        }
    }
}

#[tokio::test]
async fn an_event_still_in_line_is_said_to_wait() {
    let api = api().await;
    let records = (0..5).map(|n| event_record(n, "sw1", "x")).collect();
    api.state.queues.get(QueueName::Ingest).publish(records, Durability::Strict).await.unwrap();
    let trace = api.get(&format!("/api/v2/trace/{}", event_id(3))).await.is(200);
    assert_eq!(
        (&trace["state"], &trace["stored"], &trace["accepted"]["input"]),
        (&json!("waiting"), &json!(false), &json!("http"))
    );
    assert_eq!(trace["waiting"].as_array().unwrap().len(), 1);
    assert_eq!((&trace["waiting"][0]["queue"], &trace["waiting"][0]["leased"]), (&json!("ingest"), &json!(false)));
    assert!(story(&trace).contains("waits for detection"));
}

#[tokio::test]
async fn a_dead_letter_is_found_wherever_it_lies() {
    let api = api().await;
    let dead = event_record(1, "", "x");
    api.bury(QueueName::DlqAlerter, vec![letter(DeadLetterSide::Alerter, "hostname is empty", dead)]).await;
    let trace = api.get(&format!("/api/v2/trace/{}", event_id(1))).await.is(200);
    assert_eq!(trace["state"], "dead_letter");
    assert_eq!(
        (&trace["dead_letters"][0]["queue"], &trace["dead_letters"][0]["reason"]),
        (&json!("dlq-alerter"), &json!("hostname is empty"))
    );
    assert!(story(&trace).contains("hostname is empty"));

    let mut alert = alert().build();
    alert.event_id = event_id(2);
    api.state.catalog.record(&api.state.org, Vec::new(), vec![alert.clone()]).await.unwrap();
    api.bury(QueueName::Dead, vec![letter(DeadLetterSide::Forwarder, "gone", codec::encode_alert(&alert, None))]).await;
    let trace = api.get(&format!("/api/v2/trace/{}", alert.id)).await.is(200);
    assert_eq!((&trace["dead_letters"][0]["queue"], &trace["alerts"][0]["state"]), (&json!("dead"), &json!("pending")));
}

#[tokio::test]
async fn an_event_that_only_mentions_another_is_not_it() {
    let api = api().await;
    let mention = event_record(5, "sw1", &format!("see \"{}\"", event_id(4)));
    api.state.queues.get(QueueName::Ingest).publish(vec![mention], Durability::Strict).await.unwrap();
    let refused = api.get(&format!("/api/v2/trace/{}", event_id(4))).await.refuses(404, "nothing is known");
    assert_eq!(refused["searched"].as_array().unwrap().len(), 5, "where it looked");
}

#[tokio::test]
async fn what_is_no_id_is_400() {
    let api = api().await;
    for id in ["1", "evt_", "tnt_00000000000000000000000000"] {
        api.get(&format!("/api/v2/trace/{id}")).await.refuses(400, "id: ");
    }
    api.get(&format!("/api/v2/trace/{}", alert().build().id)).await.refuses(404, "no such alert");
}
