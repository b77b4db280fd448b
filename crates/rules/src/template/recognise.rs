//! Recognisers: each looks at the start of a token and says how many bytes of it are one thing.
//! All look ahead a bounded distance, so the scan as a whole stays linear.

/// Bytes that make words: letters, digits, `_`, and everything outside ASCII.
pub(super) const fn is_word(b: u8) -> bool {
    WORD[b as usize]
}

const WORD: [bool; 256] = {
    let mut table = [false; 256];
    let mut b = 0;
    while b < 256 {
        table[b] = b >= 0x80 || b == b'_' as usize || (b as u8).is_ascii_alphanumeric();
        b += 1;
    }
    table
};

/// How many ASCII letters the text starts with.
pub(super) fn letters(b: &[u8]) -> usize {
    b.iter().take_while(|b| b.is_ascii_alphabetic()).count()
}

fn digits(b: &[u8], most: usize) -> usize {
    b.iter().take(most).take_while(|b| b.is_ascii_digit()).count()
}

fn hex_digits(b: &[u8], most: usize) -> usize {
    b.iter().take(most).take_while(|b| b.is_ascii_hexdigit()).count()
}

fn ends_word(b: &[u8], at: usize) -> bool {
    b.get(at).is_none_or(|b| !is_word(*b))
}

fn number(b: &[u8]) -> u32 {
    b.iter().fold(0u32, |n, b| n.saturating_mul(10).saturating_add(u32::from(b - b'0')))
}

/// A date, a time, or both, with fraction, zone and year where they follow.
pub(super) fn timestamp(b: &[u8]) -> Option<usize> {
    if b.first()?.is_ascii_digit() {
        if digits(b, 5) == 4 && b.get(4) == Some(&b' ') && month(&b[5..]).is_some() {
            return month_day(&b[5..]).map(|end| end + 5);
        }
        let date = numeric_date(b);
        if let Some(end) = date {
            return Some(time_after(b, end).unwrap_or(end));
        }
        if let Some(end) = day_month_year(b) {
            return Some(time_after(b, end).unwrap_or(end));
        }
        return time(b).map(|end| zone(b, end));
    }
    month_day(b)
}

/// `2024-03-01`, `2024/03/01`, `20240301T184611`, `01/03/2024`, `01.03.2024`, `03/01/24 18:…`.
fn numeric_date(b: &[u8]) -> Option<usize> {
    let first = digits(b, 9);
    if first == 8 && b.get(8) == Some(&b'T') && digits(&b[9..], 7) == 6 {
        return Some(zone(b, 15));
    }
    let separator = *b.get(first)?;
    if !matches!(separator, b'-' | b'/' | b'.') {
        return None;
    }
    let second = first + 1;
    let second_len = digits(&b[second..], 3);
    let third = second + second_len + 1;
    if !(1..=2).contains(&second_len) || b.get(third - 1) != Some(&separator) {
        return None;
    }
    let third_len = digits(&b[third..], 5);
    let end = third + third_len;
    let fits = |at: usize, len: usize, max: u32| (1..=max).contains(&number(&b[at..at + len]));
    let year_first = first == 4 && separator != b'.' && (1..=2).contains(&third_len);
    if year_first && fits(second, second_len, 12) && fits(third, third_len, 31) {
        // `T` and the hours follow without a gap.
        let whole = ends_word(b, end) || (b[end] == b'T' && b.get(end + 1).is_some_and(u8::is_ascii_digit));
        let path = b.get(end).is_some_and(|x| *x == separator);
        return (whole && !path).then_some(end);
    }
    let year_last = (1..=2).contains(&first) && ends_word(b, end) && fits(0, first, 31) && fits(second, second_len, 31);
    if year_last && third_len == 4 && matches!(b[third], b'1' | b'2') && b.get(end).is_none_or(|x| *x != separator) {
        return Some(end);
    }
    if year_last && third_len == 2 && separator == b'/' {
        return time_after(b, end);
    }
    None
}

/// `01/Mar/2024:18:46:11`, `1-Mar-2024 18:46:11`, `01 Mar 2024 18:46:11`.
fn day_month_year(b: &[u8]) -> Option<usize> {
    let day = digits(b, 3);
    if !(1..=2).contains(&day) || !matches!(b.get(day)?, b'/' | b'-' | b' ') || month(&b[day + 1..]).is_none() {
        return None;
    }
    let year = day + 5;
    if b.get(year - 1) != b.get(day) || digits(b.get(year..)?, 5) != 4 {
        return None;
    }
    Some(year + 4)
}

/// `Mar  1 18:46:11`, `Mar 1 2024`, `Mar 1 2024 18:46:11`, `Tue Mar  1 18:46:11 UTC 2024`, `Tue, 1 Mar 2024 …`.
fn month_day(b: &[u8]) -> Option<usize> {
    let mut at = 0;
    if is_weekday(b) {
        at = 3 + usize::from(b.get(3) == Some(&b','));
        if b.get(at) != Some(&b' ') {
            return None;
        }
        at += 1;
        if let Some(end) = day_month_year(b.get(at..)?) {
            return Some(time_after(b, at + end).unwrap_or(at + end));
        }
    }
    month(b.get(at..)?)?;
    at += 3;
    let gap = b[at..].iter().take(3).take_while(|b| **b == b' ').count();
    at += gap;
    let day = digits(&b[at..], 3);
    if !(1..=2).contains(&gap) || !(1..=2).contains(&day) {
        return None;
    }
    at += day;
    if b.get(at) == Some(&b' ') && digits(&b[at + 1..], 5) == 4 && ends_word(b, at + 5) {
        at += 5;
        return Some(time_after(b, at).unwrap_or(at));
    }
    time_after(b, at)
}

fn month(b: &[u8]) -> Option<()> {
    const MONTHS: [&[u8; 3]; 12] =
        [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
    let name = b.first_chunk::<3>()?;
    MONTHS.contains(&name).then_some(())
}

fn is_weekday(b: &[u8]) -> bool {
    const DAYS: [&[u8; 3]; 7] = [b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun"];
    b.first_chunk::<3>().is_some_and(|name| DAYS.contains(&name))
}

/// A time that follows a date ending at `end`, with what separates them.
fn time_after(b: &[u8], end: usize) -> Option<usize> {
    let mut at = end;
    if matches!(b.get(at)?, b'T' | b':' | b'_' | b',') {
        at += 1;
    }
    while at < end + 2 && b.get(at) == Some(&b' ') {
        at += 1;
    }
    if b[end] == b'T' && digits(b.get(at..)?, 7) == 6 {
        return Some(zone(b, at + 6));
    }
    (at > end).then_some(())?;
    let length = time(b.get(at..)?)?;
    Some(zone(b, at + length))
}

/// `18:46:11`, `1:02:03.45`, `18:46:11,123`; hours may have three digits (uptimes).
fn time(b: &[u8]) -> Option<usize> {
    let hours = digits(b, 4);
    let at = hours;
    let pair = |at: usize| {
        b.get(at) == Some(&b':') && matches!(b.get(at + 1), Some(b'0'..=b'6')) && digits(&b[at + 1..], 3) == 2
    };
    if !(1..=3).contains(&hours) || !pair(at) || !pair(at + 3) {
        return None;
    }
    let mut end = at + 6;
    if matches!(b.get(end), Some(b'.' | b',')) {
        let fraction = digits(&b[end + 1..], 10);
        if fraction > 0 {
            end += 1 + fraction;
        }
    }
    let goes_on = b.get(end).is_some_and(|x| (is_word(*x) && *x != b'Z') || *x == b':') && ends_wrongly(b, end);
    (!goes_on).then_some(end)
}

/// A colon is the end of a time unless more of an address follows it.
fn ends_wrongly(b: &[u8], end: usize) -> bool {
    b[end] != b':' || b.get(end + 1).is_some_and(u8::is_ascii_hexdigit)
}

/// Extends a time by its zone and by a year behind it.
fn zone(b: &[u8], end: usize) -> usize {
    const ZONES: [&[u8]; 20] = [
        b"UTC", b"GMT", b"CET", b"CEST", b"EET", b"EEST", b"WET", b"WEST", b"BST", b"IST", b"JST", b"MSK", b"EST",
        b"EDT", b"CST", b"CDT", b"MST", b"MDT", b"PST", b"PDT",
    ];
    let mut at = end;
    let after = b.get(at + usize::from(b.get(at) == Some(&b' '))..).unwrap_or_default();
    let start = b.len() - after.len();
    if b.get(at) == Some(&b'Z') && ends_word(b, at + 1) {
        at += 1;
    } else if matches!(after.first(), Some(b'+' | b'-')) {
        let hours = digits(&after[1..], 5);
        if hours == 4 && ends_word(after, 5) {
            at = start + 5;
        } else if hours == 2 && after.get(3) == Some(&b':') && digits(&after[4..], 3) == 2 {
            at = start + 6;
        }
    } else if start > at
        && let Some(name) = ZONES.iter().find(|name| after.starts_with(name) && ends_word(after, name.len()))
    {
        at = start + name.len();
    }
    let year = b.get(at + 1..).unwrap_or_default();
    if b.get(at) == Some(&b' ')
        && matches!(year.first(), Some(b'1' | b'2'))
        && digits(year, 5) == 4
        && ends_word(year, 4)
        && matches!(&year[..2], b"19" | b"20")
    {
        at += 5;
    }
    at
}

/// `8-4-4-4-12` hexadecimal digits.
pub(super) fn uuid(b: &[u8]) -> Option<usize> {
    let mut at = 0;
    for (i, length) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        if i > 0 {
            (b.get(at) == Some(&b'-')).then_some(())?;
            at += 1;
        }
        (hex_digits(b.get(at..)?, length + 1) == length).then_some(())?;
        at += length;
    }
    ends_word(b, at).then_some(at)
}

/// `00:1a:2b:3c:4d:5e`, `00-1a-…`, `001a.2b3c.4d5e`, `001a-2b3c-4d5e`.
pub(super) fn mac(b: &[u8]) -> Option<usize> {
    let group = hex_digits(b, 5);
    let separator = *b.get(group)?;
    let groups = match (group, separator) {
        (2, b':' | b'-') => 6,
        (4, b'.' | b'-') => 3,
        _ => return None,
    };
    let mut at = 0;
    for i in 0..groups {
        if i > 0 {
            (b.get(at) == Some(&separator)).then_some(())?;
            at += 1;
        }
        (hex_digits(b.get(at..)?, group + 1) == group).then_some(())?;
        at += group;
    }
    let more = b.get(at) == Some(&separator) && b.get(at + 1).is_some_and(u8::is_ascii_hexdigit);
    (ends_word(b, at) && !more).then_some(at)
}

/// `0000:00:1f.6`: domain, bus, device and function.
pub(super) fn pci(b: &[u8]) -> Option<usize> {
    let b = b.first_chunk::<12>().filter(|_| ends_word(b, 12))?;
    let shape = b"hhhh:hh:hh.h";
    let fits = |(b, shape): (&u8, &u8)| if *shape == b'h' { b.is_ascii_hexdigit() } else { b == shape };
    b.iter().zip(shape).all(fits).then_some(12)
}

/// Four numbers up to 255 with dots between, and no fifth.
pub(super) fn ipv4(b: &[u8]) -> Option<usize> {
    let mut at = 0;
    for i in 0..4 {
        if i > 0 {
            (b.get(at) == Some(&b'.')).then_some(())?;
            at += 1;
        }
        let length = digits(b.get(at..)?, 4);
        ((1..=3).contains(&length) && number(&b[at..at + length]) <= 255).then_some(())?;
        at += length;
    }
    let fifth = b.get(at) == Some(&b'.') && b.get(at + 1).is_some_and(u8::is_ascii_digit);
    (ends_word(b, at) && !fifth).then_some(at)
}

/// Eight groups, or fewer around one `::`; at least one digit, so that `a::b` stays a name.
pub(super) fn ipv6(b: &[u8]) -> Option<usize> {
    let (mut at, mut groups, mut gap, mut digit) = (0, 0, false, false);
    loop {
        let length = hex_digits(b.get(at..)?, 5);
        if length > 4 {
            return None;
        }
        if length > 0 {
            if (gap || groups == 6)
                && let Some(v4) = ipv4(&b[at..])
            {
                (at, groups, digit) = (at + v4, groups + 2, true);
                break;
            }
            digit |= b[at..at + length].iter().any(u8::is_ascii_digit);
            (at, groups) = (at + length, groups + 1);
        }
        if groups > 8 {
            return None;
        }
        match (b.get(at), b.get(at + 1)) {
            (Some(b':'), Some(b':')) if !gap => (at, gap) = (at + 2, true),
            (Some(b':'), Some(next)) if length > 0 && next.is_ascii_hexdigit() => at += 1,
            _ => break,
        }
    }
    let whole = if gap { (1..8).contains(&groups) } else { groups == 8 };
    (whole && digit && ends_word(b, at)).then_some(at)
}

/// `%LINK-3-UPDOWN`, `%ASA-6-302013`: a name whose numbers are part of it.
pub(super) fn mnemonic(b: &[u8]) -> Option<usize> {
    const BYTES_MAX: usize = 80;
    let is_part = |b: &u8| b.is_ascii_uppercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-');
    let length = b.get(1..)?.iter().take(BYTES_MAX).take_while(|b| is_part(b)).count();
    let name = &b[1..=length];
    let severity = name.windows(3).any(|w| w[0] == b'-' && w[1].is_ascii_digit() && w[2] == b'-');
    (name.first()?.is_ascii_uppercase() && severity && ends_word(b, length + 1)).then_some(length + 1)
}

/// What a number with letters behind it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Time,
    Other,
}

/// A number with a unit (`35ms`, `3.5V`, `1d02h`): where its unit starts and where it ends.
pub(super) fn quantity(b: &[u8]) -> Option<(usize, usize, Unit)> {
    const BYTES_MAX: usize = 24;
    let whole = digits(b, BYTES_MAX);
    let mut at = whole;
    if b.get(at) == Some(&b'.') && digits(&b[at + 1..], 1) == 1 {
        at += 1 + digits(&b[at + 1..], BYTES_MAX);
    }
    let unit = b[at..].iter().take(8).take_while(|b| b.is_ascii_alphabetic()).count();
    let end = at + unit;
    if unit == 0 {
        return None;
    }
    if ends_word(b, end) && !joined(b, end) {
        let mut name = [0; 8];
        name[..unit].copy_from_slice(&b[at..end]);
        name.make_ascii_lowercase();
        return unit_kind(&name[..unit]).map(|kind| (at, end, kind));
    }
    let mut end = 0;
    let mut parts = 0;
    while end < BYTES_MAX {
        let length = digits(&b[end..], 6);
        match b.get(end + length) {
            Some(b'y' | b'w' | b'd' | b'h' | b'm' | b's') if length > 0 => (end, parts) = (end + length + 1, parts + 1),
            _ => break,
        }
    }
    (parts > 1 && ends_word(b, end) && !joined(b, end)).then_some((0, end, Unit::Time))
}

/// Whether the token goes on behind a joining character.
fn joined(b: &[u8], at: usize) -> bool {
    matches!(b.get(at), Some(b'.' | b'/' | b'-')) && b.get(at + 1).is_some_and(|b| is_word(*b))
}

fn unit_kind(name: &[u8]) -> Option<Unit> {
    match name {
        b"ns" | b"us" | b"ms" | b"s" | b"sec" | b"secs" | b"m" | b"min" | b"mins" | b"h" | b"hr" | b"hrs" | b"d"
        | b"w" => Some(Unit::Time),
        b"c" | b"v" | b"mv" | b"ma" | b"mw" | b"kw" | b"k" | b"kb" | b"mb" | b"gb" | b"tb" | b"kib" | b"mib"
        | b"gib" | b"tib" | b"bytes" | b"bps" | b"kbps" | b"mbps" | b"gbps" | b"pps" | b"hz" | b"khz" | b"mhz"
        | b"ghz" | b"dbm" | b"db" | b"rpm" | b"x" | b"pkts" => Some(Unit::Other),
        _ => None,
    }
}

/// Whether a run of letters and digits looks drawn by lot: hexadecimal of eight or more with both
/// digits and letters.
pub(super) fn is_hex_id(run: &[u8]) -> bool {
    run.len() >= 8
        && run.iter().all(u8::is_ascii_hexdigit)
        && run.iter().any(u8::is_ascii_digit)
        && run.iter().any(u8::is_ascii_alphabetic)
}

/// Whether letters and digits alternate as in a random token of at least `len` characters.
pub(super) fn is_random(run: &[u8], len: usize) -> bool {
    if run.len() < len || !run.iter().any(u8::is_ascii_digit) {
        return false;
    }
    let turns = run.windows(2).filter(|w| w[0].is_ascii_digit() != w[1].is_ascii_digit()).count();
    turns >= 4 || run.len() > 40
}
