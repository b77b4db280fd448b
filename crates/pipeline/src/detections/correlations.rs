//! Correlations over the events of all workers of this process.
//!
//! What a batch means is worked out in memory, its alerts are written to the catalog, then the new
//! state is stored, and only then another batch may begin: whatever a crash keeps of this, the batch
//! comes back and leads to the same firings with the same ids. If anything fails in between, the state
//! in memory is forgotten and read again.

use super::set::DetectionSet;
use crate::metrics::Metrics;
use model::{OrgId, Timestamp};
use rules::correlate::{Change, Correlator, Counters, Firing, Hit, Plans, Record, Share, Stored};
use std::collections::BTreeMap;
use std::sync::Arc;
use storage::StorageResult;
use storage::correlations::CorrelationStore;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// The state of all organisations.
#[derive(Clone)]
pub struct Correlations {
    store: Arc<CorrelationStore>,
    state: Arc<Mutex<State>>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct State {
    /// `None`: to be read before use.
    loaded: Option<Loaded>,
}

struct Loaded {
    plans: Arc<Plans>,
    by_org: BTreeMap<OrgId, Correlator>,
}

/// The right to change the state; what is changed counts once [`Turn::keep`] said so.
pub struct Turn {
    store: Arc<CorrelationStore>,
    state: OwnedMutexGuard<State>,
    records: Vec<(OrgId, Vec<Record>)>,
    /// Counts once it is kept: a batch that comes back is not counted twice.
    counted: Vec<Counters>,
    metrics: Arc<Metrics>,
    kept: bool,
}

impl Correlations {
    pub fn new(store: CorrelationStore, metrics: Arc<Metrics>) -> Self {
        Self { store: Arc::new(store), state: Arc::default(), metrics }
    }

    /// Waits for the turn, with the correlations of `set` in force.
    pub async fn turn(&self, set: &DetectionSet) -> StorageResult<Turn> {
        let state = Arc::clone(&self.state).lock_owned().await;
        let (store, metrics) = (Arc::clone(&self.store), Arc::clone(&self.metrics));
        let mut turn = Turn { store, state, records: Vec::new(), counted: Vec::new(), metrics, kept: false };
        match &mut turn.state.loaded {
            Some(loaded) if Arc::ptr_eq(&loaded.plans, set.plans()) => {}
            Some(loaded) => {
                loaded.plans = Arc::clone(set.plans());
                for (org, correlator) in &mut loaded.by_org {
                    turn.records.push((org.clone(), correlator.reload(Arc::clone(set.plans()))));
                }
            }
            None => {
                let mut by_org: BTreeMap<OrgId, Correlator> = BTreeMap::new();
                for (org, group, parts) in self.store.load().await? {
                    let correlator = by_org.entry(org.clone()).or_insert_with(|| new(set.plans()));
                    match correlator.restore(group, parts.iter().map(Vec::as_slice)) {
                        Ok(true) => {}
                        Ok(false) => turn.records.push((org, vec![gone(group)])),
                        Err(error) => {
                            tracing::error!(%org, %error, "the state of a correlation cannot be read; it starts anew");
                            turn.records.push((org, vec![gone(group)]));
                        }
                    }
                }
                turn.state.loaded = Some(Loaded { plans: Arc::clone(set.plans()), by_org });
            }
        }
        Ok(turn)
    }
}

fn new(plans: &Arc<Plans>) -> Correlator {
    Correlator::new(Arc::clone(plans), Share::ALL)
}

fn gone(group: u128) -> Record {
    Record { group, stored: Stored::Gone }
}

impl Turn {
    /// Works hits of one organisation; what begins to fire.
    pub fn apply(&mut self, org: &OrgId, now: Timestamp, hits: Vec<Hit>) -> Vec<Firing> {
        let Some(loaded) = &mut self.state.loaded else { return Vec::new() };
        let plans = Arc::clone(&loaded.plans);
        let correlator = loaded.by_org.entry(org.clone()).or_insert_with(|| new(&plans));
        let before = correlator.counters();
        let outcome = correlator.apply(now.micros(), hits);
        self.counted.push(correlator.counters().since(before));
        self.records.push((org.clone(), outcome.records));
        opened(outcome.changes)
    }

    /// Lets time pass for all organisations; what begins to fire.
    pub fn pass(&mut self, now: Timestamp) -> Vec<(OrgId, Vec<Firing>)> {
        let Some(loaded) = &mut self.state.loaded else { return Vec::new() };
        let mut fired = Vec::new();
        for (org, correlator) in &mut loaded.by_org {
            let before = correlator.counters();
            let outcome = correlator.pass(now.micros());
            self.counted.push(correlator.counters().since(before));
            self.records.push((org.clone(), outcome.records));
            fired.push((org.clone(), opened(outcome.changes)));
        }
        fired
    }

    /// Stores what was changed; call it when the alerts are written.
    pub async fn keep(mut self) -> StorageResult<()> {
        for (org, records) in std::mem::take(&mut self.records) {
            self.store.store(&org, records).await?;
        }
        self.kept = true;
        for counted in &self.counted {
            self.metrics.count_correlated(counted);
        }
        let all = || self.state.loaded.iter().flat_map(|loaded| loaded.by_org.values());
        self.metrics.correlation_groups.set(all().map(|one| one.groups() as i64).sum());
        self.metrics.correlation_bytes.set(all().map(|one| one.bytes() as i64).sum());
        Ok(())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.kept {
            self.state.loaded = None;
        }
    }
}

/// Firings that begin. What goes on, is moved or merged is known to its incident already.
fn opened(changes: Vec<Change>) -> Vec<Firing> {
    changes.into_iter().filter_map(Change::opened).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detections::Mode;
    use model::{EventSource, Fields};
    use rules::correlate::{Event, Lacking};
    use rules::sigma::{Options, Reader};

    const FAILURES: &str = "
title: Login failed
name: failed
logsource: {product: linux, service: sshd}
detection: {s: {outcome: failure}, condition: s}
---
title: Many failed logins
level: high
correlation: {type: event_count, rules: [failed], group-by: [src_ip], timespan: 1m, condition: {gte: 3}}
";

    #[tokio::test]
    async fn what_correlations_count_reaches_the_metrics_once_it_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let metrics = Metrics::new();
        let store = CorrelationStore::open(&folder.path().join("correlations.db")).unwrap();
        let correlations = Correlations::new(store, Arc::clone(&metrics));
        let mut reader = Reader::new(Options::default());
        reader.text("rules.yml", FAILURES);
        let set = DetectionSet::compile(&reader.finish(), |_| Some(Mode::Alert));
        let hit = |id: u128, second: i64| {
            let mut fields = Fields::new(EventSource::default());
            fields.push("src_ip", "192.0.2.7");
            let (mut hits, mut lacking) = (Vec::new(), Lacking::default());
            set.plans().hits(0, Event { id, time: second * 1_000_000 }, &fields, &mut hits, &mut lacking);
            hits
        };
        let at = |second: i64| Timestamp::from_micros(second * 1_000_000);
        let value = |name: &str| {
            let text = metrics.encode();
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("{name} is not in\n{text}")).to_owned()
        };
        let org = OrgId::default();
        for kept in [false, true] {
            let mut turn = correlations.turn(&set).await.unwrap();
            // One of the events came before, one is of tomorrow; the last is an hour late.
            let batch = [hit(1, 9_000), hit(2, 9_001), hit(1, 9_000), hit(3, 9_002), hit(4, 99_000)].concat();
            assert_eq!(turn.apply(&org, at(9_010), batch).len(), 1);
            assert!(turn.apply(&org, at(9_020), hit(5, 5_000)).is_empty());
            if kept {
                turn.keep().await.unwrap();
            }
            let outcome = |outcome| value(&format!("mutt_detection_correlation_hits_total{{outcome=\"{outcome}\"}}"));
            let expected = if kept { ["3", "1", "1", "1"] } else { ["0"; 4] };
            assert_eq!(["counted", "repeated", "late", "ahead"].map(outcome), expected);
        }
        assert_eq!(value("mutt_detection_correlation_groups"), "1");
        assert_ne!(value("mutt_detection_correlation_bytes"), "0");
        let mut turn = correlations.turn(&set).await.unwrap();
        assert!(turn.pass(at(99_000)).iter().all(|(_, firings)| firings.is_empty()));
        turn.keep().await.unwrap();
        assert_eq!(value("mutt_detection_correlation_groups_expired_total"), "1");
        assert_eq!(
            (&*value("mutt_detection_correlation_groups"), &*value("mutt_detection_correlation_bytes")),
            ("0", "0")
        );
    }
}
