//! CEF and LEEF, which security products send: a header in bars, and pairs behind it.

use super::key_value::RESERVED;
use super::text::{bracketed_ip, number};
use super::{Line, Parser, Reading};
use std::borrow::Cow;

pub(super) const PARSER: Parser =
    Parser { name: "CEF and LEEF", programs: &["cef", "leef"], sniff: Some(sniff), product: None, services: &[], read };

/// Pairs that are read of one line.
const PAIRS_MAX: usize = 256;

fn sniff(text: &str) -> bool {
    let version = |rest: &str| {
        rest.split('|').next().is_some_and(|word| word.len() <= 3 && word.starts_with(|c: char| c.is_ascii_digit()))
    };
    text.strip_prefix("CEF:").is_some_and(version) || text.strip_prefix("LEEF:").is_some_and(version)
}

fn read<'m>(line: Line<'m>, out: &mut Reading<'m>) -> bool {
    let text = line.text.trim_end();
    // A relay may have taken `CEF` for the program.
    let read = match (text.strip_prefix("CEF:"), text.strip_prefix("LEEF:")) {
        (Some(rest), _) => cef(rest, out),
        (None, Some(rest)) => leef(rest, out),
        (None, None) if line.program.eq_ignore_ascii_case("cef") => cef(text.trim_start(), out),
        (None, None) => leef(text.trim_start(), out),
    };
    read.is_some()
}

/// `0|vendor|product|version|signature|name|severity|pairs`
fn cef<'m>(rest: &'m str, out: &mut Reading<'m>) -> Option<()> {
    const HEADER: [&str; 7] =
        ["cef_version", "device_vendor", "device_product", "device_version", "signature_id", "name", "cef_severity"];
    let mut rest = rest;
    for name in HEADER {
        let (value, behind) = bar(rest)?;
        out.push(name, unescape(value));
        rest = behind;
    }
    let found = cef_pairs(rest, out);
    network(&found, out);
    Some(())
}

/// Up to the next bar that has no backslash.
fn bar(text: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    let end = text.bytes().position(|byte| {
        let ends = byte == b'|' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })?;
    Some((&text[..end], &text[end + 1..]))
}

fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, if c == '\\' { chars.next() } else { None }) {
            ('\\', Some('n')) => out.push('\n'),
            ('\\', Some('r')) => out.push('\r'),
            ('\\', Some(other)) => out.push(other),
            (c, _) => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// Values hold spaces, so a value ends where the next `key=` begins; `=` in values has a backslash.
fn cef_pairs<'m>(text: &'m str, out: &mut Reading<'m>) -> Vec<(&'m str, &'m str)> {
    let bytes = text.as_bytes();
    // Where each pair's key begins and its `=` stands.
    let mut keys: Vec<(usize, usize)> = Vec::new();
    let mut key_start = Some(0);
    let mut escaped = false;
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'=' if !escaped => {
                if let Some(start) = key_start.take()
                    && start < at
                    && keys.len() < PAIRS_MAX
                {
                    keys.push((start, at));
                }
            }
            b' ' => key_start = Some(at + 1),
            b if !(b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-')) => key_start = None,
            _ => {}
        }
        escaped = *byte == b'\\' && !escaped;
    }
    let mut found = Vec::new();
    for (at, (start, equals)) in keys.iter().enumerate() {
        let end = keys.get(at + 1).map_or(text.len(), |(next, _)| next.saturating_sub(1));
        let (key, value) = (&text[*start..*equals], text[equals + 1..end.max(equals + 1)].trim_end());
        if !RESERVED.contains(&key) {
            out.push(key, unescape(value));
        }
        found.push((key, value));
    }
    found
}

/// `2.0|vendor|product|version|event|^|pairs`, `1.0|vendor|product|version|event|pairs`
fn leef<'m>(rest: &'m str, out: &mut Reading<'m>) -> Option<()> {
    const HEADER: [&str; 5] = ["leef_version", "device_vendor", "device_product", "device_version", "signature_id"];
    let mut rest = rest;
    let mut version = "";
    for name in HEADER {
        let (value, behind) = rest.split_once('|')?;
        out.push(name, value);
        if name == "leef_version" {
            version = value;
        }
        rest = behind;
    }
    let mut separator = '\t';
    if version.starts_with('2')
        && let Some((given, behind)) = rest.split_once('|').filter(|(given, _)| given.len() <= 5)
    {
        let code = given.strip_prefix("0x").or_else(|| given.strip_prefix('x'));
        separator = code
            .and_then(|code| u32::from_str_radix(code, 16).ok())
            .and_then(char::from_u32)
            .or_else(|| given.chars().next())
            .unwrap_or('\t');
        rest = behind;
    }
    let mut found = Vec::new();
    for (key, value) in rest.split(separator).filter_map(|pair| pair.split_once('=')).take(PAIRS_MAX) {
        let key = key.trim();
        if !key.is_empty() && key.len() <= 64 && !RESERVED.contains(&key) {
            out.push(key, value);
            found.push((key, value));
        }
    }
    network(&found, out);
    Some(())
}

/// The names of categories for what both formats call the same. A key that comes twice may be part
/// of somebody's text: then there is no address.
fn network<'m>(found: &[(&'m str, &'m str)], out: &mut Reading<'m>) {
    for (theirs, ours) in [
        ("src", ["src_ip", "SourceIp"].as_slice()),
        ("dst", &["dst_ip", "DestinationIp"]),
        ("spt", &["src_port", "SourcePort"]),
        ("dpt", &["dst_port", "DestinationPort"]),
        ("srcPort", &["src_port", "SourcePort"]),
        ("dstPort", &["dst_port", "DestinationPort"]),
    ] {
        let mut values = found.iter().filter(|(key, _)| *key == theirs);
        let (Some((_, value)), None) = (values.next(), values.next()) else { continue };
        let valid =
            if theirs.len() == 3 && theirs != "spt" && theirs != "dpt" { bracketed_ip(value) } else { number(value) };
        for ours in ours {
            out.some(ours, valid);
        }
    }
}
