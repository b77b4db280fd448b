//! Rules tried on events before they are kept.

use super::super::Api;
use super::super::auth::Operator;
use super::super::error::ApiResult;
use super::super::params::{Fields, Object};
use super::{Known, problems_shown, working};
use crate::detection_rules;
use crate::rule_documents::normal_name;
use axum::Json;
use axum::extract::State;
use fields::Aliases;
use pipeline::detections::{Origin, draft_document};
use rules::sigma::examples::{self, Sample};
use rules::trial::{Trial, Tried};
use serde_json::{Map, Value, json};
use std::collections::HashSet;
use std::sync::Arc;
use storage::catalog::detection_rules::{OrgDetectionRules, RuleDocument};

/// Most events of one request.
const EVENTS_MAX: usize = 1_000;
/// Matches and examples that an answer lists.
const LISTED_MAX: usize = 1_000;
/// The name of a text that is given without one.
const UNNAMED: &str = "draft.yml";

/// What is to be tried.
struct Draft {
    name: String,
    text: Option<String>,
    /// By time, with their numbers as given.
    samples: Vec<(usize, Sample)>,
    all: bool,
}

/// Which rules match the events: those of a text that is laid over what the organisation has, or with
/// `all`, or without a text, every one that it has, whether it is on or not.
pub async fn test(_: Operator, State(api): State<Arc<Api>>, body: Object) -> ApiResult {
    let mut fields = Fields::new(&body.0);
    let text = fields.text("text");
    let name = fields.text("name").unwrap_or_else(|| UNNAMED.to_owned());
    let all = fields.truth("all").unwrap_or(false) || text.is_none();
    let name = normal_name(&name).unwrap_or_else(|why| {
        fields.problem("name", why);
        String::new()
    });
    let samples = samples(&mut fields);
    if text.is_none() && samples.is_empty() {
        fields.problem("text", "there is neither a text nor an event to try");
    }
    fields.only(&["text", "name", "events", "all"]);
    fields.done("Invalid request")?;
    let draft = Draft { name, text, samples, all };
    let _laying = api.laying.lock().await;
    let known = api.detection().await?;
    let aliases = api.deps.detections.aliases();
    Ok(Json(working(move || tried(&known, draft, aliases)).await?))
}

/// Events as objects, or as lines that begin with their program.
fn samples(fields: &mut Fields<'_>) -> Vec<(usize, Sample)> {
    let Some(given) = fields.given("events") else { return Vec::new() };
    let Some(Value::Array(events)) = given else {
        fields.problem("events", "it must be a list of events");
        return Vec::new();
    };
    if events.len() > EVENTS_MAX {
        fields.problem("events", format!("at most {EVENTS_MAX} at once"));
        return Vec::new();
    }
    let mut samples = Vec::new();
    for (number, event) in events.iter().enumerate() {
        let written = match event {
            Value::String(line) => line.clone(),
            other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                other.to_string()
            }
        };
        match detection_rules::sample("any-host", &written) {
            Ok(sample) => samples.push((number, sample)),
            Err(why) => fields.problem("events", format!("event {number}: {why}")),
        }
    }
    samples.sort_by_key(|(_, sample)| sample.at_micros);
    samples
}

fn tried(known: &Known, draft: Draft, aliases: Arc<Aliases>) -> Value {
    let Draft { name, text, samples, all } = draft;
    let before = &known.own.documents;
    let mut documents: Vec<RuleDocument> = before.clone();
    let mut tested = Vec::new();
    if let Some(text) = &text {
        documents.retain(|document| document.name != name);
        documents.push(draft_document(&name, text));
        documents.sort_by(|a, b| a.name.cmp(&b.name));
        tested = examples::read(&name, text).0;
    }
    let problems = if text.is_some() { known.library.check(before, &documents) } else { Vec::new() };
    let own = OrgDetectionRules { documents, ..known.own.clone() };
    let trial = detection_rules::trial(known.library.collection(&own), aliases);
    let of_draft: HashSet<&str> = headers(&trial)
        .filter(|header| text.is_some() && known.library.origin(&header.place) == Origin::Document(name.clone()))
        .map(|header| &*header.uid)
        .collect();
    let (numbers, samples): (Vec<usize>, Vec<Sample>) = samples.into_iter().unzip();
    let seen = trial.seen(&samples);
    let wanted = seen.iter().filter(|seen| all || of_draft.contains(&*seen.rule.header().uid));
    let matches: Vec<Value> = wanted
        .take(LISTED_MAX)
        .map(|seen| {
            let header = seen.rule.header();
            let (kind, names) = match seen.rule {
                Tried::Rule(_) => ("rule", &[][..]),
                Tried::Correlation(correlation) => ("correlation", &correlation.group_by[..]),
            };
            let group: Map<String, Value> =
                names.iter().cloned().zip(seen.key.iter().map(|text| text.to_string().into())).collect();
            json!({
                "event": numbers.get(seen.sample),
                "kind": kind,
                "uid": header.uid,
                "title": header.title,
                "level": header.level.as_str(),
                "group": group,
            })
        })
        .collect();
    let rules: Vec<Value> = headers(&trial)
        .filter(|header| of_draft.contains(&*header.uid))
        .take(LISTED_MAX)
        .map(|header| json!({ "uid": header.uid, "title": header.title, "level": header.level.as_str() }))
        .collect();
    json!({
        "rules": rules,
        "problems": problems_shown(&problems),
        "matches": matches,
        "examples": of_examples(&trial, &tested),
    })
}

fn headers(trial: &Trial) -> impl Iterator<Item = &rules::sigma::Header> {
    let all = trial.rules();
    all.rules.iter().map(|rule| &rule.header).chain(all.correlations.iter().map(|one| &one.header))
}

fn of_examples(trial: &Trial, tested: &[examples::Examples]) -> Vec<Value> {
    let verdicts = tested.iter().filter_map(|examples| Some((trial.find(&examples.uid)?, examples)));
    let verdicts = verdicts.flat_map(|(rule, examples)| {
        let verdicts = trial.run(examples).unwrap_or_default();
        verdicts.into_iter().map(move |verdict| (rule, examples, verdict))
    });
    let shown = verdicts.take(LISTED_MAX).map(|(rule, examples, verdict)| {
        let why = if verdict.passed { Vec::new() } else { trial.why(rule, &verdict.example.samples) };
        json!({
            "uid": examples.uid,
            "line": verdict.example.line,
            "must_match": verdict.example.must_match,
            "passed": verdict.passed,
            "why": why,
        })
    });
    shown.collect()
}
