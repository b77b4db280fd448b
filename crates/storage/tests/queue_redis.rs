//! Queues in a real Redis: the contract, what `redis-cli` sees, and what kills can do.

#![expect(clippy::unwrap_used, reason = "tests")]

use bytes::Bytes;
use model::{ErrorKind, EventId};
use runtime::{Clock, Credentials, Secret, SystemClock};
use std::sync::Arc;
use std::time::Duration;
use storage::queue::{
    Consumer, Delivery, Durability, ForeignIds, QueueConfig, QueueLimits, QueueName, Queues, RedisQueueConfig,
    Rejection, contract, open,
};
use storage::{RedisConfig, RedisTls};
use testkit::servers::{RedisOptions, RedisServer};
use testkit::wait_until;

const LONG: Duration = Duration::from_secs(10);
const SOON: Duration = Duration::from_millis(200);

fn config(server: &RedisServer, password: &str) -> RedisQueueConfig {
    let credentials = Credentials::fixed(None, Secret::new(password));
    let mut redis = RedisConfig::server("localhost", server.port(), credentials);
    redis.tls = server.certs().map(|certs| RedisTls { ca_file: Some(certs.ca.clone()) });
    let limits = QueueLimits { ingest_records_max: contract::BOUND, lease: contract::LEASE, ..QueueLimits::default() };
    let mut config = RedisQueueConfig::new(redis, limits, "pod");
    config.ingest.silence_max = contract::LEASE;
    config.alerts.silence_max = contract::LEASE;
    config
}

async fn opened(config: &RedisQueueConfig) -> Queues {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    open(QueueConfig::Redis(Box::new(config.clone())), clock).await.unwrap()
}

fn records(range: std::ops::Range<u32>) -> Vec<Bytes> {
    range.map(|n| Bytes::from(format!(r#"{{"n":{n}}}"#))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_the_contract() {
    let server = RedisServer::start();
    let config = config(&server, "");
    contract::run(&|| Box::pin(opened(Box::leak(Box::new(config.clone())))), true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_workers_loses_and_doubles_nothing() {
    let server = RedisServer::start();
    let mut config = config(&server, "");
    config.limits.ingest_records_max = 1_000_000;
    config.limits.lease = Duration::from_secs(60);
    config.ingest.silence_max = Duration::from_secs(30);
    let queues = opened(&config).await;
    let queue = Arc::clone(queues.get(QueueName::Ingest));
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let workers: Vec<_> = (0..6)
        .map(|n| {
            let (queue, seen) = (Arc::clone(&queue), Arc::clone(&seen));
            tokio::spawn(async move {
                let mut consumer = queue.consumer();
                loop {
                    let batch = consumer.next(1 + n * 37, Duration::from_secs(2)).await.unwrap();
                    if batch.is_empty() {
                        return;
                    }
                    seen.lock().unwrap().extend(batch.iter().map(|d| d.payload.clone()));
                    // Every consumer settles in another order.
                    let (mut now, mut later) = (Vec::new(), Vec::new());
                    for (i, delivery) in batch.into_iter().enumerate() {
                        if (i + n) % 3 == 0 { now.push(delivery.ack()) } else { later.push(delivery.ack()) }
                    }
                    consumer.settle(now).await.unwrap();
                    consumer.settle(later).await.unwrap();
                }
            })
        })
        .collect();
    for n in 0..100 {
        queue.publish(records(n * 100..(n + 1) * 100), Durability::Strict).await.unwrap();
    }
    for worker in workers {
        worker.await.unwrap();
    }
    let mut seen = std::mem::take(&mut *seen.lock().unwrap());
    assert_eq!(seen.len(), 10_000, "each exactly once");
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 10_000);
    assert_eq!(queue.stats().await.unwrap().depth, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keys_are_those_of_the_contract() {
    let server = RedisServer::start();
    let queues = opened(&config(&server, "")).await;
    let queue = queues.get(QueueName::Ingest);
    queue.publish(records(0..3), Durability::Strict).await.unwrap();
    assert_eq!(server.cli(&["LRANGE", "mutt:ingest_queue", "0", "-1"]), "{\"n\":2}\n{\"n\":1}\n{\"n\":0}");
    let mut consumer = queue.consumer();
    let got = consumer.next(2, LONG).await.unwrap();
    let list = server.cli(&["KEYS", "mutt:processing:alerter:pod-*"]);
    assert_eq!(server.cli(&["LRANGE", &list, "0", "-1"]), "{\"n\":1}\n{\"n\":0}");
    let beat = list.replace("processing", "heartbeat");
    assert_eq!(server.cli(&["GET", &beat]), "alive");
    assert_ne!(server.cli(&["PTTL", &beat]), "-1", "a heartbeat runs out");
    consumer.settle(got.into_iter().map(|d| d.retry_after(Duration::ZERO)).collect()).await.unwrap();
    assert!(server.cli(&["LRANGE", &list, "0", "-1"]).contains(r#"{"n":0,"_attempts":1}"#));
    drop(consumer);
    queue.flush().await.unwrap();
    assert_eq!(server.cli(&["KEYS", "mutt:processing:*"]), "", "a worker that ends hands everything back");
    assert_eq!(server.cli(&["KEYS", "mutt:heartbeat:*"]), "");
    assert_eq!(server.cli(&["LLEN", "mutt:ingest_queue"]), "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_other_programs_push_is_worked_and_a_sleeper_wakes_for_it() {
    let server = RedisServer::start();
    let queues = opened(&config(&server, "")).await;
    let mut consumer = queues.get(QueueName::Ingest).consumer();
    let waiting = tokio::spawn(async move { consumer.next(10, LONG).await.unwrap().remove(0).payload });
    tokio::time::sleep(SOON).await;
    server.cli(&["LPUSH", "mutt:ingest_queue", "{\"hostname\": \"h\"}"]);
    assert_eq!(waiting.await.unwrap(), Bytes::from_static(b"{\"hostname\": \"h\"}"));
}

/// The id in front of a record's keys.
fn id_of(record: &[u8]) -> EventId {
    let text = std::str::from_utf8(record).unwrap();
    let id = text.strip_prefix("{\"_event_id\":\"").and_then(|rest| rest.split_once('"'));
    id.unwrap_or_else(|| panic!("no id: {text}")).0.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_records_of_other_programs_get_ids_that_differ_and_stay() {
    const RECORD: &str = "{\"message\":\"x,\\\"_event_id\\\":\\\"evt_1\\\"\",\"x\":{\"a\":1,\"_event_id\":\"evt_2\"}}";
    let server = RedisServer::start();
    let mut config = config(&server, "");
    let ours = ",\"_event_id\":\"evt_";
    config.ingest.foreign_ids = Some(ForeignIds { key: "_event_id", ours, ours_within_bytes: 200, closing: 1 });
    config.limits.lease = Duration::from_secs(60);
    config.ingest.silence_max = Duration::from_secs(30);
    let began = SystemClock.now();
    let queues = opened(&config).await;
    let queue = queues.get(QueueName::Ingest);

    // While a worker waits: what wakes it, and what comes then.
    let mut consumer = queue.consumer();
    let waiting = tokio::spawn(async move {
        let woken = consumer.next(10, LONG).await.unwrap();
        (consumer, woken)
    });
    tokio::time::sleep(SOON).await;
    server.cli(&["LPUSH", "mutt:ingest_queue", RECORD]);
    let (mut consumer, mut held) = waiting.await.unwrap();
    let many = "for _ = 1, 2500 do redis.call('LPUSH', KEYS[1], ARGV[1]) end";
    server.cli(&["EVAL", many, "1", "mutt:ingest_queue", RECORD]);
    while held.len() < 2_501 {
        held.extend(consumer.next(1_000, LONG).await.unwrap());
    }
    let mut ids: Vec<EventId> = held.iter().map(|delivery| id_of(&delivery.payload)).collect();
    assert!(ids.is_sorted(), "in the order in which they came");
    ids.dedup();
    assert_eq!(ids.len(), 2_501);
    let (first, last) = (ids[0], ids[2_500]);
    assert!(
        first.accepted().millis() >= began.millis() && last.accepted() <= SystemClock.now(),
        "of the time they were taken"
    );
    assert_eq!(last.counter(), 2_500, "numbers count up, without holes");
    let rest = held[7].payload.strip_prefix(format!("{{\"_event_id\":\"{}\",", ids[7]).as_bytes()).unwrap();
    assert_eq!(rest, &RECORD.as_bytes()[1..]);

    // Whoever gets it next gets it with its id.
    consumer.settle(held.drain(2..).map(Delivery::ack).collect()).await.unwrap();
    drop((consumer, held));
    queue.flush().await.unwrap();
    let mut consumer = queue.consumer();
    let again = consumer.next(10, LONG).await.unwrap();
    assert_eq!(again.iter().map(|delivery| id_of(&delivery.payload)).collect::<Vec<_>>(), ids[..2]);
    consumer.settle(again.into_iter().map(|delivery| delivery.retry_after(Duration::ZERO)).collect()).await.unwrap();
    let retried = consumer.next(10, LONG).await.unwrap();
    assert_eq!(id_of(&retried[0].payload), ids[0]);
    consumer.settle(retried.into_iter().map(Delivery::ack).collect()).await.unwrap();

    // Ours, and what can have no key, stay as they are.
    let ours = "{\"n\":1,\"_event_id\":\"evt_00000000000000000000000001\",\"_input\":\"http\"}";
    for record in [ours, "{\"_event_id\":\"mine\",\"n\":1}", "[1]", "{}", "{ ", "text"] {
        server.cli(&["LPUSH", "mutt:ingest_queue", record]);
        let got = got_in_the_end(consumer.as_mut()).await;
        assert_eq!(got[0].payload, record);
        consumer.settle(got.into_iter().map(Delivery::ack).collect()).await.unwrap();
    }
}

/// The original sent nine commands for each event (contract mutt §12-40).
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_costs_commands_by_the_batch_and_not_by_the_record() {
    const RECORDS: u32 = 4_000;
    let server = RedisServer::start();
    let mut config = config(&server, "");
    config.limits.ingest_records_max = 100_000;
    config.limits.lease = Duration::from_secs(60);
    let queues = opened(&config).await;
    let queue = queues.get(QueueName::Ingest);
    let mut consumer = queue.consumer();
    queue.publish(records(0..1), Durability::Strict).await.unwrap();
    let first = consumer.next(10, LONG).await.unwrap();
    consumer.settle(first.into_iter().map(|d| d.ack()).collect()).await.unwrap();

    server.cli(&["CONFIG", "RESETSTAT"]);
    queue.publish(records(0..RECORDS), Durability::Strict).await.unwrap();
    let mut worked = 0;
    while worked < RECORDS {
        let batch = consumer.next(1_000, LONG).await.unwrap();
        worked += batch.len() as u32;
        consumer.settle(batch.into_iter().map(|d| d.ack()).collect()).await.unwrap();
    }
    let sum = commands(&server);
    println!("queue: {sum} commands, those inside scripts included, for {RECORDS} records");
    assert!((1..RECORDS / 20).contains(&sum), "{sum}");
}

/// Calls of commands since `CONFIG RESETSTAT`, those inside scripts included.
fn commands(server: &RedisServer) -> u32 {
    let stats = server.cli(&["INFO", "commandstats"]);
    stats.lines().filter_map(|line| line.split("calls=").nth(1)?.split(',').next()?.parse::<u32>().ok()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_refuses_writes_is_said_to_whoever_waits_and_is_not_hammered() {
    let server = RedisServer::start();
    let queues = opened(&config(&server, "")).await;
    let mut consumer = queues.get(QueueName::Ingest).consumer();
    assert!(consumer.next(10, SOON).await.unwrap().is_empty());
    let nobody = testkit::free_port().to_string();
    for (refuse, take) in [
        (
            ["CONFIG", "SET", "min-replicas-to-write", "1"].as_slice(),
            ["CONFIG", "SET", "min-replicas-to-write", "0"].as_slice(),
        ),
        (&["REPLICAOF", "127.0.0.1", &nobody], &["REPLICAOF", "NO", "ONE"]),
    ] {
        server.cli(refuse);
        let error = consumer.next(10, LONG).await.unwrap_err();
        assert!(error.kind().is_transient(), "{refuse:?}: {error}");
        server.cli(&["CONFIG", "RESETSTAT"]);
        assert!(consumer.next(10, LONG).await.is_err(), "{refuse:?}: as long as it lasts");
        let queue = queues.get(QueueName::Ingest);
        assert!(queue.probe().await.is_err() && queue.flush().await.is_err(), "{refuse:?}: no look takes it for well");
        let tries = commands(&server);
        assert!(tries < 200, "{refuse:?}: {tries} commands for one call");
        server.cli(take);
        server.cli(&["LPUSH", "mutt:ingest_queue", "{\"n\":1}"]);
        let got = got_in_the_end(consumer.as_mut()).await;
        assert_eq!(got.len(), 1, "{take:?}: it works on");
        consumer.settle(got.into_iter().map(Delivery::ack).collect()).await.unwrap();
    }
}

/// What comes once the trouble is over: what was lost meanwhile may be told by one more error.
async fn got_in_the_end(consumer: &mut dyn Consumer) -> Vec<Delivery> {
    for _ in 0..10 {
        if let Ok(got) = consumer.next(10, LONG).await {
            return got;
        }
        tokio::time::sleep(SOON).await;
    }
    panic!("errors only")
}

#[tokio::test(flavor = "multi_thread")]
async fn over_maxmemory_new_events_are_refused_and_what_waits_is_worked_off() {
    let server = RedisServer::start();
    let config = config(&server, "");
    let queues = opened(&config).await;
    let queue = queues.get(QueueName::Ingest);
    queue.publish(records(0..50), Durability::Strict).await.unwrap();
    drop(queue.consumer().next(10, LONG).await.unwrap());
    server.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let error = queue.publish(records(50..51), Durability::Strict).await.unwrap_err();
    assert!(error.to_string().contains("maxmemory"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "a bound of Redis, not of the queue");
    assert_eq!(queue.probe().await.unwrap_err().kind(), ErrorKind::Unavailable);
    queue.flush().await.expect("what is taken can be settled");

    // A process that starts now, as after a crash, finds everything.
    let queues = opened(&config).await;
    let queue = queues.get(QueueName::Ingest);
    let mut consumer = queue.consumer();
    let (mut seen, mut retried) = (std::collections::BTreeSet::new(), 0);
    while seen.len() < 50 {
        let got = consumer.next(7, LONG).await.unwrap();
        assert!(!got.is_empty(), "{seen:?}");
        let settle = |delivery: Delivery| match delivery.attempts {
            0 if delivery.payload.ends_with(b"3}") => {
                retried += 1;
                delivery.retry_after(Duration::ZERO)
            }
            _ if delivery.payload.ends_with(b"4}") => {
                seen.insert(delivery.payload.clone());
                delivery.reject(Rejection { reason: "no luck".into(), retryable: true, replays: 0 })
            }
            _ => {
                seen.insert(delivery.payload.clone());
                delivery.ack()
            }
        };
        let settlements = got.into_iter().map(settle).collect();
        consumer.settle(settlements).await.unwrap();
    }
    assert_eq!(retried, 5);
    assert_eq!(queue.stats().await.unwrap().depth, 0);
    assert_eq!(queues.get(QueueName::DlqAlerter).stats().await.unwrap().depth, 5);
    queues.get(QueueName::Alerts).publish(records(0..1), Durability::Strict).await.unwrap();

    // Waiting at the empty queue costs little, and ends with the trouble.
    server.cli(&["CONFIG", "RESETSTAT"]);
    assert!(consumer.next(1, SOON * 10).await.unwrap().is_empty());
    let looks = commands(&server);
    assert!(looks < 500, "{looks} commands");
    let waiting = tokio::spawn(async move { consumer.next(1, LONG).await.unwrap().len() });
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    queue.publish(records(60..61), Durability::Strict).await.unwrap();
    assert_eq!(waiting.await.unwrap(), 1);
    queue.probe().await.unwrap();
    assert_eq!(server.cli(&["EXISTS", "mutt:write_probe"]), "0", "it leaves nothing behind");
    server.cli(&["DEL", "mutt:ingest_queue"]);
    server.cli(&["SET", "mutt:ingest_queue", "no list"]);
    assert!(queue.probe().await.is_err() && queue.flush().await.is_err(), "a queue of the wrong type");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_a_dead_original_worker_is_given_back() {
    let server = RedisServer::start();
    server.cli(&["LPUSH", "mutt:processing:alerter:alerter-3f2a91", "{\"n\":1}"]);
    server.cli(&["LPUSH", "mutt:processing:alerter:alerter-alive", "{\"n\":2}"]);
    server.cli(&["SET", "mutt:heartbeat:alerter:alerter-alive", "alive"]);
    let queues = opened(&config(&server, "")).await;
    let mut consumer = queues.get(QueueName::Ingest).consumer();
    let got = consumer.next(10, LONG).await.unwrap();
    assert_eq!(got[0].payload, Bytes::from_static(b"{\"n\":1}"));
    consumer.settle(got.into_iter().map(Delivery::ack).collect()).await.unwrap();
    assert!(consumer.next(10, LONG / 4).await.unwrap().is_empty(), "a living worker keeps its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_redis_loses_nothing_and_needs_no_restart_of_ours() {
    let args = ["--appendfsync".to_owned(), "always".to_owned()].to_vec();
    let mut server = RedisServer::with(RedisOptions { args, ..RedisOptions::default() });
    let mut config = config(&server, "");
    config.limits.lease = Duration::from_secs(60);
    let queues = opened(&config).await;
    let queue = Arc::clone(queues.get(QueueName::Ingest));
    let mut consumer = queue.consumer();
    queue.publish(records(0..20), Durability::Strict).await.unwrap();
    let mut held = consumer.next(10, LONG).await.unwrap();
    let rest = held.split_off(5);
    server.kill();
    let settled = consumer.settle(held.into_iter().map(Delivery::ack).collect()).await;
    assert!(settled.unwrap_err().kind().is_transient());
    assert!(queue.publish(records(20..21), Durability::Strict).await.unwrap_err().kind().is_transient());
    server.start_again();
    consumer.settle(rest.into_iter().map(Delivery::ack).collect()).await.unwrap();
    assert!(wait_until(LONG, || server.cli(&["LLEN", "mutt:ingest_queue"]) == "10").await, "both settlements arrived");
    queue.publish(records(21..22), Durability::Strict).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 11 {
        let got = consumer.next(100, LONG).await.unwrap();
        assert!(!got.is_empty(), "{seen:?}");
        seen.extend(got.iter().map(|d| d.payload.clone()));
        consumer.settle(got.into_iter().map(Delivery::ack).collect()).await.unwrap();
    }
    assert_eq!(seen, [records(10..20), records(21..22)].concat());
    assert_eq!(queue.stats().await.unwrap().depth, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_paused_for_too_long_finds_its_records_with_others() {
    let server = RedisServer::start();
    let mut config = config(&server, "");
    config.limits.lease = Duration::from_secs(60);
    let queues = opened(&config).await;
    let queue = queues.get(QueueName::Ingest);
    queue.publish(records(0..4), Durability::Strict).await.unwrap();
    let (mut slow, mut quick) = (queue.consumer(), queue.consumer());
    let held = slow.next(4, LONG).await.unwrap();
    // As a reaper of another process would, after a pause of this one.
    let list = server.cli(&["KEYS", "mutt:processing:alerter:*"]);
    server.cli(&["DEL", &list.replace("processing", "heartbeat")]);
    server.cli(&["RPOPLPUSH", &list, "mutt:ingest_queue"]);
    server.cli(&["RPOPLPUSH", &list, "mutt:ingest_queue"]);
    server.cli(&["DEL", &list]);
    server.cli(&["RPUSH", "mutt:ingest_queue", "{\"n\":2}", "{\"n\":3}"]);
    slow.settle(held.into_iter().map(Delivery::ack).collect()).await.unwrap();
    let again = quick.next(10, LONG).await.unwrap();
    assert_eq!(again.len(), 4, "late settling is harmless");
    quick.settle(again.into_iter().map(Delivery::ack).collect()).await.unwrap();
    queue.publish(records(7..8), Durability::Strict).await.unwrap();
    let fresh = slow.next(10, LONG).await.unwrap();
    assert_eq!(fresh[0].payload, records(7..8)[0]);
    slow.settle(fresh.into_iter().map(Delivery::ack).collect()).await.unwrap();
    assert_eq!(queue.stats().await.unwrap().depth, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_arrives_while_a_retry_is_put_back_is_not_settled_in_its_place() {
    let server = RedisServer::start();
    let mut config = config(&server, "");
    config.limits.lease = Duration::from_secs(60);
    config.ingest.silence_max = Duration::from_secs(30);
    let queues = opened(&config).await;
    let queue = queues.get(QueueName::Ingest);
    let mut consumer = queue.consumer();
    for round in 0..60 {
        queue.publish(records(0..1), Durability::Strict).await.unwrap();
        let tried = consumer.next(1, LONG).await.unwrap().remove(0);
        // It waits at the queue from now on; what comes is moved at once.
        assert!(consumer.next(1, Duration::from_millis(1)).await.unwrap().is_empty());
        let put_back = consumer.settle(vec![tried.retry_after(Duration::ZERO)]);
        let (put_back, arrived) = tokio::join!(put_back, queue.publish(records(1..2), Durability::Strict));
        put_back.and(arrived).unwrap();
        let mut held = Vec::new();
        while held.len() < 2 {
            held.extend(consumer.next(2, LONG).await.unwrap());
        }
        held.sort_by_key(|delivery| delivery.payload.clone());
        let arrived = held.remove(1);
        consumer.settle(vec![held.remove(0).ack()]).await.unwrap();
        let list = server.cli(&["KEYS", "mutt:processing:alerter:*"]);
        assert_eq!(server.cli(&["LRANGE", &list, "0", "-1"]), r#"{"n":1}"#, "round {round}");
        consumer.settle(vec![arrived.ack()]).await.unwrap();
    }
    assert_eq!(queue.stats().await.unwrap().depth, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_and_a_second_password_work_and_a_wrong_ca_or_password_is_said() {
    let server = RedisServer::with(RedisOptions { password: Some("next".into()), tls: true, args: Vec::new() });
    let mut good = config(&server, "");
    let login = |password: &str| runtime::Login { user: None, password: Secret::new(password) };
    good.redis.credentials = Credentials::new(vec![login("current"), login("next")]).1;
    let queues = opened(&good).await;
    queues.get(QueueName::Alerts).publish(records(0..1), Durability::Strict).await.unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let refused = async |config: &RedisQueueConfig| {
        open(QueueConfig::Redis(Box::new(config.clone())), Arc::clone(&clock)).await.err().unwrap()
    };
    let error = refused(&config(&server, "wrong-password")).await;
    assert!(error.kind().is_transient() && error.to_string().contains("refuses"), "{error}");
    assert!(!error.to_string().contains("wrong-password"));
    let stranger = tempfile::tempdir().unwrap();
    let mut wrong = good.clone();
    let other = testkit::servers::TestCerts::write(stranger.path());
    wrong.redis.tls = Some(RedisTls { ca_file: Some(other.ca) });
    let error = refused(&wrong).await;
    assert!(error.to_string().to_lowercase().contains("certificate"), "{error}");
}
