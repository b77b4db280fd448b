//! Log lines as events: one by one, as sequences, and from files.
//!
//! * Benign: `TIME<tab>HOST<tab>EVENT`, one stream per file.
//! * Attacks: `RULE,RULE<tab>TIME<tab>HOST<tab>EVENT`, `-` for a line that no rule is to see; a line
//!   that begins with `#` names an episode, which begins anew.
//!
//! An EVENT is `program[pid]: message` as syslog brings it, or a JSON object as it is posted.

use crate::rulebook::folder;
use model::Fields;
use serde_json::{Map, Value};

/// An event at a time.
#[derive(Debug, Clone)]
pub struct Entry {
    pub at_micros: i64,
    /// As written.
    pub event: String,
    /// As accepted.
    json: String,
}

impl Entry {
    pub fn new(at_micros: i64, host: &str, event: &str) -> Self {
        let mut object = match serde_json::from_str::<Map<String, Value>>(event) {
            Ok(object) => object,
            Err(_) => line(event),
        };
        object.entry("hostname").or_insert_with(|| host.into());
        object.entry("timestamp").or_insert_with(|| "2026-11-26T01:00:00Z".into());
        Self { at_micros, event: event.to_owned(), json: Value::Object(object).to_string() }
    }

    pub fn fields(&self) -> Fields<'_> {
        let mut fields = Fields::default();
        fields::from_event(&self.json, &mut fields).unwrap();
        fields
    }

    /// What the rules saw.
    pub fn explain(&self) -> String {
        let fields = self.fields();
        let leaves: Vec<String> =
            fields.leaves().iter().map(|l| format!("{}={:?}", l.name, l.value.as_deref().unwrap_or("null"))).collect();
        format!("{:?} {}", fields.source, leaves.join(" "))
    }
}

/// `program[pid]: message`, as the syslog listeners write it.
fn line(event: &str) -> Map<String, Value> {
    let (tag, message) = event.split_once(": ").unwrap_or_else(|| panic!("a line begins with its program: {event}"));
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
    object
}

/// `START [xTIMES/EVERY] [@HOST] EVENT`; `{n}` in the event counts from 1.
pub fn sequence(steps: &[String]) -> Vec<Entry> {
    let mut entries = Vec::new();
    for step in steps {
        let (start, mut rest) = step.split_once(' ').unwrap();
        let (mut times, mut every, mut host) = (1, 0, "web1");
        while let Some((word, behind)) = rest.split_once(' ') {
            if let Some((number, length)) = word.strip_prefix('x').and_then(|word| word.split_once('/')) {
                (times, every) = (number.parse().unwrap(), micros(length));
            } else if let Some(name) = word.strip_prefix('@') {
                host = name;
            } else {
                break;
            }
            rest = behind;
        }
        for n in 0..times {
            let event = rest.replace("{n}", &(n + 1).to_string());
            entries.push(Entry::new(micros(start) + n * every, host, &event));
        }
    }
    entries.sort_by_key(|entry| entry.at_micros);
    entries
}

/// `200ms`, `5s`, `2m`, `3h`.
fn micros(text: &str) -> i64 {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let unit = match &text[digits..] {
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        other => panic!("{other:?} in {text:?} is no unit of time"),
    };
    text[..digits].parse::<i64>().unwrap() * unit
}

/// A series of lines, each with the rules that are to see it.
pub struct Episode {
    pub entries: Vec<Entry>,
    pub labels: Vec<Vec<String>>,
}

/// Every file of attacks.
pub fn attacks() -> Vec<Episode> {
    let mut episodes: Vec<Episode> = Vec::new();
    for (_, text) in texts("attacks-") {
        for line in text.lines().filter(|line| !line.is_empty()) {
            if line.starts_with('#') {
                episodes.push(Episode { entries: Vec::new(), labels: Vec::new() });
                continue;
            }
            let (labels, line) = line.split_once('\t').unwrap();
            let labels = labels.split(',').filter(|label| *label != "-").map(str::to_owned).collect();
            let episode = episodes.last_mut().expect("a file of attacks begins with the name of an episode");
            episode.labels.push(labels);
            episode.entries.push(entry(line));
        }
    }
    episodes
}

/// Every file of ordinary lines, with its name.
pub fn benign() -> Vec<(String, Vec<Entry>)> {
    texts("benign-").into_iter().map(|(name, text)| (name, text.lines().map(entry).collect())).collect()
}

fn texts(prefix: &str) -> Vec<(String, String)> {
    let mut texts: Vec<(String, String)> = std::fs::read_dir(folder().join("corpora"))
        .unwrap()
        .map(|file| file.unwrap())
        .filter_map(|file| {
            let name = file.file_name().into_string().unwrap();
            name.starts_with(prefix).then(|| (name, std::fs::read_to_string(file.path()).unwrap()))
        })
        .collect();
    texts.sort();
    texts
}

fn entry(line: &str) -> Entry {
    let mut parts = line.splitn(3, '\t');
    let (time, host, event) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
    let time = model::Timestamp::parse(time).unwrap_or_else(|| panic!("{time:?} is no time"));
    Entry::new(time.micros(), host, event)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_sequence_repeats_its_line_and_counts() {
        let entries = sequence(&["1s x2/500ms @db1 sshd[7]: try {n}".to_owned()]);
        assert_eq!(entries.iter().map(|e| e.at_micros).collect::<Vec<_>>(), [1_000_000, 1_500_000]);
        let second: Value = serde_json::from_str(&entries[1].json).unwrap();
        assert_eq!(second["message"], json!("try 2"));
        assert_eq!(
            (&second["hostname"], &second["program"], &second["pid"]),
            (&json!("db1"), &json!("sshd"), &json!("7"))
        );
    }
}
