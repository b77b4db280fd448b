//! An event's fields as the engines store them.

use model::{EventSource, Fields};
use std::collections::BTreeMap;
use std::fmt::Write;

/// The fields as SQLite keeps them: one flat JSON object, sorted by name. One value is a string, none
/// is `null`, several are an array of strings and nulls in their order.
pub fn fields_json(fields: &Fields<'_>) -> String {
    let mut out = String::from("{");
    for (name, values) in by_name(fields) {
        member(name, &mut out);
        match &*values {
            [one] => value(*one, &mut out),
            several => list(several.iter().copied(), &mut out),
        }
    }
    out.push('}');
    out
}

/// The fields as ClickHouse reads them for a `Map(String, Array(String))` in `JSONEachRow`: every
/// name with the list of its values, empty where it has none.
pub fn fields_map_json(fields: &Fields<'_>) -> String {
    let mut out = String::from("{");
    for (name, values) in by_name(fields) {
        member(name, &mut out);
        list(values.into_iter().filter(Option::is_some), &mut out);
    }
    out.push('}');
    out
}

/// What is known about an event's log source, for both engines: an object with the lists that are known
/// among `product` (of one), `category` and `service`. ClickHouse reads it in `JSONEachRow`.
pub fn source_json(source: &EventSource<'_>) -> String {
    let product = source.product.as_ref().map(std::slice::from_ref);
    let parts =
        [("product", product), ("category", source.categories.as_deref()), ("service", source.services.as_deref())];
    let mut out = String::from("{");
    for (name, known) in parts {
        if let Some(known) = known {
            member(name, &mut out);
            list(known.iter().map(|text| Some(&**text)), &mut out);
        }
    }
    out.push('}');
    out
}

fn by_name<'f>(fields: &'f Fields<'_>) -> BTreeMap<&'f str, Vec<Option<&'f str>>> {
    let mut by_name: BTreeMap<&str, Vec<Option<&str>>> = BTreeMap::new();
    for leaf in fields.leaves() {
        by_name.entry(&leaf.name).or_default().push(leaf.value.as_deref());
    }
    by_name
}

fn member(name: &str, out: &mut String) {
    if out.len() > 1 {
        out.push(',');
    }
    string(name, out);
    out.push(':');
}

fn list<'v>(values: impl Iterator<Item = Option<&'v str>>, out: &mut String) {
    out.push('[');
    for (at, one) in values.enumerate() {
        if at > 0 {
            out.push(',');
        }
        value(one, out);
    }
    out.push(']');
}

fn value(value: Option<&str>, out: &mut String) {
    match value {
        Some(text) => string(text, out),
        None => out.push_str("null"),
    }
}

fn string(text: &str, out: &mut String) {
    out.push('"');
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.push_str(&text[plain..at]);
        plain = at + 1;
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            control => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{control:04x}");
            }
        }
    }
    out.push_str(&text[plain..]);
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_sources_only_what_is_known_is_said() {
        let mut source = EventSource::default();
        assert_eq!(source_json(&source), "{}");
        source.product = Some("windows".into());
        source.services = Some(vec![]);
        assert_eq!(source_json(&source), r#"{"product":["windows"],"service":[]}"#);
        source.categories = Some(vec!["a".into(), "b\"".into()]);
        assert_eq!(source_json(&source), r#"{"product":["windows"],"category":["a","b\""],"service":[]}"#);
    }

    #[test]
    fn names_are_sorted_and_joined_and_texts_are_escaped() {
        let mut fields = Fields::new(EventSource::default());
        assert_eq!(fields_json(&fields), "{}");
        fields.push("b", "x\"\\\n\u{0}é");
        fields.push_null("a{");
        fields.push("c", "1");
        fields.push_null("c");
        fields.push("c", "");
        assert_eq!(fields_json(&fields), r#"{"a{":null,"b":"x\"\\\n\u0000é","c":["1",null,""]}"#);
        assert_eq!(fields_map_json(&fields), r#"{"a{":[],"b":["x\"\\\n\u0000é"],"c":["1",""]}"#);
    }
}
