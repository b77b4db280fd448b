//! The key `examples` beside a rule, one of ours that other tools ignore: events that it must match,
//! and events that it must not.
//!
//! ```yaml
//! examples:
//!   match:
//!     - 'sshd[811]: Failed password for root from 203.0.113.7 port 4022 ssh2'   # as syslog brings it
//!     - '{"EventID": 4688, "Image": "/usr/bin/nc"}'                               # as it is posted
//!     - {Image: /usr/bin/nc, CommandLine: nc -l 4444}                             # the same
//!     - ['0s x5/50s sshd[811]: Failed password … 402{n} ssh2', '5m @db1 sshd[9]: …'] # a sequence
//!   no_match:
//!     - 'sshd[811]: Accepted password for bob from 203.0.113.7 port 4022 ssh2'
//! ```
//!
//! A step of a sequence is `START [xTIMES/EVERY] [@HOST] EVENT`; `{n}` in the event counts from 1.
//!
//! What always holds: what a text makes of itself is bounded ([`EVENTS_MAX`], [`BYTES_MAX`]), and what
//! cannot be read is reported with its line and stops nothing else.

use super::header::Entries;
use super::{Fault, Gravity, Header, Place, Problem};
use crate::suggest;
use crate::yaml::{self, Node, NodeValue};
use serde_json::{Map, Value};

/// Most events that the examples of one text come to.
pub const EVENTS_MAX: usize = 20_000;
/// Most bytes of those events.
pub const BYTES_MAX: usize = 16 << 20;

/// The examples of one rule.
#[derive(Debug, Clone)]
pub struct Examples {
    /// What the rule is called, as in its [`Header`].
    pub uid: String,
    pub title: String,
    /// Where the rule starts.
    pub place: Place,
    /// In the order of the text.
    pub all: Vec<Example>,
}

/// Events with a verdict.
#[derive(Debug, Clone)]
pub struct Example {
    pub line: u64,
    pub must_match: bool,
    /// By time.
    pub samples: Vec<Sample>,
}

/// An event at a time.
#[derive(Debug, Clone)]
pub struct Sample {
    pub at_micros: i64,
    /// As written.
    pub written: String,
    /// The JSON object that is accepted.
    pub object: String,
}

impl Sample {
    /// An event as written: `program[pid]: message`, or a JSON object. What it lacks and every event
    /// has is added.
    pub fn new(at_micros: i64, host: &str, written: &str) -> Result<Self, String> {
        let object = if written.trim_start().starts_with('{') {
            serde_json::from_str(written).map_err(|error| format!("this is no JSON object: {error}"))?
        } else {
            line(written)?
        };
        Ok(Self::of(at_micros, host, written.to_owned(), object))
    }

    fn of(at_micros: i64, host: &str, written: String, mut object: Map<String, Value>) -> Self {
        // The pipeline's own, which it takes from nobody.
        object.retain(|key, _| !key.starts_with('_'));
        object.entry("hostname").or_insert_with(|| host.into());
        object.entry("timestamp").or_insert_with(|| "2026-11-26T01:00:00Z".into());
        Self { at_micros, written, object: Value::Object(object).to_string() }
    }
}

/// `program[pid]: message`, as the syslog listeners write it.
fn line(event: &str) -> Result<Map<String, Value>, String> {
    let Some((tag, message)) = event.split_once(": ") else {
        return Err("an event is a line that begins with its program, `sshd[811]: …`, or a JSON object".to_owned());
    };
    let (program, pid) = match tag.split_once('[') {
        Some((program, pid)) => (program, pid.strip_suffix(']')),
        None => (tag, None),
    };
    let mut object = Map::new();
    object.insert("message".to_owned(), message.into());
    object.insert("program".to_owned(), program.into());
    object.insert("source".to_owned(), "syslog".into());
    if let Some(pid) = pid {
        object.insert("pid".to_owned(), pid.into());
    }
    Ok(object)
}

/// The examples in a text of Sigma rules, and what is wrong with them; documents without are left out,
/// and so is what is no YAML, which the reader of the rules reports.
pub fn read(file: &str, text: &str) -> (Vec<Examples>, Vec<Problem>) {
    let mut reader = Reader { room: Room::new(), problems: Vec::new() };
    let mut found = Vec::new();
    for node in yaml::documents(text).0 {
        let Ok(entries) = Entries::of(&node) else { continue };
        let Some(examples) = entries.get("examples") else { continue };
        let place = Place { file: file.into(), line: node.line };
        let Ok(header) = Header::read(&entries, place, &mut Vec::new()) else { continue };
        let all = reader.lists(&header, examples);
        found.push(Examples { uid: header.uid, title: header.title, place: header.place, all });
    }
    (found, reader.problems)
}

/// Events of one sequence, by time.
pub fn sequence<'s>(steps: impl IntoIterator<Item = &'s str>) -> Result<Vec<Sample>, String> {
    let mut room = Room::new();
    for step in steps {
        room.step(step)?;
    }
    Ok(room.taken())
}

/// The host of events that name none.
const HOST: &str = "web1";

/// Samples, and how many more there may be.
struct Room {
    samples: Vec<Sample>,
    events: usize,
    bytes: usize,
}

impl Room {
    fn new() -> Self {
        Self { samples: Vec::new(), events: EVENTS_MAX, bytes: BYTES_MAX }
    }

    fn take(&mut self, sample: Sample) -> Result<(), String> {
        let bytes = sample.written.len() + sample.object.len();
        if self.events == 0 || self.bytes < bytes {
            let mib = BYTES_MAX >> 20;
            return Err(format!("the examples of one file come to more than {EVENTS_MAX} events or {mib} MiB"));
        }
        self.events -= 1;
        self.bytes -= bytes;
        self.samples.push(sample);
        Ok(())
    }

    /// The samples since the last time, by time.
    fn taken(&mut self) -> Vec<Sample> {
        let mut samples = std::mem::take(&mut self.samples);
        samples.sort_by_key(|sample| sample.at_micros);
        samples
    }

    fn step(&mut self, written: &str) -> Result<(), String> {
        let form = || {
            let shown: String = written.chars().take(80).collect();
            format!("a step is `START [xTIMES/EVERY] [@HOST] EVENT`, such as `5s sshd[811]: …`; this is {shown:?}")
        };
        let (start, mut rest) = written.split_once(' ').ok_or_else(form)?;
        let start = micros(start).ok_or_else(form)?;
        let (mut times, mut every, mut host) = (1, 0, HOST);
        while let Some((word, behind)) = rest.split_once(' ') {
            if let Some((number, length)) = word.strip_prefix('x').and_then(|word| word.split_once('/')) {
                times = number.parse::<usize>().map_err(|_| form())?;
                every = micros(length).ok_or_else(form)?;
            } else if let Some(name) = word.strip_prefix('@') {
                host = name;
            } else {
                break;
            }
            rest = behind;
        }
        for n in 0..times {
            let at = i64::try_from(n).ok().and_then(|n| every.checked_mul(n)?.checked_add(start)).ok_or_else(form)?;
            let event = rest.replace("{n}", &(n + 1).to_string());
            self.take(Sample::new(at, host, &event)?)?;
        }
        Ok(())
    }
}

/// `200ms`, `5s`, `2m`, `3h`, `1d`; at most a year.
fn micros(text: &str) -> Option<i64> {
    const YEAR: i64 = 366 * 86_400_000_000;
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ => return None,
    };
    number.parse::<i64>().ok()?.checked_mul(unit).filter(|micros| *micros <= YEAR)
}

struct Reader {
    room: Room,
    problems: Vec<Problem>,
}

impl Reader {
    fn lists(&mut self, header: &Header, node: &Node) -> Vec<Example> {
        const KEYS: [&str; 2] = ["match", "no_match"];
        let mut all = Vec::new();
        let NodeValue::Map(lists) = &node.value else {
            let message = format!("a mapping with `match` and `no_match` is expected, this is {}", node.value.kind());
            self.report(header, Fault::new(node.line, message).at("examples"));
            return all;
        };
        for (key, list) in lists {
            if !KEYS.contains(&&**key) {
                let fault = Fault::new(list.line, "there is no such list of examples").at(format!("examples.{key}"));
                self.report(
                    header,
                    match suggest::closest(key, &KEYS) {
                        Some(closest) => fault.suggest(format!("did you mean `{closest}`?")),
                        None => fault.suggest("there are `match` and `no_match`"),
                    },
                );
                continue;
            }
            let one = std::slice::from_ref(list);
            let items = match &list.value {
                NodeValue::List(items) => items,
                NodeValue::Null => continue,
                NodeValue::Text(_) | NodeValue::Map(_) => one,
            };
            for item in items {
                match self.samples(item) {
                    Ok(samples) => all.push(Example { line: item.line, must_match: key == "match", samples }),
                    Err(message) => {
                        let fault = Fault::new(item.line, message).at(format!("examples.{key}"));
                        self.report(header, fault);
                    }
                }
            }
        }
        all
    }

    fn samples(&mut self, node: &Node) -> Result<Vec<Sample>, String> {
        let read = self.read(node);
        let samples = self.room.taken();
        read.map(|()| samples)
    }

    fn read(&mut self, node: &Node) -> Result<(), String> {
        match &node.value {
            NodeValue::Text(written) => self.room.take(Sample::new(0, HOST, written)?),
            NodeValue::Map(entries) => {
                let object = object(entries);
                let written = Value::Object(object.clone()).to_string();
                self.room.take(Sample::of(0, HOST, written, object))
            }
            NodeValue::List(steps) => steps.iter().try_for_each(|node| match &node.value {
                NodeValue::Text(written) => self.room.step(written),
                other @ (NodeValue::Null | NodeValue::List(_) | NodeValue::Map(_)) => {
                    Err(format!("a step of a sequence is a text, this is {}", other.kind()))
                }
            }),
            NodeValue::Null => Err("an event is expected, this is nothing".to_owned()),
        }
    }

    fn report(&mut self, header: &Header, fault: Fault) {
        self.problems.push(Problem {
            gravity: Gravity::Refused,
            place: Place { line: fault.line, ..header.place.clone() },
            rule: Some(header.uid.clone()),
            title: Some(header.title.clone()),
            field: fault.field,
            message: fault.message,
            suggestion: fault.suggestion,
        });
    }
}

/// Scalars as texts, which is what rules compare.
fn object(entries: &[(String, Node)]) -> Map<String, Value> {
    fn json(node: &Node) -> Value {
        match &node.value {
            NodeValue::Null => Value::Null,
            NodeValue::Text(text) => text.as_str().into(),
            NodeValue::List(items) => items.iter().map(json).collect(),
            NodeValue::Map(entries) => Value::Object(object(entries)),
        }
    }
    entries.iter().map(|(key, node)| (key.clone(), json(node))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &str) -> Result<Vec<(i64, Value)>, String> {
        let (found, problems) = read("a.yml", &format!("title: A\nexamples:\n  match:\n    - {list}\n"));
        match problems.first() {
            Some(problem) => Err(format!("{}: {}", problem.place, problem.message)),
            None => Ok(found[0].all[0]
                .samples
                .iter()
                .map(|sample| (sample.at_micros, serde_json::from_str(&sample.object).expect("JSON")))
                .collect()),
        }
    }

    #[test]
    fn a_sequence_repeats_its_line_and_counts() {
        let steps = texts("['2s x2/500ms @db1 sshd[7]: try {n}', '1s {\"a\": 1, \"_own\": 2}']").expect("a sequence");
        assert_eq!(steps.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [1_000_000, 2_000_000, 2_500_000]);
        assert_eq!(
            (&steps[0].1["a"], &steps[0].1["hostname"], steps[0].1.get("_own")),
            (&1.into(), &"web1".into(), None)
        );
        let third = &steps[2].1;
        for (key, value) in [("message", "try 2"), ("hostname", "db1"), ("program", "sshd"), ("pid", "7")] {
            assert_eq!(third[key], value, "{third}");
        }
    }

    #[test]
    fn an_event_may_be_a_mapping() {
        let event = &texts("{Image: /bin/nc, EventID: 1, a: {b: [x, null]}}").expect("an event")[0].1;
        assert_eq!((&event["Image"], &event["EventID"]), (&"/bin/nc".into(), &"1".into()));
        assert_eq!(event["a"], serde_json::json!({ "b": ["x", null] }));
    }

    #[test]
    fn what_is_no_example_is_named_with_its_line() {
        for (list, part) in [
            ("just a text", "a.yml:4: an event is a line that begins with its program"),
            ("'{\"a\": '", "this is no JSON object"),
            ("['sshd[1]: no time']", "a step is `START"),
            ("['5y sshd[1]: x']", "a step is `START"),
            ("['0s x2/99999999999h sshd[1]: x']", "a step is `START"),
            ("['0s x30000/1s sshd[1]: x']", "more than 20000 events"),
            ("[{a: 1}]", "a step of a sequence is a text, this is a mapping"),
            ("", "an event is expected, this is nothing"),
        ] {
            let error = texts(list).expect_err(list);
            assert!(error.contains(part), "{list}: {error}");
        }
        let (_, problems) = read("a.yml", "title: A\nexamples: {mtch: ['a: b']}\n");
        assert_eq!(problems[0].suggestion.as_deref(), Some("did you mean `match`?"));
        let long = format!("title: A\nexamples: {{match: [['0s x9000/1s a: {}']]}}\n", "y".repeat(9_000));
        assert!(read("a.yml", &long).1[0].message.contains("16 MiB"));
    }
}
