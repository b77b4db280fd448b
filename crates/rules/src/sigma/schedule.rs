//! `schedule`, a key of ours beside those of the specification: the rule is not asked of each event as it
//! comes, but now and then of all that came since. So a window of a day or a week costs no memory.
//!
//! ```yaml
//! schedule: 15m                                # or, with all that can be said:
//! schedule: {every: 1h, delay: 5m, since: 2d}
//! ```

use super::Fault;
use super::correlation::{SPAN_EXAMPLE, seconds};
use super::header::Entries;
use crate::suggest;
use crate::yaml::{Node, NodeValue};

const KEYS: [&str; 3] = ["every", "delay", "since"];
const MINUTE: i64 = 60;
const DAY: i64 = 86_400;

/// When a rule is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Schedule {
    /// From one run to the next; a minute to a week.
    pub every_secs: u32,
    /// How long a run waits for events that are on their way; up to a day, a minute where not said.
    pub delay_secs: u32,
    /// How far back the first run begins; up to a year. Nothing: it begins when the rule is switched on.
    pub since_secs: u32,
}

impl Schedule {
    const DEFAULT_DELAY: u32 = 60;

    /// Reads the key of a document; `None` where it has none.
    pub(crate) fn read(document: &Entries<'_>) -> Result<Option<Self>, Fault> {
        let Some(node) = document.get("schedule") else { return Ok(None) };
        let example = "write how often: `schedule: 15m` or `schedule: {every: 1h, delay: 5m}`";
        let part = match &node.value {
            NodeValue::Text(_) => {
                let every_secs = within(node, "schedule", MINUTE, 7 * DAY, "a minute", "a week")?;
                return Ok(Some(Self { every_secs, delay_secs: Self::DEFAULT_DELAY, since_secs: 0 }));
            }
            NodeValue::Map(all) => Entries { line: node.line, all },
            NodeValue::Null | NodeValue::List(_) => {
                let message = format!("a length of time or a mapping is expected, this is {}", node.value.kind());
                return Err(Fault::new(node.line, message).at("schedule").suggest(example));
            }
        };
        for (key, value) in part.all {
            if !KEYS.contains(&&**key) {
                let fault = Fault::new(value.line, "a schedule has no such key").at(format!("schedule.{key}"));
                return Err(match suggest::closest(key, &KEYS) {
                    Some(closest) => fault.suggest(format!("did you mean `{closest}`?")),
                    None => fault.suggest(format!("it has {}", KEYS.join(", "))),
                });
            }
        }
        let Some(every) = part.get("every") else {
            return Err(Fault::new(node.line, "it is not said how often").at("schedule.every").suggest(example));
        };
        let optional = |key: &str, default, most, name: &str| match part.get(key) {
            Some(node) => within(node, &format!("schedule.{key}"), 0, most, "nothing", name),
            None => Ok(default),
        };
        Ok(Some(Self {
            every_secs: within(every, "schedule.every", MINUTE, 7 * DAY, "a minute", "a week")?,
            delay_secs: optional("delay", Self::DEFAULT_DELAY, DAY, "a day")?,
            since_secs: optional("since", 0, 366 * DAY, "366 days")?,
        }))
    }

    /// In words.
    pub fn describe(&self) -> String {
        let mut text = format!("asked every {}, {} late", span(self.every_secs), span(self.delay_secs));
        if self.since_secs > 0 {
            text.push_str(&format!(", first for the last {}", span(self.since_secs)));
        }
        text
    }
}

fn within(node: &Node, at: &str, least: i64, most: i64, least_name: &str, most_name: &str) -> Result<u32, Fault> {
    let fault = |message: String| Fault::new(node.line, message).at(at);
    let NodeValue::Text(text) = &node.value else {
        return Err(fault(format!("a length of time is expected, this is {}", node.value.kind())).suggest(SPAN_EXAMPLE));
    };
    let text = text.trim();
    let seconds = seconds(text).map_err(|wrong| wrong.at(fault))?;
    match u32::try_from(seconds) {
        Ok(fits) if seconds >= least && seconds <= most => Ok(fits),
        Ok(_) | Err(_) if seconds < least => {
            Err(fault(format!("`{text}` is too short")).suggest(format!("{least_name} is the least")))
        }
        Ok(_) | Err(_) => Err(fault(format!("`{text}` is too long")).suggest(format!("{most_name} is the most"))),
    }
}

/// In the largest unit that needs no fraction.
fn span(seconds: u32) -> String {
    match seconds {
        0 => "0s".to_owned(),
        s if s % 86_400 == 0 => format!("{}d", s / 86_400),
        s if s % 3_600 == 0 => format!("{}h", s / 3_600),
        s if s % 60 == 0 => format!("{}m", s / 60),
        s => format!("{s}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sigma::{Options, Reader};

    fn read(schedule: &str) -> Result<Schedule, String> {
        let mut reader = Reader::new(Options::default());
        let text = format!(
            "title: t\nlogsource: {{product: linux}}\ndetection: {{s: {{a: b}}, condition: s}}\nschedule: {schedule}\n"
        );
        reader.text("r", &text);
        let collection = reader.finish();
        match collection.rules.first() {
            Some(rule) => Ok(rule.header.schedule.expect("it has one")),
            None => Err(collection.problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
        }
    }

    #[test]
    fn what_can_be_said_is_read() {
        for (text, every, delay, since) in [
            ("15m", 900, 60, 0),
            ("1m", 60, 60, 0),
            ("1w", 604_800, 60, 0),
            ("{every: 1h}", 3_600, 60, 0),
            ("{every: 90s, delay: 0s}", 90, 0, 0),
            ("{every: 1d, delay: 10m, since: 7d}", 86_400, 600, 604_800),
        ] {
            let expected = Schedule { every_secs: every, delay_secs: delay, since_secs: since };
            assert_eq!(read(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_line_and_suggestion() {
        for (text, expected) in [
            ("30s", "r:4: schedule: `30s` is too short; a minute is the least (rule \"t\")"),
            ("8d", "r:4: schedule: `8d` is too long; a week is the most (rule \"t\")"),
            ("99999999999999999999d", "r:4: schedule: `99999999999999999999d` is longer than ten years"),
            ("{every: 15min}", "r:4: schedule.every: `15min` is no timespan: its unit is unknown; did you mean `15m`?"),
            ("{evry: 15m}", "r:4: schedule.evry: a schedule has no such key; did you mean `every`?"),
            ("{every: 15m, dealy: 1m}", "r:4: schedule.dealy: a schedule has no such key; did you mean `delay`?"),
            ("{delay: 1m}", "r:4: schedule.every: it is not said how often; write how often"),
            ("{every: 15m, delay: 2d}", "r:4: schedule.delay: `2d` is too long; a day is the most"),
            ("{every: [1m]}", "r:4: schedule.every: a length of time is expected, this is a list"),
            ("[15m]", "r:4: schedule: a length of time or a mapping is expected, this is a list"),
            ("often", "r:4: schedule: `often` is no timespan; write a number and one of s, m, h"),
        ] {
            let refused = read(text).expect_err(text);
            assert!(refused.starts_with(expected), "{text}: {refused}");
        }
    }

    #[test]
    fn it_is_said_in_words() {
        let schedule = Schedule { every_secs: 900, delay_secs: 90, since_secs: 172_800 };
        assert_eq!(schedule.describe(), "asked every 15m, 90s late, first for the last 2d");
    }
}
