//! What went wrong, as a client sees it. The only place that assigns statuses.
//!
//! A handler returns [`ApiError`]; `auth::seal` renders it with the request's correlation id and
//! logs what the client is not told.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use model::ErrorKind;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use storage::StorageError;
use storage::catalog::users::Role;

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Kind(ErrorKind),
    Unauthorized,
    TooManyFailures,
    MethodNotAllowed,
    BodyTooLarge,
    BodyTooSlow,
}

impl Class {
    const fn status(self) -> StatusCode {
        match self {
            Self::Kind(ErrorKind::NotFound) => StatusCode::NOT_FOUND,
            Self::Kind(ErrorKind::Conflict) => StatusCode::CONFLICT,
            Self::Kind(ErrorKind::Full | ErrorKind::Unavailable) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Kind(ErrorKind::Timeout) => StatusCode::GATEWAY_TIMEOUT,
            Self::Kind(ErrorKind::Invalid) => StatusCode::BAD_REQUEST,
            Self::Kind(ErrorKind::Denied) => StatusCode::FORBIDDEN,
            Self::Kind(ErrorKind::Internal) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::TooManyFailures => StatusCode::TOO_MANY_REQUESTS,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
        }
    }
}

/// An error on its way to a client.
#[derive(Debug, Clone)]
pub struct ApiError {
    class: Class,
    message: String,
    extra: Map<String, Value>,
    retry_after: Option<Duration>,
    /// What happened, for the log only.
    source: Option<Arc<StorageError>>,
}

pub type ApiResult<T = Json<Value>> = Result<T, ApiError>;

impl ApiError {
    fn new(class: Class, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), extra: Map::new(), retry_after: None, source: None }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Class::Kind(ErrorKind::Invalid), message)
    }

    /// Fields of a body that cannot stay as they are: a sentence each.
    pub fn fields(what: &str, problems: BTreeMap<String, String>) -> Self {
        let list: Vec<String> = problems.iter().map(|(field, message)| format!("{field}: {message}")).collect();
        Self::invalid(format!("{what}: {}", list.join("; ")))
            .with("fields", problems.into_iter().map(|(k, v)| (k, Value::String(v))).collect::<Map<_, _>>())
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Class::Kind(ErrorKind::NotFound), message)
    }

    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Class::Kind(ErrorKind::Conflict), message)
    }

    pub fn timeout(operation: &str) -> Self {
        Self::new(
            Class::Kind(ErrorKind::Timeout),
            format!("{operation} did not answer in time; it may or may not have happened"),
        )
    }

    pub fn unauthorized() -> Self {
        Self::new(Class::Unauthorized, "Unauthorized")
    }

    /// The caller's role is not enough.
    pub fn forbidden(needed: Role, name: &str, role: Role) -> Self {
        let message = format!("This needs the role {}; {name} has {}", needed.as_str(), role.as_str());
        Self::new(Class::Kind(ErrorKind::Denied), message)
    }

    /// The caller may not name another organisation.
    pub fn other_org() -> Self {
        let message = "Only the administrators of the default organisation may ask about another one";
        Self::new(Class::Kind(ErrorKind::Denied), message)
    }

    /// There is no such thing of another organisation.
    pub fn of_default_org() -> Self {
        Self::new(Class::Kind(ErrorKind::Denied), "This is about the default organisation only")
    }

    /// Too many wrong keys came from this address.
    pub fn too_many_failures(wait: Duration) -> Self {
        let mut error = Self::new(Class::TooManyFailures, "Too many wrong keys from this address; wait");
        error.retry_after = Some(wait);
        error
    }

    /// Something that is needed does not work now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        let mut error = Self::new(Class::Kind(ErrorKind::Unavailable), message);
        error.retry_after = Some(RETRY_AFTER);
        error
    }

    pub fn body_too_large(bytes_max: usize) -> Self {
        Self::new(Class::BodyTooLarge, format!("the body is over the bound of {bytes_max} bytes"))
    }

    pub fn body_too_slow() -> Self {
        Self::new(Class::BodyTooSlow, "the body was not sent in time")
    }

    /// Adds a key to the body.
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.extra.insert(key.to_owned(), value.into());
        self
    }

    /// Says it in the words of the endpoint, if it is of this kind.
    pub fn named(mut self, kind: ErrorKind, message: &str) -> Self {
        if self.class == Class::Kind(kind) {
            self.message = message.to_owned();
        }
        self
    }

    pub fn is(&self, kind: ErrorKind) -> bool {
        self.class == Class::Kind(kind)
    }

    /// Whether what was asked for may have been done all the same.
    pub fn may_have_happened(&self) -> bool {
        self.class == Class::Kind(ErrorKind::Timeout)
    }

    /// As one of the problems of a list.
    pub fn in_a_list(self, index: usize) -> Value {
        let mut problem = self.extra;
        problem.insert("index".into(), index.into());
        problem.insert("error".into(), self.message.into());
        Value::Object(problem)
    }

    pub fn status(&self) -> StatusCode {
        self.class.status()
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    /// What the client gets; logs what it does not get. Call within the request's span, once.
    pub fn render(self, correlation_id: &str) -> Response {
        let status = self.status();
        if let Some(source) = &self.source {
            match self.class {
                Class::Kind(ErrorKind::Internal) => tracing::error!(error = %source, "a request failed"),
                Class::Kind(ErrorKind::Full | ErrorKind::Unavailable | ErrorKind::Timeout) => {
                    tracing::warn!(error = %source, "a request could not be served now");
                }
                Class::Kind(ErrorKind::NotFound | ErrorKind::Conflict | ErrorKind::Invalid | ErrorKind::Denied)
                | Class::Unauthorized
                | Class::TooManyFailures
                | Class::MethodNotAllowed
                | Class::BodyTooLarge
                | Class::BodyTooSlow => tracing::debug!(error = %source, "a request was refused"),
            }
        }
        let mut body = self.extra;
        body.insert("error".into(), self.message.into());
        body.insert("correlation_id".into(), correlation_id.into());
        let mut response = (status, Json(Value::Object(body))).into_response();
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}

const RETRY_AFTER: Duration = Duration::from_secs(1);

impl From<StorageError> for ApiError {
    fn from(error: StorageError) -> Self {
        use std::error::Error as _;
        let kind = error.kind();
        let message = match kind {
            ErrorKind::NotFound => "not found".to_owned(),
            ErrorKind::Conflict => "it exists already, or somebody else changed it; read it again".to_owned(),
            ErrorKind::Full => "a bound is reached; nothing was taken; try again later".to_owned(),
            ErrorKind::Unavailable => "the store cannot be reached; try again later".to_owned(),
            ErrorKind::Timeout => "the store did not answer in time; it may or may not have happened".to_owned(),
            // Written by us for whoever sent the input, unless it quotes somebody else's error.
            ErrorKind::Invalid if error.source().is_none() => error.to_string(),
            ErrorKind::Invalid => "the input cannot be used".to_owned(),
            ErrorKind::Denied => "this is not allowed".to_owned(),
            ErrorKind::Internal => {
                "something is wrong on our side; the log says what, under this correlation_id".to_owned()
            }
        };
        let mut api = Self::new(Class::Kind(kind), message);
        api.retry_after = match kind {
            ErrorKind::Full | ErrorKind::Unavailable => Some(error.retry_after.unwrap_or(RETRY_AFTER)),
            ErrorKind::NotFound
            | ErrorKind::Conflict
            | ErrorKind::Timeout
            | ErrorKind::Invalid
            | ErrorKind::Denied
            | ErrorKind::Internal => None,
        };
        api.source = Some(Arc::new(error));
        api
    }
}

/// Rendered by `auth::seal`, which knows the correlation id.
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

pub async fn no_such_path() -> ApiError {
    ApiError::not_found("no such path")
}

pub async fn no_such_method() -> ApiError {
    ApiError::new(Class::MethodNotAllowed, "this path does not take this method")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_status_and_no_store_text_leaves() {
        for (kind, status) in [
            (ErrorKind::NotFound, 404),
            (ErrorKind::Conflict, 409),
            (ErrorKind::Full, 503),
            (ErrorKind::Unavailable, 503),
            (ErrorKind::Timeout, 504),
            (ErrorKind::Invalid, 400),
            (ErrorKind::Denied, 403),
            (ErrorKind::Internal, 500),
        ] {
            let source = std::io::Error::other("SELECT secret FROM t");
            let error = ApiError::from(StorageError::with_source(kind, "database", source));
            assert_eq!(error.status().as_u16(), status, "{kind}");
            assert!(!error.message().contains("SELECT") && !error.message().contains("database"), "{kind}");
            let response = error.render("c-1");
            assert_eq!(response.headers().contains_key(header::RETRY_AFTER), status == 503, "{kind}");
        }
    }

    #[test]
    fn our_own_sentence_about_an_input_is_shown() {
        let error = ApiError::from(StorageError::new(ErrorKind::Invalid, "hostname is longer than 255 characters"));
        assert_eq!(error.message(), "hostname is longer than 255 characters");
    }
}
