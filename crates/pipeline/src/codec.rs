//! What lies in the queues: JSON objects that people and other programs can read (contract mutt
//! §2.2, §3.6), and their way in and out of the domain types.
//!
//! An event in the ingest queue is the client's object plus the pipeline's own keys, which begin
//! with `_`: `_correlation_id`, `_event_id`, `_input`, `_org` (unless default) and `_retry_count`
//! (after a replay). An alert in the alert queue has the contract's keys and `_alert` with ours. No
//! secret is ever in either.

use bytes::{BufMut, Bytes, BytesMut};
use connectors::inputs::NewEvent;
use model::json;
use model::{
    Alert, AlertId, AlertKind, AlertSeverity, Event, EventId, Handling, InputKind, OrgId, Severity, Timestamp,
};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt::Write as _;
use storage::catalog::DetectionRecord;
use storage::queue::{decode_dead_letter, is_enveloped};

/// Writes an accepted event as its queue record.
pub fn encode_event(event: &NewEvent, id: EventId) -> Bytes {
    let object = &event.object;
    debug_assert!(object.starts_with(b"{") && object.ends_with(b"}"));
    let body = &object[..object.len().saturating_sub(1)];
    let mut out = BytesMut::with_capacity(object.len() + 160);
    out.put_slice(body);
    if body.len() > 1 {
        out.put_u8(b',');
    }
    if let Some(correlation) = &event.correlation_id {
        out.put_slice(b"\"_correlation_id\":");
        let quoted = serde_json::to_vec(&**correlation).unwrap_or_else(|_| b"\"\"".to_vec());
        out.put_slice(&quoted);
        out.put_u8(b',');
    }
    let _ = write!(out, "\"_event_id\":\"{id}\",\"_input\":\"{}\"", event.input.as_str());
    if event.org.as_str() != OrgId::DEFAULT {
        let _ = write!(out, ",\"_org\":\"{}\"", event.org);
    }
    out.put_u8(b'}');
    out.freeze()
}

/// Sets `_retry_count` in a queue record that is a JSON object: how often remediation replayed it.
/// Anything else is returned as it is.
pub fn with_replays(payload: &[u8], replays: u32) -> Bytes {
    rewritten(payload, |object| {
        let rest = json::without(object, |key| key == "_retry_count")?;
        json::with(&rest, "_retry_count", &replays.to_string())
    })
}

/// The record as `change` makes it, every value as it was written; what is no JSON object stays.
fn rewritten(payload: &[u8], change: impl FnOnce(&str) -> Option<String>) -> Bytes {
    let changed = std::str::from_utf8(payload).ok().and_then(change);
    changed.map_or_else(|| Bytes::copy_from_slice(payload), Bytes::from)
}

/// `_retry_count` of a queue record; 0 where there is none.
pub fn replays(payload: &[u8]) -> u32 {
    #[derive(Deserialize)]
    struct Count {
        #[serde(rename = "_retry_count", default)]
        count: u32,
    }
    serde_json::from_slice::<Count>(payload).map_or(0, |c| c.count)
}

/// The keys of an event that the pipeline looks at, unparsed.
#[derive(Default)]
struct Raw<'a> {
    hostname: Option<&'a RawValue>,
    message: Option<&'a RawValue>,
    timestamp: Option<&'a RawValue>,
    severity: Option<&'a RawValue>,
    syslog_severity: Option<&'a RawValue>,
    trap_oid: Option<&'a RawValue>,
    correlation_id: Option<&'a RawValue>,
    event_id: Option<&'a RawValue>,
    input: Option<&'a RawValue>,
    org: Option<&'a RawValue>,
}

impl<'de> Deserialize<'de> for Raw<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Raw<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw<'de>, A::Error> {
                let mut raw = Raw::default();
                // As in the original's parser, the last of equal keys counts.
                while let Some(Key(key)) = map.next_key::<Key<'de>>()? {
                    let slot = match &*key {
                        "hostname" => &mut raw.hostname,
                        "message" => &mut raw.message,
                        "timestamp" => &mut raw.timestamp,
                        "severity" => &mut raw.severity,
                        "syslog_severity" => &mut raw.syslog_severity,
                        "trap_oid" => &mut raw.trap_oid,
                        "_correlation_id" => &mut raw.correlation_id,
                        "_event_id" => &mut raw.event_id,
                        "_input" => &mut raw.input,
                        "_org" => &mut raw.org,
                        _ => {
                            map.next_value::<serde::de::IgnoredAny>()?;
                            continue;
                        }
                    };
                    *slot = Some(map.next_value()?);
                }
                Ok(raw)
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// A key, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// Text of a value: strings unquoted, numbers and booleans as written, nothing for null, "" and
/// containers are kept as JSON.
fn text(value: Option<&RawValue>) -> String {
    let Some(raw) = value.map(RawValue::get) else { return String::new() };
    if raw == "null" { String::new() } else { json::text(raw).into_owned() }
}

/// The record itself where somebody has put one of our dead letters back into a queue whole, as
/// people do with `RPOPLPUSH`; otherwise the payload.
pub fn opened(payload: &Bytes) -> Bytes {
    /// A letter in a letter is opened too; nobody has more of them.
    const LETTERS_MAX: usize = 8;
    let mut payload = payload.clone();
    for _ in 0..LETTERS_MAX {
        if !is_enveloped(&payload) {
            break;
        }
        let Ok(letter) = decode_dead_letter(&payload) else { break };
        payload = letter.original;
    }
    payload
}

/// Why a record is not what it should be.
fn not(what: &str, utf8: &str, error: &serde_json::Error) -> String {
    // Python writes and reads them; a record with one cannot be repeated by any other program.
    let foreign = ["NaN", "Infinity"].into_iter().find(|word| utf8.contains(word));
    let hint = foreign.map_or(String::new(), |word| format!(" ({word} is no JSON)"));
    format!("the record is not {what}: {error}{hint}")
}

/// Reads a queue record, [`opened`] first. `Err` is a sentence saying why it can never be worked.
pub fn decode_event(payload: &Bytes) -> Result<Event, String> {
    let payload = &opened(payload);
    let utf8 = std::str::from_utf8(payload).map_err(|e| format!("the record is not UTF-8: {e}"))?;
    let raw: Raw<'_> = serde_json::from_str(utf8).map_err(|e| not("a JSON object", utf8, &e))?;
    let host = text(raw.hostname);
    if host.trim().is_empty() {
        return Err("hostname is empty".to_owned());
    }
    let message = text(raw.message);
    if message.trim().is_empty() {
        return Err("message is empty".to_owned());
    }
    let timestamp_text = text(raw.timestamp);
    if timestamp_text.is_empty() {
        return Err("timestamp is empty".to_owned());
    }
    let sent = Timestamp::parse(&timestamp_text);
    let id = match text(raw.event_id).parse() {
        Ok(id) => id,
        Err(_) => foreign_id(payload, sent),
    };
    let severity = [raw.syslog_severity, raw.severity].into_iter().map(text).find_map(|word| Severity::parse(&word));
    let org = text(raw.org).parse().unwrap_or_default();
    let correlation = text(raw.correlation_id);
    Ok(Event {
        id,
        org,
        input: InputKind::parse(&text(raw.input)).unwrap_or(InputKind::Internal),
        correlation_id: if correlation.is_empty() { id.to_string() } else { correlation },
        host,
        message,
        timestamp: sent.unwrap_or_else(|| id.accepted()),
        timestamp_text,
        severity,
        trap_oid: oid(&text(raw.trap_oid)),
        raw: payload.clone(),
    })
}

/// An id for a record that another program put into the queue: the one it was given when it was first
/// taken ([`crate::foreign`]). A record whose own `_event_id` is none and hides that one, or that no
/// Redis has handled, has one from its bytes: working it twice is working it once.
fn foreign_id(payload: &[u8], sent: Option<Timestamp>) -> EventId {
    let last = serde_json::from_slice(payload).ok().and_then(|raw: Raw<'_>| text(raw.event_id).parse().ok());
    let first = || {
        let id = payload.strip_prefix(b"{\"_event_id\":\"")?.split(|byte| *byte == b'"').next()?;
        std::str::from_utf8(id).ok()?.parse().ok()
    };
    if let Some(given) = last.or_else(first) {
        return given;
    }
    let seed = EventId::new(sent.unwrap_or_default(), 0, 0);
    let text = String::from_utf8_lossy(payload);
    let hash = AlertId::derive(seed, &text).to_u128();
    EventId::new(sent.unwrap_or_default(), (hash >> 48) as u32, (hash as u64) & ((1 << 48) - 1))
}

fn oid(text: &str) -> Option<String> {
    let digits = text.trim().trim_start_matches('.');
    let well_formed = !digits.is_empty()
        && digits.len() <= 1_024
        && digits.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    well_formed.then(|| digits.to_owned())
}

/// The event's object without the pipeline's keys: what the audit log and alerts show.
pub fn public_object(payload: &[u8]) -> Bytes {
    rewritten(payload, |object| json::without(object, |key| key.starts_with('_') && key != "_correlation_id"))
}

/// An alert as we write it.
#[derive(Serialize)]
struct AlertRecord<'a> {
    hostname: &'a str,
    team_assignment: &'a str,
    severity: &'a str,
    message_body: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw_json: Option<&'a RawValue>,
    #[serde(rename = "_correlation_id")]
    correlation_id: &'a str,
    #[serde(rename = "_alert")]
    own: OwnKeys,
}

/// An alert as anybody may have written it: what the contract delivers without a key, or with another
/// type of value, is delivered.
#[derive(Deserialize)]
struct AnyAlert<'a> {
    #[serde(borrow, default)]
    hostname: Option<&'a RawValue>,
    #[serde(borrow, default)]
    team_assignment: Option<&'a RawValue>,
    #[serde(borrow, default)]
    severity: Option<&'a RawValue>,
    #[serde(borrow, default)]
    message_body: Option<&'a RawValue>,
    #[serde(borrow, default)]
    raw_json: Option<&'a RawValue>,
    #[serde(borrow, rename = "_correlation_id", default)]
    correlation_id: Option<&'a RawValue>,
    #[serde(rename = "_alert", default)]
    own: Option<OwnKeys>,
}

/// The contract's word for an alert that names no team (mutt §4).
const UNKNOWN: &str = "Unknown";

#[derive(Serialize, Deserialize)]
struct OwnKeys {
    id: String,
    event_id: String,
    org: String,
    kind: String,
    handling: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rule_id: Option<i64>,
    signature: String,
    created_at: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    detection: Option<DetectionRecord>,
    /// Channels that have not taken it yet; absent = all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    channels: Option<Vec<String>>,
}

/// Writes an alert as its queue record; `channels` names those that are left, `None` = all.
pub fn encode_alert(alert: &Alert, channels: Option<Vec<String>>) -> Bytes {
    let raw = std::str::from_utf8(&alert.raw_json).ok().and_then(|t| serde_json::from_str::<&RawValue>(t).ok());
    let record = AlertRecord {
        hostname: &alert.host,
        team_assignment: &alert.team,
        severity: alert.severity.as_str(),
        message_body: &alert.message,
        raw_json: raw,
        correlation_id: &alert.correlation_id,
        own: OwnKeys {
            id: alert.id.to_string(),
            event_id: alert.event_id.to_string(),
            org: alert.org.to_string(),
            kind: alert.kind.as_str().to_owned(),
            handling: alert.handling.as_str().to_owned(),
            rule_id: alert.rule_id,
            signature: alert.signature.clone(),
            created_at: alert.created_at.rfc3339(),
            detection: alert.detection.as_deref().map(DetectionRecord::from),
            channels,
        },
    };
    Bytes::from(serde_json::to_vec(&record).expect("strings, numbers and valid JSON always encode"))
}

/// Reads an alert's queue record, [`opened`] first, ours or the original's, and the channels that are
/// left.
pub fn decode_alert(payload: &Bytes) -> Result<(Alert, Option<Vec<String>>), String> {
    let payload = &opened(payload);
    let utf8 = std::str::from_utf8(payload).map_err(|e| format!("the record is not UTF-8: {e}"))?;
    let record: AnyAlert<'_> = serde_json::from_str(utf8).map_err(|e| not("an alert", utf8, &e))?;
    let raw_json =
        record.raw_json.map_or_else(|| Bytes::from_static(b"{}"), |raw| Bytes::copy_from_slice(raw.get().as_bytes()));
    let (host, message) = (text(record.hostname), text(record.message_body));
    if host.is_empty() && message.is_empty() {
        return Err("the record is not an alert: it has neither hostname nor message_body".to_owned());
    }
    let host = if host.is_empty() { UNKNOWN.to_owned() } else { host };
    let team = Some(text(record.team_assignment)).filter(|team| !team.is_empty());
    let team = team.unwrap_or_else(|| UNKNOWN.to_owned());
    let severity = AlertSeverity::parse(&text(record.severity)).unwrap_or(AlertSeverity::Warning);
    let correlation = text(record.correlation_id);
    let bad = |what: &str| format!("the record is not an alert: bad {what}");
    let base = |id: AlertId, event_id: EventId| Alert {
        id,
        org: OrgId::default(),
        kind: AlertKind::Rule,
        event_id,
        correlation_id: if correlation.is_empty() { event_id.to_string() } else { correlation.clone() },
        created_at: event_id.accepted(),
        host: host.clone(),
        team: team.clone(),
        severity,
        handling: Handling::new("Page_and_ticket"),
        rule_id: None,
        signature: host.clone(),
        message: message.clone(),
        raw_json: raw_json.clone(),
        detection: None,
    };
    let Some(own) = record.own.as_ref() else {
        let event_id = foreign_id(payload, None);
        return Ok((base(AlertId::derive(event_id, "foreign"), event_id), None));
    };
    let mut alert =
        base(own.id.parse().map_err(|_| bad("_alert.id"))?, own.event_id.parse().map_err(|_| bad("_alert.event_id"))?);
    alert.org = own.org.parse().map_err(|_| bad("_alert.org"))?;
    alert.kind = AlertKind::parse(&own.kind).ok_or_else(|| bad("_alert.kind"))?;
    alert.handling = Handling::new(own.handling.clone());
    alert.rule_id = own.rule_id;
    alert.signature = own.signature.clone();
    alert.created_at = Timestamp::parse(&own.created_at).ok_or_else(|| bad("_alert.created_at"))?;
    alert.detection = own.detection.clone().map(|record| Box::new(record.into()));
    Ok((alert, own.channels.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> EventId {
        EventId::new(Timestamp::from_millis(1_700_000_000_000), 7, 9)
    }

    fn record(object: &str) -> Bytes {
        let event = NewEvent {
            id: None,
            org: "acme".parse().unwrap(),
            input: InputKind::Http,
            correlation_id: Some("c\"1".into()),
            object: Bytes::copy_from_slice(object.as_bytes()),
        };
        encode_event(&event, id())
    }

    #[test]
    fn an_event_keeps_its_object_and_gains_the_pipelines_keys() {
        let record = record(r#"{"hostname":"sw1","message":"x","timestamp":"2026-01-01T00:00:00Z","extra":[1]}"#);
        let json: serde_json::Value = serde_json::from_slice(&record).unwrap();
        assert_eq!(json["extra"][0], 1);
        assert_eq!(json["_correlation_id"], "c\"1");
        let event = decode_event(&record).unwrap();
        assert_eq!((event.id, event.org.as_str(), event.host.as_str()), (id(), "acme", "sw1"));
        assert_eq!(event.correlation_id, "c\"1");
        assert_eq!(event.timestamp, Timestamp::parse("2026-01-01T00:00:00Z").unwrap());
        let public: serde_json::Value = serde_json::from_slice(&public_object(&record)).unwrap();
        assert!(public.get("_event_id").is_none() && public["extra"][0] == 1);
    }

    #[test]
    fn severity_words_and_numbers_in_either_key_are_read() {
        for (fields, code) in [
            (r#""severity":"err""#, Some(3)),
            (r#""syslog_severity":"3""#, Some(3)),
            (r#""syslog_severity":3,"severity":"debug""#, Some(3)),
            (r#""syslog_severity":"high","severity":"warning""#, Some(4)),
            (r#""severity":"high""#, None),
            (r#""severity":null"#, None),
        ] {
            let event = decode_event(&record(&format!(r#"{{"hostname":"h","message":"m","timestamp":1,{fields}}}"#)));
            assert_eq!(event.unwrap().severity.map(Severity::code), code, "{fields}");
        }
    }

    #[test]
    fn oids_lose_their_dot_and_junk_is_no_oid() {
        for (given, expected) in [
            ("\".1.3.6.1\"", Some("1.3.6.1")),
            ("\"1.3.6.1\"", Some("1.3.6.1")),
            ("\"1..3\"", None),
            ("\"linkDown\"", None),
            ("null", None),
        ] {
            let event =
                decode_event(&record(&format!(r#"{{"hostname":"h","message":"m","timestamp":1,"trap_oid":{given}}}"#)));
            assert_eq!(event.unwrap().trap_oid.as_deref(), expected, "{given}");
        }
    }

    #[test]
    fn what_can_never_be_worked_says_why() {
        for (object, why) in [
            (r#"{"hostname":null,"message":"m","timestamp":1}"#, "hostname is empty"),
            (r#"{"hostname":"h","message":"","timestamp":1}"#, "message is empty"),
            (r#"{"hostname":"h","message":5,"timestamp":""}"#, "timestamp is empty"),
        ] {
            assert_eq!(decode_event(&record(object)).unwrap_err(), why);
        }
        assert!(decode_event(&Bytes::from_static(b"[1]")).unwrap_err().contains("not a JSON object"));
        let event = decode_event(&record(r#"{"hostname":"h","message":5,"timestamp":1}"#)).unwrap();
        assert_eq!(event.message, "5", "a number is a message too");
    }

    #[test]
    fn a_foreign_record_gets_the_same_id_every_time() {
        let payload = Bytes::from_static(br#"{"hostname":"h","message":"m","timestamp":"2026-01-01T00:00:00Z"}"#);
        assert_eq!(decode_event(&payload).unwrap().id, decode_event(&payload).unwrap().id);
        let other = Bytes::from_static(br#"{"hostname":"h","message":"n","timestamp":"2026-01-01T00:00:00Z"}"#);
        assert_ne!(decode_event(&payload).unwrap().id, decode_event(&other).unwrap().id);
    }

    #[test]
    fn a_foreign_record_has_the_id_and_without_a_readable_time_the_time_that_it_was_taken_with() {
        let taken = |record: &str| Bytes::from(format!(r#"{{"_event_id":"{}",{record}"#, id()));
        for (record, sent) in [
            (r#""hostname":"h","message":"m","timestamp":"Nov 25 22:00:00"}"#, id().accepted()),
            (
                r#""hostname":"h","message":"m","timestamp":"2015-01-01T00:00:00Z"}"#,
                Timestamp::parse("2015-01-01T00:00:00Z").unwrap(),
            ),
            (r#""hostname":"h","message":"m","timestamp":"?","_event_id":"mine"}"#, id().accepted()),
        ] {
            let event = decode_event(&taken(record)).unwrap();
            assert_eq!((event.id, event.timestamp), (id(), sent), "{record}");
        }
        let alert = taken(r#""hostname":"h","team_assignment":"t","severity":"Major","message_body":"m"}"#);
        let (alert, _) = decode_alert(&alert).unwrap();
        assert_eq!((alert.event_id, alert.created_at), (id(), id().accepted()));
    }

    #[test]
    fn an_alert_survives_the_queue_and_carries_no_key() {
        let alert = testkit::builders::alert().build();
        let record = encode_alert(&alert, Some(vec!["a".into()]));
        let (back, channels) = decode_alert(&record).unwrap();
        assert_eq!(channels.as_deref(), Some(&["a".to_owned()][..]));
        assert_eq!(encode_alert(&back, channels), record);
        assert!(!String::from_utf8_lossy(&record).contains("api_key"));
    }

    #[test]
    fn what_a_detection_says_survives_the_queue() {
        let detection = model::Detection {
            rule_uid: "5a1f".into(),
            title: "Login \0 guessed".into(),
            level: model::Level::High,
            tags: vec!["attack.t1110".into()],
            fields: vec![("SourceIp".into(), "192.0.2.1".into())],
            events: 5,
            ..Default::default()
        };
        let alert = testkit::builders::alert().detection(detection).build();
        let (back, _) = decode_alert(&encode_alert(&alert, None)).unwrap();
        assert_eq!(back.kind, AlertKind::Detection);
        assert_eq!(back.detection, alert.detection);
    }

    #[test]
    fn an_alert_of_the_original_is_understood() {
        let payload = Bytes::from_static(
            br#"{"api_key":"k","hostname":"h","team_assignment":"NETO","severity":"Warning","message_body":"m","raw_json":{"a":1},"_correlation_id":"c"}"#,
        );
        let (alert, channels) = decode_alert(&payload).unwrap();
        assert_eq!((alert.host.as_str(), alert.team.as_str(), alert.correlation_id.as_str()), ("h", "NETO", "c"));
        assert_eq!(channels, None);
    }

    #[test]
    fn an_alert_that_lacks_what_the_contract_does_without_is_delivered() {
        for record in [
            r#"{"hostname":"h","message_body":"m"}"#,
            r#"{"hostname":"h","message_body":"m","team_assignment":null,"severity":7,"_correlation_id":null,"raw_json":null}"#,
            r#"{"hostname":"h","message_body":"m","team_assignment":"","severity":"dire"}"#,
        ] {
            let (alert, _) = decode_alert(&Bytes::from(record)).unwrap();
            assert_eq!((alert.host.as_str(), alert.message.as_str(), alert.team.as_str()), ("h", "m", "Unknown"));
            assert_eq!((alert.severity, alert.correlation_id), (AlertSeverity::Warning, alert.event_id.to_string()));
            assert_eq!(&alert.raw_json[..], b"{}");
        }
        assert!(decode_alert(&Bytes::from_static(b"{}")).unwrap_err().contains("neither hostname nor message_body"));
    }

    fn letter(original: Bytes) -> Bytes {
        storage::queue::encode_dead_letter(&model::DeadLetter {
            side: model::DeadLetterSide::Forwarder,
            reason: "r".into(),
            retryable: true,
            attempts: 6,
            replays: 2,
            failed_at: Timestamp::from_secs(1),
            original,
        })
    }

    #[test]
    fn a_letter_that_a_person_moved_back_is_its_original() {
        let event = record(r#"{"hostname":"h","message":"m","timestamp":1}"#);
        let stamped = |letter: Bytes| {
            let id = EventId::new(Timestamp::from_millis(1_900_000_000_000), 1, 1);
            Bytes::from([format!("{{\"_event_id\":\"{id}\",").as_bytes(), &letter[1..]].concat())
        };
        // Moved back whole, the queue puts an id in front of it, as of all that it does not know.
        for moved in [letter(event.clone()), letter(letter(event.clone())), stamped(letter(event.clone()))] {
            assert_eq!(opened(&moved), event);
            let read = decode_event(&moved).unwrap();
            assert_eq!((read.id, read.raw), (id(), event.clone()));
        }
        let alert = encode_alert(&testkit::builders::alert().build(), None);
        let (read, _) = decode_alert(&letter(letter(alert.clone()))).unwrap();
        assert_eq!(encode_alert(&read, None), alert);
        assert_eq!(opened(&event), event);
        let odd = Bytes::from_static(br#"{"side":"left","hostname":"h","message":"m","timestamp":1}"#);
        assert_eq!(decode_event(&odd).unwrap().message, "m", "an event may have such a key too");
    }

    #[test]
    fn half_a_surrogate_pair_is_matched_as_a_replacement_and_kept_as_it_came() {
        let given = record(r#"{"hostname":"h\ud83d","message":"link \ud83d down","timestamp":1}"#);
        let event = decode_event(&given).unwrap();
        assert_eq!((event.host.as_str(), event.message.as_str()), ("h\u{fffd}", "link \u{fffd} down"));
        assert!(String::from_utf8_lossy(&public_object(&given)).contains(r#""link \ud83d down""#));
    }

    #[test]
    fn what_only_python_calls_json_is_named() {
        let given = Bytes::from_static(br#"{"hostname":"h","message":"m","timestamp":1,"load":NaN}"#);
        assert!(decode_event(&given).unwrap_err().ends_with("(NaN is no JSON)"));
    }

    #[test]
    fn numbers_keep_every_digit() {
        let values = r#""serial":340282366920938463463374607431768211455,"p":0.1000000000000000055511,"x":1e400"#;
        let given = record(&format!(r#"{{"hostname":"h","message":"m","timestamp":1,{values}}}"#));
        for shown in [public_object(&given), with_replays(&given, 2)] {
            assert!(String::from_utf8_lossy(&shown).contains(values), "{shown:?}");
        }
        let event = decode_event(&given).unwrap();
        let alert = testkit::builders::alert().raw_json(std::str::from_utf8(&event.raw).unwrap()).build();
        assert!(String::from_utf8_lossy(&encode_alert(&alert, None)).contains(values));
    }

    #[test]
    fn the_replay_counter_is_one_number_in_the_record() {
        let record = record(r#"{"hostname":"h","message":"m","timestamp":1}"#);
        assert_eq!(replays(&record), 0);
        let again = with_replays(&with_replays(&record, 1), 2);
        assert_eq!(replays(&again), 2);
        assert_eq!(decode_event(&again).unwrap().id, id());
        assert_eq!(with_replays(b"not json", 1), "not json");
    }
}
