use super::*;
use storage::coordination::RateLimit;

fn limit(max: u32, ms: u64) -> RateLimit {
    RateLimit { max, window: Duration::from_millis(ms) }
}

#[tokio::test]
async fn each_unit_is_a_member_under_the_contracts_key_with_its_time() {
    let server = RedisServer::start();
    let driver = driver(&server).await;
    let before = now();
    assert_eq!(driver.acquire("moogsoft", 3, limit(50, 60_000), Timestamp::default()).await.unwrap().granted, 3);
    assert_eq!(driver.acquire_all("ingestor", 2, limit(50, 60_000), Timestamp::default()).await.unwrap().granted, 2);
    assert_eq!(driver.acquire("pager", 1, limit(50, 60_000), Timestamp::default()).await.unwrap().granted, 1);
    let after = now();
    for (key, units, micros) in
        [("mutt:rate_limit:moog", 3, 1e3), ("mutt:rate_limit:ingestor", 2, 1e6), ("mutt:rate_limit:pager", 1, 1e3)]
    {
        assert_eq!(server.cli(&["ZCARD", key]), units.to_string());
        let members = server.cli(&["ZRANGE", key, "0", "-1", "WITHSCORES"]);
        for score in members.lines().skip(1).step_by(2) {
            let at = Timestamp::from_micros((score.parse::<f64>().unwrap() * micros).round() as i64);
            assert!(before <= at && at <= after, "{key}: {score}");
        }
        assert!((50..=61).contains(&number(&server.cli(&["TTL", key]))), "it goes by itself");
    }
}

#[tokio::test]
async fn what_an_original_forwarder_took_counts() {
    let server = RedisServer::start();
    let driver = driver(&server).await;
    for n in 0..7 {
        let at = now().millis().to_string();
        server.cli(&["ZADD", "mutt:rate_limit:moog", &at, &format!("{at}:0.{n}")]);
    }
    // One whose clock is an hour ahead must not block for an hour.
    let ahead = (now().millis() + 3_600_000).to_string();
    server.cli(&["ZADD", "mutt:rate_limit:moog", &ahead, "ahead"]);
    let grant = driver.acquire("moogsoft", 10, limit(10, 60_000), now()).await.unwrap();
    assert_eq!(grant.granted, 2);
    assert!(grant.retry_after.unwrap() <= Duration::from_secs(60));
    let score = server.cli(&["ZSCORE", "mutt:rate_limit:moog", "ahead"]).parse::<f64>().unwrap();
    assert!(score <= now().millis() as f64 + 1.0, "counted as made now");
}

#[tokio::test(flavor = "multi_thread")]
async fn askers_whose_clocks_differ_share_one_exact_limit() {
    const MAX: usize = 20;
    const WINDOW_MS: u64 = 500;
    let server = RedisServer::start();
    let mut tasks = Vec::new();
    for skew_ms in [-5_000i64, -700, 0, 9_000] {
        let driver = driver(&server).await;
        tasks.push(tokio::spawn(async move {
            let mut granted = 0;
            let ends = tokio::time::Instant::now() + Duration::from_secs(3);
            while tokio::time::Instant::now() < ends {
                let mine = Timestamp::from_millis(now().millis() + skew_ms);
                let want = fastrand::u32(1..4);
                let grant = driver.acquire("moogsoft", want, limit(MAX as u32, WINDOW_MS), mine).await.unwrap();
                granted += grant.granted as usize;
                tokio::time::sleep(grant.retry_after.unwrap_or_default().min(Duration::from_millis(30))).await;
            }
            granted
        }));
    }
    // What the server's clock said of each grant.
    let mut seen: HashMap<String, f64> = HashMap::new();
    let mut client = client(&server).await;
    while tasks.iter().any(|task| !task.is_finished()) {
        let members: Vec<(String, f64)> = redis::cmd("ZRANGE")
            .arg("mutt:rate_limit:moog")
            .arg(&["0", "-1", "WITHSCORES"])
            .query_async(&mut client)
            .await
            .unwrap();
        seen.extend(members);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut granted = 0;
    for task in tasks {
        granted += task.await.unwrap();
    }
    assert!(granted >= 2 * MAX, "{granted}");
    assert!(seen.len() <= granted && seen.len() + MAX >= granted, "{} of {granted} seen", seen.len());
    let mut times: Vec<f64> = seen.into_values().collect();
    times.sort_unstable_by(f64::total_cmp);
    for pair in times.windows(MAX + 1) {
        let apart = pair[MAX] - pair[0];
        assert!(apart > WINDOW_MS as f64 - 0.001, "{} units in {apart} ms", MAX + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_grants_go_in_bounded_steps_and_all_or_nothing_stays_so() {
    let server = RedisServer::start();
    let driver = driver(&server).await;
    let big = limit(10_000, 600_000);
    server.cli(&["CONFIG", "RESETSTAT"]);
    assert_eq!(driver.acquire("a", 10_500, big, now()).await.unwrap().granted, 10_000);
    assert_eq!(server.cli(&["ZCARD", "mutt:rate_limit:a"]), "10000");
    let stats = server.cli(&["INFO", "commandstats"]);
    let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")).unwrap();
    assert_eq!(
        calls.split(',').next().unwrap().parse::<u32>().unwrap() - 1,
        11,
        "the first was not known yet: {calls}"
    );

    let mut tasks = Vec::new();
    for _ in 0..4 {
        let driver = super::driver(&server).await;
        tasks.push(tokio::spawn(async move {
            driver.acquire_all("b", 2_500, limit(6_000, 600_000), now()).await.unwrap().granted
        }));
    }
    let mut granted = 0;
    for task in tasks {
        let part = task.await.unwrap();
        assert!(part == 0 || part == 2_500, "{part}");
        granted += part;
    }
    assert_eq!(server.cli(&["ZCARD", "mutt:rate_limit:b"]), granted.to_string(), "what was not used is not spent");
    assert!(granted <= 5_000);
    let rest = driver.acquire("b", 6_000, limit(6_000, 600_000), now()).await.unwrap().granted;
    assert_eq!(rest, 6_000 - granted);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_grants_what_the_embedded_driver_grants() {
    let (server, dir) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let (here, there) = (embedded(dir.path()).await, simulated(&server).await);
    let mut random = fastrand::Rng::with_seed(7);
    let mut micros = 1_773_144_000_000_000;
    for step in 0..600 {
        micros += random.i64(0..400_000);
        let at = Timestamp::from_micros(micros);
        let name = random.choice(["moogsoft", "ingestor", "other"]).unwrap();
        let limit = limit(random.u32(0..12), 1_000 * random.u64(1..3));
        let want = random.u32(0..6);
        let both = if random.bool() {
            (here.acquire(name, want, limit, at).await, there.acquire(name, want, limit, at).await)
        } else {
            (here.acquire_all(name, want, limit, at).await, there.acquire_all(name, want, limit, at).await)
        };
        assert_eq!(both.0.unwrap(), both.1.unwrap(), "step {step}: {name} {want} of {limit:?} at {at}");
    }
}
