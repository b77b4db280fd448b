//! How endpoints are declared: method, path, handler, and what the OpenAPI document says of them. The
//! router and the document are both made of the same list, so neither can know what the other does not.

use super::Api;
use super::auth::NamesCaller;
use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::http::Method;
use axum::routing::MethodRouter;
use std::sync::Arc;
use storage::catalog::users::Role;

/// One method of one path.
#[derive(Clone)]
pub struct Endpoint {
    pub method: Method,
    pub path: String,
    pub handler: MethodRouter<Arc<Api>>,
    /// From the handler's first argument; `None`: whoever asks.
    pub needs: Option<Role>,
    /// Whether it answers about other organisations, too.
    pub is_scoped: bool,
    pub about: &'static str,
    pub query: &'static [&'static [Query]],
    /// Schema of the body, and whether there has to be one.
    pub takes: Option<(&'static str, bool)>,
    /// Media type of a body that is no JSON, in place of it.
    pub takes_other: Option<&'static str>,
    pub status: u16,
    pub gives: Gives,
}

/// What an endpoint answers when all is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gives {
    /// JSON of this schema.
    Json(&'static str),
    /// Something else, by media type.
    Other(&'static str),
}

/// A parameter of the query.
#[derive(Debug, Clone, Copy)]
pub struct Query {
    pub name: &'static str,
    pub kind: Kind,
    pub about: &'static str,
}

/// What values a parameter takes.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Text,
    /// A whole number of at least this and at most this.
    Whole(i64, i64),
    /// RFC 3339, RFC 1123, a date, or seconds since 1970.
    Time,
    /// Any case.
    OneOf(&'static [&'static str]),
    Severity,
    EventId,
    Cursor,
}

const fn query(name: &'static str, kind: Kind, about: &'static str) -> Query {
    Query { name, kind, about }
}

/// `page` and `limit` of the contract's lists.
pub const PAGED: &[Query] = &[
    query("page", Kind::Whole(1, 1_000_000_000), "page, from 1"),
    query("limit", Kind::Whole(1, i64::MAX), "rows of a page, 50 if not given; more than 200 is 200"),
];
pub const CURSOR: &[Query] =
    &[query("cursor", Kind::Cursor, "goes on where a page ended: its `next_cursor`; not together with `page`")];
pub const PERIOD: &[Query] = &[
    query("start_date", Kind::Time, "not before this"),
    query("end_date", Kind::Time, "not after this; a date means its whole day"),
];
pub const CHANGES: &[Query] = &[
    query("changed_by", Kind::Text, "part of the name, any case"),
    query("operation", Kind::OneOf(&["CREATE", "UPDATE", "DELETE"]), "what was done"),
    query("table_name", Kind::Text, "table, whole"),
    query("record_id", Kind::Whole(i64::MIN, i64::MAX), "id of the record; 0 where the key is a text"),
];
pub const EVENT_AUDIT: &[Query] = &[
    query("hostname", Kind::Text, "host, whole"),
    query("rule_id", Kind::Whole(i64::MIN, i64::MAX), "the rule that took the event"),
    query("event_id", Kind::EventId, "the event"),
];
pub const EVENTS: &[Query] = &[
    query("from", Kind::Time, "not before this"),
    query("to", Kind::Time, "not after this; a date means its whole day"),
    query("host", Kind::Text, "host, whole"),
    query("text", Kind::Text, "part of the message"),
    query("severity", Kind::Severity, "this or worse: 0 to 7, or a word such as err"),
    query("rule_id", Kind::Whole(i64::MIN, i64::MAX), "the rule that took the event"),
    query("before", Kind::EventId, "only older ones: `next` of the page before"),
];
pub const ALERTS: &[Query] = &[
    query("event_id", Kind::EventId, "the event"),
    query("host", Kind::Text, "host, whole"),
    query(
        "state",
        Kind::OneOf(&["pending", "delivered", "dead", "recorded", "grouped", "silenced"]),
        "how far it came",
    ),
    query("incident_id", Kind::Whole(1, i64::MAX), "the incident that it joined"),
    query("from", Kind::Time, "not before this"),
    query("to", Kind::Time, "not after this; a date means its whole day"),
];
pub const INCIDENTS: &[Query] = &[
    query("status", Kind::OneOf(super::incidents::STATUSES), "where they stand; open is ACTIVE or ACKNOWLEDGED"),
    query("rule", Kind::Text, "id of the rule, whole"),
    query("host", Kind::Text, "host of the last alert, whole"),
    query("team", Kind::Text, "team, whole"),
    query("assignee", Kind::Text, "whose they are, whole"),
    query("from", Kind::Time, "last alert not before this"),
    query("to", Kind::Time, "last alert not after this; a date means its whole day"),
];
pub const DETECTION_RULES: &[Query] = &[
    query("state", Kind::OneOf(super::detection::STATES), "how they stand"),
    query("level", Kind::OneOf(super::detection::LEVELS), "the level that counts"),
    query("source", Kind::OneOf(super::detection::SOURCES), "where their text is from"),
    query("kind", Kind::OneOf(super::detection::KINDS), "what they are"),
    query("tag", Kind::Text, "a tag, whole, or its beginning and *"),
    query("text", Kind::Text, "part of title, id, name or description, any case"),
];
pub const DETECTION_DOCUMENTS: &[Query] = &[query("text", Kind::Text, "part of the name, any case")];
pub const DETECTION_PUT: &[Query] = &[
    query("expected", Kind::Whole(0, u32::MAX as i64), "the version that it has to have; 0: it is not there"),
    query("reason", Kind::Text, "for its audit row"),
];
pub const DETECTION_IMPORT: &[Query] = &[
    query("dry_run", Kind::OneOf(&["true", "false"]), "only say what it would come to; false if not given"),
    query("partial", Kind::OneOf(&["true", "false"]), "leave out what cannot be used; false if not given"),
    query("remove_missing", Kind::OneOf(&["true", "false"]), "remove other documents; false if not given"),
    query("reason", Kind::Text, "for the audit rows"),
];
pub const AGENTS: &[Query] = &[
    query("host", Kind::Text, "part of the host's name, any case"),
    query("state", Kind::OneOf(super::agents::STATES), "how they are"),
];
pub const AGENTS_PAGE: &[Query] = &[
    query("host", Kind::Text, "part of the host's name, any case"),
    query("state", Kind::OneOf(super::agents::STATES), "how they are"),
    query("page", Kind::Whole(1, 1_000_000_000), "page of 50, from 1"),
];
pub const SILENCES: &[Query] =
    &[query("all", Kind::OneOf(&["true", "false"]), "those that are over, too; false if not given")];
pub const TO_1000: &[Query] = &[query("limit", Kind::Whole(1, 1_000), "at most so many; 100 if not given")];
pub const PEEK: &[Query] = &[
    query("after", Kind::Whole(0, i64::MAX), "only records after this position"),
    query("limit", Kind::Whole(1, 200), "at most so many; 50 if not given"),
];
pub const VERSIONED: &[Query] = &[query("api_version", Kind::Text, "the version wanted, when no header says")];
pub const AUDIT_PAGE: &[Query] = &[
    query("user", Kind::Text, "part of the name, any case"),
    query("operation", Kind::OneOf(&["CREATE", "UPDATE", "DELETE"]), "what was done"),
    query("table", Kind::Text, "table, whole"),
    query("record_id", Kind::Whole(i64::MIN, i64::MAX), "id of the record"),
    query("from", Kind::Time, "not before this"),
    query("to", Kind::Time, "not after this"),
    query("page", Kind::Whole(1, 1_000_000_000), "page of 20, from 1"),
];
pub const INCIDENTS_PAGE: &[Query] = &[
    query("status", Kind::OneOf(&["open", "closed", "any"]), "where they stand; open if not given"),
    query("page", Kind::Whole(1, 1_000_000_000), "page of 50, from 1"),
];
pub const RULES_PAGE: &[Query] = &[
    query("text", Kind::Text, "part of title, id, name or description, any case"),
    query("state", Kind::OneOf(super::detection::STATES), "how they stand"),
    query("level", Kind::OneOf(super::detection::LEVELS), "the level that counts"),
    query("source", Kind::OneOf(super::detection::SOURCES), "where their text is from"),
    query("page", Kind::Whole(1, 1_000_000_000), "page of 50, from 1"),
];
pub const LOGIN: &[Query] = &[query("next", Kind::Text, "page to show then")];

fn endpoint<H: Handler<T, Arc<Api>>, T: NamesCaller + 'static>(
    method: Method,
    path: &str,
    handler: MethodRouter<Arc<Api>>,
    _: H,
) -> Endpoint {
    Endpoint {
        method,
        path: path.to_owned(),
        handler,
        needs: T::NEEDS,
        is_scoped: T::IS_SCOPED,
        about: "",
        query: &[],
        takes: None,
        takes_other: None,
        status: 200,
        gives: Gives::Json("Message"),
    }
}

pub fn get<H: Handler<T, Arc<Api>>, T: NamesCaller + 'static>(path: &str, handler: H) -> Endpoint {
    endpoint(Method::GET, path, axum::routing::get(handler.clone()), handler)
}

pub fn post<H: Handler<T, Arc<Api>>, T: NamesCaller + 'static>(path: &str, handler: H) -> Endpoint {
    endpoint(Method::POST, path, axum::routing::post(handler.clone()), handler)
}

pub fn put<H: Handler<T, Arc<Api>>, T: NamesCaller + 'static>(path: &str, handler: H) -> Endpoint {
    endpoint(Method::PUT, path, axum::routing::put(handler.clone()), handler)
}

pub fn patch<H: Handler<T, Arc<Api>>, T: NamesCaller + 'static>(path: &str, handler: H) -> Endpoint {
    endpoint(Method::PATCH, path, axum::routing::patch(handler.clone()), handler)
}

pub fn delete<H: Handler<T, Arc<Api>>, T: NamesCaller + 'static>(path: &str, handler: H) -> Endpoint {
    endpoint(Method::DELETE, path, axum::routing::delete(handler.clone()), handler)
}

impl Endpoint {
    /// What it is for, in a sentence without its period.
    pub fn about(self, about: &'static str) -> Self {
        Self { about, ..self }
    }
    pub fn query(self, query: &'static [&'static [Query]]) -> Self {
        Self { query, ..self }
    }
    /// Takes a body of this schema.
    pub fn takes(self, schema: &'static str) -> Self {
        Self { takes: Some((schema, true)), ..self }
    }
    /// Takes a body of this schema or none.
    pub fn may_take(self, schema: &'static str) -> Self {
        Self { takes: Some((schema, false)), ..self }
    }
    /// Takes a body of this media type, too.
    pub fn takes_other(self, media_type: &'static str) -> Self {
        Self { takes_other: Some(media_type), ..self }
    }
    /// Takes bodies of this size.
    pub fn body_max(self, bytes: usize) -> Self {
        Self { handler: self.handler.layer(DefaultBodyLimit::max(bytes)), ..self }
    }
    pub fn gives(self, schema: &'static str) -> Self {
        Self { gives: Gives::Json(schema), ..self }
    }
    pub fn gives_other(self, media_type: &'static str) -> Self {
        Self { gives: Gives::Other(media_type), ..self }
    }
    /// Answers 201.
    pub fn created(self) -> Self {
        Self { status: 201, ..self }
    }
    /// Answers with a redirect.
    pub fn redirects(self) -> Self {
        Self { status: 303, gives: Gives::Other("text/html"), ..self }
    }
    /// Whether it takes what a form of a page sends.
    pub fn is_form(&self) -> bool {
        self.takes.is_some_and(|(schema, _)| {
            matches!(schema, "LoginForm" | "IncidentForm" | "DetectionForm" | "AgentForm" | "AgentTokenForm")
        })
    }
    /// The same below a prefix.
    pub fn below(self, prefix: &str) -> Self {
        Self { path: format!("{prefix}{}", self.path), ..self }
    }
}
