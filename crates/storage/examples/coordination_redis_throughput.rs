//! How fast a Redis of its own counts unhandled events and grants units, and what that costs:
//! `cargo run --release -p storage --example coordination_redis_throughput`.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement")]

use model::{EventId, OrgId, Timestamp};
use runtime::{Clock, Credentials, Secret, SystemClock};
use std::sync::Arc;
use std::time::Duration;
use storage::RedisConfig;
use storage::coordination::{
    Coordination, CoordinationConfig, RateLimit, RedisCoordinationConfig, UnhandledEvent, UnhandledPolicy, open,
};
use testkit::servers::RedisServer;
use tokio::time::Instant;

const BATCH: u64 = 1_000;
const BATCHES: u64 = 500;
const SHAPES: u64 = 50;
const WORKERS: u64 = 2;

async fn unhandled(server: &RedisServer, driver: &Arc<dyn Coordination>, what: &str, threshold: u64, foreign: bool) {
    server.cli(&["FLUSHALL"]);
    let policy = UnhandledPolicy { threshold, expiry: Duration::from_secs(86_400), keys_max: 100_000 };
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let driver = Arc::clone(driver);
            tokio::spawn(async move {
                for batch in 0..BATCHES / WORKERS {
                    let event = |n: u64| {
                        let number = (worker * BATCHES + batch) * BATCH + n;
                        let (run, number) = if foreign {
                            let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                            (mixed as u32, mixed >> 16)
                        } else {
                            (7, number)
                        };
                        UnhandledEvent {
                            org: OrgId::default(),
                            host: format!("router-{}.example.net", n % 5),
                            shape: format!("{:016x}", n % SHAPES),
                            event_id: EventId::new(Timestamp::from_secs(1), run, number),
                        }
                    };
                    let events = (0..BATCH).map(event).collect();
                    driver.observe_unhandled(events, policy, SystemClock.now()).await.unwrap();
                }
            })
        })
        .collect();
    let work = async {
        for worker in workers {
            worker.await.unwrap();
        }
    };
    measured(server, what, BATCHES * BATCH, work).await;
}

/// CPU seconds of a process so far, all threads.
fn cpu_seconds(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let after_name = &stat[stat.rfind(')').unwrap() + 2..];
    let ticks: f64 = after_name.split(' ').skip(11).take(2).map(|t| t.parse::<f64>().unwrap()).sum();
    ticks / 100.0
}

/// Runs `work` and prints what one of `units` cost: time, and CPU of Redis and of this process, which
/// say what a machine without neighbours would do.
async fn measured(server: &RedisServer, what: &str, units: u64, work: impl Future<Output = ()>) {
    let redis = server.daemon().pid().to_string();
    let before = (Instant::now(), cpu_seconds(&redis), cpu_seconds("self"));
    work.await;
    let (seconds, of) = (before.0.elapsed().as_secs_f64(), |seconds: f64| seconds * 1e6 / units as f64);
    println!(
        "{what}: {:.0}/s; CPU each: Redis {:.2} µs, ours {:.2} µs",
        units as f64 / seconds,
        of(cpu_seconds(&redis) - before.1),
        of(cpu_seconds("self") - before.2),
    );
}

#[tokio::main]
async fn main() {
    let server = RedisServer::start();
    let redis = RedisConfig::server("127.0.0.1", server.port(), Credentials::fixed(None, Secret::new("")));
    let driver = open(CoordinationConfig::Redis(Box::new(RedisCoordinationConfig::new(redis)))).await.unwrap();
    unhandled(&server, &driver, "events with ids of ours, none triggers", 1 << 40, false).await;
    unhandled(&server, &driver, "events with ids of others, none triggers", 1 << 40, true).await;
    unhandled(&server, &driver, "events with ids of ours, threshold 100", 100, false).await;

    let limit = RateLimit { max: 10_000_000, window: Duration::from_secs(10) };
    let large = async {
        for _ in 0..20 {
            driver.acquire_all("a", 10_000, limit, SystemClock.now()).await.unwrap();
        }
    };
    measured(&server, "units, 10,000 at a time", 200_000, large).await;
    let single = async {
        for _ in 0..10_000 {
            driver.acquire("b", 1, limit, SystemClock.now()).await.unwrap();
        }
    };
    measured(&server, "units, one at a time", 10_000, single).await;
}
