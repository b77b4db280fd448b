use super::prometheus::{exported, metrics_of};
use super::{files, packaging, read, tool};
use crate::support::{SOON, TestServer, event};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;
use testkit::servers::PrometheusServer;
use testkit::{Behaviour, Receiver};

fn dashboard() -> Value {
    serde_json::from_str(&read("grafana/mutt-dashboard.json")).unwrap()
}

/// (panel's title, expression), with the variables that Grafana fills in.
fn expressions() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for panel in dashboard()["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap_or(&Vec::new()) {
            let expression = target["expr"].as_str().unwrap().replace("$__rate_interval", "1m");
            assert!(!expression.contains('$'), "{expression}");
            found.push((panel["title"].as_str().unwrap().to_owned(), expression));
        }
    }
    found
}

#[test]
fn the_contracts_panels_are_there_once_each_under_its_uid() {
    let dashboard = dashboard();
    assert_eq!(dashboard["uid"], "mutt-v25");
    let titles: Vec<&str> =
        dashboard["panels"].as_array().unwrap().iter().map(|p| p["title"].as_str().unwrap()).collect();
    for wanted in [
        "Ingest Queue Depth",
        "Unhandled Meta-Alerts",
        "Ingest Rate 1m",
        "Alerter Processed 5m",
        "Ingest p95",
        "Alerter p95",
        "Moog rate-limit hits",
    ] {
        assert_eq!(titles.iter().filter(|t| **t == wanted).count(), 1, "{wanted}");
    }
    let ids: BTreeSet<u64> =
        dashboard["panels"].as_array().unwrap().iter().map(|p| p["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), titles.len(), "every panel has an id of its own");
    // Overlapping panels would be moved by Grafana.
    let mut cells = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        for x in at("x")..at("x") + at("w") {
            assert!(x < 24, "{}", panel["title"]);
            for y in at("y")..at("y") + at("h") {
                assert!(cells.insert((x, y)), "{} overlaps", panel["title"]);
            }
        }
    }
}

#[test]
fn every_expression_parses() {
    let dir = tempfile::tempdir().unwrap();
    let rules: Vec<Value> = expressions()
        .iter()
        .enumerate()
        .map(|(n, (_, expression))| json!({"record": format!("panel:{n}"), "expr": expression}))
        .collect();
    let file = dir.path().join("panels.yml");
    std::fs::write(&file, json!({"groups": [{"name": "panels", "rules": rules}]}).to_string()).unwrap();
    tool("promtool", &["check", "rules", file.to_str().unwrap()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_panel_has_data_from_a_server_that_works() {
    let receiver = Receiver::start().await;
    let server = TestServer::start(&[
        ("MOOG_WEBHOOK_URL", &receiver.url()),
        ("MOOG_API_KEY", "k"),
        ("UNHANDLED_THRESHOLD", "5"),
        ("MOOG_MAX_RETRIES", "0"),
    ])
    .await;
    let a = &server.addresses;
    let worker = |role: &str| a.workers.iter().find(|(r, _)| *r == role).unwrap().1;
    let targets = [
        ("mutt-ingestor", a.ingest.unwrap()),
        ("mutt-alerter", worker("alerter")),
        ("mutt-moog-forwarder", worker("forwarder")),
        ("mutt-webui", a.webui.unwrap()),
        ("mutt-remediation", worker("remediation")),
    ];
    // The rules as shipped, but evaluated at once: a group waits for its place in its interval.
    let dir = tempfile::tempdir().unwrap();
    let rules: Vec<PathBuf> = files("prometheus", ".rules.yml")
        .iter()
        .map(|file| {
            let quick = dir.path().join(packaging().join(file).file_name().unwrap());
            std::fs::write(&quick, read(file).replace("interval: 1m", "interval: 500ms")).unwrap();
            quick
        })
        .collect();
    let paths: Vec<&std::path::Path> = rules.iter().map(PathBuf::as_path).collect();
    let prometheus = tokio::task::spawn_blocking({
        let paths: Vec<PathBuf> = paths.iter().map(|p| p.to_path_buf()).collect();
        move || PrometheusServer::start(&targets, &paths.iter().map(PathBuf::as_path).collect::<Vec<_>>())
    })
    .await
    .unwrap();
    server.rule("ALERT").await;
    let mut wanted = expressions();
    let end = tokio::time::Instant::now() + SOON;
    let mut n = 0;
    while !wanted.is_empty() {
        assert!(tokio::time::Instant::now() < end, "without data after {SOON:?}:\n{wanted:#?}");
        // Some of everything: handled, unhandled, refused, failing and working deliveries, API use.
        n += 1;
        server.send(&event("sw1", &format!("ALERT number {n}"))).await;
        server.send(&event("sw2", &format!("unknown {n}"))).await;
        assert_eq!(server.post("not json").await.status(), 400);
        server.api("GET", "/api/v2/metrics", None).await;
        server.api("GET", "/api/v2/rules", None).await;
        server.parts.rulebook.reload().await.unwrap();
        if n % 7 == 3 {
            receiver.script([Behaviour::status(400)]);
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        // NaN is what a quantile of nothing gives: no data.
        wanted.retain(|(_, expression)| {
            let series = tokio::task::block_in_place(|| prometheus.query(expression));
            !series.iter().any(|s| s["value"][1].as_str().is_some_and(|v| v != "NaN"))
        });
    }
    // What shows 0 where there is no series must not hide a name that nobody exports.
    let declared = include_str!("../../../../pipeline/src/metrics.rs");
    let exported = exported(&server).await;
    for (panel, expression) in expressions() {
        for metric in metrics_of(&expression) {
            let known = metric.contains(':')
                || exported.contains(&metric)
                || declared.contains(&format!("\"{}\"", metric.trim_end_matches("_total")));
            assert!(known, "{panel}: {metric} is not exported");
        }
    }
    drop(prometheus);
    server.stop().await;
}
