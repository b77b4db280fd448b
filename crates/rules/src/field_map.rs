//! Files that say what a site's own events call the fields of the Sigma taxonomy.
//!
//! ```yaml
//! mappings:
//!   - when: {app: billing}                 # which events: each field has one of the texts
//!     logsource: {product: linux}          # what they are, where nothing else says so
//!     fields:
//!       User: login                        # the taxonomy's name: the event's, best first
//!       SourceIp: [client.ip, peer]
//! ```
//!
//! Without `when`, a mapping is for the events that are known to be of its `logsource`; without
//! either, for all. What cannot be used is reported with file, line, reason and suggestion, and stops
//! nothing else: of a mapping with a wrong field the others count. A mapping that could be for other
//! events than its author meant is left out as a whole.

use crate::sigma::header::Entries;
use crate::sigma::{Fault, Gravity, LogSource, Place, Problem};
use crate::suggest::closest;
use crate::yaml::{self, Node, NodeValue};
use std::sync::Arc;

/// Mappings of a file, conditions of a mapping, texts of a condition or names of a field, at most.
const MAPPINGS_MAX: usize = 1_000;
const CONDITIONS_MAX: usize = 16;
const TEXTS_MAX: usize = 100;
/// Fields that the mappings of a file give, at most.
const FIELDS_MAX: usize = 1_000;
/// Bytes of a field's name.
const NAME_MAX: usize = 1_024;

/// One mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldMap {
    /// Fields with texts of which they have to have one; `*` is any value.
    pub when: Vec<(String, Vec<String>)>,
    pub source: LogSource,
    /// Names of the taxonomy, with the names of events, best first.
    pub fields: Vec<(String, Vec<String>)>,
}

/// Names that rules ask for often: what looks like one of them and is none is pointed out.
const TAXONOMY: [&str; 44] = [
    "Channel",
    "CommandLine",
    "Computer",
    "CurrentDirectory",
    "DestinationHostname",
    "DestinationIp",
    "DestinationPort",
    "Details",
    "EventID",
    "Hashes",
    "Image",
    "ImageLoaded",
    "Imphash",
    "IntegrityLevel",
    "LogonType",
    "OriginalFileName",
    "ParentCommandLine",
    "ParentImage",
    "ParentProcessId",
    "ProcessId",
    "Provider_Name",
    "QueryName",
    "SourceHostname",
    "SourceIp",
    "SourcePort",
    "TargetFilename",
    "TargetObject",
    "TargetUser",
    "User",
    "c-ip",
    "c-uri",
    "c-useragent",
    "cs-host",
    "cs-method",
    "cs-referer",
    "cs-uri-query",
    "cs-uri-stem",
    "cs-user-agent",
    "cs-username",
    "dst_ip",
    "dst_port",
    "sc-status",
    "src_ip",
    "src_port",
];

/// Reads a file's text.
pub fn read(file: &str, text: &str) -> (Vec<FieldMap>, Vec<Problem>) {
    let mut reading = Reading { file: file.into(), maps: Vec::new(), problems: Vec::new(), fields: 0 };
    match yaml::read(text) {
        Ok(node) => {
            if let Err(fault) = reading.file(&node) {
                reading.problem(Gravity::Refused, fault);
            }
        }
        Err(error) => reading.problem(Gravity::Refused, Fault::new(error.line().unwrap_or(1), error.to_string())),
    }
    (reading.maps, reading.problems)
}

/// The problem of a file that could not be read.
pub fn unreadable(file: &str, why: &str) -> Problem {
    let fault = Fault::new(1, format!("the file cannot be read: {why}"));
    problem(&file.into(), Gravity::Refused, fault)
}

fn problem(file: &Arc<str>, gravity: Gravity, fault: Fault) -> Problem {
    Problem {
        gravity,
        place: Place { file: Arc::clone(file), line: fault.line },
        rule: None,
        title: None,
        field: fault.field,
        message: fault.message,
        suggestion: fault.suggestion,
    }
}

struct Reading {
    file: Arc<str>,
    maps: Vec<FieldMap>,
    problems: Vec<Problem>,
    fields: usize,
}

impl Reading {
    fn problem(&mut self, gravity: Gravity, fault: Fault) {
        self.problems.push(problem(&self.file, gravity, fault));
    }

    fn file(&mut self, node: &Node) -> Result<(), Fault> {
        let entries = Entries::of(node).map_err(|_| {
            Fault::new(node.line, "a file of mappings is a mapping with the list `mappings`").suggest(EXAMPLE)
        })?;
        for (key, value) in entries.all.iter().filter(|(key, _)| key != "mappings") {
            self.problem(Gravity::Warning, unknown(key, value.line, &["mappings"]));
        }
        let list = match entries.get("mappings") {
            Some(Node { value: NodeValue::List(list), .. }) => list,
            Some(node) => {
                let message = format!("is a list of mappings, this is {}", node.value.kind());
                return Err(Fault::new(node.line, message).at("mappings").suggest(EXAMPLE));
            }
            None => return Err(Fault::new(node.line, "has no list `mappings`").suggest(EXAMPLE)),
        };
        for (n, node) in list.iter().enumerate() {
            let at = format!("mappings[{n}]");
            if n >= MAPPINGS_MAX {
                return Err(Fault::new(node.line, format!("is one of more than {MAPPINGS_MAX}")).at(at));
            }
            if let Err(fault) = self.mapping(node, &at) {
                let field = fault.field.as_deref().map_or(at.clone(), |field| format!("{at}.{field}"));
                self.problem(Gravity::Refused, Fault { field: Some(field), ..fault });
            }
        }
        Ok(())
    }

    fn mapping(&mut self, node: &Node, at: &str) -> Result<(), Fault> {
        const KEYS: [&str; 4] = ["name", "when", "logsource", "fields"];
        let entries = Entries::of(node).map_err(|_| Fault::new(node.line, "is no mapping").suggest(EXAMPLE))?;
        // A slip of `when` would be about all events.
        if let Some((key, value)) = entries.all.iter().find(|(key, _)| !KEYS.contains(&key.as_str())) {
            return Err(unknown(key, value.line, &KEYS));
        }
        entries.text("name")?;
        let when = when(&entries)?;
        let source = source(&entries)?;
        let given = match entries.get("fields") {
            Some(Node { value: NodeValue::Map(given), .. }) if !given.is_empty() => given,
            Some(node) => {
                let message = format!("is a mapping of names to names, this is {}", node.value.kind());
                return Err(Fault::new(node.line, message).at("fields").suggest(EXAMPLE));
            }
            None => return Err(Fault::new(node.line, "has no `fields`").suggest(EXAMPLE)),
        };
        let mut fields = Vec::new();
        for (ours, node) in given {
            match self.field(ours, node) {
                Ok(theirs) => {
                    if let Some(known) = closest(ours, &TAXONOMY).filter(|known| known != ours) {
                        let said = Fault::new(node.line, "is a name that hardly any rule asks for");
                        let said = said.at(format!("{at}.fields.{ours}")).suggest(format!("did you mean `{known}`?"));
                        self.problem(Gravity::Warning, said);
                    }
                    fields.push((ours.clone(), theirs));
                }
                Err(fault) => {
                    self.problem(Gravity::Refused, Fault { field: Some(format!("{at}.fields.{ours}")), ..fault });
                }
            }
        }
        if !fields.is_empty() {
            self.maps.push(FieldMap { when, source, fields });
        }
        Ok(())
    }

    fn field(&mut self, ours: &str, node: &Node) -> Result<Vec<String>, Fault> {
        self.fields += 1;
        if self.fields > FIELDS_MAX {
            return Err(Fault::new(node.line, format!("is one of more than {FIELDS_MAX} fields of the file")));
        }
        if ours.contains('|') {
            let name = ours.split('|').next().unwrap_or_default();
            let fault = Fault::new(node.line, "modifiers belong to rules");
            return Err(fault.suggest(format!("write the name only: `{name}`")));
        }
        let theirs = texts(node)?;
        if theirs.is_empty() {
            return Err(Fault::new(node.line, "names no field of events"));
        }
        for name in std::iter::once(ours).chain(theirs.iter().map(String::as_str)) {
            if name.trim().is_empty() || name.len() > NAME_MAX {
                return Err(Fault::new(node.line, format!("a field's name has 1 to {NAME_MAX} bytes")));
            }
        }
        if theirs.iter().any(|name| name == ours) {
            return Err(Fault::new(node.line, "is mapped to itself").suggest("leave it out: what has its name stays"));
        }
        Ok(theirs)
    }
}

const EXAMPLE: &str = "write, for example, mappings: [{when: {app: billing}, fields: {SourceIp: client.ip}}]";

fn unknown(key: &str, line: u64, known: &[&str]) -> Fault {
    let fault = Fault::new(line, format!("`{key}` is not one of {}", known.join(", ")));
    match closest(key, known) {
        Some(known) => fault.suggest(format!("did you mean `{known}`?")),
        None => fault,
    }
}

fn when(entries: &Entries<'_>) -> Result<Vec<(String, Vec<String>)>, Fault> {
    let conditions = match entries.get("when") {
        None => return Ok(Vec::new()),
        Some(Node { value: NodeValue::Map(conditions), .. }) if !conditions.is_empty() => conditions,
        Some(node) => {
            let message = format!("is a mapping of fields to texts, this is {}", node.value.kind());
            return Err(Fault::new(node.line, message).at("when").suggest("write, for example, when: {app: billing}"));
        }
    };
    let mut when = Vec::new();
    for (name, node) in conditions {
        let at = format!("when.{name}");
        if when.len() == CONDITIONS_MAX {
            return Err(Fault::new(node.line, format!("is one of more than {CONDITIONS_MAX}")).at(at));
        }
        let wanted = texts(node).map_err(|fault| fault.at(&*at))?;
        if wanted.is_empty() {
            let fault = Fault::new(node.line, "has no text").at(at);
            return Err(fault.suggest("`*` stands for any value"));
        }
        if let Some(text) = wanted.iter().find(|text| text.len() > 1 && text.contains('*')) {
            let fault = Fault::new(node.line, format!("`{text}` has a wildcard, and whole texts are compared here"));
            return Err(fault.at(at).suggest("list the texts, or write `*` for any value"));
        }
        when.push((name.clone(), wanted));
    }
    Ok(when)
}

fn source(entries: &Entries<'_>) -> Result<LogSource, Fault> {
    const PARTS: [&str; 3] = ["product", "category", "service"];
    let Some(node) = entries.get("logsource") else { return Ok(LogSource::default()) };
    let parts = Entries::of(node)
        .map_err(|_| Fault::new(node.line, "is a mapping with product, category or service").at("logsource"))?;
    if let Some((key, value)) = parts.all.iter().find(|(key, _)| !PARTS.contains(&key.as_str())) {
        return Err(unknown(key, value.line, &PARTS).at(format!("logsource.{key}")));
    }
    let part = |name: &str| {
        let text = parts.text(name).map_err(|fault| Fault { field: Some(format!("logsource.{name}")), ..fault })?;
        Ok(text.map(|text| text.trim().to_ascii_lowercase()).filter(|text| !text.is_empty()))
    };
    let source = LogSource { product: part("product")?, category: part("category")?, service: part("service")? };
    if source == LogSource::default() {
        return Err(Fault::new(node.line, "names no product, category or service").at("logsource"));
    }
    Ok(source)
}

/// A single text or a list of them.
fn texts(node: &Node) -> Result<Vec<String>, Fault> {
    let all = match &node.value {
        NodeValue::List(items) => items.as_slice(),
        NodeValue::Null | NodeValue::Text(_) | NodeValue::Map(_) => std::slice::from_ref(node),
    };
    if all.len() > TEXTS_MAX {
        return Err(Fault::new(node.line, format!("has more than {TEXTS_MAX} texts")));
    }
    let mut texts = Vec::with_capacity(all.len());
    for item in all {
        match &item.value {
            NodeValue::Text(text) => texts.push(text.clone()),
            other @ (NodeValue::Null | NodeValue::List(_) | NodeValue::Map(_)) => {
                return Err(Fault::new(
                    item.line,
                    format!("a text or a list of texts is expected, this is {}", other.kind()),
                ));
            }
        }
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_read_with_names_and_lists() {
        let text = "
mappings:
  - name: ours
    when: {app: [billing, 7], login: '*'}
    logsource: {product: Linux, service: sshd}
    fields:
      User: login
      SourceIp: [client.ip, peer]
  - fields: {Image: exe}
";
        let (maps, problems) = read("fields.yml", text);
        assert!(problems.is_empty(), "{problems:?}");
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let first = FieldMap {
            when: vec![("app".into(), names(&["billing", "7"])), ("login".into(), names(&["*"]))],
            source: LogSource { product: Some("linux".into()), category: None, service: Some("sshd".into()) },
            fields: vec![("User".into(), names(&["login"])), ("SourceIp".into(), names(&["client.ip", "peer"]))],
        };
        assert_eq!(maps[0], first);
        assert_eq!((maps.len(), maps[1].when.len(), &maps[1].fields[0].1), (2, 0, &names(&["exe"])));
    }

    #[test]
    fn what_cannot_be_used_is_said_with_its_line_and_stops_nothing_else() {
        let text = "\
mappings:
  - wen: {app: x}
    fields: {User: login}
  - logsource: {produkt: linux}
    fields: {User: login}
  - when: {app: 'bill*'}
    fields: {User: login}
  - fields:
      Image|endswith: exe
      User: User
      ParentImage: [parent, {a: b}]
      SourceIP: peer
      CommandLine: args
  - nonsense
  - logsource: {product: linux}
mapings: []
";
        let (maps, problems) = read("fields.yml", text);
        let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
        let expected = [
            "fields.yml:16: warning: `mapings` is not one of mappings; did you mean `mappings`?",
            "fields.yml:2: mappings[0]: `wen` is not one of name, when, logsource, fields; did you mean `when`?",
            "fields.yml:4: mappings[1].logsource.produkt: `produkt` is not one of product, category, service; did you \
             mean `product`?",
            "fields.yml:6: mappings[2].when.app: `bill*` has a wildcard, and whole texts are compared here; list the \
             texts, or write `*` for any value",
            "fields.yml:9: mappings[3].fields.Image|endswith: modifiers belong to rules; write the name only: `Image`",
            "fields.yml:10: mappings[3].fields.User: is mapped to itself; leave it out: what has its name stays",
            "fields.yml:11: mappings[3].fields.ParentImage: a text or a list of texts is expected, this is a mapping",
            "fields.yml:12: warning: mappings[3].fields.SourceIP: is a name that hardly any rule asks for; did you mean \
             `SourceIp`?",
        ];
        assert_eq!(said[..8], expected);
        assert!(said[8].starts_with("fields.yml:14: mappings[4]: is no mapping; write, for example"), "{said:?}");
        assert!(said[9].starts_with("fields.yml:15: mappings[5]: has no `fields`"), "{said:?}");
        assert_eq!(said.len(), 10, "{said:?}");
        let names: Vec<&str> = maps.iter().flat_map(|map| &map.fields).map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["SourceIP", "CommandLine"]);
    }

    #[test]
    fn files_that_are_something_else_are_refused() {
        for text in ["", "a", "[1]", "title: rule", "mappings: {a: b}", "mappings: [", "a: 1\na: 2"] {
            let (maps, problems) = read("x.yml", text);
            let refused = problems.iter().filter(|problem| problem.gravity == Gravity::Refused).count();
            assert_eq!((maps.len(), refused), (0, 1), "{text}: {problems:?}");
        }
        let many = format!("mappings: [{}]", "{fields: {User: login}}, ".repeat(FIELDS_MAX + 1));
        let (maps, problems) = read("x.yml", &many);
        assert_eq!((maps.len(), problems.len()), (FIELDS_MAX, 1));
    }
}
