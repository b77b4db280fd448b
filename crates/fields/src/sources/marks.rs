//! Which recognisers need to be asked about an event: each of its names is looked up once, in a
//! table that the compiler builds from what the recognisers are known by.

use super::{ALL, EXPLICIT, windows};
use model::Fields;

/// A set of names, by its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// An event of Windows that a collector put into an object of its own.
    WindowsNested,
    WindowsOldBeat,
    WindowsFlat,
    Explicit,
    /// Of the recogniser in this row of [`ALL`].
    Row(usize),
}

impl Mark {
    /// How many there are before the rows.
    const BEFORE: usize = 4;

    const fn bit(self) -> u32 {
        1 << match self {
            Self::WindowsNested => 0,
            Self::WindowsOldBeat => 1,
            Self::WindowsFlat => 2,
            Self::Explicit => 3,
            Self::Row(row) => Self::BEFORE + row,
        }
    }
}

/// The marks whose names an event has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Marks(u32);

impl Marks {
    pub fn of(out: &Fields<'_>) -> Self {
        Self(out.leaves().iter().fold(0, |marks, leaf| marks | of_name(&leaf.name)))
    }

    /// Whether the event has one of the mark's names.
    pub(super) fn has(self, mark: Mark) -> bool {
        self.0 & mark.bit() != 0
    }
}

/// More than twice as many as there are names.
const SLOTS: usize = 256;

/// Names by [`slot`], the next free one where several have the same, each with the bits of its marks.
static TABLE: [(&str, u32); SLOTS] = table();

fn of_name(name: &str) -> u32 {
    let mut at = slot(name.as_bytes());
    loop {
        let (known, marks) = TABLE[at];
        if marks == 0 || known == name {
            return marks;
        }
        at = (at + 1) % SLOTS;
    }
}

const fn slot(name: &[u8]) -> usize {
    if name.is_empty() {
        return 0;
    }
    let (first, middle, last) = (name[0] as usize, name[name.len() / 2] as usize, name[name.len() - 1] as usize);
    (first * 3 + middle * 23 + last * 7 + name.len() * 29) % SLOTS
}

const fn table() -> [(&'static str, u32); SLOTS] {
    let mut table = [("", 0); SLOTS];
    add(&mut table, windows::NESTED, Mark::WindowsNested);
    add(&mut table, windows::OLD_BEAT, Mark::WindowsOldBeat);
    add(&mut table, windows::FLAT, Mark::WindowsFlat);
    add(&mut table, EXPLICIT, Mark::Explicit);
    assert!(Mark::BEFORE + ALL.len() <= u32::BITS as usize);
    let mut row = 0;
    while row < ALL.len() {
        add(&mut table, ALL[row].0, Mark::Row(row));
        row += 1;
    }
    table
}

const fn add(table: &mut [(&'static str, u32); SLOTS], names: &[&'static str], mark: Mark) {
    let mut i = 0;
    while i < names.len() {
        let mut at = slot(names[i].as_bytes());
        while table[at].1 != 0 && !same(table[at].0.as_bytes(), names[i].as_bytes()) {
            at = (at + 1) % SLOTS;
        }
        table[at] = (names[i], table[at].1 | mark.bit());
        i += 1;
    }
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    let mut i = 0;
    while i < a.len() && i < b.len() && a[i] == b[i] {
        i += 1;
    }
    i == a.len() && i == b.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_with_all_its_marks_and_no_other_is() {
        let mut used = 0;
        for (row, (names, _)) in ALL.iter().enumerate() {
            for name in *names {
                assert!(Marks(of_name(name)).has(Mark::Row(row)), "{name}");
                assert_eq!(of_name(&format!("{name}x")), 0);
                used += 1;
            }
        }
        for (names, mark) in [
            (windows::NESTED, Mark::WindowsNested),
            (windows::OLD_BEAT, Mark::WindowsOldBeat),
            (windows::FLAT, Mark::WindowsFlat),
            (EXPLICIT, Mark::Explicit),
        ] {
            for name in names {
                assert!(Marks(of_name(name)).has(mark), "{name}");
                used += 1;
            }
        }
        assert!(used * 2 < SLOTS);
        for name in ["", "a", "Image", "categorx"] {
            assert_eq!(of_name(name), 0, "{name}");
        }
    }
}
