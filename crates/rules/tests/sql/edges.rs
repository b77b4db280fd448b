//! What chance seldom finds: sizes, depths, all characters, and texts that try to leave their quotes.

use super::{ClickHouse, Sqlite, reference};
use model::{EventSource, Fields};
use rules::operators::text::{Part, compile, fold, parse};
use rules::operators::{Operator, pattern, regex};
use rules::sql::{Dialect, SQL_DEPTH_MAX, SqlError, select, where_clause};
use rules::{Field, Predicate, Relation};

fn event(fields: &[(&str, &str)]) -> Fields<'static> {
    let mut event = Fields::new(EventSource::default());
    for (name, value) in fields {
        event.push((*name).to_owned(), (*value).to_owned());
    }
    event
}

fn test(name: &str, operator: Operator) -> Predicate {
    Predicate::Test(Field::Named(name.into()), operator)
}

fn text(name: &str, written: &str) -> Predicate {
    test(name, Operator::Text(compile(parse(written), false)))
}

fn check_both(events: &[Fields<'_>], rules: &[Predicate]) {
    let (sqlite, clickhouse) = (Sqlite::with(events), ClickHouse::with(events));
    for (rule, found) in rules.iter().zip(clickhouse.matching(rules)) {
        let (shown, expected) = (format!("{rule:?}"), reference(rule, events));
        let shown = shown.chars().take(200).collect::<String>();
        assert_eq!(found, expected, "ClickHouse: {shown}");
        assert_eq!(sqlite.matching(rule), expected, "SQLite: {shown}");
    }
}

#[test]
fn no_text_leaves_its_quotes() {
    let mut texts: Vec<String> = [
        "",
        "'",
        "''",
        "\\",
        "\\'",
        "'; DROP TABLE events; --",
        "\\'; DROP TABLE events; --",
        "*/ /* --",
        "{a:String}",
        "?1 :a @a $a",
        "\0",
        "a\0",
        "\0b\0",
        "'\0'",
        "\n'\r\n",
        "\u{1a}\u{7f}\u{1}\t\u{8}\u{b}",
        "\\0\\n\\x41\\u0041\\N",
        "é\u{2028}🦀\u{FFFD}\u{10FFFF}",
        "%_",
        "\u{FF07}\u{2019}",
    ]
    .map(str::to_owned)
    .to_vec();
    texts.push((0..=0x7f_u8).map(char::from).collect());
    texts.push("\0'".repeat(5_000));
    let (sqlite, clickhouse) = (Sqlite::with(&[]), ClickHouse::with(&[]));
    for text in texts {
        let bytes: String = text.bytes().map(|byte| format!("{byte:02X}")).collect();
        for dialect in [Dialect::Sqlite, Dialect::ClickHouse] {
            let literal = dialect.literal(&text);
            assert!(!literal.contains(|c: char| c.is_ascii_control()), "{literal:?}");
            let back = match dialect {
                Dialect::Sqlite => sqlite.hex(&literal),
                Dialect::ClickHouse => clickhouse.hex(&literal),
            };
            assert_eq!(back, bytes, "{dialect} {literal:?}");
        }
    }
}

#[test]
fn every_character_is_folded_alike() {
    // A Kelvin sign is no `k`, an ohm is an omega; nothing depends on the neighbours.
    let all: Vec<char> = (0..=0x10FFFF).filter_map(char::from_u32).collect();
    let blocks = all.chunks(2048).map(|chars| chars.iter().collect::<String>());
    let mut events: Vec<Fields<'_>> = blocks
        .map(|block| {
            let folded = fold(&block);
            event(&[("a", &block), ("folded", &folded)])
        })
        .collect();
    let same = events.len();
    for (a, b) in [("k", "\u{212A}"), ("i", "İ"), ("s", "ſ"), ("ς", "Σ"), ("ss", "ß"), ("é", "e\u{301}")] {
        events.push(event(&[("a", a), ("folded", b)]));
    }
    let related =
        |cased| Predicate::Related { field: "a".into(), relation: Relation::Equals, other: "folded".into(), cased };
    let rules = [related(false), related(true)];
    assert_eq!(reference(&rules[0], &events), (0..same).collect::<Vec<_>>());
    check_both(&events, &rules);
}

#[test]
fn many_texts_are_asked_for() {
    let events = [event(&[("a", "value 2999 of many"), ("b", "x")]), event(&[("a", "value"), ("b", "xx")])];
    let many = |count, pattern: fn(usize) -> String| (0..count).map(|n| text("a", &pattern(n))).collect::<Vec<_>>();
    check_both(
        &events,
        &[
            Predicate::Any(many(3000, |n| format!("*value {n} *"))),
            Predicate::Any(many(3000, |n| format!("value {n} of many"))),
            Predicate::Any(many(300, |n| format!("value*{n}*?many"))),
            Predicate::All(many(1200, |n| format!("*{n}*"))),
            Predicate::Not(Box::new(Predicate::All(many(1200, |n| format!("{n}*"))))),
            Predicate::Any((0..1200).map(|n| text(&format!("field {n}"), "x")).chain([text("b", "x")]).collect()),
            Predicate::Any((0..1200).map(|n| Predicate::Null(format!("field {n}").into())).collect()),
        ],
    );
}

#[test]
fn long_texts_are_asked_for() {
    let long = "Ab".repeat(60_000);
    let events = [
        event(&[("a", &format!("x{long}y"))]),
        event(&[("a", &long.to_lowercase())]),
        event(&[("a", &long)]),
        event(&[("a", &format!("z{long}ax"))]),
        event(&[("a", "ab")]),
    ];
    let mut rules = Vec::new();
    for pattern in [&*long, &format!("*{long}"), &format!("{long}*"), &format!("*{long}*")] {
        rules.push(text("a", pattern));
        rules.push(test("a", Operator::Text(compile(parse(pattern), true))));
    }
    check_both(&events, &rules);

    // As long as ClickHouse takes it, and longer.
    let half = &long[..9_000];
    let fitting = [event(&[("a", &format!("z{half}_{half}xx"))]), event(&[("a", &format!("{half}{half}b"))])];
    check_both(&fitting, &[text("a", &format!("?{half}*{half}?*")), text("a", &format!("*{half}?{half}*x"))]);
    let wild = text("a", &format!("?{long}*x*"));
    assert!(matches!(where_clause(&wild, Dialect::ClickHouse), Err(SqlError::Unsupported { .. })));
    assert_eq!(Sqlite::with(&events).matching(&wild), [3]);
}

#[test]
fn depth_has_an_end_that_both_engines_reach() {
    let nested = |levels: usize| {
        (0..levels).fold(text("a", "x*y?z"), |inner, level| match level % 3 {
            0 => Predicate::Not(Box::new(inner)),
            1 => Predicate::All(vec![text("b", "x"), inner, text("b", "x*")]),
            _ => Predicate::Any(vec![inner, text("b", "y"), Predicate::Exists("c".into())]),
        })
    };
    let events = [event(&[("a", "xyyz"), ("b", "x")]), event(&[("a", "xyz"), ("b", "x")]), event(&[("b", "y")])];
    check_both(&events, &[nested(SQL_DEPTH_MAX), nested(10), nested(0)]);
    for dialect in [Dialect::Sqlite, Dialect::ClickHouse] {
        let refused = where_clause(&nested(SQL_DEPTH_MAX + 1), dialect);
        assert_eq!(refused, Err(SqlError::TooDeep { max: SQL_DEPTH_MAX }));
    }
    // Chains that are nested as deep as they may.
    let wide =
        |inner: Predicate| Predicate::Any((0..200).map(|_| Predicate::Exists("d".into())).chain([inner]).collect());
    let deep = (0..SQL_DEPTH_MAX).fold(Predicate::Exists("a".into()), |inner, _| wide(inner));
    check_both(&events, &[deep]);
}

#[test]
fn the_largest_regular_expressions_are_read() {
    let events = [event(&[("a", &"é_".repeat(600)), ("b", "x")]), event(&[("a", "éa b")]), event(&[("a", "- -")])];
    let of =
        |written: &str| test("a", Operator::Pattern(pattern::compile(written, pattern::Flags::default()).unwrap()));
    let python = |written: &str| test("a", Operator::Regex(regex::compile(written).unwrap()));
    check_both(
        &events,
        &[
            of("^(?:é_){400,500}"),
            of("(?:é_){1000}"),
            of("^(?:[^a]{5}){20}"),
            python(r"^\w{3,8}$"),
            python(r"\W\s\W"),
            of("(?:)"),
        ],
    );
    let refused = [of("(?:é_){1001}"), of("(?:[a-f]{40}){40}"), python(r"\w{20}")];
    for rule in refused {
        assert!(matches!(where_clause(&rule, Dialect::ClickHouse), Err(SqlError::Unsupported { .. })), "{rule:?}");
        assert_eq!(Sqlite::with(&events).matching(&rule), reference(&rule, &events));
    }
}

#[test]
fn what_is_asked_can_be_read() {
    let rule = Predicate::All(vec![
        Predicate::Any(vec![
            text("Image", r"*\powershell.exe"),
            text("Image", r"*\pwsh.exe"),
            text("Image", "pwsh"),
            text("Image", "powershell"),
        ]),
        text("CommandLine", "*100% d'or*"),
        Predicate::Not(Box::new(text("User", "été?*"))),
        Predicate::Not(Box::new(Predicate::Null("ParentImage".into()))),
        test("Port", Operator::Text(compile([Part::Literal("443".into())], true))),
    ]);
    for (dialect, shown) in [
        (Dialect::Sqlite, include_str!("shown.sqlite.sql")),
        (Dialect::ClickHouse, include_str!("shown.clickhouse.sql")),
    ] {
        let sql = select("n", "events", &rule, dialect).unwrap();
        assert!(sql == shown.trim_end(), "\n{sql}\n---\n{shown}");
    }
}
