//! From a record to the JSON object of an event, and back.
//!
//! An object has `hostname`, `message` and `timestamp` as every event has, then `stream`, `severity` where a label has
//! one, and `labels` as they came. A metric has `metric_type`, `value` and `unit` besides, and a message in words.
//! What is too long is cut, and `message_cut` or `labels_cut` say so: a host is not asked to send its line again.

use crate::{LABELS_MAX, LogEvent, MetricEvent};
use jiff::Timestamp as Instant;
use model::{EventId, Severity, Timestamp};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// How much of a record becomes an event. In bytes of JSON, where a control character takes six.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventBounds {
    /// Of the message.
    pub message_bytes_max: usize,
    /// Of all labels together.
    pub labels_bytes_max: usize,
}

impl Default for EventBounds {
    fn default() -> Self {
        Self { message_bytes_max: 192 * 1024, labels_bytes_max: 48 * 1024 }
    }
}

/// Why a record is no event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    /// Nobody says where it is from.
    #[error("the record names no host")]
    NoHost,
    /// A metric that is no number.
    #[error("the value of the metric is not a finite number")]
    NotFinite,
}

/// Names of hosts and streams are short.
const NAME_BYTES_MAX: usize = 512;

/// What names a record for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordKey<'a> {
    pub org: &'a str,
    pub agent: &'a str,
    pub epoch: u64,
    pub seq: u64,
}

impl RecordKey<'_> {
    /// The id of the event that the record becomes: the time of its batch's first sending, a run that stands for the
    /// spool it was sent from, its number there. The same record is the same event, however often it comes.
    pub fn event_id(&self, sent_unix_ms: i64) -> EventId {
        let mut hash = Sha256::new();
        for part in [self.org, self.agent] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        hash.update(self.epoch.to_be_bytes());
        let digest = hash.finalize();
        let run = digest.iter().take(4).fold(0u32, |run, byte| (run << 8) | u32::from(*byte));
        EventId::new(Timestamp::from_millis(sent_unix_ms.max(0)), run, self.seq)
    }
}

/// The object of a log event. `otherwise` is its time where its own makes no sense.
pub fn log_object(event: &LogEvent, otherwise: Timestamp, bounds: &EventBounds) -> Result<String, BadRecord> {
    // Tails of files send their line with its end.
    let message = event.message.trim_end_matches(['\n', '\r']);
    let mut out = head(&event.host_id, message, event.ts_unix_ns, otherwise, bounds)?;
    tail(&mut out, &event.stream, &event.labels, bounds);
    Ok(out)
}

/// The object of a metric event.
pub fn metric_object(event: &MetricEvent, otherwise: Timestamp, bounds: &EventBounds) -> Result<String, BadRecord> {
    if !event.value.is_finite() {
        return Err(BadRecord::NotFinite);
    }
    let unit = if event.unit.is_empty() { String::new() } else { format!(" {}", event.unit) };
    let message = format!("{}: {}{unit}", event.name, event.value);
    let mut out = head(&event.host_id, &message, event.ts_unix_ns, otherwise, bounds)?;
    member(&mut out, "metric_type", &event.name);
    out.push_str(",\"value\":");
    out.push_str(&Value::from(event.value).to_string());
    member(&mut out, "unit", &event.unit);
    tail(&mut out, &event.stream, &event.labels, bounds);
    Ok(out)
}

fn head(
    host: &str,
    message: &str,
    ts_unix_ns: i64,
    otherwise: Timestamp,
    bounds: &EventBounds,
) -> Result<String, BadRecord> {
    if host.trim().is_empty() {
        return Err(BadRecord::NoHost);
    }
    let mut out = String::with_capacity(message.len() + 256);
    out.push_str("{\"hostname\":");
    push(&mut out, host, NAME_BYTES_MAX);
    out.push_str(",\"message\":");
    let cut = push(&mut out, message, bounds.message_bytes_max);
    out.push_str(",\"timestamp\":");
    push(&mut out, &time_text(ts_unix_ns, otherwise), NAME_BYTES_MAX);
    if cut {
        out.push_str(",\"message_cut\":true");
    }
    Ok(out)
}

fn tail(out: &mut String, stream: &str, labels: &BTreeMap<String, String>, bounds: &EventBounds) {
    member(out, "stream", stream);
    if let Some(severity) = labels.get("severity").filter(|text| Severity::parse(text).is_some()) {
        member(out, "severity", severity);
    }
    let before = out.len();
    let mut cut = labels.len() > LABELS_MAX;
    let mut sign = ",\"labels\":{";
    for (key, value) in labels.iter().take(LABELS_MAX) {
        let used = out.len() - before;
        let start = out.len();
        out.push_str(sign);
        cut |= push(out, key, NAME_BYTES_MAX);
        out.push(':');
        cut |= push(out, value, bounds.labels_bytes_max.saturating_sub(used));
        if out.len() - before > bounds.labels_bytes_max {
            out.truncate(start);
            cut = true;
        } else {
            sign = ",";
        }
    }
    if sign == "," {
        out.push('}');
    }
    if cut {
        out.push_str(",\"labels_cut\":true");
    }
    out.push('}');
}

fn member(out: &mut String, key: &str, value: &str) {
    if !value.is_empty() {
        let _ = write!(out, ",\"{key}\":");
        push(out, value, NAME_BYTES_MAX);
    }
}

/// Writes a string of at most `bytes_max` bytes between its quotes; whether something was left out.
fn push(out: &mut String, text: &str, bytes_max: usize) -> bool {
    out.push('"');
    let start = out.len();
    let mut cut = false;
    for c in text.chars() {
        let before = out.len();
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
        if out.len() - start > bytes_max {
            out.truncate(before);
            cut = true;
            break;
        }
    }
    out.push('"');
    cut
}

/// RFC 3339 to the nanosecond. Before 1980 and after 2200 no host's clock was right.
fn time_text(ts_unix_ns: i64, otherwise: Timestamp) -> String {
    const FROM: i64 = 315_532_800_000_000_000;
    const TO: i64 = 7_258_118_400_000_000_000;
    let own = Some(ts_unix_ns).filter(|ns| (FROM..TO).contains(ns));
    let nanos = own.map_or(i128::from(otherwise.micros()) * 1_000, i128::from);
    Instant::from_nanosecond(nanos).unwrap_or(Instant::UNIX_EPOCH).to_string()
}

/// The log event that says what an event's object says: for receivers that know protobuf only. `None` where the text is
/// no object. Members without a place of their own become labels.
pub fn to_log(object: &str, org: &str) -> Option<LogEvent> {
    let mut members = serde_json::from_str::<Map<String, Value>>(object).ok()?;
    let (ts_unix_ns, labels) = common(&mut members);
    Some(LogEvent {
        org_id: org.to_owned(),
        host_id: take(&mut members, "hostname"),
        ts_unix_ns,
        stream: take(&mut members, "stream"),
        message: take(&mut members, "message"),
        labels: with_rest(labels, members),
        seq: 0,
    })
}

/// The metric event of an object that [`metric_object`] made; `None` for any other.
pub fn to_metric(object: &str, org: &str) -> Option<MetricEvent> {
    let mut members = serde_json::from_str::<Map<String, Value>>(object).ok()?;
    let value = members.remove("value")?.as_f64()?;
    let name = members.remove("metric_type")?.as_str()?.to_owned();
    let (ts_unix_ns, labels) = common(&mut members);
    members.remove("message");
    Some(MetricEvent {
        org_id: org.to_owned(),
        host_id: take(&mut members, "hostname"),
        ts_unix_ns,
        stream: take(&mut members, "stream"),
        name,
        value,
        unit: take(&mut members, "unit"),
        labels: with_rest(labels, members),
        seq: 0,
    })
}

fn common(members: &mut Map<String, Value>) -> (i64, BTreeMap<String, String>) {
    let time = take(members, "timestamp");
    let nanos = match time.parse::<Instant>() {
        Ok(exact) => i64::try_from(exact.as_nanosecond()).unwrap_or(0),
        Err(_) => Timestamp::parse(&time).map_or(0, |t| t.micros().saturating_mul(1_000)),
    };
    let labels = match members.remove("labels") {
        Some(Value::Object(labels)) => labels.into_iter().map(|(key, value)| (key, text(value))).collect(),
        _ => BTreeMap::new(),
    };
    (nanos, labels)
}

fn with_rest(mut labels: BTreeMap<String, String>, members: Map<String, Value>) -> BTreeMap<String, String> {
    for (key, value) in members {
        if !key.starts_with('_') && labels.len() < LABELS_MAX {
            labels.entry(key).or_insert_with(|| text(value));
        }
    }
    labels
}

fn take(members: &mut Map<String, Value>, key: &str) -> String {
    members.remove(key).map(text).unwrap_or_default()
}

fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SENT: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn log(message: &str, labels: &[(&str, &str)]) -> LogEvent {
        LogEvent {
            org_id: "acme".to_owned(),
            host_id: "web-1".to_owned(),
            ts_unix_ns: 1_751_700_000_123_456_789,
            stream: "auth".to_owned(),
            message: message.to_owned(),
            labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            seq: 0,
        }
    }

    fn object(event: &LogEvent) -> String {
        log_object(event, SENT, &EventBounds::default()).unwrap()
    }

    #[test]
    fn a_log_event_keeps_its_labels_and_gives_its_severity_to_the_event() {
        assert_eq!(
            object(&log("Failed password\n", &[("event_type", "ssh_fail"), ("severity", "warning")])),
            concat!(
                r#"{"hostname":"web-1","message":"Failed password","timestamp":"2025-07-05T07:20:00.123456789Z","#,
                r#""stream":"auth","severity":"warning","labels":{"event_type":"ssh_fail","severity":"warning"}}"#
            )
        );
        assert_eq!(
            object(&log("m", &[("severity", "odd")])),
            concat!(
                r#"{"hostname":"web-1","message":"m","timestamp":"2025-07-05T07:20:00.123456789Z","#,
                r#""stream":"auth","labels":{"severity":"odd"}}"#
            )
        );
    }

    #[test]
    fn a_metric_says_its_number_as_a_number_and_in_words() {
        let mut metric = MetricEvent {
            host_id: "h".to_owned(),
            ts_unix_ns: 1_751_700_000_000_000_000,
            stream: "metrics".to_owned(),
            name: "cpu_usage".to_owned(),
            value: 45.2,
            unit: "percent".to_owned(),
            ..MetricEvent::default()
        };
        let object = metric_object(&metric, SENT, &EventBounds::default()).unwrap();
        assert_eq!(
            object,
            concat!(
                r#"{"hostname":"h","message":"cpu_usage: 45.2 percent","timestamp":"2025-07-05T07:20:00Z","#,
                r#""metric_type":"cpu_usage","value":45.2,"unit":"percent","stream":"metrics"}"#
            )
        );
        assert_eq!(to_metric(&object, "").unwrap(), metric);
        metric.value = f64::NAN;
        assert_eq!(metric_object(&metric, SENT, &EventBounds::default()), Err(BadRecord::NotFinite));
        assert_eq!(to_metric(r#"{"hostname":"h","value":"45"}"#, ""), None);
    }

    #[test]
    fn times_that_no_clock_shows_become_the_time_of_sending() {
        for odd in [0, -1, 1, i64::MIN, i64::MAX] {
            let event = LogEvent { ts_unix_ns: odd, ..log("m", &[]) };
            assert!(object(&event).contains(r#""timestamp":"2023-11-14T22:13:20Z""#), "{odd}");
        }
        let far = Timestamp::from_micros(i64::MAX);
        let event = LogEvent { ts_unix_ns: 0, ..log("m", &[]) };
        assert!(log_object(&event, far, &EventBounds::default()).unwrap().contains("1970"));
    }

    #[test]
    fn what_is_too_long_is_cut_and_says_so() {
        let bounds = EventBounds { message_bytes_max: 10, labels_bytes_max: 40 };
        let cut = |event: &LogEvent| log_object(event, SENT, &bounds).unwrap();
        assert!(
            cut(&log("éééééé", &[]))
                .contains(r#""message":"ééééé","timestamp":"2025-07-05T07:20:00.123456789Z","message_cut":true"#)
        );
        assert!(cut(&log("\u{1}\u{1}", &[])).contains(r#""message":"\u0001","#), "escapes count as they are written");
        let event = log("m", &[("a", "1"), ("b", &"x".repeat(90)), ("c", "3")]);
        let found: Map<String, Value> = serde_json::from_str(&cut(&event)).unwrap();
        assert_eq!(found["labels_cut"], true);
        assert_eq!(found["labels"]["a"], "1");
        let many: Vec<(String, String)> = (0..500).map(|i| (i.to_string(), String::new())).collect();
        let event = LogEvent { labels: many.into_iter().collect(), ..log("m", &[]) };
        let found: Map<String, Value> = serde_json::from_str(&object(&event)).unwrap();
        assert_eq!(
            (found["labels"].as_object().unwrap().len(), &found["labels_cut"]),
            (LABELS_MAX, &Value::Bool(true))
        );
    }

    #[test]
    fn a_record_without_a_host_is_no_event() {
        let event = LogEvent { host_id: " ".to_owned(), ..log("m", &[]) };
        assert_eq!(log_object(&event, SENT, &EventBounds::default()), Err(BadRecord::NoHost));
    }

    #[test]
    fn the_same_record_is_the_same_event_and_another_another() {
        let key = RecordKey { org: "acme", agent: "agt_1", epoch: 7, seq: 9 };
        let id = key.event_id(1_000);
        assert_eq!((id, id.accepted(), id.counter()), (key.event_id(1_000), Timestamp::from_millis(1_000), 9));
        assert_eq!(RecordKey { seq: 10, ..key }.event_id(1_000).run(), id.run(), "numbers of one spool lie close");
        for other in [
            RecordKey { org: "acm", agent: "eagt_1", ..key },
            RecordKey { agent: "agt_2", ..key },
            RecordKey { epoch: 8, ..key },
        ] {
            assert_ne!(other.event_id(1_000).run(), id.run());
        }
        assert_eq!(key.event_id(-5).accepted(), Timestamp::from_millis(0));
    }

    #[test]
    fn an_event_of_another_input_becomes_a_log_event_with_labels() {
        let object = r#"{"hostname":"r1","message":5,"timestamp":"2025-07-05T07:20:00Z","severity":3,"_event_id":"x",
            "labels":{"a":true}}"#;
        let event = to_log(object, "acme").unwrap();
        assert_eq!((event.host_id.as_str(), event.message.as_str()), ("r1", "5"));
        assert_eq!(event.ts_unix_ns, 1_751_700_000_000_000_000);
        let labels: Vec<_> = event.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(labels, [("a", "true"), ("severity", "3")]);
        assert_eq!(to_log("[1]", "acme"), None);
    }

    proptest! {
        #[test]
        fn every_log_event_is_a_bounded_clean_object_and_comes_back(
            host in "[a-z]{1,8}", message in "(?s).{0,200}", stream in "[a-z]{1,9}",
            labels in prop::collection::btree_map("(?s).{0,6}", "(?s).{0,20}", 0..5),
            ns in 315_532_800_000_000_000i64..7_258_118_400_000_000_000,
        ) {
            let event = LogEvent {
                org_id: "o".into(), host_id: host, ts_unix_ns: ns, stream, message, labels, seq: 0,
            };
            let text = object(&event);
            prop_assert!(!text.bytes().any(|b| b < b' '));
            let back = to_log(&text, "o").unwrap();
            let trimmed = event.message.trim_end_matches(['\n', '\r']).to_owned();
            prop_assert_eq!(back, LogEvent { message: trimmed, ..event });
        }
    }
}
