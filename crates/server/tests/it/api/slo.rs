use super::{api, api_with};
use pipeline::metrics::{Metrics, Owner, labels};
use serde_json::{Value, json};

fn named<'a>(slo: &'a Value, name: &str) -> &'a Value {
    slo["slos"].as_array().unwrap().iter().find(|slo| slo["slo_name"] == name).unwrap_or_else(|| panic!("no {name}"))
}

/// Defect 24 of the original: without data everything was critical, also what is measured and idle.
/// The contract: what has no data is critical.
#[tokio::test]
async fn what_nothing_came_for_is_kept_and_what_nobody_measures_is_critical() {
    let idle = api().await;
    for version in ["v1", "v2"] {
        let slo = idle.get(&format!("/api/{version}/slo")).await.is(200);
        assert_eq!((&slo["window_hours"], slo["slos"].as_array().unwrap().len()), (&json!(24), 6));
        for item in slo["slos"].as_array().unwrap() {
            assert_eq!((&item["status"], &item["actual_value"]), (&json!("ok"), &json!(null)), "{item}");
            assert_eq!(item["no_data"], false);
        }
        assert_eq!(
            (&slo["components"]["forwarder"]["state"], &slo["components"]["forwarder"]["no_data"]),
            (&json!("ok"), &json!(false))
        );
    }
    let alone = api_with(|state| {
        state.metrics = Metrics::of(&[Owner::Webui, Owner::Forwarder]);
        // The Web UI reads the rules too; that says nothing of the alerter.
        state.metrics.alerter_cache_reload.get_or_create(&labels([("status", "success")])).inc();
    })
    .await;
    let slo = alone.get("/api/v2/slo").await.is(200);
    for item in slo["slos"].as_array().unwrap() {
        let unknown = !item["slo_name"].as_str().unwrap().starts_with("forwarder");
        assert_eq!((&item["no_data"], item["status"] == "critical"), (&json!(unknown), unknown), "{item}");
        assert_eq!(item["message"].as_str().unwrap().contains("PROMETHEUS_URL"), unknown, "{item}");
    }
    assert_eq!(
        (&slo["components"]["ingestor"]["state"], &slo["components"]["ingestor"]["no_data"]),
        (&json!("critical"), &json!(true))
    );
    assert_eq!(slo["components"]["forwarder"]["state"], "ok");
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
