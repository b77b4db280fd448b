//! How things are: health, the metrics for Prometheus, and the rates that the dashboard shows.

use super::Api;
use super::auth::{Anyone, Cached, Viewer};
use super::error::ApiResult;
use crate::worker_http::{metrics_response, vault_state};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use model::{ErrorKind, Timestamp};
use pipeline::accept::QUEUE_WRITES;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use storage::StorageResult;
use storage::coordination::RateUnit;
use tokio::time::Instant;

const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
/// Parts whose reported failure makes the API red; others, channels for one, are not its business.
const PARTS: [&str; 5] = ["catalog", "coordination", "events", "queue", QUEUE_WRITES];

/// The contract's health. The names `redis` and `database` stand for what does their work here.
pub async fn health(_: Anyone, State(api): State<Arc<Api>>) -> Response {
    let (catalog, coordination) = tokio::join!(
        answers("the catalog", api.deps.catalog.ping()),
        answers("the coordination store", api.deps.coordination.settings()),
    );
    let mut errors: Vec<String> =
        [&catalog, &coordination].into_iter().filter_map(|r| r.as_ref().err().cloned()).collect();
    // Reasons may quote a store; this page is public, so it only says which part.
    let parts = api.deps.health.all();
    let failed = PARTS.into_iter().filter(|part| parts.get(part).is_some_and(Result::is_err));
    errors.extend(failed.map(|part| format!("{part} is not working")));
    let state = |ok: bool| if ok { "connected" } else { "disconnected" };
    let mut body = json!({
        "status": if errors.is_empty() { "healthy" } else { "unhealthy" },
        "service": "mutt-webui",
        "version": "2.3",
        "redis": state(coordination.is_ok()),
        "database": state(catalog.is_ok()),
    });
    if let Some(vault) = vault_state(&api.deps.health) {
        body["vault"] = vault.into();
    }
    if errors.is_empty() {
        return Json(body).into_response();
    }
    body["error"] = errors.join("; ").into();
    (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
}

async fn answers<T>(what: &str, question: impl Future<Output = StorageResult<T>>) -> Result<(), String> {
    match tokio::time::timeout(HEALTH_TIMEOUT, question).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => {
            tracing::warn!(%error, "{what} refused the health check");
            Err(format!("{what} is not working"))
        }
        Err(_) => Err(format!("{what} does not answer")),
    }
}

pub async fn exposition(_: Anyone, State(api): State<Arc<Api>>, headers: HeaderMap) -> Response {
    metrics_response(&api.deps.metrics, &headers)
}

/// Rates of accepted events, and 24 hours of them.
pub async fn summary(_: Viewer, State(api): State<Arc<Api>>) -> ApiResult<Response> {
    let (body, cached) = rates(&api).await?;
    Ok(if cached { (Extension(Cached), Json(body)).into_response() } else { Json(body).into_response() })
}

/// The rates, and whether they were made before.
pub async fn rates(api: &Api) -> ApiResult<(Value, bool)> {
    // Held while asking, so that many dashboards cost one question.
    let mut kept = api.summary.lock().await;
    if let Some((_, body)) = kept.as_ref().filter(|(at, _)| at.elapsed() < api.deps.options.metrics_cache) {
        return Ok((body.clone(), true));
    }
    let now = api.deps.clock.now();
    let coordination = &api.deps.coordination;
    let hours_from = Timestamp::from_secs(start_of(RateUnit::Hour, now) - 23 * 3_600);
    let minutes_from = Timestamp::from_secs(start_of(RateUnit::Minute, now) - 60 * 60);
    let end = now.plus(Duration::from_micros(1));
    let unavailable = "Redis connection failed";
    let asked = Instant::now();
    let minutes = api
        .ask("accepted_minutes", coordination.accepted(RateUnit::Minute, minutes_from, end))
        .await
        .map_err(|error| error.named(ErrorKind::Unavailable, unavailable))?;
    let hours = api
        .ask("accepted_hours", coordination.accepted(RateUnit::Hour, hours_from, end))
        .await
        .map_err(|error| error.named(ErrorKind::Unavailable, unavailable))?;
    api.deps.metrics.webui_redis_scan_latency.observe(asked.elapsed().as_secs_f64());
    let body = json!({
        "summary": {
            "current_rate_1m": rate(&minutes, 1, now),
            "avg_rate_15m": rate(&minutes, 15, now),
            "avg_rate_1h": rate(&minutes, 60, now),
        },
        "chart_24h": chart(&hours, now),
    });
    *kept = Some((Instant::now(), body.clone()));
    Ok((body, false))
}

type Counts = [(Timestamp, u64)];

fn start_of(unit: RateUnit, at: Timestamp) -> i64 {
    at.secs().div_euclid(unit.seconds()) * unit.seconds()
}

/// Events a minute over the last `window` minutes, minutes without any included. The oldest minute
/// counts by the part of it that lies in the window, since the newest has only begun.
fn rate(minutes: &Counts, window: i64, now: Timestamp) -> f64 {
    let this = start_of(RateUnit::Minute, now);
    let oldest = this - window * 60;
    let begun = now.since(Timestamp::from_secs(this)).as_secs_f64() / 60.0;
    let sum: f64 = minutes
        .iter()
        .map(|(start, n)| {
            let n = *n as f64;
            match start.secs() {
                start if start > oldest => n,
                start if start == oldest => n * (1.0 - begun),
                _ => 0.0,
            }
        })
        .sum();
    two_decimals(sum / window as f64)
}

/// 24 hours to now, UTC, as events a minute.
fn chart(hours: &Counts, now: Timestamp) -> Value {
    let this = start_of(RateUnit::Hour, now);
    let (mut labels, mut data) = (Vec::with_capacity(24), Vec::with_capacity(24));
    for back in (0..24).rev() {
        let start = this - back * 3_600;
        let n = hours.iter().find(|(at, _)| at.secs() == start).map_or(0, |(_, n)| *n);
        // The hour that has begun has as many minutes as have passed.
        let minutes = if back == 0 { ((now.secs() - this) as f64 / 60.0).clamp(1.0, 60.0) } else { 60.0 };
        labels.push(format!("{:02}:00", start.div_euclid(3_600).rem_euclid(24)));
        data.push(two_decimals(n as f64 / minutes));
    }
    json!({ "labels": labels, "data": data })
}

fn two_decimals(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_767_268_800; // 2026-01-01T12:00:00Z

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_secs(NOON + seconds)
    }

    #[test]
    fn averages_divide_by_real_minutes() {
        // One busy minute an hour ago must not look like a busy hour.
        let minutes = [(at(-600), 150)];
        assert_eq!(rate(&minutes, 1, at(30)), 0.0);
        assert_eq!(rate(&minutes, 15, at(30)), 10.0);
        assert_eq!(rate(&minutes, 60, at(30)), 2.5);
    }

    #[test]
    fn the_current_rate_slides_over_the_minute() {
        let minutes = [(at(-60), 60), (at(0), 30)];
        assert_eq!(rate(&minutes, 1, at(0)), 90.0);
        assert_eq!(rate(&minutes, 1, at(30)), 60.0);
    }

    #[test]
    fn the_chart_has_24_hours_oldest_first() {
        let chart = chart(&[(at(0), 100), (at(-3_600), 600)], at(600));
        let (labels, data) = (chart["labels"].as_array().unwrap(), chart["data"].as_array().unwrap());
        assert_eq!((labels.len(), data.len()), (24, 24));
        assert_eq!((&labels[0], &labels[23]), (&json!("13:00"), &json!("12:00")));
        assert_eq!((&data[22], &data[23]), (&json!(10.0), &json!(10.0)));
    }
}
