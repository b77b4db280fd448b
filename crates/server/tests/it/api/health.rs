use super::{api, api_with};
use crate::api::metrics::Down;
use std::sync::Arc;

#[tokio::test]
async fn a_healthy_api_answers_as_the_original() {
    let health = api().await.get("/health").await.is(200);
    for (key, value) in [
        ("status", "healthy"),
        ("service", "mutt-webui"),
        ("version", "2.3"),
        ("redis", "connected"),
        ("database", "connected"),
    ] {
        assert_eq!(health[key], value, "{key}");
    }
}

#[tokio::test]
async fn a_part_that_is_down_is_503_and_no_secret_is_told() {
    let api = api_with(|state| state.coordination = Arc::new(Down)).await;
    let answer = api.get("/health").await;
    assert!(!answer.text.contains("s3cret"), "{}", answer.text);
    let health = answer.is(503);
    assert_eq!((&health["status"], &health["redis"]), (&"unhealthy".into(), &"disconnected".into()));
    assert_eq!((&health["service"], &health["version"]), (&"mutt-webui".into(), &"2.3".into()));
    assert!(health["error"].as_str().unwrap().contains("coordination"));
}

#[tokio::test]
async fn a_part_reported_as_failed_is_named_without_its_reason() {
    let api = api().await;
    api.state.health.failed("events", "cannot open postgres://user:s3cret@db");
    api.state.health.failed("moogsoft", "refused");
    let answer = api.get("/health").await;
    assert!(!answer.text.contains("s3cret") && !answer.text.contains("moogsoft"), "{}", answer.text);
    assert_eq!(answer.is(503)["error"], "events is not working");
    api.state.health.ok("events");
    api.get("/health").await.is(200);
}
