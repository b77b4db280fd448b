//! Forwarders share one limit: never exceeded in any second, nothing dropped.

use crate::site::{Sent, Site, SiteOptions, load};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use testkit::wait_until;

const LIMIT: usize = 20;
const KEY: &str = "mutt:rate_limit:moog";

#[tokio::test(flavor = "multi_thread")]
async fn three_forwarders_never_exceed_the_limit_together_and_drop_nothing() {
    let mut site = Site::start(SiteOptions::default()).await;
    site.set("MOOG_RATE_LIMIT", &LIMIT.to_string());
    let _webui = site.member("webui");
    site.rules();
    let (ingestor, _alerter) = (site.member("ingestor"), site.member("alerter"));
    let (sent, stop) = (Arc::new(Sent::default()), Arc::new(AtomicBool::new(false)));
    let client = tokio::spawn(load(
        vec![ingestor.url("/api/v2/ingest")],
        Arc::clone(&sent),
        Duration::from_millis(2),
        Arc::clone(&stop),
    ));
    assert!(wait_until(Duration::from_secs(20), || sent.next.load(Ordering::SeqCst) > 450).await);
    stop.store(true, Ordering::SeqCst);
    client.await.unwrap();
    let expected = sent.acknowledged.lock().unwrap().iter().filter(|n| n.is_multiple_of(3)).count();
    // Every grant as Redis is told it, with the time of its own clock. What arrives at a receiver says less: the
    // network and a busy machine move arrivals together.
    let monitor = site.redis.monitor();
    let began = Instant::now();
    let _forwarders = ["forwarder"; 3].map(|role| site.member(role));
    let all = || site.receiver.deliveries().len() >= expected;
    assert!(wait_until(Duration::from_secs(90), all).await, "{} of {expected}", site.receiver.deliveries().len());
    let took = began.elapsed();
    assert_eq!(site.receiver.deliveries().len(), expected, "each once");
    let seconds = u64::try_from(expected / LIMIT).unwrap() - 1;
    assert!(took >= Duration::from_secs(seconds), "{expected} came within {took:?}: that is more than the limit");
    let granted = || grants(&monitor.output());
    assert!(wait_until(Duration::from_secs(10), || granted().len() >= expected).await, "{} grants", granted().len());
    let mut times: Vec<u64> = granted().into_values().collect();
    times.sort_unstable();
    let worst = (0..times.len())
        .map(|from| times[from..].iter().take_while(|t| *t - times[from] < 1_000_000).count())
        .max()
        .unwrap_or(0);
    println!(
        "company: {expected} alerts by 3 forwarders in {took:?}; {} grants, at most {worst} within a second, limit {LIMIT}",
        times.len()
    );
    assert!(worst <= LIMIT, "{worst} granted within a second");
    assert_eq!(site.redis.cli(&["TYPE", KEY]).as_str(), "zset");
}

/// When each unit of the limit was granted, in µs, by what Redis was told to write (ms, three decimals).
fn grants(monitor: &str) -> BTreeMap<String, u64> {
    let mut grants = BTreeMap::new();
    for line in monitor.lines().filter(|line| line.contains("\"ZADD\"") && line.contains(KEY)) {
        let words: Vec<&str> = line.split('"').skip(1).step_by(2).skip(2).filter(|word| *word != "XX").collect();
        for pair in words.chunks_exact(2) {
            grants.insert(pair[1].to_owned(), pair[0].replace('.', "").parse().unwrap());
        }
    }
    grants
}
