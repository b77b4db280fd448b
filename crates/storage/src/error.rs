//! The one error type of the storage families.

use model::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

pub type StorageResult<T> = Result<T, StorageError>;

/// What failed, as code (`kind`) and as a sentence with its source (people).
#[derive(Debug, Clone)]
pub struct StorageError {
    kind: ErrorKind,
    context: String,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
    /// When trying again makes sense, where the store knows.
    pub retry_after: Option<Duration>,
}

impl StorageError {
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), source: None, retry_after: None }
    }

    pub fn with_source(
        kind: ErrorKind,
        context: impl Into<String>,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self { kind, context: context.into(), source: Some(Arc::new(source)), retry_after: None }
    }

    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl std::fmt::Display for StorageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.context)?;
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl std::error::Error for StorageError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|s| s as _)
    }
}

impl From<rusqlite::Error> for StorageError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as C;
        let kind = match error.sqlite_error_code() {
            Some(C::DatabaseBusy | C::DatabaseLocked | C::SystemIoFailure | C::CannotOpen | C::ReadOnly) => {
                ErrorKind::Unavailable
            }
            Some(C::DiskFull) => ErrorKind::Full,
            Some(C::ConstraintViolation) => ErrorKind::Conflict,
            _ if matches!(error, rusqlite::Error::QueryReturnedNoRows) => ErrorKind::NotFound,
            _ => ErrorKind::Internal,
        };
        Self::with_source(kind, "database", error)
    }
}
