//! What the kernel's audit system records, by the rules that the host has. The agent only listens: it sets no rule, and
//! takes nothing from the audit daemon.
//!
//! Records come by netlink (`AUDIT_NLGRP_READLOG`); where that is refused, from the daemon's log, as a followed file. Those
//! of one serial number are one event.

pub mod record;

use super::files::{Kind, Multiline, Tail, TailConfig};
use super::kernel::{KernelSocket, NETLINK_HEADER, Received, number, wait};
use super::limits::{Limiter, SAMPLE, Verdict, Weight};
use super::{Context, log_event, passing};
use crate::settings::Settings;
use crate::spool::Observation;
use rustix::net::netlink;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

const LOG: &str = "/var/log/audit/audit.log";
/// `AUDIT_NLGRP_READLOG`, as a mask.
const READLOG: u32 = 1;
const AUDIT_GET: u16 = 1000;
const REQUEST: u16 = 1;
const BUFFER_BYTES: usize = 4 << 20;
/// How often the stop is looked for.
const STOP_EVERY: Duration = Duration::from_millis(500);
/// An event whose end does not come is whole after this.
const SETTLE: Duration = Duration::from_millis(200);
/// Events that wait for their end.
const OPEN_MAX: usize = 128;
/// Of an event.
const EVENT_BYTES_MAX: usize = 32 * 1024;
const HAND_IN: usize = 256;

/// The collector, on a thread of its own.
pub enum Audit {
    Kernel(Box<Listen>),
    Log(Box<Tail>),
}

/// Ready to run, or why not; and what is amiss with it.
pub fn open(settings: &Settings, context: &Context) -> Result<(Audit, Option<String>), String> {
    let refused = match KernelSocket::netlink(Some(netlink::AUDIT), READLOG, &[], BUFFER_BYTES) {
        Ok(mut socket) => {
            let is_enabled = is_enabled(&mut socket);
            let off = "auditing is not enabled in the kernel; records come as soon as it is";
            let amiss = (is_enabled == Some(false)).then(|| off.to_owned());
            let listen = Listen::new(context.clone(), socket, settings.events_per_second);
            return Ok((Audit::Kernel(Box::new(listen)), amiss));
        }
        Err(error) => error,
    };
    if std::fs::File::open(LOG).is_err() {
        return Err(format!("the kernel lets nobody listen to its audit records ({refused}), and there is no {LOG}"));
    }
    let config = TailConfig { patterns: vec![LOG.to_owned()], multiline: Some(Multiline::Serial), kind: Kind::Audit };
    Ok((Audit::Log(Box::new(Tail::open(config, context.clone())?)), None))
}

impl Audit {
    /// Until the stop.
    pub fn run(self) {
        tracing::info!("Starting audit monitoring");
        match self {
            Audit::Kernel(listen) => listen.run(),
            Audit::Log(tail) => tail.run(),
        }
    }
}

/// Whether the kernel audits anything, if it says so. Changes nothing.
fn is_enabled(socket: &mut KernelSocket) -> Option<bool> {
    let mut message = (NETLINK_HEADER as u32).to_ne_bytes().to_vec();
    message.extend_from_slice(&AUDIT_GET.to_ne_bytes());
    message.extend_from_slice(&REQUEST.to_ne_bytes());
    message.extend_from_slice(&[0; 8]);
    socket.tell(&message).ok()?;
    for _ in 0..1_000 {
        match socket.receive().ok()? {
            Received::Datagram(answer) if kind_of(answer) == Some(AUDIT_GET) => {
                return number(answer, NETLINK_HEADER + 4).map(|enabled| enabled != 0);
            }
            // Records of this moment are not missed: nothing was promised yet.
            Received::Datagram(_) => {}
            Received::Nothing | Received::Overrun => {
                if !wait(&[socket.as_fd()], SETTLE) {
                    return None;
                }
            }
        }
    }
    None
}

fn kind_of(message: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?))
}

/// Listens to the kernel.
pub struct Listen {
    context: Context,
    socket: KernelSocket,
    limit: Limiter,
    join: Join,
    out: Vec<Observation>,
    overruns: u64,
}

impl Listen {
    fn new(context: Context, socket: KernelSocket, per_second: u32) -> Self {
        let limit = Limiter::new("audit", per_second, Instant::now());
        Self { context, socket, limit, join: Join::default(), out: Vec::new(), overruns: 0 }
    }

    fn run(mut self) {
        while !self.context.stop.is_requested() {
            let at_most = if self.join.0.is_empty() { STOP_EVERY } else { SETTLE };
            wait(&[self.socket.as_fd()], at_most);
            if let Err(error) = self.listen() {
                tracing::warn!(%error, "the kernel's audit records come no more");
                return;
            }
            self.out.extend(self.limit.say(self.context.clock.now(), Instant::now(), false));
            if !self.out.is_empty() && !self.context.sink.put_blocking(std::mem::take(&mut self.out)) {
                return;
            }
        }
    }

    fn listen(&mut self) -> io::Result<()> {
        let mut whole = Vec::new();
        let mut is_overrun = false;
        while whole.len() < HAND_IN {
            match self.socket.receive()? {
                Received::Datagram(message) => {
                    let text = message.get(NETLINK_HEADER..).unwrap_or_default();
                    let text = String::from_utf8_lossy(text);
                    if let Some(kind) = kind_of(message) {
                        self.join.push(kind, text.trim_end_matches('\0'), Instant::now(), &mut whole);
                    }
                }
                Received::Overrun => is_overrun = true,
                Received::Nothing => break,
            }
        }
        self.join.settle(Instant::now(), &mut whole);
        if is_overrun {
            self.overruns += 1;
            let labels =
                [("event_type", "audit_overrun"), ("severity", "warning"), ("overruns", &*self.overruns.to_string())];
            let message = "Audit records were lost: more came than could be read".to_owned();
            self.out.push(passing("audit", log_event(self.context.clock.now(), "audit", message, &labels)));
        }
        for lines in whole {
            let Some(mut event) = record::event(&lines, std::process::id()) else { continue };
            let weight =
                if event.labels.get("severity").is_some_and(|s| s == "info") { Weight::Usual } else { Weight::High };
            match self.limit.take("audit", weight, Instant::now()) {
                Verdict::Tell => {}
                Verdict::Sample => drop(event.labels.insert("sampled".to_owned(), SAMPLE.to_string())),
                Verdict::LeaveOut => continue,
            }
            self.out.push(passing("audit", event));
        }
        Ok(())
    }
}

/// Records of events that are not whole yet, by their serial numbers.
#[derive(Debug, Default)]
struct Join(BTreeMap<String, (String, Instant)>);

impl Join {
    fn push(&mut self, kind: u16, text: &str, now: Instant, whole: &mut Vec<String>) {
        let Some(serial) = record::serial(text) else { return };
        if kind == record::EOE {
            whole.extend(self.0.remove(serial).map(|(lines, _)| lines));
            return;
        }
        let line = record::line(kind, text);
        // What programs say is an event of its own.
        if (1100..1300).contains(&kind) {
            whole.push(line);
            return;
        }
        if self.0.len() >= OPEN_MAX && !self.0.contains_key(serial) {
            let oldest = self.0.iter().min_by_key(|(_, (_, since))| *since).map(|(serial, _)| serial.clone());
            whole.extend(oldest.and_then(|oldest| self.0.remove(&oldest)).map(|(lines, _)| lines));
        }
        let (lines, _) = self.0.entry(serial.to_owned()).or_insert_with(|| (String::new(), now));
        if lines.len() + line.len() < EVENT_BYTES_MAX {
            if !lines.is_empty() {
                lines.push('\n');
            }
            lines.push_str(&line);
        }
    }

    /// Those whose end did not come.
    fn settle(&mut self, now: Instant, whole: &mut Vec<String>) {
        let is_due = |since: &Instant| now.saturating_duration_since(*since) >= SETTLE;
        whole.extend(self.0.extract_if(.., |_, (_, since)| is_due(since)).map(|(_, (lines, _))| lines));
    }
}

#[cfg(test)]
mod tests;
