//! A reader of JSON that hands out pieces of its input: strings without escapes are borrowed,
//! numbers are returned as written. It accepts exactly JSON (RFC 8259), and beyond it half of a
//! surrogate pair, which other writers let through and which reads as U+FFFD.
//!
//! It does not recurse; whoever descends into arrays and objects keeps the bound. Its small steps
//! are inlined, since handing their results over in memory is a fifth of the time of an event.

use crate::FieldsError;
use std::borrow::Cow;

/// A position in a JSON text.
pub(crate) struct Reader<'a> {
    text: &'a str,
    at: usize,
}

/// The value that begins at the reader's position. Scalars have been read; of an array or object,
/// only the bracket.
pub(crate) enum Value<'a> {
    Text(Cow<'a, str>),
    /// As written: digits only, perhaps with a minus in front.
    Integer(&'a str),
    /// As written: with a fraction or an exponent.
    Number(&'a str),
    Bool(bool),
    Null,
    Array,
    Object,
}

impl<'a> Reader<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    fn expected(&self, expected: &'static str) -> FieldsError {
        FieldsError::Syntax { at: self.at, expected }
    }

    fn word(&mut self, word: &'static str) -> Result<(), FieldsError> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.expected("a value"));
        }
        self.at += word.len();
        Ok(())
    }

    /// Reads a value, or the bracket that opens one.
    #[inline(always)]
    pub fn value(&mut self) -> Result<Value<'a>, FieldsError> {
        self.space();
        let value = match self.peek() {
            Some(b'"') => Value::Text(self.string()?),
            Some(b'{') => {
                self.at += 1;
                Value::Object
            }
            Some(b'[') => {
                self.at += 1;
                Value::Array
            }
            Some(b't') => {
                self.word("true")?;
                Value::Bool(true)
            }
            Some(b'f') => {
                self.word("false")?;
                Value::Bool(false)
            }
            Some(b'n') => {
                self.word("null")?;
                Value::Null
            }
            Some(b'-' | b'0'..=b'9') => self.number()?,
            _ => return Err(self.expected("a value")),
        };
        Ok(value)
    }

    /// The next key of an object, its colon read; `None` behind the last. `first`: nothing of the
    /// object was read yet.
    #[inline(always)]
    pub fn key(&mut self, first: bool) -> Result<Option<Cow<'a, str>>, FieldsError> {
        self.space();
        match self.peek() {
            Some(b'}') => {
                self.at += 1;
                return Ok(None);
            }
            Some(b',') if !first => {
                self.at += 1;
                self.space();
            }
            _ if first => {}
            _ => return Err(self.expected("`,` or `}`")),
        }
        if self.peek() != Some(b'"') {
            return Err(self.expected("a key"));
        }
        let key = self.string()?;
        self.space();
        if self.peek() != Some(b':') {
            return Err(self.expected("`:`"));
        }
        self.at += 1;
        Ok(Some(key))
    }

    /// The next key of an object, its colon read, if it is a plain one: no escapes. Otherwise the
    /// position stays, and [`Self::key`] tells.
    #[inline(always)]
    pub fn plain_key(&mut self, first: bool) -> Option<&'a str> {
        let before = self.at;
        self.space();
        if !first && self.peek() == Some(b',') {
            self.at += 1;
            self.space();
        } else if !first {
            self.at = before;
            return None;
        }
        let key = self.plain_text();
        self.space();
        if key.is_none() || self.peek() != Some(b':') {
            self.at = before;
            return None;
        }
        self.at += 1;
        key
    }

    /// The text at the position, if there is one without escapes. Otherwise the position stays, and
    /// [`Self::value`] tells.
    #[inline(always)]
    pub fn plain_text(&mut self) -> Option<&'a str> {
        let before = self.at;
        self.space();
        let rest = self.text.as_bytes().get(self.at + 1..);
        if self.peek() == Some(b'"')
            && let Some(rest) = rest
            && let Some(length) = special(rest)
            && rest[length] == b'"'
        {
            let start = self.at + 1;
            self.at = start + length + 1;
            return Some(&self.text[start..start + length]);
        }
        self.at = before;
        None
    }

    /// Whether an array has another element, which then is at the position.
    #[inline(always)]
    pub fn element(&mut self, first: bool) -> Result<bool, FieldsError> {
        self.space();
        match self.peek() {
            Some(b']') => {
                self.at += 1;
                Ok(false)
            }
            Some(b',') if !first => {
                self.at += 1;
                self.space();
                Ok(true)
            }
            _ if first => Ok(true),
            _ => Err(self.expected("`,` or `]`")),
        }
    }

    /// The first key of the object that begins at the position, nothing read. Looks at the text
    /// only: an escape in the key stays one.
    #[inline(always)]
    pub fn first_key_ahead(&self) -> Option<&'a str> {
        let rest = self.text[self.at..].trim_ascii_start().strip_prefix('{')?.trim_ascii_start().strip_prefix('"')?;
        rest.split_once('"').map(|(key, _)| key)
    }

    /// Behind the bracket that opened an array or object: goes behind the one that closes it. Looks
    /// at brackets and strings only, and does not descend.
    pub fn skip_open(&mut self) -> Result<(), FieldsError> {
        let mut open = 1usize;
        while open > 0 {
            match self.peek() {
                Some(b'"') => {
                    self.string()?;
                    continue;
                }
                Some(b'{' | b'[') => open += 1,
                Some(b'}' | b']') => open -= 1,
                Some(_) => {}
                None => return Err(self.expected("a closing bracket")),
            }
            self.at += 1;
        }
        Ok(())
    }

    /// Nothing but space is left.
    pub fn end(&mut self) -> Result<(), FieldsError> {
        self.space();
        if self.at < self.text.len() { Err(self.expected("the end")) } else { Ok(()) }
    }

    fn number(&mut self) -> Result<Value<'a>, FieldsError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return Err(self.expected("a digit")),
        }
        if !matches!(self.peek(), Some(b'.' | b'e' | b'E')) {
            return Ok(Value::Integer(&self.text[start..self.at]));
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.some_digits()?;
        }
        Ok(Value::Number(&self.text[start..self.at]))
    }

    fn digits(&mut self) {
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
    }

    fn some_digits(&mut self) -> Result<(), FieldsError> {
        if !matches!(self.peek(), Some(b'0'..=b'9')) {
            return Err(self.expected("a digit"));
        }
        self.digits();
        Ok(())
    }

    /// The string that begins with the quote at the position.
    #[inline(always)]
    fn string(&mut self) -> Result<Cow<'a, str>, FieldsError> {
        self.at += 1;
        let start = self.at;
        self.plain()?;
        if self.peek() == Some(b'"') {
            let whole = &self.text[start..self.at];
            self.at += 1;
            return Ok(Cow::Borrowed(whole));
        }
        Ok(Cow::Owned(self.unescaped(start)?))
    }

    /// The string whose text began at `start`, from the backslash at the position on.
    fn unescaped(&mut self, start: usize) -> Result<String, FieldsError> {
        let mut out = String::with_capacity(2 * (self.at - start) + 64);
        // What was read and not yet copied begins here.
        let mut from = start;
        loop {
            out.push_str(&self.text[from..self.at]);
            self.at += 1;
            from = self.at;
            match self.peek() {
                // Stands for itself: it begins the next piece.
                Some(b'\\' | b'"' | b'/') => self.at += 1,
                _ => {
                    self.escape(&mut out)?;
                    from = self.at;
                }
            }
            self.plain()?;
            if self.peek() == Some(b'"') {
                out.push_str(&self.text[from..self.at]);
                self.at += 1;
                return Ok(out);
            }
        }
    }

    /// Goes to the next quote or backslash.
    #[inline(always)]
    fn plain(&mut self) -> Result<(), FieldsError> {
        let rest = &self.text.as_bytes()[self.at..];
        let Some(n) = special(rest) else {
            self.at = self.text.len();
            return Err(self.expected("the end of a string"));
        };
        self.at += n;
        if rest[n] < 0x20 { Err(self.expected("no control character in a string")) } else { Ok(()) }
    }

    /// Behind a backslash, at what does not stand for itself.
    fn escape(&mut self, out: &mut String) -> Result<(), FieldsError> {
        let plain = match self.peek() {
            Some(b'n') => '\n',
            Some(b't') => '\t',
            Some(b'r') => '\r',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'u') => {
                self.at += 1;
                let unit = self.hex4()?;
                out.push(self.unicode(unit));
                return Ok(());
            }
            _ => return Err(self.expected("an escape")),
        };
        out.push(plain);
        self.at += 1;
        Ok(())
    }

    fn unicode(&mut self, unit: u32) -> char {
        if let Some(whole) = char::from_u32(unit) {
            return whole;
        }
        if unit < 0xdc00 && self.text[self.at..].starts_with("\\u") {
            let before = self.at;
            self.at += 2;
            match self.hex4() {
                Ok(low) if (0xdc00..0xe000).contains(&low) => {
                    let code = 0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                    return char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
                }
                // Not the other half: read again as what it is.
                Ok(_) | Err(_) => self.at = before,
            }
        }
        char::REPLACEMENT_CHARACTER
    }

    fn hex4(&mut self) -> Result<u32, FieldsError> {
        let digits = self.text.get(self.at..self.at + 4).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let Some(unit) = digits.and_then(|d| u32::from_str_radix(d, 16).ok()) else {
            return Err(self.expected("four hexadecimal digits"));
        };
        self.at += 4;
        Ok(unit)
    }
}

/// Where the first quote, backslash or control character is.
#[inline(always)]
fn special(bytes: &[u8]) -> Option<usize> {
    // Keys and most values end in the first words; longer ones are passed in blocks.
    const FIRST: usize = 24;
    let mut at = 0;
    if let Some(first) = bytes.first_chunk::<FIRST>() {
        if let Some(found) = special_in_words(first) {
            return Some(found);
        }
        at = FIRST;
        while let Some(block) = bytes[at..].first_chunk()
            && is_plain(block)
        {
            at += block.len();
        }
    }
    let rest = &bytes[at..];
    let whole = rest.len() - rest.len() % 8;
    special_in_words(&rest[..whole])
        .or_else(|| rest[whole..].iter().position(|b| matches!(b, b'"' | b'\\' | 0..0x20)).map(|tail| whole + tail))
        .map(|found| at + found)
}

/// The same in words of eight bytes; what is left over is not looked at.
#[inline(always)]
fn special_in_words(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    for (i, word) in bytes.as_chunks::<8>().0.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // Each difference sets the high bit of the bytes that are looked for, and above one of those
        // perhaps of others, so the lowest is right; bytes outside ASCII are none of them.
        let quote = (word ^ (ONES * u64::from(b'"'))).wrapping_sub(ONES);
        let backslash = (word ^ (ONES * u64::from(b'\\'))).wrapping_sub(ONES);
        let found = (word.wrapping_sub(ONES * 0x20) | quote | backslash) & !word & HIGH;
        if found != 0 {
            return Some(i * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    None
}

/// Whether none of them is in the block; the compiler does it with vectors.
#[inline]
fn is_plain(block: &[u8; 32]) -> bool {
    block.iter().fold(0, |found, b| found | u8::from(*b == b'"') | u8::from(*b == b'\\') | u8::from(*b < 0x20)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(always)]
    fn string(literal: &str) -> Result<Cow<'_, str>, FieldsError> {
        match Reader::new(literal).value()? {
            Value::Text(text) => Ok(text),
            _ => Err(FieldsError::NotAnObject),
        }
    }

    #[test]
    fn strings_are_borrowed_unless_an_escape_is_in_them() {
        assert!(matches!(string(r#""plain é""#), Ok(Cow::Borrowed("plain é"))));
        for (literal, expected) in [
            (r#""a\n\t\"\\\/b""#, "a\n\t\"\\/b"),
            (r#""\u00e9\ud83d\ude00""#, "é😀"),
            (r#""x\ud83d""#, "x\u{fffd}"),
            (r#""\ud83d\u0041""#, "\u{fffd}A"),
            (r#""\ude00\ud83d\ude00""#, "\u{fffd}😀"),
            (r#""\ud83d\n""#, "\u{fffd}\n"),
            (r#""C:\\Windows\\x.exe""#, r"C:\Windows\x.exe"),
        ] {
            assert_eq!(string(literal).unwrap(), expected, "{literal}");
        }
    }

    #[test]
    fn what_ends_a_run_is_found_at_every_place() {
        for length in (0..40).chain([63, 64, 95, 100]) {
            for at in 0..length {
                for byte in [b'"', b'\\', 0, 0x1f, b'\n'] {
                    for filler in [b' ', b'!', b'#', b'[', b']', 0x7f, 0x80, 0xa2, 0xdc, 0xff] {
                        let mut bytes = vec![filler; length];
                        assert_eq!(special(&bytes), None);
                        bytes[at] = byte;
                        assert_eq!(special(&bytes), Some(at), "{bytes:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_no_string_is_refused_with_its_place() {
        for (literal, at) in [("\"a", 2), ("\"a\nb\"", 2), (r#""\x""#, 2), (r#""\u12""#, 3), (r#""\u12é""#, 3)] {
            match string(literal) {
                Err(FieldsError::Syntax { at: found, .. }) => assert_eq!(found, at, "{literal}"),
                other => panic!("{literal}: {other:?}"),
            }
        }
    }
}
