//! What goes on in the network of this host: who knocks at many ports, who listens, who is connected to whom.
//!
//! Attempts are heard as packets, where that is allowed, in the network namespace of the agent; listeners and
//! connections are in the kernel's tables, looked at each ten seconds. What was so at the start is no news, a listening
//! service is nothing suspicious, and the agent's own sockets are passed over.

mod addresses;
mod attempts;
mod scans;
mod table;
mod watch;

use super::limits::{Limiter, SAMPLE, Verdict, Weight};
use super::{Context, kernel, log_event, passing};
use crate::settings::Settings;
use crate::spool::Observation;
use attempts::Attempts;
use scans::{Scan, Scans, Suspect};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use watch::Watch;

/// How often the tables are looked at.
const TABLES_EVERY: Duration = Duration::from_secs(10);
/// How often the stop is looked for.
const STOP_EVERY: Duration = Duration::from_millis(500);
/// Attempts come in swarms.
const GATHER: Duration = Duration::from_millis(100);
/// Attempts looked at of each protocol at once.
const ATTEMPTS_MAX: usize = 4_096;
/// How often a flood of attempts is said.
const FLOOD_EVERY: Duration = Duration::from_secs(60);
/// Ports that are named in an event.
const PORTS_NAMED: usize = 32;

/// Ready to run, or why not.
pub fn can_run() -> Result<(), String> {
    const TABLE: &str = "/proc/thread-self/net/tcp";
    std::fs::metadata(TABLE).map(drop).map_err(|error| format!("{TABLE} cannot be read: {error}"))
}

/// The collector, on a thread of its own.
pub struct Network {
    context: Context,
    attempts: Option<Attempts>,
    scans: Scans,
    watch: Watch,
    limit: Limiter,
    ours: BTreeSet<IpAddr>,
    flood: Flood,
    tables_every: Duration,
    out: Vec<Observation>,
}

#[derive(Debug, Default)]
struct Flood {
    /// Times that more came than was looked at.
    times: u64,
    said: Option<Instant>,
}

/// Ready to run, or why not; and why scans cannot be seen, if they cannot.
pub fn open(settings: &Settings, context: &Context) -> Result<(Network, Option<String>), String> {
    can_run()?;
    let (attempts, why) = match Attempts::open() {
        Ok(attempts) => (Some(attempts), None),
        Err(error) => (None, Some(format!("no packets can be heard, so scans of ports are not seen: {error}"))),
    };
    Ok((Network::new(context.clone(), attempts, settings.events_per_second), why))
}

impl Network {
    fn new(context: Context, attempts: Option<Attempts>, per_second: u32) -> Self {
        let limit = Limiter::new("network", per_second, Instant::now());
        let (scans, watch, flood) = (Scans::default(), Watch::default(), Flood::default());
        let (ours, tables_every, out) = (BTreeSet::new(), TABLES_EVERY, Vec::new());
        Self { context, attempts, scans, watch, limit, ours, flood, tables_every, out }
    }

    /// Until the stop.
    pub fn run(mut self) {
        tracing::info!("Starting network monitoring");
        self.look();
        let mut looked = Instant::now();
        while !self.context.stop.is_requested() {
            self.hear();
            if looked.elapsed() >= self.tables_every {
                looked = Instant::now();
                self.look();
            }
            self.out.extend(self.limit.say(self.context.clock.now(), Instant::now(), false));
            if !self.out.is_empty() && !self.context.sink.put_blocking(std::mem::take(&mut self.out)) {
                return;
            }
        }
    }

    /// Waits for attempts and looks at them.
    fn hear(&mut self) {
        let Some(attempts) = &mut self.attempts else { return std::thread::sleep(STOP_EVERY) };
        if kernel::wait(&attempts.fds(), STOP_EVERY) {
            std::thread::sleep(GATHER);
        }
        let now = Instant::now();
        let (scans, ours) = (&mut self.scans, &self.ours);
        let each = |attempt: attempts::Attempt| {
            // Not what is on its way through, nor what we sent ourselves.
            if ours.contains(&attempt.target) && !ours.contains(&attempt.source) {
                scans.saw(attempt, now);
            }
        };
        match attempts.take(ATTEMPTS_MAX, each) {
            Ok(true) => self.flooded(now),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(%error, "attempts to connect are heard no more");
                self.attempts = None;
            }
        }
        let tables = std::cell::OnceCell::new();
        let reached = |suspect: &Suspect<'_>| {
            let sockets = tables.get_or_init(table::read);
            let is_reached = |socket: &&table::Socket| socket.state == table::LISTEN || socket.remote.0 == suspect.ip;
            let open: BTreeSet<u16> = sockets.iter().filter(is_reached).map(|socket| socket.local.1).collect();
            suspect.ports.iter().copied().filter(|port| open.contains(port)).collect()
        };
        for scan in self.scans.due(now, reached) {
            self.tell("port_scan", scanned(&scan, self.context.clock.now()));
        }
    }

    /// More came than is looked at; the kernel drops what does not fit.
    fn flooded(&mut self, now: Instant) {
        self.flood.times += 1;
        if self.flood.said.is_some_and(|said| now.saturating_duration_since(said) < FLOOD_EVERY) {
            return;
        }
        self.flood.said = Some(now);
        let labels = [
            ("event_type", "connection_flood"),
            ("severity", "warning"),
            ("at_least", &*ATTEMPTS_MAX.to_string()),
            ("times", &*std::mem::take(&mut self.flood.times).to_string()),
        ];
        let message = format!("More than {ATTEMPTS_MAX} attempts to connect within a moment: not all were looked at");
        self.tell("connection_flood", log_event(self.context.clock.now(), "network", message, &labels));
    }

    fn look(&mut self) {
        match addresses::read() {
            Ok(ours) => self.ours = ours,
            Err(error) => tracing::debug!(%error, "our addresses cannot be read"),
        }
        let news = self.watch.news(&table::read(), &table::own(), self.context.clock.now());
        news.into_iter().for_each(|(kind, event)| self.tell(kind, event));
    }

    fn tell(&mut self, kind: &'static str, mut event: wire::LogEvent) {
        let weight =
            if event.labels.get("severity").is_some_and(|s| s == "info") { Weight::Usual } else { Weight::High };
        match self.limit.take(kind, weight, Instant::now()) {
            Verdict::Tell => {}
            Verdict::Sample => drop(event.labels.insert("sampled".to_owned(), SAMPLE.to_string())),
            Verdict::LeaveOut => return,
        }
        self.out.push(passing("network", event));
    }
}

fn scanned(scan: &Scan, now: model::Timestamp) -> wire::LogEvent {
    let count = scan.ports.len().to_string();
    let ports: Vec<String> = scan.ports.iter().take(PORTS_NAMED).map(ToString::to_string).collect();
    let source = scan.source.to_string();
    let labels = [
        ("event_type", "port_scan"),
        ("severity", "warning"),
        ("source_ip", &*source),
        ("dest_ip", &*scan.target.to_string()),
        ("count", &*count),
        ("ports", &*ports.join(",")),
        ("packets", &*scan.packets.to_string()),
        ("scan", scan.knock.shown()),
        ("goes_on", if scan.goes_on { "true" } else { "false" }),
    ];
    log_event(now, "network", format!("Port scan: {count} closed ports from {source}"), &labels)
}

#[cfg(test)]
mod tests;
