//! Exact numbers of correlations: whole millionths, in two parts so that SQLite's 64 bits hold their
//! sums: `high * 10^9 + low`, with `low` from 0 to 10^9 - 1.

use crate::operators::compare;
use crate::sigma::correlation::{Bound, Op};

/// What `high` counts.
pub(in crate::sql) const UNIT: i128 = 1_000_000_000;
/// Largest absolute value that counts as a number.
const NUMBER_MAX: f64 = 1e15;

/// A number in two parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::sql) struct Number {
    pub high: i64,
    pub low: i64,
}

impl Number {
    /// At most 10^21 in absolute value.
    pub(super) fn of(millionths: i128) -> Self {
        let part = |part: i128| i64::try_from(part).unwrap_or_default();
        Self { high: part(millionths.div_euclid(UNIT)), low: part(millionths.rem_euclid(UNIT)) }
    }

    fn millionths(self) -> i128 {
        i128::from(self.high) * UNIT + i128::from(self.low)
    }
}

/// To the nearest millionth.
pub(super) fn millionths(number: f64) -> i128 {
    number.trunc() as i128 * 1_000_000 + (number.fract() * 1e6).round() as i128
}

/// The number of a text, if it has one that counts.
pub(in crate::sql) fn number(text: &str) -> Option<Number> {
    compare::number(text).filter(|number| number.abs() <= NUMBER_MAX).map(|number| Number::of(millionths(number)))
}

/// Inputs that are looked for in a window's list, and inputs that must not be there; bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sql) struct Inputs {
    wanted: u64,
    unwanted: u64,
}

impl Inputs {
    /// Two numbers with a space between them.
    pub(in crate::sql) fn read(text: &str) -> Option<Self> {
        let (wanted, unwanted) = text.split_once(' ')?;
        Some(Self { wanted: wanted.parse().ok()?, unwanted: unwanted.parse().ok()? })
    }

    /// The most of the wanted inputs that can be picked from the list (`0,2,1`) so that each is larger than
    /// the one before; -1 where there is an unwanted one.
    pub(in crate::sql) fn in_order(self, list: &str) -> Option<i64> {
        // Of all growing parts of each length, the least last number.
        let mut ends: Vec<u32> = Vec::new();
        for item in list.split(',').filter(|item| !item.is_empty()) {
            let input: u32 = item.parse().ok().filter(|input| *input < 64)?;
            if self.unwanted >> input & 1 == 1 {
                return Some(-1);
            }
            if self.wanted >> input & 1 == 0 {
                continue;
            }
            let at = ends.partition_point(|end| *end < input);
            match ends.get_mut(at) {
                Some(end) => *end = input,
                None => ends.push(input),
            }
        }
        i64::try_from(ends.len()).ok()
    }
}

/// A percentile and what it has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sql) struct Percentile {
    percentile: u8,
    bounds: Vec<(Op, i128)>,
}

impl Percentile {
    pub(super) fn new(percentile: u8, bounds: &[Bound]) -> Self {
        Self { percentile, bounds: bounds.iter().map(|bound| (bound.op, millionths(bound.value))).collect() }
    }

    /// As [`Self::read`] reads it.
    pub(super) fn written(&self) -> String {
        let mut out = self.percentile.to_string();
        for (op, millionths) in &self.bounds {
            out.push_str(&format!(" {} {millionths}", op.sign()));
        }
        out
    }

    pub(in crate::sql) fn read(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let percentile = words.next()?.parse().ok().filter(|percentile| *percentile <= 100)?;
        let mut bounds = Vec::new();
        while let Some(sign) = words.next() {
            let op = Op::ALL.into_iter().find(|op| op.sign() == sign)?;
            bounds.push((op, words.next()?.parse().ok()?));
        }
        Some(Self { percentile, bounds })
    }

    /// Whether the numbers of the list have it so.
    pub(in crate::sql) fn holds(&self, list: &str) -> Option<bool> {
        let one = |item: &str| {
            let (high, low) = item.split_once(':')?;
            Some(Number { high: high.parse().ok()?, low: low.parse().ok()? }.millionths())
        };
        let mut numbers: Vec<i128> = list.split(',').map(one).collect::<Option<_>>()?;
        numbers.sort_unstable();
        let rank = usize::from(self.percentile) * numbers.len().checked_sub(1)?;
        let low = *numbers.get(rank / 100)?;
        let high = numbers.get(rank / 100 + 1).copied().unwrap_or(low);
        let hundredths = low * 100 + (rank % 100) as i128 * (high - low);
        Some(self.bounds.iter().all(|(op, bound)| op.holds(hundredths.cmp(&(bound * 100)))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_in_two_parts() {
        for (text, parts) in [
            ("0", Some((0, 0))),
            ("1.5", Some((0, 1_500_000))),
            ("-0.000001", Some((-1, 999_999_999))),
            ("1e15", Some((1_000_000_000_000, 0))),
            ("1e16", None),
            ("x", None),
        ] {
            assert_eq!(number(text).map(|number| (number.high, number.low)), parts, "{text}");
        }
    }

    #[test]
    fn the_longest_growing_part_is_found() {
        let all = Inputs { wanted: u64::MAX, unwanted: 0 };
        for (list, length) in [("", 0), ("3", 1), ("0,1,2", 3), ("2,1,0", 1), ("1,1,1", 1), ("5,0,1,4,2,3", 4)] {
            assert_eq!(all.in_order(list), Some(length), "{list}");
        }
        assert_eq!(all.in_order("1,x"), None);
        let some = Inputs::read("5 8").expect("two numbers");
        assert_eq!(some.in_order("0,1,2"), Some(2));
        assert_eq!(some.in_order("0,3,2"), Some(-1));
        assert_eq!(Inputs::read("5"), None);
    }

    #[test]
    fn percentiles_lie_between_two_values() {
        let list = "0:1000000,0:3000000,0:2000000";
        for (constant, expected) in
            [("50 = 2000000", true), ("75 = 2500000", true), ("100 >= 3000000 < 3000001", true), ("0 > 1000000", false)]
        {
            let percentile = Percentile::read(constant).expect(constant);
            assert_eq!(percentile.written(), constant);
            assert_eq!(percentile.holds(list), Some(expected), "{constant}");
        }
        for bad in ["", "101", "50 ~ 1", "50 =", "x = 1"] {
            assert_eq!(Percentile::read(bad), None, "{bad}");
        }
    }
}
