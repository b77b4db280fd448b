//! The bundled sample events, and the order in which the story tells them. Pure.
//!
//! A sample file holds one event a line, as a device sends it. A line `# FROM-TO caption` spreads
//! the lines below it evenly over that part of the story, in percent; other lines that begin with
//! `#`, and empty ones, are for readers. Files are merged by time, so that things happen side by
//! side, always in the same order.
//!
//! `{ts3164}` `{ms}` `{ts5424}` `{date}` `{time}` in an event become its time of sending, in UTC.

use model::Timestamp;

/// How an event gets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Door {
    /// A datagram each.
    Udp,
    /// One connection, a line feed behind each message (RFC 6587 §3.4.2).
    TcpLines,
    /// One connection, the length in front of each message (RFC 6587 §3.4.1).
    TcpCounted,
    /// A request each.
    Http,
}

/// A sample event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    pub door: Door,
    /// With placeholders.
    pub text: &'static str,
    /// When, in thousandths of a percent of the story.
    at: u32,
    /// What begins with this event, for people who watch.
    pub caption: Option<&'static str>,
}

const FILES: [(Door, &str); 6] = [
    (Door::Udp, include_str!("../../samples/switches.log")),
    (Door::TcpLines, include_str!("../../samples/routers.log")),
    (Door::TcpCounted, include_str!("../../samples/linux.log")),
    (Door::Udp, include_str!("../../samples/firewall.log")),
    (Door::Udp, include_str!("../../samples/facility.log")),
    (Door::Http, include_str!("../../samples/traps.jsonl")),
];

/// All bundled events in the order of the story.
pub fn story() -> Vec<Sample> {
    let mut samples: Vec<Sample> = FILES.into_iter().flat_map(|(door, text)| read(door, text)).collect();
    samples.sort_by_key(|sample| sample.at); // stable: within a moment, files keep their order
    samples
}

fn read(door: Door, file: &'static str) -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut section = Section { from: 0, to: 100, caption: None, lines: Vec::new() };
    for line in file.lines() {
        if let Some(next) = Section::header(line) {
            std::mem::replace(&mut section, next).spread(door, &mut samples);
        } else if !line.is_empty() && !line.starts_with('#') {
            section.lines.push(line);
        }
    }
    section.spread(door, &mut samples);
    samples
}

struct Section {
    from: u32,
    to: u32,
    caption: Option<&'static str>,
    lines: Vec<&'static str>,
}

impl Section {
    fn header(line: &'static str) -> Option<Self> {
        let (span, caption) = match line.strip_prefix("# ")?.split_once(' ') {
            Some((span, caption)) => (span, Some(caption)),
            None => (line.strip_prefix("# ")?, None),
        };
        let (from, to) = span.split_once('-')?;
        Some(Self { from: from.parse().ok()?, to: to.parse().ok()?, caption, lines: Vec::new() })
    }

    fn spread(mut self, door: Door, samples: &mut Vec<Sample>) {
        let count = u32::try_from(self.lines.len()).unwrap_or(u32::MAX).max(1);
        let length = self.to.saturating_sub(self.from) * 1_000;
        for (index, text) in (0..count).zip(&self.lines) {
            let at = self.from * 1_000 + length * (2 * index + 1) / (2 * count);
            samples.push(Sample { door, text, at, caption: self.caption.take() });
        }
    }
}

/// The event as it is sent at `now`.
pub fn fill(text: &str, now: Timestamp) -> String {
    if !text.contains('{') {
        return text.to_owned();
    }
    let time = now.jiff();
    let format = |pattern: &'static str| time.strftime(pattern).to_string();
    text.replace("{ts3164}", &format("%b %e %H:%M:%S"))
        .replace("{ms}", &format("%3f"))
        .replace("{ts5424}", &now.rfc3339())
        .replace("{date}", &format("%Y-%m-%d"))
        .replace("{time}", &format("%H:%M:%S"))
}
