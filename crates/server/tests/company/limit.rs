//! Forwarders share one limit: never exceeded in any second, nothing dropped.

use crate::site::{Sent, Site, SiteOptions, load};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use testkit::wait_until;

const LIMIT: usize = 20;

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
    let began = Instant::now();
    let _forwarders = [site.member("forwarder"), site.member("forwarder"), site.member("forwarder")];
    // The grants as Redis holds them (ms of its own clock). What arrives at a receiver says less: the
    // network and a busy machine move arrivals together.
    let (mut grants, mut gap) = (BTreeMap::new(), Duration::ZERO);
    while site.receiver.deliveries().len() < expected {
        assert!(began.elapsed() < Duration::from_secs(90), "{} of {expected}", site.receiver.deliveries().len());
        let before = Instant::now();
        tokio::time::sleep(Duration::from_millis(20)).await;
        let rows = site.redis.cli(&["ZRANGE", "mutt:rate_limit:moog", "0", "-1", "WITHSCORES"]);
        let mut lines = rows.lines();
        while let (Some(unit), Some(at)) = (lines.next(), lines.next()) {
            grants.insert(unit.to_owned(), at.parse::<f64>().unwrap());
        }
        gap = gap.max(before.elapsed());
    }
    let took = began.elapsed();
    assert_eq!(site.receiver.deliveries().len(), expected, "each once");
    let seconds = u64::try_from(expected / LIMIT).unwrap() - 1;
    assert!(took >= Duration::from_secs(seconds), "{expected} came within {took:?}: that is more than the limit");
    let mut times: Vec<f64> = grants.into_values().collect();
    times.sort_by(f64::total_cmp);
    let worst = (0..times.len())
        .map(|from| times[from..].iter().take_while(|t| *t - times[from] < 1_000.0).count())
        .max()
        .unwrap_or(0);
    println!(
        "company: {expected} alerts by 3 forwarders in {took:?}; {} grants seen (looked every {gap:?} at worst), at most \
         {worst} within a second, limit {LIMIT}",
        times.len()
    );
    assert!(worst <= LIMIT, "{worst} granted within a second");
    // Redis forgets a grant after a second: who looked more often has seen all.
    assert!(times.len() >= expected || gap >= Duration::from_secs(1), "{} grants, {expected} alerts", times.len());
    assert_eq!(site.redis.cli(&["TYPE", "mutt:rate_limit:moog"]).as_str(), "zset");
}
