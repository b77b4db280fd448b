//! RFC 6587: where one message ends and the next begins on a TCP stream. Pure and bounded.
//!
//! Decided anew for each message: digits, a space and then `<` is octet counting (§3.4.1, RFC 5425
//! §4.3), anything else runs to the next LF or NUL (§3.4.2). Trailers between messages (CR, LF,
//! NUL) are skipped. However the stream is cut into chunks, the frames are the same.
//!
//! * Longer than the bound: the beginning is a message marked [`Cut::TooLarge`], the rest is
//!   skipped up to where the message says it ends.
//! * A count that no message can have is [`Frame::BadCount`]; its line is skipped.
//! * Memory: at most the bound, plus a few bytes of a count.

/// A counted message above this is not a message but a broken count.
pub const MAX_COUNT: usize = 16 << 20;
/// A space this far behind a digit ends no count: it is a line that begins with a number.
const MAX_COUNT_DIGITS: usize = 20;
/// What is kept allocated between messages.
const KEPT: usize = 8 << 10;

/// What the stream held.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Never empty. Of a line the trailing CR is gone.
    Message { bytes: &'a [u8], cut: Option<Cut> },
    /// The count, as sent, with its space.
    BadCount { sample: &'a [u8] },
}

/// Why a message is not whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Longer than the bound.
    TooLarge,
    /// The stream ended inside a counted message.
    Closed,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Between messages; the carry holds the beginning of what may be a count.
    Start,
    /// Inside a line; the carry holds its beginning.
    Line,
    /// Inside a counted message: `keep` bytes to come of what is kept, then `skip` to throw away.
    Counted {
        keep: usize,
        skip: usize,
    },
    /// Up to the end of a line that is not kept.
    SkipLine,
    SkipBytes(usize),
}

/// The state of one stream.
#[derive(Debug)]
pub struct Framer {
    max: usize,
    state: State,
    carry: Vec<u8>,
}

enum Kind {
    NeedMore,
    Line,
    /// Bytes of the count and its space; the length it announces.
    Counted(usize, usize),
    Bad(usize),
}

impl Framer {
    /// Messages up to `max` bytes are kept whole.
    pub fn new(max: usize) -> Self {
        Self { max: max.max(1), state: State::Start, carry: Vec::new() }
    }

    /// Takes the next bytes of the stream and hands over every frame that ends in them.
    pub fn push(&mut self, mut chunk: &[u8], mut emit: impl FnMut(Frame<'_>)) {
        while !chunk.is_empty() {
            chunk = match self.state {
                State::Start => self.start(chunk, &mut emit),
                State::Line => self.line(chunk, &mut emit),
                State::Counted { keep, skip } => self.counted(chunk, keep, skip, &mut emit),
                State::SkipLine => match delimiter(chunk) {
                    Some(n) => {
                        self.state = State::Start;
                        &chunk[n + 1..]
                    }
                    None => &[],
                },
                State::SkipBytes(left) => {
                    let n = left.min(chunk.len());
                    self.state = if n == left { State::Start } else { State::SkipBytes(left - n) };
                    &chunk[n..]
                }
            };
        }
    }

    /// The stream is over: what was begun is a message too (a last line without its LF).
    pub fn finish(&mut self, mut emit: impl FnMut(Frame<'_>)) {
        let cut = match self.state {
            State::Start | State::Line => None,
            State::Counted { .. } => Some(Cut::Closed),
            State::SkipLine | State::SkipBytes(_) => None,
        };
        let bytes = without_cr(&self.carry);
        if !bytes.is_empty() {
            emit(Frame::Message { bytes, cut });
        }
        self.reset(State::Start);
    }

    fn start<'c>(&mut self, mut chunk: &'c [u8], emit: &mut impl FnMut(Frame<'_>)) -> &'c [u8] {
        if self.carry.is_empty() {
            while let [b'\n' | b'\r' | 0, rest @ ..] = chunk {
                chunk = rest;
            }
        }
        match kind(&self.carry, chunk) {
            Kind::NeedMore => {
                self.carry.extend_from_slice(chunk);
                &[]
            }
            Kind::Line => {
                self.state = State::Line;
                chunk
            }
            Kind::Counted(header, len) => {
                let chunk = &chunk[header - self.carry.len()..];
                self.carry.clear();
                let keep = len.min(self.max);
                self.state = State::Counted { keep, skip: len - keep };
                chunk
            }
            Kind::Bad(header) => {
                let n = header - self.carry.len();
                self.carry.extend_from_slice(&chunk[..n]);
                emit(Frame::BadCount { sample: &self.carry });
                self.reset(State::SkipLine);
                &chunk[n..]
            }
        }
    }

    fn line<'c>(&mut self, chunk: &'c [u8], emit: &mut impl FnMut(Frame<'_>)) -> &'c [u8] {
        let end = delimiter(chunk);
        let part = &chunk[..end.unwrap_or(chunk.len())];
        let room = self.max.saturating_sub(self.carry.len());
        let too_large = self.carry.len() + part.len() > self.max;
        if end.is_none() && !too_large {
            self.carry.extend_from_slice(part);
            return &[];
        }
        let part = &part[..part.len().min(room)];
        let whole = if self.carry.is_empty() {
            part
        } else {
            self.carry.extend_from_slice(part);
            &self.carry
        };
        let whole = &whole[..whole.len().min(self.max)];
        let cut = too_large.then_some(Cut::TooLarge);
        emit(Frame::Message { bytes: without_cr(whole), cut });
        self.reset(if end.is_some() { State::Start } else { State::SkipLine });
        end.map_or(&[], |n| &chunk[n + 1..])
    }

    fn counted<'c>(&mut self, chunk: &'c [u8], keep: usize, skip: usize, emit: &mut impl FnMut(Frame<'_>)) -> &'c [u8] {
        if chunk.len() < keep {
            self.carry.extend_from_slice(chunk);
            self.state = State::Counted { keep: keep - chunk.len(), skip };
            return &[];
        }
        let (part, rest) = chunk.split_at(keep);
        let bytes = if self.carry.is_empty() {
            part
        } else {
            self.carry.extend_from_slice(part);
            &self.carry
        };
        emit(Frame::Message { bytes, cut: (skip > 0).then_some(Cut::TooLarge) });
        self.reset(if skip > 0 { State::SkipBytes(skip) } else { State::Start });
        rest
    }

    fn reset(&mut self, state: State) {
        self.state = state;
        if self.carry.capacity() > KEPT {
            self.carry = Vec::new();
        }
        self.carry.clear();
    }
}

/// What begins in `carry` and goes on in `chunk`.
fn kind(carry: &[u8], chunk: &[u8]) -> Kind {
    let mut value = 0usize;
    let mut digits = 0;
    let mut bytes = carry.iter().chain(chunk).copied();
    loop {
        match bytes.next() {
            None => return Kind::NeedMore,
            Some(b'0') if digits == 0 => return Kind::Line,
            Some(b @ b'0'..=b'9') if digits < MAX_COUNT_DIGITS => {
                value = value.saturating_mul(10).saturating_add(usize::from(b - b'0'));
                digits += 1;
            }
            Some(b' ') if digits > 0 => {
                return match bytes.next() {
                    None => Kind::NeedMore,
                    Some(b'<') if value <= MAX_COUNT => Kind::Counted(digits + 1, value),
                    Some(b'<') => Kind::Bad(digits + 1),
                    Some(_) => Kind::Line,
                };
            }
            Some(_) => return Kind::Line,
        }
    }
}

fn without_cr(mut bytes: &[u8]) -> &[u8] {
    while let [rest @ .., b'\r'] = bytes {
        bytes = rest;
    }
    bytes
}

/// The first LF or NUL.
fn delimiter(bytes: &[u8]) -> Option<usize> {
    // The fold over a whole chunk has no early exit, so it compiles to a few vector compares.
    const CHUNK: usize = 32;
    let ends = |b: &u8| (*b == b'\n') | (*b == 0);
    let (chunks, tail) = bytes.as_chunks::<CHUNK>();
    for (i, chunk) in chunks.iter().enumerate() {
        if chunk.iter().fold(false, |any, b| any | ends(b)) {
            return chunk.iter().position(ends).map(|n| i * CHUNK + n);
        }
    }
    tail.iter().position(ends).map(|n| bytes.len() - tail.len() + n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Frames in words: the text, `!` behind what was too large, `~` behind what was closed,
    /// `?` before a bad count.
    fn frames(max: usize, chunks: &[&[u8]]) -> Vec<String> {
        let mut framer = Framer::new(max);
        let mut found = Vec::new();
        let mut emit = |frame: Frame<'_>| {
            found.push(match frame {
                Frame::Message { bytes, cut } => {
                    assert!(!bytes.is_empty() && bytes.len() <= max.max(22), "{bytes:?}");
                    let mark = match cut {
                        None => "",
                        Some(Cut::TooLarge) => "!",
                        Some(Cut::Closed) => "~",
                    };
                    format!("{}{mark}", String::from_utf8_lossy(bytes))
                }
                Frame::BadCount { sample } => format!("?{}", String::from_utf8_lossy(sample)),
            });
        };
        for chunk in chunks {
            framer.push(chunk, &mut emit);
            assert!(framer.carry.len() <= max.max(22) && framer.carry.capacity() <= 2 * max.max(KEPT), "bounded");
        }
        framer.finish(&mut emit);
        found
    }

    fn check(stream: &str, expected: &[&str]) {
        assert_eq!(frames(16, &[stream.as_bytes()]), expected, "{stream:?}");
        let bytes: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
        assert_eq!(frames(16, &bytes), expected, "{stream:?}, a byte at a time");
    }

    #[test]
    fn both_framings_are_told_apart_message_by_message() {
        check("<1>a\n<2>b\r\n<3>c\0<4>d", &["<1>a", "<2>b", "<3>c", "<4>d"]);
        check("4 <1>a4 <2>b", &["<1>a", "<2>b"]);
        check("4 <1>a\n5 <2>\nb<3>c\n4 <4>d\r\n\0", &["<1>a", "<2>\nb", "<3>c", "<4>d"]);
        check("45 apples\n45\n45 \n0 <1>\n2026-11-22 x\n", &["45 apples", "45", "45 ", "0 <1>", "2026-11-22 x"]);
        check("", &[]);
        check("\n\r\n\0\0", &[]);
    }

    #[test]
    fn what_is_too_large_is_cut_and_the_next_message_is_whole() {
        check("<1>0123456789abcdefgh\n<2>b\n", &["<1>0123456789abc!", "<2>b"]);
        check("20 <1>0123456789abcdefg4 <2>b", &["<1>0123456789abc!", "<2>b"]);
        check("<1>0123456789abc\n", &["<1>0123456789abc"]);
        check("16 <1>0123456789abc", &["<1>0123456789abc"]);
    }

    #[test]
    fn a_broken_count_costs_its_line_only() {
        check("99999999999 <1>a\n<2>b\n", &["?99999999999 ", "<2>b"]);
        check("16777217 <1>a\n4 <2>b", &["?16777217 ", "<2>b"]);
        check("99999999999999999999 <1>a\n<2>b", &["?99999999999999999999 ", "<2>b"]);
        // Too small a count: the rest of the message is a line of its own.
        check("4 <1>abc\n<2>b\n", &["<1>a", "bc", "<2>b"]);
    }

    #[test]
    fn the_end_of_the_stream_ends_the_message() {
        check("<1>a\n<2>b", &["<1>a", "<2>b"]);
        check("9 <1>a", &["<1>a~"]);
        check("45", &["45"]);
        check("99 ", &["99 "]);
    }

    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(b"4 <1>a".to_vec()),
            Just(b"<34>line\n".to_vec()),
            Just(b"99999999999 <".to_vec()),
            Just(b"40 <1>".to_vec()),
            "[0-9]{1,22} ?<?".prop_map(String::into_bytes),
            "[\n\r\0]{1,3}".prop_map(String::into_bytes),
            proptest::collection::vec(any::<u8>(), 0..40),
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|p| p.concat())
    }

    proptest! {
        #[test]
        fn the_frames_do_not_depend_on_the_chunks(bytes in stream(), cuts in proptest::collection::vec(1usize..30, 1..40), max in 1usize..64) {
            let whole = frames(max, &[&bytes]);
            let mut rest = &bytes[..];
            let mut chunks = Vec::new();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (chunk, tail) = rest.split_at((*cut).min(rest.len()));
                chunks.push(chunk);
                rest = tail;
            }
            prop_assert_eq!(frames(max, &chunks), whole);
        }
    }
}
