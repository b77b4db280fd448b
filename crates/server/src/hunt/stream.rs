//! The hunt with the streaming engine: blocks go to threads, what they find is written in order.

use super::input::{self, Block};
use super::{Fired, Found, INVALID_SHOWN_MAX, Source, Summary};
use anyhow::Result;
use fields::Aliases;
use model::{Fields, Timestamp};
use rules::correlate::{Change, Correlator, Event, Hit, Lacking, Limits, Plans, Share};
use rules::sigma::{Collection, SigmaRule};
use rules::stream::{Engine, Scratch};
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

/// Rule and event by number, fields for the reader.
type Matched = (u32, u64, Vec<(String, String)>);

/// What became of a block.
struct Searched {
    block: u64,
    events: u64,
    bytes: u64,
    hits: Vec<Matched>,
    /// What correlations are told.
    correlated: Vec<Hit>,
    /// The newest event time in it, in microseconds.
    newest: i64,
    invalid: u64,
    /// The first few reasons.
    reasons: Vec<String>,
    file: Arc<str>,
}

/// What is hunted with.
struct Hunter<'h> {
    collection: &'h Collection,
    engine: &'h Engine,
    plans: &'h Plans,
    aliases: &'h Aliases,
    /// By number: whether a rule says something by itself.
    alerting: Vec<bool>,
}

/// Hunts, and writes a line for each match to `out`; fills in the summary's part about events.
pub fn hunt(
    collection: &Collection,
    engine: &Engine,
    source: Source<'_>,
    threads: usize,
    out: &mut impl Write,
    mut progress: impl FnMut(&Summary),
    summary: &mut Summary,
) -> Result<()> {
    let (give, take) = sync_channel::<Block>(threads * 2);
    let (done, searched) = sync_channel::<Searched>(threads * 2);
    let take = Mutex::new(take);
    let several = source.files.len() > 1;
    let plans = Arc::new(Plans::compile(collection, Limits::for_history()));
    let mut correlator = Correlator::new(Arc::clone(&plans), Share::ALL);
    let (aliases, alerting) = (source.aliases, collection.rules_that_alert());
    let hunter = Hunter { collection, engine, plans: &plans, aliases, alerting };
    let mut newest = i64::MIN;
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || input::read(source.files, |block| give.send(block).is_ok()));
        for _ in 0..threads {
            let (take, done) = (&take, done.clone());
            let hunter = &hunter;
            scope.spawn(move || work(hunter, take, &done));
        }
        drop(done);
        let mut waiting: BTreeMap<u64, Searched> = BTreeMap::new();
        let mut next = 0;
        for block in searched {
            waiting.insert(block.block, block);
            while let Some(mut block) = waiting.remove(&next) {
                next += 1;
                newest = newest.max(block.newest);
                let hits = std::mem::take(&mut block.correlated);
                let changes = if hits.is_empty() { Vec::new() } else { correlator.apply(newest, hits).changes };
                write(collection, &block, several, out, summary)?;
                write_firings(collection, changes, out, summary)?;
                progress(summary);
            }
        }
        write_firings(collection, correlator.pass(i64::MAX).changes, out, summary)?;
        out.flush()?;
        reader.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the reading thread ended early")))
    })
}

fn write(
    collection: &Collection,
    block: &Searched,
    several: bool,
    out: &mut impl Write,
    summary: &mut Summary,
) -> Result<()> {
    for (rule, event, fields) in &block.hits {
        let Some(rule) = collection.rules.get(*rule as usize) else { continue };
        let mut found = Found::new(&rule.header, *event);
        found.file = several.then_some(&*block.file);
        found.fields = fields.iter().map(|(name, value)| (&**name, value.clone())).collect();
        serde_json::to_writer(&mut *out, &found)?;
        out.write_all(b"\n")?;
        summary.count(&rule.header);
    }
    summary.events += block.events;
    summary.bytes += block.bytes;
    summary.events_invalid += block.invalid;
    let room = INVALID_SHOWN_MAX.saturating_sub(summary.invalid.len());
    summary.invalid.extend(block.reasons.iter().take(room).cloned());
    Ok(())
}

/// Correlations that begin to fire.
fn write_firings(
    collection: &Collection,
    changes: Vec<Change>,
    out: &mut impl Write,
    summary: &mut Summary,
) -> Result<()> {
    let alerting = collection.correlations_that_alert();
    for firing in changes.into_iter().filter_map(Change::opened) {
        let Some(correlation) = collection.correlations.get(firing.correlation) else { continue };
        if !alerting[firing.correlation] {
            continue;
        }
        let mut events: Vec<u64> = firing.events.iter().map(|event| *event as u64).collect();
        events.sort_unstable();
        let mut found = Found::new(&correlation.header, events.last().copied().unwrap_or_default());
        let key = firing.key.iter().map(|text| text.to_string());
        found.fields = correlation.group_by.iter().map(|name| &**name).zip(key).collect();
        found.correlation =
            Some(Fired { at: Timestamp::from_micros(firing.anchor).rfc3339(), metric: firing.metric, events });
        serde_json::to_writer(&mut *out, &found)?;
        out.write_all(b"\n")?;
        summary.count(&correlation.header);
    }
    Ok(())
}

fn work(hunter: &Hunter<'_>, take: &Mutex<Receiver<Block>>, done: &SyncSender<Searched>) {
    let mut scratch = Scratch::default();
    loop {
        let block = match take.lock() {
            Ok(take) => take.recv(),
            Err(_) => return,
        };
        let Ok(block) = block else { return };
        if done.send(hunter.search(&block, &mut scratch)).is_err() {
            return;
        }
    }
}

impl Hunter<'_> {
    fn search(&self, block: &Block, scratch: &mut Scratch) -> Searched {
        let mut searched = Searched {
            block: block.number,
            events: 0,
            bytes: block.text.len() as u64,
            hits: Vec::new(),
            correlated: Vec::new(),
            newest: i64::MIN,
            invalid: 0,
            reasons: Vec::new(),
            file: Arc::clone(&block.file),
        };
        let mut fields = Fields::default();
        let mut hits = Vec::new();
        for (line, text) in block.events() {
            fields.clear();
            match fields::from_json_bytes(text, &mut fields) {
                Ok(()) => {
                    self.aliases.apply(&mut fields);
                    self.engine.matches(&fields, scratch, &mut hits);
                    let number = block.first_event + searched.events;
                    hits.drain(..).for_each(|rule| self.hit(rule, number, &fields, &mut searched));
                }
                Err(error) => {
                    searched.invalid += 1;
                    if searched.reasons.len() < INVALID_SHOWN_MAX {
                        searched.reasons.push(format!("{}:{line}: {error}", block.file));
                    }
                }
            }
            searched.events += 1;
        }
        searched
    }

    fn hit(&self, number: u32, event: u64, fields: &Fields<'_>, searched: &mut Searched) {
        let place = number as usize;
        let Some(rule) = self.collection.rules.get(place) else { return };
        if self.plans.listens(place) {
            // An event without a time is at the beginning of time, like all others without.
            let time = fields::event_time(fields).unwrap_or_default().micros();
            searched.newest = searched.newest.max(time);
            let event = Event { id: u128::from(event), time };
            self.plans.hits(place, event, fields, &mut searched.correlated, &mut Lacking::default());
        }
        if self.alerting[place] {
            searched.hits.push((number, event, shown(rule, fields)));
        }
    }
}

/// The fields that the rule names for its readers.
fn shown(rule: &SigmaRule, event: &Fields<'_>) -> Vec<(String, String)> {
    let value = |name: &String| event.first(name).map(|value| (name.clone(), value.to_owned()));
    rule.fields.iter().filter_map(value).collect()
}
