//! Rules over single events: the same rules and events for both engines, one after the other in one
//! process on one thread, several rounds, the best of each. Both are given the text of each event and
//! parse it: that is how events come.

use crate::{Plan, Work, number};
use model::Fields;
use rsigma_eval::event::JsonEvent;
use rsigma_eval::logsource::LogSourceExtractor;
use rules::sigma::{Collection, Options, Reader};
use rules::stream::{Engine, Scratch};
use serde_json::Value;
use std::time::Instant;

pub const HEAD: &str = "| rules | events | ours, events/s | rsigma, events/s | ratio | matches a pass (ours / rsigma) | load, ms (ours / by all cores / rsigma) | memory, MB (ours / rsigma) |
|---|---|---|---|---|---|---|---|";

/// Rules, loaded by one engine.
pub struct Ours {
    pub collection: Collection,
    pub engine: Engine,
    scratch: Scratch,
    hits: Vec<u32>,
}

impl Ours {
    pub fn load(rules: &[String]) -> Self {
        Self::compile(read(rules))
    }

    /// Read by so many threads.
    pub fn load_by(rules: &[String], threads: usize) -> Self {
        let parts = rules.chunks(rules.len().div_ceil(threads).max(1));
        let readers: Vec<Reader> = std::thread::scope(|scope| {
            let running: Vec<_> = parts.map(|part| scope.spawn(move || read(part))).collect();
            running.into_iter().map(|thread| thread.join().expect("a reader")).collect()
        });
        let mut all = Reader::new(Options::default());
        readers.into_iter().for_each(|reader| all.append(reader));
        Self::compile(all)
    }

    fn compile(reader: Reader) -> Self {
        let collection = reader.finish();
        let engine = Engine::compile(collection.rules.iter().map(|rule| (&rule.source, &rule.predicate)));
        Self { collection, engine, scratch: Scratch::default(), hits: Vec::new() }
    }

    pub fn matches(&mut self, text: &str) -> usize {
        let mut fields = Fields::default();
        fields::from_json(text, &mut fields).expect("an event");
        self.matches_fields(&fields).len()
    }

    pub fn matches_fields(&mut self, fields: &Fields<'_>) -> &[u32] {
        self.hits.clear();
        self.engine.matches(fields, &mut self.scratch, &mut self.hits);
        &self.hits
    }
}

fn read(rules: &[String]) -> Reader {
    let mut reader = Reader::new(Options::default());
    rules.iter().for_each(|text| reader.text("rule", text));
    reader
}

/// The same by the other.
pub struct Theirs(rsigma_eval::Engine);

impl Theirs {
    pub fn load(rules: &[String]) -> Self {
        let mut engine = rsigma_eval::Engine::new();
        engine.set_logsource_extractor(Some(LogSourceExtractor::new()));
        engine.set_cross_rule_ac(true);
        let mut parsed = Vec::new();
        for text in rules {
            parsed.extend(rsigma_parser::parse_sigma_yaml(text).expect("both read the same rules").rules);
        }
        engine.add_rules(parsed.iter());
        Self(engine)
    }

    pub fn matches(&mut self, text: &str) -> usize {
        let value: Value = serde_json::from_str(text).expect("an event");
        self.0.evaluate(&JsonEvent::borrow(&value)).len()
    }
}

/// A row of the table.
pub fn row(plan: &Plan, work: &Work, events: &[String]) {
    let rules = work.rules();
    let time = |load: &dyn Fn()| {
        let started = Instant::now();
        load();
        started.elapsed().as_secs_f64() * 1e3
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let ours_ms = time(&|| drop(Ours::load(&rules)));
    let by_all_ms = time(&|| drop(Ours::load_by(&rules, cores)));
    let theirs_ms = time(&|| drop(Theirs::load(&rules)));
    let (mut ours, mut theirs) = (Ours::load(&rules), Theirs::load(&rules));
    let (mut our_rate, mut their_rate, mut our_matches, mut their_matches) = (0_f64, 0_f64, 0, 0);
    for _ in 0..plan.rounds {
        let (rate, matches) = plan.rate(events, |text| ours.matches(text));
        (our_rate, our_matches) = (our_rate.max(rate), matches);
        let (rate, matches) = plan.rate(events, |text| theirs.matches(text));
        (their_rate, their_matches) = (their_rate.max(rate), matches);
    }
    let bytes = events.iter().map(String::len).sum::<usize>() / events.len().max(1);
    println!(
        "| {}, {} | {}, {bytes} bytes | {} | {} | {:.1} | {our_matches} / {their_matches} | {ours_ms:.1} / {by_all_ms:.1} / {theirs_ms:.1} | {:.1} / {:.1} |",
        number(ours.engine.len()),
        work.what(),
        number(events.len()),
        number(our_rate as usize),
        number(their_rate as usize),
        our_rate / their_rate,
        plan.child(&work.child("load-ours"))[0],
        plan.child(&work.child("load-theirs"))[0],
    );
}
