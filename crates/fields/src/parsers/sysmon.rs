//! Sysmon for Linux, which puts the XML of its events into syslog. Values are escaped, so a tag in
//! the text is one of Sysmon's.

use super::{Line, Parser, Reading};
use crate::sources::windows::sysmon::categories;
use std::borrow::Cow;

pub(super) const PARSER: Parser =
    Parser { name: "sysmon", programs: &["sysmon"], sniff: None, product: Some("linux"), services: &["sysmon"], read };

fn read<'m>(line: Line<'m>, out: &mut Reading<'m>) -> bool {
    parse(line.text.trim(), out).is_some()
}

fn parse<'m>(text: &'m str, out: &mut Reading<'m>) -> Option<()> {
    let rest = text.strip_prefix("<Event>").or_else(|| text.strip_prefix("<Event "))?;
    let (_, rest) = rest.split_once("<System>")?;
    let (system, rest) = rest.split_once("</System>")?;
    let id = element(system, "<EventID>", "</EventID>")?;
    out.categories(categories(id.parse().ok()?));
    out.push("EventID", id);
    out.some("Channel", element(system, "<Channel>", "</Channel>"));
    out.some("Computer", element(system, "<Computer>", "</Computer>"));
    out.some("Provider_Name", element(system, "<Provider Name=\"", "\""));
    let mut rest = rest;
    while let Some((_, data)) = rest.split_once("<Data Name=\"") {
        let (name, data) = data.split_once('"')?;
        rest = data;
        if let Some(behind) = data.strip_prefix('>') {
            let (value, behind) = behind.split_once("</Data>")?;
            out.push(name, plain(value));
            rest = behind;
        }
    }
    Some(())
}

fn element<'t>(text: &'t str, start: &str, end: &str) -> Option<&'t str> {
    text.split_once(start)?.1.split_once(end).map(|(inner, _)| inner)
}

/// The text that its entities stand for.
fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let named = [("&amp;", '&'), ("&lt;", '<'), ("&gt;", '>'), ("&quot;", '"'), ("&apos;", '\'')];
        let (skip, what) = match named.iter().find(|(entity, _)| rest.starts_with(entity)) {
            Some((entity, what)) => (entity.len(), *what),
            None => numbered(rest).unwrap_or((1, '&')),
        };
        out.push(what);
        rest = &rest[skip..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// `&#10;` and `&#x0a;`: how long it is, and what it stands for.
fn numbered(text: &str) -> Option<(usize, char)> {
    let end = text.as_bytes().iter().take(12).position(|b| *b == b';')?;
    let digits = text.get(2..end).filter(|_| text.starts_with("&#"))?;
    let code = match digits.strip_prefix('x') {
        Some(hex) => u32::from_str_radix(hex, 16).ok()?,
        None => digits.parse().ok()?,
    };
    Some((end + 1, char::from_u32(code)?))
}
