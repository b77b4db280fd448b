//! This process's own counters, read back from what it shows to Prometheus.

/// The text of `/metrics`, line by line: the one way to read histograms back.
pub struct Series<'a>(Vec<(&'a str, &'a str, f64)>);

impl<'a> Series<'a> {
    pub fn read(text: &'a str) -> Self {
        let line = |line: &'a str| {
            let (series, value) = line.rsplit_once(' ')?;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            Some((name, labels, value.parse().ok()?))
        };
        Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(line).collect())
    }

    pub fn has(&self, metric: &str) -> bool {
        self.0.iter().any(|(name, _, _)| *name == metric)
    }

    /// All series of a metric that carry a label.
    pub fn sum(&self, metric: &str, label: &str) -> f64 {
        self.0.iter().filter(|(name, labels, _)| *name == metric && labels.contains(label)).map(|(_, _, n)| n).sum()
    }

    /// Interpolated within its bucket, as Prometheus does.
    pub fn p99(&self, metric: &str) -> Option<f64> {
        let bound = |labels: &str| labels.split("le=\"").nth(1)?.split('"').next()?.parse::<f64>().ok();
        let mut buckets: Vec<(f64, f64)> = self
            .0
            .iter()
            .filter(|(name, _, _)| name.strip_suffix("_bucket") == Some(metric))
            .filter_map(|(_, labels, n)| Some((bound(labels)?, *n)))
            .collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let rank = buckets.last().map(|(_, n)| n * 0.99).filter(|rank| *rank > 0.0)?;
        let (mut lower, mut below) = (0.0, 0.0);
        for (upper, n) in buckets {
            if n >= rank {
                return Some(if upper.is_finite() {
                    lower + (upper - lower) * (rank - below) / (n - below)
                } else {
                    lower
                });
            }
            (lower, below) = (upper, n);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_99th_percentile_is_interpolated_within_its_bucket() {
        let text = "# TYPE x histogram\nx_bucket{le=\"0.1\"} 98\nx_bucket{le=\"0.5\"} 100\nx_bucket{le=\"+Inf\"} 100\nx_count 100\n";
        assert_eq!(Series::read(text).p99("x").map(|p| (p * 100.0).round()), Some(30.0));
        assert_eq!(Series::read(text).p99("y"), None);
        assert_eq!(Series::read("x_bucket{le=\"0.1\"} 0\nx_bucket{le=\"+Inf\"} 7\n").p99("x"), Some(0.1));
    }
}
