use super::*;
use model::{EventId, OrgId};
use storage::coordination::{UnhandledEvent, UnhandledPolicy};

const SHAPE: &str = "00112233445566ff";

fn policy(threshold: u64) -> UnhandledPolicy {
    UnhandledPolicy { threshold, expiry: Duration::from_secs(86_400), keys_max: 100_000 }
}

fn event(run: u32, counter: u64) -> UnhandledEvent {
    UnhandledEvent {
        org: OrgId::default(),
        host: "router-1".into(),
        shape: SHAPE.into(),
        event_id: EventId::new(Timestamp::from_secs(1_773_144_000), run, counter),
    }
}

/// An event of another program: all of its number is a hash.
fn foreign(random: &mut fastrand::Rng) -> UnhandledEvent {
    event(random.u32(..), random.u64(..1 << 48))
}

async fn observe(driver: &Driver, events: Vec<UnhandledEvent>, threshold: u64) -> Vec<usize> {
    driver.observe_unhandled(events, policy(threshold), now()).await.unwrap()
}

/// Number and memory of the keys like `pattern`.
fn memory(server: &RedisServer, pattern: &str) -> (i64, i64) {
    const SUM: &str = "local bytes, keys = 0, redis.call('KEYS', ARGV[1]) \
        for _, key in ipairs(keys) do bytes = bytes + (redis.call('MEMORY', 'USAGE', key) or 0) end \
        return #keys .. ' ' .. bytes";
    let sum = server.cli(&["EVAL", SUM, "0", pattern]);
    let (keys, bytes) = sum.split_once(' ').unwrap();
    (number(keys), number(bytes))
}

#[tokio::test]
async fn counters_stand_under_the_contracts_keys() {
    let server = RedisServer::start();
    let driver = driver(&server).await;
    let key = format!("mutt:unhandled:router-1:{SHAPE}");
    assert_eq!(observe(&driver, (0..7).map(|n| event(1, n)).collect(), 10).await, [0usize; 0]);
    assert_eq!(server.cli(&["GET", &key]), "7");
    let ttl = number(&server.cli(&["TTL", &key]));
    assert!((86_390..=86_400).contains(&ttl), "{ttl}");
    assert_eq!(observe(&driver, vec![event(1, 7), event(1, 8), event(1, 9), event(1, 10)], 10).await, [2]);
    assert_eq!(server.cli(&["EXISTS", &key]), "0");
    let id = event(1, 9).event_id;
    assert_eq!(server.cli(&["GET", &format!("{key}:triggered")]), format!("10 {id}"));
    let ttl = number(&server.cli(&["TTL", &format!("{key}:triggered")]));
    assert!((86_390..=86_400).contains(&ttl), "{ttl}");
    assert_eq!(server.cli(&["ZRANGE", "mutt:unhandled_index", "0", "-1"]), key);
    // A shorter expiry acts on what there is.
    let shorter = UnhandledPolicy { expiry: Duration::from_secs(60), ..policy(10) };
    assert_eq!(driver.observe_unhandled(vec![event(1, 99)], shorter, now()).await.unwrap(), [0usize; 0]);
    assert!(number(&server.cli(&["TTL", &format!("{key}:triggered")])) <= 60);

    let odd = UnhandledEvent { org: "acme".parse().unwrap(), host: "a\r\nSET x y\u{fc}".into(), ..event(2, 0) };
    observe(&driver, vec![odd], 10).await;
    assert_eq!(server.cli(&["GET", &format!("mutt:unhandled:acme/a%0D%0ASET%20x%20y%C3%BC:{SHAPE}")]), "1");
}

#[tokio::test]
async fn what_others_left_under_a_key_does_not_stop_the_count() {
    let server = RedisServer::start();
    let driver = driver(&server).await;
    let key = |host: &str| format!("mutt:unhandled:{host}:{SHAPE}");
    server.cli(&["SET", &key("counted"), "8"]);
    server.cli(&["SET", &key("triggered"), "100"]);
    server.cli(&["RENAME", &key("triggered"), &format!("{}:triggered", key("triggered"))]);
    server.cli(&["SET", &key("garbage"), "many"]);
    server.cli(&["LPUSH", &key("list"), "a"]);
    let hosts = ["counted", "triggered", "garbage", "list"];
    let batch = |round: u64| {
        let of = |(n, host): (usize, &&str)| UnhandledEvent { host: (*host).into(), ..event(3, 10 * round + n as u64) };
        hosts.iter().enumerate().map(of).collect::<Vec<_>>()
    };
    assert_eq!(observe(&driver, batch(0), 10).await, [0usize; 0]);
    assert_eq!(observe(&driver, batch(1), 10).await, [0], "eight of theirs and two of ours");
    assert_eq!(server.cli(&["GET", &key("garbage")]), "2");
    assert_eq!(server.cli(&["GET", &key("list")]), "2");
    assert!(number(&server.cli(&["TTL", &key("list")])) > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_work_the_same_events_count_each_once() {
    let server = RedisServer::start();
    let mut random = fastrand::Rng::with_seed(3);
    let mut events: Vec<_> = (0..9_000).map(|n| event(5, 3 * n)).collect();
    events.extend((0..1_000).map(|_| foreign(&mut random)));
    random.shuffle(&mut events);
    let mut tasks = Vec::new();
    for worker in 0..4 {
        let (driver, mut events) = (driver(&server).await, events.clone());
        tasks.push(tokio::spawn(async move {
            events.rotate_left(worker * 1_777);
            for part in events.chunks(997) {
                assert_eq!(observe(&driver, part.to_vec(), 10_001).await, [0usize; 0]);
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(server.cli(&["GET", &format!("mutt:unhandled:router-1:{SHAPE}")]), "10000");
    let driver = driver(&server).await;
    let batch = [events[..20].to_vec(), vec![event(6, 0)], events[20..40].to_vec()].concat();
    assert_eq!(observe(&driver, batch.clone(), 10_001).await, [20]);
    assert_eq!(observe(&driver, batch, 10_001).await, [20], "told again");
}

#[tokio::test]
async fn a_batch_larger_than_one_call_tells_the_right_event() {
    let server = RedisServer::start();
    let driver = driver(&server).await;
    let events: Vec<_> = (0..10_000).map(|n| event(1, n)).collect();
    assert_eq!(observe(&driver, events.clone(), 9_000).await, [8_999]);
    assert_eq!(observe(&driver, events, 9_000).await, [8_999]);
}

#[tokio::test]
async fn remembering_events_costs_little_whatever_their_numbers_are() {
    let server = RedisServer::start();
    let driver = driver(&server).await;
    let dense: Vec<_> = (0..100_000).map(|n| event(9, n)).collect();
    observe(&driver, dense, 1 << 40).await;
    let (keys, bytes) = memory(&server, "mutt:unhandled_seen:*");
    assert_eq!(keys, 25, "100,000 numbers in bitmaps of 4,096");
    assert!(bytes < 100_000, "{bytes} bytes for 100,000 events");
    let bitmap = "mutt:unhandled_seen:00000009:0";
    assert!((3_590..=3_600).contains(&number(&server.cli(&["TTL", bitmap]))));
    server.cli(&["FLUSHALL"]);

    let mut random = fastrand::Rng::with_seed(5);
    let rare: Vec<_> = (0..40_000).map(|_| foreign(&mut random)).collect();
    observe(&driver, rare.clone(), 1 << 40).await;
    observe(&driver, rare, 1 << 40).await;
    assert_eq!(server.cli(&["GET", &format!("mutt:unhandled:router-1:{SHAPE}")]), "40000");
    let (keys, bytes) = memory(&server, "mutt:unhandled_seen:*");
    assert!(keys <= 4_096 + 40_000 / 100, "{keys}");
    assert!(bytes < 40_000 * 32, "{bytes} bytes for 40,000 events");
    let set = server.cli(&["KEYS", "mutt:unhandled_seen:rare:*"]);
    assert!((7_100..=7_200).contains(&number(&server.cli(&["TTL", set.lines().next().unwrap()]))));
}

#[tokio::test]
async fn hosts_without_end_stay_within_the_bound_over_all_workers() {
    let server = RedisServer::start();
    let workers = [driver(&server).await, driver(&server).await];
    let small = UnhandledPolicy { keys_max: 100, ..policy(5) };
    for round in 0..40 {
        let batch = (0..50).map(|n| {
            let number = round * 50 + n;
            UnhandledEvent { host: format!("{number}{}", "x".repeat(2_000)), ..event(1, number) }
        });
        workers[round as usize % 2].observe_unhandled(batch.collect(), small, now()).await.unwrap();
    }
    assert_eq!(server.cli(&["ZCARD", "mutt:unhandled_index"]), "100");
    let (keys, bytes) = memory(&server, "mutt:unhandled:*");
    assert_eq!(keys, 100);
    assert!(bytes < 100 * 600, "{bytes}");
    assert_eq!(workers.iter().map(|w| w.unhandled_evictions()).sum::<u64>(), 1_900);
}

#[tokio::test]
async fn after_its_expiry_a_counter_is_no_eviction() {
    let server = RedisServer::start();
    let driver = driver(&server).await;
    let brief = UnhandledPolicy { expiry: Duration::from_millis(50), keys_max: 10, ..policy(5) };
    let hosts = |from: u64| {
        (from..from + 10).map(|n| UnhandledEvent { host: format!("h{n}"), ..event(1, n) }).collect::<Vec<_>>()
    };
    driver.observe_unhandled(hosts(0), brief, now()).await.unwrap();
    until("counters expire", async || memory(&server, "mutt:unhandled:*").0 == 0).await;
    driver.observe_unhandled(hosts(10), brief, now()).await.unwrap();
    assert_eq!(driver.unhandled_evictions(), 0);
    assert_eq!(server.cli(&["ZCARD", "mutt:unhandled_index"]), "10");
}

/// Portions that overlap, have holes, repeat an event or mix in another program's: whichever way the
/// script takes, each event counts once.
#[tokio::test]
async fn whatever_portions_events_come_in_each_counts_once() {
    let server = RedisServer::start();
    let driver = driver(&server).await;
    let mut random = fastrand::Rng::with_seed(11);
    let mut all: Vec<UnhandledEvent> =
        [4_090, 8_000].into_iter().flat_map(|n| (n..n + 900).map(|n| event(1, n))).collect();
    all.extend((0..900).map(|n| event(2, n)));
    for (n, event) in all.iter_mut().enumerate() {
        event.host = format!("h{}", n % 7);
    }
    let mut counted: std::collections::BTreeMap<String, std::collections::BTreeSet<EventId>> = Default::default();
    for round in 0..60 {
        let first = random.usize(..all.len());
        let mut portion: Vec<_> =
            all[first..].iter().take(random.usize(1..600)).filter(|_| random.u8(..) < 230).cloned().collect();
        if round % 10 == 9 {
            portion.extend(portion.first().cloned());
        }
        if round % 15 == 14 {
            portion.push(UnhandledEvent { host: "h0".into(), ..foreign(&mut random) });
        }
        for event in &portion {
            counted.entry(event.host.clone()).or_default().insert(event.event_id);
        }
        assert_eq!(observe(&driver, portion, 1_000_000).await, [0usize; 0]);
    }
    for (host, events) in counted {
        let count = server.cli(&["GET", &format!("mutt:unhandled:{host}:{SHAPE}")]);
        assert_eq!(count, events.len().to_string(), "{host}");
    }
}

#[tokio::test]
async fn of_a_portion_that_passes_the_threshold_the_event_that_passes_it_is_told() {
    let server = RedisServer::start();
    let driver = driver(&server).await;
    assert_eq!(observe(&driver, (0..95).map(|n| event(1, n)).collect(), 100).await, [0usize; 0]);
    let portion: Vec<_> = (95..200).map(|n| event(1, n)).collect();
    assert_eq!(observe(&driver, portion.clone(), 100).await, [4]);
    assert_eq!(observe(&driver, portion, 100).await, [4], "and again when it is repeated");
}
