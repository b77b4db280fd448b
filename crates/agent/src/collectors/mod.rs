//! What the host tells: one folder or file for each collector.
//!
//! To add one: a file here with a `can_run` that says in words why not, and a `run` that hands [`Observation`]s to the
//! [`Sink`] until the stop; a name in [`NAMES`] and an arm in [`start`]. Parsing is a pure function with a recorded
//! sample. A collector forks no command, and never reads what the agent itself writes. One whose source can be read
//! again later puts a bookmark into each observation and asks [`Sink::has_room`] before it reads on; any other keeps to a
//! [`limits::Limiter`].

pub mod audit;
pub mod auth;
pub mod files;
pub mod integrity;
pub mod journal;
pub mod kernel;
pub mod limits;
pub mod metrics;
pub mod network;
pub mod processes;

use crate::settings::Settings;
use crate::spool::{Observation, Sink};
use model::Timestamp;
use runtime::{Clock, Stop};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::task::JoinSet;
use wire::{LogEvent, Record, record};

/// All collectors there are.
pub const NAMES: &[&str] =
    &["heartbeat", "files", "auth", "audit", "journal", "metrics", "processes", "network", "integrity"];

/// What every collector is handed.
#[derive(Clone)]
pub struct Context {
    pub sink: Sink,
    pub stop: Stop,
    pub clock: Arc<dyn Clock>,
    /// Where each source was left.
    pub bookmarks: Arc<BTreeMap<String, String>>,
    /// Files that are never to be read: what the agent itself writes.
    pub own: Arc<files::Own>,
}

/// What one collector knows that another needs.
#[derive(Debug, Default)]
struct Shared {
    /// Who did something lately, for those who see only what was done.
    actors: Arc<processes::Actors>,
}

/// What came of starting the collectors: why some do not run, and what the server is told can.
#[derive(Debug, Default)]
pub struct Started {
    pub threads: Vec<std::thread::JoinHandle<()>>,
    pub tasks: JoinSet<()>,
    pub not_running: BTreeMap<String, String>,
    pub capabilities: Vec<String>,
}

/// Starts those that are wanted and can run. `heartbeat` is the uploader's own and is only counted here.
pub fn start(settings: &Settings, context: &Context) -> std::io::Result<Started> {
    let mut started = Started::default();
    let shared = Shared::default();
    let is_wanted = |name: &str| settings.collectors.as_ref().is_none_or(|names| names.iter().any(|n| n == name));
    for name in NAMES.iter().filter(|name| is_wanted(name)) {
        match started.one(name, settings, context, &shared)? {
            Ok(capability) => started.capabilities.push(capability.to_owned()),
            Err(why) => {
                tracing::debug!(collector = name, why, "{name} does not run: {why}");
                started.not_running.insert((*name).to_owned(), why);
            }
        }
    }
    Ok(started)
}

impl Started {
    /// What it is called among the capabilities, or why it does not run.
    fn one(
        &mut self,
        name: &str,
        settings: &Settings,
        context: &Context,
        shared: &Shared,
    ) -> std::io::Result<Result<&'static str, String>> {
        let context = context.clone();
        Ok(match name {
            "heartbeat" => Ok("heartbeat"),
            "files" => match files::open(settings, &context) {
                Ok(tail) => self.thread("files", move || tail.run()).map(|()| Ok("file-tailing"))?,
                Err(why) => Err(why),
            },
            "auth" => match auth::open(&context) {
                Ok(tail) => self.thread("auth", move || tail.run()).map(|()| Ok("log-monitoring"))?,
                Err(why) => Err(why),
            },
            "audit" => match audit::open(settings, &context) {
                Ok((audit, amiss)) => {
                    self.partly("audit", amiss);
                    self.thread("audit", move || audit.run()).map(|()| Ok("audit-monitoring"))?
                }
                Err(why) => Err(why),
            },
            "journal" => {
                // The log of logins and the audit system have the same lines, so they were started before this.
                let has = |name: &str| self.capabilities.iter().any(|c| c == name);
                match journal::open(&context, has("log-monitoring"), has("audit-monitoring")) {
                    Ok(follow) => self.thread("journal", move || follow.run()).map(|()| Ok("journal-monitoring"))?,
                    Err(why) => Err(why),
                }
            }
            "metrics" => match metrics::can_run() {
                Ok(()) => self.thread("metrics", move || metrics::run(&context)).map(|()| Ok("metrics"))?,
                Err(why) => Err(why),
            },
            "processes" => match processes::open(settings, &context, shared.actors.clone()) {
                Ok((watch, partly)) => {
                    self.partly("processes: short ones", partly);
                    self.thread("processes", move || watch.run()).map(|()| Ok("process-monitoring"))?
                }
                Err(why) => Err(why),
            },
            "network" => match network::open(settings, &context) {
                Ok((watch, partly)) => {
                    self.partly("network: scans", partly);
                    self.thread("network", move || watch.run()).map(|()| Ok("network-monitoring"))?
                }
                Err(why) => Err(why),
            },
            "integrity" => match integrity::open(&context, shared.actors.clone()) {
                Ok((watch, partly)) => {
                    self.partly("integrity: who", partly);
                    self.thread("integrity", move || watch.run()).map(|()| Ok("file-integrity"))?
                }
                Err(why) => Err(why),
            },
            other => Err(format!("there is no collector {other}")),
        })
    }

    /// What a collector that runs cannot see.
    fn partly(&mut self, what: &str, why: Option<String>) {
        if let Some(why) = why {
            tracing::info!(what, why, "not seen: {what}: {why}");
            self.not_running.insert(what.to_owned(), why);
        }
    }

    fn thread(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        self.threads.push(std::thread::Builder::new().name(name.to_owned()).spawn(run)?);
        Ok(())
    }
}

/// A log event of now. Organisation and host are the uploader's to fill in.
pub fn log_event(now: Timestamp, stream: &str, message: String, labels: &[(&str, &str)]) -> LogEvent {
    LogEvent {
        ts_unix_ns: now.micros().saturating_mul(1_000),
        stream: stream.to_owned(),
        message,
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        ..LogEvent::default()
    }
}

/// The record of a log event.
pub fn log_record(event: LogEvent) -> Record {
    Record { body: Some(record::Body::Log(event)) }
}

/// An observation without a place to come back to.
pub fn passing(source: &str, event: LogEvent) -> Observation {
    Observation { source: source.into(), bookmark: None, record: Some(log_record(event)) }
}

#[cfg(test)]
mod test {
    //! A sink that keeps what it is handed.

    use super::*;
    use runtime::{Stopper, SystemClock};
    use std::time::{Duration, Instant};
    use tokio::sync::mpsc;

    /// What a collector handed in, and its stop.
    pub struct Heard {
        pub stopper: Stopper,
        observations: mpsc::Receiver<Vec<Observation>>,
        pub all: Vec<Observation>,
    }

    /// Of a host that has seen nothing yet.
    pub fn context() -> (Context, Heard) {
        let (stopper, stop) = Stopper::new();
        let (sink, observations) = Sink::for_tests();
        let clock = Arc::new(SystemClock);
        let context = Context { sink, stop, clock, bookmarks: Arc::default(), own: Arc::default() };
        (context, Heard { stopper, observations, all: Vec::new() })
    }

    pub fn log(observation: &Observation) -> Option<&LogEvent> {
        match observation.record.as_ref()?.body.as_ref()? {
            record::Body::Log(log) => Some(log),
            record::Body::Metric(_) => None,
        }
    }

    impl Heard {
        /// Takes what came.
        pub fn take(&mut self) {
            while let Ok(observations) = self.observations.try_recv() {
                self.all.extend(observations);
            }
        }

        /// Until there is one of which `is` holds, or there is none for a long time.
        pub fn until(&mut self, is: impl Fn(&LogEvent) -> bool) -> Option<LogEvent> {
            let begin = Instant::now();
            loop {
                self.take();
                if let Some(found) = self.all.iter().filter_map(log).find(|log| is(log)) {
                    return Some(found.clone());
                }
                if begin.elapsed() > Duration::from_secs(20) {
                    return None;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }

        pub fn logs(&self) -> impl Iterator<Item = &LogEvent> {
            self.all.iter().filter_map(log)
        }
    }
}
