//! Rules of the organisation, wherever they come from: how they stand, and what is said about them.

use super::super::Api;
use super::super::auth::{Operator, Scoped, Viewer};
use super::super::error::{ApiError, ApiResult};
use super::super::params::{Fields, MaybeObject, Object, Params, Segment, pagination};
use super::{KINDS, Known, LEVELS, SOURCES, STATES};
use axum::Json;
use axum::extract::State;
use model::{ErrorKind, Level, OrgId, Timestamp};
use pipeline::detections::{ListedRule, Origin, RuleKind};
use rules::sigma::{Options, Reader};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use storage::catalog::detection_rules::{RuleSetting, RuleState};

const CHANGED: &str = "somebody else changed what is said about this rule; read it again";
const TEAM_CHARS_MAX: usize = 100;

pub fn no_such_rule() -> ApiError {
    ApiError::not_found("no such detection rule")
}

/// What rules are looked for.
#[derive(Debug, Default)]
pub struct Search {
    pub state: Option<RuleState>,
    pub level: Option<Level>,
    pub source: Option<&'static str>,
    pub kind: Option<&'static str>,
    /// Whole, or its beginning and `*`.
    pub tag: Option<String>,
    /// Part of the title, identifier, name or description, in lower case.
    pub text: Option<String>,
}

impl Search {
    pub fn of(params: &Params) -> ApiResult<Self> {
        let among = |name: &str, all: &'static [&'static str]| {
            let expected = format!("one of {}", all.join(", "));
            params.read(name, &expected, |text| all.iter().copied().find(|one| one.eq_ignore_ascii_case(text)))
        };
        Ok(Self {
            state: among("state", STATES)?.and_then(RuleState::parse),
            level: among("level", LEVELS)?.and_then(Level::parse),
            source: among("source", SOURCES)?,
            kind: among("kind", KINDS)?,
            tag: params.bounded("tag")?.map(|tag| tag.to_lowercase()),
            text: params.bounded("text")?.map(|text| text.to_lowercase()),
        })
    }

    pub fn fits(&self, rule: &ListedRule) -> bool {
        let header = &rule.header;
        let tagged = |wanted: &String| {
            header.tags.iter().map(|tag| tag.to_lowercase()).any(|tag| match wanted.strip_suffix('*') {
                Some(beginning) => tag.starts_with(beginning),
                None => tag == *wanted,
            })
        };
        let says = |wanted: &String| {
            let texts = [&header.title, &header.uid, header.name.as_ref().unwrap_or(&header.uid), &header.description];
            texts.iter().any(|text| text.to_lowercase().contains(wanted))
        };
        self.state.is_none_or(|state| rule.state == state)
            && self.level.is_none_or(|level| rule.level == level)
            && self.source.is_none_or(|source| rule.origin.kind() == source)
            && self.kind.is_none_or(|kind| rule.kind.as_str() == kind)
            && self.tag.as_ref().is_none_or(tagged)
            && self.text.as_ref().is_none_or(says)
    }
}

pub async fn list(caller: Scoped<Viewer>, State(api): State<Arc<Api>>, params: Params) -> ApiResult {
    let (page, search) = (params.page()?, Search::of(&params)?);
    let known = api.detection_of(caller.org()).await?;
    let found: Vec<&ListedRule> = known.inventory.rules.iter().filter(|rule| search.fits(rule)).collect();
    let skipped = usize::try_from((page.page - 1).saturating_mul(page.limit)).unwrap_or(usize::MAX);
    let shown = found.iter().skip(skipped).take(usize::try_from(page.limit).unwrap_or(usize::MAX));
    let shown: Vec<Value> = shown.map(|rule| Value::Object(row(&api, caller.org(), rule))).collect();
    let mut states: BTreeMap<&str, usize> = STATES.iter().map(|state| (*state, 0)).collect();
    found.iter().for_each(|rule| *states.entry(rule.state.as_str()).or_default() += 1);
    Ok(Json(json!({
        "rules": shown,
        "states": states,
        "unknown": known.inventory.unknown,
        "pagination": pagination(page, found.len() as u64),
    })))
}

pub async fn one(caller: Scoped<Viewer>, State(api): State<Arc<Api>>, uid: Segment) -> ApiResult {
    let known = api.detection_of(caller.org()).await?;
    let rule = known.inventory.rule(&uid.0).ok_or_else(no_such_rule)?;
    Ok(Json(whole(&api, caller.org(), rule)))
}

/// Replaces what the organisation says about a rule.
pub async fn set(caller: Operator, State(api): State<Arc<Api>>, uid: Segment, body: Object) -> ApiResult {
    let mut fields = Fields::new(&body.0);
    let reason = fields.reason();
    let setting = setting(&mut fields);
    let expected = expected(&mut fields);
    fields.only(&["state", "level", "team", "expected", "reason"]);
    fields.done("Invalid setting")?;
    change(&api, &caller, &uid.0, expected, setting, reason).await?;
    now(&api, &uid.0).await
}

/// Forgets it: the rule stands as its author and the server say.
pub async fn clear(caller: Operator, State(api): State<Arc<Api>>, uid: Segment, body: MaybeObject) -> ApiResult {
    let mut fields = Fields::new(&body.0);
    let reason = fields.reason();
    let expected = expected(&mut fields);
    fields.only(&["expected", "reason"]);
    fields.done("Invalid request")?;
    change(&api, &caller, &uid.0, expected, RuleSetting::default(), reason).await?;
    now(&api, &uid.0).await
}

/// How a rule stands now.
async fn now(api: &Api, uid: &str) -> ApiResult {
    let known = api.detection().await?;
    Ok(Json(json!({ "rule": known.inventory.rule(uid).map(|rule| row(api, &api.deps.org, rule)) })))
}

/// Replaces what is said about a rule, provided that it is still `expected`, or what it is now.
pub async fn change(
    api: &Api,
    caller: &Operator,
    uid: &str,
    expected: Option<RuleSetting>,
    setting: RuleSetting,
    reason: Option<String>,
) -> ApiResult<()> {
    let known = api.detection().await?;
    let now = known.own.settings.get(uid).cloned();
    // What is said about a rule that is gone can still be taken back.
    if known.inventory.rule(uid).is_none() && (now.is_none() || !setting.is_empty()) {
        return Err(no_such_rule());
    }
    let expected = expected.or(now).unwrap_or_default();
    let actor = api.actor(&caller.0, reason);
    let setting = api.deps.catalog.set_rule(&api.deps.org, uid, &expected, setting, &actor);
    api.ask("detection_set_rule", setting).await.map_err(|error| error.named(ErrorKind::Conflict, CHANGED))?;
    Ok(())
}

/// `state`, `level` and `team`; what is not given or null is not said.
fn setting(fields: &mut Fields<'_>) -> RuleSetting {
    let mut setting = RuleSetting::default();
    if let Some(word) = fields.text("state") {
        setting.state = RuleState::parse(&word);
        if setting.state.is_none() {
            fields.problem("state", format!("it must be one of {}, or null", STATES.join(", ")));
        }
    }
    if let Some(word) = fields.text("level") {
        setting.level = Level::parse(&word);
        if setting.level.is_none() {
            fields.problem("level", format!("it must be one of {}, or null", LEVELS.join(", ")));
        }
    }
    if let Some(team) = fields.text("team") {
        match team_of(&team) {
            Ok(team) => setting.team = Some(team),
            Err(why) => fields.problem("team", why),
        }
    }
    setting
}

/// The name of a team as it is written.
pub fn team_of(written: &str) -> Result<String, String> {
    let team = written.trim();
    let count = team.chars().count();
    if (1..=TEAM_CHARS_MAX).contains(&count) && !team.chars().any(char::is_control) {
        Ok(team.to_owned())
    } else {
        Err(format!("it must have 1 to {TEAM_CHARS_MAX} characters"))
    }
}

/// What the caller believes to be said now.
fn expected(fields: &mut Fields<'_>) -> Option<RuleSetting> {
    let object = match fields.given("expected")? {
        Some(Value::Object(object)) => object,
        Some(_) | None => {
            fields.problem("expected", "it must be an object with state, level and team");
            return None;
        }
    };
    let mut inner = Fields::new(object);
    let expected = setting(&mut inner);
    inner.only(&["state", "level", "team"]);
    for (name, problem) in inner.problems {
        fields.problem(&format!("expected.{name}"), problem);
    }
    Some(expected)
}

/// A rule in a list.
pub fn row(api: &Api, org: &OrgId, rule: &ListedRule) -> Map<String, Value> {
    let header = &rule.header;
    let origin = |origin: &Origin| json!({ "source": origin.kind(), "name": origin.name() });
    let counts = api.deps.works_events.then(|| api.deps.detections.counts(org, &header.uid));
    let now = api.deps.clock.now().micros();
    let counts = counts.map(|counts| {
        let paused = counts.paused_until > now;
        json!({
            "matches": counts.matches,
            "mean_ns": counts.nanos.checked_div(counts.timed),
            "paused_until": paused.then(|| Timestamp::from_micros(counts.paused_until).rfc3339()),
        })
    });
    let Value::Object(row) = json!({
        "uid": header.uid,
        "name": header.name,
        "title": header.title,
        "kind": rule.kind.as_str(),
        "status": header.status,
        "state": rule.state.as_str(),
        "why": rule.why.as_str(),
        "held_back": rule.held_back,
        "level": rule.level.as_str(),
        "own_level": header.level.as_str(),
        "tags": header.tags,
        "origin": origin(&rule.origin),
        "line": header.place.line,
        "replaces": rule.replaces.as_ref().map(origin),
        "setting": setting_shown(&rule.setting),
        "counts": counts,
    }) else {
        return Map::new();
    };
    row
}

fn setting_shown(setting: &RuleSetting) -> Value {
    json!({
        "state": setting.state.map(RuleState::as_str),
        "level": setting.level.map(Level::as_str),
        "team": setting.team,
    })
}

fn whole(api: &Api, org: &OrgId, rule: &ListedRule) -> Value {
    let header = &rule.header;
    let mut whole = row(api, org, rule);
    for (key, value) in [
        ("description", header.description.as_str().into()),
        ("author", header.author.as_str().into()),
        ("date", header.date.as_str().into()),
        ("modified", header.modified.as_str().into()),
        ("references", json!(header.references)),
        ("false_positives", json!(header.false_positives)),
        ("inputs_off", json!(rule.inputs_off)),
        ("explanation", json!(explanation(rule))),
        ("text", rule.text.as_str().into()),
    ] {
        whole.insert(key.to_owned(), value);
    }
    Value::Object(whole)
}

/// What the rule asks, in words.
pub fn explanation(rule: &ListedRule) -> Vec<String> {
    match rule.kind {
        RuleKind::Correlation => rule.condition.iter().cloned().collect(),
        RuleKind::Rule | RuleKind::Filter => {
            let mut reader = Reader::new(Options::default());
            reader.text("", &rule.text);
            let read = reader.finish();
            let Some(read) = read.rules.first() else { return Vec::new() };
            let mut lines = vec![format!("looks at {}", read.source)];
            lines.extend(rules::explain::words(&read.predicate));
            lines
        }
    }
}

impl Known {
    /// Of a document: what rules it holds.
    pub fn rules_in<'k>(&'k self, name: &'k str) -> impl Iterator<Item = &'k ListedRule> {
        let inside = move |origin: &Origin| matches!(origin, Origin::Document(document) if document == name);
        self.inventory.rules.iter().filter(move |rule| inside(&rule.origin))
    }
}
