//! Predicates as SQL, for SQLite and for ClickHouse: the same answer as [`Predicate::matches`] gives
//! over a [`FieldsView`](crate::FieldsView), for every event, or [`SqlError`] and no SQL at all.
//! `tests/sql` compares them on both engines. Correlations are one query each: [`correlation`].
//!
//! # The table
//!
//! | engine | column | what it has of an event |
//! |---|---|---|
//! | SQLite | `fields TEXT` (or JSONB) | its fields: one flat JSON object, as [`fields_json`] writes it |
//! | ClickHouse | `fields Map(String, Array(String))` | its fields: name → values, as [`fields_map_json`] writes it; empty where there is none |
//! | both | `source`, of the same type | what is known about its log source, as [`source_json`] writes it |
//!
//! Conditions name no other column, and no table. In SQLite they use the [`functions`] beside what
//! SQLite has itself; in ClickHouse only what ClickHouse has.
//!
//! # Safety
//!
//! Every text of a rule, names of fields included, reaches SQL only as a quoted literal
//! ([`Dialect::literal`]); a rule's author cannot leave it.

mod clickhouse;
pub mod correlation;
mod encode;
pub mod functions;
mod render;
mod sqlite;
mod walk;

pub use encode::{fields_json, fields_map_json, source_json};

use crate::Predicate;
use crate::sigma::LogSource;
use render::Clause;
use std::fmt;

/// Deepest nesting of a predicate that is written as SQL; both engines' parsers take it.
pub const SQL_DEPTH_MAX: usize = 48;
/// Longest condition, in bytes. ClickHouse's default `max_query_size` is smaller (256 KiB) and has to
/// be raised for longer ones.
pub const SQL_BYTES_MAX: usize = 4 << 20;

/// Whose SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    Sqlite,
    ClickHouse,
}

impl Dialect {
    /// As configuration and people call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::ClickHouse => "clickhouse",
        }
    }

    /// The text as an expression of this SQL, whatever is in it.
    pub fn literal(self, text: &str) -> String {
        match self {
            Self::Sqlite => sqlite::literal(text),
            Self::ClickHouse => clickhouse::literal(text),
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a predicate has no SQL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SqlError {
    /// The engine cannot give the exact answer.
    #[error("{dialect} cannot answer this exactly: {what}")]
    Unsupported { dialect: Dialect, what: String },
    /// It is nested deeper than the engines read.
    #[error("the condition is nested deeper than {max} levels")]
    TooDeep { max: usize },
    /// It would be longer than the engines read.
    #[error("the condition would be longer than {max} bytes of SQL")]
    TooLong { max: usize },
}

/// The condition of a `WHERE`, over several lines where it is long; no line ends it.
pub fn where_clause(predicate: &Predicate, dialect: Dialect) -> Result<String, SqlError> {
    rendered(&clause(predicate, dialect)?)
}

fn clause(predicate: &Predicate, dialect: Dialect) -> Result<Clause, SqlError> {
    match dialect {
        Dialect::Sqlite => walk::clause(predicate, &sqlite::Sqlite),
        Dialect::ClickHouse => walk::clause(predicate, &clickhouse::ClickHouse),
    }
}

fn rendered(clause: &Clause) -> Result<String, SqlError> {
    let sql = render::render(clause);
    if sql.len() > SQL_BYTES_MAX {
        return Err(SqlError::TooLong { max: SQL_BYTES_MAX });
    }
    Ok(sql)
}

/// The same for a rule that is about some logs only: as the streaming matcher does it, events that are
/// known to come from another source are left out.
pub fn rule_clause(source: &LogSource, predicate: &Predicate, dialect: Dialect) -> Result<String, SqlError> {
    let mut parts = Vec::new();
    for (name, wanted) in [("product", &source.product), ("category", &source.category), ("service", &source.service)] {
        if let Some(wanted) = wanted {
            let wanted = wanted.to_ascii_lowercase();
            parts.push(match dialect {
                Dialect::Sqlite => sqlite::from_source(name, &wanted),
                Dialect::ClickHouse => clickhouse::from_source(name, &wanted),
            });
        }
    }
    match clause(predicate, dialect)? {
        Clause::All(more) => parts.extend(more),
        one @ (Clause::Text(_) | Clause::Any(_) | Clause::Not(_) | Clause::Within { .. }) => parts.push(one),
    }
    rendered(&Clause::All(parts))
}

/// A query for the `columns` of the rows of `table` that satisfy the predicate. Both are the
/// program's own words and stand in the SQL as they are.
pub fn select(columns: &str, table: &str, predicate: &Predicate, dialect: Dialect) -> Result<String, SqlError> {
    let condition = where_clause(predicate, dialect)?;
    Ok(format!("SELECT {columns}\nFROM {table}\nWHERE {}", condition.replace('\n', "\n  ")))
}
