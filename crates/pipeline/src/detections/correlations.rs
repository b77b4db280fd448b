//! Correlations over the events of all workers of this process.
//!
//! What a batch means is worked out in memory, the names of firings that begin are stored, its alerts are
//! written to the catalog, then the new state is stored, and only then another batch may begin: whatever
//! a crash keeps of this, its events come back, alone or with others, and lead to the same firings with
//! the same ids. If anything fails in between, the state in memory is forgotten and read again.

use super::set::DetectionSet;
use super::sets::Sets;
use crate::metrics::Metrics;
use model::{OrgId, Timestamp};
use rules::correlate::{Change, Correlator, Counters, Firing, Hit, Record, Share, Stored};
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
    loaded: Option<BTreeMap<OrgId, Own>>,
}

/// The state of one organisation.
struct Own {
    correlator: Correlator,
    /// The rules that it works by, and the number of the sets that they came with.
    set: Arc<DetectionSet>,
    number: u64,
}

/// The right to change the state; what is changed counts once [`Turn::keep`] said so.
pub struct Turn {
    store: Arc<CorrelationStore>,
    state: OwnedMutexGuard<State>,
    sets: Arc<Sets>,
    records: Vec<(OrgId, Vec<Record>)>,
    named: Vec<(OrgId, Vec<Record>)>,
    /// Counts once it is kept: a batch that comes back is not counted twice.
    counted: Vec<Counters>,
    metrics: Arc<Metrics>,
    kept: bool,
}

impl Correlations {
    pub fn new(store: CorrelationStore, metrics: Arc<Metrics>) -> Self {
        Self { store: Arc::new(store), state: Arc::default(), metrics }
    }

    /// Waits for the turn of what was found with these sets. Where later ones are in force already, what
    /// was found is worked by those.
    pub async fn turn(&self, sets: &Arc<Sets>) -> StorageResult<Turn> {
        let state = Arc::clone(&self.state).lock_owned().await;
        let mut turn = Turn {
            store: Arc::clone(&self.store),
            state,
            sets: Arc::clone(sets),
            records: Vec::new(),
            named: Vec::new(),
            counted: Vec::new(),
            metrics: Arc::clone(&self.metrics),
            kept: false,
        };
        if turn.state.loaded.is_none() {
            let mut by_org: BTreeMap<OrgId, Own> = BTreeMap::new();
            for (org, group, parts) in self.store.load().await? {
                let own = by_org.entry(org.clone()).or_insert_with(|| Own::new(&turn.sets, &org));
                match own.correlator.restore(group, parts.iter().map(Vec::as_slice)) {
                    Ok(true) => {}
                    Ok(false) => turn.records.push((org, vec![gone(group)])),
                    Err(error) => {
                        tracing::error!(%org, %error, "the state of a correlation cannot be read; it starts anew");
                        turn.records.push((org, vec![gone(group)]));
                    }
                }
            }
            turn.state.loaded = Some(by_org);
        }
        Ok(turn)
    }
}

impl Own {
    fn new(sets: &Sets, org: &OrgId) -> Self {
        let set = sets.of(org);
        let correlator = Correlator::new(Arc::clone(set.plans()), Share::ALL);
        Self { correlator, set: Arc::clone(set), number: sets.number() }
    }

    /// Goes on by the rules of these sets, unless it has later ones; what is to be stored of that.
    fn follow(&mut self, sets: &Sets, org: &OrgId) -> Vec<Record> {
        if sets.number() <= self.number {
            return Vec::new();
        }
        let before = std::mem::replace(&mut self.set, Arc::clone(sets.of(org)));
        self.number = sets.number();
        match Arc::ptr_eq(before.plans(), self.set.plans()) {
            true => Vec::new(),
            false => self.correlator.reload(Arc::clone(self.set.plans())),
        }
    }
}

fn gone(group: u128) -> Record {
    Record { group, stored: Stored::Gone }
}

impl Turn {
    /// Works hits of one organisation; what begins to fire, and the rules by which it does.
    pub fn apply(&mut self, org: &OrgId, now: Timestamp, mut hits: Vec<Hit>) -> (Arc<DetectionSet>, Vec<Firing>) {
        let made_by = self.sets.of(org);
        let Some(loaded) = &mut self.state.loaded else { return (Arc::clone(made_by), Vec::new()) };
        let own = loaded.entry(org.clone()).or_insert_with(|| Own::new(&self.sets, org));
        let mut records = own.follow(&self.sets, org);
        if !Arc::ptr_eq(own.set.plans(), made_by.plans()) {
            own.set.plans().adopt(made_by.plans(), &mut hits);
        }
        let before = own.correlator.counters();
        let outcome = own.correlator.apply(now.micros(), hits);
        self.named.push((org.clone(), outcome.named));
        self.counted.push(own.correlator.counters().since(before));
        records.extend(outcome.records);
        self.records.push((org.clone(), records));
        (Arc::clone(&own.set), opened(outcome.changes))
    }

    /// Lets time pass for all organisations; what begins to fire, and the rules by which it does.
    pub fn pass(&mut self, now: Timestamp) -> Vec<(OrgId, Arc<DetectionSet>, Vec<Firing>)> {
        let Some(loaded) = &mut self.state.loaded else { return Vec::new() };
        let mut fired = Vec::new();
        for (org, own) in loaded {
            let mut records = own.follow(&self.sets, org);
            let before = own.correlator.counters();
            let outcome = own.correlator.pass(now.micros());
            self.named.push((org.clone(), outcome.named));
            self.counted.push(own.correlator.counters().since(before));
            records.extend(outcome.records);
            self.records.push((org.clone(), records));
            fired.push((org.clone(), Arc::clone(&own.set), opened(outcome.changes)));
        }
        fired
    }

    /// Stores the names of what begins to fire; call it before anybody is told of that.
    pub async fn name(&mut self) -> StorageResult<()> {
        for (org, records) in std::mem::take(&mut self.named).into_iter().filter(|(_, records)| !records.is_empty()) {
            self.store.store(&org, records).await?;
        }
        Ok(())
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
        let all = || self.state.loaded.iter().flat_map(BTreeMap::values).map(|own| &own.correlator);
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
    use crate::detections::library::Library;
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
        let mut reader = Reader::default();
        reader.text("rules.yml", FAILURES);
        let library = Library::new(reader, Vec::new(), Options::default(), false);
        let sets = Arc::new(Sets::default().next(&Arc::new(library), Vec::new()));
        let hit = |id: u128, second: i64| {
            let mut fields = Fields::new(EventSource::default());
            fields.push("src_ip", "192.0.2.7");
            let (mut hits, mut lacking) = (Vec::new(), Lacking::default());
            sets.base().plans().hits(0, Event { id, time: second * 1_000_000 }, &fields, &mut hits, &mut lacking);
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
            let mut turn = correlations.turn(&sets).await.unwrap();
            // One of the events came before, one is of tomorrow; the last is an hour late.
            let batch = [hit(1, 9_000), hit(2, 9_001), hit(1, 9_000), hit(3, 9_002), hit(4, 99_000)].concat();
            assert_eq!(turn.apply(&org, at(9_010), batch).1.len(), 1);
            assert!(turn.apply(&org, at(9_020), hit(5, 5_000)).1.is_empty());
            if kept {
                turn.keep().await.unwrap();
            }
            let outcome = |outcome| value(&format!("mutt_detection_correlation_hits_total{{outcome=\"{outcome}\"}}"));
            let expected = if kept { ["3", "1", "1", "1"] } else { ["0"; 4] };
            assert_eq!(["counted", "repeated", "late", "ahead"].map(outcome), expected);
        }
        assert_eq!(value("mutt_detection_correlation_groups"), "1");
        assert_ne!(value("mutt_detection_correlation_bytes"), "0");
        let mut turn = correlations.turn(&sets).await.unwrap();
        assert!(turn.pass(at(99_000)).iter().all(|(.., firings)| firings.is_empty()));
        turn.keep().await.unwrap();
        assert_eq!(value("mutt_detection_correlation_groups_expired_total"), "1");
        assert_eq!(
            (&*value("mutt_detection_correlation_groups"), &*value("mutt_detection_correlation_bytes")),
            ("0", "0")
        );
    }

    #[tokio::test]
    async fn a_firing_that_was_told_before_a_crash_has_its_name_when_its_events_come_back_with_others() {
        let folder = tempfile::tempdir().unwrap();
        let open = || {
            let store = CorrelationStore::open(&folder.path().join("correlations.db")).unwrap();
            Correlations::new(store, Metrics::new())
        };
        let mut reader = Reader::default();
        reader.text("rules.yml", FAILURES);
        let library = Library::new(reader, Vec::new(), Options::default(), false);
        let sets = Arc::new(Sets::default().next(&Arc::new(library), Vec::new()));
        let hits = |seconds: &[i64]| -> Vec<Hit> {
            let mut fields = Fields::new(EventSource::default());
            fields.push("src_ip", "192.0.2.7");
            let (mut hits, mut lacking) = (Vec::new(), Lacking::default());
            for second in seconds {
                let event = Event { id: *second as u128, time: second * 1_000_000 };
                sets.base().plans().hits(0, event, &fields, &mut hits, &mut lacking);
            }
            hits
        };
        let (org, now) = (OrgId::default(), Timestamp::from_micros(100_000_000));
        let mut told = Vec::new();
        // Dies after it was told; the second time with events that were sent before.
        for seconds in [&[40, 30, 50][..], &[40, 30, 50, 10, 20], &[50, 20, 40, 10, 30]] {
            let mut turn = open().turn(&sets).await.unwrap();
            let firings = turn.apply(&org, now, hits(seconds)).1;
            turn.name().await.unwrap();
            told.extend(firings.into_iter().map(|firing| (firing.id, firing.anchor / 1_000_000)));
        }
        let id = told[0].0;
        assert_eq!(told, [(id, 50), (id, 30), (id, 30)], "it begins elsewhere, and is the same");
        // What is stored at last knows it by that name, also for whoever reads it again.
        let mut turn = open().turn(&sets).await.unwrap();
        assert_eq!(turn.apply(&org, now, hits(&[40, 30, 50])).1.len(), 1);
        turn.name().await.unwrap();
        turn.keep().await.unwrap();
        let mut turn = open().turn(&sets).await.unwrap();
        assert!(turn.apply(&org, now, hits(&[10, 20, 30, 40, 50])).1.is_empty());
    }
}
