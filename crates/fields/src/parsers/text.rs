//! Reading from fixed words.

use std::net::IpAddr;

/// The text if it is an IPv4 or IPv6 address (with or without a zone).
pub(super) fn ip(text: &str) -> Option<&str> {
    if text.len() > 64 || text.is_empty() {
        return None;
    }
    let address = text.split_once('%').map_or(text, |(address, _)| address);
    address.parse::<IpAddr>().ok().map(|_| text)
}

/// The address between `[` and `]`, or bare.
pub(super) fn bracketed_ip(text: &str) -> Option<&str> {
    ip(text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text))
}

/// A decimal number as written, not longer than a process id or port can be.
pub(super) fn number(text: &str) -> Option<&str> {
    (!text.is_empty() && text.len() <= 20 && text.bytes().all(|b| b.is_ascii_digit())).then_some(text)
}

/// The word at the beginning, and what is behind the space after it.
pub(super) fn word(text: &str) -> (&str, &str) {
    text.split_once(' ').unwrap_or((text, ""))
}

/// `ADDRESS port NUMBER` at the beginning: address, port, what is behind.
pub(super) fn peer(text: &str) -> Option<(&str, &str, &str)> {
    let head = text.as_bytes().iter().take(64).position(|b| *b == b' ')?;
    let address = ip(&text[..head])?;
    let rest = text[head..].strip_prefix(" port ")?;
    let end = rest.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(rest.len());
    Some((address, number(&rest[..end])?, &rest[end..]))
}

/// An address at the beginning, with a port or without.
pub(super) fn peer_or_ip(text: &str) -> Option<(&str, Option<&str>, &str)> {
    if let Some((address, port, rest)) = peer(text) {
        return Some((address, Some(port), rest));
    }
    let end = text.as_bytes().iter().take(64).position(|b| matches!(b, b' ' | b',')).unwrap_or(text.len());
    let address = text.get(..end)?;
    // Older ones put a colon right behind.
    let address = ip(address).or_else(|| ip(address.strip_suffix(':')?))?;
    Some((address, None, &text[address.len()..]))
}

/// Splits behind the last `separator`.
pub(super) fn rsplit<'t>(text: &'t str, separator: &str) -> Option<(&'t str, &'t str)> {
    text.rsplit_once(separator)
}

/// The text without its last `suffix`, or as it is.
pub(super) fn without<'t>(text: &'t str, suffix: &str) -> &'t str {
    text.strip_suffix(suffix).unwrap_or(text)
}

/// The values of `KEY=value` words separated by spaces; of a key that comes twice, both.
pub(super) fn words_with_values(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split_ascii_whitespace().filter_map(|word| word.split_once('='))
}
