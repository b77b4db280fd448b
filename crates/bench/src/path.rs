//! The whole path: accepted → matched → stored with 10, 100 and 1,000 rules; event → alert, alone and
//! under load; and what a server costs that does nothing.

use crate::Plan;
use crate::http::{NDJSON_EVENTS, answer, event, load_all, ndjson_body, request};
use crate::muttd::{ALL_ROLES, Muttd, Setup, Usage, fresh_dir};
use crate::peer::{AlertReceiver, Rsyslog, SEQUENCE};
use crate::record::{Record, percentile};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

pub const RULES: [usize; 3] = [10, 100, 1_000];
const CONNECTIONS: usize = 4;
const HOSTS: usize = 1_000;
/// One event of these many matches a rule.
const MATCHES_ONE_IN: usize = 100;
const QUIET: Duration = Duration::from_secs(10);

pub const LATENCY_EVENTS_PER_SECOND: u64 = 500;
pub const LATENCY_ALERT_ONE_IN: usize = 25;
/// Rules in force while alerts are waited for, and how many of them alert.
const LATENCY_RULES: usize = 100;
const ALERTING_RULES: usize = 9;
/// Of the rate that the whole path keeps up, what is sent besides while alerts are waited for.
pub const LOAD: f64 = 0.8;
/// Different bodies of that load, sent again and again.
const LOAD_BODIES: usize = 16;

/// One rule in ten is a regex, the others look for a text; the first `alerting` alert, the others are
/// only counted.
fn rule_file(plan: &Plan, rules: usize, alerting: usize) -> Result<PathBuf> {
    let mut text = String::from("rules:\n");
    for n in 0..rules {
        let handling = if n < alerting { "Page_and_ticket" } else { "Ignore" };
        let (kind, pattern) = if n % 10 == 9 {
            ("regex", format!("FAULT-{n:04} on (port|slot) [0-9]+"))
        } else {
            ("contains", format!("FAULT-{n:04}"))
        };
        let _ = write!(
            text,
            "  - name: bench {n}\n    match_string: '{pattern}'\n    match_type: {kind}\n    priority: {}\n    prod_handling: {handling}\n    dev_handling: {handling}\n    team_assignment: Bench\n",
            n + 1
        );
    }
    let file = fresh_dir(plan, "rules")?.join("rules.yml");
    std::fs::write(&file, text)?;
    Ok(file)
}

/// Ten shapes of messages from [`HOSTS`] hosts, so that unmatched events are counted in 10,000 places.
/// Rules before `first` match none of them.
fn path_event(n: usize, first: usize, rules: usize) -> String {
    const SHAPES: [&str; 10] = ["login", "logout", "link", "fan", "route", "dhcp", "mail", "disk", "cron", "audit"];
    let shape = SHAPES[(n / HOSTS) % SHAPES.len()];
    let what = if n.is_multiple_of(MATCHES_ONE_IN) {
        format!("FAULT-{:04} on port {n}: {shape}", first + (n / MATCHES_ONE_IN) % (rules - first))
    } else {
        format!("{shape} {n:06}")
    };
    event(n % HOSTS, &what)
}

pub fn whole(plan: &Plan, record: &mut Record) -> Result<()> {
    for _ in 0..plan.rounds {
        for rules in RULES {
            one_whole(plan, record, rules)?;
        }
    }
    Ok(())
}

fn one_whole(plan: &Plan, record: &mut Record, rules: usize) -> Result<()> {
    let name = format!("path/{rules}");
    let mut setup = Setup::new(ALL_ROLES, "strict");
    setup.rules = Some(rule_file(plan, rules, 0)?);
    let muttd = Muttd::start(plan, &setup)?;
    let loaded = muttd.metric("mutt_alerter_cache_rules_count", "")?;
    if loaded != rules as f64 {
        bail!("{loaded} rules are in force instead of {rules}");
    }
    let posts = plan.path_events as usize / NDJSON_EVENTS / CONNECTIONS;
    let requests: Vec<Arc<[Bytes]>> = (0..CONNECTIONS)
        .map(|c| {
            let post = |p: usize| {
                let first = (c * posts + p) * NDJSON_EVENTS;
                request(&muttd.key, "application/x-ndjson", &ndjson_body(|n| path_event(first + n, 0, rules)))
            };
            (0..posts).map(post).collect()
        })
        .collect();
    let events = (posts * CONNECTIONS * NDJSON_EVENTS) as f64;
    let before = muttd.usage();
    let start = Instant::now();
    let (to, sender) = (muttd.ingest, std::thread::spawn);
    let sender = sender(move || load_all(to, requests).map(|load| (load, start.elapsed())));
    let (mut settled, mut last) = (0.0, start);
    while settled < events && last.elapsed() < QUIET {
        std::thread::sleep(Duration::from_millis(10));
        let asked = Instant::now();
        let now = muttd.metric("mutt_events_settled_total", "")?;
        if now > settled {
            (settled, last) = (now, asked);
        }
    }
    let (load, accepted_in) = sender.join().ok().context("the sender panicked")??;
    record.push(format!("{name}/accept_rate"), load.answers as f64 * NDJSON_EVENTS as f64 / accepted_in.as_secs_f64());
    record.push(format!("{name}/errors"), load.errors as f64);
    record.push(format!("{name}/rate"), settled / (last - start).as_secs_f64());
    record.push(format!("{name}/missing"), events - settled);
    let handled = muttd.metric("mutt_events_settled_total", "outcome=\"handled\"")?;
    record.push(format!("{name}/handled"), handled);
    muttd.note_usage(record, &name, &before, settled);
    Ok(())
}

pub fn latency(plan: &Plan, record: &mut Record) -> Result<()> {
    let receiver = AlertReceiver::start()?;
    for _ in 0..plan.rounds {
        waits(plan, record, &receiver, "latency", 0.0)?;
        let rate = kept_up(plan, record, &receiver)? * LOAD;
        waits(plan, record, &receiver, "latency/loaded", rate)?;
    }
    Ok(())
}

fn seconds(plan: &Plan) -> u64 {
    if plan.quick { 3 } else { 10 }
}

/// The rate that the whole path keeps up for as long as alerts are waited for: as many events as fit into
/// that time at the highest rate of a burst, through the path as fast as they go.
fn kept_up(plan: &Plan, record: &mut Record, receiver: &AlertReceiver) -> Result<f64> {
    let burst = format!("path/{LATENCY_RULES}/rate");
    if record.spread(&burst).is_none() {
        one_whole(plan, record, LATENCY_RULES)?;
    }
    let burst = record.spread(&burst).context("the rate of the whole path")?.median;
    let mut setup = Setup::new(ALL_ROLES, "strict");
    setup.rules = Some(rule_file(plan, LATENCY_RULES, ALERTING_RULES)?);
    setup.webhook = Some(receiver.address);
    let muttd = Muttd::start(plan, &setup)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let start = Instant::now();
    let taken = runtime.block_on(pressed(&muttd, burst, seconds(plan)))? * start.elapsed().as_secs_f64();
    let (mut settled, mut last) = (0.0, start);
    // What is taken is known to a fraction of a post.
    while settled < taken - NDJSON_EVENTS as f64 && (settled == 0.0 || last.elapsed() < QUIET) {
        let now = muttd.metric("mutt_events_settled_total", "")?;
        if now > settled {
            (settled, last) = (now, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let rate = settled / (last - start).as_secs_f64();
    record.push("latency/kept_up", rate);
    Ok(rate)
}

/// How long alerts take while so many events a second come besides.
fn waits(plan: &Plan, record: &mut Record, receiver: &AlertReceiver, name: &str, rate: f64) -> Result<()> {
    receiver.arrivals.lock().unwrap_or_else(PoisonError::into_inner).clear();
    let mut setup = Setup::new(ALL_ROLES, "strict");
    setup.rules = Some(rule_file(plan, LATENCY_RULES, ALERTING_RULES)?);
    setup.webhook = Some(receiver.address);
    let muttd = Muttd::start(plan, &setup)?;
    let seconds = seconds(plan);
    let count = (LATENCY_EVENTS_PER_SECOND * seconds) as usize;
    let before = muttd.usage();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (sent, pressed) =
        runtime.block_on(async { tokio::try_join!(paced(&muttd, count), pressed(&muttd, rate, seconds)) })?;
    let deadline = Instant::now() + Duration::from_secs(5);
    while receiver.arrivals.lock().unwrap_or_else(PoisonError::into_inner).len() < sent.len()
        && Instant::now() < deadline
    {
        std::thread::sleep(Duration::from_millis(20));
    }
    muttd.note_usage(record, name, &before, count as f64 + pressed * seconds as f64);
    let arrivals = receiver.arrivals.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut waits = Vec::new();
    for (sequence, at) in &sent {
        let arrival = arrivals.iter().find(|(number, _)| number == sequence);
        waits.extend(arrival.map(|(_, arrived)| (*arrived - *at).as_micros() as u32));
    }
    record.push(format!("{name}/load_rate"), pressed);
    record.push(format!("{name}/alerts"), sent.len() as f64);
    record.push(format!("{name}/missing"), (sent.len() - waits.len()) as f64);
    record.push(format!("{name}/repeated"), arrivals.len().saturating_sub(waits.len()) as f64);
    record.push(format!("{name}/p50_ms"), percentile(&mut waits, 0.50) / 1e3);
    record.push(format!("{name}/p99_ms"), percentile(&mut waits, 0.99) / 1e3);
    record.push(format!("{name}/max_ms"), percentile(&mut waits, 1.0) / 1e3);
    Ok(())
}

/// Sends events that alert nobody, so many a second for so many seconds; how many a second were taken.
/// Where the server is slower, that is fewer.
async fn pressed(muttd: &Muttd, rate: f64, seconds: u64) -> Result<f64> {
    let posts = (rate * seconds as f64 / NDJSON_EVENTS as f64) as usize;
    if posts == 0 {
        return Ok(0.0);
    }
    let body = |b: usize| ndjson_body(|n| path_event(b * NDJSON_EVENTS + n, ALERTING_RULES, LATENCY_RULES));
    let bodies: Arc<[Bytes]> =
        (0..LOAD_BODIES).map(|b| request(&muttd.key, "application/x-ndjson", &body(b))).collect();
    let mut tasks = tokio::task::JoinSet::new();
    let start = tokio::time::Instant::now();
    for lane in 0..CONNECTIONS {
        let (to, bodies) = (muttd.ingest, bodies.clone());
        tasks.spawn(async move {
            let mut stream = TcpStream::connect(to).await?;
            let mut buffer = vec![0; 256 * 1_024];
            for n in (lane..posts).step_by(CONNECTIONS) {
                tokio::time::sleep_until(start + Duration::from_secs_f64(n as f64 * seconds as f64 / posts as f64))
                    .await;
                tokio::io::AsyncWriteExt::write_all(&mut stream, &bodies[n % LOAD_BODIES]).await?;
                if !answer(&mut stream, &mut buffer).await? {
                    bail!("events were refused: {}", String::from_utf8_lossy(&buffer[..200]));
                }
            }
            Ok(())
        });
    }
    while let Some(sent) = tasks.join_next().await {
        sent??;
    }
    Ok((posts * NDJSON_EVENTS) as f64 / start.elapsed().as_secs_f64())
}

/// Sends single events at an even pace; which of them must alert, and when each was sent.
async fn paced(muttd: &Muttd, count: usize) -> Result<Vec<(usize, Instant)>> {
    let lanes = 4;
    let mut tasks = tokio::task::JoinSet::new();
    let start = tokio::time::Instant::now();
    for lane in 0..lanes {
        let (to, key) = (muttd.ingest, muttd.key.clone());
        tasks.spawn(async move {
            let mut stream = TcpStream::connect(to).await?;
            stream.set_nodelay(true)?;
            let (mut buffer, mut sent) = (vec![0; 16 * 1_024], Vec::new());
            for n in (lane..count).step_by(lanes) {
                tokio::time::sleep_until(
                    start + Duration::from_micros(n as u64 * 1_000_000 / LATENCY_EVENTS_PER_SECOND),
                )
                .await;
                let alerts = n.is_multiple_of(LATENCY_ALERT_ONE_IN);
                let what = if alerts {
                    format!("FAULT-{:04} {SEQUENCE}{n:06}", n % ALERTING_RULES)
                } else {
                    format!("login {n:06}")
                };
                let request = request(&key, "application/json", &event(n % HOSTS, &what));
                if alerts {
                    sent.push((n, Instant::now()));
                }
                tokio::io::AsyncWriteExt::write_all(&mut stream, &request).await?;
                if !answer(&mut stream, &mut buffer).await? {
                    bail!("an event was refused: {}", String::from_utf8_lossy(&buffer[..200]));
                }
            }
            Ok(sent)
        });
    }
    let mut all = Vec::new();
    while let Some(sent) = tasks.join_next().await {
        all.extend(sent??);
    }
    Ok(all)
}

/// Start-up on an empty data folder, start-up with 1,000 rules, and memory after 3 s of nothing.
pub fn idle(plan: &Plan, record: &mut Record) -> Result<()> {
    for _ in 0..plan.rounds {
        let mut setup = Setup::new(ALL_ROLES, "strict");
        let muttd = Muttd::start(plan, &setup)?;
        record.push("idle/start_ms", muttd.start_ms);
        let before = muttd.usage();
        std::thread::sleep(Duration::from_secs(3));
        muttd.note_usage(record, "idle", &Usage::default(), 0.0);
        let used = muttd.usage().cpu_seconds - before.cpu_seconds;
        record.push("idle/cpu_percent", used / 3.0 * 100.0);
        drop(muttd);
        setup.rules = Some(rule_file(plan, 1_000, 0)?);
        record.push("idle/start_1000_rules_ms", Muttd::start(plan, &setup)?.start_ms);
        let peer = Rsyslog::start(plan, false)?;
        std::thread::sleep(Duration::from_secs(1));
        record.push("idle/rsyslog_rss_mb", peer.usage().rss_mb);
    }
    Ok(())
}
