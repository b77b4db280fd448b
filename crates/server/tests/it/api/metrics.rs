use super::{NOON, api, api_with};
use async_trait::async_trait;
use model::{ErrorKind, Timestamp};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use storage::coordination::{
    Admission, BreakerSettings, BreakerState, BreakerView, Coordination, Grant, RateLimit, RateUnit, UnhandledEvent,
    UnhandledPolicy,
};
use storage::{StorageError, StorageResult};

#[tokio::test]
async fn rates_are_over_real_minutes_and_the_chart_has_24_points() {
    let api = api().await;
    // One busy minute, five minutes ago: the original called that the average of an hour.
    api.state.coordination.count_accepted(300, NOON.minus(Duration::from_secs(300))).await.unwrap();
    for path in ["/api/v1/metrics", "/api/v2/metrics"] {
        let metrics = api.get(path).await.is(200);
        let summary = &metrics["summary"];
        assert_eq!(summary["current_rate_1m"], json!(0.0));
        assert_eq!(summary["avg_rate_15m"], json!(20.0));
        assert_eq!(summary["avg_rate_1h"], json!(5.0));
        let (labels, data) = (&metrics["chart_24h"]["labels"], &metrics["chart_24h"]["data"]);
        assert_eq!((labels.as_array().unwrap().len(), data.as_array().unwrap().len()), (24, 24));
        assert_eq!((&labels[0], &labels[23]), (&json!("13:00"), &json!("12:00")));
        assert_eq!(data[22], json!(5.0));
    }
}

#[tokio::test]
async fn an_event_shows_in_the_current_rate_at_once() {
    let api = api().await;
    api.state.coordination.count_accepted(3, NOON).await.unwrap();
    assert_eq!(api.get("/api/v2/metrics").await.is(200)["summary"]["current_rate_1m"], json!(3.0));
}

#[tokio::test]
async fn a_summary_is_kept_for_a_moment_and_counted_as_cached() {
    let api = api_with(|state| state.options.metrics_cache = Duration::from_secs(600)).await;
    let first = api.get("/api/v2/metrics").await.is(200);
    api.state.coordination.count_accepted(100, NOON).await.unwrap();
    assert_eq!(api.get("/api/v2/metrics").await.is(200), first);
    let text = api.get("/metrics").await.text;
    for status in ["success", "success_cached"] {
        let line = format!("mutt_webui_api_requests_total{{endpoint=\"metrics\",status=\"{status}\"}} 1");
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn without_its_store_it_is_503_in_the_words_of_the_original() {
    let api = api_with(|state| state.coordination = Arc::new(Down)).await;
    let answer = api.get("/api/v2/metrics").await;
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(answer.refuses(503, "")["error"], "Redis connection failed");
    let text = api.get("/metrics").await.text;
    assert!(text.contains("{endpoint=\"metrics\",status=\"fail_redis\"} 1"), "{text}");
}

#[tokio::test]
async fn requests_are_counted_by_endpoint_and_never_by_path() {
    let api = api().await;
    api.get("/api/v2/rules").await.is(200);
    api.get("/api/v2/rules/77").await.is(404);
    api.get("/api/v2/made-up-17").await.is(404);
    let answer = api.get("/metrics").await;
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    for line in [
        "mutt_webui_api_requests_total{endpoint=\"rules\",status=\"success\"} 1",
        "mutt_webui_api_requests_total{endpoint=\"rules\",status=\"error_invalid\"} 1",
        "mutt_webui_api_requests_total{endpoint=\"unknown\",status=\"error_invalid\"} 1",
        "mutt_webui_api_latency_seconds_count{endpoint=\"rules\"} 2",
        "mutt_webui_db_query_latency_ms_count{operation=\"rules_list\"} 1",
    ] {
        assert!(answer.text.lines().any(|l| l == line), "{line} is not in\n{}", answer.text);
    }
    assert!(!answer.text.contains("made-up"));
}

/// A coordination store that is away, with a secret in its error.
pub struct Down;

fn away<T>() -> StorageResult<T> {
    Err(StorageError::new(ErrorKind::Unavailable, "cannot connect to redis://:s3cret@cache"))
}

#[async_trait]
impl Coordination for Down {
    async fn acquire(&self, _: &str, _: u32, _: RateLimit, _: Timestamp) -> StorageResult<Grant> {
        away()
    }
    async fn acquire_all(&self, _: &str, _: u32, _: RateLimit, _: Timestamp) -> StorageResult<Grant> {
        away()
    }
    async fn claim(&self, _: &str, _: std::time::Duration) -> StorageResult<bool> {
        away()
    }
    async fn breaker_admit(&self, _: &str, _: BreakerSettings, _: Timestamp) -> StorageResult<Admission> {
        away()
    }
    async fn breaker_report(
        &self,
        _: &str,
        _: bool,
        _: BreakerSettings,
        _: Timestamp,
    ) -> StorageResult<(BreakerState, BreakerView)> {
        away()
    }
    async fn breaker_view(&self, _: &str, _: BreakerSettings, _: Timestamp) -> StorageResult<BreakerView> {
        away()
    }
    async fn breaker_half_open(&self, _: &str, _: Timestamp) -> StorageResult<()> {
        away()
    }
    async fn observe_unhandled(
        &self,
        _: Vec<UnhandledEvent>,
        _: UnhandledPolicy,
        _: Timestamp,
    ) -> StorageResult<Vec<usize>> {
        away()
    }
    async fn count_accepted(&self, _: u64, _: Timestamp) -> StorageResult<()> {
        away()
    }
    async fn accepted(&self, _: RateUnit, _: Timestamp, _: Timestamp) -> StorageResult<Vec<(Timestamp, u64)>> {
        away()
    }
    async fn settings(&self) -> StorageResult<BTreeMap<String, String>> {
        away()
    }
    async fn set_setting(&self, _: &str, _: &str) -> StorageResult<Option<String>> {
        away()
    }
    async fn delete_setting(&self, _: &str) -> StorageResult<Option<String>> {
        away()
    }
    async fn replace_setting(&self, _: &str, _: Option<&str>, _: Option<&str>) -> StorageResult<()> {
        away()
    }
    async fn release(&self, _: &str) -> StorageResult<()> {
        away()
    }
}
