//! What the processes of a company tell Prometheus and each other of themselves.

use crate::site::{Site, SiteOptions, WEB_KEY};
use serde_json::Value;
use std::time::Duration;

/// Nothing but a Web UI runs, and no Prometheus answers where the original has it.
#[tokio::test(flavor = "multi_thread")]
async fn a_web_ui_on_its_own_does_not_call_a_service_good_that_nobody_measures() {
    let mut site = Site::start(SiteOptions::default()).await;
    site.set("PROMETHEUS_URL", &format!("http://127.0.0.1:{}", testkit::free_port()));
    let webui = site.member("webui");
    let http = server::commands::http_client(Duration::from_secs(60)).unwrap();
    let answer = http.get(webui.url("/api/v1/slo")).header("x-api-key", WEB_KEY).send().await.unwrap();
    let slo: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    assert_eq!(slo["source"], "counters");
    for item in slo["slos"].as_array().unwrap() {
        assert_eq!((&item["status"], &item["no_data"]), (&"critical".into(), &true.into()), "{item}");
    }
    for name in ["ingestor", "forwarder"] {
        assert_eq!(slo["components"][name]["state"], "critical");
    }
}

/// Five processes share the queues: a sum over all of them counts a record once.
#[tokio::test(flavor = "multi_thread")]
async fn what_all_processes_share_is_told_by_one_of_them() {
    let site = Site::start(SiteOptions::default()).await;
    let members = ["ingestor", "alerter", "forwarder", "remediation", "webui"].map(|role| site.member(role));
    let http = server::commands::http_client(Duration::from_secs(60)).unwrap();
    for (series, role) in [
        ("mutt_ingest_queue_depth ", "ingestor"),
        ("mutt_queue_depth{queue=\"ingest\"}", "ingestor"),
        ("mutt_alerter_queue_depth ", "alerter"),
        ("mutt_alerter_dlq_depth ", "alerter"),
        ("mutt_queue_depth{queue=\"alerts\"}", "forwarder"),
        ("mutt_moog_dlq_depth ", "forwarder"),
        ("mutt_remediation_dlq_depth{dlq_name=\"dead\"}", "remediation"),
        ("mutt_queue_depth{queue=\"dead\"}", "remediation"),
        ("mutt_webui_login_failures_total{", "webui"),
    ] {
        let end = std::time::Instant::now() + Duration::from_secs(60);
        loop {
            let mut telling = Vec::new();
            for member in &members {
                let text = http.get(member.url("/metrics")).send().await.unwrap().text().await.unwrap();
                if text.lines().any(|line| line.starts_with(series)) {
                    telling.push(member.role);
                }
            }
            assert!(telling.iter().all(|teller| *teller == role), "{series}: {telling:?}");
            if !telling.is_empty() {
                break;
            }
            assert!(std::time::Instant::now() < end, "nobody tells {series}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}
