//! Events per second of [`rules::RuleSet`] against a linear scan that is fair: patterns compiled
//! once, message lowered once. `cargo run --release -p rules --example match_throughput`

#![allow(clippy::print_stdout, reason = "its output is its purpose")]

use model::{Handling, MatchType, Rule, RuleDraft, Severity};
use rules::operators::{contains, oid_prefix, regex};
use rules::{RuleSet, Subject, Value, fault_key, ir, template};
use std::hint::black_box;
use std::time::Instant;

const EVENTS: usize = 2_000;

fn main() {
    let events = events();
    let bytes: usize = events.iter().map(|event| event.message.len()).sum();
    println!("{EVENTS} events of {} bytes on average, one core", bytes / EVENTS);
    println!(
        "{:>6} {:>12} {:>10} {:>12} {:>8} {:>8} {:>9}",
        "rules", "events/s", "ns/event", "naive/s", "ratio", "hits", "load ms"
    );
    for count in [10, 100, 1_000, 5_000] {
        let rows = rows(count);
        let start = Instant::now();
        let (set, problems) = RuleSet::compile(rows.clone());
        let load = start.elapsed();
        assert!(problems.is_empty(), "{problems:?}");
        let naive = Naive::new(rows);
        let mut hits = 0;
        for event in &events {
            let found = set.first_match(&event.subject()).map(|rule| rule.id);
            assert_eq!(found, naive.first_match(event), "{}", event.message);
            hits += usize::from(found.is_some());
        }
        let fast = rate(&events, 40, |event| set.first_match(&event.subject()).is_some());
        let slow = rate(&events, if count > 500 { 1 } else { 4 }, |event| naive.first_match(event).is_some());
        println!(
            "{count:>6} {fast:>12.0} {:>10.0} {slow:>12.0} {:>7.1}x {:>7.1}% {:>9.1}",
            1e9 / fast,
            fast / slow,
            hits as f64 * 100.0 / EVENTS as f64,
            load.as_secs_f64() * 1e3,
        );
    }
    println!("template  {:>12.0} messages/s", rate(&events, 100, |event| template(&event.message).is_empty()));
    println!("fault_key {:>12.0} messages/s", rate(&events, 100, |event| fault_key(&event.message).is_empty()));
    println!("fingerprint {:>10.0} messages/s", rate(&events, 100, |event| rules::fingerprint(&event.message) == 0));
}

/// The best of five, as others share the machine.
fn rate(events: &[Sample], rounds: usize, mut one: impl FnMut(&Sample) -> bool) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        for _ in 0..rounds {
            for event in events {
                black_box(one(event));
            }
        }
        best = best.min(start.elapsed().as_secs_f64());
    }
    (events.len() * rounds) as f64 / best
}

struct Sample {
    message: String,
    severity: Option<Severity>,
    trap_oid: Option<String>,
}

impl Sample {
    fn subject(&self) -> Subject<'_> {
        Subject { message: &self.message, severity: self.severity, trap_oid: self.trap_oid.as_deref() }
    }
}

/// Deterministic numbers; quality does not matter.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % n
    }
    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }
}

const SYSTEMS: [&str; 20] = [
    "LINK",
    "LINEPROTO",
    "OSPF",
    "BGP",
    "HSRP",
    "STP",
    "SYS",
    "DOT1X",
    "SEC_LOGIN",
    "ENVMON",
    "PLATFORM",
    "sshd",
    "kernel",
    "systemd",
    "postfix",
    "nginx",
    "haproxy",
    "named",
    "dhcpd",
    "snmpd",
];
const FAULTS: [&str; 24] = [
    "UPDOWN",
    "ADJCHG",
    "STATECHANGE",
    "TOPOTRAP",
    "RESTART",
    "CPUHOG",
    "MALLOCFAIL",
    "LOGIN_FAILED",
    "FAN_FAIL",
    "PSU_FAIL",
    "TEMP_HIGH",
    "CRC_ERROR",
    "DUPLEX_MISMATCH",
    "LOOP_DETECTED",
    "PORT_SECURITY",
    "ERR_DISABLE",
    "out of memory",
    "connection refused",
    "authentication failure",
    "segfault",
    "certificate expired",
    "disk full",
    "read-only",
    "timed out",
];

fn rows(count: usize) -> Vec<Rule> {
    let mut dice = Dice(7);
    let mut rows = Vec::new();
    for id in 0..count {
        let (system, fault) = (dice.pick(&SYSTEMS), dice.pick(&FAULTS));
        let (match_type, text, oid) = match id % 20 {
            0 if id < 200 => (MatchType::Contains, Some(format!("{}: ", SYSTEMS[id / 20])), None),
            0..=10 => (MatchType::Contains, Some(format!("{system}-{}-{fault} site{id}", id % 8)), None),
            11..=15 => {
                (MatchType::Regex, Some(format!(r"{system}.*{fault}.*(?:ge|xe|eth){}/\d+/{}\b", id % 9, id % 97)), None)
            }
            16 => (MatchType::Regex, Some(format!(r"host-{id}\S* (?:down|failed|unreachable)")), None),
            17 | 18 => (MatchType::OidPrefix, None, Some(format!(".1.3.6.1.4.1.{}.9.{}", 9 + id % 50, id))),
            _ => (MatchType::Contains, Some(format!("{fault} on unit {id}")), None),
        };
        let draft = RuleDraft {
            match_string: text,
            trap_oid: oid,
            syslog_severity: (id % 7 == 0).then_some(3),
            match_type,
            priority: (id % 10) as i32 * 10,
            prod_handling: Handling::new("Ticket_only"),
            dev_handling: Handling::new("Ignore"),
            team_assignment: "NetOps".to_owned(),
            is_active: true,
        };
        rows.push(Rule { id: id as i64 + 1, draft });
    }
    rows
}

fn events() -> Vec<Sample> {
    let mut dice = Dice(42);
    (0..EVENTS)
        .map(|i| {
            let (system, fault) = (dice.pick(&SYSTEMS), dice.pick(&FAULTS));
            let tail = "neighbor 10.20.30.40 went from FULL to DOWN, dead timer expired; input queue 4/75/0/0, total output drops 1234";
            let message = match dice.below(10) {
                0 => format!("%{system}: {fault} site{}: {tail}", dice.below(3_000)),
                1 => format!("%{system}-3-{fault}: Interface ge{}/0/{}, changed state to down, {tail}", dice.below(9), dice.below(97)),
                2 => format!("%{system}-3-UPDOWN: Interface GigabitEthernet{}/0/1, changed state to up, {tail}", dice.below(9)),
                3 => format!("Failed password for invalid user admin from 203.0.113.{} port {} ssh2; {tail}", dice.below(255), dice.below(65_000)),
                4 => format!("[12345.678901] EXT4-fs error (device sda1): ext4_find_entry:1455: inode #{}: comm nginx: {tail}", dice.below(100_000)),
                _ => format!("{system}[{}]: session {} opened for user root by (uid=0) request GET /index.html 200 {}ms {tail}", dice.below(9_999), dice.below(99_999), dice.below(500)),
            };
            let trap_oid = (dice.below(10) == 0).then(|| format!("1.3.6.1.4.1.{}.9.{}.0.{}", 9 + dice.below(50), dice.below(5_000), i));
            Sample { message, severity: Severity::from_code(dice.below(8) as i64), trap_oid }
        })
        .collect()
}

/// The contract's loop: rule by rule.
struct Naive {
    rules: Vec<(Rule, Test)>,
}

enum Test {
    Contains(contains::Op),
    Regex(regex::Op),
    Oid(oid_prefix::Op),
}

impl Naive {
    fn new(mut rows: Vec<Rule>) -> Self {
        rows.sort_by_key(|rule| (rule.draft.priority, rule.id));
        let test = |rule: &Rule| {
            let text = rule.draft.match_string.as_deref().unwrap_or_default();
            match rule.draft.match_type {
                MatchType::Contains => Test::Contains(contains::compile(text).expect("valid")),
                MatchType::Regex => Test::Regex(regex::compile(text).expect("valid")),
                MatchType::OidPrefix => {
                    Test::Oid(oid_prefix::compile(rule.draft.trap_oid.as_deref().unwrap_or_default()).expect("valid"))
                }
            }
        };
        let rules = rows.into_iter().map(|rule| (test(&rule), rule)).map(|(test, rule)| (rule, test)).collect();
        Self { rules }
    }

    fn first_match(&self, event: &Sample) -> Option<i64> {
        let mut lower = String::new();
        ir::lower_into(&event.message, &mut lower);
        let text = Value::Text { raw: &event.message, lower: &lower };
        let severity_fits = |rule: &Rule| {
            rule.draft.syslog_severity.is_none_or(|code| event.severity.is_some_and(|s| s.code() == code))
        };
        let hit = |(rule, test): &&(Rule, Test)| match test {
            Test::Oid(op) => event.trap_oid.as_deref().is_some_and(|oid| oid_prefix::matches(op, &Value::Oid(oid))),
            Test::Contains(op) => severity_fits(rule) && contains::matches(op, &text),
            Test::Regex(op) => severity_fits(rule) && regex::matches(op, &text),
        };
        self.rules.iter().find(hit).map(|(rule, _)| rule.id)
    }
}
