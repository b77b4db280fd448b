//! Correlations, ready to be worked: what an event that a rule matched means to each of them.

use super::hit::{Hit, TIME_MAX, Value, group_id, moved, short, value_digest};
use super::number::{Limit, number};
use crate::sigma::Collection;
use crate::sigma::correlation::{Condition, Correlation, Expr, Kind, Target, Term};
use model::Fields;
use sha2::{Digest, Sha256};
use std::collections::HashMap;

/// Bounds of what is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// How far behind its group's newest event an event may be and still count, in microseconds.
    pub lateness_micros: i64,
    /// How far ahead of the caller's `now` an event may be, in microseconds; others do not count, as
    /// one forged time would make all honest events late.
    pub ahead_micros_max: i64,
    /// Most groups of one correlation; the group that was touched longest ago goes first.
    pub groups_max: usize,
    /// Most members of a group; beyond, the oldest go first. A correlation that counts to more keeps
    /// as many as it needs.
    pub members_max: usize,
    /// Of what could be thinned, so many members are kept all the same, so that metrics for people
    /// are not understated without need.
    pub kept_min: usize,
    /// Most bytes of all groups, as estimated; groups of the largest correlation go first.
    pub bytes_max: usize,
    /// How long a group that nobody touches is kept beyond its window and lateness, in microseconds.
    pub idle_micros_max: i64,
}

impl Default for Limits {
    /// Five minutes late, five ahead; 100,000 groups of at most 200,000 members; 256 MiB; an hour idle.
    fn default() -> Self {
        const MINUTE: i64 = 60_000_000;
        Self {
            lateness_micros: 5 * MINUTE,
            ahead_micros_max: 5 * MINUTE,
            groups_max: 100_000,
            members_max: 200_000,
            kept_min: 128,
            bytes_max: 256 << 20,
            idle_micros_max: 60 * MINUTE,
        }
    }
}

impl Limits {
    /// For what is no stream, files and kept events: an event counts however late or early it comes.
    pub fn for_history() -> Self {
        Self { lateness_micros: i64::MAX / 8, ahead_micros_max: i64::MAX / 8, ..Self::default() }
    }
}

/// All correlations of a collection.
#[derive(Debug, Clone)]
pub struct Plans {
    plans: Vec<Plan>,
    /// By rule: the correlations that it feeds.
    routes: Vec<Vec<Route>>,
    by_fingerprint: HashMap<[u8; 16], usize>,
    pub(super) limits: Limits,
}

/// One correlation.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub kind: Kind,
    pub closing: bool,
    pub span: i64,
    pub percentile: u8,
    pub inputs: usize,
    pub test: Test,
    /// How late an event may be: more where lower correlations take their time.
    pub lateness: i64,
    pub members_max: usize,
    pub kept_min: usize,
    /// The count at which the answer cannot change any more, where there is one.
    pub enough: Option<usize>,
    /// 1, or more than the highest below.
    pub height: usize,
    /// Whether another correlation listens to it.
    pub heard: bool,
    /// Changes with everything that decides what it means; state of another meaning is not used.
    pub fingerprint: [u8; 16],
}

/// When a window holds.
#[derive(Debug, Clone)]
pub(super) enum Test {
    Limits(Vec<Limit>),
    Rules(Expr),
    /// For `temporal_ordered`: any of these, its inputs in order.
    Terms(Vec<Term>),
}

impl Plan {
    /// Whether an anchor that held can stop holding when more members come late.
    pub fn wavers(&self) -> bool {
        self.kind.numeric() && !self.closing
    }
}

/// From an event to a group of one correlation, and on to those that listen to it.
#[derive(Debug, Clone)]
struct Route {
    correlation: usize,
    input: usize,
    group_fields: Vec<String>,
    value_fields: Vec<String>,
    above: Vec<Route>,
}

/// Events that were no members, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lacking {
    /// A field of `group-by` has no value.
    pub group: u64,
    /// The field that counts has no value, or none that is a number.
    pub value: u64,
}

/// The event that a rule matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    pub id: u128,
    /// Event time in microseconds.
    pub time: i64,
}

impl Plans {
    pub fn compile(collection: &Collection, limits: Limits) -> Self {
        let correlations = &collection.correlations;
        let mut plans: Vec<Plan> =
            correlations.iter().map(|correlation| plan(collection, correlation, &limits)).collect();
        for input in correlations.iter().flat_map(|correlation| &correlation.inputs) {
            if let Target::Correlation(lower) = input.target {
                plans[lower].heard = true;
            }
        }
        // The collection has no circles, so this many rounds settle it.
        for _ in 0..crate::sigma::correlation::CHAIN_MAX {
            for (upper, correlation) in correlations.iter().enumerate() {
                for input in &correlation.inputs {
                    if let Target::Correlation(lower) = input.target {
                        let below = &plans[lower];
                        let delay = match (below.closing, below.wavers()) {
                            (true, _) => below.span.saturating_add(limits.lateness_micros),
                            (false, true) => limits.lateness_micros,
                            (false, false) => 0,
                        };
                        let (height, lateness) = (below.height + 1, below.lateness.saturating_add(delay));
                        let plan = &mut plans[upper];
                        plan.height = plan.height.max(height);
                        plan.lateness = plan.lateness.max(lateness);
                    }
                }
            }
        }
        let mut listeners: Vec<Vec<(usize, usize)>> = vec![Vec::new(); correlations.len()];
        let mut first: Vec<Vec<(usize, usize)>> = vec![Vec::new(); collection.rules.len()];
        for (upper, correlation) in correlations.iter().enumerate() {
            for (at, input) in correlation.inputs.iter().enumerate() {
                match input.target {
                    Target::Rule(rule) => first[rule].push((upper, at)),
                    Target::Correlation(lower) => listeners[lower].push((upper, at)),
                }
            }
        }
        let all = first.iter().map(|feeds| {
            let one = |(correlation, input): &(usize, usize)| {
                route(correlations, &listeners, &mut vec![(*correlation, *input)])
            };
            feeds.iter().map(one).collect()
        });
        let by_fingerprint = plans.iter().enumerate().map(|(index, plan)| (plan.fingerprint, index)).collect();
        Self { routes: all.collect(), plans, by_fingerprint, limits }
    }

    /// How many correlations there are; their indices are those of the collection.
    pub fn len(&self) -> usize {
        self.plans.len()
    }

    pub fn is_empty(&self) -> bool {
        self.plans.is_empty()
    }

    pub(super) fn plan(&self, correlation: usize) -> Option<&Plan> {
        self.plans.get(correlation)
    }

    pub(super) fn all(&self) -> &[Plan] {
        &self.plans
    }

    /// The correlation whose state has this fingerprint.
    pub(super) fn find(&self, fingerprint: &[u8; 16]) -> Option<usize> {
        self.by_fingerprint.get(fingerprint).copied()
    }

    /// Whether a match of this rule is of interest at all.
    pub fn listens(&self, rule: usize) -> bool {
        self.routes.get(rule).is_some_and(|routes| !routes.is_empty())
    }

    /// What it means that a rule (by its index in the collection) matched an event: hits are added
    /// to `out`.
    pub fn hits(&self, rule: usize, event: Event, fields: &Fields<'_>, out: &mut Vec<Hit>, lacking: &mut Lacking) {
        self.hits_of(rule, event, fields, &|_| true, out, lacking);
    }

    /// The same where only some correlations are told: those that are not hear nothing, and tell those
    /// above them nothing.
    pub fn hits_of(
        &self,
        rule: usize,
        event: Event,
        fields: &Fields<'_>,
        told: &dyn Fn(usize) -> bool,
        out: &mut Vec<Hit>,
        lacking: &mut Lacking,
    ) {
        for route in self.routes.get(rule).into_iter().flatten() {
            out.extend(self.hit(route, event, fields, told, lacking));
        }
    }

    /// Gives hits that were made by other plans the places of these. Those of correlations that are not
    /// here, or mean something else here, go.
    pub fn adopt(&self, others: &Self, hits: &mut Vec<Hit>) {
        let places: Vec<Option<usize>> = others.plans.iter().map(|plan| self.find(&plan.fingerprint)).collect();
        moved(hits, &places);
    }

    fn hit(
        &self,
        route: &Route,
        event: Event,
        fields: &Fields<'_>,
        told: &dyn Fn(usize) -> bool,
        lacking: &mut Lacking,
    ) -> Option<Hit> {
        if !told(route.correlation) {
            return None;
        }
        let plan = &self.plans[route.correlation];
        let key: Option<Vec<&str>> = route.group_fields.iter().map(|field| fields.first(field)).collect();
        let Some(key) = key else {
            lacking.group += 1;
            return None;
        };
        let values: Option<Vec<&str>> = route.value_fields.iter().map(|field| fields.first(field)).collect();
        let value = match (plan.kind, values.as_deref()) {
            (Kind::EventCount | Kind::Temporal | Kind::TemporalOrdered, _) => Some(Value::None),
            (_, None) => None,
            (Kind::ValueCount, Some(values)) => Some(Value::Digest(value_digest(values))),
            (Kind::ValueSum | Kind::ValueAvg | Kind::ValuePercentile | Kind::ValueMedian, Some(values)) => {
                values.first().and_then(|text| number(text)).map(Value::Number)
            }
        };
        let Some(value) = value else {
            lacking.value += 1;
            return None;
        };
        Some(Hit {
            correlation: route.correlation,
            input: route.input,
            event: event.id,
            time: event.time.clamp(-TIME_MAX, TIME_MAX),
            group: group_id(&plan.fingerprint, &key),
            key: key.into_iter().map(short).collect(),
            value,
            above: route.above.iter().filter_map(|route| self.hit(route, event, fields, told, lacking)).collect(),
        })
    }
}

/// The route to the last of the path, whose first input is a rule, and on to its listeners.
fn route(correlations: &[Correlation], listeners: &[Vec<(usize, usize)>], path: &mut Vec<(usize, usize)>) -> Route {
    let (correlation, input) = path.last().copied().unwrap_or_default();
    let own = &correlations[correlation].inputs[input];
    let below = &path[..path.len().saturating_sub(1)];
    // Through the aliases of the lower correlations, down to the event.
    let field = |name: &String| {
        let down = below.iter().rev();
        down.fold(name.as_str(), |name, (lower, at)| correlations[*lower].inputs[*at].field(name)).to_owned()
    };
    let group_fields = own.group_fields.iter().map(field).collect();
    let value_fields = own.value_fields.iter().map(field).collect();
    let mut above = Vec::with_capacity(listeners[correlation].len());
    for next in &listeners[correlation] {
        path.push(*next);
        above.push(route(correlations, listeners, path));
        path.pop();
    }
    Route { correlation, input, group_fields, value_fields, above }
}

fn plan(collection: &Collection, correlation: &Correlation, limits: &Limits) -> Plan {
    let closing = correlation.closing();
    let test = match (&correlation.condition, correlation.kind) {
        (Condition::Compare(bounds), _) => Test::Limits(bounds.iter().copied().map(Limit::new).collect()),
        (Condition::Rules(expr), Kind::TemporalOrdered) => Test::Terms(expr.terms().unwrap_or_default()),
        (Condition::Rules(expr), _) => Test::Rules(expr.clone()),
    };
    let counts = matches!(correlation.kind, Kind::EventCount | Kind::ValueCount);
    let enough = match &test {
        Test::Limits(limits) if counts && !closing => {
            limits.iter().map(|limit| limit.least_count()).max().map(|most| most.max(1))
        }
        Test::Limits(_) | Test::Rules(_) | Test::Terms(_) => None,
    };
    Plan {
        kind: correlation.kind,
        closing,
        span: correlation.timespan.micros,
        percentile: correlation.percentile,
        inputs: correlation.inputs.len(),
        lateness: limits.lateness_micros,
        members_max: limits.members_max.max(enough.unwrap_or(0).saturating_mul(2)).max(2),
        kept_min: limits.kept_min,
        enough,
        height: 1,
        heard: false,
        fingerprint: fingerprint(collection, correlation, 0),
        test,
    }
}

fn fingerprint(collection: &Collection, correlation: &Correlation, depth: usize) -> [u8; 16] {
    let mut hash = Sha256::new();
    let mut text = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    };
    text(&correlation.header.uid);
    text(correlation.kind.as_str());
    text(&format!("{} {}", correlation.percentile, correlation.timespan.micros));
    match &correlation.condition {
        Condition::Compare(bounds) => {
            bounds.iter().for_each(|bound| text(&format!("{} {}", bound.op.as_str(), bound.value)));
        }
        Condition::Rules(expr) => text(&written(expr)),
    }
    for input in &correlation.inputs {
        match input.target {
            Target::Rule(rule) => {
                text("rule");
                text(collection.rules.get(rule).map_or("", |rule| &rule.header.uid));
            }
            Target::Correlation(lower) => {
                text("correlation");
                if let Some(lower) = collection.correlations.get(lower).filter(|_| depth < 16) {
                    text(&format!("{:02x?}", fingerprint(collection, lower, depth + 1)));
                }
            }
        }
        input.group_fields.iter().chain(&input.value_fields).for_each(|field| text(field));
        input.aliases.iter().for_each(|(name, field)| {
            text(name);
            text(field);
        });
    }
    first_half(&hash.finalize())
}

pub(super) fn first_half(digest: &[u8]) -> [u8; 16] {
    let mut half = [0; 16];
    half.iter_mut().zip(digest).for_each(|(to, from)| *to = *from);
    half
}

fn written(expr: &Expr) -> String {
    let all = |parts: &[Expr]| parts.iter().map(written).collect::<Vec<_>>().join(" ");
    match expr {
        Expr::Input(input) => input.to_string(),
        Expr::All(parts) => format!("(and {})", all(parts)),
        Expr::Any(parts) => format!("(or {})", all(parts)),
        Expr::Not(part) => format!("(not {})", written(part)),
    }
}
