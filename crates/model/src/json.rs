//! JSON objects as text: looking at keys and leaving keys out without touching a value. A number of
//! forty digits and an escape that no character stands for pass as they were written.
//!
//! For text that a JSON parser has accepted, at least its structure. Anything else is `None`, or
//! comes out as it went in; nothing panics.

use std::borrow::Cow;

/// The members of an object in order, each as `(key, value)` in the text as written, key unquoted.
/// `None` where the text is not an object.
pub fn members(object: &str) -> Option<Vec<(Cow<'_, str>, &str)>> {
    Some(written(object)?.into_iter().map(|(key, value)| (text(key), value)).collect())
}

/// As [`members`], keys as they are written.
fn written(object: &str) -> Option<Vec<(&str, &str)>> {
    let mut rest = object.trim_ascii().strip_prefix('{')?.strip_suffix('}')?.trim_ascii();
    let mut members = Vec::new();
    while !rest.is_empty() {
        let (key, after) = rest.split_at(string_end(rest)?);
        let value = after.trim_ascii_start().strip_prefix(':')?.trim_ascii_start();
        let (value, after) = value.split_at(value_end(value));
        let value = value.trim_ascii_end();
        if value.is_empty() {
            return None;
        }
        members.push((key, value));
        rest = match after.strip_prefix(',') {
            // A comma with nothing behind it is no object.
            Some(more) => Some(more.trim_ascii_start()).filter(|more| !more.is_empty())?,
            None => after,
        };
    }
    Some(members)
}

/// The object without the members whose keys `leave_out` names; what stays is copied as written.
/// `None` where the text is not an object.
pub fn without(object: &str, leave_out: impl Fn(&str) -> bool) -> Option<String> {
    let whole = object.trim_ascii();
    let mut out = String::with_capacity(whole.len());
    for (key, value) in written(whole)? {
        if leave_out(&text(key)) {
            continue;
        }
        out.push(if out.is_empty() { '{' } else { ',' });
        out.push_str(key);
        out.push(':');
        out.push_str(value);
    }
    if out.is_empty() {
        out.push('{');
    }
    out.push('}');
    Some(out)
}

/// The object with one member more, the last. `None` where the text is not an object.
pub fn with(object: &str, key: &str, value: &str) -> Option<String> {
    let body = object.trim_ascii().strip_prefix('{')?.strip_suffix('}')?.trim_ascii();
    let mut out = String::with_capacity(object.len() + key.len() + value.len() + 8);
    out.push('{');
    out.push_str(body);
    if !body.is_empty() {
        out.push(',');
    }
    push_string(&mut out, key);
    out.push(':');
    out.push_str(value);
    out.push('}');
    Some(out)
}

/// What a string literal says. Half of a surrogate pair, which other writers of JSON let through,
/// reads as U+FFFD; text that is no literal is returned as it is.
pub fn text(literal: &str) -> Cow<'_, str> {
    let Some(inner) = literal.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return Cow::Borrowed(literal);
    };
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    let mut out = String::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let (what, after) = unescape(&rest[at + 1..]);
        out.push(what);
        rest = after;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The character of an escape, given what stands behind its backslash, and the text after it.
fn unescape(escape: &str) -> (char, &str) {
    let mut chars = escape.chars();
    let what = match chars.next() {
        Some('n') => '\n',
        Some('t') => '\t',
        Some('r') => '\r',
        Some('b') => '\u{8}',
        Some('f') => '\u{c}',
        Some('u') => return unicode(chars.as_str()),
        Some(itself) => itself,
        None => char::REPLACEMENT_CHARACTER,
    };
    (what, chars.as_str())
}

fn unicode(digits: &str) -> (char, &str) {
    let Some((unit, after)) = hex4(digits) else { return (char::REPLACEMENT_CHARACTER, digits) };
    if let Some(whole) = char::from_u32(unit) {
        return (whole, after);
    }
    let low = after.strip_prefix("\\u").and_then(hex4);
    match low {
        Some((low, after)) if unit < 0xdc00 && (0xdc00..0xe000).contains(&low) => {
            let code = 0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
            (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), after)
        }
        _ => (char::REPLACEMENT_CHARACTER, after),
    }
}

fn hex4(text: &str) -> Option<(u32, &str)> {
    let digits = text.get(..4).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
    Some((u32::from_str_radix(digits, 16).ok()?, &text[4..]))
}

/// Where the string literal at the beginning ends.
fn string_end(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    if bytes.first() != Some(&b'"') {
        return None;
    }
    let mut at = 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Where the value at the beginning ends: before the comma behind it, or with the text.
fn value_end(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0usize);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at += string_end(&text[at..]).unwrap_or(bytes.len() - at);
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => break,
            _ => {}
        }
        at += 1;
    }
    at
}

fn push_string(out: &mut String, text: &str) {
    use std::fmt::Write;
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_stays_is_as_it_was_written() {
        for (object, rest) in [
            (
                r#"{"_a":1,"b":340282366920938463463374607431768211455}"#,
                r#"{"b":340282366920938463463374607431768211455}"#,
            ),
            (r#"{"b":0.1000000000000000055511,"_c":1e400}"#, r#"{"b":0.1000000000000000055511}"#),
            (r#" { "b" : [1, {"_x": "}"}] , "_c" : "\"," } "#, r#"{"b":[1, {"_x": "}"}]}"#),
            (r#"{"b":"\ud83d","\u005fc":2}"#, r#"{"b":"\ud83d"}"#),
            (r#"{"_c":2}"#, "{}"),
            ("{}", "{}"),
            (r#"{"q\"\\\n":1}"#, r#"{"q\"\\\n":1}"#),
        ] {
            assert_eq!(without(object, |key| key.starts_with('_')).unwrap(), rest, "{object}");
        }
    }

    #[test]
    fn a_member_goes_to_the_end() {
        assert_eq!(with("{}", "a", "1").unwrap(), r#"{"a":1}"#);
        assert_eq!(with(r#"{"b":2 }"#, "a", "1").unwrap(), r#"{"b":2,"a":1}"#);
        assert_eq!(with("[1]", "a", "1"), None);
    }

    #[test]
    fn what_is_no_object_is_none() {
        for odd in ["", "{", "}", "[1]", "null", "{a}", r#"{"a"}"#, r#"{"a":}"#, r#"{"a":1,}"#, r#"{"a" 1}"#, r#"{"a"#]
        {
            assert_eq!(members(odd), None, "{odd}");
        }
    }

    #[test]
    fn escapes_are_read_and_half_a_pair_is_a_replacement() {
        for (literal, expected) in [
            (r#""plain""#, "plain"),
            (r#""a\n\t\"\\\/b""#, "a\n\t\"\\/b"),
            (r#""\u00e9\ud83d\ude00""#, "é😀"),
            (r#""x\ud83d""#, "x\u{fffd}"),
            (r#""\ud83dx""#, "\u{fffd}x"),
            (r#""\ud83d\u0041""#, "\u{fffd}A"),
            (r#""\ude00\ud83d\ude00""#, "\u{fffd}😀"),
            (r#""\ud83d\n""#, "\u{fffd}\n"),
            ("5", "5"),
        ] {
            assert_eq!(text(literal), expected, "{literal}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(object in "\\PC*", inner in r#"[\\"u0-9a-f{}\[\]:, ]{0,40}"#) {
            for object in [object, format!("{{{inner}}}"), format!("{{\"a\":{inner}}}"), format!("\"{inner}\"")] {
                let _ = (without(&object, |_| false), with(&object, "k", "1"), text(&object));
            }
        }

        #[test]
        fn keys_and_values_come_out_again(pairs in prop::collection::vec(("\\PC{0,8}", "[a-z,:{}]{0,8}"), 0..6)) {
            let mut object = String::from("{}");
            for (key, value) in &pairs {
                object = with(&object, key, &format!("[\"{value}\" , 1]")).unwrap();
            }
            let found = members(&object).unwrap();
            prop_assert_eq!(found.len(), pairs.len());
            for ((key, value), (k, v)) in found.iter().zip(&pairs) {
                prop_assert_eq!((&**key, *value), (&**k, &*format!("[\"{v}\" , 1]")));
            }
            prop_assert_eq!(without(&object, |_| false).unwrap(), object);
        }
    }
}
