//! Sigma's comparison of texts: the whole value against a pattern of literals, `*` and `?`, any
//! case unless the rule says `cased` (Sigma specification, "Value modifiers" and "Wildcards").
//!
//! Case is compared by [`fold_char`]: one character for one, and no character outside ASCII ever
//! equals one inside it. So a pattern of ASCII means the same here, in SQLite's `LIKE` and in
//! ClickHouse's `lower`.

use super::Value;

/// Lower case, one character for one; what would leave or enter ASCII (`K` for Kelvin) or would
/// become several characters (`İ`) stays as it is.
pub fn fold_char(c: char) -> char {
    if c.is_ascii() {
        return c.to_ascii_lowercase();
    }
    let mut lower = c.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(lower), None) if !lower.is_ascii() => lower,
        _ => c,
    }
}

/// Replaces `out` by the folded text.
pub fn fold_into(text: &str, out: &mut String) {
    out.clear();
    if text.is_ascii() {
        out.push_str(text);
        out.make_ascii_lowercase();
    } else {
        out.extend(text.chars().map(fold_char));
    }
}

/// The folded text.
pub fn fold(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    fold_into(text, &mut out);
    out
}

/// A piece of a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Part {
    /// These characters.
    Literal(String),
    /// `?`: exactly one character.
    One,
    /// `*`: any characters, or none.
    Many,
}

/// What a pattern comes down to; literals as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape<'a> {
    /// The value is this text.
    Equals(&'a str),
    /// `literal*`
    StartsWith(&'a str),
    /// `*literal`
    EndsWith(&'a str),
    /// `*literal*`
    Contains(&'a str),
    /// `*`: any value.
    Everything,
    /// Anything else.
    Wild(&'a [Part]),
}

/// A pattern, ready to be compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Op {
    /// Neighbouring literals are one, and so are neighbouring `*`.
    parts: Box<[Part]>,
    /// The same with literals folded, where that is something else: what is compared unless `cased`.
    folded: Option<Box<[Part]>>,
    cased: bool,
}

/// Reads a value as Sigma writes it: `*` and `?` are wildcards, `\*`, `\?` and `\\` are those
/// characters, any other backslash is itself.
pub fn parse(written: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut chars = written.chars().peekable();
    while let Some(c) = chars.next() {
        let wildcard = match c {
            '\\' => {
                literal.push(chars.next_if(|next| matches!(next, '*' | '?' | '\\')).unwrap_or('\\'));
                continue;
            }
            '*' => Part::Many,
            '?' => Part::One,
            c => {
                literal.push(c);
                continue;
            }
        };
        if !literal.is_empty() {
            parts.push(Part::Literal(std::mem::take(&mut literal)));
        }
        parts.push(wildcard);
    }
    if !literal.is_empty() {
        parts.push(Part::Literal(literal));
    }
    parts
}

/// A pattern of these parts.
pub fn compile(parts: impl IntoIterator<Item = Part>, cased: bool) -> Op {
    let mut joined: Vec<Part> = Vec::new();
    for part in parts {
        match (joined.last_mut(), part) {
            (Some(Part::Literal(text)), Part::Literal(more)) => text.push_str(&more),
            (_, Part::Literal(text)) if text.is_empty() => {}
            (Some(Part::Many), Part::Many) => {}
            (_, part) => joined.push(part),
        }
    }
    let folded: Box<[Part]> = joined
        .iter()
        .map(|part| match part {
            Part::Literal(text) => Part::Literal(fold(text)),
            Part::One => Part::One,
            Part::Many => Part::Many,
        })
        .collect();
    Op { folded: Some(folded).filter(|folded| **folded != *joined), parts: joined.into(), cased }
}

/// Whether the value, as a whole, fits the pattern.
pub fn matches(op: &Op, value: &Value<'_>) -> bool {
    match value {
        Value::Text { raw, .. } if op.cased => op.fits(raw),
        Value::Text { raw, .. } => op.fits(&fold(raw)),
        Value::Absent | Value::Oid(_) | Value::Severity(_) => false,
    }
}

impl Op {
    /// As the author wrote it, literal by literal.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Whether upper and lower case differ.
    pub fn cased(&self) -> bool {
        self.cased
    }

    /// What is compared: folded unless cased.
    pub fn compared(&self) -> &[Part] {
        if self.cased { &self.parts } else { self.folded() }
    }

    /// Its literals folded, whether or not that is what is compared.
    pub fn folded(&self) -> &[Part] {
        self.folded.as_deref().unwrap_or(&self.parts)
    }

    /// The shape of what is compared.
    pub fn shape(&self) -> Shape<'_> {
        match self.compared() {
            [] => Shape::Equals(""),
            [Part::Literal(text)] => Shape::Equals(text),
            [Part::Literal(text), Part::Many] => Shape::StartsWith(text),
            [Part::Many, Part::Literal(text)] => Shape::EndsWith(text),
            [Part::Many, Part::Literal(text), Part::Many] => Shape::Contains(text),
            [Part::Many] => Shape::Everything,
            parts => Shape::Wild(parts),
        }
    }

    /// Whether a text fits that was folded already, unless the pattern is cased.
    pub fn fits(&self, text: &str) -> bool {
        match self.shape() {
            Shape::Equals(literal) => text == literal,
            Shape::StartsWith(literal) => text.starts_with(literal),
            Shape::EndsWith(literal) => text.ends_with(literal),
            Shape::Contains(literal) => text.contains(literal),
            Shape::Everything => true,
            Shape::Wild(parts) => wild(parts, text),
        }
    }

    /// In words, to stand after the field's name.
    pub fn describe(&self) -> String {
        let case = if self.cased { " (upper and lower case differ)" } else { "" };
        let said = match (self.parts(), self.shape()) {
            ([], _) => "is empty".to_owned(),
            ([Part::Literal(text)], _) => format!("is {text:?}"),
            ([Part::Literal(text), Part::Many], _) => format!("starts with {text:?}"),
            ([Part::Many, Part::Literal(text)], _) => format!("ends with {text:?}"),
            ([Part::Many, Part::Literal(text), Part::Many], _) => format!("contains {text:?}"),
            ([Part::Many], _) => "has a value".to_owned(),
            (parts, _) => format!("looks like {:?}", written(parts)),
        };
        format!("{said}{case}")
    }
}

/// The pattern as Sigma writes it.
pub fn written(parts: &[Part]) -> String {
    let mut out = String::new();
    for part in parts {
        match part {
            Part::Literal(text) => {
                for c in text.chars() {
                    if matches!(c, '*' | '?' | '\\') {
                        out.push('\\');
                    }
                    out.push(c);
                }
            }
            Part::One => out.push('?'),
            Part::Many => out.push('*'),
        }
    }
    out
}

/// Greedy matching from star to star: each run between two stars goes to the first place it fits.
/// Time is at most pattern × text.
fn wild(parts: &[Part], text: &str) -> bool {
    let mut runs = parts.split(|part| *part == Part::Many);
    let first = runs.next().unwrap_or_default();
    let Some(mut rest) = anchored(first, text) else { return false };
    let middle: Vec<&[Part]> = runs.collect();
    let Some((last, middle)) = middle.split_last() else { return rest.is_empty() };
    for run in middle.iter().filter(|run| !run.is_empty()) {
        match found(run, rest) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    at_end(last, rest)
}

/// The rest of the text behind the run, which begins it.
fn anchored<'t>(run: &[Part], text: &'t str) -> Option<&'t str> {
    let mut rest = text;
    for part in run {
        rest = match part {
            Part::Literal(literal) => rest.strip_prefix(&**literal)?,
            Part::One => {
                let mut chars = rest.chars();
                chars.next()?;
                chars.as_str()
            }
            Part::Many => rest,
        };
    }
    Some(rest)
}

/// The rest of the text behind the first place where the run stands.
fn found<'t>(run: &[Part], text: &'t str) -> Option<&'t str> {
    if let [Part::Literal(literal)] = run {
        return text.find(&**literal).map(|at| &text[at + literal.len()..]);
    }
    text.char_indices().find_map(|(at, _)| anchored(run, &text[at..]))
}

/// Whether the text ends with the run.
fn at_end(run: &[Part], text: &str) -> bool {
    let mut rest = text;
    for part in run.iter().rev() {
        let shorter = match part {
            Part::Literal(literal) => rest.strip_suffix(&**literal),
            Part::One => {
                let mut chars = rest.chars();
                chars.next_back().map(|_| chars.as_str())
            }
            Part::Many => Some(rest),
        };
        match shorter {
            Some(shorter) => rest = shorter,
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(pattern: &str, text: &str) -> bool {
        matches(&compile(parse(pattern), false), &Value::Text { raw: text, lower: text })
    }

    #[test]
    fn backslashes_escape_wildcards_and_themselves_only() {
        for (written, parts) in [
            (r"a\b", vec![Part::Literal(r"a\b".into())]),
            (r"a\*", vec![Part::Literal("a*".into())]),
            (r"a\\*", vec![Part::Literal(r"a\".into()), Part::Many]),
            (r"a\\\*", vec![Part::Literal(r"a\*".into())]),
            (r"\\\\srv", vec![Part::Literal(r"\\srv".into())]),
            (r"end\", vec![Part::Literal(r"end\".into())]),
            ("a?*", vec![Part::Literal("a".into()), Part::One, Part::Many]),
            ("", vec![]),
        ] {
            assert_eq!(parse(written), parts, "{written}");
        }
    }

    #[test]
    fn the_whole_value_is_compared_in_any_case() {
        for (pattern, text, expected) in [
            ("cmd.exe", "CMD.EXE", true),
            ("cmd.exe", "xcmd.exe", false),
            ("*\\cmd.exe", "C:\\Windows\\CMD.exe", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abcdf", false),
            ("*a*a*", "a", false),
            ("*ab", "aab", true),
            ("?", "é", true),
            ("?", "", false),
            ("a?c", "abc", true),
            ("*b?", "abbc", true),
            ("*?b*", "ab", true),
            ("*?b*", "b", false),
            ("*", "", true),
            ("", "", true),
            ("", "x", false),
            ("ÉTÉ", "été", true),
            ("k", "\u{212A}", false),
            ("i", "İ", false),
            ("ss", "ß", false),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} ~ {text}");
        }
        let cased = compile(parse("*Cmd*"), true);
        assert!(cased.fits("aCmdb") && !cased.fits("acmdb"));
    }

    #[test]
    fn a_pattern_is_written_as_it_is_read() {
        for text in [r"a\*b*c?", r"C:\\*", "*x*"] {
            assert_eq!(parse(&written(&parse(text))), parse(text), "{text}");
        }
    }
}
