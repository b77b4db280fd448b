use super::*;
use model::{ErrorKind, EventId, OrgId};
use runtime::Login;
use storage::coordination::{Admission, BreakerSettings, RateLimit, UnhandledEvent, UnhandledPolicy};

const LIMIT: RateLimit = RateLimit { max: 50, window: Duration::from_secs(600) };
const POLICY: UnhandledPolicy =
    UnhandledPolicy { threshold: 3, expiry: Duration::from_secs(86_400), keys_max: 100_000 };
const BREAKER: BreakerSettings = BreakerSettings {
    failure_threshold: 1,
    open_for: Duration::from_secs(300),
    probe_timeout: Duration::from_secs(30),
};

fn unhandled(number: u64) -> UnhandledEvent {
    UnhandledEvent {
        org: OrgId::default(),
        host: "router-1".into(),
        shape: "00112233445566ff".into(),
        event_id: EventId::new(now(), 7, number),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_everything_that_was_answered_is_there_without_a_restart_of_ours() {
    let args = vec!["--appendfsync".to_owned(), "always".to_owned()];
    let mut server = RedisServer::with(RedisOptions { args, ..RedisOptions::default() });
    let driver = driver(&server).await;
    assert_eq!(driver.acquire("moogsoft", 30, LIMIT, now()).await.unwrap().granted, 30);
    driver.set_setting("moog_rate_limit", "50").await.unwrap();
    let batch = vec![unhandled(1), unhandled(2), unhandled(3)];
    assert_eq!(driver.observe_unhandled(batch.clone(), POLICY, now()).await.unwrap(), [2]);
    driver.breaker_report("moogsoft", false, BREAKER, now()).await.unwrap();
    server.kill();
    let error = driver.acquire("moogsoft", 1, LIMIT, now()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let error = driver.observe_unhandled(batch.clone(), POLICY, now()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let error = driver.breaker_report("moogsoft", true, BREAKER, now()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    server.start_again();
    assert_eq!(driver.acquire("moogsoft", 50, LIMIT, now()).await.unwrap().granted, 20);
    assert_eq!(driver.settings().await.unwrap()["moog_rate_limit"], "50");
    assert_eq!(driver.observe_unhandled(batch, POLICY, now()).await.unwrap(), [2]);
    let admission = driver.breaker_admit("moogsoft", BREAKER, now()).await.unwrap();
    assert!(matches!(admission, Admission::Wait(_)), "{admission:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_redis_is_a_clear_error_and_recovers_by_itself() {
    let server = RedisServer::start();
    let mut impatient = config(&server);
    impatient.redis.answer_timeout = Duration::from_millis(500);
    impatient.redis.connect_timeout = Duration::from_millis(500);
    let driver = open(impatient).await;
    let batch = vec![unhandled(1), unhandled(2)];
    server.daemon().signal("STOP");
    let ends = tokio::time::Instant::now() + Duration::from_secs(3);
    while tokio::time::Instant::now() < ends {
        let kinds = [
            driver.acquire("moogsoft", 1, LIMIT, now()).await.unwrap_err().kind(),
            driver.observe_unhandled(batch.clone(), POLICY, now()).await.unwrap_err().kind(),
            driver.settings().await.unwrap_err().kind(),
        ];
        for kind in kinds {
            assert!(matches!(kind, ErrorKind::Timeout | ErrorKind::Unavailable), "{kind:?}");
        }
    }
    server.daemon().signal("CONT");
    until("it answers", async || driver.settings().await.is_ok()).await;
    // However often they had arrived, they count once.
    assert_eq!(driver.observe_unhandled(batch, POLICY, now()).await.unwrap(), [0usize; 0]);
    assert_eq!(server.cli(&["GET", "mutt:unhandled:router-1:00112233445566ff"]), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_said_and_a_new_one_is_taken_up() {
    let password = Some("first".to_owned());
    let server = RedisServer::with(RedisOptions { password, ..RedisOptions::default() });
    let login = |password: &str| Login { user: None, password: Secret::new(password) };
    let with = |credentials| {
        let redis = RedisConfig::server("127.0.0.1", server.port(), credentials);
        open_driver(CoordinationConfig::Redis(Box::new(RedisCoordinationConfig::new(redis))))
    };
    let error = with(Credentials::fixed(None, Secret::new("s3cret"))).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let text = error.to_string();
    assert!(
        text.contains("refuses") && text.contains(&server.port().to_string()) && !text.contains("s3cret"),
        "{text}"
    );

    let (writer, credentials) = Credentials::new(vec![login("first")]);
    let (asked, times) = tokio::sync::watch::channel(0);
    let driver = with(credentials.asking(asked)).await.unwrap();
    assert_eq!(*times.borrow(), 0);
    driver.set_setting("a", "1").await.unwrap();
    // The rotation retires the password, and our connections with it.
    server.cli(&["CONFIG", "SET", "requirepass", "second"]);
    let kill = std::process::Command::new("redis-cli")
        .args(["-p", &server.port().to_string(), "--no-auth-warning", "-a", "second"])
        .args(["CLIENT", "KILL", "TYPE", "normal"])
        .output()
        .unwrap();
    assert!(kill.status.success());
    until("it is refused", async || driver.settings().await.is_err()).await;
    let error = driver.settings().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(*times.borrow() > 0, "newer logins were asked for");
    writer.set(vec![login("first"), login("second")]);
    until("it is let in again", async || driver.settings().await.is_ok()).await;
    assert_eq!(driver.settings().await.unwrap()["a"], "1");
}

/// What delivers and detects frees memory, so it must not need any.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_over_maxmemory_still_coordinates() {
    let server = RedisServer::start();
    let driver = driver(&server).await;
    driver.set_setting("moog_rate_limit", "50").await.unwrap();
    server.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let refused = driver.set_setting("moog_rate_limit", "60").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
    assert_eq!(driver.acquire("moogsoft", 30, LIMIT, now()).await.unwrap().granted, 30);
    assert_eq!(driver.acquire("moogsoft", 30, LIMIT, now()).await.unwrap().granted, 20, "and counts");
    assert!(driver.claim("alr_1", Duration::from_secs(30)).await.unwrap());
    assert!(driver.claim("alr_1", Duration::from_secs(30)).await.unwrap(), "prolonged");
    let batch = vec![unhandled(1), unhandled(2), unhandled(3)];
    assert_eq!(driver.observe_unhandled(batch.clone(), POLICY, now()).await.unwrap(), [2]);
    assert_eq!(driver.observe_unhandled(batch, POLICY, now()).await.unwrap(), [2], "the same again");
    for channel in ["moogsoft", "other"] {
        driver.breaker_report(channel, false, BREAKER, now()).await.unwrap();
        let admission = driver.breaker_admit(channel, BREAKER, now()).await.unwrap();
        assert!(matches!(admission, Admission::Wait(_)), "{admission:?}");
        driver.breaker_half_open(channel, now()).await.unwrap();
        driver.breaker_report(channel, true, BREAKER, now()).await.unwrap();
    }
}
