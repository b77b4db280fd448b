//! Lines of real devices (written by us in their forms) and the fields they must give.
#![allow(clippy::unwrap_used, reason = "a test and its helpers")]

use connectors::inputs::syslog::parse::{ParseContext, encode, parse};
use jiff::tz::TimeZone;
use model::Timestamp;
use serde_json::{Map, Value};

fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b != b'\\' {
            out.push(b);
            continue;
        }
        match bytes.next().unwrap() {
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'\\' => out.push(b'\\'),
            b'x' => {
                let hex = [bytes.next().unwrap(), bytes.next().unwrap()];
                out.push(u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap());
            }
            other => panic!("unknown escape \\{} in {text}", other as char),
        }
    }
    out
}

fn event(line: &[u8]) -> Map<String, Value> {
    let ctx = ParseContext {
        received_at: Timestamp::parse("2026-11-22T10:00:00Z").unwrap(),
        peer_ip: Some("192.0.2.1"),
        timezone: &TimeZone::UTC,
    };
    let mut out = Vec::new();
    encode(&parse(line, &ctx), false, &mut out);
    match serde_json::from_slice(&out).unwrap() {
        Value::Object(map) => map,
        other => panic!("{other}"),
    }
}

/// Checks one file; says everything that is wrong at once.
fn check(name: &str, text: &str) -> usize {
    let mut problems = String::new();
    let mut cases = 0;
    let mut line = None;
    for (number, row) in text.lines().enumerate() {
        if let Some(message) = row.strip_prefix("> ") {
            assert!(line.replace(message).is_none(), "{name}:{}: two messages in a row", number + 1);
        } else if let Some(expected) = row.strip_prefix("= ") {
            let message = line.take().unwrap_or_else(|| panic!("{name}:{}: no message", number + 1));
            let expected: Map<String, Value> = serde_json::from_str(expected).unwrap();
            let found = event(&unescape(message));
            cases += 1;
            for (key, value) in &expected {
                let got = found.get(key).unwrap_or(&Value::Null);
                if got != value {
                    problems += &format!("{name}:{}: {key}: {got} instead of {value}\n", number + 1);
                }
            }
        } else {
            assert!(row.is_empty() || row.starts_with('#'), "{name}:{}: {row}", number + 1);
        }
    }
    assert!(line.is_none(), "{name}: a message without expectation at the end");
    assert!(problems.is_empty(), "\n{problems}");
    cases
}

#[test]
fn messages_of_rfc_5424_give_their_fields() {
    assert!(check("rfc5424.txt", include_str!("../fixtures/syslog/rfc5424.txt")) >= 15);
}

#[test]
fn messages_of_rfc_3164_give_their_fields() {
    assert!(check("rfc3164.txt", include_str!("../fixtures/syslog/rfc3164.txt")) >= 25);
}

#[test]
fn messages_of_network_devices_give_their_fields() {
    assert!(check("network.txt", include_str!("../fixtures/syslog/network.txt")) >= 40);
}
