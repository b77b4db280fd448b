use super::api;
use pipeline::metrics::labels;
use serde_json::{Value, json};

fn named<'a>(slo: &'a Value, name: &str) -> &'a Value {
    slo["slos"].as_array().unwrap().iter().find(|slo| slo["slo_name"] == name).unwrap_or_else(|| panic!("no {name}"))
}

/// Defect 24 of the original: without data everything was critical.
#[tokio::test]
async fn what_has_no_data_is_not_called_broken() {
    let api = api().await;
    for version in ["v1", "v2"] {
        let slo = api.get(&format!("/api/{version}/slo")).await.is(200);
        assert_eq!((&slo["window_hours"], slo["slos"].as_array().unwrap().len()), (&json!(24), 6));
        for item in slo["slos"].as_array().unwrap() {
            assert_eq!((&item["status"], &item["actual_value"]), (&json!("ok"), &json!(null)), "{item}");
        }
        assert_eq!(slo["components"]["forwarder"]["state"], "ok");
    }
}

/// Defect 24 of the original: unhandled events counted as failures, so the alerter was always critical.
#[tokio::test]
async fn objectives_follow_the_counters() {
    let api = api().await;
    let metrics = &api.state.metrics;
    let processed = |status| metrics.alerter_events_processed.get_or_create(&labels([("status", status)])).clone();
    processed("handled").inc_by(10);
    processed("unhandled").inc_by(990);
    metrics.count_ingest("");
    metrics.count_ingest("auth");
    metrics.count_ingest("json");
    let delivered = |status| metrics.moog_alerts_processed.get_or_create(&labels([("status", status)])).clone();
    delivered("success").inc_by(90);
    delivered("dlq").inc_by(10);
    metrics.ingest_latency.observe(4.0);
    let slo = api.get("/api/v2/slo").await.is(200);
    assert_eq!(named(&slo, "alerter_processing_success")["actual_value"], json!(1.0));
    assert_eq!(named(&slo, "ingestor_availability")["actual_value"], json!(1.0), "a client's mistakes are not ours");
    assert_eq!(named(&slo, "forwarder_availability")["status"], "critical");
    assert_eq!(named(&slo, "ingestor_latency_p99")["status"], "critical");
    assert_eq!(
        (&slo["components"]["ingestor"]["state"], &slo["components"]["forwarder"]["state"]),
        (&json!("ok"), &json!("critical"))
    );
}
