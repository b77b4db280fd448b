//! Holds a value against a schema of the OpenAPI document: as much of JSON Schema as the document uses.
//! An object may have no other keys than its schema names, unless that says so.

use serde_json::Value;

/// What is wrong, with where; empty when nothing is.
pub fn problems(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(document, schema, value, "", &mut found);
    found
}

fn check(document: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let keywords = schema.as_object().expect("a schema is an object");
    for (keyword, argument) in keywords {
        match keyword.as_str() {
            "$ref" => {
                let pointer = argument.as_str().unwrap().trim_start_matches('#');
                let target = document.pointer(pointer).unwrap_or_else(|| panic!("{argument} is not in the document"));
                check(document, target, value, at, found);
            }
            "type" => {
                let kinds: Vec<&str> = match argument {
                    Value::Array(kinds) => kinds.iter().map(|kind| kind.as_str().unwrap()).collect(),
                    kind => vec![kind.as_str().unwrap()],
                };
                if !kinds.iter().any(|kind| is(value, kind)) {
                    found.push(format!("{at}: {value} is not {argument}"));
                }
            }
            "enum" => {
                if !argument.as_array().unwrap().contains(value) {
                    found.push(format!("{at}: {value} is none of {argument}"));
                }
            }
            "anyOf" | "oneOf" => {
                let fits = argument.as_array().unwrap().iter().any(|s| problems(document, s, value).is_empty());
                if !fits {
                    found.push(format!("{at}: {value} fits none of {argument}"));
                }
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(document, argument, item, &format!("{at}/{index}"), found);
                }
            }
            "required" => {
                for name in argument.as_array().unwrap() {
                    if value.is_object() && value.get(name.as_str().unwrap()).is_none() {
                        found.push(format!("{at}: {name} is missing"));
                    }
                }
            }
            "properties" => {
                for (name, inner) in value.as_object().into_iter().flatten() {
                    match (argument.get(name), keywords.contains_key("additionalProperties")) {
                        (Some(schema), _) => check(document, schema, inner, &format!("{at}/{name}"), found),
                        (None, true) => {}
                        (None, false) => found.push(format!("{at}: `{name}` is not in the schema")),
                    }
                }
            }
            "additionalProperties" => {
                if argument.is_object() {
                    for (name, inner) in value.as_object().into_iter().flatten() {
                        check(document, argument, inner, &format!("{at}/{name}"), found);
                    }
                }
            }
            // Bounds of what clients send; what we send is held against its type.
            "minimum" | "maximum" | "minLength" | "maxLength" | "minItems" | "maxItems" | "pattern" | "examples" => {}
            other => panic!("the check does not know the keyword {other}"),
        }
    }
}

fn is(value: &Value, kind: &str) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("the check does not know the type {other}"),
    }
}

#[test]
fn the_check_sees_what_does_not_fit() {
    use serde_json::json;
    let document = json!({ "components": { "schemas": { "A": {
        "type": "object", "required": ["a"], "properties": { "a": { "type": ["string", "null"] }, "b": { "type": "array", "items": { "type": "integer" } } },
    } } } });
    let schema = json!({ "$ref": "#/components/schemas/A" });
    for (value, wrong) in [
        (json!({ "a": null }), 0),
        (json!({ "a": "x", "b": [1, 2] }), 0),
        (json!({ "b": [1, "2"] }), 2),
        (json!({ "a": 1 }), 1),
        (json!({ "a": "x", "c": 1 }), 1),
        (json!([]), 1),
    ] {
        assert_eq!(problems(&document, &schema, &value).len(), wrong, "{value}");
    }
}
