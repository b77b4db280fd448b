//! Start, stop, reload, keys, health.

use crate::support::{SOON, TestServer, event, load};
use model::{OrgId, Outcome};
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;
use testkit::Receiver;

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_under_load_loses_nothing_that_was_acknowledged() {
    let receiver = Receiver::start().await;
    let url = receiver.url();
    let env = [("MOOG_WEBHOOK_URL", url.as_str())];
    let mut dir = Arc::new(tempfile::tempdir().unwrap());
    let mut acknowledged = 0;
    for round in 0..4 {
        let server = TestServer::start_in(Arc::clone(&dir), &env, None).await;
        if round == 0 {
            server.rule("CRITICAL").await;
        }
        let posts = (0..8).map(|client| {
            let (http, url, key) = (server.http.clone(), server.ingest_url("/ingest"), server.ingest_key.clone());
            tokio::spawn(async move {
                let mut done = 0;
                for n in 0..200 {
                    let body = event("h", &format!("CRITICAL r{round}c{client}n{n}x")).to_string();
                    let request = http.post(&url).header("x-api-key", &key).header("content-type", "application/json");
                    match request.body(body).send().await {
                        Ok(response) if response.status() == 200 => done += 1,
                        Ok(_) | Err(_) => break,
                    }
                }
                done
            })
        });
        let posts: Vec<_> = posts.collect();
        tokio::time::sleep(Duration::from_millis(150)).await;
        dir = server.stop().await;
        for post in posts {
            acknowledged += post.await.unwrap();
        }
    }
    let server = TestServer::start_in(dir, &env, None).await;
    server.worked().await;
    server.until(async || receiver.accepted_ids().len() as u64 >= acknowledged).await;
    assert_eq!(server.parts.events.count(&OrgId::default()).await.unwrap(), acknowledged);
    assert_eq!(receiver.accepted_ids().len() as u64, acknowledged);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_has_a_default_and_made_keys_are_private() {
    let server = TestServer::start(&[]).await;
    for (name, key) in [("ingest_api_key", &server.ingest_key), ("webui_api_key", &server.web_key)] {
        let file = server.dir.path().join("data/keys").join(name);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(&file).unwrap().trim(), key);
        assert!(key.len() >= 64);
    }
    for guess in ["", "dev-key-please-change", "test", &server.ingest_key] {
        let response = server
            .http
            .get(format!("http://{}/api/v2/rules", server.addresses.webui.unwrap()))
            .header("x-api-key", guess)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 401, "{guess}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics_answer_on_every_port() {
    let server = TestServer::start(&[]).await;
    let mut ports: Vec<_> = server.addresses.workers.iter().map(|w| w.1).collect();
    ports.extend([server.addresses.ingest.unwrap(), server.addresses.webui.unwrap()]);
    assert_eq!(ports.len(), 8, "two for each worker, ingest, web");
    for port in ports {
        let health = server.http.get(format!("http://{port}/health")).send().await.unwrap();
        assert_eq!(health.status(), 200, "{port}");
        assert!(health.text().await.unwrap().contains(r#""status":"healthy""#));
        let metrics = server.http.get(format!("http://{port}/metrics")).send().await.unwrap();
        assert!(metrics.text().await.unwrap().contains("mutt_ingest_requests_total"));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_takes_new_settings_and_rules_and_loses_nothing() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let rules = dir.path().join("rules.yml");
    let rule = |text: &str| {
        format!(
            "rules:\n  - name: from file\n    match_string: {text}\n    prod_handling: Ignore\n    dev_handling: Ignore\n    team_assignment: A\n"
        )
    };
    std::fs::write(&rules, rule("first")).unwrap();
    let path = rules.display().to_string();
    let server = TestServer::start_in(Arc::clone(&dir), &[("MUTT_RULES", &path)], None).await;
    server.send(&event("h", "first")).await;
    server.until_settled(Outcome::Handled, 1).await;
    std::fs::write(&rules, rule("second")).unwrap();
    let config = load(dir.path(), &[("MUTT_RULES", &path), ("UNHANDLED_THRESHOLD", "7")], None);
    server.handle.apply(&config).await;
    assert_eq!(server.parts.live.get().unhandled.threshold, 7);
    server.send(&event("h", "second")).await;
    server.until_settled(Outcome::Handled, 2).await;
    server.send(&event("h", "first")).await;
    server.until_settled(Outcome::Unhandled, 1).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_setting_acts_within_seconds() {
    let server = TestServer::start(&[]).await;
    let (status, answer) = server.api("PUT", "/api/v2/config/moog_rate_limit", Some(json!({"value": "7"}))).await;
    assert_eq!(status, 200, "{answer}");
    server.until(async || server.parts.live.get().delivery_limit.max == 7).await;
    let (status, answer) =
        server.api("PUT", "/api/v2/config/alerter_queue_shed_threshold", Some(json!({"value": -1}))).await;
    assert_eq!(status, 400, "{answer}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_run_in_one_process_and_one_data_directory_serves_one() {
    let one = TestServer::start(&[]).await;
    let two = TestServer::start(&[]).await;
    one.send(&event("h", "m")).await;
    two.worked().await;
    assert_eq!(two.parts.events.count(&OrgId::default()).await.unwrap(), 0);
    let config = load(one.dir.path(), &[], None);
    let (_stopper, stop) = runtime::Stopper::new();
    let refused = server::app::App::build(config, Arc::new(runtime::SystemClock), &stop).await.err().unwrap();
    assert!(format!("{refused:#}").contains("cannot be shared between processes"), "{refused:#}");
    one.worked().await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_that_is_away_for_a_while_poisons_nothing() {
    let receiver = Receiver::start().await;
    let url = receiver.url();
    let server = TestServer::start(&[("MOOG_WEBHOOK_URL", &url)]).await;
    server.rule("CRITICAL").await;
    let file = server.dir.path().join("data/catalog.db");
    let (locked, wait) = std::sync::mpsc::channel();
    let holder = std::thread::spawn(move || {
        let connection = rusqlite::Connection::open(file).unwrap();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        locked.send(()).unwrap();
        // Longer than any busy timeout and than four quick tries.
        std::thread::sleep(Duration::from_secs(8));
        connection.execute_batch("COMMIT").unwrap();
    });
    wait.recv_timeout(SOON).unwrap();
    let body: String = (0..300).map(|n| format!("{}\n", event("h", &format!("CRITICAL n{n}x")))).collect();
    assert_eq!(server.post(body).await.status(), 200, "the door stays open");
    tokio::task::spawn_blocking(move || holder.join().unwrap()).await.unwrap();
    server.deliveries(&receiver, 300).await;
    server.until(async || receiver.accepted_ids().len() == 300).await;
    let dead =
        server.depth(storage::queue::QueueName::DlqAlerter).await + server.depth(storage::queue::QueueName::Dead).await;
    assert_eq!(dead, 0);
    let health = format!("http://{}/health", server.addresses.webui.unwrap());
    server.until(async || server.http.get(&health).send().await.unwrap().status() == 200).await;
    server.stop().await;
}
