//! Correlations over the events of all workers.
//!
//! What hits mean is worked out in memory, the alerts are written to the catalog, then the new state is
//! stored, and only then other hits may be worked: whatever a crash keeps of this, the hits come back and
//! lead to the same firings with the same ids. If anything fails in between, the state in memory is
//! forgotten and read again.
//!
//! Where the store is not shared, a batch's hits are worked with it. Where it is, they are handed over
//! with the batch, and each process works those that wait for the shards that it holds. Which hits those
//! are it announces before it writes their alerts ([`Turn::announce`]): what fires can depend on what is
//! worked together, and whoever takes over has to tell the same.

use super::announced::{self, HitName};
use super::set::DetectionSet;
use super::sets::Sets;
use crate::metrics::Metrics;
use model::{EventId, OrgId, Timestamp};
use rules::correlate::{Change, Correlator, Counters, Firing, Hit, Outcome, Record, Share, StateError, Stored};
use std::collections::{BTreeMap, HashSet};
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
    /// What was announced and not stored; it is worked first, and alone.
    again: Option<HashSet<HitName>>,
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
    /// Counts once it is kept: a batch that comes back is not counted twice.
    counted: Vec<Counters>,
    metrics: Arc<Metrics>,
    worked_again: bool,
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
            counted: Vec::new(),
            metrics: Arc::clone(&self.metrics),
            worked_again: false,
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
        let mut again = None;
        let announced = announced::group(share.index, share.count);
        for (org, group, parts) in self.store.load(hold).await? {
            if group == announced {
                again = parts.last().and_then(|part| announced::decode(part));
                continue;
            }
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
        Ok(Shard { hold, by_org, again })
    }

    /// Whether it is the turn of a hit: not where others were announced in its shard.
    pub fn is_due(&self, key: &HitKey) -> bool {
        let shard = self.state.loaded.iter().flatten().find(|shard| shard.hold.shard == key.shard());
        let again = shard.and_then(|shard| shard.again.as_ref());
        again.is_none_or(|again| again.contains(&announced::name(key)))
    }

    /// Says that these hits, and those alone, are worked now: before the first of their alerts is written.
    pub async fn announce(&mut self, keys: &[HitKey]) -> StorageResult<()> {
        let mut shards: Vec<usize> = keys.iter().map(HitKey::shard).collect();
        shards.sort_unstable();
        shards.dedup();
        let records = |stored: &dyn Fn(usize) -> Stored| {
            let record = |shard: &usize| Record { group: self.announced(*shard), stored: stored(*shard) };
            vec![(OrgId::default(), shards.iter().map(record).collect())]
        };
        let of = |shard| announced::encode(keys.iter().filter(move |key| key.shard() == shard));
        let (said, over) = (records(&|shard| Stored::Whole(of(shard))), records(&|_| Stored::Gone));
        self.store.commit(&self.holds(), Commit { records: said, ..Commit::default() }).await?;
        self.commit.records.extend(over);
        Ok(())
    }

    fn announced(&self, shard: usize) -> u128 {
        announced::group(shard, self.store.shards())
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
        let firings = note(&mut self.commit, org, &set, outcome, about);
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
                let firings = note(&mut self.commit, org, &own.set, outcome, &|_| Vec::new());
                fired.push((org.clone(), Arc::clone(&own.set), firings));
            }
        }
        fired
    }

    /// All hits that were due are worked: these are not to come back, and what was announced before is over.
    pub fn taken(&mut self, taken: Vec<HitKey>) {
        self.commit.taken.extend(taken);
        let again = self.state.loaded.iter().flatten().filter(|shard| shard.again.is_some());
        let over =
            again.map(|shard| Record { group: self.announced(shard.hold.shard), stored: Stored::Gone }).collect();
        self.commit.records.push((OrgId::default(), over));
        self.worked_again = true;
    }

    /// Stores what was changed; call it when the alerts are written.
    pub async fn keep(mut self) -> StorageResult<()> {
        let commit = std::mem::take(&mut self.commit);
        if !commit.is_empty() {
            self.store.commit(&self.holds(), commit).await?;
        }
        self.kept = true;
        let again = self.worked_again;
        self.state.loaded.iter_mut().flatten().for_each(|shard| shard.again = shard.again.take().filter(|_| !again));
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
    org: &OrgId,
    set: &DetectionSet,
    outcome: Outcome,
    about: &dyn Fn(EventId) -> Vec<u8>,
) -> Vec<Firing> {
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
    async fn who_takes_over_works_what_was_announced_alone_and_tells_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let mut reader = Reader::default();
        reader.text("rules.yml", FAILURES);
        let library = Library::new(reader, Vec::new(), Options::default(), false);
        let sets = Arc::new(Sets::default().next(&Arc::new(library), Vec::new()));
        let org = OrgId::default();
        let hit = |id: u32, second: i64| {
            let mut fields = Fields::new(EventSource::default());
            fields.push("src_ip", "192.0.2.7");
            let (mut hits, mut lacking) = (Vec::new(), Lacking::default());
            let event = EventId::new(Timestamp::from_secs(second), id, 0).to_u128();
            let event = Event { id: event, time: second * 1_000_000 };
            sets.base().plans().hits(0, event, &fields, &mut hits, &mut lacking);
            new_hit(sets.base(), &hits[0], &|_| Vec::new())
        };
        // Works what waits and is due; what fires, and how many hits were worked.
        async fn work(turn: &mut Turn, announces: bool) -> (Vec<u128>, usize) {
            let org = OrgId::default();
            let mut waiting = turn.store.waiting(&turn.holds(), 100).await.unwrap();
            waiting.retain(|one| turn.is_due(&one.key));
            let hits = waiting.iter().map(|one| turn.read(0, &org, &one.hit).unwrap().unwrap()).collect();
            let (_, firings) = turn.work(0, &org, Timestamp::from_secs(9_100), hits, &|_| Vec::new());
            let keys: Vec<HitKey> = waiting.into_iter().map(|one| one.key).collect();
            if announces {
                turn.announce(&keys).await.unwrap();
            }
            let worked = keys.len();
            turn.taken(keys);
            (firings.iter().map(|firing| firing.id).collect(), worked)
        }
        let mut told = Vec::new();
        for announces in [true, false] {
            let file = folder.path().join(format!("correlations-{announces}.db"));
            let store: Arc<dyn CorrelationStore> = Arc::new(LocalCorrelations::open(&file).unwrap());
            let worker = |id| Correlations::new(Arc::clone(&store), WorkerId(id), Metrics::new());
            store.add(&org, vec![hit(1, 9_000), hit(2, 9_001), hit(4, 9_003)]).await.unwrap();
            // The alerts are written, the state is not.
            let mut turn = worker(1).turn(&sets).await.unwrap();
            let first = work(&mut turn, announces).await;
            assert_eq!((first.0.len(), first.1), (1, 3));
            drop(turn);
            // Another alerter adds an event that came between; the next worker has all.
            store.add(&org, vec![hit(3, 9_002)]).await.unwrap();
            let next = worker(2);
            let mut turn = next.turn(&sets).await.unwrap();
            let again = work(&mut turn, announces).await;
            turn.keep().await.unwrap();
            assert_eq!(again.1, if announces { 3 } else { 4 });
            assert_eq!(again.0 == first.0, announces, "without, another firing would be told");
            let mut turn = next.turn(&sets).await.unwrap();
            let rest = work(&mut turn, false).await;
            turn.keep().await.unwrap();
            assert_eq!(rest, (Vec::new(), usize::from(announces)), "it goes on");
            assert!(store.waiting(&next.turn(&sets).await.unwrap().holds(), 9).await.unwrap().is_empty());
            told.push(first.0);
        }
        assert_eq!(told[0], told[1]);
    }
}
