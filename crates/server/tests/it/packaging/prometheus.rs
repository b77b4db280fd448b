use super::{default_ports, files, packaging, read, tool, yaml};
use crate::support::TestServer;
use std::collections::BTreeSet;

/// Every rule as (name, expression, whether it is an alert).
fn rules() -> Vec<(String, String, bool)> {
    let mut found = Vec::new();
    for file in files("prometheus", ".rules.yml") {
        for document in yaml(&file) {
            for group in document["groups"].as_array().unwrap() {
                for rule in group["rules"].as_array().unwrap() {
                    let alert = rule["alert"].as_str();
                    let name = alert.or(rule["record"].as_str()).unwrap().to_owned();
                    found.push((name, rule["expr"].as_str().unwrap().to_owned(), alert.is_some()));
                }
            }
        }
    }
    found
}

/// Names of series in an expression, without what is in braces.
pub fn metrics_of(expression: &str) -> BTreeSet<String> {
    let (mut depth, mut outside) = (0, String::new());
    for c in expression.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            c if depth == 0 => outside.push(c),
            _ => {}
        }
    }
    outside
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':')
        .filter(|word| ["mutt", "process_", "flask_"].iter().any(|start| word.starts_with(start)))
        .map(str::to_owned)
        .collect()
}

/// Names of all series that a running server exports, once it has looked at its queues.
pub async fn exported(server: &TestServer) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    server
        .until(async || {
            let text = server.http.get(server.ingest_url("/metrics")).send().await.unwrap().text().await.unwrap();
            names = series_of(&text);
            names.contains("mutt_queue_depth") && names.contains("mutt_remediation_dlq_depth")
        })
        .await;
    names
}

fn series_of(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned).collect()
}

#[test]
fn promtool_accepts_the_rules_and_the_configuration() {
    tool("promtool", &["check", "config", "prometheus/prometheus.yml"]);
    for file in files("prometheus", ".rules.yml") {
        tool("promtool", &["check", "rules", &file]);
    }
}

#[test]
fn every_alert_fires_when_it_should_and_stays_quiet_when_it_should_not() {
    for file in files("prometheus/tests", ".yml") {
        tool("promtool", &["test", "rules", &file]);
    }
    // What no test names would pass unseen.
    let (mut fires, mut quiet, mut values, mut none) =
        (BTreeSet::new(), BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for file in files("prometheus/tests", ".yml") {
        for test in yaml(&file).iter().flat_map(|d| d["tests"].as_array().unwrap().clone()) {
            for alert in test["alert_rule_test"].as_array().unwrap_or(&Vec::new()) {
                let name = alert["alertname"].as_str().unwrap().to_owned();
                let expected = alert["exp_alerts"].as_array().map_or(0, Vec::len);
                if expected > 0 {
                    fires.insert(name)
                } else {
                    quiet.insert(name)
                };
            }
            for query in test["promql_expr_test"].as_array().unwrap_or(&Vec::new()) {
                let names = metrics_of(query["expr"].as_str().unwrap());
                let samples = query["exp_samples"].as_array().unwrap();
                let nothing = samples.iter().all(|sample| sample["value"] == 0);
                if nothing {
                    none.extend(names)
                } else {
                    values.extend(names)
                };
            }
        }
    }
    // A counter of errors is rightly 0 with traffic.
    values.insert("mutt:retention:errors:24h".to_owned());
    for (name, _, alert) in rules() {
        let (yes, no) = if alert { (&fires, &quiet) } else { (&values, &none) };
        assert!(yes.contains(&name), "{name} has no test that it fires or has a value");
        assert!(no.contains(&name), "{name} has no test that it stays quiet or has none");
    }
}

#[tokio::test]
async fn every_series_that_a_rule_names_is_exported_or_recorded() {
    let server = TestServer::start(&[]).await;
    let mut known = exported(&server).await;
    known.extend(rules().into_iter().map(|(name, _, _)| name));
    for (rule, expression, _) in rules() {
        for metric in metrics_of(&expression) {
            assert!(known.contains(&metric), "{rule} uses {metric}, which nobody exports");
        }
    }
    server.stop().await;
}

#[test]
fn the_contracts_names_are_kept() {
    let names: BTreeSet<String> = rules().into_iter().map(|(name, _, _)| name).collect();
    let mut wanted: Vec<String> = [
        "MUTTIngestQueueHigh",
        "MUTTUnhandledMetaAlertsSpike",
        "MUTTMoogRateLimitHitsHigh",
        "MUTTServiceDownWebUI",
        "MUTTServiceDownIngestor",
        "MUTTIngestQueueNearCapacity",
        "MUTTAlerterDown",
        "MUTTMoogForwardFailures",
        "MUTTMoogCircuitOpen",
    ]
    .map(str::to_owned)
    .to_vec();
    for slo in [
        "ingestor_availability",
        "ingestor_latency_p99",
        "forwarder_availability",
        "forwarder_latency_p99",
        "alerter_processing_success",
        "alerter_cache_reload_success",
    ] {
        wanted.extend(["5m", "1h", "24h"].map(|window| format!("mutt:slo:{slo}:{window}")));
    }
    wanted.extend(["ingestor", "forwarder", "alerter"].map(|s| format!("mutt:slo:{s}_error_budget_burn_rate:1h")));
    for name in wanted {
        assert!(names.contains(&name), "{name}");
    }
}

#[test]
fn the_scrape_jobs_are_the_contracts_and_on_the_services_ports() {
    let config = &yaml("prometheus/prometheus.yml")[0];
    let jobs: Vec<(String, u16)> = config["scrape_configs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|job| {
            let target = job["static_configs"][0]["targets"][0].as_str().unwrap();
            (job["job_name"].as_str().unwrap().to_owned(), target.rsplit(':').next().unwrap().parse().unwrap())
        })
        .collect();
    let ports = default_ports();
    let wanted = [
        ("mutt-ingestor", "ingest.http.listen"),
        ("mutt-alerter", "alerter.metrics_listen"),
        ("mutt-moog-forwarder", "forwarder.metrics_listen"),
        ("mutt-webui", "webui.listen"),
        ("mutt-remediation", "remediation.metrics_listen"),
    ]
    .map(|(job, path)| (job.to_owned(), ports[path]));
    assert_eq!(jobs, wanted);
    for file in config["rule_files"].as_array().unwrap() {
        assert!(packaging().join("prometheus").join(file.as_str().unwrap()).exists(), "{file}");
    }
    assert!(!read("prometheus/prometheus.yml").contains("9091"), "the original's wrong ports");
}

/// Names of the contract that promtool would not choose: units, and `_count`.
const OLD_NAMES: [&str; 4] =
    ["mutt_alerter_cache_", "mutt_db_write_latency_ms", "mutt_retention_policy_days", "mutt_webui_db_query_latency_ms"];

#[tokio::test(flavor = "multi_thread")]
async fn promtool_reads_the_metrics_and_complains_of_the_contracts_names_only() {
    let server = TestServer::start(&[]).await;
    exported(&server).await;
    let answer = server.http.get(server.ingest_url("/metrics")).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = answer.text().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("metrics");
    std::fs::write(&file, &text).unwrap();
    let output = std::process::Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(std::fs::File::open(&file).unwrap())
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    for line in said.lines() {
        assert!(OLD_NAMES.iter().any(|name| line.starts_with(name)), "{line}\n{text}");
    }
    assert!(matches!(output.status.code(), Some(0 | 3)), "3: names that are not as they should be\n{said}");
    server.stop().await;
}
