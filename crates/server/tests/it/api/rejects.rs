use super::{NOON, api};
use connectors::inputs::Reject;
use model::{InputKind, RejectReason};
use serde_json::json;

#[tokio::test]
async fn what_was_refused_at_the_doors_is_shown_newest_first() {
    let api = api().await;
    for detail in ["first", "second"] {
        let reject = Reject {
            input: InputKind::SyslogUdp,
            reason: RejectReason::Malformed,
            detail,
            peer: Some("192.0.2.7:514".parse().unwrap()),
            sample: b"<999>\xff",
        };
        api.state.rejects.add(&reject, NOON);
    }
    let rejects = api.get("/api/v2/rejects").await.is(200);
    assert_eq!(
        rejects["rejects"][0],
        json!({
            "at": "2026-01-01T12:00:00.000000Z", "input": "syslog_udp", "reason": "malformed", "detail": "second",
            "peer": "192.0.2.7:514", "sample": "<999>\u{fffd}",
        })
    );
    assert_eq!(api.get("/api/v2/rejects?limit=1").await.is(200)["rejects"].as_array().unwrap().len(), 1);
    api.get("/api/v2/rejects?limit=x").await.refuses(400, "limit: ");
}
