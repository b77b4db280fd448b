//! RFC 5424 messages, and Meraki's likeness of them (`1 EPOCH HOST …`).

use super::parse::{MAX_NAME, ParseContext, Parsed, skip_spaces, word};
use super::{legacy, time};

/// Fills `parsed` from what follows the priority. `false`, with nothing changed, when it is not
/// such a message.
pub(super) fn parse<'a>(rest: &'a [u8], parsed: &mut Parsed<'a>, ctx: &ParseContext<'a>) -> bool {
    let (version, rest) = word(rest);
    if !(1..=3).contains(&version.len()) || !version.iter().all(u8::is_ascii_digit) || version.starts_with(b"0") {
        return false;
    }
    header(rest, parsed, ctx).is_some() || meraki(rest, parsed, ctx).is_some()
}

/// `TIMESTAMP SP HOSTNAME SP APP-NAME SP PROCID SP MSGID SP SD [SP MSG]` (RFC 5424 §6). A message
/// without structured data, as old senders write it, is forgiven.
fn header<'a>(rest: &'a [u8], parsed: &mut Parsed<'a>, ctx: &ParseContext<'a>) -> Option<()> {
    let (stamp, rest) = match rest {
        [b'-', b' ', rest @ ..] => (None, rest),
        [b'0'..=b'9', ..] => {
            let (stamp, n) = time::scan(rest)?;
            (time::resolve(&stamp, ctx), rest[n..].strip_prefix(b" ")?)
        }
        _ => return None,
    };
    let (hostname, rest) = name(rest)?;
    let (program, rest) = name(rest)?;
    let (pid, rest) = name(rest)?;
    let (msgid, rest) = match name(rest) {
        Some(found) => found,
        None if rest == b"-" => (None, &rest[1..]),
        None => return None,
    };
    let (structured_data, message) = match rest {
        [b'-'] | [] => (None, &[][..]),
        [b'-', b' ', message @ ..] => (None, message),
        _ => match structured_data(rest) {
            Some(n) => (Some(&rest[..n]), rest[n..].strip_prefix(b" ").unwrap_or(&rest[n..])),
            None => (None, rest),
        },
    };
    parsed.timestamp = stamp.unwrap_or(ctx.received_at);
    parsed.hostname = hostname;
    parsed.program = program;
    parsed.pid = pid;
    parsed.msgid = msgid;
    parsed.structured_data = structured_data;
    parsed.message = message.strip_prefix(b"\xef\xbb\xbf").unwrap_or(message);
    parsed.mnemonic = legacy::mnemonic(parsed.message);
    Some(())
}

/// `<134>1 1386337316.207232138 MX84 events …`.
fn meraki<'a>(rest: &'a [u8], parsed: &mut Parsed<'a>, ctx: &ParseContext<'a>) -> Option<()> {
    let (stamp, n) = time::scan_epoch(rest)?;
    let (hostname, message) = name(&rest[n + 1..])?;
    parsed.timestamp = if time::believable(stamp, ctx) { stamp } else { ctx.received_at };
    parsed.hostname = hostname;
    parsed.message = skip_spaces(message);
    Some(())
}

/// A header word followed by a space; `-` is nil.
fn name(text: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let limit = text.len().min(MAX_NAME + 1);
    let n = text[..limit].iter().position(|b| *b <= b' ')?;
    if n == 0 || text[n] != b' ' {
        return None;
    }
    let found = &text[..n];
    Some(((found != b"-").then_some(found), &text[n + 1..]))
}

/// The length of sound structured data at the start (RFC 5424 §6.3): elements without space
/// between them, then a space or the end.
fn structured_data(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    while text.get(at) == Some(&b'[') {
        at += 1 + element(&text[at + 1..], |_, _| {})?.1;
    }
    (at > 0 && matches!(text.get(at), None | Some(b' '))).then_some(at)
}

/// Calls `each(element id, Some((name, raw value)))` for every parameter of sound structured data,
/// and `each(id, None)` once for every element.
pub(super) fn params<'a>(text: &'a [u8], mut each: impl FnMut(&'a [u8], Option<(&'a [u8], &'a [u8])>)) {
    let mut rest = text;
    while let [b'[', inner @ ..] = rest {
        let id = &inner[..name_len(inner)];
        each(id, None);
        match element(inner, |name, value| each(id, Some((name, value)))) {
            Some((_, n)) => rest = &inner[n..],
            None => return,
        }
    }
}

/// `ID *(SP NAME="VALUE") ]`: the id, and the bytes taken, bracket included.
fn element<'a>(text: &'a [u8], mut each: impl FnMut(&'a [u8], &'a [u8])) -> Option<(&'a [u8], usize)> {
    let id_len = name_len(text);
    if id_len == 0 {
        return None;
    }
    let mut at = id_len;
    loop {
        match text.get(at)? {
            b']' => return Some((&text[..id_len], at + 1)),
            b' ' => {}
            _ => return None,
        }
        while text.get(at) == Some(&b' ') {
            at += 1;
        }
        if text.get(at) == Some(&b']') {
            continue; // `[id a="b" ]`, seen from several senders
        }
        let name = &text[at..at + name_len(&text[at..])];
        at += name.len();
        if name.is_empty() || text.get(at..at + 2) != Some(b"=\"") {
            return None;
        }
        at += 2;
        let start = at;
        loop {
            match text.get(at)? {
                b'"' => break,
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
        each(name, &text[start..at]);
        at += 1;
    }
}

/// SD-NAME: printable ASCII but `=`, space, `]` and `"`.
fn name_len(text: &[u8]) -> usize {
    text.iter().take(MAX_NAME).take_while(|b| b.is_ascii_graphic() && !matches!(**b, b'=' | b']' | b'"')).count()
}
