//! What every coordination driver must do. `open(name)` gives the driver called `name`: empty the
//! first time, afterwards with what must survive (the one before is dropped by then).

#![expect(clippy::unwrap_used, reason = "a test suite")]

use super::{
    Admission, BreakerSettings, BreakerState, Coordination, RateLimit, RateUnit, UnhandledEvent, UnhandledPolicy,
};
use model::{ErrorKind, EventId, OrgId, Timestamp};
use std::sync::Arc;
use std::time::Duration;

/// Runs every check.
pub async fn run(open: impl AsyncFn(&'static str) -> Arc<dyn Coordination>) {
    a_window_grants_its_limit_and_says_when_more_comes(&open("window").await).await;
    windows_of_different_names_are_different(&open("names").await).await;
    a_changed_limit_counts_at_once(&open("live").await).await;
    a_restart_grants_nothing_twice(&open).await;
    a_clock_that_steps_back_grants_nothing_extra_and_blocks_for_a_window_at_most(&open("clock").await).await;
    askers_at_once_share_one_limit(&open("askers").await).await;
    a_breaker_opens_probes_and_closes(&open("breaker").await).await;
    remediation_half_opens_a_breaker(&open("half").await).await;
    looking_at_a_breaker_changes_nothing(&open("look").await).await;
    the_event_that_reaches_the_threshold_triggers_once(&open("threshold").await).await;
    an_event_counts_once_and_its_trigger_is_told_again(&open).await;
    a_lowered_threshold_still_triggers(&open("lowered").await).await;
    counting_begins_anew_after_the_expiry(&open("expiry").await).await;
    hosts_shapes_and_organisations_are_counted_apart(&open("apart").await).await;
    endless_shapes_stay_within_the_bound(&open("bound").await).await;
    every_second_event_counted_is_still_exact(&open).await;
    accepted_events_are_counted_by_minute_hour_and_day(&open).await;
    old_rates_are_forgotten(&open("old rates").await).await;
    settings_keep_their_last_value(&open).await;
    a_setting_is_replaced_only_if_it_is_what_was_expected(&open("replaced").await).await;
    of_many_who_replace_a_setting_at_once_one_does(&open("at once").await).await;
}

type Driver = Arc<dyn Coordination>;

/// 2026-03-10T12:00:00Z plus `ms`.
fn at(ms: u64) -> Timestamp {
    Timestamp::from_secs(1_773_144_000).plus(Duration::from_millis(ms))
}

fn limit(max: u32, secs: u64) -> RateLimit {
    RateLimit { max, window: Duration::from_secs(secs) }
}

async fn grant(driver: &Driver, want: u32, limit: RateLimit, now: Timestamp) -> u32 {
    driver.acquire("w", want, limit, now).await.unwrap().granted
}

async fn a_window_grants_its_limit_and_says_when_more_comes(driver: &Driver) {
    let first = driver.acquire("w", 6, limit(10, 1), at(0)).await.unwrap();
    assert_eq!((first.granted, first.retry_after), (6, None));
    let second = driver.acquire("w", 6, limit(10, 1), at(300)).await.unwrap();
    assert_eq!((second.granted, second.retry_after), (4, Some(Duration::from_millis(700))));
    assert_eq!(grant(driver, 1, limit(10, 1), at(999)).await, 0);
    assert_eq!(grant(driver, 100, limit(10, 1), at(1_000)).await, 6);
    assert_eq!(grant(driver, 0, limit(10, 1), at(1_000)).await, 0);
}

async fn windows_of_different_names_are_different(driver: &Driver) {
    for name in ["a", "b", "a b", "ä"] {
        assert_eq!(driver.acquire(name, 5, limit(5, 60), at(0)).await.unwrap().granted, 5);
        assert_eq!(driver.acquire(name, 1, limit(5, 60), at(0)).await.unwrap().granted, 0);
    }
}

async fn a_changed_limit_counts_at_once(driver: &Driver) {
    assert_eq!(grant(driver, 10, limit(10, 60), at(0)).await, 10);
    assert_eq!(grant(driver, 10, limit(15, 60), at(1)).await, 5);
    assert_eq!(grant(driver, 10, limit(3, 60), at(2)).await, 0);
    let none = driver.acquire("w", 1, limit(0, 60), at(120_000)).await.unwrap();
    assert_eq!((none.granted, none.retry_after), (0, Some(Duration::from_secs(60))));
}

async fn a_restart_grants_nothing_twice(open: &impl AsyncFn(&'static str) -> Driver) {
    let driver = open("restart").await;
    assert_eq!(grant(&driver, 400, limit(1_000, 60), at(0)).await, 400);
    assert_eq!(grant(&driver, 400, limit(1_000, 60), at(10_000)).await, 400);
    drop(driver);
    let driver = open("restart").await;
    assert_eq!(grant(&driver, 1_000, limit(1_000, 60), at(20_000)).await, 200);
    drop(driver);
    let driver = open("restart").await;
    assert_eq!(grant(&driver, 1_000, limit(1_000, 60), at(59_000)).await, 0);
    assert_eq!(grant(&driver, 1_000, limit(1_000, 60), at(60_000)).await, 400);
}

async fn a_clock_that_steps_back_grants_nothing_extra_and_blocks_for_a_window_at_most(driver: &Driver) {
    assert_eq!(grant(driver, 5, limit(5, 10), at(100_000_000)).await, 5);
    let grant = driver.acquire("w", 5, limit(5, 10), at(0)).await.unwrap();
    assert_eq!(grant.granted, 0);
    let wait = grant.retry_after.unwrap();
    assert!(wait <= Duration::from_secs(10));
    assert!(driver.acquire("w", 5, limit(5, 10), at(0).plus(wait)).await.unwrap().granted > 0);
}

async fn askers_at_once_share_one_limit(driver: &Driver) {
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let driver = Arc::clone(driver);
            tokio::spawn(async move {
                let mut granted = 0;
                for _ in 0..20 {
                    granted += driver.acquire("w", 1, limit(137, 60), at(5)).await.unwrap().granted;
                }
                granted
            })
        })
        .collect();
    let mut granted = 0;
    for task in tasks {
        granted += task.await.unwrap();
    }
    assert_eq!(granted, 137);
}

const BREAKER: BreakerSettings = BreakerSettings {
    failure_threshold: 2,
    open_for: Duration::from_secs(300),
    probe_timeout: Duration::from_secs(30),
};

async fn trip(driver: &Driver, name: &str, now: Timestamp) {
    for _ in 0..2 {
        driver.breaker_report(name, false, BREAKER, now).await.unwrap();
    }
}

async fn a_breaker_opens_probes_and_closes(driver: &Driver) {
    let admit = async |ms| driver.breaker_admit("b", BREAKER, at(ms)).await.unwrap();
    assert_eq!(admit(0).await, Admission::Allowed);
    driver.breaker_report("b", false, BREAKER, at(0)).await.unwrap();
    let (before, view) = driver.breaker_report("b", false, BREAKER, at(0)).await.unwrap();
    assert_eq!((before, view.state, view.failures, view.trips), (BreakerState::Closed, BreakerState::Open, 2, 1));
    assert_eq!(view.retry_in, Some(Duration::from_secs(300)));
    assert_eq!(driver.breaker_admit("other", BREAKER, at(0)).await.unwrap(), Admission::Allowed);
    assert_eq!(admit(100_000).await, Admission::Wait(Duration::from_secs(200)));
    assert_eq!(admit(300_000).await, Admission::Probe);
    assert!(matches!(admit(300_000).await, Admission::Wait(_)), "one probe at a time");
    let (before, view) = driver.breaker_report("b", false, BREAKER, at(301_000)).await.unwrap();
    assert_eq!((before, view.state, view.trips), (BreakerState::HalfOpen, BreakerState::Open, 2));
    assert_eq!(admit(601_000).await, Admission::Probe);
    assert_eq!(admit(631_000).await, Admission::Probe, "the probe that never reported is given up");
    let (before, view) = driver.breaker_report("b", true, BREAKER, at(632_000)).await.unwrap();
    assert_eq!((before, view.state, view.failures), (BreakerState::HalfOpen, BreakerState::Closed, 0));
    assert_eq!(admit(632_000).await, Admission::Allowed);
}

async fn remediation_half_opens_a_breaker(driver: &Driver) {
    trip(driver, "b", at(0)).await;
    driver.breaker_half_open("b", at(1)).await.unwrap();
    driver.breaker_half_open("unknown", at(1)).await.unwrap();
    assert_eq!(driver.breaker_view("b", BREAKER, at(1)).await.unwrap().state, BreakerState::HalfOpen);
    assert_eq!(driver.breaker_admit("b", BREAKER, at(1)).await.unwrap(), Admission::Probe);
}

async fn looking_at_a_breaker_changes_nothing(driver: &Driver) {
    let view = driver.breaker_view("b", BREAKER, at(0)).await.unwrap();
    assert_eq!((view.state, view.failures, view.opened_at, view.retry_in), (BreakerState::Closed, 0, None, None));
    trip(driver, "b", at(0)).await;
    for _ in 0..3 {
        let view = driver.breaker_view("b", BREAKER, at(300_000)).await.unwrap();
        assert_eq!((view.opened_at, view.retry_in), (Some(at(0)), Some(Duration::ZERO)));
    }
    assert_eq!(driver.breaker_admit("b", BREAKER, at(300_000)).await.unwrap(), Admission::Probe);
}

fn policy(threshold: u64) -> UnhandledPolicy {
    UnhandledPolicy { threshold, expiry: Duration::from_secs(3_600), keys_max: 1_000 }
}

fn unhandled(run: u32, number: u64) -> UnhandledEvent {
    UnhandledEvent {
        org: OrgId::default(),
        host: "router-1".into(),
        shape: "00112233445566ff".into(),
        event_id: EventId::new(at(0), run, number),
    }
}

fn series(numbers: std::ops::Range<u64>) -> Vec<UnhandledEvent> {
    numbers.map(|n| unhandled(1, n)).collect()
}

async fn observe(driver: &Driver, events: Vec<UnhandledEvent>, threshold: u64, ms: u64) -> Vec<usize> {
    driver.observe_unhandled(events, policy(threshold), at(ms)).await.unwrap()
}

async fn the_event_that_reaches_the_threshold_triggers_once(driver: &Driver) {
    assert_eq!(observe(driver, Vec::new(), 10, 0).await, [0usize; 0]);
    assert_eq!(observe(driver, series(0..9), 10, 0).await, [0usize; 0]);
    assert_eq!(observe(driver, series(9..30), 10, 1).await, [0], "the tenth of all");
    assert_eq!(observe(driver, series(30..100), 10, 2).await, [0usize; 0]);
}

async fn an_event_counts_once_and_its_trigger_is_told_again(open: &impl AsyncFn(&'static str) -> Driver) {
    let driver = open("again").await;
    let batch = series(0..6);
    for _ in 0..5 {
        assert_eq!(observe(&driver, batch.clone(), 10, 0).await, [0usize; 0], "six events are six");
    }
    let twice = [series(6..9), series(6..9)].concat();
    assert_eq!(observe(&driver, twice, 10, 0).await, [0usize; 0], "also within one call");
    drop(driver);
    let driver = open("again").await;
    assert_eq!(observe(&driver, batch, 10, 0).await, [0usize; 0], "also after a restart");
    assert_eq!(observe(&driver, series(8..12), 10, 0).await, [1]);
    assert_eq!(observe(&driver, series(8..12), 10, 0).await, [1]);
    drop(driver);
    let driver = open("again").await;
    assert_eq!(observe(&driver, series(5..20), 10, 0).await, [4], "the batch is worked again after a crash");
}

async fn a_lowered_threshold_still_triggers(driver: &Driver) {
    assert_eq!(observe(driver, series(0..50), 100, 0).await, [0usize; 0]);
    assert_eq!(observe(driver, series(50..60), 20, 0).await, [0]);
    assert_eq!(observe(driver, series(60..160), 1, 0).await, [0usize; 0]);
}

async fn counting_begins_anew_after_the_expiry(driver: &Driver) {
    let hour = 3_600_000;
    assert_eq!(observe(driver, series(0..9), 10, 0).await, [0usize; 0]);
    assert_eq!(observe(driver, series(9..10), 10, hour).await, [0usize; 0], "nine of an hour ago are forgotten");
    assert_eq!(observe(driver, series(10..19), 10, hour + 1).await, [8], "one and nine");
    assert_eq!(observe(driver, series(19..99), 10, 2 * hour).await, [0usize; 0]);
    assert_eq!(observe(driver, series(99..110), 10, 2 * hour + 1).await, [9], "an hour after the trigger");
    // A clock that steps back must not keep the trigger for longer than its expiry.
    let later = UnhandledEvent { host: "router-2".into(), ..unhandled(2, 0) };
    assert_eq!(observe(driver, vec![later.clone()], 1, 1_000 * hour).await, [0]);
    let next = |n| vec![UnhandledEvent { host: "router-2".into(), ..unhandled(2, n) }];
    assert_eq!(observe(driver, next(1), 1, 3 * hour).await, [0usize; 0]);
    assert_eq!(observe(driver, next(2), 1, 4 * hour).await, [0]);
}

async fn hosts_shapes_and_organisations_are_counted_apart(driver: &Driver) {
    let mut events = Vec::new();
    for (i, (org, host, shape)) in
        [("default", "a", "x"), ("default", "a", "y"), ("default", "b", "x"), ("acme", "a", "x")].iter().enumerate()
    {
        for n in 0..3 {
            let event = unhandled(1, i as u64 * 10 + n);
            events.push(UnhandledEvent {
                org: org.parse().unwrap(),
                host: (*host).into(),
                shape: (*shape).into(),
                ..event
            });
        }
    }
    assert_eq!(observe(driver, events.clone(), 4, 0).await, [0usize; 0]);
    let one_more = UnhandledEvent { event_id: EventId::new(at(0), 1, 99), ..events[11].clone() };
    assert_eq!(observe(driver, vec![one_more], 4, 0).await, [0]);
}

async fn endless_shapes_stay_within_the_bound(driver: &Driver) {
    let small = UnhandledPolicy { keys_max: 100, ..policy(5) };
    let hot = |n| UnhandledEvent { host: "hot".into(), ..unhandled(2, n) };
    let mut triggers = 0;
    for round in 0..20u64 {
        let mut batch: Vec<_> = (0..50)
            .map(|i| UnhandledEvent { shape: format!("{:016x}", round * 50 + i), ..unhandled(1, round * 50 + i) })
            .collect();
        batch.push(hot(round));
        triggers += driver.observe_unhandled(batch, small, at(round)).await.unwrap().len();
    }
    assert_eq!(triggers, 1, "what is seen all the time is not dropped, and nothing else triggers");
    assert_eq!(driver.unhandled_evictions(), 901, "1,000 shapes and one host, 100 kept");
    let flood = (0..500).map(|i| UnhandledEvent { shape: format!("f{i:015x}"), ..unhandled(3, i) }).collect();
    assert_eq!(driver.observe_unhandled(flood, small, at(50)).await.unwrap(), [0usize; 0]);
}

async fn every_second_event_counted_is_still_exact(open: &impl AsyncFn(&'static str) -> Driver) {
    let even = |from: u64| -> Vec<_> { (from..from + 2_000).step_by(2).map(|n| unhandled(1, n)).collect() };
    let driver = open("gaps").await;
    // Workers finish in any order.
    for from in [4_000, 0, 8_000, 2_000, 6_000] {
        assert_eq!(observe(&driver, even(from), 10_000, 0).await, [0usize; 0]);
    }
    drop(driver);
    let driver = open("gaps").await;
    for from in [0, 2_000, 4_000, 6_000, 8_000] {
        assert_eq!(observe(&driver, even(from), 5_001, 0).await, [0usize; 0]);
    }
    assert_eq!(observe(&driver, vec![unhandled(1, 5_001)], 5_001, 0).await, [0], "a number between the counted ones");
}

async fn accepted_events_are_counted_by_minute_hour_and_day(open: &impl AsyncFn(&'static str) -> Driver) {
    let driver = open("rates").await;
    for (n, minute) in [(5, 0), (7, 0), (11, 1), (13, 61)] {
        driver.count_accepted(n, at(minute * 60_000 + 1)).await.unwrap();
    }
    let check = async |driver: &Driver| {
        let of = async |unit| driver.accepted(unit, at(0), at(7_200_000)).await.unwrap();
        let minute = |m: u64| at(m * 60_000);
        assert_eq!(of(RateUnit::Minute).await, [(minute(0), 12), (minute(1), 11), (minute(61), 13)]);
        assert_eq!(of(RateUnit::Hour).await, [(minute(0), 23), (minute(60), 13)]);
        assert_eq!(of(RateUnit::Day).await, [(at(0).minus(Duration::from_secs(43_200)), 36)]);
        let part = driver.accepted(RateUnit::Minute, at(30_000), at(60_000)).await.unwrap();
        assert_eq!(part, [(minute(0), 12)], "the unit that holds `from`, none that begins at `to`");
    };
    check(&driver).await;
    drop(driver);
    check(&open("rates").await).await;
}

async fn old_rates_are_forgotten(driver: &Driver) {
    driver.count_accepted(1, at(0)).await.unwrap();
    let hours = |n: u64| n * 3_600_000;
    driver.count_accepted(1, at(hours(3))).await.unwrap();
    driver.count_accepted(1, at(hours(3) + 2_000)).await.unwrap();
    let of = async |unit| driver.accepted(unit, at(0), at(hours(9_000))).await.unwrap().len();
    assert_eq!((of(RateUnit::Minute).await, of(RateUnit::Hour).await), (1, 2));
    driver.count_accepted(1, at(hours(60))).await.unwrap();
    driver.count_accepted(1, at(hours(60) + 2_000)).await.unwrap();
    assert_eq!((of(RateUnit::Minute).await, of(RateUnit::Hour).await), (1, 1));
}

async fn settings_keep_their_last_value(open: &impl AsyncFn(&'static str) -> Driver) {
    let driver = open("settings").await;
    assert!(driver.settings().await.unwrap().is_empty());
    assert_eq!(driver.set_setting("moog_rate_limit", "50").await.unwrap(), None);
    assert_eq!(driver.set_setting("moog_rate_limit", "60").await.unwrap(), Some("50".into()));
    assert_eq!(driver.set_setting("ключ", "").await.unwrap(), None);
    let expected = [("moog_rate_limit".to_owned(), "60".to_owned()), ("ключ".to_owned(), String::new())];
    assert_eq!(driver.settings().await.unwrap(), expected.clone().into());
    drop(driver);
    let driver = open("settings").await;
    assert_eq!(driver.settings().await.unwrap(), expected.clone().into());
    assert_eq!(driver.delete_setting("moog_rate_limit").await.unwrap(), Some("60".into()));
    assert_eq!(driver.delete_setting("moog_rate_limit").await.unwrap(), None);
    assert_eq!(driver.settings().await.unwrap(), [expected[1].clone()].into());
    drop(driver);
    assert_eq!(open("settings").await.settings().await.unwrap(), [expected[1].clone()].into());
}

async fn a_setting_is_replaced_only_if_it_is_what_was_expected(driver: &Driver) {
    let now = async || driver.settings().await.unwrap().remove("k");
    let refused = async |old: Option<&str>, new: Option<&str>| {
        driver.replace_setting("k", old, new).await.unwrap_err().kind() == ErrorKind::Conflict
    };
    assert!(refused(Some("1"), Some("2")).await && refused(Some("1"), Some("")).await);
    assert_eq!(now().await, None);
    driver.replace_setting("k", None, Some("1")).await.unwrap();
    assert!(refused(None, Some("2")).await && refused(Some(""), None).await && refused(Some("2"), None).await);
    assert_eq!(now().await.as_deref(), Some("1"));
    driver.replace_setting("k", Some("1"), Some("")).await.unwrap();
    assert_eq!(now().await.as_deref(), Some(""));
    assert!(refused(None, Some("2")).await, "an empty value is a value");
    driver.replace_setting("k", Some("x"), Some("")).await.unwrap();
    driver.replace_setting("k", Some(""), None).await.unwrap();
    assert_eq!(now().await, None);
    driver.replace_setting("k", Some("x"), None).await.unwrap();
}

async fn of_many_who_replace_a_setting_at_once_one_does(driver: &Driver) {
    let tasks: Vec<_> = (0..20)
        .map(|n| {
            let driver = Arc::clone(driver);
            tokio::spawn(async move { driver.replace_setting("k", None, Some(&n.to_string())).await.is_ok() })
        })
        .collect();
    let mut replaced = 0;
    for task in tasks {
        replaced += u32::from(task.await.unwrap());
    }
    assert_eq!(replaced, 1);
}
