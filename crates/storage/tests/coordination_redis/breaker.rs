use super::*;
use storage::coordination::{Admission, BreakerSettings, BreakerState};

const SETTINGS: BreakerSettings = BreakerSettings {
    failure_threshold: 2,
    open_for: Duration::from_secs(300),
    probe_timeout: Duration::from_secs(30),
};

async fn report(driver: &Driver, success: bool) {
    driver.breaker_report("moogsoft", success, SETTINGS, now()).await.unwrap();
}

fn state(server: &RedisServer) -> [String; 3] {
    ["state", "failures", "open_time"]
        .map(|part| server.cli(&["GET", &format!("mutt:circuit_breaker:moogsoft:{part}")]))
}

#[tokio::test]
async fn both_families_of_keys_say_how_the_breaker_stands() {
    let server = RedisServer::start();
    let driver = driver(&server).await;
    report(&driver, true).await;
    assert_eq!(state(&server), ["", "", ""], "nothing to say");
    report(&driver, false).await;
    assert_eq!(state(&server), ["CLOSED", "1", ""]);
    assert_eq!(server.cli(&["GET", "mutt:circuit:moog:failures"]), "1");
    assert_eq!(server.cli(&["EXISTS", "mutt:circuit:moog:open"]), "0");
    let before = now();
    report(&driver, false).await;
    let [word, failures, opened] = state(&server);
    assert_eq!((word.as_str(), failures.as_str()), ("OPEN", "2"));
    let opened = opened.parse::<f64>().unwrap() * 1e6;
    assert!(opened >= before.micros() as f64 && opened <= now().micros() as f64, "{opened}");
    assert_eq!(server.cli(&["GET", "mutt:circuit:moog:open"]), "1");
    assert!((290..=300).contains(&number(&server.cli(&["TTL", "mutt:circuit:moog:open"]))));
    assert_eq!(server.cli(&["TTL", "mutt:circuit_breaker:moogsoft:state"]), "-1");
    driver.breaker_half_open("moogsoft", now()).await.unwrap();
    assert_eq!(server.cli(&["EXISTS", "mutt:circuit:moog:open"]), "0");
    assert_eq!(driver.breaker_admit("moogsoft", SETTINGS, now()).await.unwrap(), Admission::Probe);
    assert_eq!(state(&server)[0], "HALF_OPEN");
    report(&driver, true).await;
    assert_eq!(state(&server), ["CLOSED", "0", ""]);
    assert_eq!(server.cli(&["GET", "mutt:circuit:moog:failures"]), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_original_forwarder_opens_is_closed_by_one_probe_of_all() {
    let server = RedisServer::start();
    let drivers = [driver(&server).await, driver(&server).await];
    // Its float, its clock, its count, as redis-py writes them.
    let opened = now().minus(Duration::from_secs(290));
    let text = format!("{}.{:07}", opened.secs(), opened.micros().rem_euclid(1_000_000) * 10);
    server.cli(&["SET", "mutt:circuit_breaker:moogsoft:failures", "10"]);
    server.cli(&["SET", "mutt:circuit_breaker:moogsoft:open_time", &text]);
    server.cli(&["SET", "mutt:circuit_breaker:moogsoft:state", "OPEN"]);
    let view = drivers[0].breaker_view("moogsoft", SETTINGS, now()).await.unwrap();
    assert_eq!((view.state, view.failures, view.opened_at), (BreakerState::Open, 10, Some(opened)));
    let wait = drivers[1].breaker_admit("moogsoft", SETTINGS, now()).await.unwrap();
    assert!(matches!(wait, Admission::Wait(wait) if wait <= Duration::from_secs(10)), "{wait:?}");
    // Its time-out has passed, and it has said so.
    server.cli(&["SET", "mutt:circuit_breaker:moogsoft:state", "HALF_OPEN"]);
    let tasks: Vec<_> = (0..40)
        .map(|n| {
            let driver = Arc::clone(&drivers[n % 2]);
            tokio::spawn(async move { driver.breaker_admit("moogsoft", SETTINGS, now()).await.unwrap() })
        })
        .collect();
    let mut probes = 0;
    for task in tasks {
        match task.await.unwrap() {
            Admission::Probe => probes += 1,
            Admission::Wait(_) => {}
            Admission::Allowed => panic!("it is not closed"),
        }
    }
    assert_eq!(probes, 1);
    report(&drivers[1], true).await;
    assert_eq!(drivers[0].breaker_admit("moogsoft", SETTINGS, now()).await.unwrap(), Admission::Allowed);
}

#[tokio::test]
async fn the_flag_of_a_forwarder_that_knows_only_the_second_family_holds_calls_back() {
    let server = RedisServer::start();
    let driver = driver(&server).await;
    server.cli(&["SETEX", "mutt:circuit:moog:open", "60", "1"]);
    let admission = driver.breaker_admit("moogsoft", SETTINGS, now()).await.unwrap();
    assert!(matches!(admission, Admission::Wait(wait) if wait <= Duration::from_secs(60)), "{admission:?}");
    assert_eq!(driver.breaker_admit("other", SETTINGS, now()).await.unwrap(), Admission::Allowed);
    server.cli(&["DEL", "mutt:circuit:moog:open"]);
    assert_eq!(driver.breaker_admit("moogsoft", SETTINGS, now()).await.unwrap(), Admission::Allowed);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_failure_of_many_reporters_is_lost() {
    let server = RedisServer::start();
    let drivers = [driver(&server).await, driver(&server).await];
    let patient = BreakerSettings { failure_threshold: 1_000, ..SETTINGS };
    let tasks: Vec<_> = (0..40)
        .map(|n| {
            let driver = Arc::clone(&drivers[n % 2]);
            tokio::spawn(async move { driver.breaker_report("moogsoft", false, patient, now()).await.unwrap() })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(server.cli(&["GET", "mutt:circuit_breaker:moogsoft:failures"]), "40");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_decides_what_the_embedded_driver_decides() {
    let (server, dir) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let (here, there) = (embedded(dir.path()).await, simulated(&server).await);
    let mut random = fastrand::Rng::with_seed(11);
    let mut secs = 1_773_144_000;
    for step in 0..800 {
        // Now and then the clock steps back.
        secs += if random.u8(0..40) == 0 { -random.i64(0..1_000) } else { random.i64(0..100) };
        let at = Timestamp::from_micros(secs * 1_000_000 + random.i64(0..1_000_000));
        let name = random.choice(["moogsoft", "other"]).unwrap();
        match random.u8(0..8) {
            0 => {
                here.breaker_half_open(name, at).await.unwrap();
                there.breaker_half_open(name, at).await.unwrap();
            }
            1..=4 => {
                let success = random.u8(0..3) == 0;
                let mine = here.breaker_report(name, success, SETTINGS, at).await.unwrap();
                let other = there.breaker_report(name, success, SETTINGS, at).await.unwrap();
                assert_eq!(mine, other, "step {step}");
            }
            _ => {
                let mine = here.breaker_admit(name, SETTINGS, at).await.unwrap();
                assert_eq!(mine, there.breaker_admit(name, SETTINGS, at).await.unwrap(), "step {step}");
            }
        }
        let mine = here.breaker_view(name, SETTINGS, at).await.unwrap();
        assert_eq!(mine, there.breaker_view(name, SETTINGS, at).await.unwrap(), "step {step}");
    }
}
