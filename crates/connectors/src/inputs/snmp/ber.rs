//! BER as far as SNMP uses it (RFC 3417 §8): definite lengths, tags of one octet.
//!
//! Always true here: a [`Reader`] never leaves the element it was made for, every element costs a
//! caller's step (there is no recursion), and no bytes make it panic. Lengths and integers need not
//! be in their shortest form, because devices do not write them so.

use std::fmt;

pub(super) const INTEGER: u8 = 0x02;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const NULL: u8 = 0x05;
pub(super) const OID: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;
/// RFC 2578 §2: the application types.
pub(super) const IP_ADDRESS: u8 = 0x40;
pub(super) const COUNTER32: u8 = 0x41;
pub(super) const GAUGE32: u8 = 0x42;
pub(super) const TIME_TICKS: u8 = 0x43;
pub(super) const OPAQUE: u8 = 0x44;
pub(super) const COUNTER64: u8 = 0x46;
/// RFC 3416 §3: exceptions in place of values.
pub(super) const NO_SUCH_OBJECT: u8 = 0x80;
pub(super) const NO_SUCH_INSTANCE: u8 = 0x81;
pub(super) const END_OF_MIB_VIEW: u8 = 0x82;

/// Sub-identifiers of an object identifier, at most (RFC 2578 §3.5).
pub(super) const ARCS_MAX: usize = 128;

/// Bytes that are no SNMP; the text says what is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

type Read<T> = Result<T, Malformed>;

/// Reads one element after the other out of a part of a message.
#[derive(Debug, Clone)]
pub(super) struct Reader<'a> {
    message: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self { message, at: 0, end: message.len() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.at >= self.end
    }

    /// Where in the message the next element starts.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Where in the message this part ends.
    pub(super) fn end(&self) -> usize {
        self.end
    }

    /// The next element: its tag and a reader of its content.
    pub(super) fn element(&mut self) -> Read<(u8, Reader<'a>)> {
        let tag = self.octet()?;
        if tag & 0x1f == 0x1f {
            return Err(Malformed("a tag of more than one octet"));
        }
        let first = self.octet()?;
        let length = match first {
            0..0x80 => usize::from(first),
            0x80 => return Err(Malformed("an element of indefinite length")),
            _ => {
                let octets = usize::from(first & 0x7f);
                let mut length = 0usize;
                for _ in 0..octets {
                    if length >> 24 != 0 {
                        return Err(Malformed("a length of more than 32 bits"));
                    }
                    length = length << 8 | usize::from(self.octet()?);
                }
                length
            }
        };
        if length > self.end - self.at {
            return Err(Malformed("an element is longer than what it is in"));
        }
        let content = Reader { message: self.message, at: self.at, end: self.at + length };
        self.at += length;
        Ok((tag, content))
    }

    /// The content of the next element, which must have this tag.
    pub(super) fn expect(&mut self, tag: u8, otherwise: &'static str) -> Read<Reader<'a>> {
        match self.element()? {
            (found, content) if found == tag => Ok(content),
            _ => Err(Malformed(otherwise)),
        }
    }

    /// An INTEGER of at most 32 bits.
    pub(super) fn integer(&mut self, otherwise: &'static str) -> Read<i64> {
        let value = self.expect(INTEGER, otherwise)?.signed()?;
        i32::try_from(value).map_err(|_| Malformed("an INTEGER of more than 32 bits"))?;
        Ok(value)
    }

    /// An INTEGER of 0 to 2³¹−1, as most numbers of SNMP's headers are.
    pub(super) fn natural(&mut self, otherwise: &'static str) -> Read<u32> {
        u32::try_from(self.integer(otherwise)?).map_err(|_| Malformed("a negative number where none can be"))
    }

    pub(super) fn octets(&mut self, otherwise: &'static str) -> Read<&'a [u8]> {
        Ok(self.expect(OCTET_STRING, otherwise)?.rest())
    }

    /// The content as it is.
    pub(super) fn rest(&self) -> &'a [u8] {
        &self.message[self.at..self.end]
    }

    /// The content as a signed number of at most 64 bits.
    pub(super) fn signed(&self) -> Read<i64> {
        let bytes = self.rest();
        let Some(first) = bytes.first() else { return Err(Malformed("a number without octets")) };
        let sign = if first & 0x80 == 0 { 0u8 } else { 0xff };
        let extra = bytes.len().saturating_sub(8);
        if bytes.iter().take(extra).any(|b| *b != sign) || (extra > 0 && (bytes[extra] ^ sign) & 0x80 != 0) {
            return Err(Malformed("a number of more than 64 bits"));
        }
        let start = if sign == 0 { 0i64 } else { -1 };
        Ok(bytes[extra..].iter().fold(start, |value, b| value << 8 | i64::from(*b)))
    }

    /// The content as an unsigned number below 2^`bits`. Some agents write Counter32 without the
    /// leading zero, so a first bit that is set is no sign.
    pub(super) fn unsigned(&self, bits: u32) -> Read<u64> {
        let bytes = self.rest();
        let extra = bytes.len().saturating_sub(8);
        if bytes.is_empty() || bytes[..extra].iter().any(|b| *b != 0) {
            return Err(Malformed("an unsigned number of no or too many octets"));
        }
        let mut value = bytes[extra..].iter().fold(0u64, |value, b| value << 8 | u64::from(*b));
        // -1 and its like, sign extended to more octets than the type has.
        if bits == 32 && bytes.len() == 5 && bytes[0] == 0xff {
            value &= 0xffff_ffff;
        }
        if bits < 64 && value >> bits != 0 {
            return Err(Malformed("an unsigned number too large for its type"));
        }
        Ok(value)
    }

    /// The content as a dotted object identifier without a leading dot.
    pub(super) fn oid(&self) -> Read<String> {
        let mut text = String::with_capacity(self.rest().len() * 3);
        let mut arcs = 0;
        let mut arc = 0u64;
        let mut inside = false;
        for byte in self.rest() {
            arc = arc << 7 | u64::from(byte & 0x7f);
            if arc > u64::from(u32::MAX) + 80 {
                return Err(Malformed("a sub-identifier of more than 32 bits"));
            }
            inside = byte & 0x80 != 0;
            if inside {
                continue;
            }
            if arcs == 0 {
                let root = (arc / 40).min(2);
                push_arc(&mut text, root);
                arc -= root * 40;
                arcs = 1;
            }
            if arc > u64::from(u32::MAX) {
                return Err(Malformed("a sub-identifier of more than 32 bits"));
            }
            push_arc(&mut text, arc);
            arcs += 1;
            arc = 0;
            if arcs > ARCS_MAX {
                return Err(Malformed("an object identifier of more than 128 sub-identifiers"));
            }
        }
        if inside || arcs == 0 {
            return Err(Malformed("an object identifier that is empty or ends too soon"));
        }
        Ok(text)
    }

    fn octet(&mut self) -> Read<u8> {
        if self.is_empty() {
            return Err(Malformed("it ends too soon"));
        }
        let byte = self.message[self.at];
        self.at += 1;
        Ok(byte)
    }
}

fn push_arc(text: &mut String, arc: u64) {
    if !text.is_empty() {
        text.push('.');
    }
    text.push_str(&arc.to_string());
}

/// Appends an element whose content `write` appends.
pub(super) fn element(out: &mut Vec<u8>, tag: u8, write: impl FnOnce(&mut Vec<u8>)) {
    let mut content = Vec::new();
    write(&mut content);
    octets(out, tag, &content);
}

/// Appends an element with this content.
pub(super) fn octets(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    out.push(tag);
    match content.len() {
        short @ 0..0x80 => out.push(short as u8),
        long => {
            let bytes = long.to_be_bytes();
            let zeros = bytes.iter().take_while(|b| **b == 0).count();
            out.push(0x80 | (bytes.len() - zeros) as u8);
            out.extend_from_slice(&bytes[zeros..]);
        }
    }
    out.extend_from_slice(content);
}

/// Appends a number in its shortest form; Counter32 is written with the same rules.
pub(super) fn integer(out: &mut Vec<u8>, tag: u8, value: i64) {
    let bytes = value.to_be_bytes();
    let redundant = |i: &usize| {
        let (byte, next) = (bytes[*i], bytes[*i + 1]);
        (byte == 0 && next & 0x80 == 0) || (byte == 0xff && next & 0x80 != 0)
    };
    let skip = (0..bytes.len() - 1).take_while(redundant).count();
    octets(out, tag, &bytes[skip..]);
}

/// Appends an object identifier.
pub(super) fn oid(out: &mut Vec<u8>, arcs: &[u32]) {
    element(out, OID, |content| {
        let (first, rest) = match arcs {
            [a, b, rest @ ..] => (u64::from(*a) * 40 + u64::from(*b), rest),
            _ => (0, arcs),
        };
        for arc in std::iter::once(first).chain(rest.iter().map(|a| u64::from(*a))) {
            let groups = (64 - (arc | 1).leading_zeros()).div_ceil(7);
            for group in (0..groups).rev() {
                let more = if group > 0 { 0x80 } else { 0 };
                content.push((arc >> (7 * group)) as u8 & 0x7f | more);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(tag: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        octets(&mut out, tag, bytes);
        out
    }

    #[test]
    fn numbers_are_read_as_they_are_written() {
        for value in [0, 1, -1, 127, 128, -128, -129, 255, 256, 65_535, i64::from(i32::MAX), i64::from(i32::MIN)] {
            let mut out = Vec::new();
            integer(&mut out, INTEGER, value);
            assert_eq!(Reader::new(&out).integer("").unwrap(), value, "{value}: {out:02x?}");
        }
        let read = |bytes: &[u8]| Reader::new(&content(INTEGER, bytes)).integer("");
        assert_eq!(read(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]), Ok(7), "more octets than needed");
        assert!(read(&[1, 0, 0, 0, 0]).is_err() && read(&[]).is_err() && read(&[1, 0, 0, 0, 0, 0, 0, 0, 0]).is_err());
        assert!(read(&[0, 0x80, 0, 0, 0, 0, 0, 0, 0]).is_err());
    }

    #[test]
    fn unsigned_numbers_bear_what_agents_write() {
        let read = |bytes: &[u8], bits| Reader::new(bytes).unsigned(bits);
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff], 32), Ok(0xffff_ffff), "without the leading zero");
        assert_eq!(read(&[0, 0xff, 0xff, 0xff, 0xff], 32), Ok(0xffff_ffff));
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0xff], 32), Ok(0xffff_ffff), "sign extended");
        assert_eq!(read(&[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], 64), Ok(u64::MAX));
        assert!(read(&[1, 0, 0, 0, 0], 32).is_err() && read(&[], 32).is_err());
        assert!(read(&[1, 0, 0, 0, 0, 0, 0, 0, 0], 64).is_err());
    }

    #[test]
    fn object_identifiers_are_read_as_they_are_written() {
        for arcs in
            [&[1, 3, 6, 1, 4, 1, 9][..], &[2, 999, 3], &[0, 0], &[1, 3, u32::MAX], &[2, u32::MAX], &[1, 39, 128]]
        {
            let mut out = Vec::new();
            oid(&mut out, arcs);
            let text = Reader::new(&out).expect(OID, "").unwrap().oid().unwrap();
            let expected: Vec<String> = arcs.iter().map(u32::to_string).collect();
            assert_eq!(text, expected.join("."));
        }
        for (bad, why) in [
            (&[][..], "empty"),
            (&[0x2b, 0x86], "ends inside a sub-identifier"),
            (&[0x2b, 0x90, 0x80, 0x80, 0x80, 0x00], "33 bits"),
            (&[0x2b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], "70 bits"),
        ] {
            assert!(Reader::new(bad).oid().is_err(), "{why}");
        }
        assert!(Reader::new(&[1; 127]).oid().is_ok() && Reader::new(&[1; 128]).oid().is_err());
    }

    #[test]
    fn no_element_leaves_what_it_is_in() {
        for bad in [
            &[0x30][..],
            &[0x30, 0x80, 0, 0],
            &[0x30, 0x05, 1],
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
            &[0x30, 0x89, 1, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0x1f, 0x81, 0x01],
            &[],
        ] {
            assert!(Reader::new(bad).element().is_err(), "{bad:02x?}");
        }
        let inner = content(SEQUENCE, &[0x04, 0x03, b'a']);
        let outer = [content(SEQUENCE, &inner), b"bc".to_vec()].concat();
        let mut reader = Reader::new(&outer);
        let mut sequence = reader.expect(SEQUENCE, "").unwrap();
        let mut string = sequence.expect(SEQUENCE, "").unwrap();
        assert!(string.octets("").is_err(), "the bytes behind the sequence are not its own");
        let long = content(OCTET_STRING, &[7; 300]);
        assert_eq!(Reader::new(&long).octets("").unwrap(), [7; 300]);
        assert_eq!(
            Reader::new(&[0x04, 0x85, 0, 0, 0, 0, 1, 9]).octets("").unwrap(),
            [9],
            "a long form of a short length"
        );
    }
}
