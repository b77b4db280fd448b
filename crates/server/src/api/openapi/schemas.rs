//! Schemas of what endpoints take and give.
//!
//! An object lists all its keys: those of an answer are always there, unless they are marked
//! optional here by a `?` behind the name.

use serde_json::{Map, Value, json};

pub(super) fn text() -> Value {
    json!({ "type": "string" })
}

pub(super) fn whole() -> Value {
    json!({ "type": "integer" })
}

pub(super) fn number() -> Value {
    json!({ "type": "number" })
}

pub(super) fn truth() -> Value {
    json!({ "type": "boolean" })
}

pub(super) fn anything() -> Value {
    json!({})
}

pub(super) fn or_null(schema: Value) -> Value {
    json!({ "anyOf": [schema, { "type": "null" }] })
}

pub(super) fn list(schema: Value) -> Value {
    json!({ "type": "array", "items": schema })
}

pub(super) fn one_of(values: &[&str]) -> Value {
    json!({ "type": "string", "enum": values })
}

pub(super) fn at_most(chars: u64) -> Value {
    json!({ "type": "string", "maxLength": chars })
}

pub(super) fn to(schema: &str) -> Value {
    super::reference(schema)
}

pub(super) fn map(schema: Value) -> Value {
    json!({ "type": "object", "additionalProperties": schema })
}

/// `name` is required, `name?` is not.
pub(super) fn object(fields: Vec<(&str, Value)>) -> Value {
    let required: Vec<&str> = fields.iter().map(|(name, _)| *name).filter(|name| !name.ends_with('?')).collect();
    let properties: Map<String, Value> =
        fields.into_iter().map(|(name, schema)| (name.trim_end_matches('?').to_owned(), schema)).collect();
    json!({ "type": "object", "required": required, "properties": properties })
}

/// An object that may have more keys.
pub(super) fn open(fields: Vec<(&str, Value)>) -> Value {
    let mut schema = object(fields);
    schema["additionalProperties"] = true.into();
    schema
}

/// An object that takes no other keys.
pub(super) fn only(fields: Vec<(&str, Value)>) -> Value {
    let mut schema = object(fields);
    schema["additionalProperties"] = false.into();
    schema
}

pub(super) fn paged(name: &'static str, row: &str) -> Value {
    object(vec![(name, list(to(row))), ("pagination", to("Pagination"))])
}

/// All of them, by name.
pub fn all() -> Value {
    let mut all = Map::new();
    let own = [general(), settings(), rules(), hosts(), audit(), events(), queues(), users(), ingest()];
    for (name, schema) in own
        .into_iter()
        .chain([
            super::alerting::routing(),
            super::alerting::incidents(),
            super::detection::rules(),
            super::detection::documents(),
            super::fleet::orgs(),
            super::fleet::agents(),
        ])
        .flatten()
    {
        all.insert(name.to_owned(), schema);
    }
    Value::Object(all)
}

pub(super) type Schemas = Vec<(&'static str, Value)>;

fn general() -> Schemas {
    let version = object(vec![
        ("released", text()),
        ("status", text()),
        ("changes", list(text())),
        ("deprecated_in?", text()),
        ("removal_date?", text()),
    ]);
    let part = one_of(&["connected", "disconnected"]);
    let objective = object(vec![
        ("slo_name", text()),
        ("description", text()),
        ("window_hours", whole()),
        ("actual_value", or_null(number())),
        ("no_data", truth()),
        ("target?", number()),
        ("target_seconds?", number()),
        ("status", one_of(&["ok", "breaching", "warning", "critical"])),
        ("burn_rate", or_null(number())),
        ("error_budget_remaining", or_null(number())),
        ("message", text()),
    ]);
    let component = object(vec![
        ("target", number()),
        ("availability", or_null(number())),
        ("error_budget_remaining", or_null(number())),
        ("burn_rate", or_null(number())),
        ("state", one_of(&["ok", "warn", "critical"])),
        ("no_data", truth()),
        ("window_hours", whole()),
    ]);
    vec![
        ("Error", open(vec![("error", text()), ("correlation_id", text()), ("fields?", map(text()))])),
        ("Message", object(vec![("message", text())])),
        ("Reason", object(vec![("reason?", or_null(at_most(1_000)))])),
        (
            "Pagination",
            object(vec![
                ("page", whole()),
                ("limit", whole()),
                ("total", whole()),
                ("pages", whole()),
                ("next_cursor?", text()),
            ]),
        ),
        (
            "Health",
            object(vec![
                ("status", one_of(&["healthy", "unhealthy"])),
                ("service", text()),
                ("version", text()),
                ("redis", part.clone()),
                ("database", part),
                ("vault?", text()),
                ("error?", text()),
            ]),
        ),
        (
            "Version",
            object(vec![
                ("current_version", text()),
                ("default_version", text()),
                ("negotiated_version", text()),
                ("supported_versions", list(text())),
                ("version_history", map(version)),
            ]),
        ),
        (
            "Rates",
            object(vec![
                (
                    "summary",
                    object(vec![("current_rate_1m", number()), ("avg_rate_15m", number()), ("avg_rate_1h", number())]),
                ),
                ("chart_24h", object(vec![("labels", list(text())), ("data", list(number()))])),
            ]),
        ),
        (
            "Objectives",
            object(vec![
                ("timestamp", text()),
                ("window_hours", whole()),
                ("source", one_of(&["prometheus", "counters"])),
                ("message", text()),
                ("slos", list(objective)),
                ("components", map(component)),
            ]),
        ),
        ("OpenApi", open(vec![("openapi", text()), ("info", anything()), ("paths", anything())])),
    ]
}

fn settings() -> Schemas {
    let value = json!({ "type": ["string", "number", "boolean"] });
    let change = object(vec![
        ("id", whole()),
        ("changed_at", text()),
        ("changed_by", text()),
        ("operation", text()),
        ("key", or_null(text())),
        ("old_value", or_null(text())),
        ("new_value", or_null(text())),
        ("reason", or_null(text())),
        ("correlation_id", or_null(text())),
    ]);
    vec![
        ("Settings", object(vec![("config", map(text())), ("unusable?", map(text()))])),
        ("SettingValue", object(vec![("value", value), ("reason?", or_null(at_most(1_000)))])),
        (
            "SettingChanged",
            object(vec![
                ("key", text()),
                ("old_value", or_null(text())),
                ("new_value", or_null(text())),
                ("warning?", text()),
            ]),
        ),
        ("SettingChange", change),
        ("SettingHistory", paged("history", "SettingChange")),
    ]
}

fn rule_columns(required: bool) -> Vec<(&'static str, Value)> {
    let handling = || at_most(100);
    let mut columns = vec![
        ("match_string?", or_null(at_most(255))),
        ("trap_oid?", or_null(at_most(255))),
        ("syslog_severity?", or_null(json!({ "type": "integer", "minimum": 0, "maximum": 7 }))),
        ("match_type?", one_of(&["contains", "regex", "oid_prefix"])),
        ("priority?", whole()),
        ("is_active?", truth()),
    ];
    if required {
        columns.extend([("prod_handling", handling()), ("dev_handling", handling()), ("team_assignment", handling())]);
    } else {
        columns.extend([
            ("prod_handling?", handling()),
            ("dev_handling?", handling()),
            ("team_assignment?", handling()),
        ]);
    }
    columns
}

fn rules() -> Schemas {
    let mut row: Vec<(&str, Value)> =
        rule_columns(true).into_iter().map(|(name, schema)| (name.trim_end_matches('?'), schema)).collect();
    row.push(("id", whole()));
    let with_reason = |required| {
        let mut columns = rule_columns(required);
        columns.push(("reason?", or_null(at_most(1_000))));
        object(columns)
    };
    vec![
        ("Rule", object(row)),
        ("RuleList", object(vec![("rules", list(to("Rule")))])),
        ("RuleDraft", with_reason(true)),
        ("RulePatch", with_reason(false)),
        ("RuleCreated", object(vec![("id", whole()), ("message", text()), ("warnings", list(text()))])),
        ("RuleUpdated", object(vec![("message", text()), ("warnings", list(text()))])),
        ("RuleTest", object(vec![("event", to("Event")), ("rule?", to("RuleDraft"))])),
        (
            "RuleVerdict",
            object(vec![
                ("matched", truth()),
                ("rule", or_null(to("Rule"))),
                ("environment?", one_of(&["production", "development"])),
                ("handling?", text()),
                ("forwards?", truth()),
                ("team?", text()),
                ("receivers?", list(text())),
                ("explanation", text()),
            ]),
        ),
        ("RuleImport", object(vec![("rules", list(to("RuleDraft"))), ("reason?", or_null(at_most(1_000)))])),
        (
            "RulesImported",
            object(vec![
                ("created", whole()),
                ("ids", list(whole())),
                ("warnings", list(object(vec![("index", whole()), ("warning", text())]))),
            ]),
        ),
    ]
}

fn hosts() -> Schemas {
    let host = || json!({ "type": "string", "minLength": 1, "maxLength": 255 });
    let team = || json!({ "type": "string", "minLength": 1, "maxLength": 100 });
    vec![
        ("Hosts", object(vec![("hosts", list(object(vec![("hostname", text())])))])),
        ("HostDraft", object(vec![("hostname", host()), ("reason?", or_null(at_most(1_000)))])),
        ("HostAdded", object(vec![("message", text()), ("hostname", text())])),
        ("Teams", object(vec![("teams", list(object(vec![("hostname", text()), ("team_assignment", text())])))])),
        (
            "TeamDraft",
            object(vec![("hostname", host()), ("team_assignment", team()), ("reason?", or_null(at_most(1_000)))]),
        ),
        ("TeamPatch", object(vec![("team_assignment", team()), ("reason?", or_null(at_most(1_000)))])),
        ("TeamAdded", object(vec![("message", text()), ("hostname", text()), ("team_assignment", text())])),
    ]
}

fn audit() -> Schemas {
    let change = || {
        vec![
            ("id", whole()),
            ("changed_at", text()),
            ("changed_by", text()),
            ("operation", one_of(&["CREATE", "UPDATE", "DELETE"])),
            ("table_name", text()),
            ("record_id", whole()),
            ("reason", or_null(text())),
            ("correlation_id", or_null(text())),
        ]
    };
    let mut with_values = change();
    with_values.extend([("old_values", anything()), ("new_values", anything())]);
    vec![
        ("Change", object(change())),
        ("ChangeWithValues", object(with_values)),
        ("ConfigAudit", paged("changes", "Change")),
        ("Audit", paged("logs", "ChangeWithValues")),
        (
            "EventAuditRow",
            object(vec![
                ("id", whole()),
                ("event_id", text()),
                ("event_timestamp", text()),
                ("hostname", text()),
                ("matched_rule_id", whole()),
                ("handling_decision", text()),
                ("forwarded_to_moog", truth()),
                ("raw_message", or_null(text())),
            ]),
        ),
        ("EventAudit", paged("logs", "EventAuditRow")),
    ]
}

fn events() -> Schemas {
    let place = || vec![("queue", text()), ("position", whole()), ("attempts", whole()), ("leased", truth())];
    let mut letter = letter();
    letter.extend([("queue", text()), ("position", whole())]);
    vec![
        (
            "StoredEvent",
            object(vec![
                ("id", text()),
                ("accepted_at", text()),
                ("timestamp", text()),
                ("input", text()),
                ("host", text()),
                ("severity", or_null(whole())),
                ("severity_name", or_null(text())),
                ("rule_id", or_null(whole())),
                ("event", anything()),
            ]),
        ),
        ("EventList", object(vec![("events", list(to("StoredEvent"))), ("next", or_null(text()))])),
        (
            "Alert",
            object(vec![
                ("id", text()),
                ("event_id", text()),
                ("kind", text()),
                ("created_at", text()),
                ("host", text()),
                ("team", text()),
                ("severity", text()),
                ("handling", text()),
                ("rule_id", or_null(whole())),
                ("signature", text()),
                ("message", text()),
                ("correlation_id", text()),
                ("event", anything()),
                ("detection", or_null(to("Detection"))),
                ("state", one_of(&["pending", "delivered", "dead", "recorded", "grouped", "silenced"])),
                ("state_at", text()),
                ("attempts", whole()),
                ("detail", or_null(text())),
                ("incident_id", or_null(whole())),
            ]),
        ),
        ("AlertList", paged("alerts", "Alert")),
        (
            "Detection",
            object(vec![
                ("rule_uid", text()),
                ("name", text()),
                ("title", text()),
                ("description", text()),
                ("level", one_of(&["informational", "low", "medium", "high", "critical"])),
                ("tags", list(text())),
                ("references", list(text())),
                ("false_positives", list(text())),
                ("fields", list(object(vec![("name", text()), ("value", text())]))),
                ("events", whole()),
            ]),
        ),
        (
            "Trace",
            object(vec![
                ("id", text()),
                ("event_id", text()),
                ("state", one_of(&["waiting", "handled", "unhandled", "dead_letter", "expired"])),
                ("accepted", object(vec![("at", text()), ("input", or_null(text()))])),
                ("stored", truth()),
                ("event", or_null(to("StoredEvent"))),
                ("rule_id", or_null(whole())),
                ("explanation", or_null(text())),
                ("explained_by", text()),
                ("audit", list(to("EventAuditRow"))),
                ("alerts", list(to("Alert"))),
                ("dead_letters", list(object(letter))),
                ("waiting", list(object(place()))),
                ("searched", list(object(vec![("queue", text()), ("looked_at", whole()), ("complete", truth())]))),
                ("story", list(text())),
            ]),
        ),
    ]
}

fn letter() -> Vec<(&'static str, Value)> {
    vec![
        ("side", text()),
        ("reason", text()),
        ("retryable", truth()),
        ("attempts", whole()),
        ("replays", whole()),
        ("failed_at", text()),
        ("original", anything()),
    ]
}

fn queues() -> Schemas {
    let figures = || {
        vec![
            ("name", text()),
            ("depth", whole()),
            ("leased", whole()),
            ("delayed", whole()),
            ("bytes", whole()),
            ("quarantined", whole()),
            ("limit", whole()),
        ]
    };
    let record = object(vec![
        ("position", whole()),
        ("attempts", whole()),
        ("leased", truth()),
        ("payload?", anything()),
        ("dead_letter?", object(letter())),
    ]);
    let mut records = figures();
    records.extend([("records", list(record)), ("next", or_null(whole()))]);
    let positions =
        || json!({ "type": "array", "items": { "type": "integer", "minimum": 0 }, "minItems": 1, "maxItems": 1_000 });
    let mut replay = object(vec![
        ("positions?", positions()),
        ("filter?", only(vec![("reason_contains?", text()), ("host?", text())])),
        ("limit?", json!({ "type": "integer", "minimum": 1, "maximum": 1_000 })),
        ("reason?", or_null(at_most(1_000))),
    ]);
    replay["additionalProperties"] = false.into();
    replay["anyOf"] = json!([{ "required": ["positions"] }, { "required": ["filter"] }]);
    let skipped = || list(object(vec![("position", whole()), ("why", text())]));
    let reject = object(vec![
        ("at", text()),
        ("input", text()),
        ("reason", text()),
        ("detail", text()),
        ("peer", or_null(text())),
        ("sample", text()),
    ]);
    vec![
        ("QueueList", object(vec![("queues", list(object(figures())))])),
        ("QueueRecords", object(records)),
        ("Replay", replay),
        (
            "Replayed",
            object(vec![
                ("replayed", whole()),
                ("positions", list(whole())),
                ("skipped", skipped()),
                ("stopped", or_null(text())),
            ]),
        ),
        ("Removal", only(vec![("positions", positions()), ("reason?", or_null(at_most(1_000)))])),
        ("Removed", object(vec![("removed", whole()), ("skipped", skipped())])),
        ("Rejects", object(vec![("rejects", list(reject))])),
    ]
}

fn users() -> Schemas {
    let role = || one_of(&["viewer", "operator", "admin"]);
    let key = object(vec![
        ("id", whole()),
        ("label", text()),
        ("state", one_of(&["valid", "expired", "revoked"])),
        ("created_at", text()),
        ("last_used_at", or_null(text())),
        ("expires_at", or_null(text())),
        ("revoked_at", or_null(text())),
    ]);
    let name = json!({ "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$" });
    vec![
        ("UserKey", key),
        (
            "User",
            object(vec![("name", text()), ("role", role()), ("created_at", text()), ("keys", list(to("UserKey")))]),
        ),
        ("UserList", object(vec![("users", list(to("User")))])),
        ("UserDraft", object(vec![("name", name), ("role", role()), ("reason?", or_null(at_most(1_000)))])),
        ("UserPatch", object(vec![("role", role()), ("reason?", or_null(at_most(1_000)))])),
        ("UserCreated", object(vec![("message", text()), ("name", text()), ("role", role())])),
        ("UserUpdated", object(vec![("message", text()), ("role", role())])),
        ("KeyList", object(vec![("keys", list(to("UserKey")))])),
        (
            "KeyDraft",
            object(vec![
                ("label?", or_null(at_most(100))),
                ("expires_at?", or_null(text())),
                ("reason?", or_null(at_most(1_000))),
            ]),
        ),
        (
            "KeyCreated",
            object(vec![("message", text()), ("id", whole()), ("key", text()), ("expires_at", or_null(text()))]),
        ),
        ("LoginForm", object(vec![("key", text()), ("next?", text())])),
    ]
}

fn ingest() -> Schemas {
    vec![
        ("Event", open(vec![])),
        (
            "Ingested",
            open(vec![
                ("status", one_of(&["queued", "partial"])),
                ("correlation_id", text()),
                ("queue_depth", whole()),
                ("event_id?", text()),
            ]),
        ),
        ("IngestError", open(vec![("status", text()), ("message", text()), ("correlation_id", text())])),
    ]
}
