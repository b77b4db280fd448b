//! Redis under Sentinel: the master dies, a replica takes over, and nobody restarts us.

use bytes::Bytes;
use model::{Durability, Timestamp};
use runtime::{Clock, Credentials, Secret, SystemClock};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use storage::coordination::{CoordinationConfig, RateLimit, RedisCoordinationConfig};
use storage::queue::{Queue, QueueConfig, QueueLimits, QueueName, RedisQueueConfig};
use storage::{RedisAddress, RedisConfig, RedisPlace};
use testkit::servers::{RedisGroup, SENTINEL_MASTER};

const PASSWORD: &str = "group-password";

fn config(group: &RedisGroup, ports: &[u16]) -> RedisConfig {
    let credentials = Credentials::fixed(None, Secret::new(PASSWORD));
    let nodes = ports.iter().map(|port| RedisAddress { host: "127.0.0.1".into(), port: *port }).collect();
    let mut redis = RedisConfig::server("not-asked.invalid", group.servers[0].port(), credentials);
    redis.place = RedisPlace::Sentinel { nodes, master: SENTINEL_MASTER.into() };
    redis
}

fn record(n: u32) -> Bytes {
    Bytes::from(format!(r#"{{"n":{n}}}"#))
}

/// Publishes as a client that repeats what was not answered.
async fn publish(queue: &Arc<dyn Queue>, n: u32) {
    let end = Instant::now() + Duration::from_secs(30);
    while let Err(error) = queue.publish(vec![record(n)], Durability::Strict).await {
        assert!(error.kind().is_transient(), "{error}");
        assert!(Instant::now() < end, "no master after 30 s: {error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn work_goes_on_at_the_new_master_and_nothing_that_was_copied_is_lost() {
    let mut group = RedisGroup::start(PASSWORD);
    let redis = config(&group, &group.ports());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let limits = QueueLimits { lease: Duration::from_secs(60), ..QueueLimits::default() };
    let queue = RedisQueueConfig::new(redis.clone(), limits, "pod");
    let queues = storage::queue::open(QueueConfig::Redis(Box::new(queue)), clock).await.unwrap();
    let coordination =
        storage::coordination::open(CoordinationConfig::Redis(Box::new(RedisCoordinationConfig::new(redis)))).await;
    let coordination = coordination.unwrap();
    let queue = Arc::clone(queues.get(QueueName::Ingest));
    for n in 0..100 {
        publish(&queue, n).await;
    }
    let mut consumer = queue.consumer();
    let held = consumer.next(10, Duration::from_secs(5)).await.unwrap();
    assert_eq!(held.len(), 10);
    // Sentinel promises nothing for what no replica has yet.
    assert_eq!(group.servers[0].cli(&["WAIT", "1", "10000"]), "1");

    group.servers[0].kill();
    for n in 100..200 {
        publish(&queue, n).await;
    }
    assert!(group.servers[1].cli(&["ROLE"]).starts_with("master"));
    let mut seen: BTreeSet<Bytes> = held.iter().map(|d| d.payload.clone()).collect();
    consumer.settle(held.into_iter().map(|d| d.ack()).collect()).await.unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    while seen.len() < 200 {
        assert!(Instant::now() < end, "{} of 200", seen.len());
        let batch = match consumer.next(50, Duration::from_secs(1)).await {
            Ok(batch) => batch,
            Err(error) => {
                assert!(error.kind().is_transient(), "{error}");
                continue;
            }
        };
        seen.extend(batch.iter().map(|d| d.payload.clone()));
        consumer.settle(batch.into_iter().map(|d| d.ack()).collect()).await.unwrap();
    }
    assert_eq!(seen, (0..200).map(record).collect());
    let limit = RateLimit { max: 3, window: Duration::from_secs(60) };
    let grant = coordination.acquire("moogsoft", 5, limit, Timestamp::from_secs(1)).await.unwrap();
    assert_eq!(grant.granted, 3, "limits are taken at the new master");

    // The old one comes back as a replica; who still talked to it would be refused.
    group.servers[0].start_again();
    let end = Instant::now() + Duration::from_secs(60);
    while !group.servers[0].is_replica() {
        assert!(Instant::now() < end, "the old master does not become a replica: {}", group.said());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    publish(&queue, 200).await;
    let last = consumer.next(10, Duration::from_secs(5)).await.unwrap();
    assert_eq!(last.len(), 1);
    consumer.settle(last.into_iter().map(|d| d.ack()).collect()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_while_the_old_master_lives_is_followed() {
    let group = RedisGroup::start(PASSWORD);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let queue = RedisQueueConfig::new(config(&group, &group.ports()), QueueLimits::default(), "pod");
    let queues = storage::queue::open(QueueConfig::Redis(Box::new(queue)), clock).await.unwrap();
    let queue = Arc::clone(queues.get(QueueName::Ingest));
    publish(&queue, 0).await;
    assert_eq!(group.servers[0].cli(&["WAIT", "1", "10000"]), "1");
    let sentinel = group.ports()[0].to_string();
    let switched = std::process::Command::new("redis-cli")
        .args(["-h", "127.0.0.1", "-p", &sentinel, "--no-auth-warning", "-a", PASSWORD])
        .args(["SENTINEL", "FAILOVER", SENTINEL_MASTER])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&switched.stdout).trim(), "OK");
    let end = Instant::now() + Duration::from_secs(30);
    while !group.servers[0].is_replica() {
        assert!(Instant::now() < end, "no switch");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The connection to what is a replica now still stands; its refusals must make us ask again.
    publish(&queue, 1).await;
    let mut consumer = queue.consumer();
    let batch = consumer.next(10, Duration::from_secs(5)).await.unwrap();
    assert_eq!(batch.iter().map(|d| d.payload.clone()).collect::<Vec<_>>(), [record(0), record(1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_or_ignorant_sentinel_does_not_matter_while_another_knows() {
    let mut group = RedisGroup::start(PASSWORD);
    group.kill_sentinel(0);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let open = |ports: Vec<u16>| {
        let queue = RedisQueueConfig::new(config(&group, &ports), QueueLimits::default(), "pod");
        storage::queue::open(QueueConfig::Redis(Box::new(queue)), Arc::clone(&clock))
    };
    let queues = open(group.ports()).await.unwrap();
    publish(queues.get(QueueName::Ingest), 1).await;
    let error = open(vec![group.ports()[0]]).await.err().unwrap();
    assert!(error.kind().is_transient() && error.to_string().contains("Sentinel"), "{error}");
    assert!(!error.to_string().contains(PASSWORD));
}
