//! Any process may be killed, Redis and PostgreSQL may restart, all under load: no acknowledged event
//! is lost and nobody is paged by two alerts for one event.

use crate::site::{Member, Sent, Site, SiteOptions, check, load};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Kills: default of CI, `COMPANY_ROUNDS` sets more.
const ROUNDS: u32 = 40;

fn rounds() -> u32 {
    #[expect(clippy::disallowed_methods, reason = "a knob of the test, not of the product")]
    let text = std::env::var("COMPANY_ROUNDS");
    text.ok().and_then(|t| t.parse().ok()).unwrap_or(ROUNDS)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_event_is_lost_whoever_is_killed() {
    let mut site = Site::start(SiteOptions::default()).await;
    site.set("ALERTER_JANITOR_TIMEOUT", "3");
    site.set("MOOG_JANITOR_TIMEOUT", "3");
    site.set("MOOG_RATE_LIMIT", "100000");
    site.set("REMEDIATION_INTERVAL", "1");
    site.set("LOG_LEVEL", "warn");
    let mut members: Vec<Member> = vec![site.member("webui")];
    site.rules();
    for role in [
        "ingestor",
        "ingestor",
        "ingestor",
        "alerter",
        "alerter",
        "alerter",
        "forwarder",
        "forwarder",
        "webui",
        "remediation",
    ] {
        members.push(site.member(role));
    }
    let urls: Vec<String> = members.iter().filter(|m| m.role == "ingestor").map(|m| m.url("/api/v2/ingest")).collect();
    let (sent, stop) = (Arc::new(Sent::default()), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..3)
        .map(|_| tokio::spawn(load(urls.clone(), Arc::clone(&sent), Duration::from_millis(5), Arc::clone(&stop))))
        .collect();
    let seed = 0x6d75_7474;
    let mut random = fastrand::Rng::with_seed(seed);
    let rounds = rounds();
    for round in 0..rounds {
        tokio::time::sleep(Duration::from_millis(random.u64(50..400))).await;
        match round % 10 {
            4 => {
                site.redis.kill();
                site.redis.start_again();
            }
            9 => {
                site.postgres.kill();
                site.postgres.start_again();
            }
            _ => {
                let victim = random.usize(0..members.len());
                members[victim].daemon.kill();
                members[victim].start_again();
            }
        }
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    for member in &members {
        member.healthy(Duration::from_secs(60));
    }
    site.drained();
    let acknowledged = sent.acknowledged.lock().unwrap().len();
    println!(
        "company: seed {seed:#x}, {rounds} rounds, {} sent, {acknowledged} acknowledged, {} refused posts, {} deliveries",
        sent.next.load(Ordering::SeqCst),
        sent.refused.load(Ordering::SeqCst),
        site.receiver.deliveries().len()
    );
    assert!(acknowledged as u32 > rounds, "the rounds did something");
    check(&site, &sent);
}
