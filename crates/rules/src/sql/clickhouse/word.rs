//! Edges of words by Unicode's rules, which RE2 does not know: said by the characters beside them, where
//! those are known.

use super::re2::set;
use regex_syntax::hir::{Class, ClassUnicode, Hir, HirKind, Look};

/// How large an edge can be when it is written out, as `re2` measures it.
pub(super) const SIZE: usize = 4_000;

/// What stands beside an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beside {
    /// A character of a word.
    Word,
    /// Another character, or an end of the text.
    Other,
    /// The pattern ends there; anything can follow.
    Nothing,
}

/// Writes what an edge between these asks for.
pub(super) fn edge(before: Option<Beside>, after: Option<Beside>, out: &mut String) -> Result<(), String> {
    use Beside::{Nothing, Other, Word};
    let unknown = || Err(r"an edge of a word of Unicode (`\b`) between characters that are not known".to_owned());
    let (Some(before), Some(after)) = (before, after) else { return unknown() };
    let Some(words) = words() else { return unknown() };
    let mut others = words.clone();
    others.negate();
    match (before, after) {
        (Word, Other) | (Other, Word) => {}
        (Word, Word) | (Other, Other) => out.push_str(r"[^\x{0}-\x{10FFFF}]"),
        (Nothing, Other) | (Other, Nothing) | (Nothing, Nothing) => set(&words, out),
        (Nothing, Word) => either("^", &others, out),
        (Word, Nothing) => either("$", &others, out),
    }
    Ok(())
}

fn either(end: &str, others: &ClassUnicode, out: &mut String) {
    out.push_str("(?:");
    out.push_str(end);
    out.push('|');
    set(others, out);
    out.push(')');
}

fn words() -> Option<ClassUnicode> {
    match regex_syntax::parse(r"\w").ok()?.into_kind() {
        HirKind::Class(Class::Unicode(class)) => Some(class),
        _ => None,
    }
}

/// What the part begins with, where all its matches begin alike.
pub(super) fn start(part: &Hir) -> Option<Beside> {
    beside(part, true)
}

/// What the part ends with.
pub(super) fn end(part: &Hir) -> Option<Beside> {
    beside(part, false)
}

fn beside(part: &Hir, at_start: bool) -> Option<Beside> {
    match part.kind() {
        HirKind::Literal(literal) => {
            let text = std::str::from_utf8(&literal.0).ok()?;
            let c = if at_start { text.chars().next() } else { text.chars().next_back() }?;
            of(&ClassUnicode::new([regex_syntax::hir::ClassUnicodeRange::new(c, c)]))
        }
        HirKind::Class(Class::Unicode(class)) => of(class),
        HirKind::Class(Class::Bytes(class)) => of(&class.to_unicode_class()?),
        HirKind::Repetition(repetition) if repetition.min > 0 => beside(&repetition.sub, at_start),
        HirKind::Capture(capture) => beside(&capture.sub, at_start),
        HirKind::Concat(parts) => beside(if at_start { parts.first() } else { parts.last() }?, at_start),
        HirKind::Alternation(parts) => {
            let mut all = parts.iter().map(|part| beside(part, at_start));
            let first = all.next()??;
            all.all(|other| other == Some(first)).then_some(first)
        }
        // The ends of the text; of the start, nothing can be before it.
        HirKind::Look(Look::End) if at_start => Some(Beside::Other),
        HirKind::Look(Look::Start) if !at_start => Some(Beside::Other),
        HirKind::Look(_) | HirKind::Repetition(_) | HirKind::Empty => None,
    }
}

fn of(class: &ClassUnicode) -> Option<Beside> {
    if class.ranges().is_empty() {
        return None;
    }
    let (mut within, words) = (class.clone(), words()?);
    within.intersect(&words);
    match () {
        () if within == *class => Some(Beside::Word),
        () if within.ranges().is_empty() => Some(Beside::Other),
        () => None,
    }
}
