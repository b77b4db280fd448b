//! Tables of `tests/operators/*.yaml`: what each operator answers, and which arguments it refuses.

use model::Severity;
use rules::operators::{Operator, Value, contains, oid_prefix, regex, severity};
use rules::{RuleError, ir};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    cases: Vec<Case>,
    bad: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    args: String,
    value: String,
    expected: bool,
}

type Compile = fn(&str) -> Result<Operator, RuleError>;
type Ask = fn(&Operator, &str) -> bool;

fn check(table: &str, compile: Compile, ask: Ask) {
    let table: Table = serde_saphyr::from_str(table).expect("table");
    assert!(!table.bad.is_empty());
    for case in table.cases {
        let op = compile(&case.args).unwrap_or_else(|error| panic!("{:?}: {error}", case.args));
        assert_eq!(ask(&op, &case.value), case.expected, "{:?} on {:?}", case.args, case.value);
        assert!(!op.matches(&Value::Absent), "{:?}", case.args);
        assert!(!op.describe().is_empty());
    }
    for args in table.bad {
        match compile(&args) {
            Ok(_) => panic!("{args:?} has to be refused"),
            Err(error) => assert!(!error.to_string().contains('\n'), "one line: {error}"),
        }
    }
}

fn ask_text(op: &Operator, raw: &str) -> bool {
    let mut lower = String::new();
    ir::lower_into(raw, &mut lower);
    assert_eq!(lower, raw.to_lowercase());
    op.matches(&Value::Text { raw, lower: &lower })
}

#[test]
fn contains_answers_as_its_table_says() {
    check(include_str!("operators/contains.yaml"), |args| contains::compile(args).map(Operator::Contains), ask_text);
}

#[test]
fn regex_answers_as_its_table_says() {
    check(include_str!("operators/regex.yaml"), |args| regex::compile(args).map(Operator::Regex), ask_text);
}

#[test]
fn oid_prefix_answers_as_its_table_says() {
    check(
        include_str!("operators/oid_prefix.yaml"),
        |args| oid_prefix::compile(args).map(Operator::OidPrefix),
        |op, oid| op.matches(&Value::Oid(oid)),
    );
}

#[test]
fn severity_answers_as_its_table_says() {
    check(
        include_str!("operators/severity.yaml"),
        |args| severity::compile(args.parse().expect("number")).map(Operator::Severity),
        |op, value| op.matches(&Severity::parse(value).map_or(Value::Absent, Value::Severity)),
    );
}

#[test]
fn unsupported_syntax_is_explained_by_linear_time() {
    for pattern in ["(?=a)", "(?<!a)b", r"(a)\1", "(?P<x>a)(?P=x)", "(?>a)"] {
        let error = regex::compile(pattern).expect_err(pattern).to_string();
        assert!(error.contains("matching time must be linear"), "{pattern}: {error}");
    }
}

#[test]
fn an_error_points_into_the_text_of_the_author() {
    for (pattern, at) in [(r"up\Z[b-a]", 6), ("x{,22}(a", 7), ("[&&](", 5)] {
        let error = regex::compile(pattern).expect_err(pattern).to_string();
        assert!(error.contains(&format!("(character {at})")), "{pattern}: {error}");
    }
    let op = regex::compile(r"x{,2}y\Z").expect("as Python writes it");
    assert_eq!(op.pattern(), r"x{,2}y\Z");
}

#[test]
fn catastrophic_patterns_take_linear_time() {
    let text = "a".repeat(20_000);
    for pattern in [r"(a+)+$b", r"(a|aa)+c", r"(.*)*x", r"^(([a-z])+.)+[A-Z]([a-z])+\d$", r"(\w+\s?)+!"] {
        let op = regex::compile(pattern).expect(pattern);
        // Exponential, or even quadratic times a constant, would not end within the test's patience.
        assert!(!regex::matches(&op, &Value::Text { raw: &text, lower: &text }), "{pattern}");
    }
}
