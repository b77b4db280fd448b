//! The hunt with the streaming engine: blocks go to threads, what they find is written in order.

use super::input::{self, Block};
use super::{Found, INVALID_SHOWN_MAX, Summary};
use anyhow::Result;
use model::Fields;
use rules::sigma::{Collection, SigmaRule};
use rules::stream::{Engine, Scratch};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// What became of a block.
struct Searched {
    block: u64,
    events: u64,
    bytes: u64,
    /// Rule by number, event by number within the block, fields for the reader.
    hits: Vec<(u32, u64, Vec<(String, String)>)>,
    invalid: u64,
    /// The first few reasons.
    reasons: Vec<String>,
    file: std::sync::Arc<str>,
}

/// Hunts, and writes a line for each match to `out`; fills in the summary's part about events.
pub fn hunt(
    collection: &Collection,
    engine: &Engine,
    files: &[PathBuf],
    threads: usize,
    out: &mut impl Write,
    mut progress: impl FnMut(&Summary),
    summary: &mut Summary,
) -> Result<()> {
    let (give, take) = sync_channel::<Block>(threads * 2);
    let (done, searched) = sync_channel::<Searched>(threads * 2);
    let take = Mutex::new(take);
    let several = files.len() > 1;
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || input::read(files, |block| give.send(block).is_ok()));
        for _ in 0..threads {
            let (take, done) = (&take, done.clone());
            scope.spawn(move || work(collection, engine, take, &done));
        }
        drop(done);
        let mut waiting: BTreeMap<u64, Searched> = BTreeMap::new();
        let mut next = 0;
        for block in searched {
            waiting.insert(block.block, block);
            while let Some(block) = waiting.remove(&next) {
                next += 1;
                write(collection, &block, several, out, summary)?;
                progress(summary);
            }
        }
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
        let mut found = Found::new(rule, summary.events + event);
        found.file = several.then_some(&*block.file);
        found.fields = fields.iter().map(|(name, value)| (&**name, value.clone())).collect();
        serde_json::to_writer(&mut *out, &found)?;
        out.write_all(b"\n")?;
        summary.count(rule);
    }
    summary.events += block.events;
    summary.bytes += block.bytes;
    summary.events_invalid += block.invalid;
    let room = INVALID_SHOWN_MAX.saturating_sub(summary.invalid.len());
    summary.invalid.extend(block.reasons.iter().take(room).cloned());
    Ok(())
}

fn work(collection: &Collection, engine: &Engine, take: &Mutex<Receiver<Block>>, done: &SyncSender<Searched>) {
    let mut scratch = Scratch::default();
    loop {
        let block = match take.lock() {
            Ok(take) => take.recv(),
            Err(_) => return,
        };
        let Ok(block) = block else { return };
        if done.send(search(collection, engine, &block, &mut scratch)).is_err() {
            return;
        }
    }
}

fn search(collection: &Collection, engine: &Engine, block: &Block, scratch: &mut Scratch) -> Searched {
    let mut searched = Searched {
        block: block.number,
        events: 0,
        bytes: block.text.len() as u64,
        hits: Vec::new(),
        invalid: 0,
        reasons: Vec::new(),
        file: std::sync::Arc::clone(&block.file),
    };
    let mut fields = Fields::default();
    let mut hits = Vec::new();
    for (line, text) in block.events() {
        fields.clear();
        match fields::from_json_bytes(text, &mut fields) {
            Ok(()) => {
                engine.matches(&fields, scratch, &mut hits);
                for rule in hits.drain(..) {
                    let shown =
                        collection.rules.get(rule as usize).map(|rule| shown(rule, &fields)).unwrap_or_default();
                    searched.hits.push((rule, searched.events, shown));
                }
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

/// The fields that the rule names for its readers.
fn shown(rule: &SigmaRule, event: &Fields<'_>) -> Vec<(String, String)> {
    let value = |name: &String| event.first(name).map(|value| (name.clone(), value.to_owned()));
    rule.fields.iter().filter_map(value).collect()
}
