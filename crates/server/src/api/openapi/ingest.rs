//! The HTTP ingest in the document. It runs on a listener of its own, past the router, so it is
//! written here by hand; `connectors` has its tests.

use super::reference;
use serde_json::{Value, json};

/// Paths of the ingest listener.
pub fn paths() -> Vec<(String, Value)> {
    ["/ingest", "/api/v1/ingest", "/api/v2/ingest"].map(|path| (path.to_owned(), post(path))).into()
}

fn post(path: &str) -> Value {
    let refused = |about: &str| json!({ "description": about, "content": { "application/json": { "schema": reference("IngestError") } } });
    json!({
        "servers": [{ "url": "http://localhost:8080", "description": "the ingest listener" }],
        "post": {
            "operationId": format!("post{}", path.replace('/', "_")),
            "summary": "Takes one event, an array of events, or events on lines of their own",
            "tags": ["ingest"],
            "deprecated": path.starts_with("/api/v1/"),
            "requestBody": {
                "required": true,
                "content": {
                    "application/json": {
                        "schema": { "oneOf": [reference("Event"), { "type": "array", "items": reference("Event") }] },
                    },
                    "application/x-ndjson": { "schema": { "type": "string" } },
                },
            },
            "responses": {
                "200": {
                    "description": "durable, as the listener is configured",
                    "content": { "application/json": { "schema": reference("Ingested") } },
                },
                "400": refused("not JSON, or a required key is missing"),
                "401": refused("no key, or a wrong one"),
                "413": refused("too large, or too many events"),
                "429": refused("the site-wide limit is reached; see Retry-After"),
                "503": refused("the queue is full or cannot be written; see Retry-After"),
            },
        },
    })
}
