//! The OpenAPI document, made of the endpoints that run (`route.rs`) and the schemas of what they take
//! and give. `tests/it/api/openapi.rs` holds it against the live API.

mod alerting;
mod detection;
mod fleet;
mod ingest;
mod schemas;

use super::auth::Anyone;
use super::route::{Endpoint, Gives, Kind, Query};
use axum::Json;
use serde_json::{Map, Value, json};
use storage::catalog::users::Role;

pub async fn document(_: Anyone) -> Json<Value> {
    Json(openapi())
}

/// The whole document, of OpenAPI 3.1.
pub fn openapi() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for endpoint in super::endpoints() {
        let path = paths.entry(endpoint.path.clone()).or_insert_with(|| json!({}));
        path[endpoint.method.as_str().to_ascii_lowercase()] = operation(&endpoint);
    }
    for (path, item) in ingest::paths() {
        paths.insert(path, item);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "MUTT Security Manager",
            "version": "2.5",
            "description": "The Web API (port 8090) and the HTTP ingest (port 8080, tag `ingest`). Paths under \
                            /api/v1 and /api/v2 are the same where both are; v1 is deprecated. Every change takes an \
                            optional `reason` for its audit row.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "key": [] }],
        "tags": [
            { "name": "contract", "description": "what MUTT 2.5 has" },
            { "name": "own", "description": "what is ours" },
            { "name": "pages", "description": "for browsers" },
            { "name": "ingest", "description": "on the ingest listener" },
        ],
        "paths": paths,
        "components": {
            "schemas": schemas::all(),
            "securitySchemes": {
                "key": { "type": "apiKey", "in": "header", "name": "X-API-KEY", "description": "a configured key, or one of a user's" },
            },
        },
    })
}

fn operation(endpoint: &Endpoint) -> Value {
    let mut operation = json!({
        "operationId": operation_id(endpoint),
        "summary": endpoint.about,
        "tags": [tag(&endpoint.path)],
        "parameters": parameters(endpoint),
        "responses": responses(endpoint),
    });
    match endpoint.needs {
        Some(role) => operation["description"] = format!("Needs the role {} or more.", role.as_str()).into(),
        None => operation["security"] = json!([]),
    }
    operation["x-role"] = endpoint.needs.map(Role::as_str).into();
    if endpoint.path.starts_with("/api/v1/") {
        operation["deprecated"] = true.into();
    }
    if let Some((schema, required)) = endpoint.takes {
        let media = if endpoint.is_form() { "application/x-www-form-urlencoded" } else { "application/json" };
        operation["requestBody"] =
            json!({ "required": required, "content": { media: { "schema": reference(schema) } } });
    }
    if let Some(media) = endpoint.takes_other {
        operation["requestBody"]["required"] = true.into();
        operation["requestBody"]["content"][media] = json!({ "schema": { "type": "string" } });
    }
    operation
}

fn tag(path: &str) -> &'static str {
    match path {
        _ if path.starts_with("/api/v2/") && super::is_own(path) => "own",
        _ if path.starts_with("/api/") || path == "/health" || path == "/metrics" => "contract",
        _ => "pages",
    }
}

fn operation_id(endpoint: &Endpoint) -> String {
    let words: String =
        endpoint.path.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect::<String>();
    let words: Vec<&str> = words.split('_').filter(|word| !word.is_empty()).collect();
    format!("{}_{}", endpoint.method.as_str().to_ascii_lowercase(), words.join("_")).trim_end_matches('_').to_owned()
}

fn parameters(endpoint: &Endpoint) -> Vec<Value> {
    let in_path = endpoint
        .path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }));
    let in_query = endpoint.query.iter().copied().flatten().map(|query| {
        json!({ "name": query.name, "in": "query", "required": false, "description": query.about, "schema": schema_of(query) })
    });
    in_path.chain(in_query).chain(endpoint.is_scoped.then(scope).into_iter().flatten()).collect()
}

/// Which organisation it is about.
fn scope() -> [Value; 2] {
    let about = "another organisation than the caller's; for administrators of the default one";
    let schema = json!({ "type": "string", "examples": ["default"] });
    [("org", "query"), ("X-Scope-OrgID", "header")].map(
        |(name, place)| json!({ "name": name, "in": place, "required": false, "description": about, "schema": schema }),
    )
}

fn schema_of(query: &Query) -> Value {
    match query.kind {
        Kind::Text => json!({ "type": "string", "maxLength": 1_024 }),
        Kind::Whole(least, most) => {
            let mut schema = json!({ "type": "integer" });
            if least > i64::MIN {
                schema["minimum"] = least.into();
            }
            if most < i64::MAX {
                schema["maximum"] = most.into();
            }
            schema
        }
        Kind::Time => {
            json!({ "type": "string", "examples": ["2026-11-22T10:00:00Z", "2026-11-22", "Sun, 22 Nov 2026 10:00:00 GMT", "1795341600"] })
        }
        Kind::OneOf(values) => json!({ "type": "string", "enum": values }),
        Kind::Severity => json!({ "type": "string", "examples": ["3", "err"] }),
        Kind::EventId => json!({ "type": "string", "pattern": "^evt_[0-9a-z]{26}$" }),
        Kind::Cursor => json!({ "type": "string", "examples": ["1795341600000000.17"] }),
    }
}

fn responses(endpoint: &Endpoint) -> Value {
    let mut responses = Map::new();
    let good = match endpoint.gives {
        Gives::Json(schema) => json!({
            "description": "done",
            "headers": version_headers(),
            "content": { "application/json": { "schema": reference(schema) } },
        }),
        Gives::Other(_) if endpoint.status == 303 => json!({ "description": "go on there" }),
        Gives::Other(media) => {
            json!({ "description": "done", "content": { media: { "schema": { "type": "string" } } } })
        }
    };
    responses.insert(endpoint.status.to_string(), good);
    let mut refusals: Vec<(&str, &str)> = Vec::new();
    if endpoint.takes.is_some() || !endpoint.query.is_empty() || endpoint.path.contains('{') || endpoint.is_scoped {
        refusals.push(("400", "something given cannot be used; the error names it"));
    }
    if let Some(role) = endpoint.needs {
        refusals.push(("401", "no key, or a wrong one"));
        refusals.push(("429", "too many wrong keys from this address; see Retry-After"));
        refusals.push(if role > Role::Viewer {
            ("403", "the caller's role is not enough, or it is about another organisation")
        } else {
            ("403", "it is about another organisation than the caller may see")
        });
    }
    if endpoint.path.contains('{') || endpoint.is_scoped {
        refusals.push(("404", "there is no such thing"));
    }
    if endpoint.is_form() {
        refusals.push(("401", "this key is not known here"));
        refusals.push(("403", "the form was sent from another site"));
        refusals.push(("413", "the body is too large"));
        refusals.push(("429", "too many wrong keys from this address; see Retry-After"));
    } else if endpoint.takes.is_some() || endpoint.takes_other.is_some() {
        refusals.push(("409", "it exists already, or somebody else changed it"));
        refusals.push(("413", "the body is too large"));
    }
    refusals.push(("503", "a store is away; see Retry-After"));
    let is_page = matches!(endpoint.gives, Gives::Other("text/html"));
    if is_page && endpoint.needs.is_some() {
        responses.insert("303".to_owned(), json!({ "description": "a browser without a session: to /login" }));
    }
    for (status, description) in refusals {
        // Who has no key is answered before the page is.
        let is_json = !is_page || (endpoint.needs.is_some() && matches!(status, "401" | "429"));
        let content = if is_json {
            json!({ "application/json": { "schema": reference("Error") } })
        } else {
            json!({ "text/html": { "schema": { "type": "string" } } })
        };
        responses.entry(status).or_insert_with(|| json!({ "description": description, "content": content }));
    }
    Value::Object(responses)
}

fn version_headers() -> Value {
    let text = |about: &str| json!({ "description": about, "schema": { "type": "string" } });
    json!({
        "X-API-Version": text("the version of the API"),
        "X-API-Supported-Versions": text("the versions a client may ask for"),
        "X-API-Deprecated": text("true under /api/v1/"),
        "X-Correlation-ID": text("the request's, or a new one"),
    })
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}
