//! Schemas of organisations, tokens for agents, and agents.

use super::schemas::{Schemas, at_most, list, map, object, one_of, only, or_null, text, to, truth, whole};
use crate::api::agents::STATES;
use serde_json::json;

pub(super) fn orgs() -> Schemas {
    let time = || or_null(text());
    let uses = || or_null(json!({ "type": "integer", "minimum": 1 }));
    let agents_max = || or_null(json!({ "type": "integer", "minimum": 0 }));
    let days = || json!({ "type": "integer", "minimum": 1, "maximum": 3_650 });
    let org = object(vec![
        ("id", text()),
        ("title", text()),
        ("created_at", text()),
        ("agents_max", or_null(whole())),
        ("disabled", truth()),
    ]);
    let token = object(vec![
        ("id", whole()),
        ("label", text()),
        ("host", or_null(text())),
        ("legacy", truth()),
        ("state", one_of(&["valid", "used up", "expired", "revoked"])),
        ("created_at", text()),
        ("created_by", text()),
        ("expires_at", text()),
        ("uses", whole()),
        ("uses_max", or_null(whole())),
        ("last_used_at", time()),
        ("revoked_at", time()),
        ("followed_by", or_null(whole())),
    ]);
    vec![
        ("Org", org),
        ("OrgList", object(vec![("orgs", list(to("Org")))])),
        (
            "OrgDraft",
            only(vec![
                ("id", json!({ "type": "string", "pattern": "^[a-z0-9-]{1,64}$" })),
                ("title?", at_most(200)),
                ("agents_max?", agents_max()),
                ("reason?", at_most(1_000)),
            ]),
        ),
        (
            "OrgPatch",
            only(vec![
                ("title?", at_most(200)),
                ("agents_max?", agents_max()),
                ("disabled?", truth()),
                ("reason?", at_most(1_000)),
            ]),
        ),
        ("AgentToken", token),
        ("AgentTokenList", object(vec![("tokens", list(to("AgentToken")))])),
        (
            "AgentTokenDraft",
            only(vec![
                ("label?", at_most(100)),
                ("host?", or_null(at_most(255))),
                ("legacy?", truth()),
                ("expires_in_days?", days()),
                ("uses_max?", uses()),
                ("reason?", at_most(1_000)),
            ]),
        ),
        (
            "AgentTokenRotation",
            only(vec![
                ("expires_in_days?", days()),
                ("overlap_hours?", json!({ "type": "integer", "minimum": 0, "maximum": 8_760 })),
                ("reason?", at_most(1_000)),
            ]),
        ),
        (
            "AgentTokenMade",
            object(vec![
                ("message", text()),
                ("id", whole()),
                ("token", text()),
                ("expires_at", text()),
                ("gateway", or_null(text())),
                ("gateway_port", whole()),
            ]),
        ),
    ]
}

pub(super) fn agents() -> Schemas {
    let time = || or_null(text());
    let number = || or_null(whole());
    let agent = object(vec![
        ("id", text()),
        ("host", text()),
        ("state", one_of(STATES)),
        ("connected", truth()),
        ("version", text()),
        ("capabilities", list(text())),
        ("hostname", text()),
        ("ip_address", text()),
        ("os_type", text()),
        ("os_version", text()),
        ("machine_id", text()),
        ("boot_id", text()),
        ("legacy", truth()),
        ("token_id", number()),
        ("enrolled_at", text()),
        ("last_seen_at", time()),
        ("certificate_ends_at", time()),
        ("revoked_at", time()),
        ("revoked_why", or_null(text())),
        ("lag_ms", number()),
        ("spool_records", number()),
        ("spool_bytes", number()),
        ("dropped_records", whole()),
        ("dropped", map(whole())),
        ("collectors_that_cannot_run", map(text())),
        ("rss_bytes", number()),
    ]);
    let states = object(STATES.iter().map(|state| (*state, whole())).collect());
    vec![
        ("Agent", agent),
        (
            "AgentList",
            object(vec![("agents", list(to("Agent"))), ("states", states), ("pagination", to("Pagination"))]),
        ),
        ("AgentForm", object(vec![("action", one_of(&["revoke", "remove"])), ("reason?", at_most(1_000))])),
        ("AgentTokenForm", object(vec![("host?", at_most(255)), ("uses?", text()), ("label?", at_most(100))])),
    ]
}
