//! Patterns of Python's `re`, as the original's rules are written, in the syntax of the linear engine.
//!
//! Most of both is the same. What is written otherwise is rewritten; what only Python has and what
//! cannot be linear (look-around, backreferences, atomic groups) stays as it is, for the engine's
//! parser to refuse. Rewritten are `\Z`, comments `(?#…)`, `{,n}` and braces that count nothing,
//! octal escapes, escaped characters outside ASCII, `\<` and `\>`, and in classes `[`, `&&`, `--`, `~~`
//! and `\b`. POSIX names in classes, `[[:alpha:]]`, stay names: Python reads them as single letters,
//! which nobody means.

use std::borrow::Cow;
use std::iter::Peekable;
use std::str::CharIndices;

/// A pattern that the engine reads as Python reads the original.
#[derive(Debug)]
pub(super) struct Translated<'a> {
    pub pattern: Cow<'a, str>,
    /// `$` stands in it, which in Python also matches before a final line break.
    pub dollar: bool,
    /// Where the parts begin, in bytes: in the pattern above and in the original.
    parts: Vec<(usize, usize)>,
}

impl Translated<'_> {
    /// The byte of the original that this byte of the pattern comes from.
    pub fn origin(&self, at: usize) -> usize {
        let part = self.parts.partition_point(|(out, _)| *out <= at).checked_sub(1);
        part.map_or(at, |part| self.parts[part].1 + (at - self.parts[part].0))
    }
}

pub(super) fn translate(pattern: &str) -> Translated<'_> {
    let out = String::with_capacity(pattern.len());
    let rest = pattern.char_indices().peekable();
    let mut translator = Translator { pattern, rest, out, dollar: false, parts: Vec::new() };
    translator.run();
    let Translator { out, dollar, parts, .. } = translator;
    let pattern = if out == pattern { Cow::Borrowed(pattern) } else { Cow::Owned(out) };
    Translated { pattern, dollar, parts }
}

struct Translator<'a> {
    pattern: &'a str,
    rest: Peekable<CharIndices<'a>>,
    out: String,
    dollar: bool,
    parts: Vec<(usize, usize)>,
}

impl Translator<'_> {
    fn run(&mut self) {
        while let Some((at, c)) = self.rest.next() {
            self.parts.push((self.out.len(), at));
            match c {
                '\\' => self.escape(),
                '[' => self.class(),
                '{' => self.brace(at),
                '(' if self.pattern[at..].starts_with("(?#") => self.comment(at),
                '$' => {
                    self.dollar = true;
                    self.out.push('$');
                }
                _ => self.out.push(c),
            }
        }
    }

    /// After a backslash, outside a class.
    fn escape(&mut self) {
        match self.rest.peek().map(|(_, c)| *c) {
            Some('Z') => self.replace("\\z"),
            Some(c @ ('<' | '>')) => self.replace(c.encode_utf8(&mut [0; 4])),
            _ => self.escape_anywhere(),
        }
    }

    fn replace(&mut self, text: &str) {
        self.rest.next();
        self.out.push_str(text);
    }

    /// What an escape means outside classes and in them.
    fn escape_anywhere(&mut self) {
        let Some((at, c)) = self.rest.next() else {
            self.out.push('\\');
            return;
        };
        match c {
            '0'..='7' => {
                if let Some((code, digits)) = octal(&self.pattern[at..]) {
                    self.out.push_str(&format!("\\x{{{code:X}}}"));
                    self.skip(digits - 1);
                    return;
                }
            }
            c if !c.is_ascii() => {
                self.out.push(c);
                return;
            }
            _ => {}
        }
        self.out.push('\\');
        self.out.push(c);
    }

    /// After a `{`: a count, or a brace.
    fn brace(&mut self, at: usize) {
        let Some((count, _)) = self.pattern[at + 1..].split_once('}') else {
            self.out.push_str("\\{");
            return;
        };
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        let counts = match count.split_once(',') {
            Some((least, most)) => digits(least) && digits(most),
            None => !count.is_empty() && digits(count),
        };
        if !counts {
            self.out.push_str("\\{");
            return;
        }
        self.out.push('{');
        if count.starts_with(',') {
            self.out.push('0');
        }
        self.out.push_str(count);
        self.out.push('}');
        self.skip(count.len() + 1);
    }

    /// At `(?#`: without a `)`, the parser refuses it.
    fn comment(&mut self, at: usize) {
        match self.pattern[at..].find(')') {
            Some(end) => {
                let chars = self.pattern[at..at + end].chars().count();
                self.skip(chars);
            }
            None => self.out.push('('),
        }
    }

    /// After a `[`: up to its `]`, with everything escaped that only the engine gives a meaning.
    fn class(&mut self) {
        self.out.push('[');
        if self.rest.next_if(|(_, c)| *c == '^').is_some() {
            self.out.push('^');
        }
        let mut first = true;
        while let Some((at, c)) = self.rest.next() {
            if c == ']' && !first {
                self.out.push(']');
                return;
            }
            first = false;
            self.member(at, c);
            // Between two members it makes a range; anywhere else it is one itself.
            let mut ahead = self.rest.clone();
            if ahead.next().is_some_and(|(_, c)| c == '-') && ahead.next().is_some_and(|(_, c)| c != ']') {
                self.rest.next();
                self.out.push('-');
                if let Some((at, c)) = self.rest.next() {
                    self.member(at, c);
                }
            }
        }
    }

    fn member(&mut self, at: usize, c: char) {
        match c {
            '\\' => match self.rest.peek().map(|(_, c)| *c) {
                Some('b') => self.replace("\\x08"),
                Some(c @ ('<' | '>')) => self.replace(c.encode_utf8(&mut [0; 4])),
                _ => self.escape_anywhere(),
            },
            '[' => match posix_name(&self.pattern[at..]) {
                Some(name) => {
                    self.out.push_str(name);
                    self.skip(name.len() - 1);
                }
                None => self.out.push_str("\\["),
            },
            ']' | '&' | '~' | '-' => {
                self.out.push('\\');
                self.out.push(c);
            }
            _ => self.out.push(c),
        }
    }

    fn skip(&mut self, chars: usize) {
        for _ in 0..chars {
            self.rest.next();
        }
    }
}

/// Python reads `\0`, with up to two more octal digits, and three octal digits as a character.
fn octal(digits: &str) -> Option<(u32, usize)> {
    let count = digits.bytes().take(3).take_while(|b| (b'0'..=b'7').contains(b)).count();
    (digits.starts_with('0') || count == 3)
        .then(|| (u32::from_str_radix(&digits[..count], 8).unwrap_or_default(), count))
        .filter(|(code, _)| *code <= 0o377)
}

/// `[:alpha:]` and the like at the start of `text`.
fn posix_name(text: &str) -> Option<&str> {
    let inner = text.strip_prefix("[:")?;
    let end = inner.find(":]")?;
    let letters = inner[..end].strip_prefix('^').unwrap_or(&inner[..end]);
    (!letters.is_empty() && letters.bytes().all(|b| b.is_ascii_lowercase())).then(|| &text[..end + 4])
}
