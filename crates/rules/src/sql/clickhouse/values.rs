//! Addresses, numbers and severities: the grammar first, then ClickHouse's own reading.

use super::{literal, values_of};
use crate::ir::SEVERITY_FIELDS;
use crate::operators::clock::{self, TimePart};
use crate::operators::{Operator, cidr, compare};
use crate::sql::render::Clause;
use model::Severity;
use std::net::IpAddr;

const OCTET: &str = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";
const GROUP: &str = "[0-9A-Fa-f]{1,4}";
/// A number in JSON's grammar.
pub(in crate::sql) const NUMBER: &str = r"^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?$";

/// `v` is an address of the network. What comes through the grammar is an address to every reader.
pub(super) fn cidr(op: &cidr::Op) -> Clause {
    let (grammar, read, constant) = match op.network() {
        IpAddr::V4(_) => (ipv4(), "toIPv4OrDefault(v)", "toIPv4"),
        IpAddr::V6(_) => (ipv6(), "toIPv6OrDefault(v)", "toIPv6"),
    };
    let is_address = Clause::text(format!("match(v, {})", literal(&format!("^(?:{grammar})$"))));
    let (first, last) = (op.network(), op.last());
    let within = format!("{read} BETWEEN {constant}('{first}') AND {constant}('{last}')");
    Clause::All(vec![is_address, Clause::text(within)])
}

fn ipv4() -> String {
    format!(r"{OCTET}(?:\.{OCTET}){{3}}")
}

/// Eight groups, the last two of which can be an IPv4 address; `::` stands for at least one group.
fn ipv6() -> String {
    let ipv4 = ipv4();
    let last = |groups: usize| match groups {
        0 => String::new(),
        1 => GROUP.to_owned(),
        // `groups` of them, or an address in the place of the last two.
        several => format!("(?:{GROUP}:){{{}}}(?:{GROUP}:{GROUP}|{ipv4})", several - 2),
    };
    let mut forms = vec![last(8)];
    for before in 0..8usize {
        let head = if before == 0 { ":".to_owned() } else { format!("(?:{GROUP}:){{{before}}}") };
        let tails: Vec<String> = (0..=7 - before).map(last).collect();
        forms.push(format!("{head}:(?:{})", tails.join("|")));
    }
    forms.join("|")
}

pub(super) fn compare(op: &compare::Op) -> Clause {
    let number = op.number();
    Clause::All(vec![
        Clause::text(format!("match(v, {})", literal(NUMBER))),
        Clause::text("isFinite(toFloat64OrZero(v))"),
        Clause::text(format!("toFloat64OrZero(v) {} toFloat64('{number:e}')", op.order().sign())),
    ])
}

/// A date and perhaps a time of day, as [`clock::time`] reads them; the 29th of February in leap years.
const TIME: &str = concat!(
    "^(?:(?:19[7-9][0-9]|2[01][0-9]{2})-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])",
    "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))",
    "|(?:19[79][26]|198[048]|2[01](?:0[48]|[2468][048]|[13579][26])|2000)-02-29)",
    r"(?:[T ](?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])?)?$"
);

/// The time that `v` is, without its offset and the parts of a second.
/// With a scale of 0 it would be a `DateTime`, which ends in 2106.
const LOCAL: &str = "toDateTime64OrZero(concat(substring(v, 1, 10), ' ', if(length(v) = 10, '00:00:00', substring(v, 12, 8))), 3, 'UTC')";
/// Minutes of its offset.
const OFFSET: &str = "if(match(v, '[+-][0-9]{2}:[0-9]{2}$'), \
     toInt32OrZero(substring(v, -6, 3)) * 60 + toInt32OrZero(concat(substring(v, -6, 1), substring(v, -2))), 0)";

/// A part of the time that `v` is stands so to the number.
pub(super) fn clock(op: &clock::Op) -> Clause {
    let part = match op.part() {
        TimePart::Minute => "toMinute",
        TimePart::Hour => "toHour",
        TimePart::Day => "toDayOfMonth",
        TimePart::Week => "toISOWeek",
        TimePart::Month => "toMonth",
        TimePart::Year => "toYear",
    };
    Clause::All(vec![
        Clause::text(format!("match(v, {})", literal(TIME))),
        Clause::text(format!(
            "{part}(subtractMinutes({LOCAL}, {OFFSET})) {} {}",
            op.order().sign(),
            // No part of a time is further away from zero.
            op.number().clamp(-1_000_000, 1_000_000)
        )),
    ])
}

/// What [`Severity::parse`] cuts off around a word.
const SPACE: &str = r"[\x{9}-\x{D} \x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}]*";

/// The spellings of a severity that [`Severity::parse`] reads.
fn spellings(severity: Severity) -> String {
    let words = match severity {
        Severity::Emergency => "-0+|emerg|emergency|panic",
        Severity::Alert => "alert",
        Severity::Critical => "crit|critical|fatal",
        Severity::Error => "err|error",
        Severity::Warning => "warn|warning",
        Severity::Notice => "notice",
        Severity::Info => "info|informational|information",
        Severity::Debug => "debug",
    };
    format!(r"\+?0*{}|{words}", severity.code())
}

/// The first value of the field spells one of these severities.
fn spells(name: &str, severities: &[Severity]) -> Clause {
    let words: Vec<String> = severities.iter().map(|severity| spellings(*severity)).collect();
    let pattern = format!("^{SPACE}(?i:{}){SPACE}$", words.join("|"));
    Clause::text(format!("match({}[1], {})", values_of(name), literal(&pattern)))
}

pub(super) fn severity_known() -> Clause {
    Clause::Any(SEVERITY_FIELDS.iter().map(|name| spells(name, &Severity::ALL)).collect())
}

/// The first of the fields that spells a severity decides.
pub(super) fn severity_is(operators: &[&Operator]) -> Clause {
    let wanted: Vec<Severity> = operators
        .iter()
        .filter_map(|operator| match operator {
            Operator::Severity(op) => Some(op.severity()),
            Operator::Contains(_)
            | Operator::Regex(_)
            | Operator::OidPrefix(_)
            | Operator::Text(_)
            | Operator::Pattern(_)
            | Operator::Cidr(_)
            | Operator::Compare(_)
            | Operator::Clock(_) => None,
        })
        .collect();
    let [first, second] = SEVERITY_FIELDS;
    let unknown = Clause::Not(Box::new(spells(first, &Severity::ALL)));
    Clause::Any(vec![spells(first, &wanted), Clause::All(vec![unknown, spells(second, &wanted)])])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_of_addresses_is_the_parsers() {
        let regex = |grammar: String| regex::Regex::new(&format!("^(?:{grammar})$")).expect("a pattern");
        let (four, six) = (regex(ipv4()), regex(ipv6()));
        let groups = ["1", "abcd", "0F", "12345", "1.2.3.4", "01.2.3.4", "", "", "g", "256.1.1.1"];
        let mut rng = fastrand::Rng::with_seed(1);
        let (mut valid, mut invalid) = (0, 0);
        for _ in 0..200_000 {
            let count = rng.usize(1..10);
            let plain = rng.bool();
            let picked: Vec<&str> = (0..count)
                .map(|_| if plain && rng.u8(..8) > 0 { groups[rng.usize(..3)] } else { groups[rng.usize(..10)] })
                .collect();
            let mut text = picked.join(":");
            if rng.u8(..4) == 0 {
                text = format!(":{text}");
            }
            let parsed = text.parse::<IpAddr>().ok();
            assert_eq!(four.is_match(&text), parsed.is_some_and(|ip| ip.is_ipv4()), "{text}");
            assert_eq!(six.is_match(&text), parsed.is_some_and(|ip| ip.is_ipv6()), "{text}");
            if parsed.is_some() { valid += 1 } else { invalid += 1 }
        }
        assert!(valid > 5_000 && invalid > 5_000, "{valid} {invalid}");
    }

    #[test]
    fn the_spellings_of_severities_are_the_parsers() {
        let patterns = Severity::ALL.map(|severity| {
            let pattern = format!("^{SPACE}(?i:{}){SPACE}$", spellings(severity));
            regex::Regex::new(&pattern).expect("a pattern")
        });
        let words = [
            "0",
            "-0",
            "+7",
            "008",
            "8",
            "-1",
            "emerg",
            "Panic",
            "ERR",
            "information",
            "infos",
            "debug",
            "crit",
            "\u{a0}",
            "+-0",
        ];
        let more = [
            "\u{2009}3\t",
            " 3\u{85}",
            "3\u{200b}",
            "00000000000000000000000000000003",
            "99999999999999999999",
            "",
            "3\n",
            "ᴇrr",
        ];
        for text in words.iter().chain(&more) {
            let found: Vec<Severity> =
                Severity::ALL.into_iter().filter(|s| patterns[usize::from(s.code())].is_match(text)).collect();
            assert_eq!(found, Severity::parse(text).into_iter().collect::<Vec<_>>(), "{text:?}");
        }
    }
}
