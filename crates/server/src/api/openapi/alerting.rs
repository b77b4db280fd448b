//! Schemas of routes, incidents and silences.

use super::schemas::{Schemas, list, object, only, or_null, text, to, truth};
use serde_json::{Value, json};

pub(super) fn routing() -> Schemas {
    let texts = || list(text());
    let policy = object(vec![
        ("channels", texts()),
        ("group", or_null(truth())),
        ("group_by", texts()),
        ("repeat_interval", or_null(text())),
        ("suppress_for", or_null(text())),
        ("resolve_after", or_null(text())),
        ("reopen_within", or_null(text())),
        ("escalate_after", or_null(text())),
        ("escalate_to", or_null(texts())),
    ]);
    vec![
        ("Matcher", matcher()),
        ("RoutePolicy", policy),
        (
            "Route",
            object(vec![
                ("path", text()),
                ("name", text()),
                ("match", to("Matcher")),
                ("continue", truth()),
                ("policy", to("RoutePolicy")),
                ("routes", list(to("Route"))),
            ]),
        ),
        (
            "RouteTree",
            object(vec![
                ("channels", texts()),
                ("root", to("RoutePolicy")),
                ("routes", list(to("Route"))),
                ("notes", texts()),
            ]),
        ),
        ("RouteTest", only(vec![("alert", json!({ "type": "object", "additionalProperties": true }))])),
        (
            "RouteVerdict",
            object(vec![
                ("routes", list(object(vec![("path", text()), ("name", text()), ("policy", to("RoutePolicy"))]))),
                ("receivers", texts()),
                ("incident", or_null(text())),
                ("severity", text()),
            ]),
        ),
    ]
}

/// What a route or a silence is about; texts may have `*` and `?`.
fn matcher() -> Value {
    let texts = || json!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] });
    only(vec![
        ("org?", texts()),
        ("severity?", text()),
        ("team?", texts()),
        ("tag?", texts()),
        ("rule?", texts()),
        ("host?", texts()),
        ("kind?", texts()),
        ("handling?", texts()),
    ])
}
