//! The original's environment file, and nothing else, runs all five services as processes.

use crate::site::{INGEST_KEY, Member, Site, SiteOptions, WEB_KEY, event};
use serde_json::Value;
use std::time::Duration;
use testkit::wait_until;

const SOON: Duration = Duration::from_secs(20);

pub async fn get(member: &Member, path: &str) -> Value {
    let http = server::commands::http_client(SOON).unwrap();
    let response = http.get(member.url(path)).header("x-api-key", WEB_KEY).send().await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    serde_json::from_str(&response.text().await.unwrap()).unwrap()
}

pub async fn post(member: &Member, body: String) -> u16 {
    let http = server::commands::http_client(SOON).unwrap();
    let request = http.post(member.url("/ingest")).header("x-api-key", INGEST_KEY);
    request.header("content-type", "application/json").body(body).send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn five_processes_over_tls_work_together_and_their_keys_are_the_originals() {
    let site = Site::start(SiteOptions {
        redis_password: Some("redis-password".into()),
        redis_tls: true,
        postgres_password: Some("postgres-password".into()),
        postgres_tls: true,
    })
    .await;
    let webui = site.member("webui");
    site.rules();
    let ingestor = site.member("ingestor");
    // Before there is a worker: readable by redis-cli as the contract says.
    assert_eq!(post(&ingestor, event(0)).await, 200);
    let record: Value = serde_json::from_str(&site.redis.cli(&["LINDEX", "mutt:ingest_queue", "-1"])).unwrap();
    assert_eq!((&record["hostname"], &record["n"]), (&"h0".into(), &0.into()));
    assert!(record["_correlation_id"].is_string());
    let alerter = site.member("alerter");
    let (forwarder, remediation) = (site.member("forwarder"), site.member("remediation"));
    for n in 1..30 {
        assert_eq!(post(&ingestor, event(n)).await, 200);
    }
    assert!(
        wait_until(SOON, || site.receiver.deliveries().len() == 10).await,
        "{:?}",
        site.receiver.deliveries().len()
    );
    site.drained();
    assert_eq!(site.audited().len(), 30);
    let forwarded = site.postgres.psql("SELECT count(*) FROM event_audit_log WHERE forwarded_to_moog");
    assert_eq!(forwarded.trim(), "10");
    let beats = site.redis.cli(&["KEYS", "mutt:heartbeat:*"]);
    assert!(
        beats.contains("mutt:heartbeat:alerter:mutt-server-01-")
            && beats.contains("mutt:heartbeat:moog:mutt-server-01-"),
        "{beats}"
    );
    let minute = site.redis.cli(&["KEYS", "mutt:metrics:1m:*"]);
    assert!(minute.starts_with("mutt:metrics:1m:20"), "{minute}");
    let logs = get(&webui, "/api/v1/audit-logs?limit=3").await;
    assert_eq!(logs["pagination"]["total"], 30);
    for member in [&webui, &ingestor, &alerter, &forwarder, &remediation] {
        assert_eq!(member.health(), Some(200), "{}", member.role);
        for secret in ["redis-password", "postgres-password", INGEST_KEY, WEB_KEY, "moog-key-of-the-site"] {
            assert!(!member.daemon.output().contains(secret), "the {} logged a secret", member.role);
        }
    }
    let everything = site.redis.cli(&["KEYS", "*"]);
    assert!(everything.lines().all(|key| key.starts_with("mutt:")), "{everything}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_changed_in_one_web_ui_reaches_every_process_within_five_seconds() {
    let mut site = Site::start(SiteOptions::default()).await;
    site.set("UNHANDLED_THRESHOLD", "1000");
    let (one, two, ingestor) = (site.member("webui"), site.member("webui"), site.member("ingestor"));
    let (_alerter, _forwarder) = (site.member("alerter"), site.member("forwarder"));
    let http = server::commands::http_client(SOON).unwrap();
    let change = http.put(one.url("/api/v1/config/unhandled_threshold")).header("x-api-key", WEB_KEY);
    let answer = change.header("content-type", "application/json").body(r#"{"value":"3"}"#).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(site.redis.cli(&["GET", "mutt:config:unhandled_threshold"]), "3");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(get(&two, "/api/v2/config").await["config"]["unhandled_threshold"], "3");
    for _ in 0..3 {
        let body = r#"{"hostname":"sw1","message":"never seen before","timestamp":"2026-11-22T10:00:00Z"}"#;
        assert_eq!(post(&ingestor, body.to_owned()).await, 200);
    }
    assert!(wait_until(SOON, || site.receiver.deliveries().len() == 1).await, "the new threshold triggers");
    assert!(site.redis.cli(&["KEYS", "mutt:unhandled:sw1:*:triggered"]).contains("sw1"));
    let history = get(&two, "/api/v2/config-audit?table_name=dynamic_config").await;
    assert_eq!(history["changes"][0]["operation"], "CREATE");
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_start_before_their_stores_wait_and_say_for_what() {
    let mut site = Site::start(SiteOptions::default()).await;
    site.redis.kill();
    site.postgres.kill();
    let members = ["ingestor", "alerter", "forwarder", "remediation", "webui"].map(|role| site.member_at_once(role));
    for member in &members {
        let said = || member.daemon.output().contains("is not there yet; trying again");
        assert!(wait_until(SOON, said).await, "{}: {}", member.role, member.daemon.output());
    }
    site.redis.start_again();
    members[0].healthy(SOON);
    assert_eq!(post(&members[0], event(0)).await, 200, "an ingestor needs no PostgreSQL");
    site.postgres.start_again();
    for member in &members {
        member.healthy(SOON);
    }
    site.drained();
}

#[tokio::test(flavor = "multi_thread")]
async fn remediation_follows_the_settings_of_all_and_logs_json() {
    let mut site = Site::start(SiteOptions::default()).await;
    site.set("LOG_JSON_ENABLED", "true");
    site.set("LOG_LEVEL", "INFO");
    site.set("REMEDIATION_INTERVAL", "1");
    let webui = site.member("webui");
    site.rules();
    site.redis.cli(&["SET", "mutt:config:remediation_enabled", "false"]);
    let remediation = site.member("remediation");
    let (ingestor, _alerter, _forwarder) = (site.member("ingestor"), site.member("alerter"), site.member("forwarder"));
    site.receiver.set(testkit::Behaviour::status(400));
    assert_eq!(post(&ingestor, event(0)).await, 200);
    let letters = || site.redis.cli(&["LLEN", "mutt:dlq:moog"]);
    assert!(wait_until(SOON, || letters() == "1").await, "what the receiver refuses is a dead letter");
    site.receiver.set(testkit::Behaviour::accept());
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(letters(), "1", "switched off");
    let http = server::commands::http_client(SOON).unwrap();
    let change = http.put(webui.url("/api/v2/config/remediation_enabled")).header("x-api-key", WEB_KEY);
    let answer = change.header("content-type", "application/json").body(r#"{"value":"true"}"#).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let accepted = || site.receiver.accepted_ids().len();
    assert!(wait_until(SOON, || accepted() == 1).await, "{}", remediation.daemon.output());
    site.drained();
    let output = remediation.daemon.output();
    assert!(!output.is_empty());
    for line in output.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(line["level"].is_string() && line["message"].is_string(), "{line}");
    }
    assert_eq!(remediation.health(), Some(200));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_catalog_is_away_keys_count_on_and_answers_say_what_is_missing() {
    let mut site = Site::start(SiteOptions::default()).await;
    let webui = site.member("webui");
    let http = server::commands::http_client(SOON).unwrap();
    let call = async |key: &str, method: &str, path: &str, body: Value| {
        let request = http.request(method.parse().unwrap(), webui.url(path)).header("x-api-key", key);
        let request = match body {
            Value::Null => request,
            body => request.header("content-type", "application/json").body(body.to_string()),
        };
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_str::<Value>(&response.text().await.unwrap()).unwrap_or_default())
    };
    let ann = serde_json::json!({ "name": "ann", "role": "operator" });
    assert_eq!(call(WEB_KEY, "POST", "/api/v2/users", ann).await.0, 201);
    let (status, made) = call(WEB_KEY, "POST", "/api/v2/users/ann/keys", serde_json::json!({})).await;
    assert_eq!(status, 201);
    let key = made["key"].as_str().unwrap();
    assert_eq!(call(key, "GET", "/api/v2/queues", Value::Null).await.0, 200);

    site.postgres.kill();
    // Of what does not need the catalog nothing is missing, for both kinds of key.
    for key in [key, WEB_KEY] {
        assert_eq!(call(key, "GET", "/api/v2/queues", Value::Null).await.0, 200);
        let (status, answer) = call(key, "GET", "/api/v2/rules", Value::Null).await;
        assert_eq!(status, 503, "{answer}");
    }
    assert_eq!(call("nobody's", "GET", "/api/v2/queues", Value::Null).await.0, 401);
    assert!(wait_until(SOON, || webui.health() == Some(503)).await, "red while it is away");
    site.postgres.start_again();
    webui.healthy(SOON);
    assert_eq!(call(key, "GET", "/api/v2/rules", Value::Null).await.0, 200);
    assert_eq!(call(WEB_KEY, "DELETE", "/api/v2/users/ann", Value::Null).await.0, 200);
    assert_eq!(call(key, "GET", "/api/v2/queues", Value::Null).await.0, 401, "and ends when it is revoked");
}

/// Probes and dashboards must see a process that waits, not one that is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_waits_for_its_catalog_says_so_on_its_ports() {
    let mut site = Site::start(SiteOptions::default()).await;
    site.postgres.kill();
    let alerter = site.member_at_once("alerter");
    assert!(wait_until(SOON, || alerter.health() == Some(503)).await, "{}", alerter.daemon.output());
    let http = server::commands::http_client(SOON).unwrap();
    let get = async |path: &str| http.get(alerter.url(path)).send().await.unwrap().text().await.unwrap();
    let health: Value = serde_json::from_str(&get("/health").await).unwrap();
    assert_eq!((&health["service"], &health["status"]), (&"mutt-alerter".into(), &"unhealthy".into()));
    assert!(health["error"].as_str().unwrap().contains("catalog is not working"), "{health}");
    assert!(get("/metrics").await.contains("mutt_alerter_cache_rules_count 0"));
    site.postgres.start_again();
    alerter.healthy(SOON);
}

#[test]
fn the_schema_can_be_made_before_anything_runs() {
    let postgres = testkit::servers::PostgresServer::start();
    let dir = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_muttd"))
            .args(arguments)
            .env_clear()
            .env("MUTT_DATA_DIR", dir.path())
            .env("DB_HOST", "localhost")
            .env("DB_PORT", postgres.port().to_string())
            .env("DB_NAME", postgres.database())
            .env("DB_USER", postgres.user())
            .env("DB_TLS_ENABLED", "false")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let steps = run(&["migrate", "--dry-run"]);
    assert!(steps.contains("PostgreSQL, database") && steps.contains("\n  1: settings\n  2: event_audit\n"), "{steps}");
    assert_eq!(postgres.psql("SELECT to_regclass('alert_rules') IS NULL").trim(), "t");
    for _ in 0..2 {
        assert!(run(&["migrate"]).contains("up to date"));
    }
    assert!(run(&["migrate", "--dry-run"]).contains("nothing to do"));
    assert_eq!(postgres.psql("SELECT count(*) FROM alert_rules").trim(), "0");

    // The original's scripts for partitions, archive and retention, as one command.
    postgres.psql(
        "INSERT INTO event_audit_log (event_timestamp, hostname, matched_rule_id, handling_decision) \
         SELECT now() - n * interval '1 day', 'h', 1, 'Ignore' FROM generate_series(100, 104) n; \
         SELECT drop_old_partitions(-3)",
    );
    let show: serde_json::Value = serde_json::from_str(&run(&["retention", "show", "--json"])).unwrap();
    assert_eq!((&show["would"]["archived"], &show["holdings"]["archive"]["rows"]), (&5.into(), &0.into()), "{show}");
    let missing = show["missing_partitions"].as_array().unwrap().len();
    assert!(missing > 0, "to look makes none: {show}");
    run(&["retention", "run", "--dry-run"]);
    assert_eq!(postgres.psql("SELECT count(*) FROM event_audit_log"), "5");
    run(&["retention", "run"]);
    let figures = "SELECT string_agg(metric_value, '|' ORDER BY metric_name DESC) FROM get_archive_statistics() \
                   WHERE metric_name IN ('Total Archived Events', 'Active Events Count')";
    assert_eq!(postgres.psql(figures), "5|0");
    let shown = run(&["retention", "show"]);
    assert!(shown.contains("archive: 5 rows") && !shown.contains("the next round makes"), "{shown}");
}

/// Programs that push into the lists know no ids, and some know no time.
#[tokio::test(flavor = "multi_thread")]
async fn equal_records_that_other_programs_push_are_events_of_their_own_and_of_now() {
    let mut site = Site::start(SiteOptions::default()).await;
    site.set("UNHANDLED_THRESHOLD", "20");
    let _webui = site.member("webui");
    site.rules();
    let (_alerter, _forwarder) = (site.member("alerter"), site.member("forwarder"));
    let push = |list: &str, times: usize, record: &str| {
        let many = "for _ = 1, tonumber(ARGV[2]) do redis.call('LPUSH', KEYS[1], ARGV[1]) end";
        site.redis.cli(&["EVAL", many, "1", list, record, &times.to_string()]);
    };
    for time in ["2026-01-25T22:00:00Z", "Nov 25 22:00:00", "2015-01-01T00:00:00Z"] {
        push(
            "mutt:ingest_queue",
            3,
            &format!("{{\"hostname\":\"dup\",\"message\":\"CHAOS dup\",\"timestamp\":\"{time}\"}}"),
        );
    }
    push(
        "mutt:alert_queue",
        2,
        r#"{"hostname":"dup","team_assignment":"NETO","severity":"Critical","message_body":"m","raw_json":{}}"#,
    );
    push("mutt:ingest_queue", 20, r#"{"hostname":"odd","message":"never seen","timestamp":"?"}"#);
    // Nine events that page, two alerts, and one alert about twenty unhandled events.
    let delivered = || site.receiver.deliveries();
    assert!(wait_until(SOON * 3, || delivered().len() >= 12).await, "{} delivered", delivered().len());
    site.drained();
    let keys: std::collections::BTreeSet<String> =
        delivered().iter().map(|request| request.idempotency_key().unwrap().to_owned()).collect();
    assert_eq!((delivered().len(), keys.len()), (12, 12), "each its own alert, and none twice");
    let rows = |filter: &str| site.postgres.psql(&format!("SELECT count(*) FROM {filter}")).trim().to_owned();
    assert_eq!(rows("event_audit_log WHERE hostname = 'dup'"), "9");
    assert_eq!(rows("event_audit_log WHERE event_timestamp > now() - interval '1 hour' AND hostname = 'dup'"), "3");
    assert_eq!(rows("alerts WHERE created_at < now() - interval '1 hour'"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_away_the_ingest_says_so_in_the_contracts_words() {
    let mut site = Site::start(SiteOptions::default()).await;
    let ingestor = site.member("ingestor");
    let http = server::commands::http_client(Duration::from_secs(60)).unwrap();
    site.redis.stop();
    let request = http.post(ingestor.url("/ingest")).header("x-api-key", INGEST_KEY);
    let answer = request.header("content-type", "application/json").body(event(1)).send().await.unwrap();
    assert_eq!(answer.status(), 503);
    let body: serde_json::Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    assert_eq!(body["message"], "Service Unavailable - Redis error");
}
