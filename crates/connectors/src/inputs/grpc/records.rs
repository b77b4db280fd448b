//! From what an agent sent to events. Pure.

use super::Identity;
use crate::inputs::NewEvent;
use bytes::Bytes;
use model::{EventId, InputKind, RejectReason, Timestamp};
use wire::{BadRecord, EventBounds, LogEvent, MetricEvent, Record, RecordKey, log_object, metric_object, record};

/// Why a record becomes no event. It is lost alone.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bad {
    pub reason: RejectReason,
    pub detail: &'static str,
    pub sample: String,
}

/// What an event may take of a message for people to look at.
const SAMPLE_CHARS: usize = 256;
/// Ids hold the time of the first sending. Beyond these bounds no honest agent is: it has the time from us.
const OLDEST_MS: i64 = 90 * 24 * 3_600 * 1_000;
const NEWEST_MS: i64 = 10 * 60 * 1_000;
/// Ids hold so many bits of a record's number.
const SEQ_MAX: u64 = (1 << 48) - 1;

/// The batch that records are of.
pub(super) struct Origin<'a> {
    pub who: &'a Identity,
    pub epoch: u64,
    pub sent_unix_ms: i64,
    pub now: Timestamp,
}

impl Origin<'_> {
    /// The same for the same record, however often it comes. Who says a time that cannot be gets no such id, so its
    /// repeats are not known again; no other choice is the same each time and cannot be used to fill other days.
    fn id(&self, seq: u64) -> Option<EventId> {
        let age_ms = self.now.millis().saturating_sub(self.sent_unix_ms);
        let is_plausible = (-NEWEST_MS..=OLDEST_MS).contains(&age_ms) && seq <= SEQ_MAX;
        let key = RecordKey { org: self.who.org.as_str(), agent: &self.who.agent, epoch: self.epoch, seq };
        is_plausible.then(|| key.event_id(self.sent_unix_ms))
    }
}

/// The event of a record of a batch.
pub(super) fn event(seq: u64, record: Record, of: &Origin<'_>, bounds: &EventBounds) -> Result<NewEvent, Bad> {
    let id = of.id(seq);
    // The time that stands in for a missing one must be the same each time too.
    let otherwise = id.map_or(of.now, EventId::accepted);
    match record.body {
        Some(record::Body::Log(log)) => log_event(log, of.who, id, otherwise, bounds),
        Some(record::Body::Metric(metric)) => metric_event(metric, of.who, id, otherwise, bounds),
        None => {
            Err(Bad { reason: RejectReason::Unsupported, detail: "a record of an unknown kind", sample: String::new() })
        }
    }
}

/// The event of a log event, whoever it says it is from.
pub(super) fn log_event(
    mut log: LogEvent,
    who: &Identity,
    id: Option<EventId>,
    otherwise: Timestamp,
    bounds: &EventBounds,
) -> Result<NewEvent, Bad> {
    let bad = |reason, detail| Bad { reason, detail, sample: log.message.chars().take(SAMPLE_CHARS).collect() };
    let host = speaks_for(who, &log.org_id, &log.host_id).map_err(|detail| bad(RejectReason::Unauthorized, detail))?;
    log.host_id = host;
    let object = log_object(&log, otherwise, bounds);
    object.map(|object| new_event(who, id, object)).map_err(|error| {
        let (reason, detail) = of_record(error);
        Bad { reason, detail, sample: log.message.chars().take(SAMPLE_CHARS).collect() }
    })
}

fn metric_event(
    mut metric: MetricEvent,
    who: &Identity,
    id: Option<EventId>,
    otherwise: Timestamp,
    bounds: &EventBounds,
) -> Result<NewEvent, Bad> {
    let bad = |reason, detail| Bad { reason, detail, sample: metric.name.chars().take(SAMPLE_CHARS).collect() };
    let host = speaks_for(who, &metric.org_id, &metric.host_id);
    metric.host_id = host.map_err(|detail| bad(RejectReason::Unauthorized, detail))?;
    let object = metric_object(&metric, otherwise, bounds);
    object.map(|object| new_event(who, id, object)).map_err(|error| {
        let (reason, detail) = of_record(error);
        Bad { reason, detail, sample: metric.name.chars().take(SAMPLE_CHARS).collect() }
    })
}

/// The host under which it is kept.
fn speaks_for(who: &Identity, org_id: &str, host_id: &str) -> Result<String, &'static str> {
    if !who.is_of(org_id) {
        return Err("the event names another organisation than its sender's");
    }
    who.host_of(host_id).map(str::to_owned).ok_or("the event names another host than its sender's")
}

fn of_record(error: BadRecord) -> (RejectReason, &'static str) {
    match error {
        BadRecord::NoHost => (RejectReason::MissingField, "the event names no host"),
        BadRecord::NotFinite => (RejectReason::Malformed, "the value of the metric is not a finite number"),
    }
}

fn new_event(who: &Identity, id: Option<EventId>, object: String) -> NewEvent {
    let org = who.org.clone();
    NewEvent { id, org, input: InputKind::Agent, correlation_id: None, object: Bytes::from(object) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn who() -> Identity {
        Identity {
            org: "acme".parse().unwrap(),
            agent: "agt_1".into(),
            host: "web".into(),
            alias: Some("x7".into()),
            any_host: false,
        }
    }

    fn log(org_id: &str, host_id: &str) -> Record {
        let log =
            LogEvent { org_id: org_id.into(), host_id: host_id.into(), message: "m".into(), ..LogEvent::default() };
        Record { body: Some(record::Body::Log(log)) }
    }

    fn made(seq: u64, record: Record, sent_unix_ms: i64, now: Timestamp) -> Result<NewEvent, Bad> {
        let who = who();
        event(seq, record, &Origin { who: &who, epoch: 3, sent_unix_ms, now }, &EventBounds::default())
    }

    #[test]
    fn nobody_speaks_for_another() {
        for (org, host, is_kept) in [
            ("", "", true),
            ("acme", "web", true),
            ("acme", "x7", true),
            ("acme", "db", false),
            ("evil", "web", false),
            ("acme.", "web", false),
            ("acme", "web.db", false),
        ] {
            match made(1, log(org, host), NOW.millis(), NOW) {
                Ok(event) => {
                    assert!(is_kept, "{org}/{host}");
                    assert_eq!(event.org.as_str(), "acme");
                    assert!(event.object.starts_with(br#"{"hostname":"web","#), "{:?}", event.object);
                }
                Err(bad) => assert_eq!((is_kept, bad.reason, &*bad.sample), (false, RejectReason::Unauthorized, "m")),
            }
        }
    }

    #[test]
    fn a_record_is_the_same_event_whenever_it_comes() {
        let first = made(9, log("", ""), NOW.millis(), NOW).unwrap();
        let later = made(9, log("", ""), NOW.millis(), Timestamp::from_millis(NOW.millis() + 86_400_000)).unwrap();
        assert_eq!((first.id, &first.object), (later.id, &later.object));
        assert_eq!(first.id.map(EventId::accepted), Some(NOW));
        assert_ne!(first.id, made(10, log("", ""), NOW.millis(), NOW).unwrap().id);
    }

    #[test]
    fn times_that_cannot_be_name_no_day() {
        let minute = 60_000;
        for (sent, is_id) in [
            (NOW.millis() + 9 * minute, true),
            (NOW.millis() + 11 * minute, false),
            (NOW.millis() - 89 * 1_440 * minute, true),
            (NOW.millis() - 91 * 1_440 * minute, false),
            (i64::MIN, false),
            (i64::MAX, false),
        ] {
            assert_eq!(made(1, log("", ""), sent, NOW).unwrap().id.is_some(), is_id, "{sent}");
        }
        assert_eq!(made(1 << 48, log("", ""), NOW.millis(), NOW).unwrap().id, None);
    }

    #[test]
    fn what_is_no_event_says_why() {
        assert_eq!(made(1, Record::default(), NOW.millis(), NOW).unwrap_err().reason, RejectReason::Unsupported);
        let metric = MetricEvent { name: "cpu".into(), value: f64::NAN, ..MetricEvent::default() };
        let record = Record { body: Some(record::Body::Metric(metric)) };
        assert_eq!(made(1, record, NOW.millis(), NOW).unwrap_err().reason, RejectReason::Malformed);
    }
}
