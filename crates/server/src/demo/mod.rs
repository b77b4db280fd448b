//! The demo of `make run`: bundled sample events go through the real doors, their alerts come back
//! to a built-in receiver, and a person watches.
//!
//! | file | what |
//! |---|---|
//! | `samples` | the events (crates/server/samples) and the order in which the story tells them |
//! | `feed`, `post` | sends them: syslog over UDP and TCP, JSON over HTTP |
//! | `receiver` | stands in for Moogsoft |
//! | `report` | a line an alert, and the summary |
//!
//! Nothing in here knows the pipeline: its numbers come in as [`Figures`].

pub mod feed;
mod post;
pub mod receiver;
pub mod report;
pub mod samples;
#[cfg(test)]
mod tests;

pub use feed::{Fed, Feeder, SentLog};
pub use receiver::{Arrival, Arrivals, Receiver};
pub use report::{Figures, MetaAlert, Style, Summary};

use runtime::Stop;
use std::io::Write;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The rules of the demo, in the format of `rules::file`.
pub const RULES: &str = include_str!("../../../../rules/demo/demo.yml");
/// The demo's development hosts; two of the original's samples.
pub const DEV_HOSTS: [&str; 2] = ["dev-router1", "test-switch1"];
/// The demo's hosts with a team; the team of a meta-alert comes from here.
pub const DEVICE_TEAMS: [(&str, &str); 4] =
    [("sw-core-1", "NetOps"), ("rtr-edge-1", "NetOps"), ("web-01", "Linux"), ("fw-edge-1", "Security")];

/// After the last event, how long alerts are waited for.
const QUIET_WITHIN: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);
/// Polls in a row that must find everything at its end: counters are not updated all at once.
const QUIET_POLLS: u32 = 3;
const META_ALERTS_MAX: usize = 10;

/// A told story: everything that takes part in it.
pub struct Story<'a, W, F> {
    pub feeder: Feeder,
    pub receiver: Receiver,
    pub arrivals: Arrivals,
    /// Asked several times a second.
    pub figures: F,
    pub out: &'a mut W,
    pub style: Style,
    pub stop: Stop,
}

/// Feeds the samples, shows the alerts as they arrive, waits until it is quiet (ten seconds at
/// most), and prints the summary. Hands the alerts back for [`watch`].
pub async fn story<W: Write, F: Fn() -> Figures>(story: Story<'_, W, F>) -> anyhow::Result<(Summary, Arrivals)> {
    let Story { feeder, receiver, mut arrivals, figures, out, style, stop } = story;
    let figures_before = figures();
    let received_before = receiver.received();
    let log = SentLog::default();
    let mut seen = Seen::default();
    report::print_header(out, &style)?;
    let (captions, mut new_captions) = mpsc::channel(16);
    let feeding = feeder.run(&log, captions, &stop);
    tokio::pin!(feeding);
    let fed = loop {
        tokio::select! {
            biased;
            Some(caption) = new_captions.recv() => report::print_caption(out, &style, caption)?,
            Some(arrival) = arrivals.recv() => seen.show(arrival, &log, out, &style)?,
            fed = &mut feeding => break fed?,
        }
    };
    let deadline = Instant::now() + QUIET_WITHIN;
    let mut quiet_polls = 0;
    while quiet_polls < QUIET_POLLS && Instant::now() < deadline && !stop.is_requested() {
        tokio::select! {
            () = stop.requested() => {}
            Some(arrival) = arrivals.recv() => seen.show(arrival, &log, out, &style)?,
            () = tokio::time::sleep(POLL) => {
                let now = figures().since(&figures_before);
                let came = receiver.received().alerts - received_before.alerts;
                quiet_polls = if is_quiet(&fed, &now, came) { quiet_polls + 1 } else { 0 };
            }
        }
    }
    for meta in &mut seen.meta_alerts {
        meta.events = log.count_of(&meta.host); // it went on after its alert
    }
    let summary = Summary {
        fed,
        figures: figures().since(&figures_before),
        received: receiver.received(),
        latencies: seen.latencies,
        meta_alerts: seen.meta_alerts,
        quiet: quiet_polls >= QUIET_POLLS,
    };
    report::print_summary(out, &style, &summary)?;
    Ok((summary, arrivals))
}

/// Shows what comes after the story, until stopped.
pub async fn watch(mut arrivals: Arrivals, out: &mut impl Write, style: Style, stop: Stop) -> std::io::Result<()> {
    loop {
        tokio::select! {
            () = stop.requested() => return Ok(()),
            arrival = arrivals.recv() => match arrival {
                Some(arrival) => report::print_alert(out, &style, &arrival, None)?,
                None => return Ok(()),
            }
        }
        out.flush()?;
    }
}

fn is_quiet(fed: &Fed, figures: &Figures, came: u64) -> bool {
    let answered_for = figures.accepted + figures.rejected_total() + figures.lost_in_kernel;
    answered_for >= fed.sent()
        && figures.settled() >= figures.accepted
        && came >= figures.alerts
        && figures.delivered >= figures.alerts
}

#[derive(Default)]
struct Seen {
    latencies: Vec<Duration>,
    meta_alerts: Vec<MetaAlert>,
}

impl Seen {
    fn show(&mut self, alert: Arrival, log: &SentLog, out: &mut impl Write, style: &Style) -> std::io::Result<()> {
        let took = log.latency(&alert.event_host, &alert.event_message, alert.at);
        self.latencies.extend(took);
        report::print_alert(out, style, &alert, took)?;
        if alert.unhandled && self.meta_alerts.len() < META_ALERTS_MAX {
            self.meta_alerts.push(MetaAlert {
                events: log.count_of(&alert.event_host),
                host: alert.event_host,
                team: alert.team,
                message: alert.message,
            });
        }
        out.flush()
    }
}
