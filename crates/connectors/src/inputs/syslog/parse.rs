//! One syslog message from its bytes: pure, linear in its input, never panics, never refuses.
//!
//! `<PRI>` decides: none (or one above 191) means RFC 3164 §4.3.3, the whole line is the message of
//! a `user.notice`. `<PRI>VERSION SP` with a sound header is RFC 5424 §6; everything else goes to
//! the RFC 3164 heuristics in `legacy.rs`. What no heuristic understands stays in the message.

use super::{legacy, rfc5424};
use jiff::tz::TimeZone;
use model::{Severity, Timestamp};

pub use super::encode::encode;

/// Names and tags longer than this are not names: they stay in the message.
pub(super) const MAX_NAME: usize = 255;
/// `local5`: where snmptrapd logs (contract mutt §2.6).
const LOCAL5: u8 = 21;

/// What the line itself does not say.
#[derive(Debug, Clone, Copy)]
pub struct ParseContext<'a> {
    pub received_at: Timestamp,
    /// The sender's address as text: the hostname where the line names none.
    pub peer_ip: Option<&'a str>,
    /// Zone of stamps that carry none.
    pub timezone: &'a TimeZone,
}

/// An SNMP trap's identity: `prefix` then `rest`, without a leading dot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrapOid<'a> {
    pub prefix: &'static str,
    pub rest: &'a [u8],
}

/// A message taken apart. All parts are the sender's bytes, not necessarily UTF-8.
#[derive(Debug, Clone)]
pub struct Parsed<'a> {
    pub severity: Severity,
    /// 0 to 23 (RFC 5424 §6.2.1).
    pub facility: u8,
    /// The device's own time where it is present and believable, else the time of arrival.
    pub timestamp: Timestamp,
    /// `None`: the sender's address stands in.
    pub hostname: Option<&'a [u8]>,
    /// The host that passed on an SNMP trap; `hostname` is the device then.
    pub relay: Option<&'a [u8]>,
    /// APP-NAME or tag.
    pub program: Option<&'a [u8]>,
    pub pid: Option<&'a [u8]>,
    pub msgid: Option<&'a [u8]>,
    /// Sound STRUCTURED-DATA, `[…][…]`.
    pub structured_data: Option<&'a [u8]>,
    /// Cisco's message counter.
    pub sequence: Option<u64>,
    /// The card that speaks, on IOS XR (`RP/0/RSP0/CPU0`).
    pub node: Option<&'a [u8]>,
    /// `LINEPROTO-5-UPDOWN`.
    pub mnemonic: Option<&'a [u8]>,
    pub trap_oid: Option<TrapOid<'a>>,
    pub source_ip: Option<&'a str>,
    pub message: &'a [u8],
}

/// Takes one message apart. Any bytes are a message.
pub fn parse<'a>(line: &'a [u8], ctx: &ParseContext<'a>) -> Parsed<'a> {
    let line = trim_end(line);
    let mut parsed = Parsed {
        severity: Severity::Notice,
        facility: 1,
        timestamp: ctx.received_at,
        hostname: None,
        relay: None,
        program: None,
        pid: None,
        msgid: None,
        structured_data: None,
        sequence: None,
        node: None,
        mnemonic: None,
        trap_oid: None,
        source_ip: ctx.peer_ip,
        message: line,
    };
    match pri(line) {
        Some((value, rest)) => {
            parsed.facility = value >> 3;
            parsed.severity = Severity::from_code(i64::from(value & 7)).unwrap_or(Severity::Notice);
            parsed.message = rest;
            if !rfc5424::parse(rest, &mut parsed, ctx) {
                legacy::parse(rest, &mut parsed, ctx);
            }
        }
        None => legacy::enrich(&mut parsed, ctx),
    }
    if parsed.facility == LOCAL5 || parsed.program == Some(b"snmptrapd") {
        legacy::trap(&mut parsed);
    }
    parsed
}

/// Without the trailers that senders put behind a message (RFC 6587 §3.4.2).
pub(super) fn trim_end(mut line: &[u8]) -> &[u8] {
    while let [rest @ .., b'\n' | b'\r' | 0] = line {
        line = rest;
    }
    line
}

/// `<0>` to `<191>` (RFC 5424 §6.2.1); leading zeros are forgiven.
fn pri(line: &[u8]) -> Option<(u8, &[u8])> {
    let rest = line.strip_prefix(b"<")?;
    let len = rest.iter().take(3).take_while(|b| b.is_ascii_digit()).count();
    let value = rest.get(..len)?.iter().fold(0u16, |v, b| v * 10 + u16::from(b - b'0'));
    match rest.get(len) {
        Some(b'>') if len > 0 && value <= 191 => Some((value as u8, &rest[len + 1..])),
        _ => None,
    }
}

/// The bytes up to the first space (or the end), and what follows that one space.
pub(super) fn word(text: &[u8]) -> (&[u8], &[u8]) {
    match text.iter().position(|b| *b == b' ') {
        Some(n) => (&text[..n], &text[n + 1..]),
        None => (text, &[]),
    }
}

pub(super) fn skip_spaces(mut text: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] = text {
        text = rest;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json(line: &[u8], peer: Option<&str>) -> serde_json::Map<String, serde_json::Value> {
        let ctx = ParseContext {
            received_at: Timestamp::parse("2026-11-22T10:00:00Z").unwrap(),
            peer_ip: peer,
            timezone: &TimeZone::UTC,
        };
        let mut out = Vec::new();
        encode(&parse(line, &ctx), false, &mut out);
        match serde_json::from_slice(&out) {
            Ok(serde_json::Value::Object(map)) => map,
            other => panic!("{other:?} from {:?}", String::from_utf8_lossy(&out)),
        }
    }

    fn assert_sound(line: &[u8]) {
        let map = json(line, None);
        for key in ["hostname", "message", "timestamp", "severity", "facility", "source"] {
            assert!(map.get(key).and_then(|v| v.as_str()).is_some_and(|v| !v.is_empty()), "{key} in {map:?}");
        }
        assert!(Timestamp::parse(map["timestamp"].as_str().unwrap()).is_some());
        assert!(map["syslog_severity"].as_u64().unwrap() < 8);
        assert!(map.keys().all(|k| !k.starts_with('_')));
    }

    #[test]
    fn a_priority_out_of_range_is_none() {
        for (line, expected) in [
            (&b"<0>x"[..], Some(0)),
            (b"<191>x", Some(191)),
            (b"<034>x", Some(34)),
            (b"<192>x", None),
            (b"<>x", None),
            (b"<1234>x", None),
            (b"<12", None),
            (b"<1a>", None),
            (b"", None),
        ] {
            assert_eq!(pri(line).map(|(v, _)| v), expected, "{line:?}");
        }
    }

    #[test]
    fn a_line_without_priority_is_a_user_notice_as_a_whole() {
        let map = json(b"Oct 11 22:14:15 mymachine su: 'su root' failed\r\n", Some("10.0.0.9"));
        assert_eq!(map["message"], "Oct 11 22:14:15 mymachine su: 'su root' failed");
        assert_eq!((map["severity"].as_str(), map["facility"].as_str()), (Some("notice"), Some("user")));
        assert_eq!(map["hostname"], "10.0.0.9");
        assert_eq!(json(b"x", None)["hostname"], "unknown");
    }

    #[test]
    fn broken_utf8_is_replaced_and_said_so() {
        let map = json(b"<13>1 - h\xff app - - - caf\xe9 \x00\x1b[0m \xc3\xa9", None);
        assert_eq!(map["hostname"], "h\u{fffd}");
        assert_eq!(map["message"], "caf\u{fffd} \0\u{1b}[0m é");
        assert_eq!(map["encoding"], "lossy");
        assert!(!json("<13>é".as_bytes(), None).contains_key("encoding"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_event(line in proptest::collection::vec(any::<u8>(), 0..400)) {
            assert_sound(&line);
        }

        #[test]
        fn any_bytes_behind_a_priority_are_an_event(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            assert_sound(&[b"<173>", &line[..]].concat());
            assert_sound(&[b"<173>1 ", &line[..]].concat());
            assert_sound(&[b"<173>1 - - - - - ", &line[..]].concat());
            assert_sound(&[b"<173>Nov 22 09:59:00 ", &line[..]].concat());
        }

        /// Pieces of real grammar in a random order reach further than random bytes do.
        #[test]
        fn any_mixture_of_grammar_is_an_event(pieces in proptest::collection::vec(0usize..PIECES.len(), 0..14)) {
            assert_sound(&pieces.iter().flat_map(|i| PIECES[*i].iter().copied()).collect::<Vec<u8>>());
        }
    }

    const PIECES: [&[u8]; 41] = [
        b"<34>",
        b"<173>",
        b"1 ",
        b"- ",
        b"-",
        b" ",
        b":",
        b": ",
        b"[",
        b"]",
        b"\"",
        b"\\",
        b"=",
        b"a=\"b\" ",
        b"[x@1 ",
        b"[id a=\"1\" a=\"2\"]",
        b"Nov 22 09:00:00",
        b"*Mar  1 18:46:11.123 UTC",
        b"2026-11-22T09:00:00Z",
        b"2026 Nov 22 09:00:00",
        b"45",
        b"000045: ",
        b"host",
        b"host ",
        b"10.0.0.1 ",
        b"fe80::1 ",
        b"sshd[12]: ",
        b"tag: ",
        b"%SYS-5-CONFIG_I: ",
        b"%$ VDC-1 %$ ",
        b"%%10SHELL/5/LOGIN: ",
        b"date=2026-11-22 time=09:00:00 ",
        b"devname=\"fw\" ",
        b"snmptrapd[1]: ",
        b"snmpTrapOID.0 = OID: ",
        b".1.3.6.1.4",
        b"iso.3.6",
        b"UDP: [10.1.1.1]:5->",
        b"\xef\xbb\xbf",
        b"\xc3",
        b"\0",
    ];
}
