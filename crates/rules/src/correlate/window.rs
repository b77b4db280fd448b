//! What a window measures, kept up to date while it slides over the members.

use super::members::Members;
use super::number::{Metric, millionths};
use super::plan::{Plan, Test};
use super::ranks::Ranks;
use crate::sigma::correlation::Kind;
use std::collections::HashMap;

/// A window that slides forward; for all kinds but the temporal ones.
#[derive(Debug, Clone)]
pub(super) struct Window {
    state: State,
    /// The members it has, by index: `from..to`.
    from: usize,
    to: usize,
}

#[derive(Debug, Clone)]
enum State {
    Count,
    /// How often each value is in it.
    Distinct(HashMap<[u64; 2], u32>),
    Sum(i128),
    Sorted(Ranks),
}

impl Window {
    /// An empty window before the member with this index.
    pub fn new(kind: Kind, at: usize) -> Self {
        let state = match kind {
            Kind::EventCount | Kind::Temporal | Kind::TemporalOrdered => State::Count,
            Kind::ValueCount => State::Distinct(HashMap::new()),
            Kind::ValueSum | Kind::ValueAvg => State::Sum(0),
            Kind::ValuePercentile | Kind::ValueMedian => State::Sorted(Ranks::default()),
        };
        Self { state, from: at, to: at }
    }

    pub fn bytes(&self) -> usize {
        match &self.state {
            State::Count | State::Sum(_) => 0,
            State::Distinct(values) => values.capacity() * 25,
            State::Sorted(values) => values.bytes(),
        }
    }

    /// Takes the members of `from..=to` in and those before out; neither end moves back.
    pub fn slide(&mut self, members: &Members, from: i64, to: i64) {
        while self.to < members.len() && members.entry(self.to).time <= to {
            self.add(members, self.to);
            self.to += 1;
        }
        while self.from < self.to && members.entry(self.from).time < from {
            self.remove(members, self.from);
            self.from += 1;
        }
    }

    /// Gives back the members from this index on.
    pub fn give_back(&mut self, members: &Members, index: usize) {
        while self.to > index.max(self.from) {
            self.to -= 1;
            self.remove(members, self.to);
        }
    }

    /// Takes the oldest members out, so many of them, which are about to be gone. By number: those that
    /// stay can have the time of the newest of them. `false` where the window ended before them and does
    /// not fit any more.
    pub fn drop_oldest(&mut self, members: &Members, count: usize) -> bool {
        while self.from < self.to.min(count) {
            self.remove(members, self.from);
            self.from += 1;
        }
        self.shift(count)
    }

    /// The oldest members are gone, so many of them; `false` where it had one of those.
    pub fn shift(&mut self, dropped: usize) -> bool {
        let had = self.from < dropped;
        self.from = self.from.saturating_sub(dropped);
        self.to = self.to.saturating_sub(dropped);
        !had
    }

    fn add(&mut self, members: &Members, index: usize) {
        match &mut self.state {
            State::Count => {}
            State::Distinct(values) => *values.entry(members.entry(index).key).or_default() += 1,
            State::Sum(sum) => *sum += millionths(members.value(index)),
            State::Sorted(values) => values.add(members.value(index)),
        }
    }

    fn remove(&mut self, members: &Members, index: usize) {
        match &mut self.state {
            State::Count => {}
            State::Distinct(values) => {
                let key = members.entry(index).key;
                if let Some(count) = values.get_mut(&key) {
                    *count -= 1;
                    if *count == 0 {
                        values.remove(&key);
                    }
                }
            }
            State::Sum(sum) => *sum -= millionths(members.value(index)),
            State::Sorted(values) => values.remove(members.value(index)),
        }
    }

    /// The metric; the window has a member.
    pub fn metric(&self, plan: &Plan) -> Metric {
        let count = self.to - self.from;
        match &self.state {
            State::Count => Metric::count(count),
            State::Distinct(values) => Metric::count(values.len()),
            State::Sum(sum) if plan.kind == Kind::ValueSum => Metric { millionths: *sum, parts: 1 },
            State::Sum(sum) => Metric { millionths: *sum, parts: count.max(1) as i128 },
            State::Sorted(values) => percentile(values, plan.percentile),
        }
    }
}

/// Between the two values around the rank, in proportion.
fn percentile(values: &Ranks, percentile: u8) -> Metric {
    let rank = usize::from(percentile) * values.len().saturating_sub(1);
    let value = |index: usize| values.at(index).map_or(0, millionths);
    let (low, share) = (value(rank / 100), (rank % 100) as i128);
    let step = if share == 0 { 0 } else { value(rank / 100 + 1) - low };
    Metric { millionths: low * 100 + share * step, parts: 100 }
}

/// Which inputs occur, and in which order; for the temporal kinds. It sees the members in the order
/// of a time that grows: that of the events, or for windows that look forward the same mirrored.
/// Nothing has to be taken out: of what it keeps, that which is too old says so by its time.
#[derive(Debug, Clone)]
pub(super) struct Chains {
    /// When each input was last seen.
    last: Vec<i64>,
    order: Order,
}

#[derive(Debug, Clone)]
enum Order {
    Any,
    /// For each term, and each of its inputs in order: the latest beginning of a chain up to there.
    Terms(Vec<Vec<(usize, i64)>>),
    /// `starts[n][i]`: the latest beginning of a chain of `n + 1` inputs that ends with input `i`.
    Longest(Vec<Vec<i64>>),
}

const NEVER: i64 = i64::MIN;

impl Chains {
    pub fn new(plan: &Plan) -> Self {
        let inputs = plan.inputs;
        let order = match (&plan.test, plan.kind) {
            (Test::Terms(terms), _) => {
                let chain = |present: u64| {
                    let mut chain: Vec<_> =
                        (0..inputs).filter(|input| present & (1 << input) != 0).map(|input| (input, NEVER)).collect();
                    if plan.closing {
                        chain.reverse();
                    }
                    chain
                };
                Order::Terms(terms.iter().map(|term| chain(term.present)).collect())
            }
            (Test::Limits(_), Kind::TemporalOrdered) => Order::Longest(vec![vec![NEVER; inputs]; inputs]),
            (Test::Limits(_) | Test::Rules(_), _) => Order::Any,
        };
        Self { last: vec![NEVER; inputs], order }
    }

    pub fn bytes(&self) -> usize {
        let order = match &self.order {
            Order::Any => 0,
            Order::Terms(terms) => terms.iter().map(|term| term.len() * 16 + 24).sum(),
            Order::Longest(starts) => starts.len() * (starts.len() * 8 + 24),
        };
        self.last.len() * 8 + order
    }

    /// A member. Of equal times the inputs come in the order in which a chain may use them.
    pub fn see(&mut self, time: i64, input: usize, mirrored: bool) {
        if input >= self.last.len() {
            return;
        }
        self.last[input] = time;
        match &mut self.order {
            Order::Any => {}
            Order::Terms(terms) => {
                for chain in terms {
                    if let Some(at) = chain.iter().position(|(other, _)| *other == input) {
                        let start = if at == 0 { time } else { chain[at - 1].1 };
                        chain[at].1 = chain[at].1.max(start);
                    }
                }
            }
            Order::Longest(starts) => {
                for length in 0..starts.len() {
                    let start = if length == 0 {
                        time
                    } else {
                        let shorter = &starts[length - 1];
                        let before = if mirrored { &shorter[input + 1..] } else { &shorter[..input] };
                        before.iter().copied().max().unwrap_or(NEVER)
                    };
                    starts[length][input] = starts[length][input].max(start);
                }
            }
        }
    }

    /// Whether the window that begins at `from` and ends with the last member seen holds, and how
    /// many inputs it counts.
    pub fn holds(&self, plan: &Plan, from: i64) -> (bool, Metric) {
        let occurs = |since: i64| since != NEVER && since >= from;
        let bits = self.last.iter().enumerate().filter(|(_, last)| occurs(**last));
        let present = bits.fold(0_u64, |bits, (input, _)| bits | 1 << input);
        let count = Metric::count(present.count_ones() as usize);
        match (&plan.test, &self.order) {
            (Test::Terms(terms), Order::Terms(chains)) => {
                let whole = |chain: &Vec<(usize, i64)>| chain.last().is_none_or(|(_, start)| occurs(*start));
                let holds = terms.iter().zip(chains).any(|(term, chain)| present & term.absent == 0 && whole(chain));
                (holds, count)
            }
            (Test::Limits(limits), Order::Longest(starts)) => {
                let reached = |ends: &&Vec<i64>| ends.iter().any(|start| occurs(*start));
                let longest = Metric::count(starts.iter().take_while(reached).count());
                (limits.iter().all(|limit| limit.met(longest)), longest)
            }
            (Test::Rules(expr), _) => (expr.holds(present), count),
            (Test::Limits(limits), _) => (limits.iter().all(|limit| limit.met(count)), count),
            (Test::Terms(_), Order::Any | Order::Longest(_)) => (false, count),
        }
    }
}
