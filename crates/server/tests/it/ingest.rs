//! Into the house: HTTP and syslog.

use crate::support::{SOON, TestServer, event};
use serde_json::Value;
use std::io::Write;
use storage::queue::QueueName;
use tokio::io::AsyncWriteExt;

#[tokio::test(flavor = "multi_thread")]
async fn the_contracts_checks_come_in_the_contracts_order_with_its_bodies() {
    let server = TestServer::start(&[]).await;
    let call = |key: Option<&'static str>, kind: Option<&'static str>, body: &'static str| {
        let mut request = server.http.post(server.ingest_url("/ingest")).body(body);
        let key = key.map(|k| if k == "good" { server.ingest_key.clone() } else { k.to_owned() });
        if let Some(key) = key {
            request = request.header("X-API-KEY", reqwest::header::HeaderValue::from_bytes(key.as_bytes()).unwrap());
        }
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        async move {
            let response = request.header("X-Correlation-ID", "c-1").send().await.unwrap();
            let status = response.status().as_u16();
            (status, serde_json::from_str::<Value>(&response.text().await.unwrap()).unwrap())
        }
    };
    let kind_json = Some("application/json");
    for (key, kind, body, status, message) in [
        (None, None, "not json", 401, "Unauthorized"),
        (Some("wrong"), kind_json, "{}", 401, "Unauthorized"),
        (Some("ключ"), kind_json, "{}", 401, "Unauthorized"),
        (
            Some("good"),
            Some("text/plain"),
            "{}",
            400,
            "Invalid JSON: Content-Type must be application/json or application/x-ndjson",
        ),
        (Some("good"), kind_json, "", 400, "Invalid JSON: Empty or null payload"),
        (Some("good"), kind_json, "[]", 400, "Invalid JSON: Empty or null payload"),
        (Some("good"), kind_json, "17", 400, "Invalid JSON: Payload must be a JSON object"),
        (Some("good"), kind_json, r#"{"hostname":"h"}"#, 400, "Missing required fields: ['message', 'timestamp']"),
    ] {
        let (got, answer) = call(key, kind, body).await;
        assert_eq!((got, answer["message"].as_str().unwrap()), (status, message), "{body}");
        assert_eq!((answer["status"].as_str(), answer["correlation_id"].as_str()), (Some("error"), Some("c-1")));
    }
    let (status, answer) = call(Some("good"), kind_json, r#"{"hostname":"h","message":"m","timestamp":"t"}"#).await;
    assert_eq!(status, 200);
    assert_eq!(answer["status"], "queued");
    assert_eq!(answer["correlation_id"], "c-1");
    assert_eq!(answer["queue_depth"], 1);
    assert!(answer["event_id"].as_str().unwrap().starts_with("evt_"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_three_paths_take_events_and_say_which_version_they_are() {
    let server = TestServer::start(&[]).await;
    for (path, deprecated) in [("/ingest", "false"), ("/api/v1/ingest", "true"), ("/api/v2/ingest", "false")] {
        let response = server
            .http
            .post(server.ingest_url(path))
            .header("x-api-key", &server.ingest_key)
            .header("content-type", "application/json; charset=utf-8")
            .body(event("h", "m").to_string())
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 200, "{path}");
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("x-api-version"), "v2.5");
        assert_eq!(header("x-api-supported-versions"), "v2.5, v2.0, v1.0");
        assert_eq!(header("x-api-deprecated"), deprecated);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_is_asked_before_anything_is_said_about_what_exists() {
    let server = TestServer::start(&[]).await;
    for path in ["/nothing", "/admin/config", "/ingest"] {
        let without = server.http.get(server.ingest_url(path)).send().await.unwrap();
        assert_eq!(without.status(), 401, "{path}");
    }
    let with = |path: &str| server.http.get(server.ingest_url(path)).header("x-api-key", &server.ingest_key).send();
    assert_eq!(with("/nothing").await.unwrap().status(), 404);
    let config = with("/admin/config").await.unwrap();
    assert_eq!(config.status(), 200);
    assert!(!config.text().await.unwrap().contains(&server.ingest_key), "no key is shown");
    for path in ["/", "/health", "/metrics"] {
        assert_eq!(server.http.get(server.ingest_url(path)).send().await.unwrap().status(), 200, "{path}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn newline_batches_as_rsyslog_sends_them_are_taken_and_every_item_has_a_verdict() {
    let server = TestServer::start(&[]).await;
    let good = event("h", "m").to_string();
    for (body, expected) in [
        (format!("{good}\n{good}\n"), "++"),
        (format!("[{good},{{}},{good}]"), "+-+"),
        (format!("{good}\nbroken\n{good}"), "+-+"),
        (format!("{good}{good}"), "++"),
    ] {
        let response = server.post(body).await;
        assert_eq!(response.status(), 200);
        let answer: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        let items = answer["items"].as_array().unwrap();
        let verdicts: String = items.iter().map(|i| if i["status"] == "queued" { '+' } else { '-' }).collect();
        assert_eq!(verdicts, expected);
        assert_eq!(answer["accepted"].as_u64().unwrap() as usize, expected.matches('+').count());
    }
    let all_bad = server.post("[{},{}]").await;
    assert_eq!(all_bad.status(), 400);
    server.worked().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_bodies_are_taken_and_bombs_are_not() {
    let server = TestServer::start(&[]).await;
    let gzip = |data: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    };
    let post = |encoding: &'static str, body: Vec<u8>| {
        server
            .http
            .post(server.ingest_url("/ingest"))
            .header("x-api-key", &server.ingest_key)
            .header("content-type", "application/json")
            .header("content-encoding", encoding)
            .body(body)
            .send()
    };
    let good = event("h", "m").to_string().into_bytes();
    assert_eq!(post("gzip", gzip(&good)).await.unwrap().status(), 200);
    assert_eq!(post("zstd", zstd::encode_all(&*good, 3).unwrap()).await.unwrap().status(), 200);
    assert_eq!(post("gzip", gzip(&vec![b' '; 64 << 20])).await.unwrap().status(), 413);
    assert_eq!(post("gzip", good.clone()).await.unwrap().status(), 400);
    assert_eq!(post("br", good).await.unwrap().status(), 415);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_no_site_wide_limit_unless_set_and_then_it_asks_to_wait() {
    let free = TestServer::start(&[]).await;
    let body = format!("{}\n", event("h", "m")).repeat(3_000);
    assert_eq!(free.post(body).await.status(), 200, "the original stopped at 1000 a minute");
    free.worked().await;
    free.stop().await;
    let limited =
        TestServer::start(&[("RATE_LIMIT_ENABLED", "true"), ("INGEST_MAX_RATE", "5"), ("INGEST_RATE_WINDOW", "30")])
            .await;
    for _ in 0..5 {
        limited.send(&event("h", "m")).await;
    }
    let refused = limited.post(event("h", "m").to_string()).await;
    assert_eq!(refused.status(), 429);
    let wait: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=30).contains(&wait));
    let answer: Value = serde_json::from_str(&refused.text().await.unwrap()).unwrap();
    assert_eq!(answer["message"], "Too Many Requests - rate limit exceeded");
    assert!(answer["retry_after"].is_u64());
    let batch = limited.post(format!("{}\n", event("h", "m")).repeat(6)).await;
    assert_eq!(batch.status(), 429, "the window is spent");
    limited.worked().await;
    limited.stop().await;
    // A batch that does not fit must not spend what a smaller one could use.
    let limited =
        TestServer::start(&[("RATE_LIMIT_ENABLED", "true"), ("INGEST_MAX_RATE", "5"), ("INGEST_RATE_WINDOW", "30")])
            .await;
    assert_eq!(limited.post(format!("{}\n", event("h", "m")).repeat(6)).await.status(), 413, "it can never fit");
    assert_eq!(limited.post(format!("{}\n", event("h", "m")).repeat(4)).await.status(), 200);
    limited.worked().await;
    limited.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_answers_503_and_loses_nothing() {
    let dir = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let env = [("MAX_INGEST_QUEUE_SIZE", "1000")];
    let server = TestServer::start_in(dir, &env, Some(&["ingestor"])).await;
    let mut accepted = 0;
    let refused = loop {
        let response = server.post(format!("{}\n", event("h", "m")).repeat(300)).await;
        if response.status() != 200 {
            break response;
        }
        accepted += 300;
    };
    assert_eq!((accepted, refused.status().as_u16()), (900, 503));
    assert!(refused.headers().contains_key("retry-after"));
    let answer: Value = serde_json::from_str(&refused.text().await.unwrap()).unwrap();
    assert_eq!(answer["message"], "Service Unavailable - queue full");
    assert_eq!(answer["queue_limit"], 1_000);
    assert_eq!(server.depth(QueueName::Ingest).await, 900, "nothing of a refused batch is kept");
    // Another start with somebody who works: everything accepted is worked.
    let dir = server.stop().await;
    let server = TestServer::start_in(dir, &env, None).await;
    server.worked().await;
    assert_eq!(server.parts.events.count(&model::OrgId::default()).await.unwrap(), 900);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn syslog_by_udp_and_tcp_is_stored_with_its_fields() {
    let server = TestServer::start(&[]).await;
    let line = "<189>Nov 22 10:00:00 sw1 %LINK-3-UPDOWN: Interface Gi0/1, changed state to down";
    let udp = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    udp.send_to(line.as_bytes(), server.addresses.syslog_udp.unwrap()).await.unwrap();
    let mut tcp = tokio::net::TcpStream::connect(server.addresses.syslog_tcp.unwrap()).await.unwrap();
    let structured = r#"<165>1 2026-11-22T10:00:00Z fw2 app 42 ID47 [x@1 user="eve"] hello"#;
    tcp.write_all(format!("{line}\n{} {structured}{line}\n", structured.len()).as_bytes()).await.unwrap();
    tcp.shutdown().await.unwrap();
    let org = model::OrgId::default();
    server.until(async || server.parts.events.count(&org).await.unwrap() == 4).await;
    let (_, found) = server.api("GET", "/api/v2/events?host=fw2", None).await;
    let text = found.to_string();
    assert!(text.contains("eve") && text.contains("ID47"), "structured data is kept: {text}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_bytes_on_every_listener_hurt_nobody_else() {
    let server = TestServer::start(&[]).await;
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..60 {
        let mut junk: Vec<u8> = (0..random.usize(1..4_000)).map(|_| random.u8(..)).collect();
        match round % 4 {
            0 => junk.splice(0..0, *b"99999999999999999999 <").for_each(drop),
            1 => junk
                .splice(0..0, *b"POST /ingest HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n")
                .for_each(drop),
            2 => junk.splice(0..0, *b"<999>1 ").for_each(drop),
            _ => {}
        }
        for address in
            [server.addresses.syslog_tcp.unwrap(), server.addresses.ingest.unwrap(), server.addresses.webui.unwrap()]
        {
            if let Ok(mut stream) = tokio::net::TcpStream::connect(address).await {
                let _ = stream.write_all(&junk).await;
            }
        }
        let udp = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let _ = udp.send_to(&junk, server.addresses.syslog_udp.unwrap()).await;
    }
    // A neighbour is served all the while.
    let answer = server.send(&event("neighbour", "still here")).await;
    let id = answer["event_id"].as_str().unwrap().to_owned();
    server.until(async || server.api("GET", &format!("/api/v2/events/{id}"), None).await.0 == 200).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_is_cut_off_and_holds_nobody_up() {
    let server = TestServer::start(&[]).await;
    let mut slow = tokio::net::TcpStream::connect(server.addresses.ingest.unwrap()).await.unwrap();
    slow.write_all(b"POST /ingest HTTP/1.1\r\nHost: x\r\n").await.unwrap();
    let quick = tokio::time::timeout(SOON, server.send(&event("h", "m"))).await;
    assert!(quick.is_ok());
    drop(slow);
    server.worked().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_can_be_looked_at() {
    let server = TestServer::start(&[]).await;
    server.post("{\"hostname\": oops").await;
    let (status, rejects) = server.api("GET", "/api/v2/rejects", None).await;
    assert_eq!(status, 200);
    let text = rejects.to_string();
    assert!(text.contains("malformed") && text.contains("oops"), "{text}");
    assert!(server.parts.metrics.encode().contains(r#"mutt_events_rejected_total{input="http",reason="malformed"} 1"#));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_page_and_a_wrong_method_are_refused_in_the_same_form() {
    let server = TestServer::start(&[]).await;
    for (path, key, status, allow) in
        [("/nowhere", true, 404, None), ("/nowhere", false, 401, None), ("/api/v2/ingest", true, 405, Some("POST"))]
    {
        let mut request = server.http.get(server.ingest_url(path)).header("x-correlation-id", "c-1");
        if key {
            request = request.header("x-api-key", &server.ingest_key);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(response.headers()["x-correlation-id"], "c-1", "{path}");
        assert_eq!(response.headers().get("allow").map(|value| value.to_str().unwrap()), allow, "{path}");
        let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        assert_eq!((&body["status"], &body["correlation_id"]), (&"error".into(), &"c-1".into()), "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_batch_without_a_good_event_names_the_first_reason() {
    let server = TestServer::start(&[]).await;
    for body in ["{\"a\":1}\n{\"b\":2}", "{\"a\":1} {\"b\":2}", "{\"a\":1}{\"b\":2}", "{\"a\":1}\nnothing"] {
        let response = server.post(body).await;
        assert_eq!(response.status(), 400, "{body}");
        let answer: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        assert_eq!(answer["message"], "Missing required fields: ['hostname', 'message', 'timestamp']", "{body}");
    }
    server.stop().await;
}
