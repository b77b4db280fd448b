//! What was measured: a list of values by name, one value a round.

use std::collections::BTreeMap;

/// Names are paths such as `http/256/strict/rate`; values stand in the order of the rounds.
#[derive(Default)]
pub struct Record {
    pub values: BTreeMap<String, Vec<f64>>,
}

/// Median and range of some rounds.
#[derive(Clone, Copy)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Record {
    pub fn push(&mut self, name: impl Into<String>, value: f64) {
        self.values.entry(name.into()).or_default().push(value);
    }

    pub fn spread(&self, name: &str) -> Option<Spread> {
        spread(self.values.get(name)?)
    }

    /// One value divided by the other, round by round.
    pub fn ratio(&self, over: &str, under: &str) -> Option<Spread> {
        let (over, under) = (self.values.get(over)?, self.values.get(under)?);
        let ratios: Vec<f64> = over.iter().zip(under).filter(|(_, u)| **u > 0.0).map(|(o, u)| o / u).collect();
        spread(&ratios)
    }
}

fn spread(values: &[f64]) -> Option<Spread> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let median = match sorted.len() {
        0 => return None,
        n if n % 2 == 0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    };
    Some(Spread { median, min: sorted[0], max: sorted[sorted.len() - 1] })
}

/// The value below which `share` of them lie; sorts them.
pub fn percentile(values: &mut [u32], share: f64) -> f64 {
    values.sort_unstable();
    let at = ((values.len() as f64 * share) as usize).min(values.len().saturating_sub(1));
    values.get(at).map_or(f64::NAN, |v| f64::from(*v))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_made_round_by_round_and_not_of_medians() {
        let mut record = Record::default();
        for (a, b) in [(10.0, 10.0), (40.0, 20.0), (30.0, 10.0)] {
            record.push("a", a);
            record.push("b", b);
        }
        let ratio = record.ratio("a", "b").unwrap();
        assert_eq!((ratio.median, ratio.min, ratio.max), (2.0, 1.0, 3.0));
        assert!(record.ratio("a", "not measured").is_none());
    }

    #[test]
    fn percentiles_do_not_leave_the_values() {
        assert_eq!(percentile(&mut [3, 1, 2], 0.5), 2.0);
        assert_eq!(percentile(&mut [3, 1, 2], 1.0), 3.0);
        assert!(percentile(&mut [], 0.5).is_nan());
    }
}
