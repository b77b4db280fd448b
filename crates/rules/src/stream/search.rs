//! Many texts, looked for in one value at once.
//!
//! Nearly all values have none of them, so what counts is to find that out fast. A text that may stand
//! anywhere is known by a few of its *grams*, pieces of three or four neighbouring bytes, one behind the
//! other; a value is looked at in steps of as many bytes, so that one of the looks falls on one of them.
//! A look is a bit in a small table, and only what is in there is compared in full. A text that has to
//! stand at the beginning or the end of a value, or to be the value, is known by its bytes there.
//!
//! A value that is made to waste time, by pieces of texts that never go on, is searched text by text
//! once a bound is passed, which is linear in the value.

use super::RuleIndex;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;

/// The shortest text that is looked for anywhere in a value; shorter ones are nearly always there.
pub(super) const ANYWHERE_BYTES_MIN: usize = 3;
/// Bytes of a gram of short and of long texts.
const SHORT: usize = 3;
const LONG: usize = 4;
/// The shortest of the long texts.
const LONG_BYTES_MIN: usize = 7;
/// Most bytes from one look to the next: each has to be a gram of every text.
const STEP_MAX: usize = 8;
/// Bytes at an end of a text that it is known by there, at most.
const EDGE: usize = 8;

/// Where in a value a text has to stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Where {
    /// It is the value.
    Whole,
    Start,
    End,
    /// Of at least [`ANYWHERE_BYTES_MIN`] bytes.
    Anywhere,
}

/// Texts on their way into a [`Search`], each with the rules that look for it, ascending.
pub(super) type Texts = BTreeMap<(Where, String), Vec<RuleIndex>>;

/// The texts of one field, folded.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// One behind the other.
    bytes: Box<[u8]>,
    texts: Box<[Text]>,
    rules: Box<[RuleIndex]>,
    whole: Edges,
    starts: Edges,
    ends: Edges,
    short: Grams<SHORT>,
    long: Grams<LONG>,
}

/// Where its bytes and its rules are.
#[derive(Debug, Clone, Copy)]
struct Text {
    bytes: Span,
    rules: Span,
}

#[derive(Debug, Clone, Copy, Default)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    fn of<T>(self, all: &[T]) -> &[T] {
        &all[self.start as usize..self.end as usize]
    }
}

/// Texts that have to be the value, or to stand at one end of it.
#[derive(Debug, Default)]
struct Edges {
    /// By bit: how many bytes texts are known by.
    lengths: u64,
    known: FxHashMap<u64, Span>,
    /// Numbers of texts.
    texts: Box<[u32]>,
}

/// Texts by their grams.
#[derive(Debug, Default)]
struct Grams<const WIDTH: usize> {
    /// Bytes from one look to the next; zero where there is no text.
    step: usize,
    /// By hash, a bit for every gram that is known; their number is a power of two.
    bits: Box<[u64]>,
    known: FxHashMap<u32, Span>,
    /// Numbers of texts, and where in them the gram is.
    places: Box<[(u32, u32)]>,
    /// All texts that are known here.
    all: Box<[u32]>,
}

impl Search {
    pub fn build(given: Texts) -> Self {
        let (mut bytes, mut texts, mut rules) = (Vec::new(), Vec::new(), Vec::new());
        let mut by_place: BTreeMap<Where, Vec<u32>> = BTreeMap::new();
        for ((place, text), of_rules) in given {
            by_place.entry(place).or_default().push(texts.len() as u32);
            texts.push(Text { bytes: append(&mut bytes, text.as_bytes()), rules: append(&mut rules, &of_rules) });
        }
        let mut search = Self { bytes: bytes.into(), texts: texts.into(), rules: rules.into(), ..Self::default() };
        let mut of = |place| by_place.remove(&place).unwrap_or_default();
        let (long, short) =
            of(Where::Anywhere).into_iter().partition(|text| search.text(*text).len() >= LONG_BYTES_MIN);
        search.whole = Edges::build(&search, of(Where::Whole), whole_key, LENGTH_MAX);
        search.starts = Edges::build(&search, of(Where::Start), start_key, EDGE);
        search.ends = Edges::build(&search, of(Where::End), end_key, EDGE);
        search.short = Grams::build(&search, short);
        search.long = Grams::build(&search, long);
        search
    }

    fn text(&self, number: u32) -> &[u8] {
        self.texts[number as usize].bytes.of(&self.bytes)
    }

    /// Calls `found` with the rules of every text that stands where it has to, at least once. `value` is
    /// folded.
    pub fn find(&self, value: &[u8], found: &mut impl FnMut(&[RuleIndex])) {
        let mut found = |number: u32| found(self.texts[number as usize].rules.of(&self.rules));
        let length = value.len().min(LENGTH_MAX);
        if self.whole.lengths >> length & 1 == 1 {
            let texts = self.whole.with(whole_key(value, length));
            texts.filter(|text| self.text(*text) == value).for_each(&mut found);
        }
        for length in self.starts.lengths(value.len()) {
            let texts = self.starts.with(start_key(value, length));
            texts.filter(|text| value.starts_with(self.text(*text))).for_each(&mut found);
        }
        for length in self.ends.lengths(value.len()) {
            let texts = self.ends.with(end_key(value, length));
            texts.filter(|text| value.ends_with(self.text(*text))).for_each(&mut found);
        }
        self.short.find(self, value, &mut found);
        self.long.find(self, value, &mut found);
    }
}

/// Puts items behind others; where they are.
fn append<T: Copy>(all: &mut Vec<T>, items: &[T]) -> Span {
    let start = all.len() as u32;
    all.extend_from_slice(items);
    Span { start, end: all.len() as u32 }
}

/// Longer values are of one length to [`Edges::lengths`].
const LENGTH_MAX: usize = 63;

fn whole_key(value: &[u8], _: usize) -> u64 {
    end_key(value, value.len().min(EDGE)) ^ (value.len() as u64).rotate_right(16)
}

fn start_key(value: &[u8], length: usize) -> u64 {
    value
        .first_chunk::<EDGE>()
        .filter(|_| length == EDGE)
        .map_or_else(|| packed(&value[..length]), |b| u64::from_le_bytes(*b))
}

fn end_key(value: &[u8], length: usize) -> u64 {
    let from = value.len() - length;
    value
        .last_chunk::<EDGE>()
        .filter(|_| length == EDGE)
        .map_or_else(|| packed(&value[from..]), |b| u64::from_le_bytes(*b))
}

/// Up to eight bytes as a number.
fn packed(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |packed, byte| packed << 8 | u64::from(*byte))
}

/// Numbers with the same key, one behind the other.
fn grouped<K: Ord + Copy + std::hash::Hash, T: Copy>(mut pairs: Vec<(K, T)>) -> (FxHashMap<K, Span>, Box<[T]>) {
    pairs.sort_by_key(|(key, _)| *key);
    let (mut known, mut all) = (FxHashMap::default(), Vec::with_capacity(pairs.len()));
    for same in pairs.chunk_by(|(one, _), (other, _)| one == other) {
        let start = all.len() as u32;
        all.extend(same.iter().map(|(_, item)| *item));
        known.insert(same[0].0, Span { start, end: all.len() as u32 });
    }
    known.shrink_to_fit();
    (known, all.into())
}

impl Edges {
    fn build(search: &Search, texts: Vec<u32>, key: impl Fn(&[u8], usize) -> u64, known_by: usize) -> Self {
        let mut lengths = 0;
        let keyed = texts.into_iter().map(|number| {
            let text = search.text(number);
            let length = text.len().min(known_by);
            lengths |= 1 << length;
            (key(text, length), number)
        });
        let (known, texts) = grouped(keyed.collect());
        Self { lengths, known, texts }
    }

    fn with(&self, key: u64) -> impl Iterator<Item = u32> {
        self.known.get(&key).map(|span| span.of(&self.texts)).unwrap_or_default().iter().copied()
    }

    /// How many bytes at an end of a value texts are known by.
    fn lengths(&self, value: usize) -> impl Iterator<Item = usize> {
        let mut left = self.lengths;
        std::iter::from_fn(move || {
            let length = left.trailing_zeros() as usize;
            left &= left.wrapping_sub(1);
            (length <= value && length <= EDGE).then_some(length)
        })
    }
}

impl<const WIDTH: usize> Grams<WIDTH> {
    fn build(search: &Search, texts: Vec<u32>) -> Self {
        let Some(shortest) = texts.iter().map(|number| search.text(*number).len()).min() else {
            return Self::default();
        };
        let step = (shortest - (WIDTH - 1)).min(STEP_MAX);
        let grams = |number: u32| search.text(number).array_windows::<WIDTH>().map(gram);
        let mut uses: FxHashMap<u32, u32> = FxHashMap::default();
        texts.iter().flat_map(|number| grams(*number)).for_each(|gram| *uses.entry(gram).or_default() += 1);
        let mut placed: Vec<(u32, (u32, u32))> = Vec::with_capacity(texts.len() * step);
        for number in &texts {
            // What many texts have, many values have.
            let of_text: Vec<u32> = grams(*number).collect();
            let common = |from: &usize| -> u32 { of_text[*from..*from + step].iter().map(|gram| uses[gram]).sum() };
            let from = (0..=of_text.len() - step).min_by_key(common).unwrap_or_default();
            placed.extend((from..from + step).map(|at| (of_text[at], (*number, at as u32))));
        }
        let mut bits = vec![0; (placed.len() * BITS_A_GRAM / 64).next_power_of_two().max(8)].into_boxed_slice();
        for (gram, _) in &placed {
            let (word, bit) = place(*gram, bits.len());
            bits[word] |= 1 << bit;
        }
        let (known, places) = grouped(placed);
        Self { step, bits, known, places, all: texts.into() }
    }

    fn find(&self, search: &Search, value: &[u8], found: &mut impl FnMut(u32)) {
        if self.step == 0 {
            return;
        }
        // Bytes that may be compared before the value counts as made to waste time.
        let mut left = COMPARED_MIN + COMPARED_PER_BYTE * value.len();
        let mut at = 0;
        while let Some(window) = value.get(at..).and_then(|rest| rest.first_chunk::<WIDTH>()) {
            let gram = gram(window);
            let (word, bit) = place(gram, self.bits.len());
            if self.bits[word] >> bit & 1 == 1
                && let Some(places) = self.known.get(&gram)
            {
                for (number, offset) in places.of(&self.places) {
                    let text = search.text(*number);
                    let rest = at.checked_sub(*offset as usize).map(|from| &value[from..]);
                    if rest.is_some_and(|rest| rest.starts_with(text)) {
                        found(*number);
                    }
                    match left.checked_sub(text.len()) {
                        Some(less) => left = less,
                        None => return self.find_each(search, value, found),
                    }
                }
            }
            at += self.step;
        }
    }

    /// One text after the other.
    #[cold]
    fn find_each(&self, search: &Search, value: &[u8], found: &mut impl FnMut(u32)) {
        for number in &self.all {
            if memchr::memmem::find(value, search.text(*number)).is_some() {
                found(*number);
            }
        }
    }
}

/// Bits of the small table for each gram: nearly all looks of nearly all values end there.
const BITS_A_GRAM: usize = 24;
/// Bytes that may be compared in one value, and for each of its own.
const COMPARED_MIN: usize = 4_096;
const COMPARED_PER_BYTE: usize = 16;

/// The bytes as a number.
fn gram<const WIDTH: usize>(window: &[u8; WIDTH]) -> u32 {
    window.iter().rev().fold(0, |gram, byte| gram << 8 | u32::from(*byte))
}

/// The place of a gram's bit in a table of so many words, a power of two.
fn place(gram: u32, words: usize) -> (usize, u32) {
    let hash = gram.wrapping_mul(0x9E37_79B1);
    ((hash >> 6) as usize & (words - 1), hash & 63)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const PLACES: [Where; 4] = [Where::Whole, Where::Start, Where::End, Where::Anywhere];

    fn found(search: &Search, value: &str) -> BTreeSet<RuleIndex> {
        let mut found = BTreeSet::new();
        search.find(value.as_bytes(), &mut |rules| found.extend(rules));
        found
    }

    fn stands(text: &str, place: Where, value: &str) -> bool {
        match place {
            Where::Whole => value == text,
            Where::Start => value.starts_with(text),
            Where::End => value.ends_with(text),
            Where::Anywhere => value.contains(text),
        }
    }

    #[track_caller]
    fn check(given: &[(Where, String)], values: &[String]) {
        let mut texts = Texts::new();
        for (rule, (place, text)) in (0..).zip(given) {
            texts.entry((*place, text.clone())).or_default().push(rule);
        }
        let search = Search::build(texts);
        for value in values {
            let stand = (0..).zip(given).filter(|(_, (place, text))| stands(text, *place, value));
            assert_eq!(found(&search, value), stand.map(|(rule, _)| rule).collect(), "{given:?} in {value:?}");
        }
    }

    fn given() -> impl Strategy<Value = Vec<(Where, String)>> {
        let text = prop_oneof!["[ab.é]{0,12}", "[a\\\\]{3,30}", "[a-c]{60,70}"];
        let one = (prop::sample::select(&PLACES), text);
        let one =
            one.prop_filter("too short", |(place, text)| *place != Where::Anywhere || text.len() >= ANYWHERE_BYTES_MIN);
        prop::collection::vec(one, 0..24)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn texts_are_found_where_they_stand_and_nowhere_else(
            given in given(),
            around in prop::collection::vec(("[ab.é\\\\]{0,12}", any::<prop::sample::Index>(), "[ab.é]{0,12}"), 1..12),
        ) {
            let values: Vec<String> = around
                .into_iter()
                .map(|(before, index, behind)| {
                    let text = if given.is_empty() { "" } else { &*given[index.index(given.len())].1 };
                    format!("{before}{text}{behind}")
                })
                .collect();
            check(&given, &values);
        }
    }

    #[test]
    fn a_value_that_is_made_to_waste_time_is_searched_all_the_same() {
        let given: Vec<(Where, String)> =
            (0..200).map(|n| (Where::Anywhere, format!("{}{n}", "a".repeat(4 + n % 40)))).collect();
        let wasting = "a".repeat(100_000);
        check(&given, &[wasting.clone(), format!("{wasting}7"), format!("{wasting}44{wasting}199x")]);
    }

    #[test]
    fn without_texts_nothing_is_found() {
        check(&[], &[String::new(), "a".repeat(100)]);
    }
}
