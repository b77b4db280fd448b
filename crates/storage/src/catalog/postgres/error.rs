//! What an error of PostgreSQL means for a caller. Neither SQL nor passwords get into its text.

use crate::StorageError;
use model::ErrorKind;
use sqlx::postgres::PgDatabaseError;
use std::time::Duration;

impl From<sqlx::Error> for StorageError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(e) => from_server(e.downcast_ref()),
            sqlx::Error::Io(e) => Self::with_source(ErrorKind::Unavailable, "the database is not reachable", e),
            sqlx::Error::Tls(e) => {
                Self::new(ErrorKind::Unavailable, format!("the database is not reachable over TLS: {e}"))
            }
            sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
                Self::with_source(ErrorKind::Unavailable, "the connection to the database broke", error)
            }
            sqlx::Error::Configuration(e) => Self::new(ErrorKind::Invalid, format!("the database's settings: {e}")),
            other => Self::with_source(ErrorKind::Internal, "the database answered something unexpected", other),
        }
    }
}

fn from_server(error: &PgDatabaseError) -> StorageError {
    let code = error.code();
    let (kind, what) = match code {
        "23505" => (ErrorKind::Conflict, "it is there already"),
        // Without a name it is the bound of a partition: one was made while we wrote, so the same
        // statement finds it now.
        "23514" if error.constraint().is_none() => return at_once(error, "a partition was made meanwhile"),
        "40001" | "40P01" => return at_once(error, "somebody else changed the same rows"),
        "57014" => (ErrorKind::Timeout, "the database took too long"),
        "53100" => (ErrorKind::Full, "the database's disk is full"),
        _ => match code.get(..2).unwrap_or_default() {
            "22" | "23" => (ErrorKind::Invalid, "the database refuses the value"),
            // Not reachable, starting, stopping, overloaded, read-only, without the right or the
            // table: somebody repairs it, and then the same call works.
            "08" | "25" | "28" | "3D" | "3F" | "53" | "55" | "57" | "58" => {
                (ErrorKind::Unavailable, "the database cannot do it now")
            }
            "42" if matches!(code, "42501" | "42P01" | "42883" | "42703") => {
                (ErrorKind::Unavailable, "the database lacks a right or a part of the schema")
            }
            // "cached plan must not change result type": the schema changed under this connection.
            "0A" => (ErrorKind::Unavailable, "the database's schema changed"),
            _ => (ErrorKind::Internal, "the database answered an error"),
        },
    };
    StorageError::new(kind, said(error, what))
}

/// An error after which the same statement may succeed at once.
fn at_once(error: &PgDatabaseError, what: &str) -> StorageError {
    let mut error = StorageError::new(ErrorKind::Unavailable, said(error, what));
    error.retry_after = Some(Duration::ZERO);
    error
}

/// The server's first line and code; its detail, which may quote values, and the statement are left
/// out. Of a refused value even that line is left out, as it quotes it.
fn said(error: &PgDatabaseError, what: &str) -> String {
    match error.code() {
        code if code.starts_with("22") || code.starts_with("42601") => format!("{what} (SQLSTATE {code})"),
        code => format!("{what}: {} (SQLSTATE {code})", error.message()),
    }
}

/// Whether the server refused the login rather than the connection.
pub(super) fn is_login_refused(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(e) if e.code().is_some_and(|c| c == "28P01" || c == "28000"))
}
