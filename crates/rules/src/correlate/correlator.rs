//! All groups of one worker.

use super::encode::{self, Part, StateError};
use super::group::{Group, Step};
use super::hit::{Hit, moved, shard};
use super::named::{Named, Names};
use super::outcome::{Change, Counters, Firing, Outcome, Record, Stored};
use super::plan::{Plan, Plans};
use super::runs::{Run, Turn};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// Most events that a firing names.
const EVENTS_MAX: usize = 16;
/// So many bytes may stand behind the whole of a small group before it is written anew; of a large
/// one, as many as it has.
const MORE_BYTES_MIN: usize = 1_024;

/// Which groups a worker has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub index: usize,
    pub count: usize,
}

impl Share {
    /// All groups.
    pub const ALL: Self = Self { index: 0, count: 1 };
}

/// The groups.
#[derive(Debug)]
pub struct Correlator {
    plans: Arc<Plans>,
    share: Share,
    groups: HashMap<u128, Kept>,
    /// By correlation.
    shelves: Vec<Shelf>,
    names: Names,
    counters: Counters,
}

#[derive(Debug)]
struct Kept {
    group: Group,
    touched: i64,
    bytes: usize,
    /// Bytes stored as a whole, and behind it.
    whole: usize,
    more: usize,
}

/// The groups of one correlation, those touched longest ago first.
#[derive(Debug, Default, Clone)]
struct Shelf {
    order: BTreeSet<(i64, u128)>,
    bytes: usize,
}

impl Correlator {
    pub fn new(plans: Arc<Plans>, share: Share) -> Self {
        let shelves = vec![Shelf::default(); plans.len()];
        let (groups, names) = (HashMap::new(), Names::default());
        Self { plans, share, groups, shelves, names, counters: Counters::default() }
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// How many groups there are.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// An estimate of the bytes of all groups.
    pub fn bytes(&self) -> usize {
        self.shelves.iter().map(|shelf| shelf.bytes).sum()
    }

    /// Takes a batch in. `now` is when the events were received, in microseconds; for events of the
    /// past, the time of the newest.
    pub fn apply(&mut self, now: i64, hits: Vec<Hit>) -> Outcome {
        let mut work = Work::new(now);
        self.sort_in(hits, &mut work);
        // Lower correlations first: what they find goes up within the batch.
        while let Some(height) = work.levels.keys().next().copied() {
            self.level(height, &mut work);
        }
        self.bound(&mut work);
        work.outcome(&self.plans)
    }

    /// Lets time pass without events: windows of closing conditions end `lateness` after they are
    /// over, and groups that nobody touched for long are forgotten. With `i64::MAX` everything ends.
    pub fn pass(&mut self, now: i64) -> Outcome {
        let mut work = Work::new(now);
        let plans = self.plans.clone();
        let mut order: Vec<usize> = (0..plans.len()).collect();
        order.sort_by_key(|correlation| plans.plan(*correlation).map_or(0, |plan| plan.height));
        for correlation in order {
            let Some(plan) = plans.plan(correlation) else { continue };
            // What lower correlations found by the passing of time comes before this one's own time.
            self.level(plan.height, &mut work);
            if plan.closing || (plan.wavers() && plan.heard) {
                let floor = now.saturating_sub(plan.lateness);
                for id in self.due(correlation, plan, floor) {
                    let above = self.step(correlation, id, Vec::new(), Some(floor), &mut work);
                    self.sort_in(above, &mut work);
                }
            }
        }
        self.expire(&mut work);
        self.bound(&mut work);
        work.outcome(&self.plans)
    }

    /// Groups of a correlation that have something to judge, or to tell, when time gets to `floor`.
    fn due(&self, correlation: usize, plan: &Plan, floor: i64) -> Vec<u128> {
        let first = |group: &Group| {
            if plan.closing {
                group.members.first_time().map(|first| first.saturating_add(plan.span))
            } else {
                group.carried.first_time()
            }
        };
        let ids = self.shelves[correlation].order.iter().map(|(_, id)| *id);
        let due =
            |id: &u128| self.groups.get(id).and_then(|kept| first(&kept.group)).is_some_and(|first| first < floor);
        let mut due: Vec<u128> = ids.filter(due).collect();
        due.sort_unstable();
        due
    }

    /// Gives the hits of one level to their groups.
    fn level(&mut self, height: usize, work: &mut Work) {
        let mut groups: BTreeMap<(usize, u128), Vec<Hit>> = BTreeMap::new();
        for hit in work.levels.remove(&height).unwrap_or_default() {
            groups.entry((hit.correlation, hit.group)).or_default().push(hit);
        }
        for ((correlation, id), hits) in groups {
            let above = self.step(correlation, id, hits, None, work);
            self.sort_in(above, work);
        }
    }

    fn sort_in(&mut self, hits: Vec<Hit>, work: &mut Work) {
        for hit in hits {
            let Some(plan) = self.plans.plan(hit.correlation) else { continue };
            if shard(hit.group, self.share.count) != self.share.index {
                work.elsewhere.push(hit);
            } else if hit.time > work.now.saturating_add(self.plans.limits.ahead_micros_max) {
                self.counters.ahead += 1;
            } else {
                work.levels.entry(plan.height).or_default().push(hit);
            }
        }
    }

    /// One step of one group; hits for higher correlations come back.
    fn step(&mut self, correlation: usize, id: u128, hits: Vec<Hit>, floor: Option<i64>, work: &mut Work) -> Vec<Hit> {
        let plans = self.plans.clone();
        let Some(plan) = plans.plan(correlation) else { return Vec::new() };
        self.counters.hits += hits.len() as u64;
        let stored = self.groups.contains_key(&id);
        let kept = self.groups.entry(id).or_insert_with(|| {
            let key = hits.first().map(|hit| hit.key.clone()).unwrap_or_default();
            Kept { group: Group::new(correlation, key), touched: work.now, bytes: 0, whole: 0, more: 0 }
        });
        let shelf = &mut self.shelves[correlation];
        shelf.order.remove(&(kept.touched, id));
        shelf.bytes -= kept.bytes;
        // Time that passes by itself is no touch.
        if !hits.is_empty() {
            kept.touched = kept.touched.max(work.now);
        }
        let more = encode::write_more(&plans, correlation, &hits, floor, kept.touched);
        let mut names = self.names.take(id).map(|named| named.ids).unwrap_or_default();
        let named_before = names.len();
        let step = kept.group.step(id, plan, hits, floor, &mut names);
        let renamed = names.len() < named_before;
        let opened = step.turns.iter().filter_map(|turn| match turn {
            Turn::Opened(run) => Some(run.id),
            Turn::GoesOn(_) | Turn::Moved(_) | Turn::Merged { .. } | Turn::Withdrawn { .. } => None,
        });
        work.named.entry(id).or_insert((correlation, kept.touched, Vec::new())).2.extend(opened);
        self.counters.late += step.late;
        self.counters.repeated += step.repeated;
        self.counters.members_dropped += step.dropped;
        for turn in &step.turns {
            work.changes.push(change(kept, correlation, plan, turn, &step));
        }
        if kept.group.idle() {
            self.groups.remove(&id);
            let named = work.named.get(&id).is_some_and(|(.., ids)| !ids.is_empty());
            if stored || named {
                work.records.insert(id, Stored::Gone);
            }
            return step.above;
        }
        let again = work.records.contains_key(&id);
        // What is stored behind the whole is worked again by whoever reads it, and would name firings anew.
        let whole =
            !stored || again || renamed || !names.is_empty() || kept.more + more.len() > MORE_BYTES_MIN.max(kept.whole);
        let record = if whole {
            let whole = encode::write_whole(&plans, &kept.group, kept.touched, &names);
            (kept.whole, kept.more) = (whole.len(), 0);
            Stored::Whole(whole)
        } else {
            kept.more += more.len();
            Stored::More(more)
        };
        work.records.insert(id, record);
        if !names.is_empty() {
            self.names.add(id, Named { correlation, touched: kept.touched, ids: names });
        }
        kept.bytes = kept.group.bytes();
        shelf.bytes += kept.bytes;
        shelf.order.insert((kept.touched, id));
        step.above
    }

    fn forget(&mut self, correlation: usize, work: &mut Work) -> bool {
        let Some((_, id)) = self.shelves[correlation].order.pop_first() else { return false };
        if let Some(kept) = self.groups.remove(&id) {
            self.shelves[correlation].bytes -= kept.bytes;
        }
        work.records.insert(id, Stored::Gone);
        true
    }

    /// Keeps the bounds of groups and bytes.
    fn bound(&mut self, work: &mut Work) {
        let limits = &self.plans.limits;
        let (groups_max, bytes_max) = (limits.groups_max, limits.bytes_max);
        for correlation in 0..self.shelves.len() {
            while self.shelves[correlation].order.len() > groups_max && self.forget(correlation, work) {
                self.counters.groups_evicted += 1;
            }
        }
        let mut bytes = self.bytes();
        if bytes <= bytes_max {
            return;
        }
        // More than needed goes, so that this is seldom.
        while bytes > bytes_max - bytes_max / 16 {
            let largest = (0..self.shelves.len()).max_by_key(|correlation| self.shelves[*correlation].bytes);
            let Some(largest) = largest else { return };
            let before = self.shelves[largest].bytes;
            if !self.forget(largest, work) {
                return;
            }
            self.counters.groups_evicted += 1;
            bytes -= before - self.shelves[largest].bytes;
        }
    }

    fn expire(&mut self, work: &mut Work) {
        let plans = self.plans.clone();
        for (correlation, plan) in plans.all().iter().enumerate() {
            let kept = plan.span.saturating_add(plan.lateness).saturating_add(plans.limits.idle_micros_max);
            let oldest = work.now.saturating_sub(kept);
            while self.shelves[correlation].order.first().is_some_and(|(touched, _)| *touched < oldest) {
                if !self.forget(correlation, work) {
                    break;
                }
                self.counters.groups_expired += 1;
            }
        }
        let oldest = |correlation| {
            let plan = plans.plan(correlation)?;
            let kept = plan.span.saturating_add(plan.lateness).saturating_add(plans.limits.idle_micros_max);
            Some(work.now.saturating_sub(kept))
        };
        for id in self.names.forget(|correlation, touched| oldest(correlation).is_none_or(|oldest| touched < oldest)) {
            if !self.groups.contains_key(&id) {
                work.records.insert(id, Stored::Gone);
            }
        }
    }

    /// Works by other rules from now on, and keeps the state of every correlation that means the same
    /// in both. What is stored stays as it is, except for groups that are gone. What members that are
    /// here already mean to correlations that are new is not known.
    pub fn reload(&mut self, plans: Arc<Plans>) -> Vec<Record> {
        let old = std::mem::replace(&mut self.plans, plans);
        let same = |plan: &Plan| self.plans.find(&plan.fingerprint);
        let places: Vec<Option<usize>> = old.all().iter().map(same).collect();
        self.shelves = vec![Shelf::default(); self.plans.len()];
        let mut gone = Vec::new();
        for (id, mut kept) in std::mem::take(&mut self.groups) {
            let Some(place) = places.get(kept.group.correlation).copied().flatten() else {
                gone.push(Record { group: id, stored: Stored::Gone });
                continue;
            };
            kept.group.correlation = place;
            kept.group.carried.change(|hits| moved(hits, &places));
            kept.bytes = kept.group.bytes();
            self.shelves[place].bytes += kept.bytes;
            self.shelves[place].order.insert((kept.touched, id));
            self.groups.insert(id, kept);
        }
        let unnamed = self.names.move_to(&places).into_iter().filter(|id| !self.groups.contains_key(id));
        gone.extend(unnamed.map(|group| Record { group, stored: Stored::Gone }));
        gone.sort_unstable_by_key(|record| record.group);
        gone.dedup_by_key(|record| record.group);
        gone
    }

    /// All state, as it is to be stored.
    pub fn snapshot(&self) -> Vec<Record> {
        let mut ids: Vec<u128> = self.groups.keys().copied().collect();
        ids.sort_unstable();
        let whole = |id: &u128| {
            let kept = self.groups.get(id)?;
            Some(Record {
                group: *id,
                stored: Stored::Whole(encode::write_whole(&self.plans, &kept.group, kept.touched, &self.names.of(*id))),
            })
        };
        ids.iter().filter_map(whole).collect()
    }

    /// Reads what is stored of a group, in the order in which it was stored. `false` where the
    /// correlation is not there any more, or means something else: what is stored can go.
    pub fn restore<'p>(&mut self, id: u128, parts: impl IntoIterator<Item = &'p [u8]>) -> Result<bool, StateError> {
        let plans = self.plans.clone();
        let mut kept: Option<Kept> = None;
        self.names.take(id);
        for bytes in parts {
            match encode::read(&plans, bytes)? {
                Part::Foreign => return Ok(false),
                Part::Whole { group, touched, named } => {
                    self.names.take(id);
                    if !named.is_empty() {
                        self.names.add(id, Named { correlation: group.correlation, touched, ids: named });
                    }
                    kept = Some(Kept { group: *group, touched, bytes: 0, whole: bytes.len(), more: 0 });
                }
                Part::Named(named) => self.names.add(id, named),
                Part::More { hits, floor, touched } => {
                    let kept = kept.as_mut().ok_or(StateError::Damaged)?;
                    let plan = plans.plan(kept.group.correlation).ok_or(StateError::Damaged)?;
                    kept.group.step(id, plan, hits, floor, &mut VecDeque::new());
                    self.names.take(id);
                    kept.touched = touched;
                    kept.more += bytes.len();
                }
            }
        }
        let Some(mut kept) = kept else { return Ok(self.names.has(id)) };
        let shelf = &mut self.shelves[kept.group.correlation];
        kept.bytes = kept.group.bytes();
        shelf.bytes += kept.bytes;
        shelf.order.insert((kept.touched, id));
        self.groups.insert(id, kept);
        Ok(true)
    }
}

/// A batch on its way.
struct Work {
    now: i64,
    /// Hits by the height of their correlation.
    levels: BTreeMap<usize, Vec<Hit>>,
    changes: Vec<Change>,
    records: BTreeMap<u128, Stored>,
    /// By group: its correlation, when it was touched, and the firings that begin.
    named: BTreeMap<u128, (usize, i64, Vec<u128>)>,
    elsewhere: Vec<Hit>,
}

impl Work {
    fn new(now: i64) -> Self {
        let (levels, records, named) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { now, levels, changes: Vec::new(), records, named, elsewhere: Vec::new() }
    }

    fn outcome(self, plans: &Plans) -> Outcome {
        let records = self.records.into_iter().map(|(group, stored)| Record { group, stored }).collect();
        let named = self.named.into_iter().filter(|(_, (.., ids))| !ids.is_empty());
        let named = named.map(|(group, (correlation, touched, ids))| Record {
            group,
            stored: Stored::More(encode::write_named(plans, correlation, touched, &ids)),
        });
        Outcome { changes: self.changes, records, named: named.collect(), elsewhere: self.elsewhere }
    }
}

fn change(kept: &Kept, correlation: usize, plan: &Plan, turn: &Turn, step: &Step) -> Change {
    let firing = |run: &Run| {
        let index = step.metrics.partition_point(|(anchor, _)| *anchor <= run.last);
        let judged = index.checked_sub(1).and_then(|index| step.metrics.get(index));
        Firing {
            id: run.id,
            correlation,
            key: kept.group.key.clone(),
            anchor: run.first,
            last: run.last,
            metric: judged.filter(|(anchor, _)| *anchor >= run.first).map(|(_, metric)| *metric),
            events: kept.group.events(plan, run.last, EVENTS_MAX),
        }
    };
    match turn {
        Turn::Opened(run) => Change::Opened(firing(run)),
        Turn::GoesOn(run) => Change::GoesOn(firing(run)),
        Turn::Moved(run) => Change::Moved(firing(run)),
        Turn::Merged { id, into } => Change::Merged { correlation, id: *id, into: *into },
        Turn::Withdrawn { id } => Change::Withdrawn { correlation, id: *id },
    }
}
