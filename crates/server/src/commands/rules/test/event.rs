//! `muttd rules test --event`: which rules match events, and who would be told.

use super::{Alerts, Book, Told, plain};
use crate::config::Config;
use crate::detection_rules;
use crate::hunt::input;
use crate::routing::receivers;
use anyhow::{Result, anyhow, bail};
use bytes::Bytes;
use model::{Event, Rule};
use pipeline::codec;
use rules::sigma::examples::Sample;
use rules::trial::Tried;
use rules::{RuleSet, Subject};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Most events that are tried at once.
const EVENTS_MAX: usize = 10_000;

/// A rule that matched, ready to be shown.
struct Match {
    event: usize,
    kind: &'static str,
    rule: String,
    uid: Option<String>,
    level: Option<&'static str>,
    /// Of a correlation: what it grouped by.
    group: Vec<(String, String)>,
    told: Told,
}

pub(super) fn ask(book: &Book, config: &Config, file: &Path, json: bool) -> Result<(String, ExitCode)> {
    let samples = read(file)?;
    let mut text = String::new();
    for finding in &book.refused {
        let said = if json { finding.as_json() } else { finding.as_text() };
        let _ = writeln!(text, "{said}");
    }
    let events = (0..).zip(&samples).map(|(number, sample)| {
        let event = codec::decode_event(&Bytes::from(sample.object.clone()));
        event.map_err(|why| anyhow!("event {number}: {why}"))
    });
    let events = events.collect::<Result<Vec<Event>>>()?;
    let mut matches = by_rows(book, config, &events);
    matches.extend(by_detection(book, config, &samples, &events));
    matches.sort_by_key(|one| one.event);
    if json {
        matches.iter().for_each(|one| _ = writeln!(text, "{}", as_json(one)));
        return Ok((text, ExitCode::SUCCESS));
    }
    for (number, sample) in samples.iter().enumerate() {
        let _ = writeln!(text, "event {number}: {}", plain(&sample.written, 160));
        let of_event: Vec<&Match> = matches.iter().filter(|one| one.event == number).collect();
        if of_event.is_empty() {
            text.push_str("  no rule matches\n");
        }
        of_event.into_iter().for_each(|one| _ = writeln!(text, "{}", as_text(one)));
    }
    Ok((text, ExitCode::SUCCESS))
}

/// The events of a file, by their own times.
fn read(file: &Path) -> Result<Vec<Sample>> {
    let files = input::files(&[PathBuf::from(file)])?;
    let mut samples = Vec::new();
    let mut wrong = None;
    input::read(&files, |block| {
        for (line, text) in block.events() {
            let text = std::str::from_utf8(text).map_err(|error| format!("it is not UTF-8: {error}"));
            let read = text.and_then(|text| detection_rules::sample("any-host", text));
            let read = read.map_err(|why| anyhow!("{}:{line}: {why}", block.file));
            match read {
                Ok(_) if samples.len() == EVENTS_MAX => {
                    wrong =
                        Some(anyhow!("more than {EVENTS_MAX} events; `muttd rules run` hunts in as many as there are"));
                }
                Ok(sample) => samples.push(sample),
                Err(error) => wrong = Some(error),
            }
            if wrong.is_some() {
                return false;
            }
        }
        true
    })?;
    if let Some(error) = wrong {
        return Err(error);
    }
    if samples.is_empty() {
        bail!("there is no event in {}", file.display());
    }
    samples.sort_by_key(|sample| sample.at_micros);
    Ok(samples)
}

/// The first row that takes each event.
fn by_rows(book: &Book, config: &Config, events: &[Event]) -> Vec<Match> {
    let rows = book.rows.iter().zip(0..).map(|(rule, id)| Rule { id, draft: rule.draft.clone() });
    let (set, _) = RuleSet::compile(rows.collect());
    let mut matches = Vec::new();
    for (number, event) in events.iter().enumerate() {
        let Some(row) = set.first_match(&Subject::from(event)) else { continue };
        let Some(rule) = usize::try_from(row.id).ok().and_then(|place| book.rows.get(place)) else { continue };
        let told = receivers(&config.router, row, &rule.draft.prod_handling, &event.host, event.severity);
        matches.push(Match {
            event: number,
            kind: "row",
            rule: rule.name.clone(),
            uid: None,
            level: None,
            group: Vec::new(),
            told: Told { told, why_not: None, team: rule.draft.team_assignment.clone() },
        });
    }
    matches
}

fn by_detection(book: &Book, config: &Config, samples: &[Sample], events: &[Event]) -> Vec<Match> {
    let alerts = Alerts::of(&book.trial);
    let seen = book.trial.seen(samples).into_iter().map(|seen| {
        let header = seen.rule.header();
        let (kind, names) = match seen.rule {
            Tried::Rule(_) => ("rule", &[][..]),
            Tried::Correlation(correlation) => ("correlation", &correlation.group_by[..]),
        };
        Match {
            event: seen.sample,
            kind,
            rule: header.title.clone(),
            uid: Some(header.uid.clone()),
            level: Some(header.level.as_str()),
            group: names.iter().cloned().zip(seen.key.iter().map(|text| text.to_string())).collect(),
            told: alerts.told(config, header, &events[seen.sample].host),
        }
    });
    seen.collect()
}

fn as_text(one: &Match) -> String {
    let of = match (&one.uid, one.level) {
        (Some(uid), Some(level)) => format!(" ({uid}, {level})"),
        (Some(_) | None, _) => String::new(),
    };
    let group: String = one.group.iter().map(|(name, value)| format!(", {name} {}", plain(value, 80))).collect();
    format!("  {:<11} {:?}{of}{group} for {}: {}", one.kind, one.rule, one.told.team, one.told.as_text())
}

fn as_json(one: &Match) -> Value {
    let group: serde_json::Map<String, Value> =
        one.group.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
    json!({
        "event": one.event, "kind": one.kind, "rule": one.rule, "uid": one.uid, "level": one.level,
        "group": group, "team": one.told.team, "told": one.told.told, "why_not": one.told.why_not,
    })
}
