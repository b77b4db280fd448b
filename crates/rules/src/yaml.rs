//! YAML as a tree that remembers lines, so that one wrong entry is reported and the rest is read.
//!
//! Scalars keep the text as written (`1.10` stays `1.10`, an OID is no float). Files are an
//! author's or an attacker's: size, depth and node count are bounded, aliases are refused, and a
//! repeated key is an error.

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use std::fmt;

/// Largest file, in bytes.
pub const YAML_BYTES_MAX: usize = 1 << 20;
/// Largest text of several documents, in bytes.
const DOCUMENTS_BYTES_MAX: usize = 16 << 20;
const NODES_MAX: usize = 100_000;
const DEPTH_MAX: usize = 32;

/// Why a text is not a tree.
#[derive(Debug, thiserror::Error)]
pub enum YamlError {
    /// Larger than [`YAML_BYTES_MAX`].
    #[error("the file has {bytes} bytes; at most {max} are read")]
    TooLarge { bytes: usize, max: usize },
    /// Not YAML, or beyond a limit.
    #[error("{problem}")]
    Yaml { line: Option<u64>, problem: String, source: Box<serde_saphyr::Error> },
}

impl YamlError {
    /// The same in a text in which this one begins behind so many lines.
    fn shifted(self, lines: u64) -> Self {
        match self {
            Self::TooLarge { .. } => self,
            Self::Yaml { line, problem, source } => Self::Yaml { line: line.map(|line| line + lines), problem, source },
        }
    }

    /// The line, where one is to blame.
    pub fn line(&self) -> Option<u64> {
        match self {
            Self::TooLarge { .. } => None,
            Self::Yaml { line, .. } => *line,
        }
    }
}

/// A value and the line it starts in.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) line: u64,
    pub(crate) value: NodeValue,
}

impl Node {
    fn shift(&mut self, lines: u64) {
        self.line += lines;
        match &mut self.value {
            NodeValue::Null | NodeValue::Text(_) => {}
            NodeValue::List(items) => items.iter_mut().for_each(|item| item.shift(lines)),
            NodeValue::Map(entries) => entries.iter_mut().for_each(|(_, value)| value.shift(lines)),
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) enum NodeValue {
    Null,
    /// Quoted or not: the text.
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl NodeValue {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Text(_) => "a single value",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

pub(crate) fn read(text: &str) -> Result<Node, YamlError> {
    if text.len() > YAML_BYTES_MAX {
        return Err(YamlError::TooLarge { bytes: text.len(), max: YAML_BYTES_MAX });
    }
    if text.trim().is_empty() {
        return Ok(Node { line: 1, value: NodeValue::Null });
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_reader_input_bytes: Some(YAML_BYTES_MAX),
            max_nodes: NODES_MAX,
            max_events: NODES_MAX * 4,
            max_depth: DEPTH_MAX,
            flow_nesting_limit: DEPTH_MAX,
            max_aliases: 0,
            max_anchors: 64,
            max_documents: 1,
        },
        with_snippet: false,
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::Error,
    };
    let raw: Spanned<Raw> = serde_saphyr::from_str_with_options(text, options).map_err(|source| YamlError::Yaml {
        line: source.location().map(|location| location.line()),
        problem: source.without_snippet().to_string(),
        source: Box::new(source),
    })?;
    Ok(node(raw, text))
}

/// The tree as the parser gives it.
enum Raw {
    Null,
    /// A string, unquoted and unescaped by the parser.
    Text(String),
    /// A number or truth value: its text is in the source.
    Plain(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(String, Spanned<Raw>)>),
}

/// The documents of a text that holds several, separated by `---`, each with the lines of the whole
/// text; up to the first that cannot be read.
pub(crate) fn documents(text: &str) -> (Vec<Node>, Option<YamlError>) {
    let mut nodes = Vec::new();
    let bytes = text.len();
    if bytes > DOCUMENTS_BYTES_MAX {
        return (nodes, Some(YamlError::TooLarge { bytes, max: DOCUMENTS_BYTES_MAX }));
    }
    for (line, piece) in pieces(text) {
        match read(piece) {
            Ok(Node { value: NodeValue::Null, .. }) => {}
            Ok(mut node) => {
                node.shift(line);
                nodes.push(node);
            }
            Err(error) => return (nodes, Some(error.shifted(line))),
        }
    }
    (nodes, None)
}

/// The documents of a text, as written, each with how many lines are before it.
pub fn pieces(text: &str) -> Vec<(u64, &str)> {
    let mut start = (0, 0);
    let mut at = 0;
    let mut pieces = Vec::new();
    for (line, written) in text.split_inclusive('\n').enumerate() {
        let line = line as u64;
        let marks = written.trim_end();
        if marks == "---" || marks.starts_with("--- ") || marks == "..." {
            pieces.push((start.1, &text[start.0..at]));
            // The mark stays out, what follows it on its line does not.
            let mark = written.len().min(3);
            start = (at + mark, line);
        }
        at += written.len();
    }
    pieces.push((start.1, &text[start.0..]));
    pieces
}

fn node(raw: Spanned<Raw>, source: &str) -> Node {
    let value = match raw.value {
        Raw::Null => NodeValue::Null,
        Raw::Text(text) => NodeValue::Text(text),
        Raw::Plain(text) => {
            let span = raw.defined.span();
            let written = span.byte_offset().zip(span.byte_len()).and_then(|(start, length)| {
                let start = usize::try_from(start).ok()?;
                source.get(start..start.checked_add(usize::try_from(length).ok()?)?)
            });
            let written = written.map(str::trim).filter(|text| !text.is_empty() && !text.contains('\n'));
            NodeValue::Text(written.map_or(text, str::to_owned))
        }
        Raw::List(items) => NodeValue::List(items.into_iter().map(|item| node(item, source)).collect()),
        Raw::Map(entries) => {
            NodeValue::Map(entries.into_iter().map(|(key, value)| (key, node(value, source))).collect())
        }
    };
    Node { line: raw.referenced.line(), value }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list or a mapping")
    }
    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }
    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }
    fn visit_string<E: de::Error>(self, text: String) -> Result<Raw, E> {
        Ok(Raw::Text(text))
    }
    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }
    fn visit_i128<E>(self, value: i128) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }
    fn visit_u128<E>(self, value: u128) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(node: &Node) -> String {
        match &node.value {
            NodeValue::Null => format!("{}:null", node.line),
            NodeValue::Text(text) => format!("{}:{text}", node.line),
            NodeValue::List(items) => format!("[{}]", items.iter().map(flat).collect::<Vec<_>>().join(", ")),
            NodeValue::Map(entries) => {
                let entries = entries.iter().map(|(key, value)| format!("{key}={}", flat(value)));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
            }
        }
    }

    #[test]
    fn scalars_keep_their_text_and_line() {
        for (text, expected) in [
            ("a: 1.10\nb: 0755\nc: 1_0", "{a=1:1.10, b=2:0755, c=3:1_0}"),
            ("é: 1.10\nb: true\nc: 'yes'\nd: ~\ne:", "{é=1:1.10, b=2:true, c=3:yes, d=4:null, e=5:null}"),
            ("- 1.3.6.1\n- {x: 1e3, y: \"1e3\"}", "[1:1.3.6.1, {x=2:1e3, y=2:1e3}]"),
            ("{\"rules\": [1, \"a\\tb\", null, false]}", "{rules=[1:1, 1:a\tb, 1:null, 1:false]}"),
            ("a: |\n  two\n  lines\nb: 2", "{a=2:two\nlines\n, b=4:2}"),
            ("1: x\ntrue: y", "{1=1:x, true=2:y}"),
            ("# nothing\n", "2:null"),
            ("", "1:null"),
        ] {
            assert_eq!(flat(&read(text).expect(text)), expected, "{text}");
        }
    }

    #[test]
    fn hostile_files_are_refused_quickly() {
        let deep = "[".repeat(100_000);
        let bomb = "a: &a [1,1]\nb: &b [*a,*a]\nc: [*b,*b]";
        let large = "x".repeat(YAML_BYTES_MAX + 1);
        let wide = format!("[{}]", "1,".repeat(200_000));
        for text in [&deep, bomb, &large, &wide, "a: 1\na: 2", "a: [", "---\na: 1\n---\nb: 2", "\t- x: {", "{[a]: b}"] {
            assert!(read(text).is_err(), "{:.40}", text);
        }
    }
}
