//! One group of one correlation. What it is depends only on the hits it was given and where they were
//! cut into steps; how a hit too late is treated is the only thing that the cuts decide.

use super::carried::Carried;
use super::hit::{Hit, Value, firing_id, halves, whole};
use super::members::{Entry, Members};
use super::number::Metric;
use super::plan::{Plan, Test};
use super::runs::{self, Judged, Run, Turn};
use super::window::{Chains, Window};
use crate::sigma::correlation::Kind;
use std::collections::{HashSet, VecDeque};

/// Names a firing that begins, by its anchor.
type Mint<'m> = dyn FnMut(i64, u32) -> u128 + 'm;

/// The state.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub correlation: usize,
    pub key: Box<[Box<str>]>,
    pub members: Members,
    /// Members before this time come too late.
    pub floor: i64,
    /// The newest anchor that is settled: before the floor, or for closing conditions judged.
    pub settled: Option<i64>,
    /// Those that can still change, and the last before.
    pub runs: Vec<Run>,
    /// What members mean to higher correlations if this one holds at them; by time, then event.
    pub carried: Carried,
    /// How many thinned members there were after the last thinning.
    pub thinned: usize,
    sight: Sight,
}

/// What is kept to look at the next event without looking at all others again.
#[derive(Debug, Clone, Default)]
enum Sight {
    #[default]
    None,
    Window(Window),
    /// With the time of the last member seen.
    Chains(Chains, i64),
}

/// What a step led to.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub turns: Vec<Turn>,
    /// Metrics at anchors that were judged now.
    pub metrics: Vec<(i64, f64)>,
    /// Hits for higher correlations.
    pub above: Vec<Hit>,
    pub late: u64,
    pub repeated: u64,
    pub dropped: u64,
}

/// What a group costs beside itself: its places in the maps around it, with the room that those keep
/// free, and what an allocator adds to each of its pieces. As `make bench-rules` measures.
const AROUND: usize = 320;

impl Group {
    pub fn new(correlation: usize, key: Box<[Box<str>]>) -> Self {
        Self {
            correlation,
            key,
            members: Members::default(),
            floor: i64::MIN,
            settled: None,
            runs: Vec::new(),
            carried: Carried::default(),
            thinned: 0,
            sight: Sight::None,
        }
    }

    /// An estimate.
    pub fn bytes(&self) -> usize {
        let sight = match &self.sight {
            Sight::None => 0,
            Sight::Window(window) => window.bytes(),
            Sight::Chains(chains, _) => chains.bytes(),
        };
        let key: usize = self.key.iter().map(|text| text.len() + size_of::<Box<str>>()).sum();
        size_of::<Self>()
            + AROUND
            + key
            + self.members.bytes()
            + self.runs.capacity() * size_of::<Run>()
            + self.carried.bytes()
            + sight
    }

    /// Whether nothing is known that could matter to events at or after the floor.
    pub fn idle(&self) -> bool {
        self.members.len() == 0 && self.carried.is_empty()
    }

    /// Takes hits in, and then time: `floor` is the least that the floor shall be. Firings that begin
    /// take their names from `names`, as long as there are some.
    pub fn step(
        &mut self,
        id: u128,
        plan: &Plan,
        hits: Vec<Hit>,
        floor: Option<i64>,
        names: &mut VecDeque<u128>,
    ) -> Step {
        let mut mint = |anchor, salt| names.pop_front().unwrap_or_else(|| firing_id(id, anchor, salt));
        let mut step = Step::default();
        let touched = self.take(plan, hits, &mut step);
        if let Some((first, last)) = touched
            && !plan.closing
        {
            self.judge_back(&mut mint, plan, first, last.saturating_add(plan.span), &mut step);
            if !plan.wavers() {
                self.tell(first, last.saturating_add(plan.span), &mut step);
            }
        }
        let newest = touched.map(|(_, last)| last.saturating_sub(plan.lateness));
        let floor = newest.into_iter().chain(floor).max().filter(|floor| *floor > self.floor);
        if let Some(floor) = floor {
            self.floor = floor;
            if plan.closing {
                self.judge_forward(&mut mint, plan, floor.saturating_sub(plan.span), &mut step);
            } else {
                if plan.wavers() && plan.heard {
                    self.tell(i64::MIN, floor.saturating_sub(1), &mut step);
                }
                self.settle_back(plan);
            }
        }
        self.bound(plan, &mut step);
        step
    }

    /// The stretch of times that changed.
    fn take(&mut self, plan: &Plan, hits: Vec<Hit>, step: &mut Step) -> Option<(i64, i64)> {
        if let Some(first) = hits.iter().map(|hit| hit.time).filter(|time| *time >= self.floor).min()
            && !plan.closing
        {
            self.reopen(first);
        }
        let mut touched: Option<(i64, i64)> = None;
        for hit in hits {
            if hit.time < self.floor {
                step.late += 1;
                continue;
            }
            let (key, value) = match (hit.value, plan.kind) {
                (_, Kind::Temporal | Kind::TemporalOrdered) => ([hit.input as u64, 0], None),
                (Value::Digest(digest), _) => (digest, None),
                (Value::Number(number), _) => (halves(hit.event), Some(number)),
                (Value::None, _) => (halves(hit.event), None),
            };
            let fresh = self.members.insert(Entry { time: hit.time, key }, value);
            step.repeated += u64::from(!fresh);
            if !fresh && hit.above.is_empty() {
                continue;
            }
            touched = Some(touched.map_or((hit.time, hit.time), |(a, b)| (a.min(hit.time), b.max(hit.time))));
            if !hit.above.is_empty() {
                self.carried.add(hit.time, hit.event, hit.above);
            }
        }
        touched
    }

    /// Prepares what is seen for members from `time` on.
    fn reopen(&mut self, time: i64) {
        let Some(newest) = self.newest() else {
            self.sight = Sight::None;
            return;
        };
        if time < newest {
            self.sight = Sight::None;
        } else if let Sight::Window(window) = &mut self.sight {
            // Members of one time are sorted among each other, so those at the newest are seen anew.
            window.give_back(&self.members, self.members.lower(newest));
        } else if let Sight::Chains(_, seen) = &mut self.sight {
            *seen = newest - 1;
        }
    }

    fn newest(&self) -> Option<i64> {
        self.members.len().checked_sub(1).map(|last| self.members.entry(last).time)
    }

    /// Judges the anchors of `first..=last` by the windows that end at them.
    fn judge_back(&mut self, mint: &mut Mint<'_>, plan: &Plan, first: i64, last: i64, step: &mut Step) {
        let mut index = self.members.lower(first);
        let sight = std::mem::take(&mut self.sight);
        let mut sight = match sight {
            Sight::None if plan.kind.temporal() => {
                Sight::Chains(Chains::new(plan), first.saturating_sub(plan.span).saturating_sub(1))
            }
            Sight::None => Sight::Window(Window::new(plan.kind, self.members.lower(first.saturating_sub(plan.span)))),
            sight @ (Sight::Window(_) | Sight::Chains(..)) => sight,
        };
        let mut anchors = Vec::new();
        while index < self.members.len() {
            let anchor = self.members.entry(index).time;
            if anchor > last {
                break;
            }
            let from = anchor.saturating_sub(plan.span);
            let (holds, metric) = match &mut sight {
                Sight::Window(window) => {
                    window.slide(&self.members, from, anchor);
                    let metric = window.metric(plan);
                    (limits_met(plan, metric), metric)
                }
                Sight::Chains(chains, seen) => {
                    let mut at = self.members.lower(seen.saturating_add(1));
                    while at < self.members.len() && self.members.entry(at).time <= anchor {
                        let entry = self.members.entry(at);
                        chains.see(entry.time, input_of(entry), false);
                        at += 1;
                    }
                    *seen = anchor;
                    chains.holds(plan, from)
                }
                Sight::None => (false, Metric::count(0)),
            };
            anchors.push((anchor, holds));
            step.metrics.push((anchor, metric.as_f64()));
            while index < self.members.len() && self.members.entry(index).time == anchor {
                index += 1;
            }
        }
        // It is of use only if it has seen everything.
        self.sight = if index == self.members.len() { sight } else { Sight::None };
        let before = self.members.before(first).max(self.settled);
        let after = self.members.after(last);
        self.turn(mint, plan, &anchors, before, after, step);
    }

    fn turn(
        &mut self,
        mint: &mut Mint<'_>,
        plan: &Plan,
        anchors: &[(i64, bool)],
        before: Option<i64>,
        after: Option<i64>,
        step: &mut Step,
    ) {
        let judged = Judged { anchors, before, after, span: plan.span };
        let turns = runs::update(&mut self.runs, &judged, mint);
        step.turns.extend(turns);
    }

    /// Hands what is carried at anchors of `first..=last` up where it holds.
    fn tell(&mut self, first: i64, last: i64, step: &mut Step) {
        let runs = &self.runs;
        self.carried.take(first, last, |time| runs::holds_at(runs, time), &mut step.above);
    }

    /// Judges the anchors before `end` by the windows that begin at them: those are over.
    fn judge_forward(&mut self, mint: &mut Mint<'_>, plan: &Plan, end: i64, step: &mut Step) {
        let count = self.members.lower(end);
        if count == 0 {
            return;
        }
        let mut anchors: Vec<(i64, bool)> = Vec::new();
        if plan.kind.temporal() {
            let mut chains = Chains::new(plan);
            for index in (0..self.members.len()).rev() {
                let entry = self.members.entry(index);
                let newest_of_anchor = index == 0 || self.members.entry(index - 1).time < entry.time;
                chains.see(-entry.time, input_of(entry), true);
                if index < count && newest_of_anchor {
                    let (holds, metric) = chains.holds(plan, (-entry.time).saturating_sub(plan.span));
                    anchors.push((entry.time, holds));
                    step.metrics.push((entry.time, metric.as_f64()));
                }
            }
            anchors.reverse();
            step.metrics.reverse();
        } else {
            let sight = std::mem::take(&mut self.sight);
            let mut window = match sight {
                Sight::Window(window) => window,
                Sight::None | Sight::Chains(..) => Window::new(plan.kind, 0),
            };
            let mut index = 0;
            while index < count {
                let anchor = self.members.entry(index).time;
                window.slide(&self.members, anchor, anchor.saturating_add(plan.span));
                let metric = window.metric(plan);
                anchors.push((anchor, limits_met(plan, metric)));
                step.metrics.push((anchor, metric.as_f64()));
                while index < count && self.members.entry(index).time == anchor {
                    index += 1;
                }
            }
            // The windows to come begin behind these, and end behind what this one has.
            window.slide(&self.members, end, i64::MIN);
            window.shift(count);
            self.sight = Sight::Window(window);
        }
        self.turn(mint, plan, &anchors, self.settled, None, step);
        if plan.heard {
            self.tell(i64::MIN, end.saturating_sub(1), step);
            self.carried.forget(end);
        }
        self.settled = anchors.last().map(|(anchor, _)| *anchor).or(self.settled);
        self.members.drop_oldest(count);
        let oldest = self.settled.unwrap_or(i64::MIN);
        self.runs.retain(|run| run.last >= oldest);
    }

    /// Forgets what cannot matter to anchors at or after the floor.
    fn settle_back(&mut self, plan: &Plan) {
        self.settled = self.members.before(self.floor).max(self.settled);
        let oldest = self.settled.unwrap_or(i64::MIN);
        self.runs.drain(..self.runs.partition_point(|run| run.last < oldest));
        self.carried.forget(self.floor);
        let mut gone = self.members.lower(self.floor.saturating_sub(plan.span));
        let settled = self.members.lower(self.floor);
        if let (Kind::EventCount, Some(enough)) = (plan.kind, plan.enough) {
            gone = gone.max(settled.saturating_sub(enough.max(plan.kept_min)));
        }
        self.drop_oldest(gone);
        let settled = settled - gone;
        if settled > plan.kept_min.max(self.thinned * 2) {
            self.thin(plan, settled);
        }
    }

    fn drop_oldest(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        if let Sight::Window(window) = &mut self.sight
            && !window.drop_oldest(&self.members, count)
        {
            self.sight = Sight::None;
        }
        self.members.drop_oldest(count);
        self.thinned = self.thinned.saturating_sub(count);
    }

    /// Drops settled members for which a newer one does as well: windows to come that have the older
    /// have the newer too.
    fn thin(&mut self, plan: &Plan, settled: usize) {
        let dropped = match plan.kind {
            Kind::ValueCount => {
                // A window that reaches behind enough different values has those.
                let most = plan.enough.map_or(usize::MAX, |enough| enough.max(plan.kept_min));
                let mut seen = HashSet::with_capacity(settled.min(most));
                self.members.thin(settled, |entry| seen.len() < most && seen.insert(entry.key))
            }
            Kind::Temporal => {
                let mut seen = 0_u64;
                self.members.thin(settled, |entry| {
                    let fresh = seen & (1 << input_of(entry)) == 0;
                    seen |= 1 << input_of(entry);
                    fresh
                })
            }
            // A chain through one of several members of an input, with none of another between them,
            // goes as well through the newest of them.
            Kind::TemporalOrdered => {
                let mut newer: Option<Entry> = None;
                self.members.thin(settled, |entry| newer.replace(entry).is_none_or(|newer| newer.key != entry.key))
            }
            Kind::EventCount | Kind::ValueSum | Kind::ValueAvg | Kind::ValuePercentile | Kind::ValueMedian => 0,
        };
        self.thinned = settled - dropped;
        if dropped > 0 && matches!(self.sight, Sight::Window(_)) {
            self.sight = Sight::None;
        }
    }

    /// Keeps the bounds of members and of what is carried.
    fn bound(&mut self, plan: &Plan, step: &mut Step) {
        if self.members.len() > plan.members_max && !plan.closing {
            self.thin(plan, self.members.lower(self.floor));
        }
        let over = self.members.len().saturating_sub(plan.members_max);
        if over > 0 {
            // More than needed goes, so that the next event has room.
            let count = over + plan.members_max / 16;
            let last = self.members.entry(count.min(self.members.len()) - 1).time;
            let count = self.members.lower(last.saturating_add(1));
            step.dropped += count as u64;
            self.settled = self.settled.max(Some(last));
            self.drop_oldest(count);
            self.floor = self.floor.max(last.saturating_add(1));
            if plan.closing {
                self.sight = Sight::None;
            }
            self.runs.retain(|run| run.last >= last);
            self.carried.forget(self.floor);
        }
        step.dropped += self.carried.shorten(plan.members_max);
    }

    /// The events of the window that ends with an anchor, the newest first; of kinds that know them,
    /// and of conditions that do not wait until they are gone.
    pub fn events(&self, plan: &Plan, anchor: i64, most: usize) -> Vec<u128> {
        if plan.closing {
            return Vec::new();
        }
        match plan.kind {
            Kind::ValueCount | Kind::Temporal | Kind::TemporalOrdered => Vec::new(),
            Kind::EventCount | Kind::ValueSum | Kind::ValueAvg | Kind::ValuePercentile | Kind::ValueMedian => {
                let from = self.members.lower(anchor.saturating_sub(plan.span));
                let range = from..self.members.lower(anchor.saturating_add(1));
                range.rev().take(most).map(|index| whole(self.members.entry(index).key)).collect()
            }
        }
    }
}

fn input_of(entry: Entry) -> usize {
    entry.key[0] as usize
}

fn limits_met(plan: &Plan, metric: Metric) -> bool {
    match &plan.test {
        Test::Limits(limits) => limits.iter().all(|limit| limit.met(metric)),
        Test::Rules(_) | Test::Terms(_) => false,
    }
}
