//! Many agents at one gateway: memory of a session, records a second, and how long all of them need to come back after
//! a restart. The agents are real clients (TLS 1.3 with certificates of the gateway's own authority, HTTP/2) in this
//! process, on the same cores.

use crate::Plan;
use crate::muttd::{ALL_ROLES, Muttd, Setup};
use crate::record::Record;
use anyhow::{Context, Result, bail};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};
use testkit::agents::{Agent, AgentSession, Certified, Enrolling, Trust};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

pub const CROWDS: [usize; 2] = [1_000, 10_000];
/// Agents that connect or enrol at one time, as those of a fleet do that wait with jitter.
const AT_ONCE: usize = 64;
const BATCH: usize = 100;
/// Agents that send, of those that are there.
const SENDERS: usize = 200;

pub fn gateway(plan: &Plan, record: &mut Record) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let crowds: &[usize] = if plan.quick { &[200] } else { &CROWDS };
    for crowd in crowds {
        runtime.block_on(one(plan, record, *crowd))?;
    }
    Ok(())
}

async fn one(plan: &Plan, record: &mut Record, crowd: usize) -> Result<()> {
    let name = format!("agents/{crowd}");
    let mut setup = Setup::new(ALL_ROLES, "strict");
    setup.agents = Some(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?);
    let mut muttd = Muttd::start(plan, &setup)?;
    let trust = Trust::of_pem(&std::fs::read(muttd.data().join("agents/authority.pem"))?);
    let token = token(plan, &muttd)?;

    let began = Instant::now();
    let certificates = enrol(&muttd, &trust, &token, crowd).await?;
    record.push(format!("{name}/enrolments_rate"), crowd as f64 / began.elapsed().as_secs_f64());

    let before = muttd.usage();
    let began = Instant::now();
    let mut sessions = connect(&muttd, &trust, &certificates).await?;
    record.push(format!("{name}/connect_rate"), crowd as f64 / began.elapsed().as_secs_f64());
    tokio::time::sleep(Duration::from_secs(3)).await;
    let held = muttd.usage();
    let bytes = (held.rss_mb - before.rss_mb) * 1024.0 * 1024.0 / crowd as f64;
    record.push(format!("{name}/session_kb"), bytes / 1024.0);
    record.push(format!("{name}/sessions_per_gb"), 1024.0 * 1024.0 * 1024.0 / bytes.max(1.0));

    let rest = sessions.split_off(SENDERS.min(sessions.len()));
    let taken = press(&mut sessions, plan.phase).await?;
    record.push(format!("{name}/records_rate"), taken);
    sessions.extend(rest);

    // All of them at once lose it, and come back as fast as they are let in.
    muttd.restart(plan)?;
    let began = Instant::now();
    drop(sessions);
    let again = connect(&muttd, &trust, &certificates).await?;
    record.push(format!("{name}/storm_seconds"), began.elapsed().as_secs_f64());
    record.push(format!("{name}/storm_missing"), (crowd - again.len()) as f64);
    Ok(())
}

/// A token for any number of agents.
pub(super) fn token(plan: &Plan, muttd: &Muttd) -> Result<String> {
    let made = Command::new(&plan.muttd)
        .args(["admin", "token", "create", "--label", "bench", "--data-dir"])
        .arg(muttd.data())
        .env_clear()
        .output()?;
    let token = String::from_utf8_lossy(&made.stdout).trim().to_owned();
    if !made.status.success() || token.is_empty() {
        bail!("no token: {}", String::from_utf8_lossy(&made.stderr));
    }
    Ok(token)
}

async fn enrol(muttd: &Muttd, trust: &Trust, token: &str, crowd: usize) -> Result<Vec<Certified>> {
    let to = muttd.agents.context("no address for agents")?;
    let (slots, mut tasks) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
    for n in 0..crowd {
        let (slots, trust, token) = (Arc::clone(&slots), trust.clone(), token.to_owned());
        tasks.spawn(async move {
            let _slot = slots.acquire_owned().await?;
            let request = Enrolling::new(&format!("host-{n:05}"));
            let agent = Agent::encrypted(to, trust.client_config(None)).await?;
            let answer = agent.enrol(request.message(&token)).await?;
            anyhow::Ok(request.certified(&answer))
        });
    }
    let mut certificates = Vec::with_capacity(crowd);
    while let Some(done) = tasks.join_next().await {
        certificates.push(done??);
    }
    Ok(certificates)
}

async fn connect(muttd: &Muttd, trust: &Trust, certificates: &[Certified]) -> Result<Vec<AgentSession>> {
    let to = muttd.agents.context("no address for agents")?;
    let (slots, mut tasks) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
    for (n, certificate) in certificates.iter().enumerate() {
        let (slots, config) = (Arc::clone(&slots), trust.client_config(Some(certificate)));
        tasks.spawn(async move {
            let _slot = slots.acquire_owned().await?;
            let agent = Agent::encrypted(to, config).await?;
            anyhow::Ok(agent.session(n as u64 + 1).await?)
        });
    }
    let mut sessions = Vec::with_capacity(certificates.len());
    while let Some(done) = tasks.join_next().await {
        sessions.push(done??);
    }
    Ok(sessions)
}

/// Each session sends one batch after the other; records a second that were acknowledged.
async fn press(sessions: &mut Vec<AgentSession>, time: Duration) -> Result<f64> {
    let (acked, mut tasks) = (Arc::new(AtomicU64::new(0)), JoinSet::new());
    let began = Instant::now();
    for mut session in sessions.drain(..) {
        let acked = Arc::clone(&acked);
        tasks.spawn(async move {
            let mut next = 1;
            while began.elapsed() < time {
                let now_ms = now_ms()?;
                let records = (0..BATCH as u64).map(|n| testkit::agents::record(&format!("{:0>200}", next + n)));
                session.send(next, now_ms, records.collect()).await;
                next = session.acked().await? + 1;
                acked.fetch_add(BATCH as u64, Ordering::Relaxed);
            }
            anyhow::Ok(session)
        });
    }
    while let Some(done) = tasks.join_next().await {
        sessions.push(done??);
    }
    Ok(acked.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64())
}

#[expect(clippy::disallowed_methods, reason = "agents say when they send")]
fn now_ms() -> Result<i64> {
    Ok(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis() as i64)
}
