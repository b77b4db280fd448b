//! "The message contains this text, in any case", asked of an event's JSON.

use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// A text to look for.
pub(super) struct Needle {
    lower: String,
}

#[derive(Deserialize)]
struct Probe<'a> {
    #[serde(borrow)]
    message: Option<&'a RawValue>,
}

impl Needle {
    pub fn new(text: &str) -> Self {
        Self { lower: text.to_lowercase() }
    }

    /// Whether the `message` of the JSON object `raw` contains the text. `scratch` is used again from
    /// call to call.
    pub fn is_in_message_of(&self, raw: &[u8], scratch: &mut String) -> bool {
        self.may_be_in(raw, scratch)
            && message_of(raw).is_some_and(|message| message.to_lowercase().contains(&self.lower))
    }

    /// Most events say no here, without being parsed: in plain ASCII without escapes the text stands
    /// as it is or not at all.
    fn may_be_in(&self, raw: &[u8], scratch: &mut String) -> bool {
        let Some(ascii) = raw.is_ascii().then(|| std::str::from_utf8(raw).ok()).flatten() else { return true };
        scratch.clear();
        scratch.push_str(ascii);
        scratch.make_ascii_lowercase();
        // No early exit in the second look: so it is done many bytes at a time.
        scratch.contains(&self.lower) || raw.iter().fold(false, |any, byte| any | (*byte == b'\\'))
    }
}

/// Numbers and booleans are read as their JSON text.
fn message_of(raw: &[u8]) -> Option<Cow<'_, str>> {
    let json = match serde_json::from_slice::<Probe<'_>>(raw) {
        Ok(probe) => probe.message?.get(),
        Err(_) => return message_of_odd_object(raw).map(Cow::Owned),
    };
    if json.starts_with('"') { serde_json::from_str(json).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(json)) }
}

/// Of an object that names a field twice: the last one counts.
fn message_of_odd_object(raw: &[u8]) -> Option<String> {
    match serde_json::from_slice::<serde_json::Value>(raw).ok()?.get("message")? {
        serde_json::Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_message_counts_in_any_case_and_script() {
        for (raw, text, expected) in [
            (r#"{"message":"Link DOWN on ge-0/0/1","hostname":"r1"}"#, "link down", true),
            (r#"{"message":"up","hostname":"down"}"#, "down", false),
            (r#"{"message":"Straße GESPERRT"}"#, "straße gesperrt", true),
            (r#"{"message":"ПОРТ закрыт"}"#, "порт", true),
            (r#"{"message":"\u041f\u043e\u0440\u0442"}"#, "ПОРТ", true),
            (r#"{"message":"a \"quoted\" word"}"#, "\"QUOTED\"", true),
            (r#"{"message":42}"#, "42", true),
            (r#"{"message":null}"#, "null", false),
            (r#"{"message":"x","message":"last"}"#, "LAST", true),
            (r#"{"other":"needle"}"#, "needle", false),
            (r#"{"message":"needl"}"#, "needle", false),
            (r#"{"message":"nneedle"}"#, "needle", true),
            (r#"{"message":"anything"}"#, "", true),
            ("no json needle", "needle", false),
        ] {
            assert_eq!(
                Needle::new(text).is_in_message_of(raw.as_bytes(), &mut String::new()),
                expected,
                "{text} in {raw}"
            );
        }
    }
}
