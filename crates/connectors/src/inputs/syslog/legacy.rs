//! RFC 3164 and what passes for it. The RFC describes habits, so this file does too: each step
//! takes what it recognises and leaves the rest to the message.
//!
//! Order: things before the stamp (Cisco's counters, origin id, process) → stamp → host → tag →
//! what the message says about itself (mnemonic, key=value firewalls).

use super::parse::{MAX_NAME, ParseContext, Parsed, TrapOid, skip_spaces, word};
use super::time;
use super::tokens::{find, is_host, is_ip, tag};

/// How many things may stand before the stamp: two counters, origin id, card, process.
const MAX_PREFIX_STEPS: usize = 5;

/// Fills `parsed` from what follows the priority.
pub(super) fn parse<'a>(rest: &'a [u8], parsed: &mut Parsed<'a>, ctx: &ParseContext<'a>) {
    let rest = skip_spaces(rest);
    let (content, stamped) = match prefix(rest, parsed, ctx) {
        Some(found) => found,
        None => (rest, false),
    };
    parsed.message = content;
    if stamped && parsed.hostname.is_none() {
        if let Some((host, rest)) = host(content) {
            parsed.hostname = Some(host);
            parsed.message = rest;
        }
    } else if !stamped && parsed.hostname.is_none() {
        bare_host(parsed);
    }
    if parsed.program.is_none() {
        program(parsed);
    }
    enrich(parsed, ctx);
}

/// What a message says about itself, whatever header it had.
pub(super) fn enrich<'a>(parsed: &mut Parsed<'a>, ctx: &ParseContext<'a>) {
    parsed.mnemonic = mnemonic(parsed.message);
    key_values(parsed, ctx);
}

/// Everything up to the stamp and the stamp itself: what follows, and whether a host may follow.
/// `None`, with nothing changed, when the line has no such beginning.
fn prefix<'a>(rest: &'a [u8], parsed: &mut Parsed<'a>, ctx: &ParseContext<'a>) -> Option<(&'a [u8], bool)> {
    let (mut sequence, mut hostname, mut node, mut program) = (None, None, None, None);
    // NX-OS writes `: 2026 Mar`, ASA `:Nov 22`.
    let mut at = skip_spaces(rest.strip_prefix(b":").unwrap_or(rest));
    for _ in 0..=MAX_PREFIX_STEPS {
        if let Some((stamp, n)) = time::scan(at) {
            if let Some(t) = time::resolve(&stamp, ctx) {
                parsed.timestamp = t;
            }
            (parsed.sequence, parsed.hostname, parsed.node) = (sequence, hostname, node);
            parsed.program = program;
            let after = &at[n..];
            return Some(match after.strip_prefix(b":") {
                Some(content) => (skip_spaces(content), false),
                None => (skip_spaces(after), true),
            });
        }
        if let Some((number, after)) = counter(at) {
            sequence = sequence.or(Some(number));
            at = after;
        } else if let Some((name, after)) = process(at).filter(|_| program.is_none()) {
            program = Some(name);
            at = after;
        } else if let Some((name, after)) = card(at).filter(|_| node.is_none()) {
            node = Some(name);
            at = after;
        } else if let Some((name, after)) = origin(at).filter(|_| hostname.is_none()) {
            hostname = Some(name);
            at = after;
        } else {
            break;
        }
    }
    // Cisco without `service timestamps`.
    if (sequence.is_some() || hostname.is_some()) && mnemonic(at).is_some() {
        (parsed.sequence, parsed.hostname, parsed.node) = (sequence, hostname, node);
        parsed.program = program;
        return Some((at, false));
    }
    None
}

/// `000123: `
fn counter(text: &[u8]) -> Option<(u64, &[u8])> {
    let len = text.iter().take(11).take_while(|b| b.is_ascii_digit()).count();
    if len == 0 || len > 10 || !text[len..].starts_with(b": ") {
        return None;
    }
    let value = text[..len].iter().fold(0u64, |v, b| v * 10 + u64::from(b - b'0'));
    Some((value, skip_spaces(&text[len + 1..])))
}

/// `*spamApTask0: ` of Cisco's wireless controllers.
fn process(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let text = text.strip_prefix(b"*")?;
    let len =
        text.iter().take(MAX_NAME).take_while(|b| b.is_ascii_alphanumeric() || matches!(**b, b'_' | b'-')).count();
    (len > 0 && text[len..].starts_with(b": ")).then(|| (&text[..len], skip_spaces(&text[len + 1..])))
}

/// `RP/0/RSP0/CPU0:` of IOS XR.
fn card(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = text.iter().take(32).take_while(|b| b.is_ascii_alphanumeric() || **b == b'/').count();
    let name = &text[..len];
    (text.get(len) == Some(&b':') && name.contains(&b'/') && name[0] != b'/')
        .then(|| (name, skip_spaces(&text[len + 1..])))
}

/// A host before the stamp: `router1: `, `router1 `, `router1 : `.
fn origin(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let (token, _) = word(&text[..text.len().min(MAX_NAME + 2)]);
    let after = skip_spaces(text.get(token.len() + 1..)?);
    let (name, after) = match token.strip_suffix(b":") {
        Some(name) if !is_ip(token) => (name, after),
        _ => (token, after.strip_prefix(b": ").map_or(after, skip_spaces)),
    };
    (is_host(name) && !name.iter().all(u8::is_ascii_digit)).then_some((name, after))
}

/// The host after the stamp (RFC 3164 §4.1.2), or nothing where the tag follows at once.
fn host(text: &[u8]) -> Option<(&[u8], &[u8])> {
    if text.starts_with(b"%") || text.starts_with(b"last message repeated ") {
        return None;
    }
    if let Some(forwarded) = text.strip_prefix(b"Message forwarded from ") {
        // AIX; the name ends in a colon.
        let (token, rest) = word(forwarded);
        let name = token.strip_suffix(b":")?;
        return is_host(name).then(|| (name, skip_spaces(rest)));
    }
    let (token, rest) = word(text);
    if token.len() > MAX_NAME || rest.is_empty() {
        return None;
    }
    let rest = skip_spaces(rest);
    if let [b'[', inner @ .., b']'] = token {
        return is_ip(inner).then_some((inner, rest));
    }
    if let Some(after) = rest.strip_prefix(b": ") {
        return is_host(token).then(|| (token, skip_spaces(after))); // ASA: `name : %ASA-…`
    }
    if let Some(name) = token.strip_suffix(b":") {
        let host_before_mnemonic = is_host(name) && mnemonic(counter(rest).map_or(rest, |(_, r)| r)).is_some();
        return match (host_before_mnemonic, is_ip(token)) {
            (true, _) => Some((name, rest)),
            (false, true) => Some((token, rest)),
            (false, false) => None,
        };
    }
    // A chassis of F5 names its slot first: `slot1/bigip1`.
    let chassis = token.strip_prefix(b"slot").and_then(|t| t.iter().position(|b| *b == b'/').map(|n| &t[n + 1..]));
    (is_host(token) || chassis.is_some_and(is_host)).then_some((token, rest))
}

/// A host though there was no stamp: only if it cannot be a word of a sentence, and a tag follows.
fn bare_host(parsed: &mut Parsed<'_>) {
    let (token, rest) = word(parsed.message);
    if rest.starts_with(b"MSWinEventLog\t") && is_host(token) {
        (parsed.hostname, parsed.message) = (Some(token), rest);
        return;
    }
    let telling = token.iter().any(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-'));
    if token.len() <= MAX_NAME && telling && is_host(token) && tag(rest).is_some_and(|t| t.pid.is_some()) {
        (parsed.hostname, parsed.message) = (Some(token), rest);
    }
}

/// The tag, its process id and what stands around them (RFC 3164 §4.1.3).
fn program(parsed: &mut Parsed<'_>) {
    let text = parsed.message;
    // F5 puts the severity's word before the tag.
    if let (b"emerg" | b"alert" | b"crit" | b"err" | b"warning" | b"notice" | b"info" | b"debug", rest) = word(text)
        && let Some(found) = tag(rest)
    {
        (parsed.program, parsed.pid) = (Some(found.program), found.pid);
        parsed.message = &rest[found.len..];
        return;
    }
    // ProCurve puts a five-digit event number before it.
    if let [number @ .., b' '] = &text[..text.len().min(6)]
        && number.len() == 5
        && number.iter().all(u8::is_ascii_digit)
        && let Some(found) = tag(&text[6..])
    {
        parsed.msgid = Some(number);
        (parsed.program, parsed.pid) = (Some(found.program), found.pid);
        parsed.message = &text[6 + found.len..];
        return;
    }
    if let Some(found) = tag(text) {
        if found.program.contains(&b',') {
            // UniFi names model, address and version first; they stay in the message.
            match tag(&text[found.len..]) {
                Some(inner) => (parsed.program, parsed.pid) = (Some(inner.program), inner.pid),
                None => {
                    (parsed.program, parsed.pid) = (Some(found.program), found.pid);
                    parsed.message = &text[found.len..];
                }
            }
            return;
        }
        (parsed.program, parsed.pid) = (Some(found.program), found.pid);
        parsed.message = &text[found.len..];
        return;
    }
    routeros_topics(parsed);
}

/// MikroTik: `system,info,account user admin logged in`. The topics are the program.
fn routeros_topics(parsed: &mut Parsed<'_>) {
    let (token, rest) = word(parsed.message);
    let known = |topic: &[u8]| matches!(topic, b"info" | b"error" | b"warning" | b"critical" | b"debug");
    let lower = token.len() <= 64 && token.iter().all(|b| b.is_ascii_lowercase() || matches!(b, b',' | b'-'));
    if lower && token.contains(&b',') && token.split(|b| *b == b',').any(known) && !rest.is_empty() {
        (parsed.program, parsed.message) = (Some(token), rest);
    }
}

/// `%LINEPROTO-5-UPDOWN:` of Cisco and Juniper, `%%10SHELL/5/SHELL_LOGIN:` of Comware and Huawei,
/// at the start of a message; without the signs around it.
pub(super) fn mnemonic(message: &[u8]) -> Option<&[u8]> {
    let mut text = message.strip_prefix(b"%")?;
    if let Some(rest) = text.strip_prefix(b"$ ") {
        // NX-OS names the virtual device: `%$ VDC-1 %$ %ETHPORT-5-IF_UP:`.
        let n = find(&rest[..rest.len().min(64)], b"%$ %")?;
        text = &rest[n + 4..];
    }
    let separator = match text {
        [b'%', b'0'..=b'9', b'0'..=b'9', rest @ ..] => {
            text = rest;
            b'/'
        }
        _ => b'-',
    };
    let len = text
        .iter()
        .take(128)
        .take_while(|b| b.is_ascii_alphanumeric() || matches!(**b, b'_' | b'-' | b'/' | b'.'))
        .count();
    let name = &text[..len];
    let ends = matches!(text.get(len), Some(b':' | b' ' | b'(')) && name.first().is_some_and(u8::is_ascii_alphabetic);
    let levelled = name.windows(3).any(|w| w[0] == separator && w[2] == separator && (b'0'..=b'7').contains(&w[1]));
    (ends && levelled).then_some(name)
}

/// Firewalls that write `date=2026-11-22 time=10:00:00 devname="fw1" tz="+0100" …`: their own name
/// and time are better than a header's.
fn key_values<'a>(parsed: &mut Parsed<'a>, ctx: &ParseContext<'a>) {
    const BEGINNINGS: [&[u8]; 6] = [b"date=", b"devname=", b"device=", b"device_name=", b"logver=", b"time="];
    /// The interesting pairs come first; the rest may be as long as it likes.
    const PAIRS: usize = 16;
    let mut rest = parsed.message;
    if !BEGINNINGS.iter().any(|b| rest.starts_with(b)) {
        return;
    }
    let (mut date, mut clock, mut zone): (&[u8], &[u8], &[u8]) = (b"", b"", b"");
    for _ in 0..PAIRS {
        rest = skip_spaces(rest);
        let window = &rest[..rest.len().min(2 * MAX_NAME)];
        let Some(n) = window.iter().position(|b| *b == b'=') else { break };
        let (key, after) = (&rest[..n], &rest[n + 1..]);
        let (value, after) = match after.strip_prefix(b"\"") {
            Some(quoted) => match quoted.iter().position(|b| *b == b'"') {
                Some(end) => (&quoted[..end], &quoted[end + 1..]),
                None => break,
            },
            None => word(after),
        };
        rest = after;
        match key {
            b"devname" | b"device_name" if is_host(value) => parsed.hostname = Some(value),
            b"date" => date = value,
            b"time" => clock = value,
            b"tz" => zone = value,
            _ => {}
        }
    }
    let mut text = [b' '; 48];
    let mut len = 0;
    for part in [date, b" ", clock, zone] {
        let Some(slot) = text.get_mut(len..len + part.len()) else { return };
        slot.copy_from_slice(part);
        len += part.len();
    }
    if let Some(t) = time::scan(&text[..len]).and_then(|(stamp, _)| time::resolve(&stamp, ctx)) {
        parsed.timestamp = t;
    }
}

/// The trap's OID from snmptrapd's variable bindings, and the device it came from (contract mutt
/// §12.14: the collector is not the host).
pub(super) fn trap(parsed: &mut Parsed<'_>) {
    let message = parsed.message;
    let Some(oid) = trap_oid(message) else { return };
    parsed.trap_oid = Some(oid);
    // `UDP: [10.1.1.1]:51234->[10.0.0.5]:162`
    let head = &message[..message.len().min(1_024)];
    let device = find(head, b": [").map(|n| &head[n + 3..]).and_then(|rest| rest.split(|b| *b == b']').next());
    if let Some(device) = device.filter(|d| is_ip(d) && *d != b"127.0.0.1" && *d != b"::1") {
        parsed.relay = parsed.hostname;
        parsed.hostname = Some(device);
    }
}

fn trap_oid(message: &[u8]) -> Option<TrapOid<'_>> {
    // Without MIBs snmptrapd writes `iso.3.6…` or `.1.3.6…`.
    const NUMERIC: &[u8] = b".3.6.1.6.3.1.1.4.1.0";
    const NAMED: &[u8] = b"snmpTrapOID.0";
    const NAMES: [(&[u8], &str); 10] = [
        (b"iso.", "1."),
        (b"SNMPv2-SMI::enterprises.", "1.3.6.1.4.1."),
        (b"SNMPv2-SMI::snmpTraps.", "1.3.6.1.6.3.1.1.5."),
        (b"SNMPv2-MIB::snmpTraps.", "1.3.6.1.6.3.1.1.5."),
        (b"SNMPv2-MIB::coldStart", "1.3.6.1.6.3.1.1.5.1"),
        (b"SNMPv2-MIB::warmStart", "1.3.6.1.6.3.1.1.5.2"),
        (b"IF-MIB::linkDown", "1.3.6.1.6.3.1.1.5.3"),
        (b"IF-MIB::linkUp", "1.3.6.1.6.3.1.1.5.4"),
        (b"SNMPv2-MIB::authenticationFailure", "1.3.6.1.6.3.1.1.5.5"),
        (b"SNMPv2-MIB::egpNeighborLoss", "1.3.6.1.6.3.1.1.5.6"),
    ];
    let start =
        find(message, NAMED).map(|n| n + NAMED.len()).or_else(|| find(message, NUMERIC).map(|n| n + NUMERIC.len()))?;
    let mut text = &message[start..];
    for filler in [&b" "[..], b"=", b":", b" ", b"OID:", b" ", b"\"", b"."] {
        text = text.strip_prefix(filler).unwrap_or(text);
    }
    for (name, prefix) in NAMES {
        if let Some(rest) = text.strip_prefix(name) {
            let digits = oid_len(rest);
            return if prefix.ends_with('.') {
                (digits > 0).then_some(TrapOid { prefix, rest: &rest[..digits] })
            } else {
                Some(TrapOid { prefix, rest: b"" })
            };
        }
    }
    let len = oid_len(text);
    let found = &text[..len];
    (matches!(found.first(), Some(b'0'..=b'2')) && found.contains(&b'.')).then_some(TrapOid { prefix: "", rest: found })
}

/// The length of `1.3.6…` at the start: digits, single dots between them.
fn oid_len(text: &[u8]) -> usize {
    let mut len = 0;
    for (i, byte) in text.iter().take(MAX_NAME).enumerate() {
        match byte {
            b'0'..=b'9' => len = i + 1,
            b'.' if len == i && i > 0 => {}
            _ => break,
        }
    }
    len
}
