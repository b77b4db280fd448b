//! Hunting: detection rules over events that lie in files, without a server, and over those that a server
//! keeps ([`history`]).
//!
//! In files, events are numbered from 0 in the order of the files; a line that is no event has a number too,
//! so that numbers are those of the (non-blank) lines. The order of what is found is the order of
//! the events, whatever the number of threads.

pub mod clickhouse;
pub mod history;
pub mod input;
pub mod sql;
pub mod stream;

use fields::Aliases;
use rules::sigma::{Collection, Header};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Where the events are.
#[derive(Debug, Clone, Copy)]
pub struct Source<'s> {
    pub files: &'s [PathBuf],
    /// What they call the fields of the taxonomy.
    pub aliases: &'s Aliases,
}

/// One match.
#[derive(Debug, Serialize)]
pub struct Found<'a> {
    /// `id` of the rule, else its name or title.
    pub rule_id: &'a str,
    /// Number of the event; of a correlation: the newest of its events that is known.
    pub event: u64,
    pub title: &'a str,
    pub level: &'static str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub tags: &'a [String],
    /// Where there are several files: the one of the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<&'a str>,
    /// Fields that the rule names for its readers, as far as the event has them; of a correlation: its
    /// group.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<&'a str, String>,
    /// Of a correlation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation: Option<Fired>,
}

/// What a correlation says of its firing.
#[derive(Debug, Serialize)]
pub struct Fired {
    /// When it began to hold.
    pub at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<f64>,
    /// Numbers of its newest events, where it knows them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<u64>,
}

impl<'a> Found<'a> {
    pub fn new(header: &'a Header, event: u64) -> Self {
        Self {
            rule_id: &header.uid,
            event,
            title: &header.title,
            level: header.level.as_str(),
            tags: &header.tags,
            file: None,
            fields: BTreeMap::new(),
            correlation: None,
        }
    }
}

/// A rule that was left out, and why.
#[derive(Debug, Serialize)]
pub struct Refused {
    pub file: String,
    pub line: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule_id: Option<String>,
    pub reason: String,
}

/// The last line that a hunt says.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Correlations are counted, too.
    pub rules_loaded: usize,
    pub rules_refused: usize,
    pub refused: Vec<Refused>,
    pub warnings: usize,
    pub load_ms: f64,
    pub via: &'static str,
    pub threads: usize,
    pub events: u64,
    /// Lines that are no JSON object, or beyond a bound; they matched nothing.
    pub events_invalid: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub invalid: Vec<String>,
    pub bytes: u64,
    pub seconds: f64,
    pub events_per_second: f64,
    pub matches: u64,
    /// By rule: how often it matched; rules that never did are left out.
    pub matches_by_rule: BTreeMap<String, u64>,
}

/// Reasons of invalid lines that a summary shows.
const INVALID_SHOWN_MAX: usize = 10;

impl Summary {
    /// Counts a match.
    fn count(&mut self, header: &Header) {
        self.matches += 1;
        *self.matches_by_rule.entry(header.uid.clone()).or_default() += 1;
    }

    /// Counts a line that is no event.
    fn invalid(&mut self, file: &str, line: u64, why: &impl std::fmt::Display) {
        self.events_invalid += 1;
        if self.invalid.len() < INVALID_SHOWN_MAX {
            self.invalid.push(format!("{file}:{line}: {why}"));
        }
    }

    /// A rule that was loaded and cannot be asked this way.
    fn without_sql(&mut self, header: &Header, why: &impl std::fmt::Display) {
        self.rules_loaded -= 1;
        self.rules_refused += 1;
        self.refused.push(Refused {
            file: header.place.file.to_string(),
            line: header.place.line,
            rule_id: Some(header.uid.clone()),
            reason: why.to_string(),
        });
    }
}

/// Why rules were left out.
pub fn refused(collection: &Collection) -> Vec<Refused> {
    let refused = collection.problems.iter().filter(|problem| problem.gravity == rules::sigma::Gravity::Refused);
    refused
        .map(|problem| Refused {
            file: problem.place.file.to_string(),
            line: problem.place.line,
            rule_id: problem.rule.clone(),
            reason: [problem.field.as_deref(), Some(&*problem.message), problem.suggestion.as_deref()]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(": "),
        })
        .collect()
}
