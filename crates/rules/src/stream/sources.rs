//! Log sources as numbers and sets of them.

use crate::sigma::LogSource;
use model::EventSource;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

/// Event sources whose answer is remembered, at most.
const REMEMBERED_MAX: usize = 4_096;

/// A set of log sources by number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Set(Vec<u64>);

impl Set {
    pub fn add(&mut self, number: u32) {
        let word = number as usize / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (number % 64);
    }
    pub fn has(&self, number: u32) -> bool {
        self.0.get(number as usize / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }
    pub fn meets(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).any(|(a, b)| a & b != 0)
    }
}

/// The log sources of all rules, each once.
#[derive(Debug, Default)]
pub(super) struct Sources {
    all: Vec<LogSource>,
    numbers: HashMap<LogSource, u32>,
}

impl Sources {
    pub fn number(&mut self, source: &LogSource) -> u32 {
        if let Some(number) = self.numbers.get(source) {
            return *number;
        }
        let number = self.all.len() as u32;
        self.all.push(source.clone());
        self.numbers.insert(source.clone(), number);
        number
    }

    pub fn admits(&self, number: u32, event: &EventSource<'_>) -> bool {
        self.all.get(number as usize).is_some_and(|source| source.admits(event))
    }

    fn admitted(&self, event: &EventSource<'_>) -> Set {
        let mut set = Set::default();
        for (number, source) in (0..).zip(&self.all) {
            if source.admits(event) {
                set.add(number);
            }
        }
        set
    }
}

/// What was answered before, for one engine.
#[derive(Debug, Default)]
pub(super) struct Memory {
    last: Option<(EventSource<'static>, Arc<Set>)>,
    known: HashMap<Key, Arc<Set>>,
}

type Key = (Option<String>, Option<Vec<String>>, Option<Vec<String>>);

impl Memory {
    /// The log sources that admit the event.
    pub fn of(&mut self, sources: &Sources, event: &EventSource<'_>) -> Arc<Set> {
        if let Some((last, set)) = &self.last
            && last == event
        {
            return set.clone();
        }
        let own = |texts: &Option<Vec<Cow<'_, str>>>| {
            texts.as_ref().map(|texts| texts.iter().map(|text| text.to_string()).collect())
        };
        let key: Key = (event.product.as_ref().map(ToString::to_string), own(&event.categories), own(&event.services));
        if self.known.len() >= REMEMBERED_MAX && !self.known.contains_key(&key) {
            self.known.clear();
        }
        let set = self.known.entry(key).or_insert_with(|| Arc::new(sources.admitted(event))).clone();
        let owned = model::Fields::new(event.clone()).into_owned().source;
        self.last = Some((owned, set.clone()));
        set
    }
}
