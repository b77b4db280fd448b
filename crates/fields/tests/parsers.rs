//! Every line of `fixtures/*.txt` gives the fields written under it.
//!
//! Format: `> PROGRAM | TEXT` is a line of a program (`> | TEXT` of an unknown one), `{…}` an event
//! of its own. Under it, indented:
//! * `Name = value`: the field has this value, and no other unless written as well;
//! * `!Name`: the field does not exist;
//! * `@ PRODUCT CATEGORIES SERVICES`: the source; lists with commas, `none` an empty one, `-` unknown.
//!
//! `<TAB>` and `<GS>` stand for the characters.

#![expect(clippy::unwrap_used, reason = "tests: a failure is a panic")]

use fields::from_event;
use model::Fields;
use serde_json::json;
use std::collections::BTreeMap;

struct Case {
    place: String,
    event: String,
    fields: BTreeMap<String, Vec<String>>,
    absent: Vec<String>,
    source: Option<String>,
}

fn cases() -> Vec<Case> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures");
    let mut cases: Vec<Case> = Vec::new();
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for path in files.iter().filter(|path| path.extension().is_some_and(|e| e == "txt")) {
        for (number, line) in std::fs::read_to_string(path).unwrap().lines().enumerate() {
            let place = format!("{}:{}", path.file_name().unwrap().to_string_lossy(), number + 1);
            let line = line.replace("<TAB>", "\t").replace("<GS>", "\u{1d}");
            let event = match line.strip_prefix("> ") {
                Some(text) => {
                    let (program, text) = text.split_once("| ").unwrap_or_else(|| panic!("{place}: no `| `"));
                    let mut event = json!({"hostname": "web1", "message": text, "timestamp": "2026-11-26T01:00:00Z"});
                    if !program.trim().is_empty() {
                        event["program"] = program.trim().into();
                    }
                    Some(event.to_string())
                }
                None => line.starts_with('{').then(|| line.clone()),
            };
            if let Some(event) = event {
                cases.push(Case { place, event, fields: BTreeMap::new(), absent: Vec::new(), source: None });
                continue;
            }
            let Some(expectation) = line.strip_prefix("  ") else {
                assert!(line.is_empty() || line.starts_with('#'), "{place}: `{line}`");
                continue;
            };
            let case = cases.last_mut().unwrap();
            if let Some(source) = expectation.strip_prefix("@ ") {
                case.source = Some(source.to_owned());
            } else if let Some(name) = expectation.strip_prefix('!') {
                case.absent.push(name.to_owned());
            } else {
                let (name, value) = expectation.split_once(" = ").unwrap_or_else(|| panic!("{place}: no ` = `"));
                case.fields.entry(name.to_owned()).or_default().push(value.to_owned());
            }
        }
    }
    cases
}

fn source(fields: &Fields<'_>) -> String {
    let list = |words: &Option<Vec<std::borrow::Cow<'_, str>>>| match words {
        None => "-".to_owned(),
        Some(words) if words.is_empty() => "none".to_owned(),
        Some(words) => words.join(","),
    };
    let source = &fields.source;
    format!("{} {} {}", source.product.as_deref().unwrap_or("-"), list(&source.categories), list(&source.services))
}

#[test]
fn every_recorded_line_gives_its_fields() {
    let mut wrong = String::new();
    let cases = cases();
    for case in &cases {
        let mut fields = Fields::default();
        from_event(&case.event, &mut fields).unwrap();
        for (name, expected) in &case.fields {
            let found: Vec<&str> = fields.values(name).collect();
            if found != *expected {
                wrong += &format!("{}: {name} is {found:?}, not {expected:?}\n", case.place);
            }
        }
        for name in case.absent.iter().filter(|name| fields.exists(name)) {
            wrong += &format!("{}: {name} is there: {:?}\n", case.place, fields.first(name));
        }
        if let Some(expected) = case.source.as_ref().filter(|expected| **expected != source(&fields)) {
            wrong += &format!("{}: source is `{}`, not `{expected}`\n", case.place, source(&fields));
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    assert!(cases.len() > 100, "only {} lines", cases.len());
}

#[test]
fn every_parser_has_lines_of_its_own() {
    let programs: Vec<String> = cases()
        .iter()
        .filter_map(|case| {
            serde_json::from_str::<serde_json::Value>(&case.event).unwrap()["program"].as_str().map(str::to_owned)
        })
        .collect();
    for parser in fields::parsers::ALL.iter().filter(|parser| !parser.programs.is_empty()) {
        let has = programs.iter().any(|program| {
            parser.programs.iter().any(|name| {
                name.eq_ignore_ascii_case(program)
                    || (name.ends_with('/') && program.to_ascii_lowercase().starts_with(name))
            })
        });
        assert!(has, "no line for {}", parser.name);
    }
}

#[test]
fn the_taxonomy_lists_every_parser() {
    let text = include_str!("../../../docs/fields.md");
    for parser in fields::parsers::ALL {
        if let Some(program) = parser.programs.first() {
            let named = format!("`{}`", program.replace('/', "/…"));
            assert!(text.contains(&named) || text.contains(&program.to_uppercase()), "{}: {named}", parser.name);
        }
        for service in parser.services {
            assert!(text.contains(service), "{}: service {service}", parser.name);
        }
    }
}
