//! The event's JSON object, written by hand: valid UTF-8, valid JSON, no detour over a tree.

use super::parse::Parsed;
use super::{calendar, rfc5424};

const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp",
    "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];

/// Appends the event as one JSON object. `truncated`: its message was cut at the configured bound.
///
/// Keys: `hostname message timestamp syslog_severity severity facility source` always; `source_ip
/// program pid msgid sequence node mnemonic trap_oid relay structured_data` where known;
/// `"encoding":"lossy"` where bytes were not UTF-8 and became U+FFFD; `"truncated":true`.
/// The object is at most about six times as long as the message, plus 1 KiB.
pub fn encode(parsed: &Parsed<'_>, truncated: bool, out: &mut Vec<u8>) {
    let mut w = Writer { out, lossy: false };
    let hostname = parsed.hostname.or(parsed.source_ip.map(str::as_bytes)).filter(|h| !h.is_empty());
    w.raw(b"{\"hostname\":");
    w.string(hostname.unwrap_or(b"unknown"));
    w.raw(b",\"message\":");
    w.string(if parsed.message.is_empty() { b"-" } else { parsed.message });
    w.raw(b",\"timestamp\":\"");
    calendar::write_rfc3339(parsed.timestamp, w.out);
    w.raw(b"\",\"syslog_severity\":");
    w.out.push(b'0' + parsed.severity.code());
    w.raw(b",\"severity\":\"");
    w.raw(parsed.severity.as_str().as_bytes());
    w.raw(b"\",\"facility\":\"");
    w.raw(FACILITIES.get(usize::from(parsed.facility)).unwrap_or(&"user").as_bytes());
    w.raw(b"\",\"source\":\"syslog\"");
    w.optional(b",\"source_ip\":", parsed.source_ip.map(str::as_bytes));
    w.optional(b",\"program\":", parsed.program);
    w.optional(b",\"pid\":", parsed.pid);
    w.optional(b",\"msgid\":", parsed.msgid);
    w.optional(b",\"node\":", parsed.node);
    w.optional(b",\"mnemonic\":", parsed.mnemonic);
    w.optional(b",\"relay\":", parsed.relay);
    if let Some(number) = parsed.sequence {
        w.raw(b",\"sequence\":");
        w.number(number);
    }
    if let Some(oid) = parsed.trap_oid {
        w.raw(b",\"trap_oid\":\"");
        w.raw(oid.prefix.as_bytes());
        w.escape(oid.rest);
        w.out.push(b'"');
    }
    if let Some(text) = parsed.structured_data {
        w.raw(b",\"structured_data\":");
        w.structured_data(text);
    }
    if w.lossy {
        w.raw(b",\"encoding\":\"lossy\"");
    }
    if truncated {
        w.raw(b",\"truncated\":true");
    }
    w.out.push(b'}');
}

struct Writer<'o> {
    out: &'o mut Vec<u8>,
    lossy: bool,
}

impl Writer<'_> {
    fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    fn optional(&mut self, key: &[u8], value: Option<&[u8]>) {
        if let Some(value) = value {
            self.raw(key);
            self.string(value);
        }
    }

    fn string(&mut self, bytes: &[u8]) {
        self.out.push(b'"');
        self.escape(bytes);
        self.out.push(b'"');
    }

    fn number(&mut self, mut value: u64) {
        let mut digits = [0u8; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (value % 10) as u8;
            value /= 10;
            if value == 0 {
                break;
            }
        }
        self.out.extend_from_slice(&digits[at..]);
    }

    fn escape(&mut self, mut rest: &[u8]) {
        loop {
            let (plain, tail) = rest.split_at(plain_len(rest));
            self.raw(plain);
            let Some(byte) = tail.first().copied() else { return };
            if byte < 0x80 {
                self.escape_ascii(byte);
                rest = &tail[1..];
            } else {
                // Code points beyond ASCII have no ASCII byte in them, so a run of such bytes can
                // be judged alone.
                let run = tail.iter().position(u8::is_ascii).unwrap_or(tail.len());
                for chunk in tail[..run].utf8_chunks() {
                    self.raw(chunk.valid().as_bytes());
                    if !chunk.invalid().is_empty() {
                        self.lossy = true;
                        self.raw("\u{fffd}".as_bytes());
                    }
                }
                rest = &tail[run..];
            }
        }
    }

    fn escape_ascii(&mut self, byte: u8) {
        let short = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            _ => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                self.raw(&[b'\\', b'u', b'0', b'0', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
                return;
            }
        };
        self.raw(short);
    }

    /// An object of objects. Parameters that occur more than once become arrays; elements with the
    /// same id are one.
    fn structured_data(&mut self, text: &[u8]) {
        let mut all: Vec<(&[u8], &[u8], &[u8])> = Vec::new();
        rfc5424::params(text, |id, param| match param {
            None => all.push((id, b"", b"")), // sorts before its parameters, whose names are not empty
            Some((name, value)) => all.push((id, name, value)),
        });
        all.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1))); // stable: values keep their order
        self.out.push(b'{');
        for (i, element) in all.chunk_by(|a, b| a.0 == b.0).enumerate() {
            if i > 0 {
                self.out.push(b',');
            }
            self.string(element[0].0);
            self.raw(b":{");
            let named = element.chunk_by(|a, b| a.1 == b.1).filter(|same| !same[0].1.is_empty());
            for (i, same) in named.enumerate() {
                if i > 0 {
                    self.out.push(b',');
                }
                self.string(same[0].1);
                self.out.push(b':');
                match same {
                    [(_, _, value)] => self.param_value(value),
                    several => {
                        for (i, (_, _, value)) in several.iter().enumerate() {
                            self.out.push(if i == 0 { b'[' } else { b',' });
                            self.param_value(value);
                        }
                        self.out.push(b']');
                    }
                }
            }
            self.out.push(b'}');
        }
        self.out.push(b'}');
    }

    /// RFC 5424 §6.3.3: `\"`, `\\` and `\]` lose their backslash, any other backslash stays.
    fn param_value(&mut self, value: &[u8]) {
        self.out.push(b'"');
        let mut rest = value;
        while let Some(n) = rest.iter().position(|b| *b == b'\\') {
            self.escape(&rest[..n]);
            let taken = match rest.get(n + 1) {
                Some(b @ (b'"' | b'\\' | b']')) => {
                    self.escape(&[*b]);
                    2
                }
                _ => {
                    self.escape(b"\\");
                    1
                }
            };
            rest = &rest[n + taken..];
        }
        self.escape(rest);
        self.out.push(b'"');
    }
}

/// How many bytes at the start go into a JSON string as they are.
fn plain_len(bytes: &[u8]) -> usize {
    // The fold over a whole chunk has no early exit, so it compiles to a few vector compares.
    const CHUNK: usize = 32;
    let special = |b: u8| !matches!(b, 0x20..0x7f) | (b == b'"') | (b == b'\\');
    let (chunks, tail) = bytes.as_chunks::<CHUNK>();
    for (i, chunk) in chunks.iter().enumerate() {
        if chunk.iter().fold(false, |any, b| any | special(*b)) {
            return i * CHUNK + chunk.iter().position(|b| special(*b)).unwrap_or(0);
        }
    }
    bytes.len() - tail.len() + tail.iter().position(|b| special(*b)).unwrap_or(tail.len())
}
