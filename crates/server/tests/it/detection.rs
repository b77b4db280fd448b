//! From event to alert: rules, environments, the unhandled.

use crate::support::{TestServer, event};
use model::{Handling, MatchType, OrgId, Outcome, RuleDraft, Timestamp};
use serde_json::{Value, json};
use std::time::Duration;
use storage::catalog::{Actor, AlertFilter, AuditFilter, PageRequest};
use storage::queue::QueueName;
use testkit::Receiver;

const PAGE: PageRequest = PageRequest { page: 1, limit: 200 };

async fn alerts(server: &TestServer) -> Vec<storage::catalog::AlertRecord> {
    server.parts.catalog.alerts(&OrgId::default(), &AlertFilter::default(), PAGE).await.unwrap().rows
}

#[tokio::test(flavor = "multi_thread")]
async fn severity_words_match_severity_rules_and_near_oids_do_not_match() {
    let server = TestServer::start(&[]).await;
    server
        .rule_with(json!({"match_string": "disk", "syslog_severity": 3, "prod_handling": "Page_only", "dev_handling": "Ignore", "team_assignment": "A"}))
        .await;
    server
        .rule_with(json!({"trap_oid": "1.3.6.1.4.1.9", "match_type": "oid_prefix", "prod_handling": "Page_only", "dev_handling": "Ignore", "team_assignment": "B"}))
        .await;
    let send = |fields: Value| {
        let mut body = json!({"hostname": "h", "timestamp": "2026-11-22T10:00:00Z", "message": "disk failing"});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let server = &server;
        async move {
            server.send(&body).await;
        }
    };
    send(json!({"severity": "err"})).await;
    send(json!({"syslog_severity": "3"})).await;
    send(json!({"severity": "warning"})).await;
    send(json!({"message": "t", "trap_oid": ".1.3.6.1.4.1.9.9.41.2"})).await;
    send(json!({"message": "t", "trap_oid": "1.3.6.1.4.1.99.1"})).await;
    server.worked().await;
    let mut teams: Vec<String> = alerts(&server).await.into_iter().map(|a| a.alert.team).collect();
    teams.sort();
    assert_eq!(teams, ["A", "A", "B"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn development_hosts_are_handled_as_their_rule_says() {
    let receiver = Receiver::start().await;
    let url = receiver.url();
    let server = TestServer::start(&[("MOOG_WEBHOOK_URL", &url)]).await;
    server.rule("LINK-DOWN").await;
    assert_eq!(server.api("POST", "/api/v2/dev-hosts", Some(json!({"hostname": "dev1"}))).await.0, 201);
    server.parts.rulebook.reload().await.unwrap();
    server.send(&event("dev1", "LINK-DOWN on 1")).await;
    server.send(&event("prod1", "LINK-DOWN on 1")).await;
    let delivered = receiver.wait_for(1, crate::support::SOON).await;
    assert_eq!(delivered[0].json()["source_id"], "prod1");
    server.until_settled(Outcome::Handled, 2).await;
    let page = server.parts.catalog.audit_log(&OrgId::default(), &AuditFilter::default(), PAGE).await.unwrap();
    let mut decisions: Vec<(String, bool)> =
        page.rows.into_iter().map(|r| (r.entry.handling_decision, r.entry.forwarded)).collect();
    decisions.sort();
    assert_eq!(decisions, [("Ignore".to_owned(), false), ("Page_and_ticket".to_owned(), true)]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_clock_or_an_old_month_poisons_nothing() {
    let server = TestServer::start(&[]).await;
    server.rule("x").await;
    for time in ["1999-01-01T00:00:00Z", "2099-12-31T23:59:59Z", "not a time", "12345"] {
        server.send(&json!({"hostname": "h", "message": "x", "timestamp": time})).await;
    }
    server.worked().await;
    server.until_settled(Outcome::Handled, 4).await;
    assert_eq!(server.depth(QueueName::DlqAlerter).await + server.depth(QueueName::Dead).await, 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_rule_keeps_its_history_and_hurts_no_event() {
    let server = TestServer::start(&[]).await;
    let id = server.rule("gone soon").await;
    server.send(&event("h", "gone soon 1")).await;
    server.until_settled(Outcome::Handled, 1).await;
    assert_eq!(server.api("DELETE", &format!("/api/v2/rules/{id}"), None).await.0, 200);
    // Detection may still use the old rule for a moment: its events are worked all the same.
    server.send(&event("h", "gone soon 2")).await;
    server.worked().await;
    let page = server.parts.catalog.audit_log(&OrgId::default(), &AuditFilter::default(), PAGE).await.unwrap();
    assert!(!page.rows.is_empty());
    assert_eq!(server.depth(QueueName::DlqAlerter).await, 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_began_earlier_never_undoes_a_later_one() {
    let server = TestServer::start(&[]).await;
    let (catalog, rulebook) = (server.parts.catalog.clone(), server.parts.rulebook.clone());
    let draft = |text: &str| RuleDraft {
        match_string: Some(text.to_owned()),
        trap_oid: None,
        syslog_severity: None,
        match_type: MatchType::Contains,
        priority: 10,
        prod_handling: Handling::new("Ignore"),
        dev_handling: Handling::new("Ignore"),
        team_assignment: "T".into(),
        is_active: true,
    };
    let by = Actor { name: "a".into(), reason: None, correlation_id: "c".into(), at: Timestamp::from_secs(1) };
    let many = (0..500).map(|n| draft(&format!("one of many {n}"))).collect();
    catalog.create_rules(&OrgId::default(), many, &by).await.unwrap();
    let others: Vec<_> = (0..6)
        .map(|_| {
            let rulebook = rulebook.clone();
            tokio::spawn(async move {
                loop {
                    rulebook.reload().await.unwrap();
                }
            })
        })
        .collect();
    for n in 0..40 {
        let text = format!("token{n}x");
        catalog.create_rule(&OrgId::default(), draft(&text), &by).await.unwrap();
        rulebook.reload().await.unwrap();
        let event = pipeline::codec::decode_event(&event("h", &text).to_string().into()).unwrap();
        // From here on the rule is in force, whatever reloads of others are under way.
        for _ in 0..20 {
            assert!(rulebook.snapshot().first_match(&event).is_some(), "{text}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    for other in others {
        other.abort();
        let _aborted = other.await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_change_acts_within_a_second() {
    let server = TestServer::start(&[]).await;
    let rule =
        json!({"match_string": "fresh", "prod_handling": "Ignore", "dev_handling": "Ignore", "team_assignment": "A"});
    assert_eq!(server.api("POST", "/api/v2/rules", Some(rule)).await.0, 201);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    server.send(&event("h", "fresh")).await;
    server.until_settled(Outcome::Handled, 1).await;
    server.stop().await;
}

/// As an adopted database may hold it: Python's patterns know look-ahead.
#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_cannot_be_used_is_counted_and_noted_in_health() {
    let server = TestServer::start(&[]).await;
    let draft = RuleDraft {
        match_string: Some("link (?!up)".into()),
        trap_oid: None,
        syslog_severity: None,
        match_type: MatchType::Regex,
        priority: 100,
        prod_handling: Handling::new("Page_only"),
        dev_handling: Handling::new("Ignore"),
        team_assignment: "NETO".into(),
        is_active: true,
    };
    let by = Actor {
        name: "psql".into(),
        reason: None,
        correlation_id: "c".into(),
        at: Timestamp::from_secs(1_767_268_800),
    };
    server.parts.catalog.create_rule(&OrgId::default(), draft, &by).await.unwrap();
    server.until(async || server.parts.metrics.alerter_cache_rules_refused.get() == 1).await;
    let (_, address) = server.addresses.workers.iter().find(|(role, _)| *role == "alerter").unwrap();
    let response = server.http.get(format!("http://{address}/health")).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let health: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    assert!(health["note"].as_str().unwrap().starts_with("1 active rule(s) cannot be used"), "{health}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_can_never_be_worked_is_parked_with_its_reason_and_takes_nobody_along() {
    let server = TestServer::start(&[]).await;
    let good = event("h", "m");
    let body = format!("{good}\n{}\n{good}\n", json!({"hostname": null, "message": 5, "timestamp": ""}));
    assert_eq!(server.post(body).await.status(), 200, "presence is all that the door asks for");
    server.until(async || server.depth(QueueName::Dead).await == 1).await;
    assert_eq!(server.parts.events.count(&OrgId::default()).await.unwrap(), 2);
    let (_, seen) = server.api("GET", "/api/v2/queues/dead", None).await;
    assert!(seen.to_string().contains("hostname is empty"), "{seen}");
    assert_eq!(server.parts.metrics.settled(Outcome::DeadLettered), 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unhandled_events_with_varying_numbers_make_one_meta_alert_also_across_a_restart() {
    let receiver = Receiver::start().await;
    let url = receiver.url();
    let env = [("MOOG_WEBHOOK_URL", url.as_str()), ("UNHANDLED_THRESHOLD", "100")];
    let server = TestServer::start(&env).await;
    let noise = |from: u32, to: u32| -> String {
        (from..to)
            .map(|n| {
                format!(
                    "{}\n",
                    event("odd", &format!("session {n} from 10.0.{}.{} closed after {n} ms", n % 7, n % 250))
                )
            })
            .collect()
    };
    assert_eq!(server.post(noise(0, 60)).await.status(), 200);
    server.worked().await;
    let dir = server.stop().await;
    assert_eq!(receiver.deliveries().len(), 0);
    let server = TestServer::start_in(dir, &env, None).await;
    assert_eq!(server.post(noise(60, 300)).await.status(), 200);
    let got = receiver.wait_for(1, crate::support::SOON).await;
    server.worked().await;
    server.until(async || server.depth(QueueName::Alerts).await == 0).await;
    assert_eq!(receiver.deliveries().len(), 1, "one meta-alert for one shape");
    let body = got[0].json();
    assert!(
        body["description"]
            .as_str()
            .unwrap()
            .starts_with("[MUTT] Detected 100 unhandled messages in 86400s from 'odd'")
    );
    assert!(body["signature"].as_str().unwrap().contains("odd"), "meta-alerts of different hosts are different");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_distinct_shapes_do_not_grow_without_bound() {
    let server = TestServer::start(&[("UNHANDLED_THRESHOLD", "2")]).await;
    let words = ["alpha", "bravo", "charlie", "delta", "echo"];
    let body: String = (0..2_000)
        .map(|n: usize| {
            let word = |i: usize| words[(n / 5usize.pow(i as u32)) % 5];
            format!("{}\n", event("h", &format!("{} {} {} {} {}", word(0), word(1), word(2), word(3), word(4))))
        })
        .collect();
    assert_eq!(server.post(body).await.status(), 200);
    server.worked().await;
    assert_eq!(server.parts.events.count(&OrgId::default()).await.unwrap(), 2_000);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trace_tells_the_whole_story() {
    let receiver = Receiver::start().await;
    let url = receiver.url();
    let server = TestServer::start(&[("MOOG_WEBHOOK_URL", &url)]).await;
    let rule = server.rule("story").await;
    let answer = server.send(&event("h", "a story")).await;
    receiver.wait_for(1, crate::support::SOON).await;
    server.until(async || server.depth(QueueName::Alerts).await == 0).await;
    let id = answer["event_id"].as_str().unwrap();
    let (status, story) = server.api("GET", &format!("/api/v2/trace/{id}"), None).await;
    assert_eq!(status, 200, "{story}");
    let text = story.to_string();
    for part in [id, "Page_and_ticket", "delivered", "alr_", &rule.to_string(), "HTTP 200"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    server.stop().await;
}
