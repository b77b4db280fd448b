//! Service level objectives from a real Prometheus that scrapes a real server.

use crate::support::{TestServer, event};
use serde_json::Value;
use testkit::servers::PrometheusServer;

async fn slo(server: &TestServer) -> Value {
    let (status, slo) = server.api("GET", "/api/v2/slo", None).await;
    assert_eq!(status, 200, "{slo}");
    assert_eq!(slo["slos"].as_array().unwrap().len(), 6);
    slo
}

fn availability(slo: &Value) -> &Value {
    &slo["slos"].as_array().unwrap().iter().find(|s| s["slo_name"] == "ingestor_availability").unwrap()["actual_value"]
}

/// Defect 24 of the original: serial questions, and nothing to say when Prometheus was away.
#[tokio::test(flavor = "multi_thread")]
async fn objectives_come_from_prometheus_and_from_own_counters_while_it_is_away() {
    let port = testkit::free_port();
    let url = format!("http://user:hunter2@127.0.0.1:{port}");
    let server = TestServer::start(&[("PROMETHEUS_URL", &url)]).await;
    server.send(&event("h", "one")).await;
    let away = slo(&server).await;
    assert_eq!((&away["source"], availability(&away)), (&"counters".into(), &1.0.into()));
    let message = away["message"].as_str().unwrap();
    assert!(message.contains("it cannot be reached") && !message.contains("hunter2"), "{message}");

    let prometheus = PrometheusServer::start_on(port, &[("muttd", server.addresses.webui.unwrap())], &[]);
    server
        .until(async || {
            server.send(&event("h", "more")).await;
            let slo = slo(&server).await;
            slo["source"] == "prometheus" && availability(&slo) == &Value::from(1.0)
        })
        .await;
    assert!(slo(&server).await["components"]["ingestor"]["availability"].is_number());

    drop(prometheus);
    server.until(async || slo(&server).await["source"] == "counters").await;
    server.stop().await;
}

/// A server whose alerter and forwarder are not scraped, as when they are down.
#[tokio::test(flavor = "multi_thread")]
async fn what_prometheus_does_not_have_is_critical() {
    let port = testkit::free_port();
    let url = format!("http://127.0.0.1:{port}");
    let server = TestServer::start(&[("PROMETHEUS_URL", &url)]).await;
    let dir = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let ingestor = TestServer::start_in(dir, &[], Some(&["ingestor"])).await;
    let _prometheus = PrometheusServer::start_on(port, &[("mutt-ingestor", ingestor.addresses.ingest.unwrap())], &[]);
    server.until(async || slo(&server).await["source"] == "prometheus").await;
    let seen = slo(&server).await;
    for item in seen["slos"].as_array().unwrap() {
        let measured = item["slo_name"].as_str().unwrap().starts_with("ingestor");
        assert_eq!((item["no_data"] == false, item["status"] == "ok"), (measured, measured), "{item}");
    }
    assert_eq!(
        (&seen["components"]["ingestor"]["state"], &seen["components"]["forwarder"]["state"]),
        (&"ok".into(), &"critical".into())
    );
    ingestor.stop().await;
    server.stop().await;
}
