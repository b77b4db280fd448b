//! Several alerters on one queue correlate as one.

use crate::drop_in::post;
use crate::site::{INGEST_KEY, Member, Site, SiteOptions};
use std::time::Duration;
use testkit::wait_until;

const RULES: &str = "\
title: Failed login
id: failed
name: failed_login
level: low
logsource: {product: linux, service: sshd}
detection: {s: {event_type: ssh_fail}, condition: s}
---
title: Brute force
id: brute
level: high
correlation: {type: event_count, rules: [failed_login], group-by: [SourceIp], timespan: 5m, condition: {gte: 20}}
";

fn failure(address: &str, number: u32) -> String {
    let second = number % 60;
    format!(
        "{{\"hostname\":\"web{}\",\"program\":\"sshd\",\"timestamp\":\"2026-11-22T10:00:{second:02}Z\",\"message\":\
         \"Failed password for invalid user x from {address} port {} ssh2\"}}\n",
        number % 4,
        4_000 + number
    )
}

async fn site() -> Site {
    let mut site = Site::start(SiteOptions::default()).await;
    let rules = site.dir.path().join("rules.yml");
    std::fs::write(&rules, RULES).unwrap();
    site.set("MUTT_DETECTION_RULES", &rules.display().to_string());
    site.set("MUTT_SHIPPED_RULES", "false");
    site.set("ALERTER_JANITOR_TIMEOUT", "3");
    site.set("MOOG_JANITOR_TIMEOUT", "3");
    site.set("MOOG_RATE_LIMIT", "100000");
    site.set("LOG_LEVEL", "warn");
    site
}

async fn post_lines(member: &Member, body: String) -> u16 {
    let http = server::commands::http_client(Duration::from_secs(20)).unwrap();
    let request = http.post(member.url("/api/v2/ingest")).header("x-api-key", INGEST_KEY);
    request.header("content-type", "application/x-ndjson").body(body).send().await.unwrap().status().as_u16()
}

/// An alerter with a data folder of its own: what it correlates alone, it correlates wrongly.
fn alerter(site: &mut Site, name: &str) -> Member {
    site.set("MUTT_DATA_DIR", &site.dir.path().join(name).display().to_string());
    site.member("alerter")
}

/// How often the correlation fired for each address.
fn fired(site: &Site) -> Vec<String> {
    let rows = site.postgres.psql("SELECT message FROM alerts WHERE detection IS NOT NULL ORDER BY message");
    rows.lines().map(str::to_owned).filter(|row| !row.is_empty()).collect()
}

/// Waits until nothing is on its way to a correlation.
async fn correlated(site: &Site) {
    let waiting = || {
        let hits = site.postgres.psql("SELECT count(*) FROM muttd_correlation_hits WHERE taken_at IS NULL");
        [site.redis.cli(&["LLEN", "mutt:ingest_queue"]), site.redis.cli(&["KEYS", "mutt:processing:*"]), hits]
    };
    let done = || waiting().each_ref().map(|text| text.trim()) == ["0", "", "0"];
    assert!(wait_until(Duration::from_secs(60), done).await, "waiting, held, hits: {:?}", waiting());
}

/// For people, where a test fails.
fn state(site: &Site) -> String {
    site.postgres.psql(
        "SELECT 'alerts', state, count(*) FROM alerts GROUP BY state UNION ALL \
         SELECT 'hits', grp::text, count(*) FROM muttd_correlation_hits GROUP BY grp UNION ALL \
         SELECT 'shards', worker::text, count(*) FROM muttd_correlation_shards GROUP BY worker",
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_brute_force_spread_over_two_alerters_fires_once() {
    let mut site = site().await;
    let _webui = site.member("webui");
    let _one = alerter(&mut site, "alerter-1");
    let _two = alerter(&mut site, "alerter-2");
    let ingestor = site.member("ingestor");
    // Nine of the twenty for one address, thirty for another, one by one.
    for number in 0..30 {
        assert_eq!(post(&ingestor, failure("203.0.113.7", number)).await, 200);
        if number < 9 {
            assert_eq!(post(&ingestor, failure("203.0.113.8", number)).await, 200);
        }
    }
    correlated(&site).await;
    assert!(wait_until(Duration::from_secs(20), || !fired(&site).is_empty()).await);
    let fired = fired(&site);
    assert_eq!(fired.len(), 1, "{fired:?}");
    assert!(fired[0].contains("203.0.113.7"), "{fired:?}");
    for alerter in ["alerter-1", "alerter-2"] {
        assert!(site.dir.path().join(alerter).join("events/default").is_dir(), "the {alerter} had no event");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_brute_force_fires_once_although_alerters_are_killed() {
    const ADDRESSES: u32 = 24;
    const EVENTS: u32 = 30;
    let mut site = site().await;
    let _webui = site.member("webui");
    let mut alerters = [alerter(&mut site, "alerter-1"), alerter(&mut site, "alerter-2")];
    let ingestor = site.member("ingestor");
    let mut random = fastrand::Rng::with_seed(7);
    for number in 0..EVENTS {
        let body: String = (0..ADDRESSES).map(|n| failure(&format!("203.0.113.{n}"), number)).collect();
        assert_eq!(post_lines(&ingestor, body).await, 200);
        tokio::time::sleep(Duration::from_millis(random.u64(0..60))).await;
        // Most of all about when the twentieth comes.
        if [5, 12, 19, 20, 21, 25].contains(&number) {
            let victim = &mut alerters[random.usize(0..2)];
            victim.daemon.kill();
            victim.start_again();
        }
    }
    for member in &alerters {
        member.healthy(Duration::from_secs(60));
    }
    correlated(&site).await;
    let enough = || fired(&site).len() >= ADDRESSES as usize;
    assert!(wait_until(Duration::from_secs(60), enough).await, "{} fired\n{}", fired(&site).len(), state(&site));
    let fired = fired(&site);
    let mut once = fired.clone();
    once.dedup();
    assert_eq!((fired.len(), once.len()), (ADDRESSES as usize, ADDRESSES as usize), "{fired:#?}");
}
