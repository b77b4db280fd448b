//! A web UI in a process of its own finds the events that the alerters beside it keep.

use crate::drop_in::{get, post};
use crate::site::{Site, SiteOptions, event};
use std::collections::BTreeSet;
use std::time::Duration;
use testkit::wait_until;

#[tokio::test(flavor = "multi_thread")]
async fn a_web_ui_finds_the_events_of_all_alerters_on_its_machine() {
    let mut site = Site::start(SiteOptions::default()).await;
    let data = |name: &str| site.dir.path().join(name).display().to_string();
    let (pattern, first, second, own) = (data("alerter*/events"), data("alerter"), data("alerter-2"), data("webui"));
    site.set("MUTT_DATA_DIR", &own);
    let blind = site.member("webui");
    site.set("MUTT_EVENTS_READ_ALSO", &pattern);
    let webui = site.member("webui");
    site.set("MUTT_DATA_DIR", &first);
    let _one = site.member("alerter");
    site.set("MUTT_DATA_DIR", &second);
    let _two = site.member("alerter");
    let ingestor = site.member("ingestor");
    let shown = async || {
        let page = get(&webui, "/api/v2/events?limit=1000").await;
        assert!(page.get("note").is_none());
        page["events"].as_array().unwrap().iter().map(|e| e["event"]["n"].as_u64().unwrap()).collect::<BTreeSet<_>>()
    };
    for n in 0..200 {
        assert_eq!(post(&ingestor, event(n)).await, 200);
    }
    let mut seen = BTreeSet::new();
    for _ in 0..200 {
        seen = shown().await;
        if seen.len() == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(seen, (0..200).collect());
    let of = |name: &str| site.dir.path().join(name).join("events/default").is_dir();
    assert!(wait_until(Duration::from_secs(5), || of("alerter") || of("alerter-2")).await);

    let id = get(&webui, "/api/v2/events?limit=1").await["events"][0]["id"].as_str().unwrap().to_owned();
    let trace = get(&webui, &format!("/api/v2/trace/{id}")).await;
    assert_eq!(trace["event"]["id"].as_str(), Some(id.as_str()), "{trace}");
    let page = get(&blind, "/api/v2/events").await;
    assert!(page["note"].as_str().unwrap().contains("events.read_also"), "{page}");
}
