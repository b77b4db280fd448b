//! Keeps the rules in force as the files and the catalog say.

use super::Detections;
use crate::metrics::labels;
use model::ErrorKind;
use runtime::Stop;
use std::sync::Arc;
use std::time::Duration;
use storage::catalog::detection_rules::{DetectionRuleStore, OrgDetectionRules};
use storage::{StorageError, StorageResult};

/// How often a change of the catalog is looked for.
const POLL: Duration = Duration::from_millis(400);

impl Detections {
    /// Reads what organisations say, compiles what changed off the async threads, and puts it in force.
    /// On failure what was in force stays.
    pub async fn reload(&self, catalog: &dyn DetectionRuleStore) -> StorageResult<()> {
        self.renew(catalog.all_detection_rules()).await
    }

    /// The same with the shared rules and these of organisations.
    pub async fn replace(&self, orgs: Vec<OrgDetectionRules>) -> StorageResult<()> {
        self.renew(std::future::ready(Ok(orgs))).await
    }

    async fn renew(&self, read: impl Future<Output = StorageResult<Vec<OrgDetectionRules>>>) -> StorageResult<()> {
        // One after the other: what was read earlier must never replace what was read later.
        let _making = self.making.lock().await;
        let started = tokio::time::Instant::now();
        let made = match read.await {
            Ok(orgs) => self.make(orgs).await,
            Err(error) => Err(error),
        };
        self.metrics.detection_reload_latency.observe(started.elapsed().as_secs_f64());
        let status = if made.is_ok() { "success" } else { "failure" };
        self.metrics.detection_reloads.get_or_create(&labels([("status", status)])).inc();
        made
    }

    async fn make(&self, orgs: Vec<OrgDetectionRules>) -> StorageResult<()> {
        let (library, before) = (self.library(), self.sets());
        let sets = tokio::task::spawn_blocking(move || before.next(&library, orgs))
            .await
            .map_err(|error| StorageError::with_source(ErrorKind::Internal, "compiling detection rules", error))?;
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.detection_rules.set(count(sets.base().in_force()));
        self.metrics.detection_documents_refused.set(count(sets.refused()));
        self.guard.knows(&sets);
        self.sets.store(Arc::new(sets));
        Ok(())
    }

    /// Keeps the rules fresh until stopped.
    pub async fn run(&self, catalog: Arc<dyn DetectionRuleStore>, stop: Stop) {
        let mut seen = None;
        let mut failing = false;
        loop {
            let library = self.library();
            let done = match catalog.detection_revision().await {
                Ok(revision) => {
                    let same = |(seen, of): &(u64, _)| *seen == revision && Arc::ptr_eq(of, &library);
                    match seen.as_ref().is_some_and(same) {
                        true => Ok(()),
                        false => self.reload(&*catalog).await.map(|()| seen = Some((revision, library))),
                    }
                }
                Err(error) => Err(error),
            };
            match done {
                Ok(()) => failing = false,
                // Said once; the metric says the rest.
                Err(error) if !std::mem::replace(&mut failing, true) => {
                    tracing::error!(%error, "detection rules cannot be reloaded; the old ones stay in force");
                }
                Err(_) => {}
            }
            if !stop.sleep(POLL).await {
                return;
            }
        }
    }
}
