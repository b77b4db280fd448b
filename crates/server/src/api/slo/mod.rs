//! Service level objectives (contract mutt §9.4), in both forms that clients know: `slos` and
//! `components`. Measured by Prometheus where one is configured, else (and while it does not answer)
//! by this process's own counters since its start.
//!
//! Always true here: what nobody has measured is critical, as the contract says, and is marked
//! `no_data`: a monitor must not stay green in an outage. A measurement without any request is data.

mod prometheus;
mod series;

pub use prometheus::Prometheus;

use super::Api;
use super::auth::Viewer;
use super::error::ApiResult;
use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};
use series::Series;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const WINDOW_HOURS: u64 = 24;
const BURN_WARNING: f64 = 5.0;
const BURN_CRITICAL: f64 = 10.0;
const INGESTOR_TARGET: f64 = 0.995;
const FORWARDER_TARGET: f64 = 0.99;
/// How long what was measured is shown again.
const KEPT: Duration = Duration::from_secs(5);

/// Good ones against bad ones. Refusals that are the client's doing are neither.
pub struct Ratio {
    pub name: &'static str,
    pub description: &'static str,
    pub target: f64,
    pub metric: &'static str,
    pub good: &'static [&'static str],
    pub bad: &'static [&'static str],
}

pub const RATIOS: [Ratio; 4] = [
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
pub struct Latency {
    pub name: &'static str,
    pub description: &'static str,
    pub target: f64,
    pub warning: f64,
    pub critical: f64,
    pub metric: &'static str,
}

pub const LATENCIES: [Latency; 2] = [
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

/// What is known of an objective.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Reading {
    /// A share, or seconds.
    Value(f64),
    /// It was measured, and there was nothing that could have gone wrong.
    Quiet,
    /// Nobody measured it.
    #[default]
    Unknown,
}

impl Reading {
    /// Of something that is measured at all.
    fn of(value: Option<f64>) -> Self {
        value.map_or(Self::Quiet, Self::Value)
    }

    fn value(self) -> Option<f64> {
        match self {
            Self::Value(value) => Some(value),
            Self::Quiet | Self::Unknown => None,
        }
    }
}

/// What was measured of each objective, in the order of [`RATIOS`] and [`LATENCIES`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measured {
    pub ratios: [Reading; RATIOS.len()],
    /// Seconds.
    pub latencies: [Reading; LATENCIES.len()],
}

impl Measured {
    fn is_empty(&self) -> bool {
        self.ratios.iter().chain(&self.latencies).all(|reading| *reading == Reading::Unknown)
    }

    /// From the text of `/metrics`, which holds the metrics of the roles that run here.
    fn own(text: &str) -> Self {
        let series = Series::read(text);
        Self {
            ratios: RATIOS.each_ref().map(|ratio| {
                let sum = |labels: &[&str]| labels.iter().map(|label| series.sum(ratio.metric, label)).sum::<f64>();
                match series.has(ratio.metric) {
                    true => Reading::of(share(sum(ratio.good), sum(ratio.bad))),
                    false => Reading::Unknown,
                }
            }),
            latencies: LATENCIES.each_ref().map(|latency| match series.has(&format!("{}_count", latency.metric)) {
                true => Reading::of(series.p99(latency.metric)),
                false => Reading::Unknown,
            }),
        }
    }
}

/// `None` when nothing was counted.
fn share(good: f64, bad: f64) -> Option<f64> {
    (good + bad > 0.0).then(|| good / (good + bad))
}

/// What was measured, where, and what to say about it.
#[derive(Debug, Clone)]
pub struct Sight {
    measured: Measured,
    source: &'static str,
    message: String,
}

pub async fn slo(_: Viewer, State(api): State<Arc<Api>>) -> ApiResult {
    // Settings that cannot be read now are as none: the answer is about the service, not about them.
    let settings = api.ask("settings", api.deps.coordination.settings()).await.unwrap_or_default();
    let sight = api.sight(&settings).await;
    let mut slos: Vec<Value> =
        RATIOS.iter().zip(sight.measured.ratios).map(|(ratio, actual)| ratio.judged(actual, &settings)).collect();
    let latencies = LATENCIES.iter().zip(sight.measured.latencies);
    slos.extend(latencies.map(|(latency, actual)| latency.judged(actual, &settings)));
    let mut components = Map::new();
    for (name, actual, key, target) in [
        ("ingestor", sight.measured.ratios[0], "slo_ingest_success_target", INGESTOR_TARGET),
        ("forwarder", sight.measured.ratios[1], "slo_forward_success_target", FORWARDER_TARGET),
    ] {
        components.insert(name.to_owned(), component(actual, number(&settings, key, target), window(&settings)));
    }
    Ok(Json(json!({
        "timestamp": api.deps.clock.now().rfc3339(),
        "window_hours": window(&settings),
        "source": sight.source,
        "message": sight.message,
        "slos": slos,
        "components": components,
    })))
}

impl Api {
    /// What is measured now, or was a few seconds ago.
    async fn sight(&self, settings: &BTreeMap<String, String>) -> Sight {
        // Held while asking, so that many dashboards cost one question.
        let mut kept = self.sight.lock().await;
        let Some(prometheus) = &self.deps.prometheus else {
            return self.own_sight("since this process started".to_owned());
        };
        if let Some((_, sight)) = kept.as_ref().filter(|(at, _)| at.elapsed() < KEPT) {
            return sight.clone();
        }
        let hours = RATIOS.map(|ratio| objective_window(ratio.name, settings));
        let latency_hours = LATENCIES.map(|latency| objective_window(latency.name, settings));
        let sight = match prometheus.measure(&hours, &latency_hours).await {
            Ok(measured) if measured.is_empty() => {
                tracing::warn!("Prometheus has no data of ours; the objectives are judged by own counters");
                self.own_sight("Prometheus has no data of ours; since this process started".to_owned())
            }
            Ok(measured) => Sight { measured, source: "prometheus", message: "measured by Prometheus".to_owned() },
            Err(problem) => {
                tracing::warn!(problem, "Prometheus cannot be asked; the objectives are judged by own counters");
                self.own_sight(format!("Prometheus cannot be asked ({problem}); since this process started"))
            }
        };
        *kept = Some((Instant::now(), sight.clone()));
        sight
    }

    fn own_sight(&self, message: String) -> Sight {
        Sight { measured: Measured::own(&self.deps.metrics.encode()), source: "counters", message }
    }
}

fn burn(actual: f64, target: f64) -> f64 {
    (1.0 - actual) / (1.0 - target)
}

/// The form that the original documented.
fn component(reading: Reading, target: f64, window_hours: u64) -> Value {
    let burn = reading.value().map(|actual| burn(actual, target));
    json!({
        "target": target,
        "availability": reading.value(),
        "error_budget_remaining": burn.map(|burn| (1.0 - burn).max(0.0)),
        "burn_rate": burn,
        "state": match burn {
            None if reading == Reading::Unknown => "critical",
            None => "ok",
            Some(burn) if burn <= 1.0 => "ok",
            Some(burn) if burn <= 2.0 => "warn",
            Some(_) => "critical",
        },
        "no_data": reading == Reading::Unknown,
        "window_hours": window_hours,
    })
}

impl Ratio {
    fn judged(&self, reading: Reading, settings: &BTreeMap<String, String>) -> Value {
        let limit = |what: &str, default| number(settings, &format!("slo_{}_{what}", self.name), default);
        let burn = reading.value().map(|actual| burn(actual, self.target));
        let status = match burn {
            None if reading == Reading::Unknown => "critical",
            None => "ok",
            Some(burn) if burn >= limit("burn_rate_critical", BURN_CRITICAL) => "critical",
            Some(burn) if burn >= limit("burn_rate_warning", BURN_WARNING) => "warning",
            Some(burn) if burn > 1.0 => "breaching",
            Some(_) => "ok",
        };
        json!({
            "slo_name": self.name,
            "description": self.description,
            "window_hours": objective_window(self.name, settings),
            "actual_value": reading.value(),
            "no_data": reading == Reading::Unknown,
            "target": self.target,
            "status": status,
            "burn_rate": burn,
            "error_budget_remaining": burn.map(|burn| (1.0 - burn).max(0.0)),
            "message": message(reading, self.target, self.metric),
        })
    }
}

impl Latency {
    fn judged(&self, reading: Reading, settings: &BTreeMap<String, String>) -> Value {
        let limit = |what: &str, default| number(settings, &format!("slo_{}_{what}", self.name), default);
        let status = match reading.value() {
            None if reading == Reading::Unknown => "critical",
            None => "ok",
            Some(seconds) if seconds > limit("upper_bound_critical", self.critical) => "critical",
            Some(seconds) if seconds > limit("upper_bound_warning", self.warning) => "warning",
            Some(seconds) if seconds > self.target => "breaching",
            Some(_) => "ok",
        };
        json!({
            "slo_name": self.name,
            "description": self.description,
            "window_hours": objective_window(self.name, settings),
            "actual_value": reading.value(),
            "no_data": reading == Reading::Unknown,
            "target_seconds": self.target,
            "status": status,
            "burn_rate": null,
            "error_budget_remaining": null,
            "message": message(reading, self.target, self.metric),
        })
    }
}

fn message(reading: Reading, target: f64, metric: &str) -> String {
    match reading {
        Reading::Value(actual) => format!("{actual:.4}, target {target}"),
        Reading::Quiet => "nothing came in this time; the objective is kept".to_owned(),
        Reading::Unknown => format!(
            "no data: no {metric} of the role that counts it; set webui.prometheus_url (PROMETHEUS_URL) to a \
             Prometheus that scrapes every role"
        ),
    }
}

/// Live settings of each objective, after `slo_<name>_`.
const OF_RATIOS: [&str; 3] = ["window_hours", "burn_rate_warning", "burn_rate_critical"];
const OF_LATENCIES: [&str; 3] = ["window_hours", "upper_bound_warning", "upper_bound_critical"];
/// And of all of them, as the original's older documents named them.
const OF_ALL: [&str; 3] = ["slo_window_hours", "slo_ingest_success_target", "slo_forward_success_target"];
const WINDOW_HOURS_MAX: u64 = 8_760;

/// Every live setting of the objectives.
pub fn setting_keys() -> Vec<String> {
    let of = |name: &str, whats: [&str; 3]| whats.map(|what| format!("slo_{name}_{what}"));
    let ratios = RATIOS.iter().flat_map(|ratio| of(ratio.name, OF_RATIOS));
    let latencies = LATENCIES.iter().flat_map(|latency| of(latency.name, OF_LATENCIES));
    OF_ALL.iter().map(|key| (*key).to_owned()).chain(ratios).chain(latencies).collect()
}

/// `None` when the key is none of ours.
pub fn check_setting(key: &str, value: &str) -> Option<Result<(), String>> {
    if !setting_keys().iter().any(|known| known == key) {
        return None;
    }
    let value = value.trim();
    let (good, expected) = if key.ends_with("window_hours") {
        let good = value.parse::<u64>().is_ok_and(|n| (1..=WINDOW_HOURS_MAX).contains(&n));
        (good, format!("a whole number from 1 to {WINDOW_HOURS_MAX}"))
    } else if key.ends_with("_target") {
        (value.parse::<f64>().is_ok_and(|n| n > 0.0 && n < 1.0), "a number between 0 and 1".to_owned())
    } else {
        (value.parse::<f64>().is_ok_and(|n| n > 0.0 && n <= 1e6), "a number over 0, at most 1000000".to_owned())
    };
    Some(if good { Ok(()) } else { Err(format!("{key}: `{value}` is not {expected}")) })
}

fn number(settings: &BTreeMap<String, String>, key: &str, default: f64) -> f64 {
    match settings.get(key) {
        Some(value) if check_setting(key, value) == Some(Ok(())) => value.trim().parse().unwrap_or(default),
        _ => default,
    }
}

fn window(settings: &BTreeMap<String, String>) -> u64 {
    number(settings, "slo_window_hours", WINDOW_HOURS as f64) as u64
}

fn objective_window(name: &str, settings: &BTreeMap<String, String>) -> u64 {
    number(settings, &format!("slo_{name}_window_hours"), window(settings) as f64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_checked_and_acts() {
        for key in setting_keys() {
            assert_eq!(check_setting(&key, "many").map(|r| r.is_err()), Some(true), "{key}");
            let good = if key.ends_with("_target") { "0.9" } else { "2" };
            assert_eq!(check_setting(&key, good), Some(Ok(())), "{key}");
        }
        assert_eq!(check_setting("slo_nothing_window_hours", "2"), None);
        let settings = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let none = BTreeMap::new();
        assert_eq!(RATIOS[0].judged(Reading::Value(0.998), &none)["status"], "breaching");
        let strict = settings("slo_ingestor_availability_burn_rate_critical", "1.5");
        assert_eq!(RATIOS[0].judged(Reading::Value(0.998), &strict)["status"], "critical");
        assert_eq!(LATENCIES[0].judged(Reading::Value(0.6), &none)["status"], "breaching");
        let strict = settings("slo_ingestor_latency_p99_upper_bound_warning", "0.55");
        assert_eq!(LATENCIES[0].judged(Reading::Value(0.6), &strict)["status"], "warning");
        assert_eq!(objective_window("ingestor_availability", &settings("slo_window_hours", "6")), 6);
        assert_eq!(objective_window("ingestor_availability", &settings("slo_window_hours", "junk")), 24);
    }
}
