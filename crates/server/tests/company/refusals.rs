//! A Redis that is there and refuses writes: what can go on does, the rest is red until it works again.

use crate::site::{INGEST_KEY, Member, Site, SiteOptions, event};
use std::time::Duration;
use testkit::wait_until;

const LONG: Duration = Duration::from_secs(90);

async fn post(ingestor: &Member, body: String) -> (u16, String) {
    let http = server::commands::http_client(LONG).unwrap();
    let request = http.post(ingestor.url("/api/v2/ingest")).header("x-api-key", INGEST_KEY);
    let response = request.header("content-type", "application/x-ndjson").body(body).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

async fn all_are(members: &[&Member], status: u16) {
    for member in members {
        let is = || member.health() == Some(status);
        assert!(wait_until(LONG, is).await, "the {} is not {status}: {}", member.role, member.daemon.output());
    }
}

async fn is_refused(ingestor: &Member) {
    let (status, body) = post(ingestor, event(0)).await;
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("Redis error"), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_takes_no_writes_every_role_that_writes_stays_red() {
    let site = Site::start(SiteOptions::default()).await;
    let webui = site.member("webui");
    let (ingestor, alerter) = (site.member("ingestor"), site.member("alerter"));
    let (forwarder, remediation) = (site.member("forwarder"), site.member("remediation"));
    let all = [&webui, &ingestor, &alerter, &forwarder, &remediation];
    let nobody = testkit::free_port().to_string();
    for (refuse, take) in [
        (&["CONFIG", "SET", "min-replicas-to-write", "1"][..], &["CONFIG", "SET", "min-replicas-to-write", "0"][..]),
        (&["REPLICAOF", "127.0.0.1", &nobody], &["REPLICAOF", "NO", "ONE"]),
    ] {
        site.redis.cli(refuse);
        // Nobody posts: it is found out all the same.
        all_are(&all, 503).await;
        is_refused(&ingestor).await;
        // Longer than two rounds of the watch, which may not call well what still refuses.
        for _ in 0..24 {
            for member in [&ingestor, &alerter, &forwarder, &remediation] {
                assert_eq!(member.health(), Some(503), "{refuse:?}: the {}: {}", member.role, member.daemon.output());
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        site.redis.cli(take);
        all_are(&all, 200).await;
        assert_eq!(post(&ingestor, event(1)).await.0, 200);
    }
    let lines = alerter.daemon.output().lines().count();
    assert!(lines < 200, "{lines} lines of log in the alerter");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_maxmemory_what_waits_is_detected_and_delivered_and_ingest_says_why_it_refuses() {
    let mut site = Site::start(SiteOptions::default()).await;
    site.set("MOOG_RATE_LIMIT", "1000");
    let _webui = site.member("webui");
    site.rules();
    let (ingestor, remediation) = (site.member("ingestor"), site.member("remediation"));
    let (status, body) = post(&ingestor, (0..90).map(event).collect()).await;
    assert_eq!(status, 200, "{body}");
    site.redis.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    site.redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    is_refused(&ingestor).await;
    all_are(&[&ingestor, &remediation], 503).await;
    let (alerter, forwarder) = (site.member("alerter"), site.member("forwarder"));
    let delivered = || site.receiver.deliveries().len();
    assert!(wait_until(LONG, || delivered() >= 30).await, "{} of 30 delivered", delivered());
    site.drained();
    assert_eq!((site.audited().len(), delivered()), (90, 30));
    all_are(&[&alerter, &forwarder], 200).await;
    assert_eq!(ingestor.health(), Some(503), "it still refuses");
    site.redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    all_are(&[&ingestor, &remediation], 200).await;
    assert_eq!(post(&ingestor, event(90)).await.0, 200);
    site.drained();
}
