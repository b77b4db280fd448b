//! Rules over stored events, by their SQL: events are read in slices, oldest first by acceptance; each
//! slice becomes a table that every rule is asked of, and of the events that correlations look at a few
//! fields are kept, as long as they can still matter.
//!
//! What always holds: memory is that of a slice; what is kept lies on disk, without a name, and is gone
//! with the process. The answers are those of one question over all events: a correlation's window may lie
//! over any number of slices (`rules::sql::correlation::members`).

mod questions;
mod slices;

pub use questions::{NoSql, Questions};
pub use slices::{Slice, Slices};

use crate::codec;
use bytes::Bytes;
use fields::Aliases;
use model::{EventId, Fields};
use questions::Asked;
use rules::sql::correlation::members::{Reach, matched_json};
use rules::sql::correlation::{Between, Events, firings};
use rules::sql::{Dialect, fields_json, source_json};
use std::collections::BTreeMap;
use std::sync::Arc;
use storage::StorageResult;
use storage::events::StoredEvent;
use storage::hunt::{EventTable, Member, MemberTable, Row};

/// The table of members, as correlations ask for it.
const MEMBERS: Events<'static> = Events { table: "events", id: "n", time: "ts" };

/// What has been seen of history so far.
pub struct History {
    questions: Arc<Questions>,
    /// What the site calls the fields of its events.
    aliases: Arc<Aliases>,
    /// Of the slice that is asked; `None` between runs.
    slice: Option<EventTable>,
    members: MemberTable,
}

/// What a slice had.
#[derive(Debug, Default)]
pub struct Found {
    /// Matches of the rules that were asked for: place of the rule, and of the event in the slice; by rule.
    pub matches: Vec<(usize, usize)>,
    /// When the oldest of the events happened that correlations look at.
    pub oldest_member: Option<i64>,
    /// Events that correlations do not look at, as they happened too long ago, or in the future.
    pub out_of_time: u64,
}

/// A correlation that fires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fired {
    /// The values of `group-by`.
    pub key: Vec<String>,
    /// The anchor, in microseconds.
    pub at: i64,
    /// The newest of its events at the anchor, and that event's host.
    pub event: EventId,
    pub host: String,
}

/// When events must have happened for correlations to look at them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// In microseconds; not before.
    pub from_micros: i64,
    /// How far in the future of its acceptance.
    pub ahead_micros_max: i64,
}

impl Bounds {
    /// Whenever.
    pub const NONE: Self = Self { from_micros: i64::MIN, ahead_micros_max: i64::MAX };

    fn admit(&self, event: &StoredEvent) -> bool {
        let ahead = event.timestamp.micros().saturating_sub(event.id.accepted().micros());
        event.timestamp.micros() >= self.from_micros && ahead <= self.ahead_micros_max
    }
}

impl History {
    pub fn new(questions: Arc<Questions>, aliases: Arc<Aliases>) -> StorageResult<Self> {
        Ok(Self { questions, aliases, slice: None, members: MemberTable::open()? })
    }

    /// Asks all rules of the next events. CPU and disk: not for an async thread.
    pub fn slice(&mut self, events: &[StoredEvent], bounds: Bounds) -> StorageResult<Found> {
        let table = match &mut self.slice {
            Some(table) => table,
            none => none.insert(EventTable::open()?),
        };
        table.clear()?;
        let mut rows = Vec::with_capacity(events.len());
        for (number, event) in (0..).zip(events) {
            let object = codec::public_object(&event.raw);
            if let Some(fields) = flattened(&object, &self.aliases) {
                let (source, micros) = (source_json(&fields.source), event.timestamp.micros());
                rows.push(Row { number, micros, source, fields: fields_json(&fields) });
            }
        }
        table.add(&rows)?;
        drop(rows);
        let questions = Arc::clone(&self.questions);
        let mut found = Found::default();
        let mut of_members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for Asked { place, condition, wanted, fields } in questions.rules() {
            for number in table.numbers(condition)? {
                let number = number as usize;
                if *wanted {
                    found.matches.push((*place, number));
                }
                if fields.is_some() {
                    of_members.entry(number).or_default().push(*place);
                }
            }
        }
        self.keep(events, of_members, bounds, &mut found)?;
        Ok(found)
    }

    /// Keeps what correlations look at.
    fn keep(
        &mut self,
        events: &[StoredEvent],
        matched: BTreeMap<usize, Vec<usize>>,
        bounds: Bounds,
        found: &mut Found,
    ) -> StorageResult<()> {
        let mut members = Vec::with_capacity(matched.len());
        for (number, places) in matched {
            let Some(event) = events.get(number) else { continue };
            if !bounds.admit(event) {
                found.out_of_time += 1;
                continue;
            }
            let micros = event.timestamp.micros();
            found.oldest_member = Some(found.oldest_member.map_or(micros, |oldest| oldest.min(micros)));
            let object = codec::public_object(&event.raw);
            let Some(all) = flattened(&object, &self.aliases) else { continue };
            let mut needed = Fields::default();
            for leaf in all.leaves().iter().filter(|leaf| self.questions.needs(&places, &leaf.name)) {
                match &leaf.value {
                    Some(value) => needed.push(&*leaf.name, &**value),
                    None => needed.push_null(&*leaf.name),
                }
            }
            members.push(Member {
                id: event.id.to_u128(),
                host: event.host.clone(),
                micros,
                source: matched_json(&places),
                fields: fields_json(&needed),
            });
        }
        self.members.add(&members)
    }

    /// What a correlation has to say of a stretch of anchors, or of all; by anchor. The members that decide
    /// about them have to be there.
    pub fn firings(&self, correlation: usize, between: Option<Between>) -> StorageResult<Vec<Fired>> {
        let questions = &self.questions;
        let Ok(query) = firings(questions.of_matched(), correlation, MEMBERS, between, Dialect::Sqlite) else {
            return Ok(Vec::new()); // Questions::compile has left those out.
        };
        let mut found = self.members.firings(&query)?;
        found.sort_unstable_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
        let mut fired = Vec::with_capacity(found.len());
        let mut newest = (i64::MIN, BTreeMap::new());
        for (key, at) in found {
            if fired.is_empty() || newest.0 != at {
                newest = (at, self.newest_at(correlation, at)?);
            }
            let Some((event, host)) = newest.1.get(&key).cloned() else { continue };
            fired.push(Fired { key, at, event, host });
        }
        Ok(fired)
    }

    /// By group: the newest event at an anchor, and its host.
    fn newest_at(&self, correlation: usize, at: i64) -> StorageResult<BTreeMap<Vec<String>, (EventId, String)>> {
        let mut newest = BTreeMap::new();
        for member in self.members.at(at)? {
            for key in self.questions.keys(correlation, &member.source, &member.fields) {
                // By id, so the last is the newest.
                newest.insert(key, (EventId::from_u128(member.id), member.host.clone()));
            }
        }
        Ok(newest)
    }

    /// How far from its anchors a correlation looks.
    pub fn reach(&self, correlation: usize) -> Reach {
        self.questions.reach(correlation)
    }

    /// Gives back what only slices need.
    pub fn rest(&mut self) {
        self.slice = None;
    }

    pub fn forget_before(&mut self, micros: i64) -> StorageResult<()> {
        self.members.forget_before(micros)
    }

    /// Members that are kept.
    pub fn kept(&self) -> StorageResult<u64> {
        self.members.count()
    }
}

/// The fields of an event's object; what is none (a record of another program can hold anything) has none
/// and matches nothing.
pub fn flattened<'o>(object: &'o Bytes, aliases: &'o Aliases) -> Option<Fields<'o>> {
    let mut fields = Fields::default();
    fields::from_event(std::str::from_utf8(object).ok()?, &mut fields).ok()?;
    aliases.apply(&mut fields);
    Some(fields)
}
