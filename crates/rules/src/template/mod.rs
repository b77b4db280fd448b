//! What stays of a message when what varies is taken out, at two grains.
//!
//! [`template`] keeps the words: messages of one shape count as one kind (contract mutt §3.7 counts
//! exact texts, so one varying number defeats it, §12.11). [`fault_key`] also keeps what names the
//! object, so that repeats of one fault are one and faults of two interfaces are two (§12.16).
//!
//! | placeholder | stands for | in a fault key |
//! |---|---|---|
//! | `<ts>` | date, time, uptime `H:MM:SS` | masked |
//! | `<dur>` | `35ms`, `1d02h` | masked |
//! | `<uuid>` `<hex>` `<id>` | UUID, hexadecimal id, long random token | masked (`<id>` from 24 characters) |
//! | `<ip>` `<mac>` | addresses (a PCI address is `<hex>`) | kept |
//! | `<n>` | any other number, also inside a name (`eth<n>`) | kept inside names, in `1/0/24`, dotted numbers, after identity nouns, and as port below 1024 |
//! | `.<oid>` | an OID behind its enterprise number | kept |
//!
//! One pass, no regular expressions, linear in the message and bounded in the result: the text is
//! an attacker's. Whitespace and control characters become single spaces, so a result is one line.

mod nouns;
mod recognise;

use nouns::Context;
use recognise::{Unit, is_word};
use sha2::{Digest, Sha256};

/// Longest result, in bytes.
pub const TEMPLATE_BYTES_MAX: usize = 512;

/// The message's shape: words stay, whatever varies is masked.
pub fn template(message: &str) -> String {
    Scanner::new(message, Grain::Shape).run()
}

/// The message's shape with the object it is about.
pub fn fault_key(message: &str) -> String {
    Scanner::new(message, Grain::Fault).run()
}

/// A number for a text that is the same in every version and on every platform: the first eight
/// bytes, big endian, of its SHA-256. Cryptographic, because the text is an attacker's: nobody can
/// make a message that hides behind another one's fingerprint.
pub fn fingerprint(text: &str) -> u64 {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(8).fold(0, |hash, byte| (hash << 8) | u64::from(*byte))
}

/// The fingerprint as 16 lower-case hexadecimal digits.
pub fn fingerprint_hex(text: &str) -> String {
    format!("{:016x}", fingerprint(text))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Grain {
    Shape,
    Fault,
}

struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    /// From here to `at` is to be copied as it is.
    kept_from: usize,
    grain: Grain,
    /// What stands before the next number.
    before: Before<'a>,
    out: String,
    full: bool,
}

/// What the last tokens were, as far as they can say what a number behind them is. Looked at only
/// when there is a number.
#[derive(Clone, Copy, Default)]
struct Before<'a> {
    /// The last word, and the one before it.
    word: &'a [u8],
    earlier: &'a [u8],
    /// A colon and a space came behind the word.
    colon: bool,
    /// The last token was an address, and no space came behind it.
    address: bool,
}

impl Before<'_> {
    fn context(&self) -> Context {
        if self.address {
            return Context::Address;
        }
        match nouns::context(self.word).unwrap_or_else(|| nouns::context(self.earlier).unwrap_or_default()) {
            Context::Gauge if self.colon => Context::Plain,
            context => context,
        }
    }
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str, grain: Grain) -> Self {
        let out = String::with_capacity(text.len().min(TEMPLATE_BYTES_MAX) + 16);
        Self { text, bytes: text.as_bytes(), at: 0, kept_from: 0, grain, before: Before::default(), out, full: false }
    }

    fn run(mut self) -> String {
        while self.at < self.bytes.len() && !self.full {
            let b = self.bytes[self.at];
            if is_word(b) {
                self.token();
            } else if b == b' ' || b.is_ascii_control() {
                self.whitespace();
            } else {
                self.separator(b);
            }
            self.full |= self.out.len() + (self.at - self.kept_from) > TEMPLATE_BYTES_MAX;
        }
        self.flush();
        self.out.truncate(self.out.trim_end_matches(' ').len());
        self.out
    }

    fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// Leaves the next bytes as they are.
    fn keep(&mut self, length: usize) {
        self.at += length;
    }

    /// Copies what was kept, as far as there is room.
    fn flush(&mut self) {
        let room = TEMPLATE_BYTES_MAX - self.out.len();
        let mut end = self.at;
        if end - self.kept_from > room {
            self.full = true;
            end = self.kept_from + room;
            while !self.text.is_char_boundary(end) {
                end -= 1;
            }
        }
        self.out.push_str(&self.text[self.kept_from..end]);
        self.kept_from = self.at;
    }

    /// Writes a placeholder, whole or not at all, for the next bytes.
    fn mask(&mut self, placeholder: &str, length: usize) {
        self.flush();
        if self.full || self.out.len() + placeholder.len() > TEMPLATE_BYTES_MAX {
            self.full = true;
        } else {
            self.out.push_str(placeholder);
        }
        self.at += length;
        self.kept_from = self.at;
    }

    /// Makes one space of any run of whitespace and control characters, none at the start.
    fn whitespace(&mut self) {
        self.before.address = false;
        let run = self.rest().iter().take_while(|b| **b == b' ' || b.is_ascii_control()).count();
        if run == 1 && self.bytes[self.at] == b' ' && self.at > 0 {
            return self.keep(1);
        }
        let started = !self.out.is_empty() || self.at > self.kept_from;
        self.mask(if started { " " } else { "" }, run);
    }

    fn separator(&mut self, b: u8) {
        match b {
            b'%' => {
                if let Some(length) = recognise::mnemonic(self.rest()) {
                    self.before = Before::default();
                    return self.keep(length);
                }
            }
            // Cisco marks a clock that is not set with `*` or `.`.
            b'*' | b'.' if self.at == 0 || matches!(self.bytes[self.at - 1], b':' | b' ') => {
                if let Some(length) = recognise::timestamp(&self.rest()[1..]) {
                    self.before = Before::default();
                    return self.mask("<ts>", length + 1);
                }
            }
            b':' if self.bytes.get(self.at + 1) == Some(&b':') => {
                if let Some(length) = recognise::ipv6(self.rest()) {
                    return self.address("<ip>", length);
                }
            }
            b',' | b';' | b'|' | b'!' | b'?' => self.before = Before::default(),
            _ => {}
        }
        self.before.colon |= b == b':' && self.bytes.get(self.at + 1) == Some(&b' ');
        self.keep(1);
    }

    fn address(&mut self, placeholder: &str, length: usize) {
        match self.grain {
            Grain::Shape => self.mask(placeholder, length),
            Grain::Fault => self.keep(length),
        }
        self.before = Before { address: true, ..Before::default() };
    }

    fn token(&mut self) {
        let rest = self.rest();
        let first = rest[0];
        if !first.is_ascii_digit() {
            let letters = recognise::letters(rest);
            let next = rest.get(letters).copied().unwrap_or(b' ');
            if letters == 3
                && matches!(next, b' ' | b',')
                && let Some(length) = recognise::timestamp(rest)
            {
                self.before = Before::default();
                return self.mask("<ts>", length);
            }
            if !is_word(next) && !matches!(next, b'.' | b'/' | b'-' | b':') {
                return self.word(&rest[..letters]);
            }
        } else if let Some(length) = recognise::timestamp(rest) {
            self.before = Before::default();
            return self.mask("<ts>", length);
        }
        if first.is_ascii_hexdigit() && self.hexadecimal(rest) {
            return;
        }
        let token = Token::read(rest);
        if first.is_ascii_digit() {
            self.number(rest, token);
        } else if token.has_digit {
            self.mixed(token.length);
        } else {
            self.word(&rest[..token.length]);
        }
    }

    fn word(&mut self, word: &'a [u8]) {
        self.before = Before { word, earlier: self.before.word, ..Before::default() };
        self.keep(word.len());
    }

    /// Addresses and ids that start with a hexadecimal digit.
    fn hexadecimal(&mut self, rest: &[u8]) -> bool {
        let window = &rest[..rest.len().min(40)];
        let run = window.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        match (window.get(run), run) {
            (Some(b'-'), 8) => {
                if let Some(length) = recognise::uuid(rest) {
                    self.before = Before::default();
                    self.mask("<uuid>", length);
                    return true;
                }
            }
            (Some(b':' | b'-' | b'.'), 1..=4) => {
                if let Some(length) = recognise::pci(rest) {
                    self.before = Before::default();
                    match self.grain {
                        Grain::Shape => self.mask("<hex>", length),
                        Grain::Fault => self.keep(length),
                    }
                    return true;
                }
                if let Some(length) = recognise::mac(rest) {
                    self.address("<mac>", length);
                    return true;
                }
                let ip = if window[run] == b'.' { recognise::ipv4(rest) } else { recognise::ipv6(rest) };
                if let Some(length) = ip {
                    self.address("<ip>", length);
                    return true;
                }
            }
            (Some(b'x' | b'X'), 1) if rest[0] == b'0' => {
                let digits = rest[2..].iter().take_while(|b| b.is_ascii_hexdigit()).count();
                if digits > 0 && rest.get(2 + digits).is_none_or(|b| !is_word(*b)) {
                    let named = self.grain == Grain::Fault && self.before.context() == Context::Identity;
                    self.before = Before::default();
                    if named {
                        self.keep(2 + digits)
                    } else {
                        self.mask("<hex>", 2 + digits)
                    }
                    return true;
                }
            }
            _ => {}
        }
        false
    }

    /// A token that starts with a digit and is no date and no address.
    fn number(&mut self, rest: &[u8], token: Token) {
        let before = std::mem::take(&mut self.before);
        let context = if self.grain == Grain::Fault { before.context() } else { Context::Plain };
        let named = matches!(context, Context::Identity | Context::Gauge);
        if let Some((unit, end, kind)) = recognise::quantity(rest)
            && !(named && end - unit == 1)
        {
            match kind {
                Unit::Time => self.mask("<dur>", end),
                Unit::Other => {
                    self.mask("<n>", unit);
                    self.keep(end - unit);
                }
            }
            return;
        }
        if token.has_letter {
            return self.mixed(token.length);
        }
        let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        if digits == token.length {
            if let Some(length) = days_and_time(rest, digits) {
                return self.mask("<ts>", length);
            }
            let value = rest[..digits].iter().take(6).fold(0u32, |n, b| n * 10 + u32::from(b - b'0'));
            let kept = match context {
                Context::Identity | Context::Gauge => digits <= 10 && rest.get(digits) != Some(&b'%'),
                Context::Port | Context::Address => value < 1024,
                Context::Plain | Context::Fleeting => false,
            };
            // Juniper's names of what sits in a slot: `MPC @ 1/*/*`.
            let kept = kept || rest[digits..].starts_with(b"/*");
            return if kept && self.grain == Grain::Fault { self.keep(digits) } else { self.mask("<n>", digits) };
        }
        let joiner = |b: u8| rest[..token.length].contains(&b);
        if joiner(b',') {
            self.mask("<n>", token.length);
        } else if joiner(b'/') {
            let path = self.grain == Grain::Fault && context != Context::Fleeting && token.longest_run <= 5;
            if path { self.path(token.length) } else { self.digits_masked(token.length) }
        } else if joiner(b'-') {
            self.digits_masked(token.length);
        } else if token.joiners == 1 {
            self.mask("<n>", token.length);
        } else if self.grain == Grain::Fault {
            self.keep(token.length);
        } else {
            self.oid(rest, token.length);
        }
    }

    /// Keeps `1/0/24`, and the channel behind it in `1/0/24:2`.
    fn path(&mut self, length: usize) {
        self.keep(length);
        let rest = self.rest();
        let channel = rest.iter().skip(1).take(3).take_while(|b| b.is_ascii_digit()).count();
        let ends = rest.get(1 + channel).is_none_or(|b| !is_word(*b) && !matches!(b, b':' | b'.'));
        if rest.first() == Some(&b':') && (1..=2).contains(&channel) && ends {
            self.keep(1 + channel);
        }
    }

    /// A name with digits in it: an interface, a host, a serial number, a file.
    fn mixed(&mut self, length: usize) {
        let end = self.at + length;
        self.before = Before::default();
        let mut has_slash = false;
        let mut before = Context::Plain;
        while self.at < end && !self.full {
            let rest = &self.bytes[self.at..end];
            let run = rest.iter().take_while(|b| is_word(**b)).count();
            if run == 0 {
                has_slash |= rest[0] == b'/';
                self.keep(1);
                continue;
            }
            let word = &rest[..run];
            let random_from = if self.grain == Grain::Shape { 16 } else { 24 };
            if recognise::is_hex_id(word) {
                self.mask("<hex>", run);
            } else if recognise::is_random(word, random_from) {
                self.mask("<id>", run);
            } else if self.grain == Grain::Shape || (before == Context::Fleeting && word.iter().all(u8::is_ascii_digit))
            {
                self.digits_masked(run);
            } else {
                self.keep(run);
            }
            if self.grain == Grain::Fault {
                before = nouns::context(word).unwrap_or_default();
            }
        }
        if has_slash && self.grain == Grain::Fault && !self.full {
            self.path(0);
        }
    }

    /// Keeps everything but the digits of the next `length` bytes.
    fn digits_masked(&mut self, length: usize) {
        let end = self.at + length;
        while self.at < end && !self.full {
            let rest = &self.bytes[self.at..end];
            let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
            if digits > 0 {
                self.mask("<n>", digits);
            } else {
                self.keep(rest.iter().take_while(|b| !b.is_ascii_digit()).count());
            }
        }
    }

    /// Dotted numbers: an OID keeps its part up to the enterprise number, which says whose it is.
    fn oid(&mut self, rest: &[u8], length: usize) {
        const ENTERPRISE: usize = 7;
        if !rest.starts_with(b"1.3.6.1.") {
            return self.mask("<n>", length);
        }
        match rest[..length].iter().enumerate().filter(|(_, b)| **b == b'.').nth(ENTERPRISE - 1) {
            None => self.keep(length),
            Some((dot, _)) => {
                self.keep(dot);
                self.mask(".<oid>", length - dot);
            }
        }
    }
}

/// `3 days, 4:05:06.78`: an uptime in two parts.
fn days_and_time(rest: &[u8], digits: usize) -> Option<usize> {
    let day = rest[digits..].strip_prefix(b" day")?;
    let day = day.strip_prefix(b"s").unwrap_or(day);
    let day = day.strip_prefix(b", ").or_else(|| day.strip_prefix(b" "))?;
    let length = day.first().filter(|b| b.is_ascii_digit()).and_then(|_| recognise::timestamp(day))?;
    Some(rest.len() - day.len() + length)
}

/// The extent of a token: word characters, and `.`, `/`, `-` between them (`,` in `12,345`).
struct Token {
    length: usize,
    has_digit: bool,
    has_letter: bool,
    joiners: usize,
    longest_run: usize,
}

impl Token {
    fn read(rest: &[u8]) -> Self {
        let mut token = Self { length: 0, has_digit: false, has_letter: false, joiners: 0, longest_run: 0 };
        let mut run = 0;
        while let Some(&b) = rest.get(token.length) {
            let next_is_word = || rest.get(token.length + 1).is_some_and(|b| is_word(*b));
            if is_word(b) {
                if b.is_ascii_digit() {
                    token.has_digit = true;
                } else {
                    token.has_letter = true;
                }
                run += 1;
                token.longest_run = token.longest_run.max(run);
            } else if (matches!(b, b'.' | b'/' | b'-') && next_is_word())
                || (b == b',' && !token.has_letter && is_thousands(&rest[token.length + 1..]))
            {
                token.joiners += 1;
                run = 0;
            } else {
                break;
            }
            token.length += 1;
        }
        token
    }
}

fn is_thousands(b: &[u8]) -> bool {
    b.iter().take(4).take_while(|b| b.is_ascii_digit()).count() == 3 && b.get(3).is_none_or(|b| !is_word(*b))
}
