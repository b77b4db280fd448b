//! `kill -9` of the whole process, again and again, with an oracle.
//!
//! A client posts numbered events and remembers which were acknowledged; after the last round the
//! oracle is asked. `CHAOS_ROUNDS` sets the rounds (default 100, what CI runs).

use crate::process::{check, client, configure, event, post, start};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use testkit::Receiver;

/// What the client knows about its events.
#[derive(Default)]
struct Sent {
    next: AtomicU64,
    acknowledged: Mutex<BTreeSet<u64>>,
}

/// Posts until the server is gone: single events and batches.
async fn load(http: reqwest::Client, url: String, key: String, sent: Arc<Sent>) {
    let mut turn = 0;
    loop {
        turn += 1;
        let count = if turn % 4 == 0 { 50 } else { 1 };
        let first = sent.next.fetch_add(count, Ordering::SeqCst);
        match post(&http, &url, &key, (first..first + count).map(event).collect()).await {
            Ok(response) if response.status() == 200 => {
                sent.acknowledged.lock().unwrap().extend(first..first + count);
            }
            // Full or draining: not acknowledged. Gone: the round is over.
            Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(_) => return,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_event_is_lost_or_doubled_by_kill_9() {
    let rounds: u32 = {
        #[expect(clippy::disallowed_methods, reason = "a knob of the test, not of the product")]
        let text = std::env::var("CHAOS_ROUNDS");
        text.ok().and_then(|t| t.parse().ok()).unwrap_or(100)
    };
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start().await;
    configure(dir.path(), "rate_limit = 1000000\nconcurrency = 32");
    let seed = 0x6d75_7474;
    let mut random = fastrand::Rng::with_seed(seed);
    let sent = Arc::new(Sent::default());
    for _ in 0..rounds {
        let mut server = start(dir.path(), &receiver.url()).await;
        let url = format!("http://{}/api/v2/ingest", server.ingest);
        let http = client();
        let clients: Vec<_> = (0..4)
            .map(|_| tokio::spawn(load(http.clone(), url.clone(), server.ingest_key.clone(), Arc::clone(&sent))))
            .collect();
        tokio::time::sleep(Duration::from_millis(random.u64(20..350))).await;
        server.kill();
        for client in clients {
            client.await.unwrap();
        }
    }
    let server = start(dir.path(), &receiver.url()).await;
    server.drained().await;
    let stored = server.stored().await;
    let acknowledged = sent.acknowledged.lock().unwrap().clone();
    let sent = sent.next.load(Ordering::SeqCst);
    println!(
        "chaos: seed {seed:#x}, {rounds} rounds, {sent} sent, {} acknowledged, {} stored",
        acknowledged.len(),
        stored.len()
    );
    assert!(acknowledged.len() as u32 > rounds, "the rounds did something");
    check(&acknowledged, sent, &stored, &receiver);
}
