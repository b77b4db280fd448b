//! Stopping: one signal that everybody who runs holds.

use tokio::sync::watch;

/// Ask for the stop; keep it where the decision is made.
#[derive(Debug, Clone)]
pub struct Stopper(watch::Sender<bool>);

/// Handed to everything that runs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stopper {
    pub fn new() -> (Self, Stop) {
        let (tx, rx) = watch::channel(false);
        (Self(tx), Stop(rx))
    }
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
    pub fn handle(&self) -> Stop {
        Stop(self.0.subscribe())
    }
}

impl Stop {
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Returns once the stop is asked for, or its asker is gone. Cancel safe.
    pub async fn requested(&self) {
        let mut rx = self.0.clone();
        let _ = rx.wait_for(|stopped| *stopped).await;
    }

    /// Sleeps, unless stopped before; `false` when stopped.
    pub async fn sleep(&self, d: std::time::Duration) -> bool {
        tokio::select! {
            () = self.requested() => false,
            () = tokio::time::sleep(d) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everybody_hears_the_stop_even_who_comes_late() {
        let (stopper, stop) = Stopper::new();
        let early = tokio::spawn({
            let stop = stop.clone();
            async move { stop.requested().await }
        });
        assert!(!stop.is_requested());
        stopper.stop();
        early.await.unwrap();
        stopper.handle().requested().await;
        assert!(!stop.sleep(std::time::Duration::from_secs(60)).await);
    }

    #[tokio::test]
    async fn a_vanished_asker_counts_as_a_stop() {
        let (stopper, stop) = Stopper::new();
        drop(stopper);
        stop.requested().await;
        assert!(stop.is_requested());
    }
}
