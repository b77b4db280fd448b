//! Processes that begin and end: told by the kernel the moment they do, where it tells us; else seen by looking at `/proc`
//! each second.
//!
//! A process begins here when a program is executed; one that only forked goes on under its parent's name. What a process
//! is, is read from `/proc` at once. One that is gone by then is told all the same, with the label `gone`. The agent itself,
//! its threads and the kernel's own threads are passed over; what was running at the start is no news.

mod connector;
mod details;
mod poll;

pub use details::{Actor, Actors, Users};

use super::limits::{Limiter, Verdict, Weight};
use super::{Context, kernel, log_event, passing};
use crate::settings::Settings;
use crate::spool::Observation;
use connector::{Connector, Event};
use details::{Details, Hashes};
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Of the thread that reads what the kernel tells.
const PRIORITY: i32 = -10;
/// How often the stop is looked for, and `/proc` where the kernel does not tell.
const POLL_EVERY: Duration = Duration::from_secs(1);
const STOP_EVERY: Duration = Duration::from_millis(500);
/// What came is handed in together, this often.
const GATHER: Duration = Duration::from_millis(100);
/// Observations handed in at once.
const HAND_IN: usize = 256;
/// Messages of the kernel taken before they are looked into.
const BATCH: usize = 64;
/// Processes remembered for what is told at their end.
const KNOWN_MAX: usize = 65_536;

/// What is remembered of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub name: String,
    pub parent: u32,
}

/// Ready to run, or why not.
pub fn can_run() -> Result<(), String> {
    match std::fs::read_to_string("/proc/self/stat").map(|stat| poll::parse_stat(&stat)) {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err("/proc/self/stat is not as expected".to_owned()),
        Err(error) => Err(format!("/proc/self/stat cannot be read: {error}")),
    }
}

enum Source {
    Kernel(Connector),
    Poll,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ended {
    /// As `wait` tells it.
    status: u32,
}

/// The collector, on a thread of its own.
pub struct Processes {
    context: Context,
    source: Source,
    limit: Limiter,
    known: BTreeMap<u32, Process>,
    users: Users,
    hashes: Option<Hashes>,
    actors: Arc<Actors>,
    out: Vec<Observation>,
    out_since: Instant,
    overruns: u64,
}

/// Ready to run, or why not; and why short ones are not seen, if they are not. Who executed what is left with `actors` too.
pub fn open(
    settings: &Settings,
    context: &Context,
    actors: Arc<Actors>,
) -> Result<(Processes, Option<String>), String> {
    can_run()?;
    let (source, partly) = match Connector::open() {
        Ok(connector) => (Source::Kernel(connector), None),
        Err(why) => (Source::Poll, Some(why)),
    };
    let hashes = settings.process_hash.then(|| Hashes::new(Instant::now()));
    Ok((Processes::new(context.clone(), source, settings.events_per_second, hashes, actors), partly))
}

impl Processes {
    fn new(context: Context, source: Source, per_second: u32, hashes: Option<Hashes>, actors: Arc<Actors>) -> Self {
        let now = Instant::now();
        let limit = Limiter::new("processes", per_second, now);
        let (known, users, out) = (BTreeMap::new(), Users::default(), Vec::new());
        Self { context, source, limit, known, users, hashes, actors, out, out_since: now, overruns: 0 }
    }

    /// Until the stop.
    pub fn run(mut self) {
        tracing::info!("Starting process monitoring");
        // Short lives are over before a busy machine lets us look. Where it may not be, more of them are told as gone.
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), PRIORITY);
        poll::look(&mut self.known);
        let mut looked = Instant::now();
        while !self.context.stop.is_requested() {
            match &self.source {
                Source::Kernel(_) => {
                    if let Err(error) = self.listen() {
                        tracing::warn!(%error, "the kernel tells no more: processes are looked for each second");
                        self.source = Source::Poll;
                    }
                }
                Source::Poll => {
                    std::thread::sleep(STOP_EVERY);
                    if looked.elapsed() >= POLL_EVERY {
                        looked = Instant::now();
                        self.look(false);
                    }
                }
            }
            let is_due = self.out.len() >= HAND_IN || self.out_since.elapsed() >= GATHER;
            if is_due && !self.hand_in(false) {
                return;
            }
        }
        self.hand_in(true);
    }

    fn hand_in(&mut self, is_end: bool) -> bool {
        let said = self.limit.say(self.context.clock.now(), Instant::now(), is_end);
        self.out.extend(said);
        self.out_since = Instant::now();
        self.out.is_empty() || self.context.sink.put_blocking(std::mem::take(&mut self.out))
    }

    /// Takes what the kernel says.
    fn listen(&mut self) -> std::io::Result<()> {
        let Source::Kernel(connector) = &mut self.source else { return Ok(()) };
        let at_most = if self.out.is_empty() { STOP_EVERY } else { GATHER };
        if !kernel::wait(&[connector.as_fd()], at_most) {
            return Ok(());
        }
        if self.out.is_empty() {
            self.out_since = Instant::now();
        }
        let (events, is_overrun) = connector.take(BATCH)?;
        for (at, event) in events.iter().enumerate() {
            match *event {
                Event::Exec { pid } => {
                    let later = events.get(at + 1..).unwrap_or_default();
                    let parent = later.iter().find_map(|event| event.parent_of(pid));
                    self.began(pid, parent, false);
                }
                Event::Exit { pid, status, parent: _ } => self.ended(pid, Some(Ended { status })),
                Event::Answer { .. } => {}
            }
        }
        if is_overrun {
            self.overrun();
        }
        Ok(())
    }

    /// More happened than could be told. What is there now is looked for.
    fn overrun(&mut self) {
        self.overruns += 1;
        let labels =
            [("event_type", "process_overrun"), ("severity", "warning"), ("overruns", &*self.overruns.to_string())];
        let message = "Process events were lost: more processes began and ended than could be read".to_owned();
        self.out.push(passing("process", log_event(self.context.clock.now(), "process", message, &labels)));
        self.look(true);
    }

    fn look(&mut self, is_late: bool) {
        let (started, ended) = poll::look(&mut self.known);
        for (pid, process) in ended {
            self.known.insert(pid, process);
            self.ended(pid, None);
        }
        for (pid, process) in started {
            self.began(pid, Some(process.parent), is_late);
        }
    }

    /// A program was executed. `parent`: where it is known although the process is gone.
    fn began(&mut self, pid: u32, parent: Option<u32>, is_late: bool) {
        if pid == std::process::id() {
            return;
        }
        // Before its end: who began is what is looked for.
        let verdict = self.limit.take("process_start", Weight::High, Instant::now());
        if verdict == Verdict::LeaveOut {
            return;
        }
        let details = Details::read(pid, &mut self.users, self.hashes.as_mut());
        let details = details.unwrap_or_else(|| Details::gone(parent));
        let parent_name = match self.known.get(&details.parent) {
            Some(parent) => parent.name.clone(),
            None => details::name_of(details.parent),
        };
        if self.known.len() < KNOWN_MAX || self.known.contains_key(&pid) {
            self.known.insert(pid, Process { name: details.name.clone(), parent: details.parent });
        }
        self.actors.learn(pid, &details);
        let mut event = start(self.context.clock.now(), pid, &details, &parent_name);
        if is_late {
            event.labels.insert("late".to_owned(), "true".to_owned());
        }
        self.tell(event, verdict);
    }

    fn ended(&mut self, pid: u32, how: Option<Ended>) {
        let Some(process) = self.known.remove(&pid).filter(|process| process.parent != poll::KTHREADD) else { return };
        let verdict = self.limit.take("process_end", Weight::Usual, Instant::now());
        if verdict != Verdict::LeaveOut {
            self.tell(end(self.context.clock.now(), pid, &process, how), verdict);
        }
    }

    fn tell(&mut self, mut event: wire::LogEvent, verdict: Verdict) {
        if verdict == Verdict::Sample {
            event.labels.insert("sampled".to_owned(), super::limits::SAMPLE.to_string());
        }
        self.out.push(passing("process", event));
    }
}

fn start(now: model::Timestamp, pid: u32, details: &Details, parent_name: &str) -> wire::LogEvent {
    let name = if details.name.is_empty() { "?" } else { &details.name };
    let (number, parent) = (pid.to_string(), details.parent.to_string());
    let mut labels = vec![("event_type", "process_start"), ("pid", &*number), ("process", name), ("severity", "info")];
    if details.parent > 0 {
        labels.push(("ppid", &parent));
    }
    let more = [
        ("exe", &*details.exe),
        ("cmdline", &*details.cmdline),
        ("uid", &*details.uid),
        ("user", &*details.user),
        ("parent", parent_name),
        ("sha256", &*details.sha256),
        ("gone", if details.is_gone { "true" } else { "" }),
        ("cut", if details.is_cut { "cmdline" } else { "" }),
    ];
    labels.extend(more.into_iter().filter(|(_, value)| !value.is_empty()));
    log_event(now, "process", format!("Process started: {name} (PID: {pid})"), &labels)
}

fn end(now: model::Timestamp, pid: u32, process: &Process, how: Option<Ended>) -> wire::LogEvent {
    let name = if process.name.is_empty() { "?" } else { &process.name };
    let number = pid.to_string();
    let (code, signal) = match how.map(|ended| (ended.status >> 8 & 0xff, ended.status & 0x7f)) {
        Some((code, 0)) => (code.to_string(), String::new()),
        Some((_, signal)) => (String::new(), signal.to_string()),
        None => (String::new(), String::new()),
    };
    let labels = [
        ("event_type", "process_end"),
        ("pid", &*number),
        ("process", name),
        ("severity", "info"),
        ("exit_code", &*code),
        ("signal", &*signal),
    ];
    let labels: Vec<(&str, &str)> = labels.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    log_event(now, "process", format!("Process terminated: {name} (PID: {pid})"), &labels)
}

#[cfg(test)]
mod tests;
