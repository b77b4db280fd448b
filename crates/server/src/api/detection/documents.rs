//! Documents that the organisation keeps: the texts of files of rules, with their versions.

use super::super::Api;
use super::super::auth::{Operator, Viewer};
use super::super::error::{ApiError, ApiResult};
use super::super::params::{Fields, MaybeObject, Object, Params, Segment, Segments, pagination};
use super::{Known, Raw, problems_shown, refused, unusable, working};
use crate::rule_documents::{holds_nothing, normal_name};
use axum::Json;
use axum::extract::State;
use model::ErrorKind;
use pipeline::detections::{OrgProblem, draft_document};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use storage::catalog::Actor;
use storage::catalog::detection_rules::{DOCUMENT_BYTES_MAX, DocumentChange, DocumentVersion, RuleDocument};

const NO_SUCH_DOCUMENT: &str = "no such document";
const NO_SUCH_VERSION: &str = "no such version of this document, or it is not kept any more";
pub const CHANGED: &str = "the document has another version by now; read it again";

pub async fn list(_: Viewer, State(api): State<Arc<Api>>, params: Params) -> ApiResult {
    let (page, text) = (params.page()?, params.bounded("text")?.map(|text| text.to_lowercase()));
    let known = api.detection().await?;
    let named = |document: &&RuleDocument| text.as_ref().is_none_or(|text| document.name.to_lowercase().contains(text));
    let found: Vec<&RuleDocument> = known.own.documents.iter().filter(named).collect();
    let mut rules: HashMap<&str, usize> = HashMap::new();
    for rule in &known.inventory.rules {
        *rules.entry(rule.origin.name()).or_default() += usize::from(rule.origin.kind() == "document");
    }
    let mut problems: HashMap<&str, usize> = HashMap::new();
    for problem in known.inventory.problems.iter().filter_map(|found| found.document.as_deref()) {
        *problems.entry(problem).or_default() += 1;
    }
    let skipped = usize::try_from((page.page - 1).saturating_mul(page.limit)).unwrap_or(usize::MAX);
    let shown = found.iter().skip(skipped).take(usize::try_from(page.limit).unwrap_or(usize::MAX)).map(|document| {
        let count = |counts: &HashMap<&str, usize>| counts.get(&*document.name).copied().unwrap_or(0);
        json!({
            "name": document.name,
            "version": document.version,
            "bytes": document.text.len(),
            "changed_at": document.changed_at.rfc3339(),
            "changed_by": document.changed_by,
            "rules": count(&rules),
            "problems": count(&problems),
        })
    });
    let shown: Vec<Value> = shown.collect();
    Ok(Json(json!({ "documents": shown, "pagination": pagination(page, found.len() as u64) })))
}

pub async fn one(_: Viewer, State(api): State<Arc<Api>>, name: Segment) -> ApiResult {
    let name = named(&name.0)?;
    let known = api.detection().await?;
    let document = known.document(&name).ok_or_else(|| ApiError::not_found(NO_SUCH_DOCUMENT))?;
    let problems = known.inventory.problems.iter().filter(|found| found.document.as_deref() == Some(&*name));
    Ok(Json(json!({
        "name": document.name,
        "version": document.version,
        "changed_at": document.changed_at.rfc3339(),
        "changed_by": document.changed_by,
        "rules": rules_of(&known, &name),
        "problems": problems_shown(problems),
        "text": document.text,
    })))
}

/// Keeps the text that is the body under this name.
pub async fn put(caller: Operator, State(api): State<Arc<Api>>, name: Segment, params: Params, body: Raw) -> ApiResult {
    let expected = params.number("expected", 0..=u32::MAX)?;
    let actor = api.actor(&caller.0, params.reason()?);
    if body.media() == "application/json" {
        return Err(ApiError::invalid("the body is the text itself: send it with Content-Type: application/yaml"));
    }
    if body.bytes.len() > DOCUMENT_BYTES_MAX {
        return Err(ApiError::body_too_large(DOCUMENT_BYTES_MAX));
    }
    let Ok(text) = String::from_utf8(body.bytes.to_vec()) else {
        return Err(ApiError::invalid("the text is not UTF-8"));
    };
    keep(&api, named(&name.0)?, text, expected, &actor).await
}

/// Puts the text of an earlier version back, as a new one.
pub async fn restore(caller: Operator, State(api): State<Arc<Api>>, name: Segment, body: Object) -> ApiResult {
    let name = named(&name.0)?;
    let mut fields = Fields::new(&body.0);
    let reason = fields.reason();
    let wanted: Option<u32> = fields.whole("version", "it must be the number of a version");
    let expected: Option<u32> = fields.whole("expected", "it must be the number of a version");
    fields.only(&["version", "expected", "reason"]);
    if wanted.is_none() {
        fields.problem("version", "it is required: the version to put back");
    }
    fields.done("Invalid request")?;
    let versions = versions_of(&api, &name).await?;
    let version = versions.into_iter().find(|one| Some(one.version) == wanted);
    let version = version.ok_or_else(|| ApiError::not_found(NO_SUCH_VERSION))?;
    let Some(text) = version.text else {
        return Err(ApiError::invalid("version: with this one the document was removed; there is no text in it"));
    };
    let reason = reason.or_else(|| Some(format!("version {} again", version.version)));
    keep(&api, name, text, expected, &api.actor(&caller.0, reason)).await
}

async fn keep(api: &Api, name: String, text: String, expected: Option<u32>, actor: &Actor) -> ApiResult {
    if text.contains('\0') {
        return Err(ApiError::invalid("the text has a NUL in it"));
    }
    if holds_nothing(&text) {
        return Err(ApiError::invalid("nothing was changed: there is no rule in the text"));
    }
    let _laying = api.laying.lock().await;
    let known = api.detection().await?;
    let mut after: Vec<RuleDocument> =
        known.own.documents.iter().filter(|document| document.name != name).cloned().collect();
    let at = after.partition_point(|document| document.name < name);
    after.insert(at, draft_document(&name, &text));
    let problems = check(&known, after).await?;
    if refused(&problems) > 0 {
        return Err(unusable(&problems));
    }
    let change = DocumentChange { name: name.clone(), text: Some(text), expected };
    let versions = api.deps.catalog.change_rule_documents(&api.deps.org, vec![change], actor);
    let versions =
        api.ask("detection_put", versions).await.map_err(|error| error.named(ErrorKind::Conflict, CHANGED))?;
    let known = api.detection().await?;
    Ok(Json(json!({
        "name": name,
        "version": versions.first(),
        "rules": rules_of(&known, &name),
        "problems": problems_shown(&problems),
    })))
}

pub async fn remove(caller: Operator, State(api): State<Arc<Api>>, name: Segment, body: MaybeObject) -> ApiResult {
    let name = named(&name.0)?;
    let mut fields = Fields::new(&body.0);
    let reason = fields.reason();
    let expected: Option<u32> = fields.whole("expected", "it must be the number of a version");
    let force = fields.truth("force").unwrap_or(false);
    fields.only(&["expected", "force", "reason"]);
    fields.done("Invalid request")?;
    let _laying = api.laying.lock().await;
    let known = api.detection().await?;
    if known.document(&name).is_none() {
        return Err(ApiError::not_found(NO_SUCH_DOCUMENT));
    }
    let after = known.own.documents.iter().filter(|document| document.name != name).cloned().collect();
    let problems = check(&known, after).await?;
    if refused(&problems) > 0 && !force {
        return Err(unusable(&problems).with("hint", "with \"force\": true it is removed all the same"));
    }
    let change = DocumentChange { name: name.clone(), text: None, expected };
    let actor = api.actor(&caller.0, reason);
    let removing = api.deps.catalog.change_rule_documents(&api.deps.org, vec![change], &actor);
    let versions = api
        .ask("detection_remove", removing)
        .await
        .map_err(|error| error.named(ErrorKind::Conflict, CHANGED).named(ErrorKind::NotFound, NO_SUCH_DOCUMENT))?;
    Ok(Json(json!({ "name": name, "version": versions.first(), "problems": problems_shown(&problems) })))
}

pub async fn versions(_: Viewer, State(api): State<Arc<Api>>, name: Segment) -> ApiResult {
    let name = named(&name.0)?;
    let versions: Vec<Value> = versions_of(&api, &name).await?.iter().map(version_shown).collect();
    Ok(Json(json!({ "name": name, "versions": versions })))
}

pub async fn version(_: Viewer, State(api): State<Arc<Api>>, segments: Segments) -> ApiResult {
    let [name, number] = segments.0;
    let name = named(&name)?;
    let versions = versions_of(&api, &name).await?;
    let version = versions.iter().find(|one| number.parse() == Ok(one.version));
    let version = version.ok_or_else(|| ApiError::not_found(NO_SUCH_VERSION))?;
    let mut shown = version_shown(version);
    shown["name"] = name.into();
    shown["text"] = version.text.clone().into();
    Ok(Json(shown))
}

async fn versions_of(api: &Api, name: &str) -> ApiResult<Vec<DocumentVersion>> {
    let versions = api.ask("detection_versions", api.deps.catalog.rule_document_versions(&api.deps.org, name)).await;
    let versions = versions.map_err(|error| error.named(ErrorKind::NotFound, NO_SUCH_DOCUMENT))?;
    if versions.is_empty() { Err(ApiError::not_found(NO_SUCH_DOCUMENT)) } else { Ok(versions) }
}

fn version_shown(version: &DocumentVersion) -> Value {
    json!({
        "version": version.version,
        "removed": version.text.is_none(),
        "bytes": version.text.as_ref().map(String::len),
        "changed_at": version.changed_at.rfc3339(),
        "changed_by": version.changed_by,
        "reason": version.reason,
    })
}

fn rules_of(known: &Known, name: &str) -> Vec<Value> {
    let shown = known.rules_in(name).map(|rule| {
        json!({
            "uid": rule.header.uid,
            "title": rule.header.title,
            "kind": rule.kind.as_str(),
            "state": rule.state.as_str(),
        })
    });
    shown.collect()
}

/// What would be wrong if these were the documents.
async fn check(known: &Arc<Known>, after: Vec<RuleDocument>) -> ApiResult<Vec<OrgProblem>> {
    let known = Arc::clone(known);
    working(move || known.library.check(&known.own.documents, &after)).await
}

fn named(written: &str) -> ApiResult<String> {
    match normal_name(written) {
        Ok(name) if name == written => Ok(name),
        Ok(name) => Err(ApiError::invalid(format!("the name of a document is a plain path: `{name}`"))),
        Err(why) => Err(ApiError::invalid(format!("this is no name of a document: {why}"))),
    }
}
