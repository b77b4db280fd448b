//! Many documents at once: an archive or an object of texts in, an archive out.
//!
//! What is given is laid over what the organisation has and read as a whole, so that rules that need
//! each other may come in any order, and a rule that would break another one is seen. All or nothing;
//! with `partial`, the documents that cannot be used stay out and the rest is taken.

use super::super::Api;
use super::super::auth::{Operator, Viewer};
use super::super::error::{ApiError, ApiResult};
use super::super::params::Params;
use super::documents::CHANGED;
use super::{Known, LargeRaw, Raw, problems_shown, refused, working};
use crate::rule_documents::{self, Found, Unused};
use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use model::ErrorKind;
use pipeline::detections::{Inventory, ListedRule, OrgProblem, draft_document};
use rules::sigma::Gravity;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use storage::catalog::detection_rules::{DocumentChange, OrgDetectionRules, RuleDocument};

/// How often what cannot be used is taken out, until the rest can.
const ROUNDS_MAX: usize = 6;
/// Changes, rules and names that a report lists.
const LISTED_MAX: usize = 1_000;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
struct Wish {
    dry_run: bool,
    partial: bool,
    remove_missing: bool,
}

/// What an import comes to.
struct Plan {
    /// By name: the text that is new or other; `None` goes.
    changes: BTreeMap<String, Option<String>>,
    new: usize,
    changed: usize,
    unchanged: usize,
    removed: usize,
    /// Names of documents that stay out.
    refused: BTreeSet<String>,
    /// Refused files that never were documents.
    unusable: Vec<Unused>,
    skipped: Vec<Unused>,
    problems: Vec<OrgProblem>,
    /// Whether something is refused that leaving documents out does not mend.
    hopeless: bool,
    rules: RuleChanges,
}

impl Plan {
    /// Whether it can be done as it is wished.
    fn is_possible(&self, wish: Wish) -> bool {
        !self.hopeless && (wish.partial || (self.refused.is_empty() && self.unusable.is_empty()))
    }
}

/// What becomes of rules, by identifier.
#[derive(Default)]
struct RuleChanges {
    new: Vec<(String, String)>,
    changed: Vec<(String, String)>,
    gone: Vec<(String, String)>,
}

pub async fn import(caller: Operator, State(api): State<Arc<Api>>, params: Params, body: LargeRaw) -> ApiResult {
    let truth = |name: &str| params.read(name, "true or false", |text| text.parse::<bool>().ok());
    let wish = Wish {
        dry_run: truth("dry_run")?.unwrap_or(false),
        partial: truth("partial")?.unwrap_or(false),
        remove_missing: truth("remove_missing")?.unwrap_or(false),
    };
    let actor = api.actor(&caller.0, params.reason()?);
    let found = working(move || read(&body.0)).await?.map_err(ApiError::invalid)?;
    if found.documents.is_empty() && found.refused.is_empty() {
        return Err(
            ApiError::invalid("there are no documents (.yml, .yaml) in it").with("skipped", unused(&found.skipped))
        );
    }
    let _laying = api.laying.lock().await;
    let known = api.detection().await?;
    let of = Arc::clone(&known);
    let plan = working(move || plan(&of, found, wish)).await?;
    if !wish.dry_run && !plan.is_possible(wish) {
        let bad = plan.refused.len() + plan.unusable.len();
        let message = match bad {
            0 => "nothing was imported: what is there already would not work any more".to_owned(),
            1 => "nothing was imported: 1 document cannot be used".to_owned(),
            _ => format!("nothing was imported: {bad} documents cannot be used"),
        };
        let report = report(&plan, wish, &BTreeMap::new(), false);
        return Err(report.into_iter().fold(ApiError::invalid(message), |error, (key, value)| error.with(&key, value)));
    }
    let mut versions = BTreeMap::new();
    if !wish.dry_run && !plan.changes.is_empty() {
        let version = |name: &str| known.document(name).map_or(0, |document| document.version);
        let changes: Vec<DocumentChange> = plan
            .changes
            .iter()
            .map(|(name, text)| DocumentChange {
                name: name.clone(),
                text: text.clone(),
                expected: Some(version(name)),
            })
            .collect();
        let importing = api.deps.catalog.change_rule_documents(&api.deps.org, changes, &actor);
        let now =
            api.ask("detection_import", importing).await.map_err(|error| error.named(ErrorKind::Conflict, CHANGED))?;
        versions = plan.changes.keys().cloned().zip(now).collect();
    }
    Ok(Json(Value::Object(report(&plan, wish, &versions, !wish.dry_run))))
}

/// The documents in a body.
fn read(body: &Raw) -> Result<Found, String> {
    if matches!(&*body.media(), "application/zip" | "application/x-zip-compressed") {
        return rule_documents::unpack(&body.bytes);
    }
    if body.media() != "application/json" {
        return Err("Content-Type must be application/zip or application/json".to_owned());
    }
    let form = || "the body must be {\"documents\": {name: text}}".to_owned();
    let Ok(Value::Object(mut object)) = serde_json::from_slice::<Value>(&body.bytes) else { return Err(form()) };
    let Some(Value::Object(documents)) = object.remove("documents") else { return Err(form()) };
    if let Some(other) = object.keys().next() {
        let other: String = other.chars().take(80).collect();
        return Err(format!("{other}: there is no such field; what to do is said in the query"));
    }
    let texts = documents.into_iter().map(|(name, text)| match text {
        Value::String(text) => Ok((name, text)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => Err(form()),
    });
    Found::of_texts(texts.collect::<Result<Vec<_>, String>>()?)
}

fn plan(known: &Known, found: Found, wish: Wish) -> Plan {
    let before = &known.own.documents;
    let texts: HashMap<&str, &str> = before.iter().map(|document| (&*document.name, &*document.text)).collect();
    let given: BTreeSet<String> = found.documents.keys().cloned().collect();
    let mut candidates = found.documents;
    candidates.retain(|name, text| texts.get(&**name) != Some(&&**text));
    let unchanged = given.len() - candidates.len();
    // A document that cannot be used is meant to be there: what it was stays.
    let meant = |name: &str| given.contains(name) || found.refused.iter().any(|unused| unused.name == name);
    let gone: BTreeSet<&str> = match wish.remove_missing {
        true => texts.keys().copied().filter(|name| !meant(name)).collect(),
        false => BTreeSet::new(),
    };
    let (mut problems, mut stays_out) = (Vec::new(), BTreeSet::new());
    let mut hopeless = true;
    let mut after = Vec::new();
    for _ in 0..ROUNDS_MAX {
        after = laid(before, &gone, &candidates);
        let seen = known.library.check(before, &after);
        let is_refused = |found: &&OrgProblem| found.problem.gravity == Gravity::Refused;
        let bad: BTreeSet<String> = seen
            .iter()
            .filter(is_refused)
            .filter_map(|found| found.document.clone().filter(|name| candidates.contains_key(name)))
            .collect();
        if bad.is_empty() || !wish.partial {
            hopeless = seen
                .iter()
                .filter(is_refused)
                .any(|found| found.document.as_ref().is_none_or(|name| !candidates.contains_key(name)));
            stays_out.extend(bad);
            problems.extend(seen);
            break;
        }
        // What is wrong with the rest may be due to these; it is asked again without them.
        let about = |found: &OrgProblem| found.document.as_ref().is_some_and(|name| bad.contains(name));
        problems.extend(seen.into_iter().filter(about));
        candidates.retain(|name, _| !bad.contains(name));
        stays_out.extend(bad);
    }
    let rules = rule_changes(known, after);
    let is_new = |name: &&String| !texts.contains_key(name.as_str());
    let taken: Vec<&String> = candidates.keys().filter(|name| !stays_out.contains(*name)).collect();
    let new = taken.iter().filter(|name| is_new(name)).count();
    let (changed, removed) = (taken.len() - new, gone.len());
    let mut changes: BTreeMap<String, Option<String>> = gone.iter().map(|name| ((*name).to_owned(), None)).collect();
    changes.extend(
        candidates.into_iter().filter(|(name, _)| !stays_out.contains(name)).map(|(name, text)| (name, Some(text))),
    );
    Plan {
        changes,
        new,
        changed,
        unchanged,
        removed,
        refused: stays_out,
        unusable: found.refused,
        skipped: found.skipped,
        problems,
        hopeless,
        rules,
    }
}

/// The documents as they would be, by name.
fn laid(before: &[RuleDocument], gone: &BTreeSet<&str>, candidates: &BTreeMap<String, String>) -> Vec<RuleDocument> {
    let stays = |document: &&RuleDocument| !gone.contains(&*document.name) && !candidates.contains_key(&document.name);
    let mut after: Vec<RuleDocument> = before.iter().filter(stays).cloned().collect();
    after.extend(candidates.iter().map(|(name, text)| draft_document(name, text)));
    after.sort_by(|a, b| a.name.cmp(&b.name));
    after
}

fn rule_changes(known: &Known, documents: Vec<RuleDocument>) -> RuleChanges {
    let own = OrgDetectionRules { documents, ..known.own.clone() };
    let then = Inventory::of(&known.library, &own);
    let by_uid = |inventory: &'_ Inventory| -> HashMap<String, String> {
        inventory.rules.iter().map(|rule| (rule.header.uid.clone(), rule.text.clone())).collect()
    };
    let (texts_now, texts_then) = (by_uid(&known.inventory), by_uid(&then));
    let named = |rule: &ListedRule| (rule.header.uid.clone(), rule.header.title.clone());
    let mut changes = RuleChanges::default();
    for rule in &then.rules {
        match texts_now.get(&rule.header.uid) {
            None => changes.new.push(named(rule)),
            Some(text) if *text != rule.text => changes.changed.push(named(rule)),
            Some(_) => {}
        }
    }
    let gone = known.inventory.rules.iter().filter(|rule| !texts_then.contains_key(&rule.header.uid));
    changes.gone = gone.map(named).collect();
    changes
}

fn report(plan: &Plan, wish: Wish, versions: &BTreeMap<String, u32>, applied: bool) -> Map<String, Value> {
    let change = |name: &String, text: &Option<String>| {
        let what = if text.is_some() { "put" } else { "remove" };
        json!({ "name": name, "change": what, "version": versions.get(name) })
    };
    let changes: Vec<Value> = plan.changes.iter().take(LISTED_MAX).map(|(name, text)| change(name, text)).collect();
    let rules = |rules: &[(String, String)]| -> Vec<Value> {
        rules.iter().take(LISTED_MAX).map(|(uid, title)| json!({ "uid": uid, "title": title })).collect()
    };
    let refused_names: Vec<&String> = plan.refused.iter().take(LISTED_MAX).collect();
    let Value::Object(report) = json!({
        "dry_run": wish.dry_run,
        "possible": plan.is_possible(wish),
        "applied": applied,
        "documents": {
            "new": plan.new,
            "changed": plan.changed,
            "unchanged": plan.unchanged,
            "removed": plan.removed,
            "refused": plan.refused.len() + plan.unusable.len(),
            "skipped": plan.skipped.len(),
        },
        "changes": changes,
        "refused": refused_names,
        "unusable": unused(&plan.unusable),
        "skipped": unused(&plan.skipped),
        "problems": problems_shown(&plan.problems),
        "problems_total": plan.problems.len(),
        "problems_refusing": refused(&plan.problems),
        "rules": {
            "new_total": plan.rules.new.len(),
            "changed_total": plan.rules.changed.len(),
            "gone_total": plan.rules.gone.len(),
            "new": rules(&plan.rules.new),
            "changed": rules(&plan.rules.changed),
            "gone": rules(&plan.rules.gone),
        },
    }) else {
        return Map::new();
    };
    report
}

fn unused(list: &[Unused]) -> Vec<Value> {
    list.iter().map(|unused| json!({ "name": unused.name, "why": unused.why })).collect()
}

/// All documents as an archive.
pub async fn export(_: Viewer, State(api): State<Arc<Api>>) -> ApiResult<Response> {
    let known = api.detection().await?;
    let packed = working(move || {
        let documents = known.own.documents.iter();
        rule_documents::pack(documents.map(|document| (&*document.name, &*document.text)))
    });
    let bytes = packed.await?.map_err(|error| {
        tracing::error!(%error, "documents cannot be packed");
        ApiError::unavailable("the documents cannot be packed")
    })?;
    let headers = [
        (header::CONTENT_TYPE, "application/zip"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"detection-rules.zip\""),
    ];
    Ok((headers, bytes).into_response())
}
