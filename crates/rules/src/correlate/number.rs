//! Exact arithmetic: metrics as fractions of millionths, so that a sum does not depend on the order
//! of its parts.

use crate::operators::compare;
use crate::sigma::correlation::{Bound, Op};
use std::cmp::Ordering;

/// Largest absolute value that counts as a number.
pub(super) const NUMBER_MAX: f64 = 1e15;
const MILLION: i128 = 1_000_000;

/// The number of a text, if it has one (see [`correlation`](crate::sigma::correlation)).
pub(super) fn number(text: &str) -> Option<f64> {
    compare::number(text).filter(|number| number.abs() <= NUMBER_MAX)
}

/// In millionths, to the nearest; exact for whole numbers.
pub(super) fn millionths(number: f64) -> i128 {
    number.trunc() as i128 * MILLION + (number.fract() * 1e6).round() as i128
}

/// What a window measures: `millionths / parts`, with `parts` at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Metric {
    pub millionths: i128,
    pub parts: i128,
}

impl Metric {
    pub fn count(count: usize) -> Self {
        Self { millionths: count as i128 * MILLION, parts: 1 }
    }

    /// For people.
    pub fn as_f64(self) -> f64 {
        self.millionths as f64 / (self.parts as f64 * 1e6)
    }
}

/// A bound, ready to be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit {
    op: Op,
    millionths: i128,
}

impl Limit {
    pub fn new(bound: Bound) -> Self {
        Self { op: bound.op, millionths: millionths(bound.value) }
    }

    pub fn met(self, metric: Metric) -> bool {
        let order: Ordering = metric.millionths.cmp(&(self.millionths * metric.parts));
        self.op.holds(order)
    }

    /// The least count that meets it, for `gt` and `gte`.
    pub fn least_count(self) -> usize {
        let over = i128::from(self.op == Op::Gt);
        let whole = (self.millionths + over).max(0).div_euclid(MILLION);
        let rest = i128::from((self.millionths + over).max(0).rem_euclid(MILLION) > 0);
        usize::try_from(whole + rest).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn millionths_are_exact_for_whole_numbers_and_nearest_otherwise() {
        for (number, expected) in [
            (0.0, 0),
            (1.0, 1_000_000),
            (-1.5, -1_500_000),
            (0.1, 100_000),
            (0.000_000_4, 0),
            (-0.000_000_6, -1),
            (9_007_199_254_740_991.0, 9_007_199_254_740_991_000_000),
            (1e15, 1_000_000_000_000_000_000_000),
        ] {
            assert_eq!(millionths(number), expected, "{number}");
        }
    }

    #[test]
    fn the_least_count_is_the_first_that_meets() {
        for op in [Op::Gt, Op::Gte] {
            for value in [-3.0, 0.0, 0.5, 1.0, 2.0, 2.000_001, 2.999_999, 100.0] {
                let limit = Limit::new(Bound { op, value });
                let first = (0..).find(|count| limit.met(Metric::count(*count))).unwrap();
                assert_eq!(limit.least_count(), first, "{op:?} {value}");
            }
        }
    }
}
