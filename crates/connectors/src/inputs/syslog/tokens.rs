//! Is this word a host, a tag, an address?

use super::parse::{MAX_NAME, skip_spaces};
use std::net::{IpAddr, Ipv6Addr};

/// `program[pid]: ` at the start of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tag<'a> {
    pub program: &'a [u8],
    pub pid: Option<&'a [u8]>,
    /// Bytes taken, the space behind it included.
    pub len: usize,
}

const MAX_PROGRAM: usize = 128;
const MAX_PID: usize = 64;

/// A tag (RFC 3164 §4.1.3): a word that ends in `:` or in `[pid]`. A severity's name is none, it
/// belongs to the sentence (`error: disk failed`).
pub(super) fn tag(text: &[u8]) -> Option<Tag<'_>> {
    let of_tag = |b: u8| {
        b.is_ascii_alphanumeric()
            || matches!(b, b'.' | b'_' | b'-' | b'/' | b'(' | b')' | b'#' | b'@' | b',' | b'+' | b'*')
    };
    let len = text.iter().take(MAX_PROGRAM).take_while(|b| of_tag(**b)).count();
    let program = &text[..len];
    if !program.iter().any(u8::is_ascii_alphabetic) {
        return None;
    }
    match *text.get(len)? {
        b':' => {
            let rest = &text[len + 1..];
            let ends = matches!(rest.first(), None | Some(b' ' | b'\t'));
            (ends && !is_severity(program)).then(|| taken(text, program, None, rest))
        }
        b'[' => {
            let inner = &text[len + 1..];
            let pid_len = inner.iter().take(MAX_PID).take_while(|b| b.is_ascii_graphic() && **b != b']').count();
            let pid = &inner[..pid_len];
            let rest = inner[pid_len..].strip_prefix(b"]")?;
            let pid_only = (pid_len > 0).then_some(pid);
            match rest {
                [b':', rest @ ..] => Some(taken(text, program, pid_only, rest)),
                [b' ', ..] if pid.iter().all(u8::is_ascii_digit) => Some(taken(text, program, pid_only, rest)),
                _ => None,
            }
        }
        b'\t' if program == b"MSWinEventLog" => Some(taken(text, program, None, &text[len + 1..])),
        _ => None,
    }
}

fn taken<'a>(text: &'a [u8], program: &'a [u8], pid: Option<&'a [u8]>, rest: &'a [u8]) -> Tag<'a> {
    Tag { program, pid, len: text.len() - skip_spaces(rest).len() }
}

fn is_severity(word: &[u8]) -> bool {
    const WORDS: [&[u8]; 14] = [
        b"emerg",
        b"emergency",
        b"alert",
        b"crit",
        b"critical",
        b"err",
        b"error",
        b"warn",
        b"warning",
        b"notice",
        b"info",
        b"debug",
        b"fatal",
        b"failure",
    ];
    WORDS.iter().any(|w| w.eq_ignore_ascii_case(word))
}

/// A name that can be a host's: letters, digits, `.`, `-`, `_` (underscores exist, whatever DNS
/// says), or an IPv6 address.
pub(super) fn is_host(word: &[u8]) -> bool {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    match word {
        [] => false,
        _ if word.len() > MAX_NAME => false,
        [first, ..] if word.iter().all(plain) => first.is_ascii_alphanumeric() || *first == b'_',
        _ => word.contains(&b':') && is_ip(word),
    }
}

/// An IP address; IPv6 may carry a zone (`fe80::1%eth0`).
pub(super) fn is_ip(word: &[u8]) -> bool {
    if word.len() > 64 {
        return false;
    }
    let Ok(text) = std::str::from_utf8(word) else { return false };
    match text.split_once('%') {
        Some((address, zone)) => !zone.is_empty() && address.parse::<Ipv6Addr>().is_ok(),
        None => text.parse::<IpAddr>().is_ok(),
    }
}

/// Where `needle` first occurs.
pub(super) fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut from = 0;
    while let Some(n) = text.get(from..)?.iter().position(|b| *b == first) {
        from += n;
        if text[from..].starts_with(needle) {
            return Some(from);
        }
        from += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<(&str, Option<&str>, &str)>) {
        let found = tag(text.as_bytes());
        let found = found.as_ref().map(|t| {
            let pid = t.pid.map(|p| std::str::from_utf8(p).unwrap());
            (std::str::from_utf8(t.program).unwrap(), pid, &text[t.len..])
        });
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn tags_are_told_from_words() {
        check("sshd[123]: Failed", Some(("sshd", Some("123"), "Failed")));
        check("su: 'su root' failed", Some(("su", None, "'su root' failed")));
        check("postfix/smtpd[9]: connect", Some(("postfix/smtpd", Some("9"), "connect")));
        check("(systemd)[1]: x", Some(("(systemd)", Some("1"), "x")));
        check("app[worker.1]: x", Some(("app", Some("worker.1"), "x")));
        check("app[12] no colon", Some(("app", Some("12"), "no colon")));
        check("app[]: x", Some(("app", None, "x")));
        check("cron:", Some(("cron", None, "")));
        check("MSWinEventLog\t1\tSecurity", Some(("MSWinEventLog", None, "1\tSecurity")));
        for none in [
            "",
            ":",
            "Connection closed",
            "http://x y",
            "10:20:30 up",
            "a[b c]: x",
            "a[",
            "error: disk",
            "1,2026/10/11 1:2:3",
            "CEF:0|a|b",
        ] {
            check(none, None);
        }
    }

    #[test]
    fn hosts_are_told_from_words() {
        for good in [
            "a",
            "router1",
            "sw-1.example.com",
            "10.0.0.1",
            "fe80::1",
            "2001:db8::10.0.0.1",
            "WIN_DC1",
            "fe80::1%eth0",
            "_gw",
        ] {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in ["", "-x", "a:b", "a/b", "a=b", "a,b", "su:", "[x]", "%SYS", "\u{e9}"] {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
        assert!(!is_host(&[b'a'; 256]));
    }

    #[test]
    fn a_needle_is_found_wherever_it_is() {
        assert_eq!(find(b"aaab", b"aab"), Some(1));
        assert_eq!(find(b"aab", b"aab"), Some(0));
        assert_eq!(find(b"aa", b"aab"), None);
        assert_eq!(find(b"", b"a"), None);
    }
}
