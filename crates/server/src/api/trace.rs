//! What happened to an event, and why: everything that the stores and queues know of it, and the
//! same as sentences in order of time. Asked by event or by alert.

use super::Api;
use super::audit::event_row;
use super::auth::{Scoped, Viewer};
use super::error::{ApiError, ApiResult};
use super::events::{alert_shown, event_shown, find_alert};
use super::params::Segment;
use super::queues::{holds_letters, letter_shown};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use model::{AlertId, DeadLetter, DeadLetterSide, Event, EventId, InputKind, OrgId};
use pipeline::codec;
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::sync::Arc;
use storage::catalog::{AlertFilter, AlertRecord, AuditFilter, AuditRow, PageRequest};
use storage::events::StoredEvent;
use storage::queue::{Peeked, QueueName, decode_dead_letter};

/// Records of one queue looked through, oldest first.
const LOOKED_AT_MAX: usize = 20_000;
/// Rows of a kind that belong to one event; more are not told.
const ROWS: PageRequest = PageRequest { page: 1, limit: 100 };

pub async fn trace(caller: Scoped<Viewer>, State(api): State<Arc<Api>>, id: Segment) -> ApiResult {
    let asked = id.0;
    let (deps, org) = (&api.deps, caller.org());
    let event_id = event_of(&api, org, &asked).await?;
    let stored = api.ask("events_get", deps.events.get(org, event_id)).await?;
    let by_event = AuditFilter { event_id: Some(event_id), ..AuditFilter::default() };
    let audits = api.ask("audit_logs_list", deps.catalog.audit_log(org, &by_event, ROWS)).await?.rows;
    let by_event = AlertFilter { event_id: Some(event_id), ..AlertFilter::default() };
    let alerts = api.ask("alerts_list", deps.catalog.alerts(org, &by_event, ROWS)).await?.rows;
    let mut story =
        Story { org: org.clone(), event_id, stored, audits, alerts, sightings: Vec::new(), searched: Vec::new() };
    for name in QueueName::ALL {
        story.look_into(&api, name).await?;
    }
    if story.nothing_known() {
        return Err(ApiError::not_found(format!("nothing is known of {asked}")).with("searched", story.searched));
    }
    let event = story.event();
    let explanation = event.map(|mut event| {
        event.org = org.clone();
        deps.rulebook.snapshot().explain(&event)
    });
    Ok(Json(story.told(&asked, explanation)))
}

async fn event_of(api: &Api, org: &OrgId, asked: &str) -> ApiResult<EventId> {
    if let Ok(id) = asked.parse::<AlertId>() {
        return Ok(find_alert(api, org, id).await?.alert.event_id);
    }
    asked.parse().map_err(|_| ApiError::invalid("id: it is neither an event id, evt_…, nor an alert id, alr_…"))
}

/// A record of a queue that is about the event.
struct Sighting {
    queue: QueueName,
    record: Peeked,
    letter: Option<DeadLetter>,
}

struct Story {
    org: OrgId,
    event_id: EventId,
    stored: Option<StoredEvent>,
    audits: Vec<AuditRow>,
    alerts: Vec<AlertRecord>,
    sightings: Vec<Sighting>,
    searched: Vec<Value>,
}

impl Story {
    async fn look_into(&mut self, api: &Api, queue: QueueName) -> ApiResult<()> {
        let (org, event_id, sightings) = (&self.org, self.event_id, &mut self.sightings);
        let walked = api
            .walk(queue, LOOKED_AT_MAX, |record| {
                let letter = if holds_letters(queue) { decode_dead_letter(&record.payload).ok() } else { None };
                let about_it = match &letter {
                    Some(letter) => is_about(org, event_id, letter.side == DeadLetterSide::Forwarder, &letter.original),
                    None => is_about(org, event_id, queue == QueueName::Alerts, &record.payload),
                };
                if about_it {
                    sightings.push(Sighting { queue, record, letter });
                }
                ControlFlow::Continue(())
            })
            .await?;
        self.searched.push(json!({
            "queue": queue.as_str(),
            "looked_at": walked.looked_at,
            "complete": walked.complete,
        }));
        Ok(())
    }

    fn nothing_known(&self) -> bool {
        self.stored.is_none() && self.audits.is_empty() && self.alerts.is_empty() && self.sightings.is_empty()
    }

    /// The event itself, from wherever it is.
    fn event(&self) -> Option<Event> {
        let stored = self.stored.iter().map(|stored| stored.raw.clone());
        let seen =
            self.sightings.iter().filter(|s| s.queue != QueueName::Alerts).map(|sighting| match &sighting.letter {
                Some(letter) => letter.original.clone(),
                None => sighting.record.payload.clone(),
            });
        stored
            .chain(seen)
            .find_map(|record| codec::decode_event(&record).ok().filter(|event| event.id == self.event_id))
    }

    fn waiting(&self) -> impl Iterator<Item = &Sighting> {
        self.sightings.iter().filter(|sighting| !holds_letters(sighting.queue))
    }

    fn letters(&self) -> impl Iterator<Item = (&Sighting, &DeadLetter)> {
        self.sightings.iter().filter_map(|sighting| Some((sighting, sighting.letter.as_ref()?)))
    }

    fn input(&self) -> Option<InputKind> {
        self.stored.as_ref().map(|event| event.input).or_else(|| self.event().map(|event| event.input))
    }

    /// Where the event is, in one word.
    fn state(&self) -> &'static str {
        let waits = self.waiting().any(|sighting| sighting.queue == QueueName::Ingest);
        let letter_of = |side| self.letters().any(|(_, letter)| letter.side == side);
        match (&self.stored, waits) {
            (Some(event), _) if event.rule_id.is_some() => "handled",
            (Some(_), _) => "unhandled",
            (None, true) => "waiting",
            (None, false) if letter_of(DeadLetterSide::Alerter) => "dead_letter",
            // Its rows are there and its day is not any more.
            (None, false) => "expired",
        }
    }

    fn rule_id(&self) -> Option<i64> {
        let stored = self.stored.as_ref().and_then(|event| event.rule_id);
        stored.or_else(|| self.audits.first().map(|row| row.entry.matched_rule_id))
    }

    fn told(&self, asked: &str, explanation: Option<String>) -> Value {
        let letters = self.letters().map(|(sighting, letter)| {
            let mut shown = letter_shown(letter);
            shown["queue"] = sighting.queue.as_str().into();
            shown["position"] = sighting.record.position.into();
            shown
        });
        let waiting = self.waiting().map(|sighting| {
            json!({
                "queue": sighting.queue.as_str(),
                "position": sighting.record.position,
                "attempts": sighting.record.attempts,
                "leased": sighting.record.leased,
            })
        });
        json!({
            "id": asked,
            "event_id": self.event_id.to_string(),
            "state": self.state(),
            "accepted": {
                "at": self.event_id.accepted().rfc3339(),
                "input": self.input().map(InputKind::as_str),
            },
            "stored": self.stored.is_some(),
            "event": self.stored.as_ref().map(event_shown),
            "rule_id": self.rule_id(),
            "explanation": explanation,
            "explained_by": "the rules in force now",
            "audit": self.audits.iter().map(event_row).collect::<Vec<_>>(),
            "alerts": self.alerts.iter().map(alert_shown).collect::<Vec<_>>(),
            "dead_letters": letters.collect::<Vec<_>>(),
            "waiting": waiting.collect::<Vec<_>>(),
            "searched": self.searched,
            "story": self.sentences(),
        })
    }

    fn sentences(&self) -> Vec<String> {
        let mut story = Vec::new();
        let by = self.input().map_or_else(String::new, |input| format!(" by {}", input.as_str()));
        story.push(format!("{} accepted{by}", self.event_id.accepted().rfc3339()));
        for sighting in self.waiting() {
            let what = if sighting.queue == QueueName::Ingest {
                "waits for detection"
            } else {
                "its alert waits for delivery"
            };
            let how = if sighting.record.leased { "being worked now" } else { "in line" };
            story.push(format!("{what}, {how}, {} earlier tries", sighting.record.attempts));
        }
        if let Some(event) = &self.stored {
            story.push(match event.rule_id {
                Some(rule) => format!("stored; rule {rule} took it"),
                None => "stored; no rule took it".to_owned(),
            });
        }
        for row in &self.audits {
            let entry = &row.entry;
            let alerts = if entry.forwarded { "alerts a team" } else { "alerts nobody" };
            story.push(format!("rule {} decided `{}`, which {alerts}", entry.matched_rule_id, entry.handling_decision));
        }
        for record in &self.alerts {
            let detail = record.detail.as_ref().map_or_else(String::new, |detail| format!(": {detail}"));
            story.push(format!(
                "{} alert {} for {} is {} after {} tries{detail}",
                record.state_at.rfc3339(),
                record.alert.id,
                record.alert.team,
                record.state.as_str(),
                record.attempts,
            ));
        }
        for (sighting, letter) in self.letters() {
            story.push(format!(
                "{} dead letter in {} at {}, replayed {} times: {}",
                letter.failed_at.rfc3339(),
                sighting.queue.as_str(),
                sighting.record.position,
                letter.replays,
                letter.reason,
            ));
        }
        story
    }
}

/// Whether a record is the event of the organisation, or an alert of it. What cannot be read may still name it.
fn is_about(org: &OrgId, id: EventId, is_alert: bool, payload: &Bytes) -> bool {
    let named = if is_alert {
        codec::decode_alert(payload).map(|(alert, _)| (alert.org, alert.event_id))
    } else {
        codec::decode_event(payload).map(|event| (event.org, event.id))
    };
    match named {
        Ok((of, named)) => named == id && of == *org,
        // Nobody knows whose it is.
        Err(_) if *org != OrgId::default() => false,
        Err(_) => std::str::from_utf8(payload).is_ok_and(|text| text.contains(&format!("\"{id}\""))),
    }
}
