//! Correlations over the events of all workers.
//!
//! What hits mean is worked out in memory, the names of firings that begin are stored, the alerts are
//! written to the catalog, then the new state is stored, and only then other hits may be worked: whatever a
//! crash keeps of this, the hits come back, alone or with others, and lead to the same firings with the same
//! ids. If anything fails in between, the state in memory is forgotten and read again.
//!
//! Where the store is not shared, a batch's hits are worked with it. Where it is, they are handed over
//! with the batch, and each process works those that wait for the shards that it holds.

use super::set::DetectionSet;
use super::sets::Sets;
use crate::metrics::Metrics;
use model::{EventId, OrgId, Timestamp};
use rules::correlate::{Change, Correlator, Counters, Firing, Hit, Outcome, Record, Share, StateError, Stored};
use std::collections::BTreeMap;
use std::sync::Arc;
use storage::StorageResult;
use storage::correlations::{Commit, CorrelationStore, HitKey, Hold, NewHit, WorkerId};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// The state of all organisations, as far as this process works it.
#[derive(Clone)]
pub struct Correlations {
    store: Arc<dyn CorrelationStore>,
    worker: WorkerId,
    state: Arc<Mutex<State>>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct State {
    /// The shards that are held; `None`: to be held and read before use.
    loaded: Option<Vec<Shard>>,
}

struct Shard {
    hold: Hold,
    by_org: BTreeMap<OrgId, Own>,
}

/// The state of one organisation in one shard.
struct Own {
    correlator: Correlator,
    /// The rules that it works by, and the number of the sets that they came with.
    set: Arc<DetectionSet>,
    number: u64,
}

/// The right to change the state; what is changed counts once [`Turn::keep`] said so.
pub struct Turn {
    store: Arc<dyn CorrelationStore>,
    state: OwnedMutexGuard<State>,
    sets: Arc<Sets>,
    commit: Commit,
    named: Vec<(OrgId, Vec<Record>)>,
    /// Counts once it is kept: a batch that comes back is not counted twice.
    counted: Vec<Counters>,
    metrics: Arc<Metrics>,
    kept: bool,
}

impl Correlations {
    /// `worker`: another one every time that a process starts.
    pub fn new(store: Arc<dyn CorrelationStore>, worker: WorkerId, metrics: Arc<Metrics>) -> Self {
        Self { store, worker, state: Arc::default(), metrics }
    }

    pub fn store(&self) -> &Arc<dyn CorrelationStore> {
        &self.store
    }

    /// Waits for the turn of what was found with these sets. Where later ones are in force already, what
    /// was found is worked by those.
    pub async fn turn(&self, sets: &Arc<Sets>) -> StorageResult<Turn> {
        let state = Arc::clone(&self.state).lock_owned().await;
        let mut turn = Turn {
            store: Arc::clone(&self.store),
            state,
            sets: Arc::clone(sets),
            commit: Commit::default(),
            named: Vec::new(),
            counted: Vec::new(),
            metrics: Arc::clone(&self.metrics),
            kept: false,
        };
        if turn.state.loaded.is_none() {
            turn.hold(self.worker).await?;
        }
        Ok(turn)
    }

    /// Says that this process lives, and goes on with the shards that it holds now.
    pub async fn hold(&self, sets: &Arc<Sets>) -> StorageResult<()> {
        let mut turn = self.turn(sets).await?;
        turn.hold(self.worker).await?;
        turn.keep().await
    }

    /// Gives up all shards, so that others need not wait for them.
    pub async fn release(&self) -> StorageResult<()> {
        self.state.lock().await.loaded = None;
        self.store.release(self.worker).await
    }
}

impl Own {
    fn new(sets: &Sets, org: &OrgId, share: Share) -> Self {
        let set = sets.of(org);
        let correlator = Correlator::new(Arc::clone(set.plans()), share);
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

impl Turn {
    /// Holds the shards that this worker is to have: reads those that are new, forgets those that are gone.
    async fn hold(&mut self, worker: WorkerId) -> StorageResult<()> {
        let held = self.store.hold(worker).await?;
        self.metrics.correlation_hits_waiting.set(i64::try_from(held.waiting).unwrap_or(i64::MAX));
        let mut known = self.state.loaded.take().unwrap_or_default();
        known.retain(|shard| held.holds.contains(&shard.hold));
        for hold in held.holds {
            if !known.iter().any(|shard| shard.hold == hold) {
                known.push(self.load(hold).await?);
            }
        }
        self.state.loaded = Some(known);
        Ok(())
    }

    async fn load(&mut self, hold: Hold) -> StorageResult<Shard> {
        let share = Share { index: hold.shard, count: self.store.shards() };
        let mut by_org: BTreeMap<OrgId, Own> = BTreeMap::new();
        for (org, group, parts) in self.store.load(hold).await? {
            let own = by_org.entry(org.clone()).or_insert_with(|| Own::new(&self.sets, &org, share));
            match own.correlator.restore(group, parts.iter().map(Vec::as_slice)) {
                Ok(true) => continue,
                // Others may have newer rules; what is theirs is not taken away.
                Ok(false) if self.store.is_shared() => continue,
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(%org, %error, "the state of a correlation cannot be read; it starts anew");
                }
            }
            self.commit.records.push((org, vec![Record { group, stored: Stored::Gone }]));
        }
        Ok(Shard { hold, by_org })
    }

    /// The shards that are held.
    pub fn holds(&self) -> Vec<Hold> {
        self.state.loaded.iter().flatten().map(|shard| shard.hold).collect()
    }

    /// Works hits of one organisation, found with the sets of this turn, where all groups are here; what
    /// begins to fire, and the rules by which it does.
    pub fn apply(&mut self, org: &OrgId, now: Timestamp, mut hits: Vec<Hit>) -> (Arc<DetectionSet>, Vec<Firing>) {
        let made_by = Arc::clone(self.sets.of(org));
        let Some(shard) = self.holds().first().map(|hold| hold.shard) else { return (made_by, Vec::new()) };
        let Some(own) = self.own(shard, org) else { return (made_by, Vec::new()) };
        if !Arc::ptr_eq(own.set.plans(), made_by.plans()) {
            own.set.plans().adopt(made_by.plans(), &mut hits);
        }
        let (set, firings) = self.work(shard, org, now, hits, &|_| Vec::new());
        (set.unwrap_or(made_by), firings)
    }

    /// What an organisation knows in a shard that is held, by the newest rules.
    fn own(&mut self, shard: usize, org: &OrgId) -> Option<&mut Own> {
        let share = Share { index: shard, count: self.store.shards() };
        let shards = self.state.loaded.as_mut()?;
        let shard = shards.iter_mut().find(|known| known.hold.shard == shard)?;
        let own = shard.by_org.entry(org.clone()).or_insert_with(|| Own::new(&self.sets, org, share));
        let records = own.follow(&self.sets, org);
        if !records.is_empty() {
            self.commit.records.push((org.clone(), records));
        }
        Some(own)
    }

    /// Reads a hit that waits for a shard. `None` where its correlation is not here.
    pub fn read(&mut self, shard: usize, org: &OrgId, hit: &[u8]) -> Result<Option<Hit>, StateError> {
        self.own(shard, org).map_or(Ok(None), |own| own.set.plans().read_hit(hit))
    }

    /// Works hits of one organisation in one shard that is held. `about` is what is said of an event to
    /// those who work its hits elsewhere.
    pub fn work(
        &mut self,
        shard: usize,
        org: &OrgId,
        now: Timestamp,
        hits: Vec<Hit>,
        about: &dyn Fn(EventId) -> Vec<u8>,
    ) -> (Option<Arc<DetectionSet>>, Vec<Firing>) {
        let Some(own) = self.own(shard, org) else { return (None, Vec::new()) };
        let before = own.correlator.counters();
        let outcome = own.correlator.apply(now.micros(), hits);
        let counted = own.correlator.counters().since(before);
        let set = Arc::clone(&own.set);
        self.counted.push(counted);
        let firings = note(&mut self.commit, &mut self.named, org, &set, outcome, about);
        (Some(set), firings)
    }

    /// Lets time pass for all organisations; what begins to fire, and the rules by which it does.
    pub fn pass(&mut self, now: Timestamp) -> Vec<(OrgId, Arc<DetectionSet>, Vec<Firing>)> {
        let mut fired = Vec::new();
        for shard in self.state.loaded.iter_mut().flatten() {
            for (org, own) in &mut shard.by_org {
                let records = own.follow(&self.sets, org);
                self.commit.records.push((org.clone(), records));
                let before = own.correlator.counters();
                let outcome = own.correlator.pass(now.micros());
                self.counted.push(own.correlator.counters().since(before));
                let firings = note(&mut self.commit, &mut self.named, org, &own.set, outcome, &|_| Vec::new());
                fired.push((org.clone(), Arc::clone(&own.set), firings));
            }
        }
        fired
    }

    /// Hits that were worked are not to come back.
    pub fn taken(&mut self, taken: Vec<HitKey>) {
        self.commit.taken.extend(taken);
    }

    /// Stores the names of what begins to fire; call it before anybody is told of that.
    pub async fn name(&mut self) -> StorageResult<()> {
        let named = Commit { records: std::mem::take(&mut self.named), ..Commit::default() };
        match named.is_empty() {
            true => Ok(()),
            false => self.store.commit(&self.holds(), named).await,
        }
    }

    /// Stores what was changed; call it when the alerts are written.
    pub async fn keep(mut self) -> StorageResult<()> {
        let commit = std::mem::take(&mut self.commit);
        if !commit.is_empty() {
            self.store.commit(&self.holds(), commit).await?;
        }
        self.kept = true;
        for counted in &self.counted {
            self.metrics.count_correlated(counted);
        }
        let shards = || self.state.loaded.iter().flatten();
        let all = || shards().flat_map(|shard| shard.by_org.values()).map(|own| &own.correlator);
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

/// Takes an outcome into what is to be stored; what begins to fire. What goes on, is moved or merged is
/// known to its incident already.
fn note(
    commit: &mut Commit,
    named: &mut Vec<(OrgId, Vec<Record>)>,
    org: &OrgId,
    set: &DetectionSet,
    outcome: Outcome,
    about: &dyn Fn(EventId) -> Vec<u8>,
) -> Vec<Firing> {
    named.push((org.clone(), outcome.named));
    commit.records.push((org.clone(), outcome.records));
    let found = outcome.elsewhere.iter().map(|hit| (org.clone(), new_hit(set, hit, about)));
    commit.found.extend(found);
    outcome.changes.into_iter().filter_map(Change::opened).collect()
}

/// A hit on its way to those who work it.
pub(super) fn new_hit(set: &DetectionSet, hit: &Hit, about: &dyn Fn(EventId) -> Vec<u8>) -> NewHit {
    let event = EventId::from_u128(hit.event);
    NewHit { event, group: hit.group, hit: set.plans().write_hit(hit), about: about(event) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detections::library::Library;
    use model::{EventSource, Fields};
    use rules::correlate::{Event, Lacking};
    use rules::sigma::{Options, Reader};
    use storage::correlations::LocalCorrelations;

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
        let store = LocalCorrelations::open(&folder.path().join("correlations.db")).unwrap();
        let correlations = Correlations::new(Arc::new(store), WorkerId(1), Arc::clone(&metrics));
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
            let store = LocalCorrelations::open(&folder.path().join("correlations.db")).unwrap();
            Correlations::new(Arc::new(store), WorkerId(1), Metrics::new())
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
