//! Service level objectives (contract mutt §9.4), from this process's own counters since its start:
//! nothing is asked over the network, and what has no data is not called broken. For longer windows
//! and several processes the shipped Prometheus rules compute the same from `/metrics`.

use super::Api;
use super::auth::Caller;
use super::error::ApiResult;
use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};
use std::sync::Arc;

const WINDOW_HOURS: u64 = 24;
const BURN_WARNING: f64 = 5.0;
const BURN_CRITICAL: f64 = 10.0;

/// Good ones against bad ones. Refusals that are the client's doing are neither.
struct Ratio {
    name: &'static str,
    description: &'static str,
    target: f64,
    metric: &'static str,
    good: &'static [&'static str],
    bad: &'static [&'static str],
}

const RATIOS: [Ratio; 4] = [
    Ratio {
        name: "ingestor_availability",
        description: "ingest requests that were not refused for a reason of ours",
        target: 0.999,
        metric: "mutt_ingest_requests_total",
        good: &["status=\"success\""],
        bad: &["reason=\"queue_full\"", "reason=\"redis\"", "reason=\"unknown\""],
    },
    Ratio {
        name: "forwarder_availability",
        description: "alerts that were delivered",
        target: 0.995,
        metric: "mutt_moog_alerts_processed_total",
        good: &["status=\"success\""],
        bad: &["status=\"dlq\"", "status=\"error\""],
    },
    Ratio {
        name: "alerter_processing_success",
        description: "events that were worked, by a rule or counted as unhandled",
        target: 0.999,
        metric: "mutt_alerter_events_processed_total",
        good: &["status=\"handled\"", "status=\"unhandled\""],
        bad: &["status=\"poison\"", "status=\"error\""],
    },
    Ratio {
        name: "alerter_cache_reload_success",
        description: "reloads of the rules that succeeded",
        target: 0.99,
        metric: "mutt_alerter_cache_reload_total",
        good: &["status=\"success\""],
        bad: &["status=\"failure\""],
    },
];

/// The 99th percentile of a histogram, against seconds.
struct Latency {
    name: &'static str,
    description: &'static str,
    target: f64,
    warning: f64,
    critical: f64,
    metric: &'static str,
}

const LATENCIES: [Latency; 2] = [
    Latency {
        name: "ingestor_latency_p99",
        description: "time to answer an ingest request",
        target: 0.5,
        warning: 0.75,
        critical: 1.0,
        metric: "mutt_ingest_latency_seconds",
    },
    Latency {
        name: "forwarder_latency_p99",
        description: "time of one delivery attempt",
        target: 2.0,
        warning: 3.0,
        critical: 5.0,
        metric: "mutt_moog_request_latency_seconds",
    },
];

pub async fn slo(_: Caller, State(api): State<Arc<Api>>) -> ApiResult {
    let text = api.deps.metrics.encode();
    let series = Series::read(&text);
    let mut slos: Vec<Value> = RATIOS.iter().map(|ratio| ratio.judged(&series)).collect();
    slos.extend(LATENCIES.iter().map(|latency| latency.judged(&series)));
    let mut components = Map::new();
    for (name, ratio, target) in [("ingestor", &RATIOS[0], 0.995), ("forwarder", &RATIOS[1], 0.99)] {
        components.insert(name.to_owned(), component(ratio.actual(&series), target));
    }
    Ok(Json(json!({
        "timestamp": api.deps.clock.now().rfc3339(),
        "window_hours": WINDOW_HOURS,
        "source": "counters of this process since its start",
        "slos": slos,
        "components": components,
    })))
}

fn burn(actual: f64, target: f64) -> f64 {
    (1.0 - actual) / (1.0 - target)
}

/// The form that the original documented.
fn component(actual: Option<f64>, target: f64) -> Value {
    let burn = actual.map(|actual| burn(actual, target));
    json!({
        "target": target,
        "availability": actual,
        "error_budget_remaining": burn.map(|burn| (1.0 - burn).max(0.0)),
        "burn_rate": burn,
        "state": match burn {
            None => "ok",
            Some(burn) if burn <= 1.0 => "ok",
            Some(burn) if burn <= 2.0 => "warn",
            Some(_) => "critical",
        },
        "window_hours": WINDOW_HOURS,
    })
}

impl Ratio {
    /// `None` when nothing was counted.
    fn actual(&self, series: &Series<'_>) -> Option<f64> {
        let sum = |labels: &[&str]| labels.iter().map(|label| series.sum(self.metric, label)).sum::<f64>();
        let (good, bad) = (sum(self.good), sum(self.bad));
        (good + bad > 0.0).then(|| good / (good + bad))
    }

    fn judged(&self, series: &Series<'_>) -> Value {
        let actual = self.actual(series);
        let burn = actual.map(|actual| burn(actual, self.target));
        let status = match burn {
            None => "ok",
            Some(burn) if burn >= BURN_CRITICAL => "critical",
            Some(burn) if burn >= BURN_WARNING => "warning",
            Some(burn) if burn > 1.0 => "breaching",
            Some(_) => "ok",
        };
        json!({
            "slo_name": self.name,
            "description": self.description,
            "window_hours": WINDOW_HOURS,
            "actual_value": actual,
            "target": self.target,
            "status": status,
            "burn_rate": burn,
            "error_budget_remaining": burn.map(|burn| (1.0 - burn).max(0.0)),
            "message": message(actual, self.target),
        })
    }
}

impl Latency {
    fn judged(&self, series: &Series<'_>) -> Value {
        let actual = series.p99(self.metric);
        let status = match actual {
            None => "ok",
            Some(seconds) if seconds > self.critical => "critical",
            Some(seconds) if seconds > self.warning => "warning",
            Some(seconds) if seconds > self.target => "breaching",
            Some(_) => "ok",
        };
        json!({
            "slo_name": self.name,
            "description": self.description,
            "window_hours": WINDOW_HOURS,
            "actual_value": actual,
            "target_seconds": self.target,
            "status": status,
            "burn_rate": null,
            "error_budget_remaining": null,
            "message": message(actual, self.target),
        })
    }
}

fn message(actual: Option<f64>, target: f64) -> String {
    match actual {
        Some(actual) => format!("{actual:.4}, target {target}"),
        None => "nothing was counted yet".to_owned(),
    }
}

/// The text of `/metrics`, line by line: the one way to read histograms back.
struct Series<'a>(Vec<(&'a str, &'a str, f64)>);

impl<'a> Series<'a> {
    fn read(text: &'a str) -> Self {
        let line = |line: &'a str| {
            let (series, value) = line.rsplit_once(' ')?;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            Some((name, labels, value.parse().ok()?))
        };
        Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(line).collect())
    }

    fn sum(&self, metric: &str, label: &str) -> f64 {
        self.0.iter().filter(|(name, labels, _)| *name == metric && labels.contains(label)).map(|(_, _, n)| n).sum()
    }

    /// Interpolated within its bucket, as Prometheus does.
    fn p99(&self, metric: &str) -> Option<f64> {
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
