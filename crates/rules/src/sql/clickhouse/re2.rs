//! Regular expressions as RE2 reads them.
//!
//! Nothing is left to RE2's own defaults: classes, case and `.` are written out as the characters that
//! our engine takes for them, so that neither the version of Unicode nor ClickHouse's flags count. What
//! RE2 cannot say, or refuses for its size, is an error here.

use super::word::{self, Beside};
use regex_syntax::hir::{Class, ClassUnicode, Hir, HirKind, Look, Repetition};

/// Most that nested counts (`{n}`) may multiply to; RE2's own limit.
const REPEAT_MAX: u32 = 1000;
/// Most ranges of classes and characters after all repetitions are written out; RE2 has room for
/// several times that.
const SIZE_MAX: usize = 30_000;

/// The pattern, or what cannot be said.
pub(super) fn pattern(hir: &Hir) -> Result<String, String> {
    if size(hir) > SIZE_MAX {
        return Err("a regular expression that RE2 has no room for".to_owned());
    }
    let mut out = String::new();
    whole(hir, &mut out)?;
    Ok(out)
}

/// A pattern that nothing stands beside: at its ends an edge of a word can look at the next character by
/// taking it, since only the finding counts.
fn whole(hir: &Hir, out: &mut String) -> Result<(), String> {
    match hir.kind() {
        HirKind::Capture(capture) => whole(&capture.sub, out),
        HirKind::Alternation(parts) => {
            for (at, part) in parts.iter().enumerate() {
                if at > 0 {
                    out.push('|');
                }
                whole(part, out)?;
            }
            Ok(())
        }
        HirKind::Concat(parts) => {
            for (at, part) in parts.iter().enumerate() {
                match part.kind() {
                    HirKind::Look(Look::WordUnicode) => {
                        let before = at.checked_sub(1).map_or(Some(Beside::Nothing), |at| word::end(&parts[at]));
                        let after = parts.get(at + 1).map_or(Some(Beside::Nothing), word::start);
                        word::edge(before, after, out)?;
                    }
                    HirKind::Alternation(_) => group(part, REPEAT_MAX, out)?,
                    HirKind::Empty
                    | HirKind::Literal(_)
                    | HirKind::Class(_)
                    | HirKind::Look(_)
                    | HirKind::Repetition(_)
                    | HirKind::Capture(_)
                    | HirKind::Concat(_) => write(part, REPEAT_MAX, out)?,
                }
            }
            Ok(())
        }
        HirKind::Look(Look::WordUnicode) => word::edge(Some(Beside::Nothing), Some(Beside::Nothing), out),
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_) | HirKind::Repetition(_) => {
            write(hir, REPEAT_MAX, out)
        }
    }
}

fn write(hir: &Hir, budget: u32, out: &mut String) -> Result<(), String> {
    match hir.kind() {
        HirKind::Empty => out.push_str("(?:)"),
        HirKind::Literal(literal) => {
            let text = std::str::from_utf8(&literal.0).map_err(|_| "bytes that are no text".to_owned())?;
            text.chars().for_each(|c| character(c, out));
        }
        HirKind::Class(Class::Unicode(class)) => set(class, out),
        HirKind::Class(Class::Bytes(class)) => match class.to_unicode_class() {
            Some(class) => set(&class, out),
            None => return Err("bytes that are no text".to_owned()),
        },
        HirKind::Look(look) => out.push_str(assertion(*look)?),
        HirKind::Repetition(repetition) => repeat(repetition, budget, out)?,
        HirKind::Capture(capture) => group(&capture.sub, budget, out)?,
        HirKind::Concat(parts) => {
            for part in parts {
                match part.kind() {
                    HirKind::Alternation(_) => group(part, budget, out)?,
                    HirKind::Empty
                    | HirKind::Literal(_)
                    | HirKind::Class(_)
                    | HirKind::Look(_)
                    | HirKind::Repetition(_)
                    | HirKind::Capture(_)
                    | HirKind::Concat(_) => write(part, budget, out)?,
                }
            }
        }
        HirKind::Alternation(parts) => {
            for (at, part) in parts.iter().enumerate() {
                if at > 0 {
                    out.push('|');
                }
                write(part, budget, out)?;
            }
        }
    }
    Ok(())
}

fn group(hir: &Hir, budget: u32, out: &mut String) -> Result<(), String> {
    out.push_str("(?:");
    write(hir, budget, out)?;
    out.push(')');
    Ok(())
}

/// Greedy or not is no difference where only the finding counts.
fn repeat(repetition: &Repetition, budget: u32, out: &mut String) -> Result<(), String> {
    let (sign, counted) = match (repetition.min, repetition.max) {
        (_, Some(0)) => {
            out.push_str("(?:)");
            return Ok(());
        }
        (0, None) => ("*".to_owned(), 1),
        (1, None) => ("+".to_owned(), 1),
        (0, Some(1)) => ("?".to_owned(), 1),
        (min, None) => (format!("{{{min},}}"), min),
        (min, Some(max)) if min == max => (format!("{{{min}}}"), max),
        (min, Some(max)) => (format!("{{{min},{max}}}"), max),
    };
    let left = budget / counted;
    if left == 0 {
        return Err(format!("a regular expression that repeats something more than {REPEAT_MAX} times"));
    }
    match repetition.sub.kind() {
        HirKind::Class(_) => write(&repetition.sub, left, out)?,
        HirKind::Capture(capture) => group(&capture.sub, left, out)?,
        HirKind::Empty
        | HirKind::Literal(_)
        | HirKind::Look(_)
        | HirKind::Repetition(_)
        | HirKind::Concat(_)
        | HirKind::Alternation(_) => group(&repetition.sub, left, out)?,
    }
    out.push_str(&sign);
    Ok(())
}

fn assertion(look: Look) -> Result<&'static str, String> {
    match look {
        Look::Start => Ok("^"),
        Look::End => Ok("$"),
        Look::StartLF => Ok("(?m:^)"),
        Look::EndLF => Ok("(?m:$)"),
        Look::WordAscii => Ok(r"\b"),
        Look::WordAsciiNegate => Ok(r"\B"),
        Look::StartCRLF | Look::EndCRLF => Err("line breaks of two characters in a regular expression".to_owned()),
        Look::WordUnicode
        | Look::WordUnicodeNegate
        | Look::WordStartAscii
        | Look::WordEndAscii
        | Look::WordStartUnicode
        | Look::WordEndUnicode
        | Look::WordStartHalfAscii
        | Look::WordEndHalfAscii
        | Look::WordStartHalfUnicode
        | Look::WordEndHalfUnicode => {
            Err(r"an edge of a word of Unicode (`\b` or `\B`) in a regular expression".to_owned())
        }
    }
}

fn character(c: char, out: &mut String) {
    if c.is_ascii_punctuation() {
        out.push('\\');
    }
    out.push(c);
}

pub(super) fn set(class: &ClassUnicode, out: &mut String) {
    let mut shown = class.clone();
    let negated = class.ranges().last().is_some_and(|range| range.end() == char::MAX) || class.ranges().is_empty();
    if negated {
        shown.negate();
    }
    if shown.ranges().is_empty() {
        // Of all characters, none is left out.
        out.push_str("(?s:.)");
        return;
    }
    out.push_str(if negated { "[^" } else { "[" });
    for range in shown.ranges() {
        member(range.start(), out);
        if range.end() != range.start() {
            if u32::from(range.end()) > u32::from(range.start()) + 1 {
                out.push('-');
            }
            member(range.end(), out);
        }
    }
    out.push(']');
}

fn member(c: char, out: &mut String) {
    if c.is_ascii_graphic() || c == ' ' {
        character(c, out);
    } else {
        out.push_str(&format!("\\x{{{:X}}}", u32::from(c)));
    }
}

/// How many ranges and characters it has when repetitions are written out.
fn size(hir: &Hir) -> usize {
    match hir.kind() {
        HirKind::Look(Look::WordUnicode) => word::SIZE,
        HirKind::Empty | HirKind::Look(_) => 1,
        HirKind::Literal(literal) => literal.0.len(),
        // A range outside ASCII becomes several of bytes.
        HirKind::Class(Class::Unicode(class)) => class.ranges().len() * if class.is_ascii() { 1 } else { 4 },
        HirKind::Class(Class::Bytes(class)) => class.ranges().len(),
        HirKind::Capture(capture) => size(&capture.sub),
        HirKind::Repetition(repetition) => {
            let times = repetition.max.unwrap_or(repetition.min.saturating_add(1)).max(1);
            size(&repetition.sub).saturating_mul(usize::try_from(times).unwrap_or(usize::MAX))
        }
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            parts.iter().fold(1, |sum, part| sum.saturating_add(size(part)))
        }
    }
}

#[cfg(test)]
mod tests {
    fn translated(pattern: &str) -> Result<String, String> {
        super::pattern(&regex_syntax::parse(pattern).expect(pattern))
    }

    #[test]
    fn everything_is_written_out() {
        for (ours, re2) in [
            ("a.c", r"a[^\x{A}]c"),
            ("(?s)a.c", "a(?s:.)c"),
            ("(?i)ab", "[Aa][Bb]"),
            ("(?i)k", r"[Kk\x{212A}]"),
            ("^a$", "^a$"),
            ("(?m)^a$", "(?m:^)a(?m:$)"),
            ("(ab|cd)+e", "(?:ab|cd)+e"),
            ("a{2,5}?", "(?:a){2,5}"),
            (r"[\[\]\\^-]", r"[\-\[-\^]"),
            (r"\.exe|\\", r"\.exe|\\"),
            (r"(?-u:\b)é", r"\bé"),
            (r"a\b\.b", r"a\.b"),
            (r"^\ba\b$", "^a$"),
            (r"a\bb", r"a[^\x{0}-\x{10FFFF}]b"),
            ("a{0}b", "b"),
        ] {
            assert_eq!(translated(ours).as_deref(), Ok(re2), "{ours}");
        }
    }

    #[test]
    fn what_re2_cannot_do_is_refused() {
        for pattern in [r"(?:\bfoo)+", r"foo\B", r"\b.", r"a*\bb", "(?:a{100}){100}", "a{2000}", "(?R)(?m)^a"] {
            assert!(translated(pattern).is_err(), "{pattern}");
        }
    }
}
