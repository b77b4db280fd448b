//! What an author of rules is told: validation, lint, rule files and their tests.

use model::{Handling, MatchType, Rule, RuleDraft};
use rules::lint::WarningKind;
use rules::{file, lint, lint_set, validate};

fn contains(text: &str) -> RuleDraft {
    RuleDraft {
        match_string: Some(text.to_owned()),
        trap_oid: None,
        syslog_severity: None,
        match_type: MatchType::Contains,
        priority: 100,
        prod_handling: Handling::new("Page_and_ticket"),
        dev_handling: Handling::new("ignore"),
        team_assignment: "NOC".to_owned(),
        is_active: true,
    }
}

fn regex(pattern: &str) -> RuleDraft {
    RuleDraft { match_type: MatchType::Regex, ..contains(pattern) }
}

fn oid(oid: &str) -> RuleDraft {
    RuleDraft { match_type: MatchType::OidPrefix, match_string: None, trap_oid: Some(oid.to_owned()), ..contains("") }
}

#[test]
fn all_problems_of_a_rule_are_reported_at_once() {
    let draft = RuleDraft {
        match_string: Some("(".repeat(256)),
        trap_oid: Some("x".to_owned()),
        syslog_severity: Some(8),
        match_type: MatchType::Regex,
        prod_handling: Handling::new(" "),
        dev_handling: Handling::new("x".repeat(101)),
        team_assignment: String::new(),
        ..contains("")
    };
    let fields: Vec<_> = validate(&draft).expect_err("bad").into_iter().map(|problem| problem.field).collect();
    assert_eq!(
        fields,
        [
            "match_string",
            "match_string",
            "trap_oid",
            "syslog_severity",
            "prod_handling",
            "dev_handling",
            "team_assignment"
        ]
    );
}

#[test]
fn each_bad_field_is_named_with_a_sentence() {
    for (draft, field, sentence) in [
        (
            RuleDraft { match_string: None, ..contains("") },
            "match_string",
            "either match_string or trap_oid is required",
        ),
        (contains(""), "match_string", "either match_string or trap_oid is required"),
        (RuleDraft { match_type: MatchType::Contains, ..oid("1.3") }, "match_type", "set match_type to `oid_prefix`"),
        (RuleDraft { match_type: MatchType::OidPrefix, ..contains("x") }, "match_type", "set trap_oid"),
        (oid("1.3.6.x"), "trap_oid", "only numbers and dots"),
        (oid("1..3"), "trap_oid", "two dots"),
        (regex("a(b"), "match_string", "unclosed group (character 2)"),
        (
            regex("a(?!b)"),
            "match_string",
            "look-around (character 2) is not supported, because matching time must be linear",
        ),
        (regex(r"(a)\1"), "match_string", "backreferences"),
        (regex(r"\w{255}\w{255}"), "match_string", "too large"),
        (contains("a\0"), "match_string", "NUL"),
        (contains(&"ß".repeat(256)), "match_string", "256 characters long; at most 255"),
    ] {
        let problems = validate(&draft).expect_err(sentence);
        let found = problems.iter().any(|problem| problem.field == field && problem.message.contains(sentence));
        assert!(found, "{sentence}: {problems:?}");
    }
    for draft in [
        contains(&"ß".repeat(255)),
        regex(".*"),
        regex("(?P<a>x)"),
        oid(".1.3.6.*"),
        RuleDraft { trap_oid: Some("1.3".to_owned()), ..contains("x") },
    ] {
        assert_eq!(validate(&draft), Ok(()), "{draft:?}");
    }
}

#[test]
fn odd_rules_get_a_warning() {
    use WarningKind::*;
    for (draft, expected) in [
        (contains("LINK-DOWN"), vec![]),
        (contains("ab"), vec![ShortText]),
        (contains(" LINK"), vec![OuterWhitespace]),
        (regex(".*"), vec![MatchesEverything]),
        (regex("a?"), vec![MatchesEverything]),
        (regex(r"\d+"), vec![NoLiteral]),
        (regex("link.*down"), vec![]),
        (regex("^$"), vec![NoLiteral]),
        (RuleDraft { syslog_severity: Some(3), ..oid("1.3") }, vec![SeverityIgnored]),
        (RuleDraft { match_string: Some("abc".to_owned()), ..oid("1.3") }, vec![TextIgnored]),
        (RuleDraft { trap_oid: Some("1.3".to_owned()), ..contains("abc") }, vec![OidExcludes]),
        (RuleDraft { prod_handling: Handling::new("Page_and_tickt"), ..contains("abc") }, vec![UnknownHandling]),
        (RuleDraft { dev_handling: Handling::new("escalate"), ..contains("abc") }, vec![UnknownHandling]),
    ] {
        let kinds: Vec<_> = lint(&draft).into_iter().map(|warning| warning.kind).collect();
        assert_eq!(kinds, expected, "{draft:?}");
    }
    let warning = &lint(&RuleDraft { prod_handling: Handling::new("page and tickt"), ..contains("abc") })[0];
    assert_eq!(warning.to_string(), "prod_handling: `page and tickt` alerts nobody; did you mean `Page_and_ticket`?");
}

#[test]
fn rules_that_can_never_match_are_found() {
    use WarningKind::{Duplicate, Shadowed};
    let severe = |code, draft| RuleDraft { syslog_severity: Some(code), ..draft };
    let with_oid = |draft: RuleDraft| RuleDraft { trap_oid: Some("1.3".to_owned()), ..draft };
    for (drafts, expected) in [
        (vec![contains("down"), contains("LINK DOWN")], vec![(Shadowed, 2, 1)]),
        (vec![contains("link down"), contains("down")], vec![]),
        (vec![contains("Down"), contains("dOWN")], vec![(Duplicate, 2, 1)]),
        (vec![severe(3, contains("down")), contains("link down")], vec![]),
        (vec![severe(3, contains("down")), severe(4, contains("link down"))], vec![]),
        (vec![severe(3, contains("down")), severe(3, contains("link down"))], vec![(Shadowed, 2, 1)]),
        (vec![contains("down"), severe(3, contains("link down"))], vec![(Shadowed, 2, 1)]),
        (vec![with_oid(contains("down")), contains("link down")], vec![]),
        (vec![contains("down"), with_oid(contains("link down"))], vec![(Shadowed, 2, 1)]),
        (vec![oid("1.3.6"), oid(".1.3.6.1.*")], vec![(Shadowed, 2, 1)]),
        (vec![oid("1.3.6"), oid("1.3.61")], vec![]),
        (vec![oid("1.3.6"), severe(3, oid(".1.3.6."))], vec![(Duplicate, 2, 1)]),
        (vec![regex("a.*b"), regex("a.*b"), regex("a.*B")], vec![(Duplicate, 2, 1)]),
        (vec![regex(".*"), contains("x"), regex("y+"), oid("1.3")], vec![(Shadowed, 2, 1), (Shadowed, 3, 1)]),
        (vec![contains("down"), RuleDraft { priority: 1, ..contains("link down") }], vec![]),
        (vec![RuleDraft { is_active: false, ..contains("down") }, contains("link down")], vec![]),
        (vec![contains("down"), regex("(")], vec![]),
        (
            vec![contains("zz"), contains("down"), contains("link down"), contains("down")],
            vec![(Shadowed, 3, 2), (Duplicate, 4, 2)],
        ),
    ] {
        let rules: Vec<Rule> = (1..).zip(drafts).map(|(id, draft)| Rule { id, draft }).collect();
        let found: Vec<_> =
            lint_set(&rules).into_iter().map(|warning| (warning.kind, warning.rule, warning.by)).collect();
        assert_eq!(found, expected, "{rules:?}");
    }
}

const GOOD: &str = r#"
rules:
  - name: link down
    match_string: LINK-DOWN
    syslog_severity: err
    priority: 5
    prod_handling: Page_and_ticket
    dev_handling: Ticket_only
    team_assignment: NetOps
    tests:
      match:
        - {message: "%LINK-DOWN: ge-0/0/1", severity: 3}
      no_match:
        - link-down without severity
        - {message: LINK-UP, severity: err}
  - trap_oid: .1.3.6.1.4.1.9
    match_type: oid_prefix
    prod_handling: Page_only
    dev_handling: Ignore
    team_assignment: NetOps
    is_active: false
    tests: {match: [{trap_oid: 1.3.6.1.4.1.9.1}], no_match: [{trap_oid: 1.3.6.1.4.1.99}]}
  - match_string: 1.10
    prod_handling: Page_only
    dev_handling: Ignore
    team_assignment: NetOps
"#;

#[test]
fn a_rule_file_is_read_with_its_defaults() {
    let (rules, problems) = file::parse("core.yaml", GOOD);
    assert_eq!(problems, []);
    let names: Vec<_> = rules.iter().map(|rule| (rule.name.as_str(), rule.line)).collect();
    assert_eq!(names, [("link down", 3), ("rule 2", 16), ("rule 3", 23)]);
    assert_eq!(rules[0].draft.syslog_severity, Some(3));
    assert_eq!((rules[1].draft.priority, rules[1].draft.is_active), (100, false));
    assert_eq!(rules[2].draft.match_string.as_deref(), Some("1.10"));
    assert_eq!(rules[2].draft.match_type, MatchType::Contains);
}

#[test]
fn rule_tests_are_run_and_failures_are_explained() {
    let (mut rules, _) = file::parse("core.yaml", GOOD);
    let results = file::run_tests(&rules);
    assert_eq!(results.len(), 5);
    assert!(results.iter().all(|result| result.passed), "{results:?}");
    rules[0].draft.syslog_severity = Some(4);
    let failed: Vec<_> = file::run_tests(&rules).into_iter().filter(|result| !result.passed).collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(
        failed[0].to_string(),
        "FAILED core.yaml:12: \"link down\" must match: \"%LINK-DOWN: ge-0/0/1\"\n    rule 0 (priority 5): no match: the severity is warning (4)? no, it is err (3)"
    );
}

#[test]
fn a_test_event_that_another_rule_takes_first_says_so() {
    let text = "
rules:
  - {name: wide, match_string: down, prod_handling: log, dev_handling: log, team_assignment: a, priority: 1}
  - {name: narrow, match_string: link down, prod_handling: log, dev_handling: log, team_assignment: a, tests: {match: [link down]}}
";
    let (rules, problems) = file::parse("f", text);
    assert_eq!(problems, []);
    let results = file::run_tests(&rules);
    assert!(results[0].passed);
    assert_eq!(results[0].taken_by.as_deref(), Some("wide"));
}

#[test]
fn one_bad_rule_does_not_stop_the_others_and_each_problem_has_its_line() {
    let text = r#"
rules:
  - name: misspelt
    match_strng: x
    match_string: x
    prod_handling: log
    dev_handling: log
    team_assignment: a
  - just a text
  - name: several
    match_string: "(?=x)"
    match_type: regx
    syslog_severity: eror
    priority: high
    is_active: maybe
    team_assignment: [a]
    prod_handling: log
  - name: pattern
    match_type: regex
    match_string: "(?=x)"
    prod_handling: log
    dev_handling: log
    team_assignment: a
    tests: {matches: [], no_match: [{msg: x}, [1], {message: y, severity: 9}]}
  - {name: good, match_string: x, prod_handling: log, dev_handling: log, team_assignment: a}
tests: []
"#;
    let (rules, problems) = file::parse("core.yaml", text);
    assert_eq!(rules.iter().map(|rule| rule.name.as_str()).collect::<Vec<_>>(), ["good"]);
    let shown: Vec<_> = problems.iter().map(ToString::to_string).collect();
    let expected = [
        "core.yaml:26: tests: unknown field; known are rules",
        "core.yaml:4: \"misspelt\": match_strng: unknown field; did you mean `match_string`?",
        "core.yaml:9: \"rule 2\": expected a rule (a mapping), found a single value",
        "core.yaml:12: \"several\": match_type: `regx` is not a match type; did you mean `regex`?",
        "core.yaml:13: \"several\": syslog_severity: `eror` is not a syslog severity; did you mean `err`?",
        "core.yaml:14: \"several\": priority: `high` is not a whole number",
        "core.yaml:15: \"several\": is_active: `maybe` is neither `true` nor `false`",
        "core.yaml:16: \"several\": team_assignment: expected a single value, found a list",
        "core.yaml:10: \"several\": dev_handling: it must not be empty",
        "core.yaml:24: \"pattern\": matches: unknown field; did you mean `match`?",
        "core.yaml:24: \"pattern\": msg: unknown field; known are message, severity, trap_oid",
        "core.yaml:24: \"pattern\": tests.no_match: expected a message or a mapping with message, severity, trap_oid; found a list",
        "core.yaml:24: \"pattern\": tests.no_match: `9` is not a syslog severity (0 to 7, or emerg, alert, crit, err, warning, notice, info, debug)",
        "core.yaml:20: \"pattern\": match_string: look-around (character 1) is not supported, because matching time must be linear",
    ];
    assert_eq!(shown, expected, "{shown:#?}");
}

#[test]
fn json_is_read_and_other_texts_are_explained() {
    let json = r#"{"rules": [{"match_string": "x", "syslog_severity": 3, "trap_oid": null, "prod_handling": "log", "dev_handling": "log", "team_assignment": "a", "is_active": true}]}"#;
    let (rules, problems) = file::parse("f.json", json);
    assert_eq!((rules.len(), problems.len()), (1, 0), "{problems:?}");
    for (text, part) in [
        ("", "expected a mapping with the key `rules`, found nothing"),
        ("- a", "expected a mapping with the key `rules`, found a list"),
        ("rule: []", "did you mean `rules`?"),
        ("rules: x", "expected a list of rules"),
        ("rules: [", "f:1"),
        ("rules: &a [*a]", "f:"),
        ("rules: []\nrules: []", "f:2"),
    ] {
        let (rules, problems) = file::parse("f", text);
        assert!(rules.is_empty());
        assert!(problems.iter().any(|problem| problem.to_string().contains(part)), "{text}: {problems:?}");
    }
    assert_eq!(file::parse("f", "rules:\n"), (vec![], vec![]));
}
