//! The rule set against an evaluator written straight from contract mutt §3.4, with the repairs of
//! §12 (whole OID components, severity words).

use model::{Handling, MatchType, Rule, RuleDraft, Severity};
use proptest::prelude::*;
use rules::{RuleSet, Subject};

/// Rule by rule, as the contract says it.
fn naive<'a>(rules: &'a [Rule], subject: &Subject<'_>) -> Option<&'a Rule> {
    let mut order: Vec<&Rule> = rules.iter().filter(|rule| rule.draft.is_active).collect();
    order.sort_by_key(|rule| (rule.draft.priority, rule.id));
    order.into_iter().find(|rule| hit(&rule.draft, subject))
}

fn hit(rule: &RuleDraft, subject: &Subject<'_>) -> bool {
    let truthy = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
    if let (Some(event_oid), Some(rule_oid)) = (truthy(subject.trap_oid), truthy(rule.trap_oid.as_deref())) {
        let mut wanted: Vec<&str> = rule_oid.split('.').collect();
        let mut given: Vec<&str> = event_oid.split('.').collect();
        if wanted[0].is_empty() {
            wanted.remove(0);
        }
        if given[0].is_empty() {
            given.remove(0);
        }
        if matches!(wanted.last(), Some(&"" | &"*")) {
            wanted.pop();
        }
        return rule.match_type == MatchType::OidPrefix && given.starts_with(&wanted);
    }
    let Some(text) = truthy(rule.match_string.as_deref()) else { return false };
    if subject.message.is_empty() {
        return false;
    }
    if rule.syslog_severity.is_some_and(|code| subject.severity.map(Severity::code) != Some(code)) {
        return false;
    }
    match rule.match_type {
        MatchType::Contains => subject.message.to_lowercase().contains(&text.to_lowercase()),
        MatchType::Regex => {
            // `$` of Python: the end, or before a last line break.
            let python = text.replace('$', r"\n?\z");
            regex::RegexBuilder::new(&python)
                .case_insensitive(true)
                .build()
                .is_ok_and(|re| re.is_match(subject.message))
        }
        MatchType::OidPrefix => false,
    }
}

const TEXTS: &[&str] = &[
    "link",
    "LINK",
    "down",
    "link down",
    "ink d",
    "n",
    "",
    " ",
    "ß",
    "SS",
    "ẞ",
    "İ",
    "i",
    "i̇",
    "Σ",
    "ΟΔΟΣ",
    "ς",
    "σ",
    "\u{212A}ernel",
    "kernel",
    "ſession",
    "session",
    "a.c",
    "(x",
    "[",
    "*",
    "%LINK-3",
    "\\d",
    "é",
    "É",
    "downlink",
];
const PATTERNS: &[&str] = &[
    "link",
    "link.*down",
    "(down|link)",
    r"\d+",
    "^link",
    "down$",
    "^$",
    ".*",
    "a?",
    "[ds]own",
    "session",
    "kernel",
    "SESSION|KERNEL",
    r"\bdown\b",
    "é",
    "ß",
    "Σ",
    "σ$",
    "li[nm]k.{0,3}d",
    "(?-i:LINK)",
    "(?i:x)(?-i:link)",
    "k+",
    "s{2}",
    r"\w+ \w+",
    "(link|down){2}",
    "[^a]",
    "l.nk",
    "link(?: is)? down",
    "x*",
    "(",
    "(?=a)",
    r"\1",
    "İ",
    "i",
    "(?:ge|xe)-\\d/\\d",
    "n\\n",
    "ſ",
];
const OIDS: &[&str] = &[
    "1.3.6.1.4.1.9",
    ".1.3.6.1.4.1.9",
    "1.3.6.1.4.1.9.",
    "1.3.6.1.4.1.9.*",
    "1.3.6.1.4.1.99",
    "1.3.6.1.4.1",
    "1",
    "1.3.6.1.4.1.9.9.41",
    "",
    ".1.3.6.1.4.1.9.9.41.2.*",
    "13",
    "1.3.6.1.4.1.9.9.41.2.0.1",
    "1.3.x",
    ".",
];
const EVENT_OIDS: &[&str] = &[
    "1.3.6.1.4.1.9",
    ".1.3.6.1.4.1.9",
    "1.3.6.1.4.1.9.9.41.2.0.1",
    "1.3.6.1.4.1.99",
    "1.3.6.1.4.1.99.1",
    ".1.3.6.1.4.1.9.9.41",
    "1.3",
    "13",
    "",
    "1",
    ".",
    "2.1",
];

fn message() -> impl Strategy<Value = String> {
    let piece = prop::sample::select([TEXTS, &["ge-0/1", " ", "\n", "X", "3", "link is down", "ſ", "zz"]].concat());
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

fn rule() -> impl Strategy<Value = Rule> {
    let criteria = (
        prop::option::of(prop::sample::select(TEXTS)),
        prop::sample::select(PATTERNS),
        prop::option::weighted(0.3, prop::sample::select(OIDS)),
        prop::sample::select(MatchType::ALL.to_vec()),
    );
    let order = (-2i32..4, 0i64..6, prop::bool::weighted(0.9), prop::option::weighted(0.3, 0u8..8));
    (criteria, order).prop_map(|((text, pattern, oid, match_type), (priority, id, is_active, syslog_severity))| {
        let text = if match_type == MatchType::Regex { Some(pattern) } else { text };
        let draft = RuleDraft {
            match_string: text.map(str::to_owned),
            trap_oid: oid.map(str::to_owned),
            syslog_severity,
            match_type,
            priority,
            prod_handling: Handling::new("Ticket_only"),
            dev_handling: Handling::new("Ignore"),
            team_assignment: "NOC".to_owned(),
            is_active,
        };
        Rule { id, draft }
    })
}

/// Rules with ids of their own.
fn catalog(most: usize) -> impl Strategy<Value = Vec<Rule>> {
    prop::collection::vec(rule(), 0..most).prop_map(|mut rules| {
        for (offset, rule) in (0..).zip(&mut rules) {
            rule.id = rule.id * 1_000 + offset;
        }
        rules
    })
}

fn agree(rules: Vec<Rule>, events: &[(String, Option<Severity>, Option<&str>)]) -> Result<(), TestCaseError> {
    let (set, problems) = RuleSet::compile(rules.clone());
    let bad: Vec<_> = problems.iter().map(|problem| problem.id).collect();
    let good: Vec<Rule> = rules.into_iter().filter(|rule| !bad.contains(&rule.id)).collect();
    prop_assert_eq!(set.len(), good.iter().filter(|rule| rule.draft.is_active).count());
    for (message, severity, trap_oid) in events {
        let subject = Subject { message, severity: *severity, trap_oid: *trap_oid };
        let expected = naive(&good, &subject).map(|rule| rule.id);
        prop_assert_eq!(set.first_match(&subject).map(|rule| rule.id), expected, "{:?}", subject);
        let explanation = set.explain(&subject);
        prop_assert_eq!(explanation.winner, expected, "{}", explanation);
        prop_assert_eq!(explanation.steps.iter().filter(|step| step.hit).count(), usize::from(expected.is_some()));
    }
    Ok(())
}

fn events() -> impl Strategy<Value = Vec<(String, Option<Severity>, Option<&'static str>)>> {
    let severity = prop::option::of(prop::sample::select(Severity::ALL.to_vec()));
    let event = (message(), severity, prop::option::weighted(0.4, prop::sample::select(EVENT_OIDS)));
    prop::collection::vec(event, 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn the_index_and_the_contract_agree_on_few_rules(rules in catalog(6), events in events()) {
        agree(rules, &events)?;
    }

    #[test]
    fn one_rule_agrees_with_the_contract(rule in rule(), events in events()) {
        agree(vec![rule], &events)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_index_and_the_contract_agree_on_many_rules(rules in catalog(60), events in events()) {
        agree(rules, &events)?;
    }
}

fn draft(match_type: MatchType, text: Option<&str>, oid: Option<&str>) -> RuleDraft {
    RuleDraft {
        match_string: text.map(str::to_owned),
        trap_oid: oid.map(str::to_owned),
        syslog_severity: None,
        match_type,
        priority: 100,
        prod_handling: Handling::new("Page_only"),
        dev_handling: Handling::new("Ignore"),
        team_assignment: "NOC".to_owned(),
        is_active: true,
    }
}

fn set(drafts: Vec<RuleDraft>) -> RuleSet {
    let (set, problems) = RuleSet::compile((1..).zip(drafts).map(|(id, draft)| Rule { id, draft }).collect());
    assert!(problems.is_empty(), "{problems:?}");
    set
}

fn winner(set: &RuleSet, message: &str, trap_oid: Option<&str>) -> Option<i64> {
    set.first_match(&Subject { message, severity: None, trap_oid }).map(|rule| rule.id)
}

#[test]
fn an_oid_rule_does_not_match_a_longer_number() {
    let set = set(vec![draft(MatchType::OidPrefix, None, Some(".1.3.6.1.4.1.9"))]);
    assert_eq!(winner(&set, "", Some("1.3.6.1.4.1.9")), Some(1));
    assert_eq!(winner(&set, "", Some(".1.3.6.1.4.1.9.9.41")), Some(1));
    assert_eq!(winner(&set, "", Some("1.3.6.1.4.1.99")), None);
}

#[test]
fn a_text_is_not_tried_when_both_have_an_oid() {
    let set = set(vec![
        draft(MatchType::OidPrefix, Some("down"), Some("1.3.6")),
        draft(MatchType::Contains, Some("down"), Some("1.3.6")),
        draft(MatchType::Contains, Some("down"), None),
    ]);
    assert_eq!(winner(&set, "link down", Some("1.4")), Some(3));
    assert_eq!(winner(&set, "link down", None), Some(2));
    assert_eq!(winner(&set, "link down", Some("1.3.6.1")), Some(1));
}

#[test]
fn severity_is_ignored_by_oid_rules_and_exact_elsewhere() {
    let mut by_oid = draft(MatchType::OidPrefix, None, Some("1.3.6"));
    by_oid.syslog_severity = Some(0);
    let mut by_text = draft(MatchType::Contains, Some("down"), None);
    by_text.syslog_severity = Some(3);
    let set = set(vec![by_oid, by_text]);
    let ask =
        |severity, trap_oid| set.first_match(&Subject { message: "down", severity, trap_oid }).map(|rule| rule.id);
    assert_eq!(ask(Severity::parse("debug"), Some("1.3.6")), Some(1));
    assert_eq!(ask(Severity::parse("err"), None), Some(2));
    assert_eq!(ask(Severity::parse("3"), None), Some(2));
    assert_eq!(ask(Severity::parse("crit"), None), None);
    assert_eq!(ask(None, None), None);
}

#[test]
fn lower_priority_numbers_win_and_then_lower_ids() {
    let mut rules = Vec::new();
    for (id, priority) in [(9, 5), (3, 5), (1, 50)] {
        let draft = RuleDraft { priority, ..draft(MatchType::Contains, Some("x"), None) };
        rules.push(Rule { id, draft });
    }
    let (set, _) = RuleSet::compile(rules);
    assert_eq!(winner(&set, "x", None), Some(3));
    assert_eq!(set.rules().iter().map(|rule| rule.id).collect::<Vec<_>>(), [3, 9, 1]);
}

#[test]
fn a_bad_rule_is_reported_and_stops_no_other() {
    let rules = vec![
        Rule { id: 1, draft: draft(MatchType::Regex, Some("(?=x)"), None) },
        Rule { id: 2, draft: draft(MatchType::OidPrefix, None, Some("IF-MIB::linkDown")) },
        Rule { id: 3, draft: RuleDraft { syslog_severity: Some(9), ..draft(MatchType::Contains, Some("x"), None) } },
        Rule { id: 4, draft: draft(MatchType::Contains, None, Some("1.3")) },
        Rule { id: 5, draft: RuleDraft { is_active: false, ..draft(MatchType::Regex, Some("("), None) } },
        Rule { id: 6, draft: draft(MatchType::Contains, Some("x"), None) },
    ];
    let (set, problems) = RuleSet::compile(rules);
    let reported: Vec<_> = problems.iter().map(|problem| (problem.id, problem.field)).collect();
    assert_eq!(reported, [(1, "match_string"), (2, "trap_oid"), (3, "syslog_severity"), (4, "match_type")]);
    assert_eq!(winner(&set, "X", None), Some(6));
    assert_eq!(set.len(), 1);
    assert!(!set.is_empty());
    assert!(
        problems[0].to_string().starts_with("rule 1 is not used: match_string: look-around (character 1)"),
        "{}",
        problems[0]
    );
}

#[test]
fn the_explanation_ends_at_the_winner_and_says_why() {
    let mut strict = draft(MatchType::Contains, Some("link"), None);
    strict.syslog_severity = Some(2);
    let set = set(vec![
        strict,
        draft(MatchType::OidPrefix, None, Some("1.3.6")),
        draft(MatchType::Contains, Some("link"), Some("1.3")),
        draft(MatchType::Regex, Some("link .*down"), None),
        draft(MatchType::Contains, Some("link"), None),
    ]);
    let subject = Subject { message: "Link is down\u{1b}", severity: Some(Severity::Error), trap_oid: Some("1.3.7") };
    assert_eq!(
        set.explain(&subject).to_string(),
        r#"rule 1 (priority 100): no match: the severity is crit (2)? no, it is err (3)
rule 2 (priority 100): no match: the trap OID is 1.3.6 or lies below it? no, it is "1.3.7"
rule 3 (priority 100): no match: the trap OID is absent? no, it is "1.3.7"
rule 4 (priority 100): match: the message matches the regular expression /link .*down/? yes, it is "Link is down\u{1b}"
rule 4 wins"#
    );
    let nothing = Subject { message: "all quiet", ..Subject::default() };
    assert!(set.explain(&nothing).to_string().ends_with("no rule matches: the event counts as unhandled"));
}
