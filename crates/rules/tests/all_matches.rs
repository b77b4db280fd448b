//! The streaming engine against the reference: every rule asked of every event, nothing skipped.

#![expect(clippy::unwrap_used, reason = "tests: a failure is a panic")]

use model::{EventSource, Fields};
use proptest::prelude::*;
use rules::operators::compare::Order;
use rules::operators::pattern::Flags;
use rules::operators::{Operator, cidr, compare, contains, pattern, text};
use rules::sigma::LogSource;
use rules::stream::{Engine, Scratch};
use rules::{Field, FieldsView, Predicate, Relation};

const NAMES: &[&str] = &["Image", "CommandLine", "a.b", "EventID", "src_ip", "message"];
const TEXTS: &[&str] = &[
    "",
    "a",
    "cmd",
    "CMD.exe",
    "\\cmd.exe",
    "powershell",
    "-enc",
    "é",
    "ÉTÉ",
    "ß",
    "SS",
    "\u{212A}ernel",
    "kernel",
    "ſession",
    "session",
    "İ",
    "i",
    "Σ",
    "ς",
    "σ",
    "10.0.0.1",
    "10.1.2.3",
    "4688",
    "4688.0",
    "007",
    "12",
    "%",
    "_",
    "a*b",
    "\\",
    "\\\\",
    "C:\\Windows\\System32\\cmd.exe /c whoami",
    "null",
    "x\ny",
];
const PATTERNS: &[&str] = &[
    "cmd", "*", "*cmd*", "cmd*", "*.exe", "?md*", "*c?d*", r"a\*b", "*ß*", "*É*", "ÉTÉ", "*ke*", "*s*i*", "?", "",
    r"*\\*",
];
const REGEXES: &[&str] = &["cmd", "^c", "k", "s", "[0-9]+", r"\d{2}", r"(?:cmd|power)\w*", "e$", "é", "kernel|session"];

fn operator() -> impl Strategy<Value = Operator> {
    let texts = (prop::sample::select(PATTERNS), any::<bool>())
        .prop_map(|(written, cased)| Operator::Text(text::compile(text::parse(written), cased)));
    let regexes = (prop::sample::select(REGEXES), any::<bool>()).prop_map(|(written, ignore_case)| {
        Operator::Pattern(pattern::compile(written, Flags { ignore_case, ..Flags::default() }).unwrap())
    });
    let nets = prop::sample::select(vec!["10.0.0.0/8", "10.1.0.0/16", "::/0"])
        .prop_map(|network| Operator::Cidr(cidr::compile(network).unwrap()));
    let numbers = (prop::sample::select(vec![Order::Less, Order::GreaterOrEqual, Order::Equal]), -5_i32..5_000)
        .prop_map(|(order, number)| Operator::Compare(compare::compile(order, &number.to_string()).unwrap()));
    let of_mutt =
        prop::sample::select(vec!["cmd", "ss", "k"]).prop_map(|t| Operator::Contains(contains::compile(t).unwrap()));
    prop_oneof![6 => texts, 3 => regexes, 1 => nets, 1 => numbers, 1 => of_mutt]
}

fn predicate() -> impl Strategy<Value = Predicate> {
    let name = || prop::sample::select(NAMES).prop_map(Box::<str>::from);
    let relations = vec![Relation::Equals, Relation::StartsWith, Relation::EndsWith, Relation::Contains];
    let leaf = prop_oneof![
        8 => (name(), operator()).prop_map(|(name, operator)| Predicate::Test(Field::Named(name), operator)),
        1 => operator().prop_map(|operator| Predicate::Test(Field::Message, operator)),
        2 => operator().prop_map(Predicate::AnyField),
        1 => name().prop_map(Predicate::Exists),
        1 => name().prop_map(Predicate::Null),
        1 => name().prop_map(|name| Predicate::Present(Field::Named(name))),
        1 => (name(), prop::sample::select(relations), name(), any::<bool>())
            .prop_map(|(field, relation, other, cased)| Predicate::Related { field, relation, other, cased }),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(Predicate::All),
            prop::collection::vec(inner.clone(), 1..4).prop_map(Predicate::Any),
            inner.prop_map(|part| Predicate::Not(Box::new(part))),
        ]
    })
}

fn source() -> impl Strategy<Value = LogSource> {
    let part = |words: Vec<&'static str>| prop::option::of(prop::sample::select(words).prop_map(str::to_owned));
    (part(vec!["windows", "linux"]), part(vec!["process_creation", "file_event"]), part(vec!["security", "sysmon"]))
        .prop_map(|(product, category, service)| LogSource { product, category, service })
}

fn event() -> impl Strategy<Value = Fields<'static>> {
    let leaf = (prop::sample::select(NAMES), prop::option::weighted(0.9, prop::sample::select(TEXTS)));
    let list = |words: Vec<&'static str>| {
        prop::option::of(prop::sample::subsequence(words, 0..=2).prop_map(|w| w.into_iter().map(Into::into).collect()))
    };
    let source = (
        prop::option::of(prop::sample::select(vec!["windows", "linux", "Windows"])),
        list(vec!["process_creation", "file_event"]),
        list(vec!["security", "sysmon"]),
    );
    (source, prop::collection::vec(leaf, 0..8)).prop_map(|((product, categories, services), leaves)| {
        let mut fields = Fields::new(EventSource { product: product.map(Into::into), categories, services });
        for (name, value) in leaves {
            match value {
                Some(value) => fields.push(name, value),
                None => fields.push_null(name),
            }
        }
        fields
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_answers_as_the_reference(
        rules in prop::collection::vec((source(), predicate()), 1..24),
        events in prop::collection::vec(event(), 1..12),
    ) {
        let engine = Engine::compile(rules.iter().map(|(source, predicate)| (source, predicate)));
        let mut scratch = Scratch::default();
        for event in &events {
            let mut hits = Vec::new();
            engine.matches(event, &mut scratch, &mut hits);
            let expected: Vec<u32> = (0..)
                .zip(&rules)
                .filter(|(_, (source, predicate))| source.admits(&event.source) && predicate.matches(&FieldsView(event)))
                .map(|(number, _)| number)
                .collect();
            prop_assert_eq!(hits, expected, "{:?}\n{:?}", event, rules);
        }
    }
}

#[test]
fn a_scratch_that_served_another_engine_starts_anew() {
    let source = LogSource { product: Some("linux".into()), ..LogSource::default() };
    let is = |value: &str| {
        Predicate::Test(Field::Named("a".into()), Operator::Text(text::compile(text::parse(value), false)))
    };
    let (one, two) = (is("x"), is("y"));
    let mut scratch = Scratch::default();
    let mut event = Fields::default();
    event.push("a", "y");
    for (predicate, expected) in [(&one, 0), (&two, 1), (&one, 0)] {
        let engine = Engine::compile([(&source, predicate)]);
        let mut hits = Vec::new();
        engine.matches(&event, &mut scratch, &mut hits);
        assert_eq!(hits.len(), expected);
    }
}
