//! For tests only: receivers that behave as told, real servers, builders with sensible defaults, free
//! ports.
//!
//! Always true here: nothing knows connectors, storage or the pipeline, so every crate's tests may
//! use it; nothing listens outside 127.0.0.1; what cannot work panics with a sentence, because the
//! caller is a test.

#[cfg(feature = "agents")]
pub mod agents;
pub mod builders;
pub mod host_agent;
mod http;
mod receiver;
pub mod servers;
pub mod smtp;
pub mod webhooks;

pub use receiver::{Behaviour, Receiver, Request};
pub use smtp::{Mail, SmtpBehaviour, SmtpReceiver, SmtpSecurity, SmtpStep};

use std::time::Duration;

/// A TCP port of 127.0.0.1 that was free a moment ago. Prefer port 0 where the server can take it:
/// between this call and the bind somebody else may be faster.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .expect("127.0.0.1 has a free port")
        .port()
}

/// Waits until `condition` holds, asking every 5 ms; `false` when `timeout` passed first. Use as
/// `assert!(wait_until(secs, || …).await, "what did not happen")`, so the failure names the test's
/// own line.
#[must_use = "assert it"]
pub async fn wait_until(timeout: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = tokio::time::Instant::now() + timeout;
    loop {
        if condition() {
            return true;
        }
        if tokio::time::Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waiting_ends_with_the_condition_or_the_timeout() {
        let mut asked = 0;
        let third = || {
            asked += 1;
            asked == 3
        };
        assert!(wait_until(Duration::from_secs(5), third).await);
        assert!(!wait_until(Duration::from_millis(10), || false).await);
    }

    #[test]
    fn a_free_port_can_be_bound() {
        std::net::TcpListener::bind(("127.0.0.1", free_port())).unwrap();
    }
}
