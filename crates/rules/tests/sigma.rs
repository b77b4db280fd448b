//! Sigma's language, from the specification's text: what a detection matches, and what is refused.

use model::{Fields, Level};
use rules::FieldsView;
use rules::sigma::{Collection, Gravity, Options, Reader};

fn read(text: &str) -> Collection {
    read_with(text, Options::default())
}

fn read_with(text: &str, options: Options) -> Collection {
    let mut reader = Reader::new(options);
    reader.text("rule.yml", text);
    reader.finish()
}

/// A rule with this detection.
fn rule(detection: &str) -> String {
    let detection: String = detection.lines().map(|line| format!("  {line}\n")).collect();
    format!("title: t\nlogsource: {{product: linux}}\ndetection:\n{detection}")
}

/// An event of `name=value` pairs; `name~` is null.
fn event(pairs: &'static [&'static str]) -> Fields<'static> {
    let mut fields = Fields::default();
    for pair in pairs {
        match pair.split_once('=') {
            Some((name, value)) => fields.push(name, value),
            None => fields.push_null(pair.trim_end_matches('~')),
        }
    }
    fields
}

fn matches(detection: &str, pairs: &'static [&'static str]) -> bool {
    let collection = read(&rule(detection));
    assert!(collection.rules.len() == 1, "{detection}: {:?}", collection.problems);
    collection.rules[0].predicate.matches(&FieldsView(&event(pairs)))
}

#[test]
fn detections_match_as_the_specification_says() {
    let table: &[(&str, &'static [&'static str], bool)] = &[
        // Values
        ("s: {f: abc}\ncondition: s", &["f=ABC"], true),
        ("s: {f: abc}\ncondition: s", &["f=abcd"], false),
        ("s: {f: [a, b]}\ncondition: s", &["f=b"], true),
        ("s: {f: a, g: b}\ncondition: s", &["f=a"], false),
        ("s: [{f: a}, {g: b}]\ncondition: s", &["g=b"], true),
        ("s: {f: 4688}\ncondition: s", &["f=4688"], true),
        ("s: {f: 1.0}\ncondition: s", &["f=1"], true),
        ("s: {f: 1.0}\ncondition: s", &["f=1.0"], true),
        ("s: {f: true}\ncondition: s", &["f=true"], true),
        ("s: {f: ''}\ncondition: s", &["f="], true),
        ("s: {f: ''}\ncondition: s", &["g=x"], false),
        ("s: {f: null}\ncondition: s", &["g=x"], true),
        ("s: {f: null}\ncondition: s", &["f~"], true),
        ("s: {f: null}\ncondition: s", &["f="], false),
        ("s: {f: [null, a]}\ncondition: s", &["f=a"], true),
        ("s: {f: 'null'}\ncondition: s", &["g=x"], false),
        ("s: {f: '*'}\ncondition: s", &["f="], true),
        ("s: {f: '*'}\ncondition: s", &["f~"], false),
        (
            r"s: {f: 'C:\*\x?'}
condition: s",
            &[r"f=c:\*\X1"],
            false,
        ),
        (
            r"s: {f: 'C:\\*\x?'}
condition: s",
            &[r"f=c:\windows\X1"],
            true,
        ),
        // Several values of one field
        ("s: {f: a}\ncondition: s", &["f=x", "f=a"], true),
        ("s: {'f|contains|all': [a, b]}\ncondition: s", &["f=xa", "f=xb"], true),
        ("s: {f: x}\ncondition: not s", &["f=x", "f=a"], false),
        // Modifiers
        ("s: {'f|contains': b}\ncondition: s", &["f=aBc"], true),
        ("s: {'f|startswith': a}\ncondition: s", &["f=ABC"], true),
        ("s: {'f|endswith': '\\cmd.exe'}\ncondition: s", &["f=C:\\CMD.EXE"], true),
        ("s: {'f|contains|cased': b}\ncondition: s", &["f=aBc"], false),
        ("s: {'f|cased': aB}\ncondition: s", &["f=aB"], true),
        ("s: {'f|contains|all': [a, b]}\ncondition: s", &["f=ac"], false),
        ("s: {'f|neq': a}\ncondition: s", &["f=b"], true),
        ("s: {'f|neq': [a, b]}\ncondition: s", &["f=b"], false),
        ("s: {'f|neq': a}\ncondition: s", &["g=b"], true),
        ("s: {'f|exists': true}\ncondition: s", &["f~"], true),
        ("s: {'f|exists': true}\ncondition: s", &["g=a"], false),
        ("s: {'f|exists': false}\ncondition: s", &["g=a"], true),
        ("s: {'f|re': '^a.c$'}\ncondition: s", &["f=abc"], true),
        ("s: {'f|re': '^a.c$'}\ncondition: s", &["f=ABC"], false),
        ("s: {'f|re|i': '^a.c$'}\ncondition: s", &["f=ABC"], true),
        ("s: {'f|re|m': '^b'}\ncondition: s", &["f=a\nb"], true),
        ("s: {'f|re|s': 'a.b'}\ncondition: s", &["f=a\nb"], true),
        ("s: {'f|cidr': 10.0.0.0/8}\ncondition: s", &["f=10.9.8.7"], true),
        ("s: {'f|cidr': ['fe80::/10', 10.0.0.0/8]}\ncondition: s", &["f=11.9.8.7"], false),
        ("s: {'f|gt': 5}\ncondition: s", &["f=6"], true),
        ("s: {'f|lte': 5.5}\ncondition: s", &["f=5.5"], true),
        ("s: {'f|lt': 5}\ncondition: s", &["f=abc"], false),
        ("s: {'f|gte': 5}\ncondition: s", &["g=6"], false),
        ("s: {'f|hour': 3}\ncondition: s", &["f=2026-11-26T03:15:00Z"], true),
        ("s: {'f|hour|gte': 4}\ncondition: s", &["f=2026-11-26T03:15:00Z"], false),
        ("s: {'f|fieldref': g}\ncondition: s", &["f=A", "g=a"], true),
        ("s: {'f|fieldref|cased': g}\ncondition: s", &["f=A", "g=a"], false),
        ("s: {'f|fieldref|startswith': g}\ncondition: s", &["f=abc", "g=ab"], true),
        ("s: {'f|fieldref': g}\ncondition: s", &["f=a"], false),
        ("s: {'f|windash|contains': ' -enc '}\ncondition: s", &["f=ps /enc x"], true),
        ("s: {'f|windash|contains': ' -enc '}\ncondition: s", &["f=ps \u{2013}enc x"], true),
        ("s: {'f|base64|contains': foobar}\ncondition: s", &["f=xZm9vYmFyx"], true),
        ("s: {'f|base64offset|contains': /bin/bash}\ncondition: s", &["f=a9iaW4vYmFzaw"], true),
        ("s: {'f|wide|base64offset|contains': Get}\ncondition: s", &["f=xRwBlAHQAx"], true),
        // Keywords
        ("s: [abc, 'd*f']\ncondition: s", &["g=xdEfx"], true),
        ("s: [abc]\ncondition: s", &["g=ab", "h=c"], false),
        ("s: {'|all': [a, b]}\ncondition: s", &["g=a", "h=b"], true),
        ("s: {'|re': 'a[0-9]'}\ncondition: s", &["h=xa7"], true),
        ("s: word\ncondition: s", &["h=some words"], true),
        // Conditions
        ("s: {f: a}\nt: {g: b}\ncondition: s and not t", &["f=a"], true),
        ("s: {f: a}\nt: {g: b}\ncondition: [s, t]", &["g=b"], true),
        ("s_1: {f: a}\ns_2: {g: b}\ncondition: all of s_*", &["g=b"], false),
        ("s_1: {f: a}\n_s: {g: b}\ncondition: 1 of them", &["g=b"], false),
    ];
    for (detection, pairs, expected) in table {
        assert_eq!(matches(detection, pairs), *expected, "{detection}\n{pairs:?}");
    }
}

#[test]
fn what_is_not_supported_is_refused_with_line_and_reason() {
    for (detection, line, said) in [
        ("s: {f: a}", 4, "a condition is required"),
        ("s: {f: a}\ncondition: s | count() > 5", 5, "write a correlation rule"),
        ("s: {f: a}\ntimeframe: 5m\ncondition: s", 5, "timespan"),
        ("s: {f: a}\ncondition: x", 5, "no search identifier `x`"),
        ("s: {'f|contians': a}\ncondition: s", 4, "did you mean `contains`"),
        ("s: {'f|re': '(?=a)'}\ncondition: s", 4, "look-around"),
        ("s: {'f|i': a}\ncondition: s", 4, "`i` is a flag of `re`"),
        ("s: {'f|re|contains|windash': a}\ncondition: s", 4, "does not go with"),
        ("s: {'f|cidr': 10.0.0.1/8}\ncondition: s", 4, "behind its prefix"),
        ("s: {'f|gt': many}\ncondition: s", 4, "not a number"),
        ("s: {'f|exists': maybe}\ncondition: s", 4, "`true` or `false`"),
        ("s: {'|exists': true}\ncondition: s", 4, "keywords have none"),
        ("s: {f: []}\ncondition: s", 4, "no values"),
        ("s: {f: {g: a}}\ncondition: s", 4, "this is a mapping"),
        ("s: {}\ncondition: s", 4, "empty"),
        ("s: {'f|base64': 'a*'}\ncondition: s", 4, "wildcards"),
        ("s: {'f|contains': null}\ncondition: s", 4, "null goes with"),
    ] {
        let collection = read(&rule(detection));
        assert!(collection.rules.is_empty(), "{detection}");
        let problem = collection.problems.iter().find(|problem| problem.gravity == Gravity::Refused).expect(detection);
        assert_eq!(problem.place.line, line, "{detection}: {problem}");
        assert!(problem.to_string().contains(said), "{detection}: {problem}");
    }
}

#[test]
fn one_bad_document_never_stops_the_others_and_lines_are_those_of_the_file() {
    let good = |id: u32| rule("s: {f: a}\ncondition: s").replace("title: t", &format!("title: t\nid: {id}"));
    let text = format!("{}---\ntitle: broken\n---\n{}---\n{}", good(1), good(2), good(1));
    let collection = read(&text);
    let kept: Vec<_> = collection.rules.iter().map(|rule| (rule.header.uid.as_str(), rule.header.place.line)).collect();
    assert_eq!(kept, [("1", 1), ("2", 10)]);
    let said: Vec<String> = collection.problems.iter().map(ToString::to_string).collect();
    assert!(said[0].starts_with("rule.yml:8: ") && said[0].contains("no `detection`"), "{said:?}");
    assert!(said[1].contains("the id `1` is taken by \"t\" in rule.yml:1"), "{said:?}");
    assert_eq!(collection.documents, 4);
}

#[test]
fn headers_are_carried_along_and_slips_in_them_are_said() {
    let text = "title: T\nid: x-1\nlevel: hihg\ntags: [attack.t1110]\nfalsepositives: Admins\nauthro: me\n\
                logsource: {product: Linux, service: sshd}\nfields: [user]\ndetection:\n  s: {f: a}\n  u: {f: b}\n  condition: s\n";
    let collection = read(text);
    let rule = &collection.rules[0];
    assert_eq!(
        (rule.header.uid.as_str(), rule.header.level, &rule.header.tags[..]),
        ("x-1", Level::Medium, &["attack.t1110".to_owned()][..])
    );
    assert_eq!(rule.header.false_positives, ["Admins"]);
    assert_eq!(rule.source.product.as_deref(), Some("linux"));
    let said: Vec<String> = collection.problems.iter().map(ToString::to_string).collect();
    for expected in ["did you mean `high`", "did you mean `author`", "no condition speaks of the search identifier `u`"]
    {
        assert!(said.iter().any(|said| said.contains(expected)), "{expected}: {said:?}");
    }
}

#[test]
fn placeholders_take_their_values_from_the_configuration() {
    let text = rule("s: {'user|expand': '%admins%', 'host|contains|expand': 'srv-%site%'}\ncondition: s");
    let placeholders = [("Admins", vec!["root", "adm*"]), ("site", vec!["a", "b"])]
        .map(|(name, values)| (name.to_owned(), values.into_iter().map(str::to_owned).collect()));
    let collection = read_with(&text, Options { placeholders: placeholders.into() });
    let rule = &collection.rules[0];
    for (pairs, expected) in [
        (&["user=root", "host=my-srv-b-1"] as &'static [&'static str], true),
        (&["user=admin2", "host=srv-a"], true),
        (&["user=bob", "host=srv-a"], false),
        (&["user=root", "host=srv-c"], false),
    ] {
        assert_eq!(rule.predicate.matches(&FieldsView(&event(pairs))), expected, "{pairs:?}");
    }
    let without = read(&text);
    assert!(!without.rules[0].predicate.matches(&FieldsView(&event(&["user=root", "host=srv-a"]))));
    assert!(without.problems[0].to_string().contains("%admins% has no values"), "{:?}", without.problems);
}

#[test]
fn a_filter_is_laid_over_the_rules_it_names() {
    let text = "title: R\nid: r1\nlogsource: {product: linux}\ndetection:\n  s: {f: a}\n  condition: s\n---\n\
                title: F\nlogsource: {product: linux}\nfilter:\n  rules: [r1]\n  admin: {user: root}\n  condition: not admin\n---\n\
                title: G\nlogsource: {product: windows}\nfilter:\n  rules: any\n  x: {f: b}\n  condition: x\n";
    let collection = read(text);
    let rule = &collection.rules[0];
    assert!(rule.predicate.matches(&FieldsView(&event(&["f=a", "user=bob"]))));
    assert!(!rule.predicate.matches(&FieldsView(&event(&["f=a", "user=root"]))));
    assert_eq!(collection.problems.len(), 1);
    assert!(collection.problems[0].to_string().contains("laid over no rule"), "{:?}", collection.problems);
}

#[test]
fn hostile_rule_files_end_quickly_in_a_refusal() {
    let dashes = format!("s: {{'f|windash': '{}'}}\ncondition: s", " -a".repeat(40));
    let ways = (0..30).map(|n| format!("s{n}: {{f: a}}\n")).collect::<String>() + "condition: 15 of s*";
    for detection in [dashes, ways, format!("s: {{f: a}}\ncondition: {}s", "not ".repeat(100_000))] {
        let collection = read(&rule(&detection));
        assert_eq!((collection.rules.len(), collection.problems.len()), (0, 1), "{:.80}", detection);
    }
}

#[test]
fn a_rule_says_in_words_what_it_asks() {
    let mut reader = Reader::new(Options::default());
    reader.text(
        "a.yml",
        "
title: Shell of a web server
logsource: {product: linux, category: process_creation}
detection:
  parent: {ParentImage|endswith: [/nginx, /apache2], User|exists: true}
  admin: {User: root}
  condition: parent and not admin
",
    );
    let rules = reader.finish();
    let rule = &rules.rules[0];
    assert_eq!(rule.source.to_string(), "product linux, category process_creation");
    let words = rules::explain::words(&rule.predicate);
    let said = words.join("\n");
    for part in ["all of", "one of", "ParentImage ends with \"/nginx\"", "User exists", "not: User is \"root\""] {
        assert!(said.contains(part), "{part}:\n{said}");
    }
    assert!(words.iter().any(|line| line.starts_with("    ")), "parts are below their question:\n{said}");
}
