//! From bytes to messages: lines, or several lines that belong together. Pure.

use crate::collectors::audit::record::serial;
use regex::Regex;

/// A line longer than this comes in pieces.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
/// A message of several lines is ended there.
const MESSAGE_LINES_MAX: usize = 500;

/// Which lines go on with the message before them.
#[derive(Debug, Clone)]
pub enum Multiline {
    /// None: each line is a message.
    Off,
    /// Those that begin with a blank.
    Indent,
    /// Those that this does not match.
    Start(Regex),
    /// Those with the same serial number of the audit system.
    Serial,
}

/// A message, and the offset in the file behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub text: String,
    pub end: u64,
    /// It was cut for its length: the rest follows as another.
    pub is_cut: bool,
}

/// Bytes in, messages out. Knows where in the file it is.
#[derive(Debug)]
pub struct Lines {
    multiline: Multiline,
    /// Where the bytes go on.
    offset: u64,
    /// Of a line that has no end yet.
    partial: Vec<u8>,
    /// Whole lines of a message that may go on; the offset behind them.
    open: Option<(String, usize, u64)>,
}

impl Lines {
    pub fn new(multiline: Multiline, offset: u64) -> Self {
        Self { multiline, offset, partial: Vec::new(), open: None }
    }

    /// Where the next bytes must come from.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Takes the next bytes of the file.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut Vec<Message>) {
        while !bytes.is_empty() {
            let room = LINE_BYTES_MAX - self.partial.len();
            let window = bytes.get(..room.min(bytes.len())).unwrap_or(bytes);
            match window.iter().position(|b| *b == b'\n') {
                Some(at) => {
                    self.partial.extend_from_slice(bytes.get(..at).unwrap_or_default());
                    bytes = bytes.get(at + 1..).unwrap_or_default();
                    self.offset += at as u64 + 1;
                    self.line(out);
                }
                None => {
                    self.partial.extend_from_slice(window);
                    self.offset += window.len() as u64;
                    bytes = bytes.get(window.len()..).unwrap_or_default();
                    if self.partial.len() >= LINE_BYTES_MAX {
                        self.end_message(out);
                        self.cut(out);
                    }
                }
            }
        }
    }

    /// Nothing came for a while: an open message is whole. A line without its end is not.
    pub fn idle(&mut self, out: &mut Vec<Message>) {
        self.end_message(out);
    }

    /// Nothing will come any more: what there is, is all.
    pub fn finish(&mut self, out: &mut Vec<Message>) {
        if !self.partial.is_empty() {
            self.line(out);
        }
        self.end_message(out);
    }

    fn line(&mut self, out: &mut Vec<Message>) {
        let bytes = std::mem::take(&mut self.partial);
        let text = String::from_utf8_lossy(bytes.strip_suffix(b"\r").unwrap_or(&bytes)).into_owned();
        self.partial = bytes;
        self.partial.clear();
        self.partial.shrink_to(4_096);
        let goes_on = match &self.multiline {
            Multiline::Off => false,
            Multiline::Indent => text.starts_with([' ', '\t']),
            Multiline::Start(start) => !start.is_match(&text),
            Multiline::Serial => {
                let before = self.open.as_ref().and_then(|(message, _, _)| serial(message));
                before.is_some() && before == serial(&text)
            }
        };
        match &mut self.open {
            Some((message, lines, end))
                if goes_on && *lines < MESSAGE_LINES_MAX && message.len() + text.len() < LINE_BYTES_MAX =>
            {
                message.push('\n');
                message.push_str(&text);
                *lines += 1;
                *end = self.offset;
            }
            _ => {
                self.end_message(out);
                self.open = Some((text, 1, self.offset));
                if matches!(self.multiline, Multiline::Off) {
                    self.end_message(out);
                }
            }
        }
    }

    fn cut(&mut self, out: &mut Vec<Message>) {
        // Not in the middle of a character.
        let tail = self.partial.iter().rev().take(3).position(|b| b & 0xc0 == 0xc0).map_or(0, |at| at + 1);
        let is_whole = std::str::from_utf8(&self.partial).is_ok();
        let keep = if is_whole { 0 } else { tail };
        let end = self.partial.len() - keep;
        let text = String::from_utf8_lossy(self.partial.get(..end).unwrap_or_default()).into_owned();
        self.partial.drain(..end);
        out.push(Message { text, end: self.offset - keep as u64, is_cut: true });
    }

    fn end_message(&mut self, out: &mut Vec<Message>) {
        if let Some((text, _, end)) = self.open.take() {
            // Blank lines say nothing; the next message takes its place in the file behind them.
            if !text.trim().is_empty() {
                out.push(Message { text, end, is_cut: false });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(multiline: &Multiline, text: &str, expected: &[(&str, u64)]) {
        // In one piece, and byte by byte.
        for size in [text.len().max(1), 1] {
            let mut lines = Lines::new(multiline.clone(), 100);
            let mut out = Vec::new();
            text.as_bytes().chunks(size).for_each(|chunk| lines.push(chunk, &mut out));
            lines.finish(&mut out);
            let got: Vec<_> = out.iter().map(|m| (m.text.as_str(), m.end - 100)).collect();
            assert_eq!(got, expected, "{text:?} by {size}");
        }
    }

    #[test]
    fn lines_become_messages_with_the_place_behind_them() {
        check(&Multiline::Off, "one\ntwo\r\n\n  three\nfour", &[("one", 4), ("two", 9), ("  three", 18), ("four", 22)]);
        let trace = "error\n  at a\n\tat b\nnext\n";
        check(&Multiline::Indent, trace, &[("error\n  at a\n\tat b", 19), ("next", 24)]);
        let start = Multiline::Start(Regex::new(r"^\d").unwrap());
        check(&start, "1 a\nb\n\nc\n2 d\n", &[("1 a\nb\n\nc", 9), ("2 d", 13)]);
        check(&start, "lost\n1 a\n", &[("lost", 5), ("1 a", 9)]);
    }

    #[test]
    fn a_line_without_its_end_waits_and_an_open_message_does_not_for_ever() {
        let mut lines = Lines::new(Multiline::Indent, 0);
        let mut out = Vec::new();
        lines.push(b"a\n b\nhal", &mut out);
        assert!(out.is_empty(), "both may go on");
        lines.push(b"f\n", &mut out);
        assert_eq!(out, [Message { text: "a\n b".into(), end: 5, is_cut: false }]);
        out.clear();
        lines.push(b"par", &mut out);
        lines.idle(&mut out);
        assert_eq!(out, [Message { text: "half".into(), end: 10, is_cut: false }]);
        assert_eq!(lines.offset(), 13);
    }

    #[test]
    fn endless_lines_and_messages_come_in_bounded_pieces() {
        let mut lines = Lines::new(Multiline::Indent, 0);
        let (mut out, mut total) = (Vec::new(), 0);
        lines.push("é".repeat(LINE_BYTES_MAX).as_bytes(), &mut out);
        lines.push(&b" x\n".repeat(5_000), &mut out);
        lines.finish(&mut out);
        for message in &out {
            assert!(message.text.len() <= LINE_BYTES_MAX && !message.text.contains('\u{fffd}'));
            total += message.text.len();
        }
        assert!(out[0].is_cut && total > 130_000);
        let mut lines = Lines::new(Multiline::Off, 0);
        out.clear();
        lines.push(&[0x80; 200_000], &mut out);
        assert_eq!(out.len(), 3, "not text at all");
        assert!(out.windows(2).all(|w| w[0].end < w[1].end));
    }
}
