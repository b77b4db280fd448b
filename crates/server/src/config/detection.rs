//! Settings of detection rules.

use super::check::Check;
use super::raw;
use model::Level;
use pipeline::detections::{Limits, Policy};
use rules::sigma::Placeholders;
use std::path::PathBuf;
use std::time::Duration;

/// How detection rules are worked.
#[derive(Debug, Clone, Default)]
pub struct DetectionSettings {
    /// Whether the rules that ship are in force, as far as they are on by default.
    pub shipped: bool,
    /// Files and folders of Sigma rules.
    pub rule_paths: Vec<PathBuf>,
    /// Files and folders of mappings of fields.
    pub field_paths: Vec<PathBuf>,
    /// Matches are counted and nobody is told.
    pub dry_run: bool,
    pub policy: Policy,
    pub limits: Limits,
    pub placeholders: Placeholders,
}

pub(super) fn detection(check: &mut Check<'_>, raw: &raw::Detection) -> DetectionSettings {
    let mut level = |path: &str, text: &str| match Level::parse(text) {
        Some(level) => level,
        None => {
            let words = Level::ALL.map(Level::as_str).join(", ");
            check.problem(path, format!("is `{text}`, expected one of {words}"));
            Level::default()
        }
    };
    let page_from = level("detection.page_from", &raw.page_from);
    let ticket_from = level("detection.ticket_from", &raw.ticket_from);
    if ticket_from > page_from {
        check.problem("detection.ticket_from", "is over detection.page_from: what pages makes a ticket, too");
    }
    if raw.team.trim().is_empty() || raw.team.chars().count() > 100 {
        check.problem("detection.team", "has to have 1 to 100 characters");
    }
    let mut placeholders = Placeholders::new();
    for (name, values) in &raw.placeholders {
        let texts = |values: &Vec<toml::Value>| values.iter().map(text).collect::<Option<Vec<String>>>();
        match values {
            toml::Value::Array(values) if texts(values).is_some() => {
                placeholders.insert(name.clone(), texts(values).unwrap_or_default());
            }
            other => match text(other) {
                Some(text) => _ = placeholders.insert(name.clone(), vec![text]),
                None => {
                    check.problem(format!("detection.placeholders.{name}"), "is neither a text nor a list of texts")
                }
            },
        }
    }
    DetectionSettings {
        shipped: raw.shipped,
        rule_paths: raw.rules.iter().map(PathBuf::from).collect(),
        field_paths: raw.fields.iter().map(PathBuf::from).collect(),
        dry_run: raw.dry_run,
        policy: Policy { team: raw.team.trim().to_owned(), page_from, ticket_from },
        limits: Limits {
            matches_per_minute_max: check.range(
                "detection.matches_per_minute_max",
                raw.matches_per_minute_max,
                1,
                10_000_000,
            ),
            answer_max: Duration::from_micros(check.range("detection.answer_max_us", raw.answer_max_us, 1, 1_000_000)),
            pause: check.millis("detection.pause_ms", raw.pause_ms, 1, 86_400_000),
        },
        placeholders,
    }
}

fn text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(_)
        | toml::Value::Boolean(_)
        | toml::Value::Datetime(_)
        | toml::Value::Array(_)
        | toml::Value::Table(_) => None,
    }
}
