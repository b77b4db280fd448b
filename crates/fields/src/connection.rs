//! The connections that agents report, as netstat writes them:
//! `tcp        0      0 10.0.0.5:22   203.0.113.7:51515   ESTABLISHED`.
//!
//! The kernel chooses every word. `SourceIp` is the other host; a socket that only waits has none, so
//! that a server that merely runs is nobody's source.

use crate::sources::{get, push_missing};
use model::Fields;
use std::net::IpAddr;

/// What older agents put in front, where they give no label.
const PREFIX: &str = "Suspicious connection: ";

/// Adds `Protocol`, `DestinationIp` and `DestinationPort` (this host's end), `SourceIp` and
/// `SourcePort` (the other's) and `state`.
pub(crate) fn read(out: &mut Fields<'_>) {
    let label = get(out, "connection");
    let Some(text) = label.or_else(|| get(out, "message")) else { return };
    let mut words = text.strip_prefix(PREFIX).unwrap_or(&text).split_ascii_whitespace();
    let protocol = words.next().filter(|word| matches!(*word, "tcp" | "tcp6" | "udp" | "udp6"));
    let queues = [words.next(), words.next()];
    let queued = queues.iter().all(|word| word.is_some_and(|word| word.bytes().all(|b| b.is_ascii_digit())));
    let (Some(protocol), Some(here), Some(there), true) = (protocol, words.next(), words.next(), queued) else {
        return;
    };
    let (Some((address, port)), Some((other_address, other_port))) = (end(here), end(there)) else { return };
    push_missing(out, "Protocol", protocol.to_owned());
    push_missing(out, "DestinationIp", address.to_owned());
    push_missing(out, "DestinationPort", port.to_owned());
    if other_port != "*" {
        push_missing(out, "SourceIp", other_address.to_owned());
        push_missing(out, "SourcePort", other_port.to_owned());
    }
    if let Some(state) = words.next() {
        push_missing(out, "state", state.to_owned());
    }
}

/// `ADDRESS:PORT`, the port perhaps `*`.
fn end(text: &str) -> Option<(&str, &str)> {
    let (address, port) = text.rsplit_once(':')?;
    let bare = address.split_once('%').map_or(address, |(bare, _)| bare);
    bare.parse::<IpAddr>().ok()?;
    let number = port.len() <= 5 && !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    (number || port == "*").then_some((address, port))
}

#[cfg(test)]
mod tests {
    use crate::from_event;
    use model::Fields;

    #[track_caller]
    fn check(line: &str, wanted: &[(&str, Option<&str>)]) {
        for event in [
            format!(r#"{{"stream":"network","message":"Suspicious connection: {line}"}}"#),
            format!(r#"{{"stream":"network","message":"x","labels":{{"connection":"{line}"}}}}"#),
        ] {
            let mut out = Fields::default();
            from_event(&event, &mut out).unwrap();
            for (name, value) in wanted {
                assert_eq!(out.first(name), *value, "{name} of {event}");
            }
        }
    }

    #[test]
    fn the_other_host_is_the_source() {
        check(
            "tcp        0      0 10.0.0.5:22             203.0.113.7:51515       SYN_RECV",
            &[
                ("SourceIp", Some("203.0.113.7")),
                ("SourcePort", Some("51515")),
                ("DestinationIp", Some("10.0.0.5")),
                ("DestinationPort", Some("22")),
                ("Protocol", Some("tcp")),
                ("state", Some("SYN_RECV")),
            ],
        );
        check("tcp6 0 0 2001:db8::5:22 2001:db8::7:51515 ESTABLISHED", &[("SourceIp", Some("2001:db8::7"))]);
    }

    #[test]
    fn a_socket_that_waits_has_no_source() {
        for line in
            ["tcp 0 0 127.0.0.1:3306 0.0.0.0:* LISTEN", "tcp6 0 0 :::22 :::* LISTEN", "udp 0 0 0.0.0.0:68 0.0.0.0:*"]
        {
            check(line, &[("SourceIp", None), ("SourcePort", None)]);
        }
        check("tcp 0 0 127.0.0.1:3306 0.0.0.0:* LISTEN", &[("DestinationPort", Some("3306"))]);
    }

    #[test]
    fn what_is_no_line_of_netstat_gives_nothing() {
        for line in [
            "",
            "tcp",
            "tcp 0 0 a:22 203.0.113.7:1 X",
            "tcp 0 x 10.0.0.5:22 203.0.113.7:1",
            "tcp 0 0 10.0.0.5:22 203.0.113.7:99999999",
            "from 203.0.113.7",
        ] {
            check(line, &[("SourceIp", None), ("DestinationIp", None)]);
        }
    }
}
