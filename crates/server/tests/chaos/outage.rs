//! A receiver that is away for ten minutes, with the settings that ship.

use crate::process::{check, configure, event, start};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use testkit::Receiver;

const AWAY: Duration = Duration::from_secs(600);
const LIMIT: usize = 50;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes twelve minutes: make outage. Scaled down it always runs, see it/delivery.rs"]
async fn after_ten_minutes_without_the_receiver_all_arrives_within_the_limit_and_no_hand_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start().await;
    configure(dir.path(), &format!("rate_limit = {LIMIT}\nrate_window_ms = 1000"));
    let server = start(dir.path(), &receiver.url()).await;
    receiver.go_down().await;
    let began = Instant::now();
    let mut next = 0;
    while began.elapsed() < AWAY {
        let batch: String = (next..next + 30).map(event).collect();
        assert_eq!(server.post(batch).await.unwrap().status(), 200);
        next += 30;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let alerts = usize::try_from(next / 3).unwrap();
    receiver.come_up();
    let up = Instant::now();
    receiver.wait_for(alerts, Duration::from_secs(600)).await;
    let took = up.elapsed();
    println!("outage: {alerts} alerts waited {AWAY:?} and arrived within {took:?}");
    server.drained().await;
    check(&(0..next).collect::<BTreeSet<u64>>(), next, &server.stored().await, &receiver);
    assert_eq!(receiver.deliveries().len(), alerts, "each once");
    // That no second has more is the limiter's own contract; arrivals say less on a busy machine.
    let seconds = u64::try_from(alerts / LIMIT).unwrap() - 1;
    assert!(took >= Duration::from_secs(seconds), "{alerts} within {took:?}: that is more than the limit");
}
