//! All detection rules over one event in one pass: the streaming matcher.
//!
//! Answers exactly what [`Predicate::matches`] answers for every rule whose log source admits the
//! event; `tests/all_matches.rs` compares them. How it avoids asking every rule:
//!
//! 1. **Log source.** What is known about the event's source admits some of the rules' log sources;
//!    the set is remembered, because streams repeat themselves.
//! 2. **Keys.** For every rule one group of texts is chosen of which one must be seen in a certain
//!    field whenever the rule matches (`keys`): the group that looks rarest. The texts of all rules
//!    about one field are looked for in that field's values at once (`search`). Rules without such a
//!    text wait for a field to be there; the few without any are asked always.
//! 3. **Candidates** only are evaluated, and a question that several of them ask is answered once.
//!
//! Time is linear in the event for a given set of rules, whatever the event holds.

mod compile;
mod evaluate;
mod keys;
mod search;
mod sources;

use crate::Predicate;
use crate::sigma::LogSource;
use evaluate::Atom;
use model::{EventSource, Fields};
use rustc_hash::FxHashMap;
use search::Search;
use sources::Sources;
use std::ops::Range;
use std::sync::Arc;

/// A rule's number: its place in what the engine was compiled from.
pub type RuleIndex = u32;

/// Rules, compiled. Immutable; share it between threads, give each a [`Scratch`].
#[derive(Debug, Default)]
pub struct Engine {
    /// Fields that some rule asks about, by name. Events cannot add to it, so its hash need not be one
    /// that withstands chosen keys.
    names: Names,
    fields: Vec<FieldPlan>,
    /// Texts that are looked for in the values of every field.
    everywhere: TextPlan,
    atoms: Vec<Atom>,
    nodes: Vec<Node>,
    rules: Vec<RulePlan>,
    sources: Sources,
    /// Rules that no key finds.
    always: Vec<RuleIndex>,
    /// Tells this engine from every other one.
    id: Arc<()>,
}

/// Numbers by name.
#[derive(Debug, Default)]
struct Names {
    known: FxHashMap<Box<str>, u32>,
    /// By hash, a bit for every name: most fields of most events nobody asks about.
    seen: [u64; 8],
}

impl Names {
    fn place(name: &str) -> (usize, u32) {
        let bytes = name.as_bytes();
        let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return (0, 0) };
        let hash = usize::from(*first) * 13 + usize::from(*last) * 3 + bytes.len() * 97;
        (hash / 64 % 8, (hash % 64) as u32)
    }

    #[inline]
    fn get(&self, name: &str) -> Option<u32> {
        let (word, bit) = Self::place(name);
        if self.seen[word] >> bit & 1 == 0 { None } else { self.known.get(name).copied() }
    }

    fn insert(&mut self, name: &str, number: u32) {
        let (word, bit) = Self::place(name);
        self.seen[word] |= 1 << bit;
        self.known.insert(name.into(), number);
    }
}

/// What is asked about one field.
#[derive(Debug, Default)]
struct FieldPlan {
    texts: TextPlan,
    /// Candidates as soon as the field has a value.
    present: Vec<RuleIndex>,
}

/// Texts that make rules candidates.
#[derive(Debug, Default)]
struct TextPlan {
    search: Search,
    /// Log sources of the rules that it serves.
    sources: sources::Set,
}

#[derive(Debug)]
struct RulePlan {
    root: u32,
    source: u32,
}

/// A predicate, its parts by number.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Node {
    All(Box<[u32]>),
    Any(Box<[u32]>),
    Not(u32),
    Atom(u32),
}

/// Working memory of one thread; give the same one to every call.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Whose memory this is.
    engine: Option<Arc<()>>,
    /// The number of this event, so that nothing has to be cleared.
    event: u64,
    /// By rule: the last event that made it a candidate.
    asked: Vec<u64>,
    candidates: Vec<RuleIndex>,
    /// By atom: twice the event that it was answered for, plus the answer.
    answers: Vec<u64>,
    slots: Vec<Slot>,
    used: Vec<u32>,
    folded: String,
    /// All values of the event, folded; empty until somebody asks.
    every: Vec<Folded>,
    admitted: sources::Memory,
}

/// A field's values in this event.
#[derive(Debug, Default)]
struct Slot {
    exists: bool,
    values: Vec<Piece>,
}

/// One value: which leaf, and its folded text.
#[derive(Debug)]
struct Piece {
    leaf: u32,
    folded: Folded,
}

/// Where the folded text of a value lies.
#[derive(Debug)]
struct Folded {
    place: Range<usize>,
    ascii: bool,
}

impl Folded {
    fn of<'s>(&self, all: &'s str) -> &'s str {
        &all[self.place.clone()]
    }
}

/// Sees how long each candidate takes, and may leave rules out. The default watches nothing.
pub trait Watch {
    /// Whether the rule is to be asked at all.
    fn wanted(&mut self, _rule: RuleIndex) -> bool {
        true
    }
    /// The rule was asked, and this was the answer.
    fn asked(&mut self, _rule: RuleIndex, _hit: bool) {}
}

/// Watches nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unwatched;

impl Watch for Unwatched {}

impl Engine {
    /// Compiles rules; their order gives their numbers.
    pub fn compile<'r>(rules: impl IntoIterator<Item = (&'r LogSource, &'r Predicate)>) -> Self {
        compile::compile(rules)
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether the event's source admits the rule.
    pub fn admits(&self, rule: RuleIndex, event: &EventSource<'_>) -> bool {
        self.rules.get(rule as usize).is_some_and(|plan| self.sources.admits(plan.source, event))
    }

    /// Names of all fields that some rule asks about, in no order. Rules with keywords ask about all.
    pub fn field_names(&self) -> impl Iterator<Item = &str> {
        self.names.known.keys().map(|name| &**name)
    }

    /// The rules that match, ascending, appended to `hits`.
    pub fn matches(&self, event: &Fields<'_>, scratch: &mut Scratch, hits: &mut Vec<RuleIndex>) {
        self.matches_watched(event, scratch, hits, &mut Unwatched);
    }

    /// The same, watched.
    pub fn matches_watched(
        &self,
        event: &Fields<'_>,
        scratch: &mut Scratch,
        hits: &mut Vec<RuleIndex>,
        watch: &mut impl Watch,
    ) {
        if self.rules.is_empty() {
            return;
        }
        scratch.begin(self);
        let admitted = scratch.admitted.of(&self.sources, &event.source);
        self.fill(event, scratch);
        self.find(event, &admitted, scratch);
        let mut candidates = std::mem::take(&mut scratch.candidates);
        candidates.sort_unstable();
        for rule in &candidates {
            if admitted.has(self.rules[*rule as usize].source) && watch.wanted(*rule) {
                let hit = evaluate::Asker { engine: self, event, scratch }.node(self.rules[*rule as usize].root);
                watch.asked(*rule, hit);
                if hit {
                    hits.push(*rule);
                }
            }
        }
        candidates.clear();
        scratch.candidates = candidates;
    }

    /// Puts the event's leaves into the slots of the fields that are asked about.
    fn fill(&self, event: &Fields<'_>, scratch: &mut Scratch) {
        for (index, leaf) in event.leaves().iter().enumerate() {
            let Some(field) = self.names.get(&leaf.name) else { continue };
            let slot = &mut scratch.slots[field as usize];
            if !slot.exists {
                slot.exists = true;
                scratch.used.push(field);
            }
            if let Some(value) = &leaf.value {
                slot.values.push(Piece { leaf: index as u32, folded: append_folded(value, &mut scratch.folded) });
            }
        }
    }

    /// Finds the candidates.
    fn find(&self, event: &Fields<'_>, admitted: &sources::Set, scratch: &mut Scratch) {
        if self.everywhere.sources.meets(admitted) {
            scratch.fold_everything(event);
        }
        let Scratch { asked, candidates, slots, used, folded, every, event: number, .. } = scratch;
        let mut add = |rules: &[RuleIndex]| {
            for rule in rules {
                if std::mem::replace(&mut asked[*rule as usize], *number) != *number {
                    candidates.push(*rule);
                }
            }
        };
        add(&self.always);
        for field in used.iter() {
            let plan = &self.fields[*field as usize];
            let slot = &slots[*field as usize];
            if slot.values.is_empty() {
                continue;
            }
            add(&plan.present);
            if plan.texts.sources.meets(admitted) {
                for value in &slot.values {
                    plan.texts.find(&value.folded, folded, &mut add);
                }
            }
        }
        if self.everywhere.sources.meets(admitted) {
            for value in every.iter() {
                self.everywhere.find(value, folded, &mut add);
            }
        }
    }
}

impl TextPlan {
    fn find(&self, value: &Folded, all: &str, add: &mut impl FnMut(&[RuleIndex])) {
        let folded = value.of(all);
        self.search.find(folded.as_bytes(), add);
        // Patterns in any case also match these two for `k` and `s`, which folding leaves alone.
        if !value.ascii && folded.contains(['\u{212A}', 'ſ']) {
            self.search.find(folded.replace('\u{212A}', "k").replace('ſ', "s").as_bytes(), add);
        }
    }
}

impl Scratch {
    fn begin(&mut self, engine: &Engine) {
        self.event += 1;
        if !self.engine.as_ref().is_some_and(|known| Arc::ptr_eq(known, &engine.id)) {
            *self = Self { engine: Some(engine.id.clone()), event: 1, ..Self::default() };
            self.asked = vec![0; engine.rules.len()];
            self.answers = vec![0; engine.atoms.len()];
            self.slots.resize_with(engine.fields.len(), Slot::default);
        }
        for field in self.used.drain(..) {
            if let Some(slot) = self.slots.get_mut(field as usize) {
                slot.exists = false;
                slot.values.clear();
            }
        }
        self.every.clear();
        self.folded.clear();
        // A huge event's memory is given back.
        self.folded.shrink_to(1 << 20);
    }
}

impl Scratch {
    /// Folds all values of the event, once.
    fn fold_everything(&mut self, event: &Fields<'_>) {
        if self.every.is_empty() {
            for value in event.leaves().iter().filter_map(|leaf| leaf.value.as_deref()) {
                self.every.push(append_folded(value, &mut self.folded));
            }
        }
    }
}

fn append_folded(text: &str, out: &mut String) -> Folded {
    let (start, ascii) = (out.len(), text.is_ascii());
    if ascii {
        out.push_str(text);
        if let Some(added) = out.get_mut(start..) {
            added.make_ascii_lowercase();
        }
    } else {
        out.extend(text.chars().map(crate::operators::text::fold_char));
    }
    Folded { place: start..out.len(), ascii }
}
