use super::*;
use storage::coordination::RateUnit;

/// 2026-03-10T12:00:00Z.
const NOON: Timestamp = Timestamp::from_secs(1_773_144_000);
const KEYS: [(&str, i64); 3] = [
    ("mutt:metrics:1m:2026-03-10T12:00", 7_200),
    ("mutt:metrics:1h:2026-03-10T12", 172_800),
    ("mutt:metrics:24h:2026-03-10", 2_592_000),
];

#[tokio::test]
async fn counters_have_the_contracts_names_and_lives_and_add_to_what_others_count() {
    let server = RedisServer::start();
    let driver = driver(&server).await;
    server.cli(&["INCR", KEYS[0].0]);
    server.cli(&["SET", KEYS[1].0, "4", "EX", "1000"]);
    for n in 1..=4 {
        driver.count_accepted(n, NOON.plus(Duration::from_secs(n))).await.unwrap();
    }
    until("the buffer goes within a second or so", async || server.cli(&["GET", KEYS[2].0]) == "10").await;
    assert_eq!(server.cli(&["GET", KEYS[0].0]), "11");
    assert_eq!(server.cli(&["GET", KEYS[1].0]), "14");
    for (key, life) in KEYS {
        let left = number(&server.cli(&["TTL", key]));
        let life = if life == 172_800 { 1_000 } else { life };
        assert!((life - 30..=life).contains(&left), "{key}: {left}");
    }
}

#[tokio::test]
async fn accepted_reads_what_is_kept_whoever_counted_it() {
    let server = RedisServer::start();
    let driver = driver(&server).await;
    let minute = Timestamp::from_secs(now().secs().div_euclid(60) * 60);
    let key = |at: Timestamp| format!("mutt:metrics:1m:{}", &at.rfc3339()[..16]);
    server.cli(&["SET", &key(minute), "5"]);
    server.cli(&["SET", &key(minute.minus(Duration::from_secs(300))), "7"]);
    server.cli(&["SET", &key(minute.minus(Duration::from_secs(360))), "no number"]);
    driver.count_accepted(2, minute).await.unwrap();
    let end = minute.plus(Duration::from_secs(60));
    let ages = driver.accepted(RateUnit::Minute, Timestamp::default(), Timestamp::from_secs(1 << 40)).await.unwrap();
    assert_eq!(
        ages,
        [(minute.minus(Duration::from_secs(300)), 7), (minute, 7)],
        "ages are no more work than two hours"
    );
    assert_eq!(driver.accepted(RateUnit::Minute, minute, end).await.unwrap(), [(minute, 7)]);
    assert_eq!(driver.accepted(RateUnit::Minute, minute, minute).await.unwrap(), []);
}

#[tokio::test]
async fn the_end_of_a_driver_loses_nothing() {
    // One thread, which the end of the driver blocks.
    let server = RedisServer::start();
    let driver = driver(&server).await;
    driver.count_accepted(42, NOON).await.unwrap();
    drop(driver);
    assert_eq!(server.cli(&["GET", KEYS[0].0]), "42");
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_wait_for_a_redis_that_is_away_and_arrive_once() {
    let args = vec!["--appendfsync".to_owned(), "always".to_owned()];
    let mut server = RedisServer::with(RedisOptions { args, ..RedisOptions::default() });
    let driver = driver(&server).await;
    let mut counted = 0;
    for round in 0..3u64 {
        driver.count_accepted(100 + round, NOON).await.unwrap();
        counted += 100 + round;
        server.kill();
        driver.count_accepted(10, NOON).await.unwrap();
        counted += 10;
        let read = driver.accepted(RateUnit::Minute, NOON, NOON.plus(Duration::from_secs(60))).await;
        assert!(read.unwrap_err().kind().is_transient());
        server.start_again();
        until("counts arrive", async || server.cli(&["GET", KEYS[0].0]) == counted.to_string()).await;
    }
    drop(driver);
    assert_eq!(server.cli(&["GET", KEYS[0].0]), counted.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_portion_that_arrived_without_an_answer_is_not_added_again() {
    let server = RedisServer::start();
    let mut impatient = config(&server);
    impatient.redis.answer_timeout = Duration::from_millis(300);
    let driver = open(impatient).await;
    driver.count_accepted(1, NOON).await.unwrap();
    until("the first portion", async || server.cli(&["GET", KEYS[0].0]) == "1").await;
    // Stopped, it has the portions in its buffers and answers too late.
    server.daemon().signal("STOP");
    driver.count_accepted(1_000, NOON).await.unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    server.daemon().signal("CONT");
    until("the second portion", async || server.cli(&["GET", KEYS[0].0]) != "1").await;
    driver.count_accepted(1, NOON).await.unwrap();
    drop(driver);
    assert_eq!(server.cli(&["GET", KEYS[0].0]), "1002");
}
