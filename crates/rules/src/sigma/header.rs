//! What every Sigma document begins with: names, levels, tags, the log source.

use super::{Fault, Place, Schedule};
use crate::suggest;
use crate::yaml::{Node, NodeValue};
use model::{EventSource, Level};
use std::fmt;

/// The part that rules, correlations and filters share.
#[derive(Debug, Clone)]
pub struct Header {
    /// `id`, else `name`, else the title: what the rule is called where one name is needed.
    pub uid: String,
    pub id: Option<String>,
    /// What correlations may call it.
    pub name: Option<String>,
    pub title: String,
    pub description: String,
    /// `stable`, `test`, `experimental`, `deprecated`, `unsupported`; empty where not said.
    pub status: String,
    pub level: Level,
    pub author: String,
    pub date: String,
    pub modified: String,
    pub tags: Vec<String>,
    pub references: Vec<String>,
    pub false_positives: Vec<String>,
    /// When it is asked; `None` = of every event as it comes.
    pub schedule: Option<Schedule>,
    pub place: Place,
}

/// Which logs a rule is about; a part that is not said is any.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogSource {
    pub product: Option<String>,
    pub category: Option<String>,
    pub service: Option<String>,
}

impl fmt::Display for LogSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [("product", &self.product), ("category", &self.category), ("service", &self.service)];
        let mut said = parts.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
        if let Some((name, value)) = said.next() {
            write!(f, "{name} {value}")?;
        }
        said.try_for_each(|(name, value)| write!(f, ", {name} {value}"))
    }
}

impl LogSource {
    /// Whether nothing that is known about the event speaks against the rule.
    pub fn admits(&self, event: &EventSource<'_>) -> bool {
        let among = |wanted: &Option<String>, known: &Option<Vec<std::borrow::Cow<'_, str>>>| match (wanted, known) {
            (Some(wanted), Some(known)) => known.iter().any(|known| known.eq_ignore_ascii_case(wanted)),
            (None, _) | (_, None) => true,
        };
        let product = match (&self.product, &event.product) {
            (Some(wanted), Some(known)) => known.eq_ignore_ascii_case(wanted),
            (None, _) | (_, None) => true,
        };
        product && among(&self.category, &event.categories) && among(&self.service, &event.services)
    }

    /// Whether every part that `self` says is said the same by `other`: what a filter's log source
    /// has to do to a rule's.
    pub fn covers(&self, other: &Self) -> bool {
        let part = |wanted: &Option<String>, given: &Option<String>| match (wanted, given) {
            (None, _) => true,
            (Some(wanted), Some(given)) => wanted.eq_ignore_ascii_case(given),
            (Some(_), None) => false,
        };
        part(&self.product, &other.product)
            && part(&self.category, &other.category)
            && part(&self.service, &other.service)
    }
}

/// The entries of a document, each to be asked for by its key.
pub(crate) struct Entries<'n> {
    pub line: u64,
    pub all: &'n [(String, Node)],
}

impl<'n> Entries<'n> {
    pub fn of(node: &'n Node) -> Result<Self, Fault> {
        match &node.value {
            NodeValue::Map(all) => Ok(Self { line: node.line, all }),
            other => Err(Fault::new(node.line, format!("a Sigma document is a mapping, this is {}", other.kind()))),
        }
    }

    pub fn get(&self, key: &str) -> Option<&'n Node> {
        self.all.iter().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    /// A single value; `None` where absent or null.
    pub fn text(&self, key: &str) -> Result<Option<&'n str>, Fault> {
        match self.get(key).map(|node| (node.line, &node.value)) {
            None | Some((_, NodeValue::Null)) => Ok(None),
            Some((_, NodeValue::Text(text))) => Ok(Some(text)),
            Some((line, other @ (NodeValue::List(_) | NodeValue::Map(_)))) => {
                Err(Fault::new(line, format!("a single value is expected, this is {}", other.kind())).at(key))
            }
        }
    }

    /// A list of single values; a single value counts as a list of one.
    pub fn texts(&self, key: &str) -> Result<Vec<String>, Fault> {
        match self.get(key).map(|node| (node.line, &node.value)) {
            None | Some((_, NodeValue::Null)) => Ok(Vec::new()),
            Some((_, NodeValue::Text(text))) => Ok(vec![text.clone()]),
            Some((_, NodeValue::List(items))) => {
                let mut texts = Vec::with_capacity(items.len());
                for item in items {
                    match &item.value {
                        NodeValue::Text(text) => texts.push(text.clone()),
                        NodeValue::Null => {}
                        other @ (NodeValue::List(_) | NodeValue::Map(_)) => {
                            let message = format!("a list of single values is expected, this is {}", other.kind());
                            return Err(Fault::new(item.line, message).at(key));
                        }
                    }
                }
                Ok(texts)
            }
            Some((line, other @ NodeValue::Map(_))) => {
                Err(Fault::new(line, format!("a list of single values is expected, this is {}", other.kind())).at(key))
            }
        }
    }
}

impl Header {
    /// Reads it but for the schedule; what is of no consequence for matching and not as the specification wants it is
    /// said in `warnings`.
    pub(crate) fn read(entries: &Entries<'_>, place: Place, warnings: &mut Vec<Fault>) -> Result<Self, Fault> {
        let text = |key: &str| entries.text(key).map(|text| text.unwrap_or_default().trim().to_owned());
        let optional = |key: &str| text(key).map(|text| Some(text).filter(|text| !text.is_empty()));
        let title = text("title")?;
        if title.is_empty() {
            return Err(Fault::new(entries.line, "a title is required").at("title"));
        }
        let (id, name) = (optional("id")?, optional("name")?);
        let level = match entries.text("level")? {
            None => Level::default(),
            Some(word) => Level::parse(word).unwrap_or_else(|| {
                let words: Vec<&str> = Level::ALL.iter().map(|level| level.as_str()).collect();
                let line = entries.get("level").map_or(entries.line, |node| node.line);
                let mut fault = Fault::new(line, format!("`{word}` is no level; it counts as medium")).at("level");
                if let Some(closest) = suggest::closest(word, &words) {
                    fault = fault.suggest(format!("did you mean `{closest}`?"));
                }
                warnings.push(fault);
                Level::default()
            }),
        };
        // Lists that only people read: one that is not as it should be is no reason to do without a rule.
        let mut listed = |key: &str| {
            entries.texts(key).unwrap_or_else(|fault| {
                warnings.push(fault);
                Vec::new()
            })
        };
        let (tags, references) = (listed("tags"), listed("references"));
        let false_positives = listed("falsepositives");
        Ok(Self {
            uid: id.clone().or_else(|| name.clone()).unwrap_or_else(|| title.clone()),
            id,
            name,
            title,
            description: text("description").unwrap_or_default(),
            status: text("status").unwrap_or_default(),
            level,
            author: text("author").unwrap_or_default(),
            date: text("date").unwrap_or_default(),
            modified: text("modified").unwrap_or_default(),
            tags,
            references,
            false_positives,
            schedule: None,
            place,
        })
    }
}

impl LogSource {
    pub(crate) fn read(entries: &Entries<'_>) -> Result<Self, Fault> {
        let Some(node) = entries.get("logsource") else {
            return Err(Fault::new(entries.line, "a logsource is required")
                .at("logsource")
                .suggest("say at least one of product, category, service"));
        };
        let source = Entries::of(node).map_err(|_| {
            Fault::new(node.line, "a mapping of product, category, service is expected").at("logsource")
        })?;
        let part = |key: &str| -> Result<Option<String>, Fault> {
            let text = source.text(key).map_err(|fault| Fault { field: Some(format!("logsource.{key}")), ..fault })?;
            Ok(text.map(|text| text.trim().to_ascii_lowercase()).filter(|text| !text.is_empty()))
        };
        let read = Self { product: part("product")?, category: part("category")?, service: part("service")? };
        if read == Self::default() {
            return Err(Fault::new(node.line, "one of product, category, service is required").at("logsource"));
        }
        Ok(read)
    }
}
