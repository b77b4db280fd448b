//! Schemas of detection rules and their documents.

use super::schemas::{Schemas, at_most, list, map, object, one_of, only, or_null, paged, text, to, truth, whole};
use crate::api::detection::{KINDS, LEVELS, SOURCES, STATES};
use serde_json::{Value, json};

pub(super) fn rules() -> Schemas {
    let texts = || list(text());
    let origin = || object(vec![("source", one_of(SOURCES)), ("name", text())]);
    let setting = || {
        vec![("state", or_null(one_of(STATES))), ("level", or_null(one_of(LEVELS))), ("team", or_null(at_most(100)))]
    };
    let counts = object(vec![("matches", whole()), ("mean_ns", or_null(whole())), ("paused_until", or_null(text()))]);
    let row = || {
        vec![
            ("uid", text()),
            ("name", or_null(text())),
            ("title", text()),
            ("kind", one_of(KINDS)),
            ("status", text()),
            ("state", one_of(STATES)),
            ("why", one_of(&["default", "status", "setting", "server-dry-run"])),
            ("held_back", truth()),
            ("level", one_of(LEVELS)),
            ("own_level", one_of(LEVELS)),
            ("tags", texts()),
            ("origin", origin()),
            ("line", whole()),
            ("replaces", or_null(origin())),
            ("setting", object(setting())),
            ("counts", or_null(counts.clone())),
        ]
    };
    let mut with_all = row();
    with_all.extend([
        ("description", text()),
        ("author", text()),
        ("date", text()),
        ("modified", text()),
        ("references", texts()),
        ("false_positives", texts()),
        ("inputs_off", texts()),
        ("explanation", texts()),
        ("text", text()),
    ]);
    let rows = object(vec![
        ("rules", list(to("DetectionRule"))),
        ("states", map(whole())),
        ("unknown", texts()),
        ("pagination", to("Pagination")),
    ]);
    let given =
        || vec![("state?", or_null(one_of(STATES))), ("level?", or_null(one_of(LEVELS))), ("team?", or_null(text()))];
    let mut draft = given();
    draft.extend([("expected?", only(given())), ("reason?", or_null(at_most(1_000)))]);
    let match_of = object(vec![
        ("event", whole()),
        ("kind", one_of(KINDS)),
        ("uid", text()),
        ("title", text()),
        ("level", one_of(LEVELS)),
        ("group", map(text())),
    ]);
    let example = object(vec![
        ("uid", text()),
        ("line", whole()),
        ("must_match", truth()),
        ("passed", truth()),
        ("why", texts()),
    ]);
    let event = json!({ "anyOf": [{ "type": "object", "additionalProperties": true }, { "type": "string" }] });
    vec![
        ("DetectionRule", object(row())),
        ("DetectionRuleWhole", object(with_all)),
        ("DetectionRuleList", rows),
        ("DetectionSetting", only(draft)),
        ("DetectionSettingForgotten", only(vec![("expected?", only(given())), ("reason?", or_null(at_most(1_000)))])),
        (
            "DetectionForm",
            object(vec![("state?", text()), ("level?", text()), ("team?", at_most(100)), ("reason?", at_most(1_000))]),
        ),
        ("DetectionRuleSet", object(vec![("rule", or_null(to("DetectionRule")))])),
        (
            "DetectionTest",
            only(vec![("text?", text()), ("name?", text()), ("events?", list(event)), ("all?", truth())]),
        ),
        (
            "DetectionVerdict",
            object(vec![
                ("rules", list(object(vec![("uid", text()), ("title", text()), ("level", one_of(LEVELS))]))),
                ("problems", list(to("DetectionProblem"))),
                ("matches", list(match_of)),
                ("examples", list(example)),
            ]),
        ),
    ]
}

pub(super) fn documents() -> Schemas {
    let problem = object(vec![
        ("document", or_null(text())),
        ("file", text()),
        ("line", whole()),
        ("rule", or_null(text())),
        ("title", or_null(text())),
        ("field", or_null(text())),
        ("message", text()),
        ("suggestion", or_null(text())),
        ("refused", truth()),
    ]);
    let rule = || object(vec![("uid", text()), ("title", text()), ("kind", one_of(KINDS)), ("state", one_of(STATES))]);
    let problems = || list(to("DetectionProblem"));
    let row = || vec![("name", text()), ("version", whole()), ("changed_at", text()), ("changed_by", text())];
    let mut listed = row();
    listed.extend([("bytes", whole()), ("rules", whole()), ("problems", whole())]);
    let mut whole_document = row();
    whole_document.extend([("rules", list(rule())), ("problems", problems()), ("text", text())]);
    let version = || {
        vec![
            ("version", whole()),
            ("removed", truth()),
            ("bytes", or_null(whole())),
            ("changed_at", text()),
            ("changed_by", text()),
            ("reason", or_null(text())),
        ]
    };
    let mut whole_version = version();
    whole_version.extend([("name", text()), ("text", or_null(text()))]);
    let names = || list(object(vec![("name", text()), ("why", text())]));
    let rules = || list(object(vec![("uid", text()), ("title", text())]));
    let report: Vec<(&str, Value)> = vec![
        ("dry_run", truth()),
        ("possible", truth()),
        ("applied", truth()),
        ("documents", map(whole())),
        (
            "changes",
            list(object(vec![("name", text()), ("change", one_of(&["put", "remove"])), ("version", or_null(whole()))])),
        ),
        ("refused", list(text())),
        ("unusable", names()),
        ("skipped", names()),
        ("problems", problems()),
        ("problems_total", whole()),
        ("problems_refusing", whole()),
        (
            "rules",
            object(vec![
                ("new_total", whole()),
                ("changed_total", whole()),
                ("gone_total", whole()),
                ("new", rules()),
                ("changed", rules()),
                ("gone", rules()),
            ]),
        ),
    ];
    vec![
        ("DetectionProblem", problem),
        ("DetectionDocument", object(whole_document)),
        ("DetectionDocumentRow", object(listed)),
        ("DetectionDocumentList", paged("documents", "DetectionDocumentRow")),
        (
            "DetectionDocumentKept",
            object(vec![("name", text()), ("version", whole()), ("rules", list(rule())), ("problems", problems())]),
        ),
        (
            "DetectionDocumentRemoval",
            only(vec![("expected?", or_null(whole())), ("force?", truth()), ("reason?", or_null(at_most(1_000)))]),
        ),
        ("DetectionDocumentRemoved", object(vec![("name", text()), ("version", whole()), ("problems", problems())])),
        ("DetectionVersions", object(vec![("name", text()), ("versions", list(object(version())))])),
        ("DetectionVersion", object(whole_version)),
        (
            "DetectionRestore",
            only(vec![("version", whole()), ("expected?", or_null(whole())), ("reason?", or_null(at_most(1_000)))]),
        ),
        ("DetectionImport", only(vec![("documents", map(text()))])),
        ("DetectionImported", object(report)),
    ]
}
