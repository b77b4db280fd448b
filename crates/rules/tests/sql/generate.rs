//! Events and rules with everything in them that the engines are known to see differently.

use fastrand::Rng;
use model::{EventSource, Fields};
use rules::operators::{Operator, cidr, clock, compare, contains, oid_prefix, pattern, regex, severity, text};
use rules::{Field, Predicate, Relation};

/// Names of fields, some that break paths, quotes and parameters.
pub const NAMES: [&str; 24] = [
    "Image",
    "CommandLine",
    "user.name",
    "we\"ird",
    "back\\slash",
    "sp ace",
    "a'b",
    "%_",
    "[0]",
    "$",
    "ключ",
    "",
    "nul\0key",
    "line\nbreak",
    "#",
    "*",
    "?",
    "{x:String}",
    "-- a /* b",
    "message",
    "trap_oid",
    "syslog_severity",
    "severity",
    "A\\\"b",
];

/// Pieces of values and patterns.
const PIECES: [&str; 72] = [
    "cmd.exe",
    "CMD.EXE",
    "C:\\Windows\\",
    "\\",
    "\\\\",
    "*",
    "?",
    "%",
    "_",
    "a",
    "A",
    "b",
    "ab",
    "aB",
    "é",
    "É",
    "e\u{301}",
    "\u{212A}",
    "k",
    "K",
    "İ",
    "i",
    "I",
    "ı",
    "ß",
    "ẞ",
    "ss",
    "ſ",
    "s",
    "Σ",
    "σ",
    "ς",
    "ΑΣ",
    "Dž",
    "dž",
    "DŽ",
    "\u{2126}",
    "ω",
    "\0",
    "\n",
    "\r\n",
    "\t",
    "'",
    "\"",
    "--",
    "/*",
    "{a:String}",
    "🦀",
    "\u{10FFFF}",
    "\u{FFFD}",
    "%41",
    "[",
    "]",
    "^",
    "[!a]",
    "-",
    "10",
    "007",
    " ",
    "\u{a0}",
    "\u{b}",
    "Ⓐ",
    "ⓐ",
    "Ⴀ",
    "ⴀ",
    "Ꭰ",
    "ꭰ",
    "\u{85}",
    "\u{2028}",
    "Å",
    "å",
    "\u{1E9E}",
];

const NUMBERS: [&str; 44] = [
    "0",
    "-0",
    "-0.0",
    "0.0",
    "1",
    "-1",
    "1.0",
    "10",
    "10.0",
    "1e1",
    "1E+1",
    "1e-1",
    "0.1",
    "0.10000000000000001",
    "0.30000000000000004",
    "0.3",
    "9007199254740992",
    "9007199254740993",
    "9007199254740994",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "1.7976931348623157e308",
    "1.7976931348623159e308",
    "1e309",
    "1e999",
    "-1e999",
    "5e-324",
    "2e-324",
    "1e-400",
    "007",
    "0x10",
    " 1",
    "1 ",
    "1\n",
    "1,5",
    "1.",
    ".5",
    "+1",
    "1e",
    "inf",
    "NaN",
    "123456789012345678901234567890.123456789",
    "2.2250738585072011e-308",
];

const ADDRESSES: [&str; 44] = [
    "10.0.0.1",
    "10.255.255.255",
    "11.0.0.0",
    "9.255.255.255",
    "192.168.1.1",
    "192.168.001.1",
    "010.0.0.1",
    "10.0.0.1 ",
    " 10.0.0.1",
    "10.0.0.256",
    "10.0.0",
    "10.0.0.0.1",
    "0x0a000001",
    "167772161",
    "10.0.0.1/8",
    "0.0.0.0",
    "255.255.255.255",
    "::",
    "::1",
    "1::",
    "fe80::1",
    "FE80::1",
    "febf::1",
    "fec0::",
    "fe80::1%eth0",
    "::ffff:10.0.0.1",
    "::10.0.0.1",
    "::ffff:10.0.0.01",
    "1:2:3:4:5:6:7:8",
    "1:2:3:4:5:6:7::",
    "::2:3:4:5:6:7:8",
    "1:2:3:4:5:6:7:8:9",
    "1:2:3:4:5:6:1.2.3.4",
    "1:2:3:4:5:6:7:1.2.3.4",
    "1::2::3",
    "12345::",
    "2001:db8::",
    "2001:0db8:0000:0000:0000:0000:0000:0001",
    "2001:db8:::1",
    "[::1]",
    "1:2:3:4::5:6:7:8",
    "1:2:3::4:5:6:7",
    "64:ff9b::10.0.0.1",
    "10.0.0.1\0",
];

const TIMES: [&str; 30] = [
    "2026-11-26T03:04:05Z",
    "2026-11-26T03:04:05.123456789Z",
    "2024-12-30T23:59:59Z",
    "2021-01-03T00:00:00Z",
    "2024-02-29T01:00:00+02:00",
    "2026-11-22 10:00:00",
    "2026-11-22",
    "1767225600",
    "1767225600123",
    "-1.5",
    "2026-13-01T00:00:00Z",
    "2026-11-26t03:04:05z",
    "2026-11-26T03:04:05[Europe/Berlin]",
    "2026-W48-4",
    "soon",
    "1970-01-01T00:00:00+23:59",
    "1970-01-01T00:00:00.9999999Z",
    "2199-12-31 23:59:59-23:59",
    "2200-01-01",
    "1969-12-31",
    "2026-11-26T03:04:05-00:30",
    "2026-11-26T03:04:05.1+05:45",
    "2026-11-26T03:04:60Z",
    "2026-11-26T03:04:05.Z",
    "2026-11-26T24:00:00",
    "2100-02-29",
    "2000-02-29",
    "2026-04-31T00:00:00",
    "2026-11-26T03:04:05Z\n",
    "2027-01-03 00:10:00+00:11",
];

fn time(rng: &mut Rng) -> String {
    if rng.bool() {
        return pick(rng, &TIMES).to_owned();
    }
    let year = [rng.u32(1970..2200), rng.u32(1968..2202), 2000, 2024, 2100][rng.usize(..5)];
    let mut text = format!("{year}-{:02}-{:02}", rng.u8(1..13), [rng.u8(1..29), rng.u8(28..33)][rng.usize(..2)]);
    if rng.u8(..4) > 0 {
        let joint = if rng.bool() { 'T' } else { ' ' };
        text.push_str(&format!("{joint}{:02}:{:02}:{:02}", rng.u8(..25), rng.u8(..60), rng.u8(..61)));
        text.push_str(pick(rng, &["", ".1", ".1234567"]));
        match rng.u8(..3) {
            0 => text.push('Z'),
            1 => text.push_str(&format!("{}{:02}:{:02}", pick(rng, &["+", "-"]), rng.u8(..25), rng.u8(..61))),
            _ => {}
        }
    }
    text
}

const OIDS: [&str; 8] = [
    "1.3.6.1.4.1.9",
    ".1.3.6.1.4.1.9",
    "..1.3.6.1.4.1.9",
    "1.3.6.1.4.1.9.1",
    ".1.3.6.1.4.1.99",
    "1.3.6.1.4.1.9.",
    "1.3",
    "",
];

const SEVERITIES: [&str; 18] = [
    "3",
    "+3",
    "003",
    " 3 ",
    "\u{a0}3",
    "8",
    "-1",
    "-0",
    "err",
    "ERROR",
    " Crit\t",
    "emerg ",
    "warn",
    "informational",
    "3.0",
    "",
    "99999999999999999999",
    "info\0",
];

const PATTERNS: [&str; 56] = [
    "a",
    "A",
    "^a",
    "a$",
    "^$",
    "^a$",
    ".",
    "a.b",
    ".*",
    "a+b",
    r"\d+",
    r"\D",
    r"\w+",
    r"\W",
    r"\s",
    r"\S",
    r"\bcmd\b",
    r"a\b",
    r"\.exe$",
    r"(?i)cmd",
    r"(?i)k",
    r"(?i)ß",
    "[a-c]",
    "[^a]",
    r"[\w.]+",
    r"[^\s]",
    r"[[:alpha:]]",
    r"[a-z&&[^b]]",
    r"[a--b]",
    r"\x41",
    r"\x{e9}",
    "é",
    "É|é",
    "(?s)a.b",
    "(?m)^b$",
    "(a|b)+",
    "(?:ab){1,3}",
    "a{2,}",
    "a{0}b",
    "ab{0,1}c",
    r"\\",
    r"\*",
    r"[\]\\]",
    r"^\\\\",
    r"(?P<n>a)",
    r"(?<n>b)",
    "(?U)a+",
    "(?x) a b # c",
    "[K]",
    "σ",
    r"\u{1F980}",
    "a|",
    r"\Aab",
    r"ab\z",
    r"[\x00-\x1f]",
    r"x*",
];

const PYTHON: [&str; 32] = [
    r"\bcmd\b",
    r"\b",
    r"a\b b",
    r"\bé",
    r"^\ba",
    r"\b\.",
    r"b\b$",
    r"\ba|b\b",
    r"(?:a|b)\b",
    r"\b[^\w]",
    "cmd",
    "a$",
    "^a",
    "^$",
    r"\d",
    r"\w$",
    r"\s",
    "é",
    "ß",
    "k",
    "i",
    r"a\Z",
    "(?#c)a",
    "[[a]",
    r"\.exe$",
    "a|b$",
    "σ",
    ".",
    r"\0",
    "[^a]$",
    "x*",
    "$",
];

const NETWORKS: [&str; 12] = [
    "10.0.0.0/8",
    "0.0.0.0/0",
    "192.168.1.1",
    "192.168.1.0/31",
    "255.255.255.255/32",
    "::/0",
    "::1",
    "fe80::/10",
    "2001:db8::/32",
    "::ffff:0:0/96",
    "::/1",
    "1:2:3:4:5:6:7:0/112",
];

fn pick<'a>(rng: &mut Rng, from: &[&'a str]) -> &'a str {
    from[rng.usize(..from.len())]
}

fn value(rng: &mut Rng, name: &str) -> String {
    let special: &[&str] = match name {
        "trap_oid" => &OIDS,
        "syslog_severity" | "severity" => &SEVERITIES,
        _ => match rng.u8(..10) {
            0 => &NUMBERS,
            1 => &ADDRESSES,
            2 => return time(rng),
            _ => &[],
        },
    };
    if !special.is_empty() && rng.u8(..10) > 0 {
        return pick(rng, special).to_owned();
    }
    if rng.u8(..3) == 0 {
        let letters = ["a", "b", "A", "c", "é", "\n", " ", ".", "{", "|"];
        return (0..rng.usize(..9)).map(|_| pick(rng, &letters)).collect();
    }
    let mut text: String = (0..rng.usize(..5)).map(|_| pick(rng, &PIECES)).collect();
    if rng.u16(..800) == 0 {
        text.insert_str(0, &"long ".repeat(30_000));
    }
    text
}

/// An event; names and values are often missing, null, empty or several.
pub fn event(rng: &mut Rng) -> Fields<'static> {
    let mut fields = Fields::new(EventSource::default());
    for name in NAMES {
        match rng.u8(..12) {
            0..=4 => {}
            5 => fields.push_null(name),
            6 => {
                for _ in 0..rng.usize(1..5) {
                    match rng.u8(..5) {
                        0 => fields.push_null(name),
                        _ => fields.push(name, value(rng, name)),
                    }
                }
            }
            _ => fields.push(name, value(rng, name)),
        }
    }
    fields
}

/// A rule: mostly one question, sometimes several put together.
pub fn rule(rng: &mut Rng) -> Predicate {
    let depth = [0, 0, 1, 1, 2][rng.usize(..5)];
    predicate(rng, depth)
}

fn predicate(rng: &mut Rng, depth: u8) -> Predicate {
    if depth == 0 {
        return question(rng);
    }
    let mut parts = || {
        let count = [0, 1, 2, 2, 3, 3, 6][rng.usize(..7)];
        (0..count).map(|_| predicate(rng, depth - 1)).collect::<Vec<_>>()
    };
    match parts() {
        several if rng.bool() => Predicate::Any(several),
        several if rng.u8(..4) > 0 => Predicate::All(several),
        several => Predicate::Not(Box::new(Predicate::Any(several))),
    }
}

fn question(rng: &mut Rng) -> Predicate {
    // Few names, so that several questions fall on one field.
    let name = if rng.bool() { pick(rng, &NAMES[..3]) } else { pick(rng, &NAMES) };
    match rng.u8(..20) {
        0 => Predicate::Exists(name.into()),
        1 => Predicate::Null(name.into()),
        2 => Predicate::Present(any_field(rng, name)),
        3 | 4 => Predicate::AnyField(operator(rng)),
        5 | 6 => Predicate::Related {
            field: name.into(),
            relation: [Relation::Equals, Relation::StartsWith, Relation::EndsWith, Relation::Contains][rng.usize(..4)],
            other: pick(rng, &NAMES[..3]).into(),
            cased: rng.bool(),
        },
        7 => Predicate::Test(Field::TrapOid, Operator::OidPrefix(oid_prefix::compile("1.3.6.1.4.1.9").unwrap())),
        8 => Predicate::Test(Field::Severity, Operator::Severity(severity::compile(rng.u8(..8)).unwrap())),
        9 => Predicate::Test(any_field(rng, name), operator(rng)),
        10 | 11 => Predicate::Test(Field::Message, operator(rng)),
        _ => Predicate::Test(Field::Named(name.into()), operator(rng)),
    }
}

fn any_field(rng: &mut Rng, name: &str) -> Field {
    match rng.u8(..4) {
        0 => Field::Message,
        1 => Field::Severity,
        2 => Field::TrapOid,
        _ => Field::Named(name.into()),
    }
}

fn operator(rng: &mut Rng) -> Operator {
    match rng.u8(..24) {
        0 => Operator::Contains(contains::compile(pick(rng, &PIECES)).unwrap()),
        1 | 13 => {
            let written = if rng.bool() { pick(rng, &PYTHON).to_owned() } else { expression(rng, 1) };
            Operator::Regex(regex::compile(&written).unwrap_or_else(|_| regex::compile("a$").unwrap()))
        }
        2 => Operator::OidPrefix(oid_prefix::compile("1.3").unwrap()),
        3..=6 => Operator::Pattern(pattern_of(rng)),
        7 | 8 => Operator::Cidr(cidr::compile(pick(rng, &NETWORKS)).unwrap()),
        9 | 10 => {
            let (order, number) = (order(rng), pick(rng, &NUMBERS));
            match compare::compile(order, number) {
                Ok(op) => Operator::Compare(op),
                Err(_) => Operator::Compare(compare::compile(order, "10").unwrap()),
            }
        }
        11 | 12 => {
            let part = clock::TimePart::ALL[rng.usize(..6)];
            let number = ["0", "3", "10", "11", "26", "48", "53", "2026", "-5"][rng.usize(..9)];
            Operator::Clock(clock::compile(part, order(rng), number).unwrap())
        }
        _ => Operator::Text(text_of(rng)),
    }
}

fn order(rng: &mut Rng) -> compare::Order {
    use compare::Order::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual};
    [Less, LessOrEqual, Greater, GreaterOrEqual, Equal][rng.usize(..5)]
}

fn pattern_of(rng: &mut Rng) -> pattern::Op {
    let flags =
        pattern::Flags { ignore_case: rng.u8(..3) == 0, multi_line: rng.u8(..6) == 0, dot_all: rng.u8(..6) == 0 };
    let mut written = pick(rng, &PATTERNS).to_owned();
    match rng.u8(..8) {
        2..=5 => written = expression(rng, 2),
        0 => written.push_str(&quoted(pick(rng, &PIECES))),
        1 => written = format!("{}(?:{written})", quoted(pick(rng, &PIECES))),
        _ => {}
    }
    pattern::compile(&written, flags).unwrap_or_else(|_| pattern::compile("a", flags).unwrap())
}

/// A regular expression put together by chance; small, and mostly of letters that values have.
fn expression(rng: &mut Rng, depth: u8) -> String {
    const ATOMS: [&str; 30] = [
        "a", "b", "a", "b", "A", "c", "é", "\\.", "ab", ".", "\\w", "\\W", "\\d", "\\s", "\\S", "[ab]", "[^b]",
        "[a-c]", "^", "$", "\\b", "\\n", "\\x41", "\\{", "[{]", "[^\\]a]", "(?i:a)", "(?s:.)", " ", "\\|",
    ];
    const SIGNS: [&str; 14] = ["", "", "", "", "*", "+", "?", "*?", "{0}", "{0,1}", "{2}", "{1,3}", "{2,}", "{0,2}?"];
    let mut out = String::new();
    for _ in 0..rng.usize(1..4) {
        match rng.u8(..4) {
            0 if depth > 0 => {
                let parts: Vec<String> = (0..rng.usize(1..4)).map(|_| expression(rng, depth - 1)).collect();
                out.push_str(&format!("({})", parts.join("|")));
            }
            _ => out.push_str(pick(rng, &ATOMS)),
        }
        if !out.ends_with(['^', '$', 'b', 'B']) || out.ends_with("ab") || out == "b" {
            out.push_str(pick(rng, &SIGNS));
        }
    }
    out
}

/// A text as a pattern for itself.
fn quoted(text: &str) -> String {
    text.chars().flat_map(|c| c.is_ascii_punctuation().then_some('\\').into_iter().chain([c])).collect()
}

fn text_of(rng: &mut Rng) -> text::Op {
    let mut literal = |max: usize| {
        let text: String = (0..rng.usize(1..=max)).map(|_| pick(rng, &PIECES)).collect();
        text::Part::Literal(text)
    };
    let (a, b) = (literal(2), literal(1));
    let (one, many) = (text::Part::One, text::Part::Many);
    let parts = match rng.u8(..16) {
        0 => vec![],
        1 => vec![many],
        2..=4 => vec![a],
        5..=7 => vec![many.clone(), a, many],
        8 | 9 => vec![a, many],
        10 | 11 => vec![many, a],
        12 => vec![many.clone(), a, many.clone(), b, many],
        13 => vec![a, many, b],
        14 => vec![many, a, one],
        _ => vec![one, a, many],
    };
    text::compile(parts, rng.u8(..4) == 0)
}
