//! Owning tasks: every task has a name and somebody who awaits it.

use crate::{Stop, Stopper};
use std::future::Future;
use tokio::task::{Id, JoinError, JoinSet};

/// How a supervised task ended.
#[derive(Debug)]
pub struct Ended {
    pub name: &'static str,
    /// `Err` with a sentence when it failed or panicked.
    pub result: Result<(), String>,
}

/// A group of tasks. When one of them ends by failure, the whole group is asked to stop: a process
/// with a dead part must not look alive.
#[derive(Debug)]
pub struct Supervisor {
    tasks: JoinSet<Result<(), String>>,
    names: std::collections::BTreeMap<String, &'static str>,
    stopper: Stopper,
}

impl Supervisor {
    pub fn new(stopper: Stopper) -> Self {
        Self { tasks: JoinSet::new(), names: std::collections::BTreeMap::new(), stopper }
    }

    pub fn stop(&self) -> Stop {
        self.stopper.handle()
    }

    pub fn spawn<F>(&mut self, name: &'static str, task: F)
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let handle = self.tasks.spawn(task);
        self.names.insert(key(handle.id()), name);
    }

    /// Returns once a task ends that nobody has asked to end, by failure or otherwise; asks the whole
    /// group to stop. Waits for ever while all is well. Cancel safe.
    pub async fn watch(&mut self) -> Ended {
        loop {
            let Some(ended) = self.tasks.join_next_with_id().await else { return std::future::pending().await };
            let mut ended = self.ended(ended);
            if ended.result.is_ok() && !self.stopper.handle().is_requested() {
                ended.result = Err("ended although nobody asked it to".to_owned());
            }
            if let Err(reason) = &ended.result {
                tracing::error!(task = ended.name, reason, "{} failed; stopping", ended.name);
                self.stopper.stop();
                return ended;
            }
        }
    }

    fn ended(&mut self, ended: Result<(Id, Result<(), String>), JoinError>) -> Ended {
        let (id, result) = match ended {
            Ok((id, result)) => (id, result),
            Err(error) => (error.id(), Err(format!("panicked: {error}"))),
        };
        Ended { name: self.names.remove(&key(id)).unwrap_or("task"), result }
    }

    /// Waits for all tasks; asks the others to stop on the first failure. Returns the failures.
    pub async fn join(mut self) -> Vec<Ended> {
        let mut failures = Vec::new();
        while let Some(ended) = self.tasks.join_next_with_id().await {
            let Ended { name, result } = self.ended(ended);
            if let Err(reason) = &result {
                tracing::error!(task = name, reason, "{name} failed; stopping");
                self.stopper.stop();
                failures.push(Ended { name, result });
            } else {
                tracing::debug!(task = name, "{name} ended");
            }
        }
        failures
    }
}

fn key(id: Id) -> String {
    id.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_failure_stops_the_rest_and_is_reported_by_name() {
        let (stopper, stop) = Stopper::new();
        let mut supervisor = Supervisor::new(stopper);
        supervisor.spawn("waits", async move {
            stop.requested().await;
            Ok(())
        });
        supervisor.spawn("fails", async { Err("no luck".to_owned()) });
        supervisor.spawn("panics", async { panic!("boom") });
        let mut failed: Vec<&str> = supervisor.join().await.into_iter().map(|e| e.name).collect();
        failed.sort_unstable();
        assert_eq!(failed, ["fails", "panics"]);
    }
    #[tokio::test]
    async fn a_part_that_ends_by_itself_is_noticed_at_once() {
        let (stopper, stop) = Stopper::new();
        let mut supervisor = Supervisor::new(stopper);
        let waits = stop.clone();
        supervisor.spawn("waits", async move {
            waits.requested().await;
            Ok(())
        });
        supervisor.spawn("leaves", async { Ok(()) });
        assert_eq!(supervisor.watch().await.name, "leaves");
        assert!(stop.is_requested(), "the others are asked to stop");
        assert!(supervisor.join().await.is_empty());
    }
}
