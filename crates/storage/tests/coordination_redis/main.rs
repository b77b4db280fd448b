//! Coordination through a real Redis: the contract, the keys as other programs see them, many
//! processes at once, and a Redis that goes away.

#![expect(clippy::unwrap_used, reason = "tests")]

mod breaker;
mod limits;
mod outages;
mod rates;
mod settings;
mod unhandled;

use model::Timestamp;
use runtime::{Clock, Credentials, Secret, SystemClock};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use storage::RedisConfig;
use storage::coordination::{
    BreakerSettings, Coordination, CoordinationConfig, RateLimit, RateUnit, RedisClock, RedisCoordinationConfig,
    UnhandledEvent, UnhandledPolicy, contract, open as open_driver,
};
use testkit::servers::{RedisOptions, RedisServer};

type Driver = Arc<dyn Coordination>;

fn config(server: &RedisServer) -> RedisCoordinationConfig {
    let redis = RedisConfig::server("127.0.0.1", server.port(), Credentials::fixed(None, Secret::new("")));
    RedisCoordinationConfig::new(redis)
}

async fn open(config: RedisCoordinationConfig) -> Driver {
    open_driver(CoordinationConfig::Redis(Box::new(config))).await.unwrap()
}

async fn driver(server: &RedisServer) -> Driver {
    open(config(server)).await
}

/// A driver that takes the time from its caller.
async fn simulated(server: &RedisServer) -> Driver {
    open(RedisCoordinationConfig { clock: RedisClock::Caller, ..config(server) }).await
}

/// What an embedded driver says to the same questions.
async fn embedded(dir: &std::path::Path) -> Driver {
    open_driver(CoordinationConfig::Local { file: dir.join("state.db") }).await.unwrap()
}

/// A client of the test's own.
async fn client(server: &RedisServer) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(format!("redis://127.0.0.1:{}", server.port())).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

fn now() -> Timestamp {
    SystemClock.now()
}

fn number(text: &str) -> i64 {
    text.parse().unwrap_or_else(|_| panic!("`{text}` is no number"))
}

/// Waits until `check` says so; it must, sooner or later.
async fn until(what: &str, mut check: impl AsyncFnMut() -> bool) {
    for _ in 0..300 {
        if check().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("in vain: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_the_contract() {
    let args = vec!["--databases".to_owned(), "64".to_owned()];
    let server = RedisServer::with(RedisOptions { args, ..RedisOptions::default() });
    let databases: Mutex<HashMap<&'static str, i64>> = Mutex::default();
    contract::run(async |name| {
        let db = {
            let mut databases = databases.lock().unwrap();
            let next = databases.len() as i64;
            *databases.entry(name).or_insert(next)
        };
        let mut config = RedisCoordinationConfig { clock: RedisClock::Caller, ..config(&server) };
        config.redis.db = db;
        open(config).await
    })
    .await;
}

#[tokio::test]
async fn nothing_newer_than_redis_6_0_is_sent() {
    // Commands and options that came later, as they would stand in a script or a command.
    const LATER: [&str; 14] = [
        "GETDEL",
        "GETEX",
        "LMOVE",
        "BLMOVE",
        "COPY",
        "'NX'",
        "'GT'",
        "'LT'",
        "SMISMEMBER",
        "ZMSCORE",
        "ZRANDMEMBER",
        "EXPIRETIME",
        "'GET',",
        "FCALL",
    ];
    let scripts = [
        include_str!("../../src/coordination/redis/acquire.lua"),
        include_str!("../../src/coordination/redis/breaker_read.lua"),
        include_str!("../../src/coordination/redis/breaker_write.lua"),
        include_str!("../../src/coordination/redis/claim.lua"),
        include_str!("../../src/coordination/redis/rates.lua"),
        include_str!("../../src/coordination/redis/release.lua"),
        include_str!("../../src/coordination/redis/setting.lua"),
        include_str!("../../src/coordination/redis/setting_replace.lua"),
        include_str!("../../src/coordination/redis/unhandled.lua"),
    ];
    for script in scripts {
        for line in script.lines().filter(|line| !line.contains("call('GET',")) {
            assert!(!LATER.iter().any(|word| line.contains(word)), "{line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_rights_suffice() {
    let server = RedisServer::start();
    let docs = include_str!("../../../../docs/redis.md");
    let rights = docs.lines().find(|line| line.starts_with("~mutt:* ")).unwrap();
    let mut command = vec!["ACL", "SETUSER", "mutt", "on", ">pw"];
    command.extend(rights.split(' '));
    assert_eq!(server.cli(&command), "OK");
    let credentials = Credentials::fixed(Some("mutt".into()), Secret::new("pw"));
    let redis = RedisConfig::server("127.0.0.1", server.port(), credentials);
    let driver = open(RedisCoordinationConfig::new(redis)).await;

    let limit = RateLimit { max: 1_500, window: Duration::from_secs(60) };
    server.cli(&["ZADD", "mutt:rate_limit:moog", "1", "old", "9e12", "ahead"]);
    assert_eq!(driver.acquire("moogsoft", 1_499, limit, now()).await.unwrap().granted, 1_499);
    assert!(driver.acquire("moogsoft", 1, limit, now()).await.unwrap().retry_after.is_some());
    for name in ["moogsoft", "other"] {
        for event in [false, false, true] {
            let settings = BreakerSettings {
                failure_threshold: 2,
                open_for: Duration::from_millis(1),
                probe_timeout: Duration::from_secs(1),
            };
            driver.breaker_report(name, event, settings, now()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    let policy = UnhandledPolicy { threshold: 3, expiry: Duration::from_secs(60), keys_max: 1 };
    // Numbers that count up, and numbers that look random; each of them new, and known.
    for (expiry, spread) in [(60, 0), (60, 0), (60, 36), (30, 36)] {
        let events = (0..40u64).map(|n| UnhandledEvent {
            org: model::OrgId::default(),
            host: format!("h{}", n % 2),
            shape: "00112233445566ff".into(),
            event_id: model::EventId::new(now(), 1, (n << spread) | n),
        });
        let policy = UnhandledPolicy { expiry: Duration::from_secs(expiry), ..policy };
        driver.observe_unhandled(events.collect(), policy, now()).await.unwrap();
    }
    driver.count_accepted(1, now()).await.unwrap();
    let counted = driver.accepted(RateUnit::Day, now(), now().plus(Duration::from_secs(1))).await;
    assert_eq!(counted.unwrap().len(), 1);
    driver.set_setting("a", "1").await.unwrap();
    assert_eq!(driver.settings().await.unwrap().len(), 1);
    driver.replace_setting("a", Some("1"), Some("2")).await.unwrap();
    driver.delete_setting("a").await.unwrap();
    assert!(driver.claim("setting:a", Duration::from_secs(60)).await.unwrap());
    driver.release("setting:a").await.unwrap();
    until("it listens", async || server.cli(&["PUBSUB", "NUMSUB", "mutt:config:updates"]).ends_with('1')).await;
    assert!(!server.cli(&["ACL", "LOG"]).contains("reason"), "{}", server.cli(&["ACL", "LOG"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_is_one_process_until_it_runs_out() {
    let server = RedisServer::start();
    let (one, two) = (driver(&server).await, driver(&server).await);
    let keep = Duration::from_millis(300);
    assert!(one.claim("alr_1", keep).await.unwrap());
    assert!(!two.claim("alr_1", keep).await.unwrap(), "another process has it");
    assert!(one.claim("alr_1", keep).await.unwrap(), "asking again prolongs it");
    assert!(two.claim("alr_2", keep).await.unwrap(), "other work is free");
    assert_ne!(server.cli(&["PTTL", "mutt:claim:alr_1"]), "-1", "no claim is for ever");
    assert!(two.claim("alr_2", Duration::from_secs(600)).await.unwrap());
    one.release("alr_2").await.unwrap();
    assert!(!one.claim("alr_2", keep).await.unwrap(), "nobody gives back what another has");
    two.release("alr_2").await.unwrap();
    assert!(one.claim("alr_2", keep).await.unwrap(), "what was given back is free");
    until("a claim that ran out is free", async || two.claim("alr_1", keep).await.unwrap()).await;
}
