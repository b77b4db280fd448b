//! The hunt in stored events: oldest first, in slices, by the streaming engine or by the rules' SQL.
//!
//! Both tell the same ([`Sink`]): matches of each slice in the order of the events, then of the rules;
//! firings of correlations when nothing more can change them, at the end at the latest. Memory and disk
//! are bounded whatever the length of history: where too many events match what correlations look at, the
//! oldest firings are told before the end, and an event that comes more than an hour late is counted
//! instead of correlated from then on; where that is not enough, the hunt says so and ends.

use anyhow::{Result, bail};
use fields::Aliases;
use model::{EventId, Fields, OrgId, Timestamp};
use pipeline::codec;
use pipeline::history::{Bounds, Fired, History, NoSql, Questions, Slices, flattened};
use rules::correlate::{Change, Correlator, Event, Hit, Lacking, Limits, Plans, Share};
use rules::sigma::Collection;
use rules::sql::correlation::Between;
use rules::stream::{Engine, Scratch};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use storage::events::{EventStore, StoredEvent};

/// Members that SQL keeps on disk before the oldest firings are told, some 300 bytes each.
const MEMBERS_MAX: u64 = 2_000_000;
/// The same of the stream, in memory.
const HITS_MAX: usize = 2_000_000;
/// How late an event may be and still count, once there are that many.
const LATE_MICROS: i64 = 3_600_000_000;
/// Far from both ends of 64 bits, so that timespans can be added.
const EVER: i64 = i64::MAX / 4;

/// How rules are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Via {
    /// The streaming engine and its correlations
    Stream,
    /// The rules' SQL
    Sqlite,
}

/// Who is told what is found.
pub trait Sink: Send + 'static {
    /// A rule, by its place in the collection, matches an event.
    fn matched(&mut self, rule: usize, event: &StoredEvent);
    /// A correlation, by its place in the collection, fires.
    fn fired(&mut self, correlation: usize, fired: &Fired);
}

/// Which events.
#[derive(Debug, Clone)]
pub struct Stretch {
    pub org: OrgId,
    pub from: Timestamp,
    pub to: Timestamp,
}

/// How it went.
#[derive(Debug, Clone, Copy, Default)]
pub struct Told {
    pub events: u64,
    /// Events that came too late to be correlated.
    pub late: u64,
}

/// A hunt that is going on.
pub struct Hunter<S> {
    how: How,
    sink: S,
    told: Told,
    /// Events of a slice, about.
    slice_events: usize,
}

/// Events of a slice: enough that asking each rule costs little beside reading them.
const SLICE_EVENTS: usize = 5_000;

enum How {
    Stream(Box<ByStream>),
    Sqlite(Box<BySql>),
}

impl<S: Sink> Hunter<S> {
    pub fn new(collection: &Collection, aliases: Arc<Aliases>, via: Via, sink: S) -> Result<(Self, Vec<NoSql>)> {
        let (how, left_out) = match via {
            Via::Stream => (How::Stream(Box::new(ByStream::new(collection, aliases))), Vec::new()),
            Via::Sqlite => {
                let (questions, left_out) = Questions::compile(collection, |_| true);
                (How::Sqlite(Box::new(BySql::new(Arc::new(questions), aliases, MEMBERS_MAX)?)), left_out)
            }
        };
        Ok((Self { how, sink, told: Told::default(), slice_events: SLICE_EVENTS }, left_out))
    }

    /// Asks all of them of all events; `progress` hears of each slice.
    pub async fn run(
        mut self,
        store: &dyn EventStore,
        stretch: Stretch,
        mut progress: impl FnMut(&Told, Timestamp),
    ) -> Result<(S, Told)> {
        let mut slices = Slices::new(stretch.org, stretch.from, stretch.to, self.slice_events);
        while let Some(slice) = slices.next(store).await? {
            let through = slice.through;
            self = tokio::task::spawn_blocking(move || self.slice(&slice.events).map(|()| self)).await??;
            progress(&self.told, through);
        }
        tokio::task::spawn_blocking(move || self.finish()).await?
    }

    fn slice(&mut self, events: &[StoredEvent]) -> Result<()> {
        self.told.events += events.len() as u64;
        match &mut self.how {
            How::Stream(stream) => stream.slice(events, &mut self.sink),
            How::Sqlite(sql) => sql.slice(events, &mut self.sink, &mut self.told),
        }
    }

    fn finish(mut self) -> Result<(S, Told)> {
        match &mut self.how {
            How::Stream(stream) => stream.finish(&mut self.sink),
            How::Sqlite(sql) => sql.settle(EVER, &mut self.sink)?,
        }
        Ok((self.sink, self.told))
    }
}

/// A correlation, one of its groups, and an anchor there.
type Anchor = (usize, Box<[Box<str>]>, i64);

struct ByStream {
    aliases: Arc<Aliases>,
    engine: Engine,
    plans: Arc<Plans>,
    scratch: Scratch,
    hits: Vec<Hit>,
    /// The newest event at each, and its host.
    newest: HashMap<Anchor, (EventId, Arc<str>)>,
}

impl ByStream {
    fn new(collection: &Collection, aliases: Arc<Aliases>) -> Self {
        Self {
            aliases,
            engine: Engine::compile(collection.rules.iter().map(|rule| (&rule.source, &rule.predicate))),
            plans: Arc::new(Plans::compile(collection, Limits::for_history())),
            scratch: Scratch::default(),
            hits: Vec::new(),
            newest: HashMap::new(),
        }
    }

    fn slice(&mut self, events: &[StoredEvent], sink: &mut impl Sink) -> Result<()> {
        let mut matching = Vec::new();
        let aliases = Arc::clone(&self.aliases);
        for event in events {
            let object = codec::public_object(&event.raw);
            let Some(fields) = flattened(&object, &aliases) else { continue };
            self.engine.matches(&fields, &mut self.scratch, &mut matching);
            for place in matching.drain(..).map(|rule| rule as usize) {
                sink.matched(place, event);
                if self.plans.listens(place) {
                    self.correlate(place, event, &fields);
                }
            }
        }
        if self.hits.len() > HITS_MAX {
            bail!("more than {HITS_MAX} events match rules that correlations look at; try `--via sqlite`");
        }
        Ok(())
    }

    fn correlate(&mut self, place: usize, event: &StoredEvent, fields: &Fields<'_>) {
        let known = self.hits.len();
        let of = Event { id: event.id.to_u128(), time: event.timestamp.micros() };
        self.plans.hits(place, of, fields, &mut self.hits, &mut Lacking::default());
        let host: Arc<str> = event.host.as_str().into();
        let newest = &mut self.newest;
        for hit in &self.hits[known..] {
            hit.visit(&mut |hit| {
                let at = newest.entry((hit.correlation, hit.key.clone(), hit.time));
                let at = at.or_insert_with(|| (event.id, Arc::clone(&host)));
                if at.0 < event.id {
                    *at = (event.id, Arc::clone(&host));
                }
            });
        }
    }

    fn finish(&mut self, sink: &mut impl Sink) {
        // Events of one moment have one time, whatever the order in which they were found.
        let mut hits = std::mem::take(&mut self.hits);
        hits.sort_by_key(|hit| hit.time);
        let now = hits.last().map_or(0, |hit| hit.time);
        let mut correlator = Correlator::new(Arc::clone(&self.plans), Share::ALL);
        let mut changes = correlator.apply(now, hits).changes;
        changes.extend(correlator.pass(i64::MAX).changes);
        // What is above correlations that settle late is corrected until they have.
        let mut settled = BTreeMap::new();
        for change in changes {
            match change {
                Change::Opened(firing) | Change::Moved(firing) => {
                    settled.insert((firing.correlation, firing.id), firing);
                }
                Change::GoesOn(_) => {}
                Change::Merged { correlation, id, .. } | Change::Withdrawn { correlation, id } => {
                    settled.remove(&(correlation, id));
                }
            }
        }
        let mut fired = Vec::new();
        for firing in settled.into_values() {
            let at = (firing.correlation, firing.key, firing.anchor);
            let Some((event, host)) = self.newest.get(&at) else { continue };
            let key = at.1.iter().map(|text| text.to_string()).collect();
            fired.push((firing.correlation, Fired { key, at: firing.anchor, event: *event, host: host.to_string() }));
        }
        fired.sort_by(|a, b| (a.0, a.1.at, &a.1.key).cmp(&(b.0, b.1.at, &b.1.key)));
        fired.iter().for_each(|(place, fired)| sink.fired(*place, fired));
    }
}

struct BySql {
    questions: Arc<Questions>,
    history: History,
    members_max: u64,
    /// Anchors before were told, by correlation.
    told_before: BTreeMap<usize, i64>,
    /// What happened before comes too late.
    floor: i64,
}

impl BySql {
    fn new(questions: Arc<Questions>, aliases: Arc<Aliases>, members_max: u64) -> Result<Self> {
        let told_before = questions.correlations().map(|place| (place, -EVER)).collect();
        let history = History::new(Arc::clone(&questions), aliases)?;
        Ok(Self { questions, history, members_max, told_before, floor: i64::MIN })
    }

    fn slice(&mut self, events: &[StoredEvent], sink: &mut impl Sink, told: &mut Told) -> Result<()> {
        let bounds = Bounds { from_micros: self.floor, ..Bounds::NONE };
        let mut found = self.history.slice(events, bounds)?;
        told.late += found.out_of_time;
        found.matches.sort_unstable_by_key(|(rule, event)| (*event, *rule));
        for (rule, event) in found.matches {
            sink.matched(rule, &events[event]);
        }
        let Some(newest) = events.last().filter(|_| !self.told_before.is_empty()) else { return Ok(()) };
        if self.history.kept()? > self.members_max {
            self.settle(newest.id.accepted().micros() - LATE_MICROS, sink)?;
            if self.history.kept()? > self.members_max {
                bail!(
                    "more than {} events match what correlations look at within their timespans; try fewer rules, or a \
                     shorter timespan",
                    self.members_max
                );
            }
        }
        Ok(())
    }

    /// Tells what fires before that time, and forgets what no later firing needs.
    fn settle(&mut self, before: i64, sink: &mut impl Sink) -> Result<()> {
        let mut needed = before;
        for (place, told_before) in &mut self.told_before {
            let reach = self.questions.reach(*place);
            let upto = if before == EVER { EVER } else { before.saturating_sub(reach.ahead_micros) };
            if upto > *told_before {
                let between = Between { from_micros: *told_before, to_micros: upto - 1 };
                let all = *told_before == -EVER && upto == EVER;
                for fired in self.history.firings(*place, (!all).then_some(between))? {
                    sink.fired(*place, &fired);
                }
                *told_before = upto;
            }
            needed = needed.min(told_before.saturating_sub(reach.back_micros));
        }
        self.floor = before;
        self.history.forget_before(needed)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
