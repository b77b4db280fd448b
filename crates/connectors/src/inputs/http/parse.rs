//! Bodies into events: pure. One object, an array, NDJSON, or objects joined by new lines.
//!
//! A single object is judged as the contract does (mutt §2.2–2.3): presence of the required keys,
//! nothing about their values. In a batch every item gets its own verdict, and a bad item loses
//! nothing of its neighbours.

use bytes::Bytes;
use model::RejectReason;
use serde::Deserializer as _;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// What a body must look like.
#[derive(Debug, Clone)]
pub struct BodyRules {
    /// Keys that must be present.
    pub required: Vec<String>,
    /// Deepest nesting of arrays and objects; 1 = a flat object.
    pub depth_max: usize,
    /// Largest single event, bytes.
    pub event_bytes_max: usize,
    /// Most events in one body.
    pub events_max: usize,
}

/// Why something is not an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadEvent {
    pub reason: RejectReason,
    /// As the contract words it.
    pub message: String,
}

impl BadEvent {
    fn malformed(why: impl std::fmt::Display) -> Self {
        Self { reason: RejectReason::Malformed, message: format!("Invalid JSON: {why}") }
    }
}

/// A body taken apart.
#[derive(Debug)]
pub enum Body {
    Single(Result<Bytes, BadEvent>),
    /// In order; an item's bytes are an object as [`crate::inputs::NewEvent`] wants it.
    Batch(Vec<Result<Bytes, BadEvent>>),
}

/// Takes a body apart.
pub fn parse(body: &Bytes, rules: &BodyRules) -> Body {
    // Some editors and Windows tools begin a file with a mark of its encoding.
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii();
    match text.first() {
        None => Body::Single(Err(BadEvent::malformed("Empty or null payload"))),
        Some(b'[') => array(body, text, rules),
        Some(b'{') => objects(body, text, rules),
        Some(_) => {
            let why = match serde_json::from_slice::<IgnoredAny>(text) {
                Ok(_) if text == b"null" => "Empty or null payload".to_owned(),
                Ok(_) => "Payload must be a JSON object".to_owned(),
                Err(error) => error.to_string(),
            };
            Body::Single(Err(BadEvent::malformed(why)))
        }
    }
}

fn array(body: &Bytes, text: &[u8], rules: &BodyRules) -> Body {
    if depth(text) > rules.depth_max + 1 {
        return Body::Single(Err(too_deep(rules)));
    }
    match serde_json::from_slice::<Vec<&RawValue>>(text) {
        Err(error) => Body::Single(Err(BadEvent::malformed(error))),
        Ok(items) if items.len() > rules.events_max => Body::Single(Err(too_many(rules))),
        Ok(items) if items.is_empty() => Body::Single(Err(BadEvent::malformed("Empty or null payload"))),
        Ok(items) => Body::Batch(items.into_iter().map(|item| event(body, item.get().as_bytes(), rules)).collect()),
    }
}

fn objects(body: &Bytes, text: &[u8], rules: &BodyRules) -> Body {
    if !text.contains(&b'\n') && !text.windows(2).any(|w| w == b"}{") {
        let verdict = event(body, text, rules);
        let is_several = matches!(&verdict, Err(bad) if bad.reason == RejectReason::Malformed) && joins_objects(text);
        if !is_several {
            return Body::Single(verdict);
        }
    }
    // The first line alone tells a pretty-printed object from lines of objects.
    let first_line = text.split(|b| *b == b'\n').next().unwrap_or(text);
    if serde_json::from_slice::<IgnoredAny>(first_line).is_err() && serde_json::from_slice::<IgnoredAny>(text).is_ok() {
        return Body::Single(event(body, text, rules));
    }
    let mut items = Vec::new();
    for line in text.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()) {
        if items.len() >= rules.events_max {
            return Body::Single(Err(too_many(rules)));
        }
        match event(body, line, rules) {
            Err(bad) if bad.reason == RejectReason::Malformed => joined(body, line, rules, bad, &mut items),
            verdict => items.push(verdict),
        }
    }
    // Lines of which none is an object are one object that is broken, and what is wrong with it as a whole counts.
    let is_malformed =
        |item: &Result<Bytes, BadEvent>| matches!(item, Err(bad) if bad.reason == RejectReason::Malformed);
    if items.len() == 1 || items.iter().all(is_malformed) {
        return Body::Single(event(body, text, rules));
    }
    Body::Batch(items)
}

/// Whether, somewhere, one object ends and another begins after spaces.
fn joins_objects(text: &[u8]) -> bool {
    let ends = text.iter().enumerate().filter(|(_, byte)| **byte == b'}');
    ends.into_iter().any(|(at, _)| {
        let rest = text.get(at + 1..).unwrap_or_default();
        rest.first().is_some_and(u8::is_ascii_whitespace) && rest.trim_ascii_start().first() == Some(&b'{')
    })
}

/// A line that is not one object may be several, one right after the other.
fn joined(body: &Bytes, line: &[u8], rules: &BodyRules, bad: BadEvent, items: &mut Vec<Result<Bytes, BadEvent>>) {
    let mut stream = serde_json::Deserializer::from_slice(line).into_iter::<&RawValue>();
    let mut found = Vec::new();
    for value in stream.by_ref() {
        match value {
            Ok(value) => found.push(event(body, value.get().as_bytes(), rules)),
            Err(_) => {
                found.push(Err(bad));
                break;
            }
        }
        if items.len() + found.len() > rules.events_max {
            found.push(Err(too_many(rules)));
            break;
        }
    }
    items.append(&mut found);
}

fn too_many(rules: &BodyRules) -> BadEvent {
    BadEvent {
        reason: RejectReason::TooLarge,
        message: format!("Too many events in one request: at most {}", rules.events_max),
    }
}

fn too_deep(rules: &BodyRules) -> BadEvent {
    BadEvent {
        reason: RejectReason::TooDeep,
        message: format!("Invalid JSON: nested deeper than {} levels", rules.depth_max),
    }
}

/// Judges one item; its bytes are a slice of `body` where possible.
fn event(body: &Bytes, text: &[u8], rules: &BodyRules) -> Result<Bytes, BadEvent> {
    if text.len() > rules.event_bytes_max {
        return Err(BadEvent {
            reason: RejectReason::TooLarge,
            message: format!("Event of {} bytes is over the bound of {} bytes", text.len(), rules.event_bytes_max),
        });
    }
    // Few brackets cannot nest deep; counting them is much quicker than looking where they stand.
    let brackets = text.iter().filter(|b| matches!(b, b'{' | b'[')).count();
    if brackets > rules.depth_max && depth(text) > rules.depth_max {
        return Err(too_deep(rules));
    }
    // Skipped values are not checked by the JSON parser, and what is stored must be UTF-8.
    let text_utf8 = std::str::from_utf8(text).map_err(BadEvent::malformed)?;
    let mut deserializer = serde_json::Deserializer::from_str(text_utf8);
    let keys = Keys { required: &rules.required, missing: (0..rules.required.len()).collect(), internal: false };
    let keys = match text.first() {
        Some(b'{') => deserializer.deserialize_map(keys).map_err(BadEvent::malformed)?,
        _ => {
            serde_json::from_slice::<IgnoredAny>(text).map_err(BadEvent::malformed)?;
            let why = if text == b"null" { "Empty or null payload" } else { "Payload must be a JSON object" };
            return Err(BadEvent::malformed(why));
        }
    };
    deserializer.end().map_err(BadEvent::malformed)?;
    if text.get(1..text.len() - 1).is_none_or(|inner| inner.trim_ascii().is_empty()) {
        return Err(BadEvent::malformed("Empty or null payload"));
    }
    if !keys.missing.is_empty() {
        let names: Vec<String> = keys.missing.iter().map(|i| format!("'{}'", rules.required[*i])).collect();
        return Err(BadEvent {
            reason: RejectReason::MissingField,
            message: format!("Missing required fields: [{}]", names.join(", ")),
        });
    }
    if keys.internal {
        return without_internal_keys(text_utf8);
    }
    Ok(body.slice_ref(text))
}

/// Keys that begin with `_` belong to the pipeline; a client's are dropped, as the original
/// overwrites `_correlation_id`. The rest stays as it was written.
fn without_internal_keys(text: &str) -> Result<Bytes, BadEvent> {
    let object = model::json::without(text, |key| key.starts_with('_'));
    object.map(Bytes::from).ok_or_else(|| BadEvent::malformed("Payload must be a JSON object"))
}

/// Deepest nesting of the text, by brackets outside strings; no recursion, so no depth can hurt.
fn depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0usize, 0usize, false, false);
    for byte in text {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

struct Keys<'a> {
    required: &'a [String],
    /// Indexes of required keys not seen yet.
    missing: Vec<usize>,
    internal: bool,
}

impl<'de> Visitor<'de> for Keys<'_> {
    type Value = Self;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        while let Some(Key(key)) = map.next_key::<Key<'de>>()? {
            self.internal |= key.starts_with('_');
            let required = self.required;
            self.missing.retain(|i| required[*i] != key);
            map.next_value::<IgnoredAny>()?;
        }
        Ok(self)
    }
}

/// A key, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules() -> BodyRules {
        BodyRules {
            required: ["hostname", "message", "timestamp"].map(String::from).to_vec(),
            depth_max: 8,
            event_bytes_max: 1_000,
            events_max: 50,
        }
    }

    const GOOD: &str = r#"{"hostname":"h","message":"m","timestamp":"t"}"#;

    /// `+` accepted, `-` refused; a single body without brackets, a batch within.
    fn check(body: &str, expected: &str) {
        let mark = |r: &Result<Bytes, BadEvent>| if r.is_ok() { '+' } else { '-' };
        let got = match parse(&Bytes::copy_from_slice(body.as_bytes()), &rules()) {
            Body::Single(one) => mark(&one).to_string(),
            Body::Batch(items) => format!("[{}]", items.iter().map(mark).collect::<String>()),
        };
        assert_eq!(got, expected, "{body}");
    }

    fn message(body: &str) -> String {
        match parse(&Bytes::copy_from_slice(body.as_bytes()), &rules()) {
            Body::Single(Err(bad)) => bad.message,
            other => panic!("{body}: {other:?}"),
        }
    }

    #[test]
    fn bodies_of_every_shape_are_taken_apart() {
        check(GOOD, "+");
        check(&format!("  {GOOD}\n"), "+");
        check(&format!("\u{feff}{GOOD}"), "+");
        check(&format!("\u{feff}[{GOOD}]"), "[+]");
        check(&GOOD.replace(',', ",\n  "), "+");
        check(&format!("[{GOOD},{GOOD}]"), "[++]");
        check(&format!("[{GOOD},5,{{}},null,{GOOD}]"), "[+---+]");
        check(&format!("{GOOD}\n{GOOD}\n"), "[++]");
        check(&format!("{GOOD}\r\n\r\n{GOOD}"), "[++]");
        check(&format!("{GOOD}{GOOD}\n{GOOD}"), "[+++]");
        check(&format!("{GOOD} {GOOD}"), "[++]");
        check(&format!("{GOOD} \t {GOOD}  {{\"a\":1}}"), "[++-]");
        check(&format!("{GOOD} trash"), "-");
        check("{\"a\":1}\n{\"b\":2}", "[--]");
        check(&format!("{GOOD}\n{{broken\n{GOOD}"), "[+-+]");
        check(&format!("{GOOD}\n[1]\n{GOOD}"), "[+-+]");
        check(&format!("[{GOOD}"), "-");
        check("[]", "-");
        check("{broken\n}", "-");
    }

    #[test]
    fn refusals_are_worded_as_the_contract_does() {
        assert_eq!(message(""), "Invalid JSON: Empty or null payload");
        assert_eq!(message("null"), "Invalid JSON: Empty or null payload");
        assert_eq!(message("{}"), "Invalid JSON: Empty or null payload");
        assert_eq!(message("5"), "Invalid JSON: Payload must be a JSON object");
        assert_eq!(message("\"text\""), "Invalid JSON: Payload must be a JSON object");
        assert_eq!(message(r#"{"message":"m"}"#), "Missing required fields: ['hostname', 'timestamp']");
        assert!(message("{\"a\":").starts_with("Invalid JSON: EOF"));
    }

    #[test]
    fn presence_alone_is_required_as_in_the_original() {
        check(r#"{"hostname":null,"message":5,"timestamp":""}"#, "+");
    }

    #[test]
    fn a_client_cannot_forge_internal_keys() {
        let body = r#"{"hostname":"h","_event_id":"evt_x","message":"m","\u005forg":"other","timestamp":"t"}"#;
        let Body::Single(Ok(object)) = parse(&Bytes::from_static(body.as_bytes()), &rules()) else { panic!() };
        assert_eq!(object, GOOD);
    }

    #[test]
    fn numbers_keep_every_digit_also_beside_an_internal_key() {
        let values =
            r#""hostname":"h","message":"m","timestamp":1,"z":340282366920938463463374607431768211455,"a":1e400"#;
        let body = Bytes::from(format!(r#"{{"_x":1,{values}}}"#));
        let Body::Single(Ok(object)) = parse(&body, &rules()) else { panic!() };
        assert_eq!(object, format!("{{{values}}}"));
    }

    #[test]
    fn size_depth_and_number_are_bounded() {
        let deep = format!(r#"{{"hostname":1,"message":{}1{},"timestamp":1}}"#, "[".repeat(8), "]".repeat(8));
        assert_eq!(message(&deep), "Invalid JSON: nested deeper than 8 levels");
        check(&deep.replacen('[', "", 1).replacen(']', "", 1), "+");
        check(&"[".repeat(1_000_000), "-");
        check(&format!("[{}{GOOD}]", format!("{GOOD},").repeat(50)), "-");
        check(&format!("{GOOD}\n").repeat(51), "-");
        let large = format!(r#"{{"hostname":1,"timestamp":1,"message":"{}"}}"#, "x".repeat(1_000));
        assert!(message(&large).contains("over the bound of 1000 bytes"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_accepted_ones_are_clean_objects(body: Vec<u8>, tail in "\\PC{0,20}") {
            for body in [body, format!("{GOOD}\n{tail}").into_bytes(), format!("[{GOOD},{tail}]").into_bytes()] {
                let verdicts = match parse(&Bytes::from(body), &rules()) {
                    Body::Single(one) => vec![one],
                    Body::Batch(items) => items,
                };
                for object in verdicts.into_iter().flatten() {
                    let (first, last) = (object.first().copied(), object.last().copied());
                    prop_assert_eq!((first, last), (Some(0x7b), Some(0x7d)));
                    let map: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&object).unwrap();
                    prop_assert!(map.keys().all(|k| !k.starts_with('_')));
                }
            }
        }
    }
}
