//! From event to alert by detection rules: fields are read once, rules of files are asked, floods are
//! paused.

use crate::support::{SOON, TestServer, event};
use model::{AlertKind, OrgId};
use serde_json::json;
use std::sync::Arc;
use storage::catalog::{AlertFilter, AlertRecord, PageRequest};
use testkit::Receiver;

const ROOT_LOGIN: &str = "\
title: Root logs in by password
id: 5d0a3b0e-6f3a-4c0e-8f2d-0f6d6f1c0001
level: high
tags: [attack.t1078]
falsepositives: [Break-glass accounts]
logsource: {product: linux, service: sshd}
detection:
  selection: {event_type: ssh_success, User: root}
  condition: selection
fields: [SourceIp]
group-by: [SourceIp]
";

async fn alerts(server: &TestServer) -> Vec<AlertRecord> {
    let page = PageRequest { page: 1, limit: 1_000 };
    let filter = AlertFilter::default();
    let rows = server.parts.catalog.alerts(&OrgId::default(), &filter, page).await.unwrap().rows;
    rows.into_iter().filter(|record| record.alert.kind == AlertKind::Detection).collect()
}

/// A server with this rule file, which is in its data folder.
async fn server(rule: &str, env: &[(&str, &str)]) -> TestServer {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let rules = dir.path().join("rules");
    std::fs::create_dir(&rules).unwrap();
    std::fs::write(rules.join("rule.yml"), rule).unwrap();
    let rules = rules.display().to_string();
    let env: Vec<(&str, &str)> = env.iter().copied().chain([("MUTT_DETECTION_RULES", &*rules)]).collect();
    TestServer::start_in(dir, &env, None).await
}

fn sshd(message: &str) -> serde_json::Value {
    let mut body = event("web1", message);
    body["program"] = json!("sshd");
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_match_alerts_with_what_the_rule_says_and_the_address_that_the_daemon_wrote() {
    let receiver = Receiver::start().await;
    let url = receiver.url();
    let server = server(ROOT_LOGIN, &[("MOOG_WEBHOOK_URL", &url)]).await;
    server.send(&sshd("Failed password for root from 203.0.113.9 port 4711 ssh2")).await;
    server.send(&sshd("Accepted password for root from 203.0.113.7 port 4711 ssh2")).await;
    server
        .send(&sshd("Failed password for invalid user root from 1.2.3.4 port 5 ssh2 from 203.0.113.8 port 1 ssh2"))
        .await;
    server.send(&event("web1", "Accepted password for root from 203.0.113.6 port 4711 ssh2 (said by nobody)")).await;
    let delivered = receiver.wait_for(1, SOON).await;
    assert!(delivered[0].json()["description"].as_str().unwrap().contains("Root logs in by password"));
    server.worked().await;
    let alerts = alerts(&server).await;
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    let alert = &alerts[0].alert;
    let detection = alert.detection.as_deref().expect("it is kept with the alert");
    assert_eq!(detection.fields, [("SourceIp".to_owned(), "203.0.113.7".to_owned())]);
    assert_eq!(
        (detection.tags[0].as_str(), detection.false_positives[0].as_str()),
        ("attack.t1078", "Break-glass accounts")
    );
    assert_eq!((alert.team.as_str(), alert.handling.as_str()), ("Security", "Page_and_ticket"));
    assert!(alert.signature.ends_with("SourceIp=203.0.113.7;"), "{}", alert.signature);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_counts_and_tells_nobody() {
    let server = server(ROOT_LOGIN, &[("MUTT_DETECTION_DRY_RUN", "true")]).await;
    server.send(&sshd("Accepted password for root from 203.0.113.7 port 4711 ssh2")).await;
    server.worked().await;
    assert!(alerts(&server).await.is_empty());
    let uid = "5d0a3b0e-6f3a-4c0e-8f2d-0f6d6f1c0001";
    assert_eq!(server.parts.detections.counts(&OrgId::default(), uid).matches, 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_paused_and_said_once() {
    let server = server(ROOT_LOGIN, &[("MUTT_DETECTION_MATCHES_PER_MINUTE_MAX", "5")]).await;
    for port in 0..20 {
        server.send(&sshd(&format!("Accepted password for root from 203.0.113.7 port {port} ssh2"))).await;
    }
    server.worked().await;
    let alerts = alerts(&server).await;
    let paused: Vec<_> = alerts.iter().filter(|record| record.alert.message.contains("is paused")).collect();
    assert!(paused.len() == 1 && (5..=8).contains(&(alerts.len() - 1)), "{}", alerts.len());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_swapped_on_reload_and_a_broken_file_takes_no_other_rule_with_it() {
    let server = server(ROOT_LOGIN, &[]).await;
    let path = server.dir.path().join("rules/rule.yml");
    std::fs::write(&path, format!("title: broken\ndetection: [\n---\n{ROOT_LOGIN}")).unwrap();
    std::fs::write(path.with_file_name("other.yml"), ROOT_LOGIN.replace("0001", "0002").replace("root", "bob"))
        .unwrap();
    let rules = path.parent().unwrap().display().to_string();
    let config = crate::support::load(server.dir.path(), &[("MUTT_DETECTION_RULES", &rules)], None);
    server.handle.apply(&config).await;
    let sets = server.parts.detections.sets();
    let uids: Vec<_> = sets.base().rules().map(|one| one.rule.header.uid.clone()).collect();
    assert_eq!(uids, ["5d0a3b0e-6f3a-4c0e-8f2d-0f6d6f1c0002"], "a file that is no YAML has no rules; the other has");
    server.send(&sshd("Accepted password for bob from 203.0.113.7 port 4711 ssh2")).await;
    server.worked().await;
    assert_eq!(alerts(&server).await.len(), 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_other_names_meet_the_rules_by_a_mapping_that_is_reread_on_reload() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (rules, fields) = (path("rule.yml"), path("fields.yml"));
    std::fs::write(&rules, ROOT_LOGIN).unwrap();
    let mapping = "
mappings:
  - when: {app: portal}
    logsource: {product: linux, service: sshd}
    fields: {User: who, event_type: what, SourceIp: PEER}
  - fields: [wrong]
";
    std::fs::write(&fields, mapping.replace("PEER", "nobody")).unwrap();
    let env = [("MUTT_DETECTION_RULES", &*rules), ("MUTT_DETECTION_FIELDS", &*fields)];
    let server = TestServer::start_in(Arc::clone(&dir), &env, None).await;
    let login = |peer: &str| {
        let mut body = event("web1", "a login");
        body["app"] = json!("portal");
        (body["who"], body["what"], body["peer"]) = (json!("root"), json!("ssh_success"), json!(peer));
        body
    };
    server.send(&login("203.0.113.1")).await;
    server.worked().await;
    std::fs::write(&fields, mapping.replace("PEER", "peer")).unwrap();
    let config = crate::support::load(server.dir.path(), &env, None);
    server.handle.apply(&config).await;
    server.send(&login("203.0.113.2")).await;
    server.send(&login("a text that is no address")).await;
    server.worked().await;
    let mut shown: Vec<_> =
        alerts(&server).await.into_iter().map(|record| record.alert.detection.unwrap().fields).collect();
    shown.sort();
    let address = ("SourceIp".to_owned(), "203.0.113.2".to_owned());
    assert_eq!(shown, [Vec::new(), Vec::new(), vec![address]]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_brute_force_fires_once_with_the_rules_that_ship_and_not_again_after_a_restart() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let env = [("MUTT_SHIPPED_RULES", "true")];
    let server = TestServer::start_in(Arc::clone(&dir), &env, None).await;
    let failure = |address: &str, port: u32, second: u32| {
        let mut body = sshd(&format!("Failed password for invalid user 10.0.0.1 from {address} port {port} ssh2"));
        body["timestamp"] = json!(format!("2026-11-22T10:00:{second:02}Z"));
        body
    };
    // Below the threshold for each of many addresses, and over it for one.
    for second in 0..4 {
        server.send(&failure("203.0.113.7", 4_000 + second, second)).await;
        server.send(&failure(&format!("198.51.100.{second}"), 4_000, second)).await;
    }
    server.worked().await;
    assert!(alerts(&server).await.is_empty(), "{:?}", alerts(&server).await);
    server.stop().await;
    // What was counted outlives the restart.
    let server = TestServer::start_in(Arc::clone(&dir), &env, None).await;
    for second in 4..9 {
        server.send(&failure("203.0.113.7", 5_000 + second, second)).await;
    }
    server.worked().await;
    let fired = alerts(&server).await;
    assert_eq!(fired.len(), 1, "{fired:?}");
    let detection = fired[0].alert.detection.as_deref().unwrap();
    assert_eq!(detection.fields, [("SourceIp".to_owned(), "203.0.113.7".to_owned())]);
    assert!(detection.events >= 5, "{}", detection.events);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_rule_looks_at_stored_events_and_tells_how_far_it_came() {
    let scheduled = "---\ntitle: Four by password\nid: four\nlevel: high\nschedule: {every: 1m, delay: 0s, since: 1d}\n\
                     correlation: {type: event_count, rules: [5d0a3b0e-6f3a-4c0e-8f2d-0f6d6f1c0001], \
                     group-by: [SourceIp], timespan: 1d, condition: {gte: 4}}\n";
    let server = server(&ROOT_LOGIN.replace("root", "nobody"), &[]).await;
    let now = server.parts.clock.now();
    for second in 1..6 {
        let mut body = sshd(&format!("Accepted password for root from 203.0.113.7 port {second} ssh2"));
        body["timestamp"] = json!(now.minus(std::time::Duration::from_secs(60 - second)).rfc3339());
        server.send(&body).await;
    }
    server.worked().await;
    // It begins a day before it is switched on, so it is due at once.
    let path = server.dir.path().join("rules/rule.yml");
    std::fs::write(&path, format!("{ROOT_LOGIN}{scheduled}")).unwrap();
    let rules = path.parent().unwrap().display().to_string();
    let config = crate::support::load(server.dir.path(), &[("MUTT_DETECTION_RULES", &rules)], None);
    server.handle.apply(&config).await;
    let give_up = tokio::time::Instant::now() + SOON;
    while alerts(&server).await.is_empty() && tokio::time::Instant::now() < give_up {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let fired = alerts(&server).await;
    assert_eq!(fired.len(), 1, "the rule below does not alert by itself: {fired:?}");
    let detection = fired[0].alert.detection.as_deref().unwrap();
    assert_eq!((&*detection.rule_uid, fired[0].alert.host.as_str()), ("four", "web1"));
    assert_eq!(detection.fields, [("SourceIp".to_owned(), "203.0.113.7".to_owned())]);
    let data = server.dir.path().join("data");
    let muttd = |args: &'static [&'static str]| {
        let data = data.clone();
        tokio::task::spawn_blocking(move || {
            std::process::Command::new(env!("CARGO_BIN_EXE_muttd"))
                .args(args)
                .env_clear()
                .env("MUTT_DATA_DIR", data)
                .output()
                .unwrap()
        })
    };
    let shown = muttd(&["rules", "schedule", "--json"]).await.unwrap();
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(
        (&shown["rule_id"], &shown["org"], &shown["gaps_total"]),
        (&json!("four"), &json!("default"), &json!(0))
    );
    assert_eq!((&shown["runs"][0]["events"], &shown["runs"][0]["matches"]), (&json!(5), &json!(1)), "{shown}");
    let text = muttd(&["rules", "schedule"]).await.unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.starts_with("four (default)\n    through  ") && text.contains(" 5 events, 1 matches\n"), "{text}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backtest_tells_what_rules_would_have_found_while_the_server_runs() {
    let server = TestServer::start(&[]).await;
    for (host, second) in [("web1", 1), ("web2", 2), ("web1", 3), ("web1", 4)] {
        let mut body = sshd(&format!("Accepted password for root from 203.0.113.7 port {second} ssh2"));
        body["hostname"] = json!(host);
        body["timestamp"] = json!(format!("2026-11-22T10:00:0{second}Z"));
        server.send(&body).await;
    }
    server.send(&sshd("Accepted password for bob from 203.0.113.7 port 9 ssh2")).await;
    server.worked().await;
    let rules = server.dir.path().join("try.yml");
    let counted = "---\ntitle: Root everywhere\nid: c\nlevel: high\ncorrelation: {type: event_count, \
                   rules: [5d0a3b0e-6f3a-4c0e-8f2d-0f6d6f1c0001], group-by: [SourceIp], timespan: 1m, condition: {gte: 4}}\n";
    std::fs::write(&rules, format!("{ROOT_LOGIN}{counted}")).unwrap();
    let (data, rules) = (server.dir.path().join("data"), rules.display().to_string());
    let muttd = async |args: &[&str]| {
        let mut muttd = std::process::Command::new(env!("CARGO_BIN_EXE_muttd"));
        muttd.args(["rules"]).args(args).env_clear().env("MUTT_DATA_DIR", &data);
        let output = tokio::task::spawn_blocking(move || muttd.output().unwrap()).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let found = muttd(&["backtest", &rules, "--json"]).await;
    assert_eq!(muttd(&["backtest", &rules, "--json", "--via", "sqlite"]).await, found);
    let hunted = muttd(&["hunt", &rules, "--via", "sqlite"]).await;
    assert_eq!(muttd(&["hunt", &rules, "--via", "stream"]).await, hunted);
    let hunted: Vec<serde_json::Value> = hunted.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(hunted.len(), 1, "what the correlation looks at does not alert: {hunted:?}");
    assert_eq!((&hunted[0]["rule_id"], &hunted[0]["host"]), (&json!("c"), &json!("web1")));
    assert!(hunted[0]["event"].as_str().unwrap().starts_with("evt_"), "{hunted:?}");
    let found: Vec<serde_json::Value> = found.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(found[0]["hosts"], json!({"web1": 3, "web2": 1}), "{found:?}");
    assert_eq!((&found[0]["matches"], &found[1]["matches"]), (&json!(4), &json!(1)), "{found:?}");
    assert_eq!(found[1]["days"], json!({"2026-11-22": 1}));
    server.stop().await;
}
