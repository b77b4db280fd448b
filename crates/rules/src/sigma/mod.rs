//! Sigma rules: YAML → metadata and a [`Predicate`] (Sigma specification 2.1).
//!
//! What always holds: a document that cannot be used is reported with file, line, reason and, where
//! there is one, a suggestion, and never stops its neighbours; what the specification has and this
//! reader does not is refused, never ignored; keys that the specification does not know are ignored,
//! as it demands, and reported as warnings if they look like slips of known ones.
//!
//! | module | what |
//! |---|---|
//! | [`header`](mod@header) | title, id, level, tags, log source …: what rules, correlations and filters share |
//! | `detection` | search identifiers → predicates |
//! | `modifier` | `field|a|b: value` → operators |
//! | `condition` | `1 of selection_* and not filter` → one predicate |
//! | [`correlation`] | documents with `correlation:` |
//! | `schedule` | when a rule is asked, where it is not asked at once (a key of ours) |
//! | [`filter`] | documents with `filter:`, laid over the rules they name |
//! | [`examples`] | events that a rule must and must not match |
//! | [`collection`] | many texts → rules, correlations, problems |

pub mod collection;
mod condition;
pub mod correlation;
mod detection;
pub mod examples;
pub mod filter;
pub mod header;
mod modifier;
mod schedule;

pub use collection::{Collection, Options, Reader};
pub use correlation::Correlation;
pub use header::{Header, LogSource};
pub use schedule::Schedule;

use crate::Predicate;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A rule that looks at one event at a time.
#[derive(Debug, Clone)]
pub struct SigmaRule {
    pub header: Header,
    /// Which logs it is about.
    pub source: LogSource,
    /// When it matches.
    pub predicate: Predicate,
    /// Fields that a reader of its alerts wants to see (`fields`).
    pub fields: Vec<String>,
    /// Fields whose values tell its incidents apart (`group-by`, a key of ours); none = the host does.
    pub group_by: Vec<String>,
}

/// Values of the placeholders (`%name%`) that `expand` looks up: name → values. Names without the
/// percent signs, any case.
pub type Placeholders = BTreeMap<String, Vec<String>>;

/// Where a document is written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// As the caller names it.
    pub file: Arc<str>,
    /// From 1; where the document, or what is to blame in it, starts.
    pub line: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Whether a problem keeps its document from being used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gravity {
    /// The document is left out.
    Refused,
    /// It is used, and probably not as its author meant.
    Warning,
}

/// Something about a document that its author should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub gravity: Gravity,
    pub place: Place,
    /// `id` of the rule, else its `name`, where it was read that far.
    pub rule: Option<String>,
    pub title: Option<String>,
    /// The path in the document: `detection.selection.Image|endswith`.
    pub field: Option<String>,
    /// A sentence.
    pub message: String,
    /// What to write instead, where something comes to mind.
    pub suggestion: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if self.gravity == Gravity::Warning {
            f.write_str("warning: ")?;
        }
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some(suggestion) = &self.suggestion {
            write!(f, "; {suggestion}")?;
        }
        if let Some(title) = &self.title {
            write!(f, " (rule {title:?})")?;
        }
        Ok(())
    }
}

/// What is wrong at one place of a document; the reader of the document adds the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub line: u64,
    pub field: Option<String>,
    pub message: String,
    pub suggestion: Option<String>,
}

impl Fault {
    pub(crate) fn new(line: u64, message: impl Into<String>) -> Self {
        Self { line, field: None, message: message.into(), suggestion: None }
    }
    pub(crate) fn at(mut self, field: impl Into<String>) -> Self {
        self.field.get_or_insert(field.into());
        self
    }
    pub(crate) fn suggest(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }
}
