//! The compatibility promise: bytes that were written by hand from the published table, and the `.proto` file that
//! others build from.

#![expect(clippy::unwrap_used, reason = "tests: a failure is a panic")]

use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use wire::{
    AuthRequest, AuthResponse, BlockIpAction, KillProcessAction, LogEvent, MitigateRequest, MitigateResponse, decode,
    mitigate_request::Action,
};

/// One field by hand: number, wire type, payload with its length where it has one.
fn text(number: u8, value: &str) -> Vec<u8> {
    let mut out = vec![number << 3 | 2, u8::try_from(value.len()).unwrap()];
    out.extend_from_slice(value.as_bytes());
    out
}

fn nested(number: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2, u8::try_from(value.len()).unwrap()];
    out.extend_from_slice(value);
    out
}

fn number(field: u8, value: &[u8]) -> Vec<u8> {
    [&[field << 3], value].concat()
}

/// Both ways, and again with a field that nobody knows.
fn check<M: wire::Bounded + PartialEq + std::fmt::Debug>(message: &M, parts: &[Vec<u8>]) {
    let bytes = parts.concat();
    assert_eq!(message.encode_to_vec(), bytes);
    assert_eq!(&decode::<M>(&bytes).unwrap(), message);
    let unknown = [text(15, "later"), bytes, number(14, &[1]), vec![13 << 3 | 5, 0, 0, 0, 0]].concat();
    assert_eq!(&decode::<M>(&unknown).unwrap(), message);
}

#[test]
fn a_log_event_is_the_bytes_of_the_table() {
    let event = LogEvent {
        org_id: "acme".into(),
        host_id: "web-1".into(),
        ts_unix_ns: 1,
        stream: "auth".into(),
        message: "hello".into(),
        labels: BTreeMap::from([("k".into(), "v".into())]),
        seq: 300,
    };
    let parts = [
        text(1, "acme"),
        text(2, "web-1"),
        number(3, &[1]),
        text(4, "auth"),
        text(5, "hello"),
        nested(6, &[text(1, "k"), text(2, "v")].concat()),
        number(7, &[0xac, 0x02]),
    ];
    check(&event, &parts);
    // A time before the epoch takes ten bytes, as int64 does (and sint64 would not).
    check(
        &LogEvent { ts_unix_ns: -1, ..LogEvent::default() },
        &[number(3, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1])],
    );
}

#[test]
fn authentication_is_the_bytes_of_the_table() {
    let request = AuthRequest {
        org_id: "demo".into(),
        token: "t".into(),
        agent_version: "1.0.7".into(),
        hostname: "h".into(),
        ip_address: "10.0.0.1".into(),
        os_type: "linux".into(),
        os_version: "12".into(),
        capabilities: vec!["heartbeat".into(), "".into()],
    };
    let parts = [
        text(1, "demo"),
        text(2, "t"),
        text(3, "1.0.7"),
        text(4, "h"),
        text(5, "10.0.0.1"),
        text(6, "linux"),
        text(7, "12"),
        text(8, "heartbeat"),
        text(8, ""),
    ];
    check(&request, &parts);
    let response = AuthResponse {
        authenticated: true,
        error_message: "e".into(),
        heartbeat_interval_seconds: 30,
        registered: true,
        agent_id: "a".into(),
    };
    check(&response, &[number(1, &[1]), text(2, "e"), number(3, &[30]), number(4, &[1]), text(5, "a")]);
    check(&AuthResponse::default(), &[]);
}

#[test]
fn commands_are_the_bytes_of_the_table() {
    let head = [text(1, "r"), text(2, "o"), text(3, "h")].concat();
    let request = |action| MitigateRequest {
        request_id: "r".into(),
        org_id: "o".into(),
        host_id: "h".into(),
        action: Some(action),
    };
    let block = BlockIpAction { ip_address: "192.0.2.1".into(), duration_minutes: 30 };
    check(
        &request(Action::BlockIp(block)),
        &[head.clone(), nested(4, &[text(1, "192.0.2.1"), number(2, &[30])].concat())],
    );
    let kill = KillProcessAction { pid: 200, process_name: "nc".into() };
    check(&request(Action::KillProcess(kill)), &[head, nested(5, &[number(1, &[0xc8, 1]), text(2, "nc")].concat())]);
    let response = MitigateResponse { request_id: "r".into(), success: true, error_message: "e".into() };
    check(&response, &[text(1, "r"), number(2, &[1]), text(3, "e")]);
    assert!(wire::Ack {}.encode_to_vec().is_empty());
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    assert!(decode::<LogEvent>(&[5 << 3 | 2, 2, 0xff, 0xfe]).is_err());
}

/// (message, field, type, number) as the `.proto` file has them.
fn of_proto() -> BTreeSet<(String, String, String, u32)> {
    let mut fields = BTreeSet::new();
    let mut message = String::new();
    for line in include_str!("../events.proto").lines().map(|l| l.split("//").next().unwrap_or_default().trim()) {
        if let Some(rest) = line.strip_prefix("message ") {
            message = rest.trim_end_matches(['{', ' ']).to_lowercase();
        } else if let Some((left, number)) = line.strip_suffix(';').and_then(|l| l.split_once(" = "))
            && !message.is_empty()
        {
            let (kind, name) = left.rsplit_once(' ').unwrap();
            let kind = kind.to_lowercase();
            fields.insert((message.clone(), name.replace('_', ""), kind, number.parse().unwrap()));
        }
    }
    fields
}

/// The same from the Rust source: attribute line, then field or variant line.
fn of_rust() -> BTreeSet<(String, String, String, u32)> {
    let mut fields = BTreeSet::new();
    for source in [include_str!("../src/messages.rs"), include_str!("../src/session.rs")] {
        let (mut message, mut attribute) = (String::new(), None);
        for line in source.lines().map(str::trim) {
            if let Some(rest) = line.strip_prefix("pub struct ") {
                message = rest.trim_end_matches(['{', '}', ' ']).to_lowercase();
            } else if let Some(rest) = line.strip_prefix("pub mod ") {
                message = rest.trim_end_matches(['{', ' ']).replace('_', "");
            } else if let Some(rest) = line.strip_prefix("#[prost(") {
                attribute = (!rest.starts_with("oneof")).then(|| rest.trim_end_matches(")]").to_owned());
            } else if let Some(written) = attribute.take() {
                let (kind, number) = written.rsplit_once(", tag = ").unwrap();
                let (name, own) = match line.strip_prefix("pub ") {
                    Some(field) => field.trim_end_matches(',').split_once(": ").unwrap(),
                    None => line.trim_end_matches("),").split_once('(').unwrap(),
                };
                let own = own.trim_start_matches("super::").to_lowercase();
                let own = own.trim_start_matches("option<").trim_start_matches("vec<").trim_end_matches('>').to_owned();
                let kind = match kind {
                    "message" | "message, optional" => own,
                    "message, repeated" => format!("repeated {own}"),
                    "string, repeated" => "repeated string".into(),
                    "bytes = \"vec\"" => "bytes".into(),
                    "bytes = \"vec\", repeated" => "repeated bytes".into(),
                    map if map.starts_with("btree_map = ") => {
                        format!("map<{}>", map["btree_map = ".len()..].trim_matches('"'))
                    }
                    scalar => scalar.into(),
                };
                let number = number.trim_matches('"').parse().unwrap();
                fields.insert((message.clone(), name.to_lowercase().replace('_', ""), kind, number));
            }
        }
    }
    fields
}

#[test]
fn the_proto_file_and_the_messages_say_the_same() {
    let (proto, rust) = (of_proto(), of_rust());
    assert_eq!(proto.difference(&rust).collect::<Vec<_>>(), Vec::<&_>::new(), "only in events.proto");
    assert_eq!(rust.difference(&proto).collect::<Vec<_>>(), Vec::<&_>::new(), "only in Rust");
    assert!(proto.len() > 60, "{}", proto.len());
}

#[test]
fn every_call_of_the_proto_file_has_its_path() {
    let calls: Vec<&str> = include_str!("../events.proto")
        .lines()
        .filter_map(|l| l.trim().strip_prefix("rpc ")?.split('(').next())
        .collect();
    let paths = [
        wire::method::AUTHENTICATE,
        wire::method::STREAM_EVENTS,
        wire::method::RECEIVE_COMMANDS,
        wire::method::ENROLL,
        wire::method::RENEW,
        wire::method::SESSION,
    ];
    assert_eq!(paths.map(|p| p.strip_prefix("/proto.AgentIngest/").unwrap()).to_vec(), calls);
}
