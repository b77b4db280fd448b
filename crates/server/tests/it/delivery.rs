//! From alert to receiver: limits, outages, dead letters. Each is named after what must not happen.

use crate::support::{TestServer, event};
use model::{AlertState, OrgId};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use storage::catalog::{AlertFilter, PageRequest};
use storage::queue::QueueName;
use testkit::{Behaviour, Receiver, SmtpReceiver, SmtpSecurity};

fn many(host: &str, n: usize) -> String {
    (0..n).map(|i| format!("{}\n", event(host, &format!("CRITICAL part{i}x")))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rate_limited_alerts_wait_and_none_is_dropped() {
    let receiver = Receiver::start().await;
    let url = receiver.url();
    let env = [("MOOG_WEBHOOK_URL", url.as_str()), ("MOOG_RATE_LIMIT", "50"), ("MOOG_RATE_PERIOD", "1")];
    let server = TestServer::start(&env).await;
    server.rule("CRITICAL").await;
    let began = Instant::now();
    assert_eq!(server.post(many("h", 500)).await.status(), 200);
    server.deliveries(&receiver, 500).await;
    server.until(async || server.depth(QueueName::Alerts).await == 0).await;
    assert_eq!(receiver.distinct_ids().len(), 500, "all arrive");
    assert_eq!(receiver.deliveries().len(), 500, "each once");
    // That no second has more is the limiter's own contract; arrivals say less on a busy machine.
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(500 / 50 - 1), "500 came within {took:?}: that is more than the limit");
    // Eight deliveries at a time, and remediation may ask in between whether the receiver is there.
    assert!(receiver.connections() <= 9, "connections are reused: {}", receiver.connections());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_whose_delivery_could_not_be_written_down_is_not_sent_again() {
    let receiver = Receiver::start().await;
    let url = receiver.url();
    let server = TestServer::start(&[("MOOG_WEBHOOK_URL", url.as_str())]).await;
    server.rule("CRITICAL").await;
    let catalog = rusqlite::Connection::open(server.dir.path().join("data/catalog.db")).unwrap();
    catalog.busy_timeout(Duration::from_secs(10)).unwrap();
    let refuse = "CREATE TRIGGER refuse BEFORE UPDATE ON alerts BEGIN SELECT RAISE(FAIL, 'refused'); END";
    catalog.execute_batch(refuse).unwrap();
    assert_eq!(server.post(many("h", 20)).await.status(), 200);
    server.deliveries(&receiver, 20).await;
    server.until(async || server.depth(QueueName::Alerts).await == 0).await;
    let forwarder = server.addresses.workers.iter().find(|w| w.0 == "forwarder").unwrap().1;
    let health = format!("http://{forwarder}/health");
    server.until(async || server.http.get(&health).send().await.unwrap().status() == 503).await;
    let pending = async |server: &TestServer| {
        server.api("GET", "/api/v2/alerts?state=pending&limit=100", None).await.1["alerts"].as_array().unwrap().len()
    };
    assert_eq!(pending(&server).await, 20);

    catalog.execute_batch("DROP TRIGGER refuse").unwrap();
    server.until(async || pending(&server).await == 0).await;
    server.until(async || server.http.get(&health).send().await.unwrap().status() == 200).await;
    let dir = server.stop().await;
    let server = TestServer::start_in(dir, &[("MOOG_WEBHOOK_URL", url.as_str())], None).await;
    assert_eq!(server.api("GET", "/api/v2/alerts?state=delivered&limit=100", None).await.1["pagination"]["total"], 20);
    assert_eq!(server.depth(QueueName::Alerts).await, 0, "the outbox has nothing to publish");
    assert_eq!(receiver.deliveries().len(), 20);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_outage_everything_arrives_once_and_no_hand_is_needed() {
    let receiver = Receiver::start().await;
    let url = receiver.url();
    let env = [("MOOG_WEBHOOK_URL", url.as_str()), ("MOOG_MAX_RETRIES", "2")];
    let server = TestServer::start(&env).await;
    server.rule("CRITICAL").await;
    receiver.go_down().await;
    assert_eq!(server.post(many("h", 200)).await.status(), 200);
    // Many times longer than all tries of an alert would take: the breaker must hold them back.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let health = format!("http://{}/health", server.addresses.workers.iter().find(|w| w.0 == "forwarder").unwrap().1);
    assert_eq!(server.http.get(&health).send().await.unwrap().status(), 503, "red while the receiver is away");
    receiver.come_up();
    server.deliveries(&receiver, 200).await;
    server
        .until(async || server.depth(QueueName::Alerts).await + server.depth(QueueName::DlqForwarder).await == 0)
        .await;
    assert_eq!(receiver.accepted_ids().len(), 200);
    assert_eq!(server.depth(QueueName::Dead).await, 0);
    server.until(async || server.http.get(&health).send().await.unwrap().status() == 200).await;
    let metrics = server.parts.metrics.encode();
    assert!(metrics.contains("mutt_moog_circuit_trips_total"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_is_honoured() {
    let receiver = Receiver::start().await;
    receiver.set_head(Some(Behaviour::accept()));
    receiver.script([Behaviour::retry_after(429, "2")]);
    let url = receiver.url();
    let server = TestServer::start(&[("MOOG_WEBHOOK_URL", &url), ("CIRCUIT_BREAKER_ENABLED", "false")]).await;
    server.rule("CRITICAL").await;
    server.send(&event("h", "CRITICAL")).await;
    let got = server.deliveries(&receiver, 2).await;
    assert!(got[1].arrived.duration_since(got[0].arrived) >= Duration::from_secs(2));
    assert_eq!(got[0].idempotency_key(), got[1].idempotency_key(), "the same key on every try");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_that_is_always_refused_ends_parked_by_one_counter_and_never_loops() {
    let receiver = Receiver::start().await;
    receiver.set(Behaviour::status(400));
    receiver.set_head(Some(Behaviour::accept()));
    let url = receiver.url();
    let server = TestServer::start(&[("MOOG_WEBHOOK_URL", &url), ("MAX_POISON_RETRIES", "3")]).await;
    server.rule("CRITICAL").await;
    server.send(&event("h", "CRITICAL")).await;
    server.until(async || server.depth(QueueName::Dead).await == 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(receiver.deliveries().len(), 4, "once, and once for each of three replays; then never again");
    assert_eq!(server.depth(QueueName::DlqForwarder).await, 0);
    let (_, seen) = server.api("GET", "/api/v2/queues/dead", None).await;
    let text = seen.to_string();
    assert!(text.contains("400") && text.contains("CRITICAL"), "reason and original are kept: {text}");
    let page = PageRequest { page: 1, limit: 10 };
    let alerts = server.parts.catalog.alerts(&OrgId::default(), &AlertFilter::default(), page).await.unwrap();
    assert_eq!(alerts.rows[0].state, AlertState::Dead);
    // By hand, once the receiver is mended.
    receiver.set(Behaviour::accept());
    let (status, answer) =
        server.api("POST", "/api/v2/queues/dead/replay", Some(json!({"filter": {"reason_contains": "400"}}))).await;
    assert_eq!((status, answer["replayed"].as_u64()), (200, Some(1)), "{answer}");
    server.until(async || !receiver.accepted_ids().is_empty()).await;
    server.until(async || server.depth(QueueName::Alerts).await == 0).await;
    assert_eq!(server.depth(QueueName::Dead).await, 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn probing_creates_no_event_at_the_receiver() {
    let receiver = Receiver::start().await;
    let url = receiver.url();
    let server = TestServer::start(&[("MOOG_WEBHOOK_URL", &url)]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(receiver.deliveries().is_empty(), "no POST");
    assert!(receiver.requests().iter().any(|r| r.method == "HEAD"), "it was asked");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_environment_names_gets_every_alert_by_mail_and_in_chat() {
    let (mail, chat) = (SmtpReceiver::with_login(SmtpSecurity::StartTls, "PLAIN").await, Receiver::start().await);
    let (port, ca, url) = (mail.port().to_string(), mail.ca_file().display().to_string(), chat.url());
    let server = TestServer::start(&[
        ("SMTP_HOST", "localhost"),
        ("SMTP_PORT", &port),
        ("SMTP_CA_CERT_PATH", &ca),
        ("SMTP_USER", "mutt@example.com"),
        ("SMTP_PASS", "smtp-secret-1"),
        ("ALERT_EMAIL", "soc@example.com,noc@example.com"),
        ("SLACK_WEBHOOK_URL", &url),
        ("SLACK_CHANNEL", "#soc"),
    ])
    .await;
    server.rule("CRITICAL").await;
    assert_eq!(server.post(many("sw1", 3)).await.status(), 200);
    server.deliveries(&chat, 3).await;
    server.until(async || mail.mails().len() == 3 && server.depth(QueueName::Alerts).await == 0).await;
    let mails = mail.mails();
    let ids: BTreeSet<String> = mails.iter().filter_map(|mail| mail.header("X-MUTT-Alert-Id")).collect();
    assert_eq!(ids, chat.distinct_ids(), "the same alerts, each once");
    assert!(mails.iter().all(|mail| mail.encrypted && mail.user.as_deref() == Some("mutt@example.com")));
    assert_eq!(mails[0].to, ["soc@example.com", "noc@example.com"]);
    assert!(mails[0].header("Subject").unwrap().contains("on sw1"), "{:?}", mails[0]);
    assert_eq!(mail.logins()[0], ("mutt@example.com".to_owned(), "smtp-secret-1".to_owned()));
    assert_eq!(chat.bodies_json()[0]["channel"], "#soc");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_alert_carries_severity_decision_and_a_signature_of_its_fault() {
    let receiver = Receiver::start().await;
    let url = receiver.url();
    let server = TestServer::start(&[("MOOG_WEBHOOK_URL", &url), ("MOOG_API_KEY", "moog-secret-1")]).await;
    server.rule("LINK").await;
    let link = |n: u32, port: u32| event("sw1", &format!("{n}: LINK down on GigabitEthernet0/{port}"));
    for (n, port) in [(1, 1), (2, 1), (3, 2)] {
        server.send(&link(n, port)).await;
    }
    let got = server.deliveries(&receiver, 3).await;
    let bodies: Vec<_> = got.iter().map(testkit::Request::json).collect();
    let signatures: BTreeSet<String> = bodies.iter().map(|b| b["signature"].as_str().unwrap().to_owned()).collect();
    assert_eq!(signatures.len(), 2, "repeats join, different faults do not: {signatures:?}");
    assert_eq!(bodies[0]["severity"], 4, "an error is Major, not the constant Warning");
    assert_eq!(bodies[0]["manager"], "MUTT");
    assert_eq!(bodies[0]["custom_info"]["mutt"]["handling"], "Page_and_ticket");
    assert_eq!(got[0].header("authorization"), Some("Bearer moog-secret-1"));
    // The key is nowhere on disk: not in the queue, not in the dead letters, not in the catalog.
    server.until(async || server.depth(QueueName::Alerts).await == 0).await;
    let dir = server.stop().await;
    fn search(path: &std::path::Path) {
        for entry in std::fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                search(&path);
            } else {
                let bytes = std::fs::read(&path).unwrap();
                assert!(!bytes.windows(13).any(|w| w == b"moog-secret-1"), "{}", path.display());
            }
        }
    }
    search(&dir.path().join("data"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_channel_alerts_are_recorded_and_said() {
    let server = TestServer::start(&[]).await;
    server.rule("CRITICAL").await;
    server.send(&event("h", "CRITICAL")).await;
    let page = PageRequest { page: 1, limit: 10 };
    server
        .until(async || {
            let alerts = server.parts.catalog.alerts(&OrgId::default(), &AlertFilter::default(), page).await.unwrap();
            alerts.rows.first().is_some_and(|a| a.state == AlertState::Recorded)
        })
        .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overfull_alert_queue_sheds_into_the_outbox_and_loses_nothing() {
    let receiver = Receiver::start().await;
    let url = receiver.url();
    receiver.go_down().await;
    let env = [("MOOG_WEBHOOK_URL", url.as_str()), ("ALERTER_QUEUE_SHED_THRESHOLD", "50")];
    let server = TestServer::start(&env).await;
    server.rule("CRITICAL").await;
    for _ in 0..5 {
        assert_eq!(server.post(many("h", 60)).await.status(), 200);
        server.worked().await;
    }
    assert!(server.depth(QueueName::Alerts).await < 300, "some were shed");
    receiver.come_up();
    server.deliveries(&receiver, 300).await;
    server.until(async || receiver.accepted_ids().len() == 300).await;
    server.stop().await;
}
