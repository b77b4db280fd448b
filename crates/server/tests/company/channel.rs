//! Only the forwarder has to know where alerts go.

use crate::drop_in::post;
use crate::site::{Site, SiteOptions, event};
use std::time::Duration;
use testkit::wait_until;

const SOON: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn an_alerter_without_the_receivers_address_pages_all_the_same() {
    let mut site = Site::start(SiteOptions::default()).await;
    let (url, key) = (site.receiver.url(), site.environment.remove("MOOG_API_KEY").unwrap());
    site.environment.remove("MOOG_WEBHOOK_URL");
    let _webui = site.member("webui");
    site.rules();
    let (ingestor, _alerter) = (site.member("ingestor"), site.member("alerter"));
    // A forwarder without an address: healthy as long as there is nothing to deliver.
    let idle = site.member("forwarder");
    for n in 0..3 {
        assert_eq!(post(&ingestor, event(n)).await, 200);
    }
    let waits = || site.redis.cli(&["LLEN", "mutt:alert_queue"]) == "1";
    assert!(wait_until(SOON, waits).await, "the alert is in the queue");
    let forwarded =
        site.postgres.psql("SELECT forwarded_to_moog FROM event_audit_log WHERE raw_message LIKE '%CHAOS%'");
    assert_eq!(forwarded.trim(), "t");
    assert!(wait_until(SOON, || idle.health() == Some(503)).await, "{}", idle.daemon.output());
    assert!(idle.daemon.output().contains("no alert channel is configured"), "{}", idle.daemon.output());
    assert!(waits(), "and is left there");

    site.set("MOOG_WEBHOOK_URL", &url);
    site.set("MOOG_API_KEY", &key);
    let _forwarder = site.member("forwarder");
    assert!(wait_until(SOON, || site.receiver.deliveries().len() == 1).await);
    site.drained();
    assert!(wait_until(SOON, || idle.health() == Some(200)).await, "{}", idle.daemon.output());
}
