//! `key=value key="more words"`, as many programs log. Names stay as they are; those that other
//! parsers vouch for are not taken, since anybody's text may be a value without quotes here.

use super::{Line, Parser, Reading};
use std::borrow::Cow;

pub(super) const PARSER: Parser =
    Parser { name: "key=value", programs: &[], sniff: Some(sniff), product: None, services: &[], read };

/// Pairs that are read of one line.
const PAIRS_MAX: usize = 256;

/// Names that say who did what or where a line comes from: only the event itself, or a parser that
/// knows the program, may give them.
pub(super) const RESERVED: &[&str] = &[
    "SourceIp",
    "SourcePort",
    "SourceHostname",
    "User",
    "TargetUser",
    "src_ip",
    "c-ip",
    "Image",
    "CommandLine",
    "ParentImage",
    "event_type",
    "event_action",
    "event_outcome",
    "type",
    "EventID",
    "Channel",
    "hostname",
    "message",
    "timestamp",
    "severity",
    "program",
    "app_name",
    "facility",
    "stream",
    "source_ip",
];

/// Begins with a pair, and has another.
fn sniff(text: &str) -> bool {
    let mut words = text.split(' ').take(2);
    let pair = |word: Option<&str>| word.and_then(|word| word.split_once('=')).is_some_and(|(key, _)| is_key(key));
    pair(words.next()) && (pair(words.next()) || text.contains("\" "))
}

fn read<'m>(line: Line<'m>, out: &mut Reading<'m>) -> bool {
    pairs(line.text.trim(), out) > 1
}

/// Pushes the pairs of the text, of a key that comes again the first; how many there were.
pub(super) fn pairs<'m>(text: &'m str, out: &mut Reading<'m>) -> usize {
    let mut keys: Vec<&str> = Vec::new();
    let mut rest = text;
    while let Some(equals) = rest.find('=') {
        let key = rest[..equals].rsplit([' ', ',', '\t']).next().unwrap_or_default();
        let (value, after) = value(&rest[equals + 1..]);
        rest = after;
        if is_key(key) && !RESERVED.contains(&key) && !keys.contains(&key) {
            if keys.len() == PAIRS_MAX {
                break;
            }
            keys.push(key);
            out.push(key, value);
        }
    }
    keys.len()
}

fn is_key(key: &str) -> bool {
    !key.is_empty()
        && key.len() <= 64
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'@' | b'/'))
}

/// A value, in quotes or up to the next space, and what is behind it.
fn value(text: &str) -> (Cow<'_, str>, &str) {
    let Some(inner) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t']).unwrap_or(text.len());
        return (Cow::Borrowed(&text[..end]), &text[end..]);
    };
    let mut escaped = false;
    let mut escapes = false;
    let end = inner.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        escapes |= escaped;
        ends
    });
    let Some(end) = end else { return (Cow::Borrowed(inner), "") };
    let value = &inner[..end];
    let value =
        if escapes { Cow::Owned(value.replace("\\\"", "\"").replace("\\\\", "\\")) } else { Cow::Borrowed(value) };
    (value, &inner[end + 1..])
}
