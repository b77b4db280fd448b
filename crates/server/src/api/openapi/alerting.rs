//! Schemas of routes, incidents and silences.

use super::schemas::{Schemas, anything, at_most, list, object, one_of, only, or_null, paged, text, to, truth, whole};
use serde_json::{Value, json};

pub(super) fn routing() -> Schemas {
    let texts = || list(text());
    let policy = object(vec![
        ("channels", texts()),
        ("group", or_null(truth())),
        ("group_by", texts()),
        ("group_wait", or_null(text())),
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
                ("silenced_by", or_null(whole())),
            ]),
        ),
    ]
}

pub(super) fn incidents() -> Schemas {
    let time = || or_null(text());
    let incident = || {
        vec![
            ("id", whole()),
            ("status", one_of(&["ACTIVE", "ACKNOWLEDGED", "RESOLVED", "DISMISSED"])),
            ("key", text()),
            ("rule_uid", text()),
            ("title", text()),
            ("severity", text()),
            ("team", text()),
            ("host", text()),
            ("first_seen", text()),
            ("last_seen", text()),
            ("last_alert", text()),
            ("alerts", whole()),
            ("told", whole()),
            ("silenced", whole()),
            ("assignee", or_null(text())),
            ("acknowledged_by", or_null(text())),
            ("acknowledged_at", time()),
            ("closed_by", or_null(text())),
            ("closed_at", time()),
            ("comment", or_null(text())),
            ("last_told", time()),
            ("told_at", time()),
            ("resolve_at", time()),
            ("escalate_at", time()),
            ("escalations", whole()),
        ]
    };
    let change = object(vec![
        ("at", text()),
        ("by", text()),
        ("comment", or_null(text())),
        ("before", anything()),
        ("after", anything()),
    ]);
    let mut with_all = incident();
    with_all.extend([("last_alerts", list(to("Alert"))), ("history", list(change))]);
    let silence = object(vec![
        ("id", whole()),
        ("state", one_of(&["to come", "holds", "over"])),
        ("match", to("Matcher")),
        ("from", text()),
        ("until", text()),
        ("author", text()),
        ("reason", text()),
        ("created_at", text()),
        ("ended_at", time()),
    ]);
    vec![
        ("Incident", object(incident())),
        ("IncidentWhole", object(with_all)),
        ("IncidentList", paged("incidents", "Incident")),
        (
            "IncidentAction",
            only(vec![
                ("action", one_of(crate::api::incidents::ACTIONS)),
                ("assignee?", or_null(at_most(100))),
                ("comment?", or_null(at_most(1_000))),
            ]),
        ),
        (
            "IncidentForm",
            object(vec![
                ("action", one_of(&["acknowledge", "take", "resolve", "dismiss", "reopen", "comment"])),
                ("comment?", at_most(1_000)),
            ]),
        ),
        ("Silence", silence),
        ("SilenceList", paged("silences", "Silence")),
        (
            "SilenceDraft",
            only(vec![
                ("match", to("Matcher")),
                ("from?", text()),
                ("until?", text()),
                ("for?", text()),
                ("reason", at_most(1_000)),
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
