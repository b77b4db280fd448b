//! What ships below `packaging/`, with the real daemons: their messages arrive once and right.

mod rsyslog;
mod snmp;
mod snmptrapd;

use crate::support::{SOON, TestServer};
use serde_json::Value;
use std::path::PathBuf;

/// A file or folder below `packaging/`.
fn packaged(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../packaging").join(path).canonicalize().unwrap()
}

/// A shipped file with replacements, each of which must be found.
fn with(path: &str, replacements: &[(&str, &str)]) -> String {
    let mut text = std::fs::read_to_string(packaged(path)).unwrap();
    for (from, to) in replacements {
        assert!(text.contains(from), "{path} has no `{from}`");
        text = text.replace(from, to);
    }
    text
}

/// The stored events of the host once there are `n`, oldest first; fails if there are more.
async fn stored(server: &TestServer, host: &str, n: usize) -> Vec<Value> {
    let query = format!("/api/v2/events?host={host}&limit=1000");
    let end = tokio::time::Instant::now() + SOON;
    loop {
        server.worked().await;
        let (status, found) = server.api("GET", &query, None).await;
        assert_eq!(status, 200, "{found}");
        let mut events: Vec<Value> = found["events"].as_array().unwrap().iter().map(|e| e["event"].clone()).collect();
        if events.len() >= n {
            let ends: Vec<String> = events.iter().rev().take(8).map(Value::to_string).collect();
            assert_eq!(events.len(), n, "{ends:?}");
            events.reverse();
            return events;
        }
        assert!(tokio::time::Instant::now() < end, "{} of {n} events of {host} came", events.len());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
