//! Looking into the queues, and at what was refused at the doors. Nothing here changes anything;
//! see `letters.rs` for replaying and removing.

use super::Api;
use super::auth::Viewer;
use super::error::{ApiError, ApiResult};
use super::params::{Params, Segment};
use axum::Json;
use axum::extract::State;
use model::{DeadLetter, OrgId};
use pipeline::LiveSettings;
use pipeline::rejects::RejectSample;
use serde::Deserialize;
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::sync::Arc;
use storage::queue::{Peeked, QueueName, QueueStats, decode_dead_letter};

pub async fn list(_: Viewer, State(api): State<Arc<Api>>) -> ApiResult {
    let mut queues = Vec::with_capacity(QueueName::ALL.len());
    for name in QueueName::ALL {
        let stats = api.ask("queue_stats", api.deps.queues.get(name).stats()).await?;
        queues.push(figures(name, &stats, &api.deps.live.get()));
    }
    Ok(Json(json!({ "queues": queues })))
}

fn figures(name: QueueName, stats: &QueueStats, live: &LiveSettings) -> Value {
    // The ingest queue is bounded at the door, by a live setting.
    let limit = if name == QueueName::Ingest { stats.limit.min(live.ingest_records_max) } else { stats.limit };
    json!({
        "name": name.as_str(),
        "depth": stats.depth,
        "leased": stats.leased,
        "delayed": stats.delayed,
        "bytes": stats.bytes,
        "quarantined": stats.quarantined,
        "limit": limit,
    })
}

/// Records of a queue after a position, oldest first.
pub async fn peek(_: Viewer, State(api): State<Arc<Api>>, name: Segment, params: Params) -> ApiResult {
    let name = queue(&name)?;
    let after = params.id::<u64>("after")?;
    let limit = params.limit(50, 200)?;
    let stats = api.ask("queue_stats", api.deps.queues.get(name).stats()).await?;
    let seen = api.ask("queue_peek", api.deps.queues.get(name).peek(after, limit)).await?;
    let next = (seen.len() == limit).then(|| seen.last().map(|record| record.position)).flatten();
    let records: Vec<Value> = seen.iter().filter(|r| api.owns(name, r)).map(|r| shown(name, r)).collect();
    let mut answer = figures(name, &stats, &api.deps.live.get());
    answer["records"] = records.into();
    answer["next"] = json!(next);
    Ok(Json(answer))
}

pub async fn rejects(_: Viewer, State(api): State<Arc<Api>>, params: Params) -> ApiResult {
    let limit = params.limit(100, 1_000)?;
    let rejects: Vec<Value> = api.deps.rejects.newest(limit).iter().map(reject).collect();
    Ok(Json(json!({ "rejects": rejects })))
}

fn reject(sample: &RejectSample) -> Value {
    json!({
        "at": sample.at.rfc3339(),
        "input": sample.input.as_str(),
        "reason": sample.reason.as_str(),
        "detail": sample.detail,
        "peer": sample.peer.map(|peer| peer.to_string()),
        "sample": sample.sample,
    })
}

pub fn queue(segment: &Segment) -> ApiResult<QueueName> {
    QueueName::parse(&segment.0).ok_or_else(|| {
        let names: Vec<&str> = QueueName::ALL.iter().map(|name| name.as_str()).collect();
        ApiError::not_found(format!("no such queue; there are {}", names.join(", ")))
    })
}

/// Whether the records of a queue are dead letters.
pub const fn holds_letters(name: QueueName) -> bool {
    match name {
        QueueName::DlqAlerter | QueueName::DlqForwarder | QueueName::Dead => true,
        QueueName::Ingest | QueueName::Alerts => false,
    }
}

/// A record for people: a dead letter taken apart, anything else as the JSON it is.
pub fn shown(name: QueueName, record: &Peeked) -> Value {
    let mut value = json!({ "position": record.position, "attempts": record.attempts, "leased": record.leased });
    let letter = if holds_letters(name) { decode_dead_letter(&record.payload).ok() } else { None };
    match letter {
        Some(letter) => value["dead_letter"] = letter_shown(&letter),
        None => value["payload"] = readable(&record.payload),
    }
    value
}

pub fn letter_shown(letter: &DeadLetter) -> Value {
    json!({
        "side": letter.side.as_str(),
        "reason": letter.reason,
        "retryable": letter.retryable,
        "attempts": letter.attempts,
        "replays": letter.replays,
        "failed_at": letter.failed_at.rfc3339(),
        "original": readable(&letter.original),
    })
}

/// JSON as it is, other bytes as text. The original's alerts carried their key: it is not shown.
pub fn readable(payload: &[u8]) -> Value {
    match serde_json::from_slice::<Value>(payload) {
        Ok(mut value) => {
            if let Some(key) = value.get_mut("api_key") {
                *key = "***".into();
            }
            value
        }
        Err(_) => String::from_utf8_lossy(payload).into(),
    }
}

/// A look through a queue: how far it went.
#[derive(Debug, Clone, Copy)]
pub struct Walked {
    pub looked_at: usize,
    /// The queue's end was reached.
    pub complete: bool,
}

impl Api {
    /// Whether a record is of this organisation.
    pub fn owns(&self, name: QueueName, record: &Peeked) -> bool {
        let org = if holds_letters(name) {
            decode_dead_letter(&record.payload)
                .map_or_else(|_| org_of(&record.payload), |letter| org_of(&letter.original))
        } else {
            org_of(&record.payload)
        };
        org == self.deps.org
    }

    /// Visits this organisation's records of a queue, oldest first, at most `most`.
    pub async fn walk(
        &self,
        name: QueueName,
        most: usize,
        mut visit: impl FnMut(Peeked) -> ControlFlow<()>,
    ) -> ApiResult<Walked> {
        const PAGE: usize = 1_000;
        let mut walked = Walked { looked_at: 0, complete: false };
        let mut after = None;
        while walked.looked_at < most {
            let page = PAGE.min(most - walked.looked_at);
            let seen = self.ask("queue_peek", self.deps.queues.get(name).peek(after, page)).await?;
            walked.complete = seen.len() < page;
            after = seen.last().map(|record| record.position).or(after);
            for record in seen {
                walked.looked_at += 1;
                if self.owns(name, &record) && visit(record).is_break() {
                    return Ok(walked);
                }
            }
            if walked.complete {
                break;
            }
        }
        Ok(walked)
    }
}

/// The organisation that an event or an alert names; the default one where it names none.
fn org_of(payload: &[u8]) -> OrgId {
    #[derive(Deserialize)]
    struct Named {
        #[serde(rename = "_org")]
        event: Option<String>,
        #[serde(rename = "_alert")]
        alert: Option<Own>,
    }
    #[derive(Deserialize)]
    struct Own {
        org: String,
    }
    let named = serde_json::from_slice::<Named>(payload).ok();
    let name = named.and_then(|named| named.event.or(named.alert.map(|alert| alert.org)));
    name.and_then(|name| name.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_says_whose_it_is() {
        for (payload, org) in [
            (r#"{"hostname":"h","_org":"acme"}"#, "acme"),
            (r#"{"hostname":"h","_alert":{"org":"acme","id":"x"}}"#, "acme"),
            (r#"{"hostname":"h"}"#, "default"),
            ("not json", "default"),
        ] {
            assert_eq!(org_of(payload.as_bytes()).as_str(), org, "{payload}");
        }
    }

    #[test]
    fn a_key_in_a_record_of_the_original_is_not_shown() {
        let shown = readable(br#"{"api_key":"s3cret","hostname":"h"}"#);
        assert_eq!(shown, json!({ "api_key": "***", "hostname": "h" }));
    }
}
