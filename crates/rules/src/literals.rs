//! Which literals every match of a regular expression must contain, so that one shared scan for
//! literals can say which patterns are worth running.
//!
//! The literals are ASCII and lower case. They are looked for in the message's lower-case form, to
//! which two characters outside ASCII are mapped that fold to ASCII letters: `K` (Kelvin) becomes
//! `k` by lowering, `ſ` (long s) is mapped to `s` by the matcher.

use regex_syntax::hir::{Class, Hir, HirKind};
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// More alternatives than this are not followed.
const ALTERNATIVES_MAX: usize = 48;
/// More groups would hardly make a pattern rarer.
const GROUPS_MAX: usize = 4;
/// Longer literals are cut here; a longer one would not be rarer.
const LITERAL_BYTES_MAX: usize = 24;
/// Shorter literals are found in nearly every message.
const LITERAL_BYTES_MIN: usize = 2;

type Set = BTreeSet<String>;

/// Groups of literals: each match contains at least one literal of every group. Best group first;
/// empty if no literal is sure to be in a match.
pub(crate) fn required(hir: &Hir) -> Vec<Vec<String>> {
    let mut groups = examine(hir).into_required();
    groups.sort_by_key(|group| Reverse(worth(group)));
    let mut kept: Vec<Set> = Vec::new();
    for group in groups {
        let implied = |better: &Set| better.iter().all(|text| group.iter().any(|part| text.contains(&**part)));
        if kept.len() < GROUPS_MAX && !kept.iter().any(implied) {
            kept.push(group);
        }
    }
    // A literal that contains another one of its group adds nothing.
    let lean =
        |group: &Set| group.iter().filter(|a| !group.iter().any(|b| b != *a && a.contains(&**b))).cloned().collect();
    kept.iter().map(lean).collect()
}

/// What is known of the texts that a part of the pattern matches.
struct Info {
    /// All texts it can match (folded), if they are few.
    exact: Option<Set>,
    /// Each match contains one of each.
    required: Vec<Set>,
}

impl Info {
    fn exact(texts: Set) -> Self {
        Self { exact: Some(texts), required: Vec::new() }
    }
    const UNKNOWN: Self = Self { exact: None, required: Vec::new() };
    fn into_required(mut self) -> Vec<Set> {
        self.required.extend(self.exact.and_then(usable));
        self.required
    }
}

fn examine(hir: &Hir) -> Info {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => Info::exact(Set::from([String::new()])),
        HirKind::Literal(literal) => match std::str::from_utf8(&literal.0) {
            Ok(text) => concat(text.chars().map(|c| match fold(c) {
                Some(c) => Info::exact(Set::from([c.to_string()])),
                None => Info::UNKNOWN,
            })),
            Err(_) => Info::UNKNOWN,
        },
        HirKind::Class(class) => class_texts(class).map_or(Info::UNKNOWN, Info::exact),
        HirKind::Capture(capture) => examine(&capture.sub),
        HirKind::Concat(parts) => concat(parts.iter().map(examine)),
        HirKind::Alternation(parts) => alternation(parts),
        HirKind::Repetition(repetition) => match (repetition.min, repetition.max) {
            (0, Some(1)) => match examine(&repetition.sub).exact {
                Some(mut texts) if texts.len() < ALTERNATIVES_MAX => {
                    texts.insert(String::new());
                    Info::exact(texts)
                }
                _ => Info::UNKNOWN,
            },
            (0, _) => Info::UNKNOWN,
            (n, max) if max == Some(n) && n <= 8 => concat((0..n).map(|_| examine(&repetition.sub))),
            _ => Info { exact: None, required: examine(&repetition.sub).into_required() },
        },
    }
}

fn concat(parts: impl Iterator<Item = Info>) -> Info {
    let nothing = || Set::from([String::new()]);
    let mut run = nothing();
    let mut required = Vec::new();
    let mut whole = true;
    for part in parts {
        required.extend(part.required);
        let Some(texts) = part.exact else {
            whole = false;
            required.extend(usable(std::mem::replace(&mut run, nothing())));
            continue;
        };
        let long = run.iter().any(|text| text.len() >= LITERAL_BYTES_MAX);
        if long || run.len() * texts.len() > ALTERNATIVES_MAX {
            whole = false;
            required.extend(usable(std::mem::replace(&mut run, texts)));
        } else {
            run = run.iter().flat_map(|head| texts.iter().map(move |tail| format!("{head}{tail}"))).collect();
        }
    }
    if whole {
        return Info { exact: Some(run), required };
    }
    required.extend(usable(run));
    Info { exact: None, required }
}

fn alternation(parts: &[Hir]) -> Info {
    let mut exact = Some(Set::new());
    let mut required = Some(Set::new());
    for part in parts {
        let info = examine(part);
        let join = |(mut all, texts): (Set, Set)| {
            all.extend(texts);
            all
        };
        exact = exact.zip(info.exact.clone()).map(join).filter(|set| set.len() <= ALTERNATIVES_MAX);
        let best = info.into_required().into_iter().max_by_key(worth);
        required = required.zip(best).map(join).filter(|set| set.len() <= ALTERNATIVES_MAX);
    }
    Info { exact, required: required.into_iter().filter(|set| !set.is_empty()).collect() }
}

fn class_texts(class: &Class) -> Option<Set> {
    const CLASS_CHARS_MAX: u32 = 24;
    let mut texts = Set::new();
    match class {
        Class::Unicode(class) => {
            let size: u32 = class.ranges().iter().map(|r| r.end() as u32 - r.start() as u32 + 1).sum();
            if size > CLASS_CHARS_MAX {
                return None;
            }
            for c in class.ranges().iter().flat_map(|r| r.start()..=r.end()) {
                texts.insert(fold(c)?.to_string());
            }
        }
        Class::Bytes(class) => {
            let size: u32 = class.ranges().iter().map(|r| u32::from(r.end() - r.start()) + 1).sum();
            if size > CLASS_CHARS_MAX {
                return None;
            }
            for b in class.ranges().iter().flat_map(|r| r.start()..=r.end()) {
                texts.insert(fold(char::from(b)).filter(|_| b.is_ascii())?.to_string());
            }
        }
    }
    (!texts.is_empty()).then_some(texts)
}

/// The ASCII character that stands for `c` in the folded message.
fn fold(c: char) -> Option<char> {
    match c {
        'ſ' => Some('s'),
        '\u{212A}' => Some('k'),
        c if c.is_ascii() => Some(c.to_ascii_lowercase()),
        _ => None,
    }
}

fn usable(texts: Set) -> Option<Set> {
    (!texts.is_empty() && texts.iter().all(|text| text.len() >= LITERAL_BYTES_MIN)).then_some(texts)
}

/// A group is better whose shortest literal is longer, and then the smaller one.
fn worth(group: &Set) -> (usize, Reverse<usize>) {
    let shortest = group.iter().map(String::len).min().unwrap_or(0).min(12);
    (shortest, Reverse(group.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, expected: &[&[&str]]) {
        let hir = regex_syntax::ParserBuilder::new().case_insensitive(true).build().parse(pattern).expect("pattern");
        assert_eq!(required(&hir), expected, "{pattern}");
    }

    #[test]
    fn inner_literals_are_required() {
        check("link.*downtime", &[&["downtime"], &["link"]]);
        check(r"\d+ errors on \S+", &[&[" errors on "]]);
        check(
            "(?:fan|psu) ?[ab] failed",
            &[&[
                "fan a failed",
                "fan b failed",
                "fana failed",
                "fanb failed",
                "psu a failed",
                "psu b failed",
                "psua failed",
                "psub failed",
            ]],
        );
        check("error|CRITICAL", &[&["critical", "error"]]);
        check("LINK-3-(UPDOWN|DOWN)", &[&["link-3-down", "link-3-updown"]]);
        check("ÜberfLow", &[&["berflow"]]);
        check("(?:ab.*cd)+x{20}", &[&["ab"], &["cd"]]);
    }

    #[test]
    fn a_pattern_without_literals_has_none() {
        for pattern in [r"\d+", ".*", "a", "(?:abc)?", "(?:abc)*x", r"[a-z]{3}\w", "abc|.", "é"] {
            check(pattern, &[]);
        }
    }

    #[test]
    fn the_long_s_does_not_multiply_the_literals() {
        check("session SSSSSS kkkk", &[&["session ssssss kkkk"]]);
    }
}
