//! Stores of a run's own, and processes that find them by the original's environment.

use crate::Plan;
use crate::muttd::{fresh_dir, get};
use anyhow::{Context, Result, bail};
use redis::Connection;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};
use testkit::servers::{Daemon, PostgresOptions, PostgresServer, RedisOptions, RedisServer};

pub const INGEST_KEY: &str = "mik_bench_bench_bench_bench_bench_bench_bench";
/// Of 16 MB.
const WAL_SEGMENTS: usize = 20;
const START_MAX: Duration = Duration::from_secs(20);

/// A fresh Redis with an append-only file and a fresh PostgreSQL that syncs; gone with the value.
pub struct Site {
    pub redis: RedisServer,
    pub postgres: PostgresServer,
    pub connection: Connection,
}

/// One `muttd serve --roles ROLE`; killed with the value.
pub struct Member {
    daemon: Daemon,
    /// Health and metrics; of an ingestor, events too.
    pub http: SocketAddr,
    pub dir: std::path::PathBuf,
}

impl Site {
    /// `sync` is Redis' `appendfsync`.
    pub fn start(sync: &str) -> Result<Self> {
        let redis =
            RedisServer::with(RedisOptions { args: vec!["--appendfsync".into(), sync.into()], ..Default::default() });
        let postgres = PostgresServer::with(PostgresOptions {
            fsync: true,
            // As the package sets it.
            settings: vec!["shared_buffers=128MB".into(), "max_connections=100".into()],
            ..PostgresOptions::default()
        });
        let client = redis::Client::open(format!("redis://127.0.0.1:{}/", redis.port()))?;
        Ok(Self { connection: client.get_connection()?, redis, postgres })
    }

    /// Starts a role with a data folder of its own, as on a server of its own, and waits until it is
    /// healthy.
    pub fn member(&self, plan: &Plan, role: &str) -> Result<Member> {
        let dir = fresh_dir(plan, role)?;
        let port = testkit::free_port();
        let environment = BTreeMap::from([
            ("REDIS_HOST", "localhost".to_owned()),
            ("REDIS_PORT", self.redis.port().to_string()),
            ("REDIS_TLS_ENABLED", "false".to_owned()),
            ("DB_HOST", "localhost".to_owned()),
            ("DB_PORT", self.postgres.port().to_string()),
            ("DB_NAME", self.postgres.database().to_owned()),
            ("DB_USER", self.postgres.user().to_owned()),
            ("DB_TLS_ENABLED", "false".to_owned()),
            // Alerts have somewhere to go; no forwarder runs.
            ("MOOG_WEBHOOK_URL", "http://127.0.0.1:9/".to_owned()),
            ("MOOG_API_KEY", "bench".to_owned()),
            ("INGEST_API_KEY", INGEST_KEY.to_owned()),
            ("WEBUI_API_KEY", "bench".to_owned()),
            ("POD_NAME", "bench".to_owned()),
            ("LOG_LEVEL", "WARN".to_owned()),
            // Bounds far away: what is measured is speed, not what happens when a queue is full.
            ("MAX_INGEST_QUEUE_SIZE", "100000000".to_owned()),
            ("ALERTER_QUEUE_WARN_THRESHOLD", "100000000".to_owned()),
            ("ALERTER_QUEUE_SHED_THRESHOLD", "100000000".to_owned()),
            ("UNHANDLED_THRESHOLD", "100000000".to_owned()),
            ("SERVER_PORT_INGESTOR", port.to_string()),
            ("HEALTH_PORT_ALERTER", port.to_string()),
            ("METRICS_PORT_ALERTER", testkit::free_port().to_string()),
            ("SERVER_PORT_WEBUI", port.to_string()),
            ("MUTT_LISTEN_HOST", "127.0.0.1".to_owned()),
            ("MUTT_SYSLOG_UDP", "127.0.0.1:0".to_owned()),
            ("MUTT_SYSLOG_TCP", "127.0.0.1:0".to_owned()),
            ("MUTT_DATA_DIR", dir.join("data").display().to_string()),
        ]);
        let mut command = Command::new(&plan.muttd);
        command.args(["serve", "--roles", role]).env_clear().envs(environment);
        let daemon = Daemon::start(command, &dir.join("log"), || true);
        let member = Member { daemon, http: SocketAddr::from(([127, 0, 0, 1], port)), dir };
        let started = Instant::now();
        while !get(member.http, "/health").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            if started.elapsed() > START_MAX {
                bail!("the {role} is not healthy after {START_MAX:?}: {}", member.daemon.output());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(member)
    }

    /// CPU seconds that Redis has used.
    pub fn redis_cpu(&self) -> f64 {
        cpu_with_ended_children(self.redis.daemon().pid())
    }

    /// CPU seconds that PostgreSQL has used, all its processes together.
    pub fn postgres_cpu(&self) -> f64 {
        let main = self.postgres.daemon().pid();
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let children = pids.filter(|pid| stat(*pid).get(1).is_some_and(|parent| *parent == f64::from(main)));
        cpu_with_ended_children(main) + children.map(cpu_with_ended_children).sum::<f64>()
    }

    /// Lets PostgreSQL keep files of its log to use again, as one has that has run for long; a new one
    /// writes zeros into each first.
    pub fn write_ahead(&self) {
        for n in 0..WAL_SEGMENTS {
            self.postgres.psql(&format!("CREATE TABLE bench_{n} (); DROP TABLE bench_{n}; SELECT pg_switch_wal()"));
        }
        self.postgres.psql("CHECKPOINT");
    }

    /// Puts records into these lists, the first one to be taken first, and leaves Redis as rested as a
    /// server that has run for long: nothing to be written back, no rewrite due.
    pub fn fill(&mut self, lists: &[(&str, &[Vec<u8>])], sync: &str) -> Result<()> {
        let set = |connection: &mut Connection, name: &str, value: &str| -> Result<()> {
            redis::cmd("CONFIG").arg("SET").arg(name).arg(value).exec(connection).context("CONFIG SET")
        };
        set(&mut self.connection, "appendfsync", "no")?;
        set(&mut self.connection, "auto-aof-rewrite-percentage", "0")?;
        let parts = lists.iter().flat_map(|(key, records)| records.chunks(20_000).map(move |part| (key, part)));
        for (key, part) in parts {
            let mut pipeline = redis::pipe();
            for some in part.chunks(1_000) {
                pipeline.cmd("LPUSH").arg(key).arg(some).ignore();
            }
            pipeline.exec(&mut self.connection)?;
        }
        redis::cmd("BGREWRITEAOF").exec(&mut self.connection)?;
        let started = Instant::now();
        loop {
            std::thread::sleep(Duration::from_millis(50));
            let info: String = redis::cmd("INFO").arg("persistence").query(&mut self.connection)?;
            if info.contains("aof_rewrite_in_progress:0") && info.contains("aof_rewrite_scheduled:0") {
                break;
            }
            if started.elapsed() > Duration::from_secs(60) {
                bail!("Redis does not finish its rewrite");
            }
        }
        set(&mut self.connection, "auto-aof-rewrite-percentage", "100")?;
        set(&mut self.connection, "appendfsync", sync)?;
        Command::new("sync").arg("-f").arg(self.redis.dir()).status().context("sync")?;
        Ok(())
    }
}

impl Member {
    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    pub fn log(&self) -> String {
        self.daemon.output()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.daemon.kill();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// What `/proc/PID/stat` says from the state on; what is no number is 0, so that positions stay.
fn stat(pid: u32) -> Vec<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = text.rsplit(')').next().unwrap_or_default();
    after_name.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect()
}

/// utime, stime, and those of children that ended; Linux counts in 1/100 s.
fn cpu_with_ended_children(pid: u32) -> f64 {
    stat(pid).iter().skip(11).take(4).sum::<f64>() / 100.0
}
