//! What people see: a line an alert while the story runs, and a summary that adds up at the end.
//!
//! Messages are an attacker's text: control characters never reach the terminal.

use super::feed::Fed;
use super::receiver::{Arrival, Received};
use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::Duration;

/// The pipeline's numbers, from its metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// Events made durable, all inputs.
    pub accepted: u64,
    /// Refused at a door, by reason.
    pub rejected: Vec<(String, u64)>,
    /// Datagrams that the kernel dropped.
    pub lost_in_kernel: u64,
    /// Settled as handled: a rule matched.
    pub matched: u64,
    /// Settled as unhandled: no rule matched.
    pub unhandled: u64,
    /// Settled as duplicate.
    pub duplicates: u64,
    pub dead_lettered: u64,
    /// Alerts handed to delivery, meta-alerts included.
    pub alerts: u64,
    pub meta_alerts: u64,
    /// Alerts that the receiver took.
    pub delivered: u64,
}

impl Figures {
    /// What was added since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let before = |reason: &str| earlier.rejected.iter().find(|(r, _)| r == reason).map_or(0, |(_, n)| *n);
        Self {
            accepted: self.accepted.saturating_sub(earlier.accepted),
            rejected: self
                .rejected
                .iter()
                .map(|(reason, n)| (reason.clone(), n.saturating_sub(before(reason))))
                .filter(|(_, n)| *n > 0)
                .collect(),
            lost_in_kernel: self.lost_in_kernel.saturating_sub(earlier.lost_in_kernel),
            matched: self.matched.saturating_sub(earlier.matched),
            unhandled: self.unhandled.saturating_sub(earlier.unhandled),
            duplicates: self.duplicates.saturating_sub(earlier.duplicates),
            dead_lettered: self.dead_lettered.saturating_sub(earlier.dead_lettered),
            alerts: self.alerts.saturating_sub(earlier.alerts),
            meta_alerts: self.meta_alerts.saturating_sub(earlier.meta_alerts),
            delivered: self.delivered.saturating_sub(earlier.delivered),
        }
    }

    pub fn rejected_total(&self) -> u64 {
        self.rejected.iter().map(|(_, n)| n).sum()
    }

    /// Accepted events that have come to their end.
    pub fn settled(&self) -> u64 {
        self.matched + self.unhandled + self.duplicates + self.dead_lettered
    }
}

/// Events that no rule knew, and the one alert they made.
#[derive(Debug, Clone)]
pub struct MetaAlert {
    pub host: String,
    pub team: String,
    /// How many events the host sent in all.
    pub events: usize,
    pub message: String,
}

/// All that the summary tells.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    pub fed: Fed,
    pub figures: Figures,
    pub received: Received,
    /// From the sending of an event to the arrival of its alert.
    pub latencies: Vec<Duration>,
    pub meta_alerts: Vec<MetaAlert>,
    /// Everything had come to its end when the summary was made.
    pub quiet: bool,
}

/// How to write.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    pub colour: bool,
    /// Characters a line.
    pub width: usize,
}

impl Style {
    /// For a terminal or a file; `columns` where somebody said so (`COLUMNS`).
    pub fn new(terminal: bool, columns: Option<usize>) -> Self {
        Self { colour: terminal, width: columns.unwrap_or(if terminal { 110 } else { 120 }).clamp(60, 240) }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour && !code.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Never less of a message, however narrow the screen.
const MESSAGE_MIN: usize = 20;
const BOLD: &str = "1";
const DIM: &str = "2";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const RED: &str = "31";

/// A part of the story begins.
pub fn print_caption(out: &mut impl Write, style: &Style, caption: &str) -> io::Result<()> {
    writeln!(out, "{}", style.paint(BOLD, &cut(&format!("-- {caption}"), style.width)))?;
    out.flush()
}

/// Widths of the columns before the message, each followed by two spaces.
const COLUMNS: [(&str, usize); 6] =
    [("time", 8), ("team", 8), ("severity", 8), ("told by", 7), ("host", 13), ("after", 8)];

/// The names of the columns that [`print_alert`] fills.
pub fn print_header(out: &mut impl Write, style: &Style) -> io::Result<()> {
    let names: String = COLUMNS.iter().map(|(name, width)| format!("{name:<width$}  ")).collect();
    writeln!(out, "{}", style.paint(DIM, &format!("{names}message")))
}

/// An alert has come: time (UTC), team, severity, whether a page or a ticket tells of it, host, how
/// long after the event's sending, message.
pub fn print_alert(out: &mut impl Write, style: &Style, alert: &Arrival, took: Option<Duration>) -> io::Result<()> {
    let time = alert.wall.jiff().strftime("%H:%M:%S").to_string();
    let (severity, code) = severity(alert.severity);
    let told_by = match (alert.page, alert.ticket) {
        (true, true) => "both",
        (true, false) => "page",
        (false, true) => "ticket",
        (false, false) => "",
    };
    let took = took.map(millis).unwrap_or_default();
    let took = format!("{took:>8}");
    let mut room = style.width;
    for ((_, width), (text, code)) in COLUMNS.into_iter().zip([
        (&*time, ""),
        (&*alert.team, ""),
        (severity, code),
        (told_by, ""),
        (&*alert.host, ""),
        (&*took, ""),
    ]) {
        write!(out, "{}  ", style.paint(code, &column(text, width)))?;
        room = room.saturating_sub(width + 2);
    }
    writeln!(out, "{}", cut(&alert.message, room.max(MESSAGE_MIN)))
}

/// The end of the story.
pub fn print_summary(out: &mut impl Write, style: &Style, summary: &Summary) -> io::Result<()> {
    let Summary { fed, figures, received, .. } = summary;
    let mut table = Table { out, style };
    table.heading("What happened")?;
    let doors = format!("{} UDP, {} TCP, {} HTTP, in {:.1} s", fed.udp, fed.tcp, fed.http, fed.took.as_secs_f64());
    table.row("events sent", fed.sent(), "", &doors)?;
    table.row("  accepted", figures.accepted, "", "on disk before anything else is done with them")?;
    table.row(
        "  rejected",
        figures.rejected_total(),
        "",
        &list(figures.rejected.iter().map(|(r, n)| (r.as_str(), *n))),
    )?;
    if figures.lost_in_kernel > 0 {
        table.row("  lost", figures.lost_in_kernel, RED, "datagrams dropped by the kernel")?;
    }
    if fed.failed > 0 {
        table.row("  not sent", fed.failed, RED, fed.first_failure.as_deref().unwrap_or_default())?;
    }
    table.row("stored", figures.matched + figures.unhandled, "", "searchable, with the raw bytes")?;
    table.row("  matched", figures.matched, "", "a rule knew them; each has an audit row")?;
    table.row("  unhandled", figures.unhandled, "", "no rule knew them; counted by host and shape")?;
    let kinds = format!(
        "{} by rules, {} about unhandled events",
        figures.alerts.saturating_sub(figures.meta_alerts),
        figures.meta_alerts
    );
    table.row("alerts", figures.alerts, "", &kinds)?;
    table.row(
        "  delivered",
        figures.delivered,
        if figures.delivered == figures.alerts { GREEN } else { YELLOW },
        &teams(received),
    )?;
    table.row("  twice", received.duplicates, if received.duplicates == 0 { "" } else { RED }, "")?;
    table.row("  faults", received.faults, "", "repeats share a signature, so they join one incident")?;
    table.text("latency", &latency(&summary.latencies))?;
    table.blank()?;
    for meta in &summary.meta_alerts {
        table.paragraph("", &meta_sentence(meta))?;
    }
    table.paragraph(if adds_up(figures) { GREEN } else { RED }, &sum_sentence(figures))?;
    if !summary.quiet {
        table.paragraph(YELLOW, "Not everything had come to its end when this was written; see the log above.")?;
    }
    out.flush()
}

fn adds_up(figures: &Figures) -> bool {
    figures.accepted == figures.settled()
}

fn sum_sentence(figures: &Figures) -> String {
    let Figures { accepted, matched, unhandled, duplicates, dead_lettered, .. } = figures;
    let sum =
        format!("{matched} matched + {unhandled} unhandled + {duplicates} duplicate + {dead_lettered} dead letters");
    if adds_up(figures) {
        format!("{accepted} accepted = {sum}: nothing vanished.")
    } else {
        format!("{accepted} accepted, but {sum} = {}.", figures.settled())
    }
}

fn meta_sentence(meta: &MetaAlert) -> String {
    format!(
        "{} sent {} events of a shape that no rule knows, each with other numbers. They became one alert to {} \
         instead of silence or {} pages: \"{}\"",
        meta.host, meta.events, meta.team, meta.events, meta.message
    )
}

fn teams(received: &Received) -> String {
    let mut teams: Vec<(&str, u64)> = received.teams.iter().map(|(team, n)| (team.as_str(), *n)).collect();
    teams.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    list(teams)
}

fn list<'a>(items: impl IntoIterator<Item = (&'a str, u64)>) -> String {
    let items: Vec<String> = items.into_iter().map(|(name, n)| format!("{n} {name}")).collect();
    items.join(", ")
}

fn latency(all: &[Duration]) -> String {
    let mut all = all.to_vec();
    all.sort_unstable();
    // Nearest rank.
    let rank = |percent: usize| all.get((all.len() * percent).div_ceil(100).saturating_sub(1)).copied().map(millis);
    match (rank(50), rank(99), rank(100)) {
        (Some(p50), Some(p99), Some(max)) => {
            format!("event sent to alert delivered: p50 {p50}, p99 {p99}, longest {max}")
        }
        _ => "no alert could be traced to its event".to_owned(),
    }
}

fn millis(d: Duration) -> String {
    let ms = d.as_secs_f64() * 1_000.0;
    if ms < 10.0 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") }
}

/// The word of Moogsoft's number, and its colour.
fn severity(code: u8) -> (&'static str, &'static str) {
    match code {
        5 => ("CRITICAL", "1;31"),
        4 => ("MAJOR", RED),
        3 => ("WARNING", YELLOW),
        2 => ("MINOR", "36"),
        1 => ("INFO", ""),
        0 => ("CLEAR", GREEN),
        _ => ("?", ""),
    }
}

struct Table<'a, W> {
    out: &'a mut W,
    style: &'a Style,
}

impl<W: Write> Table<'_, W> {
    fn heading(&mut self, text: &str) -> io::Result<()> {
        let rule = "-".repeat(self.style.width.min(78));
        writeln!(self.out, "\n{}\n{}", self.style.paint(BOLD, text), self.style.paint(DIM, &rule))
    }

    fn row(&mut self, name: &str, number: u64, code: &str, note: &str) -> io::Result<()> {
        let number = self.style.paint(code, &format!("{number:>7}"));
        let note = cut(note, self.style.width.saturating_sub(25));
        let gap = if note.is_empty() { "" } else { "   " };
        writeln!(self.out, " {name:<14}{number}{gap}{note}")
    }

    fn text(&mut self, name: &str, text: &str) -> io::Result<()> {
        writeln!(self.out, " {name:<14}{:10}{}", "", cut(text, self.style.width.saturating_sub(25)))
    }

    fn blank(&mut self) -> io::Result<()> {
        writeln!(self.out)
    }

    /// Wrapped at words.
    fn paragraph(&mut self, code: &str, text: &str) -> io::Result<()> {
        let text = printable(text);
        let mut line = String::new();
        for word in text.split_whitespace() {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > self.style.width - 2 {
                writeln!(self.out, " {}", self.style.paint(code, &line))?;
                line.clear();
            }
            let space = if line.is_empty() { "" } else { " " };
            let _ = write!(line, "{space}{word}");
        }
        writeln!(self.out, " {}", self.style.paint(code, &line))
    }
}

/// Exactly `width` characters.
fn column(text: &str, width: usize) -> String {
    format!("{:<width$}", cut(text, width))
}

/// At most `width` characters, none of them one that steers a terminal.
fn cut(text: &str, width: usize) -> String {
    let text = printable(text);
    if text.chars().count() <= width {
        return text;
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

fn printable(text: &str) -> String {
    text.trim_end().chars().map(|c| if c.is_control() { '·' } else { c }).collect()
}
