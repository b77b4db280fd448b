//! Dead letters in a person's hands: replaying a choice of them, and removing them for good.
//!
//! Always true here: a letter leaves its queue only after its original is durable where it is
//! replayed to, so nothing is lost by a failure in between; what is then worked twice is the same
//! event or alert by its id, and changes nothing. What is done is in the audit log before it is done.

use super::Api;
use super::auth::{Admin, Caller, Operator};
use super::error::{ApiError, ApiResult};
use super::params::{Fields, MaybeObject, Object, Segment};
use super::queues::{holds_letters, letter_shown, queue, readable};
use axum::Json;
use axum::extract::State;
use model::{DeadLetter, DeadLetterSide};
use pipeline::remediate::replay_letter;
use serde_json::{Map, Value, json};
use std::ops::ControlFlow;
use std::sync::Arc;
use storage::catalog::ConfigChange;
use storage::queue::{Peeked, QueueName, decode_dead_letter};

/// Letters worked by one request, and the default.
const LETTERS_MAX: usize = 1_000;
const LETTERS: usize = 100;
/// Records looked through for a filter.
const LOOKED_AT_MAX: usize = 50_000;

/// Puts letters back into the queues they came from: those at `positions`, or the oldest that pass
/// the `filter`, at most `limit`. One of the two has to be given: a misspelt choice must not become
/// the choice of all.
pub async fn replay(caller: Operator, State(api): State<Arc<Api>>, name: Segment, body: MaybeObject) -> ApiResult {
    let from = letter_queue(&name)?;
    let mut fields = Fields::new(&body.0);
    let reason = fields.reason();
    let choice = Choice::of(&body.0, &mut fields);
    fields.only(&["positions", "filter", "limit", "reason"]);
    fields.done("Invalid request")?;
    let (found, mut skipped) = choice.find(&api, from).await?;
    let mut letters = Vec::with_capacity(found.len());
    for record in found {
        match decode_dead_letter(&record.payload) {
            Ok(_) if record.leased => skipped.push(skip(record.position, "remediation is working on it")),
            Ok(letter) => letters.push((record.position, letter)),
            Err(_) => skipped.push(skip(record.position, "it cannot be read as a dead letter")),
        }
    }
    if !letters.is_empty() {
        let positions: Vec<u64> = letters.iter().map(|(position, _)| *position).collect();
        let new = json!({ "queue": from.as_str(), "action": "replay", "positions": positions });
        record(&api, &caller.0, from, (None, Some(new)), reason).await?;
    }
    let (mut replayed, mut stopped) = (Vec::new(), None);
    for (position, letter) in letters {
        match replay_one(&api, from, position, &letter).await {
            Ok(()) => replayed.push(position),
            Err(error) if replayed.is_empty() => return Err(error),
            Err(error) => {
                stopped = Some(error.message().to_owned());
                break;
            }
        }
    }
    Ok(Json(json!({ "replayed": replayed.len(), "positions": replayed, "skipped": skipped, "stopped": stopped })))
}

/// First into the queue it came from, durably; only then out of the dead letters.
async fn replay_one(api: &Api, from: QueueName, position: u64, letter: &DeadLetter) -> ApiResult<()> {
    let to = match letter.side {
        DeadLetterSide::Alerter => QueueName::Ingest,
        DeadLetterSide::Forwarder => QueueName::Alerts,
    };
    let deps = &api.deps;
    let replaying = replay_letter(letter, to, &deps.queues, deps.catalog.as_ref(), deps.clock.as_ref());
    api.ask("letter_replay", replaying).await?;
    api.ask("queue_take", deps.queues.get(from).take(&[position])).await?;
    Ok(())
}

/// Removes the letters at `positions` for good; the audit row keeps what they were.
pub async fn remove(caller: Admin, State(api): State<Arc<Api>>, name: Segment, body: Object) -> ApiResult {
    let from = letter_queue(&name)?;
    let mut fields = Fields::new(&body.0);
    let reason = fields.reason();
    let positions = positions(&body.0, &mut fields);
    fields.only(&["positions", "reason"]);
    fields.done("Invalid request")?;
    let Some(positions) = positions else {
        return Err(ApiError::invalid("Missing 'positions' in request body"));
    };
    let (found, mut skipped) = at(&api, from, &positions).await?;
    let (leased, free): (Vec<Peeked>, Vec<Peeked>) = found.into_iter().partition(|record| record.leased);
    skipped.extend(leased.iter().map(|record| skip(record.position, "remediation is working on it")));
    let mut removed = 0;
    if !free.is_empty() {
        let old = json!({ "queue": from.as_str(), "records": free.iter().map(for_the_record).collect::<Vec<_>>() });
        record(&api, &caller.0, from, (Some(old), None), reason).await?;
        let free: Vec<u64> = free.iter().map(|record| record.position).collect();
        removed = api.ask("queue_take", api.deps.queues.get(from).take(&free)).await?.len();
    }
    Ok(Json(json!({ "removed": removed, "skipped": skipped })))
}

fn letter_queue(name: &Segment) -> ApiResult<QueueName> {
    let name = queue(name)?;
    if holds_letters(name) {
        Ok(name)
    } else {
        Err(ApiError::invalid("only dead letters can be replayed or removed: dlq-alerter, dlq-moog, dead"))
    }
}

fn skip(position: u64, why: &str) -> Value {
    json!({ "position": position, "why": why })
}

/// Which letters are meant.
enum Choice {
    Positions(Vec<u64>),
    Filter { reason_contains: Option<String>, host: Option<String>, limit: usize },
}

impl Choice {
    fn of(body: &Map<String, Value>, fields: &mut Fields<'_>) -> Self {
        let limit = fields.whole::<i64>("limit", "it must be a whole number");
        let limit = limit.map(|n| usize::try_from(n).ok().filter(|n| (1..=LETTERS_MAX).contains(n)));
        if limit == Some(None) {
            fields.problem("limit", format!("it must be from 1 to {LETTERS_MAX}"));
        }
        if let Some(positions) = positions(body, fields) {
            if body.contains_key("filter") {
                fields.problem("filter", "give either positions or a filter");
            }
            return Self::Positions(positions);
        }
        let empty = Map::new();
        let filter = match body.get("filter") {
            None | Some(Value::Null) => {
                fields.problem("filter", "give positions, or a filter; the empty filter {} takes all");
                &empty
            }
            Some(Value::Object(filter)) => filter,
            Some(_) => {
                fields.problem("filter", "it must be an object with reason_contains, host or both");
                &empty
            }
        };
        let mut inner = Fields::new(filter);
        let (reason_contains, host) = (inner.text("reason_contains"), inner.text("host"));
        // Passing over a condition would replay more than was meant.
        inner.only(&["reason_contains", "host"]);
        for (name, message) in inner.problems {
            fields.problem(&format!("filter.{name}"), message);
        }
        Self::Filter {
            reason_contains: reason_contains.map(|text| text.to_lowercase()),
            host,
            limit: limit.flatten().unwrap_or(LETTERS),
        }
    }

    /// The records meant, and positions at which there are none.
    async fn find(&self, api: &Api, name: QueueName) -> ApiResult<(Vec<Peeked>, Vec<Value>)> {
        let (reason_contains, host, limit) = match self {
            Self::Positions(positions) => return at(api, name, positions).await,
            Self::Filter { reason_contains, host, limit } => (reason_contains, host, *limit),
        };
        let mut found = Vec::new();
        api.walk(name, LOOKED_AT_MAX, |record| {
            let passes = match decode_dead_letter(&record.payload) {
                Ok(letter) => {
                    let reason = reason_contains.as_ref();
                    reason.is_none_or(|text| letter.reason.to_lowercase().contains(text))
                        && host.as_ref().is_none_or(|host| host_of(&letter.original).as_deref() == Some(host))
                }
                Err(_) => reason_contains.is_none() && host.is_none(),
            };
            if passes {
                found.push(record);
            }
            if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .await?;
        Ok((found, Vec::new()))
    }
}

/// `positions` of a body, in order and each once.
fn positions(body: &Map<String, Value>, fields: &mut Fields<'_>) -> Option<Vec<u64>> {
    let expected = format!("it must be a list of 1 to {LETTERS_MAX} positions, as shown by the queue");
    let list = match body.get("positions") {
        None | Some(Value::Null) => return None,
        Some(Value::Array(list)) if (1..=LETTERS_MAX).contains(&list.len()) => list,
        Some(_) => {
            fields.problem("positions", expected);
            return Some(Vec::new());
        }
    };
    let numbers: Option<std::collections::BTreeSet<u64>> = list.iter().map(Value::as_u64).collect();
    if numbers.is_none() {
        fields.problem("positions", expected);
    }
    Some(numbers.unwrap_or_default().into_iter().collect())
}

/// This organisation's records at these positions, and the positions without one.
async fn at(api: &Api, name: QueueName, positions: &[u64]) -> ApiResult<(Vec<Peeked>, Vec<Value>)> {
    let mut found = api.ask("queue_peek", api.deps.queues.get(name).find(positions)).await?;
    found.retain(|record| api.owns(name, record));
    let missing = positions.iter().filter(|position| found.iter().all(|record| record.position != **position));
    let missing = missing.map(|position| skip(*position, "there is no such record")).collect();
    Ok((found, missing))
}

/// `hostname` of an event or alert.
fn host_of(original: &[u8]) -> Option<String> {
    match serde_json::from_slice::<Map<String, Value>>(original).ok()?.remove("hostname")? {
        Value::String(host) => Some(host),
        _ => None,
    }
}

/// A removed record as its audit row keeps it, bounded.
fn for_the_record(record: &Peeked) -> Value {
    const CHARS_MAX: usize = 2_000;
    let whole = match decode_dead_letter(&record.payload) {
        Ok(letter) => letter_shown(&letter),
        Err(_) => readable(&record.payload),
    };
    let text = whole.to_string();
    let kept = if text.len() <= CHARS_MAX { whole } else { text.chars().take(CHARS_MAX).collect::<String>().into() };
    json!({ "position": record.position, "record": kept })
}

async fn record(
    api: &Api,
    caller: &Caller,
    queue: QueueName,
    (old, new): (Option<Value>, Option<Value>),
    reason: Option<String>,
) -> ApiResult<()> {
    let actor = api.actor(caller, reason);
    let change = ConfigChange {
        id: 0,
        changed_at: actor.at,
        changed_by: actor.name,
        operation: if new.is_some() { "UPDATE" } else { "DELETE" }.to_owned(),
        table_name: format!("queue:{}", queue.as_str()),
        record_id: 0,
        old_values: old.map(|value| value.to_string()),
        new_values: new.map(|value| value.to_string()),
        reason: actor.reason,
        correlation_id: Some(actor.correlation_id),
    };
    api.ask("letters_audit", api.deps.catalog.record_config_change(&api.deps.org, change)).await
}
