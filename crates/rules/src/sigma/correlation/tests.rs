use super::*;
use crate::sigma::{Collection, Gravity, Options, Reader};

/// Rules `a`, `b`, `c`, the filter `f` and the refused rule `broken`.
const RULES: &str = r"
title: Rule A
id: 5638f7c0-ac70-491d-8465-2a65075e0d86
name: a
logsource: {product: linux}
detection: {s: {x: 1}, condition: s}
---
title: Rule B
name: b
logsource: {product: linux}
detection: {s: {x: 2}, condition: s}
---
title: Rule C
name: c
logsource: {product: linux}
detection: {s: {x: 3}, condition: s}
---
title: Filter
name: f
logsource: {product: linux}
filter: {rules: any, s: {y: 1}, condition: not s}
---
title: Broken
name: broken
logsource: {product: linux}
detection: {s: {x: 3}}
";

fn read(documents: &str) -> Collection {
    let mut reader = Reader::new(Options::default());
    reader.text("c.yml", documents);
    reader.text("rules.yml", RULES);
    reader.finish()
}

/// A correlation over `a` with these lines in `correlation`.
fn document(part: &str) -> String {
    format!("title: T\ncorrelation:\n  {}\n", part.trim().replace('\n', "\n  "))
}

fn problems(collection: &Collection, gravity: Gravity) -> Vec<String> {
    let problems =
        collection.problems.iter().filter(|problem| problem.gravity == gravity && &*problem.place.file == "c.yml");
    let text = problems.map(|problem| {
        let suggestion = problem.suggestion.as_ref().map_or(String::new(), |text| format!("; {text}"));
        let field = problem.field.as_deref().unwrap_or("-");
        format!("{} {field}: {}{suggestion}", problem.place.line, problem.message)
    });
    text.collect()
}

fn good(part: &str) -> Correlation {
    let collection = read(&document(part));
    assert_eq!(problems(&collection, Gravity::Refused), Vec::<String>::new(), "{part}");
    collection.correlations[0].clone()
}

fn bounds(correlation: &Correlation) -> Vec<(Op, f64)> {
    match &correlation.condition {
        Condition::Compare(bounds) => bounds.iter().map(|bound| (bound.op, bound.value)).collect(),
        Condition::Rules(_) => panic!("a comparison is expected"),
    }
}

#[test]
fn every_kind_is_read() {
    for (part, kind, expected) in [
        ("type: event_count\nrules: a\ntimespan: 1h\ncondition: {gte: 100}", Kind::EventCount, vec![(Op::Gte, 100.0)]),
        (
            "type: Event_Count\nrules: [a, b]\ntimespan: 1h\ncondition: {gt: 100, lte: 200}",
            Kind::EventCount,
            vec![(Op::Gt, 100.0), (Op::Lte, 200.0)],
        ),
        (
            "type: value_count\nrules: [a]\ntimespan: 1d\ncondition: {field: User, gte: 1e2}",
            Kind::ValueCount,
            vec![(Op::Gte, 100.0)],
        ),
        ("type: temporal\nrules: [a, b, c]\ntimespan: 5m", Kind::Temporal, vec![(Op::Gte, 3.0)]),
        ("type: temporal_ordered\nrules: [a, b]\ntimespan: 5m", Kind::TemporalOrdered, vec![(Op::Gte, 2.0)]),
        (
            "type: value_sum\nrules: [a]\ntimespan: 5m\ncondition: {field: n, gt: 1.5}",
            Kind::ValueSum,
            vec![(Op::Gt, 1.5)],
        ),
        (
            "type: value_avg\nrules: [a]\ntimespan: 5m\ncondition: {field: n, lt: -1}",
            Kind::ValueAvg,
            vec![(Op::Lt, -1.0)],
        ),
        (
            "type: value_percentile\nrules: [a]\ntimespan: 5m\ncondition: {field: n, neq: 1, percentile: 95}",
            Kind::ValuePercentile,
            vec![(Op::Neq, 1.0)],
        ),
        (
            "type: value_median\nrules: [a]\ntimespan: 5m\ncondition: {field: n, eq: 1}",
            Kind::ValueMedian,
            vec![(Op::Eq, 1.0)],
        ),
    ] {
        let correlation = good(part);
        assert_eq!((correlation.kind, bounds(&correlation)), (kind, expected), "{part}");
        assert_eq!(correlation.percentile, if kind == Kind::ValuePercentile { 95 } else { 50 });
    }
}

#[test]
fn timespans_have_the_units_of_the_specification() {
    for (text, seconds) in [
        ("1s", 1),
        ("90m", 5_400),
        ("2h", 7_200),
        ("1d", 86_400),
        ("1w", 604_800),
        ("1M", 2_629_746),
        ("1y", 31_556_952),
    ] {
        let read = good(&format!("type: temporal\nrules: [a, b]\ntimespan: {text}"));
        assert_eq!((read.timespan.micros, &*read.timespan.text), (seconds * 1_000_000, text));
    }
    for (text, message) in [
        ("0s", "a timespan is longer than nothing"),
        ("5", "`5` is no timespan: its unit is missing"),
        ("m", "`m` is no timespan; write a number"),
        ("5min", "`5min` is no timespan: its unit is unknown; did you mean `5m`?"),
        ("5 H", "`5 H` is no timespan: its unit is unknown; did you mean `5h`?"),
        ("1.5h", "`1.5h` is no timespan: its unit is unknown"),
        ("-5m", "`-5m` is no timespan"),
        ("99999999999999999999y", "is longer than ten years"),
        ("400000000s", "is longer than ten years"),
    ] {
        let refused =
            problems(&read(&document(&format!("type: temporal\nrules: [a, b]\ntimespan: {text}"))), Gravity::Refused);
        assert!(refused.len() == 1 && refused[0].contains(message), "{text}: {refused:?}");
        assert!(refused[0].starts_with("5 correlation.timespan: "), "{refused:?}");
    }
}

#[test]
fn what_is_wrong_is_refused_with_line_and_suggestion() {
    let rest = "timespan: 5m\ncondition: {gte: 5}";
    for (part, expected) in [
        ("- x".to_owned(), "3 correlation: a mapping is expected, this is a list"),
        (format!("rules: a\n{rest}"), "3 correlation.type: a type is required; say one of event_count"),
        (
            format!("type: event_cuont\nrules: a\n{rest}"),
            "3 correlation.type: `event_cuont` is no type of correlation; did you mean `event_count`?",
        ),
        (format!("type: temporal_extended\nrules: a\n{rest}"), "write `temporal` with a condition over"),
        (format!("type: near\nrules: a\n{rest}"), "say one of event_count, value_count"),
        (format!("type: event_count\n{rest}"), "3 correlation.rules: a rule to correlate is required"),
        (
            format!("type: event_count\nrules: {{a: b}}\n{rest}"),
            "correlation.rules: a list of single values is expected",
        ),
        (
            format!("type: event_count\nrules: [a, '']\n{rest}"),
            "4 correlation.rules: the name or id of a rule is expected",
        ),
        (
            format!("type: event_count\nrules: a\ngroupby: x\n{rest}"),
            "5 correlation.groupby: a correlation has no such key; did you mean `group-by`?",
        ),
        (
            "type: event_count\nrules: a\ntimeframe: 5m\ncondition: {gte: 5}".to_owned(),
            "5 correlation.timeframe: a correlation has no such key; did you mean `timespan`?",
        ),
        (
            format!("type: event_count\nrules: a\ngroup-by: {{x: y}}\n{rest}"),
            "correlation.group-by: a list of single values",
        ),
        ("type: event_count\nrules: a\ncondition: {gte: 5}".to_owned(), "correlation.timespan: a timespan is required"),
        ("type: event_count\nrules: a\ntimespan: 5m".to_owned(), "correlation.condition: a condition is required"),
        ("type: event_count\nrules: a\ntimespan: 5m\ncondition: a and b".to_owned(), "`event_count` compares a number"),
        (
            "type: event_count\nrules: a\ntimespan: 5m\ncondition: [1]".to_owned(),
            "a mapping or a text is expected, this is a list",
        ),
        (
            "type: event_count\nrules: a\ntimespan: 5m\ncondition: {}".to_owned(),
            "nothing is compared; say one of lt, lte",
        ),
        (
            "type: event_count\nrules: a\ntimespan: 5m\ncondition: {gtw: 5}".to_owned(),
            "correlation.condition.gtw: a condition has no such key; did you mean `gt",
        ),
        (
            "type: event_count\nrules: a\ntimespan: 5m\ncondition: {gte: five}".to_owned(),
            "6 correlation.condition.gte: `five` is no number",
        ),
        ("type: event_count\nrules: a\ntimespan: 5m\ncondition: {gte: 1e16}".to_owned(), "is larger than"),
        ("type: value_count\nrules: a\ntimespan: 5m\ncondition: {gte: 5}".to_owned(), "`value_count` needs the field"),
        (
            "type: value_sum\nrules: a\ntimespan: 5m\ncondition: {gte: 5, field: [x, y]}".to_owned(),
            "calculates with one field",
        ),
        (
            "type: value_percentile\nrules: a\ntimespan: 5m\ncondition: {gte: 5, field: x}".to_owned(),
            "needs a percentile",
        ),
        (
            "type: value_percentile\nrules: a\ntimespan: 5m\ncondition: {gte: 5, field: x, percentile: 101}".to_owned(),
            "`101` is no percentile",
        ),
        (
            format!("type: event_count\nrules: a\naliases: x\n{rest}"),
            "correlation.aliases: a mapping of aliases is expected",
        ),
        (
            format!("type: event_count\nrules: a\naliases: {{x: y}}\n{rest}"),
            "correlation.aliases.x: a mapping of rules to fields",
        ),
        (
            format!("type: event_count\nrules: a\ngroup-by: x\naliases: {{x: {{a: }}}}\n{rest}"),
            "6 correlation.aliases.x.a: the name of a field is expected",
        ),
        (
            format!("type: event_count\nrules: [a, b]\ngroup-by: x\naliases: {{x: {{a: u, bb: v}}}}\n{rest}"),
            "there is no rule `bb`; did you mean",
        ),
        (format!("type: event_count\nrules: a\ngenerate: maybe\n{rest}"), "correlation.generate: `maybe` is neither"),
        (format!("type: event_count\nrules: rule_x\n{rest}"), "4 correlation.rules: there is no rule `rule_x`"),
        (format!("type: event_count\nrules: Rule D\n{rest}"), "there is no rule `Rule D`; did you mean `Rule"),
        (format!("type: event_count\nrules: f\n{rest}"), "`f` is a filter"),
        (format!("type: event_count\nrules: broken\n{rest}"), "the rule `broken` that it refers to was refused"),
        ("type: temporal_ordered\nrules: [a, Rule A]\ntimespan: 5m".to_owned(), "`a` and `Rule A` are one rule"),
        (
            "type: temporal\nrules: [a, b, c]\ntimespan: 5m\ncondition: a and b".to_owned(),
            "the condition does not speak of `c`",
        ),
        (
            "type: temporal\nrules: [a, b]\ntimespan: 5m\ncondition: a and b and c".to_owned(),
            "`c` is not among the rules",
        ),
        ("type: temporal\nrules: [a, b]\ntimespan: 5m\ncondition: a and (b".to_owned(), "a `(` is not closed"),
        ("type: temporal\nrules: [a, b]\ntimespan: 5m\ncondition: a b".to_owned(), "`b` is not expected here"),
        (
            "type: temporal\nrules: [a, b]\ntimespan: 5m\ncondition: a and".to_owned(),
            "ends where the name of a rule is expected",
        ),
        ("type: temporal\nrules: [a, b]\ntimespan: 5m\ncondition: a and not a and b".to_owned(), "can never hold"),
        (
            "type: temporal\nrules: [a, b]\ntimespan: 5m\ncondition: not a and not b".to_owned(),
            "only groups in which nothing happens",
        ),
    ] {
        let refused = problems(&read(&document(&part)), Gravity::Refused);
        assert!(refused.len() == 1 && refused[0].contains(expected), "{part}\n  {refused:?}\n  {expected}");
    }
}

#[test]
fn what_is_odd_is_used_with_a_warning() {
    let rest = "timespan: 5m\ncondition: {gte: 5}";
    for (part, expected) in [
        (format!("type: event_count\nrules: a\ntimeframe: 5m\n{rest}"), "this key is unknown and ignored"),
        (format!("type: event_count\nrules: a\nfield: x\n{rest}"), "write `field` inside `condition`"),
        (
            format!("type: event_count\nrules: [a, b]\ngroup-by: x\naliases: {{x: {{a: u, b: v, c: w}}}}\n{rest}"),
            "`c` is not among the rules",
        ),
        (format!("type: event_count\nrules: a\nhue: red\n{rest}"), "this key is unknown and ignored"),
        (format!("type: event_count\nrules: [a, Rule A]\n{rest}"), "`a` and `Rule A` are one rule"),
        (format!("type: event_count\nrules: a\ngroup-by: [x, x]\n{rest}"), "`x` is listed twice"),
        (
            format!("type: event_count\nrules: a\ngroup-by: [user]\naliases: {{usr: {{a: u}}}}\n{rest}"),
            "nothing uses this alias; did you mean `user`?",
        ),
        (
            format!("type: event_count\nrules: [a, b]\ngroup-by: [x]\naliases: {{x: {{a: u}}}}\n{rest}"),
            "no field is named for `b`",
        ),
        (
            "type: event_count\nrules: a\ntimespan: 5m\ncondition: {gte: 5, field: x}".to_owned(),
            "`event_count` looks at no field; this one is ignored; use `value_count`",
        ),
        (
            "type: value_sum\nrules: a\ntimespan: 5m\ncondition: {gte: 5, field: x, percentile: 1}".to_owned(),
            "`value_sum` has no percentile",
        ),
        ("type: event_count\nrules: a\ntimespan: 5m\ncondition: {lt: 1}".to_owned(), "can never hold"),
        ("type: event_count\nrules: a\ntimespan: 5m\ncondition: {gt: 5, lt: 6}".to_owned(), "can never hold"),
        ("type: event_count\nrules: a\ntimespan: 5m\ncondition: {gte: 1}".to_owned(), "holds for every event"),
        ("type: event_count\nrules: a\ntimespan: 5m\ncondition: {neq: 0}".to_owned(), "holds for every event"),
        ("type: temporal\nrules: [a, b]\ntimespan: 5m\ncondition: {gte: 3}".to_owned(), "can never hold"),
    ] {
        let collection = read(&document(&part));
        assert_eq!((collection.correlations.len(), problems(&collection, Gravity::Refused).len()), (1, 0), "{part}");
        let warned = problems(&collection, Gravity::Warning);
        assert!(warned.len() == 1 && warned[0].contains(expected), "{part}\n  {warned:?}");
    }
    for fine in ["{gte: 2}", "{lt: 2}", "{eq: 3}", "{neq: 1}", "{gt: 1, lte: 2}"] {
        let collection = read(&document(&format!("type: event_count\nrules: a\ntimespan: 5m\ncondition: {fine}")));
        assert_eq!(problems(&collection, Gravity::Warning), Vec::<String>::new(), "{fine}");
    }
}

#[test]
fn aliases_give_each_input_its_own_fields() {
    let correlation = good(
        "type: value_count\nrules: [a, Rule B]\ngroup-by: [internal_ip, user]\ntimespan: 10s\naliases:\n  internal_ip: {5638f7c0-ac70-491d-8465-2a65075e0d86: destination.ip, b: source.ip}\n  what: {a: x, b: y}\ncondition: {field: what, gte: 5}",
    );
    let fields: Vec<_> = correlation
        .inputs
        .iter()
        .map(|input| (&*input.name, input.group_fields.join(" "), input.value_fields.join(" ")))
        .collect();
    assert_eq!(
        fields,
        [
            ("a", "destination.ip user".to_owned(), "x".to_owned()),
            ("Rule B", "source.ip user".to_owned(), "y".to_owned())
        ]
    );
    assert_eq!(correlation.inputs[1].target, Target::Rule(1));
}

#[test]
fn temporal_conditions_combine_rules() {
    let correlation = good("type: temporal\ntimespan: 5m\ncondition: a AND (b OR NOT c)");
    assert_eq!(correlation.inputs.iter().map(|input| &*input.name).collect::<Vec<_>>(), ["a", "b", "c"]);
    let Condition::Rules(expr) = &correlation.condition else { panic!("an expression is expected") };
    for (inputs, holds) in [(0b001, true), (0b101, false), (0b111, true), (0b010, false), (0b000, false)] {
        assert_eq!(expr.holds(inputs), holds, "{inputs:03b}");
        let terms = expr.terms().unwrap();
        let through_terms = terms.iter().any(|term| inputs & term.present == term.present && inputs & term.absent == 0);
        assert_eq!(through_terms, holds, "{inputs:03b}");
    }
    assert!(correlation.closing());
    assert!(!good("type: temporal\nrules: [a, b]\ntimespan: 5m\ncondition: a or b").closing());
    assert!(!good("type: event_count\nrules: [a]\ntimespan: 5m\ncondition: {gt: 2}").closing());
    assert!(good("type: event_count\nrules: [a]\ntimespan: 5m\ncondition: {gt: 2, lt: 9}").closing());
}

#[test]
fn correlations_of_correlations_are_resolved_across_documents() {
    let count = |name: &str, over: &str| {
        format!(
            "title: {name} title\nname: {name}\ncorrelation: {{type: event_count, rules: [{over}], timespan: 1m, condition: {{gte: 2}}}}\n---\n"
        )
    };
    let collection = read(
        &[count("top", "middle, a"), count("bad", "nothing"), count("on_bad", "bad"), count("middle", "b")].concat(),
    );
    let targets: Vec<_> = collection.correlations.iter().map(|c| (&*c.header.title, c.inputs[0].target)).collect();
    assert_eq!(targets, [("top title", Target::Correlation(1)), ("middle title", Target::Rule(1))]);
    let refused = problems(&collection, Gravity::Refused);
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(refused[0].contains("there is no rule `nothing`"), "{refused:?}");
    assert!(refused[1].contains("the correlation \"bad title\" that it refers to was refused"), "{refused:?}");

    let collection = read(&[count("x", "y"), count("y", "x"), count("z", "z"), count("over", "x")].concat());
    assert_eq!(collection.correlations.len(), 0);
    assert!(problems(&collection, Gravity::Refused).iter().all(|text| text.contains("lead in a circle")));

    let tall: String = (0..12)
        .rev()
        .map(|i| count(&format!("n{i}"), &if i == 0 { "a".to_owned() } else { format!("n{}", i - 1) }))
        .collect();
    let collection = read(&tall);
    assert_eq!(collection.correlations.len(), CHAIN_MAX);
    assert_eq!(problems(&collection, Gravity::Refused).len(), 4);
}

#[test]
fn rules_of_correlations_are_silent_unless_one_generates() {
    let over = |rules: &str, more: &str| {
        format!(
            "title: {rules} {}\ncorrelation: {{type: event_count, rules: [{rules}], timespan: 1m, condition: {{gte: 2}}}}\n{more}\n---\n",
            more.len()
        )
    };
    let collection = read(&[over("a", ""), over("b", ""), over("b", "generate: true")].concat());
    assert_eq!(collection.rules_that_alert(), [false, true, true]);
    assert_eq!(collection.correlations_that_alert(), [true; 3]);
    assert!(good("type: event_count\nrules: a\ntimespan: 1m\ncondition: {gte: 2}\ngenerate: true").generate);
}

#[test]
fn a_name_that_two_rules_have_is_not_guessed() {
    let twice = "title: Rule A\nname: other\nlogsource: {product: linux}\ndetection: {s: {x: 1}, condition: s}\n---\n";
    let document =
        format!("{twice}{}", document("type: event_count\nrules: Rule A\ntimespan: 1m\ncondition: {gte: 2}"));
    let refused = problems(&read(&document), Gravity::Refused);
    assert!(refused.len() == 1 && refused[0].contains("`Rule A` is what several rules are called"), "{refused:?}");
}

#[test]
fn descriptions_are_sentences() {
    for (part, expected) in [
        (
            "type: event_count\nrules: a\ngroup-by: SourceIp\ntimespan: 5m\ncondition: {gte: 5}",
            "5 or more events of a within 5m, by SourceIp",
        ),
        (
            "type: event_count\nrules: [a, b, c]\ntimespan: 1h\ncondition: {gt: 100, lte: 200}",
            "more than 100 and at most 200 events of a, b or c within 1h; known when that time is over",
        ),
        (
            "type: value_count\nrules: [a, b]\ngroup-by: [x, y]\ntimespan: 1d\ncondition: {field: User, gt: 2}",
            "more than 2 different values of User in events of a or b within 1d, by x and y",
        ),
        (
            "type: value_count\nrules: a\ntimespan: 1d\ncondition: {field: [u, v], eq: 2}",
            "exactly 2 different combinations of u and v in events of a within 1d; known when that time is over",
        ),
        ("type: temporal\nrules: [a, b, c]\ntimespan: 5m", "events of a, b and c within 5m"),
        (
            "type: temporal\nrules: [a, b, c]\ntimespan: 5m\ncondition: {gte: 2}",
            "events of 2 or more of a, b and c within 5m",
        ),
        ("type: temporal_ordered\nrules: [b, a]\ntimespan: 5m", "events of b and a, in this order, within 5m"),
        (
            "type: temporal\nrules: [a, b, c]\ntimespan: 5m\ncondition: a and not (b or c)",
            "a and no (b or c) within 5m; known when that time is over",
        ),
        (
            "type: value_percentile\nrules: a\ntimespan: 5m\ncondition: {field: n, gte: 1.5, percentile: 95}",
            "the percentile 95 of n in events of a is at least 1.5 within 5m",
        ),
        (
            "type: value_sum\nrules: a\ntimespan: 5m\ncondition: {field: n, gt: 1}",
            "the sum of n in events of a is more than 1 within 5m",
        ),
    ] {
        assert_eq!(good(part).describe(), expected);
    }
}
