//! Rules: the rows of `alert_rules`, trying one on an event, taking over many.

use super::Api;
use super::auth::{Operator, Viewer};
use super::error::{ApiError, ApiResult};
use super::params::{Fields, MaybeObject, Object, Segment};
use crate::routing::receivers;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use model::{Environment, ErrorKind, Event, Handling, MatchType, Rule, RuleDraft, RuleId, Severity};
use pipeline::codec;
use rules::{RuleSet, Subject};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Columns that a client may set.
const COLUMNS: [&str; 9] = [
    "match_string",
    "trap_oid",
    "syslog_severity",
    "match_type",
    "priority",
    "prod_handling",
    "dev_handling",
    "team_assignment",
    "is_active",
];
const REQUIRED: [&str; 3] = ["prod_handling", "dev_handling", "team_assignment"];
const NO_SUCH_RULE: &str = "Rule not found";
const INVALID: &str = "Invalid rule";

/// The row as the contract shows it: all columns.
fn row(rule: &Rule) -> Value {
    let draft = &rule.draft;
    json!({
        "id": rule.id,
        "match_string": draft.match_string,
        "trap_oid": draft.trap_oid,
        "syslog_severity": draft.syslog_severity,
        "match_type": draft.match_type.as_str(),
        "priority": draft.priority,
        "prod_handling": draft.prod_handling.as_str(),
        "dev_handling": draft.dev_handling.as_str(),
        "team_assignment": draft.team_assignment,
        "is_active": draft.is_active,
    })
}

pub async fn list(_: Viewer, State(api): State<Arc<Api>>) -> ApiResult {
    let rules = api.ask("rules_list", api.deps.catalog.rules(&api.deps.org)).await?;
    Ok(Json(json!({ "rules": rules.iter().map(row).collect::<Vec<_>>() })))
}

pub async fn one(_: Viewer, State(api): State<Arc<Api>>, id: Segment) -> ApiResult {
    Ok(Json(row(&find(&api, &id).await?)))
}

pub async fn create(
    caller: Operator,
    State(api): State<Arc<Api>>,
    body: Object,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let mut fields = Fields::new(&body.0);
    let reason = fields.reason();
    let draft = new_draft(fields)?;
    let warnings = warnings(&body.0, &draft);
    let actor = api.actor(&caller.0, reason);
    let id = api.ask("rules_create", api.deps.catalog.create_rule(&api.deps.org, draft, &actor)).await?;
    Ok((StatusCode::CREATED, Json(json!({ "id": id, "message": "Rule created successfully", "warnings": warnings }))))
}

pub async fn update(caller: Operator, State(api): State<Arc<Api>>, id: Segment, body: Object) -> ApiResult {
    let rule = find(&api, &id).await?;
    let mut fields = Fields::new(&body.0);
    let reason = fields.reason();
    if !COLUMNS.iter().any(|column| body.0.contains_key(*column)) {
        return Err(ApiError::invalid("No fields to update"));
    }
    let mut draft = rule.draft.clone();
    apply(&mut fields, &mut draft);
    validate(fields, &draft)?;
    let warnings = warnings(&body.0, &draft);
    let actor = api.actor(&caller.0, reason);
    let work = api.deps.catalog.update_rule(&api.deps.org, rule.id, &rule.draft, draft, &actor);
    api.ask("rules_update", work).await.map_err(|error| {
        error
            .named(ErrorKind::NotFound, NO_SUCH_RULE)
            .named(ErrorKind::Conflict, "Rule was changed by somebody else at the same time; read it again")
    })?;
    Ok(Json(json!({ "message": "Rule updated successfully", "warnings": warnings })))
}

pub async fn remove(caller: Operator, State(api): State<Arc<Api>>, id: Segment, body: MaybeObject) -> ApiResult {
    let id = rule_id(&id)?;
    let mut fields = Fields::new(&body.0);
    let reason = fields.reason();
    fields.done("Invalid request")?;
    let actor = api.actor(&caller.0, reason);
    api.ask("rules_delete", api.deps.catalog.delete_rule(&api.deps.org, id, &actor))
        .await
        .map_err(|error| error.named(ErrorKind::NotFound, NO_SUCH_RULE))?;
    Ok(Json(json!({ "message": "Rule deleted successfully" })))
}

/// Most rules taken over at once.
const IMPORT_MAX: usize = 10_000;

/// All of the rules, or none and what is wrong with each.
pub async fn import(
    caller: Operator,
    State(api): State<Arc<Api>>,
    body: Object,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let mut fields = Fields::new(&body.0);
    let reason = fields.reason();
    fields.done("Invalid request")?;
    let Some(Value::Array(rules)) = body.0.get("rules") else {
        return Err(ApiError::invalid("Missing 'rules', a list of rules, in request body"));
    };
    if rules.is_empty() || rules.len() > IMPORT_MAX {
        return Err(ApiError::invalid(format!("rules: from 1 to {IMPORT_MAX} at once")));
    }
    let (mut drafts, mut problems, mut remarks) = (Vec::new(), Vec::new(), Vec::new());
    for (index, rule) in rules.iter().enumerate() {
        let draft = match rule {
            Value::Object(object) => new_draft(Fields::new(object)).map(|draft| (warnings(object, &draft), draft)),
            _ => Err(ApiError::invalid("a rule must be a JSON object")),
        };
        match draft {
            Ok((warnings, draft)) => {
                remarks.extend(warnings.into_iter().map(|text| json!({ "index": index, "warning": text })));
                drafts.push(draft);
            }
            Err(error) => problems.push(error.in_a_list(index)),
        }
    }
    if !problems.is_empty() {
        let message = format!("{} of {} rules cannot be used; none was created", problems.len(), rules.len());
        return Err(ApiError::invalid(message).with("problems", problems));
    }
    let actor = api.actor(&caller.0, reason);
    let ids = api.ask("rules_import", api.deps.catalog.create_rules(&api.deps.org, drafts, &actor)).await?;
    Ok((StatusCode::CREATED, Json(json!({ "created": ids.len(), "ids": ids, "warnings": remarks }))))
}

/// Which rule takes an event, and why: of the rules in force, or of one that is only proposed.
pub async fn test(_: Viewer, State(api): State<Arc<Api>>, body: Object) -> ApiResult {
    let event = event_to_try(&api, body.0.get("event"))?;
    if let Some(proposed) = body.0.get("rule") {
        let Value::Object(object) = proposed else {
            return Err(ApiError::invalid("rule: it must be a JSON object"));
        };
        let draft = RuleDraft { is_active: true, ..new_draft(Fields::new(object))? };
        let dev_hosts = api.ask("dev_hosts_list", api.deps.catalog.dev_hosts(&api.deps.org)).await?;
        let environment =
            if dev_hosts.contains(&event.host) { Environment::Development } else { Environment::Production };
        let (set, _) = RuleSet::compile(vec![Rule { id: 0, draft }]);
        let explanation = set.explain(&Subject::from(&event)).to_string();
        let rule = set.first_match(&Subject::from(&event)).cloned();
        return Ok(Json(verdict(&api, &event, rule.map(|rule| (rule, environment)), explanation)));
    }
    api.freshen_rules().await?;
    let snapshot = api.deps.rulebook.snapshot();
    let found = snapshot.first_match(&event).map(|found| (found.rule, found.environment));
    Ok(Json(verdict(&api, &event, found, snapshot.explain(&event))))
}

fn verdict(api: &Api, event: &Event, found: Option<(Rule, Environment)>, explanation: String) -> Value {
    let Some((rule, environment)) = found else {
        return json!({ "matched": false, "rule": null, "explanation": explanation });
    };
    let handling = rule.draft.handling(environment);
    json!({
        "matched": true,
        "rule": row(&rule),
        "environment": match environment {
            Environment::Production => "production",
            Environment::Development => "development",
        },
        "handling": handling.as_str(),
        "forwards": handling.forwards(),
        "team": rule.draft.team_assignment,
        "receivers": receivers(api.deps.planner.router(), &rule, handling, &event.host, event.severity),
        "explanation": explanation,
    })
}

/// The event as detection would read it; where host or time are not given, some are made up.
fn event_to_try(api: &Api, given: Option<&Value>) -> ApiResult<Event> {
    let Some(Value::Object(object)) = given else {
        return Err(ApiError::invalid("Missing 'event', a JSON object, in request body"));
    };
    let mut object: Map<String, Value> =
        object.iter().filter(|(key, _)| !key.starts_with('_')).map(|(k, v)| (k.clone(), v.clone())).collect();
    object.entry("hostname").or_insert_with(|| "any-host".into());
    object.entry("timestamp").or_insert_with(|| api.deps.clock.now().rfc3339().into());
    let record = Bytes::from(Value::Object(object).to_string());
    let mut event = codec::decode_event(&record).map_err(|why| ApiError::invalid(format!("event: {why}")))?;
    event.org = api.deps.org.clone();
    Ok(event)
}

impl Api {
    /// Brings the rulebook up to date with the catalog, so that a rule just saved can be tried.
    async fn freshen_rules(&self) -> ApiResult<()> {
        let revision = self.ask("revision", self.deps.catalog.revision()).await?;
        let mut tried = self.tried_revision.lock().await;
        if *tried != Some(revision) {
            self.ask("rules_reload", self.deps.rulebook.reload()).await?;
            *tried = Some(revision);
        }
        Ok(())
    }
}

fn rule_id(segment: &Segment) -> ApiResult<RuleId> {
    segment.0.parse().ok().filter(|id| *id >= 0).ok_or_else(|| ApiError::not_found(NO_SUCH_RULE))
}

async fn find(api: &Api, id: &Segment) -> ApiResult<Rule> {
    let id = rule_id(id)?;
    api.ask("rules_get", api.deps.catalog.rule(&api.deps.org, id))
        .await
        .map_err(|error| error.named(ErrorKind::NotFound, NO_SUCH_RULE))
}

/// A new rule from its fields, with the contract's refusals in the contract's order.
fn new_draft(mut fields: Fields<'_>) -> ApiResult<RuleDraft> {
    let missing: Vec<String> =
        REQUIRED.iter().filter(|name| fields.given(name).flatten().is_none()).map(|name| format!("'{name}'")).collect();
    if !missing.is_empty() {
        return Err(ApiError::invalid(format!("Missing required fields: [{}]", missing.join(", "))));
    }
    let mut draft = RuleDraft {
        match_string: None,
        trap_oid: None,
        syslog_severity: None,
        match_type: MatchType::Contains,
        priority: RuleDraft::DEFAULT_PRIORITY,
        prod_handling: Handling::new(""),
        dev_handling: Handling::new(""),
        team_assignment: String::new(),
        is_active: true,
    };
    apply(&mut fields, &mut draft);
    let criterion_given = |name| fields.problems.contains_key(name);
    if draft.match_string.is_none()
        && draft.trap_oid.is_none()
        && !criterion_given("match_string")
        && !criterion_given("trap_oid")
    {
        return Err(ApiError::invalid("Either match_string or trap_oid is required"));
    }
    // Only an OID and no match_type: `contains`, the column's default, could never match.
    if draft.match_string.is_none() && fields.given("match_type").flatten().is_none() {
        draft.match_type = MatchType::OidPrefix;
    }
    validate(fields, &draft)?;
    Ok(draft)
}

/// Lays the given fields over a rule; notes those that cannot be read.
fn apply(fields: &mut Fields<'_>, draft: &mut RuleDraft) {
    for (name, slot) in [("match_string", &mut draft.match_string), ("trap_oid", &mut draft.trap_oid)] {
        match fields.given(name) {
            Some(None) => *slot = None,
            Some(Some(_)) => *slot = fields.text(name).filter(|text| !text.is_empty()),
            None => {}
        }
    }
    match fields.given("syslog_severity") {
        Some(None) => draft.syslog_severity = None,
        Some(Some(value)) => {
            let severity = match value {
                Value::Number(number) => number.as_i64().and_then(Severity::from_code),
                Value::String(word) => Severity::parse(word),
                Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
            };
            match severity {
                Some(severity) => draft.syslog_severity = Some(severity.code()),
                None => {
                    fields.problem("syslog_severity", "it must be a number from 0 (emergency) to 7 (debug), or null")
                }
            }
        }
        None => {}
    }
    if let Some(text) = fields.text("match_type") {
        match MatchType::parse(&text) {
            Some(match_type) => draft.match_type = match_type,
            None => fields.problem("match_type", "it must be one of contains, regex, oid_prefix"),
        }
    }
    let whole = "it must be a whole number of at most 32 bits";
    draft.priority = fields.whole("priority", whole).unwrap_or(draft.priority);
    for (name, slot) in [("prod_handling", &mut draft.prod_handling), ("dev_handling", &mut draft.dev_handling)] {
        if let Some(text) = fields.text(name) {
            *slot = Handling::new(text);
        }
    }
    if let Some(text) = fields.text("team_assignment") {
        draft.team_assignment = text;
    }
    draft.is_active = fields.truth("is_active").unwrap_or(draft.is_active);
    for name in ["match_type", "priority", "prod_handling", "dev_handling", "team_assignment", "is_active"] {
        if fields.given(name) == Some(None) {
            fields.problem(name, "it must not be null");
        }
    }
}

fn validate(mut fields: Fields<'_>, draft: &RuleDraft) -> ApiResult<()> {
    if let Err(problems) = rules::validate(draft) {
        for problem in problems {
            fields.problem(problem.field, problem.message);
        }
    }
    fields.done(INVALID)
}

/// What is allowed and probably not meant, keys that are no columns included.
fn warnings(given: &Map<String, Value>, draft: &RuleDraft) -> Vec<String> {
    let unknown = given
        .keys()
        .filter(|key| !COLUMNS.contains(&key.as_str()) && !matches!(key.as_str(), "id" | "reason"))
        .map(|key| format!("{}: there is no such column; it was ignored", key.chars().take(80).collect::<String>()));
    rules::lint(draft).iter().map(ToString::to_string).chain(unknown).take(50).collect()
}
