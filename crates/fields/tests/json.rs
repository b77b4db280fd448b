//! Flattening is what `model::Fields` says, and the reader accepts what JSON is.

use fields::{DEPTH_MAX, FieldsError, LEAVES_MAX, NAME_MAX, from_event, from_json, from_json_bytes};
use model::{Fields, number_text};
use proptest::prelude::*;
use serde_json::Value;

type Leaves = Vec<(String, Option<String>)>;

fn leaves(fields: &Fields<'_>) -> Leaves {
    fields.leaves().iter().map(|l| (l.name.to_string(), l.value.as_deref().map(str::to_owned))).collect()
}

fn read(text: &str) -> Result<Leaves, FieldsError> {
    let mut fields = Fields::default();
    from_json(text, &mut fields)?;
    Ok(leaves(&fields))
}

/// The same from a tree, in the plainest way.
fn naive(name: &str, value: &Value, out: &mut Leaves) {
    match value {
        Value::Null => out.push((name.to_owned(), None)),
        Value::Bool(truth) => out.push((name.to_owned(), Some(truth.to_string()))),
        Value::Number(number) => out.push((name.to_owned(), Some(number_text(&number.to_string()).into_owned()))),
        Value::String(text) => out.push((name.to_owned(), Some(text.clone()))),
        Value::Array(items) if items.is_empty() => out.push((name.to_owned(), None)),
        Value::Array(items) => items.iter().for_each(|item| naive(name, item, out)),
        Value::Object(members) if members.is_empty() => out.push((name.to_owned(), None)),
        Value::Object(members) => members.iter().for_each(|(key, value)| naive(&format!("{name}.{key}"), value, out)),
    }
}

#[test]
fn values_become_texts_and_nesting_becomes_dots() {
    let text =
        r#" {"a":1,"b":{"c":true,"d":[1.50,{"e":null},[2,[3]]]},"f":[],"g":{},"h.i":"x\ny","j":-0.0,"k":1e400} "#;
    let expected: Vec<(&str, Option<&str>)> = vec![
        ("a", Some("1")),
        ("b.c", Some("true")),
        ("b.d", Some("1.5")),
        ("b.d.e", None),
        ("b.d", Some("2")),
        ("b.d", Some("3")),
        ("f", None),
        ("g", None),
        ("h.i", Some("x\ny")),
        ("j", Some("0")),
        ("k", Some("1e400")),
    ];
    let found = read(text).unwrap();
    let found: Vec<(&str, Option<&str>)> = found.iter().map(|(name, value)| (&**name, value.as_deref())).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_byte_order_mark_is_passed_over() {
    assert_eq!(read("\u{feff}{\"a\":1}").unwrap(), read("{\"a\":1}").unwrap());
}

#[test]
fn what_is_no_object_is_refused() {
    for text in
        ["", "[]", "1", "null", "\"a\"", "{", "{\"a\":1", "{\"a\":1}x", "{\"a\":1,}", "{\"a\":}", "{a:1}", "{\"a\":01}"]
    {
        assert!(read(text).is_err(), "{text}");
    }
    assert_eq!(from_json_bytes(b"{\"\xff\":1}", &mut Fields::default()), Err(FieldsError::NotUtf8 { at: 2 }));
}

#[test]
fn a_bound_that_is_passed_is_named_for_files_and_left_out_for_the_pipeline() {
    let deep = |levels: usize| format!("{{\"a\":{}1{}}}", "[".repeat(levels), "]".repeat(levels));
    let many = |count: usize| format!("{{\"a\":[{}]}}", vec!["1"; count].join(","));
    let long = |length: usize| format!("{{\"{}\":1}}", "x".repeat(length));
    let nested = |length: usize| format!("{{\"{}\":{{\"b\":1}}}}", "x".repeat(length));
    for (fits, over, error) in [
        (deep(DEPTH_MAX - 1), deep(DEPTH_MAX), FieldsError::TooDeep { max: DEPTH_MAX }),
        (many(LEAVES_MAX), many(LEAVES_MAX + 1), FieldsError::TooMany { max: LEAVES_MAX }),
        (long(NAME_MAX), long(NAME_MAX + 1), FieldsError::NameTooLong { max: NAME_MAX }),
        (nested(NAME_MAX - 2), nested(NAME_MAX - 1), FieldsError::NameTooLong { max: NAME_MAX }),
        (nested(NAME_MAX - 2), nested(NAME_MAX + 7), FieldsError::NameTooLong { max: NAME_MAX }),
    ] {
        assert!(read(&fits).is_ok(), "{error}");
        assert_eq!(read(&over), Err(error.clone()));
        // What else is in the event stays, in front and behind.
        let event = format!("{{\"message\":\"m\",\"x\":{over},\"program\":\"p\"}}");
        let mut fields = Fields::default();
        from_event(&event, &mut fields).unwrap();
        assert_eq!(fields.first("fields_cut"), Some("true"), "{error}");
        assert_eq!(fields.first("message"), Some("m"));
        if !matches!(error, FieldsError::TooMany { .. }) {
            assert_eq!(fields.first("program"), Some("p"), "{error}");
        }
    }
    assert!(read(&format!("{{\"a\":{}", "[".repeat(1_000_000))).is_err());
    assert!(from_event(&format!("{{\"a\":{}", "[".repeat(1_000_000)), &mut Fields::default()).is_err());
}

fn tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e9..1e9).prop_map(|number: f64| Value::from(number)),
        "\\PC{0,12}".prop_map(Value::from),
        "[\"\\\\\n\t\u{1}é😀/a]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map("[a-c.\"\\\\é]{0,3}", inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn object() -> impl Strategy<Value = Value> {
    prop::collection::btree_map("[a-c.\"\\\\é]{0,3}", tree(), 0..6)
        .prop_map(|members| Value::Object(members.into_iter().collect()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn flattening_agrees_with_the_tree(value in object(), pretty in any::<bool>()) {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
        let mut expected = Vec::new();
        for (key, value) in value.as_object().unwrap() {
            naive(key, value, &mut expected);
        }
        prop_assert_eq!(read(&text).unwrap(), expected);
    }

    #[test]
    fn the_reader_accepts_what_another_reader_accepts(
        value in object(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..24), 0..4),
    ) {
        let mut text: Vec<char> = serde_json::to_string(&value).unwrap().chars().collect();
        for (at, what) in edits {
            let at = at.index(text.len());
            match "{}[]\",:\\u0e+-.1 \n\ttfx".chars().nth(what) {
                Some(with) if what % 2 == 0 => text[at] = with,
                Some(with) => text.insert(at, with),
                None => { text.remove(at); }
            }
            if text.is_empty() {
                text.push(' ');
            }
        }
        let text: String = text.into_iter().collect();
        let theirs = serde_json::from_str::<serde_json::Map<String, Value>>(&text);
        let ours = read(&text);
        match (&theirs, &ours) {
            (Ok(_), Ok(_)) | (Err(_), Err(_)) => {}
            // Numbers beyond a double pass as written, halves of a pair as U+FFFD.
            (Err(error), Ok(_)) => prop_assert!(
                error.to_string().contains("out of range") || error.to_string().contains("surrogate")
                    || error.to_string().contains("hex escape"),
                "{text}: {error}"
            ),
            (Ok(_), Err(error)) => prop_assert!(false, "{text}: {error}"),
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC*", inner in r#"[\\"u0-9a-f{}\[\]:, EventSysmData#]{0,60}"#) {
        for text in [text, format!("{{{inner}}}"), format!("{{\"Event\":{{\"System\":{{{inner}}}}}}}"),
            format!("{{\"System\":{{\"EventID\":1}},\"EventData\":{{{inner}}}}}")] {
            let _ = (read(&text), from_event(&text, &mut Fields::default()));
        }
    }
}
