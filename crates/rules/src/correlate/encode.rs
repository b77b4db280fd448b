//! The state of a group as bytes, version 1.
//!
//! | part | bytes |
//! |---|---|
//! | version | `1` |
//! | what | `0` whole, `1` more, `2` named |
//! | correlation | its fingerprint, 16 |
//! | touched | signed |
//! | whole: key | count, texts |
//! | whole: floor, settled | signed; `0` or `1` and signed |
//! | whole: thinned | count |
//! | whole: runs | count; first, last signed, id 16 each |
//! | whole: members | count; time after the one before, key 16, and of kinds that calculate the number 8 |
//! | whole: carried | count; time signed, event 16, uppers |
//! | whole: firings named before | nothing, or count; id 16 each |
//! | more: floor | `0` or `1` and signed |
//! | named: firings | count; id 16 each |
//! | more: hits | count; time signed, event 16, meaning |
//!
//! Hits on their way from one worker to another (version 1): the version, `2`, event 16, time signed, uppers.
//!
//! A meaning is an input, `0` or `1` and a digest 16 or `2` and a number 8, and uppers: what the same
//! event means to higher correlations. Those are a count and each a fingerprint 16, group 16, key and
//! meaning. Numbers are LEB128, signed ones in zigzag; texts have their length before them. Reading
//! never trusts a length.

use super::group::Group;
use super::hit::{Hit, TIME_MAX, Value, halves, whole};
use super::members::Entry;
use super::named::Named;
use super::number::NUMBER_MAX;
use super::plan::Plans;
use super::runs::Run;
use std::collections::VecDeque;

const VERSION: u8 = 1;
const WHOLE: u8 = 0;
const MORE: u8 = 1;
const NAMED: u8 = 2;
const HITS: u8 = 2;
/// Deepest nesting of hits; no plan has more.
const DEPTH_MAX: usize = 32;

/// Why stored state cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Written by a program of another age.
    #[error("state of correlations has version {version}; this program reads version {VERSION}")]
    Version { version: u8 },
    /// Cut off or altered.
    #[error("state of a correlation is damaged")]
    Damaged,
}

/// What was read.
pub(super) enum Part {
    Whole {
        group: Box<Group>,
        touched: i64,
        named: VecDeque<u128>,
    },
    More {
        hits: Vec<Hit>,
        floor: Option<i64>,
        touched: i64,
    },
    /// Firings that somebody may know.
    Named(Named),
    /// Its correlation is gone, or means something else now.
    Foreign,
}

pub(super) fn write_whole(plans: &Plans, group: &Group, touched: i64, named: &VecDeque<u128>) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + group.members.len() * 20);
    out.extend([VERSION, WHOLE]);
    write_fingerprint(&mut out, plans, group.correlation);
    signed(&mut out, touched);
    write_key(&mut out, &group.key);
    signed(&mut out, group.floor);
    maybe(&mut out, group.settled);
    unsigned(&mut out, group.thinned as u64);
    unsigned(&mut out, group.runs.len() as u64);
    for run in &group.runs {
        signed(&mut out, run.first);
        signed(&mut out, run.last);
        out.extend(run.id.to_be_bytes());
    }
    unsigned(&mut out, group.members.len() as u64);
    let mut before = 0;
    for (entry, value) in group.members.iter() {
        signed(&mut out, entry.time.wrapping_sub(before));
        before = entry.time;
        out.extend(whole(entry.key).to_be_bytes());
        if let Some(value) = value {
            out.extend(value.to_be_bytes());
        }
    }
    unsigned(&mut out, group.carried.len() as u64);
    for (time, event, hits) in group.carried.iter() {
        signed(&mut out, time);
        out.extend(event.to_be_bytes());
        write_uppers(&mut out, plans, hits);
    }
    if !named.is_empty() {
        write_ids(&mut out, named.iter());
    }
    out
}

fn write_ids<'i>(out: &mut Vec<u8>, ids: impl ExactSizeIterator<Item = &'i u128>) {
    unsigned(out, ids.len() as u64);
    ids.for_each(|id| out.extend(id.to_be_bytes()));
}

pub(super) fn write_more(plans: &Plans, correlation: usize, hits: &[Hit], floor: Option<i64>, touched: i64) -> Vec<u8> {
    // A hit is an event and a time, and seldom more than a value; one is what most batches have.
    let mut out = Vec::with_capacity(48 + hits.len() * 48);
    out.extend([VERSION, MORE]);
    write_fingerprint(&mut out, plans, correlation);
    signed(&mut out, touched);
    maybe(&mut out, floor);
    unsigned(&mut out, hits.len() as u64);
    for hit in hits {
        signed(&mut out, hit.time);
        out.extend(hit.event.to_be_bytes());
        write_meaning(&mut out, plans, hit);
    }
    out
}

pub(super) fn write_named(plans: &Plans, correlation: usize, touched: i64, ids: &[u128]) -> Vec<u8> {
    let mut out = vec![VERSION, NAMED];
    write_fingerprint(&mut out, plans, correlation);
    signed(&mut out, touched);
    write_ids(&mut out, ids.iter());
    out
}

pub(super) fn read(plans: &Plans, bytes: &[u8]) -> Result<Part, StateError> {
    let mut reader = Reader { rest: bytes };
    let version = reader.byte()?;
    if version != VERSION {
        return Err(StateError::Version { version });
    }
    let what = reader.byte()?;
    let fingerprint = reader.array()?;
    let Some(correlation) = plans.find(&fingerprint) else {
        return Ok(Part::Foreign);
    };
    let touched = reader.signed()?;
    match what {
        WHOLE => {
            let group = Box::new(read_group(plans, correlation, &mut reader)?);
            let named = if reader.rest.is_empty() { VecDeque::new() } else { reader.ids()? };
            if reader.rest.is_empty() { Ok(Part::Whole { group, touched, named }) } else { Err(StateError::Damaged) }
        }
        MORE => {
            let floor = reader.maybe()?;
            let mut hits = Vec::new();
            for _ in 0..reader.unsigned()? {
                let (time, event) = (reader.time()?, u128::from_be_bytes(reader.array()?));
                let bare = Hit {
                    correlation,
                    input: 0,
                    event,
                    time,
                    group: 0,
                    key: Box::default(),
                    value: Value::None,
                    above: Vec::new(),
                };
                hits.push(reader.meaning(plans, bare, 0)?);
            }
            if reader.rest.is_empty() { Ok(Part::More { hits, floor, touched }) } else { Err(StateError::Damaged) }
        }
        NAMED => {
            let named = Named { correlation, touched, ids: reader.ids()? };
            if reader.rest.is_empty() { Ok(Part::Named(named)) } else { Err(StateError::Damaged) }
        }
        _ => Err(StateError::Damaged),
    }
}

impl Plans {
    /// A hit as bytes, for a worker elsewhere: correlations are named by what they mean, not by place.
    pub fn write_hit(&self, hit: &Hit) -> Vec<u8> {
        let mut out = vec![VERSION, HITS];
        out.extend(hit.event.to_be_bytes());
        signed(&mut out, hit.time);
        write_uppers(&mut out, self, std::slice::from_ref(hit));
        out
    }

    /// Reads what other plans wrote. `None` where they have a correlation that is not here, or means
    /// something else here.
    pub fn read_hit(&self, bytes: &[u8]) -> Result<Option<Hit>, StateError> {
        let mut reader = Reader { rest: bytes };
        let version = reader.byte()?;
        if version != VERSION {
            return Err(StateError::Version { version });
        }
        if reader.byte()? != HITS {
            return Err(StateError::Damaged);
        }
        let (event, time) = (u128::from_be_bytes(reader.array()?), reader.time()?);
        let mut hits = reader.uppers(self, event, time, 0)?;
        if hits.len() > 1 || !reader.rest.is_empty() {
            return Err(StateError::Damaged);
        }
        Ok(hits.pop())
    }
}

fn read_group(plans: &Plans, correlation: usize, reader: &mut Reader<'_>) -> Result<Group, StateError> {
    let plan = plans.plan(correlation).ok_or(StateError::Damaged)?;
    let mut group = Group::new(correlation, reader.key()?);
    group.floor = reader.signed()?;
    group.settled = reader.maybe()?.map(in_range).transpose()?;
    group.thinned = reader.length()?;
    for _ in 0..reader.unsigned()? {
        let (first, last) = (reader.time()?, reader.time()?);
        group.runs.push(Run { first, last, id: u128::from_be_bytes(reader.array()?) });
    }
    let mut last: Option<(Entry, Option<f64>)> = None;
    for _ in 0..reader.unsigned()? {
        let before = last.map_or(0, |(entry, _)| entry.time);
        let time = in_range(before.wrapping_add(reader.signed()?))?;
        let entry = Entry { time, key: halves(u128::from_be_bytes(reader.array()?)) };
        let value = if plan.kind.numeric() { Some(reader.number()?) } else { None };
        let sorted = last.is_none_or(|(before, other)| before < entry || (before == entry && other < value));
        if !sorted || (plan.kind.temporal() && entry.key[0] >= plan.inputs as u64) {
            return Err(StateError::Damaged);
        }
        group.members.push(entry, value);
        last = Some((entry, value));
    }
    for _ in 0..reader.unsigned()? {
        let (time, event) = (reader.time()?, u128::from_be_bytes(reader.array()?));
        let hits = reader.uppers(plans, event, time, 0)?;
        if !hits.is_empty() {
            group.carried.add(time, event, hits);
        }
    }
    Ok(group)
}

fn unsigned(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn signed(out: &mut Vec<u8>, number: i64) {
    unsigned(out, ((number << 1) ^ (number >> 63)) as u64);
}

fn maybe(out: &mut Vec<u8>, number: Option<i64>) {
    out.push(u8::from(number.is_some()));
    if let Some(number) = number {
        signed(out, number);
    }
}

fn write_fingerprint(out: &mut Vec<u8>, plans: &Plans, correlation: usize) {
    out.extend(plans.plan(correlation).map_or([0; 16], |plan| plan.fingerprint));
}

fn write_key(out: &mut Vec<u8>, key: &[Box<str>]) {
    unsigned(out, key.len() as u64);
    for text in key {
        unsigned(out, text.len() as u64);
        out.extend(text.as_bytes());
    }
}

fn write_meaning(out: &mut Vec<u8>, plans: &Plans, hit: &Hit) {
    unsigned(out, hit.input as u64);
    match hit.value {
        Value::None => out.push(0),
        Value::Digest(digest) => {
            out.push(1);
            out.extend(whole(digest).to_be_bytes());
        }
        Value::Number(number) => {
            out.push(2);
            out.extend(number.to_be_bytes());
        }
    }
    write_uppers(out, plans, &hit.above);
}

fn write_uppers(out: &mut Vec<u8>, plans: &Plans, hits: &[Hit]) {
    unsigned(out, hits.len() as u64);
    for hit in hits {
        write_fingerprint(out, plans, hit.correlation);
        out.extend(hit.group.to_be_bytes());
        write_key(out, &hit.key);
        write_meaning(out, plans, hit);
    }
}

fn in_range(time: i64) -> Result<i64, StateError> {
    if time.abs_diff(0) <= TIME_MAX as u64 { Ok(time) } else { Err(StateError::Damaged) }
}

struct Reader<'b> {
    rest: &'b [u8],
}

impl Reader<'_> {
    fn bytes(&mut self, count: usize) -> Result<&[u8], StateError> {
        let (bytes, rest) = self.rest.split_at_checked(count).ok_or(StateError::Damaged)?;
        self.rest = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StateError> {
        self.bytes(N)?.try_into().map_err(|_| StateError::Damaged)
    }

    fn byte(&mut self) -> Result<u8, StateError> {
        Ok(self.array::<1>()?[0])
    }

    fn unsigned(&mut self) -> Result<u64, StateError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(StateError::Damaged)
    }

    fn ids(&mut self) -> Result<VecDeque<u128>, StateError> {
        let mut ids = VecDeque::new();
        for _ in 0..self.unsigned()? {
            ids.push_back(u128::from_be_bytes(self.array()?));
        }
        Ok(ids)
    }

    fn signed(&mut self) -> Result<i64, StateError> {
        let number = self.unsigned()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    fn time(&mut self) -> Result<i64, StateError> {
        in_range(self.signed()?)
    }

    fn maybe(&mut self) -> Result<Option<i64>, StateError> {
        match self.byte()? {
            0 => Ok(None),
            1 => Ok(Some(self.signed()?)),
            _ => Err(StateError::Damaged),
        }
    }

    fn number(&mut self) -> Result<f64, StateError> {
        let number = f64::from_be_bytes(self.array()?);
        if number.abs() <= NUMBER_MAX { Ok(number) } else { Err(StateError::Damaged) }
    }

    fn length(&mut self) -> Result<usize, StateError> {
        usize::try_from(self.unsigned()?).map_err(|_| StateError::Damaged)
    }

    fn key(&mut self) -> Result<Box<[Box<str>]>, StateError> {
        let mut key = Vec::new();
        for _ in 0..self.unsigned()? {
            let length = self.length()?;
            let text = std::str::from_utf8(self.bytes(length)?).map_err(|_| StateError::Damaged)?;
            key.push(text.into());
        }
        Ok(key.into())
    }

    /// The rest of a hit.
    fn meaning(&mut self, plans: &Plans, bare: Hit, depth: usize) -> Result<Hit, StateError> {
        let input = self.length()?;
        if plans.plan(bare.correlation).is_some_and(|plan| input >= plan.inputs) {
            return Err(StateError::Damaged);
        }
        let value = match self.byte()? {
            0 => Value::None,
            1 => Value::Digest(halves(u128::from_be_bytes(self.array()?))),
            2 => Value::Number(self.number()?),
            _ => return Err(StateError::Damaged),
        };
        let above = self.uppers(plans, bare.event, bare.time, depth + 1)?;
        Ok(Hit { input, value, above, ..bare })
    }

    /// Hits for correlations that are not there any more are left out.
    fn uppers(&mut self, plans: &Plans, event: u128, time: i64, depth: usize) -> Result<Vec<Hit>, StateError> {
        if depth > DEPTH_MAX {
            return Err(StateError::Damaged);
        }
        let mut hits = Vec::new();
        for _ in 0..self.unsigned()? {
            let correlation = plans.find(&self.array()?);
            let group = u128::from_be_bytes(self.array()?);
            let key = self.key()?;
            let (value, above) = (Value::None, Vec::new());
            let bare =
                Hit { correlation: correlation.unwrap_or(usize::MAX), input: 0, event, time, group, key, value, above };
            let hit = self.meaning(plans, bare, depth)?;
            if correlation.is_some() {
                hits.push(hit);
            }
        }
        Ok(hits)
    }
}
